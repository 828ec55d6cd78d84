# %% [markdown]
# # 00 Quickstart
#
# Where else was this person seen? The first image below is the *query*, the person we look for; the other seven are candidates from other
# cameras:

# %% tags=["parameters"]
# Parameters: how many queries to show; the seed picks them, and the weights
# of the untrained network
queries_shown = 4
seed = 3

# %%
import numpy as np
import torch

from alignedreid_lib import book, datasets, evaluation, figures, runs
from alignedreid_lib.batches import images
from alignedreid_lib.evaluation import features
from alignedreid_lib.model import AlignedReID

settings = runs.read_settings(
    globals(), queries_shown=runs.between(1, 20), seed=runs.SEED
)

# %% label="fig-task" alt="Eight drawn pedestrians in a row: the query, and seven candidates with numbers; two of them are the person of the query" caption="Two of the seven candidates show the person of the query. Which?"
folder = book.dataset_folder("market1501")
train_set = datasets.open_dataset(folder, "trainval")
test_set = datasets.open_dataset(folder, "test")


def draw_task(seed):
    """A query, two matches from other cameras, five other people."""
    rng = np.random.default_rng(seed)
    ids, cameras, marks = test_set.ids, test_set.cameras, test_set.marks
    gallery = marks == 1
    for query in rng.permutation(np.flatnonzero(marks == 0)):
        elsewhere = gallery & (cameras != cameras[query])
        matches = np.flatnonzero(elsewhere & (ids == ids[query]))
        if len(matches) >= 2:
            break
    strangers = np.flatnonzero(elsewhere & (ids != ids[query]) & (ids > 0))
    shown = np.append(matches[:2], rng.choice(strangers, 5, replace=False))
    shown = rng.permutation(shown)
    answer = [int(k) + 1 for k in np.flatnonzero(ids[shown] == ids[query])]
    pictures = [images.decode(test_set.paths[k]) for k in (query, *shown)]
    return figures.contact_sheet(pictures, ["query", *"1234567"]), answer


task, answer = draw_task(settings.seed)
task

# %% [markdown]
# A computer sees only numbers, and each camera sees the person in a different light and from a different side. In a few minutes this
# chapter turns a raw archive of images into a trained model, and uses the model to answer such questions with ranked lists of people. Here is
# the answer:

# %%
print("the person of the query:", *answer)

# %% [markdown]
# The method of this book is *AlignedReID* (Zhang et al. 2017): a network learns one feature of the whole person together with features of
# horizontal stripes, which are aligned before they are compared. Most published numbers in this book come from *the original reproduction*,
# the PyTorch code that Houjing Huang published in 2018 and from which this book is derived.
#
# **What you will learn**
#
# * what a dataset of drawn pedestrians looks like, in the format of a real release;
# * how a trained network finds people that it has never seen;
# * how to read its ranked lists and its score, and how to compare them with those of a network that has learned nothing.
#
# **Time** on two cores: half a minute, plus a minute and a half if the book's people and model are not made yet.
# **Hardware**: any laptop, no GPU.
#
# ## The people
#
# Real pedestrian datasets may not be redistributed, so this book draws its own. Every person has a build, clothes and things they carry;
# every camera has its own light, street and noise. The images are stored in the format of Market-1501, a real dataset.
# [Chapter 1](01_datasets.ipynb) looks at such an archive in detail.

# %%
searched = set(test_set.ids[test_set.marks == 0])
print(
    f"{len(train_set)} images of {len(set(train_set.ids))} people to learn from"
)
print(
    f"{len(test_set)} test images, in which we search for {len(searched)} other"
    " people"
)

# %% [markdown]
# `marks` gives the role of a test image: 0 marks a query, which shows a person to search for, and 1 an image of the gallery, in which we
# search. The other images, with mark 2, are further images of the queries' people, which [chapter 1](01_datasets.ipynb) explains.

# %%
assert not set(train_set.ids) & set(test_set.ids), (
    "no training person is in the test set"
)

# %% alt="Sixteen drawn pedestrians, all different people" caption="Many people share a colour; only the combination of clothes, hair and bags tells them apart."
people = np.random.default_rng(settings.seed).choice(
    np.unique(train_set.ids), 16, replace=False
)
first = [np.flatnonzero(train_set.ids == person)[0] for person in people]
figures.contact_sheet([images.decode(train_set.paths[i]) for i in first])

