# %% [markdown]
# # 09 Re-ranking
#
# A ranking asks one question: how far is each gallery picture from the query? Re-ranking asks a second one, of pictures
# that nobody asked about: who are *your* neighbours?
#
# **What you will hold**
#
# * k-reciprocal neighbours, their expansion and the Jaccard distance, step by step on twenty points in the plane;
# * the published method in loops of a few lines, and the library's, which holds no matrix of all against all;
# * what re-ranking lifts on the test set, a query that it hurts, and what it costs.
#
# **Time** on two cores: a quarter of a minute, and a minute more if the book's model is not trained yet.
# **Hardware**: any laptop, no GPU.

# %% tags=["parameters"]
# Parameters: what this chapter may be run with.
k1 = 20  # neighbours that count, as published
k2 = 6  # neighbours over which weights are averaged
lambda_value = 0.3  # share of the original distance

# %% [markdown]
# The next cell turns the parameters into settings. A name or a value that makes no sense ends the chapter here.

# %%
from dataclasses import dataclass

import numpy as np
import torch

from alignedreid_lib import book, evaluation, figures, runs
from alignedreid_lib.datasets import open_dataset
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import features, ranking, reranking
from alignedreid_lib.runs import check_types


@dataclass(frozen=True)
class Settings:
    k1: int = 20
    k2: int = 6
    lambda_value: float = 0.3

    def __post_init__(self):
        check_types(self)
        if not (1 <= self.k1 <= 100 and 1 <= self.k2 <= 100 and 0 <= self.lambda_value <= 1):
            raise InputError(f"{self}: k1 and k2 are from 1 to 100, lambda_value is from 0 to 1")


settings = runs.read_parameters(Settings, globals())

# %% [markdown]
# ## The problem in a picture
#
# Twenty pictures, each a point in the plane: two people, seven pictures each, and six strangers. Person A walks from the
# sun into the shade, so A's pictures form a chain; the query stands at its sunny end. Person B stands still, so B's form a
# crowd, and it happens to lie near the query.

# %%
chain = [(0.0, 0.0), (0.6, 0.3), (1.2, 0.7), (1.8, 1.2), (2.5, 1.7), (3.1, 2.2), (3.7, 2.9)]
crowd = [
    (-0.1, -1.4),
    (0.2, -2.3),
    (0.8, -1.7),
    (0.7, -2.4),
    (0.4, -1.8),
    (-0.3, -2.4),
    (0.0, -1.8),
]
strangers = [(-1.9, 1.6), (4.9, -0.6), (-2.6, -1.0), (3.2, -1.8), (0.8, 3.2), (6.6, 1.4)]
points = np.array(chain + crowd + strangers, dtype=np.float32)  # [N, 2]
who = np.array(["A"] * 7 + ["B"] * 7 + ["?"] * 6)
N, query = len(points), 0


# %%
def draw(ax, title, marked=(), lines=(), numbers=True):
    """The points by person, the query as a star, some of them ringed and joined."""
    for name, colour, shape in (
        ("A", figures.BLUE, "o"),
        ("B", figures.VERMILLION, "s"),
        ("?", figures.GREY, "^"),
    ):
        ax.plot(*points[who == name].T, shape, color=colour, markersize=6, label=name)
    for i, j in lines:
        ax.plot(*points[[i, j]].T, color=figures.BLACK, linewidth=0.7, zorder=0)
    if len(marked):
        ax.plot(
            *points[list(marked)].T, "o", markersize=13, markerfacecolor="none", color=figures.BLACK
        )
    ax.plot(*points[query], "*", color=figures.BLUE, markersize=16, markeredgecolor="black")
    for i, (x, y) in enumerate(points if numbers else ()):
        ax.annotate(str(i), (x, y), (5, 4), textcoords="offset points", fontsize=7)
    ax.set(title=title, xticks=[], yticks=[], aspect="equal")
    ax.grid(False)


# %% label="fig-points" alt="Twenty points in the plane: person A is a chain that leads away from the query, person B a crowd of points below it; the six nearest of the query are ringed, four of them B"
squared = ((points[:, None] - points[None]) ** 2).sum(2)  # [N, N]
nearest = squared.argsort(axis=1, kind="stable")  # each row begins with the point itself
fig = figures.Figure(figsize=(6, 3.6), layout="constrained")
ax = fig.subplots()
draw(ax, "the six nearest of the query", nearest[query, 1:7])
ax.legend(loc="lower right")
fig

