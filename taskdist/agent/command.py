"""A command: a program that is the handler of a kind, as it is defined, and its arguments.

Never a shell. What a task says fills arguments, and can neither add one nor become an option:
a value that begins with a dash is refused where it would stand at the start of an argument, unless
a literal `--` stands before it, which tells programs that no option follows.
"""

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from string import Formatter
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from taskdist.agent.definition import RegistryError, read_input
from taskdist.agent.handlers import Failed
from taskdist.core.values import value
from taskdist.kinds import INPUT_FIELD, Kind
from taskdist.limits import RESULT_BYTES_MAX
from taskdist.reports import Work

M = TypeVar("M", bound=BaseModel)

ENV = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ")
"""Variables of the agent that every command gets: what programs need to find things and to write
text. Credentials are not among them."""

EXIT_CODE_MAX = 255

SHELLS = {"sh", "bash", "dash", "zsh", "ksh", "ash", "fish", "busybox"}
"""Programs that run the argument after -c as code."""


@value
class Limits:
    """What a command may take of the system; None: as the agent itself. Each process that it starts
    has the same limits anew."""

    memory_bytes: int | None = None
    """Of address space."""
    cpu_s: int | None = None
    """Of processor time; it is killed after that."""
    open_files: int | None = None
    file_bytes: int | None = None
    """Of each file that it writes."""


