/* SPDX-License-Identifier: BSD-2-Clause */
/* The worker's spool as a subject: records, acknowledgements, compaction and restarts. */
#include "worker/spool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/rand.h"
#include "tests/fault/disk.h"
#include "tests/fault/disk_inside.h"
#include "tests/fault/memory.h"
#include "tests/fault/script.h"

#define RECORD_MAX 3000u

static const uint8_t boot[HP_SPOOL_BOOT_BYTES] = {7, 7, 7};

/* A step appends ids, acknowledges earlier ones, then syncs; sometimes it starts anew. */
struct step {
    uint64_t last; /* ids up to here are appended by its end */
    bool restarts;
};

struct script_spool {
    uint32_t steps;
    struct step *step;  /* 0: the start */
    uint32_t *acked_by; /* of each id: the step that acknowledges it; UINT32_MAX: none */
};

static void *must(void *memory)
{
    if (memory == NULL) {
        disk_die("spool", "out of memory");
    }
    return memory;
}

static void *make(uint64_t seed, uint32_t steps)
{
    struct script_spool *script = must(calloc(1, sizeof(*script)));
    struct hp_rand rand;
    hp_rand_init(&rand, seed);
    script->steps = steps;
    script->step = must(calloc(steps + 1, sizeof(script->step[0])));
    script->acked_by = must(malloc((steps * 4 + 8) * sizeof(uint32_t)));
    for (uint32_t i = 0; i < steps * 4 + 8; i++) {
        script->acked_by[i] = UINT32_MAX;
    }
    for (uint32_t number = 1; number <= steps; number++) {
        struct step *step = &script->step[number];
        step->last = step[-1].last + hp_rand_uniform(&rand, 4);
        step->restarts = hp_rand_uniform(&rand, 15) == 0;
        for (uint64_t id = 1; id <= step[-1].last; id++) {
            bool all = hp_rand_uniform(&rand, 40) == 0;
            if (script->acked_by[id] == UINT32_MAX && (all || hp_rand_uniform(&rand, 12) == 0)) {
                script->acked_by[id] = number;
            }
        }
    }
    return script;
}

static void free_script(void *subject)
{
    struct script_spool *script = subject;
    free(script->step);
    free(script->acked_by);
    free(script);
}

static uint64_t ops(const void *subject)
{
    const struct script_spool *script = subject;
    uint64_t count = script->step[script->steps].last + script->steps;
    for (uint64_t id = 1; id <= script->step[script->steps].last; id++) {
        count += script->acked_by[id] != UINT32_MAX ? 1 : 0;
    }
    return count;
}

static struct hp_bin record_of(uint64_t id, uint8_t room[RECORD_MAX])
{
    uint32_t size = (uint32_t)(id * 977 % RECORD_MAX);
    for (uint32_t i = 0; i < size; i++) {
        room[i] = (uint8_t)(id * 3 + i);
    }
    return (struct hp_bin){.data = room, .size = size};
}

/* ------------------------------------------------------------------ doing it */
struct run {
    const struct script_spool *script;
    const char *dir;
    struct hp_spool *spool;
    struct script_result *result;
    uint32_t acked;
};

static bool end_run(struct run *run, const struct hp_error *error)
{
    run->result->end = SCRIPT_FATAL;
    (void)snprintf(run->result->text, sizeof(run->result->text), "%s", error->text);
    return false;
}

static void mark_run(struct run *run, bool is_trying)
{
    run->result->mark = SCRIPT_MARK(run->acked, is_trying);
    disk_mark(run->result->mark);
}

static bool open_spool(struct run *run)
{
    struct hp_error error = {0};
    memory_call_begins();
    enum hp_err err = hp_spool_open(run->dir, boot, NULL, NULL, &run->spool, &error);
    memory_call_ends();
    return err == HP_OK || end_run(run, &error);
}

static bool append_ids(struct run *run, const struct step *step)
{
    uint8_t room[RECORD_MAX];
    for (uint64_t id = step[-1].last + 1; id <= step->last; id++) {
        if (hp_spool_append(run->spool, id, record_of(id, room)) != HP_OK) {
            struct hp_error error = {.text = "append: out of memory"};
            return end_run(run, &error);
        }
    }
    return true;
}

static bool run_step(struct run *run, uint32_t number)
{
    const struct step *step = &run->script->step[number];
    struct hp_error error = {0};
    mark_run(run, true);
    memory_call_begins();
    for (uint64_t id = 1; id <= step[-1].last; id++) {
        if (run->script->acked_by[id] == number) {
            hp_spool_ack(run->spool, id);
        }
    }
    bool works = append_ids(run, step);
    if (works && step->last > step[-1].last) {
        works = hp_spool_sync(run->spool, &error) == HP_OK || end_run(run, &error);
    }
    if (works) {
        run->acked = number;
        mark_run(run, false);
        hp_spool_flush(run->spool);
    }
    memory_call_ends();
    if (works && step->restarts) {
        hp_spool_close(run->spool);
        run->spool = NULL;
        works = open_spool(run);
    }
    return works;
}

