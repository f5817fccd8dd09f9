//! Publishing.

use crate::{
    flowmesh_status,
    guard::guard,
    mesh::{MeshHandle, flowmesh_mesh},
    options::flowmesh_publish_options,
};
use std::ffi::{c_char, c_void};

/// An event for `flowmesh_publish_many`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_event {
    /// Where it goes.
    pub subject: *const c_char,
    /// Its bytes; NULL when `payload_bytes` is 0.
    pub payload: *const c_void,
    /// How many there are.
    pub payload_bytes: usize,
}

/// § Publishing events
///
/// Publishes one event. `payload` is copied. `options` may be NULL; `id`, unless NULL, gets the message's number,
/// unique on this mesh.
///
/// A subject is tokens with dots between them, `orders.created`, at most 32 and 255 bytes; those that begin with
/// `$` belong to FlowMesh. Events of one publisher reach each subscriber in their order.
///
/// Threads: any. Blocks only while there is no room, or while a subscriber that makes publishers wait is full; at
/// most `timeout_ms` of the options. Signals do not end that wait.
///
/// # Errors
/// `INVALID_ARGUMENT`: the subject, or an option. `TOO_LARGE`: payload or headers over their limit. `TIMEOUT`: no
/// room came in time. `CLOSED`. `DISCONNECTED`: the host is gone. `FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_publish(
    mesh: *mut flowmesh_mesh,
    subject: *const c_char,
    payload: *const c_void,
    payload_bytes: usize,
    options: *const flowmesh_publish_options,
    id: *mut u64,
) -> flowmesh_status {
    guard("flowmesh_publish", |call| {
        let mesh = call.live::<MeshHandle>(mesh)?;
        // SAFETY: the arguments are as the manual asks.
        let (subject, payload) =
            unsafe { (call.text(subject, "subject")?, call.bytes(payload, payload_bytes, "payload")?) };
        // SAFETY: NULL is nowhere to write, anything else is as the manual asks.
        let out = unsafe { call.optional_out(id, 0, "id") }?;
        let published = if options.is_null() {
            mesh.mesh.publish(subject, payload)?
        } else {
            // SAFETY: the arguments are as the manual asks.
            let options = unsafe { call.options(options)?.read(call)? };
            mesh.mesh.publish_with(subject, payload, &options)?
        };
        if let Some(out) = out {
            out.set(published);
        }
        Ok(())
    })
}

/// Publishes `event_count` events in their order with one wake-up: much cheaper each than one by one. All are
/// checked before the first is sent, so a refused batch publishes nothing. `options` may be NULL and count for
/// every event.
///
/// Threads and blocking: as `flowmesh_publish`.
///
/// # Errors
/// As `flowmesh_publish`. The context of the error says under `published` how many, from the first on, were sent before it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_publish_many(
    mesh: *mut flowmesh_mesh,
    events: *const flowmesh_event,
    event_count: usize,
    options: *const flowmesh_publish_options,
) -> flowmesh_status {
    guard("flowmesh_publish_many", |call| {
        let mesh = call.live::<MeshHandle>(mesh)?;
        // SAFETY: the arguments are as the manual asks.
        let (events, options) = unsafe {
            let events = call.slice(events, event_count, "events")?.iter().map(|event| {
                let payload = call.bytes(event.payload, event.payload_bytes, "event.payload")?;
                Ok((call.text(event.subject, "event.subject")?, payload))
            });
            (events.collect::<flowmesh::Result<Vec<_>>>()?, call.options(options)?.read(call)?)
        };
        mesh.mesh.publish_many(&events, &options)
    })
}
