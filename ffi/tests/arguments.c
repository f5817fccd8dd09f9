/* What every function does with NULL, with handles that are none, were freed, are of another type or closed.
 * run.sh fails when a function of the header does not occur here. */
#include "check.h"

static flowmesh_mesh *mesh, *freed_mesh;
static flowmesh_subscription *subscription, *freed_subscription;
static flowmesh_message *message, *freed_message;
static flowmesh_service *service, *freed_service;
static flowmesh_request *request, *freed_request;
static flowmesh_pending *pending, *freed_pending;
static flowmesh_instance_list *list, *freed_list;
static flowmesh_snapshot *snapshot, *freed_snapshot;
static flowmesh_queue *queue, *freed_queue, *idle;
static flowmesh_job *job, *freed_job;
static flowmesh_job_answer *answer, *freed_answer;
static flowmesh_reservation *reservation, *freed_reservation;
static flowmesh_worker *worker, *freed_worker;
static flowmesh_name_list *names, *freed_names;
static flowmesh_queue_settings *settings, *freed_settings;
static flowmesh_job_list *jobs, *freed_jobs;
static flowmesh_content *content, *freed_content;
static flowmesh_schedule_list *schedules, *freed_schedules;
static flowmesh_inspection *inspection, *freed_inspection;
static flowmesh_receipt receipt;

static char not_a_handle[64];

/* A bad handle of each sort: NULL first, then what was freed, is of another type, or never was one. */
#define BAD_HANDLES(freed, other)                                                           \
    {NULL, (void *)(freed), (void *)(other), not_a_handle, (void *)(uintptr_t)1,            \
     (void *)UINTPTR_MAX, (void *)((uintptr_t)(other) ^ 1), (void *)((uintptr_t)(freed) + 1)}

/* A function that returns a status. */
#define STATUS(type, freed, other, call)                                                        \
    do {                                                                                        \
        void *bad[] = BAD_HANDLES(freed, other);                                                \
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {                                 \
            type *h = bad[i];                                                                   \
            CHECK_STATUS(i == 0 ? FLOWMESH_ERR_NULL_ARGUMENT : FLOWMESH_ERR_BAD_HANDLE, call);  \
        }                                                                                       \
    } while (0)

/* A function that returns something else: the error is the thread's last. */
#define VALUE(type, freed, other, call)                                                                 \
    do {                                                                                                \
        void *bad[] = BAD_HANDLES(freed, other);                                                        \
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {                                         \
            type *h = bad[i];                                                                           \
            flowmesh_error_clear();                                                                     \
            (void)(call);                                                                               \
            CHECK_STATUS(i == 0 ? FLOWMESH_ERR_NULL_ARGUMENT : FLOWMESH_ERR_BAD_HANDLE, flowmesh_error_code()); \
        }                                                                                               \
    } while (0)

/* A function that frees: NULL is fine. */
#define FREE(type, freed, other, call)                                                       \
    do {                                                                                     \
        void *bad[] = BAD_HANDLES(freed, other);                                             \
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {                              \
            type *h = bad[i];                                                                \
            CHECK_STATUS(i == 0 ? FLOWMESH_OK : FLOWMESH_ERR_BAD_HANDLE, call);              \
        }                                                                                    \
    } while (0)

static flowmesh_status on_event(void *context, const flowmesh_message *event)
{
    (void)context, (void)event;
    return FLOWMESH_OK;
}

static flowmesh_status on_request(void *context, flowmesh_request *asked)
{
    (void)context, (void)asked;
    return FLOWMESH_OK;
}

static flowmesh_status on_job(void *context, flowmesh_job *lent)
{
    (void)context, (void)lent;
    return FLOWMESH_OK;
}

static int drops;

static void on_drop(void *context)
{
    drops += *(int *)context;
}

static void bad_handles(void)
{
    flowmesh_message *m;
    flowmesh_subscription *s;
    flowmesh_service *v;
    flowmesh_request *q;
    flowmesh_pending *p;
    flowmesh_instance_list *l;
    flowmesh_snapshot *n;
    flowmesh_text text;
    size_t count;
    int32_t done;
    char *json;
    flowmesh_instance instance = FLOWMESH_INSTANCE_INIT;
    flowmesh_totals totals = FLOWMESH_TOTALS_INIT;
    flowmesh_subscription_stats subscription_stats = FLOWMESH_SUBSCRIPTION_STATS_INIT;
    flowmesh_service_stats service_stats = FLOWMESH_SERVICE_STATS_INIT;
    flowmesh_session_stats session_stats = FLOWMESH_SESSION_STATS_INIT;
    int one = 1;

#define MESH(kind, call) kind(flowmesh_mesh, freed_mesh, subscription, call)
    MESH(STATUS, flowmesh_publish(h, "a", "", 0, NULL, NULL));
    MESH(STATUS, flowmesh_publish_many(h, NULL, 0, NULL));
    MESH(STATUS, flowmesh_subscribe(h, "a", NULL, &s));
    drops = 0;
    MESH(STATUS, flowmesh_on(h, "a", NULL, on_event, &one, on_drop, &s));
    MESH(STATUS, flowmesh_serve(h, "a", NULL, on_request, &one, on_drop, &v));
    CHECK(drops == 16);
    MESH(STATUS, flowmesh_service_open(h, "a", NULL, &v));
    MESH(STATUS, flowmesh_call(h, "a", "", 0, NULL, &m));
    MESH(STATUS, flowmesh_call_start(h, "a", "", 0, NULL, &p));
    MESH(STATUS, flowmesh_listen_tcp(h, "127.0.0.1:0", "0123456789abcdef", 16, NULL, 0));
    MESH(STATUS, flowmesh_services(h, &l));
    MESH(STATUS, flowmesh_stats(h, &n));
    MESH(STATUS, flowmesh_stats_json(h, &json));
    MESH(STATUS, flowmesh_mesh_close(h));
    MESH(STATUS, flowmesh_mesh_role(h));
    MESH(STATUS, flowmesh_mesh_is_closed(h));
    MESH(VALUE, flowmesh_mesh_session(h));
    MESH(VALUE, flowmesh_mesh_host_pid(h));
    MESH(VALUE, flowmesh_mesh_max_message_bytes(h));
    MESH(VALUE, flowmesh_mesh_directory(h));
    MESH(FREE, flowmesh_mesh_free(h));

#define SUBSCRIPTION(kind, call) kind(flowmesh_subscription, freed_subscription, mesh, call)
    SUBSCRIPTION(STATUS, flowmesh_subscription_receive(h, 0, &m));
    SUBSCRIPTION(STATUS, flowmesh_subscription_receive_many(h, 0, &m, 1, &count));
    SUBSCRIPTION(STATUS, flowmesh_subscription_fail(h, message, "T", "why"));
    SUBSCRIPTION(STATUS, flowmesh_subscription_get_stats(h, &subscription_stats));
    SUBSCRIPTION(STATUS, flowmesh_subscription_fd(h));
    SUBSCRIPTION(STATUS, flowmesh_subscription_is_closed(h));
    SUBSCRIPTION(STATUS, flowmesh_subscription_close(h));
    SUBSCRIPTION(VALUE, flowmesh_subscription_pattern(h));
    SUBSCRIPTION(FREE, flowmesh_subscription_free(h));

#define MESSAGE(kind, call) kind(flowmesh_message, freed_message, mesh, call)
    MESSAGE(STATUS, flowmesh_subscription_fail(subscription, h, "T", "why"));
    MESSAGE(VALUE, flowmesh_message_subject(h));
    MESSAGE(VALUE, flowmesh_message_payload(h));
    MESSAGE(VALUE, flowmesh_message_header(h, "a"));
    MESSAGE(VALUE, flowmesh_message_header_count(h));
    MESSAGE(STATUS, flowmesh_message_header_at(h, 0, &text, &text));
    MESSAGE(VALUE, flowmesh_message_content_type(h));
    MESSAGE(VALUE, flowmesh_message_id(h));
    MESSAGE(VALUE, flowmesh_message_timestamp_ns(h));
    MESSAGE(VALUE, flowmesh_message_priority(h));
    MESSAGE(VALUE, flowmesh_message_ttl_ms(h));
    MESSAGE(VALUE, flowmesh_message_gap(h));
    MESSAGE(VALUE, flowmesh_message_attempt(h));
    MESSAGE(FREE, flowmesh_message_free(h));
    MESSAGE(FREE, flowmesh_message_free_many(&h, 1));

#define SERVICE(kind, call) kind(flowmesh_service, freed_service, mesh, call)
    SERVICE(STATUS, flowmesh_service_next(h, 0, &q));
    SERVICE(STATUS, flowmesh_service_fd(h));
    SERVICE(STATUS, flowmesh_service_is_closed(h));
    SERVICE(STATUS, flowmesh_service_close(h));
    SERVICE(VALUE, flowmesh_service_name(h));
    SERVICE(FREE, flowmesh_service_free(h));

#define REQUEST(kind, call) kind(flowmesh_request, freed_request, mesh, call)
    REQUEST(VALUE, flowmesh_request_payload(h));
    REQUEST(VALUE, flowmesh_request_message(h));
    REQUEST(STATUS, flowmesh_request_reply(h, "", 0, NULL, 0));
    REQUEST(STATUS, flowmesh_request_fail(h, "T", "why"));
    REQUEST(STATUS, flowmesh_request_is_cancelled(h));
    REQUEST(STATUS, (flowmesh_status)flowmesh_request_remaining_ms(h));
    REQUEST(FREE, flowmesh_request_free(h));

#define PENDING(kind, call) kind(flowmesh_pending, freed_pending, mesh, call)
    PENDING(STATUS, flowmesh_pending_wait(h, 0, &m));
    PENDING(STATUS, flowmesh_pending_try(h, &done, &m));
    PENDING(STATUS, flowmesh_pending_cancel(h));
    PENDING(STATUS, flowmesh_pending_fd(h));
    PENDING(FREE, flowmesh_pending_free(h));

#define LIST(kind, call) kind(flowmesh_instance_list, freed_list, mesh, call)
    LIST(VALUE, flowmesh_instance_list_count(h));
    LIST(STATUS, flowmesh_instance_list_get(h, 0, &instance));
    LIST(FREE, flowmesh_instance_list_free(h));

#define SNAPSHOT(kind, call) kind(flowmesh_snapshot, freed_snapshot, mesh, call)
    SNAPSHOT(STATUS, flowmesh_snapshot_totals(h, &totals));
    SNAPSHOT(VALUE, flowmesh_snapshot_subscription_count(h));
    SNAPSHOT(STATUS, flowmesh_snapshot_subscription(h, 0, &subscription_stats));
    SNAPSHOT(VALUE, flowmesh_snapshot_service_count(h));
    SNAPSHOT(STATUS, flowmesh_snapshot_service(h, 0, &service_stats));
    SNAPSHOT(VALUE, flowmesh_snapshot_session_count(h));
    SNAPSHOT(STATUS, flowmesh_snapshot_session(h, 0, &session_stats));
    SNAPSHOT(FREE, flowmesh_snapshot_free(h));

    CHECK_OK(flowmesh_string_free(NULL));
    CHECK_STATUS(FLOWMESH_ERR_BAD_HANDLE, flowmesh_string_free(not_a_handle));
    CHECK_OK(flowmesh_stats_json(mesh, &json));
    CHECK_OK(flowmesh_string_free(json));
    CHECK_STATUS(FLOWMESH_ERR_BAD_HANDLE, flowmesh_string_free(json));
}

