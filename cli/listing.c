/* SPDX-License-Identifier: BSD-2-Clause */
/* Tables and JSON of one set of columns. */
#include "cli/listing.h"

#include "common/base/mem.h"
#include "common/base/str.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <libsmartcols/libsmartcols.h>
#include <string.h>

struct hp_cli_listing {
    const struct hp_cli *cli;
    const struct hp_cli_listing_spec *spec;
    size_t *chosen;
    size_t chosen_count;
    size_t row_count;
    struct libscols_table *table; /* table output */
    json_t *list;                 /* --json */
    bool is_made;                 /* table or list */
    bool is_broken;               /* standard output can not be written */
};

/* ---------------------------------------------------------------- cells */

static const char *words_text(const struct hp_cli_cell *cell)
{
    size_t size = 1;
    for (size_t i = 0; i < cell->word_count; i++) {
        size += strlen(cell->words[i]) + 1;
    }
    char *text = hp_cli_alloc(size);
    for (size_t i = 0; i < cell->word_count; i++) {
        (void)snprintf(text + strlen(text), size - strlen(text), "%s%s", i > 0 ? "," : "",
                       cell->words[i]);
    }
    return HP_CLI_SAFE(text);
}

static const char *time_text(const struct hp_cli *cli, int64_t at_ms)
{
    char out[40];
    if (!cli->is_out_terminal) {
        return hp_cli_printf("%s", hp_cli_time_text(cli, at_ms, out));
    }
    int64_t ago_ms = cli->now_ms - at_ms;
    (void)hp_cli_age(out, (uint64_t)(ago_ms < 0 ? -ago_ms : ago_ms));
    return ago_ms < 0 ? hp_cli_printf("in %s", out) : hp_cli_printf("%s ago", out);
}

static const char *duration_text(const struct hp_cli *cli, uint64_t duration_ms)
{
    char out[HP_FORMAT_BYTES];
    if (!cli->is_out_terminal || duration_ms < 1000) {
        return hp_cli_printf("%s", hp_format_duration(out, sizeof(out), duration_ms));
    }
    return hp_cli_printf("%s", hp_cli_age(out, duration_ms));
}

const char *hp_cli_cell_text(const struct hp_cli *cli, const struct hp_cli_cell *cell)
{
    char out[HP_FORMAT_BYTES];
    switch (cell->kind) {
    case HP_CLI_CELL_NONE:
        return "-";
    case HP_CLI_CELL_TEXT:
        return cell->text != NULL ? HP_CLI_SAFE(cell->text) : "-";
    case HP_CLI_CELL_NUMBER:
        return hp_cli_printf("%llu", (unsigned long long)cell->number);
    case HP_CLI_CELL_SIGNED:
        return hp_cli_printf("%lld", (long long)cell->signed_number);
    case HP_CLI_CELL_BOOL:
        return cell->number != 0 ? "yes" : "no";
    case HP_CLI_CELL_TIME:
        return time_text(cli, cell->signed_number);
    case HP_CLI_CELL_DURATION:
        return duration_text(cli, cell->number);
    case HP_CLI_CELL_SIZE:
        return cli->is_out_terminal
                   ? hp_cli_printf("%s", hp_format_size_human(out, sizeof(out), cell->number))
                   : hp_cli_printf("%llu", (unsigned long long)cell->number);
    case HP_CLI_CELL_WORDS:
        return cell->word_count > 0 ? words_text(cell) : "-";
    }
    return "-";
}

json_t *hp_cli_json_text(const char *text, size_t size)
{
    json_t *value = json_stringn(text, size);
    if (value == NULL) { /* no UTF-8 */
        value = json_string(hp_cli_escape(text, size, true));
    }
    return value;
}

