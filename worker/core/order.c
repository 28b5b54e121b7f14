/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Ending runs on order: the broker's kill list, cancels, timeouts, the self-fence, drain and stop.
 */
#include <signal.h>

#include "common/base/assert.h"
#include "worker/core/state.h"

#define STOP_WAIT_MS 1000u /* after KILL, for the ends to come in */
#define ACK_WAIT_MS 2000u  /* a drained agent waits so long for the last answers */

void hp_agent_signal(struct hp_agent *agent, struct hp_agent_run *run, int signal)
{
    HP_ASSERT(run->state == HP_AGENT_RUNNING);
    struct hp_agent_effect *effect = hp_agent_effect_add(agent, HP_AGENT_KILL);
    effect->key = run->key;
    effect->child = run->child;
    effect->signal = signal;
    run->killed = run->killed || signal == SIGKILL;
}

static void because(struct hp_agent_run *run, enum hp_agent_why why)
{
    run->why = HP_MAX(run->why, (uint8_t)why);
}

/* ------------------------------------------------------------------------------------- timers */

static uint64_t run_deadline_ms(const struct hp_agent_run *run)
{
    const struct hp_agent_parcel *parcel = run->parcel;
    if (run->killed) {
        return HP_AGENT_NEVER;
    }
    uint64_t at_ms = run->kill_at_ms;
    if (!run->told && run->child == HP_AGENT_NO_CHILD) {
        at_ms = HP_MIN(at_ms, run->started_ms + HP_AGENT_TELL_AFTER_MS);
    }
    if (parcel->soft_timeout_ms != 0 && !run->termed) {
        at_ms = HP_MIN(at_ms, run->started_ms + parcel->soft_timeout_ms);
    }
    if (parcel->hard_timeout_ms != 0) {
        at_ms = HP_MIN(at_ms, run->started_ms + parcel->hard_timeout_ms);
    }
    return at_ms;
}

void hp_agent_run_arm(struct hp_agent *agent, struct hp_agent_run *run)
{
    run->deadline_ms = run_deadline_ms(run);
    if (run->deadline_ms == HP_AGENT_NEVER) {
        hp_heap_remove(&agent->timers, &run->timer);
    } else if (hp_heap_contains(&run->timer)) {
        hp_heap_update(&agent->timers, &run->timer);
    } else {
        enum hp_err err = hp_heap_push(&agent->timers, &run->timer);
        HP_ASSERT(err == HP_OK); /* without its timer a run could not be ended: see effects.c */
    }
}

static void run_timer(struct hp_agent *agent, struct hp_agent_run *run)
{
    const struct hp_agent_parcel *parcel = run->parcel;
    uint64_t age_ms = agent->now_ms - run->started_ms;
    if (!run->told && run->child == HP_AGENT_NO_CHILD && age_ms >= HP_AGENT_TELL_AFTER_MS) {
        run->told = true;
        hp_agent_refs_add(&agent->tells, run);
    }
    if (parcel->hard_timeout_ms != 0 && age_ms >= parcel->hard_timeout_ms) {
        because(run, HP_AGENT_WHY_TIMEOUT);
        hp_agent_signal(agent, run, SIGKILL);
    } else if (run->kill_at_ms <= agent->now_ms) {
        hp_agent_signal(agent, run, SIGKILL);
    } else if (parcel->soft_timeout_ms != 0 && !run->termed && age_ms >= parcel->soft_timeout_ms) {
        run->termed = true;
        because(run, HP_AGENT_WHY_TIMEOUT);
        hp_agent_signal(agent, run, SIGTERM);
        run->kill_at_ms = HP_MIN(run->kill_at_ms, agent->now_ms + parcel->kill_grace_ms);
    }
    hp_agent_run_arm(agent, run);
}

void hp_agent_timers_tick(struct hp_agent *agent)
{
    for (;;) {
        struct hp_heap_node *node = hp_heap_peek(&agent->timers);
        if (node == NULL) {
            return;
        }
        struct hp_agent_run *run = HP_CONTAINER_OF(node, struct hp_agent_run, timer);
        if (run->deadline_ms > agent->now_ms) {
            return;
        }
        run_timer(agent, run);
    }
}

/* --------------------------------------------------------------------------- orders by the broker
 */

