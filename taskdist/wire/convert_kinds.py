"""Between the wire and the core: the kinds that agents announce, and what is told of them."""

import json
import re
from collections.abc import Sequence
from functools import lru_cache

from taskdist.core.offers import AnnouncedKind, KindReport, Offer
from taskdist.core.values import value
from taskdist.limits import (
    KINDS_PAGE_BYTES_MAX,
    LANES_PER_AGENT_MAX,
    PAGE_SIZE_DEFAULT,
    PAGE_SIZE_MAX,
    SCHEMA_BYTES_MAX,
)
from taskdist.settings import NAME_PATTERN
from taskdist.wire import messages as wire
from taskdist.wire.checking import Faults
from taskdist.wire.codec import fields, make
from taskdist.wire.convert_agents import lanes

_CURSOR = "after:"
"""Begins a cursor, for the first name may be empty."""

_NAME = re.compile(NAME_PATTERN)


@value
class Announcement:
    """What a session says that it takes."""

    agent_id: str
    session: str
    offer: Offer


@value
class KindsWanted:
    """A page of kinds."""

    queue: str
    kind: str
    page_size: int
    after: str | None
    """Only names after this one."""


def announcement(message: wire.AnnounceKindsRequest) -> Announcement:
    """What a session says that it takes."""
    m = fields(message)
    faults = Faults()
    names = [fields(kind).name for kind in m.kinds]
    queues, _ = lanes(m.queues, names, faults)
    if not 1 <= len(names) <= LANES_PER_AGENT_MAX:
        faults.reject("kinds", f"{len(names)} of them; allowed: 1 to {LANES_PER_AGENT_MAX}")
    elif len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        faults.reject("kinds", f"{twice!r} is there twice; allowed: each name once")
    else:
        for place, kind in enumerate(m.kinds):
            _check_schema(fields(kind).input_schema, f"kinds[{place}].input_schema", faults)
    said = Announcement(
        faults.name("agent_id", m.agent_id),
        faults.name("session", m.session),
        Offer(
            queues or ("default",),
            tuple(AnnouncedKind(fields(one).name, fields(one).input_schema) for one in m.kinds),
        ),
    )
    faults.done()
    return said


def _check_schema(schema: str, field: str, faults: Faults) -> None:
    if not schema:
        return
    size = len(schema.encode())
    if size > SCHEMA_BYTES_MAX:
        faults.reject(field, f"{size} bytes; allowed: at most {SCHEMA_BYTES_MAX}")
    elif not _is_object(schema):
        faults.add(field, schema, "a JSON object, as text, or nothing")


@lru_cache(1_024)  # It is announced again and again.
def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text, parse_constant=_no_json), dict)
    except (ValueError, RecursionError):
        return False


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant} is Python's, not JSON's")


def announced(again_s: float) -> wire.AnnounceKindsResponse:
    """When to say it again."""
    return make(wire.AnnounceKindsResponse, again_seconds=again_s)


def kinds_wanted(message: wire.ListKindsRequest) -> KindsWanted:
    """Which kinds to list."""
    m = fields(message)
    faults = Faults()
    after = m.cursor.removeprefix(_CURSOR)
    is_cursor = m.cursor.startswith(_CURSOR) and (not after or _NAME.fullmatch(after))
    if m.cursor and not is_cursor:
        faults.add("cursor", m.cursor, "the next_cursor of the page before, or nothing")
    if m.page_size > PAGE_SIZE_MAX:
        faults.add("page_size", m.page_size, f"0 to {PAGE_SIZE_MAX}")
    wanted = KindsWanted(
        queue=faults.name("queue", m.queue, optional=True),
        kind=faults.name("kind", m.kind, optional=True),
        page_size=m.page_size or PAGE_SIZE_DEFAULT,
        after=after if m.cursor else None,
    )
    faults.done()
    return wanted


def kinds_listed(reports: Sequence[KindReport], wanted: KindsWanted) -> wire.ListKindsResponse:
    """A page of these, which are in the order of their names."""
    left = [one for one in reports if wanted.after is None or one.name > wanted.after]
    page: list[KindReport] = []
    size = 0
    for report in left:
        if len(page) == wanted.page_size or size > KINDS_PAGE_BYTES_MAX:
            break
        page.append(report)
        size += sum(len(text.encode()) for text in (*report.input_schemas, *report.queues))
    return make(
        wire.ListKindsResponse,
        kinds=list(map(_report, page)),
        next_cursor=_CURSOR + page[-1].name if len(page) < len(left) else "",
    )


def _report(report: KindReport) -> wire.KindReport:
    return make(
        wire.KindReport,
        name=report.name,
        queues=list(report.queues),
        live_agents=report.live_agents,
        input_schemas=list(report.input_schemas),
    )
