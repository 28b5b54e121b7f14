/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * hostpool.h: the client library of hostpool, a durable process pool over many hosts.
 *
 * Two layers share one connection object, struct hp_client:
 *
 *  - The blocking layer (hp_submit, hp_wait, hp_result, hp_map ...): one call, one answer. Every
 *    call takes a timeout, reconnects by itself, and repeats its request until the timeout.
 *  - The asynchronous layer (hp_client_fd, hp_client_process, hp_submit_async,
 *    hp_client_next_event ...): nothing blocks; the caller owns the poll loop.
 *
 * Both may be mixed on one client: events that arrive during a blocking call stay queued.
 *
 * Rules that hold for all of it:
 *  - Threads: a client is used by one thread at a time. Different clients are independent.
 *    The library starts no threads, installs no signal handlers (it sends with MSG_NOSIGNAL) and
 *    writes no logs. (Pools are the exception: they have a thread, see hostpool_pool.h.)
 *  - Fork: a child may go on using its copy of a client. It notices the new process id, abandons
 *    the parent's socket without a goodbye, forgets the parent's outstanding tasks and opens a
 *    session of its own at its next call. The parent is not disturbed.
 *  - Durability: when a submit is answered with HP_STATUS_OK (or by HP_EVENT_SUBMITTED), the tasks
 *    are on the broker's disk. A lost connection or a lost reply never makes a task twice: submits
 *    carry (session, number) and the broker answers a repeated number with its first reply.
 *  - Strings are NUL-terminated UTF-8. A string field that the broker did not send is NULL.
 *  - Times: *_ms are durations in milliseconds, *_at_ms wall-clock milliseconds since 1970 (UTC).
 *  - Structures which the caller fills are set up by their _init function first: it knows the
 *    defaults, and the fields that later versions add.
 */
#ifndef HOSTPOOL_H
#define HOSTPOOL_H

#include <hostpool_values.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- options of tasks */

/*
 * Options shared by all tasks of one submit. hp_options_init sets the defaults named here. The
 * strings and arrays belong to the caller and need live only for the call they are passed to.
 * Counted arrays: argv etc. may be NULL when the count is 0.
 */
struct hp_options {
    enum hp_kind kind;        /* default HP_KIND_FUNCTION */
    const char *fn;           /* name of the function (kind function) */
    const char *const *argv;  /* program and arguments (kind command); no shell */
    size_t argv_count;        /* at most 4096 strings, 128 KiB in all */
    const char *const *env;   /* KEY=VALUE, added to the worker's clean environment */
    size_t env_count;         /* at most 64 */
    const char *cwd;          /* working directory on the worker; NULL: one of the worker's */
    enum hp_payload_kind payload_kind; /* what its payload is; default HP_PAYLOAD_STDIN */

    const char *queue;        /* NULL: "default" */
    uint32_t priority;        /* 0..255, default 100; higher goes first, waiting tasks age */
    const char *name;         /* for people */
    const char *batch;        /* batch name, the @batch of selectors */
    const char *user;         /* for people */
    const char *tenant;       /* fairness key */
    const char *const *tags;  /* tags the worker must have; at most 16 */
    size_t tag_count;
    uint32_t cpus;            /* slots it takes, default 1, at most 4096 */
    uint64_t mem_bytes;       /* memory reserved on the worker; 0: none */

    uint64_t delay_ms;        /* not before this long after the submit */
    int64_t run_at_ms;        /* not before this wall-clock time; 0: none */
    uint64_t expire_ms;       /* expires if not started this long after the submit; 0: never */
    uint64_t deadline_ms;     /* no attempt starts later than this after the submit; 0: none */
    uint64_t soft_timeout_ms; /* TERM after this run time; 0: none */
    uint64_t hard_timeout_ms; /* KILL of the whole group after this run time; 0: none */
    uint64_t kill_grace_ms;   /* between TERM and KILL, default 10,000 */

    uint32_t max_retries;     /* reruns after the task's own failures, default 0 */
    uint64_t retry_base_ms;   /* first backoff, default 2,000 */
    uint64_t retry_cap_ms;    /* largest backoff, default 600,000 */
    uint32_t max_losses;      /* reruns after losses of a worker, default 10 */
    uint32_t child_losses;    /* reruns after deaths of a function's child process, default 0 */
    bool at_most_once;        /* never run it a second time */
    enum hp_partition on_partition;

