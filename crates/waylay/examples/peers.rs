//! The work that `benches/peers.py` times, written with the same mathematics as its PyTorch side.
//!
//! `peers CASE THREADS RUNS [MODEL]` prints one line of JSON: `ms`, the median over the runs after
//! one that is not counted, and the `least` and the `most`. Cases: `gan_N_S` (GAN step around a
//! frozen ResNet-18: N channels, images of S pixels), `uaa` (UAA-GAN step against MODEL), `craft_S`
//! (the same generator's forward pass, per image), `conditioned` (that of the generator guided by
//! feature maps and of MODEL, per image), `forward_N` and `gradient_N` (MODEL on N images),
//! `search`, `reid`, `trained`.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Int, Tensor, TensorData};
use waylay::attack::uaa_gan::{Generator as Conditioned, GeneratorConfig, Guidance};
use waylay::attack::{Epsilon, Scene};
use waylay::embedder::Embedder;
use waylay::embedder::preprocess::Preset;
use waylay::embedder::{OnnxEmbedder, OpenOptions};
use waylay::embedding::{Embeddings, Metric};
use waylay::seed::Seed;
use waylay_conv::{Activation, Adam, ConvOptions, activate, conv_transpose2d, conv2d, instance_norm_then};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// A convolution with a bias, or a transposed one that doubles height and width.
#[derive(Module, Debug)]
struct Conv {
    weight: Param<Tensor<4>>,
    bias: Param<Tensor<1>>,
    stride: usize,
    padding: usize,
    transposed: bool,
}

impl Conv {
    fn new([ins, outs]: [usize; 2], kernel: usize, stride: usize, padding: usize, device: &Device) -> Self {
        let bound = 1.0 / ((ins * kernel * kernel) as f64).sqrt();
        let uniform = Distribution::Uniform(-bound, bound);
        Self {
            weight: Param::from_tensor(Tensor::random([outs, ins, kernel, kernel], uniform, device)),
            bias: Param::from_tensor(Tensor::random([outs], uniform, device)),
            stride,
            padding,
            transposed: false,
        }
    }

    fn transposed([ins, outs]: [usize; 2], device: &Device) -> Self {
        let plain = Self::new([outs, ins], 3, 2, 1, device);
        let bias = Param::from_tensor(Tensor::zeros([outs], device));
        Self { bias, transposed: true, ..plain }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let options = ConvOptions {
            stride: [self.stride; 2],
            padding: [self.padding; 4],
            winograd: true,
            ..ConvOptions::default()
        };
        let [.., h, w] = x.dims();
        let (weight, bias) = (self.weight.val(), Some(self.bias.val()));
        if self.transposed {
            conv_transpose2d(x, weight, bias, options, [2 * h, 2 * w])
        } else {
            conv2d(x, weight, bias, options)
        }
    }
}

#[derive(Module, Debug)]
struct Norm {
    gamma: Param<Tensor<1>>,
    beta: Param<Tensor<1>>,
}

impl Norm {
    fn new(channels: usize, device: &Device) -> Self {
        let vector = |value: f32| Param::from_tensor(Tensor::full([channels], value, device));
        Self { gamma: vector(1.0), beta: vector(0.0) }
    }

    /// Then values that are not above 0 times `slope`.
    fn forward(&self, x: Tensor<4>, slope: f32) -> Tensor<4> {
        instance_norm_then(x, self.gamma.val(), self.beta.val(), 1e-5, slope)
    }
}

#[derive(Module, Debug)]
struct Block {
    convs: [Conv; 2],
    norms: [Norm; 2],
}

/// Johnson et al.'s generator: two strided convolutions, residual blocks, two transposed
/// convolutions.
#[derive(Module, Debug)]
struct Generator {
    down: Vec<Conv>,
    down_norms: Vec<Norm>,
    blocks: Vec<Block>,
    up: Vec<Conv>,
    up_norms: Vec<Norm>,
    head: Conv,
}

