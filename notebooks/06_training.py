# %% [markdown]
# # 06 Training
#
# A new network, before any training, already gives every image a feature. Here are the distances between the images of one batch, for all
# pairs of the same person and for all pairs of different people:

# %% tags=["parameters"]
# Parameters: the data
data_root = "data/synthetic"
dataset = "market1501"
archive = ""
run_dir = "runs/book/model"
train_part = "trainval"
height = 64
width = 32
mirror_prob = 0.5
crop_prob = 0.0
crop_ratio = 1.0
ids_per_batch = 16
images_per_id = 4
keep_last_batch = False
draw = "cover"
# the network
backbone = "resnet18.layer3"
weights = None
local_channels = 128
last_stride = 2
# the loss
global_weight = 1.0
local_weight = 0.0
local_mining = "global"
id_weight = 1.0
margin = 2.0
normalize = False
# the optimiser and its schedule
base_lr = 2e-3
weight_decay = 5e-4
total_epochs = 18
schedule = "exponential"
decay_at_epoch = 13
staircase_at_epochs = (101, 201)
staircase_factor = 0.1
warmup_epochs = 0
# several processes, each with its device and its share of every batch
processes = 1
sync_batch_norm = False
# validation: every so many epochs, with train_part = "train"; 0 for never
validate_every = 0
# the machine
seed = 1
device = "auto"
precision = "float32"
deterministic = False
compiled = False
workers = 2
memory_limit = 4294967296
checkpoint_every = 60.0
# how the data is prepared, if that has not been done yet
num_val_ids = None
pattern = ""
test_share = None
# the test
test_distances = ("global",)
test_sets = ()
test_rerank = False
test_multi_query = ""
combined_of = ()
only_test = ()

# %%
import dataclasses
from pathlib import Path

import numpy as np
import torch
from matplotlib.patches import FancyBboxPatch

from alignedreid_lib import book, datasets, figures, losses, runs, training
from alignedreid_lib.batches import images
from alignedreid_lib.batches.sampling import IdentitySampler
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import full_run
from alignedreid_lib.model import AlignedReID

config, plan = full_run.read_settings(globals())

# %% tags=["hide-input"]
tested_on = book.prepare_data(config, **plan.data)
train_set = datasets.open_dataset(config.folder, config.train_part)
if plan.only_test:  # no training, so there may be no training people
    shown = datasets.open_dataset(
        runs.resolve(config.data_root) / tested_on[0], "test"
    )
    people = shown.ids
else:
    shown, people = train_set, training.train_labels(train_set)
size = (config.height, config.width)
store = images.ImageStore(
    shown.paths, size, config.memory_limit, config.workers
)
_, counts = np.unique(people, return_counts=True)
P, K = min(16, len(counts)), min(4, counts.max())
indices = next(
    iter(IdentitySampler(people, ids_per_batch=P, images_per_id=K, seed=0))
)
batch_set = shown[indices]


def pair_distances(network):
    """Distances of all pairs of the batch, and which are of one person."""
    # The image size, precision and device are those of the run.
    found = full_run.embed(network, batch_set, config)
    x = losses.unit_length(found.global_features)
    people = torch.from_numpy(found.ids)
    pairs = torch.triu_indices(len(x), len(x), offset=1)
    return (
        losses.euclidean_distances(x, x)[pairs[0], pairs[1]],
        (people[:, None] == people)[pairs[0], pairs[1]],
    )


def draw_pairs(networks):
    """A histogram of pair distances for each network."""
    fig = figures.Figure(
        figsize=(4 * max(1.4, len(networks)), 2.6), layout="constrained"
    )
    axes = fig.subplots(1, len(networks), squeeze=False)
    for ax, (title, network) in zip(axes[0], networks.items(), strict=True):
        distances, same = pair_distances(network)
        top = float(distances.max())
        for mask, name, colour, style in (
            (~same, "different people", figures.OTHER, "--"),
            (same, "same person", figures.SAME, "-"),
        ):
            if mask.any():  # one person alone has no pair of different people
                heights, edges = np.histogram(
                    distances[mask], bins=24, range=(0, top), density=True
                )
                ax.stairs(
                    heights,
                    edges,
                    label=name,
                    color=colour,
                    linestyle=style,
                    linewidth=1.8,
                )
        ax.set(title=title, xlabel="distance of unit features", yticks=[])
    axes[0][0].legend()
    return fig


