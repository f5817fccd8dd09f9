/* Host and client as two processes, forked children, and what the statistics say of it. */
#include "check.h"

static const char *directory;

static flowmesh_status add(void *context, flowmesh_request *request)
{
    flowmesh_bytes payload = flowmesh_request_payload(request);
    char text[32];
    if (payload.size == 0 || payload.size >= sizeof text)
        return flowmesh_handler_error("RangeError", "1 to 31 bytes");
    memcpy(text, payload.data, payload.size);
    text[payload.size] = '\0';
    if (strcmp(text, "die") == 0)
        _exit(3);
    snprintf(text, sizeof text, "%d", atoi(text) + *(int *)context);
    return flowmesh_request_reply(request, text, strlen(text), NULL, 0);
}

static flowmesh_status on_event(void *context, const flowmesh_message *message)
{
    (void)context, (void)message;
    return FLOWMESH_OK;
}

/* Serves and tells, until the host goes. */
static int client_process(void *argument)
{
    (void)argument;
    flowmesh_mesh *mesh;
    flowmesh_service *service;
    flowmesh_subscription *from;
    flowmesh_message *message;
    flowmesh_open_options options = FLOWMESH_OPEN_OPTIONS_INIT;
    int ten = 10;
    size_t inherited = flowmesh_handle_count();
    options.name = "adder";
    CHECK_OK(flowmesh_connect(directory, &options, &mesh));
    CHECK(flowmesh_mesh_role(mesh) == FLOWMESH_ROLE_CLIENT);
    CHECK(flowmesh_mesh_session(mesh) > 0);
    CHECK(flowmesh_mesh_host_pid(mesh) == (uint32_t)getppid());
    CHECK_OK(flowmesh_subscribe(mesh, "never", NULL, &from));
    flowmesh_serve_options serve = FLOWMESH_SERVE_OPTIONS_INIT;
    serve.version = "1.2";
    CHECK_OK(flowmesh_serve(mesh, "calc.add", &serve, add, &ten, NULL, &service));
    CHECK_OK(flowmesh_publish(mesh, "client.ready", "", 0, NULL, NULL));
    CHECK_STATUS(FLOWMESH_ERR_DISCONNECTED, flowmesh_subscription_receive(from, -1, &message));
    CHECK(flowmesh_status_is_retryable(FLOWMESH_ERR_DISCONNECTED) == 1);
    CHECK_STATUS(FLOWMESH_ERR_DISCONNECTED, flowmesh_publish(mesh, "a", "", 0, NULL, NULL));
    CHECK(flowmesh_mesh_is_closed(mesh) == 1);
    CHECK_OK(flowmesh_subscription_free(from));
    CHECK_OK(flowmesh_service_free(service));
    CHECK_OK(flowmesh_mesh_free(mesh));
    CHECK(flowmesh_handle_count() == inherited);
    return 0;
}

