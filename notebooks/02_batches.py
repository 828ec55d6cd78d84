# %% [markdown]
# # 02 Batches
#
# A network learns by comparing the images of a *batch*, the small set that one training step sees. Most training programs choose a batch at
# random. Here are sixteen images chosen in this way. Look for two of the same person:

# %% tags=["parameters"]
# Parameters: the shape of a batch, and what is done to its images
height = 64
width = 32
ids_per_batch = 16
images_per_id = 4
mirror_prob = 0.5
crop_prob = 0.5
crop_ratio = 0.8
memory_limit = 67108864
workers = 2
seed = 1

# %%
import numpy as np
import torch

from alignedreid_lib import book, figures, runs
from alignedreid_lib.batches import images
from alignedreid_lib.datasets import open_dataset
from alignedreid_lib.training import TrainConfig

config = runs.read_parameters(TrainConfig, globals())

# %% label="fig-random" alt="Sixteen drawn pedestrians in two rows, each with the number of its identity; almost all of them are different people" caption="A random batch: hardly anyone appears twice, so there is almost nothing to compare."
size = (config.height, config.width)
dataset = open_dataset(book.dataset_folder("market1501"), "trainval")
rng = np.random.default_rng(config.seed)
some = rng.choice(len(dataset), 16, replace=False)
figures.contact_sheet(
    [images.decode(dataset.paths[k]) for k in some],
    [f"id {dataset.ids[k]}" for k in some],
)

# %% [markdown]
# Two images of one person (a *positive* pair) should get features that are close to each other, and two images of different people (a
# *negative* pair) features that are far apart. Most of these images have no positive in the batch, so they can teach the network only to
# push features apart. This chapter shows how image files become one batch of P identities with K images each, and why training needs that
# shape.
#
# **What you will learn**
#
# * how to compute by hand every step from a file to the numbers a network sees: resizing, mirror, crop, normalisation;
# * why a batch is P identities × K images rather than random images: a probability, computed and simulated;
# * what one batch of the book's own data looks like before and after *augmentation*, the random changes of each image.
#
# **Time** on two cores: 20 seconds, plus half a minute if the book's people are not drawn yet.
# **Hardware**: any laptop, no GPU.
#
# [Chapter 1](01_datasets.ipynb) turned a raw archive into a dataset: a list of files, each with an identity and a camera.
# `book.dataset_folder` found the drawn people above, or drew them. The settings in the parameters cell belong to a training run, so the
# library's `TrainConfig` checks them: an unknown name, a wrong type or an impossible value stops the chapter here, instead of stopping a
# training run after an hour.

# %%
ids, counts = np.unique(dataset.ids, return_counts=True)
print(len(dataset), "images of", len(ids), "identities")
print("each has", counts.min(), "to", counts.max())

# %% [markdown]
# ## From a file to a tensor
#
# `images.decode` reads a file into a tensor of shape [3, height, width]: red, green and blue, with one byte each.

# %% tags=["nbval-check-output"]
image = images.decode(dataset.paths[0])
print(image.dtype, list(image.shape), f"{image.numel()} bytes")

# %% [markdown]
# Pillow, which decodes the file, returns [height, width, 3]. The network needs the three colours as the first axis; nothing else changes.

# %%
from PIL import Image

pixels = np.array(Image.open(dataset.paths[0]).convert("RGB"))
assert pixels[5, 7].tolist() == image[:, 5, 7].tolist(), (
    "row 5, column 7 has the same red, green and blue"
)

# %% [markdown]
# Training uses every image many times, but its JPEG needs to be decoded only once: `ImageStore` decodes an image at its first use and keeps
# the bytes. It keeps at most `memory_limit` bytes; further images are decoded each time.

# %%
store = images.ImageStore(
    dataset.paths, limit_bytes=config.memory_limit, workers=config.workers
)
everything = store.fetch(range(len(dataset)))
print(f"{store.kept_bytes / 1e6:.1f} MB kept", end=", ")
print(f"of {config.memory_limit / 1e6:.1f} MB allowed")

# %% [markdown]
# The whole training set fits. A store whose limit is five images keeps five, decodes the others each time, and returns the same images.

# %%
small = images.ImageStore(
    dataset.paths, limit_bytes=5 * image.numel(), workers=4
)
again = small.fetch(range(20))
assert small.kept_bytes == 5 * image.numel(), (
    "the store keeps no more than its limit"
)
assert all(
    torch.equal(a, b) for a, b in zip(again, everything, strict=False)
), "four threads and two threads give the same images"

