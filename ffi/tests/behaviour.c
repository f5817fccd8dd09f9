/* Runs the scenarios of tests/behaviour/ through the C API. What the steps mean is written in its README.md.
 *
 *     behaviour FILE...
 */
#include <flowmesh.h>

#include <cjson/cJSON.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { WATCHDOG_MS = 10000, PAUSE_MS = 2, NAMES_MAX = 256 };

/* What a step returns beside a status: it did something else than the scenario says. `reason` tells what. */
enum { MISMATCH = 1 };
static char reason[1024];

__attribute__((format(printf, 1, 2))) static flowmesh_status mismatch(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    return MISMATCH;
}

#define TRY(call)                       \
    do {                                \
        flowmesh_status tried = (call); \
        if (tried != FLOWMESH_OK)       \
            return tried;               \
    } while (0)

static void die(const char *what)
{
    fprintf(stderr, "behaviour: %s\n", what);
    exit(2);
}

static void *must(void *memory)
{
    if (memory == NULL)
        die("no memory");
    return memory;
}

static long long now_ms(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000LL + time.tv_nsec / 1000000;
}

static void sleep_ms(long long ms)
{
    struct timespec time = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    nanosleep(&time, NULL);
}

/* ---------- fields of a step */

static const char *text(const cJSON *object, const char *field, const char *otherwise)
{
    const cJSON *found = cJSON_GetObjectItemCaseSensitive(object, field);
    if (found == NULL)
        return otherwise;
    return cJSON_IsString(found) ? found->valuestring : "(not a text)";
}

static double number(const cJSON *object, const char *field, double otherwise)
{
    const cJSON *found = cJSON_GetObjectItemCaseSensitive(object, field);
    return cJSON_IsNumber(found) ? found->valuedouble : otherwise;
}

struct bytes {
    char *data;
    size_t size;
};

/* A string, {"hex": …} or {"repeat": …, "count": …}; what is not there is empty. */
static struct bytes bytes_of(const cJSON *value)
{
    struct bytes bytes = {must(calloc(1, 1)), 0};
    if (cJSON_IsString(value)) {
        free(bytes.data);
        bytes.data = must(strdup(value->valuestring));
        bytes.size = strlen(bytes.data);
    } else if (cJSON_HasObjectItem(value, "hex")) {
        const char *hex = text(value, "hex", "");
        bytes.size = strlen(hex) / 2;
        bytes.data = must(realloc(bytes.data, bytes.size + 1));
        for (size_t i = 0; i < bytes.size; i++) {
            unsigned byte;
            if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
                die("two hexadecimal digits are needed");
            bytes.data[i] = (char)byte;
        }
    } else if (cJSON_HasObjectItem(value, "repeat")) {
        const char *once = text(value, "repeat", "");
        size_t count = (size_t)number(value, "count", 0), each = strlen(once);
        bytes.size = count * each;
        bytes.data = must(realloc(bytes.data, bytes.size + 1));
        for (size_t i = 0; i < count; i++)
            memcpy(bytes.data + i * each, once, each);
    } else if (value != NULL) {
        die("bytes are a text, {hex} or {repeat, count}");
    }
    return bytes;
}

struct headers {
    flowmesh_header *list;
    size_t count;
};

/* Borrowed from the step's JSON, but for the list. */
static struct headers headers_of(const cJSON *object)
{
    struct headers headers = {NULL, (size_t)cJSON_GetArraySize(object)};
    headers.list = must(calloc(headers.count + 1, sizeof *headers.list));
    size_t index = 0;
    const cJSON *header;
    cJSON_ArrayForEach(header, object)
        headers.list[index++] = (flowmesh_header){header->string, header->valuestring};
    return headers;
}

/* ---------- handlers */

/* What a handler does and saw. Shared by the scenario and the service: the last of them frees it. */
struct seen {
    atomic_int owners;
    atomic_ullong started, cancelled;
    atomic_bool stop;
    cJSON *handler;
    /* The jobs that it was called with, where it has to know them again. */
    cJSON *jobs;
    pthread_mutex_t lock;
};

static struct seen *new_seen(const cJSON *handler)
{
    struct seen *seen = must(calloc(1, sizeof *seen));
    atomic_init(&seen->owners, 2);
    seen->handler = must(cJSON_Duplicate(handler, 1));
    seen->jobs = must(cJSON_CreateObject());
    pthread_mutex_init(&seen->lock, NULL);
    return seen;
}

static void let_go(void *context)
{
    struct seen *seen = context;
    if (atomic_fetch_sub(&seen->owners, 1) == 1) {
        cJSON_Delete(seen->handler);
        cJSON_Delete(seen->jobs);
        pthread_mutex_destroy(&seen->lock);
        free(seen);
    }
}

static void wait_for_the_end(struct seen *seen, flowmesh_request *request, double longest_ms)
{
    long long start = now_ms();
    while ((longest_ms < 0 || now_ms() - start < longest_ms) && !atomic_load(&seen->stop)) {
        if (flowmesh_request_is_cancelled(request) != 0) {
            atomic_fetch_add(&seen->cancelled, 1);
            return;
        }
        sleep_ms(PAUSE_MS);
    }
}

static flowmesh_status echo(flowmesh_request *request)
{
    const flowmesh_message *message = flowmesh_request_message(request);
    flowmesh_bytes payload = flowmesh_request_payload(request);
    size_t count = flowmesh_message_header_count(message);
    flowmesh_header *headers = must(calloc(count + 1, sizeof *headers));
    for (size_t i = 0; i < count; i++) {
        flowmesh_text name, value;
        if (flowmesh_message_header_at(message, i, &name, &value) == FLOWMESH_OK)
            headers[i] = (flowmesh_header){name.data, value.data};
    }
    flowmesh_status status = flowmesh_request_reply(request, payload.data, payload.size, headers, count);
    free(headers);
    return status;
}

