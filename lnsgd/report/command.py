"""``lnsgd report``: folders as one HTML page."""

from datetime import datetime, timezone
from pathlib import Path

from lnsgd.messages import CommandParser, counted
from lnsgd.report.find import read_folders
from lnsgd.report.page import render
from lnsgd.run_folder import RunFolder, whole_file


def report(args: list[str]) -> None:
    """Writes the page and says where it is and how large.

    Raises:
        ValueError: a folder holds nothing to report, a file is missing or damaged, or the page cannot be written there.
    """
    parser = CommandParser(
        "lnsgd report", description="Claims, pictures, sweeps and runs on one HTML page that loads nothing."
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="DIR", help="figures, sweeps, runs, or folders that hold some of these"
    )
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page (default: report.html)")
    options = parser.parse_args(args)
    if options.out.is_dir():
        raise ValueError(f"--out {options.out} is a folder; give a file, such as {options.out / 'report.html'}")
    RunFolder(options.out.parent).check_writable()
    sections = read_folders(options.folders)
    page = render(sections, datetime.now(timezone.utc))
    with whole_file(options.out) as part:
        part.write_text(page, encoding="utf-8")
    kinds = [section.kind for section in sections]
    held = ", ".join(counted(kinds.count(kind), kind) for kind in dict.fromkeys(kinds))
    print(f"Report: {options.out} ({len(page.encode()) / 1e6:.1f} MB; {held})")
