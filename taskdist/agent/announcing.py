"""An agent says what it takes: its queues, its kinds, and the schemas of their inputs.

Once at the start, again whenever the distributor was away, which forgets it, and as often as that
asks for it. It is given nothing else all the same, since it names its kinds whenever it asks.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import structlog

from taskdist.client import Stub
from taskdist.core.errors import Exhausted, InvalidFields, Unavailable, Unsupported
from taskdist.core.offers import AnnouncedKind
from taskdist.limits import SECOND_US
from taskdist.settings import AgentSettings

log = structlog.get_logger()


class Announced(Protocol):
    """Whose kinds are announced."""

    agent_id: str
    session: str
    kinds: Sequence[str]
    input_schemas: Mapping[str, dict[str, Any] | None]
    """The JSON Schema of each kind's input; None where any bytes will do."""


class Announcing:
    """Announces the kinds of an agent until it is ended.

    Args:
        agent: whose.
        settings: which queues; how long to wait for a distributor that is away.
        client: says it.
    """

    def __init__(self, agent: Announced, settings: AgentSettings, client: Stub) -> None:
        self._agent = agent
        self._settings = settings
        self._client = client
        self._wanted = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._ended = False

    def now(self) -> None:
        """The distributor may not know it: says it at once."""
        self._wanted.set()
        is_running = self._running is not None and not self._running.done()
        if self._agent.kinds and not (is_running or self._ended):
            self._running = asyncio.ensure_future(self._run())

    def end(self) -> None:
        """Says it no more."""
        self._ended = True
        if self._running is not None:
            self._running.cancel()

    async def _run(self) -> None:
        while True:
            self._wanted.clear()
            try:
                pause_s = await self._announce()
            except Unsupported:
                return  # It is older than this; it is asked for these kinds all the same.
            except InvalidFields as reason:
                log.warning("kinds not announced", reason=str(reason))
                return
            except (Unavailable, Exhausted):
                # The feed notices when it is back, and says so.
                pause_s = self._settings.backoff_max_us / SECOND_US
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wanted.wait()

    async def _announce(self) -> float:
        agent = self._agent
        return await self._client.announce_kinds(
            agent_id=agent.agent_id,
            session=agent.session,
            queues=self._settings.queues,
            kinds=[
                AnnouncedKind(kind, _text(agent.input_schemas.get(kind))) for kind in agent.kinds
            ],
        )


def _text(schema: dict[str, Any] | None) -> str:
    return "" if schema is None else json.dumps(schema, separators=(",", ":"))
