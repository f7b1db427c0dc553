//! A decoder over the frozen target's own feature maps, from the smallest to the largest, joined by the image.
//! Ours throughout: the maps tell the decoder what the network sees, so it need not learn that from few images.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use rand::Rng;

use super::{GeneratorConfig, head_factor};
use crate::layer::{Conv, Norm, Residual, pixel_shuffle, pixel_unshuffle, upsample};
use crate::target::{Features, Tap, Target};

/// One resolution of the decoder.
#[derive(Module, Debug)]
struct Stage {
    /// Which taps of the target are joined here; none at an extra last stage.
    taps: Vec<usize>,
    size: [usize; 2],
    mean: Param<Tensor<1>>,
    deviation: Param<Tensor<1>>,
    project: Option<Conv>,
    /// Brings the stage below to this stage's width.
    up: Option<Conv>,
    blocks: Vec<Residual>,
}

/// The feature-conditioned decoder; see the module.
#[derive(Module, Debug)]
pub struct Conditioned {
    stages: Vec<Stage>,
    embedding: Conv,
    image: Conv,
    head_norm: Norm,
    head: Conv,
    factor: usize,
}

impl Conditioned {
    /// Layers for `target`; `None` where it offers no feature map.
    pub fn new(
        config: &GeneratorConfig,
        target: &dyn Target,
        random: &mut impl Rng,
        device: &Device,
    ) -> Option<Self> {
        let input = target.input();
        let factor = head_factor(input);
        let largest = [input[1].div_ceil(factor), input[2].div_ceil(factor)];
        let plan = plan(target.taps(), largest, config.widths.len())?;
        let skipped = config.widths.len() - plan.len();
        let (widths, blocks) = (&config.widths[skipped..], &config.blocks[skipped..]);

        let mut stages = Vec::new();
        for (i, (taps, size)) in plan.into_iter().enumerate() {
            let channels: usize = taps.iter().map(|t| target.taps()[*t].size[0]).sum();
            let project = (channels > 0).then(|| Conv::new([channels, widths[i]], 1, 1, 0, random, device));
            stages.push(Stage {
                taps,
                size,
                mean: fixed(&vec![0.0; channels.max(1)], device),
                deviation: fixed(&vec![1.0; channels.max(1)], device),
                project,
                up: (i > 0).then(|| Conv::new([widths[i - 1], widths[i]], 1, 1, 0, random, device)),
                blocks: (0..blocks[i]).map(|_| Residual::new(widths[i], random, device)).collect(),
            });
        }
        let last = widths[widths.len() - 1];
        let patch = input[0] * factor * factor;
        Some(Self {
            stages,
            embedding: Conv::new([target.dim(), widths[0]], 1, 1, 0, random, device),
            image: Conv::new([patch, last], 3, 1, 1, random, device),
            head_norm: Norm::new(last, device),
            head: Conv::new([last, patch], 3, 1, 1, random, device).scaled(config.head_scale as f32),
            factor,
        })
    }

    /// Sets the mean and standard deviation per channel of each tap.
    pub fn calibrated(mut self, statistics: &[(Vec<f32>, Vec<f32>)], device: &Device) -> Self {
        for stage in self.stages.iter_mut().filter(|s| !s.taps.is_empty()) {
            let known = || stage.taps.iter().filter_map(|t| statistics.get(*t));
            let means: Vec<f32> = known().flat_map(|(mean, _)| mean.iter().copied()).collect();
            let deviations: Vec<f32> = known().flat_map(|(_, deviation)| deviation.iter().copied()).collect();
            stage.mean = fixed(&means, device);
            stage.deviation = fixed(&deviations, device);
        }
        self
    }

    /// Image in [−1, 1] and what the target computes of it → unbounded g `[N, C, H, W]`.
    pub fn forward(&self, x: Tensor<4>, features: &Features) -> Tensor<4> {
        let [n, _, height, width] = x.dims();
        let mut h: Option<Tensor<4>> = None;
        for (i, stage) in self.stages.iter().enumerate() {
            let mut sum = match &h {
                None => self.global(&features.embedding, n),
                Some(h) => match &stage.up {
                    Some(up) => upsample(up.forward(h.clone()), stage.size),
                    None => h.clone(),
                },
            };
            if let Some(project) = &stage.project {
                let maps = stage.taps.iter().map(|t| features.taps[*t].clone()).collect();
                sum = project.forward(stage.normalise(Tensor::cat(maps, 1))) + sum;
            }
            if i + 1 == self.stages.len() {
                sum = self.image.forward(pixel_unshuffle(x.clone(), self.factor)) + sum;
            }
            h = Some(stage.blocks.iter().fold(sum, |h, block| block.forward(h)));
        }
        let h = h.unwrap_or_else(|| self.image.forward(pixel_unshuffle(x, self.factor)));
        let g = self.head.forward(relu(self.head_norm.forward(h)));
        pixel_shuffle(g, self.factor, [height, width])
    }

