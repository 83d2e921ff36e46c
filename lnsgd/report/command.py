"""The command ``lnsgd report``: show folders on one HTML page."""

from argparse import Namespace
from datetime import UTC, datetime

from lnsgd.console.messages import counted
from lnsgd.report.find import read_folders
from lnsgd.report.page import render
from lnsgd.runs.writing import whole_file


def report(options: Namespace) -> None:
    """Write the page and print where it is and how large it is.

    Args:
        options: Options of the command, `lnsgd.report.options.parse`.

    Raises:
        ValueError: a folder holds nothing to report, a file is missing or damaged, or the page cannot be written.
    """
    sections = read_folders(options.folders)
    page = render(sections, datetime.now(UTC))
    with whole_file(options.out) as part:
        part.write_text(page, encoding="utf-8")
    kinds = [section.kind for section in sections]
    held = ", ".join(counted(kinds.count(kind), kind) for kind in dict.fromkeys(kinds))
    print(f"Report: {options.out} ({len(page.encode()) / 1e6:.1f} MB; {held})")
    if options.wandb is not None:
        # Imported here, because it takes seconds and is not needed otherwise.
        from lnsgd.report.sending import send_report

        send_report(sections, page, options.out, options.wandb)