    const char *ukey;         /* unique key: at most one live task of a queue has it; one task */
    enum hp_conflict on_conflict;
    const char *ckey;         /* concurrency key: at most ckey_max tasks with it run at once */
    uint32_t ckey_max;        /* default 1 */

    uint64_t result_ttl_ms;    /* how long the result is kept, default 7 days */
    uint64_t output_cap_bytes; /* captured bytes kept of stdout, and of stderr; default 1 MiB; the
                                  tail is kept */
    bool follow;              /* send HP_EVENT_OUTPUT from the first byte (commands) */
    uint64_t array_base;      /* array: index of the first task (HOSTPOOL_ARRAY_INDEX) */
    uint64_t array_step;      /* array: step between indices, default 1 */

    bool durable;             /* default true. false: the broker keeps the task in memory only, for
                                 speed: lost when the broker restarts */
    uint64_t pool;            /* the pool it belongs to (kind call) */
    uint32_t processes;       /* this and the next ones: of a pool (hostpool_pool.h). Children, over
                                 all workers; 0: one for each slot of each worker */
    uint64_t calls_per_child; /* a child is replaced after this many calls; 0: never */
    const char *language;     /* "c", or an interpreter with its version: "python3.11" */
    const char *interpreter;  /* its path on the workers; NULL: the worker's own */
    uint64_t orphan_ms;       /* so long without its client and the pool is ended; default 60,000 */
    uint64_t reserved[8];     /* must be 0 */
};

/* Sets all defaults. */
HP_API void hp_options_init(struct hp_options *options);

/* ---------------------------------------------------------------- what comes back */

/* How the final attempt of a task ended. Lent: lives as long as the object that holds it. */
struct hp_end {
    struct hp_bytes result; /* result of a function, if inline */
    uint64_t result_blob;   /* else the blob that holds it; 0: none */
    bool has_digest;
    uint64_t digest;        /* XXH3-64 of the whole result (function) or stdout (command) */
    const char *error;      /* error text, or NULL */
    bool has_exit_code;
    int64_t exit_code;      /* of a command */
    uint32_t signal;        /* signal that ended the child; 0: none */
    uint32_t start_errno;   /* why the command could not be started; 0: it was */
    struct hp_bytes out;    /* captured stdout (its tail), if inline */
    struct hp_bytes err;
    uint64_t out_blob;      /* else the blob that holds it; 0: none */
    uint64_t err_blob;
    uint64_t out_size;      /* bytes the command wrote */
    uint64_t err_size;
    bool out_truncated;     /* the front was dropped */
    bool err_truncated;
    uint64_t run_us;
    uint64_t utime_us;
    uint64_t stime_us;
    uint64_t maxrss_kb;     /* KiB */
};

/* A task as the broker sees it. Lent: lives as long as the object that holds it. */
struct hp_task {
    uint64_t id;
    enum hp_state state;
    enum hp_end_reason reason;
    uint32_t attempt;        /* latest attempt; 0: none yet */
    uint32_t failures;
    uint32_t losses;
    const char *node;        /* worker of the latest attempt, or NULL */
    uint64_t group;          /* first id of the submit it came with */
    uint32_t group_count;    /* tasks of that submit */
    int64_t created_at_ms;   /* 0 in this and the next three: not known */
    int64_t run_at_ms;       /* delayed: when it becomes ready */
    int64_t started_at_ms;
    int64_t ended_at_ms;
    uint64_t payload_size;   /* bytes */
    const struct hp_options *options; /* NULL unless asked for */
    const struct hp_end *end;         /* NULL unless it has ended and was asked for */
};

/* Tasks, owned by the caller: hp_task_list_free. */
struct hp_task_list {
    struct hp_task *tasks;
    size_t count;
    bool timed_out; /* hp_wait: not all (or not one) had ended in time */
    uint64_t next;  /* hp_list: pass as before for the next page; 0: no more */
};
HP_API void hp_task_list_free(struct hp_task_list *list); /* NULL is fine */

