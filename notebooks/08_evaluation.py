# %% [markdown]
# # 08 Evaluation
#
# A model gives distances; a paper prints a rank-1 and an mAP. This chapter walks the whole way between the two.
#
# **What you will hold**
#
# * the CMC and both average precisions of one query, worked out on paper, in a loop of a few lines, and by the library;
# * three protocols on the same five pictures, and what happens to a query that has no match;
# * the score table of the book's model beside two baselines, and the queries that it gets wrong;
# * what several pictures of a query bring, and a threshold for the case that nobody is there.
#
# **Time** on two cores: half a minute, and a minute more if the book's model is not trained yet.
# **Hardware**: any laptop, no GPU.

# %% tags=["parameters"]
# Parameters: what this chapter may be run with.
seed = 1  # of the random weights of the untrained network

# %% [markdown]
# The next cell turns the parameters into settings. A name or a value that makes no sense ends the chapter here.

# %%
from dataclasses import dataclass

from alignedreid_lib import runs
from alignedreid_lib.errors import InputError
from alignedreid_lib.runs import check_types


@dataclass(frozen=True)
class Settings:
    seed: int = 1

    def __post_init__(self):
        check_types(self)
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed is {self.seed}; give a whole number from 0 to {2**32 - 1}")


settings = runs.read_parameters(Settings, globals())

# %% [markdown]
# ## The problem in a picture
#
# One camera has seen somebody: the *query*. Other pictures wait in the *gallery*. A model has measured how far each
# gallery picture lies from the query, and we look at the gallery from the nearest picture on. How good is that order?
#
# Below is the smallest gallery that shows every case: five pictures, each with an identity and a camera. The distances
# are made up, so that all sums fit on a sheet of paper.

# %% tags=["nbval-check-output"]
query_id, query_camera = 9, 1
ids = [9, 9, 9, 0, 10]  # of the gallery pictures
cameras = [4, 2, 1, 3, 1]
distances = [0.9, 0.6, 0.2, 0.8, 0.5]  # to the query
order = sorted(range(5), key=lambda g: distances[g])
print("gallery pictures, nearest first:", order)

# %% [markdown]
# Picture 2 is the nearest, picture 0 the farthest. Here they are in that order, drawn by the library's own generator
# ([chapter 1](01_datasets.ipynb)), behind the query.

# %% alt="Six drawn pictures. The query: a person in a red and white striped shirt. Then the gallery from the nearest on: the same person by the same camera, another person in stripes, the same person by camera 2, an empty street, the same person by camera 4."
from alignedreid_lib import figures, synthetic
from alignedreid_lib.synthetic.packing import Shot

street = synthetic.sample_cameras(6, seed=0)
nobody = Shot(100_000, 2, 0, empty=True)
gallery = [Shot(9, 3, 4), Shot(9, 1, 2), Shot(9, 0, 1), nobody, Shot(10, 0, 1)]
shots = [Shot(9, 0, 0)] + [gallery[g] for g in order]
pictures = [synthetic.take(shot, street, misalignment=0.0, seed=0) for shot in shots]
titles = ["query: id 9, camera 1"]
titles += [f"{distances[g]}: id {ids[g]}, camera {cameras[g]}" for g in order]
figures.contact_sheet(pictures, titles, columns=7)

# %% [markdown]
# Four kinds of pictures are in this gallery, and each is treated in its own way:
#
# | picture | what it is | how it counts |
# |---|---|---|
# | id 9, cameras 2 and 4 | the same person, another camera: a **match** | right |
# | id 9, camera 1 | the same person, the query's own camera: **ignored** | as if it were not there |
# | id 10 | another person, even by the query's own camera | wrong |
# | id 0 | a **distractor**: a box around nobody, or around somebody who is nobody's query | wrong |
#
# Ignored pictures are left out because they are no test. Two pictures that one camera took of one person within seconds share the street,
# the light and the pose; finding one with the other says nothing about recognising somebody elsewhere. Leaving it out is
# not the same as calling it wrong: with an ignored picture in first place, the second picture moves up to place 1.
#
# Distractors do count. A real gallery is full of them, and a system that ranks an empty street before the person has
# failed the user.

# %% [markdown]
# ## From an order to ranks
#
# Take a query $q$. Sort the gallery by distance, cross out what is ignored, number the rest from 1. The $m_q$ matches stand at
# the ranks
#
# $$ r_{q,1} < r_{q,2} < \dots < r_{q,m_q}. $$ (eq-match-ranks)
#
# The CMC and both average precisions follow from these numbers; only the protocol *cuhk03* and the open set below need more. (Papers
# call the ignored pictures junk, too. [Chapter 1](01_datasets.ipynb)'s junk, with the id -1, has been removed by `prepare`.) In our
# example the ignored picture leaves, and what is left
# reads *wrong, match, wrong, match*: the ranks are $r_1 = 2$ and $r_2 = 4$. The loop that finds them takes four lines.


# %% tags=["nbval-check-output"]
def find_hits(distances, query_id, query_camera, ids, cameras):
    """True for a match and False for a wrong picture, nearest first, ignored ones left out."""
    order = sorted(range(len(ids)), key=lambda g: distances[g])
    kept = [g for g in order if ids[g] != query_id or cameras[g] != query_camera]
    return [ids[g] == query_id for g in kept]


