//! From pixels in [0, 1] to what a network was trained on: channel order, scale, mean, standard
//! deviation, layout. This is the only place that knows them. A preset by name, or exact numbers in
//! a file beside the model.

use std::fmt;
use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::image::{Fit, Interpolation, Resizing};

pub use waylay_onnx::Layout;

/// Why it is unknown, or unusable, how a network wants its pixels.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PreprocessError {
    /// Neither a preset nor a file.
    #[error(
        "how `{}` wants its pixels is not known; choose {} or write `{}`",
        model.display(), Preset::ALL.map(|p| p.name()).join(", "), sidecar.display()
    )]
    Unknown {
        /// The network.
        model: PathBuf,
        /// The file that was looked for.
        sidecar: PathBuf,
    },
    /// The file beside the model could not be read.
    #[error("read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file beside the model is not what it should be.
    #[error("`{}` is not a description of preprocessing", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A value out of range.
    #[error("{field} is {value}; need {accepted}")]
    Value {
        /// Which setting.
        field: &'static str,
        /// What it says.
        value: String,
        /// What it may say.
        accepted: String,
    },
}

/// Preprocessing that many networks share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// RGB, minus (0.485, 0.456, 0.406), over (0.229, 0.224, 0.225): torchvision's.
    Imagenet,
    /// RGB, minus (0.48145466, 0.4578275, 0.40821073), over (0.26862954, 0.26130258, 0.27577711),
    /// the middle of a bicubic reduction: CLIP's.
    Clip,
    /// RGB of 0 to 255, minus 127.5, over 128: most face networks.
    Arcface,
    /// RGB of 0 to 1: the pixels as they are. The same numbers as [`Preset::None`], under the name
    /// people look for.
    ZeroToOne,
    /// RGB of −1 to 1.
    MinusOneToOne,
    /// RGB of 0 to 255.
    #[serde(rename = "raw-255")]
    Raw255,
    /// Nothing is done: pixels of 0 to 1 pass through, as for a network that normalises inside.
    None,
}

impl Preset {
    /// All presets.
    pub const ALL: [Self; 7] = [
        Self::Imagenet,
        Self::Clip,
        Self::Arcface,
        Self::ZeroToOne,
        Self::MinusOneToOne,
        Self::Raw255,
        Self::None,
    ];

    /// The name by which it is chosen.
    pub fn name(self) -> &'static str {
        match self {
            Self::Imagenet => "imagenet",
            Self::Clip => "clip",
            Self::Arcface => "arcface",
            Self::ZeroToOne => "zero-to-one",
            Self::MinusOneToOne => "minus-one-to-one",
            Self::Raw255 => "raw-255",
            Self::None => "none",
        }
    }
}

impl std::str::FromStr for Preset {
    type Err = PreprocessError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|p| p.name() == text).ok_or_else(|| PreprocessError::Value {
            field: "preset",
            value: format!("`{text}`"),
            accepted: Self::ALL.map(Self::name).join(", "),
        })
    }
}

/// Order of the channels that the network takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channels {
    /// Red first. For a network of one channel: gray.
    #[default]
    Rgb,
    /// Blue first.
    Bgr,
    /// One channel.
    Gray,
}

/// What is done to pixels in [0, 1]: (pixel · `scale` − `mean`) / `std`, in the network's channel
/// order and layout. Read from TOML as a preset, as numbers, or as a preset with some numbers
/// replaced: `preset = "imagenet"`.
///
/// ```
/// use waylay::prelude::*;
///
/// let preprocess = Preprocess::from(Preset::Imagenet);
/// let [red, ..] = preprocess.range(3)[..] else { unreachable!() };
/// assert_eq!(red, ((0.0 - 0.485) / 0.229, (1.0 - 0.485) / 0.229));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Sidecar")]
pub struct Preprocess {
    /// Name for people.
    pub name: String,
    /// Height and width, for a network that leaves them open; 1 to 65536. Default: the network's
    /// own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<[usize; 2]>,
    /// Channel order. Default RGB.
    pub channels: Channels,
    /// Multiplies pixels first; finite, not 0. Default 1.
    pub scale: f32,
    /// Is subtracted next: empty for 0, or one number, or one per channel in the network's order.
    /// Default empty.
    pub mean: Vec<f32>,
    /// Divides last: empty for 1, or one number, or one per channel in the network's order; not 0.
    /// Default empty.
    pub std: Vec<f32>,
    /// Order of the dimensions. Default NCHW.
    pub layout: Layout,
    /// How pixels of an image of another size are made. Default bilinear.
    pub interpolation: Interpolation,
    /// What happens to the proportions of an image of another size. Default stretch.
    pub resize: Fit,
    /// With `resize = "crop"`: pixels of the shorter side before the middle is cut out; 1 to 65536.
    /// Default: as few as cover the input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize_to: Option<usize>,
}

