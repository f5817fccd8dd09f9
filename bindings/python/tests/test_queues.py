"""Queues: what is enqueued, reserved and settled, in the host and in clients."""

import datetime
import gc
import json
import os
import pickle
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flowmesh
from conftest import WATCHDOG, eventually

ANY_ID = "01890a5d-ac96-774b-bcce-b302099a8057"


@pytest.fixture
def queue(mesh: flowmesh.Mesh) -> flowmesh.Queue:
    return mesh.declare_queue("q", durability="os")


def take(queue: flowmesh.Queue) -> flowmesh.Job:
    job = queue.next(timeout=WATCHDOG)
    assert job is not None, "no job came in time"
    return job


def test_a_job_is_enqueued_reserved_and_acked(mesh: flowmesh.Mesh) -> None:
    assert mesh.queues() == []
    with pytest.raises(flowmesh.NotFoundError):
        mesh.queue("mail")
    mail = mesh.declare_queue("mail")
    assert (mail.name, mesh.queues(), repr(mail)) == ("mail", ["mail"], '<Queue "mail">')
    receipt = mail.enqueue({"to": "ann"}, headers={"trace": "7"}, priority=3, group="g")
    assert (receipt.outcome, receipt.durability, receipt.replaced) == ("new", "fsync", None)
    assert uuid.UUID(receipt.id).version == 7
    job = take(mesh.queue("mail"))
    assert (job.id, job.queue, job.attempt, job.max_attempts) == (receipt.id, "mail", 1, 5)
    assert (job.value, job.payload, job.content_type) == ({"to": "ann"}, b'{"to":"ann"}', "application/json")
    assert (job.priority, job.group, job.headers, job.redrives) == (3, "g", {"trace": "7"}, 0)
    assert job.value is job.value
    assert (job.lease, job.settled, job.is_cancelled) == (30.0, False, False)
    assert 20 < job.remaining <= 30
    assert job.ack({"sent": True}) == "fsync"
    assert job.settled
    assert mail.result(receipt.id) == b'{"sent":true}'
    stats = mail.stats()
    assert (stats["jobs"]["done"], stats["totals"]["enqueued"], stats["paused"]) == (1, 1, False)


def test_payloads_are_what_was_enqueued(queue: flowmesh.Queue) -> None:
    for payload, value, content_type in [
        (b"\x00\xff", b"\x00\xff", None),
        (bytearray(b"ab"), b"ab", None),
        ("äö", "äö", "text/plain; charset=utf-8"),
        ([1, None, {"a": "b"}], [1, None, {"a": "b"}], "application/json"),
        (None, None, "application/json"),
        (b"", b"", None),
    ]:
        queue.enqueue(payload)
        with take(queue) as job:
            assert (job.value, job.content_type) == (value, content_type)
    queue.enqueue()
    assert take(queue).payload == b""
    queue.enqueue(b"<a/>", content_type="text/xml")
    job = take(queue)
    assert (job.value, job.content_type) == ("<a/>", "text/xml")


def test_many_jobs_are_enqueued_at_once(queue: flowmesh.Queue) -> None:
    own = flowmesh.NewJob("own", priority=9, headers={"a": "b"})
    assert own.payload == b"own"
    receipts = queue.enqueue_many([b"1", {"n": 2}, own, "4"], group="g")
    assert [receipt.outcome for receipt in receipts] == ["new"] * 4
    assert len({receipt.id for receipt in receipts}) == 4
    jobs = queue.reserve(10, timeout=WATCHDOG)
    assert [(job.value, job.group) for job in jobs] == [("own", None), (b"1", "g"), ({"n": 2}, "g"), ("4", "g")]
    assert queue.ack_many(jobs[:3]) == [None] * 3
    assert queue.enqueue_many([]) == []
    jobs[3].reject("no")
    # Each has its own answer.
    queue.enqueue(b"5")
    new = queue.reserve(1, lease=60, timeout=WATCHDOG)
    each = queue.ack_many([*new, jobs[0], jobs[3]])
    assert [type(error) for error in each] == [type(None), flowmesh.LeaseLostError, flowmesh.LeaseLostError]


