"""The rpcs of the contract, by its descriptors."""

from google.protobuf.descriptor import MethodDescriptor

from taskdist.wire.codec import descriptor_pool

PACKAGE = "taskdist.v1"
SERVICES = tuple(
    descriptor_pool().FindServiceByName(f"{PACKAGE}.{name}")
    for name in ("TaskDistributor", "Operations")
)
RPCS: dict[str, MethodDescriptor] = {
    method.name: method for service in SERVICES for method in service.methods
}
"""All that there are."""
