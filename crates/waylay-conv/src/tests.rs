//! Every kernel against plain loops in double precision, and every operation against Burn's own.

use burn::tensor::{Device, Tensor, TensorData};
use proptest::prelude::*;

use crate::epilogue::Epilogue;
use crate::filters::Filters;
use crate::options::{ConvOptions, Geometry};
use crate::{
    activate, conv_transpose2d, conv2d, conv2d_then, depthwise, dispatch, instance_norm, instance_norm_then,
    layer_norm, max_pool2d, pixel_shuffle, pixel_unshuffle, prelu, reference, softmax, upsample_nearest,
};

/// A convolution's sizes: images, groups, channels in and out per group, input, kernel, stride,
/// padding, dilation.
type Case = (usize, usize, [usize; 2], [usize; 2], [usize; 2], [usize; 2], [usize; 4], [usize; 2]);

const CASES: [Case; 37] = [
    (2, 1, [3, 5], [7, 9], [3, 3], [1, 1], [1, 1, 1, 1], [1, 1]),
    (1, 1, [1, 1], [1, 1], [1, 1], [1, 1], [0, 0, 0, 0], [1, 1]),
    (3, 1, [16, 33], [13, 11], [1, 1], [1, 1], [0, 0, 0, 0], [1, 1]),
    (9, 1, [20, 17], [7, 7], [1, 1], [1, 1], [0, 0, 0, 0], [1, 1]),
    (2, 1, [8, 6], [9, 9], [1, 1], [2, 2], [0, 0, 0, 0], [1, 1]),
    (9, 1, [12, 18], [7, 7], [3, 3], [1, 1], [1, 1, 1, 1], [1, 1]),
    (1, 1, [40, 50], [31, 29], [3, 3], [1, 1], [1, 1, 1, 1], [1, 1]),
    (2, 1, [3, 8], [33, 31], [7, 7], [2, 2], [3, 3, 3, 3], [1, 1]),
    (2, 1, [6, 4], [15, 16], [3, 3], [2, 2], [1, 1, 1, 1], [1, 1]),
    (2, 1, [6, 4], [15, 16], [3, 3], [3, 2], [0, 1, 2, 0], [1, 1]),
    (2, 1, [4, 4], [12, 13], [3, 3], [1, 1], [2, 2, 2, 2], [2, 2]),
    (2, 1, [4, 4], [12, 13], [3, 2], [2, 1], [3, 0, 1, 2], [1, 2]),
    (2, 1, [2, 3], [5, 6], [2, 3], [1, 1], [3, 2, 0, 4], [1, 1]),
    (1, 1, [2, 3], [4, 4], [1, 1], [1, 1], [1, 1, 1, 1], [1, 1]),
    (2, 2, [3, 4], [9, 8], [3, 3], [1, 1], [1, 1, 1, 1], [1, 1]),
    (3, 4, [2, 3], [6, 7], [3, 3], [2, 2], [1, 1, 1, 1], [1, 1]),
    (2, 5, [1, 1], [9, 11], [3, 3], [1, 1], [1, 1, 1, 1], [1, 1]),
    (2, 5, [1, 1], [9, 11], [3, 3], [2, 2], [1, 1, 1, 1], [1, 1]),
    (2, 3, [1, 1], [12, 10], [5, 5], [3, 2], [2, 0, 1, 3], [1, 2]),
    (2, 3, [1, 1], [7, 7], [7, 7], [1, 1], [0, 0, 0, 0], [1, 1]),
    (2, 3, [1, 1], [8, 9], [1, 2], [3, 3], [0, 0, 0, 0], [1, 1]),
    (2, 3, [1, 2], [10, 9], [3, 3], [2, 1], [1, 0, 1, 1], [1, 1]),
    // Few channels out or in, and many taps.
    (2, 1, [9, 3], [12, 11], [7, 7], [1, 1], [3, 3, 3, 3], [1, 1]),
    (2, 1, [3, 20], [13, 12], [4, 4], [2, 2], [1, 1, 1, 1], [1, 1]),
    (2, 1, [20, 70], [13, 12], [4, 4], [2, 2], [1, 1, 1, 1], [1, 1]),
    (3, 2, [10, 9], [17, 8], [5, 3], [3, 2], [2, 1, 0, 3], [1, 1]),
    // Few outputs and many filters, in groups too.
    (1, 2, [5, 72], [5, 6], [3, 3], [2, 1], [1, 0, 1, 1], [1, 1]),
    (2, 1, [11, 150], [4, 4], [3, 3], [2, 2], [1, 1, 1, 1], [1, 1]),
    // By Winograd's transform, all or in part.
    (2, 1, [32, 40], [13, 18], [3, 3], [1, 1], [1, 1, 1, 1], [1, 1]),
    (8, 1, [33, 64], [7, 7], [3, 3], [1, 1], [1, 1, 1, 1], [1, 1]),
    (6, 1, [32, 32], [6, 9], [3, 3], [1, 1], [0, 2, 1, 0], [1, 1]),
    (3, 1, [64, 33], [28, 30], [3, 3], [1, 1], [1, 1, 1, 1], [1, 1]),
    (8, 1, [48, 32], [4, 4], [3, 3], [1, 1], [2, 2, 2, 2], [1, 1]),
    (2, 1, [256, 128], [14, 14], [3, 3], [1, 1], [1, 1, 1, 1], [1, 1]),
    (6, 1, [32, 40], [29, 31], [3, 3], [2, 2], [1, 1, 1, 1], [1, 1]),
    (8, 1, [33, 64], [28, 28], [3, 3], [2, 2], [0, 1, 1, 0], [1, 1]),
    (2, 1, [32, 33], [56, 57], [3, 3], [2, 2], [2, 0, 0, 2], [1, 1]),
];

