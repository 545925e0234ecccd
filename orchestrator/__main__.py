"""`python -m orchestrator`."""

import sys

from orchestrator.cli import main
from orchestrator.cluster import guard

if __name__ == "__main__":
    guard.again = [sys.executable, *sys.orig_argv[1:]]
    raise SystemExit(main())
