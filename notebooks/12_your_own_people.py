# %% [markdown]
# # 12 Your own people
#
# This chapter turns a folder of cropped images of people into an index that you can search: which other images show the person in this image?
# For your own folder, set `pictures` in the next cell (and `weights`, if your images are photographs) and run all cells.
# [Chapter 1](01_datasets.ipynb) shows the three forms that a folder may have.
#
# **What you will learn**
#
# * how to build an index of a folder, search it with an image, and read the nearest answers with their distances;
# * how to see which stripes the local distance has matched in an answer;
# * how to choose a threshold for "nobody" from labelled pairs, and which three things go wrong;
# * what this technique must not be used for.
#
# **Time** on two cores: half a minute, plus one minute if the book's model is not trained yet.
# **Hardware**: any laptop, no GPU.

# %% tags=["parameters"]
# Parameters: your own folder, and weights trained for people; without them the
# book's drawn people and its model.
# weights.pth of a run of yours, its network, and the size it was trained with
weights = ""
backbone = "resnet50"
local_channels = 128
last_stride = 2
height = 256
width = 128
pictures = ""  # a folder for each person inside, or a CSV of path,person,camera
pattern = ""  # how a name gives person and camera, see chapter 1
false_accept_rate = 0.01  # of comparisons of two people

# %%
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from alignedreid_lib import (
    alignment,
    book,
    datasets,
    evaluation,
    figures,
    losses,
    runs,
    synthetic,
)
from alignedreid_lib.batches import images
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import features, verification
from alignedreid_lib.model import AlignedReID, load_weights
from alignedreid_lib.runs import check_types
from alignedreid_lib.training.config import Side


@dataclass(frozen=True)
class Settings:
    weights: str = ""
    backbone: str = "resnet50"
    local_channels: int = 128
    last_stride: int = 2
    height: Side = 256
    width: Side = 128
    pictures: str = ""
    pattern: str = ""
    false_accept_rate: float = 0.01

    def __post_init__(self):
        check_types(self)
        if not 0 < self.false_accept_rate < 1:
            raise InputError(
                f"false_accept_rate is {self.false_accept_rate}; give a share"
                " between 0 and 1"
            )
        if self.pictures and not runs.resolve(self.pictures).exists():
            raise InputError(
                f"pictures is {self.pictures!r}, and nothing is there; give a"
                " folder or a CSV file"
            )
        if self.weights and not runs.resolve(self.weights).is_file():
            raise InputError(
                f"weights is {self.weights!r}, which is not a file; give a"
                " weights.pth"
            )


settings = runs.read_parameters(Settings, globals())

# %% [markdown]
# ## The problem in one figure
#
# Without a folder of yours we draw one: twelve people who are in no other chapter, in files such as `p07_cam2_0.png`. Most tools produce
# images in this form, and the library needs nothing else.

# %%
import tempfile

scratch = tempfile.TemporaryDirectory()
temporary = Path(scratch.name)
if settings.pictures:
    source, name_pattern = (
        runs.resolve(settings.pictures),
        settings.pattern or None,
    )
else:
    source, name_pattern = (
        temporary / "crops",
        r"(?P<person>p\d+)_cam(?P<camera>\d+)",
    )
    source.mkdir()
    cameras = synthetic.sample_cameras(4, seed=7)
    for person in range(12):
        for camera in range(4):
            for moment in (0, 1):
                shot = synthetic.Shot(
                    2000 + person, camera, 2 * camera + moment, box=1
                )
                crop = Image.fromarray(
                    synthetic.take(shot, cameras, 0.3, seed=7)
                )
                crop.save(source / f"p{person:02d}_cam{camera}_{moment}.png")
folder = datasets.prepare(
    "folder", source, temporary, pattern=name_pattern, test_share=1
)
people = datasets.open_dataset(folder, "test")
print(datasets.describe(people))

# %% alt="One image of each of the first twelve people of the folder"
firsts = np.unique(people.ids, return_index=True)[1][:12]
figures.contact_sheet(
    [images.decode(people.paths[k]) for k in firsts], columns=12
)

# %% [markdown]
# ## An index
#
# An index is the stored features of all images. Here the book's model computes them; it was trained on different people, drawn by the same
# generator. For photographs use weights trained on photographs (`make train`), because this model has never seen one.

# %%
if settings.weights:
    network = AlignedReID(
        settings.backbone,
        None,
        None,
        settings.local_channels,
        settings.last_stride,
    )
    load_weights(network, runs.resolve(settings.weights))
    size = {"height": settings.height, "width": settings.width}
else:
    trained = book.model()
    print(trained.origin)
    network, size = (
        trained.network,
        {"height": book.CONFIG.height, "width": book.CONFIG.width},
    )
