// The mesh: opening it, events, calls.

import { basename } from 'node:path'
import { types } from 'node:util'
import { fileURLToPath } from 'node:url'
import { Calls } from './calls.js'
import * as check from './check.js'
import { FlowMeshError } from './errors.js'
import { isTurnOver, job, nextTurn } from './loop.js'
import type { Message } from './message.js'
import { native } from './native.js'
import { encode, flatHeaders, JSON_TYPE, TEXT_TYPE } from './payload.js'
import { Queue } from './queue.js'
import { configJson, type QueueConfig } from './queue-options.js'
import { json, whenAnswered } from './replies.js'
import { type CallHandler, Service, SMALL_BYTES } from './service.js'
import { camelKeys, type EventHandler, Subscription } from './subscription.js'
import type { FileUrl, Headers, Payload, Signal } from './types.js'
import type { InstanceInfo, ServiceInfo, Stats } from './stats.js'
import { type JobHandler, Worker, type WorkerOptions } from './worker.js'

/** How native threads wait for the other side: `adaptive` looks for `spinUs` before it sleeps (default, 5 µs). */
export type WaitStrategy = 'adaptive' | 'block' | 'spin' | { readonly spinUs: number } | { readonly intervalMs: number }

/** When calls to a service that fails are refused with `CIRCUIT_OPEN`. */
export interface BreakerOptions {
  /** Calls are looked at for this long. Default: 10 s. */
  readonly windowMs?: number
  /** Fewer calls in the window than this open nothing. Default: 10. */
  readonly minCalls?: number
  /** The share of calls without an answer that opens it, above 0 to 1. Default: 0.5. */
  readonly failureRatio?: number
  /** How long it stays open the first time; doubles with each failed probe. Default: 1 s. */
  readonly openMs?: number
  /** The longest it stays open. Default: 30 s. */
  readonly openMsMax?: number
  /** Calls let through at once while it looks whether the service is back. Default: 1. */
  readonly probes?: number
}

interface CommonOptions {
  /** Shown in discovery and errors. Default: the script's name. */
  readonly name?: string
  readonly waitStrategy?: WaitStrategy
  /** `false` turns it off. */
  readonly breaker?: BreakerOptions | boolean
  /** Gives up; the promise is rejected with the signal's reason. */
  readonly signal?: Signal
}

/** Options of `open`. */
export interface OpenOptions extends CommonOptions {
  /** The largest payload, 1 KiB to 1 GiB. Default: 64 MiB. */
  readonly maxMessageBytes?: number
  /** Shared memory of a client in each direction: a power of two, 64 KiB to 64 MiB. Default: 1 MiB. */
  readonly ringBytes?: number
  /** The most clients. Default: 1024. */
  readonly maxSessions?: number
  /**
   * Whether damaged durable data is opened all the same: what is damaged is moved into `quarantine/`, never deleted, and
   * what was written after it stays. A queue whose declaration was lost is called `recovered-` and a number, with
   * settings as they are by default. Default: false, opening is refused as `CORRUPT`, naming file and offset.
   */
  readonly repair?: boolean
}

/** Options of `connect` and `connectTcp`. */
export interface ConnectOptions extends CommonOptions {
  /** How long connecting may take. Default: 5 s. */
  readonly timeoutMs?: number
  /** `false` sends frames over the Unix socket instead. Default: true. */
  readonly sharedMemory?: boolean
}

/** Options of `publish`. */
export interface PublishOptions {
  readonly headers?: Headers
  /** 0 to 9; among the events that wait for a subscriber, higher ones are delivered first. Default: 4. */
  readonly priority?: number
  /** It is not delivered any more after this time, 1 ms to 49 days. Default: never expires. */
  readonly ttlMs?: number
  /** It is delivered after this time, at most 49 days. Default: at once. */
  readonly delayMs?: number
}

/** Options of `publishWait` and `publishMany`. */
export interface PublishWaitOptions extends PublishOptions {
  /** The longest wait for room. Default: 30 s. */
  readonly timeoutMs?: number
  /** Ends the wait; the promise is rejected with the signal's reason. What is under way may still be published. */
  readonly signal?: Signal
}