# %% [markdown]
# Why does the store keep bytes and not the floating-point numbers that the network gets? Floating-point numbers take four times the memory.
# For the 12 936 training images of Market-1501 at 256 × 128:

# %% tags=["nbval-check-output"]
market = 12936 * 3 * 256 * 128
print(f"uint8 {market / 1e9:.2f} GB, float32 {4 * market / 1e9:.2f} GB")

# %% [markdown]
# The first number easily fits into a laptop's memory; the second would fill most of a laptop with 8 GB.

# %% [markdown]
# ## Resizing, by hand
#
# The boxes of a detector have many sizes, but all images of a batch must have one size. For each new pixel, resizing computes where its
# centre is in the old image. A pixel is a small square, so the centre of pixel $j$ is at $j + \tfrac12$. If $w$ columns become $w'$, the
# centre of the new column $j$ is at this column $u_j$ of the old image:
#
# $$
# u_j = \left(j + \tfrac12\right)\frac{w}{w'} - \tfrac12, \qquad \text{limited to the range } 0 \ldots w - 1 .
# $$ (eq-resize-centre)
#
# (The last $\tfrac12$ turns the position of a centre back into a column number.) This point is between two old columns. The new value $y_j$
# is a weighted mean of both old values, with more weight on the nearer one. With $x_k$ for the value in old column $k$ and $\lfloor u
# \rfloor$ for $u$ rounded down,
#
# $$
# y_j = (1 - a_j)\, x_{\lfloor u_j \rfloor} + a_j\, x_{\lfloor u_j \rfloor + 1}, \qquad a_j = u_j - \lfloor u_j \rfloor .
# $$ (eq-resize-mix)
#
# At the last column $\lfloor u_j \rfloor + 1$ would be outside the image, but its weight $a_j$ is 0 there. Rows are treated in the same way,
# and the two steps together are called *bilinear*. As an example, two columns become three. By equation {eq}`eq-resize-centre`:

# %% tags=["nbval-check-output"]
for j in range(3):
    u = (j + 0.5) * 2 / 3 - 0.5
    print(
        f"new column {j}: u = {u:+.3f}, limited to 0 ... 1:"
        f" {min(max(u, 0), 1):.1f}"
    )

# %% [markdown]
# The outer columns do not change, and the new middle column is the mean of both, by equation {eq}`eq-resize-mix`. In an image with the rows
# (0, 100) and (200, 40) the new values are 50 and 120. The library gives the same numbers:

# %% tags=["nbval-check-output"]
tiny = torch.tensor([[0, 100], [200, 40]], dtype=torch.uint8).expand(3, 2, 2)
resized = images.resize(tiny, (2, 3))[0]
print(resized.numpy())
assert resized.tolist() == [[0, 50, 100], [200, 120, 40]], (
    "the resized image is the one on paper"
)

# %% [markdown]
# Here are both equations as a loop. `between` returns the first of the two old pixels around new pixel `j`, and the weight $a_j$ of the
# second.


# %%
def between(j, old, new):
    u = min(max((j + 0.5) * old / new - 0.5, 0), old - 1)
    first = min(int(u), old - 2)
    return first, u - first


def resize_by_hand(x, h, w):
    y = np.zeros((h, w))
    for i, j in np.ndindex(h, w):
        top, a = between(i, x.shape[0], h)
        left, b = between(j, x.shape[1], w)
        upper = (1 - b) * x[top, left] + b * x[top, left + 1]
        lower = (1 - b) * x[top + 1, left] + b * x[top + 1, left + 1]
        y[i, j] = (1 - a) * upper + a * lower
    return y.round()


# %% [markdown]
# We resize the red channel of the first image with the loop and with the library:

# %%
by_hand = resize_by_hand(image[0].numpy(), *size)
difference = np.abs(by_hand - images.resize(image, size)[0].numpy())
assert difference.max() <= 1, (
    "loop and library differ by at most 1, where a value ends in .5"
)
print(
    f"largest difference over {difference.size} pixels: {difference.max():.0f}"
)

# %% [markdown]
# ### Why is there no antialias?
#
# Equation {eq}`eq-resize-mix` uses two old columns per new column, however much smaller the new image is. If nine columns become three, two
# of every three old columns have no effect at all. Many programs therefore average over all old columns that a new one covers (*antialias*).
# A shirt with bright stripes shows the difference. Its nine columns are 0, 255, 0, 0, 255, 0, 0, 255, 0:
#
# :::{admonition} Predict first
# :class: tip
# The mean of the nine columns is 85. What do the three new columns show without antialias?
# :::

