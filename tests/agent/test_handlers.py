"""Handlers of a registry, run by a real agent for a real distributor, in virtual time: what comes
in and goes out, how they fail, and how they are stopped."""

import asyncio
import sys
import threading
from contextlib import suppress

import pytest
from pydantic import BaseModel

from taskdist import Context, Fatal, Registry, Retry
from taskdist.core.task import Outcome, TaskState
from taskdist.limits import RESULT_BYTES_MAX, SECOND_US
from tests.support.agents import stage

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time


class Prompt(BaseModel):
    text: str
    max_tokens: int = 256


class Completion(BaseModel):
    text: str


tasks = Registry()


@tasks.handler
async def infer(prompt: Prompt, ctx: Context) -> Completion:
    await ctx.progress(0.5, "decoding")
    ctx.log(f"attempt {ctx.attempt} of {ctx.task.task_id}")
    return Completion(text=prompt.text.upper() * (ctx.lease_time_left() > 0))


@tasks.handler
def in_a_thread(prompt: Prompt, ctx: Context) -> Completion:
    ctx.progress(0.5)
    return Completion(text=f"{threading.current_thread().name} {ctx.lease_time_left():.0f}")


@tasks.handler
def raw(data: bytes) -> bytes:
    return data[::-1]


@tasks.handler
async def wrong(data: bytes) -> Completion:
    return {"text": "looks right"}  # type: ignore[return-value] # what no type checker has looked at


@tasks.handler(max_retries=1)
async def twice(data: bytes) -> None:
    raise LookupError("no luck")


@tasks.handler
async def later(data: bytes) -> None:
    raise Retry("busy", after=data.decode())


@tasks.handler
async def later_by(seconds: float) -> None:
    raise Retry("busy", after=seconds)


@tasks.handler(max_retries=1)
async def too_much(data: bytes) -> bytes:
    return bytes(RESULT_BYTES_MAX + 1)


@tasks.handler
def fatal(data: bytes) -> None:
    raise Fatal("no such model")


@tasks.handler
def odd(data: bytes) -> None:
    raise {b"stop": StopIteration, b"exit": SystemExit, b"cancel": asyncio.CancelledError}[data](7)


@tasks.handler
async def exits(data: bytes) -> None:
    sys.exit(3)


@tasks.handler(timeout="5s")
async def slow(data: bytes) -> None:
    await asyncio.sleep(100)


async def test_an_input_and_a_result_are_json() -> None:
    async with stage() as played:
        played.agent(tasks)
        task = await played.final(await played.submit(kind="infer", data=b'{"text": "hi"}'))
    assert (task.state, task.result) == (TaskState.SUCCEEDED, b'{"text":"HI"}')


async def test_a_plain_function_runs_in_a_thread() -> None:
    async with stage() as played:
        played.agent(tasks)
        task = await played.final(await played.submit(kind="in_a_thread", data=b'{"text": ""}'))
    assert task.result.startswith(b'{"text":"handler-1 ')


async def test_bytes_are_left_as_they_are() -> None:
    async with stage() as played:
        played.agent(tasks)
        task = await played.final(await played.submit(kind="raw", data=b"\x00\xff"))
    assert task.result == b"\xff\x00"


@pytest.mark.parametrize("kind", ["infer", "in_a_thread"])
async def test_p5_an_input_that_does_not_fit_is_dead_at_once(kind: str) -> None:
    """Every bad field is named in the attempt's error, and the handler is not called."""
    async with stage() as played:
        played.agent(tasks)
        data = b'{"max_tokens": "many"}'
        task = await played.final(await played.submit(kind=kind, data=data, max_retries=3))
    assert (task.state, task.attempt) == (TaskState.DEAD, 1)
    assert task.error.startswith("InvalidInput: data.text: field required; data.max_tokens: input ")
    assert task.attempts[0].outcome is Outcome.FAILED


async def test_p5_a_result_of_another_type_is_dead_at_once() -> None:
    """What the handler did is done; done again it would return the same."""
    async with stage() as played:
        played.agent(tasks)
        task = await played.final(await played.submit(kind="wrong", max_retries=3))
    assert (task.state, task.attempt) == (TaskState.DEAD, 1)
    assert "test_handlers.py:" in task.error
    assert "wrong returned dict; allowed: Completion" in task.error


