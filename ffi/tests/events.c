/* Publishing, subscribing, receiving, handlers. */
#include "check.h"

static flowmesh_mesh *host, *client;

static flowmesh_message *take(flowmesh_subscription *from, const char *payload)
{
    flowmesh_message *message;
    CHECK_OK(flowmesh_subscription_receive(from, SOON_MS, &message));
    CHECK_BYTES(payload, flowmesh_message_payload(message));
    return message;
}

static void expect(flowmesh_subscription *from, const char *payload)
{
    CHECK_OK(flowmesh_message_free(take(from, payload)));
}

static void publish(flowmesh_mesh *by, const char *subject, const char *payload)
{
    CHECK_OK(flowmesh_publish(by, subject, payload, strlen(payload), NULL, NULL));
}

static void a_message_has_all_it_was_given(void)
{
    flowmesh_subscription *from;
    CHECK_OK(flowmesh_subscribe(client, "orders.*", NULL, &from));
    CHECK_TEXT("orders.*", flowmesh_subscription_pattern(from));

    flowmesh_header headers[] = {{"content-type", "application/json"}, {"empty", ""}, {"a", "\xc3\xbc"}};
    flowmesh_publish_options options = FLOWMESH_PUBLISH_OPTIONS_INIT;
    options.headers = headers;
    options.header_count = 3;
    options.priority = 7;
    options.ttl_ms = 60000;
    uint64_t id = 0;
    CHECK_OK(flowmesh_publish(host, "orders.created", "{}", 2, &options, &id));

    flowmesh_message *message = take(from, "{}");
    CHECK_TEXT("orders.created", flowmesh_message_subject(message));
    CHECK_TEXT("application/json", flowmesh_message_content_type(message));
    CHECK_TEXT("", flowmesh_message_header(message, "empty"));
    CHECK_TEXT("\xc3\xbc", flowmesh_message_header(message, "a"));
    CHECK(flowmesh_message_header(message, "A").data == NULL);
    CHECK(flowmesh_message_header_count(message) == 3);
    flowmesh_text name, value;
    CHECK_OK(flowmesh_message_header_at(message, 2, &name, &value));
    CHECK_TEXT("a", name);
    CHECK_TEXT("\xc3\xbc", value);
    CHECK_OK(flowmesh_message_header_at(message, 0, NULL, &value));
    CHECK_TEXT("application/json", value);
    CHECK_STATUS(FLOWMESH_ERR_NOT_FOUND, flowmesh_message_header_at(message, 3, &name, &value));
    CHECK(flowmesh_message_id(message) == id && id != 0);
    CHECK(flowmesh_message_priority(message) == 7);
    CHECK(flowmesh_message_ttl_ms(message) == 60000);
    CHECK(flowmesh_message_gap(message) == 0);
    CHECK(flowmesh_message_attempt(message) == 1);
    uint64_t now = (uint64_t)time(NULL) * 1000000000u;
    CHECK(flowmesh_message_timestamp_ns(message) > now - 3600u * 1000000000ull);
    CHECK(flowmesh_message_timestamp_ns(message) < now + 3600u * 1000000000ull);

    /* It stays when its subscription goes. */
    CHECK_OK(flowmesh_subscription_free(from));
    CHECK_BYTES("{}", flowmesh_message_payload(message));
    CHECK_OK(flowmesh_message_free(message));

    CHECK_OK(flowmesh_subscribe(client, "plain", NULL, &from));
    publish(host, "plain", "");
    message = take(from, "");
    CHECK(flowmesh_message_payload(message).data == NULL);
    CHECK(flowmesh_message_content_type(message).data == NULL);
    CHECK(flowmesh_message_header_count(message) == 0);
    CHECK(flowmesh_message_ttl_ms(message) == 0);
    CHECK_OK(flowmesh_message_free(message));
    CHECK_OK(flowmesh_subscription_free(from));
}

