# %% [markdown]
# # 11 Time and space
#
# How long does each step take, how much memory does it need, and how far is this from the least that is possible?

# %% tags=["parameters"]
# Parameters: measurements of `make bench`; your own are in runs/bench.json
bench = "notebooks/results/time_and_space_cpu.json"

# %% tags=["hide-input"]
import numpy as np
import torch
from IPython.display import Markdown

from alignedreid_lib import book, figures, runs
from alignedreid_lib.errors import InputError
from alignedreid_lib.model import AlignedReID

settings = runs.read_settings(globals(), bench=str)
measured = runs.read_json(runs.resolve(settings.bench))
if not (
    isinstance(measured, dict)
    and measured.keys() >= {"device", "torch", "commit", "rows"}
):
    raise InputError(
        f"{settings.bench} holds no measurements; make them with `make bench`"
    )


def find(step, part):
    """The measurement of a step whose description has these words."""
    return next(
        row
        for row in measured["rows"]
        if row["step"] == step and part in row["what"]
    )


# %% label="fig-bars" caption="The same three steps, eight years apart: a part of the gain comes from the machine." alt="Bars of seconds on a logarithmic axis for local distances, for CMC and mAP and for re-ranking: the original's take between 15 and 140 seconds, ours between a tenth of a second and ten"
original = {  # seconds, published
    "local distances": 140,
    "CMC and mAP": 15,
    "re-ranking": 80,
}
ours = {
    "local distances": find("distances", "aligned")["seconds"],
    "CMC and mAP": find("scoring", "trained")["seconds"],
    "re-ranking": find("re-ranking", "3368")["seconds"],
}
machine = measured["device"]
fig = figures.Figure(figsize=(8, 2.7), layout="constrained")
ax = fig.subplots()
for place, (label, times, style) in enumerate(
    (
        (
            "the original reproduction, TITAN X and its processor",
            original,
            {"facecolor": figures.GREY},
        ),
        (f"this library, {machine}", ours, {"facecolor": figures.GREEN}),
    )
):
    rows = np.arange(len(times)) + 0.4 * place - 0.2
    ax.barh(rows, times.values(), height=0.36, label=label, **style)
    for row, value in zip(rows, times.values(), strict=True):
        words = f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
        ax.text(value * 1.06, row, words, va="center", fontsize=8.5)
ax.set(
    yticks=range(len(original)),
    yticklabels=original,
    xscale="log",
    xlabel="seconds for Market-1501's test set",
    xlim=(0.05, 400),
)
ax.invert_yaxis()
ax.grid(axis="y", visible=False)
fig.legend(loc="outside upper left", ncols=2)
fig

# %% [markdown]
# **What you will learn**
#
# * how the times of the original reproduction compare with ours, and ours with their *floors*, the times of what every program has to
#   compute;
# * how to compute two floors on paper: the operations of a distance matrix, and the bytes that a training step must keep;
# * which commands measure all of this on your own machine, and on its GPU.
#
# **Time** on two cores: a few seconds; `make bench`, which measures at full size, takes about eight minutes, and `make gpu-check` should take
# less than five on a machine with a GPU. **Hardware**: any laptop, no GPU.
#
# ## The problem
#
# The original reproduction published its times for Market-1501's test set, 3 368 queries and 15 913 gallery images. Ours in
# [the figure](#fig-bars) are for the same sizes, measured here:

# %%
commit = (measured["commit"] or "none")[:7]
print(measured["device"], "| torch", measured["torch"], "| commit", commit)

# %%
for step, seconds in original.items():
    assert ours[step] < seconds, f"{step} takes less time than the original's"