impl Generator {
    fn new(n: usize, blocks: usize, device: &Device) -> Self {
        let block = |_| Block {
            convs: [(); 2].map(|()| Conv::new([4 * n; 2], 3, 1, 1, device)),
            norms: [(); 2].map(|()| Norm::new(4 * n, device)),
        };
        Self {
            down: vec![
                Conv::new([3, n], 7, 1, 3, device),
                Conv::new([n, 2 * n], 3, 2, 1, device),
                Conv::new([2 * n, 4 * n], 3, 2, 1, device),
            ],
            down_norms: [n, 2 * n, 4 * n].map(|c| Norm::new(c, device)).to_vec(),
            blocks: (0..blocks).map(block).collect(),
            up: vec![Conv::transposed([4 * n, 2 * n], device), Conv::transposed([2 * n, n], device)],
            up_norms: [2 * n, n].map(|c| Norm::new(c, device)).to_vec(),
            head: Conv::new([n, 3], 7, 1, 3, device),
        }
    }

    fn forward(&self, mut x: Tensor<4>) -> Tensor<4> {
        for (conv, norm) in self.down.iter().zip(&self.down_norms) {
            x = norm.forward(conv.forward(x), 0.0);
        }
        for Block { convs, norms } in &self.blocks {
            let h = norms[0].forward(convs[0].forward(x.clone()), 0.0);
            x = x + norms[1].forward(convs[1].forward(h), 1.0);
        }
        for (conv, norm) in self.up.iter().zip(&self.up_norms) {
            x = norm.forward(conv.forward(x), 0.0);
        }
        activate(self.head.forward(x), Activation::Tanh)
    }
}

/// PatchGAN.
#[derive(Module, Debug)]
struct Discriminator {
    convs: Vec<Conv>,
    norms: Vec<Norm>,
}

