"""A recurrent cell that every token has for itself, all with the same parameters."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


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
        weight_own, weight_common = self.weight_ih.split((own.shape[-1], common.shape[-1]), dim=1)
        # What all tokens share is multiplied once, and broadcast.
        shared = functional.linear(common, weight_common, self.bias_ih + self.bias_hh)  # (B, 4H)
        gates = functional.linear(memory["hidden"], self.weight_hh) + shared.unsqueeze(-2)  # (B, N, 4H)
        if own.shape[-1] == 1:
            gates = gates + own * weight_own.squeeze(-1)
        else:
            gates = gates + functional.linear(own, weight_own)
        enter, keep, candidate, leave = gates.chunk(4, -1)  # each (B, N, H)
        cell = keep.sigmoid() * memory["cell"] + enter.sigmoid() * candidate.tanh()
        hidden = leave.sigmoid() * cell.tanh()
        there = (mask != 0).unsqueeze(-1)
        return {
            "hidden": torch.where(there, hidden, memory["hidden"]),
            "cell": torch.where(there, cell, memory["cell"]),
        }
