"""Types for checkers: payloads, options, and the dictionaries that `stats`, `services` and queues return."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, TypeAlias, TypedDict

from ._native import Backoff, Breaker, Rate, Receipt, Unique

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


Durability: TypeAlias = Literal["os", "fsync"] | float
"""How safe a change is: handed to the kernel, flushed to the disk, or flushed within so many seconds."""

JobState: TypeAlias = Literal[
    "scheduled", "ready", "blocked", "leased", "retry_wait", "done", "dead", "cancelled", "expired"
]

OnConflict: TypeAlias = Literal["return_existing", "replace", "extend", "keep_last"]

Misfire: TypeAlias = Literal["skip", "run_once", "run_all"]
"""What happens to times that were missed: none, one job for all of them, or one for each (at most 100)."""

Overlap: TypeAlias = Literal["allow", "skip", "replace"]
"""What happens when a schedule fires while its last job is not finished."""

JobBackoff: TypeAlias = Backoff | float | Sequence[float]
"""How long after a failed attempt: growing, always as long, or one after the other, the last again and again."""


class Keep(TypedDict, total=False):
    """How many seconds finished jobs are kept, and at most how many."""

    age: float
    count: int


class Retention(TypedDict, total=False):
    """Which finished jobs are kept to be looked at. Default: done none; dead 7 days, 100,000; the others 1 h, 1000."""

    done: Keep
    dead: Keep
    cancelled: Keep
    expired: Keep


class QueueConfig(TypedDict, total=False):
    """How a queue treats its jobs. Times are seconds; None is the default."""

    lease: float | None
    """How long a worker has a job before it must extend: 1 s to 12 h. Default: 30 s."""
    max_attempts: int | None
    """How often a job is handed out before it is dead: 1 to 1000. Default: 5."""
    backoff: JobBackoff | None
    """How long after a failed attempt the next may begin. Default: 1 s doubling to 10 min, with jitter."""
    deadline: float | None
    """How long one attempt may take however often it is extended. Default: no limit."""
    ttl: float | None
    """How long a job may wait before it expires. Default: for ever."""
    max_length: int | None
    """Jobs that may wait; more raise FullError. Default: no limit."""
    payload_bytes_max: int | None
    """The largest payload or result, up to 64 MiB. Default: 8 MiB."""
    concurrency: int | None
    """Jobs that may be leased at once. Default: no limit."""
    rate: Rate | int | None
    """How often jobs are handed out; an int is so many a second. Default: no limit."""
    group_concurrency: int | None
    """Jobs of one group that may be leased at once; 1 is strict order. Default: no limit."""
    group_rate: Rate | int | None
    """How often jobs of one group are handed out. Default: no limit."""
    group_weights: Mapping[str, int] | None
    """Shares by group, 1 to 1000; a group not named has 1. Default: all are equal."""
    aging: float | None
    """A waiting job gains one priority each time this passes. Default: never."""
    retention: Retention | None
    """How long finished jobs are kept."""
    dead_letter_to: str | None
    """The queue that jobs out of attempts move to. Default: they stay as dead."""
    cancel_grace: float | None
    """How long a worker whose job is cancelled has to give it back. Default: 30 s."""
    uncounted_on_crash: bool | None
    """Whether an attempt that ends with its worker's process does not count. Default: it counts."""
    durability: Durability | None
    """How safe a change is before its caller hears of it. Default: "fsync"."""


class EnqueueOptions(TypedDict, total=False):
    """What one job wants. Times are seconds; None is the default, where nothing else is said the queue's."""

    id: str | uuid.UUID | Receipt | None
    """Its id. A job that is there already with this id is not enqueued again. Default: a new one, ordered by time."""
    priority: int | None
    """0 to 255; higher goes first. Default: 0."""
    delay: float | None
    """How long it waits first. Default: not at all."""
    run_at: datetime | float | None
    """Until when it waits: a datetime, or seconds since 1970 UTC. Not both with `delay`."""
    ttl: float | None
    """How long it may wait before it expires."""
    unique: Unique | str | None
    """A key that at most one job has at a time; a str is `Unique(key)`. Default: none."""
    group: str | None
    """Its group. Default: none."""
    headers: Mapping[str, str] | None
    """Names and values: at most 256, 64 KiB in all. Default: none."""
    content_type: str | None
    """How the payload is encoded. Default: as the payload says."""
    max_attempts: int | None
    backoff: JobBackoff | None
    lease: float | None
    deadline: float | None
    """How long one attempt may take however often it is extended."""
    result_ttl: float | None
    """How long its result is kept. Default: 1 h when there is a result."""


