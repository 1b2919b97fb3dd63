"""Data sets of the Hugging Face hub, or local folders in its layouts, through `datasets`."""

from functools import cached_property, partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from flows.data.base import ImageData, SplitName, hold_out
from flows.data.decode import LazySplit, square, square_transform
from flows.errors import DataMissing, UserError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

HELD_OUT = 0.05


class HubData(ImageData):
    """Images of a hub data set.

    Such as uoft-cs/cifar10, flwrlabs/celeba or huggan/flowers-102-categories. `repo` may also be a
    local folder of parquet files or pictures, which needs no network. Pictures are decoded when
    asked for.

    Splits: those of the data set by name. A validation or test split that it lacks is 5 % of its
    training split each (fixed permutation), which then loses them.

    Args:
        repo: name on the hub, or path of a local folder.
        subset: the configuration, for data sets that have several.
        image_column: column with the pictures.
        label_column: column with class labels or integers, None for no labels.
        size: side of the square images in pixels; others are centre-cropped and resized.
        channels: 3 for RGB, 1 for grey.
        train: the data set's name for its training split.
        validation: its name for the validation split.
        test: its name for the test split.
        bins: number of grey levels a model should tell apart; 32 for 5-bit pictures.

    Raises:
        DataMissing: if `datasets` is not installed, or finds nothing of that name.
        ValueError: for a column or training split that the data set does not have.
    """

    name = "hub"

    def __init__(
        self,
        repo: str,
        subset: str | None = None,
        image_column: str = "image",
        label_column: str | None = "label",
        size: int = 32,
        channels: Literal[1, 3] = 3,
        train: str = "train",
        validation: str = "validation",
        test: str = "test",
        bins: int = 256,
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
        self.image_shape = (channels, size, size)
        self.transform = f"{repo}, {square_transform(size, channels)}"

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The names of the labels, if the data set has any."""
        features = self._loaded[self.split_names["train"]].features
        return tuple(getattr(features.get(self.label_column), "names", ()))

    def split(self, name: SplitName) -> LazySplit:
        rows = self._rows(name)
        pictures = rows.select_columns([self.image_column])
        return LazySplit(partial(self._decode, pictures), self._labels(rows))

    def _decode(self, pictures: "Dataset", index: int) -> Tensor:
        return square(pictures[index][self.image_column], self.size, self.channels)

    def _labels(self, rows: "Dataset") -> Tensor:
        """int64 (n,)."""
        if self.label_column is None:
            return torch.full((len(rows),), -1)
        labels = torch.tensor(rows.with_format("numpy")[self.label_column][:])
        if labels.is_floating_point() or labels.dim() != 1:
            raise UserError(f"data.label_column: {self.label_column} does not hold class labels")
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

            found = load_dataset(self.repo, self.subset)
        except ImportError as error:
            raise DataMissing(
                f'hub data sets need `datasets` ({error}); `pip install -e ".[data]"` brings it'
            ) from error
        except (OSError, RuntimeError) as error:
            raise DataMissing(f"data.repo: {self.repo} is not to be had: {error}") from error
        self._check(found)
        return found

    def _check(self, found: "DatasetDict") -> None:
        """Raise ValueError where a split or column named in the config is not there."""
        train = self.split_names["train"]
        if train not in found:
            raise UserError(f"data.train: {self.repo} has the splits {', '.join(found)}, not {train}")
        columns = found[train].column_names
        for column in filter(None, (self.image_column, self.label_column)):
            if column not in columns:
                raise UserError(
                    f"{self.repo} has the columns {', '.join(columns)}, not {column}; set "
                    "data.image_column and data.label_column (null for no labels)"
                )