hits = find_hits(distances, query_id, query_camera, ids, cameras)
ranks = [rank for rank, hit in enumerate(hits, start=1) if hit]
print("hits ", hits)
print("ranks", ranks)
assert ranks == [2, 4], "the ranks on paper are 2 and 4"

# %% [markdown]
# The loop agrees with the paper: five pictures became four places, with matches at 2 and 4.

# %% [markdown]
# ## CMC: was there a match among the first k?
#
# The *cumulative matching characteristic* asks what a guard at a screen asks: are the first $k$ pictures enough? With
# $V$ the queries that have a match at all, it is the share of queries whose first match stands at rank $k$ or before:
#
# $$ \mathrm{CMC}(k) = \frac{1}{|V|} \sum_{q \in V} \left[\, r_{q,1} \le k \,\right]. $$ (eq-cmc)
#
# The bracket is 1 where the statement holds and 0 elsewhere. $\mathrm{CMC}(1)$ is the *rank-1* of the papers. (Zheng et
# al., ICCV 2015, define it so for Market-1501.) Our one query has $r_1 = 2$, so its curve is 0, then 1 from $k = 2$ on.

# %% tags=["nbval-check-output"]
cmc_by_hand = [int(ranks[0] <= k) for k in (1, 2, 3, 4)]
print("CMC(1) ... CMC(4):", cmc_by_hand)
assert cmc_by_hand == [0, 1, 1, 1], "the first match stands at rank 2"

# %% [markdown]
# The curve never asks where the second match is. Whether camera 4's picture stands at rank 4 or at rank 4 000, the CMC is
# the same. For this there is a second score.

# %% [markdown]
# ## Average precision: are all matches near the front?
#
# At rank $r_j$ we have seen $r_j$ pictures, $j$ of them matches. The *precision* there is $j / r_j$, the *recall*
# $j / m$. Average precision is the area under the curve of precision over recall, and there are two ways to measure an
# area that is only known at a few points.
#
# **Step.** The precision at every match, averaged:
#
# $$ \mathrm{AP}_\text{step}(q) = \frac{1}{m_q} \sum_{j=1}^{m_q} \frac{j}{r_{q,j}}. $$ (eq-ap-step)
#
# **Trapezoid.** At every match the mean of two precisions, the one there and the one a place before, where one match fewer
# has been seen (Market-1501's own evaluation):
#
# $$ \mathrm{AP}_\text{trapezoid}(q) = \frac{1}{m_q} \sum_{j=1}^{m_q} \frac{1}{2}
#    \left( \frac{j}{r_{q,j}} + \frac{j-1}{r_{q,j}-1} \right). $$ (eq-ap-trapezoid)
#
# Before rank 1 there is no place; the last fraction counts as 1 there.
#
# The *mean average precision* is the mean over the same queries as the CMC, with either of them:
#
# $$ \mathrm{mAP} = \frac{1}{|V|} \sum_{q \in V} \mathrm{AP}(q). $$ (eq-map)

# %% [markdown]
# By hand, with the ranks 2 and 4:
#
# $$ \mathrm{AP}_\text{step} = \tfrac12 \left( \tfrac12 + \tfrac24 \right) = \tfrac12, \qquad
#    \mathrm{AP}_\text{trapezoid} = \tfrac12 \left( \tfrac{1/2 + 0/1}{2} + \tfrac{2/4 + 1/3}{2} \right)
#    = \tfrac12 \left( \tfrac{3}{12} + \tfrac{5}{12} \right) = \tfrac13. $$
#
# Python's fractions do the same sum without rounding.

# %% tags=["nbval-check-output"]
from fractions import Fraction

step_by_hand = (Fraction(1, 2) + Fraction(2, 4)) / 2
heights = (Fraction(1, 2) + Fraction(0, 1)) / 2, (Fraction(2, 4) + Fraction(1, 3)) / 2
trapezoid_by_hand = sum(heights) / 2
print("step", step_by_hand, "  trapezoid", trapezoid_by_hand)
assert step_by_hand == Fraction(1, 2), "the sum on paper"
assert trapezoid_by_hand == Fraction(1, 3), "the sum on paper"

# %% [markdown]
# One ranking, two numbers: 50 % and 33.3 %. Both are called "AP" in print. [The figure](#fig-precision-recall) shows where the difference lies.

# %% label="fig-precision-recall" alt="Two panels of precision over recall with the four places of the ranking. Left, step: two rectangles of height one half. Right, trapezoid: the area under the straight lines between the places, which is smaller."
figure = figures.Figure(figsize=(8, 2.8))
points = [(0, 1, "start"), (0, 0, "place 1"), (0.5, 0.5, "2"), (0.5, 1 / 3, "3"), (1, 0.5, "4")]
areas = {"step: 1/2": ([0, 0, 0.5, 0.5, 1, 1], [0, 0.5, 0.5, 0.5, 0.5, 0]),
         "trapezoid: 1/3": ([0, 0.5, 0.5, 1, 1], [0, 0.5, 1 / 3, 0.5, 0])}  # fmt: skip
for axes, (title, area) in zip(figure.subplots(1, 2), areas.items(), strict=True):
    axes.fill(*area, color=figures.SKY, alpha=0.5)
    line = [x for x, _, _ in points], [y for _, y, _ in points]
    axes.plot(*line, "o-", color=figures.BLUE, clip_on=False)
    for x, y, name in points:
        axes.annotate(name, (x, y), (9 if y else 28, 3), textcoords="offset points")
    axes.set(title=title, xlabel="recall", ylabel="precision", xlim=(0, 1.1), ylim=(0, 1.1))
