"""Events: payloads, options, subscriptions, handlers."""

import array
import contextlib
import pickle
import select
import threading
import time
from collections.abc import Callable

import pytest

import flowmesh
from conftest import WATCHDOG, eventually, our_threads


@pytest.mark.parametrize(
    ("payload", "value", "content_type"),
    [
        (b"\x00\xff", b"\x00\xff", None),
        (b"", b"", None),
        (bytearray(b"ab"), b"ab", None),
        (memoryview(b"abcd")[::2], b"ac", None),
        (array.array("i", [1, 2]), array.array("i", [1, 2]).tobytes(), None),
        ("grün", "grün", "text/plain; charset=utf-8"),
        ("", "", "text/plain; charset=utf-8"),
        ({"id": 1, "tags": ["ä", None]}, {"id": 1, "tags": ["ä", None]}, "application/json"),
        ([1, "two", 3.5], [1, "two", 3.5], "application/json"),
        ((1, 2), [1, 2], "application/json"),
        (None, None, "application/json"),
        (True, True, "application/json"),
        (7, 7, "application/json"),
        (0.5, 0.5, "application/json"),
    ],
)
def test_a_value_arrives_as_it_was_sent(
    mesh: flowmesh.Mesh, payload: object, value: object, content_type: str | None
) -> None:
    with mesh.subscribe("values.*") as values:
        mesh.publish("values.one", payload)  # type: ignore[arg-type]
        message = values.receive(WATCHDOG)
    assert message.value == value and type(message.value) is type(value)
    assert message.content_type == content_type


def test_a_message_tells_all_about_itself(mesh: flowmesh.Mesh) -> None:
    before = time.time()
    with mesh.subscribe("orders.>") as orders:
        number = mesh.publish("orders.a.b", {"id": 1}, headers={"traceparent": "00-1", "x": "ü"}, priority=9, ttl=60.0)
        message = orders.receive(WATCHDOG)
    assert (message.subject, message.id, message.priority) == ("orders.a.b", number, 9)
    assert message.headers == {"traceparent": "00-1", "x": "ü", "content-type": "application/json"}
    assert message.payload == b'{"id":1}' and message.ttl == 60.0
    assert before - 1 <= message.timestamp <= time.time() + 1
    assert message.timestamp_ns == pytest.approx(message.timestamp * 1e9, rel=1e-9)
    assert (message.gap, message.attempt) == (0, 1)
    assert message.value is message.value, "decoded once"
    assert repr(message) == f'<Message subject="orders.a.b" id={number} payload_bytes=8>'


def test_a_view_of_a_message_is_read_only_and_keeps_it_alive(mesh: flowmesh.Mesh) -> None:
    with mesh.subscribe("large") as large:
        mesh.publish("large", b"ab" * 50_000)
        view = memoryview(large.receive(WATCHDOG))
    assert view.readonly and view.nbytes == 100_000 and bytes(view[:4]) == b"abab"
    with pytest.raises(TypeError):
        view[0] = 1
    assert bytes(view) == b"ab" * 50_000


def test_a_content_type_given_is_kept(mesh: flowmesh.Mesh) -> None:
    with mesh.subscribe("typed.*") as typed:
        mesh.publish("typed.a", {"a": 1}, headers={"content-type": "application/vnd.order+json"})
        mesh.publish("typed.b", b"[1]", headers={"content-type": "Application/JSON; charset=utf-8"})
        mesh.publish("typed.c", b"{", headers={"content-type": "application/json"})
        mesh.publish("typed.d", b"\xff", headers={"content-type": "text/plain"})
        assert typed.receive(WATCHDOG).value == {"a": 1}
        assert typed.receive(WATCHDOG).value == [1]
        for _ in range(2):
            broken = typed.receive(WATCHDOG)
            with pytest.raises(flowmesh.InvalidArgumentError, match="content_type="):
                broken.value
            assert broken.payload in (b"{", b"\xff")


def test_publish_many_takes_pairs_or_one_subject(mesh: flowmesh.Mesh) -> None:
    with mesh.subscribe("many.>") as many:
        mesh.publish_many([("many.a", b"1"), ["many.b", b"2"]])  # type: ignore[list-item]
        mesh.publish_many("many.c", [b"3", b"4"], priority=4)
        mesh.publish_many("many.d", ({"n": n} for n in range(2)), headers={"k": "v"})
        mesh.publish_many([])
        mesh.publish_many("many.e", [])
        messages = [many.receive(WATCHDOG) for _ in range(6)]
    assert [message.subject[-1] for message in messages] == list("abccdd")
    assert [message.value for message in messages] == [b"1", b"2", b"3", b"4", {"n": 0}, {"n": 1}]
    assert messages[5].headers == {"k": "v", "content-type": "application/json"}


