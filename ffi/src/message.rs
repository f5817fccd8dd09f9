//! Messages: events, requests and answers.

use crate::{
    flowmesh_bytes, flowmesh_status, flowmesh_text,
    guard::{Call, guard, guard_value},
    handle::Live,
};
use flowmesh::{Delivery, ErrorKind, Message, Result};
use std::{
    ffi::{CStr, c_char},
    sync::OnceLock,
};

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
        Ok(read(call, message)?.texts().text(0))
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
        let message = read(call, message)?;
        if name.is_null() {
            return Err(call.null("name"));
        }
        // SAFETY: not NULL, and the manual asks for a C string.
        let name = unsafe { CStr::from_ptr(name) }.to_bytes();
        Ok(message.header(name))
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
        let message = read(call, message)?;
        let texts = message.texts();
        if index >= texts.header_count() {
            let count = texts.header_count();
            return Err(call.error(ErrorKind::NotFound).with("index", index).with("header_count", count));
        }
        for (out, text) in [(name, 1 + 2 * index), (value, 2 + 2 * index)] {
            if !out.is_null() {
                // SAFETY: not NULL, and the rest is as the manual asks.
                unsafe { call.out(out, flowmesh_text::NONE, "out") }?.set(texts.text(text));
            }
        }
        Ok(())
    })
}

/// How its payload is encoded: the value of the header `content-type`, like `"application/json"`; no text when
/// it does not say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_message_content_type(message: *const flowmesh_message) -> flowmesh_text {
    guard_value("flowmesh_message_content_type", flowmesh_text::NONE, |call| {
        Ok(read(call, message)?.header(b"content-type"))
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
        if count == 0 {
            return Ok(());
        }
        let mut outcome = Ok(());
        // SAFETY: the manual asks for `count` places.
        for place in unsafe { call.room(messages, count, "messages") }? {
            // SAFETY: the caller filled each place, with NULL if with nothing else.
            let message = unsafe { place.assume_init_read() };
            outcome = outcome.and(call.free::<MessageHandle>(message, |_| ()));
            place.write(std::ptr::null_mut());
        }
        outcome
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
        self.texts.get_or_init(|| Texts::of(&self.delivery.message))
    }

    fn header(&self, name: &[u8]) -> flowmesh_text {
        let position = self.delivery.message.headers().position(|(found, _)| found.as_bytes() == name);
        position.map_or(flowmesh_text::NONE, |index| self.texts().text(2 + 2 * index))
    }
}

/// The texts of a message with a NUL behind each, made when the first is asked for: in the frame they lie
/// without.
struct Texts {
    bytes: Box<[u8]>,
    /// Where each text ends, before its NUL: the subject, then name and value of each header.
    ends: Box<[u32]>,
}

impl Texts {
    fn of(message: &Message) -> Self {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        let headers = message.headers().flat_map(|(name, value)| [name, value]);
        for text in [message.subject()].into_iter().chain(headers) {
            bytes.extend_from_slice(text.as_bytes());
            ends.push(u32::try_from(bytes.len()).expect("the wire format keeps all texts below 17 KiB"));
            bytes.push(0);
        }
        Self { bytes: bytes.into(), ends: ends.into() }
    }

    fn header_count(&self) -> usize {
        self.ends.len() / 2
    }

    fn text(&self, index: usize) -> flowmesh_text {
        let from = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize + 1);
        let text = &self.bytes[from..self.ends[index] as usize];
        flowmesh_text { data: text.as_ptr().cast(), size: text.len() }
    }
}
