"""Calls what a registry wants called when an agent starts and stops."""

import sys
from collections.abc import Awaitable, Callable
from inspect import isawaitable, iscoroutinefunction, unwrap
from typing import Any

import structlog

from taskdist.agent.command import Command
from taskdist.agent.definition import Handler, RegistryError, found, place_of
from taskdist.agent.registry import Hook, Registry

log = structlog.get_logger()

InThread = Callable[[Hook], Awaitable[object]]
"""Calls something where it holds nobody up."""


async def start(registry: Registry, in_thread: InThread) -> None:
    """Looks whether all can be run, and calls its hooks.

    Raises:
        RegistryError: a program is missing, or a hook failed.
    """
    for one in registry:
        if isinstance(one, Command):
            one.find()
        elif one.process:
            _check_found(one)
    for hook in registry.start_hooks:
        try:
            await _call(hook, in_thread)
        except (Exception, SystemExit) as error:  # An exit, too, is one that says why.
            log.error("on_start failed", exc_info=error)
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise RegistryError(f"{_named(hook)} failed: {reason}") from error


async def stop(registry: Registry, in_thread: InThread) -> None:
    """Calls its hooks."""
    for hook in registry.stop_hooks:
        try:
            await _call(hook, in_thread)
        except (Exception, SystemExit) as error:
            log.error("on_stop failed", hook=_named(hook), exc_info=error)


def _check_found(handler: Handler[Any, Any, ..., Any]) -> None:
    """Another process finds it by its name, which must be its own."""
    module, name = handler.found_at
    if module == "__main__":
        raise RegistryError(f"{handler.place}: process=True: no other process can import __main__")
    if found(sys.modules.get(module), name) is not handler:
        raise RegistryError(
            f"{handler.place}: process=True: {module}.{name} is something else, which another "
            "process would run; name the function as no other, and decorate it where it stands"
        )


async def _call(hook: Hook, in_thread: InThread) -> None:
    returned = hook() if iscoroutinefunction(hook) else await in_thread(hook)
    if isawaitable(returned):
        await returned


def _named(hook: Hook) -> str:
    code = getattr(unwrap(hook), "__code__", None)
    return f"{place_of(code)}: {getattr(hook, '__name__', hook)}"
