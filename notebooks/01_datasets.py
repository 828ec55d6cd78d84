# %% [markdown]
# # 01 Datasets
#
# This chapter turns a raw archive, as its makers publish it, into one simple layout, and checks every count on the way.
#
# **What you will hold**
#
# * a Market-1501 archive taken apart folder by folder, and the ten lines that rename its pictures, equal to the
#   library's result name for name;
# * the parts that training and testing use (train, validation, query, gallery, multi-query), each built by hand once;
# * CUHK03's MATLAB file read inside its zip, and a pickle that would run code, refused;
# * a card for any data set, several sets merged into one, and a folder of your own pictures as a set of its own.
#
# **Time** on two cores: a quarter of a minute, and half a minute more if the book's people are not drawn yet.
# **Hardware**: any laptop, no GPU.

# %% tags=["parameters"]
# Parameters: what this chapter may be run with.
seed = 1  # of the two small archives drawn in this chapter

# %% [markdown]
# The next cell turns the parameters into settings. A name or a value that makes no sense ends the chapter here.

# %%
from dataclasses import dataclass

from alignedreid_lib import runs
from alignedreid_lib.errors import InputError
from alignedreid_lib.runs import check_types


@dataclass(frozen=True)
class Settings:
    seed: int = 1

    def __post_init__(self):
        check_types(self)
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed is {self.seed}; give a whole number from 0 to {2**32 - 1}")


settings = runs.read_parameters(Settings, globals())

# %% [markdown]
# ## The problem in a picture
#
# *Person re-identification* asks: is the person in this picture the person in that one, seen by another camera? A data
# set for it is a heap of cut-out pictures, and two numbers for each: **who** it is (the identity) and **which camera**
# took it.
#
# The book's people are drawn, so that nobody has to be photographed for it. `book.archive` finds their archive, or draws
# it. It is packed exactly like the zip of Market-1501 (Zheng et al., ICCV 2015), a real data set of 1 501 people.

# %%
import io
import zipfile

import numpy as np
from PIL import Image

from alignedreid_lib import book, datasets, figures, synthetic

archive = zipfile.ZipFile(book.archive("market1501"))


def show(entry):
    return np.asarray(Image.open(io.BytesIO(archive.read(entry))))


# %%
# Thirty-two drawn pedestrians, one picture each
pictures = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
pictures = [name for name in pictures if "/bounding_box_train/" in name]
one_each = {name.split("/")[-1][:4]: name for name in pictures}  # by person
shown = [show(name) for name in one_each.values()]
figures.contact_sheet(shown[:32], columns=16)

# %% [markdown]
# Thirty-two people of the training set. Colours repeat from person to person; it takes the combination of clothes, hair,
# shoes and bags to tell them apart.

# %%
# Two people, each seen by six cameras
by_person = {}
for name in sorted(archive.namelist()):
    if "/query/" in name and name.endswith(".jpg"):
        by_person.setdefault(name.split("/")[-1][:4], []).append(name)
six = [names for names in by_person.values() if len(names) == 6]
titles = [f"camera {c}" for c in (1, 2, 3, 4, 5, 6)] * 2
figures.contact_sheet([show(name) for name in six[0] + six[1]], titles, columns=12)

# %% [markdown]
# Two people, each in six cameras: light, tint, sharpness and street change with the camera, and the side of the body that
# we see changes too. What stays the same is what a network must learn to look at.

# %% [markdown]
# ## The raw archive, folder by folder
#
# Let us see what the zip holds before we trust it. A dictionary counts the files of each folder by their ending.

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
# Five folders, as in the real archive:
#
# | folder | what is in it |
# |---|---|
# | `bounding_box_train` | pictures to train with, cut out by a pedestrian detector |
# | `bounding_box_test` | other people: the *gallery*, in which we search |
# | `query` | one picture for each test person and camera, boxed by hand: what we search for |
# | `gt_bbox` | people of train and test once more, boxed by hand ("gt" is ground truth) |
# | `gt_query` | two MATLAB files a query with its right answers; the file names say the same |
#
# The ending `db` is `Thumbs.db`, a cache of small pictures that Windows leaves in folders somebody looked at. The real
# archive has them too. A program that takes every file of a folder for a picture fails on it, so we ask for `.jpg`.

# %%
for folder in folders:
    pictures = [file for file in files[folder] if file.endswith(".jpg")]
    files[folder] = sorted(pictures)
number = len(files["gt_query"]) - 1  # Thumbs.db is none of them
assert number == 2 * len(files["query"]), "gt_query has not two files a query"

# %% [markdown]
# The sorting is not for beauty. Further down names are counted, and a count is only reproducible in a fixed order.
#
# In the real archive, 38 names end in `.jpg.jpg`. They are pictures like any other, so a rule for names must accept the
# ending twice. The drawn archive has such names too:

# %% tags=["nbval-check-output"]
for folder in folders:
    doubled = [file for file in files[folder] if file.endswith(".jpg.jpg")]
    print(f"{folder:20}", len(doubled), *doubled[:1])

