/* SPDX-License-Identifier: BSD-2-Clause */
/* Made by proto/gen.py from proto/small-states.toml. Do not edit. */
#include "proto/hp_states.h"

#include <stdint.h>

const char *hp_sm_door_name(enum hp_sm_door value) {
    switch (value) {
    case HP_SM_DOOR_CLOSED:
        return "closed";
    case HP_SM_DOOR_OPEN:
        return "open";
    case HP_SM_DOOR_BROKEN:
        return "broken";
    }
    return "unknown";
}

static const uint32_t door_moves[HP_SM_DOOR_COUNT] = {
    [HP_SM_DOOR_CLOSED] =
        1u << HP_SM_DOOR_OPEN,
    [HP_SM_DOOR_OPEN] =
        1u << HP_SM_DOOR_CLOSED |
        1u << HP_SM_DOOR_BROKEN,
    [HP_SM_DOOR_BROKEN] =
        0,
};

bool hp_sm_door_is_terminal(enum hp_sm_door state) {
    return (unsigned)state < HP_SM_DOOR_COUNT && door_moves[state] == 0;
}

bool hp_door_may_move(enum hp_sm_door from, enum hp_sm_door to) {
    return (unsigned)from < HP_SM_DOOR_COUNT && (unsigned)to < HP_SM_DOOR_COUNT &&
           (door_moves[from] >> (unsigned)to & 1u) != 0;
}
