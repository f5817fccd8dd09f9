"""What waits on an event loop: one descriptor for a whole mesh, and who is woken when something is ready."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

from . import _native
from ._errors import FlowMeshError, InvalidArgumentError, TimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Mapping
    from types import TracebackType
    from typing import Any, Protocol

    class _Waitable(Protocol):
        def _watch(self, ready: _native.ReadySet, token: int) -> None: ...
        def _unwatch(self) -> None: ...

    class _Leaves(Protocol):
        async def __aexit__(
            self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
        ) -> None: ...

T = TypeVar("T")
Handle = TypeVar("Handle", bound="_Leaves")

IN_A_ROW = 64
"""Messages taken without sleeping before the loop gets its turn."""

_LARGE_BYTES = 64 * 1024
"""Payloads from here on may take a while to send, so a thread sends them."""


async def in_thread(make: Callable[[], T]) -> T:
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
    """A handle that is being opened: await it, or enter it with `async with` to leave it again."""

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
            await self._opened.__aexit__(kind, error, traceback)


class Reactor:
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


class Source:
    """Wakes the coroutines that wait for one handle."""

    def __init__(self, reactor: Reactor, handle: _Waitable) -> None:
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
        if self._taken >= IN_A_ROW:
            self._taken = 0
            await asyncio.sleep(0)

    def close(self) -> None:
        self._handle._unwatch()
        self._reactor.discard(self._token)
        self._wake()


def discard(reactor: Reactor, token: int, _: object) -> None:
    reactor.discard(token)


def _resolve(waiter: asyncio.Future[bool], value: bool) -> None:
    if not waiter.done():
        waiter.set_result(value)


def deadline_of(loop: asyncio.AbstractEventLoop, timeout: float | None, operation: str) -> float | None:
    if timeout is None:
        return None
    if not timeout >= 0:
        limit = "seconds, zero or more"
        text = f"{operation}: an argument is not valid (timeout={timeout}, limit={limit})"
        raise made(InvalidArgumentError(text), operation, {"timeout": str(timeout), "limit": limit})
    return loop.time() + timeout


def timed_out(operation: str, timeout: float | None) -> FlowMeshError:
    millis = str(round((timeout or 0) * 1000))
    error = TimeoutError(f"{operation}: the deadline passed (timeout_ms={millis})")
    return made(error, operation, {"timeout_ms": millis})


def made(error: FlowMeshError, operation: str, context: Mapping[str, str]) -> FlowMeshError:
    error.operation = operation
    error.context = context
    return error


def check_handler(handler: object) -> None:
    if handler is not None and not callable(handler):
        raise TypeError(f"handler must be callable, not {type(handler).__qualname__}")


def is_large(payload: object) -> bool:
    return isinstance(payload, (str, bytes, bytearray, memoryview)) and len(payload) >= _LARGE_BYTES
