"""An agent over unary calls, with one task at a time: python unary.py NAME HOST:PORT"""

import sys
import time
from threading import Event, Thread

import grpc
from handler import KIND, shout
from stubs.taskdist.v1 import taskdist_pb2 as pb
from stubs.taskdist.v1.taskdist_pb2_grpc import TaskDistributorStub

name, server = sys.argv[1:]
# A pool of its own is a connection of its own: heartbeats wait behind nobody's data.
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 1000)]
calls, heartbeats = (TaskDistributorStub(grpc.insecure_channel(server, OPTIONS)) for _ in range(2))
AWAY = [grpc.StatusCode[n] for n in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")]


def answer(call, request):
    """Calls until the distributor answers. It may have heard an outcome before: it counts once."""
    while True:
        try:
            return call(request, timeout=40)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                return print(error.details(), flush=True)  # the lease is lost: no longer our task
            if error.code() not in AWAY:
                raise
        time.sleep(0.5)


def keep(task, stopped, over):
    """Renews the lease until all is over; stops the run once the lease is lost, or its time up."""
    timeout_at = time.monotonic() + task.run_timeout_seconds
    ask = pb.HeartbeatRequest(agent_id=name, lease_ids=[task.lease_id])
    while not over.wait(task.lease_seconds / 3):
        if time.monotonic() > timeout_at or not answer(heartbeats.Heartbeat, ask).lease_ids:
            stopped.set()


def run(task, stopped, report):
    """Runs the handler beside heartbeats, and reports how it ended."""
    outcome = pb.CompleteTaskRequest(task_id=task.task_id, lease_id=task.lease_id, agent_id=name)
    over = Event()
    Thread(target=keep, args=(task, stopped, over), daemon=True).start()
    try:
        outcome.result, outcome.success = shout(task.data, task.est_processing_time, stopped), True
    except Exception as error:
        outcome.error = repr(error)
    report(outcome)
    over.set()


if __name__ == "__main__":
    ask = pb.FetchTaskRequest(agent_id=name, kinds=[KIND], wait_seconds=30)
    while True:
        task = answer(calls.FetchTask, ask)
        if task.has_task:
            run(task, Event(), lambda outcome: answer(calls.CompleteTask, outcome))