figure

# %% [markdown]
# In [the figure](#fig-precision-recall) a line joins the four places of the ranking, after a start at precision 1, which only the trapezoid asks for. A wrong picture
# lets the precision drop without moving right; a match moves right. *Step* takes the height that is reached at the
# match. *Trapezoid* takes the area under the line itself, and the line climbs to the match from below.

# %% [markdown]
# ### By how much they differ
#
# Subtract equation {eq}`eq-ap-trapezoid` from equation {eq}`eq-ap-step` match by match. A match at rank 1 contributes nothing; for any other,
#
# $$ \frac12\left(\frac{j}{r_j} - \frac{j-1}{r_j-1}\right) = \frac{r_j - j}{2\, r_j (r_j - 1)}. $$ (eq-ap-gap)
#
# The numerator counts the wrong pictures before the match, so the difference is never negative: *step is never below
# trapezoid*, and both agree where nothing wrong stands before a match. It is largest, one quarter, for a first match
# at rank 2, and fades as $1/(2 r_j)$ for matches far down. A gallery in which most queries have many matches, as Market-1501's,
# sees less of it than one with two or three.

# %% tags=["nbval-check-output"]
gaps = [Fraction(r - j, 2 * r * (r - 1)) for j, r in enumerate(ranks, start=1)]
print("gap of each match:", *gaps, "  their mean:", sum(gaps) / len(gaps))
assert sum(gaps) / 2 == step_by_hand - trapezoid_by_hand, "by this much the two differ"

# %% [markdown]
# The first match brings 1/4, the second 1/12, and their mean is the sixth that lies between one half and one third.

# %% [markdown]
# ## A naive loop, then the library
#
# The loop below knows none of the formulas. It walks the ranking place by place and adds up slices of the area in
# [the figure](#fig-precision-recall).


# %% tags=["nbval-check-output"]
def walk(hits, trapezoid, share=Fraction):
    """The area under the curve of precision over recall, slice by slice."""
    area, matches, recall, precision = 0, 0, 0, 1
    of_all = sum(hits)
    for place, hit in enumerate(hits, start=1):
        matches += hit
        old_recall, recall = recall, share(matches, of_all)
        old_precision, precision = precision, share(matches, place)
        height = (old_precision + precision) / 2 if trapezoid else precision
        area += (recall - old_recall) * height
    return area


print("step", walk(hits, trapezoid=False), "  trapezoid", walk(hits, trapezoid=True))

# %% [markdown]
# The walk finds the sums that we did on paper. `ranking.score_ranking` takes a whole matrix of distances, one row a query,
# and answers for all queries at once. Ours has one row.

# %% tags=["nbval-check-output"]
import numpy as np

from alignedreid_lib.evaluation import ranking

problem = ([distances], [query_id], ids, [query_camera], cameras)
step = ranking.score_ranking(*problem, average_precision="step", top=4)
trapezoid = ranking.score_ranking(*problem, average_precision="trapezoid", top=4)
print("CMC(1) ... CMC(4):", step.cmc)
print(f"mAP: step {step.mean_ap:.4f}, trapezoid {trapezoid.mean_ap:.4f}")

# %%
assert step.cmc.tolist() == cmc_by_hand, "the library's CMC is the one on paper"
for scores, is_trapezoid in ((step, False), (trapezoid, True)):
    by_loop = float(walk(hits, is_trapezoid))
    assert np.isclose(scores.mean_ap, by_loop), "the library's AP is the loop's"

# %% [markdown]
# Paper, loop and library agree. The library never sorts indices: it sorts each row's values and looks up where the few
# matches fall, which is all that the ranks of equation {eq}`eq-match-ranks` need.

# %% [markdown]
# ## Three counting protocols
#
# A *counting protocol* says what a CMC counts. The average precision is the same under all three.
#
# * **market1501** is equation {eq}`eq-cmc`: 1 from the first match on.
# * **allshots** asks every match by itself, against the wrong pictures only. Match $j$ has $r_j - j$ wrong pictures before
#   it, so
#
# $$ \mathrm{CMC}_\text{allshots}(k) = \frac{1}{|V|} \sum_{q \in V} \frac{1}{m_q} \sum_{j=1}^{m_q}
#    \left[\, r_{q,j} - j < k \,\right]. $$ (eq-cmc-allshots)
#
# * **cuhk03** goes back to galleries with one picture a person. It takes pictures of other cameras only, draws one picture
#   of each identity at random, and asks for the rank of the one match that was drawn. The score is the expectation over
#   all draws.
#
# By hand. *allshots*: the matches have 1 and 2 wrong pictures before them; none counts at $k = 1$, half at 2, both at 3.
# *cuhk03*: the other cameras hold the two matches (ranks among themselves: first and last) and the empty street. With probability
# one half the near match is drawn and stands first; else the far one is, and stands second, behind the street.

# %% tags=["nbval-check-output"]
by_protocol = {}
for name in ("market1501", "allshots", "cuhk03"):
    by_protocol[name] = scores = ranking.score_ranking(*problem, protocol=name, top=4)
    print(f"{name:<11} CMC {scores.cmc}   mAP (trapezoid) {scores.mean_ap:.4f}")
    assert scores.mean_ap == trapezoid.mean_ap, "the AP does not depend on the protocol"
