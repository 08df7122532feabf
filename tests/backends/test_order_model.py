"""P2, and all that bears on it: the writer against a brute-force model, step by step.

`order_model.py` says what should be, `order_machine.py` what is compared, and `order_verbs.py` and
`order_riding.py` what happens.
"""

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import ClassVar
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from taskdist.backends import live
from taskdist.core import commands
from tests.backends.order_commands import ANSWERS, STEPS
from tests.backends.order_machine import WriterAgainstModel, any_held, often
from tests.backends.order_notes import NotesAgainstModel
from tests.backends.order_rows import SECOND_US, Wait
from tests.backends.order_verbs import outcomes
from tests.support.backends import copy_store
from tests.support.examples import examples

pytestmark = pytest.mark.proof

TIER_LISTS = [("paid", "free"), ("free", "paid"), ("paid",), ("gold", "paid", "free")]


MEMORY_DISK = Path("/dev/shm")
"""Files that need not outlive the machine are quick here."""


class InMemory(NotesAgainstModel):
    """On SQLite's `:memory:`."""

    seen: ClassVar[Counter[str]] = Counter()


class OnFile(NotesAgainstModel):
    """The same on a file, which can be closed, or left behind by a crash, and opened again."""

    seen: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        self.directory = tempfile.mkdtemp(dir=MEMORY_DISK if MEMORY_DISK.is_dir() else None)
        self.path = Path(self.directory) / "tasks.db"
        super().__init__()

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            shutil.rmtree(self.directory)

    @often(1)
    def restart(self, data: st.DataObject) -> None:
        """P4: every lease gets a full term; the order is that of the tiers as they are now."""
        self.say()
        if data.draw(st.booleans()):
            self.say(self.verb(commands.StopTakes, "stop"))
            self.say(self.take(Wait(self.token(), "agent-1", ("east",), (), 1, SECOND_US)))
        self.writer.close()
        self.saved_us = self.served_us
        self.come_back(data, data.draw(st.sampled_from(TIER_LISTS)))

    @often(1)
    def crash(self, data: st.DataObject) -> None:
        """P1: what was said is on the disk; served time may go back to what was saved."""
        assert self.path is not None
        copy = copy_store(self.path)
        self.writer.abandon()
        self.path = copy
        self.served_us = self.saved_us
        self.come_back(data, self.model.tiers)

    def come_back(self, data: st.DataObject, tiers: tuple[str, ...]) -> None:
        """Opens; while tasks are loaded, two at a time, agents speak already."""
        self.open(tiers)
        with mock.patch.object(live, "LOAD_ROWS", 2):
            while self.writer.is_loading:
                self.writer.load_some()
                if any_held(self) and data.draw(st.booleans()):
                    row = self.held(data)
                    assert row.held is not None
                    whose = (row.id, row.held.agent_id, row.held_id)
                    self.say(self.settling(*whose, data.draw(outcomes), ""))


def check(machine: type[WriterAgainstModel]) -> None:
    """A hundred runs, in which everything that can happen does.

    Should chance have left something out, it has two more tries.
    """
    missing = STEPS | ANSWERS
    for _ in range(3):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples(100),
                stateful_step_count=32,
                deadline=None,  # However busy the machine is.
                suppress_health_check=list(HealthCheck),
            ),
        )
        missing = {what for what in missing if not machine.seen[what]}
        if not missing:
            return
    raise AssertionError(f"never came about: {sorted(missing)}")


def test_p2_in_memory() -> None:
    check(InMemory)


def test_p2_on_a_file() -> None:
    check(OnFile)
