"""Queues and workers on an event loop."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import flowmesh
import flowmesh.aio
from conftest import WATCHDOG, full_disk

if TYPE_CHECKING:
    import subprocess


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Tracebacks of handlers that are meant to fail."""
    logging.getLogger("flowmesh").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("flowmesh").setLevel(logging.NOTSET)


async def eventually(condition: Callable[[], Awaitable[object]], what: str = "the condition") -> None:
    async with asyncio.timeout(WATCHDOG):
        while not await condition():
            await asyncio.sleep(0.002)


def everywhere(
    directory: Path, test: Callable[[flowmesh.aio.Mesh, flowmesh.aio.Queue], Awaitable[None]], **config: Any
) -> None:
    """The host, and a client, each with a queue."""

    async def run() -> None:
        settings: dict[str, Any] = {"durability": "os", "backoff": 0, "retention": {"done": {"age": 60}}, **config}
        async with flowmesh.aio.open(directory) as host:
            await test(host, await host.declare_queue("here", **settings))
            async with flowmesh.aio.connect(directory) as client:
                await test(client, await client.declare_queue("there", **settings))

    asyncio.run(asyncio.wait_for(run(), 6 * WATCHDOG))


async def state(queue: flowmesh.aio.Queue, job: flowmesh.Receipt) -> str:
    return (await queue.peek(job))["state"]


@pytest.mark.parametrize("durability", ["os", "fsync"])
def test_a_job_is_enqueued_reserved_and_acked(directory: Path, durability: Any) -> None:
    async def test(mesh: flowmesh.aio.Mesh, queue: flowmesh.aio.Queue) -> None:
        assert queue.name in await mesh.queues()
        assert (await mesh.queue(queue.name)).name == queue.name
        receipt = await queue.enqueue({"n": 1}, priority=2)
        assert (receipt.outcome, receipt.durability) == ("new", durability)
        job = await queue.next(timeout=WATCHDOG)
        assert job is not None
        assert (job.id, job.value, job.priority, job.attempt, job.settled) == (receipt.id, {"n": 1}, 2, 1, False)
        await job.progress("half")
        assert (await queue.peek(receipt))["progress"] == b"half"
        assert await job.extend(60) > 59
        assert await job.ack("done") == durability
        assert job.settled
        with pytest.raises(flowmesh.LeaseLostError):
            await job.release()
        assert await queue.result(receipt) == b"done"
        assert (await queue.enqueue(b"x" * 100_000)).outcome == "new"
        [job] = await queue.reserve(timeout=WATCHDOG)
        assert len(job.payload) == 100_000
        await job.reject("no")
        assert (await queue.list("dead"))["jobs"][0]["id"] == job.id
        await queue.redrive([job.id])
        assert await queue.purge("ready") == 1
        assert await queue.next(timeout=0) is None
        assert await queue.reserve(timeout=0.01) == []

    everywhere(directory, test, durability=durability)


def test_many_at_once(directory: Path) -> None:
    async def test(mesh: flowmesh.aio.Mesh, queue: flowmesh.aio.Queue) -> None:
        receipts = await asyncio.gather(*(queue.enqueue(str(n)) for n in range(200)))
        assert len({receipt.id for receipt in receipts}) == 200
        await queue.enqueue_many([b"x"] * 100)
        jobs = await queue.reserve(300, timeout=WATCHDOG)
        assert await queue.ack_many(jobs) == [None] * 300
        assert (await queue.stats())["totals"]["done"] == 300

    everywhere(directory, test)


@pytest.mark.parametrize("durability", ["os", "fsync"])
def test_a_job_that_is_done_brings_the_next(directory: Path, durability: Any) -> None:
    async def test(mesh: flowmesh.aio.Mesh, queue: flowmesh.aio.Queue) -> None:
        receipts = await queue.enqueue_many([str(n) for n in range(100)])
        job = await queue.next(timeout=WATCHDOG)
        for receipt in receipts:
            assert job is not None
            assert (job.id, job.attempt) == (receipt.id, 1)
            done, job = job, await job.ack_and_reserve(job.value, lease=60)
            assert done.settled
        assert job is None
        assert await queue.result(receipts[99]) == b"99"
        with pytest.raises(flowmesh.LeaseLostError):
            await done.ack_and_reserve()
        await queue.enqueue(b"x")
        job = await queue.next(timeout=WATCHDOG)
        assert job is not None
        with pytest.raises(flowmesh.InvalidArgumentError, match="lease"):
            await job.ack_and_reserve(lease=0.5)
        assert not job.settled
        await job.ack()
        assert (await queue.stats())["totals"]["done"] == 101

    everywhere(directory, test, durability=durability)


