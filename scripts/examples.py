"""Runs an example as its README says, in a folder that is thrown away, and looks at what came out.

A distributor on a free port of the loopback and an agent are started, `submit.py` writes what came
back, `check.py` looks at it. Both processes are stopped by SIGTERM, and must end well.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]

LIMIT_S = 100
"""How long a step may take: far more than it does on a busy machine."""

LOOK_AGAIN_S = 0.05


class Failed(Exception):
    """A step did not go as it should."""


def main(name: str) -> int:
    """Runs the example; the exit code."""
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="taskdist-example-") as folder:
            seen = run(ROOT / "examples" / name, Path(folder))
    except Failed as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    print(f"{name}: {seen} ({time.monotonic() - began:.0f} s)", flush=True)
    return 0


def run(example: Path, folder: Path) -> str:
    """What its check saw.

    Raises:
        Failed: a step did.
    """
    out = folder / "out"
    out.mkdir()
    environ = {name: value for name, value in os.environ.items() if "TASKDIST" not in name}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # What it imports is compiled once.
    environ["HOME"] = str(folder)
    store = f"sqlite:{folder / 'tasks.db'}"
    serve = ["serve", "--listen", "127.0.0.1:0", "--store", store]
    with running(serve, folder, environ, folder / "serve.log") as distributor:
        environ["TASKDIST_SERVER"] = address(distributor, folder / "serve.log")
        agent = ["agent", "example", "--handlers", "tasks:tasks"]
        with running(agent, example, environ, folder / "agent.log"):
            try:
                script(example, "submit.py", out, environ)
            except Failed as error:
                raise Failed(f"{error}\n{(folder / 'agent.log').read_text()}") from None
    return script(example, "check.py", out, environ).strip()


@contextmanager
def running(
    arguments: Sequence[str], folder: Path, environ: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """`taskdist …` in this folder, beside the block.

    Raises:
        Failed: it did not end well.
    """
    with log.open("wb") as file:
        command = [sys.executable, "-m", "taskdist", *arguments]
        process = subprocess.Popen(command, cwd=folder, env=environ, stderr=file)
    try:
        yield process
        process.terminate()
        code = process.wait(LIMIT_S)
    finally:
        process.kill()
        process.wait()
    if code:
        raise Failed(f"taskdist {arguments[0]} ended with {code}\n{log.read_text()}")


def address(distributor: subprocess.Popen[bytes], log: Path) -> str:
    """Where it listens, as soon as it does.

    Raises:
        Failed: it does not.
    """
    end = time.monotonic() + LIMIT_S
    while distributor.poll() is None and time.monotonic() < end:
        # The last line may be half written.
        for line in log.read_text().split("\n")[:-1]:
            told = json.loads(line)
            if told["event"] == "serving":
                return str(told["address"])
        time.sleep(LOOK_AGAIN_S)
    raise Failed(f"the distributor does not listen\n{log.read_text()}")


def script(example: Path, name: str, out: Path, environ: Mapping[str, str]) -> str:
    """What a script of the example says.

    Raises:
        Failed: it fails, or takes too long.
    """
    command = [sys.executable, name, str(out)]
    try:
        ended = subprocess.run(
            command, cwd=example, env=environ, capture_output=True, text=True, timeout=LIMIT_S
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{name} took more than {LIMIT_S} s") from None
    if ended.returncode:
        raise Failed(f"{name} ended with {ended.returncode}\n{ended.stdout}{ended.stderr}")
    return ended.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
