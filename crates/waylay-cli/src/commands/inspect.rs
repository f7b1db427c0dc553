//! `waylay inspect`.

use anyhow::Result;
use serde::Serialize;
use serde_json::json;
use waylay::embedder::preprocess::{Channels, Preprocess, PresetRange};
use waylay::onnx::{GRADIENT_FACTOR, Inspection, Model, ModelOptions, Port, inspect, time, verify};

use super::print;
use crate::cli::InspectArgs;
use crate::error::{Mismatch, Usage};
use crate::plan;

/// What is printed: what is in the file, and what the presets would make of pixels for it.
#[derive(Serialize)]
struct Found {
    #[serde(flatten)]
    inspection: Inspection,
    presets: Vec<PresetRange>,
}

pub fn run(args: InspectArgs, json: bool) -> Result<()> {
    let options = options(&args)?;
    if let Some(batch) = args.time {
        if !(1..=1024).contains(&batch) || !(1..=1000).contains(&args.runs) {
            return Err(Usage("--time needs 1 to 1,024 images, --runs 1 to 1,000".into()).into());
        }
        let found = time(&Model::open(&args.model, options)?, batch, args.runs)?;
        return print(json, &found, || {
            format!(
                "{batch} images at once: {:.2} ms per image forward, {:.2} ms with the gradient with respect to the pixels",
                found.forward_ms, found.gradient_ms
            )
        });
    }
    let Some(reference) = &args.verify else {
        let inspection = inspect(&args.model, &options)?;
        if args.size.is_some() {
            refuse_other_size(&inspection, &options)?;
        }
        let presets = PresetRange::all(inspection.channels);
        let found = Found { inspection, presets };
        return print(json, &found, || describe(&found));
    };
    if !(args.tolerance > 0.0 && args.tolerance.is_finite()) {
        return Err(Usage(format!("--tolerance {}; need a number above 0", args.tolerance)).into());
    }
    // The reference holds what the network itself takes: no preprocessing stands between.
    let found = verify(&Model::open(&args.model, options)?, reference)?;
    let pass = found.passes(args.tolerance);
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
        if let Some(moved) = found.unsteady {
            text.push_str(&format!(
                "\nat this input, the network's own gradient moves by {moved:.3e} when the input moves by a millionth{}",
                if found.is_unsteady() {
                    ": rectifiers or maxima are at a kink, and this input cannot tell the gradients apart; another one is a \
                     sharper test"
                } else {
                    ", which does not explain it"
                }
            ));
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

/// How the file is opened: what the command line leaves out may be in the file beside the model.
fn options(args: &InspectArgs) -> Result<ModelOptions> {
    let beside = Preprocess::beside(&args.model)?;
    let size = args.size.as_deref().map(parse_size).transpose()?;
    Ok(ModelOptions {
        size: size.or(beside.as_ref().and_then(|p| p.size)),
        channels: beside.as_ref().and_then(|p| (p.channels == Channels::Gray).then_some(1)),
        layout: beside.map(|p| p.layout).unwrap_or_default(),
        output: args.network.output.clone(),
        head: plan::head(&args.network)?,
        device: plan::device(&args.network)?,
    })
}

/// An error where the file states another size than was asked for.
fn refuse_other_size(found: &Inspection, options: &ModelOptions) -> Result<()> {
    let (Some([asked_height, asked_width]), &[_, a, b, c]) = (options.size, &found.input.shape[..]) else {
        return Ok(());
    };
    let [_, height, width] = options.layout.channels_first([a, b, c]);
    if height.is_none_or(|own| own == asked_height) && width.is_none_or(|own| own == asked_width) {
        return Ok(());
    }
    let side = |side: Option<usize>| side.map_or_else(|| "?".into(), |side| side.to_string());
    Err(Usage(format!(
        "--size {asked_height}x{asked_width}; the file takes {} x {} pixels only",
        side(height),
        side(width)
    ))
    .into())
}

/// The inspection as text.
fn describe(Found { inspection: found, presets }: &Found) -> String {
    let shape = |port: &Port| {
        let dims: Vec<String> =
            port.shape.iter().map(|d| d.map_or_else(|| "?".into(), |d| d.to_string())).collect();
        format!("{} [{}]", port.name, dims.join(", "))
    };
    let producer = match found.producer.as_str() {
        "" => String::new(),
        name => format!(", made by {name}"),
    };
    let mut lines = vec![format!("{}: opset {}{producer}", found.name, found.opset)];
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
    for candidate in &found.candidates {
        let mark = match (candidate.proposed, candidate.needs_pooling) {
            (true, _) => "  <- proposed: the output looks like a classifier's",
            (false, true) => "; pool it with --pool",
            (false, false) => "",
        };
        lines.push(format!(
            "candidate:     --output {} {:?}  {}{mark}",
            candidate.name, candidate.shape, candidate.what
        ));
    }
    if let Some(text) = &found.normalises {
        lines.push(format!("normalises:    {text}; needs --preprocess none or raw-255"));
    }
    for preset in presets {
        let ranges: Vec<String> =
            preset.ranges.iter().map(|(low, high)| format!("{low:.2} to {high:.2}")).collect();
        lines.push(format!("preset:        {:<17} pixels become {}", preset.preset, ranges.join(" | ")));
    }
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
