"""What is generated from the contract is fresh, and the contract keeps to its own style."""

import subprocess
import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

ROOT = Path(__file__).parents[2]
WIRE = ROOT / "taskdist" / "wire"

MISSION = {
    "SubmitTaskRequest": ["user_tier", "est_processing_time", "data"],
    "SubmitTaskResponse": ["task_id", "status", "queue_position"],
    "FetchTaskRequest": ["agent_id"],
    "FetchTaskResponse": ["has_task", "task_id", "user_tier", "est_processing_time", "data"],
    "CompleteTaskRequest": ["task_id", "agent_id", "success", "result"],
    "CompleteTaskResponse": ["acknowledged", "message"],
    "PingRequest": ["message"],
    "PingResponse": ["message", "timestamp"],
}
"""The fields that came first; others only add to them."""


def contract() -> FileDescriptorProto:
    files = FileDescriptorSet.FromString((WIRE / "taskdist.binpb").read_bytes()).file
    (file,) = [file for file in files if file.package == "taskdist.v1"]
    return file


def test_the_generated_files_are_fresh(tmp_path: Path) -> None:
    """Otherwise: run scripts/generate, and commit what it writes."""
    subprocess.run(
        [sys.executable, ROOT / "scripts" / "generate.py", tmp_path], check=True, timeout=60
    )
    assert {path.name for path in tmp_path.iterdir()} == {"messages.py", "taskdist.binpb"}
    for fresh in tmp_path.iterdir():
        assert fresh.read_bytes() == (WIRE / fresh.name).read_bytes(), fresh.name


def test_messages_are_named_for_their_rpc() -> None:
    methods = [method for service in contract().service for method in service.method]
    for method in methods:
        assert method.input_type == f".taskdist.v1.{method.name}Request"
        assert method.output_type == f".taskdist.v1.{method.name}Response"


def test_the_first_four_rpcs_keep_their_fields() -> None:
    messages = {message.name: message for message in contract().message_type}
    for name, fields in MISSION.items():
        by_number = sorted(messages[name].field, key=lambda field: field.number)
        assert [field.name for field in by_number][: len(fields)] == fields


def test_every_enum_begins_with_an_unspecified_zero() -> None:
    for enum in contract().enum_type:
        assert enum.value[0].number == 0
        assert enum.value[0].name.endswith("_UNSPECIFIED")
