/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Scripts: random work for the real store or spool in a folder, and what must be found in that
 * folder after any of its steps.
 */
#ifndef HP_TESTS_FAULT_SCRIPT_H
#define HP_TESTS_FAULT_SCRIPT_H

#include <stdbool.h>
#include <stdint.h>

/* Marks that a run leaves in the journal: so many steps are acknowledged, and is the next one under
 * way? None before the first start is through. */
#define SCRIPT_UNBORN UINT64_MAX
#define SCRIPT_MARK(acked, is_trying) ((uint64_t)(acked)*2 + ((is_trying) ? 1 : 0))

enum script_end {
    SCRIPT_THROUGH, /* all steps were acknowledged */
    SCRIPT_FATAL,   /* an error after which broker or worker would end */
    SCRIPT_STUCK,   /* the disk stays full */
    SCRIPT_WRONG,   /* an answer was neither right nor an error: `text` */
};
struct script_result {
    enum script_end end;
    uint64_t mark; /* as the last one in the journal */
    char text[400];
};
typedef void script_end_fn(void *context, const struct script_result *result);

/* Something that keeps what it has acknowledged. */
struct subject {
    const char *name;
    /* A script of so many steps; the same seed gives the same. Free it with `free`. */
    void *(*make)(uint64_t seed, uint32_t steps);
    void (*free)(void *script);
    uint64_t (*ops)(const void *script);
    /* Does it in the folder `dir`, which exists and is empty. Files are closed at the end even
     * after an error; in before_close (may be NULL) the caller looks at the disk as it is. */
    void (*run)(const void *script, const char *dir, script_end_fn *before_close, void *context,
                struct script_result *ret_result);
    /* Starts in `dir`, whose content comes from a crash of a run at `mark`, and checks that it
     * holds what it must and, if `works_on`, takes new work. False: `why` says what is wrong. */
    bool (*verify)(const void *script, const char *dir, uint64_t mark, bool works_on,
                   char why[800]);
    /* As verify, of a folder at the end of a run in which a file was damaged (`what` begins with
     * its name): all that is found is right, and if something is missing there was an error that
     * names it; *ret_noticed then. */
    bool (*verify_damaged)(const void *script, const char *dir, uint64_t mark, const char *what,
                           bool *ret_noticed, char why[800]);
};
extern const struct subject subject_store, subject_spool;

#endif
