//! Einstein's summation: axes with names, multiplied and summed. Two tensors on the image's path
//! become one batched matrix product; what is known is summed on the host.

use super::call::Call;
use super::{Operator, Outcome, one, op};
use crate::constant::{Constant, Values, for_each_index, strides};
use crate::value::{Ranked, map_rank, zip_rank};

pub(super) const LIST: &[Operator] = &[op("Einsum", 1..=8, einsum)];

/// Most products that are summed on the host.
const MAX_HOST: usize = 1 << 24;

/// An equation with an ellipsis written out as upper-case Greek letters, which nobody uses.
struct Equation {
    inputs: Vec<Vec<char>>,
    output: Vec<char>,
    /// Length of each name, sorted by name.
    lengths: Vec<(char, usize)>,
}

impl Equation {
    fn length(&self, name: char) -> usize {
        self.lengths.iter().find(|l| l.0 == name).map_or(1, |l| l.1)
    }
}

fn parse(text: &str, shapes: &[Vec<usize>]) -> Result<Equation, String> {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let fail = || format!("equation `{text}` for shapes {shapes:?}");
    let (left, right) = match text.split_once("->") {
        Some((left, right)) => (left.to_owned(), Some(right.to_owned())),
        None => (text.clone(), None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != shapes.len() {
        return Err(fail());
    }
    let named = |term: &str| term.replace("...", "").chars().count();
    let spare = |i: usize| shapes[i].len().checked_sub(named(terms[i]));
    let dots = (0..terms.len()).map(spare).collect::<Option<Vec<_>>>().ok_or_else(fail)?;
    let most = (0..terms.len()).filter(|&i| terms[i].contains("...")).map(|i| dots[i]).max().unwrap_or(0);
    let hidden: Vec<char> = ('Α'..='Ω').filter(|c| c.is_alphabetic()).take(most).collect();
    let spell = |term: &str, count: usize| -> Vec<char> {
        let hidden: String = hidden[hidden.len() - count.min(hidden.len())..].iter().collect();
        term.replace("...", &hidden).chars().collect()
    };
    let inputs: Vec<Vec<char>> = terms.iter().zip(&dots).map(|(t, &n)| spell(t, n)).collect();
    let mut lengths: Vec<(char, usize)> = Vec::new();
    for (names, shape) in inputs.iter().zip(shapes) {
        if names.len() != shape.len() || names.iter().any(|c| !c.is_alphabetic()) {
            return Err(fail());
        }
        for (&name, &length) in names.iter().zip(shape) {
            match lengths.iter_mut().find(|l| l.0 == name) {
                Some(known) if known.1 == 1 || known.1 == length => known.1 = length,
                Some(_) if length == 1 => {}
                Some(_) => return Err(fail()),
                None => lengths.push((name, length)),
            }
        }
    }
    lengths.sort_unstable();
    let output = match right {
        Some(right) => spell(&right, most),
        None => {
            let once = |c: &char| inputs.iter().flatten().filter(|o| *o == c).count() == 1;
            let named = lengths.iter().map(|l| l.0).filter(|c| !hidden.contains(c) && once(c));
            hidden.iter().copied().filter(|_| left.contains("...")).chain(named).collect()
        }
    };
    let known = |c: &char| lengths.iter().any(|l| l.0 == *c);
    let repeated = (1..output.len()).any(|i| output[i..].contains(&output[i - 1]));
    if !output.iter().all(known) || repeated {
        return Err(fail());
    }
    Ok(Equation { inputs, output, lengths })
}

fn einsum(call: &Call<'_>) -> Outcome {
    let shapes =
        (0..call.inputs.len()).map(|i| Ok(call.value(i)?.dims())).collect::<Result<Vec<_>, String>>()?;
    let equation = parse(call.text("equation", "")?, &shapes)?;
    let dims = call.affordable(equation.output.iter().map(|&c| equation.length(c)).collect())?;
    if call.all_known() {
        return on_host(call, &equation, dims);
    }
    let work = equation.lengths.iter().fold(1u64, |p, l| p.saturating_mul(l.1 as u64));
    call.check_work(work)?;
    let distinct = |names: &[char]| (1..names.len()).all(|i| !names[i..].contains(&names[i - 1]));
    if !equation.inputs.iter().all(|names| distinct(names)) {
        return Err("a name that is used twice in one term is not supported on the image's path".into());
    }
    let mut names = equation.inputs[0].clone();
    let mut value = call.tensor(0)?;
    for index in 1..call.inputs.len() {
        let other = &equation.inputs[index];
        let later = |c: &char| {
            equation.output.contains(c) || equation.inputs[index + 1..].iter().any(|i| i.contains(c))
        };
        (value, names) = product(value, &names, call.tensor(index)?, other, later)?;
    }
    // What is not wanted is summed; the rest is put in order.
    for axis in (0..names.len()).rev() {
        if !equation.output.contains(&names[axis]) {
            let mut dims = value.dims();
            dims.remove(axis);
            value = map_rank!(value, t => t.sum_dim(axis)).reshape(&dims)?;
            names.remove(axis);
        }
    }
    one(ordered(value, &names, &equation.output)?.expand(&dims)?)
}

/// The axes `names` in the order of `wanted`, which has no others; missing ones become 1.
fn ordered(value: Ranked, names: &[char], wanted: &[char]) -> Result<Ranked, String> {
    let dims = value.dims();
    let order: Vec<usize> = wanted.iter().filter_map(|c| names.iter().position(|n| n == c)).collect();
    if order.len() != names.len() {
        return Err("an axis that is not wanted is left".into());
    }
    let shape: Vec<usize> =
        wanted.iter().map(|c| names.iter().position(|n| n == c).map_or(1, |a| dims[a])).collect();
    let permuted = if order.len() < 2 {
        value
    } else {
        map_rank!(value, t => {
            let mut axes = t.dims();
            axes.copy_from_slice(&order);
            t.permute(axes)
        })
    };
    permuted.reshape(&shape)
}

/// `a` times `b`, summed over what neither the output nor a later term names, as one batched matrix
/// product.
fn product(
    a: Ranked,
    names_a: &[char],
    b: Ranked,
    names_b: &[char],
    later: impl Fn(&char) -> bool,
) -> Result<(Ranked, Vec<char>), String> {
    let both = |c: &&char| names_a.contains(c) && names_b.contains(c);
    let shared: Vec<char> = names_a.iter().filter(both).filter(|c| later(c)).copied().collect();
    let summed: Vec<char> = names_a.iter().filter(both).filter(|c| !later(c)).copied().collect();
    let rows: Vec<char> = names_a.iter().filter(|c| !names_b.contains(c)).copied().collect();
    let columns: Vec<char> = names_b.iter().filter(|c| !names_a.contains(c)).copied().collect();
    let (da, db) = (a.dims(), b.dims());
    let of =
        |names: &[char], dims: &[usize], c: char| names.iter().position(|n| *n == c).map_or(1, |i| dims[i]);
    let length = |c: char| of(names_a, &da, c).max(of(names_b, &db, c));
    let count = |names: &[char]| names.iter().map(|&c| length(c)).product::<usize>();
    // Axes of 1 that the other operand has longer are repeated first.
    let full = |names: &[char]| names.iter().map(|&c| length(c)).collect::<Vec<_>>();
    let (a, b) = (a.expand(&full(names_a))?, b.expand(&full(names_b))?);
    let left = ordered(a, names_a, &[&shared[..], &rows, &summed].concat())?;
    let right = ordered(b, names_b, &[&shared[..], &summed, &columns].concat())?;
    let left = left.reshape(&[count(&shared), count(&rows), count(&summed)])?;
    let right = right.reshape(&[count(&shared), count(&summed), count(&columns)])?;
    let names = [&shared[..], &rows, &columns].concat();
    let y = zip_rank!(left, right, (x, y) => x.matmul(y))?;
    Ok((y.reshape(&full(&names))?, names))
}

fn on_host(call: &Call<'_>, equation: &Equation, dims: Vec<usize>) -> Outcome {
    let all: Vec<char> = equation.lengths.iter().map(|l| l.0).collect();
    let lengths: Vec<usize> = equation.lengths.iter().map(|l| l.1).collect();
    if lengths.iter().try_fold(1usize, |p, &l| p.checked_mul(l)).is_none_or(|n| n > MAX_HOST) {
        return Err(format!("more than {MAX_HOST} products of constants"));
    }
    let steps = |names: &[char], dims: &[usize]| -> Vec<usize> {
        let own = strides(dims);
        let step = |c: &char| {
            let used = names.iter().zip(&own).zip(dims).filter(|((n, _), d)| *n == c && **d > 1);
            used.map(|((_, s), _)| s).sum()
        };
        all.iter().map(step).collect()
    };
    let constants = (0..call.inputs.len()).map(|i| call.constant(i)).collect::<Result<Vec<_>, _>>()?;
    let numbers: Vec<Vec<f64>> = constants
        .iter()
        .map(|c| match &c.values {
            Values::Float(v) => Ok(v.iter().map(|&v| f64::from(v)).collect()),
            Values::Int(v) => Ok(v.iter().map(|&v| v as f64).collect()),
            Values::Bool(_) => Err("booleans".to_owned()),
        })
        .collect::<Result<_, _>>()?;
    let input_steps: Vec<_> =
        constants.iter().zip(&equation.inputs).map(|(c, n)| steps(n, &c.dims)).collect();
    let output_steps = steps(&equation.output, &dims);
    let mut sums = vec![0f64; dims.iter().product()];
    let dot = |index: &[usize], steps: &[usize]| index.iter().zip(steps).map(|(i, s)| i * s).sum::<usize>();
    for_each_index(&lengths, |index| {
        let product = numbers.iter().zip(&input_steps).map(|(v, s)| v[dot(index, s)]).product::<f64>();
        sums[dot(index, &output_steps)] += product;
    });
    let values = match constants[0].values {
        Values::Int(_) => Values::Int(sums.into_iter().map(|v| v as i64).collect()),
        _ => Values::Float(sums.into_iter().map(|v| v as f32).collect()),
    };
    one(Constant { dims, values })
}
