"""The official gRPC client announces kinds and tells of its runs: a process, TCP, a file."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.support.interop import Generated, Noted, generate, refusal
from tests.support.processes import Processes

CODE = grpc.StatusCode
TIMEOUT_S = 20
"""For calls that are answered at once: far more than that takes on a busy machine."""


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    return generate(tmp_path_factory.mktemp("interop"))


@pytest.fixture
def pb(generated: Generated) -> Any:
    return generated.pb2


@pytest.fixture
def stub(generated: Generated, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Noted]:
    with Processes(tmp_path_factory.mktemp("distributor")) as processes:
        serving = processes.serve()
        with grpc.insecure_channel(serving.address) as channel:
            yield Noted(generated.pb2_grpc.TaskDistributorStub(channel))


def test_kinds_are_announced_and_listed(stub: Noted, pb: Any) -> None:
    kind = pb.AnnouncedKind(name="infer", input_schema='{"type": "object"}')
    request = pb.AnnounceKindsRequest(agent_id="gpu-1", session="s-1", queues=["gpu"], kinds=[kind])
    assert stub.AnnounceKinds(request, timeout=TIMEOUT_S).again_seconds == 30
    (listed,) = stub.ListKinds(pb.ListKindsRequest(), timeout=TIMEOUT_S).kinds
    assert (listed.name, list(listed.queues), listed.live_agents) == ("infer", ["gpu"], 1)
    assert list(listed.input_schemas) == [kind.input_schema]

    def submit(kind: str) -> str:
        request = pb.SubmitTaskRequest(user_tier="paid", kind=kind, queue="gpu")
        return str(stub.SubmitTask(request, timeout=TIMEOUT_S).task_id)

    other, infer = submit("other"), submit("infer")
    fetch = pb.FetchTaskRequest(agent_id="gpu-1", session="s-1")
    assert stub.FetchTask(fetch, timeout=TIMEOUT_S).task_id == infer
    got = stub.GetTask(pb.GetTaskRequest(task_id=other), timeout=TIMEOUT_S)
    assert got.task.waits_because.startswith("no live agent runs kind other in queue gpu")

    fetch.kinds.append("other")
    refused = refusal(lambda: stub.FetchTask(fetch, timeout=TIMEOUT_S))
    assert (refused.code, refused.fields) == (CODE.INVALID_ARGUMENT, {"kinds"})


def test_every_bad_field_of_an_announcement_is_in_the_details(stub: Noted, pb: Any) -> None:
    kinds = [pb.AnnouncedKind(name="a b"), pb.AnnouncedKind(name="b", input_schema="[1]")]
    request = pb.AnnounceKindsRequest(agent_id="", session="", queues=["a/b"], kinds=kinds)
    refused = refusal(lambda: stub.AnnounceKinds(request, timeout=TIMEOUT_S))
    assert refused.code is CODE.INVALID_ARGUMENT
    assert refused.fields == {"agent_id", "session", "queues", "kinds", "kinds[1].input_schema"}


def test_a_run_says_how_far_it_is_and_a_watcher_goes_on_where_it_was(stub: Noted, pb: Any) -> None:
    submit = pb.SubmitTaskRequest(user_tier="paid")
    task_id = stub.SubmitTask(submit, timeout=TIMEOUT_S).task_id
    fetch = pb.FetchTaskRequest(agent_id="agent-1", session="s-1")
    lease_id = stub.FetchTask(fetch, timeout=TIMEOUT_S).lease_id
    whose = {"task_id": task_id, "agent_id": "agent-1", "lease_id": lease_id}

    def say(*entries: Any) -> int:
        request = pb.ReportProgressRequest(entries=entries, **whose)
        return int(stub.ReportProgress(request, timeout=TIMEOUT_S).dropped)

    half = pb.TaskEntry(progress=pb.TaskProgress(fraction=0, text=""), at={"seconds": 5})
    assert say(half, pb.TaskEntry(log="a line"), pb.TaskEntry(dropped=3)) == 0
    first = pb.WatchTaskRequest(task_id=task_id, entries=True, after=0)
    watching = stub.WatchTask(first, timeout=TIMEOUT_S)
    heard = [next(watching) for _ in range(5)]
    watching.cancel()
    states = [message.task.state for message in heard[:2]]
    assert states == [pb.TASK_STATE_READY, pb.TASK_STATE_LEASED]
    progress, line, gap = (message.entry for message in heard[2:])
    assert (progress.progress.fraction, progress.at.seconds, progress.attempt) == (0, 5, 1)
    assert progress.progress.HasField("fraction")
    assert (line.log, gap.dropped) == ("a line", 3)

    say(pb.TaskEntry(log="late"))
    done = pb.CompleteTaskRequest(success=True, result=b"42", **whose)
    stub.CompleteTask(done, timeout=TIMEOUT_S)
    again = pb.WatchTaskRequest(task_id=task_id, entries=True, after=heard[3].number)
    rest = list(stub.WatchTask(again, timeout=TIMEOUT_S))
    assert [message.entry.WhichOneof("what") for message in rest] == ["dropped", "log", None]
    assert rest[-1].result == b"42"
    got = stub.GetTask(pb.GetTaskRequest(task_id=task_id), timeout=TIMEOUT_S)
    assert got.progress.progress.fraction == 0

    request = pb.ReportProgressRequest(entries=[pb.TaskEntry(log="too late")], **whose)
    refused = refusal(lambda: stub.ReportProgress(request, timeout=TIMEOUT_S))
    assert refused.code is CODE.FAILED_PRECONDITION
