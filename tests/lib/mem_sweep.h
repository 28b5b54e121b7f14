/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A script is run again and again, each time in a process of its own, and the n-th allocation of
 * the code under test fails: n = 1, 2, 3 ... until none is left to fail. What the test itself
 * allocates is not counted: it calls the code through SWEEP. Include hp_test.h first.
 *
 * Allowed: the code goes on, or it ends by an assertion that says there is no memory. Any other
 * assertion, crash, sanitizer report or failed check of the script is a failure of the test.
 */
#ifndef HP_TESTS_LIB_MEM_SWEEP_H
#define HP_TESTS_LIB_MEM_SWEEP_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef HP_TEST_COVERAGE
extern void __gcov_dump(void); /* of libgcov: writes what was counted */
#endif

enum { SWEEP_RAN = 0, SWEEP_WENT_ON = 10, SWEEP_STOPPED = 11, SWEEP_WRONG = 12 };

static struct {
    uint64_t left; /* to the allocation that fails; 0: past, or none */
    uint64_t failed;
    void (*after_stop)(void);
} sweep;

static inline void sweep_on(void)
{
    if (sweep.left > 0) {
        hp_mem_fail_at(sweep.left, false);
    }
}

static inline void sweep_off(void)
{
    if (sweep.left > 0) {
        sweep.left = hp_mem_fail_left();
        sweep.failed += hp_mem_fail_count();
        hp_mem_fail_at(0, false);
    }
}

/* A call of the code under test, of type void. */
#define SWEEP(call) (sweep_on(), (call), sweep_off())

static void sweep_exit(int code)
{
    (void)fflush(NULL);
#ifdef HP_TEST_COVERAGE
    __gcov_dump();
#endif
    _exit(code);
}

/* An assertion that says more than that there is no memory. */
static void sweep_on_wrong(const struct hp_assert_site *site)
{
    (void)fprintf(stderr, "%s:%d: %s: %s\n", site->file, site->line, site->function,
                  site->condition);
    sweep_exit(SWEEP_WRONG);
}

static void sweep_on_assert(const struct hp_assert_site *site)
{
    bool is_memory = strstr(site->condition, "!= NULL") != NULL ||
                     strstr(site->condition, "== HP_OK") != NULL ||
                     strstr(site->condition, "HP_ERR_NOMEM") != NULL;
    sweep.failed += hp_mem_fail_count();
    sweep.left = 0;
    hp_mem_fail_at(0, false);
    hp_assert_set_handler(sweep_on_wrong);
    if (!is_memory || sweep.failed == 0) {
        sweep_on_wrong(site);
    }
    if (sweep.after_stop != NULL) {
        sweep.after_stop();
    }
    sweep_exit(SWEEP_STOPPED);
}

static int sweep_one(uint64_t n, void (*script)(void))
{
    (void)fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)setenv("CMOCKA_TEST_ABORT", "1", 1); /* a failed check ends this process */
        hp_assert_set_handler(sweep_on_assert);
        sweep.left = n;
        script();
        sweep_exit(sweep.failed > 0 ? SWEEP_WENT_ON : SWEEP_RAN);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* `after_stop` (may be NULL) looks at what is left after an assertion. Returns how many n failed.
 */
static inline uint64_t mem_sweep(void (*script)(void), void (*after_stop)(void))
{
    uint64_t stopped = 0;
    sweep.after_stop = after_stop;
    for (uint64_t n = 1;; n++) {
        int how = sweep_one(n, script);
        if (how == SWEEP_RAN) {
            (void)printf("%llu allocations, stopped at %llu of them\n", (unsigned long long)n - 1,
                         (unsigned long long)stopped);
            return n - 1;
        }
        if (how != SWEEP_WENT_ON && how != SWEEP_STOPPED) {
            fail_msg("the allocation %llu that failed: %d (status, or -signal)",
                     (unsigned long long)n, how);
        }
        stopped += how == SWEEP_STOPPED;
    }
}

#endif
