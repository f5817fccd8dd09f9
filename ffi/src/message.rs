//! Messages: events, requests and answers.

use crate::{
    flowmesh_bytes, flowmesh_status, flowmesh_text,
    guard::{Call, guard, guard_value},
    handle::Live,
    text::Texts,
};
use flowmesh::{Delivery, Message, Result};
use std::{ffi::c_char, sync::OnceLock};

/// A message: an event, a request or an answer. It never changes, so any number of threads may read it.
pub struct flowmesh_message {
    _opaque: (),
}

pub(crate) struct MessageHandle {
    pub(crate) delivery: Delivery,
    texts: OnceLock<Texts>,
}

/// § Messages
///
/// Where it was published; of a request or an answer, the service's name.
///
/// What these functions return is lent by the message until it is freed. With a bad handle they return an empty
/// value, and `flowmesh_error_code` says which error it was. Threads: any. They never block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_message_subject(message: *const flowmesh_message) -> flowmesh_text {
    guard_value("flowmesh_message_subject", flowmesh_text::NONE, |call| {
        Ok(read(call, message)?.texts().fixed(0))
    })
}

/// Its payload.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_message_payload(message: *const flowmesh_message) -> flowmesh_bytes {
    guard_value("flowmesh_message_payload", flowmesh_bytes::NONE, |call| {
        Ok(flowmesh_bytes::of(read(call, message)?.delivery.message.payload()))
    })
}

/// The value of its first header of that name; no text (`data` is NULL) when it has none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_message_header(
    message: *const flowmesh_message,
    name: *const c_char,
) -> flowmesh_text {
    guard_value("flowmesh_message_header", flowmesh_text::NONE, |call| {
        // SAFETY: the arguments are as the manual asks.
        unsafe { read(call, message)?.texts().header(call, name) }
    })
}

/// How many headers it has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_message_header_count(message: *const flowmesh_message) -> usize {
    guard_value("flowmesh_message_header_count", 0, |call| Ok(read(call, message)?.texts().header_count()))
}

/// Its header number `index`, from 0, in the order they were given. `name` and `value` may be NULL.
///
/// # Errors
/// `NOT_FOUND`: it has fewer headers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_message_header_at(
    message: *const flowmesh_message,
    index: usize,
    name: *mut flowmesh_text,
    value: *mut flowmesh_text,
) -> flowmesh_status {
    guard("flowmesh_message_header_at", |call| {
        // SAFETY: the arguments are as the manual asks.
        unsafe { read(call, message)?.texts().header_at(call, index, name, value) }
    })
}

/// How its payload is encoded: the value of the header `content-type`, like `"application/json"`; no text when
/// it does not say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_message_content_type(message: *const flowmesh_message) -> flowmesh_text {
    guard_value("flowmesh_message_content_type", flowmesh_text::NONE, |call| {
        Ok(read(call, message)?.texts().named(b"content-type"))
    })
}

/// The number its publisher's `flowmesh_publish` gave; of a request, the number of the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_message_id(message: *const flowmesh_message) -> u64 {
    guard_value("flowmesh_message_id", 0, |call| Ok(read(call, message)?.delivery.message.id()))
}

/// When it was published, in nanoseconds since 1970-01-01 UTC.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_message_timestamp_ns(message: *const flowmesh_message) -> u64 {
    guard_value("flowmesh_message_timestamp_ns", 0, |call| {
        Ok(read(call, message)?.delivery.message.timestamp().0)
    })
}

/// 0 to 9; higher is delivered first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_message_priority(message: *const flowmesh_message) -> i32 {
    guard_value("flowmesh_message_priority", 0, |call| {
        Ok(read(call, message)?.delivery.message.priority().into())
    })
}

/// How long after publishing it may still be delivered; 0: for ever.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_message_ttl_ms(message: *const flowmesh_message) -> i64 {
    guard_value("flowmesh_message_ttl_ms", 0, |call| {
        let ttl = read(call, message)?.delivery.message.ttl();
        Ok(ttl.map_or(0, |ttl| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)))
    })
}

/// How many events the subscription lost just before this one, because it was slow.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_message_gap(message: *const flowmesh_message) -> u64 {
    guard_value("flowmesh_message_gap", 0, |call| Ok(read(call, message)?.delivery.gap))
}

/// 1 the first time it is delivered, more when its handling failed before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_message_attempt(message: *const flowmesh_message) -> u32 {
    guard_value("flowmesh_message_attempt", 0, |call| Ok(read(call, message)?.delivery.attempt))
}

/// Frees a message, and with it all that it lent. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_message_free(message: *mut flowmesh_message) -> flowmesh_status {
    guard("flowmesh_message_free", |call| call.free::<MessageHandle>(message, |_| ()))
}

/// Frees `count` messages and sets their places to NULL; places that are NULL already are fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_message_free_many(
    messages: *mut *mut flowmesh_message,
    count: usize,
) -> flowmesh_status {
    guard("flowmesh_message_free_many", |call| {
        // SAFETY: the manual asks for `count` places.
        unsafe { call.free_many::<MessageHandle>(messages, count, "messages") }
    })
}

fn read(call: Call, message: *const flowmesh_message) -> Result<Live<MessageHandle>> {
    call.live::<MessageHandle>(message)
}

impl MessageHandle {
    pub(crate) fn new(delivery: Delivery) -> Self {
        Self { delivery, texts: OnceLock::new() }
    }

    /// A message that no subscription delivered.
    pub(crate) fn plain(message: Message) -> Self {
        Self::new(Delivery { message, gap: 0, attempt: 1 })
    }

    fn texts(&self) -> &Texts {
        self.texts.get_or_init(|| {
            let message = &self.delivery.message;
            Texts::of([message.subject()], message.headers())
        })
    }
}