def test_a_job_that_is_done_brings_the_next(queue: flowmesh.Queue) -> None:
    receipts = queue.enqueue_many(["a", "b", "c"])
    job = take(queue)
    second = job.ack_and_reserve({"n": 1}, lease=60)
    assert second is not None
    assert (second.id, second.value, second.lease, job.settled) == (receipts[1].id, "b", 60.0, True)
    assert queue.result(receipts[0]) == b'{"n":1}'
    # Whoever is told of an error is given no job.
    with pytest.raises(flowmesh.LeaseLostError):
        job.ack_and_reserve()
    for lease in (0, 0.5, 43_200.001, -1):
        with pytest.raises(flowmesh.InvalidArgumentError, match="lease"):
            second.ack_and_reserve(lease=lease)
    with pytest.raises(TypeError):
        second.ack_and_reserve(object())  # type: ignore[arg-type]
    with pytest.raises(flowmesh.TooLargeError, match="8388608"):
        second.ack_and_reserve(bytes((8 << 20) + 1))
    assert not second.settled
    jobs = queue.stats()["jobs"]
    assert (jobs["leased"], jobs["ready"], jobs["done"]) == (1, 1, 1)
    third = second.ack_and_reserve()
    assert third is not None
    assert (third.id, third.attempt, third.lease) == (receipts[2].id, 1, 30.0)
    assert third.ack_and_reserve() is None
    assert queue.stats()["totals"]["done"] == 3


def test_who_lost_his_job_gets_no_other_with_the_error(queue: flowmesh.Queue) -> None:
    queue.enqueue("lost")
    [job] = queue.reserve(lease=1, timeout=WATCHDOG)
    eventually(lambda: queue.stats()["totals"]["lease_expired"] == 1, "the lease is over")
    other = queue.enqueue("other")
    with pytest.raises(flowmesh.LeaseLostError):
        job.ack_and_reserve()
    found = queue.peek(other)
    assert (found["state"], found["attempt"]) == ("ready", 0)


def test_a_reservation_that_finds_nothing_is_empty(queue: flowmesh.Queue) -> None:
    assert queue.reserve(timeout=0) == []
    begun = time.monotonic()
    assert queue.next(timeout=0.05) is None
    assert time.monotonic() - begun >= 0.05


def test_who_waits_for_a_job_is_woken(queue: flowmesh.Queue, host: flowmesh.Mesh) -> None:
    found: list[flowmesh.Job] = []
    thread = threading.Thread(target=lambda: found.append(take(queue)))
    thread.start()
    host.queue("q").enqueue(b"x")
    thread.join(WATCHDOG)
    assert found[0].payload == b"x"


def test_what_a_worker_may_say(queue: flowmesh.Queue) -> None:
    receipt = queue.enqueue(b"x")
    take(queue).release()
    job = take(queue)
    assert job.attempt == 1
    job.nack("no luck", "at line 1", delay=0)
    with pytest.raises(flowmesh.LeaseLostError):
        job.ack()
    job = take(queue)
    assert job.attempt == 2
    job.progress({"percent": 50})
    info = queue.peek(receipt)
    assert (info["state"], info["progress"], info["worker"]) != ("ready", None, None)
    assert info["failures"][0]["message"] == "no luck"
    assert info["failures"][0]["detail"] == "at line 1"
    assert abs(info["failures"][0]["at"] - time.time()) < 60
    assert job.extend(60) > 59
    job.snooze(0.001)
    job = take(queue)
    assert job.attempt == 2
    job.reject(ValueError("never"))
    dead = queue.list("dead")
    assert [one["id"] for one in dead["jobs"]] == [receipt.id]
    assert dead["cursor"] is None
    assert dead["jobs"][0]["failures"][-1]["message"] == "ValueError: never"
    queue.redrive([receipt])
    job = take(queue)
    assert (job.attempt, job.redrives) == (1, 1)
    assert job.ack() == "os"


def test_leaving_a_job_acks_or_nacks_it(queue: flowmesh.Queue) -> None:
    queue.enqueue(b"x", backoff=0)
    with pytest.raises(KeyError), take(queue) as job:
        raise KeyError("gone")
    failure = queue.peek(job.id)["failures"][0]
    assert failure["message"] == "KeyError: 'gone'"
    assert "test_leaving_a_job_acks_or_nacks_it" in failure["detail"]
    with take(queue) as job:
        assert job.attempt == 2
    assert job.settled
    assert queue.stats()["totals"]["done"] == 1
    queue.enqueue(b"y")
    with take(queue) as job:
        job.release()
    assert queue.stats()["jobs"]["ready"] == 1


