/* The queue steps of the scenarios: part of behaviour.c, whose fields, names and expectations they stand on. */

static const cJSON *field_of(const cJSON *step, const char *field)
{
    return cJSON_GetObjectItemCaseSensitive(step, field);
}

/* ---------- what is written in a step */

/* What options point to: freed when the call is over. */
struct scratch {
    void *owned[64];
    size_t count;
};

static void *own(struct scratch *scratch, void *memory)
{
    if (scratch->count == sizeof scratch->owned / sizeof *scratch->owned)
        die("a step needs too much");
    return scratch->owned[scratch->count++] = must(memory);
}

static void free_scratch(struct scratch *scratch)
{
    while (scratch->count > 0)
        free(scratch->owned[--scratch->count]);
}

/* A queue's, when `wanted` is "os", "fsync" or an interval; 0 otherwise. */
static int32_t durability_of(const cJSON *wanted, int64_t *interval_ms)
{
    *interval_ms = 0;
    if (cJSON_IsNumber(wanted)) {
        *interval_ms = (int64_t)wanted->valuedouble;
        return FLOWMESH_DURABILITY_INTERVAL;
    }
    if (wanted == NULL)
        return FLOWMESH_DURABILITY_DEFAULT;
    if (strcmp(wanted->valuestring, "os") == 0)
        return FLOWMESH_DURABILITY_OS;
    if (strcmp(wanted->valuestring, "fsync") == 0)
        return FLOWMESH_DURABILITY_FSYNC;
    die("durability is os, fsync or a number");
    return 0;
}

static flowmesh_status check_reached(const cJSON *step, int32_t reached)
{
    int64_t interval_ms;
    int32_t wanted = durability_of(field_of(step, "reached"), &interval_ms);
    return reached >= wanted ? FLOWMESH_OK : mismatch("durability %d was reached", reached);
}

static void read_backoff(const cJSON *wanted, flowmesh_backoff *backoff, struct scratch *scratch)
{
    const cJSON *list = field_of(wanted, "list_ms"), *item;
    if (wanted == NULL)
        return;
    if (list != NULL) {
        int64_t *waits = own(scratch, calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof *waits));
        backoff->kind = FLOWMESH_BACKOFF_LIST;
        backoff->list_ms = waits;
        backoff->list_count = 0;
        cJSON_ArrayForEach(item, list)
            waits[backoff->list_count++] = (int64_t)item->valuedouble;
    } else if (cJSON_HasObjectItem(wanted, "fixed_ms")) {
        backoff->kind = FLOWMESH_BACKOFF_FIXED;
        backoff->initial_ms = (int64_t)number(wanted, "fixed_ms", 0);
    } else {
        backoff->kind = FLOWMESH_BACKOFF_EXPONENTIAL;
        backoff->initial_ms = (int64_t)number(wanted, "initial_ms", (double)backoff->initial_ms);
        backoff->max_ms = (int64_t)number(wanted, "max_ms", (double)backoff->max_ms);
        backoff->factor = number(wanted, "factor", backoff->factor);
        if (cJSON_HasObjectItem(wanted, "jitter"))
            backoff->jitter = cJSON_IsTrue(field_of(wanted, "jitter"));
    }
}

static const flowmesh_rate *read_rate(const cJSON *wanted, struct scratch *scratch)
{
    if (wanted == NULL)
        return NULL;
    flowmesh_rate *rate = own(scratch, calloc(1, sizeof *rate));
    rate->count = (uint32_t)number(wanted, "count", 0);
    rate->burst = (uint32_t)number(wanted, "burst", 0);
    rate->per_ms = (int64_t)number(wanted, "per_ms", 0);
    return rate;
}

static void read_keep(const cJSON *wanted, flowmesh_keep *keep)
{
    keep->age_ms = (int64_t)number(wanted, "age_ms", (double)keep->age_ms);
    keep->count = (uint32_t)number(wanted, "count", keep->count);
}

static flowmesh_queue_config read_config(const cJSON *fields, struct scratch *scratch)
{
    flowmesh_queue_config config = FLOWMESH_QUEUE_CONFIG_INIT;
    const cJSON *retention = field_of(fields, "retention"), *weights = field_of(fields, "group_weights"), *weight;
    config.lease_ms = (int64_t)number(fields, "lease_ms", (double)config.lease_ms);
    config.deadline_ms = (int64_t)number(fields, "deadline_ms", -1);
    config.ttl_ms = (int64_t)number(fields, "ttl_ms", -1);
    config.aging_ms = (int64_t)number(fields, "aging_ms", -1);
    config.cancel_grace_ms = (int64_t)number(fields, "cancel_grace_ms", (double)config.cancel_grace_ms);
    config.max_length = (int64_t)number(fields, "max_length", -1);
    config.max_attempts = (uint32_t)number(fields, "max_attempts", config.max_attempts);
    config.payload_bytes_max = (uint32_t)number(fields, "payload_bytes_max", config.payload_bytes_max);
    config.concurrency = (int32_t)number(fields, "concurrency", -1);
    config.group_concurrency = (int32_t)number(fields, "group_concurrency", -1);
    read_backoff(field_of(fields, "backoff"), &config.backoff, scratch);
    config.rate = read_rate(field_of(fields, "rate"), scratch);
    config.group_rate = read_rate(field_of(fields, "group_rate"), scratch);
    flowmesh_group_weight *list = own(scratch, calloc((size_t)cJSON_GetArraySize(weights) + 1, sizeof *list));
    config.group_weights = list;
    cJSON_ArrayForEach(weight, weights)
        list[config.group_weight_count++] = (flowmesh_group_weight){weight->string, (uint32_t)weight->valuedouble, 0};
    read_keep(field_of(retention, "done"), &config.keep_done);
    read_keep(field_of(retention, "dead"), &config.keep_dead);
    read_keep(field_of(retention, "cancelled"), &config.keep_cancelled);
    read_keep(field_of(retention, "expired"), &config.keep_expired);
    config.dead_letter_to = text(fields, "dead_letter_to", NULL);
    config.uncounted_on_crash = cJSON_IsTrue(field_of(fields, "uncounted_on_crash"));
    if (cJSON_HasObjectItem(fields, "durability"))
        config.durability = durability_of(field_of(fields, "durability"), &config.durability_interval_ms);
    return config;
}

/* The place of `wanted` among `names`, which end with NULL. */
static int32_t place_of(const char *wanted, const char *const *names)
{
    for (int32_t place = 0; names[place] != NULL; place++)
        if (strcmp(wanted, names[place]) == 0)
            return place;
    die("a word of the step is not known");
    return 0;
}

static long long wall_ms(void)
{
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return time.tv_sec * 1000LL + time.tv_nsec / 1000000;
}

