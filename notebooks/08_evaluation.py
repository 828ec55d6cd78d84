# %% [markdown]
# # 08 Evaluation
#
# A model gives distances; a paper reports a rank-1 and an mAP. This chapter shows every step between the two.

# %% label="fig-five-images" caption="Five gallery images, nearest first: how good is this order?" alt="Six drawn images. The query: a person in a red and white striped shirt. Then the gallery, nearest image first: the same person by the same camera, a different person in stripes, the same person by camera 2, an empty street, the same person by camera 4. Frames and marks: the two of other cameras right, the second and the street wrong, the first ignored."
import numpy as np

from alignedreid_lib import figures, synthetic
from alignedreid_lib.synthetic.packing import Shot

query_id, query_camera = 9, 1
ids = [9, 9, 9, 0, 10]  # of the gallery images
cameras = [4, 2, 1, 3, 1]
distances = [0.9, 0.6, 0.2, 0.8, 0.5]  # to the query
order = sorted(range(5), key=lambda g: distances[g])

street = synthetic.sample_cameras(6, seed=0)
nobody = Shot(100_000, 2, 0, empty=True)
gallery = [Shot(9, 3, 4), Shot(9, 1, 2), Shot(9, 0, 1), nobody, Shot(10, 0, 1)]
shots = [Shot(9, 0, 0)] + [gallery[g] for g in order]
pictures = [
    synthetic.take(shot, street, misalignment=0.0, seed=0) for shot in shots
]
framed = [np.pad(picture, ((4, 4), (4, 4), (0, 0))) for picture in pictures]
titles = [f"query: id {query_id}, camera {query_camera}"]
for picture, g in zip(framed[1:], order, strict=True):
    kind, colour = "✗ wrong", figures.VERMILLION
    if ids[g] == query_id:
        kind, colour = "✓ match", figures.BLUE
        if cameras[g] == query_camera:
            kind, colour = "ignored", figures.GREY
    rgb = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    picture[[0, 1, 2, 3, -4, -3, -2, -1]] = rgb
    picture[:, [0, 1, 2, 3, -4, -3, -2, -1]] = rgb
    where = f"id {ids[g]}, camera {cameras[g]}"
    titles.append(f"{kind}, distance {distances[g]}\n{where}")
figures.contact_sheet(framed, titles, columns=6)

# %% [markdown]
# **What you will learn**
#
# * how to compute the CMC and both average precisions of one query on paper, in a loop of a few lines, and with the library;
# * how three protocols score the same five images, and what happens to a query that has no match;
# * how the book's model scores in comparison with two baselines, and which queries it gets wrong;
# * what several images per query improve, and how a threshold handles people who are not in the gallery.
#
# **Time** on two cores: half a minute, plus one minute if the book's model is not trained yet.
# **Hardware**: any laptop, no GPU.

# %% tags=["parameters"]
# Parameters: the seed of the random weights of the untrained network
seed = 1

# %% tags=["hide-input"]
from alignedreid_lib import runs

settings = runs.read_settings(globals(), seed=runs.SEED)

# %% [markdown]
# ## The problem
#
# A camera has taken an image of a person, the *query*. The images in which we search for the person are the *gallery*. A model has measured
# the distance of each gallery image from the query, and we look through the gallery, nearest image first. How good is that order?
#
# [The figure](#fig-five-images) shows the smallest gallery that has every case. Its images come from the library's own generator
# ([chapter 1](01_datasets.ipynb)); the distances are made up, so that you can do all sums on paper. Nearest first:
#
# | image | distance | id | camera | what it shows | how it counts |
# |---:|---:|---:|---:|---|---|
# | 2 | 0.2 | 9 | 1 | the same person, the query's own camera | **ignored**, as if it were not there |
# | 4 | 0.5 | 10 | 1 | a different person, from any camera, including the query's own | wrong |
# | 1 | 0.6 | 9 | 2 | the same person, a different camera | right: a **match** |
# | 3 | 0.8 | 0 | 3 | a **distractor**: a box without a person, or with a person who is in no query | wrong |
# | 0 | 0.9 | 9 | 4 | the same person, a different camera | right: a **match** |
#
# Images of the query's person from the query's own camera are ignored because they would make the task trivial. Two images that one camera
# took of one person within seconds share the street, the light and the pose; finding one with the other does not show that the model can
# recognise a person elsewhere. Ignoring an image is not the same as counting it as wrong: if an ignored image is ranked first, the second
# image moves up to rank 1.
#
# Distractors count as wrong. A real gallery contains many of them, and a system that ranks an empty street before the person has failed its
# user.

# %% [markdown]
# ## From an order to ranks
#
# Take a query $q$. Sort the gallery by distance, remove the ignored images, and number the rest from 1. The $m_q$ matches have the ranks
#
# $$ r_{q,1} < r_{q,2} < \dots < r_{q,m_q}. $$ (eq-match-ranks)
#
# The CMC and both average precisions follow from these numbers; only the protocol *cuhk03* and the open set below need more. (Papers also
# call the ignored images junk. The junk of [chapter 1](01_datasets.ipynb), with the id -1, has already been removed by `prepare`.) In our
# example the ignored image is removed, and the rest is *wrong, match, wrong, match*: the ranks are $r_1 = 2$ and $r_2 = 4$. A short loop
# finds them:


# %% tags=["nbval-check-output"]
def find_hits(distances, query_id, query_camera, ids, cameras):
    """True for a match, False for a wrong image; ignored ones left out."""
    order = sorted(range(len(ids)), key=lambda g: distances[g])
    kept = [
        g for g in order if ids[g] != query_id or cameras[g] != query_camera
    ]
    return [ids[g] == query_id for g in kept]


hits = find_hits(distances, query_id, query_camera, ids, cameras)
ranks = [rank for rank, hit in enumerate(hits, start=1) if hit]
print("hits ", hits)
print("ranks", ranks)
assert ranks == [2, 4], "the ranks on paper are 2 and 4"

# %% [markdown]
# ## CMC: is there a match among the first k?
#
# The *cumulative matching characteristic* answers the question of a guard at a screen: is it enough to look at the first $k$ images? Let $V$
# be the set of queries that have a match. The CMC is the share of these queries whose first match has rank $k$ or better:
#
# $$ \mathrm{CMC}(k) = \frac{1}{|V|} \sum_{q \in V} \left[\, r_{q,1} \le k \,\right]. $$ (eq-cmc)
#
# The bracket is 1 if the condition is true and 0 otherwise. Papers call $\mathrm{CMC}(1)$ *rank-1*. (Zheng et al., ICCV 2015, use this
# definition for Market-1501.) Our one query has $r_1 = 2$, so its curve is 0 at $k = 1$ and 1 from $k = 2$.

# %% tags=["nbval-check-output"]
cmc_by_hand = [int(ranks[0] <= k) for k in (1, 2, 3, 4)]
print("CMC(1) ... CMC(4):", cmc_by_hand)
assert cmc_by_hand == [0, 1, 1, 1], "the first match has rank 2"

