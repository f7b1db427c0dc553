//! `index.html`: the audit as one self-contained page. No script, no network, light and dark, phone
//! and desktop.

mod examples;
mod page;
mod plots;

pub use page::to_html;
