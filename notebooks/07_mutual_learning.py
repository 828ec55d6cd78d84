# %% [markdown]
# # 07 Mutual learning
#
# In mutual learning two networks see the same batches. Each learns from the labels and also from the other network's output for the batch.
# Neither is a fixed teacher; both learn at the same time. According to the paper both become better than a network that is trained alone.

# %% label="fig-partners" caption="A label names the person; the partner's output also shows which people are easily confused." alt="Left: one batch goes into two networks; the labels go to both, and each also learns from the answer of the other. Right, an example with made-up numbers: the label gives probability 1 to this person and 0 to two others; the partner gives 0.6 to this person, 0.35 to a person in similar clothes and 0.05 to a third person"
from alignedreid_lib import figures

fig = figures.Figure(figsize=(8, 3), layout="constrained")
left, right = fig.subplots(1, 2, width_ratios=(1.5, 1))
left.set(xlim=(-0.25, 4.3), ylim=(-0.6, 2.6))
left.set_axis_off()
BOX = {"boxstyle": "round,pad=0.45", "facecolor": "none"}
PLACES = {
    "one batch": (0.2, 1),
    "network 1": (1.7, 2),
    "network 2": (1.7, 0),
    "answer 1": (3.7, 2),
    "answer 2": (3.7, 0),
    "labels": (1.7, 1),
}
for words, place in PLACES.items():
    box = BOX | {"edgecolor": figures.GREY}
    left.text(*place, words, ha="center", va="center", bbox=box)
for begin, end, style, colour in (
    ("one batch", "network 1", "-", figures.GREY),
    ("one batch", "network 2", "-", figures.GREY),
    ("network 1", "answer 1", "-", figures.GREY),
    ("network 2", "answer 2", "-", figures.GREY),
    ("labels", "network 1", "-", figures.BLACK),
    ("labels", "network 2", "-", figures.BLACK),
    ("answer 2", "network 1", "--", figures.GREEN),
    ("answer 1", "network 2", "--", figures.GREEN),
):
    arrow = {"arrowstyle": "->", "linestyle": style, "color": colour}
    arrow |= {"shrinkA": 22, "shrinkB": 24, "linewidth": 1.5}
    if begin == "labels":
        arrow |= {"shrinkA": 12, "shrinkB": 12}
    if begin[:7] == "network":
        arrow |= {"shrinkA": 32, "shrinkB": 30}
    left.annotate("", PLACES[end], PLACES[begin], arrowprops=arrow)
left.text(3.25, 1, "learns from", color=figures.GREEN, va="center")
people = ("this person", "similar clothes", "a third person")
for shift, label, shares, colour in (
    (-0.2, "the label", (1, 0, 0), figures.BLACK),
    (0.2, "the partner's answer", (0.6, 0.35, 0.05), figures.GREEN),
):
    places = [k + shift for k in range(3)]
    right.barh(places, shares, height=0.36, color=colour, label=label)
right.set(yticks=range(3), yticklabels=people, xlabel="probability")
right.set_title("an example")
right.invert_yaxis()
right.grid(axis="y", visible=False)
right.legend(loc="lower right")
fig

# %% [markdown]
# **What you will learn**
#
# * which terms let models teach each other, by hand on three classes and on two images, then with the library;
# * how to train two models, with the distance matrices of both before and after;
# * how single and mutual learning compare over three seeds.
#
# **Time** on two cores: a quarter of a minute, plus one or two minutes if the chapter's two models are not trained yet.
# **Hardware**: any laptop, no GPU. Full training runs need a GPU.
#
# The next two cells are folded on the site. The first contains the settings, also those for several models; the second imports the library
# and checks them. You can add every other setting of `training.TrainConfig`, here or in a preset. Full runs of several models execute this
# notebook, too.

# %% tags=["parameters"]
# Parameters: the data
data_root = "data/synthetic"
run_dir = "runs/book/mutual"
height = 64
width = 32
ids_per_batch = 16
# the networks; backbones and model_devices name one for each model
num_models = 2
backbone = "resnet18.layer3"
backbones = ()
model_devices = ()
weights = None
# two models that start equal: refuse them, or make them differ by noise
twins = "refuse"
# the loss
id_weight = 1.0
probability_weight = 1.0
global_mutual_weight = 0.1
local_mutual_weight = 0.0
# the optimiser and its schedule
base_lr = 1e-3
total_epochs = 10
decay_at_epoch = 6
precision = "float32"
# the study at the end: seeds of its trainings; () reads the committed results
study_seeds = ()

