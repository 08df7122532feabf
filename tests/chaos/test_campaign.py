"""A minute of the kill campaign, as a part of every run of the tests."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.proof

ROOT = Path(__file__).parent.parent.parent

PLAYERS = 7
"""A distributor, four agents, two submitters."""

LIMIT_S = 600.0
"""How long it may take, with its drain, on a machine that is busy with all else."""


def campaign(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `scripts/chaos`, whose files all go into this folder."""
    process = begun(folder, *arguments)
    try:
        told, errors = process.communicate(timeout=LIMIT_S)
    finally:
        if process.poll() is None:
            process.terminate()  # It ends its players.
            process.wait()
    return subprocess.CompletedProcess(arguments, process.returncode, told, errors)


def begun(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """`scripts/chaos`, on its way."""
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.chaosing", *arguments],
        cwd=ROOT,
        env=environ | {"TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
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
    for judged in (
        r"^streams cut in mid-lease +[1-9]",
        r"^order +[1-9][\d,]* leases, .* [1-9][\d,]* while others waited",
        r"^expiry +[1-9][\d,]* lost leases, of [1-9]",
    ):
        assert re.search(judged, run.stdout, re.MULTILINE), run.stdout
    assert not left_running(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_signal_ends_it_with_all_its_players(tmp_path: Path) -> None:
    """Nothing runs on; the histories so far are kept."""
    process = begun(tmp_path, "--seed", "1", "--minutes", "60")
    assert process.stdout is not None
    process.stdout.readline()
    (folder,) = tmp_path.iterdir()
    end = time.monotonic() + LIMIT_S
    while len(left_running(folder)) < PLAYERS and time.monotonic() < end:
        time.sleep(0.1)  # They are other processes: no clock of ours moves them.
    process.terminate()
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert not left_running(tmp_path)
    assert list((folder / "histories").iterdir())


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