# %% [markdown]
# The curve does not depend on the second match. The CMC is the same if the image of camera 4 has rank 4 or rank 4 000. This is why
# there is a second score.

# %% [markdown]
# ## Average precision: are all matches near the top?
#
# Down to rank $r_j$ there are $r_j$ images, and $j$ of them are matches. The *precision* at this rank is $j / r_j$, and the *recall* is
# $j / m$. Average precision is the area under the curve of precision over recall. There are two ways to measure the area under a curve that
# is known only at a few points.
#
# **Step** is the mean of the precisions at all matches:
#
# $$ \mathrm{AP}_\text{step}(q) = \frac{1}{m_q} \sum_{j=1}^{m_q} \frac{j}{r_{q,j}}. $$ (eq-ap-step)
#
# **Trapezoid** takes, for each match, the average of the precision at the match and the precision one rank before it. It is the definition of
# Market-1501's own evaluation:
#
# $$ \mathrm{AP}_\text{trapezoid}(q) = \frac{1}{m_q} \sum_{j=1}^{m_q} \frac{1}{2}
#    \left( \frac{j}{r_{q,j}} + \frac{j-1}{r_{q,j}-1} \right). $$ (eq-ap-trapezoid)
#
# There is no rank before 1, so for $r = 1$ the last fraction is taken to be 1.
#
# With either definition, the *mean average precision* is the mean over the same queries as the CMC:
#
# $$ \mathrm{mAP} = \frac{1}{|V|} \sum_{q \in V} \mathrm{AP}(q). $$ (eq-map)

# %% [markdown]
# By hand, for the ranks 2 and 4:
#
# $$ \begin{aligned}
# \mathrm{AP}_\text{step} &= \tfrac12 \left( \tfrac12 + \tfrac24 \right) = \tfrac12, \\
# \mathrm{AP}_\text{trapezoid} &= \tfrac12 \left( \tfrac{1/2 + 0/1}{2} + \tfrac{2/4 + 1/3}{2} \right)
#    = \tfrac12 \left( \tfrac{3}{12} + \tfrac{5}{12} \right) = \tfrac13.
# \end{aligned} $$
#
# One ranking gives two numbers: 50 % and 33.3 %. Papers call both of them "AP". [The figure](#fig-precision-recall) shows the difference.

# %% label="fig-precision-recall" caption="One ranking, two areas: step takes the height at the match, trapezoid the area under the line." alt="Two panels of precision over recall with the four ranks of the list. Left, step: two rectangles of height one half. Right, trapezoid: the area under the straight lines between the ranks, which is smaller."
figure = figures.Figure(figsize=(8, 2.8))
points = [
    (0, 1, "start"),
    (0, 0, "rank 1"),
    (0.5, 0.5, "rank 2"),
    (0.5, 1 / 3, "rank 3"),
    (1, 0.5, "rank 4"),
]
areas = {"step: 1/2": ([0, 0, 0.5, 0.5, 1, 1], [0, 0.5, 0.5, 0.5, 0.5, 0]),
         "trapezoid: 1/3": ([0, 0.5, 0.5, 1, 1],
                            [0, 0.5, 1 / 3, 0.5, 0])}  # fmt: skip
for axes, (title, area) in zip(
    figure.subplots(1, 2), areas.items(), strict=True
):
    axes.fill(*area, color=figures.SKY, alpha=0.5)
    line = [x for x, _, _ in points], [y for _, y, _ in points]
    axes.plot(*line, "-", color=figures.BLACK, clip_on=False)
    for x, y, name in points:
        hit = name in ("rank 2", "rank 4")
        colour = figures.BLUE if hit else figures.VERMILLION
        shape = "o" if hit else "X"
        if name == "start":
            colour, shape = figures.BLACK, "."
        axes.plot(x, y, shape, color=colour, markersize=8, clip_on=False)
        beside = {"rank 1": (26, 4), "rank 3": (9, -12)}.get(name, (10, -3))
        axes.annotate(name, (x, y), beside, textcoords="offset points")
    axes.set(
        title=title,
        xlabel="recall",
        ylabel="precision",
        xlim=(0, 1.2),
        ylim=(0, 1.1),
    )
figure

# %% [markdown]
# In [the figure](#fig-precision-recall) a line joins the four ranks of the list:
#
# * It starts at precision 1, a point that only the trapezoid uses.
# * At a wrong image (a cross) it goes straight down, because precision falls and recall stays the same.
# * At a match (a circle) it moves to the right. *Step* uses the height reached at the match. *Trapezoid* uses the area under the line itself,
#   which rises to the match from below.

# %% [markdown]
# ### How much the two definitions differ
#
# Subtract equation {eq}`eq-ap-trapezoid` from equation {eq}`eq-ap-step` match by match. A match at rank 1 contributes nothing; any other
# match contributes
#
# $$ \frac12\left(\frac{j}{r_j} - \frac{j-1}{r_j-1}\right) = \frac{r_j - j}{2\, r_j (r_j - 1)}. $$ (eq-ap-gap)
#
# The numerator is the number of wrong images before the match, so the difference is never negative: *step is never below trapezoid*, and both
# agree if no wrong image comes before a match. The difference is largest, one quarter, for a first match at rank 2, and it falls as
# $1/(2 r_j)$ for matches far down the list. It is therefore smaller for galleries in which most queries have many matches, such as
# Market-1501's, than for galleries with two or three matches per query.

# %% tags=["nbval-check-output"]
from fractions import Fraction

gaps = [Fraction(r - j, 2 * r * (r - 1)) for j, r in enumerate(ranks, start=1)]
print("gap of each match:", *gaps, "  their mean:", sum(gaps) / len(gaps))
assert sum(gaps) / 2 == Fraction(1, 2) - Fraction(1, 3), (
    "the mean gap is the difference between step and trapezoid on paper"
)

# %% [markdown]
# ## A naive loop, then the library
#
# The loop below does not use the formulas. It goes through the list rank by rank and adds up slices of the area in
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


by_loop = walk(hits, trapezoid=False), walk(hits, trapezoid=True)
print("step", by_loop[0], "  trapezoid", by_loop[1])
assert by_loop == (Fraction(1, 2), Fraction(1, 3)), "loop and paper agree"

# %% [markdown]
# The loop gives the sums that we computed on paper. `ranking.score_ranking` takes a full distance matrix, one row per query, and scores all
# queries at once. Our matrix has one row.

# %% tags=["nbval-check-output"]
from alignedreid_lib.evaluation import ranking

problem = ([distances], [query_id], ids, [query_camera], cameras)
step, trapezoid = (
    ranking.score_ranking(*problem, average_precision=definition, top=4)
    for definition in ("step", "trapezoid")
)
print("CMC(1) ... CMC(4):", step.cmc)
print(f"mAP: step {step.mean_ap:.4f}, trapezoid {trapezoid.mean_ap:.4f}")
assert step.cmc.tolist() == cmc_by_hand, "the library's CMC is the one on paper"
assert np.allclose((step.mean_ap, trapezoid.mean_ap), list(map(float, by_loop)))

