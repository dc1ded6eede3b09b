from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small networks run fastest on one, above all beside other work; another test may have set more."""
    torch.set_num_threads(1)
