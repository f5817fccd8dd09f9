//! Subscribing and receiving.

use crate::{
    callback::{Context, failure, flowmesh_drop},
    error, flowmesh_status, flowmesh_text,
    guard::{guard, guard_number, guard_value},
    handle::take_back,
    mesh::{MeshHandle, flowmesh_mesh},
    message::{MessageHandle, flowmesh_message},
    options::flowmesh_subscribe_options,
    stats::{SubscriptionTexts, flowmesh_subscription_stats},
    wait::Interrupt,
};
use flowmesh::{Delivery, HandlerError, Subscription};
use std::{
    ffi::{CString, c_char, c_void},
    ptr,
};

/// A subscription: the events that match its pattern, waiting to be received.
pub struct flowmesh_subscription {
    _opaque: (),
}

/// Handles one event, which is lent until it returns. Returns `FLOWMESH_OK`, or a failure: most easily with
/// `return flowmesh_handler_error(...)`.
pub type flowmesh_event_handler =
    Option<unsafe extern "C" fn(context: *mut c_void, message: *const flowmesh_message) -> flowmesh_status>;

pub(crate) struct SubscriptionHandle {
    subscription: Subscription,
    interrupt: Interrupt,
    pattern: CString,
    texts: SubscriptionTexts,
}

/// § Subscribing
///
/// Subscribes to a pattern: a subject in which `*` stands for any one token and `>`, at the end, for one or more.
/// `options` may be NULL. Events published after this returned are received. The subscription in `*out` is the
/// caller's to free.
///
/// Threads: any. Blocks until the host has answered.
///
/// # Errors
/// `INVALID_ARGUMENT`: the pattern, or an option. `CLOSED`. `DISCONNECTED`. `FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_subscribe(
    mesh: *mut flowmesh_mesh,
    pattern: *const c_char,
    options: *const flowmesh_subscribe_options,
    out: *mut *mut flowmesh_subscription,
) -> flowmesh_status {
    guard("flowmesh_subscribe", |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.out(out, ptr::null_mut(), "out") }?;
        let mesh = call.live::<MeshHandle>(mesh)?;
        // SAFETY: the arguments are as the manual asks.
        let (pattern, options) =
            unsafe { (call.text(pattern, "pattern")?, call.options(options)?.read(call)?) };
        let subscription = mesh.mesh.subscribe_with(pattern, options)?;
        out.set(call.give(SubscriptionHandle::new(subscription, &mesh))?);
        Ok(())
    })
}

/// Subscribes and has `handler` called for each event, one at a time, in a thread of the library. A failure it
/// returns is as good as `flowmesh_subscription_fail`. `options`, `context` and `drop` may be NULL.
///
/// The subscription in `*out` is the caller's to free, which ends the calls; freeing it inside the handler is
/// allowed. `drop(context)` is called exactly once, also when this function fails.
///
/// Threads: any. Blocks until the host has answered.
///
/// # Errors
/// As `flowmesh_subscribe`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_on(
    mesh: *mut flowmesh_mesh,
    pattern: *const c_char,
    options: *const flowmesh_subscribe_options,
    handler: flowmesh_event_handler,
    context: *mut c_void,
    drop: flowmesh_drop,
    out: *mut *mut flowmesh_subscription,
) -> flowmesh_status {
    let context = Context::new(context, drop);
    guard("flowmesh_on", move |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.out(out, ptr::null_mut(), "out") }?;
        let mesh = call.live::<MeshHandle>(mesh)?;
        // SAFETY: the arguments are as the manual asks.
        let (pattern, options) =
            unsafe { (call.text(pattern, "pattern")?, call.options(options)?.read(call)?) };
        let handler = handler.ok_or_else(|| call.null("handler"))?;
        let handle = move |delivery: &Delivery| -> std::result::Result<(), HandlerError> {
            let lent = call.give(MessageHandle::new(delivery.clone()))?;
            // SAFETY: the manual asks for a function that takes this context and a message.
            let status = unsafe { handler(context.pointer(), lent) };
            take_back(lent);
            if status == 0 { Ok(()) } else { Err(failure(status)) }
        };
        let subscription = mesh.mesh.on(pattern, options, handle)?;
        out.set(call.give(SubscriptionHandle::new(subscription, &mesh))?);
        Ok(())
    })
}

/// Receives the next event, waiting at most `timeout_ms`: below 0 for ever, 0 only looks. The message in `*out` is
/// the caller's to free; without one, `*out` is NULL.
///
/// Threads: any; several may receive from one subscription, and each event goes to one of them.
///
/// # Errors
/// `TIMEOUT`: none came. `INTERRUPTED`: a signal came (see `on_signal`). `CLOSED`: the subscription or the mesh
/// was closed or freed, also while this waited. `DISCONNECTED`: the host is gone. `SLOW_CONSUMER`: it fell behind
/// and was ended, as its options say. `FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_subscription_receive(
    subscription: *mut flowmesh_subscription,
    timeout_ms: i64,
    out: *mut *mut flowmesh_message,
) -> flowmesh_status {
    guard("flowmesh_subscription_receive", |call| {
        // SAFETY: the arguments are as the manual asks.
        let out = unsafe { call.out(out, ptr::null_mut(), "out") }?;
        let handle = call.live::<SubscriptionHandle>(subscription)?;
        let delivery = handle.interrupt.waiting(timeout_ms, |wait| handle.subscription.receive_wait(wait))?;
        out.set(call.give(MessageHandle::new(delivery))?);
        Ok(())
    })
}

