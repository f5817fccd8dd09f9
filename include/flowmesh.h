/*
 * FlowMesh: events, calls and durable job queues between the programs of one machine.
 *
 * Generated from the library's source by cbindgen: change it there, then run `ffi/check-header.sh --write`.
 *
 * One process opens a directory and is the host; others connect to it. All of them publish and receive
 * events, call services and serve them, through shared memory. Jobs in queues outlive every process.
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
    {sizeof(flowmesh_open_options), NULL, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0.0, 0, 0, 0, 0, NULL, NULL, 0, 0}
#define FLOWMESH_PUBLISH_OPTIONS_INIT {sizeof(flowmesh_publish_options), NULL, 0, 0, 0, 30000, 4, 0}
#define FLOWMESH_SUBSCRIBE_OPTIONS_INIT \
    {sizeof(flowmesh_subscribe_options), NULL, 0, 0, 0, 1000, 0, 0, 100, 30000, 2.0, NULL}
#define FLOWMESH_CALL_OPTIONS_INIT {sizeof(flowmesh_call_options), NULL, 0, 30000}
#define FLOWMESH_SERVE_OPTIONS_INIT {sizeof(flowmesh_serve_options), NULL, 0, 1024, 0.0, 0, 0}
#define FLOWMESH_BACKOFF_INIT {0, 1, 1000, 600000, 2.0, NULL, 0}
#define FLOWMESH_QUEUE_CONFIG_INIT \
    {sizeof(flowmesh_queue_config), 30000, -1, -1, -1, 30000, -1, 5, 8388608, -1, -1, FLOWMESH_BACKOFF_INIT, \
     NULL, NULL, NULL, 0, {0, 1000, 0}, {604800000, 100000, 0}, {3600000, 1000, 0}, \
     {3600000, 1000, 0}, NULL, FLOWMESH_DURABILITY_FSYNC, 0, 0}
#define FLOWMESH_ENQUEUE_OPTIONS_INIT \
    {sizeof(flowmesh_enqueue_options), NULL, NULL, 0, NULL, NULL, NULL, 0, 0, -1, -1, -1, -1, -1, \
     FLOWMESH_BACKOFF_INIT, 0, 0, 0, -1, 0, 0, 0}
#define FLOWMESH_SCHEDULE_INIT {sizeof(flowmesh_schedule), NULL, NULL, NULL, NULL, 0, NULL, 0, 0, 0, 0}
#define FLOWMESH_CURSOR_INIT {{0, 0, 0, 0}, 0, 0}
#define FLOWMESH_QUEUE_STATS_INIT \
    {sizeof(flowmesh_queue_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
#define FLOWMESH_JOB_INFO_INIT \
    {sizeof(flowmesh_job_info), NULL, NULL, NULL, {NULL, 0}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
#define FLOWMESH_WORKER_OPTIONS_INIT {sizeof(flowmesh_worker_options), -1, 1, 0}
#define FLOWMESH_WORKER_STATS_INIT {sizeof(flowmesh_worker_stats), 0, 0, 0, 0, 0, 0}
#define FLOWMESH_INSPECTED_INIT {sizeof(flowmesh_inspected), 0, 0, 0, 0, 0, 0, 0, NULL, 0, 0, 0}
#define FLOWMESH_DAMAGE_INIT {sizeof(flowmesh_damage), NULL, NULL, 0}
#define FLOWMESH_SEGMENT_INIT {sizeof(flowmesh_segment), NULL, 0, 0, 0, 0, 0}
#define FLOWMESH_CHECKPOINT_INIT {sizeof(flowmesh_checkpoint), NULL, 0, 0, 0, 0}
#define FLOWMESH_FAILURE_INIT {sizeof(flowmesh_failure), NULL, NULL, 0, 0, 0}
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

/**
 * How safe a change is when the function that made it returns: the fields named `durability`, and what was reached.
 * Higher is safer.
 */
enum flowmesh_durability {
    /** As the queue is set up. Only asked for, never reached. */
    FLOWMESH_DURABILITY_DEFAULT = 0,
    /** In the host's memory alone. Only reached, never asked for. */
    FLOWMESH_DURABILITY_MEMORY = 1,
    /** Handed to the kernel: it survives the death of any process. */
    FLOWMESH_DURABILITY_OS = 2,
    /** As `OS`, and flushed to the disk at most `durability_interval_ms` later. */
    FLOWMESH_DURABILITY_INTERVAL = 3,
    /** Flushed to the disk: it survives a power cut. What queues do unless they are set up otherwise. */
    FLOWMESH_DURABILITY_FSYNC = 4,
};

/** How long a job waits after a failed attempt: the field `kind` of `flowmesh_backoff`. */
enum flowmesh_backoff_kind {
    /** As the queue says; of a queue, `EXPONENTIAL`. */
    FLOWMESH_BACKOFF_DEFAULT = 0,
    /** `initial_ms`, times `factor` after each further failure, at most `max_ms`. */
    FLOWMESH_BACKOFF_EXPONENTIAL = 1,
    /** Always `initial_ms`. */
    FLOWMESH_BACKOFF_FIXED = 2,
    /** One of `list_ms` after the other, the last again and again. */
    FLOWMESH_BACKOFF_LIST = 3,
};

/** How long a job has its unique key: the field `unique_scope` of `flowmesh_enqueue_options`. */
enum flowmesh_unique_scope {
    /** Until it is done, dead, cancelled or expired. The default. */
    FLOWMESH_UNIQUE_ACTIVE = 0,
    /** Until it is first handed to a worker. */
    FLOWMESH_UNIQUE_WAITING = 1,
    /** As `ACTIVE`, and `unique_window_ms` longer. */
    FLOWMESH_UNIQUE_WINDOW = 2,
};

/**
 * What happens to a job whose unique key another job has: the field `unique_conflict` of
 * `flowmesh_enqueue_options`.
 */
enum flowmesh_unique_conflict {
    /** It is not enqueued; the receipt names the other. The default. */
    FLOWMESH_CONFLICT_RETURN_EXISTING = 0,
    /** The other is cancelled if it still waits, and this one enqueued; one being worked on stays, as above. */
    FLOWMESH_CONFLICT_REPLACE = 1,
    /**
     * The other, if it still waits, waits anew for as long as this one would, which is not enqueued. Without `delay_ms`
     * or `run_at_ms` the other stays as it is.
     */
    FLOWMESH_CONFLICT_EXTEND = 2,
    /** As `REPLACE`; while the other is being worked on, the newest waits until it is finished. */
    FLOWMESH_CONFLICT_KEEP_LAST = 3,
};

/** What became of a job that was to be enqueued: the field `outcome` of `flowmesh_receipt`. */
enum flowmesh_enqueued {
    /** It was enqueued. */
    FLOWMESH_ENQUEUED_NEW = 0,
    /** It was enqueued in the place of `replaced`, which had its unique key and is cancelled. */
    FLOWMESH_ENQUEUED_REPLACED = 1,
    /** It was not: the job `id` has the same id or unique key. */
    FLOWMESH_ENQUEUED_EXISTING = 2,
    /** It was not: the job `id` has the same unique key, and waits anew if this one had a delay. */
    FLOWMESH_ENQUEUED_EXTENDED = 3,
};

/** What became of a job that was to be cancelled. */
enum flowmesh_cancelled {
    /** It is cancelled. */
    FLOWMESH_CANCELLED_NOW = 0,
    /** A worker has it, and is asked to give it back; after the queue's `cancel_grace_ms` it is taken. */
    FLOWMESH_CANCELLED_ASKED = 1,
    /** It was finished before. */
    FLOWMESH_CANCELLED_FINISHED = 2,
};

/** A job is in exactly one of these. */
enum flowmesh_job_state {
    /** Waits for its time. */
    FLOWMESH_JOB_SCHEDULED = 0,
    /** Could be handed out now. */
    FLOWMESH_JOB_READY = 1,
    /** Could be handed out but for its group's limits, or the job that has its unique key. */
    FLOWMESH_JOB_BLOCKED = 2,
    /** A worker has it. */
    FLOWMESH_JOB_LEASED = 3,
    /** An attempt has failed; the next one waits for its time. */
    FLOWMESH_JOB_RETRY_WAIT = 4,
    /** Acknowledged. */
    FLOWMESH_JOB_DONE = 5,
    /** Out of attempts, or rejected. */
    FLOWMESH_JOB_DEAD = 6,
    /** Cancelled. */
    FLOWMESH_JOB_CANCELLED = 7,
    /** Waited longer than its time to live. */
    FLOWMESH_JOB_EXPIRED = 8,
};

/** What happens to times that were missed by more than a minute: the field `misfire` of `flowmesh_schedule`. */
enum flowmesh_misfire {
    /** One job stands for all of them. The default. */
    FLOWMESH_MISFIRE_RUN_ONCE = 0,
    /** They are let pass. */
    FLOWMESH_MISFIRE_SKIP = 1,
    /** Each is made up for, the first 100. */
    FLOWMESH_MISFIRE_RUN_ALL = 2,
};

