"""The demo: a Python host has the files of a directory counted by a Node and a C worker, as jobs of two queues.

    host.py DIRECTORY --checksums PROGRAM [--node node]

The host enqueues every file twice; the C worker acks with checksum and lines, the Node worker with words and headings.
Each of the three serves something that the others call. Both workers are killed once while they have jobs: the jobs go
to the next worker at once, and whatever failed for want of the dead one's answers is tried again. Every file is
counted exactly once, from the results of acked jobs. A plain count in this process, from the disk, says whether that
is so.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import flowmesh
import flowmesh.types

WORKERS = ("checksums", "words")
LEFT_OUT = {".git", "target", "node_modules", ".venv"}
# Files that may be under way at once, and the largest.
UNDER_WAY_MAX = 256
BYTES_MAX = 32 << 20
UNDER_WAY_BYTES_MAX = 64 << 20
KIND_BYTES = 512
CALLS = 2000
PATIENCE = 30.0


class Counts(NamedTuple):
    """What there is to say of a file, or of many."""

    files: int = 0
    bytes: int = 0
    lines: int = 0
    words: int = 0
    headings: int = 0
    crc_sum: int = 0

    def __add__(self, other: object) -> Counts:
        assert isinstance(other, Counts)
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class File(NamedTuple):
    number: int
    path: Path
    name: str
    stamp: tuple[int, int]
    data: bytes


class Task:
    """A file that was enqueued, until every worker has acked its job."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.results: dict[str, dict[str, str | int]] = {}


