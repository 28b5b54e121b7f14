/* SPDX-License-Identifier: BSD-2-Clause */
/* hostpool map: one command for many inputs. */
#include "cli/map.h"
#include "cli/signals.h"
#include "cli/task_options.h"
#include "cli/value.h"

#include "common/base/mem.h"
#include "common/base/str.h"
#include "common/sys/random.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

/* Tasks in flight without --jobs: enough for many workers, few enough for our memory. */
#define WINDOW 20000u
/* Ends that --keep-order holds at most. */
#define RING_MIN 4096u
#define RING_MAX 65536u
#define OUTPUT_CAP_BYTES (UINT64_C(16) << 20)
/* After Ctrl-C what runs is given this long before we go; it is cancelled in any case. */
#define LEAVE_MS 3000
#define SIGPIPE_CODE 141
#define COMMAND_BYTES_MAX ((size_t)64 << 20)

/* ---------------------------------------------------------------- setting up */

static const char *new_batch(void)
{
    static const char letters[] = "abcdefghjkmnpqrstuvwxyz23456789";
    uint64_t random = 0;
    char name[9] = "";
    if (hp_random_u64(&random) != HP_OK) {
        random = (uint64_t)hp_cli_now_ms();
    }
    for (size_t i = 0; i < 8; i++) {
        name[i] = letters[random % (sizeof(letters) - 1)];
        random /= sizeof(letters) - 1;
    }
    return hp_cli_printf("map-%s", name);
}

static int init_what(struct hp_map *map, size_t word_count)
{
    struct hp_cli *cli = map->cli;
    int code = hp_cli_task_options(cli, cli->args.operands, word_count, &map->options);
    if (code != 0) {
        return code;
    }
    if (map->options.kind == HP_KIND_FUNCTION) {
        return hp_cli_function_args(cli, "[\"{}\"]", &map->args);
    }
    hp_cli_template_init(&map->template, cli->args.operands, word_count);
    map->options.argv = map->template.words;
    map->options.argv_count = map->template.fixed_count;
    map->options.payload_kind = HP_PAYLOAD_ARGV;
    return 0;
}

static int init_flags(struct hp_map *map)
{
    struct hp_cli *cli = map->cli;
    const char *halt = hp_cli_text(cli, HP_CLI_F_HALT, "never");
    if (!hp_cli_halt_parse(halt, &map->halt)) {
        return hp_cli_usage(cli->args.verb,
                            "--halt: \"%s\" is not like now,fail=1 or soon,fail=10%%.", halt);
    }
    const char *batch = hp_cli_text(cli, HP_CLI_F_MAP_NAME, NULL);
    if (batch != NULL && !hp_name_valid(hp_str_of(batch))) {
        return hp_cli_usage(cli->args.verb, "--name: \"%s\" is no name.", batch);
    }
    map->options.batch = batch != NULL ? batch : new_batch();
    map->options.output_cap_bytes = hp_cli_number(cli, HP_CLI_F_OUTPUT_CAP, OUTPUT_CAP_BYTES);
    map->window = hp_cli_number(cli, HP_CLI_F_JOBS, WINDOW);
    map->results_dir = hp_cli_text(cli, HP_CLI_F_RESULTS, NULL);
    map->is_bar = hp_cli_has(cli, HP_CLI_F_BAR) && cli->is_err_terminal;
    if (hp_cli_has(cli, HP_CLI_F_KEEP_ORDER)) {
        uint64_t size = map->window * 4;
        map->ring_size = size < RING_MIN ? RING_MIN : size > RING_MAX ? RING_MAX : (size_t)size;
        map->ring = hp_cli_alloc_array(map->ring_size, sizeof(struct hp_map_end *));
    }
    if (map->is_bar || map->halt.is_percent || cli->is_err_terminal) {
        hp_map_input_count(&map->input);
    }
    return 0;
}

/* ---------------------------------------------------------------- dry run */

