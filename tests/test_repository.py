"""The repository keeps its own rules: layers, words, sizes, documents."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from taskdist.core import lifecycle

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "taskdist"
GENERATED = PACKAGE / "wire" / "messages.py"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != GENERATED)
OURS = [*MODULES, *sorted((ROOT / "tests").rglob("*.py")), *sorted(ROOT.glob("scripts/*.py"))]
OURS += sorted(ROOT.glob("examples/*/*.py"))

LAYERS: dict[str, set[str]] = {
    "sources": set(),
    "limits": {"sources"},
    "settings": {"limits", "sources"},
    "signals": set(),
    "interpreter": {"settings"},
    "logs": set(),
    "core": {"limits", "settings"},
    "wire": {"core", "limits", "settings"},
    "backends": {"core", "limits", "settings"},
    "reports": {"core"},
    "kinds": {"core"},
    "client": {"kinds", "reports", "wire", "core", "limits", "settings"},
    "agent": {"client", "kinds", "reports", "core", "limits", "settings", "signals"},
    "distributor": {"backends", "wire", "core", "limits", "settings", "signals"},
    "testing": {
        "agent",
        "distributor",
        "client",
        "backends",
        "wire",
        "kinds",
        "core",
        "limits",
        "settings",
        "signals",
    },
    "cli": {
        "agent",
        "distributor",
        "client",
        "kinds",
        "reports",
        "core",
        "limits",
        "settings",
        "signals",
        "interpreter",
        "logs",
        "__init__",
    },
    "__main__": {"cli"},
    "__init__": {"agent", "client", "kinds", "core"},
}
"""What each part may import; itself it always may."""

IMPURE = {"asyncio", "io", "logging", "os", "random", "secrets", "socket", "structlog", "threading"}
IMPURE |= {"datetime", "pathlib", "subprocess", "sys", "time", "uuid", "uuid_utils", "apsw"}

WORDS_ANYWHERE = {"job", "worker", "broker", "producer", "ack", "nack", "requeue"}
WORDS_IN_NAMES = {"manager", "helper", "util", "utils", "base", "common", "info"}
LINES_MAX = 400
FUNCTION_LINES_MAX = 66


def part(module: str) -> str:
    """`taskdist.core.task` is of the part `core`."""
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else "__init__"


class Read(NamedTuple):
    """What is looked at of a file. It is read once, for several tests."""

    imports: set[str]
    """The modules that it imports, also inside functions."""
    names: set[str]
    """Every name that it defines, and its own. Those of libraries are not ours to choose."""
    lengths: list[tuple[str, int]]
    """Its functions, and the lines of each."""


@cache
def read(path: Path) -> Read:
    """What there is to look at."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {path.stem, *(name for node in nodes for name in defined(node))}
    imports = {module for node in nodes for module in imported(node, path)}
    return Read(imports, names, [length for node in nodes for length in lengths(node)])


def imported(node: ast.AST, path: Path) -> Iterator[str]:
    """The modules, if it is an import."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{path}: relative import"
        if node.module == "taskdist":
            yield from (f"taskdist.{alias.name}" for alias in node.names)
        else:
            yield node.module or ""


def defined(node: ast.AST) -> Iterator[str]:
    """The name, if it defines one."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield node.attr
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name


def lengths(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Its name and lines, if it is a function. What it says and takes is not counted: a command's
    is its page of help."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        body = node.body[1:] if ast.get_docstring(node) else node.body
        if body:
            yield node.name, (node.end_lineno or 0) - body[0].lineno


def words(name: str) -> set[str]:
    """`LeaseTable` and `lease_table` are both of the words lease and table."""
    return set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_import_points_down(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    seen = {part(module) for module in read(path).imports if module.split(".")[0] == "taskdist"}
    assert seen - {own} <= LAYERS[own]


def test_the_core_is_pure() -> None:
    for path in (PACKAGE / "core").glob("*.py"):
        tops = {module.split(".")[0] for module in read(path).imports}
        assert not tops & IMPURE, path


def test_only_convert_and_the_client_touch_messages() -> None:
    users = {
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if "taskdist.wire.messages" in read(path).imports
        or re.search(r"from taskdist\.wire import .*messages", path.read_text())
    }
    # The service names the messages in its methods' types, and reads or builds none.
    speakers = {"distributor/service.py", "distributor/operations.py", "distributor/work_stream.py"}
    clients = {
        f"client/{name}.py"
        for name in ("agent_verbs", "inspecting", "reading", "saying", "stub", "work")
    }
    converters = {f"wire/{path.name}" for path in (PACKAGE / "wire").glob("convert*.py")}
    assert users == {"wire/codec.py"} | converters | clients | speakers
    for speaker in speakers:
        text = (PACKAGE / speaker).read_text()
        assert "make(" not in text
        assert "fields(" not in text


def test_only_the_codec_and_the_transport_know_private_parts_of_grpclib() -> None:
    for path in (PACKAGE / "distributor").glob("*.py"):
        if path.name != "transport.py":
            assert not re.search(r"stream\._|server\._", path.read_text()), path


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_use_our_words(path: Path) -> None:
    for name in read(path).names:
        assert not words(name) & (WORDS_ANYWHERE | WORDS_IN_NAMES), f"{path}: {name}"


def test_the_contract_and_the_documents_use_our_words() -> None:
    forbidden = re.compile(
        rf"\b({'|'.join(WORDS_ANYWHERE - {'broker', 'ack'})})s?\b", re.IGNORECASE
    )
    for path in (ROOT / "proto/taskdist/v1/taskdist.proto", ROOT / "README.md"):
        assert not forbidden.findall(path.read_text()), path


@pytest.mark.parametrize("path", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_have_one_subject(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LINES_MAX
    for name, length in read(path).lengths:
        assert length < FUNCTION_LINES_MAX, name


def test_the_state_diagram_is_the_table() -> None:
    assert lifecycle.diagram() in (ROOT / "ARCHITECTURE.md").read_text()


def test_the_architecture_names_what_exists() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for file, function in re.findall(r"`((?:\w+/)*\w+\.py):([\w.]+)`", text):
        places = [path for path in MODULES if str(path).endswith("/" + file)]
        assert places, file
        name = function.split(".")[-1]
        assert any(name in read(path).names for path in places), f"{file}: {function}"


def test_links_in_the_documents_lead_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/*.md")]
    for document in documents:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_lock_files_name_no_registry() -> None:
    for path in (*ROOT.glob("requirements/*.txt"), *ROOT.glob("examples/*/requirements.txt")):
        text = path.read_text()
        assert "--hash=sha256:" in text
        assert not re.search(r"https?://|--index|file:/", text), path
