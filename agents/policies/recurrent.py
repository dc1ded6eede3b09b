"""A recurrent cell that every token has for itself, all with the same parameters."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class TokenLSTM(nn.Module):
    """LSTM cell (Hochreiter and Schmidhuber 1997) with PyTorch's parameters, order of gates and start.

    It is written out: ``nn.LSTMCell`` has no rule for batches of parameters (``torch.func.vmap``).

    Args:
        inputs: of a token.
        hidden: H, size of its state.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(hidden)

        def uniform(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))

        self.hidden = hidden
        self.weight_ih = uniform(4 * hidden, inputs)
        self.weight_hh = uniform(4 * hidden, hidden)
        self.bias_ih = uniform(4 * hidden)
        self.bias_hh = uniform(4 * hidden)

    def initial(self, batch_size: int, n_tokens: int) -> dict[str, Tensor]:
        """Hidden and cell state (B, N, H) of zeros."""
        zeros = self.weight_hh.new_zeros(batch_size, n_tokens, self.hidden)
        return {"hidden": zeros, "cell": zeros}

    def forward(
        self, own: Tensor, common: Tensor, memory: dict[str, Tensor], mask: Tensor
    ) -> dict[str, Tensor]:
        """The next hidden and cell state (B, N, H).

        Args:
            own: (B, N, ...) inputs of each token, which come first.
            common: (B, ...) inputs of all tokens.
            memory: hidden and cell state.
            mask: (B, N); a token that is missing keeps its state.
        """
        lead = mask.shape
        hidden, before = (memory[key].flatten(0, -2).mT for key in ("hidden", "cell"))  # (H, B * N)
        told = torch.cat((own, common.unsqueeze(-2).expand(*lead, common.shape[-1])), -1)
        told = told.flatten(0, -2).mT  # told: (inputs, B * N)
        # One product for all of it. Its rows are gates, so that each gate's numbers lie together:
        # vectorised functions are several times as fast on long stretches of memory as on short ones.
        columns = torch.cat((hidden, told, torch.ones_like(told[:1])))
        weights = torch.cat((self.weight_hh, self.weight_ih, (self.bias_ih + self.bias_hh).unsqueeze(-1)), 1)
        enter, keep, candidate, leave = torch.matmul(weights, columns).chunk(4)  # each (H, B * N)
        cell = keep.sigmoid() * before + enter.sigmoid() * candidate.tanh()
        after = leave.sigmoid() * cell.tanh()
        there = (mask != 0).flatten()
        return {
            "hidden": torch.where(there, after, hidden).mT.unflatten(0, lead),
            "cell": torch.where(there, cell, before).mT.unflatten(0, lead),
        }
