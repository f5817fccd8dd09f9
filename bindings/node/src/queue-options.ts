// What queues may be told, checked for types and names and written as native/queue_options.rs reads it. The core checks
// ranges: its errors name value and limit.

import * as check from './check.js'
import { flatHeaders } from './payload.js'
import type { Durability, Headers } from './types.js'

/**
 * How long after a failed attempt the next may begin: always so many milliseconds; one after the other, the last again
 * and again; or growing from `initialMs` by `factor` up to `maxMs`, with `jitter` chosen anew below that.
 */
export type QueueBackoff =
  | number
  | readonly number[]
  | {
      /** After the first failure. Default: 1 s. */
      readonly initialMs?: number
      /** 1 to 1000. Default: 2. */
      readonly factor?: number
      /** The longest. Default: 10 min. */
      readonly maxMs?: number
      /** Whether the wait is chosen between nothing and the above. Default: true. */
      readonly jitter?: boolean
    }

/** So many in each stretch of time, evenly, after so many at once. */
export interface Rate {
  /** 1 to 1,000,000,000. */
  readonly count: number
  /** 1 ms to 365 days. */
  readonly perMs: number
  /** How many may go at once after a rest. Default: `count`. */
  readonly burst?: number
}

/** How long finished jobs are kept, and at most how many. */
export interface Keep {
  /** 0 for not at all. */
  readonly ageMs?: number
  readonly count?: number
}

/** How a queue treats its jobs. What a job says for itself goes first. Times are at most ten years. */
export interface QueueConfig {
  /** How long a worker has a job before it must extend: 1 s to 12 h. Default: 30 s. */
  readonly leaseMs?: number
  /** How often a job is handed out before it is dead: 1 to 1000. Default: 5. */
  readonly maxAttempts?: number
  /** Default: 1 s doubling to 10 min, with jitter. */
  readonly backoff?: QueueBackoff
  /** How long one attempt may take however often it is extended. Default: no limit. */
  readonly deadlineMs?: number
  /** How long a job may wait before it expires. Default: for ever. */
  readonly ttlMs?: number
  /** Jobs that may wait; more are `FULL`. Default: no limit. */
  readonly maxLength?: number
  /** The largest payload or result, up to 64 MiB. Default: 8 MiB. */
  readonly payloadBytesMax?: number
  /** Jobs that may be leased at once. Default: no limit. */
  readonly concurrency?: number
  /** How often jobs are handed out. Default: no limit. */
  readonly rate?: Rate
  /** Jobs of one group that may be leased at once; 1 is strict order. Default: no limit. */
  readonly groupConcurrency?: number
  /** How often jobs of one group are handed out. Default: no limit. */
  readonly groupRate?: Rate
  /** Shares by group key, 1 to 1000; a group not named has 1. */
  readonly groupWeights?: Readonly<Record<string, number>>
  /** A waiting job gains one priority each time this passes. Default: never. */
  readonly agingMs?: number
  /** Default: done none (with a result: its `resultTtlMs`), dead 7 days, cancelled and expired 1 h. */
  readonly retention?: { readonly done?: Keep; readonly dead?: Keep; readonly cancelled?: Keep; readonly expired?: Keep }
  /** The queue that jobs out of attempts move to. Default: they stay as dead. */
  readonly deadLetterTo?: string
  /** How long a worker whose job is cancelled has to give it back. Default: 30 s. */
  readonly cancelGraceMs?: number
  /** Whether an attempt that ends with its worker's process does not count. Default: false. */
  readonly uncountedOnCrash?: boolean
  /** How safe a change is before its promise resolves. Default: `'fsync'`. */
  readonly durability?: Durability
}

/** A key that at most one job of a queue has at a time. */
export interface Unique {
  /** At most 1 KiB. */
  readonly key: string
  /** How long the job has it: until it is first handed out, until it is finished, or so much longer. Default: `'active'`. */
  readonly scope?: 'waiting' | 'active' | { readonly windowMs: number }
  /**
   * What happens when another job has it. `'return-existing'` (default): its id is returned. `'replace'`: it is
   * cancelled if it still waits. `'extend'`: it waits anew for as long as the new one would, and stays as it is if that
   * has no delay. `'keep-last'`: as `'replace'`, and behind one that is being worked on the newest waits.
   */
  readonly onConflict?: 'return-existing' | 'replace' | 'extend' | 'keep-last'
}

