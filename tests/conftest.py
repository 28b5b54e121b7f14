# SPDX-License-Identifier: BSD-2-Clause
"""What all tests in Python need."""
import signal

# A shell without job control ignores SIGINT for what it starts in the background, and so would all
# that is started here: ^C could not be tested.
signal.signal(signal.SIGINT, signal.default_int_handler)
