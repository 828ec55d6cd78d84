# %% [markdown]
# # 14 A strong baseline
#
# The recipe of the previous chapters is from 2018. A year later, papers added a list of small changes to the training of the same ResNet-50
# and reached an mAP more than ten points higher. This chapter derives each change, measures its cost, and adds the changes one at a time.

# %% label="fig-published-ladder" caption="In the published scores erasing and BNNeck gain most." alt="mAP over seven rungs, rising from 74.0 to 85.9; erasing and BNNeck rise most. Dashed lines: AlignedReID++ at 79.1 and AGW at 88.2"
import csv

from alignedreid_lib import figures, runs

with open(
    runs.resolve("notebooks/results/published_strong.csv"), newline=""
) as file:
    published = list(csv.DictReader(file))
bag = [row for row in published if row["recipe"] == "bag of tricks"]

fig = figures.Figure(figsize=(7, 3.2), layout="constrained")
ax = fig.subplots()
names = [row["rung"] for row in bag]
ax.plot(
    names,
    [float(row["mAP"]) for row in bag],
    "o-",
    color=figures.BLACK,
    label="bag of tricks, a rung at a time",
)
for recipe, how, colour in (
    ("AlignedReID++", ", global + aligned", figures.PURPLE),
    ("AGW", "", figures.GREEN),
):
    (row,) = [row for row in published if row["recipe"] == recipe]
    line = {"linestyle": "--", "color": colour, "label": recipe + how}
    ax.axhline(float(row["mAP"]), **line)
ax.set(ylabel="mAP (step), %", title="Published, Market-1501, ResNet-50")
ax.tick_params(axis="x", rotation=20)
ax.legend()
fig

# %% [markdown]
# **What you will learn**
#
# * what each of nine changes computes, by hand and with the library, and which setting turns it on;
# * what each costs in time and memory;
# * how to test which of them help, and whether the local, aligned branch still adds something to all of them.
#
# **Time** on two cores: a minute, because the results of the trainings are read from files; three quarters of an hour on one core to train
# the study on drawn people again. **Hardware**: any laptop, no GPU.

# %% tags=["parameters"]
# Parameters: seeds of the study's trainings; () reads the committed results
seeds = ()
long_epochs = 24
run_dir = "runs/strong_study"
# the training of the lowest rung
data_root = "data/synthetic"
dataset = "market1501"
height = 64
width = 32
ids_per_batch = 8
images_per_id = 4
backbone = "resnet18.layer3"
weights = None
global_weight = 1.0
id_weight = 1.0
margin = 0.3
base_lr = 1e-3
total_epochs = 8
decay_at_epoch = 5
precision = "auto"

# %% tags=["hide-input"]
import dataclasses
import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from IPython.display import Markdown

from alignedreid_lib import (
    book,
    datasets,
    devices,
    evaluation,
    figures,
    losses,
    runs,
    training,
)
from alignedreid_lib.batches import erasing, images
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import full_run
from alignedreid_lib.evaluation.scores import ScoreTable
from alignedreid_lib.model import build_backbone
from alignedreid_lib.model.pooling import generalised_mean
from alignedreid_lib.training import centres


@dataclass(frozen=True)
class Study:
    seeds: tuple[runs.SEED, ...] = ()
    long_epochs: runs.between(2, 2**31 - 1) = 24
    run_dir: str = "runs/strong_study"

    def __post_init__(self):
        runs.check_types(self)
        different = len(set(self.seeds)) == len(self.seeds)
        runs.check_rules(self, {"seeds": (different, "different ones")})


config, study = runs.read_several(globals(), training.TrainConfig, Study)

# %% [markdown]
# ## A ladder of changes
#
# Luo et al. (CVPR-W 2019), *bag of tricks*, published their scores as a *ladder*: each *rung* is a training that adds one change to the
# rung below, and everything else stays the same. [The first figure](#fig-published-ladder) shows it with two other published scores, of
# AlignedReID++ and of AGW (Ye et al. 2021) as FastReID trains it (He et al. 2020), for ResNet-50 at 256 × 128 on Market-1501. All use the
# *step* definition.

# %%
assert len(bag) == 7, "a baseline and six tricks were published"

# %% [markdown]
# Together the rungs of [the figure](#fig-published-ladder) add twelve points of mAP, and none of them makes the network noticeably larger.
# Each number comes from one training; [chapter 10](10_reproduction.ipynb) explains how little one training proves.
#
# ## The learning rate: warm-up and cosine
#
# Adam's first steps are the least reliable ones, because its moments are means over few gradients, and such steps can spoil weights from
# ImageNet. *Warm-up* begins with a small rate: in epoch $e$ of the first $w$ epochs the rate is $e / (w + 1)$ of the base rate $\eta_0$.
# From epoch $s$ to the last epoch $T$ the rate falls along half a cosine (Loshchilov and Hutter 2017, without restarts). With $x = (e + 1 -
# s) / (T + 1 - s)$, which rises to 1 in the last epoch,
#
# $$ \eta(e) = \eta_0 \left( f + (1 - f)\, \frac{1 + \cos \pi x}{2} \right), \qquad f = 0.001. $$ (eq-cosine)
#
# Because of $f$ the rate of the last epoch is a thousandth of the base rate, as with the exponential schedule of [chapter
# 6](06_training.ipynb). By hand for $T = 12$, $w = 2$ and $s = 3$: the first two epochs have 1/3 and 2/3 of the base rate. In epoch 7, $x$ is
# 5/10 and the cosine is 0, so the rate is $0.001 + 0.999 / 2 = 0.5005$ of the base rate.

