"""Code that only type checkers read."""
