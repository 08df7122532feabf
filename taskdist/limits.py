"""The limits of the contract: each with its unit and its reason. Changing one changes the wire or
the journal. Those that a server or an agent may choose are in `settings.py`.
"""

from taskdist.sources import SECOND_US as SECOND_US  # most are in it

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

# --- the contract's limits --------------------------------------------------------------------

EST_PROCESSING_TIME_MAX_US = 365 * 86_400 * SECOND_US
"""A year. Longer is a unit mistaken (milliseconds for seconds); the sort key has room for it."""

MAX_RETRIES_DEFAULT = 3
MAX_RETRIES_MAX = 100
"""Above that a task is broken, not unlucky; keeps the history under ATTEMPTS_KEPT_MAX."""

DELAY_MAX_US = 365 * 86_400 * SECOND_US
"""A year: of a delay, a backoff, a deadline from now. Longer is a unit mistaken."""

BACKOFF_MIN_US = 1_000
"""A shorter pause is none."""

BACKOFF_MAX_DEFAULT_US = 3_600 * SECOND_US
"""The cap of an exponential backoff that names none: people fix a broken service within hours."""

LEASE_MIN_US = SECOND_US
LEASE_MAX_US = 86_400 * SECOND_US
"""A lease's term: a second is three heartbeats on a good network, a day is a crash unnoticed."""

RUN_TIMEOUT_MIN_US = 1_000
RUN_TIMEOUT_MAX_US = 10 * 365 * 86_400 * SECOND_US
"""Ten times the longest expected time."""

IDEMPOTENCY_KEY_LENGTH_MAX = 128
"""Characters: two UUIDs or a hash with a prefix. Kept in an index with the task."""

OPERATED_TASKS_MAX = 500
"""Tasks that one call of an operator puts back or removes: one commit's worth."""

REMOVED_BYTES_MAX = 4 * MIB
"""Data and results that are removed in one commit, unless one task has more or they are named one
by one: SQLite visits each of their pages, some 2 ms for each MiB, while all others wait."""

ATTEMPTS_KEPT_MAX = 128
"""Attempts kept per task: all 101 failures that are possible, some lost and some handed back."""

MESSAGE_BYTES_MAX = 4 * MIB
"""What the official gRPC clients accept by default."""

REQUEST_PARTS_MAX = 24_000
"""Fields in a request, those of its sub-messages included: 1,000 tasks of which all is said have
23,002, a full heartbeat has 10,001. Counting to here takes 4 ms, parsing so many of the smallest
sub-messages 70 ms, and 4 MiB of the smallest parts 160 ms and 320 MiB."""

RESPONSE_PARTS_MAX = 40_000
"""Fields in a response, likewise: a full page of tasks of which all is told has 38,001."""

CONNECTION_WINDOW_BYTES = 16 * MIB
STREAM_WINDOW_BYTES = MIB
"""HTTP/2 flow control: sixteen streams that nobody reads leave a connection usable."""

FRAME_BYTES_MAX = 256 * KIB
"""HTTP/2 frames that a client accepts. Each costs some 50 µs on either side, and the default of 16
KiB, which a distributor stays with, makes 64 of a message with the largest data."""

CLIENT_KEEPALIVE_US = 20 * SECOND_US
CLIENT_KEEPALIVE_TIMEOUT_US = 10 * SECOND_US
"""How often a client asks whether its distributor is there, and how long that may take to say so:
a call that waits for long, as Work does, notices within half a minute that it is frozen, or that
its machine is gone. A thousand agents make 50 pings a second, half a percent of a core."""

CONNECT_MAX_US = 5 * SECOND_US
"""How long a client tries to connect, before it says so. Where nothing answers, a kernel asks again
after 1, 3, 7, 15, 31, 63 seconds, and would find a network that is back so much later."""

CLOSE_MAX_US = 5 * SECOND_US
"""How long a closed connection waits for its peer to read what is left."""

BACKLOG = 4_096
"""Connections that wait to be accepted: Linux's own limit. When a distributor comes back, thousands
of agents ask within the same second, and whom the kernel turns away asks again after one, three,
seven."""

