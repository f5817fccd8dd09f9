/* Queues: enqueue, reserve, settle, look, manage; in the host and from a client. */
#include "check.h"

#define CHECK_STRING(wanted, text) CHECK(strcmp((text), (wanted)) == 0)

/* A queue that does not wait for the disk. */
static flowmesh_queue_config quick(void)
{
    flowmesh_queue_config config = FLOWMESH_QUEUE_CONFIG_INIT;
    config.durability = FLOWMESH_DURABILITY_OS;
    return config;
}

static flowmesh_queue *declared(flowmesh_mesh *mesh, const char *name, const flowmesh_queue_config *config)
{
    flowmesh_queue *queue;
    CHECK_OK(flowmesh_queue_declare(mesh, name, config, &queue));
    return queue;
}

static flowmesh_job *next(flowmesh_queue *queue)
{
    flowmesh_job *job;
    CHECK_OK(flowmesh_queue_next(queue, SOON_MS, &job));
    return job;
}

static flowmesh_queue_stats stats_of(flowmesh_queue *queue)
{
    flowmesh_queue_stats stats = FLOWMESH_QUEUE_STATS_INIT;
    CHECK_OK(flowmesh_queue_get_stats(queue, &stats));
    return stats;
}

static void a_job_is_enqueued_reserved_and_acked(flowmesh_mesh *mesh)
{
    flowmesh_queue *queue = declared(mesh, "mail", NULL), *found;
    flowmesh_header headers[] = {{"to", "ann"}, {"cc", ""}};
    flowmesh_enqueue_options options = FLOWMESH_ENQUEUE_OPTIONS_INIT;
    flowmesh_receipt receipt;
    flowmesh_text name, value;
    int32_t reached = 0;
    options.headers = headers;
    options.header_count = 2;
    options.content_type = "text/plain";
    options.group = "people";
    options.priority = 7;
    CHECK_OK(flowmesh_queue_enqueue(queue, "hello", 5, &options, &receipt));
    CHECK(receipt.outcome == FLOWMESH_ENQUEUED_NEW && receipt.durability == FLOWMESH_DURABILITY_FSYNC);
    CHECK(strlen(receipt.id) == 36 && receipt.replaced[0] == '\0');

    flowmesh_job *job = next(queue);
    CHECK_TEXT(receipt.id, flowmesh_job_id(job));
    CHECK_TEXT("mail", flowmesh_job_queue(job));
    CHECK_TEXT("people", flowmesh_job_group(job));
    CHECK_TEXT("text/plain", flowmesh_job_content_type(job));
    CHECK_BYTES("hello", flowmesh_job_payload(job));
    CHECK_TEXT("ann", flowmesh_job_header(job, "to"));
    CHECK_TEXT("", flowmesh_job_header(job, "cc"));
    CHECK(flowmesh_job_header(job, "bcc").data == NULL);
    CHECK(flowmesh_job_header_count(job) == 2);
    CHECK_OK(flowmesh_job_header_at(job, 1, &name, &value));
    CHECK_TEXT("cc", name);
    CHECK_TEXT("", value);
    CHECK(flowmesh_job_attempt(job) == 1 && flowmesh_job_max_attempts(job) == 5);
    CHECK(flowmesh_job_priority(job) == 7 && flowmesh_job_redrives(job) == 0);
    CHECK(flowmesh_job_lease_ms(job) == 30000);
    CHECK(flowmesh_job_remaining_ms(job) > 0 && flowmesh_job_remaining_ms(job) <= 30000);
    CHECK(flowmesh_job_is_cancelled(job) == 0 && flowmesh_job_is_settled(job) == 0);
    CHECK(stats_of(queue).leased == 1);
    CHECK_OK(flowmesh_job_ack(job, "done", 4, &reached));
    CHECK(reached == FLOWMESH_DURABILITY_FSYNC && flowmesh_job_is_settled(job) == 1);
    CHECK_STATUS(FLOWMESH_ERR_LEASE_LOST, flowmesh_job_ack(job, NULL, 0, NULL));
    CHECK_OK(flowmesh_job_free(job));

    CHECK_OK(flowmesh_queue_open(mesh, "mail", &found));
    flowmesh_queue_stats stats = stats_of(found);
    CHECK(stats.done == 1 && stats.total_enqueued == 1 && stats.total_done == 1 && stats.oldest_ready_ms == -1);
    CHECK_TEXT("mail", flowmesh_queue_name(found));
    CHECK_OK(flowmesh_queue_free(found));

    flowmesh_content *result;
    CHECK_OK(flowmesh_queue_result(queue, receipt.id, &result));
    CHECK_BYTES("done", flowmesh_content_payload(result));
    CHECK_OK(flowmesh_content_free(result));
    CHECK_OK(flowmesh_queue_free(queue));
}

