"""Report on a folder of pictures before anything is trained: sizes, labels, values, faults, duplicates."""

import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flows.data.base import SPLITS, UNLABELLED, Attribute, ImageData, SplitName, fair_order, hashed_split
from flows.data.decode import sides
from flows.data.duplicates import across_splits, exact_groups, joined, near_pairs
from flows.data.folder import Folder
from flows.display.drawing import Sheet, new_figure
from flows.display.formats import Format
from flows.display.page import write_page
from flows.display.table import Table
from flows.errors import DataMissing
from flows.storage.files import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes  # imported only where a figure is made
    from matplotlib.figure import Figure

    from flows.display.drawing import Drawn

SHOWN = 12
"""Number of pictures in a row of the sheet."""
MOST_COMPARED = 20_000
"""Largest number of pictures that are compared with each other."""
FEW = 10
"""Number of pictures below which a class, or a side of a value, is said to have few."""
BARS = 24
"""Largest number of classes with a bar."""
HELD_OUT = 20
"""Number of pictures that proposed splits hold out for validation and for test, at least a twentieth."""
SPLITS_FILE = "splits.csv"


@dataclass(frozen=True)
class Proposal:
    """Training that fits the data.

    Attributes:
        config: Name of the config.
        command: Command.
        images: Number of images that the run shows.
        recipe: Number of pictures from which on the config's recipe applies; None without recipes.
        minutes: Minutes of the run on this machine; None if it was not measured.
    """

    config: str
    command: str
    images: int
    recipe: int | None = None
    minutes: float | None = None

    def line(self) -> str:
        """Sentence for the terminal."""
        took = "" if self.minutes is None else f", about {max(1, round(self.minutes))} minutes here"
        return f"{self.config}: {self.images:,} images{took}: {self.command}"


@dataclass(frozen=True)
class Inspection:
    """Contents of a folder of pictures.

    Attributes:
        data: Folder.
        names: Names of the n readable pictures.
        splits: Split of each picture; empty for those that are in none.
        shapes: (width, height) of each picture's file, upright.
        labels: int64 (n,), label of each picture.
        values: (n, number of attributes), NaN where a value is missing.
        exact: Groups of pictures with the same pixels.
        near: Pairs of pictures that are nearly equal.
        remarks: Sentences on what could not be found out.
        proposals: Trainings that fit the data.
    """

    data: Folder
    names: Sequence[str]
    splits: Sequence[str]
    shapes: Sequence[tuple[int, int]]
    labels: Tensor
    values: Tensor
    exact: list[list[int]]
    near: list[tuple[int, int]]
    remarks: Sequence[str] = ()
    proposals: Sequence[Proposal] = ()

    @property
    def leaks(self) -> list[list[int]]:
        """Groups and pairs of pictures that are in more than one split."""
        return across_splits([*self.exact, *self.near], self.splits)

    @property
    def notes(self) -> list[str]:
        """Sentences on the whole: numbers, faults, duplicates, and what to train."""
        data = self.data
        copies = sum(len(group) - 1 for group in self.exact)
        duplicates = f"duplicates: {copies:,} exact, {len(self.near):,} near"
        leaks = self.leaks
        broken, leak = data.unreadable, "in two splits, so that held-out figures are too good"
        return [
            data.summary({name: self.splits.count(name) for name in SPLITS}),
            *data.notes(),
            *([f"cannot be read: {len(broken):,} ({'; '.join(broken[:3])})"] if broken else []),
            f"{duplicates}{self.examples([*self.exact, *self.near])}",
            *([f"{leak}: {len(leaks):,}{self.examples(leaks)}"] if leaks else []),
            *self.remarks,
            *too_few(self),
            *splits_note(self),
            *(each.line() for each in self.proposals),
        ]

    def examples(self, groups: Sequence[Sequence[int]]) -> str:
        """First group of pictures by name, in brackets; empty without any."""
        return f" ({' and '.join(self.names[i] for i in groups[0][:3])})" if groups else ""

    def tables(self) -> list[Table]:
        """Numbers of pictures by class and split, and the values of the tables."""
        tables = [class_table(self)] if self.data.class_names else []
        return tables + ([value_table(self)] if self.data.attributes else [])

    def save(self, out: Path, title: str, formats: Sequence[Format] = ()) -> list[str]:
        """Write index.html with its pictures; returns the names of the files.

        Args:
            out: Output folder.
            title: Title of the page.
            formats: Additional formats; see `flows.display.formats.Formats`.
        """
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        tables = {
            "classes" if table.columns[0] == "class" else "attributes": table for table in self.tables()
        }
        before = notes + "".join(table.html() for table in tables.values())
        sheets: dict[str, Drawn] = {"pictures": sheet(self), "sizes": size_plot(self)}
        if self.data.class_names or self.data.attributes:
            sheets["values"] = value_plots(self)
        written = write_page(out, title, sheets, before, "", tables, formats)
        if not splits_note(self):
            return written
        rows = "".join(f"{as_cell(name)},{split}\n" for name, split in proposed_splits(self).items())
        write_text(out / SPLITS_FILE, f"file_name,split\n{rows}")
        return [*written, SPLITS_FILE]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        widths, heights = (sorted(part) for part in zip(*self.shapes, strict=True))
        middle = len(self.shapes) // 2
        return {
            "pictures": len(self.names),
            "splits": {name: self.splits.count(name) for name in SPLITS},
            "sizes": {
                "smallest": [widths[0], heights[0]],
                "median": [widths[middle], heights[middle]],
                "largest": [widths[-1], heights[-1]],
                "smaller_than_images": self.data.contents.small,
            },
            "classes": {name: int((self.labels == i).sum()) for i, name in enumerate(self.data.class_names)},
            "attributes": {
                each.name: facts_of(each, column)
                for each, column in zip(self.data.attributes, self.values.T, strict=True)
            },
            "mask_classes": mask_shares(self.data),
            "unreadable": list(self.data.unreadable),
            "exact_duplicates": [[self.names[i] for i in group] for group in self.exact],
            "near_duplicates": [[self.names[i] for i in pair] for pair in self.near],
            "across_splits": [[self.names[i] for i in group] for group in self.leaks],
            "notes": self.notes,
            "proposals": [vars(each) for each in self.proposals],
        }


