/* SPDX-License-Identifier: BSD-2-Clause */
/* Failed assertions: report through the handler, then abort. The only state is that handler. */
#include "common/base/assert.h"

#include <stddef.h>
#include <stdlib.h>

static void (*assert_handler)(const struct hp_assert_site *site);

void hp_assert_set_handler(void (*handler)(const struct hp_assert_site *site))
{
    assert_handler = handler;
}

void hp_assert_fail(const struct hp_assert_site *site)
{
    void (*handler)(const struct hp_assert_site *) = assert_handler;
    if (handler != NULL) {
        handler(site);
    }
    abort();
}
