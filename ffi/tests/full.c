/* A disk that is full, and has room again: what is said of jobs is refused, told again, and done once.
 *
 * The disk is full for this process alone: it may write no file beyond 4 KiB, which the ledger has passed. The kernel
 * refuses such writes like those of a full disk, to any user and on any file system. */
#include "check.h"

#include <sys/resource.h>

static void disk_is_full(int full)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    limit.rlim_cur = full ? 4096 : limit.rlim_max;
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

/* A job that is held until it is let go. */
struct held {
    volatile int inside, let_go, left;
};

static flowmesh_status hold(void *context, flowmesh_job *job)
{
    struct held *held = context;
    held->inside++;
    while (!held->let_go)
        sleep_ms(1); /* the watchdog ends this */
    CHECK_OK(flowmesh_job_set_result(job, "kept", 4));
    held->left++;
    return FLOWMESH_OK;
}

static int32_t state_of(flowmesh_queue *queue, const flowmesh_receipt *receipt)
{
    flowmesh_job_list *list;
    flowmesh_job_info info = FLOWMESH_JOB_INFO_INIT;
    CHECK_OK(flowmesh_queue_peek(queue, receipt->id, &list));
    CHECK_OK(flowmesh_job_list_get(list, 0, &info));
    CHECK_OK(flowmesh_job_list_free(list));
    CHECK(info.attempt <= 1 && info.failure_count == 0);
    return info.state;
}

static void refused(flowmesh_mesh *mesh, flowmesh_queue *queue)
{
    flowmesh_queue *none;
    flowmesh_receipt receipt = {{'x'}, {'x'}, 7, 7};
    flowmesh_new_job jobs[] = {{"a", 1, NULL}, {"b", 1, NULL}};
    CHECK_STATUS(FLOWMESH_ERR_STORAGE_FULL, flowmesh_queue_enqueue(queue, "refused", 7, NULL, &receipt));
    CHECK(receipt.id[0] == '\0' && flowmesh_status_is_retryable(FLOWMESH_ERR_STORAGE_FULL) == 1);
    CHECK_STATUS(FLOWMESH_ERR_STORAGE_FULL, flowmesh_queue_enqueue_many(queue, jobs, 2, NULL, NULL));
    CHECK_STATUS(FLOWMESH_ERR_STORAGE_FULL, flowmesh_queue_declare(mesh, "refused", NULL, &none));
    CHECK(none == NULL);
}