def test_nothing_is_sent_when_one_of_many_is_wrong(mesh: flowmesh.Mesh) -> None:
    with mesh.subscribe("many.>") as many:
        with pytest.raises(flowmesh.InvalidArgumentError):
            mesh.publish_many([("many.a", b"1"), ("many..b", b"2")])
        with pytest.raises(flowmesh.InvalidArgumentError, match="content_type=application/json"):
            mesh.publish_many("many.a", [b"1", {"n": 2}])
        with pytest.raises(TypeError):
            mesh.publish_many("many.a", [b"1", object()])  # type: ignore[list-item]
        mesh.publish("many.marker")
        assert many.receive(WATCHDOG).subject == "many.marker"


def test_receive_many_takes_what_is_there(mesh: flowmesh.Mesh) -> None:
    with mesh.subscribe("batch") as batch:
        mesh.publish_many("batch", [b"%d" % n for n in range(10)])
        eventually(lambda: batch.stats()["depth"] == 10)
        assert [message.payload for message in batch.receive_many(4, WATCHDOG)] == [b"0", b"1", b"2", b"3"]
        assert len(batch.receive_many(timeout=WATCHDOG)) == 6
        with pytest.raises(flowmesh.TimeoutError):
            batch.receive_many(timeout=0)


def test_iteration_ends_when_the_subscription_is_closed(mesh: flowmesh.Mesh) -> None:
    seen = []
    with mesh.subscribe("loop") as loop:
        mesh.publish_many("loop", [b"1", b"2", b"3"])
        for message in loop:
            seen.append(message.payload)
            if len(seen) == 3:
                loop.close()
    assert seen == [b"1", b"2", b"3"] and loop.closed


def test_a_subscription_can_be_polled(mesh: flowmesh.Mesh) -> None:
    with mesh.subscribe("poll") as poll:
        assert select.select([poll], [], [], 0)[0] == []
        mesh.publish("poll", b"x")
        assert select.select([poll], [], [], WATCHDOG)[0] == [poll]
        poll.receive(0)
        with pytest.raises(TimeoutError):
            poll.receive(0)
        assert select.select([poll], [], [], 0)[0] == []


def test_gaps_are_counted(host: flowmesh.Mesh) -> None:
    with host.subscribe("slow", capacity=2) as slow:
        host.publish_many("slow", [b"%d" % n for n in range(10)])
        first = slow.receive(WATCHDOG)
        assert (first.payload, first.gap) == (b"8", 8)
        assert slow.stats()["dropped"] == 8


def test_a_subscriber_may_be_cut_off(host: flowmesh.Mesh) -> None:
    with host.subscribe("slow", capacity=1, on_slow="disconnect") as slow:
        host.publish_many("slow", [b"1", b"2", b"3"])
        with pytest.raises(flowmesh.SlowConsumerError):
            for _ in range(3):
                slow.receive(WATCHDOG)


def test_a_publisher_may_be_blocked(host: flowmesh.Mesh) -> None:
    with host.subscribe("slow", capacity=1, on_slow="block", block_timeout=WATCHDOG) as slow:
        host.publish("slow", b"1")
        for timeout in (0.0, 0.02):
            with pytest.raises(flowmesh.TimeoutError):
                host.publish("slow", b"refused", timeout=timeout)
        thread = threading.Thread(target=host.publish, args=("slow", b"2"))
        thread.start()
        eventually(lambda: host.stats()["bus"]["blocked"] == 3)
        assert [slow.receive(WATCHDOG).payload for _ in range(2)] == [b"1", b"2"]
        thread.join(WATCHDOG)


def test_a_group_shares_events(mesh: flowmesh.Mesh) -> None:
    with mesh.subscribe("work", group="g") as a, mesh.subscribe("work", group="g") as b:
        mesh.publish_many("work", [b"%d" % n for n in range(10)])
        eventually(lambda: a.stats()["depth"] + b.stats()["depth"] == 10)
        got = a.receive_many(timeout=0) + b.receive_many(timeout=0)
    assert sorted(message.payload for message in got) == [b"%d" % n for n in range(10)]


def test_delay_and_time_to_live(host: flowmesh.Mesh) -> None:
    with host.subscribe("later") as later:
        started = time.monotonic()
        host.publish("later", b"delayed", delay=0.05)
        host.publish("later", b"expires", ttl=0.001)
        time.sleep(0.01)
        assert later.receive(WATCHDOG).payload == b"delayed"
        assert time.monotonic() - started >= 0.05