static int dry_run(struct hp_map *map)
{
    const char *text = NULL;
    enum hp_map_next next;
    while ((next = hp_map_input_next(&map->input, &text)) != HP_MAP_END) {
        struct pollfd wait = {.fd = map->input.fd, .events = POLLIN};
        struct hp_buf command;
        if (next == HP_MAP_ERROR) {
            return HP_CLI_FAILED;
        }
        if (next == HP_MAP_WAIT) {
            (void)poll(&wait, 1, -1);
            continue;
        }
        hp_buf_init(&command, COMMAND_BYTES_MAX);
        if (map->args == NULL) {
            hp_cli_template_text(&map->template, text, map->input.number, &command);
        } else {
            struct hp_buf value;
            hp_buf_init(&value, COMMAND_BYTES_MAX);
            hp_cli_value_put(&value, map->args, text);
            const char *json = hp_cli_value_text(value.data, value.size);
            hp_cli_put(&command, map->options.fn, strlen(map->options.fn));
            hp_cli_put(&command, " ", 1);
            hp_cli_put(&command, json, strlen(json));
            hp_buf_deinit(&value);
        }
        hp_cli_put(&command, "\n", 1);
        int wants = 1;
        if (map->log.seen != NULL) {
            command.data[command.size - 1] = '\0';
            wants = hp_map_log_wants(map->cli, &map->log, map->input.number,
                                     map->args == NULL ? (const char *)command.data : text);
            command.data[command.size - 1] = '\n';
        }
        if (wants == 1) {
            (void)fwrite(command.data, 1, command.size, stdout);
        }
        hp_buf_deinit(&command);
        if (wants < 0) {
            return HP_CLI_USAGE;
        }
    }
    return HP_CLI_OK;
}

/* ---------------------------------------------------------------- the loop */

struct loop {
    struct hp_map *map;
    int signal_fd;
    unsigned interrupts;
    int64_t leave_ms; /* monotonic; 0: not leaving */
    bool was_lost;
    bool is_told_busy;
};

static void stop_all(struct loop *loop, bool queued_only)
{
    if (!loop->map->is_stopped || !queued_only) {
        loop->map->is_stopped = true;
        hp_map_cancel(loop->map, queued_only);
    }
}

static void take_signals(struct loop *loop)
{
    for (int number; (number = hp_cli_signals_next(loop->signal_fd)) != 0;) {
        loop->interrupts++;
        loop->map->is_interrupted = true;
        if (loop->interrupts == 1) {
            hp_map_undraw(loop->map);
            stop_all(loop, false);
            loop->leave_ms = hp_cli_mono_ms() + LEAVE_MS;
        } else {
            loop->leave_ms = hp_cli_mono_ms();
        }
        loop->map->code = number == SIGINT ? HP_CLI_INTERRUPTED : 128 + number;
    }
}

static void check_halt(struct loop *loop)
{
    struct hp_map *map = loop->map;
    uint64_t total = map->is_input_end ? map->submitted : map->input.total;
    if (!map->is_stopped && hp_cli_halt_reached(&map->halt, map->ended, map->failed, total)) {
        stop_all(loop, map->halt.when == HP_CLI_HALT_SOON);
    }
}

static void take_connection(struct loop *loop, const struct hp_event *event)
{
    if (event->kind == HP_EVENT_DISCONNECTED) {
        hp_map_undraw(loop->map);
        hp_cli_error("lost the broker (%s); trying again. The tasks go on.",
                     event->text != NULL ? event->text : hp_strerror(event->status));
        loop->was_lost = true;
    } else if (loop->was_lost) {
        hp_map_undraw(loop->map);
        hp_cli_error("connected again.");
        loop->was_lost = false;
    }
}

/* Says why no task comes into being, if the broker takes none. */
static void tell_busy(struct loop *loop)
{
    const char *why = hp_client_busy(loop->map->cli->client);
    if (why != NULL && !loop->is_told_busy) {
        hp_map_undraw(loop->map);
        hp_cli_error("the broker takes no tasks now: %s; trying again.", HP_CLI_SAFE(why));
    }
    loop->is_told_busy = why != NULL;
}

static void take_events(struct loop *loop)
{
    struct hp_event event;
    while (hp_client_next_event(loop->map->cli->client, &event)) {
        switch (event.kind) {
        case HP_EVENT_CONNECTED:
        case HP_EVENT_DISCONNECTED:
            take_connection(loop, &event);
            break;
        case HP_EVENT_SUBMITTED:
        case HP_EVENT_SUBMIT_FAILED:
        case HP_EVENT_REPLY:
            hp_map_take_answer(loop->map, &event);
            break;
        case HP_EVENT_ENDED:
            hp_map_take_end(loop->map, &event);
            check_halt(loop);
            break;
        case HP_EVENT_OUTPUT:
            break;
        }
        if (loop->map->is_output_closed && !loop->map->is_stopped) {
            stop_all(loop, false);
            loop->leave_ms = hp_cli_mono_ms() + LEAVE_MS;
        }
    }
}

