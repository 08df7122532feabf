"""Writes docs/settings.md: every setting with its default, what is allowed, and the reason."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic.fields import FieldInfo

from taskdist.limits import GIB, KIB, MIB, SECOND_US
from taskdist.settings import AgentSettings, DistributorSettings
from taskdist.sources import Sourced, name_of

ROOT = Path(__file__).resolve().parent.parent

HEAD = (
    "# Settings\n\n"
    "What `taskdist serve` and `taskdist agent` can be told. `lease` is `TASKDIST_LEASE=1m` in the"
    ' environment, `lease = "1m"` in the TOML file of `--config`, and `--lease 1m` where `--help`'
    " names such a flag; a flag wins over the environment, which wins over the file. One file may"
    " serve all commands. Durations are `90s`, `15m`, `2h`, or bare seconds; lists are separated by"
    " commas.\n\n"
    "`scripts/generate` writes this page from `taskdist/settings.py`.\n"
)

TABLE = "| setting | default | allowed | what it is |\n|---|---|---|---|\n"

SECTIONS: Mapping[str, type[Sourced]] = {
    "taskdist serve": DistributorSettings,
    "taskdist agent": AgentSettings,
}

UNITS_US = {"d": 86_400 * SECOND_US, "h": 3_600 * SECOND_US, "m": 60 * SECOND_US, "s": SECOND_US}
UNITS_BYTES = {"GiB": GIB, "MiB": MIB, "KiB": KIB}


def page() -> str:
    """All of it."""
    reasons = dict(_reasons())
    parts = [HEAD]
    for title, settings in SECTIONS.items():
        parts.append(f"\n## {title}\n\n{TABLE}")
        for owner, field, about in _fields(settings):
            reason = reasons[owner.__name__, field]
            default = _shown(field, about.default)
            cells = (f"`{name_of(field)}`", f"`{default}`", _allowed(field, about), reason)
            parts.append(f"| {' | '.join(cells)} |\n")
    return "".join(parts)


def _fields(settings: type[Sourced]) -> list[tuple[type[Sourced], str, FieldInfo]]:
    """Each setting and the class that it stands in: what all have first, then its own."""
    owners = [one for one in settings.__mro__ if issubclass(one, Sourced)]
    owners = [owners[-1], *owners[:-1]]
    all_fields = settings.model_fields
    return [
        (owner, field, all_fields[field])
        for owner in owners
        for field in all_fields
        if field in owner.__annotations__
    ]


def _reasons() -> Iterator[tuple[tuple[str, str], str]]:
    """What stands below each field of each class of settings."""
    for path in ("taskdist/settings.py", "taskdist/sources.py"):
        for node in ast.parse((ROOT / path).read_text()).body:
            if not isinstance(node, ast.ClassDef):
                continue
            for field, below in zip(node.body, node.body[1:], strict=False):
                match field, below:
                    case (
                        ast.AnnAssign(target=ast.Name(id=name)),
                        ast.Expr(value=ast.Constant(value=str(text))),
                    ):
                        yield (node.name, name), " ".join(text.split())


def _shown(field: str, value: object) -> str:
    """As a user would write it."""
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, int):
        return str(value)
    if field.endswith("_us"):
        return _in_largest(value, UNITS_US, "") or f"{value / SECOND_US:g}s"
    if "bytes" in field:
        words = _in_largest(value, UNITS_BYTES, " ")
        return f"{value} ({words})" if words else str(value)
    return str(value)


def _in_largest(value: int, units: Mapping[str, int], space: str) -> str:
    """In the largest unit of which it is a whole number; empty if there is none."""
    for unit, size in units.items():
        if value and value % size == 0:
            return f"{value // size}{space}{unit}"
    return ""


def _allowed(field: str, about: FieldInfo) -> str:
    words = {"ge": "at least", "gt": "more than", "le": "at most"}
    limits = [
        f"{text} `{_shown(field, getattr(limit, bound))}`"
        for limit in about.metadata
        for bound, text in words.items()
        if hasattr(limit, bound)
    ]
    choices = getattr(about.annotation, "__args__", ())
    if choices and all(isinstance(choice, str) for choice in choices):
        return ", ".join(f"`{choice}`" for choice in choices)
    return ", ".join(limits)


if __name__ == "__main__":
    (ROOT / "docs" / "settings.md").write_text(page(), encoding="utf-8")
