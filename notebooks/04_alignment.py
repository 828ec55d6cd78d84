# %% [markdown]
# # 04 Alignment
#
# Two boxes of one person rarely fit alike. This chapter compares people stripe by stripe and lets a shortest path decide which
# stripe belongs to which.
#
# **What you will hold**
#
# * the shortest path through a table of 3 × 4 numbers: every way listed, the best one found by hand, by a loop, by the library;
# * that path drawn over two pictures of one person, one box too low: it bends by as much as the box is off;
# * the price of a shift, for stripes compared rigidly and for stripes aligned.
#
# **Time** on two cores: 20 seconds. **Hardware**: any laptop, no GPU. Nothing is trained here: a stripe is described by its
# colour, so that every distance can be checked by eye.

# %% tags=["parameters"]
# Parameters: the people to draw
seed = 1

# %%
import dataclasses

import numpy as np
import torch
from matplotlib.patches import ConnectionPatch

from alignedreid_lib import alignment, figures, runs, synthetic
from alignedreid_lib.synthetic import pedestrians
from alignedreid_lib.synthetic.pedestrians import TRUE_BOX, View
from alignedreid_lib.training import TrainConfig

settings = runs.read_parameters(TrainConfig, globals())

# %% [markdown]
# ## The problem in a picture
#
# A detector draws a box around each person it sees, and errs. The generator of [chapter 1](01_datasets.ipynb) can draw one moment in
# any box, so we know by how much each box is off: here by none, by an eighth of the person's height, by two eighths.

# %%
cameras = synthetic.sample_cameras(6, settings.seed)


def moment(person, camera, number):
    """One moment of a person before a camera, with nothing in between."""
    view = View.sample(np.random.default_rng([settings.seed, person, number]), cameras[camera])
    return dataclasses.replace(view, obstacle="none")


def picture(person, camera=1, number=0, down=0.0):
    """uint8 [128, 64, 3]; the box hangs `down` eighths of its height too low."""
    box = TRUE_BOX._replace(top=TRUE_BOX.top - down * TRUE_BOX.height / 8)
    return pedestrians.draw(
        synthetic.sample_person(person, settings.seed), moment(person, camera, number), box
    )


# %% label="fig-boxes" alt="The same person in three boxes, the second and third hanging lower: the head is cut off and the ground shows below. Lines cut each picture into eight stripes"
def stripes_of(ax, pixels, title):
    """A picture with its eight stripes."""
    ax.imshow(pixels, extent=(0, 4, 8.5, 0.5))
    ax.hlines(np.arange(1.5, 8), 0, 4, color="white", linewidth=1)
    ax.set(title=title, xticks=[], yticks=range(1, 9))
    ax.grid(False)


fig = figures.Figure(figsize=(5, 3.2), layout="constrained")
for k, ax in enumerate(fig.subplots(1, 3)):
    stripes_of(ax, picture(1, down=k), f"{k}/8 too low" if k else "a perfect box")
fig

# %% [markdown]
# In [the figure](#fig-boxes) stripe 3 is the shirt in the first picture and the hip in the last. Whoever compares stripe 3 with stripe 3 compares a shirt with
# trousers, and finds two people where there is one.

# %% [markdown]
# ## What it costs to match two stripes
#
# Let $x_i$ be the feature of stripe $i$ of one picture and $y_j$ that of stripe $j$ of the other, and
# $\lVert x_i - y_j \rVert$ their euclidean distance. Matching them costs
#
# $$
# d_{ij} = \frac{e^{\lVert x_i - y_j \rVert} - 1}{e^{\lVert x_i - y_j \rVert} + 1} = \tanh \frac{\lVert x_i - y_j \rVert}{2},
# $$ (eq-align-cost)
#
# between 0 for equal stripes and 1 for stripes that have nothing in common.
#
# :::{admonition} The paper says
# The left form is AlignedReID's eq. 1 (Zhang et al. 2017).
# :::
#
# The right form is the same number, and does not overflow:

# %%
far = torch.tensor(1000.0)
assert torch.isnan((far.exp() - 1) / (far.exp() + 1)), "infinity over infinity is not a number"
assert torch.tanh(far / 2) == 1, "the same quantity, written safely"