def test_jobs_can_be_iterated_over_until_the_mesh_is_closed(mesh: flowmesh.Mesh, queue: flowmesh.Queue) -> None:
    queue.enqueue_many([b"1", b"2"])
    got: list[bytes] = []

    def work() -> None:
        for job in queue:
            with job:
                got.append(job.payload)

    thread = threading.Thread(target=work)
    thread.start()
    eventually(lambda: queue.stats()["totals"]["done"] == 2, "both are done")
    mesh.close()
    thread.join(WATCHDOG)
    assert (thread.is_alive(), got) == (False, [b"1", b"2"])


def test_times_of_a_job(queue: flowmesh.Queue) -> None:
    soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
    at = queue.enqueue(b"", run_at=soon)
    due = queue.peek(at)["due"]
    assert due is not None
    assert abs(due - soon.timestamp()) < 1
    number = queue.enqueue(b"", run_at=soon.timestamp(), ttl=10.0)
    info = queue.peek(number)
    assert info["state"] == "scheduled"
    assert info["expires"] is not None
    past = queue.enqueue(b"past", run_at=0)
    assert take(queue).id == past.id
    delayed = queue.enqueue(b"", delay=3600)
    assert queue.peek(delayed)["state"] == "scheduled"
    assert queue.purge("scheduled") == 3


def test_unique_keys(queue: flowmesh.Queue) -> None:
    first = queue.enqueue(b"1", unique="k")
    again = queue.enqueue(b"2", unique=flowmesh.Unique("k"))
    assert (again.outcome, again.id) == ("existing", first.id)
    replaced = queue.enqueue(b"3", unique=flowmesh.Unique("k", on_conflict="replace"))
    assert (replaced.outcome, replaced.replaced) == ("replaced", first.id)
    extended = queue.enqueue(b"4", unique=flowmesh.Unique("k", scope="waiting", on_conflict="extend"))
    assert (extended.outcome, extended.id) == ("extended", replaced.id)
    assert queue.peek(replaced)["unique_key"] == "k"
    mine = uuid.uuid4()
    assert queue.enqueue(b"", id=mine).id == str(mine)
    assert queue.enqueue(b"", id=str(mine)).outcome == "existing"
    assert repr(flowmesh.Unique("k", 5.0, "keep_last")) == "Unique(\"k\", scope=5.0, on_conflict=\"keep_last\")"
    assert flowmesh.Unique("k", 5.0) == flowmesh.Unique("k", 5.0)


def test_settings_come_back_as_they_were_given(mesh: flowmesh.Mesh) -> None:
    mesh.declare_queue("dead")
    given: dict[str, Any] = {
        "lease": 5.0,
        "max_attempts": 7,
        "backoff": [1.0, 2.5],
        "deadline": 60.0,
        "ttl": 600.0,
        "max_length": 10,
        "payload_bytes_max": 1000,
        "concurrency": 3,
        "rate": flowmesh.Rate(100, per=2.0, burst=5),
        "group_concurrency": 1,
        "group_rate": flowmesh.Rate(1),
        "group_weights": {"a": 2, "b": 3},
        "aging": 1.0,
        "retention": {
            "done": {"age": 1.0, "count": 2},
            "dead": {"age": 3.0, "count": 4},
            "cancelled": {"age": 5.0, "count": 6},
            "expired": {"age": 7.0, "count": 8},
        },
        "dead_letter_to": "dead",
        "cancel_grace": 2.0,
        "uncounted_on_crash": True,
        "durability": 0.5,
    }
    queue = mesh.declare_queue("q", **given)
    assert dict(queue.config()) == given
    # What it gives can be given back.
    assert mesh.declare_queue("q", **queue.config()).name == "q"
    with pytest.raises(flowmesh.ConflictError) as raised:
        mesh.declare_queue("q")
    assert raised.value.context["field"] == "lease"
    queue.configure(backoff=flowmesh.Backoff(1, 3, 10, jitter=False), rate=5)
    config = queue.config()
    assert config["backoff"] == flowmesh.Backoff(1, 3, 10, jitter=False)
    assert config["rate"] == flowmesh.Rate(5)
    assert (config["lease"], config["durability"]) == (30.0, "fsync")
    queue.configure(backoff=4)
    assert queue.config()["backoff"] == 4.0
    assert mesh.declare_queue("plain", lease=None, rate=None, retention={"done": {"age": 60}}).config()["retention"][
        "done"
    ] == {"age": 60.0, "count": 1000}


