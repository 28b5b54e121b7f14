/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The broker's blob thread in the simulator. It answers as server/store/blob.c does, in rounds that
 * take time. A crash takes what is half written; what was whole stays, also if nobody heard of it.
 * Files go with their tasks, as retention has it. Nobody is on the broker's host, so nothing is
 * given or lent by descriptor; histories are shorter than the hour after which a blob without a
 * task is swept.
 */
#include <xxhash.h>

#include "common/base/idmap.h"
#include "server/store/mem.h"
#include "tests/sim/broker_state.h"

enum { SLOW = 30, ROUND_MAX = 64 };

struct blob {
    uint64_t id, size, written;
    uint64_t wanted_by, owner; /* tasks, by what is committed; 0: none */
    bool is_whole;
    uint8_t data[];
};

struct request {
    struct request *next;
    enum hp_blob_verb verb;
    uint32_t msgid;
    uint64_t conn, blob, offset, size;
    bool has_digest;
    uint64_t digest;
    uint8_t data[];
};

struct sim_blobs {
    struct hp_idmap map; /* id -> struct blob */
    struct request *first, *last;
    bool busy;
};

struct sim_blobs *sim_blobs_new(void)
{
    struct sim_blobs *blobs = sim_alloc(sizeof(*blobs));
    hp_idmap_init(&blobs->map, 1);
    return blobs;
}

static struct blob *find(const struct sim_blobs *blobs, uint64_t id)
{
    return hp_idmap_find_ptr(&blobs->map, id);
}

static void drop(struct sim_blobs *blobs, struct blob *blob)
{
    (void)hp_idmap_remove(&blobs->map, blob->id, NULL);
    hp_free(blob);
}

/* ------------------------------------------------ what it does */
static void fail(struct hp_event *answer, enum hp_err err, const char *text)
{
    answer->blob.err = err;
    answer->blob.text = text;
}

static void do_open(struct sim_blobs *blobs, const struct request *request)
{
    struct blob *blob = find(blobs, request->blob);
    HP_ASSERT(blob == NULL); /* ids are never given out twice: R3 */
    blob = sim_alloc(sizeof(*blob) + request->size);
    blob->id = request->blob;
    blob->size = request->size;
    HP_ASSERT(hp_idmap_put_ptr(&blobs->map, blob->id, blob) == HP_OK);
}

static void do_put(struct sim_broker *broker, const struct request *request,
                   struct hp_event *answer)
{
    struct sim_blobs *blobs = broker->blobs;
    struct blob *blob = find(blobs, request->blob);
    if (blob == NULL || request->offset + request->size > blob->size) {
        fail(answer, HP_ERR_NOT_FOUND, "no such upload; open the blob anew");
        return;
    }
    if (broker->disk_full && !blob->is_whole) {
        fail(answer, HP_ERR_NOSPACE, "no space");
        drop(blobs, blob);
        return;
    }
    answer->blob.size = blob->written;
    if (request->offset > blob->written) {
        fail(answer, HP_ERR_STALE, "a chunk before this one is missing");
        return;
    }
    if (request->offset == blob->written) {
        memcpy(blob->data + blob->written, request->data, request->size);
        blob->written += request->size;
    }
    answer->blob.size = blob->written;
    blob->is_whole = blob->written == blob->size;
    answer->blob.last = blob->is_whole;
    answer->blob.digest = blob->is_whole ? XXH3_64bits(blob->data, blob->size) : 0;
    SIM_RULE(broker->sim,
             !blob->is_whole || !request->has_digest || answer->blob.digest == request->digest,
             "blob %llu has other bytes than were sent", (unsigned long long)blob->id);
}

static void do_get(const struct sim_blobs *blobs, const struct request *request,
                   struct hp_event *answer)
{
    const struct blob *blob = find(blobs, request->blob);
    if (blob == NULL || !blob->is_whole) {
        fail(answer, HP_ERR_NOT_FOUND, "no such blob");
        return;
    }
    uint64_t from = HP_MIN(request->offset, blob->size);
    answer->blob.size = blob->size;
    answer->blob.digest = XXH3_64bits(blob->data, blob->size);
    answer->blob.data = hp_bin_make(blob->data + from, HP_MIN(request->size, blob->size - from));
}

/* The answer; its data is the blob's. */
static struct hp_event carry_out(struct sim_broker *broker, const struct request *request)
{
    struct hp_event answer = {.conn = request->conn};
    answer.blob.msgid = request->msgid;
    answer.blob.blob = request->blob;
    switch (request->verb) {
    case HP_BLOB_OPEN:
        answer.kind = HP_EVENT_BLOB_OPENED;
        do_open(broker->blobs, request);
        break;
    case HP_BLOB_PUT:
        answer.kind = HP_EVENT_BLOB_PUT;
        do_put(broker, request, &answer);
        break;
    case HP_BLOB_GET:
        answer.kind = HP_EVENT_BLOB_GOT;
        do_get(broker->blobs, request, &answer);
        break;
    case HP_BLOB_GIVE:
    case HP_BLOB_LEND:
    case HP_BLOB_DROP:
        sim_fail(broker->sim, "the core wants descriptors of nobody");
    }
    return answer;
}

/* ------------------------------------------------ the thread */
static void work(struct sim_broker *broker);

static void round_ends(struct sim *sim, void *context, uint64_t generation, uint64_t count)
{
    struct sim_broker *broker = context;
    struct sim_blobs *blobs = broker->blobs;
    (void)sim;
    if (generation != broker->generation) {
        return;
    }
    for (uint64_t i = 0; i < count; i++) {
        struct request *request = blobs->first;
        blobs->first = request->next;
        struct hp_event answer = carry_out(broker, request);
        sim_broker_tell_blob(broker, &answer);
        hp_free(request);
    }
    blobs->busy = false;
    work(broker);
}

