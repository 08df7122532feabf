"""Every setting: its name, unit, default, and the reason for the default.

They are a server's or an agent's own; `sources.py` says where they come from. What the contract
fixes is in `limits.py`. Neither knows anything else of ours, so that every layer may import them.
"""

from typing import Literal

from pydantic import Field, field_validator

from taskdist.limits import (
    BUILT_IN,
    CONNECTION_WINDOW_BYTES,
    GIB,
    KIB,
    LEASE_MAX_US,
    LEASE_MIN_US,
    LINE_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    MIB,
    RUN_TIMEOUT_MAX_US,
    SLOTS_MAX,
    STREAM_WINDOW_BYTES,
    TIERS_MAX,
    WAIT_MAX_US,
)
from taskdist.sources import (
    NAME_PATTERN,
    SECOND_US,
    Address,
    Duration,
    SettingsError,
    Sourced,
    check_address,
    check_name,
    parse_duration_us,
)

# What others need of it too; they say `settings` for all of it.
__all__ = [
    "NAME_PATTERN",
    "SettingsError",
    "check_address",
    "check_name",
    "parse_duration_us",
]

EventLoop = Literal["asyncio", "uvloop"]

OnDoubt = Literal["stop", "finish"]


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


class DistributorSettings(TellingSettings):
    """What `taskdist serve` can be told."""

    listen: Address = "127.0.0.1:50051"
    """host:port. Loopback, since there are no credentials yet. Port 0 takes a free one."""

    insecure: bool = False
    """Allows to listen beyond loopback without credentials."""

    store: str = "sqlite:taskdist.db"
    """Where tasks are kept: `sqlite:PATH`, or `memory:`, which forgets all at the end."""

    tiers: tuple[str, ...] = ("paid", "free")
    """The user tiers in the order of their rank, first served first."""

    lease_us: Duration = Field(30 * SECOND_US, ge=LEASE_MIN_US, le=LEASE_MAX_US)
    """A lease's term: long enough for three heartbeats on a slow network, and worth waiting for."""

    require_lease_id: bool = False
    """Refuses callers that send no lease_id and so can be told apart by their agent_id alone."""

    max_lost: int = Field(3, ge=1, le=1_000)
    """The lost lease that ends a task as dead: one that kills its agents must not go round."""

    hasty_releases_max: int = Field(16, ge=1, le=1_000)
    """The hasty hand-back that ends a task as dead: nobody wants it."""

    hasty_release_us: Duration = Field(10 * SECOND_US, ge=0)
    """A hand-back sooner after its lease than this is hasty; a drain's comes later, or seldom."""

    run_timeout_us: Duration = Field(3_600 * SECOND_US, ge=SECOND_US, le=RUN_TIMEOUT_MAX_US)
    """How long one run may take, however short its expected time: an hour hides no hang."""

    run_timeout_factor: int = Field(10, ge=1, le=1_000)
    """… or so many times its expected time, if that is more: estimates are off by a few times."""

    tasks_waiting_max: int = Field(2_000_000, ge=1)
    """Ready and scheduled tasks; each takes about 100 bytes of memory."""

    waiting_bytes_max: int = Field(16 * GIB, ge=MIB)
    """Data of ready and scheduled tasks, all of it on disk: a small machine's free space."""

    leases_per_session_max: int = Field(SLOTS_MAX, ge=1)
    """Leases that one agent process may hold: what one heartbeat can name."""

    retention_us: Duration = Field(7 * 86_400 * SECOND_US, ge=0)
    """How long succeeded and cancelled tasks are kept: a week's incidents can be looked at."""

    finished_kept_max: int = Field(1_000_000, ge=0)
    """… and how many of them, the newest: some GiB with data and results of a KiB each."""

    dead_retention_us: Duration = Field(30 * 86_400 * SECOND_US, ge=0)
    """How long dead tasks are kept for people to look at: a month."""

    dead_kept_max: int = Field(1_000_000, ge=0)
    """… and how many of them, the newest."""

    waiting_agents_max: int = Field(20_000, ge=1)
    """Long-polls open at once; each takes a few KiB."""

    watches_max: int = Field(10_000, ge=1)
    """WatchTask streams open at once; each takes a few KiB."""

    connections_per_address_max: int = Field(20_000, ge=1)
    """Connections from one IP address: 10,000 agents behind one gateway. Each takes some 50 KiB.
    IPv6 addresses of one /64 count as one, since whoever has one of them has them all."""

    streams_per_connection_max: int = Field(100, ge=1, le=10_000)
    """Calls at once on one connection: HTTP/2's least recommended, and what grpclib expects."""

    connection_window_bytes: int = Field(CONNECTION_WINDOW_BYTES, ge=64 * KIB, le=1024 * MIB)
    """What a connection may send ahead of what is read of it (HTTP/2 flow control), all calls
    together: sixteen that nobody reads leave it usable."""

    stream_window_bytes: int = Field(STREAM_WINDOW_BYTES, ge=64 * KIB, le=1024 * MIB)
    """Likewise one call: a megabyte of data in one go."""

    header_bytes_max: int = Field(16 * KIB, ge=KIB, le=64 * KIB)
    """A call's headers, compressed: what h2 decodes in a millisecond. grpc's own limit is 8 KiB."""

    resets_per_second_max: int = Field(2_000, ge=1)
    """Calls of one connection that are cancelled, in the long run. Each costs 0.1 to 0.2 ms."""

    resets_at_once_max: int = Field(11_000, ge=1)
    """… and so many at once: one who drops 10,000 calls does it at up to 5,000 a second, and looks
    no different from a flood until then."""

    control_frames_per_second_max: int = Field(1_000, ge=10)
    """PING, SETTINGS, PRIORITY, empty DATA and unknown frames of one connection, and calls that it
    made the distributor reset: honest peers send a few in a second."""

    handshake_us: Duration = Field(10 * SECOND_US, ge=SECOND_US)
    """How long a connection may take until it speaks HTTP/2."""

    keepalive_us: Duration = Field(20 * SECOND_US, ge=SECOND_US)
    """A peer is asked so often whether it is there …"""

    keepalive_timeout_us: Duration = Field(10 * SECOND_US, ge=SECOND_US)
    """… and has so long to answer: a frozen or vanished one is noticed within half a minute."""

    idle_connection_us: Duration = Field(3_600 * SECOND_US, ge=SECOND_US)
    """A connection without a call for so long, or twice that, is closed: its owner forgot it."""

    message_us: Duration = Field(60 * SECOND_US, ge=SECOND_US)
    """How long a message may take, from its first byte to its last: 4 MiB at 600 kbit/s."""

    unfinished_bytes_max: int = Field(256 * MIB, ge=MESSAGE_BYTES_MAX)
    """Of all long messages (over 64 KiB) that have come in part, or that their peers have not read:
    sixty-four of the longest. A message takes up to four times its length while it is sent."""

    inbox_bytes_max: int = Field(64 * MIB, ge=MESSAGE_BYTES_MAX)
    """Requests that wait for the writer. At a disk's worst second this is what piles up."""

    batch_rows_max: int = Field(500, ge=1)
    """Commands in one commit: some 10 ms of work, so that no reply waits long behind another. Twice
    as many while a sync takes as long as that."""

    batch_bytes_max: int = Field(8 * MIB, ge=MIB)
    """Data in one commit, for the same reason."""

    checkpoint_bytes: int = Field(4 * MIB, ge=64 * KIB)
    """Write-ahead log after which the writer copies it into the database: 36 ms at worst."""

    reserve_bytes: int = Field(8 * MIB, ge=0, le=GIB)
    """Kept free beside the store for what ends tasks on a full disk: the outcomes of 10,000 tasks
    with results of half a KiB each. 0 keeps none."""

    idle_checkpoint_us: Duration = Field(SECOND_US, ge=0)
    """After so long without a change the log is cut to nothing, which nobody then waits for."""

    snapshot_log_bytes_max: int = Field(GIB, ge=8 * MIB)
    """A check or backup that makes the log grow beyond this gives up: a minute at full load."""

    backup_directory: str = "."
    """Where a backup is copied to before it is sent, from where the store is: as large again."""

    backup_free_bytes_min: int = Field(256 * MIB, ge=0)
    """What that copy leaves free on its disk, which is mostly that of the store."""

    inspection_us: Duration = Field(6 * 3_600 * SECOND_US, ge=SECOND_US)
    """How long a check or backup may take: the largest store at a MiB a second."""

    tick_us: Duration = Field(250_000, ge=1_000, le=SECOND_US)
    """The writer looks at the clock at least so often. Expiry may be noticed so late."""

    pause_us: Duration = Field(SECOND_US, ge=SECOND_US // 2, le=10 * SECOND_US)
    """A longer gap between two looks at the clock is a pause, in which leases do not age; no more
    than a third of a lease counts."""

    clock_save_us: Duration = Field(60 * SECOND_US, ge=SECOND_US)
    """How much served time a crash may forget while only heartbeats came. One write a minute."""

    drain_us: Duration = Field(10 * SECOND_US, ge=0)
    """How long a stop waits for calls under way. Long-polls are answered at once."""

    event_loop: EventLoop = "asyncio"
    """What turns: Python's own loop, or uvloop, which `pip install taskdist[fast]` brings.
    Equal within the noise where it was measured: docs/performance.md."""

    @field_validator("tiers", mode="before")
    @classmethod
    def _split(cls, tiers: object) -> object:
        return [tier.strip() for tier in tiers.split(",")] if isinstance(tiers, str) else tiers

    @field_validator("tiers")
    @classmethod
    def _check_tiers(cls, tiers: tuple[str, ...]) -> tuple[str, ...]:
        if not 1 <= len(tiers) <= TIERS_MAX:
            raise ValueError(f"name 1 to {TIERS_MAX} tiers")
        if len(set(tiers)) != len(tiers):
            raise ValueError("a tier is named twice")
        return tuple(map(check_name, tiers))

    @field_validator("store")
    @classmethod
    def _check_store(cls, store: str) -> str:
        if store != "memory:" and not (store.startswith("sqlite:") and store != "sqlite:"):
            raise ValueError(f"{store!r} is not a store: write sqlite:PATH or memory:")
        if store.startswith("sqlite::") or "\0" in store:
            raise ValueError(f"{store!r} is not a path to a file; memory: keeps nothing on disk")
        return store


# --- the agent's ------------------------------------------------------------------------------


class AgentSettings(AgentRunSettings):
    """What `taskdist agent` can be told."""

    server: Address = "127.0.0.1:50051"
    """host:port of the distributor."""

    slots: int = Field(1, ge=1, le=SLOTS_MAX)
    """How many tasks it runs at once."""

    queues: tuple[str, ...] = ("default",)
    """The queues that it takes from."""

    failure_rate: float = Field(0.3, ge=0, le=1, allow_inf_nan=False)
    """How often a simulated task fails: the mission's test figure."""

    seed: int = 0
    """What the simulated failures are drawn from, with the task's sequence and attempt."""

    speed: float = Field(1, gt=0, le=1_000_000, allow_inf_nan=False)
    """How many times faster than real a simulated task runs; for demonstrations."""

    drain_timeout_us: Duration = Field(30 * SECOND_US, le=86_400 * SECOND_US)
    """How long a stop waits for running tasks before it hands them back: what Kubernetes allows."""

    on_doubt: OnDoubt = "stop"
    """What becomes of a run whose lease could not be renewed for a term: `stop` ends it before
    another agent may begin, `finish` lets it go on, and its outcome counts if nobody else has the
    task by then. For handlers that may safely run twice at once."""

    unary: bool = False
    """Uses FetchTask and CompleteTask although the distributor has Work; to try them out."""

    wait_us: Duration = Field(30 * SECOND_US, ge=SECOND_US // 10, le=WAIT_MAX_US)
    """How long one FetchTask waits: half of what is allowed, so that a dead peer is noticed."""

    backoff_us: Duration = Field(100_000, ge=1_000)
    """First pause before it tries a lost distributor again; doubled each time, with jitter."""

    backoff_max_us: Duration = Field(5 * SECOND_US, ge=1_000)
    """The longest such pause: back within seconds, and 5,000 agents make 1,000 calls a second."""

    event_loop: EventLoop = "asyncio"
    """What turns: Python's own loop, or uvloop, which `pip install taskdist[fast]` brings.
    Equal within the noise where it was measured: docs/performance.md."""

    @field_validator("queues", mode="before")
    @classmethod
    def _split(cls, queues: object) -> object:
        return [queue.strip() for queue in queues.split(",")] if isinstance(queues, str) else queues

    @field_validator("queues")
    @classmethod
    def _check_queues(cls, queues: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(check_name, queues))
