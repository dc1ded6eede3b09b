"""A GPU whose memory does not suffice: what is said, and what is none of it."""

import pytest
import torch

from somite.agents.device import out_of_memory
from somite.envs.errors import UserError

GPU, GIB = torch.device("cuda", 0), 2**30


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of 80 GiB, 60 of them free and 4 more kept by torch; what is taken is told by the test."""
    state = {"free": 60 * GIB, "reserved": 10 * GIB, "allocated": 6 * GIB}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (state["free"], 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: state["reserved"])
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: state["allocated"])
    return state


def torchs_error(size="80.00 GiB"):
    return torch.cuda.OutOfMemoryError(
        f"CUDA out of memory. Tried to allocate {size}. GPU 0 has a total capacity of 80.00 GiB"
    )


def warps_error(size=80 * GIB):
    return RuntimeError(f"Failed to allocate {size} bytes on device 'cuda:0'")


def message_of(error, count=16384, key="algorithm.num_envs", take=0, gpu=None, device=GPU):
    with pytest.raises(UserError) as told:
        with out_of_memory("this run", device, key, count):
            if gpu:
                gpu["free"] -= take
            raise error
    return str(told.value)


@pytest.mark.parametrize("error", [torchs_error(), warps_error()], ids=["torch", "Warp"])
def test_what_would_fit_is_estimated_from_what_was_taken_and_asked_for(error, gpu):
    # 48 GiB taken and 80 more asked for: 8 MiB an environment, of which 64 GiB hold 8192.
    message = message_of(error, take=48 * GIB, gpu=gpu)
    assert message == (
        "this run does not fit into the memory of cuda:0: algorithm.num_envs=16384 needs 128 GiB or more and "
        "64 GiB were free; algorithm.num_envs=8100 or fewer may fit"
    )


def test_the_key_is_the_one_that_is_named(gpu):
    message = message_of(torchs_error("128.00 GiB"), 2048, "algorithm.batch_size")
    assert "algorithm.batch_size=1000 or fewer may fit" in message and "num_envs" not in message


def test_never_as_many_as_did_not_fit(gpu):
    assert "algorithm.num_envs=99 or fewer" in message_of(torchs_error("1.00 MiB"), 100)
    assert "not even algorithm.num_envs=1 fits" in message_of(torchs_error(), 1)
    assert "not even algorithm.num_envs=1 fits" in message_of(torchs_error("4096.00 GiB"), 2)


@pytest.mark.parametrize(
    "text", ["CUDA error: out of memory", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"]
)
def test_where_no_size_is_told_half_is_proposed(text, gpu):
    message = message_of(RuntimeError(text), 512)
    assert message.endswith("with algorithm.num_envs=512: lower it, say algorithm.num_envs=256")


def test_warps_kernels_on_a_cpu_are_told_too():
    error = RuntimeError("Failed to allocate 1000 bytes on device 'cpu'")
    assert "memory of cpu" in message_of(error, 8, device=torch.device("cpu"))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        ValueError("no"),
        UserError("told"),
    ],
    ids=repr,
)
def test_other_errors_stay_what_they_are(error, gpu):
    with pytest.raises(type(error)) as told, out_of_memory("this run", GPU, "algorithm.num_envs", 8):
        raise error
    assert told.value is error


def test_the_cause_is_kept(gpu):
    error = torchs_error()
    with pytest.raises(UserError) as told, out_of_memory("this run", GPU, "algorithm.num_envs", 8):
        raise error
    assert told.value.__cause__ is error