static void a_job_that_is_done_brings_the_next(flowmesh_mesh *mesh)
{
    flowmesh_queue_config config = quick();
    flowmesh_queue *queue = declared(mesh, "chain", &config);
    flowmesh_receipt receipts[3];
    flowmesh_content *result;
    int32_t reached = 0;
    for (int i = 0; i < 3; i++)
        CHECK_OK(flowmesh_queue_enqueue(queue, "abc" + i, 1, NULL, &receipts[i]));
    flowmesh_job *job = next(queue), *following = job;
    CHECK_OK(flowmesh_job_ack_and_reserve(job, "done", 4, 60000, &following, &reached));
    CHECK(reached == FLOWMESH_DURABILITY_OS && flowmesh_job_is_settled(job) == 1);
    CHECK_TEXT(receipts[1].id, flowmesh_job_id(following));
    CHECK(flowmesh_job_lease_ms(following) == 60000);
    /* Whoever is told of an error is given no job. */
    flowmesh_job *none = job;
    CHECK_STATUS(FLOWMESH_ERR_LEASE_LOST, flowmesh_job_ack_and_reserve(job, NULL, 0, -1, &none, &reached));
    CHECK(none == NULL && reached == 0);
    CHECK_STATUS(FLOWMESH_ERR_INVALID_ARGUMENT, flowmesh_job_ack_and_reserve(following, NULL, 0, 999, &none, NULL));
    CHECK(none == NULL && flowmesh_job_is_settled(following) == 0);
    flowmesh_queue_stats stats = stats_of(queue);
    CHECK(stats.leased == 1 && stats.ready == 1 && stats.done == 1);
    CHECK_OK(flowmesh_queue_result(queue, receipts[0].id, &result));
    CHECK_BYTES("done", flowmesh_content_payload(result));
    CHECK_OK(flowmesh_content_free(result));
    CHECK_OK(flowmesh_job_free(job));

    CHECK_OK(flowmesh_job_ack_and_reserve(following, NULL, 0, -1, &job, NULL));
    CHECK_BYTES("c", flowmesh_job_payload(job));
    CHECK(flowmesh_job_attempt(job) == 1 && flowmesh_job_lease_ms(job) == 30000);
    CHECK_OK(flowmesh_job_free(following));
    CHECK_OK(flowmesh_job_ack_and_reserve(job, NULL, 0, -1, &none, NULL));
    CHECK(none == NULL && stats_of(queue).total_done == 3);
    CHECK_OK(flowmesh_job_free(job));
    CHECK_OK(flowmesh_queue_free(queue));
}

static void jobs_in_lots(flowmesh_mesh *mesh)
{
    flowmesh_queue_config config = quick();
    flowmesh_queue *queue = declared(mesh, "lots", &config);
    flowmesh_enqueue_options common = FLOWMESH_ENQUEUE_OPTIONS_INIT, own = FLOWMESH_ENQUEUE_OPTIONS_INIT;
    flowmesh_new_job jobs[] = {{"a", 1, NULL}, {"b", 1, &own}, {NULL, 0, NULL}};
    flowmesh_receipt receipts[3];
    flowmesh_job *taken[8];
    flowmesh_status each[3];
    size_t count;
    common.content_type = "x/common";
    common.durability = FLOWMESH_DURABILITY_FSYNC;
    own.priority = 9;
    CHECK_OK(flowmesh_queue_enqueue_many(queue, jobs, 3, &common, receipts));
    CHECK(receipts[2].durability == FLOWMESH_DURABILITY_FSYNC && strcmp(receipts[0].id, receipts[1].id) != 0);
    CHECK_OK(flowmesh_queue_reserve(queue, 60000, SOON_MS, taken, 8, &count));
    CHECK(count == 3);
    CHECK_TEXT(receipts[1].id, flowmesh_job_id(taken[0]));
    CHECK(flowmesh_job_content_type(taken[0]).data == NULL && flowmesh_job_group(taken[0]).data == NULL);
    CHECK_TEXT("x/common", flowmesh_job_content_type(taken[1]));
    CHECK_BYTES("", flowmesh_job_payload(taken[2]));
    CHECK(flowmesh_job_lease_ms(taken[0]) == 60000);
    CHECK_STATUS(FLOWMESH_ERR_TIMEOUT, flowmesh_queue_reserve(queue, -1, 0, taken + 3, 1, &count));
    CHECK(count == 0);
    CHECK_OK(flowmesh_queue_ack_many(queue, taken, 2, each));
    CHECK(each[0] == FLOWMESH_OK && each[1] == FLOWMESH_OK);
    /* Those that were settled before do not keep the other from being acked. */
    flowmesh_job *twice[] = {taken[2], taken[2]};
    CHECK_STATUS(FLOWMESH_ERR_INVALID_ARGUMENT, flowmesh_queue_ack_many(queue, twice, 2, NULL));
    CHECK_STATUS(FLOWMESH_ERR_LEASE_LOST, flowmesh_queue_ack_many(queue, taken, 3, each));
    CHECK(each[0] == FLOWMESH_ERR_LEASE_LOST && each[1] == FLOWMESH_ERR_LEASE_LOST && each[2] == FLOWMESH_OK);
    CHECK(stats_of(queue).total_done == 3);
    CHECK_OK(flowmesh_job_free_many(taken, 3));
    CHECK(taken[0] == NULL && taken[2] == NULL);
    flowmesh_queue *other = declared(mesh, "other", &config);
    CHECK_OK(flowmesh_queue_enqueue(queue, "x", 1, NULL, NULL));
    flowmesh_job *job = next(queue);
    CHECK_STATUS(FLOWMESH_ERR_INVALID_ARGUMENT, flowmesh_queue_ack_many(other, &job, 1, NULL));
    CHECK_OK(flowmesh_queue_ack_many(queue, &job, 1, NULL));
    CHECK_OK(flowmesh_job_free(job));
    CHECK_OK(flowmesh_queue_free(other));
    CHECK_OK(flowmesh_queue_free(queue));
}