/* Ids of what a submit made, in the order of its payloads; owned by the caller. */
struct hp_id_list {
    struct hp_ids *ranges;
    size_t count;
    uint64_t total; /* ids in all ranges */
};
HP_API void hp_id_list_clear(struct hp_id_list *list);

/* A task's final state with all its bytes, blobs fetched and digests checked; owned by the
 * caller: hp_result_free. */
struct hp_result {
    struct hp_task task;
    struct hp_bytes value; /* result of a function; captured stdout of a command */
    struct hp_bytes err;   /* captured stderr of a command */
};
HP_API void hp_result_free(struct hp_result *result); /* NULL is fine */

/* Bytes owned by the caller: hp_buffer_clear. */
struct hp_buffer {
    void *data;
    size_t size;
    size_t mapped; /* for hp_buffer_clear alone: not 0: data is a mapping */
};
HP_API void hp_buffer_clear(struct hp_buffer *buffer);

/* ---------------------------------------------------------------- clients */

struct hp_client;

struct hp_client_options {
    const char *host;        /* "HOST:PORT", "HOST" or "[IPV6]:PORT". NULL: the environment's
                                HOSTPOOL_HOST, else "127.0.0.1:7741" */
    const char *token;       /* NULL: HOSTPOOL_TOKEN, else token_file */
    const char *token_file;  /* first line is the token. NULL: HOSTPOOL_TOKEN_FILE, else none */
    const char *name;        /* program and version, for operators; NULL: "libhostpool" */
    const uint8_t *session;  /* 16 bytes that name the session, to go on with that of an earlier
                                process; NULL: random. Only one client may use it at a time */
    uint32_t connect_timeout_ms; /* one attempt to connect and say hello; default 5,000 */
    uint32_t timeout_ms;     /* what HP_TIMEOUT_DEFAULT means; default 30,000 */
    uint32_t retry_base_ms;  /* first wait between attempts to connect, jittered; default 100 */
    uint32_t retry_cap_ms;   /* longest; default 5,000 */
    uint32_t window_submits; /* unacknowledged submit messages in flight; 1..256, default 256 */
    uint32_t window_bytes;   /* unacknowledged submitted bytes, at most; default 8 MiB */
    uint32_t event_bytes;    /* undelivered events at which reading pauses; default 8 MiB */
    bool events;             /* ask the broker to push ends of the session's tasks; default true.
                                Needed by HP_EVENT_ENDED and hp_map */
    uint64_t reserved[8];    /* must be 0 */
};
HP_API void hp_client_options_init(struct hp_client_options *options);

/*
 * Makes a client without any input or output. options may be NULL (all defaults); its strings are
 * copied. Errors: BAD_ARGUMENT (host, sizes, unreadable token file; *ret_client is still made so
 * that hp_client_error can say why, and is good only for that and hp_client_free), NO_MEMORY
 * (*ret_client is NULL).
 */
HP_API enum hp_status hp_client_new(const struct hp_client_options *options,
                                    struct hp_client **ret_client);
/* Frees it; closes the socket at once. What was not acknowledged may or may not have happened. */
HP_API void hp_client_free(struct hp_client *client);

/*
 * hp_client_new, then connects and says hello: one attempt over all addresses of the host, within
 * timeout_ms, so that "connection refused" is known at once (later calls do try again). Errors:
 * those of hp_client_new; UNREACHABLE, DENIED, VERSION, PROTOCOL. *ret_client is set on errors as
 * well, unless memory was short: ask it for hp_client_error, then hp_close it.
 */
HP_API enum hp_status hp_connect(const struct hp_client_options *options, int64_t timeout_ms,
                                 struct hp_client **ret_client);
/* Sends what is queued (waiting up to the client's timeout for acknowledgements of submits), ends
 * the connection in an orderly way and frees the client. NULL is fine. */
HP_API void hp_close(struct hp_client *client);

/* The text of the last error of a call on this client, with the broker's own words where it had
 * some; "" if none. Valid until the next call. */
