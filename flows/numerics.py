"""Small numerical ground that everything else stands on: sums, precision, noise, moments."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from flows.once import parts


def sum_per_example(x: Tensor) -> Tensor:
    """Sum everything but the first axis: (batch, ...) to (batch,)."""
    return x.flatten(1).sum(1) if x.dim() > 1 else x


def bounded(x: Tensor, bound: float | None) -> Tensor:
    """What a conditioner sees of the kept part: `x` clipped to [−bound, bound], or `x` where that is None.

    The kept part itself goes on unclipped, so the coupling stays exactly invertible. On the data, where
    activations are normalised, a bound of 6 changes next to nothing; away from them it stops the coupling
    networks from feeding each other ever larger numbers, which costs the inverse its digits
    (docs/numerics.md).
    """
    return x if bound is None else x.clamp(-bound, bound)


def zero_log_det(x: Tensor) -> Tensor:
    """The log-determinant of a volume-preserving map: zeros of shape (batch,)."""
    return x.new_zeros(x.shape[0])


def full_precision(x: Tensor) -> AbstractContextManager:
    """Switch autocast off on the device of `x`.

    Under bf16 autocast the product of two fp32 matrices is bf16, and an inverse computed so is wrong by
    0.1; every matrix product on the invertible path stands inside this block.
    """
    return torch.autocast(x.device.type, enabled=False)


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Compute in the precision that the tensors have: no autocast, and on GPUs no TF32.

    torch lets convolutions run in TF32 on GPUs by default, whose ten bits are not fp32. A code encoded so
    would not decode elsewhere, so encoding for a certificate, decoding one, and measuring stand inside
    this block; the settings found are put back.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module in eval mode for the block, and each of its parts back into its own mode after.

    Batch statistics make a map of single examples one of the whole batch, without an inverse.
    """
    training = [part for part in parts(module) if part.training]
    for part in training:
        part.__dict__["training"] = False  # an assignment asks a dozen questions first, 20 µs for each part
    try:
        yield
    finally:
        for part in training:
            part.__dict__["training"] = True


# Noise --------------------------------------------------------------------------------------------
#
# Row i of the noise depends on one seed and on the key of row i, on nothing else: not on the batch it
# is drawn in, the rank that draws it, or the device. Two ranks therefore see the noise that one rank
# would see for the joined batch, a resumed run repeats it, and sample i is the same for every n.
# Philox is counter based: its streams are independent by construction and cost nothing to start.


def _row(seed: int, key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, key], dtype=np.uint64)))


def combine_seeds(*parts: int) -> int:
    """One 63-bit seed from several numbers; the same on every machine."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def draw_seed(generator: torch.Generator | None) -> Tensor:
    """Draw the seed of a block of noise from `generator` (from torch's global one where it is None).

    Returns:
        an int64 scalar, on the host unless the generator is elsewhere.
    """
    device = "cpu" if generator is None else generator.device
    return torch.randint(2**62, (), generator=generator, device=device)


Keys = Sequence[int] | Tensor
"""Identities of the rows of a batch: integers, or int64 (batch,)."""


def _noise_rows(seed: Tensor, keys: Tensor, shape: list[int], normal: bool) -> Tensor:
    """Noise on the host, fp32."""
    rows, number = np.empty((len(keys), *shape), dtype=np.float32), int(seed)
    for row, key in zip(rows, keys.tolist(), strict=True):
        philox = _row(number, key)
        if normal:
            philox.standard_normal(out=row, dtype=np.float32)
        else:
            philox.random(out=row, dtype=np.float32)
    return torch.from_numpy(rows)


# An operation of its own, which torch.compile need not look into. Called, it imports the compiler.
_noise_rows_apart = torch.library.custom_op("flows::noise_rows", _noise_rows, mutates_args=())


@_noise_rows_apart.register_fake
def _(seed: Tensor, keys: Tensor, shape: list[int], normal: bool) -> Tensor:
    return torch.empty((len(keys), *shape), dtype=torch.float32)


def _rows(seed: int | Tensor, keys: Keys, shape: Sequence[int], like: Tensor, normal: bool) -> Tensor:
    seed = torch.as_tensor(seed, dtype=torch.int64, device="cpu")
    keys = torch.as_tensor(keys, dtype=torch.int64, device="cpu")
    draw = _noise_rows_apart if torch.compiler.is_compiling() else _noise_rows
    return draw(seed, keys, list(shape), normal).to(like)


def uniform_rows(seed: int | Tensor, keys: Keys, shape: Sequence[int], like: Tensor) -> Tensor:
    """Uniform noise in [0, 1), shape (len(keys), *shape), on the device and in the dtype of `like`."""
    return _rows(seed, keys, shape, like, normal=False)


def normal_rows(seed: int | Tensor, keys: Keys, shape: Sequence[int], like: Tensor) -> Tensor:
    """Standard normal noise, shape (len(keys), *shape), on the device and in the dtype of `like`."""
    return _rows(seed, keys, shape, like, normal=True)


# Gradients ----------------------------------------------------------------------------------------


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """A block in which the parameters of modules get no gradients; what goes through them does."""
    changed = [each for module in modules for each in module.parameters() if each.requires_grad]
    for parameter in changed:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in changed:
            parameter.requires_grad_(True)


# Moments ------------------------------------------------------------------------------------------


class _SumOverRanks(torch.autograd.Function):
    """The sum's gradient is the sum of the ranks' gradients: every rank's loss sees every rank's x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


def sum_over_ranks(x: Tensor) -> Tensor:
    """Sum `x` over all ranks, differentiably; `x` itself where only one process runs."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return cast(Tensor, _SumOverRanks.apply(x))
    return x


def batch_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of every channel, over the examples of all ranks.

    Two passes: the second subtracts the mean first, because E[x²] − E[x]² cancels in fp32.

    Args:
        x: (batch, channels) or (batch, channels, height, width).

    Returns:
        mean and variance, each of shape (1, channels) or (1, channels, 1, 1). Gradients pass through
        both, the reduction over ranks included.
    """
    axes = [0, *range(2, x.dim())]
    count = sum_over_ranks(x.new_tensor(float(x.numel() // x.shape[1])))
    mean = sum_over_ranks(x.sum(axes, keepdim=True)) / count
    variance = sum_over_ranks((x - mean).square().sum(axes, keepdim=True)) / count
    return mean, variance
