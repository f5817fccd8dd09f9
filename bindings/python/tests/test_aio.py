"""flowmesh.aio: the same promises on an event loop."""

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

import flowmesh
import flowmesh.aio
from conftest import WATCHDOG

T = TypeVar("T")


def run(main: Awaitable[T]) -> T:
    async def guarded() -> T:
        async with asyncio.timeout(WATCHDOG):
            return await main

    return asyncio.run(guarded())


def test_asyncio_is_imported_only_when_asked_for() -> None:
    source = "import flowmesh, sys; print([m for m in ('asyncio', 'logging', 'typing', 'json') if m in sys.modules])"
    output = subprocess.run([sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {source}"],
                            capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


@pytest.mark.parametrize("role", ["host", "client"])
def test_events_and_calls(directory: Path, role: str) -> None:
    async def main() -> None:
        async with flowmesh.aio.open(directory) as host, flowmesh.aio.connect(directory) as client:
            mesh = {"host": host, "client": client}[role]
            assert (mesh.role, mesh.directory) == (role, directory)
            async with mesh.subscribe("orders.*") as orders, client.serve("double", double):
                number = await mesh.publish("orders.new", {"id": 1}, headers={"k": "v"})
                message = await orders.receive(WATCHDOG)
                assert isinstance(message, flowmesh.Message)
                assert (message.id, message.value, message.headers["k"]) == (number, {"id": 1}, "v")
                await mesh.publish_many("orders.many", [b"%d" % n for n in range(5)])
                got: list[flowmesh.Message] = []
                while len(got) < 5:
                    got += await orders.receive_many(timeout=WATCHDOG)
                assert [m.payload for m in got] == [b"%d" % n for n in range(5)]
                assert (await mesh.call("double", 21, timeout=WATCHDOG)).value == 42
                assert (await mesh.services())[0]["name"] == "double"
                assert (await mesh.stats())["bus"]["published"] == 6

    async def double(request: flowmesh.Request) -> int:
        await asyncio.sleep(0)
        value = request.value
        assert isinstance(value, int)
        return value * 2

    run(main())


def test_opening_can_be_awaited(directory: Path) -> None:
    async def main() -> None:
        mesh = await flowmesh.aio.open(directory)
        orders = await mesh.subscribe("orders")
        service = await mesh.serve("pull")
        pending = asyncio.create_task(mesh.call("pull", b"x", timeout=WATCHDOG))
        request = await service.next(WATCHDOG)
        request.reply(request.payload)
        assert (await pending).payload == b"x"
        await orders.close()
        with pytest.raises(flowmesh.ClosedError):
            await orders.receive()
        await mesh.close()
        await mesh.close()
        with pytest.raises(flowmesh.ClosedError):
            await service.next()
        with pytest.raises(flowmesh.ClosedError):
            await mesh.publish("x")

    run(main())


def test_iteration_ends_when_the_mesh_is_closed(directory: Path) -> None:
    async def main() -> list[bytes]:
        async with flowmesh.aio.open(directory) as mesh:
            orders = await mesh.subscribe("orders")
            await mesh.publish_many("orders", [b"1", b"2"])
            seen = []
            async for message in orders:
                seen.append(message.payload)
                if len(seen) == 2:
                    asyncio.get_running_loop().call_soon(lambda: closing.append(asyncio.ensure_future(mesh.close())))
            return seen

    closing: list[asyncio.Future[None]] = []
    assert run(main()) == [b"1", b"2"]


def test_timeouts(directory: Path) -> None:
    async def main() -> None:
        async with flowmesh.aio.open(directory) as mesh:
            orders, service = await mesh.subscribe("orders"), await mesh.serve("never")
            for attempt in (
                lambda: orders.receive(0.02),
                lambda: orders.receive(0),
                lambda: orders.receive_many(timeout=0.02),
                lambda: service.next(0.02),
                lambda: mesh.call("never", timeout=0.02),
            ):
                with pytest.raises(flowmesh.TimeoutError):
                    await attempt()
            with pytest.raises(flowmesh.InvalidArgumentError):
                await orders.receive(-1)
            with pytest.raises(TypeError):
                await orders.receive("long")  # type: ignore[arg-type]
            async with asyncio.timeout(0.02) as scope:
                with pytest.raises(asyncio.CancelledError):
                    await orders.receive()
                raise TimeoutError if scope.expired() else asyncio.CancelledError

    with pytest.raises((TimeoutError, asyncio.CancelledError)):
        run(main())


def test_cancelling_a_call_cancels_its_handler(directory: Path) -> None:
    async def main() -> None:
        begun, cancelled = asyncio.Event(), asyncio.Event()

        async def slow(request: flowmesh.Request) -> None:
            begun.set()
            try:
                await asyncio.sleep(WATCHDOG)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        async with flowmesh.aio.open(directory) as host, flowmesh.aio.connect(directory) as client:
            for caller, server in ((host, client), (client, host)):
                begun.clear()
                cancelled.clear()
                async with server.serve("slow", slow):
                    call = asyncio.create_task(caller.call("slow", timeout=WATCHDOG))
                    await begun.wait()
                    call.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await call
                    await cancelled.wait()

    run(main())


def test_cancelling_a_wait_loses_no_event(directory: Path) -> None:
    async def main() -> None:
        async with flowmesh.aio.open(directory) as mesh, mesh.subscribe("orders") as orders:
            for _ in range(20):
                waiting = asyncio.create_task(orders.receive())
                await asyncio.sleep(0)
                await mesh.publish("orders", b"kept")
                waiting.cancel()
                try:
                    message = await waiting
                except asyncio.CancelledError:
                    message = await orders.receive(WATCHDOG)
                assert message.payload == b"kept"

    run(main())


def test_what_a_handler_raises_reaches_the_caller(directory: Path, caplog: object) -> None:
    async def main() -> None:
        async with flowmesh.aio.open(directory) as mesh:

            @mesh.service("fails")
            async def fails(request: flowmesh.Request) -> None:
                raise ValueError("no such size")

            @mesh.service("odd")
            def odd(request: flowmesh.Request) -> object:
                return object()

            @mesh.service("plain")
            def plain(request: flowmesh.Request) -> flowmesh.Reply:
                return flowmesh.Reply("plain", headers={"k": "v"})

            with pytest.raises(flowmesh.HandlerFailedError) as caught:
                await mesh.call("fails", timeout=WATCHDOG)
            assert (caught.value.type, caught.value.message) == ("ValueError", "no such size")
            with pytest.raises(flowmesh.HandlerFailedError, match="payload must be"):
                await mesh.call("odd", timeout=WATCHDOG)
            answer = await mesh.call("plain", timeout=WATCHDOG)
            assert (answer.value, answer.headers["k"]) == ("plain", "v")

    run(main())


def test_handlers_of_events(directory: Path, caplog: object) -> None:
    async def main() -> None:
        done = asyncio.Event()
        seen: list[tuple[bytes, int]] = []
        retry = flowmesh.Retry(max_attempts=2, backoff=flowmesh.Backoff(initial=0.001))
        async with flowmesh.aio.open(directory) as mesh:

            @mesh.on("orders", retry=retry)
            async def handle(message: flowmesh.Message) -> None:
                await asyncio.sleep(0)
                seen.append((message.payload, message.attempt))
                if message.payload == b"bad":
                    raise ValueError("bad")
                if message.payload == b"last" and (b"bad", 2) in seen:
                    done.set()

            await mesh.publish_many("orders", [b"one", b"bad"])
            while (b"bad", 2) not in seen:
                await asyncio.sleep(0.005)
            await mesh.publish("orders", b"last")
            await done.wait()
        assert seen == [(b"one", 1), (b"bad", 1), (b"bad", 2), (b"last", 1)]

    run(main())


def test_concurrency_bounds_the_tasks(directory: Path) -> None:
    async def main() -> int:
        running = most = 0

        async def handler(request: flowmesh.Request) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.01)
            running -= 1

        async with flowmesh.aio.open(directory) as mesh, mesh.serve("s", handler, concurrency=3):
            await asyncio.gather(*(mesh.call("s", timeout=WATCHDOG) for _ in range(12)))
        return most

    assert run(main()) == 3


def test_a_publisher_that_must_wait_does_not_stop_the_loop(directory: Path) -> None:
    async def main() -> None:
        async with flowmesh.aio.open(directory) as host, flowmesh.aio.connect(directory) as client:
            slow = await host.subscribe("slow", capacity=1, on_slow="block", block_timeout=WATCHDOG)
            for mesh in (host, client):
                sending = asyncio.create_task(send(mesh))
                got = [(await slow.receive(WATCHDOG)).payload for _ in range(50)]
                assert got == [b"%d" % n for n in range(50)]
                await sending

    async def send(mesh: flowmesh.aio.Mesh) -> None:
        for n in range(50):
            await mesh.publish("slow", b"%d" % n)

    run(main())


def test_a_flood_leaves_the_loop_time_for_others(directory: Path) -> None:
    async def main() -> int:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with flowmesh.aio.open(directory) as mesh, mesh.subscribe("flood", capacity=10_000) as flood:
            await mesh.publish_many("flood", [b""] * 5000)
            task = asyncio.create_task(other())
            for _ in range(5000):
                await flood.receive(WATCHDOG)
            task.cancel()
        return turns

    assert run(main()) > 20


def test_a_dead_host_is_heard_of(directory: Path, program: Callable[..., "subprocess.Popen[str]"]) -> None:
    process = program(
        """
        import flowmesh, sys
        with flowmesh.open(sys.argv[1]) as mesh, mesh.serve("never") as service:
            print("ready", flush=True)
            sys.stdin.read()
        """,
        directory,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"

    async def main() -> None:
        async with flowmesh.aio.connect(directory) as mesh, mesh.subscribe("x") as x:
            waiting = [asyncio.create_task(x.receive()), asyncio.create_task(mesh.call("never", timeout=WATCHDOG))]
            await asyncio.sleep(0.05)
            process.kill()
            for task in waiting:
                with pytest.raises(flowmesh.DisconnectedError):
                    await task
            with pytest.raises(flowmesh.DisconnectedError):
                await mesh.publish("x")

    run(main())


def test_cancelled_while_opening_leaves_nothing_open(directory: Path) -> None:
    async def main() -> None:
        opening = asyncio.ensure_future(take(flowmesh.aio.open(directory)))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        deadline = time.monotonic() + WATCHDOG
        while True:
            try:
                async with flowmesh.aio.open(directory):
                    return
            except flowmesh.AlreadyOpenError:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)

    async def take(opening: flowmesh.aio.Opening[flowmesh.aio.Mesh]) -> None:
        await opening

    run(main())


def test_one_loop_after_the_other(directory: Path) -> None:
    async def main() -> None:
        async with flowmesh.aio.open(directory) as mesh, mesh.subscribe("x") as x:
            await mesh.publish("x", b"1")
            assert (await x.receive(WATCHDOG)).payload == b"1"

    for _ in range(3):
        run(main())


def test_a_forgotten_subscription_is_ended(directory: Path) -> None:
    async def main() -> None:
        async with flowmesh.aio.open(directory) as mesh:
            subscription = await mesh.subscribe("x")
            assert len((await mesh.stats())["subscriptions"]) == 1
            del subscription
            gc.collect()
            assert (await mesh.stats())["subscriptions"] == []

    run(main())


def test_both_halves_work_together(directory: Path) -> None:
    """A synchronous host in a thread, an asynchronous client on the loop."""
    with flowmesh.open(directory) as host:
        thread = threading.current_thread().name
        host.serve("who", lambda request: threading.current_thread().name)

        async def main() -> object:
            async with flowmesh.aio.connect(directory) as mesh:
                return (await mesh.call("who", timeout=WATCHDOG)).value

        assert run(main()) == "flowmesh serve who" != thread
