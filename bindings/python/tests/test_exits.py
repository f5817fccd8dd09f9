"""Programs that end while threads, ours and their own, are in the middle of something."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import WATCHDOG

Program = Callable[..., "subprocess.Popen[str]"]


def ends(process: "subprocess.Popen[str]", status: int) -> str:
    """What the program said. One that aborts has a negative status."""
    output, _ = process.communicate(timeout=3 * WATCHDOG)
    assert process.returncode == status, output
    assert "Fatal" not in output and "panicked" not in output
    return output


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
