//! The operations recorded for automatic differentiation.
//!
//! A backward pass computes only the gradients whose inputs are tracked, and keeps only the inputs
//! that those need.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind, unary};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Flex, TensorMetadata};

use crate::activation::Activation;
use crate::adam_step::AdamStep;
use crate::backend::{self, ConvBackend, Normalised, dims};
use crate::options::{ConvOptions, Geometry};
use crate::pool::Pooling;
use crate::prepared::PreparedFilters;

type Tracked = FloatTensor<Autodiff<Flex>>;

/// What a convolution keeps: its sizes, its input where the weight is tracked, its weight where the
/// input is.
type Kept = (Geometry, Option<FlexTensor>, Option<FlexTensor>);

/// What a convolution keeps, and its output where a rectifier follows.
type KeptThen = (Kept, Option<FlexTensor>);

fn keep(x: &Tracked, weight: &Tracked, g: Geometry) -> Kept {
    let kept_x = weight.is_tracked().then(|| x.primitive().clone());
    let kept_weight = x.is_tracked().then(|| weight.primitive().clone());
    (g, kept_x, kept_weight)
}

/// Backward pass of a convolution, and of what follows it: with a bias as third input, if it has
/// three, and what is added as fourth, if it has four.
#[derive(Debug)]
struct Conv2d;

impl<const N: usize> Backward<Flex, N> for Conv2d {
    type State = KeptThen;

    fn backward(self, ops: Ops<KeptThen, N>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let mut gradient = grads.consume::<Flex>(&ops.node);
        let ((g, x, weight), output) = ops.state;
        if let Some(output) = output {
            gradient = backend::activation_gradient(Activation::Relu, output, gradient);
        }
        for (place, node) in ops.parents.into_iter().enumerate() {
            let Some(node) = node else { continue };
            let value = match (place, &x, &weight) {
                (0, _, Some(weight)) => backend::conv2d_input_gradient(&g, weight.clone(), gradient.clone()),
                (1, Some(x), _) => backend::conv2d_weight_gradient(&g, x.clone(), gradient.clone()),
                (3, ..) => gradient.clone(),
                _ => backend::bias_gradient(gradient.clone()),
            };
            grads.register::<Flex>(node.id, value);
        }
    }
}

/// Backward pass of a transposed convolution with a bias as third input, if it has three.
#[derive(Debug)]
struct ConvTranspose2d;

impl<const N: usize> Backward<Flex, N> for ConvTranspose2d {
    type State = Kept;

    fn backward(self, ops: Ops<Kept, N>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node);
        let (g, x, weight) = ops.state;
        for (place, node) in ops.parents.into_iter().enumerate() {
            let Some(node) = node else { continue };
            let value = match (place, &x, &weight) {
                (0, _, Some(weight)) => backend::conv2d_output(&g, gradient.clone(), weight.clone()),
                (1, Some(x), _) => backend::conv2d_weight_gradient(&g, gradient.clone(), x.clone()),
                _ => backend::bias_gradient(gradient.clone()),
            };
            grads.register::<Flex>(node.id, value);
        }
    }
}

/// Backward pass of a pooling by maxima; keeps the input.
#[derive(Debug)]
struct MaxPool2d;

impl Backward<Flex, 1> for MaxPool2d {
    type State = (Pooling, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let (p, x) = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, grads, |gradient| {
            backend::max_pool2d_gradient(&p, x, gradient)
        });
    }
}

/// Backward pass of an instance normalisation and the rectifier after it; keeps its inputs.
#[derive(Debug)]
struct InstanceNorm;

impl Backward<Flex, 3> for InstanceNorm {
    type State = Normalised;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node);
        let values = backend::instance_norm_gradients(ops.state, gradient);
        for (node, value) in ops.parents.into_iter().zip(values) {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, value);
            }
        }
    }
}

/// Backward pass of a layer normalisation; keeps the input, the scale and epsilon.
#[derive(Debug)]
struct LayerNorm;

impl Backward<Flex, 3> for LayerNorm {
    type State = (FlexTensor, FlexTensor, f64);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node);
        let (x, gamma, epsilon) = ops.state;
        let [x_node, gamma_node, beta_node] = ops.parents;
        if gamma_node.is_some() || beta_node.is_some() {
            let values = backend::layer_norm_parameter_gradients(x.clone(), epsilon, gradient.clone());
            for (node, value) in [gamma_node, beta_node].into_iter().zip(values) {
                if let Some(node) = node {
                    grads.register::<Flex>(node.id, value);
                }
            }
        }
        if let Some(node) = x_node {
            let value = backend::layer_norm_input_gradient(x, gamma, epsilon, gradient);
            grads.register::<Flex>(node.id, value);
        }
    }
}

/// Backward pass of a softmax; keeps its output.
#[derive(Debug)]
struct Softmax;

impl Backward<Flex, 1> for Softmax {
    type State = FlexTensor;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let y = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, grads, |gradient| backend::softmax_gradient(y, gradient));
    }
}

