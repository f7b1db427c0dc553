//! Constants and shape arithmetic on the host: tensors of `f32`, `i64` or `bool` of any rank.

use std::path::{Component, Path};

use prost::bytes::Bytes;
use waylay_conv::MappedFile;

use crate::OnnxError;
use crate::hash::sha256;
use crate::proto::TensorProto;

/// Largest constant, and largest sum of all constants, in bytes.
pub(crate) const MAX_CONSTANT_BYTES: usize = 2 << 30;
/// Highest rank of any tensor.
pub(crate) const MAX_RANK: usize = 8;

/// Values of a [`Constant`], row-major.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values {
    /// Any floating-point type of the file.
    Float(Vec<f32>),
    /// Any integer type of the file.
    Int(Vec<i64>),
    /// Booleans.
    Bool(Vec<bool>),
}

/// A tensor whose values are known without an image. Rank 0 is a scalar.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Constant {
    pub dims: Vec<usize>,
    pub values: Values,
}

impl Constant {
    /// A vector of integers, as shapes are.
    pub fn ints(values: Vec<i64>) -> Self {
        Self { dims: vec![values.len()], values: Values::Int(values) }
    }

    /// True everywhere; of use for its shape.
    pub fn full(dims: &[usize]) -> Self {
        Self { dims: dims.to_vec(), values: Values::Bool(vec![true; dims.iter().product()]) }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match &self.values {
            Values::Float(v) => v.len(),
            Values::Int(v) => v.len(),
            Values::Bool(v) => v.len(),
        }
    }

    /// The integers, if it holds integers.
    pub fn as_ints(&self) -> Option<&[i64]> {
        match &self.values {
            Values::Int(v) => Some(v),
            _ => None,
        }
    }

    /// The floats, if it holds floats.
    pub fn as_floats(&self) -> Option<&[f32]> {
        match &self.values {
            Values::Float(v) => Some(v),
            _ => None,
        }
    }

    /// SHA-256 of its values.
    pub fn digest(&self) -> String {
        fn hash<T: Copy, const W: usize>(values: &[T], bytes: impl Fn(T) -> [u8; W]) -> String {
            sha256(values.chunks(1 << 16).map(|part| part.iter().flat_map(|&v| bytes(v)).collect::<Vec<_>>()))
        }
        match &self.values {
            Values::Float(v) => hash(v, f32::to_le_bytes),
            Values::Int(v) => hash(v, i64::to_le_bytes),
            Values::Bool(v) => hash(v, |v| [u8::from(v)]),
        }
    }

    /// The elements at `offsets`, with shape `dims`. Offsets must be below [`Self::len`].
    pub fn take(&self, dims: Vec<usize>, offsets: &[usize]) -> Self {
        let values = match &self.values {
            Values::Float(v) => Values::Float(offsets.iter().map(|&i| v[i]).collect()),
            Values::Int(v) => Values::Int(offsets.iter().map(|&i| v[i]).collect()),
            Values::Bool(v) => Values::Bool(offsets.iter().map(|&i| v[i]).collect()),
        };
        Self { dims, values }
    }

    /// Decodes `proto`, whose floats must be finite. External data is looked for in `folder`, and
    /// refused without one.
    pub fn decode(proto: TensorProto, folder: Option<&Path>) -> Result<Self, OnnxError> {
        let tensor = proto.name.clone().unwrap_or_default();
        let checked = decode(proto, folder).and_then(|c| check_finite(&c).map(|()| c));
        checked.map_err(|reason| OnnxError::Tensor { tensor, reason })
    }

    /// As [`Self::decode`], with any floats, and from memory only.
    pub fn decode_any(proto: TensorProto) -> Result<Self, OnnxError> {
        let tensor = proto.name.clone().unwrap_or_default();
        decode(proto, None).map_err(|reason| OnnxError::Tensor { tensor, reason })
    }
}

/// Product of `dims`; none where it overflows.
pub(crate) fn volume(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1usize, |product, &d| product.checked_mul(d))
}

