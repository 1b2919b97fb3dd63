"""Patches of your own pictures: at random places for training, on a grid for validation and test."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from flows.core.bounds import Bins, ImageSize, PositiveInt, ShareBelowOne
from flows.core.checks import counted
from flows.core.numerics import uniform_hashes
from flows.data.archive import file_marks, open_file
from flows.data.base import UNLABELLED, Batch, SplitName, contents_of, digest_of, fair_order
from flows.data.columns import ColumnKind
from flows.data.decode import DecodedSplit, decode_whole, sides
from flows.data.folder import IN_MEMORY_BYTES, Contents, Folder, report_unreadable, sound_of
from flows.data.masks import Coding, MaskFiles, MaskPixels, coding_of, read_mask_file
from flows.errors import UserError
from flows.images import size_text
from flows.storage.files import StrPath

__all__ = ["Patches"]

Size = tuple[int, int]
"""Height and width in pixels."""
RECENT_BYTES = 2**28
"""Memory of the pictures that were decoded last, where not all are kept."""
PICTURE_SEED = np.array(0, dtype=np.uint64)
"""Seed of the hash that chooses the picture of a training patch; the place has a seed by the picture."""
BLOCK = 2**20
"""Number of patches whose places are computed at one time."""


class Patches(Folder):
    """Patches of the pictures below a folder or in an archive, at their own resolution.

    Pictures are shrunk to `short_side` and never enlarged; those smaller than a patch are left out. Splits,
    labels and attributes are those of `Folder` and belong to pictures, so that no picture is in two splits
    (except for one picture alone); every patch has the label and attributes of its picture. Masks are cut
    like their pictures.

    Validation and test: the patches of a grid without overlap, in the order of a hash. Training: patches at
    random places, `positions` times as many as the grid has. Patch i is of a picture that is chosen by a hash
    of i, with a probability in proportion to its area, at a place that is chosen by a hash of i and the
    picture's name, each place with the same probability. A run that is resumed sees the same patches.

    Args:
        path: Path of the folder or archive.
        size: Side of the square patches in pixels, or height and width.
        short_side: Largest short side of a picture in pixels, to which larger ones are shrunk; None shrinks
            none.
        positions: Number of training patches for each patch of the grid.
        channels: Number of channels, 3 for RGB, 1 for grey.
        validation: Share of the pictures held out for validation.
        test: Share of the pictures held out for test.
        in_memory: Whether to decode all pictures once and keep them; None does so below 1 GiB. Otherwise a
            picture is decoded for every batch that has a patch of it, except for those decoded last.
        bins: Number of grey levels that a model distinguishes.
        table: Table with a row for each picture (.csv, .tsv, .jsonl); None takes those in the folder.
        columns: Kinds of columns whose values are taken for something else: `{stars: category}`.
        masks: Folder or archive of the masks; None takes those in the folder.

    Raises:
        DataMissing: Nothing is at `path`.
        UserError: `path` holds no readable picture as large as a patch, a split would be empty, or a table or
            mask is not usable.
    """

    name = "patches"
    independent = False

    def __init__(
        self,
        path: StrPath,
        size: ImageSize = 32,
        short_side: PositiveInt | None = 512,
        positions: PositiveInt = 16,
        channels: Literal[1, 3] = 3,
        validation: ShareBelowOne = 0.05,
        test: ShareBelowOne = 0.05,
        in_memory: bool | None = None,
        bins: Bins = 256,
        table: StrPath | None = None,
        columns: dict[str, ColumnKind] | None = None,
        masks: StrPath | None = None,
    ):
        super().__init__(path, size, channels, validation, test, in_memory, bins, table, columns, masks)
        if short_side is not None and short_side < min(sides(size)):
            raise UserError(
                f"short_side: expected at least {min(sides(size))} pixels, the short side of a patch, got "
                f"{short_side}"
            )
        self.short_side, self.positions = short_side, positions
        limit = f"shrunk to at most {short_side} pixels on the short side (Lanczos)"
        self.transform = (
            f"patches of {size_text(*sides(size))} from pictures {limit if short_side else 'of full size'}, "
            f"for training at random places{', grey' if channels == 1 else ''}"
        )

    @property
    def training_images(self) -> int:  # type: ignore[override]
        """Number of training patches by the sizes of the pictures; some may not be readable."""
        sizes = self._measured.sizes
        training = [size for name, size in sizes.items() if self.layout.split_of(name) == "train"]
        return self.positions * sum(len(grid(*size, sides(self.size))) for size in training)

    @property
    def mask_classes(self) -> tuple[str, ...]:  # type: ignore[override]
        """Classes of the masks; empty without masks."""
        return self._cut_masks.coding.classes if self._cut_masks else ()

    def split(self, name: SplitName) -> "PatchSplit":
        names, size = self._names_of(name), sides(self.size)
        sizes = [self._measured.sizes[each] for each in names]
        places = (
            RandomPlaces(names, sizes, size, self.positions)
            if name == "train"
            else GridPlaces(names, sizes, size)
        )
        in_memory = self._found.decoded is not None
        read = partial(self._picture_at, names)
        split = PatchSplit(
            read if in_memory else Recent(read),
            places,
            size,
            names,
            self.labels_of(names),
            self.values_of(names),
        )
        split.marks, split.in_memory = file_marks(self.path, names), in_memory
        return split

    def _size_notes(self) -> list[str]:
        """Sentence on pictures that are smaller than a patch."""
        small, size = self._measured.small, size_text(*sides(self.size))
        return [counted(small, f"pictures smaller than a patch of {size}, left out")] if small else []

    @cached_property
    def _measured(self) -> "Measured":
        """Sizes of the pictures by their headers."""
        found, unreadable = sound_of(self._verify, self.layout.names)
        shapes = {name: shape for name, (_, shape) in found.items()}
        of = {name: shrunk(shape[1], shape[0], self.short_side) for name, shape in shapes.items()}
        height, width = sides(self.size)
        sizes = {name: size for name, size in of.items() if size[0] >= height and size[1] >= width}
        return Measured(shapes, sizes, tuple(name for name in of if name not in sizes), unreadable)

    @cached_property
    def _found(self) -> "Found":
        """Pictures that are sound and not smaller than a patch."""
        shapes, sizes, small, unreadable = self._measured
        layers = self.channels + (self._annotations.masks is not None)
        n_bytes = layers * sum(height * width for height, width in sizes.values())
        decoded, sound = None, tuple(sizes)
        if n_bytes < IN_MEMORY_BYTES if self.in_memory is None else self.in_memory:
            decoded, broken = sound_of(self._decode_whole, sound)
            sound, unreadable = tuple(decoded), (*unreadable, *broken)
        report_unreadable(self.path, unreadable, len(self.layout.names))
        if not sound:
            raise UserError(
                f"{self.path}: no picture is as large as a patch of {size_text(*sides(self.size))}; "
                f"{counted(small, 'smaller ones')}; set data.size to less"
            )
        return Found(Contents(sound, unreadable, None, 0, {name: shapes[name] for name in sound}), decoded)

    @cached_property
    def contents(self) -> Contents:
        return self._found.contents

    @cached_property
    def _cut_masks(self) -> "CutMasks | None":
        """Masks of the pictures in the size of these; None without masks."""
        files, contents = self._annotations.masks, self.contents
        if files is None:
            return None
        names = [name for name in contents.readable if name in files.of]
        keep = self._found.decoded is not None

        def read(name: str) -> MaskPixels:
            mask = read_mask_file(files, name, self._measured.sizes[name], whole=True)
            return mask if keep else mask._replace(values=torch.empty(0, dtype=torch.uint8))

        with ThreadPoolExecutor() as threads:
            found = dict(zip(names, threads.map(read, names), strict=True))
        coding = coding_of(files, found, contents.shapes)
        return CutMasks(
            files, coding, {n: coding(mask.values) for n, mask in found.items()} if keep else None
        )

    def _picture_at(self, names: Sequence[str], row: int) -> "Picture":
        """Pixels and mask of a picture of a split."""
        name, decoded = names[row], self._found.decoded
        return Picture(self._decode_whole(name) if decoded is None else decoded[name], self._mask_of(name))

    def _decode_whole(self, name: str) -> Tensor:
        return decode_whole(open_file(self.path, name), self._measured.sizes[name], self.channels)

    def _mask_of(self, name: str) -> Tensor | None:
        """Mask of a picture, uint8 (H, W); None if the data set has none."""
        masks = self._cut_masks
        if masks is None:
            return None
        size = self._measured.sizes[name]
        if name not in masks.files.of:
            return torch.full(size, UNLABELLED, dtype=torch.uint8)
        if masks.values is not None:
            return masks.values[name]
        return masks.coding(read_mask_file(masks.files, name, size, whole=True).values)


class Measured(NamedTuple):
    """Sizes of pictures.

    Attributes:
        shapes: (width, height) of the file of each picture, upright.
        sizes: Height and width of the pictures that are not smaller than a patch, after shrinking.
        small: Names of the smaller ones.
        unreadable: "name: reason" of files that cannot be read.
    """

    shapes: Mapping[str, tuple[int, int]]
    sizes: Mapping[str, Size]
    small: tuple[str, ...]
    unreadable: tuple[str, ...]


class Found(NamedTuple):
    """Pictures that can be cut, and their pixels, uint8 (C, H, W) by name, if they are kept in memory."""

    contents: Contents
    decoded: Mapping[str, Tensor] | None


class CutMasks(NamedTuple):
    """Masks, and their classes, uint8 (H, W) by the picture's name, if they are kept in memory."""

    files: MaskFiles
    coding: Coding
    values: Mapping[str, Tensor] | None


