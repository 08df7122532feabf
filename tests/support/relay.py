"""A TCP relay in front of a distributor, which loses answers or connections when it is told to."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from tests.support.processes import LIMIT_S

CHUNK_BYTES = 65_536


class Relay:
    """Carries bytes between whoever connects and a distributor.

    Args:
        server: host:port of the distributor.

    Attributes:
        loses_answers: what the distributor says is thrown away.
    """

    def __init__(self, server: str) -> None:
        host, _, port = server.rpartition(":")
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._is_over = False
        self._answered = b""
        self._news = threading.Condition()
        self.loses_answers = False

    @property
    def address(self) -> str:
        """Its host:port."""
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over = True
        # A last connection wakes whoever accepts.
        socket.create_connection(self._listener.getsockname()).close()
        self._threads[0].join()
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def wait_for_answer(self, part: bytes) -> None:
        """Returns once an answer with these bytes was passed on."""
        with self._news:
            assert self._news.wait_for(lambda: part in self._answered, LIMIT_S), part

    def cut(self) -> None:
        """Every connection of now is lost."""
        while self._open:
            one = self._open.pop()
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            if self._is_over:
                near.close()
                return
            try:
                far = socket.create_connection(self._server)
            except OSError:
                near.close()
                continue
            self._open += [near, far]
            ends = threading.Barrier(2)
            self._begin(self._carry, near, far, ends, False)
            self._begin(self._carry, far, near, ends, True)

    def _carry(
        self, source: socket.socket, sink: socket.socket, ends: threading.Barrier, answers: bool
    ) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                if answers and self.loses_answers:
                    continue
                sink.sendall(data)
                if answers:
                    with self._news:
                        self._answered += data
                        self._news.notify_all()
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
        ends.wait()  # Until nobody reads it: a closed one's number is used again.
        source.close()

    def _begin(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()