assert by_protocol["allshots"].cmc.tolist() == [0, 0.5, 1, 1], "by hand: 0, 1/2, 1, 1"
assert by_protocol["cuhk03"].cmc.tolist() == [0.5, 1, 1, 1], "by hand: 1/2, 1, 1, 1"

# %% [markdown]
# Rank-1 is 0, 0 and 50 %, for the same distances. The last one leaves out person 10, whom the query's own camera saw, and
# so loses the strongest rival. A rank-1 without the name of its protocol says little.
#
# The expectation of *cuhk03* can be had by brute force as long as the gallery is small: go through all draws.

# %% tags=["nbval-check-output"]
from itertools import product

elsewhere = [g for g in range(5) if cameras[g] != query_camera]
by_id = [[g for g in elsewhere if ids[g] == i] for i in sorted({ids[g] for g in elsewhere})]
draws = [sorted(draw, key=lambda g: distances[g]) for draw in product(*by_id)]
places = [[ids[g] for g in draw].index(query_id) for draw in draws]  # counted from 0
expected = [sum(place < k for place in places) / len(draws) for k in (1, 2, 3, 4)]
print("draws, nearest first:", draws, "  CMC:", expected)
assert expected == by_protocol["cuhk03"].cmc.tolist(), "the mean of all draws"

# %% [markdown]
# Two draws here; with 700 identities of five pictures there would be $5^{700}$. Most scripts therefore sample some, and their score
# changes from run to run. The library computes the expectation exactly: an identity that has a share $p_i$ of its pictures nearer than the
# match stands before it with probability $p_i$, independently of the others, and the number of such
# identities is a sum of unequal coins. Its distribution is built by adding one coin after the other.

# %% [markdown]
# ## Queries without a match
#
# A query may have no match: nobody but its own camera saw that person. Its rank-1 is neither right nor wrong, and its AP is
# 0/0. The means leave it out, and the count has to say so; a score that drops such queries in silence can be made as good as
# one likes by dropping the hard ones.
#
# We add person 7 with one query and one picture in the gallery, both by camera 5. To see the score table do it, we make
# features of a single channel, so that a distance is a difference of two numbers.

# %%
import torch

from alignedreid_lib import evaluation
from alignedreid_lib.evaluation import features

values = torch.tensor([0.0, 5.0, *distances, 5.1])[:, None]  # two queries, then the gallery
known = np.array([[9, 7, *ids, 7], [1, 5, *cameras, 5], [0, 0, 1, 1, 1, 1, 1, 1]])
names = [f"{k}.jpg" for k in range(8)]
tiny = features.Features(values, torch.zeros(8, 0, 0), *known, names)  # ids, cameras, marks
evaluation.evaluate(tiny, ("global",), False, name="by hand")

# %% [markdown]
# The last column reads "1 of 2": two queries were asked, one could be answered. The scores are those of the first
# query, as before. The library marks the other and gives its AP as nan, never as 0 or 1.

# %% tags=["nbval-check-output"]
row = evaluation.evaluate(tiny, ("global",), False).rows[0]
matrix = abs(values[:2] - values[2:].T)
both = ranking.score_ranking(matrix, [9, 7], [*ids, 7], [1, 5], [*cameras, 5])
print("valid:", both.valid, "  AP:", both.ap_per_query.round(4))
assert (row.num_queries, row.num_valid) == (2, 1), "two were asked, one could be answered"
assert np.isnan(both.ap_per_query[1]), "no match, no AP"
assert np.isclose(both.mean_ap, 1 / 3), "and no change of the mean"

# %% [markdown]
# ## Ties
#
# Equal distances have no order of their own. Somebody has to choose one, and the choice can be worth more than the model.
# Here is a "model" that has collapsed: it gives 0.5 to every picture. We score it twice, the second time with the gallery
# read backwards.

# %% tags=["nbval-check-output"]
for name, way, by_hand in (("forwards", 1, 1), ("backwards", -1, (1 / 3 + 2 / 4) / 2)):
    collapsed = ([[0.5] * 5], [query_id], ids[::way], [query_camera], cameras[::way])
    scores = ranking.score_ranking(*collapsed, average_precision="step")
    print(f"{name:<9} rank-1 {scores.cmc[0]:.0%}, AP {scores.mean_ap:.4f}")
    assert np.isclose(scores.mean_ap, by_hand), f"{name}: by hand it is {by_hand}"

# %% [markdown]
# 100 % or 0 %, and the model knows nothing. The library orders ties as the gallery is, always; so a number can be
# repeated, but it still means nothing where ties are many. Reading the gallery backwards is a cheap test, and we
# come back to it with the real table.

# %% [markdown]
# ## The test set
#
# Now the same for the book's model. It is a ResNet-18 without its last stage that was trained on the drawn people of
# [chapter 1](01_datasets.ipynb); whoever asks first trains it ([chapter 6](06_training.ipynb) shows how), and the others
# find it.

# %%
from alignedreid_lib import book

trained = book.model()
print(trained.origin)

# %% [markdown]
# The test part holds people whom the model has never seen. A mark says what each picture is for: 0 query, 1 gallery.
# (Mark 2, multi-query, takes no part here.)

# %% tags=["nbval-check-output"]
from alignedreid_lib.datasets import open_dataset

