"""Whatever stands in a file, a variable or a flag: settings within their limits, or one line that
names where the bad value came from."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskdist.settings import AgentSettings, DistributorSettings, SettingsError
from taskdist.sources import Sourced, name_of
from tests.support.examples import examples

pytestmark = pytest.mark.proof

PROGRAMS: list[type[Sourced]] = [DistributorSettings, AgentSettings]
NAMES = {cls: [name_of(field) for field in cls.model_fields] for cls in PROGRAMS}

TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["1e999", "nan", "-1", "0", "1", "9" * 400, "1" * 5_000, "1h30m", "5 s", "∞"]),
    st.sampled_from(["true", "a,b", ",", "a" * 65, "memory:", "sqlite:", "sqlite:\0", "[::1]:0"]),
    st.sampled_from(
        ["é.example:1", "x:99999", f"{'a' * 70}.example:1", "\u0661\u0662s", "½", "1_000"]
    ),
)
TOML: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.sampled_from([float("nan"), float("inf"), 1.5, -0.0]),
        TEXTS,
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


def toml(value: Any) -> str:
    """The value as TOML writes it, as far as it can be."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        quoted = "".join(
            one if one.isprintable() and one not in '"\\' else f"\\U{ord(one):08x}" for one in value
        )
        return f'"{quoted}"'
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{toml(key)} = {toml(one)}' for key, one in value.items())}}}"
    return str(value)


def check(
    cls: type[Sourced], flags: dict[str, str], environ: dict[str, str], file: bytes, where: str
) -> None:
    """Loads them: good ones are good a second time, and of bad ones is said which."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "taskdist.toml"
        path.write_bytes(file)
        try:
            loaded = cls.load(flags, environ, path)
        except SettingsError as error:
            said = str(error)
        else:
            assert cls.model_validate(loaded.model_dump()) == loaded
            return
    assert len(said.splitlines()) == 1, said
    assert where in said or "not a TOML file" in said or "no setting" in said, said


@pytest.mark.parametrize("cls", PROGRAMS)
@settings(max_examples=examples(100), deadline=None)
@given(data=st.data())
def test_any_text_in_a_variable_or_a_flag(cls: type[Sourced], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(NAMES[cls]))
    text = data.draw(TEXTS)
    if data.draw(st.booleans()):
        check(cls, {name: text}, {}, b"", f"--{name.replace('_', '-')}")
    else:
        check(cls, {}, {f"TASKDIST_{name.upper()}": text}, b"", f"TASKDIST_{name.upper()}")


@pytest.mark.parametrize("cls", PROGRAMS)
@settings(max_examples=examples(100), deadline=None)
@given(data=st.data())
def test_any_value_in_a_file(cls: type[Sourced], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(NAMES[cls]))
    line = f"{name} = {toml(data.draw(TOML))}\n"
    check(cls, {}, {}, line.encode("utf-8", "surrogatepass"), f"{name} in ")


@settings(max_examples=examples(60), deadline=None)
@given(file=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8")))
def test_any_file(file: bytes) -> None:
    check(DistributorSettings, {}, {}, file, "in ")
