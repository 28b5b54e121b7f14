/* SPDX-License-Identifier: BSD-2-Clause */
/* Children of pools: started on the daemon's word, set up before they take calls, never started
 * again by themselves. What they share with function children is in kid.c. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "worker/exec/exec_priv.h"

/* ---------------------------------------------------------------- start and stop */

/* Writes what the child is set up with as its first record; it is published once it runs. */
static enum hp_err push_init(struct hp_exec *exec, struct hp_kid *kid,
                             const struct hp_exec_child_spec *spec, struct hp_error *reterr)
{
    uint32_t function = 0;
    if (spec->zygote == 0) {
        bool has_function = spec->init_function.size > 0;
        function = has_function ? hp_kid_function(exec, spec->init_function) : HP_CALL_VOID;
        if (has_function && function == HP_CALL_UNKNOWN) {
            return hp_error_set(reterr, HP_ERR_NOT_FOUND, "no module has the initializer %.*s",
                                (int)HP_MIN(spec->init_function.size, 255u),
                                spec->init_function.data);
        }
    }
    struct hp_exec_call call = {.payload = spec->init,
                                .payload_fd = spec->init_fd,
                                .payload_bytes = spec->init_bytes,
                                .kill_on_partition = spec->kill_on_partition};
    enum hp_err err = hp_kid_push(kid, &call, function, HP_CALL_FLAG_INIT);
    if (err != HP_OK) {
        return hp_error_set(reterr, err, "what the child is set up with can not be passed on");
    }
    kid->assigned_count = 0; /* the set-up is no call */
    if (spec->kill_on_partition) {
        kid->fence_count++;
        atomic_store(&kid->shared->page.kill_on_partition, 1);
    }
    return HP_OK;
}

static void drop_calls(struct hp_kid *kid)
{
    while (kid->call_count > 0) {
        (void)hp_kid_pop_front(kid);
    }
    kid->unpublished = 0;
}

/* Gives the memory of the slot back to the system; its next child gets a clean one. */
static void free_pages(struct hp_kid *kid)
{
    (void)madvise(kid->shared, sizeof *kid->shared, MADV_REMOVE);
}

enum hp_err hp_exec_child_start(struct hp_exec *exec, uint32_t child,
                                const struct hp_exec_child_spec *spec, struct hp_error *reterr)
{
    bool is_language = spec->zygote != 0;
    if (child < exec->config.function_children || child >= exec->kid_count ||
        spec->zygote > HP_EXEC_ZYGOTES_MAX) {
        return hp_error_set(reterr, HP_ERR_INVALID, "no such slot or zygote");
    }
    struct hp_kid *kid = &exec->kids[child];
    if (kid->state != HP_KID_NONE) {
        return hp_error_set(reterr, HP_ERR_EXISTS, "the slot is in use");
    }
    kid->zygote = spec->zygote;
    struct hp_link *link = hp_kid_link(exec, kid);
    if (link->pid == 0 || link->is_dead) {
        return hp_error_set(reterr, is_language ? HP_ERR_CLOSED : HP_ERR_NOT_FOUND,
                            is_language ? "the zygote is gone" : "this worker has no modules");
    }
    kid->pool = spec->pool;
    kid->calls_max = spec->calls_max;
    enum hp_err err = hp_kid_start(exec, kid);
    if (err != HP_OK) {
        return hp_error_set(reterr, err, "%s",
                            err == HP_ERR_CLOSED ? "the zygote is gone"
                                                 : "no descriptors for a child");
    }
    /* The zygote has the word to fork; the child waits for its first call. */
    struct hp_error error = {0};
    if (push_init(exec, kid, spec, &error) != HP_OK) {
        kid->init_error = hp_strdup(error.text);
        drop_calls(kid);
        kid->wants_recycle = true; /* its end is told as that of any other */
    }
    return HP_OK;
}

void hp_exec_child_stop(struct hp_exec *exec, uint32_t child)
{
    HP_ASSERT(child < exec->kid_count);
    struct hp_kid *kid = &exec->kids[child];
    HP_ASSERT(kid->is_pool);
    if (kid->state == HP_KID_STARTING) {
        kid->wants_recycle = true;
        return;
    }
    hp_exec_child_recycle(exec, child);
    if (kid->state == HP_KID_RUNNING && !kid->is_set_up) {
        hp_kid_limit_end(exec, kid); /* nobody waits for what sets it up any more */
    }
}

/* ---------------------------------------------------------------- set-up and end */

