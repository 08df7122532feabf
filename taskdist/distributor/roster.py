"""The live agents: which kinds each session takes from which queues, and their inputs' schemas.

In memory only: a restart forgets it, and the agents come back within seconds. A session is in it
because it announced its kinds or because it asks for tasks, and for a while after it was last heard
of: an announcement, a question, an open stream, a lease that it holds. What many sessions offer
alike is kept once. Nothing here looks into a task's data.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from taskdist.core.commands import Change
from taskdist.core.errors import BadField, Exhausted, InvalidFields
from taskdist.core.offers import AnnouncedKind, KindReport, Offer
from taskdist.core.task import Lease, Task, TaskState
from taskdist.limits import SCHEMAS_LISTED_MAX, SECOND_US
from taskdist.settings import DistributorSettings

QUEUES_DEFAULT = ("default",)

NAMES_SHOWN = 8
"""Names that a refusal lists: its text has to fit a header."""

Session = tuple[str, str]
"""An agent_id and the session's own id, which is empty where an agent says none."""

Lanes = tuple[tuple[str, ...], tuple[str, ...]]
"""Queues, and kinds; no kinds means any."""

ANNOUNCEMENTS_HEARD = 3
"""Announcements that fit into the time after which a session is forgotten."""


@dataclass(slots=True)
class _Live:
    """A session that is heard of."""

    offer: Offer
    announced: bool
    """Whether it said what it takes, or only asked for it."""
    until_s: float
    asks: int = 0
    """Questions of it that are open: a stream, a long-poll."""
    leases: int = 0
    """Leases that it got since it is known here."""


