# %% [markdown]
# # 03 Model
#
# Two cameras saw one person. Hardly any pixel is the same in the two images, and still we see that it is one person. What should a network
# keep of an image?

# %% tags=["parameters"]
# Parameters: the network, and the size of its input
backbone = "resnet18"
weights = None
local_channels = 128
last_stride = 2
height = 256
width = 128
seed = 1

# %%
import numpy as np
import torch

from alignedreid_lib import book, figures, runs
from alignedreid_lib.batches import images
from alignedreid_lib.datasets import open_dataset
from alignedreid_lib.training import TrainConfig

config = runs.read_parameters(TrainConfig, globals())

# %% label="fig-stripes" alt="Two images of the same person from two cameras, each divided by horizontal lines into eight numbered stripes" caption="One person, two cameras: light, side and box differ, head and shoes keep their order."
generator = torch.manual_seed(config.seed)
dataset = open_dataset(book.dataset_folder("market1501"), "trainval")
num_ids = len(np.unique(dataset.labels))
mine = np.flatnonzero(dataset.labels == 3)
elsewhere = mine[dataset.cameras[mine] != dataset.cameras[mine[0]]]
two = [mine[0], elsewhere[0]]
cameras = [f"camera {dataset.cameras[k]}" for k in two]
size = (config.height, config.width)
pictures = torch.stack(
    [images.resize(images.decode(dataset.paths[k]), size) for k in two]
)
fig = figures.Figure(figsize=(4.4, 3.6), layout="constrained")
for ax, picture, title in zip(
    fig.subplots(1, 2), pictures, cameras, strict=True
):
    ax.imshow(picture.permute(1, 2, 0), extent=(0, 4, 8.5, 0.5))
    ax.hlines(np.arange(1.5, 8), 0, 4, color="white", linewidth=1)
    ax.set(title=title, xticks=[], yticks=range(1, 9))
    ax.grid(False)
fig.axes[0].set_ylabel("stripe")
fig

# %% [markdown]
# Comparing images pixel by pixel would compare light and background. A network instead turns each image into a *feature*, a list of numbers
# that should be similar for images of one person and different for different people. This chapter shows how it computes one feature of the
# whole person and one feature of each stripe, and how its weights are saved and loaded.
#
# **What you will learn**
#
# * how to compute the global and the local features of AlignedReID by hand on a feature map of eight cells;
# * what shape the feature map has for three backbones and three input sizes, and how many parameters they have;
# * how weights are saved and loaded bit for bit, and in which three cases a file is rejected.
#
# **Time** on two cores: a quarter of a minute, plus half a minute if the book's people are not drawn yet.
# **Hardware**: any laptop, no GPU. The network of this chapter is untrained; it has the same shapes as a trained one. The seed makes its random
# weights the same each time.
#
# ## One list for the whole, or one per stripe
#
# One list of numbers for the whole image describes what is visible, such as a jacket and blue trousers, but not where. One list per stripe
# also describes where: the head is in stripe 1 and the shoes are in stripe 8, if the box fits. The boxes do not always fit: compare in
# which stripe the head is in the two images of [the figure](#fig-stripes).
#
# AlignedReID computes both kinds with one network: a *global* feature and $H$ *local* features. If the two boxes do not fit in the same
# way, the stripes have to be aligned before they are compared. [Chapter 4](04_alignment.ipynb) does this; this chapter computes the
# stripes.

# %% [markdown]
# ## The backbone and its feature map
#
# A classification network such as ResNet computes a *feature map*, a grid of cells with a list of numbers each; then it averages over the
# cells and applies a classifier. We keep everything up to the feature map; this part of the network is called the *backbone*. A batch has
# $N$ images; the feature map of an image has $C$ channels (numbers per cell), $H$ rows and $W$ columns.

# %% tags=["nbval-check-output"]
from alignedreid_lib.model import AlignedReID

network = AlignedReID(
    config.backbone,
    config.weights,
    num_ids,
    config.local_channels,
    config.last_stride,
).eval()
batch = images.normalize(pictures)
with torch.no_grad():
    feature_map = network.base(batch)
