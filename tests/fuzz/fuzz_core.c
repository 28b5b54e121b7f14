/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: the broker's core with hostile clients and workers. The input is a list of steps:
 * time that passes, commits and loads of the store (in memory), answers of the blob thread,
 * connections that come and go, a crash; and frames, either bytes as they are or grown by the
 * definition. The core's own checks hold after each turn; whatever a peer says, the core refuses it
 * or closes.
 */
#include "tests/fuzz/grow.h"
#include "tests/lib/core_rig.h"

#include "tests/fuzz/fuzz.h"

#define CONNS 4u /* a client with a session, a worker, a client without, one without hello */
#define STEPS_MAX 80u
#define FRAME_BYTES_MAX (1u << 20)

struct fuzz {
    struct rig *rig;
    struct grow in;
    struct hp_buf frame;
    bool open[CONNS];
    uint32_t blobs_done; /* of rig->blobs: answered */
};

/* What the blob thread says about one of rig->blobs; `byte` chooses how it went. */
static void say_of_blob(struct fuzz *fuzz, const struct rig_blob *asked, uint8_t byte)
{
    static const enum hp_event_kind kinds[] = {
        [HP_BLOB_OPEN] = HP_EVENT_BLOB_OPENED, [HP_BLOB_PUT] = HP_EVENT_BLOB_PUT,
        [HP_BLOB_GET] = HP_EVENT_BLOB_GOT,     [HP_BLOB_GIVE] = HP_EVENT_BLOB_GIVEN,
        [HP_BLOB_LEND] = HP_EVENT_BLOB_LENT,
    };
    static const enum hp_err errors[] = {HP_OK,          HP_OK,     HP_OK,         HP_ERR_NOT_FOUND,
                                         HP_ERR_NOSPACE, HP_ERR_IO, HP_ERR_CORRUPT};
    if (asked->verb == HP_BLOB_DROP) {
        return;
    }
    struct hp_event event = {.kind = kinds[asked->verb], .conn = asked->conn};
    event.blob.msgid = asked->msgid;
    event.blob.blob = asked->blob;
    event.blob.err = errors[byte % HP_COUNT_OF(errors)];
    event.blob.size = asked->size;
    event.blob.last = byte >= 128;
    event.blob.data = hp_bin_make("content", 7);
    rig_begin(fuzz->rig);
    hp_core_step(fuzz->rig->core, &event);
    rig_end(fuzz->rig);
}

static void answer_blob(struct fuzz *fuzz)
{
    uint8_t byte = grow_byte(&fuzz->in);
    if (fuzz->blobs_done < fuzz->rig->blob_count) {
        say_of_blob(fuzz, &fuzz->rig->blobs[fuzz->blobs_done++], byte);
    } else {
        fuzz->blobs_done = fuzz->rig->blob_count = 0;
    }
}

/* Its number is used again here, so the answers to what it asked come before that. */
static void disconnect(struct fuzz *fuzz, uint32_t i)
{
    rig_begin(fuzz->rig);
    rig_disconnect(fuzz->rig, i + 1);
    rig_end(fuzz->rig);
    rig_settle(fuzz->rig);
    fuzz->open[i] = false;
    for (uint32_t k = fuzz->blobs_done; k < fuzz->rig->blob_count; k++) {
        if (fuzz->rig->blobs[k].conn == i + 1) {
            say_of_blob(fuzz, &fuzz->rig->blobs[k], (uint8_t)k);
            fuzz->rig->blobs[k].verb = HP_BLOB_DROP;
        }
    }
}

static void close_those_closed(struct fuzz *fuzz)
{
    for (uint32_t i = 0; i < CONNS; i++) {
        if (fuzz->rig->closed[i] && fuzz->open[i]) {
            disconnect(fuzz, i);
        }
        fuzz->rig->closed[i] = false;
        hp_buf_clear(&fuzz->rig->out[i]); /* nobody reads it here */
    }
}

