// Values as bytes and back, by content type: the same rules in every language.

import { types } from 'node:util'
import { invalid, text } from './check.js'
import type { Headers } from './types.js'

export const JSON_TYPE = 'application/json'
export const TEXT_TYPE = 'text/plain; charset=utf-8'

/** A value on its way out: what native code takes, and how it is encoded. */
export interface Encoded {
  readonly payload: Uint8Array | string
  /** None for bytes. */
  readonly contentType: string | undefined
}

export function encode(operation: string, value: unknown): Encoded {
  if (types.isUint8Array(value)) return { payload: value, contentType: undefined }
  if (typeof value === 'string') return { payload: text(operation, 'payload', value), contentType: TEXT_TYPE }
  return { payload: encodeJson(operation, value), contentType: JSON_TYPE }
}

function encodeJson(operation: string, value: unknown): string {
  const rule = 'must be a Uint8Array, a string, or an object that JSON can carry'
  if (typeof value !== 'object' || value === null) throw invalid(operation, 'payload', value, rule)
  if (ArrayBuffer.isView(value) || types.isAnyArrayBuffer(value)) {
    throw invalid(operation, 'payload', value, `${rule}; wrap other binary data in a Uint8Array`)
  }
  // JSON would make `{}` of these.
  if (types.isMap(value) || types.isSet(value) || types.isPromise(value)) throw invalid(operation, 'payload', value, rule)
  let json: string | undefined
  try {
    json = JSON.stringify(value)
  } catch (cause) {
    throw invalid(operation, 'payload', value, `${rule}: ${String(cause)}`, cause)
  }
  if (json === undefined) throw invalid(operation, 'payload', value, rule)
  return json
}

/** Headers as names and values in turns, `contentType` added unless they name one; `undefined` for none. */
export function flatHeaders(operation: string, headers: Headers | undefined, contentType?: string): string[] | undefined {
  if (headers === undefined) return contentType === undefined ? undefined : ['content-type', contentType]
  if (typeof headers !== 'object' || headers === null || Array.isArray(headers)) {
    throw invalid(operation, 'headers', headers, 'must be an object of strings')
  }
  const flat: string[] = []
  for (const [name, value] of Object.entries(headers)) {
    if (name === 'content-type') contentType = undefined
    flat.push(text(operation, 'header', name), text(operation, `header ${name}`, value))
  }
  if (contentType !== undefined) flat.push('content-type', contentType)
  return flat
}

/** The value that bytes stand for: parsed JSON, text, or the bytes themselves. */
export function decode(payload: Uint8Array, contentType: string | undefined): unknown {
  const type = contentType?.split(';', 1)[0]!.trim().toLowerCase()
  if (type === undefined) return payload
  if (type === JSON_TYPE || type.endsWith('+json')) {
    try {
      return JSON.parse(utf8(payload))
    } catch (cause) {
      throw invalid('message.value', 'payload', payload, `must be JSON, as its content type says: ${String(cause)}`, cause)
    }
  }
  return type.startsWith('text/') ? utf8(payload) : payload
}

export function utf8(payload: Uint8Array): string {
  return Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength).toString('utf8')
}
