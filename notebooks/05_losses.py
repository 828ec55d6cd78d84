# %% [markdown]
# # 05 Losses
#
# What training asks for, in numbers: pictures of one person near each other, pictures of different people apart. This chapter computes every
# loss of AlignedReID by hand, then with the library, and looks at where each one pushes.
#
# **What you will hold**
#
# * every term of the loss worked out on a handful of points, and the library's function giving the same number;
# * the hardest positive and negative of every picture of a batch, found by eye, by a loop and by a mask, and then looked at;
# * a picture of the gradient of each term: which feature it moves, and where to.
#
# **Time** on two cores: a quarter of a minute, and a minute more if the book's model is not trained yet.
# **Hardware**: any laptop, no GPU.

# %% tags=["parameters"]
# Parameters: one batch, and the loss
ids_per_batch = 8
images_per_id = 4
margin = 0.3
global_weight = 1.0
local_weight = 1.0
id_weight = 1.0
seed = 1

# %% [markdown]
# These are settings of a training, and its `TrainConfig` checks them.

# %%
import math

import numpy as np
import torch
from matplotlib.patches import Rectangle

from alignedreid_lib import book, figures, losses, runs
from alignedreid_lib.alignment import local_distances
from alignedreid_lib.batches import images
from alignedreid_lib.batches.sampling import IdentitySampler
from alignedreid_lib.datasets import open_dataset
from alignedreid_lib.errors import InputError
from alignedreid_lib.model import AlignedReID, load_weights
from alignedreid_lib.training import TrainConfig

config = runs.read_parameters(TrainConfig, globals())

# %% [markdown]
# ## The problem in a picture
#
# We need a batch of people and a network that has learned something: the book's model, with the identity head it was trained with.

# %%
trained = book.model()
print(trained.origin)
dataset = open_dataset(book.dataset_folder("market1501"), "trainval")
network = AlignedReID(book.CONFIG.backbone, None, len(np.unique(dataset.labels))).eval()
report = load_weights(network, trained.result.weights)
assert report.missing == report.unexpected == [], (
    "every number of the trained model, its identity head included"
)

# %% [markdown]
# A batch of $P$ people with $K$ pictures each ([chapter 2](02_batches.ipynb)), and what the network says of it:

# %%
sampler = IdentitySampler(dataset.labels, config.ids_per_batch, config.images_per_id, config.seed)
indices = next(iter(sampler))
labels = torch.from_numpy(dataset.labels[indices])
pictures = [images.decode(dataset.paths[k]) for k in indices]
size = (book.CONFIG.height, book.CONFIG.width)
with torch.no_grad():
    embedding = network(images.normalize(torch.stack([images.resize(p, size) for p in pictures])))
assert len(embedding.global_features) == config.ids_per_batch * config.images_per_id, (
    "P x K features"
)

# %% alt="The batch: eight people with four pictures each, from different cameras, some in front of obstacles or cut off by the box"
figures.batch_grid(pictures, labels, config.images_per_id)

# %% [markdown]
# Call one picture the *anchor*. Of the pictures of the same person (its *positives*) one is farthest from it; of all others (its
# *negatives*) one is nearest. Three anchors of this batch, the most difficult first:


# %%
def draw_triplets(anchors, mined):
    """Anchors, each beside its hardest positive and its hardest negative."""
    fig = figures.Figure(figsize=(8, 1.85), layout="constrained")
    grid = fig.add_gridspec(
        1, 4 * len(anchors) - 1, width_ratios=([1, 1, 1, 0.15] * len(anchors))[:-1]
    )
    for k, a in enumerate(anchors):
        p, n = int(mined.positive[a]), int(mined.negative[a])
        same, other = float(mined.positive_distance[a]), float(mined.negative_distance[a])
        trio = ((a, "anchor", figures.BLACK), (p, f"same: {same:.1f}", figures.BLUE))
        for column, (i, title, colour) in enumerate(
            (*trio, (n, f"other: {other:.1f}", figures.VERMILLION))
        ):
            ax = fig.add_subplot(grid[4 * k + column], xticks=[], yticks=[])
            ax.imshow(pictures[i].permute(1, 2, 0))
            ax.set_title(title, color=colour, fontsize=8.5)
            ax.spines[:].set(visible=True, color=colour, linewidth=2.5)
    return fig