/// Row-major strides of `dims`.
pub(crate) fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis];
    }
    strides
}

/// Calls `f` with every index of a tensor of shape `dims`, in row-major order.
pub(crate) fn for_each_index(dims: &[usize], mut f: impl FnMut(&[usize])) {
    if dims.contains(&0) {
        return;
    }
    let mut index = vec![0; dims.len()];
    loop {
        f(&index);
        let Some(axis) = (0..dims.len()).rev().find(|&a| index[a] + 1 < dims[a]) else {
            return;
        };
        index[axis] += 1;
        index[axis + 1..].fill(0);
    }
}

fn decode(mut proto: TensorProto, folder: Option<&Path>) -> Result<Constant, String> {
    if proto.dims.len() > MAX_RANK {
        return Err(format!("rank {}; at most {MAX_RANK} is supported", proto.dims.len()));
    }
    let mut dims = Vec::with_capacity(proto.dims.len());
    for &d in &proto.dims {
        dims.push(usize::try_from(d).map_err(|_| format!("dimension {d} in shape {:?}", proto.dims))?);
    }
    let count = volume(&dims)
        .filter(|&n| n <= MAX_CONSTANT_BYTES / 4)
        .ok_or_else(|| format!("shape {dims:?} is larger than {MAX_CONSTANT_BYTES} bytes"))?;
    let code = proto.data_type.unwrap_or(0);
    let raw = match proto.data_location.unwrap_or(0) {
        0 => proto.raw_data.take(),
        1 => Some(read_external(&proto, folder)?),
        other => return Err(format!("data location {other}; 0 and 1 are known")),
    };
    let values = match raw {
        Some(raw) if !(raw.is_empty() && count > 0 && proto.data_location.unwrap_or(0) == 0) => {
            from_raw(code, &raw, count)?
        }
        _ => from_fields(code, proto)?,
    };
    let constant = Constant { dims, values };
    if constant.len() != count {
        return Err(format!("{} values for shape {:?}; need {count}", constant.len(), constant.dims));
    }
    Ok(constant)
}

/// Refuses NaN anywhere and infinity in anything larger than one element (bounds of a Clip may be
/// infinite).
fn check_finite(constant: &Constant) -> Result<(), String> {
    let Some(values) = constant.as_floats() else { return Ok(()) };
    match values.iter().position(|v| v.is_nan() || (values.len() > 1 && v.is_infinite())) {
        Some(at) => Err(format!("element {at} is {}; weights must be finite", values[at])),
        None => Ok(()),
    }
}

fn from_raw(code: i32, raw: &[u8], count: usize) -> Result<Values, String> {
    let width = match code {
        2 | 3 | 9 => 1,
        4 | 5 | 10 | 16 => 2,
        1 | 6 | 12 => 4,
        7 | 11 | 13 => 8,
        _ => return Err(unknown_type(code)),
    };
    if raw.len() != count * width {
        return Err(format!("{} bytes of data; its shape needs {}", raw.len(), count * width));
    }
    fn each<const W: usize, T>(raw: &[u8], f: impl Fn([u8; W]) -> T) -> Vec<T> {
        raw.as_chunks::<W>().0.iter().map(|c| f(*c)).collect()
    }
    Ok(match code {
        1 => Values::Float(each(raw, f32::from_le_bytes)),
        2 => Values::Int(raw.iter().map(|&v| i64::from(v)).collect()),
        3 => Values::Int(raw.iter().map(|&v| i64::from(v as i8)).collect()),
        4 => Values::Int(each(raw, |c| i64::from(u16::from_le_bytes(c)))),
        5 => Values::Int(each(raw, |c| i64::from(i16::from_le_bytes(c)))),
        6 => Values::Int(each(raw, |c| i64::from(i32::from_le_bytes(c)))),
        7 => Values::Int(each(raw, i64::from_le_bytes)),
        9 => Values::Bool(raw.iter().map(|&v| v != 0).collect()),
        10 => Values::Float(each(raw, |c| half::f16::from_le_bytes(c).to_f32())),
        11 => Values::Float(each(raw, |c| f64::from_le_bytes(c) as f32)),
        12 => Values::Int(each(raw, |c| i64::from(u32::from_le_bytes(c)))),
        13 => Values::Int(each(raw, |c| u64::from_le_bytes(c).min(i64::MAX as u64) as i64)),
        _ => Values::Float(each(raw, |c| half::bf16::from_le_bytes(c).to_f32())),
    })
}

