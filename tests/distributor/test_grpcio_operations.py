"""The official gRPC client drives the operators' verbs and meets the limits."""

import time
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from tests.support.interop import Generated, Noted, generate, refusal
from tests.support.processes import Processes

CODE = grpc.StatusCode
TIMEOUT_S = 20
"""For calls that are answered at once: far more than that takes on a busy machine."""

LIMITS = {
    "TASKDIST_TASKS_WAITING_MAX": "2",
    "TASKDIST_WAITING_BYTES_MAX": "1048576",
    "TASKDIST_LEASES_PER_SESSION_MAX": "1",
}


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Generated:
    return generate(tmp_path_factory.mktemp("interop"))


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    """To a distributor with narrow limits."""
    with Processes(tmp_path_factory.mktemp("distributor")) as processes:
        serving = processes.serve(**LIMITS)
        with grpc.insecure_channel(serving.address) as channel:
            yield channel
        serving.terminate()
        assert serving.wait_end() == 0
        assert not serving.texts(), "no traceback, and nothing else that is not a line of JSON"


@pytest.fixture
def pb(generated: Generated) -> Any:
    return generated.pb2


@pytest.fixture
def stub(generated: Generated, channel: grpc.Channel) -> Noted:
    return Noted(generated.pb2_grpc.TaskDistributorStub(channel))


def test_operators_put_back_and_remove(
    stub: Noted, pb: Any, generated: Generated, channel: grpc.Channel
) -> None:
    """Redrive and Purge by id and by filter, of tasks that were scheduled, failed and cancelled."""
    operators = Noted(generated.pb2_grpc.OperationsStub(channel))
    request = pb.SubmitTaskRequest(user_tier="paid", queue="operators", idempotency_key="k")
    request.timing.delay_seconds = 3_600
    request.backoff.kind = pb.BACKOFF_KIND_FIXED
    request.backoff.initial_seconds = 0.25
    placed = stub.SubmitTask(request, timeout=TIMEOUT_S)
    assert (placed.status, placed.queue_position) == (pb.TASK_STATE_SCHEDULED, 0)
    assert stub.SubmitTask(request, timeout=TIMEOUT_S) == placed, "its key is known"
    task_id = placed.task_id
    told = stub.GetTask(pb.GetTaskRequest(task_id=task_id), timeout=TIMEOUT_S).task
    assert told.HasField("due_at")
    assert not told.HasField("enqueued_at")
    assert not told.HasField("deadline")
    assert told.backoff == request.backoff
    stub.CancelTask(pb.CancelTaskRequest(task_id=task_id), timeout=TIMEOUT_S)

    by_id = pb.RedriveRequest(selection=pb.TaskSelection(task_ids=[task_id]))
    assert operators.Redrive(by_id, timeout=TIMEOUT_S).count == 1
    refused = refusal(lambda: operators.Redrive(by_id, timeout=TIMEOUT_S))
    assert (refused.code, refused.details) == (CODE.FAILED_PRECONDITION, [])
    work = stub.FetchTask(
        pb.FetchTaskRequest(agent_id="agent-1", queues=["operators"]), timeout=TIMEOUT_S
    )
    assert (work.task_id, work.attempt) == (task_id, 1)
    failed = pb.CompleteTaskRequest(
        task_id=task_id, agent_id="agent-1", lease_id=work.lease_id, error="bad", retryable=False
    )
    stub.CompleteTask(failed, timeout=TIMEOUT_S)

    dead = pb.TaskSelection(queue="operators")
    counted = operators.Purge(pb.PurgeRequest(selection=dead, count_only=True), timeout=TIMEOUT_S)
    assert (counted.count, counted.next_cursor) == (1, "")
    assert operators.Purge(pb.PurgeRequest(selection=dead), timeout=TIMEOUT_S).count == 1
    gone = pb.GetTaskRequest(task_id=task_id)
    assert refusal(lambda: stub.GetTask(gone, timeout=TIMEOUT_S)).code is CODE.NOT_FOUND
    refused = refusal(lambda: operators.Purge(pb.PurgeRequest(), timeout=TIMEOUT_S))
    assert (refused.code, refused.fields) == (CODE.INVALID_ARGUMENT, {"selection.all"})

    messages = list(operators.CheckStore(pb.CheckStoreRequest(), timeout=TIMEOUT_S))
    assert [message.done for message in messages] == [False] * (len(messages) - 1) + [True]
    assert (messages[-1].tasks, messages[-1].fault_count, messages[-1].faults) == (0, 0, [])
    messages = list(operators.BackupStore(pb.BackupStoreRequest(), timeout=TIMEOUT_S))
    content = b"".join(message.chunk for message in messages)
    assert messages[-1].sha256 == sha256(content).digest()
    assert messages[-1].total_bytes == messages[-1].copied_bytes == len(content) > 0
    assert not any(message.sha256 for message in messages[:-1])
    assert max(len(message.chunk) for message in messages) <= 1 << 20
    service = pb.DESCRIPTOR.services_by_name["Operations"]
    assert operators.called == {method.name for method in service.methods}


