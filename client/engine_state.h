/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of the engine share: its state, and the functions between them. Nothing outside
 * client/ includes this.
 *
 * Submits: `submits` is the list of all messages not acknowledged, oldest first. Those before
 * `unsent` were sent on this connection, the others were not.
 * I1: numbers ascend along the list; a message without a number (0) is only followed by such.
 * I2: next_number is one more than the highest number given out; the broker gets them without gaps.
 * I3: a message without a number was certainly not applied by the broker.
 */
#ifndef HP_CLIENT_ENGINE_STATE_H
#define HP_CLIENT_ENGINE_STATE_H

#include "client/call.h"
#include "client/engine.h"
#include "client/near.h"
#include "client/track.h"
#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/idmap.h"
#include "common/base/list.h"
#include "common/base/rand.h"
#include "proto/hp_msg.h"
#include "proto/rpc.h"
#include "proto/tokenizer.h"
#include "proto/wire.h"

/* Output is composed as long as less than this waits to be sent. */
#define HP_ENGINE_OUT_BYTES (1u << 20)
/* Limit of the output buffer; one frame above the former at most. */
#define HP_ENGINE_OUT_BYTES_MAX (8u << 20)
/* A submit message is closed at this size, so that it surely stays under the frame limit. */
#define HP_SUBMIT_BODY_BYTES (768u << 10)
/* Single-task calls that share a message: small enough for workers to begin early. */
#define HP_SUBMIT_SHARE_TASKS 4096u
#define HP_ENGINE_TEXT_BYTES 512

enum hp_engine_phase {
    HP_PHASE_IDLE,       /* no transport; the next attempt is at retry_at_ms */
    HP_PHASE_CONNECTING, /* the shell connects */
    HP_PHASE_HELLO,      /* hello is sent or being sent */
    HP_PHASE_OPEN,
};

/* What a msgid stands for. */
enum hp_pending_kind { HP_PENDING_SUBMIT_REPLY, HP_PENDING_CALL_REPLY };

/* First member of what waits for a reply. */
struct hp_pending_reply {
    enum hp_pending_kind kind;
    uint32_t msgid; /* 0: not sent on this connection */
};

/* One submit message. */
struct hp_message {
    struct hp_pending_reply pending;
    struct hp_list link;
    uint64_t number;     /* 0: none yet */
    struct hp_buf body;  /* the pairs of params behind number and acked_up_to, encoded */
    uint32_t pair_count; /* in body */
    uint32_t count;      /* tasks */
    bool follow;         /* the broker was asked for its tasks' output */
    bool lasting;        /* its tasks are kept on disk */
    bool payloads;       /* body holds an open or closed list of payloads */
    bool closed;         /* takes no more tasks */
    bool replayed;       /* sent on an earlier connection: ends of its tasks may be missed */
    bool staged;         /* its payload is a blob at the broker, */
    bool aged;           /* on an earlier connection: a broker that restarted may lack it */
    uint32_t misorder_count;
    size_t list_mark;
    struct hp_piece *pieces;
    uint32_t piece_count;
    uint32_t piece_capacity;
};

/* A payload on its way to become a blob, and then a task. See stage.c. */
struct hp_stage;

struct hp_call {
    struct hp_pending_reply pending;
    struct hp_list link;
    uint64_t request;
    enum hp_method method;
    struct hp_buf params; /* encoded map */
    hp_call_done done;
    void *context;
    void *user;
    bool internal;   /* dropped when the connection is lost, not repeated */
    bool notify;     /* gone once it is composed */
    hp_call_put put; /* not NULL: instead of params */
};

/* Followed commands that are followed again after a reconnect, at most. */
#define HP_FOLLOWED_MAX 64u
struct hp_followed {
    uint64_t id;
    uint32_t attempt;
    uint64_t next_offset[2]; /* stdout, stderr: bytes delivered */
};

enum hp_item_kind { HP_ITEM_EVENT, HP_ITEM_SUBMITTED, HP_ITEM_TASKS };

/* Something in the queue of events: one event, or a message that becomes many when it is read. */
struct hp_item {
    struct hp_list link;
    enum hp_item_kind kind;
    size_t size; /* what it counts against event_bytes */
    struct hp_arena arena;
    struct hp_event event; /* EVENT: all of it; SUBMITTED: the base */
    /* SUBMITTED */
    struct hp_piece *pieces; /* in the arena */
    uint32_t piece_count;
    uint32_t index;      /* next of pieces, or of tasks */
    uint32_t call_index; /* next call of the piece */
    /* TASKS: a frame with task_status entries */
    struct hp_buf frame;
    struct hp_wire *wire;
    const struct hp_wire_obj *tasks;
};