static void what_a_worker_may_say(flowmesh_mesh *mesh)
{
    flowmesh_queue_config config = quick();
    flowmesh_queue *queue = declared(mesh, "say", &config);
    flowmesh_receipt receipt;
    flowmesh_job_list *list;
    flowmesh_job_info info = FLOWMESH_JOB_INFO_INIT;
    flowmesh_failure failure = FLOWMESH_FAILURE_INIT;
    flowmesh_content *content;
    int64_t left;
    int32_t outcome;
    uint64_t count;
    CHECK_OK(flowmesh_queue_enqueue(queue, "x", 1, NULL, &receipt));
    flowmesh_job *job = next(queue);
    CHECK_OK(flowmesh_job_release(job, NULL));
    CHECK_OK(flowmesh_job_free(job));
    job = next(queue);
    CHECK(flowmesh_job_attempt(job) == 1);
    CHECK_OK(flowmesh_job_nack(job, "no", "at line 1", 0, NULL));
    flowmesh_job *stale = job; /* the token of an attempt that is over changes nothing */
    CHECK_STATUS(FLOWMESH_ERR_LEASE_LOST, flowmesh_job_ack(stale, "late", 4, NULL));
    CHECK_STATUS(FLOWMESH_ERR_LEASE_LOST, flowmesh_job_extend(stale, 60000, NULL));
    job = next(queue);
    CHECK(flowmesh_job_attempt(job) == 2);
    CHECK_OK(flowmesh_job_free(stale));
    CHECK_OK(flowmesh_job_progress(job, "half", 4));
    CHECK_OK(flowmesh_job_keep(job));
    CHECK_OK(flowmesh_job_extend(job, 60000, &left));
    CHECK(left > 59000 && left <= 60000 && flowmesh_job_remaining_ms(job) > 59000);
    CHECK_OK(flowmesh_queue_peek(queue, receipt.id, &list));
    CHECK_OK(flowmesh_job_list_get(list, 0, &info));
    CHECK(info.state == FLOWMESH_JOB_LEASED && info.attempt == 2 && info.failure_count == 1 && info.due_ms > 0);
    CHECK(info.expires_ms == -1 && info.group == NULL && info.worker == (int64_t)flowmesh_mesh_session(mesh));
    CHECK_STRING(receipt.id, info.id);
    CHECK_BYTES("half", info.progress);
    CHECK_OK(flowmesh_job_list_failure(list, 0, 0, &failure));
    CHECK_STRING("no", failure.message);
    CHECK_STRING("at line 1", failure.detail);
    CHECK(failure.attempt == 1 && failure.at_ms > 0);
    CHECK_OK(flowmesh_job_list_free(list));

    int fd = flowmesh_job_cancel_fd(job);
    CHECK(fd >= 0 && flowmesh_job_cancel_fd(job) == fd && !readable(fd, 0));
    CHECK_OK(flowmesh_queue_cancel(queue, receipt.id, "not needed", &outcome));
    CHECK(outcome == FLOWMESH_CANCELLED_ASKED);
    CHECK(readable(fd, SOON_MS) && flowmesh_job_is_cancelled(job) == 1);
    CHECK_OK(flowmesh_job_release(job, NULL));
    CHECK_OK(flowmesh_job_free(job));
    CHECK_OK(flowmesh_queue_cancel(queue, receipt.id, NULL, &outcome));
    CHECK(outcome == FLOWMESH_CANCELLED_FINISHED);

    const char *ids[] = {receipt.id};
    CHECK_OK(flowmesh_queue_redrive(queue, ids, 1));
    job = next(queue);
    CHECK(flowmesh_job_redrives(job) == 1 && flowmesh_job_attempt(job) == 1);
    CHECK_OK(flowmesh_job_reject(job, "never", NULL, NULL));
    CHECK_OK(flowmesh_job_free(job));
    CHECK_OK(flowmesh_queue_redrive_dead(queue, 10, &count));
    CHECK(count == 1);
    job = next(queue);
    CHECK_OK(flowmesh_job_snooze(job, 3600000, NULL));
    CHECK_OK(flowmesh_job_free(job));
    flowmesh_queue_stats stats = stats_of(queue);
    CHECK(stats.scheduled == 1 && stats.total_cancelled == 1 && stats.total_redriven == 2 && stats.total_released == 3);
    CHECK_OK(flowmesh_queue_content(queue, receipt.id, &content));
    CHECK_BYTES("x", flowmesh_content_payload(content));
    CHECK(flowmesh_content_type(content).data == NULL && flowmesh_content_header_count(content) == 0);
    CHECK_OK(flowmesh_content_free(content));
    CHECK_OK(flowmesh_queue_result(queue, receipt.id, &content));
    CHECK(content == NULL);
    CHECK_OK(flowmesh_queue_remove(queue, receipt.id));
    CHECK_STATUS(FLOWMESH_ERR_NOT_FOUND, flowmesh_queue_result(queue, receipt.id, &content));
    CHECK_OK(flowmesh_queue_free(queue));
}

static void listing_goes_on_where_it_stopped(flowmesh_mesh *mesh)
{
    flowmesh_queue_config config = quick();
    flowmesh_queue *queue = declared(mesh, "list", &config);
    flowmesh_new_job jobs[25];
    flowmesh_receipt receipts[25];
    flowmesh_cursor cursor = FLOWMESH_CURSOR_INIT;
    flowmesh_job_list *list;
    size_t seen = 0, parts = 0;
    for (size_t i = 0; i < 25; i++)
        jobs[i] = (flowmesh_new_job){"x", 1, NULL};
    CHECK_OK(flowmesh_queue_enqueue_many(queue, jobs, 25, NULL, receipts));
    while (cursor.state != 2) {
        CHECK_OK(flowmesh_queue_list(queue, FLOWMESH_JOB_READY, &cursor, 10, &list));
        for (size_t i = 0; i < flowmesh_job_list_count(list); i++) {
            flowmesh_job_info info = FLOWMESH_JOB_INFO_INIT;
            CHECK_OK(flowmesh_job_list_get(list, i, &info));
            CHECK_STRING(receipts[seen++].id, info.id);
        }
        CHECK_OK(flowmesh_job_list_free(list));
        parts++;
    }
    CHECK(seen == 25 && parts == 3);
    CHECK_OK(flowmesh_queue_list(queue, FLOWMESH_JOB_READY, &cursor, 10, &list));
    CHECK(flowmesh_job_list_count(list) == 0);
    CHECK_OK(flowmesh_job_list_free(list));
    uint64_t purged;
    CHECK_OK(flowmesh_queue_purge(queue, FLOWMESH_JOB_READY, &purged));
    CHECK(purged == 25);
    CHECK_OK(flowmesh_queue_free(queue));
}

