/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The loop on libevent. libevent 2.1 has no hook before and after a turn, so a turn is one
 * event_base_loop(EVLOOP_ONCE) and the caller does what comes after it.
 *
 * I1: an object may be freed inside its own callback: nothing is touched after the callback
 * returns.
 */
#include "common/net/loop.h"

#include <errno.h>
#include <event2/event.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/list.h"
#include "common/base/mem.h"
#include "common/net/loop_impl.h"

#define TIMER_MS_MAX (UINT64_C(10) * 366 * 24 * 3600 * 1000)

struct hp_timer {
    struct event *event;
    void (*fn)(struct hp_timer *, void *);
    void *context;
};

struct hp_alarm {
    int fd;
    struct hp_watch *watch;
    void (*fn)(struct hp_alarm *, void *);
    void *context;
};

struct hp_watch {
    struct hp_loop *loop;
    struct event *event;
    int fd;
    short flags; /* what is watched now */
    void (*fn)(struct hp_watch *, bool, bool, void *);
    void *context;
};

struct hp_signal {
    struct event *event;
    void (*fn)(struct hp_signal *, int, void *);
    void *context;
};

struct hp_wake {
    int fd;
    struct hp_watch *watch;
    void (*fn)(struct hp_wake *, void *);
    void *context;
};

static struct timeval timeval_of(uint64_t ms)
{
    ms = HP_MIN(ms, TIMER_MS_MAX);
    return (struct timeval){.tv_sec = (time_t)(ms / 1000),
                            .tv_usec = (suseconds_t)((ms % 1000) * 1000)};
}

static void on_wait_over(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    (void)context; /* only there to end the wait of a turn */
}

/* A config that never reads the environment: EVENT_* variables must not change a daemon. */
static struct event_base *base_new(void)
{
    struct event_config *config = event_config_new();
    if (config == NULL) {
        return NULL;
    }
    (void)event_config_set_flag(config, EVENT_BASE_FLAG_IGNORE_ENV);
    struct event_base *base = event_base_new_with_config(config);
    event_config_free(config);
    return base;
}

enum hp_err hp_loop_new(struct hp_loop **ret_loop, struct hp_error *reterr)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    if (sigaction(SIGPIPE, &ignore, NULL) != 0) {
        return hp_error_set(reterr, HP_ERR_IO, "cannot ignore SIGPIPE: %s", strerror(errno));
    }
    struct hp_loop *loop = hp_calloc(1, sizeof(*loop));
    if (loop == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    hp_list_init(&loop->dirty);
    hp_list_init(&loop->later);
    loop->base = base_new();
    if (loop->base != NULL) {
        loop->wait_timer = evtimer_new(loop->base, on_wait_over, NULL);
    }
    if (loop->wait_timer == NULL) {
        int error = errno;
        hp_loop_free(loop);
        return hp_error_set(reterr, HP_ERR_IO, "cannot make an event loop: %s", strerror(error));
    }
    *ret_loop = loop;
    return HP_OK;
}

void hp_loop_free(struct hp_loop *loop)
{
    if (loop == NULL) {
        return;
    }
    HP_ASSERT(hp_list_is_empty(&loop->dirty)); /* connections are freed before their loop */
    if (loop->wait_timer != NULL) {
        event_free(loop->wait_timer);
    }
    if (loop->base != NULL) {
        event_base_free(loop->base);
    }
    hp_free(loop);
}

enum hp_err hp_loop_turn(struct hp_loop *loop, uint64_t wait_ms_max)
{
    int flags = EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY;
    if (wait_ms_max == 0) {
        flags |= EVLOOP_NONBLOCK;
    } else if (wait_ms_max != HP_LOOP_FOREVER) {
        struct timeval wait = timeval_of(wait_ms_max);
        if (evtimer_add(loop->wait_timer, &wait) != 0) {
            return HP_ERR_NOMEM;
        }
    }
    int rc = event_base_loop(loop->base, flags);
    if (wait_ms_max != 0 && wait_ms_max != HP_LOOP_FOREVER) {
        (void)evtimer_del(loop->wait_timer); /* deleting an idle timer is fine */
    }
    return rc < 0 ? HP_ERR_IO : HP_OK;
}