/** What one job wants. Times are at most ten years. */
export interface JobOptions {
  /** 0 to 255; higher goes first. Default: 0. */
  readonly priority?: number
  /** How long it may wait before it expires. Default: the queue's. */
  readonly ttlMs?: number
  /** A key that no other job of the queue may have meanwhile. */
  readonly unique?: string | Unique
  /** Its group, at most 1 KiB. */
  readonly group?: string
  /** At most 256, 64 KiB in all. */
  readonly headers?: Headers
  /** How the payload is encoded. Default: by its type, as for events. */
  readonly contentType?: string
  /** Default: the queue's. */
  readonly maxAttempts?: number
  /** Default: the queue's. */
  readonly backoff?: QueueBackoff
  /** Default: the queue's. */
  readonly leaseMs?: number
  /** Default: the queue's. */
  readonly deadlineMs?: number
  /** How long its result is kept. Default: 1 h. */
  readonly resultTtlMs?: number
}

/** Options of a job that is enqueued. */
export interface EnqueueOptions extends JobOptions {
  /** A UUID, or 32 hexadecimal digits. A job that is there already with this id is not enqueued again. Default: a new one. */
  readonly id?: string
  /** How long it waits first. */
  readonly delayMs?: number
  /** Until when it waits: a date, or milliseconds since 1970. Not both with `delayMs`. */
  readonly runAt?: Date | number
}

/** A job that is enqueued again and again. */
export interface ScheduleOptions {
  /** The IANA name of a time zone. Default: `'UTC'`. */
  readonly zone?: string
  /** What happens to times that were missed. Default: `'run-once'`, one job for all of them. */
  readonly misfire?: 'skip' | 'run-once' | 'run-all'
  /** What happens when its last job is not finished. Default: `'allow'`, another is enqueued. */
  readonly overlap?: 'allow' | 'skip' | 'replace'
  /** Each job waits a little, up to so long, at most a day. Default: not at all. */
  readonly jitterMs?: number
  /** What its jobs want. */
  readonly options?: JobOptions
}

/** @internal */
export function configJson(operation: string, config: QueueConfig | undefined): object {
  const given = check.options(operation, config, CONFIG)
  const ms = (name: keyof QueueConfig) => check.optional(given[name], value => time(operation, name, value))
  const count = (name: keyof QueueConfig, max: number) =>
    check.optional(given[name], value => check.integer(operation, name, value, 0, max))
  return {
    leaseMs: ms('leaseMs'),
    maxAttempts: count('maxAttempts', U16_MAX),
    backoff: check.optional(given.backoff, value => backoff(operation, value)),
    deadlineMs: ms('deadlineMs'),
    ttlMs: ms('ttlMs'),
    maxLength: count('maxLength', Number.MAX_SAFE_INTEGER),
    payloadBytesMax: count('payloadBytesMax', U32_MAX),
    concurrency: count('concurrency', U32_MAX),
    rate: check.optional(given.rate, value => rate(operation, 'rate', value)),
    groupConcurrency: count('groupConcurrency', U32_MAX),
    groupRate: check.optional(given.groupRate, value => rate(operation, 'groupRate', value)),
    groupWeights: check.optional(given.groupWeights, value => weights(operation, value)),
    agingMs: ms('agingMs'),
    retention: check.optional(given.retention, value => retention(operation, value)),
    deadLetterTo: check.optional(given.deadLetterTo, value => check.text(operation, 'deadLetterTo', value)),
    cancelGraceMs: ms('cancelGraceMs'),
    uncountedOnCrash: check.optional(given.uncountedOnCrash, value => check.flag(operation, 'uncountedOnCrash', value)),
    durability: check.optional(given.durability, value => (durability(operation, value), value)),
  }
}

/** @internal */
export function rate(operation: string, name: string, value: Rate): Rate {
  const { count, perMs, burst } = check.options<Rate>(operation, value, ['count', 'perMs', 'burst'])
  const given = {
    count: check.integer(operation, `${name}.count`, count, 0, U32_MAX),
    perMs: time(operation, `${name}.perMs`, perMs),
  }
  return burst === undefined ? given : { ...given, burst: check.integer(operation, `${name}.burst`, burst, 0, U32_MAX) }
}

