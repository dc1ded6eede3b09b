import logging

import pytest
import torch

from somite.agents import device
from somite.agents.device import resolve_device, set_threads
from somite.envs.errors import UserError


@pytest.fixture(params=[0, 2], ids=["no GPU", "two GPUs"])
def gpus(request, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "imagined")
    return request.param


def test_auto_says_what_it_chose(gpus, caplog):
    with caplog.at_level(logging.INFO):
        device = resolve_device("auto")
    assert device == torch.device("cuda:0" if gpus else "cpu")
    assert ("imagined" if gpus else "no GPU") in caplog.text


def test_a_gpu_that_is_not_there_is_an_error(gpus):
    if gpus:
        assert resolve_device("cuda:1") == torch.device("cuda:1")
        with pytest.raises(UserError, match="torch sees 2 GPU"):
            resolve_device("cuda:2")
    else:
        with pytest.raises(UserError, match="sees no GPU. Use device=cpu"):
            resolve_device("cuda")


@pytest.mark.parametrize("name", ["cdua", "cuda:", "cuda:x", "cuda:-1", "mps", ""])
def test_an_unknown_name_gets_the_choices(name):
    with pytest.raises(UserError, match="auto, cpu, cuda"):
        resolve_device(name)


def test_threads(monkeypatch):
    counts = []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)  # threads that spin for long: one of them
    assert [set_threads("auto"), set_threads(3), set_threads("2")] == counts == [1, 3, 2]
    monkeypatch.setenv("GOMP_SPINCOUNT", "2000")
    monkeypatch.setattr(device, "available_cores", lambda: 64)
    assert set_threads("auto") == device.MAX_AUTO_THREADS
    for wrong in (0, "many", 1.5):
        with pytest.raises(UserError, match="threads"):
            set_threads(wrong)
