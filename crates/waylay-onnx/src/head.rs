//! What comes behind the network: pooling of a map to a vector, and whitening. Sources:
//! generalised-mean pooling and learned whitening, Radenović et al., arXiv:1711.02512, eqs. 3 and
//! 6.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};

use crate::OnnxError;
use crate::value::Ranked;

/// The least that GeM takes, as in the reference implementation.
const GEM_LEAST: f32 = 1e-6;
/// Most numbers in a whitening matrix.
const MAX_ELEMENTS: u64 = 1 << 27;

/// How a map `[C, H, W]`, or tokens `[T, C]`, become a vector of C numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pool {
    /// The mean.
    Average,
    /// The maximum.
    Maximum,
    /// (mean of max(x, 1e-6)^p)^(1/p); p above 0, at most 100.
    Gem {
        /// The exponent; 3 is usual.
        p: f32,
    },
}

/// W x + b, from PCA or learned. The retrieval metric normalises afterwards, where it is cosine.
#[derive(Clone, Debug, PartialEq)]
pub struct Whitening {
    rows: usize,
    columns: usize,
    /// Row by row.
    matrix: Vec<f32>,
    bias: Option<Vec<f32>>,
}

impl Whitening {
    /// Reads a NumPy file of shape `[D_out, D_in]` (W), or `[D_out, D_in + 1]` whose last column is
    /// b; which of the two follows from `dim` = D_in. `float32` or `float64`, C order, finite
    /// numbers.
    pub fn read(path: &Path, dim: usize) -> Result<Self, OnnxError> {
        let bad = |reason: String| OnnxError::Reference { path: path.to_owned(), reason };
        let bytes =
            std::fs::read(path).map_err(|source| OnnxError::Read { path: path.to_owned(), source })?;
        let file = npyz::NpyFile::new(&bytes[..]).map_err(|e| bad(format!("not an npy file: {e}")))?;
        let &[rows, columns] = file.shape() else {
            return Err(bad(format!("shape {:?}; need a matrix", file.shape())));
        };
        if file.order() != npyz::Order::C || rows == 0 || rows.saturating_mul(columns) > MAX_ELEMENTS {
            return Err(bad(format!(
                "{rows} x {columns}; need C order, at least one row, at most {MAX_ELEMENTS} numbers"
            )));
        }
        let fail = |e: std::io::Error| bad(e.to_string());
        let values: Vec<f32> = match file.try_data::<f32>() {
            Ok(data) => data.collect::<Result<_, _>>().map_err(fail)?,
            Err(file) => match file.try_data::<f64>() {
                Ok(data) => data.map(|v| v.map(|v| v as f32)).collect::<Result<_, _>>().map_err(fail)?,
                Err(file) => return Err(bad(format!("type {:?}; need float32 or float64", file.dtype()))),
            },
        };
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(bad(format!("element {at} is {}; need finite numbers", values[at])));
        }
        let (rows, columns) = (rows as usize, columns as usize);
        match columns {
            c if c == dim => Ok(Self { rows, columns, matrix: values, bias: None }),
            c if c == dim + 1 => {
                let split = |row: &[f32]| (row[..dim].to_vec(), row[dim]);
                let (matrix, bias): (Vec<_>, Vec<_>) = values.chunks_exact(c).map(split).unzip();
                Ok(Self { rows, columns: dim, matrix: matrix.concat(), bias: Some(bias) })
            }
            c => Err(bad(format!("{c} columns; need {dim}, or {} with b as the last", dim + 1))),
        }
    }
}

/// What is put behind the network: nothing by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Head {
    /// Pooling of a map or of tokens.
    pub pool: Option<Pool>,
    /// Whitening of the vector: a NumPy file, see [`Whitening::read`].
    pub whiten: Option<std::path::PathBuf>,
}

/// A head whose sizes are known.
#[derive(Debug, Default)]
pub(crate) struct Fitted {
    pool: Option<Pool>,
    whiten: Option<(Tensor<2>, Option<Tensor<2>>)>,
}

impl Head {
    /// Why the settings cannot be used; none where they can.
    pub(crate) fn problem(&self) -> Option<String> {
        match self.pool {
            Some(Pool::Gem { p }) if !(0.1..=100.0).contains(&p) => {
                Some(format!("p of {p}; need 0.1 to 100"))
            }
            _ => None,
        }
    }

    /// The head for a network that gives `dims`, batch first, and the dimensions of the embedding.
    pub(crate) fn fit(&self, dims: &[usize], device: &Device) -> Result<(Fitted, usize), OnnxError> {
        let bad = |reason| OnnxError::Output { name: "the chosen output".into(), reason };
        if let Some(problem) = self.problem() {
            return Err(bad(problem));
        }
        let mut dim: usize = match (self.pool, dims) {
            (None, [_, rest @ ..]) => rest.iter().product(),
            (Some(_), [_, c, _, _]) | (Some(_), [_, _, c]) => *c,
            _ => {
                return Err(bad(format!(
                    "shape {dims:?} cannot be pooled; need a map [N, C, H, W] or tokens [N, T, C]"
                )));
            }
        };
        let mut fitted = Fitted { pool: self.pool, whiten: None };
        if let Some(path) = &self.whiten {
            let read = Whitening::read(path, dim)?;
            let columns =
                Tensor::<2>::from_data(TensorData::new(read.matrix, [read.rows, read.columns]), device);
            let bias = read.bias.map(|b| Tensor::<2>::from_data(TensorData::new(b, [1, read.rows]), device));
            dim = read.rows;
            fitted.whiten = Some((columns.transpose(), bias));
        }
        Ok((fitted, dim))
    }
}