def test_p7_a_second_inspection_is_refused_and_a_cancelled_one_makes_room(
    stub: Noted, pb: Any, generated: Generated, channel: grpc.Channel
) -> None:
    """It says when to try again, which is then enough."""
    operators = Noted(generated.pb2_grpc.OperationsStub(channel))
    large = [pb.SubmitTaskRequest(user_tier="paid", queue="large", data=bytes(500_000))] * 2
    stub.SubmitTasks(pb.SubmitTasksRequest(tasks=large), timeout=TIMEOUT_S)
    tasks = stub.ListTasks(pb.ListTasksRequest(queue="large"), timeout=TIMEOUT_S).tasks
    for task in tasks:  # They would be in the way of the other tests.
        stub.CancelTask(pb.CancelTaskRequest(task_id=task.task_id), timeout=TIMEOUT_S)
    backup = operators.BackupStore(pb.BackupStoreRequest(), timeout=TIMEOUT_S)
    next(backup)
    check = pb.CheckStoreRequest()
    refused = refusal(lambda: list(operators.CheckStore(check, timeout=TIMEOUT_S)))
    assert refused.code is CODE.RESOURCE_EXHAUSTED
    assert "a backup of the store is under way, one at a time" in refused.text
    (detail,) = refused.details
    assert isinstance(detail, RetryInfo)
    backup.cancel()
    deadline = time.monotonic() + TIMEOUT_S
    while True:  # The distributor hears of it in its own time.
        try:
            assert list(operators.CheckStore(check, timeout=TIMEOUT_S))[-1].done
            return
        except grpc.RpcError:
            assert time.monotonic() < deadline


@pytest.mark.parametrize("service", ["", "taskdist.v1.TaskDistributor", "taskdist.v1.Operations"])
def test_health_of_each_service(channel: grpc.Channel, service: str) -> None:
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=HealthCheckRequest.SerializeToString,
        response_deserializer=HealthCheckResponse.FromString,
    )
    answer = check(HealthCheckRequest(service=service), timeout=TIMEOUT_S)
    assert answer.status == HealthCheckResponse.SERVING


def test_p7_what_is_exhausted_says_when_to_try_again(stub: Noted, pb: Any) -> None:
    """RetryInfo for each limit on what waits and on what is held."""
    large = pb.SubmitTaskRequest(user_tier="paid", data=bytes(1_048_576))
    small = pb.SubmitTaskRequest(user_tier="paid", data=b"x")
    empty = pb.SubmitTaskRequest(user_tier="paid")
    fetch = pb.FetchTaskRequest(agent_id="agent-1", session="s")
    stub.SubmitTask(large, timeout=TIMEOUT_S)
    refusals = [refusal(lambda: stub.SubmitTask(small, timeout=TIMEOUT_S))]
    stub.SubmitTask(empty, timeout=TIMEOUT_S)
    refusals.append(refusal(lambda: stub.SubmitTask(empty, timeout=TIMEOUT_S)))
    stub.FetchTask(fetch, timeout=TIMEOUT_S)
    refusals.append(refusal(lambda: stub.FetchTask(fetch, timeout=TIMEOUT_S)))
    words = ["bytes of data are waiting", "2 tasks are waiting", "holds 1 leases"]
    for refused, word in zip(refusals, words, strict=True):
        assert refused.code is CODE.RESOURCE_EXHAUSTED
        assert word in refused.text
        (detail,) = refused.details
        assert isinstance(detail, RetryInfo)
        assert detail.retry_delay.seconds == 1
