"use strict";
// What the host counts, as plain data: core/src/stats.rs in JavaScript's spelling.
//
// Counts are numbers, exact up to 2^53; ids are `bigint`.
Object.defineProperty(exports, "__esModule", { value: true });
