/* Events between two programs.
 *
 *     events DIRECTORY host            opens the directory and prints what is published under `orders.`
 *     events DIRECTORY publish N       connects and publishes N orders
 *
 * The host ends after it has seen an event on `orders.done`.
 */
#include <flowmesh.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failed(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, flowmesh_error_message());
    return 1;
}

static int host(const char *directory)
{
    flowmesh_mesh *mesh = NULL;
    flowmesh_subscription *orders = NULL;
    int status = 1;

    if (flowmesh_open(directory, NULL, &mesh) != FLOWMESH_OK)
        return failed("open");
    if (flowmesh_subscribe(mesh, "orders.*", NULL, &orders) != FLOWMESH_OK) {
        failed("subscribe");
        goto out;
    }
    puts("waiting for orders");
    fflush(stdout);
    for (;;) {
        flowmesh_message *event;
        if (flowmesh_subscription_receive(orders, -1, &event) != FLOWMESH_OK) {
            failed("receive");
            break;
        }
        flowmesh_bytes payload = flowmesh_message_payload(event);
        flowmesh_text subject = flowmesh_message_subject(event);
        flowmesh_text type = flowmesh_message_content_type(event);
        int last = strcmp(subject.data, "orders.done") == 0;
        /* Bytes have no NUL behind them. */
        if (!last)
            printf("%s: %.*s (%s)\n", subject.data, (int)payload.size, (const char *)payload.data,
                   type.data != NULL ? type.data : "bytes");
        flowmesh_message_free(event);
        if (last) {
            status = 0;
            break;
        }
    }
out:
    flowmesh_subscription_free(orders);
    flowmesh_mesh_free(mesh);
    return status;
}

static int publish(const char *directory, int count)
{
    flowmesh_mesh *mesh = NULL;
    if (flowmesh_connect(directory, NULL, &mesh) != FLOWMESH_OK)
        return failed("connect");

    flowmesh_header json = {"content-type", "application/json"};
    flowmesh_publish_options options = FLOWMESH_PUBLISH_OPTIONS_INIT;
    options.headers = &json;
    options.header_count = 1;

    int status = 0;
    for (int number = 1; number <= count && status == 0; number++) {
        char order[32];
        int bytes = snprintf(order, sizeof order, "{\"order\": %d}", number);
        if (flowmesh_publish(mesh, "orders.created", order, (size_t)bytes, &options, NULL) != FLOWMESH_OK)
            status = failed("publish");
    }
    if (status == 0 && flowmesh_publish(mesh, "orders.done", NULL, 0, NULL, NULL) != FLOWMESH_OK)
        status = failed("publish");
    flowmesh_mesh_free(mesh);
    return status;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[2], "host") == 0)
        return host(argv[1]);
    if (argc == 4 && strcmp(argv[2], "publish") == 0)
        return publish(argv[1], atoi(argv[3]));
    fprintf(stderr, "usage: %s DIRECTORY host | DIRECTORY publish N\n", argv[0]);
    return 2;
}
