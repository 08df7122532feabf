"""An agent's life, in virtual time against a real distributor: fetch, run, report; and failures."""

import asyncio
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from taskdist.agent.handlers import Failed, Fatal, Retry
from taskdist.core.errors import InvalidFields
from taskdist.core.task import Outcome, TaskState
from taskdist.limits import ERROR_BYTES_MAX, MESSAGE_BYTES_MAX, RESULT_BYTES_MAX
from taskdist.reports import Work
from tests.support.agents import stage
from tests.support.channel import distributor_channel

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time


async def done(work: Work) -> bytes:
    """A handler that works for as long as the task expects and returns its data."""
    await asyncio.sleep(work.est_processing_time_s)
    return work.data


async def test_it_returns_what_the_handler_returns() -> None:
    async with stage() as played:
        played.agent(done)
        task = await played.final(await played.submit(data=b"\x00\xff"))
    assert (task.state, task.result) == (TaskState.SUCCEEDED, b"\x00\xff")
    assert [attempt.agent_id for attempt in task.attempts] == ["agent-1"]


async def test_it_never_holds_more_tasks_than_it_has_slots() -> None:
    """P2: a task that comes later and is better is not behind one that was fetched ahead."""
    order: list[str] = []
    running = most = 0

    async def count(work: Work) -> bytes:
        nonlocal running, most
        order.append(work.task_id)
        running += 1
        most = max(most, running)
        leased = [task async for task in played.client.list_tasks(states=[TaskState.LEASED])]
        assert len(leased) <= 3
        await asyncio.sleep(work.est_processing_time_s)
        running -= 1
        return b""

    async with stage() as played:
        played.agent(count, slots=3)
        free = [await played.submit("free", 10) for _ in range(8)]
        await asyncio.sleep(5)
        paid = await played.submit("paid", 10)
        await played.final(free[-1])
    assert most == 3
    assert order == [*free[:3], paid, *free[3:]]


async def test_a_free_slot_takes_a_task_at_once() -> None:
    """It waits in a long-poll, again and again, and does not ask in between."""
    async with stage() as played:
        played.agent(done, wait_us=30_000_000)
        await asyncio.sleep(100)
        task_id = await played.submit(est_s=0)
        submitted_at = asyncio.get_running_loop().time()
        await played.final(task_id)
        assert asyncio.get_running_loop().time() - submitted_at < 0.1
    assert len(played.network.times("FetchTask")) <= 6


# --- failures of handlers -----------------------------------------------------------------------


async def test_what_a_handler_raises_is_the_error_of_the_attempt() -> None:
    """P5: with its traceback; tried again, and dead after the last retry."""

    async def fail(work: Work) -> bytes:
        raise LookupError(f"no luck in attempt {work.attempt}")

    async with stage() as played:
        played.agent(fail)
        task = await played.final(await played.submit(max_retries=1))
    assert (task.state, task.retry_count) == (TaskState.DEAD, 2)
    for number, attempt in enumerate(task.attempts, 1):
        assert attempt.outcome is Outcome.FAILED
        assert attempt.error.startswith("Traceback")
        assert attempt.error.endswith(f"LookupError: no luck in attempt {number}\n")
    assert task.error == task.attempts[-1].error


async def test_p5_what_is_fatal_is_not_tried_again() -> None:
    async def fail(work: Work) -> bytes:
        raise Fatal("no such model")

    async with stage() as played:
        played.agent(fail)
        task = await played.final(await played.submit(max_retries=3))
    assert (task.state, task.retry_count, task.attempt) == (TaskState.DEAD, 1, 1)
    assert task.error.endswith("Fatal: no such model\n")


async def test_a_handler_may_say_when_to_try_again() -> None:
    began: list[float] = []

    async def fail_once(work: Work) -> bytes:
        began.append(asyncio.get_running_loop().time())
        if work.attempt == 1:
            raise Retry(after=1_000)
        return b"done"

    async with stage() as played:
        played.agent(fail_once)
        task = await played.final(await played.submit())
    assert (task.state, task.retry_count) == (TaskState.SUCCEEDED, 1)
    assert began[1] - began[0] == pytest.approx(1_000, abs=1)


@pytest.mark.parametrize("after_s", [-1.0, float("nan"), 1e12])
async def test_p5_a_pause_that_cannot_be_is_a_failure_like_any_other(after_s: float) -> None:
    async def fail(work: Work) -> bytes:
        raise Failed("busy\n", retry_after_s=after_s)

    async with stage() as played:
        played.agent(fail)
        task = await played.final(await played.submit(max_retries=1))
    assert (task.state, task.retry_count) == (TaskState.DEAD, 2)
    assert task.error.startswith("busy\nthe outcome was not accepted: retry_after_seconds: ")


