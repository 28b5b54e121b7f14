/* SPDX-License-Identifier: BSD-2-Clause */
/* The tasks of the load: what each is sent with and what must come back. */
#include "bench/programs/drive.h"

#include <endian.h>
#include <stdio.h>
#include <string.h>

#include "bench/programs/common.h"

/* Mixed: of each hundred tasks of one queue the last three are special. */
enum { BLOCK = 100, FAILS = 97, IS_RETRIED = 98, IS_DELAYED = 99, QUEUES = 10, PRIORITIES = 20 };

static const char *const function_names[] = {[DRIVE_ECHO] = "echo",
                                             [DRIVE_NOOP] = "noop",
                                             [DRIVE_SQUARE] = "square",
                                             [DRIVE_SLEEP] = "sleep_ms",
                                             [DRIVE_MIXED] = "echo"};

/* A MessagePack integer of 32 bits, or of 64 if it must be. */
static struct hp_bytes pack_argument(uint64_t value)
{
    static unsigned char room[9];
    unsigned bytes = value <= UINT32_MAX ? 4 : 8;
    room[0] = bytes == 4 ? 0xce : 0xcf;
    for (unsigned i = 0; i < bytes; i++) {
        room[1 + i] = (unsigned char)(value >> (8 * (bytes - 1 - i)));
    }
    return (struct hp_bytes){.data = room, .size = 1 + bytes};
}

/* The unsigned integer that a MessagePack value is, of any size; UINT64_MAX if it is none. */
static uint64_t read_uint(struct hp_bytes bytes)
{
    const unsigned char *data = bytes.data;
    if (bytes.size == 1 && data[0] < 0x80) {
        return data[0];
    }
    if (bytes.size < 2 || data[0] < 0xcc || data[0] > 0xd3) {
        return UINT64_MAX;
    }
    if (bytes.size == 9) {
        uint64_t value8;
        memcpy(&value8, data + 1, sizeof(value8));
        return be64toh(value8);
    }
    uint64_t value = 0;
    for (size_t i = 1; i < bytes.size; i++) {
        value = value << 8 | data[i];
    }
    return value;
}

/* The index, as far as it goes, in front of bytes that are always the same. */
static size_t mark_size(const struct drive *drive)
{
    return drive->bytes < sizeof(uint64_t) ? drive->bytes : sizeof(uint64_t);
}

static struct hp_bytes mark_payload(struct drive *drive, uint64_t index)
{
    memcpy(drive->payload, &index, mark_size(drive));
    return (struct hp_bytes){.data = drive->payload, .size = drive->bytes};
}

static bool is_echo(const struct drive *drive, uint64_t index, struct hp_bytes result)
{
    size_t mark = mark_size(drive);
    return result.size == drive->bytes && memcmp(result.data, &index, mark) == 0 &&
           memcmp((const char *)result.data + mark, drive->payload + mark, result.size - mark) == 0;
}

/* Queue and priority change from block to block. */
static struct hp_bytes make_mixed(struct drive *drive, uint64_t index)
{
    static char queue[16];
    unsigned special = (unsigned)(index % BLOCK);
    uint64_t block = index / BLOCK;
    (void)snprintf(queue, sizeof(queue), "mixed-%u", (unsigned)(block % QUEUES));
    drive->options.queue = queue;
    drive->options.priority = 90 + (uint32_t)(block / QUEUES % PRIORITIES);
    drive->options.fn = special == FAILS ? "fail" : special == IS_RETRIED ? "flaky" : "echo";
    drive->options.delay_ms = special == IS_DELAYED ? 50 : 0;
    drive->options.max_retries = special == IS_RETRIED ? 1 : 0;
    drive->options.retry_base_ms = 10;
    return special == IS_RETRIED ? pack_argument(1) : mark_payload(drive, index);
}

struct hp_bytes drive_make(struct drive *drive, uint64_t index)
{
    static const char *const command[] = {"true"};
    if (drive->work == DRIVE_COMMAND) {
        drive->options.kind = HP_KIND_COMMAND;
        drive->options.argv = command;
        drive->options.argv_count = 1;
        return (struct hp_bytes){.data = NULL};
    }
    if (drive->work == DRIVE_MIXED) {
        return make_mixed(drive, index);
    }
    drive->options.fn = function_names[drive->work];
    if (drive->work == DRIVE_SQUARE) {
        return pack_argument(index);
    }
    return drive->work == DRIVE_SLEEP ? pack_argument(1) : mark_payload(drive, index);
}

bool drive_is_right(struct drive *drive, uint64_t index, const struct hp_task *task,
                    struct hp_bytes result)
{
    unsigned special = drive->work == DRIVE_MIXED ? (unsigned)(index % BLOCK) : 0;
    if (special == FAILS) {
        return task->state == HP_STATE_FAILED && task->attempt == 1;
    }
    if (task->state != HP_STATE_DONE) {
        return false;
    }
    if (special == IS_RETRIED) {
        return task->attempt == 2 && read_uint(result) == 2;
    }
    switch (drive->work) {
    case DRIVE_COMMAND:
        return task->end != NULL && task->end->has_exit_code && task->end->exit_code == 0;
    case DRIVE_SQUARE:
        return read_uint(result) == index * index;
    case DRIVE_NOOP:
    case DRIVE_SLEEP:
        return result.size == 0;
    case DRIVE_ECHO:
    case DRIVE_MIXED:
        break;
    }
    return is_echo(drive, index, result);
}
