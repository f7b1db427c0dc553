//! Matrix products.

use burn::tensor::Tensor;

use super::call::{Call, broadcast};
use super::{Operator, Outcome, one, op};
use crate::value::{Ranked, zip_rank};

pub(super) const LIST: &[Operator] = &[op("Gemm", 2..=3, gemm), op("MatMul", 2..=2, matmul)];

/// alpha A B + beta C, with A and B transposed on demand.
fn gemm(call: &Call<'_>) -> Outcome {
    let (a, b) = (matrix(call, 0, "transA")?, matrix(call, 1, "transB")?);
    let ([m, k], [rows, n]) = (a.dims(), b.dims());
    if k != rows {
        return Err(format!("a {m} x {k} matrix times a {rows} x {n} matrix"));
    }
    check(call, &[m, n], k)?;
    let (alpha, beta) = (call.float("alpha")?.unwrap_or(1.0), call.float("beta")?.unwrap_or(1.0));
    let mut y = a.matmul(b);
    if alpha != 1.0 {
        y = y * alpha;
    }
    if call.has(2) {
        let c = call.tensor(2)?;
        if broadcast(&c.dims(), &[m, n])? != [m, n] {
            return Err(format!("a summand of shape {:?} for a {m} x {n} matrix", c.dims()));
        }
        let Ranked::R2(c) = c.with_rank(2)? else { return Err("a summand that is not a matrix".into()) };
        y = y + if beta == 1.0 { c } else { c * beta };
    }
    one(Ranked::R2(y))
}

fn matrix(call: &Call<'_>, index: usize, flag: &str) -> Result<Tensor<2>, String> {
    let Ranked::R2(t) = call.tensor(index)? else { return Err(format!("input {index} is not a matrix")) };
    Ok(if call.int(flag, 0)? != 0 { t.transpose() } else { t })
}

/// As numpy's: the last two dimensions are matrices, those before are repeated to fit, vectors are
/// promoted.
fn matmul(call: &Call<'_>) -> Outcome {
    let (a, b) = (call.tensor(0)?, call.tensor(1)?);
    let (mut left, mut right) = (a.dims(), b.dims());
    let (row, column) = (left.len() == 1, right.len() == 1);
    if row {
        left.insert(0, 1);
    }
    if column {
        right.push(1);
    }
    let ([lead_a @ .., m, k], [lead_b @ .., rows, n]) = (&left[..], &right[..]) else {
        return Err("operands without dimensions".into());
    };
    if k != rows {
        return Err(format!("shapes {left:?} and {right:?} do not multiply"));
    }
    let mut dims = broadcast(lead_a, lead_b)?;
    let (m, n) = (*m, *n);
    dims.extend([m, n]);
    check(call, &dims, *k)?;
    // One matrix for all: one product of two matrices.
    let y = if lead_b.iter().all(|&d| d == 1) {
        let (a, b) = (a.reshape(&[left[..left.len() - 1].iter().product(), *k])?, b.reshape(&[*k, n])?);
        zip_rank!(a, b, (x, y) => x.matmul(y))?
    } else {
        let (a, b) = (a.reshape(&left)?.with_rank(dims.len())?, b.reshape(&right)?.with_rank(dims.len())?);
        zip_rank!(a, b, (x, y) => x.matmul(y))?
    };
    if row {
        dims.remove(dims.len() - 2);
    }
    if column {
        dims.pop();
    }
    one(y.reshape(&dims)?)
}

fn check(call: &Call<'_>, dims: &[usize], inner: usize) -> Result<(), String> {
    let result = call.affordable(dims.to_vec())?;
    call.check_work(result.iter().fold(inner as u64, |p, &d| p.saturating_mul(d as u64)))
}
