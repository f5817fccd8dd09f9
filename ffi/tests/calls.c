/* Calling and serving, in every form. */
#include "check.h"

static flowmesh_mesh *host, *client;

struct served {
    pthread_mutex_t lock;
    int calls, running, running_max, dropped;
};

static struct served served = {PTHREAD_MUTEX_INITIALIZER, 0, 0, 0, 0};

static void count(int by)
{
    pthread_mutex_lock(&served.lock);
    served.calls += by > 0;
    served.running += by;
    if (served.running > served.running_max)
        served.running_max = served.running;
    pthread_mutex_unlock(&served.lock);
}

/* What the payload says, it does. */
static flowmesh_status answer(void *context, flowmesh_request *request)
{
    CHECK(context == &served);
    flowmesh_bytes payload = flowmesh_request_payload(request);
    const char *text = payload.size > 0 ? payload.data : "";
    count(1);
    flowmesh_status status = FLOWMESH_OK;
    flowmesh_header header = {"content-type", "text/plain"};
    if (payload.size == 4 && memcmp(text, "fail", 4) == 0) {
        status = flowmesh_handler_error("ParseError", "no number in it");
    } else if (payload.size == 4 && memcmp(text, "code", 4) == 0) {
        status = FLOWMESH_ERR_NOT_FOUND;
    } else if (payload.size == 4 && memcmp(text, "odd!", 4) == 0) {
        status = 7;
    } else if (payload.size == 4 && memcmp(text, "soft", 4) == 0) {
        CHECK_OK(flowmesh_request_fail(request, "Soft", "through the request"));
        CHECK_STATUS(FLOWMESH_ERR_CLOSED, flowmesh_request_reply(request, "x", 1, NULL, 0));
    } else if (payload.size == 4 && memcmp(text, "wait", 4) == 0) {
        while (flowmesh_request_is_cancelled(request) == 0)
            sleep_ms(1);
        CHECK(flowmesh_request_is_cancelled(request) == 1);
    } else if (payload.size == 4 && memcmp(text, "free", 4) == 0) {
        CHECK_OK(flowmesh_request_reply(request, "freed", 5, NULL, 0));
        CHECK_OK(flowmesh_request_free(request));
    } else if (payload.size > 0) {
        const flowmesh_message *message = flowmesh_request_message(request);
        CHECK_TEXT("text.echo", flowmesh_message_subject(message));
        CHECK(flowmesh_request_message(request) == message);
        int64_t remaining = flowmesh_request_remaining_ms(request);
        CHECK(remaining > 0 && remaining <= 30000);
        flowmesh_text tag = flowmesh_message_header(message, "tag");
        flowmesh_header headers[] = {header, {"tag", tag.data == NULL ? "none" : tag.data}};
        CHECK_OK(flowmesh_request_reply(request, payload.data, payload.size, headers, 2));
        CHECK_STATUS(FLOWMESH_ERR_CLOSED, flowmesh_request_reply(request, "x", 1, NULL, 0));
    }
    count(-1);
    return status;
}

static void drop(void *context)
{
    pthread_mutex_lock(&served.lock);
    ((struct served *)context)->dropped++;
    pthread_mutex_unlock(&served.lock);
}

static flowmesh_status call(const char *payload, flowmesh_message **reply)
{
    return flowmesh_call(client, "text.echo", payload, strlen(payload), NULL, reply);
}