static void discovery_and_statistics(flowmesh_mesh *host)
{
    flowmesh_instance_list *list;
    flowmesh_instance instance = FLOWMESH_INSTANCE_INIT;
    CHECK_OK(flowmesh_services(host, &list));
    CHECK(flowmesh_instance_list_count(list) == 1);
    CHECK_OK(flowmesh_instance_list_get(list, 0, &instance));
    CHECK(strcmp(instance.service, "calc.add") == 0 && strcmp(instance.version, "1.2") == 0);
    CHECK(strcmp(instance.client, "adder") == 0 && instance.session > 0 && instance.pid != (uint32_t)getpid());
    CHECK(instance.struct_size == sizeof instance && instance.concurrency == 1);
    /* A program with an older header asks for less. */
    flowmesh_instance older = FLOWMESH_INSTANCE_INIT;
    older.struct_size = offsetof(flowmesh_instance, instance);
    older.instance = 77;
    CHECK_OK(flowmesh_instance_list_get(list, 0, &older));
    CHECK(older.instance == 77 && strcmp(older.client, "adder") == 0);
    CHECK_OK(flowmesh_instance_list_free(list));

    flowmesh_snapshot *snapshot;
    flowmesh_totals totals = FLOWMESH_TOTALS_INIT;
    flowmesh_service_stats service = FLOWMESH_SERVICE_STATS_INIT;
    flowmesh_session_stats session = FLOWMESH_SESSION_STATS_INIT;
    flowmesh_subscription_stats subscription = FLOWMESH_SUBSCRIPTION_STATS_INIT;
    CHECK_OK(flowmesh_stats(host, &snapshot));
    CHECK_OK(flowmesh_snapshot_totals(snapshot, &totals));
    CHECK(totals.published >= 1 && totals.delivered >= 1);
    CHECK(flowmesh_snapshot_service_count(snapshot) == 1);
    CHECK_OK(flowmesh_snapshot_service(snapshot, 0, &service));
    CHECK(strcmp(service.name, "calc.add") == 0 && service.calls == 2 && service.failed == 1);
    CHECK(service.instances == 1 && service.latency_count >= 1 && service.latency_max_ns > 0);
    CHECK(service.latency_p50_ns <= service.latency_max_ns);
    CHECK(flowmesh_snapshot_session_count(snapshot) == 1);
    CHECK_OK(flowmesh_snapshot_session(snapshot, 0, &session));
    CHECK(strcmp(session.name, "adder") == 0 && strcmp(session.language, "c") == 0);
    CHECK(strcmp(session.transport, "shm") == 0 && strcmp(session.version, flowmesh_version()) == 0);
    CHECK(session.pid == instance.pid && session.frames_in > 0);
    CHECK(flowmesh_snapshot_subscription_count(snapshot) == 2);
    int seen = 0;
    for (size_t i = 0; i < 2; i++) {
        CHECK_OK(flowmesh_snapshot_subscription(snapshot, i, &subscription));
        seen |= strcmp(subscription.pattern, "never") == 0 ? 1 : 0;
        seen |= strcmp(subscription.pattern, "client.ready") == 0 ? 2 : 0;
    }
    CHECK(seen == 3);
    CHECK_OK(flowmesh_snapshot_free(snapshot));

    char *json;
    CHECK_OK(flowmesh_stats_json(host, &json));
    CHECK(json[0] == '{' && strstr(json, "\"calc.add\"") != NULL && strstr(json, "\"uptime_ms\"") != NULL);
    CHECK_OK(flowmesh_string_free(json));
}

static void two_processes(void)
{
    flowmesh_mesh *host;
    flowmesh_subscription *ready;
    flowmesh_message *message;
    CHECK_OK(flowmesh_open(directory, NULL, &host));
    CHECK_OK(flowmesh_subscribe(host, "client.ready", NULL, &ready));
    pid_t child = spawn(client_process, NULL);
    CHECK_OK(flowmesh_subscription_receive(ready, SOON_MS, &message));
    CHECK_OK(flowmesh_message_free(message));

    CHECK_OK(flowmesh_call(host, "calc.add", "32", 2, NULL, &message));
    CHECK_BYTES("42", flowmesh_message_payload(message));
    CHECK_OK(flowmesh_message_free(message));
    CHECK_STATUS(FLOWMESH_ERR_HANDLER_FAILED, flowmesh_call(host, "calc.add", "", 0, NULL, &message));
    CHECK(strcmp(flowmesh_error_get("type"), "RangeError") == 0);
    discovery_and_statistics(host);

    CHECK_OK(flowmesh_subscription_free(ready));
    CHECK_OK(flowmesh_mesh_free(host));
    CHECK(exit_status(child) == 0);
}

static void a_dead_instance_is_peer_gone(void)
{
    flowmesh_mesh *host;
    flowmesh_subscription *ready;
    flowmesh_message *message;
    CHECK_OK(flowmesh_open(directory, NULL, &host));
    CHECK_OK(flowmesh_subscribe(host, "client.ready", NULL, &ready));
    pid_t child = spawn(client_process, NULL);
    CHECK_OK(flowmesh_subscription_receive(ready, SOON_MS, &message));
    CHECK_OK(flowmesh_message_free(message));
    CHECK_STATUS(FLOWMESH_ERR_PEER_GONE, flowmesh_call(host, "calc.add", "die", 3, NULL, &message));
    CHECK(exit_status(child) == 3);
    CHECK_OK(flowmesh_subscription_free(ready));
    CHECK_OK(flowmesh_mesh_free(host));
}

struct inherited {
    flowmesh_mesh *host, *client;
    flowmesh_subscription *subscription;
    flowmesh_service *service;
    flowmesh_message *message;
    flowmesh_request *request;
    flowmesh_pending *pending;
    flowmesh_queue *queue;
    flowmesh_job *job;
    flowmesh_job_answer *answer;
    flowmesh_reservation *reservation;
    flowmesh_worker *worker;
};

