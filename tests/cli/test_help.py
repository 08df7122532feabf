"""Help, version, and what is said to somebody who mistypes."""

import pytest
from typer.main import get_group

from taskdist import __version__
from taskdist.cli import app
from tests.cli.conftest import CommandLine

COMMANDS = get_group(app).commands
VERBS = sorted(COMMANDS)
IN_GROUPS = {
    f"{name} {verb}": command
    for name, group in COMMANDS.items()
    for verb, command in getattr(group, "commands", {}).items()
}
ALL = {**COMMANDS, **IN_GROUPS}


@pytest.mark.parametrize("verb", sorted(ALL))
def test_the_help_of_a_verb_explains_every_option(verb: str, taskdist: CommandLine) -> None:
    ended = taskdist(*verb.split(), "--help")
    text = ended.out.decode()
    assert (ended.code, ended.err) == (0, "")
    for parameter in ALL[verb].params:
        for option in parameter.opts:
            assert option in text or not option.startswith("-")
        assert getattr(parameter, "help", None), f"{parameter.name} is not explained"
    if verb != "demo":  # which is its own example
        assert f"taskdist {verb}" in text.partition("Example")[2]


def test_the_help_of_all_names_every_verb(taskdist: CommandLine) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        text = taskdist(*arguments).out.decode()
        assert all(verb in text for verb in VERBS)


def test_a_group_by_itself_names_its_verbs(taskdist: CommandLine) -> None:
    groups = {"dead": ("list", "show", "redrive", "purge"), "store": ("check", "backup")}
    assert IN_GROUPS.keys() == {f"{group} {verb}" for group in groups for verb in groups[group]}
    for group, verbs in groups.items():
        for arguments in ([group], [group, "-h"]):
            text = taskdist(*arguments).out.decode()
            assert all(verb in text for verb in verbs)


def test_it_says_its_version(taskdist: CommandLine) -> None:
    assert taskdist("--version").out.decode() == f"taskdist {__version__}\n"


def test_a_shell_can_complete_verbs_and_options(
    taskdist: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert b"_TASKDIST_COMPLETE=complete_bash" in taskdist("--show-completion", "bash").out

    def completed(typed: str) -> list[str]:
        monkeypatch.setenv("_TASKDIST_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", typed)
        monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
        return taskdist().out.decode().split()

    assert completed("taskdist su") == ["submit"]
    assert completed("taskdist submit --ti") == ["--tier", "--time", "--timeout"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sumbit"], "Did you mean 'submit'"),
        (["submit", "--teir", "paid"], "--teir"),
        (["submit", "--max-retries", "many"], "--max-retries"),
        (["list", "--limit", "0"], "--limit"),
        (["show"], "Missing argument"),
        (["agent", "--slots", "0"], "--slots: allowed: at least 1"),
        (["agent", "--handlers", "\r\x1b[2J"], "--handlers \\r\\x1b[2J: write MODULE:REGISTRY"),
        (["agent", "two words"], "NAME: 'two words' is not a name"),
        (["serve", "--store", "mysql:tasks"], "write sqlite:PATH or memory:"),
        (["list", "--server", "localhost"], "--server: 'localhost' is not HOST:PORT"),
        (["list", "--server", "http://localhost:50051"], "is not HOST:PORT: leave out what"),
        (["dead", "revive"], "No such command 'revive'"),
        (["store", "backup"], "Missing argument 'FILE'"),
        (["store", "check", "nowhere.db"], "nowhere.db cannot be opened: No such file"),
        (["list", "--state", "asleep"], "scheduled, ready, leased, succeeded, dead, cancelled"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_2(
    arguments: list[str], says: str, taskdist: CommandLine
) -> None:
    ended = taskdist(*arguments)
    assert (ended.code, ended.out) == (2, b"")
    assert len(ended.lines) == 1
    assert ended.lines[0].startswith("taskdist: ")
    assert says in ended.lines[0]
