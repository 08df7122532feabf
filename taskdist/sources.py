"""Where a setting comes from: a flag, else the environment (`TASKDIST_` and its name in capitals),
else a TOML file (`--config`), else its default; and how durations, names and addresses are read.
"""

import math
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import durationpy
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

SECOND_US = 1_000_000

NAME_PATTERN = r"^[A-Za-z0-9._-]{1,64}$"
"""Names of queues, kinds, tiers, agents, sessions: safe in a shell, a URL, a file name, a log."""

PORT_MAX = 65_535
"""Of TCP."""


class SettingsError(Exception):
    """A setting is missing, malformed or out of range. The text is one line for the user."""


def parse_duration_us(text: object) -> object:
    """Turns `90s`, `15m`, `1h30m`, `250ms` or bare seconds into microseconds.

    Raises:
        ValueError: the text is none of these, or negative.
    """
    if isinstance(text, int | float):
        if not 0 <= text < math.inf:
            raise ValueError(f"{text!r} is not a duration: seconds from 0 on")
        return round(text * SECOND_US)
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
    if "://" in text:
        raise ValueError(f"{text!r} is not HOST:PORT: leave out what is before the host")
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError(f"{text!r} is not HOST:PORT: no such host can be") from None
    return text


Address = Annotated[str, AfterValidator(check_address)]
"""host:port."""


def name_of(field: str) -> str:
    """What users call a setting: `lease_us` is `lease`."""
    return field.removesuffix("_us")


class Sourced(BaseModel):
    # Deferred, since a process reads those of one command and imports those of all.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged. An agent logs two lines a task at `info`."""

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
        known = {name_of(field): field for field in cls.model_fields}
        values: dict[str, Any] = {}
        places: dict[str, str] = {}
        for name, value in _read_file(config).items():
            field = known.get(name)
            if field is None:
                if name in _all_names():  # of another command, which may share the file
                    continue
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
                field = known.get(name)
                if field is None:
                    raise SettingsError(f"no setting {name!r}; there are: {', '.join(known)}")
                values[field], places[field] = value, f"--{name.replace('_', '-')}"
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError(_one_line(error, places)) from None


def _all_names(settings: type[Sourced] = Sourced) -> set[str]:
    """What users may call a setting of any command."""
    names = {name_of(field) for field in settings.model_fields}
    return names.union(*map(_all_names, settings.__subclasses__()))


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
        reasons.append(f"{places.get(field, name_of(field))}: {_reason(field, fault)}")
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