static void batches_keep_their_order(void)
{
    flowmesh_subscription *from;
    flowmesh_event events[100];
    unsigned char numbers[100];
    CHECK_OK(flowmesh_subscribe(host, "batch", NULL, &from));
    for (int i = 0; i < 100; i++) {
        numbers[i] = (unsigned char)i;
        events[i] = (flowmesh_event){"batch", &numbers[i], 1};
    }
    CHECK_OK(flowmesh_publish_many(client, events, 100, NULL));
    events[50].subject = "not..good";
    CHECK_STATUS(FLOWMESH_ERR_INVALID_ARGUMENT, flowmesh_publish_many(client, events, 100, NULL));
    publish(client, "batch", "end");

    flowmesh_message *messages[32];
    size_t count, seen = 0;
    while (seen < 101) {
        CHECK_OK(flowmesh_subscription_receive_many(from, SOON_MS, messages, 32, &count));
        CHECK(count >= 1 && count <= 32);
        for (size_t i = 0; i < count; i++, seen++) {
            flowmesh_bytes payload = flowmesh_message_payload(messages[i]);
            if (seen < 100)
                CHECK(payload.size == 1 && *(const unsigned char *)payload.data == seen);
            else
                CHECK_BYTES("end", payload);
        }
        CHECK_OK(flowmesh_message_free_many(messages, count));
        CHECK(messages[0] == NULL);
    }
    CHECK_STATUS(FLOWMESH_ERR_TIMEOUT, flowmesh_subscription_receive_many(from, 0, messages, 32, &count));
    CHECK_OK(flowmesh_subscription_free(from));
}

static void a_slow_subscription_counts_what_it_lost(void)
{
    flowmesh_subscribe_options options = FLOWMESH_SUBSCRIBE_OPTIONS_INIT;
    flowmesh_subscription *from;
    options.capacity = 2;
    CHECK_OK(flowmesh_subscribe(host, "slow", &options, &from));
    for (char payload[2] = "0"; payload[0] < '6'; payload[0]++)
        publish(host, "slow", payload);
    flowmesh_message *message = take(from, "4");
    CHECK(flowmesh_message_gap(message) == 4);
    CHECK_OK(flowmesh_message_free(message));
    expect(from, "5");

    flowmesh_subscription_stats stats = FLOWMESH_SUBSCRIPTION_STATS_INIT;
    CHECK_OK(flowmesh_subscription_get_stats(from, &stats));
    CHECK(stats.struct_size == sizeof stats);
    CHECK(stats.delivered == 2 && stats.delivered_bytes == 2 && stats.dropped == 4 && stats.depth == 0);
    CHECK(strcmp(stats.pattern, "slow") == 0 && strcmp(stats.group, "") == 0 && stats.session == 0);
    CHECK_OK(flowmesh_subscription_free(from));

    options.on_slow = FLOWMESH_ON_SLOW_DISCONNECT;
    CHECK_OK(flowmesh_subscribe(host, "slow", &options, &from));
    for (int i = 0; i < 3; i++)
        publish(host, "slow", "x");
    flowmesh_status status;
    while ((status = flowmesh_subscription_receive(from, SOON_MS, &message)) == FLOWMESH_OK)
        CHECK_OK(flowmesh_message_free(message));
    CHECK_STATUS(FLOWMESH_ERR_SLOW_CONSUMER, status);
    CHECK_OK(flowmesh_subscription_free(from));
}

static void a_failed_event_comes_again_and_then_goes_to_its_dead_letter(void)
{
    flowmesh_subscribe_options options = FLOWMESH_SUBSCRIBE_OPTIONS_INIT;
    flowmesh_subscription *from, *dead;
    options.max_attempts = 2;
    options.backoff_ms = 1;
    options.dead_letter = "mail.dead";
    CHECK_OK(flowmesh_subscribe(client, "mail", &options, &from));
    CHECK_OK(flowmesh_subscribe(host, "mail.dead", NULL, &dead));
    publish(host, "mail", "letter");
    for (uint32_t attempt = 1; attempt <= 2; attempt++) {
        flowmesh_message *message = take(from, "letter");
        CHECK(flowmesh_message_attempt(message) == attempt);
        CHECK_OK(flowmesh_subscription_fail(from, message, "NoRoute", "the road is closed"));
        CHECK_OK(flowmesh_message_free(message));
    }
    expect(dead, "letter");
    CHECK_OK(flowmesh_subscription_free(from));
    CHECK_OK(flowmesh_subscription_free(dead));
}

struct counted {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int handled, dropped;
    flowmesh_subscription *own;
};