static flowmesh_enqueue_options read_job_options(const cJSON *fields, struct scratch *scratch)
{
    static const char *const scopes[] = {"active", "waiting", "window", NULL};
    static const char *const conflicts[] = {"return_existing", "replace", "extend", "keep_last", NULL};
    flowmesh_enqueue_options options = FLOWMESH_ENQUEUE_OPTIONS_INIT;
    struct headers headers = headers_of(field_of(fields, "headers"));
    options.headers = own(scratch, headers.list);
    options.header_count = headers.count;
    options.id = text(fields, "id", NULL);
    options.priority = (int32_t)number(fields, "priority", 0);
    options.delay_ms = (int64_t)number(fields, "delay_ms", 0);
    if (cJSON_HasObjectItem(fields, "run_at_ms"))
        options.run_at_ms = wall_ms() + (int64_t)number(fields, "run_at_ms", 0);
    options.ttl_ms = (int64_t)number(fields, "ttl_ms", -1);
    options.unique_key = text(fields, "unique", NULL);
    options.unique_scope = place_of(text(fields, "unique_scope", "active"), scopes);
    options.unique_window_ms = (int64_t)number(fields, "unique_window_ms", 0);
    options.unique_conflict = place_of(text(fields, "on_conflict", "return_existing"), conflicts);
    options.group = text(fields, "group", NULL);
    options.content_type = text(fields, "content_type", NULL);
    options.max_attempts = (int32_t)number(fields, "max_attempts", -1);
    read_backoff(field_of(fields, "backoff"), &options.backoff, scratch);
    options.lease_ms = (int64_t)number(fields, "lease_ms", -1);
    options.deadline_ms = (int64_t)number(fields, "deadline_ms", -1);
    options.result_ttl_ms = (int64_t)number(fields, "result_ttl_ms", -1);
    return options;
}

/* ---------- what a step names */

/* The step's queue, through a handle of its durability if it has one: `mine` is to be freed then. */
static flowmesh_status queue_of(const cJSON *step, flowmesh_queue **queue, flowmesh_queue **mine)
{
    int64_t interval_ms;
    int32_t durability = durability_of(field_of(step, "durability"), &interval_ms);
    *mine = NULL;
    TRY(handle_of(QUEUE, text(step, "queue", ""), queue));
    if (durability == FLOWMESH_DURABILITY_DEFAULT)
        return FLOWMESH_OK;
    TRY(flowmesh_queue_durable(*queue, durability, interval_ms, mine));
    *queue = *mine;
    return FLOWMESH_OK;
}

/* The id of that name, or the text itself when it is an id. */
static const char *id_of(const char *name)
{
    struct named *named = find(ID, name);
    if (named != NULL)
        return named->handle;
    return strlen(name) == 36 ? name : "(no such id)";
}

static void keep_id(const char *name, const char *id)
{
    if (name != NULL)
        keep(ID, name, must(strdup(id)), NULL);
}

static flowmesh_status check_job(const cJSON *expect, flowmesh_job *job)
{
    const cJSON *field, *header;
    cJSON_ArrayForEach(field, expect) {
        const char *name = field->string;
        if (strcmp(name, "payload") == 0)
            TRY(same_bytes(name, field, flowmesh_job_payload(job)));
        else if (strcmp(name, "id") == 0)
            TRY(strcmp(flowmesh_job_id(job).data, id_of(field->valuestring)) == 0 ? FLOWMESH_OK
                                                                                   : mismatch("it is another job"));
        else if (strcmp(name, "attempt") == 0)
            TRY(same_number(name, field, flowmesh_job_attempt(job)));
        else if (strcmp(name, "max_attempts") == 0)
            TRY(same_number(name, field, flowmesh_job_max_attempts(job)));
        else if (strcmp(name, "priority") == 0)
            TRY(same_number(name, field, flowmesh_job_priority(job)));
        else if (strcmp(name, "redrives") == 0)
            TRY(same_number(name, field, flowmesh_job_redrives(job)));
        else if (strcmp(name, "lease_ms") == 0)
            TRY(same_number(name, field, (double)flowmesh_job_lease_ms(job)));
        else if (strcmp(name, "group") == 0)
            TRY(same_text(name, field, flowmesh_job_group(job)));
        else if (strcmp(name, "content_type") == 0)
            TRY(same_text(name, field, flowmesh_job_content_type(job)));
        else if (strcmp(name, "headers") == 0)
            cJSON_ArrayForEach(header, field)
                TRY(same_text(header->string, header, flowmesh_job_header(job, header->string)));
        else
            return mismatch("the runner does not know the expected field %s", name);
    }
    return FLOWMESH_OK;
}

/* What a reservation gave is what the step says; jobs that it names are kept, the others let go. */
static flowmesh_status take_jobs(const cJSON *step, flowmesh_job **jobs, size_t count)
{
    const cJSON *as = field_of(step, "as"), *payloads = field_of(step, "payloads"), *item;
    size_t names = cJSON_IsArray(as) ? (size_t)cJSON_GetArraySize(as) : as != NULL, index = 0;
    double waited = (double)(now_ms() - world.mark);
    flowmesh_status status = check_job(field_of(step, "expect"), jobs[0]);
    if (status == FLOWMESH_OK && names > 0 && count != names)
        status = mismatch("there came %zu jobs", count);
    if (status == FLOWMESH_OK && payloads != NULL && count != (size_t)cJSON_GetArraySize(payloads))
        status = mismatch("there came %zu jobs", count);
    cJSON_ArrayForEach(item, payloads) {
        if (status == FLOWMESH_OK)
            status = same_bytes("payload", item, flowmesh_job_payload(jobs[index]));
        index++;
    }
    /* The clock has whole milliseconds: what took 20.9 may show as 20. */
    if (status == FLOWMESH_OK && waited + 1 < number(step, "after_ms", 0))
        status = mismatch("it came after %g ms", waited);
    for (index = 0; index < count; index++) {
        const cJSON *name = cJSON_IsArray(as) ? cJSON_GetArrayItem(as, (int)index) : index == 0 ? as : NULL;
        if (name != NULL)
            keep(JOB, name->valuestring, jobs[index], NULL);
        else
            flowmesh_job_free(jobs[index]);
    }
    return status;
}

enum { JOBS_MAX = 1000 };

static size_t count_of(const cJSON *step)
{
    const cJSON *as = field_of(step, "as");
    return (size_t)number(step, "count", cJSON_IsArray(as) ? cJSON_GetArraySize(as) : 1);
}

static flowmesh_status do_reserve(const cJSON *step, flowmesh_queue *queue)
{
    static flowmesh_job *jobs[JOBS_MAX + 1];
    size_t count;
    flowmesh_status status = flowmesh_queue_reserve(queue, (int64_t)number(step, "lease_ms", -1),
                                                    (int64_t)number(step, "timeout_ms", WATCHDOG_MS), jobs,
                                                    count_of(step), &count);
    if (status == FLOWMESH_ERR_TIMEOUT)
        return mismatch("there came no job");
    TRY(status);
    return take_jobs(step, jobs, count);
}

static flowmesh_status do_start_reserve(const cJSON *step, flowmesh_queue *queue)
{
    flowmesh_reservation *reservation;
    TRY(flowmesh_queue_reserve_start(queue, (int64_t)number(step, "lease_ms", -1),
                                     (int64_t)number(step, "timeout_ms", WATCHDOG_MS), count_of(step), &reservation));
    keep(RESERVATION, text(step, "as", ""), reservation, NULL);
    return FLOWMESH_OK;
}

static flowmesh_status do_finish_reserve(const cJSON *step)
{
    static flowmesh_job *jobs[JOBS_MAX];
    flowmesh_reservation *reservation;
    size_t count;
    TRY(handle_of(RESERVATION, text(step, "reserve", ""), &reservation));
    flowmesh_status status = flowmesh_reservation_wait(reservation, 2 * WATCHDOG_MS, jobs, JOBS_MAX, &count);
    if (cJSON_IsTrue(field_of(step, "none"))) {
        if (status == FLOWMESH_ERR_TIMEOUT)
            return FLOWMESH_OK;
        TRY(status);
        flowmesh_job_free_many(jobs, count);
        return mismatch("there came %zu jobs", count);
    }
    if (status == FLOWMESH_ERR_TIMEOUT)
        return mismatch("there came no job");
    TRY(status);
    return take_jobs(step, jobs, count);
}

