# %% [markdown]
# # 04 Alignment
#
# Two boxes around one person rarely fit in the same way. If we compare the images stripe by stripe, we compare a shirt with trousers:

# %% tags=["parameters"]
# Parameters: the people to draw
seed = 1

# %%
import dataclasses

import numpy as np
import torch
from matplotlib.patches import ConnectionPatch, Rectangle

from alignedreid_lib import alignment, figures, runs, synthetic
from alignedreid_lib.synthetic import pedestrians
from alignedreid_lib.synthetic.pedestrians import TRUE_BOX, View

settings = runs.read_settings(globals(), seed=runs.SEED)

# %% tags=["hide-input"]
cameras = synthetic.sample_cameras(6, settings.seed)


def moment(person, camera, number):
    """One moment of a person before a camera, with nothing in between."""
    view = View.sample(
        np.random.default_rng([settings.seed, person, number]), cameras[camera]
    )
    return dataclasses.replace(view, obstacle="none")


def picture(person, camera=1, number=0, down=0.0):
    """uint8 [128, 64, 3]; the box is `down` eighths of its height too low."""
    box = TRUE_BOX._replace(top=TRUE_BOX.top - down * TRUE_BOX.height / 8)
    return pedestrians.draw(
        synthetic.sample_person(person, settings.seed),
        moment(person, camera, number),
        box,
    )


# %% label="fig-boxes" alt="The same person in three boxes, the second and third placed lower: the head is cut off and the ground shows below. Lines divide each image into eight stripes; stripe 3 is framed, and shows the shirt, the waist and the hip" caption="Stripe 3 is a different part of the body in each box."
def draw_stripes(ax, pixels, title):
    """An image with its eight stripes."""
    ax.imshow(pixels, extent=(0, 4, 8.5, 0.5))
    ax.hlines(np.arange(1.5, 8), 0, 4, color="white", linewidth=1)
    ax.set(title=title, xticks=[], yticks=range(1, 9))
    ax.grid(False)


fig = figures.Figure(figsize=(5.4, 3.4), layout="constrained")
for k, ax in enumerate(fig.subplots(1, 3)):
    draw_stripes(
        ax, picture(1, down=k), f"{k}/8 too low" if k else "a perfect box"
    )
    ax.add_patch(
        Rectangle(
            (0.04, 2.5),
            3.92,
            1,
            fill=False,
            edgecolor=figures.OTHER,
            linewidth=3,
        )
    )
fig.axes[0].set_ylabel("stripe")
fig

# %% [markdown]
# In [the figure](#fig-boxes) stripe 3 shows the shirt in the first image and the hip in the last, so one person looks like two. This chapter
# still compares stripes, but a shortest path decides which stripe belongs to which.
#
# **What you will learn**
#
# * how to find the shortest path through a table of 3 × 4 numbers: by listing every path, by hand, with a loop and with the library;
# * what this path looks like for two images of one person when one box is too low: it bends by as much as the box is off;
# * how much a shift costs when stripes are compared rigidly and when they are aligned.
#
# **Time** on two cores: 20 seconds. **Hardware**: any laptop, no GPU. Nothing is trained here: the feature of a stripe is its colour, so you
# can check every distance by eye.
#
# A detector draws a box around each person it sees, and the box is often wrong. The generator of [chapter 1](01_datasets.ipynb) can draw
# one moment in any box, so we know how far each box is off: here 0, 1 and 2 eighths of the box's height, that is, 0, 1 and 2 stripes. (All
# boxes of this chapter have the same size and are only too low or too high. Boxes of a wrong size, which change the scale of the person, are
# among those of [chapter
# 13](13_alignment_study.ipynb).)

# %% [markdown]
# ## The cost of matching two stripes
#
# Let $x_i$ be the feature of stripe $i$ of one image, $y_j$ the feature of stripe $j$ of the other, and $\lVert x_i - y_j \rVert$ their
# Euclidean distance. Matching the two stripes costs
#
# $$
# d_{ij} = \frac{e^{\lVert x_i - y_j \rVert} - 1}{e^{\lVert x_i - y_j \rVert} + 1} = \tanh \frac{\lVert x_i - y_j \rVert}{2},
# $$ (eq-align-cost)
#
# which is 0 for equal stripes and close to 1 for stripes that have nothing in common.
#
# :::{admonition} The paper says
# The left form is AlignedReID's eq. 1 (Zhang et al. 2017).
# :::
#
# The right form gives the same number and does not overflow:

# %%
far = torch.tensor(1000.0)
assert torch.isnan((far.exp() - 1) / (far.exp() + 1)), (
    "infinity over infinity is not a number"
)
assert torch.tanh(far / 2) == 1, "tanh gives the same quantity without overflow"

# %% [markdown]
# In real use $x_i$ is the local feature of [chapter 3](03_model.ipynb). Here it is the mean red, green and blue of the middle half of the
# stripe's width, scaled to the range 0 to 12. The range matters: the cost is close to 1 only if the features of two stripes differ by a few
# units.


# %%
def colours(pixels):
    """The mean colour of each of eight stripes, float [8, 3]."""
    bands = torch.from_numpy(pixels[:, 16:48].copy()).reshape(8, 16, 32, 3)
    return bands.float().mean(dim=(1, 2)) * 12 / 255


straight, low = picture(1), picture(1, down=2)
costs = alignment.stripe_distances(colours(straight), colours(low))
for i in range(8):
    for j in range(8):
        difference = colours(straight)[i] - colours(low)[j]
        assert torch.isclose(
            costs[i, j], torch.tanh(difference.norm() / 2), atol=1e-3
        ), "the library computes the equation for every pair of stripes"


# %% label="fig-costs" alt="A table of eight by eight costs between the two images, each printed in its cell: the small ones run parallel to the diagonal, two rows below it" caption="Small costs mark the stripes that show the same part of the body: two rows below the diagonal."
def draw_costs(ax, costs, rows, columns):
    """A table of costs as colours, stripe by stripe."""
    ax.imshow(costs, vmin=0, vmax=1, extent=(0.5, 8.5, 8.5, 0.5))
    ax.set(xlabel=columns, ylabel=rows)
    ax.set(xticks=range(1, 9), yticks=range(1, 9))
    ax.grid(False)


fig = figures.Figure(figsize=(8, 4), layout="constrained")
left, middle, right = fig.subplots(1, 3, width_ratios=(1, 2.2, 1))
draw_stripes(left, straight, "perfect box")
draw_stripes(right, low, "2/8 too low")
draw_costs(middle, costs, "stripe of the perfect box", "stripe of the low box")
for i in range(8):
    for j in range(8):
        middle.text(
            j + 1,
            i + 1,
            f"{costs[i, j]:.2f}",
            ha="center",
            va="center",
            fontsize=7,
            color="black" if costs[i, j] > 0.5 else "white",
        )
middle.set_title("cost of each pair")
fig

# %% [markdown]
# The dark cells of [the heat map](#fig-costs) run parallel to the diagonal, two rows below it. Row 3 (the perfect box) matches column 1 (the
# low box), row 4 matches column 2 (less well), and so on down to the shoes. Rows 1 and 2, head and shoulders, have no match.

# %% [markdown]
# ## The shortest path, by hand
#
# Which stripe belongs to which? Body parts keep their order: the head is above the chest in both images. We therefore look for a path from
# the upper left cell of the cost table to the lower right cell that moves only down and right, and we take the path with the smallest sum of
# costs. An example of 3 × 4:

# %%
table = torch.tensor([[1.0, 9, 9, 9], [1, 2, 9, 9], [9, 3, 1, 2]])

# %% [markdown]
# A path takes two steps down and three to the right, in any order, so it has six cells, and there are $\binom{5}{2} = 10$ paths. (For two
# images of $H$ stripes every path has $2H - 1$ cells.) Here are all ten:
#
# :::{admonition} Predict first
# :class: tip
# Follow the small numbers of the table. What is the smallest of the ten sums?
# :::

# %% tags=["nbval-check-output"]
from itertools import combinations


def all_paths(height, width):
    """Every path down and right, as a list of cells."""
    steps = height + width - 2
    for downs in combinations(range(steps), height - 1):
        cells, i, j = [(0, 0)], 0, 0
        for step in range(steps):
            i, j = (i + 1, j) if step in downs else (i, j + 1)
            cells.append((i, j))
        yield cells


sums = {}
for cells in all_paths(3, 4):
    values = [int(table[cell]) for cell in cells]
    sums[tuple(cells)] = sum(values)
    print(" + ".join(map(str, values)), "=", sum(values))
assert len(sums) == 10, "there are ten paths: five steps, two of them down"

