# %% [markdown]
# # 06 Training
#
# One network, two losses, a few hundred lines of settings, schedule and loop: this chapter trains the model that the
# other chapters use, and it is the notebook that full trainings run in.
#
# **What you will hold**
# * a trained model in a run folder that survives being killed at any moment;
# * every setting of the training, and what the learning rate does over the epochs;
# * three curves, and how to read them together.
#
# **Time** on two cores: three quarters of a minute, and a minute more if the book's model is not trained yet.
# **Hardware**: any laptop, no GPU. Full trainings (`make train PRESET=market1501_gl`) want a GPU.

# %% [markdown]
# ## Settings
#
# The next cell holds every setting as a literal. A *preset* is a small file in `notebooks/presets` that replaces some of them: `make train PRESET=name`,
# typed in a terminal in the project's folder, injects its values right after this cell and runs this notebook. `archive = ""` stands for the book's own drawn people.

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
# how the data is prepared, where it is not there yet
num_val_ids = None
pattern = ""
test_share = None
# the test
test_distances = ("global",)
test_sets = ()
test_rerank = False
combined_of = ()
only_test = ()

# %% [markdown]
# Two objects are built from them: the config of the training (`config.TrainConfig` describes each setting) and the plan of the data and the test (`full_run.Plan` does). They know every
# setting by name, type and range, so a misspelt or impossible one stops the notebook here, not an hour later.

# %%
import dataclasses
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from alignedreid_lib import book, datasets, devices, figures, losses, runs, training
from alignedreid_lib.batches import images
from alignedreid_lib.batches.sampling import IdentitySampler
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import full_run
from alignedreid_lib.evaluation.scores import ScoreTable, average
from alignedreid_lib.model import AlignedReID

of_training, of_plan = (
    [field.name for field in dataclasses.fields(kind)]
    for kind in (training.TrainConfig, full_run.Plan)
)
config = runs.read_parameters(training.TrainConfig, globals(), extra=of_plan)
plan = runs.read_parameters(full_run.Plan, globals(), extra=of_training)

# %% [markdown]
# A value that cannot work is refused by name:

# %% tags=["demonstration", "nbval-check-output"]
try:
    dataclasses.replace(config, schedule="exponential", decay_at_epoch=config.total_epochs + 1)
except InputError as error:
    message = str(error)
print(message)

# %% [markdown]
# The data: the drawn people of [chapter 1](01_datasets.ipynb), or the archive that a preset names. Either is
# prepared once and then found. A preset may also train on several datasets merged (`dataset: combined`), and test on each.

# %%
tested_on = book.prepare_data(config, **plan.data)
train_set = datasets.open_dataset(config.folder, config.train_part)
labels_found = np.unique(train_set.labels)
assert labels_found.tolist() == list(range(len(set(train_set.ids)))), (
    "labels count the identities from 0"
)

# %% [markdown]
# ## The problem in a picture
#
# A fresh network already gives every picture a feature. Take one batch of $P \times K$ pictures and look at all pairs:
# how far apart are two pictures of the same person, and two of different people? The batch has 16 people with 4 pictures each,
# or as many as a smaller dataset has.

# %%
if plan.only_test:  # no training, so there may be no training people
    shown = datasets.open_dataset(runs.resolve(config.data_root) / tested_on[0], "test")
    people = shown.ids
else:
    shown, people = train_set, training.train_labels(train_set)
size = (config.height, config.width)
store = images.ImageStore(shown.paths, size, config.memory_limit, config.workers)
_, counts = np.unique(people, return_counts=True)
P, K = min(16, len(counts)), min(4, counts.max())
indices = next(iter(IdentitySampler(people, ids_per_batch=P, images_per_id=K, seed=0)))
pictures = images.normalize(torch.stack(store.fetch(indices)))
labels = torch.from_numpy(people[indices])
assert pictures.shape == (P * K, 3, *size), "P people x K pictures, three colours, height x width"


# %%
def pair_distances(network):
    """Distances of all pairs in the batch, and which pairs are of one person."""
    network.eval()
    with torch.no_grad():
        x = losses.unit_length(network(pictures).global_features)
    pairs = torch.triu_indices(len(x), len(x), offset=1)
    return losses.euclidean_distances(x, x)[pairs[0], pairs[1]], (labels[:, None] == labels)[
        pairs[0], pairs[1]
    ]


