/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The few macros every module needs: container_of, counts, cleanup of shell locals. They live in
 * one place so that no module grows its own variant.
 */
#ifndef HP_BASE_MACRO_H
#define HP_BASE_MACRO_H

#include <stddef.h>

/* The struct of type `type` whose field `field` is at `ptr`. `ptr` must not be NULL. */
#define HP_CONTAINER_OF(ptr, type, field) ((type *)(void *)((char *)(ptr)-offsetof(type, field)))

/* Number of elements of a true array (not of a pointer). */
#define HP_COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* Smaller / larger of two values of one type; arguments are evaluated twice, so pass no effects. */
#define HP_MIN(a, b) ((a) < (b) ? (a) : (b))
#define HP_MAX(a, b) ((a) > (b) ? (a) : (b))

/*
 * Runs `function(&variable)` when the variable leaves its scope. This is the only clean-up idiom of
 * the project (there is no goto); the function must accept an empty object.
 */
#define HP_CLEANUP(function) __attribute__((cleanup(function)))

/* Hands a pointer over: yields its value and leaves NULL, so that HP_CLEANUP then frees nothing. */
#define HP_TAKE(pointer)                                                                           \
    __extension__({                                                                                \
        __typeof__(pointer) hp_take_value_ = (pointer);                                            \
        (pointer) = NULL;                                                                          \
        hp_take_value_;                                                                            \
    })

/* The caller must look at the result; HP_IGNORE is the way out (a cast to void does not do). */
#define HP_MUST_CHECK __attribute__((warn_unused_result))

/* Ignores the result of a HP_MUST_CHECK function; write the reason beside it. */
#define HP_IGNORE(expression)                                                                      \
    do {                                                                                           \
        __typeof__(expression) hp_ignored_ = (expression);                                         \
        (void)hp_ignored_;                                                                         \
    } while (0)

/* printf-like function: index of the format and of the first argument, counted from 1. */
#define HP_PRINTF(format_index, first_index)                                                       \
    __attribute__((format(printf, format_index, first_index)))

#endif
