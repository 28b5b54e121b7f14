/* SPDX-License-Identifier: BSD-2-Clause */
/* What the files of common/net share about a loop. Not for others. */
#ifndef HP_NET_LOOP_IMPL_H
#define HP_NET_LOOP_IMPL_H

#include <event2/event.h>

#include "common/base/list.h"
#include "common/net/loop.h"

struct hp_loop {
    struct event_base *base;
    struct event *wait_timer; /* ends a turn whose wait is bounded */
    struct hp_list dirty;     /* connections with output since the last flush */
    struct hp_list later;     /* and with nothing but what may wait */
};

#endif