# %% [markdown]
# Two measurements on machines that are many years apart do not make a fair comparison. Two more numbers describe a step better:
#
# * its *floor*: every program has to do a certain part of the step, and the floor is the time that this part takes on the same machine if it
#   is done in the usual way;
# * its *yardstick*, for a step without such a part: the time of a well-known way to do this step. For scoring this is sorting and a loop, for
#   two processes it is one process.
#
# The time of a step divided by its floor is its *ratio*. It shows how much can still be gained: a ratio of 2 means that the step takes
# twice its floor. A ratio below 1 means that the library computes less than the usual program, or, if it is close to 1, that two nearly equal
# times differ by chance.
#
# ## A floor on paper: operations
#
# The distances of $Q$ queries to $G$ gallery images with features of $C$ channels need the product of each query's feature with each
# gallery image's feature:
#
# $$ F = 2\,Q\,G\,C $$ (eq-time-product)
#
# operations: one multiplication and one addition for each channel of each pair. The next cell counts them in a loop for two queries, three
# images and four channels:

# %% tags=["nbval-check-output"]
Q, G, C = 2, 3, 4
count = 0
for _query in range(Q):
    for _picture in range(G):
        for _channel in range(C):
            count += 2
print(count, 2 * Q * G * C)
assert count == 2 * Q * G * C, (
    "the loop counts as many operations as the formula"
)

# %% [markdown]
# For Market-1501 and ResNet-50 equation {eq}`eq-time-product` gives 220 billion operations. Re-ranking needs the distances between all
# images, queries and gallery together:
#
# :::{admonition} Predict first
# :class: tip
# The gallery has about five times as many images as there are queries. How many times as many operations does re-ranking need as ranking?
# :::

# %% tags=["nbval-check-output"]
Q, G, C = 3368, 15913, 2048
print(f"ranking:    {2 * Q * G * C / 1e9:6.0f} billion operations")
print(f"re-ranking: {2 * (Q + G) ** 2 * C / 1e9:6.0f} billion operations")

# %% [markdown]
# The yardstick of re-ranking is the time for this whole product and for finding the nearest neighbours in it. The library computes only half
# of the product, because the distance from $i$ to $j$ is the one from $j$ to $i$. The operations divided by the yardstick's time are a lower
# bound on what the machine can compute per second, which you can compare with its data sheet:

# %%
row = find("re-ranking", "3368")
rate = 2 * (Q + G) ** 2 * C / row["floor"]
print(
    f"at least {rate / 1e9:.0f} billion operations per second, with the"
    " search for neighbours included"
)
assert row["seconds"] < 1.2 * row["floor"], (
    "re-ranking takes at most a fifth longer than the plain search"
)

# %% [markdown]
# ## A floor on paper: the memory of a training step
#
# The backward pass needs numbers that the forward pass computed, so each convolution and each batch norm keeps its input. This memory $M$
# grows with the batch size $N$ and with the area $h\,w$ of the images:
#
# $$ M(N, h, w) = M_0 + N\, h\, w\, \mu $$ (eq-time-memory)
#
# $M_0$ is the memory of the parameters that the backward pass needs; $\mu$, in bytes per pixel, depends on the network. We can count the
# bytes without computing anything: on torch's `meta` device tensors have shapes but no content. We start with a network small enough for
# paper: one convolution from 3 to 8 channels, followed by a ReLU, on an image of 4 x 4. Each number has four bytes:
#
# | what is kept | numbers |
# |---|---:|
# | the convolution's input | $3 \cdot 16 = 48$ |
# | its weights | $8 \cdot 3 \cdot 9 = 216$ |
# | the output of the ReLU | $8 \cdot 16 = 128$ |


# %% tags=["nbval-check-output"]
def kept_bytes(network, batch, height, width):
    """Bytes that a forward keeps for its backward, each storage once."""
    storages = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        storages[storage._cdata] = (
            storage.nbytes(),
            tensor,
        )  # kept, so that no other storage takes its address
        return tensor

    network = network.to("meta").train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        answer = network(torch.empty(batch, 3, height, width, device="meta"))
    del answer
    return sum(size for size, _ in storages.values())


small = torch.nn.Sequential(
    torch.nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.nn.ReLU()
)
by_hand = 4 * (3 * 16 + 8 * 3 * 9 + 8 * 16)
print(kept_bytes(small, 1, 4, 4), by_hand)
assert kept_bytes(small, 1, 4, 4) == by_hand, (
    "the forward pass keeps as many bytes as counted by hand"
)