static void settings_come_back(flowmesh_mesh *mesh)
{
    flowmesh_queue_config config = quick(), found = FLOWMESH_QUEUE_CONFIG_INIT;
    flowmesh_queue_settings *settings;
    flowmesh_name_list *names;
    flowmesh_queue *queue, *durable;
    int64_t waits[] = {1, 20, 300};
    flowmesh_rate rate = {100, 20, 1000};
    flowmesh_group_weight weights[] = {{"gold", 10, 0}, {"silver", 5, 0}};
    int32_t idle = -1;
    config.backoff.kind = FLOWMESH_BACKOFF_LIST;
    config.backoff.list_ms = waits;
    config.backoff.list_count = 3;
    config.rate = &rate;
    config.group_weights = weights;
    config.group_weight_count = 2;
    config.dead_letter_to = "dead";
    config.max_length = 2;
    queue = declared(mesh, "settings", &config);
    CHECK_OK(flowmesh_queue_get_settings(queue, &settings));
    CHECK_OK(flowmesh_queue_settings_get(settings, &found));
    CHECK(found.struct_size == sizeof found && found.backoff.list_count == 3 && found.backoff.list_ms[2] == 300);
    CHECK(found.rate->burst == 20 && found.group_rate == NULL && found.group_weight_count == 2);
    CHECK_STRING("silver", found.group_weights[1].group);
    CHECK_STRING("dead", found.dead_letter_to);
    CHECK(found.max_length == 2 && found.ttl_ms == -1 && found.durability == FLOWMESH_DURABILITY_OS);
    found.max_length = 1;
    CHECK_OK(flowmesh_queue_configure(queue, &found)); /* what is lent can be given back */
    CHECK_OK(flowmesh_queue_settings_free(settings));
    config.max_length = 9;
    flowmesh_queue *another;
    CHECK_STATUS(FLOWMESH_ERR_CONFLICT, flowmesh_queue_declare(mesh, "settings", &config, &another));
    CHECK(another == NULL && strcmp(flowmesh_error_get("field"), "max_length") == 0);
    CHECK_OK(flowmesh_queue_enqueue(queue, "x", 1, NULL, NULL));
    CHECK_STATUS(FLOWMESH_ERR_FULL, flowmesh_queue_enqueue(queue, "x", 1, NULL, NULL));
    CHECK_OK(flowmesh_queue_durable(queue, FLOWMESH_DURABILITY_FSYNC, 0, &durable));
    CHECK_OK(flowmesh_queue_pause(queue));
    flowmesh_job *job;
    CHECK_STATUS(FLOWMESH_ERR_TIMEOUT, flowmesh_queue_next(durable, 10, &job));
    CHECK(stats_of(queue).paused == 1);
    CHECK_OK(flowmesh_queue_resume(queue));
    job = next(durable);
    int32_t reached;
    CHECK_OK(flowmesh_queue_drain(queue, &idle));
    CHECK(idle == 0);
    CHECK_STATUS(FLOWMESH_ERR_DRAINING, flowmesh_queue_enqueue(queue, "x", 1, NULL, NULL));
    CHECK_OK(flowmesh_job_ack(job, NULL, 0, &reached));
    CHECK(reached == FLOWMESH_DURABILITY_FSYNC);
    CHECK_OK(flowmesh_queue_drain(queue, &idle));
    CHECK(idle == 1);
    CHECK_OK(flowmesh_job_free(job));
    CHECK_OK(flowmesh_queues(mesh, &names));
    CHECK(flowmesh_name_list_count(names) == 1);
    CHECK_TEXT("settings", flowmesh_name_list_get(names, 0));
    CHECK_OK(flowmesh_name_list_free(names));
    CHECK_OK(flowmesh_queue_free(durable));
    CHECK_OK(flowmesh_queue_free(queue));
}

static void schedules_come_back(flowmesh_mesh *mesh)
{
    flowmesh_queue_config config = quick();
    flowmesh_queue *queue = declared(mesh, "schedules", &config);
    flowmesh_schedule_list *list;
    flowmesh_schedule schedule = FLOWMESH_SCHEDULE_INIT, found = FLOWMESH_SCHEDULE_INIT;
    flowmesh_enqueue_options options = FLOWMESH_ENQUEUE_OPTIONS_INIT;
    flowmesh_header header = {"a", "b"};
    options.headers = &header;
    options.header_count = 1;
    options.priority = 3;
    options.backoff.kind = FLOWMESH_BACKOFF_FIXED;
    schedule.name = "report";
    schedule.cron = "30 6 * * mon-fri";
    schedule.zone = "Europe/Berlin";
    schedule.payload = "go";
    schedule.payload_bytes = 2;
    schedule.options = &options;
    schedule.overlap = FLOWMESH_OVERLAP_SKIP;
    CHECK_OK(flowmesh_queue_schedule(queue, &schedule));
    CHECK_OK(flowmesh_queue_schedules(queue, &list));
    CHECK(flowmesh_schedule_list_count(list) == 1);
    CHECK_OK(flowmesh_schedule_list_get(list, 0, &found));
    CHECK_STRING("Europe/Berlin", found.zone);
    CHECK(found.overlap == FLOWMESH_OVERLAP_SKIP && found.payload_bytes == 2 && found.next_ms > 0);
    CHECK(found.options->priority == 3 && found.options->header_count == 1 && found.options->ttl_ms == -1);
    CHECK_STRING("b", found.options->headers[0].value);
    CHECK_OK(flowmesh_queue_schedule(queue, &found)); /* what is lent can be given back */
    CHECK_OK(flowmesh_schedule_list_free(list));
    CHECK_OK(flowmesh_queue_unschedule(queue, "report"));
    CHECK_STATUS(FLOWMESH_ERR_NOT_FOUND, flowmesh_queue_unschedule(queue, "report"));
    CHECK_OK(flowmesh_queue_free(queue));
}

