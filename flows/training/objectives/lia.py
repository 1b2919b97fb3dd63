"""LIA's two stages: a GAN whose mapping is invertible, then an encoder into it (arXiv 1906.08090)."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from flows.data.base import Batch, ImageData, Split
from flows.errors import UserError
from flows.metrics.reconstruction import psnr
from flows.models.gan import to_signed
from flows.models.lia import LIA, InverseMapping
from flows.models.priors import Normal
from flows.numerics import combine_seeds, frozen
from flows.stored import StoredModule
from flows.training.gan_report import write_gan_report
from flows.training.objectives.adversarial import (
    Adversarial,
    CriticOnBoth,
    LossName,
    ScoreName,
    number_from,
)
from flows.training.objectives.lia_report import in_pairs, lia_section, phi_figures, reconstruct
from flows.training.phase import Evaluation, Phase
from flows.training.batch_norm import recalibrating


class RefinedEncoder(nn.Module):
    """Encoder and refiner in one call, what is wrapped in the paper's stage 2; the generator is not its part.

    Images in [−1, 1] to codes, errors and slopes, as `LIA.refined` finds them.
    """

    def __init__(self, lia: LIA):
        super().__init__()
        self.encoder, self.refiner, self.refined = lia.encoder, lia.refiner, lia.refined

    def forward(self, real: Tensor) -> tuple[Tensor, ...]:
        return self.refined(self.encoder(real), real)


class GeneratorAndEncoder(nn.Module):
    """One call for both, what is wrapped where the encoder learns along in stage 1.

    Attributes:
        log_spread: (width,), logarithm of how uncertain the encoder is about each coordinate of w.
    """

    def __init__(self, lia: LIA):
        super().__init__()
        self.generator, self.encoder, self.prior = lia.generator, lia.encoder, Normal()
        self.refiner, self.refined = lia.refiner, lia.refined
        self.log_spread = nn.Parameter(torch.full((lia.width,), -1.0, device=lia.device))

    def forward(self, real: Tensor, *noise: Tensor) -> tuple[Tensor, ...]:
        """What `LIA.refined` finds for real images.

        Or, given what shakes the first and z, both standard normal, what those draw: what shaken codes bring
        back, what z brings, and the former's divergence from the prior in nats, (batch,).
        """
        code = self.encoder(real)
        if not noise:
            return self.refined(code, real)
        shaken, z = noise
        code = code + self.log_spread.exp() * shaken
        back = self.generator.draw(torch.cat([code, self.generator.mapping(z)]))
        latent, log_det = cast(InverseMapping, self.generator.mapping).phi(code)
        entropy = self.log_spread.sum() + 0.5 * code.shape[1] * math.log(2 * math.pi * math.e)
        divergence = -self.prior.log_prob(latent).sum(1) - log_det - entropy
        return back[: len(real)], back[len(real) :], divergence


class LIATraining(Adversarial):
    """Stage 1 trains generator, φ and critic; stage 2 the encoder, with generator and φ as they are.

    With `anchor` above 0 the encoder learns along in stage 1. Then generator and encoder are, besides, a
    variational autoencoder with the prior p(w) = N(φ(w)) |det ∂φ/∂w|, which φ makes exact: they minimise,
    beside what the critic says, anchor·|G(E(x) + σε) − x|² + prior·KL(N(E(x), σ²) ‖ p). That is not the
    paper's stage 1; its samples are as good after as many images, and real ones come back besides. φ should
    keep volumes (`coupling: additive`): one that does not makes do with the rooms that are easiest to draw.

    Between them the generator takes its running average. In stage 2 nothing is sampled: the loss is
    pixel·|x̂ − x|² + feature·|F(x̂) − F(x)|² + adversarial·softplus(−D(x̂)), x̂ = G(E(x)), F the critic's
    features at all sizes; the critic goes on, on x and x̂. Where the model refines its codes, x̂ is what the
    last one draws, and the first term is the mean over all of them.

    Args:
        stage1_images: images shown before stage 2 begins; a multiple of the batch. The learning rate decays
            over each stage.
        pixel: weight of the mean squared error in [−1, 1].
        feature: weight of the features' mean squared error.
        adversarial: weight of the critic's opinion (0.1 in the released code).
        encoder_lr: learning rate of stage 2, encoder and critic.
        critic_every: the critic's turn in stage 2 comes in every n-th step; refinements make it dear.
        anchor: see above; 0 is the paper's.
        prior: weight of the divergence, in nats: (first, then) where it changes after `prior_until` images.
            What the decoder need not explain is taken for noise of variance N·prior/(2·anchor), N the values
            of an image, pixels in [−1, 1]: the first makes codes that samples come to resemble, the second
            lets them carry detail.
        prior_until: images shown until then.
        loss, r1, r1_every, critic_lr, mixing, growing, fading: as in `Adversarial`.
        score: as there, of stage 1; a run that ends in stage 2 exports the last average of stage 1 with the
            encoder that brings most back.
    """

    trains = LIA

    def __init__(
        self,
        stage1_images: int,
        pixel: float = 1.0,
        feature: float = 0.05,
        adversarial: float = 0.01,
        encoder_lr: float = 1e-3,
        critic_every: int = 1,
        anchor: float = 0.0,
        prior: float | tuple[float, float] = 2e-4,
        prior_until: int = 0,
        loss: LossName = "non-saturating",
        r1: float | None = None,
        r1_every: int = 8,
        critic_lr: float | None = None,
        mixing: float = 0.0,
        growing: tuple[int, ...] = (),
        fading: float = 0.5,
        score: ScoreName = "swd",
    ):
        super().__init__(
            loss=loss, r1=r1, r1_every=r1_every, critic_lr=critic_lr, mixing=mixing,
            growing=growing, fading=fading, score=score,
        )  # fmt: skip
        self.stage1_images = stage1_images
        self.pixel, self.feature, self.adversarial = pixel, feature, adversarial
        self.critic_every = critic_every
        self.encoder_lr, self.anchor, self.prior_until = encoder_lr, anchor, prior_until
        self.priors = prior if isinstance(prior, tuple) else (prior, prior)
        self.prior = self.priors[0]
        if anchor and (growing or mixing):
            raise UserError("objective.growing, objective.mixing: an anchored stage 1 has neither")

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
            first[1].params = [each for each in generator.parameters() if each not in refiner]
        betas, start, lr = (0.9, 0.99), self.stage1_images, self.encoder_lr

        def bring_back(batch: Batch, seed: int) -> Tensor:
            real = to_signed(batch.images)
            return lia.render(lia.refined(lia.encoder(real), real).codes[-1], "w", None)

        def take_average(evaluated: StoredModule) -> None:
            lia.generator.load_state_dict(cast(LIA, evaluated).generator.state_dict())
            if self.anchor:
                lia.encoder.load_state_dict(cast(LIA, evaluated).encoder.state_dict())

        encoding = list(lia.encoder.parameters())
        encoding += [] if lia.refiner is None else list(lia.refiner.parameters())
        second = [
            Phase(
                "encoder", encoding, self.encoder_loss(lia, encoder), encoder,
                start=start, span=(start, math.inf), lr=lr, betas=betas, begin=take_average,
            ),
            Phase(
                "critic2", list(lia.critic.parameters()), self.critic_loss(lia, critic, bring_back), critic,
                every=self.critic_every, start=start, span=(start, math.inf), lr=lr, betas=betas,
            ),
        ]  # fmt: skip
        return [*first, *second]

    def anchored_loss(self, lia: LIA, both: nn.Module) -> Any:
        """The generator's loss, with the encoder learning along."""

        def loss(batch: Batch, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
            seed = combine_seeds(number_from(generator), 2)
            real, z = to_signed(batch.images), self.draw_codes(lia, batch, seed)
            shaken = self.draw_codes(lia, batch, combine_seeds(seed, 5))
            back, drawn, divergence = both(real, shaken, z)
            with frozen(lia.critic):
                opinion = self.fool(lia.critic(drawn))
            pixel = (back - real).square().mean()
            far = divergence.mean()
            total = opinion + self.anchor * pixel + self.prior * far
            return total, {"opinion": opinion, "pixel": pixel, "divergence": far}

        return loss

    def encoder_loss(self, lia: LIA, encoder: nn.Module) -> Any:
        """Pixels, features, and the critic's opinion of what comes back."""

        def loss(batch: Batch, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
            real, critic = to_signed(batch.images), cast(Any, lia.critic)
            with frozen(lia.generator), frozen(critic):
                codes, errors, slopes = encoder(real)
                back = lia.render(codes[-1], "w", None)
                # Errors of the codes before the last are known with their slopes: no need to draw them again.
                before = errors + (slopes * (codes[:-1] - codes[:-1].detach())).sum(2)
                last = (back - real).square().flatten(1).mean(1)
                pixel = torch.cat([before, last[None]]).mean()
                found, wanted = critic.features(back), critic.features(real)
                pairs = zip(found, wanted, strict=True)
                feature = torch.stack([(a - b.detach()).square().mean() for a, b in pairs]).sum()
                opinion = softplus(-critic.judge(found[-1])).mean()
            total = self.pixel * pixel + self.feature * feature + self.adversarial * opinion
            return total, {"pixel": pixel, "feature": feature, "adversarial": opinion}

        return loss

    def evaluate(self, model: StoredModule, held_out: Split, images: int | None, shown: int) -> Evaluation:
        seen = super().evaluate(model, held_out, images, shown)
        pictures = held_out.first(images).images
        lia = cast(LIA, model)
        with recalibrating(part for part in lia.encoder.modules() if isinstance(part, BatchNorm)) as norms:
            for part in pictures.split(100) if norms else ():
                lia.encoder(to_signed(part).to(lia.device))
        w, back = reconstruct(lia, pictures)
        quality, trip = psnr(pictures, back), phi_figures(lia, w)["round_trip_fp32"]
        values = {**seen.values, "validation/psnr": float(quality.mean()), "validation/phi_round_trip": trip}
        sheet = in_pairs(pictures[:40], back[:40])
        line = f"{seen.line}  reconstruction {values['validation/psnr']:.2f} dB"
        # Stage 1 is kept by its samples, stage 2 by what comes back, and before any of stage 1.
        score = -values["validation/psnr"] if shown > self.stage1_images else seen.score
        return Evaluation(values, score, line, {**seen.pictures, "reconstructions": sheet})

    def report(self, folder: Path, data: ImageData, device: str) -> dict[str, Any]:
        return write_gan_report(folder, data, device, lia_section)
