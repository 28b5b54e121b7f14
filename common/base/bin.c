/* SPDX-License-Identifier: BSD-2-Clause */
/* Views of bytes and text. */
#include "common/base/bin.h"

#include "common/base/assert.h"

struct hp_str hp_str_make(const char *data, size_t size)
{
    HP_ASSERT(size <= UINT32_MAX);
    HP_ASSERT(data != NULL || size == 0);
    return (struct hp_str){.data = data, .size = (uint32_t)size};
}

struct hp_bin hp_bin_make(const void *data, size_t size)
{
    HP_ASSERT(size <= UINT32_MAX);
    HP_ASSERT(data != NULL || size == 0);
    return (struct hp_bin){.data = data, .size = (uint32_t)size};
}

struct hp_str hp_str_of(const char *text)
{
    return text == NULL ? (struct hp_str){0} : hp_str_make(text, strlen(text));
}

struct hp_str hp_bin_as_str(struct hp_bin bin)
{
    return (struct hp_str){.data = (const char *)bin.data, .size = bin.size};
}

struct hp_bin hp_str_as_bin(struct hp_str str)
{
    return (struct hp_bin){.data = (const uint8_t *)str.data, .size = str.size};
}

bool hp_bin_eq(struct hp_bin a, struct hp_bin b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

bool hp_str_eq(struct hp_str a, struct hp_str b)
{
    return hp_bin_eq(hp_str_as_bin(a), hp_str_as_bin(b));
}

bool hp_str_eq_c(struct hp_str a, const char *b)
{
    return hp_str_eq(a, hp_str_of(b));
}

int hp_str_compare(struct hp_str a, struct hp_str b)
{
    uint32_t common = a.size < b.size ? a.size : b.size;
    int order = common > 0 ? memcmp(a.data, b.data, common) : 0;
    if (order != 0) {
        return order;
    }
    return (a.size > b.size) - (a.size < b.size);
}

bool hp_str_starts_with(struct hp_str str, struct hp_str prefix)
{
    return str.size >= prefix.size &&
           (prefix.size == 0 || memcmp(str.data, prefix.data, prefix.size) == 0);
}

bool hp_secret_eq(struct hp_bin a, struct hp_bin b)
{
    /* Volatile, so that no compiler may leave the loop at the first difference. */
    volatile uint8_t difference = a.size == b.size ? 0 : 1;
    for (uint32_t i = 0; i < a.size && i < b.size; i++) {
        difference = (uint8_t)(difference | (a.data[i] ^ b.data[i]));
    }
    return difference == 0;
}
