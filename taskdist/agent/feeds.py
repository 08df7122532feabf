"""Where an agent's tasks come from and its outcomes go to: the Work stream, or FetchTask.

Both promise the same: a task is taken only for a free slot, and an outcome is reported until the
distributor has accepted or refused it. A feed knows nothing of handlers.
"""

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import stamina
import structlog

from taskdist.agent.announcing import Announcing
from taskdist.agent.untold import Untold
from taskdist.client import Stub
from taskdist.client.batching import fitting
from taskdist.client.work import WorkStream
from taskdist.core.errors import Exhausted, Unavailable
from taskdist.limits import MESSAGE_BYTES_MAX, OUTCOMES_TOGETHER, SECOND_US
from taskdist.reports import Remarks, Report, Work, WorkNews
from taskdist.settings import AgentSettings

log = structlog.get_logger()

T = TypeVar("T")

# stamina logs each retry with the call's arguments, which here may be a task's data.
stamina.instrumentation.set_on_retry_hooks(())

REPORT_BYTES_MAX = MESSAGE_BYTES_MAX // 2
"""Results and errors in one message; the other half is for all that stands around them."""

MESSAGES_IN_FLIGHT_MAX = 4
"""Messages with outcomes that are not answered yet. While they are on the disk, the next is made of
all that ends meanwhile: neither side waits for the other, and the busier they are, the more share
one commit."""


UNHEARD_MAX = 1_000
"""Messages with remarks of which is not known whether they were heard. A distributor says so at
once, and flow control stops the agent long before; with one that does not know how to say it, they
must not take more and more memory."""

TELL_PAUSE_S = 0.1
"""How long what a run says waits for more of it: nobody reads faster. An outcome takes it along."""


class Desk(Protocol):
    """What a feed needs of its agent."""

    agent_id: str
    session: str
    kinds: Sequence[str]
    input_schemas: Mapping[str, dict[str, Any] | None]
    """The JSON Schema of each kind's input; None where any bytes will do."""

    @property
    def slots(self) -> int:
        """How many tasks it runs at once, now."""

    def held(self) -> list[str]:
        """The leases that are held."""

    def begin(self, work: Work, since: float) -> None:
        """A task has come; its lease runs since then, by the loop's clock."""

    def lost(self, lease_id: str, reason: str) -> None:
        """A lease is over."""

    async def free_slot(self) -> None:
        """Returns once there is a free slot."""


class Feed(Protocol):
    """Brings tasks and takes outcomes."""

    async def run(self) -> None:
        """Brings tasks until `leave`; outcomes are taken as long as it runs."""

    async def settle(self, report: Report) -> str:
        """Reports an outcome until it is answered. Returns what became of the task.

        Raises:
            Refused: it is not accepted, and would not be another time.
        """

    def tell(self, remarks: Remarks) -> None:
        """Sends on what a run says while it lasts, before its outcome. What may be lost, since the
        distributor went away, is marked."""

    def resize(self) -> None:
        """The number of slots has changed."""

    def leave(self) -> None:
        """Brings no more tasks."""

    async def finish(self) -> None:
        """All outcomes are settled: ends `run`."""


class Backoff:
    """stamina's pause after an error: doubled each time, up to half of it left to chance.

    stamina's own has no jitter once it has reached its longest pause, and that is where a thousand
    agents would meet.
    """

    worth_waiting_for = (Unavailable, Exhausted)

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self.reset()

    def reset(self) -> None:
        """Begins with the shortest pause again."""
        self._pause_s = self._settings.backoff_us / SECOND_US
        self._lost = False

    def __call__(self, error: Exception) -> float | bool:
        if not isinstance(error, self.worth_waiting_for):
            return False
        if not self._lost:
            log.warning("distributor lost", reason=str(error))
            self._lost = True
        pause_s = min(self._pause_s, self._settings.backoff_max_us / SECOND_US)
        self._pause_s *= 2
        return random.uniform(pause_s / 2, pause_s)

    def answered(self) -> None:
        """The distributor has answered."""
        if self._lost:
            log.info("distributor back")
            self.reset()