HP_API const char *hp_client_error(const struct hp_client *client);
/* The host it talks to, as "HOST:PORT". Lives as long as the client. */
HP_API const char *hp_client_host(const struct hp_client *client);
/* The 16 bytes of the session. They change if the broker forgot the session, or after fork. */
HP_API const uint8_t *hp_client_session(const struct hp_client *client);
/* Broker and version as it said in its hello, or NULL before. */
HP_API const char *hp_client_server(const struct hp_client *client);

/* ---------------------------------------------------------------- blocking: tasks */
/*
 * All of these: connect if needed; on a lost connection reconnect with jittered backoff and repeat
 * the request until timeout_ms is over; `busy` answers are repeated after the time the broker
 * names. Errors, besides those named at the function: TIMEOUT (connected, no answer in time),
 * UNREACHABLE (not connected), DENIED, VERSION, PROTOCOL, NO_MEMORY, BAD_ARGUMENT, SYSTEM. On an
 * error ret_ parameters are untouched unless said otherwise.
 * A submit that runs into TIMEOUT goes on in the background if the client is used further: its
 * tasks may still come into being.
 */

/*
 * Submits one task. payload may be NULL (empty); more than 64 KiB is sent as a blob. ret_outcome
 * may be NULL. Errors: CONFLICT, BUSY (until the timeout), TOO_BIG, BAD_REQUEST.
 */
HP_API enum hp_status hp_submit(struct hp_client *client, const struct hp_options *options,
                                const struct hp_bytes *payload, int64_t timeout_ms,
                                uint64_t *ret_id, enum hp_outcome *ret_outcome);

/*
 * Submits count tasks, one for each payload, in as many pipelined messages as needed; each message
 * is all or nothing. On an error *ret_ids holds what was acknowledged: its total is then less than
 * count, and which payloads are missing is not told. *ret_ids: hp_id_list_clear, after errors too.
 */
HP_API enum hp_status hp_submit_many(struct hp_client *client, const struct hp_options *options,
                                     const struct hp_bytes *payloads, size_t count,
                                     int64_t timeout_ms, struct hp_id_list *ret_ids);

/* Submits an array: count (1..1,000,000) tasks without payloads that know their index. */
HP_API enum hp_status hp_submit_array(struct hp_client *client, const struct hp_options *options,
                                      uint32_t count, int64_t timeout_ms, struct hp_ids *ret_ids);

/* What hp_get and hp_wait bring along. */
enum hp_detail {
    HP_DETAIL_END = 1,        /* end records */
    HP_DETAIL_OPTIONS = 2,    /* options (hp_get, hp_list) */
    HP_DETAIL_ENDED_ONLY = 4, /* hp_get: leave out tasks that have not ended */
};

/*
 * Waits until all (or any one) of the tasks have ended, and gives the state of each in *ret_list,
 * in the order asked. ret_list may be NULL; hp_task_list_free. detail: 0 or HP_DETAIL_END. When
 * the time is over: HP_STATUS_OK with timed_out set, or HP_STATUS_TIMEOUT if ret_list is NULL. A
 * wait for any is for at most 65,536 ids. Ids which the broker does not know count as ended (state
 * gone or unknown).
 * Restarts of broker and network are waited out.
 */
HP_API enum hp_status hp_wait(struct hp_client *client, const struct hp_ids *ids, size_t id_count,
                              enum hp_wait_for wait_for, unsigned detail, int64_t timeout_ms,
                              struct hp_task_list **ret_list);

/* State of tasks now, in the order asked. detail: bits of hp_detail. hp_task_list_free. */
HP_API enum hp_status hp_get(struct hp_client *client, const struct hp_ids *ids, size_t id_count,
                             unsigned detail, int64_t timeout_ms, struct hp_task_list **ret_list);

/*
 * Waits for the end of one task and gives its final state and all its bytes. A task that failed
 * is HP_STATUS_OK too: look at task.state. Errors: NOT_FOUND, DAMAGED (digest), TIMEOUT.
 */
HP_API enum hp_status hp_result(struct hp_client *client, uint64_t id, int64_t timeout_ms,
                                struct hp_result **ret_result);

/* Reads a whole blob (result_blob, out_blob, err_blob); its digest is checked. hp_buffer_clear.
 * Errors: NOT_FOUND, DAMAGED. */
HP_API enum hp_status hp_fetch_blob(struct hp_client *client, uint64_t blob, int64_t timeout_ms,
                                    struct hp_buffer *ret_buffer);

