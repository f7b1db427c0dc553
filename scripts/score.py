"""Scores adversarial images without waylay: onnxruntime, Pillow, numpy and scikit-image.

    waylay attack --attack pgd --target A.onnx --images QUERY --out FOLDER
    python scripts/score.py --model A.onnx --query QUERY --gallery GALLERY --attacked FOLDER ...
    python scripts/score.py --model B.onnx --query QUERY --gallery GALLERY --attacked FOLDER ...  # a network not attacked

QUERY and GALLERY hold one folder per identity; every FOLDER holds the attacked queries as PNG under the same names, at the input
size of the attacked network. Prints one row without attack and one per folder: rank-1 and mAP by cosine, the means over the
images of PSNR and SSIM, and the largest change of a pixel. Whatever is embedded is resized to the model's input, and the clean
image to the size of the PNG it is compared with, by Pillow's bilinear filter, to which waylay's agrees to one step of a byte.
The preprocessing is `--preprocess`, a preset or a file, or else `MODEL.toml` beside the model.
"""

import argparse
import pathlib
import tomllib

import numpy
import onnxruntime
from PIL import Image
from skimage.metrics import structural_similarity

PRESETS = {
    "imagenet": dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    "arcface": dict(scale=255.0, mean=127.5, std=128.0),
    "zero-to-one": {},
    "minus-one-to-one": dict(scale=2.0, mean=1.0),
    "raw-255": dict(scale=255.0),
    "none": {},
}
KEYS = {"preset", "name", "size", "channels", "scale", "mean", "std"}
KINDS = {".png", ".jpg", ".jpeg", ".pgm", ".ppm", ".bmp", ".webp", ".tif", ".tiff", ".gif"}
BATCH = 32


def preprocessing(given):
    """The settings of a preset, or of a file as waylay reads it."""
    if given in PRESETS:
        return PRESETS[given]
    described = tomllib.loads(pathlib.Path(given).read_text())
    if unknown := described.keys() - KEYS:
        raise SystemExit(f"error: {given}: {', '.join(unknown)}: not supported here")
    return PRESETS[described.get("preset", "none")] | described


class Model:
    """An embedding network with its preprocessing."""

    def __init__(self, path, how, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.input, self.how = self.session.get_inputs()[0], how
        batch, self.channels, *size = self.input.shape
        self.size = tuple(how["size"] if "size" in how else size)[::-1]  # width, height
        self.batch = batch if isinstance(batch, int) else BATCH
        if not all(isinstance(side, int) for side in self.size):
            raise SystemExit(f"error: {path} leaves its input size open; give `size` in the preprocessing file")

    def take(self, path):
        """The image in `path` as the network takes it."""
        mean, std = (numpy.float32(self.how.get(key) or default) for key, default in (("mean", 0), ("std", 1)))
        x = pixels(path, self.size, "L" if self.channels == 1 else "RGB")
        x = x.reshape(*x.shape[:2], self.channels)
        x = x[..., ::-1] if self.how.get("channels") == "bgr" else x
        return ((x.astype("f") / 255 * numpy.float32(self.how.get("scale", 1)) - mean) / std).transpose(2, 0, 1)

    def embed(self, paths):
        """Unit embeddings, one row per file."""
        rows = []
        for start in range(0, len(paths), self.batch):
            x = numpy.stack([self.take(path) for path in paths[start : start + self.batch]])
            rows.append(self.session.run(None, {self.input.name: x})[0].reshape(len(x), -1))
        rows = numpy.concatenate(rows)
        return rows / numpy.linalg.norm(rows, axis=1, keepdims=True)


def pixels(path, size, mode="RGB"):
    image = Image.open(path).convert(mode)
    return numpy.asarray(image if image.size == size else image.resize(size, Image.BILINEAR))


def listed(folder):
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in KINDS)


def identities(paths, folder):
    return numpy.array([path.relative_to(folder).parts[0] for path in paths])


def scores(similarity, relevant):
    """Rank-1 and mAP of rows of similarities; `relevant` says which columns match."""
    first, precision = [], []
    for row, right in zip(similarity, relevant):
        right = right[numpy.argsort(-row, kind="stable")]
        places = numpy.nonzero(right)[0]
        first.append(right[0])
        precision.append(numpy.mean(numpy.arange(1, len(places) + 1) / (places + 1)))
    return numpy.mean(first), numpy.mean(precision)


def quality(clean, attacked):
    """Means of PSNR and SSIM, and the largest change."""
    psnr, ssim, largest = [], [], 0
    for before, after in zip(clean, attacked):
        y = numpy.asarray(Image.open(after).convert("RGB"))
        x = pixels(before, y.shape[1::-1])
        change = x.astype("i2") - y
        psnr.append(10 * numpy.log10(255**2 / numpy.mean(change.astype(float) ** 2)) if change.any() else numpy.inf)
        similar = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=2, data_range=255)
        ssim.append(structural_similarity(x, y, **similar))
        largest = max(largest, int(numpy.abs(change).max()))
    return f"{numpy.mean(psnr):.2f} | {numpy.mean(ssim):.4f} | {largest}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "query", "gallery"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--preprocess", help="a preset or a TOML file; default: MODEL.toml beside the model")
    parser.add_argument("--attacked", type=pathlib.Path, nargs="*", default=[], metavar="FOLDER")
    parser.add_argument("--skip-quality", action="store_true", help="leave out PSNR, SSIM and the largest change")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("folders", type=pathlib.Path, nargs="*", metavar="FOLDER", help="the same as --attacked")
    args = parser.parse_intermixed_args()
    model = Model(args.model, preprocessing(args.preprocess or args.model.with_suffix(".toml")), args.threads)
    query, gallery = listed(args.query), listed(args.gallery)
    relevant = identities(query, args.query)[:, None] == identities(gallery, args.gallery)[None]
    if not relevant.any(1).all():
        raise SystemExit(f"error: no match in {args.gallery} for {query[int(relevant.any(1).argmin())]}")
    known = model.embed(gallery)
    print("| attack | rank-1 % | mAP % |" + ("" if args.skip_quality else " PSNR dB | SSIM | largest change |"))
    print("|---|---|---|" + ("" if args.skip_quality else "---|---|---|"))
    for folder in [None, *args.attacked, *args.folders]:
        files = [folder / path.relative_to(args.query).with_suffix(".png") for path in query] if folder else query
        rank1, mean_ap = scores(model.embed(files) @ known.T, relevant)
        row = f"| {folder.name if folder else 'none'} | {100 * rank1:.1f} | {100 * mean_ap:.1f} |"
        if not args.skip_quality:
            row += f" {quality(query, files)} |" if folder else " | | |"
        print(row, flush=True)


if __name__ == "__main__":
    main()
