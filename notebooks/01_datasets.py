# %% [markdown]
# # 01 Datasets
#
# *Person re-identification* is the task of deciding whether two images from different cameras show the same person. Here are two people, each
# seen by six cameras:

# %% tags=["parameters"]
# Parameters: what this chapter may be run with.
seed = 1  # of the two small archives drawn in this chapter

# %%
import io
import zipfile

import numpy as np
from PIL import Image

from alignedreid_lib import book, datasets, figures, runs, synthetic
from alignedreid_lib.errors import InputError

settings = runs.read_settings(globals(), seed=runs.SEED)

# %% label="fig-cameras" alt="Two people in two rows, each seen by six cameras: light, tint, sharpness, street and the visible side of the body differ" caption="Each camera changes how a person looks: the light, the tint, the street and the visible side."
archive = zipfile.ZipFile(book.archive("market1501"))


def show(entry):
    """An image of the archive, uint8 [h, w, 3]."""
    return np.asarray(Image.open(io.BytesIO(archive.read(entry))))


by_person = {}
for name in sorted(archive.namelist()):
    if "/query/" in name and name.endswith(".jpg"):
        by_person.setdefault(name.split("/")[-1][:4], []).append(name)
six = [names for names in by_person.values() if len(names) == 6]
figures.contact_sheet(
    [show(name) for name in six[0] + six[1]],
    [f"camera {c}" for c in (1, 2, 3, 4, 5, 6)] * 2,
    columns=6,
    width=6,
)

# %% [markdown]
# Light, tint, sharpness and street change with the camera, and so does the visible side of the body. A network must learn to look at what
# stays the same. A re-identification dataset is therefore a collection of cropped images with two labels each: **whom** the image shows (the
# identity) and **which camera** took it. This chapter turns a raw archive, as its makers publish it, into one simple layout, and checks every
# count.
#
# **What you will learn**
#
# * what a Market-1501 archive contains, folder by folder, and how ten lines rename its images exactly as the library does;
# * which parts training and testing use (train, validation, query, gallery, multi-query), each built by hand once;
# * how to read CUHK03's MATLAB file inside its zip, and how the library rejects a pickle that would run code;
# * how to make a card for any dataset, merge several datasets into one, and turn a folder of your own images into a dataset.
#
# **Time** on two cores: a quarter of a minute, plus half a minute if the book's people are not drawn yet.
# **Hardware**: any laptop, no GPU.
#
# The book's people are drawn, so that nobody has to be photographed for it. `book.archive` found their archive, or drew it. Its format is
# exactly that of the zip of Market-1501 (Zheng et al., ICCV 2015), a real dataset of 1 501 people.

# %% alt="Sixteen drawn pedestrians, one image each, in two rows" caption="Many people share a colour; only the combination of clothes, hair, shoes and bags distinguishes them."
pictures = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
pictures = [name for name in pictures if "/bounding_box_train/" in name]
one_each = {name.split("/")[-1][:4]: name for name in pictures}  # by person
figures.contact_sheet([show(name) for name in list(one_each.values())[:16]])

# %% [markdown]
# ## The raw archive, folder by folder
#
# We first look at the contents of the zip, and count the files of each folder by their ending.

# %% tags=["nbval-check-output"]
from collections import Counter

folders = ["bounding_box_train", "bounding_box_test", "query", "gt_bbox"]
files = {folder: [] for folder in (*folders, "gt_query")}
for entry in archive.namelist():
    *_, folder, file = entry.split("/")
    if folder in files and file:
        files[folder].append(file)
for folder in files:
    endings = Counter(file.split(".")[-1] for file in files[folder])
    print(f"{folder:20}", dict(sorted(endings.items())))

# %% [markdown]
# There are five folders, as in the real archive:
#
# | folder | contents |
# |---|---|
# | `bounding_box_train` | images to train with, cropped by a pedestrian detector |
# | `bounding_box_test` | different people: the *gallery*, which we search |
# | `query` | one image for each test person and camera, with a hand-drawn box: what we search for |
# | `gt_bbox` | people of train and test once more, with hand-drawn boxes ("gt" is ground truth) |
# | `gt_query` | two MATLAB files per query, which list its matches and the images to ignore; the names of the images contain the same information |
#
# The ending `db` is from `Thumbs.db`, a cache of small images that Windows leaves in folders that someone has viewed. The real archive
# contains such files too. A program that treats every file of a folder as an image fails on them, so we select `.jpg`.

# %%
for folder in folders:
    pictures = [file for file in files[folder] if file.endswith(".jpg")]
    files[folder] = sorted(pictures)
number = len(files["gt_query"]) - 1  # Thumbs.db is not counted
assert number == 2 * len(files["query"]), "gt_query has two files per query"

# %% [markdown]
# The names are sorted for a reason: we number them below, and the numbers can be reproduced only in a fixed order.
#
# In the real archive, 38 names end in `.jpg.jpg`. They are ordinary images, so the rule for names must accept the double ending. The drawn
# archive has such names too:

# %% tags=["nbval-check-output"]
for folder in folders:
    doubled = [file for file in files[folder] if file.endswith(".jpg.jpg")]
    print(f"{folder:20}", len(doubled), *doubled[:1])

# %% [markdown]
# ### What a file name means

# %% tags=["nbval-check-output"]
example = files["bounding_box_train"][0]
person, place, frame, box = example.removesuffix(".jpg").split("_")
camera, sequence = place[1:].split("s")
print(example)
print("person", person, "camera", camera, "sequence", sequence)
print("frame", frame, "box", box)

# %% [markdown]
# We need only the person and the camera. Sequence and frame tell where in the videos of that camera the image was cropped. The last number
# counts the detector's boxes in that frame; `00` marks a hand-drawn box. Two person numbers do not name a person: `-1` and `0000`.
#
# :::{admonition} Predict first
# :class: tip
# A detector made the 618 boxes of the test folder. How many of them are *not* a good box around a test person?
# :::


# %% tags=["nbval-check-output"]
def who_and_where(file):
    person, place = file.split("_")[:2]
    return int(person), int(place[1])


