/* SPDX-License-Identifier: BSD-2-Clause */
/* See rpc.h. */
#include "proto/rpc.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static enum hp_err bad(struct hp_error *reterr, const char *why)
{
    return hp_error_set(reterr, HP_ERR_PROTOCOL, "%s", why);
}

/* The one map in a params array; what stands for nothing gives the empty map. NULL: not allowed. */
static const struct hp_wire_obj *params_map(const struct hp_wire_obj *params)
{
    const struct hp_wire_obj *only;

    if (hp_wire_type(params) != HP_WIRE_ARRAY || hp_wire_count(params) > 1) {
        return NULL;
    }
    if (hp_wire_count(params) == 0) {
        return &hp_wire_empty_map;
    }
    only = hp_wire_item(params, 0);
    if (hp_wire_type(only) == HP_WIRE_MAP) {
        return only;
    }
    if (hp_wire_type(only) == HP_WIRE_NIL ||
        (hp_wire_type(only) == HP_WIRE_ARRAY && hp_wire_count(only) == 0)) {
        return &hp_wire_empty_map;
    }
    return NULL;
}

static enum hp_err parse_call(const struct hp_wire_obj *method, const struct hp_wire_obj *params,
                              struct hp_rpc *ret, struct hp_error *reterr)
{
    /* Some clients (pynvim) write names as bin. */
    if (hp_wire_type(method) != HP_WIRE_STR && hp_wire_type(method) != HP_WIRE_BIN) {
        return bad(reterr, "The method is not a string.");
    }
    ret->method_name = hp_bin_as_str(hp_wire_bin(method));
    ret->method = hp_method_find(ret->method_name);
    ret->params = params_map(params);
    if (ret->params == NULL && ret->method == HP_METHOD_NONE && ret->type == HP_RPC_NOTIFY &&
        hp_wire_type(params) == HP_WIRE_ARRAY) {
        /* Not ours to judge: general clients have notifications of their own (Neovim sends one,
         * with two parameters, when it is sent one that it does not know). */
        ret->params = &hp_wire_empty_map;
    }
    if (ret->params == NULL) {
        return bad(reterr, "params is not an array of exactly one map.");
    }
    return HP_OK;
}

static enum hp_err parse_failure(const struct hp_wire_obj *error, struct hp_rpc_failure *ret,
                                 struct hp_error *reterr)
{
    if (hp_wire_type(error) == HP_WIRE_STR) {
        hp_rpc_split_error(hp_wire_str(error), ret);
        return HP_OK;
    }
    if (hp_wire_type(error) != HP_WIRE_MAP) {
        return bad(reterr, "The error of a response is neither nil, a string nor a map.");
    }
    for (uint32_t i = 0; i < hp_wire_count(error); i++) {
        const struct hp_wire_obj *key = hp_wire_key(error, i);
        const struct hp_wire_obj *value = hp_wire_value(error, i);

        if (hp_wire_type(key) != HP_WIRE_STR) {
            return bad(reterr, "The error map of a response has a key that is no string.");
        }
        if (hp_str_eq_c(hp_wire_str(key), "code") && hp_wire_type(value) == HP_WIRE_STR) {
            ret->word = hp_wire_str(value);
        } else if (hp_str_eq_c(hp_wire_str(key), "text") && hp_wire_type(value) == HP_WIRE_STR) {
            ret->text = hp_wire_str(value);
        } else if (hp_str_eq_c(hp_wire_str(key), "retry_after_ms") &&
                   hp_wire_type(value) == HP_WIRE_U64) {
            ret->retry_after_ms = hp_wire_u64(value);
        }
    }
    ret->code = hp_rpc_error_find(ret->word);
    return HP_OK;
}

static enum hp_err parse_response(const struct hp_wire_obj *error, const struct hp_wire_obj *result,
                                  struct hp_rpc *ret, struct hp_error *reterr)
{
    ret->result = &hp_wire_empty_map;
    if (hp_wire_type(error) != HP_WIRE_NIL) {
        ret->failed = true;
        return parse_failure(error, &ret->failure, reterr);
    }
    if (hp_wire_type(result) == HP_WIRE_MAP) {
        ret->result = result;
    } else if (hp_wire_type(result) != HP_WIRE_NIL) {
        return bad(reterr, "The result of a response is neither a map nor nil.");
    }
    return HP_OK;
}

enum hp_err hp_rpc_parse(const struct hp_wire_obj *frame, struct hp_rpc *ret,
                         struct hp_error *reterr)
{
    const struct hp_wire_obj *type;
    const struct hp_wire_obj *msgid;
    uint32_t count;