# %% tags=["nbval-check-output"]
import torch.nn.functional as F

stripes = torch.tensor([0, 255, 0] * 3, dtype=torch.uint8).expand(3, 1, 9)
plain = images.resize(stripes, (1, 3))[0, 0]


def smooth(image, size):
    soft = F.interpolate(
        image[None].float(), size, mode="bilinear", antialias=True
    )[0]
    return soft.round().to(torch.uint8)


print("without antialias:", plain.tolist())
print("with antialias:   ", smooth(stripes, (1, 3))[0, 0].tolist())
assert plain.tolist() == [255, 255, 255], "only the columns 1, 4 and 7 are used"

# %% [markdown]
# Without antialias the shirt becomes white; with antialias it becomes dark grey, which is closer to the shirt's mean. The library
# nevertheless does not use antialias, because the original reproduction did not: its weights were trained on images with hard edges, and a
# network should see the same kind of images in a search as in training. [The next figure](#fig-antialias) shows images reduced to a quarter
# of their size in both ways.

# %% label="fig-antialias" alt="Two pedestrians, each in full size, reduced without antialias (hard, jagged edges) and with antialias (soft)" caption="Plain reduction keeps edges hard, antialias softens them."
sheet, titles = [], []
for k in some[:2]:
    full = images.decode(dataset.paths[k])
    sheet += [full, images.resize(full, (32, 16)), smooth(full, (32, 16))]
    titles += ["128 × 64", "32 × 16, plain", "antialias"]
figures.contact_sheet(sheet, titles, columns=6)

# %% [markdown]
# Plain reduction keeps edges hard, and fine patterns vanish or change; antialias softens edges and averages patterns. At the book's own 64
# × 32 the difference is smaller: at half the size each new pixel is the mean of four old ones, so no pixel is skipped.

# %% [markdown]
# ## Mirror and crop
#
# The mirror image of a person shows the same person, and so does a slightly different box. Training with such changes (*augmentation*)
# teaches the network to ignore them. A mirror reverses the order of the columns:

# %% tags=["nbval-check-output"]
turned = images.augment([tiny], (2, 2), torch.Generator(), mirror_prob=1.0)[0]
print(turned[0].numpy())
assert turned[0].tolist() == [[100, 0], [40, 200]], (
    "the mirror swaps the columns and keeps the rows"
)

# %% [markdown]
# A random crop cuts a smaller box out of the image at a random position. It keeps a share of the height and a share of the width, each
# drawn uniformly between `crop_ratio` and 1, and the result is resized to the size of the batch. With a ratio of 0.5, an image of 128 × 64
# keeps at least 64 rows and 32 columns:

# %% tags=["nbval-check-output"]
generator = torch.Generator().manual_seed(config.seed)
kept = torch.tensor(
    [images.random_crop(image, 0.5, generator).shape for _ in range(1000)]
)
low, high = kept.min(0).values.tolist(), kept.max(0).values.tolist()
assert low[1] >= 64 and low[2] >= 32, "a crop never keeps less than the ratio"
assert high[1] <= 128 and high[2] <= 64, "a crop is never larger than the image"
print(f"rows {low[1]} to {high[1]}, columns {low[2]} to {high[2]}")

# %% [markdown]
# `images.augment` does both: a crop with probability `crop_prob` and a mirror with probability `mirror_prob`. Here is one person, augmented
# fifteen times.

# %% alt="One pedestrian and fifteen augmented versions: about half are mirrored, some are closer because they were cropped" caption="Sixteen images for the network, one person for us."
rule = dict(
    mirror_prob=config.mirror_prob,
    crop_prob=config.crop_prob,
    crop_ratio=config.crop_ratio,
)
person = everything[some[0]]
fifteen = images.augment([person] * 15, (128, 64), generator, **rule)
figures.contact_sheet([person, *fifteen], ["original", *[""] * 15])

# %% [markdown]
# In some images the person looks in the opposite direction, in some the person is slightly larger; it is always the same person. All
# randomness comes from the generator:

# %%
first, second = (
    images.augment([image] * 15, size, torch.Generator().manual_seed(5), **rule)
    for _ in range(2)
)
assert torch.equal(first, second), (
    "the same generator gives the same augmentation, number for number"
)