static flowmesh_status do_expect_no_job(const cJSON *step, flowmesh_queue *queue)
{
    flowmesh_job *job;
    flowmesh_status status = flowmesh_queue_next(queue, (int64_t)number(step, "for_ms", 50), &job);
    if (status == FLOWMESH_ERR_TIMEOUT)
        return FLOWMESH_OK;
    TRY(status);
    flowmesh_job_free(job);
    return mismatch("there came a job");
}

static flowmesh_status do_take(const cJSON *step, flowmesh_queue *queue)
{
    cJSON *left = must(cJSON_Duplicate(field_of(step, "payloads"), 1));
    int any_order = cJSON_IsTrue(field_of(step, "any_order"));
    flowmesh_status status = FLOWMESH_OK;
    while (status == FLOWMESH_OK && cJSON_GetArraySize(left) > 0) {
        flowmesh_job *job;
        int at = -1;
        status = flowmesh_queue_next(queue, WATCHDOG_MS, &job);
        if (status != FLOWMESH_OK)
            break;
        for (int i = 0; at < 0 && i < (any_order ? cJSON_GetArraySize(left) : 1); i++)
            if (same_bytes("payload", cJSON_GetArrayItem(left, i), flowmesh_job_payload(job)) == FLOWMESH_OK)
                at = i;
        if (at < 0)
            status = MISMATCH;
        else {
            cJSON_DeleteItemFromArray(left, at);
            status = flowmesh_job_ack(job, NULL, 0, NULL);
        }
        flowmesh_job_free(job);
    }
    cJSON_Delete(left);
    double waited = (double)(now_ms() - world.mark);
    if (status == FLOWMESH_OK && waited + 1 < number(step, "after_ms", 0))
        status = mismatch("they came after %g ms", waited);
    return status;
}

/* ---------- enqueueing */

static const char *const outcomes[] = {"new", "replaced", "existing", "extended", NULL};

static flowmesh_status check_receipt(const char *outcome, const cJSON *step, const flowmesh_receipt *receipt)
{
    const char *same_as = text(step, "same_as", NULL);
    if (receipt->outcome != place_of(outcome, outcomes))
        return mismatch("the outcome is %s", outcomes[receipt->outcome]);
    if (same_as != NULL) {
        const char *is = receipt->outcome == FLOWMESH_ENQUEUED_REPLACED ? receipt->replaced : receipt->id;
        if (strcmp(is, id_of(same_as)) != 0)
            return mismatch("it is %s, not %s", is, id_of(same_as));
    }
    return check_reached(step, receipt->durability);
}

static flowmesh_status do_enqueue(const cJSON *step, flowmesh_queue *queue)
{
    struct scratch scratch = {0};
    struct bytes payload = bytes_of(field_of(step, "payload"));
    flowmesh_enqueue_options options = read_job_options(step, &scratch);
    flowmesh_receipt receipt;
    options.durability = durability_of(field_of(step, "durability"), &options.durability_interval_ms);
    flowmesh_status status = flowmesh_queue_enqueue(queue, payload.data, payload.size, &options, &receipt);
    free(payload.data);
    free_scratch(&scratch);
    TRY(status);
    status = check_receipt(text(step, "outcome", "new"), step, &receipt);
    keep_id(text(step, "as", NULL), receipt.id);
    return status;
}

static flowmesh_status do_enqueue_many(const cJSON *step, flowmesh_queue *queue)
{
    const cJSON *list = field_of(step, "jobs"), *item, *wanted = field_of(step, "outcomes");
    size_t each = (size_t)cJSON_GetArraySize(list), count = each * (size_t)number(step, "repeat", 1), index = 0;
    struct scratch scratch = {0};
    flowmesh_new_job *jobs = must(calloc(count + 1, sizeof *jobs));
    flowmesh_receipt *receipts = must(calloc(count + 1, sizeof *receipts));
    flowmesh_enqueue_options *options = own(&scratch, calloc(each + 1, sizeof *options));
    cJSON_ArrayForEach(item, list) {
        struct bytes payload = bytes_of(field_of(item, "payload"));
        options[index] = read_job_options(item, &scratch);
        jobs[index] = (flowmesh_new_job){own(&scratch, payload.data), payload.size, &options[index]};
        index++;
    }
    for (; index < count; index++)
        jobs[index] = jobs[index - each];
    flowmesh_status status = flowmesh_queue_enqueue_many(queue, jobs, count, NULL, receipts);
    index = 0;
    cJSON_ArrayForEach(item, list) {
        if (status == FLOWMESH_OK)
            keep_id(text(item, "as", NULL), receipts[index].id);
        index++;
    }
    if (status == FLOWMESH_OK && wanted != NULL && (size_t)cJSON_GetArraySize(wanted) != count)
        status = mismatch("there are %zu outcomes", count);
    for (index = 0; status == FLOWMESH_OK && index < count; index++)
        status = check_receipt(wanted == NULL ? "new" : cJSON_GetArrayItem(wanted, (int)index)->valuestring, step,
                               &receipts[index]);
    free(jobs);
    free(receipts);
    free_scratch(&scratch);
    return status;
}

/* ---------- settling */

static flowmesh_status do_settle(const char *what, const cJSON *step)
{
    flowmesh_job *job;
    int32_t reached = FLOWMESH_DURABILITY_FSYNC;
    flowmesh_status status;
    const char *message = text(step, "message", ""), *detail = text(step, "detail", NULL);
    TRY(handle_of(JOB, text(step, "job", ""), &job));
    if (strcmp(what, "ack") == 0) {
        const cJSON *wanted = field_of(step, "result");
        struct bytes result = bytes_of(wanted);
        status = flowmesh_job_ack(job, wanted == NULL ? NULL : result.data, result.size, &reached);
        free(result.data);
    } else if (strcmp(what, "nack") == 0) {
        status = flowmesh_job_nack(job, message, detail, (int64_t)number(step, "delay_ms", -1), &reached);
    } else if (strcmp(what, "reject") == 0) {
        status = flowmesh_job_reject(job, message, detail, &reached);
    } else if (strcmp(what, "release") == 0) {
        status = flowmesh_job_release(job, &reached);
    } else {
        status = flowmesh_job_snooze(job, (int64_t)number(step, "delay_ms", 0), &reached);
    }
    TRY(status);
    return check_reached(step, reached);
}

static flowmesh_status do_ack_and_reserve(const cJSON *step)
{
    flowmesh_job *job, *next;
    const cJSON *wanted = field_of(step, "result");
    TRY(handle_of(JOB, text(step, "job", ""), &job));
    struct bytes result = bytes_of(wanted);
    flowmesh_status status = flowmesh_job_ack_and_reserve(job, wanted == NULL ? NULL : result.data, result.size,
                                                          (int64_t)number(step, "lease_ms", -1), &next, NULL);
    free(result.data);
    TRY(status);
    if (cJSON_IsTrue(field_of(step, "none"))) {
        if (next == NULL)
            return FLOWMESH_OK;
        flowmesh_job_free(next);
        return mismatch("there came a job");
    }
    return next == NULL ? mismatch("there came no job") : take_jobs(step, &next, 1);
}

