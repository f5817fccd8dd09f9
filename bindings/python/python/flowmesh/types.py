"""Types for checkers: payloads, and the dictionaries that `stats` and `services` return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, TypedDict

from ._native import Breaker

Json: TypeAlias = Mapping[str, object] | Sequence[object] | str | int | float | bool | None
"""What travels as JSON. Text alone travels as text."""

Buffer: TypeAlias = bytes | bytearray | memoryview
"""What travels untouched. Any other object with the buffer protocol does too."""

Payload: TypeAlias = Buffer | Json

OnSlow: TypeAlias = Literal["drop_oldest", "block", "disconnect"]

WaitStrategy: TypeAlias = Literal["adaptive", "block", "spin"] | float
"""How waiting threads wait; a number is the seconds between two looks, without ever being woken."""

BreakerOption: TypeAlias = Breaker | bool


class BusStats(TypedDict):
    """Counts over all events since the host opened."""

    published: int
    published_bytes: int
    delivered: int
    delivered_bytes: int
    dropped: int
    expired: int
    unmatched: int
    delayed: int
    blocked: int


class SubscriptionStats(TypedDict):
    """One subscription."""

    pattern: str
    group: str
    session: int
    delivered: int
    delivered_bytes: int
    dropped: int
    depth: int


class Latency(TypedDict):
    """Times from the host's accepting a call to its answer."""

    count: int
    mean_ns: int
    p50_ns: int
    p90_ns: int
    p99_ns: int
    max_ns: int


class ServiceStats(TypedDict):
    """One service, over all its instances."""

    name: str
    instances: int
    calls: int
    failed: int
    timed_out: int
    cancelled: int
    peer_gone: int
    rate_limited: int
    refused: int
    in_flight: int
    depth: int
    request_bytes: int
    response_bytes: int
    latency: Latency


class SessionStats(TypedDict):
    """One session."""

    session: int
    name: str
    language: str
    version: str
    pid: int
    transport: str
    frames_in: int
    bytes_in: int
    frames_out: int
    bytes_out: int
    backlog_bytes: int


class Stats(TypedDict):
    """Everything the host counts, taken at one moment."""

    uptime_ms: int
    bus: BusStats
    subscriptions: list[SubscriptionStats]
    services: list[ServiceStats]
    sessions: list[SessionStats]
    protocol_violations: int
    handshakes_refused: int


class InstanceInfo(TypedDict):
    """One instance of a service."""

    instance: int
    version: str
    session: int
    pid: int
    client: str
    outstanding: int
    concurrency: int
    latency_p50_ns: int
    latency_p99_ns: int


class ServiceInfo(TypedDict):
    """A service as discovery lists it."""

    name: str
    instances: list[InstanceInfo]