# %% label="fig-pairs-before" alt="Histogram of the distances of pairs before training: the curves for the same person and for different people overlap for half of their range" caption="Before training the distance of two images hardly shows whether they are of one person."
torch.manual_seed(0)
untrained = AlignedReID(config.backbone, last_stride=config.last_stride)
draw_pairs({"before training": untrained})

# %% [markdown]
# The two curves of [the figure](#fig-pairs-before) overlap: at a distance of 0.2 two images may show the same person or different people.
# Training has to separate the curves. This chapter trains the model that the other chapters use, and explains what a training run consists
# of: the settings, the loss, the learning rate and the loop over the batches. Full training runs execute this notebook too.
#
# **What you will learn**
#
# * how to train a model so that the run can be interrupted at any moment and then resumed;
# * what every setting of the training means, and how the learning rate changes over the epochs;
# * how to read the three training curves together.
#
# **Time** on two cores: three quarters of a minute, plus one minute if the book's model is not trained yet.
# **Hardware**: any laptop, no GPU. Full training runs (`make train PRESET=market1501_gl`) need a GPU.
#
# ## Settings
#
# The parameters cell at the top contains the settings of a plain run as literals. A *preset* is a small file in `notebooks/presets` that
# replaces some of them; it may also add any other setting of `training.TrainConfig` (chapters 7 and 14 explain these). If you type `make
# train PRESET=name` in a terminal in the project's folder, the preset's values are inserted right after the parameters cell, and then the
# notebook is executed. With `archive = ""` it uses the book's own drawn people.
#
# The notebook makes two objects from the settings: the configuration of the training (`training.TrainConfig` describes each of its settings)
# and the plan of the data and the test (`full_run.Plan` describes these). Both check the name, type and range of every setting, so a misspelt
# or impossible setting stops the notebook here and not an hour later. The message names the setting:

# %% tags=["demonstration", "nbval-check-output"]
try:
    dataclasses.replace(
        config, schedule="exponential", decay_at_epoch=config.total_epochs + 1
    )
except InputError as error:
    message = str(error)
print(message)

# %% [markdown]
# The data are the drawn people of [chapter 1](01_datasets.ipynb) or the archive that a preset names. The archive is prepared once. A preset
# may also train on several merged datasets (`dataset: combined`) and test on each of them. The batch above has 16 people with 4 images
# each, or as many as a smaller dataset has.

# %%
labels_found = np.unique(train_set.labels)
assert labels_found.tolist() == list(range(len(set(train_set.ids)))), (
    "labels number the identities from 0"
)
assert len(batch_set) == P * K and len(set(batch_set.ids)) == P, (
    "the batch has P identities and K images of each"
)

# %% [markdown]
# ## The loss
#
# [Chapter 5](05_losses.ipynb) derives the loss; here is the part that this run uses. For every anchor $a$ of the batch take the farthest
# image of the same person, its *hardest positive* at distance $d_{ap}$, and the nearest image of anyone else, its *hardest negative* at
# distance $d_{an}$. The loss is 0 only if the negative is farther by a margin $m$:
#
# $$ L = \frac{1}{PK} \sum_a \max(0,\; d_{ap} - d_{an} + m) $$ (eq-training-triplet)
#
# :::{admonition} The paper says
# Batch-hard mining is eq. 5 of Hermans et al. 2017 (arXiv 1703.07737); AlignedReID (Zhang et al. 2017, section 3.1) uses it on its global
# features. The original reproduction sets $m = 0.3$ and does not normalise the features.
# :::
#
# The book's run starts from random weights and trains for one minute, so it differs from the original in two ways. First, it uses $m = 2$:
# the distances between this network's features are between 3 and 11 during most of the training (the curves below show them), so a margin
# of 0.3 is soon satisfied, and a satisfied anchor has no gradient ([chapter 5](05_losses.ipynb)). Second, it adds the identification loss,
# a classifier over the training people, weighted by `id_weight`. At the beginning the triplet loss pulls all images together, the right
# ones and the wrong ones; the classifier's gradient guides the training through this phase. Full runs from ImageNet weights do not need it.
#
# By hand, with four points on a line and two people:

# %% tags=["nbval-check-output"]
points = torch.tensor([[0.0], [1.0], [1.2], [3.0]])
people = torch.tensor([0, 0, 1, 1])
term = losses.global_triplet(points, people, margin=0.3, normalize=False)
print(
    "farthest positives",
    [round(d, 1) for d in term.mined.positive_distance.tolist()],
)
print(
    "nearest negatives ",
    [round(d, 1) for d in term.mined.negative_distance.tolist()],
)

