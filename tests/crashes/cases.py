"""A crash in each rpc: what is prepared, the call, what must be there after it, what a repeat says.

One case or more for each rpc of the contract, by its name. A case's calls are unaware of the point
at which the distributor dies; `test_every_rpc.py` tries them all.
"""

from functools import partial
from hashlib import sha256
from typing import Any

import grpc

from tests.crashes.play import (
    AGENT,
    CANCELLED,
    LEASED,
    READY,
    SESSION,
    SUCCEEDED,
    Case,
    Play,
    ended,
    whole,
)

REFUSED = grpc.StatusCode.FAILED_PRECONDITION


def submit_task(play: Play) -> Case:
    """By a task_id of the client's making."""
    before, after = play.submit(1), play.submit(9)
    said = play.new(5)
    task_id = said["task_id"]
    yield partial(play.call, "SubmitTask", **said)
    yield not play.is_gone(task_id)
    for _ in range(2):
        again = play.call("SubmitTask", **said)
        assert (again.task_id, again.status, again.queue_position) == (task_id, READY, 2)
    play.comes(before, task_id, after)


def submit_task_by_key(play: Play) -> Case:
    """By an idempotency key."""
    said = play.new(5, idempotency_key=play.queue)
    data = play.data.pop(said.pop("task_id"))
    reply = yield partial(play.call, "SubmitTask", **said)
    listed = play.call("ListTasks", queue=play.queue).tasks
    yield bool(listed)
    task_id = play.call("SubmitTask", **said).task_id
    assert {task.task_id for task in listed} <= {task_id}
    assert reply is None or reply.task_id == task_id
    play.data[task_id] = data
    play.comes(task_id)


def submit_tasks(play: Play) -> Case:
    """All or nothing."""
    said = [play.new(est) for est in (3, 1, 2)]
    ids = [one["task_id"] for one in said]
    yield partial(play.call, "SubmitTasks", tasks=said, positions=True)
    yield whole(*(not play.is_gone(task_id) for task_id in ids))
    play.call("SubmitTasks", tasks=said)
    results = play.call("SubmitTasks", tasks=said, positions=True).results
    assert [one.submitted.task_id for one in results] == ids
    assert [one.submitted.queue_position for one in results] == [3, 1, 2]
    play.comes(ids[1], ids[2], ids[0])


def fetch_task(play: Play) -> Case:
    """The lease of an answer that nobody heard is taken back by the session's next hello."""
    first, second = play.submit(1), play.submit(2)
    ask = {"agent_id": AGENT, "session": SESSION + play.queue, "queues": [play.queue]}
    given = yield partial(play.call, "FetchTask", **ask)
    found = play.get(first).task
    yield whole(found.state == LEASED, found.attempt == 1)
    assert given is None or given.task_id == first
    if given is None and found.state == LEASED:
        hello = {"agent_id": AGENT, "session": ask["session"], "slots": 0}
        list(play.official.talk("Work", iter([{"hello": hello}])))
        assert play.state(first) == READY
    if given is None:
        given = play.call("FetchTask", **ask)
        assert (given.task_id, given.attempt) == (first, 1)
    _succeeds(play, given)
    play.comes(second)


def fetch_task_that_waits(play: Play) -> Case:
    """A submit and the lease of an agent that waits for it are one commit."""
    ask = {"agent_id": AGENT, "session": SESSION + play.queue, "queues": [play.queue]}
    said = play.new()
    task_id = said["task_id"]
    fetched: list[Any] = []

    def call() -> Any:
        waiting = play.official.begin("FetchTask", wait_seconds=30, **ask)
        submitted = play.official.begin("SubmitTask", **said)
        for answer in (waiting, submitted):
            answer.add_done_callback(lambda _: play.heard())
        ends = [waiting.exception(), submitted.exception()]
        if ends[0] is None:
            fetched.append(waiting.result())
        if None not in ends:
            raise ends[0]
        return True

    yield call
    is_there = not play.is_gone(task_id)
    yield is_there and play.state(task_id) == LEASED
    play.call("SubmitTask", **said)
    if fetched:
        _succeeds(play, fetched[0])
        return
    hello = {"agent_id": AGENT, "session": ask["session"], "slots": 0}
    list(play.official.talk("Work", iter([{"hello": hello}])))
    play.comes(task_id)


