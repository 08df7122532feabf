"""Compares the answers with the model's own, and looks at the order: python check.py FOLDER"""

import json
import sys
from pathlib import Path

from sklearn.datasets import load_digits
from submit import FREE, PAID
from tasks import TRAINED_WITH, train

ACCURACY_MIN = 0.9


def main(folder: Path) -> None:
    answers = json.loads((folder / "answers.json").read_text())
    tiers = [answer["tier"] for answer in answers]
    assert tiers == ["paid"] * PAID + ["free"] * FREE, tiers
    pictures, digits = (part[TRAINED_WITH:] for part in load_digits(return_X_y=True))
    model = train()
    accuracy = float(model.score(pictures, digits))
    assert accuracy > ACCURACY_MIN, accuracy
    own = model.predict(pictures)
    assert [answer["digit"] for answer in answers] == [own[answer["picture"]] for answer in answers]
    right = sum(answer["digit"] == answer["truth"] for answer in answers)
    assert right >= ACCURACY_MIN * len(answers), right
    print(
        f"{len(answers)} answers, {right} right (accuracy of the model: {accuracy:.0%}); "
        f"all {PAID} paid before the {FREE} free"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
