#!/usr/bin/env python3
"""Runs the scenarios of tests/behaviour/README.md in Python: run.py [FILE…]."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flowmesh

HERE = Path(__file__).resolve().parent
WATCHDOG = 10.0
Step = dict[str, Any]


class Failed(Exception):
    """A step did not do what the scenario says."""


def main() -> int:
    # Handlers that are meant to fail would fill the screen.
    logging.getLogger("flowmesh").setLevel(logging.CRITICAL)
    files = [Path(name) for name in sys.argv[1:]] or sorted(HERE.glob("*.json"))
    passed = failed = 0
    for file in files:
        scenario = json.loads(file.read_text(encoding="utf-8"))
        for role in scenario.get("on", ["host", "client"]):
            # The last resort when a step hangs for good: says where, and ends the run.
            faulthandler.dump_traceback_later(12 * WATCHDOG, exit=True)
            try:
                Run(scenario, role).run()
                print(f"ok {scenario['name']} on {role}", flush=True)
                passed += 1
            except Failed as reason:
                print(f"FAILED {scenario['name']} on {role}: {reason}", flush=True)
                failed += 1
            faulthandler.cancel_dump_traceback_later()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


class Handler:
    """What a `serve` step answers with, and how often it was at work."""

    def __init__(self, spec: Any) -> None:
        self.started = self.cancelled = 0
        self.service: flowmesh.Service | None = None
        self._lock = threading.Lock()
        self._answer: Callable[[flowmesh.Request], object]
        if isinstance(spec, str):
            self._answer = {"echo": self._echo, "upper": self._upper, "never": self._never}[spec]
        else:
            [(kind, value)] = spec.items()
            make: dict[str, Callable[[Any], Callable[[flowmesh.Request], object]]]
            make = {"reply": self._reply, "fail": self._fail, "echo_after": self._echo_after}
            self._answer = make[kind](value)

    def __call__(self, request: flowmesh.Request) -> object:
        with self._lock:
            self.started += 1
        return self._answer(request)

    def _echo(self, request: flowmesh.Request) -> object:
        return flowmesh.Reply(request.payload, headers=request.headers)

    def _upper(self, request: flowmesh.Request) -> object:
        return request.payload.upper()

    def _never(self, request: flowmesh.Request) -> object:
        self._wait(request, None)
        raise RuntimeError("nobody waits for this")

    def _reply(self, payload: Any) -> Callable[[flowmesh.Request], object]:
        return lambda request: to_bytes(payload)

    def _fail(self, error: Step) -> Callable[[flowmesh.Request], object]:
        def fail(request: flowmesh.Request) -> object:
            raise named_error(**error)

        return fail

    def _echo_after(self, ms: int) -> Callable[[flowmesh.Request], object]:
        def echo(request: flowmesh.Request) -> object:
            self._wait(request, ms / 1000)
            return self._echo(request)

        return echo

    def _wait(self, request: flowmesh.Request, seconds: float | None) -> None:
        until = None if seconds is None else time.monotonic() + seconds
        while until is None or time.monotonic() < until:
            if request.cancelled:
                with self._lock:
                    self.cancelled += 1
                return
            if self.service is not None and self.service.closed:
                return
            time.sleep(0.001)


class Work:
    """What a `work` step's handler does, and how often it was at work."""

    def __init__(self, spec: Any) -> None:
        self.started = self.cancelled = 0
        self.worker: flowmesh.Worker | None = None
        self._may_go = threading.Event()
        self._lock = threading.Lock()
        self._put_off: set[str] = set()
        kind: str
        self._value: Any
        kind, self._value = (spec, None) if isinstance(spec, str) else next(iter(spec.items()))
        self._act: Callable[[flowmesh.Job], object] = getattr(self, f"_{kind}")

    def __call__(self, job: flowmesh.Job) -> object:
        with self._lock:
            self.started += 1
        return self._act(job)

    def let_go(self) -> None:
        self._may_go.set()

    def _echo(self, job: flowmesh.Job) -> object:
        return job.payload

    def _quiet(self, job: flowmesh.Job) -> object:
        return None

    def _fail(self, job: flowmesh.Job) -> object:
        if job.attempt <= self._value.get("times", job.attempt):
            raise named_error(self._value["type"], self._value["message"])
        return job.payload

    def _reject(self, job: flowmesh.Job) -> object:
        raise flowmesh.Reject(self._value)

    def _snooze_ms(self, job: flowmesh.Job) -> object:
        if job.id not in self._put_off:
            self._put_off.add(job.id)
            raise flowmesh.Snooze(self._value / 1000)
        return job.payload

    def _settle(self, job: flowmesh.Job) -> object:
        job.ack(b"own")
        return b"ignored"

    def _progress(self, job: flowmesh.Job) -> object:
        job.progress(to_bytes(self._value))
        return self._hold(job)

    def _hold(self, job: flowmesh.Job) -> object:
        while not self._may_go.wait(0.002):
            if job.is_cancelled:
                with self._lock:
                    self.cancelled += 1
                return None
        return job.payload