index = features.extract(network.eval(), people, **size)
print(f"{len(index)} images, {index.global_features.shape[1]} numbers each")


# %% [markdown]
# A search sorts the index by distance. The distance of a query $q$ to each entry $x_i$ of the index is
#
# $$ d_i = \sqrt{\textstyle\sum_c (q_c - x_{ic})^2} $$ (eq-own-search)
#
# By hand, with three entries and a query: (0, 0), (3, 4) and (1, 1) have the distances 1, $\sqrt{18} = 4.24$ and 1 from the query (0, 1).


# %% tags=["nbval-check-output"]
def search(query, entries, top):
    """The nearest entries to one feature: (place, distance), nearest first."""
    distances = [
        sum(
            (float(a) - float(b)) ** 2
            for a, b in zip(query, entry, strict=True)
        )
        ** 0.5
        for entry in entries
    ]
    order = sorted(range(len(entries)), key=lambda i: distances[i])
    return [(i, round(distances[i], 2)) for i in order[:top]]


print(search((0, 1), [(0, 0), (3, 4), (1, 1)], top=3))

# %%
matrix = evaluation.distance_matrix(
    "global", index, index
)  # [n, n]: every image is a query once
first = search(index.global_features[0], index.global_features, top=5)
nearest = matrix[0].argsort(stable=True)[:5]
assert np.allclose([d for _, d in first], matrix[0][nearest], atol=0.02), (
    "loop and library give the same distances"
)
assert first[0][0] == 0, "an image is nearest to itself"

# %% [markdown]
# Every image finds itself first, so we leave it out. Here are two queries and their answers; above each answer are its identity and its
# distance. (Here identity 0 is an ordinary person, because a folder has no distractors.)


# %%
def answers(query, top=9):
    """A contact sheet of one query and its nearest images, by person."""
    order = [
        k for k in matrix[query].argsort(stable=True).tolist() if k != query
    ][:top]
    titles = [f"query: {people.ids[query]}"] + [
        f"{people.ids[k]}: {matrix[query, k]:.1f}" for k in order
    ]
    return figures.contact_sheet(
        [images.decode(people.paths[k]) for k in (query, *order)],
        titles,
        columns=top + 1,
    )


# %% [markdown]
# :::{admonition} Predict first
# :class: tip
# The folder has seven more images of the first person. How many of them are among the nine nearest?
# :::


# %% alt="A query and the nine nearest images of the folder: some show the same person, others someone in clothes of the same colour"
answers(int(firsts[0]))

# %% alt="A second query and its nine nearest images"
answers(int(firsts[min(5, len(firsts) - 1)]))

# %%
right = 0
for query in range(len(people)):
    best = next(
        k for k in matrix[query].argsort(stable=True).tolist() if k != query
    )
    right += people.ids[best] == people.ids[query]
print(f"{right / len(people):.0%} of all images find their own person first")

# %% tags=["bound"]
if not settings.pictures:
    assert right / len(people) > 0.7, (
        "the model finds more than 70 % of people who are drawn like its"
        " training people"
    )

# %% [markdown]
# This is easier than the protocol's task, because images from the same camera count as matches. With the protocol's rule (other cameras only):

# %%
evaluation.evaluate(index, ("global",), rerank=True, name="this folder")

# %% [markdown]
# ## Why this answer?
#
# A distance between global features is one number and does not explain an answer. Local features can: they show which stripe of one image was
# matched with which stripe of the other along the shortest path ([chapter 4](04_alignment.ipynb)). Instead of a trained local branch we use
# the mean colour of each stripe, taken from the middle quarter of the width, where the person is, and scaled to 0 to 4, so that you can check
# each match by eye.


# %%
def stripes(path, count=8):
    """The mean colour of the middle of each of `count` stripes, [count, 3]."""
    picture = (
        4 * images.resize(images.decode(path), (count * 16, 64)).float() / 255
    )
    return picture[:, :, 24:40].reshape(3, count, 16, 16).mean(dim=(2, 3)).T


query = int(firsts[0])
answer = next(
    k
    for k in matrix[query].argsort(stable=True).tolist()
    if k != query
    and (not people.cameras_known or people.cameras[k] != people.cameras[query])
)
one, other = stripes(people.paths[query]), stripes(people.paths[answer])
costs = alignment.stripe_distances(one, other)
path = alignment.trace_path(costs)

# %% label="fig-why" alt="A query and its answer next to each other, divided into eight stripes; lines join the stripes that the shortest path matches"
fig = figures.Figure(figsize=(4.4, 4), layout="constrained")
ax = fig.subplots()
for left, place in ((0.0, query), (2.4, answer)):
    ax.imshow(
        images.decode(people.paths[place]).permute(1, 2, 0),
        extent=(left, left + 1, 8, 0),
        aspect="auto",
    )
    ax.hlines(range(1, 8), left, left + 1, color="white", linewidth=0.6)
