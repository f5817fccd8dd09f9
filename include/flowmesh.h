/*
 * FlowMesh: events and calls between the programs of one machine.
 *
 * Generated from the library's source by cbindgen: change it there, then run `ffi/check-header.sh --write`.
 *
 * One process opens a directory and is the host; others connect to it. All of them publish and receive
 * events, call services and serve them, through shared memory.
 *
 *     flowmesh_mesh *mesh;
 *     if (flowmesh_open("/tmp/orders", NULL, &mesh) != FLOWMESH_OK)
 *         return fprintf(stderr, "%s\n", flowmesh_error_message()), 1;
 *     flowmesh_publish(mesh, "orders.created", "42", 2, NULL, NULL);
 *     flowmesh_mesh_free(mesh);
 *
 * Compile and link with `cc program.c $(pkg-config --cflags --libs flowmesh)`. For the static library, write
 * `-l:libflowmesh.a` for `-lflowmesh` in what `pkg-config --static --libs flowmesh` says.
 *
 * ERRORS. Functions return a status: FLOWMESH_OK (0) or a negative code of `enum flowmesh_code`. The message
 * and the values of the last error of the calling thread are read with flowmesh_error_message() and
 * flowmesh_error_get(). Functions that return a number return a negative status instead; functions that
 * return text, bytes or an unsigned number return an empty value, and flowmesh_error_code() says why.
 *
 * HANDLES. What a function gives through an out-parameter is the caller's and is freed once, with the `_free`
 * of its type. What a function returns otherwise is lent until the handle it came from is freed. What is
 * passed in is copied, except a handler's `context`. On failure an out-parameter is NULL or 0. Freeing NULL
 * does nothing; a mesh may be freed before what was made from it. A handle is a number, not an address: one
 * that was freed, or never was one, gives FLOWMESH_ERR_BAD_HANDLE, one of another type too, and NULL gives
 * FLOWMESH_ERR_NULL_ARGUMENT.
 *
 * THREADS. Every function may be called from any thread, and any handle may be used by several at once; one
 * may close or free a handle that another is waiting in, which ends that wait with FLOWMESH_ERR_CLOSED. Each
 * function says whether it blocks; those that wait take `timeout_ms`: below 0 for ever, 0 not at all. Text
 * and bytes that were lent must not be read while another thread frees their handle.
 *
 * SIGNALS. The library installs no handlers, and its own threads block all signals. When a signal ends the
 * sleep of a function that waits, it returns FLOWMESH_ERR_INTERRUPTED after the program's handler ran, unless
 * `on_signal` of the open options says to go on. A signal that comes just before the sleep does not end it: a
 * program that must not miss one gives an `interrupt` function that looks at its handler's flag.
 *
 * FORK. Handles belong to the process that made them: in a forked child they answer FLOWMESH_ERR_FORKED, and
 * may be freed. Opening or connecting anew in the child works.
 *
 * HANDLERS run in threads of the library, which holds no lock meanwhile: they may call any function, close
 * and free included. They must not throw, unwind or longjmp into the library.
 *
 * TEXT is UTF-8 and NUL-terminated; bytes are a pointer and a size, and NULL is allowed for size 0. Times
 * carry their unit in the name.
 *
 * OPTIONS begin with their own size, set by their `_INIT` macro, so that a program and a library of different
 * versions agree on what is there. NULL stands for the defaults.
 */


#ifndef FLOWMESH_H
#define FLOWMESH_H

#include <stddef.h>
#include <stdint.h>

#define FLOWMESH_VERSION_MAJOR 0
#define FLOWMESH_VERSION_MINOR 1
#define FLOWMESH_VERSION_PATCH 0
/** The version of this header, for flowmesh_check_abi(). */
#define FLOWMESH_VERSION_NUMBER \
    (FLOWMESH_VERSION_MAJOR * 1000000 + FLOWMESH_VERSION_MINOR * 1000 + FLOWMESH_VERSION_PATCH)

/* A status that nobody looks at is most often a mistake. */
#if defined(__GNUC__) || defined(__clang__)
#define FLOWMESH_MUST_USE __attribute__((warn_unused_result))
#else
#define FLOWMESH_MUST_USE
#endif

/* What options and results begin with:  flowmesh_call_options options = FLOWMESH_CALL_OPTIONS_INIT; */
#define FLOWMESH_OPEN_OPTIONS_INIT \
    {sizeof(flowmesh_open_options), NULL, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0.0, 0, 0, 0, 0, NULL, NULL}
#define FLOWMESH_PUBLISH_OPTIONS_INIT {sizeof(flowmesh_publish_options), NULL, 0, 0, 0, 30000, 4, 0}
#define FLOWMESH_SUBSCRIBE_OPTIONS_INIT \
    {sizeof(flowmesh_subscribe_options), NULL, 0, 0, 0, 1000, 0, 0, 100, 30000, 2.0, NULL}
