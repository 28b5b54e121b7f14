/* SPDX-License-Identifier: BSD-2-Clause */
/* What maps have in common: tasks for inputs, with a window of them under way. */
#ifndef HP_CLIENT_MAP_H
#define HP_CLIENT_MAP_H

#include <stdbool.h>

#include "client/include/hostpool.h"

/* What was gathered is sent after this time even if it is little: the inputs may come slowly. */
#define HP_MAP_CHUNK_MS 2u

/* An input function of the library says: there is no payload yet, ask again. */
enum { HP_MAP_LATER = 2 };

/* Takes a task's result, which it owns from then on; index counts the payloads. false: stop, with
 * the words of the client's error, if there are any. */
typedef bool (*hp_map_deliver_fn)(void *context, uint64_t index, struct hp_result *result);

/* hp_map_stream, a task for each payload that `input` gives. */
enum hp_status hp_map_run(struct hp_client *client, const struct hp_options *options,
                          const struct hp_map_options *map_options, hp_map_input_fn input,
                          hp_map_deliver_fn deliver, void *context, int64_t timeout_ms);

#endif
