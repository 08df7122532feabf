"""`python -m scripts.fuzzing [--seconds N] [TARGET…]`: fuzzes each target in a process of its own.

An input that breaks one is kept in a folder that is named at the end; the exit code is 1 then.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

NAMES = ("codec", "http2", "store", "settings")

SECONDS_MORE = 120
"""What a process may take besides, to start and to end."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="*", help=f"of: {', '.join(NAMES)}; all unless given")
    parser.add_argument("--seconds", type=int, default=60, help="for each")
    parser.add_argument("--inside", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    chosen = arguments.target or list(NAMES)
    if unknown := set(chosen) - set(NAMES):
        parser.error(f"no such target: {', '.join(unknown)}")
    if importlib.util.find_spec("atheris") is None:
        print("atheris has no wheel for this machine; Hypothesis alone has tried its best")
        return 0
    if arguments.inside:
        fuzz(chosen[0], arguments.seconds, arguments.inside)
    folder = Path(tempfile.mkdtemp(prefix="taskdist-fuzz-"))
    broken = [name for name in chosen if not survives(name, arguments.seconds, folder)]
    if not broken:
        shutil.rmtree(folder)
    return 1 if broken else 0


def survives(name: str, seconds: int, folder: Path) -> bool:
    """Fuzzes this target in a process of its own; says how it went."""
    command = [sys.executable, "-m", "scripts.fuzzing", name, f"--seconds={seconds}"]
    ended = subprocess.run(
        [*command, f"--inside={folder}/{name}-"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=seconds + SECONDS_MORE,
        env=os.environ | {"TMPDIR": str(folder)},  # for what it leaves behind
        check=False,
    )
    lines = ended.stdout.splitlines()
    done = next((line for line in reversed(lines) if line.startswith("Done ")), "")
    if ended.returncode == 0 and done:
        print(f"{name}: {done}")
        return True
    print("\n".join(lines[-40:]))
    print(f"{name}: broken; the input is in {folder}")
    return False


def fuzz(name: str, seconds: int, artifacts: str) -> None:
    """Fuzzes this target in this process. Does not return."""
    import atheris

    with atheris.instrument_imports(include=["taskdist", "h2", "hpack", "hyperframe"]):
        from scripts.fuzzing import targets

    targets.quiet()
    limits = [f"-max_total_time={seconds}", f"-max_len={targets.BYTES_MAX}", "-timeout=20"]
    limits += ["-rss_limit_mb=1024", "-verbosity=1", f"-artifact_prefix={artifacts}"]
    atheris.Setup([sys.argv[0], *limits], targets.TARGETS[name]())
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
