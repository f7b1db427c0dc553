"""ONNX's own backend node tests as files, for crates/waylay-onnx/tests/node_tests.rs.

    python scripts/golden/onnx_node_tests.py DIR
    WAYLAY_ONNX_NODE_TESTS=DIR cargo test --release --workspace --test node_tests -- --ignored --nocapture

Each case becomes DIR/NAME/{model.onnx, tolerance.json, input_J.pb, output_J.pb}; the arrays are TensorProto messages.
Cases whose inputs or outputs are no tensors (sequences, optionals, maps) are left out, and counted. Needs onnx, numpy.
"""

import json
import pathlib
import shutil
import sys
import warnings

import onnx
from onnx import numpy_helper


def main(folder):
    warnings.simplefilter("ignore")
    from onnx.backend.test.case.node import collect_testcases

    written = left_out = 0
    for case in collect_testcases(None):
        graph = case.model.graph
        if not all(v.type.HasField("tensor_type") for v in [*graph.input, *graph.output]):
            left_out += 1
            continue
        out = folder / case.name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        (out / "model.onnx").write_bytes(case.model.SerializeToString())
        (out / "tolerance.json").write_text(json.dumps({"rtol": case.rtol, "atol": case.atol}))
        inputs, outputs = case.data_sets[0]
        for kind, arrays, values in [("input", inputs, graph.input), ("output", outputs, graph.output)]:
            for index, (array, value) in enumerate(zip(arrays, values)):
                if not isinstance(array, onnx.TensorProto):
                    array = numpy_helper.from_array(array, value.name)
                array.name = value.name
                (out / f"{kind}_{index}.pb").write_bytes(array.SerializeToString())
        written += 1
    print(f"{written} cases written to {folder}; {left_out} without tensors left out (onnx {onnx.__version__})")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