function weights(operation: string, value: Readonly<Record<string, number>>): object {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw check.invalid(operation, 'groupWeights', value, 'must be an object of numbers')
  }
  for (const [group, weight] of Object.entries(value)) {
    check.text(operation, 'groupWeights', group)
    check.integer(operation, `groupWeights.${group}`, weight, 0, U32_MAX)
  }
  return value
}

function retention(operation: string, value: NonNullable<QueueConfig['retention']>): object {
  const given = check.options(operation, value, ['done', 'dead', 'cancelled', 'expired'])
  const keep = (name: keyof typeof given) =>
    check.optional(given[name], value => {
      const { ageMs, count } = check.options<Keep>(operation, value, ['ageMs', 'count'])
      return {
        ageMs: check.optional(ageMs, value => time(operation, `retention.${name}.ageMs`, value)),
        count: check.optional(count, value => check.integer(operation, `retention.${name}.count`, value, 0, U32_MAX)),
      }
    })
  return { done: keep('done'), dead: keep('dead'), cancelled: keep('cancelled'), expired: keep('expired') }
}

function backoff(operation: string, value: QueueBackoff): unknown {
  if (typeof value === 'number') return time(operation, 'backoff', value)
  if (Array.isArray(value)) return value.map((wait, at) => time(operation, `backoff[${at}]`, wait))
  const given = check.options(operation, value as Exclude<QueueBackoff, number | readonly number[]>, ['initialMs', 'factor', 'maxMs', 'jitter'])
  return {
    initialMs: check.optional(given.initialMs, value => time(operation, 'backoff.initialMs', value)),
    factor: check.optional(given.factor, value => check.number(operation, 'backoff.factor', value, 1, 1000)),
    maxMs: check.optional(given.maxMs, value => time(operation, 'backoff.maxMs', value)),
    jitter: check.optional(given.jitter, value => check.flag(operation, 'backoff.jitter', value)),
  }
}

/** @internal The options of a job as JSON; `''` for none of them. */
export function enqueueJson(operation: string, given: EnqueueOptions): string {
  const ms = (name: keyof EnqueueOptions) => check.optional(given[name], value => time(operation, name, value))
  const words = (name: keyof EnqueueOptions) => check.optional(given[name], value => check.text(operation, name, value))
  const json = JSON.stringify({
    id: words('id'),
    priority: check.optional(given.priority, value => check.integer(operation, 'priority', value, 0, 255)),
    delayMs: ms('delayMs'),
    runAt: check.optional(given.runAt, value => moment(operation, 'runAt', value)),
    ttlMs: ms('ttlMs'),
    unique: check.optional(given.unique, value => unique(operation, value)),
    group: words('group'),
    headers: check.optional(given.headers, value => headerPairs(operation, value)),
    contentType: words('contentType'),
    maxAttempts: check.optional(given.maxAttempts, value => check.integer(operation, 'maxAttempts', value, 0, U16_MAX)),
    backoff: check.optional(given.backoff, value => backoff(operation, value)),
    leaseMs: ms('leaseMs'),
    deadlineMs: ms('deadlineMs'),
    resultTtlMs: ms('resultTtlMs'),
  })
  return json === '{}' ? '' : json
}

function unique(operation: string, value: string | Unique): Unique {
  if (typeof value === 'string') return { key: check.text(operation, 'unique', value) }
  const { key, scope, onConflict } = check.options<Unique>(operation, value, ['key', 'scope', 'onConflict'])
  return {
    key: check.text(operation, 'unique.key', key),
    ...(scope !== undefined && { scope: uniqueScope(operation, scope) }),
    ...(onConflict !== undefined && { onConflict: check.oneOf(operation, 'unique.onConflict', onConflict, CONFLICTS) }),
  }
}

