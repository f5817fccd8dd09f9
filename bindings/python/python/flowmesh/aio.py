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
from typing import TYPE_CHECKING, Generic, TypeVar, overload

import flowmesh

from . import _native
from ._errors import ClosedError, FlowMeshError, InvalidArgumentError, TimeoutError
from ._handles import failed, log

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Any, Literal, Protocol, Self

    from .types import BreakerOption, OnSlow, Payload, ServiceInfo, Stats, SubscriptionStats, WaitStrategy

    class _Waitable(Protocol):
        def _watch(self, ready: _native.ReadySet, token: int) -> None: ...
        def _unwatch(self) -> None: ...

    EventHandler = TypeVar("EventHandler", bound=Callable[[_native.Message], object])
    RequestHandler = TypeVar("RequestHandler", bound=Callable[[_native.Request], object])

T = TypeVar("T")
Handle = TypeVar("Handle", bound="Mesh | Subscription | Service")

_IN_A_ROW = 64
"""Messages taken without sleeping before the loop gets its turn."""

_LARGE_BYTES = 64 * 1024
"""Payloads from here on may take a while to send, so a thread sends them."""

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
    return Mesh(await _in_thread(make))


async def _in_thread(make: Callable[[], T]) -> T:
    """Runs `make`, which may block. When nobody waits for what it opened any more, that is closed."""
    future = asyncio.get_running_loop().run_in_executor(None, make)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        future.add_done_callback(_close_result)
        raise