def test_durability_by_call(mesh: flowmesh.Mesh) -> None:
    queue = mesh.declare_queue("q", durability="os")
    assert queue.enqueue(b"1").durability == "os"
    assert queue.enqueue(b"2", durability="fsync").durability == "fsync"
    assert [receipt.durability for receipt in queue.enqueue_many([b"3"], durability="fsync")] == ["fsync"]
    safe = queue.durable("fsync")
    assert safe.enqueue(b"4").durability == "fsync"
    assert take(safe).ack() == "fsync"
    assert queue.durable(60).enqueue(b"5").durability in ("os", "fsync", 60.0)


def test_looking_at_jobs(queue: flowmesh.Queue) -> None:
    receipts = queue.enqueue_many([str(n) for n in range(5)])
    first = queue.list("ready", limit=2)
    assert [job["id"] for job in first["jobs"]] == [receipt.id for receipt in receipts[:2]]
    rest = queue.list("ready", cursor=first["cursor"])
    assert [job["id"] for job in rest["jobs"]] == [receipt.id for receipt in receipts[2:]]
    content = queue.content(receipts[3].id)
    assert (content["value"], content["payload"], content["headers"]) == ("3", b"3", {})
    assert content["content_type"] == "text/plain; charset=utf-8"
    assert queue.result(receipts[0]) is None
    queue.remove(receipts[0])
    with pytest.raises(flowmesh.NotFoundError):
        queue.peek(receipts[0])
    assert queue.purge("ready") == 4
    odd = queue.enqueue(b"\xff", content_type="application/json")
    assert queue.content(odd)["value"] == b"\xff"


def test_cancelling(queue: flowmesh.Queue) -> None:
    waiting = queue.enqueue(b"1")
    assert queue.cancel(waiting, "not needed") == "now"
    assert queue.cancel(waiting) == "finished"
    assert queue.peek(waiting)["state"] == "cancelled"
    running = queue.enqueue(b"2")
    job = take(queue)
    assert queue.cancel(running) == "asked"
    eventually(lambda: job.is_cancelled, "the worker hears of it")
    assert queue.peek(running)["cancelling"]
    job.release()
    assert queue.peek(running)["state"] == "cancelled"


def test_pausing_and_draining(queue: flowmesh.Queue) -> None:
    queue.enqueue(b"1")
    queue.pause()
    assert queue.stats()["paused"]
    assert queue.next(timeout=0.02) is None
    queue.resume()
    take(queue).ack()
    queue.enqueue(b"2")
    assert queue.drain() is False
    with pytest.raises(flowmesh.DrainingError):
        queue.enqueue(b"3")
    take(queue).ack()
    assert queue.drain() is True
    queue.resume()
    queue.enqueue(b"4")


def test_dead_jobs_are_redriven(queue: flowmesh.Queue) -> None:
    queue.enqueue_many([b"x"] * 5)
    for job in queue.reserve(5, timeout=WATCHDOG):
        job.reject("no")
    assert queue.redrive_dead(2) == 2
    assert queue.redrive_dead() == 3
    for job in queue.reserve(5, timeout=WATCHDOG):
        job.reject("no")
    queue.redrive_at(3, flowmesh.Rate(1000))
    eventually(lambda: queue.stats()["jobs"]["ready"] == 3, "three are ready again")
    assert queue.stats()["totals"]["redriven"] == 8


