/* SPDX-License-Identifier: BSD-2-Clause */
/* The columns of tasks, for ls and show. */
#include <inttypes.h>

#include "cli/listing.h"
#include "cli/sel.h"
#include "cli/value.h"

#include "common/base/macro.h"

#include <string.h>

#define BIT(state) (1u << (state))

struct state_word {
    const char *word;
    uint32_t bits;
};

/* The first rows are the words that are shown. */
static const struct state_word state_words[] = {
    {"blocked", BIT(HP_STATE_BLOCKED)},
    {"delayed", BIT(HP_STATE_DELAYED)},
    {"queued", BIT(HP_STATE_READY)},
    {"starting", BIT(HP_STATE_LEASED)},
    {"running", BIT(HP_STATE_RUNNING)},
    {"waiting", BIT(HP_STATE_WAITING)},
    {"cancelling", BIT(HP_STATE_CANCELLING)},
    {"buried", BIT(HP_STATE_BURIED)},
    {"done", BIT(HP_STATE_DONE)},
    {"failed", BIT(HP_STATE_FAILED)},
    {"cancelled", BIT(HP_STATE_CANCELLED)},
    {"expired", BIT(HP_STATE_EXPIRED)},
    {"gone", BIT(HP_STATE_GONE)},
    {"unknown", BIT(HP_STATE_UNKNOWN)},
    {"ready", BIT(HP_STATE_READY)},
    {"leased", BIT(HP_STATE_LEASED)},
    {"pending", BIT(HP_STATE_BLOCKED) | BIT(HP_STATE_DELAYED) | BIT(HP_STATE_READY)},
    {"active", BIT(HP_STATE_LEASED) | BIT(HP_STATE_RUNNING) | BIT(HP_STATE_WAITING) |
                   BIT(HP_STATE_CANCELLING)},
    {"unfinished", HP_CLI_STATES_UNFINISHED},
    {"finished", HP_CLI_STATES_FINISHED},
    {"any", HP_CLI_STATES_UNFINISHED | HP_CLI_STATES_FINISHED},
};

const char *hp_cli_state_word(enum hp_state state)
{
    for (size_t i = 0; i < 14; i++) {
        if (state >= 0 && (unsigned)state < 32 && state_words[i].bits == BIT((unsigned)state)) {
            return state_words[i].word;
        }
    }
    return "?";
}

uint32_t hp_cli_state_bits(const char *word, size_t size)
{
    for (size_t i = 0; i < HP_COUNT_OF(state_words); i++) {
        const char *known = state_words[i].word;
        if (strlen(known) == size && memcmp(known, word, size) == 0) {
            return state_words[i].bits;
        }
    }
    return 0;
}

/* ---------------------------------------------------------------- columns */

enum column {
    ID,
    STATE,
    QUEUE,
    NAME,
    WAIT,
    RUN,
    HOST,
    REASON,
    BATCH,
    USER,
    PRIORITY,
    ATTEMPT,
    EXIT_CODE,
    SIGNAL,
    CREATED,
    STARTED,
    ENDED,
    CPUS,
    MEM,
    COMMAND,
    LIST_COUNT,
    /* only of show */
    KIND = LIST_COUNT,
    FUNCTION,
    GROUP,
    GROUP_COUNT,
    INDEX,
    TAGS,
    ENV,
    CWD,
    FAILURES,
    LOSSES,
    RUN_AT,
    DELAY,
    EXPIRE,
    DEADLINE,
    SOFT_TIMEOUT,
    TIMEOUT,
    RETRIES,
    MAX_LOSSES,
    AT_MOST_ONCE,
    KEY,
    CKEY,
    CKEY_MAX,
    TTL,
    PAYLOAD,
    ERROR,
    RESULT,
    STDOUT_SIZE,
    STDERR_SIZE,
    CPU_USER,
    CPU_SYSTEM,
    MAX_RSS,
    PAGE_COUNT
};

