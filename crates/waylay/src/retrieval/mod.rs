//! Retrieval: exact search in embeddings, and how well it finds the right items.
//!
//! [`evaluate`] is the main door. A metric is one file with one function of the [`MatchRanks`] of a
//! query, averaged over the queries in [`Scores`].

mod average_precision;
mod error;
mod minp;
mod protocol;
mod rank_k;
mod ranking;
mod recall;
mod scores;
mod search;

pub use average_precision::average_precision;
pub use error::RetrievalError;
pub use minp::inverse_negative_penalty;
pub use protocol::Relevance;
pub use rank_k::found_within;
pub use ranking::MatchRanks;
pub use recall::recall_at;
pub use scores::{Evaluation, QueryResult, Scores, evaluate};
pub use search::{Distances, Hit, distances, top_k};
