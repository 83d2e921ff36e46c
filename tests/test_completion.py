"""The script of ``lnsgd completion``, run by the shell itself."""

import subprocess
from pathlib import Path

import pytest

from lnsgd.cli import main
from lnsgd.completion import script

# Completes the words that are its arguments, as bash does when Tab is pressed after the last.
PRESS_TAB = """\
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
$(complete -p lnsgd | sed 's/.*-F \\([^ ]*\\).*/\\1/')
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "lnsgd"
    file.write_text(script("bash"))
    return file


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("rep", {"report", "reproduce"}),
        ("reproduce cornacchia-mnist", {"cornacchia-mnist", "cornacchia-mnist-pure-noise"}),
        ("report runs --ou", {"--out"}),
        ("sweep mnist-noise --slurm.part", {"--slurm.partition"}),
        ("table --c", {"--cells", "--csv"}),
        ("fit --trainer.max_ep", {"--trainer.max_epochs"}),
        ("fit --model.label_noise.", {"--model.label_noise.p", "--model.label_noise.help"}),
        ("fit --config mnist", {"mnist", "mnist_replicas"}),
        ("fit --config pyproj", {"pyproject.toml"}),
        ("fit --config mnist --data MNI", {"MNIST"}),
        ("fit --config mnist --model.loss H", {"HingeLoss"}),
        ("fit --trainer.callbacks ActiveN", {"ActiveNeurons"}),
        ("fit --data.help lnsgd.data.CI", {"lnsgd.data.CIFAR10"}),
    ],
)
def test_bash_offers_what_begins_so(typed: str, offered: set[str], bash_script: Path) -> None:
    command = ["bash", "--norc", "-c", PRESS_TAB, "bash", str(bash_script), "lnsgd", *typed.split()]
    folder = Path(__file__).parents[1]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=60, check=True)
    assert set(ended.stdout.split()) == offered
    assert not ended.stderr


def test_script_of_zsh_names_its_command_and_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "zsh"])
    printed = capsys.readouterr().out
    assert printed.startswith("#compdef lnsgd\n")
    assert all(f"    {command}:'" in printed for command in ("fit", "sweep", "reproduce", "completion"))


def test_other_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["completion", "dash"])
    assert ended.value.code == 2
    assert "'bash', 'zsh'" in capsys.readouterr().err
