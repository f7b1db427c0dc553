//! How the window of a convolution or a pooling moves, with the sizes checked.

use super::Call;

/// Largest kernel, stride, dilation or padding.
const LIMIT: i64 = 1 << 16;

pub(super) struct Window {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub dilation: [usize; 2],
    /// Top, left.
    pub before: [usize; 2],
    /// Bottom, right.
    pub after: [usize; 2],
    /// Height and width of the result.
    pub output: [usize; 2],
}

impl Window {
    /// Reads strides, dilations, pads and auto_pad of `call` for a `kernel` over an image of `size` (height, width).
    pub fn read(call: &Call<'_>, kernel: [usize; 2], size: [usize; 2], ceil: bool) -> Result<Self, String> {
        let pair = |name: &str, least| match call.int_list(name)? {
            None => Ok([1, 1]),
            Some(&[a, b]) if a >= least && b >= least && a <= LIMIT && b <= LIMIT => {
                Ok([a as usize, b as usize])
            }
            Some(other) => Err(format!("{name} {other:?}; need 2 numbers from {least} to {LIMIT}")),
        };
        let stride = pair("strides", 1)?;
        let dilation = pair("dilations", 1)?;
        if kernel.iter().any(|&k| k == 0 || k > LIMIT as usize) {
            return Err(format!("kernel of {kernel:?}; need 1 to {LIMIT}"));
        }
        let reach = [0, 1].map(|i| dilation[i] * (kernel[i] - 1) + 1);
        let (before, after) = padding(call, size, stride, reach)?;
        let mut output = [0; 2];
        for i in 0..2 {
            let padded = size[i] + before[i] + after[i];
            if padded < reach[i] {
                return Err(format!("a window of {reach:?} over an image of {size:?} padded to {padded}"));
            }
            let room = padded - reach[i];
            output[i] = room / stride[i] + 1;
            // A window that would start in the padding at the end is dropped, as PyTorch and onnxruntime do.
            if ceil && !room.is_multiple_of(stride[i]) && output[i] * stride[i] < size[i] + before[i] {
                output[i] += 1;
            }
        }
        Ok(Self { kernel, stride, dilation, before, after, output })
    }

    /// `kernel_shape`, which poolings must have.
    pub fn kernel(call: &Call<'_>) -> Result<[usize; 2], String> {
        match call.int_list("kernel_shape")? {
            Some(&[h, w]) if h > 0 && w > 0 && h <= LIMIT && w <= LIMIT => Ok([h as usize, w as usize]),
            other => Err(format!("kernel_shape {other:?}; need 2 numbers from 1 to {LIMIT}")),
        }
    }
}

fn padding(
    call: &Call<'_>,
    size: [usize; 2],
    stride: [usize; 2],
    reach: [usize; 2],
) -> Result<([usize; 2], [usize; 2]), String> {
    let mode = call.text("auto_pad", "NOTSET")?;
    match mode {
        "NOTSET" | "" => match call.int_list("pads")? {
            None => Ok(([0; 2], [0; 2])),
            Some(p) if p.len() == 4 && p.iter().all(|v| (0..=LIMIT).contains(v)) => {
                Ok(([p[0] as usize, p[1] as usize], [p[2] as usize, p[3] as usize]))
            }
            Some(p) => Err(format!("pads {p:?}; need 4 numbers from 0 to {LIMIT}")),
        },
        "VALID" => Ok(([0; 2], [0; 2])),
        "SAME_UPPER" | "SAME_LOWER" => {
            let total = [0, 1]
                .map(|i| ((size[i].div_ceil(stride[i]) - 1) * stride[i] + reach[i]).saturating_sub(size[i]));
            let (small, large) = (total.map(|t| t / 2), total.map(|t| t.div_ceil(2)));
            Ok(if mode == "SAME_UPPER" { (small, large) } else { (large, small) })
        }
        other => Err(format!("auto_pad `{other}`; known are NOTSET, VALID, SAME_UPPER and SAME_LOWER")),
    }
}
