"""Runs the recipes of docs/recipes.md as they stand, and verifies the models that come out.

    python scripts/golden/recipes.py DIR --waylay target/release/waylay [--only TITLE ...]

Where `unsteady` is printed, the input sits at a kink: the verification passed, and says nothing about gradients.
Needs what the recipes import: torch, torchvision, onnx, onnxscript, onnxruntime, timm, transformers, open_clip_torch,
torchreid, fastreid, facenet-pytorch.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys

import onnxruntime
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]


def recipes(text):
    """(title, code) of every Python block of the page."""
    title = None
    for part in re.finditer(r"^## ([^\n]+)$|^```python\n(.*?)^```$", text, re.M | re.S):
        if part[1]:
            title = part[1]
        else:
            yield title, part[2]


def stand_in(path):
    """A face network with random weights under the name of one that is not to be had here."""
    from zoo import calibrate, iresnet, stir
    model = calibrate(stir(iresnet(), 0), 112, 112)
    torch.onnx.export(model, torch.rand(1, 3, 112, 112), path, dynamo=False, opset_version=11, input_names=["input.1"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--waylay", type=pathlib.Path, default=ROOT / "target/release/waylay")
    parser.add_argument("--only", nargs="+")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if not (options.folder / "w600k_r50.onnx").exists():
        stand_in(options.folder / "w600k_r50.onnx")
    failed = []
    for number, (title, code) in enumerate(recipes((ROOT / "docs/recipes.md").read_text())):
        if number == 0:
            (options.folder / "export.py").write_text(code)
            continue
        if options.only and title not in options.only:
            continue
        before = {path: path.stat().st_mtime_ns for path in options.folder.glob("*.npz")}
        ran = subprocess.run([sys.executable, "-c", code], cwd=options.folder, capture_output=True, text=True)
        made = [path for path in options.folder.glob("*.npz") if before.get(path) != path.stat().st_mtime_ns]
        if ran.returncode or not made:
            failed.append(title)
            print(f"{title}: does not run: {ran.stderr.strip().splitlines()[-1:]}", flush=True)
        for reference in made:
            command = [options.waylay.resolve(), "inspect", reference.with_suffix(".onnx"), "--verify", reference, "--json"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                failed.append(title)
            found = json.loads(done.stdout).get("verification") if done.stdout else None
            worst = {key: found[key]["max_rel"] for key in ("values", "gradient") if found.get(key)} if found else done.stderr
            if found and found.get("unsteady"):
                worst["unsteady"] = found["unsteady"]
            print(f"{title}: {reference.stem}: exit {done.returncode}, {worst}", flush=True)
    print(f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}; {len(failed)} failed {failed or ''}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
