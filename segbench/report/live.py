"""Keeps ``report.html`` up to date while a sweep runs, seldom enough not to matter."""

import logging
import threading
import time
from collections.abc import Callable

from segbench.core.paths import STAGES, SweepPaths

_log = logging.getLogger(__name__)


class LiveReport:
    """Rewrites the report in a thread when the ledgers have grown; a context manager.

    Args:
        paths: the sweep's folder.
        warn: told once when the report cannot be written; the sweep goes on.
        interval_s: least pause between two versions; twenty times what the last one took, if that is more.
    """

    def __init__(self, paths: SweepPaths, warn: Callable[[str], None] = _log.warning, interval_s: float = 60.0) -> None:
        self._paths = paths
        self._warn = warn
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="segbench-report", daemon=True)
        self._failed = False

    def __enter__(self) -> "LiveReport":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self._stop.set()
        if kind is None or not issubclass(kind, KeyboardInterrupt):
            self._thread.join()
            self._write()

    def _run(self) -> None:
        seen, pause = self._size(), self._interval_s
        while not self._stop.wait(pause):
            size = self._size()
            if size != seen:
                seen, started = size, time.monotonic()
                self._write()
                pause = max(self._interval_s, 20 * (time.monotonic() - started))

    def _write(self) -> None:
        try:
            from segbench.report.build import write_report  # seconds of imports, which no sweep should wait for

            write_report(self._paths)
        except Exception as error:
            if not self._failed:
                self._warn(f"the report was not written ({error}); later: segbench report {self._paths.root}")
            self._failed = True

    def _size(self) -> int:
        files = (self._paths.ledger(stage) for stage in STAGES)
        return sum(file.stat().st_size for file in files if file.exists())
