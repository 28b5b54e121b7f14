/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading whole blobs, several at a time, several chunks of each in flight, straight into the
 * buffer that is handed over at the end. Reading goes on after a reconnect by itself.
 */
#ifndef HP_CLIENT_FETCH_H
#define HP_CLIENT_FETCH_H

#include "client/engine.h"

struct hp_fetch;

/*
 * The end of a fetch: OK and the bytes (owned by the callee: hp_buffer_clear), with a NUL behind
 * them; or NOT_FOUND, DAMAGED (digest), PROTOCOL, NO_MEMORY ... and an empty buffer. text is "" or
 * the broker's. Called from inside feed or step; it must not submit, call or take events.
 */
typedef void (*hp_fetch_done)(void *context, enum hp_status status, const char *text,
                              struct hp_buffer *buffer);

/* Begins to read a blob. NULL: out of memory. */
struct hp_fetch *hp_fetch_begin(struct hp_engine *engine, uint64_t blob, hp_fetch_done done,
                                void *context);
/* Ends it without a word; not after done. */
void hp_fetch_abandon(struct hp_fetch *fetch);

#endif
