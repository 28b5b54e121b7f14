/* SPDX-License-Identifier: BSD-2-Clause */
/* What a folder holds, against what it must hold. */
#include <dirent.h>

#include "server/store/blob_file.h"
#include "tests/fault/script_inside.h"

#define LOST_STEPS 3u

struct found {
    struct broker broker;
    const char *dir;
    char *records; /* what recovery reported */
    char *text;    /* these and all facts, a line each */
    struct lines lines;
    enum hp_err err; /* the first error of a read */
};

static bool say(char why[800], const char *what, const char *detail)
{
    (void)snprintf(why, 800, "%s%s%s", what, detail[0] != '\0' ? ": " : "", detail);
    return false;
}

/* ------------------------------------------------------------------ reading */
static bool start(const char *dir, struct found *found, struct hp_error *error)
{
    size_t size = 0;
    *found = (struct found){.dir = dir};
    FILE *out = open_memstream(&found->records, &size);
    assert_non_null(out);
    enum hp_err err = broker_start(&found->broker, dir, out, error);
    assert_int_equal(fclose(out), 0);
    return err == HP_OK;
}

/* Reads all facts about the tasks that the script has made up to a step. */
static void read_facts(const struct script *script, struct found *found, uint32_t step)
{
    struct history *h = calloc(1, sizeof(*h));
    size_t size = 0;
    assert_non_null(h);
    lines_free(&found->lines);
    free(found->text);
    FILE *out = open_memstream(&found->text, &size);
    assert_non_null(out);
    h->used = script->moments[step].used;
    assert_true(fputs(found->records, out) >= 0);
    found->err = dump_facts(out, found->broker.store, h);
    assert_int_equal(fclose(out), 0);
    lines_take(&found->lines, found->text);
    free(h);
}

static void forget(struct found *found)
{
    if (found->broker.store != NULL) {
        broker_end(&found->broker, false);
    }
    lines_free(&found->lines);
    free(found->records);
    free(found->text);
}

/* Is the task there, by the facts? Its line is "task ID in GROUP...". */
static bool has_task(const struct found *found, uint64_t id)
{
    char key[40];
    (void)snprintf(key, sizeof(key), "task %" PRIu64 " in ", id);
    return strstr(found->text, key) != NULL;
}

/* ------------------------------------------------------------------ facts */
/* Each line found is one of the two moments', and what both have is found. */
static bool is_between(const struct lines *found, const struct lines *a, const struct lines *b,
                       uint64_t *ret_extra, uint64_t *ret_missing)
{
    for (uint32_t i = 0; i < found->count; i++) {
        if (!lines_have(a, found->items[i]) && !lines_have(b, found->items[i])) {
            *ret_extra = found->items[i];
            return false;
        }
    }
    for (uint32_t i = 0; i < a->count; i++) {
        if (lines_have(b, a->items[i]) && !lines_have(found, a->items[i])) {
            *ret_missing = a->items[i];
            return false;
        }
    }
    return true;
}

static void explain(const struct script *script, const struct found *found, uint32_t number,
                    uint64_t extra, uint64_t missing, char why[800])
{
    char line[300] = "";
    if (extra == 0) {
        script_find_line(script, number, missing, line, sizeof(line));
        (void)snprintf(why, 800, "after step %u missing: %.300s", number, line);
        return;
    }
    for (const char *at = found->text; *at != '\0';) {
        size_t size = strcspn(at, "\n");
        if (line_hash(at, size) == extra) {
            (void)snprintf(why, 800, "after step %u wrong: %.*s", number,
                           (int)(size < 300 ? size : 300), at);
        }
        at += size + (at[size] == '\n' ? 1 : 0);
    }
}

static bool check_facts(const struct script *script, struct found *found, uint32_t acked,
                        bool is_trying, char why[800])
{
    uint64_t extra = 0;
    uint64_t missing = 0;
    const struct moment *moment = &script->moments[acked];
    read_facts(script, found, acked);
    bool is_good = is_between(&found->lines, &moment->before, &moment->after, &extra, &missing);
    if (!is_good) {
        explain(script, found, acked, extra, missing, why);
    }
    if (!is_good && is_trying && acked < script->steps) {
        uint64_t unused = 0;
        read_facts(script, found, acked + 1);
        is_good = is_between(&found->lines, &moment[1].before, &moment[1].before, &unused, &unused);
    }
    return is_good && (found->err == HP_OK || say(why, "a read failed", ""));
}

