"""DCGAN networks (Radford, Metz and Chintala 2016, arXiv 1511.06434)."""

from collections.abc import Sequence

from torch import Tensor, nn


class DCGANGenerator(nn.Module):
    """Map z to images in [−1, 1] by transposed convolutions that double the side.

    Each is followed by batch norm and ReLU, the last by tanh.

    Args:
        size: Dimension of z.
        channels: Number of channels of each size, from the first to half the side of the images.
        colours: Number of image channels.
        first: Height and width of the first map.
    """

    def __init__(self, size: int, channels: Sequence[int], colours: int, first: tuple[int, int] = (4, 4)):
        super().__init__()
        steps = [nn.ConvTranspose2d(size, channels[0], first, bias=False)]
        for before, after in zip(channels, channels[1:], strict=False):
            steps.append(nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False))
        self.layers = nn.ModuleList(
            nn.Sequential(step, nn.BatchNorm2d(step.out_channels), nn.ReLU()) for step in steps
        )
        self.to_colours = nn.ConvTranspose2d(channels[-1], colours, 4, 2, 1)
        _initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        x = z[:, :, None, None]
        for layer in self.layers:
            x = layer(x)
        return self.to_colours(x).tanh()


class DCGANCritic(nn.Module):
    """Map images in [−1, 1] to one score each by strided convolutions.

    Leaky ReLU follows each, batch norm all but the first.

    Args:
        channels: Number of channels per layer, coarse to fine, as in the generator.
        colours: Number of image channels.
        last: Height and width of the last map, the first of the generator.
    """

    def __init__(self, channels: Sequence[int], colours: int, last: tuple[int, int] = (4, 4)):
        super().__init__()
        widths = [colours, *reversed(channels)]
        self.layers = nn.ModuleList()
        for i, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):
            parts = [nn.Conv2d(before, after, 4, 2, 1, bias=not i), nn.LeakyReLU(0.2)]
            self.layers.append(nn.Sequential(parts[0], *([nn.BatchNorm2d(after)] if i else []), parts[1]))
        self.output = nn.Conv2d(widths[-1], 1, last)
        _initialise(self)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the activations at all sizes, fine to coarse."""
        activations = []
        for layer in self.layers:
            images = layer(images)
            activations.append(images)
        return activations

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (batch,), larger for images that look real."""
        score: Tensor = self.output(self.features(images)[-1])
        return score.flatten()


def _initialise(network: nn.Module) -> None:
    """Initialise weights from N(0, 0.02²) and batch norm scales from N(1, 0.02²), as in the paper."""
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(part.weight, std=0.02)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, 0.02)
