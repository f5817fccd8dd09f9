"""Processes: Ctrl-C, fork, hosts and clients that come and go, interpreters that end."""

import math
import multiprocessing
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

import flowmesh
from conftest import WATCHDOG, eventually

Program = Callable[..., "subprocess.Popen[str]"]


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], WATCHDOG)[0], "the program says nothing"
    return process.stdout.readline().strip()


WAITS = {
    "receive": "mesh.subscribe('x').receive()",
    "receive with timeout": "mesh.subscribe('x').receive(timeout=60)",
    "receive_many": "mesh.subscribe('x').receive_many()",
    "iterate": "list(mesh.subscribe('x'))",
    "next": "mesh.serve('x').next()",
    "iterate requests": "list(mesh.serve('x'))",
    "call": "mesh.serve('x'); service = mesh.serve('x'); mesh.call('x', timeout=60)",
    "pending": "service = mesh.serve('x'); mesh.start_call('x', timeout=60).wait()",
    "handler of events": "mesh.subscribe('x', print).wait()",
    "handler of calls": "mesh.serve('x', print, concurrency=2).wait()",
    "publish": "s = mesh.subscribe('x', capacity=1, on_slow='block', block_timeout=60)\n    mesh.publish('x')\n"
    "    while True: mesh.publish('x', timeout=60)",
    "publish_many": "s = mesh.subscribe('x', capacity=1, on_slow='block', block_timeout=60)\n"
    "    mesh.publish_many('x', [b''] * 1000000, timeout=60)",
}


# Where threads wait differs by transport and strategy; what they wait for makes no difference there.
CASES = [(wait, how) for wait in WAITS for how in ("open", "connect")] + [
    (wait, how)
    for wait in ("receive", "call", "publish")
    for how in ("connect over the socket", "open, timed", "connect, timed", "open, spinning", "connect, spinning")
]


@pytest.mark.parametrize(("wait", "how"), CASES)
def test_ctrl_c_ends_every_wait(program: Program, directory: Path, wait: str, how: str) -> None:
    options = {"socket": ", shared_memory=False", "timed": ", wait=0.01", "spinning": ", wait='spin'"}.get(how.split()[-1], "")
    process = program(
        f"""
        import contextlib, flowmesh, sys
        host = flowmesh.open(sys.argv[1]) if {how.startswith("connect")} else None
        with flowmesh.{how.split()[0].strip(",")}(sys.argv[1]{options}) as mesh:
            print("ready", flush=True)
            try:
                {WAITS[wait].replace(chr(10), chr(10) + " " * 12)}
            except KeyboardInterrupt:
                print("interrupted", flush=True)
        """,
        directory,
    )
    assert line(process) == "ready"
    # Long enough to be deep in the wait; nothing depends on it.
    time.sleep(0.3)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert line(process) == "interrupted"
    assert time.monotonic() - started < 3.0
    assert process.wait(WATCHDOG) == 0


@pytest.mark.parametrize("ask", ["stats()", "services()", "subscribe('x')", "serve('x')"])
def test_ctrl_c_ends_what_a_stopped_host_never_answers(program: Program, directory: Path, ask: str) -> None:
    host = program(
        """
        import flowmesh, sys
        with flowmesh.open(sys.argv[1]):
            print("ready", flush=True)
            sys.stdin.read()
        """,
        directory,
    )
    assert line(host) == "ready"
    process = program(
        f"""
        import flowmesh, os, signal, sys
        with flowmesh.connect(sys.argv[1]) as mesh:
            os.kill(mesh.host_pid, signal.SIGSTOP)
            print("ready", flush=True)
            try:
                while True:  # A signal takes a moment to stop every thread of the host.
                    mesh.{ask}
            except KeyboardInterrupt:
                print("interrupted", flush=True)
                os.kill(mesh.host_pid, signal.SIGCONT)
        """,
        directory,
    )
    assert line(process) == "ready"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert line(process) == "interrupted"
    assert process.wait(WATCHDOG) == 0, process.communicate()


