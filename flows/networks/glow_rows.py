"""Glow's coupling networks on CPUs: pixels are matrix rows, and several networks are prepared at once.

Autograd's bookkeeping for some hundred small operations per network, and new memory for every large
activation and gradient, take a third of a training step on a CPU. Here the first two convolutions are
products of large matrices, written to memory that the next network reuses; border marker and bias are
columns of the first product; operations on weights alone run once for all networks. The results are those
of `GlowNetwork`; `tests/bijections/test_rows.py` compares them.
"""

from collections.abc import Sequence
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from flows.core.torch_internals import hardtanh_backward, through_relu
from flows.core.workspace import Workspace
from flows.networks.scaled import LOGS_FACTOR, marker_windows

Parameters = Sequence[Tensor | None]
"""Weight, edge weight, bias and logs of a network's three convolutions; None for an absent edge weight."""


class Activations(NamedTuple):
    """Activations of a network that its backward pass needs.

    Attributes:
        around: Input at the nine positions around each pixel; None if it is to be recomputed.
        hidden, wide: Outputs of the two hidden layers after their ReLU, (P, width).
    """

    around: Tensor | None
    hidden: Tensor
    wide: Tensor


class GlowRows:
    """n `GlowNetwork`s of the same shape; network i maps rows (P, inputs) to rows (P, outputs).

    Args:
        parameters: Parameters of each network.
        bound: Largest magnitude of the input, which is clipped; None for no clipping.
        workspace: Memory for the computation.
    """

    def __init__(self, parameters: Sequence[Parameters], bound: float | None, workspace: Workspace):
        self.bound, self.workspace = bound, workspace
        w1, e1, b1, l1, w2, _, b2, l2, w3, e3, b3, l3 = (
            _stack(tensors) for tensors in zip(*parameters, strict=True)
        )
        assert w1 is not None and b1 is not None and l1 is not None
        assert w2 is not None and b2 is not None and l2 is not None
        assert w3 is not None and b3 is not None and l3 is not None
        self.gain1, self.gain2, self.gain3 = ((LOGS_FACTOR * logs).exp() for logs in (l1, l2, l3))
        self.edge1, self.edge3 = e1 is not None, e3 is not None
        self.number, self.hidden, self.inputs = w1.shape[:3]
        self.outputs = w3.shape[1]

        # One row per entry (row, column, channel) of a window, and one for the bias.
        taps = w1 if e1 is None else torch.cat([w1, e1], 2)
        taps = taps.permute(0, 3, 4, 2, 1).reshape(self.number, -1, self.hidden)
        self.first = torch.cat([taps, b1.unsqueeze(1)], 1).mul_(self.gain1.unsqueeze(1))
        self.second = w2.flatten(2) * self.gain2.unsqueeze(2)
        self.second_bias = b2 * self.gain2
        last = (w3 * self.gain3[:, :, None, None, None]).permute(0, 1, 3, 4, 2)
        self.last = last.contiguous().permute(0, 1, 4, 2, 3)  # channels-last per network
        # Views are looked up once: a call of the workspace for each would cost more than a small product.
        self._images = partial(_as_images, (workspace.batch, workspace.height, workspace.width))
        self._wide = workspace.rows("wide", self.hidden)
        self._in, self._in_windows, self._places, self._around_in = workspace.get("input", self._input)
        self.windows = marker_windows(self._images(self._wide)[..., 0])
        border = b3.unsqueeze(1)
        if e3 is not None:
            border = border + self.windows @ e3.flatten(2).transpose(1, 2)
        self.border = border * self.gain3.unsqueeze(1)
        biases = [None] * self.number if self.edge3 else self.border[:, 0].unbind()
        self._networks = list(
            zip(
                self.first.unbind(),
                self.second.transpose(1, 2).unbind(),
                self.second_bias.unbind(),
                self.last.unbind(),
                biases,
                self.border.flatten(1).unbind(),
                strict=True,
            )
        )
        self._grads: list[Tensor] = []

    # Forward ----------------------------------------------------------------------------------------

    def run(self, i: int, kept: Tensor, keep: bool) -> tuple[Tensor, Activations]:
        """Apply network i to `kept` (P, inputs); with `keep`, the hidden layers get memory of their own."""
        around = self._around(kept)
        if keep:
            hidden, wide = torch.empty_like(self._wide), torch.empty_like(self._wide)
        else:
            hidden, wide = self._hidden, self._wide
        first, second, second_bias, last, bias, border = self._networks[i]
        torch.mm(around, first, out=hidden).relu_()
        torch.addmm(second_bias, hidden, second, out=wide).relu_()
        images = self._images(wide)
        output = _rows(conv2d(images.permute(0, 3, 1, 2), last, bias, padding=1))
        if self.edge3:
            output.view(len(images), -1).add_(border)
        return output, Activations(None if keep else around, hidden, wide)

    @cached_property
    def _hidden(self) -> Tensor:
        """Output of the first layer where it is not kept; allocated on first use, as training keeps it."""
        return self.workspace.rows("hidden", self.hidden)

    def _around(self, kept: Tensor) -> Tensor:
        """Windows of the bounded input and of the marker, and a column of ones: (P, rows of `first`)."""
        images = self._images(kept)
        if self.bound is None:
            self._in.copy_(images)
        else:
            torch.clamp(images, -self.bound, self.bound, out=self._in)
        self._places.copy_(self._in_windows)
        return self._around_in

    def _input(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Views of the bounded input, of its windows and of their place in `around`, and `around` itself."""
        space, channels = self.workspace, self.inputs + self.edge1
        padded = space.padded(channels, marked=self.edge1)
        columns = 9 * channels + 1
        around = space.like.new_ones(space.pixels, columns)
        places = around.as_strided(
            (space.batch, space.height, space.width, 3, 3 * channels),
            (space.height * space.width * columns, space.width * columns, columns, 3 * channels, 1),
        )
        return padded[:, 1:-1, 1:-1, : self.inputs], _windows(padded), places, around

    # Backward ---------------------------------------------------------------------------------------

    def pull_back(self, i: int, grad: Tensor, kept: Tensor, activations: Activations) -> Tensor:
        """Return the gradient of `kept`, given that of the output, (P, outputs).

        The gradients of the parameters are kept for `gradients`.
        """
        space = self.workspace
        around, hidden, wide = activations
        first, second, second_bias, last, border = self._grads = self._grads or self._new_grads()

        # Row p holds the gradients at the nine positions around p. Input p contributes to all of them, to
        # position d through kernel entry 8 − d.
        padded = space.get("gradient", lambda: space.padded(self.outputs))
        padded[:, 1:-1, 1:-1].copy_(self._images(grad))
        around_grad = space.rows("around gradient", 9 * self.outputs)
        self._images(around_grad).unflatten(3, (3, -1)).copy_(_windows(padded))
        torch.mm(around_grad.T, wide, out=last[i])
        torch.sum(grad.view(-1, border[i].numel()), 0, out=border[i].view(-1))
        grad_wide = torch.mm(around_grad, self._last_flipped[i], out=space.rows("over", self.hidden))
        through_relu(grad_wide, wide)
        torch.sum(grad_wide, 0, out=second_bias[i])
        torch.mm(grad_wide.T, hidden, out=second[i])
        grad_hidden = torch.mm(grad_wide, self.second[i], out=space.rows("under", self.hidden))
        through_relu(grad_hidden, hidden)
        torch.mm((self._around(kept) if around is None else around).T, grad_hidden, out=first[i])
        grad_kept = _rows(
            conv2d(self._images(grad_hidden).permute(0, 3, 1, 2), self._first_flipped[i], padding=1)
        )
        if self.bound is None:
            return grad_kept
        return hardtanh_backward(grad_kept, kept, -self.bound, self.bound)

    def gradients(self, into: Sequence[Tensor | None]) -> None:
        """Write the gradients of all parameters, after `pull_back` of every network.

        Args:
            into: Output tensors in the order of `Parameters`, each stacked over the n networks.
        """
        first, second, second_bias, last, border = self._grads
        w1, e1, b1, l1, w2, _, b2, l2, w3, e3, b3, l3 = into
        assert w1 is not None and b1 is not None and l1 is not None
        assert w2 is not None and b2 is not None and l2 is not None
        assert w3 is not None and b3 is not None and l3 is not None
        n = self.number
        torch.mul((first * self.first).sum(1), LOGS_FACTOR, out=l1)
        torch.mul((second * self.second).sum(2).addcmul_(second_bias, self.second_bias), LOGS_FACTOR, out=l2)
        per_output = (last * self._last_flipped).view(n, 9, self.outputs, -1).sum((1, 3))
        torch.mul(per_output.add_((border * self.border).sum(1)), LOGS_FACTOR, out=l3)

        first.mul_(self.gain1.unsqueeze(1))
        taps = first[:, :-1].view(n, 3, 3, -1, self.hidden).permute(0, 4, 3, 1, 2)
        w1.copy_(taps[:, :, : self.inputs])
        if e1 is not None:
            e1.copy_(taps[:, :, -1:])
        b1.copy_(first[:, -1])
        torch.mul(second, self.gain2.unsqueeze(2), out=w2.flatten(2))
        torch.mul(second_bias, self.gain2, out=b2)
        flipped = last.mul_(self.gain3.repeat(1, 9).unsqueeze(2)).view(n, 3, 3, self.outputs, -1)
        w3.copy_(flipped.flip(1, 2).permute(0, 3, 4, 1, 2))
        border.mul_(self.gain3.unsqueeze(1))
        torch.sum(border, 1, out=b3)
        if e3 is not None:
            e3.copy_((border.transpose(1, 2) @ self.windows).view_as(e3))

    def _new_grads(self) -> list[Tensor]:
        """Allocate the gradients that `pull_back` fills, and store the flipped kernels that it needs."""
        flipped = self.last.flip(3, 4).permute(0, 3, 4, 1, 2)
        self._last_flipped = flipped.reshape(self.number, -1, self.hidden)
        taps = self.first[:, :-1].view(self.number, 3, 3, -1, self.hidden)[..., : self.inputs, :]
        self._first_flipped = taps.flip(1, 2).permute(0, 3, 4, 1, 2).contiguous()
        like = (self.first, self.second, self.second_bias, self._last_flipped, self.border)
        return [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in like]


# Pieces -------------------------------------------------------------------------------------------


def _stack(tensors: Sequence[Tensor | None]) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(present) if present else None


def _rows(x: Tensor) -> Tensor:
    """Pixels of x (batch, C, H, W) as rows (batch·H·W, C); a view if x is channels-last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _as_images(size: tuple[int, int, int], rows: Tensor) -> Tensor:
    """Rows (batch·H·W, C) as images (batch, H, W, C), a view."""
    return rows.view(*size, rows.shape[1])


def _windows(padded: Tensor) -> Tensor:
    """3×3 windows around every pixel of (batch, H + 2, W + 2, C): (batch, H, W, 3, 3·C), a view."""
    batch, height, width, channels = padded.shape
    image, row, column, _ = padded.stride()
    return padded.as_strided((batch, height - 2, width - 2, 3, 3 * channels), (image, row, column, row, 1))