N, C, H, W = feature_map.shape
print(f"input {list(batch.shape)} -> map N={N}, C={C}, H={H}, W={W}")

# %% [markdown]
# 256 rows have become 8, 128 columns have become 4, and three colours have become 512 channels. The network halves the height $h$ and the
# width $w$ of the image five times, rounding up:
#
# $$
# H = \left\lceil h / 32 \right\rceil, \qquad W = \left\lceil w / 32 \right\rceil .
# $$ (eq-map-size)
#
# The next cell runs the layers one by one and keeps the last feature map of each size.

# %%
maps, x = {}, batch[:1]
with torch.no_grad():
    for layer in network.base if len(network.base) > 1 else network.base[0]:
        x = layer(x)
        maps[tuple(x.shape[2:])] = x[0].clone()
assert torch.allclose(x, feature_map[:1], atol=1e-4), (
    "running layer by layer gives the same feature map"
)

# %% label="fig-maps" alt="A pedestrian and five feature maps of it, each half as high and wide as the one before: outlines first, then a few bright cells" caption="With each halving there are fewer cells; 8 × 4 remain."
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
# Each panel of [the figure](#fig-maps) after the first is one channel, the one that varies most. The first feature map still shows the
# outline of the person; the last has 8 × 4 cells. All features of this chapter are computed from the last one; here are its sixteen channels
# that vary most.

# %% alt="Sixteen channels of the last feature map as small images of eight rows and four columns, bright cells at different places" caption="Different channels are bright at different heights."
strongest = feature_map[0].flatten(1).std(1).argsort(descending=True)[:16]
fig = figures.Figure(figsize=(6, 3.4), layout="constrained")
panels = fig.subplots(2, 8).ravel()
for ax, channel in zip(panels, strongest.sort().values, strict=True):
    ax.imshow(feature_map[0, channel])
    ax.set_title(f"{channel}", fontsize=7.5)
    ax.set_axis_off()
fig

# %% [markdown]
# A bright cell means that the channel found its pattern there. The patterns of an untrained network are random, but different channels are
# bright at different heights. The features of stripes keep these heights.

# %% [markdown]
# ## The global feature
#
# Let $F_{cij}$ be channel $c$, row $i$, column $j$ of one image's feature map. The global feature $g$ is the average of each channel over the
# whole feature map:
#
# $$
# g_c = \frac{1}{H W} \sum_{i=1}^{H} \sum_{j=1}^{W} F_{cij} .
# $$ (eq-global)
#
# Here is a feature map of two channels, four rows and two columns, small enough for paper:

# %% tags=["nbval-check-output"]
tiny = torch.tensor(
    [
        [
            [1.0, 3.0],
            [2.0, 2.0],
            [0.0, 4.0],
            [5.0, 7.0],
        ],  # channel 1: the sum is 24
        [
            [0.0, 0.0],
            [8.0, 0.0],
            [0.0, 8.0],
            [0.0, 0.0],
        ],  # channel 2: the sum is 16
    ]
)
print(tiny.mean(dim=(1, 2)).tolist())
assert tiny.mean(dim=(1, 2)).tolist() == [24 / 8, 16 / 8], (
    "the averages are those on paper"
)

# %% [markdown]
# The eight cells sum to 24 and 16, so the averages are 3 and 2. The averages do not show where the two 8s of channel 2 were. Next we
# compare a loop over the real feature map with the network:

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
# The result is one list of $C$ numbers for each of the two images.

# %% [markdown]
# ## The local features
#
# Stripe $i$ is row $i$ of the feature map. Averaged over its width, it is a list $r_i$ with one number per channel:
#
# $$
# r_{ic} = \frac{1}{W} \sum_{j=1}^{W} F_{cij} .
# $$ (eq-stripe)

