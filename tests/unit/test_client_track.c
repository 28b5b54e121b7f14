/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of outstanding ids, against a naive model too. */
#include "client/track.h"
#include "common/base/rand.h"
#include "tests/lib/hp_test.h"

static struct hp_piece piece_of(uint64_t request, uint32_t count, bool single)
{
    return (struct hp_piece){.request = request, .count = count, .single = single};
}

static void test_runs(void **state)
{
    struct hp_track track;
    struct hp_owner owner;
    struct hp_piece piece = piece_of(7, 10, false);

    (void)state;
    hp_track_init(&track);
    assert_false(hp_track_end(&track, 1, &owner));
    assert_ok(hp_track_add(&track, (struct hp_ids){100, 10}, &piece, 1, HP_CHECK_NONE));
    assert_ok(hp_track_add(&track, (struct hp_ids){50, 10}, &piece, 1, HP_CHECK_NONE));
    assert_false(hp_track_end(&track, 99, &owner));
    assert_false(hp_track_end(&track, 110, &owner));
    assert_true(hp_track_end(&track, 109, &owner));
    assert_int_equal(owner.request, 7);
    assert_int_equal(owner.index, 9);
    assert_false(hp_track_end(&track, 109, &owner));
    assert_int_equal(track.left, 19);
    hp_track_forget(&track, 7, NULL);
    assert_int_equal(track.left, 0);
    assert_int_equal(track.count, 0);
    hp_track_deinit(&track);
}

static void test_pieces(void **state)
{
    struct hp_track track;
    struct hp_owner owner;
    struct hp_piece pieces[3] = {piece_of(1, 3, true), piece_of(9, 4, false),
                                 piece_of(20, 2, true)};

    (void)state;
    pieces[1].offset = 3;
    pieces[2].offset = 7;
    hp_track_init(&track);
    assert_ok(hp_track_add(&track, (struct hp_ids){10, 9}, pieces, 3, HP_CHECK_NONE));
    assert_true(hp_track_find(&track, 12, &owner));
    assert_int_equal(owner.request, 3);
    assert_true(hp_track_find(&track, 13, &owner));
    assert_int_equal(owner.request, 9);
    assert_int_equal(owner.index, 0);
    assert_true(hp_track_find(&track, 18, &owner));
    assert_int_equal(owner.request, 21);
    hp_track_forget(&track, 2, NULL);
    assert_false(hp_track_find(&track, 11, &owner));
    hp_track_forget(&track, 9, NULL);
    assert_int_equal(track.left, 4);
    hp_track_deinit(&track);
}

static void test_check_ranges(void **state)
{
    struct hp_track track;
    struct hp_owner owner;
    struct hp_piece piece = piece_of(1, 100, false);
    struct hp_ids ids;

    (void)state;
    hp_track_init(&track);
    assert_ok(hp_track_add(&track, (struct hp_ids){1, 100}, &piece, 1, HP_CHECK_WANTED));
    assert_ok(hp_track_add(&track, (struct hp_ids){201, 100}, &piece, 1, HP_CHECK_NONE));
    assert_ok(hp_track_add(&track, (struct hp_ids){401, 100}, &piece, 1, HP_CHECK_WANTED));
    assert_true(hp_track_end(&track, 50, &owner));
    hp_track_check_begin(&track);
    assert_true(hp_track_check_next(&track, 0, 1000, &ids));
    assert_int_equal(ids.first, 1);
    assert_int_equal(ids.count, 49);
    assert_true(hp_track_check_next(&track, 50, 20, &ids));
    assert_int_equal(ids.first, 51);
    assert_int_equal(ids.count, 20);
    assert_true(hp_track_check_next(&track, 101, 1000, &ids));
    assert_int_equal(ids.first, 401);
    assert_false(hp_track_check_next(&track, 501, 1000, &ids));
    hp_track_deinit(&track);
}

/* Two runs share an id: both owners are told, also when one of them was told before. */
static void test_overlap(void **state)
{
    struct hp_track track;
    struct hp_owner owner;
    struct hp_piece a = piece_of(1, 100, false);
    struct hp_piece b = piece_of(2, 10, false);
    struct hp_ids ids;

    (void)state;
    hp_track_init(&track);
    assert_ok(hp_track_add(&track, (struct hp_ids){1, 100}, &a, 1, HP_CHECK_WANTED));
    assert_true(hp_track_end(&track, 55, &owner));
    assert_ok(hp_track_add(&track, (struct hp_ids){50, 10}, &b, 1, HP_CHECK_WANTED));
    hp_track_check_begin(&track);
    assert_true(hp_track_check_next(&track, 55, 1000, &ids));
    assert_int_equal(ids.first, 55);
    assert_true(hp_track_end(&track, 55, &owner));
    assert_int_equal(owner.request, 2);
    assert_false(hp_track_end(&track, 55, &owner));
    assert_true(hp_track_end(&track, 56, &owner));
    assert_true(hp_track_end(&track, 56, &owner));
    assert_false(hp_track_end(&track, 56, &owner));
    hp_track_deinit(&track);
}

/* Random runs and ends against a counter for each id. */
static void test_model(void **state)
{
    enum { IDS = 3000 };
    static uint32_t model[IDS + 400];
    struct hp_track track;
    struct hp_rand rand;
    uint64_t left = 0;

    (void)state;
    hp_rand_init(&rand, 11);
    hp_track_init(&track);
    for (uint32_t step = 0; step < 20000; step++) {
        if (hp_rand_chance(&rand, 1, 20)) {
            uint32_t count = (uint32_t)hp_rand_between(&rand, 1, 300);
            uint32_t first = (uint32_t)hp_rand_between(&rand, 1, IDS);
            struct hp_piece piece = piece_of(step, count, false);

            assert_ok(
                hp_track_add(&track, (struct hp_ids){first, count}, &piece, 1, HP_CHECK_NONE));
            for (uint32_t i = 0; i < count; i++) {
                model[first + i]++;
            }
            left += count;
        } else {
            uint32_t id = (uint32_t)hp_rand_between(&rand, 1, IDS + 300);
            struct hp_owner owner;

            while (hp_track_end(&track, id, &owner)) {
                assert_true(model[id] > 0);
                model[id]--;
                left--;
            }
            assert_int_equal(model[id], 0);
        }
        assert_int_equal(track.left, left);
    }
    hp_track_deinit(&track);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(test_runs),         cmocka_unit_test(test_pieces),
    cmocka_unit_test(test_check_ranges), cmocka_unit_test(test_overlap),
    cmocka_unit_test(test_model),
};

HP_TEST_MAIN(tests)
