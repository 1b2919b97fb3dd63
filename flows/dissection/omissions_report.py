"""Report of `flows omissions`: class shares, classes that images lose, and energy maps of a flow."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from flows.core.extras import optional
from flows.display.drawing import Sheet, new_figure
from flows.display.formats import Format
from flows.display.notebook import ShownInNotebooks
from flows.display.page import as_interval, as_text, write_page
from flows.display.table import Table
from flows.dissection.omission import EnergyRow, Omissions

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # imported only where a figure is made

    from flows.display.drawing import Drawn


@dataclass(frozen=True)
class Instances:
    """Real images and their reconstructions.

    Attributes:
        how: Name of the inverter.
        images, reconstruction: uint8 (n, C, H, W), images and reconstructions.
        lost: Classes that an image has and its reconstruction lacks, for each image.
    """

    how: str
    images: Tensor
    reconstruction: Tensor
    lost: list[list[str]]


@dataclass(frozen=True)
class Energies:
    """Energy of a flow's code for real images.

    Attributes:
        images: uint8 (n, C, H, W), some images to show.
        maps: (n, H, W), energy of these images.
        rows: Energy of each class, over many images.
    """

    images: Tensor
    maps: Tensor
    rows: list[EnergyRow]


def lost_classes(
    before: Tensor, after: Tensor, classes: Sequence[str], least: float = 0.5
) -> list[list[str]]:
    """Classes that keep less than a share `least` of their pixels, for each image.

    Classes of fewer than four pixels are ignored. Masks are bool (n, classes, H, W).
    """
    was, left = before.flatten(2).sum(2), after.flatten(2).sum(2)
    gone = (was >= 4) & (left < least * was)
    return [[name for name, lost in zip(classes, row.tolist(), strict=True) if lost] for row in gone]


@dataclass(frozen=True)
class OmissionsFound(ShownInNotebooks):
    """Results of a study of omissions.

    Attributes:
        found: Class statistics of samples and data.
        instances: Images and reconstructions by an inverter.
        energies: Energies of a flow.
        remarks: Sentences on settings that could not be followed.
        n: Number of samples.
    """

    found: Omissions
    instances: Instances | None = None
    energies: Energies | None = None
    remarks: Sequence[str] = ()
    n: int = 0

    @property
    def notes(self) -> list[str]:
        """Remarks, and the distance of the class shares."""
        return [*self.remarks, self.distances()]

    def save(self, out: Path, title: str = "Omissions", formats: Sequence[Format] = ()) -> list[str]:
        """Write index.html with its pictures; returns the names of the files.

        Args:
            out: Output folder.
            title: Title of the page.
            formats: Additional formats; see `flows.display.formats.Formats`.
        """
        sheets: dict[str, Drawn] = {"classes": class_bars(self.found)}
        if self.instances is not None:
            rows = [("image", self.instances.images), (self.instances.how, self.instances.reconstruction)]
            sheets["instances"] = Sheet(rows, len(self.instances.lost), side=96)
        if self.energies is not None:
            rows = [("image", self.energies.images), ("energy of the code", heat(self.energies.maps))]
            sheets["energy"] = Sheet(rows, 16, side=96)
            sheets["energies"] = energy_bars(self.energies.rows)
        losses = "" if self.instances is None else losses_html(self.instances)
        before = f"<p>{self.distances()}.</p>{class_table(self.found).html()}"
        tables = dict(zip(("classes", "energies"), self.tables(), strict=False))
        return write_page(out, title, sheets, before, losses, tables, formats)

    def distances(self) -> str:
        """Phrase with the Fréchet segmentation distance and its floor."""
        distance, floor = self.found.distance, self.found.floor
        return (
            f"Fréchet segmentation distance {distance.total:.3g} (means {distance.mean:.3g}, covariances "
            f"{distance.covariance:.3g}); between random halves of the data {floor.total:.3g}"
        )

    def tables(self) -> list[Table]:
        """Class shares, and the energies of a flow."""
        return [class_table(self.found), *([] if self.energies is None else [energy_table(self.energies)])]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "n": self.n,
            **self.found.as_dict(),
            "instances": None if self.instances is None else self.instances.lost,
            "energy": None if self.energies is None else [asdict(row) for row in self.energies.rows],
        }


def class_table(found: Omissions) -> Table:
    """Shares of each class in data and samples."""
    head = (
        "class",
        "data, % of pixels",
        "samples, % of pixels",
        "difference",
        "95 %",
        "data, images",
        "samples, images",
    )
    rows = [
        [
            row.label,
            as_text(row.data),
            as_text(row.samples),
            f"{100 * row.relative:+.0f} %",
            as_interval(100 * row.low, 100 * row.high, "+.0f", " %"),
            f"{100 * row.data_images:.0f} %",
            f"{100 * row.samples_images:.0f} %",
        ]
        for row in found.rows
    ]
    return Table(head, rows)


def energy_table(energies: Energies) -> Table:
    """Energy of each class with its interval."""
    rows = [[row.label, as_text(row.energy), as_interval(row.low, row.high)] for row in energies.rows]
    return Table(["class", "energy, nats per pixel", "95 %"], rows)


def losses_html(instances: Instances) -> str:
    """Table of the classes that each image lost, below a sentence."""
    rows = [[str(i), ", ".join(names) or "none"] for i, names in enumerate(instances.lost)]
    return f"<p>Classes that each image lost:</p>{Table(['image', 'lost'], rows).html()}"


def class_bars(found: Omissions) -> "Figure":
    """Mean shares of data and samples on a log axis, above their relative difference with its interval."""
    rows = found.rows
    figure = new_figure(1.6 + 0.42 * len(rows), 4.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    places = np.arange(len(rows))
    upper.bar(places - 0.2, [row.data for row in rows], 0.4, label="data", color="0.6")
    upper.bar(places + 0.2, [max(row.samples, 1e-3) for row in rows], 0.4, label="samples", color="C0")
    upper.set_yscale("log")
    upper.set_ylabel("% of pixels")
    upper.legend(frameon=False, fontsize=8)
    relative = np.array([row.relative for row in rows])
    errors = np.abs(np.array([[row.low, row.high] for row in rows]).T - relative)
    colours = ["C3" if row.high < 0 else "0.6" for row in rows]
    lower.bar(places, relative, 0.7, color=colours, yerr=errors, error_kw={"elinewidth": 0.8})
    lower.axhline(0, color="0.4", linewidth=0.6)
    lower.set_ylim(-1.1, max(1.0, min(3.0, float(relative.max()) * 1.1)))
    lower.set_ylabel("(samples − data)/data")
    lower.set_xticks(places, [row.label for row in rows], rotation=60, ha="right", fontsize=8)
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def energy_bars(rows: Sequence[EnergyRow]) -> "Figure":
    """Energy of the code at the pixels of each class, with its interval."""
    figure = new_figure(1.6 + 0.42 * len(rows), 3)
    axes = figure.subplots()
    values = np.array([row.energy for row in rows])
    errors = np.abs(np.array([[row.low, row.high] for row in rows]).T - values)
    axes.bar(range(len(rows)), values, 0.7, color="0.6", yerr=errors, error_kw={"elinewidth": 0.8})
    axes.set_ylabel("z²/2, nats per pixel")
    axes.set_xticks(range(len(rows)), [row.label for row in rows], rotation=60, ha="right", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def heat(maps: Tensor) -> Tensor:
    """Colours uint8 (n, 3, H, W) of maps (n, H, W), scaled from the 2nd to the 98th percentile of all."""
    low, high = torch.quantile(maps.flatten()[:: max(1, maps.numel() // 100_000)], torch.tensor([0.02, 0.98]))
    share = ((maps - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)
    magma = optional("matplotlib").colormaps["magma"]
    colours = torch.from_numpy(np.asarray(magma(share.numpy()))[..., :3].copy())
    return (255 * colours).byte().permute(0, 3, 1, 2)