static void bad_queue_handles(void)
{
    flowmesh_queue *q;
    flowmesh_job *j;
    flowmesh_job_answer *a;
    flowmesh_reservation *r;
    flowmesh_worker *w;
    flowmesh_name_list *n;
    flowmesh_queue_settings *s;
    flowmesh_job_list *l;
    flowmesh_content *c;
    flowmesh_schedule_list *t;
    flowmesh_text text;
    size_t count;
    int32_t done;
    flowmesh_queue_stats stats = FLOWMESH_QUEUE_STATS_INIT;
    flowmesh_queue_config config = FLOWMESH_QUEUE_CONFIG_INIT;
    flowmesh_worker_stats worker_stats = FLOWMESH_WORKER_STATS_INIT;
    flowmesh_job_info info = FLOWMESH_JOB_INFO_INIT;
    flowmesh_failure failure = FLOWMESH_FAILURE_INIT;
    flowmesh_schedule schedule = FLOWMESH_SCHEDULE_INIT;
    flowmesh_inspected inspected = FLOWMESH_INSPECTED_INIT;
    flowmesh_damage damage = FLOWMESH_DAMAGE_INIT;
    flowmesh_segment segment = FLOWMESH_SEGMENT_INIT;
    flowmesh_checkpoint checkpoint = FLOWMESH_CHECKPOINT_INIT;
    flowmesh_rate rate = {1, 1, 1000};
    int one = 1;
    schedule.name = "s", schedule.cron = "@daily";

    MESH(STATUS, flowmesh_queue_declare(h, "q", NULL, &q));
    MESH(STATUS, flowmesh_queue_open(h, "q", &q));
    MESH(STATUS, flowmesh_queues(h, &n));

#define QUEUE(kind, call) kind(flowmesh_queue, freed_queue, mesh, call)
    QUEUE(VALUE, flowmesh_queue_name(h));
    QUEUE(STATUS, flowmesh_queue_durable(h, FLOWMESH_DURABILITY_OS, 0, &q));
    QUEUE(STATUS, flowmesh_queue_get_settings(h, &s));
    QUEUE(STATUS, flowmesh_queue_configure(h, NULL));
    QUEUE(STATUS, flowmesh_queue_enqueue(h, "", 0, NULL, NULL));
    QUEUE(STATUS, flowmesh_queue_enqueue_many(h, NULL, 0, NULL, NULL));
    QUEUE(STATUS, flowmesh_queue_next(h, 0, &j));
    QUEUE(STATUS, flowmesh_queue_reserve(h, -1, 0, &j, 1, &count));
    QUEUE(STATUS, flowmesh_queue_reserve_start(h, -1, 0, 1, &r));
    QUEUE(STATUS, flowmesh_queue_ack_many(h, NULL, 0, NULL));
    drops = 0;
    QUEUE(STATUS, flowmesh_worker_start(h, NULL, on_job, &one, on_drop, &w));
    CHECK(drops == 8);
    QUEUE(STATUS, flowmesh_queue_cancel(h, receipt.id, NULL, NULL));
    QUEUE(STATUS, flowmesh_queue_redrive(h, NULL, 0));
    QUEUE(STATUS, flowmesh_queue_redrive_dead(h, 1, NULL));
    QUEUE(STATUS, flowmesh_queue_redrive_at(h, 1, &rate));
    QUEUE(STATUS, flowmesh_queue_purge(h, FLOWMESH_JOB_DEAD, NULL));
    QUEUE(STATUS, flowmesh_queue_remove(h, receipt.id));
    QUEUE(STATUS, flowmesh_queue_pause(h));
    QUEUE(STATUS, flowmesh_queue_resume(h));
    QUEUE(STATUS, flowmesh_queue_drain(h, NULL));
    QUEUE(STATUS, flowmesh_queue_schedule(h, &schedule));
    QUEUE(STATUS, flowmesh_queue_unschedule(h, "s"));
    QUEUE(STATUS, flowmesh_queue_schedules(h, &t));
    QUEUE(STATUS, flowmesh_queue_get_stats(h, &stats));
    QUEUE(STATUS, flowmesh_queue_list(h, FLOWMESH_JOB_READY, NULL, 1, &l));
    QUEUE(STATUS, flowmesh_queue_peek(h, receipt.id, &l));
    QUEUE(STATUS, flowmesh_queue_content(h, receipt.id, &c));
    QUEUE(STATUS, flowmesh_queue_result(h, receipt.id, &c));
    QUEUE(FREE, flowmesh_queue_free(h));

#define JOB(kind, call) kind(flowmesh_job, freed_job, mesh, call)
    JOB(VALUE, flowmesh_job_payload(h));
    JOB(VALUE, flowmesh_job_id(h));
    JOB(VALUE, flowmesh_job_queue(h));
    JOB(VALUE, flowmesh_job_group(h));
    JOB(VALUE, flowmesh_job_content_type(h));
    JOB(VALUE, flowmesh_job_header(h, "a"));
    JOB(VALUE, flowmesh_job_header_count(h));
    JOB(STATUS, flowmesh_job_header_at(h, 0, &text, &text));
    JOB(VALUE, flowmesh_job_attempt(h));
    JOB(VALUE, flowmesh_job_max_attempts(h));
    JOB(VALUE, flowmesh_job_redrives(h));
    JOB(STATUS, flowmesh_job_priority(h));
    JOB(STATUS, (flowmesh_status)flowmesh_job_lease_ms(h));
    JOB(STATUS, (flowmesh_status)flowmesh_job_remaining_ms(h));
    JOB(STATUS, flowmesh_job_is_cancelled(h));
    JOB(STATUS, flowmesh_job_cancel_fd(h));
    JOB(STATUS, flowmesh_job_is_settled(h));
    JOB(STATUS, flowmesh_job_ack(h, NULL, 0, NULL));
    JOB(STATUS, flowmesh_job_ack_and_reserve(h, NULL, 0, -1, &j, NULL));
    JOB(STATUS, flowmesh_job_nack(h, "no", NULL, -1, NULL));
    JOB(STATUS, flowmesh_job_reject(h, "no", NULL, NULL));
    JOB(STATUS, flowmesh_job_release(h, NULL));
    JOB(STATUS, flowmesh_job_snooze(h, 0, NULL));
    JOB(STATUS, flowmesh_job_keep(h));
    JOB(STATUS, flowmesh_job_extend(h, -1, NULL));
    JOB(STATUS, flowmesh_job_progress(h, "", 0));
    JOB(STATUS, flowmesh_job_set_result(h, "", 0));
    JOB(STATUS, flowmesh_job_ack_start(h, NULL, 0, &a));
    JOB(STATUS, flowmesh_job_nack_start(h, "no", NULL, -1, &a));
    JOB(STATUS, flowmesh_job_reject_start(h, "no", NULL, &a));
    JOB(STATUS, flowmesh_job_release_start(h, &a));
    JOB(STATUS, flowmesh_job_snooze_start(h, 0, &a));
    JOB(STATUS, flowmesh_job_extend_start(h, -1, &a));
    JOB(STATUS, flowmesh_job_progress_start(h, "", 0, &a));
    JOB(STATUS, flowmesh_queue_ack_many(queue, &h, 1, NULL));
    JOB(FREE, flowmesh_job_free(h));
    JOB(FREE, flowmesh_job_free_many(&h, 1));

#define ANSWER(kind, call) kind(flowmesh_job_answer, freed_answer, mesh, call)
    ANSWER(STATUS, flowmesh_job_answer_wait(h, 0, NULL));
    ANSWER(STATUS, flowmesh_job_answer_try(h, &done, NULL));
    ANSWER(STATUS, flowmesh_job_answer_cancel(h));
    ANSWER(STATUS, flowmesh_job_answer_fd(h));
    ANSWER(FREE, flowmesh_job_answer_free(h));

#define RESERVATION(kind, call) kind(flowmesh_reservation, freed_reservation, mesh, call)
    RESERVATION(STATUS, flowmesh_reservation_wait(h, 0, &j, 1, &count));
    RESERVATION(STATUS, flowmesh_reservation_try(h, &done, &j, 1, &count));
    RESERVATION(STATUS, flowmesh_reservation_cancel(h));
    RESERVATION(STATUS, flowmesh_reservation_fd(h));
    RESERVATION(FREE, flowmesh_reservation_free(h));

#define WORKER(kind, call) kind(flowmesh_worker, freed_worker, mesh, call)
    WORKER(STATUS, flowmesh_worker_stop(h, 0));
    WORKER(STATUS, flowmesh_worker_get_stats(h, &worker_stats));
    WORKER(STATUS, flowmesh_worker_is_running(h));
    WORKER(STATUS, flowmesh_worker_error(h));
    WORKER(FREE, flowmesh_worker_free(h));

    VALUE(flowmesh_name_list, freed_names, mesh, flowmesh_name_list_count(h));
    VALUE(flowmesh_name_list, freed_names, mesh, flowmesh_name_list_get(h, 0));
    FREE(flowmesh_name_list, freed_names, mesh, flowmesh_name_list_free(h));
    STATUS(flowmesh_queue_settings, freed_settings, mesh, flowmesh_queue_settings_get(h, &config));
    FREE(flowmesh_queue_settings, freed_settings, mesh, flowmesh_queue_settings_free(h));
    VALUE(flowmesh_job_list, freed_jobs, mesh, flowmesh_job_list_count(h));
    STATUS(flowmesh_job_list, freed_jobs, mesh, flowmesh_job_list_get(h, 0, &info));
    STATUS(flowmesh_job_list, freed_jobs, mesh, flowmesh_job_list_failure(h, 0, 0, &failure));
    FREE(flowmesh_job_list, freed_jobs, mesh, flowmesh_job_list_free(h));
    VALUE(flowmesh_content, freed_content, mesh, flowmesh_content_payload(h));
    VALUE(flowmesh_content, freed_content, mesh, flowmesh_content_type(h));
    VALUE(flowmesh_content, freed_content, mesh, flowmesh_content_header(h, "a"));
    VALUE(flowmesh_content, freed_content, mesh, flowmesh_content_header_count(h));
    STATUS(flowmesh_content, freed_content, mesh, flowmesh_content_header_at(h, 0, &text, &text));
    FREE(flowmesh_content, freed_content, mesh, flowmesh_content_free(h));
    VALUE(flowmesh_schedule_list, freed_schedules, mesh, flowmesh_schedule_list_count(h));
    STATUS(flowmesh_schedule_list, freed_schedules, mesh, flowmesh_schedule_list_get(h, 0, &schedule));
    FREE(flowmesh_schedule_list, freed_schedules, mesh, flowmesh_schedule_list_free(h));
    STATUS(flowmesh_inspection, freed_inspection, mesh, flowmesh_inspection_get(h, &inspected));
    STATUS(flowmesh_inspection, freed_inspection, mesh, flowmesh_inspection_damage(h, 0, &damage));
    STATUS(flowmesh_inspection, freed_inspection, mesh, flowmesh_inspection_segment(h, 0, &segment));
    STATUS(flowmesh_inspection, freed_inspection, mesh, flowmesh_inspection_checkpoint(h, 0, &checkpoint));
    FREE(flowmesh_inspection, freed_inspection, mesh, flowmesh_inspection_free(h));
}

