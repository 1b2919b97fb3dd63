"""Report of `flows dissect`: units by layer, galleries with outlined activations, and ablations."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from flows import images as pixels
from flows.core.once import prepared
from flows.display.drawing import Sheet, new_figure
from flows.display.formats import Format
from flows.display.notebook import ShownInNotebooks
from flows.display.page import as_text, write_page
from flows.display.table import Table
from flows.dissection.agreement import UnitRow, counts
from flows.dissection.artefacts import Cleaning
from flows.dissection.causal import Ablation
from flows.dissection.intervention import Insertion
from flows.dissection.probe import instrument
from flows.models.base import LatentModel
from flows.models.codes import Codes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from flows.display.drawing import Drawn

SIDE = 72
"""Side of an image in a gallery, in pixels."""


RULES = {
    "interpretable": "released rule of GAN dissection: the class of a unit has the highest information "
    "quality, at a threshold above 0; its IoU exceeds 0.05 and its information quality 0.01 on other images",
    "interpretable_by_iou": "the class of a unit has the highest IoU, at any threshold; the same minima",
}
"""Rules by which units count as interpretable."""


@dataclass(frozen=True, kw_only=True)
class Dissected(ShownInNotebooks):
    """Results of a dissection.

    Attributes:
        settings: Settings of the dissection, stored with the results.
        codes: Number of codes.
        rows: Class of each unit by the released rule of GAN dissection.
        rows_by_iou: Class of each unit with the highest IoU.
        best: Best unit of each class.
        ablations: Ablations, one per class that is present.
        gallery: Units with their top images, RGB, in which the activation is outlined.
        insertions: Insertions of classes.
        cleaning: Ablation of the units of an artefact.
        missing: Sentences on classes to which no unit responds.
    """

    settings: dict[str, Any]
    codes: int
    rows: list[UnitRow]
    rows_by_iou: list[UnitRow]
    best: list[UnitRow]
    ablations: list[Ablation]
    gallery: list[tuple[UnitRow, list[Image.Image]]]
    insertions: list[Insertion] = field(default_factory=list)
    cleaning: Cleaning | None = None
    missing: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """Sentences on missing classes, and on the two rules of the table."""
        rules = (
            "interpretable: by the released rule of GAN dissection; by IoU: the class with the highest IoU"
        )
        return [*self.missing, rules]

    def save(self, out: Path, title: str = "Units", formats: Sequence[Format] = ()) -> list[str]:
        """Write index.html and the pictures of all parts that are present; returns the names of the files.

        Args:
            out: Output folder.
            title: Title of the page.
            formats: Additional formats; see `flows.display.formats.Formats`.
        """
        return write_dissection_report(out, title, self, formats)

    def tables(self) -> list[Table]:
        """Units by layer, then ablations, insertions and the artefact, if there are any."""
        return list(self.named_tables().values())

    def named_tables(self) -> dict[str, Table]:
        """Tables of `tables` by the names of their files."""
        found = {
            "layers": layer_table(self.rows, self.rows_by_iou),
            "ablations": ablation_table(self.ablations),
            **{f"insertion-{each.label}": contexts_table(each) for each in self.insertions},
            **({"artefact": cleaning_table(self.cleaning)} if self.cleaning else {}),
        }
        return {name: table for name, table in found.items() if table}

    def as_dict(self) -> dict[str, Any]:
        """Fields as plain values, without the gallery."""
        return {
            **self.settings,
            "rules": RULES,
            "layers": {
                layer: {
                    "units": units,
                    "interpretable": interpretable,
                    "classes": labels,
                    "interpretable_by_iou": by_iou[1],
                    "classes_by_iou": by_iou[2],
                }
                for (layer, (units, interpretable, labels)), by_iou in zip(
                    counts(self.rows).items(), counts(self.rows_by_iou).values(), strict=True
                )
            },
            "units": [row.as_dict() for row in self.rows],
            "units_by_iou": [row.as_dict() for row in self.rows_by_iou],
            "best": {row.label: row.as_dict() for row in self.best},
            "ablations": [vars(each) for each in self.ablations],
            "insertions": [each.as_dict() for each in self.insertions],
            "artefact": self.cleaning.as_dict() if self.cleaning else None,
        }


def write_dissection_report(
    out: Path, title: str, found: Dissected, formats: Sequence[Format] = ()
) -> list[str]:
    """Write index.html and the pictures of all parts that are present; returns the names of the files."""
    sheets: dict[str, Drawn] = {"layers": layer_bars(found.rows)}
    if found.gallery:
        sheets["gallery"] = gallery_sheet(found.gallery)
    if found.ablations:
        sheets["ablation"] = ablation_curves(found.ablations)
    sheets |= {f"insertion-{each.label}": insertion_sheet(each) for each in found.insertions}
    if found.cleaning:
        sheets["artefact"] = cleaning_sheet(found.cleaning)
    shown = [row for row in sorted(found.rows, key=lambda row: -row.iou) if row.interpretable]
    tables = {"units": unit_table(found.best), **found.named_tables()}
    on_page = [table for name, table in tables.items() if name not in ("layers", "ablations")]
    after = "".join(table.html() for table in on_page)
    listed = unit_table(shown).html()
    after += f"<details><summary>{len(shown)} interpretable units</summary>{listed}</details>"
    by_iou = sum(row.interpretable for row in found.rows_by_iou)
    after += f"<p>{len(shown)} units: {RULES['interpretable']}. {by_iou} units: "
    after += f"{RULES['interpretable_by_iou']}.</p>"
    return write_page(out, title, sheets, after=after, tables=tables, formats=formats)


def unit_table(rows: Sequence[UnitRow]) -> Table:
    """Table of units with their classes."""
    head = ("class", "layer", "unit", "IoU", "information quality", "active share")
    lines = [
        [
            row.label,
            row.layer,
            str(row.unit),
            as_text(row.iou),
            as_text(row.information),
            as_text(row.share),
        ]
        for row in rows
    ]
    return Table(head, lines)


def layer_table(rows: Sequence[UnitRow], by_iou: Sequence[UnitRow]) -> Table:
    """Numbers of units and of interpretable units of each layer, by both rules of `RULES`."""
    head = ["layer", "units", "interpretable", "classes", "interpretable, by IoU"]
    both = zip(counts(rows).items(), counts(by_iou).values(), strict=True)
    return Table(head, [[name, *map(str, numbers), str(others[1])] for (name, numbers), others in both])


def ablation_table(found: Sequence[Ablation]) -> Table:
    """Share of each class's pixels that its units remove, beside random units."""
    return Table(
        ["class", "layer", "units ablated", "removed", "by random units"],
        [
            [each.label, each.layer, str(each.sizes[-1]), as_text(each.removed[-1]), as_text(each.random[-1])]
            for each in found
        ],
    )


