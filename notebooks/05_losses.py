# %% [markdown]
# # 05 Losses
#
# A network gives each image a point. On the left the anchor's own person is far away and a different person is near. Training should turn the
# left arrangement into the right one; a loss measures how far we are from it, and its gradient shows the direction in which each point has to
# move.

# %% tags=["parameters"]
# Parameters: one batch, and the loss
ids_per_batch = 8
images_per_id = 4
margin = 0.3
global_weight = 1.0
local_weight = 1.0
id_weight = 1.0
seed = 1

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

# %% label="fig-goal" alt="Left, six points of two people, mixed: the line from the anchor to the farthest point of the same person is longer than the line to the nearest point of the other. Right, the same points in two separate groups" caption="A loss has to pull the images of one person together and push other people away."
now = np.array([[0, 0.1], [1.0, 1.5], [2.9, 1.1], [0.9, 0.7], [2.2, 0], [3, 2]])
goal = np.array(
    [[0, 0.1], [0.2, 0.9], [0.7, 0.4], [2.4, 1.4], [2.7, 0.9], [3, 1.7]]
)
fig = figures.Figure(figsize=(7.5, 2.8), layout="constrained")
for ax, spots, title in zip(
    fig.subplots(1, 2), (now, goal), ("before", "what we want"), strict=True
):
    far = np.linalg.norm(spots[:3] - spots[0], axis=1).argmax()
    near = 3 + np.linalg.norm(spots[3:] - spots[0], axis=1).argmin()
    for k, colour, style, name in (
        (far, figures.SAME, "-", "farthest of the same person"),
        (near, figures.OTHER, "--", "nearest of another"),
    ):
        ax.plot(*spots[[0, k]].T, style, color=colour, label=name, zorder=1)
    ax.plot(*spots[:3].T, "o", color=figures.GREEN, markersize=11)
    ax.plot(*spots[3:].T, "s", color=figures.PURPLE, markersize=10)
    ax.annotate("anchor", spots[0], (0, -16), textcoords="offset points")
    ax.set(
        title=title, xticks=[], yticks=[], xlim=(-0.4, 3.4), ylim=(-0.6, 2.3)
    )
fig.axes[0].legend(loc="upper left")
fig

# %% [markdown]
# The losses express this goal in numbers. This chapter computes every loss of AlignedReID by hand and with the library, and shows in which
# direction each one pushes the features.
#
# **What you will learn**
#
# * how to compute every term of the loss on a few points, and that the library gives the same number;
# * how to find the hardest positive and the hardest negative of every image in a batch by eye, with a loop and with a mask;
# * what the gradient of each term looks like: which features it moves, and in which direction.
#
# **Time** on two cores: a quarter of a minute, plus one minute if the book's model is not trained yet.
# **Hardware**: any laptop, no GPU.

# %% [markdown]
# ## The problem in real images
#
# We need a batch of people and a trained network. We take the book's model, with the identity head that it was trained with.

# %%
trained = book.model()
print(trained.origin)
dataset = open_dataset(book.dataset_folder("market1501"), "trainval")
network = AlignedReID(
    book.CONFIG.backbone, None, len(np.unique(dataset.labels))
).eval()
report = load_weights(network, trained.result.weights)
assert report.missing == report.unexpected == [], (
    "the weights of the trained model fit the network exactly, identity head"
    " included"
)

# %% [markdown]
# Here is a batch of $P$ people with $K$ images each ([chapter 2](02_batches.ipynb)) and the network's output for it:

# %%
sampler = IdentitySampler(
    dataset.labels, config.ids_per_batch, config.images_per_id, config.seed
)
indices = next(iter(sampler))
labels = torch.from_numpy(dataset.labels[indices])
pictures = [images.decode(dataset.paths[k]) for k in indices]
size = (book.CONFIG.height, book.CONFIG.width)
with torch.no_grad():
    embedding = network(
        images.normalize(
            torch.stack([images.resize(p, size) for p in pictures])
        )
    )
assert (
    len(embedding.global_features)
    == config.ids_per_batch * config.images_per_id
), "the batch has P x K features"

# %% alt="The batch: eight people with four images each, from different cameras, some in front of obstacles or cut off by the box" caption="One batch: eight people, four images each, and 32 anchors."
figures.batch_grid(pictures, labels, config.images_per_id)

# %% [markdown]
# We call one image the *anchor*. The other images of the same person are its *positives*; the images of all other people are its *negatives*.
# One positive is farthest from the anchor, and one negative is nearest to it. Here are two anchors of this batch, the most difficult and the easiest:


# %%
def draw_triplets(anchors, mined):
    """Each anchor with its hardest positive and its hardest negative."""
    fig = figures.Figure(figsize=(8, 2.9), layout="constrained")
    grid = fig.add_gridspec(
        1,
        4 * len(anchors) - 1,
        width_ratios=([1, 1, 1, 0.15] * len(anchors))[:-1],
    )
    for k, a in enumerate(anchors):
        p, n = int(mined.positive[a]), int(mined.negative[a])
        same, other = (
            float(mined.positive_distance[a]),
            float(mined.negative_distance[a]),
        )
        trio = (
            (a, "anchor", figures.BLACK),
            (p, f"same: {same:.1f}", figures.SAME),
        )
        for column, (i, title, colour) in enumerate(
            (*trio, (n, f"other: {other:.1f}", figures.OTHER))
        ):
            ax = fig.add_subplot(grid[4 * k + column], xticks=[], yticks=[])
            ax.imshow(pictures[i].permute(1, 2, 0))
            ax.set_title(title, color=colour, fontsize=8.5)
            ax.spines[:].set(visible=True, color=colour, linewidth=2.5)
    return fig


# %% label="fig-triplets" alt="Two anchors, each with the farthest image of the same person and the nearest image of a different person, with distances above" caption="The blue number should be the smaller one, for every anchor."
features = embedding.global_features
term = losses.global_triplet(features, labels, config.margin, normalize=False)
gaps = term.mined.positive_distance - term.mined.negative_distance
order = gaps.argsort(descending=True)
shown = [int(order[0]), int(order[-1])]
draw_triplets(shown, term.mined)

# %% [markdown]
# In [the figure](#fig-triplets) blue frames show the same person and orange-red frames a different one; the numbers are distances from the
# anchor. Training tries to make the blue number smaller than the orange-red one for every anchor. It has succeeded for most anchors of these
# people, who were in its training set. This chapter turns the goal into a number with a gradient.

# %% [markdown]
# ## Distances between points on a line
#
# Take six images, each with a feature of a single number: three images of person A at 0, 1 and 4, and three of person B at 6, 7 and 9.

# %%
points = torch.tensor([[0.0], [1.0], [4.0], [6.0], [7.0], [9.0]])
people = torch.tensor([0, 0, 0, 1, 1, 1])

