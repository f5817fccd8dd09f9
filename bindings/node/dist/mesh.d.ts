import type { Message } from './message.js';
import { type CallHandler, Service } from './service.js';
import { type EventHandler, Subscription } from './subscription.js';
import type { FileUrl, Headers, Payload, Signal } from './types.js';
import type { ServiceInfo, Stats } from './stats.js';
/** How native threads wait for the other side: `adaptive` looks for `spinUs` before it sleeps (default, 5 µs). */
export type WaitStrategy = 'adaptive' | 'block' | 'spin' | {
    readonly spinUs: number;
} | {
    readonly intervalMs: number;
};
/** When calls to a service that fails are refused with `CIRCUIT_OPEN`. */
export interface BreakerOptions {
    /** Calls are looked at for this long. Default: 10 s. */
    readonly windowMs?: number;
    /** Fewer calls in the window than this open nothing. Default: 10. */
    readonly minCalls?: number;
    /** The share of calls without an answer that opens it, above 0 to 1. Default: 0.5. */
    readonly failureRatio?: number;
    /** How long it stays open the first time; doubles with each failed probe. Default: 1 s. */
    readonly openMs?: number;
    /** The longest it stays open. Default: 30 s. */
    readonly openMsMax?: number;
    /** Calls let through at once while it looks whether the service is back. Default: 1. */
    readonly probes?: number;
}
interface CommonOptions {
    /** Shown in discovery and errors. Default: the script's name. */
    readonly name?: string;
    readonly waitStrategy?: WaitStrategy;
    /** `false` turns it off. */
    readonly breaker?: BreakerOptions | boolean;
    /** Gives up; the promise is rejected with the signal's reason. */
    readonly signal?: Signal;
}
/** Options of `open`. */
export interface OpenOptions extends CommonOptions {
    /** The largest payload, 1 KiB to 1 GiB. Default: 64 MiB. */
    readonly maxMessageBytes?: number;
    /** Shared memory of a client in each direction: a power of two, 64 KiB to 64 MiB. Default: 1 MiB. */
    readonly ringBytes?: number;
    /** The most clients. Default: 1024. */
    readonly maxSessions?: number;
}
/** Options of `connect` and `connectTcp`. */
export interface ConnectOptions extends CommonOptions {
    /** How long connecting may take. Default: 5 s. */
    readonly timeoutMs?: number;
    /** `false` sends frames over the Unix socket instead. Default: true. */
    readonly sharedMemory?: boolean;
}
/** Options of `publish`. */
export interface PublishOptions {
    readonly headers?: Headers;
    /** 0 to 9; among the events that wait for a subscriber, higher ones are delivered first. Default: 4. */
    readonly priority?: number;
    /** It is not delivered any more after this time, 1 ms to 49 days. Default: never expires. */
    readonly ttlMs?: number;
    /** It is delivered after this time, at most 49 days. Default: at once. */
    readonly delayMs?: number;
}
/** Options of `publishWait` and `publishMany`. */
export interface PublishWaitOptions extends PublishOptions {
    /** The longest wait for room. Default: 30 s. */
    readonly timeoutMs?: number;
    /** Ends the wait; the promise is rejected with the signal's reason. What is under way may still be published. */
    readonly signal?: Signal;
}
/** Options of `subscribe`. */
export interface SubscribeOptions {
    /** Of all subscriptions with this group that match an event, one gets it. */
    readonly group?: string;
    /** Among the subscriptions that match, higher ones are handed the event first. Default: 0. */
    readonly priority?: number;
    /** Events that may wait for it, 1 to 1,048,576. Default: 1024. */
    readonly capacity?: number;
    /** What happens to an event when `capacity` others wait. Default: `'drop-oldest'`. */
    readonly onSlow?: 'drop-oldest' | 'block' | 'disconnect';
    /** With `onSlow: 'block'`, how long a publisher waits before the event is dropped. Default: 1 s. */
    readonly blockTimeoutMs?: number;
    /** What happens when handling fails. Default: the failure is counted. */
    readonly retry?: RetryOptions;
    /** Closes the subscription; what waits for it is rejected with the signal's reason. */
    readonly signal?: Signal;
}
/** How often and when an event that failed is delivered again. */
export interface RetryOptions {
    /** Deliveries in all, the first included, 1 to 1000. Default: 3. */
    readonly maxAttempts?: number;
    /** How long after the first failure. Default: 100 ms. */
    readonly backoffMs?: number;
    /** What each further failure multiplies it by, 1 to 1000. Default: 2. */
    readonly backoffFactor?: number;
    /** The longest. Default: 30 s. */
    readonly backoffMsMax?: number;
    /** Where an event goes that failed `maxAttempts` times, with headers that say why. Default: nowhere. */
    readonly deadLetter?: string;
}
/** Options of `serve`. */
export interface ServeOptions {
    /** Free text that discovery shows, at most 255 bytes. */
    readonly version?: string;
    /** Calls it takes at once, 1 to 65,536. Default: 1. */
    readonly concurrency?: number;
    /** Calls that may wait for it, at most 1,048,576. Default: 1024. */
    readonly queue?: number;
    /** The most calls a second of the service, all its instances together. Default: no limit. */
    readonly rate?: number;
    /** With `rate`, calls at once after a rest, 1 to a million. Default: those of one second. */
    readonly burst?: number;
}
/** Options of `call`. */
export interface CallOptions {
    readonly headers?: Headers;
    /** The call's deadline, counted from now; it travels with the call. Default: 30 s. */
    readonly timeoutMs?: number;
    /** Cancels the call; the promise is rejected with the signal's reason. */
    readonly signal?: Signal;
}
/**
 * Opens the directory as its host, and makes it when there is none.
 *
 * ```js
 * await using mesh = await open('./data')
 * mesh.serve('text.upper', request => request.text.toUpperCase())
 * ```
 *
 * @throws FlowMeshError `ALREADY_OPEN`: another process is its host; `context.pid` names it.
 */
