/* SPDX-License-Identifier: BSD-2-Clause */
/* Made by proto/gen.py from proto/small-states.toml. Do not edit. */
/* State machines: for machine M, enum hp_sm_M, its names and the table of its moves. */
#ifndef HP_PROTO_HP_STATES_H
#define HP_PROTO_HP_STATES_H

#include <stdbool.h>

/* A door. */
enum hp_sm_door {
    /* shut */
    HP_SM_DOOR_CLOSED = 0,
    /* not shut */
    HP_SM_DOOR_OPEN = 1,
    /* gone */
    HP_SM_DOOR_BROKEN = 2,
};
#define HP_SM_DOOR_COUNT 3u

/* The state's name, or 'unknown'. */
const char *hp_sm_door_name(enum hp_sm_door state);

/* True if nothing leaves the state. */
bool hp_sm_door_is_terminal(enum hp_sm_door state);

/* True if the definition allows this move; false for what is no state. */
bool hp_door_may_move(enum hp_sm_door from, enum hp_sm_door to);

#endif
