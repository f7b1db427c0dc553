//! Stride, padding, dilation and groups of a convolution, and the sizes that follow from them.

/// Stride, padding, dilation and groups of a 2-D convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConvOptions {
    /// Step down and across.
    pub stride: [usize; 2],
    /// Zeros added at the top, left, bottom and right.
    pub padding: [usize; 4],
    /// Distance between the kernel's taps, down and across.
    pub dilation: [usize; 2],
    /// Groups that channels are divided into.
    pub groups: usize,
    /// Whether 3x3 kernels at stride 1 or 2 may go by Winograd's F(4x4, 3x3) where that is faster.
    /// Its rounding is two to five times that of plain sums, and below 4e-6 of the largest value in
    /// the tests.
    pub winograd: bool,
}

impl Default for ConvOptions {
    fn default() -> Self {
        Self { stride: [1; 2], padding: [0; 4], dilation: [1; 2], groups: 1, winograd: false }
    }
}

impl ConvOptions {
    /// Height and width of the output for an input and a kernel of the given heights and widths.
    ///
    /// `None` where there is no output: a stride, dilation or kernel side of 0, a kernel that is
    /// larger than the padded input, or sizes that overflow.
    pub fn output_size(&self, input: [usize; 2], kernel: [usize; 2]) -> Option<[usize; 2]> {
        let [top, left, bottom, right] = self.padding;
        let along = |axis: usize, before: usize, after: usize| {
            let padded = input[axis].checked_add(before)?.checked_add(after)?;
            let reach = kernel[axis].checked_sub(1)?.checked_mul(self.dilation[axis])?.checked_add(1)?;
            let steps = padded.checked_sub(reach)?.checked_div(self.stride[axis])?;
            (self.dilation[axis] > 0).then_some(steps + 1)
        };
        Some([along(0, top, bottom)?, along(1, left, right)?])
    }

    /// Shape `[N, Co, Ho, Wo]` of the output for inputs of shapes `x` `[N, Ci, H, W]` and `weight`
    /// `[Co, Ci / groups, Kh, Kw]`; `None` where the channels do not match, a size
    /// other than `N` is 0, or there is no output.
    pub fn output_shape(&self, x: [usize; 4], weight: [usize; 4]) -> Option<[usize; 4]> {
        Geometry::new(x, weight, *self).map(|g| [g.images, g.out_channels, g.output[0], g.output[1]])
    }
}

/// Every size of one convolution, checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub images: usize,
    pub in_channels: usize,
    pub out_channels: usize,
    pub input: [usize; 2],
    pub kernel: [usize; 2],
    pub output: [usize; 2],
    pub options: ConvOptions,
}

impl Geometry {
    pub fn new(x: [usize; 4], weight: [usize; 4], options: ConvOptions) -> Option<Self> {
        let [images, in_channels, h, w] = x;
        let [out_channels, per_group, kh, kw] = weight;
        let groups = options.groups;
        let output = options.output_size([h, w], [kh, kw])?;
        let matches = [groups, in_channels, out_channels, h, w].iter().all(|&size| size > 0)
            && in_channels == per_group.checked_mul(groups)?
            && out_channels.is_multiple_of(groups);
        let geometry =
            Self { images, in_channels, out_channels, input: [h, w], kernel: [kh, kw], output, options };
        matches.then_some(geometry)
    }

    /// Panics with every size in the message where [`Self::new`] would give nothing.
    pub fn expect(x: [usize; 4], weight: [usize; 4], options: ConvOptions) -> Self {
        Self::new(x, weight, options).unwrap_or_else(|| {
            panic!(
                "conv2d: no output for an input of shape {x:?}, a weight of shape {weight:?} and {options:?}"
            )
        })
    }

