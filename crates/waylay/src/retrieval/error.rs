//! What can be wrong with a search or an evaluation.

use thiserror::Error;

/// A search or an evaluation that cannot be done.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetrievalError {
    /// Queries and gallery were embedded by different networks.
    #[error("queries of {query} dimensions in a gallery of {gallery} dimensions; need the same")]
    Dimensions {
        /// Dimensions of the queries.
        query: usize,
        /// Dimensions of the gallery.
        gallery: usize,
    },
    /// More or fewer results were asked for than there are.
    #[error("the first {k} results from a gallery of {gallery}; need 1 to {gallery}")]
    Results {
        /// Results asked for.
        k: usize,
        /// Size of the gallery.
        gallery: usize,
    },
    /// The relevance was built for another set of embeddings.
    #[error("relevance of {judged} {side} items for {found} embeddings; need one for each")]
    Judged {
        /// `query` or `gallery`.
        side: &'static str,
        /// Items that the relevance knows.
        judged: usize,
        /// Embeddings given.
        found: usize,
    },
    /// Identities and cameras do not belong together.
    #[error("{cameras} cameras for {identities} {side} identities; need one for each")]
    Cameras {
        /// `query` or `gallery`.
        side: &'static str,
        /// Identities given.
        identities: usize,
        /// Cameras given.
        cameras: usize,
    },
    /// An item was named that is not there.
    #[error("{side} item {index} of {count}; need 0 to {}", count.saturating_sub(1))]
    Index {
        /// `query` or `gallery`.
        side: &'static str,
        /// The item named.
        index: usize,
        /// Items there are.
        count: usize,
    },
    /// There is nothing to average over.
    #[error("none of the {queries} queries has a match in the gallery; need at least one")]
    NoMatch {
        /// Number of queries.
        queries: usize,
    },
}
