"""Objective and settings with which a model is trained unless a caller chooses others."""

from typing import Any

from flows.errors import UserError
from flows.models.base import LikelihoodModel
from flows.models.gan import GAN
from flows.models.lia import LIA
from flows.semantics.base import SemanticModel
from flows.storage.stored import StoredModule
from flows.training.objectives.adversarial import Adversarial
from flows.training.objectives.lia import LIATraining
from flows.training.objectives.likelihood import Likelihood
from flows.training.objectives.supervised import Supervised
from flows.training.phase import Objective
from flows.training.settings import Training

STAGE1 = 0.8
"""Share of the images of a run that LIA's first stage takes."""
GAN_SETTINGS: dict[str, Any] = {"betas": (0.5, 0.999)}
"""Settings of adversarial training (DCGAN, section 4): the momentum of Adam's default oscillates."""


def natural_settings(model: StoredModule) -> dict[str, Any]:
    """Fields of `Training` that have another default for this kind of model."""
    return dict(GAN_SETTINGS) if isinstance(model, GAN) else {}


def natural_objective(model: StoredModule, training: Training) -> Objective:
    """Objective for the kind of a model: likelihood, adversarial, in LIA's two stages, or supervised.

    Raises:
        UserError: There is none for this kind.
    """
    if isinstance(model, LikelihoodModel):
        return Likelihood()
    if isinstance(model, LIA):
        steps = int(STAGE1 * training.images) // training.batch
        return LIATraining(stage1_images=steps * training.batch)
    if isinstance(model, GAN):
        return Adversarial()
    if isinstance(model, SemanticModel):
        return Supervised()
    raise UserError(f"objective: {type(model).__name__} has none by default; pass objective=")
