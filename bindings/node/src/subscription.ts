// Subscriptions: where events arrive.

import { integer, invalid, number, optional, options as checkOptions, signal as checkSignal, TIME_MS_MAX } from './check.js'
import { FlowMeshError } from './errors.js'
import { hold, isTurnOver, job, nextTurn, release, unwatch, watch } from './loop.js'
import { type Message, readEvents } from './message.js'
import { native } from './native.js'
import type { Signal } from './types.js'

/** How long to wait for an event. */
export interface ReceiveOptions {
  /** The longest wait in milliseconds; 0 only looks. Default: for ever. */
  readonly timeoutMs?: number | undefined
  /** Ends the wait; the promise is rejected with the signal's reason. */
  readonly signal?: Signal | undefined
}

/** Called with each event, one at a time. When it throws or rejects, the event has failed. */
export type EventHandler = (message: Message) => unknown

/** What a subscription counted so far. */
export interface SubscriptionStats {
  readonly pattern: string
  readonly group: string
  readonly session: number
  readonly delivered: number
  readonly deliveredBytes: number
  readonly dropped: number
  readonly depth: number
}

interface Waiter {
  readonly max: number
  readonly resolve: (messages: Message[]) => void
  readonly reject: (reason: unknown) => void
}

/**
 * Events that match a pattern.
 *
 * While it is open it keeps the process alive, unless `unref()` was called. Breaking out of a `for await` loop
 * leaves it open; `close()` or `using` ends it.
 *
 * ```js
 * using orders = mesh.subscribe('orders.*')
 * for await (const order of orders) console.log(order.subject, order.value)
 * ```
 */
export class Subscription implements AsyncIterable<Message> {
  /** The pattern it was made with. */
  readonly pattern: string
  /**
   * Settles when the host has it. That is so when `subscribe` returns, unless the host was slow to answer: then
   * subscribing goes on, and an error of it is that of `ready` and of every `receive`.
   */
  readonly ready: Promise<void>
  /** Resolves when it is over: with `undefined` when it was closed here, else with the reason. */
  readonly closed: Promise<unknown>

  readonly #id: number
  readonly #keep: boolean
  readonly #onEnd: (subscription: Subscription) => void
  readonly #waiters: Waiter[] = []
  #state: 'starting' | 'open' | 'over' = 'starting'
  /** Why it is over; `undefined` when it was closed here. */
  #reason: unknown
  #resolveClosed!: (reason: unknown) => void
  #held = true
  #handled = false
  #subject = ''

