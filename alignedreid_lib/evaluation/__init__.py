"""Test a model: features, ranking, scores, re-ranking. Explained in notebooks/08_evaluation and 09."""

from alignedreid_lib.datasets.partitions import GALLERY, QUERY
from alignedreid_lib.evaluation.comparison import Comparison, compare
from alignedreid_lib.evaluation.distances import DISTANCES, distance_matrix, reranked_matrix
from alignedreid_lib.evaluation.evaluate_features import evaluate, pool_queries, ranked_list, split
from alignedreid_lib.evaluation.features import colour_histograms
from alignedreid_lib.evaluation.scores import ScoreTable

__all__ = [
    "DISTANCES",
    "GALLERY",
    "QUERY",
    "Comparison",
    "ScoreTable",
    "colour_histograms",
    "compare",
    "distance_matrix",
    "evaluate",
    "pool_queries",
    "ranked_list",
    "reranked_matrix",
    "split",
]
