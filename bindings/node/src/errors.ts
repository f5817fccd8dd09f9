// The one error class, and the kinds of errors. The kinds are those of core/src/error.rs.

// kinds: begin, made by tools/generate from the table in core/src/error.rs
/** Every kind of error: how it is spelled, whether to retry, what it means, what to do. */
export const errorKinds = {
  INVALID_ARGUMENT: {
    kind: 'InvalidArgument',
    number: 1,
    retryable: false,
    meaning: 'an argument is not valid',
    advice: 'Fix the call: the message names the value and the rule.',
  },
  TIMEOUT: {
    kind: 'Timeout',
    number: 2,
    retryable: true,
    meaning: 'the deadline passed',
    advice: 'Retry with a longer timeout, or find out why the other side is slow.',
  },
  INTERRUPTED: {
    kind: 'Interrupted',
    number: 3,
    retryable: true,
    meaning: 'a signal interrupted the wait',
    advice: 'Handle the signal, then wait again.',
  },
  CLOSED: {
    kind: 'Closed',
    number: 4,
    retryable: false,
    meaning: 'the handle is closed',
    advice: 'Open it again.',
  },
  NOT_FOUND: {
    kind: 'NotFound',
    number: 5,
    retryable: false,
    meaning: 'it does not exist',
    advice: 'Check the name or the path; start the host first.',
  },
  ALREADY_EXISTS: {
    kind: 'AlreadyExists',
    number: 6,
    retryable: false,
    meaning: 'it exists already',
    advice: 'Use another name, or the existing one.',
  },
  ALREADY_OPEN: {
    kind: 'AlreadyOpen',
    number: 7,
    retryable: true,
    meaning: 'another process is the host of this directory',
    advice: 'Connect to it as a client, or wait until the process named in the message ends.',
  },
  PERMISSION_DENIED: {
    kind: 'PermissionDenied',
    number: 8,
    retryable: false,
    meaning: 'permission denied',
    advice: 'Fix the permissions of the directory, or the grants.',
  },
  TOO_LARGE: {
    kind: 'TooLarge',
    number: 9,
    retryable: false,
    meaning: 'a size is over its limit',
    advice: 'Send less at once, or raise the limit named in the message.',
  },
  FULL: {
    kind: 'Full',
    number: 10,
    retryable: true,
    meaning: 'a bounded buffer is full',
    advice: 'Retry later: the receiver is slower than the sender.',
  },
  PEER_GONE: {
    kind: 'PeerGone',
    number: 11,
    retryable: true,
    meaning: 'the process that was to answer is gone',
    advice: 'Retry: another instance may take the call.',
  },
  DISCONNECTED: {
    kind: 'Disconnected',
    number: 12,
    retryable: true,
    meaning: 'the session with the host has ended',
    advice: 'Connect again.',
  },
  PROTOCOL: {
    kind: 'Protocol',
    number: 13,
    retryable: false,
    meaning: 'the other side broke the protocol',
    advice: 'Check that both sides are FlowMesh and of sound builds.',
  },
  VERSION_MISMATCH: {
    kind: 'VersionMismatch',
    number: 14,
    retryable: false,
    meaning: 'no common protocol version',
    advice: 'Upgrade the side with the older range.',
  },
  FORKED: {
    kind: 'Forked',
    number: 15,
    retryable: false,
    meaning: 'the handle belongs to the parent process',
    advice: 'Open or connect again in the forked child.',
  },
  HANDLER_FAILED: {
    kind: 'HandlerFailed',
    number: 16,
    retryable: false,
    meaning: 'the handler failed',
    advice: 'See `type` and `message` of the error: they come from the handler.',
  },
  CANCELLED: {
    kind: 'Cancelled',
    number: 17,
    retryable: false,
    meaning: 'the operation was cancelled',
    advice: 'Nothing to do.',
  },
  RATE_LIMITED: {
    kind: 'RateLimited',
    number: 18,
    retryable: true,
    meaning: 'the service\'s rate limit is reached',
    advice: 'Retry after `retry_after_ms`.',
  },
  CIRCUIT_OPEN: {
    kind: 'CircuitOpen',
    number: 19,
    retryable: true,
    meaning: 'calls to this service failed too often lately',
    advice: 'Retry after `retry_after_ms`.',
  },
  NO_SERVICE: {
    kind: 'NoService',
    number: 20,
    retryable: true,
    meaning: 'no instance serves this name',
    advice: 'Retry when an instance has joined.',
  },
  RESOURCE_EXHAUSTED: {
    kind: 'ResourceExhausted',
    number: 21,
    retryable: true,
    meaning: 'the system is out of a resource',
    advice: 'Free memory, descriptors or disk space, then retry.',
  },
  UNAUTHENTICATED: {
    kind: 'Unauthenticated',
    number: 22,
    retryable: false,
    meaning: 'the shared secret is missing or wrong',
    advice: 'Give both sides the same secret.',
  },
  UNSUPPORTED: {
    kind: 'Unsupported',
    number: 23,
    retryable: false,
    meaning: 'not supported here',
    advice: 'Use another transport or a newer version.',
  },
  SLOW_CONSUMER: {
    kind: 'SlowConsumer',
    number: 24,
    retryable: false,
    meaning: 'the subscription was ended because it fell behind',
    advice: 'Subscribe again; read faster or choose another policy.',
  },
  IO: {
    kind: 'Io',
    number: 25,
    retryable: false,
    meaning: 'the operating system reported an error',
    advice: 'See the message.',
  },
  INTERNAL: {
    kind: 'Internal',
    number: 26,
    retryable: false,
    meaning: 'an internal error',
    advice: 'Report it: this is a bug in FlowMesh.',
  },
  NULL_ARGUMENT: {
    kind: 'NullArgument',
    number: 27,
    retryable: false,
    meaning: 'a pointer is NULL',
    advice: 'Fix the call: the message names the argument.',
  },
  BAD_HANDLE: {
    kind: 'BadHandle',
    number: 28,
    retryable: false,
    meaning: 'the handle is not one of ours, or was freed',
    advice: 'Fix the call: use the handle before freeing it.',
  },
  STORAGE_FULL: {
    kind: 'StorageFull',
    number: 29,
    retryable: true,
    meaning: 'the disk has no room left',
    advice: 'Nothing was written: free disk space, then retry.',
  },
  CORRUPT: {
    kind: 'Corrupt',
    number: 30,
    retryable: false,
    meaning: 'stored data is damaged',
    advice: 'See `file` and `offset`; open with repair to move the damage into quarantine.',
  },
  FROZEN: {
    kind: 'Frozen',
    number: 31,
    retryable: false,
    meaning: 'a write or flush failed, so nothing more is written',
    advice: 'Open the directory again once the disk is sound; reads go on.',
  },
  LEASE_LOST: {
    kind: 'LeaseLost',
    number: 32,
    retryable: false,
    meaning: 'the job is not this worker\'s any more',
    advice: 'Stop working on it: it is done, or another worker has it.',
  },
  CONFLICT: {
    kind: 'Conflict',
    number: 33,
    retryable: false,
    meaning: 'it is there already, and differs',
    advice: 'The message names what differs: change one of the two.',
  },
  DRAINING: {
    kind: 'Draining',
    number: 34,
    retryable: true,
    meaning: 'the queue is being drained and takes nothing new',
    advice: 'Retry once it is resumed.',
  },
} as const
// kinds: end

