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

static void closed(void)
{
#define CHECK_CLOSED(call) CHECK_STATUS(FLOWMESH_ERR_CLOSED, call)
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
}

int main(void)
{
    const char *directory = check_start();
    CHECK_OK(flowmesh_open(directory, NULL, &mesh));
    make();
    freed_message = message, freed_request = request, freed_pending = pending, freed_list = list;
    freed_snapshot = snapshot, freed_service = service, freed_subscription = subscription;
    free_all();
    CHECK_OK(flowmesh_connect(directory, NULL, &freed_mesh));
    CHECK_OK(flowmesh_mesh_free(freed_mesh));
    make();

    about_codes();
    bad_handles();
    null_arguments(directory);
    options(directory);
    closed();

    /* Children outlive the mesh, and are freed in any order. */
    CHECK_OK(flowmesh_mesh_free(mesh));
    free_all();
    return check_end("arguments");
}
