"""NICE's coupling network."""

from torch import Tensor, nn


class ReluMLP(nn.Sequential):
    """Perceptron of `hidden_layers` layers of `width` ReLU units and a linear output (NICE §5.1).

    Args:
        inputs, outputs: Number of features.
        width: Number of units of each hidden layer.
        hidden_layers: Number of hidden layers.
        uniform: Bound u of the initial weights ~ U(−u, u), with zero biases (0.01 in the released code); None
            keeps PyTorch's default.
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
