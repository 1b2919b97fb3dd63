"""Refinement of a code by the gradient of its image's error."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu


class Refiner(nn.Module):
    """Network that updates a code from the gradient of its image's error.

    One step of iterative amortised inference: Marino, Yue and Mandt 2018 (arXiv 1807.09356), equation 6, with
    the previous step as an additional input. At initialisation a step follows the negative gradient, with a
    learned length per channel; three convolutions learn the rest.

    Args:
        depth: Number of channels of the code, a map; a dense code is a map of 1×1.
        size: Height and width of the map.
        hidden: Number of hidden channels.
    """

    def __init__(self, depth: int, size: tuple[int, int], hidden: int = 128):
        super().__init__()
        self.depth, self.size = depth, size
        self.length = nn.Parameter(torch.full((depth, 1, 1), 0.03))
        self.first = nn.Conv2d(3 * depth, hidden, 3, padding=1)
        self.second = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.last = nn.Conv2d(hidden, depth, 1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, code: Tensor, slope: Tensor, before: Tensor) -> Tensor:
        """Return the step, (batch, D).

        Args:
            code: (batch, D), current code.
            slope: (batch, D), gradient of the error at `code`; only its direction counts.
            before: (batch, D), previous step; zeros at first.
        """
        shape = (-1, self.depth, *self.size)
        down = slope.view(shape)
        down = down / (down.square().mean((1, 2, 3), keepdim=True).sqrt() + 1e-12)
        inputs = torch.cat([down, code.view(shape), 10 * before.view(shape)], 1)  # steps are about 0.1
        y = self.last(leaky_relu(self.second(leaky_relu(self.first(inputs), 0.2)), 0.2))
        step: Tensor = 0.1 * y - self.length * down
        return step.flatten(1)


class Refined(NamedTuple):
    """Codes of an encoder and of `times` refinements, with their errors.

    Attributes:
        codes: (times + 1, batch, D), codes of the encoder and after every refinement.
        errors: (times, batch), |x̂ − x|² of all codes but the last, mean over pixels in [−1, 1].
        slopes: (times, batch, D), gradients of the errors with respect to the codes.
    """

    codes: Tensor
    errors: Tensor
    slopes: Tensor


def refine(
    w: Tensor, images: Tensor, refiner: Refiner | None, times: int, generate: Callable[[Tensor], Tensor]
) -> Refined:
    """Refine an encoder's codes (batch, D).

    Gradients reach the encoder and every step of the refiner, but pass neither through the inputs of a step
    nor through the generator, as published.

    Args:
        w: (batch, D), codes of the encoder.
        images: (batch, C, H, W), range [−1, 1].
        refiner: Network that predicts the steps; None for no refinement.
        times: Number of refinements.
        generate: Generator from w to images in [−1, 1].
    """
    codes, step = [w], torch.zeros_like(w)
    errors, slopes = [w.new_empty(0, len(w))], [w.new_empty(0, *w.shape)]
    for _ in range(times if refiner is not None else 0):
        with torch.enable_grad():
            place = codes[-1].detach().requires_grad_()
            error = (generate(place) - images.detach()).square().flatten(1).mean(1)
            (slope,) = torch.autograd.grad(error.sum(), place)
        assert refiner is not None
        step = refiner(place.detach(), slope, step.detach())
        codes.append(codes[-1] + step)
        errors.append(error.detach()[None])
        slopes.append(slope[None])
    return Refined(torch.stack(codes), torch.cat(errors), torch.cat(slopes))