in_test = [who_and_where(file)[0] for file in files["bounding_box_test"]]
print("junk -1:", in_test.count(-1), "| distractors 0000:", in_test.count(0))
people = sum(person > 0 for person in in_test)
print("people:", people)
assert in_test.count(-1) + in_test.count(0) + people == len(in_test), (
    "every test image shows a person, junk or a distractor"
)

# %% [markdown]
# * **Junk**, `-1`: the detector's box around a test person is so bad that finding it should neither raise nor lower a score. Junk is
#   ignored, as if the image were not there.
# * **Distractors**, `0000`: a false alarm of the detector, or a person who is in no query. Distractors count: a distractor that is ranked
#   before an image of the query's person is a mistake.
#
# In the real dataset the overlap of boxes decides. If a detector's box overlaps the hand-drawn box by more than 50 % (intersection over
# union), it is good; below 20 % it is a distractor; in between it is junk.

# %% caption="Junk shows a test person in a bad box; a distractor shows nobody that we search for."
# Six images of junk and six distractors of the gallery
root = "Market-1501-v15.09.15/bounding_box_test/"
shown = []
for start in ("-1", "0000"):
    of_kind = [
        file for file in files["bounding_box_test"] if file.startswith(start)
    ]
    shown += [show(root + file) for file in of_kind[:6]]
figures.contact_sheet(shown, ["junk"] * 6 + ["distractor"] * 6, columns=6)

# %% [markdown]
# Junk shows a test person in a bad box, which is too high, too low or too wide. Distractors show empty streets, or people who are in no
# query, some of them in bad boxes.
#
# ## What counts as a match
#
# A query $q$ shows person $y_q$ in camera $c_q$; a gallery image $g$ shows $y_g$ in $c_g$. Market-1501's protocol (Zheng et al., ICCV 2015)
# gives each pair one of three roles (a gallery image whose role is *right* is a *match* of the query):
#
# $$
# \mathrm{role}(q, g) = \begin{cases}
# \text{ignored} & y_g = -1 \ \text{ or } \ (y_g = y_q \text{ and } c_g = c_q) \\
# \text{right} & y_g = y_q \text{ and } c_g \neq c_q \\
# \text{wrong} & \text{otherwise}
# \end{cases}
# $$ (eq-datasets-role)
#
# The same person in the *same* camera is also ignored: the two images may be frames of one video, and finding one with the other would
# prove nothing. By hand, for a query of person 7 in camera 1 and six gallery images:

# %% tags=["nbval-check-output"]
gallery = ["0007_c1s1_000106_02.jpg", "0007_c3s1_000201_01.jpg",
           "-1_c2s1_000301_03.jpg", "0000_c4s2_000401_01.jpg",
           "0009_c1s1_000501_01.jpg", "0007_c2s3_000601_01.jpg"]  # fmt: skip


def role(query, picture):
    (query_person, query_camera), (person, camera) = query, picture
    if person == -1 or (person == query_person and camera == query_camera):
        return "ignored"
    return "right" if person == query_person else "wrong"


for file in gallery:
    print(file, role((7, 1), who_and_where(file)))

# %% [markdown]
# Two images are right, two are wrong (the distractor and person 9), and two are ignored. Check each line against the equation.
#
# `gt_query` contains the makers' own lists; with equation {eq}`eq-datasets-role` we do not need them. [Chapter
# 8](08_evaluation.ipynb) computes scores from the roles.
#
# ## One layout for all datasets
#
# Every dataset has its own folders and names. The book uses one layout for all of them, that of the original reproduction of AlignedReID: a
# folder `images/`, and a file `partitions.pkl` that records how each image is used. The name of an image is
# `{id:08d}_{camera:04d}_{k:08d}.jpg`: the identity, the camera, and a number $k$ that distinguishes images of the same person in the same
# camera. It counts the earlier images of this person in this camera:
#
# $$
# k_i = \bigl|\{\, j < i : y_j = y_i,\ c_j = c_i \,\}\bigr|
# $$ (eq-datasets-k)
#
# The first image of each person and camera has $k = 0$. We do this by hand for five images, written as (person, camera): (2, 1), (2, 1),
# (2, 3), (5, 1) and (2, 1).
#
# :::{admonition} Predict first
# :class: tip
# Person 2 is in four of the five images. Which $k$ does the last one get?
# :::

# %% tags=["nbval-check-output"]
five = [(2, 1), (2, 1), (2, 3), (5, 1), (2, 1)]
for i, picture in enumerate(five):
    print(picture, "k =", sum(earlier == picture for earlier in five[:i]))

# %% [markdown]
# Person 2 was seen three times by camera 1, so these images get 0, 1 and 2. The others are the first for their person and camera.
#
# ### Which hand-drawn boxes are used
#
# `gt_bbox` contains more images of a query's person in the query's camera. A search with all of them at once is called *multi-query*. Only images whose person *and* camera are those of a query are used; the others (such as those of all training people) are left out.

# %% tags=["nbval-check-output"]
asked = {who_and_where(file) for file in files["query"]}
multi_query = [
    file for file in files["gt_bbox"] if who_and_where(file) in asked
]
print(
    "drawn by hand:",
    len(files["gt_bbox"]),
    "| for multi-query:",
    len(multi_query),
)
assert len(asked) == len(files["query"]), (
    "there is one query per person and camera"
)

# %% [markdown]
# ### The naive loop
#
# Here is the whole conversion, with a dictionary that counts. The names are sorted within each folder, and the count continues over the
# folders train, test, query and gt_bbox.


# %% tags=["nbval-check-output"]
def rename(folders):
    seen, names = Counter(), {}
    for folder, pictures in folders.items():
        names[folder] = []
        for file in sorted(pictures):
            person, camera = who_and_where(file)
            if person != -1:  # junk is left out
                k = seen[person, camera]
                seen[person, camera] += 1
                names[folder].append(f"{person:08d}_{camera:04d}_{k:08d}.jpg")
    return names


to_do = {folder: files[folder] for folder in folders[:3]} | {
    "gt_bbox": multi_query
}
ours = rename(to_do)
print(example, "->", ours["bounding_box_train"][0])
for folder, names in ours.items():
    print(f"{folder:20}", len(names))

# %% [markdown]
# Distractors keep their name, person 0. Only the junk has been removed from the gallery, as the next cell checks.

