"""Run the command ``lnsgd``, whose path is the first argument, as if the machine had many cores."""

import os
import sys

from lnsgd.cli import main

if __name__ == "__main__":
    os.cpu_count = lambda: 64
    main(sys.argv[2:])
