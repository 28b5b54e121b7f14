/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Configuration values: checks, file, flags. libconfuse knows every option as a string; type and
 * bounds are checked here, in its validation call, where the line number is at hand.
 *
 * libconfuse gives its callbacks no context, so the load in progress is kept in a thread-local.
 */
#include "common/sys/conf.h"

#include <confuse.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/base/assert.h"
#include "common/base/mem.h"
#include "common/base/str.h"
#include "common/sys/file.h"

#define CONF_FILE_BYTES_MAX (1u << 20)
#define CONF_NAME_BYTES_MAX 63u

struct load {
    struct hp_conf *conf;
    const char *path;
    struct hp_error error; /* the first one */
};

static _Thread_local struct load *load_now;

/* "_" and "-" are the same in names. */
static bool same_name(struct hp_str a, const char *b)
{
    if (a.size != strlen(b)) {
        return false;
    }
    for (uint32_t i = 0; i < a.size; i++) {
        char letter = a.data[i] == '-' ? '_' : a.data[i];
        if (letter != b[i]) {
            return false;
        }
    }
    return true;
}

size_t hp_conf_find(const struct hp_conf *conf, struct hp_str name)
{
    for (size_t i = 0; i < conf->option_count; i++) {
        if (same_name(name, conf->options[i].name)) {
            return i;
        }
    }
    return conf->option_count;
}

static enum hp_err parse_number(const struct hp_conf_option *option, struct hp_str text,
                                uint64_t *ret, struct hp_error *reterr)
{
    bool is_yes = false;
    enum hp_err err = HP_OK;
    switch (option->type) {
    case HP_CONF_STR:
        *ret = text.size;
        return HP_OK;
    case HP_CONF_INT:
        return hp_parse_u64(text, ret, reterr);
    case HP_CONF_DURATION:
        return hp_parse_duration_ms(text, ret, reterr);
    case HP_CONF_SIZE:
        return hp_parse_size_bytes(text, ret, reterr);
    case HP_CONF_BOOL:
        err = hp_parse_bool(text, &is_yes, reterr);
        *ret = is_yes ? 1 : 0;
        return err;
    default:
        HP_UNREACHABLE();
    }
}

/* A bound as people write it. */
static const char *bound_text(const struct hp_conf_option *option, uint64_t bound,
                              char out[HP_FORMAT_BYTES])
{
    if (option->type == HP_CONF_DURATION) {
        return hp_format_duration(out, HP_FORMAT_BYTES, bound);
    }
    if (option->type == HP_CONF_SIZE) {
        return hp_format_size(out, HP_FORMAT_BYTES, bound);
    }
    (void)snprintf(out, HP_FORMAT_BYTES, "%llu", (unsigned long long)bound); /* fits */
    return out;
}

static enum hp_err check_bounds(const struct hp_conf_option *option, uint64_t number,
                                struct hp_error *reterr)
{
    char low[HP_FORMAT_BYTES];
    char high[HP_FORMAT_BYTES];
    bool is_over = option->max > 0 && number > option->max;
    if (number >= option->min && !is_over) {
        return HP_OK;
    }
    const char *what = option->type == HP_CONF_STR ? "has a wrong length: must be" : "must be";
    if (option->max == 0) {
        return hp_error_set(reterr, HP_ERR_RANGE, "%s %s at least %s", option->name, what,
                            bound_text(option, option->min, low));
    }
    return hp_error_set(reterr, HP_ERR_RANGE, "%s %s from %s to %s", option->name, what,
                        bound_text(option, option->min, low),
                        bound_text(option, option->max, high));
}

