"""What is fuzzed: each target takes bytes, and raises where the product does what it must not.

They go through the same doors as the properties in tests/, whose checks they are.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import looptime
import structlog
from atheris import FuzzedDataProvider
from grpclib.exceptions import GRPCError

from taskdist.settings import AgentSettings, DistributorSettings
from taskdist.wire import messages as wire
from taskdist.wire.codec import Codec
from tests.backends import test_fuzzed_rows as rows
from tests.distributor import test_fuzzed_frames as frames
from tests.distributor.test_fuzzed_messages import no_traceback
from tests.support.channel import distributor_channel
from tests.test_fuzzed_settings import NAMES, check

Target = Callable[[bytes], None]

REQUESTS = [
    handler.request_type
    for service in (wire.TaskDistributorBase, wire.OperationsBase)
    for handler in service().__mapping__().values()
]

BYTES_MAX = 2_000
"""Of an input."""


def codec() -> Target:
    """A request's bytes: a message, or INVALID_ARGUMENT; and the same again once it is printed."""
    ours = Codec()

    def decode(data: bytes) -> None:
        cls = REQUESTS[data[0] % len(REQUESTS)] if data else REQUESTS[0]
        try:
            message = ours.decode(data[1:], cls)
        except GRPCError:
            return
        printed = ours.encode(message, cls)
        assert ours.encode(ours.decode(printed, cls), cls) == printed

    return decode


def http2() -> Target:
    """A connection's bytes, after the preface: others are served."""
    loop = looptime.new_event_loop()
    channel = distributor_channel()
    client, distributor = loop.run_until_complete(channel.__aenter__())

    async def come_and_go(data: bytes) -> None:
        await frames.come_and_go(distributor, Random(1), [frames.PREFACE, data])
        await client.ping()

    def send(data: bytes) -> None:
        with no_traceback():
            loop.run_until_complete(come_and_go(data))

    return send


def store() -> Target:
    """Values in the columns of a store: it opens, or says why not; the good tasks are served."""
    folder = Path(tempfile.mkdtemp(prefix="taskdist-fuzz-"))
    rows.make_filled(folder / "filled.db")

    def live(data: bytes) -> None:
        drawn = FuzzedDataProvider(data)
        faults = [
            rows.Spoilt(
                drawn.PickValueInList(rows.COLUMNS),
                drawn.ConsumeIntInRange(1, rows.FIRST_GOOD - 1),
                _value(drawn),
                drawn.ConsumeBool(),
            )
            for _ in range(drawn.ConsumeIntInRange(1, 3))
        ]
        with tempfile.TemporaryDirectory(dir=folder) as directory:
            path = Path(directory) / "tasks.db"
            shutil.copy(folder / "filled.db", path)
            rows.spoil(path, faults)
            asyncio.run(rows.live(path))

    return live


def settings() -> Target:
    """A file, a variable or a flag: settings, or one line."""

    def load(data: bytes) -> None:
        drawn = FuzzedDataProvider(data)
        cls = drawn.PickValueInList([DistributorSettings, AgentSettings])
        name = drawn.PickValueInList(NAMES[cls])
        match drawn.ConsumeIntInRange(0, 2):
            case 0:
                text = drawn.ConsumeUnicode(BYTES_MAX)
                check(cls, {name: text}, {}, b"", f"--{name.replace('_', '-')}")
            case 1:
                text = drawn.ConsumeUnicode(BYTES_MAX)
                variable = f"TASKDIST_{name.upper()}"
                check(cls, {}, {variable: text}, b"", variable)
            case _:
                check(cls, {}, {}, name.encode() + b" = " + drawn.ConsumeBytes(BYTES_MAX), " in ")

    return load


def _value(drawn: FuzzedDataProvider) -> object:
    match drawn.ConsumeIntInRange(0, 4):
        case 0:
            return None
        case 1:
            return drawn.ConsumeInt(8)
        case 2:
            return drawn.ConsumeFloat()
        case 3:
            return drawn.ConsumeUnicodeNoSurrogates(40)
    return drawn.ConsumeBytes(40)


def quiet() -> None:
    """What is set aside or cut is logged by the thousand; nobody would read it."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))


TARGETS: dict[str, Callable[[], Target]] = {
    "codec": codec,
    "http2": http2,
    "store": store,
    "settings": settings,
}