# %% [markdown]
# Paper, loop and library agree. The library never sorts indices. It sorts the values of each row and looks up the ranks of the few matches,
# because equation {eq}`eq-match-ranks` needs only these ranks.

# %% [markdown]
# ## Three counting protocols
#
# A *counting protocol* defines what a CMC counts. The average precision is the same under all three protocols.
#
# * **market1501** is equation {eq}`eq-cmc`: 1 from the rank of the first match.
# * **allshots** scores every match separately and counts only the wrong images before it. Match $j$ has $r_j - j$ wrong images before it, so
#
# $$ \mathrm{CMC}_\text{allshots}(k) = \frac{1}{|V|} \sum_{q \in V} \frac{1}{m_q} \sum_{j=1}^{m_q}
#    \left[\, r_{q,j} - j < k \,\right]. $$ (eq-cmc-allshots)
#
# * **cuhk03** simulates galleries with one image per person. It takes only images of other cameras, draws one image of each identity at
#   random, and finds the rank of the match that was drawn. The score is the expectation over all draws.
#
# By hand, for *allshots*: the two matches have 1 and 2 wrong images before them, so none counts at $k = 1$, half count at 2, and both count
# at 3.
#
# By hand, for *cuhk03*: the other cameras have three images, two of id 9 and the empty street, which counts as an identity of its own. There
# are two draws:
#
# | drawn of id 9 | drawn of id 0 | nearest first | rank of the match |
# |---|---|---|---:|
# | image 1, at 0.6 | image 3, at 0.8 | match, street | 1 |
# | image 0, at 0.9 | image 3, at 0.8 | street, match | 2 |
#
# So CMC(1) is one half, and CMC(2) is 1.

# %% tags=["nbval-check-output"]
by_protocol = {}
for name in ("market1501", "allshots", "cuhk03"):
    by_protocol[name] = scores = ranking.score_ranking(
        *problem, protocol=name, top=4
    )
    print(f"{name:<11} CMC {scores.cmc}   mAP (trapezoid) {scores.mean_ap:.4f}")
    assert scores.mean_ap == trapezoid.mean_ap, (
        "the AP does not depend on the protocol"
    )
for name, by_hand in {
    "allshots": [0, 0.5, 1, 1],
    "cuhk03": [0.5, 1, 1, 1],
}.items():
    assert by_protocol[name].cmc.tolist() == by_hand, f"{name}: as by hand"

# %% [markdown]
# Rank-1 is 0, 0 and 50 % for the same distances. The last protocol leaves out person 10, who was seen by the query's own camera, and so the
# nearest wrong image disappears. A rank-1 means little if its protocol is not named.
#
# For a small gallery the *cuhk03* expectation can be computed by brute force, by enumerating all draws.

# %% tags=["nbval-check-output"]
from itertools import product

elsewhere = [g for g in range(5) if cameras[g] != query_camera]
by_id = [[g for g in elsewhere if ids[g] == i] for i in (0, query_id)]
draws = [sorted(draw, key=distances.__getitem__) for draw in product(*by_id)]
drawn = np.array([[ids[g] for g in draw].index(query_id) + 1 for draw in draws])
expected = [float((drawn <= k).mean()) for k in (1, 2, 3, 4)]  # drawn: ranks
print("draws, nearest first:", draws, "  CMC:", expected)
assert expected == by_protocol["cuhk03"].cmc.tolist(), (
    "the expected CMC is the mean over all draws"
)

# %% [markdown]
# Here there are two draws; with 700 identities of five images there would be $5^{700}$. Most scripts therefore sample some draws, and their
# score changes from run to run. The library computes the expectation exactly:
#
# 1. For each other identity $i$ it takes the share $p_i$ of images that are nearer than the match. With probability $p_i$ this identity comes
#    before the match, independently of the others.
# 2. The number of identities before the match is thus a sum of independent coin flips with different probabilities: it has a
#    *Poisson-binomial* distribution.
# 3. The library builds this distribution by adding one identity at a time.

# %% [markdown]
# ### Order the list
#
# The figure below starts with the five images of this chapter in their order. Three wrong images follow them: a second image of id 0 and two
# images of a new person, id 11. Predict first, then look:
#
# * Which scores do the three new images change: the CMC of *market1501*, of *allshots*, of *cuhk03*, the APs?
# * You may move one match up by one rank. Which move raises the APs more, from rank 2 to 1 or from rank 4 to 3? Which of these two moves
#   changes the CMC of *market1501*?
#
# Drag the cards, or move them with the arrow keys, Home and End. Click a card, or press Enter, to change its image: a match, a wrong image of
# id 11, of id 0, of id 10 by the query's camera, or an ignored image.


# %% tags=["interactive"] caption="Change the order: which score notices?" alt="Cards of a query and eight gallery images, the precision over recall of their order with both areas, and the CMC under three protocols"
def take(*shot, empty=False):
    shot = Shot(*shot, empty=empty)
    return synthetic.take(shot, street, misalignment=0.0, seed=0)


cards, card_images = [], []
for k, camera in enumerate([2, 4, 2, 3, 4, 2, 3, 5]):  # if not the query's
    cards.append([(9, camera), (11, camera), (0, camera), (10, 1), (9, 1)])
    card_images.append(
        [
            take(9, camera - 1, k),
            take(11, camera - 1, k),
            take(100_000, camera - 1, (k + 5) % 8, empty=True),
            take(10, 0, k),
            take(9, 0, k + 1),
        ]
    )
figures.order_the_list(
    (query_id, query_camera),
    pictures[0],
    cards,
    card_images,
    start=[4, 3, 0, 2, 0, 2, 1, 1],  # which of its images each card is
    static=figure,
    words=(
        "Precision over recall with matches at ranks 2 and 4: step and"
        " trapezoid"
    ),
)

# %% [markdown]
# The three new images change only the CMC of *cuhk03*: the far match is drawn in half of the draws, and
# now it comes second only if the nearer street image is drawn, too. CMC(1) is $1 - \frac12 \cdot \frac12 = \frac34$ instead of 1/2. Images after the last match change neither AP. The move from rank 2 to 1 adds 1/4 to the step AP
# and 3/8 to the trapezoid AP, and it changes CMC(1) of *market1501*; the move from rank 4 to 3 adds 1/12 to both, and this CMC does not
# change. Now try the following:
#
# * Drag the ignored image through the list: no score changes.
# * Press *Matches first*. Both APs are 1. Then move one wrong image to the front: which AP loses more?
# * Move the image of id 10 to the front and to the end. Which protocol does not notice, and why?
# * Change the matches until none is left. The next section is about such a query.