# %%
without_junk = len(files["bounding_box_test"]) - in_test.count(-1)
assert len(ours["bounding_box_test"]) == without_junk, (
    "only junk is removed from the gallery"
)
different = set().union(*ours.values())
assert len(different) == sum(map(len, ours.values())), (
    "every new name is unique"
)

# %% [markdown]
# ### The library's call
#
# `datasets.prepare(name, archive, root)` does the same, directly from the zip; `book.dataset_folder` calls it once for the book's archive. `open_dataset` reads one part of the result: `trainval`, `train`, `val` or `test`.

# %% tags=["nbval-check-output"]
folder = book.dataset_folder("market1501")
trainval = datasets.open_dataset(folder, "trainval")
test = datasets.open_dataset(folder, "test")
print("trainval:", len(trainval), "images of", len(set(trainval.ids)), "people")
print("test:    ", len(test), "images")

# %% [markdown]
# The order of the test list is query, multi-query, gallery. We compare both results name for name:

# %%
names = [path.name for path in trainval.paths]
assert names == ours["bounding_box_train"], (
    "the library's training names are those of the loop"
)
expected = ours["query"] + ours["gt_bbox"] + ours["bounding_box_test"]
assert [path.name for path in test.paths] == expected, (
    "the library's test names are those of the loop"
)

# %% [markdown]
# They agree: the loop above is the library's rule. The images themselves are copied byte for byte, because compressing a JPEG again would
# change its pixels.

# %%
for file, name in zip(files["query"], ours["query"], strict=True):
    original = archive.read(f"Market-1501-v15.09.15/query/{file}")
    assert (folder / "images" / name).read_bytes() == original, (
        f"{name} has the bytes of {file}"
    )

# %% [markdown]
# Every query's file is unchanged.
#
# ### Marks
#
# A test or validation part has a **mark** for each image: 0 is query, 1 is gallery, 2 is multi-query.

# %% tags=["nbval-check-output"]
marks = {0: "query", 1: "gallery", 2: "multi-query"}
for mark in marks:
    print(marks[mark], (test.marks == mark).sum())
expected = (
    [0] * len(ours["query"]) + [2] * len(multi_query) + [1] * without_junk
)
assert test.marks.tolist() == expected, (
    "every mark is that of the image's folder"
)

# %% [markdown]
# The marks agree with the folders. Here is the whole test set as three tables, one for each mark, with one row per camera and one column per
# person (without distractors); each cell is a count of images.

# %% caption="Every query has a gallery image of its own camera, and for both there is a multi-query image with a hand-drawn box."
# Images of each test person in each camera: query, gallery and multi-query
people = np.unique(test.ids[test.ids > 0])
table = np.zeros((3, 6, len(people)), int)
known = test.ids > 0
column = np.searchsorted(people, test.ids[known])
np.add.at(table, (test.marks[known], test.cameras[known] - 1, column), 1)

fig = figures.Figure(figsize=(8, 3.4), layout="constrained")
extent = (0, len(people), 6.5, 0.5)
for ax, mark in zip(fig.subplots(3, 1, sharex=True), marks, strict=True):
    shown = ax.imshow(table[mark], aspect="auto", vmin=0, vmax=3, extent=extent)
    ax.set(title=marks[mark], ylabel="camera", yticks=[1, 3, 5])
    ax.grid(False)
ax.set_xlabel("test person")
fig.colorbar(shown, ax=fig.axes, label="images", ticks=[0, 1, 2, 3], aspect=30)
fig

# %% [markdown]
# The three tables have the same pattern: a dark cell means that the camera never saw the person. For every query there is at least one
# gallery image of the same person and camera (which that query ignores). For every query and every gallery image there is also one
# multi-query image, with a hand-drawn box.

# %%
assert set(table[0].ravel().tolist()) == {0, 1}, (
    "there is at most one query per person and camera"
)
assert ((table[0] > 0).sum(0) >= 2).all(), (
    "every test person was seen by at least two cameras"
)
assert (table[2] == table[0] + table[1]).all(), (
    "a person has as many multi-query images as query and gallery images"
)

# %% [markdown]
# ### From identities to labels
#
# A classifier with $n$ outputs needs classes numbered 0, 1, ... $n - 1$, but the training identities have gaps, because the other
# identities are in the test set. Let $Y$ be the set of training identities. The label $\ell(y)$ of identity $y$ is the number of smaller
# identities in $Y$:
#
# $$
# \ell(y) = \bigl|\{\, y' \in Y : y' < y \,\}\bigr|
# $$ (eq-datasets-label)

# %% tags=["nbval-check-output"]
hand = {2, 9, 7}
print({y: sum(other < y for other in hand) for y in sorted(hand)})
print(np.unique(trainval.ids)[:8], "->", np.unique(trainval.labels)[:8])

# %% [markdown]
# The first line is done by hand: no number is smaller than 2, one is smaller than 7, and two are smaller than 9. The second line shows the
# first training identities and their labels: the gaps are gone. We check every training image:

# %%
ids = trainval.ids.tolist()
smaller = {y: sum(other < y for other in set(ids)) for y in set(ids)}
assert trainval.labels.tolist() == [smaller[y] for y in ids], (
    "every label is the number of smaller identities"
)
assert not set(ids) & set(test.ids.tolist()), "nobody is in both parts"

# %% [markdown]
# The second assertion matters most: the network is never trained on a test person. The network should learn to compare people, not to
# memorise them.
#
# ## A validation split
#
# To choose settings without looking at the test set, we set some training people aside. Their images are split like the test set. For one
# person: in each camera the first image, in shuffled order, is a query, and the others are gallery. A query that has no match in the
# gallery (all gallery images of this person are from its own camera) moves to the gallery. The next cell applies this rule to three people,
# whose images are given as (camera, $k$):
#
# :::{admonition} Predict first
# :class: tip
# The three people are [(1, 1), (2, 0), (1, 0)], [(3, 0), (1, 0)] and [(2, 1), (2, 0)]. How many queries does each of them get?
# :::


