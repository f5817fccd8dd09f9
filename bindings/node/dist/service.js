"use strict";
// Services: where calls arrive and are answered.
Object.defineProperty(exports, "__esModule", { value: true });
exports.SMALL_BYTES = exports.Service = exports.Reply = void 0;
const errors_js_1 = require("./errors.js");
const loop_js_1 = require("./loop.js");
const message_js_1 = require("./message.js");
const native_js_1 = require("./native.js");
const payload_js_1 = require("./payload.js");
const subscription_js_1 = require("./subscription.js");
/** An answer with headers. */
class Reply {
    payload;
    headers;
    constructor(payload, options = {}) {
        this.payload = payload;
        this.headers = options.headers ?? {};
    }
}
exports.Reply = Reply;
/**
 * An instance of a service. While it is open it keeps the process alive, unless `unref()` was called.
 */
class Service {
    /** The service's name. */
    name;
    /** Settles when the host has it; see `Subscription.ready`. */
    ready;
    /** Resolves when it is over: with `undefined` when it was closed here, else with the reason. */
    closed;
    #id;
    #handler;
    #concurrency;
    #onEnd;
    #running = new Set();
    #state = 'starting';
    #resolveClosed;
    #held = true;
    #more = false;
    #pumping = false;
    #linger = new loop_js_1.Linger();
    /** @internal */
    constructor(id, name, handler, concurrency, made, onEnd) {
        this.#id = id;
        this.name = name;
        this.#handler = handler;
        this.#concurrency = concurrency;
        this.#onEnd = onEnd;
        this.closed = new Promise(resolve => (this.#resolveClosed = resolve));
        (0, loop_js_1.hold)();
        this.ready = made ? Promise.resolve(this.#open()) : (0, loop_js_1.job)(id).then(() => this.#open(), error => this.#fail(error));
        this.ready.catch(() => { });
    }
    #open() {
        if (this.#state === 'over')
            return void (0, loop_js_1.job)(native_js_1.native.startCloseService(this.#id));
        this.#state = 'open';
        (0, loop_js_1.watch)(this.#id, () => {
            this.#more = true;
            this.#pump();
        });
    }
    #fail(error) {
        void this.end(error);
        throw error;
    }
    /** Starts handlers for the calls that wait, as many as may run at once. */
    #pump() {
        if (this.#pumping)
            return;
        this.#pumping = true;
        while (this.#more && this.#running.size < this.#concurrency) {
            if ((0, loop_js_1.isTurnOver)()) {
                setImmediate(() => this.#pump());
                break;
            }
            let batch;
            try {
                batch = native_js_1.native.next(this.#id, Math.min(this.#concurrency - this.#running.size, BATCH_MAX));
            }
            catch (error) {
                const closedHere = error instanceof errors_js_1.FlowMeshError && error.code === 'CLOSED';
                void this.end(closedHere ? undefined : error, true);
                break;
            }
            this.#more = typeof batch !== 'number' || (batch & 1) === 1;
            for (const { message, remainingMs } of (0, message_js_1.readRequests)(batch))
                this.#start(message, remainingMs);
            if (!this.#more)
                this.#more = this.#stay();
        }
        this.#pumping = false;
    }
    /** Stays a moment for the next call of a caller that was just answered; tells whether it came. */
    #stay() {
        if (this.#state !== 'open' || this.#running.size > 0 || !this.#linger.wants())
            return false;
        const found = native_js_1.native.linger(this.#id, loop_js_1.LINGER_US);
        this.#linger.record(found);
        return found;
    }
    #start(message, remainingMs) {
        const running = new Running(message.key, remainingMs);
        this.#running.add(running);
        let result;
        try {
            result = this.#handler(message, running);
        }
        catch (error) {
            return this.#settle(running, () => running.fail(error));
        }
        if (result instanceof Promise || isThenable(result)) {
            Promise.resolve(result).then(value => this.#settle(running, () => running.reply(value)), error => this.#settle(running, () => running.fail(error)));
        }
        else {
            this.#settle(running, () => running.reply(result));
        }
    }
    #settle(running, answer) {
        this.#running.delete(running);
        running.finish();
        try {
            answer();
        }
        catch {
            // The session is over, or the answer was refused and the caller has that error: it is not the handler's.
        }
        if (!this.#pumping && !this.#more)
            this.#more = this.#stay();
        if (this.#more)
            this.#pump();
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
    /** Ends the serving: no further calls come. Handlers that run may still answer. */
    async close() {
        await this.end(undefined);
    }
    [Symbol.asyncDispose]() {
        return this.close();
    }
    /** @internal Ends it for `reason`; handlers that run are told when their answers cannot arrive any more. */
    end(reason, over = reason !== undefined) {
        if (this.#state === 'over')
            return Promise.resolve();
        const wasOpen = this.#state === 'open';
        this.#state = 'over';
        this.#more = false;
        if (this.#held)
            (0, loop_js_1.release)();
        if (over)
            for (const running of this.#running)
                running.abort();
        this.#onEnd(this);
        this.#resolveClosed(reason);
        if (!wasOpen)
            return Promise.resolve();
        (0, loop_js_1.unwatch)(this.#id);
        return (0, loop_js_1.job)(native_js_1.native.startCloseService(this.#id));
    }
}
exports.Service = Service;
/** A call that a handler works on. */
class Running {
    remainingMs;
    #key;
    #controller;
    constructor(key, remainingMs) {
        this.#key = key;
        this.remainingMs = remainingMs;
    }
    // Made when asked for: most handlers never look.
    get signal() {
        if (this.#controller === undefined) {
            this.#controller = new AbortController();
            (0, loop_js_1.watch)(this.#key, () => this.abort());
            try {
                native_js_1.native.watchCancel(this.#key);
            }
            catch {
                this.abort();
            }
        }
        return this.#controller.signal;
    }
    abort() {
        this.#controller?.abort(new errors_js_1.FlowMeshError('CANCELLED', 'service.call'));
    }
    finish() {
        if (this.#controller !== undefined)
            (0, loop_js_1.unwatch)(this.#key);
    }
    reply(result) {
        let encoded;
        let headers;
        try {
            const [value, extra] = result instanceof Reply ? [result.payload, result.headers] : [result, undefined];
            encoded = value === undefined ? EMPTY : (0, payload_js_1.encode)('service.reply', value);
            headers = (0, payload_js_1.flatHeaders)('service.reply', extra, encoded.contentType);
        }
        catch (error) {
            return this.fail(error);
        }
        if (encoded.payload.length <= exports.SMALL_BYTES)
            native_js_1.native.reply(this.#key, encoded.payload, headers);
        else
            (0, loop_js_1.job)(native_js_1.native.startReply(this.#key, encoded.payload, headers)).catch(() => { });
    }
    fail(error) {
        const { type, text } = (0, subscription_js_1.describeFailure)(error);
        native_js_1.native.failRequest(this.#key, type, text);
    }
}
function isThenable(value) {
    return typeof value === 'object' && value !== null && typeof value.then === 'function';
}
/** @internal More than this is sent from another thread: it may have to wait for room on its way. */
exports.SMALL_BYTES = 64 * 1024;
const EMPTY = { payload: '', contentType: undefined };
const BATCH_MAX = 64;
