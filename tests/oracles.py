"""Slow and obvious versions of what the library does fast: tests and chapters compare against them."""

import math
from collections import defaultdict
from itertools import product

import numpy as np
import torch


def ranked_list(distances, query_id, gallery_ids, query_camera, gallery_cameras):
    """Gallery indices of one query, nearest first, equal distances in gallery order, junk left out."""
    kept = [g for g in range(len(gallery_ids)) if gallery_ids[g] != query_id or gallery_cameras[g] != query_camera]
    return sorted(kept, key=lambda g: (distances[g], g))


def average_precision(hits, definition):
    """AP of a ranked list of True (match) and False; nan without a match. Walks the list place by place."""
    if not any(hits):
        return float("nan")
    area, matches, recall, precision = 0.0, 0, 0.0, 1.0
    for place, hit in enumerate(hits, start=1):
        old_recall, old_precision = recall, precision
        matches += hit
        recall, precision = matches / sum(hits), matches / place
        height = (old_precision + precision) / 2 if definition == "trapezoid" else precision
        area += (recall - old_recall) * height
    return area


def inverse_penalty(hits):
    """The share of matches among the images down to the last match; nan without a match."""
    while hits and not hits[-1]:
        hits = hits[:-1]
    return sum(hits) / len(hits) if hits else float("nan")


def cmc_market1501(hits, top):
    """1 from the place of the first match on."""
    return np.array([float(any(hits[: k + 1])) for k in range(top)])


def cmc_allshots(hits, top):
    """Each match alone against all wrong images: the share of matches with at most k wrong ones before."""
    if not any(hits):
        return np.zeros(top)
    wrong_before = [sum(not h for h in hits[:place]) for place, hit in enumerate(hits) if hit]
    return np.array([np.mean([wrong <= k for wrong in wrong_before]) for k in range(top)])


def cmc_cuhk03(distances, query_id, gallery_ids, query_camera, gallery_cameras, top):
    """The mean over every draw of one image of each identity, from other cameras than the query's."""
    images = defaultdict(list)
    for g, (identity, camera) in enumerate(zip(gallery_ids, gallery_cameras, strict=True)):
        if camera != query_camera:
            images[identity].append(g)
    if query_id not in images:
        return np.zeros(top)
    curves = []
    for draw in product(*images.values()):
        ordered = sorted(draw, key=lambda g: (distances[g], g))
        curves.append(cmc_market1501([gallery_ids[g] == query_id for g in ordered], top))
    return np.mean(curves, axis=0)


def score_ranking(distances, query_ids, gallery_ids, query_cameras, gallery_cameras, protocol, average_precision_, top):
    """(cmc_per_query [Q, top], ap_per_query [Q]) by the definitions above, query by query."""
    curves, aps = [], []
    for row, query_id, camera in zip(distances, query_ids, query_cameras, strict=True):
        problem = (row, query_id, gallery_ids, camera, gallery_cameras)
        hits = [gallery_ids[g] == query_id for g in ranked_list(*problem)]
        aps.append(average_precision(hits, average_precision_))
        if protocol == "cuhk03":
            curves.append(cmc_cuhk03(*problem, top))
        else:
            curves.append({"market1501": cmc_market1501, "allshots": cmc_allshots}[protocol](hits, top))
    return np.array(curves), np.array(aps)


def monotone_paths(height, width):
    """Every way from cell (0, 0) to (height - 1, width - 1) in steps down and right."""
    if height == 1 and width == 1:
        return [[(0, 0)]]
    last = (height - 1, width - 1)
    shorter = monotone_paths(height - 1, width) if height > 1 else []
    narrower = monotone_paths(height, width - 1) if width > 1 else []
    return [[*path, last] for path in shorter + narrower]


def local_distance(x, y, aligned):
    """Between two lists of stripes, by AlignedReID's equations 1 and 2 as they are printed."""
    costs = [[(math.exp(d := math.dist(a, b)) - 1) / (math.exp(d) + 1) for b in y] for a in x]
    if not aligned:
        return sum(costs[i][i] for i in range(len(x)))
    for i, row in enumerate(costs):
        for j in range(len(row)):
            before = [costs[i - 1][j]] * (i > 0) + [row[j - 1]] * (j > 0)
            row[j] += min(before, default=0)
    return costs[-1][-1]


def rerank(distances, num_queries, k1, k2, lambda_value):
    """k-reciprocal re-ranking of all pictures [N, N] (not squared) with sets and loops, after the paper's equations.

    Zhong et al. 2017: d is squared and divided by the largest of its column; R(i, k) are the reciprocal neighbours.
    """
    squared = np.asarray(distances, float) ** 2
    d = (squared / squared.max(axis=0)).T
    size = len(d)
    ranked = [sorted(range(size), key=lambda j, i=i: (d[i, j], j)) for i in range(size)]

    def reciprocal(i, k):
        return {j for j in ranked[i][: k + 1] if i in ranked[j][: k + 1]}

    weights = np.zeros((size, size))
    for i in range(size):
        near = reciprocal(i, k1)
        whole = set(near)
        for j in near:
            theirs = reciprocal(j, int(np.around(k1 / 2)))
            if len(theirs & near) > 2 / 3 * len(theirs):
                whole |= theirs
        for j in whole:
            weights[i, j] = math.exp(-d[i, j])
        weights[i] /= weights[i].sum()
    if k2 > 1:
        weights = np.array([weights[ranked[i][:k2]].mean(axis=0) for i in range(size)])
    result = np.zeros((num_queries, size - num_queries))
    for q in range(num_queries):
        for g in range(size - num_queries):
            mine, theirs = weights[q], weights[num_queries + g]
            jaccard = 1 - np.minimum(mine, theirs).sum() / np.maximum(mine, theirs).sum()
            result[q, g] = (1 - lambda_value) * jaccard + lambda_value * d[q, num_queries + g]
    return result


def augmented_one_by_one(images, size, generator, mirror_prob, crop_prob, crop_ratio):
    """A batch as the first version of the library made it: image by image, drawing and computing in turns."""
    ready = []
    for image, crop in zip(images, (torch.rand(len(images), generator=generator) < crop_prob).tolist(), strict=True):
        if crop:
            height, width = image.shape[-2:]
            shares = crop_ratio + (1 - crop_ratio) * torch.rand(2, generator=generator)
            h, w = max(1, int(height * shares[0])), max(1, int(width * shares[1]))
            top = int(torch.randint(height - h + 1, (), generator=generator))
            left = int(torch.randint(width - w + 1, (), generator=generator))
            image = image[:, top : top + h, left : left + w]
        if image.shape[-2:] != size:
            resized = torch.nn.functional.interpolate(image[None].float(), size, mode="bilinear", align_corners=False)
            image = resized[0].round().to(torch.uint8)
        ready.append(image)
    mirrored = torch.rand(len(images), generator=generator) < mirror_prob
    return torch.stack(
        [image.flip(-1) if turn else image for image, turn in zip(ready, mirrored.tolist(), strict=True)]
    )
