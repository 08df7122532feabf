"""Every limit and setting: its name, unit, default, and the reason for the default.

Constants are part of the contract: changing one changes the wire or the journal. Settings are a
server's or an agent's own; each comes from a flag, else from the environment (`TASKDIST_` and its
name in capitals), else from a TOML file (`--config`), else from the default here. Imports nothing
of ours, so that every layer may import it.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import durationpy
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)
from pydantic_core import ErrorDetails

SECOND_US = 1_000_000
KIB = 1024
MIB = 1024 * KIB

# --- the contract's limits --------------------------------------------------------------------

NAME_PATTERN = r"^[A-Za-z0-9._-]{1,64}$"
"""Names of queues, kinds, tiers, agents, sessions: safe in a shell, a URL, a file name, a log."""

EST_PROCESSING_TIME_MAX_US = 365 * 86_400 * SECOND_US
"""A year. Longer is a unit mistaken (milliseconds for seconds); the sort key has room for it."""

MAX_RETRIES_DEFAULT = 3
MAX_RETRIES_MAX = 100
"""Above that a task is broken, not unlucky; keeps the history under ATTEMPTS_KEPT_MAX."""

ATTEMPTS_KEPT_MAX = 128
"""Attempts kept per task: all 101 failures that are possible, some lost and some handed back."""

MESSAGE_BYTES_MAX = 4 * MIB
"""What the official gRPC clients accept by default."""

CONNECTION_WINDOW_BYTES = 16 * MIB
STREAM_WINDOW_BYTES = MIB
"""HTTP/2 flow control: sixteen streams that nobody reads leave a connection usable."""

CALLS_PER_CHANNEL_MAX = 90
"""Calls at once on one connection. grpclib allows 100 streams, and is slow when they run out."""

DATA_BYTES_MAX = MIB
RESULT_BYTES_MAX = MIB
"""A quarter of a message each, so that a task with its result always fits one."""

ERROR_BYTES_MAX = 16 * KIB
"""A long traceback fits; 101 of them stay under 2 MiB. Longer ones are cut, not refused."""

WAIT_MAX_US = 60 * SECOND_US
"""Proxies drop calls that are silent for longer."""

HEARTBEAT_LEASES_MAX = 10_000
"""Lease ids in one heartbeat: 400 KiB, some 10 ms of the writer's time."""

LANES_PER_AGENT_MAX = 256
"""(queue, kind) pairs that one agent may name: each is looked at for each lease."""

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1_000
"""Tasks on a page of a list: about 200 KiB."""

PAGE_ROWS_SCANNED_MAX = 20_000
"""Rows looked at for one page, about 20 ms, so that a rare filter cannot hold up other readers."""

ID_ENDING_LENGTH_MIN = 6
"""Hexadecimal digits: 16 million endings, so that among thousands of tasks one is mostly unique."""

LANES_MAX = 1_000
"""(queue, kind) pairs with waiting tasks. A position is summed over the lanes of a queue."""

WATCH_CHANGES_KEPT_MAX = 256
"""Changes that one WatchTask keeps for a slow reader: more than a task has in its life, mostly."""

NAMELESS_AGENTS_REMEMBERED_MAX = 10_000
"""Agents remembered as having sent no lease_id, so that each is logged once."""

PORT_MAX = 65_535
"""Of TCP."""

TIERS_MAX = 100
"""A tier's rank is one byte of the sort key; people name a handful."""


# --- reading settings -------------------------------------------------------------------------


class SettingsError(Exception):
    """A setting is missing, malformed or out of range. The text is one line for the user."""


def parse_duration_us(text: object) -> object:
    """Turns `90s`, `15m`, `1h30m`, `250ms` or bare seconds into microseconds.

    Raises:
        ValueError: the text is none of these, or negative.
    """
    if isinstance(text, int | float):
        text = str(text)
    if not isinstance(text, str):
        return text
    text = text.strip()
    try:
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return round(float(text) * SECOND_US)
        if text.startswith(("-", "+")):
            raise ValueError
        return round(durationpy.from_str(text).total_seconds() * SECOND_US)
    except (ValueError, OverflowError, durationpy.DurationError):
        raise ValueError(
            f"{text!r} is not a duration: write 90s, 15m, 2h, or bare seconds"
        ) from None