/** Options of `subscribe`. */
export interface SubscribeOptions {
  /** Of all subscriptions with this group that match an event, one gets it. */
  readonly group?: string
  /** Among the subscriptions that match, higher ones are handed the event first. Default: 0. */
  readonly priority?: number
  /** Events that may wait for it, 1 to 1,048,576. Default: 1024. */
  readonly capacity?: number
  /** What happens to an event when `capacity` others wait. Default: `'drop-oldest'`. */
  readonly onSlow?: 'drop-oldest' | 'block' | 'disconnect'
  /** With `onSlow: 'block'`, how long a publisher waits before the event is dropped. Default: 1 s. */
  readonly blockTimeoutMs?: number
  /** What happens when handling fails. Default: the failure is counted. */
  readonly retry?: RetryOptions
  /** Closes the subscription; what waits for it is rejected with the signal's reason. */
  readonly signal?: Signal
}

/** How often and when an event that failed is delivered again. */
export interface RetryOptions {
  /** Deliveries in all, the first included, 1 to 1000. Default: 3. */
  readonly maxAttempts?: number
  /** How long after the first failure. Default: 100 ms. */
  readonly backoffMs?: number
  /** What each further failure multiplies it by, 1 to 1000. Default: 2. */
  readonly backoffFactor?: number
  /** The longest. Default: 30 s. */
  readonly backoffMsMax?: number
  /** Where an event goes that failed `maxAttempts` times, with headers that say why. Default: nowhere. */
  readonly deadLetter?: string
}

/** Options of `serve`. */
export interface ServeOptions {
  /** Free text that discovery shows, at most 255 bytes. */
  readonly version?: string
  /** Calls it takes at once, 1 to 65,536. Default: 1. */
  readonly concurrency?: number
  /** Calls that may wait for it, at most 1,048,576. Default: 1024. */
  readonly queue?: number
  /** The most calls a second of the service, all its instances together. Default: no limit. */
  readonly rate?: number
  /** With `rate`, calls at once after a rest, 1 to a million. Default: those of one second. */
  readonly burst?: number
}

/** Options of `call`. */
export interface CallOptions {
  readonly headers?: Headers
  /** The call's deadline, counted from now; it travels with the call. Default: 30 s. */
  readonly timeoutMs?: number
  /** Cancels the call; the promise is rejected with the signal's reason. */
  readonly signal?: Signal
}

interface Info {
  readonly role: 'host' | 'client'
  readonly session: number
  readonly directory: string | null
  readonly hostPid: number
  readonly maxMessageBytes: number
}

/**
 * Opens the directory as its host, and makes it when there is none.
 *
 * ```js
 * await using mesh = await open('./data')
 * mesh.serve('text.upper', request => request.text.toUpperCase())
 * ```
 *
 * @throws FlowMeshError `ALREADY_OPEN`: another process is its host; `context.pid` names it. `CORRUPT`: its durable data
 * is damaged; names file and offset, see `repair`.
 */
export async function open(directory: string | FileUrl, options?: OpenOptions): Promise<Mesh> {
  const operation = 'mesh.open'
  const known = [...COMMON, 'maxMessageBytes', 'ringBytes', 'maxSessions', 'repair'] as const
  const given = check.options(operation, options, known)
  const whole = (name: 'maxMessageBytes' | 'ringBytes' | 'maxSessions', min: number, max: number) =>
    check.optional(given[name], value => check.integer(operation, name, value, min, max))
  const json = JSON.stringify({
    ...common(operation, given),
    maxMessageBytes: whole('maxMessageBytes', 1024, 2 ** 30),
    ringBytes: whole('ringBytes', 64 * 1024, 64 * 2 ** 20),
    maxSessions: whole('maxSessions', 1, 2 ** 31 - 1),
    repair: check.optional(given.repair, value => check.flag(operation, 'repair', value)),
  })
  const path = directoryPath(operation, directory)
  return start(operation, given.signal, () => native.open(path, json))
}

/**
 * Connects to the host of the directory.
 *
 * @throws FlowMeshError `NOT_FOUND`: no directory or no host; `PERMISSION_DENIED`; `VERSION_MISMATCH`; `TIMEOUT`.
 */
export async function connect(directory: string | FileUrl, options?: ConnectOptions): Promise<Mesh> {
  const operation = 'mesh.connect'
  const [json, signal] = connecting(operation, options)
  const path = directoryPath(operation, directory)
  return start(operation, signal, () => native.connect(path, json))
}

/**
 * Connects to a host that listens on TCP, at `'127.0.0.1:7000'`, with the secret both sides know.
 *
 * @throws FlowMeshError `UNAUTHENTICATED`: the secret is not the host's; `DISCONNECTED`: nobody listens there.
 */
