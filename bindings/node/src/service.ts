// Services: where calls arrive and are answered.

import { FlowMeshError } from './errors.js'
import { hold, isTurnOver, job, Linger, LINGER_US, release, unwatch, watch } from './loop.js'
import { type Message, readRequests } from './message.js'
import { native } from './native.js'
import { encode, flatHeaders } from './payload.js'
import { describeFailure } from './subscription.js'
import type { Headers, Payload, Signal } from './types.js'

/** What a handler knows of a call beside the request. */
export interface CallContext {
  /** Aborted when nobody waits for the answer any more: the caller gave up or died, the deadline passed. */
  readonly signal: Signal
  /** Milliseconds to the caller's deadline when the handler was called. */
  readonly remainingMs: number
}

/**
 * Answers a call with what it returns or resolves to; nothing is an empty answer. When it throws or rejects, the
 * caller gets `HANDLER_FAILED` with the error's name and message.
 */
export type CallHandler = (
  request: Message,
  context: CallContext,
) => Payload | Reply | void | Promise<Payload | Reply | void>

/** An answer with headers. */
export class Reply {
  readonly payload: Payload
  readonly headers: Headers

  constructor(payload: Payload, options: { readonly headers?: Headers } = {}) {
    this.payload = payload
    this.headers = options.headers ?? {}
  }
}

/**
 * An instance of a service. While it is open it keeps the process alive, unless `unref()` was called.
 */
export class Service {
  /** The service's name. */
  readonly name: string
  /** Settles when the host has it; see `Subscription.ready`. */
  readonly ready: Promise<void>
  /** Resolves when it is over: with `undefined` when it was closed here, else with the reason. */
  readonly closed: Promise<unknown>

  readonly #id: number
  readonly #handler: CallHandler
  readonly #concurrency: number
  readonly #onEnd: (service: Service) => void
  readonly #running = new Set<Running>()
  #state: 'starting' | 'open' | 'over' = 'starting'
  #resolveClosed!: (reason: unknown) => void
  #held = true
  #more = false
  #pumping = false
  readonly #linger = new Linger()

