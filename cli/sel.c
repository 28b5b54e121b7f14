/* SPDX-License-Identifier: BSD-2-Clause */
/* Parsing of selectors: pure. */
#include "cli/sel.h"

#include "common/base/mem.h"
#include "common/base/str.h"

#include <ctype.h>
#include <string.h>

static bool fail(const char **ret_error, const char *text)
{
    *ret_error = text;
    return false;
}

/* Takes digits at *at. */
static bool take_number(const char **at, uint64_t *ret)
{
    size_t size = strspn(*at, "0123456789");
    if (size == 0 || hp_parse_u64(hp_str_make(*at, size), ret, NULL) != HP_OK) {
        return false;
    }
    *at += size;
    return true;
}

/* "5", "5-9", "5-9:2". */
static bool take_range(const char **at, uint64_t *first, uint64_t *last, uint64_t *step,
                       const char **ret_error)
{
    *step = 1;
    if (!take_number(at, first)) {
        return fail(ret_error, "is no selector");
    }
    *last = *first;
    if (**at != '-') {
        return true;
    }
    (*at)++;
    if (!take_number(at, last)) {
        return fail(ret_error, "needs a number behind the -");
    }
    if (*last < *first) {
        return fail(ret_error, "ends before it begins");
    }
    if (**at != ':') {
        return true;
    }
    (*at)++;
    if (!take_number(at, step) || *step == 0) {
        return fail(ret_error, "needs a step of 1 or more behind the :");
    }
    return true;
}

/* One part up to a comma or the end. */
static bool take_part(const char **at, struct hp_cli_sel *sel, const char **ret_error)
{
    size_t size = strcspn(*at, ",");
    sel->step = 1;
    if (**at == '@') {
        if (size == 1 || !hp_name_valid(hp_str_make(*at + 1, size - 1))) {
            return fail(ret_error, "needs the name of a batch behind the @");
        }
        sel->kind = HP_CLI_SEL_BATCH;
        sel->batch = hp_cli_copy(*at + 1, size - 1);
        *at += size;
        return true;
    }
    if (size == 4 && memcmp(*at, "last", 4) == 0) {
        sel->kind = HP_CLI_SEL_LAST;
        *at += size;
        return true;
    }
    if (size == 3 && memcmp(*at, "all", 3) == 0) {
        sel->kind = HP_CLI_SEL_ALL;
        *at += size;
        return true;
    }
    const char *end = *at + size;
    sel->kind = HP_CLI_SEL_RANGE;
    uint64_t array = 0;
    const char *dot = *at;
    if (take_number(&dot, &array) && *dot == '.') {
        sel->kind = HP_CLI_SEL_MEMBERS;
        sel->array = array;
        *at = dot + 1;
    }
    if (!take_range(at, &sel->first, &sel->last, &sel->step, ret_error)) {
        return false;
    }
    if (*at != end) {
        return fail(ret_error, "is no selector");
    }
    return true;
}

bool hp_cli_sel_parse(const char *word, struct hp_cli_sels *sels, const char **ret_error)
{
    const char *at = word;
    if (sels->items == NULL) {
        sels->items = hp_cli_alloc_array(HP_CLI_SELS_MAX, sizeof(*sels->items));
    }
    for (;;) {
        if (sels->count == HP_CLI_SELS_MAX) {
            return fail(ret_error, "has too many parts");
        }
        struct hp_cli_sel sel = {0};
        if (!take_part(&at, &sel, ret_error)) {
            return false;
        }
        sels->items[sels->count++] = sel;
        if (*at == '\0') {
            return true;
        }
        at++; /* the comma */
    }
}

bool hp_cli_array_parse(const char *word, uint64_t *ret_first, uint64_t *ret_step,
                        uint64_t *ret_count, const char **ret_error)
{
    uint64_t last = 0;
    const char *at = word;
    if (!take_range(&at, ret_first, &last, ret_step, ret_error)) {
        return false;
    }
    if (*at != '\0') {
        return fail(ret_error, "is no range (1-100 or 0-98:2)");
    }
    uint64_t steps = (last - *ret_first) / *ret_step;
    if (steps >= HP_ARRAY_TASKS_MAX) {
        return fail(ret_error, "has more than 1,000,000 numbers");
    }
    *ret_count = steps + 1;
    return true;
}

void hp_cli_ids_add(struct hp_cli_ids *ids, uint64_t first, uint64_t count)
{
    while (count > 0) {
        uint32_t part = count > UINT32_MAX ? UINT32_MAX : (uint32_t)count;
        struct hp_ids *tail = ids->count > 0 ? &ids->ranges[ids->count - 1] : NULL;
        ids->total += part;
        count -= part;
        if (tail != NULL && tail->first + tail->count == first &&
            tail->count <= UINT32_MAX - part) {
            tail->count += part;
            first += part;
            continue;
        }
        if (ids->count == ids->capacity) {
            ids->capacity = ids->capacity > 0 ? ids->capacity * 2 : 64;
            ids->ranges = hp_cli_heap_grow(ids->ranges, ids->capacity, sizeof(*ids->ranges));
        }
        ids->ranges[ids->count++] = (struct hp_ids){.first = first, .count = part};
        first += part;
    }
}

void hp_cli_ids_free(struct hp_cli_ids *ids)
{
    hp_free(ids->ranges);
    *ids = (struct hp_cli_ids){0};
}
