"""``python -m pvnas`` is ``pvnas``."""

import sys

from pvnas.cli import main

if __name__ == "__main__":
    sys.exit(main())
