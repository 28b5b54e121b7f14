/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Output of one task on its way to our descriptors: pieces come while it runs, with offsets, and
 * the end record holds the tail. Each byte is written once, in order; what is missing is said.
 */
#ifndef HP_CLI_OUTPUT_H
#define HP_CLI_OUTPUT_H

#include "cli/cli.h"

struct hp_cli_output {
    uint64_t id;
    uint32_t attempt; /* whose output is being written */
    uint64_t next[2]; /* offset of the next byte of stdout, stderr */
    bool is_wanted[2];
    bool is_closed;      /* our standard output has gone away (EPIPE) */
    int error;           /* errno of another error of writing */
    uint64_t lost_bytes; /* not kept anywhere */
    uint64_t cap_bytes;  /* what the worker keeps of a stream */
    bool is_terminal[2];
};

void hp_cli_output_init(struct hp_cli_output *output, uint64_t id, uint64_t cap_bytes);

/* Takes an HP_EVENT_OUTPUT (of this task; others are left alone). */
void hp_cli_output_event(struct hp_cli_output *output, const struct hp_event *event);

/* Takes the end record: writes what has not been written, fetching blobs. Says what was lost. 0, or
 * an exit code with the error printed. */
int hp_cli_output_end(struct hp_cli_output *output, struct hp_cli *cli, const struct hp_task *task);

/* Exit code for a broken output: 141 for EPIPE, 1 for others (error printed); 0 if all is well. */
int hp_cli_output_code(const struct hp_cli_output *output);

#endif