def complete_task_well(play: Play) -> Case:
    """Its result is there with it; another outcome under the same lease is refused."""
    given = play.leased()
    said = ended(given, result=b"\x00result\xff")
    yield partial(play.call, "CompleteTask", **said)
    found = play.get(given.task_id)
    yield whole(
        found.task.state == SUCCEEDED, found.result == said["result"], len(found.attempts) == 1
    )
    for _ in range(2):
        assert play.call("CompleteTask", **said).acknowledged
    assert play.refused("CompleteTask", **{**said, "result": b"other"}) is REFUSED
    found = play.get(given.task_id)
    assert (found.result, len(found.attempts)) == (said["result"], 1)
    play.known[given.task_id] = SUCCEEDED


def complete_task_badly(play: Play) -> Case:
    """A failure counts once, however often it is said, and puts the task behind all new ones."""
    given = play.leased()
    last = play.submit(1_000)
    said = ended(given, success=False, error="out of luck")
    yield partial(play.call, "CompleteTask", **said)
    found = play.get(given.task_id)
    yield whole(
        found.task.state == READY, found.task.retry_count == 1, found.error == "out of luck"
    )
    for _ in range(2):
        assert play.call("CompleteTask", **said).acknowledged
    assert play.refused("CompleteTask", **ended(given)) is REFUSED
    assert play.get(given.task_id).task.retry_count == 1
    play.comes(last, given.task_id)


def report_progress(play: Play) -> Case:
    """What a run says is there once, in its order."""
    given = play.leased()
    said = {"task_id": given.task_id, "agent_id": AGENT, "lease_id": given.lease_id}
    yield partial(play.call, "ReportProgress", **said, entries=[{"log": "before"}])
    play.call("ReportProgress", **said, entries=[{"log": "after"}])
    _succeeds(play, given)
    heard = play.logs(given.task_id)
    assert heard in (["before", "after"], ["after"])
    yield len(heard) == 2
    assert play.refused("ReportProgress", **said, entries=[{"log": "late"}]) is REFUSED


def heartbeat(play: Play) -> Case:
    """It changes nothing on the disk; the lease is held after as before."""
    given = play.leased()
    said = {"agent_id": AGENT, "lease_ids": [given.lease_id]}
    yield partial(play.call, "Heartbeat", **said)
    yield None
    assert list(play.call("Heartbeat", **said).lease_ids) == [given.lease_id]
    _succeeds(play, given)


def release_task(play: Play) -> Case:
    """The task is back at its old place, and nothing is counted."""
    given = play.leased(1)
    other = play.submit(2)
    said = {"task_id": given.task_id, "agent_id": AGENT, "lease_id": given.lease_id}
    yield partial(play.call, "ReleaseTask", **said)
    yield play.state(given.task_id) == READY
    for _ in range(2):
        assert play.call("ReleaseTask", **said).status == READY
    assert play.refused("CompleteTask", **ended(given)) is REFUSED
    found = play.get(given.task_id)
    assert (found.task.retry_count, len(found.attempts)) == (0, 1)
    play.comes(given.task_id, other)


def cancel_task(play: Play) -> Case:
    """While it runs: its lease is over, and its outcome refused."""
    given = play.leased()
    yield partial(play.call, "CancelTask", task_id=given.task_id)
    state = play.state(given.task_id)
    yield state == CANCELLED
    if state == LEASED:
        assert play.call("CancelTask", task_id=given.task_id).status == CANCELLED
    assert play.refused("CancelTask", task_id=given.task_id) is REFUSED
    assert play.refused("CompleteTask", **ended(given)) is REFUSED
    play.known[given.task_id] = CANCELLED


