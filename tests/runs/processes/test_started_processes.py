"""A Trainer has as many processes as torchrun has started; otherwise each would be a run of its own."""

import pytest
import pytorch_lightning as pl

from lnsgd.runs.processes import check_nodes

QUIET = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch):
    """Return a function that simulates a process that torchrun has started, with others."""

    def start(processes: int) -> None:
        found = {"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": processes, "RANK": 0, "LOCAL_RANK": 0, "GROUP_RANK": 0}
        for name, value in {**found, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}.items():
            monkeypatch.setenv(name, str(value))

    return start


@pytest.mark.parametrize("devices, strategy", [(1, "auto"), (1, "ddp"), (3, "ddp")])
def test_other_number_of_processes_is_refused(started, devices, strategy):
    started(2)
    trainer = pl.Trainer(**QUIET, devices=devices, strategy=strategy)
    message = rf"^torchrun has started 2 processes, and trainer\.devices = {devices} on trainer\.num_nodes = 1 makes"
    with pytest.raises(ValueError, match=message) as error:
        check_nodes(trainer)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("processes, nodes", [(1, 1), (2, 1), (2, 2)])
def test_same_number_of_processes_is_accepted(started, processes, nodes):
    started(processes * nodes)
    strategy = "auto" if processes == 1 else "ddp"
    check_nodes(pl.Trainer(**QUIET, devices=processes, num_nodes=nodes, strategy=strategy))
