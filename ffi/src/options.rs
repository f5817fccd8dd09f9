//! Options: structs that say their own size, so that they can grow.

use crate::{
    flowmesh_header, flowmesh_status,
    guard::{Call, guard},
};
use flowmesh::{
    Backoff, BreakerOptions, CallOptions, ErrorKind, Name, OnSlow, PublishOptions, RateLimit, Result, Retry,
    ServeOptions, Subject, SubscribeOptions, WaitStrategy,
};
use std::{
    ffi::{c_char, c_void},
    ptr,
    time::Duration,
};

/// How a blocked call waits, the field `wait` of `flowmesh_open_options`.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum flowmesh_wait {
    /// Spin for `wait_us` while spinning pays, then sleep. The default.
    FLOWMESH_WAIT_ADAPTIVE = 0,
    /// Sleep at once: the least processor time.
    FLOWMESH_WAIT_BLOCK = 1,
    /// Never sleep: the least latency, one whole processor.
    FLOWMESH_WAIT_SPIN = 2,
    /// Look every `wait_us`: for batches and peers that are rarely there.
    FLOWMESH_WAIT_TIMED = 3,
}

/// What a signal does to a blocked call, the field `on_signal` of `flowmesh_open_options`.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum flowmesh_on_signal {
    /// The call returns `FLOWMESH_ERR_INTERRUPTED` once the program's handler ran. The default.
    FLOWMESH_ON_SIGNAL_RETURN = 0,
    /// The call goes on waiting.
    FLOWMESH_ON_SIGNAL_CONTINUE = 1,
}

/// What happens when a subscription is full, the field `on_slow` of `flowmesh_subscribe_options`.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum flowmesh_on_slow {
    /// The oldest waiting event is dropped; the next message says how many were lost
    /// (`flowmesh_message_gap`). The default.
    FLOWMESH_ON_SLOW_DROP_OLDEST = 0,
    /// Publishers wait for room, at most `block_timeout_ms`.
    FLOWMESH_ON_SLOW_BLOCK = 1,
    /// The subscription ends: receiving fails with `FLOWMESH_ERR_SLOW_CONSUMER`.
    FLOWMESH_ON_SLOW_DISCONNECT = 2,
}

/// Says whether a blocked call is to end with `FLOWMESH_ERR_INTERRUPTED`: not 0 when it is. Asked in the thread that
/// waits, after a signal and at least once a second, so that a flag set by a signal handler is seen even when the
/// signal came just before the wait. It must not block or call the library.
pub type flowmesh_interrupt = Option<unsafe extern "C" fn(context: *mut c_void) -> i32>;

/// How to open or connect. Begin with `FLOWMESH_OPEN_OPTIONS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_open_options {
    /// `sizeof` of this struct.
    pub struct_size: usize,
    /// Shown in discovery and errors; NULL: the program's name.
    pub name: *const c_char,
    /// Host: the largest message in bytes, 1 KiB to 1 GiB; 0: 64 MiB.
    pub max_message_bytes: usize,
    /// Host: shared memory in each direction of a session, a power of two from 64 KiB to 64 MiB; 0: 1 MiB.
    pub ring_bytes: usize,
    /// Host: the most clients at once; 0: 1024.
    pub max_sessions: usize,
    /// Client: how long connecting may take; 0: 5000.
    pub connect_timeout_ms: i64,
    /// One of `enum flowmesh_wait`.
    pub wait: i32,
    /// One of `enum flowmesh_on_signal`.
    pub on_signal: i32,
    /// For `FLOWMESH_WAIT_ADAPTIVE` how long to spin (0: 5), for `FLOWMESH_WAIT_TIMED` how often to look.
    pub wait_us: i64,
    /// Client: 1 for shared memory, 0 for frames over the Unix socket.
    pub shared_memory: i32,
    /// 1: calls to a service that fails too often are refused for a while (`FLOWMESH_ERR_CIRCUIT_OPEN`); 0: never.
    pub breaker: i32,
    /// Breaker: failures are counted over this long; 0: 10000.
    pub breaker_window_ms: i64,
    /// Breaker: the share of failures that opens it, above 0 to 1; 0: 0.5.
    pub breaker_failure_ratio: f64,
    /// Breaker: how long it stays open at first, doubling with each failed probe; 0: 1000.
    pub breaker_open_ms: i64,
    /// Breaker: the longest it stays open; 0: 30000.
    pub breaker_open_max_ms: i64,
    /// Breaker: fewer calls than this in the window open nothing; 0: 10.
    pub breaker_min_calls: u32,
    /// Breaker: calls let through at once to see whether the service works again; 0: 1.
    pub breaker_probes: u32,
    /// Asked, instead of `on_signal`, whether a blocked call is to end; NULL: nobody is asked.
    pub interrupt: flowmesh_interrupt,
    /// What `interrupt` is called with.
    pub interrupt_context: *mut c_void,
    /// Host: 1 to open a directory whose stored jobs are damaged all the same: what is damaged is moved into
    /// `quarantine`, never deleted, and what was written after it stays. A queue whose declaration was lost is called
    /// `recovered-` and a number, with settings as they are by default. 0: that is `FLOWMESH_ERR_CORRUPT`.
    pub repair: i32,
    /// 0.
    pub reserved: i32,
}

