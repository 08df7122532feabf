"""What the agents of this example run: put your own work here."""

import threading

KIND = "shout"
RESULT_BYTES_MAX = 1 << 20
"""The contract's limit."""


class Stopped(Exception):
    """The run was told to stop."""


def shout(data: bytes, seconds: float, stopped: threading.Event) -> bytes:
    """The text in capitals. Takes its time, as real work does, and stops when it is told to."""
    if stopped.wait(seconds):
        raise Stopped
    result = data.decode().upper().encode()
    if len(result) > RESULT_BYTES_MAX:
        raise ValueError(f"the result has {len(result)} bytes; allowed: {RESULT_BYTES_MAX}")
    return result