# %% [markdown]
# By distance the query's list in [the figure](#fig-points) begins with A's next two pictures, and then come four of B, before A's next: they lie closer to the query
# than the rest of A's chain does. No threshold on the distance can mend that. But B's pictures have each other for
# neighbours; the query is nothing special to them.
#
# ## Reciprocal neighbours
#
# Let $N(i, k)$ be the $k$ nearest of picture $i$, itself not counted. Two pictures are *$k$-reciprocal* neighbours if each is
# among the nearest of the other; a picture belongs to its own set, too, which matters for the counts below:
#
# $$ R(i, k) = \{i\} \cup \{\, j : j \in N(i, k) \ \text{and}\ i \in N(j, k) \,\} $$ (eq-reranking-reciprocal)
#
# As a loop, with a small $k$, since twenty points have few neighbours:


# %% tags=["nbval-check-output"]
def reciprocal(i, k):
    return {int(j) for j in nearest[i, : k + 1] if i in nearest[j, : k + 1]}


small_k = 6
print("nearest of the query:   ", [int(j) for j in nearest[query, 1 : small_k + 1]])
print("reciprocal with it:     ", sorted(reciprocal(query, small_k) - {query}))

# %% [markdown]
# Check one in [the figure](#fig-points): is the query among the six nearest of picture 7, the B that is closest to it? It is not: the
# other six of B are nearer. So B is out, every one of them. The library finds the same sets for all pictures at once, as a sparse matrix with a row for each
# picture:

# %%
by_library = reranking.reciprocal(nearest, small_k).toarray()  # [N, N]
for i in range(N):
    assert set(np.flatnonzero(by_library[i])) == reciprocal(i, small_k), f"picture {i} differs"

# %% [markdown]
# ## Expansion
#
# A reciprocal neighbour may know further friends. Take each $j \in R(i, k)$ and its own reciprocal neighbours for half of $k$ (rounded to a whole number); where
# more than two thirds of them are in $R(i, k)$ already, the others are let in as well:
#
# $$ R^*(i, k) = R(i, k) \;\cup \bigcup_{\substack{j \in R(i, k)\\ |R(i, k) \cap R(j, k/2)| \,>\, \frac23 |R(j, k/2)|}} R(j, \tfrac k2) $$ (eq-reranking-expansion)


# %% tags=["nbval-check-output"]
def expand(i, k):
    near = reciprocal(i, k)
    whole = set(near)
    for j in near:
        theirs = reciprocal(j, int(np.around(k / 2)))
        if 3 * len(theirs & near) > 2 * len(theirs):
            whole |= theirs
    return whole


print("reciprocal:", sorted(reciprocal(query, small_k)))
print("expanded:  ", sorted(expand(query, small_k)))
gains = {i: sorted(expand(i, small_k) - reciprocal(i, small_k)) for i in range(N)}
print("who gains: ", {i: gained for i, gained in gains.items() if gained})

# %%
by_library = reranking.expanded(nearest, small_k).toarray()
for i in range(N):
    assert set(np.flatnonzero(by_library[i])) == expand(i, small_k), f"picture {i} differs"

# %% label="fig-sets" alt="The points three times: the six nearest of the query, its reciprocal neighbours, and the expanded set"
fig = figures.Figure(figsize=(8, 2.7), layout="constrained")
sets = {
    "nearest": set(nearest[query, : small_k + 1].tolist()),
    "reciprocal": reciprocal(query, small_k),
}
sets["expanded"] = expand(query, small_k)
for ax, (title, members) in zip(fig.subplots(1, 3), sets.items(), strict=True):
    others = sorted(members - {query})
    draw(ax, title, others, [(query, j) for j in others])
fig

# %% [markdown]
# [The figure](#fig-sets) shows how reciprocity throws the intruders out, and only those are added whom the remaining ones vouch for: of
# $R(2, 3) = \{0, 1, 2, 3\}$ three are in already, so picture 2 brings the fourth.
#
# ## A row of weights
#
# A set is turned into a row of numbers, so that sets can be compared softly: a neighbour weighs more the nearer it is. With
# $d$ the squared distance, divided by the largest of its row, and $R^*(i)$ short for $R^*(i, k)$,
#
# $$ V_{ij} = \frac{e^{-d_{ij}}}{\sum_{l \in R^*(i)} e^{-d_{il}}} \quad \text{for } j \in R^*(i), \qquad 0 \text{ elsewhere} $$ (eq-reranking-weights)
#
# (The published code divides the row by its sum, as here; the paper's equation leaves the exponentials as they are.)


