"""``lnsgd report``: folders as one HTML page."""

from datetime import datetime, timezone
from pathlib import Path

from lnsgd.loggers.wandb import check_project, send_results
from lnsgd.messages import CommandParser, counted
from lnsgd.report.find import read_folders
from lnsgd.report.page import render
from lnsgd.report.tracked import results_of
from lnsgd.writing import check_writable, whole_file


def report(args: list[str]) -> None:
    """Writes the page and says where it is and how large.

    Raises:
        ValueError: a folder holds nothing to report, a file is missing or damaged, the page cannot be written there, or
            W&B takes no such project.
    """
    parser = CommandParser(
        "lnsgd report", description="Claims, pictures, sweeps and runs on one HTML page that loads nothing."
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="DIR", help="figures, sweeps, runs, or folders that hold some of these"
    )
    parser.add_argument("--out", type=Path, default=Path("report.html"), help="the page (default: report.html)")
    parser.add_argument(
        "--wandb",
        nargs="?",
        const="lnsgd",
        metavar="PROJECT",
        help="send page, pictures and claims to Weights & Biases too, as a run of its own (project: lnsgd)",
    )
    options = parser.parse_args(args)
    if options.wandb is not None:
        check_project(options.wandb)
    if options.out.is_dir():
        raise ValueError(f"--out {options.out} is a folder; give a file, such as {options.out / 'report.html'}")
    check_writable(options.out.parent)
    sections = read_folders(options.folders)
    page = render(sections, datetime.now(timezone.utc))
    with whole_file(options.out) as part:
        part.write_text(page, encoding="utf-8")
    kinds = [section.kind for section in sections]
    held = ", ".join(counted(kinds.count(kind), kind) for kind in dict.fromkeys(kinds))
    print(f"Report: {options.out} ({len(page.encode()) / 1e6:.1f} MB; {held})")
    if options.wandb is not None:
        project = {"project": options.wandb, "name": options.out.stem, "job_type": "report"}
        send_results(results_of(sections, page), options.out.parent, same_run=False, **project)
