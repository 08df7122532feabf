"""All that decides about tasks. Pure: no I/O, clock, random numbers, logging or asyncio in here.

The same input gives the same output, so a test needs no server, and SQLite and PostgreSQL share
each rule. Backends find what a command needs, call `commands.decide`, and save its changes.
"""
