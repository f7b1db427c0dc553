//! Pooling over windows and over whole images, of one to three dimensions.

use burn::tensor::module::{avg_pool2d, max_pool2d_with_indices};
use burn::tensor::ops::{AvgPoolOptions, MaxPoolOptions};
use burn::tensor::{Tensor, TensorData};
use waylay_conv::{ConvOptions, max_pool2d};

use super::conv::window_sums;
use super::window::Window;
use super::{Call, Operator, Outcome, one, op};
use crate::constant::{Constant, Values};
use crate::value::{Ranked, Value, map_rank};

pub(super) const LIST: &[Operator] = &[
    op("MaxPool", 1..=1, max),
    op("AveragePool", 1..=1, average),
    op("LpPool", 1..=1, power),
    op("GlobalAveragePool", 1..=1, |call| global(call, |x| x.mean_dim(2))),
    op("GlobalMaxPool", 1..=1, |call| global(call, |x| x.max_dim(2))),
    op("GlobalLpPool", 1..=1, |call| {
        let p = order(call)?;
        let powers = map_rank!(call.tensor(0)?, t => t.abs().powf_scalar(p));
        let sums = whole(powers, |x| x.sum_dim(2))?;
        one(map_rank!(sums, t => t.powf_scalar(1.0 / p)))
    }),
];

/// How many multiplications of a matrix product take as long as one step of a pooling.
const SLOWER: u64 = 16;

fn global(call: &Call<'_>, pool: fn(Tensor<3>) -> Tensor<3>) -> Outcome {
    one(whole(call.tensor(0)?, pool)?)
}

/// `pool` over all dimensions but the first two, which become 1.
fn whole(x: Ranked, pool: fn(Tensor<3>) -> Tensor<3>) -> Result<Ranked, String> {
    let dims = x.dims();
    let [n, c, rest @ ..] = &dims[..] else { return Err(format!("shape {dims:?}; need an image")) };
    let Ranked::R3(flat) = x.reshape(&[*n, *c, rest.iter().product()])? else {
        return Err("no image".into());
    };
    Ranked::R3(pool(flat)).reshape(&[vec![*n, *c], vec![1; rest.len()]].concat())
}

fn order(call: &Call<'_>) -> Result<f32, String> {
    let p = call.int("p", 2)?;
    if (1..=64).contains(&p) { Ok(p as f32) } else { Err(format!("p of {p}; need 1 to 64")) }
}

/// An image or row `[N, C, H, W]`, or a volume, pooled: planes by `plane` over the last two
/// dimensions, and a volume's first dimension by the same on a second pass, as all poolings here
/// are separable.
fn by_planes(
    x: Ranked,
    window: &Window,
    plane: impl Fn(Tensor<4>, &Window) -> Result<Tensor<4>, String>,
) -> Result<Ranked, String> {
    let dims = x.dims();
    let (n, c) = (dims[0], dims[1]);
    let result = [&[n, c], &window.output[..]].concat();
    let four = |x: Ranked, shape: [usize; 4]| match x.reshape(&shape)? {
        Ranked::R4(x) => Ok(x),
        _ => Err("no image".to_owned()),
    };
    let y = match dims[2..] {
        [w] => plane(four(x, [n, c, 1, w])?, window)?,
        [h, w] => plane(four(x, [n, c, h, w])?, window)?,
        [d, h, w] => {
            let y = plane(four(x, [n, c * d, h, w])?, &window.part(1, 3))?;
            let [_, _, rows, columns] = y.dims();
            let y = y.reshape([n, c, d, rows * columns]).swap_dims(2, 3);
            let y = y.reshape([n, c * rows * columns, 1, d]);
            let y = plane(y, &window.part(0, 1))?;
            y.reshape([n, c, rows * columns, window.output[0]]).swap_dims(2, 3)
        }
        _ => return Err(format!("shape {dims:?}; need 1 to 3 dimensions besides batch and channels")),
    };
    Ranked::R4(y).reshape(&result)
}

fn max(call: &Call<'_>) -> Outcome {
    let (x, window) = window(call)?;
    let positions = call.node.outputs.get(1).copied().flatten().is_some();
    if positions && !call.all_known() {
        return Err("the positions of the maxima are not supported".into());
    }
    if positions {
        return max_with_positions(call, x, &window);
    }
    let pooled = by_planes(x, &window, |x, window| {
        let [(top, bottom), (left, right)] = inside(window);
        let options = ConvOptions {
            stride: window.pair(|w| &w.stride, 1),
            padding: [top, left, bottom, right],
            dilation: window.pair(|w| &w.dilation, 1),
            ..ConvOptions::default()
        };
        Ok(max_pool2d(padded(x, window), window.pair(|w| &w.kernel, 1), options))
    })?;
    one(pooled)
}

/// Whether Burn and PyTorch would refuse the padding: windows of nothing else could come of it.
fn wide(window: &Window) -> bool {
    let reach = |i: usize| window.dilation[i] * (window.kernel[i] - 1) + 1;
    (0..window.kernel.len()).any(|i| window.before[i].max(window.after[i]) * 2 > reach(i))
}

