"""The GPU kit with stages that are short commands of the shell: order, budget, resuming, failures, exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lnsgd.runs.locks import locked
from scripts.gpu import __main__ as command
from scripts.gpu.plan import FOLDER, Stage, stages
from scripts.gpu.results import ResultError, collect, lines_of
from scripts.gpu.runner import Kit, interruptible, run_all
from scripts.gpu.summary import write_summary

ROOT = Path(__file__).parents[2]

# Continues where it was stopped: each run counts one further, and the third reaches the end.
RESUMES = f"""
echo x >> {FOLDER}/runs; n=$(wc -l < {FOLDER}/runs)
[ "$n" -ge 3 ] || exit 75
echo '{{"runs": '$n'}}'
"""
SLEEPS = "trap 'exit 75' TERM; sleep 60 & wait"


def shell(name: str, script: str, minutes: float = 1.0, **options) -> Stage:
    return Stage(name, f"Does {name} work?", ("sh", "-c", script), minutes, **options)


def finishing(name: str, **options) -> Stage:
    return shell(name, f"echo {name} >> $ORDER; echo '{{}}'", **options)


@pytest.fixture
def order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file to which stages add a line when they run."""
    monkeypatch.setenv("ORDER", str(tmp_path / "order"))
    return tmp_path / "order"


@pytest.fixture
def kit(tmp_path: Path, order: Path) -> Kit:
    return Kit(tmp_path / "kit", os.environ, "abc1234", grace=0.5)


def run(kit: Kit, *plan: Stage, seconds: float | None = None) -> tuple[dict[str, str], dict[str, str]]:
    """Run a plan; return the outcomes, and why stages were left out, by name."""
    left_out = run_all(kit, plan, seconds, lambda line: None)
    return {name: record.outcome for name, record in kit.records.items()}, left_out


def test_stages_run_in_the_order_of_the_plan(kit, order):
    outcomes, left_out = run(kit, finishing("b"), finishing("a"), finishing("c"))
    assert order.read_text().split() == ["b", "a", "c"]
    assert (outcomes, left_out) == (dict.fromkeys("bac", "finished"), {})


def test_finished_stages_are_not_run_again(kit, order):
    run(kit, finishing("a"))
    again = Kit(kit.folder, os.environ, "abc1234")
    run(again, finishing("a"), finishing("b"))
    assert order.read_text().split() == ["a", "b"]


def test_changed_command_is_run_again(kit, order):
    run(kit, finishing("a"))
    run(kit, shell("a", "echo changed >> $ORDER; echo '{}'"))
    assert order.read_text().split() == ["a", "changed"]
    assert kit.records["a"].runs == 1


def test_failing_stage_is_reported_and_does_not_stop_the_others(kit, order):
    fails = shell("fails", "echo first >&2; echo no memory >&2; exit 3")
    outcomes, _ = run(kit, fails, finishing("after"))
    assert outcomes == {"fails": "failed", "after": "finished"}
    assert (kit.records["fails"].why, kit.records["fails"].exit_code) == ("exit code 3: no memory", 3)
    run(kit, finishing("fails"))  # a failed stage is run again
    assert kit.records["fails"].outcome == "finished"


def test_stage_without_its_result_has_failed(kit):
    outcomes, _ = run(kit, shell("silent", "echo words"))
    assert (outcomes, kit.records["silent"].why) == ({"silent": "failed"}, "it printed no JSON, but 'words\\n'")


def test_stage_that_saves_its_state_is_continued_until_it_has_finished(kit):
    stage = shell("long", RESUMES, resumes=True)
    assert [run(kit, stage)[0]["long"] for _ in range(4)] == ["stopped", "stopped", "finished", "finished"]
    assert json.loads((kit.folder / "json/long.json").read_text()) == {"runs": 3}
    assert kit.records["long"].runs == 3