#define CHECK_NULL(call) CHECK_STATUS(FLOWMESH_ERR_NULL_ARGUMENT, call)
#define CHECK_INVALID(call) CHECK_STATUS(FLOWMESH_ERR_INVALID_ARGUMENT, call)

static void null_arguments(const char *directory)
{
    flowmesh_mesh *opened = (flowmesh_mesh *)not_a_handle;
    flowmesh_message *m = (flowmesh_message *)not_a_handle;
    flowmesh_subscription *s;
    flowmesh_service *v;
    flowmesh_pending *p;
    size_t count = 7;
    int32_t done;
    int one = 1;
    flowmesh_header nameless = {NULL, "v"}, valueless = {"n", NULL};
    flowmesh_event subjectless = {NULL, "x", 1}, bytesless = {"a", NULL, 1};
    flowmesh_publish_options publish = FLOWMESH_PUBLISH_OPTIONS_INIT;

    CHECK_NULL(flowmesh_open(NULL, NULL, &opened));
    CHECK(opened == NULL); /* no garbage stays behind */
    CHECK_NULL(flowmesh_open(directory, NULL, NULL));
    CHECK_NULL(flowmesh_connect(NULL, NULL, &opened));
    CHECK_NULL(flowmesh_connect(directory, NULL, NULL));
    CHECK_NULL(flowmesh_connect_tcp(NULL, "", 0, NULL, &opened));
    CHECK_NULL(flowmesh_connect_tcp("127.0.0.1:1", NULL, 16, NULL, &opened));
    CHECK_NULL(flowmesh_connect_tcp("127.0.0.1:1", "", 0, NULL, NULL));
    CHECK_NULL(flowmesh_listen_tcp(mesh, NULL, "0123456789abcdef", 16, NULL, 0));
    CHECK_NULL(flowmesh_listen_tcp(mesh, "127.0.0.1:0", NULL, 16, NULL, 0));
    CHECK_NULL(flowmesh_listen_tcp(mesh, "127.0.0.1:0", "0123456789abcdef", 16, NULL, 64));
    CHECK_INVALID(flowmesh_listen_tcp(mesh, "127.0.0.1:0", "0123456789abcdef", 16, not_a_handle, 8));
    CHECK_INVALID(flowmesh_listen_tcp(mesh, "127.0.0.1:0", "short", 5, NULL, 0));

    CHECK_NULL(flowmesh_publish(mesh, NULL, "", 0, NULL, NULL));
    CHECK_NULL(flowmesh_publish(mesh, "a", NULL, 1, NULL, NULL));
    CHECK_OK(flowmesh_publish(mesh, "a", NULL, 0, NULL, NULL));
    CHECK_INVALID(flowmesh_publish(mesh, "a", "x", SIZE_MAX, NULL, NULL));
    CHECK_INVALID(flowmesh_publish(mesh, "a..b", "x", 1, NULL, NULL));
    CHECK_INVALID(flowmesh_publish(mesh, "a.\xff", "x", 1, NULL, NULL));
    publish.header_count = 1;
    CHECK_NULL(flowmesh_publish(mesh, "a", "", 0, &publish, NULL));
    publish.headers = &nameless;
    CHECK_NULL(flowmesh_publish(mesh, "a", "", 0, &publish, NULL));
    publish.headers = &valueless;
    CHECK_NULL(flowmesh_publish(mesh, "a", "", 0, &publish, NULL));
    CHECK(strcmp(flowmesh_error_get("argument"), "header.value") == 0);
    publish.header_count = 0;
    publish.priority = 10;
    CHECK_INVALID(flowmesh_publish(mesh, "a", "", 0, &publish, NULL));
    publish.priority = 4;
    publish.ttl_ms = -1;
    CHECK_INVALID(flowmesh_publish(mesh, "a", "", 0, &publish, NULL));
    publish.struct_size = 0;
    CHECK_INVALID(flowmesh_publish(mesh, "a", "", 0, &publish, NULL));
    CHECK_NULL(flowmesh_publish_many(mesh, NULL, 1, NULL));
    CHECK_NULL(flowmesh_publish_many(mesh, &subjectless, 1, NULL));
    CHECK_NULL(flowmesh_publish_many(mesh, &bytesless, 1, NULL));
    CHECK_OK(flowmesh_publish_many(mesh, NULL, 0, NULL));

    CHECK_NULL(flowmesh_subscribe(mesh, NULL, NULL, &s));
    CHECK_NULL(flowmesh_subscribe(mesh, "a", NULL, NULL));
    drops = 0;
    CHECK_NULL(flowmesh_on(mesh, NULL, NULL, on_event, &one, on_drop, &s));
    CHECK_NULL(flowmesh_on(mesh, "a", NULL, NULL, &one, on_drop, &s));
    CHECK_NULL(flowmesh_on(mesh, "a", NULL, on_event, &one, on_drop, NULL));
    CHECK_INVALID(flowmesh_on(mesh, "a.>.b", NULL, on_event, &one, on_drop, &s));
    CHECK_NULL(flowmesh_serve(mesh, NULL, NULL, on_request, &one, on_drop, &v));
    CHECK_NULL(flowmesh_serve(mesh, "a", NULL, NULL, &one, on_drop, &v));
    CHECK_NULL(flowmesh_serve(mesh, "a", NULL, on_request, &one, on_drop, NULL));
    CHECK_INVALID(flowmesh_serve(mesh, "a b", NULL, on_request, &one, on_drop, &v));
    CHECK(drops == 8);
    CHECK_NULL(flowmesh_service_open(mesh, NULL, NULL, &v));
    CHECK_NULL(flowmesh_service_open(mesh, "a", NULL, NULL));
    CHECK_NULL(flowmesh_service_next(service, 0, NULL));
    CHECK_NULL(flowmesh_subscription_receive(subscription, 0, NULL));
    CHECK_NULL(flowmesh_subscription_receive_many(subscription, 0, NULL, 1, &count));
    CHECK(count == 0);
    CHECK_NULL(flowmesh_subscription_receive_many(subscription, 0, &m, 1, NULL));
    CHECK_INVALID(flowmesh_subscription_receive_many(subscription, 0, &m, 0, &count));
    CHECK_NULL(flowmesh_subscription_fail(subscription, message, NULL, "why"));
    CHECK_NULL(flowmesh_subscription_fail(subscription, message, "T", NULL));
    CHECK_NULL(flowmesh_subscription_get_stats(subscription, NULL));

    CHECK_NULL(flowmesh_call(mesh, NULL, "", 0, NULL, &m));
    CHECK(m == NULL);
    CHECK_NULL(flowmesh_call(mesh, "a", NULL, 1, NULL, &m));
    CHECK_NULL(flowmesh_call(mesh, "a", "", 0, NULL, NULL));
    CHECK_NULL(flowmesh_call_start(mesh, NULL, "", 0, NULL, &p));
    CHECK_NULL(flowmesh_call_start(mesh, "a", "", 0, NULL, NULL));
    CHECK_NULL(flowmesh_pending_wait(pending, 0, NULL));
    CHECK_NULL(flowmesh_pending_try(pending, NULL, &m));
    CHECK_NULL(flowmesh_pending_try(pending, &done, NULL));
    CHECK_NULL(flowmesh_request_reply(request, NULL, 1, NULL, 0));
    CHECK_NULL(flowmesh_request_reply(request, "", 0, NULL, 1));
    CHECK_NULL(flowmesh_request_fail(request, NULL, "why"));
    CHECK_NULL(flowmesh_request_fail(request, "T", NULL));

    CHECK(flowmesh_message_header(message, NULL).data == NULL);
    CHECK_NULL(flowmesh_error_code());
    CHECK_STATUS(FLOWMESH_ERR_NOT_FOUND, flowmesh_message_header_at(message, 1000, NULL, NULL));
    CHECK_NULL(flowmesh_message_free_many(NULL, 1));
    CHECK_OK(flowmesh_message_free_many(NULL, 0));
    CHECK_NULL(flowmesh_services(mesh, NULL));
    CHECK_NULL(flowmesh_stats(mesh, NULL));
    CHECK_NULL(flowmesh_stats_json(mesh, NULL));
    CHECK_NULL(flowmesh_instance_list_get(list, 0, NULL));
    CHECK_NULL(flowmesh_snapshot_totals(snapshot, NULL));
    CHECK_STATUS(FLOWMESH_ERR_NOT_FOUND, flowmesh_instance_list_get(list, 1000, NULL));
    CHECK_STATUS(FLOWMESH_ERR_NOT_FOUND, flowmesh_snapshot_subscription(snapshot, 1000, NULL));
    CHECK_STATUS(FLOWMESH_ERR_NOT_FOUND, flowmesh_snapshot_service(snapshot, 1000, NULL));
    CHECK_STATUS(FLOWMESH_ERR_NOT_FOUND, flowmesh_snapshot_session(snapshot, 1000, NULL));

    CHECK(flowmesh_error_get(NULL) == NULL);
    CHECK_NULL(flowmesh_handler_error(NULL, "why"));
    CHECK_NULL(flowmesh_handler_error("T", NULL));
    CHECK_STATUS(FLOWMESH_ERR_HANDLER_FAILED, flowmesh_handler_error("T", "why"));
    CHECK(strcmp(flowmesh_error_get("type"), "T") == 0);
}

