"""One process that forks all distributors of a module."""

from collections.abc import Iterator

import pytest

from tests.crashes.dying import fork_server


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with fork_server() as port:
        yield port
