/* SPDX-License-Identifier: BSD-2-Clause */
/* Who is given what, and what is asked back. */
#ifndef HP_SERVER_CORE_SCHED_H
#define HP_SERVER_CORE_SCHED_H

#include "server/core/state.h"

/* ------------------------------------------------ sched.c */
void hp_sched_run(struct hp_core *core);
/* Is the worker given tasks at all? */
bool hp_sched_is_taking(const struct hp_node *node);
/* Calls of pools and what takes just a slot: many to a slot or child, given ahead. */
bool hp_sched_is_light(const struct hp_class *class_);
/* Does a task of these needs take one slot and nothing else? */
bool hp_sched_takes_a_slot(uint32_t kind, uint32_t cpus, uint64_t mem_bytes);
/* Tasks of the class that the node may take now; ahead: not only what can begin at once. */
uint32_t hp_sched_room(const struct hp_core *core, const struct hp_class *class_,
                       const struct hp_node *node, bool ahead);

/* ------------------------------------------------ rebalance.c */
/* A worker holds something that may have to be asked back. */
void hp_rebalance_want(struct hp_core *core);
/* Asks back what waits behind long tasks while another worker has nothing to do. */
void hp_rebalance_due(struct hp_core *core);
/* An attempt ended at its worker. */
void hp_rebalance_ended(struct hp_attempt *attempt);

#endif
