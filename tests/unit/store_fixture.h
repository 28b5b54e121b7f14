/* SPDX-License-Identifier: BSD-2-Clause */
/* Shared by the store's tests: a data directory, op shorthands, and answers printed as text. */
#ifndef HP_TESTS_STORE_FIXTURE_H
#define HP_TESTS_STORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the above first */
#include <cmocka.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/mem.h"
#include "server/core/op.h"
#include "server/store/store.h"

/* How long an answer may take before it ends early. A test either reads on, or wants it whole. */
#ifndef STORE_FIXTURE_ANSWER_US
#define STORE_FIXTURE_ANSWER_US UINT64_C(600000000)
#endif

struct fixture {
    char dir[200]; /* empty: the memory store */
    struct hp_store *store;
    uint64_t batch; /* last number used */
};

static inline int fixture_unlink(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static inline void fixture_remove_dir(const char *dir)
{
    (void)nftw(dir, fixture_unlink, 16, FTW_DEPTH | FTW_PHYS); /* best effort */
}

static inline void fixture_make_dir(char dir[200])
{
    const char *base = getenv("TMPDIR");
    (void)snprintf(dir, 200, "%s/hpstore.XXXXXX", base != NULL ? base : "/tmp");
    assert_non_null(mkdtemp(dir));
}

static inline enum hp_err fixture_open_dir(const char *dir, bool create,
                                           struct hp_store **ret_store, struct hp_error *reterr)
{
    struct hp_store_options options = {.dir = dir,
                                       .create = create,
                                       .wal_bytes = 256 << 10,
                                       .ballast_bytes = 256 << 10,
                                       .reap_restless = true,
                                       .answer_slice_us = STORE_FIXTURE_ANSWER_US};
    return hp_store_sqlite_open(&options, ret_store, reterr);
}

static inline void fixture_open(struct fixture *f, bool sqlite)
{
    memset(f, 0, sizeof(*f));
    if (sqlite) {
        struct hp_error error = {0};
        fixture_make_dir(f->dir);
        enum hp_err err = fixture_open_dir(f->dir, true, &f->store, &error);
        if (err != HP_OK) {
            print_error("%s\n", error.text);
        }
        assert_int_equal(err, HP_OK);
    } else {
        f->store = hp_store_mem_new();
    }
}

static inline void fixture_reopen(struct fixture *f)
{
    if (f->dir[0] == '\0') {
        hp_store_mem_crash(f->store);
        return;
    }
    struct hp_error error = {0};
    hp_store_close(f->store);
    enum hp_err err = fixture_open_dir(f->dir, false, &f->store, &error);
    if (err != HP_OK) {
        print_error("%s\n", error.text);
    }
    assert_int_equal(err, HP_OK);
}

static inline void fixture_close(struct fixture *f)
{
    hp_store_close(f->store);
    if (f->dir[0] != '\0') {
        fixture_remove_dir(f->dir);
    }
}

/* ------------------------------------------------------------------ ops */
static inline struct hp_bin bin_of(const char *text)
{
    return (struct hp_bin){.data = (const uint8_t *)text, .size = (uint32_t)strlen(text)};
}

static inline void add_group(struct hp_batch *batch, uint64_t first, uint32_t count, uint32_t lane,
                             int64_t created_at_ms, const char *options, const char *pack)
{
    struct hp_op *op = hp_batch_add(batch, HP_OP_GROUP);
    op->group.first = first;
    op->group.count = count;
    op->group.lane = lane;
    op->group.created_at_ms = created_at_ms;
    op->group.session = hp_batch_copy(batch, "0123456789abcdef", 16);
    op->group.options = hp_batch_copy(batch, options, strlen(options));
    op->group.pack = hp_batch_copy(batch, pack, strlen(pack));
}

static inline void add_segment(struct hp_batch *batch, uint32_t lane, uint64_t segment,
                               uint64_t first, uint32_t count, int64_t since_ms)
{
    struct hp_id_run run = {.first = first, .count = count, .since_ms = since_ms};
    struct hp_op *op = hp_batch_add(batch, HP_OP_SEGMENT);
    op->segment.lane = lane;
    op->segment.segment = segment;
    op->segment.runs = (const void *)hp_batch_copy(batch, &run, sizeof(run)).data;
    op->segment.run_count = 1;
}

static inline void add_lane(struct hp_batch *batch, uint32_t lane, const char *key, uint64_t head,
                            uint64_t next, uint64_t ready)
{
    struct hp_op *op = hp_batch_add(batch, HP_OP_LANE);
    op->lane.lane = lane;
    op->lane.key = hp_batch_copy(batch, key, strlen(key));
    op->lane.head_segment = head;
    op->lane.next_segment = next;
    op->lane.ready_count = ready;
}

static inline void add_lease(struct hp_batch *batch, uint64_t id, uint64_t group, uint32_t attempt)
{
    struct hp_op *op = hp_batch_add(batch, HP_OP_LEASE);
    op->lease = (struct hp_lease){.id = id,
                                  .epoch = 3,
                                  .group = group,
                                  .attempt = attempt,
                                  .node = 7,
                                  .lane = 1,
                                  .failures = attempt - 1,
                                  .started_at_ms = 1000 + (int64_t)id};
}

static inline struct hp_result *add_result(struct hp_batch *batch, uint64_t first, uint32_t count,
                                           uint32_t state, int64_t expires_at_ms, const char *end)
{
    struct hp_op *op = hp_batch_add(batch, HP_OP_RESULT);
    op->result = (struct hp_result){.first = first,
                                    .count = count,
                                    .state = state,
                                    .reason = state + 1,
                                    .attempt = 1 + (uint32_t)(first % 3),
                                    .node = 7,
                                    .started_at_ms = 5000 + (int64_t)first,
                                    .ended_at_ms = 6000 + (int64_t)first * 2,
                                    .expires_at_ms = expires_at_ms};
    op->result.end = hp_batch_copy(batch, end, strlen(end));
    return &op->result;
}

static inline void add_side(struct hp_batch *batch, enum hp_side_kind kind, uint64_t first,
                            uint32_t count, int64_t run_at_ms)
{
    struct hp_op *op = hp_batch_add(batch, HP_OP_SIDE);
    op->side = (struct hp_side){.first = first,
                                .count = count,
                                .kind = kind,
                                .lane = 1,
                                .run_at_ms = run_at_ms,
                                .attempt = 2,
                                .failures = 1,
                                .reason = 4,
                                .grace_ms = 123};
}

static inline void add_side_del(struct hp_batch *batch, uint64_t first, bool expiry)
{
    struct hp_op *op = hp_batch_add(batch, HP_OP_SIDE_DEL);
    op->side_del.first = first;
    op->side_del.expiry = expiry;
}

static inline struct hp_batch *begin_batch(struct fixture *f)
{
    struct hp_batch *batch = hp_batch_new();
    hp_batch_clear(batch, ++f->batch);
    return batch;
}

/* Applies and frees. */
static inline void apply(struct fixture *f, struct hp_batch *batch)
{
    struct hp_error error = {0};
    enum hp_err err = hp_store_apply(f->store, &batch, 1, &error);
    if (err != HP_OK) {
        print_error("%s\n", error.text);
    }
    assert_int_equal(err, HP_OK);
    hp_batch_free(batch);
}

static inline void run_idle(struct fixture *f)
{
    bool more = true;
    while (more) {
        struct hp_error error = {0};
        assert_int_equal(hp_store_idle(f->store, &more, &error), HP_OK);
    }
}

static inline void reap(struct fixture *f, int64_t wall_ms)
{
    struct hp_batch *batch = begin_batch(f);
    hp_batch_add(batch, HP_OP_REAP)->reap.wall_ms = wall_ms;
    apply(f, batch);
    run_idle(f);
}

/* ------------------------------------------------------------------ answers as text */
static inline struct hp_loaded *run_load(struct hp_store *store, struct hp_load *load)
{
    struct hp_loaded *loaded = hp_loaded_new(load);
    while (!hp_store_load(store, loaded)) {
    }
    return loaded;
}

static inline void print_bin(FILE *out, const char *name, struct hp_bin bin)
{
    fprintf(out, " %s=%.*s", name, (int)bin.size, bin.size > 0 ? (const char *)bin.data : "");
}

static inline void print_side(FILE *out, const struct hp_side *side)
{
    fprintf(out,
            "side %" PRIu64 "+%u kind=%d lane=%u at=%" PRId64
            " a=%u f=%u l=%u r=%u why=%u g=%" PRIu64,
            side->first, side->count, (int)side->kind, side->lane, side->run_at_ms, side->attempt,
            side->failures, side->losses, side->releases, side->reason, side->grace_ms);
}

static inline void print_task(FILE *out, const struct hp_loaded *loaded,
                              const struct hp_loaded_task *task)
{
    fprintf(out, "task %" PRIu64, task->id);
    if (task->exists) {
        const struct hp_loaded_group *group = &loaded->groups[task->group];
        fprintf(out, " in %" PRIu64 "+%u lane=%u at=%" PRId64 " pack=%u", group->first,
                group->count, group->lane, group->created_at_ms, group->pack_size);
        print_bin(out, "session", group->session);
        print_bin(out, "options", group->options);
    }
    fprintf(out, "%s%s", task->gone ? " gone" : "", task->damaged ? " damaged" : "");
    if (task->ended || task->gone) {
        const struct hp_result *r = &task->result;
        fprintf(out,
                " ended %" PRIu64 "+%u s=%u r=%u a=%u f=%u l=%u n=%u %" PRId64 "..%" PRId64
                " x=%" PRId64,
                r->first, r->count, r->state, r->reason, r->attempt, r->failures, r->losses,
                r->node, r->started_at_ms, r->ended_at_ms, r->expires_at_ms);
        print_bin(out, "end", r->end);
    }
    if (task->has_side) {
        fputs(" ", out);
        print_side(out, &task->side);
    }
    fputs("\n", out);
}

static inline void print_tasks(FILE *out, struct hp_store *store, uint64_t first, uint32_t count)
{
    uint64_t end = first + count;
    bool more = true;
    while (more) {
        struct hp_load *load = hp_load_new(HP_LOAD_TASKS);
        load->with_end = true;
        load->spans = calloc(1, sizeof(*load->spans));
        load->spans[0] = (struct hp_id_span){.first = first, .count = (uint32_t)(end - first)};
        load->span_count = 1;
        struct hp_loaded *loaded = run_load(store, load);
        assert_int_equal(loaded->err, HP_OK);
        for (uint32_t i = 0; i < loaded->task_count; i++) {
            assert_int_equal(loaded->tasks[i].id, first + i);
            print_task(out, loaded, &loaded->tasks[i]);
        }
        more = loaded->more;
        first = loaded->next;
        hp_loaded_free(loaded);
    }
}

static inline void print_groups(FILE *out, struct hp_store *store, uint64_t first, uint32_t count)
{
    uint64_t end = first + count;
    bool more = true;
    while (more) {
        struct hp_load *load = hp_load_new(HP_LOAD_GROUPS);
        load->spans = calloc(1, sizeof(*load->spans));
        load->spans[0] = (struct hp_id_span){.first = first, .count = (uint32_t)(end - first)};
        load->span_count = 1;
        struct hp_loaded *loaded = run_load(store, load);
        assert_int_equal(loaded->err, HP_OK);
        for (uint32_t i = 0; i < loaded->group_count; i++) {
            const struct hp_loaded_group *group = &loaded->groups[i];
            fprintf(out, "group %" PRIu64 "+%u lane=%u", group->first, group->count, group->lane);
            print_bin(out, "options", group->options);
            print_bin(out, "pack", group->pack);
            fprintf(out, "%s\n", group->damaged ? " damaged" : "");
        }
        more = loaded->more;
        first = loaded->next;
        hp_loaded_free(loaded);
    }
}

static inline void print_lane(FILE *out, struct hp_store *store, uint32_t lane, uint64_t segment,
                              uint32_t limit)
{
    bool more = true;
    while (more) {
        struct hp_load *load = hp_load_new(HP_LOAD_LANE);
        load->lane = lane;
        load->segment = segment;
        load->limit = limit;
        struct hp_loaded *loaded = run_load(store, load);
        assert_int_equal(loaded->err, HP_OK);
        for (uint32_t i = 0; i < loaded->run_count; i++) {
            fprintf(out, "run %" PRIu64 "+%u since=%" PRId64 " seg=%" PRIu64 "\n",
                    loaded->runs[i].first, loaded->runs[i].count, loaded->runs[i].since_ms,
                    loaded->run_segments[i]);
        }
        more = loaded->more;
        segment = loaded->next_segment;
        hp_loaded_free(loaded);
    }
    fprintf(out, "lane %u next=%" PRIu64 "\n", lane, segment);
}

static inline void print_list(FILE *out, struct hp_store *store, bool live_only, int64_t since_ms,
                              uint32_t limit)
{
    uint64_t before = 0;
    bool more = true;
    while (more) {
        struct hp_load *load = hp_load_new(HP_LOAD_LIST);
        load->before = before;
        load->live_only = live_only;
        load->since_ms = since_ms;
        load->limit = limit;
        struct hp_loaded *loaded = run_load(store, load);
        assert_int_equal(loaded->err, HP_OK);
        assert_true(limit == 0 || loaded->task_count <= limit);
        for (uint32_t i = 0; i < loaded->task_count; i++) {
            print_task(out, loaded, &loaded->tasks[i]);
        }
        more = loaded->more;
        before = loaded->next;
        hp_loaded_free(loaded);
    }
}

static inline void print_sides(FILE *out, struct hp_store *store, uint32_t limit)
{
    int64_t run_at_ms = INT64_MIN;
    uint64_t first = 0;
    bool more = true;
    while (more) {
        struct hp_load *load = hp_load_new(HP_LOAD_SIDES);
        load->after_run_at_ms = run_at_ms;
        load->after_first = first;
        load->limit = limit;
        struct hp_loaded *loaded = run_load(store, load);
        assert_int_equal(loaded->err, HP_OK);
        for (uint32_t i = 0; i < loaded->side_count; i++) {
            print_side(out, &loaded->sides[i]);
            fputs("\n", out);
            run_at_ms = loaded->sides[i].run_at_ms;
            first = loaded->sides[i].first;
        }
        more = loaded->more;
        hp_loaded_free(loaded);
    }
}

static inline void print_session(FILE *out, struct hp_store *store, const char *id)
{
    struct hp_load *load = hp_load_new(HP_LOAD_SESSION);
    hp_load_set_text(load, id, 16);
    struct hp_loaded *loaded = run_load(store, load);
    assert_int_equal(loaded->err, HP_OK);
    fprintf(out, "session %.16s found=%d", id, loaded->found ? 1 : 0);
    print_bin(out, "state", loaded->state);
    fputs("\n", out);
    hp_loaded_free(loaded);
}

static inline void print_record(void *context, const struct hp_record *record)
{
    FILE *out = context;
    switch (record->kind) {
    case HP_RECORD_META:
        fprintf(out,
                "meta epoch=%" PRIu64 " id=%" PRIu64 " blob=%" PRIu64 " grace=%" PRIu64
                " sides=%" PRIu64 " delayed=%" PRIu64 "\n",
                record->meta.epoch, record->meta.next_id, record->meta.next_blob,
                record->meta.grace_ms, record->meta.side_count, record->meta.delayed_count);
        break;
    case HP_RECORD_QUEUE:
        fputs("queue", out);
        print_bin(out, "name", record->queue.name);
        print_bin(out, "state", record->queue.state);
        fputs("\n", out);
        break;
    case HP_RECORD_NODE:
        fprintf(out, "node %u", record->node.number);
        print_bin(out, "name", record->node.name);
        print_bin(out, "boot", record->node.boot);
        print_bin(out, "state", record->node.state);
        fputs("\n", out);
        break;
    case HP_RECORD_LANE:
        fprintf(out, "lane %u head=%" PRIu64 " next=%" PRIu64 " ready=%" PRIu64, record->lane.lane,
                record->lane.head_segment, record->lane.next_segment, record->lane.ready_count);
        print_bin(out, "key", record->lane.key);
        fputs("\n", out);
        break;
    case HP_RECORD_LEASE: {
        const struct hp_lease *lease = &record->lease.lease;
        fprintf(out,
                "lease %" PRIu64 " batch=%" PRIu64 " epoch=%" PRIu64 " group=%" PRIu64
                "+%u a=%u n=%u lane=%u f=%u l=%u r=%u at=%" PRId64 " made=%" PRId64,
                lease->id, record->lease.batch, lease->epoch, lease->group,
                record->lease.group_count, lease->attempt, lease->node, lease->lane,
                lease->failures, lease->losses, lease->releases, lease->started_at_ms,
                record->lease.created_at_ms);
        print_bin(out, "session", record->lease.session);
        print_bin(out, "options", record->lease.options);
        fputs("\n", out);
        break;
    }
    case HP_RECORD_SIDE:
        print_side(out, &record->side);
        fputs("\n", out);
        break;
    case HP_RECORD_UKEY:
        fputs("ukey", out);
        print_bin(out, "key", record->ukey.key);
        fprintf(out, " id=%" PRIu64 "\n", record->ukey.id);
        break;
    }
}

static inline void print_recovery(FILE *out, struct hp_store *store)
{
    struct hp_error error = {0};
    enum hp_err err = hp_store_recover(store, print_record, out, &error);
    if (err != HP_OK) {
        print_error("%s\n", error.text);
    }
    assert_int_equal(err, HP_OK);
}

/* Text of what `statements` print to `out`: char *text = TEXT_OF(print_sides(out, store, 0)). */
#define TEXT_OF(statements)                                                                        \
    __extension__({                                                                                \
        char *text_ = NULL;                                                                        \
        size_t size_ = 0;                                                                          \
        FILE *out = open_memstream(&text_, &size_);                                                \
        assert_non_null(out);                                                                      \
        statements;                                                                                \
        assert_int_equal(fclose(out), 0);                                                          \
        text_;                                                                                     \
    })

static inline void expect_text(char *text, const char *expected)
{
    if (strcmp(text, expected) != 0) {
        print_error("got:\n%sexpected:\n%s", text, expected);
    }
    assert_string_equal(text, expected);
    free(text);
}

#endif