class Run:
    """One scenario in one role. Each `do` is a method; a field it does not take is an error."""

    def __init__(self, scenario: Step, role: str) -> None:
        self.scenario = scenario
        self.role = role
        self.directory = Path(tempfile.mkdtemp(prefix="fm", dir="/tmp"))
        self.meshes: dict[str, flowmesh.Mesh] = {}
        self.subscriptions: dict[str, flowmesh.Subscription] = {}
        self.services: dict[str, flowmesh.Service] = {}
        self.handlers: dict[str, Handler] = {}
        self.calls: dict[str, flowmesh.PendingCall] = {}
        self.impostors: list[socket.socket] = []
        self.queues: dict[str, flowmesh.Queue] = {}
        self.owners: dict[str, flowmesh.Mesh] = {}
        self.jobs: dict[str, flowmesh.Job] = {}
        self.ids: dict[str, str] = {}
        self.cursors: dict[str, str | None] = {}
        self.reservations: dict[str, Reservation] = {}
        self.works: dict[str, Work] = {}
        self.marked = time.monotonic()

    def run(self) -> None:
        at, do = 0, "open"
        try:
            host = self.meshes["host"] = flowmesh.open(self.directory, name="host", **self.host_options())
            self.meshes["me"] = host
            if self.role == "client":
                self.meshes["me"] = flowmesh.connect(self.directory, name="me", **self.client_options())
            for at, template in enumerate(self.scenario["steps"], 1):
                do = template["do"]
                for i in range(template.get("times", 1)):
                    text = json.dumps(template).replace("{i}", str(i)).replace("{pid}", str(os.getpid()))
                    self.perform(json.loads(text))
        except Failed as reason:
            raise Failed(f"step {at} ({do}): {reason}") from None
        except Exception as error:
            raise Failed(f"step {at} ({do}): {error!r}") from error
        finally:
            for impostor in self.impostors:
                impostor.close()
            for work in self.works.values():
                work.let_go()
            for mesh in reversed(self.meshes.values()):
                mesh.close()
            shutil.rmtree(self.directory, ignore_errors=True)

    def host_options(self) -> Step:
        return {**self.scenario.get("mesh", {}), **self.client_options()}

    def client_options(self) -> Step:
        breaker = self.scenario.get("mesh", {}).get("breaker")
        if isinstance(breaker, dict):
            return {"breaker": flowmesh.Breaker(**seconds(breaker))}
        return {} if breaker is None else {"breaker": breaker}

    def perform(self, step: Step) -> None:
        fields = {name: value for name, value in step.items() if name not in ("do", "times", "error", "on")}
        act = getattr(self, f"do_{step['do']}", None)
        if act is None:
            raise Failed("no such step")
        mesh = self.meshes[step.get("on", "me")]
        expected = step.get("error")
        try:
            names = QUEUE_NAMES if step["do"] in QUEUE_STEPS else PYTHON_NAMES
            act(mesh, **{names.get(name, name): value for name, value in fields.items()})
        except flowmesh.FlowMeshError as error:
            if expected is None:
                raise
            if error.code != expected["kind"]:
                raise Failed(f"failed with {error.code}, not {expected['kind']}: {error}") from error
            for text in expected.get("contains", []):
                if text not in str(error):
                    raise Failed(f"{str(error)!r} does not contain {text!r}") from error
            return
        if expected is not None:
            raise Failed(f"did not fail with {expected['kind']}")

    # ---------- meshes

    def do_open(self, mesh: flowmesh.Mesh, name: str, dir: str = ".", repair: bool = False) -> None:
        options = self.host_options()
        self.meshes[name] = flowmesh.open(self.directory / dir, name=name, repair=repair, **options)

    def do_connect(
        self, mesh: flowmesh.Mesh, name: str, dir: str = ".", shown: str | None = None, shared_memory: bool = True
    ) -> None:
        self.meshes[name] = flowmesh.connect(
            self.directory / dir, name=shown or name, shared_memory=shared_memory, **self.client_options()
        )

    def do_impostor(self, mesh: flowmesh.Mesh, dir: str, socket_name: str) -> None:
        (self.directory / dir).mkdir()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(self.directory / dir / socket_name))
        listener.listen()
        self.impostors.append(listener)

        def answer() -> None:
            # Ends when the listener is closed.
            with contextlib.suppress(OSError):
                while True:
                    stream, _ = listener.accept()
                    with stream:
                        stream.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                        stream.shutdown(socket.SHUT_WR)
                        stream.recv(256)

        threading.Thread(target=answer, daemon=True).start()

    def do_close(self, mesh: flowmesh.Mesh, what: str) -> None:
        for handles in (self.meshes, self.subscriptions, self.services):
            if what in handles:
                handles[what].close()
                return
        raise Failed(f"nothing is named {what}")

    def do_info(self, mesh: flowmesh.Mesh, expect: Step) -> None:
        for name, value in expect.items():
            found: object = getattr(mesh, name)
            meets(name, str(found) if name == "host_pid" else found, value)

    # ---------- events

    def do_subscribe(self, mesh: flowmesh.Mesh, name: str, pattern: str, options: Step | None = None) -> None:
        given = dict(options or {})
        if "block_ms" in given:
            given["block_timeout"] = given.pop("block_ms") / 1000
        if "retry" in given:
            given["retry"] = retry(**given["retry"])
        self.subscriptions[name] = mesh.subscribe(pattern, **given)

    def do_publish(self, mesh: flowmesh.Mesh, subject: str, payload: Any = "", **options: Any) -> None:
        mesh.publish(subject, to_bytes(payload), **seconds(options))

    def do_publish_many(self, mesh: flowmesh.Mesh, events: list[tuple[str, Any]], **options: Any) -> None:
        mesh.publish_many([(subject, to_bytes(payload)) for subject, payload in events], **options)

    def do_receive(
        self,
        mesh: flowmesh.Mesh,
        subscription: str,
        timeout_ms: float = WATCHDOG * 1000,
        expect: Step | None = None,
        after_ms: float | None = None,
        fail: Step | None = None,
    ) -> None:
        message = self.subscriptions[subscription].receive(timeout_ms / 1000)
        if after_ms is not None and (time.monotonic() - self.marked) * 1000 < after_ms:
            raise Failed(f"came {(time.monotonic() - self.marked) * 1000:.1f} ms after the mark")
        wanted = dict(expect or {})
        if isinstance(wanted.get("payload"), dict) and "job" in wanted["payload"]:
            about = wanted.pop("payload")
            meets("job", message.value["job"], self.job_id(about["job"]))
            meets("attempt", message.value["attempt"], about["attempt"])
        looks_like(message, wanted)
        if fail is not None:
            self.subscriptions[subscription].fail(message, named_error(**fail))

    def do_gather(
        self, mesh: flowmesh.Mesh, subscription: list[str], payloads: list[Any], each_at_least: int = 0
    ) -> None:
        wanted = sorted(map(to_bytes, payloads))
        counts = dict.fromkeys(subscription, 0)
        got: list[bytes] = []
        until = time.monotonic() + WATCHDOG
        while len(got) < len(wanted):
            if time.monotonic() > until:
                raise Failed(f"only {len(got)} events came: {sorted(got)}")
            for name in subscription:
                with contextlib.suppress(flowmesh.TimeoutError):
                    got.append(self.subscriptions[name].receive(0.005).payload)
                    counts[name] += 1
        if sorted(got) != wanted:
            raise Failed(f"got {sorted(got)}")
        if min(counts.values()) < each_at_least:
            raise Failed(f"shared as {counts}")

    def do_expect_nothing(self, mesh: flowmesh.Mesh, subscription: str, for_ms: float = 50) -> None:
        try:
            message = self.subscriptions[subscription].receive(for_ms / 1000)
        except flowmesh.TimeoutError:
            return
        raise Failed(f"got {message}")

    def do_subscription_stats(self, mesh: flowmesh.Mesh, of: str, expect: Step) -> None:
        until_met(lambda: dict(self.subscriptions[of].stats()), expect)

    # ---------- calls

    def do_serve(
        self, mesh: flowmesh.Mesh, name: str, service: str, handler: Any, options: Step | None = None
    ) -> None:
        answer = Handler(handler)
        self.services[name] = answer.service = mesh.serve(service, answer, **(options or {}))
        self.handlers[name] = answer

    def do_handled(
        self, mesh: flowmesh.Mesh, of: str, started: int | None = None, cancelled: int | None = None
    ) -> None:
        handler = self.handlers[of]
        expect = {"started": started, "cancelled": cancelled}
        until_met(
            lambda: {"started": handler.started, "cancelled": handler.cancelled},
            {name: count for name, count in expect.items() if count is not None},
        )

    def do_call(
        self,
        mesh: flowmesh.Mesh,
        service: str,
        payload: Any = "",
        headers: dict[str, str] | None = None,
        timeout_ms: float = WATCHDOG * 1000,
        expect: Step | None = None,
    ) -> None:
        answer = mesh.call(service, to_bytes(payload), headers=headers, timeout=timeout_ms / 1000)
        looks_like(answer, expect or {})

    def do_start_call(
        self,
        mesh: flowmesh.Mesh,
        name: str,
        service: str,
        payload: Any = "",
        headers: dict[str, str] | None = None,
        timeout_ms: float = WATCHDOG * 1000,
    ) -> None:
        self.calls[name] = mesh.start_call(service, to_bytes(payload), headers=headers, timeout=timeout_ms / 1000)

    def do_finish(self, mesh: flowmesh.Mesh, call: str, expect: Step | None = None) -> None:
        looks_like(self.calls.pop(call).wait(WATCHDOG), expect or {})

    def do_cancel(self, mesh: flowmesh.Mesh, call: str) -> None:
        self.calls[call].cancel()

    def do_services(self, mesh: flowmesh.Mesh, expect: dict[str, Step]) -> None:
        def found() -> dict[str, Step]:
            return {
                service["name"]: {
                    "instances": len(service["instances"]),
                    "versions": sorted(instance["version"] for instance in service["instances"]),
                }
                for service in mesh.services()
            }

        until = time.monotonic() + WATCHDOG
        while True:
            now = found()
            trimmed = {name: {field: now[name][field] for field in expect.get(name, {})} for name in now}
            if trimmed == expect:
                return
            if time.monotonic() > until:
                raise Failed(f"discovery lists {now}")
            time.sleep(0.002)

    def do_stats(self, mesh: flowmesh.Mesh, expect: Step) -> None:
        until_met(mesh.stats, expect)

    # ---------- queues

    def do_declare_queue(self, mesh: flowmesh.Mesh, of: str, name: str | None = None, config: Step | None = None) -> None:
        self.queues[name or of] = mesh.declare_queue(of, **queue_config(config or {}))
        self.owners[name or of] = mesh

    def do_queue(self, mesh: flowmesh.Mesh, of: str, name: str | None = None) -> None:
        self.queues[name or of] = mesh.queue(of)
        self.owners[name or of] = mesh

    def do_queues(self, mesh: flowmesh.Mesh, expect: list[str]) -> None:
        meets("queues", mesh.queues(), expect)

    def queue(self, name: str, durability: Any = None) -> flowmesh.Queue:
        if name not in self.queues:
            raise Failed(f"no queue is named {name}")
        queue = self.queues[name]
        return queue if durability is None else queue.durable(durability_of(durability))

    def job_id(self, name: str) -> str:
        return name if len(name) == 36 else self.ids[name]

    def do_configure(self, mesh: flowmesh.Mesh, queue: str, config: Step, durability: Any = None) -> None:
        self.queue(queue, durability).configure(**queue_config(config))

    def do_config(self, mesh: flowmesh.Mesh, queue: str, expect: Step, durability: Any = None) -> None:
        found: Step = dict(self.queue(queue, durability).config())
        for name, wanted in queue_config(expect).items():
            if name == "retention":
                for state, keep in wanted.items():
                    meets_value(f"retention.{state}", found["retention"][state], keep)
            elif isinstance(wanted, dict) and name != "group_weights":
                meets(name, found[name], flowmesh.Backoff(**wanted))
            else:
                meets_value(name, found[name], wanted)

    def do_enqueue(
        self,
        mesh: flowmesh.Mesh,
        queue: str,
        payload: Any = "",
        name: str | None = None,
        durability: Any = None,
        reached: Any = None,
        outcome: str = "new",
        same_as: str | None = None,
        **options: Any,
    ) -> None:
        receipt = self.queue(queue, durability).enqueue(to_bytes(payload), **job_options(options))
        self.check_receipt(receipt, outcome, same_as, reached)
        if name is not None:
            self.ids[name] = receipt.id

    def check_receipt(self, receipt: flowmesh.Receipt, outcome: str, same_as: str | None, reached: Any) -> None:
        meets("outcome", receipt.outcome, outcome)
        if same_as is not None:
            found = receipt.replaced if outcome == "replaced" else receipt.id
            meets("the job", found, self.ids[same_as])
        check_reached(receipt.durability, reached)

    def do_enqueue_many(
        self,
        mesh: flowmesh.Mesh,
        queue: str,
        jobs: list[Step],
        repeat: int = 1,
        durability: Any = None,
        reached: Any = None,
        outcomes: list[str] | None = None,
    ) -> None:
        all_ = [dict(job) for _ in range(repeat) for job in jobs]
        names = [job.pop("as", None) for job in all_]
        new = [flowmesh.NewJob(to_bytes(job.pop("payload", "")), **job_options(job)) for job in all_]
        receipts = self.queue(queue, durability).enqueue_many(new)
        meets("outcomes", [receipt.outcome for receipt in receipts], outcomes or ["new"] * len(new))
        for name, receipt in zip(names, receipts, strict=True):
            check_reached(receipt.durability, reached)
            if name is not None:
                self.ids[name] = receipt.id

    def do_reserve(
        self,
        mesh: flowmesh.Mesh,
        queue: str,
        name: str | list[str] | None = None,
        count: int | None = None,
        lease_ms: float | None = None,
        timeout_ms: float = WATCHDOG * 1000,
        durability: Any = None,
        **expected: Any,
    ) -> None:
        names = [name] if isinstance(name, str) else name or []
        lease = None if lease_ms is None else lease_ms / 1000
        most = len(names) or 1 if count is None else count
        jobs = self.queue(queue, durability).reserve(most, lease=lease, timeout=timeout_ms / 1000)
        self.check_jobs(jobs, names, **expected)

    def check_jobs(
        self,
        jobs: list[flowmesh.Job],
        names: list[str],
        expect: Step | None = None,
        payloads: list[Any] | None = None,
        after_ms: float | None = None,
    ) -> None:
        if not jobs:
            raise Failed("no job came in time")
        if after_ms is not None and (time.monotonic() - self.marked) * 1000 < after_ms:
            raise Failed(f"came {(time.monotonic() - self.marked) * 1000:.1f} ms after the mark")
        if payloads is not None:
            meets("payloads", [job.payload for job in jobs], [to_bytes(payload) for payload in payloads])
        if names:
            meets("jobs", len(jobs), len(names))
        self.jobs.update(zip(names, jobs, strict=False))
        for field, wanted in (expect or {}).items():
            if field == "payload":
                meets(field, jobs[0].payload, to_bytes(wanted))
            elif field == "id":
                meets(field, jobs[0].id, self.job_id(wanted))
            elif field == "lease_ms":
                meets(field, round(jobs[0].lease * 1000), wanted)
            elif field == "headers":
                meets_headers(jobs[0].headers, wanted)
            elif field in ("attempt", "max_attempts", "priority", "redrives", "group", "content_type"):
                meets_value(field, getattr(jobs[0], field), wanted)
            else:
                raise Failed(f"nothing is known of {field}")

    def do_start_reserve(
        self,
        mesh: flowmesh.Mesh,
        name: str,
        queue: str,
        count: int = 1,
        lease_ms: float | None = None,
        timeout_ms: float = WATCHDOG * 1000,
        durability: Any = None,
    ) -> None:
        lease = None if lease_ms is None else lease_ms / 1000
        handle = self.queue(queue, durability)
        self.reservations[name] = Reservation(lambda: handle.reserve(count, lease=lease, timeout=timeout_ms / 1000))

    def do_finish_reserve(
        self,
        mesh: flowmesh.Mesh,
        reserve: str,
        name: str | list[str] | None = None,
        none: bool = False,
        **expected: Any,
    ) -> None:
        jobs = self.reservations.pop(reserve).finish()
        if none:
            meets("jobs", len(jobs), 0)
        else:
            self.check_jobs(jobs, [name] if isinstance(name, str) else name or [], **expected)

    def do_expect_no_job(
        self, mesh: flowmesh.Mesh, queue: str, for_ms: float = 50, durability: Any = None
    ) -> None:
        job = self.queue(queue, durability).next(timeout=for_ms / 1000)
        if job is not None:
            raise Failed(f"got {job} with {job.payload[:100]!r}")

    def do_take(
        self,
        mesh: flowmesh.Mesh,
        queue: str,
        payloads: list[Any],
        any_order: bool = False,
        after_ms: float | None = None,
        durability: Any = None,
    ) -> None:
        handle = self.queue(queue, durability)
        got: list[bytes] = []
        wanted = [to_bytes(payload) for payload in payloads]
        for _ in wanted:
            job = handle.next(timeout=WATCHDOG)
            if job is None:
                raise Failed(f"only {got} came")
            job.ack()
            got.append(job.payload)
        if after_ms is not None and (time.monotonic() - self.marked) * 1000 < after_ms:
            raise Failed(f"came {(time.monotonic() - self.marked) * 1000:.1f} ms after the mark")
        meets("payloads", sorted(got) if any_order else got, sorted(wanted) if any_order else wanted)

    def do_ack(self, mesh: flowmesh.Mesh, job: str, result: Any = None, reached: Any = None) -> None:
        check_reached(self.jobs[job].ack(None if result is None else to_bytes(result)), reached)

    def do_ack_many(
        self,
        mesh: flowmesh.Mesh,
        queue: str,
        jobs: list[str],
        errors: list[str | None] | None = None,
        durability: Any = None,
    ) -> None:
        each = self.queue(queue, durability).ack_many([self.jobs[job] for job in jobs])
        found = [getattr(error, "code", None) for error in each]
        meets("errors", found, errors or [None] * len(jobs))

    def do_ack_and_reserve(
        self,
        mesh: flowmesh.Mesh,
        job: str,
        result: Any = None,
        lease_ms: float | None = None,
        name: str | None = None,
        none: bool = False,
        **expected: Any,
    ) -> None:
        lease = None if lease_ms is None else lease_ms / 1000
        found = self.jobs[job].ack_and_reserve(None if result is None else to_bytes(result), lease=lease)
        jobs = [] if found is None else [found]
        if none:
            meets("jobs", len(jobs), 0)
        else:
            self.check_jobs(jobs, [] if name is None else [name], **expected)

    def do_nack(
        self,
        mesh: flowmesh.Mesh,
        job: str,
        message: str = "",
        detail: str = "",
        delay_ms: float | None = None,
        reached: Any = None,
    ) -> None:
        delay = None if delay_ms is None else delay_ms / 1000
        check_reached(self.jobs[job].nack(message, detail, delay=delay), reached)

    def do_reject(
        self, mesh: flowmesh.Mesh, job: str, message: str = "", detail: str = "", reached: Any = None
    ) -> None:
        check_reached(self.jobs[job].reject(message, detail), reached)

    def do_release(self, mesh: flowmesh.Mesh, job: str, reached: Any = None) -> None:
        check_reached(self.jobs[job].release(), reached)

    def do_snooze(self, mesh: flowmesh.Mesh, job: str, delay_ms: float, reached: Any = None) -> None:
        check_reached(self.jobs[job].snooze(delay_ms / 1000), reached)

    def do_extend(
        self,
        mesh: flowmesh.Mesh,
        job: str,
        lease_ms: float | None = None,
        at_least_ms: float | None = None,
        at_most_ms: float | None = None,
    ) -> None:
        left = self.jobs[job].extend(None if lease_ms is None else lease_ms / 1000) * 1000
        lies_within("the lease", left, at_least_ms, at_most_ms)

    def do_progress(self, mesh: flowmesh.Mesh, job: str, payload: Any) -> None:
        self.jobs[job].progress(to_bytes(payload))

    def do_job(self, mesh: flowmesh.Mesh, job: str, expect: Step) -> None:
        handle, wanted = self.jobs[job], dict(expect)
        least, most = wanted.pop("remaining_at_least_ms", None), wanted.pop("remaining_at_most_ms", None)

        def look() -> None:
            for field, value in wanted.items():
                meets_value(field, {"cancelled": handle.is_cancelled, "settled": handle.settled}[field], value)
            lies_within("remaining", handle.remaining * 1000, least, most)

        until_true(look)

    def do_cancel_job(
        self,
        mesh: flowmesh.Mesh,
        queue: str,
        id: str,
        why: str = "",
        expect: str | None = None,
        durability: Any = None,
    ) -> None:
        became = self.queue(queue, durability).cancel(self.job_id(id), why)
        if expect is not None:
            meets("what became of it", became, expect)

    def do_redrive(self, mesh: flowmesh.Mesh, queue: str, ids: list[str], durability: Any = None) -> None:
        self.queue(queue, durability).redrive([self.job_id(id) for id in ids])

    def do_redrive_dead(
        self,
        mesh: flowmesh.Mesh,
        queue: str,
        most: int | None = None,
        expect: int | None = None,
        durability: Any = None,
    ) -> None:
        count = self.queue(queue, durability).redrive_dead(most)
        if expect is not None:
            meets("redriven", count, expect)

    def do_redrive_at(
        self, mesh: flowmesh.Mesh, queue: str, count: int, rate: Step, durability: Any = None
    ) -> None:
        self.queue(queue, durability).redrive_at(count, rate_of(rate))

    def do_purge(
        self, mesh: flowmesh.Mesh, queue: str, state: Any, expect: int | None = None, durability: Any = None
    ) -> None:
        count = self.queue(queue, durability).purge(state)
        if expect is not None:
            meets("purged", count, expect)

    def do_remove(self, mesh: flowmesh.Mesh, queue: str, id: str, durability: Any = None) -> None:
        self.queue(queue, durability).remove(self.job_id(id))

    def do_pause(self, mesh: flowmesh.Mesh, queue: str, durability: Any = None) -> None:
        self.queue(queue, durability).pause()

    def do_resume(self, mesh: flowmesh.Mesh, queue: str, durability: Any = None) -> None:
        self.queue(queue, durability).resume()

    def do_drain(
        self, mesh: flowmesh.Mesh, queue: str, expect: bool | None = None, durability: Any = None
    ) -> None:
        idle = self.queue(queue, durability).drain()
        if expect is not None:
            meets("drained", idle, expect)

    def do_schedule(
        self,
        mesh: flowmesh.Mesh,
        queue: str,
        of: str,
        cron: str,
        payload: Any = "",
        durability: Any = None,
        **options: Any,
    ) -> None:
        given: Step = {name: options.pop(name) for name in ("zone", "misfire", "overlap") if name in options}
        if "jitter_ms" in options:
            given["jitter"] = options.pop("jitter_ms") / 1000
        self.queue(queue, durability).schedule(
            of, cron, to_bytes(payload), **{**given, "options": job_options(options)}
        )

    def do_unschedule(self, mesh: flowmesh.Mesh, queue: str, of: str, durability: Any = None) -> None:
        self.queue(queue, durability).unschedule(of)

    def do_schedules(self, mesh: flowmesh.Mesh, queue: str, expect: list[Step], durability: Any = None) -> None:
        found: dict[str, Step] = {one["name"]: dict(one) for one in self.queue(queue, durability).schedules()}
        meets("schedules", sorted(found), sorted(one["name"] for one in expect))
        for wanted in expect:
            schedule = found[wanted["name"]]
            for field, value in wanted.items():
                if field == "payload":
                    meets(field, schedule["payload"], to_bytes(value))
                elif field == "jitter_ms":
                    meets(field, round(schedule["jitter"] * 1000), value)
                elif field == "next_within_ms":
                    lies_within("next", (schedule["next"] - time.time()) * 1000, -1000, value)
                elif field in ("name", "cron", "zone", "misfire", "overlap"):
                    meets(field, schedule[field], value)
                else:
                    raise Failed(f"nothing is known of {field}")

    def do_list(
        self,
        mesh: flowmesh.Mesh,
        queue: str,
        state: Any,
        limit: int = 100,
        cursor: str | None = None,
        name: str | None = None,
        ids: list[str] | None = None,
        count: int | None = None,
        more: bool | None = None,
        durability: Any = None,
    ) -> None:
        start = None if cursor is None else self.cursors[cursor]
        listed = self.queue(queue, durability).list(state, cursor=start, limit=limit)
        if name is not None:
            self.cursors[name] = listed["cursor"]
        if ids is not None:
            meets("ids", [job["id"] for job in listed["jobs"]], [self.job_id(id) for id in ids])
        if count is not None:
            meets("count", len(listed["jobs"]), count)
        if more is not None:
            meets("more", listed["cursor"] is not None, more)

    def do_peek(
        self, mesh: flowmesh.Mesh, queue: str, id: str, expect: Step | None = None, durability: Any = None
    ) -> None:
        handle = self.queue(queue, durability)

        def look() -> None:
            info: Step = dict(handle.peek(self.job_id(id)))
            for field, wanted in (expect or {}).items():
                if field == "progress":
                    meets_value(field, info[field], None if wanted is None else to_bytes(wanted))
                elif field == "expires":
                    meets(field, info["expires"] is not None, wanted)
                elif field == "due_within_ms":
                    if info["due"] is None:
                        raise Failed("it has no time at which it is due")
                    lies_within(field, (info["due"] - time.time()) * 1000, -1000, wanted)
                elif field == "failures":
                    meets(field, len(info["failures"]), len(wanted))
                    for failure, like in zip(info["failures"], wanted, strict=True):
                        for part, value in like.items():
                            meets(f"failures.{part}", failure[part], value)
                else:
                    meets_value(field, info[field], wanted)

        until_true(look)

    def do_gone(self, mesh: flowmesh.Mesh, queue: str, id: str, durability: Any = None) -> None:
        handle = self.queue(queue, durability)

        def look() -> None:
            try:
                info = handle.peek(self.job_id(id))
            except flowmesh.NotFoundError:
                return
            raise Failed(f"it is still {info['state']}")

        until_true(look)

    def do_content(
        self, mesh: flowmesh.Mesh, queue: str, id: str, expect: Step | None = None, durability: Any = None
    ) -> None:
        content: Step = dict(self.queue(queue, durability).content(self.job_id(id)))
        for field, wanted in (expect or {}).items():
            if field == "headers":
                meets_headers(content[field], wanted)
            else:
                meets_value(field, content[field], to_bytes(wanted) if field == "payload" else wanted)

    def do_result(
        self, mesh: flowmesh.Mesh, queue: str, id: str, expect: Any = None, durability: Any = None
    ) -> None:
        handle, wanted = self.queue(queue, durability), None if expect is None else to_bytes(expect)
        meets_value("result", handle.result(self.job_id(id)), wanted)

    def do_queue_stats(self, mesh: flowmesh.Mesh, queue: str, expect: Step, durability: Any = None) -> None:
        until_met(self.queue(queue, durability).stats, expect)

    # ---------- workers

    def do_work(
        self,
        mesh: flowmesh.Mesh,
        name: str,
        queue: str,
        handler: Any,
        concurrency: int = 1,
        lease_ms: float | None = None,
        durability: Any = None,
    ) -> None:
        work = Work(handler)
        lease = None if lease_ms is None else lease_ms / 1000
        handle = self.queue(queue, durability)
        work.worker = self.owners[queue].process(handle, work, concurrency=concurrency, lease=lease)
        self.works[name] = work

    def do_worked(self, mesh: flowmesh.Mesh, of: str, **expect: int) -> None:
        work = self.works[of]
        assert work.worker is not None
        stats = work.worker.stats
        until_met(lambda: {**stats(), "started": work.started, "cancelled": work.cancelled}, expect)

    def do_let_go(self, mesh: flowmesh.Mesh, of: str) -> None:
        self.works[of].let_go()

    def do_stop_work(
        self, mesh: flowmesh.Mesh, of: str, timeout_ms: float = WATCHDOG * 1000, expect: bool | None = None
    ) -> None:
        worker = self.works[of].worker
        assert worker is not None
        finished = worker.stop(timeout_ms / 1000)
        if expect is not None:
            meets("all handlers ended in time", finished, expect)

    # ---------- directories

    def do_inspect(self, mesh: flowmesh.Mesh, dir: str, expect: Step) -> None:
        found: Step = dict(flowmesh.inspect(self.directory / dir))
        for field, wanted in expect.items():
            value = found[field]
            meets(field, value if isinstance(value, int) else len(value), wanted)

    def do_damage(self, mesh: flowmesh.Mesh, dir: str, file: str, offset: int) -> None:
        path = self.directory / dir / file
        content = bytearray(path.read_bytes())
        content[offset] ^= 0xFF
        path.write_bytes(content)

    # ---------- time

    def do_wait(self, mesh: flowmesh.Mesh, ms: float) -> None:
        time.sleep(ms / 1000)

    def do_mark(self, mesh: flowmesh.Mesh) -> None:
        self.marked = time.monotonic()