def draw_pairs(networks):
    """A histogram of pair distances for each network."""
    _, axes = plt.subplots(
        1, len(networks), figsize=(3.6 * len(networks), 2.4), squeeze=False, layout="constrained"
    )
    for ax, (title, network) in zip(axes[0], networks.items(), strict=True):
        distances, same = pair_distances(network)
        top = float(distances.max())
        for mask, name, style in ((~same, "different people", "-"), (same, "same person", "--")):
            if mask.any():  # one person alone has no pair of different people
                found = np.histogram(distances[mask], bins=24, range=(0, top), density=True)
                ax.stairs(*found, label=name, linestyle=style, linewidth=1.8, fill=False)
        ax.set(title=title, xlabel="distance of unit features", yticks=[])
    axes[0][0].legend()
    plt.show()


# %% label="fig-pairs-before" alt="Histogram of the distances of pairs before training: same and different people overlap for half of their range"
torch.manual_seed(0)
untrained = AlignedReID(book.CONFIG.backbone)
draw_pairs({"before training": untrained})

# %% [markdown]
# The two curves of [the figure](#fig-pairs-before) overlap: at a distance of 0.2 it may be the same person or another. Training has to pull them apart.

# %% [markdown]
# ## The loss that pulls
#
# [Chapter 5](05_losses.ipynb) derived the loss; here is what this run uses of it. For every anchor $a$ of the batch take the farthest picture of the same person, its *hardest positive* at distance
# $d_{ap}$, and the nearest picture of anybody else, its *hardest negative* at distance $d_{an}$. The loss asks that the
# negative be farther by a margin $m$:
#
# $$ L = \frac{1}{PK} \sum_a \max(0,\; d_{ap} - d_{an} + m) $$ (eq-training-triplet)
#
# :::{admonition} The paper says
# Batch-hard mining is Hermans et al. 2017 (arXiv 1703.07737), eq. 5; AlignedReID (Zhang et al. 2017, section 3.2) uses
# it on its global features. The original reproduction sets $m = 0.3$ and leaves the features at the length that the
# network gives them.
# :::
#
# The book's run starts from random weights and has a minute. So it differs from the original's in two things. It asks for $m = 2$:
# beside features of a length of ten or more 0.3 is soon reached ([chapter 5](05_losses.ipynb)), and a satisfied anchor teaches nothing. And it adds a
# second term, the identification loss: a classifier over the training people, weighted by `id_weight`. Its gradient shows the way while
# the triplets still pull all pictures together; full runs from ImageNet weights do without.
#
# By hand, four points on a line, two people:

# %% tags=["nbval-check-output"]
points = torch.tensor([[0.0], [1.0], [1.2], [3.0]])
people = torch.tensor([0, 0, 1, 1])
term = losses.global_triplet(points, people, margin=0.3, normalize=False)
print("farthest positives", [round(d, 1) for d in term.mined.positive_distance.tolist()])
print("nearest negatives ", [round(d, 1) for d in term.mined.negative_distance.tolist()])

# %% [markdown]
# The first anchor at 0 has its positive at 1 and its nearest negative at 1.2: $1 - 1.2 + 0.3 = 0.1$. The others give
# $1 - 0.2 + 0.3 = 1.1$, $1.8 - 0.2 + 0.3 = 1.9$ and $1.8 - 2 + 0.3 = 0.1$. The mean is $3.2 / 4 = 0.8$.

# %%
assert torch.isclose(term.loss, torch.tensor(0.8)), "the sum done by hand is the library's loss"

# %% [markdown]
# ## The learning rate
#
# Adam takes the steps. Its learning rate is $\eta_0$ before epoch $s$. From epoch $s$ on it falls, to a thousandth of
# $\eta_0$ in the last epoch $T$; in epoch $e$ it is
#
# $$ \eta(e) = \eta_0 \cdot 0.001^{\,(e + 1 - s)\,/\,(T + 1 - s)} \qquad e \ge s $$ (eq-training-rate)
#
# With $T = 4$ and $s = 3$ the last two epochs have $0.001^{1/2} \approx 0.0316$ and $0.001$ of the base:

# %% tags=["nbval-check-output"]
short = dataclasses.replace(
    config, schedule="exponential", base_lr=1.0, total_epochs=4, decay_at_epoch=3
)
rates = [training.learning_rate(short, epoch) for epoch in range(1, 5)]
print([round(rate, 4) for rate in rates])

# %%
assert np.allclose(rates, [1, 1, 0.001 ** (1 / 2), 0.001]), (
    "two epochs at the base, two on the way down"
)

# %% [markdown]
# The other schedule, *staircase*, multiplies by a factor at given epochs. Both, as the original reproduction runs them
# on Market-1501 (300 epochs, base 2e-4):

# %% label="fig-schedules" alt="Learning rate over 300 epochs on a logarithmic axis: the exponential schedule is flat for 150 epochs and then a straight fall; the staircase has two steps"
epochs = np.arange(1, 301)
published = training.TrainConfig()
staircase = training.TrainConfig(schedule="staircase", staircase_at_epochs=(101, 201))
_, ax = plt.subplots(figsize=(6, 2.4), layout="constrained")
ax.semilogy(
    epochs,
    [training.learning_rate(published, e) for e in epochs],
    label="exponential, from epoch 151",
)
ax.semilogy(
    epochs,
    [training.learning_rate(staircase, e) for e in epochs],
    "--",
    label="staircase, at 101 and 201",
)
ax.set(xlabel="epoch", ylabel="learning rate")
ax.legend()
plt.show()

# %% [markdown]
# On the logarithmic axis of [the figure](#fig-schedules) the exponential fall is a straight line: every epoch divides the rate by the same number.

# %% [markdown]
# ## One step, by hand
#
# A step of training in plain loops: forward, distances, the hardest positive and negative of every anchor, the loss,
# backward.


# %% tags=["demonstration"]
def naive_loss(network, batch, labels, margin):
    """The loss of one training step, mining with two loops."""
    x = network(batch)
    total = 0.0
    for a in range(len(x)):
        distances = [(x[a] - x[b]).square().sum().clamp(min=1e-12).sqrt() for b in range(len(x))]
        positive = max(d for b, d in enumerate(distances) if labels[b] == labels[a] and b != a)
        negative = min(d for b, d in enumerate(distances) if labels[b] != labels[a])
        total = total + (positive - negative + margin).clamp(min=0)
    return total / len(x)


# %% [markdown]
# The library's `train_step` does the same with matrices. Both start from equal weights and take one step on an equal batch of
# 6 people x 2 pictures, with a small network. They add in another order, so they round differently, and how differently
# depends on the processor. We therefore compute in float64, where rounding is a billion times smaller than a mistake would be,
# and compare after one step: every further step would amplify the difference.

# %% tags=["demonstration"]
small = dataclasses.replace(
    config, margin=0.3, normalize=False, global_weight=1.0, local_weight=0.0
)
chosen = next(iter(IdentitySampler(train_set.labels, 6, 2, seed=0)))
batch, people = torch.stack(store.fetch(chosen)), torch.from_numpy(train_set.labels[chosen])
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
            torch.float32,
        )
        loss = training.train_step(learner, batch, people, small)["loss"]
    found[name] = loss.item(), [p.grad for p in network.base.parameters() if p.grad is not None]

# %% tags=["demonstration"]
assert np.isclose(found["naive"][0], found["library"][0], rtol=1e-6), (
    "loops and matrices give the same loss"
)
assert all(
    torch.allclose(one, other, rtol=1e-5, atol=1e-9)
    for one, other in zip(found["naive"][1], found["library"][1], strict=True)
), "and the same gradient for every weight"

# %% [markdown]
# ## A run
#
# A training is this step, repeated: each epoch is one pass over the identities ([chapter 2](02_batches.ipynb)), each
# ends with a checkpoint. `train` starts the run, goes on from its last finished epoch, or finds it finished. (To test
# weights that are there already, name their files in `only_test`; then nothing is trained.)

# %%
validate = full_run.validation(config) if config.validate_every else None
result = None if plan.only_test else training.train(config, plan.run_dir, validate=validate)
if result:
    print(
        f"{len(result.metrics)} epochs, {result.resumed_at} of them done before this notebook asked"
    )

