"""The official gRPC client drives every RPC of a real distributor: a process, TCP, a file.

So does any official client in any language: they share the core that grpcio is.
"""

import queue
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpclib.reflection.v1.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from tests.distributor.story import NO_TASK
from tests.support.interop import Generated, Noted, generate, refusal
from tests.support.processes import Processes

CODE = grpc.StatusCode
TIMEOUT_S = 20
"""For calls that are answered at once: far more than that takes on a busy machine."""


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    return generate(tmp_path_factory.mktemp("interop"))


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A distributor; at the end SIGTERM ends it well, though clients were connected."""
    with Processes(tmp_path_factory.mktemp("distributor")) as processes:
        serving = processes.serve()
        yield serving.address
        serving.terminate()
        assert serving.wait_end() == 0
        assert not serving.texts(), "no traceback, and nothing else that is not a line of JSON"
        assert serving.logged("stopped")


@pytest.fixture
def channel(address: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address) as channel:
        yield channel


@pytest.fixture
def pb(generated: Generated) -> Any:
    return generated.pb2


@pytest.fixture
def stub(generated: Generated, channel: grpc.Channel) -> Noted:
    return Noted(generated.pb2_grpc.TaskDistributorStub(channel))


def test_every_rpc(stub: Noted, pb: Any) -> None:
    assert stub.Ping(pb.PingRequest(message="hé"), timeout=TIMEOUT_S).message == "hé"
    task_id = a_task_lives(stub, pb)
    its_story_is_kept(stub, pb, task_id)
    another_is_cancelled_and_both_are_listed(stub, pb, task_id)
    several_are_worked_over_a_stream(stub, pb)

    service = pb.DESCRIPTOR.services_by_name["TaskDistributor"]
    elsewhere = {"AnnounceKinds", "ListKinds", "ReportProgress"}  # in test_grpcio_telling.py
    assert stub.called | elsewhere == {method.name for method in service.methods}


def several_are_worked_over_a_stream(stub: Noted, pb: Any) -> None:
    """Three are submitted at once, one of them bad; the others are finished over Work."""
    tiers = ("free", "gold", "paid")
    tasks = [pb.SubmitTaskRequest(user_tier=tier, queue="stream") for tier in tiers]
    with pytest.raises(grpc.RpcError) as refused:
        stub.SubmitTasks(pb.SubmitTasksRequest(tasks=tasks), timeout=TIMEOUT_S)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    each = pb.SubmitTasksRequest(tasks=tasks, atomic=False, positions=True)
    results = stub.SubmitTasks(each, timeout=TIMEOUT_S).results
    kinds = [result.WhichOneof("outcome") for result in results]
    assert kinds == ["submitted", "refusal", "submitted"]
    assert results[1].refusal.bad_fields[0].field == "user_tier"
    assert [results[0].submitted.queue_position, results[2].submitted.queue_position] == [1, 1]

    says: queue.Queue[Any] = queue.Queue()
    hello = pb.WorkHello(agent_id="agent-1", session="s", queues=["stream"], slots=1)
    says.put(pb.WorkRequest(hello=hello))
    answers = stub.Work(iter(says.get, None), timeout=TIMEOUT_S)
    done: list[str] = []
    while len(done) < 2:
        for work in next(answers).leases:
            outcome = pb.CompleteTaskRequest(
                task_id=work.task_id, lease_id=work.lease_id, success=True
            )
            says.put(pb.WorkRequest(outcomes=[outcome]))
            done.append(work.user_tier)
    says.put(pb.WorkRequest(goodbye=True))
    says.put(None)
    verdicts = [verdict for answer in answers for verdict in answer.verdicts]
    assert verdicts[-1].WhichOneof("verdict") == "accepted"
    assert done == ["paid", "free"]


def a_task_lives(stub: Noted, pb: Any) -> str:
    """It is submitted, handed back, fails, is retried, succeeds; a watcher hears all of it."""
    request = pb.SubmitTaskRequest(
        user_tier="free",
        est_processing_time=2.5,
        data=b"\0\xff",
        kind="resize",
        queue="story",
        max_retries=1,
    )
    placed = stub.SubmitTask(request, timeout=TIMEOUT_S)
    assert (placed.status, placed.queue_position) == (pb.TASK_STATE_READY, 1)
    watching = stub.WatchTask(pb.WatchTaskRequest(task_id=placed.task_id), timeout=TIMEOUT_S)
    assert next(watching).task.state == pb.TASK_STATE_READY

    work = fetch(stub, pb)
    assert (work.has_task, work.task_id, work.data) == (True, placed.task_id, b"\0\xff")
    assert (work.attempt, work.lease_seconds, work.run_timeout_seconds) == (1, 30, 3_600)
    assert not work.HasField("deadline")
    beat = pb.HeartbeatRequest(agent_id="agent-1", lease_ids=[work.lease_id, "other"])
    assert list(stub.Heartbeat(beat, timeout=TIMEOUT_S).lease_ids) == [work.lease_id]
    named = {"task_id": work.task_id, "agent_id": "agent-1"}
    back = pb.ReleaseTaskRequest(lease_id=work.lease_id, **named)
    assert stub.ReleaseTask(back, timeout=TIMEOUT_S).status == pb.TASK_STATE_READY

    failed = pb.CompleteTaskRequest(
        lease_id=fetch(stub, pb).lease_id, success=False, error="no memory", retryable=True, **named
    )
    assert stub.CompleteTask(failed, timeout=TIMEOUT_S).acknowledged
    again = fetch(stub, pb)
    assert (again.retry_count, again.attempt) == (1, 3)
    done = pb.CompleteTaskRequest(lease_id=again.lease_id, success=True, result=b"small", **named)
    for _ in range(2):  # repeated, as if the first answer had been lost
        assert stub.CompleteTask(done, timeout=TIMEOUT_S).acknowledged
    assert not fetch(stub, pb, wait_s=0.1).has_task

    heard = list(watching)
    assert [message.task.state for message in heard] == [
        *[pb.TASK_STATE_LEASED, pb.TASK_STATE_READY] * 2,
        pb.TASK_STATE_LEASED,
        pb.TASK_STATE_SUCCEEDED,
    ]
    assert heard[-1].result == b"small"
    return str(placed.task_id)


def fetch(stub: Noted, pb: Any, wait_s: float = 10) -> Any:
    request = pb.FetchTaskRequest(
        agent_id="agent-1", session="s-1", queues=["story"], kinds=["resize"], wait_seconds=wait_s
    )
    return stub.FetchTask(request, timeout=TIMEOUT_S)


def its_story_is_kept(stub: Noted, pb: Any, task_id: str) -> None:
    got = stub.GetTask(pb.GetTaskRequest(task_id=task_id), timeout=TIMEOUT_S)
    assert got.task.state == pb.TASK_STATE_SUCCEEDED
    assert (got.result, got.error) == (b"small", "no memory")
    assert [attempt.outcome for attempt in got.attempts] == [
        pb.ATTEMPT_OUTCOME_RELEASED,
        pb.ATTEMPT_OUTCOME_FAILED,
        pb.ATTEMPT_OUTCOME_SUCCEEDED,
    ]
    assert got.task.submitted_at.ToMicroseconds() <= got.task.finished_at.ToMicroseconds()


def another_is_cancelled_and_both_are_listed(stub: Noted, pb: Any, task_id: str) -> None:
    submit = pb.SubmitTaskRequest(user_tier="paid", task_id=NO_TASK, queue="story")
    stub.SubmitTask(submit, timeout=TIMEOUT_S)
    cancelled = stub.CancelTask(pb.CancelTaskRequest(task_id=NO_TASK), timeout=TIMEOUT_S)
    assert cancelled.status == pb.TASK_STATE_CANCELLED
    request = pb.ListTasksRequest(queue="story", page_size=1)
    first = stub.ListTasks(request, timeout=TIMEOUT_S)
    assert [task.task_id for task in first.tasks] == [NO_TASK]
    request.cursor = first.next_cursor
    second = stub.ListTasks(request, timeout=TIMEOUT_S)
    assert [task.task_id for task in second.tasks] == [task_id]
    assert second.next_cursor == ""


# --- errors --------------------------------------------------------------------------------------


def test_every_bad_field_is_in_the_details(stub: Noted, pb: Any) -> None:
    request = pb.SubmitTaskRequest(
        user_tier="gold",
        est_processing_time=-1,
        data=b"x" * (2**20 + 1),
        task_id="1",
        kind="é" * 100,
        queue="a b",
        max_retries=101,
        backoff=pb.Backoff(kind=9, initial_seconds=1, max_seconds=-1, jitter_percent=101),
        timing=pb.Timing(
            delay_seconds=-1,
            not_before=Timestamp(seconds=-1),
            deadline_seconds=float("nan"),
            deadline=Timestamp(seconds=-1),
            run_timeout_seconds=0,
            lease_seconds=0.5,
        ),
        idempotency_key="k" * 129,
    )
    refused = refusal(lambda: stub.SubmitTask(request, timeout=TIMEOUT_S))
    assert refused.code is CODE.INVALID_ARGUMENT
    assert refused.fields == {
        *(field.name for field in pb.SubmitTaskRequest.DESCRIPTOR.fields),
        *(f"backoff.{field.name}" for field in pb.Backoff.DESCRIPTOR.fields),
        *(f"timing.{field.name}" for field in pb.Timing.DESCRIPTOR.fields),
    } - {"backoff", "timing"}
    (detail,) = refused.details
    assert isinstance(detail, BadRequest)
    (tier,) = [bad for bad in detail.field_violations if bad.field == "user_tier"]
    assert tier.description == "'gold' is not allowed; allowed: paid, free"
    assert tier.description in refused.text


def test_each_status_of_the_table(stub: Noted, pb: Any) -> None:
    large = pb.SubmitTaskRequest(user_tier="paid", data=b"x" * (2**20 + 1))
    refused = refusal(lambda: stub.SubmitTask(large, timeout=TIMEOUT_S))
    assert (refused.code, refused.fields) == (CODE.RESOURCE_EXHAUSTED, {"data"})

    task_id = NO_TASK[:-1] + "1"
    request = pb.SubmitTaskRequest(user_tier="paid", task_id=task_id, queue="statuses")
    stub.SubmitTask(request, timeout=TIMEOUT_S)
    request.data = b"other"
    refused = refusal(lambda: stub.SubmitTask(request, timeout=TIMEOUT_S))
    assert (refused.code, refused.details) == (CODE.ALREADY_EXISTS, [])

    unknown = pb.GetTaskRequest(task_id=NO_TASK[:-1] + "f")
    refused = refusal(lambda: stub.GetTask(unknown, timeout=TIMEOUT_S))
    assert (refused.code, refused.details) == (CODE.NOT_FOUND, [])
    watching = stub.WatchTask(pb.WatchTaskRequest(task_id=unknown.task_id), timeout=TIMEOUT_S)
    assert refusal(lambda: list(watching)).code is CODE.NOT_FOUND

    not_held = pb.CompleteTaskRequest(
        task_id=task_id, agent_id="agent-1", lease_id="x" * 1_000_000, success=True
    )
    refused = refusal(lambda: stub.CompleteTask(not_held, timeout=TIMEOUT_S))
    assert (refused.code, refused.details) == (CODE.FAILED_PRECONDITION, [])

    cancel = pb.CancelTaskRequest(task_id=task_id)
    stub.CancelTask(cancel, timeout=TIMEOUT_S)
    refused = refusal(lambda: stub.CancelTask(cancel, timeout=TIMEOUT_S))
    assert (refused.code, refused.details) == (CODE.FAILED_PRECONDITION, [])


def test_p7_many_bad_values_make_no_answer_that_a_client_cannot_take(stub: Noted, pb: Any) -> None:
    request = pb.FetchTaskRequest(agent_id="", queues=["é" * 50] * 200, kinds=["?"] * 200)
    refused = refusal(lambda: stub.FetchTask(request, timeout=TIMEOUT_S))
    assert refused.code is CODE.INVALID_ARGUMENT
    assert refused.fields == {"agent_id", "queues", "kinds"}


def test_a_message_over_4_mib(stub: Noted, pb: Any) -> None:
    request = pb.SubmitTaskRequest(user_tier="paid", data=b"x" * (4 * 2**20 + 1))
    refused = refusal(lambda: stub.SubmitTask(request, timeout=TIMEOUT_S))
    assert (refused.code, refused.fields) == (CODE.RESOURCE_EXHAUSTED, {"request"})


def test_a_compressed_message_is_unimplemented(stub: Noted, pb: Any) -> None:
    refused = refusal(
        lambda: stub.Ping(
            pb.PingRequest(message="x" * 1_000),
            timeout=TIMEOUT_S,
            compression=grpc.Compression.Gzip,
        )
    )
    assert refused.code is CODE.UNIMPLEMENTED


def test_an_unknown_method_is_unimplemented(channel: grpc.Channel) -> None:
    steal = channel.unary_unary(
        "/taskdist.v1.TaskDistributor/StealTask",
        request_serializer=bytes,
        response_deserializer=bytes,
    )
    assert refusal(lambda: steal(b"", timeout=TIMEOUT_S)).code is CODE.UNIMPLEMENTED


# --- deadlines and cancellation ------------------------------------------------------------------


def test_a_deadline_ends_a_long_poll_and_the_next_task_is_not_lost(stub: Noted, pb: Any) -> None:
    request = pb.FetchTaskRequest(agent_id="agent-1", queues=["deadline"], wait_seconds=60)
    assert refusal(lambda: stub.FetchTask(request, timeout=0.2)).code is CODE.DEADLINE_EXCEEDED
    assert_next_task_is_untouched(stub, pb, "deadline")


def test_a_cancelled_long_poll_gets_nothing(stub: Noted, pb: Any) -> None:
    request = pb.FetchTaskRequest(agent_id="agent-1", queues=["cancel"], wait_seconds=60)
    poll = stub.FetchTask.future(request, timeout=TIMEOUT_S)
    stub.Ping(pb.PingRequest(), timeout=TIMEOUT_S)  # behind it on the same connection
    poll.cancel()
    stub.Ping(pb.PingRequest(), timeout=TIMEOUT_S)
    assert_next_task_is_untouched(stub, pb, "cancel")


def test_a_cancelled_watch_and_a_closed_channel_harm_nobody(
    stub: Noted, pb: Any, address: str, generated: Generated
) -> None:
    placed = stub.SubmitTask(
        pb.SubmitTaskRequest(user_tier="paid", queue="watch"), timeout=TIMEOUT_S
    )
    request = pb.WatchTaskRequest(task_id=placed.task_id)
    with grpc.insecure_channel(address) as short:
        other = generated.pb2_grpc.TaskDistributorStub(short)
        left_open = other.WatchTask(request, timeout=TIMEOUT_S)
        next(left_open)
        watching = other.WatchTask(request, timeout=TIMEOUT_S)
        next(watching)
        watching.cancel()
        assert refusal(lambda: next(watching)).code is CODE.CANCELLED
    stub.CancelTask(pb.CancelTaskRequest(task_id=placed.task_id), timeout=TIMEOUT_S)
    (end,) = stub.WatchTask(request, timeout=TIMEOUT_S)
    assert end.task.state == pb.TASK_STATE_CANCELLED


def assert_next_task_is_untouched(stub: Noted, pb: Any, queue: str) -> None:
    submit = pb.SubmitTaskRequest(user_tier="paid", queue=queue)
    placed = stub.SubmitTask(submit, timeout=TIMEOUT_S)
    request = pb.FetchTaskRequest(agent_id="agent-2", queues=[queue], wait_seconds=10)
    work = stub.FetchTask(request, timeout=TIMEOUT_S)
    assert (work.task_id, work.attempt) == (placed.task_id, 1)


# --- health and reflection -----------------------------------------------------------------------
# grpc_health and grpc_reflection define the same messages as grpclib, which is in this process,
# too: so these are the official client's calls with grpclib's messages. The bytes are the same.


@pytest.mark.parametrize("service", ["", "taskdist.v1.TaskDistributor"])
def test_health_says_that_it_serves(channel: grpc.Channel, service: str) -> None:
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )
    answer = check(HealthCheckRequest(service=service), timeout=TIMEOUT_S)
    assert answer.status == HealthCheckResponse.SERVING


def test_health_of_an_unknown_service_is_not_found(channel: grpc.Channel) -> None:
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )
    request = HealthCheckRequest(service="none")
    assert refusal(lambda: check(request, timeout=TIMEOUT_S)).code is CODE.NOT_FOUND


def test_reflection_lists_and_describes_the_services(channel: grpc.Channel, pb: Any) -> None:
    reflect = channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=ServerReflectionRequest.SerializeToString,
        response_deserializer=ServerReflectionResponse.FromString,
    )
    requests = [
        ServerReflectionRequest(list_services="*"),
        ServerReflectionRequest(file_containing_symbol="taskdist.v1.TaskDistributor"),
        ServerReflectionRequest(file_containing_symbol="taskdist.v1.StealTaskRequest"),
    ]
    listed, described, unknown = reflect(iter(requests), timeout=TIMEOUT_S)

    names = {service.name for service in listed.list_services_response.service}
    assert {"taskdist.v1.TaskDistributor", "grpc.health.v1.Health"} <= names
    described_files = [
        FileDescriptorProto.FromString(data)
        for data in described.file_descriptor_response.file_descriptor_proto
    ]
    (contract,) = [file for file in described_files if file.package == "taskdist.v1"]
    assert [method.name for method in contract.service[0].method] == [
        method.name for method in pb.DESCRIPTOR.services_by_name["TaskDistributor"].methods
    ]
    assert unknown.error_response.error_code == CODE.NOT_FOUND.value[0]


@pytest.mark.parametrize("size", [20_000, 300_000, 1_000_000])
def test_a_large_message_may_be_the_first_of_a_connection(
    generated: Generated, address: str, size: int
) -> None:
    """The peer uses our frame size as soon as it has heard of it."""
    request = generated.pb2.SubmitTaskRequest(user_tier="paid", queue="large", data=b"x" * size)
    alone = [("grpc.use_local_subchannel_pool", 1)]
    for _ in range(5):
        with grpc.insecure_channel(address, options=alone) as channel:
            stub = generated.pb2_grpc.TaskDistributorStub(channel)
            assert stub.SubmitTask(request, timeout=TIMEOUT_S).queue_position > 0
