# %% [markdown]
# # 13 Alignment study
#
# What is alignment worth, what do stripes bring without it, and from which box error does it help? We draw the people and the boxes
# ourselves, so we can change the box error and keep everything else the same.

# %% label="fig-misaligned" caption="The larger the error of the box, the less stripe 3 shows of what it shows in a good box." alt="One drawn person in a red jacket in five boxes, from a misalignment of 0 to 1, each cut into eight stripes with the third one framed: in the first box it shows the jacket and the bag, in the last only the street above the head"
from alignedreid_lib import figures, synthetic

street = synthetic.sample_cameras(6, seed=0)
person = synthetic.Shot(7, camera=1, moment=0, box=1)
boxes = {}
for error in (0.0, 0.25, 0.5, 0.75, 1.0):
    box = synthetic.take(person, street, misalignment=error, seed=0).copy()
    box[16::16] = 255  # lines between the eight stripes
    box[[32, 33, 46, 47]] = box[32:48, [0, 1, -2, -1]] = (230, 159, 0)
    boxes[f"misalignment {error:g}"] = box
figures.contact_sheet(list(boxes.values()), list(boxes), columns=5)

# %% [markdown]
# **What you will learn**
#
# * how four distances score for five box errors, with three seeds each, from one kind of training;
# * which part of the gain comes from alignment, and which part comes from stripes without alignment;
# * how to reproduce every number: `make train PRESET=alignment_study`.
#
# **Time** on two cores: seconds, because this notebook reads the committed results; about a quarter of an hour to compute them again.
# **Hardware**: any laptop, no GPU.

# %% tags=["parameters"]
# Parameters: seeds of the trainings to make; none reads the committed results
seeds = ()
misalignments = (0.0, 0.25, 0.5, 0.75, 1.0)
train_misalignment = 0.5
run_dir = "runs/alignment_study"
# the training, as in chapter 6
data_root = "data/alignment_study"
height = 128
width = 64
ids_per_batch = 16
images_per_id = 4
backbone = "resnet18"
weights = None
last_stride = 1
global_weight = 1.0
local_weight = 1.0
local_mining = "local"
id_weight = 1.0
margin = 0.3
normalize = False
base_lr = 1e-3
total_epochs = 40
schedule = "exponential"
decay_at_epoch = 21
precision = "auto"

# %% tags=["hide-input"]
import dataclasses
import statistics
from dataclasses import dataclass
from pathlib import Path

from IPython.display import Markdown

from alignedreid_lib import datasets, devices, evaluation, runs, training
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import features
from alignedreid_lib.evaluation.scores import ScoreTable
from alignedreid_lib.runs import check_types
from alignedreid_lib.training.config import max_seed

DISTANCES = ("global", "rigid", "local", "global+local")


@dataclass(frozen=True)
class Study:
    seeds: tuple[int, ...] = ()
    misalignments: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    train_misalignment: float = 0.5
    run_dir: str = "runs/alignment_study"

    def __post_init__(self):
        check_types(self)
        if len(set(self.seeds)) < len(self.seeds) or any(
            not 0 <= seed <= max_seed() for seed in self.seeds
        ):
            raise InputError(
                f"seeds is {self.seeds}; give different ones from 0 to"
                f" {max_seed()}"
            )
        tested = self.misalignments
        if (
            not tested
            or len(set(tested)) < len(tested)
            or any(not 0 <= m <= 1 for m in tested)
        ):
            raise InputError(
                f"misalignments is {tested}; give different numbers from 0 to 1"
            )
        if not 0 <= self.train_misalignment <= 1:
            raise InputError(
                f"train_misalignment is {self.train_misalignment}; it has to be"
                " from 0 to 1"
            )


of_training, of_study = (
    [field.name for field in dataclasses.fields(kind)]
    for kind in (training.TrainConfig, Study)
)
config = runs.read_parameters(training.TrainConfig, globals(), extra=of_study)
study = runs.read_parameters(Study, globals(), extra=of_training)

# %% [markdown]
# ## The problem
#
# In [the figure](#fig-misaligned) the person, the place and the moment stay the same, and the detector's box gets worse. At a misalignment
# of 1 a box is up to a third of the person's height too high or too low and up to a fifth too large or too small, and half of the boxes cut
# off the legs or the head.
#
# A distance that compares stripe 3 with stripe 3 then compares a jacket with a street. The shortest path may compare the jacket with a lower
# stripe instead. How much does that help, and does it cost something where the boxes are good?
#
# :::{admonition} The paper says
# AlignedReID++ (Luo et al. 2019) compared rigid and aligned stripes on the original Market-1501, 91.4 / 76.7 against 91.9 / 78.8 (rank-1 /
# mAP, step AP), and with bodies cropped, 52.8 / 38.1 against 70.1 / 55.3. These are two points on a curve; the points between them are unknown.
# :::

