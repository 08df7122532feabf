"""`python -m taskdist` is the command `taskdist`."""

from taskdist.cli import main

main()
