"""Queues, jobs and workers for asyncio: `flowmesh.aio` shows them."""

from __future__ import annotations

import asyncio
import builtins
import functools
import inspect
from typing import TYPE_CHECKING, TypeVar

from . import _native
from ._errors import ClosedError, FlowMeshError
from ._handles import log
from ._loop import in_thread, is_large
from ._worker import tell

if TYPE_CHECKING:
    import uuid
    from collections.abc import AsyncIterator, Callable, Iterable
    from types import TracebackType
    from typing import Any, Literal, Self, TypeAlias, Unpack

    from .aio import Mesh
    from .types import (
        Content,
        Durability,
        EnqueueOptions,
        JobInfo,
        JobState,
        Listed,
        Misfire,
        Overlap,
        Payload,
        QueueConfig,
        QueueSettings,
        QueueStats,
        ScheduleInfo,
        WorkerStats,
    )

    JobId: TypeAlias = str | uuid.UUID | _native.Receipt

T = TypeVar("T")


class Job:
    """A job that this worker has, until it is settled or its lease ends; see `flowmesh.Job`.

    `async with job` acks it, or nacks it when an exception leaves. What it carries is `value`, `payload` and `headers`.
    """

    __slots__ = ("_job", "_mesh")

    def __init__(self, mesh: Mesh, job: _native.Job) -> None:
        self._mesh = mesh
        self._job = job

    @property
    def id(self) -> str:
        """Its id, a UUID as text."""
        return self._job.id

    @property
    def queue(self) -> str:
        """The name of its queue."""
        return self._job.queue

    @property
    def attempt(self) -> int:
        """Which attempt this is, 1 and up."""
        return self._job.attempt

    @property
    def max_attempts(self) -> int:
        """Attempts it may have."""
        return self._job.max_attempts

    @property
    def priority(self) -> int:
        """0 to 255; higher goes first."""
        return self._job.priority

    @property
    def redrives(self) -> int:
        """How often it was redriven."""
        return self._job.redrives

    @property
    def group(self) -> str | None:
        """Its group, or None."""
        return self._job.group

    @property
    def payload(self) -> bytes:
        """The payload's bytes."""
        return self._job.payload

    @property
    def value(self) -> Any:
        """The payload as its content type says."""
        return self._job.value

    @property
    def content_type(self) -> str | None:
        """How the payload is encoded, or None."""
        return self._job.content_type

    @property
    def headers(self) -> dict[str, str]:
        """The headers."""
        return self._job.headers

    @property
    def lease(self) -> float:
        """Seconds it was reserved for, when it was."""
        return self._job.lease

    @property
    def remaining(self) -> float:
        """Seconds it is still ours, as far as this process knows."""
        return self._job.remaining

    @property
    def is_cancelled(self) -> bool:
        """Whether it is to be given back: somebody cancelled it, its lease is over, or the mesh was closed."""
        return self._job.is_cancelled

    @property
    def settled(self) -> bool:
        """Whether it was settled here."""
        return self._job.settled

    async def ack(self, result: Payload | None = None) -> Durability:
        """It is done, with this result unless it is None. Returns how safe that is."""
        return await self._ask(self._job.ack(result))

    async def ack_and_reserve(self, result: Payload | None = None, *, lease: float | None = None) -> Job | None:
        """Acks it, and takes the next job of its queue if one is there, without waiting for one: one request, and as a
        rule one write, instead of two. Returns that job, or None. Cancelled, it takes none; this one may be acked then.
        """
        job = await self._ask(self._job.ack_and_reserve(result, lease=lease))
        return None if job is None else Job(self._mesh, job)

    async def nack(
        self, error: BaseException | str | None = None, detail: str | None = None, *, delay: float | None = None
    ) -> Durability:
        """The attempt failed: the job waits for the next, `delay` seconds or as its backoff says, or is dead."""
        return await self._ask(self._job.nack(error, detail, delay=delay))

    async def reject(self, error: BaseException | str | None = None, detail: str | None = None) -> Durability:
        """No attempt can succeed: the job is dead."""
        return await self._ask(self._job.reject(error, detail))

    async def release(self) -> Durability:
        """Gives it back as if it had not been taken."""
        return await self._ask(self._job.release())

    async def snooze(self, delay: float) -> Durability:
        """Puts it off by `delay` seconds; the attempt does not count."""
        return await self._ask(self._job.snooze(delay))

    async def extend(self, lease: float | None = None) -> float:
        """More time: `lease` seconds from now, or as it was reserved. Returns how many it is ours now."""
        return await self._ask(self._job.extend(lease))

    async def progress(self, value: Payload) -> None:
        """Tells how far it has come: any value of up to 4 KiB, shown to who looks at the job."""
        job: Any = self._job
        await self._ask(job.progress(value))

    async def _ask(self, pending: T) -> T:
        # The stub says what the synchronous handle gives; one that was reserved here gives it to be waited for.
        answer: T = await self._mesh._answer(pending)
        return answer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._job.settled:
            return
        if error is None:
            await self.ack()
        elif isinstance(error, asyncio.CancelledError):
            await asyncio.shield(self.release())
        else:
            await self.nack(error)

    def __repr__(self) -> str:
        return f"<aio {self._job!r}>"


