// Jobs as a worker has them, and how they are read from the memory the native side writes (native/queues.rs).

import * as check from './check.js'
import { flushEnqueues } from './enqueue.js'
import { FlowMeshError } from './errors.js'
import { isTurnOver, type Linger, scratch, unwatch, watch } from './loop.js'
import { native, type QueueAnswer } from './native.js'
import { decode, encode, JSON_TYPE, utf8 } from './payload.js'
import type { Queue } from './queue.js'
import { durability, leaseMs as checkLease, time } from './queue-options.js'
import { json, nothing, packed, readRefused, type Refused, settled, whenAnswered } from './replies.js'
import type { Durability, Headers, Payload, Reached, Signal } from './types.js'

/** A job's payload, headers and content type, or what it was acked with. Its bytes are its own. */
export class Content {
  /** @internal The record. */
  readonly block: Buffer
  /** @internal Where in `block` it begins. */
  readonly at: number
  #payload: Uint8Array | undefined
  #headers: Headers | undefined

  /** @internal */
  constructor(block: Buffer, at: number) {
    this.block = block
    this.at = at
  }

  /** The payload's bytes: a `Buffer`. */
  get payload(): Uint8Array {
    const from = this.at + RECORD_HEADER_BYTES
    return (this.#payload ??= this.block.subarray(from, from + this.#payloadBytes))
  }

  /** How the payload is encoded; `undefined` if nobody said. */
  get contentType(): string | undefined {
    const bytes = this.#typeBytes
    if (bytes === 0) return undefined
    const from = this.at + RECORD_HEADER_BYTES + this.#payloadBytes
    return this.block.toString('utf8', from, from + bytes)
  }

  /** Its headers. Of a name that came twice, the first counts. */
  get headers(): Headers {
    return (this.#headers ??= this.#readHeaders())
  }

  /**
   * The payload as its content type says: parsed JSON, text, or the bytes. Decoded anew each time.
   *
   * @throws FlowMeshError `INVALID_ARGUMENT`: it is not the JSON that its content type says.
   */
  get value(): any {
    return decode(this.payload, this.contentType)
  }

  /** The payload as UTF-8 text, whatever its content type. */
  get text(): string {
    return utf8(this.payload)
  }

  /**
   * The payload parsed as JSON, whatever its content type: results have none.
   *
   * @throws FlowMeshError `INVALID_ARGUMENT`: it is not JSON.
   */
  get json(): any {
    return decode(this.payload, JSON_TYPE)
  }

  get #payloadBytes(): number {
    return this.block.readUInt32LE(this.at + 24)
  }

  get #typeBytes(): number {
    return this.block.readUInt16LE(this.at + 14)
  }

  /** @internal */
  protected get groupText(): string | undefined {
    if (this.block[this.at + 13] === 0) return undefined
    const from = this.at + RECORD_HEADER_BYTES + this.#payloadBytes + this.#typeBytes
    return this.block.toString('utf8', from, from + this.block.readUInt32LE(this.at + 16))
  }

  #readHeaders(): Headers {
    const { block } = this
    const headers = new Map<string, string>()
    let at = this.at + RECORD_HEADER_BYTES + this.#payloadBytes + this.#typeBytes + block.readUInt32LE(this.at + 16)
    const end = at + block.readUInt32LE(this.at + 20)
    while (at < end) {
      const valueAt = at + 8 + block.readUInt32LE(at)
      const next = valueAt + block.readUInt32LE(at + 4)
      const name = block.toString('utf8', at + 8, valueAt)
      if (!headers.has(name)) headers.set(name, block.toString('utf8', valueAt, next))
      at = next
    }
    return Object.freeze(Object.fromEntries(headers))
  }
}

/** How safe one call is to be. */
export interface CallSafety {
  /** Default: as the queue says, or the handle that the job was reserved with. */
  readonly durability?: Durability
}

/** How the job that follows one that is acked is taken. */
export interface NextOptions {
  /** How long it is ours before it must be extended, 1 s to 12 h. Default: the job's, or the queue's. */
  readonly leaseMs?: number
}