class Picture(NamedTuple):
    """Pixels of a picture, uint8 (C, H, W), and its mask, uint8 (H, W), or None."""

    pixels: Tensor
    mask: Tensor | None


# Splits -------------------------------------------------------------------------------------------


class Places(Protocol):
    """Places of the patches of a split."""

    def __len__(self) -> int: ...

    def of(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the pictures, int64 (n,), and top left corners, int64 (n, 2), of patches, int64 (n,)."""


class GridPlaces:
    """Places of a grid without overlap, in fair order.

    Args:
        names: Names of the pictures.
        sizes: Height and width of the pictures.
        size: Height and width of the patches.
    """

    def __init__(self, names: Sequence[str], sizes: Sequence[Size], size: Size):
        corners = [grid(*each, size) for each in sizes]
        rows = torch.arange(len(names)).repeat_interleave(torch.tensor([len(each) for each in corners]))
        keys = [
            f"{name} {top} {left}"
            for name, each in zip(names, corners, strict=True)
            for top, left in each.tolist()
        ]
        order = torch.tensor(fair_order(keys))
        self.rows, self.corners = rows[order], torch.cat(corners)[order]

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        return self.rows[keys], self.corners[keys]


class RandomPlaces:
    """Random places: pictures by their areas, all places in a picture alike; see `Patches`.

    Args:
        names: Names of the pictures.
        sizes: Height and width of the pictures.
        size: Height and width of the patches.
        positions: Number of patches for each one of the grid.
    """

    def __init__(self, names: Sequence[str], sizes: Sequence[Size], size: Size, positions: int):
        self.n = positions * sum(len(grid(*each, size)) for each in sizes)
        whole = np.array(sizes, dtype=np.int64)
        self.ends = whole.prod(1).cumsum()
        self.free = whole - np.array(size) + 1
        self.seeds = np.array([seed_of(name) for name in names], dtype=np.uint64)

    def __len__(self) -> int:
        return self.n

    def of(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        numbers = keys.numpy().astype(np.uint64)
        pixel = below(uniform_hashes(PICTURE_SEED, numbers), self.ends[-1])
        rows = np.searchsorted(self.ends, pixel, side="right")
        free = self.free[rows]
        place = below(uniform_hashes(self.seeds[rows], numbers), free.prod(1))
        corners = np.stack(np.divmod(place, free[:, 1]), 1)
        return torch.from_numpy(rows), torch.from_numpy(corners)


def below(uniform: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Whole numbers from 0 to n − 1, int64, by uniform numbers in [0, 1)."""
    return np.minimum((uniform * n).astype(np.int64), n - 1)  # a product may be rounded up to n


def seed_of(name: str) -> int:
    """64-bit seed by a name."""
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:8])