# %%
def weigh(k):
    d = squared / squared.max(axis=1, keepdims=True)
    V = np.zeros((N, N))
    for i in range(N):
        members = sorted(expand(i, k))
        V[i, members] = np.exp(-d[i, members])
        V[i] /= V[i].sum()
    return d, V


d, V = weigh(small_k)
assert np.allclose(V.sum(axis=1), 1), "a row adds up to one"

# %% [markdown]
# *Local query expansion* then replaces each row by the mean of the rows of its $k_2$ nearest, itself among them: neighbours lend
# each other their neighbourhoods.
#
# $$ V_i \leftarrow \frac1{k_2} \sum_{j \in N(i, k_2 - 1)\, \cup\, \{i\}} V_j $$ (eq-reranking-average)

# %%
small_k2 = 3
averaged = np.array([V[nearest[i, :small_k2]].mean(axis=0) for i in range(N)])

# %% label="fig-weights" alt="Two matrices of twenty rows: the weights before and after averaging; dark blue outside a block for A, a block for B and a few strangers"
fig = figures.Figure(figsize=(7, 3.2), layout="constrained")
for ax, (title, matrix) in zip(
    fig.subplots(1, 2), {"weights V": V, "averaged": averaged}.items(), strict=True
):
    image = ax.imshow(matrix, cmap="cividis", vmin=0, vmax=0.4)
    ax.set(title=title, xlabel="picture", ylabel="picture", xticks=[0, 7, 14], yticks=[0, 7, 14])
    ax.grid(False)
fig.colorbar(image, ax=fig.axes, label="weight")
fig

# %% [markdown]
# In [the figure](#fig-weights) pictures 0 to 6 are A, 7 to 13 are B. Each row holds a handful of numbers, and A's block and B's block do not meet: on that
# everything below rests. Three quarters of the matrix are zero before averaging; with 19 281 pictures instead of twenty it is 99.9 %.
#
# ## The Jaccard distance
#
# Two pictures are near if their rows overlap:
#
# $$ d_J(i, j) = 1 - \frac{\sum_l \min(V_{il}, V_{jl})}{\sum_l \max(V_{il}, V_{jl})} $$ (eq-reranking-jaccard)
#
# By hand for two rows: (0.5, 0.5, 0) and (0, 0.5, 0.5) share 0.5 and cover 0.5 + 0.5 + 0.5, so their distance is $1 - 1/3$.

# %% tags=["nbval-check-output"]
from fractions import Fraction


def jaccard(one, other):
    return 1 - sum(map(min, one, other)) / sum(map(max, one, other))


half = Fraction(1, 2)
print(jaccard((half, half, 0), (0, half, half)))

# %% [markdown]
# And the final distance keeps a share $\lambda$ of $d_{ij}$, the scaled square from the weights, so that pictures of equal Jaccard
# distance still have an order:
#
# $$ d^*(i, j) = (1 - \lambda)\, d_J(i, j) + \lambda\, d_{ij} $$ (eq-reranking-final)

# %%
share = 0.3
by_loop = np.array(
    [(1 - share) * jaccard(averaged[query], averaged[j]) + share * d[query, j] for j in range(1, N)]
)
by_library = reranking.rerank(points[:1], points[1:], small_k, small_k2, share)[0]
assert np.allclose(by_loop, by_library, atol=1e-5), "loop and library differ"

# %% [markdown]
# Loop and library agree. What has become of the query's list?

# %% tags=["nbval-check-output"]
before = 1 + squared[query, 1:].argsort(kind="stable")
after = 1 + by_library.argsort(kind="stable")
print(
    "by distance:",
    "".join(who[before]),
    "  A at ranks",
    [int(r) for r in 1 + np.flatnonzero(who[before] == "A")],
)
print(
    "re-ranked:  ",
    "".join(who[after]),
    "  A at ranks",
    [int(r) for r in 1 + np.flatnonzero(who[after] == "A")],
)

# %%
precision = [
    np.mean([k / r for k, r in enumerate(1 + np.flatnonzero(who[order] == "A"), 1)])
    for order in (before, after)
]
assert precision[1] > precision[0], "re-ranking has not helped the query"

# %% label="fig-reranked" alt="The points twice, the query joined to the first six of its list: by distance four of them are B, re-ranked five are A"
fig = figures.Figure(figsize=(8, 3.3), layout="constrained")
for ax, (title, order) in zip(
    fig.subplots(1, 2), {"by distance": before, "re-ranked": after}.items(), strict=True
):
    draw(ax, f"{title}: joined are the first six", order[:6], [(query, j) for j in order[:6]])
fig