    /// The embedding, brought to length √dim, as one vector for all places of the smallest stage: `[N, width, 1, 1]`.
    fn global(&self, embedding: &Tensor<2>, n: usize) -> Tensor<4> {
        let [_, dim] = embedding.dims();
        let embedding = lift(embedding.clone(), &self.embedding_device());
        let length = embedding.clone().powi_scalar(2).mean_dim(1).add_scalar(1e-12).sqrt();
        self.embedding.forward((embedding / length).reshape([n, dim, 1, 1]))
    }

    fn embedding_device(&self) -> Device {
        self.stages.first().map_or_else(Device::flex, |s| s.mean.val().device())
    }
}

impl Stage {
    fn normalise(&self, map: Tensor<4>) -> Tensor<4> {
        let (mean, deviation) = (self.mean.val(), self.deviation.val());
        let [c] = mean.dims();
        let map = lift(map, &mean.device());
        (map - mean.reshape([1, c, 1, 1])) / deviation.reshape([1, c, 1, 1])
    }
}

/// Puts a constant on the device of the weights, which may differentiate where the constant does not.
fn lift<const D: usize>(tensor: Tensor<D>, device: &Device) -> Tensor<D> {
    match (device.is_autodiff(), tensor.is_autodiff()) {
        (true, false) => Tensor::from_inner(tensor),
        (false, true) => tensor.inner(),
        _ => tensor,
    }
}

/// A parameter that is stored but not trained.
fn fixed(values: &[f32], device: &Device) -> Param<Tensor<1>> {
    let tensor = Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device);
    Param::from_tensor(tensor).set_require_grad(false)
}

/// Taps of one size together, from the smallest size to the largest: none larger than `largest`, at most `stages` sizes,
/// and a last stage of exactly `largest` for the image. `None` where no tap fits.
fn plan(taps: &[Tap], largest: [usize; 2], stages: usize) -> Option<Vec<(Vec<usize>, [usize; 2])>> {
    let mut by_size: BTreeMap<(usize, [usize; 2]), Vec<usize>> = BTreeMap::new();
    for (i, tap) in taps.iter().enumerate() {
        let size = [tap.size[1], tap.size[2]];
        if size[0] <= largest[0] && size[1] <= largest[1] {
            by_size.entry((size[0] * size[1], size)).or_default().push(i);
        }
    }
    if by_size.is_empty() {
        return None;
    }
    by_size.entry((largest[0] * largest[1], largest)).or_default();
    let mut chosen: Vec<_> = by_size.into_iter().map(|((_, size), taps)| (taps, size)).collect();
    // The smallest maps say least about where to draw: they go first.
    Some(chosen.split_off(chosen.len().saturating_sub(stages)))
}

/// Mean and standard deviation per channel of each tap over `features` of several batches; the deviation is at least
/// a thousandth of the tap's own, so that a dead channel is not blown up.
pub fn calibration(features: &[Features]) -> Vec<(Vec<f32>, Vec<f32>)> {
    let taps = features.first().map_or(0, |f| f.taps.len());
    (0..taps)
        .map(|tap| {
            let maps: Vec<Tensor<4>> = features.iter().map(|f| f.taps[tap].clone()).collect();
            let all = Tensor::cat(maps, 0);
            let [n, c, h, w] = all.dims();
            let rows = all.swap_dims(0, 1).reshape([c, n * h * w]);
            let (variance, mean) = rows.var_mean_bias(1);
            let mean: Vec<f32> = mean.into_data().iter::<f32>().collect();
            let deviation: Vec<f32> = variance.sqrt().into_data().iter::<f32>().collect();
            let typical = deviation.iter().sum::<f32>() / c as f32;
            let floor = (1e-3 * typical).max(1e-6);
            (mean, deviation.iter().map(|d| d.max(floor)).collect())
        })
        .collect()
}
