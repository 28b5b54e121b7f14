/* SPDX-License-Identifier: BSD-2-Clause */
/* hostpool completion: the scripts; all knowledge is in complete.c. */
#include "cli/cli.h"

#include "common/base/str.h"

#include <string.h>

static const char bash_script[] =
    "# Completion of hostpool for bash: source <(hostpool completion bash)\n"
    "_hostpool() {\n"
    "    local line word=${COMP_WORDS[COMP_CWORD]}\n"
    "    local IFS=$'\\n'\n"
    "    COMPREPLY=()\n"
    "    local -a words=(\"${COMP_WORDS[@]:1:COMP_CWORD}\")\n"
    "    # bash divides words at = as well: join them again\n"
    "    if [[ ${#words[@]} -gt 1 && ${words[-1]} == = ]]; then\n"
    "        words=(\"${words[@]:0:${#words[@]}-2}\" \"${words[-2]}=\")\n"
    "    elif [[ ${#words[@]} -gt 2 && ${words[-2]} == = ]]; then\n"
    "        words=(\"${words[@]:0:${#words[@]}-3}\" \"${words[-3]}=${words[-1]}\")\n"
    "    fi\n"
    "    [[ $word == = ]] && word=\n"
    "    while read -r line; do\n"
    "        case $line in\n"
    "            :file) COMPREPLY+=($(compgen -f -- \"$word\")) ;;\n"
    "            :dir) COMPREPLY+=($(compgen -d -- \"$word\")) ;;\n"
    "            :command) COMPREPLY+=($(compgen -c -f -- \"$word\")) ;;\n"
    "            *) line=${line%%$'\\t'*}\n"
    "                [[ $line == *=* && ${COMP_WORDBREAKS} == *=* && $line == \"${words[-1]}\"* "
    "&&\n"
    "                    ${words[-1]} == *=* ]] && line=${line#*=}\n"
    "                COMPREPLY+=(\"$line\") ;;\n"
    "        esac\n"
    "    done < <(hostpool help --complete -- \"${words[@]}\" 2>/dev/null)\n"
    "    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=~] ]] && compopt -o nospace\n"
    "    return 0\n"
    "}\n"
    "complete -F _hostpool hostpool\n";

static const char zsh_script[] =
    "#compdef hostpool\n"
    "# Completion of hostpool for zsh: source <(hostpool completion zsh)\n"
    "_hostpool() {\n"
    "    local line\n"
    "    local -a found shown\n"
    "    while IFS= read -r line; do\n"
    "        case $line in\n"
    "            :file) _files ;;\n"
    "            :dir) _files -/ ;;\n"
    "            :command) _command_names -e; _files ;;\n"
    "            *) found+=(\"${line%%$'\\t'*}\")\n"
    "                shown+=(\"${line%%$'\\t'*}  ${line#*$'\\t'}\") ;;\n"
    "        esac\n"
    "    done < <(hostpool help --complete -- \"${(@)words[2,CURRENT]}\" 2>/dev/null)\n"
    "    if (( ${#found} == 1 )) && [[ $found[1] == *[=~] ]]; then\n"
    "        compadd -S '' -d shown -a found\n"
    "    elif (( ${#found} )); then\n"
    "        compadd -l -d shown -a found\n"
    "    fi\n"
    "}\n"
    "if [[ ${funcstack[1]} == _hostpool ]]; then _hostpool \"$@\"; else compdef _hostpool "
    "hostpool; fi\n";

static const char fish_script[] =
    "# Completion of hostpool for fish\n"
    "function __hostpool_complete\n"
    "    set -l words (commandline -opc) (commandline -ct)\n"
    "    set -e words[1]\n"
    "    for line in (hostpool help --complete -- $words 2>/dev/null)\n"
    "        switch $line\n"
    "            case :file\n"
    "                __fish_complete_path (commandline -ct)\n"
    "            case :dir\n"
    "                __fish_complete_directories (commandline -ct)\n"
    "            case :command\n"
    "                __fish_complete_command\n"
    "                __fish_complete_path (commandline -ct)\n"
    "            case '*'\n"
    "                echo $line\n"
    "        end\n"
    "    end\n"
    "end\n"
    "complete -c hostpool -f -a '(__hostpool_complete)'\n";

int hp_cli_completion(struct hp_cli *cli)
{
    static const char *const names[] = {"bash", "zsh", "fish"};
    static const char *const scripts[] = {bash_script, zsh_script, fish_script};
    const char *shell = cli->args.operands[0];
    for (size_t i = 0; i < HP_COUNT_OF(names); i++) {
        if (strcmp(names[i], shell) == 0) {
            (void)fputs(scripts[i], stdout);
            return HP_CLI_OK;
        }
    }
    const char *near = hp_suggest(hp_str_of(shell), names, HP_COUNT_OF(names));
    return near != NULL
               ? hp_cli_usage(cli->args.verb, "no shell \"%s\". Did you mean \"%s\"?", shell, near)
               : hp_cli_usage(cli->args.verb, "\"%s\" is none of: bash, zsh, fish.", shell);
}
