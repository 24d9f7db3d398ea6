# SPDX-License-Identifier: Apache-2.0
"""What a net costs on a board: bytes, time and the budget they are held against."""