async def patiently(settings: AgentSettings, call: Callable[[], Awaitable[T]]) -> T:
    """Calls until the distributor answers, with pauses that grow and vary."""
    backoff = Backoff(settings)
    async for attempt in stamina.retry_context(on=backoff, attempts=None, timeout=None):
        with attempt:
            answer = await call()
            backoff.answered()
            return answer
    raise AssertionError("stamina gave up, which it was told not to")


class Streaming:
    """A `Feed` over one Work stream at a time. A broken one is replaced; nothing ends with it."""

    def __init__(self, desk: Desk, settings: AgentSettings, client: Stub) -> None:
        self._desk = desk
        self._settings = settings
        self._client = client
        self._unanswered: dict[str, tuple[Report, asyncio.Future[str]]] = {}
        """Outcomes without a verdict, by lease."""
        self._unsent: list[Report] = []
        self._untold = Untold()
        self._unheard: deque[list[Remarks]] = deque(maxlen=UNHEARD_MAX)
        """What was said on this stream, message by message, and may not have arrived."""
        self._may_tell = False
        """Whether what is untold has waited for long enough."""
        self._announcing = Announcing(desk, settings, client)
        self._heard = 0
        """Messages with remarks that were heard on this stream."""
        self._in_flight: list[set[str]] = []
        """The leases in each message on this stream that has not been answered wholly."""
        self._news = asyncio.Event()
        self._leaving = False
        self._finishing = False

    async def run(self) -> None:
        """See `Feed.run`.

        Raises:
            Unsupported: the distributor lacks Work.
        """
        backoff = Backoff(self._settings)
        try:
            while True:
                try:
                    await self._stream(backoff)
                    if self._is_finished():
                        return
                    raise Unavailable("the distributor is stopping")
                except Backoff.worth_waiting_for as reason:
                    if self._is_finished():
                        return
                    await asyncio.sleep(float(backoff(reason)))
        finally:
            self._announcing.end()

    async def settle(self, report: Report) -> str:
        """See `Feed.settle`."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._unanswered[report.lease_id] = (report, answer)
        self._unsent.append(report)
        self._news.set()
        try:
            return await answer
        finally:
            self._unanswered.pop(report.lease_id, None)

    def resize(self) -> None:
        """See `Feed.resize`."""
        self._news.set()

    def tell(self, remarks: Remarks) -> None:
        """See `Feed.tell`."""
        if not self._untold:
            asyncio.get_running_loop().call_later(TELL_PAUSE_S, self._tell_now)
        self._untold.add(remarks)

    def _tell_now(self) -> None:
        self._may_tell = True
        self._news.set()

    def leave(self) -> None:
        """See `Feed.leave`."""
        self._announcing.end()
        self._leaving = True
        self._news.set()

    async def finish(self) -> None:
        """See `Feed.finish`."""
        self._leaving = self._finishing = True
        self._news.set()

    def _is_finished(self) -> bool:
        return self._finishing and not self._unanswered

    async def _stream(self, backoff: Backoff) -> None:
        """One stream, from hello to its end."""
        slots = 0 if self._leaving else self._desk.slots
        async with self._client.work(
            agent_id=self._desk.agent_id,
            session=self._desk.session,
            queues=self._settings.queues,
            kinds=self._desk.kinds,
            slots=slots,
            lease_ids=self._desk.held(),
        ) as stream:
            self._unsent = [report for report, _ in self._unanswered.values()]
            self._in_flight = []
            self._heard = 0
            self._news.set()
            if not self._leaving:
                self._announcing.now()
            sending = asyncio.ensure_future(self._send(stream, slots))
            try:
                while (news := await stream.receive()) is not None:
                    backoff.answered()
                    self._hear(news)
                    if news.drain:
                        sending.cancel()
                        await asyncio.wait({sending})
                        await stream.end()
            finally:
                sending.cancel()
                await asyncio.wait({sending})
                self._mark_lost()

    def _mark_lost(self) -> None:
        """The stream is over. What was not heard on it may be lost, and said twice it might be kept
        twice: it is marked as missing."""
        for remarks in itertools.chain(*self._unheard):
            self._untold.lost(remarks)
            self._may_tell = True
        self._unheard.clear()

    async def _say(self, stream: WorkStream, reports: Sequence[Report]) -> None:
        """How runs ended, and what there is to say of others."""
        remarks = self._untold.take()
        if remarks:
            self._unheard.append(remarks)
        await stream.report(reports, remarks)

    def _hear(self, news: WorkNews) -> None:
        self._note_answered({verdict.lease_id for verdict in news.verdicts})
        while self._heard < news.progress_heard and self._unheard:
            self._heard += 1
            self._unheard.popleft()
        for verdict in news.verdicts:
            if verdict.lease_id not in self._unanswered:
                continue
            _, answer = self._unanswered[verdict.lease_id]
            if answer.done():
                continue
            if verdict.refusal is None:
                answer.set_result(verdict.accepted)
            elif not isinstance(verdict.refusal, Backoff.worth_waiting_for):
                answer.set_exception(verdict.refusal)
            else:
                self._send_again_later(verdict.lease_id)
        now = asyncio.get_running_loop().time()
        for work in news.leases:
            self._desk.begin(work, now)
        for lease_id in news.revoked_lease_ids:
            self._desk.lost(lease_id, "the distributor says that it is over")

    def _note_answered(self, lease_ids: set[str]) -> None:
        if lease_ids:
            self._in_flight = [left for sent in self._in_flight if (left := sent - lease_ids)]
            self._news.set()

    def _send_again_later(self, lease_id: str) -> None:
        """The distributor's disk is full, or it is stopping: the outcome stays ours to report."""

        def again() -> None:
            if lease_id in self._unanswered:
                self._unsent.append(self._unanswered[lease_id][0])
                self._news.set()

        asyncio.get_running_loop().call_later(self._settings.backoff_max_us / SECOND_US, again)

    async def _send(self, stream: WorkStream, slots: int) -> None:
        """Says what there is to say. So many slots were said in hello."""
        said_goodbye = False
        while True:
            await self._news.wait()
            self._news.clear()
            slots = await self._resized(stream, slots)
            if self._untold:
                await self._send_remarks(stream)
            while self._unsent and len(self._in_flight) < MESSAGES_IN_FLIGHT_MAX:
                if self._untold.is_long:  # The rest comes with these outcomes.
                    await self._send_remarks(stream)
                sizes = map(_size, self._unsent[:OUTCOMES_TOGETHER])
                count = fitting(sizes, REPORT_BYTES_MAX)
                reports, self._unsent = self._unsent[:count], self._unsent[count:]
                self._in_flight.append({report.lease_id for report in reports})
                # First, or these outcomes would free slots that are not free.
                slots = await self._resized(stream, slots)
                await self._say(stream, reports)
            if self._leaving and not said_goodbye:
                said_goodbye = True
                await stream.goodbye()
            if self._finishing and not self._unsent:
                self._may_tell = True
                await self._send_remarks(stream)
                await stream.end()
                return

    async def _resized(self, stream: WorkStream, said: int) -> int:
        """Says how many slots there are, if that was not said; how many that is."""
        slots = self._desk.slots
        if slots != said and not self._leaving:
            await stream.resize(slots)
            return slots
        return said

    async def _send_remarks(self, stream: WorkStream) -> None:
        """What runs have to say, but what may still wait or can go with an outcome."""
        while self._untold.is_long or (self._untold and self._may_tell):
            await self._say(stream, [])
        self._may_tell = False


def _size(report: Report) -> int:
    return len(report.result) + len(report.error.encode())