def test_schedules(queue: flowmesh.Queue) -> None:
    queue.schedule(
        "report",
        "30 6 * * mon-fri",
        {"kind": "daily"},
        zone="Europe/Berlin",
        misfire="skip",
        overlap="replace",
        jitter=5,
        options={"priority": 4, "unique": "r", "headers": {"a": "b"}, "ttl": 60, "backoff": [1]},
    )
    [schedule] = queue.schedules()
    assert schedule["next"] > time.time()
    shown = {name: schedule[name] for name in ("name", "cron", "zone", "misfire", "overlap", "jitter")}
    assert shown == {
        "name": "report",
        "cron": "30 6 * * mon-fri",
        "zone": "Europe/Berlin",
        "misfire": "skip",
        "overlap": "replace",
        "jitter": 5.0,
    }
    assert json.loads(schedule["payload"]) == {"kind": "daily"}
    assert schedule["options"] == {
        "priority": 4,
        "unique": flowmesh.Unique("r"),
        "headers": {"a": "b"},
        "ttl": 60.0,
        "backoff": [1.0],
        "content_type": "application/json",
    }
    queue.schedule("often", "* * * * * *", b"tick")
    assert take(queue).payload == b"tick"
    queue.unschedule("often")
    assert [schedule["name"] for schedule in queue.schedules()] == ["report"]
    with pytest.raises(flowmesh.NotFoundError):
        queue.unschedule("often")


def test_jobs_outlive_the_host(directory: Path) -> None:
    with flowmesh.open(directory) as mesh:
        kept = mesh.declare_queue("q").enqueue("kept")
    with flowmesh.open(directory) as mesh:
        job = take(mesh.queue("q"))
        assert (job.id, job.value) == (kept.id, "kept")
    assert job.is_cancelled
    with pytest.raises(flowmesh.ClosedError):
        job.ack()


def test_a_dropped_queue_or_job_keeps_its_mesh(directory: Path) -> None:
    mesh = flowmesh.open(directory)
    job_of = mesh.declare_queue("q", durability="os")
    job_of.enqueue(b"x")
    job = take(job_of)
    del job_of
    gc.collect()
    job.ack()
    mesh.close()


def test_ctrl_c_ends_waiting_for_a_job(queue: flowmesh.Queue) -> None:
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        queue.next(timeout=WATCHDOG)
    queue.enqueue(b"x")
    assert take(queue).attempt == 1


# ---------- what is refused


