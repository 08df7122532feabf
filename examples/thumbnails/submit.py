"""Makes pictures, has them made small, and writes the thumbnails: python submit.py FOLDER"""

import io
import sys
from pathlib import Path

from PIL import Image, ImageDraw
from tasks import thumbnail

from taskdist import Client, TaskFailed

SIZES = [(640, 480), (480, 640), (1000, 50), (900, 900), (64, 48)]


def picture(width: int, height: int) -> bytes:
    """A PNG of this size, with a gradient and an ellipse."""
    made = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    ImageDraw.Draw(made).ellipse((0, 0, width - 1, height - 1), outline="red", width=3)
    out = io.BytesIO()
    made.save(out, "PNG")
    return out.getvalue()


def main(folder: Path) -> None:
    with Client() as client:  # of TASKDIST_SERVER, or of this machine
        pictures = [picture(*size) for size in SIZES]
        handles = client.submit_many(thumbnail, pictures, tier="paid", time="100ms")
        for (width, height), handle in zip(SIZES, handles, strict=True):
            (folder / f"{width}x{height}.jpg").write_bytes(handle.result(timeout="1m"))
        try:
            client.submit(thumbnail, b"no picture at all").result(timeout="1m")
        except TaskFailed as error:
            (folder / "broken.txt").write_text(str(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