static flowmesh_status on_job(void *context, flowmesh_job *job)
{
    (void)context, (void)job;
    return FLOWMESH_OK;
}

#define CHECK_FORKED(call) CHECK_STATUS(FLOWMESH_ERR_FORKED, call)

static int forked_child(void *argument)
{
    struct inherited *in = argument;
    flowmesh_subscription *s;
    flowmesh_service *v;
    flowmesh_message *m;
    flowmesh_request *q;
    flowmesh_pending *p;
    flowmesh_instance_list *l;
    flowmesh_snapshot *n;
    char *json;
    flowmesh_mesh *meshes[] = {in->host, in->client};
    for (int i = 0; i < 2; i++) {
        flowmesh_mesh *mesh = meshes[i];
        CHECK_FORKED(flowmesh_publish(mesh, "a", "", 0, NULL, NULL));
        CHECK_FORKED(flowmesh_subscribe(mesh, "a", NULL, &s));
        CHECK_FORKED(flowmesh_on(mesh, "a", NULL, on_event, NULL, NULL, &s));
        CHECK_FORKED(flowmesh_service_open(mesh, "a", NULL, &v));
        CHECK_FORKED(flowmesh_serve(mesh, "a", NULL, add, NULL, NULL, &v));
        CHECK_FORKED(flowmesh_call(mesh, "a", "", 0, NULL, &m));
        CHECK_FORKED(flowmesh_call_start(mesh, "a", "", 0, NULL, &p));
        CHECK_FORKED(flowmesh_services(mesh, &l));
        CHECK_FORKED(flowmesh_stats(mesh, &n));
        CHECK_FORKED(flowmesh_stats_json(mesh, &json));
    }
    CHECK_FORKED(flowmesh_subscription_receive(in->subscription, -1, &m));
    CHECK_FORKED(flowmesh_subscription_fd(in->subscription));
    CHECK_FORKED(flowmesh_service_next(in->service, -1, &q));
    CHECK_FORKED(flowmesh_service_fd(in->service));
    CHECK_FORKED(flowmesh_pending_wait(in->pending, -1, &m));
    CHECK_FORKED(flowmesh_pending_fd(in->pending));
    CHECK_FORKED(flowmesh_request_reply(in->request, "", 0, NULL, 0));
    CHECK_BYTES("x", flowmesh_message_payload(in->message)); /* plain memory */
    flowmesh_job *j;
    flowmesh_queue *u;
    flowmesh_worker *w;
    size_t count;
    int32_t done;
    CHECK_FORKED(flowmesh_queue_open(in->host, "q", &u));
    CHECK_FORKED(flowmesh_queue_enqueue(in->queue, "", 0, NULL, NULL));
    CHECK_FORKED(flowmesh_queue_next(in->queue, -1, &j));
    CHECK_FORKED(flowmesh_worker_start(in->queue, NULL, on_job, NULL, NULL, &w));
    CHECK_FORKED(flowmesh_reservation_wait(in->reservation, -1, &j, 1, &count));
    CHECK_FORKED(flowmesh_reservation_try(in->reservation, &done, &j, 1, &count));
    CHECK_FORKED(flowmesh_reservation_fd(in->reservation));
    CHECK_FORKED(flowmesh_worker_stop(in->worker, -1));
    CHECK_FORKED(flowmesh_worker_error(in->worker));
    CHECK_FORKED(flowmesh_job_ack(in->job, NULL, 0, NULL));
    CHECK_FORKED(flowmesh_job_extend(in->job, -1, NULL));
    flowmesh_job_answer *a;
    CHECK_FORKED(flowmesh_job_ack_start(in->job, NULL, 0, &a));
    CHECK_FORKED(flowmesh_job_extend_start(in->job, -1, &a));
    CHECK_FORKED(flowmesh_job_answer_wait(in->answer, -1, NULL));
    CHECK_FORKED(flowmesh_job_answer_try(in->answer, &done, NULL));
    CHECK_FORKED(flowmesh_job_answer_fd(in->answer));
    CHECK_BYTES("job", flowmesh_job_payload(in->job));

    /* The child opens its own, and the directory is still its parent's. */
    flowmesh_mesh *own;
    CHECK_STATUS(FLOWMESH_ERR_ALREADY_OPEN, flowmesh_open(directory, NULL, &own));
    char pid[16];
    snprintf(pid, sizeof pid, "%d", (int)getppid());
    CHECK(flowmesh_error_get("pid") != NULL && strcmp(flowmesh_error_get("pid"), pid) == 0);
    CHECK_OK(flowmesh_connect(directory, NULL, &own));
    CHECK_OK(flowmesh_publish(own, "from.child", "hello", 5, NULL, NULL));
    CHECK_OK(flowmesh_mesh_free(own));

    CHECK_OK(flowmesh_worker_free(in->worker));
    CHECK_OK(flowmesh_reservation_free(in->reservation));
    CHECK_OK(flowmesh_job_answer_free(in->answer));
    CHECK_OK(flowmesh_job_free(in->job));
    CHECK_OK(flowmesh_queue_free(in->queue));
    CHECK_OK(flowmesh_message_free(in->message));
    CHECK_OK(flowmesh_request_free(in->request));
    CHECK_OK(flowmesh_pending_free(in->pending));
    CHECK_OK(flowmesh_service_free(in->service));
    CHECK_OK(flowmesh_subscription_free(in->subscription));
    CHECK_OK(flowmesh_mesh_free(in->client));
    CHECK_OK(flowmesh_mesh_free(in->host));
    CHECK(flowmesh_handle_count() == 0);
    return 0;
}