# %% [markdown]
# ## The training runs
#
# We train once per seed, and test each network on people that it has never seen:
#
# | | |
# |---|---|
# | network | ResNet-18 from random weights, without its last halving, so that 128 × 64 pixels give eight stripes |
# | losses | the global and the local triplet loss and the identification loss; the local loss mines triplets with its own distance, as in the original reproduction |
# | training images | misalignment one half |
# | test images | different people, drawn once for each misalignment; the network gets no information about it |


# %%
def folder_of(misalignment):
    """The dataset drawn with this misalignment, made at the first call."""
    root = Path(config.data_root) / f"{misalignment:g}"
    archive = runs.resolve(root) / "Market-1501-v15.09.15.zip"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        synthetic.make_archive(archive, "market1501", misalignment=misalignment)
    return root, datasets.prepare("market1501", archive, runs.resolve(root))


def test(network, misalignment):
    """A row of scores for each distance."""
    dataset = datasets.open_dataset(folder_of(misalignment)[1], "test")
    found = features.extract(
        network,
        dataset,
        height=config.height,
        width=config.width,
        precision=config.precision,
    )
    return evaluation.evaluate(found, DISTANCES, rerank=False).to_dict()["rows"]


# %%
scores, minutes = [], 0.0
for seed in study.seeds:
    own = dataclasses.replace(
        config, seed=seed, data_root=str(folder_of(study.train_misalignment)[0])
    )
    result = training.train(own, Path(study.run_dir) / f"seed{seed}")
    network, minutes = (
        training.load_network(own, result.weights),
        minutes + result.minutes,
    )
    for misalignment in study.misalignments:
        scores += [
            {"seed": seed, "misalignment": misalignment} | row
            for row in test(network, misalignment)
        ]
if study.seeds:
    where = devices.choose_device(config.device)
    settings = dataclasses.asdict(config) | {
        "seeds": list(study.seeds),
        "train_misalignment": study.train_misalignment,
    }
    written = runs.write_results(
        study.run_dir, settings, scores, minutes, where
    )
else:
    written = runs.resolve("notebooks/results/alignment_study.json")
results = runs.read_json(written)

# %%
found_seeds = {row["seed"] for row in results["scores"]}
assert study.seeds or len(found_seeds) >= 3, (
    "the committed results have three seeds or more"
)

# %% [markdown]
# ## The results
#
# *global* is the distance of the global features; *rigid* sums the costs of stripe 1 with 1, 2 with 2, and so on; *local* is the shortest
# path, that is, aligned stripes; *global+local* is the sum of the first and the third. The table gives the mAP (step) in percent, averaged
# over the seeds, with the range over the seeds (largest minus smallest) in brackets.
#
# :::{admonition} Predict first
# :class: tip
# If every box fits, are aligned stripes better than rigid ones? And what becomes of rigid stripes at a misalignment of one half?
# :::


# %%
def values(distance, misalignment, score="mean_ap_step"):
    """The score of each seed, in percent."""
    return [
        100 * row[score]
        for row in results["scores"]
        if row["distance"] == distance and row["misalignment"] == misalignment
    ]


steps = sorted({row["misalignment"] for row in results["scores"]})
for step in steps:
    for distance in DISTANCES:
        assert len(values(distance, step)) == len(found_seeds), (
            "there is a score for every seed"
        )


def show(samples):
    """The mean over the seeds and their range, as text."""
    return f"{statistics.mean(samples):.1f} ({max(samples) - min(samples):.1f})"


lines = [
    "| misalignment | " + " | ".join(DISTANCES) + " |",
    "|---:|" + "---:|" * len(DISTANCES),
]
for step in steps:
    cells = [show(values(distance, step)) for distance in DISTANCES]
    lines.append(f"| {step:g} | " + " | ".join(cells) + " |")
Markdown("\n".join(lines))

# %% [markdown]
# All four fall as the boxes get worse. To see what the stripes add, we subtract the score of the global feature from the other three, seed by
# seed:

# %% label="fig-study" caption="With bad boxes rigid stripes lose to the global feature; aligned stripes never do." alt="Gain in mAP over the global feature for five misalignments of the test. Left: rigid stripes gain three points at 0 and lose points at one quarter and more, nearly thirty at 1. Right, the same on a finer scale without the rigid stripes: aligned stripes gain about three points at 0, almost nothing at one quarter, and four at 1; the sum stays between them and zero or near them"
STYLES = {
    "rigid": ("local, rigid", figures.ORANGE, "--", "s"),
    "local": ("local, aligned", figures.GREEN, "-", "o"),
    "global+local": ("global + local", figures.PURPLE, "-.", "^"),
}


def gains(distance, floor, score="mean_ap_step"):
    """The gain of one distance over a second one, per step and seed."""
    return [
        [
            a - b
            for a, b in zip(
                values(distance, step, score),
                values(floor, step, score),
                strict=True,
            )
        ]
        for step in steps
    ]