def test_ctrl_c_ends_connecting(program: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = program(
            """
            import flowmesh, sys
            print("ready", flush=True)
            try:
                flowmesh.connect_tcp(sys.argv[1], bytes(16), timeout=60)
            except KeyboardInterrupt:
                print("interrupted", flush=True)
            """,
            f"127.0.0.1:{silent.getsockname()[1]}",
        )
        assert line(process) == "ready"
        accepted, _ = silent.accept()
        with accepted:
            process.send_signal(signal.SIGINT)
            assert line(process) == "interrupted"
            assert process.wait(WATCHDOG) == 0


def test_a_signal_handler_that_returns_does_not_end_the_wait(program: Program, directory: Path) -> None:
    process = program(
        """
        import flowmesh, signal, sys
        with flowmesh.open(sys.argv[1]) as mesh, mesh.subscribe("x") as x:
            def publish(*_):
                print("signal", flush=True)
                mesh.publish("x", "after the signal")
            signal.signal(signal.SIGUSR1, publish)
            print("ready", flush=True)
            print(x.receive().value, flush=True)
        """,
        directory,
    )
    assert line(process) == "ready"
    time.sleep(0.2)
    process.send_signal(signal.SIGUSR1)
    assert [line(process), line(process)] == ["signal", "after the signal"]
    assert process.wait(WATCHDOG) == 0


def test_ctrl_c_ends_a_program_that_only_serves(program: Program, directory: Path) -> None:
    process = program(
        """
        import flowmesh, sys
        with flowmesh.open(sys.argv[1]) as mesh:
            service = mesh.serve("echo", lambda request: request.payload)
            print("ready", flush=True)
            service.wait()
        """,
        directory,
    )
    assert line(process) == "ready"
    with flowmesh.connect(directory) as mesh:
        assert mesh.call("echo", b"x", timeout=WATCHDOG).payload == b"x"
    process.send_signal(signal.SIGINT)
    assert process.wait(WATCHDOG) == -signal.SIGINT or process.returncode == 1


def in_child(report: Connection, attempts: list[Callable[[], object]]) -> None:
    outcomes = []
    for attempt in attempts:
        try:
            attempt()
            outcomes.append("no error")
        except flowmesh.FlowMeshError as error:
            outcomes.append(error.code)
    report.send(outcomes)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("role", ["host", "client"])
def test_a_forked_child_is_told(role: str, host: flowmesh.Mesh, client: flowmesh.Mesh) -> None:
    mesh = {"host": host, "client": client}[role]
    subscription, service = mesh.subscribe("x"), mesh.serve("pull")
    call = mesh.start_call("pull", timeout=WATCHDOG)
    attempts: list[Callable[[], object]] = [
        lambda: mesh.publish("x"),
        lambda: mesh.publish_many("x", [b""]),
        lambda: mesh.call("pull"),
        lambda: mesh.subscribe("y"),
        lambda: mesh.serve("y"),
        lambda: mesh.stats(),
        lambda: mesh.services(),
        lambda: subscription.receive(),
        lambda: subscription.receive_many(),
        lambda: service.next(),
        lambda: call.wait(),
    ]
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=in_child, args=(there, attempts))
    child.start()
    assert here.poll(WATCHDOG)
    assert here.recv() == ["FORKED"] * len(attempts)
    child.join(WATCHDOG)
    assert child.exitcode == 0
    # The parent's handles are as they were.
    mesh.publish("x", b"still here")
    assert subscription.receive(WATCHDOG).payload == b"still here"
    service.next(WATCHDOG).reply(b"answered")
    assert call.wait(WATCHDOG).payload == b"answered"


def connect_in_child(report: Connection, directory: Path) -> None:
    with flowmesh.connect(directory, name="child") as mesh:
        report.send(mesh.call("echo", b"from the child", timeout=WATCHDOG).payload)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_can_connect_by_itself(method: str, host: flowmesh.Mesh, directory: Path) -> None:
    here, there = multiprocessing.Pipe()
    with host.serve("echo", lambda request: request.payload):
        child = multiprocessing.get_context(method).Process(target=connect_in_child, args=(there, directory))  # type: ignore[attr-defined]
        child.start()
        assert here.poll(WATCHDOG)
        assert here.recv() == b"from the child"
        child.join(WATCHDOG)
    assert child.exitcode == 0