# %% tags=["hide-input"]
import dataclasses
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from IPython.display import Markdown

from alignedreid_lib import (
    book,
    datasets,
    devices,
    evaluation,
    losses,
    runs,
    training,
)
from alignedreid_lib.batches import images
from alignedreid_lib.batches.sampling import IdentitySampler
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import full_run
from alignedreid_lib.evaluation.scores import ScoreTable

config, plan = full_run.read_settings(globals())
if plan.only_test:
    raise InputError(
        "only_test is a setting of chapter 6: test the file of each model there"
    )
# The study at the end trains in three ways. Their settings are checked here,
# before the first training.
WAYS = {
    "side by side": {"probability_weight": 0.0, "global_mutual_weight": 0.0},
    "probability": {"probability_weight": 1.0, "global_mutual_weight": 0.0},
    "probability and distance": {
        "probability_weight": 1.0,
        "global_mutual_weight": 0.1,
    },
}
studied = {
    (study_seed, way): dataclasses.replace(
        config, seed=study_seed, **weights_of_terms
    )
    for study_seed in plan.study_seeds
    for way, weights_of_terms in WAYS.items()
}
tested_on = book.prepare_data(config, **plan.data)
train_set = datasets.open_dataset(config.folder, config.train_part)

# %% [markdown]
# ## The problem
#
# A label names the person and gives no other information. It does not tell the network that two people are easily confused, or which two
# images of a person are nearly the same. A network discovers such facts by itself, and a network that starts from different random weights
# discovers different ones. In mutual learning each tells the other what it has found ([the figure](#fig-partners)).
#
# Here are the distances that two networks give between the images of one batch, which has eight people with four images each (or as many as
# a smaller dataset has):

# %%
size = (config.height, config.width)
store = images.ImageStore(
    train_set.paths, size, config.memory_limit, config.workers
)
counts = np.bincount(training.train_labels(train_set))
P, K = min(8, len(counts)), min(4, counts.max())
indices = next(
    iter(
        IdentitySampler(
            train_set.labels, ids_per_batch=P, images_per_id=K, seed=0
        )
    )
)
batch = torch.stack(store.fetch(indices))  # uint8 [P * K, 3, h, w]
labels = torch.from_numpy(train_set.labels[indices])


def matrix_of(network):
    """The distances [P * K, P * K] in the batch, over their mean."""
    with torch.no_grad():
        x = network.eval()(images.normalize(batch)).global_features
    distances = losses.euclidean_distances(x, x)
    return (distances / distances.mean()).numpy()


def draw_matrices(matrices, title):
    """Two distance matrices (a single model's twice) and how they differ."""
    matrices = (matrices * 2)[:2]
    difference = np.abs(matrices[0] - matrices[1])
    ticks = range(0, len(batch) + 1, 8)
    fig = figures.Figure(figsize=(8, 3.3), layout="constrained")
    axes = fig.subplots(1, 3)
    for ax, name, values, top in (
        (axes[0], "model 1", matrices[0], 2),
        (axes[1], "model 2", matrices[1], 2),
        (axes[2], "difference", difference, 0.5),
    ):
        image = ax.imshow(values, cmap="cividis", vmin=0, vmax=top)
        ax.set(title=name, xticks=ticks, yticks=ticks, xlabel="image")
        ax.grid(False)
        if name == "model 2":  # it has the scale of the first
            label = "distance / mean distance"
            fig.colorbar(image, ax=axes[:2], label=label, location="bottom")
        elif name == "difference":
            label = f"difference, mean {difference.mean():.2f}"
            fig.colorbar(image, ax=ax, label=label, location="bottom")
    axes[0].set_ylabel(title)
    return fig


# %% label="fig-two-matrices" caption="Before training neither matrix shows the eight people, and the two already differ." alt="Two distance matrices of a batch by two untrained networks and, on a scale four times finer, their difference: blocks along the diagonal are hardly visible"
at_home = dataclasses.replace(
    config, device="cpu", model_devices=(), compiled=False
)
untrained = [
    training.make_learner(at_home, k, 4).network
    for k in range(min(2, config.num_models))
]
before = [matrix_of(network) for network in untrained]
draw_matrices(before, "before training")

