"""Fuzzing that is guided by the lines of our code which an input reaches."""
