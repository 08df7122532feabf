"""P6: an entry that cannot be read is left out; its task, and whoever watches it, go on."""

from typing import Any

import apsw
import pytest

from taskdist.core.commands import Noted
from taskdist.core.queries import FollowTask
from tests.backends.test_fuzzed_rows import Spoilt, spoil
from tests.support.backends import Rig, note, succeed

COLUMNS = ("attempt", "step", "kind", "at_us", "fraction", "text", "place")
VALUES: tuple[Any, ...] = (None, -1, 2**62, 2**63 - 1, 1.5, "x", b"\xff")


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("as_text", [False, True])
async def test_p6_any_value_in_an_entry_stops_nobody(
    kept: Rig, column: str, value: object, as_text: bool
) -> None:
    task_id = await kept.submit()
    task = await kept.take()
    await kept.apply(note(task, "one", "two"))
    await kept.close()
    connection = apsw.Connection(str(kept.path))
    connection.pragma("journal_mode", "delete")
    connection.close()
    # Both rows, but for a key, of which two cannot be equal.
    spoil(kept.path, [Spoilt(("entry", column), task.sequence, value, as_text)])
    await kept.open()
    assert await kept.apply(note(task, "three")) == Noted(0)
    followed = await kept.read(FollowTask(task_id, (0, 0), 100))
    assert "three" in [entry.text for entry in followed.entries]
    assert not followed.is_more
    await kept.history(task_id)
    await kept.apply(succeed(task))
    assert kept.hearer.failure is None