# %% [markdown]
# ## The task
#
# A **query** is an image of a person. The **gallery** contains images of that person and of many other people. Those that show the query's
# person as seen by a different camera are its **matches**. The network turns each image $x$ into a vector $f(x)$, its *feature*, and the
# gallery is sorted by the distance of each image $g$ from the query $q$:
#
# $$ d(q, g) = \lVert f(q) - f(g) \rVert $$ (eq-quickstart-distance)
#
# On paper, with vectors of two numbers: the query is at (0, 0), and three gallery images are at (3, 4), (1, 0) and (0, 2). Their distances
# are 5, 1 and 2, so the second image is ranked first.

# %% tags=["nbval-check-output"]
query, gallery = (
    torch.tensor([[0.0, 0.0]]),
    torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]]),
)
distances = torch.cdist(query, gallery)[0]
print(distances.tolist(), "ranked:", distances.argsort().tolist())

# %%
assert distances.argsort().tolist() == [1, 2, 0], (
    "the images are ranked by distance, nearest first"
)

# %% [markdown]
# ## The model
#
# This is the book's own model. It is small, and it is trained for one minute the first time a chapter needs it
# ([chapter 6](06_training.ipynb) shows how).

# %%
trained = book.model()
print(trained.origin)

# %% label="fig-quickstart-curves" alt="One curve over the epochs: the loss falls, fast at first" caption="One minute of training: the loss falls epoch by epoch."
metrics = trained.result.metrics
fig = figures.Figure(figsize=(6, 2.2), layout="constrained")
ax = fig.subplots()
ax.plot(
    [row["epoch"] for row in metrics],
    [row["loss"] for row in metrics],
    color=figures.BLACK,
)
ax.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
fig

# %% [markdown]
# The loss is a number that training makes smaller: it is large as long as images of different people are as close to each other as images
# of one person. [Chapter 6](06_training.ipynb) explains the terms that it is made of.

# %% [markdown]
# ## The ranked lists


# %%
def embed(network):
    """The features of all test images."""
    return features.extract(network, test_set, **book.AS_TRAINED)


embedded = embed(trained.network)
queries, gallery = evaluation.split(embedded)
print(f"{len(queries)} queries, {len(gallery)} images in the gallery")

# %%
matrix = evaluation.distance_matrix("global", queries, gallery).numpy()
chosen = np.random.default_rng(settings.seed).choice(
    len(queries), settings.queries_shown, replace=False
)

# %% [markdown]
# :::{admonition} Predict first
# :class: tip
# The network trained for one minute and has never seen these people. How many of the four lists begin with the right person?
# :::

# %% label="fig-quickstart-lists" alt="Ranked lists: each row shows a query and the seven gallery images nearest to it, framed blue if they show the same person and orange-red if they do not" caption="The lists begin with the right person, in most cases; the wrong images in them show people who look similar."
figures.ranked_lists(sorted(chosen), test_set, matrix)

# %% [markdown]
# In [the ranked lists](#fig-quickstart-lists) a blue frame with a tick marks the same person, seen by a different camera; an orange-red frame
# with a cross marks someone else. Images of the person from the query's own camera are left out, because finding them is too easy.
#
# We check one query by hand, with a loop instead of a distance matrix:

# %%
nearest, best = None, float("inf")
for k in range(len(gallery)):
    same_camera = (
        gallery.ids[k] == queries.ids[0]
        and gallery.cameras[k] == queries.cameras[0]
    )
    distance = float(
        (queries.global_features[0] - gallery.global_features[k]).norm()
    )
    if not same_camera and distance < best:
        nearest, best = k, distance

# %%
library = evaluation.ranked_list(
    matrix[0],
    queries.ids[0],
    gallery.ids,
    queries.cameras[0],
    gallery.cameras,
    top=1,
)
assert library[0] == nearest, "the loop and the library find the same image"

# %% [markdown]
# ## The score
#
# **Rank-1** is the share of queries whose list begins with a match. **mAP** (mean average precision) also depends on the ranks of all other
# matches ([chapter 8](08_evaluation.ipynb) computes both by hand). For comparison the table includes two baselines that have learned
# nothing: the same network with random weights, and a colour histogram. (mAP has two definitions, *step* and *trapezoid*. `global` is the
# distance between features of the whole person; chapters 3 and 4 introduce stripes.)
#
# :::{admonition} Predict first
# :class: tip
# The untrained network and the colour histogram have learned nothing. Which of the two has the higher rank-1?
# :::

