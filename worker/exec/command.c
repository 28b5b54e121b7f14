/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The daemon's side of commands. A command has ended when the spawner says so, not when its pipes
 * do: what holds them open after that is read for drain_ms at most.
 *
 * The pipes of a command that nobody follows are watched only once it has run for some ms: most
 * short ones have ended by then, and what they wrote is read at once, without a wake-up for each
 * pipe. Until then a pipe holds what is written.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/buf.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#include "common/sys/clock.h"
#include "common/sys/file.h"
#include "common/sys/proc.h"
#include "worker/exec/exec_priv.h"
#include "worker/exec/spawn.h"

#define SPEC_BYTES_MAX (1024u * 1024u * 1024u)
#define READS_AT_END_MAX 32
#define POLL_US 10000u

enum hp_err hp_commands_init(struct hp_exec *exec)
{
    exec->cmds = hp_calloc((size_t)exec->config.slots + 1, sizeof *exec->cmds);
    hp_idmap_init(&exec->cmd_by_key, exec->instance);
    hp_idmap_init(&exec->cmd_by_id, exec->instance);
    for (uint32_t i = 0; exec->cmds != NULL && i <= exec->config.slots; i++) {
        exec->cmds[i].index = i;
        exec->cmds[i].pipes[0].fd = exec->cmds[i].pipes[1].fd = -1;
    }
    return exec->cmds == NULL ? HP_ERR_NOMEM : HP_OK;
}

/* Gives a command's memory and descriptors back; its generation makes old events miss. */
static void release(struct hp_exec_cmd *cmd)
{
    for (int i = 0; i < 2; i++) {
        hp_fd_close(&cmd->pipes[i].fd);
        hp_tail_deinit(&cmd->pipes[i].tail);
    }
    cmd->state = HP_COMMAND_FREE;
    cmd->generation++;
}

void hp_commands_deinit(struct hp_exec *exec)
{
    for (uint32_t i = 0; exec->cmds != NULL && i <= exec->config.slots; i++) {
        release(&exec->cmds[i]);
    }
    hp_idmap_deinit(&exec->cmd_by_key);
    hp_idmap_deinit(&exec->cmd_by_id);
    hp_free(exec->cmds);
    exec->cmds = NULL;
}

uint32_t hp_exec_command_count(const struct hp_exec *exec)
{
    return exec->cmd_count;
}

/* ---------------------------------------------------------------- packing */

static bool has_nul(struct hp_str text)
{
    return text.size > 0 && memchr(text.data, '\0', text.size) != NULL;
}

/* Bytes of the name in "NAME=VALUE"; 0: it is none. */
static size_t name_size(struct hp_str setting)
{
    const char *equals = setting.size > 0 ? memchr(setting.data, '=', setting.size) : NULL;
    return equals == NULL ? 0 : (size_t)(equals - setting.data);
}

static enum hp_err check(const struct hp_exec_command *command, struct hp_error *reterr)
{
    bool is_bad = command->argv_count == 0 || has_nul(command->cwd);
    for (uint32_t i = 0; i < command->argv_count; i++) {
        is_bad = is_bad || has_nul(command->argv[i]);
    }
    const struct hp_bin more = command->argv_more;
    is_bad = is_bad || (more.size > 0 && more.data[more.size - 1] != '\0');
    if (is_bad) {
        return hp_error_set(reterr, HP_ERR_INVALID,
                            "no argv, or a NUL byte in (or none behind) an argument");
    }
    for (uint32_t i = 0; i < command->env_count; i++) {
        if (name_size(command->env[i]) == 0 || has_nul(command->env[i])) {
            return hp_error_set(reterr, HP_ERR_INVALID, "env %" PRIu32 " is not NAME=VALUE", i);
        }
    }
    return HP_OK;
}

/* True if a setting from index `from` on has the same name. */
static bool is_overridden(const struct hp_exec_command *command, uint32_t from,
                          struct hp_str setting)
{
    size_t size = name_size(setting) + 1;
    for (uint32_t i = from; i < command->env_count; i++) {
        if (command->env[i].size >= size && memcmp(command->env[i].data, setting.data, size) == 0) {
            return true;
        }
    }
    return false;
}

static enum hp_err append_string(struct hp_buf *buf, struct hp_str text)
{
    enum hp_err err = hp_buf_append(buf, text.data, text.size);
    return err == HP_OK ? hp_buf_append_byte(buf, '\0') : err;
}