/// How to publish. Begin with `FLOWMESH_PUBLISH_OPTIONS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_publish_options {
    /// `sizeof` of this struct.
    pub struct_size: usize,
    /// Headers, `header_count` of them; at most 64, 16 KiB in all. `content-type` says how the payload is encoded.
    pub headers: *const flowmesh_header,
    /// How many headers there are.
    pub header_count: usize,
    /// Never delivered later than this after publishing; 0: no limit. At most 49 days.
    pub ttl_ms: i64,
    /// Published this much later; 0: now. At most 49 days.
    pub delay_ms: i64,
    /// How long the call may wait for room: below 0 for ever, 0 not at all. 30000 in `INIT`.
    pub timeout_ms: i64,
    /// 0 to 9, higher is delivered first. 4 in `INIT`.
    pub priority: i32,
    /// 0.
    pub reserved: i32,
}

/// How to subscribe. Begin with `FLOWMESH_SUBSCRIBE_OPTIONS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_subscribe_options {
    /// `sizeof` of this struct.
    pub struct_size: usize,
    /// Queue group: of all subscriptions of the group that match an event, one gets it. NULL: none.
    pub group: *const c_char,
    /// Events that may wait for it, at most 1048576; 0: 1024.
    pub capacity: usize,
    /// Among the subscriptions that match, higher ones are handed the event first.
    pub priority: i32,
    /// One of `enum flowmesh_on_slow`.
    pub on_slow: i32,
    /// With `FLOWMESH_ON_SLOW_BLOCK`: how long publishers wait, more than 0. 1000 in `INIT`.
    pub block_timeout_ms: i64,
    /// Deliveries in all of an event whose handling fails, at most 1000; 0: one, and failures are only counted.
    pub max_attempts: u32,
    /// 0.
    pub reserved: u32,
    /// How long after the first failure it is delivered again. 100 in `INIT`.
    pub backoff_ms: i64,
    /// The longest such wait. 30000 in `INIT`.
    pub backoff_max_ms: i64,
    /// What each further failure multiplies the wait by, 1 to 1000. 2 in `INIT`.
    pub backoff_factor: f64,
    /// The subject an event goes to that failed `max_attempts` times; NULL: it is only counted.
    pub dead_letter: *const c_char,
}

/// How to call. Begin with `FLOWMESH_CALL_OPTIONS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_call_options {
    /// `sizeof` of this struct.
    pub struct_size: usize,
    /// Headers that travel with the request, `header_count` of them.
    pub headers: *const flowmesh_header,
    /// How many headers there are.
    pub header_count: usize,
    /// The deadline, which the service sees: below 0 for 49 days. 30000 in `INIT`.
    pub timeout_ms: i64,
}

/// How to serve. Begin with `FLOWMESH_SERVE_OPTIONS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct flowmesh_serve_options {
    /// `sizeof` of this struct.
    pub struct_size: usize,
    /// Free text that discovery shows, at most 255 bytes; NULL: none.
    pub version: *const c_char,
    /// Calls it takes at once, and the threads of `flowmesh_serve`; 0: 1.
    pub concurrency: u32,
    /// Calls that may wait for it at the host, at most 1048576. 1024 in `INIT`.
    pub queue: u32,
    /// The most calls a second in the long run, all instances together; 0: no limit.
    pub rate_per_second: f64,
    /// With `rate_per_second`: calls at once after a rest; 0: what a second allows.
    pub rate_burst: u32,
    /// 0.
    pub reserved: u32,
}