# %% [markdown]
# ## mINP: how far down is the last match?
#
# CMC looks at the first match. Someone who follows a person through all cameras needs *every* match, so the one that matters is the last.
# *mINP*, the mean inverse negative penalty (Ye et al. 2021), divides the number of matches by the rank of the last one,
#
# $$ \mathrm{mINP} = \frac{1}{|V|} \sum_{q \in V} \frac{m_q}{r_{q, m_q}}. $$ (eq-minp)
#
# It is the share of matches among all images that one has to look at to find all of them: 1 if no wrong image comes before the last match.
#
# By hand, for the list above: two matches, the last one at rank 4, so 2/4. If the wrong image at rank 3 is removed, the last match has rank 3
# and mINP is 2/3. A query with many matches can have a high AP and a low INP: nine matches at ranks 1 to 9 and the tenth at rank 100 give an
# AP of 0.91 and an INP of 0.1. The reverse is possible too, if the wrong images come first: ten matches at ranks 10 to 19 have an AP of 0.35
# and an INP of 0.53.


# %% tags=["nbval-check-output"]
def last_match(hits):
    """The share of matches among the images down to the last match."""
    length = len(hits)
    while not hits[length - 1]:
        length -= 1
    return Fraction(sum(hits), length)


print("the list above:", last_match(hits))
ten = [True] * 9 + [False] * 90 + [True]
late = [False] * 9 + [True] * 10
for name, matches in (("one late", ten), ("all late", late)):
    inp, ap = float(last_match(matches)), float(walk(matches, trapezoid=False))
    print(f"ten matches, {name}: INP {inp:.2f}, AP (step) {ap:.2f}")

# %%
from alignedreid_lib.evaluation.matches_and_junk import RankingProblem

matrix, *people = problem
found = RankingProblem(*people).find_matches(matrix)
assert ranking.inverse_penalties(found) == float(last_match(hits)), (
    "the library's inverse penalty equals the loop's"
)
assert last_match(ten) < walk(ten, False), "one late match lowers INP more"
assert last_match(late) > walk(late, False), "wrong images first lower AP more"

# %% [markdown]
# ## Queries without a match
#
# A query may have no match, because only its own camera saw the person. Its rank-1 is then neither right nor wrong, and its AP is 0/0. The
# means skip it, and the number of skipped queries must be reported: a score that silently drops queries can be made arbitrarily good by
# dropping the hard ones.
#
# We add person 7 with one query and one gallery image, both from camera 5. The features have a single channel, so that a distance is the
# difference of two numbers:
#
# | | feature | id | camera |
# |---|---|---|---|
# | queries | 0, 5 | 9, 7 | 1, 5 |
# | gallery | the five distances, 5.1 | as above, 7 | as above, 5 |
#
# The next cell scores them with the score table.

# %%
import torch

from alignedreid_lib import evaluation
from alignedreid_lib.evaluation import features

# two queries, then the gallery; below, a row each of ids, cameras and marks
values = torch.tensor([0.0, 5.0, *distances, 5.1])[:, None]
known = np.array([[9, 7, *ids, 7], [1, 5, *cameras, 5], [0, 0] + [1] * 6])
names = [f"{k}.jpg" for k in range(8)]
tiny = features.Features(values, torch.zeros(8, 0, 0), *known, names)
two_queries = evaluation.evaluate(tiny, ("global",), False, name="by hand")
two_queries

# %% [markdown]
# The last column is "1 of 2": one of two queries has a match. The scores are those of the first query, as before. The library marks the
# second query as not valid and gives its AP as nan, never as 0 or 1.

# %% tags=["nbval-check-output"]
row = two_queries.rows[0]
matrix = abs(values[:2] - values[2:].T)
both = ranking.score_ranking(matrix, [9, 7], [*ids, 7], [1, 5], [*cameras, 5])
print("valid:", both.valid, "  AP:", both.ap_per_query.round(4))
assert (row.num_queries, row.num_valid) == (2, 1), "one of two has a match"
assert np.isnan(both.ap_per_query[1]), "without a match the AP is nan"
assert np.isclose(both.mean_ap, 1 / 3), "the mean is that of the first query"

# %% [markdown]
# ## Ties
#
# Equal distances do not define an order. The program must choose one, and this choice can change the score more than the model does. Here is
# a "model" that has collapsed: it gives a distance of 0.5 to every image. We score it twice, the second time with the gallery in reverse
# order.
#
# :::{admonition} Predict first
# :class: tip
# What is the rank-1 of a model that gives the same distance to every image?
# :::

# %% tags=["nbval-check-output"]
for name, way, by_hand in (("forwards", 1, 1), ("backwards", -1, 5 / 12)):
    turned = ids[::way], [query_camera], cameras[::way]
    collapsed = [[0.5] * 5], [query_id], *turned
    scores = ranking.score_ranking(*collapsed, average_precision="step")
    print(f"{name:<9} rank-1 {scores.cmc[0]:.0%}, AP {scores.mean_ap:.4f}")
    assert np.isclose(scores.mean_ap, by_hand), (
        f"{name}: the AP by hand is {by_hand}"
    )

# %% [markdown]
# Rank-1 is 100 % or 0 %, although the model has no information. The library always keeps ties in the gallery's order, so a score can be
# repeated, but a score with many ties is still meaningless. Reversing the gallery is a cheap test for this; we apply it to the real table
# below.

# %% [markdown]
# ## The test set
#
# Now we score the book's model in the same way. It is a ResNet-18 without its last stage, trained on the drawn people of
# [chapter 1](01_datasets.ipynb). It is trained the first time a chapter needs it ([chapter 6](06_training.ipynb) shows how); later chapters
# load the saved weights.

# %%
from alignedreid_lib import book

trained = book.model()
print(trained.origin)

# %% [markdown]
# The test set contains people that the model has never seen. A mark gives the role of each image: 0 for a query, 1 for the gallery. (Mark 2,
# multi-query, is not used here.)

# %% tags=["nbval-check-output"]
from alignedreid_lib.datasets import open_dataset

dataset = open_dataset(book.dataset_folder(), "test")
is_query = dataset.marks == evaluation.QUERY
is_gallery = dataset.marks == evaluation.GALLERY
people = set(dataset.ids[is_query].tolist())
distractors = is_gallery & (dataset.ids == 0)
print(f"{is_query.sum()} queries of {len(people)} people")
print(f"{is_gallery.sum()} gallery images, {distractors.sum()} distractors")
trained_on = open_dataset(book.dataset_folder(), "trainval").ids
assert people.isdisjoint(trained_on.tolist()), "nobody here was trained on"

# %% [markdown]
# `features.extract` computes the features of every image, without augmentation, at the image size that the network was trained with. The size matters: a network trained on 64 x 32 pixels does not work on images of 256 x 128.

# %% tags=["nbval-check-output"]
learned = features.extract(trained.network, dataset, **book.AS_TRAINED)
print("input", book.AS_TRAINED)
print("global features", list(learned.global_features.shape))
assert len(learned) == len(dataset), "there is one feature per image, in order"