# %% [markdown]
# The first anchor, at 0, has its positive at 1 and its nearest negative at 1.2: $1 - 1.2 + 0.3 = 0.1$. The other anchors give $1 - 0.2 + 0.3 = 1.1$, $1.8 - 0.2 + 0.3 = 1.9$ and $1.8 - 2 + 0.3 = 0.1$. The mean is $3.2 / 4 = 0.8$.

# %%
assert torch.isclose(term.loss, torch.tensor(0.8)), (
    "the library's loss equals the sum by hand"
)

# %% [markdown]
# ## The learning rate
#
# The optimiser is Adam. Its learning rate is $\eta_0$ (`base_lr`) before epoch $s$ (`decay_at_epoch`). From epoch $s$ it falls, and in the
# last epoch $T$ (`total_epochs`) it is a thousandth of $\eta_0$. In epoch $e$ it is
#
# $$ \eta(e) = \eta_0 \cdot 0.001^{\,(e + 1 - s)\,/\,(T + 1 - s)} \qquad e \ge s $$ (eq-training-rate)
#
# With $T = 4$ and $s = 3$ the rate of the last two epochs is $0.001^{1/2} \approx 0.0316$ and $0.001$ times the base:

# %% tags=["nbval-check-output"]
short = dataclasses.replace(
    config,
    schedule="exponential",
    base_lr=1.0,
    total_epochs=4,
    decay_at_epoch=3,
)
rates = [training.learning_rate(short, epoch) for epoch in range(1, 5)]
print([round(rate, 4) for rate in rates])

# %%
assert np.allclose(rates, [1, 1, 0.001 ** (1 / 2), 0.001]), (
    "the rate is constant for two epochs and falls for two"
)

# %% [markdown]
# A second schedule, *staircase*, multiplies the rate by a factor at given epochs. ([Chapter 14](14_strong_baseline.ipynb) adds a third,
# *cosine*.) The figure shows the first two with the settings of the original reproduction on Market-1501 (300 epochs, base 2e-4):

# %% label="fig-schedules" alt="Learning rate over 300 epochs on a logarithmic axis: the exponential schedule is constant for 150 epochs and then a straight falling line; the staircase has two steps" caption="One schedule falls smoothly to a thousandth, the other in two steps to a hundredth."
epochs = np.arange(1, 301)
published = training.TrainConfig()
staircase = training.TrainConfig(
    schedule="staircase", staircase_at_epochs=(101, 201)
)
fig = figures.Figure(figsize=(6, 2.6), layout="constrained")
ax = fig.subplots()
ax.semilogy(
    epochs,
    [training.learning_rate(published, e) for e in epochs],
    color=figures.BLACK,
    label="exponential, from epoch 151",
)
ax.semilogy(
    epochs,
    [training.learning_rate(staircase, e) for e in epochs],
    "--",
    color=figures.PURPLE,
    label="staircase, at 101 and 201",
)
ax.set(xlabel="epoch", ylabel="learning rate")
ax.legend()
fig

# %% [markdown]
# On the logarithmic axis of [the figure](#fig-schedules) the exponential fall is a straight line, because each epoch divides the rate by
# the same number.

# %% [markdown]
# ## One training step by hand
#
# Here is one training step in plain loops: the forward pass, the distances, the hardest positive and negative of every anchor, the loss, and
# the backward pass.


# %% tags=["demonstration"]
def naive_loss(network, batch, labels, margin):
    """The loss of one training step, mining with two loops."""
    x = network(batch)
    total = 0.0
    for a in range(len(x)):
        distances = [
            (x[a] - x[b]).square().sum().clamp(min=1e-12).sqrt()
            for b in range(len(x))
        ]
        positive = max(
            d
            for b, d in enumerate(distances)
            if labels[b] == labels[a] and b != a
        )
        negative = min(
            d for b, d in enumerate(distances) if labels[b] != labels[a]
        )
        total = total + (positive - negative + margin).clamp(min=0)
    return total / len(x)


# %% [markdown]
# The library's `train_step` does the same with matrices. Both start from the same weights and take one step on the same batch of 6 people ×
# 2 images, with a small network. They add numbers in a different order, so their rounding differs, and the difference depends on the
# processor. We therefore compute in float64, where the rounding error is a billion times smaller than a mistake would be. We compare after
# one step, because every further step would amplify the difference.

