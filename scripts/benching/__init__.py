"""Measures taskdist as its users run it: distributor, agents, submitter in their own processes."""
