"""Makes crates/waylay/assets/sample/*.idx.gz, the embedded slice of Fashion-MNIST, from the four original files.

Run from the root of the repository, with nothing but Python 3:

    apt-get download dataset-fashion-mnist
    dpkg-deb -x dataset-fashion-mnist_*.deb fashion-mnist
    python3 scripts/make_sample.py fashion-mnist/usr/share/datasets/fashion-mnist crates/waylay/assets/sample

Which images: always the first of a class by their index in the original file, kept in the order of that file.
No class is both trained on and queried.
"""

import gzip
import struct
import sys
from pathlib import Path

TRAIN_CLASSES = (0, 2, 3, 4, 5, 6)  # t-shirt, pullover, dress, coat, sandal, shirt
QUERY_CLASSES = (1, 7, 8, 9)  # trouser, sneaker, bag, ankle boot
TRAIN_PER_CLASS = 300
QUERY_PER_CLASS = 25
GALLERY_PER_CLASS = 100


def read(folder, name):
    labels = gzip.decompress((folder / f"{name}-labels-idx1-ubyte.gz").read_bytes())
    images = gzip.decompress((folder / f"{name}-images-idx3-ubyte.gz").read_bytes())
    magic, count, height, width = struct.unpack(">IIII", images[:16])
    assert magic == 0x803 and struct.unpack(">II", labels[:8]) == (0x801, count)
    area = height * width
    return [(labels[8 + i], images[16 + i * area : 16 + (i + 1) * area]) for i in range(count)]


def first(rows, classes, count, skip=lambda label: 0):
    """The images `skip(label)` to `skip(label) + count` of each class, in file order."""
    seen, taken = dict.fromkeys(classes, 0), []
    for label, pixels in rows:
        if label in seen:
            if skip(label) <= seen[label] < skip(label) + count:
                taken.append((label, pixels))
            seen[label] += 1
    return taken


def write(folder, name, rows):
    images = struct.pack(">IIII", 0x803, len(rows), 28, 28) + b"".join(pixels for _, pixels in rows)
    labels = struct.pack(">II", 0x801, len(rows)) + bytes(label for label, _ in rows)
    for kind, data in (("images", images), ("labels", labels)):
        (folder / f"{name}-{kind}.idx.gz").write_bytes(gzip.compress(data, 9, mtime=0))


def main(originals, out):
    train, test = read(originals, "train"), read(originals, "t10k")
    out.mkdir(parents=True, exist_ok=True)
    write(out, "train", first(train, TRAIN_CLASSES, TRAIN_PER_CLASS))
    write(out, "query", first(test, QUERY_CLASSES, QUERY_PER_CLASS))
    behind_queries = lambda label: QUERY_PER_CLASS if label in QUERY_CLASSES else 0
    write(out, "gallery", first(test, range(10), GALLERY_PER_CLASS, behind_queries))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
