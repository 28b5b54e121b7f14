/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * MessagePack-RPC frames: [0, id, method, [params]], [1, id, error, result], [2, method, [params]].
 *
 * params is an array of exactly one map. Where it holds nothing ([], [nil], [[]]) the empty map is
 * meant: several clients cannot send an empty map. error is a string "code: text", or a map
 * {code, text, retry_after_ms} for peers that asked for it in hello.
 *
 * Pure.
 */
#ifndef HP_PROTO_RPC_H
#define HP_PROTO_RPC_H

#include "common/base/bin.h"
#include "common/base/buf.h"
#include "common/base/err.h"
#include "proto/hp_msg.h"
#include "proto/wire.h"

#include <stdbool.h>
#include <stdint.h>

enum hp_rpc_type {
    HP_RPC_REQUEST = 0,
    HP_RPC_RESPONSE = 1,
    HP_RPC_NOTIFY = 2,
};

/* An error as it travels. */
struct hp_rpc_failure {
    enum hp_rpc_error_code code; /* HP_RPC_ERROR_NONE: no error, or a word this version lacks */
    struct hp_str word;          /* the code as sent: "not_found" */
    struct hp_str text;          /* the sentence, for people */
    uint64_t retry_after_ms;     /* 0: none given */
};

/* One parsed frame. Strings and objects are borrowed from the frame and from the hp_wire. */
struct hp_rpc {
    enum hp_rpc_type type;
    uint32_t msgid;        /* request, response */
    bool msgid_known;      /* also after an error: a request may be answered before the close */
    enum hp_method method; /* request, notify; HP_METHOD_NONE: unknown, see method_name */
    struct hp_str method_name;
    const struct hp_wire_obj *params; /* request, notify: a map */
    bool failed;                      /* response: `failure` is set, else `result` is */
    struct hp_rpc_failure failure;
    const struct hp_wire_obj *result; /* response: a map (an empty one for nil) */
};

/*
 * Look at an unpacked frame. HP_ERR_PROTOCOL with a sentence if it is no MessagePack-RPC as above;
 * *ret then tells at least whether the frame was a request with an id (type, msgid, msgid_known).
 * An unknown method is no error here.
 */
enum hp_err hp_rpc_parse(const struct hp_wire_obj *frame, struct hp_rpc *ret,
                         struct hp_error *reterr) HP_MUST_CHECK;

/* Unpack and parse in one step; `data` is one frame that hp_tok_scan() found. */
enum hp_err hp_rpc_read(struct hp_wire *wire, const uint8_t *data, size_t size, struct hp_rpc *ret,
                        struct hp_error *reterr) HP_MUST_CHECK;

/*
 * Begin a frame; the caller then puts exactly one map (an hp_msg_..._encode function, or
 * hp_wire_put_map(buf, 0)). Errors as hp_wire_put_nil.
 */
enum hp_err hp_rpc_put_request(struct hp_buf *buf, uint32_t msgid,
                               enum hp_method method) HP_MUST_CHECK;
enum hp_err hp_rpc_put_notify(struct hp_buf *buf, enum hp_method method) HP_MUST_CHECK;
enum hp_err hp_rpc_put_reply(struct hp_buf *buf, uint32_t msgid) HP_MUST_CHECK;

/*
 * A whole error reply. `text` is cleaned (hp_wire_str_clean) and cut to HP_RPC_ERROR_TEXT_BYTES.
 * `as_map`: the peer's hello had error_maps. `retry_after_ms` 0: left out; a string carries it at
 * the end of the text as " (retry after N ms)".
 */
#define HP_RPC_ERROR_TEXT_BYTES 1024u
enum hp_err hp_rpc_put_error(struct hp_buf *buf, uint32_t msgid, enum hp_rpc_error_code code,
                             struct hp_str text, bool as_map,
                             uint64_t retry_after_ms) HP_MUST_CHECK;

/* Split "code: text". Without a colon after one word the whole string is the text. */
void hp_rpc_split_error(struct hp_str error, struct hp_rpc_failure *ret);

/* The error that a failed decode or parse is answered with: hp_error's code as a wire code. */
enum hp_rpc_error_code hp_rpc_error_of(enum hp_err err);

#endif