/** What a job's handler returns beside `FLOWMESH_OK` and the codes of `enum flowmesh_code`. */
enum flowmesh_handled {
    /** No attempt can succeed: the job is dead. See `flowmesh_handler_reject`. */
    FLOWMESH_HANDLER_REJECT = 1,
    /** Later; the attempt does not count. See `flowmesh_handler_snooze`. */
    FLOWMESH_HANDLER_SNOOZE = 2,
    /** For another worker; the attempt does not count. */
    FLOWMESH_HANDLER_RELEASE = 3,
};

/** What happens while the last job of a schedule is not finished: the field `overlap` of `flowmesh_schedule`. */
enum flowmesh_overlap {
    /** Another job is enqueued. The default. */
    FLOWMESH_OVERLAP_ALLOW = 0,
    /** This time is let pass. */
    FLOWMESH_OVERLAP_SKIP = 1,
    /** The last job is cancelled and another enqueued. */
    FLOWMESH_OVERLAP_REPLACE = 2,
};

/** What a job carries, or was acked with. It never changes. */
typedef struct flowmesh_content flowmesh_content;

/** What a directory stores, and where that is not what was written. */
typedef struct flowmesh_inspection flowmesh_inspection;

/** Who serves what, as it was when it was asked for. */
typedef struct flowmesh_instance_list flowmesh_instance_list;

/** A job that this worker has, until it is settled or its lease ends. */
typedef struct flowmesh_job flowmesh_job;

/** The host's answer to what was said of a job, on its way. */
typedef struct flowmesh_job_answer flowmesh_job_answer;

/** Jobs as they were when they were asked for. */
typedef struct flowmesh_job_list flowmesh_job_list;

/** A mesh: this process as the host of a directory, or as a client of its host. */
typedef struct flowmesh_mesh flowmesh_mesh;

/** A message: an event, a request or an answer. It never changes, so any number of threads may read it. */
typedef struct flowmesh_message flowmesh_message;

/** The names of queues, as they were when they were asked for. */
typedef struct flowmesh_name_list flowmesh_name_list;

/** A call that was started and is waiting for its answer. */
typedef struct flowmesh_pending flowmesh_pending;

/** A queue of jobs. */
typedef struct flowmesh_queue flowmesh_queue;

/** How a queue is set up, as it was when it was asked for. */
typedef struct flowmesh_queue_settings flowmesh_queue_settings;

/** A call that an instance is to answer. */
typedef struct flowmesh_request flowmesh_request;

/** A wait for jobs that was started. */
typedef struct flowmesh_reservation flowmesh_reservation;

/** The schedules of a queue, as they were when they were asked for. */
typedef struct flowmesh_schedule_list flowmesh_schedule_list;

/** This process as an instance of a service. */
typedef struct flowmesh_service flowmesh_service;

/** All counters of a mesh at one moment. */
typedef struct flowmesh_snapshot flowmesh_snapshot;

/** A subscription: the events that match its pattern, waiting to be received. */
typedef struct flowmesh_subscription flowmesh_subscription;

/** A worker: threads that take jobs of a queue and have a handler called for each. */
typedef struct flowmesh_worker flowmesh_worker;

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
    /**
     * Host: 1 to open a directory whose stored jobs are damaged all the same: what is damaged is moved into
     * `quarantine`, never deleted, and what was written after it stays. A queue whose declaration was lost is called
     * `recovered-` and a number, with settings as they are by default. 0: that is `FLOWMESH_ERR_CORRUPT`.
     */
    int32_t repair;
    /** 0. */
    int32_t reserved;
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

/** How long a job waits after a failed attempt. The `_INIT` macros of the structs it is in fill it. */
typedef struct flowmesh_backoff {
    /** One of `enum flowmesh_backoff_kind`. */
    int32_t kind;
    /**
     * `EXPONENTIAL`: 1 to choose each wait anew between nothing and the full one, so that what failed together does
     * not come back together; 0 not to. 1 in `INIT`.
     */
    int32_t jitter;
    /** `EXPONENTIAL`: the wait after the first failure; `FIXED`: every wait. 1000 in `INIT`. */
    int64_t initial_ms;
    /** `EXPONENTIAL`: the longest wait. 600000 in `INIT`. */
    int64_t max_ms;
    /** `EXPONENTIAL`: what each further failure multiplies the wait by, 1 to 1000. 2 in `INIT`. */
    double factor;
    /** `LIST`: the waits, `list_count` of them. */
    const int64_t *list_ms;
    /** `LIST`: 1 to 100. */
    size_t list_count;
} flowmesh_backoff;

/** So many in each stretch of time, evenly, after so many at once. */
typedef struct flowmesh_rate {
    /** How many in each `per_ms`, 1 to 1000000000. */
    uint32_t count;
    /** How many may go at once after a rest, 1 to 1000000000. */
    uint32_t burst;
    /** The stretch of time, 1 to 31536000000 (365 days). */
    int64_t per_ms;
} flowmesh_rate;

/** The share of a group of jobs. */
typedef struct flowmesh_group_weight {
    /** Its key. */
    const char *group;
    /** Its share, 1 to 1000; groups that are not named have 1. */
    uint32_t weight;
    /** 0. */
    uint32_t reserved;
} flowmesh_group_weight;

/** How long finished jobs are kept to be looked at, and how many. */
typedef struct flowmesh_keep {
    /** How long; 0: not at all. */
    int64_t age_ms;
    /** At most so many: the oldest go when there are more. */
    uint32_t count;
    /** 0. */
    uint32_t reserved;
} flowmesh_keep;

/**
 * How a queue treats its jobs; what a job says for itself goes first. Begin with `FLOWMESH_QUEUE_CONFIG_INIT`, in
 * which -1 and NULL stand for what is not limited. Where no other limit is named, times are at most ten years.
 */
typedef struct flowmesh_queue_config {
    /** `sizeof` of this struct. */
    size_t struct_size;
    /** How long a worker has a job before it must extend, 1000 to 43200000 (12 hours). 30000 in `INIT`. */
    int64_t lease_ms;
    /** How long one attempt may take however often it is extended. -1 in `INIT`. */
    int64_t deadline_ms;
    /** How long a job may wait before it expires. -1 in `INIT`: for ever. */
    int64_t ttl_ms;
    /** A waiting job gains one priority each time this passes. -1 in `INIT`: never. */
    int64_t aging_ms;
    /** How long a worker whose job is cancelled has to give it back before it is taken. 30000 in `INIT`. */
    int64_t cancel_grace_ms;
    /** Jobs that may wait, at least 1; more are `FLOWMESH_ERR_FULL`. -1 in `INIT`. */
    int64_t max_length;
    /** How often a job is handed out before it is dead, 1 to 1000. 5 in `INIT`. */
    uint32_t max_attempts;
    /** The largest payload or result, 1 to 67108864 (64 MiB). 8388608 (8 MiB) in `INIT`. */
    uint32_t payload_bytes_max;
    /** Jobs that may be leased at once, at least 1. -1 in `INIT`. */
    int32_t concurrency;
    /** Jobs of one group that may be leased at once, at least 1, which is strict order within a group. -1 in `INIT`. */
    int32_t group_concurrency;
    /** How long a job waits after a failed attempt. */
    struct flowmesh_backoff backoff;
    /** How often jobs are handed out; NULL: no limit. */
    const struct flowmesh_rate *rate;
    /** How often jobs of one group are handed out; NULL: no limit. */
    const struct flowmesh_rate *group_rate;
    /** Shares of groups, `group_weight_count` of them; NULL: all are equal. */
    const struct flowmesh_group_weight *group_weights;
    /** At most 10000. */
    size_t group_weight_count;
    /** Done jobs; one with a result is kept for its `result_ttl_ms` instead. Not at all in `INIT`. */
    struct flowmesh_keep keep_done;
    /** Dead jobs. 7 days and 100000 in `INIT`. */
    struct flowmesh_keep keep_dead;
    /** Cancelled jobs. 1 hour and 1000 in `INIT`. */
    struct flowmesh_keep keep_cancelled;
    /** Expired jobs. 1 hour and 1000 in `INIT`. */
    struct flowmesh_keep keep_expired;
    /** The queue that jobs out of attempts move to; NULL: they stay here as dead. */
    const char *dead_letter_to;
    /**
     * How safe a change is before its caller hears of it, one of `enum flowmesh_durability`.
     * `FLOWMESH_DURABILITY_FSYNC` in `INIT`.
     */
    int32_t durability;
    /** 1: an attempt that ends with its worker's process does not count; 0: it counts. */
    int32_t uncounted_on_crash;
    /** With `FLOWMESH_DURABILITY_INTERVAL`: how much later the disk has it, at most. */
    int64_t durability_interval_ms;
} flowmesh_queue_config;

/**
 * What one job wants. Begin with `FLOWMESH_ENQUEUE_OPTIONS_INIT`, in which -1 and NULL stand for what the queue says, or
 * for none.
 */