# %% [markdown]
# A score means little without a baseline. Two baselines cost next to nothing:
#
# * **the same network, untrained**: it has random weights, so its score comes only from the architecture and the data;
# * **a colour histogram**: it counts the colours of an image and ignores where they are. It has no notion of a person: a red shirt over white
#   trousers gives the same histogram as a white shirt over red trousers.
#
# A model that does not beat both baselines has learned nothing useful.

# %%
from alignedreid_lib.model import AlignedReID

torch.manual_seed(settings.seed)
network = AlignedReID(book.CONFIG.backbone, last_stride=book.CONFIG.last_stride)
untrained = features.extract(network, dataset, **book.AS_TRAINED)
colours = evaluation.colour_histograms(dataset)

# %% [markdown]
# The table has one row for each of the three sets of features. `evaluation.evaluate` ranks by the Euclidean distance of global features.

# %%
table = evaluation.ScoreTable([])
for name, found in {
    "trained model": learned,
    "the same network, untrained": untrained,
    "colour histogram": colours,
}.items():
    table += evaluation.evaluate(found, ("global",), False, name=name)
# `make run` reads this file, and prints the table at its end
runs.write_json(runs.resolve("runs/book/scores.json"), table.to_dict())
table

# %% [markdown]
# The table gives AP by both definitions, and step is the larger in each row, as equation {eq}`eq-ap-gap` predicts. All queries are valid, so
# the last column is a single number. ([Chapter 0](00_quickstart.ipynb) used different random weights for its untrained network, so its scores
# differ.) The book promises three things about this table:

# %% tags=["bound"]
model_row, untrained_row, colour_row = table.rows
assert model_row.rank1 >= 0.75, (
    f"rank-1 is 75 % or more; it is {model_row.rank1:.1%}"
)
for other in (untrained_row, colour_row):
    better = f"the trained model is better than: {other.name}"
    assert model_row.rank1 > other.rank1, better
    assert model_row.mean_ap_step > other.mean_ap_step, better

# %% [markdown]
# All three are true. Can we trust the table itself? We check it with the naive loop from above, which is slow, for every query. (It now uses
# floating point, because fractions would take half a minute for four hundred rankings.)

# %%
from operator import truediv

queries, gallery = evaluation.split(learned)
matrix = evaluation.distance_matrix("global", queries, gallery)  # [Q, G]
gallery_labels = gallery.ids.tolist(), gallery.cameras.tolist()
naive = []
for row, *query in zip(
    matrix.tolist(), queries.ids, queries.cameras, strict=True
):
    hits = find_hits(row, *query, *gallery_labels)
    two_aps = walk(hits, False, truediv), walk(hits, True, truediv)
    naive.append((hits[0], *two_aps))
aps = model_row.mean_ap_step, model_row.mean_ap_trapezoid
assert np.allclose(np.mean(naive, axis=0), (model_row.rank1, *aps)), (
    "loop and library give the same three scores"
)

# %% [markdown]
# The loop and the library agree on all three scores. We make two more checks: the gap between the definitions is what equation
# {eq}`eq-ap-gap` predicts from the ranks alone, and ties do not matter, because the reversed gallery gives the same score.

# %%
labels = (queries.ids, gallery.ids, queries.cameras, gallery.cameras)
problem = ranking.RankingProblem(*labels)
found = problem.find_matches(matrix)  # all matches, counted from 0
j, r = found.order + 1, found.rank + 1
gap = np.where(r > 1, (r - j) / np.maximum(2 * r * (r - 1), 1), 0.0)
predicted = (np.bincount(found.query, weights=gap) / found.counts).mean()
difference = model_row.mean_ap_step - model_row.mean_ap_trapezoid
assert np.isclose(predicted, difference), "the gap follows from the ranks"
print(f"step is {100 * difference:.1f} points above trapezoid")

turned = queries.ids, gallery.ids[::-1], queries.cameras, gallery.cameras[::-1]
reverse = ranking.score_ranking(matrix.flip(1), *turned)
assert abs(reverse.mean_ap - model_row.mean_ap_trapezoid) < 1e-3, (
    "the order of the gallery does not change the mAP"
)

# %% [markdown]
# The order of the gallery does not matter here. The two definitions, both called mAP, differ by more than two points; many papers claim a
# smaller improvement. If a gallery is too large for a matrix of all distances, `streaming.score_stream` gives the same scores in chunks
# ([chapter 11](11_time_and_space.ipynb)).

# %% [markdown]
# ## The curves

# %% label="fig-cmc" caption="The trained model finds most people at rank 1; the baselines find them late." alt="CMC over the ranks 1 to 20 with three lines: the trained model on top, the colour histogram and the untrained network below."
curves = {}
for row, of_all in zip(table.rows, (learned, untrained, colours), strict=True):
    distances = evaluation.distance_matrix("global", *evaluation.split(of_all))
    curves[row.name] = ranking.score_ranking(distances, *labels, top=20).cmc
figures.cmc_curves(curves)

# %% [markdown]
# The curves of [the figure](#fig-cmc) never fall: a person found in the top five is also in the top ten. The curve of the trained model
# starts high and is nearly flat from rank 10, so a user who looks at ten images misses few people. The curves of the baselines rise slowly:
# the right person is somewhere in their lists, but far from the top.

# %% [markdown]
# ## Several images per query
#
# In Market-1501 the query's camera has more than one image of the query's person: those of mark 2 ([chapter 1](01_datasets.ipynb)). *Multi-query* pools their features with the query's own, by the mean or the maximum of every channel, which describes the person better. By
# hand, with two channels and three images:

# %% tags=["nbval-check-output"]
three = torch.tensor([[0.0, 4.0], [2.0, 0.0], [4.0, 2.0]])
print("average", three.mean(0).tolist(), "  maximum", three.amax(0).tolist())
alike = np.ones(3, int)
one = features.Features(
    three, torch.zeros(3, 0, 0), alike, alike, np.array([0, 2, 2]), [*"abc"]
)
pooled = evaluation.pool_queries(one[:1], one[1:], "average")
assert pooled.global_features.tolist() == [three.mean(0).tolist()], (
    "the query's feature is pooled with the other two"
)

# %%
by_queries = evaluation.ScoreTable([])
for how, name in {
    None: "single query",
    "average": "multi-query, average",
    "max": "multi-query, maximum",
}.items():
    by_queries += evaluation.evaluate(
        learned, ("global",), False, how, name=name
    )
assert by_queries.rows[0].rank1 == model_row.rank1, "as in the table above"
by_queries

# %% tags=["bound"]
single, average, maximum = by_queries.rows
assert average.mean_ap_step > single.mean_ap_step, (
    "several images per query give a higher mAP"
)

