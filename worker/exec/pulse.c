/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Watches the helpers. Each is asked for a sign of life at every beat. One that gives none is sent
 * SIGCONT, as a task may have stopped it; one that goes on giving none is killed, since nothing can
 * be started, signalled or seen to end through it: its end is then handled as any helper's. Beats
 * are counted and not the time, so a suspended host or a daemon that was stopped harms nobody.
 */
#include <signal.h>

#include "common/sys/clock.h"
#include "worker/exec/exec_priv.h"

#define SILENT_BEATS_MAX 30u

bool hp_pulse_is_lost(const struct hp_link *link)
{
    return link->silent_beats > SILENT_BEATS_MAX;
}

/* One beat of one helper. True if it has to end. */
static bool beat(struct hp_exec *exec, struct hp_link *link)
{
    struct hp_control_msg ask = {.type = HP_CONTROL_ASK};
    if (link->pid == 0 || link->is_dead) {
        return false;
    }
    if (link->silent_beats == 0) {
        (void)hp_exec_link_send(exec, link, &ask, NULL, NULL, 0); /* if not, it is silent */
    } else {
        (void)kill(link->pid, SIGCONT);
    }
    link->silent_beats++;
    return hp_pulse_is_lost(link);
}

static void beat_helper(struct hp_exec *exec, struct hp_link *link)
{
    if (beat(exec, link)) {
        (void)kill(link->pid, SIGKILL);
    }
}

void hp_pulse_on_timer(struct hp_exec *exec, uint64_t now_us)
{
    if (now_us < exec->beat_at_us) {
        hp_exec_timer_by(exec, exec->beat_at_us);
        return;
    }
    exec->beat_at_us = now_us + exec->config.beat_ms * 1000ull;
    hp_exec_timer_by(exec, exec->beat_at_us);
    beat_helper(exec, &exec->spawner);
    if (exec->was_ready) { /* modules may take their time to load */
        beat_helper(exec, &exec->zygote);
    }
    for (uint32_t i = 0; i < HP_EXEC_ZYGOTES_MAX; i++) {
        struct hp_exec_language *language = &exec->languages[i];
        if (language->is_ready && beat(exec, &language->link)) {
            hp_languages_silent(exec, i + 1);
        }
    }
}
