/* SPDX-License-Identifier: BSD-2-Clause */
/* A shared object which is no module. */
int hp_test_not_a_module(void);

int hp_test_not_a_module(void)
{
    return 0;
}
