"""Networks in waylay, onnxruntime and PyTorch on the same CPU: do they agree, and how long does each take per image.

    cargo build --release
    python scripts/golden/zoo.py DIR
    python benches/models.py DIR [--batch 8] [--threads 2] [--rounds 3] [--only NAME ...] [--json FILE]

Every model is compared with its reference; of each network, the first file is timed. Each round runs the programs one after
the other, each alone; the medians over the rounds are printed as a Markdown table and written as JSON. Ratios are the
peer's time over ours: above 1, waylay is faster. `--agree` compares values and gradients only, `--times` times only (the
files of `zoo.py --plain` suffice). Needs what zoo.py needs.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]


def median_ms(run, runs, batch):
    run()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3 / batch


def torch_times(name, batch, threads, runs):
    import torch

    sys.path.insert(0, str(ROOT / "scripts/golden"))
    import zoo
    torch.set_num_threads(threads)
    build, height, width, _ = zoo.MODELS[name]
    model = build().eval().requires_grad_(False)
    x = torch.rand(batch, 3, height, width)

    def forward():
        with torch.inference_mode():
            model(x)

    def gradient():
        y = x.clone().requires_grad_()
        model(y).square().sum().backward()

    return median_ms(forward, runs, batch), median_ms(gradient, runs, batch)


def runtime_time(path, batch, threads, runs):
    import numpy
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    port = session.get_inputs()[0]
    count = port.shape[0] if isinstance(port.shape[0], int) else batch
    x = numpy.random.rand(count, *port.shape[1:]).astype("float32")
    return median_ms(lambda: session.run(None, {port.name: x}), runs, count)


def idle(_):
    """What a process holds before there is a network."""
    import numpy
    import onnxruntime
    return numpy.__name__, onnxruntime.__name__


def waylay_times(binary, path, batch, threads, runs):
    command = [binary, "inspect", path, "--time", str(batch), "--runs", str(runs), "--threads", str(threads), "--json"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found["forward_ms"], found["gradient_ms"]


def json_of(*command):
    """What a command prints, as JSON; what it says where it fails."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError:
        return {"error": done.stderr.strip()}


def agreement(binary, path):
    """Operator set, number of operators, and the largest relative errors of values and gradients against NAME.npz."""
    found = json_of(binary, "inspect", path, "--json")
    reference = path.parent / (path.name.split(".")[0] + ".npz")
    verified = json_of(binary, "inspect", path, "--verify", reference, "--json")
    if "verification" not in verified:
        return {"model": path.stem, "error": verified.get("error") or found.get("problem")}
    values, gradient = (verified["verification"][key]["max_rel"] for key in ("values", "gradient"))
    unsteady = verified["verification"].get("unsteady")
    return {"model": path.stem, "opset": found["opset"], "operators": sum(o["count"] for o in found["operators"]),
            "kinds": len(found["operators"]), "values": values, "gradient": gradient, "unsteady": unsteady, "pass": verified["pass"]}


def agreement_line(row):
    """The first columns of a row of either table."""
    if "error" in row:
        return f"| {row['model']} | | | | {row['error'][:160]} | |"
    mark = "" if row["pass"] else " (differs)"
    mark += f" (moves by {row['unsteady']:.0e})" if row["unsteady"] else ""
    counts = f"| {row['model']} | {row['opset']} | {row['operators']} | {row['kinds']} |"
    return f"{counts} {row['values']:.0e} | {row['gradient']:.0e}{mark} |"


def agree(options):
    rows = []
    print("| model | opset | nodes | operators | values | gradient |")
    print("|---|---|---|---|---|---|")
    for path in sorted(options.folder.glob("*.onnx")):
        rows.append(agreement(options.waylay, path))
        print(agreement_line(rows[-1]), flush=True)
        save(options, rows)
    passed = [row for row in rows if row.get("pass")]
    kinks = sum(1 for row in passed if row["unsteady"])
    print(f"\n{len(passed)} of {len(rows)} agree within 1e-4 (values) and 1e-3 (gradients), {kinks} of them at an input where "
          "rounding moves the gradient by as much")
    return rows


def peak(*command):
    """Most memory that a process held, in megabytes."""
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} failed")
    return usage.ru_maxrss / 1000