class Recent:
    """Pictures by their rows, of which those read last are kept, `RECENT_BYTES` of them.

    Args:
        read: Function from a row to a picture.
    """

    def __init__(self, read: Callable[[int], Picture]):
        self.read = read
        self.kept: OrderedDict[int, Picture] = OrderedDict()
        self.n_bytes = 0

    def __call__(self, row: int) -> Picture:
        if row in self.kept:
            self.kept.move_to_end(row)
            return self.kept[row]
        picture = self.kept[row] = self.read(row)
        self.n_bytes += bytes_of(picture)
        while self.n_bytes > RECENT_BYTES and len(self.kept) > 1:
            self.n_bytes -= bytes_of(self.kept.popitem(last=False)[1])
        return picture


def bytes_of(picture: Picture) -> int:
    """Memory of a picture."""
    return sum(part.numel() for part in picture if part is not None)


class PatchSplit(DecodedSplit):
    """Patches of pictures.

    A picture that turns out to be broken is left out: the next patch of a sound one stands in the place of
    each of its patches.

    Args:
        read: Function from the row of a picture to the picture; it may raise BrokenPicture.
        places: Places of the patches.
        size: Height and width of the patches.
        pictures: Names of the pictures.
        picture_labels: Labels of the pictures, int64 (number of pictures,).
        picture_attributes: Attributes of the pictures, (number of pictures, number of attributes), or None.

    Attributes:
        in_memory: Whether all pictures are in memory, so that the digest is that of their pixels.
    """

    in_memory = False

    def __init__(
        self,
        read: Callable[[int], Picture],
        places: Places,
        size: Size,
        pictures: Sequence[str],
        picture_labels: Tensor,
        picture_attributes: Tensor | None,
    ):
        super().__init__()
        self.read, self.places, self.size, self.pictures = read, places, size, pictures
        self.picture_labels, self.picture_attributes = picture_labels, picture_attributes

    def __len__(self) -> int:
        return len(self.places)

    def __getitems__(self, indices: list[int]) -> Batch:
        keys, rows, corners, found = self._sound(torch.as_tensor(indices))
        parts = [(found[row], corner[None]) for row, corner in zip(rows.tolist(), corners, strict=True)]
        images = torch.cat([cut(picture.pixels, corner, self.size) for picture, corner in parts])
        with_masks = [(picture.mask, corner) for picture, corner in parts if picture.mask is not None]
        masks = [cut(mask[None], corner, self.size)[:, 0] for mask, corner in with_masks]
        values = None if self.picture_attributes is None else self.picture_attributes[rows]
        return Batch(images, self.picture_labels[rows], keys, values, torch.cat(masks) if masks else None)

    def _sound(self, keys: Tensor) -> tuple[Tensor, Tensor, Tensor, dict[int, Picture]]:
        """Keys, rows, corners and pictures of patches; next ones stand in the place of those not readable."""
        while len(self.broken) < len(self.pictures):
            rows, corners = self.places.of(keys)
            read = {row: self.sound(row, self.read) for row in rows.unique().tolist()}
            found = {row: picture for row, picture in read.items() if picture is not None}
            if len(found) == len(read):
                return keys, rows, corners, found
            broken = torch.tensor([row not in found for row in rows.tolist()])
            keys = torch.where(broken, (keys + 1) % len(self), keys)
        raise UserError(f"none of the {len(self.pictures)} pictures can be decoded, e.g. {self.pictures[0]}")

    def rows(self) -> Tensor:
        """Row of the picture of every patch, int64 (n,)."""
        return torch.cat([self.places.of(keys)[0] for keys in torch.arange(len(self)).split(BLOCK)])

    @property
    def labels(self) -> Tensor:
        """Labels of all patches, int64 (n,)."""
        return self.picture_labels[self.rows()]

    @property
    def attributes(self) -> Tensor | None:  # type: ignore[override]
        """Attributes of all patches, (n, number of attributes), or None."""
        return None if self.picture_attributes is None else self.picture_attributes[self.rows()]

    @property
    def masks(self) -> Tensor | None:  # type: ignore[override]
        """Masks of all patches, uint8 (n, H, W), or None."""
        return None if self.first(1).masks is None else self.first(None).masks

    def name_of(self, index: int) -> str:
        rows, corners = self.places.of(torch.tensor([index]))
        top, left = corners[0].tolist()
        return f"{self.pictures[int(rows[0])]} at {left},{top}"

    def name_of_picture(self, index: int) -> str:
        return self.pictures[index]

    def digest(self) -> str:
        """SHA-256 of number and size of the patches, and of the pictures: names, files, values and pixels."""
        parts = (
            [part for row in range(len(self.pictures)) for part in self.read(row)] if self.in_memory else []
        )
        names = (*self.size, *self.pictures, *self.marks)
        return digest_of(len(self), names, *contents_of(self.picture_labels, self.picture_attributes, *parts))


