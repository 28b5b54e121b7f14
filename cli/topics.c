/* SPDX-License-Identifier: BSD-2-Clause */
/* The help pages that belong to no verb. Indented lines are printed as they are. */
#include "cli/table.h"

const struct hp_cli_topic hp_cli_topics[] = {
    {"exit-codes", "What the exit codes mean",
     "    0        done; for wait: all succeeded\n"
     "    1        at least one task failed\n"
     "    2        usage error\n"
     "    3        no such task, queue or worker\n"
     "    4        not logged in, or not allowed\n"
     "    5        broker not reachable, or its store failed\n"
     "    6        refused: queue full, key held, broker stopping\n"
     "    124      a timeout ran out (wait, broker wait, run)\n"
     "    125      run: hostpool itself failed, or the task never ran\n"
     "    126      run: the command can not be executed on the worker\n"
     "    127      run: the command was not found on the worker\n"
     "    128+N    run: signal N killed the task; 130 is Ctrl-C\n\n"
     "For every other code, `run` hands on the exit code of the command. Except for wrong usage "
     "(2), all failures of `run` itself are 125, so that they are not taken for the command's."},
    {"selectors", "How to name tasks",
     "    1234         the task with this id\n"
     "    1234.7       member 7 of the array whose first task is 1234\n"
     "    1234.2-5     members 2 to 5\n"
     "    5-9          ids 5 to 9\n"
     "    5-99:2       every second of them\n"
     "    1,4,8-9      several\n"
     "    @thumbs      all tasks of the batch thumbs\n"
     "    last         what you submitted last, a whole array if it was one\n"
     "    all          all your tasks; for cancel and wait: those unfinished\n\n"
     "Several selectors may be given as several words."},
    {"filters", "How to choose tasks in ls",
     "    state=failed          one or more states, divided by commas\n"
     "    queue=gpu             on this queue\n"
     "    user=any              of everybody; user=NAME; user=me is the default\n"
     "    host=n7               last attempt on this worker\n"
     "    name~render           the name contains this\n"
     "    batch=thumbs          of this batch; the same as @thumbs\n"
     "    since=2h              submitted within this time, or since a time\n\n"
     "States: blocked delayed queued starting running waiting cancelling buried done failed "
     "cancelled expired. Groups of states: pending (blocked, delayed, queued), active (starting, "
     "running, waiting, cancelling), unfinished, finished, any. Filters are joined by `and'. "
     "Without a state, a batch and a selector only unfinished tasks are listed."},
    {"formats", "What output looks like",
     "On a terminal: a table with colours and relative times, cut to its width. In a pipe: the "
     "same columns, no colours, nothing cut, times as in RFC 3339.\n\n"
     "--json prints one document, an object with one list, for example {\"tasks\": [...]}; "
     "--jsonl prints the elements of that list, one a line. Without -o they have all fields; with "
     "-o, those asked for. Filters, columns and limits are the same as for tables. Times are in "
     "RFC 3339 with milliseconds, in UTC; durations are numbers of seconds; sizes are bytes; what "
     "is not known is null.\n\n"
     "Durations are written 250ms 90s 15m 2h 1d 1h30m; sizes 512K 512M 4G; times "
     "2026-01-31T18:00:00Z, 2026-01-31T18:00 (local) or +2h.\n\n"
     "Control characters in names and errors are printed as \\xNN."},
    {"environment", "Variables that matter",
     "    HOSTPOOL_HOST          the broker; --host is stronger\n"
     "    HOSTPOOL_TOKEN_FILE    file with the token; --token-file is stronger\n"
     "    HOSTPOOL_TOKEN         the token itself\n"
     "    NO_COLOR               if set, no colours unless --color=always\n"
     "    COLUMNS                width of the terminal\n"
     "    TZ                     time zone of the times shown\n\n"
     "A task finds these in its environment:\n\n"
     "    HOSTPOOL_TASK_ID       its id\n"
     "    HOSTPOOL_ATTEMPT       number of the attempt, from 1\n"
     "    HOSTPOOL_ARRAY_INDEX   its number in an array"},
};
const size_t hp_cli_topic_count = sizeof(hp_cli_topics) / sizeof(hp_cli_topics[0]);