void hp_agent_run_kill(struct hp_agent *agent, const struct hp_st_run_ref *ref)
{
    struct hp_agent_run *run = hp_agent_run_find(agent, ref->id, ref->attempt, ref->epoch);
    if (run == NULL || run->drop || run->state == HP_AGENT_SENT) {
        return; /* a result under way is answered for by its own reply */
    }
    agent->totals.dropped_total++;
    hp_agent_log(agent, HP_AGENT_LOG_WARN, "task %llu attempt %u is not ours any more: ended",
                 (unsigned long long)run->id, run->attempt);
    if (run->state != HP_AGENT_RUNNING) {
        hp_agent_run_free(agent, run);
        return;
    }
    run->drop = true;
    hp_agent_signal(agent, run, SIGKILL);
    hp_agent_run_arm(agent, run);
}

static void cancel_running(struct hp_agent *agent, struct hp_agent_run *run,
                           const struct hp_st_cancel_item *item)
{
    bool first = run->why != HP_AGENT_WHY_CANCEL;
    because(run, HP_AGENT_WHY_CANCEL);
    if (first && !run->killed) {
        hp_agent_signal(agent, run, SIGTERM);
    }
    if (item->mode == HP_CANCEL_MODE_FORCE) {
        run->kill_at_ms = HP_MIN(run->kill_at_ms, agent->now_ms + item->grace_ms);
    }
    hp_agent_run_arm(agent, run);
}

void hp_agent_run_cancel(struct hp_agent *agent, const struct hp_st_cancel_item *item)
{
    struct hp_agent_run *run = hp_agent_run_find(agent, item->id, item->attempt, item->epoch);
    if (run == NULL || hp_agent_run_has_ended(run) || run->drop) {
        return;
    }
    if (run->state != HP_AGENT_RUNNING) {
        hp_agent_end_unstarted(agent, run, HP_REASON_CANCELLED, "cancelled before it started");
    } else if (item->mode != HP_CANCEL_MODE_QUEUED) {
        cancel_running(agent, run, item);
    }
}

void hp_agent_run_end_pool(struct hp_agent *agent, struct hp_agent_run *run, uint64_t grace_ms)
{
    bool first = run->why < HP_AGENT_WHY_POOL;
    because(run, HP_AGENT_WHY_POOL);
    if (first && !run->killed) {
        hp_agent_signal(agent, run, SIGTERM);
    }
    run->kill_at_ms = HP_MIN(run->kill_at_ms, agent->now_ms + grace_ms);
    hp_agent_run_arm(agent, run);
}

static void follow(struct hp_agent *agent, const struct hp_list_run_ref *refs, bool on)
{
    for (uint32_t i = 0; i < refs->count; i++) {
        const struct hp_st_run_ref *ref = &refs->items[i];
        struct hp_agent_run *run = hp_agent_run_find(agent, ref->id, ref->attempt, ref->epoch);
        if (run != NULL && run->state == HP_AGENT_RUNNING && run->child == HP_AGENT_NO_CHILD) {
            struct hp_agent_effect *effect = hp_agent_effect_add(agent, HP_AGENT_FOLLOW);
            effect->key = run->key;
            effect->on = on;
        }
    }
}

/* Hands back what has not begun: at once what no child has, else when its child gives it back. */
static void recall(struct hp_agent *agent, const struct hp_list_run_ref *refs)
{
    for (uint32_t i = 0; i < refs->count; i++) {
        const struct hp_st_run_ref *ref = &refs->items[i];
        struct hp_agent_run *run = hp_agent_run_find(agent, ref->id, ref->attempt, ref->epoch);
        if (run == NULL || run->drop || run->parcel == NULL) {
            continue;
        }
        if (run->state == HP_AGENT_FETCHING || run->state == HP_AGENT_WAITING) {
            hp_agent_release(agent, run);
        } else if (run->state == HP_AGENT_RUNNING && run->child != HP_AGENT_NO_CHILD) {
            struct hp_agent_child *child = &agent->children[run->child];
            run->recalled = hp_list_first(&child->runs) != &run->link;
            child->recall_due = child->recall_due || run->recalled;
        }
    }
    for (uint32_t i = 0; refs->count > 0 && i < agent->child_capacity; i++) {
        if (agent->children[i].recall_due) {
            agent->children[i].recall_due = false;
            hp_agent_recall_child(agent, i);
        }
    }
}

