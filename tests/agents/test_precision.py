"""What a learner computes in, and what that means for TF32."""

import logging
import os
import subprocess
import sys

import pytest
import torch

from somite.agents import device
from somite.agents.device import use_precision
from somite.agents.training.loop import make_algorithm
from somite.envs.errors import UserError

from .runs import compose

GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def as_torch_begins():
    kept = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = True, True
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = kept


@pytest.mark.parametrize("name", ["float32", "bf16"])
def test_tf32_is_off_whatever_is_chosen(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    use_precision(name, GPU)
    assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


def test_what_it_means_on_a_gpu_is_said(monkeypatch, caplog):
    with caplog.at_level(logging.INFO):
        use_precision("float32", torch.device("cpu"))
        assert not caplog.text, "on a CPU there is nothing to say"
        use_precision("float32", GPU)
        assert "precision: float32 (TF32 off, for matrix products and convolutions)" in caplog.text
        for has_it in (True, False):
            caplog.clear()
            monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, own=has_it: own)
            use_precision("bf16", GPU)
            assert "precision: bf16 (autocast)" in caplog.text
            assert ("precision=bf16 makes this run slower: this GPU has no" in caplog.text) == (not has_it)


@pytest.mark.parametrize(("times", "is_said"), [(0.3, False), (1.5, False), (66.4, True)])
def test_a_processor_without_bf16_is_told_before_the_run(monkeypatch, caplog, times, is_said):
    monkeypatch.setattr(device, "bf16_times", lambda: times)
    with caplog.at_level(logging.WARNING):
        use_precision("float32", torch.device("cpu"))
        assert not caplog.text
        use_precision("bf16", torch.device("cpu"))
    said = "matrix products take 66 times as long on this processor. precision=float32 is faster here"
    assert [said in record.getMessage() for record in caplog.records] == [True] * is_said


def test_a_processor_is_measured():
    code = "from somite.agents.device import bf16_times; print(bf16_times())"
    without = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=without, capture_output=True, text=True, check=True
    )
    assert float(done.stdout) > device.SLOW, "oneDNN computes bf16 in software on AVX2"


def test_a_search_computes_in_float32():
    assert make_algorithm(compose("precision=bf16")).name == "ppo"
    with pytest.raises(UserError, match="algorithm=cma_es computes in float32: use precision=float32"):
        make_algorithm(compose("precision=bf16", "algorithm=cma_es"))