ACCEPTED_PER_TURN = 32
"""Connections that are accepted before anybody else has a turn; each takes 0.3 ms."""

LEASE_TOKEN_BYTES = 8
"""Random bytes in a lease_id: it cannot be guessed, and is none of an earlier store's."""

CALLS_PER_CHANNEL_MAX = 90
"""Calls at once on one connection, watches included: a distributor allows 100, and grpclib is slow
when they run out, since each that ends wakes all that wait."""

DATA_BYTES_MAX = MIB
RESULT_BYTES_MAX = MIB
"""A quarter of a message each, so that a task with its result always fits one."""

ERROR_BYTES_MAX = 16 * KIB
"""A long traceback fits; 101 of them stay under 2 MiB. Longer ones are cut, not refused."""

WAIT_MAX_US = 60 * SECOND_US
"""Proxies drop calls that are silent for longer."""

SUBMIT_TASKS_MAX = 1_000
"""Tasks in one SubmitTasks: one commit's worth."""

SUBMIT_BATCH_BYTES_MAX = 3 * MIB
"""Requests in one batch of the client's, with room for what stands around each of them."""

SLOTS_MAX = 10_000
"""Tasks that one agent runs at once: what one heartbeat can name."""

OUTCOMES_MAX = 1_000
"""Outcomes and releases in one message of Work: eight commits' worth."""

OUTCOMES_TOGETHER = 128
"""Outcomes in one commit, and what our agents put into a message. With the leases that fill the
slots they free, it is some 10 ms of work, behind which any other reply may have to wait."""

LEASE_ID_LENGTH_SHOWN = 80
"""Characters of an unknown lease_id in a refusal, whose text has to fit a header."""

HEARTBEAT_LEASES_MAX = 10_000
"""Lease ids in one heartbeat: 400 KiB, some 10 ms of the writer's time."""

LANES_PER_AGENT_MAX = 256
"""(queue, kind) pairs that one agent may name: each is looked at for each lease."""

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1_000
"""Tasks on a page of a list: about 200 KiB."""

PAGE_ROWS_SCANNED_MAX = 20_000
"""Rows looked at for one page, about 20 ms, so that a rare filter cannot hold up other readers."""

ID_ENDING_LENGTH_MIN = 6
"""Hexadecimal digits: 16 million endings, so that among thousands of tasks one is mostly unique."""

LANES_MAX = 1_000
"""(queue, kind) pairs with waiting tasks. A position is summed over the lanes of a queue."""

BACKUP_CHUNK_BYTES = MIB
CHECK_FAULTS_TOLD_MAX = 100
"""Bytes of a backup in a message; faults that a check names, of as many as it counts."""

WATCH_CHANGES_KEPT_MAX = 256
"""Changes that one WatchTask keeps for a slow reader: more than a task has in its life, mostly."""

TIERS_MAX = 100
"""A tier's rank is one byte of the sort key; people name a handful."""


# --- the distributor's ------------------------------------------------------------------------

# --- of what agents say -----------------------------------------------------------------------

SCHEMA_BYTES_MAX = 64 * 1024
"""Of a kind's input schema: a model of a few hundred fields."""

SCHEMAS_LISTED_MAX = 8
"""Different schemas of one kind that are told: a deploy has two, and eight fit half a MiB."""

KINDS_PAGE_BYTES_MAX = 1024 * 1024
"""Schemas after which a page of kinds ends: with the last one's eight it stays under 2 MiB."""

LINE_BYTES_MAX = 4 * 1024
"""Of a progress text or a line of a run's log; longer ones are cut: a line, not a file."""

BUILT_IN = "simulate"
"""What an agent runs that was given no handlers."""


NAMELESS_AGENTS_REMEMBERED_MAX = 10_000
"""Agents remembered as having sent no lease_id, so that each is logged once."""

ENTRIES_TOGETHER_MAX = 256
"""Entries in one ReportProgress or one message of Work: two commits' worth of rows."""

ENTRIES_DROPPED_TOLD_MAX = 1_000_000
"""Entries that an agent may say in one entry to have dropped itself: a busy log's minute."""

ENTRIES_PAGE_MAX = 256
"""Entries that are read for a watcher at once: a MiB, if their texts are long."""