def draw_gains(ax, distances, score="mean_ap_step"):
    """Gains over the global feature: the mean over the seeds as a line,
    their range as a band."""
    ax.axhline(0, color=figures.BLACK, linewidth=1.2)
    for distance in distances:
        label, colour, style, marker = STYLES[distance]
        samples = gains(distance, "global", score)
        means = [statistics.mean(sample) for sample in samples]
        ax.plot(steps, means, style, marker=marker, color=colour, label=label)
        ends = [min(s) for s in samples], [max(s) for s in samples]
        ax.fill_between(steps, *ends, color=colour, alpha=0.2, linewidth=0)
    level = [statistics.mean(values("global", step, score)) for step in steps]
    names = [f"{x:g}\n{y:.0f} %" for x, y in zip(steps, level, strict=True)]
    ax.set_xticks(steps, names)
    ax.set(xlabel="misalignment of the test, and the score of global")
    ax.legend(loc="best")


fig = figures.Figure(figsize=(8, 3.4), layout="constrained")
left, right = fig.subplots(1, 2)
draw_gains(left, STYLES)
draw_gains(right, ["local", "global+local"])
left.set(title="gain over the global feature", ylabel="points of mAP (step)")
right.set(title="without the rigid stripes", ylim=(-0.5, None))
fig

# %% [markdown]
# The line at 0 in [the figure](#fig-study) is the global feature; its own score is below each misalignment. The bands are the range of the three
# seeds. A gain of aligned stripes has two parts, which the next table separates: what stripes add without alignment, and what their alignment
# adds (in points of mAP, with the range over the seeds).

# %%
parts = {
    "stripes: rigid over global": gains("rigid", "global"),
    "alignment: aligned over rigid": gains("local", "rigid"),
    "both: aligned over global": gains("local", "global"),
}
lines = [
    "| misalignment | " + " | ".join(parts) + " |",
    "|---:|" + "---:|" * len(parts),
]
for k, step in enumerate(steps):
    cells = [show(samples[k]) for samples in parts.values()]
    lines.append(f"| {step:g} | " + " | ".join(cells) + " |")
Markdown("\n".join(lines))

# %% [markdown]
# * **Where every box fits**, the whole gain comes from the stripes. Alignment adds nothing: stripe 3 belongs to stripe 3, and a path that bends
#   can only be wrong.
# * **At one quarter and more** rigid stripes are worse than no stripes: they compare different parts of the body. The global feature sees the whole
#   box and changes little with a shift.
# * **The worse the boxes**, the more alignment adds. Most of it only repairs what the rigid stripes lost.
# * **The sum** of the global and the aligned distance is no better than the better of the two, except around one quarter and one half, by less
#   than the range of the seeds.


# %% [markdown]
# Are these differences luck? The same three networks are tested with both distances, so `evaluation.compare` takes the difference seed by
# seed and gives its interval (a paired t test; [chapter 8](08_evaluation.ipynb) explains the columns). The differences are aligned minus rigid.


# %%
def rows_of(distance, misalignment):
    """The rows of the score table, one per seed."""
    rows = [
        row
        for row in results["scores"]
        if row["distance"] == distance and row["misalignment"] == misalignment
    ]
    return ScoreTable.from_dict(
        {"rows": sorted(rows, key=lambda row: row["seed"])}
    ).rows


def aligned_over_rigid(step):
    """The difference in mAP, over the seeds."""
    found = evaluation.compare(
        rows_of("rigid", step), rows_of("local", step), paired=True
    )
    return found.rows[-1]


# %%
over = (
    {step: aligned_over_rigid(step) for step in steps}
    if len(found_seeds) > 1
    else {}
)
for step, found in over.items():
    print(
        f"misalignment {step:<5g} {100 * found.difference:+5.1f} points of mAP,"
        f" 95 % interval {100 * found.low:+5.1f} to {100 * found.high:+5.1f}"
    )
    assert step < 0.5 or found.low > 0, (
        "aligned beats rigid, and the whole interval is above 0"
    )

# %%
assert not over or 0.0 not in over or over[0.0].low < 0, (
    "with perfect boxes aligned does not beat rigid"
)

# %% [markdown]
# ## On real images
#
# The next table is for CUHK03's detected boxes, new protocol, with MobileNetV2 from ImageNet weights at 128 × 64, four stripes and one seed
# (presets `cuhk03_mobilenet` and `cuhk03_mobilenet_local`); rank-1 and mAP (step) in percent.
#
# :::{admonition} Predict first
# :class: tip
# These boxes are real, made by a detector. Do aligned stripes beat rigid ones here?
# :::