# %% tags=["demonstration"]
small = dataclasses.replace(
    config, margin=0.3, normalize=False, global_weight=1.0, local_weight=0.0
)
chosen = next(iter(IdentitySampler(train_set.labels, 6, 2, seed=0)))
batch, people = (
    torch.stack(store.fetch(chosen)),
    torch.from_numpy(train_set.labels[chosen]),
)
found = {}
for name in ("naive", "library"):
    torch.manual_seed(0)
    network = AlignedReID("shufflenet_v2_x0_5").double()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    if name == "naive":
        loss = naive_loss(
            lambda images_, network=network: network(images_).global_features,
            images.normalize(batch).double(),
            people,
            0.3,
        )
        loss.backward()
    else:
        learner = training.Learner(
            network,
            lambda images_, network=network: network(images_.double()),
            optimizer,
            batch.device,
            "float32",
        )
        loss = training.train_step(learner, batch, people, small)["loss"]
    found[name] = (
        loss.item(),
        [p.grad for p in network.base.parameters() if p.grad is not None],
    )

# %% tags=["demonstration"]
assert np.isclose(found["naive"][0], found["library"][0], rtol=1e-6), (
    "loops and matrices give the same loss"
)
assert all(
    torch.allclose(one, other, rtol=1e-5, atol=1e-9)
    for one, other in zip(found["naive"][1], found["library"][1], strict=True)
), "loops and matrices give the same gradient for every weight"

# %% [markdown]
# ## A training run
#
# A training run repeats this step: each epoch is one pass over the identities ([chapter 2](02_batches.ipynb)). The run saves a
# *checkpoint*, from which it can be resumed, every minute (`checkpoint_every`), at the end, and whenever a validation has a new best score.
# `train` starts a run, resumes it after its last saved epoch, or finds that it is finished. (To test existing weights, name their files in
# `only_test`; then nothing is trained.)

# %%
validate = full_run.validation(config) if config.validate_every else None
result = (
    None
    if plan.only_test
    else training.train(config, plan.run_dir, validate=validate)
)
if result:
    print(
        f"{len(result.metrics)} epochs, {result.resumed_at} of them done before"
        " this notebook ran"
    )

# %% [markdown]
# The next cell lists the run folder. Every file is first written under a temporary name and then renamed, so that after a kill at any
# moment the last complete file remains. `config.json` has the settings (and the number format that `precision = "auto"` selected at the
# first start), `metrics.jsonl` one row per epoch, `checkpoint.pt` everything that is needed to resume, `weights.pth` the model, and
# `tensorboard` the curves.

# %%
for path in sorted(runs.resolve(plan.run_dir).glob("*")):
    if path.suffix in (".json", ".jsonl", ".pt", ".pth") or path.is_dir():
        print(path.name + ("/" if path.is_dir() else ""))

# %%
finished = {
    "config.json",
    "metrics.jsonl",
    "checkpoint.pt",
    "weights.pth",
    "tensorboard",
}
if result:
    assert finished <= {path.name for path in result.run_dir.iterdir()}, (
        "a finished run has all its files"
    )
    assert [row["epoch"] for row in result.metrics] == list(
        range(1, config.total_epochs + 1)
    ), "there is one row per epoch"

# %% [markdown]
# ## Reading the curves
#
# :::{admonition} Predict first
# :class: tip
# The loss pulls the images of each person together. Does the distance of the hardest positives fall during the whole training?
# :::

# %% label="fig-curves" alt="Three panels over the epochs: the loss and its terms fall, precision and margin satisfaction rise, positive and negative distances separate" caption="The loss falls, most triplets become satisfied, and the negatives become farther than the positives."
figures.training_curves(result.metrics) if result else "nothing was trained"

# %% [markdown]
# Read the three panels of [the figure](#fig-curves) together.
#
# * **Loss** is the sum of both terms. The triplet loss falls fast at first and then slowly: once most triplets are satisfied, only the
#   hardest still add to it. At the end most of the sum is the identification loss.
# * **Precision** (*negative farther*) is the share of anchors whose hardest negative is farther than their hardest positive; **margin
#   satisfaction** (*by the margin*) is the share of anchors where it is farther by at least the margin. When both reach 1, the triplet loss
#   has no gradient left. (The setting `precision` is something else: the number format.)
# * **Distances**: at first both shrink. As long as the network cannot tell people apart, the loss is smallest if all features are at the
#   same point. Then both distances grow again, the negatives faster, and the curves separate. If both shrink to zero and stay there, the
#   run has *collapsed*: use a lower learning rate.
#
# Here is [the histogram from the beginning](#fig-pairs-before) again, and the one after training, for the same batch:

# %% alt="Histograms of pair distances before and after training: after training, most pairs of the same person have smaller distances than most other pairs (the scales differ: all distances have grown)" caption="After training the distance separates most pairs of one person from pairs of different people."
networks = full_run.networks(config, plan, result)
model = next(iter(networks.values()))
draw_pairs(
    {"before training": untrained, "after training": model}
    if result and config.weights is None
    else {"after training": model}
)

# %% tags=["demonstration", "bound"]
distances, same = pair_distances(model)
assert distances[same].mean() < distances[~same].mean(), (
    "after training images of one person are nearer than images of different"
    " people"
)

# %% [markdown]
# ## Resuming a run
#
# A batch depends only on the seed, the epoch and the number of the batch in it, and a checkpoint contains everything else: the weights,
# Adam's moments, the random state and, in float16, the scale of the loss. A run that was interrupted therefore continues as if nothing had
# happened. (On a GPU this is true up to rounding, because the order of the sums varies; `deterministic = True` requests a fixed order.)
#
# Writing the checkpoint of a large network can take as long as an epoch on a fast GPU. Each epoch therefore ends with a copy of this state in
# memory, and a thread writes the copy to the disk while the training continues. After Ctrl-C, an error, or the SIGTERM of a cluster's queue
# the copy of the last finished epoch is written before the process ends, so that only the epoch in progress is lost. A power cut loses all
# epochs since the last checkpoint, at most about a minute of work. We interrupt a small run after two of four epochs and compare it with a
# run without an interruption:
#
# :::{admonition} Predict first
# :class: tip
# Are the final weights of the two runs equal bit for bit, or up to rounding?
# :::

# %% tags=["demonstration"]
import tempfile

book.dataset_folder("market1501")
tiny = dataclasses.replace(
    book.CONFIG,
    backbone="shufflenet_v2_x0_5",
    height=32,
    width=16,
    total_epochs=4,
    decay_at_epoch=3,
    device="cpu",
)


class Cut(Exception):
    """Stands for Ctrl-C."""


def cut_after_two(row):
    if row["epoch"] == 2:
        raise Cut


with tempfile.TemporaryDirectory() as folder:
    whole = training.train(tiny, Path(folder) / "whole")
    whole_weights = torch.load(whole.weights)
    try:
        training.train(tiny, Path(folder) / "cut", report=cut_after_two)
    except Cut:
        resumed = training.train(tiny, Path(folder) / "cut")
    resumed_weights = torch.load(resumed.weights)

# %% tags=["demonstration"]
assert resumed.resumed_at == 2, "the run resumes after the two finished epochs"
assert all(
    torch.equal(whole_weights[name], resumed_weights[name])
    for name in whole_weights
), "the resumed run has the same weights to the last bit"

# %% [markdown]
# ## Several processes
#
# A machine with several GPUs trains faster if the GPUs share each batch: every process computes the features of its part of the $P$ people.
# The loss cannot be divided in the same way. Take the four points above: suppose that process 0 has the two points of person 0, and process
# 1 has the two of person 1. Then neither has a negative, so neither can compute the loss of the batch alone. They therefore exchange their
# features:

