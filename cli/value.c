/* SPDX-License-Identifier: BSD-2-Clause */
/* JSON to MessagePack and back. Few lines, so that the program needs no codec for it. */
#include "cli/value.h"

#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 32
#define BUF_BYTES_MAX ((size_t)1 << 31)

void hp_cli_put(struct hp_buf *buf, const void *data, size_t size)
{
    if (size > 0 && hp_buf_append(buf, data, size) != HP_OK) {
        hp_cli_no_memory();
    }
}

/* A type byte and `bytes` bytes of a number, most significant first. */
static void put_number(struct hp_buf *buf, uint8_t type, uint64_t number, unsigned bytes)
{
    uint8_t out[9] = {type};
    for (unsigned i = 0; i < bytes; i++) {
        out[1 + i] = (uint8_t)(number >> (8 * (bytes - 1 - i)));
    }
    hp_cli_put(buf, out, 1 + bytes);
}

static void put_integer(struct hp_buf *buf, json_int_t value)
{
    uint64_t number = (uint64_t)value;
    if (value >= 0 && value < 128) {
        put_number(buf, (uint8_t)value, 0, 0);
    } else if (value >= 0) {
        unsigned bytes = number <= UINT8_MAX    ? 1
                         : number <= UINT16_MAX ? 2
                         : number <= UINT32_MAX ? 4
                                                : 8;
        uint8_t type = bytes == 1 ? 0xcc : bytes == 2 ? 0xcd : bytes == 4 ? 0xce : 0xcf;
        put_number(buf, type, number, bytes);
    } else if (value >= -32) {
        put_number(buf, (uint8_t)value, 0, 0);
    } else {
        put_number(buf, 0xd3, number, 8);
    }
}

static void put_real(struct hp_buf *buf, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    put_number(buf, 0xcb, bits, 8);
}

static void put_string(struct hp_buf *buf, const char *text, size_t size)
{
    if (size < 32) {
        put_number(buf, (uint8_t)(0xa0 | size), 0, 0);
    } else {
        unsigned bytes = size <= UINT8_MAX ? 1 : size <= UINT16_MAX ? 2 : 4;
        put_number(buf, bytes == 1 ? 0xd9 : bytes == 2 ? 0xda : 0xdb, size, bytes);
    }
    hp_cli_put(buf, text, size);
}

/* Head of an array (0x90, 0xdc) or a map (0x80, 0xde). */
static void put_head(struct hp_buf *buf, uint8_t fix, uint8_t wide, size_t count)
{
    if (count < 16) {
        put_number(buf, (uint8_t)(fix | count), 0, 0);
    } else if (count <= UINT16_MAX) {
        put_number(buf, wide, count, 2);
    } else {
        put_number(buf, (uint8_t)(wide + 1), count, 4);
    }
}

static void put_input(struct hp_buf *buf, const char *input)
{
    json_t *value = json_loads(input, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    if (value != NULL) {
        hp_cli_value_put(buf, value, NULL);
    } else {
        put_string(buf, input, strlen(input));
    }
    json_decref(value);
}

void hp_cli_value_put(struct hp_buf *buf, const json_t *value, const char *input)
{
    const char *key;
    const json_t *item;
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        put_head(buf, 0x80, 0xde, json_object_size(value));
        json_object_foreach((json_t *)(uintptr_t)value, key, item)
        {
            put_string(buf, key, strlen(key));
            hp_cli_value_put(buf, item, input);
        }
        break;
    case JSON_ARRAY:
        put_head(buf, 0x90, 0xdc, json_array_size(value));
        for (size_t i = 0; i < json_array_size(value); i++) {
            hp_cli_value_put(buf, json_array_get(value, i), input);
        }
        break;
    case JSON_STRING:
        if (input != NULL && strcmp(json_string_value(value), "{}") == 0) {
            put_input(buf, input);
        } else {
            put_string(buf, json_string_value(value), json_string_length(value));
        }
        break;
    case JSON_INTEGER:
        put_integer(buf, json_integer_value(value));
        break;
    case JSON_REAL:
        put_real(buf, json_real_value(value));
        break;
    case JSON_TRUE:
        put_number(buf, 0xc3, 0, 0);
        break;
    case JSON_FALSE:
        put_number(buf, 0xc2, 0, 0);
        break;
    case JSON_NULL:
        put_number(buf, 0xc0, 0, 0);
        break;
    }
}

