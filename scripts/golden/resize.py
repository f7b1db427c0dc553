"""Makes crates/waylay/tests/golden/resize.json: resizing and gray of RGB by Pillow, crops by torchvision.

Run from the root of the repository: python scripts/golden/resize.py (needs pillow, numpy, torchvision).
"""

import json

import numpy as np
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

CASES = [  # from (width, height) to (width, height)
    ((92, 112), (28, 28)), ((33, 47), (17, 19)), ((17, 19), (33, 47)), ((28, 28), (56, 61)),
    ((40, 20), (20, 40)), ((31, 31), (30, 32)), ((101, 16), (16, 16)), ((16, 101), (16, 16)),
    ((64, 48), (1, 1)), ((16, 16), (16, 37)), ((200, 150), (23, 17)), ((19, 23), (3, 5)),
]


def picture(width, height, channels):
    i = np.arange(width * height * channels, dtype=np.int64)
    values = ((i * i * 31 + i * 97) // 13 % 256).astype(np.uint8)
    return Image.fromarray(values.reshape((height, width, channels) if channels == 3 else (height, width)))


CROPS = [  # from (width, height), shorter side, crop (width, height)
    ((92, 112), 32, (28, 28)), ((47, 33), 24, (24, 24)), ((33, 47), 21, (20, 21)), ((64, 64), 20, (17, 13)),
    ((101, 37), 16, (16, 16)), ((19, 23), 40, (37, 35)),
]
FILTERS = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}


def cropped(source, channels, side, size, name):
    resize = transforms.Resize(side, getattr(InterpolationMode, name.upper()))
    image = transforms.CenterCrop(size[::-1])(resize(picture(*source, channels)))
    assert image.size == size
    return np.asarray(image).ravel().tolist()


resized = [
    {"from": [*source, channels], "to": target, "interpolation": name,
     "bytes": np.asarray(picture(*source, channels).resize(target, pillow)).ravel().tolist()}
    for source, target in CASES for channels in (1, 3) for name, pillow in FILTERS.items()
]
crops = [
    {"from": [*source, channels], "shorter_side": side, "crop": size, "interpolation": name,
     "bytes": cropped(source, channels, side, size, name)}
    for source, side, size in CROPS for channels in (1, 3) for name in FILTERS
]
luma = np.asarray(picture(37, 21, 3).convert("L")).ravel().tolist()
with open("crates/waylay/tests/golden/resize.json", "w") as file:
    json.dump({"luma": luma, "resized": resized, "cropped": crops}, file, separators=(",", ":"))
    file.write("\n")
