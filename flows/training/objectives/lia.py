"""LIA's two stages: a GAN whose mapping is invertible, then an encoder into it (arXiv 1906.08090)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from flows.data.base import Batch, ImageData, Split
from flows.metrics.reconstruction import psnr
from flows.models.base import LatentModel
from flows.models.gan import to_signed
from flows.models.lia import LIA
from flows.training.gan_report import write_gan_report
from flows.training.objectives.adversarial import (
    Adversarial,
    CriticOnBoth,
    LossName,
    frozen,
    squared_gradient,
)
from flows.training.phase import Look, Phase
from flows.training.validation import sheet_of


class LIATraining(Adversarial):
    """Stage 1 trains generator, φ and critic; stage 2 the encoder, with generator and φ as they are.

    Between them the generator takes its running average. In stage 2 nothing is sampled: the loss is
    pixel·|x̂ − x|² + feature·|F(x̂) − F(x)|² + adversarial·softplus(−D(x̂)), x̂ = G(E(x)), F the critic's
    features at all sizes; the critic goes on, on x and x̂.

    Args:
        stage1_images: images shown before stage 2 begins; a multiple of the batch.
        pixel: weight of the mean squared error in [−1, 1].
        feature: weight of the features' mean squared error.
        adversarial: weight of the critic's opinion (0.1 in the released code).
        encoder_lr: learning rate of stage 2, encoder and critic.
        loss, r1, r1_every, critic_lr, mixing, growing, fading: as in `Adversarial`.
    """

    trains = LIA

    def __init__(
        self,
        stage1_images: int,
        pixel: float = 1.0,
        feature: float = 0.05,
        adversarial: float = 0.01,
        encoder_lr: float = 1e-3,
        loss: LossName = "non-saturating",
        r1: float = 3.0,
        r1_every: int = 8,
        critic_lr: float | None = None,
        mixing: float = 0.0,
        growing: tuple[int, ...] = (),
        fading: float = 0.5,
    ):
        super().__init__(
            loss=loss, r1=r1, r1_every=r1_every, critic_lr=critic_lr, mixing=mixing,
            growing=growing, fading=fading,
        )  # fmt: skip
        self.stage1_images = stage1_images
        self.pixel, self.feature, self.adversarial = pixel, feature, adversarial
        self.encoder_lr = encoder_lr

    def parts(self, model: LatentModel) -> list[nn.Module]:
        lia = cast(LIA, model)
        return [lia.generator, CriticOnBoth(lia.critic), lia.encoder]

    def phases(self, model: LatentModel, parts: Sequence[nn.Module]) -> list[Phase]:
        lia, (generator, critic, encoder) = cast(LIA, model), parts
        first = super().phases(model, (generator, critic))
        for phase in first:
            phase.stop = self.stage1_images
        betas, start, lr = (0.9, 0.99), self.stage1_images, self.encoder_lr

        def take_average(evaluated: LatentModel) -> None:
            lia.generator.load_state_dict(cast(LIA, evaluated).generator.state_dict())

        second = [
            Phase(
                "encoder", list(lia.encoder.parameters()), self.encoder_loss(lia, encoder), encoder,
                start=start, lr=lr, betas=betas, begin=take_average,
            ),
            Phase(
                "critic2", list(lia.critic.parameters()), self.second_critic_loss(lia, critic), critic,
                start=start, lr=lr, betas=betas,
            ),
        ]  # fmt: skip
        return [*first, *second]

    def encoder_loss(self, lia: LIA, encoder: nn.Module) -> Any:
        """Pixels, features, and the critic's opinion of what comes back."""

        def loss(batch: Batch, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
            real, critic = to_signed(batch.images), cast(Any, lia.critic)
            with frozen(lia.generator), frozen(critic):
                back = lia.render(encoder(real), "w", None)
                pixel = (back - real).square().mean()
                pairs = zip(critic.features(back), critic.features(real), strict=True)
                feature = torch.stack([(a - b.detach()).square().mean() for a, b in pairs]).sum()
                opinion = softplus(-critic(back)).mean()
            total = self.pixel * pixel + self.feature * feature + self.adversarial * opinion
            return total, {"pixel": pixel, "feature": feature, "adversarial": opinion}

        return loss

    def second_critic_loss(self, lia: LIA, critic: nn.Module) -> Any:
        """Real images against reconstructions, with R1."""

        def loss(batch: Batch, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
            real = to_signed(batch.images)
            with torch.no_grad():
                back = lia.render(lia.encoder(real), "w", None)
            lazily = self.r1 > 0 and step % self.r1_every == 0
            real.requires_grad_(lazily)
            on_real, on_back = critic(real, back)
            total = self.separate(on_real, on_back)
            if lazily:
                total = total + self.r1 / 2 * self.r1_every * squared_gradient(on_real, real).mean()
            return total, {"real": on_real.mean(), "back": on_back.mean()}

        return loss

    def look(self, model: LatentModel, held_out: Split, images: int | None, shown: int) -> Look:
        seen = super().look(model, held_out, images, shown)
        pictures = held_out.first(images).images
        back, trip = reconstruct(cast(LIA, model), pictures)
        quality = psnr(pictures, back)
        values = {**seen.values, "validation/psnr": float(quality.mean()), "validation/phi_round_trip": trip}
        rows = zip(pictures[:40].split(10), back[:40].split(10), strict=True)
        sheet = sheet_of(torch.cat([part for row in rows if len(row[0]) == 10 for part in row]), 10)
        line = f"{seen.line}  reconstruction {values['validation/psnr']:.2f} dB"
        # Stage 1 is kept by its samples, stage 2 by what comes back, and before any of stage 1.
        score = -values["validation/psnr"] if shown > self.stage1_images else seen.score
        return Look(values, score, line, {**seen.pictures, "reconstructions": sheet})

    def report(self, folder: Path, data: ImageData, device: str) -> dict[str, Any]:
        return write_gan_report(folder, data, device)


@torch.no_grad()
def reconstruct(model: LIA, pictures: Tensor, batch: int = 250) -> tuple[Tensor, float]:
    """What comes back of uint8 images through w, uint8, and the largest error of φ there and back."""
    from flows import images as pixels

    found, worst = [], 0.0
    for part in pictures.split(batch):
        w = model.encode(pixels.to_unit(part, model.bins, model.dtype).to(model.device), "w")
        again = model.phi.inverse(model.phi(w)[0])[0]
        worst = max(worst, float((again - w).abs().max()))
        found.append(pixels.to_bytes(model.decode(w, "w"), model.bins).cpu())
    return torch.cat(found), worst