# %% tags=["nbval-check-output"]
rows = tiny.mean(dim=2).T  # [H, C]
print(rows.tolist())
assert rows.tolist() == [[2, 0], [2, 4], [2, 4], [6, 0]], (
    "the stripes are those on paper"
)
assert torch.equal(rows.mean(0), tiny.mean(dim=(1, 2))), (
    "the average of the stripes is the global feature"
)

# %% [markdown]
# Now we can see that the 8s are in rows 2 and 3. Their columns are lost, which is intended, because people turn around. Each $r_i$ still
# has $C$ numbers, 512 or 2048. The *local branch* turns each into $c = 128$ numbers in three steps. First it multiplies by a matrix $A$ and
# adds a vector $b$, *the same for every stripe*. Then *batch norm* brings every channel to mean 0 and variance 1 (with the mean $m$ and the
# variance $v$ collected in training), scales it by $\gamma$ and shifts it by $\beta$, both learned; the small number $\epsilon$ avoids a
# division by 0. Finally, negative values are set to 0 (a *ReLU*). The result $\ell_i$ is the local feature of stripe $i$:
#
# $$
# \ell_i = \max\!\left(0,\; \gamma\, \frac{A r_i + b - m}{\sqrt{v + \epsilon}} + \beta\right) .
# $$ (eq-local)
#
# We compute this by hand, with $c = 3$ numbers per stripe and the matrix in the next cell. Before training $m = \beta = 0$ and
# $v = \gamma = 1$. We take $b = 0$ and neglect $\epsilon$, so $\ell_i = \max(0, A r_i)$:

# %% tags=["nbval-check-output"]
A = torch.tensor([[1.0, -1.0], [0.0, 1.0], [0.5, 0.5]])
for i, r in enumerate(rows, 1):
    y = A @ r
    print(f"stripe {i}: A r = {y.tolist()}, cut off: {y.clamp(min=0).tolist()}")

# %% [markdown]
# Stripe 2: $2 - 4 = -2$ becomes 0, $4$ stays, and $\frac{2 + 4}{2} = 3$. In the library a convolution of size 1 × 1 multiplies by $A$ and
# adds $b$. With the weights from above PyTorch's convolution gives the same result:

# %%
conv = torch.nn.Conv2d(2, 3, 1)
conv.weight.data, conv.bias.data = A[:, :, None, None], torch.zeros(3)
branch = torch.nn.Sequential(
    conv, torch.nn.BatchNorm2d(3), torch.nn.ReLU()
).eval()
with torch.no_grad():
    by_module = branch(rows.T[None, :, :, None])[0, :, :, 0].T  # [H, c]
assert torch.allclose(by_module, (rows @ A.T).clamp(min=0), atol=1e-4), (
    "a 1x1 convolution is one matrix for every stripe"
)

# %% [markdown]
# Here are equations {eq}`eq-stripe` and {eq}`eq-local` as a loop over images and stripes, with the network's own numbers.


# %%
def local_by_hand(network, feature_map):
    conv, bn = network.local_conv, network.local_bn
    A, b = conv.weight[:, :, 0, 0], conv.bias
    stripes = []
    for picture in feature_map:
        for i in range(picture.shape[1]):
            r = picture[:, i, :].mean(dim=1)
            y = (A @ r + b - bn.running_mean) / torch.sqrt(
                bn.running_var + bn.eps
            )
            stripes.append((bn.weight * y + bn.bias).clamp(min=0))
    return torch.stack(stripes).reshape(len(feature_map), -1, len(b))


# %%
with torch.no_grad():
    by_hand = local_by_hand(network, feature_map)
assert (
    by_hand.shape
    == embedding.local_features.shape
    == (N, H, config.local_channels)
), "the local features have shape [N, H, c]"
assert torch.allclose(by_hand, embedding.local_features, atol=1e-4), (
    "the loop and the network give the same local features"
)
print(list(embedding.local_features.shape))

# %% [markdown]
# There are two images with eight stripes of 128 numbers each. The next figure shows the two tensors, one row per stripe:

# %% alt="The local features of both images as two matrices of eight rows and 128 columns; about half of the cells are dark" caption="In an untrained network a channel has nearly the same value in every stripe and in both images."
fig = figures.Figure(figsize=(8, 2.2), layout="constrained")
top = embedding.local_features.max()
for k, ax in enumerate(fig.subplots(2, 1, sharex=True)):
    stripes, box = (
        embedding.local_features[k],
        (0, config.local_channels, H + 0.5, 0.5),
    )
    ax.imshow(
        stripes,
        aspect="auto",
        vmin=0,
        vmax=top,
        extent=box,
        interpolation="none",
    )
    ax.set(title=cameras[k], ylabel="stripe", yticks=[1, H])
    ax.grid(False)
ax.set_xlabel("channel")
fig

# %% [markdown]
# The matrices consist of vertical lines: in an untrained network most channels have nearly the same value for all stripes, and for both
# images. Training has to make the rows differ where people differ.

# %% [markdown]
# ## The identity head
#
# A third branch, the *head*, classifies the training people for the *identification loss* of [chapter 5](05_losses.ipynb). It multiplies
# the global feature by a matrix with one row per person and adds a vector. The results, one number per person, are called *logits*. The
# weights start at random with a standard deviation of 0.001, so that at first all people are about equally likely.

# %%
with torch.no_grad():
    logits = embedding.global_features @ network.fc.weight.T + network.fc.bias
assert logits.shape == (N, num_ids), "there is one number per person"
assert torch.allclose(logits, embedding.logits, atol=1e-4), (
    "the head is one matrix and one vector"
)
assert 0.0009 < network.fc.weight.std() < 0.0011, (
    "the weights of the head start with a standard deviation near 0.001"
)
assert AlignedReID(config.backbone).fc is None, (
    "without num_ids there is no head"
)

# %% [markdown]
# The head is not used at search time, because the people we search for were not in the training set.

# %% [markdown]
# ## Shapes and parameters
#
# The next table evaluates equation {eq}`eq-map-size` for three backbones and three input sizes. With `last_stride=1` the ResNets leave out
# the last halving, and the feature map is twice as high and wide. We need only shapes, so the networks are built on PyTorch's device `meta`,
# where tensors have a shape but no numbers.

# %% tags=["nbval-check-output"]
from math import ceil

from alignedreid_lib.model import build_backbone

sizes = [(224, 224), (256, 128), (64, 32)]
networks = [
    (name, stride) for name in ("resnet18", "resnet50") for stride in (2, 1)
]
heads = [f"{f'{h} × {w}':>16}" for h, w in sizes]
print(f"{'backbone':<14}{'stride':<6}", *heads)
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
# Each entry is $C \times H \times W$. At 256 × 128 there are 8 stripes, at 224 × 224 there are 7. At 64 × 32 a ResNet ends in a feature map
# of 2 × 1: two stripes, the upper body and the legs. If stripes matter, use a larger input or `last_stride=1`. The book's own model is
# trained at 64 × 32 and stops one stage earlier, `backbone="resnet18.layer3"`: a dot and the name of a layer cut a network after that layer.
# Its feature map is 256 × 4 × 2. The network lacks the last stage, which contains three quarters of ResNet-18's weights.
#
# How many numbers does the network learn? The local branch has $C \cdot c + c$ in the convolution and $2 c$ in batch norm.
#
# :::{admonition} Predict first
# :class: tip
# Which part learns the most numbers: the backbone, the local branch or the classifier of 751 people? Is it the same for all three networks?
# :::

# %% tags=["nbval-check-output"]


def count(module):
    return sum(p.numel() for p in module.parameters())


print(f"{'backbone':<14}{'base':>12}{'local':>10}{'head, 751 people':>18}")
for name in ("resnet18", "resnet50", "mobilenet_v2"):
    with torch.device("meta"):
        model = AlignedReID(name, num_ids=751)
    channels = model.fc.in_features
    local = count(model.local_conv) + count(model.local_bn)
    assert local == channels * 128 + 128 + 2 * 128, (
        "the local branch has as many numbers as the text counts"
    )
    assert count(model.fc) == channels * 751 + 751
    print(
        f"{name:<14}{count(model.base):>12,}{local:>10,}{count(model.fc):>18,}"
    )