/** Why an attempt failed. */
export interface NackOptions extends CallSafety {
  /** A stack trace or the like; at most 4 KiB is kept. Default: the error's stack. */
  readonly detail?: string
  /** How long until the next attempt. Default: the job's backoff. */
  readonly delayMs?: number
}

/**
 * A job that this program has, until it is settled or its lease ends.
 *
 * Settling (`ack`, `nack`, `reject`, `release`, `snooze`) can be done once; promises resolve to how safe it is then.
 * A job that is forgotten without stays leased until its lease ends, and is then tried again with the attempt counted.
 * `await using` releases a job that was not settled.
 */
export class Job extends Content {
  /** Its queue. */
  readonly queue: Queue
  /** Which attempt this is, 1 and up. */
  readonly attempt: number
  /** @internal What the native side keeps it under. */
  readonly key: number
  /** @internal */
  state: 'leased' | 'settling' | 'settled' = 'leased'
  #controller: AbortController | undefined
  #cancelled = false

  /** @internal */
  constructor(queue: Queue, block: Buffer, at: number) {
    super(block, at)
    this.queue = queue
    this.key = block.readDoubleLE(at + 40)
    this.attempt = block.readUInt16LE(at + 4)
  }

  /** What names it: a UUID. */
  get id(): string {
    return this.block.toString('latin1', this.at + 48, this.at + 84)
  }

  /** Attempts it may have. */
  get maxAttempts(): number {
    return this.block.readUInt16LE(this.at + 6)
  }

  /** 0 to 255. */
  get priority(): number {
    return this.block[this.at + 12]!
  }

  /** How often it was redriven. */
  get redrives(): number {
    return this.block.readUInt32LE(this.at + 8)
  }

  /** Its group. */
  get group(): string | undefined {
    return this.groupText
  }

  /** How long it was reserved for, when it was. */
  get leaseMs(): number {
    return this.block.readDoubleLE(this.at + 32)
  }

  /** How long it is still ours, as far as this process knows; 0 when it is settled. */
  get remainingMs(): number {
    return native.remaining(this.key)
  }

  /** Whether it was settled here. */
  get isSettled(): boolean {
    return this.state !== 'leased'
  }

  /** Whether it is to be given back: somebody cancelled it, its lease is over, or the mesh was closed. */
  get isCancelled(): boolean {
    return this.#cancelled || (this.state === 'leased' && native.isCancelled(this.key))
  }

