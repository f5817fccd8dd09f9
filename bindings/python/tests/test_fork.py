"""A forked child opens meshes of its own, whatever the threads of its parent were doing."""

import multiprocessing
from pathlib import Path

import flowmesh


def open_two(directory: str) -> None:
    meshes = [flowmesh.open(f"{directory}/{name}") for name in ("one", "other")]
    for mesh in meshes:
        mesh.declare_queue("q").enqueue("x")


def test_a_child_forked_while_threads_sleep_opens_meshes_of_its_own(directory: Path) -> None:
    """Where sleeping threads stood in one table of the process, the child crashed with SIGSEGV as that table grew."""
    fork = multiprocessing.get_context("fork")
    with flowmesh.open(directory / "parent") as mesh:
        queue = mesh.declare_queue("jobs")
        queue.enqueue("x")
        codes = []
        for number in range(20):
            child = fork.Process(target=open_two, args=(str(directory / str(number)),))
            child.start()
            queue.enqueue("x")
            child.join(60)
            codes.append(child.exitcode)
            child.kill()
        assert codes == [0] * 20
