# SPDX-License-Identifier: Apache-2.0
"""What is measured: a small module per contender, each run in a process and an environment of its own."""