  /** @internal */
  constructor(
    id: number,
    name: string,
    handler: CallHandler,
    concurrency: number,
    made: boolean,
    onEnd: (service: Service) => void,
  ) {
    this.#id = id
    this.name = name
    this.#handler = handler
    this.#concurrency = concurrency
    this.#onEnd = onEnd
    this.closed = new Promise(resolve => (this.#resolveClosed = resolve))
    hold()
    this.ready = made ? Promise.resolve(this.#open()) : job(id).then(() => this.#open(), error => this.#fail(error))
    this.ready.catch(() => {})
  }

  #open(): void {
    if (this.#state === 'over') return void job(native.startCloseService(this.#id))
    this.#state = 'open'
    watch(this.#id, () => {
      this.#more = true
      this.#pump()
    })
  }

  #fail(error: unknown): never {
    void this.end(error)
    throw error
  }

  /** Starts handlers for the calls that wait, as many as may run at once. */
  #pump(): void {
    if (this.#pumping) return
    this.#pumping = true
    while (this.#more && this.#running.size < this.#concurrency) {
      if (isTurnOver()) {
        setImmediate(() => this.#pump())
        break
      }
      let batch
      try {
        batch = native.next(this.#id, Math.min(this.#concurrency - this.#running.size, BATCH_MAX))
      } catch (error) {
        const closedHere = error instanceof FlowMeshError && error.code === 'CLOSED'
        void this.end(closedHere ? undefined : error, true)
        break
      }
      this.#more = typeof batch !== 'number' || (batch & 1) === 1
      for (const { message, remainingMs } of readRequests(batch)) this.#start(message, remainingMs)
      if (!this.#more) this.#more = this.#stay()
    }
    this.#pumping = false
  }

  /** Stays a moment for the next call of a caller that was just answered; tells whether it came. */
  #stay(): boolean {
    if (this.#state !== 'open' || this.#running.size > 0 || !this.#linger.wants()) return false
    const found = native.linger(this.#id, LINGER_US)
    this.#linger.record(found)
    return found
  }

  #start(message: Message, remainingMs: number): void {
    const running = new Running(message.key, remainingMs)
    this.#running.add(running)
    let result
    try {
      result = this.#handler(message, running)
    } catch (error) {
      return this.#settle(running, () => running.fail(error))
    }
    if (result instanceof Promise || isThenable(result)) {
      Promise.resolve(result).then(
        value => this.#settle(running, () => running.reply(value)),
        error => this.#settle(running, () => running.fail(error)),
      )
    } else {
      this.#settle(running, () => running.reply(result))
    }
  }

  #settle(running: Running, answer: () => void): void {
    this.#running.delete(running)
    running.finish()
    try {
      answer()
    } catch {
      // The session is over, or the answer was refused and the caller has that error: it is not the handler's.
    }
    if (!this.#pumping && !this.#more) this.#more = this.#stay()
    if (this.#more) this.#pump()
  }

  /** While it is open it keeps the process alive. That is so from the start. */
  ref(): this {
    if (!this.#held && this.#state !== 'over') hold()
    this.#held = true
    return this
  }

  /** It does not keep the process alive any more. */
  unref(): this {
    if (this.#held && this.#state !== 'over') release()
    this.#held = false
    return this
  }

  /** Whether it is over. */
  get isClosed(): boolean {
    return this.#state === 'over'
  }

  /** Ends the serving: no further calls come. Handlers that run may still answer. */
  async close(): Promise<void> {
    await this.end(undefined)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** @internal Ends it for `reason`; handlers that run are told when their answers cannot arrive any more. */
  end(reason: unknown, over = reason !== undefined): Promise<unknown> {
    if (this.#state === 'over') return Promise.resolve()
    const wasOpen = this.#state === 'open'
    this.#state = 'over'
    this.#more = false
    if (this.#held) release()
    if (over) for (const running of this.#running) running.abort()
    this.#onEnd(this)
    this.#resolveClosed(reason)
    if (!wasOpen) return Promise.resolve()
    unwatch(this.#id)
    return job(native.startCloseService(this.#id))
  }
}

/** A call that a handler works on. */
class Running implements CallContext {
  readonly remainingMs: number
  readonly #key: number
  #controller: AbortController | undefined

  constructor(key: number, remainingMs: number) {
    this.#key = key
    this.remainingMs = remainingMs
  }

  // Made when asked for: most handlers never look.
  get signal(): Signal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController()
      watch(this.#key, () => this.abort())
      try {
        native.watchCancel(this.#key)
      } catch {
        this.abort()
      }
    }
    return this.#controller.signal as Signal
  }

  abort(): void {
    this.#controller?.abort(new FlowMeshError('CANCELLED', 'service.call'))
  }

  finish(): void {
    if (this.#controller !== undefined) unwatch(this.#key)
  }

  reply(result: Payload | Reply | void): void {
    let encoded
    let headers
    try {
      const [value, extra] = result instanceof Reply ? [result.payload, result.headers] : [result, undefined]
      encoded = value === undefined ? EMPTY : encode('service.reply', value)
      headers = flatHeaders('service.reply', extra, encoded.contentType)
    } catch (error) {
      return this.fail(error)
    }
    if (encoded.payload.length <= SMALL_BYTES) native.reply(this.#key, encoded.payload, headers)
    else job(native.startReply(this.#key, encoded.payload, headers)).catch(() => {})
  }

  fail(error: unknown): void {
    const { type, text } = describeFailure(error)
    native.failRequest(this.#key, type, text)
  }
}

function isThenable(value: unknown): boolean {
  return typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function'
}

/** @internal More than this is sent from another thread: it may have to wait for room on its way. */
export const SMALL_BYTES = 64 * 1024
const EMPTY = { payload: '', contentType: undefined } as const
const BATCH_MAX = 64
