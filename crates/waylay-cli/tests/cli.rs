//! The program from outside: what it says and leaves behind when it cannot do what was asked, and
//! the files of runs that succeed.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use predicates::prelude::*;
use predicates::str::{contains, is_empty, starts_with};
use serde_json::Value;
use tempfile::TempDir;
use waylay::dataset;
use waylay::image::Picture;
use waylay::onnx::{Layer, write};

const USAGE: i32 = 2;
const DATA: i32 = 3;
const MODEL: i32 = 4;
const OUTPUT: i32 = 5;
const MISMATCH: i32 = 6;

/// Pixels across and down of made images and of what the made model takes.
const SIDE: usize = 24;

/// A folder with a small model, images of three identities, and room for output.
struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(TempDir::new().unwrap());
        bench.put("model.onnx", &model(1));
        for identity in ["ann", "bob", "cid"] {
            for i in 0..3 {
                bench
                    .put(&format!("data/{identity}/{i}.png"), &image(identity.as_bytes()[0].into(), i, SIDE));
            }
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes `bytes` to the file `name`, and its folders.
    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// `waylay` with the words of `line`, run in the folder.
    fn run(&self, line: &str) -> assert_cmd::assert::Assert {
        Command::new(env!("CARGO_BIN_EXE_waylay"))
            .current_dir(self.0.path())
            .args(line.split_whitespace())
            .assert()
    }

    /// Files and folders anywhere below, sorted.
    fn listing(&self) -> Vec<PathBuf> {
        let mut found = below(self.0.path());
        found.sort();
        found
    }

    /// Runs what must fail with `code` and one sentence that contains `parts`, and leave nothing
    /// behind.
    #[track_caller]
    fn fails(&self, line: &str, code: i32, parts: &[&str]) {
        let before = self.listing();
        let output = self.run(line).code(code).stdout(is_empty()).get_output().clone();
        let text = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let errors = lines.iter().filter(|line| line.starts_with("error: ")).count();
        assert_eq!(errors, 1, "{line}\n{text}");
        let error = lines.last().unwrap();
        // Lines above the error may say what was about to run.
        let known = ["error: ", "target: ", "preprocessing: ", "budget: ", "data: ", "Embed"];
        assert!(lines.iter().all(|line| known.iter().any(|k| line.starts_with(k))), "{line}\n{text}");
        assert!(error.starts_with("error: "), "{line}\n{text}");
        assert!(!text.contains("panicked") && !text.contains("backtrace"), "{line}\n{text}");
        for part in parts {
            assert!(error.contains(part), "{line}: `{part}` is not in\n{error}");
        }
        assert_eq!(self.listing(), before, "{line}: something was left behind");
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap()
    }
}

fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(below(&path));
        }
        found.push(path);
    }
    found
}

/// A gray pattern that differs between identities a lot and between images of one a little.
fn image(identity: usize, number: usize, side: usize) -> Vec<u8> {
    let level =
        |x: usize, y: usize| (x * (identity % 5 + 1) * 9 + y * (identity % 3 + 2) * 5 + number * 11) as u8;
    let bytes = (0..side * side).map(|i| level(i % side, i / side) / 2 + 60).collect();
    Picture { width: side, height: side, channels: 1, bytes }.encode_png().unwrap()
}

/// Two strided convolutions and a linear layer, with weights that depend on `seed`.
fn model(seed: usize) -> Vec<u8> {
    let conv = |shape: [usize; 4], stride, padding| {
        let count: usize = shape.iter().product();
        let scale = (shape[1] * shape[2] * shape[3]) as f32;
        let weight = (0..count).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 1.0);
        let weight = weight.map(|w| w * (3.0 / scale).sqrt()).collect();
        Layer::Conv { shape, weight, bias: vec![0.01; shape[0]], stride, padding }
    };
    let rest = SIDE / 4;
    let layers = [
        conv([6, 1, 3, 3], 2, 1),
        Layer::Relu,
        conv([8, 6, 3, 3], 2, 1),
        Layer::Relu,
        conv([12, 8, rest, rest], 1, 0),
        Layer::Flatten,
    ];
    write([1, SIDE, SIDE], &layers)
}

/// `bytes` with every `from` replaced by `to` of the same length.
fn replaced(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let places: Vec<usize> =
        (0..=bytes.len() - from.len()).filter(|&i| bytes[i..].starts_with(from)).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|i| bytes[i..i + to.len()].copy_from_slice(to));
    bytes
}

const ON_OWN: &str = "--target model.onnx --preprocess none --data data";
/// The smallest generator that trains, for one step.
const TINY: &str = "--set generator.widths=[4] --set generator.blocks=[0] --set training.steps=1 --set training.batch=2 \
                    --set discriminator.width=2";