    /// The convolution that turns an image of height and width `size` into one of the shape of `x`,
    /// given `weight` `[Ci, Co / groups, Kh, Kw]`: a transposed convolution of `x` is its gradient.
    /// Panics where there is none.
    pub fn expect_transposed(
        x: [usize; 4],
        weight: [usize; 4],
        options: ConvOptions,
        size: [usize; 2],
    ) -> Self {
        let image = [x[0], weight[1] * options.groups, size[0], size[1]];
        Self::new(image, weight, options)
            .filter(|g| g.out_channels == x[1] && g.output == [x[2], x[3]])
            .unwrap_or_else(|| {
                panic!(
                    "conv_transpose2d: no output of size {size:?} for an input of shape {x:?}, a weight of shape \
                     {weight:?} and {options:?}"
                )
            })
    }

    /// Pixels of one input channel.
    pub fn input_area(&self) -> usize {
        self.input[0] * self.input[1]
    }

    /// Pixels of one output channel.
    pub fn output_area(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Weights of one filter and channel.
    pub fn kernel_area(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Input channels of one group.
    pub fn group_in(&self) -> usize {
        self.in_channels / self.options.groups
    }

    /// Output channels of one group.
    pub fn group_out(&self) -> usize {
        self.out_channels / self.options.groups
    }

    /// Weights of one filter: rows of the column matrix.
    pub fn depth(&self) -> usize {
        self.group_in() * self.kernel_area()
    }

    /// Whether each input channel has exactly one filter of its own.
    pub fn is_depthwise(&self) -> bool {
        self.options.groups == self.in_channels && self.in_channels == self.out_channels
    }

    /// Whether each output pixel depends on the one input pixel at the same place.
    pub fn is_pointwise(&self) -> bool {
        self.kernel == [1; 2] && self.options.stride == [1; 2] && self.options.padding == [0; 4]
    }

    /// The convolution that turns the gradient of the output into that of the input, given flipped
    /// filters; exists for stride 1 with padding that reaches no further than the kernel.
    pub fn transposed(&self) -> Option<Self> {
        let [dy, dx] = self.options.dilation;
        let [reach_y, reach_x] = [dy * (self.kernel[0] - 1), dx * (self.kernel[1] - 1)];
        let [top, left, bottom, right] = self.options.padding;
        let padding = [
            reach_y.checked_sub(top)?,
            reach_x.checked_sub(left)?,
            reach_y.checked_sub(bottom)?,
            reach_x.checked_sub(right)?,
        ];
        (self.options.stride == [1; 2]).then_some(Self {
            images: self.images,
            in_channels: self.out_channels,
            out_channels: self.in_channels,
            input: self.output,
            kernel: self.kernel,
            output: self.input,
            options: ConvOptions { padding, ..self.options },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_size_follows_stride_padding_and_dilation() {
        let options =
            ConvOptions { stride: [2, 3], padding: [1, 0, 2, 4], dilation: [2, 1], ..Default::default() };
        assert_eq!(options.output_size([9, 10], [3, 5]), Some([4, 4]));
    }

    #[test]
    fn sizes_without_an_output_give_none() {
        let options = ConvOptions::default();
        assert_eq!(options.output_size([2, 5], [3, 3]), None);
        assert_eq!(options.output_size([5, 5], [0, 3]), None);
        assert_eq!(ConvOptions { stride: [0, 1], ..options }.output_size([5, 5], [3, 3]), None);
        assert_eq!(ConvOptions { dilation: [1, 0], ..options }.output_size([5, 5], [3, 3]), None);
        assert_eq!(ConvOptions { padding: [usize::MAX; 4], ..options }.output_size([5, 5], [3, 3]), None);
        assert_eq!(options.output_shape([1, 3, 5, 5], [4, 2, 3, 3]), None);
        assert_eq!(ConvOptions { groups: 0, ..options }.output_shape([1, 3, 5, 5], [4, 3, 3, 3]), None);
        assert_eq!(ConvOptions { groups: 3, ..options }.output_shape([1, 3, 5, 5], [4, 1, 3, 3]), None);
    }
}
