"""Makes crates/waylay/tests/golden/quality/pairs.json: image quality of 8-bit pairs by scikit-image.

Run from the repository's root: python scripts/golden/quality.py
Needs numpy and scikit-image. Pixels are stored as 0..255, channels first.
"""

import json
from pathlib import Path

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

OUT = Path("crates/waylay/tests/golden/quality/pairs.json")
rng = np.random.default_rng(11)


def picture(channels, height, width):
    """Waves, a flat bright corner and a flat dark one: SSIM is hardest to get right where nothing varies."""
    y, x = np.mgrid[0:height, 0:width]
    planes = []
    for c in range(channels):
        plane = 127 + 90 * np.sin(x / (2.0 + c) + c) * np.cos(y / 3.0) + rng.normal(0, 6, (height, width))
        plane[: height // 2, : width // 2] = 250 - c
        plane[height // 2 :, width // 2 :] = 3 + c
        planes.append(plane)
    return np.clip(np.round(planes), 0, 255).astype(np.uint8)


def pair(channels, height, width, change):
    clean = picture(channels, height, width)
    noise = {
        "signs": 8 * rng.choice([-1, 1], clean.shape),
        "sparse": 120 * (rng.random(clean.shape) < 0.03),
        "inverted": 255 - 2 * clean.astype(int),
    }[change]
    adversarial = np.clip(clean.astype(int) + noise, 0, 255).astype(np.uint8)
    a, b = clean / 255.0, adversarial / 255.0
    return {
        "size": [channels, height, width],
        "clean": clean.ravel().tolist(),
        "adversarial": adversarial.ravel().tolist(),
        "linf_255": float(np.abs(a - b).max() * 255),
        "l2": float(np.linalg.norm(a - b)),
        "psnr_db": float(peak_signal_noise_ratio(a, b, data_range=1)),
        "ssim": float(
            structural_similarity(
                a, b, data_range=1, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
            )
        ),
    }


golden = [
    pair(1, 24, 37, "signs"),
    pair(1, 40, 40, "sparse"),
    pair(1, 11, 11, "signs"),
    pair(3, 32, 32, "signs"),
    pair(3, 28, 45, "sparse"),
    pair(3, 20, 12, "inverted"),
]
OUT.parent.mkdir(parents=True, exist_ok=True)
OUT.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
for p in golden:
    print(p["size"], {k: p[k] for k in ("linf_255", "l2", "psnr_db", "ssim")})