class Command(Kind[M, bytes], Generic[M]):
    """A kind and the program that runs it. Made by `Registry.command`.

    Attributes:
        place: file and line of its definition.
        timeout_s: how long a run may take; None: as long as the task allows.
        max_retries: the failure after so many retries is final; None: the task's own number counts.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        input_type: type[M],
        *,
        place: str,
        timeout_s: float | None,
        max_retries: int | None,
        retry_on: Collection[int],
        dead_on: Collection[int],
        env: Collection[str],
        output_bytes_max: int | None,
        limits: Limits,
    ) -> None:
        super().__init__(name, input_type, bytes)
        self.place = place
        self._about = f"{place}: command {name!r}"
        self.timeout_s = timeout_s
        self.max_retries = max_retries
        self._check_input(input_type)
        self._argv = [self._parse(item) for item in self._checked_argv(argv)]
        self._check_no_script()
        self._retry_on, self._dead_on = self._checked_codes(retry_on, dead_on)
        self._env = self._checked_env(env)
        self.limits = self._checked_limits(limits)
        self.output_bytes_max = RESULT_BYTES_MAX if output_bytes_max is None else output_bytes_max
        if not 0 <= self.output_bytes_max <= RESULT_BYTES_MAX:
            raise self._error(f"output_bytes_max is {output_bytes_max}; at most {RESULT_BYTES_MAX}")

    # --- what a run needs ---

    def find(self, environ: Mapping[str, str] = os.environ) -> None:
        """Looks for the program.

        Raises:
            RegistryError: there is none.
        """
        program = self._program
        if shutil.which(program, path=environ.get("PATH")) is None:
            raise self._error(f"no program {program!r} on the PATH; install it, or name its path")

    def argv(self, data: bytes) -> list[str]:
        """The arguments for a task's data.

        Raises:
            Failed: the data is no input, or a field cannot be an argument; no retry would help.
        """
        fields = read_input(self, data).model_dump(mode="json")
        texts = {field: _text(field, fields[field]) for field in self._fields}
        argv: list[str] = []
        options_may_follow = True
        for parts in self._argv:
            item = "".join(literal + (texts[field] if field else "") for literal, field in parts)
            literal, field = parts[0] if parts else ("", None)
            if options_may_follow and field and not literal and item.startswith("-"):
                raise _bad(field, "begins with '-', and would be taken for an option")
            options_may_follow = options_may_follow and item != "--"
            argv.append(item)
        return argv

    def environment(self, work: Work, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """The variables of a run."""
        kept = {name: environ[name] for name in self._env if name in environ}
        return kept | {
            "TASKDIST_TASK_ID": work.task_id,
            "TASKDIST_KIND": work.kind,
            "TASKDIST_QUEUE": work.queue,
            "TASKDIST_USER_TIER": work.user_tier,
            "TASKDIST_ATTEMPT": str(work.attempt),
            "TASKDIST_RETRY_COUNT": str(work.retry_count),
            "TASKDIST_LEASE_ID": work.lease_id,
        }

    def is_retried(self, code: int) -> bool:
        """Whether a task that ended with this exit code is tried again."""
        if code in self._retry_on:
            return True
        if code in self._dead_on:
            return False
        return bool(self._dead_on) or not self._retry_on

    # --- what is checked when it is defined ---

    @property
    def _program(self) -> str:
        return self._argv[0][0][0]

    @property
    def _fields(self) -> set[str]:
        return {field for parts in self._argv for _, field in parts if field}

    def _error(self, reason: str) -> RegistryError:
        return RegistryError(f"{self._about}: {reason}")

    def _check_input(self, input_type: object) -> None:
        if not (isinstance(input_type, type) and issubclass(input_type, BaseModel)):
            raise self._error(f"input is {input_type!r}; allowed: a pydantic model")

    def _checked_argv(self, argv: Sequence[str]) -> Sequence[str]:
        if isinstance(argv, str) or not argv or not all(isinstance(item, str) for item in argv):
            raise self._error(
                'argv is a list of texts: ["ffmpeg", "-i", "{src}"]; no shell reads it'
            )
        if not argv[0] or "{" in argv[0]:
            raise self._error("the program, argv[0], is a text without fields")
        if any("\0" in item for item in argv):
            raise self._error("argv contains a zero byte")
        return argv

    def _parse(self, item: str) -> list[tuple[str, str | None]]:
        """An argument as texts, each followed by a field or none."""
        parts: list[tuple[str, str | None]] = []
        known = self.input_type.model_fields
        try:
            for literal, field, form, conversion in Formatter().parse(item):
                if field is not None and (field not in known or form or conversion):
                    has = ", ".join(known) or "no fields"
                    name = self.input_type.__name__
                    raise self._error(f"{item!r} names no field of {name}, which has {has}")
                parts.append((literal, field))
        except ValueError as error:
            raise self._error(f"{item!r}: {error}; a brace that is meant is doubled") from None
        return parts or [("", None)]

    def _check_no_script(self) -> None:
        """A shell's -c runs its argument as code, and so a task's field would be code."""
        if os.path.basename(self._program) not in SHELLS:
            return
        for flag, script in zip(self._argv, self._argv[1:], strict=False):
            text = "".join(literal for literal, _ in flag)
            is_flag = text.startswith("-") and not text.startswith("--") and "c" in text
            if is_flag and any(field for _, field in script):
                raise self._error(
                    "a field in a shell's script would be run as code; pass it as an argument: "
                    '["sh", "-c", \'cat "$1"\', "sh", "{field}"]'
                )

    def _checked_codes(self, retry_on: Any, dead_on: Any) -> tuple[frozenset[int], frozenset[int]]:
        for name, codes in (("retry_on", retry_on), ("dead_on", dead_on)):
            if isinstance(codes, str) or not isinstance(codes, Collection):
                raise self._error(f"{name} is {codes!r}; allowed: a set of exit codes, {{75}}")
            for code in codes:
                if type(code) is not int or not 1 <= code <= EXIT_CODE_MAX:
                    raise self._error(f"{name}: {code!r}; allowed: 1 to {EXIT_CODE_MAX}; 0 is ok")
        both = sorted(set(retry_on) & set(dead_on))
        if both:
            raise self._error(f"{both} is both in retry_on and in dead_on")
        return frozenset(retry_on), frozenset(dead_on)

    def _checked_env(self, env: Collection[str]) -> Sequence[str]:
        if isinstance(env, str):
            raise self._error('env is a list of names: ["CUDA_VISIBLE_DEVICES"]')
        for name in env:
            if not name or "=" in name or name.startswith("TASKDIST_"):
                raise self._error(f"env: {name!r}; allowed: names of variables, not TASKDIST_…")
        return (*ENV, *env)

    def _checked_limits(self, limits: Limits) -> Limits:
        for name in ("memory_bytes", "cpu_s", "open_files", "file_bytes"):
            limit = getattr(limits, name)
            if limit is not None and not (isinstance(limit, int) and limit >= 1):
                raise self._error(f"limits: {name} is {limit!r}; allowed: whole numbers from 1")
        return limits


def _bad(field: str, reason: str) -> Failed:
    return Failed(f"InvalidInput: {INPUT_FIELD}.{field}: {reason}\n", retryable=False)


def _text(field: str, filled: object) -> str:
    """A field's value as it stands in an argument."""
    if isinstance(filled, bool):
        return str(filled).lower()
    if not isinstance(filled, str | int | float):
        raise _bad(field, f"is {type(filled).__name__}; an argument is a text, a number or a bool")
    text = str(filled)
    if "\0" in text:
        raise _bad(field, "contains a zero byte, which no argument can")
    return text