# %% tags=["nbval-check-output"]
settings = training.TrainConfig(
    schedule="cosine",
    base_lr=1.0,
    total_epochs=12,
    decay_at_epoch=3,
    warmup_epochs=2,
)
by_library = [training.learning_rate(settings, e) for e in range(1, 13)]
by_loop = []
for e in range(1, 13):
    if e < 3:
        by_loop.append(e / 3)
    else:
        x = (e + 1 - 3) / (12 + 1 - 3)
        by_loop.append(0.001 + 0.999 * (1 + math.cos(math.pi * x)) / 2)
print("epochs 1, 2, 7, 12:", *(f"{by_loop[e - 1]:.4f}" for e in (1, 2, 7, 12)))
assert all(map(math.isclose, by_library, by_loop)), (
    "the library's rates equal the loop's"
)

# %% label="fig-three-schedules" caption="A warm-up begins with a small rate; the three schedules differ in how they end." alt="Learning rate over 120 epochs: the exponential schedule is constant to 60 and falls steeply; the staircase with warm-up has steps at 40 and 70; the cosine with warm-up falls smoothly"
schedules = {
    "exponential": {"decay_at_epoch": 61},
    "staircase, warm-up": {
        "schedule": "staircase",
        "staircase_at_epochs": (40, 70),
        "warmup_epochs": 10,
    },
    "cosine, warm-up": {
        "schedule": "cosine",
        "decay_at_epoch": 11,
        "warmup_epochs": 10,
    },
}
fig = figures.Figure(figsize=(6, 2.8), layout="constrained")
ax = fig.subplots()
for (name, change), style, colour in zip(
    schedules.items(), ("-", "--", "-."), figures.NEUTRAL[:3], strict=True
):
    given = training.TrainConfig(total_epochs=120, base_lr=1.0, **change)
    rates = [training.learning_rate(given, e) for e in range(1, 121)]
    ax.plot(range(1, 121), rates, style, color=colour, label=name)
ax.set(xlabel="epoch", ylabel="share of the base rate")
ax.legend()
fig

# %% [markdown]
# The settings are `warmup_epochs` ($w$), `schedule="cosine"` and `decay_at_epoch` ($s$). [The figure](#fig-three-schedules) shows three
# schedules of the same length: the exponential one stays at the full rate for half of the training; with the cosine the rate falls from the
# end of the warm-up to the last epoch.
#
# ## Padded crops and random erasing
#
# Both change the training images at random, so that the network hardly ever sees the same image twice. They are applied after the mirror to
# the resized image of $h \times w$ pixels.
#
# * A *padded crop* adds a border of $p$ black pixels on each side and then takes a random crop of $h \times w$ pixels. It moves the image
#   by up to $p$ pixels, like a small error of the box ([chapter 13](13_alignment_study.ipynb)).
# * *Random erasing* (Zhong et al. 2020) covers a rectangle with the mean colour, with a probability of one half. The network cannot rely on
#   a single part of the body, because it may be covered.
#
# The rectangle has a share $a$ of the area, drawn uniformly from 0.02 to 0.4, and a ratio $r$ of height to width, drawn from 0.3 to 1/0.3.
# So its height and width are
#
# $$ h_e = \sqrt{a\,h\,w\,r}, \qquad w_e = \sqrt{a\,h\,w / r} $$ (eq-erasing)
#
# rounded; a rectangle that does not fit into the image is drawn again. We draw $\ln r$ uniformly, so that tall rectangles are as frequent
# as wide ones. Rectangles are placed on the part of the image that is not black border, because erasing the border would teach nothing. By
# hand for 64 × 32 pixels, a tenth of the area and a ratio of 2: the area is 204.8, so $h_e = \sqrt{409.6} \approx 20$ and $w_e =
# \sqrt{102.4} \approx 10$.

# %% tags=["nbval-check-output"]
area, ratio = 0.1 * 64 * 32, 2
print("a rectangle of", round(math.sqrt(area * ratio)), "x", end=" ")
print(round(math.sqrt(area / ratio)))

# %% [markdown]
# The next cell applies a shift and a rectangle to one image in a loop over all pixels. The library does the same for a batch; both use the
# same random decisions:


# %%
def cover(image, shift, rectangle):
    """A padded crop and an erased rectangle, pixel by pixel."""
    result = torch.zeros_like(image)
    top, left, h_e, w_e = rectangle
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            from_y, from_x = y + shift[0], x + shift[1]
            if 0 <= from_y < image.shape[1] and 0 <= from_x < image.shape[2]:
                result[:, y, x] = image[:, from_y, from_x]
            if top <= y < top + h_e and left <= x < left + w_e:
                result[:, y, x] = torch.tensor(erasing.MEAN_COLOUR)
    return result


folder = book.dataset_folder()
people = datasets.open_dataset(folder, "trainval")
image = images.resize(images.decode(people.paths[0]), (64, 32))
rule = {"mirror_prob": 0.0, "pad": 3, "erase_prob": 0.5}
generator = torch.Generator().manual_seed(3)
batch = images.augment([image] * 16, (64, 32), generator, **rule)

# the same draws again: mirror and crop decisions come first
generator = torch.Generator().manual_seed(3)
torch.rand(16, generator=generator), torch.rand(16, generator=generator)
shifts = erasing.draw_shifts(16, 3, generator)
rectangles = erasing.draw_rectangles(shifts, (64, 32), 0.5, generator)
by_loop = [
    cover(image, shift, rectangle)
    for shift, rectangle in zip(
        shifts.tolist(), rectangles.tolist(), strict=True
    )
]
assert torch.equal(batch, torch.stack(by_loop)), (
    "the library covers the pixels that the loop covers"
)

