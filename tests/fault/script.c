/* SPDX-License-Identifier: BSD-2-Clause */
/* The store as a subject: random batches, blobs, retention and restarts, as the broker does them.
 */
#include "tests/fault/script.h"

#include <errno.h>

#include "server/datadir.h"
#include "server/store/blob_file.h"
#include "tests/fault/clock.h"
#include "tests/fault/disk.h"
#include "tests/fault/memory.h"
#include "tests/fault/script_inside.h"

#define STUCK_TRIES 5u

/* ------------------------------------------------------------------ what must be found */
/* Another store in memory takes the same, only to be asked what a recovery would report: that
 * forgets what the first one has to remember. */
struct model {
    struct hp_store *store;
    struct hp_store *recovered;
};

static void model_apply(struct model *model, struct hp_batch *const *batches, uint32_t count)
{
    struct hp_error error = {0};
    assert_int_equal(hp_store_apply(model->store, batches, count, &error), HP_OK);
    assert_int_equal(hp_store_apply(model->recovered, batches, count, &error), HP_OK);
}

static void model_idle(struct hp_store *store)
{
    bool more = true;
    struct hp_error error = {0};
    while (more) {
        assert_int_equal(hp_store_idle(store, &more, &error), HP_OK);
    }
}

static char *model_text(const struct model *model, const struct history *h)
{
    struct hp_error error = {0};
    hp_store_mem_crash(model->recovered);
    return TEXT_OF({
        assert_int_equal(dump_recovery(out, model->recovered, &error), HP_OK);
        assert_int_equal(dump_facts(out, model->store, h), HP_OK);
    });
}

static void note_blob(struct script *script, const struct step *step, uint32_t number)
{
    if (step->blob == 0) {
        return;
    }
    script->blobs = realloc(script->blobs, (script->blob_count + 1) * sizeof(script->blobs[0]));
    assert_non_null(script->blobs);
    script->blobs[script->blob_count++] = (struct blob_fact){.blob = step->blob,
                                                             .owner = step->blob_owner,
                                                             .size = step->blob_size,
                                                             .step = number,
                                                             .forgotten = UINT32_MAX};
}

static void note_forgotten(struct script *script, const struct hp_op *op, uint32_t number)
{
    for (uint32_t i = 0; i < script->blob_count; i++) {
        struct blob_fact *fact = &script->blobs[i];
        for (uint32_t k = 0; k < op->forget.span_count; k++) {
            const struct hp_id_span *span = &op->forget.spans[k];
            if (fact->owner >= span->first && fact->owner - span->first < span->count) {
                fact->forgotten = fact->forgotten < number ? fact->forgotten : number;
            }
        }
    }
}

static void note_forgets(struct script *script, const struct step *step, uint32_t number)
{
    for (uint32_t i = 0; i < step->batch_count; i++) {
        for (uint32_t k = 0; k < step->batches[i]->op_count; k++) {
            if (step->batches[i]->ops[k].kind == HP_OP_FORGET) {
                note_forgotten(script, &step->batches[i]->ops[k], number);
            }
        }
    }
}

/* Calls `see` with the text before and after the background work of each step; 0: the start. */
static void play(uint64_t seed, uint32_t steps,
                 void (*see)(void *context, const struct plan *plan, const struct step *step,
                             uint32_t number, const char *before, const char *after),
                 void *context)
{
    struct plan *plan = calloc(1, sizeof(*plan));
    struct model model = {.store = hp_store_mem_new(), .recovered = hp_store_mem_new()};
    struct step step = {0};
    plan_init(plan, seed);
    for (uint32_t number = 0; number <= steps; number++) {
        if (number > 0) {
            plan_next(plan, &step);
            model_apply(&model, step.batches, step.batch_count);
        }
        char *before = model_text(&model, &plan->history);
        if (step.reaps) {
            struct hp_batch *batch = plan_reap(plan);
            model_apply(&model, &batch, 1);
            hp_batch_free(batch);
        }
        if (step.reaps || step.forgets) {
            model_idle(model.store);
            model_idle(model.recovered);
        }
        char *after = model_text(&model, &plan->history);
        if (step.restarts) {
            hp_store_mem_crash(model.store);
            struct hp_error error = {0};
            free(TEXT_OF(assert_int_equal(dump_recovery(out, model.store, &error), HP_OK)));
        }
        see(context, plan, &step, number, before, after);
        free(before);
        free(after);
        step_clear(&step);
    }
    hp_store_close(model.store);
    hp_store_close(model.recovered);
    free(plan);
}

