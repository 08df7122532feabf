"""P2 on a Work stream: as many leases as slots, never more, and none later than it could be."""

import asyncio
import random

import pytest

from taskdist.client import Stub
from taskdist.core.task import TaskState
from taskdist.distributor.server import Distributor
from taskdist.wire import messages as wire
from tests.distributor.story import fail, submit, take
from tests.support.streams import Spoken, spoken

# Every sleep here is on the loop's virtual clock, and takes no time.
pytestmark = pytest.mark.virtual_time

LIVE = (TaskState.READY, TaskState.LEASED)

ACTS = 12
"""Between two quiet moments."""

QUIET_S = 2
"""Longer than anything that was begun takes to be done."""


def success(lease: wire.FetchTaskResponse) -> wire.CompleteTaskRequest:
    return wire.CompleteTaskRequest(task_id=lease.task_id, lease_id=lease.lease_id, success=True)


async def heard(work: Spoken) -> wire.WorkResponse:
    message = await work.hear()
    assert message is not None
    return message


async def test_p2_an_outcome_and_the_lease_that_fills_its_slot_come_in_one_message(
    client: Stub, distributor: Distributor
) -> None:
    expected = [await submit(client, "free", seconds) for seconds in (2, 3)]
    async with spoken(distributor) as work:
        (first,) = (await heard(work)).leases
        best = await submit(client)
        await work.say(outcomes=[success(first)])
        message = await heard(work)
        assert [verdict.accepted != "" for verdict in message.verdicts] == [True]
        assert [lease.task_id for lease in message.leases] == [best]
        await work.say(outcomes=[success(message.leases[0])])
        message = await heard(work)
        assert [lease.task_id for lease in message.leases] == expected[1:]


async def test_p2_what_an_outcome_makes_ready_goes_to_who_waited(
    client: Stub, distributor: Distributor
) -> None:
    await submit(client)
    async with spoken(distributor) as work:
        (lease,) = (await heard(work)).leases
        other = asyncio.create_task(take(client, "agent-2", wait_s=30))
        await asyncio.sleep(1)
        await work.say(
            releases=[wire.ReleaseTaskRequest(task_id=lease.task_id, lease_id=lease.lease_id)]
        )
        message = await heard(work)
        assert (len(message.verdicts), message.leases) == (1, [])
        again = await other
        assert again.task_id == lease.task_id
        # The stream waits again: what comes back reaches it at once.
        await fail(client, again, "agent-2")
        assert [one.task_id for one in (await heard(work)).leases] == [lease.task_id]


class Agent:
    """Does by chance all that an agent may do on a stream, and minds how many leases it has."""

    def __init__(self, client: Stub, work: Spoken, dice: random.Random, submits_max: int) -> None:
        self._client = client
        self._work = work
        self._dice = dice
        self._submits_max = submits_max
        self._slots = [1]
        """All that may be in force: those said since it was last quiet, and the last before."""
        self._held: dict[str, wire.FetchTaskResponse] = {}
        self._reported: set[str] = set()
        self._under_way: set[asyncio.Task[object]] = set()
        self.granted = 0

    async def listen(self) -> None:
        """Hears all, and finds out when there are more leases than slots."""
        while True:
            message = await self._work.hear(patience_s=600)
            assert message is not None
            for lease_id in [verdict.lease_id for verdict in message.verdicts]:
                del self._held[lease_id]
            for lease in message.leases:
                assert lease.lease_id not in self._held
                self._held[lease.lease_id] = lease
            for lease_id in message.revoked_lease_ids:
                del self._held[lease_id]  # It never hears of the end of one that was taken back.
            self.granted += len(message.leases)
            if message.leases:
                assert len(self._held) <= max(self._slots)

    async def act(self) -> None:
        """Does one thing."""
        act = self._dice.choice([self.submit, *[self.report] * 3, self.change_slots, self.cancel])
        await act()
        if self._dice.random() < 0.3:
            await asyncio.sleep(self._dice.choice([0, 0, 0.001]))

    async def submit(self) -> None:
        """Somebody submits some tasks, beside all else."""
        for _ in range(self._dice.randint(1, self._submits_max)):
            self._beside(submit(self._client, self._dice.choice(["paid", "free"])))

    async def report(self) -> None:
        """Some of the runs end."""
        left = [lease for key, lease in self._held.items() if key not in self._reported]
        ended = self._dice.sample(left, self._dice.randint(0, len(left)))
        self._reported |= {lease.lease_id for lease in ended}
        outcomes = [success(lease) for lease in ended]
        for outcome in outcomes:
            outcome.success = self._dice.random() < 0.7
        if outcomes:
            await self._work.say(outcomes=outcomes)

    async def change_slots(self) -> None:
        """It has more or fewer slots from now on."""
        self._slots.append(self._dice.choice([0, 1, 2, 3, 3, 4]))
        await self._work.say(slots=self._slots[-1])

    async def cancel(self) -> None:
        """Somebody cancels a task that it runs."""
        left = [lease for key, lease in self._held.items() if key not in self._reported]
        if left:
            self._reported.add((lease := self._dice.choice(left)).lease_id)
            self._beside(self._client.cancel(lease.task_id))

    async def settle_down(self) -> None:
        """Once all is quiet, no slot is free while a task waits."""
        await asyncio.sleep(QUIET_S)
        await asyncio.gather(*self._under_way)
        self._under_way.clear()
        self._slots = self._slots[-1:]
        states = [task.state async for task in self._client.list_tasks(states=LIVE)]
        assert states.count(TaskState.LEASED) == len(self._held)
        if TaskState.READY in states:
            assert len(self._held) >= self._slots[0]

    def _beside(self, call: object) -> None:
        self._under_way.add(asyncio.ensure_future(call))  # type: ignore[call-overload] # any awaitable


@pytest.mark.parametrize("seed", range(10))
async def test_p2_never_more_leases_than_slots_whatever_meets(
    client: Stub, distributor: Distributor, seed: int
) -> None:
    """Tasks are plenty, or so few that it often waits for one."""
    async with spoken(distributor) as work:
        agent = Agent(client, work, random.Random(seed), submits_max=1 + 3 * (seed % 2))
        listening = asyncio.create_task(agent.listen())
        for _ in range(15):
            for _ in range(ACTS):
                await agent.act()
            await agent.settle_down()
            assert not listening.done(), listening.result()
        listening.cancel()
        await asyncio.wait({listening})
    assert agent.granted > 10, "a story in which little happens proves little"
