//! waylay answers one question for the people who run image search, person re-identification or face search on
//! deep features: how easily can a barely visible change to the query make the system lose the right answer?
//!
//! The flow is one way: [`image`] → [`dataset`] → [`embedder`] → [`attack`] → [`retrieval`] and [`quality`] →
//! [`audit`] → [`report`]. A module uses those to its left and none to its right.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod attack;
pub mod audit;
pub mod dataset;
pub mod embedder;
pub mod embedding;
pub mod fit;
pub mod image;
mod layer;
pub mod quality;
pub mod report;
pub mod retrieval;
pub mod run;
