/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the programs of bench/ share: the clock, giving up, sockets, children, and figures as JSON,
 * one object a line. They are measuring programs: whatever goes wrong ends them with a word.
 */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

uint64_t bench_now_ns(void);
/* Ends the program with errno's text. */
_Noreturn void bench_die(const char *what);
/* The same with a text of one's own. */
_Noreturn void bench_fail(const char *what, const char *why);
/* Ends the program after so many seconds: no benchmark may hang. */
void bench_limit_time(unsigned seconds);

/* A decimal number, or the program ends. */
uint64_t bench_number(const char *text);
/* calloc that does not fail. */
void *bench_room(size_t count, size_t size);

/* {"name", "count", "seconds", "rate"}: rate is count / seconds. */
void bench_print_rate(const char *name, double count, double seconds);
/* {"name", "count", "p50_us", "p99_us", "max_us"}; sorts the times. */
void bench_print_times(const char *name, uint64_t *times_ns, size_t count);

/* Stream sockets on 127.0.0.1, without Nagle's delay. */
int bench_connect(uint16_t port);
int bench_listen(uint16_t *ret_port);
int bench_accept(int listener);
void bench_write_all(int fd, const void *data, size_t size);
/* False at the end of the stream. */
bool bench_read_all(int fd, void *data, size_t size);

/* fork; the child dies with its parent. */
pid_t bench_fork(void);
/* Kills and reaps a child. */
void bench_end_child(pid_t child);

#endif
