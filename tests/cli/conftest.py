"""The command line in this process, against a real distributor in another.

`taskdist(…)` calls `main()`, the very function of the console script, with its arguments, standard
streams and exit code: fifty times faster than a new process, and all but the start of one. What
only a real process shows (its exit code, its signals) is in test_exit_codes.py.
"""

import asyncio
import io
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from taskdist.cli import main
from taskdist.client import Stub
from taskdist.reports import Work
from tests.support.processes import Processes


class Finished(NamedTuple):
    """How a run of the command line ended."""

    code: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[str]:
        """What it said on stderr, line by line."""
        return self.err.splitlines()


class Typed(io.StringIO):
    """What somebody types at a terminal."""

    def isatty(self) -> bool:
        return True


class Terminal(io.StringIO):
    """A stdout or stderr that somebody looks at."""

    def isatty(self) -> bool:
        """It is."""
        return True


CommandLine = Callable[..., Finished]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a distributor. Each test takes a queue of its own."""
    with Processes(tmp_path_factory.mktemp("cli")) as started:
        yield started.serve().address


@pytest.fixture
def taskdist(
    server: str, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> CommandLine:
    """Runs a verb, piped. TASKDIST_SERVER names the distributor.

    With `answer` its standard input is a terminal, at which somebody types that.
    """

    def run(
        *arguments: str, stdin: bytes = b"", answer: str | None = None, columns: int = 200
    ) -> Finished:
        monkeypatch.setenv("TASKDIST_SERVER", server)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setattr(sys, "argv", ["/as/python/-m/__main__.py", *arguments])
        read = io.TextIOWrapper(io.BytesIO(stdin))
        monkeypatch.setattr(sys, "stdin", read if answer is None else Typed(answer))
        with pytest.raises(SystemExit) as end:
            main()
        written = capsysbinary.readouterr()
        return Finished(int(end.value.code or 0), written.out, written.err.decode())

    return run


@pytest.fixture
def take(server: str) -> Callable[[str], Work]:
    """Takes the next task of a queue, which must be there."""

    async def fetch(queue: str) -> Work:
        async with Stub(server) as client:
            work = await client.fetch(agent_id="tester", queues=[queue])
        assert work is not None
        return work

    return lambda queue: asyncio.run(fetch(queue))