/// § Options without macros
///
/// Sets `options` to what `FLOWMESH_OPEN_OPTIONS_INIT` says, for languages that have no C macros. `size` is the
/// size of the struct as the caller knows it.
///
/// # Errors
/// `INVALID_ARGUMENT`: `size` is not that of any version of the struct.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_open_options_init(
    options: *mut flowmesh_open_options,
    size: usize,
) -> flowmesh_status {
    // SAFETY: the manual asks for a struct of `size` bytes.
    guard("flowmesh_open_options_init", |call| unsafe { call.init(options, size) })
}

/// The same as `FLOWMESH_PUBLISH_OPTIONS_INIT`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_publish_options_init(
    options: *mut flowmesh_publish_options,
    size: usize,
) -> flowmesh_status {
    // SAFETY: the manual asks for a struct of `size` bytes.
    guard("flowmesh_publish_options_init", |call| unsafe { call.init(options, size) })
}

/// The same as `FLOWMESH_SUBSCRIBE_OPTIONS_INIT`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_subscribe_options_init(
    options: *mut flowmesh_subscribe_options,
    size: usize,
) -> flowmesh_status {
    // SAFETY: the manual asks for a struct of `size` bytes.
    guard("flowmesh_subscribe_options_init", |call| unsafe { call.init(options, size) })
}

/// The same as `FLOWMESH_CALL_OPTIONS_INIT`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_call_options_init(
    options: *mut flowmesh_call_options,
    size: usize,
) -> flowmesh_status {
    // SAFETY: the manual asks for a struct of `size` bytes.
    guard("flowmesh_call_options_init", |call| unsafe { call.init(options, size) })
}

/// The same as `FLOWMESH_SERVE_OPTIONS_INIT`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowmesh_serve_options_init(
    options: *mut flowmesh_serve_options,
    size: usize,
) -> flowmesh_status {
    // SAFETY: the manual asks for a struct of `size` bytes.
    guard("flowmesh_serve_options_init", |call| unsafe { call.init(options, size) })
}

/// A struct whose first field is its size in bytes, `usize`, and whose other fields are plain values or pointers.
///
/// Fields are only ever added at the end, and zero means the default in each that is added.
///
/// # Safety
/// It is `repr(C)`, begins with its size, has no padding and every bit pattern is a value.
pub(crate) unsafe trait SizedStruct: Copy {
    /// What `INIT` says.
    fn init() -> Self;
}

const SIZE_MIN: usize = 2 * size_of::<usize>();
const SIZE_MAX: usize = 4096;

impl Call {
    /// The options at `pointer`, defaults for NULL and for fields that the caller's header did not have yet.
    ///
    /// # Safety
    /// `pointer` is NULL or points to as many readable bytes as the struct there says.
    pub(crate) unsafe fn options<T: SizedStruct>(self, pointer: *const T) -> Result<T> {
        let mut options = T::init();
        if pointer.is_null() {
            return Ok(options);
        }
        // SAFETY: not NULL, and the struct begins with its size.
        let size = unsafe { pointer.cast::<usize>().read_unaligned() };
        self.check_size(size)?;
        let known = size.min(size_of::<T>());
        // SAFETY: `known` bytes are there, and fit; every bit pattern is a value of `T`.
        unsafe { ptr::copy_nonoverlapping(pointer.cast::<u8>(), (&raw mut options).cast::<u8>(), known) };
        for at in known..size {
            // SAFETY: `at` lies below the size that the caller says is there.
            if unsafe { *pointer.cast::<u8>().add(at) } != 0 {
                return Err(self
                    .error(ErrorKind::Unsupported)
                    .with("struct_size", size)
                    .with("known_bytes", size_of::<T>())
                    .with(
                        "rule",
                        "the header is newer than the library and sets a field that it does not know",
                    ));
            }
        }
        Ok(options)
    }