    memset(ret, 0, sizeof(*ret));
    if (hp_wire_type(frame) != HP_WIRE_ARRAY || hp_wire_count(frame) < 3) {
        return bad(reterr, "The frame is not an array of three or four elements.");
    }
    count = hp_wire_count(frame);
    type = hp_wire_item(frame, 0);
    if (hp_wire_type(type) != HP_WIRE_U64 || hp_wire_u64(type) > HP_RPC_NOTIFY) {
        return bad(reterr, "The frame's type is not 0, 1 or 2.");
    }
    ret->type = (enum hp_rpc_type)hp_wire_u64(type);
    if (count != (ret->type == HP_RPC_NOTIFY ? 3u : 4u)) {
        return bad(reterr, "The frame has the wrong number of elements for its type.");
    }
    if (ret->type == HP_RPC_NOTIFY) {
        return parse_call(hp_wire_item(frame, 1), hp_wire_item(frame, 2), ret, reterr);
    }
    msgid = hp_wire_item(frame, 1);
    if (hp_wire_type(msgid) != HP_WIRE_U64 || hp_wire_u64(msgid) > UINT32_MAX) {
        return bad(reterr, "The message id is not an unsigned integer of 32 bits.");
    }
    ret->msgid = (uint32_t)hp_wire_u64(msgid);
    ret->msgid_known = true;
    if (ret->type == HP_RPC_REQUEST) {
        return parse_call(hp_wire_item(frame, 2), hp_wire_item(frame, 3), ret, reterr);
    }
    return parse_response(hp_wire_item(frame, 2), hp_wire_item(frame, 3), ret, reterr);
}

enum hp_err hp_rpc_read(struct hp_wire *wire, const uint8_t *data, size_t size, struct hp_rpc *ret,
                        struct hp_error *reterr)
{
    const struct hp_wire_obj *frame;
    enum hp_err err = hp_wire_unpack(wire, data, size, &frame, reterr);

    if (err != HP_OK) {
        memset(ret, 0, sizeof(*ret));
        return err;
    }
    return hp_rpc_parse(frame, ret, reterr);
}

/* ------------------------------------------------------------------------------------- writing */

static enum hp_err put_head(struct hp_buf *buf, uint32_t count, enum hp_rpc_type type)
{
    enum hp_err err = hp_wire_put_array(buf, count);

    return err != HP_OK ? err : hp_wire_put_u64(buf, (uint64_t)type);
}

/* The method and the header of the params array; the map follows. */
static enum hp_err put_method(struct hp_buf *buf, enum hp_method method)
{
    const struct hp_method_info *info = hp_method_info(method);
    enum hp_err err;

    HP_ASSERT(info->params != NULL);
    err = hp_wire_put_cstr(buf, info->name);
    return err != HP_OK ? err : hp_wire_put_array(buf, 1);
}

enum hp_err hp_rpc_put_request(struct hp_buf *buf, uint32_t msgid, enum hp_method method)
{
    enum hp_err err = put_head(buf, 4, HP_RPC_REQUEST);

    if (err == HP_OK) {
        err = hp_wire_put_u64(buf, msgid);
    }
    return err != HP_OK ? err : put_method(buf, method);
}

enum hp_err hp_rpc_put_notify(struct hp_buf *buf, enum hp_method method)
{
    enum hp_err err = put_head(buf, 3, HP_RPC_NOTIFY);

    return err != HP_OK ? err : put_method(buf, method);
}

enum hp_err hp_rpc_put_reply(struct hp_buf *buf, uint32_t msgid)
{
    enum hp_err err = put_head(buf, 4, HP_RPC_RESPONSE);

    if (err == HP_OK) {
        err = hp_wire_put_u64(buf, msgid);
    }
    return err != HP_OK ? err : hp_wire_put_nil(buf);
}

static enum hp_err put_error_map(struct hp_buf *buf, const char *word, struct hp_str text,
                                 uint64_t retry_after_ms)
{
    enum hp_err err = hp_wire_put_map(buf, retry_after_ms != 0 ? 3 : 2);

    if (err == HP_OK) {
        err = hp_wire_put_str(buf, HP_STR("code"));
    }
    if (err == HP_OK) {
        err = hp_wire_put_cstr(buf, word);
    }
    if (err == HP_OK) {
        err = hp_wire_put_str(buf, HP_STR("text"));
    }
    if (err == HP_OK) {
        err = hp_wire_put_str(buf, text);
    }
    if (err == HP_OK && retry_after_ms != 0) {
        err = hp_wire_put_str(buf, HP_STR("retry_after_ms"));
    }
    if (err == HP_OK && retry_after_ms != 0) {
        err = hp_wire_put_u64(buf, retry_after_ms);
    }
    return err;
}

static enum hp_err put_error_text(struct hp_buf *buf, const char *word, struct hp_str text,
                                  uint64_t retry_after_ms)
{
    char line[HP_RPC_ERROR_TEXT_BYTES + 128];
    int size = snprintf(line, sizeof(line), "%s: %" HP_STR_FMT, word, HP_STR_ARG(text));

    HP_ASSERT(size > 0 && (size_t)size < sizeof(line));
    if (retry_after_ms != 0) {
        int more = snprintf(line + size, sizeof(line) - (size_t)size,
                            " (retry after %" PRIu64 " ms)", retry_after_ms);

        HP_ASSERT(more > 0 && (size_t)more < sizeof(line) - (size_t)size);
        size += more;
    }
    return hp_wire_put_str(buf, hp_str_make(line, (size_t)size));
}

