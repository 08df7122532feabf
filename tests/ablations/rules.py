"""Safeguards among the rules, each switched off by a patch of one function."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from taskdist.core import commands, decide, submitting
from taskdist.core.commands import Decision, Found
from taskdist.core.task import Lease, Outcome
from tests.ablations.patching import MANY, put, put_item


def fencing() -> None:
    """Any lease_id will do, if the agent is right."""

    def wrap(settle: Any) -> Any:
        return lambda asked, *more: settle(replace(asked, lease_id=""), *more)

    put_item(decide._DECIDE, commands.Settle, wrap)


def agent_fencing() -> None:
    """Any agent will do."""

    def wrap(settle: Any) -> Any:
        def settled(asked: commands.Settle, found: Found, *more: Any) -> Decision:
            lease = found.tasks[0].lease if found.tasks else None
            said = replace(asked, agent_id=lease.agent_id) if lease else asked
            decision: Decision = settle(said, found, *more)
            return decision

        return settled

    put_item(decide._DECIDE, commands.Settle, wrap)


def repeated_outcomes() -> None:
    """An outcome that was accepted before is not remembered."""

    def wrap(settle: Any) -> Any:
        return lambda asked, found, *more: settle(asked, replace(found, attempt=None), *more)

    put_item(decide._DECIDE, commands.Settle, wrap)


def idempotency() -> None:
    """Each submit is a task of its own, whatever its idempotency key."""

    def wrap(submit: Any) -> Any:
        def submitted(asked: commands.Submit, found: Found, *more: Any) -> Decision:
            keyless = replace(asked, task=asked.task.evolve(idempotency_key=None))
            decision: Decision = submit(keyless, replace(found, of_key=None), *more)
            return decision

        return submitted

    put_item(decide._DECIDE, commands.Submit, wrap)


def content() -> None:
    """A repeat of an id or a key may say something else."""
    put(submitting, "content_hash", lambda asked: bytes(16))


def retry_cap() -> None:
    """A task is tried again for ever."""

    def wrap(fail: Any) -> Any:
        def failed(asked: Any, task: Any, *more: Any) -> Any:
            after = fail(asked, task.evolve(max_retries=MANY), *more)
            return after.evolve(max_retries=task.max_retries)

        return failed

    put_item(decide._END, Outcome.FAILED, wrap)


def _with(**settings: int) -> Callable[[Any], Any]:
    def wrap(rule: Any) -> Any:
        return lambda *asked: rule(*asked[:-1], asked[-1].model_copy(update=settings))

    return wrap


def max_lost() -> None:
    """A task whose agents die goes round for ever."""
    put_item(decide._DECIDE, commands.Expire, _with(max_lost=MANY))


def hasty_releases() -> None:
    """A task that nobody wants goes round for ever."""
    put_item(decide._END, Outcome.RELEASED, _with(hasty_releases_max=MANY))


def leases_per_session() -> None:
    """A session may hold any number of leases."""
    put_item(decide._DECIDE, commands.Take, _with(leases_per_session_max=MANY))


def run_timeout() -> None:
    """Heartbeats hold a lease for ever."""
    put(Lease, "extended", lambda lease, us: replace(lease, expires_us=us + lease.term_us))


def deadline_at_take() -> None:
    """A task is handed out though its deadline has passed, unless that was noticed before."""

    def wrap(take: Any) -> Any:
        def taken(asked: Any, found: Found, *more: Any) -> Decision:
            endless = [task.evolve(deadline_us=None) for task in found.tasks]
            decision: Decision = take(asked, replace(found, tasks=endless), *more)
            return decision

        return taken

    put_item(decide._DECIDE, commands.Take, wrap)


def waiting_limit() -> None:
    """Any number of tasks may wait."""
    put(submitting, "require_room", lambda *asked: None)


def resume() -> None:
    """The leases that a session does not claim when it says hello stay as they are."""

    def wrap(resumed: Any) -> Any:
        return lambda *asked: Decision(resumed(*asked).answer)

    put_item(decide._DECIDE, commands.Resume, wrap)