class Reservation:
    """A reservation that a thread waits for."""

    def __init__(self, ask: Callable[[], list[flowmesh.Job]]) -> None:
        self._jobs: list[flowmesh.Job] = []
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(ask,), daemon=True)
        self._thread.start()

    def _run(self, ask: Callable[[], list[flowmesh.Job]]) -> None:
        try:
            self._jobs = ask()
        except Exception as error:
            self._error = error

    def finish(self) -> list[flowmesh.Job]:
        self._thread.join(2 * WATCHDOG)
        if self._thread.is_alive():
            raise Failed("the reservation does not end")
        if self._error is not None:
            raise self._error
        return self._jobs


def queue_config(config: Step) -> Step:
    """A queue's settings under Python's names."""
    made = seconds(config)
    if "backoff" in config:
        made["backoff"] = backoff_of(config["backoff"])
    for name in ("rate", "group_rate"):
        if config.get(name) is not None:
            made[name] = rate_of(config[name])
    if "retention" in config:
        made["retention"] = {state: seconds(keep) for state, keep in config["retention"].items()}
    if "durability" in config:
        made["durability"] = durability_of(config["durability"])
    return made


def job_options(options: Step) -> Step:
    """A job's options under Python's names."""
    made = seconds(options)
    if "run_at" in made:
        made["run_at"] += time.time()
    if "backoff" in options:
        made["backoff"] = backoff_of(options["backoff"])
    scope, window = made.pop("unique_scope", "active"), made.pop("unique_window", None)
    conflict = made.pop("on_conflict", "return_existing")
    if "unique" in made:
        made["unique"] = flowmesh.Unique(made["unique"], window if scope == "window" else scope, conflict)
    return made