# %% [markdown]
# The average of a few views describes a person better than one view. It costs nothing but images, and papers that use it should say so.
#
# ## Is the difference luck?
#
# Two rows of a table differ by some points. With different queries the difference would be larger or smaller. How much of it is luck? Both rows
# rank the same queries, so we compare query by query. As an example, take five queries whose AP changes by 0.2, 0.1, 0.3, -0.1 and 0.2. The
# mean change is 0.14. If the two methods were equally good, each change could as well have had the other sign. There are $2^5 = 32$ ways to
# choose the signs. In how many of them is the mean at least as far from 0 as ours?

# %% tags=["nbval-check-output"]
changes = [2, 1, 3, -1, 2]  # in tenths
sums = [
    sum(sign * change for sign, change in zip(signs, changes, strict=True))
    for signs in product((1, -1), repeat=5)
]
as_far = sum(abs(total) >= abs(sum(changes)) for total in sums)
print(f"in {as_far} of {len(sums)} ways: {as_far / len(sums):.4f}")

# %% [markdown]
# A difference this large or larger happens by luck in nearly one of five cases, so five queries prove nothing. `evaluation.compare` answers
# two questions:
#
# * *How probable is it by luck?* This is a *permutation test*, as above. With hundreds of queries nobody can list all signs, so it draws 999 of
#   them.
# * *How large is it?* It draws as many queries as there are, with replacement, 999 times, and leaves out the smallest and the largest 2.5 % of
#   the mean changes: the rest is the interval (a *bootstrap*, Efron and Tibshirani 1993).
#
# Queries of one person are not independent: a person who is hard to recognise in one image is often hard in the next. So `compare` draws whole
# people with all their queries, and changes the sign of all of them together. For five queries of five people it lists all signs, as we did:


# %% tags=["hide-input"]
from alignedreid_lib.evaluation.scores import QueryScores, ScoreRow


def row_of(aps):
    """A row of a score table with these APs; rank-1 is not of interest here."""
    aps = np.array(aps)
    scores = dict.fromkeys(
        ("rank1", "rank5", "rank10", "mean_ap_step", "mean_ap_trapezoid"),
        aps.mean(),
    )
    per_query = QueryScores(np.ones(len(aps)), aps)
    counts = {"num_queries": len(aps), "num_valid": len(aps)}
    return ScoreRow(
        "", "global", False, **scores, **counts, per_query=per_query
    )


# %%
before = row_of([0.5] * 5)
after = row_of([0.5 + change / 10 for change in changes])
five = evaluation.compare(before, after).rows[1]
assert np.isclose(five.difference, 0.14), "the mean change is 0.14"
assert np.isclose(five.probability, as_far / 32), "the same signs are counted"

# %% [markdown]
# Now the two rows above, single query against the average:

# %%
comparison = evaluation.compare(single, average)
comparison

# %% tags=["bound"]
assert comparison.rows[1].low > 0, (
    "the whole interval of the difference in mAP is above 0"
)

# %% [markdown]
# The interval of the mAP is far above 0, so the gain is not luck *of the queries*. The interval does not cover the luck of the training: each
# seed gives a different network. For this `compare` takes several rows per side, one per seed ([chapter 7](07_mutual_learning.ipynb)).
#
# ## An open set
#
# So far every query's person was in the gallery. Most people seen by a real camera are not in it, and a ranking cannot answer "nobody": it
# always has a rank 1. We therefore need a threshold on the distance. A threshold makes two kinds of errors: it rejects pairs of images that
# show one person, and it accepts pairs that show two people. Let $S$ be the pairs of one person, $D$ the pairs of two people, and $d_s$ the
# distance of pair $s$. Accepting every pair up to a threshold $t$ gives
#
# $$ \mathrm{TAR}(t) = \frac{|\{s \in S : d_s \le t\}|}{|S|}, \qquad \mathrm{FAR}(t) = \frac{|\{s \in D : d_s \le t\}|}{|D|} $$ (eq-open-set)
#
# the *true-accept rate* and the *false-accept rate*; the output below calls them *found* and *false alarms*. Plotted against each other over
# all thresholds they form the *ROC* curve (receiver operating characteristic). As an example, take three pairs of one person at distances 1,
# 2 and 4, and four pairs of two people at 3, 5, 6 and 7. Which is the largest threshold that accepts at most a quarter of the wrong pairs?

# %% tags=["nbval-check-output"]
from alignedreid_lib.evaluation import verification

curve = verification.roc([1, 2, 4], [3, 5, 6, 7])
for t, false, true in zip(*curve, strict=True):
    print(f"up to {t:.0f}: found {true:.2f}, false alarms {false:.2f}")
print("threshold for a quarter:", verification.choose_threshold(curve, 0.25))

# %% [markdown]
# Any threshold from 3 to just below 5 accepts one wrong pair, the one at 3. The largest observed distance below 5 is 4, so the threshold
# is 4. [The figure](#fig-open-set) shows both histograms for the test set, scaled to the same area. Drag the threshold, or move it with
# the arrow keys; the buttons choose the threshold for a rate, as `choose_threshold` does.
#
# :::{admonition} Predict first
# :class: tip
# * We assume that a guard can look at one false alarm in a thousand comparisons. At this rate, does the model accept more or less than half
#   of the pairs of one person? How many false alarms does a query get on average?
# * At a false-accept rate of 10 %, nearly all pairs of one person are accepted. What share of the accepted pairs is wrong: 10 %, half, or
#   more than 90 %?
# :::

# %% tags=["interactive"] label="fig-open-set" caption="Move the threshold: every further right pair that it accepts costs false alarms." alt="Histograms of distances of pairs of one person and of two people with a threshold that can be moved, and its point on the ROC"
pairs = verification.pair_distances(learned)
figures.choose_the_threshold(
    *pairs,
    num_queries=len(queries),
    static=figures.open_set(*pairs, false_accept_rate=0.001),
    words="Histograms of distances with a threshold, and its point on the ROC",
)

# %%
curve = verification.roc(*pairs)
threshold = verification.choose_threshold(curve, 0.001)
accepted, share = (
    (distances <= threshold).mean()
    for distances in (pairs.different, pairs.same)
)
assert accepted <= 0.001, "at most one pair of strangers in a thousand"
print(f"{share:.0%} of the pairs of one person are accepted")

# %% [markdown]
# The two histograms overlap, so a threshold that rejects nearly all strangers also rejects many right pairs. This is a much harder task than
# rank-1, where a match only has to be nearer than the other images of one gallery. And one false alarm in a thousand is still a high rate at
# a place where ten thousand people pass: each query is compared with hundreds of strangers, so about every second query gets one, and in a
# larger gallery it gets more of them at the same rate.
#
# At a false-accept rate of 10 %, more than 90 % of the accepted pairs are wrong, although the ROC looks excellent there: the rate counts
# pairs of two people, and there are more than a hundred of these for each pair of one person. Find the threshold at which half of the
# accepted pairs are wrong, and read off how many of the right pairs it rejects.
#
# ### Two points of the curve as columns
#
# A table needs numbers instead of a curve. `evaluate` also computes the true-accept rate at two false-accept rates, 1 % and 0.1 % (papers call
# them TPR at FPR $10^{-2}$ and $10^{-3}$). It goes through the distances in blocks and keeps only the smallest distances between different
# people. A rate of 0.1 % allows $n = \lfloor |D| / 1000 \rfloor$ false alarms, so the pairs of one person that are nearer than the $(n + 1)$th
# smallest of these distances are accepted.
# `to_markdown(more=True)` shows these columns and mINP:

# %%
from IPython.display import Markdown

more = evaluation.evaluate(learned, ("global",), rerank=False)
(row,) = more.rows
assert np.isclose(row.tpr_1e3, (pairs.same <= threshold).mean()), (
    "the column is the curve's value at the chosen threshold"
)
assert row.tpr_1e3 <= row.tpr_1e2, "fewer false alarms accept fewer pairs"
Markdown(more.to_markdown(more=True))

# %% [markdown]
# The rates show why a threshold is harder than a ranking, and mINP shows why finding all images of a person is harder than finding one:
# compare each of the three columns with rank-1 in the same row.

# %% [markdown]
# ## The ranked lists
#
# Scores do not tell what the mistakes look like. We first look at two queries with a perfect AP and three matches.

# %% caption="Three matches first, then people who look similar." alt="Ranked lists of two queries whose three matches all come first, framed blue with a tick; the images after them are framed orange-red with a cross."
scores = ranking.score_ranking(matrix, *labels, average_precision="step")
perfect = np.flatnonzero((scores.ap_per_query == 1) & (found.counts == 3))
best = perfect[[0, -1]]  # not of one person
figures.ranked_lists(best.tolist(), dataset, matrix)

# %% [markdown]
# The model finds the person from different sides, in different streets and in different light. After the last match, the list often continues
# with people in similar clothes.
#
# Here are the three queries whose first match comes latest.

# %% caption="The first people of these lists wear what the query wears." alt="Ranked lists of the three queries whose first match comes latest: all or nearly all images are wrong, framed orange-red with a cross."
first_ranks = found.rank[found.order == 0] + 1
worst = np.argsort(-first_ranks, kind="stable")[:3]
print("first match at rank", *first_ranks[worst])
figures.ranked_lists(worst.tolist(), dataset, matrix)

# %% [markdown]
# A user who looks at ten images finds few of these three people, or none. Would a human have recognised them? Here is each query again, with
# its nearest match and the rank of that match.

# %% caption="Would you have recognised these three people?" alt="The three queries again, each with the image of the same person that the model ranks first among its matches."
from alignedreid_lib.batches import images

path_of = {path.name: path for path in dataset.paths}
pictures, titles = [], []
for query in worst:
    same_person = gallery.ids == queries.ids[query]
    match = np.flatnonzero(
        same_person & (gallery.cameras != queries.cameras[query])
    )
    nearest = match[matrix[query, match].argmin()]
    shown = queries.names[query], gallery.names[nearest]
    pictures += [images.decode(path_of[name]) for name in shown]
    titles += ["query", f"match, rank {first_ranks[query]}"]
figures.contact_sheet(pictures, titles, columns=6, width=6)

# %% [markdown]
# Look at the three ranked lists again. In each of them the first people wear what the query wears: a top of the same colour, and often also
# trousers or a skirt of the same colour. The match shows the same person from a different side: a backpack hides half of the back, or a
# stripe on the trousers or the lining of a jacket can be seen only from one side. In other queries the box is badly placed, or an obstacle
# hides part of the person.
#
# Three queries are only anecdotes, but the generator allows us to count. It records what everybody wears, and an identity of the test set is
# the number of a person in the generator. For every query with a wrong image at rank 1 we compare the two people, and for reference we
# compare all pairs of people.

# %% tags=["hide-input"]
wearing = {
    "colour of the top": lambda person: person.top.colour,
    "colour below": lambda person: person.bottom.colour,
    "kind of garment below": lambda person: person.bottom_kind,
    "pattern of the top": lambda person: person.top.pattern,
    "bag": lambda person: person.bag,
}
everybody = {
    number: synthetic.sample_person(number, seed=0) for number in people
}

# %% [markdown]
# First we collect the wrong images at rank 1. Distractors have no person number, so they are counted and left out of the comparison.

# %%
first = []  # the gallery image at rank 1 of each query
for row, query, camera in zip(
    matrix.numpy(), queries.ids, queries.cameras, strict=True
):
    who_and_where = query, gallery.ids, camera, gallery.cameras
    first += list(evaluation.ranked_list(row, *who_and_where, top=1))
wrong = gallery.ids[first] != queries.ids
assert np.isclose(1 - wrong.mean(), model_row.rank1), "rank-1 is the rest"
both = np.stack([queries.ids, gallery.ids[first]])[:, wrong].T.tolist()
confused = [(a, b) for a, b in both if b != 0]
print(f"wrong: {len(both)}, {len(confused)} of them show a test person")

# %% [markdown]
# In how many of these pairs do both people wear the same, compared with all pairs of people?
#
# :::{admonition} Predict first
# :class: tip
# Which of the five do confused people share more often than chance: colours, the kind of garment, the pattern, the bag?
# :::

# %%
anybody = [(a, b) for a in people for b in people if a < b]
times = {}  # as often among the confused as among all pairs
for what, look in wearing.items():
    looks = {number: look(person) for number, person in everybody.items()}
    share = np.mean([looks[a] == looks[b] for a, b in confused])
    usual = np.mean([looks[a] == looks[b] for a, b in anybody])
    print(f"same {what:<22} {share:4.0%} confused, {usual:4.0%} all pairs")
    times[what] = share / usual

# %% tags=["bound"]
assert times["colour of the top"] > 1.5, "confused people wear alike above"
assert times["colour below"] > 1.5, "confused people wear alike below"

# %% [markdown]
# Confused people wear the same colours several times as often as two random people: this model relies mostly on colour. A property that a
# model ignores is shared by confused people about as often as by two random people. The pattern of the top, the bag and the kind of garment
# come close to that. This is the result of one minute of training on 64 x 32 pixels.
#
# The camera is a second possible cause. Does the model recognise the street instead of the person?

# %%
other_people = gallery.ids[None, :] != queries.ids[:, None]  # [Q, G]
own_camera = gallery.cameras[None, :] == queries.cameras[:, None]
of_own_camera = other_people & own_camera
by_chance = (of_own_camera.sum(1) / other_people.sum(1)).mean()
observed = (gallery.cameras[first] == queries.cameras)[wrong].mean()
luck = (by_chance * (1 - by_chance) / wrong.sum()) ** 0.5  # of a share of few
print(f"of the query's own camera: {observed:.0%} of the wrong images")
print(f"by chance {by_chance:.0%} ± {luck:.0%} (one standard deviation)")