# %% [markdown]
# Rows and columns of [the distance matrices](#fig-two-matrices) are the images, four in a row for each person. A good matrix has dark blue
# blocks of 4 × 4 along the diagonal. Both networks are untrained, so such blocks are hardly visible. The two matrices already differ, and
# what the networks learn will also differ.
#
# ## What one model can teach another
#
# ### Class probabilities
#
# With an identity head ([chapter 3](03_model.ipynb)) a model gives image $i$ a probability $p_i^c$ for each training person $c$. The other
# model gives $q_i^c$. The *Kullback-Leibler divergence* $D(q_i \,\|\, p_i)$ is 0 if both agree, and it grows as the first model differs more
# from the second. This term of the first model's loss is the mean of the divergence over the $N$ images:
#
# $$ L_P = \frac1N \sum_i D(q_i \,\|\, p_i) = \frac1N \sum_i \sum_c q_i^c \log \frac{q_i^c}{p_i^c} $$ (eq-mutual-probability)
#
# By hand, with one image and three people: the first model gives all three the same probability; the second excludes the third person (a term
# with
# $q^c = 0$ counts as 0):

# %% tags=["nbval-check-output"]
p = [1 / 3, 1 / 3, 1 / 3]
q = [1 / 2, 1 / 2, 0]
by_hand = sum(b * np.log(b / a) for a, b in zip(p, q, strict=True) if b > 0)
print(f"{by_hand:.4f} = log(3/2) = {np.log(3 / 2):.4f}")

# %%
small = torch.tensor([1e-30])
logits = (
    torch.log(torch.tensor([p]).maximum(small)),
    torch.log(torch.tensor([q]).maximum(small)),
)
assert np.isclose(
    losses.mutual_probability(logits[0], [logits[1]]).item(), by_hand, atol=1e-5
), "the library's divergence equals the sum by hand"

# %% [markdown]
# ### Distances
#
# AlignedReID adds its own term, the *metric mutual loss*: the distance matrices of the two models for the batch should agree. Let $d_{ij}$
# be the distance of the images $i$ and $j$ in one model and $d'_{ij}$ in the other:
#
# $$ L_M = \frac1{N^2} \sum_{i, j} (d_{ij} - d'_{ij})^2 $$ (eq-mutual-distance)
#
# By hand: two images have distance 3 in one model and 5 in the other. Two of the four entries differ by 2, so the mean is $2 \cdot 4 / 4 = 2$.

# %% tags=["nbval-check-output"]
d = torch.tensor([[0.0, 3.0], [3.0, 0.0]], requires_grad=True)
e = torch.tensor([[0.0, 5.0], [5.0, 0.0]], requires_grad=True)
loss = losses.mutual_distance(d, [e])
loss.backward()
print(
    "loss",
    loss.item(),
    "| gradient of the first",
    d.grad[0, 1].item(),
    "| of the second",
    e.grad,
)

# %%
one, other = d.tolist(), e.tolist()
naive = sum((one[i][j] - other[i][j]) ** 2 for i in (0, 1) for j in (0, 1)) / 4
assert loss.item() == naive == 2.0, "the library's loss equals the sum by hand"
assert e.grad is None, "the partner gets no gradient from this loss"

# %% [markdown]
# * **The first model** has the gradient $2 \cdot (3 - 5) / 4 = -1$: a larger distance lowers its loss.
# * **The second model** has no gradient. Each model has its own loss, in which the partner's numbers are constants. So a loss moves its
#   model towards the partner and leaves the partner where it is.
# * **A step** of two models is therefore two separate steps that only exchange numbers, and the models may be on two devices.
#
# The loss of one model is $L_{\text{global}} + L_{\text{id}} + w_P L_P + w_M L_M$, where the first two terms are the triplet loss of the
# global features and the identification loss ([chapter 5](05_losses.ipynb)), here with $w_P = 1$ (`probability_weight`) and $w_M = 0.1$
# (`global_mutual_weight`). The published rows use $w_M = 1$, and $w_P = 0$ if there is no classifier loss.
#
# ## One step of two models by hand


