//! What an audit found: the value behind `report.json` and every drawing. Schema `waylay.audit/2`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::attack::uaa_gan::StepLog;
pub use crate::attack::{Access, Knowledge};
pub use crate::retrieval::Scores;

use super::verdict::Grade;
use waylay_onnx::Verification;

/// Name and version of the layout of `report.json`.
pub const SCHEMA: &str = "waylay.audit/2";

/// Everything an audit found. Fractions are in [0, 1]; budgets and L∞ are in 1/255.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuditReport {
    /// [`SCHEMA`].
    pub schema: String,
    /// The result in one sentence, with its numbers.
    pub verdict: String,
    /// The grade that the verdict states; null where nothing was judged.
    pub grade: Option<Grade>,
    /// The attack that leaves the least mAP, by name; null where none that aims ran.
    pub strongest: Option<String>,
    /// Whether the shortened run for trying out was asked for: its numbers are not a verdict on the
    /// system.
    pub quick: bool,
    /// The network under attack.
    pub target: TargetFacts,
    /// The images.
    pub data: DataFacts,
    /// How much an attack may change.
    pub budget: Budget,
    /// `cosine` or `euclidean`.
    pub metric: String,
    /// The run's only source of randomness.
    pub seed: u64,
    /// Threads that computed.
    pub threads: usize,
    /// Retrieval with the queries as they are (on the 8-bit grid).
    pub clean: Scores,
    /// One row per attack, in the order they ran.
    pub attacks: Vec<AttackRow>,
    /// Per query the strongest of the attacks that ran; null where none that aims did.
    pub worst_case: Option<WorstCase>,
    /// How generators were trained in this run, one entry each.
    pub training: Vec<Training>,
    /// What is shown per query.
    pub examples: Vec<Example>,
    /// What was run and how to repeat it.
    pub run: RunFacts,
    /// What this audit does not tell, one sentence each.
    pub not_tested: Vec<String>,
}

/// The network under attack.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TargetFacts {
    /// File name, or `sample`.
    pub name: String,
    /// SHA-256 of network and preprocessing.
    pub fingerprint: String,
    /// Channels, height, width of the pixels it takes.
    pub input: [usize; 3],
    /// Dimensions of the embedding.
    pub dim: usize,
    /// Preprocessing in one line.
    pub preprocess: String,
    /// How far it was from the reference arrays beside it; left out where there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verification>,
}

/// The images and their use.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DataFacts {
    /// Folder, or the sample's name.
    pub name: String,
    /// Images the generator was trained on; labels unused.
    pub train: SetFacts,
    /// Images that were attacked and searched with.
    pub query: SetFacts,
    /// Images that were searched.
    pub gallery: SetFacts,
    /// How identities of the three sets relate, in one sentence.
    pub disjoint: String,
    /// SHA-256 over the names and pixels, at the target's input size, of queries and gallery.
    pub sha256: String,
}

/// Size of one set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SetFacts {
    /// Images.
    pub images: usize,
    /// Different identities; unknown for unlabelled training images.
    pub identities: Option<usize>,
}

/// How much an attack may change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Budget {
    /// The norm: `linf`.
    pub norm: String,
    /// The largest change of any pixel, in 1/255.
    pub epsilon_255: f64,
}

/// What an attacker leaves who may choose, for every query anew, the strongest of the attacks that
/// ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorstCase {
    /// Mean over the queries of the lowest average precision that any attack leaves.
    pub map: f64,
    /// Fraction of the queries whose nearest item is a match under every attack.
    pub rank1: f64,
    /// By attack: for how many queries it leaves the lowest average precision. The first of equals
    /// counts.
    pub strongest: BTreeMap<String, usize>,
}