void hp_agent_on_control(struct hp_agent *agent, const struct hp_msg_worker_control *control)
{
    for (uint32_t i = 0; i < control->kill.count; i++) {
        hp_agent_run_kill(agent, &control->kill.items[i]);
    }
    for (uint32_t i = 0; i < control->cancel.count; i++) {
        hp_agent_run_cancel(agent, &control->cancel.items[i]);
    }
    follow(agent, &control->follow, true);
    follow(agent, &control->unfollow, false);
    for (uint32_t i = 0; i < control->signal_runs.count && control->signal > 0; i++) {
        const struct hp_st_run_ref *ref = &control->signal_runs.items[i];
        struct hp_agent_run *run = hp_agent_run_find(agent, ref->id, ref->attempt, ref->epoch);
        if (run != NULL && run->state == HP_AGENT_RUNNING) {
            hp_agent_signal(agent, run, (int)control->signal);
        }
    }
    if ((control->has & HP_HAS_WORKER_CONTROL_DRAINING) != 0) {
        hp_agent_set_broker_drain(agent, control->draining);
    }
    recall(agent, &control->recall_runs);
}

/* -------------------------------------------------------------------------------- drain and stop
 */

/* Takes everything back that has not begun; what comes back is released. */
static void give_up_unstarted(struct hp_agent *agent)
{
    hp_agent_release_waiting(agent);
    hp_agent_recall_all(agent, 0);
}

void hp_agent_set_broker_drain(struct hp_agent *agent, bool draining)
{
    if (agent->draining_broker == draining) {
        return;
    }
    agent->draining_broker = draining;
    hp_agent_log(agent, HP_AGENT_LOG_INFO,
                 draining ? "drained by the broker: no new tasks" : "drain ended by the broker");
    if (draining) {
        give_up_unstarted(agent);
    }
}

/* Calls `act` for each run that runs. Calls behind the first of a child are left out. */
static void for_each_running(struct hp_agent *agent,
                             void (*act)(struct hp_agent *agent, struct hp_agent_run *run))
{
    HP_LIST_FOR_EACH_SAFE (node, &agent->running) {
        act(agent, HP_LIST_ENTRY(node, struct hp_agent_run, link));
    }
    for (uint32_t i = 0; i < agent->child_capacity; i++) {
        struct hp_list *node = hp_list_first(&agent->children[i].runs);
        if (node != NULL) {
            act(agent, HP_LIST_ENTRY(node, struct hp_agent_run, link));
        }
    }
}

static void stop_run(struct hp_agent *agent, struct hp_agent_run *run)
{
    because(run, HP_AGENT_WHY_STOP);
    hp_agent_signal(agent, run, SIGKILL);
    hp_agent_run_arm(agent, run);
}

void hp_agent_kill_all(struct hp_agent *agent)
{
    give_up_unstarted(agent);
    for_each_running(agent, stop_run);
}

void hp_agent_drain(struct hp_agent *agent, uint64_t timeout_ms, uint64_t now_ms)
{
    agent->now_ms = HP_MAX(agent->now_ms, now_ms);
    if (agent->draining_self) {
        return;
    }
    agent->draining_self = true;
    agent->register_wanted = true;
    agent->drain_at_ms =
        agent->now_ms > HP_AGENT_NEVER - timeout_ms ? HP_AGENT_NEVER : agent->now_ms + timeout_ms;
    hp_agent_log(agent, HP_AGENT_LOG_INFO, "draining: %u running, %u waiting are handed back",
                 agent->state_count[HP_AGENT_RUNNING],
                 agent->state_count[HP_AGENT_WAITING] + agent->state_count[HP_AGENT_FETCHING]);
    give_up_unstarted(agent);
    hp_agent_tick(agent, agent->now_ms);
}

void hp_agent_stop(struct hp_agent *agent, uint64_t now_ms)
{
    agent->now_ms = HP_MAX(agent->now_ms, now_ms);
    if (agent->stopping) {
        return;
    }
    agent->draining_self = true;
    agent->stopping = true;
    agent->register_wanted = true; /* else what is handed back comes again at once */
    agent->exit_at_ms = agent->now_ms + STOP_WAIT_MS;
    hp_agent_log(agent, HP_AGENT_LOG_WARN, "stopping: %u running are killed",
                 agent->state_count[HP_AGENT_RUNNING]);
    hp_agent_kill_all(agent);
    hp_agent_spool_ended(agent);
    hp_agent_tick(agent, agent->now_ms);
}

