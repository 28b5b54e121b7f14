/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The log. A line is formatted on the stack and written with one write(2), after poll(2) said that
 * the descriptor takes it: stderr may be a pipe whose reader hangs, shared with other processes, so
 * it can not simply be made non-blocking. POLLOUT on a pipe means room for PIPE_BUF bytes, our
 * longest line.
 */
#include "common/sys/log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/str.h"
#include "common/sys/clock.h"

#define BIN_BYTES_SHOWN 64u

static _Atomic int log_level = HP_LOG_INFO;
static _Atomic int log_fd = 2;
static _Atomic uint64_t log_drop_count;    /* since the start */
static _Atomic uint64_t log_drop_reported; /* of these, told by log_dropped lines */
static void (*log_sink)(const char *line, size_t size, void *context);
static void *log_sink_context;

static const char *const level_names[HP_LOG_LEVEL_COUNT] = {"error", "warn", "info", "debug",
                                                            "trace"};

/* A line being made. `size` never passes `limit`; what does not fit sets is_cut. */
struct line {
    char *text;
    size_t size;
    size_t limit;
    bool is_cut;
};

static void put(struct line *line, const char *text, size_t size)
{
    if (line->is_cut || size > line->limit - line->size) {
        line->is_cut = true;
        return;
    }
    memcpy(line->text + line->size, text, size);
    line->size += size;
}

static void put_text(struct line *line, const char *text)
{
    put(line, text, strlen(text));
}

__attribute__((format(printf, 2, 3))) static void put_format(struct line *line, const char *format,
                                                             ...)
{
    char text[64];
    va_list args;
    va_start(args, format);
    int size = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    HP_ASSERT(size >= 0 && (size_t)size < sizeof(text));
    put(line, text, (size_t)size);
}

static bool is_plain(char c)
{
    return (unsigned char)c > 0x20 && (unsigned char)c != 0x7f && c != '"' && c != '\\' && c != '=';
}

static void put_escaped(struct line *line, char c)
{
    switch (c) {
    case '\n':
        put_text(line, "\\n");
        break;
    case '\t':
        put_text(line, "\\t");
        break;
    case '"':
        put_text(line, "\\\"");
        break;
    case '\\':
        put_text(line, "\\\\");
        break;
    default:
        if ((unsigned char)c < 0x20 || (unsigned char)c == 0x7f) {
            put_format(line, "\\x%02x", (unsigned)(unsigned char)c);
        } else {
            put(line, &c, 1);
        }
    }
}

/* Bare where it is one plain word; else in quotes. Text that is no UTF-8 has its high bytes
 * escaped. */
static void put_value(struct line *line, const char *data, size_t size)
{
    bool plain = size > 0;
    bool is_utf8 = hp_utf8_valid((struct hp_str){.data = data, .size = (uint32_t)size});
    for (size_t i = 0; i < size && plain; i++) {
        plain = is_plain(data[i]);
    }
    if (plain && is_utf8) {
        put(line, data, size);
        return;
    }
    put_text(line, "\"");
    for (size_t i = 0; i < size && !line->is_cut; i++) {
        if (!is_utf8 && (unsigned char)data[i] >= 0x80) {
            put_format(line, "\\x%02x", (unsigned)(unsigned char)data[i]);
        } else {
            put_escaped(line, data[i]);
        }
    }
    put_text(line, "\"");
}

static void put_bytes(struct line *line, struct hp_bin bytes)
{
    char hex[2 * BIN_BYTES_SHOWN + 1];
    uint32_t shown = HP_MIN(bytes.size, BIN_BYTES_SHOWN);
    put_text(line, hp_hex(hex, bytes.data, shown));
    if (shown < bytes.size) {
        put_text(line, "...");
    }
}

static void put_errno(struct line *line, int errno_value)
{
    char text[128];
    const char *message = strerror_r(errno_value, text, sizeof(text)); /* the GNU one */
    put_value(line, message, strlen(message));
}

static void put_pair(struct line *line, const struct hp_log_kv *kv)
{
    put_text(line, " ");
    put_text(line, kv->key);
    put_text(line, "=");
    switch (kv->kind) {
    case HP_LOG_KIND_TEXT:
        if (kv->value.text == NULL) {
            put_text(line, "-");
        } else {
            put_value(line, kv->value.text, strlen(kv->value.text));
        }
        break;
    case HP_LOG_KIND_STR:
        put_value(line, kv->value.str.data, kv->value.str.size);
        break;
    case HP_LOG_KIND_U64:
        put_format(line, "%llu", (unsigned long long)kv->value.u64);
        break;
    case HP_LOG_KIND_I64:
        put_format(line, "%lld", (long long)kv->value.i64);
        break;
    case HP_LOG_KIND_HEX:
        put_format(line, "0x%llx", (unsigned long long)kv->value.u64);
        break;
    case HP_LOG_KIND_BOOL:
        put_text(line, kv->value.boolean ? "yes" : "no");
        break;
    case HP_LOG_KIND_BYTES:
        put_bytes(line, kv->value.bytes);
        break;
    case HP_LOG_KIND_ERR:
        put_text(line, hp_err_name(kv->value.err));
        break;
    case HP_LOG_KIND_ERRNO:
        put_errno(line, kv->value.errno_value);
        break;
    case HP_LOG_KIND_END:
    default:
        HP_UNREACHABLE();
    }
}