/* ---------------------------------------------------------------- back */

struct reader {
    const uint8_t *at;
    size_t left;
};

static json_t *read_value(struct reader *reader, unsigned depth);

static bool take(struct reader *reader, size_t size, uint64_t *ret)
{
    if (reader->left < size) {
        return false;
    }
    *ret = 0;
    for (size_t i = 0; i < size; i++) {
        *ret = *ret << 8 | reader->at[i];
    }
    reader->at += size;
    reader->left -= size;
    return true;
}

static json_t *read_bytes(struct reader *reader, uint64_t size)
{
    if (reader->left < size) {
        return NULL;
    }
    const char *text = (const char *)reader->at;
    reader->at += size;
    reader->left -= size;
    json_t *value = json_stringn(text, size);
    return value != NULL ? value : json_string(hp_cli_escape(text, size, true));
}

static json_t *read_array(struct reader *reader, uint64_t count, unsigned depth)
{
    json_t *list = count <= reader->left ? json_array() : NULL;
    for (uint64_t i = 0; list != NULL && i < count; i++) {
        json_t *item = read_value(reader, depth + 1);
        if (item == NULL) {
            json_decref(list);
            return NULL;
        }
        (void)json_array_append_new(list, item);
    }
    return list;
}

/* Numbers and the like become their JSON text. Lists and maps as keys have none: text in text in
 * text doubles its backslashes each time, so that a few bytes of a result became gigabytes. */
static char *key_text(json_t *key)
{
    if (json_is_array(key) || json_is_object(key)) {
        return NULL;
    }
    char *text = json_is_string(key) ? NULL : json_dumps(key, JSON_ENCODE_ANY | JSON_COMPACT);
    char *copy = text != NULL ? hp_cli_copy(text, strlen(text))
                 : json_is_string(key)
                     ? hp_cli_copy(json_string_value(key), json_string_length(key))
                     : hp_cli_copy("?", 1);
    free(text);
    return copy;
}

static json_t *read_map(struct reader *reader, uint64_t count, unsigned depth)
{
    json_t *object = count <= reader->left / 2 ? json_object() : NULL;
    for (uint64_t i = 0; object != NULL && i < count; i++) {
        json_t *key = read_value(reader, depth + 1);
        json_t *item = key != NULL ? read_value(reader, depth + 1) : NULL;
        char *text = item != NULL ? key_text(key) : NULL;
        json_decref(key);
        if (text == NULL) {
            json_decref(item);
            json_decref(object);
            return NULL;
        }
        (void)json_object_set_new(object, text, item);
    }
    return object;
}

static json_t *read_real(struct reader *reader, size_t size)
{
    uint64_t bits = 0;
    double value = 0;
    if (!take(reader, size, &bits)) {
        return NULL;
    }
    if (size == 4) {
        float single;
        uint32_t bits32 = (uint32_t)bits;
        memcpy(&single, &bits32, sizeof(single));
        value = (double)single;
    } else {
        memcpy(&value, &bits, sizeof(value));
    }
    json_t *real = json_real(value);
    return real != NULL ? real : json_null(); /* JSON has no infinities */
}