static void handles_stay_with_their_process(void)
{
    struct inherited in;
    flowmesh_message *message;
    CHECK_OK(flowmesh_open(directory, NULL, &in.host));
    CHECK_OK(flowmesh_connect(directory, NULL, &in.client));
    CHECK_OK(flowmesh_queue_declare(in.client, "forked", NULL, &in.queue));
    CHECK_OK(flowmesh_queue_enqueue(in.queue, "job", 3, NULL, NULL));
    CHECK_OK(flowmesh_queue_next(in.queue, SOON_MS, &in.job));
    CHECK_OK(flowmesh_job_keep(in.job));
    CHECK_OK(flowmesh_job_extend_start(in.job, 60000, &in.answer));
    CHECK_OK(flowmesh_queue_reserve_start(in.queue, -1, -1, 1, &in.reservation));
    CHECK_OK(flowmesh_worker_start(in.queue, NULL, on_job, NULL, NULL, &in.worker));
    CHECK_OK(flowmesh_subscribe(in.client, ">", NULL, &in.subscription));
    CHECK_OK(flowmesh_publish(in.host, "a", "x", 1, NULL, NULL));
    CHECK_OK(flowmesh_subscription_receive(in.subscription, SOON_MS, &in.message));
    CHECK_OK(flowmesh_service_open(in.client, "mine", NULL, &in.service));
    CHECK_OK(flowmesh_call_start(in.host, "mine", "x", 1, NULL, &in.pending));
    CHECK_OK(flowmesh_service_next(in.service, SOON_MS, &in.request));
    int status = exit_status(spawn(forked_child, &in));
    if (status != 0)
        fprintf(stderr, "the forked child ended with %d\n", status);
    CHECK(status == 0);

    /* The parent noticed nothing but the child's event. */
    CHECK_OK(flowmesh_subscription_receive(in.subscription, SOON_MS, &message));
    CHECK_BYTES("hello", flowmesh_message_payload(message));
    CHECK_OK(flowmesh_message_free(message));
    CHECK_OK(flowmesh_request_reply(in.request, "y", 1, NULL, 0));
    CHECK_OK(flowmesh_pending_wait(in.pending, SOON_MS, &message));
    CHECK_BYTES("y", flowmesh_message_payload(message));
    CHECK_OK(flowmesh_message_free(message));
    CHECK_OK(flowmesh_job_answer_wait(in.answer, SOON_MS, NULL));
    CHECK_OK(flowmesh_job_answer_free(in.answer));
    CHECK_OK(flowmesh_job_ack(in.job, NULL, 0, NULL));
    CHECK_OK(flowmesh_job_free(in.job));
    CHECK_OK(flowmesh_reservation_free(in.reservation));
    CHECK_OK(flowmesh_worker_stop(in.worker, SOON_MS));
    CHECK_OK(flowmesh_worker_free(in.worker));
    CHECK_OK(flowmesh_queue_free(in.queue));
    CHECK_OK(flowmesh_message_free(in.message));
    CHECK_OK(flowmesh_request_free(in.request));
    CHECK_OK(flowmesh_pending_free(in.pending));
    CHECK_OK(flowmesh_service_free(in.service));
    CHECK_OK(flowmesh_subscription_free(in.subscription));
    CHECK_OK(flowmesh_mesh_free(in.client));
    CHECK_OK(flowmesh_mesh_free(in.host));
}

