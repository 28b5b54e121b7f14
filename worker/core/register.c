/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Greeting, registration and heartbeats: what keeps the lease, and what the broker orders in its
 * answers.
 */
#include "common/base/assert.h"
#include "worker/core/state.h"

#define DENIED_WAIT_MS 10000u
#define LEASE_MS_MIN 20u

void hp_agent_send_hello(struct hp_agent *agent)
{
    struct hp_agent_rpc *rpc = hp_agent_rpc_begin(agent, HP_METHOD_HELLO);
    HP_ASSERT(rpc != NULL);
    const struct hp_agent_config *config = &agent->config;
    struct hp_msg_hello hello = {
        .has = HP_HAS_HELLO_CLIENT | HP_HAS_HELLO_VERSION | HP_HAS_HELLO_NODE | HP_HAS_HELLO_BOOT |
               HP_HAS_HELLO_ERROR_MAPS,
        .client = config->client,
        .version = HP_PROTOCOL_VERSION,
        .error_maps = true,
        .node = config->node,
        .boot = {.data = config->boot, .size = HP_AGENT_BOOT_BYTES},
    };
    if (config->near) {
        hello.near = true;
        hello.has |= HP_HAS_HELLO_NEAR;
    }
    if (config->token.size > 0) {
        hello.token = config->token;
        hello.has |= HP_HAS_HELLO_TOKEN;
    }
    hp_agent_rpc_params(agent, &hp_desc_msg_hello, &hello);
}

/* The broker refused hello or worker.register. */
static void refused(struct hp_agent *agent, const char *what, const struct hp_rpc_failure *failure)
{
    hp_agent_log(agent, HP_AGENT_LOG_ERROR, "%s refused: %.*s: %.*s", what,
                 HP_STR_ARG(failure->word), HP_STR_ARG(failure->text));
    hp_agent_link_close(agent, "%s refused", what);
    hp_agent_link_down(agent);
    if (failure->code == HP_RPC_ERROR_DENIED || failure->code == HP_RPC_ERROR_VERSION) {
        agent->connect_at_ms =
            agent->now_ms + DENIED_WAIT_MS / 2 + hp_rand_uniform(&agent->rand, DENIED_WAIT_MS / 2);
    } else {
        agent->connect_at_ms =
            HP_MAX(agent->connect_at_ms, agent->now_ms + failure->retry_after_ms);
    }
    agent->closing = true; /* what called us is still inside the frame */
}

void hp_agent_on_hello_reply(struct hp_agent *agent, const struct hp_rpc *reply)
{
    if (reply->failed) {
        refused(agent, "hello", &reply->failure);
        return;
    }
    struct hp_msg_hello_reply hello;
    struct hp_error error = {0};
    if (hp_msg_hello_reply_decode(reply->result, &agent->arena, &hello, &error) != HP_OK) {
        hp_agent_link_close(agent, "%s", error.text);
        return;
    }
    if (hello.version != HP_PROTOCOL_VERSION) {
        hp_agent_link_close(agent, "the broker speaks protocol %u", hello.version);
        return;
    }
    if (hello.epoch < agent->broker_epoch) {
        hp_agent_link_close(agent, "the broker is an older copy: its epoch %llu is below %llu",
                            (unsigned long long)hello.epoch,
                            (unsigned long long)agent->broker_epoch);
        return;
    }
    agent->broker_epoch = hello.epoch;
    for (uint32_t i = 0; i < hello.warnings.count; i++) {
        hp_agent_log(agent, HP_AGENT_LOG_WARN, "broker: %.*s", HP_STR_ARG(hello.warnings.items[i]));
    }
    hp_agent_near_hello(agent, &hello);
    agent->link = HP_AGENT_LINK_FLUSH;
}

/* Adds the attempts of a list that the broker must know of. */
static void list_runs(struct hp_agent *agent, const struct hp_list *list,
                      struct hp_list_run_ref *refs)
{
    HP_LIST_FOR_EACH (node, list) {
        const struct hp_agent_run *run = HP_LIST_ENTRY(node, const struct hp_agent_run, link);
        if (refs->count == HP_AGENT_RUNS_MAX) {
            return;
        }
        if (run->foreign || run->drop) {
            continue;
        }
        struct hp_st_run_ref *ref = &refs->items[refs->count++];
        *ref = (struct hp_st_run_ref){.id = run->id, .attempt = run->attempt, .epoch = run->epoch};
        if (hp_agent_run_is_started(agent, run)) {
            ref->started = true;
            ref->has = HP_HAS_ST_RUN_REF_STARTED;
        }
    }
}

