"""The machine of `order_verbs.py`, and what a Work stream asks of a backend besides.

Takes whose slots count what their session holds, and outcomes with a take that rides along in the
same commit: who gets what, in which order, and who only waits, is what the model says.
"""

from typing import Any

from hypothesis import strategies as st

from taskdist.core import commands
from taskdist.core.commands import Command
from tests.backends.order_commands import take_command
from tests.backends.order_machine import Said, any_held, often
from tests.backends.order_rows import Answer, Row, Wait
from tests.backends.order_verbs import VerbsAgainstModel, agents, kinds, outcomes, queues, waits

sessions = st.sampled_from(["", "s-1"])


class StreamsAgainstModel(VerbsAgainstModel):
    """The same machine with Work streams at the door."""

    @often(2)
    def take_in_all(self, data: st.DataObject) -> None:
        """Never more than the slots that are free; who has none does not wait."""
        self.say(self.take(self.asking(data, data.draw(kinds), in_all=True)))

    def asking(self, data: st.DataObject, kinds: tuple[str, ...], *, in_all: bool) -> Wait:
        """Some take of some session."""
        lanes = (data.draw(queues), kinds)
        slots, session = data.draw(st.integers(0, 5)), data.draw(sessions)
        whose = data.draw(agents)
        return Wait(self.token(), whose, *lanes, slots, data.draw(waits), session, in_all)

    @often(3, any_held)
    def settle_and_take(self, data: st.DataObject) -> None:
        """P2: what the outcomes make ready goes to those who waited, then to the take."""
        held = st.sampled_from([row for row in self.model.rows if row.held])
        rows = data.draw(st.lists(held, max_size=3, unique_by=lambda row: row.id))
        said = [self.outcome(data, row) for row in rows]
        asking = self.asking(data, (), in_all=data.draw(st.booleans()))
        said.insert(data.draw(st.integers(0, len(rows))), self.riding(asking))
        self.say(self.several(said, atomic=False))

    def riding(self, asking: Wait) -> Said:
        """A take that never waits."""

        def follow() -> tuple[Command[Any], Answer]:
            return take_command(asking), self.model.take_only(asking)

        return follow

    def outcome(self, data: st.DataObject, row: Row) -> Said:
        """Some outcome of a held task."""
        assert row.held is not None
        whose = (row.id, row.held.agent_id, row.held_id)
        return self.settling(*whose, data.draw(outcomes), "")

    @often(1, any_held)
    def resume(self, data: st.DataObject) -> None:
        """A stream begins anew, and its agent says which leases have reached it."""
        held = [row for row in self.model.rows if row.held]
        row = data.draw(st.sampled_from(held))
        assert row.held is not None
        whose = (row.held.agent_id, row.held.session)
        claimed = data.draw(st.lists(st.sampled_from(held), unique_by=lambda row: row.id))
        lease_ids = tuple(row.held_id for row in claimed)
        ids = tuple(row.id for row in claimed)

        def follow() -> tuple[Command[Any], Answer]:
            return commands.Resume(*whose, lease_ids), self.model.resume(*whose, ids)

        self.say(follow)
