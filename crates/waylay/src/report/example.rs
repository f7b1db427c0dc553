//! A realistic audit for the tests of every exporter.

use std::collections::BTreeMap;
use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};
use serde_json::json;

use crate::audit::outcome::*;
use crate::audit::{grade, verdict, worst_case};

const IMAGE: Knowledge = Knowledge::IMAGE;

/// Five attacks and the clean row at ε = 8/255, 40 queries, 300 training steps, two examples of 28
/// x 28 pixels.
pub(crate) fn audit() -> AuditReport {
    let clean = scores(0.99, 1.0, 1.0, 0.912);
    let attacks = vec![
        row("none", "No attack", IMAGE, clean.clone(), [0.0, 0.0, 100.0, 1.0, 0.0, 1.0], 1),
        row(
            "noise",
            "Random noise",
            IMAGE,
            scores(0.99, 1.0, 1.0, 0.908),
            [8.0, 6.27, 30.1, 0.741, 0.08, 0.98],
            1,
        ),
        row(
            "fgsm",
            "FGSM, 1 gradient",
            Knowledge::gradients(1, 2),
            scores(0.425, 0.59, 0.71, 0.394),
            [8.0, 5.61, 30.2, 0.79, 18.2, 0.61],
            3,
        ),
        row(
            "pgd-10",
            "PGD, 10 gradients",
            Knowledge::gradients(10, 11),
            scores(0.005, 0.02, 0.05, 0.013),
            [8.0, 4.02, 33.9, 0.884, 176.0, -0.41],
            60,
        ),
        row(
            "pgd-40",
            "PGD, 40 gradients",
            Knowledge::gradients(40, 41),
            scores(0.0, 0.005, 0.02, 0.009),
            [8.0, 4.11, 33.7, 0.88, 702.5, -0.52],
            90,
        ),
        row(
            "uaa-gan",
            "UAA-GAN, image only",
            IMAGE,
            scores(0.025, 0.07, 0.13, 0.06),
            [8.0, 4.26, 33.4, 0.902, 2.61, -0.18],
            35,
        ),
    ];
    let worst_case = worst_case(&attacks);
    AuditReport {
        schema: SCHEMA.into(),
        grade: grade(&clean, worst_case.as_ref(), false),
        strongest: Some("pgd-40".into()),
        verdict: verdict(&clean, &attacks, worst_case.as_ref(), 8.0, false),
        quick: false,
        target: TargetFacts {
            name: "fr_feature.onnx".into(),
            fingerprint: "5d1f3b0c".repeat(8),
            input: [3, 128, 128],
            dim: 512,
            preprocess: "128 x 128, RGB, (v - 127.5) / 128".into(),
            verified: None,
        },
        data: DataFacts {
            name: "orl".into(),
            train: SetFacts { images: 200, identities: None },
            query: SetFacts { images: 40, identities: Some(20) },
            gallery: SetFacts { images: 160, identities: Some(20) },
            disjoint: "No identity that the generator was trained on is queried or searched.".into(),
            sha256: "a17e90d2".repeat(8),
        },
        budget: Budget { norm: "linf".into(), epsilon_255: 8.0 },
        metric: "cosine".into(),
        seed: 0,
        threads: 2,
        clean,
        attacks,
        worst_case,
        training: vec![Training {
            attack: "uaa-gan".into(),
            steps: 300,
            batch: 8,
            generator_parameters: 1_234_567,
            warnings: Vec::new(),
            log: (1..=300).map(step).collect(),
        }],
        examples: (0..2).map(|index| example(index, (28, 28))).collect(),
        run: RunFacts {
            version: "0.1.0".into(),
            command:
                "waylay audit --target fr_feature.onnx --preprocess arcface --data orl --epsilon 8 --seed 0"
                    .into(),
            started: "2026-01-31T09:30:00Z".into(),
            seconds: 431.2,
            platform: "linux x86_64".into(),
            backend: "burn 0.22.1, flex (CPU)".into(),
            files: BTreeMap::from([("generator.safetensors".into(), "0f".repeat(32))]),
        },
        not_tested: vec![
            "Attackers who cannot see the network's gradients.".into(),
            "Printed or re-photographed queries.".into(),
            "Defences such as adversarial training or input purification.".into(),
        ],
    }
}

