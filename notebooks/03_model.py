# %% [markdown]
# # 03 Model
#
# How a network makes one feature of the whole person and one of each stripe, and how its weights get in and out.
#
# **What you will hold**
#
# * the two branches of AlignedReID, global and local, computed by hand on a map of eight cells;
# * a table of the map's shape for three backbones and three input sizes, and of their parameters;
# * weights that were saved and loaded bit for bit, and three that were refused, each with its reason.
#
# **Time** on two cores: a quarter of a minute, and half a minute more if the book's people are not drawn yet.
# **Hardware**: any laptop, no GPU. The network of this chapter is untrained; its shapes are those of a trained one.

# %% tags=["parameters"]
# Parameters: the network, and the size of its input
backbone = "resnet18"
weights = None
local_channels = 128
last_stride = 2
height = 256
width = 128
seed = 1

# %% [markdown]
# These are settings of a training, and its `TrainConfig` checks them. The seed makes the random weights the same each time.

# %%
import numpy as np
import torch

from alignedreid_lib import runs
from alignedreid_lib.training import TrainConfig

config = runs.read_parameters(TrainConfig, globals())
generator = torch.manual_seed(config.seed)

# %% [markdown]
# ## The problem in a picture
#
# [Chapter 2](02_batches.ipynb) ended with a batch of pictures. Comparing them pixel by pixel would compare light and background; a
# network turns each into a *feature*, a list of numbers, that should be alike for one person and differ between people.
# We take two pictures of one person, by different cameras.

# %%
from alignedreid_lib import book, figures
from alignedreid_lib.batches import images
from alignedreid_lib.datasets import open_dataset

dataset = open_dataset(book.dataset_folder("market1501"), "trainval")
num_ids = len(np.unique(dataset.labels))
mine = np.flatnonzero(dataset.labels == 3)
elsewhere = mine[dataset.cameras[mine] != dataset.cameras[mine[0]]]
two = [mine[0], elsewhere[0]]
cameras = [f"camera {dataset.cameras[k]}" for k in two]
size = (config.height, config.width)
pictures = torch.stack([images.resize(images.decode(dataset.paths[k]), size) for k in two])

# %% [markdown]
# Each of them cut into eight stripes:

# %% label="fig-stripes" alt="Two pictures of the same person from two cameras, each divided by horizontal lines into eight numbered stripes"
fig = figures.Figure(figsize=(3.4, 3.1), layout="constrained")
for ax, picture, title in zip(fig.subplots(1, 2), pictures, cameras, strict=True):
    ax.imshow(picture.permute(1, 2, 0), extent=(0, 4, 8.5, 0.5))
    ax.hlines(np.arange(1.5, 8), 0, 4, color="white", linewidth=1)
    ax.set(title=title, xticks=[], yticks=range(1, 9))
    ax.grid(False)
fig

# %% [markdown]
# One list of numbers for the whole picture says what is there: a jacket, blue trousers. It does not say where. A list for each stripe
# does: head in stripe 1, shoes in stripe 8, if the box fits. Look in [the figure](#fig-stripes) where the head is in each picture.
#
# AlignedReID makes both kinds from one network: a *global* feature and $H$
# *local* ones. Where the two boxes do not fit alike, the stripes have to be aligned before they are compared; that is the
# work of [chapter 4](04_alignment.ipynb), and this chapter builds what it needs.

# %% [markdown]
# ## The backbone and its map
#
# A classification network such as ResNet ends in a map, an average over it, and a classifier. We keep everything up to the map.
# The letters: $N$ pictures in a batch, $C$ channels, $H$ rows and $W$ columns of the map.

# %% tags=["nbval-check-output"]
from alignedreid_lib.model import AlignedReID

network = AlignedReID(
    config.backbone, config.weights, num_ids, config.local_channels, config.last_stride
).eval()
batch = images.normalize(pictures)
with torch.no_grad():
    feature_map = network.base(batch)
N, C, H, W = feature_map.shape
print(f"input {list(batch.shape)} -> map N={N}, C={C}, H={H}, W={W}")

