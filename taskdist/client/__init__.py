"""The Python client."""

from taskdist.client.client import Client

__all__ = ["Client"]
