"""Errors: one class a kind, what they carry, and a table of wrong arguments."""

import builtins
import math
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flowmesh
from flowmesh import _errors, _native
from conftest import WATCHDOG


def test_the_classes_are_those_of_the_core() -> None:
    kinds = _native._kinds()
    assert len(_errors.BY_NUMBER) == len(kinds) + 1
    for number, name, code, retryable, meaning, advice in kinds:
        found = _errors.BY_NUMBER[number]
        assert found is getattr(flowmesh, f"{name}Error")
        assert (found.number, found.kind, found.code, found.retryable) == (number, name, code, retryable)
        assert found.__doc__ is not None and found.__doc__.lower() == f"{meaning}. {advice}".lower()


def test_every_class_is_exported() -> None:
    assert {error.__name__ for error in _errors.BY_NUMBER} <= set(flowmesh.__all__)


@pytest.mark.parametrize("found", _errors.BY_NUMBER)
def test_an_exception_survives_pickling(found: type[flowmesh.FlowMeshError]) -> None:
    error = found("what happened")
    error.operation, error.context = "mesh.call", {"service": "x"}
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is found and str(copy) == "what happened"
    assert (copy.operation, copy.context) == ("mesh.call", {"service": "x"})
    assert issubclass(found, flowmesh.FlowMeshError) and repr(copy) == f"{found.__name__}('what happened')"


def test_built_in_exceptions_catch_their_twins(host: flowmesh.Mesh) -> None:
    with pytest.raises(builtins.TimeoutError), host.subscribe("x") as x:
        x.receive(0)
    with pytest.raises(ValueError):
        host.publish("not..valid")
    with pytest.raises(LookupError):
        host.call("nobody")
    for ours, twin in (
        (flowmesh.DisconnectedError, ConnectionError),
        (flowmesh.PermissionDeniedError, PermissionError),
        (flowmesh.TooLargeError, ValueError),
        (flowmesh.ForkedError, RuntimeError),
        (flowmesh.InterruptedError, builtins.InterruptedError),
    ):
        assert issubclass(ours, twin)


def test_an_error_names_operation_value_and_limit(directory: Path) -> None:
    with flowmesh.open(directory, max_message_bytes=1024) as mesh:
        with pytest.raises(flowmesh.TooLargeError) as caught:
            mesh.publish("x", bytes(1025))
    error = caught.value
    assert (error.code, error.kind, error.number, error.retryable) == ("TOO_LARGE", "TooLarge", 9, False)
    assert error.operation == "mesh.publish" and error.context == {"payload_bytes": "1025", "limit_bytes": "1024"}
    assert "payload_bytes=1025" in str(error)


def test_opening_twice_names_the_holder(host: flowmesh.Mesh, directory: Path) -> None:
    with pytest.raises(flowmesh.AlreadyOpenError) as caught:
        flowmesh.open(directory)
    assert caught.value.context["pid"] == str(host.host_pid)


def test_connecting_to_nothing(directory: Path) -> None:
    for path in (directory, directory / "missing"):
        with pytest.raises(flowmesh.NotFoundError):
            flowmesh.connect(path)
    assert not (directory / "missing").exists()


def test_a_wrong_secret(host: flowmesh.Mesh) -> None:
    address = host.listen_tcp("127.0.0.1:0", "0123456789abcdef")
    with pytest.raises(flowmesh.UnauthenticatedError):
        flowmesh.connect_tcp(address, b"fedcba9876543210")
    with flowmesh.connect_tcp(address, "0123456789abcdef", name="far") as far:
        with far.serve("far", lambda request: request.payload):
            assert host.call("far", b"x", timeout=WATCHDOG).payload == b"x"
        assert far.role == "client" and far.directory is None