typedef struct flowmesh_enqueue_options {
    /** `sizeof` of this struct. */
    size_t struct_size;
    /**
     * Its id: a UUID, or 32 hexadecimal digits. A job that is there already with this id is not enqueued again. NULL:
     * a new one, ordered by time.
     */
    const char *id;
    /** Headers, `header_count` of them; at most 256, 64 KiB in all. */
    const struct flowmesh_header *headers;
    /** How many headers there are. */
    size_t header_count;
    /** How the payload is encoded, at most 255 bytes; NULL: not said. */
    const char *content_type;
    /** Its group, at most 1 KiB. */
    const char *group;
    /** A key that at most one job of the queue has at a time, at most 1 KiB. */
    const char *unique_key;
    /** With `FLOWMESH_UNIQUE_WINDOW`: how much longer. */
    int64_t unique_window_ms;
    /** How long it waits first, at most ten years. 0 in `INIT`. */
    int64_t delay_ms;
    /**
     * Until when it waits, in milliseconds since 1970-01-01 UTC; what has passed is now. Not both with `delay_ms`.
     * -1 in `INIT`.
     */
    int64_t run_at_ms;
    /** How long it may wait before it expires. -1 in `INIT`. */
    int64_t ttl_ms;
    /** How long a worker has it before it must extend, 1000 to 43200000 (12 hours). -1 in `INIT`. */
    int64_t lease_ms;
    /** How long one attempt may take however often it is extended. -1 in `INIT`. */
    int64_t deadline_ms;
    /** How long its result is kept. -1 in `INIT`: an hour. */
    int64_t result_ttl_ms;
    /** How long it waits after a failed attempt. */
    struct flowmesh_backoff backoff;
    /** One of `enum flowmesh_unique_scope`. */
    int32_t unique_scope;
    /** One of `enum flowmesh_unique_conflict`. */
    int32_t unique_conflict;
    /** 0 to 255, higher goes first. */
    int32_t priority;
    /** How often it is handed out before it is dead, 1 to 1000. -1 in `INIT`. */
    int32_t max_attempts;
    /** How safe it is when enqueueing returns, one of `enum flowmesh_durability`. */
    int32_t durability;
    /** 0. */
    int32_t reserved;
    /** With `FLOWMESH_DURABILITY_INTERVAL`: how much later the disk has it, at most. */
    int64_t durability_interval_ms;
} flowmesh_enqueue_options;

/** What enqueueing a job gave. */
typedef struct flowmesh_receipt {
    /** The job that will be worked on: its UUID, NUL-terminated. */
    char id[40];
    /** With `FLOWMESH_ENQUEUED_REPLACED` the cancelled job, else empty. */
    char replaced[40];
    /** One of `enum flowmesh_enqueued`. */
    int32_t outcome;
    /** How safe it is, one of `enum flowmesh_durability`. */
    int32_t durability;
} flowmesh_receipt;

/** A job for `flowmesh_queue_enqueue_many`. */
typedef struct flowmesh_new_job {
    /** Its bytes; NULL when `payload_bytes` is 0. */
    const void *payload;
    /** How many there are. */
    size_t payload_bytes;
    /** What it wants; NULL: what the call says. `durability` is of the call alone. */
    const struct flowmesh_enqueue_options *options;
} flowmesh_new_job;

/** How a worker works. Begin with `FLOWMESH_WORKER_OPTIONS_INIT`. */
typedef struct flowmesh_worker_options {
    /** `sizeof` of this struct. */
    size_t struct_size;
    /**
     * How long each job is the worker's before its lease must be extended, which the library does: 1000 to 43200000
     * (12 hours). -1 in `INIT`: as the job or the queue says. When the process dies, its jobs are another's at once; when it hangs,
     * after this time.
     */
    int64_t lease_ms;
    /** Jobs at once, each in a thread of its own, 1 to 1024. 1 in `INIT`. */
    uint32_t concurrency;
    /** 0. */
    uint32_t reserved;
} flowmesh_worker_options;

/**
 * Works on one job, which is lent until it returns. What it returns settles the job, unless the handler did so itself:
 *
 * - `FLOWMESH_OK`: it is done, with the result of `flowmesh_job_set_result` if there is one.
 * - `flowmesh_handler_reject(...)`, `flowmesh_handler_snooze(...)` or `FLOWMESH_HANDLER_RELEASE`.
 * - Anything else, most easily `flowmesh_handler_error(...)`: the attempt failed.
 */
typedef flowmesh_status (*flowmesh_job_handler)(void *context, struct flowmesh_job *job);

/** What a worker has done. Begin with `FLOWMESH_WORKER_STATS_INIT`. Jobs that the handler settled itself count nowhere. */
typedef struct flowmesh_worker_stats {
    /** `sizeof` of this struct. */
    size_t struct_size;
    /** Jobs that are being worked on now. */
    uint64_t running;
    /** Jobs acked. */
    uint64_t done;
    /** Attempts that failed. */
    uint64_t failed;
    /** Jobs rejected. */
    uint64_t rejected;
    /** Jobs released or put off. */
    uint64_t released;
    /** Jobs whose lease was lost before their outcome could be told: another worker has them. */
    uint64_t lost;
} flowmesh_worker_stats;

/** Numbers of one queue. Begin with `FLOWMESH_QUEUE_STATS_INIT`. */
typedef struct flowmesh_queue_stats {
    /** `sizeof` of this struct. */
    size_t struct_size;
    /** Jobs that wait for their time. */
    uint64_t scheduled;
    /** Jobs that could be handed out now. */
    uint64_t ready;
    /** Jobs that wait for their group's limits, or for the job that has their unique key. */
    uint64_t blocked;
    /** Jobs that workers have. */
    uint64_t leased;
    /** Jobs that wait for their next attempt. */
    uint64_t retry_wait;
    /** Jobs that are done and kept. */
    uint64_t done;
    /** Dead jobs. */
    uint64_t dead;
    /** Cancelled jobs that are kept. */
    uint64_t cancelled;
    /** Expired jobs that are kept. */
    uint64_t expired;
    /** Payload bytes of all jobs that are not finished. */
    uint64_t payload_bytes;
    /** How long the first of the ready jobs has been ready; -1 when none is. */
    int64_t oldest_ready_ms;
    /** Groups with jobs. */
    uint64_t groups;
    /** Dead jobs still to be redriven at the rate that was asked for. */
    uint64_t redriving;
    /** Since the host opened: jobs enqueued. */
    uint64_t total_enqueued;
    /** Since then: jobs not enqueued because of their id or unique key. */
    uint64_t total_duplicates;
    /** Since then: leases given. */
    uint64_t total_reserved;
    /** Since then: jobs done. */
    uint64_t total_done;
    /** Since then: attempts that failed: nacked, expired, or ended with their worker. */
    uint64_t total_failed;
    /** Of these, leases that expired. */
    uint64_t total_lease_expired;
    /** Of these, leases that ended with their worker's process. */
    uint64_t total_worker_gone;
    /** Since then: jobs given back: released or snoozed. */
    uint64_t total_released;
    /** Since then: jobs that became dead. */
    uint64_t total_dead;
    /** Since then: jobs cancelled. */
    uint64_t total_cancelled;
    /** Since then: jobs expired. */
    uint64_t total_expired;
    /** Since then: jobs redriven. */
    uint64_t total_redriven;
    /** Since then: jobs removed by purging or retention. */
    uint64_t total_removed;
    /** 1 when it hands out nothing. */
    int32_t paused;
    /** 1 when it takes nothing new. */
    int32_t draining;
} flowmesh_queue_stats;

/** Where a listing goes on: `flowmesh_cursor cursor = FLOWMESH_CURSOR_INIT;` is its begin. */
typedef struct flowmesh_cursor {
    /** The library's own. */
    uint64_t position[4];
    /** 0: at the begin; 1: there is more; 2: at the end. */
    int32_t state;
    /** 0. */
    int32_t reserved;
} flowmesh_cursor;

/** What is known of one job. Begin with `FLOWMESH_JOB_INFO_INIT`. Points in time are milliseconds since 1970-01-01 UTC. */
typedef struct flowmesh_job_info {
    /** `sizeof` of this struct. */
    size_t struct_size;
    /** Its id, a UUID. */
    const char *id;
    /** Its group; NULL when it has none. */
    const char *group;
    /** Its unique key; NULL when it has none. */
    const char *unique_key;
    /** What its worker last told (`flowmesh_job_progress`). */
    struct flowmesh_bytes progress;
    /** When it became ready; of a finished job, when it was finished. */
    int64_t since_ms;
    /**
     * Scheduled and waiting for the next attempt: when it is ready. Leased: when the lease ends. Finished: until when it
     * is kept. -1: none.
     */
    int64_t due_ms;
    /** When it expires if it still waits then; -1: never. */
    int64_t expires_ms;
    /** The number of the process that has it, its session; 0 is the host itself. -1: none has. */
    int64_t worker;
    /** Bytes of its payload. */
    uint64_t payload_bytes;
    /** How many of its failures are kept, at most ten: see `flowmesh_job_list_failure`. */
    size_t failure_count;
    /** One of `enum flowmesh_job_state`. */
    int32_t state;
    /** 0 to 255. */
    int32_t priority;
    /** Attempts begun since it was enqueued or redriven. */
    uint32_t attempt;
    /** Attempts it may have. */
    uint32_t max_attempts;
    /** How often it was redriven. */
    uint32_t redrives;
    /** 1 when it is to be given back. */
    int32_t cancelling;
    /** 1 when there is a result. */
    int32_t has_result;
    /** 0. */
    int32_t reserved;
} flowmesh_job_info;