@pytest.mark.parametrize("returned", [None, "text"])
async def test_p5_a_result_that_is_no_bytes_is_a_failure_that_no_retry_helps(returned: Any) -> None:
    async def careless(work: Work) -> bytes:
        return returned  # type: ignore[no-any-return] # what no type checker has looked at

    async with stage() as played:
        played.agent(careless)
        task = await played.final(await played.submit(max_retries=1))
    assert (task.state, task.retry_count) == (TaskState.DEAD, 1)
    assert "allowed: bytes" in task.error


async def test_p5_a_pause_that_is_no_number_is_a_failure_like_any_other() -> None:
    async def fail(work: Work) -> bytes:
        raise Retry("later", after=timedelta(seconds=5))  # type: ignore[arg-type] # as above

    async with stage() as played:
        played.agent(fail)
        task = await played.final(await played.submit(max_retries=1))
    assert (task.state, task.retry_count) == (TaskState.DEAD, 2)
    assert "TypeError" in task.error


async def test_a_task_s_own_run_timeout_is_kept() -> None:
    """P4: instead of the distributor's, which is an hour."""

    async def hang(work: Work) -> bytes:
        await asyncio.sleep(1e9)
        return b""

    async with stage() as played:
        played.agent(hang)
        began = asyncio.get_running_loop().time()
        task = await played.final(await played.submit(max_retries=0, run_timeout_s=5))
        took = asyncio.get_running_loop().time() - began
    assert task.error.endswith("TimeoutError: not done within 5.0 s\n")
    assert took == pytest.approx(5, abs=0.5)


async def test_p4_a_task_s_own_lease_is_kept_alive_at_its_own_pace() -> None:
    async def work(work: Work) -> bytes:
        await asyncio.sleep(20)
        return b"done"

    async with stage() as played:
        played.agent(work)
        task = await played.final(await played.submit(lease_s=3))
        beats = played.network.times("Heartbeat")
    assert (task.state, task.attempt) == (TaskState.SUCCEEDED, 1)
    assert [after - before for before, after in pairwise(beats)] == pytest.approx([1] * 19, abs=0.1)


async def test_a_run_that_takes_too_long_is_stopped_and_failed() -> None:
    """P4: at the run timeout, and it is the agent who says so."""

    async def hang(work: Work) -> bytes:
        await asyncio.sleep(1e9)
        return b""

    async with stage(run_timeout_us=60_000_000, run_timeout_factor=1) as played:
        played.agent(hang)
        task = await played.final(await played.submit(max_retries=0))
    assert (task.state, task.lost_count) == (TaskState.DEAD, 0)
    (attempt,) = task.attempts
    assert attempt.outcome is Outcome.FAILED
    assert attempt.error.endswith("TimeoutError: not done within 60.0 s\n")


async def test_a_timeout_of_the_handlers_own_is_not_the_run_timeout() -> None:
    async def time_out(work: Work) -> bytes:
        raise TimeoutError("the database did not answer")

    async with stage() as played:
        played.agent(time_out)
        task = await played.final(await played.submit(max_retries=0))
    assert task.error.endswith("TimeoutError: the database did not answer\n")


@pytest.mark.parametrize("size", [RESULT_BYTES_MAX + 1, MESSAGE_BYTES_MAX + 1])
async def test_a_result_that_is_too_large_is_reported_as_a_failure(size: int) -> None:
    """P7: the task does not run into its lease's end again and again."""

    async def boast(work: Work) -> bytes:
        return bytes(size)

    async with stage() as played:
        played.agent(boast)
        task = await played.final(await played.submit(max_retries=0))
    assert (task.state, task.result, task.lost_count) == (TaskState.DEAD, b"", 0)
    assert f"allowed: at most {RESULT_BYTES_MAX}" in task.error


@pytest.mark.parametrize("text", ["é" * MESSAGE_BYTES_MAX, "a\udc80b"], ids=["long", "surrogate"])
async def test_an_error_that_cannot_be_sent_as_it_is_harms_no_other_task(text: str) -> None:
    """P5, P7: it is cut to its end, and what is no character is replaced."""

    async def fail(work: Work) -> bytes:
        if work.data:
            raise ValueError(f"{text} at last")
        return b"done"

    async with stage() as played:
        played.agent(fail, slots=2)
        bad = await played.submit(max_retries=0, data=b"bad")
        good = await played.final(await played.submit())
        task = await played.final(bad)
    assert (good.state, good.attempt) == (TaskState.SUCCEEDED, 1)
    assert (task.state, task.lost_count) == (TaskState.DEAD, 0)
    assert task.error.endswith(" at last\n")
    assert len(task.error.encode()) <= ERROR_BYTES_MAX


