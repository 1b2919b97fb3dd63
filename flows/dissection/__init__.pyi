# Written by `python -m flows.core.lazy` from the lists `__all__` of the files beside it.

from flows.dissection.agreement import Agreement as Agreement
from flows.dissection.agreement import UnitRow as UnitRow
from flows.dissection.agreement import best_by_class as best_by_class
from flows.dissection.agreement import dissect as dissect
from flows.dissection.artefacts import Cleaning as Cleaning
from flows.dissection.artefacts import clean as clean
from flows.dissection.causal import Ablation as Ablation
from flows.dissection.causal import ablate as ablate
from flows.dissection.causal import average_causal_effect as average_causal_effect
from flows.dissection.causal import class_means as class_means
from flows.dissection.exemplars import ExemplarBrush as ExemplarBrush
from flows.dissection.exemplars import Pictures as Pictures
from flows.dissection.exemplars import exemplars_of_codes as exemplars_of_codes
from flows.dissection.exemplars import exemplars_of_images as exemplars_of_images
from flows.dissection.intervention import Insertion as Insertion
from flows.dissection.intervention import insertion as insertion
from flows.dissection.intervention import learn_units as learn_units
from flows.dissection.omission import Omissions as Omissions
from flows.dissection.omission import energy_by_class as energy_by_class
from flows.dissection.omission import energy_maps as energy_maps
from flows.dissection.omission import omissions as omissions
from flows.dissection.omission import shares_of as shares_of
from flows.dissection.omission_study import OmissionSettings as OmissionSettings
from flows.dissection.omission_study import study_omissions as study_omissions
from flows.dissection.paint import Brush as Brush
from flows.dissection.paint import Canvas as Canvas
from flows.dissection.paint import Painted as Painted
from flows.dissection.paint import StrokeEdit as StrokeEdit
from flows.dissection.probe import Change as Change
from flows.dissection.probe import Probe as Probe
from flows.dissection.probe import default_layers as default_layers
from flows.dissection.probe import instrument as instrument
from flows.dissection.probe import layers_of as layers_of
from flows.dissection.study import DissectionSettings as DissectionSettings
from flows.dissection.study import dissect_model as dissect_model
from flows.dissection.unit_brush import UnitBrush as UnitBrush
from flows.dissection.unit_brush import find_units as find_units

__all__ = [
    "Ablation",
    "Agreement",
    "Brush",
    "Canvas",
    "Change",
    "Cleaning",
    "DissectionSettings",
    "ExemplarBrush",
    "Insertion",
    "OmissionSettings",
    "Omissions",
    "Painted",
    "Pictures",
    "Probe",
    "StrokeEdit",
    "UnitBrush",
    "UnitRow",
    "ablate",
    "average_causal_effect",
    "best_by_class",
    "class_means",
    "clean",
    "default_layers",
    "dissect",
    "dissect_model",
    "energy_by_class",
    "energy_maps",
    "exemplars_of_codes",
    "exemplars_of_images",
    "find_units",
    "insertion",
    "instrument",
    "layers_of",
    "learn_units",
    "omissions",
    "shares_of",
    "study_omissions",
]