static void keep_moment(void *context, const struct plan *plan, const struct step *step,
                        uint32_t number, const char *before, const char *after)
{
    struct script *script = context;
    struct moment *moment = &script->moments[number];
    lines_take(&moment->before, before);
    lines_take(&moment->after, after);
    moment->used = plan->history.used;
    moment->wall_ms = plan->history.wall_ms;
    script->ops = plan->op_count;
    note_blob(script, step, number);
    note_forgets(script, step, number);
}

static void *script_new(uint64_t seed, uint32_t steps)
{
    struct script *script = calloc(1, sizeof(*script));
    assert_non_null(script);
    script->seed = seed;
    script->steps = steps;
    script->moments = calloc(steps + 1, sizeof(script->moments[0]));
    assert_non_null(script->moments);
    play(seed, steps, keep_moment, script);
    return script;
}

static void script_free(void *subject)
{
    struct script *script = subject;
    for (uint32_t i = 0; i <= script->steps; i++) {
        lines_free(&script->moments[i].before);
        lines_free(&script->moments[i].after);
    }
    free(script->moments);
    free(script->blobs);
    free(script);
}

static uint64_t script_ops(const void *subject)
{
    const struct script *script = subject;
    return script->ops;
}

struct search {
    uint32_t number;
    uint64_t hash;
    char *ret;
    size_t size;
};

static void search_moment(void *context, const struct plan *plan, const struct step *step,
                          uint32_t number, const char *before, const char *after)
{
    struct search *search = context;
    (void)plan;
    (void)step;
    (void)after;
    for (const char *at = before; number == search->number && *at != '\0';) {
        size_t size = strcspn(at, "\n");
        if (line_hash(at, size) == search->hash) {
            (void)snprintf(search->ret, search->size, "%.*s", (int)size, at);
        }
        at += size + (at[size] == '\n' ? 1 : 0);
    }
}

void script_find_line(const struct script *script, uint32_t number, uint64_t hash, char *ret,
                      size_t size)
{
    struct search search = {.number = number, .hash = hash, .ret = ret, .size = size};
    (void)snprintf(ret, size, "?");
    play(script->seed, number, search_moment, &search);
}

/* ------------------------------------------------------------------ doing it */
enum hp_err broker_start(struct broker *broker, const char *dir, FILE *records,
                         struct hp_error *reterr)
{
    struct hp_store_options options = {
        .dir = dir, .wal_bytes = 64 << 10, .ballast_bytes = 16 << 10};
    *broker = (struct broker){.dir = {.lock_fd = -1}, .keep_log = true};
    options.keep_log = &broker->keep_log;
    enum hp_err err = hp_datadir_open(dir, &broker->dir, reterr);
    if (err != HP_OK) {
        return err;
    }
    options.create = broker->dir.is_new;
    err = hp_store_sqlite_open(&options, &broker->store, reterr);
    if (err == HP_OK) {
        err = dump_recovery(records, broker->store, reterr);
    }
    if (err == HP_OK) {
        err = hp_datadir_mark(&broker->dir, true, reterr);
    }
    if (err != HP_OK) {
        broker_end(broker, false);
    }
    return err;
}

void broker_end(struct broker *broker, bool is_orderly)
{
    if (is_orderly && hp_datadir_mark(&broker->dir, false, NULL) == HP_OK) {
        broker->keep_log = false;
    }
    hp_store_close(broker->store);
    broker->store = NULL;
    hp_datadir_close(&broker->dir);
}

struct run {
    const struct script *script;
    const char *dir;
    struct plan plan;
    struct broker broker;
    FILE *nowhere;
    struct script_result *result;
    uint32_t acked;
};

static bool end_run(struct run *run, enum script_end end, const char *text)
{
    run->result->end = end;
    (void)snprintf(run->result->text, sizeof(run->result->text), "%s", text);
    return false;
}

static void mark_run(struct run *run, bool is_trying)
{
    run->result->mark = SCRIPT_MARK(run->acked, is_trying);
    disk_mark(run->result->mark);
}

/* As the store thread does: a full disk is tried again, anything else ends the broker. */
static bool run_apply(struct run *run, struct hp_batch *const *batches, uint32_t count)
{
    for (uint32_t tries = 0;; tries++) {
        struct hp_error error = {0};
        memory_call_begins();
        enum hp_err err = hp_store_apply(run->broker.store, batches, count, &error);
        memory_call_ends();
        if (err == HP_OK) {
            return true;
        }
        if (err != HP_ERR_NOSPACE) {
            return end_run(run, SCRIPT_FATAL, error.text);
        }
        if (tries == STUCK_TRIES) {
            return end_run(run, SCRIPT_STUCK, error.text);
        }
    }
}

