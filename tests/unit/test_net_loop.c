/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the loop: timers, watches, signals, wake-ups, freeing inside callbacks. */
#include "tests/lib/hp_test.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "common/net/loop.h"

#define TRIES 1000

struct seen {
    int count;
    int number;
    bool readable;
    bool writable;
};

static void on_timer(struct hp_timer *timer, void *context)
{
    struct seen *seen = context;
    (void)timer;
    seen->count++;
}

static void on_timer_free(struct hp_timer *timer, void *context)
{
    struct seen *seen = context;
    seen->count++;
    hp_timer_free(timer);
}

static void on_alarm(struct hp_alarm *alarm, void *context)
{
    struct seen *seen = context;
    (void)alarm;
    seen->count++;
}

static void on_watch(struct hp_watch *watch, bool readable, bool writable, void *context)
{
    struct seen *seen = context;
    seen->count++;
    seen->readable = readable;
    seen->writable = writable;
    assert_ok(hp_watch_set(watch, false, false));
}

static void on_signal(struct hp_signal *sig, int number, void *context)
{
    struct seen *seen = context;
    (void)sig;
    seen->count++;
    seen->number = number;
}

static void on_wake(struct hp_wake *wake, void *context)
{
    struct seen *seen = context;
    (void)wake;
    seen->count++;
}

static struct hp_loop *loop_of(void)
{
    struct hp_loop *loop = NULL;
    assert_ok(hp_loop_new(&loop, NULL));
    return loop;
}

/* Turns until `*count` reaches `want`. */
static void turn_until(struct hp_loop *loop, const int *count, int want)
{
    for (int i = 0; i < TRIES && *count < want; i++) {
        assert_ok(hp_loop_turn(loop, 1000));
    }
    assert_int_equal(*count, want);
}

static void test_turn_ends(void **state)
{
    struct hp_loop *loop = loop_of();
    (void)state;
    assert_ok(hp_loop_turn(loop, 0)); /* nothing there: comes back all the same */
    assert_ok(hp_loop_turn(loop, 1));
    hp_loop_free(loop);
}

static void test_timers(void **state)
{
    struct hp_loop *loop = loop_of();
    struct seen kept = {0};
    struct seen freed = {0};
    struct seen cleared = {0};
    struct seen alarmed = {0};
    struct hp_timer *a = hp_timer_new(loop, on_timer, &kept);
    struct hp_timer *b = hp_timer_new(loop, on_timer_free, &freed);
    struct hp_timer *c = hp_timer_new(loop, on_timer, &cleared);
    struct hp_alarm *alarm = hp_alarm_new(loop, on_alarm, &alarmed);
    (void)state;
    hp_timer_set(a, 1);
    hp_timer_set(b, 1);
    hp_timer_set(c, 1);
    assert_true(hp_timer_is_set(c));
    hp_timer_clear(c);
    hp_alarm_set_us(alarm, 100);
    turn_until(loop, &kept.count, 1);
    turn_until(loop, &freed.count, 1);
    turn_until(loop, &alarmed.count, 1);
    assert_false(hp_timer_is_set(a)); /* one-shot */
    hp_alarm_set_us(alarm, 1);
    hp_alarm_clear(alarm);
    hp_timer_set(a, 5);
    turn_until(loop, &kept.count, 2);
    assert_int_equal(alarmed.count, 1);
    assert_int_equal(cleared.count, 0);
    hp_timer_free(a);
    hp_timer_free(c);
    hp_timer_free(NULL);
    hp_alarm_free(alarm);
    hp_loop_free(loop);
}

static void test_watch(void **state)
{
    struct hp_loop *loop = loop_of();
    struct seen seen = {0};
    int pipe_fds[2];
    (void)state;
    assert_int_equal(pipe(pipe_fds), 0);
    struct hp_watch *reading = hp_watch_new(loop, pipe_fds[0], on_watch, &seen);
    struct hp_watch *writing = hp_watch_new(loop, pipe_fds[1], on_watch, &seen);
    assert_ok(hp_watch_set(writing, false, true));
    turn_until(loop, &seen.count, 1);
    assert_true(seen.writable);
    assert_ok(hp_watch_set(reading, true, false));
    assert_ok(hp_loop_turn(loop, 0));
    assert_int_equal(seen.count, 1); /* nothing to read, and the writer is switched off */
    assert_int_equal(write(pipe_fds[1], "x", 1), 1);
    turn_until(loop, &seen.count, 2);
    assert_true(seen.readable);
    hp_watch_free(reading);
    hp_watch_free(writing);
    assert_int_equal(close(pipe_fds[0]), 0);
    assert_int_equal(write(pipe_fds[1], "x", 1), -1); /* SIGPIPE is ignored */
    assert_int_equal(close(pipe_fds[1]), 0);
    hp_loop_free(loop);
}

static void test_signal(void **state)
{
    struct hp_loop *loop = loop_of();
    struct seen seen = {0};
    struct hp_signal *sig = hp_signal_new(loop, SIGUSR1, on_signal, &seen);
    (void)state;
    assert_non_null(sig);
    assert_int_equal(raise(SIGUSR1), 0);
    turn_until(loop, &seen.count, 1);
    assert_int_equal(seen.number, SIGUSR1);
    hp_signal_free(sig);
    hp_loop_free(loop);
}

static void *post(void *wake)
{
    for (int i = 0; i < 100; i++) {
        hp_wake_post(wake);
    }
    return NULL;
}

static void test_wake(void **state)
{
    struct hp_loop *loop = loop_of();
    struct seen seen = {0};
    struct hp_wake *wake = hp_wake_new(loop, on_wake, &seen);
    pthread_t thread;
    (void)state;
    assert_true(hp_wake_fd(wake) >= 0);
    assert_int_equal(pthread_create(&thread, NULL, post, wake), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    turn_until(loop, &seen.count, 1);
    assert_ok(hp_loop_turn(loop, 0));
    assert_int_equal(seen.count, 1); /* many posts, one call */
    hp_wake_free(wake);
    hp_loop_free(loop);
}

static void test_out_of_memory(void **state)
{
    struct hp_loop *loop = NULL;
    struct seen seen = {0};
    (void)state;
    hp_mem_fail_at(1, false);
    assert_err(hp_loop_new(&loop, NULL), HP_ERR_NOMEM);
    hp_mem_fail_at(0, false);
    loop = loop_of();
    hp_mem_fail_at(1, true);
    assert_null(hp_timer_new(loop, on_timer, &seen));
    assert_null(hp_alarm_new(loop, on_alarm, &seen));
    assert_null(hp_watch_new(loop, 0, on_watch, &seen));
    assert_null(hp_signal_new(loop, SIGUSR1, on_signal, &seen));
    assert_null(hp_wake_new(loop, on_wake, &seen));
    hp_mem_fail_at(0, false);
    hp_mem_fail_at(2, false); /* the alarm's watch */
    assert_null(hp_alarm_new(loop, on_alarm, &seen));
    hp_mem_fail_at(0, false);
    hp_loop_free(loop);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_turn_ends), cmocka_unit_test(test_timers),
    cmocka_unit_test(test_watch),     cmocka_unit_test(test_signal),
    cmocka_unit_test(test_wake),      cmocka_unit_test(test_out_of_memory),
};

HP_TEST_MAIN(tests)