/// Backward pass of a function of one number; keeps its input or output.
#[derive(Debug)]
struct Activate;

impl Backward<Flex, 1> for Activate {
    type State = (Activation, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let (function, kept) = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, grads, |gradient| {
            backend::activation_gradient(function, kept, gradient)
        });
    }
}

/// Backward pass of a parametric rectifier; keeps both inputs.
#[derive(Debug)]
struct Prelu;

impl Backward<Flex, 2> for Prelu {
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node);
        let (x, alpha) = ops.state;
        let [x_node, alpha_node] = ops.parents;
        if let Some(node) = alpha_node {
            let slopes = alpha.shape().num_elements();
            grads.register::<Flex>(
                node.id,
                backend::prelu_slope_gradient(x.clone(), slopes, gradient.clone()),
            );
        }
        if let Some(node) = x_node {
            grads.register::<Flex>(node.id, backend::prelu_input_gradient(x, alpha, gradient));
        }
    }
}

/// Backward pass of a change of size; keeps how its gradient is made from that of the output, and
/// the factor.
#[derive(Debug)]
struct Resample;

impl Backward<Flex, 1> for Resample {
    type State = (fn(FlexTensor, usize) -> FlexTensor, usize);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let (adjoint, factor) = ops.state;
        unary::<Flex, _>(ops.parents, ops.node, grads, |gradient| adjoint(gradient, factor));
    }
}

/// Records `operation`, whose gradient `adjoint` gives.
fn resample<C: CheckpointStrategy>(
    x: Tracked,
    factor: usize,
    operation: fn(FlexTensor, usize) -> FlexTensor,
    adjoint: fn(FlexTensor, usize) -> FlexTensor,
) -> Tracked {
    let node = x.node();
    let output = operation(x.into_primitive(), factor);
    match Resample.prepare::<C>([node]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish((adjoint, factor), output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    }
}

/// Sizes of a convolution of tracked tensors.
fn geometry(x: &Tracked, weight: &Tracked, options: ConvOptions) -> Geometry {
    Geometry::expect(dims(x.primitive()), dims(weight.primitive()), options)
}

/// Records a convolution that gave `output`, behind a rectifier where `relu`.
fn conv2d<C: CheckpointStrategy, const N: usize>(
    nodes: [NodeGuard; N],
    kept: Kept,
    relu: bool,
    output: FlexTensor,
) -> Tracked {
    match Conv2d.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => prep.finish((kept, relu.then(|| output.clone())), output),
        OpsKind::UnTracked(prep) => prep.finish(output),
    }
}

impl<C: CheckpointStrategy> ConvBackend for Autodiff<Flex, C> {
    fn fast_conv2d(
        x: Tracked,
        weight: Tracked,
        prepared: Option<PreparedFilters>,
        options: ConvOptions,
    ) -> Tracked {
        let (nodes, g) = ([x.node(), weight.node()], geometry(&x, &weight, options));
        let kept = keep(&x, &weight, g);
        let output = Flex::fast_conv2d(x.into_primitive(), weight.into_primitive(), prepared, options);
        conv2d::<C, 2>(nodes, kept, false, output)
    }

    fn fast_conv2d_with_bias(
        x: Tracked,
        weight: Tracked,
        prepared: Option<PreparedFilters>,
        bias: Tracked,
        options: ConvOptions,
    ) -> Tracked {
        let (nodes, g) = ([x.node(), weight.node(), bias.node()], geometry(&x, &weight, options));
        let kept = keep(&x, &weight, g);
        let (x, weight, bias) = (x.into_primitive(), weight.into_primitive(), bias.into_primitive());
        conv2d::<C, 3>(nodes, kept, false, Flex::fast_conv2d_with_bias(x, weight, prepared, bias, options))
    }

    fn fast_conv2d_relu(
        x: Tracked,
        weight: Tracked,
        prepared: Option<PreparedFilters>,
        bias: Tracked,
        options: ConvOptions,
    ) -> Tracked {
        let (nodes, g) = ([x.node(), weight.node(), bias.node()], geometry(&x, &weight, options));
        let kept = keep(&x, &weight, g);
        let (x, weight, bias) = (x.into_primitive(), weight.into_primitive(), bias.into_primitive());
        conv2d::<C, 3>(nodes, kept, true, Flex::fast_conv2d_relu(x, weight, prepared, bias, options))
    }

    fn fast_conv2d_add(
        x: Tracked,
        weight: Tracked,
        prepared: Option<PreparedFilters>,
        bias: Tracked,
        add: Tracked,
        relu: bool,
        options: ConvOptions,
    ) -> Tracked {
        let nodes = [x.node(), weight.node(), bias.node(), add.node()];
        let kept = keep(&x, &weight, geometry(&x, &weight, options));
        let (x, weight, bias) = (x.into_primitive(), weight.into_primitive(), bias.into_primitive());
        let output = Flex::fast_conv2d_add(x, weight, prepared, bias, add.into_primitive(), relu, options);
        conv2d::<C, 4>(nodes, kept, relu, output)
    }

