"""Splits and labels of pictures that follow from the folders they are in."""

import os
from collections.abc import Mapping
from pathlib import PurePosixPath

from flows.data.base import SplitName, hashed_split

SPLIT_FOLDERS: dict[str, SplitName] = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation",
    "val": "validation", "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip
"""Names of the folders of splits, in any case."""


class Layout:
    """Splits and labels that follow from the names of pictures; see `Folder`.

    Args:
        names: Relative names of all pictures, with / between folders.
        validation: Share held out for validation if the split has no folder.
        test: Share held out for test if the split has no folder.
        listed: Name of a picture to the split that a table has for it; None if no table has any. Pictures
            that are not listed then belong to no split, or to the training split if no picture is listed
            for it.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        validation: float,
        test: float,
        listed: Mapping[str, SplitName] | None = None,
    ):
        self.names, self.listed = names, listed
        self.shares = (validation, test)
        self.top = shared_folders(names)
        tops = {self._parts(n)[0] for n in names if len(self._parts(n)) > 1}
        folders = {top: split for top in sorted(tops) if (split := SPLIT_FOLDERS.get(top.lower()))}
        named = {"train"} < set(folders.values())
        self.folders: dict[str, SplitName] = folders if named else {}
        self.own_folders = set(self.folders.values())
        first = {parts[0] for name in names if len(parts := self._below_split(name)) > 1}
        self.class_names = tuple(sorted(first)) if len(first) > 1 else ()

    def split_of(self, name: str) -> SplitName | None:
        """Return the split of a picture; None if it is in none of the folders of splits, or not listed."""
        validation, test = self.shares
        if self.listed is not None:
            given = set(self.listed.values())
            split = self.listed.get(name, None if "train" in given else "train")
        elif self.own_folders:
            given, split = self.own_folders, self.folders.get(self._parts(name)[0])
        else:
            return hashed_split(name, validation, test)
        if split != "train":
            return split
        missing = {"validation": validation, "test": test}
        shares = {each: 0.0 if each in given else share for each, share in missing.items()}
        return hashed_split(name, **shares)

    def label(self, name: str) -> int:
        """Return the class index of a picture, or −1."""
        parts = self._below_split(name)
        return self.class_names.index(parts[0]) if self.class_names and len(parts) > 1 else -1

    def _parts(self, name: str) -> tuple[str, ...]:
        return PurePosixPath(name).parts[self.top :]

    def _below_split(self, name: str) -> tuple[str, ...]:
        parts = self._parts(name)
        return parts[1:] if parts[0] in self.folders else parts


def shared_folders(names: tuple[str, ...]) -> int:
    """Return the number of top-level folders that contain everything, as in an archive of one folder.

    They carry no information about classes. A folder named like a split is not counted.
    """
    folders = [PurePosixPath(name).parts[:-1] for name in names]
    shared = os.path.commonprefix(folders)
    return next((i for i, part in enumerate(shared) if part.lower() in SPLIT_FOLDERS), len(shared))