def test_stage_over_its_own_minutes_is_killed_and_has_failed(kit):
    began = time.monotonic()
    outcomes, _ = run(kit, shell("hangs", "sleep 60 & echo $! > $ORDER; wait", minutes=0.01))
    assert outcomes == {"hangs": "failed"} and "ended after its time of 0.01 min" in kit.records["hangs"].why
    assert time.monotonic() - began < 30
    child = int(Path(os.environ["ORDER"]).read_text())
    assert not _is_running(child)  # what the command has started is killed, too


def test_stage_that_resumes_is_stopped_within_the_budget(kit):
    plan = shell("long", SLEEPS, minutes=10, resumes=True), finishing("next")
    outcomes, left_out = run(kit, *plan, seconds=2)
    assert (outcomes, kit.records["long"].exit_code) == ({"long": "stopped"}, None)
    assert set(left_out) == {"next"} and left_out["next"].startswith("no time: it needs 1 min")


def test_stage_without_time_is_left_out_for_one_that_fits(kit, order):
    outcomes, left_out = run(kit, finishing("long", minutes=5), finishing("short", minutes=0.5), seconds=60)
    assert (outcomes, set(left_out)) == ({"short": "finished"}, {"long"})


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# -- results and summary

JUNIT = """<testsuites><testsuite>
<testcase classname="tests.gpu.test_a" name="test_one[cuda]" time="1.5"/>
<testcase classname="tests.gpu.test_a" name="test_two[cuda]" time="0.5"><failure>no</failure></testcase>
<testcase classname="tests.gpu.test_a" name="test_three[cuda]" time="0"><skipped/></testcase>
<testcase time="0"/>
</testsuite></testsuites>"""


def test_outcomes_of_tests_are_kept_also_if_one_fails(kit):
    stage = shell("tests", f"cat > {FOLDER}/tests.xml <<'X'\n{JUNIT}\nX\nexit 1", result="tests")
    assert run(kit, stage)[0] == {"tests": "failed"}
    assert json.loads((kit.folder / "json/tests.json").read_text())["counts"] == {
        "passed": 1,
        "failed": 1,
        "skipped": 1,
    }
    lines = lines_of(stage, kit.folder)
    assert lines == ["1 passed, 1 failed, 1 skipped", "fails: `tests.gpu.test_a::test_two[cuda]`"]


def test_tests_over_their_time_leave_a_report_of_those_that_have_ended(kit):
    """As pytest does when it is interrupted by Ctrl-C, but not by SIGTERM."""
    write = f"cat > {FOLDER}/so-far.xml <<'X'\n{JUNIT}\nX\n"
    trap = f"trap 'cp {FOLDER}/so-far.xml {FOLDER}/tests.xml; exit 2' INT\n"
    stage = shell("tests", f"{write}{trap}sleep 60 & wait", minutes=0.05, result="tests")
    with interruptible():
        assert run(kit, stage)[0] == {"tests": "failed"}
    assert "ended after its time of 0.05 min" in kit.records["tests"].why
    assert json.loads((kit.folder / "json/tests.json").read_text())["counts"]["passed"] == 1


def test_ratios_of_a_benchmark_are_shown(kit):
    found = {"seconds": {"a": 3}, "R=1": {"ratios": {"jax / general": 2.5}}, "8 of 12 stopped": {"ratio": 1.75}}
    stage = shell("bench", f"echo '{json.dumps(found)}'")
    run(kit, stage)
    assert lines_of(stage, kit.folder) == ["R=1, jax / general: 2.5", "8 of 12 stopped, ratio: 1.75"]


def test_claims_and_picture_of_a_figure_are_copied(kit):
    kept = ROOT / "docs/results/blanc-single-point"
    copies = f"cp {kept}/claims.json {FOLDER}; cp {kept}/blanc-single-point.png {FOLDER}"
    stage = shell("blanc-single-point", copies, result="figure")
    assert run(kit, stage)[0] == {"blanc-single-point": "finished"}
    counts, picture = lines_of(stage, kit.folder)
    assert counts.startswith("paper: ") and picture == "![blanc-single-point](pictures/blanc-single-point.png)"
    assert (kit.folder / "pictures/blanc-single-point.png").exists()
    with pytest.raises(ResultError, match=r"there is no claims\.json"):
        collect(stage, kit.folder, kit.folder)