# %% [markdown]
# 256 rows have become 8, 128 columns 4, and three colours 512 channels. The network halves the height and the width five times:
#
# $$
# H = \left\lceil h / 32 \right\rceil, \qquad W = \left\lceil w / 32 \right\rceil .
# $$ (eq-map-size)
#
# The next cell runs the layers one by one and keeps the last map of each size.

# %%
maps, x = {}, batch[:1]
with torch.no_grad():
    for layer in network.base if len(network.base) > 1 else network.base[0]:
        x = layer(x)
        maps[tuple(x.shape[2:])] = x[0].clone()
assert torch.allclose(x, feature_map[:1], atol=1e-4), "layer by layer, the same map"

# %% label="fig-maps" alt="A pedestrian and five maps of it, each half as high and wide as the one before: outlines first, then a few bright cells"
fig = figures.Figure(figsize=(8, 2.7), layout="constrained")
panels = fig.subplots(1, 1 + len(maps))
panels[0].imshow(pictures[0].permute(1, 2, 0))
panels[0].set_title(f"{size[0]} × {size[1]}")
for ax, (shape, layer_map) in zip(panels[1:], maps.items(), strict=True):
    ax.imshow(layer_map[layer_map.flatten(1).std(1).argmax()])
    ax.set_title(f"{shape[0]} × {shape[1]}")
for ax in panels:
    ax.set_axis_off()
fig

# %% [markdown]
# Each panel of [the figure](#fig-maps) is one channel, the one that varies most. The first map still shows the person's outline; the last has 8 × 4 cells.
# Here are sixteen channels of the last map, the tensor that everything below starts from.

# %% alt="Sixteen channels of the last map as small pictures of eight rows and four columns, bright cells at different places"
strongest = feature_map[0].flatten(1).std(1).argsort(descending=True)[:16]
fig = figures.Figure(figsize=(8, 1.1), layout="constrained")
for ax, channel in zip(fig.subplots(1, 16), strongest.sort().values, strict=True):
    ax.imshow(feature_map[0, channel])
    ax.set_title(f"{channel}", fontsize=7.5)
    ax.set_axis_off()
fig

# %% [markdown]
# Bright means that the channel found its pattern there. The patterns of an untrained network are chance; that they light up at
# different heights for different channels is already what a stripe's feature uses.

# %% [markdown]
# ## The global feature
#
# Write $F_{cij}$ for channel $c$, row $i$, column $j$ of one picture's map. The global feature $g$ is the average of each channel
# over the whole map:
#
# $$
# g_c = \frac{1}{H W} \sum_{i=1}^{H} \sum_{j=1}^{W} F_{cij} .
# $$ (eq-global)
#
# On a map of two channels, four rows and two columns, small enough for paper:

# %% tags=["nbval-check-output"]
tiny = torch.tensor(
    [
        [[1.0, 3.0], [2.0, 2.0], [0.0, 4.0], [5.0, 7.0]],  # channel 1: the sum is 24
        [[0.0, 0.0], [8.0, 0.0], [0.0, 8.0], [0.0, 0.0]],  # channel 2: the sum is 16
    ]
)
print(tiny.mean(dim=(1, 2)).tolist())
assert tiny.mean(dim=(1, 2)).tolist() == [24 / 8, 16 / 8], "as on paper"

# %% [markdown]
# Eight cells sum to 24 and 16, so the averages are 3 and 2. Where the two eights of channel 2 stood is forgotten. The same for
# the real map, as a loop, against the network:

# %%
by_hand = torch.zeros(N, C)
for i in range(H):
    for j in range(W):
        by_hand += feature_map[:, :, i, j] / (H * W)
with torch.no_grad():
    embedding = network(batch)
assert torch.allclose(by_hand, embedding.global_features, atol=1e-4), (
    "the global feature is the plain average"
)
print(list(embedding.global_features.shape))

# %% [markdown]
# One list of $C$ numbers for each of the two pictures.

