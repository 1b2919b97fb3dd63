"""Each mistake that other code bases have made, planted: the battery must see it, and name the law."""

import copy

import pytest
import torch
from torch import Tensor, nn

from flows.bijections.base import Bijection
from flows.bijections.chain import Chain
from flows.bijections.coupling import AffineCoupling
from flows.bijections.linear import Whitening
from flows.bijections.permutation import Reverse
from flows.bijections.scaling import ActNorm, DiagonalScaling
from flows.testing import Case, LawBroken, broken_laws, check_bijection


class Sound(Bijection):
    """A small affine coupling without a mistake; the planted ones change one thing each."""

    def __init__(self):
        super().__init__()
        self.coupling = AffineCoupling.examples()["vector, two-sided"].bijection

    def forward(self, x: Tensor, context: Tensor | None = None):
        return self.coupling(x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None):
        return self.coupling.inverse(z, context)


class HalvedLogDet(Sound):
    """The error is the same in both directions, so that the two still sum to zero."""

    def forward(self, x, context=None):
        z, log_det = super().forward(x, context)
        return z, log_det / 2

    def inverse(self, z, context=None):
        x, log_det = super().inverse(z, context)
        return x, log_det / 2


class NoGradInverse(Sound):
    @torch.no_grad()
    def inverse(self, z, context=None):
        return super().inverse(z, context)


class ScalarLogDet(Sound):
    def forward(self, x, context=None):
        z, log_det = super().forward(x, context)
        return z, log_det.mean()


class BatchMixedLogDet(Sound):
    def forward(self, x, context=None):
        z, log_det = super().forward(x, context)
        return z, log_det.mean().expand(len(x))


class WrongSign(Sound):
    def inverse(self, z, context=None):
        x, log_det = super().inverse(z, context)
        return x, -log_det


class InPlace(Sound):
    def forward(self, x, context=None):
        with torch.no_grad():
            x += 0.1
        return super().forward(x, context)


class Random(Sound):
    def forward(self, x, context=None):
        z, log_det = super().forward(x, context)
        return z + 1e-3 * torch.randn_like(z), log_det


class DeadParameter(Sound):
    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(3))


class ForgetfulActNorm(ActNorm):
    """The flag is a plain attribute, as in y0ast/Glow-PyTorch: it initialises again after loading."""

    def __init__(self, channels: int):
        super().__init__(channels)
        self.ready = False

    def forward(self, x, context=None):
        if self.training and not self.ready:
            with torch.no_grad():
                self.set_from(x)
            self.ready = True
        return super().forward(x, context)


class UnsavedPermutation(Bijection):
    """The order is random at construction and no buffer, as in y0ast/Glow-PyTorch."""

    constant_log_det = True

    def __init__(self, channels: int):
        super().__init__()
        self.order = torch.randperm(channels)

    def forward(self, x, context=None):
        return x[:, self.order], x.new_zeros(len(x))

    def inverse(self, z, context=None):
        return z[:, self.order.argsort()], z.new_zeros(len(z))


class FalsePromise(Sound):
    constant_log_det = True


class HalfPrecision(Bijection):
    """A matrix product under autocast: an inverse in bf16."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(5) + 0.3 * torch.randn(5, 5).triu(1))

    def forward(self, x, context=None):
        log_det = torch.linalg.slogdet(self.weight).logabsdet.expand(len(x))
        return (x @ self.weight).to(x.dtype), log_det

    def inverse(self, z, context=None):
        log_det = torch.linalg.slogdet(self.weight).logabsdet.expand(len(z))
        return (z @ torch.linalg.inv(self.weight)).to(z.dtype), -log_det


class SinglePrecision(Sound):
    """Computes in fp32 whatever it is given, as FrEIA's permutation does."""

    def forward(self, x, context=None):
        z, log_det = copy.deepcopy(self.coupling).float()(x.float())
        return z.to(x.dtype), log_det.to(x.dtype)

    def inverse(self, z, context=None):
        x, log_det = copy.deepcopy(self.coupling).float().inverse(z.float())
        return x.to(z.dtype), log_det.to(z.dtype)


class DetachedLogDet(Sound):
    """The right value, cut off from autograd: training would maximise the prior alone."""

    def forward(self, x, context=None):
        z, log_det = super().forward(x, context)
        return z, log_det.detach()


class Singular(Sound):
    """A Jacobian of determinant 0, whose logarithm is no number to compare with."""

    def forward(self, x, context=None):
        return x * torch.tensor([1.0, 1, 1, 1, 0], dtype=x.dtype), x.new_full((len(x),), 7.0)


class Dropped(Sound):
    """Something else in training mode."""

    def forward(self, x, context=None):
        z, log_det = super().forward(x, context)
        return nn.functional.dropout(z, 0.5, self.training), log_det


class Raises(Sound):
    def inverse(self, z, context=None):
        raise AssertionError("no inverse today")


class HalvedPullBack(Sound):
    """Gradients by inversion that are wrong, although values and autograd's gradients are right."""

    def pull_back(self, z, context, grad_z, grad_log_det):
        pulled = super().pull_back(z, context, grad_z, grad_log_det)
        return pulled._replace(grad_x=pulled.grad_x / 2)


class ForgetfulPullBack(Sound):
    """Gradients by inversion that leave out the log-determinant."""

    def pull_back(self, z, context, grad_z, grad_log_det):
        return super().pull_back(z, context, grad_z, torch.zeros_like(grad_log_det))


PLANTED = {
    "log_det": [HalvedLogDet, WrongSign, DetachedLogDet, Singular, NoGradInverse],
    "gradients": [NoGradInverse, DeadParameter],
    "shapes": [ScalarLogDet],
    "examples_are_independent": [BatchMixedLogDet],
    "is_pure": [InPlace, Random, Dropped],
    "constant_log_det": [FalsePromise],
    "round_trip": [SinglePrecision, Singular, Raises],
    "execution": [HalvedPullBack, ForgetfulPullBack],
}


@pytest.mark.parametrize(("law", "cls"), [(law, cls) for law, classes in PLANTED.items() for cls in classes])
def test_planted_error_breaks_its_law(law: str, cls: type[Bijection]):
    assert law in broken_laws(Case(cls, (5,)))


class ForgetfulWhitening(Whitening):
    """Lost initialisation of statistics in buffers."""

    def __init__(self, size: int):
        super().__init__(size, epsilon=0.1)
        self.ready = False

    def forward(self, x, context=None):
        if self.training and not self.ready:
            self.set_from(x)
            self.ready = True
        return super().forward(x, context)


@pytest.mark.parametrize(
    "build",
    [lambda: ForgetfulActNorm(4), lambda: UnsavedPermutation(4), lambda: ForgetfulWhitening(4)],
)
def test_state_that_is_not_saved_is_seen(build):
    assert "saved_is_loaded" in broken_laws(Case(build, (4,)))


def test_half_precision_product_is_seen():
    assert "autocast" in broken_laws(Case(HalfPrecision, (5,)))


def test_the_sound_one_passes():
    check_bijection(Sound, (5,))


def test_a_planted_error_is_seen_inside_a_chain():
    with pytest.raises(LawBroken, match=r"log_det: log_det of forward differs from autograd's: by"):
        check_bijection(lambda: Chain(DiagonalScaling(5), HalvedLogDet(), Reverse()), (5,))