/** What went wrong in one attempt, or ended a job otherwise. Begin with `FLOWMESH_FAILURE_INIT`. */
typedef struct flowmesh_failure {
    /** `sizeof` of this struct. */
    size_t struct_size;
    /** In a few words. */
    const char *message;
    /** A stack trace or the like; empty when there is none. Of the last failure only. */
    const char *detail;
    /** When, in milliseconds since 1970-01-01 UTC. */
    int64_t at_ms;
    /** Which attempt; 0 when there was none. */
    uint32_t attempt;
    /** 0. */
    uint32_t reserved;
} flowmesh_failure;

/** A job that is enqueued again and again. Begin with `FLOWMESH_SCHEDULE_INIT`. */
typedef struct flowmesh_schedule {
    /** `sizeof` of this struct. */
    size_t struct_size;
    /** What it is called, its own in its queue: letters, digits, `_`, `-` and dots. */
    const char *name;
    /**
     * When: five fields (minute, hour, day of month, month, day of week), or six, seconds first; or `@hourly`, `@daily`,
     * `@weekly`, `@monthly`, `@yearly`.
     */
    const char *cron;
    /** The IANA name of its time zone, like `Europe/Berlin`; NULL: UTC. */
    const char *zone;
    /** The payload of its jobs, at most 1 MiB; NULL when `payload_bytes` is 0. */
    const void *payload;
    /** Its size. */
    size_t payload_bytes;
    /** What its jobs want, without `id`, `delay_ms`, `run_at_ms` and `durability`; NULL: nothing special. */
    const struct flowmesh_enqueue_options *options;
    /** Each job waits a little, up to so long, never the same; at most a day. */
    int64_t jitter_ms;
    /** Only told: when it fires next, in milliseconds since 1970-01-01 UTC. */
    int64_t next_ms;
    /** One of `enum flowmesh_misfire`. */
    int32_t misfire;
    /** One of `enum flowmesh_overlap`. */
    int32_t overlap;
} flowmesh_schedule;

/** A directory's store in numbers. Begin with `FLOWMESH_INSPECTED_INIT`. */
typedef struct flowmesh_inspected {
    /** `sizeof` of this struct. */
    size_t struct_size;
    /** Places that are damaged: see `flowmesh_inspection_damage`. 0: it is sound. */
    size_t damage_count;
    /** Segments of its journal. */
    size_t segment_count;
    /** Checkpoints that are whole. */
    size_t checkpoint_count;
    /** Batches that are whole. */
    uint64_t batches;
    /** Entries in these. */
    uint64_t entries;
    /** The number of the first batch that is there; 0: none is. */
    uint64_t first_batch;
    /** The number of the last. */
    uint64_t last_batch;
    /**
     * The file in which a crash left something of batches that were never flushed, which opening cuts: no damage. NULL:
     * there is none.
     */
    const char *tail_file;
    /** Where that begins. */
    uint64_t tail_offset;
    /** How much it is. */
    uint64_t tail_bytes;
    /** How many whole batches it has. */
    uint64_t tail_batches;
} flowmesh_inspected;

/** A place where stored data is not what was written. Begin with `FLOWMESH_DAMAGE_INIT`. */
typedef struct flowmesh_damage {
    /** `sizeof` of this struct. */
    size_t struct_size;
    /** The file. */
    const char *file;
    /** What is wrong there. */
    const char *what;
    /** Where in the file. */
    uint64_t offset;
} flowmesh_damage;

/** A segment of the journal. Begin with `FLOWMESH_SEGMENT_INIT`. */
typedef struct flowmesh_segment {
    /** `sizeof` of this struct. */
    size_t struct_size;
    /** Its file. */
    const char *file;
    /** The size of the file. */
    uint64_t bytes;
    /** Where what was written ends. */
    uint64_t end;
    /** Batches that are whole. */
    uint64_t batches;
    /** The number of the first of these; 0: there is none. */
    uint64_t first_batch;
    /** The number of the last. */
    uint64_t last_batch;
} flowmesh_segment;

/** A checkpoint. Begin with `FLOWMESH_CHECKPOINT_INIT`. */
typedef struct flowmesh_checkpoint {
    /** `sizeof` of this struct. */
    size_t struct_size;
    /** Its file. */
    const char *file;
    /** The size of the file. */
    uint64_t bytes;
    /** Reading on begins with the batch after this one. */
    uint64_t begin;
    /** It has seen no batch after this one. */
    uint64_t end;
    /** How many images it has. */
    uint64_t images;
} flowmesh_checkpoint;

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

/* Queues ==================================================================================================== */

/**
 * Makes sure that there is a queue of this name: makes it, or finds it as it was made. `name` is letters, digits, `_`,
 * `-` and dots, at most 255 bytes. `config` may be NULL. The queue in `*out` is the caller's to free; its jobs are
 * stored in the mesh's directory and stay there.
 *
 * Threads: any, as for all functions of a queue. Those that ask the host for something block until it has answered and
 * the disk has what the durability asks for, at most 30 s; signals do not end that wait.
 *
 * Errors:
 * `INVALID_ARGUMENT`: the name, or a setting; the message names value and limit. `CONFLICT`: the queue is there with
 * other settings; the message names the first that differs: see `flowmesh_queue_configure`. `STORAGE_FULL`: the disk is
 * full, nothing was written. `FROZEN`: the disk failed before, nothing is written any more. `TIMEOUT`: the host did not
 * answer. `CLOSED`, `DISCONNECTED`, `FORKED`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_declare(struct flowmesh_mesh *mesh,
                                       const char *name,
                                       const struct flowmesh_queue_config *config,
                                       struct flowmesh_queue **out);

/**
 * Finds the queue of this name. The queue in `*out` is the caller's to free.
 *
 * Errors:
 * `NOT_FOUND`: nobody declared it. `TIMEOUT`, `CLOSED`, `DISCONNECTED`, `FORKED`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_open(struct flowmesh_mesh *mesh,
                                    const char *name,
                                    struct flowmesh_queue **out);

/**
 * The names of all queues. The list in `*out` is the caller's to free; it does not change.
 *
 * Errors:
 * `TIMEOUT`, `CLOSED`, `DISCONNECTED`, `FORKED`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queues(struct flowmesh_mesh *mesh, struct flowmesh_name_list **out);

/** How many names it has. */
size_t flowmesh_name_list_count(const struct flowmesh_name_list *list);

/** Name number `index`, from 0, lent until the list is freed; no text (`data` is NULL) when it has fewer. */
struct flowmesh_text flowmesh_name_list_get(const struct flowmesh_name_list *list, size_t index);

/** Frees it. NULL is fine. */
flowmesh_status flowmesh_name_list_free(struct flowmesh_name_list *list);

/** Its name, lent until it is freed. */
struct flowmesh_text flowmesh_queue_name(const struct flowmesh_queue *queue);

/**
 * Another handle of the same queue: what is done through it gets as far as `durability`, one of
 * `enum flowmesh_durability`, before it returns, whatever the queue is set up to; jobs that are reserved through it are
 * settled so, too. `interval_ms` goes with `FLOWMESH_DURABILITY_INTERVAL` and is 0 otherwise. The queue in `*out` is the
 * caller's to free; the first handle stays as it is.
 *
 * Does not block.
 *
 * Errors:
 * `INVALID_ARGUMENT`: it is none that can be asked for.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_durable(const struct flowmesh_queue *queue,
                                       int32_t durability,
                                       int64_t interval_ms,
                                       struct flowmesh_queue **out);

/**
 * How it is set up. The settings in `*out` are the caller's to free; they do not change.
 *
 * Errors:
 * `TIMEOUT`, `CLOSED`, `DISCONNECTED`, `FORKED`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_get_settings(const struct flowmesh_queue *queue,
                                            struct flowmesh_queue_settings **out);

/**
 * The settings into `*out`, which begins with its size (`FLOWMESH_QUEUE_CONFIG_INIT`). Its texts and lists are lent
 * until `settings` are freed.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_settings_get(const struct flowmesh_queue_settings *settings,
                                            struct flowmesh_queue_config *out);

/** Frees them. NULL is fine. */
flowmesh_status flowmesh_queue_settings_free(struct flowmesh_queue_settings *settings);

/**
 * Sets the queue up anew, for the jobs that are there too, from now on. `config` holds every setting: begin with those
 * of `flowmesh_queue_settings_get` to change some; NULL stands for the defaults.
 *
 * Errors:
 * `INVALID_ARGUMENT`: the message names the setting, its value and the limit. As `flowmesh_queue_declare`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_configure(struct flowmesh_queue *queue,
                                         const struct flowmesh_queue_config *config);

/** Frees the handle; who waits for jobs through it gets `CLOSED`. The queue and its jobs stay, and so do jobs and workers that came of it. NULL is fine. */
flowmesh_status flowmesh_queue_free(struct flowmesh_queue *queue);

/* Enqueueing jobs =========================================================================================== */

