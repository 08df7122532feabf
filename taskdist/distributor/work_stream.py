"""One Work stream: leases down, outcomes up, in batches.

No credits are counted: free = slots - leases that this session holds, by the distributor's own
table, which this file follows through the backend's changes. Four tasks share a stream: one
listens, one waits for what becomes of what was heard, one takes, one writes. Outcomes bring a take
along, so that the slots which they free are filled in the same commit. While a slow disk keeps them
the next are heard, and share the commit after. What is taken is written before more is taken (P2),
and what could not be written is taken back.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from taskdist.backends.protocol import Backend
from taskdist.core import commands
from taskdist.core.commands import Grant
from taskdist.core.errors import BadField, Exhausted, InvalidFields, Unavailable
from taskdist.distributor.roster import Lanes
from taskdist.distributor.transport import AnyStream, is_gone
from taskdist.limits import LEASE_TOKEN_BYTES, MIB, OUTCOMES_MAX, OUTCOMES_TOGETHER, WAIT_MAX_US
from taskdist.wire import convert_agents
from taskdist.wire import messages as wire
from taskdist.wire.convert_agents import Hello, Said

HEARD_AHEAD_MAX = 4
HEARD_AHEAD_BYTES_MAX = MIB
"""Pieces of what an agent says, of OUTCOMES_TOGETHER each, that are on their way to a slow disk at
once, and of how many bytes all but the last may be. Our agents have no more messages without an
answer. To a fast disk it is one: others would only wait behind them, each for 10 ms more."""

FULL_PAUSE_S = 1.0
"""After a full disk or full lines, when a stream asks for tasks again."""


class WorkStream:
    """What is said and heard on it, by three tasks, until its agent says goodbye, or it breaks."""

    def __init__(
        self,
        backend: Backend,
        take_back: Callable[[Sequence[Grant]], None],
        allowed: Callable[[str, str, Sequence[str], Sequence[str]], Lanes],
        stream: AnyStream,
        hello: Hello,
    ) -> None:
        self._backend = backend
        self._take_back = take_back
        self._allowed = allowed
        self._stream = stream
        self._hello = hello
        self._slots = hello.slots
        self._held = set(hello.lease_ids)
        """The leases of this session, by the changes that are durable."""
        self._may_ask = asyncio.Event()
        """Set while there is a free slot, nothing taken is unwritten, and no one else asks."""
        self._under_way: asyncio.Queue[asyncio.Task[None] | None]
        self._under_way = asyncio.Queue()
        """What was heard and is not answered yet, in the order of its coming; None is its end."""
        self._applying = self._applying_bytes = 0
        """How many of them are being applied."""
        self._applied = asyncio.Event()
        self.hears_ahead = False
        """Whether more than one may be, since the disk is slow."""
        self._riding = 0
        """Takes that are on their way together with outcomes."""
        self._leaving = False
        """No more is taken."""
        self._taking: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[commands.Grants] | None = None
        self._running: asyncio.Task[None] | None = None
        self.why_cut_off = ""
        self.ended = asyncio.Event()
        self._heard_all = False
        """The agent has ended its side, and all that it said is answered."""
        # What is still to be written.
        self._news = asyncio.Event()
        self._granted: deque[tuple[Grant, ...]] = deque()
        """Of each take as much as fits a message."""
        self._verdicts: list[wire.WorkVerdict] = []
        self._revoked: list[str] = []
        self._draining = False
        self._progress_heard = 0
        """Messages with progress."""
        self._progress_told = 0
        """… that the agent knows to be heard."""
        self._told = asyncio.Event()
        """Set while every verdict has been written."""
        self._told.set()

    # --- what is told from outside ---

    def lease_began(self, lease_id: str) -> None:
        """This session has a new lease."""
        self._held.add(lease_id)
        self._look_around()

    def lease_ended(self, lease_id: str, *, revoked: bool) -> None:
        """A lease of this session is over."""
        if lease_id in self._held:
            self._held.remove(lease_id)
            self._look_around()
            if revoked:
                self._revoked.append(lease_id)
                self._news.set()

    def drain(self) -> None:
        """The distributor is stopping."""
        self._draining = True
        self._take_no_more()
        self._news.set()

    def cut_off(self) -> None:
        """The agent let a lease run out: it may be stopped, or out of reach, and must not be handed
        one task after the other until each is dead. A live one says hello again."""
        self._cut_off("a lease of this session was lost")

    def ask_anew(self) -> None:
        """What it asks for is too much now, or something else: `_take` asks again."""
        if self._asking is not None:
            self._asking.cancel()

    async def end(self) -> None:
        """Cuts the stream off for a newer one, and returns once it is over."""
        self._cut_off("a newer stream of this session has begun")
        await self.ended.wait()

    def _cut_off(self, why: str) -> None:
        if self._running is not None and not self.why_cut_off:
            self.why_cut_off = why
            self._running.cancel()

    # --- its three tasks ---

    async def run(self, first: Said) -> None:
        """Serves until the agent has ended its side and all is answered."""
        self._running = asyncio.current_task()
        await self._resume()
        self._taking = asyncio.ensure_future(self._take())
        if self._leaving:
            self._taking.cancel()
        tasks: set[asyncio.Future[Any]] = {
            self._taking,
            asyncio.ensure_future(self._listen(first)),
            asyncio.ensure_future(self._end_what_is_heard()),
            asyncio.ensure_future(self._write()),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                if not task.cancelled():
                    task.result()
        finally:
            while not self._under_way.empty():
                if (applying := self._under_way.get_nowait()) is not None:
                    tasks.add(applying)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for grants in self._granted:
                self._take_back(grants)

    async def _resume(self) -> None:
        claimed = self._hello.lease_ids
        resume = commands.Resume(self._hello.agent_id, self._hello.session, claimed)
        held = set((await self._backend.apply(resume)).lease_ids)
        for lease_id in claimed:
            if lease_id not in held:
                self.lease_ended(lease_id, revoked=True)
        self._look_around()

    async def _listen(self, first: Said) -> None:
        said = first
        while True:
            await self._hear(said)
            await self._room()
            # Who does not read what it is told is not heard any further (P7).
            await self._told.wait()
            message = await self._stream.recv_message()
            if message is None:
                break
            said = convert_agents.said(message, self._hello.agent_id)
            if said.hello is not None:
                raise InvalidFields([BadField("hello", "allowed only in the first message")])
        self._take_no_more()
        self._under_way.put_nowait(None)

    async def _hear(self, said: Said) -> None:
        if said.slots is not None:
            fewer = said.slots < self._slots
            self._slots = said.slots
            self._look_around()
            if fewer:
                self.ask_anew()
        if said.goodbye:
            self._take_no_more()
        self._tell([convert_agents.verdict(*refused) for refused in said.refused])
        notes = said.notes
        for start in range(0, max(len(said.settles), bool(notes)), OUTCOMES_TOGETHER):
            settles = said.settles[start : start + OUTCOMES_TOGETHER]
            await self._room()
            self._begin(notes, settles)
            notes = ()

    async def _room(self) -> None:
        """Waits until more may be on its way to the disk."""
        while self._applying:
            is_full = self._applying >= HEARD_AHEAD_MAX
            if self.hears_ahead and not is_full and self._applying_bytes < HEARD_AHEAD_BYTES_MAX:
                return
            self._applied.clear()
            await self._applied.wait()

    def _begin(
        self, notes: tuple[commands.Note, ...], settles: tuple[commands.Settle, ...]
    ) -> None:
        size = sum(len(settle.result) + len(settle.error) for settle in settles)
        self._applying += 1
        self._applying_bytes += size
        applying = asyncio.ensure_future(self._apply(notes, settles))
        self._under_way.put_nowait(applying)

        def ended(_: asyncio.Task[None]) -> None:
            self._applying -= 1
            self._applying_bytes -= size
            self._applied.set()

        applying.add_done_callback(ended)

    async def _end_what_is_heard(self) -> None:
        """Waits for what was heard, until the agent has ended its side and all is answered."""
        while (applying := await self._under_way.get()) is not None:
            await applying
        self._heard_all = True
        self._news.set()

    async def _apply(
        self, notes: tuple[commands.Note, ...], settles: tuple[commands.Settle, ...]
    ) -> None:
        answers = await self._settle(notes, settles)
        if notes:
            self._progress_heard += 1
            self._news.set()
        self._tell(
            [
                convert_agents.verdict(settle.lease_id, answer)
                for settle, answer in zip(settles, answers, strict=True)
            ]
        )

    def _tell(self, verdicts: Sequence[wire.WorkVerdict]) -> None:
        if verdicts:
            self._verdicts += verdicts
            self._told.clear()
            self._news.set()

    async def _settle(
        self, notes: tuple[commands.Note, ...], settles: tuple[commands.Settle, ...]
    ) -> tuple[Any, ...]:
        """What became of these outcomes, in one commit, which also keeps what was said before them,
        and fills the slots they free."""
        said = (*notes, *settles)
        if not settles or self._asking is not None or self._granted or self._leaving:
            return (await self._backend.apply(commands.Several(said)))[len(notes) :]
        self._riding += 1
        self._look_around()
        try:
            take = self._command(wait_us=0)
            *answers, grants = await self._backend.apply(commands.Several((*said, take)))
        finally:
            self._riding -= 1
        if isinstance(grants, commands.Grants):
            self._got(grants)
        self._look_around()
        return tuple(answers[len(notes) :])

    def _got(self, grants: commands.Grants) -> None:
        if grants.grants:
            self._granted.append(grants.grants)
            self._news.set()

    async def _take(self) -> None:
        """Waits for tasks while there are free slots and the agent has nothing to say."""
        while True:
            await self._may_ask.wait()
            if not self._may_ask.is_set():
                continue  # It was, but outcomes that came in the same instant took the chance.
            take = self._command(wait_us=WAIT_MAX_US)
            self._asking = asyncio.ensure_future(self._backend.apply(take))
            try:
                await asyncio.wait({self._asking})
                if not self._asking.cancelled():
                    self._got(self._asking.result())
            except asyncio.CancelledError:
                asking = self._asking
                if not asking.cancel() and not asking.cancelled() and not asking.exception():
                    # Answered in this same turn: to be written, or taken back at the end.
                    self._got(asking.result())
                raise
            except Exhausted:
                await asyncio.sleep(FULL_PAUSE_S)
            except Unavailable:
                return
            finally:
                self._asking = None
                self._look_around()
                self._news.set()

    def _command(self, wait_us: int) -> commands.Take:
        hello = self._hello
        queues, kinds = self._allowed(hello.agent_id, hello.session, hello.queues, hello.kinds)
        return commands.Take(
            agent_id=hello.agent_id,
            session=hello.session,
            queues=queues,
            kinds=kinds,
            slots=self._slots,
            wait_us=wait_us,
            token=secrets.token_hex(LEASE_TOKEN_BYTES),
            slots_in_all=True,
        )

    async def _write(self) -> None:
        """Writes all that there is to say, in as few messages as the reader's pace allows."""
        while not (self._heard_all and self._is_silent()):
            await self._news.wait()
            self._news.clear()
            while not (self._is_silent() or is_gone(self._stream)):
                await self._write_some()

    async def _write_some(self) -> None:
        grants = self._granted[0] if self._granted else ()
        verdicts, self._verdicts = self._verdicts[:OUTCOMES_MAX], self._verdicts[OUTCOMES_MAX:]
        revoked, self._revoked = self._revoked[:OUTCOMES_MAX], self._revoked[OUTCOMES_MAX:]
        drain, self._draining = self._draining, False
        leases = convert_agents.leases(grants)
        heard, told = self._progress_heard, self._progress_told
        self._progress_told = heard
        message = convert_agents.response(
            leases, verdicts, revoked, drain=drain, progress_heard=heard if heard > told else 0
        )
        await self._stream.send_message(message)
        if not self._verdicts:
            self._told.set()
        if grants and not is_gone(self._stream):
            self._granted.popleft()
            self._look_around()

    # --- small things ---

    def _is_silent(self) -> bool:
        is_heard = self._progress_told == self._progress_heard
        return is_heard and not (self._granted or self._verdicts or self._revoked or self._draining)

    def _look_around(self) -> None:
        """Whether `_take` may ask."""
        if len(self._held) < self._slots and not (self._granted or self._riding or self._leaving):
            self._may_ask.set()
        else:
            self._may_ask.clear()

    def _take_no_more(self) -> None:
        self._leaving = True
        if self._taking is not None:
            self._taking.cancel()