@pytest.mark.parametrize("durability", ["os", "fsync"])
def test_who_gives_up_on_the_next_job_leaves_it_to_others(directory: Path, durability: Any) -> None:
    async def test(mesh: flowmesh.aio.Mesh, queue: flowmesh.aio.Queue) -> None:
        for acked in range(1, 6):
            [_, second] = await queue.enqueue_many([b"1", b"2"])
            job = await queue.next(timeout=WATCHDOG)
            assert job is not None
            # Given up when the answer may be there and nobody has looked.
            pending: Any = job._job.ack_and_reserve(b"r")
            assert job.settled
            await eventually(lambda n=2 * acked - 1: done(queue, n), "it is acked")  # type: ignore[misc]
            await asyncio.sleep(0.01)
            pending.cancel()
            # Unless its answer came it may be said again, and was done all the same.
            if not job.settled:
                with pytest.raises(flowmesh.LeaseLostError):
                    await job.ack()
            assert pending._try_take() is None
            other = await queue.next(timeout=WATCHDOG)
            assert other is not None
            assert (other.id, other.attempt) == (second.id, 1)
            await other.ack()

        # A task that is cancelled while it waits.
        for _ in range(5):
            [_, second] = await queue.enqueue_many([b"1", b"2"])
            job = await queue.next(timeout=WATCHDOG)
            assert job is not None
            task = asyncio.create_task(job.ack_and_reserve())
            await asyncio.sleep(0)
            task.cancel()
            try:
                other = await task
            except asyncio.CancelledError:
                if not job.settled:
                    try:
                        await job.ack()
                    except flowmesh.LeaseLostError:
                        pass
                other = await queue.next(timeout=WATCHDOG)
            assert other is not None
            assert (other.id, other.attempt) == (second.id, 1)
            await other.ack()
        assert (await queue.stats())["totals"]["done"] == 20

    everywhere(directory, test, durability=durability)


def test_waiting_for_a_job_does_not_hold_up_the_loop(directory: Path) -> None:
    async def test(mesh: flowmesh.aio.Mesh, queue: flowmesh.aio.Queue) -> None:
        waiting = asyncio.create_task(queue.next())
        await asyncio.sleep(0.02)
        assert not waiting.done()
        await queue.enqueue(b"x")
        job = await asyncio.wait_for(waiting, WATCHDOG)
        assert job is not None
        async with job:
            assert job.payload == b"x"
        assert job.settled
        # Who gives up leaves the job to others.
        given_up = asyncio.create_task(queue.next())
        await asyncio.sleep(0.02)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        await queue.enqueue(b"y")
        async for job in queue:
            with pytest.raises(KeyError):
                async with job:
                    raise KeyError("gone")
            break
        job = await queue.next(timeout=WATCHDOG)
        assert job is not None
        assert job.attempt == 2
        await job.ack()

    everywhere(directory, test)


def test_the_rest_of_a_queue(directory: Path) -> None:
    async def test(mesh: flowmesh.aio.Mesh, queue: flowmesh.aio.Queue) -> None:
        await queue.pause()
        assert (await queue.stats())["paused"]
        await queue.resume()
        assert await queue.drain() is True
        with pytest.raises(flowmesh.DrainingError):
            await queue.enqueue(b"")
        await queue.resume()
        await queue.schedule("s", "@daily", b"x", options={"priority": 1})
        assert [one["name"] for one in await queue.schedules()] == ["s"]
        await queue.unschedule("s")
        job = await queue.enqueue(b"x", delay=60)
        assert (await queue.content(job))["payload"] == b"x"
        assert await queue.cancel(job) == "now"
        await queue.redrive([job])
        await queue.remove(job)
        assert await queue.redrive_dead() == 0
        await queue.redrive_at(0, 1)
        assert (await queue.durable("fsync").enqueue(b"")).durability == "fsync"
        await queue.configure(durability="os", lease=5)
        assert (await queue.config())["lease"] == 5.0
        for refused in (queue.enqueue(b"", priority=-1), queue.reserve(0), queue.peek("x")):
            with pytest.raises(flowmesh.InvalidArgumentError):
                await refused

    everywhere(directory, test)


