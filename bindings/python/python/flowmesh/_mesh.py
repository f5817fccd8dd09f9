"""The synchronous mesh: what is said once about defaults, decorators and lifetimes, over the native class."""

from __future__ import annotations

import atexit
import os
from _weakrefset import WeakSet

from . import _native
from ._errors import NotFoundError
from ._handles import Service, Subscription, check, join_all
from ._worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self, TypeVar, Unpack

    from .types import BreakerOption, OnSlow, QueueConfig, ServiceInfo, Stats, WaitStrategy

    T = TypeVar("T")

    EventHandler = TypeVar("EventHandler", bound=Callable[[_native.Message], object])
    RequestHandler = TypeVar("RequestHandler", bound=Callable[[_native.Request], object])
    JobHandler = TypeVar("JobHandler", bound=Callable[[_native.Job], object])


def open(
    directory: str | os.PathLike[str],
    *,
    name: str | None = None,
    max_message_bytes: int | None = None,
    ring_bytes: int | None = None,
    max_sessions: int | None = None,
    wait: WaitStrategy | None = None,
    breaker: BreakerOption = True,
    repair: bool = False,
) -> Mesh:
    """Opens `directory` as its host; makes it, for this user only, if it is not there.

    `name` is shown in discovery and errors (default: the program's name), `max_message_bytes` bounds a payload (64 MiB),
    `ring_bytes` is the shared memory in each direction of a session (1 MiB, a power of two), `max_sessions` the clients
    at once (1024). `wait` says how waiting threads wait: "adaptive" spins for at most 5 µs, then sleeps; "block" sleeps
    at once; "spin" never sleeps; a number looks every so many seconds. `breaker` refuses calls to a failing service for
    a while: False for never, or a `Breaker`. `repair` opens a damaged ledger all the same: what is damaged is moved
    into `quarantine`, never deleted, and what was written after it stays; a queue whose declaration was lost is called
    `recovered-` and a number, with settings as they are by default.

    Raises AlreadyOpenError when another process is the host; its context names the pid. CorruptError when the ledger is
    damaged; its context names file and offset.
    """
    return Mesh(
        "open",
        directory,
        name=name,
        max_message_bytes=max_message_bytes,
        ring_bytes=ring_bytes,
        max_sessions=max_sessions,
        wait=wait,
        breaker=breaker,
        repair=repair,
    )


def connect(
    directory: str | os.PathLike[str],
    *,
    name: str | None = None,
    timeout: float = 5.0,
    shared_memory: bool = True,
    wait: WaitStrategy | None = None,
    breaker: BreakerOption = True,
) -> Mesh:
    """Attaches to the host of `directory`, within `timeout` seconds.

    Without `shared_memory` frames go over the Unix socket. The other options are those of `open`.

    Raises NotFoundError when no host has it open, PermissionDeniedError, ProtocolError, VersionMismatchError.
    """
    return interruptible(
        lambda: Mesh(
            "connect",
            directory,
            name=name,
            connect_timeout=timeout,
            shared_memory=shared_memory,
            wait=wait,
            breaker=breaker,
        )
    )


def connect_tcp(
    address: str,
    secret: bytes | str,
    *,
    name: str | None = None,
    timeout: float = 5.0,
    wait: WaitStrategy | None = None,
    breaker: BreakerOption = True,
) -> Mesh:
    """Attaches to a host that listens on TCP (`Mesh.listen_tcp`). What travels is authenticated, not encrypted.

    Raises UnauthenticatedError when the secrets differ, else what `connect` raises.
    """
    return interruptible(
        lambda: Mesh("connect_tcp", address, secret, name=name, connect_timeout=timeout, wait=wait, breaker=breaker)
    )