# %% [markdown]
# ### What a file name says

# %% tags=["nbval-check-output"]
example = files["bounding_box_train"][0]
person, place, frame, box = example.removesuffix(".jpg").split("_")
camera, sequence = place[1:].split("s")
print(example)
print("person", person, "camera", camera, "sequence", sequence)
print("frame", frame, "box", box)

# %% [markdown]
# Person and camera are all that we need. Sequence and frame say where in the videos of that camera the picture was cut
# out. The last number counts the detector's boxes in that frame; `00` marks a box drawn by hand. Two of the numbers
# name nobody: `-1` and `0000`.


# %% tags=["nbval-check-output"]
def who_and_where(file):
    person, place = file.split("_")[:2]
    return int(person), int(place[1])


in_test = [who_and_where(file)[0] for file in files["bounding_box_test"]]
print("junk -1:", in_test.count(-1), "| distractors 0000:", in_test.count(0))
people = sum(person > 0 for person in in_test)
print("people:", people)
assert in_test.count(-1) + in_test.count(0) + people == len(in_test), "others?"

# %% [markdown]
# * **Junk**, `-1`: a test person whom the detector boxed so badly that finding them should neither help nor hurt. Junk is
#   ignored: as if the picture was not there.
# * **Distractors**, `0000`: a false alarm of the detector, or somebody nobody asks for. Distractors count: one that
#   stands before the right answer is a mistake.
#
# In the real set the overlap tells the two apart: a detector's box that shares more than 50 % with the box drawn by hand (intersection over
# union) is a good one, one below 20 % is a distractor, one in between is junk.

# %%
# Six pictures of junk and six distractors of the gallery
root = "Market-1501-v15.09.15/bounding_box_test/"
shown = []
for start in ("-1", "0000"):
    of_kind = [file for file in files["bounding_box_test"] if file.startswith(start)]
    shown += [show(root + file) for file in of_kind[:6]]
figures.contact_sheet(shown, ["junk"] * 6 + ["distractor"] * 6, columns=12)

# %% [markdown]
# Junk is a test person in a bad box: too high, too low, too wide. Distractors are strangers, badly boxed as well, and
# streets with nobody in them.
#
# ## What counts as a right answer
#
# A query $q$ shows person $y_q$ in camera $c_q$; a gallery picture $g$ shows $y_g$ in $c_g$. Market-1501's protocol
# (Zheng et al., ICCV 2015) gives each pair one of three roles:
#
# $$
# \mathrm{role}(q, g) = \begin{cases}
# \text{ignored} & y_g = -1 \ \text{ or } \ (y_g = y_q \text{ and } c_g = c_q) \\
# \text{right} & y_g = y_q \text{ and } c_g \neq c_q \\
# \text{wrong} & \text{otherwise}
# \end{cases}
# $$ (eq-datasets-role)
#
# The same person in the *same* camera is ignored as well: the two pictures may be frames of one video, and finding one
# with the other shows nothing. By hand, for a query of person 7 in camera 1 and six gallery pictures:

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
# Two are right, two are wrong (the distractor and person 9), two are ignored. Check each line against the equation.
#
# `gt_query` holds the makers' own lists of right answers; equation {eq}`eq-datasets-role` makes them superfluous. What
# scores are made of the roles is the matter of [chapter 8](08_evaluation.ipynb).
#
# ## One layout for all
#
# Every data set has its own folders and names. The book uses one layout for all of them, that of the original
# reproduction of AlignedReID: a folder `images/` of pictures, and a file `partitions.pkl` that says what each is used for.
# A picture's name is `{id:08d}_{camera:04d}_{k:08d}.jpg`: the identity, the camera, and a number that tells pictures of
# the same person in the same camera apart. It counts those that came before:
#
# $$
# k_i = \bigl|\{\, j < i : y_j = y_i,\ c_j = c_i \,\}\bigr|
# $$ (eq-datasets-k)
#
# So the first of its kind gets 0. Five pictures by hand, as (person, camera):

# %% tags=["nbval-check-output"]
five = [(2, 1), (2, 1), (2, 3), (5, 1), (2, 1)]
for i, picture in enumerate(five):
    print(picture, "k =", sum(earlier == picture for earlier in five[:i]))

# %% [markdown]
# Person 2 was seen three times by camera 1, so these get 0, 1 and 2. All others are the first of their kind.
#
# ### Which hand-drawn boxes are used
#
# `gt_bbox` offers more pictures of a query's person in the query's camera. Search with all of them at once, and it is
# called *multi-query*. Only those fit whose person *and* camera are a query's; the others (all of the training people,
# for a start) stay out.

# %% tags=["nbval-check-output"]
asked = {who_and_where(file) for file in files["query"]}
multi_query = [file for file in files["gt_bbox"] if who_and_where(file) in asked]
print("drawn by hand:", len(files["gt_bbox"]), "| for multi-query:", len(multi_query))
assert len(asked) == len(files["query"]), "two queries in one camera"

