"""A handler as it is defined: its function, read once, when its module is imported."""

import inspect
import os
from collections.abc import Awaitable, Callable, Sequence
from types import CodeType, FrameType
from typing import Any, Generic, TypeVar, get_type_hints

from pydantic.errors import PydanticUserError
from typing_extensions import ParamSpec
from typing_extensions import TypeVar as TypeVarWithDefault

from taskdist.agent.context import Context
from taskdist.agent.handlers import Failed
from taskdist.kinds import InvalidInput, Kind, WrongResult
from taskdist.limits import MAX_RETRIES_MAX, RUN_TIMEOUT_MAX_US, RUN_TIMEOUT_MIN_US, SECOND_US
from taskdist.settings import SettingsError, check_name, parse_duration_us

In = TypeVar("In")
Out = TypeVar("Out")
P = ParamSpec("P", default=...)
R = TypeVarWithDefault("R", default=Any)

_PACKAGE = os.path.join(os.path.dirname(__file__), "")

PARAMETERS_MAX = 2
"""The input and the context."""


class RegistryError(SettingsError):
    """What was defined cannot be run. One line that names file and line."""


class Handler(Kind[In, Out], Generic[In, Out, P, R]):
    """A kind and the function that runs it; also still that function. Made by `Registry.handler`.

    Attributes:
        place: file and line of the function.
        timeout_s: how long a run may take; None: as long as the task allows.
        max_retries: the failure after so many retries is final; None: the task's own number counts.
        process: whether it runs in a process of its own.
        is_async: whether it runs on an event loop.
        process_hooks: what such a process calls before its first run.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str = "",
        timeout: float | str | None = None,
        max_retries: int | None = None,
        process: bool = False,
        process_hooks: Sequence[Callable[[], object]] = (),
    ) -> None:
        plain = inspect.unwrap(function)
        if not inspect.isroutine(plain):
            what = getattr(function, "__name__", type(function).__name__)
            raise RegistryError(
                f"{place_of(caller())}: {what!r} is no function; allowed: a function or a method"
            )
        self.function = function
        self.place = place_of(getattr(plain, "__code__", None))
        about = f"{self.place}: handler {plain.__name__!r}"
        input_type, output_type = _types(function, about)
        super().__init__(check_kind(name or plain.__name__, about), input_type, output_type)
        self.takes_context = len(inspect.signature(function).parameters) == PARAMETERS_MAX
        self.timeout_s = seconds_of(timeout, about)
        self.max_retries = check_max_retries(max_retries, about)
        self.is_async = inspect.iscoroutinefunction(function)
        self.process = process
        self.process_hooks = process_hooks
        self.__doc__ = plain.__doc__
        self.__name__ = plain.__name__
        self.__wrapped__ = function
        try:
            _ = self.input_schema, self._output
        except PydanticUserError as error:
            why = str(error).partition("\n")[0]
            raise RegistryError(f"{about}: its types cannot be JSON: {why}") from None
        if process:
            self.found_at = _findable(plain, about)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def run(self, ctx: Context) -> bytes:
        """Runs a plain function here, from the task's data to the bytes of its result.

        Raises:
            Failed: the data is no input, or what was returned no result; no retry would help.
        """
        value = read_input(self, ctx.task.data)
        function: Any = self.function
        returned = function(value, ctx) if self.takes_context else function(value)
        return self._result(returned)

    async def run_async(self, ctx: Context) -> bytes:
        """As `run`, of an async function."""
        value = read_input(self, ctx.task.data)
        function: Any = self.function
        returned: Awaitable[Out] = function(value, ctx) if self.takes_context else function(value)
        return self._result(await returned)

    def _result(self, returned: Out) -> bytes:
        try:
            return self.encode_result(returned)
        except WrongResult as error:
            # The work is done, and done again it would most likely return the same.
            raise Failed(f"WrongResult: {self.place}: {error}\n", retryable=False) from None


def read_input(kind: Kind[In, Any], data: bytes) -> In:
    """A task's data as its kind's input.

    Raises:
        Failed: it is none; each bad field is named.
    """
    try:
        return kind.decode_input(data)
    except InvalidInput as error:
        raise Failed(f"InvalidInput: {error}\n", retryable=False) from None


# --- what is checked ----------------------------------------------------------------------------


def place_of(where: FrameType | CodeType | None) -> str:
    """file:line of a function's code, or of a call; the file as seen from here."""
    if where is None:
        return "built in"
    code = where.f_code if isinstance(where, FrameType) else where
    line = where.f_lineno if isinstance(where, FrameType) else code.co_firstlineno
    near = os.path.relpath(code.co_filename)
    return f"{code.co_filename if near.startswith('..') else near}:{line}"