/// Waits for one event as `flowmesh_subscription_receive` does, then takes all that are there, up to `capacity`, into
/// `messages`; `*count` says how many. Each is the caller's to free (`flowmesh_message_free_many`).
///
/// # Errors
/// As `flowmesh_subscription_receive`; `*count` is 0 then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_subscription_receive_many(
    subscription: *mut flowmesh_subscription,
    timeout_ms: i64,
    messages: *mut *mut flowmesh_message,
    capacity: usize,
    count: *mut usize,
) -> flowmesh_status {
    guard("flowmesh_subscription_receive_many", |call| {
        // SAFETY: the arguments are as the manual asks.
        let (count, room) =
            unsafe { (call.out(count, 0, "count")?, call.room(messages, capacity, "messages")?) };
        let handle = call.live::<SubscriptionHandle>(subscription)?;
        if capacity == 0 {
            return Err(call.invalid("capacity", 0, "it is at least 1"));
        }
        let mut deliveries = Vec::new();
        handle
            .interrupt
            .waiting(timeout_ms, |wait| handle.subscription.receive_many(capacity, wait, &mut deliveries))?;
        count.set(deliveries.len());
        let mut outcome = Ok(());
        for (place, delivery) in room.iter_mut().zip(deliveries) {
            let given = call.give(MessageHandle::new(delivery));
            place.write(*given.as_ref().unwrap_or(&ptr::null_mut()));
            outcome = outcome.and(given.map(drop));
        }
        outcome
    })
}

/// Says that handling `message`, received from this subscription, failed: it is delivered again after the
/// options' backoff until `max_attempts`, then goes to `dead_letter`; without `max_attempts` it is only counted.
/// `type` is a short name of the failure, `why` a sentence. The message is still to be freed.
///
/// Threads: any. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_subscription_fail(
    subscription: *mut flowmesh_subscription,
    message: *const flowmesh_message,
    r#type: *const c_char,
    why: *const c_char,
) -> flowmesh_status {
    guard("flowmesh_subscription_fail", |call| {
        let handle = call.live::<SubscriptionHandle>(subscription)?;
        let message = call.live::<MessageHandle>(message)?;
        // SAFETY: the arguments are as the manual asks.
        let (kind, why) = unsafe { (call.text(r#type, "type")?, call.text(why, "why")?) };
        let failure = HandlerError { kind: kind.to_owned(), message: why.to_owned() };
        handle.subscription.fail(message.delivery.clone(), &failure)
    })
}

/// This subscription's own counts, into `*out`, which begins with its size (`FLOWMESH_SUBSCRIPTION_STATS_INIT`). Its
/// texts are lent until the subscription is freed.
///
/// Threads: any. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_subscription_get_stats(
    subscription: *const flowmesh_subscription,
    out: *mut flowmesh_subscription_stats,
) -> flowmesh_status {
    guard("flowmesh_subscription_get_stats", |call| {
        let handle = call.live::<SubscriptionHandle>(subscription)?;
        let stats = handle.subscription.stats();
        let filled = handle.texts.fill(&stats);
        // SAFETY: the manual asks for a struct that begins with its size.
        unsafe { call.fill(out, &filled) }
    })
}

/// A descriptor that is readable while an event waits or the subscription is closed, or a negative status. For
/// `poll`, `epoll` and their like: do not read, write or close it. It lives until the subscription is freed.
///
/// When it is readable, receive with timeout 0 until `TIMEOUT`.
///
/// Threads: any. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_subscription_fd(subscription: *const flowmesh_subscription) -> i32 {
    guard_number("flowmesh_subscription_fd", |call| {
        call.live::<SubscriptionHandle>(subscription)?.subscription.fd()
    })
}

/// Its pattern, lent until it is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_subscription_pattern(
    subscription: *const flowmesh_subscription,
) -> flowmesh_text {
    guard_value("flowmesh_subscription_pattern", flowmesh_text::NONE, |call| {
        let handle = call.live::<SubscriptionHandle>(subscription)?;
        Ok(flowmesh_text { data: handle.pattern.as_ptr(), size: handle.pattern.count_bytes() })
    })
}

/// Unsubscribes: what already waits can still be received, then comes `CLOSED`. Closing again does nothing.
///
/// Threads: any, also inside its own handler; whoever waits in it is woken.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_subscription_close(
    subscription: *mut flowmesh_subscription,
) -> flowmesh_status {
    guard("flowmesh_subscription_close", |call| {
        call.live::<SubscriptionHandle>(subscription)?.subscription.close();
        Ok(())
    })
}

/// 1 when it was closed or ended, 0 when not, or a negative status.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_subscription_is_closed(subscription: *const flowmesh_subscription) -> i32 {
    guard_number("flowmesh_subscription_is_closed", |call| {
        Ok(i32::from(call.live::<SubscriptionHandle>(subscription)?.subscription.is_closed()))
    })
}

/// Closes and frees it. Messages received from it stay. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_subscription_free(
    subscription: *mut flowmesh_subscription,
) -> flowmesh_status {
    guard("flowmesh_subscription_free", |call| {
        call.free::<SubscriptionHandle>(subscription, |handle| handle.subscription.close())
    })
}

impl SubscriptionHandle {
    fn new(subscription: Subscription, mesh: &MeshHandle) -> Self {
        let pattern = error::c_string(subscription.pattern());
        Self { subscription, interrupt: mesh.interrupt, pattern, texts: SubscriptionTexts::default() }
    }
}
