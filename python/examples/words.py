#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""Counts the words of text files on the farm, and prints the most frequent ones.

  words.py [--local] FILE...     --local: the standard library's Pool instead

The import is all that differs from a program for multiprocessing.
"""
import collections
import re
import sys


def count_words(path):
    """Runs in the pool's processes, which must be able to read the file."""
    with open(path, encoding="utf-8", errors="replace") as file:
        return collections.Counter(re.findall(r"[a-z]{4,}", file.read().lower()))


def main(arguments):
    if arguments[:1] == ["--local"]:
        from multiprocessing import Pool
        arguments = arguments[1:]
    else:
        from hostpool.multiprocessing import Pool
    if not arguments:
        sys.exit(__doc__)
    total = collections.Counter()
    with Pool() as pool:
        for counts in pool.imap_unordered(count_words, arguments):
            total.update(counts)
    for word, number in sorted(total.items(), key=lambda item: (-item[1], item[0]))[:10]:
        print(f"{number:8} {word}")


if __name__ == "__main__":
    main(sys.argv[1:])
