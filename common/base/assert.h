/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Assertions for programmer errors. They are on in every build: a broker which goes on with a
 * broken invariant damages data, one which stops is restarted. NDEBUG has no effect.
 */
#ifndef HP_BASE_ASSERT_H
#define HP_BASE_ASSERT_H

/*
 * Called with the failed condition before the process aborts; may log, must not allocate. If it
 * returns, the process aborts; a test may longjmp out of it.
 */
struct hp_assert_site {
    const char *condition;
    const char *file;
    const char *function;
    int line;
};

/* Sets the handler of failed assertions (NULL: none). Call at start, before threads exist. */
void hp_assert_set_handler(void (*handler)(const struct hp_assert_site *site));

/* Reports a failed assertion and aborts. Use the macros. */
__attribute__((noreturn, cold)) void hp_assert_fail(const struct hp_assert_site *site);

#define HP_ASSERT_FAIL_(condition_text)                                                            \
    hp_assert_fail(&(const struct hp_assert_site){                                                 \
        .condition = (condition_text), .file = __FILE__, .function = __func__, .line = __LINE__})

/* Aborts unless `condition` holds. Always evaluated, once. */
#define HP_ASSERT(condition)                                                                       \
    do {                                                                                           \
        if (__builtin_expect(!(condition), 0)) {                                                   \
            HP_ASSERT_FAIL_(#condition);                                                           \
        }                                                                                          \
    } while (0)

/* Compile-time assertion: HP_STATIC_ASSERT(sizeof(struct x) == 96, "pinned: one per task"). */
#define HP_STATIC_ASSERT(condition, text) _Static_assert(condition, text)

/* Marks a place which no execution reaches; aborts if one does. */
#define HP_UNREACHABLE() HP_ASSERT_FAIL_("unreachable")

#endif
