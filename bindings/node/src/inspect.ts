// Verifying a data directory without opening it.

import { job } from './loop.js'
import { directoryPath } from './mesh.js'
import { native } from './native.js'
import type { FileUrl } from './types.js'

/** What a data directory holds, and where it is not what was written. Numbers are exact up to 2^53. */
export interface Inspection {
  /** Every segment of the journal, oldest first. */
  readonly segments: readonly {
    readonly file: string
    readonly bytes: number
    /** Where its frames end. */
    readonly end: number
    /** Its first and last batch that are whole, if there is one. */
    readonly batches: readonly [first: number, last: number] | null
    readonly batchCount: number
  }[]
  /** Every sound checkpoint, oldest first. */
  readonly checkpoints: readonly {
    readonly file: string
    /** Replay begins with the batch after this one. */
    readonly begin: number
    /** Its images have seen no batch after this one. */
    readonly end: number
    readonly images: number
    readonly bytes: number
  }[]
  /** How many batches are whole, and how many entries they have. */
  readonly batches: number
  readonly entries: number
  /** The first and last batch that are there. */
  readonly range: readonly [first: number, last: number] | null
  /** What a crash left of batches that were never flushed: opening would cut it. No damage. */
  readonly tail: { readonly file: string; readonly offset: number; readonly bytes: number; readonly batches: number } | null
  /** Everything that is damaged. */
  readonly damages: readonly Damage[]
}

/** Where stored data is not what was written. */
export interface Damage {
  readonly file: string
  readonly offset: number
  readonly what: string
}

/**
 * Verifies what a data directory holds without opening it for writing; its host may have it open.
 *
 * ```js
 * const { damages } = await inspect('./data')
 * for (const { file, offset, what } of damages) console.log(`${file} at ${offset}: ${what}`)
 * ```
 *
 * @throws FlowMeshError `NOT_FOUND`: there is no such directory, or nothing durable in it. `UNSUPPORTED`: a newer
 * version wrote it.
 */
export async function inspect(directory: string | FileUrl): Promise<Inspection> {
  const path = directoryPath('mesh.inspect', directory)
  return JSON.parse((await job(native.inspect(path)))!) as Inspection
}
