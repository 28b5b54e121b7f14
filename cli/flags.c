/* SPDX-License-Identifier: BSD-2-Clause */
/* The flags of the command line: one row each. */
#include "cli/table.h"

#define YEARS_100_MS UINT64_C(3155760000000)
#define DAY_MS UINT64_C(86400000)
#define BLOB_BYTES UINT64_C(1073741824)

static const char *const color_words[] = {"auto", "always", "never", NULL};
static const char *const conflict_words[] = {"join", "reject", "replace", NULL};
static const char *const partition_words[] = {"kill", "continue", NULL};
static const char *const mode_words[] = {"force", "soft", "queued", NULL};

#define FLAG(name_, letter_, text_) {.name = name_, .letter = letter_, .text = text_}
#define TEXT(name_, letter_, value_, complete_, text_)                                             \
    {.name = name_, .letter = letter_, .type = HP_CLI_TYPE_TEXT, .value_name = value_,             \
     .complete = complete_, .text = text_}
#define LIST(name_, letter_, value_, text_)                                                        \
    {.name = name_, .letter = letter_, .type = HP_CLI_TYPE_LIST, .value_name = value_,             \
     .text = text_}
#define NUMBER(name_, letter_, min_, max_, text_)                                                  \
    {.name = name_, .letter = letter_, .type = HP_CLI_TYPE_NUMBER, .value_name = "N", .min = min_, \
     .max = max_, .text = text_}
#define DURATION(name_, max_, text_)                                                               \
    {.name = name_, .type = HP_CLI_TYPE_DURATION, .value_name = "DURATION", .max = max_,           \
     .text = text_}
#define CHOICE(name_, value_, words_, text_)                                                       \
    {.name = name_, .type = HP_CLI_TYPE_CHOICE, .value_name = value_, .choices = words_,           \
     .text = text_}

