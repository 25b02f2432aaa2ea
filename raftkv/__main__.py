"""``python -m raftkv`` is the ``raftkv`` command."""

import sys

from raftkv.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