class Roster:
    """All live agents.

    Args:
        settings: how many there may be, and for how long each is remembered.
        clock: seconds; goes on by itself.
    """

    def __init__(self, settings: DistributorSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._started_s = clock()
        self._heard_s = settings.agent_heard_us / SECOND_US
        self._live: OrderedDict[Session, _Live] = OrderedDict()
        """Whoever was heard of longest ago comes first."""
        self._offers: dict[Offer, tuple[Offer, int]] = {}
        """What is offered, as kept, and by how many sessions; what was new last comes last."""
        self._bytes = 0

    # --- what agents say ---

    @property
    def again_s(self) -> float:
        """After how many seconds an announcement should be repeated."""
        return self._heard_s / ANNOUNCEMENTS_HEARD

    def announce(self, agent_id: str, session: str, offer: Offer) -> bool:
        """A session takes these kinds from these queues, and no others. Whether that is new.

        Raises:
            Exhausted: too many sessions are live, or too much is announced.
        """
        who = (agent_id, session)
        self._forget_silent()
        before = self._live.get(who)
        is_new = before is None or not before.announced or before.offer != offer
        if self._put(who, offer, announced=True) is None:
            raise Exhausted(
                f"{len(self._live)} agents are live and {self._bytes} bytes are announced; "
                f"allowed: {self._settings.live_agents_max}, {self._settings.announced_bytes_max}"
            )
        return is_new

    def check(
        self,
        agent_id: str,
        session: str,
        queues: Sequence[str],
        kinds: Sequence[str],
        prefix: str = "",
    ) -> None:
        """Whether a session may ask for these.

        Raises:
            InvalidFields: it announced, and not these; the fields' names begin with the prefix.
        """
        offer = self._announced(agent_id, session)
        if offer is None:
            return
        asked_and_known = {"queues": (queues, offer.queues), "kinds": (kinds, offer.names)}
        bad = []
        for field, (asked, known) in asked_and_known.items():
            others = [name for name in asked if name not in known]
            if others:
                allowed = ", ".join(known[:NAMES_SHOWN])
                reason = f"{others[0]!r} was not announced; allowed: {allowed}"
                bad.append(BadField(prefix + field, reason))
        if bad:
            raise InvalidFields(bad)

    def allowed(
        self, agent_id: str, session: str, queues: Sequence[str], kinds: Sequence[str]
    ) -> Lanes:
        """Of what a session asks for, what it may be given. Without queues that is nothing."""
        offer = self._announced(agent_id, session)
        if offer is None:
            return tuple(queues) or QUEUES_DEFAULT, tuple(kinds)
        may_queues = tuple(queue for queue in queues or offer.queues if queue in offer.queues)
        may_kinds = tuple(kind for kind in kinds or offer.names if kind in offer.names)
        return (may_queues, may_kinds) if may_kinds else ((), ())

    def _announced(self, agent_id: str, session: str) -> Offer | None:
        live = self._live.get((agent_id, session))
        return live.offer if live is not None and live.announced else None

    @contextmanager
    def asking(
        self, agent_id: str, session: str, queues: Sequence[str], kinds: Sequence[str]
    ) -> Iterator[None]:
        """The session is live as long as the block lasts, and for a while after it."""
        who = (agent_id, session)
        self._forget_silent()
        live = self._live.get(who)
        if live is None or not live.announced:
            # One too many is served as any other, and only unknown here.
            offer = Offer(tuple(queues), tuple(map(AnnouncedKind, kinds)))
            live = self._put(who, offer, announced=False)
        if live is None:
            yield
            return
        live.asks += 1
        try:
            yield
        finally:
            live.asks -= 1
            self._hear(who, live)

    def changed(self, changes: Sequence[Change]) -> None:
        """Follows who holds a lease: a session that works is live, though it asks for nothing."""
        if not self._live:
            return
        for change in changes:
            before = change.before.lease if change.before else None
            after = change.after.lease if change.after else None
            if before is None and after is not None:
                self._count(after, 1)
            elif before is not None and after is None:
                self._count(before, -1)

    def _count(self, lease: Lease, more: int) -> None:
        who = (lease.agent_id, lease.session)
        live = self._live.get(who)
        if live is not None:
            live.leases = max(0, live.leases + more)
            self._hear(who, live)

    # --- what others ask ---

    def why_waits(self, task: Task) -> str:
        """Why a ready task waits, if it does because no live agent takes it; else nothing."""
        if task.state is not TaskState.READY:
            return ""
        self._forget_silent()
        for offer in self._offers:
            if task.queue in offer.queues and (
                not offer.kinds or any(kind.name == task.kind for kind in offer.kinds)
            ):
                return ""
        why = f"no live agent runs kind {task.kind} in queue {task.queue}"
        if self._clock() - self._started_s < self._heard_s:
            why += "; the distributor has just started, and agents may be on their way back"
        return why

    def kinds(self, queue: str = "", kind: str = "") -> list[KindReport]:
        """The kinds that live agents take, by name; of this queue and name, if those are set."""
        self._forget_silent()
        found: dict[str, _Found] = {}
        for offer, sessions in reversed(self._offers.values()):
            if queue and queue not in offer.queues:
                continue
            for one in offer.kinds or (AnnouncedKind(""),):
                if not kind or one.name == kind:
                    found.setdefault(one.name, _Found()).add(offer, one, sessions)
        return [found[name].report(name) for name in sorted(found)]

    # --- small things ---

    def _put(self, who: Session, offer: Offer, *, announced: bool) -> _Live | None:
        """Remembers what a session takes; None if there is no room for it."""
        live = self._live.get(who)
        if live is not None and live.offer == offer:
            live.announced = announced
            self._hear(who, live)
            return live
        is_new = offer not in self._offers
        more = offer.size_bytes if is_new else 0
        if live is not None and self._offers[live.offer][1] == 1:
            more -= live.offer.size_bytes
        is_full = live is None and len(self._live) >= self._settings.live_agents_max
        if is_full or (more > 0 and self._bytes + more > self._settings.announced_bytes_max):
            return None
        kept, sessions = self._offers.get(offer, (offer, 0))
        self._offers[kept] = (kept, sessions + 1)
        self._bytes += offer.size_bytes if is_new else 0
        if live is None:
            live = self._live[who] = _Live(kept, announced, 0.0)
        else:
            self._drop_offer(live.offer)
            live.offer, live.announced = kept, announced
        self._hear(who, live)
        return live

    def _drop_offer(self, offer: Offer) -> None:
        kept, sessions = self._offers[offer]
        if sessions > 1:
            self._offers[kept] = (kept, sessions - 1)
        else:
            del self._offers[kept]
            self._bytes -= kept.size_bytes

    def _hear(self, who: Session, live: _Live) -> None:
        if self._live.get(who) is live:
            live.until_s = self._clock() + self._heard_s
            self._live.move_to_end(who)

    def _forget_silent(self) -> None:
        now_s = self._clock()
        while self._live:
            who, live = next(iter(self._live.items()))
            if live.until_s > now_s:
                return
            if live.asks or live.leases:
                self._hear(who, live)
            else:
                del self._live[who]
                self._drop_offer(live.offer)


class _Found:
    """What is known of one kind."""

    def __init__(self) -> None:
        self._queues: set[str] = set()
        self._sessions = 0
        self._schemas: dict[str, None] = {}

    def add(self, offer: Offer, kind: AnnouncedKind, sessions: int) -> None:
        """So many sessions offer it like this."""
        self._queues.update(offer.queues)
        self._sessions += sessions
        if kind.input_schema and len(self._schemas) < SCHEMAS_LISTED_MAX:
            self._schemas[kind.input_schema] = None

    def report(self, name: str) -> KindReport:
        """All of it."""
        queues, schemas = tuple(sorted(self._queues)), tuple(self._schemas)
        return KindReport(name, queues, self._sessions, schemas)
