# SPDX-License-Identifier: Apache-2.0
"""What a net is fed: files and folders read, sounds and images turned into the arrays that [input] declares."""