#[test]
fn a_folder_that_is_missing_or_empty_or_a_file_is_named() {
    let bench = Bench::new();
    fs::create_dir(bench.path("empty")).unwrap();
    let model = "--target model.onnx --preprocess none";
    for (folder, said) in
        [("nowhere", "does not exist"), ("empty", "holds no image"), ("model.onnx", "is a file")]
    {
        for line in [
            format!("audit {model} --data {folder} --out out"),
            format!("audit {model} --query data --gallery {folder} --attacks noise --out out"),
            format!("train {model} --train {folder} --out out"),
            format!("attack {model} --attack noise --images {folder} --out out"),
            format!("embed {model} --images {folder} --out out.npy"),
            format!("evaluate {model} --clean data --gallery {folder}"),
        ] {
            bench.fails(&line, DATA, &[folder, said]);
        }
    }
}

#[test]
fn an_identity_with_one_image_is_named() {
    let bench = Bench::new();
    bench.put("data/dan/only.png", &image(4, 0, SIDE));
    bench.fails(&format!("audit {ON_OWN} --out out"), DATA, &["identity `dan`", "1 image; need at least 2"]);
}

#[test]
fn an_image_that_cannot_be_used_is_named() {
    let good = image(2, 0, SIDE);
    let mut no_pixels = good.clone();
    no_pixels[16..24].fill(0);
    let cases: [(&str, Vec<u8>, &str); 7] = [
        ("x.png", b"this is text".to_vec(), "unknown format"),
        ("x.png", Vec::new(), "0 bytes"),
        ("x.png", no_pixels, "0 x 0 pixels; need at least 16 x 16"),
        ("x.pgm", b"P5\n0 0\n255\n".to_vec(), "0 x 0 pixels; need at least 16 x 16"),
        ("x.pgm", b"P5\n100000 100000\n255\n\0".to_vec(), "100000 x 100000 pixels; need at most"),
        ("x.png", good[..good.len() / 2].to_vec(), "corrupt or truncated"),
        ("x.png", image(2, 0, SIDE + 8), "32 x 32 pixels"),
    ];
    for (file, bytes, said) in cases {
        let bench = Bench::new();
        bench.put(&format!("data/bob/{file}"), &bytes);
        bench.fails(
            &format!("audit {ON_OWN} {TINY} --out out"),
            DATA,
            &[&format!("image `bob/{file}`"), said],
        );
        if !said.starts_with("32 x 32") {
            let model = "--target model.onnx --preprocess none";
            bench.fails(&format!("embed {model} --images data --out out.npy"), DATA, &["bob/x", said]);
            bench.fails(
                &format!("attack {model} --attack noise --images data --out a/b"),
                DATA,
                &["bob/x", said],
            );
        }
    }
}

#[test]
fn a_model_that_cannot_be_used_is_named() {
    let bench = Bench::new();
    let whole = model(1);
    bench.put("cut.onnx", &whole[..whole.len() / 2]);
    bench.put("empty.onnx", b"");
    bench.put("text.onnx", b"this is no network");
    bench.put("zelu.onnx", &replaced(whole, b"Relu", b"Zelu"));
    for (model, said) in [
        ("nowhere.onnx", &["nowhere.onnx", "No such file"][..]),
        ("cut.onnx", &["cut.onnx", "not a complete ONNX file"]),
        ("empty.onnx", &["empty.onnx"]),
        ("text.onnx", &["text.onnx"]),
        ("zelu.onnx", &["node `node_1`", "operator Zelu", "not supported; supported: "]),
    ] {
        let target = format!("--target {model} --preprocess none");
        bench.fails(&format!("audit {target} --data data --out out"), MODEL, said);
        bench.fails(&format!("train {target} --train data --out out"), MODEL, said);
        bench.fails(&format!("embed {target} --images data --out out.npy"), MODEL, said);
    }
    bench.fails("inspect cut.onnx", MODEL, &["cut.onnx", "not a complete ONNX file"]);
    bench.fails(
        "embed --target model.onnx --images data --out o.npy",
        MODEL,
        &["imagenet, clip, arcface", "model.toml"],
    );
    bench.fails("embed --target model.onnx --preprocess vgg --images data --out o.npy", MODEL, &["vgg"]);
}

#[test]
fn a_budget_out_of_range_is_said_with_the_range() {
    let bench = Bench::new();
    for epsilon in ["0", "256", "NaN", "-1", "inf"] {
        let said = &["epsilon ", "need a number above 0 and at most 255"];
        bench.fails(&format!("audit {ON_OWN} --epsilon {epsilon} --out out"), USAGE, said);
        let own = "--target model.onnx --preprocess none";
        bench.fails(
            &format!("attack {own} --attack fgsm --images data --epsilon={epsilon} --out out"),
            USAGE,
            said,
        );
        bench.fails(&format!("train {own} --train data --epsilon={epsilon} --out out"), USAGE, said);
    }
}