static flowmesh_status handle(void *context, flowmesh_request *request)
{
    struct seen *seen = context;
    const cJSON *handler = seen->handler, *value;
    const char *name = cJSON_IsString(handler) ? handler->valuestring : "";
    flowmesh_status status;
    atomic_fetch_add(&seen->started, 1);
    if (strcmp(name, "echo") == 0)
        return echo(request);
    if (strcmp(name, "never") == 0) {
        wait_for_the_end(seen, request, -1);
        return flowmesh_request_reply(request, NULL, 0, NULL, 0);
    }
    if (strcmp(name, "upper") == 0) {
        flowmesh_bytes payload = flowmesh_request_payload(request);
        char *upper = must(malloc(payload.size + 1));
        for (size_t i = 0; i < payload.size; i++) {
            char byte = ((const char *)payload.data)[i];
            upper[i] = byte >= 'a' && byte <= 'z' ? (char)(byte - 'a' + 'A') : byte;
        }
        status = flowmesh_request_reply(request, upper, payload.size, NULL, 0);
        free(upper);
        return status;
    }
    if ((value = cJSON_GetObjectItemCaseSensitive(handler, "reply")) != NULL) {
        struct bytes reply = bytes_of(value);
        status = flowmesh_request_reply(request, reply.data, reply.size, NULL, 0);
        free(reply.data);
        return status;
    }
    if ((value = cJSON_GetObjectItemCaseSensitive(handler, "fail")) != NULL)
        return flowmesh_handler_error(text(value, "type", ""), text(value, "message", ""));
    wait_for_the_end(seen, request, number(handler, "echo_after", 0));
    return echo(request);
}

static int is_known_handler(const cJSON *handler)
{
    if (cJSON_IsString(handler))
        return strcmp(handler->valuestring, "echo") == 0 || strcmp(handler->valuestring, "upper") == 0 ||
               strcmp(handler->valuestring, "never") == 0;
    return cJSON_HasObjectItem(handler, "reply") || cJSON_HasObjectItem(handler, "fail") ||
           cJSON_HasObjectItem(handler, "echo_after");
}

/* ---------- what a scenario has named */

struct named {
    enum { MESH, SUBSCRIPTION, SERVICE, CALL, QUEUE, JOB, RESERVATION, WORKER, ID, CURSOR } kind;
    char *name;
    void *handle;
    struct seen *seen;
};

struct impostor {
    pthread_t thread;
    int listener;
};

static struct {
    char directory[64];
    const cJSON *options;
    struct named names[NAMES_MAX];
    size_t name_count;
    struct impostor impostors[8];
    size_t impostor_count;
    long long mark;
} world;

static void free_handle(struct named *named)
{
    switch (named->kind) {
    case MESH: flowmesh_mesh_free(named->handle); break;
    case SUBSCRIPTION: flowmesh_subscription_free(named->handle); break;
    case SERVICE: flowmesh_service_free(named->handle); break;
    case CALL: flowmesh_pending_free(named->handle); break;
    case QUEUE: flowmesh_queue_free(named->handle); break;
    case JOB: flowmesh_job_free(named->handle); break;
    case RESERVATION: flowmesh_reservation_free(named->handle); break;
    case WORKER: flowmesh_worker_free(named->handle); break;
    case ID:
    case CURSOR: free(named->handle); break;
    }
    if (named->seen != NULL)
        let_go(named->seen);
    named->handle = NULL;
    named->seen = NULL;
}

static struct named *find(int kind, const char *name)
{
    for (size_t i = 0; i < world.name_count; i++)
        if ((int)world.names[i].kind == kind && strcmp(world.names[i].name, name) == 0)
            return &world.names[i];
    return NULL;
}

static void keep(int kind, const char *name, void *handle, struct seen *seen)
{
    struct named *named = find(kind, name);
    if (named != NULL) {
        free_handle(named);
    } else {
        if (world.name_count == NAMES_MAX)
            die("too many names in one scenario");
        named = &world.names[world.name_count++];
        named->name = must(strdup(name));
    }
    named->kind = kind;
    named->handle = handle;
    named->seen = seen;
}

/* The handle of that name; a mismatch when there is none. */
static flowmesh_status handle_of(int kind, const char *name, void *out)
{
    struct named *named = find(kind, name);
    if (named == NULL)
        return mismatch("nothing is named %s", name);
    memcpy(out, &named->handle, sizeof named->handle);
    return FLOWMESH_OK;
}

/* ---------- expectations */

static flowmesh_status same_bytes(const char *what, const cJSON *wanted, flowmesh_bytes found)
{
    struct bytes bytes = bytes_of(wanted);
    int same = found.size == bytes.size && (bytes.size == 0 || memcmp(found.data, bytes.data, bytes.size) == 0);
    flowmesh_status status = FLOWMESH_OK;
    if (!same)
        status = mismatch("%s should be \"%.40s\" (%zu bytes) and is \"%.*s\" (%zu bytes)", what, bytes.data,
                          bytes.size, (int)(found.size < 40 ? found.size : 40),
                          found.size > 0 ? (const char *)found.data : "", found.size);
    free(bytes.data);
    return status;
}

static flowmesh_status same_text(const char *what, const cJSON *wanted, flowmesh_text found)
{
    const char *shown = found.data == NULL ? "(none)" : found.data;
    if (cJSON_IsNull(wanted))
        return found.data == NULL ? FLOWMESH_OK : mismatch("%s should not be there and is %s", what, shown);
    if (found.data == NULL || strcmp(found.data, wanted->valuestring) != 0)
        return mismatch("%s should be %s and is %s", what, wanted->valuestring, shown);
    return FLOWMESH_OK;
}