    /// Writes `value` to the struct at `pointer`, as much of it as the caller's header knows.
    ///
    /// # Safety
    /// `pointer` is NULL or points to as many writable bytes as the struct there says.
    pub(crate) unsafe fn fill<T: SizedStruct>(self, pointer: *mut T, value: &T) -> Result<()> {
        if pointer.is_null() {
            return Err(self.null("out"));
        }
        // SAFETY: not NULL, and the struct begins with its size.
        let size = unsafe { pointer.cast::<usize>().read_unaligned() };
        self.check_size(size)?;
        // SAFETY: the caller's duty, passed on.
        unsafe { write_sized(pointer, value, size) };
        Ok(())
    }

    /// # Safety
    /// `pointer` is NULL or points to `size` writable bytes.
    pub(crate) unsafe fn init<T: SizedStruct>(self, pointer: *mut T, size: usize) -> Result<()> {
        if pointer.is_null() {
            return Err(self.null("options"));
        }
        self.check_size(size)?;
        // SAFETY: the caller's duty, passed on.
        unsafe { write_sized(pointer, &T::init(), size) };
        Ok(())
    }

    fn check_size(self, size: usize) -> Result<()> {
        if (SIZE_MIN..=SIZE_MAX).contains(&size) {
            return Ok(());
        }
        Err(self.invalid("struct_size", size, "begin with the INIT macro of the struct"))
    }
}

/// # Safety
/// `pointer` points to `size` writable bytes, and `size` is at least `SIZE_MIN`.
unsafe fn write_sized<T: SizedStruct>(pointer: *mut T, value: &T, size: usize) {
    let known = size.min(size_of::<T>());
    // SAFETY: `size` bytes are there; what is written past the known fields is zero, their default.
    unsafe {
        ptr::write_bytes(pointer.cast::<u8>(), 0, size);
        ptr::copy_nonoverlapping(ptr::from_ref(value).cast::<u8>(), pointer.cast::<u8>(), known);
        pointer.cast::<usize>().write_unaligned(size);
    }
}

macro_rules! sized {
    ($($type:ty = { $($field:ident: $value:expr),* $(,)? };)*) => {
        // SAFETY: each is `repr(C)`, begins with its size, and holds integers, floats and pointers alone, with
        // explicit fields where padding would be.
        $(unsafe impl SizedStruct for $type {
            fn init() -> Self {
                // SAFETY: integers, floats and pointers may be zero.
                let zero = unsafe { std::mem::zeroed::<Self>() };
                Self { struct_size: size_of::<Self>(), $($field: $value,)* ..zero }
            }
        })*
    };
}
pub(crate) use sized;

sized! {
    flowmesh_open_options = { shared_memory: 1, breaker: 1 };
    flowmesh_publish_options = { timeout_ms: 30_000, priority: 4 };
    flowmesh_subscribe_options = {
        block_timeout_ms: 1000,
        backoff_ms: 100,
        backoff_max_ms: 30_000,
        backoff_factor: 2.0,
    };
    flowmesh_call_options = { timeout_ms: 30_000 };
    flowmesh_serve_options = { queue: 1024 };
}

/// The longest time that travels with a message, in milliseconds.
const TRAVELLING_MS_MAX: u64 = u32::MAX as u64;

impl flowmesh_open_options {
    /// # Safety
    /// Its texts are NULL or C strings.
    pub(crate) unsafe fn builder(&self, call: Call) -> Result<flowmesh::MeshBuilder> {
        let mut builder = flowmesh::Mesh::builder().language("c");
        // SAFETY: the caller's duty, passed on.
        if let Some(name) = unsafe { call.optional_text(self.name, "name") }? {
            builder = builder.name(name);
        }
        if self.max_message_bytes != 0 {
            builder = builder.max_message_bytes(self.max_message_bytes);
        }
        if self.ring_bytes != 0 {
            builder = builder.ring_bytes(self.ring_bytes);
        }
        if self.max_sessions != 0 {
            builder = builder.max_sessions(self.max_sessions);
        }
        if self.connect_timeout_ms != 0 {
            builder =
                builder.connect_timeout(call.milliseconds(self.connect_timeout_ms, "connect_timeout_ms")?);
        }
        if let Some(strategy) = self.wait_strategy(call)? {
            builder = builder.wait_strategy(strategy);
        }
        let shared_memory = call.truth(self.shared_memory, "shared_memory")?;
        let repair = call.truth(self.repair, "repair")?;
        Ok(builder.shared_memory(shared_memory).breaker(self.breaker_options(call)?).repair(repair))
    }