# %% [markdown]
# ### The naive loop
#
# Now the whole conversion, as a dictionary that counts. The names are sorted inside each folder, and the count goes on
# through the folders: train, test, query, gt_bbox.


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


to_do = {folder: files[folder] for folder in folders[:3]} | {"gt_bbox": multi_query}
ours = rename(to_do)
print(example, "->", ours["bounding_box_train"][0])
for folder, names in ours.items():
    print(f"{folder:20}", len(names))

# %% [markdown]
# Distractors keep their name, person 0. Of the gallery only the junk is gone; the assert says so.

# %%
without_junk = len(files["bounding_box_test"]) - in_test.count(-1)
assert len(ours["bounding_box_test"]) == without_junk, "more than junk is gone"
different = set().union(*ours.values())
assert len(different) == sum(map(len, ours.values())), "a name is given twice"

# %% [markdown]
# ### The library's call
#
# `datasets.prepare(name, archive, root)` does the same, straight from the zip; `book.dataset_folder` calls it once for the
# book's archive. `open_dataset` reads one part of the result: `trainval`, `train`, `val` or `test`.

# %% tags=["nbval-check-output"]
folder = book.dataset_folder("market1501")
trainval = datasets.open_dataset(folder, "trainval")
test = datasets.open_dataset(folder, "test")
print("trainval:", len(trainval), "pictures of", len(set(trainval.ids)), "people")
print("test:    ", len(test), "pictures")

# %% [markdown]
# The order of the test list is query, multi-query, gallery. Do both agree, name for name?

# %%
names = [path.name for path in trainval.paths]
assert names == ours["bounding_box_train"], "the training names are not ours"
expected = ours["query"] + ours["gt_bbox"] + ours["bounding_box_test"]
assert [path.name for path in test.paths] == expected, "the test names are not"

# %% [markdown]
# They do: the loop above is the library's rule. And the pictures themselves? They are copied byte for byte, since to
# compress a JPEG once more would change its pixels.

# %%
for file, name in zip(files["query"], ours["query"], strict=True):
    original = archive.read(f"Market-1501-v15.09.15/query/{file}")
    assert (folder / "images" / name).read_bytes() == original, f"{name} is not {file}"

# %% [markdown]
# Every query's file is the archive's own.
#
# ### What a mark is
#
# A test or validation part has a **mark** for each picture: 0 is a query, 1 is gallery, 2 is multi-query.

# %% tags=["nbval-check-output"]
marks = {0: "query", 1: "gallery", 2: "multi-query"}
for mark in marks:
    print(marks[mark], (test.marks == mark).sum())
expected = [0] * len(ours["query"]) + [2] * len(multi_query) + [1] * without_junk
assert test.marks.tolist() == expected, "a mark is not its folder's"

# %% [markdown]
# The marks say the same as the folders did. Now the whole test part as one table: a row a camera, a column a person
# (distractors left out), and in each cell the number of pictures.

# %%
# Pictures of each test person in each camera: query, gallery and multi-query
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
fig.colorbar(shown, ax=fig.axes, label="pictures", ticks=[0, 1, 2, 3], aspect=30)
fig

# %% [markdown]
# The three have one pattern: a dark cell is a camera that never saw the person. Where there is a query there is a
# gallery picture of the same camera (which that query ignores), and of each of the two a box drawn by hand.

# %%
assert set(table[0].ravel().tolist()) == {0, 1}, "two queries in one camera"
assert ((table[0] > 0).sum(0) >= 2).all(), "somebody is in one camera only"
assert (table[2] == table[0] + table[1]).all(), "a picture has no box by hand"

# %% [markdown]
# ### From identities to labels
#
# A classifier with $n$ outputs wants its classes numbered 0, 1, ... $n - 1$, but the training identities have gaps: the
# others are in the test part. With $Y$ the set of training identities, the label of $y$ is the number of smaller ones:
#
# $$
# \ell(y) = \bigl|\{\, y' \in Y : y' < y \,\}\bigr|
# $$ (eq-datasets-label)

# %% tags=["nbval-check-output"]
hand = {2, 9, 7}
print({y: sum(other < y for other in hand) for y in sorted(hand)})
print(np.unique(trainval.ids)[:8], "->", np.unique(trainval.labels)[:8])

# %% [markdown]
# The first line is done by hand: nothing is smaller than 2, one is smaller than 7, two are smaller than 9. The second
# shows the first training identities and their labels: the gaps are gone. Is it so for every training picture?

# %%
ids = trainval.ids.tolist()
smaller = {y: sum(other < y for other in set(ids)) for y in set(ids)}
assert trainval.labels.tolist() == [smaller[y] for y in ids], "labels are not in order"
assert not set(ids) & set(test.ids.tolist()), "somebody is in both parts"