/* ------------------------------------------------------------------------------------- timers */

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct hp_timer *timer = context;
    (void)fd;
    (void)what;
    timer->fn(timer, timer->context); /* I1 */
}

struct hp_timer *hp_timer_new(struct hp_loop *loop, void (*fn)(struct hp_timer *, void *),
                              void *context)
{
    struct hp_timer *timer = hp_calloc(1, sizeof(*timer));
    if (timer == NULL) {
        return NULL;
    }
    timer->fn = fn;
    timer->context = context;
    timer->event = evtimer_new(loop->base, on_timer, timer);
    if (timer->event == NULL) {
        hp_free(timer);
        return NULL;
    }
    return timer;
}

void hp_timer_free(struct hp_timer *timer)
{
    if (timer != NULL) {
        event_free(timer->event);
        hp_free(timer);
    }
}

void hp_timer_set(struct hp_timer *timer, uint64_t after_ms)
{
    struct timeval after = timeval_of(after_ms);
    /* Fails only when the timer heap cannot grow; a timer that never fires would hang its owner. */
    int rc = evtimer_add(timer->event, &after);
    HP_ASSERT(rc == 0);
}

void hp_timer_clear(struct hp_timer *timer)
{
    (void)evtimer_del(timer->event); /* fine if it was not set */
}

bool hp_timer_is_set(const struct hp_timer *timer)
{
    return evtimer_pending(timer->event, NULL) != 0;
}

static void on_alarm(struct hp_watch *watch, bool readable, bool writable, void *context)
{
    struct hp_alarm *alarm = context;
    uint64_t count = 0;
    (void)watch;
    (void)readable;
    (void)writable;
    if (read(alarm->fd, &count, sizeof(count)) == (ssize_t)sizeof(count)) {
        alarm->fn(alarm, alarm->context); /* I1; a cleared alarm reads nothing */
    }
}

struct hp_alarm *hp_alarm_new(struct hp_loop *loop, void (*fn)(struct hp_alarm *, void *),
                              void *context)
{
    struct hp_alarm *alarm = hp_calloc(1, sizeof(*alarm));
    if (alarm == NULL) {
        return NULL;
    }
    alarm->fn = fn;
    alarm->context = context;
    alarm->fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (alarm->fd >= 0) {
        alarm->watch = hp_watch_new(loop, alarm->fd, on_alarm, alarm);
    }
    if (alarm->watch == NULL || hp_watch_set(alarm->watch, true, false) != HP_OK) {
        hp_alarm_free(alarm);
        return NULL;
    }
    return alarm;
}

void hp_alarm_free(struct hp_alarm *alarm)
{
    if (alarm != NULL) {
        hp_watch_free(alarm->watch);
        if (alarm->fd >= 0) {
            (void)close(alarm->fd); /* a timerfd has nothing to lose */
        }
        hp_free(alarm);
    }
}

static void alarm_arm(struct hp_alarm *alarm, uint64_t after_us)
{
    struct itimerspec spec = {.it_value = {.tv_sec = (time_t)(after_us / 1000000),
                                           .tv_nsec = (long)(after_us % 1000000) * 1000}};
    int rc = timerfd_settime(alarm->fd, 0, &spec, NULL);
    HP_ASSERT(rc == 0); /* the fd is ours and the value is in range */
}

void hp_alarm_set_us(struct hp_alarm *alarm, uint64_t after_us)
{
    HP_ASSERT(after_us <= TIMER_MS_MAX * 1000);
    alarm_arm(alarm, HP_MAX(after_us, 1)); /* 0 would disarm it */
}

void hp_alarm_clear(struct hp_alarm *alarm)
{
    alarm_arm(alarm, 0);
}

/* ------------------------------------------------------------------------------------ watches */

static void on_watch(evutil_socket_t fd, short what, void *context)
{
    struct hp_watch *watch = context;
    (void)fd;
    watch->fn(watch, (what & EV_READ) != 0, (what & EV_WRITE) != 0, watch->context); /* I1 */
}