def test_tasks_work_on_jobs(directory: Path) -> None:
    async def test(mesh: flowmesh.aio.Mesh, queue: flowmesh.aio.Queue) -> None:
        at_once = most = 0

        async def handler(job: flowmesh.aio.Job) -> int:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0.001)
            at_once -= 1
            return int(job.value) * 2

        receipts = await queue.enqueue_many([str(n) for n in range(100)])
        async with mesh.process(queue, handler, concurrency=8) as worker:
            await eventually(lambda: done(queue, 100), "all are done")
            assert worker.running
        assert 1 < most <= 8
        assert await queue.result(receipts[21]) == b"42"
        assert worker.stats()["done"] == 100
        assert not worker.running
        # A handler that is no coroutine function will do.
        plain: list[bytes] = []
        await queue.enqueue(b"x")
        async with mesh.process(queue.name, lambda job: plain.append(job.payload)):
            await eventually(lambda: done(queue, 101))
        assert plain == [b"x"]

    everywhere(directory, test)


async def done(queue: flowmesh.aio.Queue, count: int) -> bool:
    return (await queue.stats())["totals"]["done"] == count


def test_a_decorated_handler(directory: Path) -> None:
    async def run() -> None:
        async with flowmesh.aio.open(directory) as mesh:
            with pytest.raises(flowmesh.NotFoundError):
                mesh.worker("mail")(print)

            @mesh.worker("mail", concurrency=2, declare={"durability": "os"})
            async def send(job: flowmesh.aio.Job) -> None:
                if job.value == "reject":
                    raise flowmesh.Reject("never")
                if job.value == "snooze" and not (await mail.stats())["totals"]["released"]:
                    raise flowmesh.Snooze(0.01)
                if job.value == "fail":
                    raise ValueError("no")

            mail = await mesh.queue("mail")
            jobs = [await mail.enqueue(text, max_attempts=1) for text in ("reject", "snooze", "fail", "good")]
            await eventually(lambda: done(mail, 2))
            assert [(await mail.peek(job))["failures"][0]["message"] for job in (jobs[0], jobs[2])] == [
                "never",
                "ValueError: no",
            ]

    asyncio.run(asyncio.wait_for(run(), WATCHDOG))


def test_cancelling_a_job_cancels_its_task(directory: Path) -> None:
    async def test(mesh: flowmesh.aio.Mesh, queue: flowmesh.aio.Queue) -> None:
        begun, cancelled = asyncio.Event(), asyncio.Event()

        async def handler(job: flowmesh.aio.Job) -> None:
            begun.set()
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        job = await queue.enqueue(b"x")
        async with mesh.process(queue, handler) as worker:
            await begun.wait()
            assert await queue.cancel(job) == "asked"
            await cancelled.wait()
            await eventually(lambda: is_in(queue, job, "cancelled"))
            assert worker.stats()["released"] == 1

    everywhere(directory, test)


async def is_in(queue: flowmesh.aio.Queue, job: flowmesh.Receipt, wanted: str) -> bool:
    return await state(queue, job) == wanted


def test_stopping_waits_then_gives_back(directory: Path) -> None:
    async def test(mesh: flowmesh.aio.Mesh, queue: flowmesh.aio.Queue) -> None:
        begun: list[bytes] = []

        async def handler(job: flowmesh.aio.Job) -> None:
            begun.append(job.payload)
            await asyncio.sleep(3600 if job.payload == b"slow" else 0.02)

        quick = await queue.enqueue(b"quick")
        worker = await mesh.process(queue, handler)
        while not begun:
            await asyncio.sleep(0)
        assert await worker.stop() is True
        assert await state(queue, quick) == "done"
        slow = await queue.enqueue(b"slow")
        worker = await mesh.process(queue, handler)
        while len(begun) < 2:
            await asyncio.sleep(0)
        assert await worker.stop(0.01) is False
        info = await queue.peek(slow)
        assert (info["state"], info["attempt"]) == ("ready", 0)
        assert worker.stats()["released"] == 1
        assert await worker.stop() is True
        assert await queue.purge("ready") == 1

    everywhere(directory, test)


def test_leaving_the_mesh_gives_jobs_back(directory: Path) -> None:
    async def run() -> None:
        async with flowmesh.aio.open(directory) as host:
            queue = await host.declare_queue("q", durability="os")
            job = await queue.enqueue(b"x")
            begun = asyncio.Event()

            async def handler(job: flowmesh.aio.Job) -> None:
                begun.set()
                await asyncio.sleep(3600)

            async with flowmesh.aio.connect(directory) as client:
                await client.process("q", handler)
                await begun.wait()
            info = await queue.peek(job)
            assert (info["state"], info["attempt"]) == ("ready", 0)

    asyncio.run(asyncio.wait_for(run(), WATCHDOG))