# %% [markdown]
# ## The local features
#
# Stripe $i$ is row $i$ of the map, averaged over its width:
#
# $$
# r_{ic} = \frac{1}{W} \sum_{j=1}^{W} F_{cij} .
# $$ (eq-stripe)

# %% tags=["nbval-check-output"]
rows = tiny.mean(dim=2).T  # [H, C]
print(rows.tolist())
assert rows.tolist() == [[2, 0], [2, 4], [2, 4], [6, 0]], "as on paper"
assert torch.equal(rows.mean(0), tiny.mean(dim=(1, 2))), (
    "the stripes' average is the global feature"
)

# %% [markdown]
# Now the eights are in rows 2 and 3, and that is kept; their column is forgotten, which is right for people who turn around. A row
# still has $C$ numbers, 512 or 2048. The local branch shortens each to $c = 128$: a matrix $A$ and a vector $b$, *the same for every
# stripe*, then *batch norm*, which brings every channel to mean 0 and variance 1 (with the mean $m$ and the variance $v$ that training
# gathered), scales it by $\gamma$ and shifts it by $\beta$, both learned; then the negative part is cut
# off. The result $\ell_i$ is the local feature of stripe $i$:
#
# $$
# \ell_i = \max\!\left(0,\; \gamma\, \frac{A r_i + b - m}{\sqrt{v + \epsilon}} + \beta\right) .
# $$ (eq-local)
#
# With three numbers a stripe, and a matrix to do in the head (all other letters at their initial values: $b = m = \beta = 0$, $v = \gamma = 1$):

# %% tags=["nbval-check-output"]
A = torch.tensor([[1.0, -1.0], [0.0, 1.0], [0.5, 0.5]])
for i, r in enumerate(rows, 1):
    y = A @ r
    print(f"stripe {i}: A r = {y.tolist()}, cut off: {y.clamp(min=0).tolist()}")

# %% [markdown]
# Stripe 2: $2 - 4 = -2$ becomes 0, $4$ stays, and $\frac{2 + 4}{2} = 3$. In the library, $A$ is a convolution of size 1 × 1. Its weights
# put into such a convolution, PyTorch gives the same:

# %%
conv = torch.nn.Conv2d(2, 3, 1)
conv.weight.data, conv.bias.data = A[:, :, None, None], torch.zeros(3)
branch = torch.nn.Sequential(conv, torch.nn.BatchNorm2d(3), torch.nn.ReLU()).eval()
with torch.no_grad():
    by_module = branch(rows.T[None, :, :, None])[0, :, :, 0].T  # [H, c]
assert torch.allclose(by_module, (rows @ A.T).clamp(min=0), atol=1e-4), (
    "a 1x1 convolution is one matrix for every stripe"
)

# %% [markdown]
# Now the real thing: equations {eq}`eq-stripe` and {eq}`eq-local` as a loop over pictures and stripes, with the network's own numbers.


# %%
def local_by_hand(network, feature_map):
    conv, bn = network.local_conv, network.local_bn
    A, b = conv.weight[:, :, 0, 0], conv.bias
    stripes = []
    for picture in feature_map:
        for i in range(picture.shape[1]):
            r = picture[:, i, :].mean(dim=1)
            y = (A @ r + b - bn.running_mean) / torch.sqrt(bn.running_var + bn.eps)
            stripes.append((bn.weight * y + bn.bias).clamp(min=0))
    return torch.stack(stripes).reshape(len(feature_map), -1, len(b))


# %%
with torch.no_grad():
    by_hand = local_by_hand(network, feature_map)
assert by_hand.shape == embedding.local_features.shape == (N, H, config.local_channels), "[N, H, c]"
assert torch.allclose(by_hand, embedding.local_features, atol=1e-4), (
    "the loop and the network agree"
)
print(list(embedding.local_features.shape))

# %% [markdown]
# Two pictures, eight stripes, 128 numbers each. As pictures of the tensors themselves, one row a stripe:

