"""A store over many lives of its distributor: each ends at a point, the next looks at the rest."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, Self

import grpc

from tests.crashes.dying import SIGKILLED, Dying
from tests.crashes.official import Official
from tests.crashes.play import AGENT, READY, Call, Case, Play
from tests.crashes.points import Point, Way

LOAD_ROWS = 20_000
NO_CHECKPOINTS = {"TASKDIST_IDLE_CHECKPOINT": "1h"}
IDLE_CHECKPOINTS = {"TASKDIST_IDLE_CHECKPOINT": "0", "TASKDIST_TICK": "10ms"}


class Scene(NamedTuple):
    """A case, and what its call goes through."""

    rpc: str
    case: Any
    way: Way
    is_one: bool = True
    """Whether the call is one request of the writer's; the case itself makes two otherwise."""


class Theatre:
    """A store, the distributor that serves it now, and what is known of its tasks.

    Args:
        server: the port of the fork server.
        store: the file.

    Attributes:
        play: what is known.
        life: the distributor.
    """

    def __init__(self, server: int, store: Path) -> None:
        self._server = server
        self._store = store
        self._official: Official | None = None
        self.play = Play()

    def __enter__(self) -> Self:
        self.begin()
        self.play.queue = "bystander"
        self._bystander = self.play.leased()
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def end(self) -> None:
        """Kills the distributor, if it lives."""
        if self._official is not None:
            self._official.__exit__()
            self._official = None
        self.life.close()

    def open(
        self,
        point: Point | None = None,
        load_rows: int = LOAD_ROWS,
        environ: Mapping[str, str] = NO_CHECKPOINTS,
    ) -> None:
        """Starts the next distributor, which may die in its start."""
        self.life = Dying(self._server, self._store, environ, point, load_rows)

    def begin(
        self, load_rows: int = LOAD_ROWS, environ: Mapping[str, str] = NO_CHECKPOINTS
    ) -> None:
        """Starts the next distributor, which serves."""
        if self._official is not None:
            self.end()
        self.open(load_rows=load_rows, environ=environ)
        self._official = Official(self.life.address())
        self.play.meet(self._official, self.life.let_go)

    def fall(self, point: Point) -> None:
        """It dies at this point, if it did not already."""
        assert self.life.end() == SIGKILLED
        assert self.life.fell == point.name
        self.end()

    def rehearse(self, scene: Scene, point: Point) -> None:
        """The point is not on the way of this call: nothing happens."""
        script: Case = scene.case(self.play)
        call = next(script)
        self.life.arm(point)
        reply = call()
        self.life.arm(None)
        found = script.send(reply)
        assert found is not False
        next(script, None)

    def perform(self, scene: Scene, point: Point) -> None:
        """It dies at this point; all that must be true after is."""
        if point.idle:
            self.begin(environ=IDLE_CHECKPOINTS)
        script: Case = scene.case(self.play)
        call = next(script)
        self.life.arm(point)
        with self._companion(point) if point.batch > 1 and scene.is_one else nullcontext():
            reply = answer(call)
            self.life.let_go()
            self.fall(point)
            assert point.spoken is None or (reply is not None) == point.spoken
            self.begin()
        found = script.send(reply)
        assert found == point.saved or None in (found, point.saved)
        assert found is not False or reply is None, "what was acknowledged is there"
        next(script, None)

    @contextmanager
    def _companion(self, point: Point) -> Generator[None, None, None]:
        """Another call, which shares the batch and its end."""
        other = self.play.new(queue="companion")
        submitting = self.play.official.begin("SubmitTask", **other)
        yield
        assert submitting.exception() is not None
        assert self.play.is_gone(other["task_id"]) != point.saved
        self.play.call("SubmitTask", **other)
        self.play.known[other["task_id"]] = READY

    def check(self) -> None:
        """What was told of every task over all these lives is true."""
        held = [self._bystander.lease_id]
        beaten = self.play.call("Heartbeat", agent_id=AGENT, lease_ids=held)
        assert list(beaten.lease_ids) == held, "a lease that was given goes on (P4)"
        self.play.check_all()


def answer(call: Call) -> Any:
    """That of a call during which the distributor may die, or None."""
    try:
        return call()
    except (grpc.RpcError, StopIteration):
        return None
