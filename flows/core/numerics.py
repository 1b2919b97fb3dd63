"""Numerical helpers: sums, precision, noise, gradients and moments."""

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from hashlib import sha256
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from flows.core.once import parts


def sum_per_example(x: Tensor) -> Tensor:
    """Sum over all axes but the first: (batch, ...) to (batch,)."""
    return x.flatten(1).sum(1) if x.dim() > 1 else x


def bounded(x: Tensor, bound: float | None) -> Tensor:
    """Clip the input of a conditioner to [−bound, bound]; None leaves it unchanged.

    The kept part itself is passed on unclipped, so the coupling stays exactly invertible. On the data, where
    activations are normalised, a bound of 6 changes almost nothing. Away from the data, it prevents the
    coupling networks from amplifying each other's outputs, which costs the inverse precision
    (docs/guides/numerics.md).
    """
    return x if bound is None else x.clamp(-bound, bound)


def zero_log_det(x: Tensor) -> Tensor:
    """Log-determinant of a volume-preserving map: zeros of shape (batch,)."""
    return x.new_zeros(x.shape[0])


def full_precision(x: Tensor) -> AbstractContextManager:
    """Disable autocast on the device of `x`.

    Under bf16 autocast the product of two fp32 matrices is bf16, and an inverse computed from it is wrong by
    0.1. Every matrix product on the invertible path is therefore computed in this context.
    """
    return torch.autocast(x.device.type, enabled=False)


WITHOUT_DOUBLE = ("mps",)
"""Types of devices that do not compute in double precision: Apple's GPUs."""


def has_double(device: torch.device) -> bool:
    """Whether a device computes in double precision."""
    return device.type not in WITHOUT_DOUBLE


@cache
def _say_host(kind: str) -> None:
    warnings.warn(f"{kind} has no double precision: what needs it is computed on the CPU", stacklevel=3)


def to_double(x: Tensor) -> Tensor:
    """Convert to double precision, on the host if the device of `x` has none."""
    if has_double(x.device):
        return x.double()
    _say_host(x.device.type)
    return x.cpu().double()


M = TypeVar("M", bound=nn.Module)


def double_copy(module: M) -> M:
    """Copy of a module in double precision, on the host if the module's device has none."""
    copied, device = copy.deepcopy(module), next(module.parameters()).device
    if has_double(device):
        return copied.double()
    _say_host(device.type)
    return copied.cpu().double()


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Compute in the precision of the tensors: no autocast, and no TF32 on GPUs.

    On GPUs, torch computes convolutions in TF32 by default, which has a mantissa of only ten bits. A code
    encoded in TF32 would not decode on another device, so encoding and decoding with a certificate, and
    measurements, run in this context. The previous settings are restored afterwards.
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
    """Put a module in eval mode for the block, and restore the mode of every submodule afterwards.

    With batch statistics, a map acts on the whole batch instead of single examples and has no inverse.
    """
    training = [part for part in parts(module) if part.training]
    for part in training:
        part.__dict__["training"] = False  # attribute assignment would take 20 µs per module
    try:
        yield
    finally:
        for part in training:
            part.__dict__["training"] = True


# Noise --------------------------------------------------------------------------------------------
#
# Row i of the noise depends only on the seed and on the key of row i: not on the batch, the rank or the
# device. Two ranks therefore get the noise that one rank would get for the joined batch, a resumed run
# repeats it, and sample i is the same for every n. Philox is counter-based: its streams are independent
# by construction and cost nothing to start.


def _row(seed: int, key: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, key], dtype=np.uint64)))


def combine_seeds(*parts: int) -> int:
    """Combine several numbers into one 63-bit seed, the same on every machine."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def uniform_hashes(seeds: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Uniform numbers by SplitMix64 (Steele, Lea and Flood 2014): number `key` of a seed's sequence.

    Much faster than a Philox per key, for one number each; 53 bits of the 64 are kept.

    Args:
        seeds: uint64 (n,) or a scalar array.
        keys: uint64 (n,).

    Returns:
        fp64 (n,).
    """
    return (splitmix(seeds, keys) >> np.uint64(11)) / np.float64(2**53)


