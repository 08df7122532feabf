"""One store, whatever it is called, and however its first start ended."""

from pathlib import Path

import apsw
import pytest

from taskdist.backends.journal import Journal
from taskdist.core.errors import StoreUnusable


def test_p3_a_link_to_a_store_in_use_is_refused(tmp_path: Path) -> None:
    store, link = tmp_path / "a.db", tmp_path / "b.db"
    journal = Journal(store, "strict", ["paid"])
    link.symlink_to(store)
    with pytest.raises(StoreUnusable, match="in use by another distributor"):
        Journal(link, "strict", ["paid"])
    journal.close()
    Journal(link, "strict", ["paid"]).close()


def test_p6_a_first_start_that_was_killed_leaves_a_store_that_can_be_started(
    tmp_path: Path,
) -> None:
    """All that it had written was that there will be a write-ahead log."""
    store = tmp_path / "a.db"
    connection = apsw.Connection(str(store))
    connection.pragma("journal_mode", "wal")
    connection.close()
    assert store.stat().st_size > 0
    Journal(store, "strict", ["paid"]).close()


def test_p6_a_lock_of_another_program_is_waited_for(tmp_path: Path) -> None:
    store = tmp_path / "a.db"
    journal = Journal(store, "strict", ["paid"])
    assert journal.connection.pragma("busy_timeout") == 5_000
    journal.close()
