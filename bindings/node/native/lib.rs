//! The native half of the npm package `flowmesh`: a small private surface under the TypeScript layer.
//!
//! Objects are numbers here, events come in batches, and nothing is validated twice: the TypeScript layer
//! checks types and ranges, the core checks meaning. No call waits for another process, except
//! `awaitJob`, which says how long. What may wait runs on a thread of [`jobs`] and is taken later.
//!
//!   TypeScript ──call──▶ calls ──▶ core ──token──▶ ready set ──wake──▶ TypeScript ──take──▶ calls
//!
//! Each environment (the main thread, each worker) has its own [`state::State`]; environments share
//! nothing. An environment that ends closes all it opened.
#![deny(unsafe_code)]

mod calls;
mod jobs;
mod js;
mod options;
mod pack;
mod queue_options;
mod queues;
mod state;