static json_t *cell_json(const struct hp_cli_cell *cell)
{
    char out[40];
    json_t *list = NULL;
    switch (cell->kind) {
    case HP_CLI_CELL_NONE:
        return json_null();
    case HP_CLI_CELL_TEXT:
        return cell->text != NULL ? hp_cli_json_text(cell->text, strlen(cell->text)) : json_null();
    case HP_CLI_CELL_NUMBER:
    case HP_CLI_CELL_SIZE:
        return json_integer((json_int_t)cell->number);
    case HP_CLI_CELL_SIGNED:
        return json_integer(cell->signed_number);
    case HP_CLI_CELL_BOOL:
        return json_boolean(cell->number != 0);
    case HP_CLI_CELL_TIME:
        return json_string(hp_cli_time_utc(cell->signed_number, out));
    case HP_CLI_CELL_DURATION:
        return json_real((double)cell->number / 1000.0);
    case HP_CLI_CELL_WORDS:
        list = json_array();
        for (size_t i = 0; i < cell->word_count; i++) {
            (void)json_array_append_new(list,
                                        hp_cli_json_text(cell->words[i], strlen(cell->words[i])));
        }
        return list;
    }
    return json_null();
}

json_t *hp_cli_row_json(const struct hp_cli *cli, const struct hp_cli_listing_spec *spec,
                        const void *row, const size_t *chosen, size_t chosen_count)
{
    json_t *object = json_object();
    size_t count = chosen != NULL ? chosen_count : spec->column_count;
    for (size_t i = 0; i < count; i++) {
        size_t column = chosen != NULL ? chosen[i] : i;
        struct hp_cli_cell cell = {0};
        spec->cell(cli, row, column, &cell);
        (void)json_object_set_new(object, spec->columns[column].name, cell_json(&cell));
    }
    return object;
}

int hp_cli_json_print(const struct hp_cli *cli, json_t *document)
{
    size_t flags = JSON_REAL_PRECISION(12);
    if (hp_cli_has(cli, HP_CLI_F_JSONL)) {
        flags |= JSON_COMPACT;
    } else {
        flags |= JSON_INDENT(2);
    }
    int failed = document == NULL || json_dumpf(document, stdout, flags) != 0;
    json_decref(document);
    (void)putchar('\n');
    return failed ? HP_CLI_FAILED : HP_CLI_OK;
}

/* ---------------------------------------------------------------- columns */

static const char *heading(const char *name)
{
    char *text = hp_cli_copy(name, strlen(name));
    for (char *at = text; *at != '\0'; at++) {
        *at = *at == '_' ? '-' : (char)toupper((unsigned char)*at);
    }
    return text;
}

static int find_column(const struct hp_cli *cli, const struct hp_cli_listing_spec *spec,
                       const char *name, size_t size, size_t *ret_column)
{
    const char *names[64];
    for (size_t i = 0; i < spec->column_count; i++) {
        names[i] = spec->columns[i].name;
        if (strlen(names[i]) == size && strncasecmp(names[i], name, size) == 0) {
            *ret_column = i;
            return 0;
        }
    }
    const char *near = hp_suggest(hp_str_make(name, size), names, spec->column_count);
    if (near != NULL) {
        return hp_cli_usage(cli->args.verb, "no column \"%.*s\". Did you mean \"%s\"?   (-o help)",
                            (int)size, name, near);
    }
    return hp_cli_usage(cli->args.verb, "no column \"%.*s\".   (-o help)", (int)size, name);
}

static void usual_columns(struct hp_cli_listing *listing, bool with_all)
{
    for (size_t i = 0; i < listing->spec->column_count; i++) {
        if (with_all || listing->spec->columns[i].is_usual) {
            listing->chosen[listing->chosen_count++] = i;
        }
    }
}