/// `x` with all padding already there where it is too wide to be left to the pooling.
fn padded(x: Tensor<4>, window: &Window) -> Tensor<4> {
    if !wide(window) {
        return x;
    }
    let ([top, left], [bottom, right]) = (window.pair(|w| &w.before, 0), window.pair(|w| &w.after, 0));
    x.pad(&[(top, bottom), (left, right)][..], f32::MIN)
}

/// The padding that is left to the pooling.
fn inside(window: &Window) -> [(usize, usize); 2] {
    if wide(window) {
        return [(0, 0); 2];
    }
    let ([top, left], [bottom, right]) = (window.pair(|w| &w.before, 0), window.pair(|w| &w.after, 0));
    [(top, bottom), (left, right)]
}

/// Also where in the whole input each maximum stands, row by row or column by column. Of what is
/// known only.
fn max_with_positions(call: &Call<'_>, x: Ranked, window: &Window) -> Outcome {
    let dims = x.dims();
    let [n, c, rest @ ..] = &dims[..] else { return Err(format!("shape {dims:?}")) };
    let (n, c, [h, w]) = (*n, *c, if let [w] = rest { [1, *w] } else { [rest[0], rest[1]] });
    if rest.len() > 2 {
        return Err("positions of maxima in volumes are not supported".into());
    }
    let Ranked::R4(x) = x.reshape(&[n, c, h, w])? else { return Err("no image".into()) };
    let options = MaxPoolOptions::new(window.pair(|w| &w.kernel, 1))
        .with_stride(window.pair(|w| &w.stride, 1))
        .with_padding_pairs(inside(window))
        .with_dilation(window.pair(|w| &w.dilation, 1));
    let (y, at) = max_pool2d_with_indices(x, options);
    let [_, _, rows, columns] = y.dims();
    let by_column = call.int("storage_order", 0)? != 0;
    let place = |(i, at): (usize, i64)| {
        let (plane, at) = ((i / (rows * columns)) as i64, at);
        let (h, w) = (h as i64, w as i64);
        plane * h * w + if by_column { at % w * h + at / w } else { at }
    };
    let places = at.into_data().iter::<i64>().enumerate().map(place).collect();
    let result = [&[n, c], &window.output[..]].concat();
    let positions = Constant { dims: result.clone(), values: Values::Int(places) };
    Ok(vec![Ranked::R4(y).reshape(&result)?.into(), Value::known(positions)])
}

fn average(call: &Call<'_>) -> Outcome {
    let (x, window) = window(call)?;
    let padding = call.int("count_include_pad", 0)? != 0;
    let plain =
        window.dilation.iter().all(|&d| d == 1) && !wide(&window) && window.after == window.declared_after;
    let pooled = by_planes(x, &window, |x, window| {
        if plain {
            let options = AvgPoolOptions::new(window.pair(|w| &w.kernel, 1))
                .with_stride(window.pair(|w| &w.stride, 1))
                .with_padding_pairs(inside(window))
                .with_count_include_pad(padding);
            return Ok(avg_pool2d(x, options));
        }
        let size = x.dims();
        let (rows, columns) = match window.kernel.len() {
            1 => (vec![1], window.counts(0, size[3], padding)),
            _ => (window.counts(0, size[2], padding), window.counts(1, size[3], padding)),
        };
        let shares = rows.iter().flat_map(|r| columns.iter().map(move |c| 1.0 / (r * c).max(1) as f32));
        let data = TensorData::new(shares.collect(), [1, 1, rows.len(), columns.len()]);
        let shares = Ranked::R4(Tensor::from_data(data, &x.device().inner())).lift(&x.device());
        let Ranked::R4(shares) = shares else { return Err("no image".into()) };
        Ok(window_sums(x, window) * shares)
    })?;
    one(pooled)
}

/// The root of the sum of powers, without dividing by the number.
fn power(call: &Call<'_>) -> Outcome {
    let (x, window) = window(call)?;
    let p = order(call)?;
    let powers = map_rank!(x, t => t.abs().powf_scalar(p));
    let sums = by_planes(powers, &window, |x, window| Ok(window_sums(x, window)))?;
    one(map_rank!(sums, t => t.powf_scalar(1.0 / p)))
}

fn window(call: &Call<'_>) -> Result<(Ranked, Window), String> {
    let x = call.tensor(0)?;
    let dims = x.dims();
    let [n, c, size @ ..] = &dims[..] else { return Err(format!("shape {dims:?}; need an image")) };
    if !(1..=3).contains(&size.len()) {
        return Err(format!("shape {dims:?}; need 1 to 3 dimensions besides batch and channels"));
    }
    let ceil = call.int("ceil_mode", 0)? != 0;
    let window = Window::read(call, &Window::kernel(call, size.len())?, size, ceil)?;
    call.affordable([&[*n, *c], &window.output[..]].concat())?;
    let padded = (0..size.len()).map(|i| size[i] + window.before[i] + window.after[i]);
    call.affordable([*n, *c].into_iter().chain(padded).collect())?;
    // Pooling has no matrix product to hurry it.
    call.check_work(window.work(&[*n, *c]).saturating_mul(SLOWER))?;
    Ok((x, window))
}
