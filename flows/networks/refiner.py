"""What refines a code by looking at the image that it draws, and at the slope of its error."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu


class Refiner(nn.Module):
    """How to move a code, given the slope of its image's error: one step of iterative amortised inference.

    Marino, Yue and Mandt 2018 (arXiv 1807.09356), equation 6, with the last step as a further input. At first
    a step goes down the slope, by a learned length in every channel; three convolutions learn the rest.

    Args:
        depth: channels of the code, a map; a dense one is a map of 1×1.
        side: of the map.
        hidden: channels within.
    """

    def __init__(self, depth: int, side: int, hidden: int = 128):
        super().__init__()
        self.depth, self.side = depth, side
        self.length = nn.Parameter(torch.full((depth, 1, 1), 0.03))
        self.first = nn.Conv2d(3 * depth, hidden, 3, padding=1)
        self.second = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.last = nn.Conv2d(hidden, depth, 1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, code: Tensor, slope: Tensor, before: Tensor) -> Tensor:
        """The step, (batch, D).

        Args:
            code: where it stands, (batch, D).
            slope: gradient of the error there, of which only the direction counts.
            before: the last step, zeros at first.
        """
        shape = (-1, self.depth, self.side, self.side)
        down = slope.view(shape)
        down = down / (down.square().mean((1, 2, 3), keepdim=True).sqrt() + 1e-12)
        seen = torch.cat([down, code.view(shape), 10 * before.view(shape)], 1)  # steps are about 0.1
        y = self.last(leaky_relu(self.second(leaky_relu(self.first(seen), 0.2)), 0.2))
        step: Tensor = 0.1 * y - self.length * down
        return step.flatten(1)


class Refined(NamedTuple):
    """What an encoder and `times` refinements find.

    Attributes:
        codes: (times + 1, batch, D), of the encoder and after every refinement.
        errors: (times, batch), |x̂ − x|² of all codes but the last, a mean over pixels in [−1, 1].
        slopes: (times, batch, D), the errors' gradients by the codes.
    """

    codes: Tensor
    errors: Tensor
    slopes: Tensor


def refine(
    w: Tensor, images: Tensor, refiner: Refiner | None, times: int, draw: Callable[[Tensor], Tensor]
) -> Refined:
    """Refine an encoder's codes (batch, D).

    Gradients reach the encoder and every step of the refiner, but go through neither what a step was given
    nor the generator, as published.

    Args:
        w: of the encoder.
        images: in [−1, 1].
        refiner: None where there is nothing to refine.
        times: how many steps.
        draw: w to images in [−1, 1].
    """
    codes, step = [w], torch.zeros_like(w)
    errors, slopes = [w.new_empty(0, len(w))], [w.new_empty(0, *w.shape)]
    for _ in range(times if refiner is not None else 0):
        with torch.enable_grad():
            place = codes[-1].detach().requires_grad_()
            error = (draw(place) - images.detach()).square().flatten(1).mean(1)
            (slope,) = torch.autograd.grad(error.sum(), place)
        assert refiner is not None
        step = refiner(place.detach(), slope, step.detach())
        codes.append(codes[-1] + step)
        errors.append(error.detach()[None])
        slopes.append(slope[None])
    return Refined(torch.stack(codes), torch.cat(errors), torch.cat(slopes))
