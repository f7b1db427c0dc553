"""Makes crates/waylay/tests/golden/retrieval/random.json: metrics and rankings of random embeddings.

Run from the repository's root: python scripts/golden/retrieval.py
Needs numpy, scikit-learn (average precision) and faiss (search). Rank-k, recall, mINP and the camera rule are written
out plainly here, after torchreid's evaluate_rank.
"""

import json
from pathlib import Path

import faiss
import numpy as np
from sklearn.metrics import average_precision_score

OUT = Path("crates/waylay/tests/golden/retrieval/random.json")
QUERIES, GALLERY, DIM, IDENTITIES, CAMERAS = 40, 200, 32, 24, 3

rng = np.random.default_rng(7)
centres = rng.normal(size=(IDENTITIES + 3, DIM))
# The last three identities are asked for but not in the gallery; the numbers are rounded to keep the file small.
query_ids = np.concatenate([rng.integers(0, IDENTITIES, QUERIES - 3), np.arange(IDENTITIES, IDENTITIES + 3)])
gallery_ids = rng.integers(0, IDENTITIES, GALLERY)
lengths = rng.uniform(0.5, 2.0, size=(QUERIES + GALLERY, 1))
values = centres[np.concatenate([query_ids, gallery_ids])] + 1.7 * rng.normal(size=(QUERIES + GALLERY, DIM))
values = np.round(values * lengths, 4).astype(np.float32)
queries, gallery = values[:QUERIES], values[QUERIES:]
query_cameras = [None if i % 11 == 5 else int(rng.integers(CAMERAS)) for i in range(QUERIES)]
gallery_cameras = [None if i % 17 == 5 else int(rng.integers(CAMERAS)) for i in range(GALLERY)]


def all_distances(metric):
    q, g = queries.astype(np.float64), gallery.astype(np.float64)
    if metric == "cosine":
        q, g = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, g))
        return 1 - q @ g.T
    return np.linalg.norm(q[:, None] - g[None], axis=2)


def nearest(metric, k=10):
    q, g = queries.copy(), gallery.copy()
    if metric == "cosine":
        faiss.normalize_L2(q)
        faiss.normalize_L2(g)
    index = faiss.IndexFlatIP(DIM) if metric == "cosine" else faiss.IndexFlatL2(DIM)
    index.add(g)
    return index.search(q, k)[1]


def case(metric, cameras):
    distances = all_distances(metric)
    aps, firsts, inps, recalls = [], [], [], {k: [] for k in (1, 5, 10, 100)}
    for i in range(QUERIES):
        same = gallery_ids == query_ids[i]
        junk = np.zeros(GALLERY, bool)
        if cameras and query_cameras[i] is not None:
            junk = same & np.array([c == query_cameras[i] for c in gallery_cameras])
        kept = distances[i][~junk]
        assert len(np.unique(kept)) == len(kept), "ties are tested elsewhere"
        right = same[~junk]
        if not right.any():
            aps.append(None)
            firsts.append(None)
            continue
        ranked = right[np.argsort(kept)]
        ranks = np.flatnonzero(ranked) + 1
        aps.append(float(average_precision_score(right, -kept)))
        firsts.append(int(ranks[0]))
        inps.append(len(ranks) / ranks[-1])
        for k, values in recalls.items():
            values.append(ranked[:k].sum() / right.sum())
    found = np.array([f for f in firsts if f is not None])
    assert (np.argsort(distances, axis=1)[:, :10] == nearest(metric)).all()
    return {
        "metric": metric,
        "cameras": cameras,
        "scores": {
            "queries": QUERIES,
            "without_match": firsts.count(None),
            "rank1": float((found <= 1).mean()),
            "rank5": float((found <= 5).mean()),
            "rank10": float((found <= 10).mean()),
            "map": float(np.mean([ap for ap in aps if ap is not None])),
            "minp": float(np.mean(inps)),
            "recall_at": {str(k): float(np.mean(v)) for k, v in recalls.items()},
        },
        "average_precision": aps,
        "first_match": firsts,
        "nearest": nearest(metric).tolist(),
        "distances_of_first_query": distances[0].tolist(),
    }


golden = {
    "dim": DIM,
    "queries": [round(float(v), 4) for v in queries.ravel()],
    "gallery": [round(float(v), 4) for v in gallery.ravel()],
    "query_identities": [str(i) for i in query_ids],
    "gallery_identities": [str(i) for i in gallery_ids],
    "query_cameras": query_cameras,
    "gallery_cameras": gallery_cameras,
    "cases": [case(metric, cameras) for metric in ("cosine", "euclidean") for cameras in (False, True)],
}
OUT.parent.mkdir(parents=True, exist_ok=True)
OUT.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
for c in golden["cases"]:
    print(c["metric"], "with cameras" if c["cameras"] else "by identity", c["scores"])