struct hp_engine {
    struct hp_engine_config config; /* strings owned */
    uint8_t session[HP_SESSION_BYTES];
    struct hp_rand rand;
    uint64_t now_ms;

    enum hp_engine_phase phase;
    uint64_t phase_until_ms; /* CONNECTING, HELLO: give up then */
    uint64_t retry_at_ms;    /* IDLE */
    uint32_t retry_count;
    bool close_wanted;
    enum hp_status close_status;
    char close_text[HP_ENGINE_TEXT_BYTES];
    enum hp_status trouble;
    char trouble_text[HP_ENGINE_TEXT_BYTES];
    char error_text[HP_ENGINE_TEXT_BYTES];
    char busy_text[HP_ENGINE_TEXT_BYTES]; /* why submits wait; "": they do not */
    char server[HP_LIMIT_NAME_BYTES + 1];
    uint64_t received_at_ms;
    bool ping_sent;
    bool expecting; /* at the last step something was expected from the broker */

    struct hp_buf in;
    struct hp_buf out;
    struct hp_tok tok;
    struct hp_wire *wire;
    struct hp_arena arena; /* of the frame being handled */
    uint32_t next_msgid;
    struct hp_idmap replies; /* msgid -> struct hp_pending_reply */

    uint64_t next_request;
    struct hp_list submits;
    struct hp_list *unsent;  /* first not sent on this connection; &submits: all were sent */
    struct hp_message *open; /* takes more tasks; the last of submits, or NULL */
    uint32_t submit_count;
    size_t submit_bytes; /* of bodies */
    size_t stage_bytes;
    uint32_t stage_count;
    uint64_t submit_tasks; /* tracked tasks in submits and stages */
    struct hp_list stages;
    bool near_give;         /* of this connection: large content may be given by descriptor */
    uint32_t give_refusals; /* in a row */
    uint32_t stage_files;   /* open, of what is given */
    bool near_take;
    uint8_t near_key[HP_CLIENT_NEAR_KEY_BYTES];
    uint32_t stage_chunks; /* blob.put calls not answered */
    uint64_t next_number;
    uint64_t applied_number; /* highest number known to be applied */
    uint64_t durable_number; /* the same, of submits that the broker keeps on disk */
    bool has_volatile;       /* there were submits that it does not */
    uint64_t hold_until_ms;  /* the broker was busy: no submits before */
    uint64_t early_number;   /* submits up to this one may have missed events */
    uint64_t id_max;         /* highest id acknowledged */

    /* Options of the open message, to know whether the next submit may share it. */
    struct hp_options shared;
    struct hp_arena shared_arena;
    struct hp_buf shared_encoded;
    bool shared_valid;

    struct hp_list calls; /* all */
    struct hp_list *calls_unsent;
    uint32_t call_count;

    struct hp_list fetches;
    uint32_t fetch_chunks; /* blob.get calls not answered */
    size_t fetch_bytes;    /* of the buffers of fetches */

    struct hp_track track;
    bool check_active;
    bool check_waits; /* for the answer to its task.get */
    bool check_full; /* ask for tasks that have not ended too: the broker may have forgotten them */
    uint32_t watch_count; /* task.wait calls for single tasks */
    uint64_t check_from;
    uint64_t check_until;
    uint64_t poll_at_ms; /* HP_ENGINE_NEVER, or when to check again: no events come for old tasks */

    struct hp_followed followed[HP_FOLLOWED_MAX];
    uint32_t followed_count;

    struct hp_list items;
    size_t item_bytes;
    struct hp_item *spare;   /* a TASKS item to use again */
    struct hp_arena scratch; /* of the event handed out */
    struct hp_task task;
    struct hp_end end;
};

/* engine.c */
void hp_engine_fail(struct hp_engine *engine, enum hp_status status, const char *format, ...)
    HP_PRINTF(3, 4);
enum hp_status hp_engine_error_set(struct hp_engine *engine, enum hp_status status,
                                   const char *format, ...) HP_PRINTF(3, 4);
uint32_t hp_engine_msgid(struct hp_engine *engine, struct hp_pending_reply *pending);

/* submit.c */
/* Is what is asked for possible at all? Not OK: *ret_text (static) says why. */
enum hp_status hp_submit_check(const struct hp_engine_submit *submit, const char **ret_text);
void hp_submit_lost(struct hp_engine *engine); /* the connection is gone */
/* hello was answered; false: the broker has forgotten the session. */
bool hp_submit_resume(struct hp_engine *engine, uint64_t last_number);
void hp_submit_session_lost(struct hp_engine *engine);
void hp_submit_reply(struct hp_engine *engine, struct hp_message *message,
                     const struct hp_reply *reply);