static int32_t is_asked_to_stop(void *context)
{
    return *(volatile int *)context;
}

/* Hosts until it is killed. */
static int host_process(void *argument)
{
    (void)argument;
    flowmesh_mesh *host;
    CHECK_OK(flowmesh_open(directory, NULL, &host));
    for (;;)
        pause();
    return 0;
}

struct answer_waiter {
    flowmesh_job_answer *answer;
    flowmesh_status status;
};

static void *wait_for_an_answer(void *argument)
{
    struct answer_waiter *waiter = argument;
    waiter->status = flowmesh_job_answer_wait(waiter->answer, -1, NULL);
    return NULL;
}

/* A host that does not answer is waited for no longer than one likes, and what was said to it is done once. */
static void an_answer_that_does_not_come(void)
{
    flowmesh_mesh *client;
    flowmesh_queue *queue;
    flowmesh_receipt receipt;
    flowmesh_job *job;
    flowmesh_job_answer *answer;
    pthread_t thread;
    int64_t value = 7;
    int32_t done = 7;
    volatile int stop = 0;
    flowmesh_open_options options = FLOWMESH_OPEN_OPTIONS_INIT;
    options.interrupt = is_asked_to_stop;
    options.interrupt_context = (void *)&stop;
    pid_t host = spawn(host_process, NULL);
    while (flowmesh_connect(directory, &options, &client) != FLOWMESH_OK)
        sleep_ms(1); /* the watchdog ends this */
    CHECK_OK(flowmesh_queue_declare(client, "slow", NULL, &queue));
    CHECK_OK(flowmesh_queue_enqueue(queue, "x", 1, NULL, &receipt));
    CHECK_OK(flowmesh_queue_next(queue, SOON_MS, &job));
    int status;
    CHECK(kill(host, SIGSTOP) == 0 && waitpid(host, &status, WUNTRACED) == host && WIFSTOPPED(status));
    CHECK_OK(flowmesh_job_ack_start(job, "first", 5, &answer));
    int fd = flowmesh_job_answer_fd(answer);
    CHECK(fd >= 0 && !readable(fd, 0));
    CHECK_STATUS(FLOWMESH_ERR_TIMEOUT, flowmesh_job_answer_wait(answer, 0, &value));
    CHECK_STATUS(FLOWMESH_ERR_TIMEOUT, flowmesh_job_answer_wait(answer, 10, &value));
    CHECK_OK(flowmesh_job_answer_try(answer, &done, &value));
    CHECK(done == 0 && value == 0 && flowmesh_job_is_settled(job) == 1);
    stop = 1;
    CHECK_STATUS(FLOWMESH_ERR_INTERRUPTED, flowmesh_job_answer_wait(answer, -1, &value));
    stop = 0;
    CHECK(flowmesh_job_is_settled(job) == 1); /* the answer is still to come */
    /* Given up, whoever waits learns of it, and the job may be settled again. */
    struct answer_waiter waiter = {answer, FLOWMESH_OK};
    CHECK(pthread_create(&thread, NULL, wait_for_an_answer, &waiter) == 0);
    CHECK_OK(flowmesh_job_answer_cancel(answer));
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(waiter.status == FLOWMESH_ERR_CANCELLED && readable(fd, SOON_MS) && flowmesh_job_is_settled(job) == 0);
    CHECK_OK(flowmesh_job_answer_free(answer));
    CHECK_OK(flowmesh_job_ack_start(job, "second", 6, &answer));
    CHECK_OK(flowmesh_job_answer_free(answer));
    CHECK(flowmesh_job_is_settled(job) == 0);
    CHECK_OK(flowmesh_job_ack_start(job, "third", 5, &answer));
    CHECK(kill(host, SIGCONT) == 0);
    CHECK_OK(flowmesh_job_answer_wait(answer, SOON_MS, &value)); /* an ack may be repeated */
    CHECK(value == FLOWMESH_DURABILITY_FSYNC && flowmesh_job_is_settled(job) == 1);
    CHECK_OK(flowmesh_job_answer_free(answer));
    flowmesh_content *result;
    CHECK_OK(flowmesh_queue_result(queue, receipt.id, &result));
    CHECK_BYTES("first", flowmesh_content_payload(result));
    CHECK_OK(flowmesh_content_free(result));

    /* A host that ends is no answer either. */
    CHECK_OK(flowmesh_job_free(job));
    CHECK_OK(flowmesh_queue_enqueue(queue, "y", 1, NULL, NULL));
    CHECK_OK(flowmesh_queue_next(queue, SOON_MS, &job));
    CHECK(kill(host, SIGSTOP) == 0 && waitpid(host, &status, WUNTRACED) == host && WIFSTOPPED(status));
    CHECK_OK(flowmesh_job_extend_start(job, -1, &answer));
    CHECK(kill(host, SIGKILL) == 0 && exit_status(host) == 128 + SIGKILL);
    CHECK_STATUS(FLOWMESH_ERR_DISCONNECTED, flowmesh_job_answer_wait(answer, SOON_MS, NULL));
    CHECK_OK(flowmesh_job_answer_free(answer));
    CHECK_OK(flowmesh_job_free(job));
    CHECK_OK(flowmesh_queue_free(queue));
    CHECK_OK(flowmesh_mesh_free(client));
}

