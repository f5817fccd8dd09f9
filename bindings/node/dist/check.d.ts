import { FlowMeshError } from './errors.js';
import type { Signal } from './types.js';
/** The longest time that can be given, in milliseconds: 49 days. */
export declare const TIME_MS_MAX: number;
/** An argument that breaks a rule. */
export declare function invalid(operation: string, name: string, value: unknown, rule: string, cause?: unknown): FlowMeshError;
/** A value as an error shows it: short, and without running code of its owner. */
export declare function show(value: unknown): string;
export declare function text(operation: string, name: string, value: unknown): string;
export declare function number(operation: string, name: string, value: unknown, min: number, max: number): number;
export declare function integer(operation: string, name: string, value: unknown, min: number, max: number): number;
export declare function flag(operation: string, name: string, value: unknown): boolean;
export declare function oneOf<T extends string>(operation: string, name: string, value: unknown, allowed: readonly T[]): T;
export declare function callable<T>(operation: string, name: string, value: T): T;
export declare function signal(operation: string, value: unknown): Signal;
/** Options as an object with no other names than `known`: a typing error is not a default. */
export declare function options<T extends object>(operation: string, value: T | undefined, known: readonly (keyof T & string)[]): T;
/** Applies `check` to a value that may be left out. */
export declare function optional<T, R>(value: T | undefined, check: (value: T) => R): R | undefined;