static flowmesh_status same_number(const char *what, const cJSON *wanted, double found)
{
    if (wanted->valuedouble != found)
        return mismatch("%s should be %g and is %g", what, wanted->valuedouble, found);
    return FLOWMESH_OK;
}

/* The event of a queue about that job and attempt, or bytes. */
static flowmesh_status same_payload(const cJSON *wanted, const flowmesh_message *message)
{
    flowmesh_bytes found = flowmesh_message_payload(message);
    if (!cJSON_HasObjectItem(wanted, "job"))
        return same_bytes("payload", wanted, found);
    cJSON *event = cJSON_ParseWithLength(found.data, found.size);
    struct named *job = find(ID, text(wanted, "job", ""));
    flowmesh_status status = FLOWMESH_OK;
    if (event == NULL || job == NULL || strcmp(text(event, "job", ""), job->handle) != 0 ||
        number(event, "attempt", -1) != number(wanted, "attempt", -2))
        status = mismatch("the event is %.*s", (int)found.size, (const char *)found.data);
    cJSON_Delete(event);
    return status;
}

static flowmesh_status check_message(const cJSON *expect, const flowmesh_message *message)
{
    const cJSON *field, *header;
    cJSON_ArrayForEach(field, expect) {
        const char *name = field->string;
        if (strcmp(name, "payload") == 0)
            TRY(same_payload(field, message));
        else if (strcmp(name, "subject") == 0)
            TRY(same_text(name, field, flowmesh_message_subject(message)));
        else if (strcmp(name, "content_type") == 0)
            TRY(same_text(name, field, flowmesh_message_content_type(message)));
        else if (strcmp(name, "priority") == 0)
            TRY(same_number(name, field, flowmesh_message_priority(message)));
        else if (strcmp(name, "gap") == 0)
            TRY(same_number(name, field, (double)flowmesh_message_gap(message)));
        else if (strcmp(name, "attempt") == 0)
            TRY(same_number(name, field, flowmesh_message_attempt(message)));
        else if (strcmp(name, "headers") == 0)
            cJSON_ArrayForEach(header, field)
                TRY(same_text(header->string, header, flowmesh_message_header(message, header->string)));
        else
            return mismatch("the runner does not know the expected field %s", name);
    }
    return FLOWMESH_OK;
}

/* The value at a path of names with `/` between them. An element of a list goes by its name, pattern or number. */
static const cJSON *at_path(const cJSON *value, const char *path)
{
    char *copy = must(strdup(path)), *rest = copy, *key;
    while (value != NULL && (key = strsep(&rest, "/")) != NULL) {
        if (!cJSON_IsArray(value)) {
            value = cJSON_GetObjectItemCaseSensitive(value, key);
            continue;
        }
        const cJSON *item, *found = NULL;
        int index = 0;
        cJSON_ArrayForEach(item, value) {
            char shown[16];
            snprintf(shown, sizeof shown, "%d", index++);
            if (found == NULL && (strcmp(text(item, "name", ""), key) == 0 ||
                                  strcmp(text(item, "pattern", ""), key) == 0 || strcmp(shown, key) == 0))
                found = item;
        }
        value = found;
    }
    free(copy);
    return value;
}

static flowmesh_status compare(const cJSON *expect, const cJSON *found)
{
    const cJSON *wanted;
    cJSON_ArrayForEach(wanted, expect) {
        const cJSON *value = at_path(found, wanted->string);
        const cJSON *least = cJSON_GetObjectItemCaseSensitive(wanted, "at_least");
        int right = value != NULL && cJSON_Compare(value, wanted, 1);
        if (least != NULL)
            right = cJSON_IsNumber(value) && value->valuedouble >= least->valuedouble;
        else if (cJSON_IsNull(wanted))
            right = value == NULL || cJSON_IsNull(value);
        if (!right) {
            char *shown = value == NULL ? NULL : cJSON_PrintUnformatted(value);
            char *should = cJSON_PrintUnformatted(wanted);
            mismatch("%s should be %s and is %s", wanted->string, should, shown == NULL ? "not there" : shown);
            cJSON_free(shown);
            cJSON_free(should);
            return MISMATCH;
        }
    }
    return FLOWMESH_OK;
}

/* Looks again until `check` passes. An error of the mesh ends it at once, a mismatch when the watchdog barks. */
static flowmesh_status until(flowmesh_status (*check)(const cJSON *, void *), const cJSON *step, void *about)
{
    long long deadline = now_ms() + WATCHDOG_MS;
    flowmesh_status status;
    while ((status = check(step, about)) == MISMATCH && now_ms() < deadline)
        sleep_ms(PAUSE_MS);
    return status;
}

static flowmesh_status check_handled(const cJSON *step, void *about)
{
    struct seen *seen = about;
    double started = (double)atomic_load(&seen->started), cancelled = (double)atomic_load(&seen->cancelled);
    if (number(step, "started", started) != started || number(step, "cancelled", cancelled) != cancelled)
        return mismatch("started %g, cancelled %g", started, cancelled);
    return FLOWMESH_OK;
}

static flowmesh_status check_stats(const cJSON *step, void *about)
{
    char *json;
    TRY(flowmesh_stats_json(about, &json));
    cJSON *stats = must(cJSON_Parse(json));
    flowmesh_string_free(json);
    flowmesh_status status = compare(cJSON_GetObjectItemCaseSensitive(step, "expect"), stats);
    cJSON_Delete(stats);
    return status;
}

