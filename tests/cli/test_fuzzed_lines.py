"""Whatever is typed: an exit code of the table, one line on stderr where it is a mistake, and no
traceback. The lines are made of the real options of every command, with junk among them."""

import io
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.main import get_group

from taskdist import interpreter, logs
from taskdist.cli import app, exits, main, reloading
from taskdist.cli.demo import acts
from tests.support.examples import examples

pytestmark = pytest.mark.proof

_COMMANDS: dict[str, Any] = dict(get_group(app).commands)
COMMANDS: dict[tuple[str, ...], Any] = {(): get_group(app)} | {
    (name, *verb): command
    for name, group in _COMMANDS.items()
    for verb, command in [
        ((), group),
        *(((verb,), one) for verb, one in getattr(group, "commands", {}).items()),
    ]
}

NOBODY = "127.0.0.1:1"

CODES = {
    exits.OK,
    exits.USAGE,
    exits.NOT_FOUND,
    exits.TASK_FAILED,
    exits.WAIT_TIMED_OUT,
    exits.CANCELLED,
    exits.UNREACHABLE,
    exits.REFUSED,
}

VALUES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", "-", "--", "0", "-1", "1", "1e9", "nan", "inf", "9" * 400, "1h", "30s"]),
    st.sampled_from(["paid", "dead", "none", "fixed", "exponential", "abcdef", "a" * 36, "@/no"]),
    st.sampled_from(["2027-01-01T00:00:00Z", "2027-01-01", "9999-12-31T23:59:59-23:59", "x:1"]),
    st.sampled_from(["[::1]:1", ":", "127.0.0.1:99999", "\udcff", "a\nb", "\u202e", "é" * 50]),
)


def words(command: Any) -> st.SearchStrategy[list[str]]:
    """An option with a value, or without, or a word by itself."""
    options = [option for one in command.params for option in one.opts if option.startswith("-")]
    named = st.sampled_from([one for one in options if "--server" not in one] or ["--help"])
    return st.one_of(
        st.builds(lambda name, value: [name, value], named, VALUES),
        st.builds(lambda name, value: [f"{name}={value}"], named, VALUES),
        named.map(lambda name: [name]),
        VALUES.map(lambda value: [value]),
    )


def lines() -> st.SearchStrategy[list[str]]:
    """A command and what follows it."""
    return st.sampled_from(sorted(COMMANDS)).flatmap(
        lambda name: st.lists(words(COMMANDS[name]), max_size=5).map(
            lambda parts: [*name, *(word for part in parts for word in part)]
        )
    )


class Typed:
    """Runs lines in this process, their output kept."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def run(self, line: list[str]) -> tuple[int, str, bytes]:
        """The exit code, and what is said on stderr and stdout."""
        err, out = io.StringIO(), io.BytesIO()
        for name, stream in (
            ("stdin", io.TextIOWrapper(io.BytesIO(b"data"))),
            ("stdout", io.TextIOWrapper(out, "utf-8")),
            ("stderr", err),
        ):
            self._patch.setattr(sys, name, stream)
        self._patch.setattr(sys, "argv", ["taskdist", *line])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), err.getvalue(), out.getvalue()


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Typed]:
    for name in [name for name in os.environ if name.startswith("TASKDIST_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TASKDIST_SERVER", NOBODY)
    monkeypatch.setenv("COLUMNS", "200")
    # What would not come to an end by itself: their lines are read, and that is all.
    monkeypatch.setattr(interpreter, "run", lambda work, event_loop: work.close())
    monkeypatch.setattr(logs, "configure", lambda level: None)
    monkeypatch.setattr(acts, "perform", shown)
    monkeypatch.setattr(reloading, "run", reloaded)
    with monkeypatch.context() as patch:
        yield Typed(patch)


async def shown(speed: float) -> bool:
    """A demonstration that went well."""
    return speed > 0


async def reloaded(arguments: list[str]) -> int:
    """An agent that was begun anew until it ended well."""
    assert "--reload" not in arguments
    return exits.OK


@settings(
    max_examples=examples(120),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(line=lines())
def test_any_line(typed: Typed, line: list[str]) -> None:
    """… to a distributor that nobody can reach: at the farthest it comes to 8."""
    code, said, out = typed.run(line)
    assert code in CODES, (line, code, said)
    assert "Traceback" not in said
    assert len(said.splitlines()) <= (code != 0), said
    if b"Usage:" not in out:  # Which is what a group by itself says.
        assert bool(said) == (code != 0), (line, code)
