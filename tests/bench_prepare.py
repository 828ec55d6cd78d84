"""How fast a Market-sized archive is prepared, and in how much memory.

    python tests/bench_prepare.py [PICTURES]

makes an archive of 36 000 small JPEGs (about 3 kB each) in a temporary folder, prepares it, and prints images/s and
the peak memory, beside a floor measured in the same process: the same zip unpacked by a plain loop, nothing checked.
"""

import io
import resource
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from alignedreid_lib.datasets import open_dataset, prepare


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


def main(pictures: int = 36_000) -> None:
    """Run and print."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_archive(root / "market.zip", pictures)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start, start_cpu = time.perf_counter(), time.process_time()
        target = prepare("market1501", root / "market.zip", root, num_val_ids=0)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
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
    print(f"memory:  {before / 1e3:.0f} MB before, {peak / 1e3:.0f} MB at the peak")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
