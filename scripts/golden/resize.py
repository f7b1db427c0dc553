"""Makes crates/waylay/tests/golden/resize.json: bilinear resizing and gray of RGB by Pillow.

Run from the root of the repository: python scripts/golden/resize.py (needs pillow, numpy).
"""

import json

import numpy as np
from PIL import Image

CASES = [  # from (width, height) to (width, height)
    ((92, 112), (28, 28)), ((33, 47), (17, 19)), ((17, 19), (33, 47)), ((28, 28), (56, 61)),
    ((40, 20), (20, 40)), ((31, 31), (30, 32)), ((101, 16), (16, 16)), ((16, 101), (16, 16)),
    ((64, 48), (1, 1)), ((16, 16), (16, 37)), ((200, 150), (23, 17)), ((19, 23), (3, 5)),
]


def picture(width, height, channels):
    i = np.arange(width * height * channels, dtype=np.int64)
    values = ((i * i * 31 + i * 97) // 13 % 256).astype(np.uint8)
    return Image.fromarray(values.reshape((height, width, channels) if channels == 3 else (height, width)))


resized = [
    {"from": [*source, channels], "to": target,
     "bytes": np.asarray(picture(*source, channels).resize(target, Image.BILINEAR)).ravel().tolist()}
    for source, target in CASES for channels in (1, 3)
]
luma = np.asarray(picture(37, 21, 3).convert("L")).ravel().tolist()
with open("crates/waylay/tests/golden/resize.json", "w") as file:
    json.dump({"luma": luma, "resized": resized}, file, separators=(",", ":"))
    file.write("\n")
