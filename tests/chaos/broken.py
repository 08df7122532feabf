"""Good histories with one thing broken, each by hand, and what the checker has to call it."""

from collections.abc import Callable
from typing import Any

from scripts.chaosing.history import Line
from tests.chaos.story import DELAY_S, WALL_S, Story

Break = Callable[[Story], object]

LEASE_ID, STARTED, ENDED, OUTCOME = 1, 3, 4, 5
"""Places in an attempt."""


def final(story: Story, ref: str) -> dict[str, Any]:
    """The end of a task."""
    found: dict[str, Any] = next(
        line["task"]
        for line in story.lines
        if line["event"] == "final" and line["task"]["task_id"] == f"id of {ref}"
    )
    return found


def lines(story: Story, event: str, **fields: object) -> list[Line]:
    """The lines of this event with these fields."""
    wanted = {"event": event, **fields}
    return [line for line in story.lines if wanted.items() <= line.items()]


def drop(story: Story, event: str, **fields: object) -> None:
    """These never happened."""
    gone = lines(story, event, **fields)
    assert gone
    story.lines = [line for line in story.lines if line not in gone]


def lease(ref: str, number: int = 1) -> str:
    """A lease of this task."""
    return f"lease {number} of id of {ref}"


def drop_final(story: Story, ref: str) -> None:
    """The distributor does not know this task."""
    story.lines = [line for line in story.lines if line.get("task") is not final(story, ref)]


# --- P1 ---


def invent_task(story: Story) -> None:
    task = dict(final(story, "simple"), task_id="another", attempts=[], attempt=0, state="DEAD")
    story.add(40.0, "finals", "final", task=task)


def double_keyed(story: Story) -> None:
    task = dict(final(story, "keyed"), task_id="another")
    story.add(40.0, "finals", "final", task=task)


def double_answer(story: Story) -> None:
    story.answer("keyed", 7.0, "ok", "another")


def refuse_what_is_there(story: Story) -> None:
    story.answer("unknown but there", 6.05, "fail", "")


def refuse_what_is_good(story: Story) -> None:
    story.answer("unknown", 6.4, "fail", "")


def change_tier(story: Story) -> None:
    final(story, "cancelled")["user_tier"] = "free"


def change_size(story: Story) -> None:
    final(story, "cancelled")["data_bytes"] += 1


def change_data(story: Story) -> None:
    lines(story, "lease", lease_id=lease("simple"))[0]["digest"] = "of other bytes"


def swap_data(story: Story) -> None:
    one = lines(story, "lease", lease_id=lease("simple"))[0]
    other = lines(story, "lease", lease_id=lease("keyed"))[0]
    one["digest"], other["digest"] = other["digest"], one["digest"]


def leave_undone(story: Story) -> None:
    story.end(final(story, "overdue"), 0.0, "READY")


def undo_cancel(story: Story) -> None:
    drop(story, "cancel", do="ok")
    drop(story, "cancel", do="invoke")


def cancel_in_vain(story: Story) -> None:
    story.add(20.0, "payer.1", "cancel", do="invoke", task_id="id of simple")
    story.add(20.1, "payer.1", "cancel", do="ok", task_id="id of simple")


def succeed_after_failure(story: Story) -> None:
    final(story, "out of retries")["state"] = "SUCCEEDED"


def forget_success(story: Story) -> None:
    final(story, "simple")["state"] = "DEAD"


def die_early(story: Story) -> None:
    final(story, "overdue")["finished_at"] -= 1.0


def die_of_one_failure(story: Story) -> None:
    lines(story, "outcome", lease_id=lease("fatal"), do="invoke")[0]["retryable"] = True


# --- P5 ---


def lose_attempt(story: Story) -> None:
    del final(story, "failed once")["attempts"][0]


def run_again_after_success(story: Story) -> None:
    final(story, "handed back")["attempts"][0][OUTCOME] = "SUCCEEDED"


def miscount(story: Story) -> None:
    final(story, "failed once")["retry_count"] = 0


def fail_too_often(story: Story) -> None:
    final(story, "failed once")["max_retries"] = 0
    lines(story, "submit", do="invoke")
    for line in lines(story, "submit", do="invoke"):
        if line["wish"]["ref"] == "failed once":
            line["wish"]["max_retries"] = 0


