import { type Message } from './message.js';
import type { Signal } from './types.js';
/** How long to wait for an event. */
export interface ReceiveOptions {
    /** The longest wait in milliseconds; 0 only looks. Default: for ever. */
    readonly timeoutMs?: number | undefined;
    /** Ends the wait; the promise is rejected with the signal's reason. */
    readonly signal?: Signal | undefined;
}
/** Called with each event, one at a time. When it throws or rejects, the event has failed. */
export type EventHandler = (message: Message) => unknown;
/** What a subscription counted so far. */
export interface SubscriptionStats {
    readonly pattern: string;
    readonly group: string;
    readonly session: number;
    readonly delivered: number;
    readonly deliveredBytes: number;
    readonly dropped: number;
    readonly depth: number;
}
/**
 * Events that match a pattern.
 *
 * While it is open it keeps the process alive, unless `unref()` was called. Breaking out of a `for await` loop
 * leaves it open; `close()` or `using` ends it.
 *
 * ```js
 * using orders = mesh.subscribe('orders.*')
 * for await (const order of orders) console.log(order.subject, order.value)
 * ```
 */
export declare class Subscription implements AsyncIterable<Message> {
    #private;
    /** The pattern it was made with. */
    readonly pattern: string;
    /**
     * Settles when the host has it. That is so when `subscribe` returns, unless the host was slow to answer: then
     * subscribing goes on, and an error of it is that of `ready` and of every `receive`.
     */
    readonly ready: Promise<void>;
    /** Resolves when it is over: with `undefined` when it was closed here, else with the reason. */
    readonly closed: Promise<unknown>;
    /**
     * The next event.
     *
     * @throws FlowMeshError `TIMEOUT`, `CLOSED`, `DISCONNECTED` (the host is gone), `SLOW_CONSUMER` (it fell behind,
     * with `onSlow: 'disconnect'`); the reason of a signal that was aborted.
     */
    receive(options?: ReceiveOptions): Promise<Message>;
    /**
     * Waits for an event, then takes all that wait, at most `max`.
     *
     * @throws As `receive`.
     */
    receiveMany(max: number, options?: ReceiveOptions): Promise<Message[]>;
    /** The events that wait now, at most `max`. Never waits. */
    drain(max?: number): Message[];
    /**
     * Handling `message` failed: it is delivered again after a backoff, and after the last attempt published to the
     * dead-letter subject, as the subscription's `retry` says; without one the failure is counted. A subscription with
     * a handler does this itself.
     *
     * @throws FlowMeshError `INVALID_ARGUMENT`: the message is settled already or of another subscription; without
     * `retry`, it is not the last that was taken.
     */
    fail(message: Message, error: unknown): Promise<void>;
    /** Each event, until it is closed here. A loop ends with an error when the subscription does. */
    [Symbol.asyncIterator](): AsyncIterator<Message, undefined>;
    /** What it counted so far, without asking the host. */
    stats(): SubscriptionStats;
    /** While it is open it keeps the process alive. That is so from the start. */
    ref(): this;
    /** It does not keep the process alive any more. */
    unref(): this;
    /** Whether it is over. */
    get isClosed(): boolean;
    /** Ends it. Waiting calls are rejected with `CLOSED`, loops end. */
    close(): void;
    [Symbol.dispose](): void;
    [Symbol.asyncDispose](): Promise<void>;
}