/// A gradient with a disc, as PNG; `variant` moves the disc.
pub(super) fn png(width: u32, height: u32, variant: u32) -> Vec<u8> {
    let (centre_x, centre_y) = (width as f32 * (0.3 + 0.1 * (variant % 5) as f32), height as f32 * 0.45);
    let picture = RgbImage::from_fn(width, height, |x, y| {
        let (dx, dy) = (x as f32 - centre_x, y as f32 - centre_y);
        let disc = if dx.hypot(dy) < 0.3 * width.min(height) as f32 { 90 } else { 0 };
        let shade = (40 + 100 * y / height.max(1) + 20 * (variant % 3)) as u8;
        Rgb([shade + disc, shade + disc / 2, shade])
    });
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn scores(rank1: f64, rank5: f64, rank10: f64, map: f64) -> Scores {
    let recall_at =
        [("1", rank1 / 4.0), ("5", rank5 / 2.0), ("10", rank10)].map(|(k, v)| (k.into(), v)).into();
    Scores { rank1, rank5, rank10, map, minp: 0.2, recall_at, queries: 40, without_match: 0 }
}

/// `numbers` are L∞, L2, PSNR, SSIM, milliseconds and mean cosine; `typical` is about where the
/// first match comes.
fn row(
    name: &str,
    label: &str,
    knowledge: Knowledge,
    scores: Scores,
    numbers: [f64; 6],
    typical: usize,
) -> AttackRow {
    // Every query as the mean, the last without a match.
    let average_precision = (0..40).map(|q| (q != 39).then_some(scores.map)).collect();
    let [linf_255, l2, psnr_db, ssim, ms_per_image, mean_cosine] = numbers;
    let centre = 0.35 + 0.55 * (typical as f64).ln() / 90f64.ln();
    let bell = |bin: usize| (-((bin as f64 + 0.5) / 40.0 * 1.6 - centre).powi(2) / 0.03).exp();
    AttackRow {
        name: name.into(),
        label: label.into(),
        knowledge,
        epsilon_255: 8.0,
        trained_against: (name == "uaa-gan").then_some(TrainedAgainst::Target),
        scores,
        linf_255,
        l2,
        psnr_db: Some(psnr_db),
        ssim,
        ms_per_image,
        train_seconds: (name == "uaa-gan").then_some(362.4),
        mean_cosine,
        config: json!({ "attack": name, "steps": typical }),
        distances: Histogram {
            from: 0.0,
            to: 1.6,
            counts: (0..40).map(|bin| (bell(bin) * 60.0) as usize).collect(),
        },
        first_match: (0..40).map(|q| (q != 39).then(|| (1 + q * q * (typical - 1) / 600).min(153))).collect(),
        average_precision,
    }
}

fn step(step: usize) -> StepLog {
    let done = (-(step as f64) / 70.0).exp();
    // A fixed pseudo-random wobble, so that smoothing has something to smooth.
    let wobble = ((step * 7919) % 101) as f64 / 101.0 - 0.5;
    StepLog {
        step,
        generator: 1.1 + 2.0 * done + 0.3 * wobble,
        gan: 0.4 + 0.3 * done + 0.2 * wobble,
        reconstruction: 0.02 + 0.01 * (1.0 - done) + 0.002 * wobble,
        change: 0.69 + 0.01 * (1.0 - done) + 0.002 * wobble,
        metric: 0.3 + 1.4 * done + 0.25 * wobble,
        feature: 0.5 + 0.4 * done,
        discriminator: 0.25 - 0.1 * done + 0.06 * wobble,
        d_clean: 0.6 - 0.1 * done,
        d_perturbed: 0.4 + 0.1 * done,
        metric_gradient: 0.8 + 0.1 * wobble,
        reconstruction_gradient: 0.1,
        gan_gradient: 0.05,
        cosine: -0.15 + done + 0.08 * wobble,
        learning_rate: 2e-4,
        seconds: step as f64 * 1.2,
    }
}

fn example(index: u32, (width, height): (u32, u32)) -> Example {
    let identity = format!("s{}", 21 + index);
    let hit = |place: u32, correct: bool, distance: f64| Hit {
        name: format!("s{}/{}.png", 21 + index + if correct { 0 } else { 5 + place }, place + 2),
        identity: format!("s{}", 21 + index + if correct { 0 } else { 5 + place }),
        correct,
        distance: distance + 0.03 * f64::from(place),
        png: png(width, height, index + place),
    };
    Example {
        query: format!("{identity}/1.png"),
        identity: identity.clone(),
        attack: "uaa-gan".into(),
        query_png: png(width, height, index),
        adversarial_png: png(width, height, index + 3),
        perturbation_png: png(width, height, index + 4),
        amplification: 10.0,
        before: (0..5).map(|place| hit(place, place < 4, 0.21)).collect(),
        after: (0..5).map(|place| hit(place, place == 4, 0.55)).collect(),
    }
}

/// For looking at: `cargo test --release -p waylay --lib report_demo -- --ignored` writes
/// `report-demo/` into the folder for temporary files. `REPORT_DEMO_PICTURES` names a folder of
/// folders of images to show.
#[test]
#[cfg(feature = "html")]
#[ignore = "writes files to look at"]
fn report_demo() {
    let mut audit = audit();
    audit.examples = (0..4).map(|index| example(index, (92, 112))).collect();
    if let Some(folder) = std::env::var_os("REPORT_DEMO_PICTURES") {
        for shown in &mut audit.examples {
            let load = |name: &str| {
                let path = std::path::Path::new(&folder).join(name.replace(".png", ".pgm"));
                image::open(path).unwrap().to_rgb8()
            };
            let encode = |picture: RgbImage| {
                let mut bytes = Cursor::new(Vec::new());
                picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
                bytes.into_inner()
            };
            let query = load(&shown.query);
            let change = |x: u32, y: u32| if (x / 3 * 7 + y / 2 * 5) % 11 < 5 { -7i16 } else { 6 };
            let shifted = |base: &dyn Fn(u32, u32) -> u8, factor: i16| {
                let at = |x, y| (i16::from(base(x, y)) + factor * change(x, y)).clamp(0, 255) as u8;
                RgbImage::from_fn(query.width(), query.height(), |x, y| Rgb([at(x, y); 3]))
            };
            shown.adversarial_png = encode(shifted(&|x, y| query.get_pixel(x, y)[0], 1));
            shown.perturbation_png = encode(shifted(&|_, _| 128, 10));
            for hit in shown.before.iter_mut().chain(&mut shown.after) {
                hit.png = encode(load(&hit.name));
            }
            shown.query_png = encode(query);
        }
    }
    let folder = std::env::temp_dir().join("report-demo");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("index.html"), super::to_html(&audit).unwrap()).unwrap();
    std::fs::write(folder.join("report.json"), super::to_json(&audit).unwrap()).unwrap();
    std::fs::write(folder.join("contact.png"), super::contact_sheet(&audit.examples).unwrap()).unwrap();
    audit.quick = true;
    audit.verdict = verdict(&audit.clean, &audit.attacks, audit.worst_case.as_ref(), 8.0, true);
    audit.grade = None;
    audit.training.clear();
    audit.examples = vec![example(0, (28, 28))];
    std::fs::write(folder.join("quick.html"), super::to_html(&audit).unwrap()).unwrap();
}
