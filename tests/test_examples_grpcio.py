"""examples/grpcio_agent: an agent in plain grpcio keeps the promises that ours keeps."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskdist.client.errors import TaskFailed
from taskdist.client.sync_client import Client, SyncHandle
from taskdist.core.task import TaskState
from tests.support.processes import Processes, Serving, Spawned
from tests.support.relay import Relay

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "grpcio_agent"
WAIT_S = 25
"""Far more than anything here takes."""

LEASE = "3s"


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the stubs of the contract are: as its README says, in a folder that is thrown away."""
    out = tmp_path_factory.mktemp("stubs")
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-Istubs={ROOT / 'proto'}"]
    outs = [f"--python_out={out}", f"--grpc_python_out={out}"]
    subprocess.run([*protoc, *outs, "stubs/taskdist/v1/taskdist.proto"], check=True, timeout=60)
    return out


class Play:
    """A distributor, an agent of the example that reaches it through a relay, and a client."""

    def __init__(self, processes: Processes, program: str, stubs: Path) -> None:
        self._processes = processes
        self._program = program
        self._stubs = stubs
        self.serving = self.serve()
        self.client = Client(self.serving.address)
        self.relay = Relay(self.serving.address)

    def serve(self, listen: str = "127.0.0.1:0") -> Serving:
        return self._processes.serve("--lease", LEASE, listen=listen)

    def agent(self) -> Spawned:
        python_path = {"PYTHONPATH": str(self._stubs), "PYTHONDONTWRITEBYTECODE": "1"}
        script = EXAMPLE / self._program
        return self._processes.script(script, "example", self.relay.address, **python_path)

    def submit(self, data: bytes, time: float = 0, max_retries: int = 0) -> SyncHandle[bytes]:
        return self.client.submit("shout", data, time=time, max_retries=max_retries)

    def kill_and_restart(self) -> None:
        address = self.serving.address
        self.serving.kill()
        self.serving = self.serve(listen=address)


@pytest.fixture(params=["unary.py", "work.py"])
def play(request: pytest.FixtureRequest, tmp_path: Path, stubs: Path) -> Iterator[Play]:
    with Processes(tmp_path) as processes:
        play = Play(processes, request.param, stubs)
        with play.client, play.relay:
            yield play


def runs(handle: SyncHandle[bytes]) -> None:
    """Returns once an agent runs it."""
    next(news for news in handle.watch() if news.task and news.task.state is TaskState.LEASED)


def test_it_reports_results_and_failures(play: Play) -> None:
    play.agent()
    handles = [play.submit(f"hello {n}".encode()) for n in range(9)]
    assert [one.result(WAIT_S) for one in handles] == [b"HELLO %d" % n for n in range(9)]
    with pytest.raises(TaskFailed, match="UnicodeDecodeError"):
        play.submit(b"\xff", max_retries=1).result(WAIT_S)


def test_it_outlives_the_distributor(play: Play) -> None:
    """What it runs meanwhile is reported afterwards, under the same lease (P3, P4)."""
    play.agent()
    handle = play.submit(b"long", time=2)
    runs(handle)
    play.kill_and_restart()
    assert handle.result(WAIT_S) == b"LONG"
    assert play.submit(b"next").result(WAIT_S) == b"NEXT"
    assert [one.outcome for one in handle.report().attempts] == ["succeeded"]


def test_it_repeats_an_outcome_whose_answer_was_lost(play: Play) -> None:
    """Repeated, it is answered the same again and counts once (P3)."""
    agent = play.agent()
    handle = play.submit(b"heard", time=1)
    play.relay.wait_for_answer(b"heard")
    play.relay.loses_answers = True
    assert handle.result(WAIT_S) == b"HEARD"
    play.relay.loses_answers = False
    play.relay.cut()
    # One task at a time, or a stop that waits for every verdict: both need the answer.
    assert play.submit(b"next").result(WAIT_S) == b"NEXT"
    assert [one.outcome for one in handle.report().attempts] == ["succeeded"]
    assert not agent.texts()


def test_it_stops_a_run_whose_lease_is_lost(play: Play) -> None:
    """A cancelled task frees its place at the next heartbeat, not after its minute (P3)."""
    play.agent()
    handles = [play.submit(b"endless", time=60) for _ in range(4)]
    runs(handles[0])
    for one in handles:
        one.cancel()
    assert play.submit(b"next").result(WAIT_S) == b"NEXT"


def test_over_a_stream_sigterm_drains_it(tmp_path: Path, stubs: Path) -> None:
    """What runs is finished and answered; what waits is left alone."""
    with Processes(tmp_path) as processes:
        play = Play(processes, "work.py", stubs)
        with play.client, play.relay:
            agent = play.agent()
            handle = play.submit(b"last", time=1)
            runs(handle)
            agent.terminate()
            assert agent.wait_end() == 0
            assert handle.report().result == b"LAST"
            assert not agent.texts()


def test_an_agent_takes_no_more_than_sixty_lines() -> None:
    """As the documents say of it."""
    assert len((EXAMPLE / "unary.py").read_text().splitlines()) < 60