/* Never ends; the process it runs in is killed. */
static flowmesh_status hang(void *context, flowmesh_job *job)
{
    char attempt[16];
    snprintf(attempt, sizeof attempt, "%u", (unsigned)flowmesh_job_attempt(job));
    CHECK_OK(flowmesh_publish(context, "worker.has", attempt, strlen(attempt), NULL, NULL));
    for (;;)
        pause();
    return FLOWMESH_OK;
}

static int doomed_worker(void *argument)
{
    (void)argument;
    flowmesh_mesh *mesh;
    flowmesh_queue *queue;
    flowmesh_worker *worker;
    CHECK_OK(flowmesh_connect(directory, NULL, &mesh));
    CHECK_OK(flowmesh_queue_open(mesh, "doomed", &queue));
    CHECK_OK(flowmesh_worker_start(queue, NULL, hang, mesh, NULL, &worker));
    for (;;)
        pause();
    return 0;
}

static flowmesh_status note_attempt(void *context, flowmesh_job *job)
{
    *(volatile uint32_t *)context = flowmesh_job_attempt(job);
    return flowmesh_job_set_result(job, "finished", 8);
}

/* A worker that is killed at work holds its job no longer, however long the lease; the attempt counts. */
static void a_killed_worker_leaves_its_job_to_another(void)
{
    flowmesh_mesh *host;
    flowmesh_queue *queue;
    flowmesh_subscription *has;
    flowmesh_message *message;
    flowmesh_receipt receipt;
    flowmesh_worker *worker;
    flowmesh_content *result = NULL;
    flowmesh_job_list *list;
    flowmesh_failure failure = FLOWMESH_FAILURE_INIT;
    flowmesh_queue_stats stats = FLOWMESH_QUEUE_STATS_INIT;
    flowmesh_queue_config config = FLOWMESH_QUEUE_CONFIG_INIT;
    volatile uint32_t attempt = 0;
    config.lease_ms = 43200000; /* no test waits for the end of that */
    config.backoff.initial_ms = 0;
    CHECK_OK(flowmesh_open(directory, NULL, &host));
    CHECK_OK(flowmesh_queue_declare(host, "doomed", &config, &queue));
    CHECK_OK(flowmesh_subscribe(host, "worker.has", NULL, &has));
    CHECK_OK(flowmesh_queue_enqueue(queue, "x", 1, NULL, &receipt));
    pid_t child = spawn(doomed_worker, NULL);
    CHECK_OK(flowmesh_subscription_receive(has, SOON_MS, &message));
    CHECK_BYTES("1", flowmesh_message_payload(message));
    CHECK_OK(flowmesh_message_free(message));
    CHECK_OK(flowmesh_queue_get_stats(queue, &stats));
    CHECK(stats.leased == 1 && stats.total_worker_gone == 0);
    CHECK(kill(child, SIGKILL) == 0 && exit_status(child) == 128 + SIGKILL);

    CHECK_OK(flowmesh_worker_start(queue, NULL, note_attempt, (void *)&attempt, NULL, &worker));
    while (result == NULL) {
        CHECK_OK(flowmesh_queue_result(queue, receipt.id, &result));
        sleep_ms(1); /* the watchdog ends this, long before the lease */
    }
    CHECK_BYTES("finished", flowmesh_content_payload(result));
    CHECK_OK(flowmesh_content_free(result));
    CHECK(attempt == 2);
    CHECK_OK(flowmesh_queue_get_stats(queue, &stats));
    CHECK(stats.total_worker_gone == 1 && stats.total_lease_expired == 0 && stats.total_done == 1);
    CHECK_OK(flowmesh_queue_peek(queue, receipt.id, &list));
    CHECK_OK(flowmesh_job_list_failure(list, 0, 0, &failure));
    CHECK(failure.attempt == 1 && strstr(failure.message, "process ended") != NULL);
    CHECK_OK(flowmesh_job_list_free(list));
    CHECK_OK(flowmesh_worker_stop(worker, SOON_MS));
    CHECK_OK(flowmesh_worker_free(worker));
    CHECK_OK(flowmesh_subscription_free(has));
    CHECK_OK(flowmesh_queue_free(queue));
    CHECK_OK(flowmesh_mesh_free(host));
}