class Queue:
    """A queue of jobs; see `flowmesh.Queue`. `async for` iterates over its jobs. `Mesh.declare_queue` gives it."""

    def __init__(self, mesh: Mesh, handle: _native.Queue) -> None:
        self._mesh = mesh
        self._handle = handle
        self._later = handle._later()
        # For what is only to be done: a checker would see that nothing is given.
        self._does: Any = self._later

    @property
    def name(self) -> str:
        """What it is called."""
        return self._handle.name

    def durable(self, durability: Durability) -> Queue:
        """The same queue; what is done through this handle gets as far as `durability` before it returns."""
        return Queue(self._mesh, self._handle.durable(durability))

    async def enqueue(
        self, payload: Payload = b"", *, durability: Durability | None = None, **options: Unpack[EnqueueOptions]
    ) -> _native.Receipt:
        """Enqueues a job; see `flowmesh.types.EnqueueOptions`. Cancelled while it waits, it may be there or not."""
        if is_large(payload):
            return await in_thread(lambda: self._handle.enqueue(payload, durability=durability, **options))
        return await self._ask(self._later.enqueue(payload, durability=durability, **options))

    async def enqueue_many(
        self,
        jobs: Iterable[Payload | _native.NewJob],
        *,
        durability: Durability | None = None,
        **options: Unpack[EnqueueOptions],
    ) -> list[_native.Receipt]:
        """Enqueues jobs in one write, all or none. See `flowmesh.Queue.enqueue_many`."""
        return await self._ask(self._later.enqueue_many(jobs, durability=durability, **options))

    async def reserve(
        self, count: int = 1, *, lease: float | None = None, timeout: float | None = None
    ) -> list[Job]:
        """Takes up to `count` jobs and waits for the first at most `timeout` seconds (None: for ever). Cancelled, it takes
        none.
        """
        jobs = await self._ask(self._later.reserve(count, lease=lease, timeout=timeout))
        return [Job(self._mesh, job) for job in jobs]

    async def next(self, timeout: float | None = None, *, lease: float | None = None) -> Job | None:
        """Takes one job, waiting for it at most `timeout` seconds (None: for ever); None if there was none in time."""
        job = await self._ask(self._later.next(timeout, lease=lease))
        return None if job is None else Job(self._mesh, job)

    async def ack_many(self, jobs: Iterable[Job]) -> list[Exception | None]:
        """Acks jobs of this queue in one write. Returns None for each, or the error that it got."""
        return await self._ask(self._later.ack_many([job._job for job in jobs]))

    async def stats(self) -> QueueStats:
        """Numbers of the queue; taking them costs the same however long it is."""
        return await self._ask(self._later.stats())

    async def list(self, state: JobState, *, cursor: str | None = None, limit: int = 100) -> Listed:
        """Jobs in `state`, at most `limit`, from `cursor` on."""
        return await self._ask(self._later.list(state, cursor=cursor, limit=limit))

    async def peek(self, id: JobId) -> JobInfo:
        """A job, without taking it."""
        return await self._ask(self._later.peek(id))

    async def content(self, id: JobId) -> Content:
        """What a job carries."""
        return await self._ask(self._later.content(id))

    async def result(self, id: JobId) -> bytes | None:
        """The bytes that a job was acked with; None if with nothing, or if they are not kept any more."""
        return await self._ask(self._later.result(id))

    async def cancel(
        self, id: JobId, why: str = ""
    ) -> Literal["now", "asked", "finished"]:
        """Cancels a job; see `flowmesh.Queue.cancel`."""
        return await self._ask(self._later.cancel(id, why))

    async def redrive(self, ids: Iterable[JobId]) -> None:
        """Makes these finished jobs ready again, as if they were new; all or none."""
        await self._ask(self._does.redrive(ids))

    async def redrive_dead(self, most: int | None = None) -> int:
        """Makes up to `most` dead jobs (None: all) ready again; returns how many."""
        return await self._ask(self._later.redrive_dead(most))

    async def redrive_at(self, count: int, rate: _native.Rate | int) -> None:
        """Makes `count` dead jobs ready again at `rate`, from now on; 0 ends it."""
        await self._ask(self._does.redrive_at(count, rate))

    async def purge(self, state: JobState) -> int:
        """Removes all jobs in `state`; returns how many."""
        return await self._ask(self._later.purge(state))

    async def remove(self, id: JobId) -> None:
        """Removes one job that no worker has."""
        await self._ask(self._does.remove(id))

    async def pause(self) -> None:
        """Hands out nothing until `resume`; what workers have they keep."""
        await self._ask(self._does.pause())

    async def resume(self) -> None:
        """Ends pausing and draining."""
        await self._ask(self._does.resume())

    async def drain(self) -> bool:
        """Takes nothing new until `resume`; returns whether all that was there is finished."""
        return await self._ask(self._later.drain())

    async def schedule(
        self,
        name: str,
        cron: str,
        payload: Payload = b"",
        *,
        zone: str = "UTC",
        misfire: Misfire = "run_once",
        overlap: Overlap = "allow",
        jitter: float = 0.0,
        options: EnqueueOptions | None = None,
    ) -> None:
        """Enqueues a job again and again; see `flowmesh.Queue.schedule`."""
        await self._ask(
            self._does.schedule(
                name, cron, payload, zone=zone, misfire=misfire, overlap=overlap, jitter=jitter, options=options
            )
        )

    async def unschedule(self, name: str) -> None:
        """Removes a schedule; jobs that it enqueued stay."""
        await self._ask(self._does.unschedule(name))

    async def schedules(self) -> builtins.list[ScheduleInfo]:
        """All schedules, and when each fires next."""
        return await self._ask(self._later.schedules())

    async def config(self) -> QueueSettings:
        """How it is set up."""
        return await self._ask(self._later.config())

    async def configure(self, **config: Unpack[QueueConfig]) -> None:
        """Sets it up anew: what is not given is the default."""
        await self._ask(self._does.configure(**config))

    async def _ask(self, pending: T) -> T:
        # The stub says what the synchronous handle gives; this one gives it to be waited for.
        answer: T = await self._mesh._answer(pending)
        return answer

    async def __aiter__(self) -> AsyncIterator[Job]:
        while True:
            try:
                job = await self.next()
            except ClosedError:
                return
            if job is not None:
                yield job

    def __repr__(self) -> str:
        return f"<aio {self._handle!r}>"


