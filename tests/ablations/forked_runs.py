"""Runs the test that each switch names, without its safeguard: one line of JSON for each switch.

All that tests import is imported once, here, and each run is a fork of its own.
"""

import gc
import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.ablations.switches import SWITCHES, Switch

TESTS = Path(__file__).parents[1]
IMPORTED_ONCE = (
    "_pytest.assertion.rewrite",
    "hypothesis.stateful",
    "looptime",
    "pytest_asyncio.plugin",
    "tests.support.agents",
    "tests.support.backends",
    "tests.support.floods",
    "tests.support.peer",
    "tests.support.power_loss",
)
"""What most runs need."""
LIMIT_S = 30
"""For one run, which takes a second: then it is killed."""


class Recorder:
    """What became of the tests of a run."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed: list[str] = []
        """What each failure was, by the name of its exception."""
        self.broken: list[str] = []
        """What went wrong before or after a test, likewise."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Counts those that pass."""
        self.passed += report.when == "call" and report.passed

    def pytest_exception_interact(
        self, call: "pytest.CallInfo[Any]", report: pytest.CollectReport | pytest.TestReport
    ) -> None:
        """Notes those that do not."""
        assert call.excinfo is not None
        (self.failed if call.when == "call" else self.broken).append(call.excinfo.typename)


def _run(switch: Switch) -> dict[str, object]:
    recorder = Recorder()
    options = [
        "--without",
        switch.name,
        "--assert=plain",
        "-pno:cacheprovider",
        "-pno:xdist",
        "-x",
        "--tb=no",
    ]
    code = pytest.main([*options, f"{TESTS / switch.file}", "-k", switch.test], plugins=[recorder])
    return {"name": switch.name, "code": code, **vars(recorder)}


def main() -> None:
    """Runs them, one after the other, so that none disturbs another's times."""
    for module in IMPORTED_ONCE:
        import_module(module)
    gc.freeze()  # Not to be looked at by each run: pytest collects more than once.
    for switch in SWITCHES.values():
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            signal.alarm(LIMIT_S)  # Without its safeguard a test may have no end.
            lines = os.dup(1)
            os.dup2(2, 1)  # What pytest says is for those who look into a failure.
            os.write(lines, (json.dumps(_run(switch)) + "\n").encode())
            os._exit(0)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
