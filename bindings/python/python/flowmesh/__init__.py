"""FlowMesh: events and calls between the processes of one machine, without a broker.

One process opens a directory, others connect to it; each then publishes, subscribes, serves and calls:

    import flowmesh

    with flowmesh.open("/tmp/mesh") as mesh, mesh.subscribe("orders.*") as orders:
        mesh.publish("orders.created", {"id": 1})
        print(orders.receive(timeout=1.0).value)

Times are seconds. Every wait takes a timeout and ends on Ctrl-C. Any method may be called from any thread.
`flowmesh.aio` has the same names for asyncio.
"""

from ._errors import (
    AlreadyExistsError,
    AlreadyOpenError,
    BadHandleError,
    CancelledError,
    CircuitOpenError,
    ClosedError,
    ConflictError,
    CorruptError,
    DisconnectedError,
    DrainingError,
    FlowMeshError,
    ForkedError,
    FrozenError,
    FullError,
    HandlerFailedError,
    InternalError,
    InterruptedError,
    InvalidArgumentError,
    IoError,
    LeaseLostError,
    NoServiceError,
    NotFoundError,
    NullArgumentError,
    PeerGoneError,
    PermissionDeniedError,
    ProtocolError,
    RateLimitedError,
    ResourceExhaustedError,
    SlowConsumerError,
    StorageFullError,
    TimeoutError,
    TooLargeError,
    UnauthenticatedError,
    UnsupportedError,
    VersionMismatchError,
)
from ._handles import Service, Subscription
from ._mesh import Mesh, connect, connect_tcp, open
from ._native import Backoff, Breaker, Message, PendingCall, Reply, Request, Retry, __version__

__all__ = [
    "AlreadyExistsError",
    "AlreadyOpenError",
    "Backoff",
    "BadHandleError",
    "Breaker",
    "CancelledError",
    "CircuitOpenError",
    "ClosedError",
    "ConflictError",
    "CorruptError",
    "DisconnectedError",
    "DrainingError",
    "FlowMeshError",
    "ForkedError",
    "FrozenError",
    "FullError",
    "HandlerFailedError",
    "InternalError",
    "InterruptedError",
    "InvalidArgumentError",
    "IoError",
    "LeaseLostError",
    "Mesh",
    "Message",
    "NoServiceError",
    "NotFoundError",
    "NullArgumentError",
    "PeerGoneError",
    "PendingCall",
    "PermissionDeniedError",
    "ProtocolError",
    "RateLimitedError",
    "Reply",
    "Request",
    "ResourceExhaustedError",
    "Retry",
    "Service",
    "SlowConsumerError",
    "StorageFullError",
    "Subscription",
    "TimeoutError",
    "TooLargeError",
    "UnauthenticatedError",
    "UnsupportedError",
    "VersionMismatchError",
    "__version__",
    "connect",
    "connect_tcp",
    "open",
]
