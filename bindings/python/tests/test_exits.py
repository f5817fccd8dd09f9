"""Programs that end while threads, ours and their own, are in the middle of something."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import WATCHDOG

Program = Callable[..., "subprocess.Popen[str]"]

ENDINGS = {"falls off": ("", 0), "exits": ("sys.exit(3)", 3), "raises": ("raise LookupError('enough')", 1)}


def ends(process: "subprocess.Popen[str]", status: int) -> str:
    """What the program said. One that aborts has a negative status."""
    output, _ = process.communicate(timeout=3 * WATCHDOG)
    assert process.returncode == status, output
    assert "Fatal" not in output and "panicked" not in output
    return output


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("how", ["open", "connect", "open, close", "connect, close"])
def test_handlers_at_work_finish_when_the_program_ends(
    program: Program, directory: Path, how: str, ending: str
) -> None:
    statement, status = ENDINGS[ending]
    process = program(
        f"""
        import flowmesh, os, sys, threading, time
        host = flowmesh.open(sys.argv[1])
        mesh = host if {how.startswith("open")} else flowmesh.connect(sys.argv[1])
        begun = threading.Semaphore(0)

        def finish(what):
            begun.release()
            while not mesh.closed:
                time.sleep(0.001)
            time.sleep(0.05)  # The main thread has nothing else to do by now.
            os.write(1, what + b"\\n")

        jobs = mesh.declare_queue("jobs", durability="os")
        mesh.subscribe("x", lambda message: finish(b"event"))
        mesh.serve("s", lambda request: finish(b"call"))
        mesh.process(jobs, lambda job: finish(b"job"))
        mesh.publish("x")
        call = host.start_call("s")
        jobs.enqueue()
        for _ in range(3):
            begun.acquire()
        if {"close" in how}:
            mesh.close()
        {statement}
        """,
        directory,
    )
    said = ends(process, status).splitlines()
    assert {"call", "event", "job"} <= set(said), said


BUSY = """
import asyncio, flowmesh, flowmesh.aio, logging, sys
logging.disable()
retry = flowmesh.Retry(max_attempts=100, backoff=flowmesh.Backoff(initial=0.001))

def works(message):
    return {"decoded": message.value, "encoded": [1, 2.5, None]}

def fails(message):
    raise ValueError(message.value)

async def works_there(message):
    return works(message)

async def fails_there(message):
    fails(message)

def begin(mesh):
    jobs = mesh.declare_queue("jobs", durability="os", backoff=0.001, max_attempts=100)
    mesh.subscribe("x", fails, retry=retry)
    mesh.serve("works", works, concurrency=3)
    mesh.serve("fails", fails, concurrency=3)
    mesh.process(jobs, fails, concurrency=3)
    jobs.enqueue_many([{"n": n} for n in range(100)])
    mesh.publish_many("x", [{"n": n} for n in range(100)])
    return [mesh.start_call(name, {"n": n}) for n in range(100) for name in ("works", "fails")]

async def begin_there(mesh):
    jobs = await mesh.declare_queue("jobs", durability="os", backoff=0.001, max_attempts=100)
    await mesh.subscribe("x", fails_there, retry=retry)
    await mesh.serve("works", works_there, concurrency=3)
    await mesh.serve("fails", fails_there, concurrency=3)
    mesh.process(jobs, fails_there, concurrency=3)
    await jobs.enqueue_many([{"n": n} for n in range(100)])
    await mesh.publish_many("x", [{"n": n} for n in range(100)])
    return [asyncio.ensure_future(mesh.call(name, {"n": n})) for n in range(100) for name in ("works", "fails")]
"""

PLACES = {
    "host": "mesh = flowmesh.open(sys.argv[1])\nopen = begin(mesh)\n{}",
    "client": "host = flowmesh.open(sys.argv[1])\nmesh = flowmesh.connect(sys.argv[1])\nopen = begin(mesh)\n{}",
    "aio": (
        "async def main():\n    global mesh, open\n    mesh = await flowmesh.aio.open(sys.argv[1])\n"
        "    open = await begin_there(mesh)\n    await asyncio.sleep(0.01)\n    {}\nasyncio.run(main())"
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("place", PLACES)
def test_a_program_ends_in_the_middle_of_everything(
    program: Program, directory: Path, place: str, ending: str
) -> None:
    """Events, calls and jobs are under way, most of them in handlers that fail: tracebacks are written all the time."""
    statement, status = ENDINGS[ending]
    for number in range(3):
        source = BUSY + PLACES[place].format(statement or "pass")
        ends(program(source, directory / str(number)), status)


@pytest.mark.parametrize(("threads", "count"), [("of its own", 16), ("of handlers", 8)])
def test_threads_that_never_end_do_not_abort_a_program_that_does(
    program: Program, directory: Path, threads: str, count: int
) -> None:
    """They go on when the interpreter is ending, and are nearly always in Python code that native code has called: where
    Python kills them there, the stack must not be unwound through native frames."""
    source = f"""
        import flowmesh, logging, sys, threading
        logging.disable()
        mesh = flowmesh.open(sys.argv[1])
        jobs = mesh.declare_queue("jobs", durability="os")
        jobs.enqueue()
        [job] = jobs.reserve()
        running = threading.Semaphore(0)

        class Slow(Exception):
            def __str__(self):
                return "".join(str(n) for n in range(300))

        class Headers:
            def items(self):
                return [(str(n), "") for n in range(300)]

        def events():
            for n in range(300):
                yield "x", b""

        def forever(act):
            running.release()
            while True:
                try:
                    act()
                except flowmesh.FlowMeshError:
                    pass

        acts = [
            lambda: job.nack(Slow()),
            lambda: mesh.publish_many(events()),
            lambda: mesh.publish("x", headers=Headers()),
        ]
        for number, act in enumerate(acts * 2):
            if {threads == "of handlers"}:
                mesh.subscribe(f"begin.{{number}}", lambda message, act=act: forever(act))
                mesh.publish(f"begin.{{number}}")
            else:
                threading.Thread(target=forever, args=(act,), daemon=True).start()
        for _ in range(6):
            running.acquire()
        """
    for first in range(0, count, 4):
        processes = [program(source, directory / str(number)) for number in range(first, first + 4)]
        for process in processes:
            ends(process, 0)
