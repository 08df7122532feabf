"""One store over many lives of its distributor, and what a test knows of its tasks."""

import uuid
from collections.abc import Callable, Generator, Sequence
from typing import Any

import grpc

from tests.crashes.contract import RPCS
from tests.crashes.official import Official

AGENT = "agent-1"
SESSION = "s-1"

STATES = RPCS["GetTask"].containing_service.file.enum_types_by_name["TaskState"].values_by_name
SCHEDULED, READY, LEASED, SUCCEEDED, DEAD, CANCELLED = (
    STATES[f"TASK_STATE_{name}"].number
    for name in ("SCHEDULED", "READY", "LEASED", "SUCCEEDED", "DEAD", "CANCELLED")
)

Call = Callable[[], Any]
Case = Generator[Any, Any, None]
"""Prepares, yields the call during which the distributor dies and gets its answer, or None; yields
whether the change is there, whole, and not at all otherwise; goes on with what must work then."""


def fresh_id() -> str:
    """A task id of the client's making."""
    return str(uuid.uuid4())


class Play:
    """What a case can do, and has to be true of every task that it knows of.

    Attributes:
        queue: where the case has its tasks, and nobody else.
        known: the state in which each acknowledged task has to be.
        data: that of each task.
        heard: to be called when an answer is heard, where one call waits for two.
    """

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self.data: dict[str, bytes] = {}
        self.queue = ""
        self.heard: Callable[[], object] = lambda: None
        self._official: Official | None = None

    def meet(self, official: Official, heard: Callable[[], object]) -> None:
        """A new life of the distributor."""
        self._official = official
        self.heard = heard

    @property
    def official(self) -> Official:
        """Calls of the distributor as it is now."""
        assert self._official is not None
        return self._official

    # --- in short ---

    def call(self, rpc: str, **fields: Any) -> Any:
        """A unary call, which has an answer."""
        return self.official.call(rpc, **fields)

    def refused(self, rpc: str, **fields: Any) -> Any:
        """The code of a unary call that has none."""
        try:
            answer = self.call(rpc, **fields)
        except grpc.RpcError as error:
            ended: Any = error  # what is raised is the call, too
            return ended.code()
        raise AssertionError(f"not refused: {answer}")

    def new(self, est: float = 5, user_tier: str = "free", **more: Any) -> dict[str, Any]:
        """What a submit of a new task says."""
        task_id = fresh_id()
        self.data[task_id] = task_id.encode()
        said = {"task_id": task_id, "user_tier": user_tier, "est_processing_time": est}
        return {**said, "queue": self.queue, "data": self.data[task_id], **more}

    def submit(self, est: float = 5, user_tier: str = "free", **more: Any) -> str:
        """The id of a new task in the queue of the case."""
        said = self.new(est, user_tier, **more)
        self.call("SubmitTask", **said)
        self.known[said["task_id"]] = READY
        return str(said["task_id"])

    def lease(self, session: str = SESSION, **more: Any) -> Any:
        """The next task of the queue, under a lease; it must be there."""
        given = self.call("FetchTask", agent_id=AGENT, session=session, queues=[self.queue], **more)
        assert given.has_task
        assert given.data == self.data[given.task_id], "byte for byte"
        self.known[given.task_id] = LEASED
        return given

    def leased(self, est: float = 5, **more: Any) -> Any:
        """A new task that comes before all others, under a lease."""
        task_id = self.submit(est, "paid", **more)
        given = self.lease()
        assert given.task_id == task_id
        return given

    def dead(self) -> str:
        """The id of a new task that has failed for good."""
        given = self.leased()
        self.call("CompleteTask", **ended(given, success=False, error="no", retryable=False))
        self.known[given.task_id] = DEAD
        return str(given.task_id)

    def get(self, task_id: str) -> Any:
        """All that is kept of it; not why it waits, which is about agents and changes with them."""
        kept = self.call("GetTask", task_id=task_id)
        kept.task.ClearField("waits_because")
        return kept

    def state(self, task_id: str) -> int:
        """In which it is now."""
        return int(self.get(task_id).task.state)

    def logs(self, task_id: str) -> list[str]:
        """The lines that the runs of a finished task have said."""
        seen = self.official.watch("WatchTask", task_id=task_id, entries=True, after=0)
        return [one.entry.log for one in seen if one.entry.log]

    def is_gone(self, task_id: str) -> bool:
        """Whether there is no such task."""
        try:
            self.get(task_id)
        except grpc.RpcError as error:
            ended: Any = error
            assert ended.code() is grpc.StatusCode.NOT_FOUND
            return True
        return False

    # --- what must be true ---

    def comes(self, *task_ids: str) -> None:
        """P2: these are ready in the queue, in this order, byte for byte, and no others."""
        for task_id in task_ids:
            assert self.lease().task_id == task_id
        empty = self.call("FetchTask", agent_id=AGENT, session=SESSION, queues=[self.queue])
        assert not empty.has_task

    def check_all(self) -> None:
        """P1: every task that was acknowledged is there, once, in the state that it was told."""
        found: list[Any] = []
        cursor = ""
        while True:
            page = self.call("ListTasks", page_size=1_000, cursor=cursor)
            found += page.tasks
            cursor = page.next_cursor
            if not cursor:
                break
        assert len({task.task_id for task in found}) == len(found), "each is there once"
        assert {task.task_id: task.state for task in found} == self.known


def ended(given: Any, **more: Any) -> dict[str, Any]:
    """What an agent says when the run of this task has ended: well, unless more is said."""
    said = {"task_id": given.task_id, "agent_id": AGENT, "lease_id": given.lease_id}
    return {**said, "success": True, **more}


def whole(*found: bool) -> bool:
    """Whether all of a change is there; nothing of it otherwise."""
    assert len(set(found)) == 1, f"half of it: {found}"
    return found[0]


def first(heard: Sequence[Any]) -> Any:
    """What was heard, if anything was."""
    return heard[0] if heard else None