dataset = open_dataset(book.dataset_folder(), "test")
is_query = dataset.marks == evaluation.QUERY
is_gallery = dataset.marks == evaluation.GALLERY
people = set(dataset.ids[is_query].tolist())
distractors = is_gallery & (dataset.ids == 0)
print(f"{is_query.sum()} queries of {len(people)} people")
print(f"{is_gallery.sum()} gallery pictures, {distractors.sum()} of them distractors")
training_people = set(open_dataset(book.dataset_folder(), "trainval").ids.tolist())
assert people.isdisjoint(training_people), "nobody in the test set was trained on"

# %% [markdown]
# `features.extract` shows every picture to the network, without augmentation, at the size that the network was trained with.
# The size matters: a network that learned on 64 x 32 pixels and is shown 256 x 128 sees people it does not know.

# %% tags=["nbval-check-output"]
size = {"height": book.CONFIG.height, "width": book.CONFIG.width}
learned = features.extract(trained.network, dataset, **size)
print("input", size, "  global features", list(learned.global_features.shape))
assert len(learned) == len(dataset), "one feature a picture, in the dataset's order"

# %% [markdown]
# A score needs something to stand beside. Two baselines cost next to nothing:
#
# * **the same network, untrained**: random weights. What it scores comes with the architecture and the data;
# * **a colour histogram**: which colours a picture holds, wherever they are. It knows nothing of people: a red
#   shirt over white trousers counts as a white shirt over red ones would.
#
# A model that does not beat both has learned nothing worth its electricity.

# %%
from alignedreid_lib.model import AlignedReID

torch.manual_seed(settings.seed)
network = AlignedReID(book.CONFIG.backbone, last_stride=book.CONFIG.last_stride)
untrained = features.extract(network, dataset, **size)
colours = evaluation.colour_histograms(dataset)

# %% [markdown]
# Three sets of features of the same pictures, one table: `evaluation.evaluate` ranks by the euclidean distance of global features.

# %%
table = (evaluation.evaluate(learned, ("global",), False, name="trained model")
         + evaluation.evaluate(untrained, ("global",), False, name="the same network, untrained")
         + evaluation.evaluate(colours, ("global",), False, name="colour histogram"))  # fmt: skip
table

# %% [markdown]
# Both definitions of AP stand side by side, and step is the larger in each row, as equation {eq}`eq-ap-gap` says. All queries are valid, so the
# last column is one number. ([Chapter 0](00_quickstart.ipynb) drew other random weights for its untrained network, and other scores.) The book promises three things of this table:

# %% tags=["bound"]
model_row, untrained_row, colour_row = table.rows
assert model_row.rank1 >= 0.75, f"rank-1 is {model_row.rank1:.1%}, not 75 % or more"
for other in (untrained_row, colour_row):
    assert model_row.rank1 > other.rank1, f"no better than: {other.name}"
    assert model_row.mean_ap_step > other.mean_ap_step, f"no better than: {other.name}"

# %% [markdown]
# They hold. Can the table itself be trusted? The naive loop from above, over every query, is slow but honest. (It divides in floating point
# this time: fractions of four hundred rankings would take half a minute.)

# %%
from operator import truediv

queries, gallery = evaluation.split(learned)
matrix = evaluation.distance_matrix("global", queries, gallery)  # [Q, G]
gallery_labels = gallery.ids.tolist(), gallery.cameras.tolist()
naive = []
for row, query, camera in zip(matrix.tolist(), queries.ids, queries.cameras, strict=True):
    hits = find_hits(row, query, camera, *gallery_labels)
    naive.append((hits[0], walk(hits, False, truediv), walk(hits, True, truediv)))
by_library = (model_row.rank1, model_row.mean_ap_step, model_row.mean_ap_trapezoid)
assert np.allclose(np.mean(naive, axis=0), by_library), "loop and library differ"

# %% [markdown]
# The loop and the library agree on all three scores. Two more checks: the gap between the definitions is what
# equation {eq}`eq-ap-gap` predicts from the ranks alone, and no tie decides anything, for the gallery read backwards scores the same.

# %%
labels = (queries.ids, gallery.ids, queries.cameras, gallery.cameras)
found = ranking.RankingProblem(*labels).find_matches(matrix)  # of all matches, counted from 0
j, r = found.order + 1, found.rank + 1
gap = np.where(r > 1, (r - j) / np.maximum(2 * r * (r - 1), 1), 0.0)
predicted = (np.bincount(found.query, weights=gap) / found.counts).mean()
difference = model_row.mean_ap_step - model_row.mean_ap_trapezoid
assert np.isclose(predicted, difference), "the gap follows from the ranks"
print(f"step is {100 * difference:.1f} points above trapezoid")

# %%
turned = queries.ids, gallery.ids[::-1], queries.cameras, gallery.cameras[::-1]
reverse = ranking.score_ranking(matrix.flip(1), *turned)
difference = reverse.mean_ap - model_row.mean_ap_trapezoid
assert abs(difference) < 1e-3, "the gallery's order decides"

# %% [markdown]
# The order decides nothing here. The two definitions, both printed as mAP, differ by more than two points; many papers claim less
# progress than that.
#
# `make run` prints the table at its end. It reads it from this file:

# %%
runs.write_json(runs.resolve("runs/book/scores.json"), table.to_dict())