async def test_p5_the_smaller_number_of_retries_counts() -> None:
    """The handler's or the task's own."""
    async with stage() as played:
        played.agent(tasks)
        by_handler = await played.final(await played.submit(kind="twice", max_retries=5))
        by_task = await played.final(await played.submit(kind="twice", max_retries=0))
    assert [by_handler.attempt, by_task.attempt] == [2, 1]
    assert {by_handler.state, by_task.state} == {TaskState.DEAD}
    error = by_handler.error
    assert error.startswith("Traceback")
    assert error.endswith("LookupError: no luck\n")
    assert "taskdist/agent/" not in error, "it begins with the handler's own code"


@pytest.mark.parametrize(
    ("run_timeout_s", "limit"), [(None, "5.0 s"), (60.0, "5.0 s"), (2.0, "2.0 s")]
)
async def test_p4_the_smaller_timeout_counts(run_timeout_s: float | None, limit: str) -> None:
    async with stage() as played:
        played.agent(tasks)
        task = await played.final(
            await played.submit(kind="slow", max_retries=0, run_timeout_s=run_timeout_s)
        )
        took = asyncio.get_running_loop().time()
    assert task.error.endswith(f"TimeoutError: not done within {limit}\n")
    assert took == pytest.approx(float(limit.split()[0]), abs=0.5)


async def test_p4_a_function_that_goes_on_when_it_is_stopped_has_failed_too() -> None:
    stubborn = Registry()

    @stubborn.handler(timeout="5s")
    async def swallow(data: bytes) -> bytes:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(1_000)
        return data

    async with stage() as played:
        played.agent(stubborn)
        task = await played.final(await played.submit(kind="swallow", max_retries=0))
    assert task.state is TaskState.DEAD
    assert task.error == (
        "it was stopped, and returned all the same\nTimeoutError: not done within 5.0 s\n"
    )


@pytest.mark.parametrize(("after", "seconds"), [("30s", 30), ("30m", 1_800), ("0.5", 0.5)])
async def test_a_handler_says_in_words_when_to_try_again(after: str, seconds: float) -> None:
    async with stage() as played:
        played.agent(tasks)
        task_id = await played.submit(kind="later", data=after.encode(), max_retries=1)
        await played.final(task_id)
        took = asyncio.get_running_loop().time()
    assert took == pytest.approx(seconds, abs=0.5)


@pytest.mark.parametrize("after", ["-1", "1e12"])
async def test_a_retry_at_no_time_fails_in_the_handler_and_says_so(after: str) -> None:
    async with stage() as played:
        played.agent(tasks)
        data = after.encode()
        task = await played.final(await played.submit(kind="later_by", data=data, max_retries=0))
    assert "in later_by" in task.error
    assert task.error.endswith(f"ValueError: after is {float(after)}; allowed: 0 to 365 days\n")


async def test_p5_a_result_that_is_too_long_is_a_failure_as_any_other() -> None:
    async with stage() as played:
        played.agent(tasks)
        task = await played.final(await played.submit(kind="too_much", max_retries=5))
    assert (task.state, task.attempt) == (TaskState.DEAD, 2)
    assert task.error == "a result of 1048577 bytes; allowed: at most 1048576"


async def test_p5_fatal_in_a_thread_is_dead_at_once() -> None:
    async with stage() as played:
        played.agent(tasks)
        task = await played.final(await played.submit(kind="fatal", max_retries=3))
    assert (task.state, task.attempt) == (TaskState.DEAD, 1)
    assert task.error.endswith("Fatal: no such model\n")


@pytest.mark.parametrize(
    ("kind", "data", "error"),
    [
        ("odd", b"stop", "StopIteration: 7\n"),
        ("odd", b"exit", "SystemExit: 7\n"),
        ("odd", b"cancel", "CancelledError: 7\n"),
        ("exits", b"", "SystemExit: 3\n"),
    ],
)
async def test_what_ends_a_program_ends_only_its_run(kind: str, data: bytes, error: str) -> None:
    """An agent outlives whatever its handlers raise."""
    async with stage() as played:
        played.agent(tasks)
        task = await played.final(await played.submit(kind=kind, data=data, max_retries=0))
        after = await played.final(await played.submit(kind="raw", data=b"12"))
    assert task.error.endswith(error)
    assert after.result == b"21"


