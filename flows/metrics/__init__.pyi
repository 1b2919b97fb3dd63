# Written by `python -m flows.core.lazy` from the lists `__all__` of the files beside it.

from flows.metrics.distribution import sliced_wasserstein as sliced_wasserstein
from flows.metrics.frechet import Frechet as Frechet
from flows.metrics.identity import Identity as Identity
from flows.metrics.inception import Inception as Inception
from flows.metrics.inception import inception_distance as inception_distance
from flows.metrics.likelihood import LikelihoodReport as LikelihoodReport
from flows.metrics.likelihood import bits_per_dim as bits_per_dim
from flows.metrics.likelihood import evaluate_likelihood as evaluate_likelihood
from flows.metrics.neighbours import nearest as nearest
from flows.metrics.perceptual import EfficientNetLite0 as EfficientNetLite0
from flows.metrics.perceptual import FeatureNetwork as FeatureNetwork
from flows.metrics.perceptual import LPIPS as LPIPS
from flows.metrics.perceptual import PooledFeatures as PooledFeatures
from flows.metrics.perceptual import kernel_distance as kernel_distance
from flows.metrics.perceptual import perceptual_distance as perceptual_distance
from flows.metrics.protocols import protocol as protocol
from flows.metrics.reconstruction import psnr as psnr
from flows.metrics.reconstruction import structural_similarity as structural_similarity
from flows.metrics.roundtrip import RoundTrip as RoundTrip
from flows.metrics.roundtrip import RoundTripRow as RoundTripRow
from flows.metrics.roundtrip import round_trip as round_trip
from flows.metrics.roundtrip import round_trip_table as round_trip_table
from flows.metrics.typicality import limit_typicality as limit_typicality

__all__ = [
    "EfficientNetLite0",
    "FeatureNetwork",
    "Frechet",
    "Identity",
    "Inception",
    "LPIPS",
    "LikelihoodReport",
    "PooledFeatures",
    "RoundTrip",
    "RoundTripRow",
    "bits_per_dim",
    "evaluate_likelihood",
    "inception_distance",
    "kernel_distance",
    "limit_typicality",
    "nearest",
    "perceptual_distance",
    "protocol",
    "psnr",
    "round_trip",
    "round_trip_table",
    "sliced_wasserstein",
    "structural_similarity",
]
