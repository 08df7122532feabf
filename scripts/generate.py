"""Generates messages.py and taskdist.binpb from the protos; see scripts/generate."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = Path(sys.executable).parent / "protoc-gen-python_betterproto"


def generate(out: Path) -> None:
    # The plugin writes a tree of __init__.py, which in the repository would replace ours.
    with tempfile.TemporaryDirectory() as name:
        temp = Path(name)
        tree = temp / "tree"
        tree.mkdir()
        protos = sorted(ROOT.glob("proto/taskdist/v1/*.proto"))
        protoc = subprocess.run(
            [
                *(sys.executable, "-m", "grpc_tools.protoc"),
                f"--plugin=protoc-gen-python_betterproto={PLUGIN}",
                f"--proto_path={ROOT / 'proto'}",
                f"--python_betterproto_out={tree}",
                "--include_imports",
                f"--descriptor_set_out={temp / 'taskdist.binpb'}",
                *protos,
            ],
            cwd=ROOT,
            capture_output=True,  # the plugin narrates on stderr
            text=True,
        )
        if protoc.returncode:
            sys.exit(protoc.stderr)
        module = tree / "taskdist" / "v1" / "__init__.py"
        for path in tree.rglob("*.py"):
            if path != module and path.stat().st_size:
                sys.exit(f"not in package taskdist.v1: {path.parent.relative_to(tree)}")
        out.mkdir(parents=True, exist_ok=True)
        shutil.move(module, out / "messages.py")
        shutil.move(temp / "taskdist.binpb", out / "taskdist.binpb")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "taskdist" / "wire")