static const struct hp_cli_column columns[PAGE_COUNT] = {
    [ID] = {"id", true, true, false, "Id"},
    [STATE] = {"state", true, false, false, "State"},
    [QUEUE] = {"queue", true, false, true, "Queue"},
    [NAME] = {"name", true, false, true, "Name"},
    [WAIT] = {"wait", true, true, false, "Time from submit to start"},
    [RUN] = {"run", true, true, false, "Time it has run"},
    [HOST] = {"host", true, false, true, "Worker of the last attempt"},
    [REASON] = {"reason", true, false, true, "Why it failed"},
    [BATCH] = {"batch", false, false, true, "Batch"},
    [USER] = {"user", false, false, false, "Who submitted it"},
    [PRIORITY] = {"priority", false, true, false, "Priority"},
    [ATTEMPT] = {"attempt", false, true, false, "Number of the last attempt"},
    [EXIT_CODE] = {"exit_code", false, true, false, "Exit code"},
    [SIGNAL] = {"signal", false, true, false, "Signal that killed it"},
    [CREATED] = {"created", false, false, false, "When it was submitted"},
    [STARTED] = {"started", false, false, false, "When the last attempt started"},
    [ENDED] = {"ended", false, false, false, "When it ended"},
    [CPUS] = {"cpus", false, true, false, "Slots it takes"},
    [MEM] = {"mem", false, true, false, "Memory reserved"},
    [COMMAND] = {"command", false, false, true, "Command and arguments, or function"},
    [KIND] = {"kind", false, false, false, "command or function"},
    [FUNCTION] = {"function", false, false, false, "Function"},
    [GROUP] = {"array", false, false, false, "First id of the array or submit it belongs to"},
    [GROUP_COUNT] = {"array_count", false, false, false, "Tasks of it"},
    [INDEX] = {"array_index", false, false, false, "Its number in it"},
    [TAGS] = {"need", false, false, false, "Tags its worker must have"},
    [ENV] = {"env", false, false, false, "Variables set"},
    [CWD] = {"cwd", false, false, false, "Directory"},
    [FAILURES] = {"failures", false, false, false, "Failed attempts"},
    [LOSSES] = {"losses", false, false, false, "Lost attempts"},
    [RUN_AT] = {"run_at", false, false, false, "When it may start"},
    [DELAY] = {"delay", false, false, false, "Delay"},
    [EXPIRE] = {"expire", false, false, false, "Expiry"},
    [DEADLINE] = {"deadline", false, false, false, "Deadline"},
    [SOFT_TIMEOUT] = {"soft_timeout", false, false, false, "Soft timeout"},
    [TIMEOUT] = {"timeout", false, false, false, "Hard timeout"},
    [RETRIES] = {"retries", false, false, false, "Retries allowed"},
    [MAX_LOSSES] = {"max_losses", false, false, false, "Losses allowed"},
    [AT_MOST_ONCE] = {"at_most_once", false, false, false, "Never run twice"},
    [KEY] = {"key", false, false, false, "Unique key"},
    [CKEY] = {"ckey", false, false, false, "Concurrency key"},
    [CKEY_MAX] = {"ckey_max", false, false, false, "Its limit"},
    [TTL] = {"ttl", false, false, false, "How long the result is kept"},
    [PAYLOAD] = {"payload_size", false, false, false, "Bytes of its input"},
    [ERROR] = {"error", false, false, false, "Error"},
    [RESULT] = {"result", false, false, false, "Result of the function"},
    [STDOUT_SIZE] = {"stdout_size", false, false, false, "Bytes written to standard output"},
    [STDERR_SIZE] = {"stderr_size", false, false, false, "Bytes written to standard error"},
    [CPU_USER] = {"cpu_user", false, false, false, "CPU time of its own"},
    [CPU_SYSTEM] = {"cpu_system", false, false, false, "CPU time in the kernel"},
    [MAX_RSS] = {"max_rss", false, false, false, "Peak memory"},
};

static void set_text(struct hp_cli_cell *cell, const char *text)
{
    cell->kind = text != NULL ? HP_CLI_CELL_TEXT : HP_CLI_CELL_NONE;
    cell->text = text;
}

static void set_number(struct hp_cli_cell *cell, uint64_t number)
{
    cell->kind = HP_CLI_CELL_NUMBER;
    cell->number = number;
}

static void set_time(struct hp_cli_cell *cell, int64_t at_ms)
{
    cell->kind = at_ms != 0 ? HP_CLI_CELL_TIME : HP_CLI_CELL_NONE;
    cell->signed_number = at_ms;
}

/* Not shown when 0, which means "none" in all options. */
static void set_duration(struct hp_cli_cell *cell, uint64_t duration_ms)
{
    cell->kind = duration_ms != 0 ? HP_CLI_CELL_DURATION : HP_CLI_CELL_NONE;
    cell->number = duration_ms;
}

static void set_span(struct hp_cli_cell *cell, int64_t from_ms, int64_t to_ms)
{
    if (from_ms != 0) {
        cell->kind = HP_CLI_CELL_DURATION;
        cell->number = to_ms > from_ms ? (uint64_t)(to_ms - from_ms) : 0;
    }
}

static void set_size(struct hp_cli_cell *cell, uint64_t size)
{
    cell->kind = HP_CLI_CELL_SIZE;
    cell->number = size;
}

static void set_words(struct hp_cli_cell *cell, const char *const *words, size_t count)
{
    cell->kind = HP_CLI_CELL_WORDS;
    cell->words = words;
    cell->word_count = count;
}