# %% alt="The local features of both pictures as two images of eight rows and 128 columns; about half of the cells are dark"
fig = figures.Figure(figsize=(8, 2.2), layout="constrained")
top = embedding.local_features.max()
for k, ax in enumerate(fig.subplots(2, 1, sharex=True)):
    stripes, box = embedding.local_features[k], (0, config.local_channels, H + 0.5, 0.5)
    ax.imshow(stripes, aspect="auto", vmin=0, vmax=top, extent=box, interpolation="none")
    ax.set(title=cameras[k], ylabel="stripe", yticks=[1, H])
    ax.grid(False)
ax.set_xlabel("channel")
fig

# %% [markdown]
# Columns stand out more than rows: in an untrained network most channels say the same of every stripe, and of both pictures.
# Training has to make rows differ where people do.

# %% [markdown]
# ## The identity head
#
# One more branch serves the *identification loss*, which asks which of the training people a picture shows: a matrix with one row a
# person, applied to the global feature. Its weights start at random with a standard deviation of 0.001, so that at first every person is
# equally likely.

# %%
with torch.no_grad():
    logits = embedding.global_features @ network.fc.weight.T + network.fc.bias
assert logits.shape == (N, num_ids), "a number for each person"
assert torch.allclose(logits, embedding.logits, atol=1e-4), "one matrix, one vector"
assert 0.0009 < network.fc.weight.std() < 0.0011, "it starts small"
assert AlignedReID(config.backbone).fc is None, "without num_ids there is no head"

# %% [markdown]
# Searching needs no head: the people to be found were not among those trained with.

# %% [markdown]
# ## Shapes and parameters
#
# Equation {eq}`eq-map-size` for three backbones and three input sizes. With `last_stride=1` the ResNets leave out the last halving,
# and the map is twice as high and wide. Only shapes are asked for, so the networks are built on PyTorch's device `meta`, where tensors
# have a shape and no numbers.

# %% tags=["nbval-check-output"]
from math import ceil

from alignedreid_lib.model import build_backbone

sizes = [(224, 224), (256, 128), (64, 32)]
networks = [(name, stride) for name in ("resnet18", "resnet50") for stride in (2, 1)]
print(f"{'backbone':<14}{'stride':<6}", *(f"{f'{h} × {w}':>16}" for h, w in sizes))
for name, stride in [*networks, ("mobilenet_v2", 2)]:
    cells = []
    for h, w in sizes:
        with torch.device("meta"):
            base = build_backbone(name, last_stride=stride).eval()
            shape = base(torch.zeros(1, 3, h, w)).shape[1:]
        assert shape[1:] == (ceil(h / 16 / stride), ceil(w / 16 / stride))
        cells.append(f"{' × '.join(map(str, shape)):>16}")
    print(f"{name:<14}{stride:<6}", *cells)

# %% [markdown]
# Each entry is $C \times H \times W$. At 256 × 128 there are 8 stripes, at 224 × 224 seven. At 64 × 32 a ResNet ends in a map of
# 2 × 1: two stripes, the upper body and the legs. Where stripes matter, take a larger input, or `last_stride=1`. The book's own model is trained at
# 64 × 32 and stops a stage earlier, `backbone="resnet18.layer3"`: a dot and a layer's name cut a network after that layer. Its map is
# 256 × 4 × 2, and three quarters of ResNet-18's weights, those of its last stage, need not be learned.
#
# How many numbers does training set? The local branch has $C \cdot c + c$ of the convolution and $2 c$ of batch norm.

# %% tags=["nbval-check-output"]


def count(module):
    return sum(p.numel() for p in module.parameters())


print(f"{'backbone':<14}{'base':>12}{'local':>10}{'head, 751 people':>18}")
for name in ("resnet18", "resnet50", "mobilenet_v2"):
    with torch.device("meta"):
        model = AlignedReID(name, num_ids=751)
    channels = model.fc.in_features
    local = count(model.local_conv) + count(model.local_bn)
    assert local == channels * 128 + 128 + 2 * 128, "as counted in the text"
    assert count(model.fc) == channels * 751 + 751
    print(f"{name:<14}{count(model.base):>12,}{local:>10,}{count(model.fc):>18,}")

