"use strict";
// Types that several files share.
Object.defineProperty(exports, "__esModule", { value: true });
