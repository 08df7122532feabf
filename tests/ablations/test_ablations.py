"""Each safeguard is needed: without it, a test that passes with it fails (P1 to P7).

A safeguard whose loss nothing notices would lack a test.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.ablations.switches import SWITCHES

pytestmark = pytest.mark.proof

ROOT = Path(__file__).parents[2]
LIMIT_S = 600
SWITCHES_MIN = 12
NOTICED = {"AssertionError", "Failed", "TimeoutError"}
"""What a failed test says: that it is not so, that nothing was raised, that nothing came."""


@pytest.fixture(scope="module")
def runs() -> dict[str, dict[str, Any]]:
    """What became of each run, by the name of its switch."""
    command = [sys.executable, "-m", "tests.ablations.forked_runs"]
    ran = subprocess.run(
        command, cwd=ROOT, check=True, timeout=LIMIT_S, capture_output=True, text=True
    )
    found = map(json.loads, ran.stdout.splitlines())
    return {run["name"]: run for run in found}


@pytest.mark.parametrize("name", SWITCHES)
def test_p1_to_p7_the_loss_of_a_safeguard_is_noticed(
    runs: dict[str, dict[str, Any]], name: str
) -> None:
    """The test that its switch names fails, in what it asserts; its ordinary run shows that it
    passes otherwise."""
    assert name in runs, "it has no end"
    run = runs[name]
    assert run["code"] == pytest.ExitCode.TESTS_FAILED, run
    assert run["failed"]
    assert set(run["failed"]) <= NOTICED
    assert not run["broken"]


def test_the_switches_are_many_and_documented() -> None:
    """P1 to P7: at least so many, each with what is so without it and what notices."""
    assert len(SWITCHES) >= SWITCHES_MIN
    page = (ROOT / "docs/reliability.md").read_text()
    for name, switch in SWITCHES.items():
        assert switch.turn_off.__doc__
        without = switch.turn_off.__doc__.strip()
        assert f"| `{name}` | {without} | `{switch.file}` `{switch.test}` |" in page
