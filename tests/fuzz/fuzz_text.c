/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzz target: text that people write, in files and on command lines, and values that functions
 * return. The first byte says which: see `takers`. What is taken is within its bounds and comes
 * back the same when it is written and read again; what is not is refused with a sentence.
 */
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/halt.h"
#include "cli/sel.h"
#include "cli/template.h"
#include "cli/value.h"
#include "common/base/assert.h"
#include "common/base/macro.h"
#include "common/base/str.h"
#include "common/net/addr.h"
#include "common/sys/conf.h"
#include "common/sys/file.h"
#include "common/sys/log.h"
#include "server/config.h"

#define WORDS_MAX 64u
#define OUT_BYTES_MAX ((size_t)1 << 22)
#define VALUE_DEPTH_MAX 32u /* of cli/value.c */

/* An input as a text, and as words, each ended by a NUL byte. */
struct input {
    const uint8_t *data;
    size_t size;
    char *text;
    const char *words[WORDS_MAX + 1];
    int count; /* of words, one at least */
};

static char dir[] = "/dev/shm/hp-fuzz-text-XXXXXX";
static char path[sizeof(dir) + 8];

static void remove_dir(void)
{
    (void)unlink(path); /* best effort: it may not be there */
    (void)rmdir(dir);
}

static void put_file(const struct input *in)
{
    if (path[0] == '\0') {
        HP_ASSERT(mkdtemp(dir) != NULL && atexit(remove_dir) == 0);
        (void)snprintf(path, sizeof(path), "%s/file", dir);
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    HP_ASSERT(fd >= 0 && hp_fd_write_all(fd, in->data, in->size) == HP_OK);
    (void)close(fd);
}

static void check_refused(enum hp_err err, const struct hp_error *error)
{
    HP_ASSERT(err == HP_OK || error->text[0] != '\0');
}

/* ------------------------------------------------------------------ configuration */
static const struct hp_conf_option options[] = {
    {.name = "data_dir", .type = HP_CONF_STR, .min = 1, .max = 64, .text = "A folder."},
    {.name = "listen", .type = HP_CONF_STR, .default_text = "127.0.0.1:7741", .text = "Where."},
    {.name = "lane_window", .type = HP_CONF_INT, .min = 16, .max = 1000000, .text = "A number."},
    {.name = "eager", .type = HP_CONF_BOOL, .default_text = "yes", .text = "Yes or no."},
    {.name = "lease", .type = HP_CONF_DURATION, .min = 1000, .max = 3600000, .text = "A time."},
    {.name = "wal_size", .type = HP_CONF_SIZE, .min = 1 << 20, .text = "A size."},
    {.name = "check", .type = HP_CONF_BOOL, .is_flag_only = true, .text = "A flag."},
};

static void check_conf(struct hp_conf *conf, enum hp_err err, const struct hp_error *error)
{
    check_refused(err, error);
    for (size_t i = 0; err == HP_OK && i < HP_COUNT_OF(options); i++) {
        const struct hp_conf_value *value = &conf->values[i];
        if (value->source == HP_CONF_FROM_DEFAULT) {
            continue;
        }
        uint64_t number = value->str != NULL ? strlen(value->str) : value->number;
        HP_ASSERT(value->is_set && number >= options[i].min);
        HP_ASSERT(options[i].max == 0 || number <= options[i].max);
    }
}

static void take_conf_file(const struct input *in)
{
    struct hp_conf conf;
    struct hp_error error = {0};
    put_file(in);
    HP_ASSERT(hp_conf_init(&conf, options, HP_COUNT_OF(options)) == HP_OK);
    check_conf(&conf, hp_conf_load_file(&conf, path, &error), &error);
    HP_ASSERT(conf.values[HP_COUNT_OF(options) - 1].source == HP_CONF_FROM_DEFAULT);
    hp_conf_deinit(&conf);
}

static void take_flags(const struct input *in)
{
    struct hp_conf conf;
    struct hp_error error = {0};
    const char *words[WORDS_MAX + 2] = {"program"};
    int rest = 0;
    memcpy(words + 1, in->words, (size_t)in->count * sizeof(*words));
    HP_ASSERT(hp_conf_init(&conf, options, HP_COUNT_OF(options)) == HP_OK);
    enum hp_err err = hp_conf_parse_flags(&conf, in->count + 1, words, &rest, &error);
    check_conf(&conf, err, &error);
    HP_ASSERT(err != HP_OK || (rest >= 1 && rest <= in->count + 1));
    hp_conf_deinit(&conf);
}

static void take_token(const struct input *in)
{
    char token[HP_TOKEN_BYTES_MAX + 1] = "";
    struct hp_error error = {0};
    put_file(in);
    enum hp_err err = hp_token_read(path, token, &error);
    check_refused(err, &error);
    if (err == HP_OK) {
        size_t size = strlen(token);
        HP_ASSERT(size >= HP_TOKEN_BYTES_MIN && size <= HP_TOKEN_BYTES_MAX);
        HP_ASSERT(size <= in->size && memcmp(token, in->data, size) == 0);
        HP_ASSERT(strpbrk(token, "\r\n") == NULL);
    }
}

/* ------------------------------------------------------------------ numbers and names */
static void take_numbers(const struct input *in)
{
    struct hp_str text = hp_str_make((const char *)in->data, in->size);
    uint64_t number = 0;
    uint64_t again = 0;
    int64_t with_sign = 0;
    bool is_yes = false;
    char out[HP_FORMAT_BYTES];
    struct hp_error error = {0};
    check_refused(hp_parse_u64(text, &number, &error), &error);
    check_refused(hp_parse_i64(text, &with_sign, &error), &error);
    check_refused(hp_parse_bool(text, &is_yes, &error), &error);
    enum hp_err err = hp_parse_duration_ms(text, &number, &error);
    check_refused(err, &error);
    if (err == HP_OK) {
        (void)hp_format_duration(out, sizeof(out), number);
        HP_ASSERT(hp_parse_duration_ms(hp_str_of(out), &again, NULL) == HP_OK && again == number);
    }
    err = hp_parse_size_bytes(text, &number, &error);
    check_refused(err, &error);
    if (err == HP_OK) {
        (void)hp_format_size(out, sizeof(out), number);
        HP_ASSERT(hp_parse_size_bytes(hp_str_of(out), &again, NULL) == HP_OK && again == number);
        (void)hp_format_size_human(out, sizeof(out), number);
    }
}

static void take_names(const struct input *in)
{
    static const char *const words[] = {"state", "queue", "data_dir", "lane_window", ""};
    struct hp_str text = hp_str_make((const char *)in->data, in->size);
    enum hp_log_level level;
    HP_ASSERT(!hp_name_valid(text) || (hp_utf8_valid(text) && text.size <= HP_NAME_BYTES_MAX));
    (void)hp_suggest(text, words, HP_COUNT_OF(words));
    for (size_t i = 0; i < HP_COUNT_OF(words); i++) {
        HP_ASSERT(hp_edit_distance(text, hp_str_of(words[i]), 3) ==
                  hp_edit_distance(hp_str_of(words[i]), text, 3));
    }
    (void)!hp_log_level_parse(text, &level); /* one of them, or not */
}

static void take_address(const struct input *in)
{
    struct hp_endpoint endpoint;
    struct hp_error error = {0};
    enum hp_err err = hp_endpoint_parse(in->text, HP_PORT_DEFAULT, &endpoint, &error);
    check_refused(err, &error);
    HP_ASSERT(err != HP_OK || memchr(endpoint.host, '\0', sizeof(endpoint.host)) != NULL);
}

/* ------------------------------------------------------------------ the command line program */
static void take_selectors(const struct input *in)
{
    struct hp_cli_sels sels = {0};
    const char *error = NULL;
    uint64_t first = 0;
    uint64_t step = 0;
    uint64_t count = 0;
    bool is_good = hp_cli_sel_parse(in->text, &sels, &error);
    HP_ASSERT(is_good ? sels.count > 0 : error != NULL);
    for (size_t i = 0; is_good && i < sels.count; i++) {
        HP_ASSERT(sels.items[i].first <= sels.items[i].last && sels.items[i].step > 0);
        HP_ASSERT((sels.items[i].kind == HP_CLI_SEL_BATCH) == (sels.items[i].batch != NULL));
    }
    error = NULL;
    if (hp_cli_array_parse(in->text, &first, &step, &count, &error)) {
        uint64_t last = 0;
        HP_ASSERT(count >= 1 && count <= HP_ARRAY_TASKS_MAX && step >= 1);
        HP_ASSERT(!__builtin_mul_overflow(count - 1, step, &last) &&
                  !__builtin_add_overflow(last, first, &last));
    } else {
        HP_ASSERT(error != NULL);
    }
}

/* The last word is the input, those before it the command. */
static void take_template(const struct input *in)
{
    struct hp_cli_template made;
    struct hp_buf buf;
    const char *input = in->words[in->count - 1];
    size_t count = in->count > 1 ? (size_t)in->count - 1 : 1;
    size_t ends = 0;
    hp_buf_init(&buf, OUT_BYTES_MAX);
    hp_cli_template_init(&made, in->words, count);
    HP_ASSERT(made.fixed_count >= 1 && made.fixed_count < made.count);
    hp_cli_template_payload(&made, input, 7, &buf);
    for (size_t i = 0; i < buf.size; i++) {
        ends += buf.data[i] == '\0';
    }
    HP_ASSERT(ends == made.count - made.fixed_count); /* one word each */
    hp_cli_template_text(&made, input, 7, &buf);
    hp_buf_deinit(&buf);
    HP_ASSERT(hp_cli_command_text(in->words, (size_t)in->count)[0] != '\0');
}

static void take_words(const struct input *in)
{
    struct hp_cli_halt halt;
    unsigned number = 0;
    int64_t at_ms = 0;
    char name[32];
    if (hp_cli_halt_parse(in->text, &halt)) {
        (void)hp_cli_halt_reached(&halt, 5, 3, 10);
    }
    if (hp_cli_signal_parse(in->text, &number)) {
        HP_ASSERT(number >= 1 && number <= 64);
        HP_ASSERT(hp_cli_signal_name(number, name)[0] != '\0');
    }
    HP_ASSERT(!hp_cli_time_parse(in->text, 1000000, &at_ms) || at_ms >= 0);
    const char *safe = hp_cli_escape((const char *)in->data, in->size, false);
    for (size_t i = 0; safe[i] != '\0'; i++) {
        HP_ASSERT((unsigned char)safe[i] >= 0x20 && safe[i] != 0x7f);
    }
    HP_ASSERT(hp_utf8_valid(hp_str_of(safe)));
}

/* ------------------------------------------------------------------ values of functions */
static size_t depth_of(json_t *value)
{
    size_t most = 0;
    size_t i;
    const char *key;
    json_t *item;
    json_array_foreach(value, i, item)
    {
        size_t depth = depth_of(item);
        most = HP_MAX(most, depth);
    }
    json_object_foreach(value, key, item)
    {
        size_t depth = depth_of(item);
        most = HP_MAX(most, depth);
    }
    return most + 1;
}

static void take_json(const struct input *in)
{
    struct hp_buf buf;
    json_t *value = json_loadb((const char *)in->data, in->size, JSON_DECODE_ANY, NULL);
    if (value == NULL) {
        return;
    }
    hp_buf_init(&buf, OUT_BYTES_MAX);
    hp_cli_value_put(&buf, value, NULL);
    json_t *again = hp_cli_value_json(buf.data, buf.size);
    if (again != NULL) {
        HP_ASSERT(json_equal(value, again) == 1);
    } else {
        HP_ASSERT(depth_of(value) > VALUE_DEPTH_MAX);
    }
    hp_buf_clear(&buf);
    hp_cli_value_put(&buf, value, in->text);
    HP_ASSERT(hp_cli_value_text(buf.data, buf.size)[0] != '\0');
    hp_buf_deinit(&buf);
    json_decref(again);
    json_decref(value);
}

static void take_value(const struct input *in)
{
    json_t *value = hp_cli_value_json(in->data, in->size);
    const char *text = hp_cli_value_text(in->data, in->size);
    HP_ASSERT(in->size == 0 || text[0] != '\0');
    if (value != NULL) {
        json_t *again = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        HP_ASSERT(again != NULL);
        json_decref(again);
    }
    json_decref(value);
}

/* ------------------------------------------------------------------ all of them */
static void (*const takers[])(const struct input *in) = {
    take_conf_file, take_flags,    take_token, take_numbers, take_names, take_address,
    take_selectors, take_template, take_words, take_json,    take_value,
};

static void split(struct input *in)
{
    size_t at = 0;
    do {
        in->words[in->count++] = in->text + at;
        at += strlen(in->text + at) + 1;
    } while (at < in->size && in->count < (int)WORDS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    struct input in = {.data = data + 1, .size = size - 1};
    in.text = hp_cli_copy((const char *)in.data, in.size);
    split(&in);
    takers[data[0] % HP_COUNT_OF(takers)](&in);
    hp_cli_free_all();
    return 0;
}
