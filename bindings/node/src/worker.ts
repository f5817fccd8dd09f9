// Workers: what runs a handler for each job of a queue.
//
// A turn acks what is done and reserves as many jobs as there is room for, in one call; in two where the acks are to wait
// for the disk and the next jobs need not. As long as there are jobs, turns follow each other without the event loop,
// for at most a millisecond at a stretch.

import * as check from './check.js'
import { flushEnqueues } from './enqueue.js'
import { FlowMeshError } from './errors.js'
import { ACK, ackAndReserve, ackJobs, ACKS_MAX, describe, Job, NACK, readJobs, readNext, Reject, REJECT, RELEASE, Snooze, SNOOZE } from './job.js'
import { hold, Linger, LINGER_US, release, unwatch, watch } from './loop.js'
import { native, type QueueAnswer } from './native.js'
import { encode } from './payload.js'
import type { Queue } from './queue.js'
import { durability, leaseMs } from './queue-options.js'
import { pending, type Refused, settled, whenAnswered } from './replies.js'
import type { Durability, Payload } from './types.js'

/**
 * Works on one job. What it returns or resolves to is kept as the job's result; nothing is none. When it throws or
 * rejects, the attempt has failed and the job is tried again as its backoff says; `Reject` makes it dead, `Snooze` puts
 * it off. A handler may settle the job itself.
 */
export type JobHandler = (job: Job) => Payload | void | Promise<Payload | void>

/** Options of `process`. */
export interface WorkerOptions {
  /** Jobs worked on at once, 1 to 1024. Default: 1. */
  readonly concurrency?: number
  /** How long each job is leased before the lease is extended, which happens by itself: 1 s to 12 h. Default: the job's. */
  readonly leaseMs?: number
  /** How safe the end of a job is to be. Default: as the queue says. */
  readonly durability?: Durability
  /** Called with each job whose handler failed, and the error. */
  readonly onFailed?: (job: Job, error: unknown) => void
  /**
   * Called when the worker itself met an error: jobs could not be reserved, or the end of one not be told. Default: a
   * process warning.
   */
  readonly onError?: (error: unknown, job?: Job) => void
}

/** How to stop. */
export interface StopOptions {
  /** How long handlers may go on; then their jobs are released, and their signals aborted. Default: 30 s. */
  readonly timeoutMs?: number
}

/** What a worker counted. */
export interface WorkerStats {
  /** Jobs being worked on. */
  readonly running: number
  /** Jobs acked. What handlers settle themselves is not counted. */
  readonly done: number
  /** Attempts that failed. */
  readonly failed: number
  /** Jobs that handlers rejected. */
  readonly rejected: number
  /** Jobs given back or put off. */
  readonly released: number
  /** Jobs whose outcome could not be told: another worker has them, or will. */
  readonly lost: number
}

/**
 * A worker of a queue. While it is open it keeps the process alive, unless `unref()` was called.
 *
 * A job that is cancelled is given back when its handler is done, whatever the handler did; `job.signal` tells the
 * handler. A worker whose process is killed leaves its jobs to others at once.
 */
export class Worker {
  /** The queue's name. */
  readonly name: string
  /** Settles when the queue is found. */
  readonly ready: Promise<void>
  /** Resolves when it is over: with `undefined` when it was stopped here, else with the reason. */
  readonly closed: Promise<unknown>

  readonly #handler: JobHandler
  readonly #concurrency: number
  readonly #leaseMs: number
  readonly #durability: number
  readonly #onFailed: WorkerOptions['onFailed']
  readonly #onError: WorkerOptions['onError']
  readonly #onEnd: (worker: Worker) => void
  readonly #running = new Set<Job>()
  #queue: Queue | undefined
  #linger: Linger | undefined
  /** Whether it pays to ack and reserve in one call. */
  readonly #together = new Linger()
  #state: 'starting' | 'open' | 'stopping' | 'over' = 'starting'
  #resolveClosed!: (reason: unknown) => void
  #stopping: Promise<boolean> | undefined
  /** Called when nothing runs any more. */
  #idle: (() => void) | undefined
  #held = true
  /** Done, and not told yet. */
  #acks: Job[] = []
  /** Ends that were told and not answered. */
  #unanswered = 0
  /** The reservation that waits for jobs; 0 for none. */
  #reserving = 0
  /** Acks are under way that bring the next jobs. */
  #reservesToo = false
  #retry: NodeJS.Timeout | undefined
  #scheduled = false
  #turnBegan = 0
  #done = 0
  #failed = 0
  #rejected = 0
  #released = 0
  #lost = 0

