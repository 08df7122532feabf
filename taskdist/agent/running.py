"""Runs a command for one task: feeds it the data, takes its output, and says how it ended."""

import errno
import os
import selectors
from contextlib import suppress
from typing import IO, Any

from taskdist.agent.command import Command
from taskdist.agent.context import Context
from taskdist.agent.handlers import Failed
from taskdist.agent.supervising import Ending, Stop, Supervised
from taskdist.limits import ERROR_BYTES_MAX

CHUNK_BYTES = 64 * 1024
"""What a pipe holds."""

STDERR_BYTES_MAX = ERROR_BYTES_MAX - 1_024
"""Of the end of standard error; the rest of an error is for how the command ended."""


def run_command(command: Command[Any], ctx: Context, grace_s: float, stop: Stop) -> bytes:
    """Runs it to its end; what it wrote to standard output.

    Args:
        stop: stops it.

    Raises:
        Failed: it did not end well.
    """
    work = ctx.task
    limits = {
        name: limit
        for name in ("memory_bytes", "cpu_s", "open_files", "file_bytes")
        if (limit := getattr(command.limits, name)) is not None
    }
    argv = command.argv(work.data)
    env = command.environment(work)
    try:
        supervised = Supervised(argv, env=env, grace_s=grace_s, limits=limits, piped=True)
    except OSError as refusal:
        if refusal.errno != errno.E2BIG:
            raise
        raise Failed(
            "InvalidInput: data: as arguments it is longer than the system allows\n",
            retryable=False,
        ) from None
    stop.started(supervised)
    pipes = _Pipes(supervised, work.data, command.output_bytes_max)
    pipes.flow()
    ending = supervised.end()
    stopped = stop.over()
    if pipes.is_too_much:
        error = f"{argv[0]} wrote more than {command.output_bytes_max} bytes to standard output"
        raise Failed(pipes.error(f"{error}; it was killed"), retryable=False)
    if ending == Ending(exit_code=0):
        return bytes(pipes.output)
    code = ending.exit_code
    retryable = code is None or command.is_retried(code)
    raise Failed(pipes.error(f"{argv[0]} {ending.told(stopped=stopped)}"), retryable=retryable)


class _Pipes:
    """A program's standard input, output and error."""

    def __init__(self, supervised: Supervised, data: bytes, output_bytes_max: int) -> None:
        self._supervised = supervised
        self._left = memoryview(data)
        self._most = output_bytes_max
        self.output = bytearray()
        self._stderr = bytearray()
        self.is_too_much = False

    def flow(self) -> None:
        """Until the program has closed both outputs, as its end does."""
        stdin, stdout, stderr = self._supervised.pipes
        with stdin, stdout, stderr, selectors.DefaultSelector() as selector:
            os.set_blocking(stdin.fileno(), False)
            selector.register(stdin, selectors.EVENT_WRITE, self._feed)
            selector.register(stdout, selectors.EVENT_READ, self._keep_output)
            selector.register(stderr, selectors.EVENT_READ, self._keep_error)
            open_outputs = 2
            while open_outputs:
                for key, _ in selector.select():
                    if key.fileobj is stdin:
                        if not self._feed(stdin):
                            selector.unregister(stdin)
                            _close(stdin)
                    elif part := os.read(key.fd, CHUNK_BYTES):
                        key.data(part)
                    else:
                        selector.unregister(key.fileobj)
                        open_outputs -= 1
            _close(stdin)

    def error(self, last_line: str) -> str:
        """The end of what it wrote to standard error, and how it ended."""
        written = self._stderr.decode(errors="replace").strip("\n")
        return f"{written}\n{last_line}\n" if written else f"{last_line}\n"

    def _feed(self, stdin: IO[bytes]) -> bool:
        """Writes some of the data; whether there is more."""
        try:
            written = os.write(stdin.fileno(), self._left[:CHUNK_BYTES])
        except BlockingIOError:
            return True
        except BrokenPipeError:  # It does not read it all, as is its right.
            return False
        self._left = self._left[written:]
        return bool(self._left)

    def _keep_output(self, part: bytes) -> None:
        if len(self.output) + len(part) > self._most:
            self.is_too_much = True
            self._supervised.kill()
        if not self.is_too_much:
            self.output += part

    def _keep_error(self, part: bytes) -> None:
        self._stderr += part
        del self._stderr[:-STDERR_BYTES_MAX]


def _close(stdin: IO[bytes]) -> None:
    with suppress(BrokenPipeError):
        stdin.close()
