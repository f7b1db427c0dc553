"""How waylay's time grows with the batch, the image and the threads: a frozen ResNet-18, forward and with its input gradient.

    cargo build --release --workspace --examples
    python benches/scaling.py [--threads 1 2] [--runs 9] [--json FILE]

Prints a Markdown table: milliseconds per batch, the median over the runs of a process, and how many times faster two threads
are than one. Needs torch and torchvision, for the network.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
CASES = [(1, 224), (2, 224), (4, 224), (8, 224), (16, 224), (8, 64), (8, 96), (8, 128)]


def milliseconds(kind, batch, threads, runs, path):
    command = [ROOT / "target/release/examples/peers", f"{kind}_{batch}", str(threads), str(runs), path]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["ms"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    rows = []
    print("| work | batch | pixels | " + " | ".join(f"{t} threads" for t in options.threads) + " | gain |")
    print("|---|---|---|" + "---|" * (len(options.threads) + 1))
    with tempfile.TemporaryDirectory() as scratch:
        for kind in ["forward", "gradient"]:
            for batch, side in CASES:
                path = pathlib.Path(scratch) / f"resnet18_{side}.onnx"
                if not path.exists():
                    export = [sys.executable, ROOT / "benches/peers.py", "--export", path.stem, path]
                    subprocess.run(export, check=True, capture_output=True)
                times = [milliseconds(kind, batch, threads, options.runs, path) for threads in options.threads]
                rows.append({"work": kind, "batch": batch, "side": side, "threads": options.threads, "ms": times})
                print(f"| {kind} | {batch} | {side}² | " + " | ".join(f"{ms:.1f}" for ms in times)
                      + f" | {times[0] / times[-1]:.2f} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