/* Says hello, and registers a worker; that may be refused, by then. */
static void greet(struct fuzz *fuzz, uint32_t i)
{
    static struct hp_str functions[] = {HP_STR_INIT("f")};
    struct rig *rig = fuzz->rig;
    struct hp_msg_hello hello = {.client = HP_STR("fuzz"), .version = 1};
    struct hp_msg_worker_register registers = {.has = HP_HAS_WORKER_REGISTER_FUNCTIONS |
                                                      HP_HAS_WORKER_REGISTER_COMMANDS,
                                               .host = HP_STR("host"),
                                               .pid = 1,
                                               .slots = 3,
                                               .functions = {.items = functions, .count = 1},
                                               .commands = true};
    if (i == 0) {
        hello.has = HP_HAS_HELLO_SESSION | HP_HAS_HELLO_EVENTS;
        hello.session = hp_bin_make("0123456789abcdef", 16);
        hello.events = true;
    } else if (i == 1) {
        hello.has = HP_HAS_HELLO_NODE | HP_HAS_HELLO_BOOT;
        hello.node = HP_STR("node");
        hello.boot = hp_bin_make("abcdef0123456789", 16);
    }
    (void)RIG_CALL(rig, i + 1, HELLO, hello, &hello);
    if (i == 1) {
        (void)RIG_CALL(rig, i + 1, WORKER_REGISTER, worker_register, &registers);
    }
}

static void open_conn(struct fuzz *fuzz, uint32_t i)
{
    if (fuzz->open[i]) {
        disconnect(fuzz, i);
    }
    fuzz->open[i] = true;
    rig_begin(fuzz->rig);
    rig_connect(fuzz->rig, i + 1);
    if (i < 3) {
        greet(fuzz, i);
    }
    rig_end(fuzz->rig);
    rig_settle(fuzz->rig);
}

/* As peers.c: the core sees whole frames that passed the tokenizer, of open connections. */
static void give_frame(struct fuzz *fuzz, uint32_t i, const uint8_t *data, size_t size)
{
    struct hp_tok tok;
    size_t used = 0;
    const char *why = NULL;
    hp_tok_init(&tok, i == 3 ? &hp_tok_limits_prehello : &hp_tok_limits_open);
    if (!fuzz->open[i] || hp_tok_scan(&tok, data, size, &used, &why) != HP_TOK_DONE) {
        return;
    }
    rig_begin(fuzz->rig);
    rig_frame(fuzz->rig, i + 1, data, used);
    rig_end(fuzz->rig);
}

static void raw_frame(struct fuzz *fuzz, uint32_t i)
{
    struct grow *in = &fuzz->in;
    size_t size = (size_t)grow_byte(in) << 8;
    size |= grow_byte(in);
    size = HP_MIN(size, in->size - in->at);
    give_frame(fuzz, i, in->data + in->at, size);
    in->at += size;
}

static void grown_frame(struct fuzz *fuzz, uint32_t i)
{
    hp_buf_clear(&fuzz->frame);
    grow_call(&fuzz->frame, &fuzz->in, fuzz->rig->next_msgid++);
    give_frame(fuzz, i, fuzz->frame.data, fuzz->frame.size);
}

static void crash(struct fuzz *fuzz)
{
    rig_crash(fuzz->rig);
    fuzz->blobs_done = fuzz->rig->blob_count = 0;
    memset(fuzz->open, 0, sizeof(fuzz->open));
    for (uint32_t i = 0; i < CONNS; i++) {
        open_conn(fuzz, i);
    }
}

static void step(struct fuzz *fuzz)
{
    static const uint64_t passes[] = {1, 100, 3000, 15000, 40000, 3700000};
    uint8_t op = grow_byte(&fuzz->in);
    uint32_t i = op / 16 % CONNS;
    switch (op % 16) {
    case 0:
        rig_pass(fuzz->rig, passes[op / 16 % HP_COUNT_OF(passes)]);
        break;
    case 1:
        (void)rig_job(fuzz->rig);
        break;
    case 2:
        rig_settle(fuzz->rig);
        break;
    case 3:
        open_conn(fuzz, i);
        break;
    case 4:
    case 5:
        answer_blob(fuzz);
        break;
    case 6:
        if (i == 0) {
            crash(fuzz);
        }
        break;
    case 7:
    case 8:
        raw_frame(fuzz, i);
        break;
    default:
        grown_frame(fuzz, i);
        break;
    }
    close_those_closed(fuzz);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz fuzz = {.rig = rig_new(NULL), .in = {.data = data, .size = size}};
    struct hp_st_task_options options = rig_function();
    hp_buf_init(&fuzz.frame, FRAME_BYTES_MAX);
    for (uint32_t i = 0; i < CONNS; i++) {
        open_conn(&fuzz, i);
    }
    rig_begin(fuzz.rig);
    (void)rig_submit(fuzz.rig, 1, 1, &options, 5); /* some run, some wait */
    rig_end(fuzz.rig);
    rig_settle(fuzz.rig);
    for (uint32_t n = 0; n < STEPS_MAX && grow_has_more(&fuzz.in); n++) {
        step(&fuzz);
    }
    hp_buf_deinit(&fuzz.frame);
    rig_free(fuzz.rig);
    return 0;
}
