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
    (void)quick;
    return check_end("queues");
}