# %% [markdown]
# It is. The second assert matters most: nobody of the test part is ever trained on. A network shall learn how to compare
# people, not who they are.
#
# ## A validation split
#
# To choose settings without looking at the test part, some training people are set aside. They are split like the test
# part: of each camera one picture is a query, the others are gallery. Here is the rule for one person's pictures, given
# as (camera, $k$) in shuffled order:


# %% tags=["nbval-check-output"]
def split_person(pictures, camera_of):
    first = {}
    for picture in pictures:
        first.setdefault(camera_of(picture), picture)
    query = [first[camera] for camera in sorted(first)]  # the first picture of each camera
    gallery = [picture for picture in pictures if picture not in query]
    for picture in query:  # the list may shrink under this walk
        if all(camera_of(other) == camera_of(picture) for other in gallery):
            query.remove(picture)  # no other camera could answer it
            gallery.append(picture)
    return query, gallery


for pictures in ([(1, 1), (2, 0), (1, 0)], [(3, 0), (1, 0)], [(2, 1), (2, 0)]):
    query, gallery = split_person(pictures, lambda picture: picture[0])
    print(pictures, "-> query", query, "gallery", gallery)

# %% [markdown]
# Three people, a line each; follow them on paper. The first was seen twice by camera 1 and once by camera 2. The spare
# picture of camera 1 cannot answer the query of camera 1, so that one moves to the gallery too; both answer the query
# of camera 2. Of the second person both pictures start as queries and the gallery is empty: the first moves, and there
# it answers the other. The third has no second camera, so nothing can be asked: no query is left.
#
# Now the whole set: shuffle the names, shuffle the sorted people, and take people in that order until there are enough.
# Who is left without a query stays in train.

# %%
from alignedreid_lib.datasets.partitions import parse_name, split_validation


def split(names, num_ids):
    random = np.random.RandomState(1)  # as the original, to make its lists again
    order = np.arange(len(names))
    people = np.array(sorted({parse_name(name)[0] for name in names}))
    random.shuffle(order)
    random.shuffle(people)
    shuffled, mark, chosen = [names[i] for i in order], {}, 0  # mark: name -> 0 or 1
    for person in people:
        pictures = [name for name in shuffled if parse_name(name)[0] == person]
        query, gallery = split_person(pictures, lambda name: parse_name(name)[1])
        if query and chosen < num_ids:
            mark |= dict.fromkeys(query, 0) | dict.fromkeys(gallery, 1)
            chosen += 1
    parts = (None, 0, 1)  # train, query, gallery
    return [[name for name in shuffled if mark.get(name) == part] for part in parts]


# %% [markdown]
# Three people like those as names of the layout, two of them to be set aside:

# %% tags=["nbval-check-output"]
three = ["00000001_0001_00000000.jpg", "00000001_0001_00000001.jpg",
         "00000001_0002_00000000.jpg",
         "00000004_0001_00000000.jpg", "00000004_0003_00000000.jpg",
         "00000006_0002_00000000.jpg", "00000006_0002_00000001.jpg"]  # fmt: skip
for part, names in zip(("train", "query", "gallery"), split(three, 2), strict=True):
    for name in names:
        print(f"{part:8}", name)

# %% [markdown]
# Person 6 stays in train, as it must be. The library's `split_validation` says the same of these three, and of the whole
# set as `prepare` has split it:

# %%
assert split(three, 2) == list(split_validation(three, 2)), "three people differ"
train, val = (datasets.open_dataset(folder, part) for part in ("train", "val"))
names = [path.name for path in trainval.paths]
ours_train, ours_query, ours_gallery = split(names, len(set(val.ids)))
assert [path.name for path in train.paths] == ours_train, "train differs"
assert [path.name for path in val.paths] == ours_query + ours_gallery, "val differs"

# %% [markdown]
# Loop and library agree. Here is all that `partitions.pkl` holds:

# %% tags=["nbval-check-output"]
partitions = datasets.Partitions.load(folder / "partitions.pkl")
for key, value in vars(partitions).items():
    print(f"{key:20} {len(value):5}", type(value).__name__)
assert len(train) + len(val) == len(trainval), "a training picture got lost"

# %% [markdown]
# Eight entries: names, and what belongs to them. `trainval` is what a final model is trained with; `train` and
# `val` are the same pictures once more, split.
#
# ### Which file became which
#
# Whoever has results by the archive's own names needs the way back. `prepare` leaves it in `original_to_new.json` (and, as
# the original reproduction has it, in a pickle):

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
assert original_to_new == in_loop, "the map is not that of our loop"

# %% [markdown]
# ## A card for a data set
#
# Before training on a set, look at it as a whole: how many pictures has a person, which cameras share people, are there
# files twice, or files that do not open? `datasets.describe` answers for any part, and compares with what the makers
# published. Here the training part, with two accidents planted in a copy of it: one file copied over another, and one
# cut short.

# %%
import shutil
import tempfile
from pathlib import Path