# %% tags=["demonstration"] label="fig-processes" alt="Two rows of boxes, one per process. Each has its own two points, sends their features to the other, computes the loss of all four points, 0.8, and the gradient through its own points: five quarters and minus three quarters. Both are added: one half" caption="Features are exchanged, the loss is computed twice, and the two parts of the gradient are added."
fig = figures.Figure(figsize=(8, 2.8), layout="none")
ax = fig.add_axes((0, 0, 1, 1), xlim=(0, 8), ylim=(0, 2.8))
ax.set_axis_off()
rows = {
    1.75: ("process 0", "points 0, 1\n(person 0)", "5/4", figures.GREEN),
    0.35: ("process 1", "points 1.2, 3\n(person 1)", "−3/4", figures.PURPLE),
}
for y, (name, own, part, colour) in rows.items():
    ax.text(0.1, y + 0.9, name, weight="bold", color=colour)
    boxes = (own, "all four\nfeatures", "loss of the\nbatch: 0.8", part)
    for x, text in zip((0.1, 2.2, 4.1, 6.0), boxes, strict=True):
        box = FancyBboxPatch(
            (x, y), 1.3, 0.75, "round,pad=0,rounding_size=0.08"
        )
        box.set(facecolor="none", edgecolor=colour, linewidth=1.5)
        ax.add_patch(box)
        ax.text(x + 0.65, y + 0.375, text, ha="center", va="center")
    for x in (1.4, 3.5, 5.4):
        ax.annotate(
            "",
            (x + (0.8 if x == 1.4 else 0.6), y + 0.375),
            (x, y + 0.375),
            arrowprops={"arrowstyle": "->", "color": colour},
        )
    ax.annotate(
        "",
        (2.2, 2.1 - y + 0.375),
        (1.4, y + 0.375),
        arrowprops={"arrowstyle": "->", "color": colour, "linestyle": "--"},
    )
    ax.annotate(
        "",
        (7.4, 1.4),
        (7.3, y + 0.375),
        arrowprops={"arrowstyle": "->", "color": colour},
    )
for x, text in ((2.85, "exchanged"), (6.65, "slope through\nown points")):
    ax.text(x, 1.42, text, ha="center", va="center", color=figures.GREY)
ax.text(7.5, 1.4, "1/2", va="center", weight="bold")
fig

# %% [markdown]
# 1. Each process computes the features of its own images.
# 2. The processes exchange their features ($f_r$ are the features of process $r$).
# 3. Each process computes the loss $L$ of the whole batch. All get the same number.
# 4. In the backward pass each process computes the gradient through its own features and treats the others' as constants.
# 5. The parts of all processes $r$ are added. The sum is the gradient of the batch with respect to the weights $\theta$ of the network:
#
# $$ \frac{\partial L}{\partial \theta} = \sum_r \frac{\partial L}{\partial f_r}\, \frac{\partial f_r}{\partial \theta} $$ (eq-training-processes)
#
# Take the four points again, each multiplied by a weight $\theta$, which the training would change; now $\theta = 1$. The four differences
# $d_{ap} - d_{an}$ are $\theta$ times $1 - 1.2$, $1 - 0.2$, $1.8 - 0.2$ and $1.8 - 2$. All four terms of the loss are above 0, so its slope
# is the mean, $(-0.2 + 0.8 + 1.6 - 0.2) / 4 = 0.5$. Process 0 follows only its own two points, 0 and $\theta$, and takes 1.2 and 3 as
# constants. Then the four terms have slopes 1, 2, 1 and 1, whose mean is $5/4$. (In the second term $d_{ap} = \theta$ grows and $d_{an} =
# 1.2 - \theta$ shrinks, which makes 2.) For process 1 the slopes are $-1.2$, $-1.2$, $0.6$ and $-1.2$, whose mean is $-3/4$.

# %% tags=["demonstration", "nbval-check-output"]
labels_of_four = torch.tensor([0, 0, 1, 1])


def gradient_of(followed):
    """The gradient that reaches the weight through the given points."""
    weight = torch.tensor(1.0, requires_grad=True)
    mine = torch.tensor([[k in followed] for k in range(4)])
    seen = torch.where(mine, points * weight, (points * weight).detach())
    losses.global_triplet(
        seen, labels_of_four, margin=0.3, normalize=False
    ).loss.backward()
    return weight.grad.item()


print(
    f"{gradient_of((0, 1)):.2f} + {gradient_of((2, 3)):.2f} ="
    f" {gradient_of((0, 1, 2, 3)):.2f}"
)

# %% tags=["demonstration"]
assert np.isclose(
    gradient_of((0, 1)) + gradient_of((2, 3)), gradient_of((0, 1, 2, 3))
), "the parts of the processes sum to the whole gradient"

# %% [markdown]
# ### Batch norm
#
# One difference from a single process remains: batch norm takes its mean and variance over the images of one process. With
# `sync_batch_norm=True` it takes them over the whole batch, and two processes give the same result as one, up to rounding. The next cell
# starts a run with one process and a run with two (without mirroring, because each process makes its own random decisions). We compare their
# *first* step: its loss, and the running means of batch norm after it. Later steps amplify the rounding, so that after a few epochs the
# losses of two correct runs differ by several percent.

