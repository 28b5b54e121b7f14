/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The one list of operating errors. Operating errors are returned; programmer errors are asserted
 * (assert.h). The list is an X-macro so that code, name and text can not drift apart.
 */
#ifndef HP_BASE_ERR_H
#define HP_BASE_ERR_H

#include "common/base/macro.h"

/* X(enumerator, name, text). The name is stable (logs, tests), the text is for people. */
#define HP_ERR_LIST(X)                                                                             \
    X(HP_OK, "OK", "success")                                                                      \
    X(HP_ERR_NOMEM, "NOMEM", "out of memory")                                                      \
    X(HP_ERR_INVALID, "INVALID", "invalid value")                                                  \
    X(HP_ERR_RANGE, "RANGE", "value out of range")                                                 \
    X(HP_ERR_FULL, "FULL", "a limit is reached")                                                   \
    X(HP_ERR_NOT_FOUND, "NOT_FOUND", "not found")                                                  \
    X(HP_ERR_EXISTS, "EXISTS", "exists already")                                                   \
    X(HP_ERR_IO, "IO", "input/output error")                                                       \
    X(HP_ERR_CORRUPT, "CORRUPT", "stored data is damaged")                                         \
    X(HP_ERR_PROTOCOL, "PROTOCOL", "the peer broke the protocol")                                  \
    X(HP_ERR_AGAIN, "AGAIN", "not now, try again")                                                 \
    X(HP_ERR_TIMEOUT, "TIMEOUT", "timed out")                                                      \
    X(HP_ERR_DENIED, "DENIED", "not permitted")                                                    \
    X(HP_ERR_CLOSED, "CLOSED", "closed")                                                           \
    X(HP_ERR_UNSUPPORTED, "UNSUPPORTED", "not supported")                                          \
    X(HP_ERR_BUSY, "BUSY", "busy")                                                                 \
    X(HP_ERR_STALE, "STALE", "out of date")                                                        \
    X(HP_ERR_CANCELLED, "CANCELLED", "cancelled")                                                  \
    X(HP_ERR_NOSPACE, "NOSPACE", "no space left on the disk")                                      \
    X(HP_ERR_TOO_BIG, "TOO_BIG", "larger than the limit")

enum hp_err {
#define HP_ERR_ENUM_(enumerator, name, text) enumerator,
    HP_ERR_LIST(HP_ERR_ENUM_)
#undef HP_ERR_ENUM_
        HP_ERR_COUNT /* number of codes, not a code */
};

/* Bytes of the detail text of an hp_error, its NUL included. */
#define HP_ERROR_TEXT_BYTES 256

/*
 * An error with its detail: what failed and on what ("a.conf:3: unknown option 'prot'"). An
 * all-zero object is "no error". Holds no memory of its own; copy it freely.
 */
struct hp_error {
    enum hp_err code;
    char text[HP_ERROR_TEXT_BYTES]; /* always NUL-terminated; cut when longer */
};

/* Stable upper-case name ("NOT_FOUND"). Any int is accepted; unknown ones give "UNKNOWN". */
const char *hp_err_name(enum hp_err err);

/* Short English text ("not found"). Any int is accepted; unknown ones give "unknown error". */
const char *hp_err_text(enum hp_err err);

/*
 * Fills `error` (which may be NULL: then nothing is written) and returns `code`, so that a failing
 * function can end with `return hp_error_set(reterr, HP_ERR_RANGE, "...")`. A NULL format takes the
 * text of the code. The format's arguments may point into error->text itself.
 */
enum hp_err hp_error_set(struct hp_error *error, enum hp_err code, const char *format, ...)
    HP_PRINTF(3, 4);

#endif