/* All attempts held, but those whose end is under way: its call speaks for them. */
static struct hp_list_run_ref all_runs(struct hp_agent *agent)
{
    uint32_t held = 0;
    for (int state = HP_AGENT_FETCHING; state < HP_AGENT_SENT; state++) {
        held += agent->state_count[state];
    }
    held = HP_MIN(held, HP_AGENT_RUNS_MAX);
    struct hp_list_run_ref refs = {
        .items = hp_agent_fx_alloc(agent, (held + 1) * sizeof(struct hp_st_run_ref))};
    list_runs(agent, &agent->running, &refs);
    HP_LIST_FOR_EACH (node, &agent->crews) {
        struct hp_agent_crew *crew = HP_LIST_ENTRY(node, struct hp_agent_crew, link);
        HP_LIST_FOR_EACH (child, &crew->children) {
            list_runs(agent, &HP_LIST_ENTRY(child, struct hp_agent_child, crew_link)->runs, &refs);
        }
        list_runs(agent, &crew->waiting, &refs);
    }
    const struct hp_list *lists[] = {&agent->fetching, &agent->commands, &agent->spooling,
                                     &agent->uploading, &agent->ready};
    for (size_t i = 0; i < HP_COUNT_OF(lists); i++) {
        list_runs(agent, lists[i], &refs);
    }
    return refs;
}

void hp_agent_send_register(struct hp_agent *agent)
{
    struct hp_agent_rpc *rpc = hp_agent_rpc_begin(agent, HP_METHOD_WORKER_REGISTER);
    HP_ASSERT(rpc != NULL);
    const struct hp_agent_config *config = &agent->config;
    struct hp_msg_worker_register msg = {
        .has = HP_HAS_WORKER_REGISTER_HOST | HP_HAS_WORKER_REGISTER_PID |
               HP_HAS_WORKER_REGISTER_SLOTS | HP_HAS_WORKER_REGISTER_MEM_BYTES |
               HP_HAS_WORKER_REGISTER_TAGS | HP_HAS_WORKER_REGISTER_FUNCTIONS |
               HP_HAS_WORKER_REGISTER_COMMANDS | HP_HAS_WORKER_REGISTER_PREFETCH_MAX |
               HP_HAS_WORKER_REGISTER_DRAINING | HP_HAS_WORKER_REGISTER_RUNS |
               HP_HAS_WORKER_REGISTER_LANGUAGES | HP_HAS_WORKER_REGISTER_ANY_INTERPRETER |
               HP_HAS_WORKER_REGISTER_CHILDREN_MAX,
        .host = config->host,
        .pid = config->pid,
        .slots = config->slots,
        .mem_bytes = config->mem_bytes,
        .commands = config->commands,
        .prefetch_max = config->prefetch_max,
        .draining = agent->draining_self,
        .any_interpreter = config->any_interpreter,
        .children_max = config->children_max,
        .runs = all_runs(agent),
    };
    /* The codec only reads lists; its structs are shared with the decoder and so not const. */
    msg.tags = (struct hp_list_str){(struct hp_str *)(uintptr_t)config->tags, config->tag_count};
    msg.functions =
        (struct hp_list_str){(struct hp_str *)(uintptr_t)config->functions, config->function_count};
    msg.languages =
        (struct hp_list_str){(struct hp_str *)(uintptr_t)config->languages, config->language_count};
    hp_agent_rpc_params(agent, &hp_desc_msg_worker_register, &msg);
    agent->register_open = true;
    agent->register_wanted = false;
}

void hp_agent_register_if_due(struct hp_agent *agent)
{
    if (agent->link == HP_AGENT_LINK_FLUSH && agent->foreign_unsent == 0 &&
        (hp_list_is_empty(&agent->ready) || agent->done_hold_ms > agent->now_ms)) {
        agent->link = HP_AGENT_LINK_REGISTERING;
        hp_agent_send_register(agent);
    } else if (agent->link == HP_AGENT_LINK_UP && agent->register_wanted && !agent->register_open) {
        hp_agent_send_register(agent);
    }
}