# %% [markdown]
# The backbone (`base`) learns the most numbers in all three networks. In a ResNet it has nearly all of them; in the small MobileNetV2 it
# has two thirds, and the head most of the rest. So it helps to start from weights that were trained on a million real images
# (`weights="imagenet"`: torchvision downloads them once).

# %% [markdown]
# ## Other backbones
#
# Nothing above is particular to ResNet. The backbone may be
#
# * a name of torchvision (`resnet50`, `mobilenet_v3_large`, `swin_t`, ...);
# * `timm:` followed by the name of a network of the package timm, if that is installed (`timm:resnet10t`); its weights come from a file;
# * any module that turns images into a feature map $[N, C, H, W]$. In this way you can use the networks of other toolboxes, for example
#   OSNet, which neither torchvision nor timm has: wrap it in a module whose `forward` returns the network's feature map.
#
# A vision transformer gives one vector per image and no feature map. The library accepts it and takes this vector as the global feature. It
# rejects the settings that need a feature map, and names them in the message: a local loss, a local distance, and `last_stride=1`. Here are
# a small module, which `AlignedReID` uses as it is, and a transformer:

# %% tags=["nbval-check-output"]
from torch import nn

small = nn.Sequential(nn.Conv2d(3, 16, 7, stride=32, padding=3), nn.ReLU())
with torch.device("meta"):
    transformer = AlignedReID("vit_b_16")(torch.zeros(2, 3, 224, 224))
mine = AlignedReID(small, num_ids=3)
with torch.no_grad():
    for found in (mine(torch.zeros(2, 3, 256, 128)), transformer):
        print(
            f"global {list(found.global_features.shape)},"
            f" local {list(found.local_features.shape)}"
        )
assert mine.base is small, "the module is used as it is"

# %% [markdown]
# The transformer's local features are empty.

# %% [markdown]
# ## Which pixels does a stripe depend on?
#
# The *receptive field* of a cell is the square of pixels that can influence it. At the input it is one pixel, and neighbouring cells are $d
# = 1$ pixel apart. A convolution of size $k$ makes the receptive field $(k - 1) d$ pixels larger, and each halving doubles $d$. The next
# cell computes it for ResNet-18, layer by layer:
#
# :::{admonition} Predict first
# :class: tip
# The cells of the last feature map are 32 pixels apart. How many rows of pixels does one cell depend on: 32, about 100 or more than 256?
# :::

# %% tags=["nbval-check-output"]
start = [
    (7, 2),
    (3, 2),
]  # (size, stride) of the first convolution and the max pooling
blocks = [(3, 1)] * 4 + [(3, 2), (3, 1), (3, 1), (3, 1)] * 3
field, apart = 1, 1
for k, stride in start + blocks:
    field, apart = field + (k - 1) * apart, apart * stride
print(f"a cell sees {field} × {field} pixels; cells are {apart} pixels apart")
assert (field, apart) == (435, 32)

# %% [markdown]
# The receptive field is larger than the image of 256 × 128 pixels, but not all pixels influence a cell equally. We measure the influence of
# each row of pixels by the gradient of the sum of a stripe's numbers with respect to the input.

# %%
pixels = batch[:1].clone().requires_grad_()
rows_of_map = network.base(pixels)[0].sum(dim=(0, 2))  # [H]
gradients = [
    torch.autograd.grad(r, pixels, retain_graph=True)[0] for r in rows_of_map
]
reach = torch.stack([g.abs().sum(dim=(0, 1, 3)) for g in gradients])
reach = reach / reach.sum(dim=1, keepdim=True)  # [H, h]: shares of each stripe

