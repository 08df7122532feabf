"""Runs one program for an agent, and sees to it that nothing of it is left.

A process of its own, started as `python -I -S supervisor.py FD GRACE_S LIMITS PASS_FDS ARGV…`, with
the least of the standard library (json and socket would double its start). FD is a socket to the
agent: `T` on it asks to stop the program (SIGTERM, after the grace SIGKILL), `K` to kill it, and
its end says that the agent is gone, which is the same as `T`. When all is over, how the program
ended goes back as a line: `exit 1`, `signal 9`, `refused REASON`.

On Linux it adopts whatever its program starts, also what left the process group, session and parent
(PR_SET_CHILD_SUBREAPER): all that lives below it belongs to the run. Elsewhere only the process
group is stopped.
"""

import errno
import os
import resource
import select
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # the module would cost a fifth of the start
    from collections.abc import Callable, Mapping, Sequence

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

AGAIN_S = 0.02
"""Between two rounds of killing: what is killed may have started something in between."""

KILLING_S = 5.0
"""How long it goes on. What is left then runs as another user, or hangs in the kernel."""

LIMITS = {
    "memory_bytes": resource.RLIMIT_AS,
    "cpu_s": resource.RLIMIT_CPU,
    "open_files": resource.RLIMIT_NOFILE,
    "file_bytes": resource.RLIMIT_FSIZE,
}


def main() -> None:
    _, fd, grace_s, limits, passed, *argv = sys.argv
    control = int(fd)
    os.set_inheritable(control, False)
    pass_fds = [int(one) for one in passed.split(",") if one]
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    program, refused = _start(
        argv, dict(one.split("=") for one in limits.split(",") if one), pass_fds
    )
    if refused:
        _answer(control, f"refused {refused}")
        return
    # They belong to the program; held here too, its readers would wait for us.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for inherited in (0, 1, 2):
        os.dup2(nowhere, inherited)
    for one in pass_fds:
        os.close(one)
    _answer(control, _watch(program, control, woken, asked, float(grace_s)))


def _watch(program: int, control: int, woken: int, asked: "list[int]", grace_s: float) -> str:
    """Waits until nothing of the program lives; how it ended itself."""
    ending = ""
    stopping = False
    kill_at, given_up_at = float("inf"), float("inf")
    hears = [control, woken]
    while True:
        anyone_left = True
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid == program:
                    ending = _ending(status)
        except ChildProcessError:
            anyone_left = False
        if not anyone_left and ending:
            return ending
        now = time.monotonic()
        if ending and not stopping:
            # It is over, and with it what it left behind.
            kill_at = min(kill_at, now)
        if now >= kill_at:
            given_up_at = min(given_up_at, now + KILLING_S)
            if now >= given_up_at and ending:
                return ending
            _signal_all(0 if ending else program, signal.SIGKILL)
            pause_s = AGAIN_S
        else:
            pause_s = kill_at - now
        ready, _, _ = select.select(hears, [], [], min(pause_s, 3_600.0))
        if woken in ready:
            os.read(woken, 4_096)
        said = b""
        if control in ready:
            try:
                said = os.read(control, 16)
            except ConnectionResetError:
                said = b""
            if not said:
                hears = [woken]
                said = b"T"
        if b"K" in said:
            kill_at = min(kill_at, time.monotonic())
            stopping = True
        if (said or asked) and not stopping:
            stopping = True
            kill_at = min(kill_at, time.monotonic() + grace_s)
            group = 0 if ending else program
            _signal_all(group, signal.SIGTERM)
            _signal_all(group, signal.SIGCONT)  # One that stands still would not hear it.


def _start(
    argv: "list[str]", limits: "Mapping[str, str]", pass_fds: "Sequence[int]"
) -> "tuple[int, str]":
    """Starts the program: its process id, and why it could not be started, if it could not."""
    told, tells = os.pipe()  # closed by a successful exec
    program = os.fork()
    if program == 0:
        try:
            os.setsid()
            _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            for name, text in limits.items():
                _, hard = resource.getrlimit(LIMITS[name])
                most = int(text) if hard == resource.RLIM_INFINITY else min(int(text), hard)
                resource.setrlimit(LIMITS[name], (most, most))
            os.execvp(argv[0], argv)
        except Exception as error:  # It is told, whatever it is, and this process ends here.
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            os.write(tells, why.encode(errors="replace")[:1_000])
        finally:
            os._exit(127)
    os.close(tells)
    refused = os.read(told, 1_000).decode()
    os.close(told)
    return program, refused


def _ending(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)}"
    return f"exit {os.WEXITSTATUS(status)}"


def _answer(control: int, ending: str) -> None:
    try:
        os.write(control, ending.encode() + b"\n")
    except OSError as error:  # the agent is gone
        if error.errno not in (errno.EPIPE, errno.ECONNRESET):
            raise


def _signal_all(group: int, number: int) -> None:
    """Signals this process group, unless it is 0, and all that lives below us.

    Once the program is reaped its number may be another's, so the group is signalled only before.
    """
    if group:
        _signal(os.killpg, group, number)
    for pid in _below():
        _signal(os.kill, pid, number)


def _signal(by: "Callable[[int, int], None]", target: int, number: int) -> None:
    try:
        by(target, number)
    except (ProcessLookupError, PermissionError):
        return  # It has ended just now, or is another user's; that one is given up in the end.


def _below() -> "list[int]":
    """All processes below this one; none where there is no /proc."""
    children: dict[int, list[int]] = {}
    try:
        names = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    for name in names:
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                after_the_name = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # It has ended just now.
        children.setdefault(int(after_the_name[1]), []).append(int(name))
    found: list[int] = []
    parents = [os.getpid()]
    while parents:
        below = children.get(parents.pop(), [])
        found += below
        parents += below
    return found


def _prctl(option: int, argument: int) -> None:
    """Linux's; elsewhere nothing."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, argument, 0, 0, 0)


if __name__ == "__main__":
    main()