enum hp_err hp_conf_set(struct hp_conf *conf, size_t index, const char *text,
                        enum hp_conf_source source, struct hp_error *reterr)
{
    HP_ASSERT(index < conf->option_count);
    const struct hp_conf_option *option = &conf->options[index];
    struct hp_conf_value *value = &conf->values[index];
    uint64_t number = 0;
    struct hp_error detail = {0};
    if (strlen(text) > CONF_FILE_BYTES_MAX) {
        return hp_error_set(reterr, HP_ERR_TOO_BIG, "the value of %s is too long", option->name);
    }
    enum hp_err err = parse_number(option, hp_str_of(text), &number, &detail);
    if (err != HP_OK) {
        return hp_error_set(reterr, err, "%s: %s", option->name, detail.text);
    }
    err = check_bounds(option, number, reterr);
    if (err != HP_OK || value->source > source) {
        return err;
    }
    char *copy = NULL;
    if (option->type == HP_CONF_STR) {
        copy = hp_strdup(text);
        if (copy == NULL) {
            return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
        }
    }
    hp_free(value->str);
    *value =
        (struct hp_conf_value){.str = copy, .number = number, .source = source, .is_set = true};
    return HP_OK;
}

enum hp_err hp_conf_init(struct hp_conf *conf, const struct hp_conf_option *options,
                         size_t option_count)
{
    *conf = (struct hp_conf){.options = options, .option_count = option_count};
    conf->values = hp_calloc(option_count, sizeof(*conf->values));
    if (conf->values == NULL) {
        *conf = (struct hp_conf){0};
        return HP_ERR_NOMEM;
    }
    for (size_t i = 0; i < option_count; i++) {
        HP_ASSERT(strlen(options[i].name) <= CONF_NAME_BYTES_MAX);
        if (options[i].default_text != NULL) {
            enum hp_err err =
                hp_conf_set(conf, i, options[i].default_text, HP_CONF_FROM_DEFAULT, NULL);
            HP_ASSERT(err == HP_OK || err == HP_ERR_NOMEM); /* the table's own default is good */
            if (err != HP_OK) {
                hp_conf_deinit(conf);
                return err;
            }
        }
    }
    return HP_OK;
}

void hp_conf_deinit(struct hp_conf *conf)
{
    for (size_t i = 0; i < conf->option_count; i++) {
        hp_free(conf->values[i].str);
    }
    hp_free(conf->values);
    *conf = (struct hp_conf){0};
}

/* The known name nearest to a wrong one, as a flag or as in the file; NULL if none is near. */
static const char *nearest(const struct hp_conf *conf, struct hp_str name, bool in_file)
{
    const char *best = NULL;
    uint32_t best_distance = 1 + HP_MAX(name.size / 3, 1);
    for (size_t i = 0; i < conf->option_count; i++) {
        if (in_file && conf->options[i].is_flag_only) {
            continue;
        }
        struct hp_str candidate = hp_str_of(conf->options[i].name);
        uint32_t distance = hp_edit_distance(name, candidate, best_distance);
        if (distance < best_distance) {
            best_distance = distance;
            best = conf->options[i].name;
        }
    }
    return best;
}

static void load_fail(int line, enum hp_err err, const char *text)
{
    if (load_now->error.code == HP_OK) {
        hp_error_set(&load_now->error, err, "%s:%d: %s", load_now->path, line, text);
    }
}

/* libconfuse reports a parse error; an unknown name is the one we can help with. */
static void on_confuse_error(cfg_t *cfg, const char *format, va_list args)
{
    static const char unknown_start[] = "no such option '";
    char text[HP_ERROR_TEXT_BYTES];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"   /* the library's own formats */
    (void)vsnprintf(text, sizeof(text), format, args); /* cut is fine */
#pragma GCC diagnostic pop
    struct hp_str rest = hp_str_of(text);
    if (!hp_str_starts_with(rest, hp_str_of(unknown_start))) {
        load_fail(cfg->line, HP_ERR_INVALID, text);
        return;
    }
    rest.data += sizeof(unknown_start) - 1;
    rest.size = (uint32_t)strcspn(rest.data, "'");
    const char *near = nearest(load_now->conf, rest, true);
    char sentence[HP_ERROR_TEXT_BYTES];
    (void)snprintf(sentence, sizeof(sentence), "unknown option '%" HP_STR_FMT "'%s%s%s",
                   (int)HP_MIN(rest.size, CONF_NAME_BYTES_MAX), rest.data,
                   near != NULL ? ", did you mean '" : "", near != NULL ? near : "",
                   near != NULL ? "'?" : "");
    load_fail(cfg->line, HP_ERR_INVALID, sentence);
}