fn geometry(
    (images, groups, [ins, outs], [h, w], [kh, kw], stride, padding, dilation): Case,
) -> Option<Geometry> {
    let options = ConvOptions { stride, padding, dilation, groups, winograd: false };
    Geometry::new([images, groups * ins, h, w], [groups * outs, ins, kh, kw], options)
}

/// Values in -1 to 1, the same for the same seed.
pub(crate) fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(step).collect()
}

/// All instructions that this processor can run.
pub(crate) fn archs() -> Vec<pulp::Arch> {
    let mut archs = vec![pulp::Arch::Scalar, pulp::Arch::new()];
    #[cfg(target_arch = "x86_64")]
    archs.extend(pulp::x86::V3::try_new().map(pulp::Arch::V3));
    archs
}

/// Calls `visit` with the places of the output, input and weight of every product of a convolution.
fn for_each_product(g: &Geometry, mut visit: impl FnMut(usize, usize, usize)) {
    let [h, w] = g.input;
    let ([kh, kw], [oh, ow]) = (g.kernel, g.output);
    for image in 0..g.images {
        for out in 0..g.out_channels {
            for input in 0..g.group_in() {
                let channel = out / g.group_out() * g.group_in() + input;
                for (oy, ox, ky, kx) in places([oh, ow, kh, kw]) {
                    let iy = (oy * g.options.stride[0] + ky * g.options.dilation[0])
                        .wrapping_sub(g.options.padding[0]);
                    let ix = (ox * g.options.stride[1] + kx * g.options.dilation[1])
                        .wrapping_sub(g.options.padding[1]);
                    if iy < h && ix < w {
                        visit(
                            ((image * g.out_channels + out) * oh + oy) * ow + ox,
                            ((image * g.in_channels + channel) * h + iy) * w + ix,
                            ((out * g.group_in() + input) * kh + ky) * kw + kx,
                        );
                    }
                }
            }
        }
    }
}

fn places([a, b, c, d]: [usize; 4]) -> impl Iterator<Item = (usize, usize, usize, usize)> {
    (0..a * b * c * d).map(move |i| (i / (b * c * d), i / (c * d) % b, i / d % c, i % d))
}

