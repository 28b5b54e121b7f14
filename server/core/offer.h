/* SPDX-License-Identifier: BSD-2-Clause */
/* What the broker keeps of a worker's registration, in little memory: there may be thousands. */
#ifndef HP_SERVER_CORE_OFFER_H
#define HP_SERVER_CORE_OFFER_H

#include "server/core/state.h"

#define HP_NODE_TEXT_MAX 255u

/* What the worker offers from now on: its tags, functions and languages. */
void hp_offer_set(struct hp_core *core, struct hp_node *node,
                  const struct hp_msg_worker_register *msg);
void hp_offer_drop(struct hp_core *core, struct hp_node *node);
bool hp_node_has_function(const struct hp_node *node, struct hp_str name);

/* Sets host or reason of a worker; what is too long is cut. (node.c) */
void hp_node_set_text(char **text, const void *data, size_t size);

#endif