# %% label="fig-listens" alt="A matrix of 8 stripes by 256 pixel rows; each stripe is brightest at its own rows or the neighbouring ones and fades on both sides" caption="A stripe depends mostly on its own rows and on its neighbours'."
fig = figures.Figure(figsize=(8, 2.3), layout="constrained")
ax = fig.subplots()
box = (0, config.height, H + 0.5, 0.5)
shown = ax.imshow(reach, aspect="auto", extent=box, interpolation="none")
ax.set(xlabel="row of the image", ylabel="stripe")
ax.set_title("Share of a stripe's gradient that falls on each row")
ax.grid(False)
fig.colorbar(shown)
fig

# %% [markdown]
# The bright cells of [the matrix](#fig-listens) are along the diagonal: a stripe depends mostly on its own rows and its neighbours' rows,
# and weakly on the rest. The next cell computes for each stripe the share of the gradient that falls on its own rows and on those of its
# neighbours:

# %%
cells = reach.reshape(H, H, -1).sum(dim=2)  # [stripe, rows of a stripe]
near = [cells[i, max(i - 1, 0) : i + 2].sum().item() for i in range(H)]
farthest = (cells.argmax(dim=1) - torch.arange(H)).abs().max()
assert farthest <= 1, (
    "a stripe depends most on its own rows or on neighbouring ones"
)
print("  ".join(f"{share:.0%}" for share in near))

# %% [markdown]
# More than 60 % of each stripe's gradient is near the stripe. So a stripe describes a part of the body together with its surroundings. (In
# a larger image the same receptive field covers a smaller share.)

# %% [markdown]
# ## Saving and loading weights
#
# The state of a model is a dictionary of tensors with names. The names are the original reproduction's, so that its files load unchanged:

# %% tags=["nbval-check-output"]
names = list(network.state_dict())
print(
    names[0],
    "...",
    *[name for name in names if not name.startswith("base.")],
    sep="\n",
)

# %% [markdown]
# `base.` is the backbone, with torchvision's own names after the dot; the rest are the local branch and the head. We save the state and load
# it into a model that started from a different seed:

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

from alignedreid_lib.model import load_weights

temporary = TemporaryDirectory()
folder = Path(temporary.name)
torch.save(network.state_dict(), folder / "weights.pth")
generator = torch.manual_seed(config.seed + 1)
twin = AlignedReID(
    config.backbone, None, num_ids, config.local_channels, config.last_stride
).eval()
with torch.no_grad():
    assert not torch.equal(
        twin(batch).global_features, embedding.global_features
    ), "a different seed gives a different network"

# %% tags=["nbval-check-output"]
print(load_weights(twin, folder / "weights.pth"))
with torch.no_grad():
    again = twin(batch)
assert all(
    torch.equal(a, b)
    for a, b in zip(
        twin.state_dict().values(), network.state_dict().values(), strict=True
    )
)
assert all(torch.equal(a, b) for a, b in zip(again, embedding, strict=True)), (
    "the loaded model gives the same features bit for bit"
)

# %% [markdown]
# No tensor is missing, none is left over, and every bit of every feature is the same.
#
# ### The old format
#
# The original reproduction ran on PyTorch 0.3. Files of that time are not zip archives like today's, and have no counters named
# `num_batches_tracked`. Here we write and load such a file:

# %% tags=["nbval-check-output"]
import zipfile

state = network.state_dict()
old = {name: state[name] for name in state if "num_batches_tracked" not in name}
torch.save(old, folder / "old.pth", _use_new_zipfile_serialization=False)
assert zipfile.is_zipfile(folder / "weights.pth"), (
    "today's format is a zip archive"
)
assert not zipfile.is_zipfile(folder / "old.pth"), (
    "the old format is not a zip archive"
)
twin = AlignedReID(config.backbone, None, num_ids, config.local_channels)
report = load_weights(twin, folder / "old.pth")
assert report.missing == report.unexpected == [], (
    "the missing counters are not reported"
)
print(report)

# %% [markdown]
# ### Missing and left-over tensors
#
# A file with only the backbone, as torchvision publishes it, has names without `base.` (the report adds it), no local branch, and a
# classifier for ImageNet's thousand classes, which we do not need. The file can be loaded, and the report lists the tensors that the file
# lacks and those that the model does not need:

# %% tags=["nbval-check-output"]
import torchvision

