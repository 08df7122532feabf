"""Hypothesis for the tests of the core."""

from hypothesis import settings

# A busy machine is slow, and that is no failure.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