@pytest.mark.parametrize(
    ("config", "texts"),
    [
        ({"lease": 0.5}, ["lease", "500ms", "1s"]),
        ({"lease": 13 * 3600}, ["lease", "43200s"]),
        ({"lease": -1}, ["lease", "-1"]),
        ({"lease": float("nan")}, ["lease", "NaN"]),
        ({"max_attempts": 0}, ["max_attempts", "0", "1000"]),
        ({"max_attempts": 10**30}, ["max_attempts"]),
        ({"backoff": []}, ["backoff", "0", "100"]),
        ({"backoff": [1] * 101}, ["100"]),
        ({"backoff": -1}, ["backoff", "-1"]),
        ({"max_length": 0}, ["max_length", "0"]),
        ({"payload_bytes_max": 1 << 40}, ["payload_bytes_max"]),
        ({"concurrency": 0}, ["concurrency", "0"]),
        ({"group_concurrency": 0}, ["concurrency", "0"]),
        ({"group_weights": {"a": 1001}}, ["weights", "1001", "1000"]),
        ({"aging": 0}, ["aging"]),
        ({"retention": {"done": {"age": 1e12}}}, ["retention.done"]),
        ({"dead_letter_to": "no such*"}, ["no such*"]),
        ({"dead_letter_to": "q"}, ["dead_letter_to"]),
        ({"durability": "disk"}, ["durability", "disk", "fsync"]),
        ({"durability": 0}, ["durability"]),
        ({"rate": 0}, ["rate", "0"]),
    ],
)
def test_settings_out_of_bounds(mesh: flowmesh.Mesh, config: dict[str, Any], texts: list[str]) -> None:
    with pytest.raises(flowmesh.InvalidArgumentError) as raised:
        mesh.declare_queue("q", **config)
    for text in texts:
        assert text in str(raised.value)
    assert mesh.queues() == []


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"leese": 5}, "leese"),
        ({"lease": "5"}, "lease must be a number of seconds, not str"),
        ({"lease": True}, "lease"),
        ({"max_attempts": 5.0}, "max_attempts must be int, not float"),
        ({"backoff": "1"}, "backoff"),
        ({"backoff": ["1"]}, "backoff"),
        ({"backoff": {"initial": 1}}, "backoff"),
        ({"rate": 1.5}, "rate"),
        ({"rate": "10/s"}, "rate"),
        ({"group_weights": [1]}, "group_weights"),
        ({"group_weights": {1: 1}}, "group_weights"),
        ({"retention": {"don": {"age": 1}}}, "retention.don"),
        ({"retention": {"done": {"ages": 1}}}, "retention.done.ages"),
        ({"retention": {"done": 5}}, "retention"),
        ({"dead_letter_to": 5}, "dead_letter_to"),
        ({"uncounted_on_crash": 1}, "uncounted_on_crash"),
        ({"durability": b"os"}, "durability"),
    ],
)
def test_settings_of_the_wrong_type(mesh: flowmesh.Mesh, config: dict[str, Any], text: str) -> None:
    with pytest.raises(TypeError, match=text):
        mesh.declare_queue("q", **config)
    assert mesh.queues() == []


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ({"priority": 256}, ["priority", "256", "0 to 255"]),
        ({"priority": -1}, ["priority", "-1"]),
        ({"delay": -0.1}, ["delay", "-0.1"]),
        ({"delay": 1e12}, ["delay"]),
        ({"delay": 1, "run_at": 10**9}, ["run_at", "one of the two"]),
        ({"run_at": -5}, ["run_at", "-5"]),
        ({"ttl": 0}, ["ttl"]),
        ({"unique": ""}, ["unique.key"]),
        ({"group": ""}, ["group"]),
        ({"id": "x"}, ["x", "UUID"]),
        ({"max_attempts": 1001}, ["max_attempts", "1001"]),
        ({"lease": 0}, ["lease"]),
        ({"headers": {"": "x"}}, ["header"]),
        ({"content_type": "x" * 256}, ["content_type", "256", "255"]),
        ({"group": "g" * 1025}, ["group", "1025", "1024"]),
        ({"headers": {"a": "x" * 70000}}, ["header_bytes", "70001", "65536"]),
        ({"headers": {f"h{n}": "" for n in range(257)}}, ["header_count", "257", "256"]),
        ({"unique": "k" * 1025}, ["unique.key", "1025", "1024"]),
        ({"lease": 43_200.001}, ["lease", "43200.001s", "1s to 43200s"]),
    ],
)
def test_options_out_of_bounds(queue: flowmesh.Queue, options: dict[str, Any], texts: list[str]) -> None:
    for attempt in (
        lambda: queue.enqueue(b"", **options),
        lambda: queue.enqueue_many([b""], **options),
        lambda: flowmesh.NewJob(b"", **options),
    ):
        with pytest.raises((flowmesh.InvalidArgumentError, flowmesh.TooLargeError)) as raised:
            attempt()
        for text in texts:
            assert text in str(raised.value)
    assert queue.stats()["totals"]["enqueued"] == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"prioritee": 1}, "prioritee"),
        ({"priority": "high"}, "priority must be int, not str"),
        ({"delay": "1"}, "delay"),
        ({"run_at": "tomorrow"}, "run_at"),
        ({"unique": 5}, "unique"),
        ({"group": 5}, "group"),
        ({"headers": {"a": 1}}, "headers"),
        ({"id": 5}, "id must be str"),
    ],
)
def test_options_of_the_wrong_type(queue: flowmesh.Queue, options: dict[str, Any], text: str) -> None:
    for attempt in (
        lambda: queue.enqueue(b"", **options),
        lambda: queue.enqueue_many([], **options),
        lambda: flowmesh.NewJob(b"", **options),
        lambda: queue.schedule("s", "@daily", options=options),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError, match=text):
            attempt()
    assert queue.stats()["totals"]["enqueued"] == 0


