/* SPDX-License-Identifier: BSD-2-Clause */
#include "tests/fault/dump.h"

#include <xxhash.h>

static void note(enum hp_err *err, enum hp_err now)
{
    *err = *err == HP_OK ? now : *err;
}

static struct hp_load *span_load(enum hp_load_kind kind, uint64_t first, uint64_t end)
{
    struct hp_load *load = hp_load_new(kind);
    load->with_end = true;
    load->spans = calloc(1, sizeof(*load->spans));
    load->spans[0] = (struct hp_id_span){.first = first, .count = (uint32_t)(end - first)};
    load->span_count = 1;
    return load;
}

static void dump_tasks(FILE *out, struct hp_store *store, uint64_t first, uint64_t end,
                       enum hp_err *err)
{
    for (bool more = true; more;) {
        struct hp_loaded *loaded = run_load(store, span_load(HP_LOAD_TASKS, first, end));
        note(err, loaded->err);
        for (uint32_t i = 0; i < loaded->task_count; i++) {
            print_task(out, loaded, &loaded->tasks[i]);
        }
        more = loaded->more && loaded->err == HP_OK;
        first = loaded->next;
        hp_loaded_free(loaded);
    }
}

static void dump_groups(FILE *out, struct hp_store *store, uint64_t first, uint64_t end,
                        enum hp_err *err)
{
    for (bool more = true; more;) {
        struct hp_loaded *loaded = run_load(store, span_load(HP_LOAD_GROUPS, first, end));
        note(err, loaded->err);
        for (uint32_t i = 0; i < loaded->group_count; i++) {
            const struct hp_loaded_group *group = &loaded->groups[i];
            fprintf(out, "group %" PRIu64 "+%u lane=%u", group->first, group->count, group->lane);
            print_bin(out, "options", group->options);
            print_bin(out, "pack", group->pack);
            fprintf(out, "%s\n", group->damaged ? " damaged" : "");
        }
        more = loaded->more && loaded->err == HP_OK;
        first = loaded->next;
        hp_loaded_free(loaded);
    }
}

/* What waits, task by task: runs may be joined differently. */
static void dump_lane(FILE *out, struct hp_store *store, uint32_t lane, enum hp_err *err)
{
    uint64_t segment = 0;
    for (bool more = true; more;) {
        struct hp_load *load = hp_load_new(HP_LOAD_LANE);
        load->lane = lane;
        load->segment = segment;
        load->limit = 500;
        struct hp_loaded *loaded = run_load(store, load);
        note(err, loaded->err);
        for (uint32_t i = 0; i < loaded->run_count; i++) {
            for (uint32_t k = 0; k < loaded->runs[i].count; k++) {
                fprintf(out, "waits %" PRIu64 " lane=%u since=%" PRId64 "\n",
                        loaded->runs[i].first + k, lane, loaded->runs[i].since_ms);
            }
        }
        more = loaded->more && loaded->err == HP_OK;
        segment = loaded->next_segment;
        hp_loaded_free(loaded);
    }
}

static void dump_sides(FILE *out, struct hp_store *store, enum hp_err *err)
{
    int64_t run_at_ms = INT64_MIN;
    uint64_t first = 0;
    for (bool more = true; more;) {
        struct hp_load *load = hp_load_new(HP_LOAD_SIDES);
        load->after_run_at_ms = run_at_ms;
        load->after_first = first;
        load->limit = 100;
        struct hp_loaded *loaded = run_load(store, load);
        note(err, loaded->err);
        for (uint32_t i = 0; i < loaded->side_count; i++) {
            print_side(out, &loaded->sides[i]);
            fputs("\n", out);
            run_at_ms = loaded->sides[i].run_at_ms;
            first = loaded->sides[i].first;
        }
        more = loaded->more && loaded->err == HP_OK;
        hp_loaded_free(loaded);
    }
}

static void dump_sessions(FILE *out, struct hp_store *store, enum hp_err *err)
{
    for (unsigned i = 0; i < 6; i++) {
        char id[20];
        (void)snprintf(id, sizeof(id), "key-%012u", i);
        struct hp_load *load = hp_load_new(HP_LOAD_SESSION);
        hp_load_set_text(load, id, 16);
        struct hp_loaded *loaded = run_load(store, load);
        note(err, loaded->err);
        if (loaded->err == HP_OK) {
            fprintf(out, "session %s found=%d", id, loaded->found ? 1 : 0);
            print_bin(out, "state", loaded->state);
            fputs("\n", out);
        }
        hp_loaded_free(loaded);
    }
}

enum hp_err dump_facts(FILE *out, struct hp_store *store, const struct history *h)
{
    enum hp_err err = HP_OK;
    uint64_t end = ID_BASE + h->used;
    if (h->used > 0) {
        dump_tasks(out, store, ID_BASE, end, &err);
        dump_groups(out, store, ID_BASE, end, &err);
    }
    for (uint32_t lane = 0; lane < 4; lane++) {
        dump_lane(out, store, lane, &err);
    }
    dump_sides(out, store, &err);
    dump_sessions(out, store, &err);
    return err;
}

static void on_record(void *context, const struct hp_record *record)
{
    FILE *out = context;
    if (record->kind == HP_RECORD_META) { /* its epoch is another with each start */
        fprintf(out, "meta id=%" PRIu64 " blob=%" PRIu64 "\n", record->meta.next_id,
                record->meta.next_blob);
    } else if (record->kind != HP_RECORD_SIDE) { /* the facts have them */
        print_record(out, record);
    }
}

enum hp_err dump_recovery(FILE *out, struct hp_store *store, struct hp_error *reterr)
{
    return hp_store_recover(store, on_record, out, reterr);
}

/* ------------------------------------------------------------------ lines */
uint64_t line_hash(const char *line, size_t size)
{
    return XXH3_64bits(line, size);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

void lines_take(struct lines *lines, const char *text)
{
    uint32_t capacity = 0;
    *lines = (struct lines){0};
    for (const char *at = text; *at != '\0';) {
        size_t size = strcspn(at, "\n");
        if (lines->count == capacity) {
            capacity = capacity * 2 + 64;
            lines->items = realloc(lines->items, capacity * sizeof(lines->items[0]));
            assert_non_null(lines->items);
        }
        lines->items[lines->count++] = line_hash(at, size);
        at += size + (at[size] == '\n' ? 1 : 0);
    }
    if (lines->count > 0) {
        qsort(lines->items, lines->count, sizeof(lines->items[0]), by_value);
    }
}

void lines_free(struct lines *lines)
{
    free(lines->items);
    *lines = (struct lines){0};
}

bool lines_have(const struct lines *lines, uint64_t item)
{
    return lines->count > 0 && bsearch(&item, lines->items, lines->count, sizeof(item), by_value);
}
