"""The command `taskdist`, also as `python -m taskdist`."""

import gc

# Before anything else is imported: that makes values by the hundred thousand, which all stay, and
# with Python's 700 each start looks at them again and again, for a tenth of a second.
gc.set_threshold(50_000)

from taskdist.cli import main  # noqa: E402 # see above

if __name__ == "__main__":
    main()
