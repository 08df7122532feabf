"""Opens what submit.py wrote, and says what it saw: python check.py FOLDER"""

import sys
from pathlib import Path

from PIL import Image
from submit import SIZES
from tasks import SIDE_MAX


def main(folder: Path) -> None:
    for width, height in SIZES:
        with Image.open(folder / f"{width}x{height}.jpg") as small:
            small.load()
            scale = min(1, SIDE_MAX / max(width, height))
            expected = (max(1, round(width * scale)), max(1, round(height * scale)))
            found = (small.format, *small.size)
            assert small.format == "JPEG", found
            # Pillow rounds a side up or down.
            assert all(abs(a - b) <= 1 for a, b in zip(small.size, expected, strict=True)), found
            assert len(small.getcolors(SIDE_MAX**2) or []) > 10, "it shows nothing"
    broken = (folder / "broken.txt").read_text()
    assert "not a picture that can be read" in broken, broken
    print(f"{len(SIZES)} thumbnails of the right sizes, and one refusal")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