def watch_task(play: Play) -> Case:
    """What a watcher hears is on the disk."""
    task_id = play.submit()
    heard: list[int] = []
    cancels: list[Any] = []

    def call() -> bool:
        try:
            for seen in play.official.watch("WatchTask", task_id=task_id):
                heard.append(seen.task.state)
                if seen.task.state == READY:
                    cancels.append(play.official.begin("CancelTask", task_id=task_id))
                    cancels[0].add_done_callback(lambda _: play.heard())
        except grpc.RpcError:
            # Either may be the one that is answered, or none.
            if not cancels or cancels[0].exception() is not None:
                raise
        return True

    yield call
    state = play.state(task_id)
    assert heard in ([], [READY], [READY, CANCELLED])
    assert CANCELLED not in heard or state == CANCELLED
    yield None
    if state == READY:
        play.call("CancelTask", task_id=task_id)
    (seen,) = play.official.watch("WatchTask", task_id=task_id)
    assert seen.task.state == CANCELLED
    play.known[task_id] = CANCELLED


def redrive(play: Play) -> Case:
    """Two that are dead, by a selection: both or none. A repeat finds what is left."""
    ids = [play.dead(), play.dead()]
    waits = play.submit(1, "paid")
    said = {"selection": {"queue": play.queue}}
    yield partial(play.call, "Redrive", **said)
    done = whole(*(play.state(task_id) == READY for task_id in ids))
    yield done
    assert play.call("Redrive", **said).count == (0 if done else 2)
    for task_id in ids:
        found = play.get(task_id)
        assert (found.task.retry_count, len(found.attempts)) == (0, 1)
    play.comes(waits, *ids)


def purge(play: Play) -> Case:
    """Two that are dead, by their ids: both or none."""
    ids = [play.dead(), play.dead()]
    yield partial(play.call, "Purge", selection={"task_ids": ids})
    done = whole(*map(play.is_gone, ids))
    yield done
    if done:
        gone = play.refused("Purge", selection={"task_ids": ids})
        assert gone is grpc.StatusCode.NOT_FOUND
    else:
        assert play.call("Purge", selection={"task_ids": ids}).count == 2
    for task_id in ids:
        assert play.is_gone(task_id)
        del play.known[task_id]


def get_task(play: Play) -> Case:
    """It changes nothing."""
    task_id = play.submit()
    before = play.get(task_id)
    yield partial(play.get, task_id)
    yield None
    assert play.get(task_id) == before
    play.comes(task_id)


def list_tasks(play: Play) -> Case:
    """It changes nothing."""
    ids = [play.submit(2), play.submit(1)]
    before = play.call("ListTasks", queue=play.queue)
    yield partial(play.call, "ListTasks", queue=play.queue)
    yield None
    assert play.call("ListTasks", queue=play.queue) == before
    play.comes(*reversed(ids))


def announce_kinds(play: Play) -> Case:
    """Kept in memory: forgotten by the next distributor, which is told again."""
    kinds = [{"name": play.queue, "input_schema": "{}"}]
    said = {"agent_id": AGENT, "session": SESSION + play.queue, "kinds": kinds}
    yield partial(play.call, "AnnounceKinds", **said)
    yield None
    play.call("AnnounceKinds", **said)
    assert [kind.name for kind in play.call("ListKinds", kind=play.queue).kinds] == [play.queue]


def list_kinds(play: Play) -> Case:
    """It changes nothing."""
    yield partial(play.call, "ListKinds")
    yield None
    play.call("ListKinds")


def check_store(play: Play) -> Case:
    """A store is sound, also after a check that was cut short."""
    yield partial(_last, play, "CheckStore")
    yield None
    seen = _last(play, "CheckStore")
    assert seen.done
    assert not seen.faults


def backup_store(play: Play) -> Case:
    """A backup that was cut short is not whole, and in the way of nothing."""
    yield partial(_last, play, "BackupStore")
    yield None
    *chunks, last = play.official.watch("BackupStore")
    copy = b"".join(one.chunk for one in chunks)
    assert len(copy) == chunks[-1].total_bytes
    assert last.sha256 == sha256(copy).digest()


def ping(play: Play) -> Case:
    """It touches no store."""
    yield partial(play.call, "Ping", message="hello")
    yield None
    assert play.call("Ping", message="again").message == "again"


def _last(play: Play, rpc: str) -> Any:
    *_, last = play.official.watch(rpc)
    return last


def _succeeds(play: Play, given: Any) -> None:
    assert play.call("CompleteTask", **ended(given)).acknowledged
    assert play.state(given.task_id) == SUCCEEDED
    play.known[given.task_id] = SUCCEEDED
