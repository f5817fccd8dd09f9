// Received messages, and how they are read from the memory the native side writes (native/pack.rs).

import type { Batch } from './native.js'
import { decode, utf8 } from './payload.js'
import { scratch } from './loop.js'
import type { Headers } from './types.js'

/**
 * An event, a request or an answer.
 *
 * Its bytes are its own: nobody else sees what is written to them.
 */
export class Message {
  /** Where it was published; of requests and answers, the service's name. */
  readonly subject: string
  /** The payload's bytes: a `Buffer`. */
  readonly payload: Uint8Array
  /** 0 to 9; higher is delivered first. */
  readonly priority: number
  /** How many events of this subscription were lost just before this one. */
  readonly gap: number
  /** 1 when it is delivered for the first time, one more with each retry. */
  readonly attempt: number
  /** @internal What the native side keeps it under; 0 for not at all. */
  readonly key: number
  readonly #headerBlock: Buffer | undefined
  readonly #idLow: number
  readonly #idHigh: number
  readonly #timeLow: number
  readonly #timeHigh: number
  #headers: Headers | undefined

  /** @internal */
  constructor(subject: string, attempt: number, block: Buffer, words: Uint32Array, at: number) {
    const word = at >>> 2
    const lengths = words[word + 1]!
    const headerAt = at + RECORD_HEADER_BYTES + (lengths >>> 16)
    const headerBytes = words[word + 2]!
    const payloadAt = headerAt + headerBytes
    const payloadEnd = payloadAt + words[word + 3]!
    this.subject = subject
    this.priority = (lengths >>> 8) & 0xff
    this.gap = words[word + 8]! + words[word + 9]! * TWO_TO_32
    this.attempt = attempt
    this.key = words[word + 12]! + words[word + 13]! * TWO_TO_32
    this.#idLow = words[word + 4]!
    this.#idHigh = words[word + 5]!
    this.#timeLow = words[word + 6]!
    this.#timeHigh = words[word + 7]!
    if (block === scratch) {
      this.#headerBlock = headerBytes === 0 ? undefined : copy(block, headerAt, payloadAt)
      this.payload = copy(block, payloadAt, payloadEnd)
    } else {
      // A large record has its block to itself.
      this.#headerBlock = block.subarray(headerAt, payloadAt)
      this.payload = block.subarray(payloadAt, payloadEnd)
    }
  }

  /** The id its publisher gave it, unique on this mesh; of requests and answers, the call's number. */
  get id(): bigint {
    return (BigInt(this.#idHigh) << 32n) | BigInt(this.#idLow)
  }

  /** When it was published, in nanoseconds since 1970 UTC. */
  get timestamp(): bigint {
    return (BigInt(this.#timeHigh) << 32n) | BigInt(this.#timeLow)
  }

  /** Its headers. Of a name that came twice, the first counts. */
  get headers(): Headers {
    return (this.#headers ??= parseHeaders(this.#headerBlock))
  }

  /** How the payload is encoded, as the `content-type` header says. */
  get contentType(): string | undefined {
    return this.#headerBlock === undefined ? undefined : this.headers['content-type']
  }

  /**
   * The payload as its content type says: parsed JSON, text, or the bytes. Decoded anew each time.
   *
   * @throws FlowMeshError `INVALID_ARGUMENT`: it is not the JSON that its content type says.
   */
  get value(): any {
    return decode(this.payload, this.contentType)
  }

  /** The payload as UTF-8 text, whatever its content type. */
  get text(): string {
    return utf8(this.payload)
  }

  /** @internal */
  [Symbol.for('nodejs.util.inspect.custom')](): object {
    const { subject, payload, headers, id, timestamp, priority, gap, attempt } = this
    return { subject, payload, headers, id, timestamp, priority, gap, attempt }
  }
}

/** @internal A request and what is left of its time. */
export interface Incoming {
  readonly message: Message
  readonly remainingMs: number
}

/** @internal Reads events into `out` and returns the subject of the last, given that of the one before. */
export function readEvents(batch: Batch, subject: string, out: Message[]): string {
  const [block, words, end] = open(batch)
  for (let at = 0; at < end; at += words[at >>> 2]!) {
    const lengths = words[(at >>> 2) + 1]!
    if ((lengths & SAME_SUBJECT) === 0) subject = subjectAt(block, at, lengths)
    out.push(new Message(subject, words[(at >>> 2) + 10]!, block, words, at))
  }
  return subject
}

/** @internal Reads requests or answers. */
export function readRequests(batch: Batch): Incoming[] {
  const [block, words, end] = open(batch)
  const found: Incoming[] = []
  for (let at = 0; at < end; at += words[at >>> 2]!) {
    const subject = subjectAt(block, at, words[(at >>> 2) + 1]!)
    const remainingMs = words[(at >>> 2) + 10]!
    found.push({ message: new Message(subject, 1, block, words, at), remainingMs })
  }
  return found
}

function open(batch: Batch): [block: Buffer, words: Uint32Array, end: number] {
  if (typeof batch === 'number') return [scratch, scratchWords, batch & ~7]
  const block = batch.byteOffset % 4 === 0 ? batch : Buffer.from(new Uint8Array(batch).buffer)
  return [block, new Uint32Array(block.buffer, block.byteOffset, block.byteLength >>> 2), block.byteLength]
}

function subjectAt(block: Buffer, at: number, lengths: number): string {
  const from = at + RECORD_HEADER_BYTES
  return block.toString('utf8', from, from + (lengths >>> 16))
}

function copy(block: Buffer, from: number, to: number): Buffer {
  const own = Buffer.allocUnsafe(to - from)
  block.copy(own, 0, from, to)
  return own
}

function parseHeaders(block: Buffer | undefined): Headers {
  const headers = new Map<string, string>()
  for (let at = 0; block !== undefined && at + 4 <= block.length; ) {
    const nameAt = at + 4
    const valueAt = nameAt + block.readUInt16LE(at)
    const end = valueAt + block.readUInt16LE(at + 2)
    const name = block.toString('utf8', nameAt, valueAt)
    if (!headers.has(name)) headers.set(name, block.toString('utf8', valueAt, end))
    at = end
  }
  return Object.freeze(Object.fromEntries(headers))
}

const RECORD_HEADER_BYTES = 56
const SAME_SUBJECT = 1
const TWO_TO_32 = 2 ** 32
const scratchWords = new Uint32Array(scratch.buffer, scratch.byteOffset, scratch.byteLength >>> 2)