published = torchvision.models.get_model(config.backbone).state_dict()
torch.save(published, folder / "backbone.pth")
report = load_weights(twin, folder / "backbone.pth")
assert not any(name.startswith("base.") for name in report.missing), (
    "the backbone is complete"
)
print("missing:", *report.missing, sep="\n  ")
print("left over:", *report.unexpected, sep="\n  ")

# %% [markdown]
# A missing tensor keeps its random values and has to be trained. Always read this list: a name that you do not expect there is a mistake,
# which is easy to find now and hard to find later.
#
# If the file comes from a training with a different number of people, its classifier does not fit. The library then loads everything else,
# and the new classifier keeps its random values:

# %% tags=["nbval-check-output"]
larger = AlignedReID(config.backbone, None, num_ids + 1, config.local_channels)
report = load_weights(larger, folder / "weights.pth")
assert report.missing == report.unexpected == ["fc.weight", "fc.bias"], (
    "only the classifier is missing and left over"
)
print(report)

# %% [markdown]
# A file does not record who its people are. If it comes from training on different people, and there happen to be as many of them, the
# library loads their classifier, and training has to correct it.
#
# ### Files that are rejected
#
# If the file lacks tensors of the *backbone*, it belongs to a different network. If its backbone is complete but the shape of any other
# tensor differs, except for the classifier's, the model was built with different settings. The library never loads a part of such a file:
# the model stays unchanged.


# %%
from textwrap import fill

from alignedreid_lib.errors import InputError


