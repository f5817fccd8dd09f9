"""Workers: the loops that handlers of jobs run in, on daemon threads that Python makes."""

from __future__ import annotations

import os

from . import _native
from ._errors import FlowMeshError
from ._handles import _Threads, log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from .types import WorkerStats


class Reject(Exception):
    """A handler raises it when no attempt can succeed: the job is dead. `message` and `detail` are kept with it."""

    def __init__(self, message: str = "", detail: str = "") -> None:
        super().__init__(message, detail)
        self.message = str(message)
        self.detail = str(detail)


class Snooze(Exception):
    """A handler raises it to put its job off by `delay` seconds; the attempt does not count."""

    def __init__(self, delay: float) -> None:
        super().__init__(delay)
        self.delay = delay


class Worker:
    """Threads that take jobs of a queue and call a handler for each. A context manager; leaving it stops the worker.

    `Mesh.process` makes it. It goes on when nobody keeps it, until the mesh is closed.
    """

    def __init__(
        self, queue: _native.Queue, handler: Callable[[_native.Job], object], concurrency: int, lease: float | None
    ) -> None:
        self._intake = _native.Intake(queue, concurrency, lease)
        self._queue = queue
        self._pid = os.getpid()
        self._threads = _Threads()
        try:
            self._threads.start(_work, self, handler, f"flowmesh work {queue.name}", concurrency)
        except BaseException:
            self._intake.stop()
            raise

    @property
    def queue(self) -> _native.Queue:
        """The queue that it works on."""
        return self._queue

    @property
    def running(self) -> bool:
        """Whether threads of it are still there."""
        return self._threads.alive()

    def stats(self) -> WorkerStats:
        """What it does and has done."""
        return self._intake.stats()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until its threads have ended: it was stopped, or the mesh was closed or cut off, which is raised unless
        it was closed here.

        False when `timeout` seconds passed first.
        """
        return self._threads.wait(timeout)

    def stop(self, timeout: float | None = None) -> bool:
        """Takes no more jobs, waits at most `timeout` seconds (None: as long as they take) for handlers at work, and then
        gives their jobs back: the attempt does not count, and the handlers see `Job.is_cancelled`. Whether all had
        finished. A handler may call it; it is not waited for.
        """
        return self._stop(timeout, _SETTLE_SECONDS)

    def close(self) -> None:
        """Stops it without waiting for handlers."""
        self._stop(0.0, _CLOSE_SECONDS)

    def _stop(self, timeout: float | None, settle: float) -> bool:
        if self._pid != os.getpid():
            # A forked child has neither its threads nor its jobs.
            return True
        self._intake.stop()
        finished = self._threads.join(timeout)
        if not finished:
            self._intake.give_up()
        self._intake.settle(settle)
        return finished

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Worker of {self._queue.name!r}{'' if self.running else ' ended'}>"


_SETTLE_SECONDS = 30.0
"""What was said of jobs may take that long to reach the disk, or the host."""

_CLOSE_SECONDS = 5.0
"""The same, when nobody wants to wait."""


def _work(threads: _Threads, worker: Worker, handler: Callable[[_native.Job], object]) -> None:
    intake = worker._intake
    done = intake.done
    try:
        for job in intake:
            try:
                done(job, handler(job))
            except BaseException as error:
                tell(intake, job, error)
            # Not kept while the next one is waited for.
            del job
    except FlowMeshError as error:
        threads.end(f"the worker of {worker.queue.name!r}", error)


def tell(intake: _native.Intake, job: _native.Job, error: BaseException) -> None:
    """Says what a handler raised."""
    try:
        if isinstance(error, Reject):
            intake.rejected(job, error.message, error.detail)
        elif isinstance(error, Snooze):
            intake.snoozed(job, error.delay)
        else:
            log("error", f"the handler of {job.queue!r} failed", error)
            intake.failed(job, error)
    except Exception as broken:
        # A delay that is none, a text that cannot be made: the attempt has failed all the same.
        intake.failed(job, f"{type(error).__name__}: {broken}")
