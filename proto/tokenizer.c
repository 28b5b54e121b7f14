/* SPDX-License-Identifier: BSD-2-Clause */
/* See tokenizer.h. One loop over headers; everything it remembers is in struct hp_tok. */
#include "proto/tokenizer.h"

#include "common/base/assert.h"
#include "proto/hp_msg.h"

#include <stdbool.h>
#include <string.h>

const struct hp_tok_limits hp_tok_limits_open = {
    .frame_bytes_max = HP_LIMIT_FRAME_BYTES,
    .depth_max = HP_LIMIT_DEPTH,
    .elements_max = HP_LIMIT_ELEMENTS,
    .map_keys_max = HP_LIMIT_MAP_KEYS,
};

const struct hp_tok_limits hp_tok_limits_prehello = {
    .frame_bytes_max = HP_LIMIT_PREHELLO_BYTES,
    .depth_max = HP_LIMIT_DEPTH,
    .elements_max = HP_LIMIT_PREHELLO_BYTES,
    .map_keys_max = HP_LIMIT_MAP_KEYS,
};

enum kind {
    KIND_SCALAR, /* `width` bytes of value follow */
    KIND_FLOAT,  /* like a scalar, but the value is looked at */
    KIND_BYTES,  /* str or bin: a length of `width` bytes, then the bytes */
    KIND_ARRAY,
    KIND_MAP,
    KIND_EXT,
    KIND_NEVER, /* 0xc1, which MessagePack leaves unused */
};

/* What one header says. */
struct head {
    enum kind kind;
    uint32_t width; /* bytes of the value or of the length field after the first byte */
    uint32_t count; /* bytes or elements that follow, for the types that have a length */
};

/* The first bytes 0xc0..0xdf, the only ones whose meaning is not in their upper bits. */
static const struct {
    uint8_t kind;
    uint8_t width;
} wide[32] = {
    {KIND_SCALAR, 0}, {KIND_NEVER, 0},  {KIND_SCALAR, 0}, {KIND_SCALAR, 0}, /* c0 nil .. c3 true */
    {KIND_BYTES, 1},  {KIND_BYTES, 2},  {KIND_BYTES, 4},                    /* c4 bin */
    {KIND_EXT, 0},    {KIND_EXT, 0},    {KIND_EXT, 0},                      /* c7 ext */
    {KIND_FLOAT, 4},  {KIND_FLOAT, 8},                                      /* ca float */
    {KIND_SCALAR, 1}, {KIND_SCALAR, 2}, {KIND_SCALAR, 4}, {KIND_SCALAR, 8}, /* cc uint */
    {KIND_SCALAR, 1}, {KIND_SCALAR, 2}, {KIND_SCALAR, 4}, {KIND_SCALAR, 8}, /* d0 int */
    {KIND_EXT, 0},    {KIND_EXT, 0},    {KIND_EXT, 0},                      /* d4 fixext */
    {KIND_EXT, 0},    {KIND_EXT, 0},                                        /* d7 fixext */
    {KIND_BYTES, 1},  {KIND_BYTES, 2},  {KIND_BYTES, 4},                    /* d9 str */
    {KIND_ARRAY, 2},  {KIND_ARRAY, 4},  {KIND_MAP, 2},    {KIND_MAP, 4},    /* dc array, de map */
};

static uint32_t load_be(const uint8_t *at, uint32_t width)
{
    uint32_t value = 0;

    for (uint32_t i = 0; i < width; i++)
        value = (value << 8) | at[i];
    return value;
}

static bool is_nan(const uint8_t *at, uint32_t width)
{
    uint64_t bits = load_be(at, 4);

    if (width == 4)
        return (bits & 0x7fffffffu) > 0x7f800000u;
    bits = (bits << 32) | load_be(at + 4, 4);
    return (bits & UINT64_C(0x7fffffffffffffff)) > UINT64_C(0x7ff0000000000000);
}