# %% [markdown]
# [The figure](#fig-reranked) shows that the chain carries: each of its links vouches for the next, and all of A comes before all of B. Two strangers stand
# among the far end of the chain, since their rows share a little with the query's. B's rows share nothing with it: their Jaccard
# distance is 1, and the original distance alone orders them.
#
# ## The test set
#
# Now the book's model and its test pictures, with the published settings.

# %%
trained = book.model()
print(trained.origin)
dataset = open_dataset(book.dataset_folder(), "test")
embedded = features.extract(trained.network, dataset, **book.AS_TRAINED)
queries, gallery = evaluation.split(embedded)
labels = (queries.ids, gallery.ids, queries.cameras, gallery.cameras)
plain = evaluation.distance_matrix("global", queries, gallery).numpy()
how = (settings.k1, settings.k2, settings.lambda_value)
again = reranking.rerank(queries.global_features, gallery.global_features, *how)  # [Q, G]

# %% [markdown]
# `evaluation.evaluate` does it with `rerank=True`, the default; here is its table.

# %%
table = evaluation.evaluate(embedded, ("global",), rerank=True, name="trained model")
table

# %%
scored = [
    ranking.score_ranking(matrix, *labels, average_precision="step", top=20)
    for matrix in (plain, again)
]
if how == (20, 6, 0.3):
    assert np.isclose(table.rows[1].mean_ap_step, scored[1].mean_ap), (
        "the table re-ranks by other settings"
    )

# %% tags=["bound"]
if how == (20, 6, 0.3):
    assert scored[1].mean_ap > scored[0].mean_ap, "re-ranking lifts mAP"

# %% [markdown]
# mAP gains, and that is typical: matches far down the list, seen from a different side, are moved up by the matches before them. The
# first rank was mostly right already, so there is little to gain; in our trainings rank-1 rose or fell by two or three points
# from one to the next. Rank-5 and rank-10 fell in all of them.

# %% label="fig-reranked-cmc" alt="CMC of the plain and of the re-ranked distances over the ranks 1 to 20; the re-ranked curve ends lower"
figures.cmc_curves({"by distance": scored[0].cmc, "re-ranked": scored[1].cmc})

# %% [markdown]
# In [the figure](#fig-reranked-cmc) the re-ranked curve is the lower one further down the list: a person who is not found at once is found later than
# before. The next figure compares the average precision query by query:

# %% alt="Average precision of each query before and after re-ranking, a point a query: about half lie above the diagonal, a quarter below, the rest on it"
change = scored[1].ap_per_query - scored[0].ap_per_query
fig = figures.Figure(figsize=(4.2, 3.6), layout="constrained")
ax = fig.subplots()
ax.plot([0, 1], [0, 1], color=figures.BLACK, linewidth=0.8)
for mask, colour, shape in (
    (change >= 0, figures.BLUE, "o"),
    (change < 0, figures.VERMILLION, "v"),
):
    ax.plot(
        scored[0].ap_per_query[mask],
        scored[1].ap_per_query[mask],
        shape,
        color=colour,
        markersize=3.5,
    )
ax.set(
    xlabel="AP by distance",
    ylabel="AP re-ranked",
    title="A point a query: above the line it is helped",
)
ax.set_aspect("equal")
fig

# %% tags=["bound"]
helped, hurt = (change > 1e-9).sum(), (change < -1e-9).sum()
print(
    f"of {len(change)} queries {helped / len(change):.0%} are helped, {hurt / len(change):.0%} are hurt"
)
assert helped > hurt > 0, "it helps more queries than it hurts, and hurts some"

# %% [markdown]
# ### A query that it helps, and one that it hurts
#
# The query with the largest gain, by distance and re-ranked:

# %% alt="Ranked list of the query that gains most, by distance: matches are scattered"
best, worst = int(change.argmax()), int(change.argmin())
figures.ranked_lists([best], dataset, plain, top=12)

# %% alt="The same query re-ranked: its matches stand at the front"
figures.ranked_lists([best], dataset, again, top=12)

# %% [markdown]
# And the one that loses most:

# %% alt="Ranked list of the query that loses most, by distance"
figures.ranked_lists([worst], dataset, plain, top=12)

# %% alt="The same query re-ranked: its first match has fallen behind people who look alike"
figures.ranked_lists([worst], dataset, again, top=12)

# %% [markdown]
# The mechanism is the same in both. Re-ranking trusts the neighbourhood: company counts, not the first place. In the first list several
# of the query's own person stand near the front and know each other; together they pass the strangers before them. In the second
# the nearest is right, but there are many people who look alike and know each other. It amplifies what the model
# believes, right or wrong.
#
# ## What it costs
#
# The usual code holds a handful of matrices of all pictures against all: for Market-1501 19 281 x 19 281, 1.5 GB each. The library keeps the
# neighbours of each picture and the few weights that are not zero. How few are they here?