static void waiting_without_blocking(flowmesh_mesh *mesh)
{
    flowmesh_queue_config config = quick();
    flowmesh_queue *queue = declared(mesh, "wait", &config);
    flowmesh_reservation *reservation;
    flowmesh_job *jobs[4], *job;
    size_t count;
    int32_t done;
    CHECK_OK(flowmesh_queue_reserve_start(queue, -1, -1, 4, &reservation));
    int fd = flowmesh_reservation_fd(reservation);
    CHECK(fd >= 0 && !readable(fd, 0));
    CHECK_OK(flowmesh_reservation_try(reservation, &done, jobs, 4, &count));
    CHECK(done == 0 && count == 0);
    CHECK_STATUS(FLOWMESH_ERR_TIMEOUT, flowmesh_reservation_wait(reservation, 10, jobs, 4, &count));
    CHECK_OK(flowmesh_queue_enqueue(queue, "x", 1, NULL, NULL));
    CHECK(readable(fd, SOON_MS));
    CHECK_OK(flowmesh_reservation_try(reservation, &done, jobs, 4, &count));
    CHECK(done == 1 && count == 1);
    CHECK_STATUS(FLOWMESH_ERR_CLOSED, flowmesh_reservation_wait(reservation, 0, jobs + 1, 4, &count));
    CHECK_OK(flowmesh_reservation_free(reservation));
    CHECK_OK(flowmesh_job_ack(jobs[0], NULL, 0, NULL));
    CHECK_OK(flowmesh_job_free(jobs[0]));

    /* Its own time ends it. */
    CHECK_OK(flowmesh_queue_reserve_start(queue, -1, 20, 1, &reservation));
    CHECK(readable(flowmesh_reservation_fd(reservation), SOON_MS));
    CHECK_STATUS(FLOWMESH_ERR_TIMEOUT, flowmesh_reservation_try(reservation, &done, jobs, 4, &count));
    CHECK(done == 1);
    CHECK_OK(flowmesh_reservation_free(reservation));
    /* Given up, it takes no job; freed with a job in it, that goes back. */
    CHECK_OK(flowmesh_queue_reserve_start(queue, -1, -1, 1, &reservation));
    CHECK_OK(flowmesh_reservation_cancel(reservation));
    CHECK_STATUS(FLOWMESH_ERR_CANCELLED, flowmesh_reservation_wait(reservation, -1, jobs, 4, &count));
    CHECK_OK(flowmesh_reservation_free(reservation));
    CHECK_OK(flowmesh_queue_reserve_start(queue, -1, -1, 1, &reservation));
    CHECK_OK(flowmesh_queue_enqueue(queue, "y", 1, NULL, NULL));
    CHECK(readable(flowmesh_reservation_fd(reservation), SOON_MS));
    CHECK_OK(flowmesh_reservation_free(reservation));
    job = next(queue);
    CHECK(flowmesh_job_attempt(job) == 1);
    CHECK_BYTES("y", flowmesh_job_payload(job));
    CHECK_OK(flowmesh_job_ack(job, NULL, 0, NULL));
    CHECK_OK(flowmesh_job_free(job));
    CHECK_OK(flowmesh_queue_free(queue));
}

/* Waits for the answer as an event loop does: its status is `wanted`, and it is given out once. */
static int64_t answered(flowmesh_status wanted, flowmesh_job_answer *answer)
{
    int64_t value = 7;
    int32_t done = 0;
    int fd = flowmesh_job_answer_fd(answer);
    CHECK(fd >= 0 && flowmesh_job_answer_fd(answer) == fd && readable(fd, SOON_MS));
    CHECK_STATUS(wanted, flowmesh_job_answer_try(answer, &done, &value));
    CHECK(done == 1);
    CHECK_STATUS(FLOWMESH_ERR_CLOSED, flowmesh_job_answer_wait(answer, -1, NULL));
    CHECK_STATUS(FLOWMESH_ERR_CLOSED, flowmesh_job_answer_try(answer, &done, NULL));
    CHECK(done == 1);
    CHECK_OK(flowmesh_job_answer_free(answer));
    return value;
}

