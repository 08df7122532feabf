"""taskdist: a durable task distributor with one exact order."""

__version__ = "0.1.0"
