"""An agent's side of the Work stream: what shares a message, and how many are in flight."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, cast

import pytest

from taskdist.agent.feeds import MESSAGES_IN_FLIGHT_MAX, Streaming
from taskdist.client import Stub
from taskdist.core.errors import PreconditionFailed, StoreFull, Unavailable, Unsupported
from taskdist.limits import OUTCOMES_TOGETHER, RESULT_BYTES_MAX
from taskdist.reports import Dropped, LogLine, Remarks, Report, Verdict, Work, WorkNews
from taskdist.settings import AgentSettings
from tests.support.backends import turns

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time


@pytest.fixture(autouse=True)
def feed() -> None:
    """This is about one of the two."""


class Desk:
    """An agent without tasks."""

    agent_id = "agent-1"
    session = "s-1"
    kinds: Sequence[str] = ("simulate",)
    slots = 1
    input_schemas: Mapping[str, dict[str, Any] | None] = MappingProxyType({"simulate": None})

    def held(self) -> list[str]:
        return []

    def begin(self, work: Work, since: float) -> None:
        raise AssertionError("no task is given here")

    def lost(self, lease_id: str, reason: str) -> None:
        raise AssertionError("no lease is lost here")

    async def free_slot(self) -> None:
        """There always is one."""


class Far:
    """The distributor's end of each stream, in the hands of the test."""

    def __init__(self) -> None:
        self.messages: list[list[str]] = []
        """The leases in each message with outcomes, over all streams."""
        self.remarks: list[list[tuple[str, int]]] = []
        """Likewise, the remarks in each message: whose, and how many."""
        self.gaps: list[int] = []
        """How many entries each remark said to be missing."""
        self.streams = 0
        self._news: asyncio.Queue[WorkNews | None] = asyncio.Queue()

    @asynccontextmanager
    async def work(self, **hello: Any) -> AsyncIterator["Far"]:
        """Stands for `Stub.work`, and for the stream."""
        self.streams += 1
        self._news = asyncio.Queue()
        yield self

    async def announce_kinds(self, **said: Any) -> float:
        raise Unsupported("this is none that knows it")

    async def report(self, reports: Sequence[Report], remarks: Sequence[Remarks] = ()) -> None:
        self.messages.append([report.lease_id for report in reports])
        self.remarks.append([(one.lease_id, len(one.entries)) for one in remarks])
        entries = [entry for one in remarks for entry in one.entries]
        self.gaps += [entry.count for entry in entries if isinstance(entry, Dropped)]

    async def goodbye(self) -> None:
        """Heard."""

    async def end(self) -> None:
        self._news.put_nowait(None)

    async def receive(self) -> WorkNews | None:
        news = await self._news.get()
        if news is not None and news.drain:
            raise Unavailable("the connection was lost")
        return news

    def judge(self, *lease_ids: str, refusal: Any = None) -> None:
        """Verdicts on these, in one message."""
        verdicts = tuple(Verdict(lease_id, "succeeded", refusal) for lease_id in lease_ids)
        self._news.put_nowait(WorkNews((), verdicts, (), drain=False, progress_heard=0))

    def hear(self, count: int) -> None:
        """So many messages with remarks were heard on this stream so far."""
        self._news.put_nowait(WorkNews((), (), (), drain=False, progress_heard=count))

    def break_off(self) -> None:
        """The connection is lost."""
        self._news.put_nowait(WorkNews((), (), (), drain=True, progress_heard=0))


class Near:
    """A feed with a stream open, and the outcomes that were given to it."""

    def __init__(self, far: Far, slots: int) -> None:
        self.settings = AgentSettings(slots=slots)
        self.feed = Streaming(Desk(), self.settings, cast(Stub, far))
        self.running = asyncio.ensure_future(self.feed.run())
        self.answers: dict[str, asyncio.Future[str]] = {}

    async def settle(self, *lease_ids: str, result: bytes = b"") -> None:
        """Reports these at once."""
        for lease_id in lease_ids:
            report = Report("task", lease_id, result, "")
            self.answers[lease_id] = asyncio.ensure_future(self.feed.settle(report))
        await turns()


@asynccontextmanager
async def near(far: Far, slots: int = 1_000) -> AsyncIterator[Near]:
    one = Near(far, slots)
    await turns()
    yield one
    await one.feed.finish()
    await asyncio.wait_for(one.running, 60)


async def test_so_many_messages_are_in_flight_and_what_ends_meanwhile_shares_the_next() -> None:
    far = Far()
    async with near(far) as agent:
        pairs = [[f"a{number}", f"b{number}"] for number in range(MESSAGES_IN_FLIGHT_MAX)]
        for pair in pairs:
            await agent.settle(*pair)
        for lease_id in "def":
            await agent.settle(lease_id)
        assert far.messages == pairs
        far.judge("b1")
        await turns()
        assert far.messages == pairs, "none is answered wholly"
        far.judge("a1")
        await turns()
        assert far.messages == [*pairs, ["d", "e", "f"]]
        far.judge(*(lease_id for pair in pairs for lease_id in pair), "d", "e", "f")
        await turns()
        answers = [await answer for answer in agent.answers.values()]
        assert answers == ["succeeded"] * (2 * MESSAGES_IN_FLIGHT_MAX + 3)


