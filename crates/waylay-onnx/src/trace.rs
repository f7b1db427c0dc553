//! What a dry run on one made-up image measures.

use crate::graph::Id;

/// What a dry run measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    /// Shape of every tensor on the image's path, in the order they were made.
    pub shapes: Vec<(Id, Vec<usize>)>,
    /// Those of them that are maps over the image: made by a convolution or pooling, and not
    /// rearranged since.
    pub maps: Vec<Id>,
    /// Multiplications in convolutions and matrix products.
    pub multiply_adds: u64,
}
