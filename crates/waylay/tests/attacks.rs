//! One table runs every attack, and some that break the rules, through the same checks.

#![allow(clippy::unwrap_used)]

mod small_target;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use burn::tensor::{Int, Tensor, TensorData};
use proptest::prelude::*;
use waylay::attack::uaa_gan::{Generator, GeneratorAttack, GeneratorConfig, Guidance, UaaGanConfig, train};
use waylay::attack::{
    Access, Attack, AttackError, Crafted, Epsilon, Evade, Fgsm, Knowledge, Noise, Objective, Opposite,
    PgdConfig, Scene, craft, feature_distance,
};
use waylay::device::Device;
use waylay::embedder::OnnxEmbedder;
use waylay::embedder::{Embedder, EmbedderError, Features, Tap};
use waylay::embedding::{Embeddings, Metric};
use waylay::image::ImageBatch;
use waylay::progress::Silent;
use waylay::seed::Seed;

use small_target::{images, target};

const INPUT: [usize; 3] = [3, 32, 28];
/// More than one batch of `craft`, and not a multiple of it.
const COUNT: usize = 11;

/// An attack, and whether it draws random numbers.
struct Entry {
    attack: Box<dyn Attack>,
    random: bool,
}

fn named(name: &str) -> Entry {
    let attack: Box<dyn Attack> = match name {
        "noise" => Box::new(Noise),
        "fgsm" => Box::new(Fgsm::default()),
        pgd => Box::new(pgd.parse::<PgdConfig>().unwrap().check().unwrap()),
    };
    Entry { attack, random: !name.contains("opposite") }
}

const KINDS: [Guidance; 3] = [Guidance::Gradients, Guidance::FeatureMaps, Guidance::None];

fn config(guidance: Guidance) -> UaaGanConfig {
    let mut config = UaaGanConfig::default();
    config.generator =
        GeneratorConfig { guidance, widths: vec![8, 8], blocks: vec![1, 1], ..config.generator };
    config.discriminator.width = 4;
    config.training.steps = 3;
    config.training.batch = 4;
    config
}

fn untrained(target: &OnnxEmbedder, guidance: Guidance) -> Entry {
    let config = config(guidance);
    let mut random = Seed(1).stream("untrained");
    let generator = Generator::new(&config.generator, target, &mut random, &Device::flex()).unwrap();
    Entry {
        attack: Box::new(GeneratorAttack { generator, objective: Evade.name().into(), config }),
        random: false,
    }
}

fn trained(target: &OnnxEmbedder, guidance: Guidance) -> Entry {
    let config = config(guidance);
    let checked = config.clone().check().unwrap();
    let generator =
        train(&checked, &Evade, &images(8, INPUT), &scene(target, 8.0, 1), &Silent).unwrap().generator;
    Entry {
        attack: Box::new(GeneratorAttack { generator, objective: Evade.name().into(), config }),
        random: false,
    }
}

/// An objective from outside of the library: the embedding of another image.
#[derive(Debug)]
struct Friend;

impl Objective for Friend {
    fn name(&self) -> &'static str {
        "friend"
    }

    fn value(&self, _clean: Tensor<2>, adversarial: Tensor<2>, metric: Metric) -> Tensor<1> {
        let device = adversarial.device();
        let friend = Tensor::<1, Int>::arange(0..adversarial.dims()[1] as i64, &device).float();
        let friend = friend.unsqueeze::<2>().repeat_dim(0, adversarial.dims()[0]);
        -feature_distance(metric, friend, adversarial)
    }
}

/// Proposes what `change` makes of a clean pixel.
struct Hostile {
    name: &'static str,
    change: fn(image: usize, at: usize, clean: f32) -> f32,
}

impl Attack for Hostile {
    fn name(&self) -> String {
        self.name.into()
    }

    fn label(&self) -> String {
        self.name.into()
    }

    fn knowledge(&self) -> Knowledge {
        Knowledge::IMAGE
    }