struct hp_watch *hp_watch_new(struct hp_loop *loop, int fd,
                              void (*fn)(struct hp_watch *, bool, bool, void *), void *context)
{
    HP_ASSERT(fd >= 0);
    struct hp_watch *watch = hp_calloc(1, sizeof(*watch));
    if (watch == NULL) {
        return NULL;
    }
    *watch = (struct hp_watch){.loop = loop, .fd = fd, .fn = fn, .context = context};
    watch->event = event_new(loop->base, fd, EV_PERSIST, on_watch, watch);
    if (watch->event == NULL) {
        hp_free(watch);
        return NULL;
    }
    return watch;
}

void hp_watch_free(struct hp_watch *watch)
{
    if (watch != NULL) {
        event_free(watch->event);
        hp_free(watch);
    }
}

enum hp_err hp_watch_set(struct hp_watch *watch, bool read, bool write)
{
    short flags = (short)((read ? EV_READ : 0) | (write ? EV_WRITE : 0));
    if (flags == watch->flags) {
        return HP_OK;
    }
    if (event_del(watch->event) != 0) {
        return HP_ERR_IO;
    }
    watch->flags = 0;
    if (flags == 0) {
        return HP_OK;
    }
    short wanted = (short)(flags | EV_PERSIST);
    if (event_assign(watch->event, watch->loop->base, watch->fd, wanted, on_watch, watch) != 0 ||
        event_add(watch->event, NULL) != 0) {
        return HP_ERR_NOMEM;
    }
    watch->flags = flags;
    return HP_OK;
}

/* ------------------------------------------------------------------------- signals and wake-ups */

static void on_signal(evutil_socket_t number, short what, void *context)
{
    struct hp_signal *sig = context;
    (void)what;
    sig->fn(sig, (int)number, sig->context); /* I1 */
}

struct hp_signal *hp_signal_new(struct hp_loop *loop, int number,
                                void (*fn)(struct hp_signal *, int, void *), void *context)
{
    struct hp_signal *sig = hp_calloc(1, sizeof(*sig));
    if (sig == NULL) {
        return NULL;
    }
    sig->fn = fn;
    sig->context = context;
    sig->event = evsignal_new(loop->base, number, on_signal, sig);
    if (sig->event == NULL || event_add(sig->event, NULL) != 0) {
        hp_signal_free(sig);
        return NULL;
    }
    return sig;
}

void hp_signal_free(struct hp_signal *sig)
{
    if (sig != NULL) {
        if (sig->event != NULL) {
            event_free(sig->event);
        }
        hp_free(sig);
    }
}

static void on_wake(struct hp_watch *watch, bool readable, bool writable, void *context)
{
    struct hp_wake *wake = context;
    uint64_t count = 0;
    (void)watch;
    (void)readable;
    (void)writable;
    if (read(wake->fd, &count, sizeof(count)) == (ssize_t)sizeof(count)) {
        wake->fn(wake, wake->context); /* I1 */
    }
}

struct hp_wake *hp_wake_new(struct hp_loop *loop, void (*fn)(struct hp_wake *, void *),
                            void *context)
{
    struct hp_wake *wake = hp_calloc(1, sizeof(*wake));
    if (wake == NULL) {
        return NULL;
    }
    wake->fn = fn;
    wake->context = context;
    wake->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (wake->fd >= 0) {
        wake->watch = hp_watch_new(loop, wake->fd, on_wake, wake);
    }
    if (wake->watch == NULL || hp_watch_set(wake->watch, true, false) != HP_OK) {
        hp_wake_free(wake);
        return NULL;
    }
    return wake;
}

void hp_wake_free(struct hp_wake *wake)
{
    if (wake != NULL) {
        hp_watch_free(wake->watch);
        if (wake->fd >= 0) {
            (void)close(wake->fd); /* an eventfd has nothing to lose */
        }
        hp_free(wake);
    }
}

void hp_wake_post(struct hp_wake *wake)
{
    uint64_t one = 1;
    /* EAGAIN means that the counter is full, so the loop is about to wake anyway. */
    ssize_t rc = write(wake->fd, &one, sizeof(one));
    (void)rc;
}

int hp_wake_fd(const struct hp_wake *wake)
{
    return wake->fd;
}