# %% [markdown]
# In real use $x_i$ is the local feature of [chapter 3](03_model.ipynb). Here it is the mean red, green and blue of the middle half of the stripe's
# width, scaled to 0 to 12. The range matters: $\tanh$ has to see differences of a few units to call stripes different.


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
        assert torch.isclose(costs[i, j], torch.tanh(difference.norm() / 2), atol=1e-3), (
            "the library computes the equation"
        )

# %% label="fig-costs" alt="A heat map of eight by eight costs beside the two pictures: dark cells run parallel to the diagonal, two rows below it"
fig = figures.Figure(figsize=(7, 3.2), layout="constrained")
left, middle, right = fig.subplots(1, 3, width_ratios=(1, 2.4, 1))
stripes_of(left, straight, "perfect box")
stripes_of(right, low, "2/8 too low")
image = middle.imshow(costs, vmin=0, vmax=1, extent=(0.5, 8.5, 8.5, 0.5))
middle.set(
    title="cost of each pair", xlabel="stripe of the low box", ylabel="stripe of the perfect box"
)
middle.grid(False)
fig.colorbar(image, ax=middle)
fig

# %% [markdown]
# The dark cells of [the heat map](#fig-costs) run parallel to the diagonal, two rows below it: stripe 3 matches stripe 1, stripe 4 matches stripe 2 (less well), and so on down to
# the shoes. Rows 1 and 2, head and shoulders, have no partner.

# %% [markdown]
# ## The shortest path, by hand
#
# Which stripe belongs to which? Body parts keep their order: what is above stays above. So we look for a way from the upper left cell
# to the lower right one in steps down and right, and take the one whose costs sum to least. A table of 3 × 4, with whole numbers:

# %%
table = torch.tensor([[1.0, 9, 9, 9], [1, 2, 9, 9], [9, 3, 1, 2]])

# %% [markdown]
# Two steps down and three to the right, in any order: $\binom{5}{2} = 10$ ways. All of them:

# %% tags=["nbval-check-output"]
from itertools import combinations


def all_paths(height, width):
    """Every way down and right, as a list of cells."""
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
assert len(sums) == 10, "five steps, two of them down"

# %% [markdown]
# The best sums to 10; we call the sum a path's *length*, too. Listing works for 3 × 4; two pictures of 8 stripes have $\binom{14}{7} = 3432$ ways. There is a shorter way to find the
# shortest way: whoever stands in a cell came from above or from the left, so the least sum $S_{ij}$ up to it is
#
# $$
# S_{ij} = d_{ij} + \min\left(S_{(i-1)j},\; S_{i(j-1)}\right), \qquad S_{11} = d_{11},
# $$ (eq-align-path)
#
# with only one choice in the first row and the first column. The *local distance* of two pictures is $S_{HH}$.
#
# :::{admonition} The paper says
# This is AlignedReID's eq. 2; alignment needs no extra labels, only the order of the stripes.
# :::
#
# On paper, row by row: the first row sums up to 1, 10, 19, 28. In the second, $1 + 1 = 2$; $2 + \min(10, 2) = 4$;
# $9 + \min(19, 4) = 13$; $9 + \min(28, 13) = 22$. In the third, $9 + 2 = 11$; $3 + \min(4, 11) = 7$; $1 + \min(13, 7) = 8$; $2 + \min(22, 8) = 10$.


# %%
def shortest_path_loop(costs):
    """The same, cell by cell; returns the table of sums."""
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
assert S[-1, -1] == min(sums.values()) == 10, "the loop finds the best of all ten ways"
assert alignment.shortest_path(table) == 10, "and so does the library"
path = alignment.trace_path(table)
assert sums[tuple(path)] == 10, "the way itself, walked back from the end"

# %% label="fig-tables" alt="Three tables of 3 by 4: the costs with the shortest path marked, the sums, and the order of computation, where cells of one anti-diagonal have one number"
order = np.add.outer(np.arange(3), np.arange(4)) + 1
panels = {"costs, and the path": table.int(), "least sums": S.int(), "computed in step": order}
fig = figures.Figure(figsize=(8, 2.3), layout="constrained")
for ax, (title, numbers) in zip(fig.subplots(1, 3), panels.items(), strict=True):
    ax.imshow(numbers, cmap="Blues", vmax=2.2 * float(numbers.max()))
    for i in range(3):
        for j in range(4):
            ax.text(j, i, int(numbers[i, j]), ha="center", va="center")
    ax.set(title=title, xticks=[], yticks=[])
    ax.grid(False)