static flowmesh_status do_ack_many(const cJSON *step, flowmesh_queue *queue)
{
    const cJSON *names = field_of(step, "jobs"), *errors = field_of(step, "errors"), *item;
    flowmesh_job *jobs[64];
    flowmesh_status each[64];
    size_t count = 0;
    cJSON_ArrayForEach(item, names)
        if (count < sizeof jobs / sizeof *jobs)
            TRY(handle_of(JOB, item->valuestring, &jobs[count++]));
    flowmesh_status status = flowmesh_queue_ack_many(queue, jobs, count, each);
    if (errors == NULL)
        return status;
    for (size_t i = 0; i < count; i++) {
        item = cJSON_GetArrayItem(errors, (int)i);
        const char *wanted = cJSON_IsNull(item) ? "OK" : item->valuestring;
        if (strcmp(wanted, flowmesh_status_name(each[i])) != 0)
            return mismatch("job %zu: wanted %s, got %s", i, wanted, flowmesh_status_name(each[i]));
    }
    return FLOWMESH_OK;
}

static flowmesh_status do_extend(const cJSON *step)
{
    flowmesh_job *job;
    int64_t left = 0;
    TRY(handle_of(JOB, text(step, "job", ""), &job));
    TRY(flowmesh_job_extend(job, (int64_t)number(step, "lease_ms", -1), &left));
    if ((double)left < number(step, "at_least_ms", 0) || (double)left > number(step, "at_most_ms", (double)left))
        return mismatch("it is ours for %lld ms", (long long)left);
    return FLOWMESH_OK;
}

static flowmesh_status do_progress(const cJSON *step)
{
    flowmesh_job *job;
    TRY(handle_of(JOB, text(step, "job", ""), &job));
    struct bytes payload = bytes_of(field_of(step, "payload"));
    flowmesh_status status = flowmesh_job_progress(job, payload.data, payload.size);
    free(payload.data);
    return status;
}

static flowmesh_status check_handle(const cJSON *step, void *about)
{
    const cJSON *field;
    double left = (double)flowmesh_job_remaining_ms(about);
    cJSON_ArrayForEach(field, field_of(step, "expect")) {
        int right;
        if (strcmp(field->string, "cancelled") == 0) {
            right = flowmesh_job_is_cancelled(about) == cJSON_IsTrue(field);
            /* The descriptor says the same. */
            struct pollfd ready = {flowmesh_job_cancel_fd(about), POLLIN, 0};
            right = right && (poll(&ready, 1, 0) == 1) == cJSON_IsTrue(field);
        } else if (strcmp(field->string, "settled") == 0)
            right = flowmesh_job_is_settled(about) == cJSON_IsTrue(field);
        else if (strcmp(field->string, "remaining_at_least_ms") == 0)
            right = left >= field->valuedouble;
        else if (strcmp(field->string, "remaining_at_most_ms") == 0)
            right = left <= field->valuedouble;
        else
            return mismatch("the runner does not know the expected field %s", field->string);
        if (!right)
            return mismatch("%s is not so; %g ms remain", field->string, left);
    }
    return FLOWMESH_OK;
}

/* ---------- looking */

static cJSON *keep_json(const flowmesh_keep *keep)
{
    cJSON *json = must(cJSON_CreateObject());
    cJSON_AddNumberToObject(json, "age_ms", (double)keep->age_ms);
    cJSON_AddNumberToObject(json, "count", keep->count);
    return json;
}

static void add_number_or_null(cJSON *json, const char *name, int64_t value)
{
    if (value < 0)
        cJSON_AddNullToObject(json, name);
    else
        cJSON_AddNumberToObject(json, name, (double)value);
}

static void add_text_or_null(cJSON *json, const char *name, const char *value)
{
    if (value == NULL)
        cJSON_AddNullToObject(json, name);
    else
        cJSON_AddStringToObject(json, name, value);
}

static void add_rate(cJSON *json, const char *name, const flowmesh_rate *rate)
{
    if (rate == NULL) {
        cJSON_AddNullToObject(json, name);
        return;
    }
    cJSON *added = must(cJSON_AddObjectToObject(json, name));
    cJSON_AddNumberToObject(added, "count", rate->count);
    cJSON_AddNumberToObject(added, "per_ms", (double)rate->per_ms);
    cJSON_AddNumberToObject(added, "burst", rate->burst);
}

static void add_backoff(cJSON *json, const flowmesh_backoff *backoff)
{
    cJSON *added = must(cJSON_AddObjectToObject(json, "backoff"));
    if (backoff->kind == FLOWMESH_BACKOFF_FIXED) {
        cJSON_AddNumberToObject(added, "fixed_ms", (double)backoff->initial_ms);
    } else if (backoff->kind == FLOWMESH_BACKOFF_LIST) {
        cJSON *list = must(cJSON_AddArrayToObject(added, "list_ms"));
        for (size_t i = 0; i < backoff->list_count; i++)
            cJSON_AddItemToArray(list, cJSON_CreateNumber((double)backoff->list_ms[i]));
    } else {
        cJSON_AddNumberToObject(added, "initial_ms", (double)backoff->initial_ms);
        cJSON_AddNumberToObject(added, "factor", backoff->factor);
        cJSON_AddNumberToObject(added, "max_ms", (double)backoff->max_ms);
        cJSON_AddBoolToObject(added, "jitter", backoff->jitter);
    }
}

static flowmesh_status do_config(const cJSON *step, flowmesh_queue *queue)
{
    flowmesh_queue_settings *settings;
    flowmesh_queue_config config = FLOWMESH_QUEUE_CONFIG_INIT;
    TRY(flowmesh_queue_get_settings(queue, &settings));
    flowmesh_status status = flowmesh_queue_settings_get(settings, &config);
    cJSON *json = must(cJSON_CreateObject());
    cJSON_AddNumberToObject(json, "lease_ms", (double)config.lease_ms);
    cJSON_AddNumberToObject(json, "max_attempts", config.max_attempts);
    add_backoff(json, &config.backoff);
    add_number_or_null(json, "deadline_ms", config.deadline_ms);
    add_number_or_null(json, "ttl_ms", config.ttl_ms);
    add_number_or_null(json, "max_length", config.max_length);
    cJSON_AddNumberToObject(json, "payload_bytes_max", config.payload_bytes_max);
    add_number_or_null(json, "concurrency", config.concurrency);
    add_rate(json, "rate", config.rate);
    add_number_or_null(json, "group_concurrency", config.group_concurrency);
    add_rate(json, "group_rate", config.group_rate);
    cJSON *weights = must(cJSON_AddObjectToObject(json, "group_weights"));
    for (size_t i = 0; i < config.group_weight_count; i++)
        cJSON_AddNumberToObject(weights, config.group_weights[i].group, config.group_weights[i].weight);
    add_number_or_null(json, "aging_ms", config.aging_ms);
    cJSON *retention = must(cJSON_AddObjectToObject(json, "retention"));
    cJSON_AddItemToObject(retention, "done", keep_json(&config.keep_done));
    cJSON_AddItemToObject(retention, "dead", keep_json(&config.keep_dead));
    cJSON_AddItemToObject(retention, "cancelled", keep_json(&config.keep_cancelled));
    cJSON_AddItemToObject(retention, "expired", keep_json(&config.keep_expired));
    add_text_or_null(json, "dead_letter_to", config.dead_letter_to);
    cJSON_AddNumberToObject(json, "cancel_grace_ms", (double)config.cancel_grace_ms);
    cJSON_AddBoolToObject(json, "uncounted_on_crash", config.uncounted_on_crash);
    if (config.durability == FLOWMESH_DURABILITY_INTERVAL)
        cJSON_AddNumberToObject(json, "durability", (double)config.durability_interval_ms);
    else
        cJSON_AddStringToObject(json, "durability", config.durability == FLOWMESH_DURABILITY_FSYNC ? "fsync" : "os");
    flowmesh_queue_settings_free(settings);
    if (status == FLOWMESH_OK)
        status = compare(field_of(step, "expect"), json);
    cJSON_Delete(json);
    return status;
}

