/// <reference lib="esnext.disposable" preserve="true" />
// The package `flowmesh`, for `require`. `index.mts` gives the same objects to `import`.

export { type ErrorCode, type ErrorKind, errorKinds, FlowMeshError } from './errors.js'
export { type Damage, inspect, type Inspection } from './inspect.js'
export { type CallSafety, Content, Job, type NackOptions, type NextOptions, Reject, Snooze } from './job.js'
export { Message } from './message.js'
export {
  type BreakerOptions,
  type CallOptions,
  connect,
  type ConnectOptions,
  connectTcp,
  Mesh,
  open,
  type OpenOptions,
  type PublishOptions,
  type PublishWaitOptions,
  type RetryOptions,
  type ServeOptions,
  type SubscribeOptions,
  type WaitStrategy,
} from './mesh.js'
export {
  type Failure,
  type JobInfo,
  type JobState,
  type Listed,
  type ListOptions,
  type NewJob,
  Queue,
  type QueueStats,
  type ReserveOptions,
  type ScheduleInfo,
} from './queue.js'
export type {
  EnqueueOptions,
  JobOptions,
  Keep,
  QueueBackoff,
  QueueConfig,
  Rate,
  ScheduleOptions,
  Unique,
} from './queue-options.js'
export { type CallContext, type CallHandler, Reply, Service } from './service.js'
export type { BusStats, InstanceInfo, Latency, ServiceInfo, ServiceStats, SessionStats, Stats } from './stats.js'
export { type EventHandler, type ReceiveOptions, Subscription, type SubscriptionStats } from './subscription.js'
export type { Durability, Headers, Payload, Reached, Receipt, Signal } from './types.js'
export { type JobHandler, type StopOptions, Worker, type WorkerOptions, type WorkerStats } from './worker.js'