static void saying_without_blocking(flowmesh_mesh *mesh)
{
    flowmesh_queue_config config = quick();
    flowmesh_receipt receipt;
    flowmesh_job_answer *answer, *other;
    flowmesh_job_list *list;
    flowmesh_content *content;
    flowmesh_job_info info = FLOWMESH_JOB_INFO_INIT;
    int64_t value = 7;
    config.payload_bytes_max = 10;
    flowmesh_queue *queue = declared(mesh, "saying", &config);
    CHECK_OK(flowmesh_queue_enqueue(queue, "x", 1, NULL, &receipt));
    flowmesh_job *job = next(queue);
    CHECK_OK(flowmesh_job_release_start(job, &answer));
    CHECK(flowmesh_job_is_settled(job) == 1);
    CHECK(answered(FLOWMESH_OK, answer) == FLOWMESH_DURABILITY_OS);
    CHECK(flowmesh_job_is_settled(job) == 1);
    CHECK_OK(flowmesh_job_free(job));
    job = next(queue);
    CHECK(flowmesh_job_attempt(job) == 1);
    CHECK_OK(flowmesh_job_nack_start(job, "no", "at line 1", 0, &answer));
    (void)answered(FLOWMESH_OK, answer);
    /* The token of an attempt that is over changes nothing. */
    CHECK_OK(flowmesh_job_extend_start(job, 60000, &answer));
    CHECK(answered(FLOWMESH_ERR_LEASE_LOST, answer) == 0);
    CHECK_STATUS(FLOWMESH_ERR_LEASE_LOST, flowmesh_job_ack_start(job, NULL, 0, &answer));
    CHECK(answer == NULL);
    CHECK_OK(flowmesh_job_free(job));
    job = next(queue);
    CHECK(flowmesh_job_attempt(job) == 2);
    CHECK_OK(flowmesh_job_extend_start(job, 60000, &answer));
    CHECK(flowmesh_job_is_settled(job) == 0);
    value = answered(FLOWMESH_OK, answer);
    CHECK(value > 59000 && value <= 60000 && flowmesh_job_remaining_ms(job) > 59000);
    CHECK_OK(flowmesh_job_progress_start(job, "half", 4, &answer));
    CHECK(answered(FLOWMESH_OK, answer) == 0);
    CHECK_OK(flowmesh_queue_peek(queue, receipt.id, &list));
    CHECK_OK(flowmesh_job_list_get(list, 0, &info));
    CHECK(info.state == FLOWMESH_JOB_LEASED && info.failure_count == 1);
    CHECK_BYTES("half", info.progress);
    CHECK_OK(flowmesh_job_list_free(list));
    CHECK_OK(flowmesh_job_snooze_start(job, 3600000, &answer));
    CHECK_OK(flowmesh_job_free(job)); /* before its answer */
    CHECK_OK(flowmesh_job_answer_wait(answer, SOON_MS, &value));
    CHECK(value == FLOWMESH_DURABILITY_OS && stats_of(queue).scheduled == 1);
    CHECK_OK(flowmesh_job_answer_free(answer));
    CHECK_OK(flowmesh_queue_remove(queue, receipt.id));

    CHECK_OK(flowmesh_queue_enqueue(queue, "y", 1, NULL, &receipt));
    job = next(queue);
    CHECK_OK(flowmesh_job_reject_start(job, "never", NULL, &answer));
    (void)answered(FLOWMESH_OK, answer);
    CHECK(stats_of(queue).dead == 1);
    CHECK_OK(flowmesh_job_free(job));

    /* What was refused may be said again; only one may say it. */
    CHECK_OK(flowmesh_queue_enqueue(queue, "z", 1, NULL, &receipt));
    job = next(queue);
    flowmesh_status status = flowmesh_job_ack_start(job, "eleven byte", 11, &answer);
    if (status == FLOWMESH_OK)
        (void)answered(FLOWMESH_ERR_TOO_LARGE, answer);
    else
        CHECK_STATUS(FLOWMESH_ERR_TOO_LARGE, status);
    CHECK(flowmesh_job_is_settled(job) == 0);
    CHECK_OK(flowmesh_job_ack_start(job, "done", 4, &answer));
    CHECK_STATUS(FLOWMESH_ERR_LEASE_LOST, flowmesh_job_ack(job, NULL, 0, NULL));
    CHECK_STATUS(FLOWMESH_ERR_LEASE_LOST, flowmesh_job_release_start(job, &other));
    (void)answered(FLOWMESH_OK, answer);
    CHECK_OK(flowmesh_job_free(job));
    CHECK_OK(flowmesh_queue_result(queue, receipt.id, &content));
    CHECK_BYTES("done", flowmesh_content_payload(content));
    CHECK_OK(flowmesh_content_free(content));

    /* An answer that nobody takes: it is said all the same, and once. */
    CHECK_OK(flowmesh_queue_enqueue(queue, "w", 1, NULL, NULL));
    job = next(queue);
    CHECK_OK(flowmesh_job_ack_start(job, NULL, 0, &answer));
    CHECK_OK(flowmesh_job_answer_free(answer));
    status = flowmesh_job_ack(job, NULL, 0, NULL);
    CHECK(status == FLOWMESH_OK || status == FLOWMESH_ERR_LEASE_LOST); /* whether the answer was there before */
    CHECK(flowmesh_job_is_settled(job) == 1 && stats_of(queue).total_done == 2);
    CHECK_OK(flowmesh_job_free(job));
    CHECK_OK(flowmesh_queue_free(queue));
}

struct waiter {
    flowmesh_queue *queue;
    volatile int started;
    flowmesh_status status;
};

static void *wait_for_a_job(void *argument)
{
    struct waiter *waiter = argument;
    flowmesh_job *job;
    waiter->started = 1;
    waiter->status = flowmesh_queue_next(waiter->queue, -1, &job);
    CHECK(job == NULL);
    return NULL;
}

static void freeing_wakes_who_waits(flowmesh_mesh *mesh)
{
    flowmesh_queue_config config = quick();
    flowmesh_queue *queue = declared(mesh, "freed", &config), *other = declared(mesh, "freed", &config);
    struct waiter waiter = {.queue = queue};
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, wait_for_a_job, &waiter) == 0);
    while (!waiter.started)
        sleep_ms(1);
    sleep_ms(30); /* most likely it sleeps now; were it not, it would find no handle */
    CHECK_OK(flowmesh_queue_free(queue));
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(waiter.status == FLOWMESH_ERR_CLOSED || waiter.status == FLOWMESH_ERR_BAD_HANDLE);
    /* It has taken nothing along. */
    CHECK_OK(flowmesh_queue_enqueue(other, "x", 1, NULL, NULL));
    flowmesh_job *job = next(other);
    CHECK(flowmesh_job_attempt(job) == 1);
    CHECK_OK(flowmesh_job_ack(job, NULL, 0, NULL));
    CHECK_OK(flowmesh_job_free(job));
    CHECK_OK(flowmesh_queue_free(other));
}

/* What a handler was told to do, and what it did. */
struct work {
    int seen, go_on;
    flowmesh_job *kept;
    volatile int running, dropped;
};

static void wait_for(volatile int *flag)
{
    while (!*flag)
        sleep_ms(1); /* the watchdog ends this */
}

static flowmesh_status handle(void *context, flowmesh_job *job)
{
    struct work *work = context;
    flowmesh_bytes payload = flowmesh_job_payload(job);
    const char *what = payload.data;
    work->seen++;
    CHECK(flowmesh_job_is_settled(job) == 0 && flowmesh_job_remaining_ms(job) > 0);
    switch (what[0]) {
    case 'r': return flowmesh_handler_reject("never");
    case 's': return flowmesh_job_attempt(job) == 1 && work->seen < 100 ? (work->seen += 100, flowmesh_handler_snooze(1))
                                                                        : flowmesh_job_set_result(job, "snoozed", 7);
    case 'l': return work->go_on++ == 0 ? FLOWMESH_HANDLER_RELEASE : FLOWMESH_OK;
    case 'f': return flowmesh_handler_error("ParseError", "line 3");
    case 't': return flowmesh_queue_next(NULL, 0, NULL); /* any status fails it */
    case 'a': return flowmesh_job_ack(job, "itself", 6, NULL);
    case 'k': /* what is kept or freed in spite of the rules does no harm */
        work->kept = job;
        CHECK_OK(flowmesh_job_set_result(job, "kept", 4));
        if (payload.size > 1)
            CHECK_OK(flowmesh_job_free(job));
        return FLOWMESH_OK;
    case 'h':
        work->running = 1;
        while (flowmesh_job_is_cancelled(job) == 0)
            sleep_ms(1);
        work->running = 0;
        return FLOWMESH_OK;
    default: return flowmesh_job_set_result(job, payload.data, payload.size);
    }
}

