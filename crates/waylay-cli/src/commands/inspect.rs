//! `waylay inspect`.

use anyhow::Result;
use serde_json::json;
use waylay::target::onnx::{Inspection, OnnxTarget, OpenOptions, Port, inspect, verify};
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
        return print(json, &found, || describe(&found));
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

/// The inspection as text.
fn describe(found: &Inspection) -> String {
    let shape = |port: &Port| {
        let dims: Vec<String> =
            port.shape.iter().map(|d| d.map_or_else(|| "?".into(), |d| d.to_string())).collect();
        format!("{} [{}]", port.name, dims.join(", "))
    };
    let mut lines = vec![format!("{}: opset {}, made by {}", found.name, found.opset, found.producer)];
    lines.push(format!("input:         {}", shape(&found.input)));
    lines.extend(found.outputs.iter().map(|port| format!("output:        {}", shape(port))));
    lines.push(format!("parameters:    {}", found.parameters));
    if let Some(work) = found.multiply_adds {
        lines.push(format!("multiply-adds: {:.1} million per image", work as f64 / 1e6));
    }
    if let Some(dim) = found.dim {
        lines.push(format!("embedding:     {dim} dimensions"));
    }
    if let Some(batch) = found.fixed_batch {
        lines.push(format!("batch:         {batch} only; larger ones are looped over"));
    }
    let operators: Vec<String> = found
        .operators
        .iter()
        .map(|o| format!("{} {}{}", o.name, o.count, if o.supported { "" } else { " (not supported)" }))
        .collect();
    lines.push(format!("operators:     {}", operators.join(", ")));
    for tap in &found.taps {
        let [channels, height, width] = tap.size;
        lines.push(format!("feature map:   {channels} x {height} x {width}  {}", tap.name));
    }
    if let Some(problem) = &found.problem {
        lines.push(format!("cannot be run: {problem}"));
    }
    lines.join("\n")
}

fn parse_size(text: &str) -> Result<[usize; 2]> {
    let number = |part: &str| part.parse::<usize>().ok().filter(|n| (1..=8192).contains(n));
    let size = match text.split_once('x') {
        Some((height, width)) => number(height).zip(number(width)).map(|(h, w)| [h, w]),
        None => number(text).map(|n| [n, n]),
    };
    size.ok_or_else(|| {
        Usage(format!("--size {text}; need HEIGHTxWIDTH or one number, each 1 to 8192")).into()
    })
}
