//! Shape inference by a dry run: from a checked graph to a network whose sizes are known, measured
//! on a made-up image.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};

use crate::OnnxError;
use crate::candidates::Candidate;
use crate::graph::{Graph, Id};
use crate::head::Fitted;
use crate::network::Network;
use crate::options::{Layout, ModelOptions, Tap};
use crate::trace::Trace;

/// Largest fixed batch that is looped over.
const MAX_BATCH: usize = 64;

/// A network with the sizes that a dry run found.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub network: Network,
    /// Channels, height, width.
    pub input: [usize; 3],
    pub layout: Layout,
    pub dim: usize,
    pub taps: Vec<Tap>,
    /// The only batch size it takes; none where it takes any.
    pub fixed_batch: Option<usize>,
    /// Multiplications per image.
    pub multiply_adds: u64,
    /// Tensors that can serve as the embedding.
    pub candidates: Vec<Candidate>,
    head: Fitted,
}

/// Folds `graph` and runs it once, or a few times where it must be found out whether it takes any
/// batch.
pub(crate) fn load(graph: Graph, options: &ModelOptions) -> Result<Loaded, OnnxError> {
    let file = graph.file.clone();
    let (declared, input) = input_size(&graph, options)?;
    let bad = |reason| OnnxError::Output { name: file.clone(), reason };
    let output = match &options.output {
        None => graph.outputs[0],
        Some(name) => graph.find(name).ok_or_else(|| bad(format!("there is no tensor `{name}`")))?,
    };
    let mut network = Network::new(graph, output, options.device.clone())?;
    let batch = declared.unwrap_or(1);
    let mut trace = Trace::default();
    let images = made_up(batch, input, options.layout, network.device());
    let (result, _) = network.explore(images, false, &mut trace)?;
    let dims = result.dims();
    if dims.len() < 2 || dims[0] != batch {
        return Err(bad(format!("shape {dims:?}; need [{batch}, dimensions]")));
    }
    let (head, dim) = options.head.fit(&dims, network.device())?;
    let candidates = network.candidates(&trace);
    let taps = taps(&network, &trace, batch, input);
    network.set_taps(taps.iter().map(|t| t.1).collect());
    let mut loaded = Loaded {
        network,
        input,
        layout: options.layout,
        dim,
        taps: taps.into_iter().map(|t| t.0).collect(),
        fixed_batch: Some(batch),
        multiply_adds: trace.multiply_adds / batch as u64,
        candidates,
        head,
    };
    if batch == 1 {
        loaded.fixed_batch = if any_batch(&mut loaded) { None } else { Some(1) };
    }
    if loaded.fixed_batch.is_none() {
        loaded.network.set_independent();
    }
    Ok(loaded)
}

impl Loaded {
    /// Embeddings `[N, dim]` and taps for what the network takes, any batch; looped where its batch
    /// is fixed.
    pub fn run(&self, input: Tensor<4>, taps: bool) -> Result<(Tensor<2>, Vec<Tensor<4>>), OnnxError> {
        let count = input.dims()[0];
        let Some(batch) = self.fixed_batch.filter(|b| *b != count) else {
            return self.run_whole(input, taps);
        };
        let mut parts = Vec::new();
        for start in (0..count).step_by(batch) {
            let length = batch.min(count - start);
            let mut part = vec![input.clone().narrow(0, start, length)];
            part.extend((length..batch).map(|_| input.clone().narrow(0, count - 1, 1)));
            let (embedding, maps) = self.run_whole(Tensor::cat(part, 0), taps)?;
            let maps: Vec<_> = maps.into_iter().map(|m| m.narrow(0, 0, length)).collect();
            parts.push((embedding.narrow(0, 0, length), maps));
        }
        let maps = (0..self.taps.len() * usize::from(taps))
            .map(|i| Tensor::cat(parts.iter().map(|(_, maps)| maps[i].clone()).collect(), 0))
            .collect();
        Ok((Tensor::cat(parts.into_iter().map(|(e, _)| e).collect(), 0), maps))
    }