#define FLOWMESH_CALL_OPTIONS_INIT {sizeof(flowmesh_call_options), NULL, 0, 30000}
#define FLOWMESH_SERVE_OPTIONS_INIT {sizeof(flowmesh_serve_options), NULL, 0, 1024, 0.0, 0, 0}
#define FLOWMESH_INSTANCE_INIT {sizeof(flowmesh_instance), NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0}
#define FLOWMESH_TOTALS_INIT {sizeof(flowmesh_totals), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
#define FLOWMESH_SUBSCRIPTION_STATS_INIT {sizeof(flowmesh_subscription_stats), NULL, NULL, 0, 0, 0, 0, 0, 0}
#define FLOWMESH_SERVICE_STATS_INIT \
    {sizeof(flowmesh_service_stats), NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
#define FLOWMESH_SESSION_STATS_INIT {sizeof(flowmesh_session_stats), NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0}

/** What a function returned, or why it failed. Numbers are stable and never reused. */
enum flowmesh_code {
    /** It worked. */
    FLOWMESH_OK = 0,
    /** An argument is not valid. Fix the call: the message names the value and the rule. */
    FLOWMESH_ERR_INVALID_ARGUMENT = -1,
    /** The deadline passed. Retry with a longer timeout, or find out why the other side is slow. */
    FLOWMESH_ERR_TIMEOUT = -2,
    /** A signal interrupted the wait. Handle the signal, then wait again. */
    FLOWMESH_ERR_INTERRUPTED = -3,
    /** The handle is closed. Open it again. */
    FLOWMESH_ERR_CLOSED = -4,
    /** It does not exist. Check the name or the path; start the host first. */
    FLOWMESH_ERR_NOT_FOUND = -5,
    /** It exists already. Use another name, or the existing one. */
    FLOWMESH_ERR_ALREADY_EXISTS = -6,
    /** Another process is the host of this directory. Connect to it as a client, or wait until the process named in the message ends. */
    FLOWMESH_ERR_ALREADY_OPEN = -7,
    /** Permission denied. Fix the permissions of the directory, or the grants. */
    FLOWMESH_ERR_PERMISSION_DENIED = -8,
    /** A size is over its limit. Send less at once, or raise the limit named in the message. */
    FLOWMESH_ERR_TOO_LARGE = -9,
    /** A bounded buffer is full. Retry later: the receiver is slower than the sender. */
    FLOWMESH_ERR_FULL = -10,
    /** The process that was to answer is gone. Retry: another instance may take the call. */
    FLOWMESH_ERR_PEER_GONE = -11,
    /** The session with the host has ended. Connect again. */
    FLOWMESH_ERR_DISCONNECTED = -12,
    /** The other side broke the protocol. Check that both sides are FlowMesh and of sound builds. */
    FLOWMESH_ERR_PROTOCOL = -13,
    /** No common protocol version. Upgrade the side with the older range. */
    FLOWMESH_ERR_VERSION_MISMATCH = -14,
    /** The handle belongs to the parent process. Open or connect again in the forked child. */
    FLOWMESH_ERR_FORKED = -15,
    /** The handler failed. See `type` and `message` of the error: they come from the handler. */
    FLOWMESH_ERR_HANDLER_FAILED = -16,
    /** The operation was cancelled. Nothing to do. */
    FLOWMESH_ERR_CANCELLED = -17,
    /** The service's rate limit is reached. Retry after `retry_after_ms`. */
    FLOWMESH_ERR_RATE_LIMITED = -18,
    /** Calls to this service failed too often lately. Retry after `retry_after_ms`. */
    FLOWMESH_ERR_CIRCUIT_OPEN = -19,
    /** No instance serves this name. Retry when an instance has joined. */
    FLOWMESH_ERR_NO_SERVICE = -20,
    /** The system is out of a resource. Free memory, descriptors or disk space, then retry. */
    FLOWMESH_ERR_RESOURCE_EXHAUSTED = -21,
    /** The shared secret is missing or wrong. Give both sides the same secret. */
    FLOWMESH_ERR_UNAUTHENTICATED = -22,
    /** Not supported here. Use another transport or a newer version. */
    FLOWMESH_ERR_UNSUPPORTED = -23,
    /** The subscription was ended because it fell behind. Subscribe again; read faster or choose another policy. */
    FLOWMESH_ERR_SLOW_CONSUMER = -24,
    /** The operating system reported an error. See the message. */
    FLOWMESH_ERR_IO = -25,
    /** An internal error. Report it: this is a bug in FlowMesh. */
    FLOWMESH_ERR_INTERNAL = -26,
    /** A pointer is NULL. Fix the call: the message names the argument. */
    FLOWMESH_ERR_NULL_ARGUMENT = -27,
    /** The handle is not one of ours, or was freed. Fix the call: use the handle before freeing it. */
    FLOWMESH_ERR_BAD_HANDLE = -28,
    /** The disk has no room left. Nothing was written: free disk space, then retry. */
    FLOWMESH_ERR_STORAGE_FULL = -29,
    /** Stored data is damaged. See `file` and `offset`; open with repair to move the damage into quarantine. */
    FLOWMESH_ERR_CORRUPT = -30,
    /** A write or flush failed, so nothing more is written. Open the directory again once the disk is sound; reads go on. */
    FLOWMESH_ERR_FROZEN = -31,
    /** The job is not this worker's any more. Stop working on it: it is done, or another worker has it. */
    FLOWMESH_ERR_LEASE_LOST = -32,
    /** It is there already, and differs. The message names what differs: change one of the two. */
    FLOWMESH_ERR_CONFLICT = -33,
    /** The queue is being drained and takes nothing new. Retry once it is resumed. */
    FLOWMESH_ERR_DRAINING = -34,
};

/** What a mesh is to its directory. */
enum flowmesh_role {
    /** It opened it. */
    FLOWMESH_ROLE_HOST = 0,
    /** It connected to the process that did. */
    FLOWMESH_ROLE_CLIENT = 1,
};

/** How a blocked call waits, the field `wait` of `flowmesh_open_options`. */
enum flowmesh_wait {
    /** Spin for `wait_us` while spinning pays, then sleep. The default. */
    FLOWMESH_WAIT_ADAPTIVE = 0,
    /** Sleep at once: the least processor time. */
    FLOWMESH_WAIT_BLOCK = 1,
    /** Never sleep: the least latency, one whole processor. */
    FLOWMESH_WAIT_SPIN = 2,
    /** Look every `wait_us`: for batches and peers that are rarely there. */
    FLOWMESH_WAIT_TIMED = 3,
};

/** What a signal does to a blocked call, the field `on_signal` of `flowmesh_open_options`. */
enum flowmesh_on_signal {
    /** The call returns `FLOWMESH_ERR_INTERRUPTED` once the program's handler ran. The default. */
    FLOWMESH_ON_SIGNAL_RETURN = 0,
    /** The call goes on waiting. */
    FLOWMESH_ON_SIGNAL_CONTINUE = 1,
};

/** What happens when a subscription is full, the field `on_slow` of `flowmesh_subscribe_options`. */
enum flowmesh_on_slow {
    /**
     * The oldest waiting event is dropped; the next message says how many were lost
     * (`flowmesh_message_gap`). The default.
     */
    FLOWMESH_ON_SLOW_DROP_OLDEST = 0,
    /** Publishers wait for room, at most `block_timeout_ms`. */
    FLOWMESH_ON_SLOW_BLOCK = 1,
    /** The subscription ends: receiving fails with `FLOWMESH_ERR_SLOW_CONSUMER`. */
    FLOWMESH_ON_SLOW_DISCONNECT = 2,
};

/** Who serves what, as it was when it was asked for. */
typedef struct flowmesh_instance_list flowmesh_instance_list;

/** A mesh: this process as the host of a directory, or as a client of its host. */
typedef struct flowmesh_mesh flowmesh_mesh;

/** A message: an event, a request or an answer. It never changes, so any number of threads may read it. */
typedef struct flowmesh_message flowmesh_message;

/** A call that was started and is waiting for its answer. */
typedef struct flowmesh_pending flowmesh_pending;

/** A call that an instance is to answer. */
typedef struct flowmesh_request flowmesh_request;

/** This process as an instance of a service. */
typedef struct flowmesh_service flowmesh_service;

/** All counters of a mesh at one moment. */
typedef struct flowmesh_snapshot flowmesh_snapshot;

/** A subscription: the events that match its pattern, waiting to be received. */
typedef struct flowmesh_subscription flowmesh_subscription;

/**
 * `FLOWMESH_OK` (0) or one of `enum flowmesh_code`, all of them negative.
 *
 * An integer of fixed width, so that a code which a newer library adds is still a valid value.
 */
typedef int32_t flowmesh_status;

/**
 * Says whether a blocked call is to end with `FLOWMESH_ERR_INTERRUPTED`: not 0 when it is. Asked in the thread that
 * waits, after a signal and at least once a second, so that a flag set by a signal handler is seen even when the
 * signal came just before the wait. It must not block or call the library.
 */
typedef int32_t (*flowmesh_interrupt)(void *context);

/** How to open or connect. Begin with `FLOWMESH_OPEN_OPTIONS_INIT`. */
typedef struct flowmesh_open_options {
    /** `sizeof` of this struct. */
    size_t struct_size;
    /** Shown in discovery and errors; NULL: the program's name. */
    const char *name;
    /** Host: the largest message in bytes, 1 KiB to 1 GiB; 0: 64 MiB. */
    size_t max_message_bytes;
    /** Host: shared memory in each direction of a session, a power of two from 64 KiB to 64 MiB; 0: 1 MiB. */
    size_t ring_bytes;
    /** Host: the most clients at once; 0: 1024. */
    size_t max_sessions;
    /** Client: how long connecting may take; 0: 5000. */
    int64_t connect_timeout_ms;
    /** One of `enum flowmesh_wait`. */
    int32_t wait;
    /** One of `enum flowmesh_on_signal`. */
    int32_t on_signal;
    /** For `FLOWMESH_WAIT_ADAPTIVE` how long to spin (0: 5), for `FLOWMESH_WAIT_TIMED` how often to look. */
    int64_t wait_us;
    /** Client: 1 for shared memory, 0 for frames over the Unix socket. */
    int32_t shared_memory;
    /** 1: calls to a service that fails too often are refused for a while (`FLOWMESH_ERR_CIRCUIT_OPEN`); 0: never. */
    int32_t breaker;
    /** Breaker: failures are counted over this long; 0: 10000. */
    int64_t breaker_window_ms;
    /** Breaker: the share of failures that opens it, above 0 to 1; 0: 0.5. */
    double breaker_failure_ratio;
    /** Breaker: how long it stays open at first, doubling with each failed probe; 0: 1000. */
    int64_t breaker_open_ms;
    /** Breaker: the longest it stays open; 0: 30000. */
    int64_t breaker_open_max_ms;
    /** Breaker: fewer calls than this in the window open nothing; 0: 10. */
    uint32_t breaker_min_calls;
    /** Breaker: calls let through at once to see whether the service works again; 0: 1. */
    uint32_t breaker_probes;
    /** Asked, instead of `on_signal`, whether a blocked call is to end; NULL: nobody is asked. */
    flowmesh_interrupt interrupt;
    /** What `interrupt` is called with. */
    void *interrupt_context;
} flowmesh_open_options;

/**
 * Text lent by the library until the handle it came from is freed.
 *
 * UTF-8 with a NUL behind it, so `data` is a C string. `size` does not count that NUL; it says more than
 * `strlen` only for text that contains a NUL itself.
 */
typedef struct flowmesh_text {
    /** Where it begins; NULL when there is no such text, which is not the same as an empty one. */
    const char *data;
    /** Its bytes. */
    size_t size;
} flowmesh_text;

/** A header: a name and a value beside the payload. */
typedef struct flowmesh_header {
    /** Its name: not empty. Names are compared exactly; FlowMesh's own are in lower case. */
    const char *name;
    /** Its value. */
    const char *value;
} flowmesh_header;

/** How to publish. Begin with `FLOWMESH_PUBLISH_OPTIONS_INIT`. */
typedef struct flowmesh_publish_options {
    /** `sizeof` of this struct. */
    size_t struct_size;
    /** Headers, `header_count` of them; at most 64, 16 KiB in all. `content-type` says how the payload is encoded. */
    const struct flowmesh_header *headers;
    /** How many headers there are. */
    size_t header_count;
    /** Never delivered later than this after publishing; 0: no limit. At most 49 days. */
    int64_t ttl_ms;
    /** Published this much later; 0: now. At most 49 days. */
    int64_t delay_ms;
    /** How long the call may wait for room: below 0 for ever, 0 not at all. 30000 in `INIT`. */
    int64_t timeout_ms;
    /** 0 to 9, higher is delivered first. 4 in `INIT`. */
    int32_t priority;
    /** 0. */
    int32_t reserved;
} flowmesh_publish_options;

/** An event for `flowmesh_publish_many`. */
typedef struct flowmesh_event {
    /** Where it goes. */
    const char *subject;
    /** Its bytes; NULL when `payload_bytes` is 0. */
    const void *payload;
    /** How many there are. */
    size_t payload_bytes;
} flowmesh_event;

/** Bytes lent by the library: they stay as they are until the handle they came from is freed. */
typedef struct flowmesh_bytes {
    /** Where they begin; NULL when `size` is 0. */
    const void *data;
    /** How many there are. */
    size_t size;
} flowmesh_bytes;

/** How to subscribe. Begin with `FLOWMESH_SUBSCRIBE_OPTIONS_INIT`. */
typedef struct flowmesh_subscribe_options {
    /** `sizeof` of this struct. */
    size_t struct_size;
    /** Queue group: of all subscriptions of the group that match an event, one gets it. NULL: none. */
    const char *group;
    /** Events that may wait for it, at most 1048576; 0: 1024. */
    size_t capacity;
    /** Among the subscriptions that match, higher ones are handed the event first. */
    int32_t priority;
    /** One of `enum flowmesh_on_slow`. */
    int32_t on_slow;
    /** With `FLOWMESH_ON_SLOW_BLOCK`: how long publishers wait, more than 0. 1000 in `INIT`. */
    int64_t block_timeout_ms;
    /** Deliveries in all of an event whose handling fails, at most 1000; 0: one, and failures are only counted. */
    uint32_t max_attempts;
    /** 0. */
    uint32_t reserved;
    /** How long after the first failure it is delivered again. 100 in `INIT`. */
    int64_t backoff_ms;
    /** The longest such wait. 30000 in `INIT`. */
    int64_t backoff_max_ms;
    /** What each further failure multiplies the wait by, 1 to 1000. 2 in `INIT`. */
    double backoff_factor;
    /** The subject an event goes to that failed `max_attempts` times; NULL: it is only counted. */
    const char *dead_letter;
} flowmesh_subscribe_options;

/**
 * Handles one event, which is lent until it returns. Returns `FLOWMESH_OK`, or a failure: most easily with
 * `return flowmesh_handler_error(...)`.
 */
typedef flowmesh_status (*flowmesh_event_handler)(void *context, const struct flowmesh_message *message);

/**
 * Tidies up a handler's context: called exactly once, whatever happens, after the last call of the handler has
 * returned. That may be in any thread, and after the function that freed the handle has returned.
 */
typedef void (*flowmesh_drop)(void *context);

/** One subscription's counts. Begin with `FLOWMESH_SUBSCRIPTION_STATS_INIT`. */
typedef struct flowmesh_subscription_stats {
    /** `sizeof` of this struct. */
    size_t struct_size;
    /** Its pattern. */
    const char *pattern;
    /** Its queue group; empty for none. */
    const char *group;
    /** Events handed over. */
    uint64_t delivered;
    /** Their payload bytes. */
    uint64_t delivered_bytes;
    /** Events lost. */
    uint64_t dropped;
    /** Events waiting now. */
    uint64_t depth;
    /** The session it belongs to; 0 is the host itself. */
    uint32_t session;
    /** 0. */
    uint32_t reserved;
} flowmesh_subscription_stats;

/** How to call. Begin with `FLOWMESH_CALL_OPTIONS_INIT`. */
typedef struct flowmesh_call_options {
    /** `sizeof` of this struct. */
    size_t struct_size;
    /** Headers that travel with the request, `header_count` of them. */
    const struct flowmesh_header *headers;
    /** How many headers there are. */
    size_t header_count;
    /** The deadline, which the service sees: below 0 for 49 days. 30000 in `INIT`. */
    int64_t timeout_ms;
} flowmesh_call_options;

/** How to serve. Begin with `FLOWMESH_SERVE_OPTIONS_INIT`. */
typedef struct flowmesh_serve_options {
    /** `sizeof` of this struct. */
    size_t struct_size;
    /** Free text that discovery shows, at most 255 bytes; NULL: none. */
    const char *version;
    /** Calls it takes at once, and the threads of `flowmesh_serve`; 0: 1. */
    uint32_t concurrency;
    /** Calls that may wait for it at the host, at most 1048576. 1024 in `INIT`. */
    uint32_t queue;
    /** The most calls a second in the long run, all instances together; 0: no limit. */
    double rate_per_second;
    /** With `rate_per_second`: calls at once after a rest; 0: what a second allows. */
    uint32_t rate_burst;
    /** 0. */
    uint32_t reserved;
} flowmesh_serve_options;

/**
 * Answers one request, which is lent until it returns: with `flowmesh_request_reply` and `FLOWMESH_OK`, or with a
 * failure: most easily `return flowmesh_handler_error(...)`. `FLOWMESH_OK` without a reply is an empty reply.
 */
typedef flowmesh_status (*flowmesh_request_handler)(void *context, struct flowmesh_request *request);

/** One instance of a service. Begin with `FLOWMESH_INSTANCE_INIT`. */
typedef struct flowmesh_instance {
    /** `sizeof` of this struct. */
    size_t struct_size;
    /** The service's name. */
    const char *service;
    /** The service version it announced; empty for none. */
    const char *version;
    /** The name its process opened or connected with. */
    const char *client;
    /** Its number, unique on the mesh. */
    uint64_t instance;
    /** Median time from accepting a call to its answer. */
    uint64_t latency_p50_ns;
    /** The 99th percentile of the same. */
    uint64_t latency_p99_ns;
    /** Its session; 0 is the host itself. */
    uint32_t session;
    /** Its process. */
    uint32_t pid;
    /** Calls it is working on. */
    uint32_t outstanding;
    /** Calls it takes at once. */
    uint32_t concurrency;
} flowmesh_instance;

/** Counts over the whole mesh since its host opened. Begin with `FLOWMESH_TOTALS_INIT`. */
typedef struct flowmesh_totals {
    /** `sizeof` of this struct. */
    size_t struct_size;
    /** How long the host has been open. */
    uint64_t uptime_ms;
    /** Events accepted from publishers. */
    uint64_t published;
    /** Their payload bytes. */
    uint64_t published_bytes;
    /** Deliveries to subscriptions: one event to three subscriptions counts three. */
    uint64_t delivered;
    /** Their payload bytes. */
    uint64_t delivered_bytes;
    /** Deliveries lost because a subscription was slow. */
    uint64_t dropped;
    /** Deliveries that came too late for their time to live. */
    uint64_t expired;
    /** Events that no subscription matched. */
    uint64_t unmatched;
    /** Events waiting for their delay to pass. */
    uint64_t delayed;
    /** Times a publisher had to wait for a subscriber that blocks. */
    uint64_t blocked;
    /** Sessions ended because the peer broke the protocol. */
    uint64_t protocol_violations;
    /** Handshakes refused. */
    uint64_t handshakes_refused;
} flowmesh_totals;

/** One service's counts, over all its instances. Begin with `FLOWMESH_SERVICE_STATS_INIT`. */
typedef struct flowmesh_service_stats {
    /** `sizeof` of this struct. */
    size_t struct_size;
    /** Its name. */
    const char *name;
    /** Calls accepted. */
    uint64_t calls;
    /** Calls that ended in a handler's failure. */
    uint64_t failed;
    /** Calls whose deadline passed. */
    uint64_t timed_out;
    /** Calls the caller cancelled. */
    uint64_t cancelled;
    /** Calls whose instance died. */
    uint64_t peer_gone;
    /** Calls refused by the rate limit. */
    uint64_t rate_limited;
    /** Calls refused because too many were waiting. */
    uint64_t refused;
    /** Calls an instance is working on now. */
    uint64_t in_flight;
    /** Calls waiting for an instance now. */
    uint64_t depth;
    /** Payload bytes of requests. */
    uint64_t request_bytes;
    /** Payload bytes of responses. */
    uint64_t response_bytes;
    /** Calls whose time was taken, from the host's accepting the call to its answer. */
    uint64_t latency_count;
    /** Their mean. */
    uint64_t latency_mean_ns;
    /** Their median, at most 12.5 % too large; so are the others. */
    uint64_t latency_p50_ns;
    /** Their 99th percentile. */
    uint64_t latency_p99_ns;
    /** The slowest. */
    uint64_t latency_max_ns;
    /** Instances now. */
    uint32_t instances;
    /** 0. */
    uint32_t reserved;
} flowmesh_service_stats;

/** One session: a client of the host. Begin with `FLOWMESH_SESSION_STATS_INIT`. */
typedef struct flowmesh_session_stats {
    /** `sizeof` of this struct. */
    size_t struct_size;
    /** The name the client gave. */
    const char *name;
    /** The client's language: `c`, `python`, `node`, `rust`. */
    const char *language;
    /** The client's FlowMesh version. */
    const char *version;
    /** `shm`, `unix` or `tcp`. */
    const char *transport;
    /** Frames received from the client. */
    uint64_t frames_in;
    /** Bytes received from the client. */
    uint64_t bytes_in;
    /** Frames sent to the client. */
    uint64_t frames_out;
    /** Bytes sent to the client. */
    uint64_t bytes_out;
    /** Bytes waiting at the host for room in the ring. */
    uint64_t backlog_bytes;
    /** Its number. */
    uint32_t session;
    /** The client's process. */
    uint32_t pid;
} flowmesh_session_stats;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/* Errors ==================================================================================================== */

/**
 * The message of this thread's last error, NUL-terminated UTF-8; empty when there was none.
 *
 * It names the call, the reason and the values that matter: `mesh.publish: a size is over its limit
 * (payload_bytes=9, limit=8)`. The address never changes for a thread; the text does, with the next
 * function of this thread that fails. One that succeeds leaves it alone. Longer messages are cut at
 * 1023 bytes.
 *
 * Threads: each has its own. Never blocks.
 */
const char *flowmesh_error_message(void);

/**
 * The code of this thread's last error, `FLOWMESH_OK` when there was none.
 *
 * For functions that return a value rather than a status: clear it before, look at it after.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_error_code(void);

/**
 * One value of this thread's last error by its name, or NULL when it has none of that name.
 *
 * Which values an error carries is in its message. Some worth asking for: `retry_after_ms` of
 * `RATE_LIMITED` and `CIRCUIT_OPEN`, `pid` of `ALREADY_OPEN`, `type` and `message` of `HANDLER_FAILED`,
 * `limit` of `TOO_LARGE`, `operation` of all. The text lives as long as the message does.
 */
const char *flowmesh_error_get(const char *name);

/** Forgets this thread's last error. */
void flowmesh_error_clear(void);

/** What a status means, in a few words. Static text, also for numbers that are no status. */
const char *flowmesh_strerror(flowmesh_status status);

/** The name of a status: `"OK"`, `"TIMEOUT"` and so on, as `enum flowmesh_code` spells it. Static text. */
const char *flowmesh_status_name(flowmesh_status status);

/** What to do about a status, in one sentence. Static text. */
const char *flowmesh_status_advice(flowmesh_status status);

/** 1 when the same call may succeed later without being changed, else 0. */
int32_t flowmesh_status_is_retryable(flowmesh_status status);

/**
 * What a handler returns when it could not do its work: records `type` and `message` for the caller and
 * returns `FLOWMESH_ERR_HANDLER_FAILED`.
 *
 *     return flowmesh_handler_error("ParseError", "line 3: no number");
 *
 * `type` is a short name that callers compare, in other languages the class of the exception.
 */
flowmesh_status flowmesh_handler_error(const char *type, const char *message);

/**
 * Frees a text that a function gave as `char *`. NULL is fine.
 *
 * Errors:
 * `BAD_HANDLE`: the library did not give this text, or it was freed before. Nothing is freed then.
 */
flowmesh_status flowmesh_string_free(char *text);

/**
 * How many handles and texts were given out and not freed yet: 0 when a program has tidied up.
 *
 * For tests and for hunting leaks; handles that are lent to a running handler count.
 */
size_t flowmesh_handle_count(void);

/* Version =================================================================================================== */

/** The library's version, as `"0.1.0"`. Static text. */
const char *flowmesh_version(void);

/** The library's version as a number: major * 1000000 + minor * 1000 + patch. */
uint32_t flowmesh_version_number(void);

/**
 * Whether this library serves programs that were compiled with a header of that version.
 *
 *     if (flowmesh_check_abi(FLOWMESH_VERSION_NUMBER) != FLOWMESH_OK) return 1;
 *
 * Errors:
 * `VERSION_MISMATCH`: another major version, or a header newer than the library.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_check_abi(uint32_t header_version);

/* Opening and closing ======================================================================================= */

/**
 * Opens `directory` as its host, making it (mode 0700) when it is not there. One process at a time can be the
 * host; the others connect. `options` may be NULL. The mesh in `*out` is the caller's to free.
 *
 * Threads: any. Blocks only for the file system.
 *
 * Errors:
 * `ALREADY_OPEN`: another process is the host, its pid is the value `pid`. `PERMISSION_DENIED`, `IO`,
 * `RESOURCE_EXHAUSTED`: what the system said. `INVALID_ARGUMENT`: an option is out of its range.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_open(const char *directory,
                              const struct flowmesh_open_options *options,
                              struct flowmesh_mesh **out);

/**
 * Connects to the host of `directory` as a client. `options` may be NULL. The mesh in `*out` is the caller's
 * to free.
 *
 * Threads: any. Blocks until the host has answered, at most `connect_timeout_ms`.
 *
 * Errors:
 * `NOT_FOUND`: no such directory, or no host has it open. `PERMISSION_DENIED`. `TIMEOUT`: the host does not
 * answer. `DISCONNECTED`: it went away meanwhile. `PROTOCOL`: whoever answered is not FlowMesh.
 * `VERSION_MISMATCH`: host and client have no protocol version in common. `RESOURCE_EXHAUSTED`: the host has as
 * many clients as it takes.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_connect(const char *directory,
                                 const struct flowmesh_open_options *options,
                                 struct flowmesh_mesh **out);

/**
 * Connects over TCP to a host that called `flowmesh_listen_tcp` with the same secret. `address` is like
 * `"127.0.0.1:7000"`. Both sides prove that they know the secret; what follows is not encrypted.
 *
 * Threads: any. Blocks until the host has answered, at most `connect_timeout_ms`.
 *
 * Errors:
 * As `flowmesh_connect`, and `UNAUTHENTICATED`: the secrets differ. `DISCONNECTED`: nobody listens there.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_connect_tcp(const char *address,
                                     const void *secret,
                                     size_t secret_bytes,
                                     const struct flowmesh_open_options *options,
                                     struct flowmesh_mesh **out);

/**
 * Lets clients of other machines in: listens on `address`, like `"0.0.0.0:7000"`; port 0 picks one. Host only.
 *
 * `secret` is at least 16 bytes that clients must know. The address that was bound is written to `bound`,
 * NUL-terminated, when `bound_bytes` is more than 0; 64 bytes hold any.
 *
 * Threads: any. Does not block.
 *
 * Errors:
 * `INVALID_ARGUMENT`: the address cannot be read, the secret is too short, or `bound` is too small.
 * `UNAUTHENTICATED`: no secret. `UNSUPPORTED`: this mesh is a client. `IO`: the address is taken.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_listen_tcp(struct flowmesh_mesh *mesh,
                                    const char *address,
                                    const void *secret,
                                    size_t secret_bytes,
                                    char *bound,
                                    size_t bound_bytes);

/**
 * Closes the mesh: every call that waits on it or on what was made from it ends with `CLOSED`, here and, when it
 * is the host, with `DISCONNECTED` at its clients. Closing again does nothing. The handle is still to be freed.
 *
 * Threads: any, also while others wait, and inside handlers.
 */
flowmesh_status flowmesh_mesh_close(struct flowmesh_mesh *mesh);

/**
 * Closes the mesh and frees its handle. Handles made from it stay valid: they answer `CLOSED` and are freed as
 * always, in any order. NULL is fine.
 */
flowmesh_status flowmesh_mesh_free(struct flowmesh_mesh *mesh);

/** One of `enum flowmesh_role`, or a negative status. */
int32_t flowmesh_mesh_role(const struct flowmesh_mesh *mesh);

/** The number of its session at the host, 0 for the host itself. */
uint32_t flowmesh_mesh_session(const struct flowmesh_mesh *mesh);

/** The process that is the host. */
uint32_t flowmesh_mesh_host_pid(const struct flowmesh_mesh *mesh);

/** The largest payload it takes, as its host was opened. */
size_t flowmesh_mesh_max_message_bytes(const struct flowmesh_mesh *mesh);

/** Its directory; no text (`data` is NULL) for a client that came over TCP. */
struct flowmesh_text flowmesh_mesh_directory(const struct flowmesh_mesh *mesh);

/** 1 when it was closed or lost its host, 0 when not, or a negative status. */
int32_t flowmesh_mesh_is_closed(const struct flowmesh_mesh *mesh);

/* Publishing events ========================================================================================= */

/**
 * Publishes one event. `payload` is copied. `options` may be NULL; `id`, unless NULL, gets the message's number,
 * unique on this mesh.
 *
 * A subject is tokens with dots between them, `orders.created`, at most 32 and 255 bytes; those that begin with
 * `$` belong to FlowMesh. Events of one publisher reach each subscriber in their order.
 *
 * Threads: any. Blocks only while there is no room, or while a subscriber that makes publishers wait is full; at
 * most `timeout_ms` of the options. Signals do not end that wait.
 *
 * Errors:
 * `INVALID_ARGUMENT`: the subject, or an option. `TOO_LARGE`: payload or headers over their limit. `TIMEOUT`: no
 * room came in time. `CLOSED`. `DISCONNECTED`: the host is gone. `FORKED`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_publish(struct flowmesh_mesh *mesh,
                                 const char *subject,
                                 const void *payload,
                                 size_t payload_bytes,
                                 const struct flowmesh_publish_options *options,
                                 uint64_t *id);

/**
 * Publishes `event_count` events in their order with one wake-up: much cheaper each than one by one. All are
 * checked before the first is sent, so a refused batch publishes nothing. `options` may be NULL and count for
 * every event.
 *
 * Threads and blocking: as `flowmesh_publish`.
 *
 * Errors:
 * As `flowmesh_publish`. The context of the error says under `published` how many, from the first on, were sent before it.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_publish_many(struct flowmesh_mesh *mesh,
                                      const struct flowmesh_event *events,
                                      size_t event_count,
                                      const struct flowmesh_publish_options *options);

/* Messages ================================================================================================== */

/**
 * Where it was published; of a request or an answer, the service's name.
 *
 * What these functions return is lent by the message until it is freed. With a bad handle they return an empty
 * value, and `flowmesh_error_code` says which error it was. Threads: any. They never block.
 */
struct flowmesh_text flowmesh_message_subject(const struct flowmesh_message *message);

/** Its payload. */
struct flowmesh_bytes flowmesh_message_payload(const struct flowmesh_message *message);

/** The value of its first header of that name; no text (`data` is NULL) when it has none. */
struct flowmesh_text flowmesh_message_header(const struct flowmesh_message *message, const char *name);

/** How many headers it has. */
size_t flowmesh_message_header_count(const struct flowmesh_message *message);

/**
 * Its header number `index`, from 0, in the order they were given. `name` and `value` may be NULL.
 *
 * Errors:
 * `NOT_FOUND`: it has fewer headers.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_message_header_at(const struct flowmesh_message *message,
                                           size_t index,
                                           struct flowmesh_text *name,
                                           struct flowmesh_text *value);

/**
 * How its payload is encoded: the value of the header `content-type`, like `"application/json"`; no text when
 * it does not say.
 */
struct flowmesh_text flowmesh_message_content_type(const struct flowmesh_message *message);

/** The number its publisher's `flowmesh_publish` gave; of a request, the number of the call. */
uint64_t flowmesh_message_id(const struct flowmesh_message *message);

/** When it was published, in nanoseconds since 1970-01-01 UTC. */
uint64_t flowmesh_message_timestamp_ns(const struct flowmesh_message *message);

/** 0 to 9; higher is delivered first. */
int32_t flowmesh_message_priority(const struct flowmesh_message *message);

/** How long after publishing it may still be delivered; 0: for ever. */
int64_t flowmesh_message_ttl_ms(const struct flowmesh_message *message);

/** How many events the subscription lost just before this one, because it was slow. */
uint64_t flowmesh_message_gap(const struct flowmesh_message *message);

/** 1 the first time it is delivered, more when its handling failed before. */
uint32_t flowmesh_message_attempt(const struct flowmesh_message *message);

/** Frees a message, and with it all that it lent. NULL is fine. */
flowmesh_status flowmesh_message_free(struct flowmesh_message *message);

/** Frees `count` messages and sets their places to NULL; places that are NULL already are fine. */
flowmesh_status flowmesh_message_free_many(struct flowmesh_message **messages, size_t count);

/* Subscribing =============================================================================================== */

/**
 * Subscribes to a pattern: a subject in which `*` stands for any one token and `>`, at the end, for one or more.
 * `options` may be NULL. Events published after this returned are received. The subscription in `*out` is the
 * caller's to free.
 *
 * Threads: any. Blocks until the host has answered.
 *
 * Errors:
 * `INVALID_ARGUMENT`: the pattern, or an option. `CLOSED`. `DISCONNECTED`. `FORKED`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_subscribe(struct flowmesh_mesh *mesh,
                                   const char *pattern,
                                   const struct flowmesh_subscribe_options *options,
                                   struct flowmesh_subscription **out);

/**
 * Subscribes and has `handler` called for each event, one at a time, in a thread of the library. A failure it
 * returns is as good as `flowmesh_subscription_fail`. `options`, `context` and `drop` may be NULL.
 *
 * The subscription in `*out` is the caller's to free, which ends the calls; freeing it inside the handler is
 * allowed. `drop(context)` is called exactly once, also when this function fails.
 *
 * Threads: any. Blocks until the host has answered.
 *
 * Errors:
 * As `flowmesh_subscribe`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_on(struct flowmesh_mesh *mesh,
                            const char *pattern,
                            const struct flowmesh_subscribe_options *options,
                            flowmesh_event_handler handler,
                            void *context,
                            flowmesh_drop drop,
                            struct flowmesh_subscription **out);

/**
 * Receives the next event, waiting at most `timeout_ms`: below 0 for ever, 0 only looks. The message in `*out` is
 * the caller's to free; without one, `*out` is NULL.
 *
 * Threads: any; several may receive from one subscription, and each event goes to one of them.
 *
 * Errors:
 * `TIMEOUT`: none came. `INTERRUPTED`: a signal came (see `on_signal`). `CLOSED`: the subscription or the mesh
 * was closed or freed, also while this waited. `DISCONNECTED`: the host is gone. `SLOW_CONSUMER`: it fell behind
 * and was ended, as its options say. `FORKED`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_subscription_receive(struct flowmesh_subscription *subscription,
                                              int64_t timeout_ms,
                                              struct flowmesh_message **out);

/**
 * Waits for one event as `flowmesh_subscription_receive` does, then takes all that are there, up to `capacity`, into
 * `messages`; `*count` says how many. Each is the caller's to free (`flowmesh_message_free_many`).
 *
 * Errors:
 * As `flowmesh_subscription_receive`; `*count` is 0 then.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_subscription_receive_many(struct flowmesh_subscription *subscription,
                                                   int64_t timeout_ms,
                                                   struct flowmesh_message **messages,
                                                   size_t capacity,
                                                   size_t *count);

/**
 * Says that handling `message`, received from this subscription, failed: it is delivered again after the
 * options' backoff until `max_attempts`, then goes to `dead_letter`; without `max_attempts` it is only counted.
 * `type` is a short name of the failure, `why` a sentence. The message is still to be freed.
 *
 * Threads: any. Does not block.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_subscription_fail(struct flowmesh_subscription *subscription,
                                           const struct flowmesh_message *message,
                                           const char *type,
                                           const char *why);

/**
 * This subscription's own counts, into `*out`, which begins with its size (`FLOWMESH_SUBSCRIPTION_STATS_INIT`). Its
 * texts are lent until the subscription is freed.
 *
 * Threads: any. Does not block.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_subscription_get_stats(const struct flowmesh_subscription *subscription,
                                                struct flowmesh_subscription_stats *out);

/**
 * A descriptor that is readable while an event waits or the subscription is closed, or a negative status. For
 * `poll`, `epoll` and their like: do not read, write or close it. It lives until the subscription is freed.
 *
 * When it is readable, receive with timeout 0 until `TIMEOUT`.
 *
 * Threads: any. Does not block.
 */
int32_t flowmesh_subscription_fd(const struct flowmesh_subscription *subscription);

/** Its pattern, lent until it is freed. */
struct flowmesh_text flowmesh_subscription_pattern(const struct flowmesh_subscription *subscription);

/**
 * Unsubscribes: what already waits can still be received, then comes `CLOSED`. Closing again does nothing.
 *
 * Threads: any, also inside its own handler; whoever waits in it is woken.
 */
flowmesh_status flowmesh_subscription_close(struct flowmesh_subscription *subscription);

/** 1 when it was closed or ended, 0 when not, or a negative status. */
int32_t flowmesh_subscription_is_closed(const struct flowmesh_subscription *subscription);

/** Closes and frees it. Messages received from it stay. NULL is fine. */
flowmesh_status flowmesh_subscription_free(struct flowmesh_subscription *subscription);

/* Calling services ========================================================================================== */

/**
 * Calls a service and waits for the answer. `payload` is copied. `options` may be NULL; its `timeout_ms` is the
 * call's deadline. The answer in `*reply` is the caller's to free; on failure it is NULL.
 *
 * When several instances serve the name, one that has the fewest calls is chosen.
 *
 * Threads: any. Blocks until the answer, at most until the deadline.
 *
 * Errors:
 * `NO_SERVICE`: nobody serves the name. `TIMEOUT`: no answer in time; the handler sees that the call is
 * cancelled. `HANDLER_FAILED`: the values `type` and `message` say how. `PEER_GONE`: the instance's process ended
 * before it answered. `RATE_LIMITED`, `CIRCUIT_OPEN`: see the value `retry_after_ms`. `FULL`: too many calls wait.
 * `INTERRUPTED`: a signal came (see `on_signal`), and the call was cancelled. `TOO_LARGE`, `INVALID_ARGUMENT`,
 * `CLOSED`, `DISCONNECTED`, `FORKED`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_call(struct flowmesh_mesh *mesh,
                              const char *service,
                              const void *payload,
                              size_t payload_bytes,
                              const struct flowmesh_call_options *options,
                              struct flowmesh_message **reply);

/**
 * Starts a call and returns at once. The pending call in `*out` is the caller's to free, which cancels it when it
 * has no answer yet.
 *
 * Threads: any. Blocks only while there is no room for the request.
 *
 * Errors:
 * `INVALID_ARGUMENT`, `TOO_LARGE`, `CLOSED`, `DISCONNECTED`, `FORKED`; the other failures of `flowmesh_call` come
 * with the answer.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_call_start(struct flowmesh_mesh *mesh,
                                    const char *service,
                                    const void *payload,
                                    size_t payload_bytes,
                                    const struct flowmesh_call_options *options,
                                    struct flowmesh_pending **out);

/**
 * Waits for the answer, at most `timeout_ms`: below 0 for ever, which the call's own deadline ends. An answer is
 * given out once, and is the caller's to free; afterwards comes `CLOSED`.
 *
 * Threads: any.
 *
 * Errors:
 * Those of `flowmesh_call`. `TIMEOUT` is also returned when `timeout_ms` passed before the deadline: the call goes
 * on then. `CANCELLED`: somebody cancelled it. `INTERRUPTED`: a signal came; the call goes on.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_pending_wait(struct flowmesh_pending *pending,
                                      int64_t timeout_ms,
                                      struct flowmesh_message **reply);

/**
 * Takes the answer if it is there. `*done` becomes 1 when the call has ended, well or not, and 0 while it goes
 * on; `*reply` is NULL unless it ended well.
 *
 * Threads: any. Does not block.
 *
 * Errors:
 * The call's failure, as `flowmesh_call` names them, with `*done` 1.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_pending_try(struct flowmesh_pending *pending,
                                     int32_t *done,
                                     struct flowmesh_message **reply);

/**
 * Cancels the call: its handler is told, and whoever waits for the answer gets `CANCELLED`. Does nothing when the
 * call has ended.
 *
 * Threads: any. Does not block.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_pending_cancel(struct flowmesh_pending *pending);

/**
 * A descriptor that is readable once the call has ended, or a negative status. For `poll` and its like: do not
 * read, write or close it. It lives until the pending call is freed.
 *
 * Threads: any. Does not block.
 */
int32_t flowmesh_pending_fd(const struct flowmesh_pending *pending);

/** Frees it, cancelling the call when it has not ended. NULL is fine. */
flowmesh_status flowmesh_pending_free(struct flowmesh_pending *pending);

/* Serving, with a handler =================================================================================== */

/**
 * Serves `name` and has `handler` called for each call, in `concurrency` threads of the library, so in several at
 * once when that is more than 1. `options`, `context` and `drop` may be NULL.
 *
 * The service in `*out` is the caller's to free, which ends serving; freeing it inside the handler is allowed.
 * `drop(context)` is called exactly once, also when this function fails.
 *
 * Threads: any. Blocks until the host has answered.
 *
 * Errors:
 * `INVALID_ARGUMENT`: the name (letters, digits, `_`, `-` and dots), or an option. `CLOSED`. `DISCONNECTED`.
 * `FORKED`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_serve(struct flowmesh_mesh *mesh,
                               const char *name,
                               const struct flowmesh_serve_options *options,
                               flowmesh_request_handler handler,
                               void *context,
                               flowmesh_drop drop,
                               struct flowmesh_service **out);

/* Serving, by asking for the next call ====================================================================== */

/**
 * Serves `name`; calls wait until `flowmesh_service_next` takes them. No thread of the library calls back. `options`
 * may be NULL. The service in `*out` is the caller's to free.
 *
 * Threads: any. Blocks until the host has answered.
 *
 * Errors:
 * As `flowmesh_serve`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_service_open(struct flowmesh_mesh *mesh,
                                      const char *name,
                                      const struct flowmesh_serve_options *options,
                                      struct flowmesh_service **out);

/**
 * Takes the next call, waiting at most `timeout_ms`: below 0 for ever, 0 only looks. The request in `*out` is the
 * caller's to answer and to free. Of a service with a handler the calls are the handler's to take.
 *
 * Threads: any; several may take calls of one service.
 *
 * Errors:
 * `TIMEOUT`: none came. `INTERRUPTED`: a signal came (see `on_signal`). `CLOSED`: the service or the mesh was
 * closed or freed, also while this waited. `DISCONNECTED`. `FORKED`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_service_next(struct flowmesh_service *service,
                                      int64_t timeout_ms,
                                      struct flowmesh_request **out);

/** Its name, lent until it is freed. */
struct flowmesh_text flowmesh_service_name(const struct flowmesh_service *service);

/**
 * A descriptor that is readable while a call waits or the service is closed, or a negative status. For `poll` and
 * its like: do not read, write or close it. It lives until the service is freed.
 *
 * When it is readable, take calls with timeout 0 until `TIMEOUT`.
 *
 * Threads: any. Does not block.
 */
int32_t flowmesh_service_fd(const struct flowmesh_service *service);

/**
 * Stops serving: the host sends no more calls; what already waits can still be taken, then comes `CLOSED`. Closing
 * again does nothing.
 *
 * Threads: any, also inside its own handler; whoever waits in it is woken.
 */
flowmesh_status flowmesh_service_close(struct flowmesh_service *service);

/** 1 when it was closed, 0 when not, or a negative status. */
int32_t flowmesh_service_is_closed(const struct flowmesh_service *service);

/** Closes and frees it. Requests taken from it can still be answered. NULL is fine. */
flowmesh_status flowmesh_service_free(struct flowmesh_service *service);

/* Requests ================================================================================================== */

/**
 * Its payload, lent until the request is freed.
 *
 * Threads: any, as for all functions of a request.
 */
struct flowmesh_bytes flowmesh_request_payload(const struct flowmesh_request *request);

/**
 * The whole request as a message, for its headers, id and time; its subject is the service's name. It is lent
 * until the request is freed: do not free it. NULL, with an error, for a bad handle.
 */
const struct flowmesh_message *flowmesh_request_message(const struct flowmesh_request *request);

/**
 * Answers the request. `payload` and `headers` (`header_count` of them; NULL for none) are copied. A request is
 * answered once; it is still to be freed, unless a handler was lent it. A handler's answer goes out when the
 * handler returns `FLOWMESH_OK`.
 *
 * Does not block for long: only while there is no room for the answer.
 *
 * Errors:
 * `CLOSED`: it was answered before, or the mesh was closed. `TOO_LARGE`: the caller gets that error as its
 * answer. `DISCONNECTED`. `FORKED`. An answer that nobody waits for any more goes nowhere, which is no error.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_request_reply(struct flowmesh_request *request,
                                       const void *payload,
                                       size_t payload_bytes,
                                       const struct flowmesh_header *headers,
                                       size_t header_count);

/**
 * Answers that the request failed: the caller gets `HANDLER_FAILED` with `type`, a short name of the failure, and
 * `why`, a sentence.
 *
 * Errors:
 * As `flowmesh_request_reply`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_request_fail(struct flowmesh_request *request,
                                      const char *type,
                                      const char *why);

/**
 * 1 when nobody waits for the answer any more: the caller gave up or went away, or the deadline passed. 0 when
 * somebody does, and after it was answered; or a negative status.
 */
int32_t flowmesh_request_is_cancelled(const struct flowmesh_request *request);

/**
 * The time left until the caller's deadline, 0 when it has passed or the request was answered, or a negative
 * status.
 */
int64_t flowmesh_request_remaining_ms(const struct flowmesh_request *request);

/**
 * Frees it. A request that was not answered fails at its caller as `HANDLER_FAILED` of type `Dropped`. NULL is
 * fine.
 */
flowmesh_status flowmesh_request_free(struct flowmesh_request *request);

/* Discovery ================================================================================================= */

/**
 * Asks the host who serves what. The list in `*out` is the caller's to free; it does not change.
 *
 * Threads: any. Blocks until the host has answered.
 *
 * Errors:
 * `CLOSED`, `DISCONNECTED`, `FORKED`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_services(struct flowmesh_mesh *mesh, struct flowmesh_instance_list **out);

/** How many instances it lists; those of one service stand together. */
size_t flowmesh_instance_list_count(const struct flowmesh_instance_list *list);

/**
 * Instance number `index`, from 0, into `*out`, which begins with its size (`FLOWMESH_INSTANCE_INIT`). Its texts are
 * lent until the list is freed.
 *
 * Errors:
 * `NOT_FOUND`: it lists fewer.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_instance_list_get(const struct flowmesh_instance_list *list,
                                           size_t index,
                                           struct flowmesh_instance *out);

/** Frees it. NULL is fine. */
flowmesh_status flowmesh_instance_list_free(struct flowmesh_instance_list *list);

/* Statistics ================================================================================================ */

/**
 * Asks the host for all its counters, taken at one moment. The snapshot in `*out` is the caller's to free; it does
 * not change.
 *
 * Threads: any. Blocks until the host has answered.
 *
 * Errors:
 * `CLOSED`, `DISCONNECTED`, `FORKED`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_stats(struct flowmesh_mesh *mesh,
                               struct flowmesh_snapshot **out);

/**
 * The same as JSON, with the latency histograms' buckets. The text in `*out` is the caller's to free with
 * `flowmesh_string_free`.
 *
 * Threads, blocking and errors: as `flowmesh_stats`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_stats_json(struct flowmesh_mesh *mesh, char **out);

/** The counts over the whole mesh, into `*out`, which begins with its size (`FLOWMESH_TOTALS_INIT`). */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_snapshot_totals(const struct flowmesh_snapshot *snapshot,
                                         struct flowmesh_totals *out);

/** How many subscriptions it has. */
size_t flowmesh_snapshot_subscription_count(const struct flowmesh_snapshot *snapshot);

/**
 * Subscription number `index`, from 0, into `*out`, which begins with its size
 * (`FLOWMESH_SUBSCRIPTION_STATS_INIT`). Its texts are lent until the snapshot is freed.
 *
 * Errors:
 * `NOT_FOUND`: there are fewer.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_snapshot_subscription(const struct flowmesh_snapshot *snapshot,
                                               size_t index,
                                               struct flowmesh_subscription_stats *out);

/** How many services it has. */
size_t flowmesh_snapshot_service_count(const struct flowmesh_snapshot *snapshot);

/**
 * Service number `index`, from 0, into `*out`, which begins with its size (`FLOWMESH_SERVICE_STATS_INIT`). Its name is
 * lent until the snapshot is freed.
 *
 * Errors:
 * `NOT_FOUND`: there are fewer.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_snapshot_service(const struct flowmesh_snapshot *snapshot,
                                          size_t index,
                                          struct flowmesh_service_stats *out);

/** How many sessions it has: one for each client. */
size_t flowmesh_snapshot_session_count(const struct flowmesh_snapshot *snapshot);

/**
 * Session number `index`, from 0, into `*out`, which begins with its size (`FLOWMESH_SESSION_STATS_INIT`). Its texts
 * are lent until the snapshot is freed.
 *
 * Errors:
 * `NOT_FOUND`: there are fewer.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_snapshot_session(const struct flowmesh_snapshot *snapshot,
                                          size_t index,
                                          struct flowmesh_session_stats *out);

/** Frees it. NULL is fine. */
flowmesh_status flowmesh_snapshot_free(struct flowmesh_snapshot *snapshot);

/* Options without macros ==================================================================================== */

/**
 * Sets `options` to what `FLOWMESH_OPEN_OPTIONS_INIT` says, for languages that have no C macros. `size` is the
 * size of the struct as the caller knows it.
 *
 * Errors:
 * `INVALID_ARGUMENT`: `size` is not that of any version of the struct.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_open_options_init(struct flowmesh_open_options *options,
                                           size_t size);

/** The same as `FLOWMESH_PUBLISH_OPTIONS_INIT`. */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_publish_options_init(struct flowmesh_publish_options *options, size_t size);

/** The same as `FLOWMESH_SUBSCRIBE_OPTIONS_INIT`. */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_subscribe_options_init(struct flowmesh_subscribe_options *options, size_t size);

/** The same as `FLOWMESH_CALL_OPTIONS_INIT`. */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_call_options_init(struct flowmesh_call_options *options, size_t size);

/** The same as `FLOWMESH_SERVE_OPTIONS_INIT`. */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_serve_options_init(struct flowmesh_serve_options *options, size_t size);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* FLOWMESH_H */