# %% [markdown]
# Every loss starts from the distances of all pairs. Let $x_i$ be the feature of image $i$. Then
#
# $$
# d_{ij} = \lVert x_i - x_j \rVert = \sqrt{\lVert x_i \rVert^2 + \lVert x_j \rVert^2 - 2\, x_i^\top x_j} .
# $$ (eq-losses-distance)
#
# By hand, for 1 and 6: $1 + 36 - 2 \cdot 6 = 25$, and the root is 5. The loop over pairs below uses the first form. The library uses the
# second, because one matrix product gives $x_i^\top x_j$ for all pairs.

# %%
n = len(points)
by_loop = torch.zeros(n, n)
for i in range(n):
    for j in range(n):
        by_loop[i, j] = (points[i] - points[j]).square().sum().sqrt()
distances = losses.euclidean_distances(points, points)
assert torch.allclose(by_loop, distances, atol=1e-4), (
    "the matrix product gives the distances of the loop"
)

# %% tags=["nbval-check-output"]
print(distances.round().int())


# %% alt="Left, six points on a line: three circles at 0, 1, 4 and three squares at 6, 7, 9. Right, their distance matrix, small numbers light, in two blocks along the diagonal" caption="Six numbers, 36 distances: one person is a block on the diagonal."
def draw_line(ax, title):
    """The six points on their line."""
    ax.axhline(0, color=figures.GREY, linewidth=1, zorder=1)
    for person, name, colour, marker in (
        (0, "A", figures.GREEN, "o"),
        (1, "B", figures.PURPLE, "s"),
    ):
        x = points[people == person, 0]
        ax.scatter(
            x,
            0 * x,
            s=90,
            color=colour,
            marker=marker,
            label=f"person {name}",
            zorder=2,
        )
    ax.set(
        title=title,
        xticks=points[:, 0].int().tolist(),
        yticks=[],
        ylim=(-1, 1),
        xlabel="feature",
    )
    ax.spines["left"].set_visible(False)
    ax.legend(ncols=2, loc="upper left")


def draw_matrix(ax, matrix, names, title, mined=None, form=".0f"):
    """A distance matrix; mined positives framed solid, negatives dashed."""
    ax.imshow(matrix, cmap="Greys", vmax=2 * float(matrix.max()))
    for i in range(len(matrix)):
        for j in range(len(matrix)):
            ax.text(
                j, i, f"{float(matrix[i, j]):{form}}", ha="center", va="center"
            )
    if mined is not None:
        for chosen, colour, style in (
            (mined.positive, figures.SAME, "-"),
            (mined.negative, figures.OTHER, "--"),
        ):
            for i, j in enumerate(chosen.tolist()):
                box = Rectangle(
                    (j - 0.42, i - 0.42),
                    0.84,
                    0.84,
                    fill=False,
                    edgecolor=colour,
                    linestyle=style,
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
draw_line(left, "six images on a line")
names = ["0", "1", "4", "6", "7", "9"]
draw_matrix(right, distances, names, "their distances")
fig

# %% [markdown]
# The distance matrix is symmetric and its diagonal is 0. The two blocks of 3 × 3 along the diagonal contain the distances between images of
# one person; all other cells contain distances between people.
#
# ### Why squares are clamped before the root
#
# The square root causes a problem: its slope at 0 is infinite, and two equal features have a distance of 0. Computed directly, the gradient
# of their distance is not a number, and one such pair would turn all weights of the network into NaN:

# %% tags=["nbval-check-output"]
twins = torch.zeros(2, 3, requires_grad=True)
(twins[0] - twins[1]).square().sum().sqrt().backward()
print(twins.grad.tolist())
assert twins.grad.isnan().all(), (
    "the plain gradient is NaN: infinity times zero is not a number"
)

# %% [markdown]
# The distance of every image to itself is 0, so this happens in every batch. The library first raises squares below $10^{-12}$ to that value;
# such a pair then has the distance $10^{-6}$ and no gradient:

# %%
twins.grad = None
losses.euclidean_distances(twins, twins).sum().backward()
assert (twins.grad == 0).all(), "clamped pairs have no gradient"
assert torch.allclose(distances.diagonal(), torch.tensor(1e-6)), (
    "the distance of an image to itself is 1e-6"
)

# %% [markdown]
# ## Batch-hard mining
#
# In a batch of $N$ images with $K$ images of each person, each anchor has $K - 1$ positives and $N - K$ negatives, so there are
# $N (K - 1)(N - K)$ triplets of anchor, positive and negative. *Batch-hard* mining keeps one triplet per anchor, the hardest. Let $y_i$ be
# the identity in image $i$. Then
#
# $$
# d_{ap} = \max_{i \ne a,\; y_i = y_a} d_{ai}, \qquad d_{an} = \min_{y_i \ne y_a} d_{ai} .
# $$ (eq-losses-mining)
#
# :::{admonition} The paper says
# This choice is eq. 5 of Hermans et al. 2017 (arXiv 1703.07737). AlignedReID (Zhang et al. 2017) uses it for its global and its local loss.
# :::
#
# By eye, on the line: the anchor at 4 has positives at 0 and 1, and 0 is farther, so $d_{ap} = 4$. Its nearest negative is at 6, so
# $d_{an} = 2$. As a loop:
#
# :::{admonition} Predict first
# :class: tip
# One more anchor has a nearest negative that is nearer than its farthest positive. Which one is it?
# :::


# %%
def mine_by_loop(distances, people):
    """[(positive, negative)] of each anchor, by looking at everybody."""
    mined = []
    for a in range(len(people)):
        positives = [
            i for i in range(len(people)) if people[i] == people[a] and i != a
        ]
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
        f"anchor {names[a]}: positive {names[p]} at {distances[a, p]:.0f},"
        f" negative {names[n]} at {distances[a, n]:.0f}"
    )
assert mined.positive.tolist() == [p for p, _ in by_loop], (
    "the mask finds the loop's positives"
)
assert mined.negative.tolist() == [n for _, n in by_loop], (
    "the mask finds the loop's negatives"
)

# %% [markdown]
# The library has no loop. It masks the matrix: entries that are not positives are set to $-\infty$ before it takes the maximum of each row,
# and entries that are not negatives are set to $\infty$ before it takes the minimum.

# %% label="fig-mined" alt="The six by six distance matrix; in each row the largest number of the anchor's own block is framed in blue, the smallest outside it in dashed orange-red" caption="In every row two distances are framed: the farthest positive and the nearest negative."
fig = figures.Figure(figsize=(4.2, 3), layout="constrained")
ax = fig.subplots()
draw_matrix(ax, distances, names, "solid: positive; dashed: negative", mined)
ax.set(ylabel="anchor")
fig

# %% [markdown]
# [The distance matrix](#fig-mined) has one frame of each kind in every row. For four anchors the number in the dashed frame is larger than
# the number in the solid frame, as it should be. For 4 and 6, where the two people come closest, it is smaller.
#
# ### Uneven batches
#
# A mask does not need equal numbers of images. Here person B has two images and person A three:

# %%
uneven, some = people[:5], distances[:5, :5]
mined_uneven = losses.mine_batch_hard(some, uneven)
assert list(
    zip(
        mined_uneven.positive.tolist(),
        mined_uneven.negative.tolist(),
        strict=True,
    )
) == mine_by_loop(some, uneven), (
    "with three images of A and two of B every anchor has its triplet"
)

# %% [markdown]
# ### Two batches that cannot be mined
#
# A person with only one image in the batch has no positive, and a batch of one person has no negatives. The maximum of an empty set is
# $-\infty$ and the minimum is $\infty$, so such an anchor would silently have a loss of 0. The library instead names the label that causes the
# error:

# %% tags=["nbval-check-output"]
for wrong in (
    torch.tensor([0, 0, 0, 1, 1, 7]),
    torch.tensor([5, 5, 5, 5, 5, 5]),
):
    try:
        losses.mine_batch_hard(distances, wrong)
    except InputError as error:
        print(error)

# %% [markdown]
# ## The triplet loss
#
# The negative should be farther than the positive by a *margin* $m$. The loss is the amount that is missing:
#
# $$
# L = \frac{1}{N} \sum_{a} \max(0,\; d_{ap} - d_{an} + m) .
# $$ (eq-losses-triplet)
#
# We call $d_{ap} - d_{an}$ the *gap* of the anchor; it is negative if the negative is farther. By hand, with $m = 0.3$: the gap is $4 - 6$,
# $3 - 5$, $4 - 2$, $3 - 2$, $2 - 3$, $3 - 5$ for the six anchors. Only the two in the middle are above $-0.3$. They contribute 2.3 and 1.3,
# and the mean is $3.6 / 6 = 0.6$.

# %% tags=["nbval-check-output"]
near, far = mined.negative_distance, mined.positive_distance
print("gaps", (far - near).round().int().tolist())
print(f"loss {losses.triplet_loss(far, near, margin=0.3):.4f}")

# %%
by_hand = sum(max(0.0, d + 0.3) for d in (-2, -2, 2, 1, -1, -2)) / 6
in_one = losses.global_triplet(points, people, margin=0.3, normalize=False)
assert math.isclose(by_hand, 0.6), "the sum by hand is 0.6"
assert torch.isclose(in_one.loss, torch.tensor(0.6)), (
    "one call for distances, mining and loss gives 0.6 too"
)

# %% [markdown]
# The *soft margin* has no corner and no $m$. It is never 0, however far the negative is:
#
# $$
# L = \frac{1}{N} \sum_{a} \log\left(1 + e^{\,d_{ap} - d_{an}}\right) .
# $$ (eq-losses-soft)

# %% tags=["nbval-check-output"]
soft = losses.triplet_loss(
    mined.positive_distance, mined.negative_distance, margin=None
)
by_hand = sum(math.log(1 + math.exp(d)) for d in (-2, -2, 2, 1, -1, -2)) / 6
assert math.isclose(float(soft), by_hand, abs_tol=1e-5), (
    "the library's soft margin equals the sum by hand"
)
print(f"{soft:.4f}")

# %% label="fig-margins" alt="Both losses over the gap. The margin loss is 0 up to minus 0.3 and then a straight line of slope 1; the soft margin is a curve above 0 everywhere that approaches a line of slope 1" caption="The margin loss stops at its margin; the soft one never stops."
fig = figures.Figure(figsize=(8, 2.7), layout="constrained")
loss_ax, slope_ax = fig.subplots(1, 2)
x = torch.linspace(-3, 3, 241, requires_grad=True)
for name, m, style, colour in (
    ("margin 0.3", 0.3, "-", figures.BLACK),
    ("soft margin", None, "--", figures.PURPLE),
):
    each = torch.stack(
        [losses.triplet_loss(one[None], torch.zeros(1), m) for one in x]
    )
    (slope,) = torch.autograd.grad(each.sum(), x)
    loss_ax.plot(x.detach(), each.detach(), style, label=name, color=colour)
    slope_ax.plot(x.detach(), slope, style, color=colour)
loss_ax.set(title="loss of one anchor", xlabel="$d_{ap} - d_{an}$")
slope_ax.set(title="its slope", xlabel="$d_{ap} - d_{an}$")
loss_ax.legend()
fig

# %% [markdown]
# Left of $-m$ the solid line of [the figure](#fig-margins) and its slope are 0: an anchor that satisfies the margin contributes nothing. To
# the right of $-m$ every anchor pulls equally hard, however wrong it is. The dashed slope changes smoothly from 0 to 1 and never reaches
# either.
#
# :::{admonition} The paper says
# The soft margin is from section 2 of Hermans et al. 2017. The original reproduction of AlignedReID trains with $m = 0.3$.
# :::

# %% [markdown]
# ## Normalised features or not
#
# A margin of 0.3 is a length, so it has a meaning only in comparison with other lengths. A network can make its features longer, and all
# distances with them. Dividing every feature by its length removes this freedom. With $u = x / \lVert x \rVert$ and the angle $\alpha_{ij}$
# between two features,
#
# $$
# \lVert u_i - u_j \rVert^2 = 2 - 2 \cos \alpha_{ij}, \qquad 0 \le \lVert u_i - u_j \rVert \le 2 .
# $$ (eq-losses-unit)
#
# By hand: $(3, 4)$ has length 5 and becomes $(0.6, 0.8)$. $(6, 8)$ was 5 away from it and is now the same point; $(-3, -4)$ was 10 away and
# is now opposite, at a distance of 2; $(-4, 3)$, at a right angle, is at a distance of $\sqrt 2$.

# %% tags=["nbval-check-output"]
plane = torch.tensor([[3.0, 4.0], [6.0, 8.0], [-3.0, -4.0], [-4.0, 3.0]])
unit = losses.unit_length(plane)
print([[round(v, 1) for v in row] for row in unit.tolist()])
print(
    "before",
    [round(d, 2) for d in losses.euclidean_distances(plane, plane)[0].tolist()],
)
print(
    "after ",
    [round(d, 2) for d in losses.euclidean_distances(unit, unit)[0].tolist()],
)

# %%
cosine = unit @ unit.T
assert torch.allclose(
    losses.euclidean_distances(unit, unit) ** 2, 2 - 2 * cosine, atol=1e-5
), "the squared distance of unit features is 2 - 2 cos"
assert losses.euclidean_distances(unit, unit).max() <= 2 + 1e-5, (
    "no two unit features are farther apart than 2"
)
ten = losses.global_triplet(
    10 * points, people, margin=0.3, normalize=False
).loss
assert torch.isclose(ten, torch.tensor((20.3 + 10.3) / 6)), (
    "for features ten times as long the loss is (20.3 + 10.3) / 6"
)