scratch = tempfile.TemporaryDirectory()
temporary = Path(scratch.name)
damaged = temporary / "market1501"
shutil.copytree(folder, damaged)
victims = sorted(path.name for path in trainval.paths)[:3]
shutil.copyfile(damaged / "images" / victims[0], damaged / "images" / victims[1])
_ = (damaged / "images" / victims[2]).write_bytes(trainval.paths[0].read_bytes()[:300])

# %% tags=["nbval-check-output"]
card = datasets.describe(datasets.open_dataset(damaged, "trainval"))
for line in str(card).splitlines()[:7]:
    print(line[:78].rstrip())
print("equal content: ", card.duplicates)
print("do not decode: ", [name for name, _ in card.unreadable])

# %% [markdown]
# Both accidents are found and named. The card has a second column, the published counts, cut off here: on the real archive
# the two agree, and `card.as_published` says so in a word.

# %%
assert card.duplicates == [victims[:2]], "the copy was not noticed"
assert [name for name, _ in card.unreadable] == [victims[2]], "the cut file was not"
assert card.as_published is False, "a drawn set has the real one's counts"
by_hand = np.unique(trainval.ids, return_counts=True)[1]
assert card.images_per_id == (by_hand.min(), np.median(by_hand), by_hand.max())
seen = {c: set(trainval.ids[trainval.cameras == c].tolist()) for c in range(1, 7)}
pairs = [[len(seen[a] & seen[b]) for b in seen] for a in seen]
assert card.camera_pairs.tolist() == pairs, "cameras share other people"

# %% label="fig-dataset-card" alt="Three panels: a histogram of pictures an identity, a matrix of how many people each two cameras share, and sixteen people"
figures.dataset_card(trainval, card)

# %% [markdown]
# On the left of [the figure](#fig-dataset-card), how many pictures the people have: a training batch takes four pictures of a person ([chapter 2](02_batches.ipynb)), and everybody has at least four. On the right, the
# diagonal counts the people of each camera, the rest those that two cameras share: every pair shares enough to learn from.
#
# ## Boxes that are wrong
#
# Why is there a junk class at all? Because detectors err. They shift a box, make it too large, or cut off legs or head.
# The generator has a knob for it, `misalignment`, from 0 to 1.

# %%
from PIL import ImageDraw

from alignedreid_lib.synthetic.packing import Shot
from alignedreid_lib.synthetic.pedestrians import Box, View, draw

errors = (0, 0.25, 0.5, 0.75, 1)
street = Box(left=-0.5, top=1.45, width=1.0, height=2.0)  # person's heights
cameras = synthetic.sample_cameras(6, seed=0)


def with_boxes(shot):
    moment = np.random.default_rng([0, synthetic.VIEWS, shot.person, shot.moment])
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


# %%
# Two people in their streets with the right and the wrong box, and cut out by boxes of growing error
cut_out = []
for shot in (Shot(person=3, camera=3, moment=0, box=1), Shot(8, 2, 0, box=1)):
    cut_out += [with_boxes(shot)]
    cut_out += [synthetic.take(shot, cameras, error, seed=0) for error in errors]
figures.contact_sheet(cut_out, ["street", *map(str, errors)] * 2, columns=12)

# %% [markdown]
# Each person stands in the street first, with the perfect box (black) and the worst (orange); then comes what the boxes
# of misalignment 0 to 1 cut out. Head and feet wander up or down, and in the end one of them is gone. Whoever compares
# the first cut-out with the last row by row compares a head with a chest. This is the problem that AlignedReID exists
# for; [chapter 4](04_alignment.ipynb) solves it with a shortest path.
#
# ## CUHK03: pictures inside a MATLAB file
#
# CUHK03 (Li et al., CVPR 2014) comes as a zip with one large MATLAB file. It shows each person in two boxes: `labeled`,
# drawn by hand, and `detected`. We draw a dozen people in this layout into a temporary folder, with bad boxes.

# %%
cuhk03_zip = temporary / "cuhk03_release.zip"
people, misalignment = (8, 4), 0.7  # 8 people to train with, 4 to test
_ = synthetic.make_archive(cuhk03_zip, "cuhk03", *people, misalignment, settings.seed)
# %% [markdown]
# MATLAB's format 7.3 is HDF5, which `h5py` reads. But HDF5 jumps around in its file, and inside a zip one can only read
# forwards. The library's `DeflatedFile` makes up for it, so that the 1.7 GB of the real file need not be unpacked.

# %% tags=["nbval-check-output"]
import h5py

from alignedreid_lib.datasets.archives import DeflatedFile

cuhk03 = zipfile.ZipFile(cuhk03_zip)
entry = cuhk03.getinfo("cuhk03_release/cuhk-03.mat")
unpacked = cuhk03.read(entry)
assert DeflatedFile(cuhk03_zip, entry).read() == unpacked, "read in place differs"
mat = h5py.File(DeflatedFile(cuhk03_zip, entry), "r")
print([name for name in mat if name != "#refs#"])

