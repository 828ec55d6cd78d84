"""Networks as files for other programs: equal to the network, and used without this library."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import exporting
import numpy as np
import onnx
import onnxruntime
import pytest
import tool
import torch

from alignedreid_lib import export
from alignedreid_lib.batches import images
from alignedreid_lib.datasets import open_dataset
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import features
from alignedreid_lib.export import writing
from alignedreid_lib.model import AlignedReID

ROOT = Path(__file__).resolve().parents[1]
SIZE = (64, 32)
OWN_SIZES = [
    (64, 32),
    (160, 64),
    (233, 97),
    (31, 301),
    (1, 1),
]  # of images; 233 x 97 is often halfway between two levels


def pictures():
    random = np.random.default_rng(0)
    return [torch.from_numpy(random.integers(0, 256, (3, *size), np.uint8)) for size in OWN_SIZES]


def calibrated(backbone):
    """A network of random weights whose batch norms have seen images: else its features are nearly 0."""
    network = AlignedReID(backbone, num_ids=3).train()
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    with torch.no_grad():
        network(images.normalize(torch.randint(0, 256, (16, 3, *SIZE), dtype=torch.uint8)))
    return network.eval()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A function that gives a network by its backbone's name and its ONNX file, each written once."""

    @functools.cache
    def write(backbone):
        torch.manual_seed(0)
        network = calibrated(backbone)
        path = tmp_path_factory.mktemp("export") / "model.onnx"
        return network, export.write(network, path, SIZE, facts={"preset": "none"})

    return write


@pytest.mark.arithmetic
@pytest.mark.parametrize("backbone", ["mobilenet_v2", "resnet50"])
def test_an_onnx_file_is_the_network(written, backbone):
    network, path = written(backbone)
    onnx.checker.check_model(str(path))
    run = export.open_file(path, threads=1)
    assert max(export.compare(network, run, pictures(), SIZE)) < 1e-4
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [(part.name, part.type) for part in session.get_inputs()] == [("images", "tensor(uint8)")]
    assert [part.name for part in session.get_outputs()] == ["global_features", "local_features"]
    record = json.loads(session.get_modelmeta().custom_metadata_map["alignedreid"])
    assert record == {"preset": "none", "height": 64, "width": 32, "backbone": network.backbone}
    assert network.fc is not None, "the network keeps its classifier"
    three = pictures()[2].permute(1, 2, 0).numpy()[[[0]] * 3].reshape(3, 1, 97, 3).repeat(50, 1)
    for together, alone in zip(run(three), run(three[1:2]), strict=True):
        assert len(together) == 3
        np.testing.assert_allclose(together[1], alone[0], rtol=1e-4, atol=1e-4)


def test_the_resize_of_a_file_rounds_as_the_library_s():
    """Also where a pixel is halfway between two grey levels, as half of those of 233 x 97 are."""
    inside = writing.SearchNetwork(AlignedReID(torch.nn.Conv2d(3, 4, 1)), (128, 64))
    for picture in pictures():
        found = inside._resized(picture.permute(1, 2, 0)[None])[0].permute(2, 0, 1)
        assert torch.equal(found.to(torch.uint8), images.resize(picture, (128, 64)))


