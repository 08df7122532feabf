"""What is wrong in a registry is said at once, with file and line."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel

from taskdist import Context, Limits, Registry
from taskdist.agent.definition import Handler, RegistryError
from taskdist.kinds import Kind

HERE = re.escape(__file__.rpartition("/")[2])


@pytest.fixture(autouse=True)
def feed() -> None:
    """Nothing here is fed."""


class Prompt(BaseModel):
    text: str
    count: int = 1
    parts: list[str] = []


def refused(define: Callable[[Registry], object], says: str) -> None:
    """Defining this is refused, with this place and reason."""
    with pytest.raises(RegistryError, match=rf"{HERE}:\d+: .*{re.escape(says)}") as caught:
        define(Registry())
    assert "\n" not in str(caught.value)


def test_a_handler_is_a_kind_and_still_its_function() -> None:
    tasks = Registry()

    @tasks.handler(timeout="1m", max_retries=2)
    def infer(prompt: Prompt) -> str:
        """Says it again."""
        return prompt.text * prompt.count

    assert isinstance(infer, Kind)
    assert (infer.name, infer.input_type, infer.output_type) == ("infer", Prompt, str)
    assert (infer.timeout_s, infer.max_retries, infer.process) == (60, 2, False)
    assert infer(Prompt(text="ab", count=2)) == "abab"
    assert infer.__doc__ == "Says it again."
    assert tasks.kinds == ["infer"]
    assert tasks["infer"] is infer


def test_a_handler_may_have_another_name_and_need_no_context() -> None:
    tasks = Registry()

    @tasks.handler(name="a.b-c")
    async def first(data: bytes, ctx: Context) -> bytes:
        return data

    @tasks.handler
    async def second(data: bytes) -> None: ...

    assert tasks.kinds == ["a.b-c", "second"]
    assert [first.takes_context, second.takes_context] == [True, False]


def test_a_method_is_a_handler_of_its_object() -> None:
    class Model:
        def __init__(self, word: str) -> None:
            self.word = word

        def say(self, count: int) -> str:
            return self.word * count

    said = Registry().handler(name="say")(Model("a").say)
    assert said.input_type is int
    assert said(3) == "aaa"


def untyped(data) -> bytes:  # type: ignore[no-untyped-def] # which is the point
    return bytes(data)


def unsaid(data: bytes):  # type: ignore[no-untyped-def] # likewise
    return data


def nothing() -> bytes:
    return b""


def three(data: bytes, ctx: Context, more: int) -> bytes:
    return data


def no_context(data: bytes, other: int) -> bytes:
    return data


def context_first(ctx: Context, data: bytes) -> bytes:
    return data


def only_context(ctx: Context) -> bytes:
    return b""


def by_keyword(*, data: bytes) -> bytes:
    return data


def generates(data: bytes) -> Any:
    yield data


def unknown(data: "Nowhere") -> bytes:  # type: ignore[name-defined] # noqa: F821 # likewise
    return b""


def not_json(data: Registry) -> bytes:
    return b""


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (untyped, "handler 'untyped': its parameter data has no type"),
        (unsaid, "handler 'unsaid': what it returns has no type"),
        (nothing, "handler 'nothing' has 0 parameters; allowed: its input, and a Context after it"),
        (three, "handler 'three' has 3 parameters"),
        (no_context, "its parameter other is no Context"),
        (context_first, "its first parameter is its input"),
        (only_context, "its first parameter is its input"),
        (by_keyword, "is not a plain parameter"),
        (generates, "handler 'generates' yields"),
        (unknown, "its annotations cannot be read: name 'Nowhere' is not defined"),
        (not_json, "its types cannot be JSON"),
    ],
)
def test_a_function_that_cannot_be_a_handler(function: Any, says: str) -> None:
    refused(lambda tasks: tasks.handler(function), says)


def usable(data: bytes) -> bytes:
    return data


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "a b"}, "'a b' is not a name"),
        ({"timeout": "soon"}, "timeout: 'soon' is not a duration"),
        ({"timeout": 0}, "timeout is 0; allowed: 1 ms to 10 years"),
        ({"max_retries": -1}, "max_retries is -1; allowed: 0 to 100"),
        ({"max_retries": "3"}, "max_retries is '3'; allowed: 0 to 100"),
    ],
)
def test_bad_options_of_a_handler(options: dict[str, Any], says: str) -> None:
    refused(lambda tasks: tasks.handler(**options)(usable), says)


@pytest.mark.parametrize("what", [Prompt, partial(usable), "usable"])
def test_what_is_no_function_is_named_with_the_place_that_makes_it_one(what: Any) -> None:
    refused(lambda tasks: tasks.handler(what), "is no function; allowed: a function or a method")


def test_a_handler_in_a_process_can_be_found_by_it() -> None:
    def inner(data: bytes) -> bytes:
        return data

    refused(lambda tasks: tasks.handler(process=True)(inner), "at the top of a module")
    assert isinstance(Registry().handler(process=True)(usable), Handler)


def test_two_with_one_name() -> None:
    """Both places are named."""

    def twice(tasks: Registry) -> None:
        tasks.handler(usable)
        tasks.command("usable", ["true"], input=Prompt)

    refused(twice, f"the kind 'usable' is already at {Registry().handler(usable).place}")


@pytest.mark.parametrize(
    ("argv", "options", "says"),
    [
        ("cp {text}", {}, "argv is a list of texts"),
        ([], {}, "argv is a list of texts"),
        (["{text}"], {}, "the program, argv[0], is a text without fields"),
        (["cp", "{txt}"], {}, "'{txt}' names no field of Prompt, which has text, count, parts"),
        (["cp", "{text.x}"], {}, "'{text.x}' names no field"),
        (["cp", "{text!r}"], {}, "'{text!r}' names no field"),
        (["cp", "{count:>10}"], {}, "'{count:>10}' names no field"),
        (["cp", "{}"], {}, "'{}' names no field"),
        (["cp", "{text"], {}, "a brace that is meant is doubled"),
        (["sh", "-c", "cat {text}"], {}, "would be run as code"),
        (["/bin/bash", "-ec", "cat {text}"], {}, "would be run as code"),
        (["cp"], {"retry_on": {0}}, "retry_on: 0; allowed: 1 to 255"),
        (["cp"], {"retry_on": 75}, "retry_on is 75; allowed: a set of exit codes, {75}"),
        (["cp"], {"dead_on": {"75"}}, "dead_on: '75'; allowed: 1 to 255"),
        (["cp"], {"retry_on": {1}, "dead_on": {1}}, "[1] is both in retry_on and in dead_on"),
        (["cp"], {"env": "PATH"}, "env is a list of names"),
        (["cp"], {"env": ["TASKDIST_TASK_ID"]}, "allowed: names of variables, not TASKDIST_"),
        (["cp"], {"output_bytes_max": 2**20 + 1}, "output_bytes_max is 1048577; at most 1048576"),
        (["cp"], {"limits": Limits(cpu_s=0)}, "limits: cpu_s is 0"),
        (["cp"], {"input": dict}, "allowed: a pydantic model"),
        (["cp"], {"timeout": "soon"}, "timeout: 'soon' is not a duration"),
    ],
)
def test_a_command_that_cannot_be(argv: Any, options: dict[str, Any], says: str) -> None:
    refused(lambda tasks: tasks.command("copy", argv, **{"input": Prompt, **options}), says)


def test_braces_that_are_meant_are_doubled() -> None:
    copy = Registry().command("copy", ["awk", "{{print}}", "{text}"], input=Prompt)
    assert copy.name == "copy"
    assert copy.output_type is bytes