export async function connectTcp(address: string, secret: Uint8Array | string, options?: ConnectOptions): Promise<Mesh> {
  const operation = 'mesh.connect_tcp'
  const [json, signal] = connecting(operation, options)
  const where = check.text(operation, 'address', address)
  const key = secretBytes(operation, secret)
  return start(operation, signal, () => native.connectTcp(where, key, json))
}

function connecting(operation: string, options: ConnectOptions | undefined): [json: string, signal: Signal | undefined] {
  const given = check.options(operation, options, [...COMMON, 'timeoutMs', 'sharedMemory'])
  const json = JSON.stringify({
    ...common(operation, given),
    timeoutMs: check.optional(given.timeoutMs, value => check.number(operation, 'timeoutMs', value, 1, check.TIME_MS_MAX)),
    sharedMemory: check.optional(given.sharedMemory, value => check.flag(operation, 'sharedMemory', value)),
  })
  return [json, given.signal]
}

const COMMON = ['name', 'waitStrategy', 'breaker', 'signal'] as const

function common(operation: string, options: CommonOptions): object {
  const { name, waitStrategy, breaker } = options
  return {
    name: check.text(operation, 'name', name ?? basename(process.argv[1] ?? 'node')),
    wait: check.optional(waitStrategy, value => waiting(operation, value)),
    breaker: check.optional(breaker, value => breaking(operation, value)),
  }
}

function waiting(operation: string, strategy: WaitStrategy): unknown {
  if (typeof strategy === 'string') {
    const name = check.oneOf(operation, 'waitStrategy', strategy, ['adaptive', 'block', 'spin'])
    return name === 'adaptive' ? undefined : name
  }
  const { spinUs, intervalMs } = check.options<{ spinUs?: number; intervalMs?: number }>(operation, strategy, ['spinUs', 'intervalMs'])
  if (spinUs !== undefined) return { adaptive: { spinUs: check.number(operation, 'spinUs', spinUs, 0, 1e6) } }
  return { timed: { intervalMs: check.number(operation, 'intervalMs', intervalMs, 0.001, 60_000) } }
}

function breaking(operation: string, breaker: BreakerOptions | boolean): unknown {
  if (typeof breaker === 'boolean') return breaker
  const known = ['windowMs', 'minCalls', 'failureRatio', 'openMs', 'openMsMax', 'probes'] as const
  const given = check.options(operation, breaker, known)
  const ms = (name: 'windowMs' | 'openMs' | 'openMsMax') =>
    check.optional(given[name], value => check.number(operation, `breaker.${name}`, value, 0, check.TIME_MS_MAX))
  const count = (name: 'minCalls' | 'probes') =>
    check.optional(given[name], value => check.integer(operation, `breaker.${name}`, value, 0, U32_MAX))
  const ratio = check.optional(given.failureRatio, value => check.number(operation, 'breaker.failureRatio', value, 0, 1))
  return {
    windowMs: ms('windowMs'),
    minCalls: count('minCalls'),
    failureRatio: ratio,
    openMs: ms('openMs'),
    openMsMax: ms('openMsMax'),
    probes: count('probes'),
  }
}

/** @internal */
export function directoryPath(operation: string, directory: string | FileUrl): string {
  if (directory instanceof URL) {
    if (directory.protocol !== 'file:') throw check.invalid(operation, 'directory', directory.href, 'must be a file: URL')
    return fileURLToPath(directory)
  }
  if (check.text(operation, 'directory', directory) === '' || directory.includes('\0')) {
    throw check.invalid(operation, 'directory', directory, 'must be a path')
  }
  return directory
}

function secretBytes(operation: string, secret: Uint8Array | string): Uint8Array {
  if (typeof secret === 'string') return Buffer.from(secret, 'utf8')
  if (types.isUint8Array(secret)) return secret
  throw check.invalid(operation, 'secret', '…', 'must be a Uint8Array or a string')
}

async function start(operation: string, given: Signal | undefined, begin: () => number): Promise<Mesh> {
  const signal = check.optional(given, value => check.signal(operation, value))
  if (signal?.aborted === true) throw signal.reason
  const id = begin()
  const opened = job(id).then(() => new Mesh(id))
  if (signal === undefined) return opened
  return unless(signal, opened, mesh => void mesh.close())
}

/** `work`, or the signal's reason when that comes first; then `undo` is given what comes later. */
function unless<T>(signal: Signal, work: Promise<T>, undo: (late: T) => void): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      reject(signal.reason)
      work.then(undo, () => {})
    }
    signal.addEventListener('abort', abort, { once: true })
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}

