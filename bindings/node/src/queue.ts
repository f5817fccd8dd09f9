// Queues: durable jobs, on the host's disk.

import * as check from './check.js'
import { CLIENT_SMALL_BYTES, Enqueuer, flushEnqueues, HOST_SMALL_BYTES, Packer, readReceipts } from './enqueue.js'
import type { FlowMeshError } from './errors.js'
import { job, Linger } from './loop.js'
import { Acks, type CallSafety, type Content, Job, kept, readContent, readJobs, safety } from './job.js'
import { native, type QueueAnswer } from './native.js'
import { encode } from './payload.js'
import { configJson, durability, ENQUEUE, enqueueJson, JOB, leaseMs as checkLease, rate as checkRate, scheduleJson } from './queue-options.js'
import type { EnqueueOptions, JobOptions, QueueConfig, Rate, ScheduleOptions } from './queue-options.js'
import { json, nothing, pending, whenAnswered } from './replies.js'
import { camelKeys } from './subscription.js'
import type { Durability, Payload, Receipt, Signal } from './types.js'

/** Where a job is. `blocked`: only its group's limits, or the job that has its unique key, hold it up. */
export type JobState =
  | 'scheduled'
  | 'ready'
  | 'blocked'
  | 'leased'
  | 'retry_wait'
  | 'done'
  | 'dead'
  | 'cancelled'
  | 'expired'

/** One job of `enqueueMany`. */
export type NewJob = EnqueueOptions & { readonly payload: Payload }

/** What to reserve, and how long to wait for it. */
export interface ReserveOptions {
  /** The most jobs, 1 to 1000. Default: 1. */
  readonly count?: number
  /** How long each is ours before it must be extended, 1 s to 12 h. Default: the job's, or the queue's. */
  readonly leaseMs?: number
  /** The longest wait for the first; 0 only looks. Default: for ever. */
  readonly timeoutMs?: number
  /** Ends the wait; the promise is rejected with the signal's reason. */
  readonly signal?: Signal
}

/** What listing and looking tell about a job. */
export interface JobInfo {
  readonly id: string
  readonly state: JobState
  readonly priority: number
  /** Attempts begun since it was enqueued or redriven. */
  readonly attempt: number
  readonly maxAttempts: number
  readonly group?: string
  readonly uniqueKey?: string
  /** When it became ready; for a finished job, when it was finished. */
  readonly since: Date
  /** Scheduled and retry_wait: when it is ready. Leased: when the lease ends. Finished: until when it is kept. */
  readonly due?: Date
  /** When it expires if it still waits then. */
  readonly expires?: Date
  readonly payloadBytes: number
  readonly redrives: number
  /** The session of who has it; `'0'` for the host. */
  readonly worker?: string
  /** Whether it is to be given back. */
  readonly cancelling: boolean
  /** What its worker last told: the bytes. */
  readonly progress?: Uint8Array
  readonly hasResult: boolean
  /** The last ten, oldest first. */
  readonly failures: readonly Failure[]
}

/** What went wrong in one attempt, or ended a job otherwise. */
export interface Failure {
  /** 0 when there was none. */
  readonly attempt: number
  readonly at: Date
  readonly message: string
  /** Of the last failure only. */
  readonly detail: string
}

/** A part of a listing. */
export interface Listed {
  readonly jobs: JobInfo[]
  /** Where to go on; `undefined` at the end. */
  readonly next: string | undefined
}

/** What to list. */
export interface ListOptions {
  /** The `next` of the part before. Default: from the beginning. */
  readonly cursor?: string
  /** 1 to 1000. Default: 100. */
  readonly limit?: number
}

/** Numbers of one queue; taking them costs the same however long it is. */
export interface QueueStats {
  readonly jobs: Readonly<Record<JobState, number>>
  /** Of all jobs that are not finished. */
  readonly payloadBytes: number
  /** How long the first of the ready jobs has been ready. */
  readonly oldestReadyMs: number | undefined
  readonly paused: boolean
  readonly draining: boolean
  /** Groups with jobs. */
  readonly groups: number
  /** Dead jobs still to be redriven at the rate that was asked for. */
  readonly redriving: number
  /** What happened since the mesh was opened. */
  readonly totals: {
    readonly enqueued: number
    readonly duplicates: number
    readonly reserved: number
    readonly done: number
    readonly failed: number
    readonly leaseExpired: number
    readonly workerGone: number
    readonly released: number
    readonly dead: number
    readonly cancelled: number
    readonly expired: number
    readonly redriven: number
    readonly removed: number
  }
}