# %% [markdown]
# The branches are small beside a ResNet. Nearly everything the network knows is in `base`, which is why it pays to start from
# weights that have seen a million photographs (`weights="imagenet"`: torchvision fetches them once).

# %% [markdown]
# ## What does a stripe see?
#
# A row of the map is not a window of 32 rows. A convolution of size $k$ on a map whose cells are $d$ pixels apart widens the *receptive
# field* by $(k - 1) d$; each halving doubles $d$. For ResNet-18, on the way through its layers:

# %% tags=["nbval-check-output"]
start = [(7, 2), (3, 2)]  # (size, stride) of the first convolution and the max pooling
blocks = [(3, 1)] * 4 + [(3, 2), (3, 1), (3, 1), (3, 1)] * 3
field, apart = 1, 1
for k, stride in start + blocks:
    field, apart = field + (k - 1) * apart, apart * stride
print(f"a cell sees {field} × {field} pixels; cells are {apart} pixels apart")
assert (field, apart) == (435, 32)

# %% [markdown]
# A cell can see more than the whole picture. Yet it does not see everything equally well. The gradient of the sum of a stripe's numbers with respect to
# the input says how much each pixel row moves it.

# %%
pixels = batch[:1].clone().requires_grad_()
rows_of_map = network.base(pixels)[0].sum(dim=(0, 2))  # [H]
gradients = [torch.autograd.grad(r, pixels, retain_graph=True)[0] for r in rows_of_map]
reach = torch.stack([g.abs().sum(dim=(0, 1, 3)) for g in gradients])
reach = reach / reach.sum(dim=1, keepdim=True)  # [H, h]: shares of each stripe

# %% label="fig-listens" alt="A matrix of 8 stripes by 256 pixel rows; each stripe is brightest at its own rows or those beside them and fades on both sides"
fig = figures.Figure(figsize=(8, 2.3), layout="constrained")
ax = fig.subplots()
box = (0, config.height, H + 0.5, 0.5)
shown = ax.imshow(reach, aspect="auto", extent=box, interpolation="none")
ax.set(xlabel="row of the picture", ylabel="stripe")
ax.set_title("Share of a stripe's gradient that falls on each row")
ax.grid(False)
fig.colorbar(shown)
fig

# %% [markdown]
# The bright chain of [the matrix](#fig-listens) runs down the diagonal: a stripe listens mostly to its own rows and its neighbours', and faintly to the rest. In
# numbers, the share that falls on a stripe's own rows and those of the stripes next to it:

# %%
cells = reach.reshape(H, H, -1).sum(dim=2)  # [stripe, rows of a stripe]
near = [cells[i, max(i - 1, 0) : i + 2].sum().item() for i in range(H)]
farthest = (cells.argmax(dim=1) - torch.arange(H)).abs().max()
assert farthest <= 1, "its own rows or those beside them move a stripe most"
print("  ".join(f"{share:.0%}" for share in near))

# %% [markdown]
# So a stripe is a part of the body, seen in context. (The larger the input, the smaller the share of it that a cell sees.)

# %% [markdown]
# ## Weights, out and in
#
# A model's state is a dict from names to tensors. The names here are the original reproduction's, so that its files load unchanged:

# %% tags=["nbval-check-output"]
names = list(network.state_dict())
print(names[0], "...", *[name for name in names if not name.startswith("base.")], sep="\n")

# %% [markdown]
# `base.` is the backbone with torchvision's own names behind the dot; the rest are the two branches. Saved, then loaded into
# a model that started from another seed:

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

from alignedreid_lib.model import load_weights

temporary = TemporaryDirectory()
folder = Path(temporary.name)
torch.save(network.state_dict(), folder / "weights.pth")
generator = torch.manual_seed(config.seed + 1)
twin = AlignedReID(config.backbone, None, num_ids, config.local_channels, config.last_stride).eval()
with torch.no_grad():
    assert not torch.equal(twin(batch).global_features, embedding.global_features), (
        "another seed, another network"
    )

# %% tags=["nbval-check-output"]
print(load_weights(twin, folder / "weights.pth"))
with torch.no_grad():
    again = twin(batch)