# %% [markdown]
# `augment` first makes the random decisions for all images (`augmentation.draw_views`: which box, and mirrored or not) and then computes
# the images. So the decisions do not depend on what computes the images: one thread, several threads, or a GPU. (The GPU computes the whole
# batch in a few operations; its values may differ from the CPU's by one grey level.)
#
# ## Normalisation
#
# A network learns best from numbers around 0 with a size of about 1. Let $\mu$ and $\sigma$ be the mean and the standard deviation of a
# colour over many images, on a scale from 0 to 1. Then a byte $x$ becomes
#
# $$
# y = \frac{x / 255 - \mu}{\sigma} .
# $$ (eq-normalise)
#
# For a pixel with red 200, green 100 and blue 50, by hand and with the library:

# %% tags=["nbval-check-output"]
pixel = torch.tensor([200, 100, 50], dtype=torch.uint8).view(1, 3, 1, 1)
by_hand = [
    (x / 255 - mu) / sigma
    for x, mu, sigma in zip(
        (200, 100, 50), images.MEAN, images.STD, strict=True
    )
]
by_library = images.normalize(pixel).flatten()
print([round(y, 3) for y in by_hand])
assert torch.allclose(by_library, torch.tensor(by_hand), atol=1e-5), (
    "the library normalises as by hand"
)

# %% [markdown]
# Red is well above its mean and blue well below. The values of $\mu$ and $\sigma$ are those of the original reproduction:

# %% tags=["nbval-check-output"]
print("mean", images.MEAN, "standard deviation", images.STD)

# %% [markdown]
# ## How rare positives are
#
# Now we return to the batch. Only in this section, $N$ is the size of the whole dataset, $n$ the number of images of one person, and $\Pr$
# a probability. Draw $B$ images at random from $N$, where every person has $n$ images. When does the batch have no two images of one
# person? The first image may be any of the $N$. The second must be one of the $N - n$ images of other people, out of $N - 1$ that are left.
# The third must be one of the $N - 2n$ images of people who are not drawn yet, out of $N - 2$, and so on:
#
# $$
# \Pr(\text{no two images of one person}) = \prod_{i=0}^{B-1} \frac{N - i\,n}{N - i} .
# $$ (eq-no-pair)
#
# For three people with two images each and a batch of three: $\frac66 \cdot \frac45 \cdot \frac24 = \frac25$. There are only twenty such
# batches, so we can list them all:

# %% tags=["nbval-check-output"]
from itertools import combinations

people = [0, 0, 1, 1, 2, 2]
batches = list(combinations(people, 3))
without = [batch for batch in batches if len(set(batch)) == 3]
print(f"{len(without)} of {len(batches)} batches have three different people")
assert 5 * len(without) == 2 * len(batches), (
    "two fifths of the batches have three different people"
)

# %% [markdown]
# One pair in a batch is not enough. Training takes each image of the batch in turn as the *anchor* and needs a positive for it. An anchor
# has no positive if all other $B - 1$ images of the batch come from the $N - n$ images of other people:
#
# $$
# \Pr(\text{an anchor has no positive}) = \prod_{i=1}^{B-1} \frac{N - n + 1 - i}{N - i} .
# $$ (eq-no-positive)
#
# By hand, for the same six images: $\frac45 \cdot \frac34 = \frac35$. The list has 20 batches of 3 anchors, and three fifths of these 60
# anchors should have no positive:

# %% tags=["nbval-check-output"]
alone = sum(batch.count(person) == 1 for batch in batches for person in batch)
print(f"{alone} of {3 * len(batches)} anchors have no positive")
assert 5 * alone == 3 * (3 * len(batches)), (
    "three fifths of the anchors have no positive"
)


# %% [markdown]
# The next cell evaluates the same two equations for Market-1501, 12 936 images of 751 people (about 17 each), and a random batch of 64:
#
# :::{admonition} Predict first
# :class: tip
# A random batch of Market-1501 has 64 of 12 936 images. What share of its anchors has a positive: 8 %, 40 % or 90 %?
# :::


# %% tags=["nbval-check-output"]
def no_pair(N, n, B):
    return np.prod([(N - i * n) / (N - i) for i in range(B)])


def no_positive(N, n, B):
    return np.prod([(N - n + 1 - i) / (N - i) for i in range(1, B)])