# %% [markdown]
# Now we look at our batch, once as the network gives it and once with features of unit length. Each mark is one anchor. Above the solid line
# the anchor's negative is farther than its positive; above the dashed line it is farther by at least the margin.
#
# :::{admonition} Predict first
# :class: tip
# The margin is 0.3 in both cases. In which of them do more anchors violate it?
# :::

# %% label="fig-normalised" alt="Two panels, each with a mark per anchor: distance of the nearest negative over that of the farthest positive, with a line where they are equal and one a margin above it. On the left the margin is a thin strip, on the right a wide one" caption="A margin of 0.3 is small compared with distances of ten, and large where none exceeds 2."
fig = figures.Figure(figsize=(8, 3.4), layout="constrained")
both = {}
for ax, normalize in zip(fig.subplots(1, 2), (False, True), strict=True):
    both[normalize] = losses.global_triplet(
        features, labels, config.margin, normalize
    ).mined
    p, n = both[normalize].positive_distance, both[normalize].negative_distance
    m, top = config.margin or 0.0, 1.08 * float(torch.cat([p, n]).max())
    kinds = {
        "by the margin": n > p + m,
        "farther": (n > p) & (n <= p + m),
        "not farther": n <= p,
    }
    looks = ((figures.RIGHT, "o"), (figures.ORANGE, "^"), (figures.WRONG, "x"))
    for (name, mask), (colour, marker) in zip(
        kinds.items(), looks, strict=True
    ):
        ax.scatter(
            p[mask],
            n[mask],
            s=26,
            color=colour,
            marker=marker,
            label=name,
            zorder=3,
        )
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
        f"{'unit length' if normalize else 'as they are'}: d_an {typical:.2f}"
        f" on average, margin {config.margin}"
    )
assert both[True].negative_distance.max() <= 2, (
    "distances of unit features are at most 2"
)

# %% tags=["bound"]
assert both[False].negative_distance.mean() > 2, (
    "distances of unscaled features exceed 2 on average"
)

# %% [markdown]
# The same margin is a thin strip on the left of [the figure](#fig-normalised) and a wide one on the right. Compared with distances of around
# ten, 0.3 is small, and nearly every anchor satisfies the margin. Where no distance exceeds 2, a margin of 0.3 is large, and many of the same
# anchors violate it.
#
# :::{admonition} The original reproduction says
# Features are *not* normalised, and $m = 0.3$.
# :::
#
# For this reason the library's `normalize` is off by default. If you turn it on, tune the margin again.

# %% [markdown]
# ## Batch-hard on real embeddings
#
# The next figure shows the distance matrix of the whole batch, as the network gives it. White lines separate people. Each row has one circle,
# the mined positive, and one cross, the mined negative.

# %% label="fig-heat" alt="Heat map of the distances of the batch: light blocks along the diagonal, one block per person; a blue circle in each row inside the block, an orange-red cross outside" caption="Mining reads the matrix row by row: one circle inside the block, one cross outside."
fig = figures.Figure(figsize=(5.6, 4.9), layout="constrained")
ax = fig.subplots()
image = ax.imshow(
    term.distances, cmap="Greys", vmin=0, vmax=1.3 * float(term.distances.max())
)
rows = torch.arange(len(labels))
ax.plot(
    term.mined.positive,
    rows,
    "o",
    color=figures.SAME,
    markersize=5,
    fillstyle="none",
    markeredgewidth=1.6,
)
ax.plot(
    term.mined.negative,
    rows,
    "x",
    color=figures.OTHER,
    markersize=5,
    markeredgewidth=1.6,
)
for edge in range(config.images_per_id, len(labels), config.images_per_id):
    ax.axhline(edge - 0.5, color="white", linewidth=1.2)
    ax.axvline(edge - 0.5, color="white", linewidth=1.2)
middles = (
    np.arange(config.ids_per_batch) * config.images_per_id
    + (config.images_per_id - 1) / 2
)
ax.set(
    xticks=middles,
    yticks=middles,
    xticklabels=labels[:: config.images_per_id].tolist(),
)
ax.set(
    yticklabels=labels[:: config.images_per_id].tolist(),
    xlabel="identity",
    ylabel="identity of the anchor",
)
ax.grid(False)
fig.colorbar(image, label="distance")
fig

# %% [markdown]
# The blocks along the diagonal of [the heat map](#fig-heat) are lighter than the rest: on average, images of one person are nearer to each
# other than to images of anyone else. A circle marks the darkest cell of its row inside the block, and a cross marks the lightest cell
# outside. We check first the averages, then the marks against the loop:

# %% tags=["bound"]
same = labels[:, None] == labels
same_person = same & ~torch.eye(len(labels), dtype=torch.bool)
assert term.distances[same_person].mean() < term.distances[~same].mean(), (
    "on average images of one person are nearer to each other than images of"
    " two people"
)

# %%
by_loop = mine_by_loop(term.distances, labels)
assert term.mined.positive.tolist() == [p for p, _ in by_loop], (
    "the mask finds the loop's positives on real features"
)
assert term.mined.negative.tolist() == [n for _, n in by_loop], (
    "the mask finds the loop's negatives on real features"
)
assert (labels[term.mined.positive] == labels).all(), (
    "every positive shows the anchor's person"
)
assert (labels[term.mined.negative] != labels).all(), (
    "no negative shows the anchor's person"
)

# %% [markdown]
# Which people does the network confuse most easily? Here are the two pairs of people whose images are nearest to each other, with one anchor
# for each pair:

# %% alt="Two anchors with the nearest images of other people in the batch and with their farthest positives" caption="The people that the network confuses most easily share a colour."
confused = {}
for a in term.mined.negative_distance.argsort().tolist():
    pair = frozenset((int(labels[a]), int(labels[term.mined.negative[a]])))
    confused.setdefault(pair, a)
draw_triplets(list(confused.values())[:2], term.mined)

# %% [markdown]
# Look for the colour that they share. Each anchor's loss depends only on its farthest positive and its nearest negative.
#
# ### How many triplets are satisfied
#
# Two shares describe a batch: that of the anchors whose negative is farther than their positive, and that of the anchors whose negative is
# farther by at least the margin. On the line both shares are four of six; with a margin of 1.5 the second one is three of six, the anchors
# whose gap is $-2$.

# %% tags=["nbval-check-output"]
print(
    f"{losses.satisfied(mined):.3f} {losses.satisfied(mined, margin=1.5):.3f}"
)

# %% [markdown]
# :::{admonition} The original reproduction says
# It logs both shares at every step: *precision* is the share without a margin, *margin satisfaction* the share with it.
# :::
#
# [Chapter 6](06_training.ipynb) plots them over the epochs. In our batch:

# %%
precision, satisfaction = (
    losses.satisfied(term.mined),
    losses.satisfied(term.mined, config.margin or 0.0),
)
print(
    f"precision {precision:.0%}, margin satisfaction {satisfaction:.0%}, loss"
    f" {term.loss:.3f}"
)
assert satisfaction <= precision, (
    "an anchor that satisfies the margin also has its negative farther than its"
    " positive"
)
assert torch.isclose(precision, (gaps < 0).float().mean()), (
    "precision is the share of negative gaps"
)

# %% [markdown]
# Eight people of the training set leave the triplet loss little or nothing to improve. Larger batches are harder (exercise 3), and people that the
# network has never seen are harder still: [chapter 8](08_evaluation.ipynb) tests with such people.

# %% [markdown]
# ## The local triplet loss
#
# The local triplet loss is the same loss with a different distance. Each image is a list of stripes, and the distance is the length of the
# shortest path that matches the stripes of one image to those of the other ([chapter 4](04_alignment.ipynb)). With $\ell_{ij}$ for this local
# distance,
#
# $$
# L_{\text{local}} = \frac{1}{N} \sum_a \max(0,\; \ell_{ap} - \ell_{an} + m) .
# $$ (eq-losses-local)
#
# Which positive $p$ and which negative $n$ does it use? There are two choices: the samples that are hardest by the *global* distance, or
# those that are hardest by the local distance itself.
#
# :::{admonition} The paper says
# In AlignedReID the global distance chooses the hard samples for both losses. The original reproduction supports both choices; all its
# published rows use the local distance.
# :::
#
# The example is small enough for paper: four images of two stripes, where the feature of a stripe is one number. We measure in units of
# $\ln 3$, because for a difference of $k$ units the cost is $\tanh\frac{k \ln 3}{2} = \frac{3^k - 1}{3^k + 1}$: stripes that are 0, 1 or 2
# units apart cost $0$, $\frac{3 - 1}{3 + 1} = 0.5$ and $\frac{9 - 1}{9 + 1} = 0.8$.

# %%
units = torch.tensor(
    [[0, 2], [2, 2], [2, 0], [0, 1]]
)  # A1, A2, B1, B2: upper and lower stripe
stripes = math.log(3) * units[:, :, None].double()  # [N=4, H=2, c=1]
two_people = torch.tensor([0, 0, 1, 1])

# %% [markdown]
# With two stripes the path has three cells: the first pair, the cheaper of the two crossed pairs, and the last pair. A1 is $(0, 2)$ and B2 is
# $(0, 1)$. The upper stripes are equal and cost 0, the crossed pairs cost 0.5 (0 with 1) and 0.8 (2 with 0), and the lower stripes cost 0.5.
# The local distance is $0 + 0.5 + 0.5 = 1$.

# %%
price = {0: 0.0, 1: 0.5, 2: 0.8}
by_hand = torch.zeros(4, 4, dtype=torch.float64)
for i, (top, bottom) in enumerate(units.tolist()):
    for j, (other_top, other_bottom) in enumerate(units.tolist()):
        crossed = min(
            price[abs(top - other_bottom)], price[abs(bottom - other_top)]
        )
        by_hand[i, j] = (
            price[abs(top - other_top)]
            + crossed
            + price[abs(bottom - other_bottom)]
        )
local = local_distances(stripes, stripes)
assert torch.allclose(local, by_hand, atol=1e-4), (
    "the library's path of three cells costs the same as by hand"
)

# %% [markdown]
# The global feature is the mean of the two stripes. B1 is A1 upside down, so the mean cannot tell the two apart, while the path can:

# %% alt="Left, four images as columns of two stripes with their numbers. Middle, global distances; right, local distances, with mined positives framed in blue and negatives in dashed orange-red; for A1 and B1 the two distances choose different negatives" caption="A1 upside down is B1: the global distance sees no difference, the local one does."
whole = stripes.mean(dim=1)
by_global = losses.global_triplet(
    whole, two_people, margin=0.3, normalize=False
)
own_choice = losses.local_triplet(
    stripes, two_people, margin=0.3, normalize=False
)
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
    global_ax,
    by_global.distances / math.log(3),
    four,
    "global, in units",
    by_global.mined,
    ".1f",
)
draw_matrix(
    local_ax, own_choice.distances, four, "local", own_choice.mined, ".1f"
)
fig

# %% [markdown]
# The local distance of A1 to itself is not 0, because the path passes through one cell off the diagonal, as chapter 4 explains. With two
# images per person there is only one positive to choose. The negatives differ: for A1 the global distance chooses B1, which is A1 upside
# down, and the local distance chooses B2. By hand, with $m = 0.3$, for the anchors A1, A2, B1, B2:
#
# * local choice: $0.8 - 1 + 0.3 = 0.1$, $0.8 - 0.8 + 0.3 = 0.3$, $1.3 - 0.8 + 0.3 = 0.8$, $1.3 - 1 + 0.3 = 0.6$, with a mean of 0.45;
# * global choice: the negative of A1 is B1 at a distance of 1.6, so its loss is 0; the negative of B1 is A1, so its loss is $1.3 - 1.6 + 0.3 = 0$. A2 and B2 are as before. The mean is $0.9 / 4 = 0.225$.

# %% tags=["nbval-check-output"]
global_choice = losses.local_triplet(
    stripes, two_people, 0.3, normalize=False, mined=by_global.mined
)
print(
    f"mined by the local distance {own_choice.loss:.3f}, by the global one"
    f" {global_choice.loss:.3f}"
)
assert own_choice.mined.negative.tolist() == [3, 2, 1, 0], (
    "the negatives are the hardest by the local distance"
)
assert global_choice.mined.negative.tolist() == [2, 2, 0, 0], (
    "the negatives are the hardest by the global distance"
)

# %% [markdown]
# The global choice never gives a larger local loss: the local choice already takes the farthest positive and the nearest
# negative by the local distance. How often do the two choices differ in our batch? The book's model has four stripes and was trained without the
# local loss, so its local branch still has its random initial weights.

# %%
own = losses.local_triplet(
    embedding.local_features, labels, config.margin, normalize=False
)
paper = losses.local_triplet(
    embedding.local_features,
    labels,
    config.margin,
    normalize=False,
    mined=term.mined,
)
other_positive = (own.mined.positive != paper.mined.positive).float().mean()
other_negative = (own.mined.negative != paper.mined.negative).float().mean()
print(
    f"a different positive for {other_positive:.0%} of the anchors, a different"
    f" negative for {other_negative:.0%}"
)
print(
    f"local loss {own.loss:.3f} by its own choice, {paper.loss:.3f} by the"
    " global one"
)
assert own.loss >= paper.loss, "the local choice gives the largest local loss"

# %% [markdown]
# The two distances disagree about which samples are hard. The local loss is smaller with the global choice, as it must be.

