"""A distributor in memory, and a client of it: see `taskdist.testing.memory`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from taskdist.backends.protocol import Backend
from taskdist.client import Stub
from taskdist.core.errors import Unavailable
from taskdist.distributor.server import Distributor
from taskdist.settings import DistributorSettings
from taskdist.testing.memory import MemoryChannel, connect, embedded, join

__all__ = ["MemoryChannel", "connect", "distributor_channel", "embedded", "join"]


@asynccontextmanager
async def distributor_channel(
    settings: DistributorSettings | None = None, backend: Backend | None = None
) -> AsyncIterator[tuple[Stub, Distributor]]:
    """A distributor that serves, and a client of it. Stopped at the end unless it was before."""
    settings = settings or DistributorSettings(store="memory:")
    distributor = Distributor(settings, backend or embedded(settings))
    await distributor.open()
    async with connect(distributor) as client:
        try:
            yield client, distributor
        finally:
            with suppress(Unavailable):
                await distributor.stop(0)