def splitmix(seeds: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Number `key`, from 0, of the sequence of SplitMix64 with a seed, uint64 (n,); see `uniform_hashes`."""
    state = seeds + (keys + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def seed_from(generator: torch.Generator | None) -> Tensor:
    """Draw the seed of a block of noise from `generator`, or from torch's global generator if it is None.

    Returns:
        Seed, an int64 scalar on the device of the generator.
    """
    device = "cpu" if generator is None else generator.device
    return torch.randint(2**62, (), generator=generator, device=device)


Keys = Sequence[int] | Tensor
"""Keys that identify the rows of a batch: integers, or int64 (batch,)."""


def _noise_rows(seed: Tensor, keys: Tensor, shape: list[int], normal: bool) -> Tensor:
    """Generate fp32 noise on the host."""
    rows, number = np.empty((len(keys), *shape), dtype=np.float32), int(seed)
    for row, key in zip(rows, keys.tolist(), strict=True):
        philox = _row(number, key)
        if normal:
            philox.standard_normal(out=row, dtype=np.float32)
        else:
            philox.random(out=row, dtype=np.float32)
    return torch.from_numpy(rows)


def digests(images: Tensor) -> list[int]:
    """63 bits of the SHA-256 of each image, uint8 (batch, ...): keys that give equal images equal noise."""
    rows = images.cpu().contiguous().flatten(1).numpy()
    return [int.from_bytes(sha256(row.data).digest()[:8]) >> 1 for row in rows]


# Custom op, which torch.compile does not trace. Calling it imports the compiler, so it is called only
# during compilation.
NOISE_SCHEMA = "(Tensor seed, Tensor keys, int[] shape, bool normal) -> Tensor"
"""Signature as torch writes it; older versions do not infer it from `list[int]`."""
_noise_rows_apart = torch.library.custom_op(
    "flows::noise_rows", _noise_rows, mutates_args=(), schema=NOISE_SCHEMA
)


@_noise_rows_apart.register_fake
def _(seed: Tensor, keys: Tensor, shape: list[int], normal: bool) -> Tensor:
    return torch.empty((len(keys), *shape), dtype=torch.float32)


def _rows(seed: int | Tensor, keys: Keys, shape: Sequence[int], like: Tensor, normal: bool) -> Tensor:
    seed = torch.as_tensor(seed, dtype=torch.int64, device="cpu")
    keys = torch.as_tensor(keys, dtype=torch.int64, device="cpu")
    generate = _noise_rows_apart if torch.compiler.is_compiling() else _noise_rows
    return generate(seed, keys, list(shape), normal).to(like)


def uniform_rows(seed: int | Tensor, keys: Keys, shape: Sequence[int], like: Tensor) -> Tensor:
    """Uniform noise in [0, 1), shape (len(keys), *shape), on the device and in the dtype of `like`."""
    return _rows(seed, keys, shape, like, normal=False)


def normal_rows(seed: int | Tensor, keys: Keys, shape: Sequence[int], like: Tensor) -> Tensor:
    """Standard normal noise, shape (len(keys), *shape), on the device and in the dtype of `like`."""
    return _rows(seed, keys, shape, like, normal=True)


# Gradients ----------------------------------------------------------------------------------------


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Context in which the parameters of `modules` get no gradients; their inputs still do."""
    changed = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in changed:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in changed:
            parameter.requires_grad_(True)


# Moments ------------------------------------------------------------------------------------------


class _SumOverRanks(torch.autograd.Function):
    """Sum over ranks. Its gradient is the sum over ranks too: every rank's loss depends on every rank's x."""

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
    """Sum `x` over all ranks, differentiably; a single process returns `x`."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return cast(Tensor, _SumOverRanks.apply(x))
    return x


def batch_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of every channel, over the examples of all ranks.

    The variance is computed in a second pass, because E[x²] − E[x]² loses precision by cancellation in fp32.

    Args:
        x: (batch, channels) or (batch, channels, height, width).

    Returns:
        Mean and variance, each (1, channels) or (1, channels, 1, 1). Gradients flow through both, including
        the reduction over ranks.
    """
    axes = [0, *range(2, x.dim())]
    count = sum_over_ranks(x.new_tensor(float(x.numel() // x.shape[1])))
    mean = sum_over_ranks(x.sum(axes, keepdim=True)) / count
    variance = sum_over_ranks((x - mean).square().sum(axes, keepdim=True)) / count
    return mean, variance
