# Written by `python -m flows.core.lazy` from the lists `__all__` of the files beside it.

from flows.semantics.adapters import ClassPredictor as ClassPredictor
from flows.semantics.adapters import ClassSegmenter as ClassSegmenter
from flows.semantics.base import Predictor as Predictor
from flows.semantics.base import Score as Score
from flows.semantics.base import Segmenter as Segmenter
from flows.semantics.base import SemanticModel as SemanticModel
from flows.semantics.load import load_semantic_model as load_semantic_model
from flows.semantics.predictor import AttributePredictor as AttributePredictor
from flows.semantics.segmenter import UNetSegmenter as UNetSegmenter

__all__ = [
    "AttributePredictor",
    "ClassPredictor",
    "ClassSegmenter",
    "Predictor",
    "Score",
    "Segmenter",
    "SemanticModel",
    "UNetSegmenter",
    "load_semantic_model",
]
