/* SPDX-License-Identifier: BSD-2-Clause */
/* hostpool: everything a person types. Parses the words and runs the verb. */
#include "cli/cli.h"

#include <locale.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/base/str.h"
#include "common/sys/proc.h"

static unsigned terminal_width(void)
{
    const char *columns = getenv("COLUMNS");
    uint64_t number = 0;
    if (columns != NULL && hp_parse_u64(hp_str_of(columns), &number, NULL) == HP_OK &&
        number >= 20 && number <= 10000) {
        return (unsigned)number;
    }
    struct winsize size = {0};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20) {
        return size.ws_col;
    }
    return 80;
}

static const char *login_name(void)
{
    const struct passwd *entry = getpwuid(geteuid());
    if (entry != NULL && hp_name_valid(hp_str_of(entry->pw_name))) {
        return hp_cli_copy(entry->pw_name, strlen(entry->pw_name));
    }
    return hp_cli_printf("uid%u", (unsigned)geteuid());
}

static void cli_init(struct hp_cli *cli)
{
    const char *no_color = getenv("NO_COLOR");
    cli->is_out_terminal = isatty(STDOUT_FILENO) == 1;
    cli->is_err_terminal = isatty(STDERR_FILENO) == 1;
    cli->is_utc = hp_cli_has(cli, HP_CLI_F_UTC);
    cli->width = terminal_width();
    cli->user = login_name();
    cli->now_ms = hp_cli_now_ms();
    uint64_t color = hp_cli_number(cli, HP_CLI_F_COLOR, 0);
    cli->is_color = color == 1 ||
                    (color == 0 && cli->is_out_terminal && (no_color == NULL || *no_color == '\0'));
}

static int run_verb(struct hp_cli *cli)
{
    const struct hp_cli_verb *verb = cli->args.verb;
    if (hp_cli_has(cli, HP_CLI_F_VERSION)) {
        (void)printf("hostpool %s\n", HP_VERSION);
        return HP_CLI_OK;
    }
    if (hp_cli_has(cli, HP_CLI_F_HELP) && strcmp(verb->name, "help") != 0) {
        char name[HP_CLI_VERB_BYTES];
        cli->args.operands[0] = hp_cli_printf("%s", hp_cli_verb_name(verb, ' ', name));
        cli->args.operand_count = 1;
        return hp_cli_help(cli);
    }
    return verb->run(cli);
}

int main(int argc, char **argv)
{
    (void)setlocale(LC_CTYPE, "C.UTF-8"); /* widths of characters; without it, bytes are escaped */
    if (hp_proc_keep_std_fds() != HP_OK) {
        return HP_CLI_RUN_FAILED;
    }
    struct hp_cli cli = {0};
    int code = hp_cli_args_parse(argc, argv, &cli.args);
    if (code == 0) {
        cli_init(&cli);
        code = hp_cli_flush(run_verb(&cli));
    }
    hp_client_free(cli.client);
    hp_cli_free_all();
    return code;
}