# %% label="fig-erased" caption="Each view has its own shift and its own rectangle." alt="One person sixteen times: moved by a few pixels with black borders, and in about half of the images a grey rectangle covers a body part"
figures.contact_sheet(list(batch), columns=8)

# %% [markdown]
# [The figure](#fig-erased) shows sixteen random views of one image. All random numbers are drawn on the CPU before any view is computed. So
# the views are the same with several threads, on a GPU that computes the whole batch at once, and in a resumed run. The settings are `pad`
# ($p$; 10 for 256 × 128, and proportionally less for smaller images) and `erase_prob`.
#
# ## Label smoothing
#
# The cross entropy with a target of 1 for the right person is never 0: it becomes smaller and smaller as the right logit grows to infinity.
# *Label smoothing* (Szegedy et al. 2016) takes a share $\varepsilon$ of the target and divides it equally among all people. Let $K$ be the
# number of training people (in this section only), $y$ the right one, $p_k$ the predicted probability of person $k$, and let $[k = y]$ be 1
# if $k$ is the right person and 0 otherwise:
#
# $$ L = -\sum_{k=1}^{K} t_k \ln p_k, \qquad t_k = (1 - \varepsilon) [k = y] + \frac{\varepsilon}{K}. $$ (eq-smoothing)
#
# The loss is smallest if $p_k = t_k$ for all $k$, so the best difference between the right logit and the others is finite, $\ln(t_y /
# t_k)$. By hand for the logits 2, 1 and 0 of three people, the first of whom is right, and $\varepsilon = 0.3$: the targets are 0.8, 0.1
# and 0.1. The logarithm of $e^2 + e + 1 = 11.11$ is 2.408, and $-\ln p_k$ is 2.408 minus the logit of person $k$: 0.408, 1.408 and 2.408.
# So the loss is $0.8 \cdot 0.408 + 0.1 \cdot 1.408 + 0.1 \cdot 2.408 = 0.708$. Without smoothing it is 0.408.

# %% tags=["nbval-check-output"]
logits, label, share = [2.0, 1.0, 0.0], 0, 0.3
log_sum = math.log(sum(math.exp(z) for z in logits))
loss = 0.0
for k, z in enumerate(logits):
    target = (1 - share) * (k == label) + share / len(logits)
    loss -= target * (z - log_sum)
print(f"smoothed {loss:.3f}, plain {log_sum - logits[label]:.3f}")
print(f"best difference of the logits: ln 8 = {math.log(0.8 / 0.1):.2f}")

# %%
given = torch.tensor([logits]), torch.tensor([label])
assert math.isclose(
    losses.identification(*given, smoothing=share), loss, rel_tol=1e-6
), "the library's smoothed loss equals the loop's"
best = torch.tensor([[math.log(8.0), 0.0, 0.0]]).requires_grad_()
losses.identification(best, given[1], smoothing=share).backward()
assert best.grad.abs().max() < 1e-6, "no gradient is left at ln 8"

# %% [markdown]
# The setting is `label_smoothing`; 0.1 is usual.
#
# ## Last stride 1
#
# The last stage of a ResNet halves the feature map. With `last_stride=1` it does not ([chapter 3](03_model.ipynb)). This is possible for many
# other networks, too: the library sends a blank image through the backbone, finds the layers after which the feature map first has its final
# height, and sets their stride to 1. No parameter changes, so files of weights still fit.

# %% tags=["nbval-check-output"]
for name in ("resnet18", "mobilenet_v2", "shufflenet_v2_x0_5"):
    sizes = []
    for stride in (2, 1):
        base = build_backbone(name, last_stride=stride).eval()
        with torch.no_grad():
            sizes.append(tuple(base(torch.zeros(1, 3, 128, 64)).shape[2:]))
    print(f"{name:<20} map {sizes[0]} with stride 2, {sizes[1]} with 1")
    assert sizes[1] == (2 * sizes[0][0], 2 * sizes[0][1]), "twice the size"
try:
    build_backbone("convnext_tiny", last_stride=1)
except InputError as error:
    print(error)

# %% [markdown]
# The last stage then has four times as many cells to compute and to keep, and there are twice as many stripes to align.
#
# ## A neck between two losses
#
# The triplet loss uses distances between features; the classifier multiplies features by weights. The two need different features. If one
# vector is added to all features, no distance changes, so the triplet loss does not care where the features are. The classifier does: which
# person it predicts depends mostly on the direction of a feature, seen from 0, and a feature twice as long gives the same person with more
# certainty. *BNNeck* (Luo et al., CVPR-W 2019) gives each its own features: the triplet loss uses the feature $f$, and the classifier and
# the search use $\hat f$ with
#
# $$ \hat f_c = \gamma_c\, \frac{f_c - \mu_c}{\sqrt{\sigma_c^2 + \epsilon}}, $$ (eq-neck)
#
# a batch norm of each channel $c$ with the mean $\mu_c$, the variance $\sigma_c^2$ and a learned scale $\gamma_c$, but without a shift. The
# classifier has no bias. Its boundaries then go through 0, which is the mean of all features, and it tells people apart by their
# directions. By hand, with $\gamma_c = 1$, for one channel and four images with features 1, 3, 5 and 7: the mean is 4, the variance 5, so
# $\hat f = (-3, -1, 1, 3) / \sqrt 5 = (-1.342, -0.447, 0.447, 1.342)$.

