"""``python -m doteval``: the command line."""

import sys

from doteval.cli import main

sys.exit(main())