/* Waits for the client, signals and, if it is the input's turn, for input. */
static void wait_more(struct loop *loop, enum hp_map_next next)
{
    struct hp_map *map = loop->map;
    struct hp_client *client = map->cli->client;
    enum hp_status status = hp_client_process(client, 0);
    unsigned wants = hp_client_wants(client);
    int timeout_ms = hp_client_timeout_ms(client);
    int own_ms = map->is_bar || loop->leave_ms != 0 ? 100 : -1;
    timeout_ms = timeout_ms < 0 || (own_ms >= 0 && own_ms < timeout_ms) ? own_ms : timeout_ms;
    short events = (short)((wants & HP_IO_READ ? POLLIN : 0) | (wants & HP_IO_WRITE ? POLLOUT : 0));
    struct pollfd polled[3] = {{.fd = loop->signal_fd, .events = POLLIN},
                               {.fd = hp_client_fd(client), .events = events},
                               {.fd = next == HP_MAP_WAIT ? map->input.fd : -1, .events = POLLIN}};
    if (status == HP_STATUS_OK && poll(polled, 3, timeout_ms) > 0) {
        unsigned ready = polled[1].revents & (POLLIN | POLLERR | POLLHUP) ? HP_IO_READ : 0u;
        ready |= polled[1].revents & (POLLOUT | POLLERR) ? HP_IO_WRITE : 0u;
        status = hp_client_process(client, ready);
    }
    if (status != HP_STATUS_OK) {
        hp_map_undraw(map);
        map->code = hp_cli_fail(map->cli, status, "lost the broker");
        map->is_stopped = true;
        loop->leave_ms = hp_cli_mono_ms();
    }
}

static bool is_finished(const struct loop *loop)
{
    const struct hp_map *map = loop->map;
    if (loop->leave_ms != 0 && hp_cli_mono_ms() >= loop->leave_ms) {
        return true;
    }
    bool is_all_in = map->is_input_end || map->is_stopped;
    return is_all_in && map->ended == map->submitted && map->cancel_pending == 0;
}

static void run_loop(struct loop *loop)
{
    struct hp_map *map = loop->map;
    for (;;) {
        take_signals(loop);
        take_events(loop);
        tell_busy(loop);
        enum hp_map_next next = map->is_stopped ? HP_MAP_END : hp_map_fill(map);
        if (map->is_stopped && map->code != 0 && !map->is_interrupted && loop->leave_ms == 0) {
            hp_map_cancel(map, false);
            loop->leave_ms = hp_cli_mono_ms() + LEAVE_MS;
        }
        if (map->log.file != NULL) {
            (void)fflush(map->log.file); /* an error shows at the next line */
        }
        if (is_finished(loop)) {
            return;
        }
        hp_map_draw(map, false);
        wait_more(loop, next);
    }
}

/* ---------------------------------------------------------------- the verb */

static int finish(struct hp_map *map)
{
    hp_map_print_held(map, true);
    if (map->log.file != NULL && fclose(map->log.file) != 0 && map->code == 0) {
        hp_cli_error("cannot write %s.", map->log.path);
        map->code = HP_CLI_FAILED;
    }
    hp_map_say_end(map);
    while (!hp_list_is_empty(&map->groups)) {
        hp_map_group_free(HP_CONTAINER_OF(map->groups.next, struct hp_map_group, link));
    }
    if (map->is_output_closed) {
        return SIGPIPE_CODE;
    }
    return map->code != 0 ? map->code : map->failed > 0 ? HP_CLI_FAILED : HP_CLI_OK;
}

static int connect_map(struct hp_map *map)
{
    struct hp_client_options options;
    hp_cli_client_options(map->cli, &options);
    options.events = true;
    return hp_cli_connect_with(map->cli, &options);
}

static int run_map(struct hp_map *map)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, 0};
    struct loop loop = {.map = map, .signal_fd = -1};
    int code = connect_map(map);
    if (code != 0) {
        return code;
    }
    hp_map_say_start(map);
    loop.signal_fd = hp_cli_signals_open(signals);
    map->began_ms = hp_cli_mono_ms();
    run_loop(&loop);
    (void)close(loop.signal_fd);
    return finish(map);
}

int hp_cli_map(struct hp_cli *cli)
{
    struct hp_map map = {.cli = cli};
    size_t word_count = 0;
    hp_list_init(&map.groups);
    int code = hp_map_input_init(cli, &map.input, &word_count);
    code = code != 0 ? code : init_what(&map, word_count);
    code = code != 0 ? code : init_flags(&map);
    code = code != 0 ? code : hp_map_log_open(cli, &map.log);
    if (code == 0) {
        code = hp_cli_has(cli, HP_CLI_F_DRY_RUN) ? dry_run(&map) : run_map(&map);
    }
    hp_map_input_deinit(&map.input);
    hp_free(map.log.seen);
    json_decref(map.args);
    return code;
}