# %% tags=["nbval-check-output"]
def split_person(pictures, camera_of):
    first = {}
    for picture in pictures:
        first.setdefault(camera_of(picture), picture)
    query = [
        first[camera] for camera in sorted(first)
    ]  # the first image of each camera
    gallery = [picture for picture in pictures if picture not in query]
    for picture in query:  # the list may shrink here
        if all(camera_of(other) == camera_of(picture) for other in gallery):
            query.remove(picture)  # no match elsewhere
            gallery.append(picture)
    return query, gallery


for pictures in ([(1, 1), (2, 0), (1, 0)], [(3, 0), (1, 0)], [(2, 1), (2, 0)]):
    query, gallery = split_person(pictures, lambda picture: picture[0])
    print(pictures, "-> query", query, "gallery", gallery)

# %% [markdown]
# The output has one line per person; follow the three people on paper. The first was seen twice by camera 1 and once by camera 2. The query
# of camera 1 has no match in the gallery, because the other image of camera 1 cannot be its match. So it moves to the gallery too, and both
# images of camera 1 are matches for the query of camera 2. For the second person, both images start as queries and the gallery is empty;
# the image of camera 1 moves to the gallery, where it becomes the match for the other. The third person has no second camera, so no query is
# left.
#
# For the whole dataset the library shuffles the names, sorts and shuffles the people, and takes people in that order until there are
# enough. A person without a query stays in the training set.

# %%
from alignedreid_lib.datasets.partitions import parse_name, split_validation


def split(names, num_ids):
    random = np.random.RandomState(
        1
    )  # the original's seed, to make its lists again
    order = np.arange(len(names))
    people = np.array(sorted({parse_name(name)[0] for name in names}))
    random.shuffle(order)
    random.shuffle(people)
    shuffled, mark, chosen = (
        [names[i] for i in order],
        {},
        0,
    )  # mark: name -> 0 or 1
    for person in people:
        pictures = [name for name in shuffled if parse_name(name)[0] == person]
        query, gallery = split_person(
            pictures, lambda name: parse_name(name)[1]
        )
        if query and chosen < num_ids:
            mark |= dict.fromkeys(query, 0) | dict.fromkeys(gallery, 1)
            chosen += 1
    parts = (None, 0, 1)  # train, query, gallery
    return [
        [name for name in shuffled if mark.get(name) == part] for part in parts
    ]


# %% [markdown]
# We apply it to three more people, with names in the layout, and set two of them aside:

# %% tags=["nbval-check-output"]
three = ["00000001_0001_00000000.jpg", "00000001_0001_00000001.jpg",
         "00000001_0002_00000000.jpg",
         "00000004_0001_00000000.jpg", "00000004_0003_00000000.jpg",
         "00000006_0002_00000000.jpg",
         "00000006_0002_00000001.jpg"]  # fmt: skip
for part, names in zip(
    ("train", "query", "gallery"), split(three, 2), strict=True
):
    for name in names:
        print(f"{part:8}", name)

# %% [markdown]
# Person 6 stays in train, because both images are from one camera. The library's `split_validation` splits these three people in the same
# way. And our `split` gives the parts into which `prepare` has split the whole dataset:

# %%
assert split(three, 2) == list(split_validation(three, 2)), (
    "loop and library split the three people in the same way"
)
train, val = (datasets.open_dataset(folder, part) for part in ("train", "val"))
names = [path.name for path in trainval.paths]
ours_train, ours_query, ours_gallery = split(names, len(set(val.ids)))
assert [path.name for path in train.paths] == ours_train, (
    "loop and library agree on train"
)
assert [path.name for path in val.paths] == ours_query + ours_gallery, (
    "loop and library agree on val"
)

# %% [markdown]
# The loop and the library agree. Here is everything that `partitions.pkl` contains:

# %% tags=["nbval-check-output"]
partitions = datasets.Partitions.load(folder / "partitions.pkl")
for key, value in vars(partitions).items():
    print(f"{key:20} {len(value):5}", type(value).__name__)
assert len(train) + len(val) == len(trainval), (
    "train and val together have the images of trainval"
)

# %% [markdown]
# It has eight entries: lists of names and the labels or marks that go with them. `trainval` is for training a final model; `train` and `val`
# are a split of the same images.
#
# ### From old names to new names
#
# If your results use the archive's original file names, you need to know which new name belongs to which. `prepare` saves this table in
# `original_to_new.json` (and, like the original reproduction, in a pickle):

# %% tags=["nbval-check-output"]
import json

original_to_new = json.loads((folder / "original_to_new.json").read_text())
for file in (files["bounding_box_train"][0], files["query"][0]):
    where = "query" if file in files["query"] else "bounding_box_train"
    print(f"{where}/{file} -> {original_to_new[f'{where}/{file}']}")

# %%
in_loop = {}
for where, pictures in to_do.items():
    kept = [file for file in sorted(pictures) if not file.startswith("-1")]
    for file, new in zip(kept, ours[where], strict=True):
        in_loop[f"{where}/{file}"] = new
assert original_to_new == in_loop, "the saved names are those of our loop"

# %% [markdown]
# ## A card for a dataset
#
# Look at a dataset as a whole before you train on it: how many images does each person have, which cameras share people, and are there
# duplicate or broken files? `datasets.describe` answers these questions for any part, and compares its counts with the published ones. Here
# we use a copy of the training part with two planted errors: one file copied over another, and one truncated file.

# %%
import shutil
import tempfile
from pathlib import Path

scratch = tempfile.TemporaryDirectory()
temporary = Path(scratch.name)
damaged = temporary / "market1501"
shutil.copytree(folder, damaged)
victims = sorted(path.name for path in trainval.paths)[:3]
shutil.copyfile(
    damaged / "images" / victims[0], damaged / "images" / victims[1]
)
_ = (damaged / "images" / victims[2]).write_bytes(
    trainval.paths[0].read_bytes()[:300]
)

# %% tags=["nbval-check-output"]
card = datasets.describe(datasets.open_dataset(damaged, "trainval"))
for line in str(card).splitlines()[:7]:
    print(line[:78].rstrip())
print("equal content: ", card.duplicates)
print("do not decode: ", [name for name, _ in card.unreadable])

# %% [markdown]
# It finds and names both errors. The card has a second column (cut off here) with the published counts; on the real archive the two columns
# agree, and `card.as_published` is true.