def backoff_of(backoff: Step) -> Any:
    if "fixed_ms" in backoff:
        return backoff["fixed_ms"] / 1000
    if "list_ms" in backoff:
        return [wait / 1000 for wait in backoff["list_ms"]]
    return flowmesh.Backoff(**seconds(backoff))


def rate_of(rate: Step) -> flowmesh.Rate:
    return flowmesh.Rate(**seconds(rate))


def durability_of(durability: Any) -> Any:
    return durability if isinstance(durability, str) else durability / 1000


def check_reached(found: object, wanted: Any) -> None:
    """What an answer says must be at least this."""
    if wanted is None:
        return

    def rank(durability: object) -> int:
        return {"memory": 0, "os": 1, "fsync": 3}.get(str(durability), 2)

    if rank(found) < rank(wanted):
        raise Failed(f"{found!r} was reached, not {wanted!r}")


def lies_within(what: str, found: float, least: float | None, most: float | None) -> None:
    if (least is not None and found < least) or (most is not None and found > most):
        raise Failed(f"{what} is {found:.1f} ms, not {least} to {most}")


def meets_value(name: str, found: object, wanted: object) -> None:
    """As `meets`, for what may be an object."""
    if found != wanted:
        raise Failed(f"{name} is {found!r}, not {wanted!r}")


