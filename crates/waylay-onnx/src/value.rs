//! Values between nodes: tensors whose rank is known only at run time, and constants.

use std::sync::{Arc, OnceLock};

use burn::tensor::{Device, Tensor, TensorData};

use crate::constant::{Constant, Values, volume};

/// The largest integer up to which `f32` holds all.
const MAX_EXACT: u64 = 1 << 24;

/// A float tensor of rank 0 to 6 on a device.
#[derive(Clone, Debug)]
pub(crate) enum Ranked {
    /// A scalar, kept as a vector of one element.
    R0(Tensor<1>),
    R1(Tensor<1>),
    R2(Tensor<2>),
    R3(Tensor<3>),
    R4(Tensor<4>),
    R5(Tensor<5>),
    R6(Tensor<6>),
}

/// Applies an expression to the tensor inside, whatever its rank; the result is a tensor of the
/// same rank.
macro_rules! map_rank {
    ($value:expr, $t:ident => $e:expr) => {
        match $value {
            $crate::value::Ranked::R0($t) => $crate::value::Ranked::R0($e),
            $crate::value::Ranked::R1($t) => $crate::value::Ranked::R1($e),
            $crate::value::Ranked::R2($t) => $crate::value::Ranked::R2($e),
            $crate::value::Ranked::R3($t) => $crate::value::Ranked::R3($e),
            $crate::value::Ranked::R4($t) => $crate::value::Ranked::R4($e),
            $crate::value::Ranked::R5($t) => $crate::value::Ranked::R5($e),
            $crate::value::Ranked::R6($t) => $crate::value::Ranked::R6($e),
        }
    };
}

/// Applies an expression to two tensors of the same rank; an error where the ranks differ.
macro_rules! zip_rank {
    ($a:expr, $b:expr, ($x:ident, $y:ident) => $e:expr) => {{
        use $crate::value::Ranked;
        match ($a, $b) {
            (Ranked::R0($x), Ranked::R0($y)) => Ok(Ranked::R0($e)),
            (Ranked::R1($x), Ranked::R1($y)) => Ok(Ranked::R1($e)),
            (Ranked::R2($x), Ranked::R2($y)) => Ok(Ranked::R2($e)),
            (Ranked::R3($x), Ranked::R3($y)) => Ok(Ranked::R3($e)),
            (Ranked::R4($x), Ranked::R4($y)) => Ok(Ranked::R4($e)),
            (Ranked::R5($x), Ranked::R5($y)) => Ok(Ranked::R5($e)),
            (Ranked::R6($x), Ranked::R6($y)) => Ok(Ranked::R6($e)),
            (a, b) => Err(format!("ranks {} and {} differ", a.rank(), b.rank())),
        }
    }};
}

/// Evaluates an expression of one type from the tensor inside, whatever its rank.
macro_rules! of_rank {
    ($value:expr, $t:ident => $e:expr) => {
        match $value {
            $crate::value::Ranked::R0($t) => $e,
            $crate::value::Ranked::R1($t) => $e,
            $crate::value::Ranked::R2($t) => $e,
            $crate::value::Ranked::R3($t) => $e,
            $crate::value::Ranked::R4($t) => $e,
            $crate::value::Ranked::R5($t) => $e,
            $crate::value::Ranked::R6($t) => $e,
        }
    };
}

pub(crate) use {map_rank, zip_rank};

impl Ranked {
    /// A tensor on `device`; an error where the rank is above 6 or a dimension is 0.
    pub fn new(dims: &[usize], values: Vec<f32>, device: &Device) -> Result<Self, String> {
        let data = TensorData::new(values, [volume(dims).ok_or("too many elements")?]);
        if dims.contains(&0) {
            return Err(format!("shape {dims:?} holds nothing"));
        }
        Self::R1(Tensor::from_data(data, device)).reshape(dims)
    }

    pub fn dims(&self) -> Vec<usize> {
        match self {
            Self::R0(_) => Vec::new(),
            other => of_rank!(other, t => t.dims().to_vec()),
        }
    }

    pub fn rank(&self) -> usize {
        self.dims().len()
    }

    /// The same elements in another shape; an error where the count differs or the rank is above 6.
    pub fn reshape(self, dims: &[usize]) -> Result<Self, String> {
        let found = self.dims();
        if found == dims {
            return Ok(self);
        }
        if volume(dims) != volume(&found) {
            return Err(format!("shape {found:?} cannot become {dims:?}: the number of elements differs"));
        }
        of_rank!(self, t => match *dims {
            [] => Ok(Self::R0(t.reshape([1]))),
            [a] => Ok(Self::R1(t.reshape([a]))),
            [a, b] => Ok(Self::R2(t.reshape([a, b]))),
            [a, b, c] => Ok(Self::R3(t.reshape([a, b, c]))),
            [a, b, c, d] => Ok(Self::R4(t.reshape([a, b, c, d]))),
            [a, b, c, d, e] => Ok(Self::R5(t.reshape([a, b, c, d, e]))),
            [a, b, c, d, e, f] => Ok(Self::R6(t.reshape([a, b, c, d, e, f]))),
            _ => Err(format!("shape {dims:?} has rank {}; 0 to 6 are supported", dims.len())),
        })
    }