    /// What the network takes, without the batch: `[C, H, W]`, or `[H, W, C]`.
    pub fn network_shape(&self) -> [usize; 3] {
        let [c, h, w] = self.input;
        if self.layout == Layout::Nchw { [c, h, w] } else { [h, w, c] }
    }

    fn run_whole(&self, input: Tensor<4>, taps: bool) -> Result<(Tensor<2>, Vec<Tensor<4>>), OnnxError> {
        let count = input.dims()[0];
        let (output, maps) = self.network.run(input, taps)?;
        let found = output.dims();
        let embedding = self.head.apply(output, count);
        match embedding.map(|e| (e.dims(), e)) {
            Ok((dims, embedding)) if found[0] == count && dims == [count, self.dim] => Ok((embedding, maps)),
            _ => Err(OnnxError::Output {
                name: self.network.file().to_owned(),
                reason: format!("shape {found:?}; need [{count}, {}]", self.dim),
            }),
        }
    }
}

/// The declared batch, and channels, height and width.
fn input_size(graph: &Graph, options: &ModelOptions) -> Result<(Option<usize>, [usize; 3]), OnnxError> {
    let bad = |reason| OnnxError::Input { name: graph.file.clone(), reason };
    let &[batch, a, b, c] = &graph.input_dims[..] else { return Err(bad("need rank 4".into())) };
    let [channels, height, width] = options.layout.channels_first([a, b, c]);
    let channels = channels.or(options.channels).unwrap_or(3);
    if channels != 1 && channels != 3 {
        return Err(bad(format!("{channels} channels; need 1 or 3 (is the layout right?)")));
    }
    let side = |own: Option<usize>, given: Option<usize>, what: &str| match (own, given) {
        (Some(own), Some(given)) if own != given => {
            Err(bad(format!("{what} is {own}, but {given} was asked for")))
        }
        (Some(side), _) | (None, Some(side)) if side <= 65_536 => Ok(side),
        (None, None) => Err(bad(format!("the file leaves its {what} open; need a size, height and width"))),
        _ => Err(bad(format!("{what} is more than 65536"))),
    };
    let height = side(height, options.size.map(|s| s[0]), "height")?;
    let width = side(width, options.size.map(|s| s[1]), "width")?;
    if height * width > 1 << 24 {
        return Err(bad(format!("{height} x {width} pixels; at most 16777216 are supported")));
    }
    match batch {
        Some(n) if n > MAX_BATCH => {
            Err(bad(format!("a fixed batch of {n}; at most {MAX_BATCH} is supported")))
        }
        _ => Ok((batch, [channels, height, width])),
    }
}

/// Images of numbers in [0, 1] without a pattern, the same every time.
fn made_up(count: usize, [c, h, w]: [usize; 3], layout: Layout, device: &Device) -> Tensor<4> {
    let mut state = 0x2545_f491_u32;
    let values = (0..count * c * h * w).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 16_777_216.0
    });
    let shape = if layout == Layout::Nchw { [count, c, h, w] } else { [count, h, w, c] };
    Tensor::from_data(TensorData::new(values.collect(), shape), device)
}

/// Maps taken of one spatial size, besides the last.
const TAPS_PER_SIZE: usize = 4;

/// For each spatial size below the input's, from the largest to the smallest: the last map of that
/// size, and evenly spaced ones among those that leave an activation.
fn taps(network: &Network, trace: &Trace, batch: usize, input: [usize; 3]) -> Vec<(Tap, usize)> {
    let mut by_size: BTreeMap<Reverse<[usize; 3]>, Vec<(Id, usize)>> = BTreeMap::new();
    for (id, dims) in &trace.shapes {
        let &[n, c, h, w] = &dims[..] else { continue };
        if n == batch && h >= 2 && w >= 2 && h < input[1] && w < input[2] && trace.maps.contains(id) {
            by_size.entry(Reverse([h * w, h, w])).or_default().push((*id, c));
        }
    }
    let mut taps = Vec::new();
    for (Reverse([_, h, w]), maps) in by_size {
        let active: Vec<_> = maps.iter().filter(|(id, _)| network.leaves_activation(*id)).collect();
        let count = active.len().min(TAPS_PER_SIZE);
        // The last activation first, then back to the first one in equal steps.
        let back = |i: usize| ((active.len() - 1) * i).checked_div(count - 1).unwrap_or(0);
        let mut chosen: Vec<_> = (0..count).map(|i| active[active.len() - 1 - back(i)]).collect();
        chosen.extend(maps.last());
        chosen.sort_by_key(|(id, _)| maps.iter().position(|(other, _)| other == id));
        chosen.dedup();
        taps.extend(
            chosen
                .into_iter()
                .map(|(id, c)| (Tap { name: network.name(*id).to_owned(), size: [*c, h, w] }, *id)),
        );
    }
    taps
}

