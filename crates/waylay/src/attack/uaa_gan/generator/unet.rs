//! A residual U-Net (Ronneberger et al., arXiv:1505.04597) on the image, which the frozen target's
//! own feature maps may join on the way down. Ours: a space-to-depth stem and a pixel-shuffle head,
//! which leave no transposed-convolution grid; and the feature maps, which tell it what the network
//! sees, so that it need not learn that from few images.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use rand::Rng;

use super::{GeneratorConfig, Guidance, head_factor, lift};
use crate::embedder::{Embedder, Features, Tap};
use crate::layer::{Conv, Norm, Residual, pixel_shuffle, pixel_unshuffle, upsample};

/// Feature maps of the target that join at one resolution, normalised by what training images
/// showed.
#[derive(Module, Debug)]
struct Join {
    taps: Vec<usize>,
    mean: Param<Tensor<1>>,
    deviation: Param<Tensor<1>>,
    project: Conv,
}

/// One resolution: down from the larger one, up to it again.
#[derive(Module, Debug)]
struct Level {
    down_norm: Norm,
    down: Conv,
    join: Option<Join>,
    encode: Residual,
    decode: Vec<Residual>,
    up: Conv,
}

/// The U-Net; see the module.
#[derive(Module, Debug)]
pub struct UNet {
    stem: Conv,
    join: Option<Join>,
    /// From the second largest resolution to the smallest.
    levels: Vec<Level>,
    /// The embedding, for all places of the smallest resolution; beside it the clean one where
    /// gradients guide it.
    embedding: Option<Conv>,
    last: Vec<Residual>,
    head_norm: Norm,
    head: Conv,
    factor: usize,
}

impl UNet {
    /// Layers for the images of `target`, and for its feature maps where they guide it: then `None`
    /// where there are none. One guided by gradients takes three images, stacked in channels, and
    /// two embeddings.
    pub fn new(
        config: &GeneratorConfig,
        target: &dyn Embedder,
        random: &mut impl Rng,
        device: &Device,
    ) -> Option<Self> {
        let input = target.input();
        let factor = head_factor(config.patch, input);
        let patch = input[0] * factor * factor;
        let (widths, blocks) = (&config.widths, &config.blocks);
        let top = widths.len() - 1;
        let sizes = sizes([input[1].div_ceil(factor), input[2].div_ceil(factor)], widths.len());
        let conditioned = config.guidance != Guidance::None;
        let nothing = || vec![Vec::new(); sizes.len()];
        let plan = match config.guidance {
            Guidance::None => nothing(),
            Guidance::FeatureMaps => plan(target.taps(), &sizes)?,
            Guidance::Gradients => plan(target.taps(), &sizes).unwrap_or_else(nothing),
        };

        let (images, embeddings) = match config.guidance {
            Guidance::Gradients => (3, 2),
            _ => (1, 1),
        };
        let stem = Conv::new([images * patch, widths[top]], 3, 1, 1, random, device);
        let join = Join::new(&plan[0], target.taps(), widths[top], random, device);
        let mut levels = Vec::new();
        for (taps, i) in plan[1..].iter().zip((0..top).rev()) {
            levels.push(Level {
                down_norm: Norm::new(widths[i + 1], device),
                down: Conv::new([widths[i + 1], widths[i]], 3, 2, 1, random, device),
                join: Join::new(taps, target.taps(), widths[i], random, device),
                encode: Residual::new(widths[i], random, device),
                decode: (0..blocks[i]).map(|_| Residual::new(widths[i], random, device)).collect(),
                up: Conv::new([widths[i], widths[i + 1]], 1, 1, 0, random, device),
            });
        }
        let deepest = widths[top - levels.len()];
        Some(Self {
            stem,
            join,
            levels,
            embedding: conditioned
                .then(|| Conv::new([embeddings * target.dim(), deepest], 1, 1, 0, random, device)),
            last: (0..blocks[top]).map(|_| Residual::new(widths[top], random, device)).collect(),
            head_norm: Norm::new(widths[top], device),
            head: Conv::new([widths[top], patch], 3, 1, 1, random, device).scaled(config.head_scale as f32),
            factor,
        })
    }

    /// Sets the mean and standard deviation per channel of each tap.
    pub fn calibrated(mut self, statistics: &[(Vec<f32>, Vec<f32>)], device: &Device) -> Self {
        let joins =
            std::iter::once(&mut self.join).chain(self.levels.iter_mut().map(|level| &mut level.join));
        for join in joins.flatten() {
            let known = || join.taps.iter().filter_map(|t| statistics.get(*t));
            let means: Vec<f32> = known().flat_map(|(mean, _)| mean.iter().copied()).collect();
            let deviations: Vec<f32> = known().flat_map(|(_, deviation)| deviation.iter().copied()).collect();
            join.mean = fixed(&means, device);
            join.deviation = fixed(&deviations, device);
        }
        self
    }

    /// Whether it takes the target's feature maps.
    pub fn conditioned(&self) -> bool {
        self.embedding.is_some()
    }

    /// Where its weights are.
    pub fn device(&self) -> Device {
        self.head.device()
    }

