"""Calls: services, answers, failures, deadlines, cancellation."""

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

import flowmesh
from conftest import WATCHDOG, eventually, our_threads


@pytest.fixture(params=["host to client", "client to host", "within the host"])
def pair(
    request: pytest.FixtureRequest, host: flowmesh.Mesh, client: flowmesh.Mesh
) -> Iterator[tuple[flowmesh.Mesh, flowmesh.Mesh]]:
    """Who calls and who serves."""
    yield {"host to client": (host, client), "client to host": (client, host), "within the host": (host, host)}[
        request.param
    ]


Pair = tuple[flowmesh.Mesh, flowmesh.Mesh]


def test_a_call_is_answered(pair: Pair) -> None:
    caller, server = pair
    with server.serve("text.upper", lambda request: request.payload.upper()):
        answer = caller.call("text.upper", b"abc", timeout=WATCHDOG)
        assert (answer.payload, answer.content_type) == (b"ABC", None)
        assert caller.call("text.upper", timeout=WATCHDOG).payload == b""


def test_values_and_headers_travel_both_ways(pair: Pair) -> None:
    caller, server = pair

    @server.service("echo", concurrency=2, version="1.2")
    def echo(request: flowmesh.Request) -> flowmesh.Reply:
        assert request.service == request.subject == "echo" and 0 < request.remaining <= WATCHDOG
        return flowmesh.Reply({"got": request.value}, headers={"seen": request.headers["k"]})

    answer = caller.call("echo", ["x", 1], headers={"k": "v"}, timeout=WATCHDOG)
    assert answer.value == {"got": ["x", 1]}
    assert answer.headers == {"seen": "v", "content-type": "application/json"}


def test_a_handler_that_returns_nothing_answers_none(pair: Pair) -> None:
    caller, server = pair
    with server.serve("quiet", lambda request: None):
        assert caller.call("quiet", timeout=WATCHDOG).value is None


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (ValueError("no such size"), "ValueError", "no such size"),
        (KeyError("k"), "KeyError", "'k'"),
        (SystemExit(3), "SystemExit", "3"),
        (Unprintable(), "Unprintable", "the exception has no text"),
        (UnicodeError("\udc80"), "UnicodeError", "\ufffd\ufffd\ufffd"),
        (flowmesh.NotFoundError("nothing there"), "NotFoundError", "nothing there"),
    ],
)
def test_what_a_handler_raises_reaches_the_caller(
    client: flowmesh.Mesh, host: flowmesh.Mesh, error: BaseException, kind: str, text: str, caplog: object
) -> None:
    def fails(request: flowmesh.Request) -> None:
        raise error

    with client.serve("fails", fails):
        for _ in range(2):
            with pytest.raises(flowmesh.HandlerFailedError) as caught:
                host.call("fails", timeout=WATCHDOG)
            assert (caught.value.type, caught.value.message) == (kind, text)
            assert caught.value.context["service"] == "fails"


def test_an_answer_that_cannot_be_sent_fails_the_call(host: flowmesh.Mesh, caplog: object) -> None:
    with host.serve("odd", lambda request: object()):
        with pytest.raises(flowmesh.HandlerFailedError) as caught:
            host.call("odd", timeout=WATCHDOG)
    assert caught.value.type == "TypeError" and "payload must be" in caught.value.message


def test_a_coroutine_function_is_refused_as_a_handler(host: flowmesh.Mesh) -> None:
    async def handler(request: object) -> None: ...

    for register in (host.serve, host.subscribe):
        with pytest.raises(TypeError, match=r"flowmesh\.aio"):
            register("x", handler)
        with pytest.raises(TypeError, match="must be callable"):
            register("x", 5)  # type: ignore[arg-type]
    assert host.services() == [] and our_threads() == []