# %% [markdown]
# Read in place or unpacked, the bytes are the same. `detected` and `labeled` hold a table for each of the **five camera
# pairs**. A person is seen by one pair only, and a table has ten cells a person: up to five pictures of the pair's
# first view, then up to five of its second.

# %% tags=["nbval-check-output"]
tables = {}
for kind in ("detected", "labeled"):
    tables[kind] = [mat[reference] for reference in mat[kind][0]]
print("cells x people:", [table.shape for table in tables["labeled"]])


def cell(kind, pair, person, place):
    stored = mat[tables[kind][pair][place, person]]
    return None if "MATLAB_empty" in stored.attrs else stored[()].T  # transposed


cells = [cell("labeled", 0, 0, place) for place in range(10)]
print("heights:", [None if picture is None else len(picture) for picture in cells])

# %% [markdown]
# A cell points to a picture (height x width x 3, uint8), each of its own size; or to nothing, which MATLAB stores as an
# empty array. By hand: persons are counted on through the pairs, view 1 is camera 0 and view 2 camera 1, and the place among
# the view's five cells is the $k$ of equation {eq}`eq-datasets-k`, gaps included.

# %% tags=["nbval-check-output"]
found = {"detected": {}, "labeled": {}}
for kind, of_pairs in tables.items():
    first = 0
    for pair, table in enumerate(of_pairs):
        for person in range(table.shape[1]):
            for place in range(10):
                name = f"{first + person:08d}_{place // 5:04d}_{place % 5:08d}.jpg"
                if (picture := cell(kind, pair, person, place)) is not None:
                    found[kind][name] = picture
        first += table.shape[1]
for kind, pictures in found.items():
    print(f"{kind:9}", len(pictures), "pictures in", first * 10, "cells")

# %%
# Which of the ten cells of each person hold a picture, in detected and in labeled
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
# A bright cell holds a picture. The detector finds almost everybody whom the annotators boxed, and misses somebody now
# and then: `detected` is a little emptier. Now the same moments in both boxes:

# %%
# Six moments, each as labeled by hand and as detected
both = [name for name in found["labeled"] if name in found["detected"]][::12][:6]
pairs = [found[kind][name] for name in both for kind in ("labeled", "detected")]
figures.contact_sheet(pairs, ["labeled", "detected"] * len(both), columns=12)

# %% [markdown]
# Same person, same moment, two boxes. Scores on `labeled` are usually a little higher, so a number must say which of the
# two it was measured on.
#
# The library's call writes a data set for each kind, and `all` with the pictures of both. `split_file` says who is
# trained on; the generator has drawn one, and the real set's is below.

# %% tags=["nbval-check-output"]
split_file = temporary / "re_ranking_train_test_split.pkl"
made = datasets.prepare("cuhk03", cuhk03_zip, temporary, split_file, num_val_ids=2)
for kind in ("detected", "labeled", "all"):
    print(f"{kind:9}", len(list((made / kind / "images").iterdir())), "pictures")

# %%
for kind, pictures in found.items():
    names = {path.name for path in (made / kind / "images").iterdir()}
    assert names == set(pictures), f"{kind}: the names are not ours"
number = len(list((made / "all" / "images").iterdir()))
assert number == sum(map(len, found.values())), "`all` lost a picture"

# %% [markdown]
# Names and counts are those of our loop.
#
# ### The new protocol
#
# The release has 20 splits (`testsets`) with 100 test people each, to be averaged: the *old protocol*. Zhong et al. (CVPR 2017) gave
# CUHK03 one split like Market-1501's, with 767 training people and 700 test people: the *new protocol*. It is much
# harder (fewer people to learn from, more to be mistaken for), so scores of the two cannot be compared. The split is a
# list of names, and comes with the library:

# %% tags=["nbval-check-output"]
from alignedreid_lib.datasets.cuhk03_split import new_protocol

protocol = new_protocol()
for kind, lists in protocol.items():
    people = [{parse_name(name)[0] for name in names} for names in lists.values()]
    print(f"{kind:9}", [len(names) for names in lists.values()], [len(p) for p in people])
    assert people[1] == people[2], f"{kind}: a query without gallery"
    assert not people[0] & people[1], f"{kind}: trained on a test person"

# %% [markdown]
# Pictures, then people, for train, query and gallery: the published counts. One trap is left: are the training people
# of the two kinds the same?

# %% tags=["nbval-check-output"]
trained = {parse_name(name)[0] for name in protocol["detected"]["train_im_names"]}
tested = {parse_name(name)[0] for name in protocol["labeled"]["query_im_names"]}
print("in training of detected and in test of labeled:", len(trained & tested))
assert trained & tested, "the two splits agree after all"

