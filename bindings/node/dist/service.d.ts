import { type Message } from './message.js';
import type { Headers, Payload, Signal } from './types.js';
/** What a handler knows of a call beside the request. */
export interface CallContext {
    /** Aborted when nobody waits for the answer any more: the caller gave up or died, the deadline passed. */
    readonly signal: Signal;
    /** Milliseconds to the caller's deadline when the handler was called. */
    readonly remainingMs: number;
}
/**
 * Answers a call with what it returns or resolves to; nothing is an empty answer. When it throws or rejects, the
 * caller gets `HANDLER_FAILED` with the error's name and message.
 */
export type CallHandler = (request: Message, context: CallContext) => Payload | Reply | void | Promise<Payload | Reply | void>;
/** An answer with headers. */
export declare class Reply {
    readonly payload: Payload;
    readonly headers: Headers;
    constructor(payload: Payload, options?: {
        readonly headers?: Headers;
    });
}
/**
 * An instance of a service. While it is open it keeps the process alive, unless `unref()` was called.
 */
export declare class Service {
    #private;
    /** The service's name. */
    readonly name: string;
    /** Settles when the host has it; see `Subscription.ready`. */
    readonly ready: Promise<void>;
    /** Resolves when it is over: with `undefined` when it was closed here, else with the reason. */
    readonly closed: Promise<unknown>;
    /** While it is open it keeps the process alive. That is so from the start. */
    ref(): this;
    /** It does not keep the process alive any more. */
    unref(): this;
    /** Whether it is over. */
    get isClosed(): boolean;
    /** Ends the serving: no further calls come. Handlers that run may still answer. */
    close(): Promise<void>;
    [Symbol.asyncDispose](): Promise<void>;
}