fig.axes[0].plot(
    [j for _, j in path], [i for i, _ in path], color=figures.VERMILLION, linewidth=7, alpha=0.45
)
fig

# %% [markdown]
# The right table of [the figure](#fig-tables) is how the library computes: all cells of an *anti-diagonal* depend on the one before only, so they are done at once, for
# all pairs of people at once. A table of 8 × 8 takes 15 steps instead of 64.

# %% [markdown]
# ## The path over two people
#
# The same two pictures as above, one box two eighths too low. A line joins each pair of stripes that the path visits; it is drawn full
# where they match, which here means a cost below 0.3.


# %%
def draw_path(axes, costs, path):
    """Lines between the stripes of two pictures that a path joins."""
    for i, j in path:
        good = costs[i, j] < 0.3
        line = ConnectionPatch(
            (4, i + 1), (0, j + 1), "data", "data", axesA=axes[0], axesB=axes[1],
            color=figures.BLUE if good else figures.GREY, linewidth=2.5 if good else 0.9, linestyle="-" if good else ":",
        )  # fmt: skip
        axes[0].figure.add_artist(line)


def aligned_pair(one, two, titles):
    """Two pictures with the path between them, and the path in the table of costs."""
    costs = alignment.stripe_distances(colours(one), colours(two))
    path = alignment.trace_path(costs)
    fig = figures.Figure(figsize=(7.5, 3.4), layout="constrained")
    left, right, heat = fig.subplots(1, 3, width_ratios=(1, 1, 2))
    fig.get_layout_engine().set(wspace=0.15)
    right.yaxis.tick_right()
    stripes_of(left, one, titles[0])
    stripes_of(right, two, titles[1])
    draw_path((left, right), costs, path)
    image = heat.imshow(costs, vmin=0, vmax=1, extent=(0.5, 8.5, 8.5, 0.5))
    heat.plot(
        [j + 1 for _, j in path],
        [i + 1 for i, _ in path],
        "o-",
        color=figures.VERMILLION,
        linewidth=2.5,
    )
    heat.set(
        title=f"the path: {float(alignment.shortest_path(costs)):.2f}",
        xlabel="right picture",
        ylabel="left picture",
    )
    heat.grid(False)
    fig.colorbar(image, ax=heat)
    return fig


# %% alt="Two pictures of one person with five full lines, each from a stripe of the left to the stripe two higher in the right, and beside them the costs with a path that first goes down two rows and then along the dark cells"
aligned_pair(straight, low, ("perfect box", "2/8 too low"))

# %% [markdown]
# The path walks down the first column while the head of the left picture finds nothing on the right, then follows the dark cells in
# stairs, and ends along the last row, where the right picture shows ground. Dotted lines are the stairs' steps between two matches, the
# stripes without a partner, and the pair of 4 and 2, whose cost is a little above 0.3.
#
# Does it bend by exactly the shift? We know the shift, so we can ask: for a box $k$ stripes too low, every pair
# $(i + k, i)$ must be on the path.

# %%
for k in range(4):
    path = alignment.trace_path(
        alignment.stripe_distances(colours(straight), colours(picture(1, down=k)))
    )
    assert {(i + k, i) for i in range(8 - k)} <= set(path), "the path bends by the shift"

# %% [markdown]
# Two moments, two cameras, and a box that is off: the costs are less clear. Few pairs cost less than 0.3, drawn full, and yet
# all seven pairs $(i + 1, i)$ are on the path.

# %% alt="The same person before two cameras, the second box one eighth too low: three full lines, two of them from a stripe to the one above it in the other picture"
aligned_pair(picture(11, 1, 0), picture(11, 4, 1, down=1), ("camera 1", "camera 4, 1/8 too low"))

# %% [markdown]
# ## Rigid or aligned
#
# The alternative is to compare stripe 1 with stripe 1, stripe 2 with stripe 2, and sum: *rigid* stripes. It costs nothing to compute, and
# it is what alignment has to beat. The library has both, for all pairs of two groups of people at once:

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
        assert torch.isclose(aligned[m, n], shortest_path_loop(pair)[-1, -1], atol=1e-2), (
            "the last of the loop's sums"
        )
        assert torch.isclose(rigid[m, n], pair.diagonal().sum(), atol=1e-2), "the diagonal, summed"

# %% [markdown]
# Now the experiment. Each of 24 people is compared with themselves in a box that hangs lower and lower, and, as a yardstick, with another
# person in a perfect box.

