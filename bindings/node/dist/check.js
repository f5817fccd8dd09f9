"use strict";
// Arguments: refused with the value and the rule, never converted in silence.
Object.defineProperty(exports, "__esModule", { value: true });
exports.TIME_MS_MAX = void 0;
exports.invalid = invalid;
exports.show = show;
exports.text = text;
exports.number = number;
exports.integer = integer;
exports.flag = flag;
exports.oneOf = oneOf;
exports.callable = callable;
exports.signal = signal;
exports.options = options;
exports.optional = optional;
const errors_js_1 = require("./errors.js");
/** The longest time that can be given, in milliseconds: 49 days. */
exports.TIME_MS_MAX = 49 * 24 * 3600 * 1000;
/** An argument that breaks a rule. */
function invalid(operation, name, value, rule, cause) {
    const options = cause === undefined ? {} : { cause };
    return new errors_js_1.FlowMeshError('INVALID_ARGUMENT', operation, { [name]: show(value), rule }, options);
}
/** A value as an error shows it: short, and without running code of its owner. */
function show(value) {
    switch (typeof value) {
        case 'string':
            return JSON.stringify(value.length > 64 ? `${value.slice(0, 64)}…` : value);
        case 'bigint':
            return `${value}n`;
        case 'number':
        case 'boolean':
        case 'undefined':
            return String(value);
        case 'symbol':
        case 'function':
            return `a ${typeof value}`;
        default:
            if (value === null)
                return 'null';
            return Array.isArray(value) ? 'an array' : `an object (${Object.prototype.toString.call(value).slice(8, -1)})`;
    }
}
function text(operation, name, value) {
    if (typeof value !== 'string')
        throw invalid(operation, name, value, 'must be a string');
    if (!value.isWellFormed())
        throw invalid(operation, name, value, 'must be well-formed Unicode: it has half a character');
    return value;
}
function number(operation, name, value, min, max) {
    if (typeof value !== 'number' || !(value >= min && value <= max)) {
        throw invalid(operation, name, value, `must be a number from ${min} to ${max}`);
    }
    return value;
}
function integer(operation, name, value, min, max) {
    if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
        throw invalid(operation, name, value, `must be a whole number from ${min} to ${max}`);
    }
    return value;
}
function flag(operation, name, value) {
    if (typeof value !== 'boolean')
        throw invalid(operation, name, value, 'must be true or false');
    return value;
}
function oneOf(operation, name, value, allowed) {
    if (!allowed.includes(value))
        throw invalid(operation, name, value, `must be one of ${allowed.join(', ')}`);
    return value;
}
function callable(operation, name, value) {
    if (typeof value !== 'function')
        throw invalid(operation, name, value, 'must be a function');
    return value;
}
function signal(operation, value) {
    const found = value;
    if (typeof found !== 'object' || found === null || typeof found.aborted !== 'boolean') {
        throw invalid(operation, 'signal', value, 'must be an AbortSignal');
    }
    return found;
}
/** Options as an object with no other names than `known`: a typing error is not a default. */
function options(operation, value, known) {
    if (value === undefined)
        return {};
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
        throw invalid(operation, 'options', value, 'must be an object');
    }
    for (const name of Object.keys(value)) {
        if (!known.includes(name)) {
            throw invalid(operation, 'option', name, `must be one of ${known.join(', ')}`);
        }
    }
    return value;
}
/** Applies `check` to a value that may be left out. */
function optional(value, check) {
    return value === undefined ? undefined : check(value);
}