# %% tags=["demonstration"]
def naive_mutual_step(networks, optimizers, batch, labels, settings):
    """Forward of all; each model's own losses and its two terms against
    constants; then all step."""
    seen = []
    for network in networks:
        embedding = network(images.normalize(batch))
        x = embedding.global_features
        seen.append((x, embedding.logits, losses.euclidean_distances(x, x)))
    found = []
    for k, (x, logits, distances) in enumerate(seen):
        _, other_logits, other_distances = seen[1 - k]
        term = losses.global_triplet(
            x, labels, settings.margin, settings.normalize
        )
        total = term.loss + torch.nn.functional.cross_entropy(logits, labels)
        q = other_logits.detach().softmax(1)
        total = (
            total
            + settings.probability_weight
            * (q * (q.log() - logits.log_softmax(1))).sum(1).mean()
        )
        total = (
            total
            + settings.global_mutual_weight
            * (distances - other_distances.detach()).square().mean()
        )
        found.append(total)
    for optimizer, total in zip(optimizers, found, strict=True):
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return [total.item() for total in found]


# %% [markdown]
# `mutual_step` does the same for any number of models (each mutual term is then the mean over the partners), and with every loss that the
# configuration turns on. The loop and the library start from the same weights and take one step in float64, so that only a mistake could
# make them differ:

# %% tags=["demonstration"]
pair = dataclasses.replace(
    book.CONFIG,
    backbone="shufflenet_v2_x0_5",
    num_models=2,
    probability_weight=1.0,
    global_mutual_weight=0.1,
    device="cpu",
)
people = torch.arange(32) // 4
by_loop = [training.make_learner(pair, k, 8) for k in (0, 1)]
by_library = [training.make_learner(pair, k, 8) for k in (0, 1)]
for learner in by_loop + by_library:
    network = learner.network.train().double()
    learner.forward = lambda images_, network=network: network(images_.double())
loop = naive_mutual_step(
    [learner.forward for learner in by_loop],
    [learner.optimizer for learner in by_loop],
    batch,
    people,
    pair,
)
library = [
    row["loss"].item()
    for row in training.mutual_step(by_library, batch, people, pair)
]
assert np.allclose(loop, library, rtol=1e-6), (
    "the loop and the library give the same losses"
)
for one, other in zip(by_loop, by_library, strict=True):
    gradients = [
        [p.grad for p in learner.network.base.parameters()]
        for learner in (one, other)
    ]
    assert all(
        torch.allclose(a, b, rtol=1e-5, atol=1e-9)
        for a, b in zip(*gradients, strict=True)
    ), "the loop and the library give the same gradients"

# %% [markdown]
# ## A training run
#
# `train` takes `num_models` from the configuration. All models see the same batches; each has its own weights, optimiser and seed (and its
# own backbone and device, if `backbones` and `model_devices` name them). With `own_views=True` each model gets its own random mirrors and
# crops of the same images, so the mutual terms still compare the same people in the same order. A checkpoint contains all models, so an
# interrupted run can be resumed as in chapter 6.

# %%
validate = full_run.validation(config) if config.validate_every else None
result = training.train(config, plan.run_dir, validate=validate)
print(
    f"{len(result.metrics)} epochs, {result.resumed_at} of them done before"
    " this notebook ran"
)
print([path.name for path in result.all_weights])

# %%
metrics = (
    [
        training.of_model(result.metrics, k)
        for k in range(1, config.num_models + 1)
    ]
    if config.num_models > 1
    else [result.metrics]
)
assert len(result.all_weights) == config.num_models, (
    "there is one file of weights per model"
)
assert all(len(rows) == config.total_epochs for rows in metrics), (
    "there is one row per epoch for each model"
)

# %% [markdown]
# :::{admonition} Predict first
# :class: tip
# Which of the two mutual terms is larger during this training, that of the probabilities or that of the distances?
# :::