# %% [markdown]
# ## The curves

# %% label="fig-cmc" alt="CMC over the rank 1 to 20 of three lines: the trained model on top, the colour histogram and the untrained network below."
curves = {}
for row, of_all in zip(table.rows, (learned, untrained, colours), strict=True):
    distances = evaluation.distance_matrix("global", *evaluation.split(of_all))
    curves[row.name] = ranking.score_ranking(distances, *labels, top=20).cmc
figures.cmc_curves(curves)

# %% [markdown]
# The curves of [the figure](#fig-cmc) never fall: who is found among the first five is found among the first ten. The trained model starts high and is nearly flat
# from rank 10 on; a user who looks at ten pictures misses few people. The baselines rise for long: they have the person
# somewhere, and cannot say where.

# %% [markdown]
# ## Asking with several pictures
#
# Market-1501 has more than one picture of a query's person in the query's camera: those of mark 2
# ([chapter 1](01_datasets.ipynb)). Pool their features with the query's own, by the mean or the maximum of every channel, and the
# question is better put: *multi-query*. Two channels, three pictures, by hand:

# %% tags=["nbval-check-output"]
three = torch.tensor([[0.0, 4.0], [2.0, 0.0], [4.0, 2.0]])
print("average", three.mean(0).tolist(), "  maximum", three.amax(0).tolist())

# %%
one = features.Features(
    three,
    torch.zeros(3, 0, 0),
    np.ones(3, int),
    np.ones(3, int),
    np.array([0, 2, 2]),
    ["a", "b", "c"],
)
pooled = evaluation.pool_queries(one[:1], one[1:], "average")
assert pooled.global_features.tolist() == [three.mean(0).tolist()], (
    "the query is pooled with the other two"
)

# %%
ways = {None: "single query", "average": "multi-query, average", "max": "multi-query, maximum"}
parts = [
    evaluation.evaluate(learned, ("global",), False, how, name=name) for how, name in ways.items()
]
by_queries = parts[0] + parts[1] + parts[2]
by_queries

# %% tags=["bound"]
single, average, maximum = by_queries.rows
assert average.mean_ap_step > single.mean_ap_step, (
    "more pictures of the person ask a better question"
)

# %%
assert single.rank1 == model_row.rank1, "single query is what the table above shows"

# %% [markdown]
# The average of a few views says more of a person than one of them. It costs nothing but pictures, and papers that use it say so.
#
# ## An open set
#
# So far everybody who is asked for is in the gallery. On a real camera's day most are not, and a ranking cannot say "nobody": it
# always has a first place. For that we need a threshold on the distance, and it errs in two ways: it turns
# away pairs of one person, and it lets pairs of two people pass. Let $S$ be the pairs of pictures that show
# one person, $D$ those that show two, and $d_s$ the distance of pair $s$. Accepting every pair up to a threshold $t$ gives
#
# $$ \mathrm{TAR}(t) = \frac{|\{s \in S : d_s \le t\}|}{|S|}, \qquad \mathrm{FAR}(t) = \frac{|\{s \in D : d_s \le t\}|}{|D|} $$ (eq-open-set)
#
# the *true-accept* and the *false-accept rate*, for short what is *found* and the *false alarms*. Drawn against each other over all thresholds
# they are the *ROC*, the receiver operating characteristic. Three pairs of one person at distances 1, 2 and 4, four of two at 3, 5, 6
# and 7; which threshold accepts at most a quarter of the wrong ones?

# %% tags=["nbval-check-output"]
from alignedreid_lib.evaluation import verification

curve = verification.roc([1, 2, 4], [3, 5, 6, 7])
for t, false, true in zip(*curve, strict=True):
    print(f"up to {t:.0f}: found {true:.2f}, false alarms {false:.2f}")
print("threshold for a quarter:", verification.choose_threshold(curve, 0.25))

# %% [markdown]
# Any threshold from 3 to just below 5 accepts only the 3 wrongly; the largest distance seen below 5 is 4. Now the test set, in
# [the figure](#fig-open-set). A guard can look at one false alarm in a thousand comparisons:

# %% label="fig-open-set" alt="Left: histograms of distances of pairs of one person and of two people, which overlap, and a threshold; right: the ROC with the chosen point"
pairs = verification.pair_distances(learned)
figures.open_set(pairs.same, pairs.different, false_accept_rate=0.001)

# %%
curve = verification.roc(*pairs)
threshold = verification.choose_threshold(curve, 0.001)
accepted = (pairs.different <= threshold).mean()
assert accepted <= 0.001, "more false alarms than were allowed"
print(f"{(pairs.same <= threshold).mean():.0%} of the pairs of one person are accepted")

# %% [markdown]
# The two histograms overlap, so the threshold that keeps strangers out keeps many of the right ones out too. This is a much harder
# question than rank-1, where each query only has to beat its own gallery; and one in a thousand is a lot where ten thousand people pass.
#
# ## A gallery too large for a matrix
#
# A rank is a count: how many gallery pictures lie before the match. Counts add up, so the gallery may come in pieces, and nobody
# needs to hold all distances at once. `streaming.score_stream` asks for the distances chunk by chunk:

# %%
from alignedreid_lib.evaluation import streaming


def chunk_of(begin, end):
    return matrix[:, begin:end]  # here cut from the whole; a large gallery would be measured now