def lose_too_often(story: Story) -> None:
    task = story.submit("unlucky", 28.0)
    for number in range(3):
        story.run(task, "streaming.1", 28.1 + 3.2 * number, 31.2 + 3.2 * number, "LOST")
    story.run(task, "streaming.1", 38.0, 38.1, "SUCCEEDED", ends_as="SUCCEEDED")


def run_unasked(story: Story) -> None:
    names = {"task_id": "id of simple", "lease_id": "no lease"}
    story.add(3.0, "streaming.1", "run", do="began", attempt=2, **names)


def run_unknown_task(story: Story) -> None:
    names = {"task_id": "another", "lease_id": "no lease", "attempt": 1, "stream": 1}
    story.add(3.0, "streaming.1", "lease", digest="", **names)


def run_another_task(story: Story) -> None:
    lines(story, "run", lease_id=lease("simple"), do="began")[0]["task_id"] = "id of keyed"


# --- P3 ---


def accept_stale(story: Story) -> None:
    names = {"lease_id": lease("lost"), "task_id": "id of lost"}
    story.add(19.0, "narrow.1", "outcome", do="invoke", outcome="SUCCEEDED", **names)
    story.add(19.1, "narrow.1", "outcome", do="ok", lease_id=lease("lost"))


def refuse_repeat(story: Story) -> None:
    story.add(2.7, "streaming.1", "outcome", do="fail", lease_id=lease("simple"), why="")


def refuse_and_keep(story: Story) -> None:
    lines(story, "outcome", lease_id=lease("simple"), do="ok")[0]["do"] = "fail"


def speak_before_saving(story: Story) -> None:
    lines(story, "outcome", lease_id=lease("simple"), do="ok")[0]["at"] -= 2 * DELAY_S - 0.001


def invent_outcome(story: Story) -> None:
    drop(story, "outcome", lease_id=lease("simple"), do="ok")
    drop(story, "outcome", lease_id=lease("simple"), do="invoke")


def change_result(story: Story) -> None:
    final(story, "simple")["result_digest"] = "of other bytes"


def change_error(story: Story) -> None:
    final(story, "fatal")["attempts"][0][-1] = "of other bytes"


def hold_twice(story: Story) -> None:
    final(story, "handed back")["attempts"][1][STARTED] -= 0.15


def reuse_lease(story: Story) -> None:
    final(story, "handed back")["attempts"][1][LEASE_ID] = lease("handed back")


def end_before_begin(story: Story) -> None:
    attempt = final(story, "simple")["attempts"][0]
    attempt[STARTED] = attempt[ENDED] + 0.1


def lease_before_saving(story: Story) -> None:
    lines(story, "lease", lease_id=lease("simple"))[0]["at"] -= 2 * DELAY_S


def renumber(story: Story) -> None:
    lines(story, "lease", lease_id=lease("handed back", 2))[0]["attempt"] = 1


# --- P4 ---


def cut_short(story: Story) -> None:
    final(story, "lost")["attempts"][0][ENDED] -= 0.3


def age_while_stopped(story: Story) -> None:
    for at, what in ((15.5, "stopping"), (15.5, "stopped"), (17.5, "continuing")):
        story.distributor(at, what)
    story.distributor(17.5, "continued")


def keep_long(story: Story) -> None:
    final(story, "lost")["attempts"][0][ENDED] += 1.2
    for place in (STARTED, ENDED):
        final(story, "lost")["attempts"][1][place] += 1.2
    for line in lines(story, "outcome", lease_id=lease("lost", 2)):
        line["at"] += 1.2
    lines(story, "lease", lease_id=lease("lost", 2))[0]["at"] += 1.2


def forget_restart(story: Story) -> None:
    story.distributor(16.0, "ended")
    story.distributor(16.1, "spawned")
    story.distributor(16.5, "serving")


def hang_for_ever(story: Story) -> None:
    attempt = final(story, "hung")["attempts"][0]
    attempt[ENDED] = 26.0 + WALL_S
    for beat in range(3):
        story.heartbeat("streaming.1", lease("hung"), 23.5 + beat)


def fall_silent(story: Story) -> None:
    for line in lines(story, "probe"):
        if line["at"] > 25.0:
            line["at"] += 11.0


# --- P2 ---


def pass_over_paid(story: Story) -> None:
    """The free one, submitted before the paid one is leased, is leased first."""
    attempts = final(story, "second")["attempts"]
    attempts[0][STARTED] = 26.3 + WALL_S


