"""The same on an event loop: a service of coroutines, events, and a call that is cancelled.

python aio.py DIRECTORY
"""

import asyncio
import sys

import flowmesh.aio


async def main(directory: str) -> None:
    async with flowmesh.aio.open(directory) as mesh, mesh.subscribe("ticks") as ticks:

        @mesh.service("clock.wait", concurrency=100)
        async def wait(request: flowmesh.Request) -> str:
            try:
                await asyncio.sleep(request.value)
            except asyncio.CancelledError:
                await mesh.publish("ticks", "the caller gave up")
                raise
            return f"waited {request.value} s"

        answers = await asyncio.gather(*(mesh.call("clock.wait", n / 100) for n in range(3)))
        print([answer.value for answer in answers])
        try:
            async with asyncio.timeout(0.05):
                await mesh.call("clock.wait", 60)
        except TimeoutError:
            print("gave up")
        async for tick in ticks:
            print(tick.value)
            break


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
