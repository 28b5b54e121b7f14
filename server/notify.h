/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tells the service manager how the process is: datagrams to the socket named by NOTIFY_SOCKET, as
 * sd_notify(3) describes. Without that variable nothing happens.
 */
#ifndef HP_SERVER_NOTIFY_H
#define HP_SERVER_NOTIFY_H

#include <stdint.h>

/* Sends "READY=1", "STOPPING=1", ...: lines separated by \n. Never fails, never blocks. */
void hp_notify(const char *state);

/* "RELOADING=1" with the time stamp the protocol asks for. */
void hp_notify_reloading(void);

/* Interval of the watchdog in ms, from WATCHDOG_USEC; 0: none is wanted of this process. */
uint64_t hp_notify_watchdog_ms(void);

#endif
