"""One study of omissions: class shares of samples and data, and classes that images lose."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flows import images as pixels
from flows.core.bounds import NonNegativeInt, PositiveFloat, PositiveInt, Seed
from flows.core.options import Options
from flows.data.base import ImageData
from flows.dissection.omission import energy_by_class, energy_maps, omissions, shares_of
from flows.dissection.omissions_report import Energies, Instances, OmissionsFound, lost_classes
from flows.models.base import LatentModel
from flows.semantics.base import Segmenter, segment_bytes

__all__ = ["OmissionSettings", "study_omissions"]

SHOWN = 12
"""Number of test images that are reconstructed or shown as energy maps."""
ENERGIES = 500
"""Number of test images over which the energy of each class is averaged."""

Reconstruct = Callable[[Tensor, Tensor], tuple[str, Tensor]]
"""Function of uint8 images (n, C, H, W) and labels (n,): name of the inverter, and reconstructions."""


@dataclass(frozen=True, kw_only=True)
class OmissionSettings(Options):
    """Settings of a study of omissions.

    Attributes:
        n: Number of samples, and maximum number of test images.
        temperature: Temperature of the samples.
        images: Number of test images that are reconstructed or shown as energy maps; 0 skips both.
        seed: Seed of the samples.
    """

    n: PositiveInt = 2000
    temperature: PositiveFloat = 1.0
    images: NonNegativeInt = SHOWN
    seed: Seed = 0


def study_omissions(
    model: LatentModel,
    segmenter: Segmenter,
    data: ImageData,
    settings: OmissionSettings = OmissionSettings(),
    reconstruct: Reconstruct | None = None,
) -> OmissionsFound:
    """Compare the classes in samples with those in test images, and find the classes that images lose.

    Args:
        model: Model in eval mode.
        segmenter: Segmenter of the classes, applied to samples and test images alike.
        data: Data set of the test images.
        settings: Settings.
        reconstruct: Inverter for a model without an exact inverse; None reconstructs nothing. Of a flow,
            which loses nothing, the energy of the code is measured instead.

    Raises:
        UserError: There are fewer than ten images.
    """
    batch = data.first("test", settings.n)
    test, labels = pixels.reduce(batch.images, model.bins), batch.labels
    codes = model.sample(settings.n, seed=settings.seed, temperature=settings.temperature)
    samples = model.decode_bytes(codes)
    found = omissions(shares(segmenter, test, model), shares(segmenter, samples, model), segmenter.classes)
    few, instances, energies = settings.images, None, None
    if few and not model.is_exact and reconstruct is not None:
        how, reconstruction = reconstruct(test[:few], labels[:few])
        instances = instances_of(model, segmenter, how, test[:few], reconstruction)
    if few and model.is_exact and model.prior_space.maps:
        many = max(ENERGIES, few)
        energies = energies_of(model, segmenter, test[:many], labels[:many], few)
    notes = [f"--images {few}: --n and the data leave {len(test)} test images; all are used"]
    return OmissionsFound(found, instances, energies, notes if few > len(test) else [], settings.n)


def energies_of(
    model: LatentModel, segmenter: Segmenter, images: Tensor, labels: Tensor, shown: int
) -> Energies:
    """Energy maps of a flow's codes of uint8 images, and the mean energy of each class of a segmenter."""
    maps = energy_maps(model, images, labels)
    masks = segment_bytes(segmenter, images, model.bins, model.device)
    return Energies(images[:shown], maps[:shown], energy_by_class(maps, masks, segmenter.classes))


def instances_of(
    model: LatentModel, segmenter: Segmenter, how: str, images: Tensor, reconstruction: Tensor
) -> Instances:
    """Images with their reconstructions, and the classes that each image loses."""
    before, after = (
        segment_bytes(segmenter, each, model.bins, model.device) for each in (images, reconstruction)
    )
    return Instances(how, images, reconstruction, lost_classes(before, after, segmenter.classes))


def shares(segmenter: Segmenter, images: Tensor, model: LatentModel) -> Tensor:
    """Share of pixels of each class, in percent, (n, classes), in uint8 images at the model's grey levels."""
    parts = images.split(1000)
    return torch.cat([shares_of(segment_bytes(segmenter, part, model.bins, model.device)) for part in parts])
