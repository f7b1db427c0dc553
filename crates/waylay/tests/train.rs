//! Training UAA-GAN on a small target: what it reaches, what it logs, that it repeats, and what its
//! file remembers.

#![allow(clippy::unwrap_used)]

mod small_target;

use std::path::Path;

use waylay::attack::uaa_gan::{
    CheckedConfig, DiscriminatorKind, Generator, GeneratorConfig, GeneratorFile, Guidance, Hinge, Mining,
    OptimiserKind, Reference, StepLog, TrainError, Trained, UaaGanConfig, train,
};
use waylay::attack::{AttackError, Epsilon, Evade, Objective, Opposite, Pgd, Scene, craft};
use waylay::device::Device;
use waylay::embedder::Embedder;
use waylay::embedder::OnnxEmbedder;
use waylay::embedding::Metric;
use waylay::image::AugmentConfig;
use waylay::image::ImageBatch;
use waylay::progress::Silent;
use waylay::quality::measure;
use waylay::seed::Seed;

use small_target::{images, target};

const INPUT: [usize; 3] = [1, 32, 32];
const STEPS: usize = 30;
const KINDS: [Guidance; 3] = [Guidance::Gradients, Guidance::FeatureMaps, Guidance::None];

/// As small as it goes and still learns.
fn config() -> UaaGanConfig {
    let mut config = UaaGanConfig::default();
    config.generator = GeneratorConfig { widths: vec![12, 8], blocks: vec![1, 1], ..config.generator };
    config.discriminator.width = 4;
    config.training.steps = STEPS;
    config.training.batch = 6;
    config.augment = AugmentConfig { shift: 2, ..config.augment };
    config
}

fn scene(target: &OnnxEmbedder, seed: u64) -> Scene<'_> {
    let epsilon = Epsilon::from_255(8.0).unwrap();
    Scene { target, metric: Metric::Cosine, epsilon, seed: Seed(seed), device: Device::flex() }
}

fn checked(config: &UaaGanConfig) -> CheckedConfig {
    config.clone().check().unwrap()
}

fn trained(config: &UaaGanConfig, scene: &Scene<'_>) -> Trained {
    train(&checked(config), &Evade, &images(24, scene.target.input()), scene, &Silent).unwrap()
}

/// A few steps with `change` made to the small configuration.
fn short(change: impl FnOnce(&mut UaaGanConfig)) -> UaaGanConfig {
    let mut config = config();
    config.training.steps = 3;
    change(&mut config);
    config
}

fn file(config: &UaaGanConfig, scene: &Scene<'_>) -> GeneratorFile {
    GeneratorFile {
        target: scene.target.fingerprint().into(),
        target_name: scene.target.name().into(),
        input: scene.target.input(),
        epsilon_255: scene.epsilon,
        metric: scene.metric,
        seed: scene.seed.0,
        objective: Evade.name().into(),
        config: config.clone(),
    }
}

fn mean_cosine(log: &[StepLog]) -> f64 {
    log.iter().map(|entry| entry.cosine).sum::<f64>() / log.len() as f64
}

fn assert_complete(log: &[StepLog], steps: usize, what: &str) {
    assert_eq!(
        log.iter().map(|entry| entry.step).collect::<Vec<_>>(),
        (1..=steps).collect::<Vec<_>>(),
        "{what}"
    );
    for entry in log {
        let losses = [entry.generator, entry.gan, entry.reconstruction, entry.metric, entry.discriminator];
        assert!(losses.iter().all(|loss| loss.is_finite() && *loss >= 0.0), "{what}: {entry:?}");
        assert!((-1.001..=1.001).contains(&entry.cosine), "{what}: {entry:?}");
        assert!(entry.learning_rate > 0.0 && entry.seconds >= 0.0, "{what}: {entry:?}");
    }
    assert!(log.is_sorted_by(|a, b| a.seconds <= b.seconds), "{what}");
}