# %%
downs = np.arange(0, 4.1, 0.5)
group = range(24)
first = torch.stack([colours(picture(p, p % 6)) for p in group])
lower = [torch.stack([colours(picture(p, p % 6, 0, down)) for p in group]) for down in downs]
others = ~torch.eye(len(group), dtype=torch.bool)
curves, yardsticks = {}, {}
for name, how in (("rigid", False), ("aligned", True)):
    curves[name] = torch.stack([alignment.local_distances(first, y, how).diagonal() for y in lower])
    yardsticks[name] = alignment.local_distances(first, first, how)[others]

# %% label="fig-shift" alt="Two panels over the shift. Rigid: the distance to oneself rises within two stripes to the level of strangers. Aligned: it rises slowly, in teeth, and stays below strangers over all four stripes"
fig = figures.Figure(figsize=(8, 2.8), layout="constrained")
for ax, (name, own) in zip(fig.subplots(1, 2), curves.items(), strict=True):
    ax.plot(downs, own.mean(1), "o-", color=figures.BLUE, label="the same person, box too low")
    ax.fill_between(
        downs, *own.quantile(torch.tensor([0.25, 0.75]), dim=1), color=figures.BLUE, alpha=0.2
    )
    middle = float(yardsticks[name].mean())
    ax.axhline(
        middle, color=figures.VERMILLION, linestyle="--", label="strangers, perfect boxes (mean)"
    )
    ax.axhspan(
        *yardsticks[name].quantile(torch.tensor([0.25, 0.75])), color=figures.VERMILLION, alpha=0.15
    )
    ax.set(title=f"{name} stripes", xlabel="stripes too low", ylabel="distance", ylim=(0, None))
fig.axes[0].legend(loc="lower right")
fig

# %% [markdown]
# In [the figure](#fig-shift) lines are means, bands the middle half. Rigidly compared, a person whose box hangs two stripes too low is as far from themselves as a stranger
# is. Aligned, the distance rises slowly, and four stripes off, with half the person gone, it is still below the strangers'. It rises in
# teeth: a shift by half a stripe costs more than one by a whole, because then no stripe fits another exactly.
#
# Look also at a shift of 0. The aligned distance of a picture to itself is not 0: between two matches the path steps over a
# cell beside the diagonal and pays for it. Everybody pays about the same there, so it does not decide.

# %%
assert torch.allclose(curves["rigid"][0], torch.zeros(24), atol=0.1), (
    "a picture is no way from itself"
)
assert (curves["aligned"][0] > 1).all(), "unless the path has to step aside seven times"
shift = list(downs).index(2)
assert curves["rigid"][shift].mean() > 0.9 * yardsticks["rigid"].mean(), (
    "rigid: two stripes off is like a stranger"
)
assert curves["aligned"][shift].mean() < 0.75 * yardsticks["aligned"].mean(), (
    "aligned: still oneself"
)

# %% [markdown]
# ### Slide the box
#
# Drag the box over the street, or move it with the arrow keys, and compare both distances with those of strangers. Press *Step* to fill the table
# with the least sums, one anti-diagonal at a time, and touch a cell to see how its sum is computed.

# %% tags=["interactive"] alt="Two pictures of one person in different boxes, the path between their stripes, and the path in the table of costs"
shifts = np.arange(-3, 4.1, 0.5).tolist()
boxes = [picture(1, down=shift) for shift in shifts]
figures.slide_the_box(
    boxes,
    torch.stack([colours(box) for box in boxes]),
    shifts,
    (float(yardsticks["rigid"].mean()), float(yardsticks["aligned"].mean())),
    full=12.0,
    static=aligned_pair(straight, low, ("perfect box", "2/8 too low")),
    words="One person in two boxes, with the path between their stripes and in the costs",
)

# %% [markdown]
# ## What the gradient sees
#
# In training the path is part of the loss ([chapter 5](05_losses.ipynb)). The least sum changes with the cells of the path, one for one,
# and not at all with the others: the gradient draws the path.

# %% alt="A heat map of eight by eight: ones on a staircase from the upper left to the lower right, noughts elsewhere"
cells = costs.clone().requires_grad_()
alignment.shortest_path(cells).backward()
fig = figures.Figure(figsize=(2.8, 2.6), layout="constrained")
ax = fig.subplots()
ax.imshow(cells.grad, cmap="Blues", extent=(0.5, 8.5, 8.5, 0.5))
ax.set(title="gradient of the distance", xlabel="stripe of the low box", ylabel="perfect box")
ax.grid(False)
fig

