"""Thumbnails: a picture goes in, a small JPEG comes out."""

import io
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

from taskdist import Fatal, Registry

SIDE_MAX = 128

tasks = Registry()

# A picture that is a bomb ends its task, and not in a warning.
warnings.simplefilter("error", Image.DecompressionBombWarning)


@tasks.handler(timeout="30s", max_retries=1, process=True)
def thumbnail(picture: bytes) -> bytes:
    """The picture upright, in its own proportions, no side longer than SIDE_MAX.

    In a process of its own: decoding is C code that neither a broken file nor a stuck loop can use
    to stop the agent.
    """
    try:
        with Image.open(io.BytesIO(picture)) as opened:
            small = ImageOps.exif_transpose(opened).convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombWarning, OSError) as error:
        raise Fatal(f"not a picture that can be read: {error}") from error  # no retry would help
    small.thumbnail((SIDE_MAX, SIDE_MAX))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=85)
    return out.getvalue()