# %% tags=["demonstration"]
one = dataclasses.replace(
    tiny, mirror_prob=0.0, ids_per_batch=128, total_epochs=1, decay_at_epoch=1
)
with tempfile.TemporaryDirectory() as folder:
    alone = training.train(one, Path(folder) / "one")
    shared = training.train(
        dataclasses.replace(one, processes=2, sync_batch_norm=True),
        Path(folder) / "two",
    )
    statistics = [torch.load(result.weights) for result in (alone, shared)]
print(f"one step, on {one.ids_per_batch * one.images_per_id} images")

# %% tags=["demonstration"]
assert np.isclose(
    alone.metrics[0]["loss"], shared.metrics[0]["loss"], rtol=1e-4
), "two processes give the same loss as one"
assert all(
    torch.allclose(
        statistics[0][name], statistics[1][name], rtol=1e-3, atol=1e-4
    )
    for name in statistics[0]
    if name.endswith("running_mean")
), "two processes give the same batch norm as one"

# %% [markdown]
# ### What the processes check
#
# The processes add their gradients while the backward pass is still running. It computes the gradients of the last layers first; they are
# sent in messages of eight megabytes, each as soon as its gradients are known, while those of the earlier layers are computed
# (`training/exchange.py`).
#
# But the sum does not show whether all processes compute the same thing. If one process had a different learning rate, the two would train
# different networks, and no error would appear. The processes therefore compare:
#
# | when | what is compared | after a difference |
# |---|---|---|
# | before the first step | settings, versions, images and labels | the run ends with one line that names the difference |
# | after each epoch | all weights, bit for bit, except the running statistics of batch norm, which may differ if each process has its own | the run ends with one line that names the difference |
#
# All processes begin with the weights of the first one, so these need no comparison. All of this is tested with processes on a CPU and has
# not yet been run on GPUs.
#
# ### How to start them
#
# `make train PRESET=market1501_gl ARGS="-p processes 4"` uses four GPUs of one machine; the page [On your GPU](book/on_your_gpu.md) shows
# how to use the GPUs of several machines and the queue of a cluster, and what to look at when a training is slow. Synchronised batch norm
# sends messages in every layer that has batch norm, so it is off by default; then each process takes the mean of its own images.

# %% [markdown]
# ## Which epoch to keep
#
# The last epoch is not always the best. But the test set must not be used to choose an epoch, because choosing a model by its test score
# amounts to training on the test set. For this choice there are the *validation* people ([chapter 1](01_datasets.ipynb) sets them aside).
# With `train_part="train"` they are left out of the training. After every `validate_every` epochs the network ranks them, and the weights
# with the best mean average precision are kept in `best.pth`. The next cell does this with the small run from above:

# %% tags=["demonstration"]
watched = dataclasses.replace(tiny, train_part="train", validate_every=1)
with tempfile.TemporaryDirectory() as folder:
    validated = training.train(
        watched, folder, validate=full_run.validation(watched)
    )
    kept = torch.load(validated.best_weights[0])
    last = torch.load(validated.weights)
means = {row["epoch"]: row["val_mean_ap"] for row in validated.metrics}
print(f"epochs {sorted(means)} were validated, one was kept")

# %% tags=["demonstration"]
assert means[validated.best_epoch] == max(means.values()), (
    "the epoch with the best validation mAP is kept"
)
is_last = all(torch.equal(kept[name], last[name]) for name in last)
assert is_last == (validated.best_epoch == 4), (
    "best.pth contains the weights of that epoch"
)
train_people = set(datasets.open_dataset(watched.folder, "train").ids.tolist())
val_people = set(datasets.open_dataset(watched.folder, "val").ids.tolist())
assert not train_people & val_people, (
    "no validation person is in the training set"
)

# %% [markdown]
# Published numbers come from the last epoch of a training on *all* training people (`trainval`). So there are two trainings: the first,
# with validation people, to choose the settings (`make train PRESET=market1501_validated`), and the second with all people and these
# settings.

# %% [markdown]
# ## The result
#
# To find out how good the trained network is, we have to test it on people that it has never seen. For every query we rank the test gallery
# ([chapter 8](08_evaluation.ipynb) explains the table).

# %%
of_book = (config.dataset, plan.run_dir) == ("market1501", "runs/book/model")
assert not of_book or config == book.CONFIG, (
    "the book's run uses the book's settings"
)
scores = full_run.test(networks, config, plan, tested_on)
scores

# %% [markdown]
# The scores are written to the run's `results.json`, together with everything needed to trust them: all settings, the seed, the commit, the
# versions, the machine and the minutes.