static void null_queue_arguments(const char *directory)
{
    flowmesh_queue *q = (flowmesh_queue *)not_a_handle;
    flowmesh_job *j = (flowmesh_job *)not_a_handle;
    flowmesh_job_answer *a = (flowmesh_job_answer *)not_a_handle;
    flowmesh_reservation *r;
    flowmesh_worker *w;
    flowmesh_job_list *l;
    flowmesh_inspection *i;
    size_t count = 7;
    int32_t done;
    int one = 1;
    flowmesh_enqueue_options options = FLOWMESH_ENQUEUE_OPTIONS_INIT;
    flowmesh_queue_config config = FLOWMESH_QUEUE_CONFIG_INIT;
    flowmesh_new_job bytesless = {NULL, 1, NULL}, own = {"x", 1, &options};
    flowmesh_schedule schedule = FLOWMESH_SCHEDULE_INIT;
    flowmesh_cursor cursor = FLOWMESH_CURSOR_INIT;
    flowmesh_group_weight nameless = {NULL, 1, 0};
    const char *none = NULL;

    CHECK_NULL(flowmesh_queue_declare(mesh, NULL, NULL, &q));
    CHECK(q == NULL);
    CHECK_NULL(flowmesh_queue_declare(mesh, "q", NULL, NULL));
    CHECK_NULL(flowmesh_queue_open(mesh, NULL, &q));
    CHECK_NULL(flowmesh_queue_open(mesh, "q", NULL));
    CHECK_NULL(flowmesh_queues(mesh, NULL));
    CHECK(flowmesh_name_list_get(names, 1000).data == NULL);
    CHECK_STATUS(FLOWMESH_ERR_NOT_FOUND, flowmesh_error_code());
    CHECK_NULL(flowmesh_queue_durable(queue, FLOWMESH_DURABILITY_OS, 0, NULL));
    CHECK_INVALID(flowmesh_queue_durable(queue, FLOWMESH_DURABILITY_DEFAULT, 0, &q));
    CHECK_INVALID(flowmesh_queue_durable(queue, FLOWMESH_DURABILITY_MEMORY, 0, &q));
    CHECK_INVALID(flowmesh_queue_durable(queue, FLOWMESH_DURABILITY_INTERVAL, 0, &q));
    CHECK_INVALID(flowmesh_queue_durable(queue, FLOWMESH_DURABILITY_INTERVAL, -1, &q));
    CHECK_INVALID(flowmesh_queue_durable(queue, FLOWMESH_DURABILITY_OS, 5, &q));
    CHECK_INVALID(flowmesh_queue_durable(queue, 5, 0, &q));
    CHECK_NULL(flowmesh_queue_get_settings(queue, NULL));
    CHECK_NULL(flowmesh_queue_settings_get(settings, NULL));
    CHECK_NULL(flowmesh_queue_get_stats(queue, NULL));

#define BAD_CONFIG(code, field, value)                                       \
    do {                                                                     \
        flowmesh_queue_config bad = FLOWMESH_QUEUE_CONFIG_INIT;              \
        bad.field = value;                                                   \
        CHECK_STATUS(code, flowmesh_queue_declare(mesh, "bad", &bad, &q));   \
        CHECK_STATUS(code, flowmesh_queue_configure(queue, &bad));           \
    } while (0)
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, struct_size, 3);
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, lease_ms, 0);
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, lease_ms, -1);
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, lease_ms, 43200001);
    CHECK(strstr(flowmesh_error_message(), "43200.001s") != NULL);
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, lease_ms, INT64_MAX);
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, ttl_ms, 0);
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, ttl_ms, -2);
    CHECK(strcmp(flowmesh_error_get("ttl_ms"), "-2") == 0);
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, deadline_ms, INT64_MIN);
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, aging_ms, 0);
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, max_length, 0);
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, max_length, -7);
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, max_attempts, 0);
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, max_attempts, UINT32_MAX);
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, payload_bytes_max, 0);
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, concurrency, 0);
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, group_concurrency, -2);
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, backoff.kind, 4);
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, backoff.kind, FLOWMESH_BACKOFF_LIST);
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, durability, 9);
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, durability, FLOWMESH_DURABILITY_INTERVAL);
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, uncounted_on_crash, 2);
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, keep_dead.age_ms, -1);
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, dead_letter_to, "not a name");
    BAD_CONFIG(FLOWMESH_ERR_INVALID_ARGUMENT, dead_letter_to, "a\xff");
    BAD_CONFIG(FLOWMESH_ERR_NULL_ARGUMENT, group_weight_count, 1);
    config.backoff.kind = FLOWMESH_BACKOFF_LIST;
    config.backoff.list_count = 1;
    CHECK_NULL(flowmesh_queue_declare(mesh, "bad", &config, &q));
    config.backoff.list_count = SIZE_MAX;
    config.backoff.list_ms = (int64_t[]){1};
    CHECK_INVALID(flowmesh_queue_declare(mesh, "bad", &config, &q));
    config = (flowmesh_queue_config)FLOWMESH_QUEUE_CONFIG_INIT;
    config.group_weights = &nameless;
    config.group_weight_count = 1;
    CHECK_NULL(flowmesh_queue_declare(mesh, "bad", &config, &q));
    flowmesh_rate rate = {0, 1, 1000};
    config = (flowmesh_queue_config)FLOWMESH_QUEUE_CONFIG_INIT;
    config.rate = &rate;
    CHECK_INVALID(flowmesh_queue_declare(mesh, "bad", &config, &q));
    rate = (flowmesh_rate){1, 1, -5};
    CHECK_INVALID(flowmesh_queue_declare(mesh, "bad", &config, &q));

    CHECK_NULL(flowmesh_queue_enqueue(queue, NULL, 1, NULL, NULL));
    CHECK_INVALID(flowmesh_queue_enqueue(queue, "x", SIZE_MAX, NULL, NULL));