/* Appends "NAME=value" unless the command sets it itself. */
static enum hp_err append_setting(struct hp_buf *buf, const struct hp_exec_command *command,
                                  const char *name, const char *value, uint32_t *count)
{
    struct hp_buf one;
    hp_buf_init(&one, 1024 * 1024);
    enum hp_err err = hp_buf_append_format(&one, "%s=%s", name, value);
    struct hp_str setting = hp_bin_as_str(hp_buf_bin(&one));
    if (err == HP_OK && !is_overridden(command, 0, setting)) {
        (*count)++;
        err = append_string(buf, setting);
    }
    hp_buf_deinit(&one);
    return err;
}

static enum hp_err append_number(struct hp_buf *buf, const struct hp_exec_command *command,
                                 const char *name, uint64_t value, uint32_t *count)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%" PRIu64, value);
    return append_setting(buf, command, name, text, count);
}

/* The whole environment: marker, clean base, the task's identity, the command's own. */
static enum hp_err append_env(struct hp_buf *buf, const struct hp_exec *exec,
                              const struct hp_exec_command *command, uint64_t id, uint32_t *count)
{
    char marker[HP_RUN_MARKER_BYTES];
    hp_run_marker(marker, exec->instance, id);
    const struct hp_exec_config *config = &exec->config;
    *count = 1;
    enum hp_err err = append_string(buf, hp_str_of(marker));
    const char *const base[][2] = {{"PATH", config->path},
                                   {"HOME", config->home},
                                   {"LANG", config->lang},
                                   {"TMPDIR", config->scratch_dir}};
    for (size_t i = 0; err == HP_OK && i < HP_COUNT_OF(base); i++) {
        err = append_setting(buf, command, base[i][0], base[i][1], count);
    }
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {{"HOSTPOOL_TASK_ID", command->task_id},
                   {"HOSTPOOL_ATTEMPT", command->attempt},
                   {"HOSTPOOL_EPOCH", command->epoch},
                   {"HOSTPOOL_ARRAY_INDEX", command->array_index}};
    for (size_t i = 0; err == HP_OK && i < HP_COUNT_OF(numbers); i++) {
        err = append_number(buf, command, numbers[i].name, numbers[i].value, count);
    }
    for (uint32_t i = 0; err == HP_OK && i < command->env_count; i++) {
        bool is_ours = hp_str_starts_with(command->env[i], HP_STR(HP_RUN_MARKER));
        if (!is_ours && !is_overridden(command, i + 1, command->env[i])) {
            (*count)++;
            err = append_string(buf, command->env[i]);
        }
    }
    return err;
}

static enum hp_err pack(struct hp_buf *buf, const struct hp_exec *exec,
                        const struct hp_exec_command *command, uint64_t id)
{
    struct hp_spawn_spec head = {.argv_count = command->argv_count};
    struct hp_str cwd = command->cwd.size > 0 ? command->cwd : hp_str_of(exec->config.scratch_dir);
    enum hp_err err = hp_buf_append(buf, &head, sizeof head);
    if (err == HP_OK) {
        err = append_string(buf, cwd);
    }
    for (uint32_t i = 0; err == HP_OK && i < command->argv_count; i++) {
        err = append_string(buf, command->argv[i]);
    }
    if (err == HP_OK && command->argv_more.size > 0) {
        err = hp_buf_append(buf, command->argv_more.data, command->argv_more.size);
        for (uint32_t i = 0; i < command->argv_more.size; i++) {
            head.argv_count += command->argv_more.data[i] == '\0';
        }
    }
    if (err == HP_OK) {
        err = append_env(buf, exec, command, id, &head.env_count);
    }
    if (err == HP_OK) {
        memcpy(buf->data, &head, sizeof head);
    }
    return err;
}

/* ---------------------------------------------------------------- starting */

/*
 * A descriptor that gives the stdin bytes: a pipe which holds them all, or a memfd if they are too
 * many for that. Either way nobody has to keep writing. -1: no descriptor left.
 */
static int open_stdin(struct hp_bin data)
{
    int fds[2];
    if (data.size <= HP_EXEC_INLINE_BYTES_MAX && hp_exec_pipe_open(fds) == HP_OK) {
        /* The write end must not block: a user with many pipes gets smaller ones. */
        ssize_t size = -1;
        if (hp_fd_set_nonblock(fds[1]) == HP_OK) {
            size = write(fds[1], data.data, data.size);
        }
        int flags = fcntl(fds[0], F_GETFL);
        bool is_fine = size == (ssize_t)data.size && flags >= 0 &&
                       fcntl(fds[0], F_SETFL, flags & ~O_NONBLOCK) == 0;
        hp_fd_close(&fds[1]);
        if (is_fine) {
            return fds[0];
        }
        hp_fd_close(&fds[0]);
    }
    return hp_exec_memfd("hp-stdin", data.data, data.size);
}