# %% [markdown]
# ## The identification loss
#
# The identification loss answers a different question: *which* of the training people is this? The identity head gives a number $z_k$ for each
# of them. The loss is minus the logarithm of the probability that the head gives to the right answer $y$ (its *surprise*, which is 0 if the
# head is certain of it; Zheng et al. 2016). In this section $p$ is a probability, not a positive:
#
# $$
# L_{\text{id}} = -\frac{1}{N} \sum_i \log p_i^{y_i}, \qquad p_i^c = \frac{e^{z_{ic}}}{\sum_k e^{z_{ik}}} .
# $$ (eq-losses-id)
#
# By hand with three people and $z = (0, \ln 2, 0)$: the exponentials are 1, 2, 1, and the probabilities are $\frac14, \frac12, \frac14$. If
# the second person is right, the surprise is $\ln 2$; if the first person is right, it is $\ln 4$. With one image of each, the loss is
# $\frac{1}{2}(\ln 2 + \ln 4) = \frac{3}{2} \ln 2 = 1.0397$.

# %% tags=["nbval-check-output"]
scores = torch.tensor([[0.0, math.log(2), 0.0]] * 2)
answers = torch.tensor([1, 0])
print(f"{losses.identification(scores, answers):.4f}")

# %%
total = 0.0
for z, y in zip(scores.tolist(), answers.tolist(), strict=True):
    total += -math.log(math.exp(z[y]) / sum(math.exp(v) for v in z))
assert math.isclose(total / 2, 1.5 * math.log(2)), (
    "the loop gives the number on paper"
)
assert math.isclose(
    float(losses.identification(scores, answers)), total / 2, abs_tol=1e-6
), "the library gives the loop's number"

# %% [markdown]
# A head that has learned nothing gives every person the same number, and its loss is the logarithm of the number of people. What is the loss
# of the trained head?

# %%
ids = embedding.logits.shape[1]
fresh = losses.identification(torch.zeros(len(labels), ids), labels)
assert math.isclose(float(fresh), math.log(ids), abs_tol=1e-4), (
    "equal scores for all people give a loss of log(ids)"
)
identification = losses.identification(embedding.logits, labels)
print(
    f"of {ids} people: {fresh:.2f} at the start, {identification:.3f} for the"
    " trained head"
)

# %% [markdown]
# The head was trained on these very people, and its loss is still two fifths of what it was, while nearly all triplets of the same features
# are satisfied: the two losses measure different things. For new people the head is useless; a search compares features.

# %% [markdown]
# ## The total loss
#
# Training minimises the weighted sum of the terms:
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
    f"{config.global_weight:g} x {term.loss:.3f} + {config.local_weight:g} x"
    f" {paper.loss:.3f} + {config.id_weight:g} x {identification:.3f} ="
    f" {total:.3f}"
)

# %% [markdown]
# Training does not compute a term of weight 0. A preset sets the weights as `global_weight`, `local_weight` and `id_weight`.
#
# :::{admonition} The paper says
# AlignedReID learns the global feature together with local ones, and claims that this improves the global feature. The original reproduction
# reports that the local distance added about a point and that adding the identification loss lowered scores.
# :::
#
# The book's model nevertheless trains with `id_weight = 1`: it starts from random rather than ImageNet weights, and the gradient of the
# classifier guides training while the triplet loss still pulls all images together.

# %% [markdown]
# ## Mutual terms
#
# In *mutual learning* several networks see the same batch, and each also learns from the answers of the others. Two terms measure how far a
# network is from its partners. Both are functions of numbers that a forward pass gives; [chapter 7](07_mutual_learning.ipynb) trains with
# them.
#
# ### Probabilities
#
# Let $p_i$ be this network's probabilities for image $i$ and $q_i$ the partner's. The Kullback-Leibler divergence is
#
# $$
# L_P = \frac{1}{N} \sum_i D(q_i \,\Vert\, p_i) = \frac{1}{N} \sum_i \sum_c q_i^c \log \frac{q_i^c}{p_i^c} .
# $$ (eq-losses-kl)
#
# By hand with two coins: ours is fair, $p = (\frac12, \frac12)$; the partner's shows heads three times out of four, $q = (\frac34, \frac14)$.
# The divergence is $\frac34 \ln \frac32 + \frac14 \ln \frac12 = 0.3041 - 0.1733 = 0.1308$. The library takes our logits first and a list of
# the partners' logits second; logarithms of probabilities are valid logits.
#
# :::{admonition} Predict first
# :class: tip
# The second number of the output is for the two coins exchanged. Is it the same as the first?
# :::

# %% tags=["nbval-check-output"]
fair = torch.tensor([[0.5, 0.5]]).log()
biased = torch.tensor([[0.75, 0.25]]).log()
print(
    f"{losses.mutual_probability(fair, [biased]):.4f}"
    f" {losses.mutual_probability(biased, [fair]):.4f}"
)

# %%
by_hand = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
assert math.isclose(
    float(losses.mutual_probability(fair, [biased])), by_hand, abs_tol=1e-6
), "the library's divergence of the two coins equals the sum by hand"
assert losses.mutual_probability(fair, [fair]) == 0, (
    "the divergence of equal coins is 0"
)

# %% [markdown]
# The second number is for the coins exchanged, $\frac12 \ln \frac23 + \frac12 \ln 2$: the divergence is not symmetric.
#
# ### Distances
#
# The other term compares how the two networks see *pairs* of images. It is the mean squared difference of their distance matrices,
#
# $$
# L_M = \frac{1}{N^2} \sum_{i, j} \left(d_{ij} - d'_{ij}\right)^2 .
# $$ (eq-losses-mutual)
#
# By hand: our network puts three images at 0, 1 and 3, the partner at 0, 2 and 3. Our distances for the three pairs are 1, 3, 2; the
# partner's are 2, 3, 1, so two pairs differ by 1. Each pair fills two cells of the matrix, so four of the nine cells contain a squared
# difference of 1: $4 / 9$.

# %% tags=["nbval-check-output"]
ours = torch.tensor([[0.0], [1.0], [3.0]], requires_grad=True)
theirs = torch.tensor([[0.0], [2.0], [3.0]], requires_grad=True)
our_distances, their_distances = (
    losses.euclidean_distances(ours, ours),
    losses.euclidean_distances(theirs, theirs),
)
mutual = losses.mutual_distance(our_distances, [their_distances])
print(f"{mutual.item():.4f}")
assert torch.isclose(mutual, torch.tensor(4 / 9)), (
    "the mean squared difference is 4/9"
)

# %% [markdown]
# In our loss the partner's numbers are constants, so the partner gets no gradient. (In the partner's own loss our numbers are constants.)

# %%
mutual.backward()
assert ours.grad.abs().sum() > 0, (
    "our features get a gradient towards the partner"
)
assert theirs.grad is None, "the partner's features get no gradient"
own_scores, partner_scores = (
    fair.clone().requires_grad_(),
    biased.clone().requires_grad_(),
)
losses.mutual_probability(own_scores, [partner_scores]).backward()
assert own_scores.grad.abs().sum() > 0, "our scores get a gradient"
assert partner_scores.grad is None, "the partner's scores get no gradient"

