"""Free and paying users ask at once, and paid comes first: python submit.py FOLDER"""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sklearn.datasets import load_digits
from tasks import TRAINED_WITH, Prompt, infer

from taskdist import Client

FREE, PAID = 40, 10


def main(folder: Path) -> None:
    pictures, digits = (part[TRAINED_WITH:] for part in load_digits(return_X_y=True))
    prompts = [Prompt(pixels=list(picture)) for picture in pictures[: FREE + PAID]]
    rush_hour = datetime.now(UTC) + timedelta(seconds=5)
    with Client() as client:  # of TASKDIST_SERVER, or of this machine
        # The free ones are older, and all may start at the same moment.
        handles = client.submit_many(infer, prompts[:FREE], tier="free", at=rush_hour)
        handles += client.submit_many(infer, prompts[FREE:], tier="paid", at=rush_hour)
        answers: list[dict[str, Any]] = []
        for place, (handle, digit) in enumerate(zip(handles, digits, strict=False)):
            completion = handle.result(timeout="1m")
            task = handle.report()
            answers.append(
                {
                    "tier": task.user_tier,
                    "started_at": task.attempts[0].started_at.isoformat(),
                    "digit": completion.digit,
                    "probability": completion.probability,
                    "truth": int(digit),
                    "picture": place,
                }
            )
    answers.sort(key=lambda answer: answer["started_at"])
    (folder / "answers.json").write_text(json.dumps(answers))
    for place, answer in enumerate(answers, start=1):
        print(f"{place:3} {answer['tier']} {answer['digit']} {answer['probability']:.0%}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