/**
 * Enqueues a job. `payload` is copied. `options` may be NULL; `receipt`, unless NULL, gets its id, what became of it,
 * and how safe it is.
 *
 * Errors:
 * `INVALID_ARGUMENT`, `TOO_LARGE`: the message names value and limit. `FULL`: the queue's `max_length` is reached.
 * `DRAINING`: it takes nothing new. `STORAGE_FULL`: the disk is full, nothing was written; retry when there is room.
 * `FROZEN`: the disk failed; whether the job is there after a restart is unknown. `TIMEOUT`: the host did not answer;
 * the job may be there: with an `id` of its own it can be enqueued again. `CLOSED`, `DISCONNECTED`, `FORKED`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_enqueue(struct flowmesh_queue *queue,
                                       const void *payload,
                                       size_t payload_bytes,
                                       const struct flowmesh_enqueue_options *options,
                                       struct flowmesh_receipt *receipt);

/**
 * Enqueues `job_count` jobs, at most 10000, in one write: all or none. `options` may be NULL and count for the jobs that
 * have none of their own. `receipts`, unless NULL, has room for one of each job, in their order.
 *
 * Errors:
 * As `flowmesh_queue_enqueue`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_enqueue_many(struct flowmesh_queue *queue,
                                            const struct flowmesh_new_job *jobs,
                                            size_t job_count,
                                            const struct flowmesh_enqueue_options *options,
                                            struct flowmesh_receipt *receipts);

/* Reserving jobs ============================================================================================ */

/**
 * Takes the next job, waiting at most `timeout_ms`: below 0 for ever, 0 only looks. The job in `*out` is the caller's for
 * as long as it or the queue says: to be settled, by `flowmesh_job_ack` and its like, and to be freed.
 *
 * Threads: any; several may take jobs of one queue.
 *
 * Errors:
 * `TIMEOUT`: there was none. `INTERRUPTED`: a signal came (see `on_signal`); a job that came meanwhile goes back.
 * `CLOSED`: the queue's handle was freed, or the mesh closed, also while this waited. `DISCONNECTED`, `FORKED`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_next(struct flowmesh_queue *queue,
                                    int64_t timeout_ms,
                                    struct flowmesh_job **out);

/**
 * Waits for a job as `flowmesh_queue_next` does, then takes all that are there, up to `capacity`, at most 1000, into
 * `jobs`; `*count` says how many. Each is the caller's for `lease_ms`, 1000 to 43200000 (12 hours), or with -1 for as
 * long as it or the queue says; and is the caller's to free (`flowmesh_job_free_many`).
 *
 * Threads: any; several may take jobs of one queue.
 *
 * Errors:
 * As `flowmesh_queue_next`. `INVALID_ARGUMENT`, `TOO_LARGE`: `lease_ms` or `capacity` is out of bounds. `*count` is 0
 * then.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_reserve(struct flowmesh_queue *queue,
                                       int64_t lease_ms,
                                       int64_t timeout_ms,
                                       struct flowmesh_job **jobs,
                                       size_t capacity,
                                       size_t *count);

/**
 * Starts waiting for up to `most` jobs and returns at once: for event loops. `lease_ms` as for
 * `flowmesh_queue_reserve`; the wait ends by itself after `timeout_ms`, below 0 never. The reservation in `*out` is the
 * caller's to free, which gives up waiting; jobs that came meanwhile and were not taken go back.
 *
 * Threads: any. Does not block for long: only while there is no room for the request.
 *
 * Errors:
 * `INVALID_ARGUMENT`, `TOO_LARGE`: `lease_ms` or `most` is out of bounds; may also come with the answer. `CLOSED`,
 * `DISCONNECTED`, `FORKED`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_reserve_start(struct flowmesh_queue *queue,
                                             int64_t lease_ms,
                                             int64_t timeout_ms,
                                             size_t most,
                                             struct flowmesh_reservation **out);

/**
 * Waits for the jobs, at most `timeout_ms`: below 0 for ever, which the reservation's own timeout ends. They are given
 * out once, into `jobs`, which has room for `capacity`, at least as many as were asked for; `*count` says how many.
 * Afterwards comes `CLOSED`.
 *
 * Threads: any.
 *
 * Errors:
 * `TIMEOUT`: there was none, or this wait ended before the reservation's, which goes on then: `flowmesh_reservation_try`
 * tells the two apart. `CANCELLED`: somebody cancelled it. `INTERRUPTED`: a signal came; the reservation goes on. As
 * `flowmesh_queue_reserve`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_reservation_wait(struct flowmesh_reservation *reservation,
                                          int64_t timeout_ms,
                                          struct flowmesh_job **jobs,
                                          size_t capacity,
                                          size_t *count);

/**
 * Takes the jobs if they are there. `*done` becomes 1 when the reservation has ended, well or not, and 0 while it goes
 * on. `jobs`, `capacity` and `*count` as for `flowmesh_reservation_wait`.
 *
 * Threads: any. Does not block.
 *
 * Errors:
 * The reservation's failure, with `*done` 1: `TIMEOUT` when there was none in time. As `flowmesh_reservation_wait`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_reservation_try(struct flowmesh_reservation *reservation,
                                         int32_t *done,
                                         struct flowmesh_job **jobs,
                                         size_t capacity,
                                         size_t *count);

/**
 * Gives up waiting: whoever waits gets `CANCELLED`, and jobs that came meanwhile go back. Does nothing when the
 * reservation has ended.
 *
 * Threads: any. Does not block.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_reservation_cancel(struct flowmesh_reservation *reservation);

/**
 * A descriptor that is readable once the reservation has ended, or a negative status. For `poll` and its like: do not
 * read, write or close it. It lives until the reservation is freed.
 *
 * Threads: any. Does not block.
 */
int32_t flowmesh_reservation_fd(const struct flowmesh_reservation *reservation);

/** Frees it, giving up waiting when it has not ended; jobs that were not taken go back. NULL is fine. */
flowmesh_status flowmesh_reservation_free(struct flowmesh_reservation *reservation);

/* Jobs ====================================================================================================== */

/**
 * Its payload, lent until the job is freed; so is all that these functions lend. With a bad handle they return an empty
 * value, or a negative status where they return a number, and `flowmesh_error_code` says which error it was.
 *
 * Threads: any, as for all functions of a job. Those that read never block.
 */
struct flowmesh_bytes flowmesh_job_payload(const struct flowmesh_job *job);

/** Its id, a UUID. */
struct flowmesh_text flowmesh_job_id(const struct flowmesh_job *job);

/** The name of its queue. */
struct flowmesh_text flowmesh_job_queue(const struct flowmesh_job *job);

/** Its group; no text (`data` is NULL) when it has none. */
struct flowmesh_text flowmesh_job_group(const struct flowmesh_job *job);

/** How its payload is encoded; no text when nobody said. */
struct flowmesh_text flowmesh_job_content_type(const struct flowmesh_job *job);

/** The value of its first header of that name; no text when it has none. */
struct flowmesh_text flowmesh_job_header(const struct flowmesh_job *job, const char *name);

/** How many headers it has. */
size_t flowmesh_job_header_count(const struct flowmesh_job *job);

/**
 * Its header number `index`, from 0, in the order they were given. `name` and `value` may be NULL.
 *
 * Errors:
 * `NOT_FOUND`: it has fewer headers.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_job_header_at(const struct flowmesh_job *job,
                                       size_t index,
                                       struct flowmesh_text *name,
                                       struct flowmesh_text *value);

/** Which attempt this is, 1 and up. */
uint32_t flowmesh_job_attempt(const struct flowmesh_job *job);

/** Attempts it may have. */
uint32_t flowmesh_job_max_attempts(const struct flowmesh_job *job);

/** How often it was redriven: made ready again after it was finished. */
uint32_t flowmesh_job_redrives(const struct flowmesh_job *job);

/** 0 to 255, higher goes first; or a negative status. */
int32_t flowmesh_job_priority(const struct flowmesh_job *job);

/** How long it was reserved for, when it was; or a negative status. */
int64_t flowmesh_job_lease_ms(const struct flowmesh_job *job);

/** How long it is still this worker's, as far as this process knows, 0 when it is not any more; or a negative status. */
int64_t flowmesh_job_remaining_ms(const struct flowmesh_job *job);

/**
 * 1 when it is to be given back: somebody cancelled it, its lease is over, or the mesh was closed. 0 when not, or a
 * negative status.
 */
int32_t flowmesh_job_is_cancelled(const struct flowmesh_job *job);

/**
 * A descriptor that is readable once the job is to be given back (`flowmesh_job_is_cancelled`), or a negative status.
 * For `poll` and its like: do not read, write or close it. It lives until the job is freed.
 */
int32_t flowmesh_job_cancel_fd(struct flowmesh_job *job);

/** 1 when it was settled through this handle or is being settled, 0 when not, or a negative status. */
int32_t flowmesh_job_is_settled(const struct flowmesh_job *job);

/* Settling jobs ============================================================================================= */