fn perturbed(generator: &Generator, target: &OnnxEmbedder) -> Vec<f32> {
    let device = Device::flex();
    let x = images(3, target.input()).to_tensor(&device);
    let perturbed = generator.perturb(x, &scene(target, 0)).unwrap();
    perturbed.into_data().iter::<f32>().collect()
}

#[test]
fn training_lowers_the_cosine_and_logs_every_step() {
    for kind in KINDS {
        let target = target(INPUT, 1);
        let mut config = config();
        config.generator.guidance = kind;
        if kind != Guidance::None {
            config.loss = UaaGanConfig::from_toml(UaaGanConfig::GUIDED).unwrap().loss;
        }
        // So few steps and so small a target have no strength to spare.
        config.loss.lambda_r = 0.2;
        let trained = trained(&config, &scene(&target, 1));
        assert_complete(&trained.log, STEPS, &format!("{kind:?}"));
        let (begin, end) = (mean_cosine(&trained.log[..5]), mean_cosine(&trained.log[STEPS - 5..]));
        assert!(1.0 - end > 2.0 * (1.0 - begin), "{kind:?}: cosine {begin} at first, {end} at last");
        assert!(trained.seconds >= trained.log[STEPS - 1].seconds);
    }
}

#[test]
fn a_generator_follows_the_objective_that_it_is_trained_towards() {
    let target = target(INPUT, 1);
    let scene = scene(&target, 1);
    let mut config = config();
    (config.loss.lambda_r, config.loss.lambda_f) = (0.0, 0.0);
    let images = images(24, INPUT);
    let embed = |images: &ImageBatch| target.embedding(images.to_tensor(&Device::flex())).unwrap();
    let value = |generator: &Generator, objective: &dyn Objective| {
        let perturbed = generator.perturb(images.to_tensor(&Device::flex()), &scene).unwrap();
        let embedding = target.embedding(perturbed).unwrap();
        let value = objective.value(embed(&images), embedding, Metric::Cosine).mean();
        value.into_data().iter::<f64>().next().unwrap()
    };
    let trained =
        |objective: &dyn Objective| train(&checked(&config), objective, &images, &scene, &Silent).unwrap();
    let (evade, opposite) = (trained(&Evade), trained(&Opposite));
    assert_eq!((evade.objective.as_str(), opposite.objective.as_str()), ("evade", "opposite"));
    let of = |trained: &Trained| value(&trained.generator, &Opposite);
    assert!(of(&opposite) > of(&evade), "{} is no more than {}", of(&opposite), of(&evade));
}

#[test]
fn changes_can_be_held_to_the_length_of_pgds() {
    let target = target(INPUT, 1);
    let scene = scene(&target, 1);
    let images = images(24, INPUT);
    let config = short(|c| c.loss.hinge = Hinge::Like(Reference::Pgd));
    let trained = train(&checked(&config), &Evade, &images, &scene, &Silent).unwrap();
    let crafted = craft(&Pgd::default(), &images, &scene, &Silent).unwrap().images;
    let largest = f64::from(scene.epsilon.in_pixels()) * (INPUT.iter().product::<usize>() as f64).sqrt();
    let pgd = measure(&images, &crafted).unwrap().l2 / largest;
    assert!((0.3..1.0).contains(&pgd), "{pgd}");
    assert!((trained.hinge - 0.985 * pgd).abs() < 1e-6, "{} for {pgd}", trained.hinge);
}

#[test]
fn an_objective_that_cannot_name_a_folder_is_refused() {
    let target = target(INPUT, 1);
    let scene = scene(&target, 1);
    let config = short(|_| {});
    let generator = trained(&config, &scene).generator;
    for name in ["", "..", "a/b", "../../out", "A", "x y"] {
        let facts = GeneratorFile { objective: name.into(), ..file(&config, &scene) };
        let bytes = facts.encode(&generator).unwrap();
        let error = GeneratorFile::read(Path::new("g.safetensors"), &bytes).unwrap_err().to_string();
        assert!(error.contains(&format!("objective {name:?}; need 1 to 32")), "{error}");
    }
}