/** A schedule as it stands. */
export interface ScheduleInfo {
  readonly name: string
  readonly cron: string
  readonly zone: string
  readonly misfire: NonNullable<ScheduleOptions['misfire']>
  readonly overlap: NonNullable<ScheduleOptions['overlap']>
  readonly jitterMs: number
  /** What its jobs want. */
  readonly options: JobOptions
  /** Their payload: the bytes. */
  readonly payload: Uint8Array
  /** When it fires next. */
  readonly next: Date
}

/**
 * A queue of jobs, in the host's directory. Every program of the mesh may use it.
 *
 * ```js
 * const mail = await mesh.declareQueue('mail', { maxAttempts: 10 })
 * await mail.enqueue({ to: 'ann' })
 * await using job = await mail.next()
 * await job.ack()
 * ```
 *
 * Promises of calls that change something resolve when the change is as safe as the queue says, or as `durable` asked
 * for. Any call may be rejected with `CLOSED`, `DISCONNECTED`, `TIMEOUT` (the host has not answered for 30 s),
 * `STORAGE_FULL` (nothing was written) or `FROZEN` (the disk failed).
 */
export class Queue {
  /** What it is called. */
  readonly name: string
  /** @internal How safe what is done through this handle is to be. */
  readonly wanted: number
  /** @internal */
  readonly acks: Acks
  readonly #id: number
  readonly #isHost: boolean
  readonly #enqueuer: Enqueuer
  /** @internal In the host answers wait for the disk alone: staying for them is no use. */
  readonly linger: Linger | undefined
  readonly #check: (operation: string) => void

  /** @internal */
  constructor(id: number, name: string, isHost: boolean, check: (operation: string) => void, like?: Queue, wanted = 0) {
    this.#id = id
    this.name = name
    this.#isHost = isHost
    this.#check = check
    this.wanted = wanted
    this.linger = like === undefined ? (isHost ? undefined : new Linger()) : like.linger
    this.acks = new Acks(wanted, this.linger)
    this.#enqueuer = like === undefined ? new Enqueuer(id, this.linger) : like.#enqueuer
  }

  /** @internal The number by which the native side knows it. */
  get handle(): number {
    return this.#id
  }

  /** @internal Hands over what was asked for so far, so that what follows comes later. */
  flush(): void {
    flushEnqueues()
    this.acks.flush()
  }