def test_a_request_can_be_answered_inside_the_handler(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    caller, server = pair

    def by_itself(request: flowmesh.Request) -> str:
        request.reply("early", headers={"h": "1"})
        with pytest.raises(flowmesh.ClosedError):
            request.reply("twice")
        return "ignored"

    def refuses(request: flowmesh.Request) -> None:
        request.fail("not today")

    with server.serve("early", by_itself), server.serve("refuses", refuses):
        answer = caller.call("early", timeout=WATCHDOG)
        assert (answer.value, answer.headers["h"]) == ("early", "1")
        with pytest.raises(flowmesh.HandlerFailedError, match="not today"):
            caller.call("refuses", timeout=WATCHDOG)
    assert not caplog.records


def test_requests_can_be_pulled(pair: Pair) -> None:
    caller, server = pair
    with server.serve("pull") as service:
        with pytest.raises(flowmesh.TimeoutError):
            service.next(timeout=0.01)
        calls = [caller.start_call("pull", {"n": n}, timeout=WATCHDOG) for n in range(3)]
        service.next(WATCHDOG).reply({"n": 0})
        service.next(WATCHDOG).fail(ValueError("second"))
        service.next(WATCHDOG)  # dropped at once
        assert calls[0].wait().value == {"n": 0}
        for call, kind in ((calls[1], "ValueError"), (calls[2], "Dropped")):
            with pytest.raises(flowmesh.HandlerFailedError) as caught:
                call.wait(WATCHDOG)
            assert caught.value.type == kind
        with pytest.raises(flowmesh.ClosedError):
            calls[0].wait()


def test_iterating_over_a_service_ends_when_it_is_closed(host: flowmesh.Mesh) -> None:
    with host.serve("each") as service:

        def serve() -> None:
            for request in service:
                request.reply(request)  # type: ignore[arg-type]

        thread = threading.Thread(target=serve)
        thread.start()
        assert host.call("each", b"x", timeout=WATCHDOG).payload == b"x"
    thread.join(WATCHDOG)
    assert not thread.is_alive()


def test_a_deadline_ends_a_call_and_the_handler_sees_it(pair: Pair) -> None:
    caller, server = pair
    cancelled = threading.Event()

    def slow(request: flowmesh.Request) -> None:
        eventually(lambda: request.cancelled)
        cancelled.set()

    with server.serve("slow", slow):
        started = time.monotonic()
        with pytest.raises(flowmesh.TimeoutError) as caught:
            caller.call("slow", timeout=0.1)
        assert 0.1 <= time.monotonic() - started < 5
        assert isinstance(caught.value, TimeoutError) and caught.value.retryable
        assert cancelled.wait(WATCHDOG)


def test_a_call_can_be_cancelled(pair: Pair) -> None:
    caller, server = pair
    begun, cancelled = threading.Event(), threading.Event()

    def slow(request: flowmesh.Request) -> None:
        begun.set()
        eventually(lambda: request.cancelled)
        cancelled.set()

    with server.serve("slow", slow):
        call = caller.start_call("slow", timeout=WATCHDOG)
        assert begun.wait(WATCHDOG)
        with pytest.raises(flowmesh.TimeoutError):
            call.wait(timeout=0.01)
        call.cancel()
        with pytest.raises(flowmesh.CancelledError):
            call.wait()
        assert cancelled.wait(WATCHDOG)


def test_a_handler_that_never_returns_hinders_nobody_else(pair: Pair) -> None:
    caller, server = pair
    release = threading.Event()
    with server.serve("stuck", lambda request: release.wait(), concurrency=2), server.serve("fine", lambda request: b""):
        stuck = [caller.start_call("stuck", timeout=0.2) for _ in range(2)]
        for _ in range(10):
            caller.call("fine", timeout=WATCHDOG)
        for call in stuck:
            with pytest.raises(flowmesh.TimeoutError):
                call.wait()
    release.set()
    eventually(lambda: not our_threads())


def test_concurrency_is_the_number_of_threads(pair: Pair) -> None:
    caller, server = pair
    barrier = threading.Barrier(3)

    def together(request: flowmesh.Request) -> bytes:
        barrier.wait(WATCHDOG)
        return b""

    with server.serve("together", together, concurrency=3) as service:
        assert our_threads() == ["flowmesh serve together"] * 3
        for call in [caller.start_call("together", timeout=WATCHDOG) for _ in range(3)]:
            call.wait()
    assert service.wait(WATCHDOG) is True and service.closed
    eventually(lambda: not our_threads())


def test_a_rate_is_kept(host: flowmesh.Mesh) -> None:
    with host.serve("rare", lambda request: b"", rate=0.001, burst=2):
        for _ in range(2):
            host.call("rare", timeout=WATCHDOG)
        with pytest.raises(flowmesh.RateLimitedError) as caught:
            host.call("rare", timeout=WATCHDOG)
        assert int(caught.value.context["retry_after_ms"]) > 0


def test_a_failing_service_is_left_alone_for_a_while(directory: object, host: flowmesh.Mesh) -> None:
    breaker = flowmesh.Breaker(min_calls=2, open_for=30.0)
    with flowmesh.connect(str(directory), breaker=breaker) as careful:
        with pytest.raises(flowmesh.NoServiceError):
            careful.call("nobody", timeout=WATCHDOG)
        with host.serve("gone") as gone:
            for _ in range(4):
                with contextlib.suppress(flowmesh.TimeoutError):
                    careful.call("gone", timeout=0.01)
                    pytest.fail("nobody answers")
                if careful.stats()["services"][0]["timed_out"] >= 2:
                    break
            with pytest.raises(flowmesh.CircuitOpenError) as caught:
                careful.call("gone", timeout=0.01)
            assert caught.value.retryable and not gone.closed


def test_discovery_lists_instances(host: flowmesh.Mesh, client: flowmesh.Mesh) -> None:
    with host.serve("a.b", version="1"), client.serve("a.b", version="2", concurrency=4):
        for mesh in (host, client):
            [service] = mesh.services()
            assert service["name"] == "a.b"
            found = sorted((i["version"], i["client"], i["session"], i["concurrency"]) for i in service["instances"])
            assert found == [("1", "host", 0, 1), ("2", "client", client.session, 4)]
    assert host.services() == []


def test_statistics_can_be_read(host: flowmesh.Mesh, client: flowmesh.Mesh) -> None:
    with client.serve("s", lambda request: b"12"), client.subscribe("e") as e:
        host.call("s", b"1", timeout=WATCHDOG)
        host.publish("e", b"123")
        e.receive(WATCHDOG)
        stats = client.stats()
    assert stats["bus"]["published"] == 1 and stats["bus"]["published_bytes"] == 3
    assert stats["subscriptions"][0]["pattern"] == "e" and stats["subscriptions"][0]["session"] == client.session
    service = stats["services"][0]
    assert (service["name"], service["calls"], service["request_bytes"], service["response_bytes"]) == ("s", 1, 1, 2)
    assert service["latency"]["count"] == 1 and 0 < service["latency"]["p50_ns"] <= service["latency"]["max_ns"]
    session = stats["sessions"][0]
    assert (session["name"], session["language"], session["transport"]) == ("client", "python", "shm")