/* What a cancel did. results has one entry for each id if at most 4096 were asked, else it is
 * NULL. Owned by the caller: hp_cancel_report_clear. */
struct hp_cancel_report {
    uint64_t cancelled;
    uint64_t cancelling;
    uint64_t too_late;
    uint64_t unknown;
    struct hp_cancel_entry {
        uint64_t id;
        enum hp_cancelled outcome;
    } *results;
    size_t result_count;
};
HP_API void hp_cancel_report_clear(struct hp_cancel_report *report);

/* Cancels tasks; durable when it returns. grace_ms: between TERM and KILL, at most 1 h. reason is
 * for people, may be NULL. ret_report may be NULL. */
HP_API enum hp_status hp_cancel(struct hp_client *client, const struct hp_ids *ids, size_t id_count,
                                enum hp_cancel_how how, uint64_t grace_ms, const char *reason,
                                int64_t timeout_ms, struct hp_cancel_report *ret_report);

/* Filter of hp_list: NULL and 0 mean "any". hp_filter_init first. */
struct hp_filter {
    uint32_t states;      /* bit 1 << state for each wanted state; 0: all */
    const char *queue;
    const char *name;     /* name contains this */
    const char *batch;
    const char *user;
    const char *node;     /* latest attempt was on this worker */
    int64_t since_ms;     /* submitted since this wall-clock time */
    uint64_t before;      /* only ids below this one: the cursor of paging */
    uint32_t limit;       /* tasks a page, 1..1000, default 100 */
    unsigned detail;      /* HP_DETAIL_END or 0; options are always there */
    uint64_t reserved[4];
};
HP_API void hp_filter_init(struct hp_filter *filter);

/* One page of tasks, newest first. next of the list is the before of the next page, 0: no more (a
 * page may be empty and still have a next). */
HP_API enum hp_status hp_list(struct hp_client *client, const struct hp_filter *filter,
                              int64_t timeout_ms, struct hp_task_list **ret_list);

/* Lines of text for people; owned by the caller: hp_lines_free. */
struct hp_lines {
    const char **lines;
    size_t count;
    enum hp_state state; /* hp_why */
    bool ok;             /* hp_broker_check */
};
HP_API void hp_lines_free(struct hp_lines *lines);

/* Why a task is where it is. Errors: NOT_FOUND. */
HP_API enum hp_status hp_why(struct hp_client *client, uint64_t id, int64_t timeout_ms,
                             struct hp_lines **ret_lines);

/* Starts (or stops) HP_EVENT_OUTPUT events for a running command, from its kept output on. They
 * are read with hp_client_next_event or hp_client_wait_event. Followed again by itself after a
 * reconnect. Errors: NOT_FOUND. */
HP_API enum hp_status hp_follow(struct hp_client *client, uint64_t id, bool on, int64_t timeout_ms,
                                enum hp_state *ret_state);

/* Sends a signal (1..64) to the process group of a running command. Errors: NOT_FOUND,
 * ILLEGAL_STATE. ret_state may be NULL. */
HP_API enum hp_status hp_signal(struct hp_client *client, uint64_t id, uint32_t signal_number,
                                int64_t timeout_ms, enum hp_state *ret_state);

/* ---------------------------------------------------------------- blocking: map */

/* Gives the next input: 1 and *ret_payload (lent until the next call of this function), 0 at the
 * end, -1 to stop the map with HP_STATUS_STOPPED. */
typedef int (*hp_map_input_fn)(void *context, struct hp_bytes *ret_payload);
/* Takes one result: index counts the inputs from 0; result and all it points to is lent for the
 * call. Returns 0 to go on, anything else stops the map with HP_STATUS_STOPPED. */
typedef int (*hp_map_output_fn)(void *context, uint64_t index, const struct hp_result *result);

struct hp_map_options {
    uint64_t window_tasks; /* tasks submitted and not yet handed to output; default 20,000 */
    bool unordered;        /* hand over results as they come, not in the order of inputs */
    bool keep_on_stop;     /* when stopped or timed out, do not cancel what is outstanding */
    uint32_t chunk_items;  /* hp_map_stream: so many inputs make one task; 0, 1: each its own */
    uint64_t reserved[4];  /* must be 0 */
};
HP_API void hp_map_options_init(struct hp_map_options *options);

