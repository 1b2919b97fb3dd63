"""Identity score: similarity of faces by a recognition network, whose file the user names."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from flows import images as pixels
from flows.errors import DataMissing, UserError
from flows.storage.files import StrPath, expand, reading

__all__ = ["Identity"]

BATCH = 50
"""Number of images whose embeddings are computed at a time."""


class Identity:
    """Cosine similarity of the embeddings of two faces, as ArcFace's in e4e and PTI.

    The network is an exported program of torch, so that a network of any package can be used: images
    (batch, 3, side, side) in [−1, 1] to embeddings (batch, D), for any batch. To write one:

        program = torch.export.export(network.eval(), (faces,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
        torch.export.save(program, "faces.pt2")

    Args:
        path: File of the exported program.
        side: Side to which images are resized, whatever their aspect ratio; 112 for ArcFace, 160 for FaceNet.

    Raises:
        DataMissing: There is no such file.
        UserError: The file is no exported program, or does not map such images to vectors.
    """

    def __init__(self, path: StrPath, side: int = 112):
        place = Path(expand(path))
        if not place.is_file():
            raise DataMissing(f"{place} is missing: expected an exported network that recognises faces")
        self.side = side
        with reading(place, "program of torch.export"):
            self.network = torch.export.load(place).module()
        with reading(place, f"network of images (batch, 3, {side}, {side})"), torch.no_grad():
            shapes = {n: tuple(self.network(torch.zeros(n, 3, side, side)).shape) for n in (2, 3)}
        shape = shapes[2]
        if len(shape) != 2 or shapes[3] != (3, shape[1]) or shape[0] != 2:
            raise UserError(f"{place}: expected embeddings (batch, D), got shape {shape} for two images")
        self.name = f"identity, {place.stem}"

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """Embeddings (n, D) of uint8 images (n, C, H, W); grey ones are converted to RGB."""
        parts = []
        for part in images.split(BATCH):
            faces = pixels.to_square_rgb(pixels.to_unit(part, 256), self.side)
            parts.append(self.network(pixels.signed(faces)).float())
        return torch.cat(parts)

    def similarity(self, first: Tensor, second: Tensor) -> Tensor:
        """Similarities (n,) in [−1, 1] of pairs of uint8 images (n, C, H, W)."""
        return cosine_similarity(self.embed(first), self.embed(second))
