/* SPDX-License-Identifier: BSD-2-Clause */
/* What happens to the core: the events a turn feeds it. Everything is borrowed for the step. */
#ifndef HP_SERVER_CORE_EVENT_H
#define HP_SERVER_CORE_EVENT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/bin.h"
#include "server/core/effect.h"
#include "server/core/op.h"

enum hp_event_kind {
    HP_EVENT_CONN_OPENED = 1,
    HP_EVENT_CONN_CLOSED,
    HP_EVENT_CONN_LEVEL,  /* its output buffer went over, or back under, its cap */
    HP_EVENT_FRAME,       /* one whole frame that passed the tokenizer */
    HP_EVENT_COMMITTED,   /* every batch up to `number` is durable */
    HP_EVENT_LOADED,      /* answer to a load */
    HP_EVENT_BLOB_OPENED, /* answers of the blob thread, see effect.h */
    HP_EVENT_BLOB_PUT,
    HP_EVENT_BLOB_GOT,
    HP_EVENT_BLOB_GIVEN,
    HP_EVENT_BLOB_LENT,
    HP_EVENT_PRESSURE, /* the disk is nearly full (submits are refused), or no more */
    HP_EVENT_DRAIN,    /* the broker is to stop: refuse new work, announce a longer lease */
};

struct hp_event {
    enum hp_event_kind kind;
    uint64_t conn; /* CONN_*, FRAME, BLOB_*: connection id, never reused in a process */
    union {
        struct {
            const char *peer; /* address text for logs */
            bool loopback;
            const uint8_t
                *key; /* HP_CONN_KEY_BYTES random ones, for blob.give; NULL: no such way */
        } opened;
        struct {
            bool over;
        } level;
        struct hp_bin frame;
        uint64_t number;                /* COMMITTED */
        const struct hp_loaded *loaded; /* LOADED */
        struct {
            uint32_t msgid;
            uint64_t blob;
            enum hp_err err;
            const char *text; /* with err */
            uint64_t size;    /* PUT: written so far; GOT, LENT: of the blob */
            uint64_t digest;  /* GOT; LENT: with has_digest */
            bool has_digest;
            struct hp_blob_place place; /* LENT */
            struct hp_bin data;         /* GOT */
            bool last;                  /* PUT: the blob is whole and durable */
        } blob;
        struct {
            bool disk_low;
        } pressure;
        struct {
            uint64_t grace_ms;
        } drain;
    };
};

#endif
