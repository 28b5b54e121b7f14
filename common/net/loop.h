/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The event loop: file descriptors, timers, signals and wake-ups of one thread, on libevent. Only
 * common/net knows libevent, so that the rest of the project never depends on its types or traps.
 *
 * A turn is hp_loop_turn(): wait for events, run their callbacks once. Callbacks only gather (bytes
 * into buffers, flags into lists); what follows from them is done by the caller after the turn.
 *
 * All functions belong to the thread which owns the loop, except hp_wake_post. Every object is heap
 * allocated, freed by its own _free (NULL is fine, also inside its own callback), and must be freed
 * before its loop.
 */
#ifndef HP_NET_LOOP_H
#define HP_NET_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"

struct hp_loop;
struct hp_timer;
struct hp_watch;
struct hp_signal;
struct hp_wake;
struct hp_alarm;

/* Pass as wait_ms_max: wait for an event however long that takes. */
#define HP_LOOP_FOREVER UINT64_MAX

/*
 * Makes a loop. Also sets SIGPIPE to ignored in this process: a write to a closed peer is an error
 * return here, never a signal. HP_ERR_NOMEM, HP_ERR_IO.
 */
enum hp_err hp_loop_new(struct hp_loop **ret_loop, struct hp_error *reterr) HP_MUST_CHECK;
void hp_loop_free(struct hp_loop *loop);

/*
 * One turn: waits until something happened, at most wait_ms_max (0: only look), and runs the
 * callbacks of all that happened. HP_ERR_IO: the kernel refused to wait; the process can not go on.
 */
enum hp_err hp_loop_turn(struct hp_loop *loop, uint64_t wait_ms_max) HP_MUST_CHECK;

/* Writes out every connection that got output since the last flush: call it at the end of a turn.
 */
void hp_loop_flush(struct hp_loop *loop);

/* Has a connection output of hp_conn_send_later() that nothing has taken along yet? */
bool hp_loop_has_later(const struct hp_loop *loop);

/* The next flush writes that, too. */
void hp_loop_touch_later(struct hp_loop *loop);

/* -------------------------------------------------------------------------------- timers, in ms */

/* One-shot; unset when made. NULL: out of memory. The callback may set it again or free it. */
struct hp_timer *hp_timer_new(struct hp_loop *loop, void (*fn)(struct hp_timer *, void *context),
                              void *context) HP_MUST_CHECK;
void hp_timer_free(struct hp_timer *timer);
/* (Re)starts it: the callback runs once, not before `after_ms` from now (at most 10 years). */
void hp_timer_set(struct hp_timer *timer, uint64_t after_ms);
void hp_timer_clear(struct hp_timer *timer);
bool hp_timer_is_set(const struct hp_timer *timer);

/* One-shot with microseconds, on a timerfd: for waits below a millisecond. Else as hp_timer. */
struct hp_alarm *hp_alarm_new(struct hp_loop *loop, void (*fn)(struct hp_alarm *, void *context),
                              void *context) HP_MUST_CHECK;
void hp_alarm_free(struct hp_alarm *alarm);
void hp_alarm_set_us(struct hp_alarm *alarm, uint64_t after_us);
void hp_alarm_clear(struct hp_alarm *alarm);

/* ----------------------------------------------------------------------------- file descriptors */

/*
 * Watches `fd` (borrowed: the owner frees the watch first, then closes the fd). Watches nothing
 * until hp_watch_set. Level-triggered. NULL: out of memory. `readable` also reports end and error.
 */
struct hp_watch *hp_watch_new(struct hp_loop *loop, int fd,
                              void (*fn)(struct hp_watch *, bool readable, bool writable,
                                         void *context),
                              void *context) HP_MUST_CHECK;
void hp_watch_free(struct hp_watch *watch);
/* Which of the two are wanted from now on. Cheap when nothing changes. HP_ERR_NOMEM. */
enum hp_err hp_watch_set(struct hp_watch *watch, bool read, bool write) HP_MUST_CHECK;

/* -------------------------------------------------------------------------- signals and wake-ups
 */

/* Runs the callback in the loop for each delivery of signal `number`. NULL: out of memory. */
struct hp_signal *hp_signal_new(struct hp_loop *loop, int number,
                                void (*fn)(struct hp_signal *, int number, void *context),
                                void *context) HP_MUST_CHECK;
void hp_signal_free(struct hp_signal *signal);

/* An eventfd: hp_wake_post makes the loop run the callback, once for any number of posts. */
struct hp_wake *hp_wake_new(struct hp_loop *loop, void (*fn)(struct hp_wake *, void *context),
                            void *context) HP_MUST_CHECK;
void hp_wake_free(struct hp_wake *wake);
/* From any thread; async-signal-safe. */
void hp_wake_post(struct hp_wake *wake);
/* The eventfd itself, for a thread that writes 8 bytes to it on its own. Owned by the wake. */
int hp_wake_fd(const struct hp_wake *wake);

#endif
