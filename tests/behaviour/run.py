#!/usr/bin/env python3
"""Runs the scenarios of tests/behaviour/README.md in Python: run.py [FILE…]."""

from __future__ import annotations

import contextlib
import faulthandler
import json
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
            act(mesh, **{PYTHON_NAMES.get(name, name): value for name, value in fields.items()})
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

    def do_open(self, mesh: flowmesh.Mesh, name: str, dir: str = ".") -> None:
        self.meshes[name] = flowmesh.open(self.directory / dir, name=name, **self.host_options())

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
        looks_like(message, expect or {})
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

    # ---------- time

    def do_wait(self, mesh: flowmesh.Mesh, ms: float) -> None:
        time.sleep(ms / 1000)

    def do_mark(self, mesh: flowmesh.Mesh) -> None:
        self.marked = time.monotonic()


# Fields whose names are Python's own, or mean something else there.
PYTHON_NAMES = {"as": "name", "from": "subscription", "name": "shown", "socket": "socket_name"}


def to_bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if "hex" in value:
        return bytes.fromhex(value["hex"])
    return str(value["repeat"]).encode() * int(value["count"])


def seconds(options: Step) -> Step:
    """Options in milliseconds under Python's names."""
    return {
        name.removesuffix("_ms"): value / 1000 if name.endswith("_ms") else value for name, value in options.items()
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