/// Largest difference relative to the largest value.
fn error(ours: &[f32], exact: &[f64]) -> f64 {
    assert_eq!(ours.len(), exact.len());
    let scale = exact.iter().fold(1.0_f64, |scale, value| scale.max(value.abs()));
    ours.iter().zip(exact).map(|(a, b)| (f64::from(*a) - b).abs() / scale).fold(0.0, f64::max)
}

/// Largest errors of the output and of the gradients of input and weight.
fn errors(g: &Geometry, seed: u64) -> [f64; 3] {
    let x = values(g.images * g.in_channels * g.input_area(), seed);
    let weight = values(g.out_channels * g.depth(), seed + 1);
    let bias = values(g.out_channels, seed + 2);
    let gradient = values(g.images * g.out_channels * g.output_area(), seed + 3);
    let mut output: Vec<f64> =
        (0..gradient.len()).map(|i| f64::from(bias[i / g.output_area() % g.out_channels])).collect();
    let (mut x_gradient, mut weight_gradient) = (vec![0.0; x.len()], vec![0.0; weight.len()]);
    for_each_product(g, |out, input, tap| {
        output[out] += f64::from(x[input]) * f64::from(weight[tap]);
        x_gradient[input] += f64::from(gradient[out]) * f64::from(weight[tap]);
        weight_gradient[tap] += f64::from(gradient[out]) * f64::from(x[input]);
    });
    let ours = if g.is_depthwise() {
        [
            depthwise::forward(g, &x, &weight, &Epilogue { bias: Some(&bias), ..Epilogue::default() }),
            depthwise::input_gradient(g, &weight, &gradient),
            depthwise::weight_gradient(g, &x, &gradient),
        ]
    } else {
        [
            dispatch::forward(
                g,
                &x,
                &Filters::new(&weight),
                &Epilogue { bias: Some(&bias), ..Epilogue::default() },
            ),
            dispatch::input_gradient(g, &weight, &gradient),
            dispatch::weight_gradient(g, &x, &gradient),
        ]
    };
    [error(&ours[0], &output), error(&ours[1], &x_gradient), error(&ours[2], &weight_gradient)]
}

#[test]
fn every_case_agrees_with_plain_loops() {
    for (seed, case) in CASES.into_iter().enumerate() {
        let g = geometry(case).unwrap_or_else(|| panic!("{case:?} has no output"));
        let found = errors(&g, seed as u64);
        assert!(found.iter().all(|error| *error < 1e-6), "{case:?}: {found:?}");
        let found = errors(&fast(g), seed as u64);
        assert!(found.iter().all(|error| *error < 4e-6), "by Winograd, {case:?}: {found:?}");
    }
}

/// The same convolution by Winograd's transform, where it has one.
fn fast(g: Geometry) -> Geometry {
    Geometry { options: ConvOptions { winograd: true, ..g.options }, ..g }
}

#[test]
fn any_number_of_threads_agrees_with_plain_loops() {
    for threads in [1, 3, 8] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        for case in CASES {
            let errors = pool.install(|| errors(&fast(geometry(case).expect("an output")), 7));
            assert!(errors.iter().all(|error| *error < 4e-6), "{threads} threads, {case:?}: {errors:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn random_convolutions_agree_with_plain_loops(
        (images, groups, channels) in (1..4_usize, 1..4_usize, prop::array::uniform2(1..6_usize)),
        (input, kernel) in (prop::array::uniform2(1..20_usize), prop::array::uniform2(1..5_usize)),
        stride in prop::array::uniform2(1..4_usize),
        padding in prop::array::uniform4(0..4_usize),
        dilation in prop::array::uniform2(1..3_usize),
        seed in 0..1000_u64,
    ) {
        let Some(g) = geometry((images, groups, channels, input, kernel, stride, padding, dilation)) else {
            return Ok(());
        };
        let errors = errors(&g, seed);
        prop_assert!(errors.iter().all(|error| *error < 1e-5), "{:?}", errors);
    }
}

fn tensor<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    let data = TensorData::new(values(shape.iter().product(), seed), shape);
    Tensor::from_data(data, &Device::flex().autodiff()).require_grad()
}

fn exact(data: TensorData) -> Vec<f64> {
    floats(data).into_iter().map(f64::from).collect()
}