# %%
torch.manual_seed(settings.seed)
untrained = AlignedReID(book.CONFIG.backbone)
scores = (
    evaluation.evaluate(embedded, ("global",), rerank=False, name="trained")
    + evaluation.evaluate(
        embed(untrained), ("global",), rerank=False, name="untrained"
    )
    + evaluation.evaluate(
        evaluation.colour_histograms(test_set),
        ("global",),
        rerank=False,
        name="colour histogram",
    )
)
scores

# %% tags=["bound"]
rank1 = {row.name: row.rank1 for row in scores.rows}
assert rank1["trained"] >= 0.75, (
    "the trained model is right at rank 1 for three of four queries"
)
assert rank1["untrained"] < 0.30, (
    "the untrained network is right at rank 1 for less than 30 %"
)
assert rank1["colour histogram"] < 0.45, (
    "colour histograms find less than 45 %, because each camera has its own"
    " light"
)

# %% [markdown]
# :::{admonition} The original reproduction says
# On Market-1501 (1 501 real people seen by six cameras) the original reproduction reports a rank-1 of 87.05 % and an mAP of 71.38 %
# (trapezoid) for this kind of model, and 88.78 % and 75.76 % with mutual learning.
# :::
#
# Our people are drawn and our model is tiny, so our numbers cannot be compared with these; the steps are the same.
#
# ## Summary
#
# * The network turns an image into a vector. Finding a person means sorting images by distance.
# * No one in the test set is in the training set: the model has learned how to compare people, not which people to recognise.
# * Colours alone fail, because every camera sees them differently.
#
# Next: [chapter 1](01_datasets.ipynb) opens the archive.
#
# ## Exercises
#
# **1.** Show different queries: set `seed` in the parameters cell and run the chapter again. Which people does the network confuse?
#
# :::{dropdown} Solution
# Most wrong images show people in clothes of a similar colour and pattern, or from a side that hides a distinguishing detail such as a
# backpack.
# :::
#
# **2.** How often would a random guess be right at rank 1?
#
# :::{dropdown} Solution
# In about one of 140 cases, because a query has only a few matches among several hundred images. Images of its person in its own camera do
# not count:
#
# ```python
# chances = []
# for person, camera in zip(queries.ids, queries.cameras):
#     own = gallery.ids == person
#     counted = ~(own & (gallery.cameras == camera))
#     chances.append((own & counted).sum() / counted.sum())
# print(f"{np.mean(chances):.2%}")
# ```
# :::
#
# **3.** Find the query whose first match has the worst rank, and show its list.
#
# :::{dropdown} Solution
# ```python
# from alignedreid_lib.evaluation import ranking
# scored = ranking.score_ranking(matrix, queries.ids, gallery.ids, queries.cameras, gallery.cameras, top=len(gallery))
# first_hit = scored.cmc_per_query.argmax(axis=1)
# figures.ranked_lists([int(first_hit.argmax())], test_set, matrix)
# ```
# :::
#
# **4.** What is the rank of the first match, if images of the query's person from the query's own camera are left out of the list? The
# function gets one list each of the distances, identities and cameras of the gallery images, and the query's identity and camera. It
# returns the rank, counted from 1, or `None` if there is no match. It has one mistake. Run the cell, read the answer and repair the
# function.

# %% tags=["nbval-check-output"]
from alignedreid_lib.exercises import check


def first_rank(distances, ids, cameras, query_id, query_camera):
    order = sorted(range(len(ids)), key=lambda g: distances[g])
    for rank, g in enumerate(order, 1):
        if ids[g] == query_id:
            return rank
    return None


check("00_quickstart", first_rank)

# %% [markdown]
# :::{dropdown} Solution
# ```python
# def first_rank(distances, ids, cameras, query_id, query_camera):
#     order = sorted(range(len(ids)), key=lambda g: distances[g])
#     rank = 0
#     for g in order:
#         if ids[g] == query_id and cameras[g] == query_camera:
#             continue  # as if it were not there
#         rank += 1
#         if ids[g] == query_id:
#             return rank
#     return None
#
#
# assert check("00_quickstart", first_rank)
# ```
# :::