in_chunks = streaming.score_stream(chunk_of, *labels, average_precision="step", chunk=100)
whole = ranking.score_ranking(matrix, *labels, average_precision="step")
assert (in_chunks.cmc == whole.cmc).all() and in_chunks.mean_ap == whole.mean_ap, (
    "chunks change the scores"
)

# %% [markdown]
# The same to the last bit. `make bench` scores a million pictures so, in the memory of a laptop.

# %% [markdown]
# ## The ranked lists
#
# Numbers hide what pictures show. First two queries with a perfect AP, from those with the most matches.

# %% alt="Ranked lists of two queries whose matches all stand at the front, framed blue with a tick; what follows is framed vermillion with a cross."
scores = ranking.score_ranking(matrix, *labels, average_precision="step")
best = np.lexsort((-found.counts, -scores.ap_per_query))[:40:20]  # two, not of one person
figures.ranked_lists(best.tolist(), dataset, matrix, top=12)

# %% [markdown]
# The person is found from other sides, before other streets and in other light. What follows after the last match is
# often somebody dressed alike.
#
# Now the three queries whose first match comes latest.

# %% alt="Ranked lists of the three queries whose first match comes latest: nearly all pictures are wrong, framed vermillion with a cross."
first_ranks = found.rank[found.order == 0] + 1
worst = np.argsort(-first_ranks, kind="stable")[:3]
print("first match at rank", *first_ranks[worst])
figures.ranked_lists(worst.tolist(), dataset, matrix, top=12)

# %% [markdown]
# Whoever looks at ten pictures hardly finds any of the three people. Would we have known them? Here is each query again, beside its
# nearest match and the rank at which that match stands.

# %% alt="The three queries again, each beside the picture of the same person that the model ranks first among its matches."
from alignedreid_lib.batches import images

path_of = {path.name: path for path in dataset.paths}
pictures, titles = [], []
for query in worst:
    same_person = gallery.ids == queries.ids[query]
    match = np.flatnonzero(same_person & (gallery.cameras != queries.cameras[query]))
    nearest = match[matrix[query, match].argmin()]
    shown = queries.names[query], gallery.names[nearest]
    pictures += [images.decode(path_of[name]) for name in shown]
    titles += ["query", f"match, rank {first_ranks[query]}"]
figures.contact_sheet(pictures, titles, columns=11)

# %% [markdown]
# Read the rows. In each, those who come first wear what the query wears: a top of the same colour, and often the same
# below. The match is the same person from another side: a backpack hides half a back, a stripe down the
# trousers or a jacket's lining shows from one side alone. In other queries the box is badly cut, or something stands in the way.
#
# Three queries are anecdotes; the generator allows a count. It knows what everybody wears, and an identity of the test set is
# a person's number. For every query with a wrong first place we compare the two people, and for reference all pairs of
# people.

# %%
wearing = {
    "colour of the top": lambda person: person.top.colour,
    "colour below": lambda person: person.bottom.colour,
    "kind of garment below": lambda person: person.bottom_kind,
    "pattern of the top": lambda person: person.top.pattern,
    "bag": lambda person: person.bag,
}
everybody = {number: synthetic.sample_person(number, seed=0) for number in people}

# %% [markdown]
# Who stands wrongly in first place? Distractors have no number, so they are counted and left out of the comparison.

# %%
first = []  # who stands in first place
for row, query, camera in zip(matrix.numpy(), queries.ids, queries.cameras, strict=True):
    shown = evaluation.ranked_list(row, query, gallery.ids, camera, gallery.cameras, top=1)
    first.append(shown[0])
wrong = gallery.ids[first] != queries.ids
assert np.isclose(1 - wrong.mean(), model_row.rank1), "the rest is rank-1"
both = np.stack([queries.ids, gallery.ids[first]])[:, wrong].T.tolist()
confused = [(a, b) for a, b in both if b != 0]
print(f"wrong first places: {len(both)}, {len(confused)} of them show a test person")

# %% [markdown]
# And in how many of these pairs do both wear the same, compared with all pairs of people?

# %%
anybody = [(a, b) for a in people for b in people if a < b]
times = {}  # as often among the confused as among all pairs
for what, look in wearing.items():
    looks = {number: look(person) for number, person in everybody.items()}
    share = np.mean([looks[a] == looks[b] for a, b in confused])
    usual = np.mean([looks[a] == looks[b] for a, b in anybody])
    print(f"same {what:<22} {share:4.0%} of the confused, {usual:4.0%} of all pairs")
    times[what] = share / usual

# %% tags=["bound"]
assert times["colour of the top"] > 1.5, "whom it confuses wear tops of one colour"
assert times["colour below"] > 1.5, "and trousers or skirts of one colour"

# %% [markdown]
# Those it confuses wear the same colours several times as often as any two people do: colour is what this model goes by first.
# What a model ignores is shared by the confused about as often as by any two people. The pattern of the top, the bag and the kind
# of garment come close to that. A minute of training on 64 x 32 pixels gets this far.
#
# The other suspect is the camera. Does the model take the street for the person?

# %%
other_people = gallery.ids[None, :] != queries.ids[:, None]  # [Q, G]
of_own_camera = other_people & (gallery.cameras[None, :] == queries.cameras[:, None])
by_chance = (of_own_camera.sum(1) / other_people.sum(1)).mean()
observed = (gallery.cameras[first] == queries.cameras)[wrong].mean()
luck = (by_chance * (1 - by_chance) / wrong.sum()) ** 0.5  # standard deviation of a share of so few
print(
    f"of the query's own camera: {observed:.0%} of the wrong, by chance {by_chance:.0%} ± {luck:.0%}"
)

