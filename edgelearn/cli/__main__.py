# SPDX-License-Identifier: Apache-2.0
"""`python -m edgelearn.cli`."""

import sys

from edgelearn.cli import main

if __name__ == "__main__":
    sys.exit(main())