def layer_bars(rows: Sequence[UnitRow]) -> "Figure":
    """Bars of the number of units of each layer; interpretable units are coloured by class."""
    found = counts(rows)
    labels = sorted({row.label for row in rows if row.interpretable})
    figure = new_figure(8.5, 1.2 + 0.34 * len(found))
    axes = figure.subplots()
    places = {layer: i for i, layer in enumerate(found)}
    axes.barh(list(places.values()), [units for units, _, _ in found.values()], color="0.92")
    left = dict.fromkeys(found, 0)
    for i, label in enumerate(labels):
        widths = {
            layer: sum(row.layer == layer and row.label == label and row.interpretable for row in rows)
            for layer in found
        }
        axes.barh(
            list(places.values()),
            list(widths.values()),
            left=list(left.values()),
            label=label,
            color=f"C{i % 10}",
            hatch="//" if i >= 10 else None,
            edgecolor="white",
            linewidth=0.4,
        )
        left = {layer: left[layer] + widths[layer] for layer in found}
    axes.set_yticks(list(places.values()), list(places), fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("units (interpretable: coloured by class)")
    axes.spines[["top", "right"]].set_visible(False)
    if labels:
        axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def ablation_curves(found: Sequence[Ablation]) -> "Figure":
    """Curves of the share of a class's pixels removed by ablating the best units and random units."""
    columns = min(4, len(found))
    rows = -(-len(found) // columns)
    figure = new_figure(2.6 * columns, 2.2 * rows)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, each in zip(panels, found, strict=False):
        axes.plot(each.sizes, each.removed, "o-", color="C3", markersize=3, label="best units")
        axes.plot(each.sizes, each.random, "o-", color="0.6", markersize=3, label="random units")
        axes.set_ylim(-0.25, 1.05)
        axes.axhline(0, color="0.85", linewidth=0.6)
        axes.set_title(f"{each.label}\n{each.layer}", fontsize=7.5)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(fontsize=7, frameon=False)
    for axes in panels[len(found) :]:
        axes.set_visible(False)
    figure.supxlabel("ablated units", fontsize=8)
    figure.supylabel("share of the class's pixels removed", fontsize=8)
    return figure


# Artefacts and insertions -------------------------------------------------------------------------


def cleaning_table(found: Cleaning) -> Table:
    """Remaining artefact and KID by the number of ablated units."""
    head = ["ablated units", "images with it, %", "share of all pixels, %", "KID to images without it"]
    columns = zip(found.sizes, found.images, found.area, found.distance, strict=True)
    rows = [
        [str(size), as_text(100 * images), as_text(100 * area), as_text(distance)]
        for size, images, area, distance in columns
    ]
    return Table(head, [*rows, ["halves of the latter", "", "", as_text(found.floor)]])


def cleaning_sheet(found: Cleaning) -> Sheet:
    """Sheet of the same samples with an increasing number of ablated units."""
    rows = [
        (f"{size} of {found.layer} ablated" if size else f"{found.label}: generated", shown)
        for size, shown in zip(found.sizes, found.shown, strict=True)
    ]
    return Sheet(rows)


def insertion_sheet(found: Insertion, shown: int = 10) -> Sheet:
    """Sheet of images, and of the gain of the class at each location, overlaid in green."""
    images = found.images[:shown]
    if images.shape[1] == 1:
        images = images.expand(-1, 3, -1, -1)
    gains = interpolate(found.gains[:shown, None].clamp(0, 1), images.shape[2:], mode="nearest")
    green = torch.tensor([0.0, 255.0, 0.0])[:, None, None]
    over = images * (1 - 0.6 * gains) + 0.6 * gains * green
    return Sheet([("generated", images), (f"{found.label}, gain by location", over.byte())])


def contexts_table(found: Insertion) -> Table:
    """Class before the insertion, mean gain, and number of locations."""
    head = [f"{found.label} inserted into", "gain, % of pixels", "locations"]
    rows = [[name, as_text(100 * gain), str(count)] for name, (gain, count) in found.contexts.items()]
    return Table(head, rows)


# Galleries ----------------------------------------------------------------------------------------


@torch.no_grad()
def top_images(
    model: LatentModel, codes: Codes, units: Sequence[UnitRow], top: int = 8
) -> list[tuple[UnitRow, list[Image.Image]]]:
    """Images with the highest activation of each unit; regions above the threshold are outlined."""
    layers = list(dict.fromkeys(row.layer for row in units))
    best: list[list[tuple[float, Tensor, Tensor]]] = [[] for _ in units]
    with instrument(model, codes.space) as probe, prepared():
        probe.retain(*layers)
        for _, images in probe.batches(codes):
            shown = pixels.to_bytes(images, model.bins).cpu()
            for kept, row in zip(best, units, strict=True):
                h = probe.kept[row.layer][:, row.unit].float().cpu()
                strength = h.flatten(1).amax(1)
                for i in strength.topk(min(top, len(h))).indices.tolist():
                    kept.append((float(strength[i]), shown[i], h[i]))
                kept.sort(key=lambda item: -item[0])
                del kept[top:]
    return [
        (row, [outlined(image, h, row.threshold) for _, image, h in kept])
        for row, kept in zip(units, best, strict=True)
    ]


def outlined(image: Tensor, activation: Tensor, threshold: float) -> Image.Image:
    """Image with the edge of the active region in yellow, and the area outside it darkened."""
    large = (
        interpolate(activation[None, None], (SIDE, SIDE), mode="bilinear", align_corners=False)[0, 0]
        > threshold
    )
    small = pixels.to_pillow(image).convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST)
    colours = pixels.from_pillow(small, 3).float()
    colours = torch.where(large, colours, 0.45 * colours)
    padded = torch.nn.functional.pad(large[None].float(), (1, 1, 1, 1), mode="replicate")
    inner = -torch.nn.functional.max_pool2d(-padded, 3, 1)[0]
    edge = large & (inner < 1)
    colours[:, edge] = torch.tensor([255.0, 230.0, 0.0])[:, None]
    return pixels.to_pillow(colours.byte())


def gallery_sheet(found: Sequence[tuple[UnitRow, list[Image.Image]]]) -> Sheet:
    """Sheet with a row of top images for each unit, labelled with its class."""
    return Sheet(
        [
            (
                f"{row.label}: IoU {row.iou:.2f}, {row.layer}, unit {row.unit}",
                torch.stack([pixels.from_pillow(each, 3) for each in pictures]),
            )
            for row, pictures in found
        ],
        side=SIDE,
    )