export declare function open(directory: string | FileUrl, options?: OpenOptions): Promise<Mesh>;
/**
 * Connects to the host of the directory.
 *
 * @throws FlowMeshError `NOT_FOUND`: no directory or no host; `PERMISSION_DENIED`; `VERSION_MISMATCH`; `TIMEOUT`.
 */
export declare function connect(directory: string | FileUrl, options?: ConnectOptions): Promise<Mesh>;
/**
 * Connects to a host that listens on TCP, at `'127.0.0.1:7000'`, with the secret both sides know.
 *
 * @throws FlowMeshError `UNAUTHENTICATED`: the secret is not the host's; `DISCONNECTED`: nobody listens there.
 */
export declare function connectTcp(address: string, secret: Uint8Array | string, options?: ConnectOptions): Promise<Mesh>;
/**
 * A mesh of processes: the host of a directory, or one of its clients. Both have the same operations.
 *
 * Open alone it does not keep the process alive: subscriptions, services and calls under way do.
 */
export declare class Mesh {
    #private;
    /** Whether this process is the host of the directory or one of its clients. */
    get role(): 'host' | 'client';
    /** The number of this client's session; 0 for the host. */
    get session(): number;
    /** The directory, unless the mesh is reached by TCP. */
    get directory(): string | undefined;
    /** The host's process. */
    get hostPid(): number;
    /** The largest payload. */
    get maxMessageBytes(): number;
    /** Whether it was closed, or the session with the host has ended. */
    get isClosed(): boolean;
    /**
     * Publishes one event and returns its id.
     *
     * Returns when the event is on its way, at most some milliseconds later.
     *
     * @throws FlowMeshError `TIMEOUT`: there is no room, the receivers are slower than this process: use
     * `publishWait`. `FULL`: earlier events still wait for room. `TOO_LARGE`, `INVALID_ARGUMENT`, `CLOSED`,
     * `DISCONNECTED`.
     */
    publish(subject: string, payload: Payload, options?: PublishOptions): bigint;
    /**
     * Publishes one event, waits for room, and resolves to its id.
     *
     * Events of one mesh keep their order, whether or not each is awaited.
     *
     * @throws FlowMeshError `TIMEOUT`: no room in time. `TOO_LARGE`, `INVALID_ARGUMENT`, `CLOSED`, `DISCONNECTED`.
     */
    publishWait(subject: string, payload: Payload, options?: PublishWaitOptions): Promise<bigint>;
    /**
     * Publishes many events in order, waits for room, and resolves when all are on their way. All are checked before
     * the first is sent. The payloads of one call are of one kind: bytes, text or JSON.
     *
     * ```js
     * await mesh.publishMany('ticks', prices.map(price => ({ price })))
     * await mesh.publishMany([['orders.created', order], ['mail.queued', mail]])
     * ```
     *
     * @throws FlowMeshError As `publishWait`. After `TIMEOUT`, the first events may have been sent.
     */
    publishMany(subject: string, payloads: readonly Payload[], options?: PublishWaitOptions): Promise<void>;
    publishMany(events: readonly (readonly [subject: string, payload: Payload])[], options?: PublishWaitOptions): Promise<void>;
    /**
     * Subscribes to the subjects that match `pattern`: `'orders.*'` stands for one token, `'logs.>'` for all that
     * follow. With a handler each event is passed to it, one at a time; when it throws or rejects, the event has
     * failed and `retry` says what happens.
     *
     * Waits some milliseconds for the host; see `Subscription.ready`.
     *
     * @throws FlowMeshError `INVALID_ARGUMENT`, `CLOSED`, `DISCONNECTED`, `PERMISSION_DENIED`.
     */
    subscribe(pattern: string, handler: EventHandler): Subscription;
    subscribe(pattern: string, options?: SubscribeOptions, handler?: EventHandler): Subscription;
    /**
     * Serves calls of `name`: `handler` is called with each request, at most `concurrency` at once.
     *
     * Waits some milliseconds for the host; see `Service.ready`.
     *
     * @throws FlowMeshError `INVALID_ARGUMENT`, `CLOSED`, `DISCONNECTED`, `PERMISSION_DENIED`.
     */
    serve(name: string, handler: CallHandler, options?: ServeOptions): Service;
    /**
     * Calls a service and resolves to its answer.
     *
     * @throws FlowMeshError `NO_SERVICE`; `HANDLER_FAILED` with the handler's `context.type` and `context.message`;
     * `TIMEOUT`; `PEER_GONE`: the instance died; `RATE_LIMITED`, `CIRCUIT_OPEN`, `FULL`; `TOO_LARGE`, `CLOSED`,
     * `DISCONNECTED`. The reason of a signal that was aborted.
     */
    call(name: string, payload: Payload, options?: CallOptions): Promise<Message>;
    /** Lists the services of the mesh with their instances. */
    services(): Promise<ServiceInfo[]>;
    /** Everything the host counts, at one moment. */
    stats(): Promise<Stats>;
    /**
     * Lets clients connect by TCP to `address`, `'127.0.0.1:7000'` (port 0 picks one), with a secret of at least 16
     * bytes. Only a host does. Resolves to the address.
     */
    listenTcp(address: string, secret: Uint8Array | string): Promise<string>;
    /** Ends it with all its subscriptions, services and calls. A host tells its clients. */
    close(): Promise<void>;
    [Symbol.asyncDispose](): Promise<void>;
    /** Closes it before it returns, which may take some milliseconds. */
    [Symbol.dispose](): void;
}
export {};
