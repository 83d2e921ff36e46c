"""Run ``lnsgd`` as ``python -m lnsgd``."""

from lnsgd.cli import main

if __name__ == "__main__":
    main()