BLOCKED = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "alignedreid_lib", "onnx"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Block())
"""


def test_the_page_s_script_searches_without_torch_and_this_library(written, tiny_data, tmp_path):
    network, model = written("mobilenet_v2")
    script = (ROOT / "notebooks" / "book" / "search_a_folder.py").read_text()
    assert (
        len(script.splitlines()) <= 24
        and "search_a_folder.py" in (ROOT / "notebooks/book/use_the_export.md").read_text()
    )
    dataset = open_dataset(tiny_data / "tiny", "test")
    query = dataset.paths[0]
    (tmp_path / "sitecustomize.py").write_text(BLOCKED)
    done = subprocess.run(
        [sys.executable, ROOT / "notebooks/book/search_a_folder.py", model, query.parent, query],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 10 and lines[0] == ["0.0000", query.name]
    every = sorted(query.parent.iterdir())
    batch = torch.stack([images.resize(images.decode(path), SIZE) for path in every])
    with torch.no_grad():
        known = network(images.normalize(batch)).global_features
    distances = (known - known[every.index(query)]).norm(dim=1)
    order = distances.argsort(stable=True)[:10]
    assert [name for _, name in lines] == [every[k].name for k in order]
    np.testing.assert_allclose([float(d) for d, _ in lines], distances[order], atol=2e-3 * float(distances.max()))
    blocked = subprocess.run(
        [sys.executable, "-c", "import torch"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert "torch is not installed here" in blocked.stderr, "the script could not have imported it"


def test_features_of_a_dataset_keep_its_order(written, tiny_data):
    network, path = written("mobilenet_v2")
    dataset = open_dataset(tiny_data / "tiny", "test")
    found = export.extract(export.open_file(path, 1), dataset, batch_size=5)
    wanted = features.extract(network, dataset, height=SIZE[0], width=SIZE[1], precision="float32")
    assert found.names == wanted.names and found.global_features.dtype == torch.float32
    for ours, theirs in (
        (found.global_features, wanted.global_features),
        (found.local_features, wanted.local_features),
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4 * float(theirs.abs().max()))


def test_eight_bits_are_smaller_and_leave_depthwise_convolutions(written, tmp_path):
    network, path = written("mobilenet_v2")
    small = export.quantize(path, tmp_path / "model_int8.onnx")
    assert small.stat().st_size < 0.45 * path.stat().st_size
    kinds = [node.op_type for node in onnx.load(small).graph.node]
    depthwise = sum(getattr(module, "groups", 1) > 1 for module in network.modules())
    assert kinds.count("Conv") == depthwise and kinds.count("ConvInteger") > 20
    assert [part.shape for part in export.open_file(small, 1)(np.zeros((2, 9, 9, 3), np.uint8))]


class Vectors(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, 8)

    def forward(self, pictures):
        return self.conv(pictures).relu().mean((2, 3))


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_a_network_without_a_map_has_one_output(tmp_path, kind):
    network = AlignedReID(Vectors()).eval()
    path = export.write(network, tmp_path / export.FORMATS[kind], SIZE, kind)
    run = export.open_file(path, 1)
    assert export.compare(network, run, pictures(), SIZE).global_features < 1e-5
    assert [part.shape for part in run(np.zeros((2, 9, 9, 3), np.uint8))] == [(2, 8), (2, 0, 0)]
    assert list(tmp_path.iterdir()) == [path], "nothing else is left"


class Stubborn(Vectors):
    def forward(self, pictures):
        return super().forward(pictures) * (1 if pictures.sum().item() > 0 else 2)


def test_what_cannot_be_exported_or_opened_is_one_line(tmp_path, monkeypatch):
    network = AlignedReID(Vectors()).eval()
    with pytest.raises(InputError, match="format 'tflite' is not known; give onnx, or torch"):
        export.write(network, tmp_path / "m", SIZE, "tflite")
    with pytest.raises(InputError, match=r"Stubborn cannot be exported .*; its forward has to be traceable") as raised:
        export.write(AlignedReID(Stubborn()).eval(), tmp_path / "m", SIZE)
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match=r"absent\.onnx: no such file; write it with make export"):
        export.open_file(tmp_path / "absent.onnx")
    for name in ("bad.onnx", "bad.pt2"):
        (tmp_path / name).write_bytes(b"hello")
        with pytest.raises(InputError, match=rf"{name}: cannot be opened .*; write it again") as raised:
            export.open_file(tmp_path / name)
        assert "\n" not in str(raised.value)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"the package onnxscript is needed .*pip install onnx onnxscript onnxruntime"):
        export.write(network, tmp_path / "m", SIZE)
    assert not (tmp_path / "m").exists()


@pytest.fixture
def small_run(tiny_data, tmp_path, monkeypatch):
    """A finished run of the preset `small` in an empty project."""
    monkeypatch.chdir(tmp_path)
    settings = {"data_root": str(tiny_data), "dataset": "tiny", "height": 64, "width": 32, "run_dir": "runs/small"}
    settings |= {"backbone": "resnet18.conv1", "weights": None}
    monkeypatch.setattr(exporting, "plan", lambda root, preset, overrides: ("06_training", settings | overrides))
    monkeypatch.setattr(exporting, "read_preset", lambda root, preset: type("Preset", (), {"defaults": {}}))
    (tmp_path / "runs" / "small").mkdir(parents=True)
    torch.save(AlignedReID("resnet18.conv1").state_dict(), tmp_path / "runs" / "small" / "weights.pth")
    return tmp_path


def test_make_export_writes_a_file_and_what_it_costs(small_run, capsys):
    exporting.run(small_run, "small", "torch", "", {})
    said = capsys.readouterr().out
    assert "runs/small/model.pt2: " in said and "largest difference to PyTorch on 12 images" in said
    record = json.loads((small_run / "runs/small/export_torch.json").read_text())
    assert max(record["largest_difference"].values()) < 1e-4 and record["preset"] == "small" and "commit" in record
    before, after = record["scores"]
    assert before["mean_ap_step"] == pytest.approx(after["mean_ap_step"], abs=0.1) and after["name"] == "model.pt2"


def test_make_export_keeps_no_file_that_differs(small_run, monkeypatch):
    monkeypatch.setattr(export, "compare", lambda *given: export.Parity(0.1, 0.0))
    with pytest.raises(ValueError, match=r"model\.pt2: differs from the network by more than 1e-04, and is not kept"):
        exporting.run(small_run, "small", "torch", "", {})
    assert sorted(path.name for path in (small_run / "runs/small").iterdir()) == ["weights.pth"]


def test_make_export_says_what_is_missing_in_one_line(small_run, capsys):
    with pytest.raises(ValueError, match="no format 'coreml'; there are: onnx, int8, torch"):
        exporting.run(small_run, "small", "coreml", "", {})
    (small_run / "runs/small/weights.pth").rename(small_run / "runs/small/weights_1.pth")
    with pytest.raises(ValueError, match=r"weights\.pth: no such weights; WEIGHTS=.*weights_1\.pth, or name a file"):
        exporting.run(small_run, "small", "onnx", "", {})
    with pytest.raises(SystemExit, match="no preset 'nothing'; there are: "):
        tool.main(["export", "nothing", "onnx", ""])
