// Answers of queues: most are there when the native side returns, the others are announced.

import { FlowMeshError, nativeError } from './errors.js'
import { hold, type Linger, LINGER_US, release, scratch, unwatch, watch } from './loop.js'
import { native, type QueueAnswer } from './native.js'
import type { Reached, Signal } from './types.js'

/**
 * What `read` makes of an answer, now or when it is there. `read` is called before anything else uses the scratch memory.
 *
 * With `linger` the thread may stay a moment for an answer that is the only one under way.
 */
export function whenAnswered<T>(answer: QueueAnswer, read: (answer: QueueAnswer) => T, linger?: Linger): T | Promise<T> {
  if (typeof answer !== 'number' || answer >= 0) return read(answer)
  if (linger === undefined || underWay > 0 || !linger.wants()) return pending(-answer, read)
  const late = native.awaitReply(-answer, LINGER_US)
  const found = typeof late !== 'number' || late >= 0
  linger.record(found)
  return found ? read(late) : pending(-answer, read)
}

/** Waits for the answer `id`; what is aborted is given up, and jobs that came go back. */
export function pending<T>(id: number, read: (answer: QueueAnswer) => T, signal?: Signal): Promise<T> {
  hold()
  underWay += 1
  return new Promise((resolve, reject) => {
    const finish = (): void => {
      underWay -= 1
      unwatch(id)
      release()
      signal?.removeEventListener('abort', abort)
    }
    const abort = (): void => {
      finish()
      native.cancelReply(id)
      reject(signal!.reason)
    }
    signal?.addEventListener('abort', abort, { once: true })
    watch(id, () => {
      try {
        const answer = native.takeReply(id)
        if (typeof answer === 'number' && answer < 0) return
        finish()
        resolve(read(answer))
      } catch (error) {
        finish()
        reject(error)
      }
    })
  })
}

/** What a change was told as, that gives nothing. */
export function nothing(): void {}

/** An answer in JSON. */
export function json<T>(answer: QueueAnswer): T {
  return JSON.parse(answer as string) as T
}

/** Why one of several jobs was not settled. */
export interface Refused {
  readonly index: number
  readonly error: FlowMeshError
}

/** What came of settling. */
export interface Settled {
  readonly reached: Reached
  readonly refused: readonly Refused[]
}

export function settled(answer: QueueAnswer): Settled {
  if (typeof answer === 'number') return ALL_SETTLED[answer]!
  const { reached, refused } = json<{ reached: Reached; refused: RefusedFields[] }>(answer)
  return { reached, refused: readRefused(refused) }
}

/** Why jobs were refused, as the native side tells it. */
export type RefusedFields = readonly [index: number, code: string, operation: string, message: string, context: string[]]

export function readRefused(all: readonly RefusedFields[]): Refused[] {
  return all.map(([index, code, operation, message, context]) => {
    return { index, error: nativeError(code, operation, message, ...context) }
  })
}

/** The durability that the native side knows by a number. */
export function reachedOf(code: number, intervalMs: number): Reached {
  return code === 2 ? { intervalMs } : (['memory', 'os', 'os', 'fsync'] as const)[code]!
}

/** A packed answer: where it lies, and its end. */
export function packed(answer: QueueAnswer): [block: Buffer, end: number] {
  return typeof answer === 'number' ? [scratch, answer] : [answer as Buffer, (answer as Buffer).length]
}

/** Answers that are waited for over the event loop. */
let underWay = 0
const ALL_SETTLED: readonly Settled[] = [0, 1, 2, 3].map(code => ({ reached: reachedOf(code, 0), refused: [] }))
