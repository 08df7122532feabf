"""Checks and backups of a store that is in use: one at a time, on a connection and a thread of its
own, so that neither the writer nor other readers wait for it."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import apsw

from taskdist.backends.store_backup import back_up
from taskdist.backends.store_check import StoreCheck
from taskdist.backends.store_file import catch_up, open_reader
from taskdist.core.errors import Exhausted, Unavailable
from taskdist.core.inspecting import BackUpStore, CheckStore
from taskdist.limits import SECOND_US
from taskdist.settings import DistributorSettings

Steps = Generator[Any, None, None]


class Inspections:
    """Those of one store.

    Args:
        path: its file.
        settings: their limits.
        log_bytes: tells how large the write-ahead log is, from any thread.
        failed: is told of an error of the store.
    """

    def __init__(
        self,
        path: Path,
        settings: DistributorSettings,
        log_bytes: Callable[[], int],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._path = path.resolve()
        self._settings = settings
        self._log_bytes = log_bytes
        self._failed = failed
        self._under_way: _Inspection | None = None
        self._over = ""
        """Why there are no more."""

    def stop(self, reason: str) -> None:
        """Ends the one under way at its next look, and lets none begin."""
        self._over = reason
        if self._under_way is not None:
            self._under_way.ends.set()

    async def ended(self) -> None:
        """Returns once none is under way."""
        while self._under_way is not None:
            await self._under_way.over.wait()

    async def run(self, query: CheckStore | BackUpStore) -> AsyncGenerator[Any, None]:
        """What it tells, as it goes on.

        Raises:
            Exhausted: another is under way, the log has grown too large, or it took too long.
            PreconditionFailed: there is no room for the copy.
            Unavailable: the distributor stops, or the store failed.
        """
        name = "check" if isinstance(query, CheckStore) else "backup"
        loop = asyncio.get_running_loop()
        until = loop.time() + self._settings.inspection_us / SECOND_US
        inspection = self._begin(name)
        steps = self._check(inspection) if name == "check" else self._back_up(inspection)
        try:
            while True:
                self._look(inspection)
                if loop.time() > until:
                    raise Exhausted(f"the {name} took longer than inspection_us allows")
                step = await loop.run_in_executor(inspection.thread, next, steps, None)
                if step is None:
                    break
                yield step
        except apsw.Error as error:
            self._failed(error)
            raise Unavailable("the store failed") from error
        finally:
            # Without waiting, since the caller may be cancelled; a step under way ends soon.
            inspection.ends.set()
            closed = inspection.thread.submit(steps.close)
            inspection.thread.shutdown(wait=False)
            closed.add_done_callback(lambda closed: loop.call_soon_threadsafe(self._end, closed))
        # Who has heard all may ask for the next one at once.
        await inspection.over.wait()

    def _begin(self, name: str) -> "_Inspection":
        if self._under_way is not None:
            raise Exhausted(f"a {self._under_way.name} of the store is under way, one at a time")
        self._under_way = _Inspection(name)
        return self._under_way

    def _end(self, closed: "Future[None]") -> None:
        assert self._under_way is not None
        self._under_way.over.set()
        self._under_way = None
        if isinstance(error := closed.exception(), apsw.Error):
            self._failed(error)  # Not for the log, as a traceback: whoever is told says it.
        else:
            closed.result()

    # --- in the inspection's thread ---

    def _look(self, inspection: "_Inspection") -> None:
        """Raises what has to end it."""
        if self._over or inspection.ends.is_set():
            raise Unavailable(self._over or "the call has ended")

    def _look_at_log(self, inspection: "_Inspection") -> None:
        self._look(inspection)
        log_bytes = self._log_bytes()
        if log_bytes > self._settings.snapshot_log_bytes_max:
            raise Exhausted(
                f"{log_bytes} bytes were written during the {inspection.name}, more than "
                "snapshot_log_bytes_max allows; try again when less is written"
            )

    def _check(self, inspection: "_Inspection") -> Steps:
        with closing(open_reader(self._path)) as connection:
            look = partial(self._look_at_log, inspection)
            yield from StoreCheck(connection, look, self._catch_up).steps()

    def _back_up(self, inspection: "_Inspection") -> Steps:
        yield from back_up(
            self._path,
            self._path.parent / self._settings.backup_directory,
            self._settings.backup_free_bytes_min,
            partial(self._look_at_log, inspection),
            self._catch_up,
        )

    def _catch_up(self) -> None:
        catch_up(self._path, self._log_bytes, self._settings.checkpoint_bytes)


class _Inspection:
    """One under way."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self.ends = threading.Event()
        """It is wanted no more."""
        self.over = asyncio.Event()
        """Its connections are closed."""
