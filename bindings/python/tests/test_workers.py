"""Workers: threads that call a handler for each job, and what becomes of jobs whose handlers fail, stop or die."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import flowmesh
from conftest import WATCHDOG, eventually, full_disk, our_threads

if TYPE_CHECKING:
    import subprocess


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Tracebacks of handlers that are meant to fail."""
    logging.getLogger("flowmesh").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("flowmesh").setLevel(logging.NOTSET)


@pytest.fixture
def queue(mesh: flowmesh.Mesh) -> flowmesh.Queue:
    return mesh.declare_queue("q", durability="os", backoff=0, retention={"done": {"age": 60}})


class Gate:
    """Handlers wait at it, until it is opened or their job is cancelled."""

    def __init__(self) -> None:
        self.inside: list[flowmesh.Job] = []
        self.cancelled = 0
        self._opened = threading.Event()

    def __call__(self, job: flowmesh.Job) -> None:
        self.inside.append(job)
        while not self._opened.wait(0.005):
            if job.is_cancelled:
                self.cancelled += 1
                return

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


class Broken(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def state(queue: flowmesh.Queue, job: flowmesh.Receipt) -> str:
    return queue.peek(job)["state"]


def test_what_a_handler_returns_is_the_result(mesh: flowmesh.Mesh, queue: flowmesh.Queue) -> None:
    receipts = queue.enqueue_many([{"n": n} for n in range(50)])
    with mesh.process(queue, lambda job: {"square": job.value["n"] ** 2}, concurrency=3) as worker:
        eventually(lambda: queue.stats()["jobs"]["done"] == 50, "all are done")
        assert worker.queue is queue
        assert worker.running
        assert mesh.process("q", print).stop(WATCHDOG)
    assert queue.result(receipts[7]) == b'{"square":49}'
    assert worker.stats() == {"running": 0, "done": 50, "failed": 0, "rejected": 0, "released": 0, "lost": 0}
    assert not worker.running
    assert worker.wait(0)
    quiet = queue.enqueue(b"")
    with mesh.process(queue, lambda job: None):
        eventually(lambda: state(queue, quiet) == "done")
    assert queue.result(quiet) is None


def test_a_decorated_handler_works_until_the_mesh_is_closed(mesh: flowmesh.Mesh) -> None:
    seen = []

    @mesh.worker("mail", concurrency=4, declare=True)
    def send(job: flowmesh.Job) -> None:
        seen.append(job.value)

    mail = mesh.queue("mail")
    mail.enqueue_many(["a", "b", "c"])
    eventually(lambda: sorted(seen) == ["a", "b", "c"], "all are sent")
    assert callable(send)
    assert len([name for name in our_threads() if name == "flowmesh work mail"]) == 4
    mesh.close()
    eventually(lambda: "flowmesh work mail" not in our_threads(), "its threads end")


def test_a_decorator_declares_what_it_is_told_to(mesh: flowmesh.Mesh) -> None:
    with pytest.raises(flowmesh.NotFoundError):
        mesh.worker("q")(lambda job: None)
    mesh.worker("q", declare={"lease": 5.0, "durability": "os"})(lambda job: None)
    assert mesh.queue("q").config()["lease"] == 5.0
    mesh.worker("q", declare=True)(lambda job: None)
    with pytest.raises(flowmesh.ConflictError):
        mesh.worker("q", declare={"lease": 6.0})(lambda job: None)


def test_a_handler_that_raises_fails_the_attempt(mesh: flowmesh.Mesh, queue: flowmesh.Queue) -> None:
    def handler(job: flowmesh.Job) -> int:
        if job.attempt < 3:
            raise ValueError(f"attempt {job.attempt}")
        return job.attempt

    job = queue.enqueue(b"x")
    with mesh.process(queue, handler) as worker:
        eventually(lambda: state(queue, job) == "done", "the third attempt succeeds")
        assert worker.stats()["failed"] == 2
    info = queue.peek(job)
    assert [failure["message"] for failure in info["failures"]] == ["ValueError: attempt 1", "ValueError: attempt 2"]
    detail = info["failures"][-1]["detail"]
    assert "Traceback" in detail
    assert "in handler" in detail
    assert queue.result(job) == b"3"


def test_what_a_handler_raises_is_kept_within_bounds(mesh: flowmesh.Mesh, queue: flowmesh.Queue) -> None:
    def handler(job: flowmesh.Job) -> object:
        if job.payload == b"long":
            raise ValueError("ä" * 10_000)
        if job.payload == b"broken":
            raise Broken
        if job.payload == b"exit":
            raise SystemExit(1)
        return object()

    jobs = queue.enqueue_many([b"long", b"broken", b"exit", b"odd"], max_attempts=1)
    with mesh.process(queue, handler) as worker:
        eventually(lambda: queue.stats()["jobs"]["dead"] == 4, "all are dead")
        assert worker.stats()["failed"] == 4
    messages = [queue.peek(job)["failures"][0]["message"] for job in jobs]
    assert messages[0].startswith("ValueError: ää")
    assert len(messages[0].encode()) <= 1024
    assert messages[1:3] == ["Broken: the exception has no text", "SystemExit: 1"]
    assert messages[3].startswith("TypeError: payload must be bytes")


def test_reject_and_snooze(mesh: flowmesh.Mesh, queue: flowmesh.Queue) -> None:
    snoozed: list[int] = []

    def handler(job: flowmesh.Job) -> None:
        if job.payload == b"reject":
            raise flowmesh.Reject("never", "because")
        if job.payload == b"bad":
            raise flowmesh.Snooze(-1)
        if not snoozed:
            snoozed.append(job.attempt)
            raise flowmesh.Snooze(0.01)
        snoozed.append(job.attempt)

    rejected, put_off = queue.enqueue_many([b"reject", b"snooze"])
    bad = queue.enqueue(b"bad", max_attempts=1)
    with mesh.process(queue, handler) as worker:
        eventually(lambda: state(queue, put_off) == "done")
        eventually(lambda: state(queue, bad) == "dead")
    failure = queue.peek(rejected)["failures"][0]
    assert (state(queue, rejected), failure["message"], failure["detail"]) == ("dead", "never", "because")
    assert snoozed == [1, 1]
    assert (worker.stats()["rejected"], worker.stats()["released"], worker.stats()["failed"]) == (1, 1, 1)
    assert queue.peek(bad)["failures"][0]["message"].startswith("Snooze: ")


def test_a_handler_may_settle_the_job_itself(mesh: flowmesh.Mesh, queue: flowmesh.Queue) -> None:
    def handler(job: flowmesh.Job) -> str:
        job.ack("own")
        return "ignored"

    job = queue.enqueue(b"x")
    with mesh.process(queue, handler):
        eventually(lambda: state(queue, job) == "done")
    assert queue.result(job) == b"own"


def test_progress_is_seen_while_the_handler_works(
    mesh: flowmesh.Mesh, queue: flowmesh.Queue, gate: Gate
) -> None:
    def handler(job: flowmesh.Job) -> None:
        job.progress("half")
        gate(job)

    job = queue.enqueue(b"x")
    with mesh.process(queue, handler) as worker:
        eventually(lambda: queue.peek(job)["progress"] == b"half")
        assert worker.stats()["running"] == 1
        gate.open()


def test_jobs_are_not_kept_from_workers_that_are_free(
    mesh: flowmesh.Mesh, queue: flowmesh.Queue, gate: Gate
) -> None:
    """A worker whose threads are all busy has taken no more than they work on."""
    queue.enqueue_many([b"x"] * 20)
    with mesh.process(queue, gate, concurrency=3) as worker:
        eventually(lambda: len(gate.inside) == 3, "all threads are at work")
        assert queue.stats()["jobs"]["leased"] == 3
        # Quick jobs go on beside slow ones.
        done = []
        with mesh.process(queue, lambda job: done.append(job.id), concurrency=2):
            eventually(lambda: len(done) == 17, "the others are done elsewhere")
        gate.open()
        eventually(lambda: worker.stats()["done"] == 3)


def test_a_job_that_is_done_is_acked_while_others_are_at_work(
    mesh: flowmesh.Mesh, queue: flowmesh.Queue, gate: Gate
) -> None:
    def handler(job: flowmesh.Job) -> None:
        if job.payload == b"slow":
            gate(job)

    for _ in range(5):
        gate.inside.clear()
        quick, *_ = queue.enqueue_many([b"quick", b"slow", b"slow", b"slow"])
        worker = mesh.process(queue, handler, concurrency=4)
        eventually(lambda: len(gate.inside) == 3, "the slow ones are at work")
        eventually(lambda: state(queue, quick) == "done", "the quick one is acked")  # noqa: B023
        worker.close()
        assert queue.purge("ready") == 3


def test_stopping_waits_for_handlers(mesh: flowmesh.Mesh, queue: flowmesh.Queue, gate: Gate) -> None:
    jobs = queue.enqueue_many([b"x"] * 3)
    worker = mesh.process(queue, gate, concurrency=2)
    eventually(lambda: len(gate.inside) == 2)
    threading.Timer(0.05, gate.open).start()
    assert worker.stop(WATCHDOG) is True
    assert sorted(state(queue, job) for job in jobs) == ["done", "done", "ready"]
    assert gate.cancelled == 0
    assert worker.stop(WATCHDOG) is True
    assert not worker.running


def test_stopping_gives_back_what_is_not_finished(mesh: flowmesh.Mesh, queue: flowmesh.Queue, gate: Gate) -> None:
    job = queue.enqueue(b"x")
    worker = mesh.process(queue, gate)
    eventually(lambda: len(gate.inside) == 1)
    assert worker.stop(0.02) is False
    assert (state(queue, job), queue.peek(job)["attempt"]) == ("ready", 0)
    eventually(lambda: gate.cancelled == 1, "the handler sees it")
    assert worker.wait(WATCHDOG)
    assert worker.stats()["released"] == 1
    assert worker.stats()["done"] == 0


def test_a_handler_may_stop_its_worker(mesh: flowmesh.Mesh, queue: flowmesh.Queue) -> None:
    stopped = []
    ready = threading.Event()

    def handler(job: flowmesh.Job) -> None:
        ready.wait(WATCHDOG)
        stopped.append(worker.stop(WATCHDOG))

    jobs = queue.enqueue_many([b"1", b"2"])
    worker = mesh.process(queue, handler)
    ready.set()
    assert worker.wait(WATCHDOG)
    assert stopped == [True]
    assert [state(queue, job) for job in jobs] == ["done", "ready"]


def test_closing_the_mesh_gives_jobs_back(host: flowmesh.Mesh, directory: Path, gate: Gate) -> None:
    queue = host.declare_queue("q", durability="os")
    job = queue.enqueue(b"x")
    with flowmesh.connect(directory) as client:
        client.process("q", gate)
        eventually(lambda: len(gate.inside) == 1)
    assert (state(queue, job), queue.peek(job)["attempt"]) == ("ready", 0)
    eventually(lambda: gate.cancelled == 1, "the handler sees it")


def test_a_host_that_goes_ends_its_workers(host: flowmesh.Mesh, client: flowmesh.Mesh) -> None:
    host.declare_queue("q")
    worker = client.process("q", print, concurrency=2)
    host.close()
    with pytest.raises((flowmesh.DisconnectedError, flowmesh.ClosedError)):
        worker.wait(WATCHDOG)


def test_a_cancelled_job_goes_back_whatever_its_handler_does(
    mesh: flowmesh.Mesh, queue: flowmesh.Queue, gate: Gate
) -> None:
    def handler(job: flowmesh.Job) -> str:
        gate(job)
        if job.payload == b"raise":
            raise ValueError
        return "a result"

    jobs = queue.enqueue_many([b"return", b"raise"])
    with mesh.process(queue, handler, concurrency=2) as worker:
        eventually(lambda: len(gate.inside) == 2)
        assert [queue.cancel(job) for job in jobs] == ["asked", "asked"]
        eventually(lambda: [state(queue, job) for job in jobs] == ["cancelled", "cancelled"])
        eventually(lambda: worker.stats()["released"] == 2)
        assert worker.stats()["done"] + worker.stats()["failed"] == 0


def test_leases_last_as_long_as_the_handler(mesh: flowmesh.Mesh, queue: flowmesh.Queue, gate: Gate) -> None:
    job = queue.enqueue(b"x")
    with mesh.process(queue, gate, lease=1.0) as worker:
        eventually(lambda: len(gate.inside) == 1)
        begun = time.monotonic()
        while time.monotonic() - begun < 2.5:
            assert state(queue, job) == "leased"
            time.sleep(0.1)
        assert queue.stats()["totals"]["lease_expired"] == 0
        assert gate.inside[0].remaining > 0
        gate.open()
        eventually(lambda: worker.stats()["done"] == 1)
    assert queue.peek(job)["attempt"] == 1


def test_jobs_of_a_killed_worker_are_taken_by_another(
    host: flowmesh.Mesh, directory: Path, program: Callable[..., "subprocess.Popen[str]"]
) -> None:
    # Nobody waits for the end of that lease.
    queue = host.declare_queue("q", durability="os", backoff=0, lease=43200.0, retention={"done": {"age": 60}})
    job = queue.enqueue(b"x")
    process = program(
        """
        import sys, time, flowmesh

        def handler(job):
            print("has", job.attempt, flush=True)
            time.sleep(3600)

        flowmesh.connect(sys.argv[1]).process("q", handler).wait()
        """,
        directory,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "has 1\n"
    process.kill()
    process.wait()
    seen = []
    with host.process(queue, lambda job: seen.append(job.attempt)):
        eventually(lambda: state(queue, job) == "done", "another worker does it")
    assert seen == [2]
    totals = queue.stats()["totals"]
    assert (totals["worker_gone"], totals["lease_expired"], totals["done"]) == (1, 0, 1)
    assert "process ended" in queue.peek(job)["failures"][0]["message"]


@pytest.mark.parametrize("durability", ["os", "fsync"])
def test_what_a_full_disk_refuses_is_told_again(
    mesh: flowmesh.Mesh, host: flowmesh.Mesh, directory: Path, gate: Gate, durability: Any
) -> None:
    queue = mesh.declare_queue("q", durability=durability, retention={"done": {"age": 60}})
    receipts = [queue.enqueue(bytes(8192)), queue.enqueue(b"x")]
    by_hand = queue.next(timeout=WATCHDOG)
    assert by_hand is not None
    left = []

    def handler(job: flowmesh.Job) -> str:
        gate(job)
        left.append((job.id, job.attempt))
        return "kept"

    def refused() -> None:
        for attempt in (
            lambda: queue.enqueue(b"refused"),
            lambda: queue.enqueue_many([b"a", b"b"]),
            lambda: mesh.declare_queue("refused"),
            lambda: by_hand.ack("by hand"),
            lambda: by_hand.extend(60.0),
        ):
            with pytest.raises(flowmesh.StorageFullError) as caught:
                attempt()
            assert caught.value.retryable
        assert not by_hand.settled

    with mesh.process(queue, handler) as worker:
        eventually(lambda: gate.inside, "the worker has its job")
        with full_disk():
            refused()
            gate.open()
            eventually(lambda: left, "the handler has returned")
            # Long enough for the worker to be refused, and again: it does not give up while the job is its own.
            for _ in range(300 if durability == "os" else 25):
                assert [state(queue, receipt) for receipt in receipts] == ["leased", "leased"]
                assert worker.stats()["done"] == 0 and worker.running
                time.sleep(0.02)
            refused()
        eventually(lambda: state(queue, receipts[1]) == "done", "there is room, and it is told again")
        by_hand.ack("by hand")
    assert worker.stats() == {"running": 0, "done": 1, "failed": 0, "rejected": 0, "released": 0, "lost": 0}
    assert left == [(receipts[1].id, 1)]
    totals = queue.stats()["totals"]
    assert (totals["enqueued"], totals["done"], totals["failed"], totals["lease_expired"]) == (2, 2, 0, 0)
    mesh.close()
    host.close()
    # What is on the disk is what was said to be there.
    with flowmesh.open(directory) as again:
        assert again.queues() == ["q"]
        queue = again.queue("q")
        assert [queue.result(receipt) for receipt in receipts] == [b"by hand", b"kept"]
        jobs = queue.stats()["jobs"]
        assert jobs["done"] == 2 and sum(jobs.values()) == 2


def test_ctrl_c_ends_a_worker_program(
    host: flowmesh.Mesh, directory: Path, program: Callable[..., "subprocess.Popen[str]"]
) -> None:
    """Fifteen lines are enough to work on jobs; what is begun is finished when the program is interrupted."""
    import signal

    queue = host.declare_queue("q", durability="os", retention={"done": {"age": 60}})
    process = program(
        """
        import sys, time, flowmesh

        def handler(job):
            print("begun", flush=True)
            time.sleep(0.2)
            return "finished"

        with flowmesh.connect(sys.argv[1]) as mesh, mesh.process("q", handler, concurrency=2) as worker:
            print("ready", flush=True)
            worker.wait()
        """,
        directory,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    job = queue.enqueue(b"x")
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=WATCHDOG)
    assert "KeyboardInterrupt" in output
    assert queue.result(job) == b"finished"


def test_a_forked_child_has_no_worker(
    directory: Path, program: Callable[..., "subprocess.Popen[str]"]
) -> None:
    process = program(
        """
        import os, sys, flowmesh

        mesh = flowmesh.open(sys.argv[1])
        worker = mesh.process(mesh.declare_queue("q"), print, concurrency=2)
        child = os.fork()
        if child == 0:
            print(worker.running, worker.stop(), worker.wait(), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print(worker.running, worker.stop(), flush=True)
        mesh.close()
        """,
        directory,
    )
    output, _ = process.communicate(timeout=WATCHDOG)
    assert output == "False True True\nTrue True\n"


def test_options_of_a_worker_that_are_refused(mesh: flowmesh.Mesh, queue: flowmesh.Queue) -> None:
    anything: Any = mesh
    invalid = flowmesh.InvalidArgumentError
    before = len(our_threads())
    calls: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: mesh.process(queue, print, concurrency=0), invalid, "1 to 1024"),
        (lambda: mesh.process(queue, print, concurrency=1025), invalid, "1025"),
        (lambda: mesh.process(queue, print, lease=0.5), invalid, "lease"),
        (lambda: mesh.process(queue, print, lease=-1), invalid, "lease"),
        (lambda: mesh.process("none", print), flowmesh.NotFoundError, "none"),
        (lambda: anything.process(queue, "handler"), TypeError, "handler"),
        (lambda: anything.process(5, print), TypeError, "int"),
        (lambda: anything.process(queue, print, concurency=1), TypeError, "concurency"),
        (lambda: anything.worker("q", declare={"leese": 1})(print), TypeError, "leese"),
        (lambda: anything.worker("q")(5), TypeError, "handler"),
    ]
    for call, kind, text in calls:
        with pytest.raises(kind) as raised:
            call()
        assert text in str(raised.value)
    assert len(our_threads()) == before
    with pytest.raises(TypeError, match="coroutine"):

        @mesh.worker(queue)
        async def handler(job: flowmesh.Job) -> None: ...