# %% [markdown]
# If the first share exceeds the second by more than two standard deviations, chance no longer explains the difference: the street influences
# the ranking. Wrong images from the query's own camera have the advantage of the same street and light, while every match must come from a
# different camera. A smaller difference, as in our run, proves nothing with so few wrong answers. In any case most wrong answers come from
# other cameras.
#
# ## What the papers report
#
# :::{admonition} The paper says
# *AlignedReID* (Zhang et al., arXiv 1711.08184, 2017) reports rank-1 94.4 % on Market-1501 and 97.8 % on CUHK03. Both are after re-ranking,
# with four training sets merged, and the CUHK03 result is for its old protocol.
#
# *The original reproduction* (2017-18) trains on Market-1501 alone, evaluates with Market-1501's own definition, the **trapezoid**, and
# publishes 87.05 rank-1 / 71.38 mAP for the global loss, 88.78 / 75.76 with mutual learning.
#
# *AlignedReID++* (Luo et al., Pattern Recognition 94, 2019) reports 90.6 / 77.7 on Market-1501 with the global distance,
# the *strong baseline* (Luo et al., CVPR-W 2019) 94.5 / 85.9; both use the **step** definition.
# :::
#
# Ask three questions when you read such numbers:
#
# | question | why it matters |
# |---|---|
# | Which AP? | In our runs that train on all of CUHK03 the two definitions differ by 2.1 to 2.6 points for the same distances. An mAP of 71.4 (trapezoid) and an mAP of 73 (step) may come from the same model. |
# | Which split? | The "old protocol" of CUHK03 has a gallery of one image for each of 100 people. The new protocol (Zhong et al., CVPR 2017) has several images of each of 700 people, and fewer people to train with. Scores under the two cannot be compared. |
# | What was done to the list afterwards? | Re-ranking, the subject of [chapter 9](09_reranking.ipynb), adds many points of mAP, and on Market-1501 seven or eight points of rank-1. |
#
# Our own table uses drawn people, a small network and one minute of training. It can be compared with its two baselines, but not with the
# published numbers above.

# %% [markdown]
# ## Which setting should I take?
#
# * `average_precision = "step"` to compare with later papers, `"trapezoid"` with the original reproduction. They differ by about two points here, so name
#   the one that you report.
# * `protocol = "market1501"`, unless the numbers that you compare with were counted differently: in our example rank-1 is 0 or 50 %, depending on the
#   protocol.
# * Multi-query, `"average"`, if you have several images of the query's person: it raised mAP by about three points, more than luck of the
#   queries.
# * Choose the false-accept rate by the work that it causes: comparisons per day times the rate is the number of false alarms per day.
# * `streaming.score_stream` if the distance matrix does not fit into memory; the scores are the same.
#
# ## Summary
#
# * Sort by distance, remove the ignored images, and note the ranks of the matches: CMC and AP follow from these.
# * CMC depends on the first match, AP on all matches. The counting protocol of the CMC never changes the AP; a different split of the data
#   changes everything.
# * AP has two definitions. Step is never below trapezoid, and the gap, equation {eq}`eq-ap-gap`, follows from the ranks. Every reported mAP
#   must name its definition.
# * mINP depends on the last match: report it if every match counts.
# * Report the number of queries without a match. Ties keep the gallery's order; a score that depends on that order is meaningless.
# * A ranking cannot answer "nobody". A threshold can, at a false-accept rate that you must choose.
# * Always report a baseline with a score, and look at ranked lists as well as scores.
#
# Next: [chapter 9](09_reranking.ipynb) re-ranks the list using the neighbours of each image.

# %% [markdown]
# ## Exercises
#
# **1. On paper.** A ranking is *match, wrong, match*. What are both APs, and which match causes the difference?
#
# :::{dropdown} Solution
# Step: $\frac12 (1 + \frac23) = \frac56$. Trapezoid: $\frac12 (1 + \frac12(\frac23 + \frac12)) = \frac12 (1 + \frac7{12}) = \frac{19}{24}$.
# The first match has no wrong image before it and counts the same in both. The gap of the second match is
# $\frac{3-2}{2 \cdot 3 \cdot 2} = \frac1{12}$, and half of it is the difference $\frac{20}{24} - \frac{19}{24}$.
#
# ```python
# hits = [True, False, True]
# assert (walk(hits, False), walk(hits, True)) == (Fraction(5, 6), Fraction(19, 24))
# ```
# :::
#
# **2. Chance.** What rank-1 does a model reach that ranks at random? Compute it from the test set, without any model, and compare it with the
# rank-1 of the untrained network.
#
# :::{dropdown} Solution
# With $m$ matches among $n$ images that are not ignored, the image at rank 1 is a match with probability $m/n$.
#
# ```python
# same_id = queries.ids[:, None] == gallery.ids[None, :]
# same_camera = queries.cameras[:, None] == gallery.cameras[None, :]
# chance = ((same_id & ~same_camera).sum(1) / (~(same_id & same_camera)).sum(1)).mean()
# print(f"chance {chance:.1%}, untrained network {untrained_row.rank1:.1%}")
# ```
#
# The untrained network is above chance: random convolutions can still tell dark from light and red from blue.
# :::
#
# **3. Without the rule.** What does rank-1 become if images from the query's own camera count as matches? Which baseline gains most, and why?
#
# :::{dropdown} Solution
# Replace the cameras of the gallery by numbers that no query has; then nothing is ignored.
#
# ```python
# for row, of_all in zip(table.rows, (learned, untrained, colours)):
#     q, g = evaluation.split(of_all)
#     D = evaluation.distance_matrix("global", q, g)
#     easy = ranking.score_ranking(D, q.ids, g.ids, np.zeros(len(q), int), np.ones(len(g), int))
#     print(f"{row.name:<28} {row.rank1:.1%} -> {easy.cmc[0]:.1%}")
# ```
#
# The baselines gain most. Their features describe the street, the light and the colours of the camera as much as the person, and all of these
# are the same in the query's own camera.
# :::
#
# **4. In code.** Compute the average precision (step) of a list. The function gets the role of each image, nearest first: "match", "wrong" or
# "ignored". It returns nan for a list without a match. It has one mistake. Run the cell, read the answer and repair the function.

# %% tags=["nbval-check-output"]
from alignedreid_lib.exercises import check


def precision_of(roles):
    precisions, matches = [], 0
    for rank, role in enumerate(roles, start=1):
        if role == "match":
            matches += 1
            precisions.append(matches / rank)
    return sum(precisions) / matches if matches else float("nan")


check("08_evaluation", precision_of)

# %% [markdown]
# :::{dropdown} Solution
# ```python
# def precision_of(roles):
#     precisions, matches = [], 0
#     counted = [role for role in roles if role != "ignored"]
#     for rank, role in enumerate(counted, start=1):
#         if role == "match":
#             matches += 1
#             precisions.append(matches / rank)
#     return sum(precisions) / matches if matches else float("nan")
#
#
# assert check("08_evaluation", precision_of)
# ```
# :::
