"use strict";
// The mesh: opening it, events, calls.
var __createBinding = (this && this.__createBinding) || (Object.create ? (function(o, m, k, k2) {
    if (k2 === undefined) k2 = k;
    var desc = Object.getOwnPropertyDescriptor(m, k);
    if (!desc || ("get" in desc ? !m.__esModule : desc.writable || desc.configurable)) {
      desc = { enumerable: true, get: function() { return m[k]; } };
    }
    Object.defineProperty(o, k2, desc);
}) : (function(o, m, k, k2) {
    if (k2 === undefined) k2 = k;
    o[k2] = m[k];
}));
var __setModuleDefault = (this && this.__setModuleDefault) || (Object.create ? (function(o, v) {
    Object.defineProperty(o, "default", { enumerable: true, value: v });
}) : function(o, v) {
    o["default"] = v;
});
var __importStar = (this && this.__importStar) || (function () {
    var ownKeys = function(o) {
        ownKeys = Object.getOwnPropertyNames || function (o) {
            var ar = [];
            for (var k in o) if (Object.prototype.hasOwnProperty.call(o, k)) ar[ar.length] = k;
            return ar;
        };
        return ownKeys(o);
    };
    return function (mod) {
        if (mod && mod.__esModule) return mod;
        var result = {};
        if (mod != null) for (var k = ownKeys(mod), i = 0; i < k.length; i++) if (k[i] !== "default") __createBinding(result, mod, k[i]);
        __setModuleDefault(result, mod);
        return result;
    };
})();
Object.defineProperty(exports, "__esModule", { value: true });
exports.Mesh = void 0;
exports.open = open;
exports.connect = connect;
exports.connectTcp = connectTcp;
const node_path_1 = require("node:path");
const node_util_1 = require("node:util");
const node_url_1 = require("node:url");
const calls_js_1 = require("./calls.js");
const check = __importStar(require("./check.js"));
const errors_js_1 = require("./errors.js");
const loop_js_1 = require("./loop.js");
const native_js_1 = require("./native.js");
const payload_js_1 = require("./payload.js");
const service_js_1 = require("./service.js");
const subscription_js_1 = require("./subscription.js");
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
async function open(directory, options) {
    const operation = 'mesh.open';
    const known = [...COMMON, 'maxMessageBytes', 'ringBytes', 'maxSessions'];
    const given = check.options(operation, options, known);
    const whole = (name, min, max) => check.optional(given[name], value => check.integer(operation, name, value, min, max));
    const json = JSON.stringify({
        ...common(operation, given),
        maxMessageBytes: whole('maxMessageBytes', 1024, 2 ** 30),
        ringBytes: whole('ringBytes', 64 * 1024, 64 * 2 ** 20),
        maxSessions: whole('maxSessions', 1, 2 ** 31 - 1),
    });
    const path = directoryPath(operation, directory);
    return start(operation, given.signal, () => native_js_1.native.open(path, json));
}
/**
 * Connects to the host of the directory.
 *
 * @throws FlowMeshError `NOT_FOUND`: no directory or no host; `PERMISSION_DENIED`; `VERSION_MISMATCH`; `TIMEOUT`.
 */
async function connect(directory, options) {
    const operation = 'mesh.connect';
    const [json, signal] = connecting(operation, options);
    const path = directoryPath(operation, directory);
    return start(operation, signal, () => native_js_1.native.connect(path, json));
}
/**
 * Connects to a host that listens on TCP, at `'127.0.0.1:7000'`, with the secret both sides know.
 *
 * @throws FlowMeshError `UNAUTHENTICATED`: the secret is not the host's; `DISCONNECTED`: nobody listens there.
 */
