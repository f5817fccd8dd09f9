//! An embeddable event fabric: events and RPC over shared memory between programs on one machine.
//!
//! One process opens a directory and is its *host*; others connect as *clients*. All hold a [`Mesh`] with
//! the same operations: publish and subscribe to events, serve and call services. There is no broker to
//! start; what a killed process leaves behind is the directory alone.
//!
//! ```
//! # let dir = std::env::temp_dir().join(format!("flowmesh-doc-lib-{}", std::process::id()));
//! use flowmesh::Mesh;
//!
//! let mesh = Mesh::open(&dir)?;
//! let orders = mesh.subscribe("orders.>")?;
//! mesh.publish("orders.eu.created", b"42")?;
//! assert_eq!(orders.receive(None)?.message.payload(), b"42");
//! # drop(mesh); std::fs::remove_dir_all(dir).ok();
//! # Ok::<(), flowmesh::Error>(())
//! ```
//!
//! `ARCHITECTURE.md` of the repository tells how it is built; the modules below [`Mesh`] are public for its
//! tests, benchmarks and fuzz targets and follow no version promise.

#[doc(hidden)]
#[cfg(not(loom))]
pub mod bus;
#[doc(hidden)]
pub mod clock;
pub mod error;
#[doc(hidden)]
#[cfg(not(loom))]
pub mod journal;
#[doc(hidden)]
#[cfg(not(loom))]
pub mod ledger;
#[cfg(not(loom))]
pub mod mesh;
pub mod name;
#[doc(hidden)]
#[cfg(not(loom))]
pub mod os;
#[cfg(not(loom))]
pub mod queue;
#[doc(hidden)]
#[cfg(not(loom))]
pub mod rpc;
#[doc(hidden)]
#[cfg(not(loom))]
pub mod session;
#[doc(hidden)]
pub mod shm;
pub mod stats;
#[doc(hidden)]
#[cfg(not(loom))]
pub mod storage;
mod sync;
#[doc(hidden)]
#[cfg(not(loom))]
pub use sync::lock;
#[doc(hidden)]
#[cfg(not(loom))]
pub mod wire;

#[cfg(not(loom))]
pub use bus::{Backoff, Delivery, OnSlow, Retry, SubscribeOptions};
pub use clock::Timestamp;
pub use error::{Error, ErrorKind, Result};
#[cfg(not(loom))]
pub use ledger::{CheckpointReport, Cut, Damage, Durability, Inspection, Lsn, SegmentReport, inspect};
#[cfg(not(loom))]
pub use mesh::{
    CallOptions, HandlerError, Job, JobError, Mesh, MeshBuilder, PendingCall, PendingReply, PublishOptions,
    Queue, ReadySet, Receipt, Reply, Request, Role, Service, Settle, Subscription, Wait, WaitStrategy,
    Worker, WorkerOptions, WorkerStats,
};
pub use name::{Name, Pattern, Subject};
#[cfg(not(loom))]
pub use rpc::{BreakerOptions, RateLimit, ServeOptions};
pub use stats::{
    BusStats, Histogram, InstanceInfo, ServiceInfo, ServiceStats, SessionStats, Stats, SubscriptionStats,
};
#[cfg(not(loom))]
pub use wire::Message;
