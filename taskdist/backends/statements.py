"""The longer SQL of a journal, made once."""

from taskdist.backends.rows import (
    ATTEMPT_COLUMNS,
    LEASE_COLUMNS,
    SELECT_TASK,
    TASK_COLUMNS,
    UPDATED_COLUMNS,
    UPDATED_TIMES,
    USUAL_COLUMNS,
)
from taskdist.backends.unwritten import ROWS_PER_STEP, Statement, delete, insert, update

INSERT_PLAIN_TASK = insert("task", USUAL_COLUMNS)
INSERT_TASK = insert("task", TASK_COLUMNS)
UPDATE_TASK = update("task", UPDATED_COLUMNS, key="sequence")
UPDATE_TIMES = update("task", UPDATED_TIMES, key="sequence")
# Or replace: a damaged one must not be in the way of this one.
INSERT_DATA = insert("data", ("sequence", "data", "checksum"), "INSERT OR REPLACE")
INSERT_RESULT = insert("result", ("sequence", "result", "checksum"), "INSERT OR REPLACE")
INSERT_LEASE = insert("lease", ("sequence", *LEASE_COLUMNS), "INSERT OR REPLACE")
DELETE_LEASE = delete("lease", "sequence")
INSERT_ATTEMPT = insert("attempt", ("sequence", *ATTEMPT_COLUMNS), "INSERT OR REPLACE")
FORGOTTEN = tuple(delete(table, "sequence") for table in ("task", "data", "result", "attempt"))
DELETE_ATTEMPT = Statement(
    "DELETE FROM attempt WHERE (sequence, attempt) IN (VALUES ", "(?, ?)", ")"
)

SELECT_WANTED = {
    count: f"{SELECT_TASK}, data, checksum FROM (VALUES {', '.join(['(?)'] * count)}) AS wanted"
    " LEFT JOIN task ON task.sequence = wanted.column1"
    " LEFT JOIN data ON data.sequence = wanted.column1"
    for count in ROWS_PER_STEP
}
"""So many tasks with their data, in the order in which their sequences are given."""