def refusals(queue: flowmesh.Queue) -> Iterator[tuple[Callable[[], object], type[Exception], str]]:
    queue_: Any = queue
    invalid = flowmesh.InvalidArgumentError
    yield lambda: queue.reserve(0), invalid, "1 to 1000"
    yield lambda: queue.reserve(1001), flowmesh.TooLargeError, "1001"
    yield lambda: queue.reserve(-1), invalid, "-1"
    yield lambda: queue.reserve(lease=0.1, timeout=0), invalid, "lease"
    yield lambda: queue.reserve(lease=0, timeout=0), invalid, "lease"
    yield lambda: queue.reserve(lease=43_200.001, timeout=0), invalid, "43200.001s"
    yield lambda: queue.next(-1), invalid, "timeout"
    yield lambda: queue_.reserve("1"), TypeError, "str"
    yield lambda: queue_.enqueue(object()), TypeError, "payload"
    yield lambda: queue_.enqueue_many("abc"), TypeError, "jobs"
    yield lambda: queue_.enqueue_many(b"abc"), TypeError, "jobs"
    yield lambda: queue_.enqueue_many([object()]), TypeError, "payload"
    yield lambda: queue_.enqueue_many(5), TypeError, "iterable"
    yield lambda: queue.enqueue_many([b""] * 10_001), flowmesh.TooLargeError, "10000"
    yield lambda: queue.enqueue(bytes((8 << 20) + 1)), flowmesh.TooLargeError, "8388608"
    yield lambda: queue_.ack_many([1]), TypeError, "flowmesh.Job"
    yield lambda: queue_.list("running"), invalid, "running"
    yield lambda: queue.list("ready", limit=0), invalid, "1 to 1000"
    yield lambda: queue.list("ready", limit=1001), invalid, "1001"
    yield lambda: queue.list("ready", cursor="x"), invalid, "cursor"
    yield lambda: queue.peek("x"), invalid, "UUID"
    yield lambda: queue_.peek(5), TypeError, "id"
    yield lambda: queue.peek(ANY_ID), flowmesh.NotFoundError, ANY_ID
    yield lambda: queue.remove(ANY_ID), flowmesh.NotFoundError, ANY_ID
    yield lambda: queue.cancel(ANY_ID), flowmesh.NotFoundError, ANY_ID
    yield lambda: queue.redrive([ANY_ID]), flowmesh.NotFoundError, ANY_ID
    yield lambda: queue_.redrive(ANY_ID), TypeError, "ids"
    yield lambda: queue.purge("leased"), invalid, "leased"
    yield lambda: queue_.redrive_at(1, "fast"), TypeError, "rate"
    yield lambda: queue.redrive_at(-1, 5), invalid, "count"
    yield lambda: queue.redrive_dead(-1), invalid, "most"
    yield lambda: queue.schedule("s", "61 * * * *"), invalid, "61"
    yield lambda: queue.schedule("s", "@daily", zone="Mars/Base"), invalid, "Mars/Base"
    yield lambda: queue.schedule("s", "@daily", jitter=1e6), invalid, "jitter"
    yield lambda: queue_.schedule("s", "@daily", misfire="never"), invalid, "never"
    yield lambda: queue_.schedule("s", "@daily", overlap="never"), invalid, "never"
    yield lambda: queue.schedule("s", "@daily", options={"delay": 5}), invalid, "delay"
    yield lambda: queue_.schedule("s", "@daily", options=5), TypeError, "options"
    yield lambda: queue.configure(lease=0), invalid, "lease"
    yield lambda: queue_.configure(leese=5), TypeError, "leese"
    yield lambda: queue.durable(-1), invalid, "durability"
    yield lambda: queue.durable("memory"), invalid, "memory"  # type: ignore[arg-type]
    yield lambda: queue.redrive_at(1, flowmesh.Rate(0)), invalid, "rate=0"
    yield lambda: queue.configure(rate=flowmesh.Rate(1, per=0)), invalid, "per 0"
    yield lambda: queue.configure(group_rate=flowmesh.Rate(1, burst=0)), invalid, "burst 0"
    yield lambda: queue.configure(rate=flowmesh.Rate(2_000_000_000)), invalid, "1 to 1000000000"
    yield lambda: flowmesh.Rate(2**40), invalid, "count=1099511627776"
    yield lambda: flowmesh.Rate(1, per=-1), invalid, "per=-1"
    yield lambda: flowmesh.Unique("k", "never"), invalid, "never"  # type: ignore[arg-type]
    yield lambda: flowmesh.Unique("k", -1), invalid, "-1"
    yield lambda: flowmesh.Unique("k", on_conflict="fail"), invalid, "fail"  # type: ignore[arg-type]
    yield lambda: flowmesh.Unique("k" * 1025), flowmesh.TooLargeError, "1025"
    yield lambda: flowmesh.Retry(backoff=flowmesh.Backoff(jitter=True)), invalid, "jitter"