    fn config(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn propose(&self, clean: &ImageBatch, first: usize, scene: &Scene<'_>) -> Result<Tensor<4>, AttackError> {
        let per_image = clean.size().iter().product::<usize>();
        let pixels = clean.pixels().iter().enumerate();
        let changed = pixels.map(|(i, &v)| (self.change)(first + i / per_image, i % per_image, v)).collect();
        Ok(Tensor::from_data(TensorData::new(changed, clean.shape()), &scene.device))
    }
}

/// Every attack, and finite ones that ignore the budget and the range.
fn table(target: &OnnxEmbedder) -> Vec<Entry> {
    let mut table: Vec<Entry> =
        ["noise", "fgsm", "pgd", "pgd-40", "pgd-1-opposite", "pgd-5-opposite", "pgd@3"]
            .into_iter()
            .map(named)
            .collect();
    let random = true;
    table.push(Entry { attack: Box::new(Fgsm::default().towards(Opposite)), random });
    table.push(Entry { attack: Box::new(PgdConfig::default().check().unwrap().towards(Friend)), random });
    for guidance in KINDS {
        table.push(untrained(target, guidance));
        table.push(trained(target, guidance));
    }
    let hostile: [Hostile; 3] = [
        Hostile { name: "returns 5", change: |_, _, _| 5.0 },
        Hostile { name: "three budgets", change: |_, at, v| if at % 2 == 0 { v + 0.1 } else { v - 0.1 } },
        Hostile { name: "largest numbers", change: |_, at, _| if at % 3 == 0 { f32::MAX } else { f32::MIN } },
    ];
    table.extend(hostile.map(|attack| Entry { attack: Box::new(attack), random: false }));
    table
}

fn scene(target: &OnnxEmbedder, epsilon: f64, seed: u64) -> Scene<'_> {
    Scene {
        target,
        metric: Metric::Cosine,
        epsilon: Epsilon::from_255(epsilon).unwrap(),
        seed: Seed(seed),
        device: Device::flex(),
    }
}

fn run(attack: &dyn Attack, clean: &ImageBatch, scene: &Scene<'_>) -> ImageBatch {
    let Crafted { images, seconds } = craft(attack, clean, scene, &Silent).unwrap();
    assert!(seconds >= 0.0);
    images
}

/// Levels of 0 to 255; an error of the test where a pixel is between two.
fn levels(images: &ImageBatch, what: &str) -> Vec<i32> {
    let level = |v: &f32| {
        let level = f64::from(*v) * 255.0;
        assert!((level - level.round()).abs() < 1e-4, "{what}: {v} is not on the 8-bit grid");
        level.round() as i32
    };
    images.pixels().iter().map(level).collect()
}

fn mean_distance(target: &OnnxEmbedder, metric: Metric, clean: &ImageBatch, images: &ImageBatch) -> f64 {
    let device = Device::flex();
    let embed = |batch: &ImageBatch| target.forward(batch.to_tensor(&device)).unwrap().embedding;
    feature_distance(metric, embed(clean), embed(images)).mean().into_data().iter::<f64>().next().unwrap()
}

#[test]
fn every_attack_stays_within_shape_range_budget_and_grid() {
    let target = target(INPUT, 1);
    let clean = images(COUNT, INPUT);
    let before = levels(&clean, "clean");
    assert!(before.contains(&0) && before.contains(&255), "the images must touch both ends of the range");
    for entry in table(&target) {
        for epsilon in [1.0, 8.0, 255.0] {
            let what = format!("{} at {epsilon}/255", entry.attack.name());
            let crafted = run(entry.attack.as_ref(), &clean, &scene(&target, epsilon, 1));
            assert_eq!(crafted.shape(), clean.shape(), "{what}");
            assert!(crafted.pixels().iter().all(|v| (0.0..=1.0).contains(v)), "{what}");
            let after = levels(&crafted, &what);
            let largest = before.iter().zip(&after).map(|(b, a)| (b - a).abs()).max().unwrap();
            assert!(f64::from(largest) <= epsilon, "{what}: changed by {largest}");
            assert!(largest > 0, "{what}: changed nothing");
        }
    }
}

#[test]
fn pgd_reaches_what_its_objective_wants_and_says_so() {
    let target = target(INPUT, 1);
    let clean = images(COUNT, INPUT);
    let scene = scene(&target, 8.0, 1);
    let pgd = || PgdConfig::default().check().unwrap();
    let attacks: [(Arc<dyn Objective>, &str); 3] =
        [(Arc::new(Evade), "pgd"), (Arc::new(Opposite), "pgd+opposite"), (Arc::new(Friend), "pgd+friend")];
    let embed = |images: &ImageBatch| target.embedding(images.to_tensor(&Device::flex())).unwrap();
    let value = |objective: &dyn Objective, images: &ImageBatch| {
        let value = objective.value(embed(&clean), embed(images), scene.metric).mean();
        value.into_data().iter::<f64>().next().unwrap()
    };
    let crafted = attacks.each_ref().map(|(objective, name)| {
        let attack = pgd().towards(objective.clone());
        assert_eq!(
            (attack.name().as_str(), &attack.config()["objective"]),
            (*name, &objective.name().into())
        );
        run(&attack, &clean, &scene)
    });
    for (i, (objective, name)) in attacks.iter().enumerate() {
        let own = value(&**objective, &crafted[i]);
        assert!(own > value(&**objective, &clean), "{name}");
        for (j, images) in crafted.iter().enumerate().filter(|(j, _)| *j != i) {
            assert!(own > value(&**objective, images), "{name} is reached better by {}", attacks[j].1);
        }
    }
}