    /// `None` for the default.
    fn wait_strategy(&self, call: Call) -> Result<Option<WaitStrategy>> {
        let micros = u64::try_from(self.wait_us)
            .map_err(|_| call.invalid("wait_us", self.wait_us, "it is below 0"))?;
        let period = Duration::from_micros(micros);
        Ok(match self.wait {
            0 if micros == 0 => None,
            0 => Some(WaitStrategy::Adaptive { spin: period }),
            1 => Some(WaitStrategy::Block),
            2 => Some(WaitStrategy::Spin),
            3 if micros == 0 => return Err(call.invalid("wait_us", 0, "FLOWMESH_WAIT_TIMED needs it")),
            3 => Some(WaitStrategy::Timed { interval: period }),
            other => return Err(call.invalid("wait", other, "it is not of enum flowmesh_wait")),
        })
    }

    fn breaker_options(&self, call: Call) -> Result<Option<BreakerOptions>> {
        if !call.truth(self.breaker, "breaker")? {
            return Ok(None);
        }
        let mut options = BreakerOptions::default();
        let times = [
            (self.breaker_window_ms, "breaker_window_ms", &mut options.window),
            (self.breaker_open_ms, "breaker_open_ms", &mut options.open_for),
            (self.breaker_open_max_ms, "breaker_open_max_ms", &mut options.open_for_max),
        ];
        for (value, argument, time) in times {
            if value != 0 {
                *time = call.milliseconds(value, argument)?;
            }
        }
        if self.breaker_failure_ratio != 0.0 {
            options.failure_ratio = self.breaker_failure_ratio;
        }
        if self.breaker_min_calls != 0 {
            options.min_calls = self.breaker_min_calls;
        }
        if self.breaker_probes != 0 {
            options.probes = self.breaker_probes;
        }
        Ok(Some(options))
    }
}

impl flowmesh_publish_options {
    /// # Safety
    /// Its headers are as many as it says, of C strings.
    pub(crate) unsafe fn read(&self, call: Call) -> Result<PublishOptions> {
        let priority = u8::try_from(self.priority).ok().filter(|priority| *priority <= 9);
        let some_time = |value, argument| {
            Ok::<_, flowmesh::Error>(match call.milliseconds(value, argument)? {
                Duration::ZERO => None,
                time => Some(time),
            })
        };
        Ok(PublishOptions {
            // SAFETY: the caller's duty, passed on.
            headers: unsafe { call.headers(self.headers, self.header_count) }?,
            priority: priority.ok_or_else(|| call.invalid("priority", self.priority, "it is not 0 to 9"))?,
            ttl: some_time(self.ttl_ms, "ttl_ms")?,
            delay: some_time(self.delay_ms, "delay_ms")?,
            timeout: travelling(self.timeout_ms),
        })
    }
}

impl flowmesh_subscribe_options {
    /// # Safety
    /// Its texts are NULL or C strings.
    pub(crate) unsafe fn read(&self, call: Call) -> Result<SubscribeOptions> {
        // SAFETY: the caller's duty, passed on.
        let (group, dead_letter) = unsafe {
            (call.optional_text(self.group, "group")?, call.optional_text(self.dead_letter, "dead_letter")?)
        };
        let mut options = SubscribeOptions {
            group: group.map(Name::parse).transpose()?,
            priority: self.priority,
            on_slow: match self.on_slow {
                0 => OnSlow::DropOldest,
                1 => OnSlow::Block { timeout: call.milliseconds(self.block_timeout_ms, "block_timeout_ms")? },
                2 => OnSlow::Disconnect,
                other => return Err(call.invalid("on_slow", other, "it is not of enum flowmesh_on_slow")),
            },
            ..SubscribeOptions::default()
        };
        if self.capacity != 0 {
            options.capacity = self.capacity;
        }
        if self.max_attempts != 0 {
            options.retry = Some(Retry {
                max_attempts: self.max_attempts,
                backoff: Backoff {
                    initial: call.milliseconds(self.backoff_ms, "backoff_ms")?,
                    factor: self.backoff_factor,
                    max: call.milliseconds(self.backoff_max_ms, "backoff_max_ms")?,
                },
                dead_letter: dead_letter.map(Subject::parse).transpose()?,
            });
        } else if dead_letter.is_some() {
            return Err(call.invalid("max_attempts", 0, "dead_letter needs it"));
        }
        Ok(options)
    }
}