  /** Aborted when it is to be given back; see `isCancelled`. */
  get signal(): Signal {
    // Made when asked for: most handlers never look.
    if (this.#controller === undefined) {
      this.#controller = new AbortController()
      if (this.#cancelled) this.abort()
      else if (this.state === 'leased') {
        watch(this.key, () => this.abort())
        try {
          native.watchJob(this.key)
        } catch {
          this.abort()
        }
      }
    }
    return this.#controller.signal as Signal
  }

  /** @internal */
  abort(): void {
    this.#cancelled = true
    unwatch(this.key)
    this.#controller?.abort(new FlowMeshError('CANCELLED', 'job', { job: this.id }))
  }

  /**
   * It is done, with this result if there is one.
   *
   * @throws FlowMeshError `LEASE_LOST`: it is not ours any more, nothing is changed. `TOO_LARGE`: the result is over the
   * queue's `payloadBytesMax`. After any error but `LEASE_LOST` it may be settled again.
   */
  async ack(result?: Payload, options?: CallSafety): Promise<Reached> {
    if (result === undefined && options === undefined) {
      this.#begin()
      return this.queue.acks.ack(this)
    }
    const payload = result === undefined ? undefined : encode('job.ack', result).payload
    return this.settle(ACK, payload, undefined, -1, safety('job.ack', options))
  }

  /**
   * Acks it, and takes the next job of its queue if one is there, without waiting for one: one request, and as a rule
   * one write, instead of two. Resolves to that job; `undefined` when there was none.
   *
   * @throws FlowMeshError As `ack`; no job was taken then. `INVALID_ARGUMENT`: the lease is out of bounds.
   */
  async ackAndReserve(result?: Payload, options?: NextOptions): Promise<Job | undefined> {
    const operation = 'job.ack'
    const lease = checkLease(operation, check.options(operation, options, ['leaseMs']).leaseMs)
    const payload = result === undefined ? undefined : encode(operation, result).payload
    this.#begin()
    this.queue.flush()
    const { queue } = this
    let refused: readonly Refused[], jobs: readonly Job[]
    try {
      const answer = native.ackAndReserveOne(this.key, payload, lease, queue.wanted)
      ;[refused, jobs] = await whenAnswered(answer, answer => readNext(queue, answer, kept), queue.linger)
    } catch (error) {
      return this.unsettled(error)
    }
    const [next] = jobs
    if (refused.length === 0) {
      this.finish()
      return next
    }
    // Who is told of an error is not given a job, too; if that cannot be said its lease ends by itself.
    await next?.release().catch(() => {})
    return this.unsettled(refused[0]!.error)
  }

  /**
   * The attempt failed, for an error or a few words. The job waits for the next as its backoff says, or is dead if this
   * was the last.
   *
   * @throws FlowMeshError As `ack`.
   */
  async nack(reason: unknown, options?: NackOptions): Promise<Reached> {
    const { detail, delayMs, durability: wanted } = check.options('job.nack', options, ['detail', 'delayMs', 'durability'])
    const delay = check.optional(delayMs, value => time('job.nack', 'delayMs', value)) ?? -1
    return this.settle(NACK, ...describe('job.nack', reason, detail), delay, durability('job.nack', wanted))
  }

  /**
   * No attempt can succeed: the job is dead.
   *
   * @throws FlowMeshError As `ack`.
   */
  async reject(reason: unknown, options?: Omit<NackOptions, 'delayMs'>): Promise<Reached> {
    const { detail, durability: wanted } = check.options('job.reject', options, ['detail', 'durability'])
    return this.settle(REJECT, ...describe('job.reject', reason, detail), -1, durability('job.reject', wanted))
  }

  /**
   * Gives it back as if it had not been taken.
   *
   * @throws FlowMeshError As `ack`.
   */
  async release(options?: CallSafety): Promise<Reached> {
    return this.settle(RELEASE, undefined, undefined, -1, safety('job.release', options))
  }

  /**
   * Puts it off; the attempt does not count.
   *
   * @throws FlowMeshError As `ack`.
   */
  async snooze(delayMs: number, options?: CallSafety): Promise<Reached> {
    const wanted = safety('job.snooze', options)
    return this.settle(SNOOZE, undefined, undefined, time('job.snooze', 'delayMs', delayMs), wanted)
  }

  /**
   * More time: so much from now, or as it was reserved for; never less than it has. Resolves to how long it is ours now.
   * Jobs of `process` get it by themselves.
   *
   * @throws FlowMeshError `LEASE_LOST`; `INVALID_ARGUMENT`: the lease is not 1 s to 12 h.
   */
  async extend(leaseMs?: number): Promise<number> {
    const lease = checkLease('job.extend', leaseMs)
    this.#check('job.extend')
    return whenAnswered(native.extend(this.key, lease), answer => json<number>(answer), this.queue.linger)
  }

  /**
   * Tells how far it has come: anything up to 4 KiB, a number too, shown to who looks at the job. Kept in memory only.
   *
   * @throws FlowMeshError `LEASE_LOST`; `TOO_LARGE`.
   */
  async progress(value: Payload | number): Promise<void> {
    const told = typeof value === 'number' ? String(value) : encode('job.progress', value).payload
    this.#check('job.progress')
    return whenAnswered(native.progress(this.key, told), nothing, this.queue.linger)
  }

  /** @internal Ends it so. */
  settle(how: number, first?: string | Uint8Array, detail?: string, delayMs = -1, wanted = 0): Reached | Promise<Reached> {
    this.#begin()
    this.queue.flush()
    try {
      const answer = native.settle(this.key, how, first, detail, delayMs, wanted || this.queue.wanted)
      const done = whenAnswered(answer, answer => this.#read(answer), this.queue.linger)
      return done instanceof Promise ? done.catch(error => this.unsettled(error)) : done
    } catch (error) {
      return this.unsettled(error)
    }
  }

  #read(answer: QueueAnswer): Reached {
    const { reached, refused } = settled(answer)
    if (refused.length > 0) throw refused[0]!.error
    this.finish()
    return reached
  }

  /** @internal It could not be settled. */
  unsettled(error: unknown): never {
    if (error instanceof FlowMeshError && error.code === 'LEASE_LOST') this.finish()
    else this.state = 'leased'
    throw error
  }

  /** @internal It is settled, or another's. */
  finish(): void {
    this.state = 'settled'
    if (this.#controller !== undefined) unwatch(this.key)
    this.queue.forget(this)
  }

  #begin(): void {
    this.#check('job.settle')
    this.state = 'settling'
  }

  #check(operation: string): void {
    if (this.state === 'leased') return
    throw new FlowMeshError('LEASE_LOST', operation, { job: this.id, reason: 'it was settled before' })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.state === 'leased') await this.release()
  }

  /** @internal */
  [Symbol.for('nodejs.util.inspect.custom')](): object {
    const { id, attempt, maxAttempts, priority, group, payload, contentType, headers, isSettled } = this
    return { id, attempt, maxAttempts, priority, group, payload, contentType, headers, isSettled }
  }
}

