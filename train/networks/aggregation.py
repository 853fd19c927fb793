"""Aggregation of the blocks of a clip, in the order of time: the convolutional GRU of DPC and CoCon."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.arguments import check_number


class ConvGRU(nn.Module):
    """A gated recurrent unit of one layer whose products are convolutions over the feature map.

    With x a block's features, h the state (zeros at first) and [;] along channels:

        u = sigmoid(W_u [x; h])    r = sigmoid(W_r [x; h])    o = tanh(W_o [x; r * h])    h' = (1 - u) * h + u * o

    Dropout acts on h' after each block, and what it leaves is both the result and the next block's h. Weights start
    orthogonal, biases at zero.

    Args:
        input_size, hidden_size: features of a block and of the state (published: 256 and 256).
        kernel_size: places that a gate sees in each direction, odd (published: 1).
        dropout: share of h' that is zeroed in training.

    Raises:
        ValueError: a number out of range.

    Source: Han et al., DPC (arXiv 1909.04656), as released (docs/methods.md 3.6).
    """

    def __init__(self, input_size: int, hidden_size: int, kernel_size: int = 1, dropout: float = 0.1) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("kernel_size", kernel_size)):
            check_number(name, size, whole=True, least=1)
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {kernel_size}, and must be odd: an even kernel shifts the map")
        check_number("dropout", dropout, least=0, most=1)
        self.input_size, self.hidden_size = input_size, hidden_size
        both, padding = input_size + hidden_size, kernel_size // 2
        self.reset_gate = nn.Conv2d(both, hidden_size, kernel_size, padding=padding)
        self.update_gate = nn.Conv2d(both, hidden_size, kernel_size, padding=padding)
        self.out_gate = nn.Conv2d(both, hidden_size, kernel_size, padding=padding)
        self.dropout = nn.Dropout(dropout)
        for name, parameter in self.named_parameters():
            (nn.init.zeros_ if name.endswith("bias") else nn.init.orthogonal_)(parameter)

    def forward(self, blocks: Tensor, state: Tensor | None = None) -> Tensor:
        """States after each block.

        Args:
            blocks: (B, N, input_size, S, S), N > 0.
            state: (B, hidden_size, S, S), where to go on from; None: zeros.

        Returns:
            (B, N, hidden_size, S, S); the last is `[:, -1]`.

        Raises:
            ValueError: shapes that do not fit.
        """
        wanted = (*blocks.shape[:1], self.hidden_size, *blocks.shape[3:])
        if state is None:
            state = blocks.new_zeros(wanted)
        if blocks.ndim != 5 or not blocks.shape[1] or blocks.shape[2] != self.input_size or state.shape != wanted:
            raise ValueError(
                f"blocks and state do not fit the ConvGRU: blocks {tuple(blocks.shape)}, state {tuple(state.shape)}, and not"
                f" blocks (B, N, {self.input_size}, S, S), state (B, {self.hidden_size}, S, S)"
            )
        states = []
        for block in blocks.unbind(dim=1):
            state = self.dropout(self._next(block, state))
            states.append(state)
        return torch.stack(states, dim=1)

    def _next(self, block: Tensor, state: Tensor) -> Tensor:
        both = torch.cat([block, state], dim=1)
        update, reset = self.update_gate(both).sigmoid(), self.reset_gate(both).sigmoid()
        proposed = self.out_gate(torch.cat([block, reset * state], dim=1)).tanh()
        return (1 - update) * state + update * proposed