# %% [markdown]
# The smallest sum is 10. We also call the sum of a path its *length*. Listing all paths works for 3 × 4, but two images of 8 stripes have
# $\binom{14}{7} = 3432$ paths. There is a faster way to find the shortest path: every path reaches a cell from above or from the left, so the
# cost $S_{ij}$ of the cheapest path to cell $(i, j)$ is
#
# $$
# S_{ij} = d_{ij} + \min\left(S_{(i-1)j},\; S_{i(j-1)}\right), \qquad S_{11} = d_{11},
# $$ (eq-align-path)
#
# with only one choice in the first row and in the first column. The *local distance* of two images is the value in the last cell, $S_{HH}$
# for two images of $H$ stripes.
#
# :::{admonition} The paper says
# This is AlignedReID's eq. 2. Alignment needs no labels beyond the identities; it uses only the order of the stripes.
# :::
#
# On paper, row by row: the first row gives 1, 10, 19, 28. The second row gives $1 + 1 = 2$; $2 + \min(10, 2) = 4$; $9 + \min(19, 4) = 13$; $9 + \min(28, 13) = 22$.
# The third row gives $9 + 2 = 11$; $3 + \min(4, 11) = 7$; $1 + \min(13, 7) = 8$; $2 + \min(22, 8) = 10$.


# %%
def shortest_path_loop(costs):
    """Equation (eq-align-path), cell by cell; returns the table of sums."""
    S = costs.clone()
    for i in range(S.shape[0]):
        for j in range(S.shape[1]):
            if i > 0 and j > 0:
                S[i, j] += min(S[i - 1, j], S[i, j - 1])
            elif i > 0:
                S[i, j] += S[i - 1, j]
            elif j > 0:
                S[i, j] += S[i, j - 1]
    return S


# %% tags=["nbval-check-output"]
S = shortest_path_loop(table)
print(S.int().tolist())

# %%
assert S[-1, -1] == min(sums.values()) == 10, (
    "the loop finds the smallest of all ten sums"
)
assert alignment.shortest_path(table) == 10, "the library finds the same sum"
path = alignment.trace_path(table)
assert sums[tuple(path)] == 10, (
    "the path that the library traces back has this sum"
)

# %% label="fig-tables" alt="Three tables of 3 by 4: the costs with the shortest path marked, the sums, and the order of computation, where cells of one anti-diagonal have one number" caption="The path follows the small costs, its last sum is 10, and six steps compute all twelve sums."
order = np.add.outer(np.arange(3), np.arange(4)) + 1
panels = {
    "costs, and the path": table.int(),
    "least sums": S.int(),
    "computed in step": order,
}
fig = figures.Figure(figsize=(8, 2.3), layout="constrained")
for ax, (title, numbers) in zip(
    fig.subplots(1, 3), panels.items(), strict=True
):
    ax.imshow(numbers, cmap="Greys", vmax=2.5 * float(numbers.max()))
    for i in range(3):
        for j in range(4):
            ax.text(j, i, int(numbers[i, j]), ha="center", va="center")
    ax.set(title=title, xticks=[], yticks=[])
    ax.grid(False)
fig.axes[0].plot(
    [j for _, j in path],
    [i for i, _ in path],
    color=figures.GREEN,
    linewidth=7,
    alpha=0.45,
)
fig

# %% [markdown]
# The right table of [the figure](#fig-tables) shows the order in which the library computes. Each *anti-diagonal* depends only on the one
# before it, so all its cells are computed at once, for all pairs of images at once. A table of 8 × 8 takes 15 steps instead of 64.

# %% [markdown]
# ## The path between two images
#
# These are the same two images as above; one box is two eighths too low. A line joins each pair of stripes on the path. It is solid and blue
# where the stripes match, which here means that their cost is below 0.3. The bars compare three local distances of the left image: to itself,
# to the right image, and on average to 24 other people.


# %% tags=["hide-input"]
strangers = torch.stack([colours(picture(p, p % 6)) for p in range(24, 48)])