/* What a start holds until the spawner has it. */
struct start {
    struct hp_buf spec;
    int stdin_fd; /* to be closed by us */
    int write_fds[2];
    int spec_fd;
};

static void start_deinit(struct start *start)
{
    hp_buf_deinit(&start->spec);
    hp_fd_close(&start->stdin_fd);
    hp_fd_close(&start->write_fds[0]);
    hp_fd_close(&start->write_fds[1]);
    hp_fd_close(&start->spec_fd);
}

/* Has epoll tell of the pipes that are open, if it does not yet. After an error it may be tried
 * again. */
static enum hp_err watch(struct hp_exec *exec, struct hp_exec_cmd *cmd)
{
    const enum hp_exec_source sources[2] = {HP_SOURCE_COMMAND_OUT, HP_SOURCE_COMMAND_ERR};
    for (int i = 0; i < 2 && !cmd->is_watched; i++) {
        int fd = cmd->pipes[i].fd;
        if (fd >= 0 && hp_exec_watch(exec, fd, sources[i], cmd->index, cmd->generation) != HP_OK &&
            errno != EEXIST) {
            return HP_ERR_IO;
        }
    }
    cmd->is_watched = true;
    return HP_OK;
}

/* Watches a command that has been let alone so far; without memory for that, a timer reads. */
static void watch_or_poll(struct hp_exec *exec, struct hp_exec_cmd *cmd)
{
    if (watch(exec, cmd) != HP_OK) {
        hp_exec_timer_by(exec, hp_clock_mono_us() + POLL_US);
    }
}

/* Opens and packs all that the command needs. */
static enum hp_err prepare(struct hp_exec *exec, struct hp_exec_cmd *cmd,
                           const struct hp_exec_command *command, struct start *start,
                           struct hp_error *reterr)
{
    enum hp_err err = pack(&start->spec, exec, command, cmd->id);
    if (err != HP_OK) {
        return hp_error_set(reterr, err, "no memory for the command's arguments");
    }
    for (int i = 0; err == HP_OK && i < 2; i++) {
        int fds[2];
        err = hp_exec_pipe_open(fds);
        if (err == HP_OK) {
            cmd->pipes[i].fd = fds[0];
            start->write_fds[i] = fds[1];
        }
    }
    if (err == HP_OK && cmd->follow) {
        err = watch(exec, cmd);
    }
    if (err == HP_OK && command->stdin_fd < 0 && command->stdin_data.size > 0) {
        start->stdin_fd = open_stdin(command->stdin_data);
        err = start->stdin_fd < 0 ? HP_ERR_IO : HP_OK;
    }
    if (err == HP_OK && start->spec.size > HP_CONTROL_TEXT_BYTES_MAX) {
        start->spec_fd = hp_exec_memfd("hp-command", start->spec.data, start->spec.size);
        err = start->spec_fd < 0 ? HP_ERR_IO : HP_OK;
    }
    return err == HP_OK ? HP_OK : hp_error_set(reterr, err, "no descriptors: %s", strerror(errno));
}

static enum hp_err send_start(struct hp_exec *exec, const struct hp_exec_cmd *cmd,
                              const struct hp_exec_command *command, const struct start *start)
{
    struct hp_control_msg msg = {.type = HP_CONTROL_SPAWN, .id = cmd->id};
    int fds[HP_CONTROL_FDS_MAX];
    int stdin_fd = command->stdin_fd >= 0 ? command->stdin_fd : start->stdin_fd;
    if (stdin_fd >= 0) {
        fds[msg.slot++] = stdin_fd;
    }
    fds[msg.slot++] = start->write_fds[0];
    fds[msg.slot++] = start->write_fds[1];
    if (start->spec_fd >= 0) {
        fds[msg.slot++] = start->spec_fd;
        msg.flags |= HP_CONTROL_FLAG_SPEC_FD;
        msg.spec_bytes = start->spec.size;
    } else {
        msg.text_bytes = (uint32_t)start->spec.size;
    }
    if (command->kill_on_partition) {
        msg.flags |= HP_CONTROL_FLAG_KILL_ON_PARTITION;
    }
    return hp_exec_link_send(exec, &exec->spawner, &msg, start->spec.data, fds, msg.slot);
}

