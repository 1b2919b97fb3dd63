# Written by `python -m flows.core.lazy` from the lists `__all__` of the files beside it.

from flows.inversion.base import Inversion as Inversion
from flows.inversion.base import Inverter as Inverter
from flows.inversion.base import reconstruct as reconstruct
from flows.inversion.by_name import make_inverter as make_inverter
from flows.inversion.by_name import short_names as short_names
from flows.inversion.codes import CodeFile as CodeFile
from flows.inversion.codes import load_codes as load_codes
from flows.inversion.codes import save_codes as save_codes
from flows.inversion.comparison import Group as Group
from flows.inversion.comparison import Measures as Measures
from flows.inversion.comparison import Result as Result
from flows.inversion.comparison import Row as Row
from flows.inversion.comparison import compare as compare
from flows.inversion.distance import Distance as Distance
from flows.inversion.encoder import Encoder as Encoder
from flows.inversion.exact import Certificate as Certificate
from flows.inversion.exact import Exact as Exact
from flows.inversion.exact import ExactInversion as ExactInversion
from flows.inversion.exact import decode_exactly as decode_exactly
from flows.inversion.exact import invert_exactly as invert_exactly
from flows.inversion.found import Adaptation as Adaptation
from flows.inversion.found import Found as Found
from flows.inversion.found import adapted as adapted
from flows.inversion.hybrid import Hybrid as Hybrid
from flows.inversion.layer import Layer as Layer
from flows.inversion.optimise import Optimise as Optimise
from flows.inversion.records import ImageSource as ImageSource
from flows.inversion.records import Record as Record
from flows.inversion.records import load_record as load_record
from flows.inversion.records import record_of as record_of
from flows.inversion.records import render_record as render_record
from flows.inversion.records import save_record as save_record
from flows.inversion.search import Search as Search
from flows.inversion.search import SearchSettings as SearchSettings
from flows.inversion.study import MeasureSettings as MeasureSettings
from flows.inversion.study import compare_models as compare_models
from flows.inversion.tune import Tune as Tune

__all__ = [
    "Adaptation",
    "Certificate",
    "CodeFile",
    "Distance",
    "Encoder",
    "Exact",
    "ExactInversion",
    "Found",
    "Group",
    "Hybrid",
    "ImageSource",
    "Inversion",
    "Inverter",
    "Layer",
    "MeasureSettings",
    "Measures",
    "Optimise",
    "Record",
    "Result",
    "Row",
    "Search",
    "SearchSettings",
    "Tune",
    "adapted",
    "compare",
    "compare_models",
    "decode_exactly",
    "invert_exactly",
    "load_codes",
    "load_record",
    "make_inverter",
    "reconstruct",
    "record_of",
    "render_record",
    "save_codes",
    "save_record",
    "short_names",
]
