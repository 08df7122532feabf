"""What the stories about progress are told with: agents that say something, and who follows."""

import asyncio

from taskdist.client import Stub
from taskdist.distributor.server import Distributor
from taskdist.reports import Dropped, Entry, LogLine, News, Progress, Remarks, Work
from tests.support.channel import connect


async def say(client: Stub, work: Work, *said: str | Entry, agent_id: str = "agent-1") -> int:
    """A text is a log line."""
    entries = tuple(LogLine(one) if isinstance(one, str) else one for one in said)
    return await client.report_progress(
        Remarks(work.task_id, work.lease_id, entries), agent_id=agent_id
    )


def word(news: News) -> str:
    """What it is, in a word."""
    match news.entry:
        case Progress():
            return f"{news.entry.fraction}"
        case LogLine():
            return news.entry.text
        case Dropped():
            return f"-{news.entry.count}"
    assert news.task is not None
    return f"{news.task.state.upper()}.{news.task.attempt}"


class Follower:
    """Follows in the background, on a connection of its own."""

    def __init__(self, distributor: Distributor, task_id: str, after: int | None = 0) -> None:
        self.client = connect(distributor)
        self.heard: list[News] = []
        self._following = asyncio.ensure_future(self._follow(task_id, after))

    async def _follow(self, task_id: str, after: int | None) -> None:
        async with self.client:
            async for news in self.client.follow(task_id, after=after):
                self.heard.append(news)

    @property
    def words(self) -> list[str]:
        """All that it heard."""
        return list(map(word, self.heard))

    async def to_the_end(self) -> list[str]:
        """All that it heard; raises what ended it."""
        await self._following
        return self.words

    async def leave(self) -> None:
        """Goes away in the middle."""
        self._following.cancel()
        await asyncio.wait([self._following])


async def followed(client: Stub, task_id: str, after: int | None = 0) -> list[News]:
    """All that is told of a task, from there to its end."""
    return [news async for news in client.follow(task_id, after=after)]