# %% tags=["nbval-check-output"]
features = [1.0, 3.0, 5.0, 7.0]
mean = sum(features) / 4
variance = sum((f - mean) ** 2 for f in features) / 4
by_hand = [(f - mean) / math.sqrt(variance + 1e-5) for f in features]
print([f"{f:.3f}" for f in by_hand])
neck = torch.nn.BatchNorm2d(1)
by_library = neck(torch.tensor(features).view(4, 1, 1, 1)).flatten()
assert torch.allclose(by_library, torch.tensor(by_hand), atol=1e-6), (
    "the library's neck is this batch norm"
)

# %% [markdown]
# In training mode a network with a neck returns the features before the neck, in evaluation mode those after it, so every test of a network
# uses the right ones. Which features do the triplet loss, the classifier and the test get? We check with a small network:

# %%
strong = dataclasses.replace(
    config, neck="batchnorm", normalize_test=True, device="cpu"
)
learner = training.make_learner(strong, 0, num_ids=10)
network, seen = learner.network, {}
network.neck.register_forward_hook(
    lambda _, given, output: seen.update(before=given[0], after=output)
)
network.fc.register_forward_hook(
    lambda _, given, output: seen.update(classified=given[0])
)
views = torch.randint(0, 256, (8, 3, 64, 32), dtype=torch.uint8)
inputs = images.normalize(views)
with torch.no_grad():
    in_training = network.train()(inputs).global_features
    assert torch.equal(in_training, seen["before"].flatten(1)), (
        "triplets get the features before the neck"
    )
    assert torch.equal(seen["classified"], seen["after"].flatten(1)), (
        "the classifier gets those after it"
    )
    in_test = network.eval()(inputs).global_features
    assert torch.equal(in_test, seen["after"].flatten(1)), (
        "the test gets those after it"
    )
assert network.fc.bias is None and not network.neck.bias.requires_grad, (
    "nothing moves the features away from 0"
)

# %% label="fig-neck" caption="After the neck the people are in different directions, so a classifier without bias can separate them." alt="Left: three groups of points far from 0, stretched along one axis. Right, after the neck: the same groups around 0 in different directions, which straight lines through 0 could separate"
generator = torch.Generator().manual_seed(1)
angles = torch.tensor([0.3, 2.4, 4.5])
middles = torch.stack([angles.cos(), angles.sin()], 1)
points = middles.repeat_interleave(30, 0) * (
    0.6 + 0.8 * torch.rand(90, 1, generator=generator)
) + 0.08 * torch.randn(90, 2, generator=generator)
points = points * torch.tensor([3.0, 0.7]) + torch.tensor([6.0, 2.0])
after = torch.nn.BatchNorm1d(2, affine=False)(points)
fig = figures.Figure(figsize=(7, 3), layout="constrained")
for ax, shown, title in zip(
    fig.subplots(1, 2),
    (points, after),
    ("before the neck: triplets", "after it: classifier, search"),
    strict=True,
):
    for k, colour in enumerate((figures.ORANGE, figures.PURPLE, figures.GREEN)):
        group = shown[30 * k : 30 * k + 30]
        ax.plot(*group.T, "os^"[k], color=colour, ms=4)
    ax.plot(0, 0, "k+", ms=12)
    ax.set(title=title, aspect="equal")
    ax.margins(0.15)
fig

# %% [markdown]
# The cross in [the figure](#fig-neck) is at 0. On the left no boundaries through 0 separate the three groups; on the right they do, and the
# two channels have the same scale. Because the classifier learns directions, the search should compare directions: `normalize_test` scales
# features to unit length in the test. The settings are `neck="batchnorm"` and `normalize_test=True`.
#
# ## Generalised mean
#
# The global feature is the mean of the feature map, so a detail that fills one cell of 32 contributes only a thirty-second of its value.
# The maximum would keep the whole value of the largest cell and ignore all others. The *generalised mean* (Radenovic et al. 2019) is
# between the two. With the feature map $F_{cij}$ of [chapter 3](03_model.ipynb),
#
# $$ g_c = \left( \frac{1}{HW} \sum_{i=1}^{H} \sum_{j=1}^{W} F_{cij}^{\,p} \right)^{1/p}, $$ (eq-gem)
#
# which is the mean for $p = 1$ and approaches the maximum for $p \to \infty$. The power $p$ is learned; it begins with 3. By hand for the
# four cells 0, 1, 1 and 2 and $p = 3$: the mean of the cubes is $10 / 4$, and its cube root is 1.357. The plain mean is 1 and the maximum
# is 2.

# %% tags=["nbval-check-output"]
cells = [0.0, 1.0, 1.0, 2.0]
for power in (1, 3, 10, 100):
    total = 0.0
    for cell in cells:
        total += cell**power
    found = (total / 4) ** (1 / power)
    by_library = generalised_mean(torch.tensor(cells).view(1, 1, 2, 2), power)
    print(f"p = {power:<3} {found:.3f}")
    assert math.isclose(by_library.item(), found, rel_tol=1e-4), (
        "the library's generalised mean equals the loop's"
    )

