"""Networks that people use as feature extractors, as ONNX files with reference outputs and input gradients.

    python scripts/golden/zoo.py DIR [--only NAME ...] [--plain]
    WAYLAY_ONNX_MODELS=DIR cargo test --release --workspace --test agreement full_size -- --ignored --nocapture

Each NAME.VARIANT.onnx gets NAME.npz (`input` of two images, `output`, `cotangent`, `input_grad`; PyTorch in float64,
stored as float32) and a line in DIR/zoo.jsonl: operator set, parameters, and how far PyTorch in float32 is from itself
in float64. Weights are random, scaled so that signals neither vanish nor explode; batch statistics too. With `--plain`, only
the first file of each is written, without a reference and with weights as they are first: for timing.
Needs torch, torchvision, onnx, onnxscript, onnxruntime, numpy; timm, transformers and onnxslim for their parts.
"""

import argparse
import copy
import json
import pathlib
import traceback
import warnings

import numpy
import onnx
import onnxruntime
import torch
import torchvision
from torch import nn

from onnx_models import export, randomise, reference

TV = torchvision.models


class Gem(nn.Module):
    """Generalised-mean pooling, whitening and L2 norm, as image retrieval has it."""

    def __init__(self, dim, out, p=3.0):
        super().__init__()
        self.p = nn.Parameter(torch.tensor(p))
        self.whiten = nn.Linear(dim, out)

    def forward(self, x):
        x = x.clamp(min=1e-6).pow(self.p).mean((-2, -1)).pow(1 / self.p)
        return nn.functional.normalize(self.whiten(x), dim=1)


class IBN(nn.Module):
    """Half instance norm, half batch norm (Pan et al., 2018)."""

    def __init__(self, planes):
        super().__init__()
        self.half = planes // 2
        self.IN = nn.InstanceNorm2d(self.half, affine=True)
        self.BN = nn.BatchNorm2d(planes - self.half)

    def forward(self, x):
        a, b = torch.split(x, [self.half, x.shape[1] - self.half], 1)
        return torch.cat([self.IN(a.contiguous()), self.BN(b.contiguous())], 1)


