"""The Python client: `Stub` has the contract's verbs; people use `taskdist.Client`."""

from taskdist.client.stub import Stub

__all__ = ["Stub"]