fn floats(data: TensorData) -> Vec<f32> {
    data.try_to_vec().expect("f32 values")
}

/// Output of `operation`, and the gradients of a weighted sum of it for `x` and each of the
/// vectors.
fn run<const D: usize>(
    inputs: &(Tensor<4>, Option<Tensor<D>>, Vec<Tensor<1>>),
    operation: impl Fn(&(Tensor<4>, Option<Tensor<D>>, Vec<Tensor<1>>)) -> Tensor<4>,
) -> Vec<TensorData> {
    let output = operation(inputs);
    let weights = tensor(output.dims(), 99).detach();
    let grads = (output.clone() * weights).sum().backward();
    let mut all = vec![output.into_data()];
    all.extend(inputs.0.grad(&grads).map(|g| g.into_data()));
    all.extend(inputs.1.iter().filter_map(|t| t.grad(&grads)).map(|g| g.into_data()));
    all.extend(inputs.2.iter().filter_map(|t| t.grad(&grads)).map(|g| g.into_data()));
    all
}

fn assert_same(ours: Vec<TensorData>, reference: Vec<TensorData>, name: &str) {
    assert_eq!(ours.len(), reference.len(), "{name}");
    for (place, (ours, reference)) in ours.into_iter().zip(reference).enumerate() {
        assert_eq!(ours.shape(), reference.shape(), "{name}");
        let error = error(&floats(ours), &exact(reference));
        assert!(error < 1e-5, "{name}: value {place} differs by {error}");
    }
}

#[test]
fn conv2d_and_its_gradients_equal_burns() {
    for case in CASES {
        let g = geometry(case).expect("an output");
        let x = tensor([g.images, g.in_channels, g.input[0], g.input[1]], 1);
        let weight = tensor([g.out_channels, g.group_in(), g.kernel[0], g.kernel[1]], 2);
        let inputs = (x, Some(weight), vec![tensor([g.out_channels], 3)]);
        let call = |conv: fn(Tensor<4>, Tensor<4>, Option<Tensor<1>>, ConvOptions) -> Tensor<4>| {
            run(&inputs, |(x, weight, bias)| {
                conv(x.clone(), weight.clone().expect("a weight"), bias.first().cloned(), g.options)
            })
        };
        assert_same(call(conv2d), call(reference::conv2d), &format!("{case:?}"));
    }
}

#[test]
fn what_follows_a_convolution_and_its_gradients_equal_burns() {
    for case in CASES {
        let g = geometry(case).expect("an output");
        let x = tensor([g.images, g.in_channels, g.input[0], g.input[1]], 1);
        let weight = tensor([g.out_channels, g.group_in(), g.kernel[0], g.kernel[1]], 2);
        let (bias, add) =
            (tensor([g.out_channels], 3), tensor([g.images, g.out_channels, g.output[0], g.output[1]], 4));
        for (add, relu) in
            [(false, true), (true, false), (true, true)].map(|(a, r)| (a.then(|| add.clone()), r))
        {
            let call = |ours: bool| {
                let (x, weight, bias) = (x.clone(), weight.clone(), bias.clone());
                let output = if ours {
                    conv2d_then(x.clone(), weight.clone(), Some(bias.clone()), add.clone(), relu, g.options)
                } else {
                    reference::conv2d_then(
                        x.clone(),
                        weight.clone(),
                        Some(bias.clone()),
                        add.clone(),
                        relu,
                        g.options,
                    )
                };
                let grads = (output.clone() * tensor(output.dims(), 99).detach()).sum().backward();
                let gradients =
                    [x.grad(&grads), weight.grad(&grads), add.as_ref().and_then(|a| a.grad(&grads))];
                let mut all = vec![output.into_data()];
                all.extend(gradients.into_iter().flatten().map(Tensor::into_data));
                all.extend(bias.grad(&grads).map(Tensor::into_data));
                all
            };
            assert_same(call(true), call(false), &format!("{case:?}, added {}, relu {relu}", add.is_some()));
        }
    }
}