def draw_path(axes, costs, path):
    """The path twice: as lines between the stripes, and over the costs."""
    left, right, table = axes
    for i, j in path:
        good = costs[i, j] < 0.3
        line = ConnectionPatch(
            (4, i + 1),
            (0, j + 1),
            "data",
            "data",
            axesA=left,
            axesB=right,
            color=figures.SAME if good else figures.GREY,
            linewidth=2.5 if good else 0.9,
            linestyle="-" if good else ":",
        )
        left.figure.add_artist(line)
        table.plot(
            j + 1,
            i + 1,
            "o",
            color=figures.SAME if good else "white",
            markeredgecolor="white",
            markersize=8 if good else 4,
            zorder=3,
        )
    rows, columns = np.transpose(path)
    table.plot(columns + 1, rows + 1, color="white", linewidth=1.5)


def draw_lengths(ax, one, two, same):
    """Three local distances of an image: itself, this pair, strangers."""
    x, y = colours(one)[None], colours(two)[None]
    lengths = {
        "itself": alignment.local_distances(x, x),
        "this pair": alignment.local_distances(x, y),
        "strangers\n(mean)": alignment.local_distances(x, strangers),
    }
    values = [float(length.mean()) for length in lengths.values()]
    pair = figures.SAME if same else figures.OTHER
    ax.bar(list(lengths), values, color=[figures.GREY, pair, figures.OTHER])
    for k, value in enumerate(values):
        ax.text(k, value + 0.1, f"{value:.1f}", ha="center", va="bottom")
    ax.set(title="local distance", ylim=(0, 1.15 * max(values)), yticks=[])
    ax.spines["left"].set_visible(False)
    ax.grid(False)


def aligned_pair(one, two, titles, same=True):
    """Two images, the path between them, its costs and its length."""
    costs = alignment.stripe_distances(colours(one), colours(two))
    fig = figures.Figure(figsize=(8, 3.2), layout="constrained")
    grid = fig.add_gridspec(1, 5, width_ratios=(1, 0.4, 1, 2, 1.5))
    axes = [fig.add_subplot(grid[k]) for k in (0, 2, 3, 4)]
    axes[1].yaxis.tick_right()
    draw_stripes(axes[0], one, titles[0])
    draw_stripes(axes[1], two, titles[1])
    draw_costs(axes[2], costs, "left image", "right image")
    axes[2].set_title("the path over the costs")
    draw_path(axes[:3], costs, alignment.trace_path(costs))
    draw_lengths(axes[3], one, two, same)
    return fig


# %% [markdown]
# :::{admonition} Predict first
# :class: tip
# The right box is two eighths too low. Does the path first go down, or first to the right?
# :::


# %% label="fig-path" alt="Two images of one person with five solid lines, each from a stripe of the left image to the stripe two higher in the right one. The table of costs shows a path that first goes down two rows and then follows the dark cells. Bars: itself, this pair, strangers" caption="The path bends by the two stripes that the box is off, and the pair stays nearer than strangers."
aligned_pair(straight, low, ("perfect box", "2/8 too low"))

# %% [markdown]
# The path goes down the first column as long as the head in the left image has no match on the right. It then follows the dark cells like a
# staircase, and ends along the last row, where the right image shows ground. If every stripe matches at most one other, at most 8 of the 15
# cells are matches, and the others are steps between them. The dotted lines are these steps, the stripes without a match, and the pair of 4
# and 2, whose cost is slightly above 0.3.
#
# Does the path bend by exactly the shift? We know the shift, so we can test it: for a box that is $k$ stripes too low, every pair
# $(i + k, i)$ must be on the path.

# %%
for k in range(4):
    path = alignment.trace_path(
        alignment.stripe_distances(
            colours(straight), colours(picture(1, down=k))
        )
    )
    assert {(i + k, i) for i in range(8 - k)} <= set(path), (
        "every pair (i + k, i) is on the path"
    )

# %% [markdown]
# With two moments, two cameras and a box that is off, the costs are less clear: few pairs cost less than 0.3. All seven pairs $(i + 1, i)$ are
# still on the path.

# %% alt="The same person seen by two cameras, the second box one eighth too low, with the path between their stripes, over the costs, and the three distances" caption="Two cameras and two moments: fewer stripes match, and the path still finds the shift."
aligned_pair(
    picture(11, 1, 0),
    picture(11, 4, 1, down=1),
    ("camera 1", "camera 4, 1/8 low"),
)

# %%
path = alignment.trace_path(
    alignment.stripe_distances(
        colours(picture(11, 1, 0)), colours(picture(11, 4, 1, down=1))
    )
)
assert {(i + 1, i) for i in range(7)} <= set(path), (
    "all seven pairs (i + 1, i) are on the path"
)

