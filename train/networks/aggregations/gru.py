"""The aggregation of DPC and CoCon: a convolutional GRU over the blocks of a clip, in the order of time."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from train.networks.aggregations import Aggregation
from train.networks.dropout import Dropout
from train.settings.arguments import check_choice, check_number

Between = Literal["relu", "unit", "plain"]
FLOOR = 1e-5  # added to a length by which is divided
Count = Annotated[int, Field(ge=1)]


class Recurrent(Aggregation):
    """Blocks -> ConvGRU `gru` -> last state -> mean over space; beside it `predictor`, from a state to the next block,
    which is trained with it and takes no part in the context.

    Args:
        in_features: of a block's map.
        block_length: frames of a block.
        hidden: features of the state.
        between: what the GRU is given, and gives. "relu": what is negative in a block becomes 0 (DPC); "unit": a block
            and the last state become unit vectors at each place, x / (|x| + 1e-5) (CoCon's pre-training); "plain": all
            as it is (CoCon's classifier).
        dropout: see `ConvGRU`.
        predicts: whether there is a predictor; published classifiers have none.

    Raises:
        ValueError: a number out of range, or an unknown `between`.

    Source: Han et al., DPC (arXiv 1909.04656); Rai et al., CoCon (arXiv 2104.14764), both as released (docs/methods.md
    3.6).
    """

    def __init__(
        self,
        in_features: int,
        block_length: Count = 5,
        hidden: Count = 256,
        between: Between = "relu",
        dropout: Annotated[float, Field(ge=0, le=1)] = 0.1,
        predicts: bool = True,
    ) -> None:
        super().__init__()
        check_number("block_length", block_length, whole=True, least=1)
        check_choice("between", between, Between)
        self.block_length, self.size, self.between = block_length, hidden, between
        self.gru = ConvGRU(in_features, hidden, dropout=dropout)
        if predicts:
            first, second = nn.Conv2d(hidden, in_features, 1), nn.Conv2d(in_features, in_features, 1)
            self.predictor = nn.Sequential(first, nn.ReLU(), second)
            _orthogonal(self.predictor)

    def forward(self, blocks: Tensor) -> Tensor:
        return self._normalised(self.gru(self._given(blocks))[:, -1]).mean(dim=(2, 3))

    def predict(self, blocks: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """Predictions of the last blocks from the earlier ones, each made from the predictions before it.

        Args:
            blocks: (B, N, in_features, S, S), as they come from the backbone.
            steps: how many are predicted, 1 to N - 1.

        Returns:
            predicted: (B, steps, in_features, S, S).
            blocks: all of them as targets, (B, N, in_features, S, S): with `between: unit` unit vectors at each place,
                as the predictions then are; else as they came.

        Raises:
            ValueError: no block that is seen, or none that is predicted; a network without a predictor.
        """
        check_number("steps", steps, whole=True, least=1, most=blocks.shape[1] - 1)
        if not hasattr(self, "predictor"):
            raise ValueError("this ConvGRU has no predictor (predicts: false)")
        targets = self._normalised(blocks)
        state, predicted = self._normalised(self.gru(self._given(blocks[:, :-steps]))[:, -1]), []
        for _ in range(steps):
            block = self._normalised(self.predictor(state))
            predicted.append(block)
            state = self._normalised(self.gru(self._given(block[:, None]), state)[:, -1])
        return torch.stack(predicted, dim=1), targets

    def _given(self, blocks: Tensor) -> Tensor:
        """What the GRU is given of blocks."""
        return functional.relu(blocks) if self.between == "relu" else self._normalised(blocks)

    def _normalised(self, maps: Tensor) -> Tensor:
        """Maps (..., F, S, S), of vectors of length 1 at each place where these are asked for."""
        return maps / (maps.norm(dim=-3, keepdim=True) + FLOOR) if self.between == "unit" else maps


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
        self.dropout = Dropout(dropout)
        _orthogonal(self)

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
                f"blocks and state do not fit the ConvGRU: blocks {tuple(blocks.shape)}, state {tuple(state.shape)},"
                f" and not blocks (B, N, {self.input_size}, S, S), state (B, {self.hidden_size}, S, S)"
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


def _orthogonal(network: nn.Module) -> None:
    """Orthogonal weights, and biases of zero."""
    for name, parameter in network.named_parameters():
        (nn.init.zeros_ if name.endswith("bias") else nn.init.orthogonal_)(parameter)