static flowmesh_status check_queue_stats(const cJSON *step, void *about)
{
    flowmesh_queue_stats stats = FLOWMESH_QUEUE_STATS_INIT;
    TRY(flowmesh_queue_get_stats(about, &stats));
    cJSON *json = must(cJSON_CreateObject());
    cJSON *jobs = must(cJSON_AddObjectToObject(json, "jobs")), *totals = must(cJSON_AddObjectToObject(json, "totals"));
#define JOBS(name) cJSON_AddNumberToObject(jobs, #name, (double)stats.name)
    JOBS(scheduled), JOBS(ready), JOBS(blocked), JOBS(leased), JOBS(retry_wait), JOBS(done), JOBS(dead);
    JOBS(cancelled), JOBS(expired);
#define TOTAL(name) cJSON_AddNumberToObject(totals, #name, (double)stats.total_##name)
    TOTAL(enqueued), TOTAL(duplicates), TOTAL(reserved), TOTAL(done), TOTAL(failed), TOTAL(lease_expired);
    TOTAL(worker_gone), TOTAL(released), TOTAL(dead), TOTAL(cancelled), TOTAL(expired), TOTAL(redriven), TOTAL(removed);
    cJSON_AddNumberToObject(json, "payload_bytes", (double)stats.payload_bytes);
    cJSON_AddNumberToObject(json, "groups", (double)stats.groups);
    cJSON_AddNumberToObject(json, "redriving", (double)stats.redriving);
    cJSON_AddBoolToObject(json, "paused", stats.paused);
    cJSON_AddBoolToObject(json, "draining", stats.draining);
    flowmesh_status status = compare(field_of(step, "expect"), json);
    cJSON_Delete(json);
    return status;
}

static flowmesh_status check_failures(const cJSON *wanted, flowmesh_job_list *list, size_t count)
{
    size_t index = 0;
    const cJSON *failure, *field;
    if ((size_t)cJSON_GetArraySize(wanted) != count)
        return mismatch("there are %zu failures", count);
    cJSON_ArrayForEach(failure, wanted) {
        flowmesh_failure found = FLOWMESH_FAILURE_INIT;
        TRY(flowmesh_job_list_failure(list, 0, index++, &found));
        cJSON_ArrayForEach(field, failure) {
            if (strcmp(field->string, "attempt") == 0)
                TRY(same_number("attempt", field, found.attempt));
            else if (strcmp(field->string, "message") == 0)
                TRY(same_text("message", field, (flowmesh_text){found.message, strlen(found.message)}));
            else if (strcmp(field->string, "detail") == 0)
                TRY(same_text("detail", field, (flowmesh_text){found.detail, strlen(found.detail)}));
            else
                return mismatch("the runner does not know the expected field %s", field->string);
        }
    }
    return FLOWMESH_OK;
}

static flowmesh_status check_within(const char *what, const cJSON *wanted, int64_t at_ms)
{
    /* The clocks may differ by the rounding. */
    if (at_ms < 0 || (double)(at_ms - wall_ms()) > wanted->valuedouble + 1)
        return mismatch("%s is at %lld, now is %lld", what, (long long)at_ms, wall_ms());
    return FLOWMESH_OK;
}

static flowmesh_status check_info_of(const cJSON *expect, flowmesh_job_list *list)
{
    flowmesh_job_info info = FLOWMESH_JOB_INFO_INIT;
    const cJSON *field;
    TRY(flowmesh_job_list_get(list, 0, &info));
    cJSON *json = must(cJSON_CreateObject());
    cJSON_AddStringToObject(json, "state", flowmesh_job_state_name(info.state));
    cJSON_AddNumberToObject(json, "priority", info.priority);
    cJSON_AddNumberToObject(json, "attempt", info.attempt);
    cJSON_AddNumberToObject(json, "max_attempts", info.max_attempts);
    add_text_or_null(json, "group", info.group);
    add_text_or_null(json, "unique_key", info.unique_key);
    cJSON_AddNumberToObject(json, "payload_bytes", (double)info.payload_bytes);
    cJSON_AddNumberToObject(json, "redrives", info.redrives);
    cJSON_AddBoolToObject(json, "cancelling", info.cancelling);
    cJSON_AddBoolToObject(json, "has_result", info.has_result);
    cJSON_AddBoolToObject(json, "expires", info.expires_ms >= 0);
    flowmesh_status status = FLOWMESH_OK;
    cJSON_ArrayForEach(field, expect) {
        const char *name = field->string;
        if (status != FLOWMESH_OK)
            break;
        if (strcmp(name, "progress") == 0)
            status = cJSON_IsNull(field) ? (info.progress.size == 0 ? FLOWMESH_OK : mismatch("there is progress"))
                                         : same_bytes(name, field, info.progress);
        else if (strcmp(name, "due_within_ms") == 0)
            status = check_within("due", field, info.due_ms);
        else if (strcmp(name, "failures") == 0)
            status = check_failures(field, list, info.failure_count);
        else {
            cJSON *one = must(cJSON_CreateObject());
            cJSON_AddItemReferenceToObject(one, name, (cJSON *)(uintptr_t)field);
            status = compare(one, json);
            cJSON_Delete(one);
        }
    }
    cJSON_Delete(json);
    return status;
}

/* A queue and a job of it, for checks that look again. */
struct whose {
    flowmesh_queue *queue;
    const char *id;
};

static flowmesh_status check_peek(const cJSON *step, void *about)
{
    struct whose *whose = about;
    flowmesh_job_list *list;
    TRY(flowmesh_queue_peek(whose->queue, whose->id, &list));
    flowmesh_status status = check_info_of(field_of(step, "expect"), list);
    flowmesh_job_list_free(list);
    return status;
}

static flowmesh_status check_gone(const cJSON *step, void *about)
{
    struct whose *whose = about;
    flowmesh_job_list *list;
    (void)step;
    flowmesh_status status = flowmesh_queue_peek(whose->queue, whose->id, &list);
    if (status == FLOWMESH_ERR_NOT_FOUND)
        return FLOWMESH_OK;
    TRY(status);
    flowmesh_job_list_free(list);
    return mismatch("it is still there");
}