# %% [markdown]
# No cell may be negative, which is true after the ReLU of the usual backbones. Cells below a millionth are set to a millionth, because a
# root has an infinite slope at 0. The setting is `pooling="gem"`.
#
# ## Centre loss
#
# A triplet is satisfied as soon as the negative is farther than the positive by the margin, even if the images of the person are far from
# each other. The *centre loss* (Wen et al. 2016) pulls each of the $N$ features $f_i$ of a batch towards the centre $c_{y_i}$ of its person
# $y_i$:
#
# $$ L_c = \frac{1}{2N} \sum_{i=1}^{N} \lVert f_i - c_{y_i} \rVert^2. $$ (eq-centre)
#
# The centres are not learned by gradients. Instead, after each step the centre $c$ of a person with $n$ images in the batch moves towards
# the mean $\bar f$ of their features, by a share of the distance; the share grows with the number of images:
#
# $$ c \leftarrow c + \alpha\, \frac{n}{n + 1} (\bar f - c). $$ (eq-move-centre)
#
# By hand: one person has the features 1 and 3 and the centre 0. The loss is $(1 + 9) / 4 = 2.5$. With $\alpha = 1/2$ the centre moves by
# $\frac12 \cdot \frac23 \cdot 2 = \frac23$.

# %% tags=["nbval-check-output"]
features, labels = torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0])
centre = torch.zeros(2, 1)
loss = 0.0
for feature, label in zip(features, labels, strict=True):
    loss += float((feature - centre[label]) ** 2) / (2 * len(features))
print("loss", loss)
assert centres.centre_loss(features, labels, centre) == loss, (
    "the library's centre loss equals the loop's"
)
centres.move_centres(centre, features, labels, rate=0.5)
print(f"the centre moves to {centre[0].item():.4f}, the other one stays")
assert math.isclose(centre[0].item(), 2 / 3, rel_tol=1e-6), (
    "the centre moves as far as by hand"
)
assert centre[1] == 0, "a person without images keeps the centre"

# %% label="fig-centres" caption="The more images of a person a batch has, the faster the centre moves." alt="The centre over ten steps for one, two and four images per batch: all rise from 0 to the mean 2, faster with more images"
fig = figures.Figure(figsize=(5, 2.6), layout="constrained")
ax = fig.subplots()
for n, style, colour in zip(
    (1, 2, 4), (":", "--", "-"), figures.NEUTRAL[:3], strict=True
):
    centre, path = torch.zeros(1, 1), [0.0]
    for _ in range(10):
        centres.move_centres(
            centre, torch.full((n, 1), 2.0), torch.zeros(n, dtype=int), 0.5
        )
        path.append(centre.item())
    ax.plot(path, style, marker="o", ms=3, color=colour, label=f"n = {n}")
ax.axhline(2, color=figures.GREY, linewidth=1)
ax.set(xlabel="step", ylabel="centre", title="Features at 2")
ax.legend()
fig

# %% [markdown]
# The more images of a person a batch has, the faster the centre moves ([the figure](#fig-centres)). The squared distances are large, so the
# weight of this loss is small: `centre_weight=1e-3`. (The published weight, 0.0005, belongs to a loss without the factor $\frac12$.) The
# centres are saved in the checkpoint, so a resumed run continues exactly. A search does not need them.
#
# ## The ladder
#
# We now build our own ladder. Its lowest rung, the *foot*, is a plain training as in [chapter 6](06_training.ipynb). Each rung adds one
# change. The highest one, the *top*, adds the local, aligned branch of this book to everything else, to find out whether it still helps.


