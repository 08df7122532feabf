"""How long a failed task waits before its retry.

The shape is that of exponential backoff with a cap and jitter; see "Exponential Backoff And Jitter"
by Marc Brooker (AWS Architecture Blog, 2015) for why the jitter. Here a task's submitter says how
much of the pause is left to chance.
"""

from hashlib import blake2b

from taskdist.core.task import Backoff, Task

_STEPS = 1 << 32
"""How finely chance is drawn."""


def retry_delay_us(task: Task, failures: int) -> int:
    """The pause after so many failures; 0: none.

    Chance is drawn from the task's id and the number of its failures: the same again, whoever asks.
    """
    if task.backoff is Backoff.NONE:
        return 0
    delay_us = task.backoff_us
    if task.backoff is Backoff.EXPONENTIAL:
        delay_us = min(delay_us << (failures - 1), task.backoff_max_us)
    if not task.backoff_jitter_percent:
        return delay_us
    seed = f"{task.id}/{failures}".encode()
    drawn = int.from_bytes(blake2b(seed, digest_size=4).digest(), "big")
    return delay_us - delay_us * task.backoff_jitter_percent * drawn // (100 * _STEPS)
