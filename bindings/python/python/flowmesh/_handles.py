"""Subscriptions and services with handlers: the loops that handlers run in, on daemon threads that Python makes."""

from __future__ import annotations

import os
from _thread import get_ident
from time import monotonic

from . import _native
from ._errors import ClosedError, FlowMeshError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Condition, Thread
    from typing import Final


class _Threads:
    """The threads of one handle's handler, and the error that ended them."""

    __slots__ = ("_changed", "_error", "_live", "_pid")

    def __init__(self) -> None:
        self._live: dict[object, int | None] = {}
        self._changed: Condition | None = None
        self._pid = os.getpid()
        self._error: FlowMeshError | None = None

    def start(self, run: Callable[..., None], handle: object, handler: object, name: str, count: int) -> None:
        from threading import Condition, Thread

        # Not `Thread.join`, which takes a thread for ended once Ctrl-C has interrupted it (Python 3.11 and 3.12).
        self._changed = changed = Condition()

        def runs(token: object) -> None:
            self._live[token] = get_ident()
            try:
                run(self, handle, handler)
            finally:
                with changed:
                    del self._live[token]
                    changed.notify_all()

        for _ in range(count):
            token = object()
            self._live[token] = None
            thread = Thread(target=runs, args=(token,), name=name, daemon=True)
            try:
                thread.start()
            except BaseException:
                del self._live[token]
                raise
            ended = [each for each in list(_started) if not each.is_alive()]
            _started.difference_update(ended)
            _started.add(thread)

    def end(self, what: str, error: FlowMeshError) -> None:
        """Notes why a loop ended; it is said in the log too, for nobody may be asking."""
        if not isinstance(error, ClosedError):
            if self._error is None:
                log("error", f"{what} has ended", error)
            self._error = error

    def wait(self, timeout: float | None) -> bool:
        if not self.join(timeout):
            return False
        if self._error is not None:
            raise self._error
        return True

    def join(self, timeout: float | None) -> bool:
        """Whether all have ended in time, but for the one that asks."""
        # A forked child has none of the threads.
        if self._changed is None or self._pid != os.getpid():
            return True
        here = get_ident()
        with self._changed:
            return self._changed.wait_for(lambda: all(ident == here for ident in self._live.values()), timeout)

    def alive(self) -> bool:
        return bool(self._live) and self._pid == os.getpid()


_started: set[Thread] = set()
"""The threads of all handles, and such as have ended since the last was started."""


def join_all(seconds: float) -> None:
    """Waits until all of them have ended, to their last instruction, but at most so long: a handler need not return."""
    until = monotonic() + seconds
    for thread in list(_started):
        if thread.ident != get_ident():
            thread.join(max(0.0, until - monotonic()))


class Subscription(_native.Subscription):
    """Receives the events that match a pattern. A context manager and an iterator; dropping it unsubscribes.

    `Mesh.subscribe` makes it.
    """

    __slots__ = ("_threads",)
    _threads: Final[_Threads]

    def __init__(self, mesh: _native.Mesh, pattern: str, *options: object) -> None:
        self._threads = _Threads()

    def _start(self, handler: Callable[[_native.Message], object]) -> None:
        self._threads.start(_handle_events, self, handler, f"flowmesh on {self.pattern}", 1)

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the handler's thread has ended: it was closed, or cut off, which is raised.

        False when `timeout` seconds passed first.
        """
        return self._threads.wait(timeout)


def _handle_events(
    threads: _Threads, subscription: Subscription, handler: Callable[[_native.Message], object]
) -> None:
    try:
        for message in subscription:
            try:
                handler(message)
            except BaseException as error:
                log("error", f"the handler of {subscription.pattern!r} failed", error)
                subscription.fail(message, error)
            # Not kept while the next one is waited for.
            del message
    except FlowMeshError as error:
        threads.end(f"the subscription to {subscription.pattern!r}", error)


class Service(_native.Service):
    """One instance of a service. A context manager; without a handler, an iterator over requests.

    `Mesh.serve` makes it.
    """

    __slots__ = ("_threads",)
    _threads: Final[_Threads]

    def __init__(self, mesh: _native.Mesh, name: str, *options: object) -> None:
        self._threads = _Threads()

    def _start(self, handler: Callable[[_native.Request], object], concurrency: int) -> None:
        self._threads.start(_handle_requests, self, handler, f"flowmesh serve {self.name}", concurrency)

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until the handler's threads have ended: it was closed, or cut off, which is raised.

        False when `timeout` seconds passed first.
        """
        return self._threads.wait(timeout)


def _handle_requests(threads: _Threads, service: Service, handler: Callable[[_native.Request], object]) -> None:
    try:
        for request in service:
            try:
                request._answer(handler(request))
            except BaseException as error:
                # Once it is closed nobody can hear the answer, and that is what went wrong.
                if not (service.closed and isinstance(error, ClosedError)):
                    failed(service.name, request, error)
            del request
    except FlowMeshError as error:
        threads.end(f"the service {service.name!r}", error)


def failed(name: str, request: _native.Request, error: BaseException) -> None:
    """Tells the caller, unless it has its answer, and the log, for the traceback stays here."""
    log("error", f"the handler of {name!r} failed", error)
    try:
        request.fail(error)
    except FlowMeshError as unsent:
        if not request.answered:
            log("warning", f"the failure of {name!r} did not reach its caller", unsent)


def log(level: str, text: str, error: BaseException) -> None:
    """Writes to the logger `flowmesh`. Imported when it is needed: most programs never fail."""
    from logging import getLogger

    getattr(getLogger("flowmesh"), level)("%s", text, exc_info=error)


def check(handler: object) -> None:
    """Refuses what cannot be a handler on a thread. A coroutine function would never run."""
    if not callable(handler):
        raise TypeError(f"handler must be callable, not {type(handler).__qualname__}")
    code = getattr(handler, "__code__", None)
    if getattr(code, "co_flags", 0) & _CO_COROUTINE:
        raise TypeError("handler is a coroutine function: use flowmesh.aio for those")


_CO_COROUTINE = 0x80