# %% [markdown]
# ## Rigid stripes or aligned stripes
#
# The alternative is to compare stripe 1 with stripe 1, stripe 2 with stripe 2, and add up the costs. These are *rigid* stripes. They need no
# path, and they are the baseline for alignment. The library computes both for all pairs of two groups of images at once:

# %%
people = [1, 3, 7, 8, 9, 11]
ours = torch.stack([colours(picture(p)) for p in people])
theirs = torch.stack([colours(picture(p, down=1)) for p in people])
aligned = alignment.local_distances(ours, theirs)
rigid = alignment.local_distances(ours, theirs, aligned=False)

# %%
for m, x in enumerate(ours):
    for n, y in enumerate(theirs):
        pair = alignment.stripe_distances(x, y)
        assert torch.isclose(
            aligned[m, n], shortest_path_loop(pair)[-1, -1], atol=1e-2
        ), "the aligned distance is the loop's last sum"
        assert torch.isclose(rigid[m, n], pair.diagonal().sum(), atol=1e-2), (
            "the rigid distance is the sum of the diagonal"
        )

# %% [markdown]
# Now the experiment: each of 24 people is compared with their own image in a box that is lower and lower. For comparison we also compute the
# distances between different people in perfect boxes.

# %%
downs = np.arange(0, 4.1, 0.5)
group = range(24)
first = torch.stack([colours(picture(p, p % 6)) for p in group])
lower = [
    torch.stack([colours(picture(p, p % 6, 0, down)) for p in group])
    for down in downs
]
others = ~torch.eye(len(group), dtype=torch.bool)
curves, yardsticks = {}, {}
for name, how in (("rigid", False), ("aligned", True)):
    curves[name] = torch.stack(
        [alignment.local_distances(first, y, how).diagonal() for y in lower]
    )
    yardsticks[name] = alignment.local_distances(first, first, how)[others]

# %% [markdown]
# :::{admonition} Predict first
# :class: tip
# How many stripes too low may a box be before its person is about as far as a stranger, with rigid stripes and with aligned ones?
# :::

# %% label="fig-shift" alt="Two curves over the shift, in units of the mean distance of strangers. Rigid: it rises almost to 1 within two stripes. Aligned: it starts higher, rises slowly, with peaks at 0.5, 1.5 and 2.5 stripes, and stays below 1 over all four stripes" caption="With rigid stripes, a person whose box is two stripes too low is almost as far away as a stranger; with aligned stripes the person is nearer, even at four."
fig = figures.Figure(figsize=(6.4, 3.2), layout="constrained")
ax = fig.subplots()
looks = {"rigid": (figures.PURPLE, "s--"), "aligned": (figures.GREEN, "o-")}
for name, own in curves.items():
    colour, style = looks[name]
    share = own / yardsticks[name].mean()
    ax.plot(downs, share.mean(1), style, color=colour, label=f"{name} stripes")
    ax.fill_between(
        downs,
        *share.quantile(torch.tensor([0.25, 0.75]), dim=1),
        color=colour,
        alpha=0.2,
        linewidth=0,
    )
ax.axhline(1, color=figures.OTHER, linestyle=":", label="strangers (mean)")
ax.set(
    xlabel="stripes too low",
    ylabel="distance of a person to themselves\nover the strangers' mean",
    ylim=(0, None),
)
ax.legend(loc="lower right")
fig

# %% [markdown]
# In [the figure](#fig-shift) lines are means, and bands contain the middle half of the values. With rigid stripes, a person whose box is two
# stripes too low is almost as far from their own correctly boxed image as a stranger is. With aligned stripes the distance rises slowly; at
# four stripes, with half the person outside the box, it is still below the distance of strangers. The curve has peaks at half a stripe, one
# and a half, and two and a half: they cost more than a shift by the next whole stripe, because then no stripe has an exact match.
#
# Look also at a shift of 0. The aligned distance of an image to itself is not 0, because between two matches the path passes through a cell
# next to the diagonal and pays its cost. This cost is about the same for everybody, so it does not decide a comparison.

# %%
assert torch.allclose(curves["rigid"][0], torch.zeros(24), atol=0.1), (
    "the rigid distance of an image to itself is 0"
)
assert (curves["aligned"][0] > 1).all(), (
    "the aligned distance of an image to itself is above 1: the path has seven"
    " cells off the diagonal"
)
shift = list(downs).index(2)
assert curves["rigid"][shift].mean() > 0.9 * yardsticks["rigid"].mean(), (
    "rigid: a person two stripes off is almost as far as a stranger"
)
assert curves["aligned"][shift].mean() < 0.75 * yardsticks["aligned"].mean(), (
    "aligned: a person two stripes off is nearer than a stranger"
)

