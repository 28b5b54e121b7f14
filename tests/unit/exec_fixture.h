/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of worker/exec share: an executor, a recorder of its callbacks, waiting by
 * condition. */
#ifndef HP_TESTS_EXEC_FIXTURE_H
#define HP_TESTS_EXEC_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/bin.h"
#include "common/base/buf.h"
#include "common/sys/clock.h"
#include "common/sys/near.h"
#include "worker/exec/exec.h"

#define PATIENCE_MS 30000u
#define KEPT_MAX 16u

/* A command that ended. */
struct seen_end {
    uint64_t key;
    struct hp_exec_end end;
    char out[70000]; /* as much as fits, NUL behind */
    char err[70000];
    size_t out_bytes;
    char text[512];
};

/* A call that ended with something to look at. */
struct seen_call {
    uint64_t key;
    uint32_t child;
    struct hp_exec_call_end end;
    char data[4200];                         /* result or text, NUL behind */
    uint8_t *large;                          /* contents of result_fd */
    enum hp_err sealed;                      /* how it went when f->seals */
    char bytes[64];                          /* result that goes with a text */
    char out[HP_EXEC_CALL_OUTPUT_BYTES + 1]; /* printed during the call */
    char err[HP_EXEC_CALL_OUTPUT_BYTES + 1];
};

struct fixture {
    struct hp_exec *exec;
    uint32_t started_count;
    pid_t last_pid;
    uint64_t last_ran_us; /* of the last `started` */
    uint32_t end_count;
    struct seen_end *ends; /* KEPT_MAX, by order */
    struct hp_buf output;  /* all output of followed commands, stdout */
    uint64_t output_next;
    uint32_t gap_count;
    bool is_ready;
    char error[512];
    uint32_t function_count;
    uint32_t ready_children;
    pid_t child_pid[16];
    bool child_is_ready[16];
    uint32_t call_count;
    uint32_t ok_count;
    struct seen_call *calls; /* the first KEPT_MAX that were not plain empty successes */
    uint32_t kept_count;
    bool seals; /* results in descriptors are sealed as soon as they come */
    uint32_t recall_count;
    uint64_t recalled[8192];
    uint32_t died_count;
    struct hp_exec_child_end last_death;
    char death_text[5000]; /* its error */
    uint32_t zygote_ready_count;
    uint32_t zygote_failed_count;
    uint32_t last_zygote;
    char zygote_text[5000]; /* what the last one said, or was said of it */
    uint32_t waits_count;
    bool is_waiting;
    uint32_t helper_death_count;
    char helper_text[256];
};

static inline size_t copy_output(const struct hp_exec_output *output, char *to, size_t room)
{
    size_t used = 0;
    for (int i = 0; i < 2; i++) {
        size_t size = HP_MIN((size_t)output->part[i].size, room - 1 - used);
        if (size > 0) {
            memcpy(to + used, output->part[i].data, size);
        }
        used += size;
    }
    to[used] = '\0';
    return used;
}

static inline void on_started(void *context, uint64_t key, pid_t pid, uint64_t ran_us)
{
    struct fixture *f = context;
    (void)key;
    f->started_count++;
    f->last_pid = pid;
    f->last_ran_us = ran_us;
}

static inline void on_output(void *context, uint64_t key, enum hp_exec_stream stream,
                             uint64_t offset, struct hp_bin data)
{
    struct fixture *f = context;
    (void)key;
    if (stream != HP_EXEC_STDOUT) {
        return;
    }
    f->gap_count += offset != f->output_next;
    f->output_next = offset + data.size;
    if (f->output.size + data.size < f->output.max) {
        assert_int_equal(hp_buf_append(&f->output, data.data, data.size), HP_OK);
    }
}

static inline void on_ended(void *context, uint64_t key, const struct hp_exec_end *end)
{
    struct fixture *f = context;
    struct seen_end *seen = &f->ends[f->end_count++ % KEPT_MAX];
    seen->key = key;
    seen->end = *end;
    seen->out_bytes = copy_output(&end->out, seen->out, sizeof seen->out);
    (void)copy_output(&end->err, seen->err, sizeof seen->err);
    (void)snprintf(seen->text, sizeof seen->text, "%s", end->text);
}

static inline void on_ready(void *context, const struct hp_exec_functions *functions)
{
    struct fixture *f = context;
    f->is_ready = true;
    f->function_count = functions->count;
    (void)snprintf(f->error, sizeof f->error, "%s",
                   functions->error == NULL ? "" : functions->error);
}

static inline void on_child_ready(void *context, uint32_t child, pid_t pid)
{
    struct fixture *f = context;
    f->ready_children++;
    f->child_pid[child] = pid;
    f->child_is_ready[child] = true;
}

static inline void copy_bytes(char *to, size_t room, const void *from, size_t size)
{
    size = HP_MIN(size, room - 1);
    if (size > 0) {
        memcpy(to, from, size);
    }
    to[size] = '\0';
}

