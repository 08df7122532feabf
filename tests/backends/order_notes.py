"""The machine of `order_riding.py`, and what agents say of their runs while they last.

Only who holds the lease is heard; each line has the next number of its attempt, whether it is kept
or not; and what is kept is what the limits allow.
"""

from typing import Any

from hypothesis import strategies as st

from taskdist.core import commands
from taskdist.core.commands import Command
from taskdist.core.entries import EntryKind, Remark
from tests.backends.order_machine import Said, any_held, often
from tests.backends.order_riding import StreamsAgainstModel
from tests.backends.order_rows import (
    ENTRIES_AT_ONCE,
    ENTRIES_PER_SECOND,
    SECOND_US,
    Answer,
    Row,
)

LINES = st.lists(st.sampled_from(["a", "b" * 1_500]), min_size=1, max_size=4)
"""Two of the long ones are kept, three are not."""


def remark(text: str) -> Remark:
    """A line."""
    return Remark(EntryKind.LOG, 0, text)


class NotesAgainstModel(StreamsAgainstModel):
    """The same machine, and talkative agents."""

    def noting(self, row: Row, agent_id: str, lease_id: str, lines: list[str]) -> Said:
        """Somebody says something of a run."""

        def follow() -> tuple[Command[Any], Answer]:
            said = tuple(map(remark, lines))
            command = commands.Note(row.id, agent_id, lease_id, said)
            return command, self.noted(row, agent_id, lease_id, lines)

        return follow

    def noted(self, row: Row, agent_id: str, lease_id: str, lines: list[str]) -> Answer:
        """What the rules make of it."""
        if self.model.find(row.id) is None:
            return "TaskNotFound"
        held = row.held
        if held is None or agent_id != held.agent_id or lease_id not in ("", row.held_id):
            return "LeaseNotHeld"
        # Also those of an earlier lease of this same number, which counts as nothing.
        allowed = ENTRIES_AT_ONCE
        allowed += ENTRIES_PER_SECOND * ((self.model.served_us - held.started_us) // SECOND_US)
        dropped = 0
        for text in lines:
            is_kept = row.log.taken(row.attempt) < allowed
            row.log.add(row.attempt, text, is_kept=is_kept)
            dropped += not is_kept
        row.log.cut()
        return ("noted", dropped)

    @often(4, any_held)
    def note(self, data: st.DataObject) -> None:
        row = self.held(data)
        assert row.held is not None
        agent_id, lease_id = row.held.agent_id, data.draw(st.sampled_from([row.held_id, ""]))
        said = [self.noting(row, agent_id, lease_id, data.draw(LINES))]
        if data.draw(st.booleans()):
            self.say(*said, self.noting(row, agent_id, lease_id, data.draw(LINES)))
            return
        said.append(self.outcome(data, row))
        said.append(self.noting(row, agent_id, row.held_id, ["too late"]))
        self.say(self.several(said, atomic=data.draw(st.booleans())))

    @often(1, any_held)
    def note_in_vain(self, data: st.DataObject) -> None:
        """P3: nobody else speaks of a run, and nothing is kept of it."""
        row = self.held(data)
        assert row.held is not None
        self.say(
            self.noting(row, "agent-3", row.held_id, ["a lie"]),
            self.noting(row, row.held.agent_id, "gone", ["late"]),
        )

    @often(1, lambda self: self.said)
    def note_after_the_end(self, data: st.DataObject) -> None:
        """A run that is over has nothing more to say."""
        task_id, agent_id, lease_id, *_ = data.draw(st.sampled_from(self.said))
        row = self.model.find(task_id)
        if row is not None:
            self.say(self.noting(row, agent_id, lease_id or "gone", ["late"]))
