"""FlowMesh's side of the Python lines of the table of queues: a worker whose handler only counts, durability `os`.

`local`: the worker is in the host. `session`: this process is a client, the host is another one.
"""

import multiprocessing
import os
import sys
import tempfile
import threading
import time

import flowmesh

PAYLOAD = b"x" * 128
COUNT = 20_000 if "FLOWMESH_COMPARE_QUICK" in os.environ else 100_000
BATCH = 1_000
PATIENCE = 60.0


def work(mesh):
    """Jobs per second, all of them acked."""
    queue = mesh.queue("compare")
    for count in (COUNT // 20, COUNT):
        for _ in range(0, count, BATCH):
            queue.enqueue_many([PAYLOAD] * BATCH)
        all_done = threading.Event()
        done = 0

        def handler(job):
            nonlocal done
            if job.payload != PAYLOAD:
                raise AssertionError("a payload arrived damaged")
            done += 1
            if done == count:
                all_done.set()

        start = time.perf_counter()
        worker = mesh.process(queue, handler)
        if not all_done.wait(PATIENCE):
            raise AssertionError("jobs were lost")
        worker.stop()
        elapsed = time.perf_counter() - start
        if any(queue.stats()["jobs"].values()):
            raise AssertionError("jobs are left")
    return count / elapsed


def host(directory, ready, over):
    with flowmesh.open(directory) as mesh:
        mesh.declare_queue("compare", durability="os")
        ready.set()
        over.wait()


def main(where):
    base = os.environ.get("FLOWMESH_COMPARE_DIRECTORY")
    with tempfile.TemporaryDirectory(prefix="queues-", dir=base) as directory:
        if where == "local":
            with flowmesh.open(directory) as mesh:
                mesh.declare_queue("compare", durability="os")
                rate = work(mesh)
        else:
            context = multiprocessing.get_context("spawn")
            ready, over = context.Event(), context.Event()
            process = context.Process(target=host, args=(directory, ready, over), daemon=True)
            process.start()
            ready.wait(PATIENCE)
            with flowmesh.connect(directory) as mesh:
                rate = work(mesh)
            over.set()
            process.join()
    print("figure", rate, rate)


if __name__ == "__main__":
    main(sys.argv[1])