/* libconfuse has read one option: check and keep it. */
static int on_confuse_value(cfg_t *cfg, cfg_opt_t *opt)
{
    const char *text = cfg_opt_getnstr(opt, 0);
    size_t index = hp_conf_find(load_now->conf, hp_str_of(cfg_opt_name(opt)));
    struct hp_error error = {0};
    enum hp_err err =
        hp_conf_set(load_now->conf, index, text != NULL ? text : "", HP_CONF_FROM_FILE, &error);
    if (err != HP_OK) {
        load_fail(cfg->line, err, error.text);
        return -1;
    }
    return 0;
}

/* The option list for libconfuse: one string option per row that may be in the file. */
static cfg_opt_t *confuse_options(const struct hp_conf *conf)
{
    cfg_opt_t *opts = hp_calloc(conf->option_count + 1, sizeof(*opts));
    if (opts == NULL) {
        return NULL;
    }
    size_t count = 0;
    for (size_t i = 0; i < conf->option_count; i++) {
        if (!conf->options[i].is_flag_only) {
            cfg_opt_t opt = CFG_STR((char *)(uintptr_t)conf->options[i].name, NULL, CFGF_NODEFAULT);
            opts[count] = opt;
            count++;
        }
    }
    cfg_opt_t end = CFG_END();
    opts[count] = end;
    return opts;
}

/* Parses text that is in memory already, so that size and open errors are ours. */
static enum hp_err parse_text(struct load *load, const char *text)
{
    HP_CLEANUP(hp_free_ptr) cfg_opt_t *opts = confuse_options(load->conf);
    cfg_t *cfg = opts != NULL ? cfg_init(opts, CFGF_NONE) : NULL;
    if (cfg == NULL) {
        return hp_error_set(&load->error, HP_ERR_NOMEM, NULL);
    }
    cfg_set_error_function(cfg, on_confuse_error);
    for (const cfg_opt_t *opt = opts; opt->name != NULL; opt++) {
        (void)cfg_set_validate_func(cfg, opt->name, on_confuse_value); /* returns the old one */
    }
    load_now = load;
    int status = cfg_parse_buf(cfg, text);
    load_now = NULL;
    (void)cfg_free(cfg); /* the values are copied already */
    if (status != CFG_SUCCESS && load->error.code == HP_OK) {
        return hp_error_set(&load->error, HP_ERR_INVALID, "%s: can not be read", load->path);
    }
    return load->error.code;
}

enum hp_err hp_conf_load_file(struct hp_conf *conf, const char *path, struct hp_error *reterr)
{
    HP_CLEANUP(hp_buf_deinit) struct hp_buf text = {0};
    enum hp_err err = hp_file_read(path, CONF_FILE_BYTES_MAX, &text, reterr);
    if (err != HP_OK) {
        return err;
    }
    if (text.size > 0 && memchr(text.data, 0, text.size) != NULL) {
        return hp_error_set(reterr, HP_ERR_INVALID, "%s: is not a text file", path);
    }
    HP_CLEANUP(hp_free_ptr) char *copy = hp_memdup(text.data, text.size); /* with a NUL */
    if (copy == NULL) {
        return hp_error_set(reterr, HP_ERR_NOMEM, NULL);
    }
    struct load load = {.conf = conf, .path = path};
    err = parse_text(&load, copy);
    return err == HP_OK ? HP_OK : hp_error_set(reterr, err, "%s", load.error.text);
}

