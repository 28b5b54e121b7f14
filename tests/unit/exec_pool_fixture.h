/* SPDX-License-Identifier: BSD-2-Clause */
/* What the tests of pool children share: starting them, giving them calls, counting what is held.
 */
#ifndef HP_TESTS_EXEC_POOL_FIXTURE_H
#define HP_TESTS_EXEC_POOL_FIXTURE_H

#include "tests/unit/exec_fixture.h"

#define FUNCTION_CHILDREN 2u
#define POOL_CHILDREN 4u
#define FIRST FUNCTION_CHILDREN /* slot of pools */

static inline struct hp_exec_child_spec make_spec(uint32_t zygote, const char *function,
                                                  const char *init)
{
    return (struct hp_exec_child_spec){.zygote = zygote,
                                       .pool = 77,
                                       .init_function = hp_str_of(function),
                                       .init = hp_bin_make(init, strlen(init)),
                                       .init_fd = -1};
}

static inline void start_child(struct fixture *f, uint32_t child,
                               const struct hp_exec_child_spec *spec)
{
    struct hp_error error = {0};
    enum hp_err err = hp_exec_child_start(f->exec, child, spec, &error);
    assert_string_equal(error.text, "");
    assert_int_equal(err, HP_OK);
}

static inline enum hp_err try_give(struct fixture *f, uint32_t child, uint64_t key,
                                   const char *function, const char *payload)
{
    struct hp_exec_call call = {.key = key,
                                .function = hp_str_of(function),
                                .payload = hp_bin_make(payload, strlen(payload)),
                                .payload_fd = -1,
                                .task_id = key,
                                .attempt = 1};
    enum hp_err err = hp_exec_call(f->exec, child, &call);
    hp_exec_flush(f->exec);
    return err;
}

static inline void give(struct fixture *f, uint32_t child, uint64_t key, const char *function,
                        const char *payload)
{
    assert_int_equal(try_give(f, child, key, function, payload), HP_OK);
}

/* The call with this key, once it has ended and was kept. */
static inline const struct seen_call *ended_call(struct fixture *f, uint64_t key)
{
    for (uint32_t i = 0; i < f->kept_count; i++) {
        if (f->calls[i].key == key) {
            return &f->calls[i];
        }
    }
    return NULL;
}

static inline const struct seen_call *wait_call(struct fixture *f, uint64_t key)
{
    WAIT_UNTIL(f, ended_call(f, key) != NULL);
    return ended_call(f, key);
}

static inline bool is_running(struct fixture *f, uint32_t child)
{
    uint64_t key = 0;
    uint64_t start_us = 0;
    return hp_exec_child_running(f->exec, child, &key, &start_us);
}

/* Forgets what was seen, so that there is room for more. */
static inline void forget_calls(struct fixture *f)
{
    for (uint32_t i = 0; i < f->kept_count; i++) {
        free(f->calls[i].large);
        f->calls[i].large = NULL;
    }
    f->kept_count = f->call_count = f->ok_count = 0;
}

static inline uint32_t count_fds(void)
{
    uint32_t count = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir) != NULL) {
        count++;
    }
    (void)closedir(dir);
    return count;
}

/* Memory that the mapping of all slots takes, in KiB. */
static inline uint64_t shared_kb(void)
{
    char path[300];
    char target[64];
    uint64_t kb = 0;
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        struct stat about;
        (void)snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
        ssize_t size = readlink(path, target, sizeof target - 1);
        target[size > 0 ? size : 0] = '\0';
        if (strstr(target, "memfd:hp-exec") != NULL && stat(path, &about) == 0) {
            kb = (uint64_t)about.st_blocks / 2;
        }
    }
    (void)closedir(dir);
    return kb;
}

#endif