async def test_p7_outcomes_in_one_message_are_limited() -> None:
    far = Far()
    async with near(far, slots=10_000) as agent:
        count = MESSAGES_IN_FLIGHT_MAX * OUTCOMES_TOGETHER
        leases = [f"lease-{number}" for number in range(count + 7)]
        await agent.settle(*leases)
        sizes = [len(message) for message in far.messages]
        assert sizes == [OUTCOMES_TOGETHER] * MESSAGES_IN_FLIGHT_MAX
        far.judge(*far.messages[0])
        await turns()
        assert [lease_id for message in far.messages for lease_id in message] == leases
        far.judge(*leases)
        await turns()


async def test_p7_large_results_are_cut_into_messages_that_fit() -> None:
    far = Far()
    async with near(far) as agent:
        await agent.settle(*"abcde", result=bytes(RESULT_BYTES_MAX))
        assert far.messages == [["a", "b"], ["c", "d"], ["e"]]
        far.judge(*"abcde")
        await turns()


async def test_p3_after_a_broken_stream_all_that_is_unanswered_is_said_again() -> None:
    """What was in flight on the old one is in nobody's way."""
    far = Far()
    async with near(far) as agent:
        await agent.settle("a")
        await agent.settle("b")
        await agent.settle("c")
        far.judge("a")
        await turns()
        far.break_off()
        await asyncio.sleep(1)
        assert far.streams == 2
        assert far.messages == [["a"], ["b"], ["c"], ["b", "c"]]
        far.judge("b", "c")
        await turns()
        assert await agent.answers["c"] == "succeeded"


async def test_p6_an_outcome_that_met_a_full_disk_is_said_again_later_and_others_go_on() -> None:
    far = Far()
    async with near(far) as agent:
        await agent.settle("a", "b", "c")
        far.judge("a", refusal=StoreFull())
        far.judge("b", refusal=PreconditionFailed("over"))
        far.judge("c")
        await turns()
        assert not agent.answers["a"].done()
        with pytest.raises(PreconditionFailed):
            await agent.answers["b"]
        await agent.settle("d")
        assert far.messages == [["a", "b", "c"], ["d"]]
        await asyncio.sleep(agent.settings.backoff_max_us / 1e6 + 1)
        assert far.messages[2:] == [["a"]]
        far.judge("a", "d")
        await turns()
        assert await agent.answers["a"] == "succeeded"


def said(lease_id: str, count: int = 1) -> Remarks:
    return Remarks("task", lease_id, (LogLine("a line"),) * count)


async def test_what_runs_say_waits_for_more_of_it_or_for_an_outcome() -> None:
    far = Far()
    async with near(far) as agent:
        agent.feed.tell(said("a"))
        agent.feed.tell(said("b", 2))
        agent.feed.tell(said("a"))
        await asyncio.sleep(0.05)
        assert far.messages == []
        await asyncio.sleep(0.1)
        assert (far.messages, far.remarks) == ([[]], [[("a", 2), ("b", 2)]])
        agent.feed.tell(said("a"))
        await agent.settle("a")
        assert (far.messages[1:], far.remarks[1:]) == ([["a"]], [[("a", 1)]])
        far.judge("a")
        await asyncio.sleep(1)
        assert len(far.messages) == 2


async def test_p7_what_runs_say_is_cut_into_messages_and_all_of_it_comes_before_its_outcome() -> (
    None
):
    far = Far()
    async with near(far) as agent:
        agent.feed.tell(said("a", 300))
        agent.feed.tell(said("b", 300))
        await agent.settle("a", "b")
        assert far.remarks == [[("a", 256)], [("a", 44), ("b", 212)], [("b", 88)]]
        assert far.messages == [[], [], ["a", "b"]]
        far.judge("a", "b")
        await turns()


async def test_what_was_not_heard_on_a_broken_stream_is_marked_as_missing() -> None:
    """It may have arrived or not: said again, it might be kept twice."""
    far = Far()
    async with near(far) as agent:
        for lines in (3, 5, 7):
            agent.feed.tell(Remarks("task", "a", (LogLine("a line"),) * lines))
            await asyncio.sleep(1)
        far.hear(1)
        await turns()
        far.break_off()
        await asyncio.sleep(1)
        assert far.streams == 2
        assert far.remarks == [[("a", 3)], [("a", 5)], [("a", 7)], [("a", 1)]]
        assert far.gaps == [5 + 7]
        far.hear(1)
        await turns()
        far.break_off()
        await asyncio.sleep(1)
        assert far.gaps == [5 + 7], "that was heard"