# %% label="fig-triplets" alt="Three anchors, each beside the farthest picture of the same person and the nearest picture of another, with distances above"
features = embedding.global_features
term = losses.global_triplet(features, labels, config.margin, normalize=False)
gaps = term.mined.positive_distance - term.mined.negative_distance
order = gaps.argsort(descending=True)
shown = [int(order[0]), int(order[len(order) // 2]), int(order[-1])]
draw_triplets(shown, term.mined)

# %% [markdown]
# In [the figure](#fig-triplets) blue frames show the same person, vermillion ones another; the numbers are distances from the anchor. Training wants the blue number below the
# vermillion one for every anchor, and with these people, who were in its training, it has got what it wants. This chapter turns the wish into a number
# with a gradient.

# %% [markdown]
# ## Distances of points on a line
#
# Six pictures, each with a feature of a single number: three of person A at 0, 1 and 4, three of person B at 6, 7 and 9.

# %%
points = torch.tensor([[0.0], [1.0], [4.0], [6.0], [7.0], [9.0]])
people = torch.tensor([0, 0, 0, 1, 1, 1])

# %% [markdown]
# Every loss starts from all distances at once. With $x_i$ for the feature of picture $i$,
#
# $$
# d_{ij} = \lVert x_i - x_j \rVert = \sqrt{\lVert x_i \rVert^2 + \lVert x_j \rVert^2 - 2\, x_i^\top x_j} .
# $$ (eq-losses-distance)
#
# By hand, for 1 and 6: $1 + 36 - 2 \cdot 6 = 25$, and the root is 5. As a loop over pairs, the first form; the library takes the second,
# because $x_i^\top x_j$ for all pairs is one product of matrices.

# %%
n = len(points)
by_loop = torch.zeros(n, n)
for i in range(n):
    for j in range(n):
        by_loop[i, j] = (points[i] - points[j]).square().sum().sqrt()
distances = losses.euclidean_distances(points, points)
assert torch.allclose(by_loop, distances, atol=1e-4), (
    "one product of matrices gives all pairs of the loop"
)

# %% tags=["nbval-check-output"]
print(distances.round().int())


# %% alt="Left, six points on a line: three circles at 0, 1, 4 and three squares at 6, 7, 9. Right, the matrix of their distances, small numbers light, in two blocks along the diagonal"
def draw_line(ax, title):
    """The six points on their line."""
    ax.axhline(0, color=figures.GREY, linewidth=1, zorder=1)
    for person, name, colour, marker in (
        (0, "A", figures.GREEN, "o"),
        (1, "B", figures.PURPLE, "s"),
    ):
        x = points[people == person, 0]
        ax.scatter(x, 0 * x, s=90, color=colour, marker=marker, label=f"person {name}", zorder=2)
    ax.set(
        title=title, xticks=points[:, 0].int().tolist(), yticks=[], ylim=(-1, 1), xlabel="feature"
    )
    ax.spines["left"].set_visible(False)
    ax.legend(ncols=2, loc="upper left")


def draw_matrix(ax, matrix, names, title, mined=None, form=".0f"):
    """A distance matrix with its numbers; mined positives framed full, negatives dashed."""
    ax.imshow(matrix, cmap="Greys", vmax=2 * float(matrix.max()))
    for i in range(len(matrix)):
        for j in range(len(matrix)):
            ax.text(j, i, f"{float(matrix[i, j]):{form}}", ha="center", va="center")
    if mined is not None:
        for chosen, colour, style in (
            (mined.positive, figures.BLUE, "-"),
            (mined.negative, figures.VERMILLION, "--"),
        ):
            for i, j in enumerate(chosen.tolist()):
                box = Rectangle(
                    (j - 0.42, i - 0.42), 0.84, 0.84, fill=False, edgecolor=colour, linestyle=style
                )
                ax.add_patch(box).set_linewidth(2)
    ax.set(
        title=title,
        xticks=range(len(names)),
        yticks=range(len(names)),
        xticklabels=names,
        yticklabels=names,
    )
    ax.grid(False)


fig = figures.Figure(figsize=(8, 2.7), layout="constrained")
left, right = fig.subplots(1, 2, width_ratios=(1.6, 1))
draw_line(left, "six pictures on a line")
names = ["0", "1", "4", "6", "7", "9"]
draw_matrix(right, distances, names, "their distances")
fig

# %% [markdown]
# The matrix is symmetric and its diagonal is 0. The two blocks of 3 × 3 along the diagonal hold the distances within a person; everything else is
# between people.
#
# ### Why squares are clamped before the root
#
# The root has a trap. Its slope at 0 is infinite, and two equal features are at 0. Written plainly, the gradient of their distance is not
# a number, and one such pair would spoil the whole network:

# %% tags=["nbval-check-output"]
twins = torch.zeros(2, 3, requires_grad=True)
(twins[0] - twins[1]).square().sum().sqrt().backward()
print(twins.grad.tolist())
assert twins.grad.isnan().all(), "infinity times nought is not a number"

# %% [markdown]
# Every picture is at 0 from itself, so it happens in every batch. The library raises squares below $10^{-12}$ to that value first; such a pair
# is $10^{-6}$ apart and has no gradient:

# %%
twins.grad = None
losses.euclidean_distances(twins, twins).sum().backward()
assert (twins.grad == 0).all(), "clamped pairs pull at nothing"
assert torch.allclose(distances.diagonal(), torch.tensor(1e-6)), (
    "a picture is a millionth from itself"
)

# %% [markdown]
# ## Batch-hard mining
#
# A batch of $N$ pictures has many triplets of anchor, positive and negative. *Batch-hard* keeps one an anchor, the hardest: with
# $y_i$ for the person on picture $i$,
#
# $$
# d_{ap} = \max_{i \ne a,\; y_i = y_a} d_{ai}, \qquad d_{an} = \min_{y_i \ne y_a} d_{ai} .
# $$ (eq-losses-mining)
#
# :::{admonition} The paper says
# This choice is Hermans et al. 2017 (arXiv 1703.07737), eq. 5. AlignedReID (Zhang et al. 2017) uses it for its global and its local loss.
# :::
#
# By eye, on the line: the anchor at 4 has its positives at 0 and 1, and 0 is farther: $d_{ap} = 4$. Its nearest negative is at 6, so $d_{an} = 2$. As a
# loop:


# %%
def mine_by_loop(distances, people):
    """[(positive, negative)] of each anchor, by looking at everybody."""
    mined = []
    for a in range(len(people)):
        positives = [i for i in range(len(people)) if people[i] == people[a] and i != a]
        negatives = [i for i in range(len(people)) if people[i] != people[a]]
        hardest = (
            max(positives, key=lambda i: distances[a, i]),
            min(negatives, key=lambda i: distances[a, i]),
        )
        mined.append(hardest)
    return mined


# %% tags=["nbval-check-output"]
mined = losses.mine_batch_hard(distances, people)
by_loop = mine_by_loop(distances, people)
for a, (p, n) in enumerate(by_loop):
    print(
        f"anchor {names[a]}: positive {names[p]} at {distances[a, p]:.0f}, negative {names[n]} at {distances[a, n]:.0f}"
    )
assert mined.positive.tolist() == [p for p, _ in by_loop], "the mask finds the loop's positives"
assert mined.negative.tolist() == [n for _, n in by_loop], "and its negatives"

# %% [markdown]
# The library has no loop. It lays a mask over the matrix, $-\infty$ on everything that is no positive before it takes the maximum of
# each row, $\infty$ on everything that is no negative before it takes the minimum.

# %% label="fig-mined" alt="The matrix of six by six distances; in each row the largest number of the anchor's own block is framed in blue, the smallest outside it in dashed vermillion"
fig = figures.Figure(figsize=(4.2, 3), layout="constrained")
ax = fig.subplots()
draw_matrix(ax, distances, names, "full: positive; dashed: negative", mined)
ax.set(ylabel="anchor")
fig

# %% [markdown]
# [The matrix](#fig-mined) has one frame of each kind in every row. Four anchors have a dashed number larger than the full one, as they should; 4 and 6, where the two
# people come closest, do not.
#
# ### Uneven batches
#
# A mask does not count. Person B may have two pictures and person A three:

# %%
uneven, some = people[:5], distances[:5, :5]
mined_uneven = losses.mine_batch_hard(some, uneven)
assert list(
    zip(mined_uneven.positive.tolist(), mined_uneven.negative.tolist(), strict=True)
) == mine_by_loop(some, uneven), "three pictures of A, two of B, and every anchor has its triplet"

# %% [markdown]
# ### Two batches without triplets
#
# Someone who appears once has no positive, and a batch of one person has no negatives. The maximum over nothing would be $-\infty$ and the loss
# with it; the library says which label is to blame:

# %% tags=["nbval-check-output"]
for wrong in (torch.tensor([0, 0, 0, 1, 1, 7]), torch.tensor([5, 5, 5, 5, 5, 5])):
    try:
        losses.mine_batch_hard(distances, wrong)
    except InputError as error:
        print(error)

# %% [markdown]
# ## The triplet loss
#
# The negative should be farther than the positive by a *margin* $m$. What is lacking is the loss:
#
# $$
# L = \frac{1}{N} \sum_{a} \max(0,\; d_{ap} - d_{an} + m) .
# $$ (eq-losses-triplet)
#
# By hand, with $m = 0.3$: $d_{ap} - d_{an}$ is $4 - 6$, $3 - 5$, $4 - 2$, $3 - 2$, $2 - 3$, $3 - 5$ for the six anchors. Only the two in the
# middle are above $-0.3$; they give 2.3 and 1.3, and the mean is $3.6 / 6 = 0.6$.

# %% tags=["nbval-check-output"]
gap = mined.positive_distance - mined.negative_distance
print("gaps", gap.round().int().tolist())
print(
    f"loss {losses.triplet_loss(mined.positive_distance, mined.negative_distance, margin=0.3):.4f}"
)

# %%
by_hand = sum(max(0.0, d + 0.3) for d in (-2, -2, 2, 1, -1, -2)) / 6
in_one = losses.global_triplet(points, people, margin=0.3, normalize=False)
assert math.isclose(by_hand, 0.6), "the sum on paper"
assert torch.isclose(in_one.loss, torch.tensor(0.6)), (
    "distances, mining and loss in one call give it too"
)

# %% [markdown]
# The *soft margin* has no corner and no $m$. It asks for a little more however far the negative is:
#
# $$
# L = \frac{1}{N} \sum_{a} \log\left(1 + e^{\,d_{ap} - d_{an}}\right) .
# $$ (eq-losses-soft)

# %% tags=["nbval-check-output"]
soft = losses.triplet_loss(mined.positive_distance, mined.negative_distance, margin=None)
by_hand = sum(math.log(1 + math.exp(d)) for d in (-2, -2, 2, 1, -1, -2)) / 6
assert math.isclose(float(soft), by_hand, abs_tol=1e-5), "the soft margin by hand"
print(f"{soft:.4f}")

# %% label="fig-margins" alt="Both losses over the gap. The margin loss is 0 up to minus 0.3 and then a straight line of slope 1; the soft margin is a curve above 0 everywhere that approaches a line of slope 1"
fig = figures.Figure(figsize=(8, 2.7), layout="constrained")
loss_ax, slope_ax = fig.subplots(1, 2)
x = torch.linspace(-3, 3, 241, requires_grad=True)
for name, m, style in (("margin 0.3", 0.3, "-"), ("soft margin", None, "--")):
    each = torch.stack([losses.triplet_loss(one[None], torch.zeros(1), m) for one in x])
    (slope,) = torch.autograd.grad(each.sum(), x)
    loss_ax.plot(x.detach(), each.detach(), style, label=name)
    slope_ax.plot(x.detach(), slope, style, label=name)
loss_ax.set(title="loss of one anchor", xlabel="$d_{ap} - d_{an}$")
slope_ax.set(title="its slope", xlabel="$d_{ap} - d_{an}$")
loss_ax.legend()
fig

# %% [markdown]
# Left of $-m$ the full line of [the figure](#fig-margins) is 0, and so is its slope: an anchor that has its margin is done. Right of it every anchor pulls equally hard, however
# wrong it is. The dashed slope changes smoothly from one to the other and never reaches 0.
#
# :::{admonition} The paper says
# The soft margin is from section 2 of Hermans et al. 2017. The original reproduction of AlignedReID trains with $m = 0.3$.
# :::

# %% [markdown]
# ## Normalised or not
#
# A margin of 0.3 is a length, so it means something only beside other lengths. A network is free to make features longer, and with them all
# distances. Dividing every feature by its length takes that freedom away. With $u = x / \lVert x \rVert$ and the angle
# $\alpha_{ij}$ between two features,
#
# $$
# \lVert u_i - u_j \rVert^2 = 2 - 2 \cos \alpha_{ij}, \qquad 0 \le \lVert u_i - u_j \rVert \le 2 .
# $$ (eq-losses-unit)
#
# By hand: $(3, 4)$ has length 5 and becomes $(0.6, 0.8)$. $(6, 8)$ was 5 away from it and is now the same point; $(-3, -4)$ was 10 away and is
# now opposite, at 2; $(-4, 3)$, at a right angle, is at $\sqrt 2$.

# %% tags=["nbval-check-output"]
plane = torch.tensor([[3.0, 4.0], [6.0, 8.0], [-3.0, -4.0], [-4.0, 3.0]])
unit = losses.unit_length(plane)
print([[round(v, 1) for v in row] for row in unit.tolist()])
print("before", [round(d, 2) for d in losses.euclidean_distances(plane, plane)[0].tolist()])
print("after ", [round(d, 2) for d in losses.euclidean_distances(unit, unit)[0].tolist()])

# %%
cosine = unit @ unit.T
assert torch.allclose(losses.euclidean_distances(unit, unit) ** 2, 2 - 2 * cosine, atol=1e-5), (
    "the equation"
)
assert losses.euclidean_distances(unit, unit).max() <= 2 + 1e-5, "nobody is farther than opposite"
ten = losses.global_triplet(10 * points, people, margin=0.3, normalize=False).loss
assert torch.isclose(ten, torch.tensor((20.3 + 10.3) / 6)), (
    "ten times the lengths, and the margin hardly counts"
)

# %% [markdown]
# Now our batch, once as the network gives it and once brought to unit length. Each mark is an anchor; above the full line its negative is
# farther than its positive, above the dashed one by the margin too.

# %% label="fig-normalised" alt="Two panels, each with a mark per anchor: distance of the nearest negative over that of the farthest positive, with a line where they are equal and one a margin above it. Left the margin is a thin strip, right a wide one"
fig = figures.Figure(figsize=(8, 3.4), layout="constrained")
both = {}
for ax, normalize in zip(fig.subplots(1, 2), (False, True), strict=True):
    both[normalize] = losses.global_triplet(features, labels, config.margin, normalize).mined
    p, n = both[normalize].positive_distance, both[normalize].negative_distance
    m, top = config.margin or 0.0, 1.08 * float(torch.cat([p, n]).max())
    kinds = {"by the margin": n > p + m, "farther": (n > p) & (n <= p + m), "not farther": n <= p}
    looks = ((figures.BLUE, "o"), (figures.ORANGE, "^"), (figures.VERMILLION, "x"))
    for (name, mask), (colour, marker) in zip(kinds.items(), looks, strict=True):
        ax.scatter(p[mask], n[mask], s=26, color=colour, marker=marker, label=name, zorder=3)
    ax.plot([0, top], [0, top], color=figures.GREY, linewidth=1.2)
    ax.plot([0, top], [m, top + m], "--", color=figures.GREY, linewidth=1.2)
    ax.set(
        xlim=(0, top),
        ylim=(0, top),
        xlabel="$d_{ap}$, farthest positive",
        ylabel="$d_{an}$, nearest negative",
    )
    ax.set_title("unit length" if normalize else "as the network gives them")
    ax.set_aspect("equal")
    ax.legend(loc="lower right")
fig

# %%
for normalize, chosen in both.items():
    typical = float(chosen.negative_distance.mean())
    print(
        f"{'unit length' if normalize else 'as they are'}: d_an {typical:.2f} on average, margin {config.margin}"
    )
assert both[True].negative_distance.max() <= 2, "unit features: at most 2"

# %% tags=["bound"]
assert both[False].negative_distance.mean() > 2, "features as they come are not held to that"

# %% [markdown]
# One margin is a thin strip on the left of [the figure](#fig-normalised) and a wide one on the right. Beside distances of ten to twenty 0.3 is little, and every anchor has it; where
# nothing can be farther than 2 it is much, and of the same people many miss it.
#
# :::{admonition} The original reproduction says
# Features are *not* normalised, and $m = 0.3$.
# :::
#
# The library's `normalize` is off by default for that reason. With it on, choose the margin anew.

# %% [markdown]
# ## Batch-hard on real embeddings
#
# The distance matrix of the whole batch, as the network gives it. White lines separate people; each row has one circle, the mined positive, and
# one cross, the mined negative.

# %% label="fig-heat" alt="Heat map of the distances of the batch: light blocks along the diagonal, one block a person; a blue circle in each row inside the block, a vermillion cross outside"
fig = figures.Figure(figsize=(5.6, 4.9), layout="constrained")
ax = fig.subplots()
image = ax.imshow(term.distances, cmap="Greys", vmin=0, vmax=1.3 * float(term.distances.max()))
rows = torch.arange(len(labels))
ax.plot(
    term.mined.positive,
    rows,
    "o",
    color=figures.BLUE,
    markersize=5,
    fillstyle="none",
    markeredgewidth=1.6,
)
ax.plot(term.mined.negative, rows, "x", color=figures.VERMILLION, markersize=5, markeredgewidth=1.6)
for edge in range(config.images_per_id, len(labels), config.images_per_id):
    ax.axhline(edge - 0.5, color="white", linewidth=1.2)
    ax.axvline(edge - 0.5, color="white", linewidth=1.2)
middles = np.arange(config.ids_per_batch) * config.images_per_id + (config.images_per_id - 1) / 2
ax.set(xticks=middles, yticks=middles, xticklabels=labels[:: config.images_per_id].tolist())
ax.set(
    yticklabels=labels[:: config.images_per_id].tolist(),
    xlabel="identity",
    ylabel="identity of the anchor",
)
ax.grid(False)
fig.colorbar(image, label="distance")
fig

# %% [markdown]
# The blocks along the diagonal of [the heat map](#fig-heat) are lighter than the rest: on average one person's pictures are nearer to each other than to anybody else's. A circle
# sits on the darkest cell of its row inside the block, a cross on the lightest outside. First the averages, then the marks against the loop:

# %% tags=["bound"]
same = labels[:, None] == labels
same_person = same & ~torch.eye(len(labels), dtype=torch.bool)
assert term.distances[same_person].mean() < term.distances[~same].mean(), (
    "one person's pictures are nearer"
)

# %%
by_loop = mine_by_loop(term.distances, labels)
assert term.mined.positive.tolist() == [p for p, _ in by_loop], "the loop agrees on real features"
assert term.mined.negative.tolist() == [n for _, n in by_loop], "for the negatives too"
assert (labels[term.mined.positive] == labels).all(), "a positive is of the anchor's person"
assert (labels[term.mined.negative] != labels).all(), "a negative is not"

# %% [markdown]
# Which people does the network nearly take for each other? The three pairs of people with the nearest negatives, one anchor each:

# %% alt="Three anchors with the nearest pictures of other people in the batch, beside their farthest positives"
confused = {}
for a in term.mined.negative_distance.argsort().tolist():
    pair = frozenset((int(labels[a]), int(labels[term.mined.negative[a]])))
    confused.setdefault(pair, a)
draw_triplets(list(confused.values())[:3], term.mined)

# %% [markdown]
# These are the people whom the network finds most alike: look for the colour they share. An anchor's pull goes to such a pair; its easier negatives are not even looked at.
#
# ### How many triplets are satisfied
#
# One number for a batch: the share of anchors whose negative is farther than the positive, plainly or by the margin. On the line, four of six; with
# a margin of 1.5 only the three whose gap is $-2$.

# %% tags=["nbval-check-output"]
print(f"{losses.satisfied(mined):.3f} {losses.satisfied(mined, margin=1.5):.3f}")

# %% [markdown]
# :::{admonition} The original reproduction says
# It logs both at every step: *precision* is the share without a margin, *margin satisfaction* the share with it.
# :::
#
# [Chapter 6](06_training.ipynb) draws them over the epochs. In our batch:

# %%
precision, satisfaction = (
    losses.satisfied(term.mined),
    losses.satisfied(term.mined, config.margin or 0.0),
)
print(f"precision {precision:.0%}, margin satisfaction {satisfaction:.0%}, loss {term.loss:.3f}")
assert satisfaction <= precision, "whoever has the margin is farther too"
assert torch.isclose(precision, (gaps < 0).float().mean()), "counted by hand"

# %% [markdown]
# Eight people of the training set leave the triplet loss nothing to do. Larger batches are harder (exercise 3), and people it has never seen are
# harder still: [chapter 8](08_evaluation.ipynb) tests with those.

# %% [markdown]
# ## The local triplet loss
#
# The same loss on another distance: pictures are lists of stripes, and the distance is the length of the shortest path that matches the stripes of one
# to those of the other ([chapter 4](04_alignment.ipynb)). With $\ell_{ij}$ for this local distance,
#
# $$
# L_{\text{local}} = \frac{1}{N} \sum_a \max(0,\; \ell_{ap} - \ell_{an} + m) .
# $$ (eq-losses-local)
#
# Which positive $p$ and which negative $n$? There are two ways to choose: the hardest by the *global* distance, or the hardest by the local distance
# itself.
#
# :::{admonition} The paper says
# In AlignedReID the global distance chooses the hard samples for both losses. The original reproduction knows both ways.
# :::
#
# Small enough for paper: four pictures of two stripes, and a stripe is one number. In units of $\ln 3$ the cost of matching two stripes
# is simple: stripes that are 0, 1 or 2 units apart cost $0$, $\frac{3 - 1}{3 + 1} = 0.5$ and $\frac{9 - 1}{9 + 1} = 0.8$.

# %%
units = torch.tensor([[0, 2], [2, 2], [2, 0], [0, 1]])  # A1, A2, B1, B2: upper and lower stripe
stripes = math.log(3) * units[:, :, None].double()  # [N=4, H=2, c=1]
two_people = torch.tensor([0, 0, 1, 1])

# %% [markdown]
# With two stripes the path has three cells: the first pair, the cheaper of the two crossed pairs, the last pair. A1 and B2 are $(0, 2)$ and
# $(0, 1)$: the upper stripes are equal and cost 0, the crossed pairs cost 0.5 (0 with 1) and 0.8 (2 with 0), the lower ones 0.5. Together $0 + 0.5 + 0.5 = 1$.

# %%
price = {0: 0.0, 1: 0.5, 2: 0.8}
by_hand = torch.zeros(4, 4, dtype=torch.float64)
for i, (top, bottom) in enumerate(units.tolist()):
    for j, (other_top, other_bottom) in enumerate(units.tolist()):
        crossed = min(price[abs(top - other_bottom)], price[abs(bottom - other_top)])
        by_hand[i, j] = price[abs(top - other_top)] + crossed + price[abs(bottom - other_bottom)]
local = local_distances(stripes, stripes)
assert torch.allclose(local, by_hand, atol=1e-4), "the shortest path of three cells, by hand"

# %% [markdown]
# For the global feature take the mean of the two stripes. B1 is A1 upside down, so the mean cannot tell the two apart, while the path can:

# %% alt="Left, four pictures as columns of two stripes with their numbers. Middle, global distances, right, local distances, with mined positives framed in blue and negatives in dashed vermillion; for A1 and B1 the two choose different negatives"
whole = stripes.mean(dim=1)
by_global = losses.global_triplet(whole, two_people, margin=0.3, normalize=False)
own_choice = losses.local_triplet(stripes, two_people, margin=0.3, normalize=False)
fig = figures.Figure(figsize=(8, 2.6), layout="constrained")
people_ax, global_ax, local_ax = fig.subplots(1, 3)
people_ax.imshow(units.T, cmap="Greys", vmax=4, aspect="auto")
for (i, stripe), value in np.ndenumerate(units.numpy()):
    people_ax.text(i, stripe, value, ha="center", va="center")
four = ["A1", "A2", "B1", "B2"]
people_ax.set(
    title="stripes",
    xticks=range(4),
    xticklabels=four,
    yticks=[0, 1],
    yticklabels=["upper", "lower"],
)
people_ax.vlines([0.5, 1.5, 2.5], -0.5, 1.5, color="white", linewidth=6)
people_ax.grid(False)
draw_matrix(
    global_ax, by_global.distances / math.log(3), four, "global, in units", by_global.mined, ".1f"
)
draw_matrix(local_ax, own_choice.distances, four, "local", own_choice.mined, ".1f")
fig

# %% [markdown]
# (The local distance of A1 to itself is not 0: the path steps aside once, as chapter 4 explains.) With only two pictures a person there is one positive to choose. The negatives differ: for A1 the global distance chooses B1, its equal
# upside down, the local one B2. By hand, with $m = 0.3$:
#
# * local choice: $0.8 - 1 + 0.3 = 0.1$, $0.8 - 0.8 + 0.3 = 0.3$, $1.3 - 0.8 + 0.3 = 0.8$, $1.3 - 1 + 0.3 = 0.6$, and the mean is 0.45;
# * global choice: A1 takes B1 at 1.6 and has nothing to pay, B1 takes A1 and has $1.3 - 1.6 + 0.3 = 0$; the others are as before: $0.9 / 4 = 0.225$.

# %% tags=["nbval-check-output"]
global_choice = losses.local_triplet(
    stripes, two_people, 0.3, normalize=False, mined=by_global.mined
)
print(
    f"mined by the local distance {own_choice.loss:.3f}, by the global one {global_choice.loss:.3f}"
)
assert own_choice.mined.negative.tolist() == [3, 2, 1, 0], "hardest by the path"
assert global_choice.mined.negative.tolist() == [2, 2, 0, 0], "hardest by the mean"

# %% [markdown]
# The global choice can only give a smaller local loss: by the local distance, no positive is farther and no negative nearer than its own choice. How
# often do the two disagree on our batch? The book's model has four stripes, and was trained without the local loss, so its local branch is
# still the random matrix it started from.

# %%
own = losses.local_triplet(embedding.local_features, labels, config.margin, normalize=False)
paper = losses.local_triplet(
    embedding.local_features, labels, config.margin, normalize=False, mined=term.mined
)
other_positive = (own.mined.positive != paper.mined.positive).float().mean()
other_negative = (own.mined.negative != paper.mined.negative).float().mean()
print(
    f"another positive for {other_positive:.0%} of the anchors, another negative for {other_negative:.0%}"
)
print(f"local loss {own.loss:.3f} by its own choice, {paper.loss:.3f} by the global one")
assert own.loss >= paper.loss, "nothing is harder than the hardest"

# %% [markdown]
# The two distances do not agree on which samples are hard. The local loss is smaller under the global choice, as it has to be.

# %% [markdown]
# ## The identification loss
#
# Another question: *which* of the training people is this? The identity head gives a number $z_k$ for each of them, and the loss is minus the
# logarithm of the probability that the head gives to the right answer $y$ (its *surprise*: 0 when the head is certain; Zheng et al.
# 2016). Here $p$ is a probability, not a positive:
#
# $$
# L_{\text{id}} = -\frac{1}{N} \sum_i \log p_i^{y_i}, \qquad p_i^c = \frac{e^{z_{ic}}}{\sum_k e^{z_{ik}}} .
# $$ (eq-losses-id)
#
# By hand with three people, $z = (0, \ln 2, 0)$: the exponentials are 1, 2, 1, the probabilities $\frac14, \frac12, \frac14$. If the second
# person is right, the surprise is $\ln 2$; if the first is, $\ln 4$. One picture of each: $\frac{1}{2}(\ln 2 + \ln 4) = \frac{3}{2} \ln 2 = 1.0397$.

# %% tags=["nbval-check-output"]
scores = torch.tensor([[0.0, math.log(2), 0.0]] * 2)
answers = torch.tensor([1, 0])
print(f"{losses.identification(scores, answers):.4f}")

# %%
total = 0.0
for z, y in zip(scores.tolist(), answers.tolist(), strict=True):
    total += -math.log(math.exp(z[y]) / sum(math.exp(v) for v in z))
assert math.isclose(total / 2, 1.5 * math.log(2)), "the loop gives the number on paper"
assert math.isclose(float(losses.identification(scores, answers)), total / 2, abs_tol=1e-6), (
    "and so does the library"
)

# %% [markdown]
# A head that knows nothing gives every person the same number, and the loss is the logarithm of how many there are. Where does the trained
# head stand?

# %%
ids = embedding.logits.shape[1]
fresh = losses.identification(torch.zeros(len(labels), ids), labels)
assert math.isclose(float(fresh), math.log(ids), abs_tol=1e-4), "knowing nothing costs log(ids)"
identification = losses.identification(embedding.logits, labels)
print(f"of {ids} people: {fresh:.2f} at the start, {identification:.3f} for the trained head")

# %% [markdown]
# The head was trained on these very people, and its loss has only halved, while the triplets of the same features are all satisfied: the two
# losses ask different questions. For other people the head is of no use; searching compares features.

# %% [markdown]
# ## The sum
#
# Training minimises the terms together, each with a weight:
#
# $$
# L = w_{\text{global}} L_{\text{global}} + w_{\text{local}} L_{\text{local}} + w_{\text{id}} L_{\text{id}} .
# $$ (eq-losses-sum)

# %%
total = (
    config.global_weight * term.loss
    + config.local_weight * paper.loss
    + config.id_weight * identification
)
print(
    f"{config.global_weight:g} x {term.loss:.3f} + {config.local_weight:g} x {paper.loss:.3f} + "
    f"{config.id_weight:g} x {identification:.3f} = {total:.3f}"
)

# %% [markdown]
# A term of weight 0 is not computed in training. The weights are `global_weight`, `local_weight` and `id_weight` of a preset.
#
# :::{admonition} The paper says
# AlignedReID learns the global feature together with local ones, and claims that the global one gets better by it. The original reproduction, in its own
# words, found that local distance added about a point and that adding the identification loss lowered scores.
# :::
#
# The book's model trains with `id_weight = 1` all the same: it starts from random weights and not from ImageNet's, and the classifier's
# gradient shows the way while the triplets still pull all pictures together.

# %% [markdown]
# ## Mutual terms
#
# In *mutual learning* several networks see the same batch and each learns from the others' answers too. Two terms say how far a network is from its
# partners. Both are functions of numbers that a forward pass gives; [chapter 7](07_mutual_learning.ipynb) trains with them.
#
# ### Probabilities
#
# With $p_i$ for this network's probabilities of picture $i$ and $q_i$ for the partner's, the Kullback-Leibler divergence is
#
# $$
# L_P = \frac{1}{N} \sum_i D(q_i \,\Vert\, p_i) = \frac{1}{N} \sum_i \sum_c q_i^c \log \frac{q_i^c}{p_i^c} .
# $$ (eq-losses-kl)
#
# By hand with two coins. Ours is fair, $p = (\frac12, \frac12)$, the partner's falls on heads three times of four, $q = (\frac34, \frac14)$:
# $\frac34 \ln \frac32 + \frac14 \ln \frac12 = 0.3041 - 0.1733 = 0.1308$. The library takes our numbers first and a list of partners
# second, as logits; logarithms of probabilities serve as such.

# %% tags=["nbval-check-output"]
fair = torch.tensor([[0.5, 0.5]]).log()
biased = torch.tensor([[0.75, 0.25]]).log()
print(
    f"{losses.mutual_probability(fair, [biased]):.4f} {losses.mutual_probability(biased, [fair]):.4f}"
)

# %%
by_hand = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
assert math.isclose(float(losses.mutual_probability(fair, [biased])), by_hand, abs_tol=1e-6), (
    "two coins on paper"
)
assert losses.mutual_probability(fair, [fair]) == 0, "equal coins have nothing to tell each other"

# %% [markdown]
# The second number has the coins exchanged, $\frac12 \ln \frac23 + \frac12 \ln 2$: the divergence is not symmetric.
#
# ### Distances
#
# The other term compares what the two networks think of *pairs*: the mean squared difference of their distance matrices,
#
# $$
# L_M = \frac{1}{N^2} \sum_{i, j} \left(d_{ij} - d'_{ij}\right)^2 .
# $$ (eq-losses-mutual)
#
# By hand: our network puts three pictures at 0, 1 and 3, the partner at 0, 2 and 3. We say 1, 3, 2 for the three pairs, the partner 2, 3, 1: two pairs
# differ by 1. A pair fills two cells of the matrix, so four of nine cells have a square of 1: $4 / 9$.

# %% tags=["nbval-check-output"]
ours = torch.tensor([[0.0], [1.0], [3.0]], requires_grad=True)
theirs = torch.tensor([[0.0], [2.0], [3.0]], requires_grad=True)
our_distances, their_distances = (
    losses.euclidean_distances(ours, ours),
    losses.euclidean_distances(theirs, theirs),
)
mutual = losses.mutual_distance(our_distances, [their_distances])
print(f"{mutual.item():.4f}")
assert torch.isclose(mutual, torch.tensor(4 / 9)), "four of nine cells"

# %% [markdown]
# In our loss the partner's numbers are constants: it gets no gradient. (It has a loss of its own, in which ours are.)

# %%
mutual.backward()
assert ours.grad.abs().sum() > 0, "we move towards the partner"
assert theirs.grad is None, "the partner does not move"
own_scores, partner_scores = fair.clone().requires_grad_(), biased.clone().requires_grad_()
losses.mutual_probability(own_scores, [partner_scores]).backward()
assert own_scores.grad.abs().sum() > 0, "nor does it"
assert partner_scores.grad is None, "with probabilities"

# %% [markdown]
# :::{admonition} The paper says
# The divergence follows *Deep Mutual Learning* (Zhang et al., CVPR 2018); the metric mutual loss is AlignedReID's eq. 5, with the partner's side
# held fixed. The original reproduction measured, on Market-1501 alone with the global loss, 87.05 / 71.38 (rank-1 / mAP, trapezoid) without and 88.78 / 75.76 with
# mutual loss.
# :::

# %% [markdown]
# ## The gradient of each term, pictured
#
# A loss is felt only through its gradient. We put features where they can be seen, compute one term, and draw *minus* the gradient: the
# direction in which a small step of training would move them.


# %%
def push(x, loss):
    """Minus the gradient of `loss` at x."""
    x = x.clone().requires_grad_()
    loss(x).backward()
    return -x.grad


# %% [markdown]
# **Triplets.** Two people, three pictures each, in the plane.

# %%
spots = torch.tensor([[1.1, 1.4], [1.2, 0.4], [0.0, 0.9], [2.9, 0.9], [2.2, 2.0], [4.0, 1.1]])
hard = push(spots, lambda x: losses.global_triplet(x, people, 0.3, normalize=False).loss)
smooth = push(spots, lambda x: losses.global_triplet(x, people, None, normalize=False).loss)
assert torch.allclose(hard.sum(0), torch.zeros(2), atol=1e-5), (
    "what one feature gains the others give"
)
still = hard.norm(dim=1) < 1e-6
assert still.sum() == 2, "a satisfied anchor that is nobody's hardest sample gets nothing"
assert smooth[still].norm(dim=1).min() > 0.1, "the soft margin moves everybody"
assert torch.allclose(hard[[2, 5]].norm(dim=1), torch.tensor(1 / 6)), (
    "one anchor pulls with 1/N, however far"
)

# %% [markdown]
# **Local triplets.** Two pictures of one person with eight stripes, all different; the second box hangs two stripes too low, and its stripes differ a
# little from the first one's. Two pictures of somebody else have nothing in common with them. The margin is large enough for the loss to be active.

# %%
stripe = 6.0 * torch.arange(10)
first = torch.stack([stripe[:8], torch.zeros(8)], dim=1)  # [H=8, c=2]
second = torch.stack([stripe[2:] + 0.5, torch.zeros(8)], dim=1)
somebody = torch.stack([first + torch.tensor([3.0, 40.0]), second + torch.tensor([3.0, 40.0])])
crowd = torch.cat([first[None], second[None], somebody])
local_push = push(crowd, lambda x: losses.local_triplet(x, two_people, 5.0, normalize=False).loss)
strength = local_push[0].norm(dim=1)  # [H] of the first picture
assert strength[2:].min() > 20 * strength[:2].max(), "stripes without a partner are left alone"

# %% [markdown]
# **Identification.** Three people; the head's matrix has a row for each, drawn as a line from the middle. Features of two numbers, some on the right side
# and some on the wrong one.

# %%
angles = torch.tensor([90.0, 210.0, 330.0]).deg2rad()
head = torch.stack([angles.cos(), angles.sin()], dim=1)  # [3 ids, 2]
heads_points = torch.tensor(
    [[0.2, 2.4], [-0.6, 0.5], [-2.2, -1.0], [0.5, -1.6], [2.1, -1.2], [0.4, 1.0]]
)
three = torch.tensor([0, 0, 1, 1, 2, 2])
id_push = push(heads_points, lambda x: losses.identification(x @ head.T, three))
probabilities = (heads_points @ head.T).softmax(1)
by_hand = (torch.eye(3)[three] - probabilities) @ head / len(three)
assert torch.allclose(id_push, by_hand, atol=1e-5), (
    "towards the own row, away from the others, by their probability"
)

# %% [markdown]
# **Mutual terms.** A network's probabilities beside a partner's; and three features in the plane beside a partner's triangle.

# %%
mine = torch.tensor([[0.1, 0.6, 0.2, 0.1]])
partner = torch.tensor([[0.3, 0.3, 0.3, 0.1]])
probability_push = push(mine.log(), lambda z: losses.mutual_probability(z, [partner.log()]))
assert torch.allclose(probability_push, partner - mine, atol=1e-5), (
    "minus the gradient is what the partner has more"
)

triangle = torch.tensor([[0.0, 0.0], [3.0, 0.0], [1.2, 1.0]])
wanted = torch.tensor([[0.5, -0.4], [2.5, -0.4], [1.2, 1.8]])
there = losses.euclidean_distances(wanted, wanted)
pair_push = push(
    triangle, lambda x: losses.mutual_distance(losses.euclidean_distances(x, x), [there])
)
stepped = triangle + 0.1 * pair_push
before = losses.mutual_distance(losses.euclidean_distances(triangle, triangle), [there])
after = losses.mutual_distance(losses.euclidean_distances(stepped, stepped), [there])
assert after < before, "a small step along the arrows brings the distances nearer to the partner's"

# %% [markdown]
# All of them in one figure. Lengths of arrows compare within a panel, not between panels.


# %%
def draw_arrows(ax, x, arrows, who, scale, title):
    """Features of the plane, a colour and a mark a person, and where each is pushed."""
    marks = ((figures.GREEN, "o"), (figures.PURPLE, "s"), (figures.SKY, "D"))
    for person in who.unique().tolist():
        colour, marker = marks[person]
        ax.scatter(*x[who == person].T, s=32, color=colour, marker=marker, zorder=2)
    moved = scale * arrows.norm(dim=1) > 0.02  # others would be dots
    ends = scale * arrows[moved]
    ax.quiver(*x[moved].T, *ends.T, angles="xy", scale_units="xy", scale=1, width=0.012, zorder=3)
    ax.set(title=title, xticks=[], yticks=[])
    ax.set_aspect("equal", "datalim")
    ax.margins(0.18)


# %% label="fig-gradients" alt="Six panels. Triplets with margin: arrows at four points, none at two satisfied ones. Soft margin: arrows at all points. Local: bars for stripes 3 to 8, none for 1 and 2. Identification: arrows towards the own row of the head, longest at misplaced points. Mutual probabilities: bars up where the partner has more, down where less. Mutual distances: arrows that turn a flat triangle into the partner's taller one"
fig = figures.Figure(figsize=(8, 5.4), layout="constrained")
(a, b, c), (d, e, f) = fig.subplots(2, 3)
draw_arrows(a, spots, hard, people, 1.9, "global, margin 0.3")
draw_arrows(b, spots, smooth, people, 1.9, "global, soft margin")
c.bar(range(1, 9), strength, color=figures.BLUE)
c.set(title="local: strength per stripe", xticks=range(1, 9), xlabel="stripe of picture 1")
draw_arrows(d, heads_points, id_push, three, 8, "identification")
for row, colour in zip(head, (figures.GREEN, figures.PURPLE, figures.SKY), strict=True):
    d.plot(
        *torch.stack([torch.zeros(2), 2.6 * row]).T,
        color=colour,
        linewidth=1.2,
        linestyle=":",
        zorder=1,
    )
up = probability_push[0].clamp(min=0)
e.bar(range(1, 5), up, color=figures.BLUE)
e.bar(range(1, 5), probability_push[0] - up, color=figures.VERMILLION)
e.axhline(0, color=figures.GREY, linewidth=1)
e.set(title="mutual, probabilities", xticks=range(1, 5), xlabel="person")
draw_arrows(f, triangle, pair_push, torch.zeros(3, dtype=torch.long), 2, "mutual, distances")
f.fill(*wanted.T, fill=False, linestyle="--", edgecolor=figures.GREY, linewidth=1.4)
fig

# %% [markdown]
# In [the figure](#fig-gradients) circles, squares and diamonds are people. One thing to take from each panel:
#
# * **Global, margin.** The two pictures where the people nearly touch are pushed apart; the two that have their margin, and that nobody else
#   finds hard, have no arrow at all; two others, the farthest positives, are pulled in.
# * **Global, soft margin.** Every anchor pulls, a satisfied one less, so every picture has an arrow.
# * **Local.** Stripes 3 to 8 have found their partners two places up and move towards them. Stripes 1 and 2 match nothing, cost 1 each, and are
#   left alone: the flat end of $\tanh$.
# * **Identification.** A feature goes towards its own row of the head, dotted, the harder the more probability lies elsewhere. The three far
#   out on their rows hardly move. No distance between pictures is asked for.
# * **Mutual, probabilities.** What the partner gives more goes up, what it gives less goes down: minus the gradient is $q - p$.
# * **Mutual, distances.** The partner's triangle, dashed, is narrower and taller. The features move to make theirs so. Only
#   the shape counts: where the triangle stands, and how it is turned, does not.

# %% [markdown]
# ### Pull the points
#
# Drag a point of the first panel, or move it with the arrow keys: the circles pass through the hardest positive and the hardest negative of that point. Press
# *20 steps* to follow the arrows, and then try a larger margin, the soft margin, unit length, and *Collapsed*, where no arrow is left (exercise 2).

# %% tags=["interactive"] alt="Six points of two people, and arrows of minus the gradient of the triplet loss"
fig = figures.Figure(figsize=(6, 2.6), layout="constrained")
left, right = fig.subplots(1, 2)
draw_arrows(left, spots, hard, people, 1.9, "margin 0.3")
draw_arrows(right, spots, smooth, people, 1.9, "soft margin")
words = "Six points of two people, and arrows of minus the gradient"
figures.pull_the_points(spots, people, 0.3, static=fig, words=words)

# %% [markdown]
# ## Summary
#
# * A distance gives a matrix, mining gives indices, a loss takes distances; squares are clamped before the root so that gradients stay numbers.
# * Batch-hard takes the farthest positive and the nearest negative of every anchor. It needs two people, and two pictures of each.
# * A margin is a length: 0.3 means one thing for unit features and another for features as they come.
# * The local loss takes distances along the shortest path, its samples by the global distance (the paper's way) or by its own.
# * Identification asks who it is; mutual terms ask to agree with a partner, who stands still.
#
# Next: [chapter 6](06_training.ipynb) trains with them.
#
# ## Exercises
#
# **1.** Four pictures on a line: person A at 0 and 3, person B at 2 and 7. Find all hard triplets and the loss with $m = 1$ on paper, then check.
#
# :::{dropdown} Solution
# $d_{ap}$ is 3, 3, 5, 5; $d_{an}$ is 2, 1, 1, 4. The loss is $(2 + 3 + 5 + 2) / 4 = 3$.
#
# ```python
# line = torch.tensor([[0.0], [3.0], [2.0], [7.0]])
# exercise = losses.global_triplet(line, torch.tensor([0, 0, 1, 1]), margin=1.0, normalize=False)
# assert torch.isclose(exercise.loss, torch.tensor(3.0))
# ```
# :::
#
# **2.** A network in trouble gives every picture the same feature. What are the two triplet losses then, and their gradients?
#
# :::{dropdown} Solution
# All distances are equal, so every gap is 0: the loss is $m$ with a margin and $\ln 2$ with the soft one. The clamp makes the gradient 0: from
# exactly there the triplet loss alone cannot lead away. Curves of a training that sit at the margin are a sign of it.
#
# ```python
# for m, value in ((0.3, 0.3), (None, math.log(2))):
#     same = torch.ones(6, 2, requires_grad=True)
#     collapsed = losses.global_triplet(same, people, m, normalize=False).loss
#     collapsed.backward()
#     assert math.isclose(collapsed.item(), value, abs_tol=1e-6)
#     assert (same.grad == 0).all()
# ```
# :::
#
# **3.** Take batches of 2, 4, 8, 16 and 32 people. How does the share of satisfied triplets change, and why?
#
# :::{dropdown} Solution
# On the whole it falls: with more people in the batch the nearest of them is nearer, while positives are as far as before. A larger batch is a
# harder one, so compare curves of precision only between equal batches.
#
# ```python
# def share(ids_per_batch):
#     batches = IdentitySampler(dataset.labels, ids_per_batch, config.images_per_id, config.seed)
#     chosen = next(iter(batches))
#     many = torch.stack([images.resize(images.decode(dataset.paths[k]), size) for k in chosen])
#     with torch.no_grad():
#         x = network(images.normalize(many)).global_features
#     return losses.satisfied(losses.global_triplet(x, torch.from_numpy(dataset.labels[chosen]), 0.3, False).mined)
#
#
# for p in (2, 4, 8, 16, 32):
#     print(p, f"{share(p):.0%}")
# ```
# :::
