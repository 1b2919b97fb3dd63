"""Glow's coupling networks on a CPU: pixels are the rows of a matrix, several networks stand ready together.

Autograd's bookkeeping of some hundred small operations per network, and fresh memory for every large
activation and gradient, cost a CPU a third of a training step. Here every convolution is a product of large
matrices, written into memory that the next network uses again; border marker and bias are columns of the
first product; what concerns weights alone is done for all networks at once. What is computed is what
`GlowNetwork` computes; `tests/test_rows.py` compares them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from flows.networks.scaled import LOGS_FACTOR, marker_windows
from flows.workspace import Workspace

Parameters = Sequence[Tensor | None]
"""Weight, edge weight, bias and logs of each of a network's convolutions; the second has no edge weight."""


class Activations(NamedTuple):
    """What the backward pass of a network needs.

    Attributes:
        around: the input at the nine places around every pixel, or None where it is to be made again.
        hidden, wide: the two layers after their ReLU, (P, width).
    """

    around: Tensor | None
    hidden: Tensor
    wide: Tensor


class GlowRows:
    """n `GlowNetwork`s of one shape: number i maps rows (P, inputs) to rows (P, outputs).

    Args:
        parameters: of each network.
        bound: largest magnitude of the input that it sees, or None.
        workspace: where to compute.
    """

    def __init__(self, parameters: Sequence[Parameters], bound: float | None, workspace: Workspace):
        self.bound, self.workspace = bound, workspace
        w1, e1, b1, l1, w2, _, b2, l2, w3, e3, b3, l3 = (
            _stack(each) for each in zip(*parameters, strict=True)
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
        self.last = last.contiguous().permute(0, 1, 4, 2, 3)  # channels-last, one by one
        self.windows = marker_windows(workspace.images(workspace.rows("wide", self.hidden))[..., 0])
        border = b3.unsqueeze(1)
        if e3 is not None:
            border = border + self.windows @ e3.flatten(2).transpose(1, 2)
        self.border = border * self.gain3.unsqueeze(1)
        biases = [None] * self.number if self.edge3 else self.border[:, 0].unbind()
        self._each = list(
            zip(
                self.first.unbind(), self.second.transpose(1, 2).unbind(), self.second_bias.unbind(),
                self.last.unbind(), biases, self.border.flatten(1).unbind(), strict=True,
            )
        )  # fmt: skip
        self._grads: list[Tensor] = []

    # Forward ----------------------------------------------------------------------------------------

    def run(self, i: int, kept: Tensor, keep: bool) -> tuple[Tensor, Activations]:
        """Network i on `kept` (P, inputs). With `keep` the layers are in memory of their own."""
        space = self.workspace
        around = self._around(kept)
        hidden, wide = (
            torch.empty_like(space.rows(name, self.hidden)) if keep else space.rows(name, self.hidden)
            for name in ("hidden", "wide")
        )
        first, second, second_bias, last, bias, border = self._each[i]
        torch.mm(around, first, out=hidden).relu_()
        torch.addmm(second_bias, hidden, second, out=wide).relu_()
        output = _rows(conv2d(space.images(wide).permute(0, 3, 1, 2), last, bias, padding=1))
        if self.edge3:
            output.view(space.batch, -1).add_(border)
        return output, Activations(None if keep else around, hidden, wide)

    def _around(self, kept: Tensor) -> Tensor:
        """Windows of the bounded input and of the marker, and a column of ones: (P, rows of `first`)."""
        space = self.workspace
        inner, windows, places, around = space.get("input", self._input)
        if self.bound is None:
            inner.copy_(space.images(kept))
        else:
            torch.clamp(space.images(kept), -self.bound, self.bound, out=inner)
        places.copy_(windows)
        return around

    def _input(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Where the bounded input is put, the windows of it, and where these go within `around`."""
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
        """Gradient of `kept`, given that of the output, (P, outputs); the parameters' are held back."""
        space = self.workspace
        around, hidden, wide = activations
        first, second, second_bias, last, border = self._grads = self._grads or self._new_grads()

        # Row p holds the gradients at the nine places around p, to all of which input p has contributed:
        # place d by kernel entry 8 − d.
        padded = space.get("gradient", lambda: space.padded(self.outputs))
        padded[:, 1:-1, 1:-1].copy_(space.images(grad))
        around_grad = space.rows("around gradient", 9 * self.outputs)
        space.images(around_grad).unflatten(3, (3, -1)).copy_(_windows(padded))
        torch.mm(around_grad.T, wide, out=last[i])
        torch.sum(grad.view(-1, border[i].numel()), 0, out=border[i].view(-1))
        over = torch.mm(around_grad, self._last_turned[i], out=space.rows("over", self.hidden))
        _through_relu(over, wide)
        torch.sum(over, 0, out=second_bias[i])
        torch.mm(over.T, hidden, out=second[i])
        under = torch.mm(over, self.second[i], out=space.rows("under", self.hidden))
        _through_relu(under, hidden)
        torch.mm((self._around(kept) if around is None else around).T, under, out=first[i])
        grad_kept = _rows(conv2d(space.images(under).permute(0, 3, 1, 2), self._first_turned[i], padding=1))
        if self.bound is None:
            return grad_kept
        return torch.ops.aten.hardtanh_backward(grad_kept, kept, -self.bound, self.bound)

    def gradients(self, into: Sequence[Tensor | None]) -> None:
        """Write the gradients of all parameters, after `pull_back` of all networks.

        Args:
            into: for every entry of `parameters`, the n of them stacked.
        """
        first, second, second_bias, last, border = self._grads
        w1, e1, b1, l1, w2, _, b2, l2, w3, e3, b3, l3 = into
        assert w1 is not None and b1 is not None and l1 is not None
        assert w2 is not None and b2 is not None and l2 is not None
        assert w3 is not None and b3 is not None and l3 is not None
        n = self.number
        torch.mul((first * self.first).sum(1), LOGS_FACTOR, out=l1)
        torch.mul((second * self.second).sum(2).addcmul_(second_bias, self.second_bias), LOGS_FACTOR, out=l2)
        per_output = (last * self._last_turned).view(n, 9, self.outputs, -1).sum((1, 3))
        torch.mul(per_output.add_((border * self.border).sum(1)), LOGS_FACTOR, out=l3)

        first.mul_(self.gain1.unsqueeze(1))
        taps = first[:, :-1].view(n, 3, 3, -1, self.hidden).permute(0, 4, 3, 1, 2)
        w1.copy_(taps[:, :, : self.inputs])
        if e1 is not None:
            e1.copy_(taps[:, :, -1:])
        b1.copy_(first[:, -1])
        torch.mul(second, self.gain2.unsqueeze(2), out=w2.flatten(2))
        torch.mul(second_bias, self.gain2, out=b2)
        rotate_to = last.mul_(self.gain3.repeat(1, 9).unsqueeze(2)).view(n, 3, 3, self.outputs, -1)
        w3.copy_(rotate_to.flip(1, 2).permute(0, 3, 4, 1, 2))
        border.mul_(self.gain3.unsqueeze(1))
        torch.sum(border, 1, out=b3)
        if e3 is not None:
            e3.copy_((border.transpose(1, 2) @ self.windows).view_as(e3))

    def _new_grads(self) -> list[Tensor]:
        """Room for what `pull_back` finds, and the kernels that it needs, turned around."""
        rotate_to = self.last.flip(3, 4).permute(0, 3, 4, 1, 2)
        self._last_turned = rotate_to.reshape(self.number, -1, self.hidden)
        taps = self.first[:, :-1].view(self.number, 3, 3, -1, self.hidden)[..., : self.inputs, :]
        self._first_turned = taps.flip(1, 2).permute(0, 3, 4, 1, 2).contiguous()
        of = (self.first, self.second, self.second_bias, self._last_turned, self.border)
        return [torch.empty_like(each, memory_format=torch.contiguous_format) for each in of]


# Pieces -------------------------------------------------------------------------------------------


def _stack(each: Sequence[Tensor | None]) -> Tensor | None:
    present = [tensor for tensor in each if tensor is not None]
    return torch.stack(present) if present else None


def _rows(x: Tensor) -> Tensor:
    """The pixels of x (batch, C, H, W) as rows (batch·H·W, C): a view where x is channels-last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _windows(padded: Tensor) -> Tensor:
    """The 3×3 places around every pixel of (batch, H + 2, W + 2, C): (batch, H, W, 3, 3·C), a view."""
    batch, height, width, channels = padded.shape
    image, row, column, _ = padded.stride()
    return padded.as_strided((batch, height - 2, width - 2, 3, 3 * channels), (image, row, column, row, 1))


def _through_relu(grad: Tensor, output: Tensor) -> None:
    """Set `grad` to zero, in place, where the ReLU's output is."""
    torch.ops.aten.threshold_backward.grad_input(grad, output, 0.0, grad_input=grad)
