/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random histories, applied to the store in memory and to SQLite: whatever is asked, both print the
 * same. HP_SEED and HP_ROUNDS choose others.
 */
#define STORE_FIXTURE_ANSWER_US 1 /* answers of a few steps each */
#include "tests/lib/store_history.h"

struct pair {
    struct history history;
    struct fixture stores[2];
};

static void print_all(FILE *out, const struct history *h, struct fixture *f, uint64_t seed)
{
    struct hp_rand rand;
    hp_rand_init(&rand, seed);
    print_tasks(out, f->store, ID_BASE - 5, h->used + 10);
    print_groups(out, f->store, ID_BASE - 5, h->used + 10);
    for (uint32_t lane = 0; lane < 4; lane++) {
        print_lane(out, f->store, lane, hp_rand_uniform(&rand, 3),
                   (uint32_t)hp_rand_uniform(&rand, 10));
    }
    print_list(out, f->store, true, 0, (uint32_t)hp_rand_uniform(&rand, 50));
    print_list(out, f->store, false, h->wall_ms - 30000, 1 + (uint32_t)hp_rand_uniform(&rand, 50));
    print_sides(out, f->store, (uint32_t)hp_rand_uniform(&rand, 20));
    for (unsigned i = 0; i < 6; i++) {
        char id[20];
        (void)snprintf(id, sizeof(id), "key-%012u", i);
        print_session(out, f->store, id);
    }
}

static void compare_texts(char *a, char *b, uint64_t seed, uint32_t step)
{
    if (strcmp(a, b) != 0) {
        size_t at = 0;
        while (a[at] == b[at]) {
            at++;
        }
        while (at > 0 && a[at - 1] != '\n') {
            at--;
        }
        print_error("seed %" PRIu64 " step %u:\nmem:    %.300s\nsqlite: %.300s\n", seed, step,
                    a + at, b + at);
    }
    assert_string_equal(a, b);
    free(a);
    free(b);
}

static void compare(struct pair *pair, uint64_t seed, uint32_t step)
{
    compare_texts(TEXT_OF(print_all(out, &pair->history, &pair->stores[0], seed + step)),
                  TEXT_OF(print_all(out, &pair->history, &pair->stores[1], seed + step)), seed,
                  step);
}

static void run_history(uint64_t seed, uint32_t step_count)
{
    struct pair *pair = calloc(1, sizeof(*pair));
    struct history *h = &pair->history;
    struct fixture *stores = pair->stores;
    history_init(h, seed, 40);
    fixture_open(&stores[0], false);
    fixture_open(&stores[1], true);
    for (uint32_t step = 0; step < step_count; step++) {
        struct hp_batch *batch = begin_batch(&stores[0]);
        struct hp_error error = {0};
        stores[1].batch = stores[0].batch;
        /* An id must not change twice in one batch in ways the core never would: one act a batch.
         */
        random_step(h, batch);
        bool forget = pick(h, 6) == 0;
        if (forget) {
            random_forget(h, batch);
        }
        assert_int_equal(hp_store_apply(stores[0].store, &batch, 1, &error), HP_OK);
        apply(&stores[1], batch);
        if (forget) {
            run_idle(&stores[0]);
            run_idle(&stores[1]);
        }
        h->wall_ms += 10000 * (int64_t)pick(h, 2);
        if (pick(h, 10) == 0) {
            reap(&stores[0], h->wall_ms);
            reap(&stores[1], h->wall_ms);
        }
        if (pick(h, 25) == 0) {
            fixture_reopen(&stores[0]);
            fixture_reopen(&stores[1]);
            compare_texts(TEXT_OF(print_recovery(out, stores[0].store)),
                          TEXT_OF(print_recovery(out, stores[1].store)), seed, step);
        }
        if (step % 8 == 0) {
            compare(pair, seed, step);
        }
    }
    compare(pair, seed, step_count);
    struct hp_loaded *loaded = run_load(stores[1].store, hp_load_new(HP_LOAD_CHECK));
    if (loaded->err != HP_OK) {
        print_error("%.*s\n", (int)loaded->text.size, (const char *)loaded->text.data);
    }
    assert_int_equal(loaded->err, HP_OK);
    hp_loaded_free(loaded);
    fixture_close(&stores[0]);
    fixture_close(&stores[1]);
    free(pair);
}

static void test_random(void **state)
{
    (void)state;
    const char *seed = getenv("HP_SEED");
    uint64_t first = seed != NULL ? strtoull(seed, NULL, 10) : 1;
    const char *rounds = getenv("HP_ROUNDS");
    uint64_t count = rounds != NULL ? strtoull(rounds, NULL, 10) : 6;
    for (uint64_t i = 0; i < count; i++) {
        run_history(first + i, 150);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
