//! What an [`AuditReport`](crate::audit::AuditReport) looks like on paper: one exporter per file,
//! from the value to text or bytes. Nothing here computes a result, writes a file or prints. The
//! page needs the feature `html`, which is on by default.

mod contact_sheet;
mod csv;
#[cfg(test)]
pub(crate) mod example;
#[cfg(feature = "html")]
mod html;
mod json;
mod table;

use thiserror::Error;

pub use contact_sheet::contact_sheet;
pub use csv::to_csv;
#[cfg(feature = "html")]
pub use html::to_html;
pub use json::{from_json, to_json};
pub use table::to_text;

/// Why an audit cannot be exported, or not be read back.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReportError {
    /// The text is not a report of this layout.
    #[error("report json")]
    Json(#[from] serde_json::Error),
    /// The report has another layout than this version reads.
    #[error("report of schema `{found}`; this version reads `{expected}`")]
    Schema {
        /// What the report says it is.
        found: String,
        /// [`crate::audit::outcome::SCHEMA`].
        expected: &'static str,
    },
    /// A number is infinite or not a number, which JSON cannot hold.
    #[error("`{field}` is not a finite number; a report holds no others")]
    NotFinite {
        /// Path of the number, such as `attacks.2.ssim`.
        field: String,
    },
    /// The page does not render.
    #[cfg(feature = "html")]
    #[error("report page")]
    Page(#[from] minijinja::Error),
    /// A plot cannot be drawn.
    #[cfg(feature = "html")]
    #[error("plot `{plot}`: {cause}")]
    Plot {
        /// The plot's title.
        plot: String,
        /// What the drawing library says.
        cause: String,
    },
    /// An example's picture cannot be decoded or the sheet not be encoded.
    #[error("picture `{name}`")]
    Picture {
        /// The picture's name.
        name: String,
        /// What the codec says.
        source: image::ImageError,
    },
}
