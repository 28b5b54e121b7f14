/* SPDX-License-Identifier: BSD-2-Clause */
/* The verbs of the command line: one row each. */
#include "cli/table.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#define END HP_CLI_FLAG_COUNT
#define ANY_NUMBER UINT_MAX
#define GROUP(name_, title_, ...)                                                                  \
    static const enum hp_cli_flag_id name_##_ids[] = {__VA_ARGS__, END};                           \
    static const struct hp_cli_group name_ = {.title = title_, .ids = name_##_ids}

/* clang-format off: tables */
static const enum hp_cli_flag_id global_ids[] = {
    HP_CLI_F_HOST,    HP_CLI_F_TOKEN_FILE, HP_CLI_F_COLOR,   HP_CLI_F_NO_INPUT,
    HP_CLI_F_VERBOSE, HP_CLI_F_HELP,       HP_CLI_F_VERSION, END};
const struct hp_cli_group hp_cli_group_global = {.title = "General options", .ids = global_ids};

GROUP(group_output, "Output options", HP_CLI_F_JSON, HP_CLI_F_JSONL, HP_CLI_F_OUTPUT,
      HP_CLI_F_NO_HEADER, HP_CLI_F_QUIET, HP_CLI_F_UTC);
GROUP(group_document, "Output options", HP_CLI_F_JSON, HP_CLI_F_JSONL, HP_CLI_F_UTC);
GROUP(group_limit, "Options", HP_CLI_F_LIMIT);
GROUP(group_task, "Options of the task", HP_CLI_F_QUEUE, HP_CLI_F_NAME, HP_CLI_F_BATCH,
      HP_CLI_F_PRIORITY, HP_CLI_F_CPUS, HP_CLI_F_MEM, HP_CLI_F_NEED, HP_CLI_F_FUNCTION,
      HP_CLI_F_ARGS, HP_CLI_F_ENV, HP_CLI_F_CWD, HP_CLI_F_STDIN, HP_CLI_F_OUTPUT_CAP, HP_CLI_F_TTL);
GROUP(group_map_task, "Options of the tasks", HP_CLI_F_QUEUE, HP_CLI_F_PRIORITY, HP_CLI_F_CPUS,
      HP_CLI_F_MEM, HP_CLI_F_NEED, HP_CLI_F_FUNCTION, HP_CLI_F_ARGS, HP_CLI_F_ENV, HP_CLI_F_CWD,
      HP_CLI_F_OUTPUT_CAP, HP_CLI_F_TTL);
GROUP(group_time, "When it runs, how long, how often", HP_CLI_F_DELAY, HP_CLI_F_AT, HP_CLI_F_EXPIRE,
      HP_CLI_F_DEADLINE, HP_CLI_F_TIMEOUT, HP_CLI_F_SOFT_TIMEOUT, HP_CLI_F_KILL_GRACE,
      HP_CLI_F_RETRIES, HP_CLI_F_RETRY_DELAY, HP_CLI_F_MAX_LOSSES, HP_CLI_F_AT_MOST_ONCE,
      HP_CLI_F_ON_PARTITION, HP_CLI_F_CKEY, HP_CLI_F_CKEY_MAX);
GROUP(group_key, "Unique tasks", HP_CLI_F_KEY, HP_CLI_F_ON_CONFLICT);
GROUP(group_submit, "Options", HP_CLI_F_ARRAY, HP_CLI_F_WAIT, HP_CLI_F_QUIET, HP_CLI_F_JSON);
GROUP(group_map, "Options", HP_CLI_F_JOBS, HP_CLI_F_MAP_NAME, HP_CLI_F_BAR, HP_CLI_F_KEEP_ORDER,
      HP_CLI_F_TAG, HP_CLI_F_JOBLOG, HP_CLI_F_RESULTS, HP_CLI_F_RESUME, HP_CLI_F_RETRY_FAILED,
      HP_CLI_F_HALT, HP_CLI_F_ARG_FILE, HP_CLI_F_NULL, HP_CLI_F_DRY_RUN);
GROUP(group_logs, "Options", HP_CLI_F_FOLLOW, HP_CLI_F_STDERR);
GROUP(group_wait, "Options", HP_CLI_F_ANY, HP_CLI_F_ALL, HP_CLI_F_WAIT_TIMEOUT);
GROUP(group_cancel, "Options", HP_CLI_F_MODE, HP_CLI_F_GRACE, HP_CLI_F_REASON, HP_CLI_F_SIGNAL);
GROUP(group_drain, "Options", HP_CLI_F_REASON);
GROUP(group_broker_wait, "Options", HP_CLI_F_WAIT_TIMEOUT);
GROUP(group_dev, "Options", HP_CLI_F_WORKERS, HP_CLI_F_SLOTS, HP_CLI_F_MODULE);
GROUP(group_help, "Options", HP_CLI_F_MAN, HP_CLI_F_MARKDOWN, HP_CLI_F_COMPLETE);

const struct hp_cli_noun hp_cli_nouns[] = {
    {"queue", "Look at queues, pause and resume them"},
    {"pool", "Look at pools, close and terminate them"},
    {"worker", "Look at workers, drain and resume them"},
    {"broker", "Look after the broker"},
};
const size_t hp_cli_noun_count = sizeof(hp_cli_nouns) / sizeof(hp_cli_nouns[0]);

const struct hp_cli_verb hp_cli_verbs[] = {
    {.name = "submit",
     .operands = "[--] COMMAND [ARGUMENT]...",
     .summary = "Submit a task and print its id",
     .text =
         "Submits COMMAND with its arguments as one task, or as many with --array, and prints the "
         "id. When the id is printed, the task is on the broker's disk. No shell is between: for "
         "pipes and the like submit `sh -c '...'`.\n\n"
         "With --function a function of a worker's module is called instead of a command.\n\n"
         "With --wait the command waits for the end and exits with 0 if all succeeded, 1 if one "
         "did not.",
     .groups = {&group_submit, &group_task, &group_time, &group_key},
     .examples = {"hostpool submit -- tar czf /backup/home.tgz /home",
                  "hostpool submit -Q gpu --cpus 4 --need cuda --retries 2 -- ./train.py",
                  "hostpool submit --array 1-100 -- sh -c './step $HOSTPOOL_ARRAY_INDEX'",
                  "hostpool submit --function add --args '[1, 2]'"},
     .operand_max = ANY_NUMBER,
     .is_command = true,
     .complete = HP_CLI_COMPLETE_COMMAND,
     .run = hp_cli_submit},
    {.name = "run",
     .operands = "[--] COMMAND [ARGUMENT]...",
     .summary = "Run a command on a worker as if it ran here",
     .text =
         "Submits COMMAND, streams its standard output and standard error while it runs, and exits "
         "with its exit code. SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on "
         "to it; a second Ctrl-C cancels it and exits with 130.\n\n"
         "Exit codes: the command's own; 124 if --timeout ran out, 125 if hostpool itself failed, "
         "126 if the command could not be executed on the worker, 127 if it was not found there, "
         "128+N if signal N killed it. Wrong usage is 2.\n\n"
         "With --function the function's result is printed as JSON.",
     .groups = {&group_task, &group_time, &group_key},
     .examples = {"hostpool run -- make -j4 test", "hostpool run --stdin data.csv -- sort -t, -k2",
                  "hostpool run --function add --args '[1, 2]'"},
     .operand_max = ANY_NUMBER,
     .is_command = true,
     .complete = HP_CLI_COMPLETE_COMMAND,
     .run = hp_cli_run},
    {.name = "map",
     .operands = "[--] COMMAND [ARGUMENT]... [::: INPUT... | :::: FILE]",
     .summary = "Run a command once for each input, on all workers",
     .text =
         "Runs COMMAND once for each input and prints the outputs, each task's in one piece, as "
         "the tasks end. Inputs are the words after :::, or the lines of the files after ::::, or "
         "else the lines of standard input. Inputs are read as they are needed, so there may be "
         "millions of them.\n\n"
         "In the command these are replaced; if none is there, the input is added at the end:\n\n"
         "    {}    the input              {.}   without its extension\n"
         "    {/}   its last component     {//}  its directory\n"
         "    {/.}  last component without extension\n"
         "    {#}   number of the input, from 1\n\n"
         "Exit code: 0 if all succeeded, 1 if one did not, 130 after Ctrl-C, which cancels what is "
         "queued and what runs.",
     .groups = {&group_map, &group_map_task, &group_time},
     .examples = {"hostpool map --bar -- convert -resize 200 {} out/{/} ::: photos/*.jpg",
                  "find /usr/share/doc -type f | hostpool map -j 32 -- sha256sum {}",
                  "hostpool map --joblog log --resume --retry-failed -- ./fetch {} :::: urls.txt",
                  "hostpool map --function square --keep-order ::: 1 2 3"},
     .operand_max = ANY_NUMBER,
     .is_command = true,
     .complete = HP_CLI_COMPLETE_COMMAND,
     .run = hp_cli_map},
    {.name = "ls",
     .operands = "[SELECTOR | FILTER]...",
     .summary = "List tasks",
     .text = "Lists tasks, the newest first: without operands your unfinished ones. See `hostpool "
             "help selectors` and `hostpool help filters`.",
     .groups = {&group_limit, &group_output},
     .examples = {"hostpool ls", "hostpool ls state=failed since=2h",
                  "hostpool ls @thumbs state=running -o +run,host",
                  "hostpool ls --json user=any queue=gpu | jq '.tasks[].id'"},
     .operand_max = ANY_NUMBER,
     .complete = HP_CLI_COMPLETE_FILTER,
     .run = hp_cli_ls},
    {.name = "show",
     .operands = "SELECTOR...",
     .summary = "Show all there is to know about tasks",
     .text = "Shows state, options, times, figures and the end of tasks.",
     .groups = {&group_document},
     .examples = {"hostpool show last", "hostpool show --json 1234 | jq .tasks[0].exit_code"},
     .operand_min = 1,
     .operand_max = ANY_NUMBER,
     .complete = HP_CLI_COMPLETE_TASK,
     .run = hp_cli_show},
    {.name = "logs",
     .operands = "SELECTOR...",
     .summary = "Print what tasks wrote",
     .text =
         "Prints standard output on standard output and standard error on standard error, as kept "
         "(see --output-cap). Of a function it prints the result, as JSON. With --follow it goes "
         "on while the task runs.",
     .groups = {&group_logs},
     .examples = {"hostpool logs last", "hostpool logs -f 1234", "hostpool logs --stderr 5-9"},
     .operand_min = 1,
     .operand_max = ANY_NUMBER,
     .complete = HP_CLI_COMPLETE_TASK,
     .run = hp_cli_logs},
    {.name = "wait",
     .operands = "SELECTOR...",
     .summary = "Wait until tasks have ended",
     .text = "Exits with 0 if all of them (with --any: the one that ended) succeeded, 1 if not, "
             "124 if the timeout ran out. Restarts of the broker are waited out.",
     .groups = {&group_wait, &group_document},
     .examples = {"hostpool wait last", "hostpool wait --timeout 10m @thumbs"},
     .operand_min = 1,
     .operand_max = ANY_NUMBER,
     .complete = HP_CLI_COMPLETE_TASK,
     .run = hp_cli_wait},
    {.name = "cancel",
     .operands = "SELECTOR...",
     .summary = "Cancel tasks, or send them a signal",
     .text = "Cancels what is queued and ends what runs: SIGTERM, then SIGKILL after the grace "
             "time. It is durable when the command returns. Tasks that had ended already are no "
             "error. With --signal nothing is cancelled: running tasks only get the signal.",
     .groups = {&group_cancel, &group_document},
     .examples = {"hostpool cancel 1234", "hostpool cancel --mode queued @thumbs",
                  "hostpool cancel --signal USR1 last"},
     .operand_min = 1,
     .operand_max = ANY_NUMBER,
     .complete = HP_CLI_COMPLETE_TASK,
     .run = hp_cli_cancel},
    {.name = "why",
     .operands = "SELECTOR...",
     .summary = "Explain why a task is where it is",
     .text = "Says in words what a task waits for, which worker could run it and what to do.",
     .groups = {&group_document},
     .examples = {"hostpool why 1235"},
     .operand_min = 1,
     .operand_max = ANY_NUMBER,
     .complete = HP_CLI_COMPLETE_TASK,
     .run = hp_cli_why},
    {.name = "stats",
     .operands = "",
     .summary = "Show figures of the whole pool",
     .text = "Shows the figures of queues, workers and the broker on one page.",
     .groups = {&group_document},
     .examples = {"hostpool stats", "hostpool stats --json | jq .workers.slots"},
     .run = hp_cli_stats},
    {.noun = "queue",
     .name = "ls",
     .operands = "",
     .summary = "List queues",
     .text = "Lists all queues with their figures.",
     .groups = {&group_output},
     .examples = {"hostpool queue ls", "hostpool queue ls --json"},
     .run = hp_cli_queue_ls},
    {.noun = "queue",
     .name = "show",
     .operands = "QUEUE",
     .summary = "Show one queue",
     .text = "Shows the figures of one queue.",
     .groups = {&group_document},
     .examples = {"hostpool queue show default"},
     .operand_min = 1,
     .operand_max = 1,
     .complete = HP_CLI_COMPLETE_QUEUE,
     .run = hp_cli_queue_show},
    {.noun = "queue",
     .name = "pause",
     .operands = "QUEUE...",
     .summary = "Start no more tasks of a queue",
     .text = "Tasks that run go on; tasks may still be submitted. It is durable.",
     .examples = {"hostpool queue pause gpu"},
     .operand_min = 1,
     .operand_max = ANY_NUMBER,
     .complete = HP_CLI_COMPLETE_QUEUE,
     .run = hp_cli_queue_pause},
    {.noun = "queue",
     .name = "resume",
     .operands = "QUEUE...",
     .summary = "Start tasks of a paused queue again",
     .text = "Undoes `hostpool queue pause`.",
     .examples = {"hostpool queue resume gpu"},
     .operand_min = 1,
     .operand_max = ANY_NUMBER,
     .complete = HP_CLI_COMPLETE_QUEUE,
     .run = hp_cli_queue_resume},
    {.noun = "pool",
     .name = "ls",
     .operands = "",
     .summary = "List pools",
     .text = "Lists the pools that have not ended, with their children and calls. A pool is a "
             "task, too: `hostpool wait`, `show`, `why` and `cancel` take its id.",
     .groups = {&group_output},
     .examples = {"hostpool pool ls", "hostpool pool ls -o +language,user,created"},
     .run = hp_cli_pool_ls},
    {.noun = "pool",
     .name = "show",
     .operands = "ID",
     .summary = "Show one pool and its children",
     .text = "Shows one pool with the process ids of its children.",
     .groups = {&group_document},
     .examples = {"hostpool pool show 4711"},
     .operand_min = 1,
     .operand_max = 1,
     .run = hp_cli_pool_show},
    {.noun = "pool",
     .name = "close",
     .operands = "ID...",
     .summary = "End pools when their calls have ended",
     .text = "The pool takes no new calls; those it has are run, then its children end. It is "
             "durable. To wait for the end: `hostpool wait ID`.",
     .examples = {"hostpool pool close 4711 && hostpool wait 4711"},
     .operand_min = 1,
     .operand_max = ANY_NUMBER,
     .run = hp_cli_pool_close},
    {.noun = "pool",
     .name = "terminate",
     .operands = "ID...",
     .summary = "End pools and their calls now",
     .text = "Calls that wait are dropped, those that run get SIGTERM, then SIGKILL. It is "
             "durable.",
     .examples = {"hostpool pool terminate 4711"},
     .operand_min = 1,
     .operand_max = ANY_NUMBER,
     .run = hp_cli_pool_terminate},
    {.noun = "worker",
     .name = "ls",
     .operands = "",
     .summary = "List workers",
     .text = "Lists all workers the broker knows.",
     .groups = {&group_output},
     .examples = {"hostpool worker ls", "hostpool worker ls -o +tags,functions"},
     .run = hp_cli_worker_ls},
    {.noun = "worker",
     .name = "show",
     .operands = "WORKER",
     .summary = "Show one worker",
     .text = "Shows one worker with its tags and functions.",
     .groups = {&group_document},
     .examples = {"hostpool worker show n7"},
     .operand_min = 1,
     .operand_max = 1,
     .complete = HP_CLI_COMPLETE_WORKER,
     .run = hp_cli_worker_show},
    {.noun = "worker",
     .name = "drain",
     .operands = "WORKER...",
     .summary = "Give a worker no new tasks",
     .text = "What runs there goes on. It is durable: it holds over restarts of worker and broker.",
     .groups = {&group_drain},
     .examples = {"hostpool worker drain n7 --reason 'new disk'"},
     .operand_min = 1,
     .operand_max = ANY_NUMBER,
     .complete = HP_CLI_COMPLETE_WORKER,
     .run = hp_cli_worker_drain},
    {.noun = "worker",
     .name = "resume",
     .operands = "WORKER...",
     .summary = "Give a drained worker tasks again",
     .text = "Undoes `hostpool worker drain`.",
     .examples = {"hostpool worker resume n7"},
     .operand_min = 1,
     .operand_max = ANY_NUMBER,
     .complete = HP_CLI_COMPLETE_WORKER,
     .run = hp_cli_worker_resume},
    {.noun = "broker",
     .name = "ping",
     .operands = "",
     .summary = "Ask whether the broker is there",
     .text = "Prints how long the answer took. Exits with 5 if there is none.",
     .groups = {&group_document},
     .examples = {"hostpool broker ping"},
     .run = hp_cli_broker_ping},
    {.noun = "broker",
     .name = "wait",
     .operands = "",
     .summary = "Wait until the broker is there",
     .text = "For scripts that have just started it. Without --timeout it waits for 60 seconds; "
             "exits with 124 when the time is over.",
     .groups = {&group_broker_wait},
     .examples = {"hostpool broker wait --timeout 10s && hostpool ls"},
     .run = hp_cli_broker_wait},
    {.noun = "broker",
     .name = "status",
     .operands = "",
     .summary = "Show the broker's figures",
     .text = "Shows version, start counter, uptime, warnings and all figures of the broker.",
     .groups = {&group_document},
     .examples = {"hostpool broker status", "hostpool broker status --json"},
     .run = hp_cli_broker_status},
    {.noun = "broker",
     .name = "backup",
     .operands = "DIR",
     .summary = "Copy the broker's database while it serves",
     .text = "DIR is a directory on the broker's host that does not exist yet. The copy has been "
             "verified when the command returns. To restore, start a broker on it: it pauses all "
             "queues that hold tasks, since what ended after the backup would run again. While it "
             "is made the copy is called DIR.part.",
     .groups = {&group_document},
     .examples = {"hostpool broker backup /var/backups/hostpool-monday"},
     .operand_min = 1,
     .operand_max = 1,
     .complete = HP_CLI_COMPLETE_DIR,
     .run = hp_cli_broker_backup},
    {.noun = "broker",
     .name = "check",
     .operands = "[DIR]",
     .summary = "Check the broker's database",
     .text = "Without DIR the broker checks its database while it serves. With DIR, the data "
             "directory of a broker that does not run, it is read here, and nothing in it is "
             "changed. Exits with 0 if nothing is wrong, with 5 if something is.",
     .groups = {&group_document},
     .examples = {"hostpool broker check", "hostpool broker check /var/lib/hostpool"},
     .operand_max = 1,
     .complete = HP_CLI_COMPLETE_DIR,
     .run = hp_cli_broker_check},
    {.noun = "broker",
     .name = "recover",
     .operands = "FROM TO",
     .summary = "Make a new database from what a damaged one still holds",
     .text = "FROM is the data directory of a broker that cannot start, or that reports damage. It "
             "is only read. TO is a new directory on the same host. Every task and result that its "
             "digest still proves is taken over, whatever the state of the rest: pages may be "
             "flipped, zeroed or missing, the log may be gone. What is lost is listed. A task "
             "whose submit cannot be restored ends as failed, reason damaged.\n\n"
             "All queues with tasks in TO are paused, since a task may have ended after the last "
             "thing that is left: look with `hostpool ls`, cancel what must not run again, then "
             "`hostpool queue resume QUEUE`.\n\n"
             "Exits with 0 if nothing is lost, with 5 if something is (TO is good to use in both "
             "cases), with 1 if TO could not be made.",
     .groups = {&group_document},
     .examples = {"hostpool broker recover /var/lib/hostpool /var/lib/hostpool-new"},
     .operand_min = 2,
     .operand_max = 2,
     .complete = HP_CLI_COMPLETE_DIR,
     .run = hp_cli_broker_recover},
    {.name = "dev",
     .operands = "[-- COMMAND [ARGUMENT]...]",
     .summary = "Start a throw-away broker with workers",
     .text =
         "Starts a broker and workers for you alone, in a temporary directory and on a free port "
         "of this host. With COMMAND it runs that with $HOSTPOOL_HOST set, and ends everything "
         "with the command's exit code. Without, it prints the line to paste into another shell, "
         "and ends everything at Ctrl-C. The directory, and every task in it, is removed then.",
     .groups = {&group_dev},
     .examples = {"hostpool dev", "hostpool dev -w 2 -- hostpool map -- sha1sum {} ::: *",
                  "hostpool dev --module ./mymodule.so -- ./my-tests"},
     .operand_max = ANY_NUMBER,
     .is_command = true,
     .complete = HP_CLI_COMPLETE_COMMAND,
     .run = hp_cli_dev},
    {.name = "completion",
     .operands = "bash|zsh|fish",
     .summary = "Print the completion script for a shell",
     .text = "bash: put `source <(hostpool completion bash)` into ~/.bashrc.\n\n"
             "zsh: put `source <(hostpool completion zsh)` into ~/.zshrc, after compinit.\n\n"
             "fish: hostpool completion fish > ~/.config/fish/completions/hostpool.fish",
     .examples = {"source <(hostpool completion bash)"},
     .operand_min = 1,
     .operand_max = 1,
     .complete = HP_CLI_COMPLETE_SHELL,
     .run = hp_cli_completion},
    {.name = "help",
     .operands = "[VERB | TOPIC]",
     .summary = "Show help on a verb or a topic",
     .text = "Topics: exit-codes, selectors, filters, formats, environment.",
     .groups = {&group_help},
     .examples = {"hostpool help map", "hostpool help selectors"},
     .operand_max = ANY_NUMBER,
     .complete = HP_CLI_COMPLETE_TOPIC,
     .run = hp_cli_help},
};
const size_t hp_cli_verb_count = sizeof(hp_cli_verbs) / sizeof(hp_cli_verbs[0]);

/* clang-format on */
char *hp_cli_verb_name(const struct hp_cli_verb *verb, char gap, char out[HP_CLI_VERB_BYTES])
{
    if (verb->noun != NULL) {
        (void)snprintf(out, HP_CLI_VERB_BYTES, "%s%c%s", verb->noun, gap, verb->name);
    } else {
        (void)snprintf(out, HP_CLI_VERB_BYTES, "%s", verb->name);
    }
    return out;
}

const struct hp_cli_verb *hp_cli_verb_find(const char *noun, const char *name)
{
    for (size_t i = 0; i < hp_cli_verb_count; i++) {
        const struct hp_cli_verb *verb = &hp_cli_verbs[i];
        bool is_noun_same =
            noun == NULL ? verb->noun == NULL : verb->noun != NULL && strcmp(verb->noun, noun) == 0;
        if (is_noun_same && strcmp(verb->name, name) == 0) {
            return verb;
        }
    }
    return NULL;
}

static bool flag_fits(enum hp_cli_flag_id id, const char *name, size_t name_size, char letter)
{
    const struct hp_cli_flag *flag = &hp_cli_flags[id];
    if (name == NULL) {
        return flag->letter != 0 && flag->letter == letter;
    }
    return strlen(flag->name) == name_size && memcmp(flag->name, name, name_size) == 0;
}

static enum hp_cli_flag_id find_in(const struct hp_cli_group *group, const char *name,
                                   size_t name_size, char letter)
{
    for (const enum hp_cli_flag_id *id = group->ids; *id != END; id++) {
        if (flag_fits(*id, name, name_size, letter)) {
            return *id;
        }
    }
    return END;
}

enum hp_cli_flag_id hp_cli_flag_find(const struct hp_cli_verb *verb, const char *name,
                                     size_t name_size, char letter)
{
    enum hp_cli_flag_id id = find_in(&hp_cli_group_global, name, name_size, letter);
    if (verb == NULL) {
        return id != END ? id : find_in(&group_output, name, name_size, letter);
    }
    for (size_t i = 0; id == END && i < HP_CLI_GROUPS_MAX && verb->groups[i] != NULL; i++) {
        id = find_in(verb->groups[i], name, name_size, letter);
    }
    return id;
}

bool hp_cli_verb_takes(const struct hp_cli_verb *verb, enum hp_cli_flag_id wanted)
{
    const struct hp_cli_flag *flag = &hp_cli_flags[wanted];
    return hp_cli_flag_find(verb, flag->name, strlen(flag->name), 0) == wanted;
}