# %%
assert card.duplicates == [victims[:2]], "the card finds the copy"
assert [name for name, _ in card.unreadable] == [victims[2]], (
    "the card finds the truncated file"
)
assert card.as_published is False, (
    "a drawn dataset does not have the real one's counts"
)
by_hand = np.unique(trainval.ids, return_counts=True)[1]
assert card.images_per_id == (by_hand.min(), np.median(by_hand), by_hand.max())
seen = {
    c: set(trainval.ids[trainval.cameras == c].tolist()) for c in range(1, 7)
}
pairs = [[len(seen[a] & seen[b]) for b in seen] for a in seen]
assert card.camera_pairs.tolist() == pairs, (
    "the card counts the people that each pair of cameras shares"
)

# %% label="fig-dataset-card" alt="Three panels: a histogram of images per identity, a matrix of how many people each two cameras share, and eight people" caption="Everybody has at least four images, and every two cameras share people."
figures.dataset_card(trainval, card)

# %% [markdown]
# The histogram in [the figure](#fig-dataset-card) shows how many images the people have. A training batch takes four images of a person
# ([chapter 2](02_batches.ipynb)), and everybody has at least four. In the matrix next to it, the diagonal counts the people of each camera,
# and the other cells count the people that two cameras share: every pair shares at least 65 people.
#
# ## Boxes that are wrong
#
# Junk exists because detectors make errors. They shift a box, make it too large, or cut off legs or head. The generator has a parameter for
# this error, `misalignment`, from 0 to 1.

# %% tags=["hide-input"]
from PIL import ImageDraw

from alignedreid_lib.synthetic.packing import Shot
from alignedreid_lib.synthetic.pedestrians import Box, View, draw

errors = (0, 0.25, 0.5, 0.75, 1)
street = Box(left=-0.5, top=1.45, width=1.0, height=2.0)  # person's heights
cameras = synthetic.sample_cameras(6, seed=0)


def with_boxes(shot):
    moment = np.random.default_rng(
        [0, synthetic.VIEWS, shot.person, shot.moment]
    )
    view = View.sample(moment, cameras[shot.camera])
    picture = draw(synthetic.sample_person(shot.person, seed=0), view, street)
    picture = Image.fromarray(picture).resize((192, 384))
    for error, colour in ((0, figures.BLACK), (1, figures.ORANGE)):
        stream = [0, synthetic.BOXES, shot.person, shot.moment, shot.box]
        box = synthetic.detector_box(np.random.default_rng(stream), error)
        left, top = (box.left - street.left) * 192, (street.top - box.top) * 192
        edge = (left, top, left + box.width * 192, top + box.height * 192)
        ImageDraw.Draw(picture).rectangle(edge, outline=colour, width=4)
    return np.asarray(picture)


# %% caption="The larger the error, the farther head and feet are from where they should be."
# Two people in their streets with the perfect and the worst box, and cropped by
# boxes of growing error
cut_out = []
for shot in (Shot(person=3, camera=3, moment=0, box=1), Shot(8, 2, 0, box=1)):
    cut_out += [with_boxes(shot)]
    cut_out += [
        synthetic.take(shot, cameras, error, seed=0) for error in errors
    ]
figures.contact_sheet(cut_out, ["street", *map(str, errors)] * 2, columns=6)

# %% [markdown]
# The first image of each person shows the street with the perfect box (black) and the worst box (orange); the next five are the crops of
# boxes with misalignment 0, 0.25, 0.5, 0.75 and 1. Head and feet move up or down, and at the end one of them is missing. Comparing the
# first crop with the last row by row means comparing a head with a chest. This is the problem that AlignedReID addresses; [chapter
# 4](04_alignment.ipynb) solves it with a shortest path.
#
# ## CUHK03: images inside a MATLAB file
#
# CUHK03 (Li et al., CVPR 2014) is a zip with one large MATLAB file. It shows each person in two boxes: `labeled`, drawn by hand, and
# `detected`. We draw a dozen people in this layout into a temporary folder, with bad boxes.

# %%
cuhk03_zip = temporary / "cuhk03_release.zip"
people, misalignment = (8, 4), 0.7  # 8 people to train with, 4 to test
_ = synthetic.make_archive(
    cuhk03_zip, "cuhk03", *people, misalignment, settings.seed
)
# %% [markdown]
# MATLAB's format 7.3 is HDF5, which `h5py` reads. `h5py` jumps to arbitrary positions of a file, but a compressed file inside a zip can
# only be read from its beginning. The library's `DeflatedFile` offers such jumps without unpacking the file to the disk, which matters for
# the 1.7 GB of the real one.

# %% tags=["nbval-check-output"]
import h5py

from alignedreid_lib.datasets.zip_reading import DeflatedFile

cuhk03 = zipfile.ZipFile(cuhk03_zip)
entry = cuhk03.getinfo("cuhk03_release/cuhk-03.mat")
unpacked = cuhk03.read(entry)
assert DeflatedFile(cuhk03_zip, entry).read() == unpacked, (
    "reading in place gives the unpacked bytes"
)
mat = h5py.File(DeflatedFile(cuhk03_zip, entry), "r")
print([name for name in mat if name != "#refs#"])

# %% [markdown]
# The bytes that it reads are those of the unpacked file. `detected` and `labeled` contain one table for each of the **five camera pairs**.
# A person is seen by only one pair, and a table has ten cells per person: up to five images of the pair's first view, then up to five of
# its second.

# %% tags=["nbval-check-output"]
tables = {}
for kind in ("detected", "labeled"):
    tables[kind] = [mat[reference] for reference in mat[kind][0]]
print("cells x people:", [table.shape for table in tables["labeled"]])


def cell(kind, pair, person, place):
    stored = mat[tables[kind][pair][place, person]]
    return (
        None if "MATLAB_empty" in stored.attrs else stored[()].T
    )  # transposed


cells = [cell("labeled", 0, 0, place) for place in range(10)]
print(
    "heights:", [None if picture is None else len(picture) for picture in cells]
)

