"use strict";
// Values as bytes and back, by content type: the same rules in every language.
Object.defineProperty(exports, "__esModule", { value: true });
exports.TEXT_TYPE = exports.JSON_TYPE = void 0;
exports.encode = encode;
exports.flatHeaders = flatHeaders;
exports.decode = decode;
exports.utf8 = utf8;
const node_util_1 = require("node:util");
const check_js_1 = require("./check.js");
exports.JSON_TYPE = 'application/json';
exports.TEXT_TYPE = 'text/plain; charset=utf-8';
function encode(operation, value) {
    if (node_util_1.types.isUint8Array(value))
        return { payload: value, contentType: undefined };
    if (typeof value === 'string')
        return { payload: (0, check_js_1.text)(operation, 'payload', value), contentType: exports.TEXT_TYPE };
    return { payload: encodeJson(operation, value), contentType: exports.JSON_TYPE };
}
function encodeJson(operation, value) {
    const rule = 'must be a Uint8Array, a string, or an object that JSON can carry';
    if (typeof value !== 'object' || value === null)
        throw (0, check_js_1.invalid)(operation, 'payload', value, rule);
    if (ArrayBuffer.isView(value) || node_util_1.types.isAnyArrayBuffer(value)) {
        throw (0, check_js_1.invalid)(operation, 'payload', value, `${rule}; wrap other binary data in a Uint8Array`);
    }
    // JSON would make `{}` of these.
    if (node_util_1.types.isMap(value) || node_util_1.types.isSet(value) || node_util_1.types.isPromise(value))
        throw (0, check_js_1.invalid)(operation, 'payload', value, rule);
    let json;
    try {
        json = JSON.stringify(value);
    }
    catch (cause) {
        throw (0, check_js_1.invalid)(operation, 'payload', value, `${rule}: ${String(cause)}`, cause);
    }
    if (json === undefined)
        throw (0, check_js_1.invalid)(operation, 'payload', value, rule);
    return json;
}
/** Headers as names and values in turns, `contentType` added unless they name one; `undefined` for none. */
function flatHeaders(operation, headers, contentType) {
    if (headers === undefined)
        return contentType === undefined ? undefined : ['content-type', contentType];
    if (typeof headers !== 'object' || headers === null || Array.isArray(headers)) {
        throw (0, check_js_1.invalid)(operation, 'headers', headers, 'must be an object of strings');
    }
    const flat = [];
    for (const [name, value] of Object.entries(headers)) {
        if (name === 'content-type')
            contentType = undefined;
        flat.push((0, check_js_1.text)(operation, 'header', name), (0, check_js_1.text)(operation, `header ${name}`, value));
    }
    if (contentType !== undefined)
        flat.push('content-type', contentType);
    return flat;
}
/** The value that bytes stand for: parsed JSON, text, or the bytes themselves. */
function decode(payload, contentType) {
    const type = contentType?.split(';', 1)[0].trim().toLowerCase();
    if (type === undefined)
        return payload;
    if (type === exports.JSON_TYPE || type.endsWith('+json')) {
        try {
            return JSON.parse(utf8(payload));
        }
        catch (cause) {
            throw (0, check_js_1.invalid)('message.value', 'payload', payload, `must be JSON, as its content type says: ${String(cause)}`, cause);
        }
    }
    return type.startsWith('text/') ? utf8(payload) : payload;
}
function utf8(payload) {
    return Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength).toString('utf8');
}
