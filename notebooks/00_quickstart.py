# %% [markdown]
# # 00 Quickstart
#
# Who is this person, and where else were they seen? In a few minutes a raw archive of pictures becomes a trained model,
# and the model becomes ranked lists of people.
#
# The method of this book is *AlignedReID* (Zhang et al. 2017): a network learns one feature of the whole person together with
# features of horizontal stripes, which are aligned before they are compared. Most published numbers that we compare with come
# from *the original reproduction*, the PyTorch code that Houjing Huang published in 2018.
#
# **What you will hold**
# * a dataset of drawn pedestrians, in the format of a real release;
# * a trained network that finds people again whom it has never seen;
# * its ranked lists and its score, beside a network that has learned nothing.
#
# **Time** on two cores: half a minute, and a minute more if the book's people and model are not made yet.
# **Hardware**: any laptop, no GPU.

# %% tags=["parameters"]
# Parameters: how many queries to show; the seed picks them, and the weights of the untrained network
queries_shown = 4
seed = 3

# %%
from dataclasses import dataclass

import numpy as np
import torch

from alignedreid_lib import book, datasets, evaluation, figures, runs
from alignedreid_lib.batches import images
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import features
from alignedreid_lib.model import AlignedReID
from alignedreid_lib.runs import check_types


@dataclass(frozen=True)
class Settings:
    """This chapter's parameters."""

    queries_shown: int = 4
    seed: int = 3

    def __post_init__(self):
        check_types(self)
        if not 1 <= self.queries_shown <= 20:
            raise InputError(f"queries_shown is {self.queries_shown}; it has to be from 1 to 20")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed is {self.seed}; it has to be from 0 to {2**32 - 1}")


settings = runs.read_parameters(Settings, globals())

# %% [markdown]
# ## The people
#
# Real collections of pedestrians may not be handed on, so this book draws its own: every person has a build, clothes
# and things they carry; every camera has its light, its street and its noise. They are written as the archive of
# Market-1501 is, a real data set, and [chapter 1](01_datasets.ipynb) takes such an archive apart.

# %%
folder = book.dataset_folder("market1501")
train_set = datasets.open_dataset(folder, "trainval")
test_set = datasets.open_dataset(folder, "test")
print(f"{len(train_set)} pictures of {len(set(train_set.ids))} people to learn from")
searched = set(test_set.ids[test_set.marks == 0])
print(f"{len(test_set)} pictures to search for {len(searched)} other people")

# %% [markdown]
# `marks` says what a test picture is for: 0 marks a query, somebody to search for. The gallery is to be searched; the rest are further pictures of
# the queries' people, which [chapter 1](01_datasets.ipynb) explains.

# %%
assert not set(train_set.ids) & set(test_set.ids), "nobody the model learns from is in the test"

# %% alt="Thirty drawn pedestrians, each another person"
people = np.random.default_rng(settings.seed).choice(np.unique(train_set.ids), 30, replace=False)
first = [np.flatnonzero(train_set.ids == person)[0] for person in people]
figures.contact_sheet([images.decode(train_set.paths[i]) for i in first], columns=10)

# %% [markdown]
# ## The task
#
# A **query** is a picture of somebody. The **gallery** holds pictures from other cameras, of that person and of many
# others. The network turns each picture $x$ into a vector $f(x)$, and the gallery is sorted by distance:
#
# $$ d(q, g) = \lVert f(q) - f(g) \rVert $$ (eq-quickstart-distance)
#
# On paper, with vectors of two numbers: the query at (0, 0), three gallery pictures at (3, 4), (1, 0) and (0, 2) lie at
# distances 5, 1 and 2, so the second comes first.

# %% tags=["nbval-check-output"]
query, gallery = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]])
distances = torch.cdist(query, gallery)[0]
print(distances.tolist(), "ranked:", distances.argsort().tolist())

# %%
assert distances.argsort().tolist() == [1, 2, 0], "the nearest comes first"

# %% [markdown]
# ## The model
#
# The book's own model: small, and trained for a minute by whichever chapter asks first
# ([chapter 6](06_training.ipynb) shows how).

# %%
trained = book.model()
print(trained.origin)

# %% label="fig-quickstart-curves" alt="Three panels over the epochs: the loss falls, the share of satisfied triplets rises, positive and negative distances part"
figures.training_curves(trained.result.metrics)

# %% [markdown]
# A *triplet* is a picture with one of the same person and one of another; it is satisfied if the other person is farther. In
# [the figure](#fig-quickstart-curves), which [chapter 6](06_training.ipynb) teaches to read, the loss falls, and the pictures of different people (negatives) move away from those of the same person (positives).

