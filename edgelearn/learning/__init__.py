# SPDX-License-Identifier: Apache-2.0
"""The parts of the Learner: what is kept, screened, rehearsed, noticed and let through."""