/**
 * A mesh of processes: the host of a directory, or one of its clients. Both have the same operations.
 *
 * Open alone it does not keep the process alive: subscriptions, services and calls under way do.
 */
export class Mesh {
  readonly #id: number
  readonly #info: Info
  readonly #open = new Set<Subscription | Service>()
  readonly #queues = new Map<string, Queue>()
  readonly #workers = new Set<Worker>()
  readonly #calls = new Calls()
  /** The end of what waits to be published, in order. */
  #lane: Promise<unknown> = Promise.resolve()
  #inLane = 0
  #closed = false
  #closing: Promise<void> | undefined

  /** @internal */
  constructor(id: number) {
    this.#id = id
    this.#info = JSON.parse(native.info(id)) as Info
  }

  /** Whether this process is the host of the directory or one of its clients. */
  get role(): 'host' | 'client' {
    return this.#info.role
  }

  /** The number of this client's session; 0 for the host. */
  get session(): number {
    return this.#info.session
  }

  /** The directory, unless the mesh is reached by TCP. */
  get directory(): string | undefined {
    return this.#info.directory ?? undefined
  }

  /** The host's process. */
  get hostPid(): number {
    return this.#info.hostPid
  }

  /** The largest payload. */
  get maxMessageBytes(): number {
    return this.#info.maxMessageBytes
  }

  /** Whether it was closed, or the session with the host has ended. */
  get isClosed(): boolean {
    return this.#closed || native.isClosed(this.#id)
  }