def interruptible(ask: Callable[[], T]) -> T:
    """Runs `ask`, which waits for another process, so that Ctrl-C ends the wait.

    The core cannot be interrupted in these short exchanges, so on the main thread, where signals arrive, another thread
    asks. What it opened for nobody any more is closed.
    """
    from threading import Thread, current_thread, main_thread

    if current_thread() is not main_thread():
        return ask()
    results: list[T] = []
    errors: list[BaseException] = []
    given_up = False

    def run() -> None:
        try:
            results.append(ask())
        except BaseException as error:
            errors.append(error)
        if given_up:
            _close_each(results)

    thread = Thread(target=run, name="flowmesh ask", daemon=True)
    thread.start()
    try:
        thread.join()
    except BaseException:
        given_up = True
        _close_each(results)
        raise
    if errors:
        try:
            raise errors[0]
        finally:
            # The traceback leads back here: without this the two would keep each other alive.
            errors.clear()
    return results[0]


def _close_each(results: Sequence[object]) -> None:
    for result in results:
        if isinstance(result, (_native.Mesh, _native.Subscription, _native.Service)):
            result.close()


class Mesh(_native.Mesh):
    """A host or a client of one mesh, with the same operations. A context manager; leaving it closes the mesh.

    Subscriptions, services, queues and workers keep their mesh alive; closing the mesh ends them. Leaving the mesh lets
    workers give back the jobs that they have; after `close` alone their attempts count as failed.
    """

    _pid: int

    _workers: WeakSet[Worker]

    def __init__(self, how: str, target: object, secret: bytes | str | None = None, **options: object) -> None:
        self._pid = os.getpid()
        self._workers = WeakSet()
        _meshes.add(self)

    def subscribe(
        self,
        pattern: str,
        handler: Callable[[_native.Message], object] | None = None,
        *,
        group: str | None = None,
        priority: int = 0,
        capacity: int = 1024,
        on_slow: OnSlow = "drop_oldest",
        block_timeout: float = 1.0,
        retry: _native.Retry | None = None,
    ) -> Subscription:
        """Receives the events whose subject matches `pattern`: `*` is one token, `>` the rest.

        With a `handler`, a thread calls it for each event; one that raises is logged and counts as failed, see `retry`.
        Of all subscriptions with one `group` one gets each event. Of several that match, those with higher `priority`
        are handed it first. At most `capacity` events wait; then `on_slow` decides: "drop_oldest" (the next message
        tells how many, `Message.gap`), "block" (publishers wait, at most `block_timeout` seconds) or "disconnect".
        """
        if handler is not None:
            check(handler)
        subscription = self._ask(
            lambda: Subscription(self, pattern, group, priority, capacity, on_slow, block_timeout, retry)
        )
        if handler is not None:
            subscription._start(handler)
        return subscription

    def on(
        self,
        pattern: str,
        *,
        group: str | None = None,
        priority: int = 0,
        capacity: int = 1024,
        on_slow: OnSlow = "drop_oldest",
        block_timeout: float = 1.0,
        retry: _native.Retry | None = None,
    ) -> Callable[[EventHandler], EventHandler]:
        """Decorates a handler of events: `subscribe` until the mesh is closed."""

        def decorate(handler: EventHandler) -> EventHandler:
            self.subscribe(
                pattern,
                handler,
                group=group,
                priority=priority,
                capacity=capacity,
                on_slow=on_slow,
                block_timeout=block_timeout,
                retry=retry,
            )
            return handler

        return decorate

    def serve(
        self,
        name: str,
        handler: Callable[[_native.Request], object] | None = None,
        *,
        concurrency: int = 1,
        version: str = "",
        queue: int = 1024,
        rate: float | None = None,
        burst: int | None = None,
    ) -> Service:
        """Serves the calls of `name`.

        With a `handler`, `concurrency` threads call it; what it returns is the answer (a payload, or a `Reply` with
        headers), what it raises fails the call with HandlerFailedError. Without one, take requests with
        `Service.next()`. At most `queue` calls wait for this instance at the host. `rate` allows so many calls a
        second of the service, all instances together, and `burst` at once after a rest (default: a second's worth).
        """
        if handler is not None:
            check(handler)
        service = self._ask(lambda: Service(self, name, concurrency, version, queue, rate, burst))
        if handler is not None:
            service._start(handler, concurrency)
        return service

    def service(
        self,
        name: str,
        *,
        concurrency: int = 1,
        version: str = "",
        queue: int = 1024,
        rate: float | None = None,
        burst: int | None = None,
    ) -> Callable[[RequestHandler], RequestHandler]:
        """Decorates a handler of calls: `serve` until the mesh is closed."""

        def decorate(handler: RequestHandler) -> RequestHandler:
            self.serve(
                name, handler, concurrency=concurrency, version=version, queue=queue, rate=rate, burst=burst
            )
            return handler

        return decorate

    def declare_queue(self, name: str, **config: Unpack[QueueConfig]) -> _native.Queue:
        """Makes sure that there is a queue of this name, and gives it. `QueueConfig` lists the settings.

        Raises ConflictError when it is there with other settings: `Queue.configure` changes them.
        """
        return super().declare_queue(name, **config)

    def process(
        self,
        queue: str | _native.Queue,
        handler: Callable[[_native.Job], object],
        *,
        concurrency: int = 1,
        lease: float | None = None,
    ) -> Worker:
        """Works on the jobs of `queue`: `concurrency` threads call `handler` for each, until the worker is stopped.

        What it returns is the job's result, None for no result. What it raises fails the attempt: the job waits for the
        next as its backoff says, or is dead; the traceback is kept with it. It may raise `Reject` or `Snooze`, or settle
        the job itself. Leases last as long as the handler takes, however long each is (`lease` seconds, by default as
        the job or the queue says). When somebody cancels the job `Job.is_cancelled` says so, and the job goes back
        whatever the handler does.
        """
        check(handler)
        worker = Worker(self.queue(queue) if isinstance(queue, str) else queue, handler, concurrency, lease)
        self._workers.add(worker)
        return worker

    def worker(
        self,
        queue: str | _native.Queue,
        *,
        concurrency: int = 1,
        lease: float | None = None,
        declare: bool | QueueConfig = False,
    ) -> Callable[[JobHandler], JobHandler]:
        """Decorates a handler of jobs: `process` until the mesh is closed.

        The queue must be there, unless `declare` is True, or its settings as for `declare_queue`.
        """

        def decorate(handler: JobHandler) -> JobHandler:
            check(handler)
            self.process(declared(self, queue, declare), handler, concurrency=concurrency, lease=lease)
            return handler

        return decorate

    def services(self) -> list[ServiceInfo]:
        """The services there are, with their instances."""
        return self._ask(super().services)

    def stats(self) -> Stats:
        """What the host has counted, at one moment."""
        return self._ask(super().stats)

    def _ask(self, ask: Callable[[], T]) -> T:
        # A host asks nobody.
        return interruptible(ask) if self.session else ask()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        """Closes it; what its workers have they give back first, so that no attempt is lost for it."""
        if not self.closed:
            for worker in list(self._workers):
                worker.close()
        self.close()

    def __repr__(self) -> str:
        where = self.directory or "tcp"
        return f"<Mesh {self.role} of {str(where)!r} session={self.session}{' closed' if self.closed else ''}>"

    def __del__(self) -> None:
        # A forked child inherits handles it can neither use nor should close.
        if not self.closed and getattr(self, "_pid", None) == os.getpid():
            import warnings

            warnings.warn(f"unclosed {self!r}: use `with`, or close()", ResourceWarning, stacklevel=2, source=self)
            self.close()


def declared(
    mesh: _native.Mesh, queue: str | _native.Queue, declare: bool | QueueConfig
) -> str | _native.Queue:
    """The queue of a worker, made if that was asked for."""
    if declare is False or not isinstance(queue, str):
        return queue
    if declare is not True:
        return mesh.declare_queue(queue, **declare)
    try:
        return mesh.queue(queue)
    except NotFoundError:
        return mesh.declare_queue(queue)


_meshes: WeakSet[Mesh] = WeakSet()


def _close_all() -> None:
    """Ends what is open when the interpreter does, so that hosts and callers hear of it at once.

    Handlers that are about to finish do; Python kills a thread that is still at work when it is next to run. Also those
    of meshes that were closed before, for closing waits for none.
    """
    try:
        for mesh in list(_meshes):
            if mesh._pid == os.getpid():
                mesh._leave()
    finally:
        join_all(_EXIT_SECONDS)


_EXIT_SECONDS = 1.0
"""So long a program that ends waits for its handlers to return."""


atexit.register(_close_all)
