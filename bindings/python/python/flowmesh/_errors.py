"""The exceptions, one for each error kind of the core, with their built-in twins as further bases."""

from __future__ import annotations

import builtins
from types import MappingProxyType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class FlowMeshError(Exception):
    """The base of all of them.

    `kind` and `code` name the error as the table of kinds does, `operation` is the call that failed, `context` the
    values involved, and `retryable` says whether the same call may succeed later without being changed.
    """

    # No __init__ and no __str__: the native half makes exceptions where no Python code may run.
    number = 0
    kind = "Error"
    code = "ERROR"
    retryable = False
    operation: str = ""
    context: Mapping[str, str] = MappingProxyType({})


class _FromHandler:
    context: Mapping[str, str]

    @property
    def type(self) -> str:
        """The name of what the handler raised: `ValueError`."""
        return self.context.get("type", "")

    @property
    def message(self) -> str:
        """What that said."""
        return self.context.get("message", "")


# kinds: begin, written by tools/generate from core/src/error.rs


class InvalidArgumentError(FlowMeshError, builtins.ValueError):
    """An argument is not valid. Fix the call: the message names the value and the rule."""

    number = 1
    kind = "InvalidArgument"
    code = "INVALID_ARGUMENT"
    retryable = False


class TimeoutError(FlowMeshError, builtins.TimeoutError):
    """The deadline passed. Retry with a longer timeout, or find out why the other side is slow."""

    number = 2
    kind = "Timeout"
    code = "TIMEOUT"
    retryable = True


class InterruptedError(FlowMeshError, builtins.InterruptedError):
    """A signal interrupted the wait. Handle the signal, then wait again."""

    number = 3
    kind = "Interrupted"
    code = "INTERRUPTED"
    retryable = True


class ClosedError(FlowMeshError):
    """The handle is closed. Open it again."""

    number = 4
    kind = "Closed"
    code = "CLOSED"
    retryable = False


class NotFoundError(FlowMeshError, builtins.LookupError):
    """It does not exist. Check the name or the path; start the host first."""

    number = 5
    kind = "NotFound"
    code = "NOT_FOUND"
    retryable = False


class AlreadyExistsError(FlowMeshError):
    """It exists already. Use another name, or the existing one."""

    number = 6
    kind = "AlreadyExists"
    code = "ALREADY_EXISTS"
    retryable = False


class AlreadyOpenError(FlowMeshError):
    """Another process is the host of this directory. Connect to it as a client, or wait until the process named in the message ends."""

    number = 7
    kind = "AlreadyOpen"
    code = "ALREADY_OPEN"
    retryable = True


class PermissionDeniedError(FlowMeshError, builtins.PermissionError):
    """Permission denied. Fix the permissions of the directory, or the grants."""

    number = 8
    kind = "PermissionDenied"
    code = "PERMISSION_DENIED"
    retryable = False


class TooLargeError(FlowMeshError, builtins.ValueError):
    """A size is over its limit. Send less at once, or raise the limit named in the message."""

    number = 9
    kind = "TooLarge"
    code = "TOO_LARGE"
    retryable = False


class FullError(FlowMeshError):
    """A bounded buffer is full. Retry later: the receiver is slower than the sender."""

    number = 10
    kind = "Full"
    code = "FULL"
    retryable = True


class PeerGoneError(FlowMeshError, builtins.ConnectionError):
    """The process that was to answer is gone. Retry: another instance may take the call."""

    number = 11
    kind = "PeerGone"
    code = "PEER_GONE"
    retryable = True


class DisconnectedError(FlowMeshError, builtins.ConnectionError):
    """The session with the host has ended. Connect again."""

    number = 12
    kind = "Disconnected"
    code = "DISCONNECTED"
    retryable = True


class ProtocolError(FlowMeshError):
    """The other side broke the protocol. Check that both sides are FlowMesh and of sound builds."""

    number = 13
    kind = "Protocol"
    code = "PROTOCOL"
    retryable = False


class VersionMismatchError(FlowMeshError):
    """No common protocol version. Upgrade the side with the older range."""

    number = 14
    kind = "VersionMismatch"
    code = "VERSION_MISMATCH"
    retryable = False


class ForkedError(FlowMeshError, builtins.RuntimeError):
    """The handle belongs to the parent process. Open or connect again in the forked child."""

    number = 15
    kind = "Forked"
    code = "FORKED"
    retryable = False


class HandlerFailedError(FlowMeshError, _FromHandler):
    """The handler failed. See `type` and `message` of the error: they come from the handler."""

    number = 16
    kind = "HandlerFailed"
    code = "HANDLER_FAILED"
    retryable = False


