//! Stride, padding and dilation of convolutions and pooling over one to three dimensions, with the
//! sizes checked.

use super::Call;

/// Largest kernel, stride, dilation or padding.
const LIMIT: i64 = 1 << 16;

/// One number per dimension in each field.
pub(super) struct Window {
    pub kernel: Vec<usize>,
    pub stride: Vec<usize>,
    pub dilation: Vec<usize>,
    /// Padding at the start.
    pub before: Vec<usize>,
    /// Padding at the end; with `ceil`, as far as the last window reaches.
    pub after: Vec<usize>,
    /// The result's size.
    pub output: Vec<usize>,
    /// Padding at the end as the file gives it.
    pub declared_after: Vec<usize>,
}

impl Window {
    /// Reads strides, dilations, pads and auto_pad of `call` for a `kernel` over an image of
    /// `size`.
    pub fn read(call: &Call<'_>, kernel: &[usize], size: &[usize], ceil: bool) -> Result<Self, String> {
        let mut window = Self::steps(call, kernel)?;
        let rank = kernel.len();
        let reach: Vec<usize> = (0..rank).map(|i| window.dilation[i] * (kernel[i] - 1) + 1).collect();
        (window.before, window.after) = padding(call, size, &window.stride, &reach)?;
        window.declared_after = window.after.clone();
        for i in 0..rank {
            let (before, stride) = (window.before[i], window.stride[i]);
            let padded = size[i] + before + window.after[i];
            if padded < reach[i] {
                return Err(format!("a window of {reach:?} over an image of {size:?} padded to {padded}"));
            }
            let room = padded - reach[i];
            let mut output = room / stride + 1;
            // A window that would start in the padding at the end is dropped, as PyTorch and
            // onnxruntime do.
            if ceil && !room.is_multiple_of(stride) && output * stride < size[i] + before {
                output += 1;
            }
            let needed = (output - 1) * stride + reach[i];
            window.after[i] = window.after[i].max(needed.saturating_sub(size[i] + before));
            window.output.push(output);
        }
        Ok(window)
    }

    /// Steps that sums over windows of `planes` planes take: kernels that reach beyond the image
    /// pass over its padding too, so rows count with the width of theirs.
    pub fn work(&self, planes: &[usize]) -> u64 {
        let last = self.kernel.len() - 1;
        let across = self.dilation[last] * (self.kernel[last] - 1) / self.stride[last];
        let factors = planes.iter().chain(&self.kernel).chain(&self.output[..last]);
        factors.chain([&(self.output[last] + across)]).fold(1u64, |p, &d| p.saturating_mul(d as u64))
    }

    /// Kernel, strides and dilations only.
    pub fn steps(call: &Call<'_>, kernel: &[usize]) -> Result<Self, String> {
        let rank = kernel.len();
        if kernel.iter().any(|&k| k == 0 || k > LIMIT as usize) {
            return Err(format!("kernel of {kernel:?}; need 1 to {LIMIT}"));
        }
        let numbers = |name: &str| match call.int_list(name)? {
            None => Ok(vec![1; rank]),
            Some(list) if list.len() == rank && list.iter().all(|v| (1..=LIMIT).contains(v)) => {
                Ok(list.iter().map(|&v| v as usize).collect())
            }
            Some(other) => Err(format!("{name} {other:?}; need {rank} numbers from 1 to {LIMIT}")),
        };
        Ok(Self {
            kernel: kernel.to_vec(),
            stride: numbers("strides")?,
            dilation: numbers("dilations")?,
            before: Vec::new(),
            after: Vec::new(),
            output: Vec::new(),
            declared_after: Vec::new(),
        })
    }

    /// `kernel_shape`, which poolings must have, of `rank` dimensions.
    pub fn kernel(call: &Call<'_>, rank: usize) -> Result<Vec<usize>, String> {
        match call.int_list("kernel_shape")? {
            Some(list) if list.len() == rank && list.iter().all(|k| (1..=LIMIT).contains(k)) => {
                Ok(list.iter().map(|&k| k as usize).collect())
            }
            other => Err(format!("kernel_shape {other:?}; need {rank} numbers from 1 to {LIMIT}")),
        }
    }

    /// A field of a window over a row or an image as for an image; `outer` is what a row has
    /// across.
    pub fn pair(&self, field: impl Fn(&Self) -> &Vec<usize>, outer: usize) -> [usize; 2] {
        match field(self)[..] {
            [across, along, ..] => [across, along],
            [along] => [outer, along],
            [] => [outer; 2],
        }
    }

    /// The window over dimensions `from` to `to` only.
    pub fn part(&self, from: usize, to: usize) -> Self {
        let part = |list: &[usize]| list[from..to].to_vec();
        Self {
            kernel: part(&self.kernel),
            stride: part(&self.stride),
            dilation: part(&self.dilation),
            before: part(&self.before),
            after: part(&self.after),
            output: part(&self.output),
            declared_after: part(&self.declared_after),
        }
    }

    /// How many of dimension `axis`'s pixels each window covers; with `padding`, declared padding
    /// counts too.
    pub fn counts(&self, axis: usize, size: usize, padding: bool) -> Vec<usize> {
        let before = self.before[axis];
        let covered =
            if padding { 0..before + size + self.declared_after[axis] } else { before..before + size };
        let count = |start: usize| {
            let taps = (0..self.kernel[axis]).map(|k| start + k * self.dilation[axis]);
            taps.filter(|at| covered.contains(at)).count()
        };
        (0..self.output[axis]).map(|i| count(i * self.stride[axis])).collect()
    }
}

/// Before and after, one number per dimension.
type Padding = (Vec<usize>, Vec<usize>);

fn padding(call: &Call<'_>, size: &[usize], stride: &[usize], reach: &[usize]) -> Result<Padding, String> {
    let rank = size.len();
    let mode = call.text("auto_pad", "NOTSET")?;
    match mode {
        "NOTSET" | "" => match call.int_list("pads")? {
            None => Ok((vec![0; rank], vec![0; rank])),
            Some(p) if p.len() == 2 * rank && p.iter().all(|v| (0..=LIMIT).contains(v)) => {
                let p: Vec<usize> = p.iter().map(|&v| v as usize).collect();
                Ok((p[..rank].to_vec(), p[rank..].to_vec()))
            }
            Some(p) => Err(format!("pads {p:?}; need {} numbers from 0 to {LIMIT}", 2 * rank)),
        },
        "VALID" => Ok((vec![0; rank], vec![0; rank])),
        "SAME_UPPER" | "SAME_LOWER" => {
            let total = (0..rank).map(|i| {
                ((size[i].div_ceil(stride[i]).max(1) - 1) * stride[i] + reach[i]).saturating_sub(size[i])
            });
            let (small, large) = total.map(|t| (t / 2, t.div_ceil(2))).unzip();
            Ok(if mode == "SAME_UPPER" { (small, large) } else { (large, small) })
        }
        other => Err(format!("auto_pad `{other}`; known are NOTSET, VALID, SAME_UPPER and SAME_LOWER")),
    }
}
