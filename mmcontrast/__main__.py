"""`python -m mmcontrast` is the command line."""

import sys

from mmcontrast.cli import main

sys.exit(main())