static struct hp_exec_cmd *find_free(struct hp_exec *exec)
{
    for (uint32_t i = 0; i <= exec->config.slots; i++) {
        if (exec->cmds[i].state == HP_COMMAND_FREE) {
            return &exec->cmds[i];
        }
    }
    return NULL;
}

static enum hp_err start_command(struct hp_exec *exec, struct hp_exec_cmd *cmd,
                                 const struct hp_exec_command *command, struct hp_error *reterr)
{
    struct start start = {.stdin_fd = -1, .write_fds = {-1, -1}, .spec_fd = -1};
    hp_buf_init(&start.spec, SPEC_BYTES_MAX);
    cmd->key = command->key;
    cmd->id = ++exec->next_id;
    cmd->follow = command->follow;
    cmd->wants_replay = false;
    cmd->is_watched = false;
    cmd->drain_until_us = HP_EXEC_NEVER;
    cmd->end = (struct hp_exec_end){.text = ""};
    for (int i = 0; i < 2; i++) {
        hp_tail_init(&cmd->pipes[i].tail, (size_t)command->output_cap_bytes);
        cmd->pipes[i].sent = 0;
    }
    enum hp_err err = prepare(exec, cmd, command, &start, reterr);
    if (err == HP_OK) {
        err = hp_idmap_put(&exec->cmd_by_key, cmd->key, cmd->index);
    }
    if (err == HP_OK) {
        err = hp_idmap_put(&exec->cmd_by_id, cmd->id, cmd->index);
    }
    if (err == HP_OK) {
        err = send_start(exec, cmd, command, &start);
    }
    if (err != HP_OK) {
        (void)hp_idmap_remove(&exec->cmd_by_key, cmd->key, NULL);
        (void)hp_idmap_remove(&exec->cmd_by_id, cmd->id, NULL);
        release(cmd);
    }
    start_deinit(&start);
    return err;
}

enum hp_err hp_exec_command(struct hp_exec *exec, const struct hp_exec_command *command,
                            struct hp_error *reterr)
{
    enum hp_err err = check(command, reterr);
    if (err != HP_OK) {
        return err;
    }
    if (exec->spawner.is_dead) {
        return hp_error_set(reterr, HP_ERR_CLOSED, "the spawner is gone");
    }
    if (exec->cmd_count >= exec->config.slots) {
        return hp_error_set(reterr, HP_ERR_FULL, "%" PRIu32 " commands run", exec->cmd_count);
    }
    if (hp_idmap_find(&exec->cmd_by_key, command->key, NULL)) {
        return hp_error_set(reterr, HP_ERR_EXISTS, "command %" PRIu64 " runs", command->key);
    }
    struct hp_exec_cmd *cmd = find_free(exec);
    HP_ASSERT(cmd != NULL);
    err = start_command(exec, cmd, command, reterr);
    if (err == HP_OK) {
        cmd->state = HP_COMMAND_STARTING;
        exec->cmd_count++;
    }
    return err;
}

/* ---------------------------------------------------------------- output */

static void emit(struct hp_exec *exec, struct hp_exec_cmd *cmd, int stream, uint64_t offset,
                 struct hp_bin data)
{
    while (data.size > 0 && exec->config.callbacks.output != NULL) {
        struct hp_bin part = {data.data, HP_MIN(data.size, HP_EXEC_READ_BYTES)};
        exec->config.callbacks.output(exec->config.context, cmd->key,
                                      stream == 0 ? HP_EXEC_STDOUT : HP_EXEC_STDERR, offset, part);
        data.data += part.size;
        data.size -= part.size;
        offset += part.size;
    }
}

/* Gives a follower what is kept and it has not seen. */
static void replay(struct hp_exec *exec, struct hp_exec_cmd *cmd, int stream)
{
    struct hp_exec_pipe *pipe = &cmd->pipes[stream];
    struct hp_bin part[2];
    if (!cmd->follow || pipe->sent == pipe->tail.total) {
        return;
    }
    uint64_t offset = hp_tail_view(&pipe->tail, pipe->sent, part);
    pipe->sent = pipe->tail.total;
    emit(exec, cmd, stream, offset, part[0]);
    emit(exec, cmd, stream, offset + part[0].size, part[1]);
}

