"""Scores adversarial ORL faces without waylay: onnxruntime, Pillow and numpy.

    waylay attack --generator G/generator.safetensors --target MODEL --images PEOPLE_21_TO_40 --out ADVERSARIAL
    python scripts/score_faces.py MODEL ORL ADVERSARIAL ...

MODEL is `fr_feature.onnx` and ORL the folder of `s1` to `s40` that `waylay fetch faces` brings; every ADVERSARIAL holds
`s21/1.png` to `s40/10.png`. Prints rank-1 and mAP by cosine twice: of the 40 queries 1 and 2 of each person against everything
that is no query, and of all 200 images, each against all others; and PSNR and the largest change of a pixel, to which resizing
by Pillow may add one step.
"""

import pathlib
import sys

import numpy
import onnxruntime
from PIL import Image

PEOPLE, IMAGES, FIRST, QUERIES = 40, 10, 21, 2


def pixels(path):
    image = Image.open(path).convert("RGB")
    return numpy.asarray(image if image.size == (112, 112) else image.resize((112, 112), Image.BILINEAR), numpy.int16)


def embed(session, images):
    name = session.get_inputs()[0].name
    rows = [session.run(None, {name: ((i.astype("f") - 127.5) / 128).transpose(2, 0, 1)[None]})[0][0] for i in images]
    return numpy.stack(rows) / numpy.linalg.norm(rows, axis=1, keepdims=True)


def precision(similarity, relevant):
    """Average precision, and whether the first is right."""
    right = relevant[numpy.argsort(-similarity, kind="stable")]
    places = numpy.nonzero(right)[0]
    return numpy.mean(numpy.arange(1, len(places) + 1) / (places + 1)), right[0]


def main():
    model, orl, *folders = map(pathlib.Path, sys.argv[1:])
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    keys = [(person, image) for person in range(1, PEOPLE + 1) for image in range(1, IMAGES + 1)]
    people = numpy.array([person for person, _ in keys])
    query = numpy.array([person >= FIRST and image <= QUERIES for person, image in keys])
    clean = {key: pixels(orl / f"s{key[0]}" / f"{key[1]}.pgm") for key in keys}
    gallery = embed(session, clean.values())
    print("| folder | rank-1 % | mAP % | rank-1 %, 200 queries | mAP %, 200 queries | PSNR dB | largest change |")
    print("|---|---|---|---|---|---|---|")
    for folder in folders:
        chosen = [i for i, (person, _) in enumerate(keys) if person >= FIRST]
        attacked = [pixels(folder / f"s{keys[i][0]}" / f"{keys[i][1]}.png") for i in chosen]
        few, all_others, psnr, change = [], [], [], 0
        for i, row, image in zip(chosen, embed(session, attacked), attacked):
            similarity, others = gallery @ row, numpy.arange(len(keys)) != i
            all_others.append(precision(similarity[others], people[others] == people[i]))
            if query[i]:
                few.append(precision(similarity[~query], people[~query] == people[i]))
            difference = image - clean[keys[i]]
            psnr.append(10 * numpy.log10(255**2 / numpy.mean(difference.astype(float) ** 2)))
            change = max(change, int(numpy.abs(difference).max()))
        (map_few, rank_few), (map_all, rank_all) = numpy.mean(few, 0), numpy.mean(all_others, 0)
        print(f"| {folder.name} | {rank_few:.1%} | {map_few:.2%} | {rank_all:.1%} | {map_all:.2%} | {numpy.mean(psnr):.2f} | {change} |"
              .replace("%", ""))


if __name__ == "__main__":
    main()