class Demo:
    def __init__(self, mesh: flowmesh.Mesh, root: Path, commands: dict[str, list[str]]) -> None:
        self.mesh = mesh
        self.commands = commands
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        config: flowmesh.types.QueueConfig = {
            "backoff": flowmesh.Backoff(initial=0.05, factor=2.0, max=1.0, jitter=True),
            "max_attempts": 100,
            "payload_bytes_max": mesh.max_message_bytes,
            "retention": {"done": {"age": 0.0, "count": 1_000_000}},
        }
        self.queues = {worker: mesh.declare_queue(worker, **config) for worker in WORKERS}
        self.done = mesh.subscribe("$queue.*.done", capacity=65_536)
        self.news = mesh.subscribe("workers.*")
        self.kind_service = mesh.serve("files.kind", lambda request: kind_of(request.payload), concurrency=2)
        self.paths = list(files_below(root))
        self.root = root
        self.next_path = 0
        self.tasks: dict[int, Task] = {}
        # By queue and job: which file it is of.
        self.ids: dict[tuple[str, str], int] = {}
        self.acked: dict[tuple[str, str], int] = {}
        self.stamps: dict[Path, tuple[int, int]] = {}
        self.counted: dict[Path, Counts] = {}
        self.disagreements: list[str] = []
        self.skipped: list[str] = []
        # Who is to be killed, and from which file on.
        self.victims = [("words", len(self.paths) // 3), ("checksums", 2 * len(self.paths) // 3)]

    def start(self, worker: str) -> None:
        directory = str(self.mesh.directory)
        self.processes[worker] = subprocess.Popen([*self.commands[worker], directory])
        self.await_news("workers.ready", worker)

    def await_news(self, subject: str, worker: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self.check_workers()
            try:
                event = self.news.receive(timeout=0.2)
            except flowmesh.TimeoutError:
                continue
            if event.subject == subject and event.payload.decode() == worker:
                return
        sys.exit(f"demo: no {subject} of {worker} within {PATIENCE:.0f} s")

    def check_workers(self) -> None:
        for worker, process in self.processes.items():
            if process.poll() is not None:
                sys.exit(f"demo: the worker {worker} ended by itself with {process.returncode}")

    def enqueue_more(self) -> None:
        """Enqueues files while there is room under way."""
        while self.next_path < len(self.paths) and len(self.tasks) < UNDER_WAY_MAX:
            if sum(len(task.file.data) for task in self.tasks.values()) > UNDER_WAY_BYTES_MAX:
                return
            file = self.read(self.paths[self.next_path], self.next_path)
            self.next_path += 1
            if file is None:
                continue
            hold = None
            if self.victims and self.next_path >= self.victims[0][1]:
                hold, _ = self.victims.pop(0)
            self.tasks[file.number] = Task(file)
            self.stamps[file.path] = file.stamp
            for worker, queue in self.queues.items():
                headers = {"path": printable(file.name)} | ({"hold": "yes"} if worker == hold else {})
                self.ids[worker, queue.enqueue(file.data, headers=headers).id] = file.number
            if hold is not None:
                self.kill(hold)

    def read(self, path: Path, number: int) -> File | None:
        name = str(path.relative_to(self.root))
        try:
            with path.open("rb") as opened:
                state = os.fstat(opened.fileno())
                if state.st_size > BYTES_MAX:
                    self.skipped.append(f"{name}: {state.st_size} bytes are over the limit of {BYTES_MAX}")
                    return None
                return File(number, path, name, (state.st_size, state.st_mtime_ns), opened.read())
        except OSError as error:
            self.skipped.append(f"{name}: {error.strerror}")
            return None

    def take_results(self) -> None:
        """Takes the results of jobs that were acked. Each job is acked once, and each file counts once both are."""
        try:
            events = self.done.receive_many(256, timeout=0.5)
        except flowmesh.TimeoutError:
            self.check_workers()
            return
        for event in events:
            if event.gap > 0:
                sys.exit(f"demo: {event.gap} events were lost")
            worker, id = event.subject.split(".")[1], event.value["job"]
            result = self.queues[worker].result(id)
            if (worker, id) in self.acked or result is None:
                self.disagreements.append(f"job {id} of {worker} was acked twice, or without a result")
                continue
            task = self.tasks[self.ids[worker, id]]
            task.results[worker] = json.loads(result)
            self.acked[worker, id] = int(task.results[worker]["attempt"])
            if len(task.results) == len(WORKERS):
                del self.tasks[task.file.number]
                self.count(task)

    def count(self, task: Task) -> None:
        checksums, words = task.results["checksums"], task.results["words"]
        # Each also asked the other for its number: both ways must agree.
        if words["crc32c"] != checksums["crc32c"]:
            self.disagreements.append(f"{task.file.name}: CRC {checksums['crc32c']}, by call {words['crc32c']}")
        if checksums["words"] not in ("", str(words["words"])):
            self.disagreements.append(f"{task.file.name}: {words['words']} words, by call {checksums['words']}")
        counts = Counts(
            files=1,
            bytes=len(task.file.data),
            lines=int(checksums["lines"]),
            words=int(words["words"]),
            headings=int(words["headings"]),
            crc_sum=int(str(checksums["crc32c"]), 16),
        )
        if task.file.path in self.counted:
            self.disagreements.append(f"{task.file.name} was counted twice")
        self.counted[task.file.path] = counts

    def kill(self, worker: str) -> None:
        """Kills a worker while it has jobs, and lets another take over."""
        self.await_news("workers.holding", worker)
        process = self.processes.pop(worker)
        before = self.queues[worker].stats()
        process.send_signal(signal.SIGKILL)
        began = time.monotonic()
        while self.queues[worker].stats()["jobs"]["leased"] > 0:
            if time.monotonic() - began > PATIENCE:
                sys.exit("demo: a dead worker keeps its jobs")
            time.sleep(0.0005)
        freed = time.monotonic() - began
        process.wait()
        count = before["jobs"]["leased"]
        print(f"killed the worker {worker}: the jobs it had ({count}) were free again after {freed * 1000:.1f} ms", end="")
        began = time.monotonic()
        self.start(worker)
        print(f"; another joined in {time.monotonic() - began:.2f} s")

    def run(self) -> float:
        """Counts all files; returns how long it took."""
        for worker in WORKERS:
            self.start(worker)
        began = time.monotonic()
        while self.next_path < len(self.paths) or self.tasks:
            self.enqueue_more()
            if self.tasks:
                self.take_results()
        if self.victims:
            sys.exit("demo: too few files to kill every worker once")
        return time.monotonic() - began

    def print_queues(self) -> None:
        """What the queues say: every job acked once, and which took more than one attempt."""
        row = "{:<12}{:>10}{:>8}{:>10}{:>14}{:>16}"
        print(row.format("queue", "enqueued", "acked", "attempts", "failed", "worker killed"))
        for worker, queue in self.queues.items():
            totals = queue.stats()["totals"]
            failed = totals["failed"] - totals["worker_gone"]
            counts = (totals["enqueued"], totals["done"], totals["reserved"], failed, totals["worker_gone"])
            print(row.format(worker, *counts))
            if totals["done"] != totals["enqueued"] or totals["done"] != len(self.counted):
                self.disagreements.append(f"{worker}: {totals['done']} of {totals['enqueued']} jobs acked")
        again = [attempt for attempt in self.acked.values() if attempt > 1]
        print(f"{len(again)} jobs were acked at a later attempt than the first, the latest at attempt {max(again, default=1)}")
        if len(again) < len(WORKERS):
            self.disagreements.append("no job of a killed worker was tried again")

    def time_calls(self, service: str) -> list[float]:
        payload = b"sixty-four bytes, the usual size of a small request or of a reply"[:64]
        times = []
        for _ in range(CALLS):
            began = time.perf_counter()
            self.mesh.call(service, payload)
            times.append((time.perf_counter() - began) * 1e6)
        return times

    def end(self) -> None:
        self.mesh.publish("files.end")
        for worker, process in self.processes.items():
            if process.wait(timeout=PATIENCE) != 0:
                sys.exit(f"demo: the worker {worker} ended with {process.returncode}")

    def kill_all(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait()


def files_below(root: Path) -> list[Path]:
    found = []
    for directory, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name not in LEFT_OUT)
        found += [Path(directory, file) for file in sorted(files)]
    return [path for path in found if path.is_file() and not path.is_symlink()]


def printable(name: str) -> str:
    """A file's name as text: names may be any bytes, headers are UTF-8."""
    return name.encode("utf-8", "replace").decode("utf-8")


def kind_of(start: bytes) -> bytes:
    return b"binary" if b"\0" in start[:KIND_BYTES] else b"text"


CRC_TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = _byte >> 1 ^ (0x82F63B78 if _byte & 1 else 0)
    CRC_TABLE.append(_byte)


def crc32c(data: bytes) -> int:
    crc, table = 0xFFFFFFFF, CRC_TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def plain_count(data: bytes) -> Counts:
    """The same, by one process alone."""
    if kind_of(data) == b"binary":
        return Counts(1, len(data), 0, 0, 0, crc32c(data))
    words = len(re.findall(rb"[0-9A-Za-z_\x80-\xff]+", data))
    headings = len(re.findall(rb"(?:^|\n)#{1,6} ", data))
    return Counts(1, len(data), data.count(b"\n"), words, headings, crc32c(data))


def percentile(times: list[float], percent: int) -> float:
    return statistics.quantiles(times, n=100, method="inclusive")[percent - 1]


def print_table(counted: dict[Path, Counts], total: Counts) -> None:
    counts: dict[str, Counts] = {}
    for path, found in counted.items():
        suffix = path.suffix.lower() or "(none)"
        counts[suffix] = counts.get(suffix, Counts()) + found
    row = "{:<12}{:>8}{:>14}{:>10}{:>10}{:>10}"
    print(row.format("suffix", "files", "bytes", "lines", "words", "headings"))
    largest = sorted(counts.items(), key=lambda item: -item[1].bytes)
    rest = sum((found for _, found in largest[12:]), Counts())
    for suffix, found in [*largest[:12], *([("others", rest)] if rest.files else []), ("total", total)]:
        print(row.format(suffix[:11], found.files, found.bytes, found.lines, found.words, found.headings))


def main() -> int:
    parser = argparse.ArgumentParser(description="Three languages count a directory together.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--checksums", required=True, help="the C worker, built")
    parser.add_argument("--node", default="node", help="the program that runs the Node worker")
    arguments = parser.parse_args()
    if not arguments.directory.is_dir():
        parser.error(f"{arguments.directory} is no directory")

    here = Path(__file__).resolve().parent
    commands = {"checksums": [arguments.checksums], "words": [arguments.node, str(here / "words.mjs")]}
    own = tempfile.mkdtemp(prefix="flowmesh-demo-")
    try:
        with flowmesh.open(own, name="demo") as mesh:
            demo = Demo(mesh, arguments.directory.resolve(), commands)
            try:
                return count_and_compare(demo)
            finally:
                demo.kill_all()
    finally:
        shutil.rmtree(own)


def count_and_compare(demo: Demo) -> int:
    print(f"counting {len(demo.paths)} files below {demo.root} in Python, Node and C")
    seconds = demo.run()
    total = sum(demo.counted.values(), Counts())
    print()
    print_table(demo.counted, total)
    print()
    megabytes = total.bytes / 1e6
    demo.print_queues()
    print()
    print(f"{total.files} files, {megabytes:.1f} MB to two workers in {seconds:.2f} s, the new ones' starts included: ", end="")
    print(f"{total.files / seconds:.0f} files/s, {megabytes / seconds:.1f} MB/s")
    for service in ("checksum.crc32c", "words.count"):
        times = demo.time_calls(service)
        print(f"{CALLS} calls of {service}: p50 {percentile(times, 50):.1f} us, p99 {percentile(times, 99):.1f} us")
    demo.end()
    for line in demo.skipped:
        print(f"left out: {line}")

    # A file that somebody changed meanwhile proves nothing: it is left out of both sides.
    together, alone, changed = Counts(), Counts(), 0
    for path, counts in demo.counted.items():
        state = path.stat() if path.exists() else None
        if state is None or (state.st_size, state.st_mtime_ns) != demo.stamps[path]:
            changed += 1
            continue
        together += counts
        alone += plain_count(path.read_bytes())
    if changed:
        print(f"{changed} files changed while they were counted and are not compared")
    for line in demo.disagreements:
        print(f"disagreement: {line}")
    complete = len(demo.counted) + len(demo.skipped) == len(demo.paths)
    match = together == alone and complete and not demo.disagreements
    if not match:
        print(f"together: {together}\nalone:    {alone}")
    print(f"totals match: {'yes' if match else 'no'}")
    return 0 if match else 1


if __name__ == "__main__":
    sys.exit(main())
