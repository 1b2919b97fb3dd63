"""DCGAN's networks (Radford, Metz and Chintala 2016, arXiv 1511.06434)."""

from collections.abc import Sequence

from torch import Tensor, nn


class DCGANGenerator(nn.Module):
    """z to images in [−1, 1]: transposed convolutions that double the side, batch norm, ReLU; tanh.

    Args:
        size: of z.
        channels: of the layers at 4×4, 8×8, … up to half of the images' side.
        colours: channels of the images.
    """

    def __init__(self, size: int, channels: Sequence[int], colours: int):
        super().__init__()
        steps = [nn.ConvTranspose2d(size, channels[0], 4, bias=False)]
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
    """Images in [−1, 1] to one number each: strided convolutions, batch norm but for the first, leaky ReLU.

    Args:
        channels: as the generator has them, 4×4 first.
        colours: channels of the images.
    """

    def __init__(self, channels: Sequence[int], colours: int):
        super().__init__()
        widths = [colours, *reversed(channels)]
        self.layers = nn.ModuleList()
        for i, (before, after) in enumerate(zip(widths, widths[1:], strict=False)):
            parts = [nn.Conv2d(before, after, 4, 2, 1, bias=not i), nn.LeakyReLU(0.2)]
            self.layers.append(nn.Sequential(parts[0], *([nn.BatchNorm2d(after)] if i else []), parts[1]))
        self.output = nn.Conv2d(widths[-1], 1, 4)
        _initialise(self)

    def features(self, images: Tensor) -> list[Tensor]:
        """Activations of all sizes, fine to coarse."""
        found = []
        for layer in self.layers:
            images = layer(images)
            found.append(images)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """(batch,), larger for images that look real."""
        score: Tensor = self.output(self.features(images)[-1])
        return score.flatten()


def _initialise(network: nn.Module) -> None:
    """Weights ~ N(0, 0.02²), scales of batch norms ~ N(1, 0.02²), as in the paper."""
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(part.weight, std=0.02)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 1.0, 0.02)
