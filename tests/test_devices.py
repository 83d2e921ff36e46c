"""Numbers of devices that are accepted, with a simulated number of GPUs."""

import pytest
import torch

from lnsgd.runs.processes import check_devices

GOOD = {"all": "auto", "minus-one": -1, "one": 1, "two": 2, "text": "2", "list": [1, 0], "second": "1,"}
BAD = {
    "none": 0,
    "negative": -2,
    "too-many": 3,
    "word": "many",
    "fraction": "1.5",
    "empty": [],
    "no-such": [0, 2],
    "twice": "1,1",
}


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cuda"])
@pytest.mark.parametrize("devices", GOOD.values(), ids=GOOD)
def test_existing_gpus_are_accepted(accelerator: str, devices: str | int | list[int]) -> None:
    check_devices(accelerator, devices)


@pytest.mark.parametrize("devices", BAD.values(), ids=BAD)
def test_missing_gpus_are_refused(devices: str | int | list[int]) -> None:
    with pytest.raises(
        ValueError, match=r"trainer\.devices = .*: this machine has 2 GPUs; give 1 to 2, or a list"
    ) as e:
        check_devices("cuda", devices)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("devices", [-1, [0], "0,1"], ids=["all", "list", "text"])
def test_cpus_cannot_be_chosen_by_number(devices: str | int | list[int]) -> None:
    with pytest.raises(ValueError, match=r"CPU cores; give 1 to \d+$"):
        check_devices("cpu", devices)