/*
 * Runs one task for each input and hands over the results; at most window_tasks are outstanding,
 * so streams of any length use bounded memory. Task failures are results like others (task.state),
 * not errors of the map. map_options may be NULL. timeout_ms is for all of it. On errors, what is
 * outstanding is cancelled (best effort). Needs the client option events.
 * The client's own events that belong to other submits stay queued meanwhile.
 *
 * With chunk_items, for inputs so short that a task for each would cost more than they do: a chunk
 * is one task, with one end, one time limit, and one attempt (payload_kind HP_PAYLOAD_ITEMS; kinds
 * function and call, in C). output still gets the result of each input. If one fails, the chunk has
 * failed: output gets that result for each of its inputs, and its text says "item N: ". The window
 * counts chunks. A chunk is sent when it is full; it can have 1 GiB, but what is above 64 KiB goes
 * by a file. DAMAGED: a result is not one of so many results; does its worker know of items?
 */
HP_API enum hp_status hp_map_stream(struct hp_client *client, const struct hp_options *options,
                                    const struct hp_map_options *map_options, hp_map_input_fn input,
                                    hp_map_output_fn output, void *context, int64_t timeout_ms);

/* Results of hp_map, one for each input, in their order; owned by the caller: hp_map_results_free.
 * results[i] is NULL if its task did not end (on errors). */
struct hp_map_results {
    struct hp_result **results;
    size_t count;
    uint64_t failed; /* results whose state is not done */
};
HP_API void hp_map_results_free(struct hp_map_results *results);

/* The same over arrays. On an error *ret_results holds what was there. */
HP_API enum hp_status hp_map(struct hp_client *client, const struct hp_options *options,
                             const struct hp_bytes *inputs, size_t count, int64_t timeout_ms,
                             struct hp_map_results **ret_results);

/* ---------------------------------------------------------------- blocking: operators */

struct hp_queue {
    const char *name;
    bool paused;
    uint64_t ready;
    uint64_t delayed;
    uint64_t running; /* leased or running */
    uint64_t done;    /* since the broker started */
    uint64_t failed;  /* failed, cancelled or expired since the broker started */
};
struct hp_queue_list {
    struct hp_queue *queues;
    size_t count;
};
HP_API void hp_queue_list_free(struct hp_queue_list *list);
/* All queues by name, or only that named (NULL: all). NOT_FOUND if the named one is not there. */
HP_API enum hp_status hp_queue_get(struct hp_client *client, const char *name, int64_t timeout_ms,
                                   struct hp_queue_list **ret_list);
/* Pauses or resumes a queue; durable. Running tasks go on. ret_changed may be NULL. */
HP_API enum hp_status hp_queue_pause(struct hp_client *client, const char *name, bool paused,
                                     int64_t timeout_ms, bool *ret_changed);

struct hp_worker {
    const char *node;
    enum hp_worker_state state;
    bool draining;
    const char *drain_reason; /* or NULL */
    const char *host;         /* or NULL */
    uint32_t pid;
    uint32_t slots;
    uint32_t used;     /* slots in use */
    uint32_t assigned; /* attempts it holds */
    uint64_t mem_bytes;
    const char **tags;
    size_t tag_count;
    const char **functions;
    size_t function_count;
    uint64_t seen_ms_ago;
    uint64_t done; /* attempts it ended since the broker started */
};
struct hp_worker_list {
    struct hp_worker *workers;
    size_t count;
};
HP_API void hp_worker_list_free(struct hp_worker_list *list);
/* All workers by name, or only that named (NULL: all). NOT_FOUND if the named one is not there. */
HP_API enum hp_status hp_worker_get(struct hp_client *client, const char *node, int64_t timeout_ms,
                                    struct hp_worker_list **ret_list);
/* Gives a worker no new tasks (on), or again (off); durable. reason may be NULL. */
HP_API enum hp_status hp_worker_drain(struct hp_client *client, const char *node, bool on,
                                      const char *reason, int64_t timeout_ms, bool *ret_changed);

