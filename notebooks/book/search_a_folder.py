"""The ten images of a folder that are nearest to one: python search_a_folder.py model.onnx folder query.jpg"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

model, folder, query = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def feature(path):
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    return session.run(["global_features"], {"images": np.asarray(image)[None]})[0][0]


paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
distances = np.linalg.norm(np.stack([feature(path) for path in paths]) - feature(query), axis=1)
for k in distances.argsort(kind="stable")[:10]:
    print(f"{distances[k]:.4f} {paths[k].name}")