  /** @internal `made` says whether the native side has it already; else it is a job under way. */
  constructor(id: number, pattern: string, keep: boolean, made: boolean, onEnd: (subscription: Subscription) => void) {
    this.#id = id
    this.pattern = pattern
    this.#keep = keep
    this.#onEnd = onEnd
    this.closed = new Promise(resolve => (this.#resolveClosed = resolve))
    hold()
    this.ready = made ? Promise.resolve(this.#open()) : job(id).then(() => this.#open(), error => this.#fail(error))
    this.ready.catch(() => {})
  }

  #open(): void {
    if (this.#state === 'over') return native.closeSubscription(this.#id)
    this.#state = 'open'
    watch(this.#id, () => this.#serveWaiters())
  }

  #fail(error: unknown): never {
    this.#end(error)
    throw error
  }

  /**
   * The next event.
   *
   * @throws FlowMeshError `TIMEOUT`, `CLOSED`, `DISCONNECTED` (the host is gone), `SLOW_CONSUMER` (it fell behind,
   * with `onSlow: 'disconnect'`); the reason of a signal that was aborted.
   */
  async receive(options?: ReceiveOptions): Promise<Message> {
    const messages = await this.receiveMany(1, options)
    return messages[0]!
  }

  /**
   * Waits for an event, then takes all that wait, at most `max`.
   *
   * @throws As `receive`.
   */
  async receiveMany(max: number, options?: ReceiveOptions): Promise<Message[]> {
    const operation = 'subscription.receive'
    integer(operation, 'max', max, 1, MAX)
    const { timeoutMs, signal } = checkOptions(operation, options, ['timeoutMs', 'signal'])
    optional(timeoutMs, value => number(operation, 'timeoutMs', value, 0, TIME_MS_MAX))
    if (signal !== undefined && checkSignal(operation, signal).aborted) throw signal.reason
    if (isTurnOver()) await nextTurn()
    if (this.#waiters.length === 0) {
      const taken = this.#take(max)
      if (taken.length > 0) return taken
    }
    this.#checkOpen(operation)
    if (timeoutMs === 0) throw new FlowMeshError('TIMEOUT', operation, { timeout_ms: '0' })
    return this.#wait(max, timeoutMs, signal)
  }

  #wait(max: number, timeoutMs: number | undefined, signal: Signal | undefined): Promise<Message[]> {
    return new Promise((resolve, reject) => {
      const finish = (): void => {
        if (timer !== undefined) clearTimeout(timer)
        signal?.removeEventListener('abort', abort)
      }
      const leave = (reason: unknown): void => {
        const at = this.#waiters.indexOf(waiter)
        if (at >= 0) this.#waiters.splice(at, 1)
        waiter.reject(reason)
      }
      const waiter: Waiter = {
        max,
        resolve: messages => (finish(), resolve(messages)),
        reject: reason => (finish(), reject(reason)),
      }
      const abort = (): void => leave(signal!.reason)
      const late = (): void =>
        leave(new FlowMeshError('TIMEOUT', 'subscription.receive', { timeout_ms: String(timeoutMs) }))
      const timer = timeoutMs === undefined ? undefined : later(late, timeoutMs)
      signal?.addEventListener('abort', abort, { once: true })
      this.#waiters.push(waiter)
    })
  }

  /** The events that wait now, at most `max`. Never waits. */
  drain(max: number = MAX): Message[] {
    integer('subscription.drain', 'max', max, 1, MAX)
    if (this.#waiters.length > 0) return []
    const taken = this.#take(max)
    if (taken.length === 0) this.#checkOpen('subscription.drain')
    return taken
  }

  #take(max: number): Message[] {
    const taken: Message[] = []
    let more = this.#state === 'open'
    while (more && taken.length < max) {
      let batch
      try {
        batch = native.drain(this.#id, max - taken.length, this.#keep)
      } catch (error) {
        this.#end(error)
        break
      }
      more = typeof batch !== 'number' || (batch & 1) === 1
      const before = taken.length
      this.#subject = readEvents(batch, this.#subject, taken)
      if (this.#keep && !this.#handled) this.#releaseUnused(taken.slice(before))
    }
    return taken
  }

  #releaseUnused(messages: Message[]): void {
    for (const message of messages) kept.register(message, { id: this.#id, key: message.key })
  }

  #serveWaiters(): void {
    while (this.#waiters.length > 0) {
      const taken = this.#take(this.#waiters[0]!.max)
      if (taken.length === 0) return
      this.#waiters.shift()!.resolve(taken)
    }
  }

  #checkOpen(operation: string): void {
    if (this.#state === 'over') throw this.#reason ?? new FlowMeshError('CLOSED', operation)
  }

  /**
   * Handling `message` failed: it is delivered again after a backoff, and after the last attempt published to the
   * dead-letter subject, as the subscription's `retry` says; without one the failure is counted. A subscription with
   * a handler does this itself.
   *
   * @throws FlowMeshError `INVALID_ARGUMENT`: the message is settled already or of another subscription; without
   * `retry`, it is not the last that was taken.
   */
  async fail(message: Message, error: unknown): Promise<void> {
    const operation = 'subscription.fail'
    if (typeof message?.key !== 'number') throw invalid(operation, 'message', message, 'must be a Message')
    const { type, text } = describeFailure(error)
    await job(native.startFail(this.#id, message.key, type, text))
  }

  /** @internal Hands each event to `handler`, one at a time. */
  async run(handler: EventHandler): Promise<void> {
    this.#handled = true
    try {
      for await (const message of this) {
        try {
          await handler(message)
          native.release(this.#id, message.key)
        } catch (error) {
          await this.fail(message, error).catch(lost => this.#warn(lost))
        }
      }
    } catch (reason) {
      // `closed` tells it too, but nobody may be looking there.
      this.#warn(reason)
    }
  }

  #warn(reason: unknown): void {
    const text = reason instanceof Error ? reason.message : String(reason)
    process.emitWarning(`subscription ${this.pattern}: ${text}`, 'FlowMeshWarning')
  }

  /** Each event, until it is closed here. A loop ends with an error when the subscription does. */
  [Symbol.asyncIterator](): AsyncIterator<Message, undefined> {
    const over = { done: true, value: undefined } as const
    return {
      next: async () => {
        try {
          return { done: false, value: await this.receive() }
        } catch (error) {
          if (this.#state === 'over' && this.#reason === undefined) return over
          throw error
        }
      },
      return: () => Promise.resolve(over),
    }
  }

  /** What it counted so far, without asking the host. */
  stats(): SubscriptionStats {
    if (this.#state !== 'open') throw this.#reason ?? new FlowMeshError('CLOSED', 'subscription.stats')
    return camelKeys(JSON.parse(native.subscriptionStats(this.#id))) as SubscriptionStats
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

  /** Ends it. Waiting calls are rejected with `CLOSED`, loops end. */
  close(): void {
    this.#end(undefined)
  }

  [Symbol.dispose](): void {
    this.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close()
    return Promise.resolve()
  }

  /** @internal Ends it for `reason`. */
  end(reason: unknown): void {
    this.#end(reason)
  }

  #end(reason: unknown): void {
    if (this.#state === 'over') return
    const wasOpen = this.#state === 'open'
    this.#state = 'over'
    this.#reason = reason
    if (this.#held) release()
    if (wasOpen) {
      unwatch(this.#id)
      native.closeSubscription(this.#id)
    }
    this.#onEnd(this)
    this.#resolveClosed(reason)
    for (const waiter of this.#waiters.splice(0)) {
      waiter.reject(reason ?? new FlowMeshError('CLOSED', 'subscription.receive'))
    }
  }
}

/** @internal A handler's failure as its caller will see it. */
export function describeFailure(error: unknown): { type: string; text: string } {
  try {
    if (error instanceof Error) return { type: wellFormed(String(error.name)), text: wellFormed(String(error.message)) }
    return { type: typeof error, text: wellFormed(String(error)) }
  } catch {
    return { type: typeof error, text: 'a value that cannot be shown' }
  }
}

function wellFormed(text: string): string {
  return text.toWellFormed()
}

/** `setTimeout` for times longer than it can take. */
function later(run: () => void, ms: number): NodeJS.Timeout {
  return setTimeout(run, Math.min(ms, 2 ** 31 - 1))
}

/** @internal The keys of plain data from the native side as JavaScript spells them. */
export function camelKeys(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(camelKeys)
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value).map(([name, inner]) => {
    return [name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase()), camelKeys(inner)] as const
  })
  return Object.fromEntries(entries)
}

/** The native side keeps an event that may still fail for as long as its message lives. */
const kept = new FinalizationRegistry<{ id: number; key: number }>(({ id, key }) => native.release(id, key))

/** The most events taken at once. */
const MAX = 65_536
