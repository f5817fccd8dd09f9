import type { Headers } from './types.js';
export declare const JSON_TYPE = "application/json";
export declare const TEXT_TYPE = "text/plain; charset=utf-8";
/** A value on its way out: what native code takes, and how it is encoded. */
export interface Encoded {
    readonly payload: Uint8Array | string;
    /** None for bytes. */
    readonly contentType: string | undefined;
}
export declare function encode(operation: string, value: unknown): Encoded;
/** Headers as names and values in turns, `contentType` added unless they name one; `undefined` for none. */
export declare function flatHeaders(operation: string, headers: Headers | undefined, contentType?: string): string[] | undefined;
/** The value that bytes stand for: parsed JSON, text, or the bytes themselves. */
export declare function decode(payload: Uint8Array, contentType: string | undefined): unknown;
export declare function utf8(payload: Uint8Array): string;