# %% [markdown]
# Not quite. The two splits were drawn up apart, and somebody changes sides. So a model trained on one kind is tested on
# that kind; mixed, it would meet a person of its training.
#
# ## DukeMTMC-reID: the same layout, and a lesson
#
# The third archive is packed like Market-1501, without junk, distractors `0000` and `gt_bbox`: three folders, eight
# cameras, names such as `0001_c2_f0046182.jpg` (person, camera, frame). People seen by one camera only fill its gallery.
# A handful of drawn people, prepared by the same code:

# %% tags=["nbval-check-output"]
duke_zip = temporary / "DukeMTMC-reID.zip"
synthetic.make_archive(duke_zip, "dukemtmc", 5, 2, seed=settings.seed)
raw = [name for name in zipfile.ZipFile(duke_zip).namelist() if name.endswith(".jpg")]
print(dict(Counter(name.split("/")[1] for name in raw)))
duke = datasets.prepare("dukemtmc", duke_zip, temporary, num_val_ids=2)
parts = [datasets.open_dataset(duke, part) for part in ("trainval", "test")]
assert sum(map(len, parts)) == len(raw), "a picture got lost"

# %% [markdown]
# Every picture of the archive is in the prepared set once.
#
# The real set is one not to look for. Its pictures come from video recorded in March 2014 on the campus of Duke
# University: some two thousand people, most of them students on their way between lectures. Posters announced it, but
# nobody was asked for consent. The university's review board had approved a study in a defined indoor space, with data
# handed out on request; it was filmed outdoors, and put on an open web site. Researchers all over the world used it,
# makers of surveillance systems and military institutes among them. When journalists and the artist Adam Harvey had made
# this public, Duke took the site down, on 25 April 2019, and the professor in charge apologised to those recorded.
#
# Papers go on printing scores on it, since copies are easy to find; a copy gives nobody's consent. The library can read
# it, so that those who had the data before can understand and repeat old results. It has no link, and no
# chapter needs it. The other sets, too, show people who never heard of this book. That is why its pictures are drawn.
#
# ## Several sets as one
#
# More people are better teachers: AlignedReID was trained on several sets merged. `datasets.combine` takes the training
# parts. Two sets may both have a person 5, so identities are counted anew, from 0 on through the sets; a camera keeps its
# number, and $k$ is counted again. With $n_s$ people in set $s$, the person of label $\ell$ in set $s$ becomes
#
# $$
# y' = \ell + \sum_{r < s} n_r
# $$ (eq-datasets-combine)
#
# In a loop over the sets of this chapter, Market-1501's layout, CUHK03's and DukeMTMC's:

# %% tags=["nbval-check-output"]
members = [folder, made / "detected", duke]
first, expected = 0, {}
for member in members:
    part = datasets.open_dataset(member, "trainval")
    for person, label in zip(part.ids.tolist(), part.labels.tolist(), strict=True):
        expected[member.name, person] = first + label
    first += len(set(part.labels.tolist()))
    print(f"{member.name:10} people {first - len(set(part.labels.tolist()))} to {first - 1}")

# %%
together = datasets.open_dataset(datasets.combine(members, temporary), "trainval")
assert sorted(set(together.ids.tolist())) == list(range(first)), "people are missing"
moved = json.loads((temporary / "combined" / "original_to_new.json").read_text())
for old, new in moved.items():
    member, name = Path(old).parts[-3], Path(old).name
    assert parse_name(new)[0] == expected[member, parse_name(name)[0]], f"{old} is another"
assert len(moved) == len(together), "a picture got lost"

# %% [markdown]
# The merged set has a training part only: tests stay with the sets, each by its own protocol. `make train
# PRESET=embedded_combined` trains on such a set and tests on each of its members.
#
# ## Your own pictures
#
# A data set of your own needs no archive. The simplest form is a folder for each person:

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
# Half of the people are chosen at random, by a seed, for the test. PNG and other forms become upright RGB JPEGs; a plain JPEG is copied as
# it is. Nothing says which camera took a picture, so one picture of each test person becomes the query, and no answer can
# be left out for being of the query's own camera: every table of scores says so. If the names tell the camera, a pattern
# reads it; a CSV file with the columns path, person and camera does as well.

# %% tags=["nbval-check-output"]
pattern = r"^(?P<person>[^/]+)/\d+_(?P<camera>\d+)"
mine = datasets.prepare("folder", own, temporary / "again", pattern=pattern, seed=0)
print(json.loads((mine / "people.json").read_text("utf-8"))["cameras"])
known = datasets.open_dataset(mine, "test")
assert known.cameras_known and not unknown.cameras_known, "cameras from nowhere"
assert set(known.ids) == set(unknown.ids), "one seed, other people"

