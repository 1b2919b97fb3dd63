# Written by `python -m flows.core.lazy` from the lists `__all__` of the files beside it.

from flows.steering.base import Direction as Direction
from flows.steering.base import load_directions as load_directions
from flows.steering.base import place as place
from flows.steering.base import save_directions as save_directions
from flows.steering.base import shift as shift
from flows.steering.boundary import Boundary as Boundary
from flows.steering.boundary import condition as condition
from flows.steering.disentangle import Disentangled as Disentangled
from flows.steering.displacement import Displacement as Displacement
from flows.steering.evaluate import Rescoring as Rescoring
from flows.steering.evaluate import rescore as rescore
from flows.steering.evaluate import response as response
from flows.steering.factorise import Factorise as Factorise
from flows.steering.factorise import JacobianDirections as JacobianDirections
from flows.steering.levels import rank_levels as rank_levels
from flows.steering.levels import to_levels as to_levels
from flows.steering.mean_difference import MeanDifference as MeanDifference
from flows.steering.method import Labelled as Labelled
from flows.steering.method import Method as Method
from flows.steering.method import Task as Task
from flows.steering.operators import OPERATORS as OPERATORS
from flows.steering.operators import Operator as Operator
from flows.steering.pca import PrincipalComponents as PrincipalComponents
from flows.steering.quality import Quality as Quality
from flows.steering.quality import faithfulness as faithfulness
from flows.steering.ridge import Ridge as Ridge
from flows.steering.score_gradient import ScoreGradient as ScoreGradient
from flows.steering.scoring import ScoreSettings as ScoreSettings
from flows.steering.scoring import score as score
from flows.steering.survey import Survey as Survey
from flows.steering.survey import score_codes as score_codes
from flows.steering.survey import survey_images as survey_images
from flows.steering.survey import survey_samples as survey_samples
from flows.steering.validation import Plane as Plane
from flows.steering.validation import place_plane as place_plane
from flows.steering.walk import Walk as Walk

__all__ = [
    "Boundary",
    "Direction",
    "Disentangled",
    "Displacement",
    "Factorise",
    "JacobianDirections",
    "Labelled",
    "MeanDifference",
    "Method",
    "OPERATORS",
    "Operator",
    "Plane",
    "PrincipalComponents",
    "Quality",
    "Rescoring",
    "Ridge",
    "ScoreGradient",
    "ScoreSettings",
    "Survey",
    "Task",
    "Walk",
    "condition",
    "faithfulness",
    "load_directions",
    "place",
    "place_plane",
    "rank_levels",
    "rescore",
    "response",
    "save_directions",
    "score",
    "score_codes",
    "shift",
    "survey_images",
    "survey_samples",
    "to_levels",
]