print(f"some pair in the batch: {1 - no_pair(12936, 12936 / 751, 64):.1%}")
print(
    f"an anchor has a positive: {1 - no_positive(12936, 12936 / 751, 64):.1%}"
)

# %% [markdown]
# 92.6 % of the batches contain at least one pair, but only 7.6 % of the anchors have a positive. The book's dataset has fewer people, so
# positives are more frequent. The next cells compute equation {eq}`eq-no-positive` with the $n$ of each image's person, and compare the
# result with 2 000 random batches:

# %%
B = config.ids_per_batch * config.images_per_id
own = counts[
    np.searchsorted(ids, dataset.ids)
]  # for each image: how many images its person has
expected = np.mean([1 - no_positive(len(dataset), n, B) for n in own])


# %%
def positives(labels):
    """[N]: how many other images of the batch show the same person."""
    return (labels[:, None] == labels[None, :]).sum(1) - 1


drawn = [
    dataset.ids[rng.choice(len(dataset), B, replace=False)] for _ in range(2000)
]
simulated = np.mean([positives(labels) > 0 for labels in drawn])
pairs = np.mean([(positives(labels) > 0).any() for labels in drawn])
assert abs(simulated - expected) < 0.02, (
    "the simulation agrees with the equation"
)
print(f"random batches of {B} with a pair: {pairs:.1%}")
print(f"anchors with a positive: {simulated:.1%}, computed {expected:.1%}")

# %% [markdown]
# Almost every random batch of this small dataset contains a pair, but seven in ten anchors still have no positive. The loss of [chapter
# 5](05_losses.ipynb) compares each anchor's farthest positive with its nearest negative; anchor, positive and negative together are a
# *triplet*. An anchor without a positive has no triplet.

# %% [markdown]
# ## P identities × K images
#
# The solution (Hermans et al. 2017) is to choose first $P$ *people*, and then $K$ images of each. Every anchor then has $K - 1$ positives
# and $(P - 1) K$ negatives, and the number of triplets in a batch is
#
# $$
# n_{\text{triplets}} = P K \cdot (K - 1) \cdot (P - 1) K .
# $$ (eq-triplets)
#
# For two people with two images each there are four anchors, one positive and two negatives for each, and eight triplets. We count them one
# by one:

# %% tags=["nbval-check-output"]
labels = ["a", "a", "b", "b"]
triplets = [
    (anchor, positive, negative)
    for anchor in range(4)
    for positive in range(4)
    for negative in range(4)
    if anchor != positive
    and labels[anchor] == labels[positive] != labels[negative]
]
print(triplets)
assert len(triplets) == 2 * 2 * (2 - 1) * (2 - 1) * 2 == 8, (
    "there are eight triplets, as the equation gives"
)


# %% [markdown]
# A *sampler* yields one list of image numbers per batch. This one goes once through all people in random order, which is one *epoch*, and
# drops the last batch if it is incomplete. A person with fewer than $K$ images contributes some of them more than once.


# %%
def naive_batches(labels, ids_per_batch, images_per_id, rng):
    people = rng.permutation(np.unique(labels))
    for start in range(0, len(people) - ids_per_batch + 1, ids_per_batch):
        batch = []
        for person in people[start : start + ids_per_batch]:
            own = np.flatnonzero(labels == person)
            repeat = len(own) < images_per_id
            batch.extend(rng.choice(own, images_per_id, replace=repeat))
        yield np.array(batch)


# %% [markdown]
# We try it on five people with 3, 2, 4, 3 and 5 images, $P = 2$, $K = 3$, and print the labels of each batch:

# %%
few = np.repeat([0, 1, 2, 3, 4], [3, 2, 4, 3, 5])
for batch in naive_batches(few, 2, 3, np.random.default_rng(config.seed)):
    print("images", batch.tolist(), "of people", few[batch].tolist())

# %% [markdown]
# The result has two batches with four of the five people, and three images of each. One person is left over. `IdentitySampler` is the
# library's version. Both samplers must have the same properties, so one function checks them.


# %%
def check_epoch(batches, labels, P, K):
    people = [labels[batch].reshape(P, K) for batch in batches]
    assert all((group == group[:, :1]).all() for group in people), (
        "the K images of one person are next to each other"
    )
    seen = np.concatenate([group[:, 0] for group in people])
    assert len(seen) == len(set(seen)), "no person is drawn twice in an epoch"
    assert len(seen) == len(np.unique(labels)) // P * P, (
        "every person is drawn, except for the last incomplete batch"
    )