/// One attack's row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttackRow {
    /// As on the command line: `none`, `noise`, `fgsm`, `pgd` (10 steps), `pgd-40`, `uaa-gan`,
    /// `guided-gan`.
    pub name: String,
    /// For people, such as `PGD, 40 gradients`.
    pub label: String,
    /// What the attacker had of the target when crafting: `access`, `target_forwards` and
    /// `target_gradients` per query.
    #[serde(flatten)]
    pub knowledge: Knowledge,
    /// The budget of this row in 1/255: the audit's, or the attack's own where that is smaller.
    pub epsilon_255: f64,
    /// For a trained generator, which network it was trained against; else null.
    pub trained_against: Option<TrainedAgainst>,
    /// Retrieval under this attack.
    #[serde(flatten)]
    pub scores: Scores,
    /// Largest change of any pixel of any saved image, in 1/255.
    pub linf_255: f64,
    /// Mean Euclidean norm of the change, in pixel units.
    pub l2: f64,
    /// Mean peak signal-to-noise ratio in dB over images that changed; null where none did.
    pub psnr_db: Option<f64>,
    /// Mean structural similarity.
    pub ssim: f64,
    /// Crafting time per image, in milliseconds.
    pub ms_per_image: f64,
    /// Training time of a generator; null for other attacks, and for a given generator without its
    /// `training.jsonl`.
    pub train_seconds: Option<f64>,
    /// Mean cosine between clean and attacked embedding of the same query.
    pub mean_cosine: f64,
    /// The attack's checked configuration.
    pub config: serde_json::Value,
    /// Distances from attacked queries to their true matches.
    pub distances: Histogram,
    /// Rank of the first true match of every query, 1 is best, in query order; none without a
    /// match.
    pub first_match: Vec<Option<usize>>,
    /// Average precision of every query, in query order; none without a match.
    pub average_precision: Vec<Option<f64>>,
}

/// The network that a generator was trained against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrainedAgainst {
    /// The target: training had its gradients, even where crafting has none.
    Target,
    /// Another network: the target was never seen.
    AnotherNetwork,
}

/// Counts over equal bins from `from` to `to`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Lower end of the first bin.
    pub from: f64,
    /// Upper end of the last bin.
    pub to: f64,
    /// Values per bin.
    pub counts: Vec<usize>,
}

/// How a generator was trained.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Training {
    /// `uaa-gan` or `guided-gan`.
    pub attack: String,
    /// Steps taken.
    pub steps: usize,
    /// Images per step.
    pub batch: usize,
    /// Parameters of the generator.
    pub generator_parameters: usize,
    /// What is wrong with how training went, and what to change, one sentence each.
    pub warnings: Vec<String>,
    /// One entry per step, as in `training.jsonl`.
    pub log: Vec<StepLog>,
}

/// One query, before and after the attack that the report shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Example {
    /// The query's name.
    pub query: String,
    /// Its identity.
    pub identity: String,
    /// Which attack.
    pub attack: String,
    /// Query as PNG.
    #[serde(skip)]
    pub query_png: Vec<u8>,
    /// Adversarial query as PNG.
    #[serde(skip)]
    pub adversarial_png: Vec<u8>,
    /// The perturbation around mid-gray as PNG, times `amplification`.
    #[serde(skip)]
    pub perturbation_png: Vec<u8>,
    /// Factor the drawn perturbation is multiplied by.
    pub amplification: f64,
    /// The five nearest gallery items of the query.
    pub before: Vec<Hit>,
    /// The five nearest gallery items of the adversarial query.
    pub after: Vec<Hit>,
}

/// A gallery item among the first of a ranking.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hit {
    /// The item's name.
    pub name: String,
    /// Its identity.
    pub identity: String,
    /// Whether it is a true match.
    pub correct: bool,
    /// Distance to the query in the audit's metric.
    pub distance: f64,
    /// The item as PNG.
    #[serde(skip)]
    pub png: Vec<u8>,
}

/// What was run and how to repeat it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunFacts {
    /// Version of waylay.
    pub version: String,
    /// The command that repeats this run.
    pub command: String,
    /// When it began, RFC 3339, UTC.
    pub started: String,
    /// Wall time of the whole run.
    pub seconds: f64,
    /// Operating system and architecture.
    pub platform: String,
    /// The tensor backend.
    pub backend: String,
    /// SHA-256 of files this run wrote or read, by name.
    pub files: BTreeMap<String, String>,
}