#[test]
fn a_setting_that_does_not_exist_or_fit_is_named() {
    let bench = Bench::new();
    bench.put("unknown.toml", b"[training]\nsteps = 3\n\n[loss]\nlamda_r = 1.0\n");
    bench.put("kind.toml", b"[training]\nsteps = \"many\"\n");
    bench.put("syntax.toml", b"[training]\nsteps = = 3\n");
    bench.put("range.toml", b"[training]\nsteps = 0\n");
    for (file, said) in [
        ("unknown.toml", &["unknown.toml", "line 5", "unknown field `lamda_r`"][..]),
        ("kind.toml", &["kind.toml", "line 2", "invalid type: string \"many\""]),
        ("syntax.toml", &["syntax.toml", "line 2"]),
        ("range.toml", &["`training.steps` is 0; need 1 to 1,000,000"]),
        ("nowhere.toml", &["nowhere.toml", "No such file"]),
    ] {
        bench.fails(&format!("audit {ON_OWN} --config {file} --out out"), USAGE, said);
    }
    for (set, said) in [
        ("loss.lamda=1", &["--set loss.lamda=1", "unknown field `lamda`"][..]),
        ("steps=1", &["--set steps=1; need SECTION.KEY=VALUE"]),
        ("training.steps=many", &["--set training.steps=many", "invalid type"]),
        ("loss.margin=nan", &["`loss.margin` is NaN"]),
    ] {
        bench.fails(&format!("audit {ON_OWN} --set {set} --out out"), USAGE, said);
    }
}

#[test]
fn an_output_folder_that_cannot_be_used_is_named() {
    let bench = Bench::new();
    bench.put("file", b"x");
    bench.put("done/report.json", b"{}");
    bench.put("trained/generator.safetensors", b"old");
    bench.fails(
        &format!("audit {ON_OWN} --out file/below"),
        OUTPUT,
        &["output folder `file/below`: not writable"],
    );
    bench.fails(&format!("audit {ON_OWN} --out file"), OUTPUT, &["output folder `file`: is not a folder"]);
    bench.fails(
        &format!("audit {ON_OWN} --out done"),
        OUTPUT,
        &["output folder `done`: already holds a report; need an empty folder (--force overwrites it)"],
    );
    let own = "--target model.onnx --preprocess none";
    bench.fails(&format!("train {own} --train data --out file/below"), OUTPUT, &["not writable"]);
    bench.fails(
        &format!("attack {own} --attack noise --images data --out file/below"),
        OUTPUT,
        &["not writable"],
    );
    bench.fails(
        &format!("embed {own} --images data --out nowhere/e.npy"),
        OUTPUT,
        &["nowhere/e.npy", "written"],
    );
    bench.fails(&format!("train {own} --train data --out trained"), USAGE, &["trained", "--force"]);
    assert_eq!(fs::read(bench.path("trained/generator.safetensors")).unwrap(), b"old");
}

#[test]
fn what_does_not_go_together_is_said() {
    let bench = Bench::new();
    let own = "--target model.onnx --preprocess none";
    bench.fails(&format!("audit {own} --out out"), USAGE, &["--target needs images", "--data DIR"]);
    bench.fails(&format!("train {own} --out out"), USAGE, &["--target needs images", "--train DIR"]);
    bench.fails(
        &format!("audit {ON_OWN} --attacks noise,deepfool --out out"),
        USAGE,
        &["attack `deepfool`", "`noise`"],
    );
    bench.fails(
        &format!("audit {ON_OWN} --attacks pgd-0 --out out"),
        USAGE,
        &["attack `pgd-0`", "1 to 10,000"],
    );
    bench.fails(
        &format!("audit {ON_OWN} --attacks pgd,pgd@12 --out out"),
        USAGE,
        &["attack `pgd@12` has a budget of 12/255, above that of the audit, 8/255; raise --epsilon"],
    );
    bench.fails(
        &format!("attack {own} --attack pgd@4 --images data --out out"),
        USAGE,
        &["--attack pgd@4: the budget of a single attack is --epsilon; need --epsilon 4"],
    );
    bench.fails(&format!("attack {own} --attack cw --images data --out out"), USAGE, &["attack `cw`"]);
    bench.fails(
        &format!("attack {own} --images data --out out"),
        USAGE,
        &["need --attack NAME or --generator FILE"],
    );
    bench.fails(
        &format!("attack {own} --attack uaa-gan --images data --out out"),
        USAGE,
        &["--generator FILE"],
    );
    bench.fails(&format!("audit {ON_OWN} --metric manhattan --out out"), USAGE, &["metric `manhattan`"]);
    bench.fails(
        &format!("audit {own} --query data --gallery data --out out"),
        DATA,
        &["is both query and gallery"],
    );
    bench.fails(&format!("--threads 0 audit {ON_OWN} --out out"), USAGE, &["--threads 0; need 1 to 1,024"]);
}

