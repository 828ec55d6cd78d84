"""How fast archives of full size are prepared, and in how much memory.

    python tests/bench_prepare.py [PICTURES]

makes an archive of 36 000 small JPEGs (about 3 kB each) in a temporary folder, prepares it, and prints images/s beside
a floor measured in the same process: the same zip unpacked by a plain loop, nothing checked.
Then a CUHK03 release of the real one's shape, 28 192 pictures in a MATLAB file of 1.7 GB, in a process of its own (a
peak of memory is the process's).
"""

import io
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from timing import record

from alignedreid_lib.datasets import cuhk03_split, open_dataset, prepare
from alignedreid_lib.datasets.partitions import format_name


def make_jpegs(count: int) -> list[bytes]:
    """`count` different noisy pictures of 64 x 128, about 3 kB each."""
    random = np.random.default_rng(0)
    jpegs = []
    for _ in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (16, 8, 3), dtype=np.uint8)).resize((64, 128))
        noise = random.normal(0, 8, (128, 64, 3))
        buffer = io.BytesIO()
        Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
        jpegs.append(buffer.getvalue())
    return jpegs


def make_archive(path: Path, pictures: int) -> None:
    """A Market-1501 archive of `pictures` pictures, a quarter in each folder."""
    jpegs = make_jpegs(100)
    print(f"{pictures} JPEGs of {np.mean([len(jpeg) for jpeg in jpegs]) / 1e3:.1f} kB")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for index in range(pictures):
            folder = ("bounding_box_train", "bounding_box_test", "query", "gt_bbox")[index % 4]
            person, camera = 1 + index // 24, 1 + index // 4 % 6
            name = f"{person:04d}_c{camera}s1_{index:06d}_00.jpg"
            archive.writestr(f"Market-1501-v15.09.15/{folder}/{name}", jpegs[index % len(jpegs)])


def make_cuhk03(path: Path) -> int:
    """A CUHK03 release in which every cell that the new protocol names holds a picture of 60 kB; how many there are."""
    reference = h5py.special_dtype(ref=h5py.Reference)
    named = {
        kind: {n for names in lists.values() for n in names} for kind, lists in cuhk03_split.new_protocol().items()
    }
    coarse = np.random.default_rng(0).integers(0, 256, (50, 3, 10, 20), dtype=np.uint8)
    tiles = coarse.repeat(10, axis=2).repeat(10, axis=3)  # [50, 3, 100, 200]: stored transposed
    mat_path = path.with_suffix(".mat")
    count = 0
    with h5py.File(mat_path, "w", userblock_size=512) as mat:
        store = mat.create_group("#refs#")
        absent = store.create_dataset("absent", data=np.zeros(2, np.uint64))
        absent.attrs["MATLAB_empty"] = np.uint8(1)
        for kind in cuhk03_split.KINDS:
            top = mat.create_dataset(kind, (1, len(cuhk03_split.PERSONS)), reference)
            first = 0
            for pair, persons in enumerate(cuhk03_split.PERSONS):
                cells = np.empty((10, persons), reference)
                for (place, person), _ in np.ndenumerate(cells):
                    there = format_name(first + person, place // 5, place % 5) in named[kind]
                    cells[place, person] = absent.ref
                    if there:
                        cells[place, person] = store.create_dataset(f"p{count}", data=tiles[count % 50]).ref
                        count += 1
                first += persons
                top[0, pair] = store.create_dataset(f"{kind}{pair}", data=cells, dtype=reference).ref
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.write(mat_path, "cuhk03_release/cuhk-03.mat")
    print(f"\nCUHK03: {count} images in a MATLAB file of {mat_path.stat().st_size / 1e9:.2f} GB")
    mat_path.unlink()
    return count


CHILD = """
import re, sys, time
from alignedreid_lib.datasets import prepare
start = time.perf_counter()
prepare("cuhk03", sys.argv[1], sys.argv[2])
seconds = time.perf_counter() - start
print(seconds, int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024 / 1e6)
"""


def bench_cuhk03() -> None:
    """Prepare a release of full size, and print."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cuhk03_release.zip"
        count = make_cuhk03(path)
        command = [sys.executable, "-c", CHILD, str(path), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, peak = map(float, done.stdout.split())
    more = {"megabytes": peak, "images_per_second": count / seconds}
    record("preparing", f"{count} images of a CUHK03 release of 1.7 GB", seconds, **more)
    print(f"prepare: {seconds:.1f} s, {count / seconds:.0f} images/s, {peak:.0f} MB at the peak (at most 700)")


def main(pictures: int = 36_000) -> None:
    """Run and print."""
    bench_market1501(pictures)
    bench_cuhk03()


def bench_market1501(pictures: int) -> None:
    """Prepare an archive of many small JPEGs, and print."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_archive(root / "market.zip", pictures)
        start, start_cpu = time.perf_counter(), time.process_time()
        target = prepare("market1501", root / "market.zip", root, num_val_ids=0)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
        written = sum(1 for _ in (target / "images").iterdir())
        listed = sum(len(open_dataset(target, part)) for part in ("trainval", "test"))

        start = time.perf_counter()
        with zipfile.ZipFile(root / "market.zip") as archive:
            (root / "floor").mkdir()
            for number, entry in enumerate(archive.infolist()):
                (root / "floor" / f"{number}.jpg").write_bytes(archive.read(entry))
        floor = time.perf_counter() - start
    speed, floor_speed = written / seconds, pictures / floor
    print(f"prepare: {written} pictures written, {listed} listed, {seconds:.1f} s, {speed:.0f} images/s")
    print(f"         {written / cpu_seconds:.0f} images/s of processor time: on a busy machine this is the one to read")
    print(f"floor:   a plain unzip loop, {floor_speed:.0f} images/s; ratio {speed / floor_speed:.2f}")
    what = f"{written} JPEGs of a Market-1501 archive"
    more = {"images_per_second": speed}
    ratio = floor_speed / speed
    record("preparing", what, seconds, floor * written / pictures, "a plain unzip loop", ratio=ratio, **more)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