# %%
from alignedreid_lib.batches.sampling import IdentitySampler

P, K = config.ids_per_batch, config.images_per_id
sampler = IdentitySampler(dataset.labels, P, K, config.seed)
epochs = [list(sampler), list(sampler)]
check_epoch(
    list(naive_batches(dataset.labels, P, K, rng)), dataset.labels, P, K
)
for epoch in epochs:
    check_epoch(epoch, dataset.labels, P, K)
print(f"{len(sampler)} batches of {P} × {K} = {P * K} images per epoch")

# %% [markdown]
# The naive sampler and the library's have the same properties. The library's has four more: it repeats as little as possible, the same seed
# gives the same batches, it can start at any epoch, and it rejects settings that cannot work. First, a person with two images contributes
# both before one of them is repeated.

# %%
for batch in IdentitySampler(few, 5, 4, config.seed):
    for group in batch.reshape(5, 4):
        person = few[group[0]]
        assert len(set(group)) == min(4, (few == person).sum()), (
            "no image is repeated before every image is used"
        )
        drawn_now = sorted((group - np.argmax(few == person)).tolist())
        print(
            f"person {person} has {(few == person).sum()} images: {drawn_now}"
        )

# %% [markdown]
# Persons 0, 1 and 3 have fewer than four images, and only their images are repeated.
#
# :::{admonition} The original reproduction does
# It draws such a person's $K$ images *with* replacement, so one image may be drawn three times while another is not drawn at all. It also
# trains on the people who are left over at the end of an epoch, in a smaller batch: Market-1501's 751 people give 23 batches of 32 and one of
# 15. (Two scripts of the original do this: the one that made its table, and the one for two models. A later script for one model drops that
# batch.)
# :::
#
# The library supports both, and the presets that repeat the original's published rows use them: `draw="replace"` and `keep_last_batch=True`.
#
# :::{admonition} Predict first
# :class: tip
# A person has two images, and $K = 4$ are drawn with replacement. We do this 400 times. How often are all four the same image?
# :::

# %% tags=["nbval-check-output"]
market = np.repeat(np.arange(751), 17)  # its people, with 17 images each
for keep in (False, True):
    sizes = [
        len(batch) // 4
        for batch in IdentitySampler(market, 32, 4, 1, keep_last_batch=keep)
    ]
    print(
        f"keep_last_batch={keep}: {len(sizes)} batches, the last of {sizes[-1]}"
        " people"
    )
replaced = IdentitySampler([0, 0, 1, 1, 1, 1], 2, 4, seed=1, draw="replace")
alike = sum(
    len(set(batch[batch < 2])) == 1 for _ in range(400) for batch in replaced
)
print(f"{alike} of 400 draws from two images take the same image four times")

# %%
assert 20 < alike < 90, (
    "about 50 of 400 draws, one in eight, repeat one image four times"
)

# %% [markdown]
# Second, the same seed gives the same batches, and the second epoch differs from the first:

# %%
same = list(IdentitySampler(dataset.labels, P, K, config.seed))
assert all(
    np.array_equal(a, b) for a, b in zip(epochs[0], same, strict=True)
), "the same seed gives the same epoch"
assert not all(np.array_equal(a, b) for a, b in zip(*epochs, strict=True)), (
    "a different epoch has different batches"
)

# %% [markdown]
# Third, an epoch depends only on the seed and its number. An interrupted training run requests epoch 2 and gets the same batches as without the
# interruption:

# %%
resumed = IdentitySampler(dataset.labels, P, K, config.seed)
resumed.set_epoch(2)
assert all(
    np.array_equal(a, b) for a, b in zip(epochs[1], resumed, strict=True)
), "epoch 2 is the same without epoch 1 before it"

# %% [markdown]
# Fourth, settings that cannot work are rejected immediately, with a message that explains what to change:

# %% tags=["nbval-check-output"]
from alignedreid_lib.errors import InputError

for wish in ((8, 2), (2, 9)):
    try:
        IdentitySampler(few, *wish, seed=1)
    except InputError as error:
        print(error)

# %% [markdown]
# ## One batch in detail
#
# Which images of a batch show the same person? The next figure is a matrix: rows and columns are the images of the batch, and a cell is dark
# if both show the same person.

