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