static inline void on_call_done(void *context, uint32_t child, uint64_t key,
                                struct hp_exec_call_end *end)
{
    struct fixture *f = context;
    f->call_count++;
    f->ok_count += end->status == HP_EXEC_CALL_OK;
    bool is_plain = end->status == HP_EXEC_CALL_OK && end->result_bytes == 0 &&
                    end->out.size + end->err.size == 0;
    if (is_plain || f->kept_count == KEPT_MAX) {
        return;
    }
    struct seen_call *seen = &f->calls[f->kept_count++];
    seen->key = key;
    seen->child = child;
    seen->end = *end;
    size_t size = HP_MIN((size_t)HP_MAX(end->text.size, end->result.size), sizeof seen->data - 1);
    const void *from = end->status == HP_EXEC_CALL_OK ? (const void *)end->result.data
                                                      : (const void *)end->text.data;
    if (size > 0) {
        memcpy(seen->data, from, size);
    }
    seen->data[size] = '\0';
    if (end->text.size > 0 && end->result.size > 0) {
        memcpy(seen->bytes, end->result.data, HP_MIN(end->result.size, sizeof seen->bytes));
    }
    copy_bytes(seen->out, sizeof seen->out, end->out.data, end->out.size);
    copy_bytes(seen->err, sizeof seen->err, end->err.data, end->err.size);
    if (end->result_fd >= 0 && f->seals) {
        static const uint8_t near_key[HP_NEAR_KEY_BYTES] = {1};
        seen->sealed = hp_near_seal(end->result_fd, end->result_bytes, near_key);
    }
    if (end->result_fd >= 0) {
        seen->large = malloc(end->result_bytes);
        assert_non_null(seen->large);
        for (uint64_t at = 0; at < end->result_bytes;) {
            ssize_t got =
                pread(end->result_fd, seen->large + at, end->result_bytes - at, (off_t)at);
            assert_true(got > 0);
            at += (uint64_t)got;
        }
    }
}

static inline void on_recalled(void *context, uint32_t child, uint64_t key)
{
    struct fixture *f = context;
    (void)child;
    f->recalled[f->recall_count++ % HP_COUNT_OF(f->recalled)] = key;
}

static inline void on_child_ended(void *context, uint32_t child,
                                  const struct hp_exec_child_end *end)
{
    struct fixture *f = context;
    f->died_count++;
    f->last_death = *end;
    f->child_is_ready[child] = false;
    copy_bytes(f->death_text, sizeof f->death_text, end->error.data, end->error.size);
}

static inline void on_zygote_ready(void *context, uint32_t zygote, const char *text)
{
    struct fixture *f = context;
    f->zygote_ready_count++;
    f->last_zygote = zygote;
    copy_bytes(f->zygote_text, sizeof f->zygote_text, text, strlen(text));
}

static inline void on_zygote_failed(void *context, uint32_t zygote, const char *text)
{
    struct fixture *f = context;
    f->zygote_failed_count++;
    f->last_zygote = zygote;
    copy_bytes(f->zygote_text, sizeof f->zygote_text, text, strlen(text));
}

static inline void on_child_waits(void *context, uint32_t child, bool waits)
{
    struct fixture *f = context;
    (void)child;
    f->waits_count++;
    f->is_waiting = waits;
}

static inline void on_helper_died(void *context, const char *text)
{
    struct fixture *f = context;
    f->helper_death_count++;
    (void)snprintf(f->helper_text, sizeof f->helper_text, "%s", text);
}

static inline struct hp_exec_config fixture_config(struct fixture *f, uint32_t slots)
{
    return (struct hp_exec_config){
        .slots = slots,
        .context = f,
        .callbacks = {.started = on_started,
                      .output = on_output,
                      .ended = on_ended,
                      .ready = on_ready,
                      .child_ready = on_child_ready,
                      .call_done = on_call_done,
                      .recalled = on_recalled,
                      .child_ended = on_child_ended,
                      .zygote_ready = on_zygote_ready,
                      .zygote_failed = on_zygote_failed,
                      .child_waits = on_child_waits,
                      .helper_died = on_helper_died},
    };
}

static inline struct fixture *fixture_new(void)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->ends = calloc(KEPT_MAX, sizeof *f->ends);
    f->calls = calloc(KEPT_MAX, sizeof *f->calls);
    assert_non_null(f->ends);
    assert_non_null(f->calls);
    hp_buf_init(&f->output, 4 * 1024 * 1024);
    return f;
}

static inline void fixture_free(struct fixture *f)
{
    hp_exec_free(f->exec);
    for (uint32_t i = 0; i < KEPT_MAX; i++) {
        free(f->calls[i].large);
    }
    hp_buf_deinit(&f->output);
    free(f->ends);
    free(f->calls);
    free(f);
}

static inline struct fixture *fixture_start(const struct hp_exec_config *config, struct fixture *f)
{
    struct hp_error error = {0};
    enum hp_err err = hp_exec_start(config, &f->exec, &error);
    assert_string_equal(error.text, "");
    assert_int_equal(err, HP_OK);
    return f;
}

/* Serves the executor until the condition holds; fails the test if that takes too long. */
#define WAIT_UNTIL(f, condition)                                                                   \
    do {                                                                                           \
        uint64_t give_up_ms_ = hp_clock_mono_ms() + PATIENCE_MS;                                   \
        while (!(condition)) {                                                                     \
            if (hp_clock_mono_ms() > give_up_ms_) {                                                \
                fail_msg("waited in vain for: %s", #condition);                                    \
            }                                                                                      \
            serve((f), 10);                                                                        \
        }                                                                                          \
    } while (0)

static inline void serve(struct fixture *f, int timeout_ms)
{
    struct pollfd pfd = {.fd = hp_exec_fd(f->exec), .events = POLLIN};
    (void)poll(&pfd, 1, timeout_ms);
    (void)hp_exec_process(f->exec);
}

static inline bool pid_exists(pid_t pid)
{
    /* A zombie is as good as gone: only its parent has yet to look. */
    char path[64];
    char text[512] = "";
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    ssize_t size = read(fd, text, sizeof text - 1);
    (void)close(fd);
    const char *state = size > 0 ? strrchr(text, ')') : NULL;
    return state != NULL && state[2] != 'Z' && state[2] != 'X';
}

#endif
