"""Both type checkers infer what handlers take and give, and refuse what does not fit."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RIGHT = Path("tests/typing/handlers.py")
WRONG = Path("tests/typing/wrong_handlers.py")


def mypy() -> Iterator[tuple[str, int]]:
    """Where mypy --strict finds errors: file and line."""
    # With no cache of the project's own run, whose options differ.
    command = ["mypy", "--strict", "--cache-dir=/dev/null", str(RIGHT), str(WRONG)]
    ended = run(*command)
    for file, line in re.findall(r"^(\S+?):(\d+): error", ended, re.MULTILINE):
        yield file, int(line)


def basedpyright() -> Iterator[tuple[str, int]]:
    """Where basedpyright finds errors."""
    found = json.loads(run("basedpyright", "--outputjson", str(RIGHT), str(WRONG)))
    for fault in found["generalDiagnostics"]:
        if fault["severity"] == "error":
            path = Path(fault["file"]).relative_to(ROOT)
            yield str(path), fault["range"]["start"]["line"] + 1


def run(*command: str) -> str:
    """What this tool of the environment says."""
    program = Path(sys.executable).with_name(command[0])
    ended = subprocess.run([program, *command[1:]], cwd=ROOT, capture_output=True, timeout=300)
    return ended.stdout.decode()


@pytest.mark.parametrize("checker", [mypy, basedpyright])
def test_a_type_checker_infers_the_types_of_handlers(checker: object) -> None:
    assert callable(checker)
    found = set(checker())
    lines = (ROOT / WRONG).read_text().splitlines()
    wrong = {(str(WRONG), n) for n, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert found == wrong
