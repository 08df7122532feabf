"""Requests to commands: every field, its default, and its unit. What is bad is in test_checking.py
and, through the whole server, in tests/distributor/test_bad_input.py."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskdist.core import commands
from taskdist.core.queries import GetTask, ListTasks
from taskdist.core.task import Outcome, Task, TaskState
from taskdist.limits import ERROR_BYTES_MAX, EST_PROCESSING_TIME_MAX_US, SECOND_US
from taskdist.wire import convert, convert_agents, convert_submits
from taskdist.wire import messages as wire
from tests.support.examples import examples

ID = "0190a6e2-7b1c-7c3e-9f52-3d1f4e8a9b00"
NEW_ID = "0190a6e2-7b1c-7c3e-9f52-3d1f4e8a9b01"
TIERS = ("paid", "free")


def submit(**said: Any) -> commands.Submit:
    request = wire.SubmitTaskRequest(**{"user_tier": "paid", **said})
    return convert_submits.submit(request, TIERS, NEW_ID)


def test_submit_says_all_that_there_is() -> None:
    command = submit(
        user_tier="free",
        est_processing_time=2.5,
        data=b"in",
        task_id=ID.upper(),
        kind="resize",
        queue="images",
        max_retries=0,
    )
    task = Task(
        id=ID,
        user_tier="free",
        est_processing_time_us=2_500_000,
        kind="resize",
        queue="images",
        max_retries=0,
    )
    assert command == commands.Submit(task, b"in", client_made_id=True)


def test_submit_without_more_than_a_tier() -> None:
    task = Task(
        id=NEW_ID,
        user_tier="paid",
        est_processing_time_us=0,
        kind="simulate",
        queue="default",
        max_retries=3,
    )
    assert submit() == commands.Submit(task, b"", client_made_id=False)


@settings(deadline=None)
@given(st.integers(0, EST_PROCESSING_TIME_MAX_US))
def test_times_are_whole_microseconds_both_ways(us: int) -> None:
    """A double holds every microsecond of a year."""
    seconds = us / SECOND_US
    assert submit(est_processing_time=seconds).task.est_processing_time_us == us


@pytest.mark.parametrize(
    ("seconds", "us"), [(0.1, 100_000), (1e-6, 1), (4e-7, 0), (6e-7, 1), (0.1 + 0.2, 300_000)]
)
def test_a_time_between_two_microseconds_is_rounded(seconds: float, us: int) -> None:
    assert submit(est_processing_time=seconds).task.est_processing_time_us == us


def test_take_says_all_that_there_is() -> None:
    request = wire.FetchTaskRequest(
        agent_id="agent-1",
        session="s-1",
        queues=["b", "a", "b"],
        kinds=["y", "x", "y"],
        wait_seconds=1.5,
    )
    assert convert_agents.take(request, "token") == commands.Take(
        agent_id="agent-1",
        session="s-1",
        queues=("b", "a"),
        kinds=("y", "x"),
        slots=1,
        wait_us=1_500_000,
        token="token",
    )


def test_take_without_more_than_a_name() -> None:
    command = convert_agents.take(wire.FetchTaskRequest(agent_id="agent-1"), "token")
    assert (command.queues, command.kinds, command.session) == ((), (), "")
    assert command.wait_us == 0


def test_complete_with_a_success() -> None:
    request = wire.CompleteTaskRequest(
        task_id=ID, agent_id="agent-1", lease_id="L", success=True, result=b"42", error="a warning"
    )
    assert convert_agents.complete(request) == commands.Settle(
        task_id=ID,
        agent_id="agent-1",
        lease_id="L",
        outcome=Outcome.SUCCEEDED,
        result=b"42",
        error="",
        retryable=True,
    )


@pytest.mark.parametrize(("said", "retryable"), [(None, True), (True, True), (False, False)])
def test_complete_with_a_failure(said: bool | None, retryable: bool) -> None:
    request = wire.CompleteTaskRequest(
        task_id=ID, agent_id="agent-1", result=b"noise", error="no memory", retryable=said
    )
    assert convert_agents.complete(request) == commands.Settle(
        task_id=ID,
        agent_id="agent-1",
        lease_id="",
        outcome=Outcome.FAILED,
        result=b"",
        error="no memory",
        retryable=retryable,
    )


@settings(deadline=None, max_examples=examples(20))
@given(st.text(min_size=1, max_size=30), st.integers(0, 4))
def test_a_long_error_is_cut_at_a_whole_character(text: str, extra: int) -> None:
    error = "x" * (ERROR_BYTES_MAX - len(text.encode()) + extra) + text
    request = wire.CompleteTaskRequest(task_id=ID, agent_id="agent-1", error=error)
    kept = convert_agents.complete(request).error
    assert error.startswith(kept)
    assert ERROR_BYTES_MAX - 4 <= len(kept.encode()) <= ERROR_BYTES_MAX


def test_release() -> None:
    request = wire.ReleaseTaskRequest(task_id=ID.upper(), agent_id="agent-1", lease_id="L")
    assert convert_agents.release(request) == commands.Settle(ID, "agent-1", "L", Outcome.RELEASED)


def test_heartbeat() -> None:
    request = wire.HeartbeatRequest(agent_id="agent-1", lease_ids=["L", "", "L"])
    assert convert_agents.heartbeat(request) == commands.Heartbeat("agent-1", ("L", "", "L"))


def test_those_that_only_name_a_task() -> None:
    assert convert.get(wire.GetTaskRequest(task_id=ID.upper())) == GetTask(ID)
    assert convert.cancel(wire.CancelTaskRequest(task_id=ID)) == commands.Cancel(ID)
    assert convert.task_id(wire.WatchTaskRequest(task_id=ID.upper())) == ID


def test_list_says_all_that_there_is() -> None:
    request = wire.ListTasksRequest(
        states=[wire.TaskState[word] for word in ("DEAD", "READY", "DEAD")],
        user_tier="gone",  # not listed any more, but there may be tasks of it
        kind="resize",
        queue="images",
        id_ending="4E8A-9B00",
        page_size=7,
        cursor="123",
    )
    assert convert.list_tasks(request) == ListTasks(
        states=(TaskState.DEAD, TaskState.READY),
        user_tier="gone",
        kind="resize",
        queue="images",
        id_ending="4e8a9b00",
        page_size=7,
        before=123,
    )


def test_list_without_a_filter() -> None:
    assert convert.list_tasks(wire.ListTasksRequest()) == ListTasks(
        states=(), user_tier="", kind="", queue="", id_ending="", page_size=100, before=None
    )


@pytest.mark.parametrize("state", TaskState)
def test_every_state_has_its_word_on_the_wire_and_back(state: TaskState) -> None:
    word = convert.wire_state(state)
    assert word.name == state.name
    assert convert.list_tasks(wire.ListTasksRequest(states=[word])).states == (state,)


def test_the_wire_has_no_other_states() -> None:
    assert {state.name for state in wire.TaskState} == {"UNSPECIFIED", *TaskState.__members__}
