"""What a peer may send very much of, at no cost of its own."""

from collections.abc import Callable

from tests.support.peer import (
    HALF_A_MESSAGE,
    PING,
    PRIORITY,
    SETTINGS,
    UNKNOWN,
    WINDOW_UPDATE,
    Peer,
    frame,
)


def reset_a_call(peer: Peer) -> bytes:
    """A call, and its end."""
    peer.http2.reset_stream(peer.call("Ping", HALF_A_MESSAGE))
    return peer.http2.data_to_send()


def make_it_reset(peer: Peer) -> bytes:
    """A window over HTTP/2's limit is a stream's error, and the distributor resets it."""
    return frame(WINDOW_UPDATE, b"\x7f\xff\xff\xff", stream_id=peer.call("Ping", HALF_A_MESSAGE))


FLOODS: dict[str, Callable[[Peer], bytes]] = {
    "resets": reset_a_call,
    "made resets": make_it_reset,
    "pings": lambda peer: frame(PING, b"12345678"),
    "settings": lambda peer: frame(SETTINGS),
    "priorities": lambda peer: frame(PRIORITY, bytes(5), stream_id=7),
    "unknown frames": lambda peer: frame(UNKNOWN),
}