for i, j in path:
    strength = 1 - float(costs[i, j] / costs.max())
    ax.plot(
        [1.02, 2.38],
        [i + 0.5, j + 0.5],
        color=figures.BLUE,
        linewidth=0.5 + 2.5 * strength,
        alpha=0.3 + 0.7 * strength,
    )
ax.set(
    xlim=(0, 3.4),
    ylim=(8, 0),
    title=f"person {people.ids[query]} and person {people.ids[answer]}",
)
ax.set_axis_off()
fig

# %%
total = sum(float(costs[i, j]) for i, j in path)
assert np.isclose(total, float(alignment.shortest_path(costs)), atol=1e-5), (
    "the costs of the drawn lines sum to the distance"
)

# %% [markdown]
# In [the figure](#fig-why) a thick line is a match with a low cost. Between two matches the path takes a side step, so some stripes have two
# lines even if the boxes fit. Three or more thick lines from one stripe mean that the two boxes do not fit in the same way there.
#
# ## People who are not in the folder
#
# The person you search for may not be in the folder. A threshold can detect this; it is chosen from labelled pairs
# ([chapter 8](08_evaluation.ipynb)): at most a share of `false_accept_rate` of the comparisons of two people may be accepted.
#
# :::{admonition} Predict first
# :class: tip
# One wrong pair in a hundred may pass. Where is the threshold in the left histogram, and do most right pairs pass?
# :::

# %% alt="Histograms of the distances of pairs of one person and of two people, with the threshold; and the ROC"
pairs = verification.pair_distances(index)
figures.open_set(pairs.same, pairs.different, settings.false_accept_rate)

# %%
threshold = verification.choose_threshold(
    verification.roc(*pairs), settings.false_accept_rate
)
passed = (pairs.different <= threshold).mean()
assert passed <= settings.false_accept_rate, (
    "the share of accepted strangers is at most false_accept_rate"
)
print(
    f"{(pairs.same <= threshold).mean():.0%} of the right pairs pass,"
    f" {passed:.2%} of the wrong ones"
)

# %% [markdown]
# A threshold is valid for one model, one camera set-up and one group of people. With different cameras both rates are unknown again.
#
# ## What goes wrong
#
# There are three typical errors, each shown for a person of the folder: a different person in similar clothes, a box that cuts off half of
# the body, and little light. We measure the distance between an image and its degraded version, and compare it with the threshold.

