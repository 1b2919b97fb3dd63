"""Atlas of one model: directions and their scores, units, and omissions, each in a folder of its own."""

import base64
import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from flows import __version__
from flows.core.bounds import PositiveInt, Seed
from flows.core.options import Options
from flows.core.statistics import FEWEST
from flows.data.base import ImageData
from flows.display.drawing import Sheet
from flows.display.formats import Format
from flows.display.page import document, picture_html, write_page
from flows.dissection.artefacts import TooFew
from flows.dissection.omission_study import OmissionSettings, Reconstruct, study_omissions
from flows.dissection.probe import default_layers, outer_layers
from flows.dissection.study import DissectionSettings, dissect_model, real_images
from flows.errors import DataMissing
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.semantics.base import StoredPredictor, StoredSegmenter, scores_of
from flows.steering.base import DIRECTIONS_FILE, Direction, save_directions, shift
from flows.steering.boundary import Boundary
from flows.steering.method import Task
from flows.steering.pca import PrincipalComponents
from flows.steering.scoring import ScoreSettings, score
from flows.storage.files import write_text
from flows.storage.jobs import run_once

SCORED, TESTED = 300, 200
"""Maximum number of samples, and number of test images, on which directions are scored."""
HALVES = 20
"""Number of test images from which on units are dissected on them: half of them choose thresholds."""
MENU = 8
"""Number of scores that are steered if the data set has no menu."""
ALPHAS = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
"""Moves of the strips of directions that cannot be scored, in sigmas."""


@dataclass(frozen=True, kw_only=True)
class AtlasSettings(Options):
    """Settings of an atlas.

    Attributes:
        scores: Scores to find directions for; None takes the menu of the data set, or else some of the
            predictor's scores.
        artefact: Class whose units are ablated, as by `flows dissect --artefact`; `auto` takes the one that
            the data set names, None takes none. Skipped if the segmenter does not have the class, or if data
            or packages for the measurement are missing.
        n: Number of codes in each part; directions are scored on at most 300 codes.
        seed: Seed of the samples.
    """

    scores: list[str] | None = None
    artefact: str | None = "auto"
    n: PositiveInt = 2000
    seed: Seed = 0


@dataclass(frozen=True)
class Part:
    """One part of an atlas.

    Attributes:
        inputs: Everything that the part depends on, as plain values.
        job: Function of the part's folder that writes it.
    """

    inputs: dict[str, object]
    job: Callable[[Path], None]