enum hp_err hp_rpc_put_error(struct hp_buf *buf, uint32_t msgid, enum hp_rpc_error_code code,
                             struct hp_str text, bool as_map, uint64_t retry_after_ms)
{
    const char *word = hp_rpc_error_name(code);
    size_t before = buf->size;
    char clean[HP_RPC_ERROR_TEXT_BYTES];
    struct hp_str safe = {.data = clean};
    enum hp_err err;

    HP_ASSERT(code != HP_RPC_ERROR_NONE);
    safe.size = hp_wire_str_clean(text, clean, sizeof(clean));
    err = put_head(buf, 4, HP_RPC_RESPONSE);
    if (err == HP_OK) {
        err = hp_wire_put_u64(buf, msgid);
    }
    if (err == HP_OK) {
        err = as_map ? put_error_map(buf, word, safe, retry_after_ms)
                     : put_error_text(buf, word, safe, retry_after_ms);
    }
    if (err == HP_OK) {
        err = hp_wire_put_nil(buf);
    }
    if (err != HP_OK) {
        hp_buf_truncate(buf, before);
    }
    return err;
}

/* Take " (retry after N ms)" off the end of a text. */
static void split_retry(struct hp_rpc_failure *failure)
{
    static const char head[] = " (retry after ";
    static const char tail[] = " ms)";
    const size_t head_size = sizeof(head) - 1;
    const size_t tail_size = sizeof(tail) - 1;
    struct hp_str text = failure->text;
    uint64_t value = 0;
    size_t end;
    size_t at;

    if (text.size < head_size + 1 + tail_size ||
        memcmp(text.data + text.size - tail_size, tail, tail_size) != 0) {
        return;
    }
    end = text.size - tail_size;
    for (at = end; at > 0 && text.data[at - 1] >= '0' && text.data[at - 1] <= '9'; at--) {
    }
    if (at == end || end - at > 18 || at < head_size ||
        memcmp(text.data + at - head_size, head, head_size) != 0) {
        return;
    }
    for (size_t i = at; i < end; i++) {
        value = value * 10 + (uint64_t)(text.data[i] - '0');
    }
    failure->retry_after_ms = value;
    failure->text.size = (uint32_t)(at - head_size);
}

void hp_rpc_split_error(struct hp_str error, struct hp_rpc_failure *ret)
{
    uint32_t size = 0;

    memset(ret, 0, sizeof(*ret));
    ret->text = error;
    while (size < error.size &&
           ((error.data[size] >= 'a' && error.data[size] <= 'z') || error.data[size] == '_')) {
        size++;
    }
    if (size == 0 || size == error.size || error.data[size] != ':') {
        return;
    }
    ret->word = (struct hp_str){.data = error.data, .size = size};
    ret->code = hp_rpc_error_find(ret->word);
    size++;
    if (size < error.size && error.data[size] == ' ') {
        size++;
    }
    ret->text = (struct hp_str){.data = error.data + size, .size = error.size - size};
    split_retry(ret);
}

enum hp_rpc_error_code hp_rpc_error_of(enum hp_err err)
{
    switch (err) {
    case HP_OK:
        return HP_RPC_ERROR_NONE;
    case HP_ERR_INVALID:
    case HP_ERR_RANGE:
    case HP_ERR_PROTOCOL:
        return HP_RPC_ERROR_BAD_REQUEST;
    case HP_ERR_NOT_FOUND:
        return HP_RPC_ERROR_NOT_FOUND;
    case HP_ERR_EXISTS:
        return HP_RPC_ERROR_CONFLICT;
    case HP_ERR_DENIED:
        return HP_RPC_ERROR_DENIED;
    case HP_ERR_UNSUPPORTED:
        return HP_RPC_ERROR_UNSUPPORTED;
    case HP_ERR_STALE:
        return HP_RPC_ERROR_STALE;
    case HP_ERR_TOO_BIG:
        return HP_RPC_ERROR_TOO_BIG;
    case HP_ERR_CORRUPT:
        return HP_RPC_ERROR_DAMAGED;
    case HP_ERR_NOMEM:
    case HP_ERR_FULL:
    case HP_ERR_AGAIN:
    case HP_ERR_BUSY:
    case HP_ERR_NOSPACE:
        return HP_RPC_ERROR_BUSY;
    case HP_ERR_IO:
    case HP_ERR_TIMEOUT:
    case HP_ERR_CLOSED:
    case HP_ERR_CANCELLED:
    case HP_ERR_COUNT:
        break;
    }
    return HP_RPC_ERROR_INTERNAL;
}
