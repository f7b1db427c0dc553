//! The main job: every attack at one budget against one target, measured on the files that were
//! written.

mod data;
mod evidence;
pub(crate) mod number;
pub mod outcome;
pub(crate) mod rows;
mod system;
mod verdict;
mod worst_case;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use burn::module::Module;
use burn::tensor::Device;
use thiserror::Error;
use waylay_onnx::Verification;

use crate::attack::uaa_gan::{
    self, CheckedConfig, Family, GeneratorAttack, GeneratorFile, GeneratorFileError, TrainError, Trained,
};
use crate::attack::{Attack, AttackError, Crafted, Epsilon, Knowledge, Objective, Scene, craft, named};
use crate::dataset::{self, DatasetError, Item, Source, Split};
use crate::embedder::{Embedder, EmbedderError};
use crate::embedding::{Embeddings, Metric};
use crate::image::{ImageBatch, ImageWriteError, Resizing, write_png};
use crate::output::{OutputDir, WriteError};
use crate::progress::Progress;
use crate::quality::{self, QualityError};
use crate::retrieval::RetrievalError;
use crate::seed::Seed;

pub use outcome::AuditReport;
pub use system::System;
pub use verdict::{Grade, grade, verdict};
pub use worst_case::worst_case;

use outcome::{AttackRow, Budget, RunFacts, SCHEMA, Scores, TargetFacts, TrainedAgainst, Training};

/// The version of Burn that computes, for the record.
const BURN: &str = "0.22.1";

/// An audit: what is attacked, by what, and how it is measured. Any [`Attack`] can take part.
///
/// ```
/// use waylay::prelude::*;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (embedder, mut split) = (sample_embedder(Device::flex())?, dataset::sample()?);
/// split.query.truncate(4);
/// let folder = tempfile::tempdir()?;
/// let out = OutputDir::create(&folder.path().join("report"), false)?;
/// let report = Audit::new(&embedder, &split)
///     .epsilon(Epsilon::from_255(8.0)?)
///     .attack(Noise)
///     .attack(PgdConfig { steps: 2, ..PgdConfig::default() }.check()?)
///     .run(&out, &Silent)?;
/// assert_eq!(report.attacks.len(), 3);
/// assert!(report.attacks[2].scores.map < report.clean.map);
/// # Ok(())
/// # }
/// ```
pub struct Audit<'a> {
    target: &'a dyn Embedder,
    split: &'a Split,
    metric: Metric,
    epsilon: Epsilon,
    seed: Seed,
    entries: Vec<Entry<'a>>,
    context: Context,
}

/// What the report records of the circumstances, as the caller knows them.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The command that repeats this run; empty where there is none.
    pub command: String,
    /// Whether this is a shortened run for trying out.
    pub quick: bool,
    /// How far the network was from the user's reference, where there was one.
    pub verified: Option<Verification>,
}

/// A row to come.
enum Entry<'a> {
    Attack(Box<dyn Attack + 'a>),
    Generator(GeneratorSource),
}

/// Where a generator comes from. Its configuration decides which attack it is.
pub enum GeneratorSource {
    /// It is trained in this run.
    Train {
        /// How.
        config: Box<CheckedConfig>,
        /// Towards what; [`Evade`](crate::attack::Evade) for the paper's attack.
        objective: Arc<dyn Objective>,
    },
    /// It was trained before.
    Given {
        /// What it was trained for.
        facts: Box<GeneratorFile>,
        /// The generator, without automatic differentiation.
        generator: Box<uaa_gan::Generator>,
        /// How long that took, where it is known.
        train_seconds: Option<f64>,
    },
}

impl GeneratorSource {
    /// Name of the row that it becomes: that of its attack, with the objective where it is not to
    /// evade.
    fn name(&self) -> String {
        let objective = match self {
            Self::Train { objective, .. } => objective.name(),
            Self::Given { facts, .. } => facts.objective.as_str(),
        };
        named(self.family().to_string(), objective)
    }

    /// Which attack the generator is.
    pub fn family(&self) -> Family {
        match self {
            Self::Train { config, .. } => config.family(),
            Self::Given { facts, .. } => facts.config.family(),
        }
    }
}

