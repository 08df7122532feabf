"""P2, and all that bears on it: the writer against a brute-force model, step by step.

`order_model.py` says what should be, `order_machine.py` what happens and what is compared, and
`order_riding.py` the part of it that Work streams play.
"""

import shutil
import tempfile
from pathlib import Path
from unittest import mock

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from taskdist.backends import live
from tests.backends.order_commands import OUTCOMES
from tests.backends.order_riding import StreamsAgainstModel
from tests.support.backends import copy_store

TIER_LISTS = [("paid", "free"), ("free", "paid"), ("paid",), ("gold", "paid", "free")]


MEMORY_DISK = Path("/dev/shm")
"""Files that need not outlive the machine are quick here."""


class FileAgainstModel(StreamsAgainstModel):
    """The same on a file, which can be closed, or left behind by a crash, and opened again."""

    def __init__(self) -> None:
        self.directory = tempfile.mkdtemp(dir=MEMORY_DISK if MEMORY_DISK.is_dir() else None)
        self.path = Path(self.directory) / "tasks.db"
        super().__init__()

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            shutil.rmtree(self.directory)

    @rule(data=st.data(), tiers=st.sampled_from(TIER_LISTS))
    def restart(self, data: st.DataObject, tiers: tuple[str, ...]) -> None:
        """P4: every lease gets a full term; the order is that of the tiers as they are now."""
        self.step()
        self.writer.close()
        self.saved_us = self.served_us
        self.come_back(data, tiers)

    @rule(data=st.data())
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
        self.model.restart(self.served_us)
        with mock.patch.object(live, "LOAD_ROWS", 2):
            while self.writer.is_loading:
                self.writer.load_some()
                if self.any_held() and data.draw(st.booleans()):
                    outcome = data.draw(st.sampled_from(sorted(OUTCOMES)))
                    self.settle(self.held(data), outcome)


def enough(examples: int) -> settings:
    """So many runs of 40 steps, however busy the machine is."""
    return settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


TestInMemory = StreamsAgainstModel.TestCase
TestInMemory.settings = enough(100)
TestOnFile = FileAgainstModel.TestCase
TestOnFile.settings = enough(80)