def reid():
    """fast-reid's baseline: ResNet-50 IBN-a, last stride 1, GeM, BNNeck."""
    model = TV.resnet50()
    for layer in [model.layer1, model.layer2, model.layer3]:
        for block in layer:
            block.bn1 = IBN(block.bn1.num_features)
    model.layer4[0].conv2.stride = model.layer4[0].downsample[0].stride = (1, 1)
    body = nn.Sequential(*list(model.children())[:-2])

    class Baseline(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.neck, self.p = body, nn.BatchNorm1d(2048), nn.Parameter(torch.tensor(3.0))

        def forward(self, x):
            x = self.body(x).clamp(min=1e-6).pow(self.p)
            return self.neck(nn.functional.adaptive_avg_pool2d(x, 1).pow(1 / self.p)[..., 0, 0])

    return Baseline()


class Lite(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(i, o, 1, bias=False), nn.Conv2d(o, o, 3, 1, 1, bias=False, groups=o)
        self.bn = nn.BatchNorm2d(o)

    def forward(self, x):
        return nn.functional.relu(self.bn(self.conv2(self.conv1(x))))


class OSBlock(nn.Module):
    """Four streams of growing reach behind a shared gate (Zhou et al., 2019)."""

    def __init__(self, i, o):
        super().__init__()
        m = o // 4
        conv1x1 = lambda a, b, act=True: nn.Sequential(
            nn.Conv2d(a, b, 1, bias=False), nn.BatchNorm2d(b), *([nn.ReLU()] if act else []))
        self.conv1, self.conv3 = conv1x1(i, m), conv1x1(m, o, False)
        self.streams = nn.ModuleList(nn.Sequential(*[Lite(m, m) for _ in range(n)]) for n in [1, 2, 3, 4])
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(m, m // 16 or 1, 1), nn.ReLU(),
                                  nn.Conv2d(m // 16 or 1, m, 1), nn.Sigmoid())
        self.down = conv1x1(i, o, False) if i != o else nn.Identity()

    def forward(self, x):
        y = self.conv1(x)
        streams = [s(y) for s in self.streams]
        return nn.functional.relu(self.conv3(sum(s * self.gate(s) for s in streams)) + self.down(x))


def osnet():
    conv = lambda a, b, k, s: nn.Sequential(nn.Conv2d(a, b, k, s, k // 2, bias=False), nn.BatchNorm2d(b), nn.ReLU())
    return nn.Sequential(
        conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1),
        OSBlock(64, 256), OSBlock(256, 256), conv(256, 256, 1, 1), nn.AvgPool2d(2, 2),
        OSBlock(256, 384), OSBlock(384, 384), conv(384, 384, 1, 1), nn.AvgPool2d(2, 2),
        OSBlock(384, 512), OSBlock(512, 512), conv(512, 512, 1, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU())


class IRBlock(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.res = nn.Sequential(nn.BatchNorm2d(i), nn.Conv2d(i, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o), nn.PReLU(o),
                                 nn.Conv2d(o, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o))
        self.down = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o)) if stride > 1 or i != o else nn.Identity()

    def forward(self, x):
        return self.res(x) + self.down(x)


def iresnet(layers=(2, 2, 2, 2)):
    """insightface's IResNet (18 by default)."""
    blocks, i = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)], 64
    for o, count in zip([64, 128, 256, 512], layers):
        blocks += [IRBlock(i if n == 0 else o, o, 2 if n == 0 else 1) for n in range(count)]
        i = o
    return nn.Sequential(*blocks, nn.BatchNorm2d(512), nn.Dropout(0.4), nn.Flatten(), nn.Linear(512 * 49, 512), nn.BatchNorm1d(512))


class MobileBlock(nn.Module):
    def __init__(self, i, o, stride, groups, skip):
        super().__init__()
        self.skip = skip
        self.body = nn.Sequential(nn.Conv2d(i, groups, 1, bias=False), nn.BatchNorm2d(groups), nn.PReLU(groups),
                                  nn.Conv2d(groups, groups, 3, stride, 1, groups=groups, bias=False), nn.BatchNorm2d(groups), nn.PReLU(groups),
                                  nn.Conv2d(groups, o, 1, bias=False), nn.BatchNorm2d(o))

    def forward(self, x):
        return x + self.body(x) if self.skip else self.body(x)


def mobilefacenet():
    layers = [nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)]
    for i, o, count, groups in [(64, 64, 4, 128), (64, 128, 6, 256), (128, 128, 2, 512)]:
        layers += [MobileBlock(i, o, 2, groups, False)] + [MobileBlock(o, o, 1, groups // 2 or 1, True) for _ in range(count)]
    return nn.Sequential(*layers, nn.Conv2d(128, 512, 1, bias=False), nn.BatchNorm2d(512), nn.PReLU(512),
                         nn.Conv2d(512, 512, 7, groups=512, bias=False), nn.BatchNorm2d(512), nn.Flatten(), nn.Linear(512, 128, bias=False), nn.BatchNorm1d(128))


class Pick(nn.Module):
    """One field of what a transformers model returns."""

    def __init__(self, model, field):
        super().__init__()
        self.model, self.field = model, field

    def forward(self, x):
        return getattr(self.model(pixel_values=x), self.field)


def hf(config, model, field, **settings):
    import transformers
    return Pick(getattr(transformers, model)(getattr(transformers, config)(**settings)), field)


def timm_model(name, **settings):
    import timm
    return timm.create_model(name, num_classes=0, **settings)


def gem_resnet():
    model = TV.resnet18()
    return nn.Sequential(*list(model.children())[:-2], Gem(512, 128))


SMALL = dict(hidden_size=192, intermediate_size=768, num_hidden_layers=4, num_attention_heads=3, image_size=96, patch_size=16)
L11, L13, L17, STATIC, UNFOLDED = "legacy11", "legacy13", "legacy17", "legacy17_static", "legacy16_unfolded"
D18, D20, D23, D24, RAW = "dynamo18", "dynamo20_static", "dynamo23", "dynamo24", "dynamo18_unoptimised"

# name: (constructor, height, width, variants)
MODELS = {
    "alexnet": (lambda: TV.alexnet(), 224, 224, [L13, D18]),
    "vgg11_bn": (lambda: TV.vgg11_bn(), 224, 224, [L17]),
    "googlenet": (lambda: TV.googlenet(aux_logits=False, init_weights=False), 96, 96, [L17, D18]),
    "inception_v3": (lambda: TV.inception_v3(aux_logits=False, init_weights=False), 128, 128, [L17]),
    "resnet18": (lambda: TV.resnet18(), 96, 96, [L11, STATIC, D18, RAW, "slim", "runtime", "int8", "external", "old"]),
    "resnet50": (lambda: TV.resnet50(), 96, 96, [L17, D24]),
    "resnext50_32x4d": (lambda: TV.resnext50_32x4d(), 64, 64, [L17]),
    "wide_resnet50_2": (lambda: TV.wide_resnet50_2(), 64, 64, [L17]),
    "densenet121": (lambda: TV.densenet121(), 64, 64, [L13, D18]),
    "squeezenet1_1": (lambda: TV.squeezenet1_1(), 96, 96, [L17, D18, "half", "bfloat"]),
    "mobilenet_v2": (lambda: TV.mobilenet_v2(), 96, 96, [L11, D23, "slim"]),
    "mobilenet_v3_large": (lambda: TV.mobilenet_v3_large(), 96, 96, [L13, D18]),
    "mobilenet_v3_small": (lambda: TV.mobilenet_v3_small(), 96, 96, [L17]),
    "shufflenet_v2_x1_0": (lambda: TV.shufflenet_v2_x1_0(), 96, 96, [L17, UNFOLDED, D18]),
    "mnasnet1_0": (lambda: TV.mnasnet1_0(), 96, 96, [L17]),
    "efficientnet_b0": (lambda: TV.efficientnet_b0(), 96, 96, [L17, D18, D24]),
    "efficientnet_v2_s": (lambda: TV.efficientnet_v2_s(), 96, 96, [L17]),
    "regnet_y_400mf": (lambda: TV.regnet_y_400mf(), 96, 96, [L17]),
    "regnet_x_400mf": (lambda: TV.regnet_x_400mf(), 96, 96, [D18]),
    "convnext_tiny": (lambda: TV.convnext_tiny(), 96, 96, [L13, L17, D18, D23]),
    "vit_b_16": (lambda: TV.VisionTransformer(96, 16, 12, 12, 768, 3072), 96, 96, [L17, D18, D23]),
    "swin_t": (lambda: TV.swin_t(), 112, 112, [L17, UNFOLDED, D18, "slim"]),
    "swin_v2_t": (lambda: TV.swin_v2_t(), 128, 128, [L17, D18]),
    "maxvit_t": (lambda: TV.maxvit_t(), 224, 224, [L17, D18]),
    "gem_resnet18": (gem_resnet, 96, 128, [L11, L17, D18, D23]),
    "reid_resnet50_ibn": (reid, 128, 64, [L13, D18]),
    "osnet_x1_0": (osnet, 128, 64, [L11, L17, D18, STATIC]),
    "iresnet18": (iresnet, 112, 112, [L11, D18, "static2"]),
    "mobilefacenet": (mobilefacenet, 112, 112, [L11, D18]),
    "clip_vit": (lambda: hf("CLIPVisionConfig", "CLIPVisionModelWithProjection", "image_embeds", **SMALL), 96, 96, [L17, D18, D23]),
    "dinov2": (lambda: hf("Dinov2Config", "Dinov2Model", "pooler_output", **{k: v for k, v in SMALL.items() if k != "intermediate_size"}), 96, 96, [L17, D18, D23]),
    "dinov2_large_image": (lambda: hf("Dinov2Config", "Dinov2Model", "pooler_output", **{k: v for k, v in SMALL.items() if k != "intermediate_size"}), 128, 112, [L17, D18]),
    "siglip": (lambda: hf("SiglipVisionConfig", "SiglipVisionModel", "pooler_output", **SMALL), 96, 96, [L17, D18]),
    "beit": (lambda: hf("BeitConfig", "BeitModel", "pooler_output", **SMALL), 96, 96, [L17]),
    "convnextv2_atto": (lambda: timm_model("convnextv2_atto"), 96, 96, [L17, D18]),
    "vit_small_reg": (lambda: timm_model("vit_small_patch14_reg4_dinov2", img_size=98), 98, 98, [L17, D18]),
    "deit_tiny": (lambda: timm_model("deit_tiny_distilled_patch16_224", img_size=96), 96, 96, [L17]),
    "mixer": (lambda: timm_model("mixer_s32_224", img_size=96), 96, 96, [L17, D18]),
    "ghostnet": (lambda: timm_model("ghostnet_100"), 96, 96, [L17]),
    "repvgg_a0": (lambda: timm_model("repvgg_a0"), 96, 96, [L17]),
    "eca_nfnet_l0": (lambda: timm_model("eca_nfnet_l0"), 96, 96, [L17, D18]),
    "resnest14d": (lambda: timm_model("resnest14d"), 96, 96, [L17]),
    "seresnext26d": (lambda: timm_model("seresnext26d_32x4d"), 96, 96, [L17]),
    "levit_128s": (lambda: timm_model("levit_128s"), 224, 224, [L17, D18]),
    "efficientformer_l1": (lambda: timm_model("efficientformer_l1"), 224, 224, [L17]),
    "mobilevit_s": (lambda: timm_model("mobilevit_s"), 128, 128, [L17, D18]),
    "resnetv2_50": (lambda: timm_model("resnetv2_50"), 96, 96, [L17]),
    "coatnet_pico": (lambda: timm_model("coatnet_pico_rw_224"), 224, 224, [L17]),
    "eva02_tiny": (lambda: timm_model("eva02_tiny_patch14_224", img_size=98), 98, 98, [L17, D18]),
    "resnet50_clip": (lambda: timm_model("resnet50_clip", img_size=128), 128, 128, [L17]),
}


# How far neighbours of an image are, in parts of each pixel, and the most that a gradient may change among them: kinks move
# it by 1e-4 to 1e-1 of its largest element, everything else by about 1e-6.
FAR, STEADY = (1e-6, 2e-6, 3e-6), 1e-4
# How far from a tie every rectifier and maximum ends where images are cleared, in parts of what its layer sees.
MARGIN = 3e-5


def stir(model, seed):
    """`randomise`, and everything else that starts at 0 or 1 away from there."""
    randomise(model, seed)
    generator = torch.Generator().manual_seed(seed + 1000)
    spread = lambda p, low, high: p.data.copy_(torch.rand(p.shape, generator=generator) * (high - low) + low)
    for module in model.modules():
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d)) or "LayerNorm" in type(module).__name__:
            for name, p in module.named_parameters(recurse=False):
                spread(p, *((0.6, 1.4) if name == "weight" else (-0.2, 0.2)))
        if isinstance(module, nn.BatchNorm2d):
            # Most rectifiers stay open: where many see numbers near 0, rounding decides on which side, and PyTorch's own
            # gradients in float32 are percents away from those in float64.
            spread(module.weight, 0.4, 0.8), spread(module.bias, 1.0, 2.0)
        if isinstance(module, nn.BatchNorm1d):
            spread(module.running_mean, -0.3, 0.3), spread(module.running_var, 0.5, 1.5)
    for name, p in model.named_parameters():
        tail = name.split(".")[-1]
        if tail in ("gamma", "layer_scale", "lambda1", "gamma_1", "gamma_2", "ls1", "ls2"):
            spread(p, 0.3, 0.7)
        elif p.dim() > 0 and p.detach().abs().max() == 0 or "pos_embed" in tail or "position_embeddings" in tail:
            spread(p, -0.2, 0.2)
    return model.eval()


def calibrate(model, height, width):
    """Batch statistics as measured on random images, so that no signal grows without bound."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    if norms:
        with torch.no_grad():
            model(torch.randn((8, 3, height, width), generator=torch.Generator().manual_seed(5)))
    return model.eval()


def clearances(model, x):
    """How far each rectifier's input is from its kinks, and each maximum from the second largest, layer by layer. Sees
    modules only: of `functional.relu` it knows nothing, and images there are judged by their gradients alone."""
    pair, found = nn.modules.utils._pair, []

    def see(module, inputs):
        seen = inputs[0]
        if isinstance(module, nn.MaxPool2d):
            (top, left), (high, wide), (down, right) = pair(module.padding), pair(module.kernel_size), pair(module.stride)
            padded = nn.functional.pad(seen, (left, left, top, top), value=-1e30)
            first, second = padded.unfold(2, high, down).unfold(3, wide, right).flatten(-2).topk(2).values.unbind(-1)
            clear = first - second
        else:
            clear = torch.minimum(seen.abs(), (seen - 6).abs()) if isinstance(module, nn.ReLU6) else seen.abs()
        found.append(clear[clear > 0] / seen.detach().std())  # exactly 0: closed rectifiers before a maximum

    kinds = (nn.ReLU, nn.ReLU6, nn.PReLU, nn.MaxPool2d)
    hooks = [m.register_forward_pre_hook(see) for m in model.modules() if isinstance(m, kinds)]
    model(x)
    for hook in hooks:
        hook.remove()
    return found


def cleared(exact, image, steps=20):
    """The image moved a little, until nothing in the network is within `MARGIN` of a tie."""
    apart = copy.deepcopy(exact)
    for module in apart.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    x = image.double()
    for _ in range(steps):
        x = x.detach().requires_grad_()
        found = clearances(apart, x)
        if not any((clear < MARGIN).any() for clear in found):
            break
        short = sum((2 * MARGIN - clear[clear < 2 * MARGIN]).sum() for clear in found)
        short.backward()
        x = x.detach() - x.grad * (short.detach() / x.grad.square().sum().clamp(min=1e-30))
    return x.detach().float()


def clear_image(model, height, width, tries=24):
    """Two images at which rounding flips no ReLU and no maximum, as far as some can be found: gradients there differ little
    between float32 and float64, and between an image and its neighbours. Of `tries` random images, the two whose gradients
    hold at the farthest neighbours, and move least there; images are judged one by one, as no network mixes them. Large
    networks with large maps have a tie near every image: there, the two are moved away from it."""
    exact = copy.deepcopy(model).double()

    def slope(net, x):
        x = x.clone().requires_grad_()
        y = net(x)
        (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(7)).to(y)).sum().backward()
        return x.grad

    def judged(image, seed):
        """How many distances of `FAR` its gradient holds at, how far it moves, and the image."""
        generator = torch.Generator().manual_seed(seed + 1000)
        wanted = slope(exact, image.double())
        held, moved = 0, relative(slope(model, image), wanted)
        for distance in FAR:
            near = [image.double() * (1 + distance * torch.randn(image.shape, generator=generator)) for _ in range(2)]
            farther = max(moved, *(relative(slope(exact, x), wanted) for x in near)) if moved <= STEADY else moved
            if farther > STEADY:
                break
            held, moved = held + 1, farther
        return held, moved, image

    best = lambda found: sorted(found, key=lambda one: (-one[0], one[1]))[:2]
    found = []
    for seed in range(17, 17 + tries):
        image = torch.randn((1, 3, height, width), generator=torch.Generator().manual_seed(seed))
        found = best([*found, judged(image, seed)])
        if len(found) == 2 and all(held == len(FAR) and moved < 2e-5 for held, moved, _ in found):
            break
    found = best([*found, *(judged(cleared(exact, image), 0) for held, _, image in found if held < len(FAR))])
    return torch.cat([image for *_, image in found]), [([0, *FAR][held], moved) for held, moved, _ in found]


def rounded(model, kind):
    """The same network with weights as a smaller type holds them."""
    if kind in ("half", "bfloat"):
        short = torch.float16 if kind == "half" else torch.bfloat16
        for p in [*model.parameters(), *model.buffers()]:
            if p.is_floating_point():
                p.data = p.data.to(short).float()
    if kind == "int8":
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                scale = module.weight.data.flatten(1).abs().amax(1) / 127
                shape = [-1] + [1] * (module.weight.dim() - 1)
                module.weight.data = (module.weight.data / scale.view(shape)).round().clamp(-127, 127) * scale.view(shape)
    return model


def rewrite(path, kind):
    """Stores weights of an exported file in a smaller type, behind a Cast or a DequantizeLinear."""
    from onnx import helper, numpy_helper

    model = onnx.load(path)
    graph, front, keep = model.graph, [], []
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype != numpy.float32 or (kind == "int8" and array.ndim < 2):
            keep.append(tensor)
            continue
        small = f"{tensor.name}_small"
        if kind == "int8":
            scale = numpy.abs(array.reshape(len(array), -1)).max(1) / 127
            keep.append(numpy_helper.from_array(numpy.round(array / scale.reshape([-1] + [1] * (array.ndim - 1))).astype(numpy.int8), small))
            keep.append(numpy_helper.from_array(scale.astype(numpy.float32), f"{small}_scale"))
            keep.append(numpy_helper.from_array(numpy.zeros(len(array), numpy.int8), f"{small}_zero"))
            front.append(helper.make_node("DequantizeLinear", [small, f"{small}_scale", f"{small}_zero"], [tensor.name], axis=0))
        else:
            short = onnx.TensorProto.FLOAT16 if kind == "half" else onnx.TensorProto.BFLOAT16
            keep.append(helper.make_tensor(small, short, array.shape, array.flatten().tolist()))
            front.append(helper.make_node("Cast", [small], [tensor.name], to=onnx.TensorProto.FLOAT))
    del graph.initializer[:]
    graph.initializer.extend(keep)
    nodes = [*front, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, path)


def exportable(model, dynamo):
    """Keeps PyTorch off what its older exporter cannot write: a fused operator of inference, and an attention in timm
    that hands on a flag by name, which becomes a tensor when traced."""
    torch.backends.mha.set_fastpath_enabled(False)
    for module in model.modules():
        if type(module).__name__ == "EvaAttention":
            module.fused_attn = dynamo


def write(model, image, path, variant):
    """Exports one variant. Names say exporter, operator set, and what else was done."""
    kind, _, rest = variant.partition("_")
    dynamo = kind.startswith("dynamo")
    exportable(model, dynamo)
    static = "static" in variant
    if kind in ("slim", "runtime", "half", "bfloat", "int8", "external", "old", "static2"):
        export(model, image, str(path), False, 11 if kind == "old" else 13, True, kind != "static2", "feature")
        if kind in ("half", "bfloat", "int8"):
            rewrite(path, kind)
        elif kind == "slim":
            import onnxslim
            onnx.save(onnxslim.slim(onnx.load(path)), path)
        elif kind == "runtime":
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
            options.optimized_model_filepath = str(path)
            onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        elif kind == "external":
            onnx.save(onnx.load(path), path, save_as_external_data=True, location=path.name + ".data", size_threshold=64)
        elif kind == "old":
            loaded = onnx.load(path)
            for tensor in loaded.graph.initializer:
                loaded.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
            onnx.save(loaded, path)
        return
    opset = int(kind.removeprefix("legacy").removeprefix("dynamo"))
    export(model, image[:1] if static else image, str(path), dynamo, opset, rest not in ("unfolded", "unoptimised"), not static, "feature")


def relative(a, b):
    return float((a.double() - b.double()).abs().max() / b.double().abs().max())


def make(folder, name):
    build, height, width, variants = MODELS[name]
    torch.manual_seed(len(name))
    base = calibrate(stir(build(), len(name)), height, width).requires_grad_(False)
    for module in base.modules():
        if hasattr(module, "attention_bias_cache"):  # timm's; in the type and the graph of whoever ran first
            module.register_forward_pre_hook(lambda m, _: m.attention_bias_cache.clear())
    image, steady = clear_image(base, height, width)
    print(f"{name}: gradients hold {' and '.join(f'{far:.0e} away (moving by {moved:.0e})' for far, moved in steady)}", flush=True)
    for variant in variants:
        stem = f"{name}-{variant}" if variant in ("half", "bfloat", "int8") else name
        model = rounded(copy.deepcopy(base), variant)
        npz = folder / f"{stem}.npz"
        if not npz.exists():
            reference(model, image, npz)
        path = folder / f"{stem}.{variant}.onnx"
        try:
            write(model, image, path, variant)
            arrays = {k: torch.from_numpy(v) for k, v in numpy.load(npz).items()}
            x = image.clone().requires_grad_()
            y = model(x)
            (y * arrays["cotangent"]).sum().backward()
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            parts = image if "static2" in variant or "static" not in variant else None
            run = lambda p: session.run(None, {session.get_inputs()[0].name: p.numpy()})[0]
            found = run(parts) if parts is not None else numpy.concatenate([run(p[None]) for p in image])
            line = {
                "file": path.name, "opset": max(o.version for o in onnx.load(path, load_external_data=False).opset_import if o.domain == ""),
                "size": [height, width], "parameters": sum(p.numel() for p in model.parameters()),
                "differ": relative(arrays["output"][0], arrays["output"][1]),
                "torch32_values": relative(y.detach(), arrays["output"]), "torch32_gradient": relative(x.grad, arrays["input_grad"]),
                "onnxruntime_values": relative(torch.from_numpy(found), arrays["output"]),
            }
            print(json.dumps(line), flush=True)
            with open(folder / "zoo.jsonl", "a") as log:
                log.write(json.dumps(line) + "\n")
        except Exception:
            path.unlink(missing_ok=True)
            print(f"{path.name}: cannot be exported: {traceback.format_exc().strip().splitlines()[-1][:200]}", flush=True)


def make_plain(folder, name):
    build, height, width, variants = MODELS[name]
    torch.manual_seed(len(name))
    model = build().eval().requires_grad_(False)
    write(model, torch.rand(2, 3, height, width), folder / f"{name}.{variants[0]}.onnx", variants[0])
    print(f"{name}.{variants[0]}.onnx", flush=True)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--only", nargs="+", default=list(MODELS))
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        try:
            (make_plain if options.plain else make)(options.folder, name)
        except Exception:
            print(f"{name}: cannot be made: {traceback.format_exc().strip().splitlines()[-1][:200]}", flush=True)