void hp_submit_flush(struct hp_engine *engine);   /* the open message takes no more */
bool hp_submit_compose(struct hp_engine *engine); /* one message to out; false: nothing to do */
bool hp_submit_is_ready(const struct hp_engine *engine);
void hp_submit_clear(struct hp_engine *engine);
/* Whether the broker keeps them on its disk: of a pool that is not durable, it keeps the pool. */
bool hp_submit_is_lasting(const struct hp_options *options);
struct hp_message *hp_submit_message_new(struct hp_engine *engine, struct hp_bin options,
                                         bool lasting);
enum hp_err hp_submit_add_piece(struct hp_message *message, const struct hp_piece *piece);
/* Room for more pieces. */
enum hp_err hp_submit_piece_room(struct hp_message *message, uint32_t more);
void hp_submit_fail_piece(struct hp_engine *engine, const struct hp_piece *piece,
                          enum hp_status status, const char *text);
void hp_submit_message_free(struct hp_engine *engine, struct hp_message *message);
enum hp_err hp_submit_put_payload(struct hp_message *message, struct hp_bin payload);

/* Takes events and does nothing. */
extern struct hp_sink hp_sink_none;

/* stage.c */
/* The payload is `parts` in a row, `size` bytes. */
enum hp_status hp_stage_add(struct hp_engine *engine, const struct hp_engine_submit *submit,
                            const struct hp_bytes *parts, uint32_t part_count,
                            const struct hp_piece *piece);
void hp_stage_step(struct hp_engine *engine);
/* When hp_stage_step has something to do, or HP_ENGINE_NEVER. */
uint64_t hp_stage_deadline_ms(const struct hp_engine *engine);
void hp_stage_lost(struct hp_engine *engine);
void hp_stage_clear(struct hp_engine *engine);
/* Drops stages of a request, or of a sink; true: none of them was on its way to be a task. */
bool hp_stage_forget(struct hp_engine *engine, uint64_t request, const struct hp_sink *sink);

/* fetch.c, besides fetch.h */
void hp_fetch_step(struct hp_engine *engine);
/* When hp_fetch_step has something to do, or HP_ENGINE_NEVER. */
uint64_t hp_fetch_deadline_ms(const struct hp_engine *engine);
void hp_fetch_lost(struct hp_engine *engine);
void hp_fetch_clear(struct hp_engine *engine);

/* call.c, besides call.h */
void hp_call_reply(struct hp_engine *engine, struct hp_call *call, const struct hp_reply *reply);
bool hp_call_compose(struct hp_engine *engine);
void hp_call_lost(struct hp_engine *engine);
void hp_call_clear(struct hp_engine *engine);

/* check.c */
void hp_check_step(struct hp_engine *engine);
void hp_check_lost(struct hp_engine *engine);
enum hp_err hp_check_watch(struct hp_engine *engine, uint64_t id);

/* follow.c */
void hp_follow_resume(struct hp_engine *engine);
void hp_follow_output(struct hp_engine *engine, const struct hp_wire_obj *params);

/* event.c */
/* An entry of a TASKS item; bytes are lent by its frame, the rest is in the arena. On an error the
 * engine's text is set. */
enum hp_err hp_event_read_task(struct hp_engine *engine, const struct hp_wire_obj *obj,
                               struct hp_arena *arena, struct hp_task *ret, struct hp_end *ret_end);
/* A task has ended that nobody waits for: perhaps nobody knows yet that it is ours. */
void hp_event_note_early(struct hp_engine *engine, uint64_t id);
/* NULL: out of memory. */
struct hp_item *hp_item_new(struct hp_engine *engine, enum hp_event_kind kind);
void hp_item_free(struct hp_engine *engine, struct hp_item *item);
void hp_item_queue(struct hp_engine *engine, struct hp_item *item, size_t size);
/* A whole frame with a list of task_status: of task.event, or of a reply. */
enum hp_status hp_item_queue_tasks(struct hp_engine *engine, struct hp_bin frame);
void hp_item_clear(struct hp_engine *engine);
enum hp_err hp_item_simple(struct hp_engine *engine, enum hp_event_kind kind, enum hp_status status,
                           const char *text);

/* A status for a wire error, and for an hp_err. */
enum hp_status hp_status_of_rpc(enum hp_rpc_error_code code);
enum hp_status hp_status_of_err(enum hp_err err);

#endif
