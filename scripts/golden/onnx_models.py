"""ONNX models with reference outputs and input gradients, for crates/waylay-onnx/tests/agreement.rs.

    python scripts/golden/onnx_models.py                      # small models into crates/waylay-onnx/tests/golden/onnx
    python scripts/golden/onnx_models.py --full DIR [--onnx fr_feature.onnx]   # full-size models into DIR

Each MODEL.onnx gets MODEL.npz with `input` (two images as the network takes them), `output`, `cotangent` and
`input_grad`, computed by PyTorch in float64 and stored as float32. A file given with --onnx is run by onnxruntime,
and its gradient by a PyTorch copy of its graph (Conv, PRelu, Add, Reshape only).
Needs torch, torchvision, onnx, onnxruntime, onnxscript, numpy. Weights are random, batch statistics too.
"""

import argparse
import copy
import pathlib
import warnings

import numpy
import onnx
import onnxruntime
import torch
import torchvision
from torch import nn

HERE = pathlib.Path(__file__).resolve().parents[2] / "crates/waylay-onnx/tests/golden/onnx"


class Face(nn.Module):
    """Depthwise blocks with PRelu and a residual, as in MobileFaceNet; one scalar slope and one per channel."""

    def __init__(self, width=8, dim=16):
        super().__init__()
        def block(i, o, stride, groups, kernel=3):
            conv = nn.Conv2d(i, o, kernel, stride, kernel // 2, groups=groups, bias=False)
            return nn.Sequential(conv, nn.BatchNorm2d(o), nn.PReLU(o))
        self.stem = block(3, width, 2, 1)
        self.deep = nn.Sequential(block(width, width, 1, width), block(width, width, 1, 1, 1))
        self.down = block(width, 2 * width, 2, 2)
        self.act = nn.PReLU()
        self.head = nn.Conv2d(2 * width, dim, 8, groups=1)

    def forward(self, x):
        x = self.stem(x)
        x = self.act(x + self.deep(x))
        x = self.head(self.down(x))
        return nn.functional.normalize(x.view(x.size(0), -1))


class Mixture(nn.Module):
    """One of each cheap operator that the other models lack."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.InstanceNorm2d(8, affine=True)
        self.b = nn.Conv2d(8, 8, 3, padding=(2, 1), dilation=(2, 1))
        self.batch = nn.BatchNorm2d(8)
        self.se = nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(16, 12)

    def forward(self, x):
        x = nn.functional.leaky_relu(self.norm(self.a(x)), 0.1)
        x = nn.functional.hardswish(self.b(x))
        x = x * nn.functional.hardsigmoid(self.se(x.mean((2, 3), keepdim=True)))
        x = self.batch(torch.cat([x[:, 4:], x[:, :4].flip(1)], 1))
        x = nn.functional.pad(x, (1, 0, 2, 1))
        y = nn.functional.max_pool2d(x, 3, 2, 1, ceil_mode=True)
        z = nn.functional.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)
        gem = z.clamp(min=1e-3).pow(3).mean((2, 3)).pow(1 / 3)
        x = torch.cat([torch.tanh(y.mean((2, 3))), gem], 1)
        x = torch.where(torch.tensor([True, False] * 8), x, 2 * torch.sigmoid(x))
        x = self.fc(x).softmax(1) - torch.sqrt(x[:, :12].abs() + 1)
        return x / x.norm(dim=1, keepdim=True)


def randomise(model, seed):
    """Random weights that keep activations near 1, and batch statistics away from (0, 1)."""
    generator = torch.Generator().manual_seed(seed)
    def draw(shape, low, high):
        return torch.rand(shape, generator=generator) * (high - low) + low
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            fan = module.weight[0].numel()
            module.weight.data = torch.randn(module.weight.shape, generator=generator) * (1.6 / fan) ** 0.5
            if module.bias is not None:
                module.bias.data = draw(module.bias.shape, -0.2, 0.2)
        if isinstance(module, (nn.BatchNorm2d, nn.InstanceNorm2d)):
            module.weight.data = draw(module.weight.shape, 0.6, 1.4)
            module.bias.data = draw(module.bias.shape, -0.3, 0.3)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = draw(module.running_mean.shape, -0.3, 0.3)
            module.running_var = draw(module.running_var.shape, 0.5, 1.5)
        if isinstance(module, nn.PReLU):
            module.weight.data = draw(module.weight.shape, -0.1, 0.4)
    return model.eval()


def resnet(width):
    model = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], width_per_group=64)
    scale = width / 64
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            inputs = module.in_channels if module.in_channels == 3 else int(module.in_channels * scale)
            kernel, stride, padding = module.kernel_size, module.stride, module.padding
            module.__init__(inputs, int(module.out_channels * scale), kernel, stride, padding, bias=False)
        if isinstance(module, nn.BatchNorm2d):
            module.__init__(int(module.num_features * scale))
    model.fc = nn.Linear(int(512 * scale), 10)
    return model


def export(model, image, path, dynamo, opset, fold=True, dynamic=True, output="embedding"):
    names = dict(input_names=["image"], output_names=[output], opset_version=opset)
    if dynamo:
        shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
        torch.onnx.export(model, (image,), path, dynamo=True, dynamic_shapes=shapes, external_data=False, optimize=fold, **names)
    else:
        axes = {"image": {0: "batch"}, output: {0: "batch"}} if dynamic else None
        torch.onnx.export(model, (image,), path, dynamo=False, dynamic_axes=axes, do_constant_folding=fold, **names)
    strip(path)


def strip(path):
    """Drops what no reader needs and what names the machine: documentation, metadata, shapes in between."""
    model = onnx.load(path)
    del model.graph.value_info[:], model.metadata_props[:]
    for node in model.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    onnx.save(model, path)


def reference(model, image, path):
    model = copy.deepcopy(model).double()
    x = image.double().requires_grad_()
    y = model(x)
    cotangent = torch.randn(y.shape, generator=torch.Generator().manual_seed(7)).double()
    (y * cotangent).sum().backward()
    arrays = dict(input=x, output=y, cotangent=cotangent, input_grad=x.grad)
    numpy.savez_compressed(path, **{k: v.detach().numpy().astype("float32") for k, v in arrays.items()})


def smooth_image(model, size, seeds):
    """A random image at which no ReLU or ReLU6 is so near a kink that rounding in float32 decides its slope.

    Gradients jump there: between float32 and float64 PyTorch differs from itself by percents of the largest element.
    """
    kinks = [m for m in model.modules() if isinstance(m, (nn.ReLU, nn.ReLU6, nn.PReLU))]
    def seen(net, x):
        found = []
        hooks = [m.register_forward_pre_hook(lambda _, a: found.append(a[0].detach().double().clone()))
                 for m in net.modules() if isinstance(m, (nn.ReLU, nn.ReLU6, nn.PReLU))]
        with torch.no_grad():
            net(x)
        for hook in hooks:
            hook.remove()
        return found
    exact = copy.deepcopy(model).double()
    for seed in seeds:
        image = torch.randn((1, 3, size, size), generator=torch.Generator().manual_seed(seed))
        rough, fine = seen(model, image), seen(exact, image.double())
        clear = lambda a, b: min(b.abs().min(), (b - 6).abs().min()) > 2 * (a - b).abs().mean()
        if kinks and all(clear(a, b) for a, b in zip(rough, fine)):
            return image
    raise SystemExit("no image without kinks found")


def check(onnx_path, npz_path, static):
    """onnxruntime must agree with PyTorch before anything else is compared with either."""
    arrays = numpy.load(npz_path)
    session = onnxruntime.InferenceSession(str(onnx_path), providers=["CPUExecutionProvider"])
    parts = [arrays["input"]] if not static else list(arrays["input"][:, None])
    found = numpy.concatenate([session.run(None, {session.get_inputs()[0].name: p})[0] for p in parts])
    gap = abs(found.reshape(arrays["output"].shape) - arrays["output"]).max() / abs(arrays["output"]).max()
    print(f"{onnx_path.name}: {onnx_path.stat().st_size} bytes, onnxruntime differs by {gap:.1e}")
    assert gap < 1e-4


class Copy(nn.Module):
    """A PyTorch copy of an ONNX graph of Conv, PRelu, Add and a final Reshape."""

    def __init__(self, path):
        super().__init__()
        self.graph = onnx.load(path).graph
        self.weights = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in self.graph.initializer}

    def forward(self, x):
        values = {k: v.to(x.dtype) for k, v in self.weights.items()} | {self.graph.input[0].name: x}
        for node in self.graph.node:
            a = [values[i] for i in node.input]
            at = {k.name: onnx.helper.get_attribute_value(k) for k in node.attribute}
            if node.op_type == "Conv":
                p = at["pads"]
                assert p[:2] == p[2:]
                y = nn.functional.conv2d(a[0], a[1], a[2] if len(a) > 2 else None, at["strides"], p[:2], at["dilations"], at["group"])
            elif node.op_type == "PRelu":
                y = torch.where(a[0] >= 0, a[0], a[0] * a[1])
            elif node.op_type == "Add":
                y = a[0] + a[1]
            else:
                assert node.op_type == "Reshape", node.op_type
                y = a[0].reshape(len(x), -1)
            values[node.output[0]] = y
        return values[self.graph.output[0].name]


def small():
    HERE.mkdir(parents=True, exist_ok=True)
    models = {
        "resnet": (resnet(4), 32),
        "mobilenet": (torchvision.models.MobileNetV2(10, 0.1, inverted_residual_setting=[[1, 8, 1, 1], [6, 16, 2, 2], [6, 24, 1, 2]], round_nearest=4), 32),
        "face": (Face(), 32),
        "mixture": (Mixture(), 19),
    }
    models["mobilenet"][0].features[-1] = nn.Conv2d(4, 32, 1)
    models["mobilenet"][0].classifier = nn.Linear(32, 10)
    variants = {
        "resnet": [("legacy11", False, 11, True, True), ("dynamo", True, 18, True, True)],
        "mobilenet": [("legacy17_unfolded", False, 17, False, True), ("dynamo_static", True, 20, True, False)],
        "face": [("legacy9_static", False, 9, True, False), ("dynamo_unoptimised", True, 18, False, True)],
        "mixture": [("legacy12", False, 12, True, True), ("legacy18", False, 18, True, True), ("dynamo", True, 23, True, True)],
    }
    for index, (name, (model, size)) in enumerate(models.items()):
        model = randomise(model, index)
        image = torch.randn((2, 3, size, size), generator=torch.Generator().manual_seed(100 + index))
        reference(model, image, HERE / f"{name}.npz")
        for label, dynamo, opset, fold, dynamic in variants[name]:
            path = HERE / f"{name}.{label}.onnx"
            export(model, image if dynamic else image[:1], str(path), dynamo, opset, fold, dynamic)
            check(path, HERE / f"{name}.npz", not dynamic)


def full(folder, extra):
    folder.mkdir(parents=True, exist_ok=True)
    # MobileNetV2 at 224 x 224 has so many ReLU6 that some are near a kink in every image.
    for name, size in [("resnet18", 224), ("mobilenet_v2", 96)]:
        model = randomise(getattr(torchvision.models, name)(), 3)
        image = torch.cat([smooth_image(model, size, range(0, 1000)), smooth_image(model, size, range(1000, 2000))])
        reference(model, image, folder / f"{name}.npz")
        for label, dynamo, opset, fold, dynamic in [
            ("legacy11", False, 11, True, True), ("legacy17_unfolded", False, 17, False, True),
            ("legacy13_static", False, 13, True, False), ("dynamo", True, 18, True, True),
            ("dynamo_static", True, 23, True, False), ("dynamo_unoptimised", True, 21, False, True),
        ]:
            path = folder / f"{name}.{label}.onnx"
            export(model, image if dynamic else image[:1], str(path), dynamo, opset, fold, dynamic)
            check(path, folder / f"{name}.npz", not dynamic)
    if extra:
        image = torch.rand((2, 3, 112, 112), generator=torch.Generator().manual_seed(6)) * 2 - 1
        reference(Copy(extra), image, folder / "fr_feature.npz")
        target = folder / "fr_feature.file.onnx"
        target.write_bytes(pathlib.Path(extra).read_bytes())
        check(target, folder / "fr_feature.npz", True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", type=pathlib.Path)
    parser.add_argument("--onnx", type=pathlib.Path)
    options = parser.parse_args()
    full(options.full, options.onnx) if options.full else small()