# The tables break the types on purpose, so no checker looks at them.
Attempt = Callable[[Any], Any]
fm: Any = flowmesh
WRONG_TYPES: dict[str, Attempt] = {
    "subject": lambda m: m.publish(5),
    "subject bytes": lambda m: m.publish(b"x"),
    "subject none": lambda m: m.publish(None),
    "payload object": lambda m: m.publish("x", object()),
    "payload set": lambda m: m.publish("x", {1, 2}),
    "payload nested": lambda m: m.publish("x", {"a": [object()]}),
    "payload generator": lambda m: m.publish("x", (n for n in range(3))),
    "headers list": lambda m: m.publish("x", headers=[("a", "b")]),
    "headers text": lambda m: m.publish("x", headers="a"),
    "headers number": lambda m: m.publish("x", headers={"a": 1}),
    "headers name": lambda m: m.publish("x", headers={1: "a"}),
    "priority": lambda m: m.publish("x", priority="high"),
    "priority float": lambda m: m.publish("x", priority=1.5),
    "priority none": lambda m: m.publish("x", priority=None),
    "ttl": lambda m: m.publish("x", ttl="1s"),
    "timeout": lambda m: m.publish("x", timeout=[]),
    "unknown option": lambda m: m.publish("x", colour="red"),
    "missing": lambda m: m.publish(),
    "events": lambda m: m.publish_many(5),
    "events of text": lambda m: m.publish_many("subject"),
    "events of bytes": lambda m: m.publish_many([b"ab"]),
    "events of three": lambda m: m.publish_many([("a", b"b", b"c")]),
    "events subject": lambda m: m.publish_many([(1, b"b")]),
    "payloads": lambda m: m.publish_many("x", 5),
    "pattern": lambda m: m.subscribe(5),
    "group": lambda m: m.subscribe("x", group=5),
    "capacity": lambda m: m.subscribe("x", capacity="many"),
    "on_slow": lambda m: m.subscribe("x", on_slow=5),
    "retry": lambda m: m.subscribe("x", retry=3),
    "handler": lambda m: m.subscribe("x", handler=3),
    "block_timeout": lambda m: m.subscribe("x", on_slow="block", block_timeout="long"),
    "receive timeout": lambda m: m.subscribe("x").receive(timeout="long"),
    "receive max": lambda m: m.subscribe("x").receive_many("many"),
    "fail": lambda m: m.subscribe("x").fail("message", "error"),
    "service": lambda m: m.serve(5),
    "concurrency": lambda m: m.serve("x", concurrency="1"),
    "version": lambda m: m.serve("x", version=2),
    "rate": lambda m: m.serve("x", rate="fast"),
    "call": lambda m: m.call(5),
    "call payload": lambda m: m.call("x", object()),
    "call timeout": lambda m: m.call("x", timeout="1"),
    "reply": lambda m: fm.Reply(),
    "reply headers": lambda m: fm.Reply(b"", headers={"a": 1}),
    "max_attempts": lambda m: fm.Retry(max_attempts="3"),
    "backoff": lambda m: fm.Retry(backoff=1.0),
    "dead_letter": lambda m: fm.Retry(dead_letter=1),
    "secret": lambda m: m.listen_tcp("127.0.0.1:0", 5),
    "directory": lambda m: fm.open(5),
    "name": lambda m: fm.open("/tmp/fm-never", name=5),
    "wait": lambda m: fm.open("/tmp/fm-never", wait=[]),
    "ring_bytes": lambda m: fm.open("/tmp/fm-never", ring_bytes="big"),
    "breaker": lambda m: fm.open("/tmp/fm-never", breaker="off"),
    "unknown setting": lambda m: fm.open("/tmp/fm-never", colour="red"),
    "constructor": lambda m: fm.Message(),
    "subscription constructor": lambda m: fm.Subscription(),
}


@pytest.mark.parametrize("attempt", WRONG_TYPES.values(), ids=WRONG_TYPES)
def test_a_wrong_type_is_a_type_error(host: flowmesh.Mesh, attempt: Attempt) -> None:
    with pytest.raises(TypeError):
        attempt(host)
    assert host.stats()["bus"]["published"] == 0


cycle: list[Any] = []
cycle.append(cycle)