def inspect(data: Folder) -> Inspection:
    """Read a folder, and find duplicates among its pictures."""
    contents = data.contents
    splits = [data.layout.split_of(name) or "" for name in contents.readable]
    names = list(contents.readable)
    remarks, exact, near = [], list[list[int]](), list[tuple[int, int]]()
    if contents.pixels is None or len(names) > MOST_COMPARED:
        remarks.append("duplicates are not looked for: the pictures are too many for the memory")
    else:
        exact = exact_groups(contents.pixels)
        try:
            near = near_pairs(contents.pixels)
        except DataMissing as error:
            remarks.append(str(error))
    values = data.values_of(names)
    return Inspection(
        data=data,
        names=names,
        splits=splits,
        shapes=[contents.shapes[name] for name in names],
        labels=data.labels_of(names),
        values=torch.empty(len(names), 0) if values is None else values,
        exact=exact,
        near=near,
        remarks=remarks,
    )


def too_few(found: Inspection) -> list[str]:
    """Sentences on classes and values of which there are too few to learn or to measure."""
    counts = Counter(found.labels.tolist())
    rare = [f"{name} ({counts[i]})" for i, name in enumerate(found.data.class_names) if counts[i] < FEW]
    notes = [f"classes with few pictures: {', '.join(rare)}"] if rare else []
    for attribute, column in zip(found.data.attributes, found.values.T, strict=True):
        known = column[~column.isnan()]
        if attribute.kind == "binary" and (smaller := int(min(known.sum(), len(known) - known.sum()))) < FEW:
            notes.append(f"{attribute.name}: only {smaller} pictures are on one side")
    return notes


def proposed_splits(found: Inspection) -> dict[str, SplitName]:
    """Splits by a hash that keep equal and nearly equal pictures together, and hold out enough to measure."""
    n = len(found.names)
    share = max(0.05, min(0.2, HELD_OUT / n))
    family = joined(n, found.near, found.exact).tolist()
    first = {number: name for number, name in zip(reversed(family), reversed(found.names), strict=True)}
    return {
        name: hashed_split(first[number], share, share)
        for name, number in zip(found.names, family, strict=True)
    }