#[test]
fn what_clap_refuses_ends_with_the_same_code() {
    let bench = Bench::new();
    for line in ["", "audti", "audit --nonsense", "attack --images data", "audit --data data --query data"] {
        bench.run(line).code(USAGE).stdout(is_empty());
    }
    bench.run("--help").success().stdout(contains("Exit codes:").and(contains("audit")));
    bench.run("--version").success().stdout(starts_with("waylay "));
}

#[test]
fn errors_of_the_library_come_with_the_flag_that_helps() {
    let bench = Bench::new();
    for (identity, side) in [("ann", SIDE), ("bob", SIDE + 2)] {
        for i in 0..3 {
            bench.put(&format!("mixed/{identity}/{i}.png"), &image(i, i, side));
        }
    }
    let mixed = ON_OWN.replace("--data data", "--data mixed");
    bench.fails(
        &format!("audit {mixed} --attacks noise --out out"),
        DATA,
        &["need one size (--resize resizes all to the network's input)"],
    );
    if cfg!(not(feature = "cuda")) {
        bench.fails(
            &format!("audit {ON_OWN} --device cuda --attacks noise --out out"),
            USAGE,
            &[
                "--device cuda: this program was built without cuda",
                "(cargo build --release --features cuda)",
            ],
        );
    }
}

#[test]
fn a_size_that_a_file_does_not_take_is_refused() {
    let bench = Bench::new();
    let error = format!("--size 5x5; the file takes {SIDE} x {SIDE} pixels only");
    bench.fails("inspect model.onnx --size 5x5", USAGE, &[&error]);
    bench.run(&format!("inspect model.onnx --size {SIDE}")).success();
}

#[test]
fn a_generator_can_be_trained_towards_another_objective() {
    let bench = Bench::new();
    let train = "train --target model.onnx --preprocess none --train data";
    bench.fails(
        &format!("{train} {TINY} --objective friend --out g"),
        USAGE,
        &["objective `friend`; need evade or opposite"],
    );
    bench.run(&format!("{train} {TINY} --objective opposite --set loss.hinge=pgd --out g")).success();
    let attacks = "--attacks uaa-gan,pgd-2+opposite,fgsm+opposite --generator g/generator.safetensors";
    bench.run(&format!("audit {ON_OWN} {attacks} --out out")).success();
    let report = bench.json("out/report.json");
    let names: Vec<&str> =
        report["attacks"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["none", "uaa-gan+opposite", "pgd-2+opposite", "fgsm+opposite"]);
    assert_eq!(report["attacks"][1]["config"]["objective"], "opposite");
    assert!(bench.path("out/adversarial/uaa-gan+opposite").is_dir());
    assert!(report["grade"].is_string() && report["strongest"].is_string());
}

#[test]
fn a_generator_is_used_on_its_own_target_only_unless_transferred() {
    let bench = Bench::new();
    bench.put("other.onnx", &model(2));
    bench
        .run(&format!("train --target model.onnx --preprocess none --train data {TINY} --epsilon 4 --out g"))
        .success();
    for file in ["generator.safetensors", "generator.toml", "training.jsonl"] {
        assert!(bench.path("g").join(file).is_file(), "{file}");
    }
    let line = |target: &str, more: &str| {
        format!(
            "attack --target {target} --preprocess none --generator g/generator.safetensors --images data {more}"
        )
    };
    bench.run(&line("model.onnx", "--out own")).success().stdout(contains("UAA-GAN, image only: 9 images"));
    bench.fails(
        &line("other.onnx", "--out out"),
        MODEL,
        &["was trained for target `model.onnx`", "--transfer"],
    );
    bench.run(&line("other.onnx", "--out moved --transfer")).success();
    bench.fails(
        &line("model.onnx", "--attack pgd --out out"),
        USAGE,
        &["--generator is for uaa-gan and guided-gan, not for pgd"],
    );
    bench.put("g/cut.safetensors", &fs::read(bench.path("g/generator.safetensors")).unwrap()[..400]);
    let cut = line("model.onnx", "--out out").replace("g/generator", "g/cut");
    bench.fails(&cut, MODEL, &["generator `g/cut.safetensors`"]);
    let missing = line("model.onnx", "--out out").replace("g/generator", "g/missing");
    bench.fails(&missing, MODEL, &["generator `g/missing.safetensors`", "No such file"]);
    let audit = format!("audit {ON_OWN} --generator g/generator.safetensors --attacks uaa-gan --out out");
    bench.fails(&audit, USAGE, &["trained for epsilon 4, not 8"]);
    bench.run(&format!("{audit} --epsilon 4")).success();
    let report = bench.json("out/report.json");
    assert_eq!(report["training"], serde_json::json!([]));
    let row = &report["attacks"][1];
    assert_eq!((&row["trained_against"], &row["access"]), (&"target".into(), &"image".into()));
    assert!(row["train_seconds"].as_f64().is_some(), "from training.jsonl beside the generator");
    let moved = audit.replace("--target model.onnx", "--target other.onnx").replace("out out", "out moved2");
    bench.run(&format!("{moved} --epsilon 4 --transfer")).success();
    let row = &bench.json("moved2/report.json")["attacks"][1];
    assert_eq!(row["trained_against"], "another-network");
}