class Worker:
    """Tasks that call a handler for the jobs of a queue. Leaving `async with` stops it. `Mesh.process` makes it."""

    def __init__(
        self,
        mesh: Mesh,
        queue: Queue,
        intake: _native.Intake,
        handler: Callable[[Job], object],
        concurrency: int,
    ) -> None:
        self._mesh = mesh
        self._queue = queue
        self._intake = intake
        self._handler = handler
        self._free = concurrency
        self._freed = asyncio.Event()
        self._stopping = False
        self._tends = self._looks = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._task = mesh._loop.create_task(self._run(), name=f"flowmesh work {queue.name}")
        mesh._handling.add(self)
        self._task.add_done_callback(lambda _: mesh._handling.discard(self))

    @property
    def queue(self) -> Queue:
        """The queue that it works on."""
        return self._queue

    @property
    def running(self) -> bool:
        """Whether it still takes jobs, or handlers are at work."""
        return not self._task.done() or bool(self._tasks)

    def stats(self) -> WorkerStats:
        """What it does and has done."""
        return self._intake.stats()

    async def wait(self) -> None:
        """Waits until it takes no more jobs: it was stopped, or the mesh was closed or cut off, which is raised unless it
        was closed here.
        """
        await asyncio.shield(self._task)

    async def stop(self, timeout: float | None = None) -> bool:
        """Takes no more jobs, waits at most `timeout` seconds (None: as long as they take) for handlers at work, then
        cancels them and gives their jobs back: the attempt does not count. Whether all had finished.
        """
        self._stopping = True
        self._freed.set()
        if not self._task.done():
            self._task.cancel()
        await asyncio.wait([self._task])
        left = {task for task in self._tasks if task is not asyncio.current_task()}
        if left:
            _, left = await asyncio.wait(left, timeout=timeout)
        for task in left:
            task.cancel()
        self._intake.stop()
        if left:
            self._intake.give_up()
        await in_thread(lambda: self._intake.settle(_SETTLE_SECONDS))
        return not left

    async def close(self) -> None:
        """Stops it without waiting for handlers."""
        await self.stop(0.0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def __repr__(self) -> str:
        return f"<aio Worker of {self._queue.name!r}{'' if self.running else ' ended'}>"

    async def _run(self) -> None:
        try:
            while not self._stopping:
                while self._free == 0:
                    self._freed.clear()
                    await self._freed.wait()
                for job in await self._mesh._answer(self._intake.start_reserve(self._free)):
                    self._begin(job)
        except asyncio.CancelledError:
            if not self._stopping:
                raise
        except ClosedError:
            pass
        except FlowMeshError as error:
            log("error", f"the worker of {self._queue.name!r} has ended", error)
            raise

    def _begin(self, job: _native.Job) -> None:
        self._free -= 1
        task = self._mesh._loop.create_task(self._work(job))
        self._tasks.add(task)
        reactor = self._mesh._reactor
        token = reactor.add(task.cancel)
        job._watch_cancel(reactor.ready, token)
        task.add_done_callback(functools.partial(self._ended, token))

    def _ended(self, token: int, task: asyncio.Task[None]) -> None:
        self._mesh._reactor.discard(token)
        self._tasks.discard(task)
        self._free += 1
        self._freed.set()
        if not self._tends:
            # Once for all that end in this turn of the loop.
            self._tends = True
            self._mesh._loop.call_soon(self._tend)

    def _tend(self) -> None:
        self._tends = False
        self._look_again(self._intake.tend(False))

    def _look(self) -> None:
        self._looks = False
        self._look_again(self._intake.tend(True))

    def _look_again(self, needed: bool) -> None:
        if needed and not self._looks:
            self._looks = True
            self._mesh._loop.call_later(_REST, self._look)

    async def _work(self, job: _native.Job) -> None:
        intake = self._intake
        try:
            returned = self._handler(Job(self._mesh, job))
            if inspect.isawaitable(returned):
                returned = await returned
            intake.done(job, returned)
        except asyncio.CancelledError:
            # Its job was cancelled, or the loop is ending: either way it goes back.
            intake.released(job)
            raise
        except Exception as error:
            tell(intake, job, error)


_REST = 0.2
"""Seconds after which a worker looks what came of what it told, and tells again what could not be told."""

_SETTLE_SECONDS = 30.0
"""What was said of jobs may take that long to reach the disk, or the host."""