def test_summary_names_every_stage(kit):
    plan = [finishing("good"), shell("bad", "echo 'a | b' >&2; exit 1"), finishing("late", minutes=5)]
    _, left_out = run(kit, *plan, seconds=150)
    page = write_summary(kit.folder, "cpu", plan, kit.records, left_out).read_text()
    assert "A rehearsal on a CPU" in page
    assert "| good | finished | 0 | abc1234 |  |" in page
    assert "| bad | failed | 0 | abc1234 | exit code 1: a \\| b |" in page
    assert "| late | not begun | | | no time: it needs 5 min, and 2.5 min are left |" in page


# -- the command


def test_exit_codes(tmp_path, order, capsys):
    def code(folder: str, *plan: Stage, minutes: str = "3") -> int:
        return command.main(["--device", "cpu", "--out", str(tmp_path / folder), "--minutes", minutes], plan)

    assert code("good", finishing("a")) == 0
    assert code("bad", shell("a", "exit 9"), finishing("b")) == 1
    assert code("late", finishing("a"), finishing("b", minutes=9)) == 75
    assert "the same command continues" in capsys.readouterr().out
    assert (tmp_path / "late/summary.md").exists()


def test_bad_input_ends_with_one_line_and_code_2(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "_has_cuda", lambda: False)
    assert command.main([]) == 2
    (tmp_path / "stages.json").write_text("[]")
    assert command.main(["--device", "cpu", "--out", str(tmp_path)]) == 2
    with locked(tmp_path / ".lock"):
        assert command.main(["--device", "cpu", "--out", str(tmp_path)]) == 2
    first, second, third = capsys.readouterr().err.splitlines()
    assert "no CUDA GPU" in first and "is not a record of this kit" in second and "in use by another run" in third


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_the_stage_and_leaves_a_summary(tmp_path, number):
    """Run the command in a process of its own, with one stage that saves its state when it is told to."""
    script = f"touch {tmp_path}/began; trap 'touch {tmp_path}/saved; exit 75' TERM; sleep 60 & wait"
    code = (
        "import sys; from scripts.gpu.__main__ import main; from scripts.gpu.plan import Stage\n"
        f"plan = [Stage('long', 'Does it stop?', ('sh', '-c', {script!r}), 1, resumes=True)]\n"
        f"sys.exit(main(['--device', 'cpu', '--out', {str(tmp_path / 'kit')!r}], plan))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 60
    while not (tmp_path / "began").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(30) == 75
    assert (tmp_path / "saved").exists()
    assert "| long | stopped |" in (tmp_path / "kit/summary.md").read_text()


# -- the plan


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_plan_has_every_benchmark_and_the_figures(device):
    plan = stages(device)
    names = [stage.name for stage in plan]
    assert names[:2] == ["machine", "tests"] and len(set(names)) == len(names)
    run_by_plan = {Path(part).name for stage in plan for part in stage.command if "benchmarks" in part}
    benchmarks = (ROOT / "scripts/benchmarks").glob("*.py")
    assert run_by_plan == {path.name for path in benchmarks if "--device" in path.read_text()}
    figures = [stage for stage in plan if stage.result == "figure"]
    assert [stage.name for stage in figures] == names[-len(figures) :] and all(stage.resumes for stage in figures)
    for stage in plan:
        if "benchmarks" in stage.command[1]:
            assert stage.command[stage.command.index("--device") + 1] == device


def test_figures_of_the_plan_have_the_scales(capsys):
    from lnsgd.figures.framework.catalogue import FIGURES

    for stage in (stage for stage in stages("cuda") if stage.result == "figure"):
        assert stage.command[stage.command.index("--scale") + 1] in FIGURES[stage.name].scales


def test_short_slot_has_time_for_the_tests():
    minutes = {stage.name: stage.minutes for stage in stages("cuda")}
    assert minutes["machine"] + minutes["tests"] <= 9
