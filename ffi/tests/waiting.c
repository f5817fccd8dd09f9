/* Descriptors, signals, and handles that go away while somebody waits in them. */
#include "check.h"

static flowmesh_mesh *host;

static void descriptors_follow_what_waits(void)
{
    flowmesh_subscription *from;
    flowmesh_message *message;
    CHECK_OK(flowmesh_subscribe(host, "ready", NULL, &from));
    int fd = flowmesh_subscription_fd(from);
    CHECK(fd >= 0 && flowmesh_subscription_fd(from) == fd);
    CHECK(!readable(fd, 0));
    for (int round = 0; round < 3; round++) {
        CHECK_OK(flowmesh_publish(host, "ready", "x", 1, NULL, NULL));
        CHECK_OK(flowmesh_publish(host, "ready", "y", 1, NULL, NULL));
        CHECK(readable(fd, SOON_MS));
        CHECK_OK(flowmesh_subscription_receive(from, 0, &message));
        CHECK_OK(flowmesh_message_free(message));
        CHECK(readable(fd, 0)); /* one is left */
        CHECK_OK(flowmesh_subscription_receive(from, 0, &message));
        CHECK_OK(flowmesh_message_free(message));
        CHECK_STATUS(FLOWMESH_ERR_TIMEOUT, flowmesh_subscription_receive(from, 0, &message));
        CHECK(message == NULL);
        CHECK(!readable(fd, 0));
    }
    CHECK_OK(flowmesh_subscription_close(from));
    CHECK(readable(fd, SOON_MS)); /* so that a loop notices */
    CHECK_STATUS(FLOWMESH_ERR_CLOSED, flowmesh_subscription_receive(from, 0, &message));
    CHECK_OK(flowmesh_subscription_free(from));
}

static void timeouts_last_as_long_as_they_say(void)
{
    flowmesh_subscription *from;
    flowmesh_message *message;
    CHECK_OK(flowmesh_subscribe(host, "never", NULL, &from));
    long long before = now_ms();
    CHECK_STATUS(FLOWMESH_ERR_TIMEOUT, flowmesh_subscription_receive(from, 120, &message));
    CHECK(now_ms() - before >= 119);
    CHECK_OK(flowmesh_subscription_free(from));
}

static volatile sig_atomic_t signals;

static void on_signal(int number)
{
    (void)number;
    signals++;
}

struct waiter {
    pthread_t thread;
    flowmesh_subscription *from;
    flowmesh_service *service;
    int64_t timeout_ms;
    flowmesh_status status;
    long long waited_ms;
    volatile int started, ended;
};

static void *wait_for_an_event(void *argument)
{
    struct waiter *waiter = argument;
    flowmesh_message *message = NULL;
    flowmesh_request *request = NULL;
    long long before = now_ms();
    waiter->started = 1;
    waiter->status = waiter->service != NULL
                         ? flowmesh_service_next(waiter->service, waiter->timeout_ms, &request)
                         : flowmesh_subscription_receive(waiter->from, waiter->timeout_ms, &message);
    waiter->waited_ms = now_ms() - before;
    waiter->ended = 1;
    CHECK_OK(flowmesh_message_free(message));
    CHECK_OK(flowmesh_request_free(request));
    return NULL;
}

static void start(struct waiter *waiter)
{
    CHECK(pthread_create(&waiter->thread, NULL, wait_for_an_event, waiter) == 0);
    while (!waiter->started)
        sleep_ms(1);
    sleep_ms(50); /* most likely it sleeps now; were it not, the outcome would be the same */
}

static void a_signal_ends_a_wait(const char *directory)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);

    struct waiter waiter = {.timeout_ms = -1};
    CHECK_OK(flowmesh_subscribe(host, "never", NULL, &waiter.from));
    start(&waiter);
    /* Again and again, because a signal that comes before the system call ends nothing. */
    while (!waiter.ended) {
        CHECK(pthread_kill(waiter.thread, SIGUSR1) == 0);
        sleep_ms(10);
    }
    CHECK(pthread_join(waiter.thread, NULL) == 0);
    CHECK(waiter.status == FLOWMESH_ERR_INTERRUPTED && signals > 0);

    /* No signal, no interruption, however long it takes. */
    waiter = (struct waiter){.from = waiter.from, .timeout_ms = 2500};
    start(&waiter);
    CHECK(pthread_join(waiter.thread, NULL) == 0);
    CHECK(waiter.status == FLOWMESH_ERR_TIMEOUT && waiter.waited_ms >= 2499);
    CHECK_OK(flowmesh_subscription_free(waiter.from));

    /* A mesh that was told to go on. */
    flowmesh_open_options options = FLOWMESH_OPEN_OPTIONS_INIT;
    options.on_signal = FLOWMESH_ON_SIGNAL_CONTINUE;
    flowmesh_mesh *client;
    CHECK_OK(flowmesh_connect(directory, &options, &client));
    waiter = (struct waiter){.timeout_ms = 400};
    CHECK_OK(flowmesh_subscribe(client, "never", NULL, &waiter.from));
    start(&waiter);
    int before = signals;
    for (int i = 0; i < 5; i++) {
        CHECK(pthread_kill(waiter.thread, SIGUSR1) == 0);
        sleep_ms(20);
    }
    CHECK(pthread_join(waiter.thread, NULL) == 0);
    CHECK(waiter.status == FLOWMESH_ERR_TIMEOUT && signals > before);
    CHECK_OK(flowmesh_subscription_free(waiter.from));
    CHECK_OK(flowmesh_mesh_free(client));
}