WRONG_VALUES: dict[str, Attempt] = {
    "empty subject": lambda m: m.publish(""),
    "spaced subject": lambda m: m.publish("a b"),
    "wildcard subject": lambda m: m.publish("a.*"),
    "reserved subject": lambda m: m.publish("$sys.x"),
    "surrogates": lambda m: m.publish("\udc80"),
    "payload surrogates": lambda m: m.publish("x", "\udc80"),
    "header surrogates": lambda m: m.publish("x", headers={"a": "\udc80"}),
    "cycle": lambda m: m.publish("x", cycle),
    "nan": lambda m: m.publish("x", {"a": math.nan}),
    "priority high": lambda m: m.publish("x", priority=10),
    "priority low": lambda m: m.publish("x", priority=-1),
    "priority huge": lambda m: m.publish("x", priority=2**70),
    "ttl negative": lambda m: m.publish("x", ttl=-1),
    "ttl nan": lambda m: m.publish("x", ttl=math.nan),
    "ttl long": lambda m: m.publish("x", ttl=1e9),
    "delay infinite": lambda m: m.publish("x", delay=math.inf),
    "timeout negative": lambda m: m.publish("x", timeout=-0.1),
    "pattern": lambda m: m.subscribe("a.>.b"),
    "group": lambda m: m.subscribe("x", group="a b"),
    "capacity zero": lambda m: m.subscribe("x", capacity=0),
    "capacity huge": lambda m: m.subscribe("x", capacity=2**70),
    "capacity negative": lambda m: m.subscribe("x", capacity=-1),
    "on_slow": lambda m: m.subscribe("x", on_slow="panic"),
    "priority of subscription": lambda m: m.subscribe("x", priority=2**40),
    "block_timeout": lambda m: m.subscribe("x", on_slow="block", block_timeout=0),
    "receive timeout": lambda m: m.subscribe("x").receive(timeout=-1),
    "receive nan": lambda m: m.subscribe("x").receive(timeout=math.nan),
    "receive max zero": lambda m: m.subscribe("x").receive_many(0),
    "receive max huge": lambda m: m.subscribe("x").receive_many(2**40),
    "service": lambda m: m.serve("no spaces"),
    "concurrency zero": lambda m: m.serve("x", concurrency=0),
    "concurrency huge": lambda m: m.serve("x", concurrency=2**33),
    "queue": lambda m: m.serve("x", queue=-1),
    "rate zero": lambda m: m.serve("x", rate=0.0),
    "rate nan": lambda m: m.serve("x", rate=math.nan),
    "burst alone": lambda m: m.serve("x", burst=5),
    "burst": lambda m: m.serve("x", rate=1.0, burst=0),
    "call timeout": lambda m: m.call("x", timeout=-1),
    "call name": lambda m: m.call("a b"),
    "max_attempts": lambda m: fm.Retry(max_attempts=0),
    "factor": lambda m: fm.Backoff(factor=0.5),
    "initial": lambda m: fm.Backoff(initial=-1),
    "max below initial": lambda m: fm.Backoff(initial=2, max=1),
    "dead_letter": lambda m: fm.Retry(dead_letter="a..b"),
    "failure_ratio": lambda m: fm.Breaker(failure_ratio=2.0),
    "probes": lambda m: fm.Breaker(probes=-1),
    "max_message_bytes": lambda m: fm.open("/tmp/fm-never", max_message_bytes=1),
    "ring_bytes": lambda m: fm.open("/tmp/fm-never", ring_bytes=100_000),
    "max_sessions": lambda m: fm.open("/tmp/fm-never", max_sessions=-5),
    "wait": lambda m: fm.open("/tmp/fm-never", wait="lazily"),
    "wait zero": lambda m: fm.open("/tmp/fm-never", wait=0),
    "connect timeout": lambda m: fm.connect("/tmp/fm-never", timeout=-1),
    "short secret": lambda m: m.listen_tcp("127.0.0.1:0", "short"),
}


@pytest.mark.parametrize("attempt", WRONG_VALUES.values(), ids=WRONG_VALUES)
def test_a_wrong_value_is_an_invalid_argument(host: flowmesh.Mesh, attempt: Attempt) -> None:
    with pytest.raises(flowmesh.InvalidArgumentError) as caught:
        attempt(host)
    assert caught.value.context or caught.value.operation
    assert host.stats()["bus"]["published"] == 0
    assert not Path("/tmp/fm-never").exists()


def test_closed_handles_say_so(host: flowmesh.Mesh) -> None:
    subscription, service = host.subscribe("x"), host.serve("x")
    for handle in (subscription, service, host):
        assert not handle.closed
        handle.close()
        handle.close()
        assert handle.closed and " closed" in repr(handle)
    for attempt in (
        lambda: host.publish("x"),
        lambda: host.publish_many("x", [b""]),
        lambda: host.call("x"),
        lambda: host.subscribe("x"),
        lambda: host.serve("x"),
        lambda: host.services(),
        lambda: host.stats(),
        lambda: host.listen_tcp("127.0.0.1:0", bytes(16)),
        lambda: subscription.receive(),
        lambda: subscription.receive_many(),
        lambda: service.next(),
    ):
        with pytest.raises(flowmesh.ClosedError):
            attempt()


def test_closing_wakes_who_waits(host: flowmesh.Mesh, client: flowmesh.Mesh) -> None:
    ended: list[str] = []

    def wait(receive: Callable[[], object]) -> None:
        try:
            receive()
        except flowmesh.FlowMeshError as error:
            ended.append(error.code)

    for mesh in (client, host):
        subscription, service = mesh.subscribe("x"), mesh.serve("pull")
        call = mesh.start_call("pull", timeout=WATCHDOG)
        threads = [
            threading.Thread(target=wait, args=(receive,))
            for receive in (subscription.receive, subscription.receive_many, call.wait, mesh.serve("other").next)
        ]
        for thread in threads:
            thread.start()
        mesh.close()
        for thread in threads:
            thread.join(WATCHDOG)
            assert not thread.is_alive()
        assert service.closed
    assert ended == ["CLOSED"] * 8


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore:.*Mesh.__del__")
def test_children_keep_their_mesh(host: flowmesh.Mesh, directory: Path) -> None:
    with flowmesh.connect(directory).subscribe("x") as x:
        host.publish("x", b"1")
        assert x.receive(WATCHDOG).payload == b"1"


def test_a_forgotten_mesh_warns_and_is_closed(directory: Path) -> None:
    mesh = flowmesh.open(directory)
    with pytest.warns(ResourceWarning, match="unclosed <Mesh host"):
        del mesh
    flowmesh.open(directory).close()