/* Of one job the outcome is told by a worker, of the other by hand. */
static void nothing_is_lost(flowmesh_mesh *mesh, const char *name, int32_t durability, int rounds,
                            flowmesh_receipt receipts[2])
{
    static char large[8192];
    flowmesh_queue_config config = FLOWMESH_QUEUE_CONFIG_INIT;
    flowmesh_queue_stats stats = FLOWMESH_QUEUE_STATS_INIT;
    flowmesh_worker_stats worked = FLOWMESH_WORKER_STATS_INIT;
    flowmesh_queue *queue;
    flowmesh_job *job;
    flowmesh_job_answer *answer;
    flowmesh_worker *worker;
    flowmesh_content *result;
    struct held held = {0};
    int32_t reached;
    config.durability = durability;
    CHECK_OK(flowmesh_queue_declare(mesh, name, &config, &queue));
    CHECK_OK(flowmesh_queue_enqueue(queue, large, sizeof large, NULL, &receipts[0]));
    CHECK_OK(flowmesh_queue_next(queue, SOON_MS, &job));
    CHECK_OK(flowmesh_queue_enqueue(queue, "x", 1, NULL, &receipts[1]));
    CHECK_OK(flowmesh_worker_start(queue, NULL, hold, &held, NULL, &worker));
    while (!held.inside)
        sleep_ms(1);

    disk_is_full(1);
    refused(mesh, queue);
    held.let_go = 1;
    while (!held.left)
        sleep_ms(1);
    CHECK_STATUS(FLOWMESH_ERR_STORAGE_FULL, flowmesh_job_ack(job, "by hand", 7, &reached));
    CHECK_OK(flowmesh_job_ack_start(job, "by hand", 7, &answer));
    CHECK_STATUS(FLOWMESH_ERR_STORAGE_FULL, flowmesh_job_answer_wait(answer, SOON_MS, NULL));
    CHECK_OK(flowmesh_job_answer_free(answer));
    CHECK_STATUS(FLOWMESH_ERR_STORAGE_FULL, flowmesh_job_extend(job, 60000, NULL));
    CHECK(flowmesh_job_is_cancelled(job) == 0 && flowmesh_job_remaining_ms(job) > 0);
    /* Long enough for the worker to be refused, and again: it does not give up while the job is its own. */
    for (int i = 0; i < rounds; i++) {
        CHECK(state_of(queue, &receipts[0]) == FLOWMESH_JOB_LEASED && flowmesh_job_is_settled(job) == 0);
        CHECK(state_of(queue, &receipts[1]) == FLOWMESH_JOB_LEASED);
        CHECK_OK(flowmesh_worker_get_stats(worker, &worked));
        CHECK(worked.running == 1 && worked.done == 0 && flowmesh_worker_is_running(worker) == 1);
        sleep_ms(20);
    }
    refused(mesh, queue);

    disk_is_full(0);
    while (state_of(queue, &receipts[1]) != FLOWMESH_JOB_DONE)
        sleep_ms(1);
    CHECK_OK(flowmesh_job_ack(job, "by hand", 7, &reached));
    CHECK(reached == durability && state_of(queue, &receipts[0]) == FLOWMESH_JOB_DONE);
    CHECK_OK(flowmesh_worker_stop(worker, SOON_MS));
    CHECK_OK(flowmesh_worker_get_stats(worker, &worked));
    CHECK(worked.done == 1 && worked.lost == 0 && worked.failed == 0 && worked.released == 0);
    CHECK(held.inside == 1 && held.left == 1);
    CHECK_OK(flowmesh_queue_get_stats(queue, &stats));
    CHECK(stats.total_enqueued == 2 && stats.total_done == 2 && stats.done == 2 && stats.ready == 0);
    CHECK_OK(flowmesh_queue_result(queue, receipts[1].id, &result));
    CHECK_BYTES("kept", flowmesh_content_payload(result));
    CHECK_OK(flowmesh_content_free(result));
    CHECK_OK(flowmesh_worker_free(worker));
    CHECK_OK(flowmesh_job_free(job));
    CHECK_OK(flowmesh_queue_free(queue));
}

int main(void)
{
    static const struct {
        const char *name;
        int32_t durability;
    } cases[] = {{"os", FLOWMESH_DURABILITY_OS}, {"fsync", FLOWMESH_DURABILITY_FSYNC}};
    const char *directory = check_start();
    flowmesh_mesh *host, *client;
    flowmesh_queue *queue;
    flowmesh_receipt receipts[4][2];
    char name[32];
    CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR); /* which comes with the refusal, and would end the process */
    CHECK_OK(flowmesh_open(directory, NULL, &host));
    CHECK_OK(flowmesh_connect(directory, NULL, &client));
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%s-%d", cases[i % 2].name, i);
        nothing_is_lost(i < 2 ? host : client, name, cases[i % 2].durability, i == 0 ? 300 : 25, receipts[i]);
    }
    CHECK_OK(flowmesh_mesh_free(client));
    CHECK_OK(flowmesh_mesh_free(host));

    /* What is on the disk is what was said to be there. */
    CHECK_OK(flowmesh_open(directory, NULL, &host));
    CHECK_STATUS(FLOWMESH_ERR_NOT_FOUND, flowmesh_queue_open(host, "refused", &queue));
    for (int i = 0; i < 4; i++) {
        flowmesh_queue_stats stats = FLOWMESH_QUEUE_STATS_INIT;
        snprintf(name, sizeof name, "%s-%d", cases[i % 2].name, i);
        CHECK_OK(flowmesh_queue_open(host, name, &queue));
        CHECK_OK(flowmesh_queue_get_stats(queue, &stats));
        CHECK(stats.done == 2 && stats.ready == 0 && stats.leased == 0 && stats.dead == 0);
        CHECK(state_of(queue, &receipts[i][0]) == FLOWMESH_JOB_DONE);
        CHECK(state_of(queue, &receipts[i][1]) == FLOWMESH_JOB_DONE);
        CHECK_OK(flowmesh_queue_enqueue(queue, "more", 4, NULL, NULL));
        CHECK_OK(flowmesh_queue_free(queue));
    }
    CHECK_OK(flowmesh_mesh_free(host));
    return check_end("full");
}