#[test]
fn what_is_added_is_written_over_only_where_nobody_else_holds_it() {
    for (case, winograd) in CASES.into_iter().flat_map(|case| [(case, false), (case, true)]) {
        let g = geometry(case).expect("an output");
        let options = ConvOptions { winograd, ..g.options };
        let plain = |dims: [usize; 4], seed| tensor(dims, seed).inner();
        let x = plain([g.images, g.in_channels, g.input[0], g.input[1]], 1);
        let weight = plain([g.out_channels, g.group_in(), g.kernel[0], g.kernel[1]], 2);
        let bias = tensor([g.out_channels], 3).inner();
        let add = || plain([g.images, g.out_channels, g.output[0], g.output[1]], 4);
        for relu in [false, true] {
            let sum =
                |add| conv2d_then(x.clone(), weight.clone(), Some(bias.clone()), Some(add), relu, options);
            let held = add();
            let beside = sum(held.clone()).into_data();
            assert_eq!(held.into_data(), add().into_data(), "{case:?}");
            assert_eq!(sum(add()).into_data(), beside, "{case:?}, winograd {winograd}, relu {relu}");
        }
    }
}

#[test]
fn conv_transpose2d_and_its_gradients_equal_burns() {
    type Transposed = fn(Tensor<4>, Tensor<4>, Option<Tensor<1>>, ConvOptions, [usize; 2]) -> Tensor<4>;
    for case in CASES {
        let g = geometry(case).expect("an output");
        let x = tensor([g.images, g.out_channels, g.output[0], g.output[1]], 1);
        let weight = tensor([g.out_channels, g.group_in(), g.kernel[0], g.kernel[1]], 2);
        for bias in [vec![tensor([g.in_channels], 3)], Vec::new()] {
            let inputs = (x.clone(), Some(weight.clone()), bias);
            let call = |transposed: Transposed| {
                run(&inputs, |(x, weight, bias)| {
                    let weight = weight.clone().expect("a weight");
                    transposed(x.clone(), weight, bias.first().cloned(), g.options, g.input)
                })
            };
            assert_same(call(conv_transpose2d), call(reference::conv_transpose2d), &format!("{case:?}"));
        }
    }
}

#[test]
fn conv2d_takes_views_and_inputs_that_are_not_tracked() {
    let device = Device::flex().autodiff();
    let weight = tensor([5, 4, 3, 3], 2).detach();
    let options = ConvOptions { padding: [1; 4], ..Default::default() };
    let call = |conv: fn(Tensor<4>, Tensor<4>, Option<Tensor<1>>, ConvOptions) -> Tensor<4>| {
        run(&(tensor([2, 9, 8, 6], 1), None::<Tensor<4>>, Vec::new()), |(base, ..)| {
            let view = base.clone().permute([0, 3, 2, 1]).slice([0..2, 1..5]);
            conv(view, weight.clone(), None, options)
        })
    };
    assert_same(call(conv2d), call(reference::conv2d), "a view");

    let x = Tensor::<4>::ones([1, 4, 5, 5], &device);
    let tracked = weight.clone().require_grad();
    let grads = conv2d(x.clone(), tracked.clone(), None, options).sum().backward();
    assert!(tracked.grad(&grads).is_some());
    let plain = conv2d(x.inner(), weight.inner(), None, options);
    assert_eq!(plain.dims(), [1, 5, 5, 5]);
}

#[test]
fn instance_norm_and_its_gradients_equal_burns() {
    for (case, shape) in [[2, 3, 5, 7], [1, 1, 1, 2], [3, 4, 33, 40]].into_iter().enumerate() {
        let inputs =
            (tensor(shape, 5), None::<Tensor<1>>, vec![tensor([shape[1]], 6), tensor([shape[1]], 7)]);
        let call = |norm: fn(Tensor<4>, Tensor<1>, Tensor<1>, f64) -> Tensor<4>| {
            run(&inputs, |(x, _, vectors)| norm(x.clone(), vectors[0].clone(), vectors[1].clone(), 1e-3))
        };
        assert_same(call(instance_norm), call(reference::instance_norm), &format!("case {case}"));
        assert_same(call(rectified::<0>), call(reference_rectified::<0>), &format!("case {case} and ReLU"));
        assert_same(call(rectified::<20>), call(reference_rectified::<20>), &format!("case {case}, leaking"));
    }
}

