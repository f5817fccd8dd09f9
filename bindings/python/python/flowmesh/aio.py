"""FlowMesh for asyncio: the names of `flowmesh`, awaitable, with the same messages.

    import flowmesh.aio

    async with flowmesh.aio.connect("/tmp/mesh") as mesh, mesh.subscribe("orders.*") as orders:
        async for message in orders:
            print(message.value)

`open`, `connect`, `subscribe` and `serve` return what can be awaited or entered with `async with`. Handlers may be
coroutine functions. Cancelling a call cancels it at its service; a handler is cancelled when its caller gives up.
A mesh belongs to the loop it was opened on. Any loop with `add_reader` will do.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import TYPE_CHECKING, TypeVar, overload

import flowmesh

from . import _native
from ._aio_queues import Job, Queue, Worker
from ._errors import ClosedError, TimeoutError
from ._handles import failed, log
from ._loop import (
    IN_A_ROW,
    Opening,
    Reactor,
    Source,
    check_handler,
    deadline_of,
    discard,
    in_thread,
    is_large,
    timed_out,
)
from ._mesh import declared

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Any, Literal, Self, Unpack

    from .types import (
        BreakerOption,
        OnSlow,
        Payload,
        QueueConfig,
        ServiceInfo,
        Stats,
        SubscriptionStats,
        WaitStrategy,
    )

    EventHandler = TypeVar("EventHandler", bound=Callable[[_native.Message], object])
    RequestHandler = TypeVar("RequestHandler", bound=Callable[[_native.Request], object])
    JobHandler = TypeVar("JobHandler", bound=Callable[[Job], object])

__all__ = ["Job", "Mesh", "Opening", "Queue", "Service", "Subscription", "Worker", "connect", "connect_tcp", "open"]

_GRACE = 0.25
"""Seconds that a host may be late with telling that a call's deadline passed."""


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
) -> Opening[Mesh]:
    """Opens `directory` as its host; see `flowmesh.open`."""
    return Opening(
        lambda: _open(
            lambda: flowmesh.open(
                directory,
                name=name,
                max_message_bytes=max_message_bytes,
                ring_bytes=ring_bytes,
                max_sessions=max_sessions,
                wait=wait,
                breaker=breaker,
                repair=repair,
            )
        )
    )