def _from_text(value: object) -> object:
    return parse_duration_us(value) if isinstance(value, str) else value


Duration = Annotated[int, BeforeValidator(_from_text)]
"""Microseconds; text is read as a duration, `30s`."""


def check_name(text: str) -> str:
    """The text, which is a name.

    Raises:
        ValueError: it is not.
    """
    if not re.fullmatch(NAME_PATTERN, text):
        raise ValueError(f"{text!r} is not a name: 1 to 64 of A-Z a-z 0-9 . _ -")
    return text


def check_address(text: str) -> str:
    """The text, which is HOST:PORT.

    Raises:
        ValueError: it is not.
    """
    host, _, port = text.rpartition(":")
    if not (host and re.fullmatch(r"[0-9]{1,5}", port) and int(port) <= PORT_MAX):
        raise ValueError(f"{text!r} is not HOST:PORT")
    return text


Address = Annotated[str, AfterValidator(check_address)]
"""host:port."""


def _name(field: str) -> str:
    """What users call a setting: `lease_us` is `lease`."""
    return field.removesuffix("_us")


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @classmethod
    def load(
        cls,
        flags: Mapping[str, Any],
        environ: Mapping[str, str] = os.environ,
        config: Path | None = None,
    ) -> Self:
        """Reads the settings: a flag (None is unset) wins over environment, file and default.

        Raises:
            SettingsError: a value is bad, the file cannot be read, or it names an unknown setting.
        """
        known = {_name(field): field for field in cls.model_fields}
        values: dict[str, Any] = {}
        places: dict[str, str] = {}
        for name, value in _read_file(config).items():
            field = known.get(name)
            if field is None:
                raise SettingsError(f"{config}: no setting {name!r}; there are: {', '.join(known)}")
            # A bare number is seconds here, too.
            value = str(value) if field.endswith("_us") else value
            values[field], places[field] = value, f"{name} in {config}"
        for name, field in known.items():
            variable = f"TASKDIST_{name.upper()}"
            if environ.get(variable):
                values[field], places[field] = environ[variable], variable
        for name, value in flags.items():
            if value is not None:
                field = known[name]
                values[field], places[field] = value, f"--{name.replace('_', '-')}"
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError(_one_line(error, places)) from None