/**
 * The job is done. `result`, unless NULL, is kept for whoever asks with `flowmesh_queue_result`. `reached`, unless NULL,
 * gets how safe that is, one of `enum flowmesh_durability`. A job is settled once, by this or one of the next
 * functions; it is still to be freed.
 *
 * Threads: any. Blocks until the host has answered and the disk has what the durability asks for, at most 30 s; signals
 * do not end that wait.
 *
 * Errors:
 * `LEASE_LOST`: the job is not this worker's any more, or was settled before; nothing is changed. `TOO_LARGE`: the
 * result is over the queue's `payload_bytes_max`. `STORAGE_FULL`: the disk is full, nothing was written. `FROZEN`: the
 * disk failed. `TIMEOUT`, `CLOSED`, `DISCONNECTED`, `FORKED`. After any but `LEASE_LOST` it may be settled again.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_job_ack(struct flowmesh_job *job,
                                 const void *result,
                                 size_t result_bytes,
                                 int32_t *reached);

/**
 * Acks the job as `flowmesh_job_ack` does, and takes the next one of its queue if one is there, without waiting for one:
 * one request, and as a rule one write, instead of two. `*next` is NULL when none is there; else it is the caller's for
 * `lease_ms`, or with -1 for as long as it or the queue says, and to be freed. So is the job that was acked, still.
 *
 * Threads: any. Blocks as `flowmesh_job_ack`.
 *
 * Errors:
 * As `flowmesh_job_ack`; no job was taken then. `INVALID_ARGUMENT`: the lease is neither -1 nor 1000 to 43200000 (12
 * hours).
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_job_ack_and_reserve(struct flowmesh_job *job,
                                             const void *result,
                                             size_t result_bytes,
                                             int64_t lease_ms,
                                             struct flowmesh_job **next,
                                             int32_t *reached);

/**
 * The attempt failed: the job waits for the next, or is dead if this was its last. `message` says why in a few words,
 * of which 1 KiB is kept; `detail` is a stack trace or the like, of which 4 KiB are kept, or NULL. The next attempt
 * comes after `delay_ms`, or, with -1, as the job's backoff says. `reached` as for `flowmesh_job_ack`.
 *
 * Errors:
 * As `flowmesh_job_ack`. `INVALID_ARGUMENT`: the delay is below -1 or over ten years.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_job_nack(struct flowmesh_job *job,
                                  const char *message,
                                  const char *detail,
                                  int64_t delay_ms,
                                  int32_t *reached);

/**
 * No attempt can succeed: the job is dead. `message`, `detail` and `reached` as for `flowmesh_job_nack`.
 *
 * Errors:
 * As `flowmesh_job_ack`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_job_reject(struct flowmesh_job *job,
                                    const char *message,
                                    const char *detail,
                                    int32_t *reached);

/**
 * Gives the job back as if it had not been taken: the attempt does not count. `reached` as for `flowmesh_job_ack`.
 *
 * Errors:
 * As `flowmesh_job_ack`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_job_release(struct flowmesh_job *job,
                                     int32_t *reached);

/**
 * Puts the job off by `delay_ms`; the attempt does not count. `reached` as for `flowmesh_job_ack`.
 *
 * Errors:
 * As `flowmesh_job_ack`. `INVALID_ARGUMENT`: the delay is below 0 or over ten years.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_job_snooze(struct flowmesh_job *job, int64_t delay_ms, int32_t *reached);

/**
 * Acks jobs of this queue, at most 1000, in one write. `outcomes`, unless NULL, has room for a status of each job, in
 * their order. Returns `FLOWMESH_OK` when all were acked, else the error of the first that was not.
 *
 * Errors:
 * As `flowmesh_job_ack`: with `LEASE_LOST`, `outcomes` say which were acked. When one is of another queue or there twice
 * (`INVALID_ARGUMENT`), or they are too many (`TOO_LARGE`), nothing is acked.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_ack_many(struct flowmesh_queue *queue,
                                        struct flowmesh_job *const *jobs,
                                        size_t job_count,
                                        flowmesh_status *outcomes);

/**
 * Extends the lease from now on by itself, whenever a third of it has passed, until the job is settled or freed. If that
 * fails because the job is not this worker's any more, the job is cancelled (`flowmesh_job_is_cancelled`). Workers do so
 * for the jobs that they lend.
 *
 * Does not block.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_job_keep(struct flowmesh_job *job);

/**
 * More time: the job is this worker's for `lease_ms` from now, or with -1 for as long as it was reserved. A lease never
 * gets shorter: what would end it sooner changes nothing. `left_ms`, unless NULL, gets how long it is the worker's now:
 * more than was asked for when it had more already, less when its deadline is near.
 *
 * Blocks until the host has answered.
 *
 * Errors:
 * As `flowmesh_job_ack`. `INVALID_ARGUMENT`: the lease is not 1000 to 43200000 (12 hours).
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_job_extend(struct flowmesh_job *job,
                                    int64_t lease_ms,
                                    int64_t *left_ms);

/**
 * Tells how far it has come: anything up to 4 KiB, shown to who looks at the job. Kept in memory only.
 *
 * Blocks until the host has answered.
 *
 * Errors:
 * As `flowmesh_job_ack`. `TOO_LARGE`: it is longer.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_job_progress(struct flowmesh_job *job, const void *progress, size_t progress_bytes);

/**
 * Frees a job, and with it all that it lent. One that was not settled stays leased until its lease ends, and is then
 * tried again with the attempt counted: give it back with `flowmesh_job_release`. NULL is fine.
 */
flowmesh_status flowmesh_job_free(struct flowmesh_job *job);

/** Frees `count` jobs and sets their places to NULL; places that are NULL already are fine. */
flowmesh_status flowmesh_job_free_many(struct flowmesh_job **jobs, size_t count);

/* What jobs carry =========================================================================================== */

/**
 * The payload, lent until the content is freed; so is all that these functions lend. Contents come of
 * `flowmesh_queue_content` and `flowmesh_queue_result`.
 *
 * Threads: any. They never block.
 */
struct flowmesh_bytes flowmesh_content_payload(const struct flowmesh_content *content);

/** How the payload is encoded; no text (`data` is NULL) when nobody said. */
struct flowmesh_text flowmesh_content_type(const struct flowmesh_content *content);

/** The value of the first header of that name; no text when there is none. */
struct flowmesh_text flowmesh_content_header(const struct flowmesh_content *content, const char *name);

/** How many headers there are. */
size_t flowmesh_content_header_count(const struct flowmesh_content *content);

/**
 * Header number `index`, from 0, in the order they were given. `name` and `value` may be NULL.
 *
 * Errors:
 * `NOT_FOUND`: there are fewer headers.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_content_header_at(const struct flowmesh_content *content,
                                           size_t index,
                                           struct flowmesh_text *name,
                                           struct flowmesh_text *value);

/** Frees it. NULL is fine. */
flowmesh_status flowmesh_content_free(struct flowmesh_content *content);

/* Settling jobs without waiting ============================================================================= */

/**
 * Starts to ack a job, as `flowmesh_job_ack` does, and returns at once: for event loops. What is passed in is copied. The
 * answer in `*out` is the caller's to free; the job may be freed before.
 *
 * Until the answer was taken the job counts as settled, and nothing else can settle it. In a worker's handler, take the
 * answer before you return: what the handler returns settles a job only if it was not settled before.
 *
 * Threads: any. Does not block for long: only while there is no room for the request.
 *
 * Errors:
 * `LEASE_LOST`: the job was settled before. `TOO_LARGE`, `CLOSED`, `DISCONNECTED`, `FORKED`; the other failures of
 * `flowmesh_job_ack` come with the answer. The job may be settled again then.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_job_ack_start(struct flowmesh_job *job,
                                       const void *result,
                                       size_t result_bytes,
                                       struct flowmesh_job_answer **out);

/**
 * Starts to nack a job, as `flowmesh_job_nack` does, and returns at once. All else as for `flowmesh_job_ack_start`.
 *
 * Errors:
 * As `flowmesh_job_ack_start`. `INVALID_ARGUMENT`: the delay is below -1 or over ten years.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_job_nack_start(struct flowmesh_job *job,
                                        const char *message,
                                        const char *detail,
                                        int64_t delay_ms,
                                        struct flowmesh_job_answer **out);

/**
 * Starts to reject a job, as `flowmesh_job_reject` does, and returns at once. All else as for `flowmesh_job_ack_start`.
 *
 * Errors:
 * As `flowmesh_job_ack_start`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_job_reject_start(struct flowmesh_job *job,
                                          const char *message,
                                          const char *detail,
                                          struct flowmesh_job_answer **out);

/**
 * Starts to give a job back, as `flowmesh_job_release` does, and returns at once. All else as for
 * `flowmesh_job_ack_start`.
 *
 * Errors:
 * As `flowmesh_job_ack_start`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_job_release_start(struct flowmesh_job *job, struct flowmesh_job_answer **out);

/**
 * Starts to put a job off, as `flowmesh_job_snooze` does, and returns at once. All else as for `flowmesh_job_ack_start`.
 *
 * Errors:
 * As `flowmesh_job_ack_start`. `INVALID_ARGUMENT`: the delay is below 0 or over ten years.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_job_snooze_start(struct flowmesh_job *job,
                                          int64_t delay_ms,
                                          struct flowmesh_job_answer **out);

/**
 * Starts to extend the lease of a job, as `flowmesh_job_extend` does, and returns at once. The answer in `*out` is the
 * caller's to free; the job may be freed before. It does not count as settled.
 *
 * Threads: any. Does not block for long: only while there is no room for the request.
 *
 * Errors:
 * `INVALID_ARGUMENT`: the lease is not 1000 to 43200000 (12 hours); may also come with the answer. `CLOSED`,
 * `DISCONNECTED`, `FORKED`; the other failures of `flowmesh_job_extend` come with the answer.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_job_extend_start(struct flowmesh_job *job,
                                          int64_t lease_ms,
                                          struct flowmesh_job_answer **out);

/**
 * Starts to tell how far a job has come, as `flowmesh_job_progress` does, and returns at once. All else as for
 * `flowmesh_job_extend_start`.
 *
 * Errors:
 * `TOO_LARGE`: it is longer than 4 KiB; may also come with the answer. As `flowmesh_job_extend_start`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_job_progress_start(struct flowmesh_job *job,
                                            const void *progress,
                                            size_t progress_bytes,
                                            struct flowmesh_job_answer **out);

/**
 * Waits for the answer, at most `timeout_ms`: below 0 for ever, which ends after 30 s when the host does not answer.
 * `value`, unless NULL, gets what the function without `_start` gives: how safe it is, one of
 * `enum flowmesh_durability`; of an extension, how many ms the job is the worker's now; of progress, 0. An answer is
 * given out once; afterwards comes `CLOSED`.
 *
 * Threads: any.
 *
 * Errors:
 * Those of the function without `_start`; after any but `LEASE_LOST` the job may be settled again. `TIMEOUT` is also
 * returned when this wait ended before the answer came, which is still to come then: `flowmesh_job_answer_try` tells the
 * two apart. `CANCELLED`: somebody cancelled it. `INTERRUPTED`: a signal came (see `on_signal`); the answer is still to
 * come.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_job_answer_wait(struct flowmesh_job_answer *answer,
                                         int64_t timeout_ms,
                                         int64_t *value);

/**
 * Takes the answer if it is there. `*done` becomes 1 when it is, good or not, and 0 while it is still to come. `value` as
 * for `flowmesh_job_answer_wait`.
 *
 * Threads: any. Does not block.
 *
 * Errors:
 * Those of the function without `_start`, with `*done` 1: `TIMEOUT` when the host did not answer. As
 * `flowmesh_job_answer_wait`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_job_answer_try(struct flowmesh_job_answer *answer,
                                        int32_t *done,
                                        int64_t *value);

/**
 * Gives up waiting: whoever waits gets `CANCELLED`, and the job may be settled again. What was said is done all the same
 * when the host has read it: another ack changes nothing then, anything else gives `LEASE_LOST`. Does nothing when the
 * answer is there.
 *
 * Threads: any. Does not block.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_job_answer_cancel(struct flowmesh_job_answer *answer);

/**
 * A descriptor that is readable once the answer is there, or a negative status. For `poll` and its like: do not read,
 * write or close it. It lives until the answer is freed.
 *
 * Threads: any. Does not block.
 */
