"""A handler that fails is tried again, and what fails every time becomes a dead letter.

python retry.py DIRECTORY
"""

import logging
import sys

import flowmesh


def main(directory: str) -> None:
    retry = flowmesh.Retry(max_attempts=3, backoff=flowmesh.Backoff(initial=0.01), dead_letter="mail.dead")
    with flowmesh.open(directory) as mesh, mesh.subscribe("mail.dead") as dead:

        @mesh.on("mail.send", retry=retry)
        def send(mail: flowmesh.Message) -> None:
            print(f"attempt {mail.attempt} for {mail.value}")
            if mail.value == "nobody" or mail.attempt < 2:
                raise ConnectionError("the mail server does not answer")

        mesh.publish("mail.send", "ada")
        mesh.publish("mail.send", "nobody")
        print(f"given up: {dead.receive(timeout=10.0).value}")


if __name__ == "__main__":
    # Each failure is logged with its traceback; here they are expected.
    logging.getLogger("flowmesh").setLevel(logging.CRITICAL)
    main(sys.argv[1])