#[test]
fn the_logged_total_is_the_weighted_sum_of_its_terms() {
    let target = target(INPUT, 1);
    let config = short(|c| {
        c.loss.lambda_gan = 0.5;
        c.loss.lambda_r = 0.25;
        c.loss.ramp_r = 0.0;
        c.loss.lambda_f = 2.0;
        c.loss.ramp_m = 0.0;
        c.loss.lambda_m = 3.0;
    });
    for entry in trained(&config, &scene(&target, 1)).log {
        let attacking = 3.0 * entry.metric + 2.0 * entry.feature;
        let sum = 0.5 * entry.gan + 0.25 * entry.reconstruction + attacking;
        assert!((entry.generator - sum).abs() <= 1e-5 * sum, "{entry:?}");
    }
}

#[test]
fn a_seed_decides_every_byte_of_the_generator() {
    let target = target(INPUT, 1);
    for kind in KINDS {
        let config = short(|c| c.generator.guidance = kind);
        let bytes = |seed| {
            let scene = scene(&target, seed);
            let trained = trained(&config, &scene);
            let facts = file(&config, &self::scene(&target, 0));
            let bytes = facts.encode(&trained.generator).unwrap();
            assert_eq!(bytes, facts.encode(&trained.generator).unwrap(), "encoding repeats");
            bytes
        };
        let first = bytes(1);
        assert!(first == bytes(1), "{kind:?}: the same seed");
        assert!(first != bytes(2), "{kind:?}: another seed");
    }
}

#[test]
fn a_generator_read_back_perturbs_alike_and_remembers_what_it_is_for() {
    let target = target(INPUT, 1);
    for kind in KINDS {
        let config = short(|c| c.generator.guidance = kind);
        let scene = scene(&target, 1);
        let generator = trained(&config, &scene).generator;
        let facts = file(&config, &scene);
        let bytes = facts.encode(&generator).unwrap();
        let path = Path::new("g.safetensors");
        assert_eq!(GeneratorFile::read(path, &bytes).unwrap(), facts);
        let (read, again) = GeneratorFile::decode(path, bytes, &target, false, &Device::flex()).unwrap();
        assert_eq!(read, facts);
        assert_eq!(perturbed(&again, &target), perturbed(&generator, &target), "{kind:?}");
    }
}

#[test]
fn a_generator_for_another_target_is_refused_unless_transferred() {
    let own = target(INPUT, 1);
    let config = short(|_| {});
    let scene = scene(&own, 1);
    let bytes = file(&config, &scene).encode(&trained(&config, &scene).generator).unwrap();
    let decode = |target: &OnnxEmbedder, transfer| {
        GeneratorFile::decode(Path::new("g.safetensors"), bytes.clone(), target, transfer, &Device::flex())
    };
    let other = target(INPUT, 2);
    let error = decode(&other, false).unwrap_err().to_string();
    assert!(error.starts_with("generator `g.safetensors` was trained for target `small-1` ("), "{error}");
    assert!(error.contains("not for `small-2`; need one that was trained for this target"), "{error}");
    let (_, generator) = decode(&other, true).unwrap();
    assert!(perturbed(&generator, &other).iter().all(|v| (0.0..=1.0).contains(v)));
    let larger = target([1, 36, 32], 1);
    let error = decode(&larger, true).unwrap_err().to_string();
    assert!(error.contains("takes images of [1, 32, 32]") && error.ends_with("takes [1, 36, 32]"), "{error}");
}