int32_t flowmesh_job_answer_fd(const struct flowmesh_job_answer *answer);

/** Frees it, giving up waiting when the answer was not taken, as `flowmesh_job_answer_cancel` does. NULL is fine. */
flowmesh_status flowmesh_job_answer_free(struct flowmesh_job_answer *answer);

/* Workers =================================================================================================== */

/**
 * Works on jobs of `queue`: calls `handler` for each, in `concurrency` threads of the library, so in several at once when
 * that is more than 1. Leases are extended for as long as the handler takes. What the handler returns settles the job, as
 * durably as the handle `queue` says. `options`, `context` and `drop` may be NULL.
 *
 * A job that is cancelled meanwhile, or that is not this worker's any more, says so: long handlers look at
 * `flowmesh_job_is_cancelled`.
 *
 * The worker in `*out` is the caller's to free; `queue` may be freed before. `drop(context)` is called exactly once, also
 * when this function fails.
 *
 * Threads: any. Does not block.
 *
 * Errors:
 * `INVALID_ARGUMENT`: an option is out of its range. `RESOURCE_EXHAUSTED`: the system gives no more threads. `CLOSED`,
 * `DISCONNECTED`, `FORKED`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_worker_start(struct flowmesh_queue *queue,
                                      const struct flowmesh_worker_options *options,
                                      flowmesh_job_handler handler,
                                      void *context,
                                      flowmesh_drop drop,
                                      struct flowmesh_worker **out);

/**
 * Takes no more jobs, waits at most `timeout_ms` (below 0 for ever) for the handlers that are running, and then gives the
 * jobs of the others back: their attempt does not count, and they are cancelled for their handlers. The worker is still to
 * be freed.
 *
 * Threads: any but its own handlers, which would wait for themselves: `flowmesh_worker_free` is for these. Signals do not
 * end the wait.
 *
 * Errors:
 * `TIMEOUT`: some handlers had not returned; their jobs were given back. `FORKED`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_worker_stop(struct flowmesh_worker *worker,
                                     int64_t timeout_ms);

/**
 * What it has done, into `*out`, which begins with its size (`FLOWMESH_WORKER_STATS_INIT`).
 *
 * Threads: any. Does not block.
 *
 * Errors:
 * `FORKED`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_worker_get_stats(const struct flowmesh_worker *worker,
                                          struct flowmesh_worker_stats *out);

/**
 * 1 while it takes jobs; 0 once it was stopped, or ended by itself (`flowmesh_worker_error`); or a negative status.
 *
 * Threads: any. Does not block.
 */
int32_t flowmesh_worker_is_running(const struct flowmesh_worker *worker);

/**
 * Why it ended by itself, as the status and last error of a function that fails; `FLOWMESH_OK` when it did not.
 *
 * Threads: any. Does not block.
 *
 * Errors:
 * `CLOSED`: the mesh was closed. `DISCONNECTED`: the host is gone. `FROZEN`: its disk failed. `FORKED`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_worker_error(const struct flowmesh_worker *worker);

/**
 * Frees it. It takes no more jobs; handlers that are running finish, and settle their jobs, without being waited for: stop
 * it before to wait. NULL is fine.
 *
 * Threads: any, its own handlers included.
 */
flowmesh_status flowmesh_worker_free(struct flowmesh_worker *worker);

/**
 * Says what the job's result is to be when its handler returns `FLOWMESH_OK`; it is copied. For jobs that a worker lent to
 * its handler.
 *
 * Threads: any. Does not block.
 *
 * Errors:
 * `UNSUPPORTED`: the job was reserved: give the result to `flowmesh_job_ack`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_job_set_result(struct flowmesh_job *job,
                                        const void *result,
                                        size_t result_bytes);

/**
 * What a job's handler returns when no attempt can succeed: says why, and returns `FLOWMESH_HANDLER_REJECT`.
 *
 *     return flowmesh_handler_reject("there is no such address");
 *
 * Errors:
 * `NULL_ARGUMENT`, `INVALID_ARGUMENT`: `message` is NULL or not UTF-8. Returned from the handler, the attempt fails so.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_handler_reject(const char *message);

/**
 * What a job's handler returns to put the job off by `delay_ms`, at most ten years: the attempt does not count. Returns
 * `FLOWMESH_HANDLER_SNOOZE`.
 *
 * Errors:
 * `INVALID_ARGUMENT`: the delay is below 0. Returned from the handler, the attempt fails so.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_handler_snooze(int64_t delay_ms);

/* Looking at queues and jobs ================================================================================ */

/**
 * The queue's numbers, into `*out`, which begins with its size (`FLOWMESH_QUEUE_STATS_INIT`). It takes as long for a queue
 * of millions as for an empty one.
 *
 * Threads: any, as for all these functions. They block until the host has answered, at most 30 s.
 *
 * Errors:
 * `TIMEOUT`, `CLOSED`, `DISCONNECTED`, `FORKED`; so for all these functions.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_get_stats(const struct flowmesh_queue *queue,
                                         struct flowmesh_queue_stats *out);

/**
 * Up to `most` jobs, 1 to 1000, in `state`, one of `enum flowmesh_job_state`: waiting ones in the order in which they will
 * be handed out, finished ones as they were finished. `cursor` says where to begin, and gets where to go on; NULL lists
 * from the begin. The list in `*out` is the caller's to free; it does not change.
 *
 *     flowmesh_cursor cursor = FLOWMESH_CURSOR_INIT;
 *     while (cursor.state != 2 && flowmesh_queue_list(queue, FLOWMESH_JOB_DEAD, &cursor, 100, &list) == FLOWMESH_OK)
 *
 * Errors:
 * `INVALID_ARGUMENT`: the state, the cursor, or `most`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_list(const struct flowmesh_queue *queue,
                                    int32_t state,
                                    struct flowmesh_cursor *cursor,
                                    size_t most,
                                    struct flowmesh_job_list **out);

/**
 * The job of this id, without taking it, as a list of one that is the caller's to free.
 *
 * Errors:
 * `NOT_FOUND`: there is no such job, or not any more. `INVALID_ARGUMENT`: `job` is no id.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_peek(const struct flowmesh_queue *queue,
                                    const char *job,
                                    struct flowmesh_job_list **out);

/** How many jobs it lists. */
size_t flowmesh_job_list_count(const struct flowmesh_job_list *list);

/**
 * Job number `index`, from 0, into `*out`, which begins with its size (`FLOWMESH_JOB_INFO_INIT`). Its texts and bytes are
 * lent until the list is freed. Does not block.
 *
 * Errors:
 * `NOT_FOUND`: it lists fewer.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_job_list_get(const struct flowmesh_job_list *list,
                                      size_t index,
                                      struct flowmesh_job_info *out);

/**
 * Failure number `failure`, from 0, the oldest first, of job number `index`, into `*out`, which begins with its size
 * (`FLOWMESH_FAILURE_INIT`). Its texts are lent until the list is freed. Does not block.
 *
 * Errors:
 * `NOT_FOUND`: there are fewer.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_job_list_failure(const struct flowmesh_job_list *list,
                                          size_t index,
                                          size_t failure,
                                          struct flowmesh_failure *out);

/** Frees it. NULL is fine. */
flowmesh_status flowmesh_job_list_free(struct flowmesh_job_list *list);