# --- plain functions, which cannot be stopped ---------------------------------------------------


class Stubborn:
    """A registry with a function that returns when the test says so, after it was told.

    While it runs, time is real.
    """

    def __init__(self, timeout: str) -> None:
        self.let_go = threading.Event()
        self.told = threading.Event()
        self.runs = 0
        self.tasks = Registry()
        self.tasks.handler(name="stubborn", timeout=timeout)(self.run)
        self.tasks.handler(name="quick")(self.quick)

    def run(self, data: bytes, ctx: Context) -> bytes:
        self.runs += 1
        assert not ctx.cancelled
        assert ctx.cancelled.wait(20)
        self.told.set()
        assert ctx.cancelled
        assert self.let_go.wait(20)
        return b"too late"

    async def quick(self, data: bytes) -> bytes:
        return data


async def test_a_function_in_a_thread_is_told_and_keeps_its_slot_until_it_returns() -> None:
    """P2: no task is taken for a slot that is not free; what the function returns counts for
    nothing, and after that the slot is free."""
    stubborn = Stubborn("1h")
    async with stage(lease_us=SECOND_US) as played:
        played.agent(stubborn.tasks, slots=2)
        task_id = await played.submit(kind="stubborn")
        await asyncio.sleep(0.1)
        await played.client.cancel(task_id)
        assert await asyncio.to_thread(stubborn.told.wait, 20)

        # One slot is left.
        others = [await played.submit(kind="stubborn") for _ in range(2)]
        await asyncio.sleep(0.5)
        states = [(await played.client.get(other)).state for other in others]
        assert states == [TaskState.LEASED, TaskState.READY]

        stubborn.let_go.set()
        for other in others:
            await played.client.cancel(other)
        last = await played.final(await played.submit(kind="quick", data=b"free again"))
        task = await played.client.get(task_id)
    assert last.result == b"free again"
    assert (task.state, task.result) == (TaskState.CANCELLED, b"")


async def test_p4_a_function_in_a_thread_that_takes_too_long_has_failed() -> None:
    """At its timeout, though it goes on; its retry waits for the slot."""
    stubborn = Stubborn("0.3s")
    async with stage() as played:
        played.agent(stubborn.tasks)
        task_id = await played.submit(kind="stubborn", max_retries=1)
        async for task in played.client.watch(task_id):
            if task.retry_count:
                break
        await asyncio.sleep(0.5)
        task = await played.client.get(task_id)
        assert (task.state, task.retry_count, stubborn.runs) == (TaskState.READY, 1, 1)
        assert task.attempts[0].error.endswith("TimeoutError: not done within 0.3 s\n")
        assert "the function was told" in task.attempts[0].error
        assert "Traceback" not in task.attempts[0].error
        stubborn.let_go.set()
        task = await played.final(task_id)
    assert (task.state, stubborn.runs) == (TaskState.DEAD, 2)


# --- an agent that ends when it is idle ----------------------------------------------------------


async def test_it_ends_when_nothing_is_left() -> None:
    """It waits for the retry of what failed here, and not for what is due later by itself."""
    done: list[str] = []
    batch = Registry()

    @batch.handler
    async def once_more(data: bytes, ctx: Context) -> None:
        done.append(f"{ctx.task.task_id} {ctx.attempt}")
        if ctx.attempt == 1:
            raise Retry(after="10m")

    async with stage() as played:
        first = await played.submit(kind="once_more")
        await played.submit(kind="once_more", delay_s=3_600)
        assert await played.agent(batch, exit_when_idle=True) is True
        took = asyncio.get_running_loop().time()
    assert done == [f"{first} 1", f"{first} 2"]
    assert took == pytest.approx(602, abs=5)


async def test_it_is_not_idle_while_the_distributor_is_away() -> None:
    async with stage() as played:
        played.network.broken |= {"FetchTask", "GetTask"}
        agent = played.agent(tasks, exit_when_idle=True)
        await asyncio.sleep(60)
        assert not agent.done()
        task_id = await played.submit(kind="raw", data=b"12")
        played.network.broken.clear()
        assert await agent is True
        assert (await played.client.get(task_id)).state is TaskState.SUCCEEDED
