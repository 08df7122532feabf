"""One Work stream: leases down, outcomes up, in batches.

No credits are counted: free = slots - leases that this session holds, by the distributor's own
table, which this file follows through the backend's changes. Three tasks share a stream: one
listens, one takes, one writes. Outcomes bring a take along, so that the slots which they free are
filled in the same commit. What is taken is written before more is taken (P2), and what could not be
written is taken back.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from taskdist.backends.protocol import Backend
from taskdist.core import commands
from taskdist.core.commands import Grant
from taskdist.core.errors import BadField, Exhausted, InvalidFields, Unavailable
from taskdist.distributor.roster import Lanes
from taskdist.distributor.transport import AnyStream, is_gone
from taskdist.limits import LEASE_TOKEN_BYTES, OUTCOMES_MAX, OUTCOMES_TOGETHER, WAIT_MAX_US
from taskdist.wire import convert_agents
from taskdist.wire import messages as wire
from taskdist.wire.convert_agents import Hello, Said

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
        self._riding = False
        """A take is on its way together with outcomes."""
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
        self._grants: tuple[Grant, ...] = ()
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
        tasks = {
            self._taking,
            asyncio.ensure_future(self._listen(first)),
            asyncio.ensure_future(self._write()),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                if not task.cancelled():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            if self._grants:
                self._take_back(self._grants)

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
            # Who does not read what it is told is not heard any further (P7).
            await self._told.wait()
            message = await self._stream.recv_message()
            if message is None:
                break
            said = convert_agents.said(message, self._hello.agent_id)
            if said.hello is not None:
                raise InvalidFields([BadField("hello", "allowed only in the first message")])
        self._take_no_more()
        self._heard_all = True
        self._news.set()

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
        for start in range(0, len(said.settles), OUTCOMES_TOGETHER):
            settles = said.settles[start : start + OUTCOMES_TOGETHER]
            answers = await self._settle(notes, settles)
            self._heard(notes)
            notes = ()
            self._tell(
                [
                    convert_agents.verdict(settle.lease_id, answer)
                    for settle, answer in zip(settles, answers, strict=True)
                ]
            )
        if notes:
            await self._backend.apply(commands.Several(notes))
            self._heard(notes)

    def _heard(self, notes: tuple[commands.Note, ...]) -> None:
        if notes:
            self._progress_heard += 1
            self._news.set()

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
        if self._asking is not None or self._grants or self._leaving:
            return (await self._backend.apply(commands.Several(said)))[len(notes) :]
        self._riding = True
        self._look_around()
        try:
            take = self._command(wait_us=0)
            *answers, grants = await self._backend.apply(commands.Several((*said, take)))
        finally:
            self._riding = False
        if isinstance(grants, commands.Grants):
            self._grants = grants.grants
        self._look_around()
        return tuple(answers[len(notes) :])

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
                    self._grants = self._asking.result().grants
            except asyncio.CancelledError:
                asking = self._asking
                if not asking.cancel() and not asking.cancelled() and not asking.exception():
                    # Answered in this same turn: to be written, or taken back at the end.
                    self._grants = asking.result().grants
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
        grants = self._grants
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
            self._grants = ()
            self._look_around()

    # --- small things ---

    def _is_silent(self) -> bool:
        is_heard = self._progress_told == self._progress_heard
        return is_heard and not (self._grants or self._verdicts or self._revoked or self._draining)

    def _look_around(self) -> None:
        """Whether `_take` may ask."""
        if len(self._held) < self._slots and not (self._grants or self._riding or self._leaving):
            self._may_ask.set()
        else:
            self._may_ask.clear()

    def _take_no_more(self) -> None:
        self._leaving = True
        if self._taking is not None:
            self._taking.cancel()
