// Where the native side meets the event loop: one wake a turn, and what keeps the process alive.
//
// Nothing here waits. What becomes ready is announced by its number, once, and then taken until empty.

import { nativeError } from './errors.js'
import { native } from './native.js'

/** Batches travel through this memory; it is read before anything else is called. */
export const scratch: Buffer = Buffer.allocUnsafeSlow(256 * 1024)
const ids = new Float64Array(scratch.buffer, scratch.byteOffset, scratch.byteLength / 8)

const watched = new Map<number, () => void>()
let holders = 0
let immediate = 0

/** From now on `ready` is called when the object `id` becomes ready. It must not throw. */
export function watch(id: number, ready: () => void): void {
  watched.set(id, ready)
}

export function unwatch(id: number): void {
  watched.delete(id)
}

/** The process stays alive until as many `release` follow. */
export function hold(): void {
  if (holders++ === 0) native.hold(true)
}

export function release(): void {
  if (--holders === 0) native.hold(false)
}

/** The result of a job of the native side. */
export function job(id: number): Promise<string | undefined> {
  hold()
  return new Promise((resolve, reject) => {
    watch(id, () => {
      unwatch(id)
      release()
      try {
        resolve(native.takeJob(id))
      } catch (error) {
        reject(error)
      }
    })
  })
}

/**
 * Whether it is time to let timers and sockets have their turn.
 *
 * Promises that are resolved at once keep the event loop from turning, so whoever resolves many of them
 * asks this each time and waits for `nextTurn()` when told to.
 */
export function isTurnOver(): boolean {
  return (++immediate & 127) === 0
}

export function nextTurn(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve))
}

/**
 * Whether it pays to stay for a moment where an answer is expected, instead of going back to the event loop.
 *
 * An answer that comes over the event loop wakes two threads, one that waits here wakes one: that halves the time of
 * a call to a fast service. Staying holds up the loop for at most LINGER_US, and each time in vain makes the next
 * attempts rarer, down to one in 64.
 */
export class Linger {
  #misses = 0
  #skip = 0

  /** Whether to stay this time. */
  wants(): boolean {
    if (this.#skip === 0) return true
    this.#skip -= 1
    return false
  }

  record(found: boolean): void {
    this.#misses = found ? 0 : Math.min(this.#misses + 1, 6)
    this.#skip = found ? 0 : 2 ** this.#misses
  }
}

export const LINGER_US = 100

function wake(): void {
  for (let rounds = 0; rounds < 16; rounds++) {
    const count = native.ready()
    if (count === 0) return
    if (count === 1) {
      watched.get(ids[0]!)?.()
    } else {
      // A copy: what is called now writes to the scratch memory.
      for (const id of ids.slice(0, count)) watched.get(id)?.()
    }
  }
  setImmediate(wake)
}

native.start(wake, nativeError, scratch)