# %% [markdown]
# A cell points to an image (height x width x 3, uint8; sizes differ) or to an empty array, which means that there is no image. In the loop
# below, people are numbered consecutively across all pairs, view 1 is camera 0 and view 2 is camera 1, and the position among the view's five
# cells takes the place of the $k$ of equation {eq}`eq-datasets-k`, so it may have gaps.

# %% tags=["nbval-check-output"]
found = {"detected": {}, "labeled": {}}
for kind, of_pairs in tables.items():
    first = 0
    for pair, table in enumerate(of_pairs):
        for person in range(table.shape[1]):
            for place in range(10):
                name = (
                    f"{first + person:08d}_{place // 5:04d}_{place % 5:08d}.jpg"
                )
                if (picture := cell(kind, pair, person, place)) is not None:
                    found[kind][name] = picture
        first += table.shape[1]
for kind, pictures in found.items():
    print(f"{kind:9}", len(pictures), "images in", first * 10, "cells")

# %% caption="The detector misses a few people that the annotators boxed."
# Which of the ten cells of each person contain an image, in detected and in
# labeled
fig = figures.Figure(figsize=(7, 2.6), layout="constrained")
axes = fig.subplots(1, 2, sharey=True)
for ax, (kind, pictures) in zip(axes, found.items(), strict=True):
    filled = np.zeros((first, 10))
    for name in pictures:
        person, view = parse_name(name)
        filled[person, 5 * view + int(name[-5])] = 1
    ax.imshow(filled, aspect="auto", extent=(0.5, 10.5, first - 0.5, -0.5))
    ax.axvline(5.5, color="white")
    ax.set(title=kind, xlabel="cell: view 1 | view 2", ylabel="person")
    ax.set(xticks=range(1, 11), yticks=range(0, first, 2))
    ax.grid(False)
fig

# %% [markdown]
# A bright cell contains an image. The detector finds almost everybody that the annotators boxed but misses a few people, so `detected` has
# slightly fewer images. Here are the same moments in both boxes:

# %% caption="The same moment in two boxes: every score must name its boxes."
# Six moments, each as labeled by hand and as detected
both = [name for name in found["labeled"] if name in found["detected"]][::12][
    :6
]
pairs = [found[kind][name] for name in both for kind in ("labeled", "detected")]
figures.contact_sheet(pairs, ["labeled", "detected"] * len(both), columns=6)

# %% [markdown]
# Each pair shows the same person at the same moment in two boxes. Scores on `labeled` are usually slightly higher, so every reported score must name the boxes it was measured on.
#
# The library's call writes one dataset for each kind, and `all` with the images of both. `split_file` names the training and the test
# images; the generator has written one for our dozen people, and the split of the real dataset follows below. (The `.mat` files of the new
# protocol's authors are also accepted.)

# %% tags=["nbval-check-output"]
split_file = temporary / "re_ranking_train_test_split.pkl"
made = datasets.prepare(
    "cuhk03", cuhk03_zip, temporary, split_file, num_val_ids=2
)
for kind in ("detected", "labeled", "all"):
    print(f"{kind:9}", len(list((made / kind / "images").iterdir())), "images")

# %%
for kind, pictures in found.items():
    names = {path.name for path in (made / kind / "images").iterdir()}
    assert names == set(pictures), f"{kind}: the names are those of the loop"
number = len(list((made / "all" / "images").iterdir()))
assert number == sum(map(len, found.values())), (
    "`all` has the images of both kinds"
)

# %% [markdown]
# Names and counts are the same as in our loop.
#
# ### The new protocol
#
# The release has 20 splits (`testsets`) with 100 test people each, whose scores are averaged: the *old protocol*. Zhong et al. (CVPR 2017)
# gave CUHK03 one split like Market-1501's, with 767 training people and 700 test people: the *new protocol*. It is much harder (there are
# fewer people to learn from and more people to confuse), so scores under the two protocols cannot be compared. The split is a list of names,
# and is part of the library:

# %% tags=["nbval-check-output"]
from alignedreid_lib.datasets.cuhk03_split import new_protocol

protocol = new_protocol()
for kind, lists in protocol.items():
    people = [
        {parse_name(name)[0] for name in names} for names in lists.values()
    ]
    print(
        f"{kind:9}",
        [len(names) for names in lists.values()],
        [len(p) for p in people],
    )
    assert people[1] == people[2], (
        f"{kind}: every query's person is in the gallery"
    )
    assert not people[0] & people[1], (
        f"{kind}: no training person is in the test set"
    )

# %% [markdown]
# Each line gives first the numbers of images, then the numbers of people, for train, query and gallery; they are the published counts. One
# question remains: are the training people of `detected` and of `labeled` the same?

# %% tags=["nbval-check-output"]
trained = {
    parse_name(name)[0] for name in protocol["detected"]["train_im_names"]
}
tested = {parse_name(name)[0] for name in protocol["labeled"]["query_im_names"]}
print("in training of detected and in test of labeled:", len(trained & tested))
assert trained & tested, (
    "a training person of detected is a test person of labeled"
)

# %% [markdown]
# Not quite. The two splits were made independently, and one training person of `detected` is a test person of `labeled`. A model must
# therefore be tested on the kind of boxes that it was trained on; otherwise the test would contain a training person.
#
# ## DukeMTMC-reID: the same layout, and a lesson
#
# The third archive has the format of Market-1501, without junk, distractors `0000` and `gt_bbox`: three folders, eight cameras, and names
# such as `0001_c2_f0046182.jpg` (person, camera, frame). People seen by just one camera are added to the gallery as distractors. The same
# code prepares a few drawn people:

# %% tags=["nbval-check-output"]
duke_zip = temporary / "DukeMTMC-reID.zip"
synthetic.make_archive(duke_zip, "dukemtmc", 5, 2, seed=settings.seed)
raw = [
    name
    for name in zipfile.ZipFile(duke_zip).namelist()
    if name.endswith(".jpg")
]
print(dict(Counter(name.split("/")[1] for name in raw)))
duke = datasets.prepare("dukemtmc", duke_zip, temporary, num_val_ids=2)
parts = [datasets.open_dataset(duke, part) for part in ("trainval", "test")]
assert sum(map(len, parts)) == len(raw), (
    "every image of the archive is in one part"
)