# %% [markdown]
# What the run folder holds. Every file is first written under another name and then renamed, so that a kill at any moment leaves
# the last good one: `config.json` has the settings, `metrics.jsonl` a row an epoch, `checkpoint.pt` what resuming needs, `weights.pth` the model, and
# `tensorboard` the curves.

# %%
for path in sorted(runs.resolve(plan.run_dir).glob("*")):
    if path.suffix in (".json", ".jsonl", ".pt", ".pth") or path.is_dir():
        print(path.name + ("/" if path.is_dir() else ""))

# %%
finished = {"config.json", "metrics.jsonl", "checkpoint.pt", "weights.pth", "tensorboard"}
if result:
    assert finished <= {path.name for path in result.run_dir.iterdir()}, (
        "a finished run is complete"
    )
    assert [row["epoch"] for row in result.metrics] == list(range(1, config.total_epochs + 1)), (
        "a row an epoch"
    )

# %% [markdown]
# ## Reading the curves

# %% label="fig-curves" alt="Three panels over the epochs: the loss and its terms fall, precision and margin satisfaction rise, positive and negative distances part"
figures.training_curves(result.metrics) if result else "nothing was trained"

# %% [markdown]
# Read the three panels of [the figure](#fig-curves) together.
#
# * **Loss** is the sum of both terms. The triplets' falls fast, then slowly: once most hold, only the hardest are left, and batch-hard
#   mining looks at nothing else. In the end most of the sum is identification.
# * **Precision** (*negative farther*) is the share of anchors whose hardest negative is farther than their hardest positive; **margin
#   satisfaction** (*by the margin*) asks for the margin too. When both reach 1, the triplets have nothing more to teach. (The setting
#   `precision` is something else: the format of the numbers.)
# * **Distances**: at first both shrink, as the network looks for safety where everybody is equal; then both grow again, the negatives
#   faster, and the curves part. A run whose curves shrink to zero together has collapsed: lower the rate.
#
# And [the picture of the beginning](#fig-pairs-before) again, with the same batch:

# %% alt="Histograms of pair distances before and after training: after it, same-person pairs lie left of most others (mind the scales: all distances have grown)"
tested = {file: runs.resolve(file) for file in plan.only_test} or {"": result.weights}
if result and result.best_weights:  # a run that validated: its best epoch beside its last
    tested = {"last epoch": result.weights, f"epoch {result.best_epoch}": result.best_weights[0]}
networks = {name: book.load(config, file) for name, file in tested.items()}
model = next(iter(networks.values()))
draw_pairs(
    {"before training": untrained, "after training": model}
    if config.backbone == book.CONFIG.backbone
    else {"after": model}
)

# %% tags=["demonstration", "bound"]
distances, same = pair_distances(model)
assert distances[same].mean() < distances[~same].mean(), (
    "one person's pictures lie nearer than different people's"
)

# %% [markdown]
# ## The same run again
#
# A batch depends on the seed, the epoch and its number alone, and a checkpoint holds the rest: weights, Adam's moments,
# the random state. So a run that was cut goes on as if nothing had happened (on a GPU up to rounding, since its sums are added
# in an order left to chance; `deterministic = True` asks for one order). Here is a small one, cut after two of four
# epochs, beside one that was left alone:

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
    """Stands for a power cut."""


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
assert resumed.resumed_at == 2, "two epochs were done before the cut"
assert all(torch.equal(whole_weights[name], resumed_weights[name]) for name in whole_weights), (
    "bit for bit the same"
)

# %% [markdown]
# ## Several processes
#
# A bigger machine trains faster if its GPUs share each batch: of $P$ people every process embeds its part. The loss
# cannot be shared in the same way. Of the four points above, let one process hold the two of person 0 and another the
# two of person 1: neither has a negative, and whatever each computes alone is not the loss of the batch. So the processes exchange their features, $f_r$ being those that
# process $r$ made, and each computes the loss of the whole batch. On the way back
# each follows its own features, the others' being constants to it, and the parts add up to the gradient:
#
# $$ \frac{\partial L}{\partial \theta} = \sum_r \frac{\partial L}{\partial f_r}\, \frac{\partial f_r}{\partial \theta} $$ (eq-training-processes)
#
# The four points once more, multiplied by a weight $\theta = 1$ that is to be learned. All points followed, the four gaps are
# $\theta$ times $1 - 1.2$, $1 - 0.2$, $1.8 - 0.2$ and $1.8 - 2$; every term is active, so the slope is $(-0.2 + 0.8 + 1.6 - 0.2) / 4
# = 0.5$. Following the first two points only, the four terms have slopes 1, 2, 1 and 1 (the second: $d_{ap} = \theta$ grows, and
# $d_{an} = 1.2 - \theta$ shrinks, 1.2 being a constant), together $5/4$; the other two give $-1.2,
# -1.2, 0.6, -1.2$, together $-3/4$.