def _close_result(future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and future.exception() is None:
        close = getattr(future.result(), "close", None)
        if close is not None:
            close()


class Opening(Generic[Handle]):
    """A handle that is being opened: await it, or enter it with `async with` to have it closed again."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, Handle]]) -> None:
        self._make = make
        self._opened: Handle | None = None

    def __await__(self) -> Generator[Any, None, Handle]:
        return self._make().__await__()

    async def __aenter__(self) -> Handle:
        self._opened = await self._make()
        return self._opened

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._opened is not None:
            await self._opened.close()


class _Reactor:
    """Turns the tokens of handles that became ready into callbacks on the loop: one reader for a whole mesh."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.ready = _native.ReadySet()
        self._callbacks: dict[int, Callable[[], object]] = {}
        self._last_token = 0
        loop.add_reader(self.ready.fileno(), self.turn)

    def add(self, callback: Callable[[], object]) -> int:
        self._last_token += 1
        self._callbacks[self._last_token] = callback
        return self._last_token

    def discard(self, token: int) -> None:
        self._callbacks.pop(token, None)

    def turn(self) -> None:
        for token in self.ready.drain():
            callback = self._callbacks.get(token)
            if callback is not None:
                callback()

    def close(self) -> None:
        self.turn()
        if not self.loop.is_closed():
            self.loop.remove_reader(self.ready.fileno())


class _Source:
    """Wakes the coroutines that wait for one handle."""

    def __init__(self, reactor: _Reactor, handle: _Waitable) -> None:
        self._reactor = reactor
        self._handle = handle
        self._waiters: set[asyncio.Future[bool]] = set()
        self._token = reactor.add(self._wake)
        self._taken = 0
        handle._watch(reactor.ready, self._token)

    def _wake(self) -> None:
        for waiter in self._waiters:
            _resolve(waiter, True)

    async def ready(self, deadline: float | None) -> bool:
        """Waits until there may be something to take; false when the loop's clock reached `deadline` first."""
        self._taken = 0
        loop = self._reactor.loop
        waiter: asyncio.Future[bool] = loop.create_future()
        timer = None if deadline is None else loop.call_at(deadline, _resolve, waiter, False)
        self._waiters.add(waiter)
        try:
            return await waiter
        finally:
            self._waiters.discard(waiter)
            if timer is not None:
                timer.cancel()

    async def took(self, count: int = 1) -> None:
        """Lets others run now and then, however much there is to take."""
        self._taken += count
        if self._taken >= _IN_A_ROW:
            self._taken = 0
            await asyncio.sleep(0)

    def close(self) -> None:
        self._handle._unwatch()
        self._reactor.discard(self._token)
        self._wake()


def _discard(reactor: _Reactor, token: int, _: object) -> None:
    reactor.discard(token)


def _resolve(waiter: asyncio.Future[bool], value: bool) -> None:
    if not waiter.done():
        waiter.set_result(value)


def _deadline(loop: asyncio.AbstractEventLoop, timeout: float | None, operation: str) -> float | None:
    if timeout is None:
        return None
    if not timeout >= 0:
        limit = "seconds, zero or more"
        text = f"{operation}: an argument is not valid (timeout={timeout}, limit={limit})"
        raise _made(InvalidArgumentError(text), operation, {"timeout": str(timeout), "limit": limit})
    return loop.time() + timeout


def _timed_out(operation: str, timeout: float | None) -> FlowMeshError:
    millis = str(round((timeout or 0) * 1000))
    error = TimeoutError(f"{operation}: the deadline passed (timeout_ms={millis})")
    return _made(error, operation, {"timeout_ms": millis})


def _made(error: FlowMeshError, operation: str, context: Mapping[str, str]) -> FlowMeshError:
    error.operation = operation
    error.context = context
    return error


def _check_handler(handler: object) -> None:
    if handler is not None and not callable(handler):
        raise TypeError(f"handler must be callable, not {type(handler).__qualname__}")


def _is_large(payload: object) -> bool:
    return isinstance(payload, (str, bytes, bytearray, memoryview)) and len(payload) >= _LARGE_BYTES


class Mesh:
    """A host or a client of one mesh; see `flowmesh.Mesh`. `open` and `connect` make it."""

    def __init__(self, mesh: flowmesh.Mesh) -> None:
        self._mesh = mesh
        self._loop = asyncio.get_running_loop()
        self._reactor = _Reactor(self._loop)
        self._handling: set[Subscription | Service] = set()

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
        return await _in_thread(lambda: self._mesh.listen_tcp(address, secret))

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
        if not _is_large(payload):
            try:
                return publish(timeout=0.0)
            except TimeoutError:
                # No room, and nothing was sent: a thread waits for it.
                if timeout == 0:
                    raise
        return await _in_thread(lambda: publish(timeout=timeout))

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
        await _in_thread(
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
        pending = await _in_thread(start) if _is_large(payload) else start()
        answer = pending._try_take()
        if answer is not None:
            return answer
        deadline = None if timeout is None else self._loop.time() + timeout + _GRACE
        source = _Source(self._reactor, pending)
        try:
            while answer is None:
                if not await source.ready(deadline):
                    raise _timed_out("mesh.call", timeout)
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
        _check_handler(handler)

        def subscribe() -> _native.Subscription:
            return _native.Subscription(
                self._mesh, pattern, group, priority, capacity, on_slow, block_timeout, retry
            )

        async def make() -> Subscription:
            return Subscription(self, await _in_thread(subscribe), handler)

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
            _check_handler(handler)
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
        _check_handler(handler)

        def serve() -> _native.Service:
            return _native.Service(self._mesh, name, concurrency, version, queue, rate, burst)

        async def make() -> Service:
            return Service(self, await _in_thread(serve), handler)

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
            _check_handler(handler)
            Service(self, _native.Service(self._mesh, name, concurrency, version, queue, rate, burst), handler)
            return handler

        return decorate

    async def services(self) -> list[ServiceInfo]:
        """The services there are, with their instances."""
        return await _in_thread(self._mesh.services)

    async def stats(self) -> Stats:
        """What the host has counted, at one moment."""
        return await _in_thread(self._mesh.stats)

    async def close(self) -> None:
        """Leaves the mesh. Who waits gets ClosedError. Closing twice is fine."""
        await asyncio.shield(self._loop.run_in_executor(None, self._mesh.close))
        self._reactor.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
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
        self._source = _Source(mesh._reactor, handle)
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
        deadline = _deadline(self._mesh._loop, timeout, "subscription.receive")
        while True:
            message = self._handle._try_receive()
            if message is not None:
                await self._source.took()
                return message
            if not await self._source.ready(deadline):
                raise _timed_out("subscription.receive", timeout)

    async def receive_many(self, max: int = 256, timeout: float | None = None) -> list[_native.Message]:
        """Waits for the first event, then takes those that are there, at most `max`."""
        deadline = _deadline(self._mesh._loop, timeout, "subscription.receive_many")
        while True:
            messages = self._handle._try_receive_many(max)
            if messages:
                await self._source.took(len(messages))
                return messages
            if not await self._source.ready(deadline):
                raise _timed_out("subscription.receive_many", timeout)

    async def fail(self, message: _native.Message, error: BaseException | str) -> None:
        """Says that handling `message` failed: it is delivered again or goes to the dead letters."""
        await _in_thread(lambda: self._handle.fail(message, error))

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
        self._source = _Source(mesh._reactor, handle)
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
        deadline = _deadline(self._mesh._loop, timeout, "service.next")
        while True:
            request = self._handle._try_next()
            if request is not None:
                await self._source.took()
                return request
            if not await self._source.ready(deadline):
                raise _timed_out("service.next", timeout)

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
            task.add_done_callback(functools.partial(_discard, reactor, token))
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