    /// With ones before its shape until it has `rank` dimensions.
    pub fn with_rank(self, rank: usize) -> Result<Self, String> {
        let mut dims = vec![1; rank.saturating_sub(self.rank())];
        dims.extend(self.dims());
        self.reshape(&dims)
    }

    /// Repeated along dimensions of 1 up to `dims`, which must have the same rank and fit.
    pub fn expand(self, dims: &[usize]) -> Result<Self, String> {
        let found = self.dims();
        if found == dims {
            return Ok(self);
        }
        let fits = found.len() == dims.len() && found.iter().zip(dims).all(|(f, d)| f == d || *f == 1);
        if !fits || dims.contains(&0) {
            return Err(format!("shape {found:?} cannot be repeated to {dims:?}"));
        }
        Ok(map_rank!(self, t => {
            let mut shape = t.dims();
            shape.copy_from_slice(dims);
            t.expand(shape)
        }))
    }

    /// With zeros around it: before and after, for each dimension.
    pub fn padded(self, pairs: &[(usize, usize)]) -> Result<Self, String> {
        if pairs.len() != self.rank() {
            return Err(format!("{} pairs of padding for rank {}", pairs.len(), self.rank()));
        }
        Ok(if pairs.iter().all(|p| *p == (0, 0)) { self } else { map_rank!(self, t => t.pad(pairs, 0.0)) })
    }

    /// `length` slices from `start` on along `axis`, which must exist.
    pub fn narrow(self, axis: usize, start: usize, length: usize) -> Self {
        map_rank!(self, t => t.narrow(axis, start, length))
    }

    /// Associated with the same device, and the same record of gradients, as `device`.
    pub fn lift(self, device: &Device) -> Self {
        match device.gradient_checkpointing_strategy() {
            Some(strategy) => {
                map_rank!(self, t => t.autodiff().with_gradient_checkpointing_strategy(strategy))
            }
            None => self,
        }
    }

    /// The one dimension that is left of it.
    pub fn flat(self) -> Tensor<1> {
        of_rank!(self, t => t.flatten(0, -1))
    }

    /// Copied to the host.
    pub fn into_constant(self) -> Constant {
        let dims = self.dims();
        let values = of_rank!(self, t => t.into_data().iter::<f32>().collect());
        Constant { dims, values: Values::Float(values) }
    }
}

/// A constant, and its copy on the device once one was asked for.
#[derive(Debug)]
pub(crate) struct Known {
    pub constant: Constant,
    tensor: OnceLock<Ranked>,
}

/// What a node takes or gives.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "most values are tensors")]
pub(crate) enum Value {
    /// Known without an image.
    Known(Arc<Known>),
    /// Floats on the device.
    Tensor(Ranked),
}

impl Value {
    pub fn known(constant: Constant) -> Self {
        Self::Known(Arc::new(Known { constant, tensor: OnceLock::new() }))
    }

    /// The one boolean, if that is what is known.
    pub fn as_flag(&self) -> Option<bool> {
        match self {
            Self::Known(known) => match &known.constant.values {
                Values::Bool(flags) if flags.len() == 1 => Some(flags[0]),
                _ => None,
            },
            Self::Tensor(_) => None,
        }
    }

    pub fn dims(&self) -> Vec<usize> {
        match self {
            Self::Known(known) => known.constant.dims.clone(),
            Self::Tensor(tensor) => tensor.dims(),
        }
    }

    /// As [`Self::to_tensor`], without holding on to it.
    pub fn into_tensor(self, device: &Device) -> Result<Ranked, String> {
        match self {
            Self::Tensor(tensor) => Ok(tensor.lift(device)),
            known => known.to_tensor(device),
        }
    }

    /// As a tensor that can meet tensors of `device`. Integers are taken where `f32` holds them
    /// exactly.
    pub fn to_tensor(&self, device: &Device) -> Result<Ranked, String> {
        match self {
            Self::Tensor(tensor) => Ok(tensor.clone().lift(device)),
            Self::Known(known) => {
                if let Some(tensor) = known.tensor.get() {
                    return Ok(tensor.clone().lift(device));
                }
                let floats = match &known.constant.values {
                    Values::Float(floats) => floats.clone(),
                    Values::Int(ints) if ints.iter().all(|v| v.unsigned_abs() <= MAX_EXACT) => {
                        ints.iter().map(|&v| v as f32).collect()
                    }
                    Values::Int(_) => return Err(format!("integers beyond {MAX_EXACT}")),
                    Values::Bool(_) => return Err("booleans where numbers are needed".into()),
                };
                let tensor = Ranked::new(&known.constant.dims, floats, &device.clone().inner())?;
                Ok(known.tensor.get_or_init(|| tensor).clone().lift(device))
            }
        }
    }
}

impl From<Ranked> for Value {
    fn from(tensor: Ranked) -> Self {
        Self::Tensor(tensor)
    }
}

impl From<Constant> for Value {
    fn from(constant: Constant) -> Self {
        Self::known(constant)
    }
}