/// The keys of `MODEL.toml`; those left out come from `preset`, or are the defaults of
/// [`Preprocess`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sidecar {
    preset: Option<Preset>,
    name: Option<String>,
    size: Option<[usize; 2]>,
    channels: Option<Channels>,
    scale: Option<f32>,
    mean: Option<Vec<f32>>,
    std: Option<Vec<f32>>,
    layout: Option<Layout>,
    interpolation: Option<Interpolation>,
    resize: Option<Fit>,
    resize_to: Option<usize>,
}

impl From<Sidecar> for Preprocess {
    fn from(file: Sidecar) -> Self {
        let base = Self::from(file.preset.unwrap_or(Preset::None));
        let name = if file.preset.is_some() { base.name } else { "custom".to_owned() };
        Self {
            name: file.name.unwrap_or(name),
            size: file.size,
            channels: file.channels.unwrap_or(base.channels),
            scale: file.scale.unwrap_or(base.scale),
            mean: file.mean.unwrap_or(base.mean),
            std: file.std.unwrap_or(base.std),
            layout: file.layout.unwrap_or(base.layout),
            interpolation: file.interpolation.unwrap_or(base.interpolation),
            resize: file.resize.unwrap_or(base.resize),
            resize_to: file.resize_to,
        }
    }
}

impl From<Preset> for Preprocess {
    fn from(preset: Preset) -> Self {
        let (scale, mean, std) = match preset {
            Preset::Imagenet => (1.0, vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225]),
            Preset::Clip => (
                1.0,
                vec![0.481_454_66, 0.457_827_5, 0.408_210_73],
                vec![0.268_629_54, 0.261_302_6, 0.275_777_1],
            ),
            Preset::Arcface => (255.0, vec![127.5], vec![128.0]),
            Preset::MinusOneToOne => (2.0, vec![1.0], vec![]),
            Preset::Raw255 => (255.0, vec![], vec![]),
            Preset::ZeroToOne | Preset::None => (1.0, vec![], vec![]),
        };
        let (interpolation, resize) = match preset {
            Preset::Clip => (Interpolation::Bicubic, Fit::Crop),
            _ => (Interpolation::default(), Fit::default()),
        };
        Self {
            name: preset.name().to_owned(),
            size: None,
            channels: Channels::Rgb,
            scale,
            mean,
            std,
            layout: Layout::Nchw,
            interpolation,
            resize,
            resize_to: None,
        }
    }
}

impl Preprocess {
    /// The file beside `model` that describes its preprocessing: the same name, ending in `.toml`.
    pub fn sidecar(model: &Path) -> PathBuf {
        model.with_extension("toml")
    }