# %% label="fig-mutual-curves" caption="Two models that see the same batches have nearly the same losses; the insets show the difference." alt="Losses over the epochs, one line for both models where they coincide, each with an inset of the difference between the models: the identification loss falls slowly, the probability term stays below a thousandth, the distance term falls to a third"
def draw_of_models(ax, name, of_models):
    """A loss of all models; those that coincide are one line with an inset
    of the difference."""
    epochs = range(1, len(of_models[0]) + 1)
    values = np.array([[row[name] for row in rows] for rows in of_models])
    ax.set(title=name.replace("_", " "), xlabel="epoch")
    ax.set_ylim(0, 1.15 * values.max() or 1)
    if len(values) != 2 or abs(values[0] - values[1]).max() > values.max() / 20:
        for k, line in enumerate(values):
            style, colour = figures.STYLES[k % 4], figures.NEUTRAL[k % 6]
            ax.plot(epochs, line, style, color=colour, label=f"model {k + 1}")
        ax.legend()
        return
    ax.plot(epochs, values.mean(0), color=figures.NEUTRAL[0])
    low = values.mean(0)[len(epochs) // 2 :].mean() < values.max() / 2
    inset = ax.inset_axes((0.5, 0.62 if low else 0.2, 0.46, 0.24))
    inset.plot(epochs, values[1] - values[0], color=figures.BLACK, linewidth=1)
    inset.axhline(0, color=figures.GREY, linewidth=0.8)
    inset.set_title("model 2 - model 1", fontsize=8, weight="normal")
    inset.tick_params(labelsize=7)
    inset.set(xticks=[])
    inset.grid(False)


fig = figures.Figure(figsize=(8, 2.9), layout="constrained")
names = [
    name
    for name in ("id_loss", "probability_loss", "global_mutual_loss")
    if name in metrics[0][0]
]
for ax, name in zip(
    np.ravel(fig.subplots(1, max(len(names), 1))), names, strict=False
):
    draw_of_models(ax, name, metrics)
fig

# %% [markdown]
# In [the figure](#fig-mutual-curves) one line shows both models, because their losses nearly coincide: both see the same batches, and each
# mutual term is the same for both or nearly so.
#
# * **The distance term** falls from the start.
# * **The probability term** stays tiny, and the first panel shows why: guessing uniformly among 170 people gives a loss of $\log 170 =
#   5.1$, and after these few epochs the classifiers are hardly better. Two models that only guess agree with each other.
# * **The first epoch** is above 5.1: a new classifier starts at 5.1, and the first steps make it confident in wrong answers.
#
# (The distance term is exactly the same for both models. The divergence is not symmetric, but it is nearly so for two outputs that are
# nearly equal.)

# %% label="fig-matrices-after" caption="Trained together, both networks show the eight people as blocks of four." alt="The same two distance matrices after training: dark blocks of four along the diagonal, similar in both models, and their difference on a scale four times finer"
networks = full_run.networks(config, plan, result)
trained = list(networks.values())[: config.num_models]
after = [matrix_of(network) for network in trained[:2]]
draw_matrices(after, "after training")

# %% [markdown]
# In [the figure](#fig-matrices-after) the blocks are dark, and both matrices have small distances between the same pairs of people. Are
# these two models more similar than two models that were trained without mutual terms? The study below measures it.


# %% tags=["demonstration"]
def contrast(matrix):
    """Mean distance of two people over that of one person's images."""
    same = (labels[:, None] == labels[None]).numpy() & ~np.eye(
        len(labels), dtype=bool
    )
    return matrix[labels[:, None] != labels[None]].mean() / matrix[same].mean()


# %% tags=["demonstration", "bound"]
for first, last in zip(before, after, strict=False):
    assert contrast(last) > 1.5 * contrast(first), (
        "training separates the people of the batch"
    )

# %% [markdown]
# ### Models that cannot teach each other
#
# Two models must differ to learn from each other. These two started from different random weights. Two models that start from the same file
# of ImageNet weights differ only in the layers that are added to them, the local branch and the classifier. If no loss uses these layers,
# both models take the same steps in every epoch, and every mutual term is 0. `train` rejects settings with which this is certain:

# %% tags=["demonstration", "nbval-check-output"]
book.dataset_folder("market1501")
with tempfile.TemporaryDirectory() as folder:
    start = Path(folder) / "start.pth"
    torch.save(by_loop[0].network.state_dict(), start)
    equal = dataclasses.replace(
        pair, weights=str(start), id_weight=0.0, probability_weight=0.0
    )
    try:
        training.train(equal, Path(folder) / "run")
    except InputError as error:
        message = str(error)
assert "stay equal; set twins" in message, "equal models are rejected"
print(message.replace(str(start), "start.pth"))

# %% [markdown]
# The original reproduction trains such pairs: in its published rows with mutual learning and only the global loss, two models start from
# one file of ImageNet weights. Both see the same batches and have the same loss, so in exact arithmetic they stay equal and teach each
# other nothing. Only rounding makes them differ: a GPU adds numbers in an order that varies from call to call, so sums differ in their last
# digits, and training amplifies the differences. The published gain of these rows therefore depends on chance, which no setting of the
# original controls.
#
# The setting `twins="noise"` makes two equal models differ on purpose: before the first step it multiplies each parameter of every model
# except the first by $1 + 10^{-6} z$ with $z$ from a normal distribution. Such a run can be repeated from its seed, on a CPU too. The preset
# of these rows uses it.

# %% tags=["demonstration"]
with tempfile.TemporaryDirectory() as folder:
    start = Path(folder) / "start.pth"
    torch.save(by_loop[0].network.state_dict(), start)
    noisy = dataclasses.replace(equal, weights=str(start), twins="noise")
    parted = [training.make_learner(noisy, k, 8) for k in (0, 1)]
first_step = training.mutual_step(parted, batch, people, noisy)
assert first_step[0]["global_mutual_loss"] > 0, "noise makes the models differ"

# %% [markdown]
# If a mutual loss is exactly 0 in all steps of an epoch, `train` stops with a message. (The preset and this check have not yet been run on
# a GPU.)
#
# ## The result
#
# Each model is tested by itself: mutual learning is a way to train, and only one of the models is used afterwards. These two were trained for
# 10 epochs and the model of the other chapters for 18, so compare these two with "side by side" below instead.
# ([Chapter 8](08_evaluation.ipynb) explains the columns.)

# %%
scores = full_run.test(networks, config, plan, tested_on)
scores

# %%
written = full_run.write_results(config, plan, result, scores)
rows_of_model = (
    len(tested_on)
    * len(plan.test_distances)
    * (1 + plan.test_rerank)
    * (1 + bool(plan.test_multi_query))
)
assert len(runs.read_json(written)["scores"]) == len(networks) * rows_of_model

# %% [markdown]
# ## Single learning against mutual learning
#
# One pair of models proves little. The preset `mutual_study` trains pairs from three seeds in three ways: side by side without mutual terms
# (two single models), with the probability term, and with the probability and the distance term. Everything else is the same.

# %%
study, minutes = [], 0.0
for (study_seed, way), settings in studied.items():
    folder = Path(plan.run_dir) / f"{way.replace(' ', '_')}_seed{study_seed}"
    done = training.train(settings, folder)
    minutes += done.minutes
    pair_of_models = full_run.networks(settings, plan, done)
    found = [matrix_of(network) for network in pair_of_models.values()]
    apart = float(np.abs(found[0] - found[1]).mean())
    for name, network in pair_of_models.items():
        table = full_run.score(network, settings, tested_on[:1]).named(name)
        study.append(
            {"seed": study_seed, "way": way, "difference": apart}
            | table.to_dict()["rows"][0]
        )
if studied:
    settings = dataclasses.asdict(config) | {
        "study_seeds": list(plan.study_seeds),
        "ways": WAYS,
    }
    device_used = devices.choose_device(config.device)
    study_file = runs.write_results(
        Path(plan.run_dir) / "study", settings, study, minutes, device_used
    )
else:
    study_file = runs.resolve("notebooks/results/mutual_study.json")
study = runs.read_json(study_file)["scores"]


# %% [markdown]
# The table gives the mean and the standard deviation of rank-1 and mAP over the six models of each way, in percent. The *difference* measures
# how much the two models of a pair disagree: it is the mean of $|d_{ij} - d'_{ij}|$ over the batch above, with each matrix divided by its own
# mean (0.06 is 6 % of a typical distance).
#
# :::{admonition} Predict first
# :class: tip
# Three pairs of networks were trained in each of the three ways. Is the gain of mutual learning larger than the standard deviation of the
# scores?
# :::


# %% tags=["nbval-check-output"]
def of_way(way, score):
    return [row[score] for row in study if row["way"] == way]


lines = ["| way | rank-1 | mAP (step) | difference |", "|---|---:|---:|---:|"]
for way in WAYS:
    parts = [
        f"{100 * statistics.mean(v):.1f} ± {100 * statistics.stdev(v):.1f}"
        for v in (of_way(way, "rank1"), of_way(way, "mean_ap_step"))
    ]
    parts.append(f"{statistics.mean(of_way(way, 'difference')):.3f}")
    lines.append(f"| {way} | " + " | ".join(parts) + " |")
Markdown("\n".join(lines))

# %%
assert len(study) >= 18 or studied, (
    "the study has three seeds, three ways and two models"
)
apart = {way: statistics.mean(of_way(way, "difference")) for way in WAYS}
assert apart["probability and distance"] < apart["side by side"], (
    "models with a distance term agree more than models without"
)

# %% [markdown]
# Is the higher score more than luck? `evaluation.compare` answers in two ways:
#
# * *Over queries*: with different queries the scores would be different. The table below gives the interval of the difference, and the
#   probability of such a difference by chance ([chapter 8](08_evaluation.ipynb) derives both). The interval comes from drawing the people
#   again, each with all their queries (a bootstrap); the probability comes from swapping the two models at random, person by person.
# * *Over seeds*: each seed gives different networks, so the gain is compared with the spread of the trainings (Welch's t test). The two
#   models of a pair are not independent, so each training counts once, with its first model.


# %%
def first_models(way):
    rows = [
        row for row in study if row["way"] == way and row["name"] == "model 1"
    ]
    return ScoreTable.from_dict({"rows": rows}).rows


comparison = evaluation.compare(
    first_models("side by side"), first_models("probability and distance")
)
comparison

# %%
over_queries, *over_seeds = comparison.rows[
    ::2
]  # of rank-1; a study of one seed has no row over seeds
assert all(
    np.isclose(row.difference, over_queries.difference) for row in over_seeds
), "both kinds of interval belong to the same difference of means"

# %% [markdown]
# * **Agreement.** Models with the distance term agree more, which is what the term is for.
# * **Score, for these networks.** In the first table the models with both terms also score about one point higher. The second table compares
#   only the first models of the three pairs, and gives +1.6 points of mAP. This gain is more than the luck of the queries, because its
#   interval is above 0.
# * **Score, for the method.** The three seeds of each way differ so much from each other that the interval of the gain in mAP reaches from
#   four points below 0 to seven above. Three trainings cannot show that mutual learning helps; a paper that trains once shows even less.
# * **The probability term** does not help here, because a partner that is still guessing has no information to give.
#
# :::{admonition} The paper says
# AlignedReID (Zhang et al. 2017, section 3.2) trains two networks with mutual learning (Zhang et al. 2018), with class probabilities and with
# the metric mutual loss on global distances, and then uses one of the two networks. The original reproduction reports on Market-1501,
# trapezoid AP: 87.05 / 71.38 for the global loss alone, 88.78 / 75.76 with mutual learning.
# :::
#
# Their results come from hours of training ResNet-50 on real people, ours from one minute of training a small network on drawn people. The
# mechanism is the same: the terms, which model learns from which, and the need to measure a gain over several seeds.
#
# ## On real images: does mutual learning help a small network?
#
# The original gained four points of mAP on Market-1501. Four presets with real images test whether a small network in a short training does
# the same. The three for Market-1501 use only the global loss; they differ in how the models start, in whether both see the same views, and
# in the weight of the term. The one for CUHK03 also has the local loss, and a second term for the local distances. Each pair of models is
# compared with a single model that was trained for the same number of steps; the difference is in points of mAP (step), with its 95 %
# interval over the people of the test set.

# %% tags=["hide-input"]
ALONE = {
    "cuhk03_mobilenet_mutual": "cuhk03_mobilenet_local",
    "market1501_mobilenet_mutual_noise": "market1501_mobilenet",
    "market1501_mobilenet_mutual_views": "market1501_mobilenet",
    "market1501_mobilenet_mutual_weak": "market1501_mobilenet",
}


def start(settings):
    """What makes the models of a run different."""
    if settings["twins"] == "noise":
        return "noise of a millionth"
    return "own views" if settings["own_views"] else "the added layers"


def shown(rows):
    return ", ".join(
        f"{100 * row.rank1:.1f} / {100 * row.mean_ap_step:.1f}" for row in rows
    )


head = (
    "| data | models differ by | weight | one model | two models | difference |"
)
lines = [head, "|---|---|---:|---:|---:|---|"]
gains = {}
for preset, single in ALONE.items():
    one, two = book.score_rows(single), book.score_rows(preset)
    if not (one and two):
        lines.append(f"| `{preset}` | not yet run | | | | |")
        continue
    settings = book.results_of(preset)[0]["config"]
    gains[preset] = gain = evaluation.compare(one, two).rows[1]
    ends = [100 * end for end in (gain.difference, gain.low, gain.high)]
    parts = [settings["dataset"], start(settings)]
    parts += [f"{settings['global_mutual_weight']:g}", shown(one), shown(two)]
    parts.append("{:+.1f} ({:+.1f} to {:+.1f})".format(*ends))
    lines.append("| " + " | ".join(parts) + " |")
Markdown("\n".join(lines))

# %%
assert gains["cuhk03_mobilenet_mutual"].high < 0, (
    "on CUHK03 the two models score below the single one"
)

# %% [markdown]
# On CUHK03 the two models score below the single one. The logs show what the terms do to the training: after 2 277 steps the hardest positive
# is nearer than the hardest negative for 73 % of the anchors; without the terms for 95 %. Terms that pull the distances of two models
# together slow down the losses that pull people apart. A row without numbers has not been run yet.
#
# ## Which setting should I take?
#
# * `num_models = 2` costs about twice the training of one model. The search afterwards costs the same, because it uses only one of them.
# * `global_mutual_weight = 0.1` in a short training: in our study the models agreed more and scored slightly higher. With the published weight of 1, a
#   short training on CUHK03 lost three to five points.
# * `probability_weight = 0` until the classifier is better than guessing: in our study the term changed the mAP by less than its standard deviation.
# * Let the models start differently, with `weights = None`, different `backbones`, or a loss on the layers that are added: equal models
#   have nothing to teach each other. If you cannot change these, `own_views = True` or `twins = "noise"` makes the models differ.
# * Train with more than three seeds per way before you claim a gain: three left an interval from four points below 0 to seven above.
#
# ## Summary
#
# * A partner's class probabilities show which people are easily confused; its distances show which images are similar.
# * In a model's loss the partner's numbers are constants: there are two losses and two backward passes, and the models exchange only
#   numbers.
# * One loop trains one model or several; each may have its own backbone and device.
# * Mutual learning makes models agree more. Only a table with spreads can show whether they also rank better.
#
# Next: [chapter 8](08_evaluation.ipynb) explains the scores.
#
# ## Exercises
#
# **1.** Is the divergence the same when the two models swap roles? Try $p = (\frac12, \frac12)$ and $q = (\frac9{10}, \frac1{10})$. What is
# it for equal models?
#
# :::{dropdown} Solution
# No: $D(q \,\|\, p) = 0.9 \ln 1.8 + 0.1 \ln 0.2 = 0.3681$ and $D(p \,\|\, q) = 0.5 \ln \frac59 + 0.5 \ln 5 = 0.5108$. For equal models it is
# 0, the logarithm of 1.
#
# ```python
# p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
# print(losses.mutual_probability(p, [q]).item(), losses.mutual_probability(q, [p]).item())
# ```
# :::
#
# **2.** The distance term compares distances, not features. Why would comparing features be meaningless?
#
# :::{dropdown} Solution
# Channel 7 of one network is unrelated to channel 7 of the other, because each network has its own coordinates. A rotation of all features
# does not change the distances.
#
# ```python
# x = torch.randn(6, 3)
# turn = torch.linalg.qr(torch.randn(3, 3)).Q
# one, other = losses.euclidean_distances(x, x), losses.euclidean_distances(x @ turn, x @ turn)
# assert torch.allclose(one, other, atol=1e-4)
# ```
# :::
#
# **3.** What do three models cost, compared with one?
#
# :::{dropdown} Solution
# Three models need three forward and three backward passes on the same batch, which is decoded and augmented once. The mutual terms work on
# matrices of [N, N] (distances) and [N, people] (probabilities), which costs little compared with a network. The cost is therefore about
# three times that of one model; [chapter 11](11_time_and_space.ipynb) measures about twice the cost of one model for two.
#
# ```python
# for row in training.of_model(result.metrics, 1)[:3]:
#     print(round(row["images_per_second"]), "images per second, two models")
# single = book.model().result.metrics
# print(round(single[1]["images_per_second"]), "images per second, one model")
# ```
# :::
#
# **4.** Which of the two models is $p$ in the divergence, and which is $q$? The function gets two lists of probabilities for one image:
# ours and the partner's. It computes the term of equation {eq}`eq-mutual-probability` with which we learn from the partner. It has one
# mistake. Run the cell, read the answer and repair the function.

# %% tags=["demonstration", "nbval-check-output"]
from alignedreid_lib.exercises import check


def divergence(ours, partner):
    total = 0.0
    for p, q in zip(ours, partner, strict=True):
        if p > 0 and q > 0:
            total += p * np.log(p / q)
    return total


check("07_mutual_learning", divergence)

# %% [markdown]
# :::{dropdown} Solution
# ```python
# def divergence(ours, partner):
#     total = 0.0
#     for p, q in zip(ours, partner, strict=True):
#         if q > 0:
#             total += q * np.log(q / p)
#     return total
#
#
# assert check("07_mutual_learning", divergence)
# ```
# :::
