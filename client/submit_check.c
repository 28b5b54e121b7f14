/* SPDX-License-Identifier: BSD-2-Clause */
/* What is wrong with a submit, before anything is done for it. */
#include "client/engine_state.h"

enum hp_status hp_submit_check(const struct hp_engine_submit *submit, const char **ret_text)
{
    const struct hp_options *options = submit->options;
    uint32_t size_count = submit->part_count > 0 ? submit->part_count : submit->count;
    uint64_t size = 0;

    *ret_text = NULL;
    if (options == NULL || submit->count == 0) {
        *ret_text = "no options, or no tasks";
    } else if (options->kind == HP_KIND_FUNCTION && options->fn == NULL) {
        *ret_text = "options: fn is not set";
    } else if (options->kind == HP_KIND_COMMAND && options->argv_count == 0) {
        *ret_text = "options: argv is empty";
    } else if (options->kind == HP_KIND_CALL && options->pool == 0) {
        *ret_text = "options: pool is not set";
    } else if (options->ukey != NULL && submit->count != 1) {
        *ret_text = "options: a unique key is for one task only";
    } else if (submit->count >
               (submit->payloads == NULL ? HP_LIMIT_ARRAY_TASKS : HP_LIMIT_SUBMIT_TASKS)) {
        *ret_text = "too many tasks in one submit";
    }
    for (uint32_t i = 0; *ret_text == NULL && submit->payloads != NULL && i < size_count; i++) {
        size = submit->payloads[i].size + (submit->part_count > 0 ? size : 0);
        if (size > HP_LIMIT_BLOB_BYTES) {
            *ret_text = "a payload is over the limit of 1 GiB";
            return HP_STATUS_TOO_BIG;
        }
    }
    return *ret_text == NULL ? HP_STATUS_OK : HP_STATUS_BAD_ARGUMENT;
}
