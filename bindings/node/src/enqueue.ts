// Jobs on their way into a queue: those of one turn of the program travel together.
//
// Each promise has its own outcome all the same. A call that the host refuses changed nothing, so it is divided and
// tried again until what is refused is alone; an error that leaves open what happened is that of all its jobs.

import { FlowMeshError } from './errors.js'
import { isTurnOver, job, type Linger } from './loop.js'
import { native, type QueueAnswer } from './native.js'
import type { Encoded } from './payload.js'
import { JSON_TYPE, TEXT_TYPE } from './payload.js'
import { packed, pending, reachedOf, whenAnswered } from './replies.js'
import type { Receipt } from './types.js'

interface Waiting {
  readonly end: number
  readonly resolve: (receipt: Receipt) => void
  readonly reject: (error: unknown) => void
}

/** Jobs laid out as native/queues.rs reads them. */
export class Packer {
  #bytes = Buffer.allocUnsafeSlow(BLOCK_BYTES)
  end = 0

  /** All of them so far. */
  get bytes(): Buffer {
    return this.#bytes
  }

  add(encoded: Encoded, options: string): void {
    const { payload, contentType } = encoded
    // UTF-8 takes at most three bytes for each unit of a string.
    const room = this.end + 8 + 3 * options.length + (typeof payload === 'string' ? 3 : 1) * payload.length
    if (room > this.#bytes.length) this.#grow(room)
    const bytes = this.#bytes
    const from = this.end + 8
    let at = from
    if (typeof payload === 'string') at += bytes.write(payload, at)
    else {
      bytes.set(payload, at)
      at += payload.length
    }
    const payloadBytes = at - from
    const optionBytes = options === '' ? 0 : bytes.write(options, at)
    const kind = contentType === undefined ? 0 : contentType === TEXT_TYPE ? 1 : contentType === JSON_TYPE ? 2 : 0
    bytes.writeUInt32LE(payloadBytes, this.end)
    bytes.writeUInt32LE(optionBytes * 4 + kind, this.end + 4)
    this.end = at + optionBytes
  }

  #grow(room: number): void {
    const larger = Buffer.allocUnsafeSlow(Math.max(room, this.#bytes.length * 2))
    this.#bytes.copy(larger, 0, 0, this.end)
    this.#bytes = larger
  }
}

/** The jobs that one program enqueues in one queue, in order. */
export class Enqueuer {
  readonly #queue: number
  /** More is sent from another thread. */
  readonly #smallBytes: number
  readonly #linger: Linger | undefined
  #packer = new Packer()
  #waiting: Waiting[] = []
  #durability = 0
  #scheduled = false
  /** What follows must not overtake it, as it may have to be tried again in parts. */
  #underWay = false
  /** Filled, and waiting for its turn. */
  readonly #full: Batch[] = []

  /** `linger`: only in clients. */
  constructor(queue: number, linger: Linger | undefined) {
    this.#queue = queue
    this.#linger = linger
    this.#smallBytes = linger === undefined ? HOST_SMALL_BYTES : CLIENT_SMALL_BYTES
  }

  enqueue(encoded: Encoded, options: string, durability: number): Promise<Receipt> {
    const length = encoded.payload.length
    if (this.#waiting.length > 0 && (durability !== this.#durability || this.#packer.end + length > BLOCK_BYTES)) this.#close()
    this.#durability = durability
    this.#packer.add(encoded, options)
    const { end } = this.#packer
    const receipt = new Promise<Receipt>((resolve, reject) => this.#waiting.push({ end, resolve, reject }))
    if (this.#waiting.length === BATCH_MAX) this.#close()
    if (!this.#scheduled) {
      this.#scheduled = true
      collecting.add(this)
      if (isTurnOver()) setImmediate(flush, this)
      else process.nextTick(flush, this)
    }
    return receipt
  }

  /** Sends what the program has asked for so far. */
  flush(): void {
    this.#scheduled = false
    collecting.delete(this)
    if (this.#waiting.length > 0) this.#close()
  }

  #close(): void {
    const packer = this.#packer
    this.#full.push({ bytes: packer.bytes, from: 0, end: packer.end, waiting: this.#waiting, durability: this.#durability, packer })
    this.#waiting = []
    this.#packer = spare.pop() ?? new Packer()
    this.#send()
  }

  #send(): void {
    while (this.#full.length > 0 && !this.#underWay) {
      const batch = this.#full.shift()!
      const done = this.#enqueue(batch)
      if (done === undefined) {
        reuse(batch.packer)
        continue
      }
      // A host refuses at once: what is under way there waits for the disk alone.
      const holdsUp = this.#linger !== undefined || batch.end > this.#smallBytes
      this.#underWay = holdsUp
      void done.then(() => {
        if (holdsUp) this.#underWay = false
        reuse(batch.packer)
        this.#send()
      })
    }
  }

  /** Settles the promises of a batch; `undefined` when that is done already. */
  #enqueue(batch: Batch): Promise<void> | undefined {
    const { bytes, from, end, waiting, durability } = batch
    const packedJobs = from === 0 ? bytes : bytes.subarray(from, end)
    const succeed = (answer: QueueAnswer): void => readReceipts(answer, (receipt, at) => waiting[at]!.resolve(receipt))
    const fail = (error: unknown): Promise<void> | undefined => this.#refuse(batch, error)
    try {
      let answer
      if (end - from > this.#smallBytes) {
        const id = native.startEnqueueJobs(this.#queue, packedJobs, end - from, durability)
        answer = job(id).then(() => {
          const answered = pending(id, succeed)
          native.watchReply(id)
          return answered
        })
      } else {
        answer = whenAnswered(native.enqueueJobs(this.#queue, packedJobs, end - from, durability), succeed, this.#linger)
      }
      return answer === undefined ? undefined : answer.then(undefined, fail)
    } catch (error) {
      return fail(error)
    }
  }

  #refuse(batch: Batch, error: unknown): Promise<void> | undefined {
    const { from, waiting } = batch
    if (waiting.length === 1 || !(error instanceof FlowMeshError) || !CHANGED_NOTHING.has(error.code)) {
      for (const { reject } of waiting) reject(error)
      return undefined
    }
    const half = waiting.length >>> 1
    const middle = waiting[half - 1]!.end
    const first = this.#enqueue({ ...batch, from, end: middle, waiting: waiting.slice(0, half) })
    // In this order, whatever is refused of the first half.
    const rest = (): Promise<void> | undefined => this.#enqueue({ ...batch, from: middle, waiting: waiting.slice(half) })
    return first === undefined ? rest() : first.then(rest)
  }
}

interface Batch {
  readonly bytes: Buffer
  readonly from: number
  readonly end: number
  readonly waiting: readonly Waiting[]
  readonly durability: number
  readonly packer: Packer
}

function reuse(packer: Packer): void {
  packer.end = 0
  if (spare.length < SPARE_MAX && packer.bytes.length === BLOCK_BYTES) spare.push(packer)
}

function flush(enqueuer: Enqueuer): void {
  enqueuer.flush()
}

/** Sends what the program has enqueued so far, in any queue. */
export function flushEnqueues(): void {
  for (const enqueuer of collecting) enqueuer.flush()
}

/** Reads what native/queue_options.rs packs. */
export function readReceipts(answer: QueueAnswer, use: (receipt: Receipt, at: number) => void): void {
  const [block] = packed(answer)
  const count = block.readUInt32LE(0)
  const durability = reachedOf(block.readUInt32LE(4), block.readDoubleLE(8))
  for (let index = 0, at = 16; index < count; index++, at += RECEIPT_BYTES) {
    const outcome = OUTCOMES[block[at]!]!
    const id = block.toString('latin1', at + 4, at + 40)
    use(outcome === 'replaced' ? { id, outcome, replaced: block.toString('latin1', at + 40, at + 76), durability } : { id, outcome, durability }, index)
  }
}

const collecting = new Set<Enqueuer>()
const OUTCOMES = ['new', 'replaced', 'existing', 'extended'] as const
const RECEIPT_BYTES = 80
/** Errors that say that nothing was enqueued. */
const CHANGED_NOTHING = new Set(['INVALID_ARGUMENT', 'TOO_LARGE', 'FULL', 'DRAINING', 'STORAGE_FULL', 'CONFLICT'])
const BATCH_MAX = 1000
const BLOCK_BYTES = 64 * 1024
/** Handing this much to the kernel takes less than a millisecond. */
export const HOST_SMALL_BYTES = 1024 * 1024
/** More may have to wait for room on its way to the host. */
export const CLIENT_SMALL_BYTES = 64 * 1024
const SPARE_MAX = 4
const spare: Packer[] = []