# %% tags=["demonstration", "nbval-check-output"]
labels_of_four = torch.tensor([0, 0, 1, 1])


def gradient_of(followed):
    """The gradient that reaches the weight through the points that are followed."""
    weight = torch.tensor(1.0, requires_grad=True)
    mine = torch.tensor([[k in followed] for k in range(4)])
    seen = torch.where(mine, points * weight, (points * weight).detach())
    losses.global_triplet(seen, labels_of_four, margin=0.3, normalize=False).loss.backward()
    return weight.grad.item()


print(f"{gradient_of((0, 1)):.2f} + {gradient_of((2, 3)):.2f} = {gradient_of((0, 1, 2, 3)):.2f}")

# %% tags=["demonstration"]
assert np.isclose(gradient_of((0, 1)) + gradient_of((2, 3)), gradient_of((0, 1, 2, 3))), (
    "parts of one gradient"
)

# %% [markdown]
# One difference is left: batch norm takes its mean and variance over the pictures of one process. With
# `sync_batch_norm=True` it takes them over the whole batch, and two processes compute what one computes, up to rounding. Here
# are both, started from this notebook (without mirroring, since each process draws its own). We compare their *first* step: its loss,
# and the running means of batch norm that it leaves. Later steps amplify the rounding, so that the losses of two correct runs
# differ by percents after a few epochs.

# %% tags=["demonstration"]
one = dataclasses.replace(
    tiny, mirror_prob=0.0, ids_per_batch=128, total_epochs=1, decay_at_epoch=1
)
with tempfile.TemporaryDirectory() as folder:
    alone = training.train(one, Path(folder) / "one")
    shared = training.train(
        dataclasses.replace(one, processes=2, sync_batch_norm=True), Path(folder) / "two"
    )
    statistics = [torch.load(result.weights) for result in (alone, shared)]
print(f"one step, on {one.ids_per_batch * one.images_per_id} pictures")

# %% tags=["demonstration"]
assert np.isclose(alone.metrics[0]["loss"], shared.metrics[0]["loss"], rtol=1e-4), (
    "two processes have the loss of one"
)
assert all(
    torch.allclose(statistics[0][name], statistics[1][name], rtol=1e-3, atol=1e-4)
    for name in statistics[0]
    if name.endswith("running_mean")
), "and its batch norm"

# %% [markdown]
# `make train PRESET=market1501_gl ARGS="-p processes 4"` takes four GPUs of one machine; the README shows how `torchrun`
# takes those of several machines. Synchronising costs messages in every layer, so it is off unless it is asked for; each process
# then takes the mean of its own pictures.

# %% [markdown]
# ## Which epoch to keep
#
# The last epoch need not be the best, and the test people must not decide: whoever looks at them to choose has trained
# on them. That is what the *validation* people are for ([chapter 1](01_datasets.ipynb) splits them off). With
# `train_part="train"` they are left out of the training, and every `validate_every` epochs the network ranks them; the
# weights with the best mean average precision are kept in `best.pth`. The small run once more:

# %% tags=["demonstration"]
watched = dataclasses.replace(tiny, train_part="train", validate_every=1)
with tempfile.TemporaryDirectory() as folder:
    validated = training.train(watched, folder, validate=full_run.validation(watched))
    kept = torch.load(validated.best_weights[0])
    last = torch.load(validated.weights)
means = {row["epoch"]: row["val_mean_ap"] for row in validated.metrics}
print(f"epochs {sorted(means)} were validated, one was kept")

