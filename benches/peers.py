"""The work that waylay exists for, in waylay and in its peers on the same CPU: how long, and how much memory.

    cargo build --release --workspace --examples
    waylay fetch faces --cache FACES
    python benches/peers.py FACES [--threads 1 2] [--rounds 5] [--only CASE ...] [--json FILE]

Each round runs waylay and the peer one after the other, each alone in a process of its own; times are medians over the
rounds of medians over the runs of a process, memory is the process's peak. Ratios are the peer's over ours: above 1, waylay
is faster, or smaller. Networks have random weights; the mathematics, the batch and the threads are the same; float32.

Needs torch, torchvision, onnx, numpy; faiss-cpu for `search`; torchreid (its files suffice) for `reid` and `trained`,
where the table says whether torchreid's Cython evaluator was there: it is not in the package, and has to be built from
torchreid's repository.
"""

import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
# case: (name for people, model, runs, peer)
CASES = {
    "uaa": ("UAA-GAN step, 112², batch 8, against a MobileFaceNet", "faces", 5, "PyTorch"),
    "gan_32_64": ("GAN step, 32 channels, 64², batch 8", "resnet18_64", 5, "PyTorch"),
    "gan_64_64": ("GAN step, 64 channels, 64², batch 8", "resnet18_64", 3, "PyTorch"),
    "gan_64_128": ("GAN step, 64 channels, 128², batch 8", "resnet18_128", 3, "PyTorch"),
    "gradient_8": ("frozen ResNet-18, forward and input gradient, batch 8, 128²", "resnet18_128", 11, "PyTorch"),
    "forward_8": ("frozen ResNet-18 forward, batch 8, 224²", "resnet18_224", 11, "PyTorch"),
    "forward_8_runtime": ("the same", "resnet18_224", 11, "onnxruntime"),
    "forward_8_50": ("frozen ResNet-50 forward, batch 8, 224²", "resnet50_224", 7, "PyTorch"),
    "forward_8_50_runtime": ("the same", "resnet50_224", 7, "onnxruntime"),
    "craft_112": ("crafting by an image-only generator, 112², per image", None, 7, "PyTorch"),
    "craft_224": ("crafting by an image-only generator, 224², per image", None, 5, "PyTorch"),
    "conditioned": ("crafting by the generator guided by feature maps, 112², per image", "faces", 7, "PyTorch"),
    "search": ("exact top-100, 1,000 × 100,000 × 512", None, 3, "faiss-cpu Flat"),
    "reid": ("ReID evaluation, 3,368 × 19,732 × 2048", None, 1, "torchreid"),
    "trained": ("the same, embeddings that tell people apart", None, 1, "torchreid"),
}


# ---------------------------------------------------------------------------------------------------------- PyTorch's side