static void dropped(void *context)
{
    ((struct work *)context)->dropped++;
}

/* Waits until the job is in that state, and checks what it was acked with, or how it failed. */
static void check_ended(flowmesh_queue *queue, const char *id, int32_t state, const char *result, const char *message)
{
    flowmesh_job_list *list;
    flowmesh_job_info info = FLOWMESH_JOB_INFO_INIT;
    flowmesh_failure failure = FLOWMESH_FAILURE_INIT;
    flowmesh_content *content;
    for (;;) {
        CHECK_OK(flowmesh_queue_peek(queue, id, &list));
        CHECK_OK(flowmesh_job_list_get(list, 0, &info));
        if (info.state == state)
            break;
        CHECK_OK(flowmesh_job_list_free(list));
        sleep_ms(1); /* the watchdog ends this */
    }
    if (message != NULL) {
        CHECK_OK(flowmesh_job_list_failure(list, 0, info.failure_count - 1, &failure));
        CHECK_STRING(message, failure.message);
    }
    CHECK_OK(flowmesh_job_list_free(list));
    CHECK_OK(flowmesh_queue_result(queue, id, &content));
    CHECK((content != NULL) == (result != NULL));
    if (result != NULL)
        CHECK_BYTES(result, flowmesh_content_payload(content));
    CHECK_OK(flowmesh_content_free(content));
}

static void workers(flowmesh_mesh *mesh)
{
    static const struct {
        const char *payload;
        int32_t state;
        const char *result, *message;
    } cases[] = {
        {"echo", FLOWMESH_JOB_DONE, "echo", NULL},
        {"reject", FLOWMESH_JOB_DEAD, NULL, "never"},
        {"snooze", FLOWMESH_JOB_DONE, "snoozed", NULL},
        {"leave", FLOWMESH_JOB_DONE, NULL, NULL},
        {"fail", FLOWMESH_JOB_DEAD, NULL, "ParseError: line 3"},
        {"t", FLOWMESH_JOB_DEAD, NULL, NULL},
        {"ack", FLOWMESH_JOB_DONE, "itself", NULL},
        {"k", FLOWMESH_JOB_DONE, "kept", NULL},
        {"keep", FLOWMESH_JOB_DONE, "kept", NULL},
        {"after", FLOWMESH_JOB_DONE, "itself", NULL},
    };
    enum { CASES = sizeof cases / sizeof *cases };
    flowmesh_queue_config config = quick();
    flowmesh_worker_stats stats = FLOWMESH_WORKER_STATS_INIT;
    flowmesh_receipt receipts[CASES], receipt;
    flowmesh_worker *worker;
    struct work work = {0};
    config.max_attempts = 1;
    config.keep_done.age_ms = 3600000;
    flowmesh_queue *queue = declared(mesh, "work", &config);
    CHECK_OK(flowmesh_worker_start(queue, NULL, handle, &work, dropped, &worker));
    for (size_t i = 0; i < CASES; i++) {
        CHECK_OK(flowmesh_queue_enqueue(queue, cases[i].payload, strlen(cases[i].payload), NULL, &receipts[i]));
        check_ended(queue, receipts[i].id, cases[i].state, cases[i].result, cases[i].message);
    }
    CHECK_STATUS(FLOWMESH_ERR_BAD_HANDLE, flowmesh_job_ack(work.kept, NULL, 0, NULL));
    CHECK(flowmesh_worker_is_running(worker) == 1);
    CHECK_OK(flowmesh_worker_error(worker));

    /* Stopping gives back what is not finished, and the handler hears of it. */
    CHECK_OK(flowmesh_queue_enqueue(queue, "hold", 4, NULL, &receipt));
    wait_for(&work.running);
    CHECK_STATUS(FLOWMESH_ERR_TIMEOUT, flowmesh_worker_stop(worker, 20));
    CHECK_OK(flowmesh_worker_stop(worker, SOON_MS));
    CHECK(flowmesh_worker_is_running(worker) == 0 && work.running == 0);
    check_ended(queue, receipt.id, FLOWMESH_JOB_READY, NULL, NULL);
    CHECK_OK(flowmesh_worker_get_stats(worker, &stats));
    CHECK(stats.running == 0 && stats.done == 5 && stats.rejected == 1 && stats.failed == 2 && stats.lost == 0);
    CHECK(stats.released == 3);
    CHECK_OK(flowmesh_worker_free(worker));
    wait_for(&work.dropped); /* with the last thread */
    CHECK(work.dropped == 1);

    /* Freed, it lets its handlers finish; and the queue's handle may go before. */
    CHECK_OK(flowmesh_queue_remove(queue, receipt.id));
    work = (struct work){0};
    CHECK_OK(flowmesh_worker_start(queue, NULL, handle, &work, dropped, &worker));
    CHECK_OK(flowmesh_queue_enqueue(queue, "hold", 4, NULL, &receipt));
    wait_for(&work.running);
    CHECK_OK(flowmesh_worker_free(worker));
    CHECK(work.dropped == 0);
    CHECK_OK(flowmesh_queue_cancel(queue, receipt.id, NULL, NULL));
    check_ended(queue, receipt.id, FLOWMESH_JOB_CANCELLED, NULL, NULL);
    wait_for(&work.dropped);
    CHECK_OK(flowmesh_queue_free(queue));
}

