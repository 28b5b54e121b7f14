# SPDX-License-Identifier: BSD-2-Clause
"""What bench/run, bench/limits and bench/curves share: processes, rounds, tables and plots."""
