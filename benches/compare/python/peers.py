"""The Python peers of the comparison: multiprocessing.Pipe and pyzmq.

Prints one line, `figure <value> <tail>`: p50 and p99 in nanoseconds, or a rate per second twice.
"""

import multiprocessing
import os
import struct
import sys
import time

CALLS = 10_000
EVENTS = 300_000
HIGH_WATER_MARK = 100_000
PAYLOAD = struct.Struct("<8Q")


def payload(seed):
    return PAYLOAD.pack(seed, seed, seed, seed, seed, seed, seed, seed)


def pipe():
    """Round trip of 64 bytes over multiprocessing.Pipe, by send_bytes, its fastest way."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=pipe_child, args=(theirs,), daemon=True)
    child.start()
    theirs.close()
    samples = []
    for seed in range(CALLS // 10 + CALLS):
        start = time.perf_counter_ns()
        message = payload(seed)
        ours.send_bytes(message)
        if ours.recv_bytes() != message:
            raise AssertionError("a payload arrived damaged")
        samples.append(time.perf_counter_ns() - start)
    ours.send_bytes(b"")
    child.join()
    samples = sorted(samples[CALLS // 10 :])
    print("figure", samples[CALLS // 2], samples[CALLS * 99 // 100])


def pipe_child(connection):
    while message := connection.recv_bytes():
        connection.send_bytes(PAYLOAD.pack(*PAYLOAD.unpack(message)))


def pyzmq():
    """64-byte messages one way over a PAIR of sockets on ipc."""
    import zmq

    address = f"ipc://@flowmesh-compare-python-{os.getpid()}"
    socket = zmq.Context().socket(zmq.PAIR)
    socket.set_hwm(HIGH_WATER_MARK)
    socket.bind(address)
    child = multiprocessing.get_context("spawn").Process(target=pyzmq_child, args=(address,), daemon=True)
    child.start()
    socket.recv()
    for count in (EVENTS // 10, EVENTS):
        start = time.perf_counter()
        for seed in range(count):
            socket.send(payload(seed))
        socket.recv()
        elapsed = time.perf_counter() - start
    child.join()
    print("figure", EVENTS / elapsed, EVENTS / elapsed)


def pyzmq_child(address):
    import zmq

    socket = zmq.Context().socket(zmq.PAIR)
    socket.set_hwm(HIGH_WATER_MARK)
    socket.connect(address)
    socket.send(b"ready")
    for count in (EVENTS // 10, EVENTS):
        for seed in range(count):
            if socket.recv() != payload(seed):
                raise AssertionError("a payload arrived damaged or out of order")
        socket.send(b"received")
    socket.close()
    socket.context.term()


if __name__ == "__main__":
    {"pipe": pipe, "pyzmq": pyzmq}[sys.argv[1]]()
