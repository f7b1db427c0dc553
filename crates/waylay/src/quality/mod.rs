//! Quality: how far an adversarial image is from the clean one, measured on what was saved.
//!
//! [`measure`] is the door; one measure of one pair of images is one file.

mod l2;
mod linf;
mod measure;
mod psnr;
mod ssim;

pub use l2::l2;
pub use linf::linf_255;
pub use measure::{ImageQuality, Quality, QualityError, measure};
pub use psnr::psnr_db;
pub use ssim::{SSIM_WINDOW, ssim};
