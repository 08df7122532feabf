"""Real processes for each test, and one distributor that those share who leave it running."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import Processes


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts processes; all of them are gone after the test."""
    with Processes(tmp_path) as started:
        yield started


@pytest.fixture(params=["Work", "FetchTask"])
def feed(request: pytest.FixtureRequest, processes: Processes) -> str:
    """How agents get their tasks: what real agents do, they do over Work and over FetchTask.

    Tests in which the test itself calls FetchTask, and no agent runs, are about the store or the
    stop of the distributor, and run once.
    """
    feed: str = request.param
    processes.unary = feed == "FetchTask"
    return feed


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a distributor on a real disk. Each test takes a queue of its own."""
    with Processes(tmp_path_factory.mktemp("shared")) as started:
        yield started.serve("--lease", "5s").address
