// Types that several files share.

/** `AbortSignal`, wherever its type comes from: the DOM library or `@types/node`. */
export type Signal = typeof globalThis extends { AbortSignal: { prototype: infer S } }
  ? S
  : {
      readonly aborted: boolean
      readonly reason: any
      addEventListener(type: 'abort', listener: () => void, options?: { once?: boolean }): void
      removeEventListener(type: 'abort', listener: () => void): void
    }

/**
 * What can be sent: bytes untouched, text as UTF-8 (`text/plain; charset=utf-8`), any other object or array as
 * JSON (`application/json`).
 */
export type Payload = Uint8Array | string | object

/** Headers of a message, sent in this order. */
export type Headers = Readonly<Record<string, string>>

/** `URL`, wherever its type comes from. */
export type FileUrl = typeof globalThis extends { URL: { prototype: infer U } } ? U : { readonly href: string }

/** How safe a change is, or is to be, before its promise resolves: `'fsync'` survives a power cut, `'os'` the death of any process. */
export type Durability = 'os' | 'fsync' | { readonly intervalMs: number }

/** How safe a change is. `'memory'`: the mesh has no directory. */
export type Reached = Durability | 'memory'

/** What became of a job that was to be enqueued. */
export interface Receipt {
  /** The job that will be worked on. */
  readonly id: string
  /**
   * `'new'`: it was enqueued. `'replaced'`: so it was, in the place of `replaced`, which is cancelled. `'existing'`: it
   * was not, as that one has its id or unique key. `'extended'`: nor was it, and that one waits anew if it had a delay.
   */
  readonly outcome: 'new' | 'replaced' | 'existing' | 'extended'
  /** The job that was cancelled for it. */
  readonly replaced?: string
  /** How safe it is. */
  readonly durability: Reached
}
