/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Puts load on a broker and checks every result:
 *
 *   drive HOST MODE COUNT [NAME=VALUE...]
 *
 * MODE pipelined: `window` tasks outstanding, all results back; single: one task at a time;
 *      sustained: pipelined for `seconds`; submit: acknowledgements only; sync: one blocking submit
 *      at a time; map: hp_map; poolmap: hp_pool_map in two children; stream: hp_map_stream.
 * NAME work=echo|noop|square|sleep|command|mixed, bytes=N of a payload (100), window=N (20000),
 *      chunk=N inputs in one task of a stream (1),
 *      queue=NAME, durable=yes|no, seconds=N, forget=yes|no (give results back once read),
 *      submits=N messages without an acknowledgement (default: the library's).
 *
 * Prints figures as JSON, one object a line; exits 0 if each task ended once and rightly.
 */
#include "bench/programs/drive.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/programs/common.h"

#define SECONDS_MAX 590u

static const struct mode {
    const char *name;
    void (*run)(struct drive *drive);
    bool wants_ends;
} modes[] = {
    {"pipelined", drive_pipelined, true}, {"single", drive_single, true},
    {"sustained", drive_sustained, true}, {"submit", drive_submit, false},
    {"sync", drive_sync, false},          {"map", drive_map, true},
    {"poolmap", drive_pool_map, true},    {"stream", drive_stream, true},
};

void drive_die(const struct drive *drive, const char *what)
{
    bench_fail(what, drive->client != NULL ? hp_client_error(drive->client) : "no client");
}

static enum drive_work parse_work(const char *word)
{
    static const char *const words[] = {
        [DRIVE_ECHO] = "echo",   [DRIVE_NOOP] = "noop",       [DRIVE_SQUARE] = "square",
        [DRIVE_SLEEP] = "sleep", [DRIVE_COMMAND] = "command", [DRIVE_MIXED] = "mixed"};
    for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(word, words[i]) == 0) {
            return (enum drive_work)i;
        }
    }
    bench_fail("no such work", word);
}

static bool parse_flag(const char *word)
{
    if (strcmp(word, "yes") != 0 && strcmp(word, "no") != 0) {
        bench_fail("yes or no, not", word);
    }
    return word[0] == 'y';
}

static bool is_name(const char *argument, size_t size, const char *name)
{
    return strlen(name) == size && strncmp(argument, name, size) == 0;
}

static void parse_option(struct drive *drive, const char *argument)
{
    const char *value = strchr(argument, '=');
    size_t size = value != NULL ? (size_t)(value - argument) : 0;
    if (size == 0) {
        bench_fail("NAME=VALUE, not", argument);
    }
    value++;
    if (is_name(argument, size, "work")) {
        drive->work = parse_work(value);
    } else if (is_name(argument, size, "bytes")) {
        drive->bytes = bench_number(value);
    } else if (is_name(argument, size, "window")) {
        drive->window = bench_number(value);
    } else if (is_name(argument, size, "chunk")) {
        drive->chunk = (uint32_t)bench_number(value);
    } else if (is_name(argument, size, "queue")) {
        drive->options.queue = value;
    } else if (is_name(argument, size, "durable")) {
        drive->options.durable = parse_flag(value);
    } else if (is_name(argument, size, "seconds")) {
        drive->seconds = (double)bench_number(value);
    } else if (is_name(argument, size, "forget")) {
        drive->forgets = parse_flag(value);
    } else if (is_name(argument, size, "submits")) {
        drive->client_options.window_submits = (uint32_t)bench_number(value);
    } else {
        bench_fail("no such option", argument);
    }
}

static const struct mode *find_mode(const char *name)
{
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (strcmp(name, modes[i].name) == 0) {
            return &modes[i];
        }
    }
    bench_fail("no such mode", name);
}

int main(int argc, char **argv)
{
    struct drive drive = {.bytes = 100, .window = 20000, .seconds = 60};
    if (argc < 4) {
        (void)fprintf(stderr, "usage: drive HOST MODE COUNT [NAME=VALUE...]\n");
        return 2;
    }
    hp_options_init(&drive.options);
    hp_client_options_init(&drive.client_options);
    const struct mode *mode = find_mode(argv[2]);
    drive.count = bench_number(argv[3]);
    for (int i = 4; i < argc; i++) {
        parse_option(&drive, argv[i]);
    }
    bench_limit_time(SECONDS_MAX);
    drive.seen = bench_room(drive.count + 1, 1);
    drive.payload = bench_room(drive.bytes + 1, 1);
    memset(drive.payload, 'x', drive.bytes);
    drive.client_options.host = argv[1];
    drive.client_options.name = "bench";
    drive.client_options.events = mode->wants_ends;
    if (drive.count == 0 ||
        hp_connect(&drive.client_options, HP_TIMEOUT_DEFAULT, &drive.client) != HP_STATUS_OK) {
        drive_die(&drive, "connect");
    }
    mode->run(&drive);
    hp_close(drive.client);
    free(drive.payload);
    free(drive.seen);
    if (drive.wrong != 0) {
        (void)fprintf(stderr, "drive: %llu wrong ends\n", (unsigned long long)drive.wrong);
    }
    return drive.wrong == 0 ? 0 : 1;
}