/* Read the header at `at`, of which `size` >= 1 bytes are there. False: more bytes are needed. */
static inline bool read_head(const uint8_t *at, uint64_t size, struct head *ret)
{
    uint8_t first = at[0];

    ret->width = 0;
    ret->count = 0;
    if (first < 0x80 || first >= 0xe0) {
        ret->kind = KIND_SCALAR;
    } else if (first < 0x90) {
        ret->kind = KIND_MAP;
        ret->count = first & 0x0fu;
    } else if (first < 0xa0) {
        ret->kind = KIND_ARRAY;
        ret->count = first & 0x0fu;
    } else if (first < 0xc0) {
        ret->kind = KIND_BYTES;
        ret->count = first & 0x1fu;
    } else {
        ret->kind = (enum kind)wide[first - 0xc0].kind;
        ret->width = wide[first - 0xc0].width;
        if (ret->kind == KIND_SCALAR || ret->width == 0)
            return true;
        if (size < 1 + (uint64_t)ret->width)
            return false;
        if (ret->kind != KIND_FLOAT)
            ret->count = load_be(at + 1, ret->width);
    }
    return true;
}

/* Account for an opened container. NULL, or why not. */
static const char *open_container(struct hp_tok *tok, const struct head *head)
{
    uint64_t count = head->count;

    if (tok->depth == tok->limits.depth_max)
        return "The frame is nested too deeply.";
    if (head->kind == KIND_MAP) {
        if (count > tok->limits.map_keys_max)
            return "A map has too many keys.";
        count *= 2;
    }
    tok->pending += count;
    tok->elements += count;
    if (tok->elements > tok->limits.elements_max)
        return "The frame has too many elements.";
    tok->left[tok->depth++] = (uint32_t)count;
    return NULL;
}

/* One object ended: leave the containers it was the last one of. */
static inline void close_containers(struct hp_tok *tok)
{
    while (tok->depth > 0 && tok->left[tok->depth - 1] == 0)
        tok->depth--;
}

/* Take one object, whose header is complete. NULL, or why not. */
static inline const char *take_object(struct hp_tok *tok, const uint8_t *at,
                                      const struct head *head)
{
    const char *why = NULL;
    uint64_t size = 1 + (uint64_t)head->width;

    if (tok->depth > 0)
        tok->left[tok->depth - 1]--;
    tok->pending--;
    switch (head->kind) {
    case KIND_SCALAR:
        break;
    case KIND_FLOAT:
        if (is_nan(at + 1, head->width))
            return "The frame holds a NaN.";
        break;
    case KIND_BYTES:
        size += head->count;
        break;
    case KIND_ARRAY:
    case KIND_MAP:
        why = open_container(tok, head);
        if (why != NULL)
            return why;
        break;
    case KIND_EXT:
        return "The frame holds an extension type.";
    case KIND_NEVER:
        return "The frame holds the byte 0xc1, which is no MessagePack.";
    }
    tok->offset += size;
    /* Every object still owed is at least one byte, so a count can be refused before it arrives. */
    if (tok->offset + tok->pending > tok->limits.frame_bytes_max)
        return "The frame is too big.";
    close_containers(tok);
    return NULL;
}

void hp_tok_init(struct hp_tok *tok, const struct hp_tok_limits *limits)
{
    HP_ASSERT(limits->frame_bytes_max >= 1);
    HP_ASSERT(limits->depth_max >= 1 && limits->depth_max <= HP_TOK_DEPTH_CAP);
    tok->limits = *limits;
    hp_tok_reset(tok);
}

void hp_tok_reset(struct hp_tok *tok)
{
    tok->offset = 0;
    tok->pending = 1;
    tok->elements = 1;
    tok->depth = 0;
    tok->why = NULL;
}

enum hp_tok_status hp_tok_scan(struct hp_tok *tok, const uint8_t *data, size_t size,
                               size_t *ret_frame_size, const char **ret_why)
{
    while (tok->why == NULL && tok->pending > 0) {
        struct head head;

        if (tok->offset >= size)
            return HP_TOK_NEED_MORE;
        if (!read_head(data + tok->offset, size - tok->offset, &head))
            return HP_TOK_NEED_MORE;
        tok->why = take_object(tok, data + tok->offset, &head);
    }
    if (tok->why != NULL) {
        *ret_why = tok->why;
        return HP_TOK_BAD;
    }
    if (tok->offset > size)
        return HP_TOK_NEED_MORE;
    *ret_frame_size = (size_t)tok->offset;
    return HP_TOK_DONE;
}