def refusal(model, name):
    """The message with which a file is rejected, without its folder."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    try:
        load_weights(model, folder / name)
    except InputError as error:
        after = model.state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before), (
            "a rejected file leaves the model unchanged"
        )
        return fill(str(error).replace(str(folder), "..."), 84)
    raise AssertionError(f"{name} was not refused")


# %% tags=["nbval-check-output"]
another = "resnet18" if config.backbone == "mobilenet_v2" else "mobilenet_v2"
print(refusal(AlignedReID(another), "weights.pth"))
print()
wider = AlignedReID(config.backbone, None, num_ids, 2 * config.local_channels)
print(refusal(wider, "weights.pth"))

# %% [markdown]
# In the first case the file belongs to a different backbone; in the second the model's local features are twice as long as the file's.
#
# In the third case a file is rejected for safety. A weights file is a *pickle*, and a pickle may name a function to call while it is loaded.
# An object of this class is saved as the instruction to make a folder:


# %%
import os


class Trap:
    def __reduce__(self):
        return os.mkdir, (str(folder / "made by a weights file"),)


torch.save({"conv1.weight": Trap()}, folder / "trap.pth")
message = refusal(twin, "trap.pth")
assert not (folder / "made by a weights file").exists(), (
    "the file has called no function"
)
assert "not a file of weights" in message
print(message)

# %% [markdown]
# The library reads with `weights_only=True`, which allows tensors, numbers and plain containers, but no functions. It reads the ImageNet
# weights in torchvision's cache in the same way (`weights = "imagenet"`). Without this protection, the file runs its code:

# %%
torch.load(folder / "trap.pth", weights_only=False)
assert (folder / "made by a weights file").exists(), (
    "reading the file has run its code"
)
temporary.cleanup()

# %% [markdown]
# The code made a harmless folder, which is now deleted. A different file could have sent your passwords to someone. Never load a downloaded
# file in this way.

# %% [markdown]
# ## What the papers say
#
# :::{admonition} The paper says
# The backbone is a ResNet-50 with inputs of 224 × 224. Its last feature map has $C = 2048$ channels and $H = W = 7$; a local feature has
# $c = 128$ numbers (Zhang et al. 2017, section 3.1). At test time only the global feature is kept.
# :::
#
# :::{admonition} The original reproduction says
# Inputs are 256 × 128, the shape of a person, so $H = 8$. The local branch is a mean over the width, a 1 × 1 convolution to 128 channels,
# batch norm and ReLU. The classifier's weights start with a standard deviation of 0.001.
# :::
#
# Our table contains both heights: equation {eq}`eq-map-size` gives 7 stripes for 224 rows and 8 stripes for 256, with 2048 channels for
# ResNet-50. The library follows the reproduction, so that its files load. If a search uses only the global feature, the parameters in the
# columns `local` and `head` of the table cost nothing there.

# %% [markdown]
# ## Which setting should I take?
#
# * `weights = "imagenet"` for real images: most parameters are in the backbone (23.5 of 25.3 million in ResNet-50 with a head for 751
#   people), and they need not start from random values.
# * `height = 256`, `width = 128`: the shape of a standing person, with eight stripes. A square of 224 × 224 has seven stripes, and the
#   person in it is stretched to twice the width.
# * `last_stride = 1` if the input is small: 64 × 32 then gives a feature map of 4 × 2 instead of 2 × 1. The last stage then has four times
#   as many cells to compute.
# * `backbone`: `resnet50` to compare with published rows; `mobilenet_v2` if memory or time is short, since it has a tenth of the parameters.
# * `local_channels = 128`: the paper's value. A file with a different value does not load.
#
# ## Summary
#
# * The last feature map of a backbone has $H \times W$ cells of $C$ numbers, with $H = \lceil h / 32 \rceil$; with `last_stride=1`,
#   $\lceil h / 16 \rceil$.
# * The global feature is the average of the feature map; a local feature is the average of a row, reduced to $c$ numbers by a matrix that all
#   stripes share.
# * A stripe depends mostly on its own part of the image, and a little on everything around it.
# * Weights keep the original's names. The library lists missing and left-over tensors, rejects a file that does not fit, and never runs code
#   from a file.
#
# Next: [chapter 4](04_alignment.ipynb) aligns the stripes; [chapter 5](05_losses.ipynb) defines the losses.

# %% [markdown]
# ## Exercises
#
# **1.** You need sixteen stripes. Which input heights give them, with `last_stride` 2 and with 1? Check one of each.
#
# :::{dropdown} Solution
# By equation {eq}`eq-map-size`, heights of 481 to 512; with stride 1, heights of 241 to 256.
#
# ```python
# for h, stride in ((512, 2), (256, 1)):
#     base = build_backbone("resnet18", last_stride=stride).eval()
#     assert base(torch.zeros(1, 3, h, 128)).shape[2] == 16
# ```
# :::
#
# **2.** Turn the feature map upside down before the two branches. How do the global feature and the local features change?
#
# :::{dropdown} Solution
# ```python
# with torch.no_grad():
#     flipped = feature_map.flip(2)
#     assert torch.allclose(flipped.mean((2, 3)), feature_map.mean((2, 3)), atol=1e-4)
#     assert torch.allclose(local_by_hand(network, flipped), local_by_hand(network, feature_map).flip(1), atol=1e-4)
# ```
#
# The global feature does not change, because it does not depend on positions. The local features are the same in reverse order. So a
# comparison stripe by stripe fails if the same part of the body is in different stripes.
# :::
#
# **3.** The branch averages over the width and then multiplies by $A$. Could it multiply first and average afterwards? Could it average after
# the ReLU?
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
# The mean and the matrix are both linear, so their order does not matter; averaging first does a quarter of the work at $W = 4$. ReLU is not
# linear, so its position matters.
# :::
#
# **4.** Compute the stripes of equation {eq}`eq-stripe`. The function gets the feature map of one image, a tensor of shape [C, H, W], and
# returns one row of C numbers per stripe, a tensor of shape [H, C]. It has one mistake. Run the cell, read the answer and repair the
# function.

# %% tags=["nbval-check-output"]
from alignedreid_lib.exercises import check


def pool_stripes(feature_map):
    return feature_map.mean(dim=1).T


check("03_model", pool_stripes)

# %% [markdown]
# :::{dropdown} Solution
# ```python
# def pool_stripes(feature_map):
#     return feature_map.mean(dim=2).T
#
#
# assert check("03_model", pool_stripes)
# ```
# :::