static flowmesh_status do_list(const cJSON *step, flowmesh_queue *queue)
{
    const cJSON *ids = field_of(step, "ids"), *id, *more = field_of(step, "more");
    flowmesh_cursor cursor = FLOWMESH_CURSOR_INIT;
    flowmesh_job_list *list;
    if (cJSON_HasObjectItem(step, "cursor")) {
        flowmesh_cursor *from;
        TRY(handle_of(CURSOR, text(step, "cursor", ""), &from));
        cursor = *from;
    }
    int32_t state = flowmesh_job_state_parse(text(step, "state", ""));
    if (state < 0)
        return state;
    TRY(flowmesh_queue_list(queue, state, &cursor, (size_t)number(step, "limit", 100), &list));
    size_t count = flowmesh_job_list_count(list), index = 0;
    flowmesh_status status = FLOWMESH_OK;
    if ((double)count != number(step, "count", (double)count) || (ids != NULL && count != (size_t)cJSON_GetArraySize(ids)))
        status = mismatch("there are %zu jobs", count);
    cJSON_ArrayForEach(id, ids) {
        flowmesh_job_info info = FLOWMESH_JOB_INFO_INIT;
        if (status == FLOWMESH_OK)
            status = flowmesh_job_list_get(list, index++, &info);
        if (status == FLOWMESH_OK && strcmp(info.id, id_of(id->valuestring)) != 0)
            status = mismatch("%s is not number %zu", id->valuestring, index - 1);
    }
    if (status == FLOWMESH_OK && more != NULL && (cursor.state == 1) != cJSON_IsTrue(more))
        status = mismatch("there is %s", cursor.state == 1 ? "more" : "no more");
    flowmesh_job_list_free(list);
    if (cJSON_HasObjectItem(step, "as")) {
        flowmesh_cursor *kept = must(malloc(sizeof *kept));
        *kept = cursor;
        keep(CURSOR, text(step, "as", ""), kept, NULL);
    }
    return status;
}

static flowmesh_status do_content(const cJSON *step, flowmesh_queue *queue)
{
    flowmesh_content *content;
    const cJSON *field, *header;
    TRY(flowmesh_queue_content(queue, id_of(text(step, "id", "")), &content));
    flowmesh_status status = FLOWMESH_OK;
    cJSON_ArrayForEach(field, field_of(step, "expect")) {
        if (status != FLOWMESH_OK)
            break;
        if (strcmp(field->string, "payload") == 0)
            status = same_bytes("payload", field, flowmesh_content_payload(content));
        else if (strcmp(field->string, "content_type") == 0)
            status = same_text("content_type", field, flowmesh_content_type(content));
        else if (strcmp(field->string, "headers") == 0)
            cJSON_ArrayForEach(header, field) {
                if (status == FLOWMESH_OK)
                    status = same_text(header->string, header, flowmesh_content_header(content, header->string));
            }
        else
            status = mismatch("the runner does not know the expected field %s", field->string);
    }
    flowmesh_content_free(content);
    return status;
}

static flowmesh_status do_result(const cJSON *step, flowmesh_queue *queue)
{
    const cJSON *wanted = field_of(step, "expect");
    flowmesh_content *content;
    TRY(flowmesh_queue_result(queue, id_of(text(step, "id", "")), &content));
    if (content == NULL)
        return cJSON_IsNull(wanted) ? FLOWMESH_OK : mismatch("there is no result");
    flowmesh_status status = cJSON_IsNull(wanted) ? mismatch("there is a result")
                                                  : same_bytes("result", wanted, flowmesh_content_payload(content));
    flowmesh_content_free(content);
    return status;
}

static flowmesh_status do_queues(const cJSON *step, flowmesh_mesh *mesh)
{
    const cJSON *wanted = field_of(step, "expect"), *name;
    flowmesh_name_list *list;
    size_t index = 0;
    TRY(flowmesh_queues(mesh, &list));
    flowmesh_status status = FLOWMESH_OK;
    if (flowmesh_name_list_count(list) != (size_t)cJSON_GetArraySize(wanted))
        status = mismatch("there are %zu queues", flowmesh_name_list_count(list));
    cJSON_ArrayForEach(name, wanted)
        if (status == FLOWMESH_OK)
            status = same_text("name", name, flowmesh_name_list_get(list, index++));
    flowmesh_name_list_free(list);
    return status;
}

/* ---------- managing */

static flowmesh_status do_cancel_job(const cJSON *step, flowmesh_queue *queue)
{
    static const char *const names[] = {"now", "asked", "finished", NULL};
    int32_t outcome;
    TRY(flowmesh_queue_cancel(queue, id_of(text(step, "id", "")), text(step, "why", NULL), &outcome));
    const char *wanted = text(step, "expect", names[outcome]);
    return strcmp(wanted, names[outcome]) == 0 ? FLOWMESH_OK : mismatch("it was cancelled: %s", names[outcome]);
}

static flowmesh_status do_redrive(const cJSON *step, flowmesh_queue *queue)
{
    const cJSON *names = field_of(step, "ids"), *name;
    const char *ids[64];
    size_t count = 0;
    cJSON_ArrayForEach(name, names)
        if (count < sizeof ids / sizeof *ids)
            ids[count++] = id_of(name->valuestring);
    return flowmesh_queue_redrive(queue, ids, count);
}

static flowmesh_status check_count(const cJSON *step, uint64_t count)
{
    return number(step, "expect", (double)count) == (double)count ? FLOWMESH_OK
                                                                  : mismatch("there were %llu", (unsigned long long)count);
}

static flowmesh_status do_schedule(const cJSON *step, flowmesh_queue *queue)
{
    static const char *const misfires[] = {"run_once", "skip", "run_all", NULL};
    static const char *const overlaps[] = {"allow", "skip", "replace", NULL};
    struct scratch scratch = {0};
    struct bytes payload = bytes_of(field_of(step, "payload"));
    flowmesh_enqueue_options options = read_job_options(step, &scratch);
    flowmesh_schedule schedule = FLOWMESH_SCHEDULE_INIT;
    schedule.name = text(step, "name", NULL);
    schedule.cron = text(step, "cron", NULL);
    schedule.zone = text(step, "zone", NULL);
    schedule.payload = payload.data;
    schedule.payload_bytes = payload.size;
    schedule.options = &options;
    schedule.jitter_ms = (int64_t)number(step, "jitter_ms", 0);
    schedule.misfire = place_of(text(step, "misfire", "run_once"), misfires);
    schedule.overlap = place_of(text(step, "overlap", "allow"), overlaps);
    flowmesh_status status = flowmesh_queue_schedule(queue, &schedule);
    free(payload.data);
    free_scratch(&scratch);
    return status;
}

static flowmesh_status check_schedule(const cJSON *wanted, const flowmesh_schedule *found)
{
    static const char *const misfires[] = {"run_once", "skip", "run_all"};
    static const char *const overlaps[] = {"allow", "skip", "replace"};
    const cJSON *field;
    cJSON_ArrayForEach(field, wanted) {
        const char *name = field->string, *is = NULL;
        if (strcmp(name, "name") == 0)
            is = found->name;
        else if (strcmp(name, "cron") == 0)
            is = found->cron;
        else if (strcmp(name, "zone") == 0)
            is = found->zone;
        else if (strcmp(name, "misfire") == 0)
            is = misfires[found->misfire];
        else if (strcmp(name, "overlap") == 0)
            is = overlaps[found->overlap];
        else if (strcmp(name, "jitter_ms") == 0)
            TRY(same_number(name, field, (double)found->jitter_ms));
        else if (strcmp(name, "payload") == 0)
            TRY(same_bytes(name, field, (flowmesh_bytes){found->payload, found->payload_bytes}));
        else if (strcmp(name, "next_within_ms") == 0)
            TRY(check_within("next", field, found->next_ms));
        else
            return mismatch("the runner does not know the expected field %s", name);
        if (is != NULL)
            TRY(same_text(name, field, (flowmesh_text){is, strlen(is)}));
    }
    return FLOWMESH_OK;
}

