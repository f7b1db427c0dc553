//! Times typical layers: Burn's convolution, then ours, forward alone and with both gradients.
//!
//! Both keep freed memory, as a training program should. `cargo run --release -p waylay-conv
//! --example layers [NAME]`; milliseconds, the least of several runs.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor, module, ops};
use waylay_conv::{ConvOptions, conv2d};

struct Layer {
    name: &'static str,
    channels: [usize; 2],
    side: usize,
    kernel: usize,
    stride: usize,
    depthwise: bool,
}

const fn layer(name: &'static str, channels: [usize; 2], side: usize, kernel: usize, stride: usize) -> Layer {
    Layer { name, channels, side, kernel, stride, depthwise: false }
}

const LAYERS: [Layer; 12] = [
    layer("3x3 64-64 @56", [64, 64], 56, 3, 1),
    layer("3x3 128-128 @28", [128, 128], 28, 3, 1),
    layer("3x3 256-256 @14", [256, 256], 14, 3, 1),
    layer("3x3 256-256 @7", [256, 256], 7, 3, 1),
    layer("3x3 64-128 @56 s2", [64, 128], 56, 3, 2),
    layer("1x1 64-128 @56", [64, 128], 56, 1, 1),
    layer("1x1 256-512 @14", [256, 512], 14, 1, 1),
    layer("1x1 64-128 @56 s2", [64, 128], 56, 1, 2),
    layer("7x7 3-32 @112", [3, 32], 112, 7, 1),
    layer("7x7 3-64 @112 s2", [3, 64], 112, 7, 2),
    Layer { name: "dw3x3 128 @56", channels: [128, 128], side: 56, kernel: 3, stride: 1, depthwise: true },
    Layer { name: "dw3x3 128 @56 s2", channels: [128, 128], side: 56, kernel: 3, stride: 2, depthwise: true },
];
const IMAGES: usize = 8;
const RUNS: usize = 7;

fn least(mut run: impl FnMut()) -> f64 {
    run();
    let timed = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64() * 1e3
    };
    (0..RUNS).map(timed).fold(f64::MAX, f64::min)
}

fn main() {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    waylay_conv::keep_freed_memory();
    println!(
        "{:20} {:>9} {:>9} {:>9} | {:>9} {:>9} {:>9} {:>9}",
        "ms", "burn", "ours", "winograd", "burn f+b", "ours f+b", "ours x", "win. f+b"
    );
    for Layer { name, channels: [ins, outs], side, kernel, stride, depthwise } in LAYERS {
        if !name.contains(&wanted) {
            continue;
        }
        let groups = if depthwise { ins } else { 1 };
        let pad = kernel / 2;
        let burn = ops::ConvOptions::new([stride; 2], [pad; 2], [1; 2], groups);
        let ours =
            ConvOptions { stride: [stride; 2], padding: [pad; 4], dilation: [1; 2], groups, winograd: false };
        let fast = ConvOptions { winograd: true, ..ours };
        let device = Device::flex();
        let x = Tensor::<4>::random([IMAGES, ins, side, side], Distribution::Default, &device);
        let weight =
            Tensor::<4>::random([outs, ins / groups, kernel, kernel], Distribution::Default, &device);
        let forward = [
            least(|| drop(module::conv2d(x.clone(), weight.clone(), None, burn.clone()))),
            least(|| drop(conv2d(x.clone(), weight.clone(), None, ours))),
            least(|| drop(conv2d(x.clone(), weight.clone(), None, fast))),
        ];
        let device = Device::flex().autodiff();
        let x = Tensor::<4>::from_data(x.into_data(), &device);
        let weight = Tensor::<4>::from_data(weight.into_data(), &device);
        let both =
            |x: &Tensor<4>, weight: &Tensor<4>| (x.clone().require_grad(), weight.clone().require_grad());
        let gradient = Tensor::<4>::ones(conv2d(x.clone(), weight.clone(), None, ours).dims(), &device);
        let backward = [
            least(|| {
                let (x, weight) = both(&x, &weight);
                drop((module::conv2d(x, weight, None, burn.clone()) * gradient.clone()).sum().backward());
            }),
            least(|| {
                let (x, weight) = both(&x, &weight);
                drop((conv2d(x, weight, None, ours) * gradient.clone()).sum().backward());
            }),
            least(|| {
                let x = x.clone().require_grad();
                drop((conv2d(x, weight.clone(), None, ours) * gradient.clone()).sum().backward());
            }),
            least(|| {
                let (x, weight) = both(&x, &weight);
                drop((conv2d(x, weight, None, fast) * gradient.clone()).sum().backward());
            }),
        ];
        println!(
            "{name:20} {:9.2} {:9.2} {:9.2} | {:9.2} {:9.2} {:9.2} {:9.2}",
            forward[0], forward[1], forward[2], backward[0], backward[1], backward[2], backward[3]
        );
    }
}
