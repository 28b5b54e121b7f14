/* SPDX-License-Identifier: BSD-2-Clause */
/* The blocking call that lists pools. */
#include "client/shell.h"
#include "client/view.h"
#include "common/base/mem.h"

#define PARAMS_BYTES (64u << 10)

struct owned_list {
    struct hp_arena arena;
    struct hp_pool_list list;
};

void hp_pool_list_free(struct hp_pool_list *list)
{
    if (list != NULL) {
        struct owned_list *owned = HP_CONTAINER_OF(list, struct owned_list, list);

        hp_arena_deinit(&owned->arena);
        hp_free(owned);
    }
}

static enum hp_err fill_entry(const struct hp_st_pool_entry *from, struct hp_arena *arena,
                              struct hp_pool_entry *ret)
{
    enum hp_err err;

    *ret = (struct hp_pool_entry){.id = from->pool,
                                  .phase = (enum hp_pool_phase)from->state,
                                  .processes = from->processes,
                                  .children = from->children,
                                  .live = from->live,
                                  .running = from->running,
                                  .detached = from->detached,
                                  .owned = from->owned,
                                  .created_at_ms = from->created_at_ms};
    err = hp_view_str(from->name, arena, &ret->name);
    err = err == HP_OK ? hp_view_str(from->user, arena, &ret->user) : err;
    err = err == HP_OK ? hp_view_str(from->language, arena, &ret->language) : err;
    return err == HP_OK ? hp_view_str(from->error, arena, &ret->error) : err;
}

static enum hp_err fill_list(const struct hp_msg_pool_list_reply *from, struct hp_arena *arena,
                             struct hp_pool_list *ret)
{
    enum hp_err err = HP_OK;

    ret->next = from->next;
    ret->count = from->pools.count;
    ret->pools = HP_ARENA_NEW_ARRAY(arena, struct hp_pool_entry, ret->count);
    if (ret->pools == NULL) {
        return HP_ERR_NOMEM;
    }
    for (size_t i = 0; err == HP_OK && i < ret->count; i++) {
        err = fill_entry(&from->pools.items[i], arena, &ret->pools[i]);
    }
    return err;
}

static enum hp_status decode_list(void *context, const struct hp_reply *reply)
{
    struct owned_list *owned = hp_calloc(1, sizeof(*owned));
    struct hp_msg_pool_list_reply message;
    enum hp_err err;

    if (owned == NULL) {
        return HP_STATUS_NO_MEMORY;
    }
    hp_arena_init(&owned->arena, 1024, SIZE_MAX / 8);
    err = hp_msg_pool_list_reply_decode(reply->result, &owned->arena, &message, NULL);
    err = err == HP_OK ? fill_list(&message, &owned->arena, &owned->list) : err;
    if (err != HP_OK) {
        hp_pool_list_free(&owned->list);
        return err == HP_ERR_NOMEM ? HP_STATUS_NO_MEMORY : HP_STATUS_PROTOCOL;
    }
    *(struct hp_pool_list **)context = &owned->list;
    return HP_STATUS_OK;
}

enum hp_status hp_pool_list(struct hp_client *client, uint64_t after, int64_t timeout_ms,
                            struct hp_pool_list **ret_list)
{
    struct hp_pool_list *list = NULL;
    struct hp_msg_pool_list message;
    struct hp_buf params;
    enum hp_status status;

    hp_msg_pool_list_init(&message);
    message.after = after;
    message.has = HP_HAS_POOL_LIST_AFTER;
    hp_buf_init(&params, PARAMS_BYTES);
    status = hp_client_call(client, HP_METHOD_POOL_LIST, hp_msg_pool_list_encode(&params, &message),
                            &params, hp_client_deadline_ms(client, timeout_ms), decode_list, &list);
    if (status == HP_STATUS_OK) {
        *ret_list = list;
    }
    return status;
}
