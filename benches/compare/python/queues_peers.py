"""The Python peers of the table of queues: RQ, huey and litequeue.

Jobs are enqueued first; the figure is how many a worker gets through in a second. Redis is a server of this round
alone, `appendonly yes`, `appendfsync everysec`, reached over TCP as the libraries do by default. Prints one line,
`figure <value> <value>`.
"""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

PAYLOAD = "x" * 128
QUICK = "FLOWMESH_COMPARE_QUICK" in os.environ


@contextlib.contextmanager
def redis_server():
    """The port of a server that goes with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--dir", directory(), "--save", ""]
    durability = ["--appendonly", "yes", "--appendfsync", "everysec"]
    server = subprocess.Popen(["redis-server", *arguments, *durability], stdout=subprocess.DEVNULL)
    try:
        patience = time.monotonic() + 10
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if server.poll() is not None or time.monotonic() > patience:
                raise RuntimeError("redis-server does not listen")
            time.sleep(0.01)
        yield port
    finally:
        server.kill()
        server.wait()


def directory():
    return os.environ.get("FLOWMESH_COMPARE_DIRECTORY", ".")


def rq(simple):
    """RQ's worker in burst mode: SimpleWorker in this process, or the default one, which forks for each job."""
    from queues_jobs import nothing
    from redis import Redis
    from rq import Queue, SimpleWorker, Worker

    with redis_server() as port:
        connection = Redis(port=port)
        queue = Queue(connection=connection)
        for count in ((10, 60) if QUICK else (20, 500 if simple else 100)):
            queue.enqueue_many([Queue.prepare_data(nothing, (PAYLOAD,)) for _ in range(count)])
            worker = (SimpleWorker if simple else Worker)([queue], connection=connection)
            start = time.perf_counter()
            worker.work(burst=True, logging_level="ERROR")
            elapsed = time.perf_counter() - start
            if queue.finished_job_registry.count < count:
                raise AssertionError("jobs were lost")
        return count / elapsed


def huey():
    """huey's consumer with one worker thread, in this process."""
    from huey import RedisHuey

    with redis_server() as port:
        tasks = RedisHuey("compare", port=port)
        left = 0
        all_done = threading.Event()

        @tasks.task()
        def nothing(payload):
            nonlocal left
            left -= 1
            if left == 0:
                all_done.set()

        for count in (100, 500 if QUICK else 4_000):
            for _ in range(count):
                nothing(PAYLOAD)
            left = count
            all_done.clear()
            consumer = tasks.create_consumer(workers=1, periodic=False)
            start = time.perf_counter()
            consumer.start()
            if not all_done.wait(60):
                raise AssertionError("jobs were lost")
            elapsed = time.perf_counter() - start
            consumer.stop(graceful=True)
        return count / elapsed


def litequeue():
    """SQLite in this process: pop and done."""
    from litequeue import LiteQueue

    queue = LiteQueue(str(pathlib.Path(directory(), "litequeue.sqlite3")))
    for count in (100, 500 if QUICK else 4_000):
        for _ in range(count):
            queue.put(PAYLOAD)
        start = time.perf_counter()
        for _ in range(count):
            message = queue.pop()
            if message.data != PAYLOAD:
                raise AssertionError("a payload arrived damaged")
            queue.done(message.message_id)
        elapsed = time.perf_counter() - start
    queue.close()
    return count / elapsed


if __name__ == "__main__":
    peers = {"rq.simple": lambda: rq(True), "rq": lambda: rq(False), "huey": huey, "litequeue": litequeue}
    rate = peers[sys.argv[1]]()
    print("figure", rate, rate)