def test_calls_that_are_refused(queue: flowmesh.Queue) -> None:
    for call, kind, text in refusals(queue):
        with pytest.raises(kind) as raised:
            call()
        assert text in str(raised.value), raised.value
    assert queue.stats()["totals"]["enqueued"] == 0
    assert queue.schedules() == []


def test_jobs_refuse_what_makes_no_sense(queue: flowmesh.Queue) -> None:
    queue.enqueue(b"x")
    job: Any = take(queue)
    calls: list[tuple[Callable[[], object], type[Exception]]] = [
        (lambda: job.nack(5), TypeError),
        (lambda: job.nack("x", delay=-1), flowmesh.InvalidArgumentError),
        (lambda: job.reject(5), TypeError),
        (lambda: job.snooze(-1), flowmesh.InvalidArgumentError),
        (lambda: job.snooze(1e12), flowmesh.InvalidArgumentError),
        (lambda: job.extend(0), flowmesh.InvalidArgumentError),
        (lambda: job.extend(0.5), flowmesh.InvalidArgumentError),
        (lambda: job.extend(43_200.001), flowmesh.InvalidArgumentError),
        (lambda: job.nack("x", delay=1e12), flowmesh.InvalidArgumentError),
        (lambda: job.progress(b"x" * 5000), flowmesh.TooLargeError),
        (lambda: job.ack(object()), TypeError),
        (lambda: job.ack(bytes((8 << 20) + 1)), flowmesh.TooLargeError),
        (lambda: pickle.dumps(job), TypeError),
    ]
    for call, kind in calls:
        with pytest.raises(kind):
            call()
        assert not job.settled
    assert job.ack() == "os"


def test_names_of_queues_are_bounded(mesh: flowmesh.Mesh) -> None:
    for name in ("", "a b", "n" * 256):
        with pytest.raises(flowmesh.InvalidArgumentError) as raised:
            mesh.declare_queue(name)
        assert "name" in str(raised.value)
    assert mesh.declare_queue("n" * 255, durability="os").name == "n" * 255
    assert mesh.queues() == ["n" * 255]


def test_a_full_queue(mesh: flowmesh.Mesh) -> None:
    queue = mesh.declare_queue("q", max_length=2, durability="os")
    queue.enqueue_many([b"1", b"2"])
    with pytest.raises(flowmesh.FullError):
        queue.enqueue(b"3")


# ---------- the directory


def test_a_directory_can_be_inspected(directory: Path) -> None:
    with pytest.raises(flowmesh.NotFoundError):
        flowmesh.inspect(directory / "none")
    with flowmesh.open(directory) as mesh:
        queue = mesh.declare_queue("q", durability="os")
        for _ in range(10):
            queue.enqueue(b"x")
    found = flowmesh.inspect(directory)
    assert (found["damages"], len(found["segments"]) >= 1, found["entries"] >= 11) == ([], True, True)
    assert found["range"] is not None
    segment = directory / "ledger" / found["segments"][0]["file"]
    bytes_ = bytearray(segment.read_bytes())
    at = found["segments"][0]["end"] - 300  # one of the last jobs
    bytes_[at] ^= 0xFF
    segment.write_bytes(bytes_)
    damage = flowmesh.inspect(directory)["damages"][0]
    assert damage["file"] == segment.name
    assert 0 < damage["offset"] <= at
    with pytest.raises(flowmesh.CorruptError) as raised:
        flowmesh.open(directory)
    assert raised.value.context["file"] == segment.name
    with flowmesh.open(directory, repair=True) as mesh:
        assert mesh.queue("q").stats()["jobs"]["ready"] == 9
    assert flowmesh.inspect(directory)["damages"] == []
    assert list((directory / "ledger" / "quarantine").iterdir()) != []


def test_a_worker_that_lost_its_lease_sees_it(mesh: flowmesh.Mesh) -> None:
    queue = mesh.declare_queue("q", durability="os", lease=1, backoff=0)
    queue.enqueue(b"x")
    late, again = take(queue), take(queue)
    assert (late.id, again.attempt) == (again.id, 2)
    with pytest.raises(flowmesh.LeaseLostError):
        late.extend()
    assert late.is_cancelled
    with pytest.raises(flowmesh.LeaseLostError):
        late.ack("stale")
    again.ack("fresh")
    assert queue.stats()["totals"]["done"] == 1