async function connectTcp(address, secret, options) {
    const operation = 'mesh.connect_tcp';
    const [json, signal] = connecting(operation, options);
    const where = check.text(operation, 'address', address);
    const key = secretBytes(operation, secret);
    return start(operation, signal, () => native_js_1.native.connectTcp(where, key, json));
}
function connecting(operation, options) {
    const given = check.options(operation, options, [...COMMON, 'timeoutMs', 'sharedMemory']);
    const json = JSON.stringify({
        ...common(operation, given),
        timeoutMs: check.optional(given.timeoutMs, value => check.number(operation, 'timeoutMs', value, 1, check.TIME_MS_MAX)),
        sharedMemory: check.optional(given.sharedMemory, value => check.flag(operation, 'sharedMemory', value)),
    });
    return [json, given.signal];
}
const COMMON = ['name', 'waitStrategy', 'breaker', 'signal'];
function common(operation, options) {
    const { name, waitStrategy, breaker } = options;
    return {
        name: check.text(operation, 'name', name ?? (0, node_path_1.basename)(process.argv[1] ?? 'node')),
        wait: check.optional(waitStrategy, value => waiting(operation, value)),
        breaker: check.optional(breaker, value => breaking(operation, value)),
    };
}
function waiting(operation, strategy) {
    if (typeof strategy === 'string') {
        const name = check.oneOf(operation, 'waitStrategy', strategy, ['adaptive', 'block', 'spin']);
        return name === 'adaptive' ? undefined : name;
    }
    const { spinUs, intervalMs } = check.options(operation, strategy, ['spinUs', 'intervalMs']);
    if (spinUs !== undefined)
        return { adaptive: { spinUs: check.number(operation, 'spinUs', spinUs, 0, 1e6) } };
    return { timed: { intervalMs: check.number(operation, 'intervalMs', intervalMs, 0.001, 60_000) } };
}
function breaking(operation, breaker) {
    if (typeof breaker === 'boolean')
        return breaker;
    const known = ['windowMs', 'minCalls', 'failureRatio', 'openMs', 'openMsMax', 'probes'];
    const given = check.options(operation, breaker, known);
    const ms = (name) => check.optional(given[name], value => check.number(operation, `breaker.${name}`, value, 0, check.TIME_MS_MAX));
    const count = (name) => check.optional(given[name], value => check.integer(operation, `breaker.${name}`, value, 0, U32_MAX));
    const ratio = check.optional(given.failureRatio, value => check.number(operation, 'breaker.failureRatio', value, 0, 1));
    return {
        windowMs: ms('windowMs'),
        minCalls: count('minCalls'),
        failureRatio: ratio,
        openMs: ms('openMs'),
        openMsMax: ms('openMsMax'),
        probes: count('probes'),
    };
}
function directoryPath(operation, directory) {
    if (directory instanceof URL) {
        if (directory.protocol !== 'file:')
            throw check.invalid(operation, 'directory', directory.href, 'must be a file: URL');
        return (0, node_url_1.fileURLToPath)(directory);
    }
    if (check.text(operation, 'directory', directory) === '' || directory.includes('\0')) {
        throw check.invalid(operation, 'directory', directory, 'must be a path');
    }
    return directory;
}
function secretBytes(operation, secret) {
    if (typeof secret === 'string')
        return Buffer.from(secret, 'utf8');
    if (node_util_1.types.isUint8Array(secret))
        return secret;
    throw check.invalid(operation, 'secret', '…', 'must be a Uint8Array or a string');
}
async function start(operation, given, begin) {
    const signal = check.optional(given, value => check.signal(operation, value));
    if (signal?.aborted === true)
        throw signal.reason;
    const id = begin();
    const opened = (0, loop_js_1.job)(id).then(() => new Mesh(id));
    if (signal === undefined)
        return opened;
    return unless(signal, opened, mesh => void mesh.close());
}
/** `work`, or the signal's reason when that comes first; then `undo` is given what comes later. */
function unless(signal, work, undo) {
    return new Promise((resolve, reject) => {
        const abort = () => {
            reject(signal.reason);
            work.then(undo, () => { });
        };
        signal.addEventListener('abort', abort, { once: true });
        work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
    });
}
/**
 * A mesh of processes: the host of a directory, or one of its clients. Both have the same operations.
 *
 * Open alone it does not keep the process alive: subscriptions, services and calls under way do.
 */
