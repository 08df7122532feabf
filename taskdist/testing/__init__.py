"""The testing kit: a distributor and agents in a test's own event loop, in virtual time."""