/* One read of a stream. True if it gave bytes and there may be more. */
static bool read_once(struct hp_exec *exec, struct hp_exec_cmd *cmd, int stream)
{
    struct hp_exec_pipe *pipe = &cmd->pipes[stream];
    if (pipe->fd < 0) {
        return false;
    }
    ssize_t size = read(pipe->fd, exec->buffer, sizeof exec->buffer);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
    }
    if (size <= 0) {
        hp_fd_close(&pipe->fd);
        return false;
    }
    replay(exec, cmd, stream);
    uint64_t offset = pipe->tail.total;
    hp_tail_append(&pipe->tail, exec->buffer, (size_t)size);
    if (cmd->follow) {
        pipe->sent = pipe->tail.total;
        emit(exec, cmd, stream, offset, hp_bin_make(exec->buffer, (size_t)size));
    }
    return true;
}

static void view_output(const struct hp_tail *tail, struct hp_exec_output *ret)
{
    (void)hp_tail_view(tail, 0, ret->part);
    ret->total_bytes = tail->total;
    ret->truncated = tail->total > tail->size;
}

/* Reports the end and frees the command. */
static void finish(struct hp_exec *exec, struct hp_exec_cmd *cmd)
{
    for (int i = 0; i < 2; i++) {
        replay(exec, cmd, i);
    }
    view_output(&cmd->pipes[0].tail, &cmd->end.out);
    view_output(&cmd->pipes[1].tail, &cmd->end.err);
    (void)hp_idmap_remove(&exec->cmd_by_key, cmd->key, NULL);
    (void)hp_idmap_remove(&exec->cmd_by_id, cmd->id, NULL);
    exec->cmd_count--; /* the callback may start another one: there is a slot more than is counted
                        */
    if (exec->config.callbacks.ended != NULL) {
        exec->config.callbacks.ended(exec->config.context, cmd->key, &cmd->end);
    }
    release(cmd);
}

static bool is_drained(const struct hp_exec_cmd *cmd)
{
    return cmd->pipes[0].fd < 0 && cmd->pipes[1].fd < 0;
}

void hp_commands_on_readable(struct hp_exec *exec, int stream, uint32_t index, uint32_t generation)
{
    struct hp_exec_cmd *cmd = &exec->cmds[index];
    if (cmd->generation != generation || cmd->state == HP_COMMAND_FREE) {
        return;
    }
    (void)read_once(exec, cmd, stream);
    if (cmd->state == HP_COMMAND_ENDED && is_drained(cmd)) {
        finish(exec, cmd);
    }
}

/* ---------------------------------------------------------------- what the spawner says */

static void on_started(struct hp_exec *exec, struct hp_exec_cmd *cmd,
                       const struct hp_control_msg *msg)
{
    if (cmd->state != HP_COMMAND_STARTING) {
        return;
    }
    cmd->state = HP_COMMAND_RUNNING;
    if (exec->config.callbacks.started != NULL) {
        exec->config.callbacks.started(exec->config.context, cmd->key, msg->pid, msg->run_us);
    }
}

static void on_ended(struct hp_exec *exec, struct hp_exec_cmd *cmd,
                     const struct hp_control_msg *msg)
{
    bool is_signaled = (msg->flags & HP_CONTROL_FLAG_SIGNALED) != 0;
    struct hp_exec_end *end = &cmd->end;
    end->cause = is_signaled ? HP_EXEC_SIGNALED : HP_EXEC_EXITED;
    end->exit_code = is_signaled ? 0 : msg->value;
    end->signal = is_signaled ? msg->value : 0;
    end->fenced = (msg->flags & HP_CONTROL_FLAG_FENCED) != 0;
    bool is_ours = end->fenced || (msg->flags & HP_CONTROL_FLAG_KILLED) != 0;
    end->oom = end->signal == SIGKILL && !is_ours && hp_oom_look(&exec->oom);
    end->usage = (struct hp_exec_usage){.run_us = msg->run_us,
                                        .utime_us = msg->utime_us,
                                        .stime_us = msg->stime_us,
                                        .maxrss_kb = msg->maxrss_kb};
    cmd->state = HP_COMMAND_ENDED;
    for (int stream = 0; stream < 2; stream++) {
        for (int i = 0; i < READS_AT_END_MAX && read_once(exec, cmd, stream); i++) {
        }
    }
    if (is_drained(cmd)) {
        finish(exec, cmd);
        return;
    }
    watch_or_poll(exec, cmd);
    cmd->drain_until_us = hp_clock_mono_us() + (uint64_t)exec->config.drain_ms * 1000;
    hp_exec_timer_by(exec, cmd->drain_until_us);
}

