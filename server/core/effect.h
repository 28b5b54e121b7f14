/* SPDX-License-Identifier: BSD-2-Clause */
/* What the core wants done. Filled during a turn, taken by the shell at its end. */
#ifndef HP_SERVER_CORE_EFFECT_H
#define HP_SERVER_CORE_EFFECT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/bin.h"
#include "common/base/buf.h"
#include "server/core/op.h"

enum hp_effect_kind {
    HP_EFFECT_SEND = 1, /* bytes to a connection, now or when a batch is durable */
    HP_EFFECT_CLOSE,    /* close a connection after what was sent, for a reason to be logged */
    HP_EFFECT_LOAD,     /* ask the store; answered by HP_EVENT_LOADED */
    HP_EFFECT_BLOB,     /* ask the blob thread; answered by HP_EVENT_BLOB_* */
    HP_EFFECT_TRACE,    /* one line for the log */
};

enum hp_blob_verb {
    HP_BLOB_OPEN = 1,
    HP_BLOB_PUT,
    HP_BLOB_GET,
    HP_BLOB_GIVE, /* a whole blob, from a descriptor of the peer */
    HP_BLOB_LEND, /* a whole blob, by a descriptor of the broker */
    HP_BLOB_DROP, /* what GIVE kept is not needed any more; not answered */
};
enum hp_trace_level { HP_TRACE_DEBUG, HP_TRACE_INFO, HP_TRACE_WARN, HP_TRACE_ERROR };

#define HP_CONN_KEY_BYTES 16u

/* A descriptor of a process, and the file that it must be. */
struct hp_blob_place {
    uint32_t pid;
    uint32_t fd;
    uint64_t device;
    uint64_t inode;
};

/* What a peer gives: sealed memory that ends with the key of its connection. */
struct hp_blob_gift {
    struct hp_blob_place place;
    uint8_t key[HP_CONN_KEY_BYTES];
    bool is_kept; /* in memory, until DROP; else it becomes a file */
};

struct hp_effect {
    enum hp_effect_kind kind;
    uint64_t conn;
    union {
        struct {
            struct hp_buf bytes;   /* owned by the effect: the shell takes and frees it */
            uint64_t after_commit; /* 0: now; else when every batch up to it is durable */
            bool may_wait;         /* nobody waits for it: it may go with what is sent next */
        } send;
        struct {
            const char *reason; /* in the effects' arena */
        } close;
        struct hp_load *load; /* owned: the store's answer takes it */
        struct {
            enum hp_blob_verb verb;
            uint32_t msgid;
            uint64_t blob;
            uint64_t offset;
            uint64_t size;      /* OPEN, GIVE: of the whole; GET: at most */
            struct hp_bin data; /* PUT: borrowed until the effects are cleared */
            bool has_digest;
            uint64_t digest;
            const struct hp_blob_gift *gift; /* GIVE: in the effects' arena */
        } blob;
        struct {
            enum hp_trace_level level;
            const char *event; /* static name, listed in docs/operations.md */
            const char *text;  /* key=value ..., in the effects' arena */
        } trace;
    };
};

/* The bounded list of one turn. */
struct hp_effects {
    struct hp_effect *items;
    uint32_t count;
    uint32_t capacity;
    struct hp_arena arena;
};

void hp_effects_init(struct hp_effects *effects);
void hp_effects_deinit(struct hp_effects *effects);
/* Drops all: frees what was not taken (send.bytes, load); a taker zeroes what it took. */
void hp_effects_clear(struct hp_effects *effects);
struct hp_effect *hp_effects_add(struct hp_effects *effects, enum hp_effect_kind kind);

#endif
