# SPDX-License-Identifier: BSD-2-Clause
"""A module of a program, with functions that only travel by value."""

value = "at the start"
seen = []


def set_up(new):
    global value
    value = new


def by_name():
    seen.append("named")
    return value, len(seen)


by_value = lambda: (seen.append("lambda"), value, len(seen))[1:]  # noqa: E731


def closure(word):
    def inner():
        return word, value, by_name()
    return inner
