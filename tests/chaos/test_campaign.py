"""A minute of the kill campaign, as a part of every run of the tests."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

LIMIT_S = 600.0
"""How long it may take, with its drain, on a machine that is busy with all else."""


def campaign(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `scripts/chaos`, whose files all go into this folder."""
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(
        [sys.executable, "-m", "scripts.chaosing", *arguments],
        cwd=ROOT,
        env=environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def left_running(folder: Path) -> list[str]:
    """Processes that were told of this folder, by their command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_text()
        except OSError:  # It is gone.
            continue
        if str(folder) in command:
            found.append(command)
    return found


def test_a_minute_of_kills_stops_and_cuts_breaks_no_promise(tmp_path: Path) -> None:
    """P1 to P5: by the histories of all players; and nothing is left behind."""
    run = campaign(tmp_path, "--seed", "9", "--minutes", "1")
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"^violations +0$", run.stdout, re.MULTILINE)
    for name in ("faults", "runs", "  kill", "  stop", "  cut"):
        assert re.search(rf"^{name} +[1-9]", run.stdout, re.MULTILINE), name
    assert not left_running(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "name"),
    [(["--minutes", "0"], "--minutes"), (["--rate", "-1"], "--rate"), (["--nonsense"], "nonsense")],
)
def test_bad_arguments_are_named(tmp_path: Path, arguments: list[str], name: str) -> None:
    """One line for each mistake, and nothing is started."""
    run = campaign(tmp_path, *arguments)
    assert run.returncode == 2
    assert name in run.stderr
    assert "Traceback" not in run.stderr
    assert not list(tmp_path.iterdir())