def test_two_processes_talk(program: Program, host: flowmesh.Mesh, directory: Path) -> None:
    process = program(
        """
        import flowmesh, sys
        with flowmesh.connect(sys.argv[1], name="worker") as mesh, mesh.subscribe("jobs.*") as jobs:
            service = mesh.serve("double", lambda request: request.value * 2)
            print("ready", flush=True)
            for job in jobs:
                mesh.publish("done", job.value)
                if job.subject == "jobs.last":
                    break
        """,
        directory,
    )
    assert line(process) == "ready"
    with host.subscribe("done") as done:
        host.publish_many([("jobs.first", {"n": 1}), ("jobs.last", {"n": 2})])
        assert [done.receive(WATCHDOG).value for _ in range(2)] == [{"n": 1}, {"n": 2}]
    assert process.wait(WATCHDOG) == 0


def test_a_worker_that_is_killed_fails_its_call(program: Program, host: flowmesh.Mesh, directory: Path) -> None:
    process = program(
        """
        import flowmesh, os, signal, sys
        with flowmesh.connect(sys.argv[1]) as mesh:
            mesh.serve("dies", lambda request: os.kill(os.getpid(), signal.SIGKILL)).wait()
        """,
        directory,
    )
    eventually(host.services)
    with pytest.raises(flowmesh.PeerGoneError):
        host.call("dies", timeout=WATCHDOG)
    assert process.wait(WATCHDOG) == -signal.SIGKILL
    eventually(lambda: not host.services())


def test_clients_hear_that_their_host_is_gone(program: Program, directory: Path) -> None:
    process = program(
        """
        import flowmesh, sys
        with flowmesh.open(sys.argv[1]):
            print("ready", flush=True)
            sys.stdin.read()
        """,
        directory,
    )
    assert line(process) == "ready"
    with flowmesh.connect(directory) as mesh, mesh.subscribe("x") as x:
        service = mesh.serve("s", lambda request: None)
        process.kill()
        with pytest.raises(flowmesh.DisconnectedError):
            x.receive(timeout=WATCHDOG)
        with pytest.raises(flowmesh.DisconnectedError):
            service.wait(WATCHDOG)
        with pytest.raises(flowmesh.DisconnectedError):
            mesh.publish("x")
        assert mesh.closed


@pytest.mark.parametrize(
    "ending",
    ["", "sys.exit()", "raise SystemExit(0)", "time.sleep(0.05)", "mesh.close()", "del mesh, x, s", "gc.collect()"],
)
def test_an_interpreter_ends_with_everything_open(program: Program, directory: Path, ending: str) -> None:
    """Threads in waits, handlers at work, nothing closed: the process still ends at once and in order."""
    for _ in range(3):
        process = program(
            f"""
            import flowmesh, gc, sys, threading, time
            host = flowmesh.open(sys.argv[1])
            mesh = flowmesh.connect(sys.argv[1])
            x = mesh.subscribe("x", lambda message: time.sleep(60))
            def busy(request):
                while True:
                    pass
            s = mesh.serve("s", busy, concurrency=2)
            y = mesh.subscribe("y")
            threading.Thread(target=y.receive, daemon=True).start()
            call = host.start_call("s")
            host.publish("x")
            {ending}
            """,
            directory,
        )
        output, _ = process.communicate(timeout=WATCHDOG)
        assert process.returncode == 0, output
        assert "Fatal" not in output and "panicked" not in output


def test_nothing_is_left_behind(host: flowmesh.Mesh, directory: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    def once() -> None:
        with flowmesh.connect(directory) as mesh, mesh.subscribe("x") as x, mesh.serve("s", lambda request: b""):
            x.fileno()
            mesh.call("s", timeout=WATCHDOG)

    once()
    before = descriptors()
    for _ in range(20):
        once()
    eventually(lambda: descriptors() <= before + 1, "the closing of all descriptors")
    eventually(lambda: len(os.listdir("/proc/self/task")) <= 3, "the end of all threads")


@pytest.mark.parametrize("timeout", [math.inf, 1e300, 2**70, 1e10])
def test_a_timeout_that_no_clock_counts_to_is_for_ever(timeout: float, directory: Path) -> None:
    """It ended in a PanicException, which is no Exception and ends the program."""
    with flowmesh.open(directory), flowmesh.connect(directory, timeout=timeout) as mesh:
        events = mesh.subscribe("a")
        mesh.publish("a", b"1")
        assert events.receive(timeout=timeout).payload == b"1"
