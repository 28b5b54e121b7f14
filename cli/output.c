/* SPDX-License-Identifier: BSD-2-Clause */
/* Output of one task, byte for byte. */
#include "cli/output.h"

#include "cli/value.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#define SIGPIPE_CODE 141 /* 128 + SIGPIPE, as if the signal had killed us */

void hp_cli_output_init(struct hp_cli_output *output, uint64_t id, uint64_t cap_bytes)
{
    *output = (struct hp_cli_output){.id = id, .is_wanted = {true, true}, .cap_bytes = cap_bytes};
    output->is_terminal[0] = isatty(STDOUT_FILENO) == 1;
    output->is_terminal[1] = isatty(STDERR_FILENO) == 1;
}

static void write_bytes(struct hp_cli_output *output, unsigned index, const void *data, size_t size)
{
    if (!output->is_wanted[index] || output->is_closed || output->error != 0 || size == 0) {
        return;
    }
    if (hp_cli_write_all(index == 0 ? STDOUT_FILENO : STDERR_FILENO, data, size)) {
        return;
    }
    if (errno == EPIPE) {
        output->is_closed = true;
    } else {
        output->error = errno;
    }
}

/* Bytes `offset`.. of a stream: skips what was written, counts what is missing. */
static void take_bytes(struct hp_cli_output *output, unsigned index, uint64_t offset,
                       const char *data, size_t size)
{
    uint64_t *next = &output->next[index];
    if (offset + size <= *next) {
        return;
    }
    if (offset < *next) {
        size_t skip = (size_t)(*next - offset);
        data += skip;
        size -= skip;
        offset = *next;
    }
    if (offset > *next && output->is_wanted[index]) {
        output->lost_bytes += offset - *next;
    }
    write_bytes(output, index, data, size);
    *next = offset + size;
}

/* True if the bytes between what was written and `offset` will come with the end record. */
static bool is_gap_kept(const struct hp_cli_output *output, unsigned index, uint64_t offset,
                        size_t size)
{
    uint64_t next = output->next[index];
    return offset > next && !output->is_terminal[index] &&
           offset + size - next <= output->cap_bytes;
}

/* A later attempt writes its streams from the start. */
static void use_attempt(struct hp_cli_output *output, uint32_t attempt)
{
    if (attempt > output->attempt) {
        output->attempt = attempt;
        output->next[0] = 0;
        output->next[1] = 0;
    }
}

void hp_cli_output_event(struct hp_cli_output *output, const struct hp_event *event)
{
    if (event->kind != HP_EVENT_OUTPUT || event->output_id != output->id ||
        event->output_attempt < output->attempt) {
        return;
    }
    use_attempt(output, event->output_attempt);
    unsigned index = event->output_stream == HP_OUTPUT_STDERR ? 1 : 0;
    if (!is_gap_kept(output, index, event->output_offset, event->output_data.size)) {
        take_bytes(output, index, event->output_offset, event->output_data.data,
                   event->output_data.size);
    }
}

/* The tail of a stream, of which the command wrote `all` bytes. */
static int take_tail(struct hp_cli_output *output, struct hp_cli *cli, unsigned index,
                     struct hp_bytes tail, uint64_t blob, uint64_t all)
{
    struct hp_buffer buffer = {0};
    if (!output->is_wanted[index] || output->next[index] >= all) {
        return 0;
    }
    if (blob != 0) {
        enum hp_status status = hp_fetch_blob(cli->client, blob, HP_TIMEOUT_DEFAULT, &buffer);
        if (status != HP_STATUS_OK) {
            return hp_cli_fail(cli, status, "cannot fetch the output");
        }
        tail = (struct hp_bytes){.data = buffer.data, .size = buffer.size};
    }
    if (tail.size < all || tail.size == all) {
        take_bytes(output, index, all - tail.size, tail.data, tail.size);
    } else { /* more than it says it wrote: a worker that counts wrongly; show it all */
        take_bytes(output, index, 0, tail.data, tail.size);
    }
    hp_buffer_clear(&buffer);
    return 0;
}

static int print_value(struct hp_cli *cli, struct hp_cli_output *output, const struct hp_task *task)
{
    const struct hp_end *end = task->end;
    struct hp_bytes value = end->result;
    struct hp_buffer buffer = {0};
    if (task->state != HP_STATE_DONE || !output->is_wanted[0]) {
        return 0;
    }
    if (end->result_blob != 0) {
        enum hp_status status =
            hp_fetch_blob(cli->client, end->result_blob, HP_TIMEOUT_DEFAULT, &buffer);
        if (status != HP_STATUS_OK) {
            return hp_cli_fail(cli, status, "cannot fetch the result");
        }
        value = (struct hp_bytes){.data = buffer.data, .size = buffer.size};
    }
    if (value.size > 0) {
        const char *text = hp_cli_value_text(value.data, value.size);
        write_bytes(output, 0, text, strlen(text));
        write_bytes(output, 0, "\n", 1);
    }
    hp_buffer_clear(&buffer);
    return 0;
}

int hp_cli_output_end(struct hp_cli_output *output, struct hp_cli *cli, const struct hp_task *task)
{
    const struct hp_end *end = task->end;
    if (end == NULL) {
        return 0;
    }
    bool is_call = task->options != NULL && task->options->kind == HP_KIND_CALL;
    bool has_value = end->result.size > 0 || end->result_blob != 0;
    if (has_value && !is_call) { /* what calls give is for their client only */
        return print_value(cli, output, task);
    }
    use_attempt(output, task->attempt);
    int code = take_tail(output, cli, 0, end->out, end->out_blob, end->out_size);
    if (code == 0) {
        code = take_tail(output, cli, 1, end->err, end->err_blob, end->err_size);
    }
    if (output->lost_bytes > 0) {
        hp_cli_error("task %" PRIu64 ": %" PRIu64
                     " bytes of output were not kept (see --output-cap).",
                     output->id, output->lost_bytes);
    }
    return code;
}

int hp_cli_output_code(const struct hp_cli_output *output)
{
    if (output->is_closed) {
        return SIGPIPE_CODE;
    }
    if (output->error != 0) {
        hp_cli_error("cannot write the output: %s.", strerror(output->error));
        return HP_CLI_FAILED;
    }
    return 0;
}