# %% [markdown]
# Here is ResNet-50 with AlignedReID's branches, by batch and image size, in float32:
#
# :::{admonition} Predict first
# :class: tip
# Height and width are both doubled. How many times as much memory does a step need?
# :::

# %% tags=["nbval-check-output"]
network = AlignedReID("resnet50")
print(
    "batch "
    + "".join(
        f"{f'{h} x {w}':>12}" for h, w in ((128, 64), (256, 128), (384, 192))
    )
)
table = {}
for batch in (32, 64, 128):
    for h, w in ((128, 64), (256, 128), (384, 192)):
        table[batch, h, w] = kept_bytes(network, batch, h, w) / 1e9
    print(
        f"{batch:5} "
        + "".join(
            f"{table[batch, h, w]:9.2f} GB"
            for h, w in ((128, 64), (256, 128), (384, 192))
        )
    )

# %%
steps = (
    table[64, 256, 128] - table[32, 256, 128],
    table[128, 256, 128] - table[64, 256, 128],
)
assert np.isclose(2 * steps[0], steps[1], rtol=1e-3), (
    "memory grows linearly with the batch"
)
area = [table[64, h, w] - table[32, h, w] for h, w in ((128, 64), (256, 128))]
assert np.isclose(area[1] / area[0], 4, rtol=0.01), (
    "memory grows linearly with the area, except for the features at the end"
)

# %% [markdown]
# Twice the batch or twice the area needs nearly twice the memory (not quite twice, because $M_0$ stays the same), as equation
# {eq}`eq-time-memory` predicts. Twice the height and width need nearly four times as much. For 256 x 128 and a batch of 128 the original
# reports
# 9.6 GB, where we count 7.3 GB: the original's number also contains gradients, Adam's moments and workspace.
#
# ## A gallery too large for a matrix
#
# A test, too, can need more memory than there is: the distances of 3 368 queries to a million gallery images are
# $4\,Q\,G = 13.5$ GB in float32. But a rank is a count: the number of gallery images before the match, plus one. Counts can be added, so
# the gallery can be processed in chunks, and no program has to store all distances at once. `streaming.score_stream` requests the distances
# chunk by chunk. Here the features are random whole numbers, so that all squared distances are exact:

# %%
from alignedreid_lib.evaluation import ranking, streaming
from alignedreid_lib.losses import euclidean_distances

random = np.random.default_rng(0)
ids, cameras = random.integers(30, size=1040), random.integers(6, size=1040)
features = torch.from_numpy(random.integers(-50, 50, (1040, 16))).double()
queries, gallery = features[:40], features[40:]
labels = ids[:40], ids[40:], cameras[:40], cameras[40:]


def chunk_of(begin, end):
    return euclidean_distances(queries, gallery[begin:end])


in_chunks = streaming.score_stream(chunk_of, *labels, chunk=100)
whole = ranking.score_ranking(euclidean_distances(queries, gallery), *labels)
assert (in_chunks.cmc == whole.cmc).all(), "chunks give the same CMC"
assert in_chunks.mean_ap == whole.mean_ap, "chunks give the same mAP"

# %% [markdown]
# The result is the same to the last bit. `make bench` scores a million images in this way, in the memory of a laptop.
#
# ## All measurements
#
# Each row is a step at the given size, with its floor or yardstick from the same process.
#
# * *ratio*: the time divided by the floor. For the steps of a network it is the median over pairs of runs, one of the step and one of its
#   floor, so that a change in the machine's speed affects both.
# * *limit*: the largest ratio that this project allows, if it has set one.
# * *chance* in the rows of scoring means random distances; *trained* means distances like those of a trained network, with most matches at
#   the first ranks.
# * A *search* is that of [chapter 12](12_your_own_people.ipynb): the ten nearest of a million images, for a hundred queries, in an index that
#   is mapped from its file.
# * A row that was measured later, or with a different number of threads, names its machine and its commit.
# * The last column gives the seconds of the same step on a GPU. `make gpu-check` measures them and writes
#   `notebooks/results/gpu_check_<device>.json`; until there is such a file, the column shows *not yet measured*.

