"""Writing a network as an ONNX file or as a program of `torch.export`, and opening it again.

The file takes uint8 images of any size and gives features: resizing and normalisation are inside. Explained in
notebooks/12_your_own_people.
"""

from __future__ import annotations

import importlib
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alignedreid_lib.batches import images
from alignedreid_lib.errors import InputError
from alignedreid_lib.model import AlignedReID
from alignedreid_lib.runs import write_atomic

FORMATS = {"onnx": "model.onnx", "int8": "model_int8.onnx", "torch": "model.pt2"}  # and the files' usual names
INPUT = "images"
OUTPUTS = ("global_features", "local_features")
FACTS = "alignedreid"  # the key of the ONNX file's metadata: JSON
# Images to features: uint8 [N, height, width, 3] -> float32 [N, C] and [N, H, c], the latter empty without a map.
Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class SearchNetwork(nn.Module):
    """A network with the preparation of its images inside.

    Args:
        network: in evaluation mode; its classifier is left out.
        size: (h, w) of the network's input, pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: AlignedReID, size: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.size = network, size
        self.register_buffer("mean", 255 * torch.tensor(images.MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(images.STD).view(1, 3, 1, 1))

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """Features of images of one size.

        Args:
            pictures: uint8 [N, height, width, 3], RGB, of any size.

        Returns:
            global features [N, C] and, if the backbone has a map, local features [N, H, c]; float32.
        """
        found = self.network((self._resized(pictures).permute(0, 3, 1, 2) - self.mean) / self.std)
        return (found.global_features, found.local_features)[: 1 + self.network.has_map]

    def _resized(self, pictures: Tensor) -> Tensor:
        """Bilinear, rounded to grey levels, as `images.resize`; float32 [N, h, w, 3].

        Its coordinates are computed as PyTorch does. ONNX's own Resize divides by the scale instead, and where a pixel
        is halfway between two grey levels it would often take the other one.
        """
        resized = pictures.float()
        for axis, count in ((2, self.size[1]), (1, self.size[0])):
            length = pictures.shape[axis]
            at = ((torch.arange(count) + 0.5) * (length / count) - 0.5).clamp_min(0)
            first = at.long()
            share = (at - first).view(-1, *[1] * (3 - axis))
            second = (first + 1).clamp_max(length - 1)
            before, behind = resized.index_select(axis, first), resized.index_select(axis, second)
            resized = before * (1 - share) + behind * share
        return resized.round()


def write(
    network: AlignedReID, path: Path, size: tuple[int, int], kind: str = "onnx", facts: Mapping[str, Any] | None = None
) -> Path:
    """Write a network as a file for other programs.

    Args:
        network: a trained network; its classifier is left out.
        path: where to write; nothing incomplete is left there.
        size: (h, w) of the network's input, pixels.
        kind: onnx, or torch for a program of `torch.export` (.pt2).
        facts: what to record in the file, JSON.

    Raises:
        InputError: an unknown kind, a package that is not installed, a network that cannot be exported, or a path that
            cannot be written.
    """
    if kind not in ("onnx", "torch"):
        raise InputError(f"format {kind!r} is not known; give onnx, or torch")
    if kind == "onnx":
        _need("onnx"), _need("onnxscript")
    module = SearchNetwork(network, size).eval()
    program = _trace(module)
    record = json.dumps({**(facts or {}), "height": size[0], "width": size[1], "backbone": network.backbone})
    if kind == "torch":
        write_atomic(path, lambda beside: _save_program(program, beside, record))
        return path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the exporter's own parts
        quiet, before = logging.getLogger("torch.onnx"), logging.getLogger("torch.onnx").level
        quiet.setLevel(logging.ERROR)
        try:
            outputs = OUTPUTS[: 1 + network.has_map]
            made = torch.onnx.export(program, input_names=[INPUT], output_names=outputs, dynamo=True, verbose=False)
        finally:
            quiet.setLevel(before)
    if made is None:
        raise InputError(f"{network.backbone} cannot be exported to ONNX; export it with torch")
    content = made.model_proto
    content.metadata_props.add(key=FACTS, value=record)
    write_atomic(path, lambda beside: beside.write_bytes(content.SerializeToString()))
    return path


def _trace(module: SearchNetwork) -> torch.export.ExportedProgram:
    """The module as a program for any number of images of any size."""
    example = torch.zeros(2, 3 * module.size[0] // 2 + 1, 3 * module.size[1] // 2 + 1, 3, dtype=torch.uint8)
    number, height, width = (torch.export.Dim(name, min=1) for name in ("images", "height", "width"))
    network = module.network
    classifier, network.fc = network.fc, None
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.export.export(module, (example,), dynamic_shapes=({0: number, 1: height, 2: width},))
    except Exception as error:  # a module of the user's own can fail in any way
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{network.backbone} cannot be exported ({reason}); its forward has to be traceable"
        ) from error
    finally:
        network.fc = classifier


def _save_program(program: torch.export.ExportedProgram, path: Path, record: str) -> None:
    with TemporaryDirectory() as folder:  # the name has to end in .pt2
        file = Path(folder) / "model.pt2"
        torch.export.save(program, file, extra_files={FACTS: record})
        path.write_bytes(file.read_bytes())


def quantize(source: Path, target: Path) -> Path:
    """Write an ONNX file's convolutions with weights of 8 bits; activations are quantised as they come.

    Depthwise convolutions stay in float32: all weights of a layer share one scale, and their channels differ too much.

    Raises:
        InputError: onnx or onnxruntime is not installed, or the target cannot be written.
    """
    _need("onnxruntime")
    quantization, nodes = importlib.import_module("onnxruntime.quantization"), _need("onnx").load(source).graph.node
    depthwise = [node.name for node in nodes if any(a.name == "group" and a.i > 1 for a in node.attribute)]
    root, before = logging.getLogger(), logging.getLogger().level
    root.setLevel(logging.ERROR)  # it advises on the root logger
    how = {"weight_type": quantization.QuantType.QUInt8, "nodes_to_exclude": depthwise}  # signed ones are slower
    try:
        write_atomic(target, lambda beside: quantization.quantize_dynamic(source, beside, **how))
    finally:
        root.setLevel(before)
    return target


def open_file(path: str | Path, threads: int = 0) -> Run:
    """A function from images to features, of a file that `write` or `quantize` has written.

    Args:
        path: .onnx, run by onnxruntime, or .pt2, run by PyTorch (it is unpickled: open only files of your own).
        threads: of onnxruntime; 0 for as many as the machine has cores.

    Raises:
        InputError: no such file, one that cannot be read, or onnxruntime is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; write it with make export")
    try:
        if path.suffix == ".pt2":
            program = torch.export.load(path).module()
            return lambda pictures: _two([part.detach().numpy() for part in program(torch.from_numpy(pictures))])
        runtime = _need("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return lambda pictures: _two(session.run(None, {INPUT: pictures}))
    except InputError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: cannot be opened ({reason}); write it again with make export") from None


def _two(found: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return found[0], found[1] if len(found) > 1 else np.zeros((len(found[0]), 0, 0), np.float32)


def _need(package: str) -> Any:
    """An optional package, or an InputError that names it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        advice = "pip install onnx onnxscript onnxruntime"
        raise InputError(f"the package {package} is needed ({error}); install it: {advice}") from None
