# SPDX-License-Identifier: Apache-2.0
"""Models, adapters and runtimes onto a board over a serial line, by the Simple Management Protocol (SMP, MCUmgr).

Nothing here imports numpy: boards and the `elflash` command start without it.
"""