@dataclass(frozen=True, kw_only=True)
class Atlas:
    """Parts of an atlas of one model, and how to write them.

    Attributes:
        name: Name of the model.
        model: Model in eval mode.
        predictor: Predictor of scores; None draws directions without measuring them.
        segmenter: Segmenter; None leaves out dissection and omissions.
        data: Data set of the model; None if it is unknown.
        settings: Settings.
        reconstruct: Inverter of a model without an exact inverse; see `study_omissions`.
        show: Function that is given each result of a part, with its folder, the name of its JSON file and a
            title.
        say: Function that is given a sentence on what is left out.
        formats: Additional formats of tables and figures, which `show` writes, too.
        cache: Folder for surveys of samples; None has none.
    """

    name: str
    model: LatentModel
    predictor: StoredPredictor | None
    segmenter: StoredSegmenter | None
    data: ImageData | None
    settings: AtlasSettings
    reconstruct: Reconstruct
    show: Callable[[Any, Path, str, str], None]
    say: Callable[[str], None]
    formats: Sequence[Format] = ()
    cache: Path | None = None

    @property
    def encodes(self) -> bool:
        """Whether images can be encoded."""
        return self.model.check_space(self.model.search_space).encodes

    @property
    def source(self) -> Literal["samples", "images"]:
        """Source of the codes of directions and units."""
        return "images" if self.encodes and self.data is not None else "samples"

    @cached_property
    def tested(self) -> int:
        """Number of test images, at most `HALVES`; as many without their files, which is said later."""
        if self.data is None:
            return 0
        try:
            return len(self.data.first("test", HALVES).images)
        except DataMissing:
            return HALVES

    @property
    def source_of_units(self) -> Literal["samples", "images"]:
        """Source of the codes of units: samples where there are too few test images for two halves."""
        return self.source if self.tested >= HALVES else "samples"

    @cached_property
    def scores(self) -> list[str]:
        """Scores to find directions for: those of the settings, else of the menu, else the first ones.

        Without a predictor, those of the data set's classes and attributes, if images can be encoded; else
        none.
        """
        if self.settings.scores:
            return self.settings.scores
        if self.predictor is not None:
            known = [each.name for each in self.predictor.scores]
        elif self.encodes and self.data is not None:
            known = attribute_scores(self.data)
        else:
            known = []
        menu = self.data.menu if self.data is not None and self.predictor is not None else ()
        return [name for name in menu if name in known] or known[:MENU]

    @cached_property
    def artefact(self) -> str | None:
        """Class whose units are ablated; None if none can be, which is said."""
        label, segmenter = self.settings.artefact, self.segmenter
        if label == "auto":
            label = next(iter(self.data.artefacts), None) if self.data is not None else None
        if label is None or segmenter is None:
            return None
        if label not in segmenter.classes:
            self.say(f"no artefact is ablated: the segmenter has no class {label!r}")
            return None
        if self.data is None:
            self.say("no artefact is ablated: the data set of this model is unknown")
            return None
        try:
            real_images(self.model, segmenter, label, self.data)
        except (DataMissing, TooFew) as error:
            self.say(f"no artefact is ablated: {error}")
            return None
        return label

    def parts(self) -> dict[str, Part]:
        """Parts that can be written, by name; of the others is said why not."""
        shared: dict[str, object] = {
            "flows": __version__,
            "model": self.model.fingerprint(),
            "n": self.settings.n,
            "seed": self.settings.seed,
            **({"formats": list(self.formats)} if self.formats else {}),
        }
        predictor = None if self.predictor is None else self.predictor.fingerprint()
        inputs = {**shared, "scores": self.scores, "source": self.source, "predictor": predictor}
        parts = {"steering": Part(inputs, self.steer if self.predictor else self.steer_unscored)}
        if self.segmenter is None:
            return parts
        inputs = {**shared, "segmenter": self.segmenter.fingerprint(), "source": self.source_of_units}
        if not default_layers(self.model, self.model.search_space):
            self.say(f"dissection: skipped, {type(self.model).__name__} has no spatial layer")
        else:
            parts["dissection"] = Part({**inputs, "artefact": self.artefact}, self.dissect)
        if self.data is None:
            self.say("omissions: skipped, the data set of this model is unknown: name it by --data")
        elif self.tested < FEWEST:
            self.say(f"omissions: skipped, there are {self.tested} test images, fewer than {FEWEST}")
        else:
            parts["omissions"] = Part(inputs, self.find_omissions)
        return parts

    def write(self, out: Path) -> dict[str, bool]:
        """Write the parts that were not written before from the same inputs, and the front page.

        Returns:
            Whether each part was written now, by name.
        """
        parts = self.parts()
        done = {
            name: run_once(out / name, part.inputs, lambda name=name, part=part: part.job(out / name))  # type: ignore[misc]
            for name, part in parts.items()
        }
        page = front_page(f"Atlas of {self.name}", out, list(parts))
        write_text(out / "index.html", page)
        return done

    # Parts ----------------------------------------------------------------------------------------

    def directions(self, out: Path) -> list[Direction]:
        """Directions of the scores, or principal components without any; written to the part's folder."""
        from_images = self.source == "images" and bool(self.scores)
        task = Task(
            self.model,
            self.model.search_space,
            self.scores,
            self.predictor,
            self.data if from_images else None,
            self.settings.n,
            self.settings.seed,
            cache=self.cache,
        )
        method = Boundary() if self.scores else components_of(self.model)
        assert method is not None  # as `components_of` is asked by `steer_unscored`
        found = method.find(task)
        save_directions(out / DIRECTIONS_FILE, found)
        return found

    def steer(self, out: Path) -> None:
        """Directions, scored on samples, or on test images if they can be encoded."""
        assert self.predictor is not None
        directions = self.directions(out)
        test = TESTED if self.source == "images" else 0
        settings = ScoreSettings(n=min(self.settings.n, SCORED), test=test, seed=self.settings.seed + 1)
        result = score(self.model, self.predictor, directions, settings, self.data)
        self.show(result, out, "scores.json", f"Steering {self.name} in {directions[0].space}")

    def steer_unscored(self, out: Path) -> None:
        """Directions without a predictor: strips of two samples along each."""
        if not self.scores and components_of(self.model) is None:
            write_page(
                out, "Directions", {}, before="<p>There are no scores and no layers to take them from."
            )
            return
        directions = self.directions(out)
        codes = self.model.sample(2, directions[0].space, self.settings.seed + 1)
        rows = [
            (each.name if i == 0 else "", self.strip(each, codes[i : i + 1]))
            for each in directions
            for i in range(len(codes))
        ]
        head = [f"{alpha:+g}" for alpha in ALPHAS]
        sheets = {"strips": Sheet(rows, len(head), head=head)}
        write_page(out, f"Directions of {self.name}", sheets, formats=self.formats)

    def strip(self, direction: Direction, code: Codes) -> torch.Tensor:
        """Images uint8 (number of moves, C, H, W) of one code, moved along a direction."""
        return torch.cat([self.model.decode_bytes(shift(code, direction, alpha)) for alpha in ALPHAS])

    def dissect(self, out: Path) -> None:
        """Units of classes, and the ablation of an artefact's units."""
        assert self.segmenter is not None
        settings = DissectionSettings(
            source=self.source_of_units, n=self.settings.n, artefact=self.artefact, seed=self.settings.seed
        )
        result = dissect_model(self.model, self.segmenter, settings, self.data)
        self.show(result, out, "units.json", f"Units of {self.name}, {result.codes} {settings.source}")

    def find_omissions(self, out: Path) -> None:
        """Classes that the model does not generate."""
        assert self.segmenter is not None and self.data is not None
        settings = OmissionSettings(n=self.settings.n, seed=self.settings.seed)
        result = study_omissions(self.model, self.segmenter, self.data, settings, self.reconstruct)
        self.show(result, out, "omissions.json", f"Omissions of {self.name}, {settings.n:,} samples")


def attribute_scores(data: ImageData) -> list[str]:
    """Scores of the classes and attributes of a data set; none if its files are missing."""
    try:
        return [each.name for each in scores_of(data.all_attributes())]
    except DataMissing:
        return []


def components_of(model: LatentModel) -> PrincipalComponents | None:
    """Method that finds directions without scores: components of the codes, or of a layer if these are white.

    None if the codes are white and the model has no layers.
    """
    if model.check_space(model.search_space).prior is None:
        return PrincipalComponents(8)
    layers = outer_layers(model)
    return PrincipalComponents(8, layers[len(layers) // 2], n=1000) if layers else None


def front_page(title: str, out: Path, parts: list[str]) -> str:
    """HTML page with the pictures of each part below a link to its own page."""
    pieces = []
    for name in parts:
        label = html.escape(name)
        linked = (out / name / "index.html").is_file()
        pieces.append(f'<h1><a href="{label}/index.html">{label}</a></h1>' if linked else f"<h1>{label}</h1>")
        for path in sorted((out / name).glob("*.png")):
            pieces.append(picture_html(path.stem, base64.b64encode(path.read_bytes()).decode()))
    return document(title, *pieces)
