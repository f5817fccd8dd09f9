/* One thread, one poll loop: events, calls to answer and an answer that is awaited, each by its descriptor.
 *
 *     loop DIRECTORY      opens the directory, serves itself, and ends when all has happened
 */
#include <flowmesh.h>

#include <poll.h>
#include <stdio.h>
#include <string.h>

static int failed(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, flowmesh_error_message());
    return 1;
}

/* Takes what is there; a descriptor is quiet again once everything was taken. */
static int take_events(flowmesh_subscription *ticks, int *seen)
{
    flowmesh_message *batch[16];
    size_t count;
    flowmesh_status status;
    while ((status = flowmesh_subscription_receive_many(ticks, 0, batch, 16, &count)) == FLOWMESH_OK) {
        *seen += (int)count;
        flowmesh_message_free_many(batch, count);
    }
    return status == FLOWMESH_ERR_TIMEOUT ? 0 : failed("receive");
}

static int answer_calls(flowmesh_service *clock)
{
    flowmesh_request *request;
    flowmesh_status status;
    while ((status = flowmesh_service_next(clock, 0, &request)) == FLOWMESH_OK) {
        if (flowmesh_request_reply(request, "noon", 4, NULL, 0) != FLOWMESH_OK)
            failed("reply");
        flowmesh_request_free(request);
    }
    return status == FLOWMESH_ERR_TIMEOUT ? 0 : failed("next");
}

int main(int argc, char **argv)
{
    flowmesh_mesh *mesh = NULL;
    flowmesh_subscription *ticks = NULL;
    flowmesh_service *clock = NULL;
    flowmesh_pending *question = NULL;
    flowmesh_event events[] = {{"tick", "1", 1}, {"tick", "2", 1}, {"tick", "3", 1}};
    int seen = 0, answered = 0, status = 0;

    if (argc != 2) {
        fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
        return 2;
    }
    if (flowmesh_open(argv[1], NULL, &mesh) != FLOWMESH_OK ||
        flowmesh_subscribe(mesh, "tick", NULL, &ticks) != FLOWMESH_OK ||
        flowmesh_service_open(mesh, "clock", NULL, &clock) != FLOWMESH_OK ||
        flowmesh_call_start(mesh, "clock", NULL, 0, NULL, &question) != FLOWMESH_OK ||
        flowmesh_publish_many(mesh, events, 3, NULL) != FLOWMESH_OK)
        status = failed("start");

    while (status == 0 && (seen < 3 || !answered)) {
        struct pollfd ready[] = {
            {flowmesh_subscription_fd(ticks), POLLIN, 0},
            {flowmesh_service_fd(clock), POLLIN, 0},
            {answered ? -1 : flowmesh_pending_fd(question), POLLIN, 0},
        };
        if (poll(ready, 3, 5000) <= 0) {
            fputs("nothing happens\n", stderr);
            status = 1;
        }
        if (status == 0 && ready[0].revents != 0)
            status = take_events(ticks, &seen);
        if (status == 0 && ready[1].revents != 0)
            status = answer_calls(clock);
        if (status == 0 && ready[2].revents != 0) {
            flowmesh_message *answer = NULL;
            int32_t done = 0;
            if (flowmesh_pending_try(question, &done, &answer) != FLOWMESH_OK)
                status = failed("call");
            else if (done) {
                flowmesh_bytes payload = flowmesh_message_payload(answer);
                printf("it is %.*s\n", (int)payload.size, (const char *)payload.data);
                answered = 1;
            }
            flowmesh_message_free(answer);
        }
    }
    if (status == 0)
        printf("%d ticks\n", seen);
    flowmesh_pending_free(question);
    flowmesh_service_free(clock);
    flowmesh_subscription_free(ticks);
    flowmesh_mesh_free(mesh);
    return status;
}
