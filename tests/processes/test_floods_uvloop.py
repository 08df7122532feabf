"""P7 over uvloop, and over TCP: who floods is cut, and others are served meanwhile."""

import asyncio
import random
import struct
from pathlib import Path
from time import monotonic

from taskdist.client import Stub
from tests.support.floods import FLOODS
from tests.support.peer import DATA, EMPTY_MESSAGE, PADDED, WINDOW_UPDATE, Peer, frame
from tests.support.processes import Processes

ENVIRON = {
    "TASKDIST_EVENT_LOOP": "uvloop",
    "TASKDIST_RESETS_PER_SECOND_MAX": "50",
    "TASKDIST_RESETS_AT_ONCE_MAX": "50",
    "TASKDIST_CONTROL_FRAMES_PER_SECOND_MAX": "50",
}

MEMORY_MORE_MIB = 40
"""What all of them together may leave behind: one of them, unlimited, takes ten times as much."""

PAUSE_S = 0.002
OPEN_MAX = 80
"""Calls that are open before the distributor's resets are waited for."""

CUT_S = 10.0
"""Until a flood has to be cut; it takes some milliseconds."""


async def peer_at(address: str) -> Peer:
    """A peer on a TCP connection of its own."""
    host, _, port = address.rpartition(":")
    loop = asyncio.get_running_loop()
    _, peer = await loop.create_connection(Peer, host, int(port))
    peer.speak()
    return peer


def memory_mib(pid: int) -> float:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith("VmRSS:"))
    return int(kib) / 1024


async def answers(peer: Peer) -> None:
    """It gets an answer to a Ping of its own."""
    call = peer.call("Ping", EMPTY_MESSAGE, end=True)
    for _ in range(round(CUT_S / PAUSE_S)):
        if peer.status(call) is not None:
            break
        await asyncio.sleep(PAUSE_S)
    assert peer.status(call) == "0"


async def flood_until_cut(address: str, client: Stub, name: str) -> None:
    """Sends this flood, and sees that its connection ends, and no other."""
    peer = await peer_at(address)
    end = monotonic() + CUT_S
    while not peer.closed.done():
        assert monotonic() < end, f"{name}: not cut"
        if not peer.was_told_to_go and peer.http2.open_outbound_streams < OPEN_MAX:
            peer.send(b"".join(FLOODS[name](peer) for _ in range(20)))
        await asyncio.sleep(PAUSE_S)
    await client.ping()


async def send_until_cut(address: str, client: Stub, data: bytes) -> None:
    """Sends these bytes behind a call, and sees that its connection ends, and no other."""
    peer = await peer_at(address)
    peer.call("Ping")
    peer.send(data)
    async with asyncio.timeout(CUT_S):
        await peer.closed
    await client.ping()


async def test_floods_over_uvloop_are_cut_and_others_are_served(processes: Processes) -> None:
    serving = processes.serve(store="memory:", **ENVIRON)
    async with Stub(serving.address) as client:
        await client.ping()
        before_mib = memory_mib(serving.pid)
        for name in FLOODS:
            await flood_until_cut(serving.address, client, name)
        rng = random.Random(7)
        for data in (
            frame(DATA, stream_id=1) * 80,
            frame(DATA, b"\0", flags=PADDED, stream_id=1) * 80,
            frame(WINDOW_UPDATE, b"\0\0\0\1") * 80,
            b"\xff\xff\xff" + bytes(6),
            rng.randbytes(100_000),
        ):
            await send_until_cut(serving.address, client, data)
        # Those that are not cut delay nobody for long, and are served in the end.
        peer = await peer_at(serving.address)
        piecemeal = peer.call("Ping", struct.pack(">?I", False, 20_001))
        peer.send(frame(DATA, b"x", stream_id=piecemeal) * 20_000)
        await client.ping()
        await answers(peer)
        peer.close()
        assert memory_mib(serving.pid) - before_mib < MEMORY_MORE_MIB
    serving.terminate()
    assert await asyncio.to_thread(serving.wait_end) == 0
    assert not serving.texts(), "no traceback"
    assert len(serving.logged("connection cut")) == len(FLOODS) + 5
