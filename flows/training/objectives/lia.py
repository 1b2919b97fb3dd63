"""Training of LIA in two stages: a GAN with an invertible mapping, then its encoder (arXiv 1906.08090)."""

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from flows import images as pixels
from flows.core.bounds import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Share
from flows.core.numerics import combine_seeds, frozen
from flows.core.torch_internals import BatchNorm
from flows.data.base import Batch, Split
from flows.errors import UserError
from flows.metrics.reconstruction import psnr
from flows.models.lia import LIA, InverseMapping
from flows.models.priors import Normal
from flows.storage.stored import StoredModule
from flows.training.batch_norm import recalibrating
from flows.training.objectives.adversarial import (
    Adversarial,
    CriticOnBoth,
    LossName,
    ScoreName,
    number_from,
)
from flows.training.objectives.lia_measures import encode_and_decode, in_pairs, phi_figures
from flows.training.phase import Evaluation, Phase


class RefinedEncoder(nn.Module):
    """Wrapped module of stage 2: encoder and refiner in one call; the generator is not part of it.

    It maps images in [−1, 1] to codes, errors and slopes, as `LIA.refined` does.
    """

    def __init__(self, lia: LIA):
        super().__init__()
        self.encoder, self.refiner, self.refined = lia.encoder, lia.refiner, lia.refined

    def forward(self, real: Tensor) -> tuple[Tensor, ...]:
        return self.refined(self.encoder(real), real)