static void work(struct sim_broker *broker)
{
    struct sim *sim = broker->sim;
    struct sim_blobs *blobs = broker->blobs;
    if (blobs->busy || blobs->first == NULL) {
        return;
    }
    uint64_t count = 0;
    for (const struct request *at = blobs->first; at != NULL && count < ROUND_MAX; at = at->next) {
        count++;
    }
    enum sim_stream before = sim_enter(sim, SIM_BROKER);
    uint64_t took = broker->blob_stall_us;
    took += sim_pick(sim, 50, sim->plan.commit_us) * (broker->store_slow ? SLOW : 1);
    broker->blob_stall_us = 0;
    blobs->busy = true;
    sim_after(sim, took, round_ends, broker, broker->generation, count);
    sim_enter(sim, before);
}

void sim_blobs_ask(struct sim_broker *broker, const struct hp_effect *effect)
{
    struct sim_blobs *blobs = broker->blobs;
    struct request *request = sim_alloc(sizeof(*request) + effect->blob.data.size);
    request->verb = effect->blob.verb;
    request->msgid = effect->blob.msgid;
    request->conn = effect->conn;
    request->blob = effect->blob.blob;
    request->offset = effect->blob.offset;
    request->size = effect->blob.verb == HP_BLOB_PUT ? effect->blob.data.size : effect->blob.size;
    request->has_digest = effect->blob.has_digest;
    request->digest = effect->blob.digest;
    if (effect->blob.data.size > 0) {
        memcpy(request->data, effect->blob.data.data, effect->blob.data.size);
    }
    if (blobs->first == NULL) {
        blobs->first = request;
    } else {
        blobs->last->next = request;
    }
    blobs->last = request;
    work(broker);
}

/* ------------------------------------------------ the disk */
struct hp_bin sim_blobs_bytes(const struct sim_broker *broker, uint64_t id)
{
    const struct blob *blob = find(broker->blobs, id);
    return blob != NULL && blob->is_whole ? hp_bin_make(blob->data, blob->size)
                                          : (struct hp_bin){0};
}

static struct blob *whole(struct sim_broker *broker, uint64_t id, uint64_t task)
{
    struct blob *blob = find(broker->blobs, id);
    SIM_RULE(broker->sim, blob != NULL && blob->is_whole,
             "blob %llu is task %llu's, and was not whole on the disk before",
             (unsigned long long)id, (unsigned long long)task);
    return blob;
}

void sim_blobs_want(struct sim_broker *broker, uint64_t id, uint64_t task)
{
    whole(broker, id, task)->wanted_by = task;
}

void sim_blobs_tie(struct sim_broker *broker, uint64_t id, uint64_t owner)
{
    whole(broker, id, owner)->owner = owner;
    broker->sim->figures.blobs++;
}

static void drop_which(struct sim_broker *broker,
                       bool (*is_gone)(const struct sim_broker *, const struct blob *))
{
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    struct blob *gone[ROUND_MAX];
    uint32_t count = 0;
    while (count < ROUND_MAX && hp_idmap_next(&broker->blobs->map, &iter, NULL, &value)) {
        struct blob *blob = (struct blob *)(uintptr_t)value;
        if (is_gone(broker, blob)) {
            gone[count++] = blob;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        drop(broker->blobs, gone[i]);
    }
    if (count == ROUND_MAX) {
        drop_which(broker, is_gone);
    }
}

static bool is_forgotten(const struct sim_broker *broker, const struct blob *blob)
{
    const struct hp_mem *mem = HP_CONTAINER_OF(broker->store, const struct hp_mem, base);
    return blob->owner != 0 && hp_mem_find(&mem->blobs, blob->id) == NULL;
}

void sim_blobs_committed(struct sim_broker *broker)
{
    struct hp_idmap_iter iter = {0};
    uint64_t value = 0;
    while (hp_idmap_next(&broker->blobs->map, &iter, NULL, &value)) {
        const struct blob *blob = (const struct blob *)(uintptr_t)value;
        SIM_RULE(broker->sim, blob->wanted_by == 0 || blob->owner == blob->wanted_by,
                 "task %llu has blob %llu, whose file is task %llu's",
                 (unsigned long long)blob->wanted_by, (unsigned long long)blob->id,
                 (unsigned long long)blob->owner);
    }
    drop_which(broker, is_forgotten);
}

static bool is_half(const struct sim_broker *broker, const struct blob *blob)
{
    (void)broker;
    return !blob->is_whole;
}

void sim_blobs_crash(struct sim_broker *broker)
{
    struct sim_blobs *blobs = broker->blobs;
    bool goes_on = blobs->busy && sim_percent(broker->sim, 50); /* nobody hears of it */
    for (uint32_t i = 0; blobs->first != NULL; i++) {
        struct request *request = blobs->first;
        blobs->first = request->next;
        if (goes_on && i < ROUND_MAX) {
            (void)carry_out(broker, request);
        }
        hp_free(request);
    }
    blobs->busy = false;
    broker->blob_stall_us = 0;
    drop_which(broker, is_half);
}

static bool is_any(const struct sim_broker *broker, const struct blob *blob)
{
    return broker != NULL && blob != NULL;
}

void sim_blobs_free(struct sim_broker *broker)
{
    sim_blobs_crash(broker);
    drop_which(broker, is_any);
    hp_idmap_deinit(&broker->blobs->map);
    hp_free(broker->blobs);
}
