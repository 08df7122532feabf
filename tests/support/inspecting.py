"""Checks and backups in tests: a life to look at, and what is told of it."""

from contextlib import aclosing
from typing import Any

from taskdist.core.commands import Cancel
from taskdist.core.inspecting import BackupPart, BackUpStore, Checked, CheckStore
from tests.support.backends import Rig, fail, succeed, take


async def inspect(rig: Rig, query: Any) -> list[Any]:
    """All that is told, to the end."""
    async with aclosing(await rig.read(query)) as steps:
        return [step async for step in steps]


async def checked(rig: Rig) -> list[Checked]:
    """All that a check tells."""
    return await inspect(rig, CheckStore())


async def backed_up(rig: Rig) -> list[BackupPart]:
    """All that a backup tells."""
    return await inspect(rig, BackUpStore())


async def a_life(rig: Rig) -> tuple[int, int]:
    """Tasks in every state, with and without all that is rare. How many, and their attempts."""
    queues = ["succeeded", "empty", "dead", "retried", "waits", "leased"]
    for queue in queues:
        await rig.submit(queue=queue, max_retries=0 if queue == "dead" else 3)
    await rig.apply(succeed(await rig.take(queues=("succeeded",))))
    await rig.apply(succeed(await rig.take(queues=("empty",)), result=b""))
    await rig.apply(fail(await rig.take(queues=("dead",))))
    await rig.apply(fail(await rig.take(queues=("retried",))))
    await rig.apply(fail(await rig.take(queues=("waits",)), retry_after_s=60))
    await rig.take(queues=("leased",))
    cancelled = await rig.submit()
    await rig.apply(Cancel(cancelled))
    await rig.submit(delay_s=60)
    await rig.submit(deadline_in_s=3_600, idempotency_key="key", data=b"")
    await rig.apply(take(queues=("nothing",)))
    return len(queues) + 3, 5