/* Is the broker there? Its wall clock into *ret_now_ms (may be NULL). */
HP_API enum hp_status hp_broker_ping(struct hp_client *client, int64_t timeout_ms,
                                     int64_t *ret_now_ms);

struct hp_broker_info {
    const char *server; /* program and version */
    uint64_t epoch;     /* start counter */
    uint64_t uptime_ms;
    bool draining;
    struct hp_figure {
        const char *name; /* with its unit */
        uint64_t value;
    } *figures;
    size_t figure_count;
    const char **warnings;
    size_t warning_count;
};
HP_API void hp_broker_info_free(struct hp_broker_info *info);
HP_API enum hp_status hp_broker_status(struct hp_client *client, int64_t timeout_ms,
                                       struct hp_broker_info **ret_info);
/* Copies the database and blobs to a new directory (absolute path on the broker's host). */
HP_API enum hp_status hp_broker_backup(struct hp_client *client, const char *path,
                                       int64_t timeout_ms, uint64_t *ret_tasks,
                                       uint64_t *ret_size_bytes);
/* Checks the database while it serves: ok and lines of *ret_lines. */
HP_API enum hp_status hp_broker_check(struct hp_client *client, int64_t timeout_ms,
                                      struct hp_lines **ret_lines);

/* ---------------------------------------------------------------- asynchronous layer */
/*
 * The loop:
 *
 *     for (;;) {
 *         while (hp_client_next_event(client, &event)) { ... }
 *         hp_submit_async(...) as far as it does not answer HP_STATUS_AGAIN
 *         hp_client_process(client, 0);            // sends what was queued, once
 *         poll(hp_client_fd(client), hp_client_wants(client), hp_client_timeout_ms(client))
 *         hp_client_process(client, revents);
 *     }
 *
 * The client connects and reconnects by itself while it is processed; submits are queued meanwhile.
 */

enum hp_io {
    HP_IO_READ = 1,
    HP_IO_WRITE = 2,
};

/* The socket to poll; -1 while there is none (then only the timeout counts). It changes with every
 * reconnect: ask before each poll. */
HP_API int hp_client_fd(struct hp_client *client);
/* Bits of hp_io to poll for. */
HP_API unsigned hp_client_wants(struct hp_client *client);
/* When hp_client_process must be called at the latest: ms from now, 0: at once, -1: no limit. */
HP_API int hp_client_timeout_ms(struct hp_client *client);
/*
 * Does what can be done without blocking: connects, reads (if ready has HP_IO_READ), makes events,
 * sends (at most one write of what is queued). ready: bits of hp_io that poll reported; 0 is fine
 * and sends what was queued. Name resolution may block for names that are not addresses. Errors:
 * DENIED, VERSION, PROTOCOL (will not heal by itself; the client keeps trying at the longest
 * retry interval), NO_MEMORY, SYSTEM. A lost connection is no error: see the events.
 */
HP_API enum hp_status hp_client_process(struct hp_client *client, unsigned ready);
/* True after hello was answered. */
HP_API bool hp_client_connected(const struct hp_client *client);
/* Tasks submitted asynchronously and tracked whose end was not delivered yet, including those not
 * acknowledged. */
HP_API uint64_t hp_client_outstanding(const struct hp_client *client);
/* Submit messages that are not acknowledged, including queued ones. */
HP_API uint64_t hp_client_unacknowledged(const struct hp_client *client);
/* Why submits wait: the broker's words while it refuses them as busy, though connected; else NULL.
 * They are tried again by themselves. Lent until the next call. */
HP_API const char *hp_client_busy(const struct hp_client *client);

/*
 * Queues tasks for submit, one for each payload; payloads NULL means count tasks without payload.
 * Bytes and options are copied or encoded before it returns. user comes back in the events.
 * Consecutive calls with equal options share a message until hp_client_process sends it, so
 * submitting tasks one by one is cheap. Payloads over 64 KiB are staged as blobs first.
 * *ret_request (may be NULL) numbers the call. Per call: one HP_EVENT_SUBMITTED (or more, if it
 * was split: count tells) or HP_EVENT_SUBMIT_FAILED, and one HP_EVENT_ENDED for each task.
 * count: 1..16384. Errors: AGAIN (window full, nothing was taken), BAD_ARGUMENT, TOO_BIG,
 * NO_MEMORY.
 */
