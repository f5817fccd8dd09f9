"use strict";
// The native side: numbers for objects, batches in shared memory. native/calls.rs has the same list.
Object.defineProperty(exports, "__esModule", { value: true });
exports.native = void 0;
const node_fs_1 = require("node:fs");
const node_path_1 = require("node:path");
const errors_js_1 = require("./errors.js");
function load() {
    const file = (0, node_path_1.join)(__dirname, '..', `flowmesh.${process.platform}-${process.arch}.node`);
    if (!(0, node_fs_1.existsSync)(file)) {
        throw new errors_js_1.FlowMeshError('UNSUPPORTED', 'flowmesh.load', { file, rule: 'run `npm run build` in the package' });
    }
    try {
        return require(file);
    }
    catch (cause) {
        throw new errors_js_1.FlowMeshError('UNSUPPORTED', 'flowmesh.load', { file, reason: String(cause) }, { cause });
    }
}
exports.native = load();
