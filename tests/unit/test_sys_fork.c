/* SPDX-License-Identifier: BSD-2-Clause */
/* The mark of a process: steady within it, another one in each descendant. */
#include "tests/lib/hp_test.h"

#include <sys/wait.h>
#include <unistd.h>

#include "common/sys/fork.h"

/* In a child, and in a child of that: 0 if their marks are theirs alone. */
static int check_child(uint64_t parent)
{
    uint64_t own = hp_fork_mark();
    int status = 1;
    if (own == 0 || own == parent || hp_fork_mark() != own) {
        return 1;
    }
    pid_t pid = fork();
    if (pid == 0) {
        uint64_t last = hp_fork_mark();
        _exit(last != 0 && last != own && last != parent ? 0 : 2);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0 ? 0 : 3;
}

static void a_forked_child_has_another_mark(void **state)
{
    (void)state;
    uint64_t mark = hp_fork_mark();
    int status = 1;
    assert_int_not_equal(mark, 0);
    for (int i = 0; i < 3; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            _exit(check_child(mark));
        }
        assert_true(pid > 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_int_equal(hp_fork_mark(), mark);
    }
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(a_forked_child_has_another_mark)};

HP_TEST_MAIN(tests)