    fn fast_conv_transpose2d(x: Tracked, weight: Tracked, options: ConvOptions, size: [usize; 2]) -> Tracked {
        let nodes = [x.node(), weight.node()];
        let g = Geometry::expect_transposed(dims(x.primitive()), dims(weight.primitive()), options, size);
        let kept = keep(&x, &weight, g);
        let (x, weight) = (x.into_primitive(), weight.into_primitive());
        let output = Flex::fast_conv_transpose2d(x, weight, options, size);
        match ConvTranspose2d.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(kept, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn fast_conv_transpose2d_with_bias(
        x: Tracked,
        weight: Tracked,
        bias: Tracked,
        options: ConvOptions,
        size: [usize; 2],
    ) -> Tracked {
        let nodes = [x.node(), weight.node(), bias.node()];
        let g = Geometry::expect_transposed(dims(x.primitive()), dims(weight.primitive()), options, size);
        let kept = keep(&x, &weight, g);
        let (x, weight, bias) = (x.into_primitive(), weight.into_primitive(), bias.into_primitive());
        let output = Flex::fast_conv_transpose2d_with_bias(x, weight, bias, options, size);
        match ConvTranspose2d.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(kept, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn fast_instance_norm(x: Tracked, gamma: Tracked, beta: Tracked, epsilon: f64, slope: f32) -> Tracked {
        let nodes = [x.node(), gamma.node(), beta.node()];
        let (x, gamma, beta) = (x.into_primitive(), gamma.into_primitive(), beta.into_primitive());
        let output = Flex::fast_instance_norm(x.clone(), gamma.clone(), beta.clone(), epsilon, slope);
        match InstanceNorm.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(Normalised { x, gamma, beta, epsilon, slope }, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn fast_layer_norm(x: Tracked, gamma: Tracked, beta: Tracked, epsilon: f64) -> Tracked {
        let nodes = [x.node(), gamma.node(), beta.node()];
        let (x, gamma, beta) = (x.into_primitive(), gamma.into_primitive(), beta.into_primitive());
        let output = Flex::fast_layer_norm(x.clone(), gamma.clone(), beta, epsilon);
        match LayerNorm.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, gamma, epsilon), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn fast_softmax(x: Tracked) -> Tracked {
        let nodes = [x.node()];
        let output = Flex::fast_softmax(x.into_primitive());
        match Softmax.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(output.clone(), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn fast_activation(x: Tracked, function: Activation) -> Tracked {
        let nodes = [x.node()];
        let input = (x.is_tracked() && !function.keeps_output()).then(|| x.primitive().clone());
        let output = Flex::fast_activation(x.into_primitive(), function);
        match Activate.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let kept = input.unwrap_or_else(|| output.clone());
                prep.finish((function, kept), output)
            }
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn fast_prelu(x: Tracked, alpha: Tracked) -> Tracked {
        let nodes = [x.node(), alpha.node()];
        let (x, alpha) = (x.into_primitive(), alpha.into_primitive());
        let output = Flex::fast_prelu(x.clone(), alpha.clone());
        match Prelu.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish((x, alpha), output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn fast_max_pool2d(x: Tracked, kernel: [usize; 2], options: ConvOptions) -> Tracked {
        let nodes = [x.node()];
        let x = x.into_primitive();
        let [_, _, h, w] = dims(&x);
        let kept = (Pooling::expect([h, w], kernel, options), x.clone());
        let output = Flex::fast_max_pool2d(x, kernel, options);
        match MaxPool2d.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(kept, output),
            OpsKind::UnTracked(prep) => prep.finish(output),
        }
    }

    fn fast_upsample_nearest(x: Tracked, factor: usize) -> Tracked {
        resample::<C>(x, factor, Flex::fast_upsample_nearest, backend::upsample_nearest_gradient)
    }

    fn fast_pixel_shuffle(x: Tracked, factor: usize) -> Tracked {
        resample::<C>(x, factor, Flex::fast_pixel_shuffle, Flex::fast_pixel_unshuffle)
    }

    fn fast_pixel_unshuffle(x: Tracked, factor: usize) -> Tracked {
        resample::<C>(x, factor, Flex::fast_pixel_unshuffle, Flex::fast_pixel_shuffle)
    }

    fn fast_adam(
        parameter: Tracked,
        gradient: Tracked,
        first: Tracked,
        second: Tracked,
        step: AdamStep,
    ) -> (Tracked, Tracked, Tracked) {
        let [parameter, gradient, first, second] = [parameter, gradient, first, second].map(Self::inner);
        let (parameter, first, second) = Flex::fast_adam(parameter, gradient, first, second, step);
        (Self::from_inner(parameter), Self::from_inner(first), Self::from_inner(second))
    }
}
