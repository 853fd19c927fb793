"""ViCC's own step against values that the released code gave on fixed rows: which views there are, what carries a
gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.conformance.reference import tensors
from tests.train.steps import Views
from train.methods.vicc import ViCC, ViCCSettings

VALUE, GRADIENT = ({"rtol": 0, "atol": atol} for atol in (2e-5, 1e-4))


class Given(nn.Module):
    """In the place of a network: the rows of a clip, which is their number."""

    def __init__(self, rows: dict[int, Tensor]) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, clips: Tensor) -> Tensor:
        return functional.normalize(self.rows[int(clips[0, 0])], dim=1)


def step(
    rows: dict[str, list[Tensor]], prototypes: Tensor, gradient: str, streams: tuple[str, ...]
) -> tuple[ViCC, Tensor]:
    """The method, and its loss, of rows of two clips in each stream; the first stream is trained."""
    size, dim = rows[streams[0]][0].shape
    settings = ViCCSettings(
        stream=streams[0],
        other={"stream": streams[1]} if len(streams) > 1 else None,
        backbone="small",
        dim=dim,
        prototypes=len(prototypes),
        queue=0 if size >= len(prototypes) else -(-len(prototypes) // size) * size,
        gradient_views={"nosync": "both", "shuffle": "first"}[gradient],
    )
    method = ViCC(settings, dict.fromkeys(streams, 3))
    method.prototypes.weight.data.copy_(prototypes)
    numbers = {stream: [2 * place, 2 * place + 1] for place, stream in enumerate(streams)}
    method.network = Given(dict(zip(numbers[streams[0]], rows[streams[0]], strict=True)))
    if len(streams) > 1:
        method.other = Given(dict(zip(numbers[streams[1]], rows[streams[1]], strict=True)))
    clips = {stream: [torch.full((size, 1), number) for number in numbers[stream]] for stream in streams}
    loss = method.training_step(Views(clips), 0)["loss"]  # type: ignore[arg-type]
    loss.backward()
    return method, loss.detach()


@pytest.mark.parametrize("gradient", ["nosync", "shuffle"])
def test_a_step_of_one_stream(gradient: str) -> None:
    values = tensors("vicc_single_loss")
    raw = values["features_raw"].requires_grad_()
    method, loss = step({"rgb": list(raw.unbind(dim=1))}, values["prototypes"], gradient, ("rgb",))
    torch.testing.assert_close(loss, values[f"{gradient}_loss"], **VALUE)
    torch.testing.assert_close(raw.grad, values[f"{gradient}_grad_features_raw"], **GRADIENT)
    torch.testing.assert_close(method.prototypes.weight.grad, values[f"{gradient}_grad_prototypes"], **GRADIENT)


@pytest.mark.parametrize("main", ["fwd", "rev"])
@pytest.mark.parametrize("gradient", ["nosync", "shuffle"])
def test_a_step_across_streams(main: str, gradient: str) -> None:
    """Forwards RGB is trained, in reverse flow. Blocks are clips 1 and 2, each with rows of RGB and of flow."""
    values, case = tensors("vicc_cross_loss"), f"{main}_{gradient}"
    blocks = [values[f"block{clip}"].requires_grad_() for clip in (1, 2)]
    rows = {stream: [block[:, place] for block in blocks] for place, stream in enumerate(("rgb", "flow"))}
    streams = ("rgb", "flow") if main == "fwd" else ("flow", "rgb")
    method, loss = step(rows, values["prototypes"], gradient, streams)
    torch.testing.assert_close(loss, values[f"{case}_loss"], **VALUE)
    torch.testing.assert_close(method.prototypes.weight.grad, values[f"{case}_grad_prototypes"], **GRADIENT)
    for clip, block in enumerate(blocks):
        found = torch.zeros_like(block) if block.grad is None else block.grad
        torch.testing.assert_close(found, values[f"{case}_grad_block{clip + 1}"], **GRADIENT)