# %% [markdown]
# ## The ranked lists


# %%
def embed(network):
    """The features of all test pictures."""
    return features.extract(network, test_set, **book.AS_TRAINED)


embedded = embed(trained.network)
queries, gallery = evaluation.split(embedded)
print(f"{len(queries)} queries, {len(gallery)} pictures in the gallery")

# %%
matrix = evaluation.distance_matrix("global", queries, gallery).numpy()
chosen = np.random.default_rng(settings.seed).choice(
    len(queries), settings.queries_shown, replace=False
)

# %% label="fig-quickstart-lists" alt="Ranked lists: each row a query and the ten gallery pictures nearest to it, framed blue where it is the same person and orange-red where it is not"
figures.ranked_lists(sorted(chosen), test_set, matrix)

# %% [markdown]
# In [the ranked lists](#fig-quickstart-lists) a blue frame with a tick is the same person, seen by another camera; an orange-red one with a cross is somebody else. Pictures of the
# person from the query's own camera are left out: finding those is too easy to count.
#
# By hand for one query, with a loop instead of a matrix:

# %%
nearest, best = None, float("inf")
for k in range(len(gallery)):
    same_camera = gallery.ids[k] == queries.ids[0] and gallery.cameras[k] == queries.cameras[0]
    distance = float((queries.global_features[0] - gallery.global_features[k]).norm())
    if not same_camera and distance < best:
        nearest, best = k, distance

# %%
library = evaluation.ranked_list(
    matrix[0], queries.ids[0], gallery.ids, queries.cameras[0], gallery.cameras, top=1
)
assert library[0] == nearest, "the loop and the library find the same picture"

# %% [markdown]
# ## The score
#
# **Rank-1** is the share of queries whose first answer is right. **mAP** also asks where all the other pictures of the
# person came ([chapter 8](08_evaluation.ipynb) works both out by hand). Beside the trained model stand two that have
# learned nothing: the same network with random weights, and a histogram of colours. (mAP has two definitions, *step* and *trapezoid*.
# `global` is the distance of features of the whole person; stripes come in chapters 3 and 4.)

# %%
torch.manual_seed(settings.seed)
untrained = AlignedReID(book.CONFIG.backbone)
scores = (
    evaluation.evaluate(embedded, ("global",), False, name="trained")
    + evaluation.evaluate(embed(untrained), ("global",), False, name="untrained")
    + evaluation.evaluate(
        evaluation.colour_histograms(test_set), ("global",), False, name="colour histogram"
    )
)
scores

# %% tags=["bound"]
rank1 = {row.name: row.rank1 for row in scores.rows}
assert rank1["trained"] >= 0.75, "three of four people are found at the first try"
assert rank1["untrained"] < 0.30, "a network that has learned nothing finds few"
assert rank1["colour histogram"] < 0.45, (
    "colours alone do not tell who it is: each camera has its own light"
)

# %% [markdown]
# :::{admonition} The original reproduction says
# On Market-1501, 1 501 real people seen by six cameras, the original reproduction, the PyTorch code of 2018 that this book descends from, reports a rank-1 of 87.05 % and
# an mAP of 71.38 % (trapezoid) for this kind of model, and 88.78 % and 75.76 % with mutual learning.
# :::
#
# Our people are drawn and our model is tiny, so the numbers are not comparable; the steps are the same.
#
# ## Summary
#
# * A picture becomes a vector, and finding a person becomes sorting by distance.
# * The test people are none of the training people: the model has learned how to compare, not whom to recognise.
# * Colours alone fail, because every camera sees them differently.
#
# Next: [chapter 1](01_datasets.ipynb) opens the archive.
#
# ## Exercises
#
# **1.** Show other queries: set `seed` in the parameters cell and run again. Which people are confused?
#
# :::{dropdown} Solution
# Most wrong answers wear clothes of like colour and pattern, or are seen from a side that hides what tells them apart,
# such as a backpack.
# :::
#
# **2.** How often would a random guess be right at rank 1?
#
# :::{dropdown} Solution
# `np.mean([(gallery.ids == person).mean() for person in queries.ids])`: about one in a hundred, since a query has a handful of
# matches among several hundred pictures.
# :::
#
# **3.** Find the query with the worst rank of its first right answer and show its list.
#
# :::{dropdown} Solution
# ```python
# from alignedreid_lib.evaluation import ranking
# scored = ranking.score_ranking(matrix, queries.ids, gallery.ids, queries.cameras, gallery.cameras, top=len(gallery))
# first_hit = scored.cmc_per_query.argmax(axis=1)
# figures.ranked_lists([int(first_hit.argmax())], test_set, matrix)
# ```
# :::
