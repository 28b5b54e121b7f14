/* SPDX-License-Identifier: BSD-2-Clause */
/* What user.c and user_pool.c share. */
#ifndef HP_TESTS_SIM_USER_STATE_H
#define HP_TESTS_SIM_USER_STATE_H
#include "client/call.h"
#include "client/engine.h"
#include "common/base/assert.h"
#include "common/base/mem.h"
#include "tests/sim/sim.h"

enum { MAX_PER_SUBMIT = 20 };

struct reading;

struct sim_user {
    struct sim *sim;
    uint32_t index;
    struct hp_engine *engine;
    uint64_t generation, conn, deadline_us;
    bool connected, paused, closing;
    uint64_t acts;            /* that it has come to */
    struct reading *readings; /* results that it fetches */
};

struct draw {
    struct hp_options options;
    struct audit_spec spec;
    char ckey[16], ukey[16], queue[16];
    const char *argv[1];
    const char *tags[1];
    uint32_t count;
    bool payloads;
};

void sim_user_pump(struct sim_user *user);
void sim_user_call(struct sim_user *user, enum hp_method method, struct hp_buf *params);
void sim_user_submit(struct sim_user *user, struct draw *draw);
void sim_user_draw_times(struct sim *sim, struct draw *draw);
void sim_user_draw_budgets(struct sim *sim, struct draw *draw);
/* user_pool.c */
void sim_user_work_pools(struct sim_user *user);
/* Pools that end meanwhile refuse calls, and so do workers that are not there. */
bool sim_user_may_refuse(struct sim *sim, const struct hp_event *event);

#endif
