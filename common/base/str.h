/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Text that people write and read: numbers, durations, sizes, names. Parsers take the whole text or
 * refuse it with a sentence that says what is wrong; they never guess. No locale.
 */
#ifndef HP_BASE_STR_H
#define HP_BASE_STR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/bin.h"
#include "common/base/err.h"

/* Bytes that hold any formatted duration or size, NUL included. */
#define HP_FORMAT_BYTES 32

/* Longest name (queue, tag, function, ...) in bytes. */
#define HP_NAME_BYTES_MAX 255

/*
 * Parsers: HP_OK and *ret, or HP_ERR_INVALID (not of this form) or HP_ERR_RANGE (does not fit) with
 * the sentence in reterr (may be NULL) and *ret untouched.
 */

/* Decimal digits only: "42". */
enum hp_err hp_parse_u64(struct hp_str text, uint64_t *ret, struct hp_error *reterr) HP_MUST_CHECK;

/* Decimal digits with an optional sign: "-7". */
enum hp_err hp_parse_i64(struct hp_str text, int64_t *ret, struct hp_error *reterr) HP_MUST_CHECK;

/* yes/no, true/false, on/off, 1/0; case does not matter. */
enum hp_err hp_parse_bool(struct hp_str text, bool *ret, struct hp_error *reterr) HP_MUST_CHECK;

/*
 * Duration in milliseconds: a number with a unit (ms, s, m, h, d), decimals allowed ("1.5s"),
 * several parts allowed from large to small ("1h30m"). A bare number is refused, except 0.
 */
enum hp_err hp_parse_duration_ms(struct hp_str text, uint64_t *ret_ms,
                                 struct hp_error *reterr) HP_MUST_CHECK;

/* Size in bytes: "4096", "512K", "512M", "4G", "1T" (powers of 1024; "KiB", "MB" also accepted). */
enum hp_err hp_parse_size_bytes(struct hp_str text, uint64_t *ret_bytes,
                                struct hp_error *reterr) HP_MUST_CHECK;

/* Exact and parseable again: 0 -> "0s", 250 -> "250ms", 90000 -> "1m30s". Returns `out`. */
char *hp_format_duration(char *out, size_t out_size, uint64_t duration_ms);

/* Exact and parseable again: 4096 -> "4K", 4097 -> "4097". Returns `out`. */
char *hp_format_size(char *out, size_t out_size, uint64_t size_bytes);

/* Rounded, for people: "3.4 MiB". Returns `out`. */
char *hp_format_size_human(char *out, size_t out_size, uint64_t size_bytes);

/* Copies with a NUL always (out_size >= 1), cutting what does not fit; returns strlen(from). */
size_t hp_strlcpy(char *out, const char *from, size_t out_size);

/*
 * Edits (insert, delete, replace, swap of neighbours) between two words, ASCII case ignored; words
 * longer than 63 bytes give `limit + 1`. Results above `limit` are reported as limit + 1.
 */
uint32_t hp_edit_distance(struct hp_str a, struct hp_str b, uint32_t limit);

/* The nearest word within about a third of its length, for "did you mean"; NULL if none is near. */
const char *hp_suggest(struct hp_str word, const char *const *words, size_t word_count);

/* Valid UTF-8 (no overlong forms, no surrogates). */
bool hp_utf8_valid(struct hp_str text);

/* A name: 1 .. 255 bytes of valid UTF-8 without control characters. */
bool hp_name_valid(struct hp_str name);

/* Lower-case hex of `size` bytes into out (2 * size + 1 bytes, NUL included). Returns `out`. */
char *hp_hex(char *out, const void *data, size_t size);

#endif