/** Throw it in a handler when no attempt can succeed: the job is dead. */
export class Reject extends Error {}
Object.defineProperty(Reject.prototype, 'name', { value: 'Reject', configurable: true, writable: true })

/** Throw it in a handler to put the job off; the attempt does not count. */
export class Snooze extends Error {
  readonly delayMs: number

  constructor(delayMs: number, message = `put off by ${delayMs} ms`) {
    super(message)
    this.delayMs = time('Snooze', 'delayMs', delayMs)
  }
}
Object.defineProperty(Snooze.prototype, 'name', { value: 'Snooze', configurable: true, writable: true })

/** @internal The durability of a call as the native side takes it. */
export function safety(operation: string, options: CallSafety | undefined): number {
  return durability(operation, check.options(operation, options, ['durability']).durability)
}

/** @internal The jobs of a reservation. */
export function readJobs(queue: Queue, answer: QueueAnswer, make: MakeJob, from = 0): Job[] {
  const [memory, end] = packed(answer)
  const jobs: Job[] = []
  if (end === from) return jobs
  // Together when they are few: a job that is kept long keeps the others' memory.
  const whole = memory !== scratch ? memory : end <= TOGETHER_BYTES ? own(memory, 0, end) : undefined
  for (let at = from; at < end; ) {
    const bytes = memory.readUInt32LE(at)
    jobs.push(whole === undefined ? make(queue, own(memory, at, at + bytes), 0) : make(queue, whole, at))
    at += bytes
  }
  return jobs
}

type MakeJob = (queue: Queue, block: Buffer, at: number) => Job

/** @internal A job that is taken by hand: whoever has it extends its lease. */
export function kept(queue: Queue, block: Buffer, at: number): Job {
  const job = new Job(queue, block, at)
  queue.remember(job)
  return job
}

/** @internal What was not acked, and the jobs that come next. */
export function readNext(queue: Queue, answer: QueueAnswer, make: MakeJob): [refused: readonly Refused[], jobs: Job[]] {
  const [memory] = packed(answer)
  const bytes = memory.readUInt32LE(0)
  const refused = bytes === 0 ? [] : readRefused(JSON.parse(memory.toString('utf8', 8, 8 + bytes)))
  return [refused, readJobs(queue, answer, make, Math.ceil((8 + bytes) / 8) * 8)]
}

/** @internal The content of an answer. */
export function readContent(answer: QueueAnswer): Content {
  const [memory, end] = packed(answer)
  return new Content(memory === scratch ? own(memory, 0, end) : memory, 0)
}

function own(memory: Buffer, from: number, to: number): Buffer {
  const block = Buffer.allocUnsafe(to - from)
  memory.copy(block, 0, from, to)
  return block
}

