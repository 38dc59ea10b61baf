"""`python -m midwatch.workers.cli`: the command line for environments without the console script."""

from __future__ import annotations

import sys

from midwatch.workers.cli import main

if __name__ == "__main__":
    sys.exit(main())
