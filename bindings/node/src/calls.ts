// Calls under way, from their start to their answer.

import { FlowMeshError } from './errors.js'
import { hold, Linger, LINGER_US, release, unwatch, watch } from './loop.js'
import { type Message, readRequests } from './message.js'
import { native } from './native.js'
import type { Signal } from './types.js'

/** The calls of one mesh. */
export class Calls {
  readonly #waiting = new Set<Pending>()
  /** Started in this turn of the program, and not looked at yet. */
  #fresh = 0
  readonly #linger = new Linger()

  /** The answer of call `id`, which was just started. */
  answer(id: number, name: string, timeoutMs: number, signal: Signal | undefined): Promise<Message> {
    this.#fresh += 1
    return new Promise((resolve, reject) => {
      // When the program has started all the calls that it starts at once.
      process.nextTick(look, this, new Pending(id, name, timeoutMs, signal, resolve, reject))
    })
  }

  /** Stays a moment for the answer; else it comes over the event loop. With other calls, one wake serves many. */
  look(pending: Pending): void {
    const alone = this.#fresh-- === 1 && this.#waiting.size === 0
    if (alone && this.#linger.wants() && pending.signal?.aborted !== true) {
      const found = pending.take(LINGER_US)
      this.#linger.record(found)
      if (found) return
    }
    this.#waiting.add(pending)
    pending.wait(() => this.#waiting.delete(pending))
  }

  /** Ends all that wait. */
  giveUp(reason: unknown): void {
    for (const pending of [...this.#waiting]) pending.giveUp(reason)
  }
}

function look(calls: Calls, pending: Pending): void {
  calls.look(pending)
}

class Pending {
  readonly #id: number
  readonly #name: string
  readonly #timeoutMs: number
  readonly signal: Signal | undefined
  readonly #resolve: (message: Message) => void
  readonly #reject: (reason: unknown) => void
  #finish: () => void = () => {}

  constructor(
    id: number,
    name: string,
    timeoutMs: number,
    signal: Signal | undefined,
    resolve: (message: Message) => void,
    reject: (reason: unknown) => void,
  ) {
    this.#id = id
    this.#name = name
    this.#timeoutMs = timeoutMs
    this.signal = signal
    this.#resolve = resolve
    this.#reject = reject
  }

  /** Takes the answer, waiting at most so long; tells whether there was one. */
  take(us: number): boolean {
    try {
      const batch = us > 0 ? native.awaitCall(this.#id, us) : native.takeCall(this.#id)
      if (batch === undefined) return false
      this.#finish()
      this.#resolve(readRequests(batch)[0]!.message)
    } catch (error) {
      this.#finish()
      this.#reject(error)
    }
    return true
  }

  /** Waits for the answer over the event loop, and keeps the process alive meanwhile. */
  wait(done: () => void): void {
    const { signal } = this
    const abort = (): void => this.giveUp(signal!.reason)
    // The host ends the call in time. This is for a host that hangs.
    const context = { service: this.#name, timeout_ms: String(this.#timeoutMs) }
    const late = (): void => this.giveUp(new FlowMeshError('TIMEOUT', 'mesh.call', context))
    const timer = setTimeout(late, Math.min(this.#timeoutMs + HOST_GRACE_MS, 2 ** 31 - 1))
    this.#finish = () => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', abort)
      unwatch(this.#id)
      release()
      done()
    }
    hold()
    if (signal?.aborted === true) return abort()
    signal?.addEventListener('abort', abort, { once: true })
    watch(this.#id, () => void this.take(0))
    try {
      native.watchCall(this.#id)
    } catch (error) {
      this.giveUp(error)
    }
  }

  giveUp(reason: unknown): void {
    this.#finish()
    native.cancelCall(this.#id)
    this.#reject(reason)
  }
}

/** How much later than the host this process ends a call. */
const HOST_GRACE_MS = 250