static flowmesh_status do_schedules(const cJSON *step, flowmesh_queue *queue)
{
    const cJSON *expect = field_of(step, "expect"), *wanted;
    flowmesh_schedule_list *list;
    TRY(flowmesh_queue_schedules(queue, &list));
    size_t count = flowmesh_schedule_list_count(list);
    flowmesh_status status = FLOWMESH_OK;
    if (count != (size_t)cJSON_GetArraySize(expect))
        status = mismatch("there are %zu schedules", count);
    cJSON_ArrayForEach(wanted, expect) {
        flowmesh_schedule found = FLOWMESH_SCHEDULE_INIT;
        size_t index = 0;
        while (status == FLOWMESH_OK && (status = flowmesh_schedule_list_get(list, index++, &found)) == FLOWMESH_OK)
            if (strcmp(found.name, text(wanted, "name", "")) == 0)
                break;
        if (status == FLOWMESH_OK)
            status = check_schedule(wanted, &found);
    }
    flowmesh_schedule_list_free(list);
    return status;
}

/* ---------- workers */

static flowmesh_status echo_job(flowmesh_job *job)
{
    flowmesh_bytes payload = flowmesh_job_payload(job);
    return flowmesh_job_set_result(job, payload.data, payload.size);
}

static flowmesh_status hold_job(struct seen *seen, flowmesh_job *job)
{
    while (!atomic_load(&seen->stop)) {
        if (flowmesh_job_is_cancelled(job) != 0) {
            atomic_fetch_add(&seen->cancelled, 1);
            return FLOWMESH_OK;
        }
        sleep_ms(PAUSE_MS);
    }
    return echo_job(job);
}

/* Whether this handler is called with the job for the first time. */
static int is_new(struct seen *seen, flowmesh_job *job)
{
    flowmesh_text id = flowmesh_job_id(job);
    pthread_mutex_lock(&seen->lock);
    int is = cJSON_GetObjectItemCaseSensitive(seen->jobs, id.data) == NULL;
    if (is)
        cJSON_AddNullToObject(seen->jobs, id.data);
    pthread_mutex_unlock(&seen->lock);
    return is;
}

static flowmesh_status work(void *context, flowmesh_job *job)
{
    struct seen *seen = context;
    const cJSON *handler = seen->handler, *fields;
    const char *name = cJSON_IsString(handler) ? handler->valuestring : "";
    atomic_fetch_add(&seen->started, 1);
    if (strcmp(name, "echo") == 0)
        return echo_job(job);
    if (strcmp(name, "quiet") == 0)
        return FLOWMESH_OK;
    if (strcmp(name, "hold") == 0)
        return hold_job(seen, job);
    if (strcmp(name, "settle") == 0) {
        flowmesh_status status = flowmesh_job_ack(job, "own", 3, NULL);
        return status == FLOWMESH_OK ? flowmesh_job_set_result(job, "ignored", 7) : status;
    }
    if ((fields = field_of(handler, "fail")) != NULL) {
        if (flowmesh_job_attempt(job) <= number(fields, "times", 1e9))
            return flowmesh_handler_error(text(fields, "type", ""), text(fields, "message", ""));
        return echo_job(job);
    }
    if (cJSON_HasObjectItem(handler, "reject"))
        return flowmesh_handler_reject(text(handler, "reject", ""));
    if (cJSON_HasObjectItem(handler, "snooze_ms")) {
        if (is_new(seen, job))
            return flowmesh_handler_snooze((int64_t)number(handler, "snooze_ms", 0));
        return echo_job(job);
    }
    struct bytes progress = bytes_of(field_of(handler, "progress"));
    flowmesh_status status = flowmesh_job_progress(job, progress.data, progress.size);
    free(progress.data);
    return status == FLOWMESH_OK ? hold_job(seen, job) : status;
}

static int is_known_work(const cJSON *handler)
{
    const char *name = cJSON_IsString(handler) ? handler->valuestring : "";
    return strcmp(name, "echo") == 0 || strcmp(name, "quiet") == 0 || strcmp(name, "hold") == 0 ||
           strcmp(name, "settle") == 0 || cJSON_HasObjectItem(handler, "fail") ||
           cJSON_HasObjectItem(handler, "reject") || cJSON_HasObjectItem(handler, "snooze_ms") ||
           cJSON_HasObjectItem(handler, "progress");
}

static flowmesh_status do_work(const cJSON *step, flowmesh_queue *queue)
{
    const cJSON *handler = field_of(step, "handler");
    flowmesh_worker_options options = FLOWMESH_WORKER_OPTIONS_INIT;
    flowmesh_worker *worker;
    if (!is_known_work(handler))
        return mismatch("the runner does not know this handler");
    options.concurrency = (uint32_t)number(step, "concurrency", options.concurrency);
    options.lease_ms = (int64_t)number(step, "lease_ms", -1);
    struct seen *seen = new_seen(handler);
    flowmesh_status status = flowmesh_worker_start(queue, &options, work, seen, let_go, &worker);
    if (status == FLOWMESH_OK)
        keep(WORKER, text(step, "as", ""), worker, seen);
    else
        let_go(seen);
    return status;
}

