//! Rank-1 and mAP of embeddings from NumPy: `evaluate_npy QUERY.npy QUERY.txt GALLERY.npy
//! GALLERY.txt`, `float32` rows and one identity per line.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs::{File, read_to_string};

use waylay::prelude::*;

fn embeddings(path: &str) -> Result<Embeddings, Box<dyn Error>> {
    let array = npyz::NpyFile::new(File::open(path)?)?;
    let [_, dim] = array.shape()[..] else { return Err(format!("{path}: need rows of embeddings").into()) };
    Ok(Embeddings::new(dim as usize, array.into_vec::<f32>()?)?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [query, query_names, gallery, gallery_names] = &arguments[..] else {
        return Err("evaluate_npy QUERY.npy QUERY.txt GALLERY.npy GALLERY.txt".into());
    };
    let (query_names, gallery_names) = (read_to_string(query_names)?, read_to_string(gallery_names)?);
    let [query_names, gallery_names] =
        [&query_names, &gallery_names].map(|text| text.lines().collect::<Vec<_>>());
    let relevance = Relevance::by_identity(&query_names, &gallery_names);
    let (query, gallery) = (embeddings(query)?, embeddings(gallery)?);
    let scores = retrieval::evaluate(&query, &gallery, &relevance, Metric::Cosine)?.scores;
    println!("rank-1 {:.1} %, mAP {:.1} %", 100.0 * scores.rank1, 100.0 * scores.map);
    Ok(())
}
