"""Checked by mypy --strict, never run: what a user writes has the types a user expects."""

import asyncio
from collections.abc import Callable, Mapping
from typing import assert_type

import flowmesh
import flowmesh.aio
from flowmesh.types import JobInfo, ServiceInfo, Stats


def synchronous() -> None:
    with flowmesh.open("/tmp/mesh", name="host", wait="block", breaker=flowmesh.Breaker(probes=2)) as mesh:
        assert_type(mesh, flowmesh.Mesh)
        assert_type(mesh.publish("a", {"id": 1}, headers={"k": "v"}, priority=5, ttl=1.0), int)
        mesh.publish("a", b"")
        mesh.publish("a", bytearray(b""))
        mesh.publish("a", memoryview(b""))
        mesh.publish("a", "text")
        mesh.publish("a", [1, {"b": None}])
        mesh.publish("a", object())  # type: ignore[arg-type]
        mesh.publish(5)  # type: ignore[arg-type]
        mesh.publish("a", priority="high")  # type: ignore[arg-type]
        mesh.publish_many([("a", b"1"), ("b", {"c": 2})])
        mesh.publish_many("a", [b"1", b"2"])
        mesh.publish_many("a")  # type: ignore[arg-type]
        with mesh.subscribe("a.*", group="g", on_slow="block", retry=flowmesh.Retry(dead_letter="d")) as subscription:
            assert_type(subscription, flowmesh.Subscription)
            message = subscription.receive(timeout=1)
            assert_type(message, flowmesh.Message)
            assert_type(message.payload, bytes)
            assert_type(message.headers, dict[str, str])
            assert_type(memoryview(message), memoryview)
            assert_type(subscription.receive_many(10, 0.5), list[flowmesh.Message])
            for each in subscription:
                assert_type(each, flowmesh.Message)
        mesh.subscribe("a", on_slow="explode")  # type: ignore[arg-type]

        @mesh.on("a")
        def handle(message: flowmesh.Message) -> None: ...

        decorated: Callable[[flowmesh.Message], None] = handle
        decorated(message)

        @mesh.service("s", concurrency=2)
        def serve(request: flowmesh.Request) -> bytes:
            assert_type(request.remaining, float)
            return request.payload

        service = mesh.serve("s")
        assert_type(service.next(1.0), flowmesh.Request)
        assert_type(mesh.call("s", {"a": 1}, timeout=2.0), flowmesh.Message)
        assert_type(mesh.start_call("s").wait(), flowmesh.Message)
        assert_type(mesh.services(), list[ServiceInfo])
        assert_type(mesh.stats(), Stats)
        assert_type(mesh.stats()["services"][0]["latency"]["p99_ns"], int)
        queue = mesh.declare_queue("q", lease=5.0, rate=flowmesh.Rate(5), retention={"done": {"age": 1}}, durability="os")
        assert_type(queue, flowmesh.Queue)
        mesh.declare_queue("q", leese=5.0)  # type: ignore[call-arg]
        mesh.declare_queue("q", lease="5")  # type: ignore[arg-type]
        assert_type(queue.enqueue({"a": 1}, priority=3, unique=flowmesh.Unique("k"), delay=1.5), flowmesh.Receipt)
        queue.enqueue(b"", prioritee=3)  # type: ignore[call-arg]
        queue.enqueue(b"", durability="disk")  # type: ignore[arg-type]
        assert_type(queue.enqueue_many([b"1", flowmesh.NewJob("2", group="g")]), list[flowmesh.Receipt])
        assert_type(queue.reserve(10, timeout=0), list[flowmesh.Job])
        assert_type(queue.next(), flowmesh.Job | None)
        for job in queue:
            with job:
                assert_type(job, flowmesh.Job)
            assert_type(job.is_cancelled, bool)
        assert_type(queue.stats()["jobs"]["ready"], int)
        assert_type(queue.peek("id"), JobInfo)
        queue.list("running")  # type: ignore[arg-type]

        @mesh.worker("q", concurrency=4, declare={"lease": 1.0})
        def work(job: flowmesh.Job) -> dict[str, int]:
            return {"a": job.attempt}

        also_decorated: Callable[[flowmesh.Job], dict[str, int]] = work
        assert_type(mesh.process(queue, also_decorated), flowmesh.Worker)
        assert_type(mesh.process("q", also_decorated).stats()["done"], int)
    assert_type(flowmesh.inspect("/tmp/mesh")["damages"][0]["offset"], int)
    try:
        flowmesh.connect("/tmp/mesh", timeout=1.0)
    except flowmesh.HandlerFailedError as error:
        assert_type(error.type, str)
        assert_type(error.context, Mapping[str, str])


async def asynchronous() -> None:
    async with flowmesh.aio.connect("/tmp/mesh") as mesh, mesh.subscribe("a") as subscription:
        assert_type(mesh, flowmesh.aio.Mesh)
        assert_type(await mesh.publish("a", "text"), int)
        assert_type(await mesh.call("s"), flowmesh.Message)
        assert_type(await subscription.receive(timeout=1.0), flowmesh.Message)
        async for message in subscription:
            assert_type(message, flowmesh.Message)

        async def handler(request: flowmesh.Request) -> dict[str, int]:
            return {"a": 1}

        assert_type(await mesh.serve("s", handler), flowmesh.aio.Service)
        queue = await mesh.declare_queue("q", lease=5.0)
        assert_type(queue, flowmesh.aio.Queue)
        assert_type(await queue.enqueue(b"", priority=1), flowmesh.Receipt)
        assert_type(await queue.next(timeout=1.0), flowmesh.aio.Job | None)
        async for job in queue:
            assert_type(job, flowmesh.aio.Job)
            async with job:
                assert_type(await job.extend(), float)

        @mesh.worker("q")
        async def work(job: flowmesh.aio.Job) -> str:
            return job.id

        assert_type(await mesh.process("q", work), flowmesh.aio.Worker)
        await mesh.publish_many("a", [b"1"])
        await mesh.publish_many([("a", b"1")])
        await mesh.publish_many("a")  # type: ignore[arg-type]


if __name__ == "__main__":
    asyncio.run(asynchronous())
