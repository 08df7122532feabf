"""P6: a store that is cut short or has flipped bits: one clear line or a row set aside, no damage
done by looking, and never a wrong byte handed out."""

import asyncio
import os
import random
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
from structlog.testing import capture_logs

from taskdist.core.commands import Grants
from taskdist.core.errors import Damaged, Refused, StoreFailed, StoreUnusable
from taskdist.core.queries import TaskHistory
from taskdist.core.task import TaskState
from tests.support.backends import Rig, copy_store, fail, submit, succeed, take
from tests.support.examples import examples

PLACES = 40
"""Where each kind of damage is done, in an ordinary run."""

TASKS = 24


class Kept(NamedTuple):
    """A store at rest, another with all in its log, and what is in both."""

    closed: Path
    logged: Path
    data: dict[str, bytes]
    results: dict[str, bytes]

    def part(self, where: str) -> tuple[Path, str]:
        """The store to damage, and the ending of the file of it."""
        return (self.closed, "") if where == "database" else (self.logged, "-wal")


def content(number: int) -> bytes:
    """Data of a task, which is like that of no other; some fills pages of its own."""
    return random.Random(number).randbytes(6_000 if number % 3 else 40)


@pytest.fixture(scope="module")
def kept_once(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Made once, since each look is at a copy."""
    return asyncio.run(fill(tmp_path_factory.mktemp("sound") / "tasks.db"))


async def fill(path: Path) -> Kept:
    rig = Rig(f"sqlite:{path}")
    await rig.open()
    data, results = {}, {}
    for number in range(TASKS):
        data[await rig.submit(est_s=number, data=content(number))] = content(number)
    for number in range(TASKS // 2):
        task = await rig.take()
        if number % 4 == 3:
            await rig.apply(fail(task, retryable=False))
        elif number % 4 != 2:
            results[task.id] = content(1_000 + number)
            await rig.apply(succeed(task, results[task.id]))
    logged = copy_store(path)
    await rig.close()
    return Kept(path, logged, data, results)


def copied(source: Path, directory: Path) -> Path:
    """A copy of a store, with its log if it has one."""
    for ending in ("", "-wal"):
        if source.with_name(source.name + ending).exists():
            shutil.copy(f"{source}{ending}", directory / f"tasks.db{ending}")
    return directory / "tasks.db"


def content_of(path: Path) -> dict[str, bytes]:
    """The bytes of a store's files."""
    names = (path, path.with_name(f"{path.name}-wal"))
    return {file.name: file.read_bytes() for file in names if file.exists()}


async def look(path: Path, kept: Kept) -> str:
    """Opens a damaged store and asks for everything. What is answered must be right.

    Returns:
        `refused`, `failed` or `served`.
    """
    before = content_of(path)
    rig = Rig(f"sqlite:{path}")
    with capture_logs():
        (refusal,) = await asyncio.gather(rig.open(), return_exceptions=True)
    if refusal:
        assert isinstance(refusal, StoreFailed | StoreUnusable), repr(refusal)
        assert "\n" not in str(refusal)
        assert str(path) in str(refusal)
        # A look changes nothing; an empty log does not matter.
        after = content_of(path)
        assert {"tasks.db-wal": b""} | after == {"tasks.db-wal": b""} | before
        return "refused"
    try:
        with capture_logs():
            await ask(rig, kept)
    finally:
        with capture_logs():
            await rig.close()
    failure = rig.hearer.failure
    assert failure is None or isinstance(failure, StoreFailed), repr(failure)
    assert "\n" not in str(failure)
    return "failed" if failure else "served"


async def ask(rig: Rig, kept: Kept) -> None:
    """Takes all there is and reads every task. Data and results are right, or not told."""
    for task_id in kept.data:
        (history,) = await asyncio.gather(rig.history(task_id), return_exceptions=True)
        assert isinstance(history, TaskHistory | Refused), repr(history)
        if isinstance(history, TaskHistory) and history.task.state is TaskState.SUCCEEDED:
            assert history.result == kept.results[task_id]
    for _ in range(TASKS):
        (grants,) = await asyncio.gather(rig.apply(take(slots=5)), return_exceptions=True)
        assert isinstance(grants, Grants | Refused), repr(grants)
        if not isinstance(grants, Grants):
            return
        for grant in grants.grants:
            assert grant.data == content(grant.task.sequence - 1), "ids have no checksum"
    await asyncio.gather(rig.apply(submit()), return_exceptions=True)


def places(size: int, seed: str) -> list[int]:
    """Offsets in a file: its beginning, and others by chance."""
    chance = random.Random(seed)
    return [*range(0, 100, 10), *(chance.randrange(size) for _ in range(examples(PLACES)))]


@pytest.mark.parametrize("where", ["database", "log"])
async def test_p6_flipped_bits(kept_once: Kept, tmp_path: Path, where: str) -> None:
    source, ending = kept_once.part(where)
    size = os.path.getsize(f"{source}{ending}")  # noqa: ASYNC240 # nothing else runs
    found = set()
    for offset in places(size, where):
        directory = tmp_path / f"{offset}"
        directory.mkdir(exist_ok=True)
        path = copied(source, directory)
        damage(Path(f"{path}{ending}"), offset)
        found.add(await look(path, kept_once))
        shutil.rmtree(directory)
    assert "served" in found
    assert where == "log" or "refused" in found


@pytest.mark.parametrize("where", ["database", "log"])
async def test_p6_cut_short(kept_once: Kept, tmp_path: Path, where: str) -> None:
    """A log that is cut short is what a loss of power leaves; its last commits are not there."""
    source, ending = kept_once.part(where)
    size = os.path.getsize(f"{source}{ending}")  # noqa: ASYNC240 # nothing else runs
    found = []
    for length in [*places(size, where), *range(4096, size, size // 10 // 4096 * 4096)]:
        directory = tmp_path / f"{length}"
        directory.mkdir(exist_ok=True)
        path = copied(source, directory)
        os.truncate(f"{path}{ending}", length)
        found.append(await look(path, kept_once))
        shutil.rmtree(directory)
    assert "served" in found
    assert where == "log" or "refused" in found or "failed" in found


def flip(path: Path, content: bytes) -> None:
    """Flips a bit of this content, also where pages that are free now have it."""
    whole, head = path.read_bytes(), content[:30]
    path.write_bytes(whole.replace(head, head[:-1] + bytes([head[-1] ^ 4])))
    assert head in whole


def damage(file: Path, offset: int) -> None:
    """Flips one bit of this byte."""
    damaged = bytearray(file.read_bytes())
    damaged[offset] ^= 1 << offset % 8
    file.write_bytes(damaged)


async def test_p6_a_database_that_is_cut_to_nothing_does_not_cost_its_log(
    kept_once: Kept, tmp_path: Path
) -> None:
    path = copied(kept_once.logged, tmp_path)
    os.truncate(path, 0)
    assert await look(path, kept_once) == "refused"


async def test_p6_a_log_that_is_missing(kept_once: Kept, tmp_path: Path) -> None:
    path = copied(kept_once.logged, tmp_path)
    path.with_name("tasks.db-wal").unlink()
    await look(path, kept_once)


async def test_p6_a_bit_in_data_alone_costs_that_task_alone(
    kept_once: Kept, tmp_path: Path
) -> None:
    """SQLite cannot know; the checksum does."""
    lost = 0
    for number in range(TASKS // 2, TASKS):
        directory = tmp_path / f"{number}"
        directory.mkdir()
        path = copied(kept_once.closed, directory)
        flip(path, content(number))
        rig = Rig(f"sqlite:{path}")
        with capture_logs() as logs:
            await rig.open()
            taken = [
                grant.data for _ in range(5) for grant in (await rig.apply(take(slots=100))).grants
            ]
        await rig.close()
        assert content(number) not in taken
        assert len(taken) == TASKS // 2 - 1
        lost += [entry["event"] for entry in logs].count("row set aside")
    assert lost == TASKS // 2


async def test_p6_a_bit_in_a_result_alone_is_told_as_damage(
    kept_once: Kept, tmp_path: Path
) -> None:
    for place, (task_id, result) in enumerate(kept_once.results.items()):
        directory = tmp_path / f"{place}"
        directory.mkdir()
        path = copied(kept_once.closed, directory)
        flip(path, result)
        rig = Rig(f"sqlite:{path}")
        await rig.open()
        with pytest.raises(Damaged):
            await rig.history(task_id)
        for other, expected in kept_once.results.items():
            if other != task_id:
                assert (await rig.history(other)).result == expected
        await rig.close()
