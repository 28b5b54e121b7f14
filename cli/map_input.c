/* SPDX-License-Identifier: BSD-2-Clause */
/* Inputs of map: words, lines of files, lines of standard input. */
#include "cli/map.h"

#include "cli/value.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_BYTES 65536u
#define INPUT_BYTES_MAX ((size_t)1 << 20)
/* Files up to this size are counted before the start. */
#define COUNT_BYTES_MAX ((off_t)256 << 20)

static bool is_source(const char *word)
{
    return strcmp(word, ":::") == 0 || strcmp(word, "::::") == 0;
}

static const char *const standard_input[] = {"-", NULL};

static int check_sources(struct hp_cli *cli, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (is_source(words[i])) {
            return hp_cli_usage(cli->args.verb, "only one ::: or :::: is possible.");
        }
    }
    return 0;
}

static int use_standard_input(struct hp_cli *cli, struct hp_map_input *input)
{
    input->paths = standard_input;
    input->path_count = 1;
    if (isatty(STDIN_FILENO) != 1) {
        return 0;
    }
    if (hp_cli_has(cli, HP_CLI_F_NO_INPUT)) {
        return hp_cli_usage(cli->args.verb,
                            "no inputs: give ::: INPUT..., :::: FILE, or lines on standard input.");
    }
    hp_cli_error("reading inputs from the terminal, one a line; Ctrl-D ends them.");
    return 0;
}

int hp_map_input_init(struct hp_cli *cli, struct hp_map_input *input, size_t *ret_count)
{
    const char *const *words = cli->args.operands;
    size_t count = cli->args.operand_count;
    size_t at = 0;
    *input = (struct hp_map_input){.fd = -1};
    input->delimiter = hp_cli_has(cli, HP_CLI_F_NULL) ? '\0' : '\n';
    hp_buf_init(&input->buf, INPUT_BYTES_MAX + READ_BYTES);
    while (at < count && !is_source(words[at])) {
        at++;
    }
    *ret_count = at;
    const char *file = hp_cli_text(cli, HP_CLI_F_ARG_FILE, NULL);
    if (at < count && file != NULL) {
        return hp_cli_usage(cli->args.verb, "--arg-file and %s exclude each other.", words[at]);
    }
    if (file != NULL) {
        const char **paths = hp_cli_alloc_array(2, sizeof(*paths));
        paths[0] = file;
        input->paths = paths;
        input->path_count = 1;
    } else if (at == count) {
        return use_standard_input(cli, input);
    } else if (strcmp(words[at], ":::") == 0) {
        input->words = words + at + 1;
        input->word_count = count - at - 1;
        input->total = input->word_count;
    } else {
        input->paths = words + at + 1;
        input->path_count = count - at - 1;
        if (input->path_count == 0) {
            return hp_cli_usage(cli->args.verb, ":::: needs a file.");
        }
    }
    return at < count ? check_sources(cli, words + at + 1, count - at - 1) : 0;
}

static void close_file(struct hp_map_input *input)
{
    if (input->fd > STDERR_FILENO) {
        (void)close(input->fd);
    }
    input->fd = -1;
}

void hp_map_input_deinit(struct hp_map_input *input)
{
    close_file(input);
    hp_buf_deinit(&input->buf);
}

static bool open_file(struct hp_map_input *input)
{
    const char *path = input->paths[input->path_index];
    struct stat about = {0};
    input->fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (input->fd < 0 || fstat(input->fd, &about) != 0) {
        hp_cli_error("cannot open %s: %s.", path, strerror(errno));
        return false;
    }
    input->is_pipe = !S_ISREG(about.st_mode);
    input->is_file_end = false;
    return true;
}

