"""The official client: google's own code for the contract, made for the test and thrown away.

Google's generator wants to own the package name `taskdist`, which is ours: hence `interop.` before
it. Only the Python modules are named so; on the wire it is `taskdist.v1` as ever.
"""

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

ROOT = Path(__file__).parents[2]


class Generated(NamedTuple):
    """What protoc made of the contract."""

    pb2: ModuleType
    """The messages."""
    pb2_grpc: ModuleType
    """The stub."""


def generate(out: Path) -> Generated:
    """Generates into this directory, and imports from there. Once per process: names are global."""
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"-Iinterop={ROOT / 'proto'}"]
    outs = [f"--python_out={out}", f"--grpc_python_out={out}"]
    proto = "interop/taskdist/v1/taskdist.proto"
    subprocess.run([*protoc, *outs, proto], check=True, timeout=60)
    sys.path.insert(0, str(out))
    try:
        module = "interop.taskdist.v1.taskdist_pb2"
        return Generated(import_module(module), import_module(module + "_grpc"))
    finally:
        sys.path.remove(str(out))


class Noted:
    """A stub that notes which methods have been called."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub
        self.called: set[str] = set()

    def __getattr__(self, method: str) -> Any:
        self.called.add(method)
        return getattr(self._stub, method)


class Refusal(NamedTuple):
    """What the official client sees of an error."""

    code: grpc.StatusCode
    text: str
    details: list[Any]
    """Unpacked: BadRequest, RetryInfo."""

    @property
    def fields(self) -> set[str]:
        """The fields that a BadRequest names."""
        return {bad.field for detail in self.details for bad in detail.field_violations}


def refusal(call: Callable[[], object]) -> Refusal:
    """The error that this call ends with; there has to be one."""
    try:
        answer = call()
    except grpc.RpcError as error:
        call_ended: Any = error  # what is raised is the call, too
        status = rpc_status.from_call(call_ended)
        details = [] if status is None else [_unpacked(packed) for packed in status.details]
        return Refusal(call_ended.code(), call_ended.details() or "", details)
    raise AssertionError(f"not refused: {answer}")


def _unpacked(packed: Any) -> Any:
    detail = getattr(error_details_pb2, packed.TypeName().rpartition(".")[2])()
    assert packed.Unpack(detail)
    return detail