/// An instance norm and a rectifier that lets `LEAK` hundredths pass.
fn rectified<const LEAK: u8>(x: Tensor<4>, gamma: Tensor<1>, beta: Tensor<1>, epsilon: f64) -> Tensor<4> {
    instance_norm_then(x, gamma, beta, epsilon, f32::from(LEAK) / 100.0)
}

fn reference_rectified<const LEAK: u8>(
    x: Tensor<4>,
    gamma: Tensor<1>,
    beta: Tensor<1>,
    epsilon: f64,
) -> Tensor<4> {
    reference::instance_norm_then(x, gamma, beta, epsilon, f32::from(LEAK) / 100.0)
}

#[test]
fn instance_norm_keeps_its_precision_far_from_zero() {
    let noise = values(4096, 3);
    let shifted: Vec<f32> = noise.iter().map(|value| 1000.0 + value).collect();
    let device = Device::flex();
    let x = Tensor::<4>::from_data(TensorData::new(shifted.clone(), [1, 1, 64, 64]), &device);
    let output = instance_norm(x, Tensor::ones([1], &device), Tensor::zeros([1], &device), 1e-5);
    let mean = shifted.iter().map(|v| f64::from(*v)).sum::<f64>() / 4096.0;
    let variance = shifted.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / 4096.0;
    let wanted: Vec<f64> =
        shifted.iter().map(|v| (f64::from(*v) - mean) / (variance + 1e-5).sqrt()).collect();
    assert!(error(&floats(output.into_data()), &wanted) < 1e-4);
}

#[test]
fn prelu_and_its_gradients_equal_burns() {
    for slopes in [1, 6] {
        let inputs = (tensor([2, 6, 9, 7], 8), None::<Tensor<1>>, vec![tensor([slopes], 9)]);
        let call = |prelu: fn(Tensor<4>, Tensor<1>) -> Tensor<4>| {
            run(&inputs, |(x, _, vectors)| prelu(x.clone(), vectors[0].clone()))
        };
        assert_same(call(prelu), call(reference::prelu), &format!("{slopes} slopes"));
        // In place where the buffer is not shared, out of place where it is.
        let (x, slopes) = (tensor([2, 6, 9, 7], 8).inner(), inputs.2[0].clone().inner());
        let (own, before) = (x.clone() * 1.0, floats(x.clone().into_data()));
        let beside = floats(prelu(x.clone(), slopes.clone()).into_data());
        assert_eq!(floats(prelu(own, slopes).into_data()), beside);
        assert_eq!(floats(x.into_data()), before);
    }
}

#[test]
fn layer_norm_and_its_gradients_equal_burns() {
    for width in [1, 7, 48, 100] {
        let inputs =
            (tensor([2, 3, 5, width], 8), None::<Tensor<1>>, vec![tensor([width], 9), tensor([width], 10)]);
        let call = |norm: fn(Tensor<4>, Tensor<1>, Tensor<1>, f64) -> Tensor<4>| {
            run(&inputs, |(x, _, vectors)| norm(x.clone(), vectors[0].clone(), vectors[1].clone(), 1e-3))
        };
        assert_same(call(layer_norm), call(reference::layer_norm), &format!("rows of {width}"));
    }
}

#[test]
fn softmax_and_its_gradient_equal_burns() {
    for width in [1, 7, 48, 100] {
        let inputs = (tensor([2, 3, 5, width], 8), None::<Tensor<1>>, Vec::new());
        let ours = run(&inputs, |(x, ..)| softmax(x.clone() * 20.0));
        let reference = run(&inputs, |(x, ..)| burn::tensor::activation::softmax(x.clone() * 20.0, 3));
        assert_same(ours, reference, &format!("rows of {width}"));
    }
    let large = Tensor::<2>::from_floats([[1e30, -1e30, 0.0]], &Device::flex());
    assert_eq!(floats(softmax(large).into_data())[0], 1.0);
}