assert all(
    torch.equal(a, b)
    for a, b in zip(twin.state_dict().values(), network.state_dict().values(), strict=True)
)
assert all(torch.equal(a, b) for a, b in zip(again, embedding, strict=True)), (
    "bit for bit the same features"
)

# %% [markdown]
# Nothing missing, nothing left over, and every bit of every feature is the same.
#
# ### The old format
#
# The original reproduction ran on PyTorch 0.3. Files of that time are not zip archives as today's are, and know no counters named
# `num_batches_tracked`. A file like that, written and loaded:

# %% tags=["nbval-check-output"]
import zipfile

state = network.state_dict()
old = {name: state[name] for name in state if "num_batches_tracked" not in name}
torch.save(old, folder / "old.pth", _use_new_zipfile_serialization=False)
assert zipfile.is_zipfile(folder / "weights.pth"), "today's format"
assert not zipfile.is_zipfile(folder / "old.pth"), "the format of that time"
twin = AlignedReID(config.backbone, None, num_ids, config.local_channels)
report = load_weights(twin, folder / "old.pth")
assert report.missing == report.unexpected == [], "the counters are not missed"
print(report)

# %% [markdown]
# ### What is missing, what is left over
#
# A file of the backbone alone, as torchvision publishes it, has no `base.` before its names, no local branch, and a classifier of
# ImageNet's thousand classes that nobody here wants. It loads, and the report lists both sides:

# %% tags=["nbval-check-output"]
import torchvision

published = torchvision.models.get_model(config.backbone).state_dict()
torch.save(published, folder / "backbone.pth")
report = load_weights(twin, folder / "backbone.pth")
assert not any(name.startswith("base.") for name in report.missing), "the backbone is complete"
print("missing:", *report.missing, sep="\n  ")
print("left over:", *report.unexpected, sep="\n  ")

# %% [markdown]
# What is missing keeps its random values and has to be trained. Read this list: a name there that you did not expect is the cheapest
# bug you will ever find.
#
# The classifier may differ in its number of people. Training that goes on from a file trained on other people cannot use that
# classifier, so the library leaves it out and the new one keeps its random values:

# %% tags=["nbval-check-output"]
larger = AlignedReID(config.backbone, None, num_ids + 1, config.local_channels)
report = load_weights(larger, folder / "weights.pth")
assert report.missing == report.unexpected == ["fc.weight", "fc.bias"], "the classifier alone"
print(report)

# %% [markdown]
# A file does not say who its people are. If there are as many of them by chance, their classifier is loaded, and training has to
# correct it.
#
# ### What is refused
#
# If the *backbone's* own numbers are not all there, the file belongs to another network. If they are and any other shape differs, the
# model was built with other settings. Neither loads in part: the model stays as it was.


# %%
from textwrap import fill

from alignedreid_lib.errors import InputError


