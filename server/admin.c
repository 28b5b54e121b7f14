/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Text admin: what a person with netcat can ask on the broker's port. Read-only, and words for
 * eyes, not for programs: those use the protocol.
 */
#include "common/base/str.h"
#include "common/sys/clock.h"
#include "server/server_impl.h"

static void put_shell_status(const struct hp_server *server, struct hp_buf *out)
{
    struct hp_store_thread_figures store = {0};
    struct hp_turn_figures turn = {0};
    hp_store_thread_figures(server->thread, &store);
    hp_turn_figures(server->turn, &turn);
    char wal[HP_FORMAT_BYTES];
    char db[HP_FORMAT_BYTES];
    char disk[HP_FORMAT_BYTES];
    /* Out of memory cuts the answer, which a person sees. */
    (void)!hp_buf_append_format(
        out,
        "connections %u, refused %llu; longest turn %llu us; held commits %llu; sends waiting for "
        "a commit %llu\n",
        hp_listener_conn_count(server->listener),
        (unsigned long long)hp_listener_refused_count(server->listener),
        (unsigned long long)turn.turn_us_max, (unsigned long long)turn.held,
        (unsigned long long)turn.frames_waiting);
    (void)!hp_buf_append_format(
        out,
        "store: %llu commits of %llu changes, longest %llu us, last %llu us; waiting %llu; log %s, "
        "database %s; disk free %s (%u %%)%s\n",
        (unsigned long long)store.commits, (unsigned long long)store.ops,
        (unsigned long long)store.commit_us_max, (unsigned long long)store.commit_us_last,
        (unsigned long long)store.queued_ops,
        hp_format_size_human(wal, sizeof(wal), store.store.wal_bytes),
        hp_format_size_human(db, sizeof(db), store.store.db_bytes),
        hp_format_size_human(disk, sizeof(disk), store.disk_free_bytes), store.disk_free_percent,
        store.store.pressure ? "; DISK WAS FULL" : "");
    const char *warning = hp_server_warning_(&server->config);
    if (warning != NULL) {
        (void)!hp_buf_append_format(out, "warning: %s\n", warning);
    }
}

bool hp_server_on_text_(void *context, struct hp_str line, struct hp_buf *out)
{
    const struct hp_server *server = context;
    if (hp_str_eq_c(line, "status")) {
        hp_core_text_status(server->core, out);
        put_shell_status(server, out);
    } else if (hp_str_eq_c(line, "workers")) {
        hp_core_text_workers(server->core, out);
    } else if (hp_str_eq_c(line, "queues")) {
        hp_core_text_queues(server->core, out);
    } else if (hp_str_eq_c(line, "ping")) {
        (void)!hp_buf_append_text(out, "pong\n"); /* as above */
    } else if (hp_str_eq_c(line, "help")) {
        (void)!hp_buf_append_text(out, "commands: status workers queues ping help quit; from other "
                                       "hosts: auth TOKEN first\n");
    } else {
        return false;
    }
    return true;
}