# %%
def rungs(epochs):
    """The settings that each rung changes, for a training of so many epochs."""
    warm = max(1, epochs // 8)
    return {
        "foot": {"total_epochs": epochs, "decay_at_epoch": epochs // 2 + 1},
        "+ warm-up": {"warmup_epochs": warm},
        "+ cosine": {"schedule": "cosine", "decay_at_epoch": warm + 1},
        "+ padded crop": {"pad": 3},
        "+ erasing": {"erase_prob": 0.5},
        "+ smoothing": {"label_smoothing": 0.1},
        "+ last stride 1": {"last_stride": 1},
        "+ BNNeck": {"neck": "batchnorm", "normalize_test": True},
        "+ generalised mean": {"pooling": "gem"},
        "+ centre loss": {"centre_weight": 1e-3},
        "+ local branch": {"local_weight": 1.0, "local_mining": "local"},
    }


RUNGS = list(rungs(8))
TOP = RUNGS[-1]


def settings_of(rung, epochs):
    """The config of a rung: its own change and those of all rungs below."""
    changes = {}
    for name, change in rungs(epochs).items():
        changes |= change
        if name == rung:
            break
    return dataclasses.replace(config, **changes)


# %% [markdown]
# ### What a rung costs
#
# For each rung we measure the processor time of a training step of the study on this machine (the median of three steps). We also count the
# megabytes that a forward pass keeps for its backward pass, as in [chapter 11](11_time_and_space.ipynb), for the study's network and for
# MobileNetV2 with 128 images of 128 × 64.
#
# :::{admonition} Predict first
# :class: tip
# Which of the rungs need more memory than the rung below them?
# :::


# %%
def kept_megabytes(forward):
    """What a forward pass keeps for its backward pass, each storage once."""
    storages = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        storages[storage._cdata] = storage.nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        answer = forward()
    del answer
    return sum(size for size, _ in storages.values()) / 1e6


def kept_by(settings, backbone, count, size):
    """The megabytes of a rung's network, without computing anything."""
    settings = dataclasses.replace(settings, backbone=backbone, device="cpu")
    network = training.make_learner(settings, 0, num_ids=170).network
    network = network.to("meta").train()
    batch = torch.empty(count, 3, *size, device="meta")
    return kept_megabytes(lambda: network(batch))


def milliseconds(settings):
    """The median processor time of three steps, batches included."""
    settings = dataclasses.replace(settings, device="cpu")
    learner = training.make_learner(settings, 0, num_ids=170)
    learner.network.train()
    count = settings.ids_per_batch * settings.images_per_id
    size = settings.height, settings.width
    store = images.ImageStore(people.paths[:count], size)
    labels = torch.arange(count) // settings.images_per_id
    taken = []
    for step in range(4):
        began = time.process_time()
        batch = training.make_batch(store, range(count), settings, (1, step))
        training.train_step(learner, batch, labels, settings)
        taken.append(1000 * (time.process_time() - began))
    return statistics.median(taken[1:])


kept = {}
print(f"{'':<20}{'ms / step':>10}{'MB':>8}{'MB, MobileNetV2':>18}")
for rung in RUNGS:
    settings = settings_of(rung, 8)
    kept[rung] = (
        kept_by(settings, settings.backbone, 32, (height, width)),
        kept_by(settings, "mobilenet_v2", 128, (128, 64)),
    )
    taken = milliseconds(settings)
    print(
        f"{rung:<20}{taken:>10.0f}{kept[rung][0]:>8.1f}{kept[rung][1]:>18.1f}"
    )

# %%
assert kept["+ smoothing"] == kept["foot"], (
    "schedule, augmentation and smoothing keep nothing more"
)
assert kept["+ last stride 1"][1] > 1.05 * kept["+ smoothing"][1], (
    "a larger map keeps more"
)

# %% [markdown]
# The times vary from run to run, and a single large one may come from other work on the machine; the megabytes are exact. The schedules,
# the augmentation and the smoothing need no more memory. A last stride of 1 adds the most, because the last stage then computes and keeps
# four times as many cells; all rungs above it include this cost. The neck adds little; the generalised mean keeps the powers of the feature
# map. The network computes its local branch in every rung, so the top keeps no more than the rung below it. The memory of the losses is not
# counted.
#
# ### On drawn people
#
# The study trains each rung with three seeds from random weights. It also trains the foot and the top three times as long, because strong
# augmentation makes the task harder and may need more steps before it helps. `make train PRESET=strong_study` computes the results again.


# %%
def test(network, settings):
    """A row of scores for each distance that the rung can be tested with."""
    by = ("global",)
    if settings.local_weight > 0:
        by = ("global", "rigid", "local", "global+local")
    return full_run.score(network, settings, "market1501", by).to_dict()["rows"]


scores, minutes = [], 0.0
trainings = [(rung, config.total_epochs) for rung in RUNGS]
trainings += [(RUNGS[0], study.long_epochs), (TOP, study.long_epochs)]
if study.seeds:
    book.prepare_data(config)
for seed in study.seeds:
    for rung, epochs in trainings:
        own = dataclasses.replace(settings_of(rung, epochs), seed=seed)
        name = f"{RUNGS.index(rung):02}_{epochs}_epochs_seed{seed}"
        result = training.train(own, Path(study.run_dir) / name)
        minutes += result.minutes
        scores += [
            {"seed": seed, "rung": rung, "epochs": epochs} | row
            for row in test(training.load_network(own, result.weights), own)
        ]
if study.seeds:
    given = dataclasses.asdict(config) | {
        "seeds": list(study.seeds),
        "long_epochs": study.long_epochs,
        "rungs": rungs(config.total_epochs),
    }
    written = runs.write_results(
        study.run_dir,
        given,
        scores,
        minutes,
        devices.choose_device(config.device),
    )
else:
    written = runs.resolve("notebooks/results/strong_study.json")
rows = runs.read_json(written)["scores"] if written.exists() else []


# %%
def rows_of(rung, epochs, distance="global"):
    """The rows of the score table of a rung, one per seed."""
    chosen = [
        row
        for row in rows
        if (row["rung"], row["epochs"], row["distance"])
        == (rung, epochs, distance)
    ]
    chosen.sort(key=lambda row: row["seed"])
    return ScoreTable.from_dict({"rows": chosen}).rows


def mean_ap(rung, epochs, distance="global"):
    """mAP (step) of each seed, percent."""
    return [100 * row.mean_ap_step for row in rows_of(rung, epochs, distance)]


found_seeds = {row["seed"] for row in rows}
lengths = sorted({row["epochs"] for row in rows})
if rows:
    short, long = lengths[0], lengths[-1]
    assert all(
        len(mean_ap(rung, short)) == len(found_seeds) for rung in RUNGS
    ), "there is a score for every rung and seed"

# %% [markdown]
# The table gives mAP (step) in percent, averaged over the seeds, with the range over the seeds (largest minus smallest). The last column
# compares a rung with the one below, seed by seed (a paired t test: it compares the mean of the differences of the seeds with their spread).
# A rung helps if the whole interval of the difference is above 0, and harms if the whole interval is below 0.
#
# :::{admonition} Predict first
# :class: tip
# Drawn people have few details and the training is short. Which rungs will lower the mAP?
# :::


# %%
def verdict(before, after):
    """The difference in mAP over the seeds, with its interval in points."""
    found = evaluation.compare(before, after, paired=True).rows[-1]
    low, high = 100 * found.low, 100 * found.high
    word = "helps" if low > 0 else "harms" if high < 0 else "cannot tell"
    return f"{100 * found.difference:+.1f} ({low:+.1f} to {high:+.1f}), {word}"


if rows:
    lines = [
        "| rung | mAP | range | over the rung below |",
        "|---|---:|---:|---|",
    ]
    for below, rung in zip([None, *RUNGS], RUNGS, strict=False):
        values = mean_ap(rung, short)
        told = ""
        if below and len(values) > 1:
            told = verdict(rows_of(below, short), rows_of(rung, short))
        lines.append(
            f"| {rung} | {statistics.mean(values):.1f} |"
            f" {max(values) - min(values):.1f} | {told} |"
        )
    shown = Markdown("\n".join(lines))
else:
    shown = Markdown(
        "Not yet run: `make train PRESET=strong_study`, then copy"
        " `runs/strong_study/results.json` to"
        " `notebooks/results/strong_study.json`."
    )
shown

# %% [markdown]
# Does the whole recipe need the longer training? The table compares the foot, the rung below the top and the top. For the top it also
# compares the four distances, which differ only in the test:

# %% tags=["hide-input"]
lines = ["| training | epochs | distance | mAP |", "|---|---:|---|---:|"]
tested = [(RUNGS[0], "global"), ("+ centre loss", "global")]
tested += [(TOP, name) for name in ("global", "rigid", "local", "global+local")]
for rung, distance in tested:
    for epochs in lengths:
        values = mean_ap(rung, epochs, distance)
        if values:
            lines.append(
                f"| {rung} | {epochs} | {distance} |"
                f" {statistics.mean(values):.1f} |"
            )
if len(found_seeds) > 1:
    for epochs in lengths:
        told = verdict(rows_of(RUNGS[0], epochs), rows_of(TOP, epochs))
        lines.append(f"| top over foot, global | {epochs} | | {told} |")
        told = verdict(rows_of(TOP, epochs), rows_of(TOP, epochs, "local"))
        lines.append(f"| local over global | {epochs} | | {told} |")
Markdown("\n".join(lines) if rows else "Not yet run.")

# %%
if rows and not study.seeds:
    foot, top = (
        [statistics.mean(mean_ap(rung, epochs)) for epochs in lengths]
        for rung in (RUNGS[0], TOP)
    )
    assert top[0] < foot[0] and top[-1] > foot[-1], (
        "the top is below the foot after 8 epochs and above it after 24"
    )

# %% [markdown]
# * **In the short training** only two rungs change the score by more than the luck of three seeds: erasing costs eleven points, and BNNeck
#   adds almost four. The whole ladder ends seven points *below* its foot.
# * **In a training three times as long** it ends nine points *above* it. The longer training gives the foot ten points and the top
#   twenty-five: strong augmentation needs length. Compare recipes only at the length that you will use.
# * **The local branch** adds nothing that three seeds can show, whether we compare its rung with the one below or its distance with the global
#   one. The sum of both distances has the highest mean at the long length.
#
# ### On Market-1501, with a small network
#
# Here is the ladder for MobileNetV2 from ImageNet weights at 128 × 64, with batches of 32 × 4 images; because its foot has only the global
# loss, as in [chapter 10](10_reproduction.ipynb), the first rung adds the identification loss (*id*). It has two lengths: 100 epochs (2 400
# steps) and 300 epochs (7 200 steps); within a column all rungs see equally many images. Each rung has a preset; *not yet run* marks a rung
# without results. The table gives rank-1 / mAP (step) with the global distance, in percent.

# %% tags=["hide-input"]
MARKET = [
    "foot",
    "id",
    "warmup",
    "cosine",
    "crop",
    "erasing",
    "smoothing",
    "stride",
    "neck",
    "gem",
    "centre",
    "local",
]
OF_CHAPTER_10 = {
    "foot": "market1501_mobilenet",
    "id": "market1501_mobilenet_id",
}


def preset_of(k, long):
    """The preset of a rung on Market-1501."""
    name = MARKET[k]
    if not long and name in OF_CHAPTER_10:
        return OF_CHAPTER_10[name]
    return f"market1501_mobilenet_strong_{k:02}_{name}" + "_long" * long


def cell(preset, distance="global"):
    """Rank-1 / mAP of a preset, or that it has not been run."""
    found = book.score_rows(preset, distance)
    if not found:
        return "not yet run"
    both = [
        100 * statistics.mean(getattr(row, name) for row in found)
        for name in ("rank1", "mean_ap_step")
    ]
    seeds = f" ({len(found)} seeds)" if len(found) > 1 else ""
    return f"{both[0]:.1f} / {both[1]:.1f}{seeds}"


lines = ["| rung | 2 400 steps | 7 200 steps |", "|---|---:|---:|"]
for k, name in enumerate(MARKET):
    lines.append(
        f"| {'+ ' * (k > 0)}{name} | {cell(preset_of(k, False))} |"
        f" {cell(preset_of(k, True))} |"
    )
for distance in ("rigid", "local", "global+local"):
    at = [cell(preset_of(11, long), distance) for long in (False, True)]
    lines.append(f"| the top, by {distance} | {at[0]} | {at[1]} |")
full = cell("market1501_mobilenet_strong_256")
lines.append(f"| the top at 256 × 128 | | {full} |")
Markdown("\n".join(lines))

# %% [markdown]
# The next cell checks that every preset adds one change to the preset below it:


# %%
def read_preset(name):
    """The parameters of a preset without those of its test."""
    file = runs.resolve(f"notebooks/presets/{name}.yaml")
    given = yaml.safe_load(file.read_text())["parameters"]
    return {k: v for k, v in given.items() if not k.startswith("test_")}


ONE_CHANGE = {
    "id": {"id_weight"},
    "warmup": {"warmup_epochs"},
    "cosine": {"schedule", "decay_at_epoch"},
    "crop": {"pad"},
    "erasing": {"erase_prob"},
    "smoothing": {"label_smoothing"},
    "stride": {"last_stride"},
    "neck": {"neck", "normalize_test"},
    "gem": {"pooling"},
    "centre": {"centre_weight"},
    "local": {"local_weight", "local_mining"},
}
for long in (False, True):
    for k in range(1, len(MARKET)):
        below, own = (read_preset(preset_of(j, long)) for j in (k - 1, k))
        changed = {n for n in own | below if own.get(n) != below.get(n)}
        assert changed == ONE_CHANGE[MARKET[k]], (
            f"rung {MARKET[k]} changes {changed}"
        )

# %%
ends = [
    (
        long,
        book.score_rows(preset_of(0, long)),
        book.score_rows(preset_of(11, long)),
    )
    for long in (False, True)
]
for long, foot, top in ends:
    if foot and top:
        found = evaluation.compare(foot[:1], top[:1]).rows[-1]
        print(
            f"{7200 if long else 2400} steps, top minus foot, mAP:"
            f" {100 * found.difference:+.1f} points, 95 % interval over"
            f" {found.over}: {100 * found.low:+.1f} to {100 * found.high:+.1f}"
        )

# %% [markdown]
# ### The published recipe
#
# Seven presets have the published settings of the bag of tricks for ResNet-50 at 256 × 128: batches of 16 × 4 images, and Adam with a base
# rate of 3.5e-4 for 120 epochs, with steps at 40 and 70. The first preset is the baseline, and the last one has all six tricks. They need a
# GPU and ImageNet weights. The table gives rank-1 / mAP (step):

# %%
lines = ["| recipe | published | ours | preset |", "|---|---:|---:|---|"]
for row in published:
    preset = row["preset"]
    score = f"{row['rank1']} / {row['mAP']}"
    score += f", mINP {row['mINP']}" if row["mINP"] else ""
    ours = (cell(preset), f"`{preset}`") if preset else ("", "")
    cells = (f"{row['recipe']} {row['rung']}", score, *ours)
    lines.append("| " + " | ".join(cells) + " |")
    assert not preset or read_preset(preset)["backbone"] == "resnet50"
Markdown("\n".join(lines))

# %% [markdown]
# Our presets differ from the published code in two details: the ratio of an erased rectangle is uniform in its logarithm, and centres move as
# in Wen et al. 2016 and not with a second optimiser. AGW also has attention layers and a weighted triplet loss, which this library does not
# have.
#
# ## Which setting should I take?
#
# This advice follows the published ladder and the measured costs. If a table above has numbers for a case like yours, follow the table.
#
# * Begin with what costs little or nothing, however long the training is: `warmup_epochs`, `schedule="cosine"`, `label_smoothing=0.1`,
#   `neck="batchnorm"` with `normalize_test=True`.
# * `pad` and `erase_prob` for long trainings: they make the task harder, so the network needs more steps. Compare settings at the length
#   that you will use.
# * `last_stride=1` if you have the time and memory: it costs the most memory, and clearly more time.
# * `pooling="gem"` and `centre_weight` last: expect little from them.
# * `local_weight` in the training, and the distance `"local"` in the test, if boxes do not fit ([chapter 13](13_alignment_study.ipynb)),
#   with every recipe.
# * Add one change at a time and keep what helps on *your* data. Train with several seeds before you judge a change; the published gains are
#   from one network on one dataset.
#
# ## Summary
#
# * If two losses need different features, put a batch norm between them: the triplet loss uses the features before it, the classifier and
#   the search those after it.
# * Augmentation changes the training images, smoothing and the centre loss change the loss, the schedule changes the learning rate, and the
#   last stride and the generalised mean change the feature map and its average. The last stride costs the most memory.
# * A ladder shows what each rung adds *to those below it*. In a different order a rung may add more or less.
#
# This is the last chapter. The page *Questions* tests what you have learned; the notation table and the library reference are at the end of
# the site.
#
# ## Exercises
#
# **1.** With $K$ training people and a share of $\varepsilon$, what is the smallest value that the smoothed loss can have?
#
# :::{dropdown} Solution
# The loss is smallest for $p = t$, where it is the entropy of the target:
#
# ```python
# K, share = 751, 0.1
# own, other = 1 - share + share / K, share / K
# print(-(own * math.log(own) + (K - 1) * other * math.log(other)))
# ```
#
# For Market-1501's 751 people and $\varepsilon = 0.1$ it is 0.99, so a smoothed identification loss of about 1 cannot become smaller.
# :::
#
# **2.** What share of the images does a padded crop with $p = 10$ not move at all?
#
# :::{dropdown} Solution
# There are 21 possible shifts along each axis, from -10 to 10 pixels, so one of $21 \cdot 21 = 441$ images does not move.
# :::
#
# **3.** A batch has four images of a person, and $\alpha = \frac12$. After how many such steps is the distance between the centre and the
# mean of the features less than 1 % of what it was, if the features do not change?
#
# :::{dropdown} Solution
# Each step leaves $1 - \frac12 \cdot \frac45 = 0.6$ of the distance: `math.log(0.01) / math.log(0.6)` is 9.02, so ten steps are needed. A
# person is drawn once per epoch, so this takes ten epochs.
# :::
#
# **4.** Write the targets $t_k$ of the smoothed loss, equation {eq}`eq-smoothing`. The function gets the label (the number of the right
# class, counted from 0), the number of classes and the share $\varepsilon$. It returns a list with one target per class. It has one
# mistake. Run the cell, read the answer and repair the function.

# %% tags=["nbval-check-output"]
from alignedreid_lib.exercises import check


def targets(label, classes, share):
    return [
        1 - share if k == label else share / classes for k in range(classes)
    ]


check("14_strong_baseline", targets)

# %% [markdown]
# :::{dropdown} Solution
# ```python
# def targets(label, classes, share):
#     rest = share / classes
#     return [1 - share + rest if k == label else rest for k in range(classes)]
#
#
# assert check("14_strong_baseline", targets)
# ```
# :::