    /// Image in [−1, 1] and what the target computes of it → unbounded g `[N, C, H, W]`. For one
    /// guided by gradients: change and gradient behind the image in its channels, and the clean
    /// embedding.
    pub fn forward(&self, x: Tensor<4>, features: Option<&Features>, clean: Option<Tensor<2>>) -> Tensor<4> {
        let [n, _, height, width] = x.dims();
        let join = |join: &Option<Join>, h: Tensor<4>| match (join, features) {
            (Some(join), Some(features)) => join.forward(h, features),
            _ => h,
        };
        let mut h = join(&self.join, self.stem.forward(pixel_unshuffle(x, self.factor)));
        let mut skips = Vec::with_capacity(self.levels.len());
        for (i, level) in self.levels.iter().enumerate() {
            skips.push(h.clone());
            h = join(&level.join, level.down.forward(level.down_norm.forward_relu(h)));
            if i + 1 == self.levels.len()
                && let (Some(embedding), Some(features)) = (&self.embedding, features)
            {
                let directions = std::iter::once(&features.embedding).chain(&clean);
                let directions = directions.map(|e| direction(e, n, &embedding.device())).collect();
                h = h + embedding.forward(Tensor::cat(directions, 1));
            }
            h = level.encode.forward(h);
        }
        for (level, skip) in self.levels.iter().zip(skips).rev() {
            h = level.decode.iter().fold(h, |h, block| block.forward(h));
            let [_, _, rows, columns] = skip.dims();
            h = upsample(level.up.forward(h), [rows, columns]) + skip;
        }
        h = self.last.iter().fold(h, |h, block| block.forward(h));
        let g = self.head.forward(self.head_norm.forward_relu(h));
        pixel_shuffle(g, self.factor, [height, width])
    }
}

impl Join {
    /// `None` without taps.
    fn new(
        taps: &[usize],
        all: &[Tap],
        width: usize,
        random: &mut impl Rng,
        device: &Device,
    ) -> Option<Self> {
        let channels: usize = taps.iter().map(|t| all[*t].size[0]).sum();
        (channels > 0).then(|| Self {
            taps: taps.to_vec(),
            mean: fixed(&vec![0.0; channels], device),
            deviation: fixed(&vec![1.0; channels], device),
            project: Conv::new([channels, width], 1, 1, 0, random, device),
        })
    }

    /// Adds the projected feature maps to `h`, which may be of a slightly different size.
    fn forward(&self, h: Tensor<4>, features: &Features) -> Tensor<4> {
        let (mean, deviation) = (self.mean.val(), self.deviation.val());
        let [c] = mean.dims();
        let maps = Tensor::cat(self.taps.iter().map(|t| features.taps[*t].clone()).collect(), 1);
        let maps = lift(maps, &mean.device());
        let maps = (maps - mean.reshape([1, c, 1, 1])) / deviation.reshape([1, c, 1, 1]);
        let [_, _, rows, columns] = h.dims();
        upsample(self.project.forward(maps), [rows, columns]) + h
    }
}

/// Height and width of at most `stages` resolutions, from the largest: each half the one before,
/// none below 2.
fn sizes(largest: [usize; 2], stages: usize) -> Vec<[usize; 2]> {
    let half = |size: &[usize; 2]| Some(size.map(|side| side.div_ceil(2)));
    let enough = |size: &[usize; 2]| size[0].min(size[1]) >= 2;
    std::iter::successors(Some(largest), half).take_while(enough).take(stages.max(1)).collect()
}

/// For each of `sizes` the taps that join there: those of one size at the nearest resolution that
/// is not larger, if it is within a factor of two; the target's maps that are larger than the first
/// are left out. `None` where no tap fits.
fn plan(taps: &[Tap], sizes: &[[usize; 2]]) -> Option<Vec<Vec<usize>>> {
    let mut plan = vec![Vec::new(); sizes.len()];
    for (i, tap) in taps.iter().enumerate() {
        let area = |[height, width]: [usize; 2]| ((height * width) as f64).ln();
        let own = [tap.size[1], tap.size[2]];
        if own[0] > sizes[0][0] || own[1] > sizes[0][1] {
            continue;
        }
        let distance = |at: &usize| (area(sizes[*at]) - area(own)).abs();
        if let Some(at) = (0..sizes.len()).min_by(|a, b| distance(a).total_cmp(&distance(b)))
            && distance(&at) < std::f64::consts::LN_2 * 1.5
        {
            plan[at].push(i);
        }
    }
    // Maps of one resolution are concatenated: they have to agree in size, and the first ones
    // decide.
    for joined in &mut plan {
        if let Some(first) = joined.first().map(|i| taps[*i].size) {
            joined.retain(|i| taps[*i].size[1..] == first[1..]);
        }
    }
    plan.iter().any(|joined| !joined.is_empty()).then_some(plan)
}

/// The embedding brought to length √dim, `[N, dim, 1, 1]`.
fn direction(embedding: &Tensor<2>, n: usize, device: &Device) -> Tensor<4> {
    let [_, dim] = embedding.dims();
    let embedding = lift(embedding.clone(), device);
    let length = embedding.clone().powi_scalar(2).mean_dim(1).add_scalar(1e-12).sqrt();
    (embedding / length).reshape([n, dim, 1, 1])
}

/// A parameter that is stored but not trained.
fn fixed(values: &[f32], device: &Device) -> Param<Tensor<1>> {
    let tensor = Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device);
    Param::from_tensor(tensor).set_require_grad(false)
}

/// Mean and standard deviation per channel of each tap over `features` of several batches; the
/// deviation is at least a thousandth of the tap's own, so that a dead channel is not blown up.
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