static flowmesh_status check_subscription_stats(const cJSON *step, void *about)
{
    flowmesh_subscription_stats stats = FLOWMESH_SUBSCRIPTION_STATS_INIT;
    TRY(flowmesh_subscription_get_stats(about, &stats));
    cJSON *found = must(cJSON_CreateObject());
    cJSON_AddStringToObject(found, "pattern", stats.pattern);
    cJSON_AddStringToObject(found, "group", stats.group);
    cJSON_AddNumberToObject(found, "session", stats.session);
    cJSON_AddNumberToObject(found, "delivered", (double)stats.delivered);
    cJSON_AddNumberToObject(found, "delivered_bytes", (double)stats.delivered_bytes);
    cJSON_AddNumberToObject(found, "dropped", (double)stats.dropped);
    cJSON_AddNumberToObject(found, "depth", (double)stats.depth);
    flowmesh_status status = compare(cJSON_GetObjectItemCaseSensitive(step, "expect"), found);
    cJSON_Delete(found);
    return status;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Whether the instances of one service are those wanted. */
static flowmesh_status check_service(const cJSON *wanted, flowmesh_instance_list *list)
{
    size_t count = flowmesh_instance_list_count(list), found = 0;
    const char **versions = must(calloc(count + 1, sizeof *versions));
    flowmesh_status status = FLOWMESH_OK;
    for (size_t i = 0; i < count; i++) {
        flowmesh_instance instance = FLOWMESH_INSTANCE_INIT;
        if (flowmesh_instance_list_get(list, i, &instance) == FLOWMESH_OK && strcmp(instance.service, wanted->string) == 0)
            versions[found++] = instance.version;
    }
    qsort(versions, found, sizeof *versions, by_text);
    if ((double)found != number(wanted, "instances", -1))
        status = mismatch("%s has %zu instances", wanted->string, found);
    const cJSON *wanted_versions = cJSON_GetObjectItemCaseSensitive(wanted, "versions"), *version;
    size_t index = 0;
    cJSON_ArrayForEach(version, wanted_versions) {
        if (status == FLOWMESH_OK && (index >= found || strcmp(versions[index], version->valuestring) != 0))
            status = mismatch("%s does not have version %s", wanted->string, version->valuestring);
        index++;
    }
    free(versions);
    return status;
}

static flowmesh_status check_services(const cJSON *step, void *about)
{
    const cJSON *expect = cJSON_GetObjectItemCaseSensitive(step, "expect"), *wanted;
    flowmesh_instance_list *list;
    flowmesh_status status = FLOWMESH_OK;
    double instances = 0;
    TRY(flowmesh_services(about, &list));
    cJSON_ArrayForEach(wanted, expect) {
        instances += number(wanted, "instances", 0);
        if (status == FLOWMESH_OK)
            status = check_service(wanted, list);
    }
    if (status == FLOWMESH_OK && (double)flowmesh_instance_list_count(list) != instances)
        status = mismatch("there are %zu instances in all", flowmesh_instance_list_count(list));
    flowmesh_instance_list_free(list);
    return status;
}

static flowmesh_status check_info(const cJSON *expect, flowmesh_mesh *mesh)
{
    char pid[16];
    snprintf(pid, sizeof pid, "%u", (unsigned)flowmesh_mesh_host_pid(mesh));
    cJSON *found = must(cJSON_CreateObject());
    cJSON_AddStringToObject(found, "role", flowmesh_mesh_role(mesh) == FLOWMESH_ROLE_HOST ? "host" : "client");
    cJSON_AddNumberToObject(found, "session", flowmesh_mesh_session(mesh));
    cJSON_AddStringToObject(found, "host_pid", pid);
    cJSON_AddNumberToObject(found, "max_message_bytes", (double)flowmesh_mesh_max_message_bytes(mesh));
    cJSON_AddBoolToObject(found, "closed", flowmesh_mesh_is_closed(mesh) == 1);
    flowmesh_status status = compare(expect, found);
    cJSON_Delete(found);
    return status;
}

/* ---------- steps */

static flowmesh_open_options open_options(const char *name)
{
    flowmesh_open_options options = FLOWMESH_OPEN_OPTIONS_INIT;
    options.name = name;
    options.max_message_bytes = (size_t)number(world.options, "max_message_bytes", 0);
    options.ring_bytes = (size_t)number(world.options, "ring_bytes", 0);
    options.max_sessions = (size_t)number(world.options, "max_sessions", 0);
    const cJSON *breaker = cJSON_GetObjectItemCaseSensitive(world.options, "breaker");
    options.breaker = !cJSON_IsFalse(breaker);
    options.breaker_window_ms = (int64_t)number(breaker, "window_ms", 0);
    options.breaker_min_calls = (uint32_t)number(breaker, "min_calls", 0);
    options.breaker_failure_ratio = number(breaker, "failure_ratio", 0);
    options.breaker_open_ms = (int64_t)number(breaker, "open_for_ms", 0);
    options.breaker_open_max_ms = (int64_t)number(breaker, "open_for_max_ms", 0);
    options.breaker_probes = (uint32_t)number(breaker, "probes", 0);
    return options;
}

static const char *path_of(const char *directory, char path[256])
{
    if (directory == NULL)
        return world.directory;
    snprintf(path, 256, "%s/%s", world.directory, directory);
    return path;
}

static flowmesh_status do_open(const cJSON *step)
{
    char path[256];
    flowmesh_mesh *mesh;
    const char *name = text(step, "as", "");
    flowmesh_open_options options = open_options(name);
    options.repair = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(step, "repair"));
    TRY(flowmesh_open(path_of(text(step, "dir", NULL), path), &options, &mesh));
    keep(MESH, name, mesh, NULL);
    return FLOWMESH_OK;
}

static flowmesh_status do_connect(const cJSON *step)
{
    char path[256];
    flowmesh_mesh *mesh;
    const char *name = text(step, "as", "");
    flowmesh_open_options options = open_options(text(step, "name", name));
    options.shared_memory = !cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(step, "shared_memory"));
    TRY(flowmesh_connect(path_of(text(step, "dir", NULL), path), &options, &mesh));
    keep(MESH, name, mesh, NULL);
    return FLOWMESH_OK;
}

