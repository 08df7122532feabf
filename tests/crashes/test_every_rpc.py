"""Every rpc of the contract, and a distributor that dies at each point of its way (P1 to P4).

A real process on a real disk is killed at a named point of the product (`points.py`) while an
official client's call is under way, and started again. Each life checks what the one before has
left, and goes on with its store.
"""

from pathlib import Path

import pytest

from tests.crashes import cases, work_cases
from tests.crashes.contract import RPCS
from tests.crashes.points import POINTS, Way
from tests.crashes.theatre import Scene, Theatre
from tests.support.examples import is_deep

pytestmark = pytest.mark.proof

READS = Way.SPEAKS | Way.READS
DECIDES = Way.SPEAKS | Way.DECIDES
SAVES = DECIDES | Way.SAVES
READS_AND_SAVES = SAVES | Way.READS


SCENES = (
    Scene("SubmitTask", cases.submit_task, SAVES),
    Scene("SubmitTask", cases.submit_task_by_key, SAVES),
    Scene("SubmitTasks", cases.submit_tasks, SAVES),
    Scene("FetchTask", cases.fetch_task, SAVES),
    Scene("FetchTask", cases.fetch_task_that_waits, SAVES, is_one=False),
    Scene("CompleteTask", cases.complete_task_well, SAVES),
    Scene("CompleteTask", cases.complete_task_badly, SAVES),
    Scene("ReportProgress", cases.report_progress, SAVES),
    Scene("Heartbeat", cases.heartbeat, DECIDES),
    Scene("ReleaseTask", cases.release_task, SAVES),
    Scene("CancelTask", cases.cancel_task, SAVES),
    Scene("Work", work_cases.work_hello, SAVES),
    Scene("Work", work_cases.work_leases, SAVES),
    Scene("Work", work_cases.work_outcomes, SAVES),
    Scene("WatchTask", cases.watch_task, READS_AND_SAVES),
    Scene("Redrive", cases.redrive, READS_AND_SAVES),
    Scene("Purge", cases.purge, SAVES),
    Scene("GetTask", cases.get_task, READS | DECIDES),
    Scene("ListTasks", cases.list_tasks, READS),
    Scene("AnnounceKinds", cases.announce_kinds, Way.SPEAKS),
    Scene("ListKinds", cases.list_kinds, Way.SPEAKS),
    Scene("CheckStore", cases.check_store, Way.SPEAKS),
    Scene("BackupStore", cases.backup_store, Way.SPEAKS),
    Scene("Ping", cases.ping, Way.SPEAKS),
)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.case.__name__)
def test_p1_a_crash_at_any_point_of_a_call(server: int, tmp_path: Path, scene: Scene) -> None:
    """What was acknowledged is there, in one state; what was not is there as a whole or not at all,
    and a repeat is answered right; leases go on (P3, P4), and the order is right (P2)."""
    points = [point for point in POINTS if is_deep() or not point.deep]
    with Theatre(server, tmp_path / "tasks.db") as theatre:
        for number, point in enumerate(points):
            theatre.play.queue = f"q{number}"
            act = theatre.perform if point.way & scene.way else theatre.rehearse
            try:
                act(scene, point)
            except BaseException as error:
                error.add_note(f"at the point {point.name!r}")
                raise
        theatre.check()


def test_every_rpc_has_a_crash_at_every_point() -> None:
    """P1: an rpc or a point that is new is not without its crashes."""
    assert {scene.rpc for scene in SCENES} == RPCS.keys()
    ways = {scene.rpc: scene.way for scene in SCENES}
    assert all(way & Way.SPEAKS for way in ways.values())
    assert {way for point in POINTS for way in point.way} == set(Way)
