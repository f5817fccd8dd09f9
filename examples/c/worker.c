/* Jobs that are kept until they are done: whoever dies or fails on the way, each is done once.
 *
 *     worker DIRECTORY host               opens the directory and declares the queue, until it is told to stop
 *     worker DIRECTORY work               works on jobs in two threads, until it is told to stop
 *     worker DIRECTORY send ADDRESS...    enqueues a mail to each address, and waits until all are done or given up
 *     worker DIRECTORY stop               tells host and workers to stop
 */
#include <flowmesh.h>

#include <stdio.h>
#include <string.h>

static int failed(const char *what)
{
    flowmesh_status status = flowmesh_error_code();
    fprintf(stderr, "%s: %s\n  %s\n", what, flowmesh_error_message(), flowmesh_status_advice(status));
    return 1;
}

/* Runs in threads of the library. What it returns settles the job; its lease is extended meanwhile. */
static flowmesh_status deliver(void *context, flowmesh_job *job)
{
    flowmesh_bytes address = flowmesh_job_payload(job);
    const char *at = address.size > 0 ? memchr(address.data, '@', address.size) : NULL;
    char line[256];
    (void)context;
    if (at == NULL)
        return flowmesh_handler_reject("an address has an @"); /* no attempt can succeed */
    if (at == address.data && flowmesh_job_attempt(job) < 3)
        return flowmesh_handler_error("Busy", "the server is busy"); /* tried again, a little later */
    int size = snprintf(line, sizeof line, "delivered to %.*s, attempt %u", (int)address.size,
                        (const char *)address.data, flowmesh_job_attempt(job));
    return flowmesh_job_set_result(job, line, (size_t)size < sizeof line ? (size_t)size : sizeof line - 1);
}

static int wait_for_stop(flowmesh_mesh *mesh, const char *ready)
{
    flowmesh_subscription *stop = NULL;
    flowmesh_message *event = NULL;
    if (flowmesh_subscribe(mesh, "mail.stop", NULL, &stop) != FLOWMESH_OK)
        return failed("subscribe");
    puts(ready);
    fflush(stdout);
    flowmesh_status status = flowmesh_subscription_receive(stop, -1, &event);
    flowmesh_message_free(event);
    flowmesh_subscription_free(stop);
    /* The host that goes has stopped us, too. */
    return status == FLOWMESH_OK || status == FLOWMESH_ERR_DISCONNECTED ? 0 : failed("wait");
}

static int host(flowmesh_mesh *mesh)
{
    flowmesh_queue *mail = NULL;
    flowmesh_queue_config config = FLOWMESH_QUEUE_CONFIG_INIT;
    config.max_attempts = 5;
    config.backoff.kind = FLOWMESH_BACKOFF_FIXED;
    config.backoff.initial_ms = 10;
    config.keep_done.age_ms = 3600000; /* so that results can be asked for */
    int status = flowmesh_queue_declare(mesh, "mail", &config, &mail) == FLOWMESH_OK
                     ? wait_for_stop(mesh, "the queue is there")
                     : failed("declare");
    flowmesh_queue_free(mail);
    return status;
}

static int work(flowmesh_mesh *mesh)
{
    flowmesh_queue *mail = NULL;
    flowmesh_worker *worker = NULL;
    flowmesh_worker_options options = FLOWMESH_WORKER_OPTIONS_INIT;
    options.concurrency = 2;
    int status = flowmesh_queue_open(mesh, "mail", &mail) == FLOWMESH_OK &&
                         flowmesh_worker_start(mail, &options, deliver, NULL, NULL, &worker) == FLOWMESH_OK
                     ? wait_for_stop(mesh, "working")
                     : failed("work");
    /* Handlers get five seconds to finish; what they have not finished by then is another worker's. */
    if (worker != NULL && flowmesh_worker_stop(worker, 5000) != FLOWMESH_OK)
        status = failed("stop");
    flowmesh_worker_free(worker);
    flowmesh_queue_free(mail);
    return status;
}

