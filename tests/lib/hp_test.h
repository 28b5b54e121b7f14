/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What every C test needs: cmocka with its headers in the right order, and helpers for assertions
 * and failing allocations. Include it first.
 */
#ifndef HP_TEST_H
#define HP_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>
#include <string.h>

#include "common/base/assert.h"
#include "common/base/err.h"
#include "common/base/mem.h"

/* Runs the table `tests` of this file. */
#define HP_TEST_MAIN(tests)                                                                        \
    int main(void)                                                                                 \
    {                                                                                              \
        return cmocka_run_group_tests(tests, NULL, NULL);                                          \
    }

/* Expects HP_OK, and shows the name of what came instead. */
#define assert_ok(expression) assert_string_equal(hp_err_name(expression), "OK")

/* Expects one certain error. */
#define assert_err(expression, expected)                                                           \
    assert_string_equal(hp_err_name(expression), hp_err_name(expected))

/* Set by hp_test_on_assert before it jumps back into assert_aborts. */
static jmp_buf hp_test_abort_jump __attribute__((unused));

__attribute__((unused)) static void hp_test_on_assert(const struct hp_assert_site *site)
{
    (void)site; /* which assertion it was does not matter */
    longjmp(hp_test_abort_jump, 1);
}

/* Expects that `statement` fails an HP_ASSERT. */
#define assert_aborts(statement)                                                                   \
    do {                                                                                           \
        hp_assert_set_handler(hp_test_on_assert);                                                  \
        volatile bool hp_test_came_back = false;                                                   \
        if (setjmp(hp_test_abort_jump) == 0) {                                                     \
            statement;                                                                             \
            hp_test_came_back = true;                                                              \
        }                                                                                          \
        hp_assert_set_handler(NULL);                                                               \
        assert_false(hp_test_came_back);                                                           \
    } while (0)

#endif