#define BAD_JOB(code, field, value)                                               \
    do {                                                                          \
        flowmesh_receipt gone = {{'x'}, {0}, 7, 7};                               \
        options = (flowmesh_enqueue_options)FLOWMESH_ENQUEUE_OPTIONS_INIT;        \
        options.field = value;                                                    \
        CHECK_STATUS(code, flowmesh_queue_enqueue(queue, "x", 1, &options, &gone)); \
        CHECK(gone.id[0] == '\0' && gone.outcome == 0);                           \
        CHECK_STATUS(code, flowmesh_queue_enqueue_many(queue, &own, 1, NULL, NULL)); \
    } while (0)
    BAD_JOB(FLOWMESH_ERR_INVALID_ARGUMENT, struct_size, 0);
    BAD_JOB(FLOWMESH_ERR_INVALID_ARGUMENT, id, "not an id");
    BAD_JOB(FLOWMESH_ERR_INVALID_ARGUMENT, id, "\xff");
    BAD_JOB(FLOWMESH_ERR_NULL_ARGUMENT, header_count, 1);
    BAD_JOB(FLOWMESH_ERR_INVALID_ARGUMENT, group, "");
    BAD_JOB(FLOWMESH_ERR_INVALID_ARGUMENT, unique_key, "");
    BAD_JOB(FLOWMESH_ERR_INVALID_ARGUMENT, unique_scope, FLOWMESH_UNIQUE_WAITING);
    BAD_JOB(FLOWMESH_ERR_INVALID_ARGUMENT, unique_scope, 3);
    BAD_JOB(FLOWMESH_ERR_INVALID_ARGUMENT, unique_conflict, 4);
    BAD_JOB(FLOWMESH_ERR_INVALID_ARGUMENT, delay_ms, -1);
    BAD_JOB(FLOWMESH_ERR_INVALID_ARGUMENT, delay_ms, 315360000001);
    BAD_JOB(FLOWMESH_ERR_INVALID_ARGUMENT, run_at_ms, -2);
    BAD_JOB(FLOWMESH_ERR_INVALID_ARGUMENT, ttl_ms, 0);
    BAD_JOB(FLOWMESH_ERR_INVALID_ARGUMENT, lease_ms, 0);
    BAD_JOB(FLOWMESH_ERR_INVALID_ARGUMENT, deadline_ms, -5);
    BAD_JOB(FLOWMESH_ERR_INVALID_ARGUMENT, result_ttl_ms, 0);
    BAD_JOB(FLOWMESH_ERR_INVALID_ARGUMENT, priority, 256);
    BAD_JOB(FLOWMESH_ERR_INVALID_ARGUMENT, priority, -1);
    BAD_JOB(FLOWMESH_ERR_INVALID_ARGUMENT, max_attempts, 0);
    BAD_JOB(FLOWMESH_ERR_INVALID_ARGUMENT, max_attempts, 1001);
    BAD_JOB(FLOWMESH_ERR_INVALID_ARGUMENT, max_attempts, 65537);
    BAD_JOB(FLOWMESH_ERR_INVALID_ARGUMENT, durability, 5);
    BAD_JOB(FLOWMESH_ERR_INVALID_ARGUMENT, durability_interval_ms, 5);
    options = (flowmesh_enqueue_options)FLOWMESH_ENQUEUE_OPTIONS_INIT;
    options.durability = FLOWMESH_DURABILITY_OS; /* of the call, not of one job */
    CHECK_INVALID(flowmesh_queue_enqueue_many(queue, &own, 1, NULL, NULL));
    CHECK_NULL(flowmesh_queue_enqueue_many(queue, NULL, 1, NULL, NULL));
    CHECK_NULL(flowmesh_queue_enqueue_many(queue, &bytesless, 1, NULL, NULL));
    CHECK_OK(flowmesh_queue_enqueue_many(queue, NULL, 0, NULL, NULL));
    CHECK_STATUS(FLOWMESH_ERR_TOO_LARGE, flowmesh_queue_enqueue_many(queue, &own, 10001, NULL, NULL));

    CHECK_NULL(flowmesh_queue_next(queue, 0, NULL));
    CHECK_NULL(flowmesh_queue_reserve(queue, -1, 0, NULL, 1, &count));
    CHECK(count == 0);
    CHECK_NULL(flowmesh_queue_reserve(queue, -1, 0, &j, 1, NULL));
    CHECK_INVALID(flowmesh_queue_reserve(queue, 0, 0, &j, 1, &count));
    CHECK_INVALID(flowmesh_queue_reserve(queue, 999, 0, &j, 1, &count));
    CHECK_INVALID(flowmesh_queue_reserve(queue, -2, 0, &j, 1, &count));
    CHECK_NULL(flowmesh_queue_reserve_start(queue, -1, 0, 1, NULL));
    CHECK_INVALID(flowmesh_queue_reserve_start(queue, -2, 0, 1, &r));
    CHECK_NULL(flowmesh_reservation_wait(reservation, 0, NULL, 1, &count));
    CHECK_NULL(flowmesh_reservation_wait(reservation, 0, &j, 1, NULL));
    CHECK_INVALID(flowmesh_reservation_wait(reservation, 0, &j, 0, &count));
    CHECK_INVALID(flowmesh_reservation_try(reservation, &done, &j, 0, &count));
    CHECK_NULL(flowmesh_reservation_try(reservation, NULL, &j, 1, &count));

    CHECK_NULL(flowmesh_job_ack(job, NULL, 1, NULL));
    j = job;
    CHECK_NULL(flowmesh_job_ack_and_reserve(job, NULL, 1, -1, &j, NULL));
    CHECK(j == NULL);
    CHECK_NULL(flowmesh_job_ack_and_reserve(job, NULL, 0, -1, NULL, NULL));
    CHECK_INVALID(flowmesh_job_ack_and_reserve(job, NULL, 0, 0, &j, NULL));
    CHECK_INVALID(flowmesh_job_ack_and_reserve(job, NULL, 0, 999, &j, NULL));
    CHECK_INVALID(flowmesh_job_ack_and_reserve(job, NULL, 0, -2, &j, NULL));
    CHECK_NULL(flowmesh_job_nack(job, NULL, NULL, -1, NULL));
    CHECK_INVALID(flowmesh_job_nack(job, "no", NULL, -2, NULL));
    CHECK_INVALID(flowmesh_job_nack(job, "\xff", NULL, -1, NULL));
    CHECK_NULL(flowmesh_job_reject(job, NULL, NULL, NULL));
    CHECK_INVALID(flowmesh_job_snooze(job, -1, NULL));
    CHECK_INVALID(flowmesh_job_extend(job, 0, NULL));
    CHECK_INVALID(flowmesh_job_extend(job, 43200001, NULL));
    CHECK_NULL(flowmesh_job_progress(job, NULL, 1));
    CHECK_NULL(flowmesh_job_ack_start(job, NULL, 1, &a));
    CHECK_NULL(flowmesh_job_ack_start(job, NULL, 0, NULL));
    CHECK_NULL(flowmesh_job_nack_start(job, NULL, NULL, -1, &a));
    CHECK_NULL(flowmesh_job_nack_start(job, "no", NULL, -1, NULL));
    CHECK_INVALID(flowmesh_job_nack_start(job, "no", NULL, -2, &a));
    CHECK_INVALID(flowmesh_job_nack_start(job, "no", "\xff", -1, &a));
    CHECK_NULL(flowmesh_job_reject_start(job, NULL, NULL, &a));
    CHECK_NULL(flowmesh_job_reject_start(job, "no", NULL, NULL));
    CHECK_NULL(flowmesh_job_release_start(job, NULL));
    CHECK_INVALID(flowmesh_job_snooze_start(job, -1, &a));
    CHECK_NULL(flowmesh_job_snooze_start(job, 0, NULL));
    CHECK_INVALID(flowmesh_job_extend_start(job, -2, &a));
    CHECK_NULL(flowmesh_job_extend_start(job, -1, NULL));
    CHECK_NULL(flowmesh_job_progress_start(job, NULL, 1, &a));
    CHECK_NULL(flowmesh_job_progress_start(job, "", 0, NULL));
    CHECK_NULL(flowmesh_job_answer_try(answer, NULL, NULL));
    CHECK_STATUS(FLOWMESH_ERR_UNSUPPORTED, flowmesh_job_set_result(job, "", 0));
    CHECK_NULL(flowmesh_job_set_result(job, NULL, 1));
    CHECK(flowmesh_job_header(job, NULL).data == NULL);
    CHECK_NULL(flowmesh_error_code());
    CHECK_STATUS(FLOWMESH_ERR_NOT_FOUND, flowmesh_job_header_at(job, 1000, NULL, NULL));
    CHECK_NULL(flowmesh_job_free_many(NULL, 1));
    CHECK_OK(flowmesh_job_free_many(NULL, 0));
    CHECK_NULL(flowmesh_queue_ack_many(queue, NULL, 1, NULL));
    CHECK_OK(flowmesh_queue_ack_many(queue, NULL, 0, NULL));
    CHECK(flowmesh_job_is_settled(job) == 0); /* nothing of it has settled the job */

    drops = 0;
    CHECK_NULL(flowmesh_worker_start(queue, NULL, NULL, &one, on_drop, &w));
    CHECK_NULL(flowmesh_worker_start(queue, NULL, on_job, &one, on_drop, NULL));
    flowmesh_worker_options work = FLOWMESH_WORKER_OPTIONS_INIT;
    work.concurrency = 0;
    CHECK_INVALID(flowmesh_worker_start(queue, &work, on_job, &one, on_drop, &w));
    work.concurrency = 1025;
    CHECK_INVALID(flowmesh_worker_start(queue, &work, on_job, &one, on_drop, &w));
    work.concurrency = 1, work.lease_ms = 0;
    CHECK_INVALID(flowmesh_worker_start(queue, &work, on_job, &one, on_drop, &w));
    CHECK(drops == 5 && w == NULL);
    CHECK_NULL(flowmesh_worker_get_stats(worker, NULL));
    CHECK_NULL(flowmesh_handler_reject(NULL));
    CHECK(flowmesh_handler_reject("no") == FLOWMESH_HANDLER_REJECT);
    CHECK_INVALID(flowmesh_handler_snooze(-1));
    CHECK(flowmesh_handler_snooze(5) == FLOWMESH_HANDLER_SNOOZE);

    CHECK_NULL(flowmesh_queue_cancel(queue, NULL, NULL, NULL));
    CHECK_INVALID(flowmesh_queue_cancel(queue, "x", NULL, NULL));
    CHECK_NULL(flowmesh_queue_redrive(queue, NULL, 1));
    CHECK_NULL(flowmesh_queue_redrive(queue, &none, 1));
    CHECK_STATUS(FLOWMESH_ERR_TOO_LARGE, flowmesh_queue_redrive(queue, &none, 1001));
    CHECK_NULL(flowmesh_queue_redrive_at(queue, 1, NULL));
    rate = (flowmesh_rate){0, 1, 1000};
    CHECK_INVALID(flowmesh_queue_redrive_at(queue, 1, &rate));
    CHECK_OK(flowmesh_queue_redrive_at(queue, 0, NULL));
    CHECK_INVALID(flowmesh_queue_purge(queue, 9, NULL));
    CHECK_INVALID(flowmesh_queue_purge(queue, -1, NULL));
    CHECK_INVALID(flowmesh_queue_purge(queue, FLOWMESH_JOB_LEASED, NULL));
    CHECK_NULL(flowmesh_queue_remove(queue, NULL));
    CHECK_INVALID(flowmesh_queue_remove(queue, "0191e2a0-0000-7000-8000-00000000000g"));
    CHECK_NULL(flowmesh_queue_list(queue, FLOWMESH_JOB_READY, NULL, 1, NULL));
    CHECK_INVALID(flowmesh_queue_list(queue, 9, NULL, 1, &l));
    CHECK_INVALID(flowmesh_queue_list(queue, FLOWMESH_JOB_READY, NULL, 0, &l));
    CHECK_INVALID(flowmesh_queue_list(queue, FLOWMESH_JOB_READY, NULL, SIZE_MAX, &l));
    cursor.state = 3;
    CHECK_INVALID(flowmesh_queue_list(queue, FLOWMESH_JOB_READY, &cursor, 1, &l));
    CHECK_NULL(flowmesh_queue_peek(queue, NULL, &l));
    CHECK_NULL(flowmesh_queue_peek(queue, receipt.id, NULL));
    CHECK_STATUS(FLOWMESH_ERR_NOT_FOUND, flowmesh_queue_peek(queue, "0191e2a0-0000-7000-8000-000000000001", &l));
    CHECK_NULL(flowmesh_queue_content(queue, receipt.id, NULL));
    CHECK_NULL(flowmesh_queue_result(queue, receipt.id, NULL));
    CHECK_NULL(flowmesh_job_list_get(jobs, 0, NULL));
    CHECK_STATUS(FLOWMESH_ERR_NOT_FOUND, flowmesh_job_list_failure(jobs, 0, 0, NULL)); /* there is none */
    CHECK_STATUS(FLOWMESH_ERR_NOT_FOUND, flowmesh_job_list_failure(jobs, 1, 0, NULL));
    CHECK(flowmesh_content_header(content, NULL).data == NULL);
    CHECK_STATUS(FLOWMESH_ERR_NOT_FOUND, flowmesh_content_header_at(content, 1000, NULL, NULL));
    CHECK_STATUS(FLOWMESH_ERR_NOT_FOUND, flowmesh_schedule_list_get(schedules, 1000, &schedule));
    CHECK_NULL(flowmesh_job_state_parse(NULL));
    CHECK_INVALID(flowmesh_job_state_parse("running"));
    CHECK(flowmesh_job_state_parse("retry_wait") == FLOWMESH_JOB_RETRY_WAIT);
    CHECK(strcmp(flowmesh_job_state_name(FLOWMESH_JOB_DEAD), "dead") == 0);
    CHECK(strcmp(flowmesh_job_state_name(99), "unknown") == 0);

    CHECK_NULL(flowmesh_queue_schedule(queue, NULL));
    CHECK_NULL(flowmesh_queue_schedule(queue, &schedule)); /* no name */
    schedule.name = "s";
    CHECK_NULL(flowmesh_queue_schedule(queue, &schedule)); /* no times */
    schedule.cron = "61 * * * *";
    CHECK_INVALID(flowmesh_queue_schedule(queue, &schedule));
    CHECK(strcmp(flowmesh_error_get("column"), "1") == 0);
    schedule.cron = "@daily", schedule.misfire = 3;
    CHECK_INVALID(flowmesh_queue_schedule(queue, &schedule));
    schedule.misfire = 0, schedule.overlap = -1;
    CHECK_INVALID(flowmesh_queue_schedule(queue, &schedule));
    schedule.overlap = 0, schedule.jitter_ms = -1;
    CHECK_INVALID(flowmesh_queue_schedule(queue, &schedule));
    schedule.jitter_ms = 0, schedule.options = &options;
    CHECK_INVALID(flowmesh_queue_schedule(queue, &schedule)); /* durability is the queue's */
    CHECK_NULL(flowmesh_queue_unschedule(queue, NULL));
    CHECK_NULL(flowmesh_queue_schedules(queue, NULL));

    CHECK_NULL(flowmesh_inspect(NULL, &i));
    CHECK_NULL(flowmesh_inspect(directory, NULL));
    CHECK_STATUS(FLOWMESH_ERR_NOT_FOUND, flowmesh_inspect("/nowhere/at/all", &i));
    CHECK_NULL(flowmesh_inspection_get(inspection, NULL));
}

