"""What must be true of a task between two commands, whatever came before: for those who check."""

from collections.abc import Iterator

from taskdist.core.task import Task, TaskState


def faults(task: Task, *, data_bytes: int, has_result: bool) -> Iterator[str]:
    """What is not as the life cycle leaves it, one line each.

    Args:
        task: with the lease that is kept for it.
        data_bytes: how much data is kept for it.
        has_result: whether a result is.
    """
    state = task.state
    is_leased = state is TaskState.LEASED
    if is_leased != (task.lease is not None):
        yield f"{state}, yet {'without a' if is_leased else 'with a'} lease"
    if has_result != (state is TaskState.SUCCEEDED):
        yield f"{state}, yet {'with a' if has_result else 'without a'} result"
    if state.is_final != (task.finished_at_us is not None):
        yield f"{state}, yet {'without' if state.is_final else 'with'} a time when it finished"
    is_scheduled = state is TaskState.SCHEDULED
    if is_scheduled != (task.due_at_us is not None):
        yield f"{state}, yet {'without' if is_scheduled else 'with'} a time when it is due"
    if task.backoff_until_us is not None and not is_scheduled:
        yield f"{state}, yet in a backoff"
    if data_bytes != task.data_bytes:
        yield f"{data_bytes} bytes of data, yet {task.data_bytes} are counted"
    failures_max = task.max_retries + (state is TaskState.DEAD)
    if task.retry_count > failures_max:
        yield f"{state} after {task.retry_count} failures; possible: at most {failures_max}"
    runs_min = task.retry_count + task.lost_count + (is_leased or state is TaskState.SUCCEEDED)
    if task.attempt < runs_min:
        yield f"{task.attempt} runs, yet {runs_min} are accounted for"
