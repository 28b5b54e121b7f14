/* SPDX-License-Identifier: BSD-2-Clause */
/* What map leaves behind: the joblog (GNU parallel's format) and the results directory. */
#include "cli/map.h"

#include "common/base/hash.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#include "common/sys/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NUMBER_MAX UINT64_C(100000000)
#define FIELDS 9
enum field { SEQ, HOST, START, RUNTIME, SEND, RECEIVE, EXITVAL, SIGNAL, COMMAND };
enum mark { MARK_DONE = 1, MARK_FAILED = 2 };

static const char header[] =
    "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n";

/* The command on one line: as it is written, so that it can be compared. */
static char *escape_line(const char *command)
{
    char *line = hp_cli_heap(strlen(command) * 2 + 1);
    char *to = line;
    for (const char *at = command; *at != '\0'; at++) {
        if (*at == '\n' || *at == '\t' || *at == '\\') {
            *to++ = '\\';
            *to++ = *at == '\n' ? 'n' : *at == '\t' ? 't' : '\\';
        } else {
            *to++ = *at;
        }
    }
    return line;
}

static void remember(struct hp_map_log *log, uint64_t number, uint64_t value)
{
    if (number >= log->seen_count) {
        uint64_t count = number < 512 ? 1024 : number * 2;
        log->seen = hp_cli_heap_grow(log->seen, count, sizeof(*log->seen));
        memset(log->seen + log->seen_count, 0, (count - log->seen_count) * sizeof(*log->seen));
        log->seen_count = count;
    }
    log->seen[number] = value;
}

/* False: the line is no line of a joblog. */
static bool take_line(struct hp_map_log *log, char *line, size_t size)
{
    char *fields[FIELDS] = {line};
    size_t count = 1;
    if (size > 0 && line[size - 1] == '\n') {
        line[--size] = '\0';
    }
    for (char *at = line; count < FIELDS && (at = strchr(at, '\t')) != NULL;) {
        *at++ = '\0';
        fields[count++] = at;
    }
    uint64_t number = 0;
    if (count != FIELDS || hp_parse_u64(hp_str_of(fields[SEQ]), &number, NULL) != HP_OK ||
        number == 0 || number > NUMBER_MAX) {
        return false;
    }
    bool is_done = strcmp(fields[EXITVAL], "0") == 0 && strcmp(fields[SIGNAL], "0") == 0;
    uint64_t hash = hp_hash(fields[COMMAND], strlen(fields[COMMAND]), 0);
    remember(log, number, hash << 2 | (is_done ? MARK_DONE : MARK_FAILED));
    return true;
}

static int load(struct hp_cli *cli, struct hp_map_log *log)
{
    FILE *file = fopen(log->path, "re");
    char *line = NULL;
    size_t capacity = 0;
    uint64_t line_number = 0;
    int code = 0;
    if (file == NULL) {
        if (errno == ENOENT) {
            return 0;
        }
        hp_cli_error("cannot open %s: %s.", log->path, strerror(errno));
        return HP_CLI_FAILED;
    }
    for (ssize_t size; code == 0 && (size = getline(&line, &capacity, file)) > 0;) {
        line_number++;
        bool is_cut = line[size - 1] != '\n'; /* the last one of a killed map: it runs again */
        if (line_number > 1 && !is_cut && !take_line(log, line, (size_t)size)) {
            code = hp_cli_usage(cli->args.verb, "%s:%" PRIu64 ": no line of a joblog.", log->path,
                                line_number);
        }
    }
    free(line);
    (void)fclose(file);
    return code;
}

/* A killed map may have left half a line: the next one must not be glued to it. */
static bool end_line(FILE *file)
{
    char last = '\n';
    off_t size = lseek(fileno(file), 0, SEEK_END);
    if (size > 0 && pread(fileno(file), &last, 1, size - 1) != 1) {
        return false;
    }
    const char *text = size == 0 ? header : last != '\n' ? "\n" : "";
    return fputs(text, file) >= 0 && fflush(file) == 0;
}