# %% [markdown]
# Every image of the archive is in the prepared dataset exactly once.
#
# Do not look for the real dataset. Its images come from video recorded in March 2014 on the campus of Duke University, showing some two
# thousand people, most of them students on their way between lectures. Posters announced it, but nobody was asked for consent. The
# university's review board had approved a study in a defined indoor space, with data given out on request; the video was filmed outdoors and
# put on an open web site. Researchers all over the world used it, among them makers of surveillance systems and military institutes. After
# journalists and the artist Adam Harvey had made this public, Duke took the site down on 25 April 2019, and the professor in charge
# apologised to the people in the video.
#
# Papers still report scores on it, because copies are easy to find. But having a copy does not mean that anyone has consented. The library can read the dataset, so that
# people who had the data before can understand and repeat old results. The book has no link to it, and no chapter needs it. The other
# datasets also show people who never heard of this book. That is why its images are drawn.
#
# ## Several datasets as one
#
# More people to learn from usually help, so AlignedReID was trained on several merged datasets. `datasets.combine` merges the training
# parts. Two datasets may both have a person 5, so the identities are renumbered from 0 across all datasets. A camera keeps its number, and
# $k$ is counted again. With $n_s$ people in dataset $s$, the person of label $\ell$ in dataset $s$ becomes
#
# $$
# y' = \ell + \sum_{r < s} n_r
# $$ (eq-datasets-combine)
#
# Here is a loop over the datasets of this chapter, in the layouts of Market-1501, CUHK03 and DukeMTMC:

# %% tags=["nbval-check-output"]
members = [folder, made / "detected", duke]
first, expected = 0, {}
for member in members:
    part = datasets.open_dataset(member, "trainval")
    for person, label in zip(
        part.ids.tolist(), part.labels.tolist(), strict=True
    ):
        expected[member.name, person] = first + label
    first += len(set(part.labels.tolist()))
    print(
        f"{member.name:10} people {first - len(set(part.labels.tolist()))} to"
        f" {first - 1}"
    )

# %%
together = datasets.open_dataset(
    datasets.combine(members, temporary), "trainval"
)
assert sorted(set(together.ids.tolist())) == list(range(first)), (
    "the merged people are numbered from 0 without gaps"
)
moved = json.loads(
    (temporary / "combined" / "original_to_new.json").read_text()
)
for old, new in moved.items():
    member, name = Path(old).parts[-3], Path(old).name
    assert parse_name(new)[0] == expected[member, parse_name(name)[0]], (
        f"{old} has the new number of its person"
    )
assert len(moved) == len(together), "every image is in the merged dataset"

# %% [markdown]
# The merged dataset has only a training part: each dataset keeps its own test set and protocol. `make train PRESET=embedded_combined` trains
# on such a merged dataset and tests on each of its members.
#
# ## Your own images
#
# A dataset of your own does not need an archive. The simplest form is one folder per person:

# %% tags=["nbval-check-output"]
own = temporary / "my people"
for label, name in enumerate(["Ada", "Bo", "Chloé", "Dev"]):
    (own / name).mkdir(parents=True)
    for k in np.flatnonzero(trainval.labels == label)[::2]:
        camera = f"{k}_{trainval.cameras[k]}"
        Image.open(trainval.paths[k]).save(own / name / f"{camera}.png")
mine = datasets.prepare("folder", own, temporary, test_share=0.5, seed=0)
print(json.loads((mine / "people.json").read_text("utf-8")))
unknown = datasets.open_dataset(mine, "test")
print("cameras known:", unknown.cameras_known)
print("marks:", unknown.marks.tolist())

# %% [markdown]
# Half of the people are chosen at random for the test; `seed` fixes which. PNG and other formats are converted to upright RGB JPEGs; a plain
# JPEG is copied unchanged. Without a pattern the library does not know which camera took an image. One image of each test person therefore
# becomes the query, and gallery images from the query's own camera, which should be ignored, count as matches; every score table notes this.
# If the file names contain the camera, a pattern can read it; so can a CSV file with the columns path, person and camera.

# %% tags=["nbval-check-output"]
pattern = r"^(?P<person>[^/]+)/\d+_(?P<camera>\d+)"
mine = datasets.prepare(
    "folder", own, temporary / "again", pattern=pattern, seed=0
)
print(json.loads((mine / "people.json").read_text("utf-8"))["cameras"])
known = datasets.open_dataset(mine, "test")
assert known.cameras_known and not unknown.cameras_known, (
    "cameras are known only with a pattern"
)
assert set(known.ids) == set(unknown.ids), "one seed gives the same people"

# %% [markdown]
# Images of people belong to these people: ask them before you use the images. [Chapter 12](12_your_own_people.ipynb) searches in such a folder.
#
# ## The real datasets
#
# | | Market-1501 | CUHK03, new protocol | DukeMTMC-reID |
# |---|---|---|---|
# | archive | `Market-1501-v15.09.15.zip` | `cuhk03_release.zip` | `DukeMTMC-reID.zip` |
# | cameras | 6 | 5 pairs | 8 |
# | people, train / test | 751 / 750 | 767 / 700 | 702 / 702 |
# | training images | 12 936 | 7&nbsp;365 detected, 7&nbsp;368 labeled | 16 522 |
# | queries | 3 368 | 1 400 of each | 2 228 |
# | gallery | 15 913 | 5&nbsp;332 detected, 5&nbsp;328 labeled | 17 661 |
# | multi-query | 12 688 | none | none |
# | boxes | detector; queries by hand | both | by hand, interpolated |
# | papers | Zheng et al. 2015 | Li et al. 2014, Zhong et al. 2017 | Ristani et al. 2016, Zheng et al. 2017 |
# | where | [its page](https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html) | [its page](https://www.ee.cuhk.edu.hk/~xgwang/CUHK_identification.html), on request | withdrawn by its makers |
# | terms | research; cite the paper | research; as agreed when you ask | no longer offered |
#
# Read the terms on the page itself before you download: the makers set them and may change them. Put an archive into `data/raw/` without
# unpacking it, and `prepare` treats it as it did here; you should then find the counts above. You can check one of them now: Market-1501's
# page gives 19 732 images for `bounding_box_test`, and in the table 15 913 of them are gallery. The difference, 3 819, is junk.
#
# :::{admonition} The paper says
# AlignedReID (Zhang et al. 2017, arXiv 1711.08184) reports a rank-1 of 94.4 % on Market-1501 and of 97.8 % on CUHK03, trained on four merged
# datasets, with re-ranking, and with the old protocol on CUHK03.
# :::
#
# This chapter shows that the name of a dataset does not define what was measured. The protocol (old or new), the boxes (detected or
# labeled) and the training sets (one or four) all change the score. The library therefore combines datasets only if you call
# `datasets.combine`, and CUHK03 in this book always means the new protocol.
#
# ## A pickle is a program
#
# `partitions.pkl` is a pickle, because the original reproduction uses one and its prepared data should load unchanged. Unfortunately,
# loading a pickle runs any code that its author has put into it. The next cell makes a pickle that creates a folder when it is loaded; it
# could just as well delete one.