class Mesh {
    #id;
    #info;
    #open = new Set();
    #calls = new calls_js_1.Calls();
    /** The end of what waits to be published, in order. */
    #lane = Promise.resolve();
    #inLane = 0;
    #closed = false;
    #closing;
    /** @internal */
    constructor(id) {
        this.#id = id;
        this.#info = JSON.parse(native_js_1.native.info(id));
    }
    /** Whether this process is the host of the directory or one of its clients. */
    get role() {
        return this.#info.role;
    }
    /** The number of this client's session; 0 for the host. */
    get session() {
        return this.#info.session;
    }
    /** The directory, unless the mesh is reached by TCP. */
    get directory() {
        return this.#info.directory ?? undefined;
    }
    /** The host's process. */
    get hostPid() {
        return this.#info.hostPid;
    }
    /** The largest payload. */
    get maxMessageBytes() {
        return this.#info.maxMessageBytes;
    }
    /** Whether it was closed, or the session with the host has ended. */
    get isClosed() {
        return this.#closed || native_js_1.native.isClosed(this.#id);
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
    publish(subject, payload, options) {
        const operation = 'mesh.publish';
        if (this.#inLane > 0)
            throw new errors_js_1.FlowMeshError('FULL', operation, { waiting: String(this.#inLane) });
        check.text(operation, 'subject', subject);
        if (options === undefined && node_util_1.types.isUint8Array(payload))
            return native_js_1.native.publish(this.#handle(operation), subject, payload);
        const encoded = (0, payload_js_1.encode)(operation, payload);
        const shared = publishArguments(operation, check.options(operation, options, PUBLISH), encoded.contentType);
        return native_js_1.native.publish(this.#handle(operation), subject, encoded.payload, ...shared);
    }
    /**
     * Publishes one event, waits for room, and resolves to its id.
     *
     * Events of one mesh keep their order, whether or not each is awaited.
     *
     * @throws FlowMeshError `TIMEOUT`: no room in time. `TOO_LARGE`, `INVALID_ARGUMENT`, `CLOSED`, `DISCONNECTED`.
     */
    async publishWait(subject, payload, options) {
        const operation = 'mesh.publish';
        check.text(operation, 'subject', subject);
        const given = check.options(operation, options, PUBLISH_WAIT);
        const encoded = (0, payload_js_1.encode)(operation, payload);
        const shared = publishArguments(operation, given, encoded.contentType);
        const timeoutMs = waitMs(operation, given.timeoutMs);
        const begin = () => native_js_1.native.startPublish(this.#handle(operation), subject, encoded.payload, ...shared, timeoutMs);
        return BigInt((await this.#inOrder(operation, given.signal, begin)));
    }
    async publishMany(first, second, third) {
        const operation = 'mesh.publish_many';
        const oneSubject = typeof first === 'string';
        const list = oneSubject ? second : first;
        if (!Array.isArray(list))
            throw check.invalid(operation, 'events', list, 'must be an array');
        const given = check.options(operation, oneSubject ? third : second, PUBLISH_WAIT);
        if (list.length === 0)
            return;
        const [packed, contentType] = oneSubject
            ? pack(operation, list.length, () => first, at => list[at])
            : pack(operation, list.length, at => pair(operation, list[at])[0], at => pair(operation, list[at])[1]);
        const shared = publishArguments(operation, given, contentType);
        const timeoutMs = waitMs(operation, given.timeoutMs);
        const begin = () => native_js_1.native.startPublishMany(this.#handle(operation), packed, packed.length, ...shared, timeoutMs);
        await this.#inOrder(operation, given.signal, begin);
    }
    /** Runs a job that publishes after those before it. */
    async #inOrder(operation, given, begin) {
        const signal = check.optional(given, value => check.signal(operation, value));
        this.#handle(operation);
        this.#inLane += 1;
        const before = this.#lane;
        const run = async () => {
            await before;
            try {
                if (signal?.aborted === true)
                    throw signal.reason;
                return await (0, loop_js_1.job)(begin());
            }
            finally {
                this.#inLane -= 1;
            }
        };
        const published = run();
        this.#lane = published.catch(() => { });
        return signal === undefined ? published : unless(signal, published, () => { });
    }
    subscribe(pattern, second, third) {
        const operation = 'mesh.subscribe';
        check.text(operation, 'pattern', pattern);
        const [options, handler] = typeof second === 'function' ? [undefined, second] : [second, third];
        check.optional(handler, value => check.callable(operation, 'handler', value));
        const given = check.options(operation, options, SUBSCRIBE);
        const signal = check.optional(given.signal, value => check.signal(operation, value));
        if (signal?.aborted === true)
            throw signal.reason;
        const id = native_js_1.native.subscribe(this.#handle(operation), pattern, JSON.stringify(subscribing(operation, given)));
        const keep = given.retry !== undefined || handler !== undefined;
        const made = settled(id);
        const subscription = new subscription_js_1.Subscription(id, pattern, keep, made, ended => {
            this.#open.delete(ended);
            signal?.removeEventListener('abort', abort);
        });
        const abort = () => subscription.end(signal.reason);
        signal?.addEventListener('abort', abort, { once: true });
        this.#open.add(subscription);
        if (handler !== undefined)
            void subscription.run(handler);
        return subscription;
    }
    /**
     * Serves calls of `name`: `handler` is called with each request, at most `concurrency` at once.
     *
     * Waits some milliseconds for the host; see `Service.ready`.
     *
     * @throws FlowMeshError `INVALID_ARGUMENT`, `CLOSED`, `DISCONNECTED`, `PERMISSION_DENIED`.
     */
    serve(name, handler, options) {
        const operation = 'mesh.serve';
        check.text(operation, 'name', name);
        check.callable(operation, 'handler', handler);
        const given = check.options(operation, options, ['version', 'concurrency', 'queue', 'rate', 'burst']);
        const whole = (field, min, max) => check.optional(given[field], value => check.integer(operation, field, value, min, max));
        const serving = {
            version: check.optional(given.version, value => check.text(operation, 'version', value)),
            concurrency: whole('concurrency', 1, 65_536),
            queue: whole('queue', 0, 1_048_576),
            rate: check.optional(given.rate, value => check.number(operation, 'rate', value, 1e-6, 1e7)),
            burst: whole('burst', 1, 1_000_000),
        };
        const id = native_js_1.native.serve(this.#handle(operation), name, JSON.stringify(serving));
        const made = settled(id);
        const service = new service_js_1.Service(id, name, handler, serving.concurrency ?? 1, made, ended => this.#open.delete(ended));
        this.#open.add(service);
        return service;
    }
    /**
     * Calls a service and resolves to its answer.
     *
     * @throws FlowMeshError `NO_SERVICE`; `HANDLER_FAILED` with the handler's `context.type` and `context.message`;
     * `TIMEOUT`; `PEER_GONE`: the instance died; `RATE_LIMITED`, `CIRCUIT_OPEN`, `FULL`; `TOO_LARGE`, `CLOSED`,
     * `DISCONNECTED`. The reason of a signal that was aborted.
     */
    async call(name, payload, options) {
        const operation = 'mesh.call';
        check.text(operation, 'name', name);
        const given = check.options(operation, options, ['headers', 'timeoutMs', 'signal']);
        const encoded = (0, payload_js_1.encode)(operation, payload);
        const headers = (0, payload_js_1.flatHeaders)(operation, given.headers, encoded.contentType);
        const timeoutMs = given.timeoutMs === undefined ? 30_000 : check.number(operation, 'timeoutMs', given.timeoutMs, 0, check.TIME_MS_MAX);
        const signal = check.optional(given.signal, value => check.signal(operation, value));
        if (signal?.aborted === true)
            throw signal.reason;
        if ((0, loop_js_1.isTurnOver)())
            await (0, loop_js_1.nextTurn)();
        const mesh = this.#handle(operation);
        if (encoded.payload.length <= service_js_1.SMALL_BYTES) {
            return this.#calls.answer(native_js_1.native.call(mesh, name, encoded.payload, headers, timeoutMs), name, timeoutMs, signal);
        }
        const id = native_js_1.native.startCall(mesh, name, encoded.payload, headers, timeoutMs);
        const started = (0, loop_js_1.job)(id);
        await (signal === undefined ? started : unless(signal, started, () => native_js_1.native.cancelCall(id)));
        return this.#calls.answer(id, name, timeoutMs, signal);
    }
    /** Lists the services of the mesh with their instances. */
    async services() {
        const json = await (0, loop_js_1.job)(native_js_1.native.services(this.#handle('mesh.services')));
        const services = (0, subscription_js_1.camelKeys)(JSON.parse(json));
        return services.map(({ name, instances }) => {
            return { name, instances: instances.map(found => ({ ...found, instance: BigInt(found.instance) })) };
        });
    }
    /** Everything the host counts, at one moment. */
    async stats() {
        return (0, subscription_js_1.camelKeys)(JSON.parse((await (0, loop_js_1.job)(native_js_1.native.stats(this.#handle('mesh.stats'))))));
    }
    /**
     * Lets clients connect by TCP to `address`, `'127.0.0.1:7000'` (port 0 picks one), with a secret of at least 16
     * bytes. Only a host does. Resolves to the address.
     */
    async listenTcp(address, secret) {
        const operation = 'mesh.listen_tcp';
        const where = check.text(operation, 'address', address);
        const key = secretBytes(operation, secret);
        return (await (0, loop_js_1.job)(native_js_1.native.listenTcp(this.#handle(operation), where, key)));
    }
    /** Ends it with all its subscriptions, services and calls. A host tells its clients. */
    close() {
        if (!this.#closed) {
            this.#endEventsAndCalls();
            this.#closing = (0, loop_js_1.job)(native_js_1.native.startCloseMesh(this.#id)).then(() => this.#endServices());
        }
        return this.#closing ?? Promise.resolve();
    }
    [Symbol.asyncDispose]() {
        return this.close();
    }
    /** Closes it before it returns, which may take some milliseconds. */
    [Symbol.dispose]() {
        if (this.#closed)
            return;
        this.#endEventsAndCalls();
        native_js_1.native.closeMesh(this.#id);
        this.#endServices();
    }
    #endEventsAndCalls() {
        this.#closed = true;
        for (const opened of [...this.#open])
            if (opened instanceof subscription_js_1.Subscription)
                opened.end(undefined);
        this.#calls.giveUp(new errors_js_1.FlowMeshError('CLOSED', 'mesh.call'));
    }
    /** Once the session is over: a handler that stops because of it must not answer its caller with that. */
    #endServices() {
        for (const opened of [...this.#open])
            if (opened instanceof service_js_1.Service)
                opened.end(undefined, true).catch(() => { });
    }
    #handle(operation) {
        if (this.#closed)
            throw new errors_js_1.FlowMeshError('CLOSED', operation);
        return this.#id;
    }
}
exports.Mesh = Mesh;
/** Whether the native side has it already; an error of making it is thrown. */
function settled(id) {
    if (!native_js_1.native.awaitJob(id, SYNC_WAIT_MS))
        return false;
    native_js_1.native.takeJob(id);
    return true;
}
function publishArguments(operation, options, contentType) {
    const { headers, priority, ttlMs, delayMs } = options;
    return [
        (0, payload_js_1.flatHeaders)(operation, headers, contentType),
        priority === undefined ? 4 : check.integer(operation, 'priority', priority, 0, 9),
        ttlMs === undefined ? 0 : check.number(operation, 'ttlMs', ttlMs, 1, check.TIME_MS_MAX),
        delayMs === undefined ? 0 : check.number(operation, 'delayMs', delayMs, 0, check.TIME_MS_MAX),
    ];
}
function waitMs(operation, value) {
    return value === undefined ? 30_000 : check.number(operation, 'timeoutMs', value, 0, check.TIME_MS_MAX);
}
function pair(operation, event) {
    if (Array.isArray(event) && event.length === 2)
        return event;
    throw check.invalid(operation, 'event', event, 'must be a pair of subject and payload');
}
/** Lays events out as native/pack.rs reads them. */
function pack(operation, count, subjectAt, payloadAt) {
    let packed = Buffer.allocUnsafeSlow(64 * 1024);
    let end = 0;
    let contentType;
    let lastSubject;
    for (let at = 0; at < count; at++) {
        const subject = subjectAt(at);
        const { payload, contentType: type } = (0, payload_js_1.encode)(operation, payloadAt(at));
        if (at === 0)
            contentType = type;
        else if (type !== contentType) {
            throw check.invalid(operation, `payload ${at}`, kindOf(type), `must be ${kindOf(contentType)}, as the first of the call is`);
        }
        // UTF-8 takes at most three bytes for each unit of a string.
        const room = end + 8 + 3 * (subject === lastSubject ? 0 : check.text(operation, 'subject', subject).length) + (typeof payload === 'string' ? 3 : 1) * payload.length;
        if (room > packed.length) {
            const larger = Buffer.allocUnsafeSlow(Math.max(room, packed.length * 2));
            packed.copy(larger, 0, 0, end);
            packed = larger;
        }
        const subjectBytes = subject === lastSubject ? 0 : packed.write(subject, end + 8);
        if (at === 0 && subjectBytes === 0)
            throw check.invalid(operation, 'subject', subject, 'must not be empty');
        lastSubject = subject;
        const payloadFrom = end + 8 + subjectBytes;
        let payloadBytes;
        if (typeof payload === 'string')
            payloadBytes = packed.write(payload, payloadFrom);
        else {
            packed.set(payload, payloadFrom);
            payloadBytes = payload.length;
        }
        packed.writeUInt32LE(subjectBytes, end);
        packed.writeUInt32LE(payloadBytes, end + 4);
        end = payloadFrom + payloadBytes;
    }
    return [packed.subarray(0, end), contentType];
}
function kindOf(contentType) {
    return contentType === payload_js_1.JSON_TYPE ? 'JSON' : contentType === payload_js_1.TEXT_TYPE ? 'text' : 'bytes';
}
function subscribing(operation, given) {
    const whole = (name, min, max) => check.optional(given[name], value => check.integer(operation, name, value, min, max));
    const { group, onSlow, blockTimeoutMs, retry } = given;
    if (blockTimeoutMs !== undefined && onSlow !== 'block') {
        throw check.invalid(operation, 'blockTimeoutMs', blockTimeoutMs, "goes with onSlow: 'block' only");
    }
    return {
        group: check.optional(group, value => check.text(operation, 'group', value)),
        priority: whole('priority', -(2 ** 31), 2 ** 31 - 1),
        capacity: whole('capacity', 1, 1_048_576),
        onSlow: check.optional(onSlow, value => check.oneOf(operation, 'onSlow', value, ['drop-oldest', 'block', 'disconnect'])),
        blockTimeoutMs: check.optional(blockTimeoutMs, value => check.number(operation, 'blockTimeoutMs', value, 1, check.TIME_MS_MAX)),
        retry: check.optional(retry, value => retrying(operation, value)),
    };
}
function retrying(operation, retry) {
    const given = check.options(operation, retry, ['maxAttempts', 'backoffMs', 'backoffFactor', 'backoffMsMax', 'deadLetter']);
    const ms = (name) => check.optional(given[name], value => check.number(operation, `retry.${name}`, value, 0, check.TIME_MS_MAX));
    return {
        maxAttempts: check.optional(given.maxAttempts, value => check.integer(operation, 'retry.maxAttempts', value, 0, U32_MAX)),
        backoffMs: ms('backoffMs'),
        backoffFactor: check.optional(given.backoffFactor, value => check.number(operation, 'retry.backoffFactor', value, 1, 1000)),
        backoffMsMax: ms('backoffMsMax'),
        deadLetter: check.optional(given.deadLetter, value => check.text(operation, 'retry.deadLetter', value)),
    };
}
const PUBLISH = ['headers', 'priority', 'ttlMs', 'delayMs'];
const PUBLISH_WAIT = [...PUBLISH, 'timeoutMs', 'signal'];
const SUBSCRIBE = ['group', 'priority', 'capacity', 'onSlow', 'blockTimeoutMs', 'retry', 'signal'];
/** The longest that a call of this thread waits for another one. */
const SYNC_WAIT_MS = 20;
const U32_MAX = 2 ** 32 - 1;
