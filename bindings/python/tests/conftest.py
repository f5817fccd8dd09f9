"""A mesh for each test, and what tests have in common."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import flowmesh

WATCHDOG = 10.0

# A background job of a shell ignores SIGINT, and so would the programs that tests interrupt: what is ignored is inherited,
# a handler is not.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def directory() -> Iterator[Path]:
    # Not pytest's tmp_path: the path of a Unix socket must be short.
    path = Path(tempfile.mkdtemp(prefix="fm"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def host(directory: Path) -> Iterator[flowmesh.Mesh]:
    with flowmesh.open(directory, name="host") as mesh:
        yield mesh


@pytest.fixture
def client(host: flowmesh.Mesh, directory: Path) -> Iterator[flowmesh.Mesh]:
    with flowmesh.connect(directory, name="client") as mesh:
        yield mesh


@pytest.fixture(params=["host", "client"])
def mesh(request: pytest.FixtureRequest) -> flowmesh.Mesh:
    """What holds for a host holds for a client."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, flowmesh.Mesh)
    return found


@pytest.fixture
def program() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Runs a Python program in a process of its own; what is left of it ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def run(source: str, *arguments: object) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(source), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def eventually(condition: Callable[[], object], what: str = "the condition") -> None:
    """Waits until something holds that another thread or process brings about."""
    deadline = time.monotonic() + WATCHDOG
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true"
        time.sleep(0.005)


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """The disk is full, for this process: it may write no file beyond 4 KiB, where the ledger is by then. The kernel
    refuses such writes like those of a full disk, to any user and on any file system.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("flowmesh")]