/* clang-format off: a table */
const struct hp_cli_flag hp_cli_flags[HP_CLI_FLAG_COUNT] = {
    [HP_CLI_F_HOST] = TEXT("host", 'H', "HOST[:PORT]", HP_CLI_COMPLETE_NOTHING,
        "The broker. Default: $HOSTPOOL_HOST, else 127.0.0.1:7741."),
    [HP_CLI_F_TOKEN_FILE] = TEXT("token-file", 0, "FILE", HP_CLI_COMPLETE_FILE,
        "Read the token from the first line of FILE. Default: $HOSTPOOL_TOKEN_FILE."),
    [HP_CLI_F_COLOR] = CHOICE("color", "WHEN", color_words,
        "Colours: auto, always or never. Default: auto (on a terminal, unless $NO_COLOR is set)."),
    [HP_CLI_F_NO_INPUT] = FLAG("no-input", 0, "Never read from a terminal: fail instead."),
    [HP_CLI_F_VERBOSE] = FLAG("verbose", 'v', "Say more on standard error."),
    [HP_CLI_F_HELP] = FLAG("help", 'h', "Show this help and exit."),
    [HP_CLI_F_VERSION] = FLAG("version", 0, "Show the version and exit."),
    [HP_CLI_F_JSON] = FLAG("json", 0, "Print one JSON document."),
    [HP_CLI_F_JSONL] = FLAG("jsonl", 0, "Print JSON, one object a line."),
    [HP_CLI_F_OUTPUT] = TEXT("output", 'o', "COLUMNS", HP_CLI_COMPLETE_NOTHING,
        "Columns to print, separated by commas; +COLUMN adds one to the usual ones. "
        "-o help lists them."),
    [HP_CLI_F_NO_HEADER] = FLAG("no-header", 0, "Print no heading above a table."),
    [HP_CLI_F_QUIET] = FLAG("quiet", 'q', "Print identifiers only, one a line."),
    [HP_CLI_F_UTC] = FLAG("utc", 0, "Print times in UTC instead of the local time zone."),
    [HP_CLI_F_LIMIT] = NUMBER("limit", 0, 1, 1000000000,
        "Print at most N tasks, the newest. Default: 100 on a terminal, else all."),
    [HP_CLI_F_QUEUE] = TEXT("queue", 'Q', "QUEUE", HP_CLI_COMPLETE_QUEUE,
        "Queue to put it on. Default: default."),
    [HP_CLI_F_NAME] = TEXT("name", 'n', "NAME", HP_CLI_COMPLETE_NOTHING,
        "Name for people. Default: the program's."),
    [HP_CLI_F_BATCH] = TEXT("batch", 0, "NAME", HP_CLI_COMPLETE_NOTHING,
        "Name of a batch of tasks, for the selector @NAME."),
    [HP_CLI_F_CPUS] = NUMBER("cpus", 0, 1, 4096, "Slots it takes on its worker. Default: 1."),
    [HP_CLI_F_MEM] = {.name = "mem", .type = HP_CLI_TYPE_SIZE, .value_name = "SIZE",
        .max = UINT64_MAX, .text = "Memory reserved on its worker. Default: none."},
    [HP_CLI_F_NEED] = LIST("need", 0, "TAG", "Tag its worker must have. May be given again."),
    [HP_CLI_F_PRIORITY] = NUMBER("priority", 'p', 0, 255,
        "Priority, 0 to 255; higher goes first, and who waits gains a level each minute. "
        "Default: 100."),
    [HP_CLI_F_DELAY] = DURATION("delay", YEARS_100_MS, "Start no earlier than this from now."),
    [HP_CLI_F_AT] = {.name = "at", .type = HP_CLI_TYPE_TIME, .value_name = "TIME",
        .text = "Start no earlier than this time: RFC 3339, or +DURATION from now."},
    [HP_CLI_F_EXPIRE] = DURATION("expire", YEARS_100_MS,
        "Let it expire if it has not started this long from now."),
    [HP_CLI_F_DEADLINE] = DURATION("deadline", YEARS_100_MS,
        "Start no attempt later than this from now, retries included."),
    [HP_CLI_F_TIMEOUT] = DURATION("timeout", YEARS_100_MS,
        "Hard timeout: kill it, and all it started, after this run time."),
    [HP_CLI_F_SOFT_TIMEOUT] = DURATION("soft-timeout", YEARS_100_MS,
        "Soft timeout: send it SIGTERM after this run time."),
    [HP_CLI_F_KILL_GRACE] = DURATION("kill-grace", 3600000,
        "Time between SIGTERM and SIGKILL. Default: 10s."),
    [HP_CLI_F_RETRIES] = NUMBER("retries", 0, 0, 1000000,
        "Run it again up to N times when it fails. Default: 0."),
    [HP_CLI_F_RETRY_DELAY] = DURATION("retry-delay", DAY_MS,
        "Pause before the first retry; it doubles with each, up to 10m. Default: 2s."),
    [HP_CLI_F_MAX_LOSSES] = NUMBER("max-losses", 0, 0, 1000000,
        "Run it again up to N times when its worker is lost. Default: 10."),
    [HP_CLI_F_KEY] = TEXT("key", 0, "KEY", HP_CLI_COMPLETE_NOTHING,
        "Unique key: at most one unfinished task of a queue has it. A second submit answers "
        "with the first one's id (see --on-conflict)."),
    [HP_CLI_F_ON_CONFLICT] = CHOICE("on-conflict", "HOW", conflict_words,
        "When the key is held: join (take the id of its holder), reject, or replace (cancel the "
        "holder if it does not run yet). Default: join."),
    [HP_CLI_F_CKEY] = TEXT("ckey", 0, "KEY", HP_CLI_COMPLETE_NOTHING,
        "Concurrency key: at most --ckey-max tasks with it run at once."),
    [HP_CLI_F_CKEY_MAX] = NUMBER("ckey-max", 0, 1, 1000000, "Limit of --ckey. Default: 1."),
    [HP_CLI_F_AT_MOST_ONCE] = FLAG("at-most-once", 0,
        "Never run it a second time: if its worker is lost, it has failed."),
    [HP_CLI_F_ON_PARTITION] = CHOICE("on-partition", "HOW", partition_words,
        "When its worker can not reach the broker for long: kill it, or let it continue. "
        "Default: kill."),
    [HP_CLI_F_TTL] = DURATION("ttl", YEARS_100_MS, "Keep its result this long. Default: 7d."),
    [HP_CLI_F_ENV] = LIST("env", 0, "KEY=VALUE",
        "Set a variable in its environment, which is otherwise a clean one. KEY alone passes on "
        "the value it has here. May be given again."),
    [HP_CLI_F_CWD] = TEXT("cwd", 0, "DIR", HP_CLI_COMPLETE_DIR,
        "Directory on the worker to run it in. Default: the current one; \"-\" is a directory "
        "of the worker's own."),
    [HP_CLI_F_STDIN] = TEXT("stdin", 0, "FILE", HP_CLI_COMPLETE_FILE,
        "Bytes for its standard input; \"-\" reads standard input to its end. Default: empty."),
    [HP_CLI_F_OUTPUT_CAP] = {.name = "output-cap", .type = HP_CLI_TYPE_SIZE, .value_name = "SIZE",
        .max = BLOB_BYTES,
        .text = "Bytes kept of its standard output, and of its standard error; of more, the end is "
                "kept. Default: 1M (run and map: 16M)."},
    [HP_CLI_F_FUNCTION] = TEXT("function", 0, "NAME", HP_CLI_COMPLETE_NOTHING,
        "Run a function of a module that workers have loaded, instead of a command."),
    [HP_CLI_F_ARGS] = TEXT("args", 0, "JSON", HP_CLI_COMPLETE_NOTHING,
        "Arguments of the function: a JSON array. With map, the string \"{}\" in it stands for "
        "the input. Default: [] (map: [\"{}\"])."),
    [HP_CLI_F_ARRAY] = TEXT("array", 0, "RANGE", HP_CLI_COMPLETE_NOTHING,
        "Submit one task for each number of FIRST-LAST or FIRST-LAST:STEP; each finds its number "
        "in $HOSTPOOL_ARRAY_INDEX."),
    [HP_CLI_F_WAIT] = FLAG("wait", 0, "Wait until it has ended; exit as `hostpool wait' does."),
    [HP_CLI_F_MAP_NAME] = TEXT("name", 'n', "BATCH", HP_CLI_COMPLETE_NOTHING,
        "Name of the batch, for the selector @BATCH. Default: a new one."),
    [HP_CLI_F_JOBS] = NUMBER("jobs", 'j', 1, 1000000,
        "Have at most N tasks in flight. Default: what the workers take."),
    [HP_CLI_F_BAR] = FLAG("bar", 0, "Show progress on standard error, if it is a terminal."),
    [HP_CLI_F_JOBLOG] = TEXT("joblog", 0, "FILE", HP_CLI_COMPLETE_FILE,
        "Write a line for each task that ended: Seq, Host, Starttime, JobRuntime, Send, Receive, "
        "Exitval, Signal, Command, divided by tabs."),
    [HP_CLI_F_RESULTS] = TEXT("results", 0, "DIR", HP_CLI_COMPLETE_DIR,
        "Also write DIR/SEQ/stdout, stderr, exitval and input for each task."),
    [HP_CLI_F_RESUME] = FLAG("resume", 0, "Leave out inputs which the joblog has already."),
    [HP_CLI_F_RETRY_FAILED] = FLAG("retry-failed", 0,
        "Run those inputs again that failed according to the joblog; with --resume also those "
        "that are not in it."),
    [HP_CLI_F_HALT] = TEXT("halt", 0, "WHEN,WHY", HP_CLI_COMPLETE_NOTHING,
        "Stop early. WHEN: soon (start no more) or now (cancel what runs, too); WHY: fail=N, "
        "fail=N%, success=N, done=N. Or never, the default."),
    [HP_CLI_F_KEEP_ORDER] = FLAG("keep-order", 'k', "Print outputs in the order of the inputs."),
    [HP_CLI_F_TAG] = FLAG("tag", 0, "Begin each line of output with its input and a tab."),
    [HP_CLI_F_DRY_RUN] = FLAG("dry-run", 0, "Print the commands, run nothing."),
    [HP_CLI_F_NULL] = FLAG("null", '0', "Inputs in files end with NUL bytes, not newlines."),
    [HP_CLI_F_ARG_FILE] = TEXT("arg-file", 'a', "FILE", HP_CLI_COMPLETE_FILE,
        "Read inputs from FILE, as with :::: FILE."),
    [HP_CLI_F_FOLLOW] = FLAG("follow", 'f', "Go on until the task has ended."),
    [HP_CLI_F_STDERR] = FLAG("stderr", 0, "Print standard error instead of both streams."),
    [HP_CLI_F_ANY] = FLAG("any", 0, "Wait until one of them has ended."),
    [HP_CLI_F_ALL] = FLAG("all", 0, "Wait until all of them have ended. The default."),
    [HP_CLI_F_WAIT_TIMEOUT] = DURATION("timeout", YEARS_100_MS,
        "Wait no longer than this; then exit with 124."),
    [HP_CLI_F_SIGNAL] = {.name = "signal", .type = HP_CLI_TYPE_SIGNAL, .value_name = "SIGNAL",
        .text = "Only send this signal to what runs (TERM, USR1, 15); cancel nothing."},
    [HP_CLI_F_MODE] = CHOICE("mode", "HOW", mode_words,
        "How far to go: force (SIGTERM, then SIGKILL), soft (SIGTERM only), queued (only tasks "
        "that do not run). Default: force."),
    [HP_CLI_F_GRACE] = DURATION("grace", 3600000,
        "Time between SIGTERM and SIGKILL. Default: 10s."),
    [HP_CLI_F_REASON] = TEXT("reason", 0, "TEXT", HP_CLI_COMPLETE_NOTHING, "Reason, for people."),
    [HP_CLI_F_WORKERS] = NUMBER("workers", 'w', 1, 64, "Workers to start. Default: 1."),
    [HP_CLI_F_SLOTS] = NUMBER("slots", 0, 1, 4096,
        "Slots of each worker. Default: the CPUs of this host, divided among them."),
    [HP_CLI_F_MODULE] = {.name = "module", .type = HP_CLI_TYPE_LIST, .value_name = "FILE",
        .complete = HP_CLI_COMPLETE_FILE,
        .text = "Module with C functions that the workers load. May be given again."},
    [HP_CLI_F_MAN] = {.name = "man", .type = HP_CLI_TYPE_TEXT, .value_name = "PAGE",
        .is_hidden = true, .text = "Print the scdoc source of a manual page."},
    [HP_CLI_F_MARKDOWN] = {.name = "markdown", .is_hidden = true, .text = "Print docs/cli.md."},
    [HP_CLI_F_COMPLETE] = {.name = "complete", .is_hidden = true,
        .text = "Print what the last word could become."},
};
