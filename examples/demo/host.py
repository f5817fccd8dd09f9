"""The demo: one Python host, one Node client and one C client count the files of a directory together.

    host.py DIRECTORY --checksums PROGRAM [--node node]

The host publishes every file; the C client reports checksum and lines, the Node client words and headings. Each of
the three serves something that the others call. In the middle the Node client is killed while it owes an answer: the
caller gets PeerGoneError at once, a new client joins, and every file that the dead one had not confirmed is sent
again, so the totals come out right. A plain count in this process, from the disk, says whether they did.
"""

from __future__ import annotations

import argparse
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

WORKERS = ("checksums", "words")
LEFT_OUT = {".git", "target", "node_modules", ".venv"}
# Files that may be under way at once: enough to keep both clients busy, few enough that no queue overflows.
UNDER_WAY_MAX = 64
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


class Job:
    """A file that was published, until every worker has confirmed it."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.reports: dict[str, dict[str, str]] = {}


class Demo:
    def __init__(self, mesh: flowmesh.Mesh, root: Path, commands: dict[str, list[str]]) -> None:
        self.mesh = mesh
        self.commands = commands
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.results = mesh.subscribe("results.*", capacity=8192)
        self.news = mesh.subscribe("workers.*")
        self.kind_service = mesh.serve("files.kind", lambda request: kind_of(request.payload), concurrency=2)
        self.paths = list(files_below(root))
        self.root = root
        self.next_path = 0
        self.jobs: dict[int, Job] = {}
        self.stamps: dict[Path, tuple[int, int]] = {}
        self.counted: dict[Path, Counts] = {}
        self.disagreements: list[str] = []
        self.skipped: list[str] = []

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
                sys.exit(f"demo: the client {worker} ended by itself with {process.returncode}")

    def publish_more(self) -> None:
        """Publishes files while there is room under way."""
        while self.next_path < len(self.paths) and len(self.jobs) < UNDER_WAY_MAX:
            if sum(len(job.file.data) for job in self.jobs.values()) > UNDER_WAY_BYTES_MAX:
                return
            file = self.read(self.paths[self.next_path], self.next_path)
            self.next_path += 1
            if file is not None:
                self.jobs[file.number] = Job(file)
                self.stamps[file.path] = file.stamp
                self.send(file)

    def read(self, path: Path, number: int) -> File | None:
        name = str(path.relative_to(self.root))
        try:
            with path.open("rb") as opened:
                state = os.fstat(opened.fileno())
                if state.st_size > self.mesh.max_message_bytes:
                    self.skipped.append(f"{name}: {state.st_size} bytes are over the limit of a message")
                    return None
                return File(number, path, name, (state.st_size, state.st_mtime_ns), opened.read())
        except OSError as error:
            self.skipped.append(f"{name}: {error.strerror}")
            return None

    def send(self, file: File, *, worker: str | None = None) -> None:
        headers = {"number": str(file.number), "path": printable(file.name)}
        if worker is None:
            self.mesh.publish("files.new", file.data, headers=headers)
        else:
            self.mesh.publish("files.again", file.data, headers={**headers, "for": worker})

    def take_results(self) -> None:
        """Takes what the clients reported. A file counts once both have, whoever of them reported twice."""
        try:
            reports = self.results.receive_many(256, timeout=0.5)
        except flowmesh.TimeoutError:
            self.check_workers()
            return
        for report in reports:
            if report.gap > 0:
                sys.exit(f"demo: {report.gap} reports were lost")
            job = self.jobs.get(int(report.headers["number"]))
            if job is None:
                continue
            job.reports.setdefault(report.subject.removeprefix("results."), report.headers)
            if len(job.reports) == len(WORKERS):
                del self.jobs[job.file.number]
                self.count(job)

    def count(self, job: Job) -> None:
        checksums, words = job.reports["checksums"], job.reports["words"]
        # Each also asked the other for its number: both ways must agree.
        if words["crc32c"] != checksums["crc32c"]:
            self.disagreements.append(f"{job.file.name}: CRC {checksums['crc32c']}, by call {words['crc32c']}")
        if checksums["words"] not in ("", words["words"]):
            self.disagreements.append(f"{job.file.name}: {words['words']} words, by call {checksums['words']}")
        counts = Counts(
            files=1,
            bytes=len(job.file.data),
            lines=int(checksums["lines"]),
            words=int(words["words"]),
            headings=int(words["headings"]),
            crc_sum=int(checksums["crc32c"], 16),
        )
        self.counted[job.file.path] = counts

    def kill_words(self) -> None:
        """Kills the Node client while it owes an answer, and lets another take over."""
        owed = self.mesh.start_call("words.count", b"", headers={"hold": "yes"}, timeout=PATIENCE)
        self.await_news("workers.holding", "words")
        self.publish_more()
        process = self.processes.pop("words")
        process.send_signal(signal.SIGKILL)
        began = time.monotonic()
        try:
            owed.wait(PATIENCE)
            sys.exit("demo: a dead client answered")
        except flowmesh.PeerGoneError as error:
            ended = time.monotonic() - began
            print(f"killed the Node client during a call: {error.code} after {ended * 1000:.1f} ms")
        process.wait()
        began = time.monotonic()
        self.start("words")
        joined = time.monotonic() - began
        again = [job.file for job in self.jobs.values() if "words" not in job.reports]
        for file in again:
            self.send(file, worker="words")
        print(f"a new Node client joined in {joined:.2f} s; {len(again)} unconfirmed files were sent to it again")

    def run(self) -> float:
        """Counts all files; returns how long it took."""
        for worker in WORKERS:
            self.start(worker)
        began = time.monotonic()
        killed = False
        while self.next_path < len(self.paths) or self.jobs or not killed:
            self.publish_more()
            if not killed and 2 * self.next_path >= len(self.paths):
                killed = True
                self.kill_words()
            if self.jobs:
                self.take_results()
        return time.monotonic() - began

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
                sys.exit(f"demo: the client {worker} ended with {process.returncode}")

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
    parser.add_argument("--checksums", required=True, help="the C client, built")
    parser.add_argument("--node", default="node", help="the program that runs the Node client")
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
    print(f"{total.files} files, {megabytes:.1f} MB to two clients in {seconds:.2f} s, the new client's start included: ", end="")
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
