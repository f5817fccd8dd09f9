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
