/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Borrowed byte ranges. Neither owns memory, neither is NUL-terminated; whoever hands one out says
 * how long it stays valid. hp_bin is bytes, hp_str is text (UTF-8 unless said otherwise).
 */
#ifndef HP_BASE_BIN_H
#define HP_BASE_BIN_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Bytes. `data` may be NULL only when size is 0. */
struct hp_bin {
    const uint8_t *data;
    uint32_t size; /* bytes */
};

/* Text. `data` may be NULL only when size is 0. */
struct hp_str {
    const char *data;
    uint32_t size; /* bytes, no NUL counted */
};

/* hp_str of a string literal; HP_STR_INIT is the same as an initialiser of a static object. */
#define HP_STR(literal)                                                                            \
    ((struct hp_str){.data = ("" literal), .size = (uint32_t)(sizeof(literal) - 1)})
#define HP_STR_INIT(literal)                                                                       \
    {                                                                                              \
        .data = ("" literal), .size = (uint32_t)(sizeof(literal) - 1)                              \
    }

/* printf("%" HP_STR_FMT, HP_STR_ARG(str)) prints an hp_str: ".*s" with its two arguments. */
#define HP_STR_FMT ".*s"
#define HP_STR_ARG(str) (int)(str).size, hp_str_chars(str)

/* Its bytes, never NULL. */
static inline const char *hp_str_chars(struct hp_str str)
{
    return str.size > 0 ? str.data : "";
}

/* View of a C string (NULL gives the empty one). Longer than 4 GiB is a programmer error. */
struct hp_str hp_str_of(const char *text);

/* Views of a pointer and size. `size` above UINT32_MAX is a programmer error. */
struct hp_str hp_str_make(const char *data, size_t size);
struct hp_bin hp_bin_make(const void *data, size_t size);

/* The same bytes under the other type. */
struct hp_str hp_bin_as_str(struct hp_bin bin);
struct hp_bin hp_str_as_bin(struct hp_str str);

/* Equal in size and in every byte. Not constant-time: never for secrets (hp_secret_eq). */
bool hp_bin_eq(struct hp_bin a, struct hp_bin b);
bool hp_str_eq(struct hp_str a, struct hp_str b);
bool hp_str_eq_c(struct hp_str a, const char *b);

/* Byte order as memcmp, the shorter first when one is the start of the other: <0, 0, >0. */
int hp_str_compare(struct hp_str a, struct hp_str b);

/* True if `str` begins with `prefix`. */
bool hp_str_starts_with(struct hp_str str, struct hp_str prefix);

/* Equality in a time that depends on the sizes only: for tokens. */
bool hp_secret_eq(struct hp_bin a, struct hp_bin b);

#endif
