"""Builders of one Glow and one NICE in this project and in other libraries.

Every Glow has L levels. A level is a squeeze, then K steps of ActNorm, 1×1 convolution and affine coupling on
half of the channels, then a split of half of the channels. The coupling networks have a 3×3, a 1×1 and a 3×3
convolution of the given width, so that all models have the same number of multiply-adds. If a library lacks a
layer, its most similar one is used, and `note` names the difference. `count` includes frozen parameters.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flows.memory import MemoryMode, set_memory
from flows.models.flow import Flow
from flows.models.glow import Glow
from flows.models.nice import NICE


@dataclass(frozen=True)
class Size:
    """Size of a model.

    Attributes:
        depth: Number K of steps per level.
        levels: Number L of levels.
        width: Number of hidden channels of the coupling networks.
        side: Side of the images, in pixels.
        channels: Number of channels of the images.
    """

    depth: int = 16
    levels: int = 3
    width: int = 128
    side: int = 32
    channels: int = 3


class Peer(ABC):
    """Model of one library, with the three operations that are timed. Images are floats in [−½, ½).

    Attributes:
        note: Difference from the model of this project.
        model: Module with the parameters.
    """

    note: str = ""
    model: nn.Module

    @abstractmethod
    def __init__(self, size: Size): ...

    @abstractmethod
    def loss(self, x: Tensor) -> Tensor:
        """Mean negative log-density, differentiable."""

    @abstractmethod
    def encode(self, x: Tensor) -> Any:
        """Encode images to latents, in the format of the library."""

    @abstractmethod
    def decode(self, latents: Any) -> Tensor:
        """Decode latents to images."""

    def count(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self.model.parameters())


class OwnFlow(Peer):
    """Flow of this project."""

    model: Flow

    def loss(self, x: Tensor) -> Tensor:
        return -self.model.log_density(x + 0.5).mean()

    def encode(self, x: Tensor) -> Tensor:
        return self.model.encode(x + 0.5)

    def decode(self, latents: Tensor) -> Tensor:
        return self.model.decode(latents) - 0.5


class Ours(OwnFlow):
    """Glow of this project, without border indicators (the other libraries have none) unless `official`."""

    def __init__(self, size: Size, memory: MemoryMode = "plain", every: int = 4, official: bool = False):
        shape = (size.channels, size.side, size.side)
        self.model = Glow(
            shape, levels=size.levels, depth=size.depth, width=size.width,
            flavour="official" if official else "paper",
        )  # fmt: skip
        set_memory(self.model, memory, every)


class Normflows(Peer):
    """GlowBlock of normflows, as in its CIFAR-10 example."""

    note = "no ActNorm within networks"

    def __init__(self, size: Size):
        import normflows as nf

        bases, merges, flows = [], [], []
        for i in range(size.levels):
            channels = size.channels * 2 ** (size.levels + 1 - i)
            block = [
                nf.flows.GlowBlock(channels, size.width, split_mode="channel", scale=True, use_lu=False)
                for _ in range(size.depth)
            ]
            flows.append([*block, nf.flows.Squeeze()])
            side = size.side // 2 ** (size.levels - i)
            if i:
                merges.append(nf.flows.Merge())
                channels //= 2
            bases.append(nf.distributions.DiagGaussian((channels, side, side)))
        self.model = nf.MultiscaleFlow(bases, flows, merges, class_cond=False)

    def loss(self, x: Tensor) -> Tensor:
        return self.model(x).mean()

    def encode(self, x: Tensor) -> list[Tensor]:
        return self.model.inverse_and_log_det(x)[0]

    def decode(self, latents: list[Tensor]) -> Tensor:
        return self.model.forward_and_log_det(latents)[0]


def conditioner(inputs: int, outputs: int, width: int) -> nn.Sequential:
    """Coupling network in plain PyTorch, as users of the peers write it; the last layer is zero."""
    last = nn.Conv2d(width, outputs, 3, padding=1)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(),
        nn.Conv2d(width, width, 1), nn.ReLU(), last,
    )  # fmt: skip


class Nflows(Peer):
    """Layers of nflows: ActNorm, OneByOneConvolution (LU), AffineCouplingTransform, MultiscaleComposite."""

    note = "1×1 convolutions as LU, the only ones it has"

    def __init__(self, size: Size):
        from nflows.distributions.normal import StandardNormal
        from nflows.flows import Flow
        from nflows.transforms import (
            ActNorm,
            AffineCouplingTransform,
            CompositeTransform,
            MultiscaleCompositeTransform,
            OneByOneConvolution,
            SqueezeTransform,
        )

        def step(channels: int) -> nn.Module:
            mask = torch.ones(channels)
            mask[: channels // 2] = -1
            coupling = AffineCouplingTransform(mask, lambda i, o: _IgnoringContext(i, o, size.width))
            return CompositeTransform([ActNorm(channels), OneByOneConvolution(channels), coupling])

        whole = MultiscaleCompositeTransform(size.levels)
        shape = (size.channels, size.side, size.side)
        for _ in range(size.levels):
            channels, height, width = 4 * shape[0], shape[1] // 2, shape[2] // 2
            steps = [step(channels) for _ in range(size.depth)]
            level = CompositeTransform([SqueezeTransform(), *steps])
            shape = whole.add_transform(level, (channels, height, width)) or shape
        dimensions = size.channels * size.side**2
        self.model = Flow(whole, StandardNormal([dimensions]))
        self.transform = whole

    def loss(self, x: Tensor) -> Tensor:
        return -self.model.log_prob(x).mean()

    def encode(self, x: Tensor) -> Tensor:
        return self.transform(x)[0]

    def decode(self, latents: Tensor) -> Tensor:
        return self.transform.inverse(latents)[0]


class _IgnoringContext(nn.Module):
    def __init__(self, inputs: int, outputs: int, width: int):
        super().__init__()
        self.network = conditioner(inputs, outputs, width)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.network(x)


class FrEIA(Peer):
    """AllInOneBlock of FrEIA, whose 1×1 convolutions are fixed rotations."""

    note = "1×1 convolutions are fixed and have no gradient"

    def __init__(self, size: Size):
        from FrEIA.framework import GraphINN, InputNode, Node, OutputNode
        from FrEIA.modules import AllInOneBlock, IRevNetDownsampling, Split

        node: Any = InputNode(size.channels, size.side, size.side)
        nodes, outputs = [node], []
        for level in range(size.levels):
            node = Node(node, IRevNetDownsampling, {})
            nodes.append(node)
            for _ in range(size.depth):
                options = {
                    "subnet_constructor": lambda i, o: conditioner(i, o, size.width),
                    "permute_soft": True,
                }
                node = Node(node, AllInOneBlock, options)
                nodes.append(node)
            if level + 1 < size.levels:
                split = Node(node, Split, {})
                nodes.append(split)
                outputs.append(OutputNode(split.out1))
                node = split.out0
        outputs.append(OutputNode(node))
        self.model = GraphINN([*nodes, *outputs])

    def loss(self, x: Tensor) -> Tensor:
        latents, log_det = self.model(x)
        energy = sum(0.5 * z.square().flatten(1).sum(1) for z in latents)
        constant = 0.5 * math.log(2 * math.pi) * x[0].numel()
        return (energy + constant - log_det).mean()

    def encode(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.model(x)[0]

    def decode(self, latents: tuple[Tensor, ...]) -> Tensor:
        return self.model(list(latents), rev=True)[0]


class Memcnn(Peer):
    """Reversible wrapper of memcnn around every block of FrEIA: the existing alternative to this project."""

    note = "FrEIA's blocks, each in memcnn's InvertibleModuleWrapper"

    def __init__(self, size: Size):
        import memcnn

        levels, channels, side = [], size.channels, size.side
        for level in range(size.levels):
            channels, side = 4 * channels, side // 2
            blocks = [_WithLogDet(channels, side, size.width) for _ in range(size.depth)]
            levels.append(nn.ModuleList(memcnn.InvertibleModuleWrapper(block) for block in blocks))
            if level + 1 < size.levels:
                channels //= 2
        self.levels = levels
        self.model = nn.ModuleList(levels)

    def loss(self, x: Tensor) -> Tensor:
        latents, log_det = self._run(x)
        energy = sum(0.5 * z.square().flatten(1).sum(1) for z in latents)
        return (energy + 0.5 * math.log(2 * math.pi) * x[0].numel() - log_det).mean()

    def encode(self, x: Tensor) -> list[Tensor]:
        return self._run(x)[0]

    def decode(self, latents: list[Tensor]) -> Tensor:
        x = latents[-1]
        for number, level in reversed(list(enumerate(self.levels))):
            if number + 1 < len(self.levels):
                x = torch.cat([x, latents[number]], 1)
            log_det = x.new_zeros(len(x))
            for step in reversed(level):
                x, log_det = step._fn.inverse(x, log_det)
            x = nn.functional.pixel_shuffle(x, 2)
        return x

    def _run(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        latents, log_det = [], x.new_zeros(len(x))
        for number, level in enumerate(self.levels):
            x = nn.functional.pixel_unshuffle(x, 2)
            for step in level:
                x, log_det = step(x, log_det)
            if number + 1 < len(self.levels):
                # Copies, because the wrapper frees the memory that its inputs are views of.
                x, leaving = (half.clone() for half in x.chunk(2, 1))
                latents.append(leaving)
        return [*latents, x], log_det


class _WithLogDet(nn.Module):
    """Block with the interface of memcnn: (x, log_det) to (z, log_det), and the inverse."""

    def __init__(self, channels: int, side: int, width: int):
        super().__init__()
        from FrEIA.modules import AllInOneBlock

        self.block = AllInOneBlock(
            [(channels, side, side)],
            subnet_constructor=lambda i, o: conditioner(i, o, width),
            permute_soft=True,
        )

    def forward(self, x: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        (z,), change = self.block([x])
        return z, log_det + change

    def inverse(self, z: Tensor, log_det: Tensor) -> tuple[Tensor, Tensor]:
        (x,), change = self.block([z], rev=True)
        return x, log_det + change


PEERS: dict[str, type[Peer]] = {
    "normflows": Normflows, "nflows": Nflows, "FrEIA": FrEIA, "memcnn": Memcnn,
}  # fmt: skip
"""Glow of each library. memcnn encodes and decodes by FrEIA, so these times are not measured separately."""


# NICE, on vectors ---------------------------------------------------------------------------------


class OurNICE(OwnFlow):
    """NICE of this project: additive couplings on odd and even entries."""

    couplings, hidden, width = 4, 5, 1000

    def __init__(self, size: Size):
        shape = (size.channels, size.side, size.side)
        self.model = NICE(
            shape, couplings=self.couplings, hidden_layers=self.hidden, width=self.width, prior="normal"
        )


class Zuko(Peer):
    """NICE of zuko, with additive couplings."""

    note = "no diagonal scaling at the end"

    def __init__(self, size: Size):
        import zuko

        features = size.channels * size.side**2
        self.model = zuko.flows.NICE(
            features,
            transforms=OurNICE.couplings,
            univariate=zuko.transforms.AdditiveTransform,
            shapes=[()],
            hidden_features=(OurNICE.width,) * OurNICE.hidden,
        )

    def loss(self, x: Tensor) -> Tensor:
        return -self.model().log_prob(x.flatten(1)).mean()

    def encode(self, x: Tensor) -> tuple[Tensor, torch.Size]:
        return self.model().transform(x.flatten(1)), x.shape

    def decode(self, latents: tuple[Tensor, torch.Size]) -> Tensor:
        code, shape = latents
        return self.model().transform.inv(code).view(shape)


VECTORS: dict[str, type[Peer]] = {"flows": OurNICE, "zuko": Zuko}
"""NICE on vectors of each library."""
