// What the host counts, as plain data: core/src/stats.rs in JavaScript's spelling.
//
// Counts are numbers, exact up to 2^53; ids are `bigint`.

import type { SubscriptionStats } from './subscription.js'

/** Everything one mesh counts, taken at one moment. */
export interface Stats {
  readonly uptimeMs: number
  readonly bus: BusStats
  readonly subscriptions: readonly SubscriptionStats[]
  readonly services: readonly ServiceStats[]
  readonly sessions: readonly SessionStats[]
  readonly protocolViolations: number
  readonly handshakesRefused: number
}

/** Counts over all events since the host opened. */
export interface BusStats {
  readonly published: number
  readonly publishedBytes: number
  readonly delivered: number
  readonly deliveredBytes: number
  readonly dropped: number
  readonly expired: number
  readonly unmatched: number
  readonly delayed: number
  readonly blocked: number
}

/** One service, over all its instances. */
export interface ServiceStats {
  readonly name: string
  readonly instances: number
  readonly calls: number
  readonly failed: number
  readonly timedOut: number
  readonly cancelled: number
  readonly peerGone: number
  readonly rateLimited: number
  readonly refused: number
  readonly inFlight: number
  readonly depth: number
  readonly requestBytes: number
  readonly responseBytes: number
  readonly latency: Latency
}

/** How long calls took, from the host's accepting one to its answer. */
export interface Latency {
  readonly count: number
  readonly meanNs: number
  readonly maxNs: number
  readonly p50Ns: number
  readonly p90Ns: number
  readonly p99Ns: number
  readonly p999Ns: number
}

/** One session. */
export interface SessionStats {
  readonly session: number
  readonly name: string
  readonly language: string
  readonly version: string
  readonly pid: number
  /** `'shm'`, `'unix'` or `'tcp'`. */
  readonly transport: string
  readonly framesIn: number
  readonly bytesIn: number
  readonly framesOut: number
  readonly bytesOut: number
  readonly backlogBytes: number
}

/** A service as discovery lists it. */
export interface ServiceInfo {
  readonly name: string
  readonly instances: readonly InstanceInfo[]
}

/** One instance of a service. */
export interface InstanceInfo {
  /** Its number, unique on the mesh. */
  readonly instance: bigint
  readonly version: string
  /** Its session; 0 is the host itself. */
  readonly session: number
  readonly pid: number
  /** The name its client gave. */
  readonly client: string
  readonly outstanding: number
  readonly concurrency: number
  readonly latencyP50Ns: number
  readonly latencyP99Ns: number
}