# %% tags=["demonstration"]
assert means[validated.best_epoch] == max(means.values()), "the best by validation is kept"
is_last = all(torch.equal(kept[name], last[name]) for name in last)
assert is_last == (validated.best_epoch == 4), "best.pth holds the weights of that epoch"
train_people = set(datasets.open_dataset(watched.folder, "train").ids.tolist())
val_people = set(datasets.open_dataset(watched.folder, "val").ids.tolist())
assert not train_people & val_people, "nobody is trained on and validated with"

# %% [markdown]
# Published numbers are those of the last epoch of a training on *all* training people (`trainval`): settings are chosen
# with the split, then the training is repeated without it. `make train PRESET=market1501_validated` does the first.

# %% [markdown]
# ## The result
#
# What the loss is worth shows on people the network has never seen: rank the test gallery for every query
# ([chapter 8](08_evaluation.ipynb) explains the table).

# %%
of_book = (config.dataset, plan.run_dir) == ("market1501", "runs/book/model")
assert not of_book or config == book.CONFIG, "the book's own settings"
tables = {
    name: full_run.score(network, config, tested_on, plan.test_distances, plan.test_rerank)
    for name, network in networks.items()
}
scores = ScoreTable([])
for name, table in tables.items():
    scores += table.named(name)
if len(plan.only_test) > 1:  # several runs of one training: their mean and spread
    scores += average(list(tables.values())).named(f"mean of {len(plan.only_test)}")
scores

# %% [markdown]
# They go into the run's `results.json`, together with what a number needs to be believed: all settings, the seed, the
# commit, the versions, the machine and the minutes.

# %%
device_used = devices.choose_device(config.device)
written = runs.write_results(
    plan.run_dir,
    dataclasses.asdict(config)
    | ({"precision": result.precision} if result else {"only_test": list(plan.only_test)}),
    scores.to_dict()["rows"],
    result.minutes if result else 0.0,
    device_used,
)
assert runs.read_json(written)["config"]["seed"] == config.seed, (
    "the result says which seed it is of"
)

# %% [markdown]
# ## What the paper says, and what we see
#
# :::{admonition} The paper says
# AlignedReID (Zhang et al. 2017) trains with Adam and lets the rate fall in steps.
# The original reproduction takes 32 x 4, a base of 2e-4 and the exponential fall from epoch 151, and reaches rank-1 87.05 % and
# mAP 71.38 % (trapezoid) on Market-1501 with the global loss alone.
# :::
#
# Over its whole training the book's run shows its network a thousandth of the pixels, and people made of paint. What carries over is the shape of the curves:
# the early shrinking, the parting, the long tail of hard triplets. To re-make the published number, put
# `Market-1501-v15.09.15.zip` into `data/raw/` and say `make train PRESET=market1501_gl`.
#
# ## Summary
#
# * A config refuses what it does not know; a run folder belongs to one config.
# * The triplet loss sees the hardest pairs of each batch only, so its curve is not the whole story: precision and distances are.
# * A learning rate that falls to a thousandth lets the last epochs settle.
# * Seeds and checkpoints together make a cut run the same run.
#
# Next: [chapter 7](07_mutual_learning.ipynb) lets two models teach each other.
#
# ## Exercises
#
# **1.** With $T = 300$ and $s = 151$, in which epoch is the rate a tenth of the base?
#
# :::{dropdown} Solution
# $0.001^{x} = 0.1$ for $x = 1/3$, so $e + 1 - 151 = 150 / 3$ and $e = 200$:
# `training.learning_rate(training.TrainConfig(), 200) / 2e-4` gives 0.1.
# :::
#
# **2.** Why does the sampler need $K \ge 2$, and what would the loss do with $P = 1$?
#
# :::{dropdown} Solution
# With $K = 1$ no anchor has a positive but itself; with $P = 1$ no anchor has a negative. Both are refused:
# `dataclasses.replace(config, images_per_id=1)` raises an `InputError` that says so.
# :::
#
# **3.** Train with the soft margin, $\log(1 + e^{d_{ap} - d_{an}})$, and compare the curves.
#
# :::{dropdown} Solution
# `soft = training.train(dataclasses.replace(config, margin=None), "runs/book/soft")`, then
# `figures.training_curves(soft.metrics)`. The loss never reaches 0, because the soft margin always asks for a little
# more; margin satisfaction is then counted with margin 0 and equals precision.
# :::