# %% tags=["hide-input"]
lines = ["| losses | distance | rank-1 | mAP (step) |", "|---|---|---:|---:|"]
for name in ("cuhk03_mobilenet", "cuhk03_mobilenet_local"):
    run = runs.read_json(runs.resolve(f"notebooks/results/{name}.json"))
    settings = run["config"]
    terms = [n for n in ("global", "local", "id") if settings[f"{n}_weight"]]
    for row in run["scores"]:
        scores = (100 * row["rank1"], 100 * row["mean_ap_step"])
        cells = [", ".join(terms), row["distance"]]
        cells += [f"{score:.1f}" for score in scores]
        lines.append("| " + " | ".join(cells) + " |")
Markdown("\n".join(lines))

# %% [markdown]
# * **Training with the local loss** improved the global feature by one and a half points, as AlignedReID claims.
# * **Stripes** added about three points of rank-1 and two of mAP.
# * **Alignment** itself added nothing: rigid stripes are half a point better than aligned ones, in one training.
#
# We looked at the ranked lists, which the licence does not allow us to show: the boxes fit, and the images ranked before the right person show
# people in the same colours, dark with dark and red with red. This is the left end of our curve, where alignment has nothing to correct.
#
# ## Which setting should I take?
#
# * `"local"`, aligned stripes, if boxes are off by a quarter or more: they gain 6 to 31 points of mAP over rigid stripes.
# * `"rigid"` if boxes fit: 86.4 against 86.0 % at misalignment 0, and half a point more on CUHK03, for a third of the time
#   ([chapter 11](11_time_and_space.ipynb)).
# * `"local"` if you do not know your boxes: it loses less than half a point where they fit.
# * `"global"` if the gallery is too large for stripes: it loses three points where boxes fit, one at one half and four at 1.
# * `"global+local"` is not worth its cost in this study: where it is the best, it leads by less than the range of the seeds.
#
# ## Summary
#
# * Three things are easily confused: training with a local loss (better global features), testing with stripes (better if boxes fit), and
#   aligning the stripes (better if boxes do not fit). This chapter measures each of them separately.
# * Look at your boxes first: where they fit, alignment has nothing to correct.
#
# Next: [chapter 14](14_strong_baseline.ipynb) turns this recipe into a strong baseline, a rung at a time.
#
# ## Limits of the study
#
# The training used the local loss with alignment, so rigid stripes were tested on features that were not trained for them; training with
# rigid stripes would show how much this costs them. The people are drawn, and their clothes differ more clearly than those of real people.
# Three seeds give wide intervals. The real run has one seed.
#
# ## Exercises
#
# **1.** From which misalignment does alignment help, if one point of mAP counts?
#
# :::{dropdown} Solution
# The smallest gain of any seed is below 0 at 0 and above 5 at one quarter, so the answer is between them.
#
# ```python
# print([(step, round(min(gains("local", "rigid")[k]), 1)) for k, step in enumerate(steps)])
# ```
# :::
#
# **2.** Repeat the figure for rank-1.
#
# :::{dropdown} Solution
# Pass `"rank1"` to `draw_gains`. The result is similar: at 1, aligned stripes find about 78 % of the people at rank 1, rigid stripes 55 %.
#
# ```python
# fig = figures.Figure(figsize=(5, 3.4), layout="constrained")
# ax = fig.subplots()
# draw_gains(ax, STYLES, "rank1")
# ax.set(ylabel="points of rank-1")
# fig
# ```
# :::
#
# **3.** Train on perfect boxes and test on bad ones. What do you expect of the global feature?
#
# :::{dropdown} Solution
# Run `make train PRESET=alignment_study ARGS="-p train_misalignment 0.0"`, which uses a new run folder. The global feature has then never
# seen a shifted person, and its score should fall more with the misalignment; aligned stripes compare body parts, and should lose less.
# :::
#
# **4.** Separate the two gains. The function gets the mAP of each seed for the global, the rigid and the aligned distance. It returns the
# mean gain of the stripes, then the mean gain of their alignment. It has one mistake. Run the cell, read the answer and repair the
# function.

# %% tags=["nbval-check-output"]
from alignedreid_lib.exercises import check


def two_gains(whole, rigid, aligned):
    stripes = [r - w for w, r in zip(whole, rigid, strict=True)]
    alignment = [a - w for w, a in zip(whole, aligned, strict=True)]
    return sum(stripes) / len(stripes), sum(alignment) / len(alignment)


check("13_alignment_study", two_gains)

# %% [markdown]
# :::{dropdown} Solution
# ```python
# def two_gains(whole, rigid, aligned):
#     stripes = [r - w for w, r in zip(whole, rigid, strict=True)]
#     alignment = [a - r for r, a in zip(rigid, aligned, strict=True)]
#     return sum(stripes) / len(stripes), sum(alignment) / len(alignment)
#
#
# assert check("13_alignment_study", two_gains)
# ```
# :::