def pass_over_older(story: Story) -> None:
    older, younger = (story.submit(ref, at) for ref, at in (("older", 28.0), ("younger", 28.1)))
    story.run(younger, "streaming.1", 28.2, 28.3, "SUCCEEDED", ends_as="SUCCEEDED")
    story.run(older, "streaming.1", 28.4, 28.5, "SUCCEEDED", ends_as="SUCCEEDED")


def pass_over_shorter(story: Story) -> None:
    shorter = story.submit("shorter", 28.0, est_processing_time_s=0.5)
    longer = story.submit("longer", 27.9, est_processing_time_s=0.6)
    story.run(longer, "streaming.1", 28.2, 28.3, "SUCCEEDED", ends_as="SUCCEEDED")
    story.run(shorter, "streaming.1", 28.4, 28.5, "SUCCEEDED", ends_as="SUCCEEDED")


def retry_before_new(story: Story) -> None:
    first, second = final(story, "first"), final(story, "second")
    first["attempts"][1][STARTED] = 26.85 + WALL_S
    second["attempts"][0][STARTED] = 26.86 + WALL_S
    second["attempts"][0][ENDED] = second["finished_at"] = 26.87 + WALL_S
    for line in lines(story, "outcome", lease_id=lease("second")):
        line["at"] = 26.9
    lines(story, "lease", lease_id=lease("second"))[0]["at"] = 26.88


def start_early(story: Story) -> None:
    final(story, "delayed")["attempts"][0][STARTED] -= 0.2


def retry_early(story: Story) -> None:
    final(story, "paused")["attempts"][1][STARTED] -= 0.2


def start_late(story: Story) -> None:
    task = story.submit("too late", 28.0, deadline_s=1.0)
    story.run(task, "streaming.1", 29.1, 29.2, "SUCCEEDED", ends_as="SUCCEEDED")


# --- ends ---


def crash(story: Story) -> None:
    story.add(20.0, "campaign", "noise", what="distributor.1 ended with 1")


BROKEN: list[tuple[Break, str]] = [
    (lambda story: drop_final(story, "cancelled"), "acknowledged task is missing"),
    (lambda story: drop_final(story, "simple"), "run of an unknown task"),
    (invent_task, "task that nobody asked for"),
    (double_keyed, "one wish became two tasks"),
    (double_answer, "one wish became two tasks"),
    (refuse_what_is_there, "refused task is there"),
    (refuse_what_is_good, "good task was refused"),
    (change_tier, "content changed"),
    (change_size, "content changed"),
    (change_data, "data changed"),
    (swap_data, "data changed"),
    (leave_undone, "task did not end"),
    (undo_cancel, "cancelled although nobody asked"),
    (cancel_in_vain, "acknowledged cancel did not last"),
    (succeed_after_failure, "state is not what the last attempt led to"),
    (forget_success, "state is not what the last attempt led to"),
    (die_early, "dead without a reason"),
    (die_of_one_failure, "dead without a reason"),
    (lose_attempt, "attempts are missing"),
    (run_again_after_success, "further run without a reason"),
    (miscount, "counts are not those of the attempts"),
    (fail_too_often, "too many failures"),
    (lose_too_often, "too many lost leases"),
    (run_unasked, "run without an attempt"),
    (run_unknown_task, "run of an unknown task"),
    (run_another_task, "run of another task"),
    (accept_stale, "stale outcome accepted"),
    (refuse_repeat, "accepted outcome refused when repeated"),
    (refuse_and_keep, "refused outcome was kept"),
    (speak_before_saving, "outcome accepted before it was kept"),
    (invent_outcome, "outcome that nobody said"),
    (change_result, "outcome changed"),
    (change_error, "outcome changed"),
    (hold_twice, "two live leases"),
    (reuse_lease, "one lease, two attempts"),
    (end_before_begin, "attempt ended before it began"),
    (lease_before_saving, "lease before its time"),
    (renumber, "attempt renumbered"),
    (cut_short, "lease cut short"),
    (forget_restart, "lease cut short"),
    (age_while_stopped, "lease cut short"),
    (keep_long, "lease kept too long"),
    (hang_for_ever, "run past its time"),
    (fall_silent, "distributor was silent"),
    (pass_over_paid, "order not kept"),
    (pass_over_older, "order not kept"),
    (pass_over_shorter, "order not kept"),
    (retry_before_new, "order not kept"),
    (start_early, "started too early"),
    (retry_early, "started too early"),
    (start_late, "started after its deadline"),
    (crash, "unexpected end or log"),
]
