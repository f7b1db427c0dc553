//! Normalisation by stored or by measured statistics.

use burn::tensor::Tensor;

use super::call::{self, Call};
use super::{Operator, Outcome, one, op};
use crate::value::{Ranked, map_rank, zip_rank};

pub(super) const LIST: &[Operator] = &[
    op("BatchNormalization", 5..=5, batch),
    op("InstanceNormalization", 3..=3, instance),
    op("GroupNormalization", 3..=3, group),
    op("LayerNormalization", 2..=3, layer),
    op("RMSNormalization", 2..=2, root_mean_square),
    op("MeanVarianceNormalization", 1..=1, mean_variance),
    op("LRN", 1..=1, local_response),
    op("LpNormalization", 1..=1, lp),
];

/// With stored mean and variance: a scale and a shift per channel. In training mode the batch's own
/// are used, and the stored ones moved towards them, as the file asks for.
fn batch(call: &Call<'_>) -> Outcome {
    if call.int("spatial", 1)? != 1 {
        return Err("only statistics per channel are supported".into());
    }
    let x = call.tensor(0)?;
    let dims = x.dims();
    let [n, channels, rest @ ..] = &dims[..] else { return Err("an input without channels".into()) };
    let epsilon = call.float("epsilon")?.unwrap_or(1e-5);
    let (gamma, beta) = (call.vector(1, *channels)?, call.vector(2, *channels)?);
    let (mut mean, mut variance) = (call.vector(3, *channels)?, call.vector(4, *channels)?);
    let mut running = Vec::new();
    if call.int("training_mode", 0)? != 0 {
        let momentum = call.float("momentum")?.unwrap_or(0.9);
        let flat = x.clone().reshape(&[*n, *channels, rest.iter().product()])?;
        let Ranked::R3(flat) = flat else { return Err("an input of no rank".into()) };
        let flat = flat.swap_dims(0, 1).flatten::<2>(1, 2);
        let own = flat.clone().mean_dim(1);
        let centred = flat - own.clone();
        let spread = (centred.clone() * centred).mean_dim(1).reshape([*channels]);
        let own = own.reshape([*channels]);
        running = vec![
            Ranked::R1(mean * momentum + own.clone() * (1.0 - momentum)).into(),
            Ranked::R1(variance * momentum + spread.clone() * (1.0 - momentum)).into(),
        ];
        (mean, variance) = (own, spread);
    }
    let scale = gamma / (variance + epsilon).sqrt();
    let shift = beta - mean * scale.clone();
    let mut shape = vec![1; dims.len()];
    shape[1] = *channels;
    let scaled = zip_rank!(x, Ranked::R1(scale).reshape(&shape)?, (x, s) => x * s)?;
    let y = zip_rank!(scaled, Ranked::R1(shift).reshape(&shape)?, (x, s) => x + s)?;
    Ok([y.into()].into_iter().chain(running).collect())
}

/// Each group of channels by its own mean and variance; up to operator set 20, scales are per
/// group.
fn group(call: &Call<'_>) -> Outcome {
    let x = call.tensor(0)?;
    let dims = x.dims();
    let [n, channels, rest @ ..] = &dims[..] else { return Err("an input without channels".into()) };
    let groups = usize::try_from(call.int("num_groups", 0)?).unwrap_or(0);
    if groups == 0 || channels % groups != 0 {
        return Err(format!("{channels} channels in {groups} groups"));
    }
    let epsilon = call.float("epsilon")?.unwrap_or(1e-5);
    let Ranked::R2(flat) = x.reshape(&[n * groups, channels / groups * rest.iter().product::<usize>()])?
    else {
        return Err("an input of no rank".into());
    };
    let (y, _, _) = standardised(flat, epsilon);
    let per_channel = |index| {
        let given = call.tensor(index)?.dims();
        let vector = call.vector(index, if given == [groups] { groups } else { *channels })?;
        let repeats = channels / vector.dims()[0];
        let vector = vector.reshape([-1, 1]).repeat(&[1, repeats]).reshape([*channels]);
        Ranked::R1(vector).reshape(&[vec![1, *channels], vec![1; rest.len()]].concat())
    };
    let y = Ranked::R2(y).reshape(&dims)?;
    let y = zip_rank!(y, per_channel(1)?, (y, s) => y * s)?;
    one(zip_rank!(y, per_channel(2)?, (y, s) => y + s)?)
}

/// Rows with mean 0 and variance 1; and their mean and the inverse of their deviation before.
fn standardised(rows: Tensor<2>, epsilon: f32) -> (Tensor<2>, Tensor<2>, Tensor<2>) {
    let mean = rows.clone().mean_dim(1);
    let centred = rows - mean.clone();
    let inverse = ((centred.clone() * centred.clone()).mean_dim(1) + epsilon).sqrt().recip();
    (centred * inverse.clone(), mean, inverse)
}

fn instance(call: &Call<'_>) -> Outcome {
    let x = call.tensor(0)?;
    let dims = x.dims();
    let epsilon = f64::from(call.float("epsilon")?.unwrap_or(1e-5));
    let [n, channels, rest @ ..] = &dims[..] else { return Err("an input without channels".into()) };
    let (gamma, beta) = (call.vector(1, *channels)?, call.vector(2, *channels)?);
    let Ranked::R4(flat) = x.reshape(&[*n, *channels, 1, rest.iter().product()])? else {
        return Err("an input of no rank".into());
    };
    one(Ranked::R4(waylay_conv::instance_norm(flat, gamma, beta, epsilon)).reshape(&dims)?)
}