/* ------------------------------------------------------------------ blobs */
static bool check_blob(const char *blob_dir, const struct blob_fact *fact, enum hp_err *ret_err,
                       char why[800])
{
    static uint8_t data[1 << 18];
    uint32_t size = 0;
    uint64_t whole = 0;
    uint64_t digest = 0;
    struct hp_error error = {0};
    enum hp_err err =
        hp_blob_read(blob_dir, fact->blob, 0, sizeof(data), data, &size, &whole, &digest, &error);
    *ret_err = err;
    if (err != HP_OK) {
        return say(why, "a blob cannot be read", error.text);
    }
    bool is_same = whole == fact->size && size == fact->size;
    for (uint32_t i = 0; is_same && i < size; i++) {
        is_same = data[i] == blob_byte(fact->blob, i);
    }
    return is_same || say(why, "a blob has other bytes", "");
}

static bool check_blobs(const struct script *script, const struct found *found, uint32_t until,
                        bool *ret_damaged, char why[800])
{
    char blob_dir[600];
    (void)snprintf(blob_dir, sizeof(blob_dir), "%s/blobs", found->dir);
    for (uint32_t i = 0; i < script->blob_count; i++) {
        const struct blob_fact *fact = &script->blobs[i];
        enum hp_err err = HP_OK;
        if (fact->step > until || fact->forgotten <= until || !has_task(found, fact->owner)) {
            continue;
        }
        if (!check_blob(blob_dir, fact, &err, why)) {
            bool is_named = err == HP_ERR_CORRUPT || err == HP_ERR_NOT_FOUND;
            if (ret_damaged == NULL || !is_named) {
                return false;
            }
            *ret_damaged = true;
        }
    }
    return true;
}

/* The start removes uploads that nobody can go on with. (Finished ones stay for an hour.) */
static bool check_leftovers(const struct found *found, char why[800])
{
    bool is_clean = true;
    for (uint32_t folder = 0; folder < HP_BLOB_FOLDERS; folder++) {
        char path[700];
        (void)snprintf(path, sizeof(path), "%s/blobs/%02x", found->dir, folder);
        DIR *dir = opendir(path);
        for (const struct dirent *entry = dir != NULL ? readdir(dir) : NULL; entry != NULL;
             entry = readdir(dir)) {
            if (strstr(entry->d_name, ".part") != NULL) {
                is_clean = say(why, "half a blob stays", entry->d_name);
            }
        }
        if (dir != NULL) {
            (void)closedir(dir);
        }
    }
    return is_clean;
}

/* ------------------------------------------------------------------ new work */
static bool check_new_work(const struct found *found, char why[800])
{
    uint64_t first = ID_BASE + TASKS_MAX + 1000;
    struct hp_batch *batch = hp_batch_new();
    struct hp_error error = {0};
    hp_batch_clear(batch, UINT64_C(1) << 40);
    add_group(batch, first, 3, 1, HISTORY_WALL_MS, "options", "new work");
    add_segment(batch, 1, 1 << 20, first, 3, HISTORY_WALL_MS);
    add_lane(batch, 1, "key", 0, (1 << 20) + 1, 3);
    enum hp_err err = hp_store_apply(found->broker.store, &batch, 1, &error);
    hp_batch_free(batch);
    if (err != HP_OK) {
        return say(why, "no new work can be taken", error.text);
    }
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    struct history *h = calloc(1, sizeof(*h));
    assert_non_null(h);
    h->used = TASKS_MAX + 1010;
    err = dump_facts(out, found->broker.store, h);
    free(h);
    assert_int_equal(fclose(out), 0);
    char key[80];
    (void)snprintf(key, sizeof(key), "waits %" PRIu64 " lane=1", first + 2);
    bool is_there = err == HP_OK && strstr(text, key) != NULL;
    free(text);
    return is_there || say(why, "new work is not there", "");
}

static bool check_whole(const struct found *found, char why[800])
{
    struct hp_loaded *loaded = run_load(found->broker.store, hp_load_new(HP_LOAD_CHECK));
    char text[600];
    (void)snprintf(text, sizeof(text), "%.*s", (int)loaded->text.size,
                   loaded->text.data != NULL ? (const char *)loaded->text.data : "");
    enum hp_err err = loaded->err;
    hp_loaded_free(loaded);
    return err == HP_OK || say(why, "the check finds", text);
}

