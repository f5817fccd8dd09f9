/* The C client of the demo: CRC-32C and line count of every file that the host publishes.
 *
 * It serves `checksum.crc32c` to the others, and calls two services of theirs for each file: `files.kind` of the
 * Python host, and `words.count` of the Node client, whose answer the host compares with what Node itself reports.
 *
 *     checksums DIRECTORY      the mesh's directory
 */
#include <flowmesh.h>

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { KIND_BYTES = 512, WORDS_BYTES_MAX = 256 * 1024, RETRY_SECONDS = 20 };

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

/* Calls, and calls again while nobody answers: the instance may just have died, and another be on its way. */
static void ask(flowmesh_mesh *mesh, const char *service, flowmesh_bytes payload, char *answer, size_t answer_bytes)
{
    const struct timespec pause = {0, 20 * 1000 * 1000};
    const time_t give_up = time(NULL) + RETRY_SECONDS;
    flowmesh_message *reply = NULL;
    while (flowmesh_call(mesh, service, payload.data, payload.size, NULL, &reply) != FLOWMESH_OK) {
        flowmesh_status status = flowmesh_error_code();
        if (status == FLOWMESH_ERR_DISCONNECTED || !flowmesh_status_is_retryable(status) || time(NULL) > give_up)
            stop(service);
        nanosleep(&pause, NULL);
    }
    flowmesh_bytes text = flowmesh_message_payload(reply);
    snprintf(answer, answer_bytes, "%.*s", (int)text.size, text.size > 0 ? (const char *)text.data : "");
    flowmesh_message_free(reply);
}

static void take(flowmesh_mesh *mesh, const flowmesh_message *file)
{
    flowmesh_bytes bytes = flowmesh_message_payload(file);
    char kind[16], words[24] = "", lines[24], crc[9];

    flowmesh_bytes start = {bytes.data, bytes.size < KIND_BYTES ? bytes.size : KIND_BYTES};
    ask(mesh, "files.kind", start, kind, sizeof kind);
    int is_text = strcmp(kind, "text") == 0;
    if (is_text && bytes.size <= WORDS_BYTES_MAX)
        ask(mesh, "words.count", bytes, words, sizeof words);
    snprintf(lines, sizeof lines, "%zu", is_text ? count_lines(bytes) : 0);
    snprintf(crc, sizeof crc, "%08" PRIx32, crc32c(bytes));

    flowmesh_header headers[] = {
        {"number", flowmesh_message_header(file, "number").data},
        {"crc32c", crc},
        {"lines", lines},
        {"words", words},
    };
    flowmesh_publish_options options = FLOWMESH_PUBLISH_OPTIONS_INIT;
    options.headers = headers;
    options.header_count = sizeof headers / sizeof *headers;
    if (flowmesh_publish(mesh, "results.checksums", NULL, 0, &options, NULL) != FLOWMESH_OK)
        stop("publish");
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
    flowmesh_subscription *files = NULL;
    if (flowmesh_subscribe(mesh, "files.*", NULL, &files) != FLOWMESH_OK)
        stop("subscribe");
    if (flowmesh_publish(mesh, "workers.ready", "checksums", 9, NULL, NULL) != FLOWMESH_OK)
        stop("publish");

    for (int going = 1; going;) {
        flowmesh_message *event = NULL;
        if (flowmesh_subscription_receive(files, -1, &event) != FLOWMESH_OK)
            stop("receive");
        if (flowmesh_message_gap(event) > 0) {
            fprintf(stderr, "checksums: %" PRIu64 " files were lost\n", flowmesh_message_gap(event));
            return 1;
        }
        const char *subject = flowmesh_message_subject(event).data;
        const char *target = flowmesh_message_header(event, "for").data;
        if (strcmp(subject, "files.end") == 0)
            going = 0;
        else if (target == NULL || strcmp(target, "checksums") == 0)
            take(mesh, event);
        flowmesh_message_free(event);
    }

    flowmesh_subscription_free(files);
    flowmesh_service_free(service);
    flowmesh_mesh_free(mesh);
    return 0;
}
