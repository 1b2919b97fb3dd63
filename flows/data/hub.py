"""Data sets from the Hugging Face hub, or local folders in its layouts, through `datasets`."""

from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from flows.core.bounds import Bins, ImageSize
from flows.data.base import ImageData, SplitName, comes_sorted, fair_order, hold_out
from flows.data.decode import LazySplit, decoding, resize_transform, resized, sides
from flows.errors import DataMissing, UserError, missing_extra

__all__ = ["HubData"]

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

HELD_OUT = 0.05


class HubData(ImageData):
    """Images of a data set on the Hugging Face hub.

    Examples are uoft-cs/cifar10, flwrlabs/celeba and huggan/flowers-102-categories. `repo` may also be a
    local folder of parquet files or pictures, which needs no network. Images are decoded on access.

    Splits: those of the data set, by name. A missing validation or test split is 5 % of the training split
    (fixed permutation), which then excludes it.

    Args:
        repo: Name on the hub, or path of a local folder.
        subset: Configuration, for data sets that have several.
        image_column: Column with the pictures.
        label_column: Column with class labels or integers, None for no labels.
        size: Side of the square images in pixels, or height and width; other pictures are centre-cropped and
            resized.
        channels: Number of channels, 3 for RGB, 1 for grey.
        train: Name of the training split in the data set.
        validation: Name of the validation split in the data set.
        test: Name of the test split in the data set.
        bins: Number of grey levels that a model distinguishes; 32 for 5-bit images.

    Raises:
        DataMissing: `datasets` is not installed, or finds no data set of that name.
        UserError: The data set lacks a column or the training split.
    """

    name = "hub"
    path_arguments = ("repo",)

    def __init__(
        self,
        repo: str,
        subset: str | None = None,
        image_column: str = "image",
        label_column: str | None = "label",
        size: ImageSize = 32,
        channels: Literal[1, 3] = 3,
        train: str = "train",
        validation: str = "validation",
        test: str = "test",
        bins: Bins = 256,
    ):
        self.repo = repo
        self.subset = subset
        self.image_column = image_column
        self.label_column = label_column
        self.size = size
        self.channels = channels
        self.split_names: dict[SplitName, str] = {
            "train": train, "validation": validation, "test": test,
        }  # fmt: skip
        self.bins = bins
        self.image_shape = (channels, *sides(size))
        self.transform = f"{repo}, {resize_transform(size, channels)}"

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the labels, if the data set has any."""
        features = self._loaded[self.split_names["train"]].features
        return tuple(getattr(features.get(self.label_column), "names", ()))

    def split(self, name: SplitName) -> LazySplit:
        rows = self._rows(name)
        labels = self._labels(rows)
        if comes_sorted(labels):
            order = fair_order(range(len(rows)))
            rows, labels = rows.select(order), labels[order]
        pictures = rows.select_columns([self.image_column])
        return LazySplit(partial(self._decode, pictures), labels, names=partial(self._name, name))

    def _name(self, split: SplitName, index: int) -> str:
        return f"{self.repo}: image {index} of the {split} split"

    def _decode(self, pictures: "Dataset", index: int) -> Tensor:
        with decoding():
            picture = pictures[index][self.image_column]
            picture.load()
        return resized(picture, self.size, self.channels)

    def _labels(self, rows: "Dataset") -> Tensor:
        """Labels, int64 (n,)."""
        if self.label_column is None:
            return torch.full((len(rows),), -1)
        labels = torch.tensor(rows.with_format("numpy")[self.label_column][:])
        if labels.is_floating_point() or labels.dim() != 1:
            raise UserError(
                f"data.label_column: expected class labels in {self.label_column}; set it to null for none"
            )
        return labels.long()

    def _rows(self, name: SplitName) -> "Dataset":
        own = self.split_names[name]
        missing = [n for n in ("validation", "test") if self.split_names[n] not in self._loaded]
        if name != "train" and name not in missing:
            return self._loaded[own]
        train = self._loaded[self.split_names["train"]]
        kept = torch.arange(len(train))
        for seed, other in enumerate(missing):
            left, held_out = hold_out(len(kept), HELD_OUT, seed)
            if other == name:
                return train.select(kept[held_out].tolist())
            kept = kept[left]
        return train.select(kept.tolist()) if missing else train

    @cached_property
    def _loaded(self) -> "DatasetDict":
        try:
            from datasets import load_dataset

            loaded = load_dataset(self.repo, self.subset)
        except ImportError as error:
            raise missing_extra("hub data sets need the package `datasets`", "data", error) from error
        except (OSError, RuntimeError, ValueError) as error:
            raise DataMissing(f"data.repo: {self.repo} cannot be loaded: {error}") from error
        self._check(loaded)
        return loaded

    def _check(self, loaded: "DatasetDict") -> None:
        """Raise UserError if a split or column named in the config is missing."""
        train = self.split_names["train"]
        if train not in loaded:
            raise UserError(f"data.train: {self.repo} has the splits {', '.join(loaded)}, not {train}")
        columns = loaded[train].column_names
        for column in filter(None, (self.image_column, self.label_column)):
            if column not in columns:
                raise UserError(
                    f"{self.repo} has the columns {', '.join(columns)}, not {column}; set "
                    "data.image_column and data.label_column (null for no labels)"
                )