# %%
whole = torch.cat([queries.global_features, gallery.global_features])
near, largest, _ = reranking.nearest(
    reranking.FeatureDistances(whole, len(queries)), settings.k1 + 1
)
stored = reranking.expanded(near.indices.numpy(), settings.k1).nnz
share_stored = stored / len(whole) ** 2
print(
    f"{len(whole)} pictures, {stored / len(whole):.0f} weights each: {share_stored:.1%} of the matrix"
)

# %% tags=["bound"]
assert share_stored < 0.05, "the weights are not sparse"

# %% [markdown]
# The number of weights a picture depends on $k_1$ and not on how many pictures there are, so memory grows with $N k_1$ instead of
# $N^2$. What remains of the cost is the search for neighbours: the distances of *all* pictures to all, queries and gallery together. At
# Market-1501's size that is the product of 19 281 features with themselves, and everything else together takes less than half as
# long again (`make bench` measures it where you are).
#
# Local distances do not come from one feature a picture. For them `rerank_distances` takes three matrices: queries to gallery, queries to
# queries, gallery to gallery. Both ways agree where both are possible:

# %%
matrices = [evaluation.distance_matrix("global", one, other) for one, other in (
    (queries, gallery), (queries, queries), (gallery, gallery))]  # fmt: skip
from_matrices = reranking.rerank_distances(*matrices, *how)
assert np.allclose(from_matrices, again, atol=2e-3), "features and matrices say different things"

# %% [markdown]
# ## What the paper says, and what we see
#
# :::{admonition} The paper says
# Zhong et al. (CVPR 2017) set $k_1 = 20$, $k_2 = 6$, $\lambda = 0.3$ on Market-1501. The original reproduction of AlignedReID
# reports its global baseline there at 87.05 % rank-1 and 71.38 % mAP (trapezoid), and 89.85 % and 85.49 % re-ranked.
# :::
#
# There mAP gains five times as much as rank-1. Two warnings stand in no table. Re-ranking uses all *queries* as well: they
# are neighbours like others, so a score depends on who else was asked. And its distances compare inside one query's list only: they are no
# measure of how alike two people are, and no threshold may be put on them ([chapter 8](08_evaluation.ipynb)).
#
# ## Summary
#
# * Reciprocity throws out pictures that are near the query but have nearer neighbours of their own.
# * Each picture becomes a sparse row of weights; near is who shares them.
# * It raises mAP; rank-1 changes little, in either direction; and it hurts queries whose matches are outnumbered by people who look alike.
# * Neighbour lists instead of matrices: memory grows with the number of pictures, not with its square.
#
# Next: [chapter 10](10_reproduction.ipynb) puts all published scores beside ours.
#
# ## Exercises
#
# **1.** What is $d_J$ of a picture with itself, and of two pictures whose sets do not meet?
#
# :::{dropdown} Solution
# 0 and 1. Minima and maxima of a row with itself are equal; of rows that do not meet all minima are 0.
#
# ```python
# assert jaccard(V[0], V[0]) == 0
# assert jaccard((1, 0), (0, 1)) == 1
# ```
# :::
#
# **2.** What does $\lambda = 1$ give? Is the order the one by distance?
#
# :::{dropdown} Solution
# The squared distance, divided by the largest of the query's row. Within a row both are rising functions of the distance, so the
# order is the same.
#
# ```python
# same = reranking.rerank(queries.global_features, gallery.global_features, lambda_value=1)
# assert np.isclose(ranking.score_ranking(same, *labels).mean_ap, ranking.score_ranking(plain, *labels).mean_ap)
# ```
# :::
#
# **3.** A person of our test set has about nine pictures, queries and gallery together, and re-ranking searches among all of them. Try $k_1$ of 5, 10, 20 and 40. Where is mAP highest, and why does it fall
# again?
#
# :::{dropdown} Solution
# ```python
# for k in (5, 10, 20, 40):
#     matrix = reranking.rerank(queries.global_features, gallery.global_features, k, settings.k2)
#     print(k, round(100 * ranking.score_ranking(matrix, *labels, average_precision="step").mean_ap, 1))
# ```
#
# It is highest where $k_1$ is about the number of pictures a person has. Beyond it the sets are filled up with other
# people, whose neighbourhoods overlap for no good reason.
# :::
