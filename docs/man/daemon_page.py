#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Prints the scdoc source of a daemon's page: @OPTIONS@ becomes the flags of its own --help.

daemon_page.py PAGE.8.scd PROGRAM
"""
import re
import subprocess
import sys


def escape(text):
    return re.sub(r"([\\*_#\[\]|])", r"\\\1", text)


def options(help_text):
    lines = help_text.split("\n")
    out = []
    for line in lines:
        flag = re.match(r"  (--[a-z-]+)(.*)$", line)
        if flag:
            out.append("\n\n*%s*%s\n\t" % (flag.group(1), escape(flag.group(2))))
        elif line.startswith("        ") and out:
            out.append(escape(line.strip()) + " ")
    if not out:
        sys.exit("no flags in --help")
    return "".join(out).strip() + "\n"


def main():
    page, program = sys.argv[1:]
    text = subprocess.run([program, "--help"], check=True, capture_output=True, text=True).stdout
    source = open(page, encoding="utf-8").read()
    if "@OPTIONS@" not in source:
        sys.exit("%s: no @OPTIONS@" % page)
    sys.stdout.write(source.replace("@OPTIONS@\n", options(text)))


main()