/// Why an audit could not be finished.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AuditError {
    /// Two attacks have one name, or one that cannot name a folder.
    #[error("attack `{0}`; need names that differ, of letters, digits and `-_.@+`, and not `none`")]
    Name(String),
    /// Images could not be read.
    #[error("read the images")]
    Dataset(#[from] DatasetError),
    /// The target failed.
    #[error("run target `{0}`")]
    Embedder(String, #[source] EmbedderError),
    /// A generator could not be trained.
    #[error("train the generator")]
    Train(#[from] TrainError),
    /// The generator could not be stored.
    #[error("store the generator")]
    Generator(#[from] GeneratorFileError),
    /// An attack failed.
    #[error("attack `{0}`")]
    Attack(String, #[source] AttackError),
    /// Retrieval could not be scored.
    #[error("score the retrieval")]
    Retrieval(#[from] RetrievalError),
    /// The change could not be measured.
    #[error("measure the images")]
    Quality(#[from] QualityError),
    /// A file could not be written.
    #[error("write the results")]
    Write(#[from] WriteError),
    /// An image could not be written.
    #[error("write the adversarial images")]
    Image(#[from] ImageWriteError),
}

/// An attack to run, with what the report says of its training.
struct Planned<'a> {
    attack: Box<dyn Attack + 'a>,
    trained_against: Option<TrainedAgainst>,
    train_seconds: Option<f64>,
}

impl<'a> Planned<'a> {
    fn untrained(attack: Box<dyn Attack + 'a>) -> Self {
        Self { attack, trained_against: None, train_seconds: None }
    }
}

/// What an attack leaves besides the numbers of its row.
struct Evidence {
    images: ImageBatch,
    embeddings: Embeddings,
    match_distances: Vec<f32>,
}

impl<'a> Audit<'a> {
    /// An audit of `target` on the queries and the gallery of `split`: at ε = 8/255, by cosine,
    /// with seed 0, and without an attack.
    pub fn new(target: &'a dyn Embedder, split: &'a Split) -> Self {
        Self {
            target,
            split,
            metric: Metric::default(),
            epsilon: Epsilon::default(),
            seed: Seed(0),
            entries: Vec::new(),
            context: Context::default(),
        }
    }

    /// How the system compares embeddings.
    #[must_use]
    pub fn metric(self, metric: Metric) -> Self {
        Self { metric, ..self }
    }

    /// The budget of every attack.
    #[must_use]
    pub fn epsilon(self, epsilon: Epsilon) -> Self {
        Self { epsilon, ..self }
    }

    /// The run's randomness.
    #[must_use]
    pub fn seed(self, seed: Seed) -> Self {
        Self { seed, ..self }
    }

    /// What the report records of the circumstances.
    #[must_use]
    pub fn context(self, context: Context) -> Self {
        Self { context, ..self }
    }

    /// One more row: this attack. Its name names the folder of its images, and must not be another
    /// row's.
    #[must_use]
    pub fn attack(self, attack: impl Attack + 'a) -> Self {
        self.boxed(Box::new(attack))
    }

    /// As [`Self::attack`], for a boxed attack.
    #[must_use]
    pub fn boxed(mut self, attack: Box<dyn Attack + 'a>) -> Self {
        self.entries.push(Entry::Attack(attack));
        self
    }

    /// One more row: a generator, about which the report says more than about other attacks.
    #[must_use]
    pub fn generator(mut self, source: GeneratorSource) -> Self {
        self.entries.push(Entry::Generator(source));
        self
    }

    /// Runs the audit and writes into `out`: `adversarial/ATTACK/NAME.png` for every query and the
    /// files of [`write_generator`] for every generator that was trained. The report is the
    /// caller's to write from the value.
    pub fn run(mut self, out: &OutputDir, progress: &dyn Progress) -> Result<AuditReport, AuditError> {
        let entries = std::mem::take(&mut self.entries);
        self.check_names(&entries)?;
        run(&self, entries, out, progress)
    }

    /// An error where two rows would have one name, or one that cannot name a folder.
    fn check_names(&self, entries: &[Entry<'_>]) -> Result<(), AuditError> {
        let mut names = vec![rows::CLEAN.to_owned()];
        for entry in entries {
            let name = match entry {
                Entry::Attack(attack) => attack.name(),
                Entry::Generator(source) => source.name(),
            };
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.@+".contains(c);
            if names.contains(&name) || name.is_empty() || name.starts_with('.') || !name.chars().all(allowed)
            {
                return Err(AuditError::Name(name));
            }
            names.push(name);
        }
        Ok(())
    }
}

fn run(
    plan: &Audit<'_>,
    entries: Vec<Entry<'_>>,
    out: &OutputDir,
    progress: &dyn Progress,
) -> Result<AuditReport, AuditError> {
    let started = (SystemTime::now(), Instant::now());
    let device = plan.target.device();
    let scene = Scene {
        target: plan.target,
        metric: plan.metric,
        epsilon: plan.epsilon,
        seed: plan.seed,
        device: device.clone(),
    };
    let size = plan.target.input();
    let queries = dataset::load(&plan.split.query, size, plan.target.resizing())?;
    let (query, gallery) = (&plan.split.query, &plan.split.gallery);
    let system = System::new(plan.target, plan.metric, query, gallery, &device, progress)?;
    let clean_embeddings = system.embed(&queries)?;

    // Generators are trained before anything is crafted.
    let mut attacks = vec![Planned::untrained(Box::new(Unchanged))];
    let (mut training, mut trained, mut images) = (Vec::new(), Vec::new(), None);
    for entry in entries {
        attacks.push(match entry {
            Entry::Attack(attack) => Planned::untrained(attack),
            Entry::Generator(source) => {
                if matches!(source, GeneratorSource::Train { .. }) {
                    trained.push(source.family());
                }
                prepare(source, plan, &scene, &mut images, &mut training, out, progress)?
            }
        });
    }

    let (mut rows, mut evidence) = (Vec::new(), Vec::new());
    for planned in attacks {
        let attack = planned.attack.as_ref();
        let crafted =
            craft(attack, &queries, &scene, progress).map_err(|e| AuditError::Attack(attack.name(), e))?;
        let images = save_and_read_back(&crafted, &plan.split.query, &attack.name(), size, out)?;
        let (evaluation, embeddings) = system.search(&images)?;
        let quality = quality::measure(&queries, &images)?;
        rows.push(AttackRow {
            name: attack.name(),
            label: attack.label(),
            knowledge: attack.knowledge(),
            epsilon_255: scene.budget(attack).in_255(),
            trained_against: planned.trained_against,
            scores: evaluation.scores.clone(),
            linf_255: quality.linf_255,
            l2: quality.l2,
            psnr_db: quality.psnr_db,
            ssim: quality.ssim,
            ms_per_image: 1e3 * crafted.seconds / images.count() as f64,
            train_seconds: planned.train_seconds,
            mean_cosine: mean_cosine(&clean_embeddings, &embeddings),
            config: attack.config(),
            distances: outcome::Histogram::default(),
            first_match: evaluation.per_query.iter().map(|q| q.rank_of_first_match()).collect(),
            average_precision: evaluation.per_query.iter().map(|q| q.average_precision).collect(),
        });
        let match_distances =
            evaluation.per_query.iter().flat_map(|q| q.match_distances.iter().copied()).collect();
        evidence.push(Evidence { images, embeddings, match_distances });
    }
    evidence::fill_histograms(&mut rows, &evidence);
    let examples = evidence::examples(plan, &queries, &system, &clean_embeddings, &rows, &evidence)?;

    let clean = rows.first().map_or_else(Scores::default, |row| row.scores.clone());
    let worst_case = worst_case(&rows);
    Ok(AuditReport {
        schema: SCHEMA.into(),
        grade: grade(&clean, worst_case.as_ref(), plan.context.quick),
        strongest: rows::strongest(&rows).map(|row| row.name.clone()),
        verdict: verdict(&clean, &rows, worst_case.as_ref(), plan.epsilon.in_255(), plan.context.quick),
        quick: plan.context.quick,
        target: TargetFacts {
            name: plan.target.name().into(),
            fingerprint: plan.target.fingerprint().into(),
            input: size,
            dim: plan.target.dim(),
            preprocess: plan.target.preprocessing(),
            verified: plan.context.verified.clone(),
        },
        data: data::facts(plan.split, &queries, &system.gallery_hash, !training.is_empty()),
        budget: Budget { norm: "linf".into(), epsilon_255: plan.epsilon.in_255() },
        metric: plan.metric.to_string(),
        seed: plan.seed.0,
        threads: rayon::current_num_threads(),
        clean,
        not_tested: data::not_tested(&rows, plan.epsilon, plan.context.quick),
        attacks: rows,
        worst_case,
        examples,
        run: RunFacts {
            version: env!("CARGO_PKG_VERSION").into(),
            command: plan.context.command.clone(),
            started: humantime::format_rfc3339_seconds(started.0).to_string(),
            seconds: started.1.elapsed().as_secs_f64(),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            backend: backend(&device),
            files: data::hashes(out, &trained),
        },
        training,
    })
}

/// The row `none`: the queries as they are, through the same path as every attack.
struct Unchanged;

impl Attack for Unchanged {
    fn name(&self) -> String {
        "none".into()
    }

    fn label(&self) -> String {
        "No attack".into()
    }

    fn knowledge(&self) -> Knowledge {
        Knowledge::IMAGE
    }

    fn propose(
        &self,
        clean: &ImageBatch,
        _first: usize,
        scene: &Scene<'_>,
    ) -> Result<burn::tensor::Tensor<4>, AttackError> {
        Ok(clean.to_tensor(&scene.device))
    }
}

/// The attack of a generator, trained now and stored in `out` where it is not given. `images` are
/// those to train on, once loaded.
fn prepare(
    source: GeneratorSource,
    plan: &Audit<'_>,
    scene: &Scene<'_>,
    images: &mut Option<ImageBatch>,
    training: &mut Vec<Training>,
    out: &OutputDir,
    progress: &dyn Progress,
) -> Result<Planned<'static>, AuditError> {
    let (attack, trained_against, train_seconds) = match source {
        GeneratorSource::Given { facts, generator, train_seconds } => {
            let same = facts.target == plan.target.fingerprint();
            let against = if same { TrainedAgainst::Target } else { TrainedAgainst::AnotherNetwork };
            let GeneratorFile { objective, config, .. } = *facts;
            (GeneratorAttack { generator: *generator, objective, config }, against, train_seconds)
        }
        GeneratorSource::Train { config, objective } => {
            let images = match images {
                Some(images) => images,
                None => images.insert(dataset::load(
                    &plan.split.train,
                    plan.target.input(),
                    plan.target.resizing(),
                )?),
            };
            let trained = uaa_gan::train(&config, &*objective, images, scene, progress)?;
            write_generator(&trained, &config, scene, out)?;
            let attack = GeneratorAttack {
                generator: trained.generator,
                objective: trained.objective,
                config: (**config).clone(),
            };
            training.push(Training {
                attack: attack.name(),
                steps: config.training.steps,
                batch: config.training.batch,
                generator_parameters: attack.generator.num_params(),
                warnings: trained.warnings,
                log: trained.log,
            });
            (attack, TrainedAgainst::Target, Some(trained.seconds))
        }
    };
    Ok(Planned { attack: Box::new(attack), trained_against: Some(trained_against), train_seconds })
}

/// Which backend computed, and where.
fn backend(device: &Device) -> String {
    let name =
        if *device == Device::flex() { "flex (CPU)".into() } else { format!("{:?}", device.as_dispatch()) };
    format!("burn {BURN}, {name}")
}

/// Writes the [`Family::files`] of `trained` into `out`.
pub fn write_generator(
    trained: &Trained,
    config: &CheckedConfig,
    scene: &Scene<'_>,
    out: &OutputDir,
) -> Result<(), AuditError> {
    let facts = GeneratorFile {
        target: scene.target.fingerprint().into(),
        target_name: scene.target.name().into(),
        input: scene.target.input(),
        epsilon_255: scene.epsilon,
        metric: scene.metric,
        seed: scene.seed.0,
        objective: trained.objective.clone(),
        config: (**config).clone(),
    };
    let [weights, settings, log] = config.family().files();
    out.write(weights, &facts.encode(&trained.generator)?)?;
    out.write(settings, config.to_toml().map_err(TrainError::from)?.as_bytes())?;
    let lines: Vec<String> =
        trained.log.iter().map(|entry| serde_json::json!(entry).to_string() + "\n").collect();
    out.write(log, lines.concat().as_bytes())?;
    Ok(())
}

/// Every headline number is measured on what a file holds, not on what was meant.
fn save_and_read_back(
    crafted: &Crafted,
    items: &[Item],
    attack: &str,
    size: [usize; 3],
    out: &OutputDir,
) -> Result<ImageBatch, AuditError> {
    let mut saved = Vec::with_capacity(items.len());
    for (i, name) in dataset::png_names(items)?.into_iter().enumerate() {
        let path = out.file(&format!("adversarial/{attack}/{name}"))?;
        write_png(&path, &crafted.images, i)?;
        saved.push(Item { source: Source::File(path), ..items[i].clone() });
    }
    // They are of the target's size already, and are taken as they are.
    Ok(dataset::load(&saved, size, Resizing::default())?)
}

fn mean_cosine(a: &Embeddings, b: &Embeddings) -> f64 {
    let (a, b) = (a.normalised(), b.normalised());
    let dots = a.values().iter().zip(b.values()).map(|(x, y)| f64::from(x * y)).sum::<f64>();
    dots / a.count() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_burn_is_the_one_that_is_built_with() {
        let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock");
        let lock = std::fs::read_to_string(lock).unwrap();
        assert!(lock.contains(&format!("name = \"burn\"\nversion = \"{BURN}\"")), "{BURN}");
    }
}
