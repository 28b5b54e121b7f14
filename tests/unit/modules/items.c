/* SPDX-License-Identifier: BSD-2-Clause */
/* Functions that look at how they are called for each item of a task. */
#include "worker/sdk/hostpool_worker.h"

#include <string.h>

/* Item, and whether the payload lies as promised: "3 ok:payload". */
HP_FUNCTION_AS(where, "items.where")
{
    char *room = hp_result_room(call, 5 + call->arg_size);
    if (room == NULL) {
        return hp_fail(call, "no room");
    }
    room[0] = (char)('0' + call->item % 10);
    memcpy(room + 1, (uintptr_t)call->arg % 8 == 0 ? " ok:" : " no:", 4);
    if (call->arg_size > 0) {
        memcpy(room + 5, call->arg, call->arg_size);
    }
    return 0;
}

/* A result that lies in the room which was asked for first, and then nothing of that is left. */
HP_FUNCTION_AS(again, "items.again")
{
    char *room = hp_result_room(call, 200000);
    if (room == NULL) {
        return hp_fail(call, "no room");
    }
    memset(room, 'x', 200000);
    memcpy(room + 1000, call->arg, call->arg_size);
    return hp_result_bytes(call, room + 1000, call->arg_size);
}

/* As large as the number says; NULL for its room is not taken for a failure here. */
HP_FUNCTION_AS(grow, "items.grow")
{
    int64_t size = 0;
    if (hp_arg_i64(call, 0, &size) != 0) {
        return hp_retry(call, 40);
    }
    char *room = hp_result_room(call, (size_t)size);
    if (room != NULL) {
        memset(room, 'g', (size_t)size);
    }
    return 0;
}

/* Fails with more words than are kept. */
HP_FUNCTION_AS(words, "items.words")
{
    char text[5000];
    memset(text, 't', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    return hp_fail(call, text);
}
