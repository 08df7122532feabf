"""The machine of `order_machine.py`, and what a Work stream asks of a backend besides.

Takes whose slots count what their session holds, and outcomes with a take that rides along in the
same commit: who gets what, in which order, and who only waits, is what the model says.
"""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from taskdist.core import commands
from taskdist.core.commands import Grants
from tests.backends.order_commands import OUTCOMES, settle_command, take_command
from tests.backends.order_machine import WriterAgainstModel, agents, kinds, queues
from tests.backends.order_model import SECOND_US, Row, Wait

sessions = st.sampled_from(["", "s-1"])


class StreamsAgainstModel(WriterAgainstModel):
    """The same machine with Work streams at the door."""

    @rule(
        agent_id=agents,
        session=sessions,
        queues=queues,
        kinds=kinds,
        slots=st.integers(0, 4),
        wait_us=st.sampled_from([0, SECOND_US]),
    )
    def take_in_all(
        self,
        agent_id: str,
        session: str,
        queues: tuple[str, ...],
        kinds: tuple[str, ...],
        slots: int,
        wait_us: int,
    ) -> None:
        """Never more than the slots that are free; who has none does not wait."""
        asking = Wait(
            self.token(), agent_id, queues, kinds, slots, self.served_us, session, in_all=True
        )
        self.take_as(asking, wait_us)

    @precondition(lambda self: self.any_held())
    @rule(
        data=st.data(),
        agent_id=agents,
        session=sessions,
        queues=queues,
        slots=st.integers(0, 4),
        in_all=st.booleans(),
        wait_us=st.sampled_from([0, SECOND_US]),
    )
    def settle_and_take(
        self,
        data: st.DataObject,
        agent_id: str,
        session: str,
        queues: tuple[str, ...],
        slots: int,
        in_all: bool,
        wait_us: int,
    ) -> None:
        """P2: what the outcomes make ready goes to those who waited, then to the take."""
        asking = Wait(
            self.token(), agent_id, queues, (), slots, self.served_us, session, in_all=in_all
        )
        held = st.sampled_from([row for row in self.model.rows if row.held])
        rows = data.draw(st.lists(held, max_size=3, unique_by=lambda row: row.id))
        settles = [self.outcome(data, row) for row in rows]
        place = data.draw(st.integers(0, len(rows)))
        asked: list[commands.Command[Any]] = [*settles]
        asked.insert(place, take_command(asking, wait_us))
        (answers,), others = self.step(commands.Several(tuple(asked)))
        assert len(answers) == len(asked)

        said = list(zip(rows, settles, answers[:place] + answers[place + 1 :], strict=True))
        for row, settle, answer in said[:place]:
            self.settled(row, settle, answer)
        served = self.model.serve(self.served_us)  # They came first.
        given = self.model.give(asking, self.served_us)
        for row, settle, answer in said[place:]:
            self.settled(row, settle, answer)
        assert isinstance(answers[place], Grants), "it never waits"
        assert [grant.task.id for grant in answers[place].grants] == given
        self.check_line(others, served)

    def outcome(self, data: st.DataObject, row: Row) -> commands.Settle:
        """Some outcome of a held task."""
        return settle_command(row, data.draw(st.sampled_from(sorted(OUTCOMES))))
