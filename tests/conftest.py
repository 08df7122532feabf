"""What all tests share: the choice of the event loop's clock, and how deep properties are tried."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

import looptime
import pytest
from hypothesis import settings

from tests.support.examples import DEEP, DEEP_TIMES

NOOP_CYCLES = 10
"""Idle turns of a loop before its virtual clock jumps. The library's 42 took most of the CPU of the
tests of agents, whose clocks jump 30,000 times; with 5 they pass as well."""

LONG = (
    "chaos/test_campaign.py",
    "backends/test_power_loss.py",
    "backends/test_order_model.py",
    "ablations/test_ablations.py",
    "processes/test_faulty_disk.py",
    "crashes/test_every_rpc.py",
    "distributor/test_fuzzed_messages.py",
    "test_demo.py",
    "processes/test_distributor_killed.py",
    "processes/test_kill_cycles.py",
    "test_typing.py",
)
"""Files that take longest: they begin first, or one process would have one of them at the end, and
the others nothing."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--deep", action="store_true", help=f"{DEEP_TIMES} times as many examples, and more"
    )
    parser.addoption(
        "--quick", action="store_true", help="all but the long proof: what is marked as such"
    )
    parser.addoption(
        "--without", metavar="SAFEGUARD", help="a switch of tests/ablations/switches.py"
    )


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile(DEEP, max_examples=DEEP_TIMES * settings().max_examples)
    if config.getoption("--deep"):
        if config.getoption("--quick"):
            raise pytest.UsageError("--quick and --deep: one of them")
        settings.load_profile(DEEP)
    if safeguard := config.getoption("--without"):
        from tests.ablations.switches import SWITCHES  # only now: it imports all of the product

        if safeguard not in SWITCHES:
            raise pytest.UsageError(f"--without {safeguard}: one of {', '.join(SWITCHES)}")
        SWITCHES[safeguard].turn_off()
    config.addinivalue_line(
        "markers", "virtual_time: runs on a loop whose clock jumps to whatever is due next"
    )
    config.addinivalue_line("markers", "deep: needs more of the machine; only with --deep")
    config.addinivalue_line(
        "markers", "proof: tries the promises for long, or by chance; all but --quick has it"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--deep"):
        items[:] = [item for item in items if not item.get_closest_marker("deep")]
    if config.getoption("--quick"):
        items[:] = [item for item in items if not item.get_closest_marker("proof")]
    tests = Path(__file__).parent
    rank = {tests / file: number for number, file in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path, len(LONG)))


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("virtual_time"):
        return {"virtual": partial(looptime.new_event_loop, noop_cycles=NOOP_CYCLES)}
    return {"real": asyncio.new_event_loop}