def refusal(model, name):
    """The message with which a file is refused, without its folder."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    try:
        load_weights(model, folder / name)
    except InputError as error:
        after = model.state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before), "untouched"
        return fill(str(error).replace(str(folder), "..."), 84)
    raise AssertionError(f"{name} was not refused")


# %% tags=["nbval-check-output"]
another = "resnet18" if config.backbone == "mobilenet_v2" else "mobilenet_v2"
print(refusal(AlignedReID(another), "weights.pth"))
print()
wider = AlignedReID(config.backbone, None, num_ids, 2 * config.local_channels)
print(refusal(wider, "weights.pth"))

# %% [markdown]
# The second model's local features are twice as long as the file's.
#
# The last refusal is about safety. A weights file is a *pickle*, and a pickle may name a function to call while it is read. This
# class pickles itself as "make a folder":


# %%
import os


class Trap:
    def __reduce__(self):
        return os.mkdir, (str(folder / "made by a weights file"),)


torch.save({"conv1.weight": Trap()}, folder / "trap.pth")
message = refusal(twin, "trap.pth")
assert not (folder / "made by a weights file").exists(), "nothing was called"
assert "not a file of weights" in message
print(message)

# %% [markdown]
# The library reads with `weights_only=True`: tensors, numbers and plain containers, and no functions. It reads the ImageNet weights
# in torchvision's cache the same way (`weights = "imagenet"`). With that guard switched off, the file does what it was made for:

# %%
torch.load(folder / "trap.pth", weights_only=False)
assert (folder / "made by a weights file").exists(), "reading the file has run code"
temporary.cleanup()

# %% [markdown]
# It was a harmless folder in a temporary place, and it is gone again. Another file could have sent your keys somewhere. Never read a
# downloaded file that way.

# %% [markdown]
# ## What the papers say
#
# :::{admonition} The paper says
# The backbone is a ResNet-50 with inputs of 224 × 224. Its last map has $C = 2048$ channels and $H = W = 7$; a local feature has
# $c = 128$ numbers (Zhang et al. 2017, section 3.1). At test time the global feature alone is kept.
# :::
#
# :::{admonition} The original reproduction says
# Inputs of 256 × 128, the shape of a person, and so $H = 8$; the local branch is a mean over the width, a 1 × 1 convolution to 128
# channels, batch norm and ReLU; the classifier's weights start with a standard deviation of 0.001.
# :::
#
# Both heights are in our table: {eq}`eq-map-size` gives 7 for 224 and 8 for 256, with 2048 channels for ResNet-50. The library follows the
# reproduction, so that its files load. That the global feature alone is kept makes the columns `local` and
# `head` of the table of parameters free: they are there to train with, and cost nothing in a search.

# %% [markdown]
# ## Summary
#
# * The last map of a backbone holds $H \times W$ cells of $C$ numbers, $H = \lceil h / 32 \rceil$; with `last_stride=1`, $\lceil h / 16 \rceil$.
# * The global feature is the map's average; a local feature is a row's average, shortened by one matrix that all stripes share.
# * A stripe sees mostly its own part of the picture, with some of everything around it.
# * Weights keep the original's names. What is missing or left over is listed, what does not fit is refused whole, and no file runs code.
#
# Next: [chapter 4](04_alignment.ipynb) aligns the stripes; [chapter 5](05_losses.ipynb) says what training asks of them.

# %% [markdown]
# ## Exercises
#
# **1.** You want sixteen stripes. Which input heights give them, with `last_stride` 2 and with 1? Check one of each.
#
# :::{dropdown} Solution
# By equation {eq}`eq-map-size`, heights of 481 to 512; with stride 1, 241 to 256.
#
# ```python
# for h, stride in ((512, 2), (256, 1)):
#     base = build_backbone("resnet18", last_stride=stride).eval()
#     assert base(torch.zeros(1, 3, h, 128)).shape[2] == 16
# ```
# :::
#
# **2.** Turn the map upside down before the two branches. What happens to the global feature, and what to the local ones?
#
# :::{dropdown} Solution
# ```python
# with torch.no_grad():
#     flipped = feature_map.flip(2)
#     assert torch.allclose(flipped.mean((2, 3)), feature_map.mean((2, 3)), atol=1e-4)
#     assert torch.allclose(local_by_hand(network, flipped), local_by_hand(network, feature_map).flip(1), atol=1e-4)
# ```
#
# The global feature stays; the stripes come in reverse order. The first cannot see where things are, and the second must not be compared
# stripe by stripe if boxes differ.
# :::
#
# **3.** The branch averages over the width and then multiplies by $A$. May one multiply first and average afterwards? And after the ReLU?
#
# :::{dropdown} Solution
# ```python
# with torch.no_grad():
#     one = network.local_conv(feature_map.mean(3, keepdim=True))
#     two = network.local_conv(feature_map).mean(3, keepdim=True)
#     assert torch.allclose(one, two, atol=1e-4)
#     after = network.local_conv(feature_map).relu().mean(3, keepdim=True)
#     assert not torch.allclose(one.relu(), after, atol=1e-4)
# ```
#
# A mean and a matrix are both linear and change places freely; averaging first does a quarter of the work at $W = 4$. ReLU is not
# linear, so its place matters.
# :::
