/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: the client's engine with a hostile broker. The input is a list of steps: time that
 * passes, a transport that breaks and comes back, submits, what is forgotten, events that are
 * taken; and frames, either bytes as they are, or grown by the definition: answers to what the
 * engine asked, and notifications. A wrong frame ends the connection; nothing may come of it but an
 * error.
 */
#include "tests/fuzz/grow.h"

#include "client/engine.h"
#include "common/base/arena.h"
#include "proto/hp_msg.h"
#include "proto/tokenizer.h"

#include "tests/fuzz/fuzz.h"

#define STEPS_MAX 120u
#define ASKED_MAX 32u
#define EVENTS_MAX 64u
#define FRAME_BYTES_MAX (1u << 20)

struct fuzz {
    struct hp_engine *engine;
    struct hp_wire *wire;
    struct grow in;
    struct hp_buf frame;
    uint64_t now_ms;
    bool is_up;
    uint64_t request; /* latest submit */
    /* What the engine asked and nobody answered. */
    struct {
        uint32_t msgid;
        enum hp_method method;
    } asked[ASKED_MAX];
    uint32_t asked_count;
};

static void lose(struct fuzz *fuzz)
{
    if (fuzz->is_up) {
        hp_engine_closed(fuzz->engine, HP_STATUS_UNREACHABLE, "lost", fuzz->now_ms);
    }
    fuzz->is_up = false;
    fuzz->asked_count = 0;
}

static void feed(struct fuzz *fuzz, const void *data, size_t size)
{
    enum hp_status status = HP_STATUS_OK;
    const char *text = NULL;
    if (!fuzz->is_up || size == 0) {
        return;
    }
    enum hp_status said = hp_engine_feed(fuzz->engine, data, size, fuzz->now_ms);
    bool must_close = hp_engine_wants_close(fuzz->engine, &status, &text);
    HP_ASSERT(said == HP_STATUS_OK || must_close);
    if (must_close) {
        HP_ASSERT(status != HP_STATUS_OK && text != NULL);
        lose(fuzz);
    }
}

/* Notes the calls of what it sends; of a frame that is not whole yet, nothing is taken. */
static void take_output(struct fuzz *fuzz)
{
    struct hp_bytes out = hp_engine_output(fuzz->engine);
    while (fuzz->is_up && out.size > 0) {
        struct hp_tok tok;
        struct hp_rpc rpc;
        size_t size = 0;
        const char *why = NULL;
        hp_tok_init(&tok, &hp_tok_limits_open);
        if (hp_tok_scan(&tok, out.data, out.size, &size, &why) != HP_TOK_DONE) {
            return;
        }
        assert_ok(hp_rpc_read(fuzz->wire, out.data, size, &rpc, NULL));
        if (rpc.type == HP_RPC_REQUEST && fuzz->asked_count < ASKED_MAX) {
            fuzz->asked[fuzz->asked_count].msgid = rpc.msgid;
            fuzz->asked[fuzz->asked_count++].method = rpc.method;
        }
        hp_engine_sent(fuzz->engine, size);
        out = hp_engine_output(fuzz->engine);
    }
}

/* Connects, and answers hello as it should be, so that what comes then is looked at. */
static void connect_it(struct fuzz *fuzz, bool answers)
{
    hp_engine_step(fuzz->engine, fuzz->now_ms);
    if (fuzz->is_up || !hp_engine_wants_connect(fuzz->engine)) {
        return;
    }
    hp_engine_connecting(fuzz->engine, fuzz->now_ms);
    hp_engine_opened(fuzz->engine, fuzz->now_ms);
    fuzz->is_up = true;
    take_output(fuzz);
    if (answers && fuzz->asked_count > 0) {
        struct hp_msg_hello_reply reply;
        hp_msg_hello_reply_init(&reply);
        reply.server = HP_STR("fuzz");
        reply.version = 1;
        reply.epoch = 1;
        hp_buf_clear(&fuzz->frame);
        assert_ok(hp_rpc_put_reply(&fuzz->frame, fuzz->asked[0].msgid));
        assert_ok(hp_msg_hello_reply_encode(&fuzz->frame, &reply));
        fuzz->asked_count = 0;
        feed(fuzz, fuzz->frame.data, fuzz->frame.size);
        take_output(fuzz);
    }
}

