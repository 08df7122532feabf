"""`python -m tests.support.faulty_serve FAULTS serve …`: taskdist on a disk with faults."""

import sys
from pathlib import Path

from taskdist.cli import main
from tests.support.faulty_disk import Faults, faulty

if __name__ == "__main__":
    faults = Faults(Path(sys.argv.pop(1)))
    with faulty(faults):
        main()
