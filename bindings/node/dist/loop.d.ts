/** Batches travel through this memory; it is read before anything else is called. */
export declare const scratch: Buffer;
/** From now on `ready` is called when the object `id` becomes ready. It must not throw. */
export declare function watch(id: number, ready: () => void): void;
export declare function unwatch(id: number): void;
/** The process stays alive until as many `release` follow. */
export declare function hold(): void;
export declare function release(): void;
/** The result of a job of the native side. */
export declare function job(id: number): Promise<string | undefined>;
/**
 * Whether it is time to let timers and sockets have their turn.
 *
 * Promises that are resolved at once keep the event loop from turning, so whoever resolves many of them
 * asks this each time and waits for `nextTurn()` when told to.
 */
export declare function isTurnOver(): boolean;
export declare function nextTurn(): Promise<void>;
/**
 * Whether it pays to stay for a moment where an answer is expected, instead of going back to the event loop.
 *
 * An answer that comes over the event loop wakes two threads, one that waits here wakes one: that halves the time of
 * a call to a fast service. Staying holds up the loop for at most LINGER_US, and each time in vain makes the next
 * attempts rarer, down to one in 64.
 */
export declare class Linger {
    #private;
    /** Whether to stay this time. */
    wants(): boolean;
    record(found: boolean): void;
}
export declare const LINGER_US = 100;