#[test]
fn activations_and_their_gradients_equal_burns() {
    use crate::Activation::*;
    let inputs = (tensor([2, 6, 9, 7], 8), None::<Tensor<1>>, Vec::new());
    for function in [
        Relu,
        LeakyRelu(0.2),
        LeakyRelu(-0.3),
        Clip(-0.3, 0.4),
        Sigmoid,
        Tanh,
        Silu,
        Gelu,
        GeluTanh,
        HardSigmoid(0.3, 0.5),
        HardSwish,
    ] {
        let ours = run(&inputs, |(x, ..)| activate(x.clone(), function));
        let reference = run(&inputs, |(x, ..)| reference::activate(x.clone(), function));
        assert_same(ours, reference, &format!("{function:?}"));
    }
}

#[test]
fn an_activation_leaves_alone_what_others_hold() {
    let x = tensor([2, 3, 4, 5], 3);
    let before = floats(x.clone().into_data());
    let part = x.clone().narrow(1, 1, 1);
    let rectified = floats(activate(part.clone(), crate::Activation::Relu).into_data());
    assert_eq!(rectified, floats(part.into_data()).iter().map(|v| v.max(0.0)).collect::<Vec<_>>());
    assert_eq!(floats(activate(x.clone(), crate::Activation::Relu).into_data()).len(), 120);
    assert_eq!(floats(x.into_data()), before);
}

#[test]
fn maxima_of_windows_and_their_gradients_equal_burns() {
    for (size, kernel, stride, padding, dilation) in [
        ([9, 11], [3, 3], [2, 2], [1, 1, 1, 1], [1, 1]),
        ([8, 8], [2, 2], [2, 2], [0, 0, 0, 0], [1, 1]),
        ([7, 5], [3, 2], [1, 3], [1, 0, 1, 1], [1, 1]),
        ([10, 12], [3, 3], [1, 2], [1, 1, 1, 1], [2, 2]),
        ([4, 4], [4, 4], [1, 1], [0, 0, 0, 0], [1, 1]),
        ([1, 1], [1, 1], [1, 1], [0, 0, 0, 0], [1, 1]),
    ] {
        let options = ConvOptions { stride, padding, dilation, ..ConvOptions::default() };
        for levels in [None, Some(2.0)] {
            let x = tensor([2, 3, size[0], size[1]], 5).inner();
            // With few different values, windows hold equal ones.
            let x = levels.map_or(x.clone(), |levels| (x * levels).round());
            let x = Tensor::from_inner(x).require_grad();
            let inputs = (x, None::<Tensor<1>>, Vec::new());
            let ours = run(&inputs, |(x, ..)| max_pool2d(x.clone(), kernel, options));
            let burns = run(&inputs, |(x, ..)| reference::max_pool2d(x.clone(), kernel, options));
            assert_same(ours, burns, &format!("{size:?} by {kernel:?}, {options:?}, {levels:?}"));
        }
    }
}

#[test]
fn a_window_with_a_nan_is_nan_and_one_of_padding_is_infinitely_small() {
    let x = Tensor::<4>::from_floats([[[[1.0, f32::NAN, 3.0, 4.0]]]], &Device::flex());
    let options = ConvOptions { stride: [1, 2], padding: [0, 3, 0, 0], ..ConvOptions::default() };
    let y = floats(max_pool2d(x, [1, 2], options).into_data());
    assert!(y[0] == f32::NEG_INFINITY && y[1] == 1.0 && y[2].is_nan(), "{y:?}");
}