/// Rows of what stands from `axis` on, the shape of the input, and the number of dimensions before
/// `axis`.
fn rows(call: &Call<'_>) -> Result<(Tensor<2>, Vec<usize>, usize), String> {
    let x = call.tensor(0)?;
    let dims = x.dims();
    let axis = call::axis(call.int("axis", -1)?, dims.len())?;
    let (count, width) = (dims[..axis].iter().product(), dims[axis..].iter().product());
    match x.reshape(&[count, width])? {
        Ranked::R2(rows) => Ok((rows, dims, axis)),
        _ => Err("an input of no rank".into()),
    }
}

/// Input `index` repeated over `dims` from `axis` on, as one row.
fn row(call: &Call<'_>, index: usize, dims: &[usize], axis: usize) -> Result<Tensor<2>, String> {
    let inner = &dims[axis..];
    let given = call.tensor(index)?;
    let given = given.with_rank(inner.len())?.expand(inner)?;
    match given.reshape(&[1, inner.iter().product()])? {
        Ranked::R2(row) => Ok(row),
        _ => Err("a scale of no rank".into()),
    }
}

/// Over all axes from `axis` on.
fn layer(call: &Call<'_>) -> Outcome {
    let (flat, dims, axis) = rows(call)?;
    if call.node.outputs[1..].iter().all(Option::is_none) {
        let [_, width] = flat.dims();
        let gamma = row(call, 1, &dims, axis)?.reshape([width]);
        let beta = if call.has(2) { row(call, 2, &dims, axis)?.reshape([width]) } else { gamma.zeros_like() };
        let epsilon = f64::from(call.float("epsilon")?.unwrap_or(1e-5));
        return one(Ranked::R2(waylay_conv::layer_norm(flat, gamma, beta, epsilon)).reshape(&dims)?);
    }
    let (mut y, mean, inverse) = standardised(flat, call.float("epsilon")?.unwrap_or(1e-5));
    y = y * row(call, 1, &dims, axis)?;
    if call.has(2) {
        y = y + row(call, 2, &dims, axis)?;
    }
    let statistics = [&dims[..axis], &vec![1; dims.len() - axis]].concat();
    Ok(vec![
        Ranked::R2(y).reshape(&dims)?.into(),
        Ranked::R2(mean).reshape(&statistics)?.into(),
        Ranked::R2(inverse).reshape(&statistics)?.into(),
    ])
}

/// Over all axes from `axis` on, by the root of the mean square.
fn root_mean_square(call: &Call<'_>) -> Outcome {
    let (flat, dims, axis) = rows(call)?;
    let epsilon = call.float("epsilon")?.unwrap_or(1e-5);
    let inverse = ((flat.clone() * flat.clone()).mean_dim(1) + epsilon).sqrt().recip();
    one(Ranked::R2(flat * inverse * row(call, 1, &dims, axis)?).reshape(&dims)?)
}

/// Over the given axes, without an epsilon, as ONNX has it.
fn mean_variance(call: &Call<'_>) -> Outcome {
    let x = call.tensor(0)?;
    let axes = call::axes(call.int_list("axes")?.unwrap_or(&[0, 2, 3]), x.rank())?;
    let mean = |x: Ranked| axes.iter().fold(x, |x, &axis| map_rank!(x, t => t.mean_dim(axis)));
    let centre = mean(x.clone());
    let centred = zip_rank!(x, centre, (x, m) => x - m)?;
    let variance = mean(map_rank!(centred.clone(), t => t.clone() * t));
    one(zip_rank!(centred, variance, (c, v) => c / (v.sqrt() + 1e-9))?)
}

/// Divides by the sum of squares of the channels around, as AlexNet did.
fn local_response(call: &Call<'_>) -> Outcome {
    let x = call.image(0)?;
    let [n, c, h, w] = x.dims();
    let size = usize::try_from(call.int("size", 0)?).ok().filter(|s| (1..=1024).contains(s));
    let size = size.ok_or("size; need 1 to 1024")?;
    let (alpha, beta) =
        (call.float("alpha")?.unwrap_or(1e-4), call::exponent(call.float("beta")?.unwrap_or(0.75))?);
    let bias = call.float("bias")?.unwrap_or(1.0);
    let (before, after) = ((size - 1) / 2, size / 2);
    let squares = (x.clone() * x.clone()).reshape([n, 1, c, h * w]).pad(&[(before, after), (0, 0)][..], 0.0);
    let sums =
        (1..size).fold(squares.clone().narrow(2, 0, c), |sum, i| sum + squares.clone().narrow(2, i, c));
    let scale = (sums.reshape([n, c, h, w]) * (alpha / size as f32) + bias).powf_scalar(beta);
    one(Ranked::R4(x / scale))
}

/// Divides by the 1- or 2-norm along an axis; a zero vector stays zero.
fn lp(call: &Call<'_>) -> Outcome {
    let x = call.tensor(0)?;
    let axis = call::axis(call.int("axis", -1)?, x.rank())?;
    let p = call.int("p", 2)?;
    if !(1..=2).contains(&p) {
        return Err(format!("p of {p}; need 1 or 2"));
    }
    one(map_rank!(x, t => {
        let sum = if p == 1 { t.clone().abs() } else { t.clone() * t.clone() }.sum_dim(axis);
        let empty = sum.clone().equal_elem(0.0);
        let sum = sum.mask_fill(empty, 1.0);
        t / if p == 1 { sum } else { sum.sqrt() }
    }))
}