# %% [markdown]
# :::{admonition} The paper says
# The divergence follows *Deep Mutual Learning* (Zhang et al., CVPR 2018); the metric mutual loss is AlignedReID's (section 3.2), with the
# partner's side kept constant. The original reproduction measured, on Market-1501 alone with the global loss, 87.05 / 71.38 (rank-1 / mAP,
# trapezoid) without and 88.78 / 75.76 with mutual loss.
# :::

# %% [markdown]
# ## The gradient of each term, drawn
#
# A loss changes the network only through its gradient. We place features in a plane, compute one term, and draw *minus* the gradient: the
# direction in which a small training step would move them.


# %%
def push(x, loss):
    """Minus the gradient of `loss` at x."""
    x = x.clone().requires_grad_()
    loss(x).backward()
    return -x.grad


# %% [markdown]
# **Triplets.** There are two people with three images each, in the plane.

# %%
spots = torch.tensor(
    [[1.1, 1.4], [1.2, 0.4], [0.0, 0.9], [2.9, 0.9], [2.2, 2.0], [4.0, 1.1]]
)
hard = push(
    spots, lambda x: losses.global_triplet(x, people, 0.3, normalize=False).loss
)
smooth = push(
    spots,
    lambda x: losses.global_triplet(x, people, None, normalize=False).loss,
)
assert torch.allclose(hard.sum(0), torch.zeros(2), atol=1e-5), (
    "the gradients of all features sum to 0"
)
still = hard.norm(dim=1) < 1e-6
assert still.sum() == 2, (
    "two features get no gradient: satisfied anchors that are nobody's hardest"
    " sample"
)
assert smooth[still].norm(dim=1).min() > 0.1, (
    "the soft margin moves every feature"
)
assert torch.allclose(hard[[2, 5]].norm(dim=1), torch.tensor(1 / 6)), (
    "one anchor pulls with strength 1/N at any distance"
)

# %% [markdown]
# **Local triplets.** There are two images of one person with eight stripes, all different. The second box is two stripes too low, and its
# stripes differ a little from those of the first. Two images of a different person have nothing in common with them. The margin is large
# enough for the loss to be active.

# %%
stripe = 6.0 * torch.arange(10)
first = torch.stack([stripe[:8], torch.zeros(8)], dim=1)  # [H=8, c=2]
second = torch.stack([stripe[2:] + 0.5, torch.zeros(8)], dim=1)
somebody = torch.stack(
    [first + torch.tensor([3.0, 40.0]), second + torch.tensor([3.0, 40.0])]
)
crowd = torch.cat([first[None], second[None], somebody])
local_push = push(
    crowd,
    lambda x: losses.local_triplet(x, two_people, 5.0, normalize=False).loss,
)
strength = local_push[0].norm(dim=1)  # [H] of the first image
assert strength[2:].min() > 20 * strength[:2].max(), (
    "stripes without a match get almost no gradient"
)

# %% [markdown]
# **Identification.** There are three people. The head's matrix has one row per person, drawn as a line from the middle. The features are
# points in the plane; some are on the right side and some on the wrong one.

# %%
angles = torch.tensor([90.0, 210.0, 330.0]).deg2rad()
head = torch.stack([angles.cos(), angles.sin()], dim=1)  # [3 ids, 2]
heads_points = torch.tensor(
    [
        [0.2, 2.4],
        [-0.6, 0.5],
        [-2.2, -1.0],
        [0.5, -1.6],
        [2.1, -1.2],
        [0.4, 1.0],
    ]
)
three = torch.tensor([0, 0, 1, 1, 2, 2])
id_push = push(heads_points, lambda x: losses.identification(x @ head.T, three))
probabilities = (heads_points @ head.T).softmax(1)
by_hand = (torch.eye(3)[three] - probabilities) @ head / len(three)
assert torch.allclose(id_push, by_hand, atol=1e-5), (
    "a feature moves towards its own row and away from the others, by their"
    " probability"
)

# %% [markdown]
# **Mutual terms.** We compare a network's probabilities with a partner's, and three features in the plane with a partner's triangle.

# %%
mine = torch.tensor([[0.1, 0.6, 0.2, 0.1]])
partner = torch.tensor([[0.3, 0.3, 0.3, 0.1]])
probability_push = push(
    mine.log(), lambda z: losses.mutual_probability(z, [partner.log()])
)
assert torch.allclose(probability_push, partner - mine, atol=1e-5), (
    "minus the gradient is the partner's probability minus ours"
)

triangle = torch.tensor([[0.0, 0.0], [3.0, 0.0], [1.2, 1.0]])
wanted = torch.tensor([[0.5, -0.4], [2.5, -0.4], [1.2, 1.8]])
there = losses.euclidean_distances(wanted, wanted)
pair_push = push(
    triangle,
    lambda x: losses.mutual_distance(losses.euclidean_distances(x, x), [there]),
)
stepped = triangle + 0.1 * pair_push
before = losses.mutual_distance(
    losses.euclidean_distances(triangle, triangle), [there]
)
after = losses.mutual_distance(
    losses.euclidean_distances(stepped, stepped), [there]
)
assert after < before, (
    "a small step along the arrows brings the distances nearer to the partner's"
)

# %% [markdown]
# The next figure shows all of them. The lengths of arrows can be compared within a panel, but not between panels.


# %%
def draw_arrows(ax, x, arrows, who, scale, title):
    """Features of the plane by person, and where each is pushed."""
    marks = ((figures.GREEN, "o"), (figures.PURPLE, "s"), (figures.SKY, "D"))
    for person in who.unique().tolist():
        colour, marker = marks[person]
        ax.scatter(
            *x[who == person].T, s=70, color=colour, marker=marker, zorder=2
        )
    moved = scale * arrows.norm(dim=1) > 0.02  # others would be dots
    ends = scale * arrows[moved]
    ax.quiver(
        *x[moved].T,
        *ends.T,
        angles="xy",
        scale_units="xy",
        scale=1,
        width=0.012,
        zorder=3,
    )
    ax.set(title=title, xticks=[], yticks=[])
    ax.set_aspect("equal", "datalim")
    ax.margins(0.18)


