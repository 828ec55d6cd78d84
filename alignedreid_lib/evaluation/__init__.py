"""What a model is worth: features, ranking, scores, re-ranking. Explained in notebooks/08_evaluation and 09."""

from alignedreid_lib.evaluation.distances import DISTANCES, distance_matrix, reranked_matrix
from alignedreid_lib.evaluation.scores import ScoreTable
from alignedreid_lib.evaluation.table import (
    GALLERY,
    QUERY,
    colour_histograms,
    evaluate,
    pool_queries,
    ranked_list,
    split,
)

__all__ = [
    "DISTANCES",
    "GALLERY",
    "QUERY",
    "ScoreTable",
    "colour_histograms",
    "distance_matrix",
    "evaluate",
    "pool_queries",
    "ranked_list",
    "reranked_matrix",
    "split",
]
