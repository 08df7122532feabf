"""Between the wire and the core: what runs have to say while they last."""

import math
from collections.abc import Sequence
from typing import Any

from taskdist.core.commands import Note, Noted
from taskdist.core.entries import Entry, EntryKind, Remark
from taskdist.core.telling import Told
from taskdist.limits import ENTRIES_DROPPED_TOLD_MAX, ENTRIES_TOGETHER_MAX, LINE_BYTES_MAX
from taskdist.wire import messages as wire
from taskdist.wire.checking import Faults
from taskdist.wire.codec import fields, make
from taskdist.wire.times import timestamp


def note(message: wire.ReportProgressRequest) -> Note:
    """What a run has to say."""
    faults = Faults()
    said = _note(message, "", faults)
    faults.done()
    return said


def notes(
    messages: Sequence[wire.ReportProgressRequest], agent_id: str, faults: Faults
) -> tuple[Note, ...]:
    """What several runs have to say; `agent_id` is for those that leave it empty."""
    count = sum(len(fields(message).entries) for message in messages)
    if count > ENTRIES_TOGETHER_MAX:
        faults.reject("progress", f"{count} entries; allowed: at most {ENTRIES_TOGETHER_MAX}")
        return ()
    said = []
    for place, message in enumerate(messages):
        own = Faults(f"progress[{place}].")
        said.append(_note(message, agent_id, own))
        faults.include(own)
    return tuple(said)


def _note(message: wire.ReportProgressRequest, agent_id: str, faults: Faults) -> Note:
    m = fields(message)
    remarks = []
    if len(m.entries) > ENTRIES_TOGETHER_MAX:
        reason = f"{len(m.entries)} of them; allowed: at most {ENTRIES_TOGETHER_MAX}"
        faults.reject("entries", reason)
    else:
        for place, entry in enumerate(m.entries):
            own = Faults(f"entries[{place}].")
            remarks.append(_remark(entry, own))
            faults.include(own)
    return Note(
        task_id=faults.task_id(m.task_id),
        agent_id=faults.name("agent_id", m.agent_id or agent_id),
        lease_id=m.lease_id,
        remarks=tuple(remarks),
    )


def _remark(message: wire.TaskEntry, faults: Faults) -> Remark:
    # A view reads as None what is not set, which the message's own type does not know.
    m: Any = fields(message)
    at_us = 0 if m.at is None else faults.time("at", m.at)
    if m.progress is not None:
        p = fields(m.progress)
        if p.fraction is None and not p.text:
            faults.reject("progress", "is empty; allowed: a fraction, a text or both")
        elif p.fraction is not None and not (math.isfinite(p.fraction) and 0 <= p.fraction <= 1):
            faults.add("progress.fraction", p.fraction, "0 to 1")
        return Remark(EntryKind.PROGRESS, at_us, _cut(p.text), p.fraction)
    if m.log is not None:
        return Remark(EntryKind.LOG, at_us, _cut(m.log))
    if m.dropped is None:
        faults.reject("what", "missing; allowed: progress, log or dropped")
    elif not 1 <= m.dropped <= ENTRIES_DROPPED_TOLD_MAX:
        faults.add("dropped", m.dropped, f"1 to {ENTRIES_DROPPED_TOLD_MAX}")
    return Remark(EntryKind.DROPPED, at_us, dropped=m.dropped or 0)


def _cut(text: str) -> str:
    """As much as is kept, at a whole character."""
    if len(text) * 4 <= LINE_BYTES_MAX:
        return text
    return text.encode()[:LINE_BYTES_MAX].decode("utf-8", "ignore")


def noted(answer: Noted) -> wire.ReportProgressResponse:
    """What became of it."""
    return make(wire.ReportProgressResponse, dropped=answer.dropped)


def entry_told(entry: Entry) -> wire.TaskEntry:
    """Something that a run said."""
    what: dict[str, Any] = {"log": entry.text}
    if entry.kind is EntryKind.PROGRESS:
        progress = make(wire.TaskProgress, fraction=entry.fraction, text=entry.text)
        what = {"progress": progress}
    return make(wire.TaskEntry, at=timestamp(entry.at_us), attempt=entry.attempt, **what)


def entry_watched(told: Told) -> wire.WatchTaskResponse:
    """Something that a run said, or that is missing."""
    if told.entry is not None:
        entry = entry_told(told.entry)
    else:
        entry = make(wire.TaskEntry, dropped=told.dropped, attempt=told.attempt)
    return make(wire.WatchTaskResponse, number=told.number, entry=entry)