# %% tags=["hide-input"]
gpus = book.gpu_checks()


def on_gpus(step, what):
    """The seconds of a step on each measured GPU."""
    found = [
        f"{row['value']:.3g}"
        for gpu in gpus
        for row in gpu["rows"]
        if (row["check"], row["what"], row["unit"]) == (step, what, "s")
    ]
    return ", ".join(found) or "not yet measured"


names = ", ".join(gpu["device"] for gpu in gpus) or "GPU"
lines = [
    (
        "| step | what | seconds | floor or yardstick | which is | ratio |"
        " limit |"
        f" {names} |"
    ),
    "|---|---|---:|---:|---|---:|---:|---:|",
]
for row in measured["rows"]:
    own = [row["device"]] if "device" in row else []
    own += [f"commit {row['commit'][:7]}"] if row.get("commit") else []
    what = row["what"] + (f" ({', '.join(own)})" if own else "")
    floor = f"{row['floor']:.3g}" if row["floor"] else "-"
    ratio = f"{row['ratio']:.3f}" if "ratio" in row else "-"
    limit = f"{row['limit']:.3g}" if "limit" in row else "-"
    lines.append(
        f"| {row['step']} | {what} | {row['seconds']:.3g} | {floor} |"
        f" {row['floor_is'] or '-'} | {ratio} | {limit} |"
        f" {on_gpus(row['step'], row['what'])} |"
    )
Markdown("\n".join(lines))

# %% [markdown]
# The next table shows the rows for which memory or images per second were measured. In the scoring rows that end in *chance* and *trained*,
# and in the rows of *search*, it gives the memory that the step adds. In all other rows it gives the memory of the whole process, which
# includes torch, the features and what the floor needs. The features of a search, 1 GB, are not counted: they are pages of the file, which
# the system keeps as long as it has enough memory:

# %% tags=["hide-input"]
lines = ["| step | what | MB at the peak | images/s |", "|---|---|---:|---:|"]
for row in measured["rows"]:
    if "megabytes" in row or "images_per_second" in row:
        cells = [
            f"{row[name]:.0f}" if name in row else "-"
            for name in ("megabytes", "images_per_second")
        ]
        lines.append(
            f"| {row['step']} | {row['what']} | {cells[0]} | {cells[1]} |"
        )
Markdown("\n".join(lines))

# %%
late = [
    f"{row['step']}: {row['what']}"
    for row in measured["rows"]
    if "limit" in row and row["ratio"] > row["limit"]
]
print("over the limit:", "; ".join(late) or "nothing")
assert len(measured["rows"]) >= 8, "the file has all rows of `make bench`"

# %% [markdown]
# The line names each row whose ratio is above its limit. On a new machine, look at this line first.
#
# ## A training on a GPU
#
# This project's goal for the preset `market1501_gl` is 300 epochs in 3.5 minutes or less on an H100 GPU. An epoch of 751 identities has 23
# whole batches of 128 images (and a smaller one, which this estimate leaves out). The next cell computes how many images per second this is.
# (For an A100 GPU we expect about 3 800; this is not yet measured.)