impl Fitted {
    /// Embeddings `[count, D]` of what the network gave. Differentiable.
    pub(crate) fn apply(&self, output: Ranked, count: usize) -> Result<Tensor<2>, String> {
        let dims = output.dims();
        let flat = |t: Ranked, dims: &[usize]| match t.reshape(dims)? {
            Ranked::R2(t) => Ok(t),
            _ => Err("no vector".to_owned()),
        };
        let mut x = match (self.pool, output) {
            (None, output) => flat(output, &[count, dims.get(1..).unwrap_or_default().iter().product()])?,
            (Some(pool), Ranked::R4(map)) => pooled(map.flatten::<3>(2, 3), pool, 2),
            (Some(pool), Ranked::R3(tokens)) => pooled(tokens, pool, 1),
            (Some(_), other) => return Err(format!("shape {:?} cannot be pooled", other.dims())),
        };
        if let Some((matrix, bias)) = &self.whiten {
            let on = |t: &Tensor<2>| flat(Ranked::R2(t.clone()).lift(&x.device()), &t.dims());
            let (matrix, bias) = (on(matrix)?, bias.as_ref().map(on).transpose()?);
            x = x.matmul(matrix);
            if let Some(bias) = bias {
                x = x + bias;
            }
        }
        Ok(x)
    }
}

fn pooled(x: Tensor<3>, pool: Pool, axis: usize) -> Tensor<2> {
    let rows = match pool {
        Pool::Average => x.mean_dim(axis),
        Pool::Maximum => x.max_dim(axis),
        Pool::Gem { p } => x.clamp_min(GEM_LEAST).powf_scalar(p).mean_dim(axis).powf_scalar(1.0 / p),
    };
    rows.squeeze_dim::<2>(axis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(values: &[f32], dims: &[usize]) -> Ranked {
        Ranked::new(dims, values.to_vec(), &Device::flex()).unwrap()
    }

    fn run(head: &Head, x: Ranked) -> Vec<f32> {
        let (fitted, dim) = head.fit(&x.dims(), &Device::flex()).unwrap();
        let y = fitted.apply(x, 1).unwrap();
        assert_eq!(y.dims(), [1, dim]);
        y.into_data().iter::<f32>().collect()
    }

    #[test]
    fn pooling_agrees_with_hand_made_numbers() {
        let map = || tensor(&[1.0, 2.0, 3.0, 4.0, -1.0, 0.0, 0.0, 8.0], &[1, 2, 2, 2]);
        let pool = |pool| Head { pool: Some(pool), whiten: None };
        assert_eq!(run(&pool(Pool::Average), map()), [2.5, 1.75]);
        assert_eq!(run(&pool(Pool::Maximum), map()), [4.0, 8.0]);
        // ((1 + 8 + 27 + 64) / 4)^(1/3) and (512 / 4)^(1/3).
        let gem = run(&pool(Pool::Gem { p: 3.0 }), map());
        assert!((gem[0] - 25f32.cbrt()).abs() < 1e-5 && (gem[1] - 128f32.cbrt()).abs() < 1e-5, "{gem:?}");
        let tokens = tensor(&[1.0, 2.0, 3.0, 6.0], &[1, 2, 2]);
        assert_eq!(run(&pool(Pool::Average), tokens), [2.0, 4.0]);
        assert!(pool(Pool::Average).fit(&[1, 4], &Device::flex()).is_err());
        assert!(pool(Pool::Gem { p: 0.0 }).fit(&[1, 2, 2, 2], &Device::flex()).is_err());
    }

    #[test]
    fn the_gradient_of_gem_agrees_with_finite_differences() {
        let values = [0.5f32, 1.5, 2.5, 0.25];
        let head = Head { pool: Some(Pool::Gem { p: 2.5 }), whiten: None };
        let device = Device::flex().autodiff();
        let x =
            Tensor::<4>::from_data(TensorData::new(values.to_vec(), [1, 1, 2, 2]), &device).require_grad();
        let (fitted, _) = head.fit(&[1, 1, 2, 2], &Device::flex()).unwrap();
        let y = fitted.apply(Ranked::R4(x.clone()), 1).unwrap();
        let found: Vec<f32> = x.grad(&y.sum().backward()).unwrap().into_data().iter::<f32>().collect();
        for i in 0..4 {
            let at = |step: f32| {
                let mut moved = values;
                moved[i] += step;
                run(&head, tensor(&moved, &[1, 1, 2, 2]))[0]
            };
            let slope = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((found[i] - slope).abs() < 1e-3, "{i}: {} for {slope}", found[i]);
        }
    }

    #[test]
    fn whitening_multiplies_and_adds_its_last_column() {
        use npyz::WriterBuilder;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.npy");
        let mut bytes = Vec::new();
        let options = npyz::WriteOptions::new().default_dtype().shape(&[3, 3]).writer(&mut bytes);
        let mut writer = options.begin_nd().unwrap();
        writer.extend([1.0f32, 0.0, 0.5, 0.0, 2.0, 0.0, 1.0, 1.0, -1.0]).unwrap();
        writer.finish().unwrap();
        std::fs::write(&path, bytes).unwrap();
        let head = Head { pool: None, whiten: Some(path.clone()) };
        assert_eq!(run(&head, tensor(&[3.0, 4.0], &[1, 2])), [3.5, 8.0, 6.0]);
        assert_eq!(run(&head, tensor(&[3.0, 4.0, 2.0], &[1, 3])), [4.0, 8.0, 5.0]);
        let error = head.fit(&[1, 5], &Device::flex()).unwrap_err().to_string();
        assert!(error.contains("3 columns; need 5, or 6"), "{error}");
    }
}
