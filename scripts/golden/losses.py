"""Makes crates/waylay/tests/golden/losses.json: UAA-GAN's losses, feature distances and mining by PyTorch.

Run from the repository's root: python scripts/golden/losses.py
Needs torch. Every case holds its inputs, the loss in float64 and its gradient in each input by autograd; a distance
is weighted by row and summed to become a loss. No value lies so near to a corner that a small step would cross it.
"""

import json
import math
from pathlib import Path

import torch
from torch.nn.functional import cosine_similarity, mse_loss, relu

OUT = Path("crates/waylay/tests/golden/losses.json")
torch.manual_seed(7)
torch.set_default_dtype(torch.float64)


def single(tensor):
    """Rounded to what a float32 holds, so that both sides compute from the same numbers."""
    return tensor.float().double()


def normal(*shape):
    return single(torch.randn(*shape))


def cosine(a, b):
    return 1 - cosine_similarity(a, b, dim=1)


def euclidean(a, b):
    return torch.linalg.vector_norm(a - b, dim=1)


def lsgan_generator(logits):
    return mse_loss(logits, torch.ones_like(logits))


def lsgan_discriminator(clean, perturbed):
    return mse_loss(clean, torch.ones_like(clean)) + mse_loss(perturbed, torch.zeros_like(perturbed))


def reconstruction(x, perturbed):
    return torch.linalg.vector_norm((perturbed - x).flatten(1), dim=1).mean()


def feature_similarity(clean_1, clean_2, perturbed_1, perturbed_2):
    pairs = [(clean_1, perturbed_1), (clean_2, perturbed_2)]
    return sum(cosine_similarity(a.flatten(1), b.flatten(1), dim=1).mean() for a, b in pairs) / len(pairs)


def case(name, loss, *inputs, **facts):
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    value = loss(*leaves)
    value.backward()
    arrays = [
        {"shape": list(x.shape), "values": x.detach().flatten().tolist(), "gradient": x.grad.flatten().tolist()}
        for x in leaves
    ]
    return {"loss": name, "value": value.item(), "inputs": arrays, **facts}


def over_batch(losses, sharpness):
    if sharpness == 0:
        return losses.mean()
    return (torch.logsumexp(sharpness * losses, 0) - math.log(len(losses))) / sharpness


def triplet_case(count, margin, sharpness):
    other, perturbed = single(2 * torch.rand(count)), single(2 * torch.rand(count))
    near = (other + margin - perturbed).abs() < 0.05
    perturbed = single(torch.where(near, perturbed + 0.3, perturbed))
    hinge = other + margin - perturbed
    assert hinge.abs().min() > 0.04
    loss = lambda o, p: over_batch(relu(o + margin - p), sharpness)
    case_ = case("triplet", loss, other, perturbed, margin=margin, sharpness=sharpness)
    return case_, (hinge < 0).sum().item()


cases = []
for shape in [(4, 1), (3, 9)]:
    cases.append(case("lsgan_generator", lsgan_generator, normal(*shape)))
    cases.append(case("lsgan_discriminator", lsgan_discriminator, normal(*shape), normal(*shape)))
for shape in [(1, 1, 4, 5), (3, 3, 5, 4)]:
    x = single(torch.rand(*shape))
    change = single((x + 8 / 255 * torch.randn(*shape)).clamp(0, 1))
    cases.append(case("reconstruction", reconstruction, x, change))
silent = 0
for margin, sharpness in [(0.0, 0.0), (0.25, 0.0), (2.0, 0.0), (0.25, 5.0), (2.0, 1.0)]:
    made, quiet = triplet_case(12, margin, sharpness)
    silent += quiet
    cases.append(made)
assert silent > 3, "some triplets must be silent"
for name, distance in [("cosine", cosine), ("euclidean", euclidean)]:
    for scale in [1.0, 30.0]:
        a, b = single(scale * normal(5, 7)), single(scale * normal(5, 7))
        weights = single(torch.linspace(0.5, 1.5, 5))
        rows = distance(a, b).tolist()
        loss = lambda a, b: (weights * distance(a, b)).sum()
        cases.append(case(name, loss, a, b, weights=weights.tolist(), rows=rows))

mining = []
for name in ["cosine", "euclidean"]:
    points = normal(9, 6)
    units = points / torch.linalg.vector_norm(points, dim=1, keepdim=True)
    matrix = 1 - units @ units.T if name == "cosine" else torch.cdist(points, points)
    own = torch.eye(len(points), dtype=torch.bool)
    mining.append({
        "metric": name,
        "dim": points.shape[1],
        "embeddings": points.flatten().tolist(),
        "distances": matrix.tolist(),
        "farthest": matrix.masked_fill(own, -torch.inf).max(1).values.tolist(),
        "nearest": matrix.masked_fill(own, torch.inf).min(1).values.tolist(),
    })

# Last, so that the numbers above stay what they were: two maps of unequal size, clean and perturbed.
maps = [normal(3, 2, 4, 5), normal(3, 6, 2, 2)]
cases.append(case("feature_similarity", feature_similarity, *maps, *(single(x + 0.7 * normal(*x.shape)) for x in maps)))

OUT.write_text(json.dumps({"cases": cases, "mining": mining}, indent=None, separators=(",", ":")) + "\n")
print(f"{OUT}: {len(cases)} losses, {len(mining)} sets to mine, {OUT.stat().st_size} bytes")