/* The lease runs from when we asked, so it ends here before it ends at the broker. */
static void renew_lease(struct hp_agent *agent, uint64_t sent_ms, uint64_t lease_ms)
{
    agent->lease_ms = HP_MAX(lease_ms, (uint64_t)LEASE_MS_MIN);
    agent->lease_from_ms = sent_ms;
    agent->fenced = agent->now_ms >= hp_agent_fence_at_ms(agent);
    hp_agent_effect_add(agent, HP_AGENT_SET_DEADLINE)->deadline_ms =
        sent_ms + agent->lease_ms * 9 / 10;
}

void hp_agent_on_register_reply(struct hp_agent *agent, uint64_t sent_ms,
                                const struct hp_rpc *reply)
{
    if (reply->failed) {
        refused(agent, "worker.register", &reply->failure);
        return;
    }
    struct hp_msg_worker_register_reply msg;
    struct hp_error error = {0};
    if (hp_msg_worker_register_reply_decode(reply->result, &agent->arena, &msg, &error) != HP_OK) {
        hp_agent_link_close(agent, "%s", error.text);
        return;
    }
    bool first = agent->link != HP_AGENT_LINK_UP;
    agent->link = HP_AGENT_LINK_UP;
    agent->failures = 0;
    renew_lease(agent, sent_ms, msg.lease_ms);
    agent->heartbeat_ms = HP_MIN(HP_MAX(msg.heartbeat_ms, (uint64_t)1), agent->lease_ms / 3);
    agent->next_heartbeat_ms = agent->now_ms + agent->heartbeat_ms;
    if (first) {
        hp_agent_log(agent, HP_AGENT_LOG_INFO,
                     "registered: epoch %llu, lease %llu ms, heartbeat every %llu ms",
                     (unsigned long long)agent->broker_epoch, (unsigned long long)agent->lease_ms,
                     (unsigned long long)agent->heartbeat_ms);
    }
    for (uint32_t i = 0; i < msg.kill.count; i++) {
        hp_agent_run_kill(agent, &msg.kill.items[i]);
    }
    hp_agent_set_broker_drain(agent, msg.draining);
    hp_agent_crews_registered(agent);
}

void hp_agent_send_heartbeat(struct hp_agent *agent)
{
    struct hp_agent_rpc *rpc = hp_agent_rpc_begin(agent, HP_METHOD_WORKER_HEARTBEAT);
    HP_ASSERT(rpc != NULL);
    struct hp_msg_worker_heartbeat msg = {.has = HP_HAS_WORKER_HEARTBEAT_RUNS,
                                          .runs = all_runs(agent)};
    hp_agent_rpc_params(agent, &hp_desc_msg_worker_heartbeat, &msg);
    agent->heartbeat_open = true;
    agent->next_heartbeat_ms = agent->now_ms + agent->heartbeat_ms;
}

void hp_agent_on_heartbeat_reply(struct hp_agent *agent, uint64_t sent_ms,
                                 const struct hp_rpc *reply)
{
    if (reply->failed) {
        hp_agent_link_close(agent, "heartbeat refused: %.*s: %.*s", HP_STR_ARG(reply->failure.word),
                            HP_STR_ARG(reply->failure.text));
        return;
    }
    struct hp_msg_worker_heartbeat_reply msg;
    struct hp_error error = {0};
    if (hp_msg_worker_heartbeat_reply_decode(reply->result, &agent->arena, &msg, &error) != HP_OK) {
        hp_agent_link_close(agent, "%s", error.text);
        return;
    }
    renew_lease(agent, sent_ms, msg.lease_ms);
    for (uint32_t i = 0; i < msg.kill.count; i++) {
        hp_agent_run_kill(agent, &msg.kill.items[i]);
    }
    for (uint32_t i = 0; i < msg.cancel.count; i++) {
        hp_agent_run_cancel(agent, &msg.cancel.items[i]);
    }
    for (uint32_t i = 0; i < msg.missing.count; i++) {
        const struct hp_st_run_ref *ref = &msg.missing.items[i];
        if (hp_agent_run_find(agent, ref->id, ref->attempt, ref->epoch) == NULL) {
            hp_agent_refs_add_raw(&agent->releases, ref->id, ref->attempt, ref->epoch);
            agent->totals.released_total++;
        }
    }
    hp_agent_set_broker_drain(agent, msg.draining);
}