def _read_file(config: Path | None) -> dict[str, Any]:
    if config is None:
        return {}
    try:
        return tomllib.loads(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"--config {config}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"--config {config}: not a TOML file: {error}") from None


def _one_line(error: ValidationError, places: Mapping[str, str]) -> str:
    reasons = []
    for fault in error.errors():
        field = str(fault["loc"][0]) if fault["loc"] else "settings"
        reasons.append(f"{places.get(field, _name(field))}: {_reason(field, fault)}")
    return "; ".join(reasons)


def _reason(field: str, fault: ErrorDetails) -> str:
    context = fault.get("ctx", {})
    for bound, words in (("ge", "at least"), ("le", "at most"), ("gt", "more than")):
        if bound in context:
            limit = context[bound]
            if field.endswith("_us"):
                limit = f"{limit / SECOND_US:g}s"
            return f"allowed: {words} {limit}"
    return fault["msg"].removeprefix("Value error, ")


# --- the distributor's ------------------------------------------------------------------------


class DistributorSettings(_Settings):
    """What `taskdist serve` can be told."""

    listen: Address = "127.0.0.1:50051"
    """host:port. Loopback, since there are no credentials yet. Port 0 takes a free one."""

    insecure: bool = False
    """Allows to listen beyond loopback without credentials."""

    store: str = "sqlite:taskdist.db"
    """Where tasks are kept: `sqlite:PATH`, or `memory:`, which forgets all at the end."""

    tiers: tuple[str, ...] = ("paid", "free")
    """The user tiers in the order of their rank, first served first."""

    lease_us: Duration = Field(30 * SECOND_US, ge=SECOND_US // 2, le=86_400 * SECOND_US)
    """A lease's term: long enough for three heartbeats on a slow network, and worth waiting for."""

    require_lease_id: bool = False
    """Refuses callers that send no lease_id and so can be told apart by their agent_id alone."""

    max_lost: int = Field(3, ge=1, le=1_000)
    """The lost lease that ends a task as dead: one that kills its agents must not go round."""

    hasty_releases_max: int = Field(16, ge=1, le=1_000)
    """The hasty hand-back that ends a task as dead: nobody wants it."""

    hasty_release_us: Duration = 10 * SECOND_US
    """A hand-back sooner after its lease than this is hasty; a drain's comes later, or seldom."""

    run_timeout_us: Duration = Field(3_600 * SECOND_US, ge=SECOND_US)
    """How long one run may take, however short its expected time: an hour hides no hang."""

    run_timeout_factor: int = Field(10, ge=1, le=1_000)
    """… or so many times its expected time, if that is more: estimates are off by a few times."""

    tasks_waiting_max: int = Field(2_000_000, ge=1)
    """Ready and scheduled tasks; each takes about 100 bytes of memory."""

    waiting_agents_max: int = Field(20_000, ge=1)
    """Long-polls open at once; each takes a few KiB."""

    watches_max: int = Field(10_000, ge=1)
    """WatchTask streams open at once; each takes a few KiB."""

    inbox_bytes_max: int = Field(64 * MIB, ge=MESSAGE_BYTES_MAX)
    """Requests that wait for the writer. At a disk's worst second this is what piles up."""

    batch_rows_max: int = Field(1_000, ge=1)
    """Rows in one commit: some 10 ms of work, so that no reply waits long behind another."""

    batch_bytes_max: int = Field(8 * MIB, ge=MIB)
    """Data in one commit, for the same reason."""

    checkpoint_bytes: int = Field(4 * MIB, ge=64 * KIB)
    """Write-ahead log after which the writer copies it into the database: 36 ms at worst."""

    idle_checkpoint_us: Duration = SECOND_US
    """After so long without a change the log is cut to nothing, which nobody then waits for."""

    tick_us: Duration = Field(250_000, ge=1_000, le=SECOND_US)
    """The writer looks at the clock at least so often. Expiry may be noticed so late."""

    pause_us: Duration = SECOND_US
    """A longer gap between two looks at the clock is a pause, in which leases do not age."""

    clock_save_us: Duration = 60 * SECOND_US
    """How much served time a crash may forget while only heartbeats came. One write a minute."""

    drain_us: Duration = 10 * SECOND_US
    """How long a stop waits for calls under way. Long-polls are answered at once."""

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
        return store


# --- the agent's ------------------------------------------------------------------------------


class AgentSettings(_Settings):
    """What `taskdist agent` can be told."""

    server: Address = "127.0.0.1:50051"
    """host:port of the distributor."""

    slots: int = Field(1, ge=1, le=10_000)
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

    wait_us: Duration = Field(30 * SECOND_US, ge=SECOND_US // 10, le=WAIT_MAX_US)
    """How long one FetchTask waits: half of what is allowed, so that a dead peer is noticed."""

    backoff_us: Duration = Field(100_000, ge=1_000)
    """First pause before it tries a lost distributor again; doubled each time, with jitter."""

    backoff_max_us: Duration = Field(5 * SECOND_US, ge=1_000)
    """The longest such pause: back within seconds, and 5,000 agents make 1,000 calls a second."""

    @field_validator("queues", mode="before")
    @classmethod
    def _split(cls, queues: object) -> object:
        return [queue.strip() for queue in queues.split(",")] if isinstance(queues, str) else queues

    @field_validator("queues")
    @classmethod
    def _check_queues(cls, queues: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(check_name, queues))