# %% [markdown]
# If the first share lies more than twice the ± above the second, luck no longer explains it: the street helps. Those people have
# the advantage of the query's own street and light, while every match must come from a different camera. Nearer than that, nothing can be said
# from so few wrong answers; most of them come from other cameras in any case.
#
# ## What the papers report
#
# :::{admonition} The paper says
# *AlignedReID* (Zhang et al., arXiv 1711.08184, 2017) reports rank-1 94.4 % on Market-1501 and 97.8 % on CUHK03. Both are
# after re-ranking, with four training sets merged, and CUHK03's is of its old protocol.
#
# *The original reproduction* (2017-18) trains on Market-1501 alone, evaluates with Market-1501's own definition, the **trapezoid**,
# and publishes 87.05 rank-1 / 71.38 mAP for the global loss, 88.78 / 75.76 with mutual learning.
#
# *AlignedReID++* (Luo et al., Pattern Recognition 94, 2019) reports 90.6 / 77.7 on Market-1501 with the global distance,
# the *strong baseline* (Luo et al., CVPR-W 2019) 94.5 / 85.9; both by the **step** definition.
# :::
#
# We read these numbers with three questions. *Which AP?* Between the two definitions lie 2.1 to 2.6 points in our runs on CUHK03, with
# the same distances: an mAP of 71.4 by trapezoid and one of 73 by step may be one model. *Which split?* CUHK03's "old protocol" is another test set: it has a
# gallery of one picture for each of 100 people, the new one (Zhong et al., CVPR 2017) several pictures of each of 700 and
# fewer people to train with; scores of the two have nothing to say to each other. *What was done to the list afterwards?* Re-ranking, the subject
# of [chapter 9](09_reranking.ipynb), adds several points of rank-1 and many of mAP.
#
# Our own table is of drawn people, a small network and a minute of training. It can be compared with its two baselines, and with
# none of the published numbers above.

# %% [markdown]
# ## Summary
#
# * Sort by distance, cross out what is ignored, note the ranks of the matches: CMC and AP follow from these.
# * CMC asks for the first match; AP asks for all of them. How the CMC is counted never changes the AP; another split of the data changes everything.
# * AP has two definitions. Step is never below trapezoid, and the gap, equation {eq}`eq-ap-gap`, follows from the ranks. Every mAP has to say which it is.
# * Queries without a match are counted beside the score. Ties are ordered as the gallery is; a score that depends on them is no score.
# * A ranking cannot say "nobody". A threshold can, at a false-accept rate that has to be chosen.
# * A number stands beside a baseline, and the ranked lists beside the number.
#
# Next: [chapter 9](09_reranking.ipynb) ranks a second time, by whom the pictures have for neighbours.

# %% [markdown]
# ## Exercises
#
# **1. On paper.** A ranking reads *match, wrong, match*. What are both APs, and which match makes the difference?
#
# :::{dropdown} Solution
# Step: $\frac12 (1 + \frac23) = \frac56$. Trapezoid: $\frac12 (1 + \frac12(\frac23 + \frac12)) = \frac12 (1 + \frac7{12}) = \frac{19}{24}$.
# The first match has nothing wrong before it and counts the same in both. The second brings
# $\frac{3-2}{2 \cdot 3 \cdot 2} = \frac1{12}$, half of which is the difference $\frac{20}{24} - \frac{19}{24}$.
#
# ```python
# hits = [True, False, True]
# assert (walk(hits, False), walk(hits, True)) == (Fraction(5, 6), Fraction(19, 24))
# ```
# :::
#
# **2. Chance.** What rank-1 does a model reach that ranks at random? Work it out from the test set, without any model, and put it beside the
# untrained network's.
#
# :::{dropdown} Solution
# With $m$ matches among $n$ pictures that are not ignored, the first place is a match with probability $m/n$.
#
# ```python
# same_id = queries.ids[:, None] == gallery.ids[None, :]
# same_camera = queries.cameras[:, None] == gallery.cameras[None, :]
# chance = ((same_id & ~same_camera).sum(1) / (~(same_id & same_camera)).sum(1)).mean()
# print(f"chance {chance:.1%}, untrained network {untrained_row.rank1:.1%}")
# ```
#
# The untrained network lies above chance: random convolutions still tell dark from light and red from blue.
# :::
#
# **3. Without the rule.** What does rank-1 become if pictures of the query's own camera count as matches? Which baseline
# gains most, and why?
#
# :::{dropdown} Solution
# Give the gallery cameras that no query has; then nothing is ignored.
#
# ```python
# for row, of_all in zip(table.rows, (learned, untrained, colours)):
#     q, g = evaluation.split(of_all)
#     D = evaluation.distance_matrix("global", q, g)
#     easy = ranking.score_ranking(D, q.ids, g.ids, np.zeros(len(q), int), np.ones(len(g), int))
#     print(f"{row.name:<28} {row.rank1:.1%} -> {easy.cmc[0]:.1%}")
# ```
#
# The baselines gain most. Their features describe the street, the light and the colours of the camera as much as the person, and
# in the query's own camera all of these stay the same.
# :::