HP_API enum hp_status hp_submit_async(struct hp_client *client, const struct hp_options *options,
                                      const struct hp_bytes *payloads, uint32_t count, void *user,
                                      uint64_t *ret_request);
/* Queues an array (see hp_submit_array). */
HP_API enum hp_status hp_submit_array_async(struct hp_client *client,
                                            const struct hp_options *options, uint32_t count,
                                            void *user, uint64_t *ret_request);

/* Queue other requests; each is answered by one HP_EVENT_REPLY with the same request number and
 * user. Repeated by themselves after a reconnect (a signal may so arrive twice). At most 1024
 * ranges; a get may be cut for size: then list->next is the id to go on from. */
HP_API enum hp_status hp_get_async(struct hp_client *client, const struct hp_ids *ids,
                                   size_t id_count, unsigned detail, void *user,
                                   uint64_t *ret_request);
HP_API enum hp_status hp_cancel_async(struct hp_client *client, const struct hp_ids *ids,
                                      size_t id_count, enum hp_cancel_how how, uint64_t grace_ms,
                                      const char *reason, void *user, uint64_t *ret_request);
HP_API enum hp_status hp_follow_async(struct hp_client *client, uint64_t id, bool on, void *user,
                                      uint64_t *ret_request);
HP_API enum hp_status hp_signal_async(struct hp_client *client, uint64_t id, uint32_t signal_number,
                                      void *user, uint64_t *ret_request);

/* Takes over the ends of tasks that another call (or an earlier process of the same session)
 * submitted: HP_EVENT_ENDED will come for each of them. */
HP_API enum hp_status hp_track(struct hp_client *client, struct hp_ids ids, void *user,
                               uint64_t *ret_request);
/* Forgets all outstanding tasks of a request: no more events for them. They run on. */
HP_API void hp_untrack(struct hp_client *client, uint64_t request);

enum hp_event_kind {
    HP_EVENT_CONNECTED = 1,     /* text: server */
    HP_EVENT_DISCONNECTED = 2,  /* status, text: why; it reconnects by itself */
    HP_EVENT_SUBMITTED = 3,     /* request, user, index, ids, outcome: durable */
    HP_EVENT_SUBMIT_FAILED = 4, /* request, user, index, ids.count, status, text: nothing stored */
    HP_EVENT_ENDED = 5,         /* request, user, index, task (with its end record) */
    HP_EVENT_OUTPUT = 6,        /* output_* */
    HP_EVENT_REPLY = 7,         /* request, user, status, text; and what the call is about */
};

/* All pointers are lent until the next hp_client_next_event, hp_client_wait_event or blocking call
 * on the client. Fields that a kind does not name are 0. */
struct hp_event {
    enum hp_event_kind kind;
    enum hp_status status;
    const char *text;
    uint64_t request;  /* number of the call it belongs to */
    void *user;
    uint64_t index;    /* of the (first) task among the tasks of its call, from 0 */
    struct hp_ids ids;
    enum hp_outcome outcome;
    const struct hp_task *task;           /* ENDED */
    const struct hp_task_list *list;      /* REPLY to hp_get_async */
    const struct hp_cancel_report *cancel; /* REPLY to hp_cancel_async */
    enum hp_state state;                  /* REPLY to follow and signal */
    uint64_t output_id;                   /* OUTPUT: task */
    uint32_t output_attempt;
    enum hp_output output_stream;
    uint64_t output_offset;               /* of data in the stream; a jump is a gap */
    struct hp_bytes output_data;
};

/* The next queued event into *ret_event; false if there is none. No input or output. */
HP_API bool hp_client_next_event(struct hp_client *client, struct hp_event *ret_event);
/* The same, but polls and processes up to timeout_ms until there is one. OK: *ret_event is set.
 * Errors: TIMEOUT, or what hp_client_process says. */
HP_API enum hp_status hp_client_wait_event(struct hp_client *client, int64_t timeout_ms,
                                           struct hp_event *ret_event);

#ifdef __cplusplus
}
#endif
#include <hostpool_pool.h>

#endif
