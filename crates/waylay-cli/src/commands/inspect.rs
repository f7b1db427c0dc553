//! `waylay inspect`.

use anyhow::Result;
use serde_json::json;
use waylay::target::onnx::{OnnxTarget, OpenOptions, inspect, verify};
use waylay::target::preprocess::{Preprocess, Preset};

use super::print;
use crate::cli::InspectArgs;
use crate::exit::{Mismatch, Usage};

/// Gradients go through twice the layers: their tolerance is this many times that of values.
const GRADIENT_FACTOR: f64 = 10.0;

pub fn run(args: InspectArgs, json: bool) -> Result<()> {
    let size = args.size.as_deref().map(parse_size).transpose()?;
    let Some(reference) = &args.verify else {
        let found = inspect(&args.model, size)?;
        return print(json, &found, || found.to_string());
    };
    if !(args.tolerance > 0.0 && args.tolerance.is_finite()) {
        return Err(Usage(format!("--tolerance {}; need a number above 0", args.tolerance)).into());
    }
    // The reference holds what the network itself takes: no preprocessing stands between.
    let preprocess = Preprocess { size, ..Preset::None.into() };
    let target = OnnxTarget::open(&args.model, OpenOptions { preprocess, output: None })?;
    let found = verify(&target, reference)?;
    let values_pass = f64::from(found.values.max_rel) <= args.tolerance;
    let gradient_pass =
        found.gradient.is_none_or(|g| f64::from(g.max_rel) <= GRADIENT_FACTOR * args.tolerance);
    let pass = values_pass && gradient_pass;
    print(json, &json!({ "verification": found, "tolerance": args.tolerance, "pass": pass }), || {
        let mut text = format!(
            "values: largest absolute error {:.3e}, relative to the largest value {:.3e} (tolerance {:.1e})",
            found.values.max_abs, found.values.max_rel, args.tolerance
        );
        match found.gradient {
            Some(gradient) => text.push_str(&format!(
                "\ninput gradient: largest absolute error {:.3e}, relative {:.3e} (tolerance {:.1e})",
                gradient.max_abs,
                gradient.max_rel,
                GRADIENT_FACTOR * args.tolerance
            )),
            None => text.push_str("\ninput gradient: not compared (the reference holds no `input_grad`)"),
        }
        text
    })?;
    if pass {
        Ok(())
    } else {
        let text = format!("`{}` does not agree with `{}`", args.model.display(), reference.display());
        Err(Mismatch(text).into())
    }
}

fn parse_size(text: &str) -> Result<[usize; 2]> {
    let number = |part: &str| part.parse::<usize>().ok().filter(|n| (1..=8192).contains(n));
    let size = match text.split_once('x') {
        Some((height, width)) => number(height).zip(number(width)).map(|(h, w)| [h, w]),
        None => number(text).map(|n| [n, n]),
    };
    size.ok_or_else(|| Usage(format!("--size {text}; need HEIGHTxWIDTH or one number, each 1 to 8192")).into())
}