static void a_closed_mesh_ends_its_workers(flowmesh_mesh *mesh)
{
    flowmesh_queue_config config = quick();
    flowmesh_queue *queue = declared(mesh, "closing", &config);
    flowmesh_worker *worker;
    struct work work = {0};
    CHECK_OK(flowmesh_worker_start(queue, NULL, handle, &work, dropped, &worker));
    CHECK_OK(flowmesh_mesh_close(mesh));
    while (flowmesh_worker_is_running(worker) == 1)
        sleep_ms(1);
    CHECK_STATUS(FLOWMESH_ERR_CLOSED, flowmesh_worker_error(worker));
    CHECK_OK(flowmesh_worker_stop(worker, -1));
    CHECK_OK(flowmesh_worker_free(worker));
    wait_for(&work.dropped);
    CHECK_OK(flowmesh_queue_free(queue));
}

/* A directory that was damaged says where, and opens with repair alone. */
static void damage_is_found_and_moved_aside(void)
{
    char directory[96], path[160];
    char payload[2000];
    flowmesh_mesh *mesh;
    flowmesh_queue *queue;
    flowmesh_inspection *inspection;
    flowmesh_inspected found = FLOWMESH_INSPECTED_INIT;
    flowmesh_damage damage = FLOWMESH_DAMAGE_INIT;
    flowmesh_segment segment = FLOWMESH_SEGMENT_INIT;
    flowmesh_checkpoint checkpoint = FLOWMESH_CHECKPOINT_INIT;
    flowmesh_open_options options = FLOWMESH_OPEN_OPTIONS_INIT;
    memset(payload, 'x', sizeof payload);
    snprintf(directory, sizeof directory, "%s/damaged", check_directory);
    snprintf(path, sizeof path, "%s/ledger/00000001.fmj", directory);
    CHECK_OK(flowmesh_open(directory, NULL, &mesh));
    queue = declared(mesh, "q", NULL);
    for (int i = 0; i < 4; i++)
        CHECK_OK(flowmesh_queue_enqueue(queue, payload, sizeof payload, NULL, NULL));
    CHECK_OK(flowmesh_queue_free(queue));
    CHECK_OK(flowmesh_mesh_free(mesh));

    CHECK_OK(flowmesh_inspect(directory, &inspection));
    CHECK_OK(flowmesh_inspection_get(inspection, &found));
    CHECK(found.damage_count == 0 && found.segment_count >= 1 && found.batches >= 5 && found.first_batch == 1);
    CHECK_OK(flowmesh_inspection_segment(inspection, 0, &segment));
    CHECK(strstr(segment.file, "00000001.fmj") != NULL && segment.end > 8000 && segment.bytes >= segment.end);
    CHECK_STATUS(FLOWMESH_ERR_NOT_FOUND, flowmesh_inspection_damage(inspection, 0, &damage));
    CHECK_STATUS(FLOWMESH_ERR_NOT_FOUND,
                 flowmesh_inspection_checkpoint(inspection, found.checkpoint_count, &checkpoint));
    CHECK_OK(flowmesh_inspection_free(inspection));

    FILE *file = fopen(path, "r+b");
    CHECK(file != NULL && fseek(file, 5000, SEEK_SET) == 0 && fputc('!', file) == '!' && fclose(file) == 0);
    CHECK_OK(flowmesh_inspect(directory, &inspection));
    CHECK_OK(flowmesh_inspection_get(inspection, &found));
    CHECK(found.damage_count >= 1);
    CHECK_OK(flowmesh_inspection_damage(inspection, 0, &damage));
    CHECK(strstr(damage.file, "00000001.fmj") != NULL && damage.offset > 0 && damage.offset <= 5000);
    CHECK(strlen(damage.what) > 3);
    CHECK_STATUS(FLOWMESH_ERR_CORRUPT, flowmesh_open(directory, NULL, &mesh));
    CHECK(mesh == NULL && flowmesh_error_get("file") != NULL && flowmesh_error_get("offset") != NULL);
    CHECK(strstr(flowmesh_error_get("file"), "00000001.fmj") != NULL);
    CHECK_OK(flowmesh_inspection_free(inspection));
    options.repair = 1;
    CHECK_OK(flowmesh_open(directory, &options, &mesh));
    CHECK_OK(flowmesh_queue_open(mesh, "q", &queue));
    CHECK(stats_of(queue).ready > 0 && stats_of(queue).ready < 4); /* what is sound is kept */
    CHECK_OK(flowmesh_queue_free(queue));
    CHECK_OK(flowmesh_mesh_free(mesh));
}

static void everywhere(void (*test)(flowmesh_mesh *))
{
    for (int as = 0; as < 3; as++) {
        char directory[96];
        flowmesh_mesh *host, *client = NULL;
        static int round;
        snprintf(directory, sizeof directory, "%s/%d", check_directory, round++);
        CHECK_OK(flowmesh_open(directory, NULL, &host));
        if (as > 0) {
            flowmesh_open_options options = FLOWMESH_OPEN_OPTIONS_INIT;
            options.shared_memory = as == 1;
            CHECK_OK(flowmesh_connect(directory, &options, &client));
        }
        test(as > 0 ? client : host);
        CHECK_OK(flowmesh_mesh_free(client));
        CHECK_OK(flowmesh_mesh_free(host));
    }
}

int main(void)
{
    check_start();
    everywhere(a_job_is_enqueued_reserved_and_acked);
    everywhere(a_job_that_is_done_brings_the_next);
    everywhere(jobs_in_lots);
    everywhere(what_a_worker_may_say);
    everywhere(listing_goes_on_where_it_stopped);
    everywhere(settings_come_back);
    everywhere(schedules_come_back);
    everywhere(waiting_without_blocking);
    everywhere(saying_without_blocking);
    everywhere(freeing_wakes_who_waits);
    everywhere(workers);
    everywhere(a_closed_mesh_ends_its_workers);
    damage_is_found_and_moved_aside();
    return check_end("queues");
}