#[test]
fn uaa_gan_and_guided_gan_are_two_attacks_and_say_what_they_take() {
    let bench = Bench::new();
    let guided = "--set generator.refinement_steps=3";
    let line =
        format!("audit {ON_OWN} {TINY} {guided} --attacks pgd-3-opposite,uaa-gan,guided-gan --out out");
    bench.run(&line).success();
    let report = bench.json("out/report.json");
    let told: Vec<_> = report["attacks"].as_array().unwrap().iter().skip(1).collect();
    let of = |key: &str| told.iter().map(|row| row[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("name"), ["pgd-3-opposite", "uaa-gan", "guided-gan"]);
    assert_eq!(of("access"), ["gradients", "image", "gradients"]);
    assert_eq!(of("target_forwards"), [3, 0, 3]);
    assert_eq!(of("target_gradients"), [3, 0, 3]);
    assert_eq!(told[2]["label"], "Guided GAN, 3 gradients");
    let trained: Vec<_> =
        report["training"].as_array().unwrap().iter().map(|t| t["attack"].clone()).collect();
    assert_eq!(trained, ["uaa-gan", "guided-gan"]);
    for file in ["generator.safetensors", "guided-generator.safetensors", "guided-training.jsonl"] {
        assert!(bench.path("out").join(file).is_file(), "{file}");
    }
    let given = "--generator out/generator.safetensors --generator out/guided-generator.safetensors";
    bench.run(&format!("audit {ON_OWN} {given} --attacks guided-gan,uaa-gan --out given")).success();
    let again = bench.json("given/report.json");
    assert_eq!(again["attacks"][1]["map"], told[2]["map"]);
    assert_eq!(again["attacks"][2]["map"], told[1]["map"]);
    let wrong = [
        (
            "--attacks pgd",
            "--generator out/generator.safetensors is of uaa-gan; need uaa-gan among --attacks",
        ),
        ("--attacks uaa-gan --generator out/generator.safetensors", "need one --generator of each attack"),
    ];
    for (more, said) in wrong {
        let line = format!("audit {ON_OWN} --generator out/generator.safetensors {more} --out no");
        bench.fails(&line, USAGE, &[said]);
    }
}

#[test]
fn guidance_is_for_guided_gan_and_needs_a_target_that_offers_it() {
    let bench = Bench::new();
    let train = "train --target model.onnx --preprocess none --train data --out g";
    for (line, said) in [
        (format!("{train} --set generator.guidance=gradients"), "`generator.guidance` belongs to guided-gan"),
        (format!("{train} --config paper --set generator.refinement_steps=2"), "belongs to guided-gan"),
        (format!("{train} --config paper --attack guided-gan"), "--config paper is the paper's generator"),
        (format!("{train} --attack pgd"), "--attack pgd has nothing to train; need uaa-gan or guided-gan"),
    ] {
        bench.fails(&line, USAGE, &[said]);
    }
    // One linear layer over all pixels: no feature map.
    let flat = Layer::Conv {
        shape: [4, 1, SIDE, SIDE],
        weight: (0..4 * SIDE * SIDE).map(|i| ((i * 7919) % 101) as f32 / 101.0 - 0.5).collect(),
        bias: vec![0.0; 4],
        stride: 1,
        padding: 0,
    };
    bench.put("flat.onnx", &write([1, SIDE, SIDE], &[flat, Layer::Flatten]));
    let line = format!("{train} {TINY} --attack guided-gan --set generator.guidance=feature-maps");
    let said = ["target `flat.onnx` has no feature maps to guide the generator by"];
    let run = bench.run(&line.replace("model.onnx", "flat.onnx")).failure();
    let text = String::from_utf8(run.get_output().stderr.clone()).unwrap();
    assert!(text.contains(said[0]), "{text}");
}

#[test]
fn a_generator_of_an_earlier_version_is_refused_with_what_to_do() {
    let bench = Bench::new();
    let facts = std::collections::HashMap::from([("waylay.generator/1".to_owned(), "{}".to_owned())]);
    let none = Vec::<(String, safetensors::tensor::TensorView<'_>)>::new();
    bench.put("old.safetensors", &safetensors::serialize(none, Some(facts)).unwrap());
    bench.fails(
        "attack --target model.onnx --preprocess none --generator old.safetensors --images data --out out",
        MODEL,
        &["generator `old.safetensors`: written by an earlier version; train it again with `waylay train`"],
    );
}

#[test]
fn every_configuration_is_printed_as_the_program_reads_it() {
    let bench = Bench::new();
    for name in ["paper", "default", "sample", "guided-gan"] {
        let printed = bench.run(&format!("config {name}")).success().get_output().stdout.clone();
        bench.put("printed.toml", &printed);
        let attack = if name == "guided-gan" { "guided-gan" } else { "uaa-gan" };
        let line = "train --target model.onnx --preprocess none --train data --force --out g";
        bench.run(&format!("{line} --attack {attack} --config printed.toml {TINY}")).success();
    }
    let paper = String::from_utf8(bench.run("config paper").success().get_output().stdout.clone()).unwrap();
    assert!(paper.contains("lambda_gan = 1.0") && paper.contains("optimiser = \"adam\""), "{paper}");
    assert!(paper.starts_with("# UAA-GAN in the form of its paper"), "{paper}");
    let json = bench.run("--json config paper").success().get_output().stdout.clone();
    assert_eq!(serde_json::from_slice::<Value>(&json).unwrap()["loss"]["lambda_gan"], 1.0);
}

#[test]
fn shells_and_man_are_told_of_every_command() {
    let bench = Bench::new();
    let script = bench.run("completions bash").success().get_output().stdout.clone();
    assert!(String::from_utf8(script).unwrap().contains("waylay__subcmd__audit"));
    bench.run("man --out pages/man1").success();
    let page = std::fs::read_to_string(bench.path("pages/man1/waylay-audit.1")).unwrap();
    assert!(page.contains("epsilon") && bench.path("pages/man1/waylay.1").exists());
}

#[test]
fn attacked_images_keep_their_names_and_the_budget() {
    let bench = Bench::new();
    let own = "--target model.onnx --preprocess none";
    let done =
        bench.run(&format!("--json attack {own} --attack pgd --epsilon 3 --images data --out out")).success();
    let summary: Value = serde_json::from_slice(&done.get_output().stdout).unwrap();
    assert_eq!((summary["attack"].as_str(), summary["images"].as_u64()), (Some("pgd"), Some(9)));
    for identity in ["ann", "bob", "cid"] {
        for i in 0..3 {
            let name = format!("{identity}/{i}.png");
            let clean = Picture::read(&bench.path("data").join(&name)).unwrap();
            let attacked = Picture::read(&bench.path("out").join(&name)).unwrap();
            let changes = clean.bytes.iter().zip(&attacked.bytes).map(|(a, b)| a.abs_diff(*b));
            assert_eq!(changes.max(), Some(3), "{name}");
        }
    }
    assert_eq!(below(&bench.path("out")).iter().filter(|p| p.is_file()).count(), 9);
    let line = format!("--json evaluate {own} --clean data --attacked out --gallery data");
    let found: Value = serde_json::from_slice(&bench.run(&line).success().get_output().stdout).unwrap();
    assert!(found["attacked"]["linf_255"].as_f64().unwrap() <= 3.0 + 1e-3, "{found}");
    assert_eq!(found["clean"]["rank1"], 1.0, "every query lies in this gallery");
    assert_fractions(&found["clean"]);
    assert_fractions(&found["attacked"]);
    fs::remove_file(bench.path("out/bob/1.png")).unwrap();
    bench.fails(&line, USAGE, &["no attacked image for query `bob/1.png`"]);
}

#[test]
fn embeddings_are_an_array_with_one_row_per_image() {
    let bench = Bench::new();
    bench.run("embed --target model.onnx --preprocess none --images data --out e.npy").success();
    let bytes = fs::read(bench.path("e.npy")).unwrap();
    let array = npyz::NpyFile::new(&bytes[..]).unwrap();
    assert_eq!(array.shape(), [9, 12]);
    let values: Vec<f32> = array.into_vec().unwrap();
    assert!(values.iter().all(|v| v.is_finite()) && values[..12] != values[96..]);
    let names = fs::read_to_string(bench.path("e.txt")).unwrap();
    assert_eq!((names.lines().next(), names.lines().count()), (Some("ann/0.png"), 9));
}

/// Scores lie in [0, 1].
fn assert_fractions(scores: &Value) {
    for key in ["rank1", "rank5", "rank10", "map", "minp"] {
        let value = scores[key].as_f64().unwrap_or_else(|| panic!("no {key} in {scores}"));
        assert!((0.0..=1.0).contains(&value), "{key} is {value}");
    }
    let recall = scores["recall_at"].as_object().unwrap();
    assert!(recall.values().all(|v| (0.0..=1.0).contains(&v.as_f64().unwrap())), "{recall:?}");
}

/// A finished audit in the folder `out`: its files, its layout, its numbers and its images.
fn assert_audit(bench: &Bench, attacks: &[&str], queries: usize, epsilon: f64) -> Value {
    for file in ["index.html", "contact-sheet.png", "attacks.csv", "report.json"] {
        assert!(fs::metadata(bench.path("out").join(file)).unwrap().len() > 100, "{file}");
    }
    let report = bench.json("out/report.json");
    assert_eq!(report["schema"], "waylay.audit/2");
    assert_eq!(report["budget"]["epsilon_255"], epsilon);
    assert_fractions(&report["clean"]);
    let rows = report["attacks"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, attacks);
    for row in rows {
        assert_fractions(row);
        assert_eq!(row["queries"], queries);
        assert!(row["linf_255"].as_f64().unwrap() <= epsilon + 1e-3, "{row}");
        assert!((-1.001..=1.001).contains(&row["mean_cosine"].as_f64().unwrap()), "{row}");
        assert!(row["ssim"].as_f64().unwrap() <= 1.0 + 1e-9, "{row}");
        assert_eq!(row["first_match"].as_array().unwrap().len(), queries);
        let folder = bench.path("out/adversarial").join(row["name"].as_str().unwrap());
        let images: Vec<_> = below(&folder).into_iter().filter(|p| p.is_file()).collect();
        assert_eq!(images.len(), queries, "{}", folder.display());
        images.iter().for_each(|image| assert!(Picture::read(image).is_ok(), "{}", image.display()));
    }
    assert_eq!(rows[0]["linf_255"], 0.0);
    for key in ["rank1", "map", "minp"] {
        assert_eq!(rows[0][key], report["clean"][key]);
    }
    let left: Vec<_> =
        bench.listing().into_iter().filter(|p| p.to_string_lossy().contains(".waylay-")).collect();
    assert!(left.is_empty(), "{left:?}");
    report
}

#[test]
fn an_audit_of_own_images_writes_a_report_that_adds_up() {
    let bench = Bench::new();
    let line = format!("audit {ON_OWN} {TINY} --attacks noise,fgsm,pgd,uaa-gan --epsilon 6 --out out");
    bench.run(&line).success().stdout(contains("report: out/index.html"));
    let report = assert_audit(&bench, &["none", "noise", "fgsm", "pgd", "uaa-gan"], 4, 6.0);
    assert_eq!(report["training"][0]["log"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&report["data"]["train"]["images"], &report["data"]["gallery"]["images"]),
        (&3.into(), &5.into())
    );
    bench.run(&line).code(OUTPUT).stderr(contains("already holds a report"));
    bench.run(&format!("{line} --force")).success();
    let again = bench.json("out/report.json");
    for key in ["clean", "verdict", "data"] {
        assert_eq!(again[key], report[key], "the same seed gives the same {key}");
    }
    for (a, b) in again["attacks"].as_array().unwrap().iter().zip(report["attacks"].as_array().unwrap()) {
        for key in ["map", "l2", "mean_cosine", "distances"] {
            assert_eq!(a[key], b[key], "{}: the same seed gives the same {key}", a["name"]);
        }
    }
    assert_eq!(
        again["run"]["files"]["generator.safetensors"],
        report["run"]["files"]["generator.safetensors"]
    );
}

#[test]
fn json_on_standard_output_is_the_report() {
    let bench = Bench::new();
    let line = format!("--json audit {ON_OWN} --attacks noise --out out");
    let found: Value = serde_json::from_slice(&bench.run(&line).success().get_output().stdout).unwrap();
    assert_eq!(found["attacks"], bench.json("out/report.json")["attacks"]);
}

#[test]
fn a_quick_audit_of_the_embedded_sample_writes_a_report_that_adds_up() {
    let bench = Bench::new();
    bench.run("audit --quick --out out").success().stdout(contains("report: out/index.html"));
    let report = assert_audit(&bench, &["none", "noise", "fgsm", "pgd", "pgd-40", "uaa-gan"], 40, 8.0);
    assert_eq!((&report["quick"], &report["target"]["name"]), (&true.into(), &"sample".into()));
    for file in ["generator.safetensors", "generator.toml", "training.jsonl"] {
        assert!(bench.path("out").join(file).is_file(), "{file}");
    }
    let map = |row: usize| report["attacks"][row]["map"].as_f64().unwrap();
    assert!(map(3) < map(1) && map(4) < map(1), "gradients must do more than noise");
}

#[test]
fn the_embedded_samples_model_and_images_work_as_files() {
    let bench = Bench::new();
    let sample = dataset::sample().unwrap();
    for item in sample.query.iter().step_by(5).chain(sample.gallery.iter().step_by(20)) {
        bench.put(&format!("{}.png", item.name), &item.read().unwrap().encode_png().unwrap());
    }
    let done = bench.run("--json evaluate --clean query --gallery gallery").success();
    let found: Value = serde_json::from_slice(&done.get_output().stdout).unwrap();
    assert_eq!((&found["clean"]["queries"], &found["clean"]["without_match"]), (&20.into(), &0.into()));
    assert_fractions(&found["clean"]);
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../waylay/assets/sample/target.onnx");
    let line = format!("--json inspect {}", model.display());
    let found: Value = serde_json::from_slice(&bench.run(&line).success().get_output().stdout).unwrap();
    assert!(found["problem"].is_null() && found["parameters"].as_u64().unwrap() > 1000, "{found}");
    assert_eq!(found["input"]["shape"].as_array().unwrap()[1..], [1, 112, 112].map(Value::from));
}

/// Puts one of the library's goldens (input 32 x 32, output of 10) beside the images, under another
/// name.
fn put_golden(bench: &Bench, golden: &str, name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../waylay-onnx/tests/golden/onnx");
    bench.put(name, &fs::read(folder.join(golden)).unwrap());
}

#[test]
fn a_model_is_verified_against_arrays_from_elsewhere() {
    let bench = Bench::new();
    put_golden(&bench, "resnet.legacy11.onnx", "resnet.onnx");
    put_golden(&bench, "resnet.npz", "right.npz");
    put_golden(&bench, "mobilenet.npz", "wrong.npz");
    put_golden(&bench, "mixture.npz", "other.npz");
    let done = bench.run("--json inspect resnet.onnx --verify right.npz").success();
    let found: Value = serde_json::from_slice(&done.get_output().stdout).unwrap();
    assert_eq!(found["pass"], true);
    for part in ["values", "gradient"] {
        let error = found["verification"][part]["max_rel"].as_f64().unwrap();
        assert!(error > 0.0 && error < 1e-4, "{part}: {error}");
    }
    bench.run("inspect resnet.onnx --verify right.npz --tolerance 1e-9").code(MISMATCH);
    let wrong = bench.run("inspect resnet.onnx --verify wrong.npz").code(MISMATCH);
    wrong
        .stderr(contains("`resnet.onnx` does not agree with `wrong.npz`"))
        .stdout(contains("does not explain it"));
    bench.fails(
        "inspect resnet.onnx --verify other.npz",
        MODEL,
        &["other.npz", "[2, 3, 19, 19]", "[N, [3, 32, 32]]"],
    );
}

#[test]
fn an_audit_refuses_a_model_that_differs_from_the_reference_beside_it() {
    let bench = Bench::new();
    put_golden(&bench, "resnet.legacy11.onnx", "resnet.onnx");
    put_golden(&bench, "mobilenet.npz", "resnet.npz");
    let line = "audit --target resnet.onnx --preprocess zero-to-one --data data --attacks fgsm --out out";
    bench.fails(line, MISMATCH, &["resnet.onnx", "resnet.npz", "differs from its reference", "--output"]);
    put_golden(&bench, "resnet.npz", "resnet.npz");
    bench.run(line).success().stderr(contains("agrees with the arrays beside the model"));
    let verified = bench.json("out/report.json")["target"]["verified"].clone();
    assert!(verified["values"]["max_rel"].as_f64().unwrap() < 1e-4, "{verified}");
}

#[test]
fn a_map_becomes_an_embedding_by_pooling() {
    let bench = Bench::new();
    put_golden(&bench, "resnet.legacy11.onnx", "resnet.onnx");
    let found: Value =
        serde_json::from_slice(&bench.run("--json inspect resnet.onnx").success().get_output().stdout)
            .unwrap();
    let maps = found["candidates"].as_array().unwrap();
    let map = maps.iter().find(|c| c["shape"].as_array().unwrap().len() == 3).unwrap();
    let (name, channels) = (map["name"].as_str().unwrap(), map["shape"][0].as_u64().unwrap());
    let line = format!("embed --target resnet.onnx --preprocess zero-to-one --images data --output {name}");
    for pool in ["avg", "max", "gem --gem-p 2.5"] {
        bench.run(&format!("{line} --pool {pool} --out {}.npy", &pool[..3])).success();
        let bytes = fs::read(bench.path(&format!("{}.npy", &pool[..3]))).unwrap();
        let array = npyz::NpyFile::new(&bytes[..]).unwrap();
        assert_eq!(array.shape(), [9, channels]);
    }
    // GeM lies between the mean and the maximum.
    let values = |name: &str| {
        let bytes = fs::read(bench.path(name)).unwrap();
        npyz::NpyFile::new(&bytes[..]).unwrap().into_vec::<f32>().unwrap()
    };
    let (mean, gem, most) = (values("avg.npy"), values("gem.npy"), values("max.npy"));
    assert!(mean.iter().zip(&gem).zip(&most).all(|((a, g), m)| *a <= g + 1e-5 && *g <= m + 1e-5));
    bench.fails(&format!("{line} --pool sum --out x.npy"), USAGE, &["--pool sum", "gem, avg or max"]);
    bench.fails(&format!("{line} --pool gem --gem-p 0 --out x.npy"), USAGE, &["--gem-p 0", "0.1 to 100"]);
    bench.fails(&format!("{line} --pool avg --gem-p 2 --out x.npy"), USAGE, &["--gem-p", "--pool gem"]);
}
