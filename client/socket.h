/* SPDX-License-Identifier: BSD-2-Clause */
/* The client's socket: connecting, and carrying bytes to and from the engine. */
#ifndef HP_CLIENT_SOCKET_H
#define HP_CLIENT_SOCKET_H

#include "client/shell.h"

/* Closes the descriptor, if there is one, and forgets addresses. Tells the engine nothing. */
void hp_socket_drop(struct hp_client *client);

#endif
