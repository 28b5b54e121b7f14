/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Forgetting submits: their events are not wanted any more. What was never sent is dropped, what
 * may have reached the broker stays until it is acknowledged, silent: its number must not be lost.
 */
#include <string.h>

#include "client/engine_state.h"
#include "common/base/mem.h"

static struct hp_message *message_of(struct hp_list *link)
{
    return HP_LIST_ENTRY(link, struct hp_message, link);
}

/* What is forgotten: a request, or, if sink is set, all that goes to it. */
struct what {
    uint64_t request;
    const struct hp_sink *sink;
};

static bool piece_is(const struct hp_piece *piece, const struct what *what)
{
    if (what->sink != NULL) {
        return piece->sink == what->sink;
    }
    return piece->single
               ? what->request >= piece->request && what->request - piece->request < piece->count
               : what->request == piece->request;
}

/* Cuts one call out of a piece of many, so that it can be silenced alone. */
static enum hp_err piece_split(struct hp_message *message, uint32_t i, uint32_t at)
{
    struct hp_piece *piece;

    if (at == 0 || at >= message->pieces[i].count) {
        return HP_OK;
    }
    if (hp_submit_piece_room(message, 1) != HP_OK) {
        return HP_ERR_NOMEM;
    }
    piece = &message->pieces[i];
    memmove(piece + 1, piece, (message->piece_count - i) * sizeof(*piece));
    message->piece_count++;
    piece[0].count = at;
    piece[1].request += at;
    piece[1].offset += at;
    piece[1].count -= at;
    return HP_OK;
}

static void message_split(struct hp_message *message, const struct what *what)
{
    for (uint32_t i = 0; i < message->piece_count; i++) {
        struct hp_piece *piece = &message->pieces[i];

        if (what->sink == NULL && piece->single && piece->count > 1 && piece_is(piece, what)) {
            uint32_t at = (uint32_t)(what->request - piece->request);

            /* Without memory the piece stays whole: its events still come, which does no harm. */
            if (piece_split(message, i, at + 1) == HP_OK) {
                (void)piece_split(message, i, at);
            }
            return;
        }
    }
}

/* Silences pieces; true if nothing else is in the message. */
static bool message_forget(struct hp_engine *engine, struct hp_message *message,
                           const struct what *what, bool *ret_found)
{
    bool alone = true;

    *ret_found = false;
    message_split(message, what);
    for (uint32_t i = 0; i < message->piece_count; i++) {
        struct hp_piece *piece = &message->pieces[i];

        if (!piece_is(piece, what) || (what->sink == NULL && piece->single && piece->count > 1)) {
            alone = false;
            continue;
        }
        *ret_found = true;
        engine->submit_tasks -= piece->untracked ? 0 : piece->count;
        piece->untracked = true;
        piece->sink = &hp_sink_none;
    }
    return alone;
}

static void sink_nothing(struct hp_sink *sink, const struct hp_event *event)
{
    (void)sink;
    (void)event;
}

struct hp_sink hp_sink_none = {.take = sink_nothing};

static bool forget(struct hp_engine *engine, const struct what *what)
{
    struct hp_list *link = engine->submits.next;
    bool sent = true; /* those before `unsent` */
    bool dropped = true;

    while (link != &engine->submits) {
        struct hp_message *message = message_of(link);
        bool found;
        bool alone;

        sent = sent && link != engine->unsent;
        link = link->next;
        alone = message_forget(engine, message, what, &found);
        if (found && alone && !sent && message->number == 0) {
            hp_submit_message_free(engine, message); /* I3 */
        } else if (found) {
            dropped = false;
        }
    }
    return dropped;
}

void hp_engine_forget(struct hp_engine *engine, uint64_t request, bool *ret_dropped)
{
    struct what what = {.request = request};
    bool dropped = hp_stage_forget(engine, request, NULL);

    dropped = forget(engine, &what) && dropped;
    hp_track_forget(&engine->track, request, NULL);
    if (ret_dropped != NULL) {
        *ret_dropped = dropped;
    }
}

void hp_engine_forget_sink(struct hp_engine *engine, const struct hp_sink *sink, bool *ret_dropped)
{
    struct what what = {.sink = sink};
    bool dropped = hp_stage_forget(engine, 0, sink);

    dropped = forget(engine, &what) && dropped;
    hp_track_forget(&engine->track, 0, sink);
    if (ret_dropped != NULL) {
        *ret_dropped = dropped;
    }
}
