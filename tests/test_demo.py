"""The demo is true, and would say so if it were not."""

import subprocess
import sys

import pytest

from taskdist.cli.demo import acts


def test_the_demo_holds_its_statements() -> None:
    """P1, P2, P4, P5 in real processes: order, retries, an agent and a distributor killed."""
    demo = subprocess.run(
        [sys.executable, "-m", "taskdist", "demo", "--speed", "20"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert demo.stdout.count("  TRUE   ") == 5
    assert "worked as paid-3s, paid-5s, free-2s, free-10s" in demo.stdout
    assert "FALSE" not in demo.stdout


async def test_a_false_statement_is_found_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With this seed nothing fails four times, so that what act b says of that is not true."""
    monkeypatch.setattr(acts, "SEED", 3)
    assert not await acts.perform(speed=40)
    assert "  FALSE  none ran more than 4 times" in capsys.readouterr().out