# %% label="fig-batch-matrices" alt="Two matrices: a random batch has a diagonal of mostly single dots, a P x K batch a row of full blocks along the diagonal" caption="In a P × K batch every image has positives; in a random one fewer than half have any."
batch = epochs[0][0]
fig = figures.Figure(figsize=(6, 3.1), layout="constrained")
shown = {"random": np.sort(drawn[0]), f"{P} × {K}": dataset.ids[batch]}
for ax, (title, who) in zip(fig.subplots(1, 2), shown.items(), strict=True):
    ax.imshow(who[:, None] == who[None, :], cmap="Blues", vmin=0, vmax=1.3)
    share = (positives(who) > 0).mean()
    ax.set(
        title=f"{title}: {share:.0%} with a positive",
        xlabel="image",
        ylabel="image",
    )
    ax.grid(False)
fig

# %% [markdown]
# In [the figure](#fig-batch-matrices) most images of the random batch (sorted by person) have only the dot on the diagonal, their pair with
# themselves. The P × K batch has full K × K blocks along the diagonal. Here are its first six people, resized:

# %%
before = images.resize(torch.stack(store.fetch(batch)), size)
assert before.shape == (P * K, 3, *size) and before.dtype == torch.uint8, (
    "the batch is one tensor of bytes"
)
assert (positives(dataset.ids[batch]) == K - 1).all(), (
    "every anchor has K - 1 positives"
)

# %% label="fig-whole-batch" alt="Six people of a batch: identities side by side, the K images of each together under its number" caption="The four images of a person differ in camera, side and box."
figures.batch_grid(before[: 6 * K], dataset.ids[batch[: 6 * K]], K)

# %% [markdown]
# Each group of K images is one person, seen by different cameras, from different sides, in boxes that do not fit equally well: heads and
# feet are at different heights. AlignedReID is made for this last difference. Here are the first four people again, augmented:

# %% alt="The first identities of the same batch after augmentation: some images are mirrored, some cropped" caption="What the network gets: the same people, mirrored and cropped at random."
generator = torch.Generator().manual_seed(config.seed)
after = images.augment(store.fetch(batch), size, generator, **rule)
figures.batch_grid(after[: 4 * K], dataset.ids[batch[: 4 * K]], K)

# %% [markdown]
# Compare this with the first two rows of [the batch](#fig-whole-batch): about half of the images are mirrored, and about half are cropped.
# Normalised, this batch is the input of the network:

# %%
batch_in = images.normalize(after)
assert (
    batch_in.shape == (P * K, 3, *size) and batch_in.dtype == torch.float32
), "the network gets P x K images as floating-point numbers"
mean, std = (
    torch.tensor(values).view(3, 1, 1) for values in (images.MEAN, images.STD)
)
back = batch_in * std + mean
assert torch.equal((back * 255).round().to(torch.uint8), after), (
    "undoing the normalisation gives the same bytes"
)
print(f"mean {batch_in.mean():.2f}, standard deviation {batch_in.std():.2f}")

# %% [markdown]
# The numbers are around 0 with a size of about 1, as intended.

# %% [markdown]
# ## What the papers say
#
# :::{admonition} The paper says
# A batch of AlignedReID has 160 images, 4 of each identity, so $P = 40$ and $K = 4$. Images are 224 × 224, and are flipped and cropped at
# random (Zhang et al. 2017).
# :::
#
# :::{admonition} The original reproduction says
# $P = 32$, $K = 4$, images of 256 × 128, mirrored with probability 0.5; crops are available (`crop_prob`, `crop_ratio`) but turned off. An epoch is one pass over the identities.
# :::
#
# Both use $K = 4$ and many people per batch. Our numbers explain why: by equation {eq}`eq-triplets`, a batch of 128 has $128 \cdot 3 \cdot
# 124 = 47\,616$ triplets, and every anchor has a positive; in a random batch from Market-1501, 85.2 % of the anchors would have none. The
# book's own batches are smaller, 16 × 4 images of 64 × 32, because two cores have to train on them in about a minute. The box of a standing
# person is about twice as high as wide: 64 × 32 has the shape of the reproduction's images, not the paper's square. Crops of this kind are
# used only in this chapter, for illustration; the book's model is trained without them.

# %% tags=["nbval-check-output"]
print(f"32 × 4: {32 * 4 * 3 * 31 * 4} triplets")
print(
    f"random 128: {no_positive(12936, 12936 / 751, 128):.1%} without a positive"
)

