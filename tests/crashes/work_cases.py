"""A crash in each thing that an agent says over Work, like `cases.py`."""

from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

from tests.crashes.play import AGENT, LEASED, READY, SESSION, SUCCEEDED, Case, Play, ended, whole

LAST = [{"log": "my last word"}]
NOT_HELD = "none"
"""A lease that no agent has: it is revoked at once, which says that hello was heard."""


class Stream:
    """An open Work stream, which has said hello and been heard.

    Attributes:
        heard: all messages after the answer to hello.
    """

    def __init__(self, play: Play, session: str, slots: int, lease_ids: list[str]) -> None:
        self.heard: list[Any] = []
        self._says: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._answers = play.official.talk("Work", iter(self._says.get, None))
        self.say(hello=hello(play, session, slots, [*lease_ids, NOT_HELD]))

    def meet(self) -> "Stream":
        """Returns once hello is answered."""
        assert NOT_HELD in next(self._answers).revoked_lease_ids
        return self

    def say(self, **said: Any) -> None:
        """Sends this."""
        self._says.put(said)

    def listen(self) -> Iterator[Any]:
        """What comes, until the end."""
        for message in self._answers:
            self.heard.append(message)
            yield message

    def leave(self) -> bool:
        """Says no more, and hears the rest."""
        self._says.put(None)
        for _ in self.listen():
            pass
        return True

    def break_off(self) -> None:
        """As if it had broken, but for the thread that waits to speak."""
        self._says.put(None)
        self._answers.cancel()  # type: ignore[attr-defined] # it is the call, too

    @property
    def leases(self) -> list[Any]:
        """The tasks that it got."""
        return [given for message in self.heard for given in message.leases]

    @property
    def verdicts(self) -> dict[str, str]:
        """What was said of outcomes, by lease: `accepted` or `refusal`."""
        verdicts = [verdict for message in self.heard for verdict in message.verdicts]
        return {verdict.lease_id: verdict.WhichOneof("verdict") for verdict in verdicts}


def hello(play: Play, session: str, slots: int, lease_ids: list[str]) -> dict[str, Any]:
    """Of this session, for the case's queue."""
    said = {"agent_id": AGENT, "session": session, "queues": [play.queue]}
    return {**said, "slots": slots, "lease_ids": lease_ids}


def work_hello(play: Play) -> Case:
    """Of two leases one is still held; the other is back, and nothing is counted."""
    session = SESSION + play.queue
    play.submit(1)
    play.submit(2)
    held, other = play.lease(session), play.lease(session)

    def call() -> bool:
        return Stream(play, session, 0, [held.lease_id]).leave()

    yield call
    found = play.get(other.task_id)
    yield whole(found.task.state == READY, found.task.attempt == 0)
    Stream(play, session, 0, [held.lease_id]).meet().leave()
    found = play.get(other.task_id)
    assert (found.task.state, len(found.attempts)) == (READY, 0)
    assert play.call("CompleteTask", **ended(held)).acknowledged
    play.known[held.task_id] = SUCCEEDED
    play.comes(other.task_id)


def work_leases(play: Play) -> Case:
    """A lease that nobody heard of is undone by the next hello; one that was heard is held."""
    first, second = play.submit(1), play.submit(2)
    session = SESSION + play.queue
    stream = Stream(play, session, 0, []).meet()

    def call() -> bool:
        stream.say(slots=1)
        next(stream.listen())
        stream.say(goodbye=True)
        return stream.leave()

    yield call
    found = play.get(first).task
    yield whole(found.state == LEASED, found.attempt == 1)
    assert [given.task_id for given in stream.leases] in ([], [first])
    lease_ids = [given.lease_id for given in stream.leases]
    assert not lease_ids or found.state == LEASED
    again = Stream(play, session, 1, lease_ids).meet()
    given = stream.leases[0] if stream.leases else next(again.listen()).leases[0]
    assert (given.task_id, given.attempt) == (first, 1)
    again.say(slots=0, outcomes=[ended(given)])
    again.leave()
    assert again.verdicts == {given.lease_id: "accepted"}
    play.known[first] = SUCCEEDED
    play.comes(second)


def work_outcomes(play: Play) -> Case:
    """A success with a last word, a failure and a hand-back in one message, and the lease that then
    takes their place."""
    ids = [play.submit(est) for est in (1, 2, 3, 4)]
    session = SESSION + play.queue
    runs = [play.lease(session) for _ in ids[:3]]
    lease_ids = [given.lease_id for given in runs]
    well, badly, back = (ended(given) for given in runs)
    del back["success"]
    said = {
        "outcomes": [{**well, "result": b"done"}, {**badly, "success": False, "error": "no"}],
        "releases": [back],
        "progress": [{**back, "task_id": ids[0], "lease_id": well["lease_id"], "entries": LAST}],
    }
    stream = Stream(play, session, 3, lease_ids).meet()

    def call() -> bool:
        stream.say(slots=1, **said)
        next(stream.listen())
        return stream.leave()

    yield call
    found = [play.get(task_id) for task_id in ids]
    yield whole(
        found[0].task.state == SUCCEEDED,
        found[0].result == b"done",
        found[1].task.retry_count == 1,
        len(found[2].attempts) == 1,
        found[2].task.attempt == 2,
    )
    lease_ids += [given.lease_id for given in stream.leases]
    again = Stream(play, session, 0, lease_ids).meet()
    again.say(**said)
    again.leave()
    assert again.verdicts == {given.lease_id: "accepted" for given in runs}
    assert play.get(ids[1]).task.retry_count == 1
    assert play.logs(ids[0]) == ["my last word"]
    play.known |= {ids[0]: SUCCEEDED, ids[1]: READY, ids[2]: READY}
    if stream.leases:
        (given,) = stream.leases
        assert given.task_id == ids[2]
        assert play.call("CompleteTask", **ended(given)).acknowledged
        play.known[ids[2]] = SUCCEEDED
        play.comes(ids[3], ids[1])
    else:
        play.comes(ids[2], ids[3], ids[1])
