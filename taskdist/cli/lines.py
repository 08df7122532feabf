"""A file of tasks, one JSON object a line: what `submit --batch` reads."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, cast

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from taskdist.cli.typed import time_at
from taskdist.client.options import Duration, Options, seconds_of
from taskdist.core.errors import BadField, InvalidFields
from taskdist.core.task import Backoff
from taskdist.limits import MIB
from taskdist.reports import RetryPause
from taskdist.settings import SettingsError

LINE_BYTES_MAX = 8 * MIB
"""Room for the largest data, with every byte of it escaped."""

BAD_LINES_TOLD = 10
"""Enough to see what is wrong with a file."""

FLAGS = {
    "user_tier": "tier",
    "est_processing_time_s": "time",
    "queue": "queue",
    "max_retries": "max_retries",
    "backoff": "backoff",
    "delay_s": "delay",
    "not_before": "at",
    "deadline_s": "deadline",
    "run_timeout_s": "run_timeout",
    "lease_s": "lease",
}
"""What a line calls what the flags of `submit` say."""

FIELDS = {
    "user_tier": "tier",
    "est_processing_time": "time",
    "backoff.initial_seconds": "backoff.initial",
    "backoff.max_seconds": "backoff.max",
    "backoff.jitter_percent": "backoff.jitter",
    "timing.delay_seconds": "delay",
    "timing.not_before": "at",
    "timing.deadline_seconds": "deadline",
    "timing.deadline": "deadline",
    "timing.run_timeout_seconds": "run_timeout",
    "timing.lease_seconds": "lease",
    "idempotency_key": "key",
}
"""What a line calls fields of the contract, where that is not the same."""


class _Pause(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Literal["fixed", "exponential"]
    initial: Duration
    max: Duration | None = None
    jitter: int = Field(0, ge=0)


class Said(BaseModel):
    """What may stand in a line: a kind, data, and `Options`; a test keeps those the same."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: str | None = Field(None, min_length=1)
    data: Any = ""
    tier: str | None = Field(None, min_length=1)
    time: Duration | None = None
    queue: str | None = Field(None, min_length=1)
    max_retries: int | None = Field(None, ge=0, lt=2**32)
    backoff: _Pause | None = None
    delay: Duration | None = None
    at: AwareDatetime | None = None
    deadline: Duration | None = None
    run_timeout: Duration | None = None
    lease: Duration | None = None
    key: str | None = Field(None, min_length=1)
    task_id: str | None = Field(None, min_length=1)


class Line(NamedTuple):
    """A task of a file."""

    number: int
    """1 for the first line of the file."""
    kind: str
    data: Any
    """Bytes, or what is sent as JSON."""
    options: Options


def defaults(flags: Mapping[str, Any]) -> Options:
    """What flags say for every line that does not say it itself."""
    said = {FLAGS[name]: value for name, value in flags.items() if name in FLAGS}
    # A deadline of 0 is none.
    return _options({name: v for name, v in said.items() if v or name in ("time", "max_retries")})


def read(path: str, kind: str, flags: Options) -> list[Line]:
    """The tasks of a file; blank lines are none.

    Args:
        path: the file; `-` is standard input.
        kind, flags: for lines that do not say it themselves.

    Raises:
        SettingsError: the file cannot be read.
        InvalidFields: lines are no such objects; of each, every bad field.
    """
    tasks: list[Line] = []
    faults = Faults()
    with _opened(path) as file:
        for number, text in enumerate(_texts(file), start=1):
            with faults.of(number):
                if text.strip():
                    tasks.append(_line(number, text, kind, flags))
    faults.done()
    return tasks


class Faults:
    """Collects what is wrong with lines."""

    def __init__(self) -> None:
        self._bad: list[BadField] = []
        self._lines: set[int] = set()

    @contextmanager
    def of(self, number: int) -> Iterator[None]:
        """What is wrong here is wrong with this line.

        Raises:
            InvalidFields: that is enough.
        """
        try:
            yield
        except InvalidFields as error:
            self._bad += [BadField(named(number, field), why) for field, why in error.fields]
            self._lines.add(number)
            if len(self._lines) >= BAD_LINES_TOLD:
                self.done()

    def done(self) -> None:
        """There is no more to come.

        Raises:
            InvalidFields: something was wrong.
        """
        if self._bad:
            raise InvalidFields(self._bad)


def named(number: int, field: str) -> str:
    """What a line calls a field of the contract."""
    return f"line {number}: {FIELDS.get(field, field)}" if field else f"line {number}"


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        with Path(path).open("rb") as file:
            yield file
    except OSError as error:
        raise SettingsError(f"--batch: {path}: {error.strerror}") from None


def _texts(file: IO[bytes]) -> Iterator[bytes]:
    while text := file.readline(LINE_BYTES_MAX + 1):
        yield text
        if len(text) > LINE_BYTES_MAX:
            return  # `_line` says so.


def _line(number: int, text: bytes, kind: str, flags: Options) -> Line:
    if len(text) > LINE_BYTES_MAX:
        raise InvalidFields([BadField("", f"too long; allowed: at most {LINE_BYTES_MAX} bytes")])
    try:
        said = Said.model_validate_json(text)
    except ValidationError as error:
        raise InvalidFields(_faults(error)) from None
    own = said.model_dump(exclude={"kind", "data", "backoff"}, exclude_none=True)
    if said.backoff is not None:
        own["backoff"] = _pause(said.backoff)
    if isinstance(said.deadline, str) and said.deadline[4:5] == "-":
        own["deadline"] = _time("deadline", said.deadline)
    # Of a flag and a line that say when it starts, the line wins in either way of saying it.
    replaced = {"delay", "at"} if {"delay", "at"} & own.keys() else set()
    inherited = {name: value for name, value in flags.items() if name not in replaced}
    data = said.data.encode() if isinstance(said.data, str) else said.data
    return Line(number, said.kind or kind, data, _options(inherited | own))


def _options(said: Mapping[str, Any]) -> Options:
    return cast(Options, dict(said))


def _pause(said: _Pause) -> RetryPause:
    initial_s = seconds_of("backoff.initial", said.initial)
    longest_s = None if said.max is None else seconds_of("backoff.max", said.max)
    return RetryPause(Backoff(said.kind), initial_s, longest_s, said.jitter)


def _time(name: str, text: str) -> Any:
    try:
        return time_at(name, text)
    except SettingsError as error:
        raise InvalidFields([BadField(name, str(error).removeprefix(f"{name}: "))]) from None


def _faults(error: ValidationError) -> list[BadField]:
    """What is wrong with a line, each field once."""
    reasons: dict[str, str] = {}
    for one in error.errors(include_url=False, include_context=False):
        place = [str(piece) for piece in one["loc"]]
        reason = one["msg"][:1].lower() + one["msg"][1:]
        if one["type"] == "json_invalid":
            reason = "no JSON" + reason.removeprefix("invalid JSON").replace("at line 1 ", "at ")
        elif one["type"] == "model_type" and not place:
            reason = "no JSON object"
        elif one["type"] == "extra_forbidden":
            model = _Pause if len(place) > 1 else Said
            reason = f"not known; allowed: {', '.join(model.model_fields)}"
        elif place[-1] in ("float", "str"):  # a Duration is either
            place.pop()
            reason = f"{one['input']!r} is not a duration: write 90s, 15m, 2h, or seconds"
        reasons.setdefault(".".join(place), reason)
    return [BadField(field, reason) for field, reason in reasons.items()]