  /**
   * The same queue; what is done through this handle is as safe as `durability` before its promise resolves, and jobs
   * that are reserved through it are settled so.
   */
  durable(wanted: Durability): Queue {
    const number = durability('queue.durable', wanted)
    return new Queue(this.#id, this.name, this.#isHost, this.#check, this, number)
  }

  /**
   * Enqueues a job. Calls of one turn of the program travel together, and each has its own outcome.
   *
   * @throws FlowMeshError `INVALID_ARGUMENT`, `TOO_LARGE`: names value and limit. `FULL`: `maxLength` is reached.
   * `DRAINING`: the queue takes nothing new.
   */
  async enqueue(payload: Payload, options?: EnqueueOptions & CallSafety): Promise<Receipt> {
    const operation = 'queue.enqueue'
    const encoded = encode(operation, payload)
    this.#check(operation)
    if (options === undefined) return this.#enqueuer.enqueue(encoded, '', this.wanted)
    const given = check.options(operation, options, [...ENQUEUE, 'durability'])
    const wanted = durability(operation, given.durability) || this.wanted
    this.acks.flush()
    return this.#enqueuer.enqueue(encoded, enqueueJson(operation, given), wanted)
  }

  /**
   * Enqueues jobs in one write, at most 10,000: all or none. Resolves to what became of each, in order.
   *
   * @throws FlowMeshError As `enqueue`.
   */
  async enqueueMany(jobs: readonly NewJob[], options?: CallSafety): Promise<Receipt[]> {
    const operation = 'queue.enqueue'
    const wanted = this.#safety(operation, options)
    if (!Array.isArray(jobs)) throw check.invalid(operation, 'jobs', jobs, 'must be an array')
    const packer = new Packer()
    for (const given of jobs as readonly NewJob[]) {
      const checked = check.options<NewJob>(operation, given ?? null, [...ENQUEUE, 'payload'])
      packer.add(encode(operation, checked.payload), enqueueJson(operation, checked))
    }
    this.#check(operation)
    if (jobs.length === 0) return []
    this.flush()
    const { bytes, end } = packer
    const read = (answer: QueueAnswer): Receipt[] => {
      const receipts: Receipt[] = []
      readReceipts(answer, receipt => receipts.push(receipt))
      return receipts
    }
    if (end <= (this.#isHost ? HOST_SMALL_BYTES : CLIENT_SMALL_BYTES)) {
      return whenAnswered(native.enqueueJobs(this.#id, bytes, end, wanted), read, this.linger)
    }
    const id = native.startEnqueueJobs(this.#id, bytes, end, wanted)
    await job(id)
    const receipts = pending(id, read)
    native.watchReply(id)
    return receipts
  }

  /**
   * Takes jobs and waits for the first; none when there was none in time.
   *
   * @throws FlowMeshError `INVALID_ARGUMENT`: lease or count are out of bounds. The reason of a signal that was aborted.
   */
  async reserve(options?: ReserveOptions): Promise<Job[]> {
    const operation = 'queue.reserve'
    const { count, leaseMs, timeoutMs, signal } = check.options(operation, options, ['count', 'leaseMs', 'timeoutMs', 'signal'])
    const most = count === undefined ? 1 : check.integer(operation, 'count', count, 0, U32_MAX)
    const lease = checkLease(operation, leaseMs)
    const timeout = timeoutMs === undefined ? -1 : check.number(operation, 'timeoutMs', timeoutMs, 0, check.TIME_MS_MAX)
    if (signal !== undefined && check.signal(operation, signal).aborted) throw signal.reason
    this.#check(operation)
    this.flush()
    const answer = native.reserve(this.#id, most, lease, timeout, this.wanted, false)
    const read = (answer: QueueAnswer): Job[] => readJobs(this, answer, kept)
    if (typeof answer !== 'number' || answer >= 0) return read(answer)
    return signal === undefined ? whenAnswered(answer, read, this.linger) : pending(-answer, read, signal)
  }

  /**
   * Takes one job; `undefined` when there was none in time.
   *
   * @throws FlowMeshError As `reserve`.
   */
  async next(options?: Omit<ReserveOptions, 'count'>): Promise<Job | undefined> {
    const given = check.options('queue.reserve', options, ['leaseMs', 'timeoutMs', 'signal'])
    return (await this.reserve(given))[0]
  }

  /**
   * Acks jobs in one write, a thousand at once; what each of them gives: `undefined`, or the error.
   *
   * @throws FlowMeshError `INVALID_ARGUMENT`: one is no job.
   */
  async ackMany(jobs: readonly Job[]): Promise<(FlowMeshError | undefined)[]> {
    if (!Array.isArray(jobs) || !jobs.every(job => job instanceof Job)) {
      throw check.invalid('queue.ack', 'jobs', jobs, 'must be an array of jobs')
    }
    const acked = await Promise.allSettled((jobs as readonly Job[]).map(job => job.ack()))
    return acked.map(one => (one.status === 'fulfilled' ? undefined : (one.reason as FlowMeshError)))
  }

  /**
   * Cancels a job: at once if it waits (`'now'`), by asking its worker if one has it (`'asked'`), which has the queue's
   * `cancelGraceMs` to give it back; nothing happens to one that is `'finished'`. `why` is kept with it.
   *
   * @throws FlowMeshError `NOT_FOUND`: there is no such job.
   */
  async cancel(id: string, why = '', options?: CallSafety): Promise<'now' | 'asked' | 'finished'> {
    const operation = 'queue.cancel'
    return this.#ask({ ask: 'cancel', job: check.text(operation, 'id', id), why: check.text(operation, 'why', why) }, this.#safety(operation, options))
  }

  /**
   * Makes these finished jobs ready again, as if they were new; all or none.
   *
   * @throws FlowMeshError `NOT_FOUND`, `INVALID_ARGUMENT`: one is not there, or not finished.
   */
  async redrive(ids: readonly string[], options?: CallSafety): Promise<void> {
    const operation = 'queue.redrive'
    if (!Array.isArray(ids)) throw check.invalid(operation, 'ids', ids, 'must be an array of ids')
    await this.#ask({ ask: 'redrive', jobs: ids.map(id => check.text(operation, 'id', id)) }, this.#safety(operation, options))
  }

  /** Makes dead jobs ready again, those that have been dead longest first, at most so many; how many. Default: all. */
  async redriveDead(most = Number.MAX_SAFE_INTEGER, options?: CallSafety): Promise<number> {
    const operation = 'queue.redrive_dead'
    check.integer(operation, 'most', most, 0, Number.MAX_SAFE_INTEGER)
    return this.#ask({ ask: 'redriveDead', most }, this.#safety(operation, options))
  }

  /** Makes `count` dead jobs ready again at this rate, from now on; 0 ends it. */
  async redriveAt(count: number, rate: Rate, options?: CallSafety): Promise<void> {
    const operation = 'queue.redrive_at'
    check.integer(operation, 'count', count, 0, Number.MAX_SAFE_INTEGER)
    await this.#ask({ ask: 'redriveAt', count, rate: checkRate(operation, 'rate', rate) }, this.#safety(operation, options))
  }

  /**
   * Removes all jobs in a state; how many.
   *
   * @throws FlowMeshError `INVALID_ARGUMENT`: leased jobs are cancelled, not purged.
   */
  async purge(state: JobState, options?: CallSafety): Promise<number> {
    const operation = 'queue.purge'
    return this.#ask({ ask: 'purge', state: check.text(operation, 'state', state) }, this.#safety(operation, options))
  }

  /**
   * Removes one job.
   *
   * @throws FlowMeshError `NOT_FOUND`; `INVALID_ARGUMENT`: a worker has it, cancel it.
   */
  async remove(id: string, options?: CallSafety): Promise<void> {
    await this.#ask({ ask: 'remove', job: check.text('queue.remove', 'id', id) }, this.#safety('queue.remove', options))
  }

  /** Hands out nothing until `resume`; what workers have they keep. */
  async pause(): Promise<void> {
    await this.#ask({ ask: 'pause' })
  }

  /** Ends pausing and draining. */
  async resume(): Promise<void> {
    await this.#ask({ ask: 'resume' })
  }

  /** Takes nothing new until `resume`; whether all that was there is finished. */
  async drain(): Promise<boolean> {
    return this.#ask({ ask: 'drain' })
  }

  /**
   * Enqueues a job again and again, at the times of a cron expression (five fields, or six with seconds first), in the
   * place of the schedule of this name if there is one.
   *
   * @throws FlowMeshError `INVALID_ARGUMENT`: names what is not valid, in an expression the column.
   */
  async schedule(name: string, cron: string, payload: Payload = EMPTY, options?: ScheduleOptions & CallSafety): Promise<void> {
    const operation = 'queue.schedule'
    const known = ['zone', 'misfire', 'overlap', 'jitterMs', 'options', 'durability'] as const
    const { durability: wanted, ...given } = check.options(operation, options, known)
    const encoded = encode(operation, payload)
    const wants = given.options?.contentType === undefined && encoded.contentType !== undefined && payload !== EMPTY
      ? { ...given, options: { ...check.options(operation, given.options, JOB), contentType: encoded.contentType } }
      : given
    const schedule = scheduleJson(operation, name, cron, wants)
    const level = durability(operation, wanted) || this.wanted
    this.#check(operation)
    await whenAnswered(native.schedule(this.#id, schedule, encoded.payload, level), nothing)
  }

  /**
   * Removes a schedule; jobs that it enqueued stay.
   *
   * @throws FlowMeshError `NOT_FOUND`: there is none of this name.
   */
  async unschedule(name: string, options?: CallSafety): Promise<void> {
    const operation = 'queue.unschedule'
    await this.#ask({ ask: 'unschedule', name: check.text(operation, 'name', name) }, this.#safety(operation, options))
  }

  /** All schedules. */
  async schedules(): Promise<ScheduleInfo[]> {
    const found = await this.#ask<(Omit<ScheduleInfo, 'payload' | 'next' | 'options'> & RawSchedule)[]>({ ask: 'schedules' })
    return found.map(({ payload, next, options, ...rest }) => {
      const { headers, ...wants } = options
      const own = headers === undefined ? wants : { ...wants, headers: Object.fromEntries(headers) }
      return { ...rest, options: own, payload: Buffer.from(payload, 'hex'), next: new Date(next) }
    })
  }

  /**
   * A part of the jobs in `state`: waiting ones in the order in which they will be handed out, finished ones as they
   * were finished.
   */
  async list(state: JobState, options?: ListOptions): Promise<Listed> {
    const operation = 'queue.list'
    const { cursor, limit } = check.options(operation, options, ['cursor', 'limit'])
    const { jobs, next } = await this.#ask<{ jobs: RawInfo[]; next: string | null }>({
      ask: 'list',
      state: check.text(operation, 'state', state),
      cursor: check.optional(cursor, value => check.text(operation, 'cursor', value)),
      most: limit === undefined ? LIST_LIMIT : check.integer(operation, 'limit', limit, 0, U32_MAX),
    })
    return { jobs: jobs.map(readInfo), next: next ?? undefined }
  }

  /** All jobs in `state`, asked for in parts while they are looked at: what changes meanwhile may be missed or seen twice. */
  async *jobs(state: JobState): AsyncGenerator<JobInfo, void, undefined> {
    let cursor: string | undefined
    do {
      const part: Listed = await this.list(state, cursor === undefined ? {} : { cursor })
      yield* part.jobs
      cursor = part.next
    } while (cursor !== undefined)
  }

  /**
   * A job, without taking it.
   *
   * @throws FlowMeshError `NOT_FOUND`: there is no such job, or not any more.
   */
  async peek(id: string): Promise<JobInfo> {
    return readInfo(await this.#ask<RawInfo>({ ask: 'peek', job: check.text('queue.peek', 'id', id) }))
  }

  /**
   * What a job carries.
   *
   * @throws FlowMeshError As `peek`.
   */
  async content(id: string): Promise<Content> {
    return this.#whenAsked({ ask: 'content', job: check.text('queue.content', 'id', id) }, readContent)
  }

  /**
   * What a job was acked with, if it was acked with something and that is still kept.
   *
   * @throws FlowMeshError As `peek`.
   */
  async result(id: string): Promise<Content | undefined> {
    const read = (answer: QueueAnswer): Content | undefined => (typeof answer === 'string' ? undefined : readContent(answer))
    return this.#whenAsked({ ask: 'result', job: check.text('queue.result', 'id', id) }, read)
  }

  /** Numbers of the queue. */
  async stats(): Promise<QueueStats> {
    const stats = await this.#ask<Record<string, unknown>>({ ask: 'stats' })
    // States keep their names.
    const { jobs, oldest_ready_ms: oldest, ...rest } = stats
    return { jobs, oldestReadyMs: oldest ?? undefined, ...(camelKeys(rest) as object) } as QueueStats
  }

  /** How it is set up. */
  async config(): Promise<QueueConfig> {
    return this.#ask({ ask: 'config' })
  }

  /**
   * Sets it up otherwise, for jobs that are there too, from now on. What is left out becomes the default; to change
   * one thing: `queue.configure({ ...(await queue.config()), concurrency: 5 })`.
   */
  async configure(config: QueueConfig): Promise<void> {
    await this.#ask({ ask: 'configure', config: configJson('queue.configure', config) })
  }

  /** @internal A job that nobody will settle: when the program forgets it, so does the native side. */
  remember(job: Job): void {
    forgotten.register(job, job.key, job)
  }

  /** @internal A job is settled: it need not be given up any more when the program forgets it. */
  forget(job: Job): void {
    forgotten.unregister(job)
  }

  #safety(operation: string, options: CallSafety | undefined): number {
    return safety(operation, options) || this.wanted
  }

  async #ask<T>(asking: Asking, wanted = this.wanted): Promise<T> {
    return this.#whenAsked(asking, answer => json<T>(answer), wanted)
  }

  #whenAsked<T>(asking: Asking, read: (answer: QueueAnswer) => T, wanted = this.wanted): T | Promise<T> {
    this.#check(`queue.${asking.ask}`)
    this.flush()
    return whenAnswered(native.askQueue(this.#id, JSON.stringify(asking), wanted), read, this.linger)
  }
}

/** What native/queues.rs reads. */
type Asking = { readonly ask: string } & Readonly<Record<string, unknown>>

interface RawSchedule {
  readonly payload: string
  readonly next: number
  readonly options: Omit<JobOptions, 'headers'> & { readonly headers?: [string, string][] }
}

type RawInfo = Record<string, unknown> & { failures: { attempt: number; at: number; message: string; detail: string }[] }

function readInfo(raw: RawInfo): JobInfo {
  const { since, due, expires, progress, failures, ...rest } = raw
  const date = (ms: unknown): Date => new Date(ms as number)
  const given = {
    ...rest,
    since: date(since),
    due: due === null ? null : date(due),
    expires: expires === null ? null : date(expires),
    progress: progress === null ? null : Buffer.from(progress as string, 'hex'),
    failures: failures.map(({ attempt, at, message, detail }) => ({ attempt, at: date(at), message, detail })),
  }
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== null)) as unknown as JobInfo
}

const forgotten = new FinalizationRegistry<number>(key => native.forgetJob(key))
const EMPTY = new Uint8Array(0)
const LIST_LIMIT = 100
const U32_MAX = 2 ** 32 - 1