def caller() -> FrameType | None:
    """Where somebody else's code called this package."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return frame


def check_kind(name: str, about: str) -> str:
    """A kind's name.

    Raises:
        RegistryError: it is none.
    """
    try:
        return check_name(name)
    except ValueError as error:
        raise RegistryError(f"{about}: {error}") from None


def check_max_retries(max_retries: int | None, about: str) -> int | None:
    """How many retries a kind allows.

    Raises:
        RegistryError: out of range.
    """
    if max_retries is None:
        return None
    if type(max_retries) is not int or not 0 <= max_retries <= MAX_RETRIES_MAX:
        raise RegistryError(
            f"{about}: max_retries is {max_retries!r}; allowed: 0 to {MAX_RETRIES_MAX}"
        )
    return max_retries


def seconds_of(timeout: float | str | None, about: str) -> float | None:
    """A timeout in seconds.

    Raises:
        RegistryError: it is no duration, or out of range.
    """
    if timeout is None:
        return None
    try:
        us = parse_duration_us(timeout)
    except ValueError as error:
        raise RegistryError(f"{about}: timeout: {error}") from None
    if not (isinstance(us, int) and RUN_TIMEOUT_MIN_US <= us <= RUN_TIMEOUT_MAX_US):
        raise RegistryError(f"{about}: timeout is {timeout!r}; allowed: 1 ms to 10 years")
    return us / SECOND_US


def _types(function: Callable[..., Any], about: str) -> tuple[Any, Any]:
    """The types of a function's input and result."""
    try:
        signature = inspect.signature(function)
        hints = get_type_hints(inspect.unwrap(function), include_extras=True)
    except Exception as error:  # Annotations are people's code.
        raise RegistryError(f"{about}: its annotations cannot be read: {error}") from None
    names = list(signature.parameters)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise RegistryError(f"{about} yields; allowed: a function that returns its result")
    if not 1 <= len(names) <= PARAMETERS_MAX:
        raise RegistryError(
            f"{about} has {len(names)} parameters; allowed: its input, and a Context after it"
        )
    for name, parameter in signature.parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            raise RegistryError(f"{about}: {parameter} is not a plain parameter")
        if name not in hints:
            raise RegistryError(f"{about}: its parameter {name} has no type")
    if "return" not in hints:
        raise RegistryError(f"{about}: what it returns has no type; write -> None for nothing")
    if hints[names[0]] is Context:
        raise RegistryError(f"{about}: its first parameter is its input; a Context comes second")
    if len(names) == PARAMETERS_MAX and hints[names[1]] is not Context:
        raise RegistryError(f"{about}: its parameter {names[1]} is no Context")
    return hints[names[0]], hints["return"]


def found(module: object, name: str) -> object:
    """What stands under this name in a module; None: nothing."""
    one = module
    for part in name.split("."):
        one = getattr(one, part, None)
    return one


def _findable(plain: Any, about: str) -> tuple[str, str]:
    """Module and name under which another process finds a handler."""
    if "<" in plain.__qualname__:
        raise RegistryError(
            f"{about}: with process=True it stands at the top of a module, or in a class there"
        )
    return plain.__module__, plain.__qualname__