class QueueSettings(TypedDict):
    """What `config` returns: as the keywords of `declare_queue`, every one."""

    lease: float
    max_attempts: int
    backoff: Backoff | float | list[float]
    deadline: float | None
    ttl: float | None
    max_length: int | None
    payload_bytes_max: int
    concurrency: int | None
    rate: Rate | None
    group_concurrency: int | None
    group_rate: Rate | None
    group_weights: dict[str, int]
    aging: float | None
    retention: Retention
    dead_letter_to: str | None
    cancel_grace: float
    uncounted_on_crash: bool
    durability: Durability


class JobFailure(TypedDict):
    """What went wrong in one attempt, and when, in seconds since 1970 UTC."""

    attempt: int
    at: float
    message: str
    detail: str


class JobInfo(TypedDict):
    """What listing and looking tell about a job. Moments are seconds since 1970 UTC."""

    id: str
    state: JobState
    priority: int
    attempt: int
    max_attempts: int
    group: str | None
    unique_key: str | None
    since: float
    """When it became ready; for a finished job, when it was finished."""
    due: float | None
    """Scheduled and retry_wait: when it is ready. Leased: when the lease ends. Finished: until when it is kept."""
    expires: float | None
    payload_bytes: int
    redrives: int
    worker: int | None
    """The session of the worker that has it; 0 is the host."""
    cancelling: bool
    progress: bytes | None
    has_result: bool
    failures: list[JobFailure]
    """The last ten, oldest first."""


class Listed(TypedDict):
    """A part of a listing, and where to go on: None at the end."""

    jobs: list[JobInfo]
    cursor: str | None


class Content(TypedDict):
    """What a job carries; `value` is its payload decoded, or its bytes where that cannot be done."""

    payload: bytes
    value: object
    content_type: str | None
    headers: dict[str, str]


class JobTotals(TypedDict):
    """What happened to jobs since the host opened."""

    enqueued: int
    duplicates: int
    reserved: int
    done: int
    failed: int
    lease_expired: int
    worker_gone: int
    released: int
    dead: int
    cancelled: int
    expired: int
    redriven: int
    removed: int


class QueueStats(TypedDict):
    """Numbers of one queue."""

    jobs: dict[JobState, int]
    payload_bytes: int
    oldest_ready: float | None
    """Seconds for which the first of the ready jobs has been ready."""
    paused: bool
    draining: bool
    groups: int
    redriving: int
    totals: JobTotals


class ScheduleInfo(TypedDict):
    """A schedule, and when it fires next, in seconds since 1970 UTC."""

    name: str
    cron: str
    zone: str
    misfire: Misfire
    overlap: Overlap
    jitter: float
    options: EnqueueOptions
    payload: bytes
    next: float


class WorkerStats(TypedDict):
    """What a worker does and has done. `lost` are jobs whose lease was gone before their outcome could be told."""

    running: int
    done: int
    failed: int
    rejected: int
    released: int
    lost: int


class Segment(TypedDict):
    """One segment of the journal."""

    file: str
    bytes: int
    end: int
    batches: tuple[int, int] | None
    batch_count: int


class Checkpoint(TypedDict):
    """One checkpoint."""

    file: str
    begin: int
    end: int
    images: int
    bytes: int


class Tail(TypedDict):
    """What a crash left of batches that were never flushed; opening cuts it."""

    file: str
    offset: int
    bytes: int
    batches: int


class Damage(TypedDict):
    """Where stored data is not what was written."""

    file: str
    offset: int
    what: str


class Inspection(TypedDict):
    """What a data directory holds, and where it is not what was written."""

    segments: list[Segment]
    checkpoints: list[Checkpoint]
    batches: int
    entries: int
    range: tuple[int, int] | None
    tail: Tail | None
    damages: list[Damage]
