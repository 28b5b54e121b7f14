/* SPDX-License-Identifier: BSD-2-Clause */
/* Output that nobody waits for: it leaves in company. */
#include "common/net/conn_impl.h"
#include "common/net/loop_impl.h"

void hp_conn_send_later(struct hp_conn *conn, struct hp_buf *bytes)
{
    bool was_dirty = hp_list_is_linked(&conn->dirty);
    hp_conn_send_take(conn, bytes);
    if (!was_dirty && !conn->fatal && conn->state != CONN_CLOSED) {
        hp_list_remove(&conn->dirty);
        if (!hp_list_is_linked(&conn->later)) {
            hp_list_push_back(&conn->loop->later, &conn->later);
        }
    }
}

bool hp_loop_has_later(const struct hp_loop *loop)
{
    return !hp_list_is_empty(&loop->later);
}

void hp_loop_touch_later(struct hp_loop *loop)
{
    struct hp_list *node = NULL;
    while ((node = hp_list_pop_front(&loop->later)) != NULL) {
        hp_conn_output_touch(HP_LIST_ENTRY(node, struct hp_conn, later));
    }
}