impl flowmesh_call_options {
    /// # Safety
    /// Its headers are as many as it says, of C strings.
    pub(crate) unsafe fn read(&self, call: Call) -> Result<CallOptions> {
        // SAFETY: the caller's duty, passed on.
        let headers = unsafe { call.headers(self.headers, self.header_count) }?;
        Ok(CallOptions { timeout: travelling(self.timeout_ms), headers })
    }
}

impl flowmesh_serve_options {
    /// # Safety
    /// Its text is NULL or a C string.
    pub(crate) unsafe fn read(&self, call: Call) -> Result<ServeOptions> {
        // SAFETY: the caller's duty, passed on.
        let version = unsafe { call.optional_text(self.version, "version") }?.unwrap_or_default().to_owned();
        let burst = match self.rate_burst {
            0 => self.rate_per_second.clamp(1.0, 1e6) as u32,
            given => given,
        };
        let rate =
            (self.rate_per_second != 0.0).then_some(RateLimit { per_second: self.rate_per_second, burst });
        Ok(ServeOptions { version, concurrency: self.concurrency.max(1), queue: self.queue, rate })
    }
}

impl Call {
    /// 1 or 0.
    pub(crate) fn truth(self, value: i32, argument: &'static str) -> Result<bool> {
        match value {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.invalid(argument, other, "it is neither 0 nor 1")),
        }
    }
}

/// A deadline that travels with a message: for ever is the longest that can be said.
fn travelling(timeout_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(u64::MAX).min(TRAVELLING_MS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: Call = Call("flowmesh_test");

    #[repr(C)]
    struct Newer {
        known: flowmesh_call_options,
        added: u64,
    }

    #[test]
    fn an_older_header_leaves_defaults_and_a_newer_one_must_not_ask_for_more() {
        // SAFETY: each struct is at least as large as its size says.
        unsafe {
            let mut older = flowmesh_call_options::init();
            older.struct_size = 24;
            older.timeout_ms = 5;
            assert_eq!(CALL.options(&raw const older).unwrap().timeout_ms, 30_000);

            let mut newer = Newer { known: flowmesh_call_options::init(), added: 0 };
            newer.known.struct_size = size_of::<Newer>();
            newer.known.timeout_ms = 5;
            assert_eq!(
                CALL.options((&raw const newer).cast::<flowmesh_call_options>()).unwrap().timeout_ms,
                5
            );
            newer.added = 1;
            let error = CALL.options((&raw const newer).cast::<flowmesh_call_options>()).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Unsupported);

            newer.known.struct_size = 0;
            let error = CALL.options((&raw const newer).cast::<flowmesh_call_options>()).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
    }

    #[test]
    fn what_init_says_is_what_the_core_does() {
        // SAFETY: all pointers are NULL.
        unsafe {
            let publish = flowmesh_publish_options::init().read(CALL).unwrap();
            let default = PublishOptions::default();
            assert_eq!(
                (publish.priority, publish.ttl, publish.delay),
                (default.priority, default.ttl, default.delay)
            );
            assert_eq!(publish.timeout, default.timeout);
            assert_eq!(
                flowmesh_call_options::init().read(CALL).unwrap().timeout,
                CallOptions::default().timeout
            );
            assert_eq!(flowmesh_serve_options::init().read(CALL).unwrap(), ServeOptions::default());
            assert_eq!(flowmesh_subscribe_options::init().read(CALL).unwrap(), SubscribeOptions::default());
            let retry = flowmesh_subscribe_options { max_attempts: 3, ..flowmesh_subscribe_options::init() };
            assert_eq!(retry.read(CALL).unwrap().retry, Some(Retry::default()));
            let open = flowmesh_open_options::init();
            assert_eq!(open.breaker_options(CALL).unwrap(), Some(BreakerOptions::default()));
        }
    }
}