  /**
   * Publishes one event and returns its id.
   *
   * Returns when the event is on its way, at most some milliseconds later.
   *
   * @throws FlowMeshError `TIMEOUT`: there is no room, the receivers are slower than this process: use
   * `publishWait`. `FULL`: earlier events still wait for room. `TOO_LARGE`, `INVALID_ARGUMENT`, `CLOSED`,
   * `DISCONNECTED`.
   */
  publish(subject: string, payload: Payload, options?: PublishOptions): bigint {
    const operation = 'mesh.publish'
    if (this.#inLane > 0) throw new FlowMeshError('FULL', operation, { waiting: String(this.#inLane) })
    check.text(operation, 'subject', subject)
    if (options === undefined && types.isUint8Array(payload)) return native.publish(this.#handle(operation), subject, payload)
    const encoded = encode(operation, payload)
    const shared = publishArguments(operation, check.options(operation, options, PUBLISH), encoded.contentType)
    return native.publish(this.#handle(operation), subject, encoded.payload, ...shared)
  }

  /**
   * Publishes one event, waits for room, and resolves to its id.
   *
   * Events of one mesh keep their order, whether or not each is awaited.
   *
   * @throws FlowMeshError `TIMEOUT`: no room in time. `TOO_LARGE`, `INVALID_ARGUMENT`, `CLOSED`, `DISCONNECTED`.
   */
  async publishWait(subject: string, payload: Payload, options?: PublishWaitOptions): Promise<bigint> {
    const operation = 'mesh.publish'
    check.text(operation, 'subject', subject)
    const given = check.options(operation, options, PUBLISH_WAIT)
    const encoded = encode(operation, payload)
    const shared = publishArguments(operation, given, encoded.contentType)
    const timeoutMs = waitMs(operation, given.timeoutMs)
    const begin = () => native.startPublish(this.#handle(operation), subject, encoded.payload, ...shared, timeoutMs)
    return BigInt((await this.#inOrder(operation, given.signal, begin))!)
  }

  /**
   * Publishes many events in order, waits for room, and resolves when all are on their way. All are checked before
   * the first is sent. The payloads of one call are of one kind: bytes, text or JSON.
   *
   * ```js
   * await mesh.publishMany('ticks', prices.map(price => ({ price })))
   * await mesh.publishMany([['orders.created', order], ['mail.queued', mail]])
   * ```
   *
   * @throws FlowMeshError As `publishWait`; `context.published` says how many, from the first on, were sent before.
   */
  async publishMany(subject: string, payloads: readonly Payload[], options?: PublishWaitOptions): Promise<void>
  async publishMany(events: readonly (readonly [subject: string, payload: Payload])[], options?: PublishWaitOptions): Promise<void>
  async publishMany(
    first: string | readonly (readonly [string, Payload])[],
    second?: readonly Payload[] | PublishWaitOptions,
    third?: PublishWaitOptions,
  ): Promise<void> {
    const operation = 'mesh.publish_many'
    const oneSubject = typeof first === 'string'
    const list = oneSubject ? second : first
    if (!Array.isArray(list)) throw check.invalid(operation, 'events', list, 'must be an array')
    const given = check.options(operation, oneSubject ? third : (second as PublishWaitOptions | undefined), PUBLISH_WAIT)
    if (list.length === 0) return
    const [packed, contentType] = oneSubject
      ? pack(operation, list.length, () => first, at => list[at] as Payload)
      : pack(operation, list.length, at => pair(operation, list[at])[0], at => pair(operation, list[at])[1])
    const shared = publishArguments(operation, given, contentType)
    const timeoutMs = waitMs(operation, given.timeoutMs)
    const begin = () => native.startPublishMany(this.#handle(operation), packed, packed.length, ...shared, timeoutMs)
    await this.#inOrder(operation, given.signal, begin)
  }

  /** Runs a job that publishes after those before it. */
  async #inOrder(operation: string, given: Signal | undefined, begin: () => number): Promise<string | undefined> {
    const signal = check.optional(given, value => check.signal(operation, value))
    this.#handle(operation)
    this.#inLane += 1
    const before = this.#lane
    const run = async (): Promise<string | undefined> => {
      await before
      try {
        if (signal?.aborted === true) throw signal.reason
        return await job(begin())
      } finally {
        this.#inLane -= 1
      }
    }
    const published = run()
    this.#lane = published.catch(() => {})
    return signal === undefined ? published : unless(signal, published, () => {})
  }

  /**
   * Subscribes to the subjects that match `pattern`: `'orders.*'` stands for one token, `'logs.>'` for all that
   * follow. With a handler each event is passed to it, one at a time; when it throws or rejects, the event has
   * failed and `retry` says what happens.
   *
   * Waits some milliseconds for the host; see `Subscription.ready`.
   *
   * @throws FlowMeshError `INVALID_ARGUMENT`, `CLOSED`, `DISCONNECTED`, `PERMISSION_DENIED`.
   */
  subscribe(pattern: string, handler: EventHandler): Subscription
  subscribe(pattern: string, options?: SubscribeOptions, handler?: EventHandler): Subscription
  subscribe(pattern: string, second?: SubscribeOptions | EventHandler, third?: EventHandler): Subscription {
    const operation = 'mesh.subscribe'
    check.text(operation, 'pattern', pattern)
    const [options, handler] = typeof second === 'function' ? [undefined, second] : [second, third]
    check.optional(handler, value => check.callable(operation, 'handler', value))
    const given = check.options(operation, options, SUBSCRIBE)
    const signal = check.optional(given.signal, value => check.signal(operation, value))
    if (signal?.aborted === true) throw signal.reason
    const id = native.subscribe(this.#handle(operation), pattern, JSON.stringify(subscribing(operation, given)))
    const keep = given.retry !== undefined || handler !== undefined
    const made = settled(id)
    const subscription = new Subscription(id, pattern, keep, made, ended => {
      this.#open.delete(ended)
      signal?.removeEventListener('abort', abort)
    })
    const abort = (): void => subscription.end(signal!.reason)
    signal?.addEventListener('abort', abort, { once: true })
    this.#open.add(subscription)
    if (handler !== undefined) void subscription.run(handler)
    return subscription
  }

  /**
   * Serves calls of `name`: `handler` is called with each request, at most `concurrency` at once.
   *
   * Waits some milliseconds for the host; see `Service.ready`.
   *
   * @throws FlowMeshError `INVALID_ARGUMENT`, `CLOSED`, `DISCONNECTED`, `PERMISSION_DENIED`.
   */
  serve(name: string, handler: CallHandler, options?: ServeOptions): Service {
    const operation = 'mesh.serve'
    check.text(operation, 'name', name)
    check.callable(operation, 'handler', handler)
    const given = check.options(operation, options, ['version', 'concurrency', 'queue', 'rate', 'burst'])
    const whole = (field: 'concurrency' | 'queue' | 'burst', min: number, max: number) =>
      check.optional(given[field], value => check.integer(operation, field, value, min, max))
    const serving = {
      version: check.optional(given.version, value => check.text(operation, 'version', value)),
      concurrency: whole('concurrency', 1, 65_536),
      queue: whole('queue', 0, 1_048_576),
      rate: check.optional(given.rate, value => check.number(operation, 'rate', value, 1e-6, 1e7)),
      burst: whole('burst', 1, 1_000_000),
    }
    const id = native.serve(this.#handle(operation), name, JSON.stringify(serving))
    const made = settled(id)
    const service = new Service(id, name, handler, serving.concurrency ?? 1, made, ended => this.#open.delete(ended))
    this.#open.add(service)
    return service
  }

  /**
   * Calls a service and resolves to its answer.
   *
   * @throws FlowMeshError `NO_SERVICE`; `HANDLER_FAILED` with the handler's `context.type` and `context.message`;
   * `TIMEOUT`; `PEER_GONE`: the instance died; `RATE_LIMITED`, `CIRCUIT_OPEN`, `FULL`; `TOO_LARGE`, `CLOSED`,
   * `DISCONNECTED`. The reason of a signal that was aborted.
   */
  async call(name: string, payload: Payload, options?: CallOptions): Promise<Message> {
    const operation = 'mesh.call'
    check.text(operation, 'name', name)
    const given = check.options(operation, options, ['headers', 'timeoutMs', 'signal'])
    const encoded = encode(operation, payload)
    const headers = flatHeaders(operation, given.headers, encoded.contentType)
    const timeoutMs = given.timeoutMs === undefined ? 30_000 : check.number(operation, 'timeoutMs', given.timeoutMs, 0, check.TIME_MS_MAX)
    const signal = check.optional(given.signal, value => check.signal(operation, value))
    if (signal?.aborted === true) throw signal.reason
    const mesh = this.#handle(operation)
    if (encoded.payload.length <= SMALL_BYTES) {
      // Nothing is awaited before the bytes are copied: the caller may reuse them, and calls keep their order.
      const answer = this.#calls.answer(native.call(mesh, name, encoded.payload, headers, timeoutMs), name, timeoutMs, signal)
      if (!isTurnOver()) return answer
      // It may fail during the turn; whoever awaits this call sees that.
      answer.catch(() => {})
      await nextTurn()
      return answer
    }
    const id = native.startCall(mesh, name, encoded.payload, headers, timeoutMs)
    const started = job(id)
    await (signal === undefined ? started : unless(signal, started, () => native.cancelCall(id)))
    return this.#calls.answer(id, name, timeoutMs, signal)
  }

  /**
   * Makes sure that there is a queue of this name, and gives it. What the settings leave out is as by default.
   *
   * @throws FlowMeshError `CONFLICT`: it is there with other settings; names the first that differs, and both values.
   * `INVALID_ARGUMENT`: names value and limit. `STORAGE_FULL`, `FROZEN`, `IO`, `CLOSED`, `DISCONNECTED`.
   */
  async declareQueue(name: string, config?: QueueConfig): Promise<Queue> {
    const operation = 'mesh.declare_queue'
    const settings = JSON.stringify(configJson(operation, config))
    check.text(operation, 'name', name)
    const mesh = this.#handle(operation)
    return this.#queue(name, await whenAnswered(native.declareQueue(mesh, name, settings), answer => json<number>(answer)))
  }

  /**
   * The queue of this name.
   *
   * @throws FlowMeshError `NOT_FOUND`: nobody declared it.
   */
  async queue(name: string): Promise<Queue> {
    const operation = 'mesh.queue'
    check.text(operation, 'name', name)
    const found = this.#queues.get(name)
    const mesh = this.#handle(operation)
    return found ?? this.#queue(name, await whenAnswered(native.findQueue(mesh, name), answer => json<number>(answer)))
  }

  #queue(name: string, id: number): Queue {
    const found = this.#queues.get(name)
    if (found !== undefined) {
      native.forgetQueue(id)
      return found
    }
    const queue = new Queue(id, name, this.role === 'host', operation => void this.#handle(operation))
    this.#queues.set(name, queue)
    return queue
  }

  /** The names of all queues. */
  async queues(): Promise<string[]> {
    return whenAnswered(native.queueNames(this.#handle('mesh.queues')), answer => json<string[]>(answer))
  }

  /**
   * Works on the jobs of a queue: `handler` is called with each, at most `concurrency` at once. What it returns is the
   * job's result; when it throws or rejects, the attempt has failed.
   *
   * ```js
   * await using worker = mesh.process('mail', async job => { await send(job.value) }, { concurrency: 50 })
   * ```
   *
   * The queue must be there; see `Worker.ready`.
   *
   * @throws FlowMeshError `INVALID_ARGUMENT`, `CLOSED`, `DISCONNECTED`.
   */
  process(queue: string | Queue, handler: JobHandler, options?: WorkerOptions): Worker {
    const operation = 'queue.process'
    this.#handle(operation)
    if (!(queue instanceof Queue)) check.text(operation, 'queue', queue)
    const [name, found] = queue instanceof Queue ? [queue.name, Promise.resolve(queue)] : [queue, this.queue(queue)]
    found.catch(() => {})
    const worker = new Worker(name, found, handler, options, ended => this.#workers.delete(ended))
    this.#workers.add(worker)
    return worker
  }

  /** Lists the services of the mesh with their instances. */
  async services(): Promise<ServiceInfo[]> {
    const json = await job(native.services(this.#handle('mesh.services')))
    const services = camelKeys(JSON.parse(json!)) as { name: string; instances: (Omit<InstanceInfo, 'instance'> & { instance: string })[] }[]
    return services.map(({ name, instances }) => {
      return { name, instances: instances.map(found => ({ ...found, instance: BigInt(found.instance) })) }
    })
  }

  /** Everything the host counts, at one moment. */
  async stats(): Promise<Stats> {
    return camelKeys(JSON.parse((await job(native.stats(this.#handle('mesh.stats'))))!)) as Stats
  }

  /**
   * Lets clients connect by TCP to `address`, `'127.0.0.1:7000'` (port 0 picks one), with a secret of at least 16
   * bytes. Only a host does. Resolves to the address.
   */
  async listenTcp(address: string, secret: Uint8Array | string): Promise<string> {
    const operation = 'mesh.listen_tcp'
    const where = check.text(operation, 'address', address)
    const key = secretBytes(operation, secret)
    return (await job(native.listenTcp(this.#handle(operation), where, key)))!
  }

  /**
   * Ends it with all its subscriptions, services, workers and calls. A host tells its clients. Jobs that are being
   * worked on are released; `worker.stop()` before it lets them finish.
   */
  close(): Promise<void> {
    if (!this.#closed) {
      this.#endEventsAndCalls()
      this.#closing = job(native.startCloseMesh(this.#id)).then(() => this.#endServices())
    }
    return this.#closing ?? Promise.resolve()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Closes it before it returns, which may take some milliseconds. */
  [Symbol.dispose](): void {
    if (this.#closed) return
    this.#endEventsAndCalls()
    native.closeMesh(this.#id)
    this.#endServices()
  }

  #endEventsAndCalls(): void {
    for (const queue of this.#queues.values()) queue.flush()
    for (const worker of [...this.#workers]) worker.end()
    for (const queue of this.#queues.values()) native.forgetQueue(queue.handle)
    this.#closed = true
    for (const opened of [...this.#open]) if (opened instanceof Subscription) opened.end(undefined)
    this.#calls.giveUp(new FlowMeshError('CLOSED', 'mesh.call'))
  }

  /** Once the session is over: a handler that stops because of it must not answer its caller with that. */
  #endServices(): void {
    for (const opened of [...this.#open]) if (opened instanceof Service) opened.end(undefined, true).catch(() => {})
  }

  #handle(operation: string): number {
    if (this.#closed) throw new FlowMeshError('CLOSED', operation)
    return this.#id
  }
}

/** Whether the native side has it already; an error of making it is thrown. */
function settled(id: number): boolean {
  if (!native.awaitJob(id, SYNC_WAIT_MS)) return false
  native.takeJob(id)
  return true
}

type Shared = [headers: string[] | undefined, priority: number, ttlMs: number, delayMs: number]

function publishArguments(operation: string, options: PublishOptions, contentType: string | undefined): Shared {
  const { headers, priority, ttlMs, delayMs } = options
  return [
    flatHeaders(operation, headers, contentType),
    priority === undefined ? 4 : check.integer(operation, 'priority', priority, 0, 9),
    ttlMs === undefined ? 0 : check.number(operation, 'ttlMs', ttlMs, 1, check.TIME_MS_MAX),
    delayMs === undefined ? 0 : check.number(operation, 'delayMs', delayMs, 0, check.TIME_MS_MAX),
  ]
}

function waitMs(operation: string, value: number | undefined): number {
  return value === undefined ? 30_000 : check.number(operation, 'timeoutMs', value, 0, check.TIME_MS_MAX)
}

function pair(operation: string, event: unknown): readonly [string, Payload] {
  if (Array.isArray(event) && event.length === 2) return event as unknown as [string, Payload]
  throw check.invalid(operation, 'event', event, 'must be a pair of subject and payload')
}

/** Lays events out as native/pack.rs reads them. */
function pack(
  operation: string,
  count: number,
  subjectAt: (at: number) => string,
  payloadAt: (at: number) => Payload,
): [packed: Buffer, contentType: string | undefined] {
  let packed = Buffer.allocUnsafeSlow(64 * 1024)
  let end = 0
  let contentType: string | undefined
  let lastSubject: string | undefined
  for (let at = 0; at < count; at++) {
    const subject = subjectAt(at)
    const { payload, contentType: type } = encode(operation, payloadAt(at))
    if (at === 0) contentType = type
    else if (type !== contentType) {
      throw check.invalid(operation, `payload ${at}`, kindOf(type), `must be ${kindOf(contentType)}, as the first of the call is`)
    }
    // UTF-8 takes at most three bytes for each unit of a string.
    const room = end + 8 + 3 * (subject === lastSubject ? 0 : check.text(operation, 'subject', subject).length) + (typeof payload === 'string' ? 3 : 1) * payload.length
    if (room > packed.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(room, packed.length * 2))
      packed.copy(larger, 0, 0, end)
      packed = larger
    }
    const subjectBytes = subject === lastSubject ? 0 : packed.write(subject, end + 8)
    if (at === 0 && subjectBytes === 0) throw check.invalid(operation, 'subject', subject, 'must not be empty')
    lastSubject = subject
    const payloadFrom = end + 8 + subjectBytes
    let payloadBytes
    if (typeof payload === 'string') payloadBytes = packed.write(payload, payloadFrom)
    else {
      packed.set(payload, payloadFrom)
      payloadBytes = payload.length
    }
    packed.writeUInt32LE(subjectBytes, end)
    packed.writeUInt32LE(payloadBytes, end + 4)
    end = payloadFrom + payloadBytes
  }
  return [packed.subarray(0, end), contentType]
}

function kindOf(contentType: string | undefined): string {
  return contentType === JSON_TYPE ? 'JSON' : contentType === TEXT_TYPE ? 'text' : 'bytes'
}

function subscribing(operation: string, given: SubscribeOptions): object {
  const whole = (name: 'priority' | 'capacity', min: number, max: number) =>
    check.optional(given[name], value => check.integer(operation, name, value, min, max))
  const { group, onSlow, blockTimeoutMs, retry } = given
  if (blockTimeoutMs !== undefined && onSlow !== 'block') {
    throw check.invalid(operation, 'blockTimeoutMs', blockTimeoutMs, "goes with onSlow: 'block' only")
  }
  return {
    group: check.optional(group, value => check.text(operation, 'group', value)),
    priority: whole('priority', -(2 ** 31), 2 ** 31 - 1),
    capacity: whole('capacity', 1, 1_048_576),
    onSlow: check.optional(onSlow, value => check.oneOf(operation, 'onSlow', value, ['drop-oldest', 'block', 'disconnect'])),
    blockTimeoutMs: check.optional(blockTimeoutMs, value => check.number(operation, 'blockTimeoutMs', value, 1, check.TIME_MS_MAX)),
    retry: check.optional(retry, value => retrying(operation, value)),
  }
}

function retrying(operation: string, retry: RetryOptions): object {
  const given = check.options(operation, retry, ['maxAttempts', 'backoffMs', 'backoffFactor', 'backoffMsMax', 'deadLetter'])
  const ms = (name: 'backoffMs' | 'backoffMsMax') =>
    check.optional(given[name], value => check.number(operation, `retry.${name}`, value, 0, check.TIME_MS_MAX))
  return {
    maxAttempts: check.optional(given.maxAttempts, value => check.integer(operation, 'retry.maxAttempts', value, 0, U32_MAX)),
    backoffMs: ms('backoffMs'),
    backoffFactor: check.optional(given.backoffFactor, value => check.number(operation, 'retry.backoffFactor', value, 1, 1000)),
    backoffMsMax: ms('backoffMsMax'),
    deadLetter: check.optional(given.deadLetter, value => check.text(operation, 'retry.deadLetter', value)),
  }
}

const PUBLISH = ['headers', 'priority', 'ttlMs', 'delayMs'] as const
const PUBLISH_WAIT = [...PUBLISH, 'timeoutMs', 'signal'] as const
const SUBSCRIBE = ['group', 'priority', 'capacity', 'onSlow', 'blockTimeoutMs', 'retry', 'signal'] as const
/**
 * The longest that subscribing and serving hold this thread until the host has answered, which takes it microseconds.
 * So long, that even on a busy machine an event published right after subscribing is seen.
 */
const SYNC_WAIT_MS = 1000
const U32_MAX = 2 ** 32 - 1
