"""P7: whatever is sent in whatever message, the answer is a status of the contract's table, nothing
changes where it is a refusal, the log has no traceback, and memory stays as it was."""

import asyncio
import gc
import logging
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import looptime
import pytest
from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from taskdist.client import Stub
from taskdist.settings import DistributorSettings
from taskdist.wire import http2
from taskdist.wire import messages as wire
from tests.conftest import NOOP_CYCLES
from tests.distributor.story import everything, fail, submit, succeed, take
from tests.distributor.test_raw_calls import framed
from tests.support.channel import MemoryChannel, distributor_channel
from tests.support.examples import examples
from tests.support.hostile import Hostile

pytestmark = pytest.mark.proof

METHODS = {
    path: handler.request_type.__name__
    for service in (wire.TaskDistributorBase, wire.OperationsBase)
    for path, handler in service().__mapping__().items()
}
WORK = "/taskdist.v1.TaskDistributor/Work"

REFUSALS = {
    Status.INVALID_ARGUMENT,
    Status.NOT_FOUND,
    Status.FAILED_PRECONDITION,
    Status.ALREADY_EXISTS,
    Status.RESOURCE_EXHAUSTED,
}
"""The contract's table, without what only happens to a distributor that ends or is damaged."""

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
"""Not to shrink, which takes minutes, and makes nothing smaller of what is drawn by chance."""

LIMIT_S = 90
"""Of the loop's clock: longer than any call may wait. An hour would pass at once, too."""

KEPT_BYTES_MAX = 50
"""Of a refused request, three times sent: less than the smallest object for each."""

SETTINGS = DistributorSettings(store="memory:", tasks_waiting_max=200)


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs it in virtual time: a hang is an error at once."""
    with asyncio.Runner(loop_factory=lambda: looptime.new_event_loop(noop_cycles=NOOP_CYCLES)) as r:
        r.run(story())


class Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.seen: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """One more."""
        self.seen.append(record)


@contextmanager
def no_traceback() -> Iterator[None]:
    """Neither log has one."""
    handler = Kept(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        with capture_logs() as lines:
            yield
    finally:
        logging.getLogger().removeHandler(handler)
    assert not handler.seen, [record.getMessage() for record in handler.seen]
    assert not [line for line in lines if line.get("exc_info")]


async def some_tasks(client: Stub) -> list[str]:
    """Tasks in several states; what can be said of them."""
    known = [await submit(client, data=b"data") for _ in range(4)]
    works = [await take(client, session="s-1") for _ in range(3)]
    await succeed(client, works[0])
    await fail(client, works[1])
    known += [work.lease_id for work in works]
    key = "a-key"
    await submit(client, "free", idempotency_key=key)
    return [*known, key]


class Raw:
    """A reply whose bytes nobody looks at."""

    @staticmethod
    def FromString(data: bytes) -> bytes:  # noqa: N802 # google's
        return data


async def call(channel: Channel, path: str, bodies: list[bytes]) -> Status:
    """Sends these messages, and none after them; the status."""
    try:
        async with (
            asyncio.timeout(LIMIT_S),
            channel.request(path, Cardinality.STREAM_STREAM, Raw, Raw) as stream,
        ):
            await stream.send_request()
            body = b"".join(map(framed, bodies))
            stream._end_done = True
            await stream._stream.send_data(body, end_stream=True)
            while await stream.recv_message() is not None:
                pass
    except TimeoutError:
        assert path.endswith("/WatchTask"), path  # Its task never ends.
        return Status.OK
    except GRPCError as error:
        refusal = error
    else:
        return Status.OK
    assert refusal.message is not None
    assert len(refusal.message.splitlines()) == 1
    return refusal.status


@settings(max_examples=examples(10), deadline=None, phases=PHASES)
@given(chance=st.randoms(use_true_random=False))
def test_any_value_in_any_field_of_any_request(chance: Random) -> None:
    """… and bytes that are none. Work's refusals are of its first message, which is all of it."""

    async def story() -> None:
        async with distributor_channel(SETTINGS) as (client, distributor):
            hostile = Hostile(chance, await some_tasks(client))
            async with MemoryChannel(distributor.server) as channel:
                for path, name in METHODS.items():
                    before = await everything(client)
                    status = await call(channel, path, [hostile.request(name)])
                    if status is not Status.OK:
                        assert status in REFUSALS, path
                        assert await everything(client) == before, path
            await client.ping()

    with no_traceback():
        run(story)


@settings(max_examples=examples(20), deadline=None, phases=PHASES)
@given(chance=st.randoms(use_true_random=False))
def test_any_messages_on_a_work_stream(chance: Random) -> None:
    async def story() -> None:
        async with distributor_channel(SETTINGS) as (client, distributor):
            hostile = Hostile(chance, await some_tasks(client))
            hello = bytes(
                wire.WorkRequest(hello=wire.WorkHello(agent_id="agent-1", session="s-1", slots=3))
            )
            async with MemoryChannel(distributor.server) as channel:
                for _ in range(10):
                    more = [hostile.request("WorkRequest") for _ in range(chance.randrange(4))]
                    status = await call(channel, WORK, [hello, *more])
                    # A session that lost a lease, to a cancel say, is asked to come again.
                    assert status in {Status.OK, Status.UNAVAILABLE, *REFUSALS}
            await everything(client)

    with no_traceback():
        run(story)


@pytest.mark.virtual_time
async def test_what_is_refused_leaves_no_memory_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bad requests, again and again."""
    monkeypatch.setattr(http2, "CLOSED_STREAMS_KEPT", 64)  # Sooner full than with 1,024.
    async with distributor_channel(SETTINGS) as (client, distributor):
        await some_tasks(client)
        hostile = Hostile(Random(7))
        bodies = [
            (path, hostile.mutated(hostile.request(name)))
            for path, name in METHODS.items()
            for _ in range(6)
        ]
        async with MemoryChannel(distributor.server) as channel:
            refused = [
                (path, [body])
                for path, body in bodies
                if await call(channel, path, [body]) is not Status.OK
            ]
            assert len(refused) > 50
            sizes = []
            tracemalloc.start()
            for _ in range(16):
                for path, body in refused:
                    await call(channel, path, body)
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
            tracemalloc.stop()
        # The first rounds fill what has a limit: the last calls of either side.
        assert max(sizes[10:]) - max(sizes[4:10]) < KEPT_BYTES_MAX * len(refused), sizes