def splits_note(found: Inspection) -> list[str]:
    """Sentence on the file of proposed splits, where duplicates leak or too few pictures are held out."""
    held = [found.splits.count(name) for name in SPLITS[1:]]
    why = "duplicates stay in one split" if found.leaks else ""
    if not why and min(held) < min(HELD_OUT, len(found.names) // 5):
        why = f"{min(held)} pictures of a split measure little"
    way = f"{SPLITS_FILE} proposes other splits; copied into the folder, it is used"
    return [f"{why}: {way}"] if why and len(found.names) >= 2 * FEW else []


def as_cell(text: str) -> str:
    """Text as a cell of a table with commas."""
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\n\r') else text


# Tables -------------------------------------------------------------------------------------------


def class_table(found: Inspection) -> Table:
    """Numbers of pictures by class and split."""
    rows = []
    for i, name in enumerate(found.data.class_names):
        of = [split for split, label in zip(found.splits, found.labels.tolist(), strict=True) if label == i]
        rows.append([name, *(str(of.count(split)) for split in SPLITS)])
    without = int((found.labels < 0).sum())
    return Table(["class", *SPLITS], [*rows, *([["none", str(without), "", ""]] if without else [])])


def value_table(found: Inspection) -> Table:
    """Attributes with their kinds, values, and numbers of missing values."""
    rows = [
        [each.name, each.kind, summary(each, column), str(int(column.isnan().sum()))]
        for each, column in zip(found.data.attributes, found.values.T, strict=True)
    ]
    return Table(["attribute", "kind", "values", "missing"], rows)


def summary(attribute: Attribute, column: Tensor) -> str:
    """Values of an attribute in a line."""
    known = column[~column.isnan()]
    if attribute.kind == "binary":
        return f"{int(known.sum())} yes, {len(known) - int(known.sum())} no"
    if attribute.kind == "category":
        counts = [(int((known == i).sum()), name) for i, name in enumerate(attribute.classes)]
        listed = [f"{count} {name}" for count, name in sorted(counts, reverse=True)]
        return ", ".join(listed[:4]) + (", …" if listed[4:] else "")
    low, median, high = (float(known.double().quantile(q)) for q in (0, 0.5, 1))
    return f"{low:.4g} … {high:.4g}, median {median:.4g}"


def facts_of(attribute: Attribute, column: Tensor) -> dict[str, Any]:
    """Plain values of an attribute."""
    known = column[~column.isnan()]
    return {
        "kind": attribute.kind,
        "missing": int(column.isnan().sum()),
        "values": summary(attribute, column),
        "distinct": len(known.unique()),
    }


def mask_shares(data: Folder) -> dict[str, float]:
    """Share of the labelled pixels of each class of the masks; empty without masks."""
    if data.class_masks is None:
        return {}
    labelled = int((data.class_masks.values != UNLABELLED).sum())
    return {
        name: int((data.class_masks.values == i).sum()) / labelled for i, name in enumerate(data.mask_classes)
    }


# Pictures -----------------------------------------------------------------------------------------


def sheet(found: Inspection) -> Sheet:
    """Some pictures as a model sees them, by class, and those that occur twice beside each other."""
    pixels = found.data.contents.pixels

    def of(rows: Sequence[int]) -> Tensor:
        return torch.stack(
            [pixels[i] if pixels is not None else found.data.decode(found.names[i])[0] for i in rows]
        )

    order = fair_order(list(found.names))
    rows = []
    for i, name in enumerate(found.data.class_names[:BARS]):
        if chosen := [j for j in order if int(found.labels[j]) == i][:SHOWN]:
            rows.append((name, of(chosen)))
    if not rows:
        rows.append(("pictures", of(order[:SHOWN])))
    if twice := [i for group in [*found.exact, *found.near] for i in group[:2]][:SHOWN]:
        rows.append(("duplicates", of(twice)))
    return Sheet(rows, SHOWN, side=64)


def size_plot(found: Inspection) -> "Figure":
    """Width and height of every file, with the size of the images."""
    figure = new_figure(4.6, 4)
    axes = figure.subplots()
    widths, heights = zip(*found.shapes, strict=True)
    axes.scatter(widths, heights, s=8, alpha=0.4, linewidths=0)
    height, width = sides(found.data.size)
    axes.axvline(width, color="0.6", linewidth=1, linestyle="--")
    axes.axhline(height, color="0.6", linewidth=1, linestyle="--")
    axes.set(xscale="log", yscale="log", xlabel="width, pixels", ylabel="height, pixels")
    axes.set_title(f"files; dashed: images of {width}×{height}", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def value_plots(found: Inspection) -> "Figure":
    """Bars of classes and histograms of numbers."""
    panels: list[tuple[str, Attribute, Tensor]] = []
    if found.data.class_names and not any(each.name in ("class", "label") for each in found.data.attributes):
        labels = found.labels.float().where(found.labels >= 0, torch.nan)
        panels.append(("class", Attribute("class", "category", classes=found.data.class_names), labels))
    panels += [(a.name, a, column) for a, column in zip(found.data.attributes, found.values.T, strict=True)]
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    figure = new_figure(3.2 * columns, 2.6 * lines)
    axes = figure.subplots(lines, columns, squeeze=False)
    for panel in axes.flat[len(panels) :]:
        panel.set_visible(False)
    for panel, (name, attribute, column) in zip(axes.flat, panels, strict=False):
        _histogram(panel, attribute, column[~column.isnan()])
        panel.set_title(name, fontsize=9)
        panel.tick_params(labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def _histogram(axes: "Axes", attribute: Attribute, known: Tensor) -> None:
    if attribute.kind in ("real", "circular"):
        axes.hist(known.tolist(), bins=20, color="C0")
        return
    names = attribute.classes or ("no", "yes")
    counts = sorted(((int((known == i).sum()), name) for i, name in enumerate(names)), reverse=True)[:BARS]
    bars = axes.barh([name for _, name in counts[::-1]], [count for count, _ in counts[::-1]], color="C0")
    axes.bar_label(bars, padding=2, fontsize=7)
    axes.margins(x=0.15)


def proposed(data: ImageData) -> list[str]:
    """Names of the configs of trainings that fit a data set."""
    semantic = ["folder/predictor"] if data.all_attributes() else []
    return ["folder/glow", *semantic, *(["folder/segmenter"] if data.mask_classes else [])]