static bool run_background(struct run *run, bool to_the_end)
{
    bool more = true;
    for (uint32_t slices = 0; more && (slices == 0 || to_the_end); slices++) {
        struct hp_error error = {0};
        memory_call_begins();
        enum hp_err err = hp_store_idle(run->broker.store, &more, &error);
        memory_call_ends();
        if (err != HP_OK && err != HP_ERR_NOSPACE) {
            return end_run(run, SCRIPT_FATAL, error.text);
        }
        if (slices > 100000) {
            return end_run(run, SCRIPT_WRONG, "background work does not end");
        }
        if (err == HP_ERR_NOSPACE && slices > STUCK_TRIES) {
            return end_run(run, SCRIPT_STUCK, error.text);
        }
    }
    return true;
}

static enum hp_err write_blob(const char *dir, const struct step *step, struct hp_error *reterr)
{
    char blob_dir[600];
    struct hp_blob_writer *writer = NULL;
    uint8_t *data = malloc(step->blob_size + 1);
    assert_non_null(data);
    for (uint32_t i = 0; i < step->blob_size; i++) {
        data[i] = blob_byte(step->blob, i);
    }
    (void)snprintf(blob_dir, sizeof(blob_dir), "%s/blobs", dir);
    enum hp_err err = hp_blob_writer_new(blob_dir, step->blob, step->blob_size, &writer, reterr);
    for (uint32_t at = 0; err == HP_OK && at < step->blob_size;) {
        uint32_t part = step->blob_size - at < 50000 ? step->blob_size - at : 50000;
        err = hp_blob_writer_append(writer, data + at, part, reterr);
        at += part;
    }
    if (err == HP_OK) {
        err = hp_blob_writer_finish(writer, reterr);
    }
    hp_blob_writer_free(writer);
    free(data);
    return err == HP_OK ? hp_blob_dir_sync(blob_dir, step->blob, reterr) : err;
}

/* A blob that could not be written is told to its client, who does not submit its task. Here the
 * task comes all the same, in the model too: so the run ends. */
static bool run_blob(struct run *run, const struct step *step)
{
    struct hp_error error = {0};
    if (step->blob == 0) {
        return true;
    }
    memory_call_begins();
    enum hp_err err = write_blob(run->dir, step, &error);
    memory_call_ends();
    return err == HP_OK || end_run(run, SCRIPT_FATAL, error.text);
}

static bool run_start(struct run *run)
{
    struct hp_error error = {0};
    memory_call_begins();
    enum hp_err err = broker_start(&run->broker, run->dir, run->nowhere, &error);
    memory_call_ends();
    if (err != HP_OK) {
        run->broker = (struct broker){.dir = {.lock_fd = -1}};
        return end_run(run, SCRIPT_FATAL, error.text);
    }
    return true;
}

static bool run_restart(struct run *run)
{
    broker_end(&run->broker, true);
    return run_start(run);
}

static bool run_step(struct run *run, const struct step *step)
{
    bool works = run_blob(run, step);
    mark_run(run, works);
    if (!works || !run_apply(run, step->batches, step->batch_count)) {
        return false; /* A commit that failed is there whole or not at all: on a full disk, too,
                         where the end that was not written may be what the log's file has there. */
    }
    run->acked++;
    mark_run(run, false);
    if (step->reaps) {
        struct hp_batch *batch = plan_reap(&run->plan);
        works = run_apply(run, &batch, 1);
        hp_batch_free(batch);
    }
    fault_clock_advance(step->advance_ms);
    works = works && run_background(run, step->reaps || step->forgets);
    return works && (!step->restarts || run_restart(run));
}

static void script_run(const void *subject, const char *dir, script_end_fn *before_close,
                       void *context, struct script_result *ret_result)
{
    const struct script *script = subject;
    struct run *run = calloc(1, sizeof(*run));
    struct step step = {0};
    assert_non_null(run);
    *ret_result = (struct script_result){.mark = SCRIPT_UNBORN};
    run->script = script;
    run->dir = dir;
    run->result = ret_result;
    run->nowhere = fopen("/dev/null", "w");
    assert_non_null(run->nowhere);
    plan_init(&run->plan, script->seed);
    bool works = run_start(run);
    if (works) {
        mark_run(run, false);
    }
    for (uint32_t number = 1; works && number <= script->steps; number++) {
        plan_next(&run->plan, &step);
        works = run_step(run, &step);
        step_clear(&step);
    }
    if (before_close != NULL) {
        before_close(context, ret_result);
    }
    broker_end(&run->broker, works);
    (void)fclose(run->nowhere);
    free(run);
}

const struct subject subject_store = {.name = "store",
                                      .make = script_new,
                                      .free = script_free,
                                      .ops = script_ops,
                                      .run = script_run,
                                      .verify = script_verify,
                                      .verify_damaged = script_verify_damaged};
