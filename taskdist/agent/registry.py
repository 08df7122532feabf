"""A registry: what an agent can run, as a team writes it down.

    tasks = Registry()

    @tasks.handler(timeout="30s", max_retries=3)
    async def infer(prompt: Prompt, ctx: Context) -> Completion: ...

    tasks.command("transcode", ["ffmpeg", "-i", "{src}", "{dst}"], input=Transcode)

What is wrong in it is said when its module is imported, with file and line. Clients import the same
module and submit what they find there: `client.submit(infer, Prompt(...))`.
"""

from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from pydantic import BaseModel

from taskdist.agent.command import Command, Limits
from taskdist.agent.definition import (
    Handler,
    RegistryError,
    caller,
    check_kind,
    check_max_retries,
    place_of,
    seconds_of,
)
from taskdist.kinds import Kind

In = TypeVar("In")
Out = TypeVar("Out")
P = ParamSpec("P")
M = TypeVar("M", bound=BaseModel)
H = TypeVar("H", bound=Callable[[], object])

AnyHandler = Handler[Any, Any, ..., Any] | Command[Any]
"""What runs a kind."""

Hook = Callable[[], object]
"""Called without arguments; what it returns is awaited if it can be."""


class Decorator(Protocol):
    """What `@tasks.handler(…)` is before it has its function."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[In, P], Coroutine[Any, Any, Out]], /
    ) -> Handler[In, Out, Concatenate[In, P], Coroutine[Any, Any, Out]]: ...

    @overload
    def __call__(
        self, function: Callable[Concatenate[In, P], Out], /
    ) -> Handler[In, Out, Concatenate[In, P], Out]: ...


class Registry:
    """Handlers and commands, by kind, and what to do when an agent starts and stops."""

    def __init__(self) -> None:
        self._runs: dict[str, AnyHandler] = {}
        self.start_hooks: list[Hook] = []
        self.process_hooks: list[Hook] = []
        self.stop_hooks: list[Hook] = []

    @property
    def kinds(self) -> Sequence[str]:
        """The names of what it can run."""
        return sorted(self._runs)

    def __getitem__(self, kind: str) -> AnyHandler:
        return self._runs[kind]

    def __iter__(self) -> Iterator[AnyHandler]:
        return iter(self._runs.values())

    def __len__(self) -> int:
        return len(self._runs)

    @overload
    def handler(
        self, function: Callable[Concatenate[In, P], Coroutine[Any, Any, Out]], /
    ) -> Handler[In, Out, Concatenate[In, P], Coroutine[Any, Any, Out]]: ...

    @overload
    def handler(
        self, function: Callable[Concatenate[In, P], Out], /
    ) -> Handler[In, Out, Concatenate[In, P], Out]: ...

    @overload
    def handler(
        self,
        function: None = None,
        /,
        *,
        name: str = ...,
        timeout: float | str | None = ...,
        max_retries: int | None = ...,
        process: bool = ...,
    ) -> Decorator: ...

    def handler(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str = "",
        timeout: float | str | None = None,
        max_retries: int | None = None,
        process: bool = False,
    ) -> Any:
        """Makes a function the handler of a kind: `@tasks.handler` or `@tasks.handler(…)`.

        The function takes the input, and the run's `Context` if it wants it, and returns the
        result; all three have types. It can still be called as the function that it is.

        Args:
            name: the kind. Default: the function's name.
            timeout: how long a run may take, seconds or `30s`; a task's own may be smaller.
            max_retries: the failure after so many retries is final, whatever the task allows.
            process: run it in a process of its own, not in the agent's.

        Raises:
            RegistryError: it cannot be a handler; the text names file, line and reason.
        """

        def decorate(function: Callable[..., Any]) -> Handler[Any, Any, ..., Any]:
            made: Handler[Any, Any, ..., Any] = Handler(
                function,
                name=name,
                timeout=timeout,
                max_retries=max_retries,
                process=process,
                process_hooks=self.process_hooks,
            )
            self._add(made)
            return made

        return decorate if function is None else decorate(function)

    def command(
        self,
        name: str,
        argv: Sequence[str],
        *,
        input: type[M],  # noqa: A002 # reads well where it is called
        timeout: float | str | None = None,
        max_retries: int | None = None,
        retry_on: Collection[int] = (),
        dead_on: Collection[int] = (),
        env: Collection[str] = (),
        output_bytes_max: int | None = None,
        limits: Limits | None = None,
    ) -> Kind[M, bytes]:
        """Makes a program the handler of a kind. Never a shell: each item of argv is one argument.

        `{field}` in an item is that field of the input; braces that are meant are doubled. The
        task's data is its standard input, what it writes to standard output the result.

        Args:
            name: the kind.
            argv: the program, found on the agent's PATH, and its arguments.
            input: the model of the input.
            timeout: how long a run may take, seconds or `15m`; a task's own may be smaller.
            max_retries: the failure after so many retries is final, whatever the task allows.
            retry_on: exit codes that are tried again. If only these are given, all others are not.
            dead_on: exit codes that are not tried again.
            env: names of the agent's environment variables that it gets besides PATH, HOME, LANG,
                LC_ALL, TMPDIR and TZ.
            output_bytes_max: of standard output; it is killed when there is more. Default: what a
                result may have.
            limits: of the system's resources.

        Raises:
            RegistryError: it cannot be run so; the text names file, line and reason.
        """
        place = place_of(caller())
        about = f"{place}: command {name!r}"
        made = Command(
            check_kind(name, about),
            argv,
            input,
            place=place,
            timeout_s=seconds_of(timeout, about),
            max_retries=check_max_retries(max_retries, about),
            retry_on=retry_on,
            dead_on=dead_on,
            env=env,
            output_bytes_max=output_bytes_max,
            limits=limits or Limits(),
        )
        self._add(made)
        return made

    @overload
    def on_start(self, hook: H, /) -> H: ...

    @overload
    def on_start(self, hook: None = None, /, *, process: bool = ...) -> Callable[[H], H]: ...

    def on_start(self, hook: Any = None, /, *, process: bool = False) -> Any:
        """Calls this when an agent starts, before it takes a task: load a model here. If it fails,
        the agent ends. An async function runs on the event loop, a plain one in a thread.

        Args:
            process: it is not for the agent but for each process that runs a handler with
                `process=True`, before its first run.
        """

        def decorate(hook: H) -> H:
            (self.process_hooks if process else self.start_hooks).append(hook)
            return hook

        return decorate if hook is None else decorate(hook)

    def on_stop(self, hook: H, /) -> H:
        """Calls this when an agent stops, after its last run. If it fails, that is logged."""
        self.stop_hooks.append(hook)
        return hook

    def _add(self, made: AnyHandler) -> None:
        if made.name in self._runs:
            first = self._runs[made.name].place
            raise RegistryError(
                f"{made.place}: the kind {made.name!r} is already at {first}; give one another name"
            )
        self._runs[made.name] = made