def memory(options):
    """Peak memory of a process that loads a network and runs it twice."""
    ours = pathlib.Path(options.waylay).parent / "examples/peers"
    one = sys.executable, __file__, "--one"
    idle = peak(*one, "idle", "")
    rows, seen = [], set()
    print("| model | ours, MB | onnxruntime, MB | of it without Python |\n|---|---|---|---|")
    for path in sorted(options.folder.glob("*.onnx")):
        name = path.stem.split(".")[0]
        if name in seen or "-" in name or (options.only and name not in options.only):
            continue
        seen.add(name)
        arguments = options.batch, options.threads, 2
        runtime = peak(*one, "runtime", path, *arguments)
        rows.append({"model": path.stem, "waylay": peak(ours, f"forward_{options.batch}", options.threads, 2, path),
                     "onnxruntime": runtime, "without_python": runtime - idle})
        mark = "" if rows[-1]["waylay"] <= rows[-1]["without_python"] else " (more)"
        print("| {model} | {waylay:.0f}{mark} | {onnxruntime:.0f} | {without_python:.0f} |".format(mark=mark, **rows[-1]), flush=True)
        save(options, rows)
    less = sum(row["waylay"] <= row["without_python"] for row in rows)
    print(f"\nBatch {options.batch}, {options.threads} threads, whole processes; Python with numpy and onnxruntime alone takes "
          f"{idle:.0f} MB. {less} of {len(rows)} take no more than onnxruntime without that.")
    return rows


def alone(kind, *arguments):
    """Runs one peer in a process of its own, so that threads and memory of one do not weigh on another."""
    command = [sys.executable, __file__, "--one", kind, *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--agree", action="store_true")
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--waylay", default=str(ROOT / "target/release/waylay"))
    options = parser.parse_args()
    if options.agree:
        rows = agree(options)
        return sys.exit(any(not row.get("pass") for row in rows))
    if options.memory:
        return memory(options)
    rows = []
    agreement_columns = [] if options.times else ["opset", "nodes", "operators", "values", "gradient"]
    columns = ["model", *agreement_columns, "ours", "with gradient", "onnxruntime", "PyTorch", "with gradient",
               "over onnxruntime", "over PyTorch", "with gradient"]
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    timed = set()
    for path in sorted(options.folder.glob("*.onnx")):
        name = path.stem.split(".")[0]
        if options.only and name not in options.only and path.stem not in options.only:
            continue
        row = {"model": path.stem} if options.times else agreement(options.waylay, path)
        rows.append(row)
        times = "| | | | | | | |"
        if "error" not in row and "-" not in name and name not in timed:
            timed.add(name)
            row.update(compared(path, name, options))
            times = "| {waylay:.1f} | {waylay_gradient:.1f} | {onnxruntime:.1f} | {torch:.1f} | {torch_gradient:.1f} |".format(**row)
            times += f" {row['onnxruntime'] / row['waylay']:.2f} | {row['torch'] / row['waylay']:.2f} |"
            times += f" {row['torch_gradient'] / row['waylay_gradient']:.2f} |"
        front = f"| {row['model']} |" if options.times else agreement_line(row)
        print(f"{front} {times[2:]}", flush=True)
        save(options, rows)
    print(f"\nBatch {options.batch}, {options.threads} threads, milliseconds per image, medians of {options.rounds} rounds.")
    timed = [row for row in rows if "waylay" in row]
    for name, peer, ours in [("onnxruntime", "onnxruntime", "waylay"), ("PyTorch", "torch", "waylay"),
                             ("PyTorch with gradient", "torch_gradient", "waylay_gradient")]:
        ratios = [row[peer] / row[ours] for row in timed]
        if ratios:
            faster = sum(ratio > 1 for ratio in ratios)
            print(f"Faster than {name}: {faster} of {len(ratios)}, median ratio {statistics.median(ratios):.2f}.")


def compared(path, name, options):
    """Milliseconds per image in all three, one after the other in each round; medians."""
    arguments = options.batch, options.threads, options.runs
    rounds = []
    for _ in range(options.rounds):
        ours = waylay_times(options.waylay, path, *arguments)
        rounds.append([*ours, alone("runtime", path, *arguments), *alone("torch", name, *arguments)])
    keys = ["waylay", "waylay_gradient", "onnxruntime", "torch", "torch_gradient"]
    return {**dict(zip(keys, (statistics.median(r) for r in zip(*rounds)))), "batch": options.batch, "threads": options.threads}


def save(options, rows):
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        kind, what, *numbers = sys.argv[2:]
        run = {"runtime": runtime_time, "torch": torch_times, "idle": idle}[kind]
        print(json.dumps(run(what, *map(int, numbers))))
    else:
        main()
