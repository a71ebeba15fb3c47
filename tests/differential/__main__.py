"""`python -m tests.differential`: see command.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where pytest looks for modules, too

from differential.command import main

if __name__ == "__main__":
    sys.exit(main())