class CancelledError(FlowMeshError):
    """The operation was cancelled. Nothing to do."""

    number = 17
    kind = "Cancelled"
    code = "CANCELLED"
    retryable = False


class RateLimitedError(FlowMeshError):
    """The service's rate limit is reached. Retry after `retry_after_ms`."""

    number = 18
    kind = "RateLimited"
    code = "RATE_LIMITED"
    retryable = True


class CircuitOpenError(FlowMeshError):
    """Calls to this service failed too often lately. Retry after `retry_after_ms`."""

    number = 19
    kind = "CircuitOpen"
    code = "CIRCUIT_OPEN"
    retryable = True


class NoServiceError(FlowMeshError, builtins.LookupError):
    """No instance serves this name. Retry when an instance has joined."""

    number = 20
    kind = "NoService"
    code = "NO_SERVICE"
    retryable = True


class ResourceExhaustedError(FlowMeshError):
    """The system is out of a resource. Free memory, descriptors or disk space, then retry."""

    number = 21
    kind = "ResourceExhausted"
    code = "RESOURCE_EXHAUSTED"
    retryable = True


class UnauthenticatedError(FlowMeshError, builtins.PermissionError):
    """The shared secret is missing or wrong. Give both sides the same secret."""

    number = 22
    kind = "Unauthenticated"
    code = "UNAUTHENTICATED"
    retryable = False


class UnsupportedError(FlowMeshError):
    """Not supported here. Use another transport or a newer version."""

    number = 23
    kind = "Unsupported"
    code = "UNSUPPORTED"
    retryable = False


class SlowConsumerError(FlowMeshError):
    """The subscription was ended because it fell behind. Subscribe again; read faster or choose another policy."""

    number = 24
    kind = "SlowConsumer"
    code = "SLOW_CONSUMER"
    retryable = False


class IoError(FlowMeshError, builtins.OSError):
    """The operating system reported an error. See the message."""

    number = 25
    kind = "Io"
    code = "IO"
    retryable = False


class InternalError(FlowMeshError, builtins.RuntimeError):
    """An internal error. Report it: this is a bug in FlowMesh."""

    number = 26
    kind = "Internal"
    code = "INTERNAL"
    retryable = False


class NullArgumentError(FlowMeshError):
    """A pointer is NULL. Fix the call: the message names the argument."""

    number = 27
    kind = "NullArgument"
    code = "NULL_ARGUMENT"
    retryable = False


class BadHandleError(FlowMeshError):
    """The handle is not one of ours, or was freed. Fix the call: use the handle before freeing it."""

    number = 28
    kind = "BadHandle"
    code = "BAD_HANDLE"
    retryable = False


class StorageFullError(FlowMeshError):
    """The disk has no room left. Nothing was written: free disk space, then retry."""

    number = 29
    kind = "StorageFull"
    code = "STORAGE_FULL"
    retryable = True


class CorruptError(FlowMeshError):
    """Stored data is damaged. See `file` and `offset`; open with repair to move the damage into quarantine."""

    number = 30
    kind = "Corrupt"
    code = "CORRUPT"
    retryable = False


class FrozenError(FlowMeshError):
    """A write or flush failed, so nothing more is written. Open the directory again once the disk is sound; reads go on."""

    number = 31
    kind = "Frozen"
    code = "FROZEN"
    retryable = False


class LeaseLostError(FlowMeshError):
    """The job is not this worker's any more. Stop working on it: it is done, or another worker has it."""

    number = 32
    kind = "LeaseLost"
    code = "LEASE_LOST"
    retryable = False


class ConflictError(FlowMeshError):
    """It is there already, and differs. The message names what differs: change one of the two."""

    number = 33
    kind = "Conflict"
    code = "CONFLICT"
    retryable = False


class DrainingError(FlowMeshError):
    """The queue is being drained and takes nothing new. Retry once it is resumed."""

    number = 34
    kind = "Draining"
    code = "DRAINING"
    retryable = True


BY_NUMBER: tuple[type[FlowMeshError], ...] = (
    FlowMeshError,
    InvalidArgumentError,
    TimeoutError,
    InterruptedError,
    ClosedError,
    NotFoundError,
    AlreadyExistsError,
    AlreadyOpenError,
    PermissionDeniedError,
    TooLargeError,
    FullError,
    PeerGoneError,
    DisconnectedError,
    ProtocolError,
    VersionMismatchError,
    ForkedError,
    HandlerFailedError,
    CancelledError,
    RateLimitedError,
    CircuitOpenError,
    NoServiceError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnsupportedError,
    SlowConsumerError,
    IoError,
    InternalError,
    NullArgumentError,
    BadHandleError,
    StorageFullError,
    CorruptError,
    FrozenError,
    LeaseLostError,
    ConflictError,
    DrainingError,
)
# kinds: end