    /// What the file beside `model` says; none where there is no such file.
    pub fn beside(model: &Path) -> Result<Option<Self>, PreprocessError> {
        let path = Self::sidecar(model);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(PreprocessError::Read { path, source }),
        };
        toml::from_str(&text)
            .map(Some)
            .map_err(|source| PreprocessError::Parse { path, source: Box::new(source) })
    }

    /// The preset where one is given, else the file beside `model`; neither is an error, never a
    /// guess. A preset given in spite of a file wins, keeps the file's size, and says so in its
    /// name.
    pub fn choose(model: &Path, preset: Option<Preset>) -> Result<Self, PreprocessError> {
        match (preset, Self::beside(model)?) {
            (Some(preset), None) => Ok(preset.into()),
            (None, Some(file)) => Ok(file),
            (Some(preset), Some(file)) => Ok(Self {
                name: format!(
                    "{} (as given; `{}` is ignored)",
                    preset.name(),
                    Self::sidecar(model).display()
                ),
                size: file.size,
                ..preset.into()
            }),
            (None, None) => {
                Err(PreprocessError::Unknown { model: model.to_owned(), sidecar: Self::sidecar(model) })
            }
        }
    }

    /// An error where a value is out of range or does not fit a network of `channels` channels.
    pub fn check(&self, channels: usize) -> Result<(), PreprocessError> {
        let refuse = |field, value: String, accepted: &str| {
            Err(PreprocessError::Value { field, value, accepted: accepted.to_owned() })
        };
        if !self.scale.is_finite() || self.scale == 0.0 {
            return refuse("scale", self.scale.to_string(), "a finite number other than 0");
        }
        let fits =
            |list: &[f32]| [0, 1, channels].contains(&list.len()) && list.iter().all(|v| v.is_finite());
        if !fits(&self.mean) {
            let accepted =
                format!("none, one, or {channels} finite numbers for a network of {channels} channels");
            return refuse("mean", format!("{:?}", self.mean), &accepted);
        }
        if !fits(&self.std) || self.std.contains(&0.0) {
            let accepted = format!("none, one, or {channels} finite numbers other than 0");
            return refuse("std", format!("{:?}", self.std), &accepted);
        }
        match (self.channels, channels) {
            (Channels::Bgr, c) if c != 3 => {
                return refuse("channels", "bgr".into(), "3 channels in the network");
            }
            (Channels::Gray, c) if c != 1 => {
                return refuse("channels", "gray".into(), "1 channel in the network");
            }
            _ => {}
        }
        match self.resize_to {
            Some(_) if self.resize != Fit::Crop => {
                return refuse("resize_to", "given".into(), "`resize = \"crop\"` beside it");
            }
            Some(side) if !(1..=65_536).contains(&side) => {
                return refuse("resize_to", side.to_string(), "1 to 65536 pixels");
            }
            _ => {}
        }
        match self.size {
            Some([h, w]) if !(1..=65_536).contains(&h) || !(1..=65_536).contains(&w) => {
                refuse("size", format!("{h} x {w}"), "1 to 65536 pixels down and across")
            }
            _ => Ok(()),
        }
    }

    /// How an image of another size becomes one of the network's.
    pub fn resizing(&self) -> Resizing {
        Resizing { interpolation: self.interpolation, fit: self.resize, shorter_side: self.resize_to }
    }

    /// What black and white pixels become, by channel in the network's order: `[(black, white)]` of
    /// `channels`.
    pub fn range(&self, channels: usize) -> Vec<(f32, f32)> {
        let at = |list: &[f32], i: usize, default| {
            list.get(if list.len() == 1 { 0 } else { i }).copied().unwrap_or(default)
        };
        let map = |v: f32, i: usize| (v * self.scale - at(&self.mean, i, 0.0)) / at(&self.std, i, 1.0);
        (0..channels).map(|i| (map(0.0, i), map(1.0, i))).collect()
    }

    /// What the network takes, from pixels `[N, C, H, W]` in [0, 1]. Differentiable. The numbers
    /// must have passed [`Self::check`] for `C` channels.
    pub fn apply(&self, pixels: Tensor<4>) -> Tensor<4> {
        let [_, c, _, _] = pixels.dims();
        let ordered = if self.channels == Channels::Bgr { pixels.flip([1]) } else { pixels };
        let at = |list: &[f32], i: usize, default| {
            list.get(if list.len() == 1 { 0 } else { i }).copied().unwrap_or(default)
        };
        let factors: Vec<f32> = (0..c).map(|i| self.scale / at(&self.std, i, 1.0)).collect();
        let shifts: Vec<f32> = (0..c).map(|i| -at(&self.mean, i, 0.0) / at(&self.std, i, 1.0)).collect();
        let uniform = |list: &[f32]| list.iter().all(|v| *v == list[0]);
        let normalised = if factors.iter().all(|f| *f == 1.0) && shifts.iter().all(|s| *s == 0.0) {
            ordered
        } else if uniform(&factors) && uniform(&shifts) {
            ordered * factors[0] + shifts[0]
        } else {
            let device = ordered.device();
            let vector =
                |list: Vec<f32>| Tensor::<4>::from_data(TensorData::new(list, [1, c, 1, 1]), &device);
            ordered * vector(factors) + vector(shifts)
        };
        match self.layout {
            Layout::Nchw => normalised,
            Layout::Nhwc => normalised.permute([0, 2, 3, 1]),
        }
    }
}

/// What a preset maps pixels to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PresetRange {
    /// The preset's name.
    pub preset: String,
    /// What black and white become, by channel.
    pub ranges: Vec<(f32, f32)>,
    /// All that it does, in one line.
    pub text: String,
}

