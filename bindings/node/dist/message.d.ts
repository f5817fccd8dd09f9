import type { Headers } from './types.js';
/**
 * An event, a request or an answer.
 *
 * Its bytes are its own: nobody else sees what is written to them.
 */
export declare class Message {
    #private;
    /** Where it was published; of requests and answers, the service's name. */
    readonly subject: string;
    /** The payload's bytes: a `Buffer`. */
    readonly payload: Uint8Array;
    /** 0 to 9; higher is delivered first. */
    readonly priority: number;
    /** How many events of this subscription were lost just before this one. */
    readonly gap: number;
    /** 1 when it is delivered for the first time, one more with each retry. */
    readonly attempt: number;
    /** The id its publisher gave it, unique on this mesh; of requests and answers, the call's number. */
    get id(): bigint;
    /** When it was published, in nanoseconds since 1970 UTC. */
    get timestamp(): bigint;
    /** Its headers. Of a name that came twice, the first counts. */
    get headers(): Headers;
    /** How the payload is encoded, as the `content-type` header says. */
    get contentType(): string | undefined;
    /**
     * The payload as its content type says: parsed JSON, text, or the bytes. Decoded anew each time.
     *
     * @throws FlowMeshError `INVALID_ARGUMENT`: it is not the JSON that its content type says.
     */
    get value(): any;
    /** The payload as UTF-8 text, whatever its content type. */
    get text(): string;
}
