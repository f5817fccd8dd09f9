/* A service and its caller in two programs.
 *
 *     service DIRECTORY serve             opens the directory and serves `text.upper` until it is told to stop
 *     service DIRECTORY call TEXT         calls it and prints the answer
 *     service DIRECTORY stop              tells it to stop
 */
#include <flowmesh.h>

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failed(const char *what)
{
    flowmesh_status status = flowmesh_error_code();
    fprintf(stderr, "%s: %s\n  %s\n", what, flowmesh_error_message(), flowmesh_status_advice(status));
    return 1;
}

/* Runs in threads of the library, up to `concurrency` at once. */
static flowmesh_status upper(void *context, flowmesh_request *request)
{
    (void)context;
    flowmesh_bytes text = flowmesh_request_payload(request);
    if (text.size == 0)
        return flowmesh_handler_error("EmptyText", "there is nothing to write larger");
    char *answer = malloc(text.size);
    if (answer == NULL)
        return flowmesh_handler_error("NoMemory", "the text is too long");
    for (size_t i = 0; i < text.size; i++)
        answer[i] = (char)toupper(((const unsigned char *)text.data)[i]);
    flowmesh_status status = flowmesh_request_reply(request, answer, text.size, NULL, 0);
    free(answer);
    return status;
}

static int serve(const char *directory)
{
    flowmesh_mesh *mesh = NULL;
    flowmesh_subscription *stop = NULL;
    flowmesh_service *service = NULL;
    flowmesh_message *event = NULL;
    flowmesh_serve_options options = FLOWMESH_SERVE_OPTIONS_INIT;
    int status = 0;

    options.version = "1.0";
    options.concurrency = 4;
    if (flowmesh_open(directory, NULL, &mesh) != FLOWMESH_OK ||
        flowmesh_subscribe(mesh, "text.stop", NULL, &stop) != FLOWMESH_OK ||
        flowmesh_serve(mesh, "text.upper", &options, upper, NULL, NULL, &service) != FLOWMESH_OK) {
        status = failed("serve");
    } else {
        puts("serving text.upper");
        fflush(stdout);
        if (flowmesh_subscription_receive(stop, -1, &event) != FLOWMESH_OK)
            status = failed("wait");
    }
    /* NULL is fine everywhere, and the order does not matter. */
    flowmesh_message_free(event);
    flowmesh_service_free(service);
    flowmesh_subscription_free(stop);
    flowmesh_mesh_free(mesh);
    return status;
}

static int call(const char *directory, const char *text)
{
    flowmesh_mesh *mesh = NULL;
    flowmesh_message *answer = NULL;
    flowmesh_call_options options = FLOWMESH_CALL_OPTIONS_INIT;
    int status = 0;

    options.timeout_ms = 5000;
    if (flowmesh_connect(directory, NULL, &mesh) != FLOWMESH_OK)
        return failed("connect");
    switch (flowmesh_call(mesh, "text.upper", text, strlen(text), &options, &answer)) {
    case FLOWMESH_OK: {
        flowmesh_bytes bytes = flowmesh_message_payload(answer);
        printf("%.*s\n", (int)bytes.size, (const char *)bytes.data);
        break;
    }
    case FLOWMESH_ERR_HANDLER_FAILED:
        printf("the service refused: %s: %s\n", flowmesh_error_get("type"), flowmesh_error_get("message"));
        break;
    default:
        status = failed("call");
    }
    flowmesh_message_free(answer);
    flowmesh_mesh_free(mesh);
    return status;
}

static int stop(const char *directory)
{
    flowmesh_mesh *mesh = NULL;
    int status = 0;
    if (flowmesh_connect(directory, NULL, &mesh) != FLOWMESH_OK)
        return failed("connect");
    if (flowmesh_publish(mesh, "text.stop", NULL, 0, NULL, NULL) != FLOWMESH_OK)
        status = failed("publish");
    flowmesh_mesh_free(mesh);
    return status;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[2], "serve") == 0)
        return serve(argv[1]);
    if (argc == 4 && strcmp(argv[2], "call") == 0)
        return call(argv[1], argv[3]);
    if (argc == 3 && strcmp(argv[2], "stop") == 0)
        return stop(argv[1]);
    fprintf(stderr, "usage: %s DIRECTORY serve | DIRECTORY call TEXT | DIRECTORY stop\n", argv[0]);
    return 2;
}
