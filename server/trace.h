/* SPDX-License-Identifier: BSD-2-Clause */
/* The core's TRACE effects as log lines. */
#ifndef HP_SERVER_TRACE_H
#define HP_SERVER_TRACE_H

#include "server/core/effect.h"

/* Logs one event of the core. `text` is "key=value key=value ..."; a value may hold blanks. */
void hp_trace_log(enum hp_trace_level level, const char *event, const char *text);

#endif