static void submit(struct fuzz *fuzz, uint8_t how)
{
    static const struct hp_bytes payloads[] = {{"one", 3}, {"", 0}, {"three", 5}};
    struct hp_options options;
    hp_options_init(&options);
    options.fn = "f";
    options.durable = how % 3 != 0;
    struct hp_engine_submit what = {.options = &options, .count = 1 + how % 3};
    what.payloads = how % 2 == 0 ? payloads : NULL;
    what.untracked = how % 5 == 4;
    if (hp_engine_has_room(fuzz->engine)) {
        (void)hp_engine_submit(fuzz->engine, &what, &fuzz->request);
    }
}

static void take_events(struct fuzz *fuzz)
{
    struct hp_event event;
    for (uint32_t i = 0; i < EVENTS_MAX && hp_engine_next_event(fuzz->engine, &event); i++) {
        HP_ASSERT(event.kind != 0);
    }
}

static void raw_frame(struct fuzz *fuzz)
{
    struct grow *in = &fuzz->in;
    size_t size = (size_t)grow_byte(in) << 8;
    size |= grow_byte(in);
    size = HP_MIN(size, in->size - in->at);
    feed(fuzz, in->data + in->at, size);
    in->at += size;
}

/* An answer to one of its calls, in the form that this call's answer has, or an error. */
static void answer(struct fuzz *fuzz)
{
    struct grow *in = &fuzz->in;
    uint8_t which = grow_byte(in);
    if (fuzz->asked_count == 0) {
        return;
    }
    uint32_t i = which % fuzz->asked_count;
    const struct hp_method_info *info = hp_method_info(fuzz->asked[i].method);
    hp_buf_clear(&fuzz->frame);
    if (which >= 224) {
        assert_ok(hp_rpc_put_error(&fuzz->frame, fuzz->asked[i].msgid,
                                   (enum hp_rpc_error_code)(1 + which % 8), HP_STR("no"), true, 3));
    } else {
        assert_ok(hp_rpc_put_reply(&fuzz->frame, fuzz->asked[i].msgid));
        grow_map(&fuzz->frame, in, info->reply, 0);
    }
    fuzz->asked[i] = fuzz->asked[--fuzz->asked_count];
    feed(fuzz, fuzz->frame.data, fuzz->frame.size);
}

static void notify(struct fuzz *fuzz)
{
    hp_buf_clear(&fuzz->frame);
    grow_call(&fuzz->frame, &fuzz->in, 7);
    feed(fuzz, fuzz->frame.data, fuzz->frame.size);
}

static void step(struct fuzz *fuzz)
{
    static const uint64_t passes[] = {1, 100, 5000, 70000};
    uint8_t op = grow_byte(&fuzz->in);
    bool dropped = false;
    switch (op % 16) {
    case 0:
        fuzz->now_ms += passes[op / 16 % HP_COUNT_OF(passes)];
        break;
    case 1:
        lose(fuzz);
        break;
    case 2:
        connect_it(fuzz, op < 200);
        break;
    case 3:
    case 4:
        submit(fuzz, op / 16);
        break;
    case 5:
        take_events(fuzz);
        break;
    case 6:
        hp_engine_forget(fuzz->engine, fuzz->request, &dropped);
        break;
    case 7:
        raw_frame(fuzz);
        break;
    case 8:
    case 9:
        notify(fuzz);
        break;
    default:
        answer(fuzz);
        break;
    }
    hp_engine_step(fuzz->engine, fuzz->now_ms);
    take_output(fuzz);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hp_engine_config config = {.name = "fuzz",
                                      .seed = 7,
                                      .connect_timeout_ms = 5000,
                                      .retry_base_ms = 100,
                                      .retry_cap_ms = 5000,
                                      .window_submits = 16,
                                      .window_bytes = 1u << 20,
                                      .event_bytes = 1u << 20,
                                      .events = true};
    memset(config.session, 's', sizeof(config.session));
    struct fuzz fuzz = {.in = {.data = data, .size = size}, .now_ms = 1000};
    fuzz.engine = hp_engine_new(&config, fuzz.now_ms);
    fuzz.wire = hp_wire_new();
    assert_true(fuzz.engine != NULL && fuzz.wire != NULL);
    hp_buf_init(&fuzz.frame, FRAME_BYTES_MAX);
    connect_it(&fuzz, true);
    submit(&fuzz, 1);
    submit(&fuzz, 2);
    take_output(&fuzz);
    for (uint32_t n = 0; n < STEPS_MAX && grow_has_more(&fuzz.in); n++) {
        step(&fuzz);
    }
    hp_engine_free(fuzz.engine);
    hp_wire_free(fuzz.wire);
    hp_buf_deinit(&fuzz.frame);
    return 0;
}
