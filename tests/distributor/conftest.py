"""A distributor with default settings and a client of it, in memory."""

from collections.abc import AsyncIterator

import pytest

from taskdist.client import Stub
from taskdist.distributor.server import Distributor
from tests.support.channel import distributor_channel


@pytest.fixture
async def served() -> AsyncIterator[tuple[Stub, Distributor]]:
    async with distributor_channel() as both:
        yield both


@pytest.fixture
def client(served: tuple[Stub, Distributor]) -> Stub:
    return served[0]


@pytest.fixture
def distributor(served: tuple[Stub, Distributor]) -> Distributor:
    return served[1]
