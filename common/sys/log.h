/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The log: one line per event on stderr,
 *
 *     2026-01-01T00:00:00.000Z info worker_joined worker=3 name="host 7"
 *
 * written with one write(2) of at most HP_LOG_LINE_BYTES, so lines of several processes on one pipe
 * do not mix. It never blocks: a line that can not be written at once is dropped and counted, and
 * the next line that fits is preceded by a log_dropped line. Only shells log (main, turn, worker
 * main); libraries return errors. Secrets and payloads are never logged. Event names are
 * snake_case.
 *
 * Any thread may log; settings are made at start.
 */
#ifndef HP_SYS_LOG_H
#define HP_SYS_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bin.h"
#include "common/base/err.h"

/* Longest line, newline included: PIPE_BUF, so that a write is atomic. Longer ones are cut. */
#define HP_LOG_LINE_BYTES 4096

enum hp_log_level {
    HP_LOG_ERROR,
    HP_LOG_WARN,
    HP_LOG_INFO,
    HP_LOG_DEBUG,
    HP_LOG_TRACE,
    HP_LOG_LEVEL_COUNT
};

enum hp_log_kind {
    HP_LOG_KIND_END, /* ends a list of pairs */
    HP_LOG_KIND_TEXT,
    HP_LOG_KIND_STR,
    HP_LOG_KIND_U64,
    HP_LOG_KIND_I64,
    HP_LOG_KIND_HEX,
    HP_LOG_KIND_BOOL,
    HP_LOG_KIND_BYTES,
    HP_LOG_KIND_ERR,
    HP_LOG_KIND_ERRNO
};

/* One key=value pair; made by the HP_KV_X macros, borrowed for the call. */
struct hp_log_kv {
    const char *key; /* [a-z0-9_]+ */
    enum hp_log_kind kind;
    union {
        const char *text;
        struct hp_str str;
        struct hp_bin bytes;
        uint64_t u64;
        int64_t i64;
        bool boolean;
        enum hp_err err;
        int errno_value;
    } value;
};

/*
 * Typed pairs. Text is quoted and escaped when it has to be; NULL text is "-". HP_KV_BIN prints hex
 * (at most 64 bytes of it), HP_KV_HEX a number as 0x..., HP_KV_ERR the error's name, HP_KV_ERRNO
 * the system's text.
 */
#define HP_KV_(name, kind_, field, v)                                                              \
    ((struct hp_log_kv){.key = (name), .kind = (kind_), .value.field = (v)})
#define HP_KV_STR(key, c_text) HP_KV_(key, HP_LOG_KIND_TEXT, text, c_text)
#define HP_KV_STRN(key, hp_str_value) HP_KV_(key, HP_LOG_KIND_STR, str, hp_str_value)
#define HP_KV_U64(key, number) HP_KV_(key, HP_LOG_KIND_U64, u64, number)
#define HP_KV_I64(key, number) HP_KV_(key, HP_LOG_KIND_I64, i64, number)
#define HP_KV_HEX(key, number) HP_KV_(key, HP_LOG_KIND_HEX, u64, number)
#define HP_KV_BOOL(key, boolean_value) HP_KV_(key, HP_LOG_KIND_BOOL, boolean, boolean_value)
#define HP_KV_BIN(key, hp_bin_value) HP_KV_(key, HP_LOG_KIND_BYTES, bytes, hp_bin_value)
#define HP_KV_ERR(key, hp_err_value) HP_KV_(key, HP_LOG_KIND_ERR, err, hp_err_value)
#define HP_KV_ERRNO(key, number) HP_KV_(key, HP_LOG_KIND_ERRNO, errno_value, number)
#define HP_KV_END ((struct hp_log_kv){.kind = HP_LOG_KIND_END})

/*
 * Logs an event: hp_log(HP_LOG_INFO, "started"), hp_log(HP_LOG_WARN, "peer_closed",
 * HP_KV_STR("reason", text), HP_KV_U64("conn", id)). Pairs are not evaluated if the level is off.
 * errno is kept.
 */
#define hp_log(...) HP_LOG_EVENT_(__VA_ARGS__, HP_KV_END)
#define HP_LOG_EVENT_(level, event, ...)                                                           \
    do {                                                                                           \
        if (hp_log_is_on(level)) {                                                                 \
            hp_log_write((level), (event), (const struct hp_log_kv[]){__VA_ARGS__});               \
        }                                                                                          \
    } while (0)

/* True if events of this level are written. The default is HP_LOG_INFO. */
bool hp_log_is_on(enum hp_log_level level);

/* Writes one event; `pairs` ends with HP_KV_END. Use hp_log. */
void hp_log_write(enum hp_log_level level, const char *event, const struct hp_log_kv *pairs);

/* Sets the least important level that is written. */
void hp_log_set_level(enum hp_log_level level);

/* Finds a level by name ("error", "warn", "info", "debug", "trace"). HP_ERR_INVALID. */
enum hp_err hp_log_level_parse(struct hp_str name, enum hp_log_level *ret) HP_MUST_CHECK;

/* Name of a level. */
const char *hp_log_level_name(enum hp_log_level level);

/* Sends lines to another descriptor than 2 (borrowed). */
void hp_log_set_fd(int fd);

/* For tests: lines (newline included) go to `sink` instead; NULL: back to the descriptor. */
void hp_log_set_sink(void (*sink)(const char *line, size_t size, void *context), void *context);

/* Lines dropped since the start. */
uint64_t hp_log_drop_count(void);

/* Makes failed assertions log an `assert_failed` event before the abort. */
void hp_log_install_assert_handler(void);

/* Formats one line, newline included, without writing; returns its bytes. For tests and tools. */
size_t hp_log_format(char out[HP_LOG_LINE_BYTES], uint64_t wall_ms, enum hp_log_level level,
                     const char *event, const struct hp_log_kv *pairs);

#endif