static flowmesh_status handle(void *context, const flowmesh_message *message)
{
    struct counted *counted = context;
    flowmesh_status status = FLOWMESH_OK;
    CHECK_TEXT("handled", flowmesh_message_subject(message));
    if (flowmesh_message_attempt(message) == 1)
        status = flowmesh_handler_error("Again", "the first time always fails");
    pthread_mutex_lock(&counted->lock);
    counted->handled++;
    if (counted->handled == 4 && counted->own != NULL)
        CHECK_OK(flowmesh_subscription_free(counted->own)); /* inside its own handler */
    pthread_cond_broadcast(&counted->changed);
    pthread_mutex_unlock(&counted->lock);
    return status;
}

static void drop(void *context)
{
    struct counted *counted = context;
    pthread_mutex_lock(&counted->lock);
    counted->dropped++;
    pthread_cond_broadcast(&counted->changed);
    pthread_mutex_unlock(&counted->lock);
}

static void a_handler_is_called_and_tidied_up_once(void)
{
    for (int free_inside = 0; free_inside < 2; free_inside++) {
        struct counted counted = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, NULL};
        flowmesh_subscribe_options options = FLOWMESH_SUBSCRIBE_OPTIONS_INIT;
        flowmesh_subscription *subscription;
        options.max_attempts = 2;
        options.backoff_ms = 1;
        pthread_mutex_lock(&counted.lock);
        CHECK_OK(flowmesh_on(client, "handled", &options, handle, &counted, drop, &subscription));
        counted.own = free_inside ? subscription : NULL;
        pthread_mutex_unlock(&counted.lock);
        publish(host, "handled", "a");
        publish(host, "handled", "b");
        pthread_mutex_lock(&counted.lock);
        while (counted.handled < 4)
            pthread_cond_wait(&counted.changed, &counted.lock);
        pthread_mutex_unlock(&counted.lock);
        if (!free_inside)
            CHECK_OK(flowmesh_subscription_free(subscription));
        else
            CHECK_STATUS(FLOWMESH_ERR_BAD_HANDLE, flowmesh_subscription_free(subscription));
        pthread_mutex_lock(&counted.lock);
        while (counted.dropped == 0)
            pthread_cond_wait(&counted.changed, &counted.lock);
        CHECK(counted.handled == 4 && counted.dropped == 1);
        pthread_mutex_unlock(&counted.lock);
    }
}

static void limits_are_named(void)
{
    size_t limit = flowmesh_mesh_max_message_bytes(client);
    CHECK(limit == 65536);
    char *large = calloc(1, limit + 1);
    flowmesh_subscription *from;
    flowmesh_message *message;
    CHECK_OK(flowmesh_subscribe(host, "large", NULL, &from));
    CHECK_OK(flowmesh_publish(client, "large", large, limit, NULL, NULL));
    CHECK_OK(flowmesh_subscription_receive(from, SOON_MS, &message));
    CHECK(flowmesh_message_payload(message).size == limit);
    CHECK(memcmp(flowmesh_message_payload(message).data, large, limit) == 0);
    CHECK_OK(flowmesh_message_free(message));
    CHECK_STATUS(FLOWMESH_ERR_TOO_LARGE, flowmesh_publish(client, "large", large, limit + 1, NULL, NULL));
    CHECK(strstr(flowmesh_error_message(), "65536") != NULL);
    CHECK_STATUS(FLOWMESH_ERR_INVALID_ARGUMENT, flowmesh_publish(client, "$sys.a", "", 0, NULL, NULL));
    CHECK_OK(flowmesh_subscription_free(from));
    free(large);
}

int main(void)
{
    const char *directory = check_start();
    flowmesh_open_options options = FLOWMESH_OPEN_OPTIONS_INIT;
    options.max_message_bytes = 65536;
    options.name = "events";
    CHECK_OK(flowmesh_open(directory, &options, &host));
    CHECK_OK(flowmesh_connect(directory, &options, &client));

    a_message_has_all_it_was_given();
    batches_keep_their_order();
    a_slow_subscription_counts_what_it_lost();
    a_failed_event_comes_again_and_then_goes_to_its_dead_letter();
    a_handler_is_called_and_tidied_up_once();
    limits_are_named();

    CHECK_OK(flowmesh_mesh_free(client));
    CHECK_OK(flowmesh_mesh_free(host));
    return check_end("events");
}