# %% [markdown]
# ### Slide the box
#
# Drag the box over the street, or move it with the arrow keys, and compare both distances with those of strangers. Press *Step* to fill the table
# with the least sums, one anti-diagonal at a time, and touch a cell to see how its sum is computed.

# %% tags=["interactive"] alt="Two images of one person in different boxes, the path between their stripes, and the path in the table of costs" caption="Touch it: the path follows the box."
shifts = np.arange(-3, 4.1, 0.5).tolist()
boxes = [picture(1, down=shift) for shift in shifts]
figures.slide_the_box(
    boxes,
    torch.stack([colours(box) for box in boxes]),
    shifts,
    (float(yardsticks["rigid"].mean()), float(yardsticks["aligned"].mean())),
    full=12.0,
    static=aligned_pair(straight, low, ("perfect box", "2/8 too low")),
    words=(
        "One person in two boxes, with the path between their stripes and in"
        " the costs"
    ),
)

# %% [markdown]
# ## The gradient of the shortest path
#
# In training the path is part of the loss ([chapter 5](05_losses.ipynb)). The length of the shortest path changes one for one with the cost
# of each cell on the path, and does not depend on the other cells, as long as the path stays the shortest. A plot of the gradient therefore shows the path:

# %% alt="A heat map of eight by eight: ones along a staircase from top left to bottom right, zeros elsewhere" caption="The gradient is 1 on the path and 0 everywhere else."
cells = costs.clone().requires_grad_()
alignment.shortest_path(cells).backward()
fig = figures.Figure(figsize=(5, 3), layout="constrained")
ax = fig.subplots()
ax.imshow(cells.grad, cmap="Greys", vmax=1.3, extent=(0.5, 8.5, 8.5, 0.5))
ax.set(
    title="gradient of the distance",
    xlabel="stripe of the low box",
    ylabel="stripe of the perfect box",
    xticks=range(1, 9),
    yticks=range(1, 9),
)
ax.grid(False)
fig

# %%
on_path = {tuple(cell) for cell in cells.grad.nonzero().tolist()}
assert on_path == set(alignment.trace_path(costs)), (
    "the gradient is non-zero on the path and nowhere else"
)
assert cells.grad.sum() == 15, (
    "the gradient sums to the number of cells, 8 + 8 - 1"
)

# %% [markdown]
# So training moves two stripes only if their cell is on the path: together for a positive, apart for a negative. Stripes without a match are
# in such cells too, but there $\tanh$ is flat, so they hardly move: its slope at a distance of 6 is below 0.01.

# %%
x = torch.tensor(6.0, requires_grad=True)
torch.tanh(x / 2).backward()
assert x.grad < 0.01, "the slope of the cost at a distance of 6 is below 0.01"

# %% [markdown]
# ## Play
#
# In JupyterLab the last cell of this section (not shown on the website) adds sliders to the figure below, for the two people and the shift:

# %% alt="Two different people with the path between their stripes: all lines are dotted, because no stripes match; the bar of the pair is higher than that of strangers" caption="Two people: no stripe has a match, and the distance is larger than the mean distance to strangers."
aligned_pair(
    picture(1),
    picture(7, down=1),
    ("person 1", "person 7, 1/8 low"),
    same=False,
)

# %% tags=["explorer"]
import ipywidgets
from IPython.display import display


@ipywidgets.interact(left=(0, 23), right=(0, 23), down=(-3.0, 4.0, 0.5))
def explore(left=1, right=7, down=1.0):
    one, two = picture(left), picture(right, 4, 1, down)
    display(
        aligned_pair(
            one,
            two,
            (f"person {left}", f"person {right}, {down:g}/8 low"),
            same=left == right,
        )
    )


