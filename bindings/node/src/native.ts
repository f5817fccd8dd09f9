// The native side: numbers for objects, batches in shared memory. native/calls.rs has the same list.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { FlowMeshError } from './errors.js'

/** Records: bytes in the scratch memory (a multiple of 8) plus 1 when more may wait, or one large record. */
export type Batch = number | Buffer

/**
 * An answer of queues. Below zero: it is pending under this number, negated, which is announced. Else bytes in the
 * scratch memory, or a durability; JSON; or the bytes that the scratch memory has no room for.
 */
export type QueueAnswer = number | string | Buffer

export interface Native {
  start(wake: () => void, makeError: (...texts: string[]) => Error, scratch: Uint8Array): void
  /** Lets what is open keep the process alive, or not. */
  hold(held: boolean): void
  kinds(): string
  /** How many objects became ready; their numbers are in the scratch memory, as doubles. */
  ready(): number
  /** Waits at most `ms` for the end of a job; tells whether it ended. */
  awaitJob(job: number, ms: number): boolean
  /** The result of a job that ended. What it made is known by the job's number from now on. */
  takeJob(job: number): string | undefined

  // These start a job and return its number.
  open(dir: string, options: string): number
  connect(dir: string, options: string): number
  connectTcp(address: string, secret: Uint8Array, options: string): number
  listenTcp(mesh: number, address: string, secret: Uint8Array): number
  services(mesh: number): number
  stats(mesh: number): number
  subscribe(mesh: number, pattern: string, options: string): number
  serve(mesh: number, name: string, options: string): number
  startCloseMesh(mesh: number): number
  startPublish(
    mesh: number,
    subject: string,
    payload: Uint8Array | string,
    headers: readonly string[] | undefined,
    priority: number,
    ttlMs: number,
    delayMs: number,
    timeoutMs: number,
  ): number
  startPublishMany(
    mesh: number,
    packed: Uint8Array,
    bytes: number,
    headers: readonly string[] | undefined,
    priority: number,
    ttlMs: number,
    delayMs: number,
    timeoutMs: number,
  ): number
  startReply(...reply: Parameters<Native['reply']>): number
  startCloseService(service: number): number
  /** What it made is the call itself, as `call` does. */
  startCall(...call: Parameters<Native['call']>): number
  startFail(subscription: number, key: number, type: string, message: string): number

  info(mesh: number): string
  isClosed(mesh: number): boolean
  closeMesh(mesh: number): void

  publish(
    mesh: number,
    subject: string,
    payload: Uint8Array | string,
    headers?: readonly string[],
    priority?: number,
    ttlMs?: number,
    delayMs?: number,
  ): bigint

  subscriptionStats(subscription: number): string
  closeSubscription(subscription: number): void
  drain(subscription: number, max: number, keep: boolean): Batch
  release(subscription: number, key: number): void

  next(service: number, max: number): Batch
  /** Waits at most `us` for a request, and tells whether one waits. */
  linger(service: number, us: number): boolean
  reply(request: number, payload: Uint8Array | string, headers?: readonly string[]): void
  failRequest(request: number, type: string, message: string): void
  watchCancel(request: number): void

  call(
    mesh: number,
    service: string,
    payload: Uint8Array | string,
    headers: readonly string[] | undefined,
    timeoutMs: number,
  ): number
  takeCall(call: number): Batch | undefined
  /** As `takeCall`, waiting at most `us`. */
  awaitCall(call: number, us: number): Batch | undefined
  /** From now on the answer is announced. */
  watchCall(call: number): void
  cancelCall(call: number): void

  /** The answer is the number that the queue is known by. */
  declareQueue(mesh: number, name: string, config: string): QueueAnswer
  findQueue(mesh: number, name: string): QueueAnswer
  queueNames(mesh: number): QueueAnswer
  forgetQueue(queue: number): void
  // A durability is 0 for what the queue says, -1 for `os`, -2 for `fsync`, above 0 an interval in milliseconds.
  askQueue(queue: number, asking: string, durability: number): QueueAnswer
  schedule(queue: number, schedule: string, payload: Uint8Array | string, durability: number): QueueAnswer
  enqueueJobs(queue: number, packed: Uint8Array, bytes: number, durability: number): QueueAnswer
  /** A job; when it has ended, `watchReply` has its answer announced under the same number. */
  startEnqueueJobs(queue: number, packed: Uint8Array, bytes: number, durability: number): number
  /** A lease below 0 is none, a timeout below 0 for ever; `keep` has the leases extended until the jobs are settled. */
  reserve(queue: number, most: number, leaseMs: number, timeoutMs: number, durability: number, keep: boolean): QueueAnswer
  checkLease(leaseMs: number): void
  /** Acks the jobs whose keys are in the scratch memory, as doubles; `sparing` leaves out those that were cancelled. */
  ackJobs(count: number, durability: number, sparing: boolean): QueueAnswer
  /** The same, leaving out those that were cancelled; then jobs are reserved as `reserve` does, without waiting. */
  ackAndReserve(queue: number, count: number, most: number, leaseMs: number, durability: number): QueueAnswer
  /** Acks one job and reserves one of its queue, whose lease is not extended; answered as `ackAndReserve`. */
  ackAndReserveOne(job: number, result: Uint8Array | string | undefined, leaseMs: number, durability: number): QueueAnswer
  settle(
    job: number,
    how: number,
    first: Uint8Array | string | undefined,
    detail: string | undefined,
    delayMs: number,
    durability: number,
  ): QueueAnswer
  extend(job: number, leaseMs: number): QueueAnswer
  progress(job: number, told: Uint8Array | string): QueueAnswer
  remaining(job: number): number
  isCancelled(job: number): boolean
  watchJob(job: number): void
  forgetJob(job: number): void
  takeReply(reply: number): QueueAnswer
  /** As `takeReply`, waiting at most `us`. */
  awaitReply(reply: number, us: number): QueueAnswer
  watchReply(reply: number): void
  cancelReply(reply: number): void
  /** A job. */
  inspect(dir: string): number
}

function load(): Native {
  const file = join(__dirname, '..', `flowmesh.${process.platform}-${process.arch}.node`)
  if (!existsSync(file)) {
    throw new FlowMeshError('UNSUPPORTED', 'flowmesh.load', { file, rule: 'run `npm run build` in the package' })
  }
  try {
    return require(file) as Native
  } catch (cause) {
    throw new FlowMeshError('UNSUPPORTED', 'flowmesh.load', { file, reason: String(cause) }, { cause })
  }
}

export const native: Native = load()
