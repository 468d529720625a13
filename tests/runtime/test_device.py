"""The machine as it is chosen and described."""

import json

import pytest
import torch

from pvnas.errors import UserError
from pvnas.runtime.device import choose_device, describe_machine, set_threads, usable_cores


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == choose_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="--device cpu"):
        choose_device("cuda")
    with pytest.raises(UserError, match="auto, cpu and cuda"):
        choose_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == choose_device("cuda").type == "cuda"


def test_threads() -> None:
    before = torch.get_num_threads()
    try:
        assert set_threads(1) == torch.get_num_threads() == 1
        assert set_threads(0) == torch.get_num_threads() == usable_cores()
        with pytest.raises(UserError):
            set_threads(-1)
    finally:
        torch.set_num_threads(before)


def test_the_description_is_json_with_versions_and_without_names_of_this_machine() -> None:
    machine = json.loads(json.dumps(describe_machine()))
    assert {"cpu", "cores", "gpu", "torch", "python", "pvnas"} <= set(machine)
    assert machine["torch"] == torch.__version__
    assert machine["cpu"]