# %% [markdown]
# Pictures of people are theirs before they are data: ask them. [Chapter 12](12_your_own_people.ipynb) searches in such a folder.
#
# ## The real data sets
#
# | | Market-1501 | CUHK03, new protocol | DukeMTMC-reID |
# |---|---|---|---|
# | archive | `Market-1501-v15.09.15.zip` | `cuhk03_release.zip` | `DukeMTMC-reID.zip` |
# | cameras | 6 | 5 pairs | 8 |
# | people, train / test | 751 / 750 | 767 / 700 | 702 / 702 |
# | training pictures | 12 936 | 7&nbsp;365 detected, 7&nbsp;368 labeled | 16 522 |
# | queries | 3 368 | 1 400 of each | 2 228 |
# | gallery | 15 913 | 5&nbsp;332 detected, 5&nbsp;328 labeled | 17 661 |
# | multi-query | 12 688 | none | none |
# | boxes | detector; queries by hand | both | by hand, interpolated |
# | papers | Zheng et al. 2015 | Li et al. 2014, Zhong et al. 2017 | Ristani et al. 2016, Zheng et al. 2017 |
# | where | [its page](https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html) | [its page](https://www.ee.cuhk.edu.hk/~xgwang/CUHK_identification.html), on request | withdrawn by its makers |
# | terms | research; cite the paper | research; as agreed when you ask | no longer offered |
#
# Read the terms on the page itself before you download: they are the makers' to set, and to change. Put an archive into
# `data/raw/` as it is, and `prepare` does for it what it did here; the counts above are what you must then find. One of
# them you can check now: Market-1501's page says that `bounding_box_test` has 19 732 pictures, and the table says that
# 15 913 of them are gallery. The difference, 3 819, is junk.
#
# :::{admonition} The paper says
# AlignedReID (Zhang et al. 2017, arXiv 1711.08184) reports a rank-1 of 94.4 % on Market-1501 and of 97.8 % on CUHK03,
# trained on four data sets merged, with re-ranking, and on CUHK03 by the old protocol.
# :::
#
# What we see in this chapter: the name of a data set does not say what was measured. Old or new protocol, detected or
# labeled, one training set or four: each changes the number. The library therefore combines sets only
# when asked (`datasets.combine`), and CUHK03 here always means the new protocol.
#
# ## A pickle is a program
#
# `partitions.pkl` is a pickle, because the original's is, and its prepared data should load unchanged. Alas, reading a
# pickle runs whatever its maker put in. Here is one that makes a folder when it is read; it could as well delete one.

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
assert trace.exists(), "the pickle did nothing"

# %% [markdown]
# The folder is there: Python's own reader obeyed. Now the library's, which knows dict, list, tuple, str, int and numpy
# arrays, and refuses to look up anything else:

# %%
trace.rmdir()
try:
    datasets.Partitions.load(trap_file)
except InputError as error:
    message = str(error).replace(f"{temporary}{os.sep}", "")
    print(*textwrap.wrap(message, 80), sep="\n")
assert not trace.exists(), "the pickle has run"

# %% [markdown]
# One line that names the file and what it asked for; and nothing has run. The partitions that `prepare` wrote hold nothing
# but plain values, so they pass, as those of the original do.
#
# ## Summary
#
# * A picture is known by who and which camera; $k$ counts the earlier pictures of the same person in the same camera, and ten lines do the conversion.
# * Junk and the query's own camera are ignored, distractors count, multi-query boxes share a query's person and camera.
# * Labels follow sorted identities, and nobody is in the training and in the test part.
# * A card counts a part and finds its bad files; sets are merged by counting people on; your own folder is a set too.
# * A score on CUHK03 must say which boxes and which protocol.
# * Archives and pickles are input from outside: counts are checked, and nothing in them is run.
#
# Next: [chapter 2](02_batches.ipynb) makes batches of these pictures.
#
# ## Exercises
#
# **1.** How many right answers does a query of the test part have, at least and on average? Use equation
# {eq}`eq-datasets-role` on the arrays `test.ids`, `test.cameras` and `test.marks`, without a loop.
#
# :::{dropdown} Solution
# ```python
# q, g = test.marks == 0, test.marks == 1
# same_person = test.ids[q][:, None] == test.ids[g]
# other_camera = test.cameras[q][:, None] != test.cameras[g]
# right = (same_person & other_camera).sum(1)
# print(right.min(), right.mean())
# assert (right > 0).all(), "a query that nobody can answer"
# ```
#
# Junk needs no test here: `prepare` has left it out.
# :::
#
# **2.** Somebody drops `sorted` from `rename` and lists the folder in whatever order the disk gives. Does the *set* of new
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
# The set of names is the same, so every count and every assert on counts still holds; but other pictures stand behind
# the names. A list of names from another machine, say a validation split, then means other pictures, and nothing
# complains.
# :::
#
# **3.** In `split_person`, the walk over `query` removes from the list that it walks over. The next query then moves into the
# place just looked at, and is passed over without a check. Show that this does no harm.
#
# :::{dropdown} Solution
# A query of camera $c$ is removed when no gallery picture is of a camera other than $c$. It joins the gallery itself.
# The queries of one person are of different cameras, so the one passed over is of a camera other than $c$, and the
# picture just moved answers it. It would have passed the check. The same holds for all that follow: at most one query
# of a person is ever moved.
# :::