static void run_script(const void *subject, const char *dir, script_end_fn *before_close,
                       void *context, struct script_result *ret_result)
{
    const struct script_spool *script = subject;
    struct run run = {.script = script, .dir = dir, .result = ret_result};
    *ret_result = (struct script_result){.mark = SCRIPT_UNBORN};
    bool works = open_spool(&run);
    if (works) {
        mark_run(&run, false);
    }
    for (uint32_t number = 1; works && number <= script->steps; number++) {
        works = run_step(&run, number);
    }
    if (before_close != NULL) {
        before_close(context, ret_result);
    }
    hp_spool_close(run.spool);
}

/* ------------------------------------------------------------------ what must be there */
struct found {
    bool *has;
    uint64_t most;
    bool is_wrong;
};

static void on_found(void *context, uint64_t id, const uint8_t record_boot[HP_SPOOL_BOOT_BYTES],
                     struct hp_bin record)
{
    struct found *found = context;
    uint8_t room[RECORD_MAX];
    if (id == 0 || id > found->most || found->has[id] ||
        memcmp(record_boot, boot, sizeof(boot)) != 0 || !hp_bin_eq(record, record_of(id, room))) {
        found->is_wrong = true;
        return;
    }
    found->has[id] = true;
}

static bool check_found(const struct script_spool *script, const struct found *found,
                        uint32_t acked, uint32_t until, char why[800])
{
    if (found->is_wrong) {
        (void)snprintf(why, 800, "a record that was never appended, or not so");
        return false;
    }
    for (uint64_t id = 1; id <= script->step[acked].last; id++) {
        if (!found->has[id] && script->acked_by[id] > until) {
            (void)snprintf(why, 800, "record %llu is missing", (unsigned long long)id);
            return false;
        }
    }
    return true;
}

static bool works_on(const char *dir, struct hp_spool *spool, struct found *found, char why[800])
{
    uint8_t room[RECORD_MAX];
    struct hp_error error = {0};
    uint64_t id = found->most + 1;
    bool works = hp_spool_append(spool, id, record_of(id, room)) == HP_OK &&
                 hp_spool_sync(spool, &error) == HP_OK;
    hp_spool_close(spool);
    found->most = id;
    memset(found->has, 0, id + 1);
    works = works && hp_spool_open(dir, boot, on_found, found, &spool, &error) == HP_OK;
    if (!works || !found->has[id] || found->is_wrong) {
        (void)snprintf(why, 800, "no new record can be taken: %s", error.text);
        works = false;
    }
    hp_spool_close(works ? spool : NULL);
    return works;
}

static bool verify(const void *subject, const char *dir, uint64_t mark, bool new_work,
                   char why[800])
{
    const struct script_spool *script = subject;
    bool is_born = mark != SCRIPT_UNBORN;
    uint32_t acked = is_born ? (uint32_t)(mark / 2) : 0;
    uint32_t until = acked + (is_born && mark % 2 == 1 && acked < script->steps ? 1 : 0);
    struct found found = {.most = script->step[until].last};
    struct hp_spool *spool = NULL;
    struct hp_error error = {0};
    found.has = must(calloc(found.most + 2, 1));
    bool works = hp_spool_open(dir, boot, on_found, &found, &spool, &error) == HP_OK;
    if (!works) {
        (void)snprintf(why, 800, "it does not open: %s", error.text);
    }
    works = works && check_found(script, &found, acked, until, why);
    if (works && new_work) {
        works = works_on(dir, spool, &found, why);
    } else {
        hp_spool_close(spool);
    }
    free(found.has);
    return works;
}

/* What is left is right. Damage ends what can be read of the file. */
static bool verify_damaged(const void *subject, const char *dir, uint64_t mark, const char *what,
                           bool *ret_noticed, char why[800])
{
    const struct script_spool *script = subject;
    struct found found = {.most = script->step[script->steps].last};
    struct hp_spool *spool = NULL;
    struct hp_error error = {0};
    (void)mark;
    (void)what;
    found.has = must(calloc(found.most + 2, 1));
    bool opens = hp_spool_open(dir, boot, on_found, &found, &spool, &error) == HP_OK;
    *ret_noticed = !opens;
    bool works = opens ? !found.is_wrong : error.text[0] != '\0';
    if (!works) {
        (void)snprintf(why, 800, "a wrong record, or no clear error: %s", error.text);
    }
    hp_spool_close(spool);
    free(found.has);
    return works;
}

const struct subject subject_spool = {.name = "spool",
                                      .make = make,
                                      .free = free_script,
                                      .ops = ops,
                                      .run = run_script,
                                      .verify = verify,
                                      .verify_damaged = verify_damaged};
