//! A retrieval system under test: a target, the gallery that it has embedded, and who matches whom.

use burn::tensor::Device;

use super::AuditError;
use super::data::hash_images;
use crate::dataset::{self, Item};
use crate::embedder::EmbedderError;
use crate::embedder::{Embedder, STREAM_BATCH, StreamError, embed_stream};
use crate::embedding::{Embeddings, Metric};
use crate::hash::Hash;
use crate::image::ImageBatch;
use crate::progress::Progress;
use crate::retrieval::{self, Evaluation, Relevance};

/// See the module.
pub struct System<'a> {
    target: &'a dyn Embedder,
    metric: Metric,
    relevance: Relevance,
    gallery: Vec<Item>,
    /// Embeddings of the gallery, in its order.
    pub gallery_embeddings: Embeddings,
    /// SHA-256 of the gallery's names and decoded pixels.
    pub gallery_hash: String,
    device: Device,
}

impl<'a> System<'a> {
    /// Reads and embeds `gallery`, of which only a few images are in memory at a time. A gallery
    /// image matches a query where their identities are the same. `progress` advances once per
    /// [`STREAM_BATCH`] images.
    pub fn new(
        target: &'a dyn Embedder,
        metric: Metric,
        queries: &[Item],
        gallery: &[Item],
        device: &Device,
        progress: &dyn Progress,
    ) -> Result<Self, AuditError> {
        let relevance = Relevance::by_identity(&identities(queries), &identities(gallery));
        let mut values = Vec::with_capacity(gallery.len() * target.dim());
        let mut hash = Hash::default();
        progress.begin("Embed the gallery", gallery.len().div_ceil(STREAM_BATCH));
        let read = embed_stream(gallery.iter().cloned(), target, device, |items, images, embeddings| {
            hash_images(&mut hash, items, images);
            values.extend_from_slice(embeddings.values());
            progress.advance("");
            Ok(())
        });
        read.map_err(|error| match error {
            StreamError::Data(error) => AuditError::Dataset(error),
            StreamError::Embedder(error) => AuditError::Embedder(target.name().into(), error),
        })?;
        progress.end();
        let broken = |e| AuditError::Embedder(target.name().into(), EmbedderError::from(e));
        let gallery_embeddings = Embeddings::new(target.dim(), values).map_err(broken)?;
        let (gallery, gallery_hash) = (gallery.to_vec(), hash.finish());
        Ok(Self {
            target,
            metric,
            relevance,
            gallery,
            gallery_embeddings,
            gallery_hash,
            device: device.clone(),
        })
    }

    /// Image `index` of the gallery, read anew, at the target's input size.
    pub fn gallery_image(&self, index: usize) -> Result<ImageBatch, AuditError> {
        let items = &self.gallery[index..=index];
        Ok(dataset::load(items, self.target.input(), self.target.resizing())?)
    }

    /// The embeddings of `images`, in their order.
    pub fn embed(&self, images: &ImageBatch) -> Result<Embeddings, AuditError> {
        let embedded = self.target.embed(images, &self.device);
        embedded.map_err(|e| AuditError::Embedder(self.target.name().into(), e))
    }

    /// Searches the gallery for `queries`, one image per query and in their order; also gives their
    /// embeddings.
    pub fn search(&self, queries: &ImageBatch) -> Result<(Evaluation, Embeddings), AuditError> {
        let embeddings = self.embed(queries)?;
        let found = retrieval::evaluate(&embeddings, &self.gallery_embeddings, &self.relevance, self.metric)?;
        Ok((found, embeddings))
    }
}

fn identities(items: &[Item]) -> Vec<&str> {
    items.iter().map(|item| item.identity.as_str()).collect()
}
