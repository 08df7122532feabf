"""The backends that the suite runs over: each fixture is an open `Rig`."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.backends import Rig


@pytest.fixture(params=["memory", "sqlite"])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    """Every kind of backend."""
    store = "memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'tasks.db'}"
    rig = Rig(store)
    await rig.open()
    yield rig
    await rig.close()


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Rig]:
    """A backend that keeps its tasks on disk."""
    rig = Rig(f"sqlite:{tmp_path / 'tasks.db'}")
    await rig.open()
    yield rig
    await rig.close()