/**
 * What the job of this id carries. The content in `*out` is the caller's to free.
 *
 * Errors:
 * `NOT_FOUND`: there is no such job, or not any more. `INVALID_ARGUMENT`: `job` is no id.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_content(const struct flowmesh_queue *queue,
                                       const char *job,
                                       struct flowmesh_content **out);

/**
 * What the job of this id was acked with. The content in `*out` is the caller's to free; it is NULL, without an error, when
 * the job has no result, or not yet, or not any more.
 *
 * Errors:
 * `NOT_FOUND`: there is no such job, or not any more. `INVALID_ARGUMENT`: `job` is no id.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_result(const struct flowmesh_queue *queue,
                                      const char *job,
                                      struct flowmesh_content **out);

/** The name of a state, `"ready"` and so on, as all languages spell it. Static text; `"unknown"` for what is no state. */
const char *flowmesh_job_state_name(int32_t state);

/**
 * The state of this name: one of `enum flowmesh_job_state`, or a negative status.
 *
 * Errors:
 * `INVALID_ARGUMENT`: there is no such state; the message lists them.
 */
int32_t flowmesh_job_state_parse(const char *name);

/* Managing queues and their jobs ============================================================================ */

/**
 * Cancels the job of this id: at once if it waits; by asking its worker if one has it. `why`, which may be NULL, is kept
 * with it. `outcome`, unless NULL, gets one of `enum flowmesh_cancelled`.
 *
 * Threads: any, as for all these functions. They block until the host has answered, at most 30 s.
 *
 * Errors:
 * `NOT_FOUND`: there is no such job, or not any more. `INVALID_ARGUMENT`: `job` is no id. `STORAGE_FULL`, `FROZEN`,
 * `TIMEOUT`, `CLOSED`, `DISCONNECTED`, `FORKED`, as for `flowmesh_queue_enqueue`; so for all these functions.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_cancel(struct flowmesh_queue *queue,
                                      const char *job,
                                      const char *why,
                                      int32_t *outcome);

/**
 * Makes the finished jobs of these ids, at most 1000, ready again as if they were new; all or none.
 *
 * Errors:
 * `NOT_FOUND`: one is not there. `INVALID_ARGUMENT`: one is no id, or not finished. `TOO_LARGE`: there are too many.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_redrive(struct flowmesh_queue *queue,
                                       const char *const *jobs,
                                       size_t job_count);

/** Makes up to `most` dead jobs ready again, those that have been dead longest first. `count`, unless NULL, gets how many. */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_redrive_dead(struct flowmesh_queue *queue,
                                            uint64_t most,
                                            uint64_t *count);

/**
 * Makes `count` dead jobs ready again at `rate`, from now on, in the place of what was asked for before; 0 ends it, and
 * `rate` may be NULL then.
 *
 * Errors:
 * `INVALID_ARGUMENT`: the rate is out of bounds.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_redrive_at(struct flowmesh_queue *queue,
                                          uint64_t count,
                                          const struct flowmesh_rate *rate);

/**
 * Removes all jobs in `state`, one of `enum flowmesh_job_state`. `count`, unless NULL, gets how many.
 *
 * Errors:
 * `INVALID_ARGUMENT`: it is no state; or leased, whose jobs are cancelled, not purged.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_purge(struct flowmesh_queue *queue, int32_t state, uint64_t *count);

/**
 * Removes the job of this id.
 *
 * Errors:
 * `NOT_FOUND`: there is no such job. `INVALID_ARGUMENT`: `job` is no id, or a worker has it: cancel it.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_remove(struct flowmesh_queue *queue, const char *job);

/** Hands out nothing until `flowmesh_queue_resume`; what workers have they keep. */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_pause(struct flowmesh_queue *queue);

/** Ends pausing and draining. */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_resume(struct flowmesh_queue *queue);

/**
 * Takes nothing new until `flowmesh_queue_resume`: enqueueing is `FLOWMESH_ERR_DRAINING`. `idle`, unless NULL, gets 1
 * when all that was there is finished, else 0: ask again.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_drain(struct flowmesh_queue *queue,
                                     int32_t *idle);

/* Schedules ================================================================================================= */

/**
 * Enqueues a job at each of the times that `schedule` says, in the place of the schedule of its name if there is one. It is
 * stored with the queue: one time makes one job, however many processes set the schedule, also after a restart. Where a
 * clock change skips a time, it fires once, right after; of a repeated time, the first counts.
 *
 * Threads: any. Blocks until the host has answered, at most 30 s.
 *
 * Errors:
 * `INVALID_ARGUMENT`: what the message names; of `cron`, with the column. `TOO_LARGE`: the payload. As
 * `flowmesh_queue_enqueue`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_schedule(struct flowmesh_queue *queue,
                                        const struct flowmesh_schedule *schedule);

/**
 * Removes the schedule of this name; jobs that it enqueued stay.
 *
 * Errors:
 * `NOT_FOUND`: there is none. As `flowmesh_queue_schedule`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_unschedule(struct flowmesh_queue *queue, const char *name);

/**
 * All schedules of the queue. The list in `*out` is the caller's to free; it does not change.
 *
 * Errors:
 * `TIMEOUT`, `CLOSED`, `DISCONNECTED`, `FORKED`.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_schedules(const struct flowmesh_queue *queue,
                                         struct flowmesh_schedule_list **out);

/** How many schedules it lists. */
size_t flowmesh_schedule_list_count(const struct flowmesh_schedule_list *list);

/**
 * Schedule number `index`, from 0, into `*out`, which begins with its size (`FLOWMESH_SCHEDULE_INIT`). What it points to is
 * lent until the list is freed. Does not block.
 *
 * Errors:
 * `NOT_FOUND`: it lists fewer.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_schedule_list_get(const struct flowmesh_schedule_list *list,
                                           size_t index,
                                           struct flowmesh_schedule *out);

/** Frees it. NULL is fine. */
flowmesh_status flowmesh_schedule_list_free(struct flowmesh_schedule_list *list);

/* Settings of queues without macros ========================================================================= */

/**
 * Sets `config` to what `FLOWMESH_QUEUE_CONFIG_INIT` says, for languages that have no C macros. `size` is the size of the
 * struct as the caller knows it.
 *
 * Errors:
 * `INVALID_ARGUMENT`: `size` is not that of any version of the struct.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_queue_config_init(struct flowmesh_queue_config *config,
                                           size_t size);

/** The same as `FLOWMESH_ENQUEUE_OPTIONS_INIT`. */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_enqueue_options_init(struct flowmesh_enqueue_options *options, size_t size);

/** The same as `FLOWMESH_WORKER_OPTIONS_INIT`. */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_worker_options_init(struct flowmesh_worker_options *options, size_t size);

/* Inspecting a directory ==================================================================================== */

/**
 * Verifies what `directory` stores without changing anything; nobody need have it open, its host may. While the host
 * writes, what is being written shows as the tail. The inspection in `*out` is the caller's to free; it does not change.
 *
 * Damage is no error but in the inspection. Opening such a directory fails with `CORRUPT`, unless `repair` of the open
 * options says to move what is damaged aside.
 *
 * Threads: any. Blocks while the files are read.
 *
 * Errors:
 * `NOT_FOUND`: there is no such directory, or nothing was ever stored in it. `UNSUPPORTED`: a newer version wrote it. `IO`,
 * `PERMISSION_DENIED`: it cannot be read.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_inspect(const char *directory,
                                 struct flowmesh_inspection **out);

/**
 * What was found in numbers, into `*out`, which begins with its size (`FLOWMESH_INSPECTED_INIT`). Its text is lent until the
 * inspection is freed; so it is with the next functions.
 *
 * Threads: any. These never block.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_inspection_get(const struct flowmesh_inspection *inspection,
                                        struct flowmesh_inspected *out);

/**
 * Damage number `index`, from 0, into `*out`, which begins with its size (`FLOWMESH_DAMAGE_INIT`).
 *
 * Errors:
 * `NOT_FOUND`: there is less.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_inspection_damage(const struct flowmesh_inspection *inspection,
                                           size_t index,
                                           struct flowmesh_damage *out);

/**
 * Segment number `index`, from 0, the oldest first, into `*out`, which begins with its size (`FLOWMESH_SEGMENT_INIT`).
 *
 * Errors:
 * `NOT_FOUND`: there are fewer.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_inspection_segment(const struct flowmesh_inspection *inspection,
                                            size_t index,
                                            struct flowmesh_segment *out);

/**
 * Checkpoint number `index`, from 0, the oldest first, into `*out`, which begins with its size
 * (`FLOWMESH_CHECKPOINT_INIT`).
 *
 * Errors:
 * `NOT_FOUND`: there are fewer.
 */
FLOWMESH_MUST_USE
flowmesh_status flowmesh_inspection_checkpoint(const struct flowmesh_inspection *inspection,
                                               size_t index,
                                               struct flowmesh_checkpoint *out);

/** Frees it. NULL is fine. */
flowmesh_status flowmesh_inspection_free(struct flowmesh_inspection *inspection);

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