# %%
on_path = {tuple(cell) for cell in cells.grad.nonzero().tolist()}
assert on_path == set(alignment.trace_path(costs)), "one on the path"
assert cells.grad.sum() == 15, "nought beside it: 8 + 8 - 1 cells"

# %% [markdown]
# So only stripes that meet on the path are moved: together for a positive, apart for a negative. Stripes without a partner lie on
# the path too, but there $\tanh$ is flat, so they hardly move: its slope at a distance of 6 is below 0.01.

# %%
x = torch.tensor(6.0, requires_grad=True)
torch.tanh(x / 2).backward()
assert x.grad < 0.01, "stripes with nothing in common hardly move each other"

# %% [markdown]
# ## Play
#
# In JupyterLab the cell below (left out of the site) puts sliders to the picture: two people and a shift. The figure is this one:

# %% alt="Two different people with the path between their stripes: few full lines"
aligned_pair(picture(1), picture(7, down=1), ("person 1", "person 7, 1/8 too low"))

# %% tags=["explorer"]
import ipywidgets
from IPython.display import display


@ipywidgets.interact(left=(0, 30), right=(0, 30), down=(-3.0, 4.0, 0.5))
def explore(left=1, right=7, down=1.0):
    one, two = picture(left), picture(right, 4, 1, down)
    display(aligned_pair(one, two, (f"person {left}", f"person {right}, {down:g}/8 low")))


# %% [markdown]
# ## What the paper says, and what we see
#
# :::{admonition} The paper says
# AlignedReID trains with the local distance beside the global one and tests with the global feature alone, and finds it better for having been
# trained beside local ones. The original reproduction measured about one point more from adding the local distance at the test. AlignedReID++ (Luo et al. 2019)
# compares rigid and aligned stripes: on Market-1501's whole bodies 91.4 / 76.7 rigid and 91.9 / 78.8 aligned (rank-1 / mAP, step), on cropped
# bodies 52.8 / 38.1 and 70.1 / 55.3.
# :::
#
# With colours for features, rigid stripes tell a person from a stranger only while the box is off by less than two stripes; aligned ones
# still do at four. What it is worth with trained features, over the whole range of box errors, is measured in the
# [alignment study](13_alignment_study.ipynb).
#
# ## Summary
#
# * A stripe pair costs $d_{ij} = \tanh(\lVert x_i - y_j \rVert / 2)$: 0 if equal, 1 if unrelated.
# * The local distance is the least sum of costs on a way down and right; anti-diagonals compute it for all pairs at once.
# * The path bends by the shift of the box; rigid stripes cannot.
# * A path of $2H - 1$ cells always pays for its steps beside the matches: compare local distances with each other, never with 0.
#
# Next: [chapter 5](05_losses.ipynb) makes losses of these distances.
#
# ## Exercises
#
# **1.** How many ways are there through a table of $H \times W$? Check your formula for 3 × 4 and 4 × 4.
#
# :::{dropdown} Solution
# Of $H + W - 2$ steps choose the $H - 1$ that go down: $\binom{H + W - 2}{H - 1}$, so 10 and 20:
# `len(list(all_paths(4, 4)))` gives 20.
# :::
#
# **2.** The path never goes up or left. Which pictures would need it, and why does nobody miss it?
#
# :::{dropdown} Solution
# A picture upside down: `alignment.local_distances(colours(straight)[None], colours(straight[::-1])[None])` is far larger than
# `alignment.local_distances(colours(straight)[None], colours(low)[None])`. Standing people keep their heads above their feet, and a path that could
# go anywhere would match strangers by the colours they share in different places.
# :::
#
# **3.** Is the local distance a distance? Test symmetry, the distance to oneself, and whether turning both pictures upside down changes it.
#
# :::{dropdown} Solution
# `torch.allclose(alignment.local_distances(ours, theirs), alignment.local_distances(theirs, ours).T)` is true: a way in a table is a way in the turned
# table. `alignment.local_distances(ours, ours).diagonal()` is not 0, so it is no metric. `alignment.local_distances(ours.flip(1), theirs.flip(1))` is equal to
# the one without the flips, walked from the other end.
# :::