# %%
base = images.decode(people.paths[query])  # [3, h, w]
dark = (base.float() * 0.35).to(torch.uint8)
half = images.resize(base[:, base.shape[1] // 2 :], tuple(base.shape[1:]))
twin = next(
    k
    for k in matrix[query].argsort(stable=True).tolist()
    if people.ids[k] != people.ids[query]
)
shown = {
    "itself": base,
    "a different camera": images.decode(people.paths[answer]),
    "dark": dark,
    "lower half": half,
    "a similar person": images.decode(people.paths[twin]),
}
with torch.no_grad():
    batch = torch.stack(
        [
            images.resize(picture, (size["height"], size["width"]))
            for picture in shown.values()
        ]
    )
    embedded = network(images.normalize(batch)).global_features
away = losses.euclidean_distances(embedded[:1], embedded)[0].tolist()

# %% [markdown]
# :::{admonition} Predict first
# :class: tip
# Which is farther from the first image: the same image with little light, or a different person in similar clothes?
# :::

# %% label="fig-wrong" alt="Five images with their distance to the first: itself, a different camera, darkened, the lower half, and a person who looks similar"
figures.contact_sheet(
    list(shown.values()),
    [f"{name}: {d:.1f}" for name, d in zip(shown, away, strict=True)],
    columns=5,
)

# %%
distance = dict(zip(shown, away, strict=True))
print(
    f"threshold {threshold:.1f}; spoiled beyond it:",
    [name for name, d in distance.items() if d > threshold],
)
assert distance["itself"] < 0.1, "an image has distance 0 to itself"

# %% tags=["bound"]
assert min(distance["dark"], distance["lower half"]) > distance["itself"], (
    "degrading an image increases its distance"
)

# %% [markdown]
# As [the figure](#fig-wrong) shows, a degraded image of the person can have a larger distance than a stranger in similar clothes, and the
# stranger can be nearer than the person seen by a different camera. No threshold is right for all cases. Anyone who reads a result list must
# know that it compares *clothes*: the model does not recognise faces, and people change clothes.
#
# ## Responsible use
#
# * **Consent.** Images of people belong to these people. Ask before you collect images, explain their purpose, and delete them on request.
#   Images found on the web were not given to you.
# * **The lesson of DukeMTMC.** People were filmed on their way to lectures without being asked; the dataset was used for surveillance, far
#   beyond what anyone had agreed to, and withdrawn in 2019 ([chapter 1](01_datasets.ipynb)). Publishing data cannot be undone.
# * **What it must not be used for.** Do not use it to follow people who have not agreed to it, to decide about anyone's liberty, work or
#   benefits, at protests, or to select people by origin or religion. In many places this is also illegal.
# * **Errors affect people.** A rank-1 of 95 % means that every twentieth search finds the wrong person. Say so wherever you show a result
#   list, and let a person check it who is allowed to reject it.
# * **Errors differ between groups.** A model works best for people like those it was trained on. Measure the error rates for groups of people
#   separately before you trust an average.
#
# :::{admonition} The paper says
# AlignedReID (Zhang et al. 2017) compared its model with annotators and called the result better than human level on two datasets. This is
# true for these datasets and cameras, with everybody in the clothes of that day.
# :::
#
# Our result is similar: the method works within one set-up and one day, and each of the three cases shows one of its limits.
#
# ## Which setting should I take?
#
# * `false_accept_rate`: divide the wrong images that you can check per search by the number of images. Here a search makes about a hundred comparisons, so
#   0.01 passes about one stranger.
# * `weights`, with the `backbone`, `height` and `width` of their training, if your images are photographs: the book's model has seen only drawn people.
# * `pattern` if file names contain the camera: then images from the query's own camera are left out of the score.
# * `k1` of about the images per person if you re-rank: with eight images, the published 20 includes strangers.
# * A new threshold for every new camera or model: the old one was measured for different distances.
#
# ## Summary
#
# * An index is the features of all images; a search sorts it by distance.
# * The shortest path shows which parts of the body were compared.
# * A threshold detects "nobody", at an error rate that you choose and that is valid only for its cameras.
# * The model compares clothes. Ask people first.
#
# Next: [chapter 13](13_alignment_study.ipynb) measures what alignment is worth.
#
# ## Exercises
#
# **1.** Average the features of all images of each person and search among these averages with a single image. Is the result better?
#
# :::{dropdown} Solution
# ```python
# known = np.unique(people.ids)
# means = torch.stack([index.global_features[people.ids == person].mean(0) for person in known])
# found = known[losses.euclidean_distances(index.global_features, means).argmin(1)]
# print((found == people.ids).mean())
# ```
#
# The average contains the query's own image; leave it out for an honest score.
# :::
#
# **2.** What does re-ranking do in a folder of this size?
#
# :::{dropdown} Solution
# The table above has the row. With eight images per person, the published $k_1 = 20$ includes images of other people:
#
# ```python
# from alignedreid_lib.evaluation import ranking
# q, g = evaluation.split(index)
# for k1 in (7, 20):
#     again = evaluation.reranked_matrix("global", q, g, k1=k1)
#     print(k1, ranking.score_ranking(again, q.ids, g.ids, q.cameras, g.cameras).mean_ap)
# ```
# :::
#
# **3.** Halve `false_accept_rate`. What happens to the share of right pairs that pass?
#
# :::{dropdown} Solution
# ```python
# curve = verification.roc(*pairs)
# for rate in (0.02, 0.01, 0.005):
#     print(rate, (pairs.same <= verification.choose_threshold(curve, rate)).mean())
# ```
#
# It falls, and the ROC shows by how much; where the curve is steep, accepting a few more strangers gives many more right answers.
# :::
#
# **4.** Choose a threshold. The function gets the distances of pairs of one person, those of pairs of two people, and the share of the
# latter that may pass. It returns the largest of these distances that keeps the share when every pair up to it passes, or `None`. It has
# one mistake. Run the cell, read the answer and repair the function.

# %% tags=["nbval-check-output"]
from alignedreid_lib.exercises import check


def pick_threshold(same, different, rate):
    allowed = []
    for t in same + different:
        passed = sum(d <= t for d in different)
        if passed / len(same + different) <= rate:
            allowed.append(t)
    return max(allowed, default=None)


check("12_your_own_people", pick_threshold)

# %% [markdown]
# :::{dropdown} Solution
# ```python
# def pick_threshold(same, different, rate):
#     allowed = []
#     for t in same + different:
#         passed = sum(d <= t for d in different)
#         if passed / len(different) <= rate:
#             allowed.append(t)
#     return max(allowed, default=None)
#
#
# assert check("12_your_own_people", pick_threshold)
# ```
# :::