def networks():
    """Generator and discriminator of the peers, as a PyTorch user writes them."""
    from torch import nn

    norm = lambda c: nn.InstanceNorm2d(c, affine=True)

    class Residual(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(c, c, 3, 1, 1), norm(c), nn.ReLU(), nn.Conv2d(c, c, 3, 1, 1), norm(c))

        def forward(self, x):
            return x + self.body(x)

    def generator(n, blocks):
        return nn.Sequential(
            nn.Conv2d(3, n, 7, 1, 3), norm(n), nn.ReLU(), nn.Conv2d(n, 2 * n, 3, 2, 1), norm(2 * n), nn.ReLU(),
            nn.Conv2d(2 * n, 4 * n, 3, 2, 1), norm(4 * n), nn.ReLU(), *[Residual(4 * n) for _ in range(blocks)],
            nn.ConvTranspose2d(4 * n, 2 * n, 3, 2, 1, 1), norm(2 * n), nn.ReLU(),
            nn.ConvTranspose2d(2 * n, n, 3, 2, 1, 1), norm(n), nn.ReLU(), nn.Conv2d(n, 3, 7, 1, 3), nn.Tanh())

    def discriminator():
        return nn.Sequential(
            nn.Conv2d(3, 64, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(64, 128, 4, 2, 1), norm(128), nn.LeakyReLU(0.2),
            nn.Conv2d(128, 256, 4, 2, 1), norm(256), nn.LeakyReLU(0.2), nn.Conv2d(256, 1, 4, 1, 1))

    return generator, discriminator


def face_network(path):
    """The MobileFaceNet's tensors by name, computed node by node."""
    import onnx
    import torch
    from torch.nn import functional as F

    graph = onnx.load(path).graph
    weights = {i.name: torch.from_numpy(onnx.numpy_helper.to_array(i).copy()) for i in graph.initializer}

    def run(x):
        values = {graph.input[0].name: (x * 255 - 127.5) / 128}
        for node in graph.node:
            of = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            i = [values.get(k, weights.get(k)) for k in node.input]
            if node.op_type == "Conv":
                y = F.conv2d(*i[:2], i[2] if len(i) > 2 else None, of.get("strides", [1, 1]), of.get("pads", [0] * 4)[:2],
                             of.get("dilations", [1, 1]), of.get("group", 1))
            elif node.op_type == "PRelu":
                y = F.prelu(i[0], i[1].reshape(-1))
            elif node.op_type == "Add":
                y = i[0] + i[1]
            elif node.op_type == "Reshape":
                y = i[0].reshape(len(i[0]), -1)
            else:
                raise ValueError(node.op_type)
            values[node.output[0]] = y
        return values | {"embedding": y}

    return run


def resnet(model):
    import torchvision

    name, side = model.split("_")
    network = getattr(torchvision.models, name)(weights=None)
    network.fc = __import__("torch").nn.Identity()
    return network.eval().requires_grad_(False), int(side)


def gan_step(embed, n, blocks, side, uaa):
    """One alternating update, as `for x in loader:` has it."""
    import torch
    from torch.nn import functional as F

    make_generator, make_discriminator = networks()
    g, d = make_generator(n, blocks), make_discriminator()
    g_adam, d_adam = (torch.optim.Adam(m.parameters(), 2e-4, betas=(0.5, 0.999)) for m in (g, d))
    x = torch.rand(8, 3, side, side)

    def step():
        perturbed = (x + 8 / 255 * g(x)).clamp(0, 1)
        d.requires_grad_(True)
        loss = ((d(x) - 1) ** 2).mean() + (d(perturbed.detach()) ** 2).mean()
        d_adam.zero_grad()
        loss.backward()
        d_adam.step()
        d.requires_grad_(False)
        with torch.no_grad():
            clean = embed(x)
        attacked = embed(perturbed)
        if uaa:
            clean, attacked = F.normalize(clean), F.normalize(attacked)
            farthest = torch.cdist(clean, clean).max(1).values
            metric = F.relu(farthest + 0.5 - (clean - attacked).norm(dim=1)).mean()
            loss = 0.05 * (perturbed - x).flatten(1).norm(dim=1).mean() + 10 * metric + ((d(perturbed) - 1) ** 2).mean()
        else:
            loss = ((d(perturbed) - 1) ** 2).mean() + F.cosine_similarity(attacked, clean).mean() + ((perturbed - x) ** 2).mean()
        g_adam.zero_grad()
        loss.backward()
        g_adam.step()

    return step


def conditioned_generator(taps, dim):
    """waylay's generator guided by feature maps for images of 112² in PyTorch; `taps` are lists of channels for 56², 28², 14² and 7²."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    norm = lambda c: nn.InstanceNorm2d(c, affine=True)
    widths, blocks = [32, 64, 128, 128], [1, 2, 2, 2]

    class Residual(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.body = nn.Sequential(norm(c), nn.ReLU(), nn.Conv2d(c, c, 3, 1, 1), norm(c), nn.ReLU(), nn.Conv2d(c, c, 3, 1, 1))

        def forward(self, x):
            return x + self.body(x)

    class Generator(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(12, 32, 3, 1, 1)
            for at, channels in enumerate(taps):
                self.register_buffer(f"mean_{at}", torch.zeros(1, sum(channels), 1, 1))
                self.register_buffer(f"deviation_{at}", torch.ones(1, sum(channels), 1, 1))
            self.join = nn.ModuleList(nn.Conv2d(sum(c), w, 1) if c else None for c, w in zip(taps, widths))
            pairs = list(zip(widths, widths[1:]))
            self.down = nn.ModuleList(nn.Sequential(norm(a), nn.ReLU(), nn.Conv2d(a, b, 3, 2, 1)) for a, b in pairs)
            self.encode = nn.ModuleList(Residual(b) for _, b in pairs)
            self.decode = nn.ModuleList(nn.Sequential(*[Residual(b) for _ in range(n)]) for (_, b), n in zip(pairs, blocks[1:]))
            self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairs)
            self.embedding = nn.Conv2d(dim, 128, 1)
            self.last = Residual(32)
            self.head = nn.Sequential(norm(32), nn.ReLU(), nn.Conv2d(32, 12, 3, 1, 1))

        def joined(self, at, h, maps):
            if self.join[at] is None:
                return h
            maps = (torch.cat(maps[at], 1) - getattr(self, f"mean_{at}")) / getattr(self, f"deviation_{at}")
            return h + self.join[at](maps)

        def forward(self, x, maps, embedding):
            h = self.joined(0, self.stem(F.pixel_unshuffle(x * 2 - 1, 2)), maps)
            skips = []
            for at, (down, encode) in enumerate(zip(self.down, self.encode)):
                skips.append(h)
                h = self.joined(at + 1, down(h), maps)
                if at + 1 == len(self.down):
                    h = h + self.embedding((embedding / embedding.square().mean(1, keepdim=True).sqrt())[..., None, None])
                h = encode(h)
            for decode, up, skip in reversed(list(zip(self.decode, self.up, skips))):
                h = F.interpolate(up(decode(h)), size=skip.shape[2:], mode="nearest") + skip
            g = F.pixel_shuffle(self.head(self.last(h)), 2)
            return (x + 8 / 255 * torch.tanh(2 * g)).clamp(0, 1)

    return Generator().eval()


def torch_work(case, model, path, taps):
    """What PyTorch does for `case`, and how many images that is."""
    import torch

    kind, *numbers = case.split("_")
    if kind == "uaa":
        network = face_network(path)
        return gan_step(lambda x: network(x)["embedding"], 32, 4, 112, True), 1
    if kind == "gan":
        network, side = resnet(model)
        return gan_step(network, int(numbers[0]), 6, side, False), 1
    if kind in ("forward", "gradient"):
        network, side = resnet(model)
        x = torch.rand(8, 3, side, side)

        def gradient():
            y = x.clone().requires_grad_()
            network(y).square().sum().backward()

        return (gradient if kind == "gradient" else lambda: network(x)), 1
    if kind == "craft":
        side = int(numbers[0])
        g = networks()[0](32, 4).eval()
        x = torch.rand(8, 3, side, side)
        return (lambda: (x + 8 / 255 * g(x)).clamp(0, 1)), 8
    network = face_network(path)
    x = torch.rand(8, 3, 112, 112)
    found = network(x[:1])
    sides = [56, 28, 14, 7]
    names = [[t for t in taps if found[t].shape[-1] == side] for side in sides]
    g = conditioned_generator([[found[t].shape[1] for t in group] for group in names], found["embedding"].shape[1])

    def craft():
        values = network(x)
        return g(x, [[values[t] for t in group] for group in names], values["embedding"])

    return craft, 8


def other_work(case, path, threads):
    """What the peers other than PyTorch do."""
    import numpy

    rng = numpy.random.default_rng(0)
    if case == "search":
        import faiss

        faiss.omp_set_num_threads(threads)
        queries, gallery = (rng.standard_normal((n, 512), dtype="float32") for n in (1000, 100_000))
        index = faiss.IndexFlatL2(512)
        index.add(gallery)
        return lambda: index.search(queries, 100)
    if case in ("reid", "trained"):
        import torch
        try:
            from torchreid.reid.metrics import compute_distance_matrix, evaluate_rank
        except ImportError:
            from torchreid.metrics import compute_distance_matrix, evaluate_rank

        normal = lambda *shape: rng.standard_normal(shape, dtype="float32")
        labels = lambda n, step: (numpy.arange(n) * step % 750, numpy.arange(n) // 750 % 6)
        (q, q_cameras), (g, g_cameras) = labels(3368, 1), labels(19_732, 7)
        queries, gallery = (normal(n, 2048) for n in (3368, 19_732))
        if case == "trained":
            people, matrix = normal(750, 64), normal(64, 2048)
            queries, gallery = (
                numpy.maximum((people[who] + 0.9 * normal(len(who), 64)) @ matrix, 0) for who in (q, g)
            )
        queries, gallery = torch.from_numpy(queries), torch.from_numpy(gallery)

        def evaluate():
            distances = compute_distance_matrix(queries, gallery, "euclidean").numpy()
            evaluate_rank(distances, q, g, q_cameras, g_cameras)

        return evaluate
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    port = session.get_inputs()[0]
    x = rng.random((8, *port.shape[1:]), dtype="float32")
    return lambda: session.run(None, {port.name: x})


def peer(case, model, path, threads, runs, taps):
    """Runs the peer in this process and prints its time."""
    images = 1
    if CASES[case][3] in ("PyTorch", "torchreid"):
        import torch

        torch.set_num_threads(threads)
        torch.manual_seed(0)
    if CASES[case][3] == "PyTorch":
        work, images = torch_work(case, model, path, taps)
    else:
        work = other_work(case, path, threads)
    trains = case.startswith(("uaa", "gan", "gradient"))
    grad = __import__("torch").set_grad_enabled(trains) if "torch" in sys.modules else None
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3 / images)
    del grad
    rank = sys.modules.get("torchreid.reid.metrics.rank") or sys.modules.get("torchreid.metrics.rank")
    evaluator = rank and ("Cython" if rank.IS_CYTHON_AVAI else "Python")
    print(json.dumps({"ms": statistics.median(times[1:]), "evaluator": evaluator}))


# --------------------------------------------------------------------------------------------------------------- the table


def measured(command):
    """What a program says last, the milliseconds it took among it, and its peak memory in megabytes."""
    child = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    said = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise RuntimeError(f"failed: {' '.join(map(str, command))}")
    return json.loads(said.splitlines()[-1]), used.ru_maxrss / 1024


def export(model, path):
    """Writes a network with random weights as an ONNX file."""
    import torch

    network, side = resnet(model)
    torch.onnx.export(network, torch.rand(1, 3, side, side), path, dynamo=False, opset_version=17,
                      input_names=["input"], dynamic_axes={"input": {0: "n"}})


def versions():
    import importlib.metadata as metadata

    found = {"python": platform.python_version()}
    for package in ["torch", "torchvision", "onnxruntime", "faiss-cpu", "torchreid", "numpy"]:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            pass
    cpu = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")] if os.path.exists("/proc/cpuinfo") else []
    return found | {"cpu": f"{len(cpu)} × {cpu[0]}" if cpu else platform.processor()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=pathlib.Path, help="where `waylay fetch faces --cache` put fr_feature.onnx")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=CASES)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--target-dir", type=pathlib.Path, default=ROOT / "target", help="cargo's")
    options = parser.parse_args()
    ours = options.target_dir / "release/examples/peers"
    rows = []
    print("| work | threads | waylay ms | peer ms | peer | faster | waylay MB | peer MB | smaller |")
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        scratch, paths = pathlib.Path(scratch), {"faces": options.faces / "fr_feature.onnx", None: None}
        for case in options.only or CASES:
            title, model, runs, _ = CASES[case]
            if model not in paths:
                # Elsewhere, so that this process stays small: a child's peak counts from its parent's size.
                paths[model] = scratch / f"{model}.onnx"
                subprocess.run([sys.executable, __file__, "--export", model, paths[model]], check=True, capture_output=True)
            path, taps = paths[model], []
            if case == "conditioned":
                found = subprocess.run([options.target_dir / "release/waylay", "inspect", path, "--json"],
                                       check=True, capture_output=True, text=True)
                taps = [tap["name"] for tap in json.loads(found.stdout)["taps"]]
            for threads in options.threads:
                rounds = []
                for _ in range(options.rounds):
                    kind = "forward_8" if case.startswith("forward") else case
                    mine, mb = measured([ours, kind, threads, runs, *([path] if path else [])])
                    theirs, peer_mb = measured([sys.executable, __file__, "--peer", case, model, path, threads, runs, *taps])
                    rounds.append((mine["ms"], mb, theirs["ms"], peer_mb))
                ms, mb, peer_ms, peer_mb = (statistics.median(r) for r in zip(*rounds))
                name = ", ".join(filter(None, [CASES[case][3], theirs["evaluator"]]))
                rows.append({"case": case, "work": title, "threads": threads, "peer": name, "waylay_ms": ms, "peer_ms": peer_ms,
                             "faster": peer_ms / ms, "waylay_mb": mb, "peer_mb": peer_mb, "smaller": peer_mb / mb})
                print(f"| {title} | {threads} | {ms:.1f} | {peer_ms:.1f} | {name} | {peer_ms / ms:.2f} | {mb:.0f} | {peer_mb:.0f} "
                      f"| {peer_mb / mb:.2f} |", flush=True)
    made = {"rows": rows, "rounds": options.rounds, **versions()}
    print(f"\nMedians of {options.rounds} rounds; " + ", ".join(f"{k} {v}" for k, v in versions().items()))
    if options.json:
        options.json.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peer"]:
        case, model, path, threads, runs, *taps = sys.argv[2:]
        peer(case, model, path, int(threads), int(runs), taps)
    elif sys.argv[1:2] == ["--export"]:
        export(*sys.argv[2:])
    else:
        main()
