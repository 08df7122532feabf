"""P1 to P6 after a loss of power, whatever the disk has kept of what was not synced.

A backend lives for some minutes on a disk that records all that it is told, its database, log and
rollback journal (`support/recording_disk.py`). Then for the moments right before and right after
each of its syncs, states that a loss of power could leave are made (`support/power_loss.py`) and
opened (`power_survey.py`): 20,000 in an ordinary run, 25 times as many in a deep one.
"""

import random
import tempfile
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from taskdist.backends import journal, store_file
from tests.backends.power_story import QUEUES, SETTINGS, Story, live
from tests.backends.power_survey import DAMAGED, LOST, SYNCS, Survey, moments, ready, write
from tests.support.backends import Rig
from tests.support.examples import examples
from tests.support.recording_disk import Deed

pytestmark = pytest.mark.proof

STORIES = 3
STEPS = 150
"""Lives of so many steps. In each some 7,000 states are made, which makes 20,000 and 40 s of CPU;
nine of ten are different, and those are opened."""


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, where there is one: that power is lost is only played."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as directory:
        yield Path(directory)


async def lived(scratch: Path, seed: int, steps: int, patch: pytest.MonkeyPatch) -> Story:
    """A story, after which everything is as usual."""
    with patch.context() as context:
        return await live(scratch / f"lived-{seed}.db", seed, steps, context)


@pytest.mark.parametrize("seed", range(examples(STORIES)))
async def test_p1_to_p6_a_power_loss_takes_nothing_that_was_acknowledged(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Every task that was acknowledged is there as it was, data, result, lease and attempts; the
    commit under way is there as a whole or not at all; so a final state stays and nothing is there
    that was not submitted. The file is sound, no row of it is set aside, no task is leased twice,
    each lease has a full term, what is scheduled is known, no task was tried more often than it
    may, and the order is right."""
    story = await lived(scratch, seed, STEPS, monkeypatch)
    survey = Survey(story, scratch / "left.db", seed).run()
    assert not survey.faults
    assert survey.states > 5_000
    assert len(survey.verdicts) > survey.states * 4 // 5


async def test_p1_p2_a_backend_goes_on_after_a_power_loss(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of it, on a disk with nothing that was not synced: it hands out what is ready, in
    its order."""
    story = await lived(scratch, 0, STEPS // 2, monkeypatch)
    for place, platter in moments(story):
        drawn = next(platter.draws(random.Random(0), 0))
        write(scratch / "left.db", platter.state(drawn))
        rig = Rig(f"sqlite:{scratch / 'left.db'}", **SETTINGS)
        await rig.open()
        taken = [(await rig.task(id_)).sequence for id_ in await rig.take_all(queues=QUEUES)]
        await rig.close()
        assert taken == ready(story.after[bisect_right(story.moments, place)]), place


async def test_p1_without_a_sync_in_each_commit_acknowledged_tasks_are_lost(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with `synchronous=NORMAL` the same look finds losses, and nothing worse."""
    open_writer = store_file.open_writer

    def open_weaker(path: Path | None, policy: str, tiers: str) -> apsw.Connection:
        connection = open_writer(path, policy, tiers)
        connection.pragma("synchronous", "NORMAL")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(journal, "open_writer", open_weaker)
        story = await lived(scratch, 0, STEPS // 3, patch)
    survey = Survey(story, scratch / "left.db", 0).run()
    assert set(survey.faults) == {LOST}
    assert len(survey.faults[LOST]) > survey.states // 10


async def test_p1_on_a_disk_that_lies_about_syncs_tasks_are_lost(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another control: where the database's syncs do nothing, the log is written over too early,
    and the file is damaged."""
    story = await lived(scratch, 0, STEPS // 10, monkeypatch)
    survey = Survey(story, scratch / "left.db", 0, deaf_to="").run()
    assert any(fault.startswith(DAMAGED) for fault in survey.faults)


async def test_the_stories_have_all_that_they_are_about(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1, P2, P3: what is looked at after a loss of power includes every way for a lease to end,
    and logs that are written over, cut and made anew."""
    seen: Counter[str] = Counter()
    deeds: Counter[tuple[Deed, str, bool]] = Counter()
    for seed in range(STORIES):
        story = await lived(scratch, seed, STEPS, monkeypatch)
        seen += story.seen
        deeds.update((told.deed, told.file, told.offset == 0) for told in story.record)
    ends = {
        "succeeded succeeded",
        "failed ready",
        "failed scheduled",
        "failed dead",
        "released ready",
        "lost ready",
        "lost dead",
        "cancelled cancelled",
        "leased",  # a heartbeat
        "ready",  # a lease that was undone
    }
    assert not {f"leased {end}" for end in ends} - set(seen)
    assert seen["leased leased, entries"]
    assert seen["leased leased, entries gone"]
    assert not {"new ready", "new scheduled", "scheduled ready", "dead ready"} - set(seen)
    assert not {f"{state} gone" for state in ("succeeded", "dead", "cancelled")} - set(seen)
    assert deeds[Deed.WRITE, "-wal", True] > 20 * STORIES
    assert deeds[Deed.TRUNCATE, "-wal", True] > 5 * STORIES
    assert deeds[Deed.DELETE, "-wal", True] > STORIES
    assert sum(deeds[sync, "", True] for sync in SYNCS) > 20 * STORIES
