"""The command `taskdist`, also as `python -m taskdist`."""

import gc

GARBAGE_NEW_MAX = 50_000
"""New containers before the collector looks for cycles. To import the rest makes them by the
hundred thousand, which all stay: with Python's 700 a start looks at them for a tenth of a second.
`interpreter.py` has more to set, but takes imports itself."""

gc.set_threshold(GARBAGE_NEW_MAX)

from taskdist.cli import main  # noqa: E402 # the threshold is there for what this imports

if __name__ == "__main__":
    main()