def _rename_former_key(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
    """Rename `log_spread` in training states that an earlier release wrote to `log_std`."""
    if f"{prefix}log_spread" in state:
        state[f"{prefix}log_std"] = state.pop(f"{prefix}log_spread")


class GeneratorAndEncoder(nn.Module):
    """Wrapped module of an anchored stage 1: generator and encoder in one call.

    Attributes:
        log_std: (width,), logarithm of σ, the std of the encoder's posterior of each coordinate of w.
    """

    def __init__(self, lia: LIA):
        super().__init__()
        self.generator, self.encoder, self.prior = lia.generator, lia.encoder, Normal()
        self.refiner, self.refined = lia.refiner, lia.refined
        self.log_std = nn.Parameter(torch.full((lia.width,), -1.0, device=lia.device))
        self.register_load_state_dict_pre_hook(_rename_former_key)

    def forward(self, real: Tensor, *noise: Tensor) -> tuple[Tensor, ...]:
        """Codes, errors and slopes of `LIA.refined` for real images; with noise, the terms of the loss.

        With noise (ε, z), both standard normal: returns the reconstructions G(E(x) + σε), the samples
        G(φ⁻¹(z)), and a one-sample estimate of KL(q(w|x) ‖ p(w)) in nats, (batch,).
        """
        code = self.encoder(real)
        if not noise:
            return self.refined(code, real)
        epsilon, z = noise
        code = code + self.log_std.exp() * epsilon
        images = self.generator.generate(torch.cat([code, self.generator.mapping(z)]))
        latent, log_det = cast(InverseMapping, self.generator.mapping).phi(code)
        entropy = self.log_std.sum() + 0.5 * code.shape[1] * math.log(2 * math.pi * math.e)
        divergence = -self.prior.log_prob(latent).sum(1) - log_det - entropy
        return images[: len(real)], images[len(real) :], divergence


class LIATraining(Adversarial):
    """Two-stage objective of LIA.

    Stage 1 trains generator, φ and critic; stage 2 trains the encoder, with generator and φ fixed.

    With `anchor` above 0 the encoder is trained in stage 1, too. Generator and encoder are then also a
    variational autoencoder with the prior p(w) = N(φ(w)) |det ∂φ/∂w|, which φ makes exact: they minimise,
    besides the adversarial loss, anchor·|G(E(x) + σε) − x|² + prior·KL(N(E(x), σ²) ‖ p). This is not the
    paper's stage 1; its samples are as good after as many images, and it also reconstructs real images. φ
    should preserve volume (`coupling: additive`): otherwise only the scenes that are easiest to generate are
    learned.

    After stage 1 the generator takes its averaged weights. Stage 2 uses no samples: the loss is
    pixel·|x̂ − x|² + feature·|F(x̂) − F(x)|² + adversarial·softplus(−D(x̂)), with x̂ = G(E(x)) and F the
    critic's features at all sizes; the critic continues to train, on x and x̂. If the model refines its codes,
    x̂ is the image of the last code, and the first term is the mean over all codes.

    Args:
        stage1_images: Images shown before stage 2 begins; a multiple of the batch. The learning rate decays
            over each stage.
        pixel: Weight of the mean squared error, pixels in [−1, 1].
        feature: Weight of the mean squared error of the features.
        adversarial: Weight of the adversarial term (0.1 in the released code).
        encoder_lr: Learning rate of encoder and critic in stage 2.
        critic_every: Interval in steps of critic updates in stage 2; each is expensive if the model uses
            refinements.
        anchor: Weight of the reconstruction error in stage 1; 0 is the paper's stage 1.
        prior: Weight of the divergence, in nats, or a pair (first, second) that changes after `prior_until`
            images. It implies a decoder with noise of variance N·prior/(2·anchor), N the number of values of
            an image, pixels in [−1, 1]: the first weight gives codes that samples come to resemble, the
            second lets codes carry detail.
        prior_until: Images shown before the second weight of `prior` is used.
        loss, r1, r1_every, critic_lr, mixing, growing, fading: Arguments of `Adversarial`.
        score: Score that selects the exported model in stage 1, as in `Adversarial`. A run that ends in stage
            2 exports the last average of stage 1 with the encoder of the highest PSNR.
    """

    trains = LIA

    def __init__(
        self,
        stage1_images: NonNegativeInt,
        pixel: NonNegativeFloat = 1.0,
        feature: NonNegativeFloat = 0.05,
        adversarial: NonNegativeFloat = 0.01,
        encoder_lr: PositiveFloat = 1e-3,
        critic_every: PositiveInt = 1,
        anchor: NonNegativeFloat = 0.0,
        prior: NonNegativeFloat | tuple[NonNegativeFloat, NonNegativeFloat] = 2e-4,
        prior_until: NonNegativeInt = 0,
        loss: LossName = "non-saturating",
        r1: NonNegativeFloat | None = None,
        r1_every: PositiveInt = 8,
        critic_lr: PositiveFloat | None = None,
        mixing: Share = 0.0,
        growing: tuple[NonNegativeInt, ...] = (),
        fading: NonNegativeFloat = 0.5,
        score: ScoreName = "swd",
    ):
        super().__init__(
            loss=loss,
            r1=r1,
            r1_every=r1_every,
            critic_lr=critic_lr,
            mixing=mixing,
            growing=growing,
            fading=fading,
            score=score,
        )
        self.stage1_images = stage1_images
        self.pixel, self.feature, self.adversarial = pixel, feature, adversarial
        self.critic_every = critic_every
        self.encoder_lr, self.anchor, self.prior_until = encoder_lr, anchor, prior_until
        self.priors = prior if isinstance(prior, tuple) else (prior, prior)
        self.prior = self.priors[0]
        if anchor and (growing or mixing):
            raise UserError(
                "objective.growing, objective.mixing: not possible with objective.anchor above 0; omit them"
            )

    def leaves_parameters_out(self, model: StoredModule) -> bool:
        return self.anchor > 0 or super().leaves_parameters_out(model)

    def advance(self, model: StoredModule, shown: int) -> None:
        super().advance(model, shown)
        self.prior = self.priors[shown >= self.prior_until]

    def parts(self, model: StoredModule) -> list[nn.Module]:
        lia = cast(LIA, model)
        if self.anchor:
            return [GeneratorAndEncoder(lia), CriticOnBoth(lia.critic)]
        return [lia.generator, CriticOnBoth(lia.critic), RefinedEncoder(lia)]

    def phases(self, model: StoredModule, parts: Sequence[nn.Module]) -> list[Phase]:
        lia, generator, critic, encoder = cast(LIA, model), parts[0], parts[1], parts[-1]
        if self.anchor:
            encoder = generator
        first = super().phases(model, (generator, critic))
        for phase in first:
            phase.stop = self.stage1_images
            phase.span = (0, self.stage1_images)
        if self.anchor:
            first[1].loss = self.anchored_loss(lia, generator)
            refiner = set() if lia.refiner is None else set(lia.refiner.parameters())
            first[1].params = [p for p in generator.parameters() if p not in refiner]
        betas, start, lr = (0.9, 0.99), self.stage1_images, self.encoder_lr

        def rebuild(batch: Batch, seed: int) -> Tensor:
            real = pixels.to_signed(batch.images, lia.bins)
            return lia.synthesise(lia.refined(lia.encoder(real), real).codes[-1], "w", None)

        def take_average(evaluated: StoredModule) -> None:
            lia.generator.load_state_dict(cast(LIA, evaluated).generator.state_dict())
            if self.anchor:
                lia.encoder.load_state_dict(cast(LIA, evaluated).encoder.state_dict())

        encoding = list(lia.encoder.parameters())
        encoding += [] if lia.refiner is None else list(lia.refiner.parameters())
        common: dict[str, Any] = {"start": start, "span": (start, math.inf), "lr": lr, "betas": betas}
        loss = self.encoder_loss(lia, encoder)
        second = Phase("encoder", encoding, loss, encoder, begin=take_average, **common)
        weights = list(lia.critic.parameters())
        loss = self.critic_loss(lia, critic, rebuild)
        return [*first, second, Phase("critic2", weights, loss, critic, every=self.critic_every, **common)]

    def anchored_loss(self, lia: LIA, both: nn.Module) -> Any:
        """Create the generator's loss of an anchored stage 1, which also trains the encoder."""

        def loss(batch: Batch, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
            seed = combine_seeds(number_from(generator), 2)
            real, z = pixels.to_signed(batch.images, lia.bins), self.sample_prior(lia, batch, seed)
            epsilon = self.sample_prior(lia, batch, combine_seeds(seed, 5))
            reconstruction, generated, divergence = both(real, epsilon, z)
            with frozen(lia.critic):
                adversarial = self.fool(lia.critic(generated))
            pixel = (reconstruction - real).square().mean()
            mean_divergence = divergence.mean()
            total = adversarial + self.anchor * pixel + self.prior * mean_divergence
            return total, {"adversarial": adversarial, "pixel": pixel, "divergence": mean_divergence}

        return loss

    def encoder_loss(self, lia: LIA, encoder: nn.Module) -> Any:
        """Create the encoder's loss of stage 2: errors of pixels and features, and an adversarial term."""

        def loss(batch: Batch, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
            real, critic = pixels.to_signed(batch.images, lia.bins), cast(Any, lia.critic)
            with frozen(lia.generator), frozen(critic):
                codes, errors, slopes = encoder(real)
                reconstruction = lia.synthesise(codes[-1], "w", None)
                # Errors and slopes of all codes but the last are known; their images are not needed again.
                before = errors + (slopes * (codes[:-1] - codes[:-1].detach())).sum(2)
                last = (reconstruction - real).square().flatten(1).mean(1)
                pixel = torch.cat([before, last[None]]).mean()
                features, targets = critic.features(reconstruction), critic.features(real)
                pairs = zip(features, targets, strict=True)
                feature = torch.stack([(a - b.detach()).square().mean() for a, b in pairs]).sum()
                adversarial = softplus(-critic.score_features(features[-1])).mean()
            total = self.pixel * pixel + self.feature * feature + self.adversarial * adversarial
            return total, {"pixel": pixel, "feature": feature, "adversarial": adversarial}

        return loss

    def check(self, model: StoredModule, images: int) -> None:
        super().check(model, images)
        if self.stage1_images >= images:
            raise UserError(
                f"objective.stage1_images: stage 1 takes {self.stage1_images:,} of the {images:,} images of "
                "training.images and leaves none for stage 2, which trains the encoder; lower it"
            )

    def evaluate(self, model: StoredModule, held_out: Split, images: int | None, shown: int) -> Evaluation:
        evaluation = super().evaluate(model, held_out, images, shown)
        pictures = held_out.first(images).images
        lia = cast(LIA, model)
        with recalibrating(part for part in lia.encoder.modules() if isinstance(part, BatchNorm)) as norms:
            for part in pictures.split(100) if norms else ():
                lia.encoder(pixels.to_signed(part, lia.bins).to(lia.device))
        w, reconstruction = encode_and_decode(lia, pictures)
        quality, trip = psnr(pictures, reconstruction), phi_figures(lia, w)["round_trip_fp32"]
        values = {
            **evaluation.values,
            "validation/psnr": float(quality.mean()),
            "validation/phi_round_trip": trip,
        }
        sheet = in_pairs(pictures[:40], reconstruction[:40])
        line = f"{evaluation.line}  reconstruction {values['validation/psnr']:.2f} dB"
        # Samples select the model in stage 1, PSNR in stage 2; a score of stage 2 is always the lower one.
        score = -values["validation/psnr"] if shown > self.stage1_images else evaluation.score
        return Evaluation(values, score, line, {**evaluation.pictures, "reconstructions": sheet})
