//! Embeds images that need not fit into memory together: they are decoded ahead of the network, a
//! bounded number at once.

use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use burn::tensor::Device;
use rayon::Yield;
use thiserror::Error;

use super::Embedder;
use super::EmbedderError;
use crate::dataset::{self, DatasetError, Item};
use crate::embedding::Embeddings;
use crate::image::ImageBatch;

/// Images that are decoded, and embedded, together.
pub const STREAM_BATCH: usize = 64;
/// Decoded batches that wait for the network at most.
const AHEAD: usize = 2;
/// How long to wait for a batch before looking for something to do.
const PAUSE: Duration = Duration::from_micros(200);

/// Why a stream of images could not be embedded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StreamError {
    /// An image cannot be used.
    #[error("read the images")]
    Data(#[from] DatasetError),
    /// The network failed.
    #[error("run the target")]
    Embedder(#[from] EmbedderError),
}

/// What waits between the two threads.
type Decoded = Result<(Vec<Item>, ImageBatch), DatasetError>;

/// Embeds `items` in their order and calls `each` with some of them at a time: the items, their
/// pixels at the target's input size, and their embeddings. One thread decodes while the network
/// runs on what is there; at most [`STREAM_BATCH`] times four images are in memory, however many
/// `items` gives. Ends at the first error, be it of an image, of the network or of `each`.
pub fn embed_stream<E: From<StreamError>>(
    items: impl Iterator<Item = Item> + Send,
    target: &dyn Embedder,
    device: &Device,
    mut each: impl FnMut(&[Item], &ImageBatch, &Embeddings) -> Result<(), E>,
) -> Result<(), E> {
    std::thread::scope(|scope| {
        let (sender, batches) = sync_channel::<Decoded>(AHEAD);
        scope.spawn(move || {
            let mut items = items.peekable();
            while items.peek().is_some() {
                let batch: Vec<Item> = items.by_ref().take(STREAM_BATCH).collect();
                let decoded = dataset::load(&batch, target.input(), target.resizing());
                let failed = decoded.is_err();
                // Where nobody listens any more, the other side has failed and says so.
                if sender.send(decoded.map(|images| (batch, images))).is_err() || failed {
                    return;
                }
            }
        });
        embed(batches, target, device, &mut each)
    })
}

/// Takes `batches` by value, so that they are closed, and their sender ends, as soon as this fails.
fn embed<E: From<StreamError>>(
    batches: Receiver<Decoded>,
    target: &dyn Embedder,
    device: &Device,
    each: &mut impl FnMut(&[Item], &ImageBatch, &Embeddings) -> Result<(), E>,
) -> Result<(), E> {
    while let Some(decoded) = next(&batches) {
        let (items, images) = decoded.map_err(StreamError::from)?;
        let embeddings = target.embed(&images, device).map_err(StreamError::from)?;
        each(&items, &images, &embeddings)?;
    }
    Ok(())
}

/// The next batch, once it is there. A thread that computes helps with the decoding meanwhile: it
/// may be the only one.
fn next(batches: &Receiver<Decoded>) -> Option<Decoded> {
    loop {
        match batches.recv_timeout(PAUSE) {
            Ok(decoded) => return Some(decoded),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => while rayon::yield_now() == Some(Yield::Executed) {},
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::dataset::Source;
    use crate::embedder::sample_embedder;
    use crate::image::Picture;

    fn item(index: usize) -> Item {
        let bytes = vec![(index % 251) as u8; 256];
        let picture = Picture { width: 16, height: 16, channels: 1, bytes };
        let source = Source::Memory(Arc::new(picture));
        Item { name: index.to_string(), identity: String::new(), camera: None, source }
    }

    #[test]
    fn images_are_made_only_a_few_batches_ahead_and_come_in_order() {
        let target = sample_embedder(Device::flex()).unwrap();
        let count = 30 * STREAM_BATCH + 7;
        let made = AtomicUsize::new(0);
        let items = (0..count).map(|index| {
            made.fetch_add(1, Ordering::SeqCst);
            item(index)
        });
        let mut done = 0;
        let mut rows = Vec::new();
        embed_stream::<StreamError>(items, &target, &Device::flex(), |items, images, embeddings| {
            assert!(made.load(Ordering::SeqCst) <= done + (AHEAD + 2) * STREAM_BATCH + 1);
            assert_eq!((items.len(), items[0].name.clone()), (images.count(), done.to_string()));
            done += items.len();
            rows.push(embeddings.row(0)[0]);
            Ok(())
        })
        .unwrap();
        assert_eq!(done, count);
        let alone = dataset::load(&[item(64)], target.input(), target.resizing()).unwrap();
        let alone = target.embed(&alone, &Device::flex()).unwrap();
        assert!((rows[1] - alone.row(0)[0]).abs() < 1e-5);
    }

    #[test]
    fn one_thread_is_enough_even_if_it_is_the_one_that_waits() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let target = sample_embedder(Device::flex()).unwrap();
        let mut done = 0;
        let embedded = pool.install(|| {
            embed_stream::<StreamError>((0..200).map(item), &target, &Device::flex(), |items, _, _| {
                done += items.len();
                Ok(())
            })
        });
        assert!(embedded.is_ok() && done == 200);
    }

    #[test]
    fn the_first_error_ends_the_stream() {
        let target = sample_embedder(Device::flex()).unwrap();
        let broken = Item { source: Source::File("/nowhere/at/all.png".into()), ..item(9) };
        let items = (0..1000).map(|index| if index == 130 { broken.clone() } else { item(index) });
        let mut seen = 0;
        let error = embed_stream::<StreamError>(items, &target, &Device::flex(), |items, _, _| {
            seen += items.len();
            Ok(())
        });
        assert!(matches!(error, Err(StreamError::Data(_))), "{error:?}");
        assert_eq!(seen, 2 * STREAM_BATCH);
        let refused =
            embed_stream(std::iter::repeat_with(|| item(0)), &target, &Device::flex(), |_, _, _| {
                Err(StreamError::Data(DatasetError::Nothing))
            });
        assert!(refused.is_err(), "a stream without an end ends where its results are refused");
    }
}