/** @internal What is kept of a failure: its words and its stack. */
export function describe(operation: string, reason: unknown, detail?: unknown): [message: string, detail: string] {
  const given = detail === undefined ? undefined : check.text(operation, 'detail', detail)
  if (typeof reason === 'string') return [reason.toWellFormed(), given ?? '']
  try {
    if (reason instanceof Error) {
      const message = `${reason.name}: ${reason.message}`.toWellFormed()
      return [message, given ?? (typeof reason.stack === 'string' ? reason.stack.toWellFormed() : '')]
    }
    return [String(reason).toWellFormed(), given ?? '']
  } catch {
    return ['a value that cannot be shown', given ?? '']
  }
}

/** @internal Acks without results: those of one turn of the program travel together. */
export class Acks {
  readonly #wanted: number
  readonly #linger: Linger | undefined
  #waiting: { job: Job; resolve: (reached: Reached) => void; reject: (error: unknown) => void }[] = []
  #scheduled = false

  constructor(wanted: number, linger: Linger | undefined) {
    this.#wanted = wanted
    this.#linger = linger
  }

  ack(job: Job): Promise<Reached> {
    const reached = new Promise<Reached>((resolve, reject) => this.#waiting.push({ job, resolve, reject }))
    if (!this.#scheduled) {
      this.#scheduled = true
      if (isTurnOver()) setImmediate(flush, this)
      else process.nextTick(flush, this)
    } else if (this.#waiting.length === ACKS_MAX) this.flush()
    return reached
  }

  flush(): void {
    this.#scheduled = false
    const waiting = this.#waiting
    if (waiting.length === 0) return
    this.#waiting = []
    // A job that follows from one that is acked is there first, whatever comes between.
    flushEnqueues()
    const fail = (error: unknown): void => waiting.forEach(({ job, reject }) => refuse(job, error, reject))
    try {
      const answer = ackJobs(waiting.map(({ job }) => job.key), this.#wanted, false)
      const done = whenAnswered(answer, answer => {
        const { reached, refused } = settled(answer)
        const errors = new Map(refused.map(({ index, error }) => [index, error]))
        waiting.forEach(({ job, resolve, reject }, index) => {
          const error = errors.get(index)
          if (error !== undefined) return refuse(job, error, reject)
          job.finish()
          resolve(reached)
        })
      }, this.#linger)
      if (done instanceof Promise) done.catch(fail)
    } catch (error) {
      fail(error)
    }
  }
}

function flush(acks: Acks): void {
  acks.flush()
}

function refuse(job: Job, error: unknown, reject: (error: unknown) => void): void {
  try {
    job.unsettled(error)
  } catch {
    reject(error)
  }
}

/** @internal Acks the jobs of these keys, at most a thousand; with `sparing` those that were cancelled are refused. */
export function ackJobs(keys: readonly number[], wanted: number, sparing: boolean): QueueAnswer {
  writeKeys(keys)
  return native.ackJobs(keys.length, wanted, sparing)
}

/** @internal The same, sparing; and reserves up to `room` jobs, if they are there. `readNext` reads the answer. */
export function ackAndReserve(queue: number, keys: readonly number[], room: number, leaseMs: number, wanted: number): QueueAnswer {
  writeKeys(keys)
  return native.ackAndReserve(queue, keys.length, room, leaseMs, wanted)
}

function writeKeys(keys: readonly number[]): void {
  for (let at = 0; at < keys.length; at++) doubles[at] = keys[at]!
}

/** @internal How a job ends, as native/queues.rs knows it. */
export const ACK = 0
/** @internal */
export const NACK = 1
/** @internal */
export const REJECT = 2
/** @internal */
export const RELEASE = 3
/** @internal */
export const SNOOZE = 4
/** @internal What the core settles in one call. */
export const ACKS_MAX = 1000
const doubles = new Float64Array(scratch.buffer, scratch.byteOffset, scratch.byteLength / 8)
const RECORD_HEADER_BYTES = 88
const TOGETHER_BYTES = 16 * 1024
