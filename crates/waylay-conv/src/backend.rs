//! The operations as an extension of Burn: their kernels on the flex backend.

use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Flex, TensorMetadata, backend_extension};
use burn::tensor::TensorData;

use crate::activation::{self, Activation};
use crate::adam_step::{self, AdamStep};
use crate::epilogue::Epilogue;
use crate::filters::Filters;
use crate::norm::{self, Planes};
use crate::options::{ConvOptions, Geometry};
use crate::pool::{self, Pooling};
use crate::prepared::PreparedFilters;
use crate::{depthwise, dispatch, prelu, resample, rows};

/// Operations with kernels of their own; every tensor holds `f32`.
#[backend_extension(Flex, Autodiff)]
pub trait ConvBackend: Backend {
    /// See [`crate::conv2d`] and, for `prepared`, which then stands in for `weight`,
    /// [`crate::conv2d_prepared`]; without a bias.
    fn fast_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        prepared: Option<PreparedFilters>,
        options: ConvOptions,
    ) -> FloatTensor<Self>;

    /// See [`crate::conv2d`]; with a bias. (Extensions cannot take optional tensors.)
    fn fast_conv2d_with_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        prepared: Option<PreparedFilters>,
        bias: FloatTensor<Self>,
        options: ConvOptions,
    ) -> FloatTensor<Self>;

    /// See [`crate::conv2d_then`]; with a bias, without anything to add.
    fn fast_conv2d_relu(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        prepared: Option<PreparedFilters>,
        bias: FloatTensor<Self>,
        options: ConvOptions,
    ) -> FloatTensor<Self>;

    /// See [`crate::conv2d_then`]; with a bias and something to add.
    fn fast_conv2d_add(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        prepared: Option<PreparedFilters>,
        bias: FloatTensor<Self>,
        add: FloatTensor<Self>,
        relu: bool,
        options: ConvOptions,
    ) -> FloatTensor<Self>;

    /// See [`crate::conv_transpose2d`]; without a bias.
    fn fast_conv_transpose2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        options: ConvOptions,
        size: [usize; 2],
    ) -> FloatTensor<Self>;

    /// See [`crate::conv_transpose2d`]; with a bias.
    fn fast_conv_transpose2d_with_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: ConvOptions,
        size: [usize; 2],
    ) -> FloatTensor<Self>;

    /// See [`crate::instance_norm_then`].
    fn fast_instance_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
        slope: f32,
    ) -> FloatTensor<Self>;

    /// See [`crate::layer_norm`].
    fn fast_layer_norm(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        epsilon: f64,
    ) -> FloatTensor<Self>;

    /// See [`crate::softmax`].
    fn fast_softmax(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`crate::activate`].
    fn fast_activation(x: FloatTensor<Self>, function: Activation) -> FloatTensor<Self>;

    /// See [`crate::prelu`].
    fn fast_prelu(x: FloatTensor<Self>, alpha: FloatTensor<Self>) -> FloatTensor<Self>;

    /// See [`crate::max_pool2d`].
    fn fast_max_pool2d(x: FloatTensor<Self>, kernel: [usize; 2], options: ConvOptions) -> FloatTensor<Self>;

    /// See [`crate::upsample_nearest`].
    fn fast_upsample_nearest(x: FloatTensor<Self>, factor: usize) -> FloatTensor<Self>;

    /// See [`crate::pixel_shuffle`].
    fn fast_pixel_shuffle(x: FloatTensor<Self>, factor: usize) -> FloatTensor<Self>;

    /// See [`crate::pixel_unshuffle`].
    fn fast_pixel_unshuffle(x: FloatTensor<Self>, factor: usize) -> FloatTensor<Self>;

    /// See [`crate::Adam`]: what becomes of a parameter and its two moments. Not differentiable.
    fn fast_adam(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: AdamStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

impl ConvBackend for Flex {
    fn fast_conv2d(
        x: FlexTensor,
        weight: FlexTensor,
        prepared: Option<PreparedFilters>,
        options: ConvOptions,
    ) -> FlexTensor {
        conv2d(x, weight, prepared, None, None, false, options)
    }

    fn fast_conv2d_with_bias(
        x: FlexTensor,
        weight: FlexTensor,
        prepared: Option<PreparedFilters>,
        bias: FlexTensor,
        options: ConvOptions,
    ) -> FlexTensor {
        conv2d(x, weight, prepared, Some(bias), None, false, options)
    }

    fn fast_conv2d_relu(
        x: FlexTensor,
        weight: FlexTensor,
        prepared: Option<PreparedFilters>,
        bias: FlexTensor,
        options: ConvOptions,
    ) -> FlexTensor {
        conv2d(x, weight, prepared, Some(bias), None, true, options)
    }

    fn fast_conv2d_add(
        x: FlexTensor,
        weight: FlexTensor,
        prepared: Option<PreparedFilters>,
        bias: FlexTensor,
        add: FlexTensor,
        relu: bool,
        options: ConvOptions,
    ) -> FlexTensor {
        conv2d(x, weight, prepared, Some(bias), Some(add), relu, options)
    }

    fn fast_conv_transpose2d(
        x: FlexTensor,
        weight: FlexTensor,
        options: ConvOptions,
        size: [usize; 2],
    ) -> FlexTensor {
        let g = Geometry::expect_transposed(dims(&x), dims(&weight), options, size);
        conv2d_input_gradient(&g, weight, x)
    }

    fn fast_conv_transpose2d_with_bias(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        options: ConvOptions,
        size: [usize; 2],
    ) -> FlexTensor {
        let g = Geometry::expect_transposed(dims(&x), dims(&weight), options, size);
        let (x, weight, bias) = (Values::of(x), Values::of(weight), Values::of(bias));
        assert!(bias.slice().len() == g.in_channels, "conv_transpose2d: one bias per output channel");
        let kernel = if g.is_depthwise() { depthwise::input_gradient } else { dispatch::input_gradient };
        let mut values = kernel(&g, weight.slice(), x.slice());
        norm::shift_channels(&mut values, bias.slice(), g.input_area());
        tensor(values, [g.images, g.in_channels, g.input[0], g.input[1]])
    }

    fn fast_instance_norm(
        x: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        epsilon: f64,
        slope: f32,
    ) -> FlexTensor {
        let shape = dims(&x);
        let (x, gamma, beta) = (Values::of(x), Values::of(gamma), Values::of(beta));
        tensor(norm::forward(planes(shape, epsilon, slope), x.slice(), gamma.slice(), beta.slice()), shape)
    }

    fn fast_layer_norm(x: FlexTensor, gamma: FlexTensor, beta: FlexTensor, epsilon: f64) -> FlexTensor {
        let shape = x.shape();
        let (x, gamma, beta) = (Values::of(x), Values::of(gamma), Values::of(beta));
        let values = rows::normalise(x.slice(), gamma.slice(), beta.slice(), epsilon);
        FlexTensor::from_data(TensorData::new(values, shape))
    }

    fn fast_softmax(x: FlexTensor) -> FlexTensor {
        let width = last(&x);
        in_place(x, |values| rows::softmax(values, width))
    }

    fn fast_activation(x: FlexTensor, function: Activation) -> FlexTensor {
        in_place(x, |values| activation::apply(values, function))
    }

    fn fast_prelu(x: FlexTensor, alpha: FlexTensor) -> FlexTensor {
        let shape @ [_, channels, h, w] = dims(&x);
        let alpha = Values::of(alpha);
        if is_own(&x) {
            return in_place(x, |values| prelu::apply(values, alpha.slice(), channels, h * w));
        }
        tensor(prelu::forward(Values::of(x).slice(), alpha.slice(), channels, h * w), shape)
    }

    fn fast_max_pool2d(x: FlexTensor, kernel: [usize; 2], options: ConvOptions) -> FlexTensor {
        let [n, c, h, w] = dims(&x);
        let p = Pooling::expect([h, w], kernel, options);
        tensor(pool::max(&p, Values::of(x).slice()), [n, c, p.output[0], p.output[1]])
    }

    fn fast_upsample_nearest(x: FlexTensor, factor: usize) -> FlexTensor {
        let [n, c, h, w] = dims(&x);
        tensor(resample::repeat(Values::of(x).slice(), [h, w], factor), [n, c, h * factor, w * factor])
    }

    fn fast_pixel_shuffle(x: FlexTensor, factor: usize) -> FlexTensor {
        let [n, c, h, w] = dims(&x);
        let shape = [n, c / (factor * factor), h * factor, w * factor];
        tensor(resample::weave(Values::of(x).slice(), [h, w], factor), shape)
    }

    fn fast_pixel_unshuffle(x: FlexTensor, factor: usize) -> FlexTensor {
        let [n, c, h, w] = dims(&x);
        let (h, w) = (h / factor, w / factor);
        tensor(resample::unweave(Values::of(x).slice(), [h, w], factor), [n, c * factor * factor, h, w])
    }

    fn fast_adam(
        parameter: FlexTensor,
        gradient: FlexTensor,
        first: FlexTensor,
        second: FlexTensor,
        step: AdamStep,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let gradient = Values::of(gradient);
        let [mut parameter, mut first, mut second] = [parameter, first, second].map(own);
        let moments = [values_mut(&mut first), values_mut(&mut second)];
        adam_step::advance(values_mut(&mut parameter), gradient.slice(), moments, step);
        (parameter, first, second)
    }
}

fn conv2d(
    x: FlexTensor,
    weight: FlexTensor,
    prepared: Option<PreparedFilters>,
    bias: Option<FlexTensor>,
    add: Option<FlexTensor>,
    relu: bool,
    options: ConvOptions,
) -> FlexTensor {
    let weight = prepared.as_ref().map_or(weight, |filters| filters.values().clone());
    let g = Geometry::expect(dims(&x), dims(&weight), options);
    let shape = [g.images, g.out_channels, g.output[0], g.output[1]];
    assert!(
        add.as_ref().is_none_or(|add| dims(add) == shape),
        "conv2d: what is added has the output's shape"
    );
    let (x, weight, bias) = (Values::of(x), Values::of(weight), bias.map(Values::of));
    let bias = bias.as_ref().map(Values::slice);
    assert!(bias.is_none_or(|bias| bias.len() == g.out_channels), "conv2d: one bias per output channel");
    let plain = Epilogue { bias, relu, ..Epilogue::default() };
    let filters = match &prepared {
        Some(prepared) => Filters::prepared(prepared),
        None => Filters::new(weight.slice()),
    };
    match add {
        Some(add) if is_own(&add) && !g.is_depthwise() => in_place(add, |output| {
            dispatch::forward_onto(&g, x.slice(), &filters, &Epilogue { onto: true, ..plain }, output);
        }),
        add => {
            let add = add.map(Values::of);
            let epilogue = Epilogue { add: add.as_ref().map(Values::slice), ..plain };
            let output = if g.is_depthwise() {
                depthwise::forward(&g, x.slice(), weight.slice(), &epilogue)
            } else {
                dispatch::forward(&g, x.slice(), &filters, &epilogue)
            };
            tensor(output, shape)
        }
    }
}

/// Gradient of the input of a convolution.
pub(crate) fn conv2d_input_gradient(g: &Geometry, weight: FlexTensor, gradient: FlexTensor) -> FlexTensor {
    let (weight, gradient) = (Values::of(weight), Values::of(gradient));
    let kernel = if g.is_depthwise() { depthwise::input_gradient } else { dispatch::input_gradient };
    tensor(kernel(g, weight.slice(), gradient.slice()), [g.images, g.in_channels, g.input[0], g.input[1]])
}

/// Gradient of the weight of a convolution.
pub(crate) fn conv2d_weight_gradient(g: &Geometry, x: FlexTensor, gradient: FlexTensor) -> FlexTensor {
    let (x, gradient) = (Values::of(x), Values::of(gradient));
    let kernel = if g.is_depthwise() { depthwise::weight_gradient } else { dispatch::weight_gradient };
    tensor(kernel(g, x.slice(), gradient.slice()), [g.out_channels, g.group_in(), g.kernel[0], g.kernel[1]])
}

/// Gradient of the bias of a convolution of either kind.
pub(crate) fn bias_gradient(gradient: FlexTensor) -> FlexTensor {
    let [_, channels, h, w] = dims(&gradient);
    tensor(norm::channel_sums(Values::of(gradient).slice(), channels, h * w), [channels])
}

/// Output of a convolution of known sizes.
pub(crate) fn conv2d_output(g: &Geometry, x: FlexTensor, weight: FlexTensor) -> FlexTensor {
    let (x, weight, epilogue) = (Values::of(x), Values::of(weight), Epilogue::default());
    let values = if g.is_depthwise() {
        depthwise::forward(g, x.slice(), weight.slice(), &epilogue)
    } else {
        dispatch::forward(g, x.slice(), &Filters::new(weight.slice()), &epilogue)
    };
    tensor(values, [g.images, g.out_channels, g.output[0], g.output[1]])
}

/// What an instance normalisation keeps for its gradients.
#[derive(Clone, Debug)]
pub(crate) struct Normalised {
    pub x: FlexTensor,
    pub gamma: FlexTensor,
    pub beta: FlexTensor,
    pub epsilon: f64,
    pub slope: f32,
}

/// Gradients of the input, the scale and the shift of an instance normalisation.
pub(crate) fn instance_norm_gradients(kept: Normalised, gradient: FlexTensor) -> [FlexTensor; 3] {
    let shape @ [_, channels, ..] = dims(&kept.x);
    let planes = planes(shape, kept.epsilon, kept.slope);
    let (x, gamma, beta) = (Values::of(kept.x), Values::of(kept.gamma), Values::of(kept.beta));
    let mut vectors = [Vec::new(), Vec::new()];
    let gradient = in_place(gradient, |gradient| {
        vectors = norm::backward(planes, x.slice(), gamma.slice(), beta.slice(), gradient);
    });
    let [gamma, beta] = vectors.map(|vector| tensor(vector, [channels]));
    [gradient, gamma, beta]
}

/// Gradient of the input of a layer normalisation.
pub(crate) fn layer_norm_input_gradient(
    x: FlexTensor,
    gamma: FlexTensor,
    epsilon: f64,
    gradient: FlexTensor,
) -> FlexTensor {
    let shape = x.shape();
    let (x, gamma, gradient) = (Values::of(x), Values::of(gamma), Values::of(gradient));
    let values = rows::normalise_gradient(x.slice(), gamma.slice(), gradient.slice(), epsilon);
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// Gradients of the scale and the shift of a layer normalisation.
pub(crate) fn layer_norm_parameter_gradients(
    x: FlexTensor,
    epsilon: f64,
    gradient: FlexTensor,
) -> [FlexTensor; 2] {
    let width = last(&x);
    let (x, gradient) = (Values::of(x), Values::of(gradient));
    rows::normalise_parameter_gradients(x.slice(), gradient.slice(), width, epsilon)
        .map(|values| tensor(values, [width]))
}

/// Gradient of the input of a softmax that gave `y`.
pub(crate) fn softmax_gradient(y: FlexTensor, gradient: FlexTensor) -> FlexTensor {
    let width = last(&y);
    let y = Values::of(y);
    in_place(gradient, |gradient| rows::softmax_gradient(gradient, y.slice(), width))
}

/// The last dimension.
fn last(tensor: &FlexTensor) -> usize {
    tensor.shape().iter().last().copied().unwrap_or(1)
}

/// Gradient of the input of `function`, which kept its input or output.
pub(crate) fn activation_gradient(
    function: Activation,
    kept: FlexTensor,
    gradient: FlexTensor,
) -> FlexTensor {
    let kept = Values::of(kept);
    in_place(gradient, |gradient| activation::apply_derivative(gradient, kept.slice(), function))
}

/// Gradient of the input of a parametric rectifier.
pub(crate) fn prelu_input_gradient(x: FlexTensor, alpha: FlexTensor, gradient: FlexTensor) -> FlexTensor {
    let [_, channels, h, w] = dims(&x);
    let (x, alpha) = (Values::of(x), Values::of(alpha));
    in_place(gradient, |gradient| {
        prelu::input_gradient(x.slice(), alpha.slice(), gradient, channels, h * w);
    })
}

/// Gradient of the slopes of a parametric rectifier.
pub(crate) fn prelu_slope_gradient(x: FlexTensor, slopes: usize, gradient: FlexTensor) -> FlexTensor {
    let [_, channels, h, w] = dims(&x);
    let (x, gradient) = (Values::of(x), Values::of(gradient));
    tensor(prelu::slope_gradient(x.slice(), gradient.slice(), channels, h * w, slopes), [slopes])
}

/// Gradient of the input of a pooling by maxima.
pub(crate) fn max_pool2d_gradient(p: &Pooling, x: FlexTensor, gradient: FlexTensor) -> FlexTensor {
    let shape = dims(&x);
    tensor(pool::max_gradient(p, Values::of(x).slice(), Values::of(gradient).slice()), shape)
}

/// Gradient of the input of an upsampling.
pub(crate) fn upsample_nearest_gradient(gradient: FlexTensor, factor: usize) -> FlexTensor {
    let [n, c, h, w] = dims(&gradient);
    let (h, w) = (h / factor, w / factor);
    tensor(resample::sum_squares(Values::of(gradient).slice(), [h, w], factor), [n, c, h, w])
}

/// Shape of a tensor of four dimensions.
pub(crate) fn dims(tensor: &FlexTensor) -> [usize; 4] {
    tensor.shape().dims()
}

fn planes([_, channels, h, w]: [usize; 4], epsilon: f64, slope: f32) -> Planes {
    Planes { channels, area: h * w, epsilon, slope }
}

fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// What `change` makes of the values of `tensor`: in place where its buffer is not shared, else of
/// a copy.
fn in_place(tensor: FlexTensor, change: impl FnOnce(&mut [f32])) -> FlexTensor {
    let mut tensor = own(tensor);
    change(values_mut(&mut tensor));
    tensor
}

/// The tensor, if its buffer is contiguous and not shared, else a copy.
fn own(tensor: FlexTensor) -> FlexTensor {
    if is_own(&tensor) {
        return tensor;
    }
    let shape = tensor.shape();
    FlexTensor::from_data(TensorData::new(Values::of(tensor).slice().to_vec(), shape))
}

/// Whether the buffer is contiguous and not shared.
fn is_own(tensor: &FlexTensor) -> bool {
    tensor.layout().contiguous_offsets().is_some() && tensor.is_unique()
}

/// The values of a tensor of [`own`].
fn values_mut(tensor: &mut FlexTensor) -> &mut [f32] {
    let (start, end) = tensor.layout().contiguous_offsets().expect("values in one piece");
    &mut tensor.try_storage_mut::<f32>().expect("values of its own")[start..end]
}

/// A tensor whose values lie in one piece.
struct Values(FlexTensor);

impl Values {
    fn of(tensor: FlexTensor) -> Self {
        Self(if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() })
    }

    fn slice(&self) -> &[f32] {
        self.0.as_slice().expect("a contiguous f32 tensor")
    }
}
