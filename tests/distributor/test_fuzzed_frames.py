"""P7: whatever bytes come on a connection, nothing but that connection ends: others are answered,
the log has no traceback, and what came is forgotten with the connection."""

import asyncio
import gc
import struct
import tracemalloc
from contextlib import suppress
from random import Random

import pytest
from h2.exceptions import ProtocolError
from hypothesis import given, settings
from hypothesis import strategies as st

from taskdist.distributor.peers import PeerProtocol
from taskdist.distributor.server import Distributor
from tests.distributor.test_fuzzed_messages import METHODS, PHASES, no_traceback, run
from tests.support.channel import distributor_channel
from tests.support.examples import examples
from tests.support.hostile import Hostile
from tests.support.peer import Peer, frame, new_peer, peer_of

pytestmark = pytest.mark.proof

FLAGS = [0, 0x1, 0x4, 0x5, 0x8, 0xC, 0x20, 0x25, 0xFF]
CALLS = [
    (path.rpartition("/")[2], name) for path, name in METHODS.items() if ".TaskDistributor/" in path
]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Recorded(asyncio.Transport):
    """Where a peer writes, when what it says is to be changed before it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.said = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keeps it."""
        self.said += bytes(data)


def session(chance: Random) -> list[bytes]:
    """The frames of a valid session: calls of many sorts, resets, updates, pings."""
    peer = Peer()
    recorded = Recorded()
    peer.connection_made(recorded)
    peer.speak()
    hostile = Hostile(chance)
    for _ in range(chance.randrange(1, 8)):
        method, name = chance.choice(CALLS)
        data = hostile.request(name)[:16_000]
        more = [("x-some", "é")] if chance.randrange(20) == 0 else [("grpc-timeout", "1m")]
        call = peer.call(
            method,
            struct.pack(">?I", chance.randrange(9) == 0, len(data)) + data,
            end=chance.randrange(3) > 0,
            more=more if chance.randrange(3) == 0 else [],
        )
        with suppress(ProtocolError):  # A stream that was closed has no more to say.
            match chance.randrange(5):
                case 0:
                    peer.http2.reset_stream(call)
                case 1:
                    peer.http2.ping(b"12345678")
                case 2:
                    peer.http2.increment_flow_control_window(9, call)
                case 3:
                    peer.http2.update_settings({chance.randrange(1, 9): 70_000})
        peer.flush()
    return frames_of(recorded.said)


def frames_of(data: bytes) -> list[bytes]:
    """Each frame by itself, the preface before the first."""
    frames = [PREFACE]
    data = data[len(PREFACE) :]
    while data:
        end = 9 + int.from_bytes(data[:3])
        frames.append(data[:end])
        data = data[end:]
    return frames


def spoilt(chance: Random, frames: list[bytes]) -> list[bytes]:
    """The same with faults: in a frame's head, its content, the order, or a frame that is none."""
    hostile = Hostile(chance)
    frames = list(frames)
    for _ in range(chance.choice([0, 1, 1, 2, 5])):
        at = chance.randrange(len(frames))
        one = frames[at]
        match chance.randrange(7):
            case 0:
                frames[at] = hostile.mutated(one)
            case 1:
                frames.insert(at, one)
            case 2:
                frames.pop(at) if len(frames) > 1 else None
            case 3:
                frames.insert(at, frames.pop(chance.randrange(len(frames))))
            case 4:
                size = chance.choice([0, 1, 4, 5, 8, 40])
                frames.insert(
                    at,
                    frame(
                        chance.randrange(12),
                        chance.randbytes(size),
                        flags=chance.choice(FLAGS),
                        stream_id=chance.choice([0, 1, 2, 3, 5, 99, 2**31 - 1]),
                    ),
                )
            case 5 if len(one) > 9:
                frames[at] = one[:4] + bytes([chance.choice(FLAGS)]) + one[5:]
            case _:
                frames[at] = hostile.noise()
    return frames


async def come_and_go(distributor: Distributor, chance: Random, frames: list[bytes]) -> None:
    """A connection on which these are sent."""
    peer = new_peer(distributor)
    peer.is_frozen = True  # It never looks at what it is told.
    await send(peer, chance, frames)
    await asyncio.sleep(0.001)
    peer.close()


async def send(peer: Peer, chance: Random, frames: list[bytes]) -> None:
    """Sends them, all at once or in pieces that have nothing to do with where frames end."""
    data = b"".join(frames)
    size = chance.choice([len(data), 1_000, 40])
    for start in range(0, len(data), size or 1):
        peer.send(data[start : start + size])
        await asyncio.sleep(0)


@settings(max_examples=examples(40), deadline=None, phases=PHASES)
@given(chance=st.randoms(use_true_random=False))
def test_sessions_with_faults(chance: Random) -> None:
    async def story() -> None:
        async with distributor_channel() as (client, distributor):
            for _ in range(4):
                await come_and_go(distributor, chance, spoilt(chance, session(chance)))
                await client.ping()
            await asyncio.sleep(0.01)
            await client.ping()

    with no_traceback():
        run(story)


@settings(max_examples=examples(40), deadline=None)
@given(parts=st.lists(st.binary(max_size=200), max_size=5), after_preface=st.booleans())
def test_any_bytes(parts: list[bytes], after_preface: bool) -> None:
    async def story() -> None:
        async with distributor_channel() as (client, distributor):
            await come_and_go(distributor, Random(1), [PREFACE * after_preface, *parts])
            await client.ping()

    with no_traceback():
        run(story)


@pytest.mark.virtual_time
async def test_what_came_is_forgotten_with_its_connection() -> None:
    """Sessions with faults by the hundred, and memory after them."""
    chance = Random(7)
    stories = [spoilt(chance, session(chance)) for _ in range(30)]
    async with peer_of() as (_, client, distributor):
        sizes = []
        tracemalloc.start()
        for _ in range(5):
            for frames in stories:
                await come_and_go(distributor, chance, frames)
            await asyncio.sleep(0.1)
            await client.ping()
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    left = [one for one in gc.get_objects() if isinstance(one, PeerProtocol)]
    assert len(left) <= 4, "the peer's, the client's, and what these tests hold"
    # It goes up and down by some connections' worth; one that is kept takes 50 KiB.
    assert min(sizes[2:]) - max(sizes[:2]) < 500 * len(stories), sizes