#[test]
fn a_budget_below_one_level_changes_nothing() {
    let target = target(INPUT, 1);
    let clean = images(COUNT, INPUT);
    for entry in table(&target) {
        let crafted = run(entry.attack.as_ref(), &clean, &scene(&target, 0.5, 1));
        assert_eq!(crafted, clean, "{}", entry.attack.name());
    }
}

#[test]
fn a_seed_decides_every_attack() {
    let target = target(INPUT, 1);
    let clean = images(COUNT, INPUT);
    for entry in table(&target) {
        let with = |seed| run(entry.attack.as_ref(), &clean, &scene(&target, 8.0, seed));
        let first = with(1);
        assert_eq!(first, with(1), "{}", entry.attack.name());
        assert_eq!(first != with(2), entry.random, "{}", entry.attack.name());
    }
}

#[test]
fn what_a_query_becomes_does_not_depend_on_its_batch() {
    let target = target(INPUT, 1);
    let clean = images(COUNT, INPUT);
    let per_image = INPUT.iter().product::<usize>();
    for entry in table(&target) {
        let scene = scene(&target, 8.0, 1);
        let scene = Scene { epsilon: scene.budget(entry.attack.as_ref()), ..scene };
        let together = run(entry.attack.as_ref(), &clean, &scene);
        for i in [3, 9] {
            let alone = entry.attack.propose(&clean.select(&[i]), i, &scene).unwrap();
            let alone: Vec<f32> = alone.into_data().iter::<f32>().collect();
            // Rounding in the target may turn single signs of the gradient, another random start
            // would turn many.
            let same = alone.iter().zip(clean.image(i)).zip(together.image(i)).filter(|((a, c), t)| {
                let kept = a.clamp(*c - 8.0 / 255.0, *c + 8.0 / 255.0).clamp(0.0, 1.0);
                (kept - **t).abs() <= 0.51 / 255.0
            });
            let share = same.count() as f64 / per_image as f64;
            assert!(share > 0.98, "{}, image {i}: {share}", entry.attack.name());
        }
    }
}

/// A target that counts the images that pass through it, and those of them whose gradient is asked
/// for.
struct Counting {
    target: OnnxEmbedder,
    forwards: AtomicUsize,
    gradients: AtomicUsize,
}

impl Counting {
    fn count(&self, pixels: &Tensor<4>) {
        let images = pixels.dims()[0];
        self.forwards.fetch_add(images, Relaxed);
        self.gradients.fetch_add(if pixels.is_autodiff() { images } else { 0 }, Relaxed);
    }
}

impl Embedder for Counting {
    fn name(&self) -> &str {
        self.target.name()
    }

    fn fingerprint(&self) -> &str {
        self.target.fingerprint()
    }

    fn input(&self) -> [usize; 3] {
        self.target.input()
    }

    fn dim(&self) -> usize {
        self.target.dim()
    }

    fn taps(&self) -> &[Tap] {
        self.target.taps()
    }

    fn embedding(&self, pixels: Tensor<4>) -> Result<Tensor<2>, EmbedderError> {
        self.count(&pixels);
        self.target.embedding(pixels)
    }

    fn forward(&self, pixels: Tensor<4>) -> Result<Features, EmbedderError> {
        self.count(&pixels);
        self.target.forward(pixels)
    }

    fn embed(&self, images: &ImageBatch, device: &Device) -> Result<Embeddings, EmbedderError> {
        self.target.embed(images, device)
    }
}

#[test]
fn every_attack_takes_the_passes_of_the_target_that_it_states() {
    let clean = images(COUNT, INPUT);
    for entry in table(&target(INPUT, 1)) {
        let (forwards, gradients) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let counting = Counting { target: target(INPUT, 1), forwards, gradients };
        let epsilon = Epsilon::from_255(8.0).unwrap();
        let (metric, device) = (Metric::Cosine, Device::flex());
        let scene = Scene { target: &counting, metric, epsilon, seed: Seed(1), device };
        run(entry.attack.as_ref(), &clean, &scene);
        let Knowledge { access, target_forwards, target_gradients } = entry.attack.knowledge();
        let name = entry.attack.name();
        assert_eq!(counting.forwards.load(Relaxed), COUNT * target_forwards, "{name}");
        assert_eq!(counting.gradients.load(Relaxed), COUNT * target_gradients, "{name}");
        let expected = match (target_forwards, target_gradients) {
            (0, 0) => Access::Image,
            (_, 0) => Access::FeatureMaps,
            _ => Access::Gradients,
        };
        assert_eq!(access, expected, "{name}");
    }
}