void hp_kid_set_up(struct hp_exec *exec, struct hp_kid *kid, bool is_ok, struct hp_str text)
{
    if (is_ok) {
        kid->is_set_up = true;
        if (kid->state == HP_KID_RUNNING && !kid->wants_recycle) {
            hp_kid_tell_ready(exec, kid);
        }
        return;
    }
    kid->init_error = hp_alloc(text.size + 1);
    if (kid->init_error != NULL) {
        (void)snprintf(kid->init_error, text.size + 1, "%.*s", (int)text.size, text.data);
    }
    kid->wants_recycle = true; /* it quits as soon as this result has been taken */
}

/* Why a child that was never set up has ended, where it said nothing itself. */
static void explain(struct hp_kid *kid, struct hp_exec_child_end *end, char *out, size_t size)
{
    int tail = (int)HP_MIN(end->stderr_tail.size, 2000u);
    const char *last = end->stderr_tail.data + (end->stderr_tail.size - (size_t)tail);
    if (kid->init_error != NULL) {
        (void)snprintf(out, size, "%s", kid->init_error);
    } else if (end->signal != 0) {
        (void)snprintf(out, size, "the child was killed by signal %d%s while it was set up%s%.*s",
                       end->signal, end->oom ? " (out of memory)" : "", tail > 0 ? ": " : "", tail,
                       last);
    } else {
        (void)snprintf(out, size, "the child exited with code %d while it was set up%s%.*s",
                       end->exit_code, tail > 0 ? ": " : "", tail, last);
    }
}

void hp_kid_pool_ended(struct hp_exec *exec, struct hp_kid *kid, struct hp_exec_child_end *end)
{
    char text[HP_CHILD_TEXT_BYTES_MAX];
    text[0] = '\0';
    bool is_told = end->killed || (kid->wants_recycle && end->recycled);
    if (end->init_failed && is_told && kid->init_error == NULL) {
        end->init_failed = false; /* it was told to end: no fault of its set-up */
    }
    if (end->init_failed) {
        explain(kid, end, text, sizeof text);
        end->recycled = false;
    }
    end->error = hp_str_of(text);
    free_pages(kid);
    kid->state = HP_KID_NONE;
    if (exec->config.callbacks.child_ended != NULL) {
        exec->config.callbacks.child_ended(exec->config.context, kid->index, end);
    }
}

void hp_kid_not_started(struct hp_exec *exec, struct hp_kid *kid, const char *text)
{
    struct hp_exec_child_end end = {.init_failed = true};
    drop_calls(kid);
    hp_list_remove(&kid->dirty);
    hp_kid_close(kid);
    hp_free(kid->init_error);
    kid->init_error = hp_strdup(text);
    hp_kid_pool_ended(exec, kid, &end);
}

void hp_kids_on_zygote_lost(struct hp_exec *exec, uint32_t zygote, const char *text)
{
    for (uint32_t i = exec->config.function_children; i < exec->kid_top; i++) {
        struct hp_kid *kid = &exec->kids[i];
        if (kid->zygote != zygote || kid->state == HP_KID_NONE || kid->state == HP_KID_ENDED) {
            continue;
        }
        if (!kid->is_set_up && kid->init_error == NULL) {
            kid->init_error = hp_strdup(text);
        }
        struct hp_control_msg msg = {
            .type = HP_CONTROL_ENDED, .flags = HP_CONTROL_FLAG_SIGNALED, .value = SIGKILL};
        hp_kid_ended(exec, kid, &msg);
    }
}

/* ---------------------------------------------------------------- what it prints and says */

void hp_kid_take_printed(struct hp_exec *exec, struct hp_kid *kid, struct hp_bin ret[2])
{
    for (int i = 0; i < 2; i++) {
        struct hp_str text = hp_kid_tail_text(&kid->printed[i], (char *)exec->printed[i]);
        ret[i] = hp_bin_make(text.data, text.size);
        if (kid->printed[i].size > 0) {
            hp_tail_deinit(&kid->printed[i]);
            hp_tail_init(&kid->printed[i], HP_EXEC_CALL_OUTPUT_BYTES);
        }
    }
}

void hp_kid_look_waits(struct hp_exec *exec, struct hp_kid *kid)
{
    bool waits = atomic_load(&kid->shared->page.waits) != 0;
    if (waits == kid->is_waiting || kid->state != HP_KID_RUNNING) {
        return;
    }
    kid->is_waiting = waits;
    if (exec->config.callbacks.child_waits != NULL) {
        exec->config.callbacks.child_waits(exec->config.context, kid->index, waits);
    }
}
