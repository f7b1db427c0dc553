//! A retrieval system under test: a target, the gallery that it has embedded, and who matches whom.

use burn::tensor::Device;

use super::AuditError;
use crate::dataset::{self, Item};
use crate::image::ImageBatch;
use crate::retrieval::{self, Evaluation, Relevance};
use crate::target::{Embeddings, Metric, Target};

/// See the module.
pub struct System<'a> {
    target: &'a dyn Target,
    metric: Metric,
    relevance: Relevance,
    /// The gallery at the target's input size.
    pub gallery: ImageBatch,
    /// Its embeddings.
    pub gallery_embeddings: Embeddings,
    device: Device,
}

impl<'a> System<'a> {
    /// Reads and embeds `gallery`. A gallery image matches a query where their identities are the same.
    pub fn new(
        target: &'a dyn Target,
        metric: Metric,
        queries: &[Item],
        gallery: &[Item],
        device: &Device,
    ) -> Result<Self, AuditError> {
        let relevance = Relevance::by_identity(&identities(queries), &identities(gallery));
        let gallery = dataset::load(gallery, target.input(), target.resizing())?;
        let gallery_embeddings = embed(target, &gallery, device)?;
        Ok(Self { target, metric, relevance, gallery, gallery_embeddings, device: device.clone() })
    }

    /// The embeddings of `images`, in their order.
    pub fn embed(&self, images: &ImageBatch) -> Result<Embeddings, AuditError> {
        embed(self.target, images, &self.device)
    }

    /// Searches the gallery for `queries`, one image per query and in their order; also gives their embeddings.
    pub fn search(&self, queries: &ImageBatch) -> Result<(Evaluation, Embeddings), AuditError> {
        let embeddings = self.embed(queries)?;
        let found = retrieval::evaluate(&embeddings, &self.gallery_embeddings, &self.relevance, self.metric)?;
        Ok((found, embeddings))
    }
}

fn embed(target: &dyn Target, images: &ImageBatch, device: &Device) -> Result<Embeddings, AuditError> {
    target.embed(images, device).map_err(|e| AuditError::Target(target.name().into(), e))
}

fn identities(items: &[Item]) -> Vec<&str> {
    items.iter().map(|item| item.identity.as_str()).collect()
}
