/* SPDX-License-Identifier: BSD-2-Clause */
/* The client's socket: connecting, and carrying bytes to and from the engine. */
#ifndef HP_CLIENT_SOCKET_H
#define HP_CLIENT_SOCKET_H

#include "client/shell.h"

/* Closes the descriptor, if there is one, and forgets addresses. Tells the engine nothing. */
void hp_socket_drop(struct hp_client *client);

/* The trouble of the connection if it will not heal by trying again, else OK. *ret_text: a
 * sentence, the client's. */
enum hp_status hp_socket_lasting_trouble(const struct hp_client *client, const char **ret_text);

#endif