/** The code of an error: its kind in upper snake case, the same in every language. */
export type ErrorCode = keyof typeof errorKinds

/** The kind of an error in camel case, as Rust and Python spell it. */
export type ErrorKind = (typeof errorKinds)[ErrorCode]['kind']

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
export class FlowMeshError extends Error {
  /** The kind, in upper snake case: `'TIMEOUT'`, `'INVALID_ARGUMENT'`. */
  readonly code: ErrorCode
  /** The call that failed: `'mesh.publish'`. */
  readonly operation: string
  /** Named values: the argument that was refused, the limit it met, the handler's `type` and `message`. */
  readonly context: Readonly<Record<string, string>>

  constructor(
    code: ErrorCode,
    operation: string,
    context: Readonly<Record<string, string>> = {},
    options: { readonly cause?: unknown; readonly message?: string } = {},
  ) {
    const message = options.message ?? describe(code, operation, context)
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    this.code = code
    this.operation = operation
    this.context = context
  }

  /** The kind in camel case. */
  get kind(): ErrorKind {
    return errorKinds[this.code].kind
  }

  /** Whether the same call may succeed later without being changed. */
  get retryable(): boolean {
    return errorKinds[this.code].retryable
  }

  /** What to do about it. */
  get advice(): string {
    return errorKinds[this.code].advice
  }
}

Object.defineProperty(FlowMeshError.prototype, 'name', { value: 'FlowMeshError', configurable: true, writable: true })

function describe(code: ErrorCode, operation: string, context: Readonly<Record<string, string>>): string {
  const values = Object.entries(context).map(([name, value]) => `${name}=${value}`)
  const meaning = `${operation}: ${errorKinds[code].meaning}`
  return values.length === 0 ? meaning : `${meaning} (${values.join(', ')})`
}

/** @internal Makes the error of the native side; `values` are names and values in turns. */
export function nativeError(code: string, operation: string, message: string, ...values: string[]): FlowMeshError {
  const context: Record<string, string> = {}
  for (let at = 0; at + 1 < values.length; at += 2) context[values[at]!] ??= values[at + 1]!
  const known = Object.hasOwn(errorKinds, code) ? (code as ErrorCode) : 'INTERNAL'
  return new FlowMeshError(known, operation, context, { message })
}