static volatile sig_atomic_t stop_asked;

static int32_t is_stop_asked(void *context)
{
    return *(volatile sig_atomic_t *)context;
}

/* A flag that no signal accompanies is seen all the same. */
static void a_program_that_is_asked_ends_a_wait(const char *directory)
{
    flowmesh_open_options options = FLOWMESH_OPEN_OPTIONS_INIT;
    flowmesh_mesh *client;
    struct waiter waiter = {.timeout_ms = -1};
    options.interrupt = is_stop_asked;
    options.interrupt_context = (void *)&stop_asked;
    CHECK_OK(flowmesh_connect(directory, &options, &client));
    CHECK_OK(flowmesh_subscribe(client, "never", NULL, &waiter.from));
    start(&waiter);
    stop_asked = 1;
    CHECK(pthread_join(waiter.thread, NULL) == 0);
    CHECK(waiter.status == FLOWMESH_ERR_INTERRUPTED);
    CHECK_OK(flowmesh_subscription_free(waiter.from));
    CHECK_OK(flowmesh_mesh_free(client));
}

static void closing_and_freeing_wake_who_waits(const char *directory)
{
    enum { CLOSE, FREE, CLOSE_MESH, FREE_MESH, WAYS };
    for (int way = 0; way < WAYS; way++) {
        for (int serve = 0; serve < 2; serve++) {
            flowmesh_mesh *mesh;
            struct waiter waiter = {.timeout_ms = -1};
            CHECK_OK(flowmesh_connect(directory, NULL, &mesh));
            if (serve)
                CHECK_OK(flowmesh_service_open(mesh, "never", NULL, &waiter.service));
            else
                CHECK_OK(flowmesh_subscribe(mesh, "never", NULL, &waiter.from));
            start(&waiter);
            if (way == CLOSE)
                CHECK_OK(serve ? flowmesh_service_close(waiter.service) : flowmesh_subscription_close(waiter.from));
            else if (way == FREE)
                CHECK_OK(serve ? flowmesh_service_free(waiter.service) : flowmesh_subscription_free(waiter.from));
            else if (way == CLOSE_MESH)
                CHECK_OK(flowmesh_mesh_close(mesh));
            else
                CHECK_OK(flowmesh_mesh_free(mesh));
            CHECK(pthread_join(waiter.thread, NULL) == 0);
            CHECK(waiter.status == FLOWMESH_ERR_CLOSED);
            flowmesh_status wanted = way == FREE ? FLOWMESH_ERR_BAD_HANDLE : FLOWMESH_OK;
            CHECK_STATUS(wanted, serve ? flowmesh_service_free(waiter.service) : flowmesh_subscription_free(waiter.from));
            CHECK_STATUS(way == FREE_MESH ? FLOWMESH_ERR_BAD_HANDLE : FLOWMESH_OK, flowmesh_mesh_free(mesh));
        }
    }
}

struct racer {
    flowmesh_subscription *subscription;
    int freed;
};

static void *race_to_free(void *argument)
{
    struct racer *racer = argument;
    flowmesh_message *message;
    flowmesh_status status;
    do {
        status = flowmesh_subscription_receive(racer->subscription, 0, &message);
        flowmesh_message_free(message);
    } while (status == FLOWMESH_ERR_TIMEOUT && random() % 64 != 0);
    CHECK(status == FLOWMESH_ERR_TIMEOUT || status == FLOWMESH_ERR_CLOSED || status == FLOWMESH_ERR_BAD_HANDLE);
    racer->freed = flowmesh_subscription_free(racer->subscription) == FLOWMESH_OK;
    return NULL;
}

static void of_many_who_free_one_succeeds(void)
{
    for (int round = 0; round < 20; round++) {
        flowmesh_subscription *subscription;
        pthread_t threads[4];
        struct racer racers[4];
        int freed = 0;
        CHECK_OK(flowmesh_subscribe(host, "raced", NULL, &subscription));
        for (int i = 0; i < 4; i++) {
            racers[i] = (struct racer){subscription, 0};
            CHECK(pthread_create(&threads[i], NULL, race_to_free, &racers[i]) == 0);
        }
        for (int i = 0; i < 4; i++) {
            CHECK(pthread_join(threads[i], NULL) == 0);
            freed += racers[i].freed;
        }
        CHECK(freed == 1);
    }
}

int main(void)
{
    const char *directory = check_start();
    CHECK_OK(flowmesh_open(directory, NULL, &host));
    descriptors_follow_what_waits();
    timeouts_last_as_long_as_they_say();
    a_signal_ends_a_wait(directory);
    a_program_that_is_asked_ends_a_wait(directory);
    closing_and_freeing_wake_who_waits(directory);
    of_many_who_free_one_succeeds();
    CHECK_OK(flowmesh_mesh_free(host));
    return check_end("waiting");
}