/* Reads more into buf. */
static enum hp_map_next read_more(struct hp_map_input *input)
{
    struct pollfd wait = {.fd = input->fd, .events = POLLIN};
    uint8_t *at = NULL;
    if (input->is_pipe && poll(&wait, 1, 0) == 0) {
        return HP_MAP_WAIT;
    }
    if (hp_buf_reserve(&input->buf, READ_BYTES, &at) != HP_OK) {
        hp_cli_error("input %llu is longer than 1 MiB.", (unsigned long long)input->number + 1);
        return HP_MAP_ERROR;
    }
    ssize_t size = read(input->fd, at, READ_BYTES);
    if (size < 0 && (errno == EINTR || errno == EAGAIN)) {
        return HP_MAP_WAIT;
    }
    if (size < 0) {
        hp_cli_error("cannot read %s: %s.", input->paths[input->path_index], strerror(errno));
        return HP_MAP_ERROR;
    }
    hp_buf_commit(&input->buf, (size_t)size);
    input->is_file_end = size == 0;
    return HP_MAP_GOT;
}

/* Takes what is in front of the delimiter at `size`; it is consumed with the next call. */
static enum hp_map_next hand_out(struct hp_map_input *input, size_t size, const char **ret_text)
{
    if (memchr(input->buf.data, '\0', size) != NULL) {
        hp_cli_error("input %llu has a NUL byte in it.", (unsigned long long)input->number + 1);
        hp_cli_hint("If the inputs end with NUL bytes: --null");
        return HP_MAP_ERROR;
    }
    input->buf.data[size] = '\0';
    input->scanned = size + 1; /* to be consumed */
    input->number++;
    *ret_text = (const char *)input->buf.data;
    return HP_MAP_GOT;
}

static enum hp_map_next next_line(struct hp_map_input *input, const char **ret_text)
{
    size_t scanned = 0;
    hp_buf_consume(&input->buf, input->scanned);
    input->scanned = 0;
    for (;;) {
        uint8_t *end =
            input->buf.size > scanned
                ? memchr(input->buf.data + scanned, input->delimiter, input->buf.size - scanned)
                : NULL;
        if (end != NULL) {
            return hand_out(input, (size_t)(end - input->buf.data), ret_text);
        }
        scanned = input->buf.size;
        if (input->is_file_end && scanned > 0) { /* the last line has no delimiter */
            hp_cli_put(&input->buf, "", 1);
            return hand_out(input, scanned, ret_text);
        }
        if (input->is_file_end) {
            return HP_MAP_END;
        }
        enum hp_map_next more = read_more(input);
        if (more != HP_MAP_GOT) {
            return more;
        }
    }
}

enum hp_map_next hp_map_input_next(struct hp_map_input *input, const char **ret_text)
{
    if (input->words != NULL) {
        if (input->word_index == input->word_count) {
            return HP_MAP_END;
        }
        *ret_text = input->words[input->word_index++];
        input->number++;
        return HP_MAP_GOT;
    }
    while (input->path_index < input->path_count) {
        if (input->fd < 0 && !open_file(input)) {
            return HP_MAP_ERROR;
        }
        enum hp_map_next next = next_line(input, ret_text);
        if (next != HP_MAP_END) {
            return next;
        }
        close_file(input);
        input->path_index++;
    }
    return HP_MAP_END;
}

/* Delimiters of a plain file; the last line may have none. False: not plain, or too large. */
static bool count_file(const char *path, char delimiter, uint64_t *count)
{
    struct stat about = {0};
    int fd = strcmp(path, "-") == 0 ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    bool is_counted = false;
    if (fd >= 0 && fstat(fd, &about) == 0 && S_ISREG(about.st_mode) &&
        about.st_size <= COUNT_BYTES_MAX) {
        char *data = hp_cli_alloc(READ_BYTES);
        off_t at = strcmp(path, "-") == 0 ? lseek(fd, 0, SEEK_CUR) : 0;
        char last = delimiter;
        for (ssize_t size; (size = pread(fd, data, READ_BYTES, at)) > 0; at += size) {
            for (const char *found = data;
                 (found = memchr(found, delimiter, (size_t)(data + size - found))) != NULL;
                 found++) {
                (*count)++;
            }
            last = data[size - 1];
        }
        *count += last != delimiter;
        is_counted = true;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return is_counted;
}

void hp_map_input_count(struct hp_map_input *input)
{
    uint64_t total = 0;
    for (size_t i = 0; i < input->path_count; i++) {
        if (!count_file(input->paths[i], input->delimiter, &total)) {
            return;
        }
    }
    input->total = input->words != NULL ? input->word_count : total;
}
