"use strict";
/// <reference lib="esnext.disposable" preserve="true" />
// The package `flowmesh`, for `require`. `index.mts` gives the same objects to `import`.
Object.defineProperty(exports, "__esModule", { value: true });
exports.Subscription = exports.Service = exports.Reply = exports.open = exports.Mesh = exports.connectTcp = exports.connect = exports.Message = exports.FlowMeshError = exports.errorKinds = void 0;
var errors_js_1 = require("./errors.js");
Object.defineProperty(exports, "errorKinds", { enumerable: true, get: function () { return errors_js_1.errorKinds; } });
Object.defineProperty(exports, "FlowMeshError", { enumerable: true, get: function () { return errors_js_1.FlowMeshError; } });
var message_js_1 = require("./message.js");
Object.defineProperty(exports, "Message", { enumerable: true, get: function () { return message_js_1.Message; } });
var mesh_js_1 = require("./mesh.js");
Object.defineProperty(exports, "connect", { enumerable: true, get: function () { return mesh_js_1.connect; } });
Object.defineProperty(exports, "connectTcp", { enumerable: true, get: function () { return mesh_js_1.connectTcp; } });
Object.defineProperty(exports, "Mesh", { enumerable: true, get: function () { return mesh_js_1.Mesh; } });
Object.defineProperty(exports, "open", { enumerable: true, get: function () { return mesh_js_1.open; } });
var service_js_1 = require("./service.js");
Object.defineProperty(exports, "Reply", { enumerable: true, get: function () { return service_js_1.Reply; } });
Object.defineProperty(exports, "Service", { enumerable: true, get: function () { return service_js_1.Service; } });
var subscription_js_1 = require("./subscription.js");
Object.defineProperty(exports, "Subscription", { enumerable: true, get: function () { return subscription_js_1.Subscription; } });