static void state_cell(const struct hp_task *task, struct hp_cli_cell *cell)
{
    set_text(cell, hp_cli_state_word(task->state));
    switch (task->state) {
    case HP_STATE_DONE:
        cell->color = "green";
        break;
    case HP_STATE_FAILED:
    case HP_STATE_EXPIRED:
        cell->color = "red";
        break;
    case HP_STATE_LEASED:
    case HP_STATE_RUNNING:
    case HP_STATE_WAITING:
        cell->color = "cyan";
        break;
    case HP_STATE_CANCELLED:
    case HP_STATE_CANCELLING:
    case HP_STATE_BURIED:
        cell->color = "yellow";
        break;
    case HP_STATE_BLOCKED:
    case HP_STATE_DELAYED:
    case HP_STATE_READY:
    case HP_STATE_GONE:
    case HP_STATE_UNKNOWN:
        break;
    }
}

/* "exit 1", "SIGKILL", "timeout": short, for a column. */
static void reason_cell(const struct hp_task *task, struct hp_cli_cell *cell)
{
    char name[32];
    if (task->reason == HP_END_NONE) {
        return;
    }
    if (task->reason == HP_END_EXIT && task->end != NULL && task->end->has_exit_code) {
        set_text(cell, hp_cli_printf("exit %lld", (long long)task->end->exit_code));
    } else if ((task->reason == HP_END_SIGNAL || task->reason == HP_END_CHILD_SIGNAL) &&
               task->end != NULL && task->end->signal != 0) {
        set_text(cell, hp_cli_printf("%s", hp_cli_signal_name(task->end->signal, name)));
    } else {
        set_text(cell, hp_end_reason_word(task->reason));
    }
}

static bool is_started(const struct hp_task *task)
{
    return task->started_at_ms != 0 && task->state != HP_STATE_READY &&
           task->state != HP_STATE_DELAYED;
}

static void run_cell(const struct hp_cli *cli, const struct hp_task *task, struct hp_cli_cell *cell)
{
    if (task->end != NULL && task->end->run_us > 0) {
        cell->kind = HP_CLI_CELL_DURATION;
        cell->number = task->end->run_us / 1000;
    } else if (is_started(task)) {
        set_span(cell, task->started_at_ms,
                 task->ended_at_ms != 0 ? task->ended_at_ms : cli->now_ms);
    }
}

static void list_cell(const struct hp_cli *cli, const struct hp_task *task, size_t column,
                      struct hp_cli_cell *cell)
{
    int64_t until_ms = is_started(task)         ? task->started_at_ms
                       : task->ended_at_ms != 0 ? task->ended_at_ms
                                                : cli->now_ms;
    switch (column) {
    case ID:
        set_number(cell, task->id);
        break;
    case STATE:
        state_cell(task, cell);
        break;
    case WAIT:
        set_span(cell, task->created_at_ms, until_ms);
        break;
    case RUN:
        run_cell(cli, task, cell);
        break;
    case HOST:
        set_text(cell, task->node);
        break;
    case REASON:
        reason_cell(task, cell);
        break;
    case ATTEMPT:
        set_number(cell, task->attempt);
        break;
    case CREATED:
        set_time(cell, task->created_at_ms);
        break;
    case STARTED:
        set_time(cell, task->started_at_ms);
        break;
    case ENDED:
        set_time(cell, task->ended_at_ms);
        break;
    case GROUP:
        set_number(cell, task->group != 0 ? task->group : task->id);
        break;
    case GROUP_COUNT:
        set_number(cell, task->group_count);
        break;
    case FAILURES:
        set_number(cell, task->failures);
        break;
    case LOSSES:
        set_number(cell, task->losses);
        break;
    case RUN_AT:
        set_time(cell, task->run_at_ms);
        break;
    case PAYLOAD:
        set_size(cell, task->payload_size);
        break;
    default:
        break;
    }
}

static void end_cell(const struct hp_task *task, size_t column, struct hp_cli_cell *cell)
{
    const struct hp_end *end = task->end;
    enum hp_kind kind = task->options == NULL ? HP_KIND_COMMAND : task->options->kind;
    bool has_value = kind == HP_KIND_FUNCTION; /* what calls give is for their client only */
    if (end == NULL) {
        return;
    }
    switch (column) {
    case EXIT_CODE:
        cell->kind = end->has_exit_code ? HP_CLI_CELL_SIGNED : HP_CLI_CELL_NONE;
        cell->signed_number = end->exit_code;
        break;
    case SIGNAL:
        cell->kind = end->signal != 0 ? HP_CLI_CELL_NUMBER : HP_CLI_CELL_NONE;
        cell->number = end->signal;
        break;
    case ERROR:
        set_text(cell, end->error);
        break;
    case RESULT:
        if (has_value && task->state == HP_STATE_DONE && end->result_blob == 0) {
            set_text(cell, hp_cli_value_text(end->result.data, end->result.size));
        }
        break;
    case STDOUT_SIZE:
        if (!has_value) {
            set_size(cell, end->out_size);
        }
        break;
    case STDERR_SIZE:
        if (!has_value) {
            set_size(cell, end->err_size);
        }
        break;
    case CPU_USER:
        set_duration(cell, end->utime_us / 1000);
        break;
    case CPU_SYSTEM:
        set_duration(cell, end->stime_us / 1000);
        break;
    case MAX_RSS:
        set_size(cell, end->maxrss_kb * 1024);
        break;
    default:
        break;
    }
}

