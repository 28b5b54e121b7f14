/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One request to a core on its bench and its whole answer, for any method. Include hp_test.h and
 * core_rig.h first.
 */
#ifndef HP_TESTS_UNIT_CORE_ASK_H
#define HP_TESTS_UNIT_CORE_ASK_H

#include <stdio.h>

#include "proto/codec.h"

/* Of the last refusal. */
static struct {
    enum hp_rpc_error_code code;
    char text[512];
} refused;

/* Waits for the answer to `msgid`; false: it is a refusal, see `refused`. */
RIG_UNUSED bool rig_answer(struct rig *rig, uint64_t conn, uint32_t msgid,
                           const struct hp_codec_desc *desc, void *reply)
{
    struct hp_rpc rpc;
    struct hp_error error;
    rig_settle(rig);
    while (rig_next(rig, conn, &rpc)) {
        if (rpc.type != HP_RPC_RESPONSE || rpc.msgid != msgid) {
            continue;
        }
        if (rpc.failed) {
            refused.code = rpc.failure.code;
            (void)snprintf(refused.text, sizeof(refused.text), "%.*s",
                           HP_STR_ARG(rpc.failure.text));
            return false;
        }
        if (reply != NULL) {
            assert_ok(hp_codec_decode(desc, rpc.result, &rig->arena, reply, &error));
        }
        return true;
    }
    fail_msg("no answer to %u", msgid);
    return false;
}

/* Asks in a turn of its own; reply may be NULL: only whether it was refused matters. */
RIG_UNUSED bool rig_ask(struct rig *rig, uint64_t conn, enum hp_method method, const void *msg,
                        void *reply)
{
    const struct hp_method_info *info = hp_method_info(method);
    rig_begin(rig);
    uint32_t msgid = rig_call(rig, conn, method, info->params, msg);
    rig_end(rig);
    return rig_answer(rig, conn, msgid, info->reply, reply);
}

/* Expects the refusal `expected`. */
#define assert_refused(expression, expected)                                                       \
    do {                                                                                           \
        assert_false(expression);                                                                  \
        assert_int_equal(refused.code, HP_RPC_ERROR_##expected);                                   \
    } while (0)

#endif
