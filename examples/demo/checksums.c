/* The C worker of the demo: CRC-32C and line count of every file that the host enqueues.
 *
 * It serves `checksum.crc32c` to the others, and calls two services of theirs for each file: `files.kind` of the
 * Python host, and `words.count` of the Node worker, whose answer the host compares with what Node itself reports.
 * Who fails to answer fails the job, which is tried again. A job with the header `hold` is held at its first attempt:
 * the host kills this process while it has it.
 *
 *     checksums DIRECTORY      the mesh's directory
 */
#include <flowmesh.h>

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KIND_BYTES = 512, WORDS_BYTES_MAX = 256 * 1024 };

static uint32_t crc_table[256];

static void crc_init(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
        crc_table[byte] = crc;
    }
}

static uint32_t crc32c(flowmesh_bytes bytes)
{
    const unsigned char *at = bytes.data;
    uint32_t crc = 0xffffffffu;
    for (size_t left = bytes.size; left > 0; left--)
        crc = crc_table[(crc ^ *at++) & 0xff] ^ crc >> 8;
    return crc ^ 0xffffffffu;
}

static size_t count_lines(flowmesh_bytes bytes)
{
    const char *at = bytes.data, *end = at + bytes.size;
    size_t lines = 0;
    while (at < end && (at = memchr(at, '\n', (size_t)(end - at))) != NULL) {
        lines++;
        at++;
    }
    return lines;
}

static void stop(const char *what)
{
    fprintf(stderr, "checksums: %s: %s\n", what, flowmesh_error_message());
    exit(1);
}

static flowmesh_status answer_crc(void *context, flowmesh_request *request)
{
    (void)context;
    char text[9];
    snprintf(text, sizeof text, "%08" PRIx32, crc32c(flowmesh_request_payload(request)));
    return flowmesh_request_reply(request, text, 8, NULL, 0);
}

static flowmesh_status ask(flowmesh_mesh *mesh, const char *service, flowmesh_bytes payload, char *answer, size_t size)
{
    flowmesh_message *reply = NULL;
    flowmesh_status status = flowmesh_call(mesh, service, payload.data, payload.size, NULL, &reply);
    if (status != FLOWMESH_OK)
        return status;
    flowmesh_bytes text = flowmesh_message_payload(reply);
    snprintf(answer, size, "%.*s", (int)text.size, text.size > 0 ? (const char *)text.data : "");
    flowmesh_message_free(reply);
    return FLOWMESH_OK;
}

/* A status other than FLOWMESH_OK fails the attempt, with the message of the call that failed. */
static flowmesh_status count(void *context, flowmesh_job *job)
{
    flowmesh_mesh *mesh = context;
    flowmesh_bytes bytes = flowmesh_job_payload(job);
    char kind[16], words[24] = "", result[96];

    if (flowmesh_job_header(job, "hold").data != NULL && flowmesh_job_attempt(job) == 1) {
        if (flowmesh_publish(mesh, "workers.holding", "checksums", 9, NULL, NULL) != FLOWMESH_OK)
            return flowmesh_error_code();
        for (;;)
            pause();
    }
    flowmesh_bytes start = {bytes.data, bytes.size < KIND_BYTES ? bytes.size : KIND_BYTES};
    flowmesh_status status = ask(mesh, "files.kind", start, kind, sizeof kind);
    int is_text = status == FLOWMESH_OK && strcmp(kind, "text") == 0;
    if (is_text && bytes.size <= WORDS_BYTES_MAX)
        status = ask(mesh, "words.count", bytes, words, sizeof words);
    if (status != FLOWMESH_OK)
        return status;
    int size = snprintf(result, sizeof result, "{\"crc32c\":\"%08" PRIx32 "\",\"lines\":%zu,\"words\":\"%s\",\"attempt\":%u}",
                        crc32c(bytes), is_text ? count_lines(bytes) : 0, words, (unsigned)flowmesh_job_attempt(job));
    return flowmesh_job_set_result(job, result, (size_t)size);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
        return 2;
    }
    crc_init();

    flowmesh_mesh *mesh = NULL;
    flowmesh_open_options options = FLOWMESH_OPEN_OPTIONS_INIT;
    options.name = "checksums";
    if (flowmesh_connect(argv[1], &options, &mesh) != FLOWMESH_OK)
        stop("connect");

    flowmesh_service *service = NULL;
    if (flowmesh_serve(mesh, "checksum.crc32c", NULL, answer_crc, NULL, NULL, &service) != FLOWMESH_OK)
        stop("serve");
    flowmesh_subscription *end = NULL;
    if (flowmesh_subscribe(mesh, "files.end", NULL, &end) != FLOWMESH_OK)
        stop("subscribe");

    flowmesh_queue *queue = NULL;
    flowmesh_worker *worker = NULL;
    flowmesh_worker_options work = FLOWMESH_WORKER_OPTIONS_INIT;
    work.concurrency = 2;
    if (flowmesh_queue_open(mesh, "checksums", &queue) != FLOWMESH_OK ||
        flowmesh_worker_start(queue, &work, count, mesh, NULL, &worker) != FLOWMESH_OK)
        stop("work");
    if (flowmesh_publish(mesh, "workers.ready", "checksums", 9, NULL, NULL) != FLOWMESH_OK)
        stop("publish");

    flowmesh_message *event = NULL;
    if (flowmesh_subscription_receive(end, -1, &event) != FLOWMESH_OK)
        stop("receive");
    flowmesh_message_free(event);
    if (flowmesh_worker_stop(worker, -1) != FLOWMESH_OK)
        stop("stop");
    flowmesh_worker_free(worker);
    flowmesh_queue_free(queue);
    flowmesh_subscription_free(end);
    flowmesh_service_free(service);
    flowmesh_mesh_free(mesh);
    return 0;
}