/* What is over its limit is refused, and changes nothing; the message names both. */
static void queue_limits(void)
{
    enum { KEY = 1024, HEADERS = 256, HEADER_BYTES = 65536, NAME = 255, PAYLOAD = 8388608, PROGRESS = 4096 };
    static char payload[PAYLOAD + 1], text[HEADER_BYTES + 1];
    static flowmesh_header headers[HEADERS + 1];
    flowmesh_queue *q;
    flowmesh_job *j, *many[1001];
    flowmesh_job_answer *a;
    flowmesh_reservation *r;
    flowmesh_worker *w;
    flowmesh_enqueue_options job_options;
    flowmesh_worker_options worker_options = FLOWMESH_WORKER_OPTIONS_INIT;
    flowmesh_queue_stats before = FLOWMESH_QUEUE_STATS_INIT, after = FLOWMESH_QUEUE_STATS_INIT;
    size_t count;
    int one = 1;
    memset(text, 't', sizeof text - 1);
    for (size_t i = 0; i <= HEADERS; i++)
        headers[i] = (flowmesh_header){"h", ""};
    CHECK_OK(flowmesh_queue_get_stats(queue, &before));
#define TEXT_OF(size) (text + HEADER_BYTES - (size))
#define OVER(code, limit, call)                                       \
    do {                                                              \
        CHECK_STATUS(FLOWMESH_ERR_##code, call);                      \
        CHECK(strstr(flowmesh_error_message(), limit) != NULL);       \
    } while (0)
#define BIG_JOB(limit, field, value)                                                              \
    do {                                                                                          \
        job_options = (flowmesh_enqueue_options)FLOWMESH_ENQUEUE_OPTIONS_INIT;                    \
        job_options.field = value;                                                                \
        OVER(TOO_LARGE, limit, flowmesh_queue_enqueue(queue, "x", 1, &job_options, NULL));        \
        flowmesh_new_job big = {"x", 1, &job_options};                                            \
        OVER(TOO_LARGE, limit, flowmesh_queue_enqueue_many(queue, &big, 1, NULL, NULL));          \
    } while (0)
    OVER(INVALID_ARGUMENT, "255", flowmesh_queue_declare(mesh, TEXT_OF(NAME + 1), NULL, &q));
    CHECK_STATUS(FLOWMESH_ERR_NOT_FOUND, flowmesh_queue_open(mesh, TEXT_OF(NAME), &q));
    CHECK(q == NULL);
    BIG_JOB("1024", unique_key, TEXT_OF(KEY + 1));
    BIG_JOB("1024", group, TEXT_OF(KEY + 1));
    BIG_JOB("255", content_type, TEXT_OF(256));
    flowmesh_header large = {"h", TEXT_OF(HEADER_BYTES)};
    job_options = (flowmesh_enqueue_options)FLOWMESH_ENQUEUE_OPTIONS_INIT;
    job_options.headers = headers, job_options.header_count = HEADERS + 1;
    OVER(TOO_LARGE, "256", flowmesh_queue_enqueue(queue, "x", 1, &job_options, NULL));
    job_options.headers = &large, job_options.header_count = 1;
    OVER(TOO_LARGE, "65536", flowmesh_queue_enqueue(queue, "x", 1, &job_options, NULL));
    OVER(TOO_LARGE, "8388608", flowmesh_queue_enqueue(queue, payload, sizeof payload, NULL, NULL));
    flowmesh_new_job jobs_over[] = {{"x", 1, NULL}, {payload, sizeof payload, NULL}};
    OVER(TOO_LARGE, "8388608", flowmesh_queue_enqueue_many(queue, jobs_over, 2, NULL, NULL));
    job_options = (flowmesh_enqueue_options)FLOWMESH_ENQUEUE_OPTIONS_INIT;
    job_options.lease_ms = 43200001;
    OVER(INVALID_ARGUMENT, "43200s", flowmesh_queue_enqueue(queue, "x", 1, &job_options, NULL));

    OVER(INVALID_ARGUMENT, "43200s", flowmesh_queue_reserve(idle, 43200001, 0, &j, 1, &count));
    OVER(TOO_LARGE, "1000", flowmesh_queue_reserve(idle, -1, 0, many, 1001, &count));
    OVER(INVALID_ARGUMENT, "1 to 1000", flowmesh_queue_reserve(idle, -1, 0, &j, 0, &count));
    if (flowmesh_queue_reserve_start(idle, 43200001, 0, 1, &r) == FLOWMESH_OK) {
        CHECK_INVALID(flowmesh_reservation_wait(r, SOON_MS, &j, 1, &count));
        CHECK_OK(flowmesh_reservation_free(r));
    }
    CHECK_INVALID(flowmesh_error_code());
    worker_options.lease_ms = 43200001;
    drops = 0;
    OVER(INVALID_ARGUMENT, "43200s", flowmesh_worker_start(idle, &worker_options, on_job, &one, on_drop, &w));
    CHECK(drops == 1 && w == NULL);

    OVER(INVALID_ARGUMENT, "315360000s", flowmesh_job_nack(job, "no", NULL, 315360000001, NULL));
    OVER(INVALID_ARGUMENT, "315360000s", flowmesh_job_snooze(job, 315360000001, NULL));
    OVER(TOO_LARGE, "8388608", flowmesh_job_ack(job, payload, sizeof payload, NULL));
    OVER(TOO_LARGE, "4096", flowmesh_job_progress(job, payload, PROGRESS + 1));
    if (flowmesh_job_extend_start(job, 43200001, &a) == FLOWMESH_OK) {
        CHECK_INVALID(flowmesh_job_answer_wait(a, SOON_MS, NULL));
        CHECK_OK(flowmesh_job_answer_free(a));
    }
    CHECK_INVALID(flowmesh_error_code());
    CHECK(flowmesh_job_is_settled(job) == 0);

    /* At the limit it is taken. */
    job_options = (flowmesh_enqueue_options)FLOWMESH_ENQUEUE_OPTIONS_INIT;
    job_options.unique_key = job_options.group = TEXT_OF(KEY);
    job_options.content_type = TEXT_OF(255);
    job_options.headers = headers, job_options.header_count = HEADERS;
    job_options.lease_ms = 43200000;
    CHECK_OK(flowmesh_queue_declare(mesh, TEXT_OF(NAME), NULL, &q));
    CHECK_OK(flowmesh_queue_enqueue(q, payload, PAYLOAD, &job_options, NULL));
    CHECK_OK(flowmesh_queue_free(q));
    CHECK_OK(flowmesh_queue_get_stats(queue, &after));
    CHECK(after.total_enqueued == before.total_enqueued && after.leased == before.leased);
}

/* The INIT macros, the functions of the same meaning, and options that are not as they should be. */
static void options(const char *directory)
{
    flowmesh_mesh *opened;

#define INIT(type, macro)                                                              \
    do {                                                                               \
        type by_macro = macro, by_call;                                                \
        memset(&by_call, 0xff, sizeof by_call);                                        \
        CHECK_OK(type##_init(&by_call, sizeof by_call));                               \
        CHECK(memcmp(&by_macro, &by_call, sizeof by_call) == 0);                       \
        CHECK_NULL(type##_init(NULL, sizeof by_call));                                 \
        CHECK_INVALID(type##_init(&by_call, 3));                                       \
    } while (0)
    INIT(flowmesh_open_options, FLOWMESH_OPEN_OPTIONS_INIT);
    INIT(flowmesh_publish_options, FLOWMESH_PUBLISH_OPTIONS_INIT);
    INIT(flowmesh_subscribe_options, FLOWMESH_SUBSCRIBE_OPTIONS_INIT);
    INIT(flowmesh_call_options, FLOWMESH_CALL_OPTIONS_INIT);
    INIT(flowmesh_serve_options, FLOWMESH_SERVE_OPTIONS_INIT);
    INIT(flowmesh_queue_config, FLOWMESH_QUEUE_CONFIG_INIT);
    INIT(flowmesh_enqueue_options, FLOWMESH_ENQUEUE_OPTIONS_INIT);
    INIT(flowmesh_worker_options, FLOWMESH_WORKER_OPTIONS_INIT);

    struct {
        flowmesh_open_options known;
        uint64_t added;
    } newer = {FLOWMESH_OPEN_OPTIONS_INIT, 1};
    newer.known.struct_size = sizeof newer;
    CHECK_STATUS(FLOWMESH_ERR_UNSUPPORTED, flowmesh_open(directory, &newer.known, &opened));

#define BAD_OPTION(field, value)                                  \
    do {                                                          \
        flowmesh_open_options open = FLOWMESH_OPEN_OPTIONS_INIT;  \
        open.field = value;                                       \
        CHECK_INVALID(flowmesh_connect(directory, &open, &opened)); \
    } while (0)
    BAD_OPTION(wait, 9);
    BAD_OPTION(wait, FLOWMESH_WAIT_TIMED);
    BAD_OPTION(on_signal, 2);
    BAD_OPTION(shared_memory, 2);
    BAD_OPTION(breaker, -1);
    BAD_OPTION(wait_us, -1);
    BAD_OPTION(connect_timeout_ms, -1);
    BAD_OPTION(repair, 2);

    flowmesh_subscription *s;
    flowmesh_subscribe_options subscribe = FLOWMESH_SUBSCRIBE_OPTIONS_INIT;
    subscribe.on_slow = 3;
    CHECK_INVALID(flowmesh_subscribe(mesh, "a", &subscribe, &s));
    subscribe.on_slow = FLOWMESH_ON_SLOW_DROP_OLDEST;
    subscribe.dead_letter = "dead";
    CHECK_INVALID(flowmesh_subscribe(mesh, "a", &subscribe, &s));
    subscribe.dead_letter = NULL;
    subscribe.group = "no spaces";
    CHECK_INVALID(flowmesh_subscribe(mesh, "a", &subscribe, &s));
    subscribe.group = NULL;
    subscribe.capacity = SIZE_MAX;
    CHECK_INVALID(flowmesh_subscribe(mesh, "a", &subscribe, &s));
    CHECK(s == NULL);
}

static void about_codes(void)
{
    for (flowmesh_status code = FLOWMESH_ERR_BAD_HANDLE; code < 0; code++) {
        CHECK(strcmp(flowmesh_status_name(code), "UNKNOWN") != 0);
        CHECK(strlen(flowmesh_strerror(code)) > 3);
        CHECK(strlen(flowmesh_status_advice(code)) > 3);
    }
    CHECK(strcmp(flowmesh_status_name(FLOWMESH_OK), "OK") == 0);
    CHECK(strcmp(flowmesh_status_name(FLOWMESH_ERR_TOO_LARGE), "TOO_LARGE") == 0);
    CHECK(strcmp(flowmesh_status_name(1), "UNKNOWN") == 0);
    CHECK(strcmp(flowmesh_status_name(INT32_MIN), "UNKNOWN") == 0);
    CHECK(flowmesh_status_is_retryable(FLOWMESH_ERR_TIMEOUT) == 1);
    CHECK(flowmesh_status_is_retryable(FLOWMESH_ERR_CLOSED) == 0);
    CHECK(flowmesh_status_is_retryable(FLOWMESH_OK) == 0);
    CHECK_OK(flowmesh_check_abi(FLOWMESH_VERSION_NUMBER));
    CHECK_STATUS(FLOWMESH_ERR_VERSION_MISMATCH, flowmesh_check_abi(FLOWMESH_VERSION_NUMBER + 1000));
    CHECK(flowmesh_version_number() == FLOWMESH_VERSION_NUMBER);
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", FLOWMESH_VERSION_MAJOR, FLOWMESH_VERSION_MINOR,
             FLOWMESH_VERSION_PATCH);
    CHECK(strcmp(version, flowmesh_version()) == 0);

    /* The buffer's address never changes, so the order of evaluation does not matter. */
    const char *before = flowmesh_error_message();
    CHECK_NULL(flowmesh_mesh_close(NULL));
    CHECK(before == flowmesh_error_message());
    CHECK(strstr(before, "flowmesh_mesh_close") != NULL);
    flowmesh_error_clear();
    CHECK(before[0] == '\0' && flowmesh_error_code() == FLOWMESH_OK);
}

#define CHECK_CLOSED(call) CHECK_STATUS(FLOWMESH_ERR_CLOSED, call)

static void closed_queues(void)
{
    flowmesh_queue *q;
    flowmesh_job *j;
    flowmesh_job_answer *a;
    flowmesh_worker *w;
    flowmesh_job_list *l;
    flowmesh_queue_stats stats = FLOWMESH_QUEUE_STATS_INIT;
    size_t count;
    int one = 1;
    CHECK_CLOSED(flowmesh_queue_declare(mesh, "q", NULL, &q));
    CHECK_CLOSED(flowmesh_queue_enqueue(queue, "", 0, NULL, NULL));
    CHECK_CLOSED(flowmesh_queue_next(queue, -1, &j));
    CHECK_CLOSED(flowmesh_reservation_wait(reservation, -1, &j, 1, &count));
    CHECK_CLOSED(flowmesh_queue_get_stats(queue, &stats));
    CHECK_CLOSED(flowmesh_queue_list(queue, FLOWMESH_JOB_READY, NULL, 1, &l));
    CHECK(flowmesh_job_is_cancelled(job) == 1);
    CHECK_CLOSED(flowmesh_job_ack(job, NULL, 0, NULL));
    CHECK_CLOSED(flowmesh_job_ack_start(job, NULL, 0, &a));
    CHECK_CLOSED(flowmesh_job_extend_start(job, -1, &a));
    CHECK(a == NULL && flowmesh_job_is_settled(job) == 0);
    CHECK_OK(flowmesh_job_answer_wait(answer, -1, NULL)); /* it was there before */
    CHECK_CLOSED(flowmesh_job_answer_wait(answer, -1, NULL));
    drops = 0;
    CHECK_CLOSED(flowmesh_worker_start(queue, NULL, on_job, &one, on_drop, &w));
    CHECK(drops == 1);
    CHECK_OK(flowmesh_worker_stop(worker, -1));
    CHECK(flowmesh_worker_is_running(worker) == 0);
}

static void closed(void)
{
    flowmesh_message *m;
    flowmesh_subscription *s;
    flowmesh_service *v;
    flowmesh_request *q;
    flowmesh_pending *p;
    flowmesh_instance_list *l;
    flowmesh_snapshot *n;
    char *json;
    size_t count;
    int one = 1;

    CHECK_OK(flowmesh_subscription_close(subscription));
    CHECK_OK(flowmesh_subscription_close(subscription));
    CHECK(flowmesh_subscription_is_closed(subscription) == 1);
    CHECK_CLOSED(flowmesh_subscription_receive(subscription, -1, &m));
    CHECK_CLOSED(flowmesh_subscription_receive_many(subscription, -1, &m, 1, &count));
    CHECK(m == NULL && count == 0);
    CHECK_OK(flowmesh_service_close(service));
    CHECK_OK(flowmesh_service_close(service));
    CHECK(flowmesh_service_is_closed(service) == 1);
    CHECK_CLOSED(flowmesh_service_next(service, -1, &q));

    CHECK(flowmesh_mesh_is_closed(mesh) == 0);
    CHECK_OK(flowmesh_mesh_close(mesh));
    CHECK_OK(flowmesh_mesh_close(mesh));
    CHECK(flowmesh_mesh_is_closed(mesh) == 1);
    CHECK_CLOSED(flowmesh_publish(mesh, "a", "", 0, NULL, NULL));
    flowmesh_event event = {"a", "", 0};
    CHECK_CLOSED(flowmesh_publish_many(mesh, &event, 1, NULL));
    CHECK_CLOSED(flowmesh_subscribe(mesh, "a", NULL, &s));
    drops = 0;
    CHECK_CLOSED(flowmesh_on(mesh, "a", NULL, on_event, &one, on_drop, &s));
    CHECK_CLOSED(flowmesh_serve(mesh, "a", NULL, on_request, &one, on_drop, &v));
    CHECK(drops == 2);
    CHECK_CLOSED(flowmesh_service_open(mesh, "a", NULL, &v));
    CHECK_CLOSED(flowmesh_call(mesh, "a", "", 0, NULL, &m));
    CHECK_CLOSED(flowmesh_call_start(mesh, "a", "", 0, NULL, &p));
    CHECK_CLOSED(flowmesh_services(mesh, &l));
    CHECK_CLOSED(flowmesh_stats(mesh, &n));
    CHECK_CLOSED(flowmesh_stats_json(mesh, &json));
    CHECK_CLOSED(flowmesh_listen_tcp(mesh, "127.0.0.1:0", "0123456789abcdef", 16, NULL, 0));
    CHECK_CLOSED(flowmesh_request_reply(request, "", 0, NULL, 0));
    closed_queues();
}

/* One handle of each type. */
static void make(void)
{
    CHECK_OK(flowmesh_subscribe(mesh, "made", NULL, &subscription));
    CHECK_OK(flowmesh_publish(mesh, "made", "x", 1, NULL, NULL));
    CHECK_OK(flowmesh_subscription_receive(subscription, SOON_MS, &message));
    CHECK_OK(flowmesh_service_open(mesh, "made", NULL, &service));
    CHECK_OK(flowmesh_call_start(mesh, "made", "x", 1, NULL, &pending));
    CHECK_OK(flowmesh_service_next(service, SOON_MS, &request));
    CHECK_OK(flowmesh_services(mesh, &list));
    CHECK_OK(flowmesh_stats(mesh, &snapshot));
    CHECK_OK(flowmesh_queue_declare(mesh, "made", NULL, &queue));
    CHECK_OK(flowmesh_queue_declare(mesh, "idle", NULL, &idle));
    CHECK_OK(flowmesh_queue_enqueue(queue, "x", 1, NULL, &receipt));
    CHECK_OK(flowmesh_queue_next(queue, SOON_MS, &job));
    CHECK_OK(flowmesh_job_progress_start(job, "x", 1, &answer));
    CHECK(readable(flowmesh_job_answer_fd(answer), SOON_MS));
    CHECK_OK(flowmesh_queue_reserve_start(idle, -1, -1, 1, &reservation));
    CHECK_OK(flowmesh_worker_start(idle, NULL, on_job, NULL, NULL, &worker));
    CHECK_OK(flowmesh_queues(mesh, &names));
    CHECK_OK(flowmesh_queue_get_settings(queue, &settings));
    CHECK_OK(flowmesh_queue_peek(queue, receipt.id, &jobs));
    CHECK_OK(flowmesh_queue_content(queue, receipt.id, &content));
    CHECK_OK(flowmesh_queue_schedules(queue, &schedules));
    CHECK_OK(flowmesh_inspect(check_directory, &inspection));
}

static void free_all(void)
{
    CHECK_OK(flowmesh_message_free(message));
    CHECK_OK(flowmesh_request_free(request));
    CHECK_OK(flowmesh_pending_free(pending));
    CHECK_OK(flowmesh_instance_list_free(list));
    CHECK_OK(flowmesh_snapshot_free(snapshot));
    CHECK_OK(flowmesh_service_free(service));
    CHECK_OK(flowmesh_subscription_free(subscription));
    CHECK_OK(flowmesh_worker_free(worker));
    CHECK_OK(flowmesh_reservation_free(reservation));
    CHECK_OK(flowmesh_job_answer_free(answer));
    CHECK_OK(flowmesh_job_free(job));
    CHECK_OK(flowmesh_queue_free(idle));
    CHECK_OK(flowmesh_queue_free(queue));
    CHECK_OK(flowmesh_name_list_free(names));
    CHECK_OK(flowmesh_queue_settings_free(settings));
    CHECK_OK(flowmesh_job_list_free(jobs));
    CHECK_OK(flowmesh_content_free(content));
    CHECK_OK(flowmesh_schedule_list_free(schedules));
    CHECK_OK(flowmesh_inspection_free(inspection));
}

int main(void)
{
    const char *directory = check_start();
    CHECK_OK(flowmesh_open(directory, NULL, &mesh));
    make();
    freed_message = message, freed_request = request, freed_pending = pending, freed_list = list;
    freed_snapshot = snapshot, freed_service = service, freed_subscription = subscription;
    freed_queue = queue, freed_job = job, freed_answer = answer, freed_reservation = reservation, freed_worker = worker;
    freed_names = names, freed_settings = settings, freed_jobs = jobs, freed_content = content;
    freed_schedules = schedules, freed_inspection = inspection;
    CHECK_OK(flowmesh_job_ack(job, NULL, 0, NULL));
    free_all();
    CHECK_OK(flowmesh_connect(directory, NULL, &freed_mesh));
    CHECK_OK(flowmesh_mesh_free(freed_mesh));
    make();

    about_codes();
    bad_handles();
    bad_queue_handles();
    null_arguments(directory);
    null_queue_arguments(directory);
    queue_limits();
    options(directory);
    closed();

    /* Children outlive the mesh, and are freed in any order. */
    CHECK_OK(flowmesh_mesh_free(mesh));
    free_all();
    return check_end("arguments");
}