# %% tags=["nbval-check-output"]
images_per_training = 300 * (751 // 32) * 128
needed = images_per_training / (3.5 * 60)
print(f"{images_per_training} images, {needed:.0f} images/s")
assert 4000 < needed < 4500, (
    "the goal needs a little less than 4 500 images per second"
)

# %% [markdown]
# The goal is therefore set to 4 500 images per second, which leaves some time for the checkpoints. The table compares it with the
# measurements of `make gpu-check`: the bare backbone, which is the floor; the training step, with and without compilation; and the whole
# training with its checkpoints.

# %% tags=["hide-input"]
lines = ["| GPU | what | images/s | minutes |", "|---|---|---:|---:|"]
lines.append("| the goal, H100 | 300 epochs | 4500 | 3.5 |")
for gpu in gpus:
    for row in gpu["rows"]:
        if row["check"] in ("step", "training") and row["unit"] in (
            "images/s",
            "minutes",
        ):
            value = f"{row['value']:.4g}"
            cells = (
                f"{value} | -" if row["unit"] == "images/s" else f"- | {value}"
            )
            lines.append(f"| {gpu['device']} | {row['what']} | {cells} |")
if not gpus:
    lines.append("| GPU | not yet measured: `make gpu-check` | - | - |")
Markdown("\n".join(lines))

# %% [markdown]
# ## What the original says, and what we see
#
# :::{admonition} The original reproduction says
# On a TITAN X at 256 x 128 and a batch of 128: 1.08 s per iteration, 9.6 GB, 2.25 hours for 300 epochs; with mutual learning on two of them 1.46 s and 2.92 hours. For the test set: features 80 s, global distance 2 s, local distance 140 s, CMC and mAP 15 s, re-ranking 80 s with
# the global and 800 s with the local distance.
# :::
#
# On two processor cores our steps after the features take seconds. Scoring sorts only the values of each row, not the indices, and looks up
# the ranks of the few matches; local distances are one matrix product and a few additions per cell; re-ranking computes each distance between
# two images once, and the rest of its work takes less time than that.
#
# ## Summary
#
# * A time alone means little; a time divided by its floor shows how much can still be gained.
# * Ranking costs $2QGC$ operations, re-ranking $2(Q+G)^2C$; the memory of a training step grows in proportion to the batch and to the area
#   of the images.
# * Ranks are counts, so a gallery of any size can be scored in chunks.
# * `make bench` measures all of it on your machine; set this chapter's parameter to `runs/bench.json` to see the result.
# * `make gpu-check` compares a GPU with the CPU and fills the GPU's column; until then it is *not yet measured*. The page
#   [On your GPU](book/on_your_gpu.md) explains how to train on one GPU, on several, and in the queue of a cluster.
#
# Next: [chapter 12](12_your_own_people.ipynb) searches your own images.
#
# ## Exercises
#
# **1.** How many operations would re-ranking need with a million gallery images and features of 2 048 channels? How long would it take with
# the operations per second computed above?
#
# :::{dropdown} Solution
# ```python
# operations = 2 * (3368 + 10**6) ** 2 * 2048
# print(f"{operations / 1e15:.1f} million billion, {operations / rate / 3600:.1f} hours")
# ```
#
# The square makes this expensive. The usual solution is an approximate search, which looks for neighbours in only a part of the gallery.
# :::
#
# **2.** What is the largest batch of 256 x 128 images with which ResNet-50 fits into 6 GB according to the count above, including parameters,
# their gradients and Adam's two moments (16 bytes per parameter)?
#
# :::{dropdown} Solution
# ```python
# fixed = 16 * sum(p.numel() for p in network.parameters()) / 1e9
# one_image = (table[64, 256, 128] - table[32, 256, 128]) / 32
# print(int((6 - fixed) / one_image))
# ```
# :::
#
# **3.** Why does the first convolution of ResNet-50 keep little, although its feature maps are the largest?
#
# :::{dropdown} Solution
# It keeps its *input*, three channels at full size: $3 \cdot 256 \cdot 128$ numbers. Its output has 64 channels at half the height and width,
# more than five times as many numbers; these are kept by the batch norm after it.
#
# ```python
# print(64 * 128 * 64 / (3 * 256 * 128))
# ```
# :::
#
# **4.** How many operations does a search need for its distances, without and with re-ranking? The function gets the numbers of queries,
# gallery images and channels, and `rerank`, which is true or false. It has one mistake. Run the cell, read the answer and repair the
# function.

# %% tags=["nbval-check-output"]
from alignedreid_lib.exercises import check


def count_operations(Q, G, C, rerank):
    pairs = G * G if rerank else Q * G
    return 2 * pairs * C


check("11_time_and_space", count_operations)

# %% [markdown]
# :::{dropdown} Solution
# ```python
# def count_operations(Q, G, C, rerank):
#     pairs = (Q + G) ** 2 if rerank else Q * G
#     return 2 * pairs * C
#
#
# assert check("11_time_and_space", count_operations)
# ```
# :::