# %%
import os
import pickle
import textwrap

trace, trap_file = temporary / "was_here", temporary / "trap.pkl"


class Trap:
    def __reduce__(self):
        return os.mkdir, (str(trace),)  # "to rebuild me, call this"


trap_file.write_bytes(pickle.dumps(Trap()))
pickle.loads(trap_file.read_bytes())
assert trace.exists(), "loading the pickle ran its code"

# %% [markdown]
# The folder exists: Python's own loader ran the code. The library's loader accepts only dict, list, tuple, str, int and numpy arrays, and
# refuses to look up anything else:

# %%
trace.rmdir()
try:
    datasets.Partitions.load(trap_file)
except InputError as error:
    message = str(error).replace(f"{temporary}{os.sep}", "")
    print(*textwrap.wrap(message, 80), sep="\n")
assert not trace.exists(), "the library did not run the pickle's code"

# %% [markdown]
# The error is one line that names the file and the function that the file tried to call, and no code has run. The partitions that `prepare`
# wrote contain only plain values, so they load, and so do those of the original reproduction.
#
# ## Which setting should I take?
#
# * While you choose settings, train on `train` and validate on `val`; for the number that you publish, train on `trainval`. The test people
#   must not influence any choice.
# * For CUHK03 take the new protocol and one kind of boxes, `detected` or `labeled`, for training and test. The two kinds were split independently, and
#   one training person of `detected` is a test person of `labeled`.
# * If you know which camera took each of your own images, tell the library with `pattern` or a CSV file. Without cameras nothing can be
#   ignored, and the scores are too high.
# * Do not train on combined datasets if you want to compare your score with that of a training on one dataset: more training people change
#   the score.
#
# ## Summary
#
# * An image is described by its person and its camera; $k$ counts the earlier images of the same person in the same camera. Ten lines do the
#   conversion.
# * Junk and images of the query's person from the query's own camera are ignored, distractors count, and multi-query images share a query's
#   person and camera.
# * Labels are the identities numbered from 0 in sorted order. Nobody is in both the training and the test set.
# * A card counts the images and people of a part and finds broken files and copies; merging datasets renumbers the people; your own folder
#   can be a dataset too.
# * A score on CUHK03 must name the boxes and the protocol.
# * Archives and pickles are untrusted input: the library checks the counts of an archive and never runs the code of a pickle.
#
# Next: [chapter 2](02_batches.ipynb) makes batches from these images.
#
# ## Exercises
#
# **1.** How many matches does a query of the test set have, at least and on average? Use equation {eq}`eq-datasets-role` on the arrays
# `test.ids`, `test.cameras` and `test.marks`, without a loop.
#
# :::{dropdown} Solution
# ```python
# q, g = test.marks == 0, test.marks == 1
# same_person = test.ids[q][:, None] == test.ids[g]
# other_camera = test.cameras[q][:, None] != test.cameras[g]
# right = (same_person & other_camera).sum(1)
# print(right.min(), right.mean())
# assert (right > 0).all(), "every query has a match"
# ```
#
# There is no need to test for junk here: `prepare` has removed it.
# :::
#
# **2.** Suppose that `rename` does not use `sorted` and lists each folder in the order in which the disk returns it. Does the *set* of new
# names change? Does it matter?
#
# :::{dropdown} Solution
# ```python
# pictures = files["bounding_box_train"]
# backwards, seen = {}, Counter()
# for file in reversed(pictures):
#     person, camera = who_and_where(file)
#     backwards[file] = f"{person:08d}_{camera:04d}_{seen[person, camera]:08d}.jpg"
#     seen[person, camera] += 1
# forwards = dict(zip(pictures, ours["bounding_box_train"], strict=True))
# assert set(backwards.values()) == set(forwards.values())
# assert backwards != forwards
# ```
#
# The set of names is the same, so every count and every assertion about counts is still true, but a name now belongs to a different image.
# A list of names that was made on a different machine, such as a validation split, then refers to the wrong images, and nothing warns you.
# :::
#
# **3.** In `split_person`, the loop over `query` removes items from the list that it iterates over. The next query then moves into the
# position just visited, and is skipped without a check. Show that this does no harm.
#
# :::{dropdown} Solution
# A query of camera $c$ is removed if every gallery image is of camera $c$. It then moves to the gallery itself. The queries of one person
# are of different cameras, so the skipped query is of a camera other than $c$, and the image just moved is a match for it. It would have
# passed the check. The same is true for all later queries: at most one query of a person is ever moved.
# :::
#
# **4.** Give every image its label by equation {eq}`eq-datasets-label`. The function gets the identities of all training images, one per
# image, and returns a list of labels, one per image. It has one mistake. Run the cell, read the answer and repair the function.

# %% tags=["nbval-check-output"]
from alignedreid_lib.exercises import check


def labels_of(ids):
    labels = {}
    for person in ids:
        labels.setdefault(person, len(labels))
    return [labels[person] for person in ids]


check("01_datasets", labels_of)

# %% [markdown]
# :::{dropdown} Solution
# ```python
# def labels_of(ids):
#     labels = {person: k for k, person in enumerate(sorted(set(ids)))}
#     return [labels[person] for person in ids]
#
#
# assert check("01_datasets", labels_of)
# ```
# :::