static enum hp_err fail_unknown_flag(const struct hp_conf *conf, struct hp_str name,
                                     struct hp_error *reterr)
{
    char flag[CONF_NAME_BYTES_MAX + 1] = "";
    const char *near = nearest(conf, name, false);
    for (size_t i = 0; near != NULL && near[i] != '\0'; i++) {
        flag[i] = near[i] == '_' ? '-' : near[i];
    }
    return hp_error_set(reterr, HP_ERR_INVALID, "unknown flag '--%" HP_STR_FMT "'%s%s%s",
                        (int)HP_MIN(name.size, CONF_NAME_BYTES_MAX), name.data,
                        near != NULL ? ", did you mean '--" : "", flag, near != NULL ? "'?" : "");
}

/* One flag at argv[*index]; *index moves behind it and its value. */
static enum hp_err take_flag(struct hp_conf *conf, int argc, const char *const *argv, int *index,
                             struct hp_error *reterr)
{
    const char *word = argv[*index] + 2;
    const char *equals = strchr(word, '=');
    const char *text = equals != NULL ? equals + 1 : NULL;
    struct hp_str name = hp_str_make(word, equals != NULL ? (size_t)(equals - word) : strlen(word));
    size_t at = hp_conf_find(conf, name);
    (*index)++;
    if (at == conf->option_count && text == NULL && hp_str_starts_with(name, HP_STR("no-"))) {
        struct hp_str positive = {.data = name.data + 3, .size = name.size - 3};
        size_t negated = hp_conf_find(conf, positive);
        if (negated < conf->option_count && conf->options[negated].type == HP_CONF_BOOL) {
            return hp_conf_set(conf, negated, "no", HP_CONF_FROM_FLAG, reterr);
        }
    }
    if (at == conf->option_count) {
        return fail_unknown_flag(conf, name, reterr);
    }
    if (text == NULL && conf->options[at].type == HP_CONF_BOOL) {
        text = "yes";
    } else if (text == NULL) {
        if (*index >= argc) {
            return hp_error_set(reterr, HP_ERR_INVALID, "flag '--%s' needs a value", word);
        }
        text = argv[*index];
        (*index)++;
    }
    struct hp_error detail = {0};
    enum hp_err err = hp_conf_set(conf, at, text, HP_CONF_FROM_FLAG, &detail);
    return err == HP_OK ? HP_OK : hp_error_set(reterr, err, "%s", detail.text);
}

enum hp_err hp_conf_parse_flags(struct hp_conf *conf, int argc, const char *const *argv,
                                int *ret_rest_index, struct hp_error *reterr)
{
    int index = 1;
    while (index < argc) {
        const char *word = argv[index];
        if (strcmp(word, "--") == 0) {
            index++;
            break;
        }
        if (word[0] != '-' || word[1] == '\0') {
            break;
        }
        if (word[1] != '-') {
            return hp_error_set(reterr, HP_ERR_INVALID, "unknown flag '%s' (flags begin with --)",
                                word);
        }
        enum hp_err err = take_flag(conf, argc, argv, &index, reterr);
        if (err != HP_OK) {
            return err;
        }
    }
    *ret_rest_index = index;
    return HP_OK;
}

const char *hp_conf_str(const struct hp_conf *conf, size_t index)
{
    HP_ASSERT(index < conf->option_count);
    HP_ASSERT(conf->options[index].type == HP_CONF_STR);
    return conf->values[index].str != NULL ? conf->values[index].str : "";
}

uint64_t hp_conf_u64(const struct hp_conf *conf, size_t index)
{
    HP_ASSERT(index < conf->option_count);
    HP_ASSERT(conf->options[index].type != HP_CONF_STR);
    HP_ASSERT(conf->options[index].type != HP_CONF_BOOL);
    return conf->values[index].number;
}

bool hp_conf_bool(const struct hp_conf *conf, size_t index)
{
    HP_ASSERT(index < conf->option_count);
    HP_ASSERT(conf->options[index].type == HP_CONF_BOOL);
    return conf->values[index].number != 0;
}

bool hp_conf_is_set(const struct hp_conf *conf, size_t index)
{
    HP_ASSERT(index < conf->option_count);
    return conf->values[index].is_set;
}
