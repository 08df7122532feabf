"""The limits on what agents say of themselves and of their runs: a part of `settings.py`."""

from pydantic import Field

from taskdist.sources import SECOND_US, Duration, Sourced

SCHEMA_BYTES_MAX = 64 * 1024
"""Of a kind's input schema: a model of a few hundred fields."""

SCHEMAS_LISTED_MAX = 8
"""Different schemas of one kind that are told: a deploy has two, and eight fit half a MiB."""

KINDS_PAGE_BYTES_MAX = 1024 * 1024
"""Schemas after which a page of kinds ends: with the last one's eight it stays under 2 MiB."""

LINE_BYTES_MAX = 4 * 1024
"""Of a progress text or a line of a run's log; longer ones are cut: a line, not a file."""

BUILT_IN = "simulate"
"""What an agent runs that was given no handlers."""


NAMELESS_AGENTS_REMEMBERED_MAX = 10_000
"""Agents remembered as having sent no lease_id, so that each is logged once."""

ENTRIES_TOGETHER_MAX = 256
"""Entries in one ReportProgress or one message of Work: two commits' worth of rows."""

ENTRIES_DROPPED_TOLD_MAX = 1_000_000
"""Entries that an agent may say in one entry to have dropped itself: a busy log's minute."""

ENTRIES_PAGE_MAX = 256
"""Entries that are read for a watcher at once: a MiB, if their texts are long."""


class TellingSettings(Sourced):
    """What a distributor keeps of what its agents say."""

    agent_heard_us: Duration = Field(90 * SECOND_US, ge=SECOND_US)
    """How long an agent counts as live after it was last heard of, and its kinds are known: three
    announcements."""

    live_agents_max: int = Field(20_000, ge=1)
    """Sessions whose kinds are known; as many as may wait. Each takes about a KiB."""

    announced_bytes_max: int = Field(64 * 1024 * 1024, ge=1024 * 1024)
    """Names and schemas of kinds in memory. What many sessions announce alike counts once."""

    entries_kept_max: int = Field(1_000, ge=1, le=10_000)
    """Progress and log lines kept of one task; then the oldest go. The last pages of a log."""

    entry_bytes_max: int = Field(256 * 1024, ge=LINE_BYTES_MAX)
    """… and how many bytes of text, likewise: a quarter of what a task's data may be."""

    entries_at_once_max: int = Field(200, ge=1)
    """Progress and log lines that are kept of one run at once: a start is talkative."""

    entries_per_second_max: int = Field(20, ge=1)
    """… and so many more for each second of its lease. What comes faster is dropped, and how much
    that was is kept: nobody reads faster."""


class AgentRunSettings(Sourced):
    """How an agent runs what."""

    handlers: str = BUILT_IN
    """MODULE:REGISTRY, the `taskdist.Registry` that it runs, from the current directory or what is
    installed; or `simulate`, the built-in one."""

    exit_when_idle: bool = False
    """Ends when there is nothing left to do: no task runs here, none has come for `idle`, an empty
    poll says that none is ready, and none that failed here waits for its retry."""

    idle_us: Duration = Field(2 * SECOND_US, ge=SECOND_US // 10, le=86_400 * SECOND_US)
    """How long nothing has to come: longer than a restart of a small distributor."""

    stop_grace_us: Duration = Field(5 * SECOND_US, ge=0, le=3_600 * SECOND_US)
    """Between SIGTERM and SIGKILL, where a command or a handler's process is stopped: time to
    remove temporary files, and little, since another agent may have the task meanwhile."""

    log_lines_untold_max: int = Field(256, ge=1)
    """Lines of one run's log that wait to be sent; more are dropped and counted."""

    log_bytes_untold_max: int = Field(64 * 1024, ge=LINE_BYTES_MAX)
    """… and how long they may be in all."""
