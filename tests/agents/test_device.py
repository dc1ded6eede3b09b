import logging
import warnings

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


def imagine(monkeypatch, *, build, driver, error=""):
    """A machine without a GPU that torch can use: what torch was built for, and what it says then."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu" if build is None else f"2.13.0+cu{build}")
    monkeypatch.setattr(device, "has_nvidia_driver", lambda: driver)

    def fail():
        raise RuntimeError(error)

    monkeypatch.setattr(torch.cuda, "init", fail)


def asked_for_cuda():
    with pytest.raises(UserError) as told:
        resolve_device("cuda")
    return str(told.value)


def test_a_torch_for_the_cpu_beside_a_driver_is_told_which_build_to_install(monkeypatch, caplog):
    imagine(monkeypatch, build=None, driver=True)
    message = asked_for_cuda()
    assert "torch 2.13.0+cpu (built for the CPU only) sees no GPU" in message
    assert "this machine has an NVIDIA driver" in message
    assert "pip uninstall torch, then pip install torch==2.13.0. Use device=cpu" in message
    with caplog.at_level(logging.INFO):
        assert resolve_device("auto") == torch.device("cpu")
    assert "pip install torch==2.13.0" in caplog.text
    imagine(monkeypatch, build=None, driver=False)
    assert "pip" not in asked_for_cuda()


def test_a_driver_that_is_too_old_is_told_with_both_versions(monkeypatch):
    said = (
        "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by "
        "downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
    )
    imagine(monkeypatch, build="13.0", driver=True, error=said)
    message = asked_for_cuda()
    assert "it knows CUDA 11.4 and this torch needs a driver for CUDA 13.0; update the driver" in message


def test_gpus_that_are_hidden_or_lost_are_told(monkeypatch):
    imagine(monkeypatch, build="13.0", driver=True, error="No CUDA GPUs are available")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "has an NVIDIA driver (CUDA_VISIBLE_DEVICES is '')" in asked_for_cuda()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert "has an NVIDIA driver (No CUDA GPUs are available)" in asked_for_cuda()
    imagine(monkeypatch, build="13.0", driver=False, error="Found no NVIDIA driver on your system.")
    assert asked_for_cuda().endswith("(built for CUDA 13.0) sees no GPU. Use device=cpu or device=auto.")


def test_torchs_own_warning_is_not_shown_beside_ours(monkeypatch):
    def warn():
        warnings.warn("CUDA initialization: The NVIDIA driver on your system is too old", stacklevel=1)
        return False

    imagine(monkeypatch, build="13.0", driver=True)
    monkeypatch.setattr(torch.cuda, "is_available", warn)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve_device("auto") == torch.device("cpu")


def test_a_driver_is_found_by_its_file_or_its_program(monkeypatch, tmp_path):
    monkeypatch.setattr(device, "DRIVER", tmp_path / "driver")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not device.has_nvidia_driver()
    program = tmp_path / "nvidia-smi"
    program.write_text("")
    program.chmod(0o755)
    assert device.has_nvidia_driver()
    program.unlink()
    (tmp_path / "driver").mkdir()
    assert device.has_nvidia_driver()


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
