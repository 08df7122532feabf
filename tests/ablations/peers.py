"""Safeguards of the traffic with peers, each switched off by a patch of one function."""

from collections import Counter
from typing import Any

from taskdist.distributor import frames, transport
from taskdist.distributor.peers import PeerProtocol, Processor
from taskdist.distributor.service import TaskDistributorService
from taskdist.distributor.work_stream import WorkStream
from tests.ablations.patching import MANY, put


def unwritten_leases() -> None:
    """The leases of an answer that could not be written stay."""
    put(TaskDistributorService, "_take_back", lambda service, grants: None)


def lost_leases() -> None:
    """A stream whose agent lets a lease run out goes on."""
    put(WorkStream, "cut_off", lambda stream: None)


def goodbye() -> None:
    """Who says goodbye gets leases as before."""
    put(WorkStream, "_take_no_more", lambda stream: None)


def cancelled_calls() -> None:
    """A call that is cancelled before it begins keeps its part of the connection."""
    put(Processor, "_release", lambda processor, stream: None)


def message_size() -> None:
    """A message may be as long as it says."""
    put(transport, "MESSAGE_BYTES_MAX", 1 << 40)


def flood_rates() -> None:
    """Frames without a use may come as fast as they can."""
    put(frames.Rate, "spend", lambda rate: None)


def turns() -> None:
    """All frames that have come are looked at before anybody else has a turn."""
    put(frames, "FRAMES_PER_TURN", MANY)


def keepalive() -> None:
    """A peer is never asked whether it is there."""
    put(transport, "keeping_alive", lambda plain, *times_us: plain)


def connections() -> None:
    """One address may have any number of connections."""
    connected = PeerProtocol.connection_made

    def alone(protocol: PeerProtocol, transport: Any) -> None:
        protocol._connections = Counter()
        connected(protocol, transport)

    put(PeerProtocol, "connection_made", alone)