static int choose_columns(struct hp_cli_listing *listing)
{
    const struct hp_cli *cli = listing->cli;
    const char *at = hp_cli_text(cli, HP_CLI_F_OUTPUT, NULL);
    bool is_json = hp_cli_has(cli, HP_CLI_F_JSON) || hp_cli_has(cli, HP_CLI_F_JSONL);
    if (at == NULL || *at == '+') {
        usual_columns(listing, at == NULL && is_json);
    }
    while (at != NULL && *at != '\0') {
        at += *at == '+' || *at == ',';
        size_t size = strcspn(at, ",");
        size_t skip = size > 0 && *at == '+';
        size_t column = 0;
        int code = find_column(cli, listing->spec, at + skip, size - skip, &column);
        if (code != 0) {
            return code;
        }
        bool is_there = false;
        for (size_t i = 0; i < listing->chosen_count; i++) {
            is_there |= listing->chosen[i] == column;
        }
        if (!is_there) {
            listing->chosen[listing->chosen_count++] = column;
        }
        at += size;
    }
    return 0;
}

static void print_columns(const struct hp_cli_listing_spec *spec)
{
    for (size_t i = 0; i < spec->column_count; i++) {
        const struct hp_cli_column *column = &spec->columns[i];
        (void)printf("%-12s %s%s\n", column->name, column->text,
                     column->is_usual ? " (usual)" : "");
    }
}

static void table_init(struct hp_cli_listing *listing)
{
    const struct hp_cli *cli = listing->cli;
    listing->table = scols_new_table();
    if (listing->table == NULL) {
        hp_cli_no_memory();
    }
    (void)scols_table_enable_noheadings(listing->table, hp_cli_has(cli, HP_CLI_F_NO_HEADER));
    (void)scols_table_enable_colors(listing->table, cli->is_color);
    if (cli->is_out_terminal) {
        (void)scols_table_set_termforce(listing->table, SCOLS_TERMFORCE_ALWAYS);
        (void)scols_table_set_termwidth(listing->table, cli->width);
    } else {
        (void)scols_table_set_termforce(listing->table, SCOLS_TERMFORCE_NEVER);
    }
    for (size_t i = 0; i < listing->chosen_count; i++) {
        const struct hp_cli_column *column = &listing->spec->columns[listing->chosen[i]];
        int flags = (column->is_right ? SCOLS_FL_RIGHT : 0) |
                    (column->is_cut && cli->is_out_terminal ? SCOLS_FL_TRUNC : 0);
        struct libscols_column *made =
            scols_table_new_column(listing->table, heading(column->name), 0, flags);
        if (made == NULL) {
            hp_cli_no_memory();
        }
    }
}

/* ---------------------------------------------------------------- the listing */

int hp_cli_listing_begin(struct hp_cli *cli, const struct hp_cli_listing_spec *spec,
                         struct hp_cli_listing **ret_listing)
{
    *ret_listing = NULL;
    const char *output = hp_cli_text(cli, HP_CLI_F_OUTPUT, NULL);
    if (output != NULL && strcmp(output, "help") == 0) {
        print_columns(spec);
        return 0;
    }
    struct hp_cli_listing *listing = hp_cli_alloc(sizeof(*listing));
    listing->cli = cli;
    listing->spec = spec;
    listing->chosen = hp_cli_alloc_array(spec->column_count, sizeof(*listing->chosen));
    int code = choose_columns(listing);
    if (code != 0) {
        return code;
    }
    *ret_listing = listing;
    return 0;
}

/* Not before there is something to print: a verb that fails has nothing to take back. */
static void make_output(struct hp_cli_listing *listing)
{
    const struct hp_cli *cli = listing->cli;
    if (listing->is_made) {
        return;
    }
    listing->is_made = true;
    if (hp_cli_has(cli, HP_CLI_F_JSON) && !hp_cli_has(cli, HP_CLI_F_JSONL)) {
        listing->list = json_array();
    } else if (!hp_cli_has(cli, HP_CLI_F_JSONL) && !hp_cli_has(cli, HP_CLI_F_QUIET)) {
        table_init(listing);
    }
}

static void add_line(struct hp_cli_listing *listing, const void *row)
{
    struct libscols_line *line = scols_table_new_line(listing->table, NULL);
    if (line == NULL) {
        hp_cli_no_memory();
    }
    for (size_t i = 0; i < listing->chosen_count; i++) {
        struct hp_cli_cell cell = {0};
        listing->spec->cell(listing->cli, row, listing->chosen[i], &cell);
        if (scols_line_set_data(line, i, hp_cli_cell_text(listing->cli, &cell)) != 0) {
            hp_cli_no_memory();
        }
        if (cell.color != NULL && listing->cli->is_color) {
            (void)scols_cell_set_color(scols_line_get_cell(line, i), cell.color);
        }
    }
}

