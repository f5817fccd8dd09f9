"use strict";
// Subscriptions: where events arrive.
Object.defineProperty(exports, "__esModule", { value: true });
exports.Subscription = void 0;
exports.describeFailure = describeFailure;
exports.camelKeys = camelKeys;
const check_js_1 = require("./check.js");
const errors_js_1 = require("./errors.js");
const loop_js_1 = require("./loop.js");
const message_js_1 = require("./message.js");
const native_js_1 = require("./native.js");
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
class Subscription {
    /** The pattern it was made with. */
    pattern;
    /**
     * Settles when the host has it. That is so when `subscribe` returns, unless the host was slow to answer: then
     * subscribing goes on, and an error of it is that of `ready` and of every `receive`.
     */
    ready;
    /** Resolves when it is over: with `undefined` when it was closed here, else with the reason. */
    closed;
    #id;
    #keep;
    #onEnd;
    #waiters = [];
    #state = 'starting';
    /** Why it is over; `undefined` when it was closed here. */
    #reason;
    #resolveClosed;
    #held = true;
    #handled = false;
    #subject = '';
    /** @internal `made` says whether the native side has it already; else it is a job under way. */
    constructor(id, pattern, keep, made, onEnd) {
        this.#id = id;
        this.pattern = pattern;
        this.#keep = keep;
        this.#onEnd = onEnd;
        this.closed = new Promise(resolve => (this.#resolveClosed = resolve));
        (0, loop_js_1.hold)();
        this.ready = made ? Promise.resolve(this.#open()) : (0, loop_js_1.job)(id).then(() => this.#open(), error => this.#fail(error));
        this.ready.catch(() => { });
    }
    #open() {
        if (this.#state === 'over')
            return native_js_1.native.closeSubscription(this.#id);
        this.#state = 'open';
        (0, loop_js_1.watch)(this.#id, () => this.#serveWaiters());
    }
    #fail(error) {
        this.#end(error);
        throw error;
    }
    /**
     * The next event.
     *
     * @throws FlowMeshError `TIMEOUT`, `CLOSED`, `DISCONNECTED` (the host is gone), `SLOW_CONSUMER` (it fell behind,
     * with `onSlow: 'disconnect'`); the reason of a signal that was aborted.
     */
    async receive(options) {
        const messages = await this.receiveMany(1, options);
        return messages[0];
    }
    /**
     * Waits for an event, then takes all that wait, at most `max`.
     *
     * @throws As `receive`.
     */
    async receiveMany(max, options) {
        const operation = 'subscription.receive';
        (0, check_js_1.integer)(operation, 'max', max, 1, MAX);
        const { timeoutMs, signal } = (0, check_js_1.options)(operation, options, ['timeoutMs', 'signal']);
        (0, check_js_1.optional)(timeoutMs, value => (0, check_js_1.number)(operation, 'timeoutMs', value, 0, check_js_1.TIME_MS_MAX));
        if (signal !== undefined && (0, check_js_1.signal)(operation, signal).aborted)
            throw signal.reason;
        if ((0, loop_js_1.isTurnOver)())
            await (0, loop_js_1.nextTurn)();
        if (this.#waiters.length === 0) {
            const taken = this.#take(max);
            if (taken.length > 0)
                return taken;
        }
        this.#checkOpen(operation);
        if (timeoutMs === 0)
            throw new errors_js_1.FlowMeshError('TIMEOUT', operation, { timeout_ms: '0' });
        return this.#wait(max, timeoutMs, signal);
    }
    #wait(max, timeoutMs, signal) {
        return new Promise((resolve, reject) => {
            const finish = () => {
                if (timer !== undefined)
                    clearTimeout(timer);
                signal?.removeEventListener('abort', abort);
            };
            const leave = (reason) => {
                const at = this.#waiters.indexOf(waiter);
                if (at >= 0)
                    this.#waiters.splice(at, 1);
                waiter.reject(reason);
            };
            const waiter = {
                max,
                resolve: messages => (finish(), resolve(messages)),
                reject: reason => (finish(), reject(reason)),
            };
            const abort = () => leave(signal.reason);
            const late = () => leave(new errors_js_1.FlowMeshError('TIMEOUT', 'subscription.receive', { timeout_ms: String(timeoutMs) }));
            const timer = timeoutMs === undefined ? undefined : later(late, timeoutMs);
            signal?.addEventListener('abort', abort, { once: true });
            this.#waiters.push(waiter);
        });
    }
    /** The events that wait now, at most `max`. Never waits. */
    drain(max = MAX) {
        (0, check_js_1.integer)('subscription.drain', 'max', max, 1, MAX);
        if (this.#waiters.length > 0)
            return [];
        const taken = this.#take(max);
        if (taken.length === 0)
            this.#checkOpen('subscription.drain');
        return taken;
    }
    #take(max) {
        const taken = [];
        let more = this.#state === 'open';
        while (more && taken.length < max) {
            let batch;
            try {
                batch = native_js_1.native.drain(this.#id, max - taken.length, this.#keep);
            }
            catch (error) {
                this.#end(error);
                break;
            }
            more = typeof batch !== 'number' || (batch & 1) === 1;
            const before = taken.length;
            this.#subject = (0, message_js_1.readEvents)(batch, this.#subject, taken);
            if (this.#keep && !this.#handled)
                this.#releaseUnused(taken.slice(before));
        }
        return taken;
    }
    #releaseUnused(messages) {
        for (const message of messages)
            kept.register(message, { id: this.#id, key: message.key });
    }
    #serveWaiters() {
        while (this.#waiters.length > 0) {
            const taken = this.#take(this.#waiters[0].max);
            if (taken.length === 0)
                return;
            this.#waiters.shift().resolve(taken);
        }
    }
    #checkOpen(operation) {
        if (this.#state === 'over')
            throw this.#reason ?? new errors_js_1.FlowMeshError('CLOSED', operation);
    }
    /**
     * Handling `message` failed: it is delivered again after a backoff, and after the last attempt published to the
     * dead-letter subject, as the subscription's `retry` says; without one the failure is counted. A subscription with
     * a handler does this itself.
     *
     * @throws FlowMeshError `INVALID_ARGUMENT`: the message is settled already or of another subscription; without
     * `retry`, it is not the last that was taken.
     */
    async fail(message, error) {
        const operation = 'subscription.fail';
        if (typeof message?.key !== 'number')
            throw (0, check_js_1.invalid)(operation, 'message', message, 'must be a Message');
        const { type, text } = describeFailure(error);
        await (0, loop_js_1.job)(native_js_1.native.startFail(this.#id, message.key, type, text));
    }
    /** @internal Hands each event to `handler`, one at a time. */
    async run(handler) {
        this.#handled = true;
        try {
            for await (const message of this) {
                try {
                    await handler(message);
                    native_js_1.native.release(this.#id, message.key);
                }
                catch (error) {
                    await this.fail(message, error).catch(lost => this.#warn(lost));
                }
            }
        }
        catch (reason) {
            // `closed` tells it too, but nobody may be looking there.
            this.#warn(reason);
        }
    }
    #warn(reason) {
        const text = reason instanceof Error ? reason.message : String(reason);
        process.emitWarning(`subscription ${this.pattern}: ${text}`, 'FlowMeshWarning');
    }
    /** Each event, until it is closed here. A loop ends with an error when the subscription does. */
    [Symbol.asyncIterator]() {
        const over = { done: true, value: undefined };
        return {
            next: async () => {
                try {
                    return { done: false, value: await this.receive() };
                }
                catch (error) {
                    if (this.#state === 'over' && this.#reason === undefined)
                        return over;
                    throw error;
                }
            },
            return: () => Promise.resolve(over),
        };
    }
    /** What it counted so far, without asking the host. */
    stats() {
        if (this.#state !== 'open')
            throw this.#reason ?? new errors_js_1.FlowMeshError('CLOSED', 'subscription.stats');
        return camelKeys(JSON.parse(native_js_1.native.subscriptionStats(this.#id)));
    }
    /** While it is open it keeps the process alive. That is so from the start. */
    ref() {
        if (!this.#held && this.#state !== 'over')
            (0, loop_js_1.hold)();
        this.#held = true;
        return this;
    }
    /** It does not keep the process alive any more. */
    unref() {
        if (this.#held && this.#state !== 'over')
            (0, loop_js_1.release)();
        this.#held = false;
        return this;
    }
    /** Whether it is over. */
    get isClosed() {
        return this.#state === 'over';
    }
    /** Ends it. Waiting calls are rejected with `CLOSED`, loops end. */
    close() {
        this.#end(undefined);
    }
    [Symbol.dispose]() {
        this.close();
    }
    [Symbol.asyncDispose]() {
        this.close();
        return Promise.resolve();
    }
    /** @internal Ends it for `reason`. */
    end(reason) {
        this.#end(reason);
    }
    #end(reason) {
        if (this.#state === 'over')
            return;
        const wasOpen = this.#state === 'open';
        this.#state = 'over';
        this.#reason = reason;
        if (this.#held)
            (0, loop_js_1.release)();
        if (wasOpen) {
            (0, loop_js_1.unwatch)(this.#id);
            native_js_1.native.closeSubscription(this.#id);
        }
        this.#onEnd(this);
        this.#resolveClosed(reason);
        for (const waiter of this.#waiters.splice(0)) {
            waiter.reject(reason ?? new errors_js_1.FlowMeshError('CLOSED', 'subscription.receive'));
        }
    }
}
exports.Subscription = Subscription;
/** @internal A handler's failure as its caller will see it. */
function describeFailure(error) {
    try {
        if (error instanceof Error)
            return { type: wellFormed(String(error.name)), text: wellFormed(String(error.message)) };
        return { type: typeof error, text: wellFormed(String(error)) };
    }
    catch {
        return { type: typeof error, text: 'a value that cannot be shown' };
    }
}
function wellFormed(text) {
    return text.toWellFormed();
}
/** `setTimeout` for times longer than it can take. */
function later(run, ms) {
    return setTimeout(run, Math.min(ms, 2 ** 31 - 1));
}
/** @internal The keys of plain data from the native side as JavaScript spells them. */
function camelKeys(value) {
    if (Array.isArray(value))
        return value.map(camelKeys);
    if (typeof value !== 'object' || value === null)
        return value;
    const entries = Object.entries(value).map(([name, inner]) => {
        return [name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase()), camelKeys(inner)];
    });
    return Object.fromEntries(entries);
}
/** The native side keeps an event that may still fail for as long as its message lives. */
const kept = new FinalizationRegistry(({ id, key }) => native_js_1.native.release(id, key));
/** The most events taken at once. */
const MAX = 65_536;
