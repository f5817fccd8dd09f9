"""A service and its caller in two processes, with an error, a deadline and a cancellation that arrive.

python service.py DIRECTORY serve       serves `text.upper` and `text.slow` until `text.stop` is called
python service.py DIRECTORY call
"""

import sys
import threading
import time

import flowmesh


class EmptyText(Exception):
    pass


def serve(directory: str) -> None:
    stop = threading.Event()
    with flowmesh.open(directory, name="text") as mesh:

        @mesh.service("text.upper", concurrency=4, version="1.0.0")
        def upper(request: flowmesh.Request) -> str:
            if not request.value:
                raise EmptyText("there is nothing to write larger")
            return str(request.value).upper()

        @mesh.service("text.slow")
        def slow(request: flowmesh.Request) -> None:
            # Ends at once when nobody waits any more.
            while not request.cancelled:
                time.sleep(0.01)
            print("the caller gave up", flush=True)

        @mesh.service("text.stop")
        def stopping(request: flowmesh.Request) -> None:
            request.reply()
            stop.set()

        print("serving text.upper", flush=True)
        stop.wait()


def call(directory: str) -> None:
    with flowmesh.connect(directory, name="caller") as mesh:
        print(mesh.call("text.upper", "hello").value)
        try:
            mesh.call("text.upper", "")
        except flowmesh.HandlerFailedError as error:
            print(f"refused: {error.type}: {error.message}")
        try:
            mesh.call("text.slow", timeout=0.05)
        except TimeoutError as error:
            print(type(error).__name__)
        slow = mesh.start_call("text.slow")
        slow.cancel()
        try:
            slow.wait()
        except flowmesh.CancelledError as error:
            print(error.code)
        for service in mesh.services():
            print(f"{service['name']}: {len(service['instances'])} instance")
        mesh.call("text.stop")


if __name__ == "__main__":
    # The example lets handlers fail on purpose; their tracebacks would only be in the way.
    import logging

    logging.getLogger("flowmesh").setLevel(logging.CRITICAL)
    {"serve": serve, "call": call}[sys.argv[2]](sys.argv[1])