#[test]
fn changes_of_size_and_their_gradients_equal_burns() {
    type Resample = fn(Tensor<4>, usize) -> Tensor<4>;
    let pairs: [(Resample, Resample, &str); 3] = [
        (upsample_nearest, reference::upsample_nearest, "upsample_nearest"),
        (pixel_shuffle, reference::pixel_shuffle, "pixel_shuffle"),
        (pixel_unshuffle, reference::pixel_unshuffle, "pixel_unshuffle"),
    ];
    for (ours, reference, name) in pairs {
        for factor in 1..4 {
            let shape = [2, 2 * factor * factor, 3 * factor, 5 * factor];
            let inputs = (tensor(shape, 4), None::<Tensor<1>>, Vec::new());
            let call = |operation: Resample| run(&inputs, |(x, ..)| operation(x.clone(), factor));
            assert_same(call(ours), call(reference), &format!("{name} by {factor}"));
        }
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let step = 1e-2_f32;
    let check = |x: Tensor<4>, name: &str, operation: &dyn Fn(Tensor<4>) -> Tensor<4>| {
        let shape = x.dims();
        let weights = tensor(operation(x.clone()).dims(), 40).detach();
        let loss = |x: Tensor<4>| (operation(x) * weights.clone()).sum();
        let gradient = floats(x.grad(&loss(x.clone()).backward()).expect("a gradient").into_data());
        let start = floats(x.to_data());
        for place in (0..start.len()).step_by(5) {
            let moved = |by: f32| {
                let mut values = start.clone();
                values[place] += by;
                let x = Tensor::from_data(TensorData::new(values, shape), &Device::flex().autodiff());
                floats(loss(x).into_data())[0]
            };
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            assert!((slope - gradient[place]).abs() < 2e-2, "{name}: {slope} against {}", gradient[place]);
        }
    };
    let weight = tensor([4, 3, 3, 3], 20).detach();
    let options = ConvOptions { stride: [2; 2], padding: [1, 0, 2, 1], ..Default::default() };
    check(tensor([2, 3, 7, 6], 21), "conv2d", &|x| conv2d(x, weight.clone(), None, options));
    let vector = tensor([3], 22).detach();
    check(tensor([2, 3, 4, 5], 23), "instance_norm", &|x| {
        instance_norm_then(x, vector.clone(), vector.clone(), 1e-1, 0.3)
    });
    check(tensor([2, 3, 4, 5], 24), "prelu", &|x| prelu(x, vector.clone()));
}

#[test]
fn the_same_inputs_give_the_same_bits() {
    for case in [CASES[5], CASES[7], CASES[6], CASES[17]] {
        let g = geometry(case).expect("an output");
        let x = tensor([g.images, g.in_channels, g.input[0], g.input[1]], 1);
        let weight = tensor([g.out_channels, g.group_in(), g.kernel[0], g.kernel[1]], 2);
        let inputs = (x, Some(weight), vec![tensor([g.out_channels], 3)]);
        let call = || {
            let all = run(&inputs, |(x, weight, bias)| {
                conv2d(x.clone(), weight.clone().expect("a weight"), bias.first().cloned(), g.options)
            });
            all.into_iter().map(floats).collect::<Vec<_>>()
        };
        let first = call();
        assert!((0..3).all(|_| call() == first), "{case:?}");
    }
}

#[test]
#[should_panic(expected = "conv_transpose2d: no output of size [9, 8]")]
fn a_size_that_a_transposed_convolution_does_not_have_is_named() {
    let options = ConvOptions { stride: [2; 2], ..Default::default() };
    conv_transpose2d(tensor([1, 3, 3, 3], 1), tensor([3, 2, 3, 3], 2), None, options, [9, 8]);
}

#[test]
#[should_panic(expected = "conv2d: no output for an input of shape [1, 3, 5, 5]")]
fn channels_that_do_not_match_are_named() {
    conv2d(tensor([1, 3, 5, 5], 1), tensor([4, 2, 3, 3], 2), None, ConvOptions::default());
}

#[test]
#[should_panic(expected = "conv2d: no output")]
fn a_kernel_larger_than_its_input_is_named() {
    conv2d(tensor([1, 3, 2, 5], 1), tensor([4, 3, 3, 3], 2), None, ConvOptions::default());
}

#[test]
#[should_panic(expected = "prelu: 2 slopes; need 1 or 3")]
fn a_wrong_number_of_slopes_is_named() {
    prelu(tensor([1, 3, 2, 5], 1), tensor([2], 2));
}