void hp_commands_on_message(struct hp_exec *exec, const struct hp_control_in *in)
{
    uint64_t index = 0;
    if (!hp_idmap_find(&exec->cmd_by_id, in->msg.id, &index)) {
        return;
    }
    struct hp_exec_cmd *cmd = &exec->cmds[index];
    if (in->msg.type == HP_CONTROL_STARTED) {
        on_started(exec, cmd, &in->msg);
        watch_or_poll(exec, cmd);
    } else if (in->msg.type == HP_CONTROL_FAILED) {
        (void)hp_strlcpy(cmd->text, in->text, sizeof cmd->text);
        cmd->end.cause = HP_EXEC_NOT_STARTED;
        cmd->end.error_number = in->msg.value;
        cmd->end.text = cmd->text;
        finish(exec, cmd);
    } else if (in->msg.type == HP_CONTROL_ENDED) {
        on_started(exec, cmd, &in->msg); /* a short one is told of by its end alone */
        on_ended(exec, cmd, &in->msg);
    }
}

/* Reads what epoll could not be made to tell of. */
static void poll_unwatched(struct hp_exec *exec, struct hp_exec_cmd *cmd)
{
    if (cmd->is_watched) {
        return;
    }
    watch_or_poll(exec, cmd);
    for (int stream = 0; stream < 2; stream++) {
        (void)read_once(exec, cmd, stream);
    }
    if (cmd->state == HP_COMMAND_ENDED && is_drained(cmd)) {
        finish(exec, cmd);
    }
}

void hp_commands_on_timer(struct hp_exec *exec, uint64_t now_us)
{
    for (uint32_t i = 0; i <= exec->config.slots; i++) {
        struct hp_exec_cmd *cmd = &exec->cmds[i];
        if (cmd->state == HP_COMMAND_RUNNING || cmd->state == HP_COMMAND_ENDED) {
            poll_unwatched(exec, cmd);
        }
        if (cmd->state != HP_COMMAND_ENDED || cmd->drain_until_us == HP_EXEC_NEVER) {
            continue;
        }
        if (cmd->drain_until_us <= now_us) {
            finish(exec, cmd);
        } else {
            hp_exec_timer_by(exec, cmd->drain_until_us);
        }
    }
}

void hp_commands_on_wake(struct hp_exec *exec)
{
    for (uint32_t i = 0; i <= exec->config.slots; i++) {
        struct hp_exec_cmd *cmd = &exec->cmds[i];
        if (cmd->state == HP_COMMAND_FREE || !cmd->wants_replay) {
            continue;
        }
        cmd->wants_replay = false;
        replay(exec, cmd, 0);
        replay(exec, cmd, 1);
    }
}

void hp_commands_on_lost(struct hp_exec *exec)
{
    for (uint32_t i = 0; i <= exec->config.slots; i++) {
        struct hp_exec_cmd *cmd = &exec->cmds[i];
        if (cmd->state == HP_COMMAND_FREE) {
            continue;
        }
        if (cmd->state != HP_COMMAND_ENDED) {
            cmd->end.cause = HP_EXEC_LOST;
        }
        for (int stream = 0; stream < 2; stream++) {
            (void)read_once(exec, cmd, stream);
        }
        finish(exec, cmd);
    }
}

/* ---------------------------------------------------------------- orders */

enum hp_err hp_exec_kill(struct hp_exec *exec, uint64_t key, int signal)
{
    uint64_t index = 0;
    if (!hp_idmap_find(&exec->cmd_by_key, key, &index)) {
        return HP_ERR_NOT_FOUND;
    }
    struct hp_exec_cmd *cmd = &exec->cmds[index];
    if (cmd->state == HP_COMMAND_ENDED) {
        return HP_OK; /* its process has ended already, only output is still read */
    }
    struct hp_control_msg msg = {.type = HP_CONTROL_KILL, .id = cmd->id, .value = signal};
    return hp_exec_link_send(exec, &exec->spawner, &msg, NULL, NULL, 0);
}

enum hp_err hp_exec_follow(struct hp_exec *exec, uint64_t key, bool on)
{
    uint64_t index = 0;
    if (!hp_idmap_find(&exec->cmd_by_key, key, &index)) {
        return HP_ERR_NOT_FOUND;
    }
    struct hp_exec_cmd *cmd = &exec->cmds[index];
    if (on && !cmd->follow) {
        cmd->pipes[0].sent = cmd->pipes[1].sent = 0;
        cmd->wants_replay = true;
        hp_exec_wake(exec);
        watch_or_poll(exec, cmd);
    }
    cmd->follow = on;
    return HP_OK;
}