# %% label="fig-gradients" alt="Six panels with letters. a, triplets with margin: arrows at four points, none at two satisfied ones. b, soft margin: arrows at all points. c, local: bars for stripes 3 to 8, none for 1 and 2. d, identification: arrows towards the feature's own row of the head, longest at misplaced points. e, mutual probabilities: bars up where the partner has more, down where less. f, mutual distances: arrows that turn a flat triangle into the partner's taller one" caption="Each loss moves different features, and each in its own direction."
fig = figures.Figure(figsize=(8, 8), layout="constrained")
(a, b), (c, d), (e, f) = fig.subplots(3, 2)
draw_arrows(a, spots, hard, people, 1.9, "a  global, margin 0.3")
draw_arrows(b, spots, smooth, people, 1.9, "b  global, soft margin")
c.bar(range(1, 9), strength, color=figures.GREY)
c.set(
    title="c  local",
    xticks=range(1, 9),
    xlabel="stripe of image 1",
    ylabel="length of the gradient",
)
draw_arrows(d, heads_points, id_push, three, 8, "d  identification")
for row, colour in zip(
    head, (figures.GREEN, figures.PURPLE, figures.SKY), strict=True
):
    d.plot(
        *torch.stack([torch.zeros(2), 2.6 * row]).T,
        color=colour,
        linewidth=1.2,
        linestyle=":",
        zorder=1,
    )
e.bar(range(1, 5), probability_push[0], color=figures.GREY)
e.axhline(0, color=figures.GREY, linewidth=1)
e.set(
    title="e  mutual, probabilities",
    xticks=range(1, 5),
    xlabel="person",
    ylabel="minus the gradient",
)
draw_arrows(
    f,
    triangle,
    pair_push,
    torch.zeros(3, dtype=torch.long),
    2,
    "f  mutual, distances",
)
f.fill(
    *wanted.T, fill=False, linestyle="--", edgecolor=figures.GREY, linewidth=1.4
)
fig

# %% [markdown]
# In [the figure](#fig-gradients) circles, squares and diamonds are people:
#
# * **a** The two images at the border between the two people are pushed apart. The two images that satisfy the margin, and that are nobody's
#   hardest sample, have no arrow at all. Two others, the farthest positives, are pulled in.
# * **b** Every anchor pulls, a satisfied one less, so every image has an arrow.
# * **c** Stripes 3 to 8 match stripes two positions higher in the second image and move towards them. Stripes 1 and 2 have no match and cost
#   1 each; they hardly move, because $\tanh$ is flat there.
# * **d** A feature moves towards its own row of the head (dotted). It moves more if other people have more of the probability. The three
#   features far out on their own rows hardly move. This loss does not use distances between images.
# * **e** A probability rises where the partner's is higher and falls where the partner's is lower: minus the gradient is $q - p$.
# * **f** The partner's triangle (dashed) is narrower and taller. The features move so that their triangle becomes like it. Only the shape
#   counts, not the position or the orientation of the triangle.

# %% [markdown]
# ### Pull the points
#
# Drag a point in the figure below, or move it with the arrow keys: two circles around this point pass through its hardest positive and its
# hardest negative. Press
# *20 steps* to follow the arrows, and then try a larger margin, the soft margin, unit length, and *Collapsed*, where no arrow is left (exercise 2).

# %% tags=["interactive"] alt="Six points of two people, and arrows of minus the gradient of the triplet loss" caption="Drag a point: the loss sees only the hardest two of each anchor."
fig = figures.Figure(figsize=(6, 2.6), layout="constrained")
left, right = fig.subplots(1, 2)
draw_arrows(left, spots, hard, people, 1.9, "margin 0.3")
draw_arrows(right, spots, smooth, people, 1.9, "soft margin")
words = "Six points of two people, and arrows of minus the gradient"
figures.pull_the_points(spots, people, 0.3, static=fig, words=words)

# %% [markdown]
# ## Which setting should I take?
#
# * `margin = 0.3` with `normalize = False`: the original reproduction's choice for long trainings from ImageNet weights.
# * A larger margin if nearly all anchors satisfy it early: they have no gradient any more. In our batch this is true for all anchors or
#   nearly all; the nearest negative is at about 13 on average.
# * `margin = None`, the soft margin, to avoid the choice of a length: every anchor keeps some gradient.
# * Tune the margin again if you set `normalize = True`: no distance exceeds 2 then, and the nearest negative is at about 0.6 on average.
# * `local_mining = "global"`: the paper's choice, with a smaller local loss (about two thirds of the other one here). With `"local"` each
#   distance chooses what is hardest for itself.
# * `id_weight = 1` if training starts from random weights, where the triplet loss alone may collapse; from ImageNet weights the original
#   reproduction scored lower with it, and our smaller network in a shorter training higher ([chapter 10](10_reproduction.ipynb)).
#
# ## Summary
#
# * A distance function gives a matrix, mining gives indices, and a loss takes distances. Squares are clamped before the root so that
#   gradients are never NaN.
# * Batch-hard mining takes the farthest positive and the nearest negative of every anchor. It needs at least two people, and two images of
#   each.
# * A margin is a length: 0.3 is large for unit features and small for unscaled ones.
# * The local loss uses shortest-path distances; its triplets are mined with the global distance (as in the paper) or with the local one.
# * The identification loss classifies the training people. Mutual terms make a network agree with a partner, whose numbers are constants.
#
# Next: [chapter 6](06_training.ipynb) trains with these losses.
#
# ## Exercises
#
# **1.** Four images are on a line: person A at 0 and 3, person B at 2 and 7. Find all hard triplets and the loss with $m = 1$ on paper, then
# check them.
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
# **2.** A collapsed network gives every image the same feature. What are the two triplet losses then, and their gradients?
#
# :::{dropdown} Solution
# All distances are equal, so every gap is 0: the loss is $m$ with a margin and $\ln 2$ with the soft margin. The clamp makes the gradient 0,
# so the triplet loss alone cannot escape from this point. A loss curve that stays at the margin is a sign of collapse.
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
# It mostly falls: with more people in the batch the nearest of them is nearer, while the positives are as far as before. A larger batch is
# harder, so compare precision curves only between batches of equal size.
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
#
# **4.** Find the hardest positive and the hardest negative of every anchor. The function gets a distance matrix as a list of rows, and a
# list with the label of each image. It returns a list with one pair ($d_{ap}$, $d_{an}$) per image, with `None` in place of a distance if
# there is no positive or no negative. It has one mistake. Run the cell, read the answer and repair the function.

# %% tags=["nbval-check-output"]
from alignedreid_lib.exercises import check


def hardest(distances, labels):
    mined = []
    for a, row in enumerate(distances):
        others = [i for i in range(len(labels)) if i != a]
        positives = [row[i] for i in others if labels[i] == labels[a]]
        negatives = [row[i] for i in others]
        mined.append(
            (max(positives, default=None), min(negatives, default=None))
        )
    return mined


check("05_losses", hardest)

# %% [markdown]
# :::{dropdown} Solution
# ```python
# def hardest(distances, labels):
#     mined = []
#     for a, row in enumerate(distances):
#         others = [i for i in range(len(labels)) if i != a]
#         positives = [row[i] for i in others if labels[i] == labels[a]]
#         negatives = [row[i] for i in others if labels[i] != labels[a]]
#         mined.append((max(positives, default=None), min(negatives, default=None)))
#     return mined
#
#
# assert check("05_losses", hardest)
# ```
# :::
