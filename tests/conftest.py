"""What all tests share: the choice of the event loop's clock."""

import asyncio
from collections.abc import Callable

import looptime
import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "virtual_time: runs on a loop whose clock jumps to whatever is due next"
    )


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("virtual_time"):
        return {"virtual": looptime.new_event_loop}
    return {"real": asyncio.new_event_loop}
