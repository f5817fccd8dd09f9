// Arguments: refused with the value and the rule, never converted in silence.

import { FlowMeshError } from './errors.js'
import type { Signal } from './types.js'

/** The longest time that can be given, in milliseconds: 49 days. */
export const TIME_MS_MAX = 49 * 24 * 3600 * 1000

/** An argument that breaks a rule. */
export function invalid(operation: string, name: string, value: unknown, rule: string, cause?: unknown): FlowMeshError {
  const options = cause === undefined ? {} : { cause }
  return new FlowMeshError('INVALID_ARGUMENT', operation, { [name]: show(value), rule }, options)
}

/** A value as an error shows it: short, and without running code of its owner. */
export function show(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return JSON.stringify(value.length > 64 ? `${value.slice(0, 64)}…` : value)
    case 'bigint':
      return `${value}n`
    case 'number':
    case 'boolean':
    case 'undefined':
      return String(value)
    case 'symbol':
    case 'function':
      return `a ${typeof value}`
    default:
      if (value === null) return 'null'
      return Array.isArray(value) ? 'an array' : `an object (${Object.prototype.toString.call(value).slice(8, -1)})`
  }
}

export function text(operation: string, name: string, value: unknown): string {
  if (typeof value !== 'string') throw invalid(operation, name, value, 'must be a string')
  if (!value.isWellFormed()) throw invalid(operation, name, value, 'must be well-formed Unicode: it has half a character')
  return value
}

export function number(operation: string, name: string, value: unknown, min: number, max: number): number {
  if (typeof value !== 'number' || !(value >= min && value <= max)) {
    throw invalid(operation, name, value, `must be a number from ${min} to ${max}`)
  }
  return value
}

export function integer(operation: string, name: string, value: unknown, min: number, max: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
    throw invalid(operation, name, value, `must be a whole number from ${min} to ${max}`)
  }
  return value
}

export function flag(operation: string, name: string, value: unknown): boolean {
  if (typeof value !== 'boolean') throw invalid(operation, name, value, 'must be true or false')
  return value
}

export function oneOf<T extends string>(operation: string, name: string, value: unknown, allowed: readonly T[]): T {
  if (!allowed.includes(value as T)) throw invalid(operation, name, value, `must be one of ${allowed.join(', ')}`)
  return value as T
}

export function callable<T>(operation: string, name: string, value: T): T {
  if (typeof value !== 'function') throw invalid(operation, name, value, 'must be a function')
  return value
}

export function signal(operation: string, value: unknown): Signal {
  const found = value as Signal | null
  if (typeof found !== 'object' || found === null || typeof found.aborted !== 'boolean') {
    throw invalid(operation, 'signal', value, 'must be an AbortSignal')
  }
  return found
}

/** Options as an object with no other names than `known`: a typing error is not a default. */
export function options<T extends object>(operation: string, value: T | undefined, known: readonly (keyof T & string)[]): T {
  if (value === undefined) return {} as T
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid(operation, 'options', value, 'must be an object')
  }
  for (const name of Object.keys(value)) {
    if (!known.includes(name as keyof T & string)) {
      throw invalid(operation, 'option', name, `must be one of ${known.join(', ')}`)
    }
  }
  return value
}

/** Applies `check` to a value that may be left out. */
export function optional<T, R>(value: T | undefined, check: (value: T) => R): R | undefined {
  return value === undefined ? undefined : check(value)
}