static flowmesh_status check_worked(const cJSON *step, void *about)
{
    struct named *named = about;
    flowmesh_worker_stats stats = FLOWMESH_WORKER_STATS_INIT;
    TRY(flowmesh_worker_get_stats(named->handle, &stats));
    TRY(check_handled(step, named->seen));
    const struct {
        const char *name;
        uint64_t count;
    } counts[] = {{"done", stats.done},         {"failed", stats.failed}, {"rejected", stats.rejected},
                  {"released", stats.released}, {"lost", stats.lost}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (number(step, counts[i].name, (double)counts[i].count) != (double)counts[i].count)
            return mismatch("%s is %llu", counts[i].name, (unsigned long long)counts[i].count);
    return FLOWMESH_OK;
}

static flowmesh_status do_stop_work(const cJSON *step)
{
    flowmesh_worker *worker;
    const cJSON *expect = field_of(step, "expect");
    TRY(handle_of(WORKER, text(step, "of", ""), &worker));
    flowmesh_status status = flowmesh_worker_stop(worker, (int64_t)number(step, "timeout_ms", WATCHDOG_MS));
    if (status != FLOWMESH_OK && status != FLOWMESH_ERR_TIMEOUT)
        return status;
    if (expect != NULL && cJSON_IsTrue(expect) != (status == FLOWMESH_OK))
        return mismatch("%s", status == FLOWMESH_OK ? "all handlers had ended" : flowmesh_error_message());
    return FLOWMESH_OK;
}

/* ---------- files */

static flowmesh_status do_inspect(const cJSON *step)
{
    char path[256];
    flowmesh_inspection *inspection;
    flowmesh_inspected found = FLOWMESH_INSPECTED_INIT;
    TRY(flowmesh_inspect(path_of(text(step, "dir", NULL), path), &inspection));
    flowmesh_status status = flowmesh_inspection_get(inspection, &found);
    flowmesh_inspection_free(inspection);
    TRY(status);
    cJSON *json = must(cJSON_CreateObject());
    cJSON_AddNumberToObject(json, "segments", (double)found.segment_count);
    cJSON_AddNumberToObject(json, "checkpoints", (double)found.checkpoint_count);
    cJSON_AddNumberToObject(json, "entries", (double)found.entries);
    cJSON_AddNumberToObject(json, "damages", (double)found.damage_count);
    status = compare(field_of(step, "expect"), json);
    cJSON_Delete(json);
    return status;
}

static flowmesh_status do_damage(const cJSON *step)
{
    char directory[256], path[512];
    snprintf(path, sizeof path, "%s/%s", path_of(text(step, "dir", NULL), directory), text(step, "file", ""));
    FILE *file = fopen(path, "r+b");
    long offset = (long)number(step, "offset", 0);
    int byte = EOF;
    if (file != NULL && fseek(file, offset, SEEK_SET) == 0)
        byte = fgetc(file);
    if (byte == EOF || fseek(file, offset, SEEK_SET) != 0 || fputc(byte ^ 0xff, file) == EOF || fclose(file) != 0)
        return mismatch("%s cannot be damaged at %ld", path, offset);
    return FLOWMESH_OK;
}

/* ---------- steps */

static flowmesh_status do_declare(const cJSON *step, flowmesh_mesh *mesh)
{
    struct scratch scratch = {0};
    flowmesh_queue *queue;
    const char *name = text(step, "name", "");
    flowmesh_queue_config config = read_config(field_of(step, "config"), &scratch);
    flowmesh_status status = flowmesh_queue_declare(mesh, name, &config, &queue);
    free_scratch(&scratch);
    TRY(status);
    keep(QUEUE, text(step, "as", name), queue, NULL);
    return FLOWMESH_OK;
}

static flowmesh_status do_find_queue(const cJSON *step, flowmesh_mesh *mesh)
{
    flowmesh_queue *queue;
    const char *name = text(step, "name", "");
    TRY(flowmesh_queue_open(mesh, name, &queue));
    keep(QUEUE, text(step, "as", name), queue, NULL);
    return FLOWMESH_OK;
}

static flowmesh_status do_configure(const cJSON *step, flowmesh_queue *queue)
{
    struct scratch scratch = {0};
    flowmesh_queue_config config = read_config(field_of(step, "config"), &scratch);
    flowmesh_status status = flowmesh_queue_configure(queue, &config);
    free_scratch(&scratch);
    return status;
}

static flowmesh_status with_queue(const char *what, const cJSON *step, flowmesh_queue *queue)
{
    struct whose whose = {queue, id_of(text(step, "id", ""))};
    uint64_t count;
    if (strcmp(what, "configure") == 0)
        return do_configure(step, queue);
    if (strcmp(what, "config") == 0)
        return do_config(step, queue);
    if (strcmp(what, "enqueue") == 0)
        return do_enqueue(step, queue);
    if (strcmp(what, "enqueue_many") == 0)
        return do_enqueue_many(step, queue);
    if (strcmp(what, "reserve") == 0)
        return do_reserve(step, queue);
    if (strcmp(what, "start_reserve") == 0)
        return do_start_reserve(step, queue);
    if (strcmp(what, "expect_no_job") == 0)
        return do_expect_no_job(step, queue);
    if (strcmp(what, "take") == 0)
        return do_take(step, queue);
    if (strcmp(what, "ack_many") == 0)
        return do_ack_many(step, queue);
    if (strcmp(what, "cancel_job") == 0)
        return do_cancel_job(step, queue);
    if (strcmp(what, "redrive") == 0)
        return do_redrive(step, queue);
    if (strcmp(what, "redrive_dead") == 0) {
        TRY(flowmesh_queue_redrive_dead(queue, (uint64_t)number(step, "most", 1e18), &count));
        return check_count(step, count);
    }
    if (strcmp(what, "redrive_at") == 0) {
        struct scratch scratch = {0};
        const flowmesh_rate *rate = read_rate(field_of(step, "rate"), &scratch);
        flowmesh_status status = flowmesh_queue_redrive_at(queue, (uint64_t)number(step, "count", 0), rate);
        free_scratch(&scratch);
        return status;
    }
    if (strcmp(what, "purge") == 0) {
        int32_t state = flowmesh_job_state_parse(text(step, "state", ""));
        if (state < 0)
            return state;
        TRY(flowmesh_queue_purge(queue, state, &count));
        return check_count(step, count);
    }
    if (strcmp(what, "remove") == 0)
        return flowmesh_queue_remove(queue, whose.id);
    if (strcmp(what, "pause") == 0)
        return flowmesh_queue_pause(queue);
    if (strcmp(what, "resume") == 0)
        return flowmesh_queue_resume(queue);
    if (strcmp(what, "drain") == 0) {
        int32_t idle;
        const cJSON *expect = field_of(step, "expect");
        TRY(flowmesh_queue_drain(queue, &idle));
        return expect == NULL || idle == cJSON_IsTrue(expect) ? FLOWMESH_OK : mismatch("idle is %d", idle);
    }
    if (strcmp(what, "schedule") == 0)
        return do_schedule(step, queue);
    if (strcmp(what, "unschedule") == 0)
        return flowmesh_queue_unschedule(queue, text(step, "name", ""));
    if (strcmp(what, "schedules") == 0)
        return do_schedules(step, queue);
    if (strcmp(what, "list") == 0)
        return do_list(step, queue);
    if (strcmp(what, "peek") == 0)
        return until(check_peek, step, &whose);
    if (strcmp(what, "gone") == 0)
        return until(check_gone, step, &whose);
    if (strcmp(what, "content") == 0)
        return do_content(step, queue);
    if (strcmp(what, "result") == 0)
        return do_result(step, queue);
    if (strcmp(what, "queue_stats") == 0)
        return until(check_queue_stats, step, queue);
    if (strcmp(what, "work") == 0)
        return do_work(step, queue);
    return mismatch("the runner does not know this step");
}

static flowmesh_status perform_queue_step(const char *what, const cJSON *step, flowmesh_mesh *mesh)
{
    static const char *const settling[] = {"ack", "nack", "reject", "release", "snooze"};
    struct named *named;
    if (strcmp(what, "declare_queue") == 0)
        return do_declare(step, mesh);
    if (strcmp(what, "queue") == 0)
        return do_find_queue(step, mesh);
    if (strcmp(what, "queues") == 0)
        return do_queues(step, mesh);
    if (strcmp(what, "finish_reserve") == 0)
        return do_finish_reserve(step);
    for (size_t i = 0; i < sizeof settling / sizeof *settling; i++)
        if (strcmp(what, settling[i]) == 0)
            return do_settle(what, step);
    if (strcmp(what, "ack_and_reserve") == 0)
        return do_ack_and_reserve(step);
    if (strcmp(what, "extend") == 0)
        return do_extend(step);
    if (strcmp(what, "progress") == 0)
        return do_progress(step);
    if (strcmp(what, "job") == 0) {
        named = find(JOB, text(step, "job", ""));
        return named == NULL ? mismatch("there is no such job") : until(check_handle, step, named->handle);
    }
    if (strcmp(what, "worked") == 0) {
        named = find(WORKER, text(step, "of", ""));
        return named == NULL ? mismatch("there is no such worker") : until(check_worked, step, named);
    }
    if (strcmp(what, "let_go") == 0) {
        named = find(WORKER, text(step, "of", ""));
        if (named == NULL)
            return mismatch("there is no such worker");
        atomic_store(&named->seen->stop, 1);
        return FLOWMESH_OK;
    }
    if (strcmp(what, "stop_work") == 0)
        return do_stop_work(step);
    if (strcmp(what, "inspect") == 0)
        return do_inspect(step);
    if (strcmp(what, "damage") == 0)
        return do_damage(step);
    flowmesh_queue *queue, *mine;
    TRY(queue_of(step, &queue, &mine));
    flowmesh_status status = with_queue(what, step, queue);
    flowmesh_queue_free(mine);
    return status;
}
