"""NICE's coupling network."""

from torch import Tensor, nn


class ReluMLP(nn.Sequential):
    """`hidden_layers` layers of `width` ReLU units and a linear output (NICE §5.1).

    Args:
        inputs, outputs: sizes of the vectors.
        width: units of each hidden layer.
        hidden_layers: how many.
        uniform: where set, weights start uniform within ± this (0.01 in the released code); None keeps
            torch's default.
    """

    def __init__(
        self, inputs: int, outputs: int, width: int, hidden_layers: int, uniform: float | None = None
    ):
        layers: list[nn.Module] = []
        for size in [inputs, *[width] * (hidden_layers - 1)]:
            layers += [nn.Linear(size, width), nn.ReLU()]
        super().__init__(*layers, nn.Linear(width, outputs))
        for layer in self:
            if uniform is not None and isinstance(layer, nn.Linear):
                nn.init.uniform_(layer.weight, -uniform, uniform)
                nn.init.zeros_(layer.bias)

    def forward(self, kept: Tensor, context: Tensor | None = None) -> Tensor:
        return super().forward(kept)
