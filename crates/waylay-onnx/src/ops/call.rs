//! What an operator sees of its node: checked access to inputs and attributes.

use burn::tensor::{Device, Tensor};
use waylay_conv::PreparedFilters;

use crate::constant::{Constant, Values, volume};
use crate::graph::{Attribute, Node};
use crate::value::{Ranked, Value};

/// Most elements a tensor may have per image of the batch.
const MAX_ELEMENTS: usize = 1 << 27;
/// Most elements that arithmetic on constants may make.
const MAX_KNOWN: usize = 1 << 24;
/// Most multiplications a node may do per image of the batch.
const MAX_WORK: u64 = 1 << 36;

/// One application of an operator to values.
pub(crate) struct Call<'a> {
    pub node: &'a Node,
    pub opset: i64,
    pub inputs: Vec<Option<Value>>,
    /// Where the image is; tracked by autodiff or not.
    pub device: &'a Device,
    /// Images in the batch.
    pub batch: usize,
    /// Input 1, where it is a constant of the graph whose transforms the network keeps.
    pub prepared: Option<&'a PreparedFilters>,
}

impl Call<'_> {
    /// Whether input `index` is given.
    pub fn has(&self, index: usize) -> bool {
        matches!(self.inputs.get(index), Some(Some(_)))
    }

    /// Input `index`.
    pub fn value(&self, index: usize) -> Result<&Value, String> {
        self.inputs.get(index).and_then(Option::as_ref).ok_or_else(|| format!("input {index} is missing"))
    }

    /// Whether all given inputs are known without an image.
    pub fn all_known(&self) -> bool {
        self.inputs.iter().flatten().all(|v| matches!(v, Value::Known(_)))
    }

    /// Input `index` as a tensor on the image's device.
    pub fn tensor(&self, index: usize) -> Result<Ranked, String> {
        self.value(index)?.to_tensor(self.device).map_err(|e| format!("input {index}: {e}"))
    }

    /// Input `index` as [`Self::tensor`], which is then gone: a buffer that is not shared can be
    /// overwritten.
    pub fn take(&mut self, index: usize) -> Result<Ranked, String> {
        self.value(index)?;
        let value = self.inputs.get_mut(index).and_then(Option::take);
        let value = value.ok_or_else(|| format!("input {index} is missing"))?;
        value.into_tensor(self.device).map_err(|e| format!("input {index}: {e}"))
    }

    /// Input `index` as [`Self::tensor`]; booleans become 0 and 1.
    pub fn mask(&self, index: usize) -> Result<Ranked, String> {
        match self.value(index)? {
            Value::Known(known) => match &known.constant.values {
                Values::Bool(flags) => {
                    let floats = flags.iter().map(|&f| f32::from(u8::from(f))).collect();
                    let dims = known.constant.dims.clone();
                    Value::known(Constant { dims, values: Values::Float(floats) }).to_tensor(self.device)
                }
                _ => self.tensor(index),
            },
            Value::Tensor(_) => self.tensor(index),
        }
    }

    /// Input `index` as a tensor of rank 4.
    pub fn image(&self, index: usize) -> Result<Tensor<4>, String> {
        match self.tensor(index)? {
            Ranked::R4(t) => Ok(t),
            other => Err(format!("input {index} has rank {}; need 4", other.rank())),
        }
    }

    /// Input `index` as a vector of `length` floats.
    pub fn vector(&self, index: usize, length: usize) -> Result<Tensor<1>, String> {
        match self.tensor(index)? {
            Ranked::R1(t) if t.dims() == [length] => Ok(t),
            other => Err(format!("input {index} has shape {:?}; need [{length}]", other.dims())),
        }
    }

    /// Input `index`, which must be known without an image.
    pub fn constant(&self, index: usize) -> Result<&Constant, String> {
        match self.value(index)? {
            Value::Known(known) => Ok(&known.constant),
            Value::Tensor(_) => Err(format!("input {index} depends on the image; need a constant")),
        }
    }

    /// The integers of input `index`.
    pub fn ints(&self, index: usize) -> Result<&[i64], String> {
        self.constant(index)?.as_ints().ok_or_else(|| format!("input {index} does not hold integers"))
    }

    /// The one number of input `index`; none where the input is left out.
    pub fn scalar(&self, index: usize) -> Result<Option<f32>, String> {
        if !self.has(index) {
            return Ok(None);
        }
        match &self.constant(index)?.values {
            Values::Float(v) if v.len() == 1 => Ok(Some(v[0])),
            Values::Int(v) if v.len() == 1 => Ok(Some(v[0] as f32)),
            _ => Err(format!("input {index} is not one number")),
        }
    }

    /// Integer attribute `name`.
    pub fn int(&self, name: &str, default: i64) -> Result<i64, String> {
        match self.node.attributes.get(name) {
            None => Ok(default),
            Some(Attribute::Int(v)) => Ok(*v),
            Some(_) => Err(format!("attribute `{name}` is not an integer")),
        }
    }

    /// Float attribute `name`, which must be finite; none where it is left out.
    pub fn float(&self, name: &str) -> Result<Option<f32>, String> {
        match self.node.attributes.get(name) {
            None => Ok(None),
            Some(Attribute::Float(v)) if v.is_finite() => Ok(Some(*v)),
            Some(other) => Err(format!("attribute `{name}` is {other:?}; need a finite number")),
        }
    }

    /// Text attribute `name`.
    pub fn text<'s>(&'s self, name: &str, default: &'s str) -> Result<&'s str, String> {
        match self.node.attributes.get(name) {
            None => Ok(default),
            Some(Attribute::Text(v)) => Ok(v),
            Some(_) => Err(format!("attribute `{name}` is not text")),
        }
    }

    /// Integers of attribute `name`; none where it is left out.
    pub fn int_list(&self, name: &str) -> Result<Option<&[i64]>, String> {
        match self.node.attributes.get(name) {
            None => Ok(None),
            Some(Attribute::Ints(v)) => Ok(Some(v)),
            Some(_) => Err(format!("attribute `{name}` is not a list of integers")),
        }
    }

    /// Integers that older operator sets take as attribute `name` and newer ones as input `index`.
    pub fn ints_from(&self, name: &str, index: usize) -> Result<Option<&[i64]>, String> {
        if self.has(index) { self.ints(index).map(Some) } else { self.int_list(name) }
    }

    /// `dims` if a tensor of that shape is small enough to be made.
    pub fn affordable(&self, dims: Vec<usize>) -> Result<Vec<usize>, String> {
        match volume(&dims) {
            Some(count) if count <= MAX_ELEMENTS.saturating_mul(self.batch) => Ok(dims),
            _ => Err(format!(
                "result of shape {dims:?}; at most {MAX_ELEMENTS} elements per image are supported"
            )),
        }
    }

    /// `dims` if a constant of that shape is small enough to be made on the host.
    pub fn affordable_known(&self, dims: Vec<usize>) -> Result<Vec<usize>, String> {
        match volume(&dims) {
            Some(count) if count <= MAX_KNOWN => Ok(dims),
            _ => Err(format!("constant of shape {dims:?}; at most {MAX_KNOWN} elements are supported")),
        }
    }

    /// An error where `work` multiplications are too many.
    pub fn check_work(&self, work: u64) -> Result<(), String> {
        if work > MAX_WORK.saturating_mul(self.batch as u64) {
            return Err(format!("{work} multiplications; at most {MAX_WORK} per image are supported"));
        }
        Ok(())
    }
}

/// An exponent that Burn takes: it converts whole numbers to integers and panics where none can
/// hold them.
pub(super) fn exponent(e: f32) -> Result<f32, String> {
    if e.is_finite() && e.abs() <= 1e6 {
        Ok(e)
    } else {
        Err(format!("an exponent of {e:e}; need -1e6 to 1e6"))
    }
}

/// `axis`, counted from the end where negative, as an index below `rank`.
pub(super) fn axis(axis: i64, rank: usize) -> Result<usize, String> {
    let shifted = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    match usize::try_from(shifted) {
        Ok(found) if found < rank => Ok(found),
        _ => Err(format!("axis {axis} of a tensor of rank {rank}")),
    }
}

/// Sorted `axes` without repeats.
pub(super) fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>, String> {
    let mut found = list.iter().map(|&a| axis(a, rank)).collect::<Result<Vec<_>, _>>()?;
    found.sort_unstable();
    if found.windows(2).any(|w| w[0] == w[1]) {
        return Err(format!("axes {list:?} name one twice"));
    }
    Ok(found)
}

/// The shape that `a` and `b` are both repeated to.
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |j| dims[j]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(format!("shapes {a:?} and {b:?} do not fit together")),
        })
        .collect()
}
