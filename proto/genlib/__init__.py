# SPDX-License-Identifier: BSD-2-Clause
"""The parts of proto/gen.py: schema (read and check), emit_* (write one kind of output)."""