def test_a_handler_gets_every_event_in_order(mesh: flowmesh.Mesh) -> None:
    seen: list[bytes] = []
    with mesh.subscribe("handled", lambda message: seen.append(message.payload)) as handled:
        mesh.publish_many("handled", [b"%d" % n for n in range(200)])
        eventually(lambda: len(seen) == 200)
        assert our_threads() == ["flowmesh on handled"]
    assert seen == [b"%d" % n for n in range(200)]
    assert handled.wait(WATCHDOG) is True
    eventually(lambda: not our_threads(), "the end of the handler's thread")


def test_a_decorated_handler_stays_until_the_mesh_is_closed(mesh: flowmesh.Mesh) -> None:
    seen: list[object] = []

    @mesh.on("decorated.*")
    def handle(message: flowmesh.Message) -> None:
        seen.append(message.value)

    mesh.publish("decorated.x", {"a": 1})
    eventually(lambda: seen == [{"a": 1}])
    assert callable(handle)
    mesh.close()
    eventually(lambda: not our_threads())


def test_a_handler_that_raises_is_tried_again_and_its_event_becomes_a_dead_letter(
    mesh: flowmesh.Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    attempts: list[int] = []

    def fails(message: flowmesh.Message) -> None:
        attempts.append(message.attempt)
        raise LookupError("no such order")

    retry = flowmesh.Retry(max_attempts=3, backoff=flowmesh.Backoff(initial=0.001), dead_letter="dead.orders")
    with mesh.subscribe("dead.*") as dead, mesh.subscribe("orders", fails, retry=retry):
        mesh.publish("orders", b"42", headers={"k": "v"})
        letter = dead.receive(WATCHDOG)
    assert attempts == [1, 2, 3]
    assert letter.payload == b"42" and letter.headers["k"] == "v"
    assert "LookupError" in letter.headers.values() and "no such order" in letter.headers.values()
    assert sum("the handler of" in record.message for record in caplog.records) == 3


def test_a_failure_can_be_reported_by_hand(mesh: flowmesh.Mesh) -> None:
    retry = flowmesh.Retry(max_attempts=2, backoff=flowmesh.Backoff(initial=0.0, max=0.0))
    with mesh.subscribe("again", retry=retry) as again:
        mesh.publish("again", b"x")
        first = again.receive(WATCHDOG)
        again.fail(first, ValueError("not yet"))
        assert again.receive(WATCHDOG).attempt == 2


def test_a_handler_that_never_returns_hinders_nobody_else(mesh: flowmesh.Mesh) -> None:
    stuck, release = threading.Event(), threading.Event()

    def block(message: flowmesh.Message) -> None:
        stuck.set()
        release.wait()

    with mesh.subscribe("jobs", block), mesh.subscribe("jobs") as other:
        mesh.publish_many("jobs", [b"1", b"2"])
        assert stuck.wait(WATCHDOG)
        assert [other.receive(WATCHDOG).payload for _ in range(2)] == [b"1", b"2"]
    release.set()
    eventually(lambda: not our_threads())


def test_many_threads_publish_and_receive(mesh: flowmesh.Mesh) -> None:
    seen: list[bytes] = []
    with mesh.subscribe("shared", capacity=100_000) as shared:

        def take() -> None:
            with contextlib.suppress(flowmesh.ClosedError):
                while True:
                    seen.append(shared.receive().payload)

        takers = [threading.Thread(target=take) for _ in range(3)]
        givers = [
            threading.Thread(target=lambda k=k: [mesh.publish("shared", b"%d-%d" % (k, n)) for n in range(300)])
            for k in range(3)
        ]
        for thread in takers + givers:
            thread.start()
        for thread in givers:
            thread.join()
        eventually(lambda: len(seen) == 900)
    for thread in takers:
        thread.join(WATCHDOG)
    assert len(set(seen)) == 900


@pytest.mark.parametrize("make", [lambda mesh: mesh, lambda mesh: mesh.subscribe("x"), lambda mesh: mesh.serve("x")])
def test_handles_cannot_be_pickled(host: flowmesh.Mesh, make: Callable[[flowmesh.Mesh], object]) -> None:
    with pytest.raises(TypeError, match="cannot pickle a .* in the other process"):
        pickle.dumps(make(host))


def test_a_message_cannot_be_pickled_and_says_what_can(host: flowmesh.Mesh) -> None:
    with host.subscribe("x") as x:
        host.publish("x")
        with pytest.raises(TypeError, match=r"\.value"):
            pickle.dumps(x.receive(WATCHDOG))