def meets_headers(found: dict[str, str], wanted: Step) -> None:
    """Each of these is so; null is for one that is not there."""
    for name, text in wanted.items():
        meets_value(f"header {name}", found.get(name), text)


def until_true(look: Callable[[], None]) -> None:
    """Waits until `look` fails no more."""
    until = time.monotonic() + WATCHDOG
    while True:
        try:
            return look()
        except Failed:
            if time.monotonic() > until:
                raise
            time.sleep(0.002)


# Fields whose names are Python's own, or mean something else there.
PYTHON_NAMES = {"as": "name", "from": "subscription", "name": "shown", "socket": "socket_name"}
# Where `name` is what a queue or schedule is called.
QUEUE_NAMES = {"as": "name", "name": "of"}
QUEUE_STEPS = {"declare_queue", "queue", "schedule", "unschedule"}


def to_bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if "hex" in value:
        return bytes.fromhex(value["hex"])
    return str(value["repeat"]).encode() * int(value["count"])


def seconds(options: Step) -> Step:
    """Options in milliseconds under Python's names."""
    return {
        name.removesuffix("_ms"): value / 1000 if name.endswith("_ms") and value is not None else value
        for name, value in options.items()
    }


def retry(max_attempts: int | None = None, backoff_ms: float | None = None, dead_letter: str | None = None) -> flowmesh.Retry:
    given: Step = {} if max_attempts is None else {"max_attempts": max_attempts}
    if backoff_ms is not None:
        given["backoff"] = flowmesh.Backoff(initial=backoff_ms / 1000, factor=1.0, max=backoff_ms / 1000)
    return flowmesh.Retry(dead_letter=dead_letter, **given)