def connect(
    directory: str | os.PathLike[str],
    *,
    name: str | None = None,
    timeout: float = 5.0,
    shared_memory: bool = True,
    wait: WaitStrategy | None = None,
    breaker: BreakerOption = True,
) -> Opening[Mesh]:
    """Attaches to the host of `directory`; see `flowmesh.connect`."""
    return Opening(
        lambda: _open(
            lambda: flowmesh.connect(
                directory, name=name, timeout=timeout, shared_memory=shared_memory, wait=wait, breaker=breaker
            )
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
) -> Opening[Mesh]:
    """Attaches to a host that listens on TCP; see `flowmesh.connect_tcp`."""
    return Opening(
        lambda: _open(
            lambda: flowmesh.connect_tcp(address, secret, name=name, timeout=timeout, wait=wait, breaker=breaker)
        )
    )


async def _open(make: Callable[[], flowmesh.Mesh]) -> Mesh:
    return Mesh(await in_thread(make))


class Mesh:
    """A host or a client of one mesh; see `flowmesh.Mesh`. `open` and `connect` make it."""

    def __init__(self, mesh: flowmesh.Mesh) -> None:
        self._mesh = mesh
        self._loop = asyncio.get_running_loop()
        self._reactor = Reactor(self._loop)
        self._handling: set[Subscription | Service | Worker] = set()
        self._immediate = 0

    @property
    def role(self) -> Literal["host", "client"]:
        """Host or client."""
        return self._mesh.role

    @property
    def session(self) -> int:
        """The session's number; 0 for the host."""
        return self._mesh.session

    @property
    def directory(self) -> Path | None:
        """The directory it was opened on, or None when connected over TCP."""
        return self._mesh.directory

    @property
    def host_pid(self) -> int:
        """The process id of the host."""
        return self._mesh.host_pid

    @property
    def max_message_bytes(self) -> int:
        """The largest payload."""
        return self._mesh.max_message_bytes

    @property
    def closed(self) -> bool:
        """Whether it was closed, or cut off from its host."""
        return self._mesh.closed

    async def listen_tcp(self, address: str, secret: bytes | str) -> str:
        """Lets clients connect over TCP; returns the address it listens on. Host only."""
        return await in_thread(lambda: self._mesh.listen_tcp(address, secret))

    async def publish(
        self,
        subject: str,
        payload: Payload = b"",
        *,
        headers: Mapping[str, str] | None = None,
        priority: int = 4,
        ttl: float | None = None,
        delay: float | None = None,
        timeout: float | None = 30.0,
    ) -> int:
        """Publishes one event; returns its id. See `flowmesh.Mesh.publish`."""
        publish = functools.partial(
            self._mesh.publish, subject, payload, headers=headers, priority=priority, ttl=ttl, delay=delay
        )
        if not is_large(payload):
            try:
                return publish(timeout=0.0)
            except TimeoutError:
                # No room, and nothing was sent: a thread waits for it.
                if timeout == 0:
                    raise
        return await in_thread(lambda: publish(timeout=timeout))

    @overload
    async def publish_many(
        self,
        events: Iterable[tuple[str, Payload]],
        payloads: None = None,
        *,
        headers: Mapping[str, str] | None = None,
        priority: int = 4,
        ttl: float | None = None,
        delay: float | None = None,
        timeout: float | None = 30.0,
    ) -> None: ...
    @overload
    async def publish_many(
        self,
        events: str,
        payloads: Iterable[Payload],
        *,
        headers: Mapping[str, str] | None = None,
        priority: int = 4,
        ttl: float | None = None,
        delay: float | None = None,
        timeout: float | None = 30.0,
    ) -> None: ...
    async def publish_many(
        self,
        events: Any,
        payloads: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        priority: int = 4,
        ttl: float | None = None,
        delay: float | None = None,
        timeout: float | None = 30.0,
    ) -> None:
        """Publishes many events in one go. See `flowmesh.Mesh.publish_many`."""
        await in_thread(
            lambda: self._mesh.publish_many(
                events, payloads, headers=headers, priority=priority, ttl=ttl, delay=delay, timeout=timeout
            )
        )

    async def call(
        self,
        service: str,
        payload: Payload = b"",
        *,
        timeout: float | None = 30.0,
        headers: Mapping[str, str] | None = None,
    ) -> _native.Message:
        """Calls a service and waits for its answer. Cancelling it cancels the call. See `flowmesh.Mesh.call`."""
        start = functools.partial(self._mesh.start_call, service, payload, timeout=timeout, headers=headers)
        pending = await in_thread(start) if is_large(payload) else start()
        answer = pending._try_take()
        if answer is not None:
            return answer
        deadline = None if timeout is None else self._loop.time() + timeout + _GRACE
        source = Source(self._reactor, pending)
        try:
            while answer is None:
                if not await source.ready(deadline):
                    raise timed_out("mesh.call", timeout)
                answer = pending._try_take()
            return answer
        except (asyncio.CancelledError, TimeoutError):
            pending.cancel()
            raise
        finally:
            source.close()

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
    ) -> Opening[Subscription]:
        """Receives the events that match `pattern`; see `flowmesh.Mesh.subscribe`.

        A `handler` may be a coroutine function; a task calls it for one event after the other.
        """
        check_handler(handler)

        def subscribe() -> _native.Subscription:
            return _native.Subscription(
                self._mesh, pattern, group, priority, capacity, on_slow, block_timeout, retry
            )

        async def make() -> Subscription:
            return Subscription(self, await in_thread(subscribe), handler)

        return Opening(make)

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
        """Decorates a handler of events: `subscribe` until the mesh is closed. Holds when it returns."""

        def decorate(handler: EventHandler) -> EventHandler:
            check_handler(handler)
            handle = _native.Subscription(
                self._mesh, pattern, group, priority, capacity, on_slow, block_timeout, retry
            )
            Subscription(self, handle, handler)
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
    ) -> Opening[Service]:
        """Serves the calls of `name`; see `flowmesh.Mesh.serve`.

        A `handler` may be a coroutine function; at most `concurrency` run at once, each as a task of its own, which is
        cancelled when the caller gives up.
        """
        check_handler(handler)

        def serve() -> _native.Service:
            return _native.Service(self._mesh, name, concurrency, version, queue, rate, burst)

        async def make() -> Service:
            return Service(self, await in_thread(serve), handler)

        return Opening(make)

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
        """Decorates a handler of calls: `serve` until the mesh is closed. Holds when it returns."""

        def decorate(handler: RequestHandler) -> RequestHandler:
            check_handler(handler)
            Service(self, _native.Service(self._mesh, name, concurrency, version, queue, rate, burst), handler)
            return handler

        return decorate

    async def declare_queue(self, name: str, **config: Unpack[QueueConfig]) -> Queue:
        """Makes sure that there is a queue of this name, and gives it. See `flowmesh.Mesh.declare_queue`."""
        return Queue(self, await in_thread(lambda: self._mesh.declare_queue(name, **config)))

    async def queue(self, name: str) -> Queue:
        """The queue of this name."""
        return Queue(self, await in_thread(lambda: self._mesh.queue(name)))

    async def queues(self) -> list[str]:
        """The names of all queues."""
        return await in_thread(self._mesh.queues)

    def process(
        self,
        queue: str | Queue,
        handler: Callable[[Job], object],
        *,
        concurrency: int = 1,
        lease: float | None = None,
    ) -> Opening[Worker]:
        """Works on the jobs of `queue`: calls `handler`, which may be a coroutine function, for each, at most
        `concurrency` at once, each in a task of its own. The task is cancelled when somebody cancels its job. See
        `flowmesh.Mesh.process`.
        """
        check_handler(handler)

        async def make() -> Worker:
            found = await self.queue(queue) if isinstance(queue, str) else queue
            handle = found._handle
            intake = await in_thread(lambda: _native.Intake(handle, concurrency, lease))
            return Worker(self, found, intake, handler, concurrency)

        return Opening(make)

    def worker(
        self,
        queue: str | Queue,
        *,
        concurrency: int = 1,
        lease: float | None = None,
        declare: bool | QueueConfig = False,
    ) -> Callable[[JobHandler], JobHandler]:
        """Decorates a handler of jobs: `process` until the mesh is closed. Holds when it returns.

        The queue must be there, unless `declare` is True, or its settings as for `declare_queue`.
        """

        def decorate(handler: JobHandler) -> JobHandler:
            check_handler(handler)
            found = declared(self._mesh, queue, declare) if isinstance(queue, str) else queue._handle
            handle = self._mesh.queue(found) if isinstance(found, str) else found
            Worker(self, Queue(self, handle), _native.Intake(handle, concurrency, lease), handler, concurrency)
            return handler

        return decorate

    async def services(self) -> list[ServiceInfo]:
        """The services there are, with their instances."""
        return await in_thread(self._mesh.services)

    async def stats(self) -> Stats:
        """What the host has counted, at one moment."""
        return await in_thread(self._mesh.stats)

    async def _answer(self, pending: Any) -> Any:
        """What was asked of the queues. Cancelling it gives up waiting; what was asked may be done all the same."""
        if self._immediate >= IN_A_ROW:
            # Others run now and then, however quickly answers come. Here, where nothing has been taken that would be lost.
            self._immediate = 0
            await asyncio.sleep(0)
        answer = pending._try_take()
        if answer is not None:
            self._immediate += 1
            return answer[0]
        self._immediate = 0
        source = Source(self._reactor, pending)
        try:
            while (answer := pending._try_take()) is None:
                await source.ready(None)
            return answer[0]
        except asyncio.CancelledError:
            pending.cancel()
            raise
        finally:
            source.close()

    async def close(self) -> None:
        """Leaves the mesh. Who waits gets ClosedError. Closing twice is fine."""
        await asyncio.shield(self._loop.run_in_executor(None, self._mesh.close))
        self._reactor.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # What its workers have they give back, so that no attempt is lost for it.
        for handle in list(self._handling):
            if isinstance(handle, Worker):
                await handle.close()
        await self.close()

    def __repr__(self) -> str:
        return f"<aio {self._mesh!r}>"