# Pixels -------------------------------------------------------------------------------------------


def shrunk(height: int, width: int, short_side: int | None) -> Size:
    """Height and width of a picture whose short side is at most `short_side`; it is never enlarged."""
    scale = 1 if short_side is None else short_side / min(height, width)
    return (height, width) if scale >= 1 else (round(height * scale), round(width * scale))


def grid(height: int, width: int, size: Size) -> Tensor:
    """Top left corners of patches without overlap, from left to right, row by row: int64 (n, 2)."""
    rows, columns = height // size[0], width // size[1]
    tops, lefts = torch.arange(rows) * size[0], torch.arange(columns) * size[1]
    return torch.cartesian_prod(tops, lefts).reshape(-1, 2)


def cut(pixels: Tensor, corners: Tensor, size: Size) -> Tensor:
    """Cut patches out of a picture.

    Args:
        pixels: (C, H, W).
        corners: Top left corners, int64 (n, 2).
        size: Height and width of the patches.

    Returns:
        (n, C, *size).
    """
    height, width = size
    return torch.stack([pixels[:, top : top + height, left : left + width] for top, left in corners.tolist()])


def patches(pixels: Tensor, size: Size) -> Tensor:
    """Patches without overlap of a picture (C, H, W), from left to right, row by row: (n, C, *size)."""
    return cut(pixels, grid(pixels.shape[1], pixels.shape[2], size), size)