def test_a_lease_lasts_as_long_as_its_task(directory: Path) -> None:
    async def run() -> None:
        async with flowmesh.aio.open(directory) as mesh:
            queue = await mesh.declare_queue("q", durability="os", lease=1.0)
            await queue.enqueue(b"x")

            async def handler(job: flowmesh.aio.Job) -> None:
                await asyncio.sleep(1.8)

            async with mesh.process(queue, handler) as worker:
                await eventually(lambda: done(queue, 1))
            assert (worker.stats()["done"], worker.stats()["lost"]) == (1, 0)
            assert (await queue.stats())["totals"]["lease_expired"] == 0

    asyncio.run(asyncio.wait_for(run(), WATCHDOG))


def test_the_job_of_a_killed_loop_is_taken_by_another(
    directory: Path, program: Callable[..., "subprocess.Popen[str]"]
) -> None:
    async def run() -> None:
        async with flowmesh.aio.open(directory) as host:
            # Nobody waits for the end of that lease.
            queue = await host.declare_queue("q", durability="os", backoff=0, lease=43200.0)
            job = await queue.enqueue(b"x")
            process = program(
                """
                import asyncio, sys, flowmesh.aio

                async def handler(job):
                    print("has", job.attempt, flush=True)
                    await asyncio.sleep(3600)

                async def main():
                    async with flowmesh.aio.connect(sys.argv[1]) as mesh:
                        async with mesh.process("q", handler) as worker:
                            await worker.wait()

                asyncio.run(main())
                """,
                directory,
            )
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == "has 1\n"
            process.kill()
            process.wait()
            seen = []

            async def handler(taken: flowmesh.aio.Job) -> None:
                seen.append((taken.id, taken.attempt))

            async with host.process(queue, handler):
                await eventually(lambda: done(queue, 1), "another worker does it")
            assert seen == [(job.id, 2)]
            totals = (await queue.stats())["totals"]
            assert (totals["worker_gone"], totals["lease_expired"]) == (1, 0)

    asyncio.run(asyncio.wait_for(run(), 6 * WATCHDOG))


def test_what_a_full_disk_refuses_is_told_again(directory: Path) -> None:
    async def test(mesh: flowmesh.aio.Mesh, queue: flowmesh.aio.Queue) -> None:
        inside, let_go, left = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def handler(job: flowmesh.aio.Job) -> str:
            inside.set()
            await let_go.wait()
            left.set()
            return "kept"

        receipts = [await queue.enqueue(bytes(8192)), await queue.enqueue(b"x")]
        by_hand = await queue.next(timeout=WATCHDOG)
        assert by_hand is not None

        async def refused() -> None:
            with pytest.raises(flowmesh.StorageFullError):
                await queue.enqueue(b"refused")
            with pytest.raises(flowmesh.StorageFullError):
                await by_hand.ack("by hand")
            assert not by_hand.settled

        async with mesh.process(queue, handler) as worker:
            await inside.wait()
            with full_disk():
                await refused()
                let_go.set()
                await left.wait()
                for _ in range(25):  # long enough for the worker to be refused, and again
                    assert [await state(queue, receipt) for receipt in receipts] == ["leased", "leased"]
                    assert worker.stats()["done"] == 0
                    await asyncio.sleep(0.02)
                await refused()
            await eventually(lambda: done(queue, 1), "there is room, and it is told again")
            await by_hand.ack("by hand")
        assert (worker.stats()["done"], worker.stats()["lost"], worker.stats()["failed"]) == (1, 0, 0)
        assert [await queue.result(receipt) for receipt in receipts] == [b"by hand", b"kept"]
        totals = (await queue.stats())["totals"]
        assert (totals["enqueued"], totals["done"], totals["failed"], totals["lease_expired"]) == (2, 2, 0, 0)

    everywhere(directory, test)


def test_what_a_worker_refuses(directory: Path) -> None:
    async def run() -> None:
        async with flowmesh.aio.open(directory) as mesh:
            queue = await mesh.declare_queue("q")
            anything: Any = mesh
            with pytest.raises(flowmesh.InvalidArgumentError, match="1 to 1024"):
                await mesh.process(queue, print, concurrency=0)
            with pytest.raises(flowmesh.InvalidArgumentError, match="lease"):
                mesh.worker(queue, lease=0.5)(print)
            with pytest.raises(TypeError, match="handler"):
                anything.process(queue, 5)
            with pytest.raises(flowmesh.NotFoundError):
                await mesh.process("none", print)

    asyncio.run(run())
