"""The command ``lnsgd``, whose path is the first argument, on a machine that has as many cores as it asks for."""

import os
import sys

from lnsgd.cli import main

if __name__ == "__main__":
    os.cpu_count = lambda: 64
    main(sys.argv[2:])