static void command_cell(const struct hp_options *options, struct hp_cli_cell *cell)
{
    if (options->kind == HP_KIND_POOL) {
        set_text(cell, hp_cli_printf("pool of %s", options->language));
        return;
    }
    if (options->kind == HP_KIND_CALL && options->fn == NULL) {
        set_text(cell, hp_cli_printf("call in pool %" PRIu64, options->pool));
        return;
    }
    if (options->kind != HP_KIND_COMMAND) {
        set_text(cell, options->fn);
        return;
    }
    set_text(cell, hp_cli_command_text(options->argv, options->argv_count));
}

static void time_option_cell(const struct hp_options *options, size_t column,
                             struct hp_cli_cell *cell)
{
    switch (column) {
    case DELAY:
        set_duration(cell, options->delay_ms);
        break;
    case EXPIRE:
        set_duration(cell, options->expire_ms);
        break;
    case DEADLINE:
        set_duration(cell, options->deadline_ms);
        break;
    case SOFT_TIMEOUT:
        set_duration(cell, options->soft_timeout_ms);
        break;
    case TIMEOUT:
        set_duration(cell, options->hard_timeout_ms);
        break;
    case TTL:
        set_duration(cell, options->result_ttl_ms);
        break;
    default:
        break;
    }
}

static void what_cell(const struct hp_task *task, size_t column, struct hp_cli_cell *cell)
{
    const struct hp_options *options = task->options;
    switch (column) {
    case COMMAND:
        command_cell(options, cell);
        break;
    case KIND:
        set_text(cell, hp_kind_word(options->kind));
        break;
    case FUNCTION:
        set_text(cell, options->fn);
        break;
    case INDEX:
        set_number(cell, options->array_base +
                             options->array_step *
                                 (task->id - (task->group != 0 ? task->group : task->id)));
        break;
    default:
        time_option_cell(options, column, cell);
        break;
    }
}

static void option_cell(const struct hp_task *task, size_t column, struct hp_cli_cell *cell)
{
    const struct hp_options *options = task->options;
    switch (column) {
    case QUEUE:
        set_text(cell, options->queue != NULL ? options->queue : "default");
        break;
    case NAME:
        set_text(cell, options->name);
        break;
    case BATCH:
        set_text(cell, options->batch);
        break;
    case USER:
        set_text(cell, options->user);
        break;
    case PRIORITY:
        set_number(cell, options->priority);
        break;
    case CPUS:
        set_number(cell, options->cpus);
        break;
    case MEM:
        set_size(cell, options->mem_bytes);
        break;
    case TAGS:
        set_words(cell, options->tags, options->tag_count);
        break;
    case ENV:
        set_words(cell, options->env, options->env_count);
        break;
    case CWD:
        set_text(cell, options->cwd);
        break;
    case RETRIES:
        set_number(cell, options->max_retries);
        break;
    case MAX_LOSSES:
        set_number(cell, options->max_losses);
        break;
    case AT_MOST_ONCE:
        cell->kind = HP_CLI_CELL_BOOL;
        cell->number = options->at_most_once;
        break;
    case KEY:
        set_text(cell, options->ukey);
        break;
    case CKEY:
        set_text(cell, options->ckey);
        break;
    case CKEY_MAX:
        if (options->ckey != NULL) {
            set_number(cell, options->ckey_max);
        }
        break;
    default:
        what_cell(task, column, cell);
        break;
    }
}

static void task_cell(const struct hp_cli *cli, const void *row, size_t column,
                      struct hp_cli_cell *cell)
{
    const struct hp_task *task = row;
    list_cell(cli, task, column, cell);
    if (cell->kind == HP_CLI_CELL_NONE) {
        end_cell(task, column, cell);
    }
    if (cell->kind == HP_CLI_CELL_NONE && task->options != NULL) {
        option_cell(task, column, cell);
    }
}

const struct hp_cli_listing_spec hp_cli_task_listing = {.list_name = "tasks",
                                                        .columns = columns,
                                                        .column_count = LIST_COUNT,
                                                        .id_column = ID,
                                                        .cell = task_cell};
const struct hp_cli_listing_spec hp_cli_task_page = {.list_name = "tasks",
                                                     .columns = columns,
                                                     .column_count = PAGE_COUNT,
                                                     .id_column = ID,
                                                     .cell = task_cell};