/// Whether two images at once give what they give one by one, as the file is or with its Reshapes
/// loosened. What a file declares is not trusted: exporters write a batch of 1 into networks that
/// take any, and the reverse.
fn any_batch(loaded: &mut Loaded) -> bool {
    let pair = made_up(2, loaded.input, loaded.layout, loaded.network.device());
    let floats = |t: Tensor<2>| t.into_data().iter::<f32>().collect::<Vec<_>>();
    let single = |i| loaded.run_whole(pair.clone().narrow(0, i, 1), false).map(|(e, _)| floats(e));
    let (Ok(first), Ok(second)) = (single(0), single(1)) else { return false };
    let alone = [first, second].concat();
    let largest = alone.iter().fold(0f32, |m, v| m.max(v.abs()));
    let agrees = |loaded: &Loaded| {
        let Ok((together, taps)) = loaded.run_whole(pair.clone(), true) else { return false };
        let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * largest;
        floats(together).iter().zip(&alone).all(near) && taps.iter().all(|t| t.dims()[0] == 2)
    };
    if agrees(loaded) {
        return true;
    }
    let changed = loaded.network.loosen();
    if !changed.is_empty() && agrees(loaded) {
        return true;
    }
    loaded.network.tighten(changed);
    false
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use crate::hostile::{graph, node, relu, value, weight};
    use crate::proto::{AttributeProto, DimensionProto, ModelProto};
    use crate::{Layout, Model, ModelOptions, OnnxError};
    use burn::tensor::{Device, Tensor, TensorData};

    fn open(model: &ModelProto, options: ModelOptions) -> Result<Model, OnnxError> {
        Model::from_bytes("net", &model.encode_to_vec(), options)
    }

    fn plain(model: &ModelProto) -> Result<Model, OnnxError> {
        open(model, ModelOptions::default())
    }

    /// Joins a constant of one row to every image: no other batch than 1 is possible.
    fn rigid() -> ModelProto {
        let mut model = relu();
        graph(&mut model).initializer.push(weight("w", &[1, 3, 1, 4], &[0.5; 12]));
        let mut join = node("Concat", &["x", "w"], "y");
        join.attribute.push(AttributeProto {
            name: Some("axis".into()),
            i: Some(2),
            r#type: Some(2),
            ..Default::default()
        });
        graph(&mut model).node = vec![join];
        model
    }

    fn images(shape: [usize; 4]) -> Tensor<4> {
        let pixels = (0..shape.iter().product()).map(|i: usize| ((i * 7 % 1013) as f32 / 1013.0 - 0.3).abs());
        Tensor::from_data(TensorData::new(pixels.collect(), shape), &Device::flex())
    }

    fn rows(model: &Model, images: Tensor<4>) -> Vec<Vec<f32>> {
        let values: Vec<f32> = model.run(images).unwrap().into_data().iter::<f32>().collect();
        values.chunks(model.dim()).map(<[f32]>::to_vec).collect()
    }

    /// Each image's embedding in the batch is the one that it has alone.
    fn assert_batch_is_its_images(model: &Model, images: &Tensor<4>) {
        let all = rows(model, images.clone());
        for (i, row) in all.iter().enumerate() {
            assert_eq!(*row, rows(model, images.clone().narrow(0, i, 1))[0]);
        }
    }

    #[test]
    fn a_fixed_batch_is_looped_over_and_the_rest_filled_up() {
        let one = plain(&rigid()).unwrap();
        let mut model = relu();
        graph(&mut model).input[0] = value("x", &[2, 3, 4, 4]);
        let two = plain(&model).unwrap();
        assert_eq!((one.fixed_batch(), two.fixed_batch()), (Some(1), Some(2)));
        for model in [one, two] {
            assert_batch_is_its_images(&model, &images([5, 3, 4, 4]));
        }
    }

    #[test]
    fn images_that_go_in_parts_through_large_maps_give_what_they_give_alone() {
        // Maps of 212x212 pixels, and of 14x14 behind them or not.
        for (pools, count) in [(&["GlobalAveragePool"][..], 3), (&["AveragePool", "GlobalAveragePool"], 7)] {
            let mut model = relu();
            graph(&mut model).input[0] = value("x", &[1, 3, 212, 212]);
            for (place, pool) in pools.iter().enumerate() {
                let names = ["y", "z", "w"];
                let mut pool = node(pool, &names[place..=place], names[place + 1]);
                pool.name = Some(names[place + 1].into());
                for name in ["kernel_shape", "strides"].iter().take(2 * (pools.len() - 1 - place)) {
                    pool.attribute.push(AttributeProto {
                        name: Some((*name).into()),
                        ints: vec![15; 2],
                        r#type: Some(7),
                        ..Default::default()
                    });
                }
                graph(&mut model).node.push(pool);
            }
            graph(&mut model).output[0] = value(["z", "w"][pools.len() - 1], &[1, 3, 1, 1]);
            let model = plain(&model).unwrap();
            assert_eq!(model.fixed_batch(), None);
            let batch = images([count, 3, 212, 212]);
            // The first pass makes the plan that the second follows.
            for _ in 0..2 {
                assert_batch_is_its_images(&model, &batch);
            }
        }
    }

    #[test]
    fn an_open_size_must_be_given() {
        let mut model = relu();
        let open_dim = DimensionProto { dim_value: None, dim_param: Some("h".into()) };
        let kind = graph(&mut model).input[0].r#type.as_mut().unwrap();
        kind.tensor_type.as_mut().unwrap().shape.as_mut().unwrap().dim[2] = open_dim;
        let error = plain(&model).unwrap_err().to_string();
        assert!(error.contains("leaves its height open"), "{error}");
        let sized = ModelOptions { size: Some([6, 4]), ..Default::default() };
        assert_eq!(open(&model, sized).unwrap().input(), [3, 6, 4]);
        let wrong = ModelOptions { size: Some([6, 5]), ..Default::default() };
        assert!(open(&model, wrong).unwrap_err().to_string().contains("width is 4, but 5 was asked for"));
    }

    #[test]
    fn channels_last_is_rearranged() {
        let mut model = relu();
        graph(&mut model).input[0] = value("x", &[1, 4, 4, 3]);
        let last = ModelOptions { layout: Layout::Nhwc, ..Default::default() };
        let last = open(&model, last).unwrap();
        assert_eq!((last.input(), last.input_shape()), ([3, 4, 4], [4, 4, 3]));
        let batch = images([1, 4, 4, 3]);
        let expected: Vec<f32> = batch.clone().into_data().iter::<f32>().collect();
        assert_eq!(rows(&last, batch)[0], expected);
        let error = last.run(images([1, 3, 4, 4])).unwrap_err().to_string();
        assert!(error.contains("shape [N, 3, 4, 4]; need [N, 4, 4, 3]"), "{error}");
        assert!(plain(&model).unwrap_err().to_string().contains("4 channels; need 1 or 3"));
    }

    #[test]
    fn the_fingerprint_knows_file_and_settings() {
        let (model, other) = (plain(&relu()).unwrap(), plain(&rigid()).unwrap());
        assert_eq!(model.fingerprint("").len(), 64);
        assert_ne!(model.fingerprint(""), model.fingerprint("scaled"));
        assert_ne!(model.fingerprint(""), other.fingerprint(""));
    }
}
