"""The pytest plugin: the fixture `playground`, for tests that pytest-asyncio runs.

pytest loads it wherever taskdist is installed, so it imports nothing of ours before a test asks.
"""

import importlib.util

import pytest

if importlib.util.find_spec("pytest_asyncio") and importlib.util.find_spec("looptime"):
    from collections.abc import AsyncIterator
    from typing import TYPE_CHECKING

    import pytest_asyncio

    if TYPE_CHECKING:
        from taskdist.testing.playground import Playground

    @pytest_asyncio.fixture
    async def playground() -> "AsyncIterator[Playground]":
        """A distributor, a client and agents in this test's event loop, in virtual time."""
        from taskdist.testing.playground import Playground, virtual_time

        with virtual_time():
            async with Playground() as made:
                yield made

else:

    @pytest.fixture
    def playground() -> None:
        """Says what is missing."""
        pytest.fail("the fixture playground needs: pip install 'taskdist[testing]'", pytrace=False)
