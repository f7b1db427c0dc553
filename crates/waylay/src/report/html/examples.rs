//! The pictures of the page, as `data:` addresses with their sizes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{ImageFormat, ImageReader};
use serde::Serialize;
use std::io::Cursor;

use crate::audit::outcome::{AuditReport, Example, Hit};

/// Pictures below this size on both sides are enlarged without smoothing.
const TINY: u32 = 80;

/// One query, before and after.
#[derive(Serialize)]
pub(super) struct Shown<'a> {
    query: &'a str,
    identity: &'a str,
    attack: &'a str,
    amplification: f64,
    clean: Option<Picture>,
    adversarial: Option<Picture>,
    perturbation: Option<Picture>,
    before: Vec<ShownHit<'a>>,
    after: Vec<ShownHit<'a>>,
}

/// A search result and its picture.
#[derive(Serialize)]
struct ShownHit<'a> {
    name: &'a str,
    identity: &'a str,
    correct: bool,
    distance: f64,
    picture: Option<Picture>,
}

#[derive(Serialize)]
struct Picture {
    address: String,
    width: u32,
    height: u32,
    tiny: bool,
}

/// The audit's examples with the label of their attack.
pub(super) fn shown(audit: &AuditReport) -> Vec<Shown<'_>> {
    let label =
        |name: &'_ str| audit.attacks.iter().find(|row| row.name == name).map(|row| row.label.as_str());
    audit.examples.iter().map(|example| show(example, label(&example.attack))).collect()
}

fn show<'a>(example: &'a Example, label: Option<&'a str>) -> Shown<'a> {
    let hits = |hits: &'a [Hit]| hits.iter().map(show_hit).collect();
    Shown {
        query: &example.query,
        identity: &example.identity,
        attack: label.unwrap_or(&example.attack),
        amplification: example.amplification,
        clean: picture(&example.query_png),
        adversarial: picture(&example.adversarial_png),
        perturbation: picture(&example.perturbation_png),
        before: hits(&example.before),
        after: hits(&example.after),
    }
}

fn show_hit(hit: &Hit) -> ShownHit<'_> {
    let Hit { name, identity, correct, distance, png } = hit;
    ShownHit { name, identity, correct: *correct, distance: *distance, picture: picture(png) }
}

/// None where there are no bytes or no PNG.
fn picture(png: &[u8]) -> Option<Picture> {
    let (width, height) =
        ImageReader::with_format(Cursor::new(png), ImageFormat::Png).into_dimensions().ok()?;
    let address = format!("data:image/png;base64,{}", STANDARD.encode(png));
    Some(Picture { address, width, height, tiny: width.max(height) < TINY })
}