void hp_cli_listing_add(struct hp_cli_listing *listing, const void *row)
{
    const struct hp_cli *cli = listing->cli;
    const struct hp_cli_listing_spec *spec = listing->spec;
    make_output(listing);
    listing->row_count++;
    if (listing->table != NULL) {
        add_line(listing, row);
    } else if (hp_cli_has(cli, HP_CLI_F_QUIET) && listing->list == NULL &&
               !hp_cli_has(cli, HP_CLI_F_JSONL)) {
        struct hp_cli_cell cell = {0};
        spec->cell(cli, row, spec->id_column, &cell);
        (void)printf("%s\n", hp_cli_cell_text(cli, &cell));
    } else {
        json_t *object = hp_cli_row_json(cli, spec, row, listing->chosen, listing->chosen_count);
        if (listing->list != NULL) {
            (void)json_array_append_new(listing->list, object);
        } else {
            listing->is_broken |= hp_cli_json_print(cli, object) != 0;
        }
    }
}

size_t hp_cli_listing_count(const struct hp_cli_listing *listing)
{
    return listing->row_count;
}

int hp_cli_listing_end(struct hp_cli_listing *listing)
{
    int code = listing->is_broken ? HP_CLI_FAILED : HP_CLI_OK;
    make_output(listing);
    if (listing->list != NULL) {
        json_t *document = json_object();
        (void)json_object_set_new(document, listing->spec->list_name, listing->list);
        code = hp_cli_json_print(listing->cli, document);
    } else if (listing->table != NULL) {
        if (scols_table_get_nlines(listing->table) > 0) {
            code = scols_print_table(listing->table) != 0 ? HP_CLI_FAILED : code;
        }
        scols_unref_table(listing->table);
    }
    return code;
}

/* ---------------------------------------------------------------- one thing */

static void show_lines(const struct hp_cli *cli, const struct hp_cli_listing_spec *spec,
                       const void *row)
{
    size_t width = 0;
    for (size_t i = 0; i < spec->column_count; i++) {
        size_t size = strlen(spec->columns[i].name);
        width = size > width ? size : width;
    }
    for (size_t i = 0; i < spec->column_count; i++) {
        struct hp_cli_cell cell = {0};
        spec->cell(cli, row, i, &cell);
        if (cell.kind != HP_CLI_CELL_NONE &&
            (cell.kind != HP_CLI_CELL_WORDS || cell.word_count > 0)) {
            (void)printf("%-*s  %s\n", (int)width, spec->columns[i].name,
                         hp_cli_cell_text(cli, &cell));
        }
    }
}

int hp_cli_show_rows(struct hp_cli *cli, const struct hp_cli_listing_spec *spec,
                     const void *const *rows, size_t row_count)
{
    bool is_lines = hp_cli_has(cli, HP_CLI_F_JSONL);
    json_t *list = json_array();
    int code = HP_CLI_OK;
    for (size_t i = 0; i < row_count; i++) {
        if (is_lines) {
            code |= hp_cli_json_print(cli, hp_cli_row_json(cli, spec, rows[i], NULL, 0));
        } else if (hp_cli_has(cli, HP_CLI_F_JSON)) {
            (void)json_array_append_new(list, hp_cli_row_json(cli, spec, rows[i], NULL, 0));
        } else {
            (void)printf("%s", i > 0 ? "\n" : "");
            show_lines(cli, spec, rows[i]);
        }
    }
    if (hp_cli_has(cli, HP_CLI_F_JSON) && !is_lines) {
        json_t *document = json_object();
        (void)json_object_set_new(document, spec->list_name, list);
        return hp_cli_json_print(cli, document);
    }
    json_decref(list);
    return code;
}