bool script_verify(const void *subject, const char *dir, uint64_t mark, bool works_on,
                   char why[800])
{
    const struct script *script = subject;
    struct found found;
    struct hp_error error = {0};
    bool is_born = mark != SCRIPT_UNBORN;
    uint32_t acked = is_born ? (uint32_t)(mark / 2) : 0;
    bool is_trying = is_born && mark % 2 == 1;
    uint32_t until = acked + (is_trying && acked < script->steps ? 1 : 0);
    if (!start(dir, &found, &error)) {
        forget(&found);
        /* Before the first start was through nothing was promised but a clear word. */
        return (!is_born && error.text[0] != '\0') || say(why, "it does not start", error.text);
    }
    bool works = check_facts(script, &found, acked, is_trying, why) &&
                 check_blobs(script, &found, until, NULL, why) && check_leftovers(&found, why) &&
                 check_whole(&found, why) && (!works_on || check_new_work(&found, why));
    forget(&found);
    return works;
}

/* ------------------------------------------------------------------ damaged files */
/* Each line found is right, or says itself that it is damaged. */
static bool check_lines(const struct script *script, const struct found *found, uint32_t acked,
                        bool *ret_noticed, char why[800])
{
    const struct moment *moment = &script->moments[acked];
    for (const char *at = found->text; *at != '\0';) {
        size_t size = strcspn(at, "\n");
        uint64_t hash = line_hash(at, size);
        char line[300];
        (void)snprintf(line, sizeof(line), "%.*s", (int)(size < 299 ? size : 299), at);
        if (strstr(line, " damaged") != NULL) {
            *ret_noticed = true;
        } else if (!lines_have(&moment->before, hash) && !lines_have(&moment->after, hash)) {
            return say(why, "wrong", line);
        }
        at += size + (at[size] == '\n' ? 1 : 0);
    }
    return true;
}

/* Damage to the log's last transactions looks like an end that was never written: an earlier state,
 * but not much earlier. */
static bool is_earlier(const struct script *script, struct found *found, uint32_t acked)
{
    for (uint32_t step = acked + 1; step-- > (acked < LOST_STEPS ? 0 : acked - LOST_STEPS);) {
        uint64_t unused = 0;
        const struct moment *moment = &script->moments[step];
        read_facts(script, found, step);
        if (found->err == HP_OK &&
            is_between(&found->lines, &moment->before, &moment->after, &unused, &unused)) {
            return true;
        }
    }
    return false;
}

static bool check_damaged(const struct script *script, struct found *found, uint32_t acked,
                          bool *ret_noticed, char why[800])
{
    const struct moment *moment = &script->moments[acked];
    uint64_t extra = 0;
    uint64_t missing = 0;
    read_facts(script, found, acked);
    *ret_noticed = found->err != HP_OK;
    if (found->err != HP_OK && found->err != HP_ERR_CORRUPT) {
        return say(why, "a read failed otherwise", hp_err_text(found->err));
    }
    if (!check_lines(script, found, acked, ret_noticed, why)) {
        return *ret_noticed && strncmp(why, "wrong: lane ", 12) == 0; /* counts of what is lost */
    }
    if (*ret_noticed ||
        is_between(&found->lines, &moment->before, &moment->after, &extra, &missing)) {
        return true;
    }
    explain(script, found, acked, 0, missing, why);
    return false;
}

bool script_verify_damaged(const void *subject, const char *dir, uint64_t mark, const char *what,
                           bool *ret_noticed, char why[800])
{
    const struct script *script = subject;
    struct found found;
    struct hp_error error = {0};
    uint32_t acked = (uint32_t)(mark / 2);
    if (!start(dir, &found, &error)) {
        forget(&found);
        *ret_noticed = true;
        return strstr(error.text, "hostpool") != NULL || say(why, "no clear error", error.text);
    }
    bool works = check_damaged(script, &found, acked, ret_noticed, why);
    if (!works && strncmp(what, "hostpool.db-wal", 15) == 0) {
        works = is_earlier(script, &found, acked);
    }
    works = works && check_blobs(script, &found, acked, ret_noticed, why);
    forget(&found);
    return works;
}