size_t hp_log_format(char out[HP_LOG_LINE_BYTES], uint64_t wall_ms, enum hp_log_level level,
                     const char *event, const struct hp_log_kv *pairs)
{
    static const char tail[] = " ...\n";
    char time_text[HP_CLOCK_TEXT_BYTES];
    struct line line = {.text = out, .limit = HP_LOG_LINE_BYTES - sizeof(tail)};
    put_text(&line, hp_clock_format(time_text, wall_ms));
    put_text(&line, " ");
    put_text(&line, hp_log_level_name(level));
    put_text(&line, " ");
    put_text(&line, event);
    for (const struct hp_log_kv *kv = pairs; kv->kind != HP_LOG_KIND_END && !line.is_cut; kv++) {
        put_pair(&line, kv);
    }
    line.limit = HP_LOG_LINE_BYTES;
    bool was_cut = line.is_cut;
    line.is_cut = false;
    put_text(&line, was_cut ? tail : "\n");
    return line.size;
}

/* False if the line can not be written now. */
static bool write_line(const char *text, size_t size)
{
    if (log_sink != NULL) {
        log_sink(text, size, log_sink_context);
        return true;
    }
    int fd = atomic_load(&log_fd);
    struct pollfd ready = {.fd = fd, .events = POLLOUT};
    if (poll(&ready, 1, 0) != 1 || (ready.revents & POLLOUT) == 0) {
        return false;
    }
    return write(fd, text, size) == (ssize_t)size;
}

static void report_drops(void)
{
    uint64_t dropped = atomic_load(&log_drop_count);
    uint64_t reported = atomic_load(&log_drop_reported);
    if (dropped == reported) {
        return;
    }
    char text[HP_LOG_LINE_BYTES];
    const struct hp_log_kv pairs[] = {HP_KV_U64("count", dropped - reported), HP_KV_END};
    size_t size = hp_log_format(text, hp_clock_wall_ms(), HP_LOG_WARN, "log_dropped", pairs);
    if (write_line(text, size)) {
        atomic_store(&log_drop_reported, dropped);
    }
}

void hp_log_write(enum hp_log_level level, const char *event, const struct hp_log_kv *pairs)
{
    HP_ASSERT((unsigned)level < HP_LOG_LEVEL_COUNT);
    int saved_errno = errno;
    char text[HP_LOG_LINE_BYTES];
    size_t size = hp_log_format(text, hp_clock_wall_ms(), level, event, pairs);
    report_drops();
    if (!write_line(text, size)) {
        atomic_fetch_add(&log_drop_count, 1);
    }
    errno = saved_errno;
}

bool hp_log_is_on(enum hp_log_level level)
{
    return (int)level <= atomic_load_explicit(&log_level, memory_order_relaxed);
}

void hp_log_set_level(enum hp_log_level level)
{
    HP_ASSERT((unsigned)level < HP_LOG_LEVEL_COUNT);
    atomic_store(&log_level, (int)level);
}

enum hp_err hp_log_level_parse(struct hp_str name, enum hp_log_level *ret)
{
    for (size_t i = 0; i < HP_LOG_LEVEL_COUNT; i++) {
        if (hp_str_eq_c(name, level_names[i])) {
            *ret = (enum hp_log_level)i;
            return HP_OK;
        }
    }
    return HP_ERR_INVALID;
}

const char *hp_log_level_name(enum hp_log_level level)
{
    return (unsigned)level < HP_LOG_LEVEL_COUNT ? level_names[level] : "unknown";
}

void hp_log_set_fd(int fd)
{
    atomic_store(&log_fd, fd);
}

void hp_log_set_sink(void (*sink)(const char *line, size_t size, void *context), void *context)
{
    log_sink = sink;
    log_sink_context = context;
}

uint64_t hp_log_drop_count(void)
{
    return atomic_load(&log_drop_count);
}

static void log_assertion(const struct hp_assert_site *site)
{
    hp_log(HP_LOG_ERROR, "assert_failed", HP_KV_STR("condition", site->condition),
           HP_KV_STR("file", site->file), HP_KV_I64("line", site->line),
           HP_KV_STR("function", site->function));
}

void hp_log_install_assert_handler(void)
{
    hp_assert_set_handler(log_assertion);
}
