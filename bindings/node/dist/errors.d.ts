/** Every kind of error: how it is spelled, whether to retry, what it means, what to do. */
export declare const errorKinds: {
    readonly INVALID_ARGUMENT: {
        readonly kind: 'InvalidArgument';
        readonly number: 1;
        readonly retryable: false;
        readonly meaning: 'an argument is not valid';
        readonly advice: 'Fix the call: the message names the value and the rule.';
    };
    readonly TIMEOUT: {
        readonly kind: 'Timeout';
        readonly number: 2;
        readonly retryable: true;
        readonly meaning: 'the deadline passed';
        readonly advice: 'Retry with a longer timeout, or find out why the other side is slow.';
    };
    readonly INTERRUPTED: {
        readonly kind: 'Interrupted';
        readonly number: 3;
        readonly retryable: true;
        readonly meaning: 'a signal interrupted the wait';
        readonly advice: 'Handle the signal, then wait again.';
    };
    readonly CLOSED: {
        readonly kind: 'Closed';
        readonly number: 4;
        readonly retryable: false;
        readonly meaning: 'the handle is closed';
        readonly advice: 'Open it again.';
    };
    readonly NOT_FOUND: {
        readonly kind: 'NotFound';
        readonly number: 5;
        readonly retryable: false;
        readonly meaning: 'it does not exist';
        readonly advice: 'Check the name or the path; start the host first.';
    };
    readonly ALREADY_EXISTS: {
        readonly kind: 'AlreadyExists';
        readonly number: 6;
        readonly retryable: false;
        readonly meaning: 'it exists already';
        readonly advice: 'Use another name, or the existing one.';
    };
    readonly ALREADY_OPEN: {
        readonly kind: 'AlreadyOpen';
        readonly number: 7;
        readonly retryable: true;
        readonly meaning: 'another process is the host of this directory';
        readonly advice: 'Connect to it as a client, or wait until the process named in the message ends.';
    };
    readonly PERMISSION_DENIED: {
        readonly kind: 'PermissionDenied';
        readonly number: 8;
        readonly retryable: false;
        readonly meaning: 'permission denied';
        readonly advice: 'Fix the permissions of the directory, or the grants.';
    };
    readonly TOO_LARGE: {
        readonly kind: 'TooLarge';
        readonly number: 9;
        readonly retryable: false;
        readonly meaning: 'a size is over its limit';
        readonly advice: 'Send less at once, or raise the limit named in the message.';
    };
    readonly FULL: {
        readonly kind: 'Full';
        readonly number: 10;
        readonly retryable: true;
        readonly meaning: 'a bounded buffer is full';
        readonly advice: 'Retry later: the receiver is slower than the sender.';
    };
    readonly PEER_GONE: {
        readonly kind: 'PeerGone';
        readonly number: 11;
        readonly retryable: true;
        readonly meaning: 'the process that was to answer is gone';
        readonly advice: 'Retry: another instance may take the call.';
    };
    readonly DISCONNECTED: {
        readonly kind: 'Disconnected';
        readonly number: 12;
        readonly retryable: true;
        readonly meaning: 'the session with the host has ended';
        readonly advice: 'Connect again.';
    };
    readonly PROTOCOL: {
        readonly kind: 'Protocol';
        readonly number: 13;
        readonly retryable: false;
        readonly meaning: 'the other side broke the protocol';
        readonly advice: 'Check that both sides are FlowMesh and of sound builds.';
    };
    readonly VERSION_MISMATCH: {
        readonly kind: 'VersionMismatch';
        readonly number: 14;
        readonly retryable: false;
        readonly meaning: 'no common protocol version';
        readonly advice: 'Upgrade the side with the older range.';
    };
    readonly FORKED: {
        readonly kind: 'Forked';
        readonly number: 15;
        readonly retryable: false;
        readonly meaning: 'the handle belongs to the parent process';
        readonly advice: 'Open or connect again in the forked child.';
    };
    readonly HANDLER_FAILED: {
        readonly kind: 'HandlerFailed';
        readonly number: 16;
        readonly retryable: false;
        readonly meaning: 'the handler failed';
        readonly advice: 'See `type` and `message` of the error: they come from the handler.';
    };
    readonly CANCELLED: {
        readonly kind: 'Cancelled';
        readonly number: 17;
        readonly retryable: false;
        readonly meaning: 'the operation was cancelled';
        readonly advice: 'Nothing to do.';
    };
    readonly RATE_LIMITED: {
        readonly kind: 'RateLimited';
        readonly number: 18;
        readonly retryable: true;
        readonly meaning: 'the service\'s rate limit is reached';
        readonly advice: 'Retry after `retry_after_ms`.';
    };
    readonly CIRCUIT_OPEN: {
        readonly kind: 'CircuitOpen';
        readonly number: 19;
        readonly retryable: true;
        readonly meaning: 'calls to this service failed too often lately';
        readonly advice: 'Retry after `retry_after_ms`.';
    };
    readonly NO_SERVICE: {
        readonly kind: 'NoService';
        readonly number: 20;
        readonly retryable: true;
        readonly meaning: 'no instance serves this name';
        readonly advice: 'Retry when an instance has joined.';
    };
    readonly RESOURCE_EXHAUSTED: {
        readonly kind: 'ResourceExhausted';
        readonly number: 21;
        readonly retryable: true;
        readonly meaning: 'the system is out of a resource';
        readonly advice: 'Free memory, descriptors or disk space, then retry.';
    };
    readonly UNAUTHENTICATED: {
        readonly kind: 'Unauthenticated';
        readonly number: 22;
        readonly retryable: false;
        readonly meaning: 'the shared secret is missing or wrong';
        readonly advice: 'Give both sides the same secret.';
    };
    readonly UNSUPPORTED: {
        readonly kind: 'Unsupported';
        readonly number: 23;
        readonly retryable: false;
        readonly meaning: 'not supported here';
        readonly advice: 'Use another transport or a newer version.';
    };
    readonly SLOW_CONSUMER: {
        readonly kind: 'SlowConsumer';
        readonly number: 24;
        readonly retryable: false;
        readonly meaning: 'the subscription was ended because it fell behind';
        readonly advice: 'Subscribe again; read faster or choose another policy.';
    };
    readonly IO: {
        readonly kind: 'Io';
        readonly number: 25;
        readonly retryable: false;
        readonly meaning: 'the operating system reported an error';
        readonly advice: 'See the message.';
    };
    readonly INTERNAL: {
        readonly kind: 'Internal';
        readonly number: 26;
        readonly retryable: false;
        readonly meaning: 'an internal error';
        readonly advice: 'Report it: this is a bug in FlowMesh.';
    };
    readonly NULL_ARGUMENT: {
        readonly kind: 'NullArgument';
        readonly number: 27;
        readonly retryable: false;
        readonly meaning: 'a pointer is NULL';
        readonly advice: 'Fix the call: the message names the argument.';
    };
    readonly BAD_HANDLE: {
        readonly kind: 'BadHandle';
        readonly number: 28;
        readonly retryable: false;
        readonly meaning: 'the handle is not one of ours, or was freed';
        readonly advice: 'Fix the call: use the handle before freeing it.';
    };
};
/** The code of an error: its kind in upper snake case, the same in every language. */
export type ErrorCode = keyof typeof errorKinds;
/** The kind of an error in camel case, as Rust and Python spell it. */
export type ErrorKind = (typeof errorKinds)[ErrorCode]['kind'];
/**
 * What went wrong, where, with which values.
 *
 * `code` says how to act on it, `operation` which call failed, `context` which value met which limit.
 *
 * ```js
 * try {
 *   await mesh.call('images.resize', image)
 * } catch (error) {
 *   if (error instanceof FlowMeshError && error.code === 'HANDLER_FAILED') console.error(error.context.message)
 *   else throw error
 * }
 * ```
 */
export declare class FlowMeshError extends Error {
    /** The kind, in upper snake case: `'TIMEOUT'`, `'INVALID_ARGUMENT'`. */
    readonly code: ErrorCode;
    /** The call that failed: `'mesh.publish'`. */
    readonly operation: string;
    /** Named values: the argument that was refused, the limit it met, the handler's `type` and `message`. */
    readonly context: Readonly<Record<string, string>>;
    constructor(code: ErrorCode, operation: string, context?: Readonly<Record<string, string>>, options?: {
        readonly cause?: unknown;
        readonly message?: string;
    });
    /** The kind in camel case. */
    get kind(): ErrorKind;
    /** Whether the same call may succeed later without being changed. */
    get retryable(): boolean;
    /** What to do about it. */
    get advice(): string;
}
