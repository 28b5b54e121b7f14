/* SPDX-License-Identifier: BSD-2-Clause */
/* Function modules: shared objects which export functions (worker/sdk). Loaded in the zygote only.
 */
#ifndef HP_EXEC_MODULES_H
#define HP_EXEC_MODULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"

struct hp_function;
struct hp_module_hooks;

struct hp_modules {
    const struct hp_function **functions; /* sorted by name */
    uint32_t function_count;
    const struct hp_module_hooks **hooks;
    uint32_t hook_count;
};

/*
 * Loads all files and calls their load hooks. On failure reterr names the file and says why, and
 * nothing is offered (what was loaded stays loaded: the caller ends).
 */
enum hp_err hp_modules_load(struct hp_modules *modules, const char *const *paths, uint32_t count,
                            struct hp_error *reterr) HP_MUST_CHECK;

/* Appends the names, each with its NUL. */
enum hp_err hp_modules_pack(const struct hp_modules *modules, struct hp_buf *buf) HP_MUST_CHECK;

/* The init hooks, in a child: false if one failed. The fini hooks. */
bool hp_modules_init_child(const struct hp_modules *modules);
void hp_modules_fini_child(const struct hp_modules *modules);

#endif
