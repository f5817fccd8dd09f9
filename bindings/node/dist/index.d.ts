/// <reference lib="esnext.disposable" preserve="true" />
export { type ErrorCode, type ErrorKind, errorKinds, FlowMeshError } from './errors.js';
export { Message } from './message.js';
export { type BreakerOptions, type CallOptions, connect, type ConnectOptions, connectTcp, Mesh, open, type OpenOptions, type PublishOptions, type PublishWaitOptions, type RetryOptions, type ServeOptions, type SubscribeOptions, type WaitStrategy, } from './mesh.js';
export { type CallContext, type CallHandler, Reply, Service } from './service.js';
export type { BusStats, InstanceInfo, Latency, ServiceInfo, ServiceStats, SessionStats, Stats } from './stats.js';
export { type EventHandler, type ReceiveOptions, Subscription, type SubscriptionStats } from './subscription.js';
export type { Headers, Payload, Signal } from './types.js';