# %% [markdown]
# ## Which setting should I take?
#
# * `images_per_id = 4`: every anchor has three positives, and everybody here has at least four images. A larger number repeats images of
#   people who have fewer.
# * `ids_per_batch`: as many as fit into memory. More people give more negatives, and the nearest of many negatives is harder to tell from
#   the anchor. 32 × 4 images have 47 616 triplets.
# * `mirror_prob = 0.5` and `crop_prob = 0`: a mirrored person is the same person. Crops were turned off in the original reproduction, so
#   turn them on only if the score on validation people rises.
# * `draw = "cover"` and `keep_last_batch = False`: every image is used before one is repeated, and all batches have the same number of
#   people. Take `"replace"` and `True` to repeat a published row.
# * `memory_limit`: more than the bytes of the decoded training set (37.5 MB here, 1.27 GB for Market-1501 at 256 × 128). With less, the
#   images beyond the limit are decoded again in every epoch.
#
# ## Summary
#
# * An image is decoded once and kept as bytes. Resizing is bilinear with half-pixel centres and without antialias, like the original's.
# * Mirror, crop and normalisation are a few lines each; all randomness comes from a seeded generator.
# * In a random batch most anchors have no positive. In a P × K batch each anchor has $K - 1$.
# * `IdentitySampler` goes once over the identities in each epoch; its batches depend only on the seed and the epoch number.
#
# Next: [chapter 3](03_model.ipynb) sends such a batch through a network.

# %% [markdown]
# ## Exercises
#
# **1.** A batch may have 64 images. Which of 32 × 2, 16 × 4, 8 × 8 and 4 × 16 has the most triplets? What is its disadvantage?
#
# :::{dropdown} Solution
# ```python
# for P, K in ((32, 2), (16, 4), (8, 8), (4, 16)):
#     print(P, K, P * K * (K - 1) * (P - 1) * K)   # 3968, 11520, 25088, 46080
# ```
#
# 4 × 16 has the most. But its negatives come from only three other people, so a negative that looks like the anchor is unlikely. Moreover,
# few identities have sixteen images.
# :::
#
# **2.** Resize the row `0, 100` to four columns with equations {eq}`eq-resize-centre` and {eq}`eq-resize-mix`. Why are the outer values not
# mixed?
#
# :::{dropdown} Solution
# ```python
# row = torch.tensor([0, 100], dtype=torch.uint8).expand(3, 1, 2)
# assert images.resize(row, (1, 4))[0, 0].tolist() == [0, 25, 75, 100]
# ```
#
# $u = -0.25,\ 0.25,\ 0.75,\ 1.25$. The first and the last are outside the outermost old centres and are set to 0 and 1.
# :::
#
# **3.** A person has one image, and $K = 4$. What does the sampler return, and what can an anchor learn from these positives?
#
# :::{dropdown} Solution
# ```python
# (batch,) = IdentitySampler([0, 1, 1, 1, 1], 2, 4, seed=1)
# assert (batch == 0).sum() == 4   # image 0, four times
# ```
#
# It returns four copies of one image. Without augmentation their distance is 0, so these positives teach nothing; with augmentation the
# network at least learns to ignore mirror and crop. Images from a different camera would teach more.
# :::
#
# **4.** Make P × K batches without random choices. The function gets the label of each image, P and K, and returns a list of batches; a
# batch is a list of image numbers. Take people in the order of their first image, P per batch, and the first K images of each. If a person
# has fewer than K images, start again with the person's first image until there are K. Leave out an incomplete last batch. The function has
# one mistake. Run the cell, read the answer and repair the function.

# %% tags=["nbval-check-output"]
from alignedreid_lib.exercises import check


def make_batches(labels, P, K):
    people = list(dict.fromkeys(labels))
    batches = []
    for start in range(0, len(people) - P + 1, P):
        batch = []
        for person in people[start : start + P]:
            own = [i for i, label in enumerate(labels) if label == person]
            batch += own[:K]
        batches.append(batch)
    return batches


check("02_batches", make_batches)

# %% [markdown]
# :::{dropdown} Solution
# ```python
# def make_batches(labels, P, K):
#     people = list(dict.fromkeys(labels))
#     batches = []
#     for start in range(0, len(people) - P + 1, P):
#         batch = []
#         for person in people[start : start + P]:
#             own = [i for i, label in enumerate(labels) if label == person]
#             batch += [own[k % len(own)] for k in range(K)]
#         batches.append(batch)
#     return batches
#
#
# assert check("02_batches", make_batches)
# ```
# :::
