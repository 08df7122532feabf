"""Who may speak for a run: only who holds its lease."""

from taskdist.core.errors import BadField, InvalidFields, LeaseNotHeld
from taskdist.limits import LEASE_ID_LENGTH_SHOWN
from taskdist.settings import DistributorSettings


def require_lease_id(name: str, lease_id: str, settings: DistributorSettings) -> None:
    """Whether a caller may leave its lease_id out.

    Raises:
        InvalidFields: it did, and may not.
    """
    if settings.require_lease_id and not lease_id:
        raise InvalidFields([BadField(name, "required by this distributor (--require-lease-id)")])


def not_held(agent_id: str, lease_id: str, task_id: str, more: str = "") -> LeaseNotHeld:
    """The refusal of a word about a lease that its agent does not hold."""
    shown = lease_id[:LEASE_ID_LENGTH_SHOWN]
    lease = f"lease {shown}" if shown else "a lease"
    return LeaseNotHeld(f"agent {agent_id} does not hold {lease} of task {task_id}{more}")