/* Whoever connects is told that this is something else. */
static void *answer_as_something_else(void *argument)
{
    static const char answer[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
    struct impostor *impostor = argument;
    int client;
    while ((client = accept(impostor->listener, NULL, NULL)) >= 0) {
        char ignored[256];
        ssize_t done = send(client, answer, sizeof answer - 1, MSG_NOSIGNAL);
        shutdown(client, SHUT_WR);
        done += recv(client, ignored, sizeof ignored, 0); /* the peer may hang up at any point */
        (void)done;
        close(client);
    }
    return NULL;
}

static flowmesh_status do_impostor(const cJSON *step)
{
    char path[256];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct impostor *impostor = &world.impostors[world.impostor_count];
    if (world.impostor_count == sizeof world.impostors / sizeof *world.impostors)
        die("too many impostors");
    path_of(text(step, "dir", ""), path);
    mkdir(path, 0700);
    snprintf(address.sun_path, sizeof address.sun_path, "%.80s/%.20s", path, text(step, "socket", ""));
    impostor->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (impostor->listener < 0 || bind(impostor->listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(impostor->listener, 8) != 0 ||
        pthread_create(&impostor->thread, NULL, answer_as_something_else, impostor) != 0)
        die("the impostor cannot listen");
    world.impostor_count++;
    return FLOWMESH_OK;
}

static flowmesh_status do_close(const cJSON *step)
{
    const char *what = text(step, "what", "");
    struct named *named;
    if ((named = find(MESH, what)) != NULL || (strcmp(what, "me") == 0 && (named = find(MESH, "host")) != NULL))
        return flowmesh_mesh_close(named->handle);
    if ((named = find(SUBSCRIPTION, what)) != NULL)
        return flowmesh_subscription_close(named->handle);
    if ((named = find(SERVICE, what)) == NULL)
        return mismatch("nothing is named %s", what);
    flowmesh_status status = flowmesh_service_close(named->handle);
    atomic_store(&named->seen->stop, 1);
    return status;
}

static flowmesh_status do_subscribe(const cJSON *step, flowmesh_mesh *mesh)
{
    const cJSON *fields = cJSON_GetObjectItemCaseSensitive(step, "options");
    const cJSON *retry = cJSON_GetObjectItemCaseSensitive(fields, "retry");
    const char *on_slow = text(fields, "on_slow", "drop_oldest");
    flowmesh_subscription *subscription;
    flowmesh_subscribe_options options = FLOWMESH_SUBSCRIBE_OPTIONS_INIT;
    options.priority = (int32_t)number(fields, "priority", 0);
    options.group = text(fields, "group", NULL);
    options.capacity = (size_t)number(fields, "capacity", 0);
    options.block_timeout_ms = (int64_t)number(fields, "block_ms", 0);
    if (strcmp(on_slow, "block") == 0)
        options.on_slow = FLOWMESH_ON_SLOW_BLOCK;
    else if (strcmp(on_slow, "disconnect") == 0)
        options.on_slow = FLOWMESH_ON_SLOW_DISCONNECT;
    else if (strcmp(on_slow, "drop_oldest") != 0)
        return mismatch("on_slow cannot be %s", on_slow);
    if (retry != NULL) {
        options.max_attempts = (uint32_t)number(retry, "max_attempts", 0);
        options.backoff_ms = (int64_t)number(retry, "backoff_ms", 0);
        options.backoff_factor = 1;
        options.dead_letter = text(retry, "dead_letter", NULL);
    }
    TRY(flowmesh_subscribe(mesh, text(step, "pattern", ""), &options, &subscription));
    keep(SUBSCRIPTION, text(step, "as", ""), subscription, NULL);
    return FLOWMESH_OK;
}

static flowmesh_status do_publish(const cJSON *step, flowmesh_mesh *mesh)
{
    flowmesh_publish_options options = FLOWMESH_PUBLISH_OPTIONS_INIT;
    struct headers headers = headers_of(cJSON_GetObjectItemCaseSensitive(step, "headers"));
    struct bytes payload = bytes_of(cJSON_GetObjectItemCaseSensitive(step, "payload"));
    options.headers = headers.list;
    options.header_count = headers.count;
    options.priority = (int32_t)number(step, "priority", options.priority);
    options.ttl_ms = (int64_t)number(step, "ttl_ms", 0);
    options.delay_ms = (int64_t)number(step, "delay_ms", 0);
    options.timeout_ms = (int64_t)number(step, "timeout_ms", (double)options.timeout_ms);
    flowmesh_status status =
        flowmesh_publish(mesh, text(step, "subject", ""), payload.data, payload.size, &options, NULL);
    free(headers.list);
    free(payload.data);
    return status;
}

static flowmesh_status do_publish_many(const cJSON *step, flowmesh_mesh *mesh)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(step, "events"), *item;
    size_t count = (size_t)cJSON_GetArraySize(list), index = 0;
    flowmesh_event *events = must(calloc(count + 1, sizeof *events));
    struct bytes *payloads = must(calloc(count + 1, sizeof *payloads));
    flowmesh_publish_options options = FLOWMESH_PUBLISH_OPTIONS_INIT;
    struct headers headers = headers_of(cJSON_GetObjectItemCaseSensitive(step, "headers"));
    options.headers = headers.list;
    options.header_count = headers.count;
    options.priority = (int32_t)number(step, "priority", options.priority);
    cJSON_ArrayForEach(item, list) {
        payloads[index] = bytes_of(cJSON_GetArrayItem(item, 1));
        events[index] = (flowmesh_event){cJSON_GetArrayItem(item, 0)->valuestring, payloads[index].data,
                                         payloads[index].size};
        index++;
    }
    flowmesh_status status = flowmesh_publish_many(mesh, events, count, &options);
    for (index = 0; index < count; index++)
        free(payloads[index].data);
    free(payloads);
    free(events);
    free(headers.list);
    return status;
}

static flowmesh_status do_receive(const cJSON *step)
{
    flowmesh_subscription *from;
    flowmesh_message *message;
    const cJSON *fail = cJSON_GetObjectItemCaseSensitive(step, "fail");
    TRY(handle_of(SUBSCRIPTION, text(step, "from", ""), &from));
    TRY(flowmesh_subscription_receive(from, (int64_t)number(step, "timeout_ms", WATCHDOG_MS), &message));
    flowmesh_status status = check_message(cJSON_GetObjectItemCaseSensitive(step, "expect"), message);
    double waited = (double)(now_ms() - world.mark);
    /* The clock has whole milliseconds: what took 20.9 may show as 20. */
    if (status == FLOWMESH_OK && waited + 1 < number(step, "after_ms", 0))
        status = mismatch("it came after %g ms", waited);
    if (status == FLOWMESH_OK && fail != NULL)
        status = flowmesh_subscription_fail(from, message, text(fail, "type", ""), text(fail, "message", ""));
    flowmesh_message_free(message);
    return status;
}

/* Takes what waits in one subscription, at most `room` payloads. */
static flowmesh_status drain(const char *name, char **found, size_t room, size_t *count)
{
    flowmesh_subscription *from;
    flowmesh_message *message;
    flowmesh_status status = FLOWMESH_OK;
    TRY(handle_of(SUBSCRIPTION, name, &from));
    while (*count < room && (status = flowmesh_subscription_receive(from, 0, &message)) == FLOWMESH_OK) {
        flowmesh_bytes payload = flowmesh_message_payload(message);
        found[(*count)++] = must(strndup(payload.size > 0 ? payload.data : "", payload.size));
        flowmesh_message_free(message);
    }
    return status == FLOWMESH_ERR_TIMEOUT ? FLOWMESH_OK : status;
}

static flowmesh_status do_gather(const cJSON *step)
{
    const cJSON *from = cJSON_GetObjectItemCaseSensitive(step, "from"), *name;
    const cJSON *payloads = cJSON_GetObjectItemCaseSensitive(step, "payloads"), *payload;
    size_t wanted_count = (size_t)cJSON_GetArraySize(payloads), found_count = 0, index = 0;
    /* One more than wanted has a place, so that it is noticed. */
    char **found = must(calloc(wanted_count + 1, sizeof *found));
    const char **wanted = must(calloc(wanted_count + 1, sizeof *wanted));
    size_t counts[16] = {0};
    long long deadline = now_ms() + WATCHDOG_MS;
    flowmesh_status status = FLOWMESH_OK;
    while (status == FLOWMESH_OK && found_count < wanted_count && now_ms() < deadline) {
        size_t before = found_count;
        index = 0;
        cJSON_ArrayForEach(name, from) {
            size_t begin = found_count;
            if (status == FLOWMESH_OK)
                status = drain(name->valuestring, found, wanted_count + 1, &found_count);
            if (index < sizeof counts / sizeof *counts)
                counts[index++] += found_count - begin;
        }
        if (found_count == before)
            sleep_ms(PAUSE_MS);
    }
    index = 0;
    cJSON_ArrayForEach(payload, payloads)
        wanted[index++] = payload->valuestring;
    qsort(wanted, wanted_count, sizeof *wanted, by_text);
    qsort(found, found_count, sizeof *found, by_text);
    if (status == FLOWMESH_OK && found_count != wanted_count)
        status = mismatch("there came %zu events", found_count);
    for (index = 0; status == FLOWMESH_OK && index < wanted_count; index++)
        if (strcmp(found[index], wanted[index]) != 0)
            status = mismatch("there came %s instead of %s", found[index], wanted[index]);
    index = 0;
    cJSON_ArrayForEach(name, from) {
        if (status == FLOWMESH_OK && (double)counts[index] < number(step, "each_at_least", 0))
            status = mismatch("%s got %zu", name->valuestring, counts[index]);
        index++;
    }
    for (index = 0; index < found_count; index++)
        free(found[index]);
    free(found);
    free(wanted);
    return status;
}

static flowmesh_status do_expect_nothing(const cJSON *step)
{
    flowmesh_subscription *from;
    flowmesh_message *message;
    TRY(handle_of(SUBSCRIPTION, text(step, "from", ""), &from));
    flowmesh_status status = flowmesh_subscription_receive(from, (int64_t)number(step, "for_ms", 50), &message);
    if (status == FLOWMESH_ERR_TIMEOUT)
        return FLOWMESH_OK;
    if (status != FLOWMESH_OK)
        return status;
    mismatch("there came an event on %s", flowmesh_message_subject(message).data);
    flowmesh_message_free(message);
    return MISMATCH;
}

static flowmesh_status do_serve(const cJSON *step, flowmesh_mesh *mesh)
{
    const cJSON *fields = cJSON_GetObjectItemCaseSensitive(step, "options");
    const cJSON *handler = cJSON_GetObjectItemCaseSensitive(step, "handler");
    flowmesh_service *service;
    flowmesh_serve_options options = FLOWMESH_SERVE_OPTIONS_INIT;
    if (!is_known_handler(handler))
        return mismatch("the runner does not know this handler");
    options.version = text(fields, "version", NULL);
    options.concurrency = (uint32_t)number(fields, "concurrency", 0);
    options.queue = (uint32_t)number(fields, "queue", options.queue);
    options.rate_per_second = number(fields, "rate", 0);
    options.rate_burst = (uint32_t)number(fields, "burst", 0);
    struct seen *seen = new_seen(handler);
    flowmesh_status status = flowmesh_serve(mesh, text(step, "service", ""), &options, handle, seen, let_go, &service);
    if (status == FLOWMESH_OK)
        keep(SERVICE, text(step, "as", ""), service, seen);
    else
        let_go(seen);
    return status;
}

static flowmesh_status do_call(const cJSON *step, flowmesh_mesh *mesh, int start)
{
    flowmesh_call_options options = FLOWMESH_CALL_OPTIONS_INIT;
    struct headers headers = headers_of(cJSON_GetObjectItemCaseSensitive(step, "headers"));
    struct bytes payload = bytes_of(cJSON_GetObjectItemCaseSensitive(step, "payload"));
    const char *service = text(step, "service", "");
    flowmesh_message *reply = NULL;
    flowmesh_pending *pending = NULL;
    options.headers = headers.list;
    options.header_count = headers.count;
    options.timeout_ms = (int64_t)number(step, "timeout_ms", WATCHDOG_MS);
    flowmesh_status status =
        start ? flowmesh_call_start(mesh, service, payload.data, payload.size, &options, &pending)
              : flowmesh_call(mesh, service, payload.data, payload.size, &options, &reply);
    free(headers.list);
    free(payload.data);
    if (status == FLOWMESH_OK && start)
        keep(CALL, text(step, "as", ""), pending, NULL);
    else if (status == FLOWMESH_OK)
        status = check_message(cJSON_GetObjectItemCaseSensitive(step, "expect"), reply);
    flowmesh_message_free(reply);
    return status;
}

static flowmesh_status do_finish(const cJSON *step)
{
    flowmesh_pending *pending;
    flowmesh_message *reply;
    TRY(handle_of(CALL, text(step, "call", ""), &pending));
    TRY(flowmesh_pending_wait(pending, WATCHDOG_MS, &reply));
    flowmesh_status status = check_message(cJSON_GetObjectItemCaseSensitive(step, "expect"), reply);
    flowmesh_message_free(reply);
    return status;
}

#include "behaviour_queues.h"

static flowmesh_status perform(const char *what, const cJSON *step)
{
    flowmesh_mesh *mesh;
    const char *on = text(step, "on", "me");
    struct named *named;
    /* In the role of the host, `me` is another name for it. */
    if (strcmp(on, "me") == 0 && find(MESH, "me") == NULL)
        on = "host";
    TRY(handle_of(MESH, on, &mesh));
    if (strcmp(what, "open") == 0)
        return do_open(step);
    if (strcmp(what, "connect") == 0)
        return do_connect(step);
    if (strcmp(what, "impostor") == 0)
        return do_impostor(step);
    if (strcmp(what, "close") == 0)
        return do_close(step);
    if (strcmp(what, "subscribe") == 0)
        return do_subscribe(step, mesh);
    if (strcmp(what, "publish") == 0)
        return do_publish(step, mesh);
    if (strcmp(what, "publish_many") == 0)
        return do_publish_many(step, mesh);
    if (strcmp(what, "receive") == 0)
        return do_receive(step);
    if (strcmp(what, "gather") == 0)
        return do_gather(step);
    if (strcmp(what, "expect_nothing") == 0)
        return do_expect_nothing(step);
    if (strcmp(what, "serve") == 0)
        return do_serve(step, mesh);
    if (strcmp(what, "call") == 0)
        return do_call(step, mesh, 0);
    if (strcmp(what, "start_call") == 0)
        return do_call(step, mesh, 1);
    if (strcmp(what, "finish") == 0)
        return do_finish(step);
    if (strcmp(what, "services") == 0)
        return until(check_services, step, mesh);
    if (strcmp(what, "stats") == 0)
        return until(check_stats, step, mesh);
    if (strcmp(what, "info") == 0)
        return check_info(cJSON_GetObjectItemCaseSensitive(step, "expect"), mesh);
    if (strcmp(what, "handled") == 0) {
        named = find(SERVICE, text(step, "of", ""));
        return named == NULL ? mismatch("there is no such service") : until(check_handled, step, named->seen);
    }
    if (strcmp(what, "subscription_stats") == 0) {
        named = find(SUBSCRIPTION, text(step, "of", ""));
        return named == NULL ? mismatch("there is no such subscription")
                             : until(check_subscription_stats, step, named->handle);
    }
    if (strcmp(what, "cancel") == 0) {
        named = find(CALL, text(step, "call", ""));
        return named == NULL ? mismatch("there is no such call") : flowmesh_pending_cancel(named->handle);
    }
    if (strcmp(what, "wait") == 0) {
        sleep_ms((long long)number(step, "ms", 0));
        return FLOWMESH_OK;
    }
    if (strcmp(what, "mark") == 0) {
        world.mark = now_ms();
        return FLOWMESH_OK;
    }
    return perform_queue_step(what, step, mesh);
}

/* ---------- scenarios */

/* Whether the step went as it should; if not, `reason` says why. */
static int run_step(const cJSON *step)
{
    const cJSON *error = cJSON_GetObjectItemCaseSensitive(step, "error"), *part;
    flowmesh_status status = perform(text(step, "do", "?"), step);
    const char *name = flowmesh_status_name(status), *wanted = text(error, "kind", "?");
    if (status == MISMATCH)
        return 0;
    if (error == NULL) {
        if (status != FLOWMESH_OK)
            mismatch("%s: %s", name, flowmesh_error_message());
        return status == FLOWMESH_OK;
    }
    if (status == FLOWMESH_OK) {
        mismatch("it should have failed with %s", wanted);
        return 0;
    }
    if (strcmp(name, wanted) != 0) {
        mismatch("wanted %s, got %s: %s", wanted, name, flowmesh_error_message());
        return 0;
    }
    cJSON_ArrayForEach(part, cJSON_GetObjectItemCaseSensitive(error, "contains"))
        if (strstr(flowmesh_error_message(), part->valuestring) == NULL) {
            mismatch("\"%s\" is not in \"%s\"", part->valuestring, flowmesh_error_message());
            return 0;
        }
    return 1;
}

/* `text` with each `from` replaced by `to`; the caller frees both. */
static char *replaced(const char *text, const char *from, const char *to)
{
    size_t count = 0, from_bytes = strlen(from), to_bytes = strlen(to);
    for (const char *at = text; (at = strstr(at, from)) != NULL; at += from_bytes)
        count++;
    char *result = must(malloc(strlen(text) + count * to_bytes + 1)), *end = result;
    for (const char *at; (at = strstr(text, from)) != NULL; text = at + from_bytes) {
        memcpy(end, text, (size_t)(at - text));
        end += at - text;
        memcpy(end, to, to_bytes);
        end += to_bytes;
    }
    strcpy(end, text);
    return result;
}

static int run_times(const cJSON *step)
{
    char *written = must(cJSON_PrintUnformatted(step));
    int times = (int)number(step, "times", 1), right = 1;
    for (int turn = 0; right && turn < times; turn++) {
        char digits[16];
        snprintf(digits, sizeof digits, "%d", turn);
        char *with_index = replaced(written, "{i}", digits);
        snprintf(digits, sizeof digits, "%d", (int)getpid());
        char *whole = replaced(with_index, "{pid}", digits);
        cJSON *this_turn = must(cJSON_Parse(whole));
        right = run_step(this_turn);
        cJSON_Delete(this_turn);
        free(with_index);
        free(whole);
    }
    cJSON_free(written);
    return right;
}

static void set_up(int as_client)
{
    flowmesh_mesh *host, *me;
    strcpy(world.directory, "/tmp/fmXXXXXX");
    if (mkdtemp(world.directory) == NULL)
        die("there is no temporary directory");
    world.mark = now_ms();
    flowmesh_open_options options = open_options("host");
    if (flowmesh_open(world.directory, &options, &host) != FLOWMESH_OK)
        die(flowmesh_error_message());
    keep(MESH, "host", host, NULL);
    if (!as_client)
        return;
    options.name = "me";
    if (flowmesh_connect(world.directory, &options, &me) != FLOWMESH_OK)
        die(flowmesh_error_message());
    keep(MESH, "me", me, NULL);
}

static void tear_down(void)
{
    char command[128];
    for (size_t i = 0; i < world.name_count; i++)
        if (world.names[i].seen != NULL)
            atomic_store(&world.names[i].seen->stop, 1);
    for (size_t i = world.name_count; i-- > 0;) {
        free_handle(&world.names[i]);
        free(world.names[i].name);
    }
    for (size_t i = 0; i < world.impostor_count; i++) {
        shutdown(world.impostors[i].listener, SHUT_RDWR);
        pthread_join(world.impostors[i].thread, NULL);
        close(world.impostors[i].listener);
    }
    snprintf(command, sizeof command, "rm -rf %s", world.directory);
    if (system(command) != 0)
        die("the temporary directory cannot be removed");
    memset(&world, 0, sizeof world);
}

static int run_scenario(const cJSON *scenario, int as_client)
{
    const char *name = text(scenario, "name", "?"), *role = as_client ? "client" : "host";
    const cJSON *step;
    int index = 0, right = 1;
    world.options = cJSON_GetObjectItemCaseSensitive(scenario, "mesh");
    set_up(as_client);
    cJSON_ArrayForEach(step, cJSON_GetObjectItemCaseSensitive(scenario, "steps")) {
        index++;
        if (!run_times(step)) {
            printf("FAILED %s on %s: step %d (%s): %s\n", name, role, index, text(step, "do", "?"), reason);
            right = 0;
            break;
        }
    }
    tear_down();
    if (right)
        printf("ok %s on %s\n", name, role);
    fflush(stdout);
    return right;
}

static cJSON *read_scenario(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0)
        die(path);
    long size = ftell(file);
    rewind(file);
    char *content = must(calloc(1, (size_t)size + 1));
    if (fread(content, 1, (size_t)size, file) != (size_t)size)
        die(path);
    fclose(file);
    cJSON *scenario = cJSON_Parse(content);
    if (scenario == NULL) {
        fprintf(stderr, "%s: no JSON from here: %.60s\n", path, cJSON_GetErrorPtr());
        exit(2);
    }
    free(content);
    return scenario;
}

static int is_role(const cJSON *scenario, const char *role)
{
    const cJSON *roles = cJSON_GetObjectItemCaseSensitive(scenario, "on"), *found;
    cJSON_ArrayForEach(found, roles)
        if (strcmp(found->valuestring, role) == 0)
            return 1;
    return roles == NULL;
}

int main(int argc, char **argv)
{
    int passed = 0, failed = 0;
    for (int i = 1; i < argc; i++) {
        cJSON *scenario = read_scenario(argv[i]);
        for (int as_client = 0; as_client < 2; as_client++)
            if (is_role(scenario, as_client ? "client" : "host")) {
                if (run_scenario(scenario, as_client))
                    passed++;
                else
                    failed++;
            }
        cJSON_Delete(scenario);
    }
    printf("%d passed, %d failed\n", passed, failed);
    /* What handlers were lent goes when the last of them has returned. */
    for (long long deadline = now_ms() + WATCHDOG_MS; flowmesh_handle_count() > 0 && now_ms() < deadline;)
        sleep_ms(PAUSE_MS);
    if (flowmesh_handle_count() > 0) {
        printf("FAILED: %zu handles were not freed\n", flowmesh_handle_count());
        failed++;
    }
    return failed > 0 || passed == 0;
}