impl Discriminator {
    fn new(device: &Device) -> Self {
        let sizes = [(3, 64, 2), (64, 128, 2), (128, 256, 2), (256, 1, 1)];
        Self {
            convs: sizes.map(|(i, o, stride)| Conv::new([i, o], 4, stride, 1, device)).to_vec(),
            norms: [128, 256].map(|c| Norm::new(c, device)).to_vec(),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mut x = activate(self.convs[0].forward(x), Activation::LeakyRelu(0.2));
        for (conv, norm) in self.convs[1..3].iter().zip(&self.norms) {
            x = norm.forward(conv.forward(x), 0.2);
        }
        self.convs[3].forward(x)
    }
}

fn open(model: Option<&String>, preset: Preset) -> Outcome<OnnxEmbedder> {
    let model = model.ok_or("this case needs a MODEL")?;
    Ok(OnnxEmbedder::open(Path::new(model), OpenOptions::new(preset))?)
}

/// Median, least and most of `runs` runs in milliseconds, after one that is not counted.
fn timed(runs: usize, mut run: impl FnMut() -> Outcome) -> Outcome<[f64; 3]> {
    run()?;
    let mut times = Vec::new();
    for _ in 0..runs.max(1) {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok([times[times.len() / 2], times[0], times[times.len() - 1]])
}

fn distance(a: Tensor<2>, b: Tensor<2>) -> Tensor<1> {
    (a - b).powi_scalar(2).sum_dim(1).sqrt().squeeze_dim(1)
}

fn unit(x: Tensor<2>) -> Tensor<2> {
    let length = x.clone().powi_scalar(2).sum_dim(1).sqrt().clamp_min(1e-12);
    x / length
}

/// A step of `step_torch.py` (`uaa` false) or of `uaa_gan_torch.py`.
fn step(
    target: &OnnxEmbedder,
    uaa: bool,
    n: usize,
    blocks: usize,
    side: usize,
    runs: usize,
) -> Outcome<[f64; 3]> {
    let plain = Device::flex();
    let device = plain.clone().autodiff();
    let mut generator = Some(Generator::new(n, blocks, &device));
    let mut discriminator = Some(Discriminator::new(&device));
    let adam = || Adam::init(0.5, 0.999, 1e-8);
    let (mut g_adam, mut d_adam) = (adam(), adam());
    let x = Tensor::<4>::random([8, 3, side, side], Distribution::Uniform(0.0, 1.0), &plain);
    timed(runs, || {
        let (Some(g), Some(d)) = (generator.take(), discriminator.take()) else {
            return Err("no network".into());
        };
        let tracked = Tensor::from_inner(x.clone());
        let perturbed = (tracked.clone() + g.forward(tracked.clone()) * (8.0 / 255.0)).clamp(0.0, 1.0);
        let loss = (d.forward(tracked.clone()) - 1.0).powi_scalar(2).mean()
            + d.forward(perturbed.clone().detach()).powi_scalar(2).mean();
        let gradients = GradientsParams::from_grads(loss.backward(), &d);
        let d = d_adam.step(2e-4, d, gradients);
        let clean = target.embedding(x.clone())?;
        let attacked = target.embedding(perturbed.clone())?;
        let gan = (d.clone().no_grad().forward(perturbed.clone()) - 1.0).powi_scalar(2).mean();
        let loss = if uaa {
            let (clean, attacked) = (unit(clean), unit(attacked));
            let products = clean.clone().matmul(clean.clone().transpose());
            let farthest = (products * -2.0 + 2.0).clamp_min(0.0).sqrt().max_dim(1).squeeze_dim::<1>(1);
            let away = distance(Tensor::from_inner(clean), attacked);
            let metric = (Tensor::from_inner(farthest) + 0.5 - away).clamp_min(0.0).mean();
            let change = (perturbed - tracked).powi_scalar(2).reshape([8, 3 * side * side]);
            let recon = change.sum_dim(1).sqrt().mean();
            recon * 0.05 + metric * 10.0 + gan
        } else {
            let cosine = (unit(Tensor::from_inner(clean)) * unit(attacked)).sum_dim(1).mean();
            gan + cosine + (perturbed - tracked).powi_scalar(2).mean()
        };
        let gradients = GradientsParams::from_grads(loss.backward(), &g);
        generator = Some(g_adam.step(2e-4, g, gradients));
        discriminator = Some(d);
        Ok(())
    })
}

/// Forward passes of a generator, per image of `batch`.
fn craft(side: usize, runs: usize) -> Outcome<[f64; 3]> {
    let device = Device::flex();
    let generator = Generator::new(32, 4, &device);
    let x = Tensor::<4>::random([8, 3, side, side], Distribution::Uniform(0.0, 1.0), &device);
    let times = timed(runs, || {
        drop((x.clone() + generator.forward(x.clone()) * (8.0 / 255.0)).clamp(0.0, 1.0).into_data());
        Ok(())
    })?;
    Ok(times.map(|ms| ms / 8.0))
}

/// The generator guided by feature maps's forward pass with that of `target`, per image.
fn craft_conditioned(target: &OnnxEmbedder, runs: usize) -> Outcome<[f64; 3]> {
    let (device, mut random) = (Device::flex(), Seed(0).stream("peers"));
    let config = GeneratorConfig { guidance: Guidance::FeatureMaps, ..GeneratorConfig::default() };
    let generator = Conditioned::new(&config, target, &mut random, &device);
    let generator = generator.ok_or("the model has no feature maps")?;
    let [c, h, w] = target.input();
    let x = Tensor::<4>::random([8, c, h, w], Distribution::Uniform(0.0, 1.0), &device);
    let scene =
        Scene { target, metric: Metric::Cosine, epsilon: Epsilon::from_255(8.0)?, seed: Seed(0), device };
    let times = timed(runs, || {
        drop(generator.perturb(x.clone(), &scene)?.into_data());
        Ok(())
    })?;
    Ok(times.map(|ms| ms / 8.0))
}

fn network(target: &OnnxEmbedder, batch: usize, gradient: bool, runs: usize) -> Outcome<[f64; 3]> {
    let [c, h, w] = target.input();
    let plain = Device::flex();
    let x = Tensor::<4>::random([batch, c, h, w], Distribution::Uniform(0.0, 1.0), &plain);
    timed(runs, || {
        if gradient {
            let x = Tensor::<4>::from_inner(x.clone()).require_grad();
            let loss = target.embedding(x.clone())?.powi_scalar(2).sum();
            drop(x.grad(&loss.backward()).map(Tensor::into_data));
        } else {
            drop(target.embedding(x.clone())?.into_data());
        }
        Ok(())
    })
}

fn embeddings(count: usize, dim: usize) -> Outcome<Embeddings> {
    let mut values = Vec::with_capacity(count * dim);
    for _ in 0..count {
        let row = Tensor::<1>::random([dim], Distribution::Normal(0.0, 1.0), &Device::flex());
        values.extend(row.into_data().iter::<f32>());
    }
    Ok(Embeddings::new(dim, values)?)
}

fn search(runs: usize) -> Outcome<[f64; 3]> {
    let (queries, gallery) = (embeddings(1000, 512)?, embeddings(100_000, 512)?);
    timed(runs, || {
        waylay::retrieval::top_k(&queries, &gallery, 100, Metric::Euclidean)?;
        Ok(())
    })
}

/// Embeddings as a trained network's: factors that tell 750 people apart, and nearly as much that
/// differs from image to image, seen through one random matrix and a rectifier. `person` says whose
/// the images are.
fn trained(count: usize, dim: usize, person: impl Fn(usize) -> usize) -> Outcome<Embeddings> {
    const FACTORS: usize = 64;
    let device = Device::flex();
    device.seed(7);
    let normal = |rows: usize| Tensor::<2>::random([rows, FACTORS], Distribution::Normal(0.0, 1.0), &device);
    let (people, matrix) = (normal(750), normal(dim));
    let images = Tensor::<1, Int>::from_data(
        TensorData::new((0..count).map(|image| person(image) as i64).collect(), [count]),
        &device,
    );
    let images = people.select(0, images) + normal(count) * 0.9;
    let values = images.matmul(matrix.transpose()).clamp_min(0.0);
    Ok(Embeddings::new(dim, values.into_data().iter::<f32>().collect())?)
}

/// The size of Market-1501: 750 identities, 6 cameras.
fn reid(runs: usize, is_trained: bool) -> Outcome<[f64; 3]> {
    let person = |step: usize| move |image: usize| image * step % 750;
    let side = |count: usize, step: usize| {
        if is_trained { trained(count, 2048, person(step)) } else { embeddings(count, 2048) }
    };
    let (queries, gallery) = (side(3368, 1)?, side(19_732, 7)?);
    let labels = |count: usize, step: usize| -> (Vec<String>, Vec<Option<u32>>) {
        (0..count).map(|i| (person(step)(i).to_string(), Some((i / 750 % 6) as u32))).unzip()
    };
    let ((q, q_cameras), (g, g_cameras)) = (labels(3368, 1), labels(19_732, 7));
    timed(runs, || {
        let relevance = waylay::retrieval::Relevance::with_cameras(&q, &q_cameras, &g, &g_cameras)?;
        drop(waylay::retrieval::evaluate(&queries, &gallery, &relevance, Metric::Euclidean)?);
        Ok(())
    })
}

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [case, threads, runs, model @ ..] = &arguments[..] else {
        return Err("peers CASE THREADS RUNS [MODEL]".into());
    };
    let (threads, runs, model) = (threads.parse()?, runs.parse()?, model.first());
    waylay_conv::keep_freed_memory();
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    // On one of the threads that compute, as the command line does.
    let [median, least, most] =
        rayon::scope(|_| measured(case, runs, model).map_err(|error| error.to_string()))?;
    println!("{{\"ms\": {median:.3}, \"least\": {least:.3}, \"most\": {most:.3}}}");
    Ok(())
}

fn measured(case: &str, runs: usize, model: Option<&String>) -> Outcome<[f64; 3]> {
    let mut parts = case.split('_');
    let kind = parts.next().unwrap_or_default();
    let numbers = parts.map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    match (kind, &numbers[..]) {
        // As `waylay train` does.
        ("gan", [n, side]) => {
            step(&open(model, Preset::None)?.without_kept_filters(), false, *n, 6, *side, runs)
        }
        ("uaa", []) => step(&open(model, Preset::Arcface)?.without_kept_filters(), true, 32, 4, 112, runs),
        ("craft", [side]) => craft(*side, runs),
        ("conditioned", []) => craft_conditioned(&open(model, Preset::None)?, runs),
        ("forward", [batch]) => network(&open(model, Preset::None)?, *batch, false, runs),
        ("gradient", [batch]) => network(&open(model, Preset::None)?, *batch, true, runs),
        ("search", []) => search(runs),
        ("reid", []) => reid(runs, false),
        ("trained", []) => reid(runs, true),
        _ => Err(format!("no case `{case}`").into()),
    }
}