/* Types 0xc4.. whose head has a size or a number. */
static json_t *read_long(struct reader *reader, uint8_t type, unsigned depth)
{
    static const uint8_t sizes[] = {1, 2, 4};
    uint64_t number = 0;
    if (type >= 0xc4 && type <= 0xc6) {
        return take(reader, sizes[type - 0xc4], &number) ? read_bytes(reader, number) : NULL;
    }
    if (type == 0xca || type == 0xcb) {
        return read_real(reader, type == 0xca ? 4 : 8);
    }
    if (type >= 0xcc && type <= 0xcf) {
        if (!take(reader, (size_t)1 << (type - 0xcc), &number)) {
            return NULL;
        }
        return number <= INT64_MAX ? json_integer((json_int_t)number) : json_real((double)number);
    }
    if (type >= 0xd0 && type <= 0xd3) {
        size_t size = (size_t)1 << (type - 0xd0);
        if (!take(reader, size, &number)) {
            return NULL;
        }
        unsigned shift = (unsigned)(64 - 8 * size);
        return json_integer((int64_t)(number << shift) >> shift);
    }
    if (type >= 0xd9 && type <= 0xdb) {
        return take(reader, sizes[type - 0xd9], &number) ? read_bytes(reader, number) : NULL;
    }
    if (type == 0xdc || type == 0xdd) {
        return take(reader, sizes[type - 0xdb], &number) ? read_array(reader, number, depth) : NULL;
    }
    if (type == 0xde || type == 0xdf) {
        return take(reader, sizes[type - 0xdd], &number) ? read_map(reader, number, depth) : NULL;
    }
    return NULL; /* extensions */
}

static json_t *read_value(struct reader *reader, unsigned depth)
{
    if (reader->left == 0 || depth > DEPTH_MAX) {
        return NULL;
    }
    uint8_t type = *reader->at++;
    reader->left--;
    if (type < 0x80) {
        return json_integer(type);
    }
    if (type >= 0xe0) {
        return json_integer((int8_t)type);
    }
    if (type < 0x90) {
        return read_map(reader, type & 15, depth);
    }
    if (type < 0xa0) {
        return read_array(reader, type & 15, depth);
    }
    if (type < 0xc0) {
        return read_bytes(reader, type & 31);
    }
    if (type == 0xc0) {
        return json_null();
    }
    if (type == 0xc2 || type == 0xc3) {
        return json_boolean(type == 0xc3);
    }
    return read_long(reader, type, depth);
}

json_t *hp_cli_value_json(const void *data, size_t size)
{
    struct reader reader = {.at = data, .left = size};
    json_t *value = read_value(&reader, 0);
    if (value != NULL && reader.left > 0) {
        json_decref(value);
        return NULL;
    }
    return value;
}

const char *hp_cli_value_text(const void *data, size_t size)
{
    if (size == 0) {
        return "";
    }
    json_t *value = hp_cli_value_json(data, size);
    char *text = value != NULL
                     ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(17))
                     : NULL;
    const char *copy =
        text != NULL ? hp_cli_copy(text, strlen(text)) : hp_cli_escape(data, size, false);
    free(text);
    json_decref(value);
    return copy;
}

/* ---------------------------------------------------------------- commands */

void hp_cli_quote(struct hp_buf *buf, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "%+,-./:=@_^";
    if (word[0] != '\0' && word[strspn(word, plain)] == '\0') {
        hp_cli_put(buf, word, strlen(word));
        return;
    }
    hp_cli_put(buf, "'", 1);
    for (const char *at = word; *at != '\0'; at++) {
        if (*at == '\'') {
            hp_cli_put(buf, "'\\''", 4);
        } else {
            hp_cli_put(buf, at, 1);
        }
    }
    hp_cli_put(buf, "'", 1);
}

const char *hp_cli_command_text(const char *const *words, size_t count)
{
    struct hp_buf buf;
    hp_buf_init(&buf, BUF_BYTES_MAX);
    for (size_t i = 0; i < count; i++) {
        if (i > 0) {
            hp_cli_put(&buf, " ", 1);
        }
        hp_cli_quote(&buf, words[i]);
    }
    const char *text = hp_cli_copy((const char *)buf.data, buf.size);
    hp_buf_deinit(&buf);
    return text;
}