#[test]
fn a_proposal_that_is_no_number_is_an_error_that_names_attack_and_image() {
    let target = target(INPUT, 1);
    let clean = images(COUNT, INPUT);
    let hostile = [
        Hostile { name: "nan", change: |image, at, v| if (image, at) == (9, 5) { f32::NAN } else { v } },
        Hostile { name: "inf", change: |image, _, v| if image == 9 { f32::INFINITY } else { v } },
        Hostile { name: "-inf", change: |image, _, v| if image >= 9 { f32::NEG_INFINITY } else { v } },
    ];
    for attack in hostile {
        let error = craft(&attack, &clean, &scene(&target, 8.0, 1), &Silent).unwrap_err().to_string();
        assert!(error.starts_with(&format!("attack `{}` proposed ", attack.name)), "{error}");
        assert!(error.ends_with("at image 9; need finite numbers"), "{error}");
    }
}

/// Proposes images with sides exchanged, or one image more: neither may pass for a proposal.
struct Misshapen {
    more: bool,
}

impl Attack for Misshapen {
    fn name(&self) -> String {
        "misshapen".into()
    }

    fn label(&self) -> String {
        "misshapen".into()
    }

    fn knowledge(&self) -> Knowledge {
        Knowledge::IMAGE
    }

    fn config(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn propose(
        &self,
        clean: &ImageBatch,
        _first: usize,
        scene: &Scene<'_>,
    ) -> Result<Tensor<4>, AttackError> {
        let x = clean.to_tensor(&scene.device);
        Ok(if self.more { Tensor::cat(vec![x.clone(), x], 0) } else { x.swap_dims(2, 3) })
    }
}

#[test]
fn a_proposal_of_another_shape_is_an_error() {
    let target = target(INPUT, 1);
    for more in [false, true] {
        let error =
            craft(&Misshapen { more }, &images(2, INPUT), &scene(&target, 8.0, 1), &Silent).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("attack `misshapen` proposed images of shape ["), "{text}");
        assert!(text.ends_with("need [2, 3, 32, 28]"), "{text}");
    }
}

#[test]
fn images_of_another_size_are_an_error() {
    let target = target(INPUT, 1);
    for size in [[3, 28, 32], [1, 32, 28], [3, 32, 29]] {
        for entry in table(&target) {
            let result = craft(entry.attack.as_ref(), &images(2, size), &scene(&target, 8.0, 1), &Silent);
            let Err(AttackError::Size { expected, found }) = result else {
                panic!("{}", entry.attack.name())
            };
            assert_eq!((expected, found), (INPUT, size));
        }
    }
}

#[test]
fn gradients_lead_farther_than_noise_and_more_steps_farther_than_one() {
    let target = target(INPUT, 1);
    let clean = images(COUNT, INPUT);
    for metric in [Metric::Cosine, Metric::Euclidean] {
        let distances = ["noise", "fgsm", "pgd", "pgd-40"].map(|name| {
            let scene = Scene { metric, ..scene(&target, 8.0, 1) };
            mean_distance(&target, metric, &clean, &run(named(name).attack.as_ref(), &clean, &scene))
        });
        let [noise, fgsm, pgd, pgd_40] = distances;
        assert!(2.0 * noise < fgsm && fgsm < pgd && 0.98 * pgd < pgd_40, "{metric}: {distances:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_larger_budget_never_makes_pgd_weaker_by_more_than_noise(
        network in 0u64..4, seed in 0u64..1000, smaller in 1u32..9, more in 1u32..9,
    ) {
        let target = target(INPUT, network);
        let clean = images(2, INPUT);
        let distance = |epsilon: u32| {
            let pgd = named("pgd");
            let crafted = run(pgd.attack.as_ref(), &clean, &scene(&target, f64::from(epsilon), seed));
            mean_distance(&target, Metric::Cosine, &clean, &crafted)
        };
        let (weak, strong) = (distance(smaller), distance(smaller + more));
        prop_assert!(strong > 0.95 * weak, "{weak} at {smaller}/255, {strong} at {}/255", smaller + more);
    }

    #[test]
    fn a_generator_never_leaves_the_budget_even_before_it_is_enforced(
        epsilon in 0.1f64..255.0, seed in 0u64..1000, kind in 0..KINDS.len(),
    ) {
        let target = target(INPUT, 1);
        let kind = KINDS[kind];
        let device = Device::flex();
        let wild = GeneratorConfig { head_scale: 10.0, gain: 100.0, ..config(kind).generator };
        let generator = Generator::new(&wild, &target, &mut Seed(seed).stream("wild"), &device).unwrap();
        let clean = images(2, INPUT);
        let x = clean.to_tensor(&device);
        let perturbed = generator.perturb(x, &scene(&target, epsilon, seed)).unwrap().into_data();
        let epsilon = Epsilon::from_255(epsilon).unwrap();
        for (p, c) in perturbed.iter::<f32>().zip(clean.pixels()) {
            prop_assert!((0.0..=1.0).contains(&p) && (p - c).abs() <= epsilon.in_pixels() + 1e-6);
        }
    }
}
