"""The tables of a journal, their version, and how a journal of an earlier version becomes this one.

A journal of version n is brought to n + 1 by the n-th of `_STEPS`, all that are needed in one
transaction. A new version changes SCHEMA, adds a step, and keeps the steps before it as they are.
"""

from typing import Any, cast

import apsw

from taskdist.backends.rows import checksum

SCHEMA_VERSION = 4

SCHEMA = """
CREATE TABLE store (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    policy TEXT NOT NULL,
    tiers TEXT NOT NULL,
    served_us INTEGER NOT NULL,
    newest_enqueued_us INTEGER NOT NULL,
    last_sequence INTEGER NOT NULL
) STRICT;
CREATE TABLE task (
    sequence INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    state TEXT NOT NULL,
    queue TEXT NOT NULL,
    kind TEXT NOT NULL,
    user_tier TEXT NOT NULL,
    est_processing_time_us INTEGER NOT NULL,
    retry_count INTEGER NOT NULL,
    enqueued_at_us INTEGER NOT NULL,
    max_retries INTEGER NOT NULL,
    lost_count INTEGER NOT NULL,
    hasty_releases INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    submitted_at_us INTEGER NOT NULL,
    finished_at_us INTEGER,
    content_hash BLOB,
    backoff TEXT NOT NULL DEFAULT 'none',
    backoff_us INTEGER NOT NULL DEFAULT 0,
    backoff_max_us INTEGER NOT NULL DEFAULT 0,
    backoff_jitter_percent INTEGER NOT NULL DEFAULT 0,
    run_timeout_us INTEGER,
    lease_us INTEGER,
    due_at_us INTEGER,
    backoff_until_us INTEGER,
    deadline_us INTEGER,
    idempotency_key TEXT,
    data_bytes INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE data (
    sequence INTEGER PRIMARY KEY,
    data BLOB NOT NULL,
    checksum INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE result (
    sequence INTEGER PRIMARY KEY,
    result BLOB NOT NULL,
    checksum INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE lease (
    sequence INTEGER PRIMARY KEY,
    lease_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    session TEXT NOT NULL,
    started_at_us INTEGER NOT NULL,
    started_us INTEGER NOT NULL,
    term_us INTEGER NOT NULL,
    run_timeout_us INTEGER NOT NULL
) STRICT;
CREATE TABLE attempt (
    sequence INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    lease_id TEXT NOT NULL,
    agent_id TEXT NOT NULL,
    session TEXT NOT NULL,
    started_at_us INTEGER NOT NULL,
    ended_at_us INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    led_to TEXT NOT NULL,
    error TEXT NOT NULL,
    PRIMARY KEY (sequence, attempt)
) STRICT, WITHOUT ROWID;
CREATE TABLE entry (
    sequence INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    step INTEGER NOT NULL,
    kind TEXT NOT NULL,
    at_us INTEGER NOT NULL,
    fraction REAL,
    text TEXT NOT NULL,
    place INTEGER NOT NULL,
    PRIMARY KEY (sequence, attempt, step)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX task_key ON task (queue, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX task_not_before ON task (due_at_us)
    WHERE due_at_us IS NOT NULL AND backoff_until_us IS NULL;
CREATE INDEX task_backoff ON task (backoff_until_us) WHERE backoff_until_us IS NOT NULL;
CREATE INDEX task_deadline ON task (deadline_us)
    WHERE deadline_us IS NOT NULL AND state IN ('scheduled', 'ready');
CREATE INDEX task_finished ON task (state, finished_at_us) WHERE finished_at_us IS NOT NULL;
"""


_STEPS = {
    1: """
ALTER TABLE task ADD COLUMN backoff TEXT NOT NULL DEFAULT 'none';
ALTER TABLE task ADD COLUMN backoff_us INTEGER NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN backoff_max_us INTEGER NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN backoff_jitter_percent INTEGER NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN run_timeout_us INTEGER;
ALTER TABLE task ADD COLUMN lease_us INTEGER;
ALTER TABLE task ADD COLUMN due_at_us INTEGER;
ALTER TABLE task ADD COLUMN backoff_until_us INTEGER;
ALTER TABLE task ADD COLUMN deadline_us INTEGER;
ALTER TABLE task ADD COLUMN idempotency_key TEXT;
ALTER TABLE task ADD COLUMN data_bytes INTEGER NOT NULL DEFAULT 0;
UPDATE task SET data_bytes = ifnull(
    (SELECT length(data) FROM data WHERE data.sequence = task.sequence), 0);
CREATE UNIQUE INDEX task_key ON task (queue, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX task_not_before ON task (due_at_us)
    WHERE due_at_us IS NOT NULL AND backoff_until_us IS NULL;
CREATE INDEX task_backoff ON task (backoff_until_us) WHERE backoff_until_us IS NOT NULL;
CREATE INDEX task_deadline ON task (deadline_us)
    WHERE deadline_us IS NOT NULL AND state IN ('scheduled', 'ready');
CREATE INDEX task_finished ON task (state, finished_at_us) WHERE finished_at_us IS NOT NULL;
""",
    # What is no blob is damaged, and SQLite adds no column beside it. The copy has it for people.
    2: """
INSERT INTO result (sequence, result)
    SELECT sequence, x'' FROM task
    WHERE state = 'succeeded' AND sequence NOT IN (SELECT sequence FROM result);
DELETE FROM data WHERE typeof(data) <> 'blob';
DELETE FROM result WHERE typeof(result) <> 'blob';
ALTER TABLE data ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE result ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
UPDATE data SET checksum = checksum_of(sequence, data);
UPDATE result SET checksum = checksum_of(sequence, result);
""",
    3: """
CREATE TABLE entry (
    sequence INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    step INTEGER NOT NULL,
    kind TEXT NOT NULL,
    at_us INTEGER NOT NULL,
    fraction REAL,
    text TEXT NOT NULL,
    place INTEGER NOT NULL,
    PRIMARY KEY (sequence, attempt, step)
) STRICT, WITHOUT ROWID;
""",
}


def create(connection: apsw.Connection) -> None:
    """Makes the tables, in the open transaction."""
    connection.execute(SCHEMA)
    connection.pragma("user_version", SCHEMA_VERSION)


def migrate(connection: apsw.Connection, version: int) -> None:
    """Brings a journal of this version to SCHEMA_VERSION, in the open transaction.

    One that is of it already is not written: a start may be on a full disk, or a damaged one.
    """
    if version == SCHEMA_VERSION:
        return
    connection.create_scalar_function("checksum_of", cast(Any, checksum), 2)
    for number in range(version, SCHEMA_VERSION):
        connection.execute(_STEPS[number])
    connection.pragma("user_version", SCHEMA_VERSION)