impl PresetRange {
    /// Of every preset that fits a network of `channels` channels.
    pub fn all(channels: usize) -> Vec<Self> {
        Preset::ALL
            .map(Preprocess::from)
            .into_iter()
            .filter(|preprocess| preprocess.check(channels).is_ok())
            .map(|p| Self { preset: p.name.clone(), ranges: p.range(channels), text: p.to_string() })
            .collect()
    }
}

impl fmt::Display for Preprocess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = match self.channels {
            Channels::Rgb => "RGB (or gray)",
            Channels::Bgr => "BGR",
            Channels::Gray => "gray",
        };
        write!(f, "{}: {order} of 0 to {}", self.name, self.scale)?;
        if !self.mean.is_empty() {
            write!(f, ", minus {:?}", self.mean)?;
        }
        if !self.std.is_empty() {
            write!(f, ", over {:?}", self.std)?;
        }
        if let Some([h, w]) = self.size {
            write!(f, ", {h} x {w} pixels (down x across)")?;
        }
        f.write_str(match self.layout {
            Layout::Nchw => ", channels first",
            Layout::Nhwc => ", channels last",
        })?;
        let filter = match self.interpolation {
            Interpolation::Bilinear => "bilinear",
            Interpolation::Bicubic => "bicubic",
        };
        match (self.resize, self.resize_to) {
            (Fit::Stretch, _) => write!(f, ", resized by {filter} stretching"),
            (Fit::Crop, None) => write!(f, ", {filter}, cropped to the middle"),
            (Fit::Crop, Some(side)) => {
                write!(f, ", {filter} to {side} on the shorter side, cropped to the middle")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn apply(preprocess: &Preprocess, pixels: &[f32]) -> Vec<f32> {
        let data = TensorData::new(pixels.to_vec(), [1, pixels.len(), 1, 1]);
        preprocess.check(pixels.len()).unwrap();
        let tensor = Tensor::from_data(data, &Device::flex());
        preprocess.apply(tensor).into_data().iter::<f32>().collect()
    }

    #[test]
    fn presets_map_black_gray_and_white_as_documented() {
        let cases = [
            (Preset::Arcface, [-0.996_093_75, 0.0, 0.996_093_75]),
            (Preset::Clip, [-1.792_262_6, 0.161_393_4, 2.145_897]),
            (Preset::ZeroToOne, [0.0, 0.5, 1.0]),
            (Preset::None, [0.0, 0.5, 1.0]),
            (Preset::MinusOneToOne, [-1.0, 0.0, 1.0]),
            (Preset::Raw255, [0.0, 127.5, 255.0]),
            (Preset::Imagenet, [-2.117_904, 0.196_428_57, 2.64]),
        ];
        for (preset, expected) in cases {
            for (found, wanted) in apply(&preset.into(), &[0.0, 0.5, 1.0]).iter().zip(expected) {
                assert!((found - wanted).abs() < 1e-5, "{preset:?}: {found} for {wanted}");
            }
        }
    }

    #[test]
    fn blue_first_reverses_the_channels() {
        let bgr = Preprocess { channels: Channels::Bgr, ..Preset::None.into() };
        assert_eq!(apply(&bgr, &[0.1, 0.2, 0.3]), [0.3, 0.2, 0.1]);
    }

    #[test]
    fn three_means_do_not_fit_a_gray_network() {
        let error = Preprocess::from(Preset::Imagenet).check(1).unwrap_err();
        assert!(error.to_string().starts_with("mean is [0.485"), "{error}");
    }

    #[test]
    fn a_file_beside_the_model_is_read_and_a_preset_wins_over_it() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("net.onnx");
        let missing = Preprocess::choose(&model, None).unwrap_err().to_string();
        assert!(missing.contains("imagenet, clip, arcface") && missing.contains("net.toml"), "{missing}");
        std::fs::write(
            folder.path().join("net.toml"),
            "scale = 255.0\nchannels = \"bgr\"\nsize = [112, 96]\n",
        )
        .unwrap();
        let file = Preprocess::choose(&model, None).unwrap();
        assert_eq!((file.scale, file.channels, file.size), (255.0, Channels::Bgr, Some([112, 96])));
        let given = Preprocess::choose(&model, Some(Preset::None)).unwrap();
        assert!(given.to_string().contains("is ignored"), "{given}");
        std::fs::write(folder.path().join("net.toml"), "sclae = 255.0\n").unwrap();
        assert!(matches!(Preprocess::choose(&model, None), Err(PreprocessError::Parse { .. })));
    }
}