function uniqueScope(operation: string, scope: NonNullable<Unique['scope']>): NonNullable<Unique['scope']> {
  if (typeof scope !== 'object') return check.oneOf(operation, 'unique.scope', scope, ['waiting', 'active'] as const)
  const { windowMs } = check.options<{ windowMs: number }>(operation, scope, ['windowMs'])
  return { windowMs: time(operation, 'unique.scope.windowMs', windowMs) }
}

function headerPairs(operation: string, headers: Headers): [string, string][] | undefined {
  const flat = flatHeaders(operation, headers)!
  return flat.length === 0 ? undefined : Array.from({ length: flat.length / 2 }, (_, at) => [flat[2 * at]!, flat[2 * at + 1]!])
}

/** @internal */
export function scheduleJson(operation: string, name: string, cron: string, options: ScheduleOptions | undefined): string {
  const given = check.options(operation, options, ['zone', 'misfire', 'overlap', 'jitterMs', 'options'])
  const wants = enqueueJson(operation, check.options(operation, given.options, JOB))
  return JSON.stringify({
    name: check.text(operation, 'name', name),
    cron: check.text(operation, 'cron', cron),
    zone: check.optional(given.zone, value => check.text(operation, 'zone', value)),
    misfire: check.optional(given.misfire, value => check.oneOf(operation, 'misfire', value, ['skip', 'run-once', 'run-all'])),
    overlap: check.optional(given.overlap, value => check.oneOf(operation, 'overlap', value, ['allow', 'skip', 'replace'])),
    jitterMs: check.optional(given.jitterMs, value => time(operation, 'jitterMs', value)),
    options: wants === '' ? undefined : (JSON.parse(wants) as object),
  })
}

/** @internal A durability as the native side takes it: 0 for what the queue says. */
export function durability(operation: string, value: Durability | undefined): number {
  if (value === undefined) return 0
  if (value === 'os') return -1
  if (value === 'fsync') return -2
  const { intervalMs } = typeof value === 'object' && value !== null ? value : { intervalMs: undefined }
  if (intervalMs === undefined) {
    throw check.invalid(operation, 'durability', value, "must be 'os', 'fsync' or { intervalMs }")
  }
  check.options(operation, value as { intervalMs: number }, ['intervalMs'])
  return check.number(operation, 'durability.intervalMs', intervalMs, 1, MS_MAX)
}

/** @internal Milliseconds that the core can tell to be too many. */
export function time(operation: string, name: string, value: unknown): number {
  return check.number(operation, name, value, 0, MS_MAX)
}

/** @internal A lease as the native side takes it: below 0 for none. */
export function leaseMs(operation: string, value: number | undefined): number {
  return value === undefined ? -1 : time(operation, 'leaseMs', value)
}

function moment(operation: string, name: string, value: unknown): number {
  const ms = value instanceof Date ? value.getTime() : value
  if (typeof ms === 'number' && ms >= 0 && ms <= MOMENT_MAX) return ms
  throw check.invalid(operation, name, value instanceof Date ? String(value) : value, `must be a Date or milliseconds since 1970, at most ${MOMENT_MAX}`)
}

const CONFLICTS = ['return-existing', 'replace', 'extend', 'keep-last'] as const
const CONFIG = [
  'leaseMs',
  'maxAttempts',
  'backoff',
  'deadlineMs',
  'ttlMs',
  'maxLength',
  'payloadBytesMax',
  'concurrency',
  'rate',
  'groupConcurrency',
  'groupRate',
  'groupWeights',
  'agingMs',
  'retention',
  'deadLetterTo',
  'cancelGraceMs',
  'uncountedOnCrash',
  'durability',
] as const
/** @internal The names of what every job may want. */
export const JOB = [
  'priority',
  'ttlMs',
  'unique',
  'group',
  'headers',
  'contentType',
  'maxAttempts',
  'backoff',
  'leaseMs',
  'deadlineMs',
  'resultTtlMs',
] as const
/** @internal The names of all options of `enqueue`. */
export const ENQUEUE = [...JOB, 'id', 'delayMs', 'runAt'] as const
const U16_MAX = 2 ** 16 - 1
const U32_MAX = 2 ** 32 - 1
/** 31,000 years: more than any limit of the core. */
const MS_MAX = 1e15
/** The last moment that the core's nanoseconds can tell, in 2554. */
const MOMENT_MAX = 18_446_744_073_709
