"use strict";
// Where the native side meets the event loop: one wake a turn, and what keeps the process alive.
//
// Nothing here waits. What becomes ready is announced by its number, once, and then taken until empty.
Object.defineProperty(exports, "__esModule", { value: true });
exports.LINGER_US = exports.Linger = exports.scratch = void 0;
exports.watch = watch;
exports.unwatch = unwatch;
exports.hold = hold;
exports.release = release;
exports.job = job;
exports.isTurnOver = isTurnOver;
exports.nextTurn = nextTurn;
const errors_js_1 = require("./errors.js");
const native_js_1 = require("./native.js");
/** Batches travel through this memory; it is read before anything else is called. */
exports.scratch = Buffer.allocUnsafeSlow(256 * 1024);
const ids = new Float64Array(exports.scratch.buffer, exports.scratch.byteOffset, exports.scratch.byteLength / 8);
const watched = new Map();
let holders = 0;
let immediate = 0;
/** From now on `ready` is called when the object `id` becomes ready. It must not throw. */
function watch(id, ready) {
    watched.set(id, ready);
}
function unwatch(id) {
    watched.delete(id);
}
/** The process stays alive until as many `release` follow. */
function hold() {
    if (holders++ === 0)
        native_js_1.native.hold(true);
}
function release() {
    if (--holders === 0)
        native_js_1.native.hold(false);
}
/** The result of a job of the native side. */
function job(id) {
    hold();
    return new Promise((resolve, reject) => {
        watch(id, () => {
            unwatch(id);
            release();
            try {
                resolve(native_js_1.native.takeJob(id));
            }
            catch (error) {
                reject(error);
            }
        });
    });
}
/**
 * Whether it is time to let timers and sockets have their turn.
 *
 * Promises that are resolved at once keep the event loop from turning, so whoever resolves many of them
 * asks this each time and waits for `nextTurn()` when told to.
 */
function isTurnOver() {
    return (++immediate & 127) === 0;
}
function nextTurn() {
    return new Promise(resolve => setImmediate(resolve));
}
/**
 * Whether it pays to stay for a moment where an answer is expected, instead of going back to the event loop.
 *
 * An answer that comes over the event loop wakes two threads, one that waits here wakes one: that halves the time of
 * a call to a fast service. Staying holds up the loop for at most LINGER_US, and each time in vain makes the next
 * attempts rarer, down to one in 64.
 */
class Linger {
    #misses = 0;
    #skip = 0;
    /** Whether to stay this time. */
    wants() {
        if (this.#skip === 0)
            return true;
        this.#skip -= 1;
        return false;
    }
    record(found) {
        this.#misses = found ? 0 : Math.min(this.#misses + 1, 6);
        this.#skip = found ? 0 : 2 ** this.#misses;
    }
}
exports.Linger = Linger;
exports.LINGER_US = 100;
function wake() {
    for (let rounds = 0; rounds < 16; rounds++) {
        const count = native_js_1.native.ready();
        if (count === 0)
            return;
        if (count === 1) {
            watched.get(ids[0])?.();
        }
        else {
            // A copy: what is called now writes to the scratch memory.
            for (const id of ids.slice(0, count))
                watched.get(id)?.();
        }
    }
    setImmediate(wake);
}
native_js_1.native.start(wake, errors_js_1.nativeError, exports.scratch);
