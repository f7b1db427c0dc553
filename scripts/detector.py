"""How well a detector tells attacked images from clean ones: AUC of a small network trained on other images.

    waylay attack --generator G/generator.safetensors --target MODEL --images IMAGES --out ADVERSARIAL
    waylay attack --attack noise --epsilon 0.4 --target MODEL --images IMAGES --out CLEAN
    python scripts/detector.py [--jpeg QUALITY] CLEAN ADVERSARIAL ...

A budget below 1/255 changes nothing, so that CLEAN takes the same way through decoding, resizing and saving as ADVERSARIAL.
CLEAN and every ADVERSARIAL hold one folder per identity with the same names. For each ADVERSARIAL a network of four strided
convolutions (batch norm, ReLU; mean over the map; one logit; Adam at 1e-3, 30 epochs of flipped batches of 32) learns on the first
half of the identities, and the area under the ROC curve is measured on the other half, median of three seeds. 0.5: it
tells nothing; 1: it tells every attacked image. A detector that knows the generator is the strongest case for the defender.
With --jpeg, all images are compressed first, to be learnt from and to be told apart: a harder question.
Needs torch, numpy, Pillow and scikit-learn.
"""

import argparse
import io
import pathlib
import statistics

import numpy
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

EPOCHS, BATCH, SEEDS, WIDTHS = 30, 32, 3, (3, 16, 32, 64, 64)
KINDS = {".png", ".jpg", ".jpeg", ".pgm", ".ppm", ".bmp", ".webp"}


def opened(path, jpeg):
    picture = Image.open(path).convert("RGB")
    if jpeg is None:
        return picture
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=jpeg)
    return Image.open(file).convert("RGB")


def images(folder, names, size, jpeg):
    pictures = (opened(folder / name, jpeg) for name in names)
    pictures = [picture if picture.size == size else picture.resize(size, Image.BILINEAR) for picture in pictures]
    return torch.tensor(numpy.stack([numpy.asarray(p, "f") for p in pictures])).permute(0, 3, 1, 2) / 127.5 - 1


def network():
    layers = []
    for inputs, outputs in zip(WIDTHS, WIDTHS[1:]):
        layers += [torch.nn.Conv2d(inputs, outputs, 3, 2, 1), torch.nn.BatchNorm2d(outputs), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(WIDTHS[-1], 1))


def auc(train, test, seed):
    """The AUC on `test` of a detector trained on `train`; both are pairs of clean and attacked images."""
    torch.manual_seed(seed)
    x = torch.cat(train)
    y = torch.cat([torch.zeros(len(train[0])), torch.ones(len(train[1]))])
    detector = network()
    optimiser = torch.optim.Adam(detector.parameters(), 1e-3)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(x)).split(BATCH):
            batch = x[chosen].flip(3) if torch.rand(()) < 0.5 else x[chosen]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(detector(batch)[:, 0], y[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    detector.eval()
    with torch.no_grad():
        scores = torch.cat([detector(images)[:, 0] for images in test])
    return roc_auc_score([0] * len(test[0]) + [1] * len(test[1]), scores)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clean", type=pathlib.Path, metavar="CLEAN")
    parser.add_argument("folders", type=pathlib.Path, nargs="+", metavar="ADVERSARIAL")
    parser.add_argument("--jpeg", type=int, metavar="QUALITY", help="compress all images first")
    args = parser.parse_intermixed_args()
    clean, folders = args.clean, args.folders
    names = sorted(path.relative_to(clean) for path in clean.rglob("*") if path.suffix.lower() in KINDS)
    people = sorted({name.parts[0] for name in names})
    learnt = set(people[: len(people) // 2])
    size = Image.open(folders[0] / names[0].with_suffix(".png")).size
    print("| folder | AUC |\n|---|---|")
    for folder in folders:
        pairs = []
        for chosen in (True, False):
            part = [name for name in names if (name.parts[0] in learnt) == chosen]
            attacked = [name.with_suffix(".png") for name in part]
            pairs.append((images(clean, part, size, args.jpeg), images(folder, attacked, size, args.jpeg)))
        print(f"| {folder.name} | {statistics.median(auc(*pairs, seed) for seed in range(SEEDS)):.3f} |", flush=True)


if __name__ == "__main__":
    main()
