"""A log line that cannot be written never stops the work that it tells of, and a start is short."""

import subprocess
import sys

CODE = """
import os, structlog
from taskdist import logs
logs.configure()
os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
structlog.get_logger().info("lost")
print("went on")
"""


def test_p6_a_full_disk_under_the_log_stops_nothing() -> None:
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60)
    assert ran.stdout == "went on\n"


WITHOUT_RICH = """
import sys
from taskdist import logs
assert not [name for name in sys.modules if name.split(".")[0] == "rich"]
logs.configure()
logs.structlog.get_logger().info("said")
from rich.console import Console
Console().print("[bold]there[/]")
"""


def test_rich_is_left_to_those_who_need_it() -> None:
    """It would make each start longer; whoever imports it later has all of it."""
    command = [sys.executable, "-c", WITHOUT_RICH]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.stdout == "there\n", ran.stderr
    assert '"said"' in ran.stderr