# %%
written = full_run.write_results(config, plan, result, scores)
assert runs.read_json(written)["config"]["seed"] == config.seed, (
    "the result records its seed"
)

# %% [markdown]
# ## What the paper says, and what we see
#
# :::{admonition} The paper says
# AlignedReID (Zhang et al. 2017) trains with Adam and reduces the learning rate in steps. The original reproduction uses batches of 32 x 4, a
# base rate of 2e-4 and the exponential fall from epoch 151. It reaches rank-1 87.05 % and mAP 71.38 % (trapezoid) on Market-1501 with the
# global loss alone.
# :::
#
# In its whole training the book's run sees about a thousandth as many pixels as the original's run, and its people are drawn. The shape of
# the curves is the same: the distances first shrink, then separate, and a few hard triplets remain for a long time. To reproduce the
# published number, put `Market-1501-v15.09.15.zip` into `data/raw/` and run `make train PRESET=market1501_gl`.
#
# ## Which setting should I take?
#
# * `margin = 2` for a short training from random weights, as in the book's run; `margin = 0.3` for a long training from ImageNet weights.
# * A lower `base_lr` if the positive and the negative distances both shrink to zero: such a run has collapsed.
# * `decay_at_epoch` in the second half (151 of 300, or 13 of 18 here): the loss first has to fall at the full rate; then, with smaller and
#   smaller steps, the weights settle.
# * `train_part = "train"` with `validate_every` while you choose settings, then `"trainval"` with all people for the number that you report.
# * `sync_batch_norm = True` if several processes have few images each, because a mean over few images is inexact. It costs messages in
#   every layer with batch norm.
# * `deterministic = True` if you compare two runs on a GPU bit by bit; otherwise the order of the sums may vary.
#
# ## Summary
#
# * A configuration rejects unknown settings; a run folder belongs to one configuration.
# * The triplet loss depends only on the hardest pairs of each batch, so read its curve together with precision and distances.
# * A learning rate that falls to a thousandth lets the weights settle in the last epochs.
# * Seeds and checkpoints together make an interrupted run equal to an uninterrupted one.
#
# Next: [chapter 7](07_mutual_learning.ipynb) lets two models teach each other.
#
# ## Exercises
#
# **1.** With $T = 300$ and $s = 151$, in which epoch is the learning rate a tenth of $\eta_0$?
#
# :::{dropdown} Solution
# $0.001^{x} = 0.1$ for $x = 1/3$, so $e + 1 - 151 = 150 / 3$ and $e = 200$:
# `training.learning_rate(training.TrainConfig(), 200) / 2e-4` gives 0.1.
# :::
#
# **2.** Why does the sampler of [chapter 2](02_batches.ipynb) need $K \ge 2$, and what would go wrong with $P = 1$?
#
# :::{dropdown} Solution
# With $K = 1$ no anchor has a positive except itself; with $P = 1$ no anchor has a negative. The library rejects both:
# `dataclasses.replace(config, images_per_id=1)` raises an `InputError` that names the setting.
# :::
#
# **3.** Train with the soft margin, $\log(1 + e^{d_{ap} - d_{an}})$, and compare the curves.
#
# :::{dropdown} Solution
# `soft = training.train(dataclasses.replace(config, margin=None), "runs/book/soft")`, then
# `figures.training_curves(soft.metrics)`. The loss never reaches 0, because the soft margin is never 0.
# Margin satisfaction is then counted with margin 0 and equals precision.
# :::
#
# **4.** Compute the learning rate by equation {eq}`eq-training-rate`. The function gets the epoch $e$, the base rate $\eta_0$, the first
# epoch $s$ of the fall and the last epoch $T$. It returns the rate of epoch $e$. It has one mistake. Run the cell, read the answer and
# repair the function.

# %% tags=["demonstration", "nbval-check-output"]
from alignedreid_lib.exercises import check


def rate_of(epoch, base, start, last):
    if epoch < start:
        return base
    return base * 0.001 ** ((epoch - start) / (last + 1 - start))


check("06_training", rate_of)

# %% [markdown]
# :::{dropdown} Solution
# ```python
# def rate_of(epoch, base, start, last):
#     if epoch < start:
#         return base
#     return base * 0.001 ** ((epoch + 1 - start) / (last + 1 - start))
#
#
# assert check("06_training", rate_of)
# ```
# :::