# %% [markdown]
# ## What the paper says, and what we see
#
# :::{admonition} The paper says
# AlignedReID trains with the local distance and the global distance together and tests with the global feature alone. It reports that the
# global feature is better if it has been trained together with local ones. The original reproduction measured about one point more when the
# local distance was added at test time. AlignedReID++ (Luo et al. 2019) compares rigid and aligned stripes: on Market-1501's whole bodies
# 91.4 / 76.7 rigid and 91.9 / 78.8 aligned (rank-1 / mAP, step), on cropped bodies 52.8 / 38.1 and 70.1 / 55.3.
# :::
#
# With colours as features, rigid stripes tell a person from a stranger only while the box is off by less than two stripes; aligned stripes
# still do so at four. The [alignment study](13_alignment_study.ipynb) measures what alignment is worth with trained features, over the whole
# range of box errors.
#
# ## Which setting should I take?
#
# * Aligned stripes if most boxes may be off by a good part of a stripe: a person whose box is two stripes too low is almost as far away as a
#   stranger with rigid stripes, and clearly nearer with aligned ones.
# * Rigid stripes if all boxes fit: they need no path, and the distance of an image to itself is 0. [Chapter 13](13_alignment_study.ipynb) measures both.
# * A new threshold for each kind of distance: for two boxes that fit equally well an aligned distance is larger than a rigid one, because
#   it also includes the cells between the matches.
#
# ## Summary
#
# * Matching two stripes costs $d_{ij} = \tanh(\lVert x_i - y_j \rVert / 2)$: 0 if they are equal, close to 1 if they are unrelated.
# * The local distance is the cost of the cheapest path that moves only down and right; it is computed anti-diagonal by anti-diagonal for all
#   pairs at once.
# * The path bends by the shift of the box; rigid stripes cannot follow a shift.
# * A path of $2H - 1$ cells always pays for the cells between the matches. Compare local distances with each other, never with 0.
#
# Next: [chapter 5](05_losses.ipynb) turns these distances into losses.
#
# ## Exercises
#
# **1.** How many paths lead through a table of $H \times W$? Check your formula for 3 × 4 and 4 × 4.
#
# :::{dropdown} Solution
# A path has $H + W - 2$ steps, and $H - 1$ of them go down, so there are $\binom{H + W - 2}{H - 1}$ paths: 10 and 20.
# `len(list(all_paths(4, 4)))` gives 20.
# :::
#
# **2.** The path never goes up or left. Which images would need such a path, and why is this not a problem in practice?
#
# :::{dropdown} Solution
# An image that is upside down would need it. Its local distance from the upright one is far larger than that of the low box:
#
# ```python
# upright = colours(straight)[None]
# print(alignment.local_distances(upright, colours(straight[::-1])[None]))
# print(alignment.local_distances(upright, colours(low)[None]))
# ```
#
# The head of a standing person is always above the feet. A path that could move in any direction would match strangers who wear the same
# colours on different parts of the body.
# :::
#
# **3.** Is the local distance a metric? Test its symmetry, the distance of an image to itself, and whether turning both images upside down
# changes it.
#
# :::{dropdown} Solution
# `torch.allclose(alignment.local_distances(ours, theirs), alignment.local_distances(theirs, ours).T)` is true: a path through a table is also a path through the transposed table.
# `alignment.local_distances(ours, ours).diagonal()` is not 0, so the local distance is not a metric.
# `alignment.local_distances(ours.flip(1), theirs.flip(1))` equals the result without the flips, because each path is followed from the other end.
# :::
#
# **4.** Fill the table of least sums by equation {eq}`eq-align-path`. The function gets a table of costs as a list of rows and returns the
# table of sums in the same form. It has one mistake. Run the cell, read the answer and repair the function.

# %% tags=["nbval-check-output"]
from alignedreid_lib.exercises import check


def least_sums(costs):
    S = [list(row) for row in costs]
    for i in range(len(S)):
        for j in range(len(S[0])):
            before = []
            if i > 0:
                before.append(S[i - 1][j])
            if j > 0:
                before.append(S[i][j - 1])
            if i > 0 and j > 0:
                before.append(S[i - 1][j - 1])
            S[i][j] += min(before, default=0)
    return S


check("04_alignment", least_sums)

# %% [markdown]
# :::{dropdown} Solution
# ```python
# def least_sums(costs):
#     S = [list(row) for row in costs]
#     for i in range(len(S)):
#         for j in range(len(S[0])):
#             before = []
#             if i > 0:
#                 before.append(S[i - 1][j])
#             if j > 0:
#                 before.append(S[i][j - 1])
#             S[i][j] += min(before, default=0)
#     return S
#
#
# assert check("04_alignment", least_sums)
# ```
# :::