static void a_handler_answers(void)
{
    flowmesh_message *reply;
    CHECK_OK(call("hello", &reply));
    CHECK_BYTES("hello", flowmesh_message_payload(reply));
    CHECK_TEXT("text/plain", flowmesh_message_content_type(reply));
    CHECK_TEXT("none", flowmesh_message_header(reply, "tag"));
    CHECK_OK(flowmesh_message_free(reply));

    flowmesh_header tag = {"tag", "blue"};
    flowmesh_call_options options = FLOWMESH_CALL_OPTIONS_INIT;
    options.headers = &tag;
    options.header_count = 1;
    CHECK_OK(flowmesh_call(host, "text.echo", "x", 1, &options, &reply));
    CHECK_TEXT("blue", flowmesh_message_header(reply, "tag"));
    CHECK_OK(flowmesh_message_free(reply));

    CHECK_OK(call("", &reply)); /* nothing said, nothing replied */
    CHECK_BYTES("", flowmesh_message_payload(reply));
    CHECK_OK(flowmesh_message_free(reply));
    CHECK_OK(call("free", &reply));
    CHECK_BYTES("freed", flowmesh_message_payload(reply));
    CHECK_OK(flowmesh_message_free(reply));
}

static void a_failure_reaches_the_caller(void)
{
    static const struct {
        const char *payload, *type, *message;
    } cases[] = {
        {"fail", "ParseError", "no number in it"},
        {"soft", "Soft", "through the request"},
        {"code", "NotFound", "it does not exist"},
        {"odd!", "Status", "the handler returned 7"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        flowmesh_message *reply;
        CHECK_STATUS(FLOWMESH_ERR_HANDLER_FAILED, call(cases[i].payload, &reply));
        CHECK(reply == NULL);
        CHECK(strcmp(flowmesh_error_get("type"), cases[i].type) == 0);
        CHECK(strcmp(flowmesh_error_get("message"), cases[i].message) == 0);
        CHECK(strcmp(flowmesh_error_get("service"), "text.echo") == 0);
    }
}

static void deadlines_and_absence_are_told_apart(void)
{
    flowmesh_message *reply;
    flowmesh_call_options options = FLOWMESH_CALL_OPTIONS_INIT;
    options.timeout_ms = 50;
    CHECK_STATUS(FLOWMESH_ERR_TIMEOUT, flowmesh_call(client, "text.echo", "wait", 4, &options, &reply));
    CHECK_STATUS(FLOWMESH_ERR_NO_SERVICE, flowmesh_call(client, "text.none", "", 0, NULL, &reply));
    CHECK_STATUS(FLOWMESH_ERR_INVALID_ARGUMENT, flowmesh_call(client, "text none", "", 0, NULL, &reply));
}

static void pending_calls(void)
{
    flowmesh_pending *pending;
    flowmesh_message *reply;
    int32_t done;
    CHECK_OK(flowmesh_call_start(client, "text.echo", "later", 5, NULL, &pending));
    int fd = flowmesh_pending_fd(pending);
    CHECK(fd >= 0 && readable(fd, SOON_MS));
    CHECK_OK(flowmesh_pending_try(pending, &done, &reply));
    CHECK(done == 1);
    CHECK_BYTES("later", flowmesh_message_payload(reply));
    CHECK_OK(flowmesh_message_free(reply));
    CHECK_STATUS(FLOWMESH_ERR_CLOSED, flowmesh_pending_wait(pending, -1, &reply));
    CHECK_STATUS(FLOWMESH_ERR_CLOSED, flowmesh_pending_try(pending, &done, &reply));
    CHECK_OK(flowmesh_pending_free(pending));

    CHECK_OK(flowmesh_call_start(client, "text.echo", "wait", 4, NULL, &pending));
    CHECK_OK(flowmesh_pending_try(pending, &done, &reply));
    CHECK(done == 0 && reply == NULL);
    CHECK_STATUS(FLOWMESH_ERR_TIMEOUT, flowmesh_pending_wait(pending, 20, &reply));
    CHECK(!readable(flowmesh_pending_fd(pending), 0));
    CHECK_OK(flowmesh_pending_cancel(pending));
    CHECK(readable(flowmesh_pending_fd(pending), SOON_MS));
    CHECK_STATUS(FLOWMESH_ERR_CANCELLED, flowmesh_pending_wait(pending, -1, &reply));
    CHECK_OK(flowmesh_pending_cancel(pending));
    CHECK_OK(flowmesh_pending_free(pending));

    /* Freeing cancels. */
    CHECK_OK(flowmesh_call_start(client, "text.echo", "wait", 4, NULL, &pending));
    CHECK_OK(flowmesh_pending_free(pending));
    CHECK_OK(flowmesh_call_start(client, "text.none", "", 0, NULL, &pending));
    CHECK_STATUS(FLOWMESH_ERR_NO_SERVICE, flowmesh_pending_wait(pending, SOON_MS, &reply));
    CHECK_OK(flowmesh_pending_free(pending));
}

static void handlers_run_side_by_side(void)
{
    flowmesh_pending *pending[3];
    served.running_max = 0;
    for (int i = 0; i < 3; i++)
        CHECK_OK(flowmesh_call_start(client, "text.echo", "wait", 4, NULL, &pending[i]));
    for (int most = 0; most < 3; sleep_ms(1)) {
        pthread_mutex_lock(&served.lock);
        most = served.running_max;
        pthread_mutex_unlock(&served.lock);
    }
    for (int i = 0; i < 3; i++)
        CHECK_OK(flowmesh_pending_free(pending[i]));
}

static void the_pull_form(void)
{
    flowmesh_service *service;
    flowmesh_request *request;
    flowmesh_pending *pending;
    flowmesh_message *reply;
    flowmesh_serve_options options = FLOWMESH_SERVE_OPTIONS_INIT;
    options.version = "2.1";
    options.concurrency = 4;
    CHECK_OK(flowmesh_service_open(client, "pulled", &options, &service));
    CHECK_TEXT("pulled", flowmesh_service_name(service));
    CHECK_STATUS(FLOWMESH_ERR_TIMEOUT, flowmesh_service_next(service, 0, &request));
    int fd = flowmesh_service_fd(service);
    CHECK(fd >= 0 && !readable(fd, 0));

    /* Answered. */
    CHECK_OK(flowmesh_call_start(host, "pulled", "one", 3, NULL, &pending));
    CHECK(readable(fd, SOON_MS));
    CHECK_OK(flowmesh_service_next(service, SOON_MS, &request));
    CHECK_BYTES("one", flowmesh_request_payload(request));
    CHECK(flowmesh_request_is_cancelled(request) == 0);
    flowmesh_header header = {"n", "1"};
    CHECK_OK(flowmesh_request_reply(request, "1", 1, &header, 1));
    CHECK_STATUS(FLOWMESH_ERR_CLOSED, flowmesh_request_reply(request, "2", 1, NULL, 0));
    CHECK_STATUS(FLOWMESH_ERR_CLOSED, flowmesh_request_fail(request, "T", "why"));
    CHECK_BYTES("one", flowmesh_request_payload(request)); /* lent until it is freed */
    CHECK(flowmesh_request_remaining_ms(request) == 0 && flowmesh_request_is_cancelled(request) == 0);
    CHECK_OK(flowmesh_request_free(request));
    CHECK_OK(flowmesh_pending_wait(pending, SOON_MS, &reply));
    CHECK_BYTES("1", flowmesh_message_payload(reply));
    CHECK_TEXT("1", flowmesh_message_header(reply, "n"));
    CHECK_OK(flowmesh_message_free(reply));
    CHECK_OK(flowmesh_pending_free(pending));

    /* Failed. */
    CHECK_OK(flowmesh_call_start(host, "pulled", "two", 3, NULL, &pending));
    CHECK_OK(flowmesh_service_next(service, SOON_MS, &request));
    CHECK_OK(flowmesh_request_fail(request, "Two", "is too many"));
    CHECK_OK(flowmesh_request_free(request));
    CHECK_STATUS(FLOWMESH_ERR_HANDLER_FAILED, flowmesh_pending_wait(pending, SOON_MS, &reply));
    CHECK(strcmp(flowmesh_error_get("type"), "Two") == 0);
    CHECK_OK(flowmesh_pending_free(pending));

    /* Dropped. */
    CHECK_OK(flowmesh_call_start(host, "pulled", "three", 5, NULL, &pending));
    CHECK_OK(flowmesh_service_next(service, SOON_MS, &request));
    CHECK_OK(flowmesh_request_free(request));
    CHECK_STATUS(FLOWMESH_ERR_HANDLER_FAILED, flowmesh_pending_wait(pending, SOON_MS, &reply));
    CHECK(strcmp(flowmesh_error_get("type"), "Dropped") == 0);
    CHECK_OK(flowmesh_pending_free(pending));

    /* Cancelled by its caller. */
    CHECK_OK(flowmesh_call_start(host, "pulled", "four", 4, NULL, &pending));
    CHECK_OK(flowmesh_service_next(service, SOON_MS, &request));
    CHECK_OK(flowmesh_pending_free(pending));
    while (flowmesh_request_is_cancelled(request) == 0)
        sleep_ms(1);
    CHECK_OK(flowmesh_request_reply(request, "4", 1, NULL, 0)); /* goes nowhere */
    CHECK_OK(flowmesh_request_free(request));

    /* A request outlives its service. */
    CHECK_OK(flowmesh_call_start(host, "pulled", "five", 4, NULL, &pending));
    CHECK_OK(flowmesh_service_next(service, SOON_MS, &request));
    CHECK_OK(flowmesh_service_free(service));
    CHECK_OK(flowmesh_request_reply(request, "5", 1, NULL, 0));
    CHECK_OK(flowmesh_request_free(request));
    CHECK_OK(flowmesh_pending_wait(pending, SOON_MS, &reply));
    CHECK_OK(flowmesh_message_free(reply));
    CHECK_OK(flowmesh_pending_free(pending));
}

static void a_rate_limit_says_when_to_come_back(void)
{
    flowmesh_service *service;
    flowmesh_message *reply;
    flowmesh_serve_options options = FLOWMESH_SERVE_OPTIONS_INIT;
    options.rate_per_second = 0.01;
    options.rate_burst = 1;
    CHECK_OK(flowmesh_serve(host, "text.rare", &options, answer, &served, drop, &service));
    CHECK_OK(flowmesh_call(client, "text.rare", "", 0, NULL, &reply));
    CHECK_OK(flowmesh_message_free(reply));
    CHECK_STATUS(FLOWMESH_ERR_RATE_LIMITED, flowmesh_call(client, "text.rare", "", 0, NULL, &reply));
    const char *retry_after_ms = flowmesh_error_get("retry_after_ms");
    CHECK(retry_after_ms != NULL && atol(retry_after_ms) > 1000);
    CHECK_OK(flowmesh_service_free(service));
}

int main(void)
{
    const char *directory = check_start();
    flowmesh_service *service;
    flowmesh_open_options open = FLOWMESH_OPEN_OPTIONS_INIT;
    open.breaker = 0; /* calls fail on purpose here */
    CHECK_OK(flowmesh_open(directory, &open, &host));
    CHECK_OK(flowmesh_connect(directory, &open, &client));
    flowmesh_serve_options options = FLOWMESH_SERVE_OPTIONS_INIT;
    options.concurrency = 3;
    CHECK_OK(flowmesh_serve(host, "text.echo", &options, answer, &served, drop, &service));

    a_handler_answers();
    a_failure_reaches_the_caller();
    deadlines_and_absence_are_told_apart();
    pending_calls();
    handlers_run_side_by_side();
    the_pull_form();
    a_rate_limit_says_when_to_come_back();

    CHECK_OK(flowmesh_service_free(service));
    CHECK_OK(flowmesh_mesh_free(client));
    CHECK_OK(flowmesh_mesh_free(host));
    /* Both contexts are tidied up, once, when the last handler has returned. */
    for (int dropped = 0; dropped < 2; sleep_ms(1)) {
        pthread_mutex_lock(&served.lock);
        dropped = served.dropped;
        pthread_mutex_unlock(&served.lock);
    }
    CHECK(served.dropped == 2 && served.running == 0);
    return check_end("calls");
}