#[test]
fn a_generator_file_that_is_cut_or_foreign_is_an_error() {
    let target = target(INPUT, 1);
    let config = short(|_| {});
    let scene = scene(&target, 1);
    let bytes = file(&config, &scene).encode(&trained(&config, &scene).generator).unwrap();
    let foreign =
        safetensors::serialize(Vec::<(String, safetensors::tensor::TensorView<'_>)>::new(), None).unwrap();
    let mut broken: Vec<Vec<u8>> = vec![Vec::new(), b"generator".to_vec(), foreign];
    broken.extend([7, 8, 9, 100, bytes.len() / 2, bytes.len() - 1].map(|length| bytes[..length].to_vec()));
    for bytes in broken {
        let length = bytes.len();
        let result =
            GeneratorFile::decode(Path::new("g.safetensors"), bytes, &target, false, &Device::flex());
        let error = result.map(|_| length).unwrap_err().to_string();
        assert!(error.starts_with("generator `g.safetensors`: "), "{length} bytes: {error}");
    }
}

#[test]
fn every_discriminator_mining_metric_and_optimiser_trains() {
    let target = target(INPUT, 1);
    let mut configs = Vec::new();
    for kind in [DiscriminatorKind::None, DiscriminatorKind::Patch, DiscriminatorKind::Global] {
        configs.push((format!("{kind:?}"), short(|c| c.discriminator.kind = kind)));
    }
    for mining in [Mining::Farthest, Mining::Nearest, Mining::Random] {
        configs.push((format!("{mining:?}"), short(|c| c.loss.mining = mining)));
    }
    for optimiser in [OptimiserKind::Adam, OptimiserKind::Muon] {
        configs.push((format!("{optimiser:?}"), short(|c| c.training.optimiser = optimiser)));
    }
    configs.push(("batch of one".into(), short(|c| c.training.batch = 1)));
    configs.push(("more per batch than images".into(), short(|c| c.training.batch = 30)));
    for metric in [Metric::Cosine, Metric::Euclidean] {
        for (name, config) in &configs {
            let what = format!("{name}, {metric}");
            let trained = trained(config, &Scene { metric, ..scene(&target, 1) });
            assert_complete(&trained.log, 3, &what);
            let judged = config.discriminator.kind != DiscriminatorKind::None;
            assert!(
                trained.log.iter().all(|e| (e.gan > 0.0) == judged && (e.discriminator > 0.0) == judged),
                "{what}"
            );
        }
    }
}

#[test]
fn odd_and_small_sizes_train_and_keep_their_shape() {
    for input in [[1, 19, 23], [3, 17, 16], [1, 33, 20]] {
        let target = target(input, 1);
        for kind in KINDS {
            let config = short(|c| c.generator.guidance = kind);
            let trained = trained(&config, &scene(&target, 1));
            assert_complete(&trained.log, 3, &format!("{kind:?} at {input:?}"));
            assert_eq!(perturbed(&trained.generator, &target).len(), 3 * input.iter().product::<usize>());
        }
    }
}

#[test]
fn any_budget_trains() {
    let target = target(INPUT, 1);
    for epsilon in [0.1, 1.0, 255.0] {
        let scene = Scene { epsilon: Epsilon::from_255(epsilon).unwrap(), ..scene(&target, 1) };
        assert_complete(&trained(&short(|_| {}), &scene).log, 3, &format!("{epsilon}/255"));
    }
}

#[test]
fn images_of_another_size_and_rates_that_diverge_are_errors() {
    let target = target(INPUT, 1);
    let scene = scene(&target, 1);
    let result = train(&checked(&config()), &Evade, &images(4, [1, 32, 31]), &scene, &Silent);
    assert!(matches!(result, Err(TrainError::Attack(AttackError::Size { .. }))));
    let wild = short(|c| {
        c.training.steps = 40;
        c.loss.lambda_gan = 1e6;
        c.discriminator.learning_rate = 1.0;
    });
    match train(&checked(&wild), &Evade, &images(8, INPUT), &scene, &Silent) {
        Ok(trained) => assert_complete(&trained.log, 40, "high rates"),
        Err(error) => assert!(error.to_string().starts_with("loss is "), "{error}"),
    }
}