/* All that ended was answered, or is durable and nobody is there to answer. */
static bool all_safe(const struct hp_agent *agent)
{
    uint32_t unacked = agent->state_count[HP_AGENT_SPOOLING] +
                       agent->state_count[HP_AGENT_UPLOADING] + agent->state_count[HP_AGENT_READY] +
                       agent->state_count[HP_AGENT_SENT];
    if (unacked == 0 && agent->releases.count == 0) {
        return agent->link != HP_AGENT_LINK_UP || agent->rpc_count == 0;
    }
    bool durable = agent->spool_durable_id + 1 == agent->next_spool_id && !agent->spool_failed;
    bool waited = agent->link != HP_AGENT_LINK_UP || agent->now_ms >= agent->exit_at_ms;
    return durable && waited && unacked > 0;
}

void hp_agent_ending_tick(struct hp_agent *agent)
{
    if (!agent->draining_self || agent->exited) {
        return;
    }
    uint32_t unfinished = agent->state_count[HP_AGENT_FETCHING] +
                          agent->state_count[HP_AGENT_WAITING] +
                          agent->state_count[HP_AGENT_RUNNING];
    if (!agent->stopping && unfinished > 0 && agent->now_ms >= agent->drain_at_ms) {
        hp_agent_log(agent, HP_AGENT_LOG_WARN, "the drain took too long");
        hp_agent_stop(agent, agent->now_ms);
        return;
    }
    if (unfinished == 0) {
        if (agent->exit_at_ms == HP_AGENT_NEVER) {
            agent->exit_at_ms = agent->now_ms + ACK_WAIT_MS;
        }
        if (agent->now_ms >= agent->exit_at_ms || agent->link != HP_AGENT_LINK_UP) {
            hp_agent_spool_ended(agent);
        }
    }
    bool late =
        agent->exit_at_ms != HP_AGENT_NEVER && agent->now_ms >= agent->exit_at_ms + STOP_WAIT_MS;
    /* Children of pools end in order, but not for ever. */
    bool children_left = !agent->stopping && hp_agent_crews_have_children(agent) &&
                         agent->now_ms < agent->exit_at_ms;
    if ((unfinished == 0 && !children_left && all_safe(agent)) || late ||
        (agent->stopping && agent->now_ms >= agent->exit_at_ms)) {
        agent->exited = true;
        (void)hp_agent_effect_add(agent, HP_AGENT_EXIT);
    }
}

/* ------------------------------------------------------------------------------------ self-fence
 */

uint64_t hp_agent_fence_at_ms(const struct hp_agent *agent)
{
    return agent->lease_from_ms == HP_AGENT_NEVER ? HP_AGENT_NEVER
                                                  : agent->lease_from_ms + agent->lease_ms * 3 / 4;
}

static void fence_run(struct hp_agent *agent, struct hp_agent_run *run)
{
    if (!run->parcel->fence || run->killed) {
        return;
    }
    because(run, HP_AGENT_WHY_FENCE);
    hp_agent_signal(agent, run, SIGTERM);
    uint64_t grace_ms = HP_MIN(run->parcel->kill_grace_ms, agent->lease_ms * 3 / 20);
    run->kill_at_ms = HP_MIN(run->kill_at_ms, hp_agent_fence_at_ms(agent) + grace_ms);
    hp_agent_run_arm(agent, run);
}

void hp_agent_fence_tick(struct hp_agent *agent)
{
    if (agent->fenced || agent->now_ms < hp_agent_fence_at_ms(agent)) {
        return;
    }
    agent->fenced = true;
    if (agent->state_count[HP_AGENT_RUNNING] > 0) {
        hp_agent_log(agent, HP_AGENT_LOG_WARN,
                     "no answer from the broker for %llu ms: tasks are ended before the lease is",
                     (unsigned long long)(agent->now_ms - agent->lease_from_ms));
    }
    hp_agent_recall_all(agent, 1);
    for_each_running(agent, fence_run);
}
