"""Save a view of a Weights & Biases project: all measures over the steps of training, arms with error bands.

    pip install '.[wandb]'
    python scripts/wandb_workspace.py ENTITY/PROJECT

Runs are grouped by W&B group and by tag, which `lnsgd reproduce --wandb` and sweeps with `wandb:` set to the figure or
sweep and to its arm; a line is the mean of a group and its band one standard deviation. Other runs are told apart by
settings of theirs, such as `--by model.init_args.label_noise.init_args.p`. Replicated runs log means over seeds, which
are drawn as they are.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

# What of a replicated run follows the name of a number: its mean over seeds, of each group where there are several.
MEAN = r"(/mean|/[^/]*=[^/]*/mean)?"

# Of sections the plots, and of a plot the numbers in it: each `measure/split`, or one of every layer of it.
SECTIONS: Mapping[str, Mapping[str, str]] = {
    "Sparsity": {
        "Active neurons, train": "active_fraction/train/[^/]+",
        "Active neurons, val": "active_fraction/val/[^/]+",
    },
    "Class association": {
        "Class-associated neurons, train": "associated_fraction/train/[^/]+",
        "Class-associated neurons, val": "associated_fraction/val/[^/]+",
    },
    "Distance": {"Distance from initialization": "distance_from_init"},
    "Curvature": {
        "Trace of the Hessian": "hessian_trace/train",
        "Largest eigenvalue of the Hessian": "top_eigenvalue_1/train",
        "Implicit regularizer": "implicit_regularizer/train",
    },
    "Training": {
        "Training loss": "train/loss",
        "Training accuracy, clean labels": "train/accuracy",
        "Validation loss": "val/loss",
        "Validation accuracy": "val/accuracy",
        "Flip rate": "train/flip_rate",
    },
}

LOGARITHMIC = ("Curvature",)


def pattern(numbers: str) -> str:
    """Return the regular expression (RE2) of the names of logged numbers, replicated or not, without spreads."""
    return f"^{numbers}{MEAN}$"


def workspace(entity: str, project: str, by: Sequence[str]) -> "Workspace":
    """Make the view without saving it.

    Args:
        entity: W&B user or team.
        project: One of its projects.
        by: Settings of a run's config that tell arms apart; empty for group and tag.
    """
    import wandb_workspaces.reports.v2 as reports
    import wandb_workspaces.workspaces as workspaces

    step = "trainer/global_step"

    def plot(title: str, numbers: str, logarithmic: bool) -> Any:
        return reports.LinePlot(
            title=title,
            x=step,
            title_x="SGD steps",
            metric_regex=pattern(numbers),
            log_y=logarithmic,
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
        )

    sections = [
        workspaces.Section(
            name=name,
            panels=[plot(title, numbers, name in LOGARITHMIC) for title, numbers in plots.items()],
            is_open=True,
        )
        for name, plots in SECTIONS.items()
    ]
    arms = [workspaces.Config(key) for key in by] or [workspaces.Metric("Group"), workspaces.Metric("Tags")]
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name="lnsgd",
        sections=sections,
        settings=workspaces.WorkspaceSettings(x_axis=step),
        runset_settings=workspaces.RunsetSettings(groupby=arms),
    )


def main(args: Sequence[str]) -> None:
    """Save the view and print its address; if that fails, print one line and exit with code 2."""
    parser = argparse.ArgumentParser(description="Save a W&B view with lnsgd's measures, grouped by arm.")
    parser.add_argument("project", metavar="ENTITY/PROJECT")
    parser.add_argument("--by", nargs="+", default=[], metavar="SETTING", help="settings in place of group and tag")
    options = parser.parse_args(args)
    if not re.fullmatch(r"[^/]+/[^/]+", options.project):
        parser.error(f"{options.project!r} is no project; give ENTITY/PROJECT, such as me/lnsgd")
    try:
        view = workspace(*options.project.split("/"), options.by)
    except ModuleNotFoundError as error:
        if error.name != "wandb_workspaces":
            raise
        parser.error("wandb-workspaces is missing; pip install '.[wandb]' installs it")
    try:
        view.save()
    except Exception as error:  # what a client of requests, GraphQL and W&B raises has no common class
        parser.error(f"W&B does not take the view ({' '.join(str(error).split())[:200]}); see wandb login")


if __name__ == "__main__":
    main(sys.argv[1:])