int hp_map_log_open(struct hp_cli *cli, struct hp_map_log *log)
{
    bool is_resumed = hp_cli_has(cli, HP_CLI_F_RESUME) || hp_cli_has(cli, HP_CLI_F_RETRY_FAILED);
    log->path = hp_cli_text(cli, HP_CLI_F_JOBLOG, NULL);
    if (log->path == NULL) {
        return is_resumed
                   ? hp_cli_usage(cli->args.verb, "--resume and --retry-failed need --joblog FILE.")
                   : 0;
    }
    int code = is_resumed ? load(cli, log) : 0;
    if (code != 0 || hp_cli_has(cli, HP_CLI_F_DRY_RUN)) {
        return code;
    }
    log->file = fopen(log->path, is_resumed ? "a+e" : "w+e");
    if (log->file == NULL || !end_line(log->file)) {
        hp_cli_error("cannot write %s: %s.", log->path, strerror(errno));
        return HP_CLI_FAILED;
    }
    return 0;
}

int hp_map_log_wants(const struct hp_cli *cli, const struct hp_map_log *log, uint64_t number,
                     const char *command)
{
    bool is_resume = hp_cli_has(cli, HP_CLI_F_RESUME);
    bool is_retry = hp_cli_has(cli, HP_CLI_F_RETRY_FAILED);
    if (!is_resume && !is_retry) {
        return 1;
    }
    uint64_t seen = number < log->seen_count ? log->seen[number] : 0;
    if (seen == 0) {
        return is_resume;
    }
    char *line = escape_line(command);
    bool is_same = (hp_hash(line, strlen(line), 0) << 2) == (seen & ~UINT64_C(3));
    hp_free(line);
    if (!is_same) {
        hp_cli_error("%s: input %" PRIu64 " had another command there. Were the inputs others?",
                     log->path, number);
        hp_cli_hint("Now it is: %s", command);
        return -1;
    }
    return is_retry && (seen & 3) == MARK_FAILED;
}

bool hp_map_log_add(struct hp_map_log *log, const struct hp_map_end *end, const char *command,
                    uint64_t sent)
{
    if (log->file == NULL) {
        return true;
    }
    char *line = escape_line(command);
    int size =
        fprintf(log->file, "%" PRIu64 "\t%s\t%.3f\t%.3f\t%" PRIu64 "\t%" PRIu64 "\t%d\t%u\t%s\n",
                end->number, end->node != NULL ? end->node : "-", (double)end->started_at_ms / 1e3,
                (double)end->run_us / 1e6, sent, end->received, end->exit_value, end->signal, line);
    hp_free(line);
    return size > 0;
}

static bool write_file(int dir_fd, const char *name, const void *data, size_t size)
{
    int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool is_good = fd >= 0 && hp_cli_write_all(fd, data, size);
    if (fd >= 0 && close(fd) != 0) {
        is_good = false;
    }
    return is_good;
}

bool hp_map_results_write(const char *dir, const struct hp_map_end *end)
{
    char path[4200];
    char code[16];
    int size = snprintf(path, sizeof(path), "%s/%" PRIu64, dir, end->number);
    if (size < 0 || (size_t)size >= sizeof(path)) {
        errno = ENAMETOOLONG;
        return false;
    }
    if (hp_mkdir_p(path, 0777, NULL) != HP_OK) {
        return false;
    }
    int dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0) {
        return false;
    }
    (void)snprintf(code, sizeof(code), "%d\n", end->code);
    bool is_good = write_file(dir_fd, "stdout", end->bytes[0], end->sizes[0]) &&
                   write_file(dir_fd, "stderr", end->bytes[1], end->sizes[1]) &&
                   write_file(dir_fd, "exitval", code, strlen(code)) &&
                   write_file(dir_fd, "input", end->input, strlen(end->input));
    (void)close(dir_fd);
    return is_good;
}
