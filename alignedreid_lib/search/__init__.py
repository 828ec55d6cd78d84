"""Search images of your own: embed, index, threshold, and why an image was found. Explained in notebooks/12."""

from alignedreid_lib.search.answers import Answer, Match
from alignedreid_lib.search.embed import embed
from alignedreid_lib.search.index import Index
from alignedreid_lib.search.threshold import Threshold, nearest_distances

__all__ = ["Answer", "Index", "Match", "Threshold", "embed", "nearest_distances"]
