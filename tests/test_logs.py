"""A log line that cannot be written never stops the work that it tells of."""

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