# --- failures of the network --------------------------------------------------------------------


@pytest.mark.parametrize("how", ["broken", "deaf", "silent"])
async def test_an_outcome_is_repeated_until_it_is_answered(how: str) -> None:
    """P3: also when only the answers were lost; it counts once."""
    runs = 0

    async def once(work: Work) -> bytes:
        nonlocal runs
        runs += 1
        return b"done"

    async with stage() as played:
        getattr(played.network, how).add("CompleteTask")
        played.agent(once, unary=True)
        task_id = await played.submit()
        await played.network.wait_for_calls("CompleteTask", 5)
        getattr(played.network, how).clear()
        task = await played.final(task_id)
        after = await played.final(await played.submit())
    assert runs == 2
    assert (task.state, task.result, len(task.attempts)) == (TaskState.SUCCEEDED, b"done", 1)
    assert (task.retry_count, task.lost_count) == (0, 0)
    assert after.state is TaskState.SUCCEEDED, "its slot is free again"


async def test_an_outcome_that_comes_too_late_is_refused_and_forgotten() -> None:
    """P3: another agent has the task by then; the first one takes the next."""
    async with stage(lease_us=10_000_000) as played:
        played.network.broken.update({"CompleteTask", "Heartbeat"})
        played.agent(done, name="late", unary=True)
        task_id = await played.submit(est_s=1)
        await asyncio.sleep(5)
        played.network.broken.add("FetchTask")
        work = await played.client.fetch(agent_id="other", wait_s=10)
        assert work is not None
        await played.client.complete(
            task_id=task_id, agent_id="other", lease_id=work.lease_id, success=True, result=b"mine"
        )
        played.network.broken.clear()
        task = await played.final(await played.submit())
        assert [attempt.agent_id for attempt in task.attempts] == ["late"]
        task = await played.client.get(task_id)
    assert task.result == b"mine"
    assert [attempt.outcome for attempt in task.attempts] == [Outcome.LOST, Outcome.SUCCEEDED]


async def test_it_goes_on_with_a_distributor_that_forgot_everything(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The store was memory, or another file: what it ran is unknown, and the slot is free again."""
    async with stage() as played:
        played.agent(done)
        await played.submit(est_s=5)
        await asyncio.sleep(1)
        async with distributor_channel() as (client, forgetful):
            played.network.move_to(forgetful)
            submitted = await client.submit(user_tier="free", est_processing_time_s=1)
            async for _ in client.watch(submitted.task_id):
                pass
            assert (await client.get(submitted.task_id)).state is TaskState.SUCCEEDED
            await played.leave()
    assert not caplog.records, "nothing went wrong unseen"


async def test_a_distributor_that_does_not_want_it_ends_it() -> None:
    async with stage() as played:
        running = played.agent(done, name="two words")
        with pytest.raises(InvalidFields, match="two words"):
            await running


# --- backoff ------------------------------------------------------------------------------------


async def test_it_tries_a_lost_distributor_again_with_growing_pauses() -> None:
    """P7: doubled each time up to the longest, half of it left to chance, and never more."""
    first_s, longest_s = 0.1, 5.0
    gaps: list[list[float]] = []
    for name in ("agent-1", "agent-2"):
        async with stage() as played:
            played.network.broken.add("FetchTask")
            played.agent(done, name=name, unary=True)
            await asyncio.sleep(100)
            times = played.network.times("FetchTask")
            gaps.append([after - before for before, after in pairwise(times)])
            assert len(times) > 20
            for number, gap in enumerate(gaps[-1]):
                longest = min(first_s * 2**number, longest_s)
                assert longest / 2 - 1e-3 <= gap <= longest + 1e-3
    at_the_longest = [round(gap, 3) for some in gaps for gap in some[6:]]
    assert len(set(at_the_longest)) > len(at_the_longest) / 2, "a thousand agents do not meet"


async def test_it_comes_back_with_the_distributor() -> None:
    """Within the longest pause, and from the shortest again the next time."""
    async with stage() as played:
        played.agent(done)
        for _ in range(2):
            played.network.broken.add("FetchTask")
            await played.submit(est_s=0)  # ends the long-poll
            await asyncio.sleep(60)
            played.network.broken.clear()
            back_at = asyncio.get_running_loop().time()
            await played.final(await played.submit(est_s=0))
            assert asyncio.get_running_loop().time() - back_at < 5.5
