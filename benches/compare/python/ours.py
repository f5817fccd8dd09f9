"""FlowMesh's side of the Python lines: the same loops, payloads and figures as in `peers.py`, default settings.

This process is the host, the one it starts is a client.
"""

import multiprocessing
import sys
import tempfile
import time

import flowmesh
from peers import CALLS, EVENTS, PAYLOAD, payload

SUBJECT = "compare.event"
RECEIVED = "compare.received"
SERVICE = "compare.echo"
BATCH = 1_000
# How far the subscriber may fall behind before the publisher waits for it.
CAPACITY = 65_536
PATIENCE = 20.0


def rpc(mesh, client):
    """Round trip of 64 bytes: the client calls the host."""
    with mesh.serve(SERVICE, lambda request: PAYLOAD.pack(*PAYLOAD.unpack(request.payload))):
        client.start()
        client.join()


def rpc_client(directory):
    samples = []
    with flowmesh.connect(directory) as mesh:
        for seed in range(CALLS // 10 + CALLS):
            start = time.perf_counter_ns()
            message = payload(seed)
            if mesh.call(SERVICE, message).payload != message:
                raise AssertionError("a payload arrived damaged")
            samples.append(time.perf_counter_ns() - start)
    samples = sorted(samples[CALLS // 10 :])
    print("figure", samples[CALLS // 2], samples[CALLS * 99 // 100])


def rate(mesh, client):
    """64-byte events one way, none lost: the host publishes, the client receives."""
    with mesh.subscribe(RECEIVED) as received:
        client.start()
        received.receive(PATIENCE)
        for count in (EVENTS // 10, EVENTS):
            start = time.perf_counter()
            for first in range(0, count, BATCH):
                mesh.publish_many(SUBJECT, [payload(seed) for seed in range(first, first + BATCH)])
            received.receive(PATIENCE)
            elapsed = time.perf_counter() - start
    client.join()
    print("figure", EVENTS / elapsed, EVENTS / elapsed)


def rate_client(directory):
    with (
        flowmesh.connect(directory) as mesh,
        mesh.subscribe(SUBJECT, capacity=CAPACITY, on_slow="block", block_timeout=PATIENCE) as events,
    ):
        mesh.publish(RECEIVED, "ready")
        for count in (EVENTS // 10, EVENTS):
            seed = 0
            while seed < count:
                for message in events.receive_many(BATCH, PATIENCE):
                    if message.payload != payload(seed):
                        raise AssertionError("a payload arrived damaged or out of order")
                    seed += 1
            mesh.publish(RECEIVED)


def main(host_part, client_part):
    with tempfile.TemporaryDirectory(prefix="flowmesh-compare-") as directory, flowmesh.open(directory) as mesh:
        context = multiprocessing.get_context("spawn")
        client = context.Process(target=client_part, args=(directory,), daemon=True)
        host_part(mesh, client)
    return client.exitcode


if __name__ == "__main__":
    sys.exit(main(*{"rpc": (rpc, rpc_client), "rate": (rate, rate_client)}[sys.argv[1]]))
