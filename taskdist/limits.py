"""The limits on what agents say of themselves and of their runs: a part of `settings.py`."""

from pydantic import Field

from taskdist.sources import SECOND_US, Duration, Sourced

SCHEMA_BYTES_MAX = 64 * 1024
"""Of a kind's input schema: a model of a few hundred fields."""

SCHEMAS_LISTED_MAX = 8
"""Different schemas of one kind that are told: a deploy has two, and eight fit half a MiB."""

KINDS_PAGE_BYTES_MAX = 1024 * 1024
"""Schemas after which a page of kinds ends: with the last one's eight it stays under 2 MiB."""


NAMELESS_AGENTS_REMEMBERED_MAX = 10_000
"""Agents remembered as having sent no lease_id, so that each is logged once."""


class TellingSettings(Sourced):
    """What a distributor keeps of what its agents say."""

    agent_heard_us: Duration = Field(90 * SECOND_US, ge=SECOND_US)
    """How long an agent counts as live after it was last heard of, and its kinds are known: three
    announcements."""

    live_agents_max: int = Field(20_000, ge=1)
    """Sessions whose kinds are known; as many as may wait. Each takes about a KiB."""

    announced_bytes_max: int = Field(64 * 1024 * 1024, ge=1024 * 1024)
    """Names and schemas of kinds in memory. What many sessions announce alike counts once."""
