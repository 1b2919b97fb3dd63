"""Adversarial training, which alternates between critic and generator."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from flows import images as pixels
from flows.core.bounds import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Share
from flows.core.numerics import Keys, combine_seeds, frozen, normal_rows, uniform_rows
from flows.data.base import Batch, Split
from flows.errors import UserError
from flows.metrics.distribution import sliced_wasserstein
from flows.metrics.perceptual import PooledFeatures, kernel_distance
from flows.metrics.protocols import protocol
from flows.models.base import LatentModel
from flows.models.gan import GAN
from flows.models.styles import StyleGenerator
from flows.storage.stored import StoredModule
from flows.training.batch_norm import recalibrate_batch_norm
from flows.training.diffaugment import AugmentationName, diffaugment
from flows.training.objectives.growing import size_after
from flows.training.phase import Evaluation, Objective, Phase
from flows.training.validation import generate

ScoreName = Literal["swd", "kid"]
LossName = Literal["non-saturating", "wgan-gp", "hinge"]


class CriticOnBoth(nn.Module):
    """Wrapped module that applies the critic to real and to generated images, separately, in one call."""

    def __init__(self, critic: nn.Module):
        super().__init__()
        self.critic = critic

    def forward(self, real: Tensor, generated: Tensor, *labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.critic(real, *labels), self.critic(generated, *labels)


class Adversarial(Objective):
    """GAN objective, with one phase for the critic and one for the generator.

    Args:
        loss: Name of the loss: `non-saturating` (Goodfellow et al. 2014), `wgan-gp` (Gulrajani et al. 2017,
            arXiv 1704.00028) or `hinge` (Lim and Ye 2017; BigGAN).
        r1: Weight γ of the penalty γ/2·|∇D|² on real images (Mescheder et al. 2018, arXiv 1801.04406); while
            images are still small, it is multiplied by their share of the pixels. None uses 3 for
            `non-saturating` and 0 for the others, as published.
        r1_every: Interval n of the R1 penalty, which is applied every n-th step with n times the weight
            ("lazy" regularisation, StyleGAN2).
        gradient_penalty: Weight λ of the gradient penalty of `wgan-gp`.
        drift: Weight of D(real)² in `wgan-gp` (PGGAN, appendix A.1).
        critic_lr: Learning rate of the critic; None uses the run's.
        critic_steps: Number of critic steps per generator step.
        mixing: Share of images with two styles (StyleGAN), for models with styles.
        augment: DiffAugment's augmentations of all inputs of the critic.
        growing: Images shown at 4×4, 8×8, … before the next size (PGGAN, section 2), for models that grow; 0
            skips a size. Nothing is exported before the final size is reached. If they are not square, the
            first size is that of the generator's first map.
        fading: Share of these images during which a new size fades in.
        score: Score on held-out images that selects the exported model: `swd`, sliced Wasserstein distance,
            or `kid`, which is closer to human perception and needs the extra `metrics`.
    """

    trains = GAN

    def __init__(
        self,
        loss: LossName = "non-saturating",
        r1: NonNegativeFloat | None = None,
        r1_every: PositiveInt = 8,
        gradient_penalty: NonNegativeFloat = 10.0,
        drift: NonNegativeFloat = 1e-3,
        critic_lr: PositiveFloat | None = None,
        critic_steps: PositiveInt = 1,
        mixing: Share = 0.0,
        augment: tuple[AugmentationName, ...] = (),
        growing: tuple[NonNegativeInt, ...] = (),
        fading: NonNegativeFloat = 0.5,
        score: ScoreName = "swd",
    ):
        self.loss: LossName = loss
        self.r1 = (3.0 if loss == "non-saturating" else 0.0) if r1 is None else r1
        self.r1_every = r1_every
        self.gradient_penalty, self.drift = gradient_penalty, drift
        self.critic_lr, self.critic_steps = critic_lr, critic_steps
        self.mixing, self.augment = mixing, tuple(augment)
        self.growing, self.fading = tuple(growing), fading
        self.features = PooledFeatures() if score == "kid" else None

    def check(self, model: StoredModule, images: int) -> None:
        super().check(model, images)
        sizes = cast(GAN, model).sizes
        if self.growing and len(self.growing) != sizes - 1:
            raise UserError(
                f"objective.growing: {type(model).__name__} has {sizes} sizes, expected {sizes - 1} numbers "
                f"of images, one for each size but the last; got {list(self.growing)}"
            )
        if self.growing and size_after(images, self.growing, self.fading) < sizes:
            raise UserError(
                f"training.images: {images:,} images end before the model has its final size, and nothing "
                f"would be exported; objective.growing {list(self.growing)} with fading {self.fading:g} "
                f"needs more than {sum(self.growing) + int(self.fading * self.growing[-1]):,}"
            )

    def leaves_parameters_out(self, model: StoredModule) -> bool:
        # A growing model has colour layers for every size and uses those of one or two sizes.
        return cast(GAN, model).sizes > 1

    def advance(self, model: StoredModule, shown: int) -> None:
        cast(GAN, model).grow(size_after(shown, self.growing, self.fading))

    def is_complete(self, model: StoredModule) -> bool:
        gan = cast(GAN, model)
        return gan.size == gan.sizes

    def parts(self, model: StoredModule) -> list[nn.Module]:
        gan = cast(GAN, model)
        return [gan.generator, CriticOnBoth(gan.critic)]

    def phases(self, model: StoredModule, parts: Sequence[nn.Module]) -> list[Phase]:
        gan, (generator, critic) = cast(GAN, model), parts
        return [
            Phase(
                "critic",
                list(gan.critic.parameters()),
                self.critic_loss(gan, critic),
                critic,
                lr=self.critic_lr,
            ),
            Phase(
                "generator",
                list(gan.generator.parameters()),
                self.generator_loss(gan, generator),
                generator,
                every=self.critic_steps,
            ),
        ]

    # Losses ---------------------------------------------------------------------------------------

    def critic_loss(
        self, gan: GAN, critic: nn.Module, generate: Callable[[Batch, int], Tensor] | None = None
    ) -> Any:
        """Create the critic's loss on real and generated images, with gradient penalties.

        Args:
            gan: Bare model.
            critic: Wrapped critic.
            generate: Function from a batch and a seed to images in [−1, 1] that count as generated; None uses
                the generator.
        """

        def loss(batch: Batch, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
            seed = combine_seeds(number_from(generator), 0)
            with torch.no_grad():
                generated = (
                    generate(batch, seed) if generate else self.generate(gan, gan.generator, batch, seed)
                )
            real = self.real_images(gan, batch, seed)
            penalised = self.r1 > 0 and step % self.r1_every == 0
            real.requires_grad_(penalised)
            seen = (
                diffaugment(real, self.augment, combine_seeds(seed, 1), batch.keys),
                diffaugment(generated, self.augment, combine_seeds(seed, 6), batch.keys),
            )
            labels = label_arguments(gan, batch)
            on_real, on_generated = critic(*seen, *labels)
            total, logs = self.separate(on_real, on_generated), {}
            if penalised:
                penalty = squared_gradient(on_real, real).mean()
                total = total + self.r1 / 2 * self.r1_every * share_of_pixels(gan, real) * penalty
                logs["r1"] = penalty
            if self.loss == "wgan-gp":
                total = total + self.drift * on_real.square().mean()
                total = total + self.gradient_penalty * self.slope_penalty(
                    gan, *seen, labels, seed, batch.keys
                )
            return total, {**logs, "real": on_real.mean(), "generated": on_generated.mean()}

        return loss

    def generator_loss(self, gan: GAN, part: nn.Module) -> Any:
        """Create the generator's loss on generated images, with the critic frozen."""

        def loss(batch: Batch, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
            seed = combine_seeds(number_from(generator), 2)
            generated = self.generate(gan, part, batch, seed)
            with frozen(gan.critic):
                seen = diffaugment(generated, self.augment, combine_seeds(seed, 1), batch.keys)
                score = gan.critic(seen, *label_arguments(gan, batch))
            return self.fool(score), {}

        return loss

    def fool(self, score: Tensor) -> Tensor:
        """Loss of the generator, given the critic's scores of its images."""
        return (softplus(-score) if self.loss == "non-saturating" else -score).mean()

    def separate(self, on_real: Tensor, on_generated: Tensor) -> Tensor:
        """Loss of the critic, without penalties."""
        if self.loss == "non-saturating":
            return softplus(-on_real).mean() + softplus(on_generated).mean()
        if self.loss == "hinge":
            return relu(1 - on_real).mean() + relu(1 + on_generated).mean()
        return on_generated.mean() - on_real.mean()

    def slope_penalty(
        self, gan: GAN, real: Tensor, generated: Tensor, labels: tuple[Tensor, ...], seed: int, keys: Keys
    ) -> Tensor:
        """Gradient penalty (|∇D| − 1)² between real and generated images, ∇ by an image of full size.

        A pixel of a small image stands for several pixels of full size.
        """
        share = uniform_rows(seed, keys, (1, 1, 1), real)
        between = (real + share * (generated - real)).detach().requires_grad_()
        squared = squared_gradient(gan.critic(between, *labels), between)
        return ((share_of_pixels(gan, between) * squared).sqrt() - 1).square().mean()

    def real_images(self, gan: GAN, batch: Batch, seed: int) -> Tensor:
        """Real images for the critic, in [−1, 1]."""
        return gan.shrunk(pixels.to_signed(batch.images, gan.bins))

    def generate(self, gan: GAN, generator: nn.Module, batch: Batch, seed: int) -> Tensor:
        """Generate one image per image of the batch; its code depends on the seed and the image's key."""
        z = self.sample_prior(gan, batch, seed)
        if not (self.mixing and isinstance(gan.generator, StyleGenerator)):
            return cast(Tensor, generator(z, *label_arguments(gan, batch)))
        second = self.sample_prior(gan, batch, combine_seeds(seed, 4))
        synthesis = gan.generator.synthesis
        layers, places = len(synthesis.layers), max(2, synthesis.layers_in_use) - 1
        where, whether = uniform_rows(combine_seeds(seed, 7), batch.keys, (2,), z).unbind(1)
        crossover = 1 + (where * places).long().clamp(max=places - 1)
        return cast(Tensor, generator(z, second, crossover.masked_fill(whether >= self.mixing, layers)))

    def sample_prior(self, gan: GAN, batch: Batch, seed: int) -> Tensor:
        """Sample a code of z for each image of the batch."""
        like = torch.empty(0, device=batch.images.device)
        return normal_rows(combine_seeds(seed, 3), batch.keys, gan.spaces["z"].shape, like)

    # Evaluation -----------------------------------------------------------------------------------

    def evaluate(self, model: StoredModule, held_out: Split, images: int | None, shown: int) -> Evaluation:
        held = held_out.first(images)
        gan = cast(GAN, model)
        recalibrate_batch_norm(gan, gan.generator, held.labels)
        real = held.images
        generated = generate(gan, len(real), 1.0, seed=1, labels=held.labels)
        distances = sliced_wasserstein(real, generated)
        values = {f"validation/swd_{name}": value for name, value in distances.items()}
        line = "sliced Wasserstein " + " ".join(f"{name}: {value:.1f}" for name, value in distances.items())
        score = distances["mean"]
        if self.features is not None:
            score = kernel_distance(self.features.held_out(real), self.features(generated))
            name = protocol("kid", len(real), self.features.network.short, 1.0)
            values[f"validation/{name}"] = score
            line += f"  {name} {score:.3f}"
        pictures = {"samples": pixels.sheet(generated[:80], 10)}
        return Evaluation(values, score if self.is_complete(model) else math.inf, line, pictures)


def label_arguments(model: LatentModel, batch: Batch) -> tuple[Tensor, ...]:
    """Labels of a batch for a class-conditional model, else an empty tuple; generated images share them.

    Raises:
        UserError: The data set has no labels, or labels outside the model's classes.
    """
    return (model.check_labels(batch.labels, len(batch.labels)),) if model.num_classes else ()


def share_of_pixels(model: LatentModel, images: Tensor) -> float:
    """Pixels of an image relative to full size; squared gradients by small images are multiplied by this."""
    return (images.shape[-1] / model.image_shape[-1]) ** 2


def squared_gradient(scores: Tensor, images: Tensor) -> Tensor:
    """Squared norm of the gradient of scores by images, (batch,), itself differentiable."""
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(1)


def number_from(generator: torch.Generator) -> int:
    """Seed of the random numbers of a step, the same on every rank."""
    return int(torch.randint(2**62, (), generator=generator))