static void opening_says_what_is_in_the_way(void)
{
    flowmesh_mesh *host, *second;
    char path[128];
    snprintf(path, sizeof path, "%s/none", directory);
    CHECK_STATUS(FLOWMESH_ERR_NOT_FOUND, flowmesh_connect(path, NULL, &second));
    CHECK(second == NULL);
    snprintf(path, sizeof path, "%s/sub", directory);
    CHECK_OK(flowmesh_open(path, NULL, &host));
    CHECK_TEXT(path, flowmesh_mesh_directory(host));
    CHECK(flowmesh_mesh_role(host) == FLOWMESH_ROLE_HOST && flowmesh_mesh_session(host) == 0);
    CHECK(flowmesh_mesh_host_pid(host) == (uint32_t)getpid());
    CHECK_STATUS(FLOWMESH_ERR_ALREADY_OPEN, flowmesh_open(path, NULL, &second));
    CHECK_OK(flowmesh_mesh_free(host));
    CHECK_OK(flowmesh_open(path, NULL, &host));
    CHECK_OK(flowmesh_mesh_free(host));
}

static void over_tcp(void)
{
    static const char secret[] = "sixteen bytes!!!";
    flowmesh_mesh *host, *client;
    flowmesh_subscription *from;
    flowmesh_message *message;
    char address[64];
    CHECK_OK(flowmesh_open(directory, NULL, &host));
    CHECK_OK(flowmesh_listen_tcp(host, "127.0.0.1:0", secret, 16, address, sizeof address));
    CHECK(strncmp(address, "127.0.0.1:", 10) == 0 && atoi(address + 10) > 0);
    CHECK_STATUS(FLOWMESH_ERR_UNAUTHENTICATED, flowmesh_connect_tcp(address, "sixteen bytes???", 16, NULL, &client));
    CHECK_OK(flowmesh_connect_tcp(address, secret, 16, NULL, &client));
    CHECK(flowmesh_mesh_directory(client).data == NULL);
    CHECK_OK(flowmesh_subscribe(client, "far", NULL, &from));
    CHECK_OK(flowmesh_publish(host, "far", "away", 4, NULL, NULL));
    CHECK_OK(flowmesh_subscription_receive(from, SOON_MS, &message));
    CHECK_BYTES("away", flowmesh_message_payload(message));
    CHECK_OK(flowmesh_message_free(message));
    CHECK_STATUS(FLOWMESH_ERR_UNSUPPORTED, flowmesh_listen_tcp(client, "127.0.0.1:0", secret, 16, NULL, 0));
    CHECK_OK(flowmesh_subscription_free(from));
    CHECK_OK(flowmesh_mesh_free(client));
    CHECK_OK(flowmesh_mesh_free(host));
}

int main(void)
{
    static char kept[64];
    strcpy(kept, check_start());
    directory = kept;
    opening_says_what_is_in_the_way();
    two_processes();
    a_dead_instance_is_peer_gone();
    handles_stay_with_their_process();
    over_tcp();
    an_answer_that_does_not_come();
    a_killed_worker_leaves_its_job_to_another();
    return check_end("processes");
}
