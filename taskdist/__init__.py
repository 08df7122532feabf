"""taskdist: a durable task distributor with one exact order.

What handlers need: `from taskdist import Context, Fatal, Registry, Retry`; what submits tasks:
`from taskdist import AsyncClient, Client`, and the errors that they raise.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskdist.agent.command import Limits
    from taskdist.agent.context import Context
    from taskdist.agent.definition import Handler
    from taskdist.agent.handlers import Fatal, Retry
    from taskdist.agent.registry import Registry
    from taskdist.client.async_client import AsyncClient
    from taskdist.client.errors import (
        AlreadyExists,
        InvalidFields,
        InvalidInput,
        NotFound,
        PreconditionFailed,
        QueueFull,
        Refused,
        SubmittedInPart,
        TaskCancelled,
        TaskFailed,
        Unavailable,
        WaitTimeout,
        WrongResult,
    )
    from taskdist.client.handle import Handle
    from taskdist.client.sync_client import Client

__version__ = "0.1.0"

__all__ = [
    "AlreadyExists",
    "AsyncClient",
    "Client",
    "Context",
    "Fatal",
    "Handle",
    "Handler",
    "InvalidFields",
    "InvalidInput",
    "Limits",
    "NotFound",
    "PreconditionFailed",
    "QueueFull",
    "Refused",
    "Registry",
    "Retry",
    "SubmittedInPart",
    "TaskCancelled",
    "TaskFailed",
    "Unavailable",
    "WaitTimeout",
    "WrongResult",
    "__version__",
]

_PLACES = {
    "AsyncClient": "taskdist.client.async_client",
    "Client": "taskdist.client.sync_client",
    "Context": "taskdist.agent.context",
    "Fatal": "taskdist.agent.handlers",
    "Handle": "taskdist.client.handle",
    "Handler": "taskdist.agent.definition",
    "Limits": "taskdist.agent.command",
    "Registry": "taskdist.agent.registry",
    "Retry": "taskdist.agent.handlers",
}
"""Imported when they are first asked for: the command line starts without them."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    # All else are errors.
    place = _PLACES.get(name, "taskdist.client.errors")
    found: object = getattr(import_module(place), name)
    globals()[name] = found
    return found