fn from_fields(code: i32, proto: TensorProto) -> Result<Values, String> {
    let ints = || proto.int32_data.iter();
    Ok(match code {
        1 => Values::Float(proto.float_data),
        2..=6 => Values::Int(ints().map(|&v| i64::from(v)).collect()),
        7 => Values::Int(proto.int64_data),
        9 => Values::Bool(ints().map(|&v| v != 0).collect()),
        10 => Values::Float(ints().map(|&v| half::f16::from_bits(v as u16).to_f32()).collect()),
        11 => Values::Float(proto.double_data.iter().map(|&v| v as f32).collect()),
        12 | 13 => Values::Int(proto.uint64_data.iter().map(|&v| v.min(i64::MAX as u64) as i64).collect()),
        16 => Values::Float(ints().map(|&v| half::bf16::from_bits(v as u16).to_f32()).collect()),
        _ => return Err(unknown_type(code)),
    })
}

fn unknown_type(code: i32) -> String {
    format!(
        "element type {code}; float, double, float16, bfloat16, bool and integers of 8 to 64 bits are supported"
    )
}

/// Reads the part of a file beside the model that holds the tensor's bytes. The path must stay in
/// `folder`.
fn read_external(proto: &TensorProto, folder: Option<&Path>) -> Result<Bytes, String> {
    let entry = |key: &str| {
        proto.external_data.iter().find(|e| e.key.as_deref() == Some(key)).and_then(|e| e.value.as_deref())
    };
    let number = |key: &str| match entry(key) {
        Some(text) => {
            text.parse::<u64>().map(Some).map_err(|_| format!("external {key} `{text}` is no number"))
        }
        None => Ok(None),
    };
    let location = entry("location").ok_or("external data without a location")?;
    let relative = Path::new(location);
    if location.is_empty()
        || !relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
    {
        return Err(format!("external data in `{location}`; only files in the model's own folder are read"));
    }
    let folder =
        folder.ok_or_else(|| format!("external data in `{location}`, but the model is not in a folder"))?;
    let path = folder.join(relative);
    let inside = match (path.canonicalize(), folder.canonicalize()) {
        (Ok(path), Ok(folder)) => path.starts_with(folder),
        _ => return Err(format!("external data file `{location}` is missing")),
    };
    if !inside {
        return Err(format!("external data in `{location}`; only files in the model's own folder are read"));
    }
    let file = std::fs::File::open(&path).map_err(|e| format!("external data file `{location}`: {e}"))?;
    let size = file.metadata().map_err(|e| format!("external data file `{location}`: {e}"))?.len();
    let offset = number("offset")?.unwrap_or(0);
    let length = number("length")?.unwrap_or(size.saturating_sub(offset));
    if offset.checked_add(length).is_none_or(|end| end > size) || length > MAX_CONSTANT_BYTES as u64 {
        return Err(format!("{length} bytes at {offset} of `{location}`, which has {size} bytes"));
    }
    let part = MappedFile::part(&file, offset, length as usize);
    part.map(Bytes::from_owner).map_err(|e| format!("external data file `{location}`: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leaves_the_folder_is_refused() {
        for location in ["../weights.bin", "/etc/passwd", "a/../../b", ""] {
            let proto = TensorProto {
                dims: vec![1],
                data_type: Some(1),
                data_location: Some(1),
                external_data: vec![crate::proto::StringStringEntryProto {
                    key: Some("location".into()),
                    value: Some(location.into()),
                }],
                ..Default::default()
            };
            let error = Constant::decode(proto, Some(Path::new("."))).unwrap_err().to_string();
            assert!(error.contains("own folder"), "{error}");
        }
    }
}