class Subscription:
    """Receives the events that match a pattern; `async for` iterates over them. `Mesh.subscribe` makes it."""

    def __init__(
        self, mesh: Mesh, handle: _native.Subscription, handler: Callable[[_native.Message], object] | None
    ) -> None:
        self._mesh = mesh
        self._handle = handle
        self._source = Source(mesh._reactor, handle)
        self._task: asyncio.Task[None] | None = None
        if handler is not None:
            self._task = mesh._loop.create_task(self._run(handler), name=f"flowmesh on {handle.pattern}")
            # What handles must live until it ends, whether or not somebody keeps it.
            mesh._handling.add(self)
            self._task.add_done_callback(lambda _: mesh._handling.discard(self))

    @property
    def pattern(self) -> str:
        """What it asks for."""
        return self._handle.pattern

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._handle.closed

    async def receive(self, timeout: float | None = None) -> _native.Message:
        """Takes the next event, waiting for it at most `timeout` seconds (None: for ever)."""
        deadline = deadline_of(self._mesh._loop, timeout, "subscription.receive")
        while True:
            message = self._handle._try_receive()
            if message is not None:
                await self._source.took()
                return message
            if not await self._source.ready(deadline):
                raise timed_out("subscription.receive", timeout)

    async def receive_many(self, max: int = 256, timeout: float | None = None) -> list[_native.Message]:
        """Waits for the first event, then takes those that are there, at most `max`."""
        deadline = deadline_of(self._mesh._loop, timeout, "subscription.receive_many")
        while True:
            messages = self._handle._try_receive_many(max)
            if messages:
                await self._source.took(len(messages))
                return messages
            if not await self._source.ready(deadline):
                raise timed_out("subscription.receive_many", timeout)

    async def fail(self, message: _native.Message, error: BaseException | str) -> None:
        """Says that handling `message` failed: it is delivered again or goes to the dead letters."""
        await in_thread(lambda: self._handle.fail(message, error))

    def stats(self) -> SubscriptionStats:
        """This subscription's own counts."""
        return self._handle.stats()

    async def wait(self) -> None:
        """Waits until its handler has ended, because it was closed or cut off; the latter raises."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def close(self) -> None:
        """Ends it. Who waits for it gets ClosedError. Closing twice is fine."""
        self._handle.close()
        self._source.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _native.Message:
        try:
            return await self.receive()
        except ClosedError:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        self._source.close()

    def __repr__(self) -> str:
        return f"<aio {self._handle!r}>"

    async def _run(self, handler: Callable[[_native.Message], object]) -> None:
        async for message in self:
            try:
                returned = handler(message)
                if inspect.isawaitable(returned):
                    await returned
            except Exception as error:
                log("error", f"the handler of {self.pattern!r} failed", error)
                await self.fail(message, error)


class Service:
    """One instance of a service; `async for` iterates over its requests. `Mesh.serve` makes it."""

    def __init__(
        self, mesh: Mesh, handle: _native.Service, handler: Callable[[_native.Request], object] | None
    ) -> None:
        self._mesh = mesh
        self._handle = handle
        self._source = Source(mesh._reactor, handle)
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        if handler is not None:
            self._task = mesh._loop.create_task(self._run(handler), name=f"flowmesh serve {handle.name}")
            mesh._handling.add(self)
            self._task.add_done_callback(lambda _: mesh._handling.discard(self))

    @property
    def name(self) -> str:
        """Its name."""
        return self._handle.name

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self._handle.closed

    async def next(self, timeout: float | None = None) -> _native.Request:
        """Takes the next request, waiting for it at most `timeout` seconds (None: for ever)."""
        deadline = deadline_of(self._mesh._loop, timeout, "service.next")
        while True:
            request = self._handle._try_next()
            if request is not None:
                await self._source.took()
                return request
            if not await self._source.ready(deadline):
                raise timed_out("service.next", timeout)

    async def wait(self) -> None:
        """Waits until its handler has ended, because it was closed or cut off; the latter raises."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def close(self) -> None:
        """Ends it: no further request comes. Closing twice is fine."""
        self._handle.close()
        self._source.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _native.Request:
        try:
            return await self.next()
        except ClosedError:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __del__(self) -> None:
        self._source.close()

    def __repr__(self) -> str:
        return f"<aio {self._handle!r}>"

    async def _run(self, handler: Callable[[_native.Request], object]) -> None:
        async for request in self:
            task = self._mesh._loop.create_task(self._answer(handler, request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            reactor = self._mesh._reactor
            token = reactor.add(task.cancel)
            task.add_done_callback(functools.partial(discard, reactor, token))
            request._watch_cancel(reactor.ready, token)

    async def _answer(self, handler: Callable[[_native.Request], object], request: _native.Request) -> None:
        try:
            returned = handler(request)
            if inspect.isawaitable(returned):
                returned = await returned
            request._answer(returned)
        except asyncio.CancelledError:
            # The caller gave up, so nobody waits for an answer; or the loop is ending, and the host has to know.
            if not request.cancelled:
                request.fail("the handler was cancelled")
            raise
        except Exception as error:
            failed(self.name, request, error)