/* Prints what became of the job. */
static int report(flowmesh_queue *mail, const char *id)
{
    flowmesh_job_list *list = NULL;
    flowmesh_content *result = NULL;
    flowmesh_job_info info = FLOWMESH_JOB_INFO_INIT;
    flowmesh_failure failure = FLOWMESH_FAILURE_INIT;
    int status = 0;
    if (flowmesh_queue_peek(mail, id, &list) != FLOWMESH_OK || flowmesh_job_list_get(list, 0, &info) != FLOWMESH_OK ||
        flowmesh_queue_result(mail, id, &result) != FLOWMESH_OK) {
        status = failed("look");
    } else if (result != NULL) {
        flowmesh_bytes line = flowmesh_content_payload(result);
        printf("%.*s\n", (int)line.size, (const char *)line.data);
    } else if (info.failure_count > 0 &&
               flowmesh_job_list_failure(list, 0, info.failure_count - 1, &failure) == FLOWMESH_OK) {
        printf("%s: %s\n", flowmesh_job_state_name(info.state), failure.message);
    }
    flowmesh_content_free(result);
    flowmesh_job_list_free(list);
    return status;
}

static int send_all(flowmesh_mesh *mesh, char **addresses, int count)
{
    flowmesh_queue *mail = NULL;
    flowmesh_subscription *ends = NULL;
    flowmesh_receipt receipts[16];
    int status = 0, ended = 0;
    if (count > 16)
        count = 16;
    /* Subscribed before the first job is there, so no end is missed. */
    if (flowmesh_queue_open(mesh, "mail", &mail) != FLOWMESH_OK ||
        flowmesh_subscribe(mesh, "$queue.mail.*", NULL, &ends) != FLOWMESH_OK)
        status = failed("open");
    for (int i = 0; status == 0 && i < count; i++)
        if (flowmesh_queue_enqueue(mail, addresses[i], strlen(addresses[i]), NULL, &receipts[i]) != FLOWMESH_OK)
            status = failed("enqueue");
    while (status == 0 && ended < count) {
        flowmesh_message *event = NULL;
        if (flowmesh_subscription_receive(ends, 20000, &event) != FLOWMESH_OK)
            status = failed("wait");
        const char *subject = flowmesh_message_subject(event).data;
        if (subject != NULL && (strcmp(subject, "$queue.mail.done") == 0 || strcmp(subject, "$queue.mail.dead") == 0))
            ended++;
        flowmesh_message_free(event);
    }
    for (int i = 0; status == 0 && i < count; i++)
        status = report(mail, receipts[i].id);
    flowmesh_subscription_free(ends);
    flowmesh_queue_free(mail);
    return status;
}

int main(int argc, char **argv)
{
    flowmesh_mesh *mesh = NULL;
    const char *what = argc > 2 ? argv[2] : "";
    int status = 2;
    if ((strcmp(what, "host") == 0 ? flowmesh_open(argv[1], NULL, &mesh)
         : argc > 2                ? flowmesh_connect(argv[1], NULL, &mesh)
                                   : FLOWMESH_OK) != FLOWMESH_OK)
        return failed("connect");
    if (strcmp(what, "host") == 0)
        status = host(mesh);
    else if (strcmp(what, "work") == 0)
        status = work(mesh);
    else if (strcmp(what, "send") == 0)
        status = send_all(mesh, argv + 3, argc - 3);
    else if (strcmp(what, "stop") == 0)
        status = flowmesh_publish(mesh, "mail.stop", NULL, 0, NULL, NULL) == FLOWMESH_OK ? 0 : failed("stop");
    else
        fprintf(stderr, "usage: %s DIRECTORY host|work|send|stop [ADDRESS...]\n", argv[0]);
    flowmesh_mesh_free(mesh);
    return status;
}
