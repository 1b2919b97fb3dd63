"""FID with the Inception network of the published figures, whose weights the user names."""

from pathlib import Path

import torch
from torch import Tensor

from flows.core.numerics import to_double
from flows.errors import DataMissing, missing_extra
from flows.metrics.frechet import frechet
from flows.storage.files import StrPath, expand, reading

__all__ = ["Inception", "inception_distance"]

BATCH = 50
"""Number of images whose features are computed at a time."""
PUBLISHED = "pt_inception-2015-12-05-6726825d.pth"
"""Name of the file of the published weights, converted from TensorFlow by torch-fidelity."""


class Inception:
    """Pool features of the InceptionV3 that FID was published with (Heusel et al. 2017, arXiv 1706.08500).

    The network, its resizing as in TensorFlow 1 to 299×299, which stretches images that are not square, and
    the converted weights are those of torch-fidelity. The weights are not downloaded: 91 MB,
    `pt_inception-2015-12-05-6726825d.pth` of its releases.

    Args:
        path: File of the weights; it must hold tensors only.

    Raises:
        DataMissing: There is no such file, or torch-fidelity is not installed.
        UserError: The file holds other weights.
    """

    name = "inception"

    def __init__(self, path: StrPath):
        place = Path(expand(path))
        if not place.is_file():
            raise DataMissing(f"{place} is missing: expected the weights of Inception, {PUBLISHED}")
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise missing_extra("FID needs torch-fidelity", "metrics", error) from error
        with reading(place, f"weights of Inception, {PUBLISHED}"):
            # torch-fidelity unpickles the file without limits, which is safe for tensors alone.
            torch.load(place, map_location="cpu", weights_only=True)
            self.network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(place))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features (n, 2048), fp64, of uint8 images (n, C, H, W); grey ones are converted to RGB."""
        parts = []
        for part in images.split(BATCH):
            parts.append(self.network(part.expand(-1, 3, -1, -1))[0])
        return to_double(torch.cat(parts))


def inception_distance(first: Tensor, second: Tensor) -> float:
    """FID of features (n, 2048) and (m, 2048).

    Raises:
        UserError: There are fewer than two images in one of the sets.
    """
    return frechet(first, second).total