  /** @internal */
  constructor(name: string, found: Promise<Queue>, handler: JobHandler, options: WorkerOptions | undefined, onEnd: (worker: Worker) => void) {
    const operation = 'queue.process'
    const given = check.options(operation, options, ['concurrency', 'leaseMs', 'durability', 'onFailed', 'onError'])
    this.name = name
    this.#handler = check.callable(operation, 'handler', handler)
    this.#concurrency = given.concurrency === undefined ? 1 : check.integer(operation, 'concurrency', given.concurrency, 1, 1024)
    this.#leaseMs = leaseMs(operation, given.leaseMs)
    native.checkLease(this.#leaseMs)
    this.#durability = durability(operation, given.durability)
    this.#onFailed = check.optional(given.onFailed, value => check.callable(operation, 'onFailed', value))
    this.#onError = check.optional(given.onError, value => check.callable(operation, 'onError', value))
    this.#onEnd = onEnd
    this.closed = new Promise(resolve => (this.#resolveClosed = resolve))
    hold()
    this.ready = found.then(queue => this.#open(queue), error => this.#fail(error))
    this.ready.catch(() => {})
  }

  #open(queue: Queue): void {
    if (this.#state !== 'starting') return
    this.#queue = queue
    this.#linger = queue.linger && new Linger()
    this.#state = 'open'
    this.#turn()
  }

  #fail(error: unknown): never {
    this.#over(error)
    throw error
  }

  // ---------- turns

  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    const isOver = performance.now() - this.#turnBegan > TURN_MS
    if (isOver) setImmediate(freshTurn, this)
    else process.nextTick(turn, this)
  }

  /** @internal */
  turn(fresh: boolean): void {
    this.#scheduled = false
    if (fresh) this.#turnBegan = performance.now()
    this.#turn()
  }

  #turn(): void {
    const room = Math.min(this.#concurrency - this.#running.size, RESERVE_MAX)
    const reserves = this.#state === 'open' && room > 0 && this.#reserving === 0 && !this.#reservesToo && this.#unanswered < UNANSWERED_MAX
    if (reserves && this.#acks.length > 0 && this.#acks.length <= ACKS_MAX && this.#together.wants()) {
      return this.#ackAndReserve(room)
    }
    if (this.#acks.length > 0) this.#ack()
    if (reserves) this.#reserve(room)
  }

  #ackAndReserve(room: number): void {
    flushEnqueues()
    const queue = this.#queue!
    const jobs = this.#acks
    this.#acks = []
    try {
      let answer = ackAndReserve(queue.handle, jobs.map(job => job.key), room, this.#leaseMs, this.#durability || queue.wanted)
      const lingers = this.#linger !== undefined && this.#running.size === 0
      if (isPending(answer) && lingers) answer = native.awaitReply(-answer, LINGER_US)
      // One that waits for the disk is late here; one that comes over the event loop tells nothing.
      if (lingers || this.#linger === undefined) this.#together.record(!isPending(answer))
      if (!isPending(answer)) return this.#next(jobs, answer)
      this.#reservesToo = true
      const answered = pending(-answer, answer => {
        this.#reservesToo = false
        this.#turnBegan = performance.now()
        this.#next(jobs, answer)
      })
      this.#await(jobs.length, answered.catch(error => {
        this.#reservesToo = false
        this.#notNext(jobs, error)
      }))
    } catch (error) {
      this.#notNext(jobs, error)
    }
  }

  #notNext(jobs: readonly Job[], error: unknown): void {
    jobs.forEach(job => this.#unacked(job, error))
    this.#schedule()
  }

  /** What became of acks, and the jobs that come after them. */
  #next(jobs: readonly Job[], answer: QueueAnswer): void {
    const [refused, next] = readNext(this.#queue!, answer, worked)
    this.#acked(jobs, refused)
    if (this.#state === 'open') this.#begin(next)
    // It was stopped meanwhile.
    else for (const job of next) this.#giveBack(job)
    if (next.length === 0 && this.#running.size === 0) this.#idle?.()
  }

  #reserve(room: number): void {
    const queue = this.#queue!
    try {
      let answer = native.reserve(queue.handle, room, this.#leaseMs, -1, this.#durability || queue.wanted, true)
      // While handlers run there may be something else to do.
      if (isPending(answer) && this.#running.size === 0 && this.#linger?.wants()) {
        answer = native.awaitReply(-answer, LINGER_US)
        this.#linger.record(!isPending(answer))
      }
      if (!isPending(answer)) return this.#start(answer)
      this.#reserving = -answer
      watch(this.#reserving, () => this.#take())
    } catch (error) {
      this.#cannotReserve(error)
    }
  }

  #take(): void {
    this.#turnBegan = performance.now()
    try {
      const answer = native.takeReply(this.#reserving)
      if (typeof answer === 'number' && answer < 0) return
      unwatch(this.#reserving)
      this.#reserving = 0
      this.#start(answer)
    } catch (error) {
      unwatch(this.#reserving)
      this.#reserving = 0
      this.#cannotReserve(error)
    }
  }

  #cannotReserve(error: unknown): void {
    if (this.#state !== 'open') return
    const ended = !(error instanceof FlowMeshError) || !error.retryable || error.code === 'DISCONNECTED'
    if (ended) {
      const closedHere = error instanceof FlowMeshError && error.code === 'CLOSED'
      return this.#over(closedHere ? undefined : error)
    }
    this.#tell(error)
    this.#retry = setTimeout(() => this.#turn(), REST_MS)
  }

  /** Gives jobs to the handler. */
  #start(answer: QueueAnswer): void {
    this.#begin(readJobs(this.#queue!, answer, worked))
  }

  #begin(jobs: readonly Job[]): void {
    for (const job of jobs) this.#running.add(job)
    for (const job of jobs) if (this.#running.has(job)) this.#work(job)
    if (jobs.length === 0 || this.#running.size < this.#concurrency) this.#schedule()
  }

  #work(job: Job): void {
    let result
    try {
      result = this.#handler(job)
    } catch (error) {
      return this.#end(job, () => this.#failure(job, error))
    }
    if (result === undefined) return this.#finish(job, result)
    if (result instanceof Promise || typeof (result as { then?: unknown } | null)?.then === 'function') {
      (result as Promise<Payload | void>).then(
        value => this.#finish(job, value),
        error => this.#end(job, () => this.#failure(job, error)),
      )
    } else this.#finish(job, result)
  }

  #finish(job: Job, result: Payload | void): void {
    if (result === undefined && job.state === 'leased') {
      if (!this.#running.delete(job)) return
      job.state = 'settling'
      this.#acks.push(job)
      this.#schedule()
    } else this.#end(job, () => this.#success(job, result))
  }

  #end(job: Job, settle: () => void): void {
    // Released when the worker stopped.
    if (!this.#running.delete(job)) return
    settle()
    if (this.#running.size === 0) this.#idle?.()
    this.#schedule()
  }

  // ---------- the ends of jobs

  /** Acks what is done, in one call for each thousand. */
  #ack(): void {
    // A job that follows from one of them is there first.
    flushEnqueues()
    const jobs = this.#acks.length <= ACKS_MAX ? this.#acks : this.#acks.slice(0, ACKS_MAX)
    this.#acks = this.#acks.length <= ACKS_MAX ? [] : this.#acks.slice(ACKS_MAX)
    const read = (answer: QueueAnswer): void => this.#acked(jobs, settled(answer).refused)
    const fail = (error: unknown): void => jobs.forEach(job => this.#unacked(job, error))
    try {
      const answer = ackJobs(jobs.map(job => job.key), this.#durability || this.#queue!.wanted, true)
      const done = whenAnswered(answer, read)
      if (done !== undefined) this.#await(jobs.length, done.catch(fail))
    } catch (error) {
      fail(error)
    }
    if (this.#acks.length > 0) this.#ack()
    if (this.#running.size === 0) this.#idle?.()
  }

  #acked(jobs: readonly Job[], refused: readonly Refused[]): void {
    const errors = new Map(refused.map(({ index, error }) => [index, error]))
    this.#done += jobs.length - errors.size
    for (let at = 0; at < jobs.length; at++) {
      const error = errors.get(at)
      if (error === undefined) jobs[at]!.finish()
      else if (error.code === 'CANCELLED') this.#giveBack(jobs[at]!)
      else this.#unacked(jobs[at]!, error)
    }
  }

  #unacked(job: Job, error: unknown): void {
    job.state = 'leased'
    this.#unsettled(job, error, () => {
      if (job.state !== 'leased') return
      job.state = 'settling'
      this.#acks.push(job)
      this.#schedule()
    })
  }

  #success(job: Job, result: Payload | void): void {
    if (job.state !== 'leased') return
    if (job.isCancelled) return this.#giveBack(job)
    let payload
    try {
      payload = encode('job.ack', result).payload
    } catch (error) {
      return this.#failure(job, error)
    }
    this.#settle(job, () => this.#done++, ACK, payload)
  }

  #failure(job: Job, error: unknown): void {
    if (job.state !== 'leased') return
    if (job.isCancelled) return this.#giveBack(job)
    if (error instanceof Snooze) return this.#settle(job, () => this.#released++, SNOOZE, undefined, undefined, error.delayMs)
    const [message, detail] = describe('job.nack', error)
    if (error instanceof Reject) this.#settle(job, () => this.#rejected++, REJECT, error.message.toWellFormed(), detail)
    else this.#settle(job, () => this.#failed++, NACK, message, detail)
    try {
      this.#onFailed?.(job, error)
    } catch (thrown) {
      this.#tell(thrown, job)
    }
  }

  /** Releases a job that was cancelled or is not finished. */
  #giveBack(job: Job): void {
    job.state = 'leased'
    this.#settle(job, () => this.#released++, RELEASE)
  }

  #settle(job: Job, count: () => void, how: number, first?: string | Uint8Array, detail?: string, delayMs?: number): void {
    const again = (): void => this.#settle(job, count, how, first, detail, delayMs)
    const fail = (error: unknown): void => {
      // What the handler made cannot be kept; the job must not be lost for it.
      const unkept = how === ACK && error instanceof FlowMeshError && (error.code === 'TOO_LARGE' || error.code === 'INVALID_ARGUMENT')
      if (unkept) this.#settle(job, () => this.#failed++, NACK, ...describe('job.nack', error))
      else this.#unsettled(job, error, again)
    }
    try {
      const done = job.settle(how, first, detail, delayMs, this.#durability)
      if (done instanceof Promise) this.#await(1, done.then(count, fail))
      else count()
    } catch (error) {
      fail(error)
    }
  }

  /** A job could not be ended: told again after a rest, for as long as it is ours. */
  #unsettled(job: Job, error: unknown, again: () => void): void {
    const tellAgain = error instanceof FlowMeshError && error.retryable && error.code !== 'DISCONNECTED'
    if (tellAgain && !job.isCancelled && job.remainingMs > 0) {
      return this.#await(1, new Promise<void>(resolve => setTimeout(resolve, REST_MS)).then(again))
    }
    const lost = error instanceof FlowMeshError && LOST.has(error.code)
    job.finish()
    native.forgetJob(job.key)
    this.#lost++
    if (!lost) this.#tell(error, job)
  }

  #await(count: number, done: Promise<unknown>): void {
    this.#unanswered += count
    void done.then(() => {
      this.#unanswered -= count
      if (this.#unanswered === 0) this.#idle?.()
      if (this.#unanswered + count >= UNANSWERED_MAX) this.#schedule()
    })
  }

  #tell(error: unknown, job?: Job): void {
    if (this.#onError !== undefined) {
      try {
        return this.#onError(error, job)
      } catch (thrown) {
        error = thrown
      }
    }
    const text = error instanceof Error ? error.message : String(error)
    process.emitWarning(`worker of ${this.name}: ${text}`, 'FlowMeshWarning')
  }

  // ---------- its life

  /** What it counted so far. */
  stats(): WorkerStats {
    return {
      running: this.#running.size,
      done: this.#done,
      failed: this.#failed,
      rejected: this.#rejected,
      released: this.#released,
      lost: this.#lost,
    }
  }

  /**
   * Takes no more jobs, waits for the handlers that run, then releases what is not finished: those attempts do not
   * count. Resolves when all that ended is told, to whether all handlers ended in time.
   */
  async stop(options?: StopOptions): Promise<boolean> {
    const { timeoutMs } = check.options('worker.stop', options, ['timeoutMs'])
    const most = timeoutMs === undefined ? STOP_MS : check.number('worker.stop', 'timeoutMs', timeoutMs, 0, check.TIME_MS_MAX)
    if (this.#state === 'over') return this.#stopping ?? true
    return (this.#stopping ??= this.#stop(most))
  }

  async #stop(timeoutMs: number): Promise<boolean> {
    this.#state = 'stopping'
    this.#giveUpReserving()
    const deadline = performance.now() + timeoutMs
    while (this.#running.size > 0 && performance.now() < deadline && this.#isStopping()) {
      await this.#whenIdle(deadline - performance.now())
    }
    const inTime = this.#running.size === 0
    for (const job of [...this.#running]) {
      this.#running.delete(job)
      if (job.state === 'leased') this.#giveBack(job)
      job.abort()
    }
    while (this.#isStopping() && (this.#acks.length > 0 || this.#unanswered > 0)) {
      if (this.#acks.length > 0) this.#ack()
      else await this.#whenIdle(undefined)
    }
    this.#over(undefined)
    return inTime
  }

  #isStopping(): boolean {
    return this.#state === 'stopping'
  }

  #whenIdle(ms: number | undefined): Promise<void> {
    return new Promise(resolve => {
      const timer = ms === undefined ? undefined : setTimeout(resolve, Math.min(ms, 2 ** 31 - 1))
      this.#idle = () => {
        clearTimeout(timer)
        this.#idle = undefined
        resolve()
      }
    })
  }

  #giveUpReserving(): void {
    clearTimeout(this.#retry)
    if (this.#reserving === 0) return
    unwatch(this.#reserving)
    native.cancelReply(this.#reserving)
    this.#reserving = 0
  }

  /** As `stop` without waiting for handlers. */
  async close(): Promise<void> {
    await this.stop({ timeoutMs: 0 })
  }

  /** As `stop`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
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

  /** @internal Tells what is done: the mesh is being closed, and what is not finished is another's. */
  end(): void {
    if (this.#state === 'over') return
    if (this.#acks.length > 0) this.#ack()
    this.#over(undefined)
  }

  #over(reason: unknown): void {
    if (this.#state === 'over') return
    this.#state = 'over'
    this.#giveUpReserving()
    for (const job of this.#running) {
      job.abort()
      this.#queue!.remember(job)
    }
    this.#running.clear()
    if (this.#held) release()
    this.#idle?.()
    this.#onEnd(this)
    this.#resolveClosed(reason)
  }
}

function isPending(answer: QueueAnswer): answer is number {
  return typeof answer === 'number' && answer < 0
}

function turn(worker: Worker): void {
  worker.turn(false)
}

function freshTurn(worker: Worker): void {
  worker.turn(true)
}

function worked(queue: Queue, block: Buffer, at: number): Job {
  return new Job(queue, block, at)
}

/** What the core hands out in one call. */
const RESERVE_MAX = 1000
/** Ends that wait for the disk: with so many it is slower than the handlers. */
const UNANSWERED_MAX = 10_000
/** How long turns follow each other before timers and sockets have theirs. */
const TURN_MS = 1
/** How long it rests when the disk is full or the host is busy. */
const REST_MS = 200
/** Nobody need be told: the job is, or will be, another's. */
const LOST = new Set(['LEASE_LOST', 'CLOSED', 'DISCONNECTED'])
const STOP_MS = 30_000