def named_error(type: str, message: str) -> Exception:
    """An exception whose class has this name."""
    made: Exception = _new_class(type)(message)
    return made


def _new_class(name: str) -> type[Exception]:
    return type(name, (Exception,), {})


def looks_like(message: flowmesh.Message, expect: Step) -> None:
    for name, value in expect.items():
        if name == "payload":
            if message.payload != to_bytes(value):
                raise Failed(f"payload is {message.payload[:200]!r}")
        elif name == "headers":
            for header, text in value.items():
                if message.headers.get(header) != text:
                    raise Failed(f"header {header} is {message.headers.get(header)!r}")
        elif name in ("subject", "content_type", "priority", "gap", "attempt"):
            meets(name, getattr(message, name), value)
        else:
            raise Failed(f"nothing is known of {name}")


def meets(name: str, found: object, wanted: Any) -> None:
    if isinstance(wanted, dict):
        if not isinstance(found, int) or found < wanted["at_least"]:
            raise Failed(f"{name} is {found!r}, not at least {wanted['at_least']}")
    elif found != wanted:
        raise Failed(f"{name} is {found!r}, not {wanted!r}")


def until_met(read: Callable[[], Any], expect: Step) -> None:
    until = time.monotonic() + WATCHDOG
    while True:
        values = read()
        try:
            for path, wanted in expect.items():
                meets(path, look_up(values, path), wanted)
            return
        except Failed:
            if time.monotonic() > until:
                raise
            time.sleep(0.002)


def look_up(values: Any, path: str) -> object:
    for key in path.split("/"):
        if isinstance(values, list):
            named = [item for item in values if key in (item.get("name"), item.get("pattern"))]
            named += values[int(key) : int(key) + 1] if key.isdecimal() else []
            values = named[0] if named else None
        else:
            values = values.get(key)
        if values is None:
            return None
    found: object = values
    return found


if __name__ == "__main__":
    sys.exit(main())
