/* The header alone, in every language that includes it: macros, types, and a program that links. */
#include <flowmesh.h>

int main(void)
{
    flowmesh_open_options open = FLOWMESH_OPEN_OPTIONS_INIT;
    flowmesh_publish_options publish = FLOWMESH_PUBLISH_OPTIONS_INIT;
    flowmesh_subscribe_options subscribe = FLOWMESH_SUBSCRIBE_OPTIONS_INIT;
    flowmesh_call_options call = FLOWMESH_CALL_OPTIONS_INIT;
    flowmesh_serve_options serve = FLOWMESH_SERVE_OPTIONS_INIT;
    flowmesh_instance instance = FLOWMESH_INSTANCE_INIT;
    flowmesh_totals totals = FLOWMESH_TOTALS_INIT;
    flowmesh_subscription_stats subscription = FLOWMESH_SUBSCRIPTION_STATS_INIT;
    flowmesh_service_stats service = FLOWMESH_SERVICE_STATS_INIT;
    flowmesh_session_stats session = FLOWMESH_SESSION_STATS_INIT;
    flowmesh_mesh *mesh = NULL;

    if (open.shared_memory != 1 || open.breaker != 1 || publish.priority != 4 || publish.timeout_ms != 30000)
        return 1;
    if (subscribe.backoff_factor != 2.0 || subscribe.dead_letter != NULL || call.timeout_ms != 30000)
        return 2;
    if (serve.queue != 1024 || instance.struct_size != sizeof instance || totals.struct_size != sizeof totals)
        return 3;
    if (subscription.struct_size != sizeof subscription || service.struct_size != sizeof service ||
        session.struct_size != sizeof session)
        return 4;
    if (flowmesh_check_abi(FLOWMESH_VERSION_NUMBER) != FLOWMESH_OK)
        return 5;
    return flowmesh_open(NULL, &open, &mesh) == FLOWMESH_ERR_NULL_ARGUMENT ? 0 : 6;
}
