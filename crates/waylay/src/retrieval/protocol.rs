//! Which gallery items count for which query: matches, junk, and the rest.

use std::collections::HashMap;

use super::RetrievalError;

/// For each query, the gallery items that are right and those that are left out of its ranking.
/// Whatever is neither is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relevance {
    queries: Vec<Judgement>,
    gallery: usize,
}

/// One query's gallery items by what they are, ascending, in at most one of the lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Judgement {
    matches: Vec<usize>,
    excluded: Vec<usize>,
}

impl Relevance {
    /// A gallery item is right where it has the identity of the query.
    pub fn by_identity<S: AsRef<str>>(query: &[S], gallery: &[S]) -> Self {
        let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, identity) in gallery.iter().enumerate() {
            places.entry(identity.as_ref()).or_default().push(index);
        }
        let matches = |identity: &S| places.get(identity.as_ref()).cloned().unwrap_or_default();
        let queries =
            query.iter().map(|id| Judgement { matches: matches(id), excluded: Vec::new() }).collect();
        Self { queries, gallery: gallery.len() }
    }

    /// As [`Relevance::by_identity`], but an item of the query's identity *and* camera is excluded:
    /// finding the same person on the next frame is no feat. Source: Zheng et al., "Scalable Person
    /// Re-identification" (Market-1501), ICCV 2015. An item without a camera shares it with none.
    ///
    /// Distractors need nothing more: they have an identity that no query has. Items that are junk
    /// for every query (identity −1 of Market-1501) do not belong in the gallery at all.
    pub fn with_cameras<S: AsRef<str>>(
        query: &[S],
        query_cameras: &[Option<u32>],
        gallery: &[S],
        gallery_cameras: &[Option<u32>],
    ) -> Result<Self, RetrievalError> {
        for (side, identities, cameras) in
            [("query", query.len(), query_cameras.len()), ("gallery", gallery.len(), gallery_cameras.len())]
        {
            if identities != cameras {
                return Err(RetrievalError::Cameras { side, identities, cameras });
            }
        }
        let mut relevance = Self::by_identity(query, gallery);
        for (judgement, camera) in relevance.queries.iter_mut().zip(query_cameras) {
            let (excluded, matches) = judgement
                .matches
                .iter()
                .partition(|item| camera.is_some() && gallery_cameras.get(**item) == Some(camera));
            *judgement = Judgement { matches, excluded };
        }
        Ok(relevance)
    }

    /// Leaves the gallery items of `pairs` (query, gallery) out of those queries' rankings: the
    /// query image itself where queries are part of the gallery, or items too poor to judge. An
    /// error where there is no such item.
    pub fn excluding(
        mut self,
        pairs: impl IntoIterator<Item = (usize, usize)>,
    ) -> Result<Self, RetrievalError> {
        let count = self.queries.len();
        for (query, item) in pairs {
            let Some(judgement) = self.queries.get_mut(query) else {
                return Err(RetrievalError::Index { side: "query", index: query, count });
            };
            if item >= self.gallery {
                return Err(RetrievalError::Index { side: "gallery", index: item, count: self.gallery });
            }
            if let Ok(at) = judgement.matches.binary_search(&item) {
                judgement.matches.remove(at);
            }
            if let Err(at) = judgement.excluded.binary_search(&item) {
                judgement.excluded.insert(at, item);
            }
        }
        Ok(self)
    }

    /// Number of queries.
    pub fn queries(&self) -> usize {
        self.queries.len()
    }

    /// Number of gallery items.
    pub fn gallery(&self) -> usize {
        self.gallery
    }

    /// Gallery items that are right for query `index`, ascending.
    pub fn matches(&self, index: usize) -> &[usize] {
        &self.queries[index].matches
    }

    /// Gallery items that are left out of the ranking of query `index`, ascending.
    pub fn excluded(&self, index: usize) -> &[usize] {
        &self.queries[index].excluded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_the_querys_identity_match() {
        let relevance = Relevance::by_identity(&["a", "c"], &["b", "a", "a"]);
        assert_eq!((relevance.queries(), relevance.gallery()), (2, 3));
        assert_eq!(relevance.matches(0), [1, 2]);
        assert!(relevance.matches(1).is_empty());
    }

    #[test]
    fn the_same_identity_on_the_same_camera_is_junk() {
        let cameras = [Some(1), Some(2), None, Some(1)];
        let relevance =
            Relevance::with_cameras(&["a", "a"], &[Some(1), None], &["a", "a", "a", "b"], &cameras).unwrap();
        assert_eq!((relevance.matches(0), relevance.excluded(0)), (&[1, 2][..], &[0][..]));
        assert_eq!((relevance.matches(1), relevance.excluded(1)), (&[0, 1, 2][..], &[][..]));
        let error = Relevance::with_cameras(&["a"], &[], &["a"], &[None]).unwrap_err();
        assert_eq!(error.to_string(), "0 cameras for 1 query identities; need one for each");
    }

    #[test]
    fn an_excluded_item_is_no_match_any_more() {
        let relevance = Relevance::by_identity(&["a", "b"], &["a", "a", "b"]);
        let relevance = relevance.excluding([(0, 2), (0, 0), (0, 0)]).unwrap();
        assert_eq!((relevance.matches(0), relevance.excluded(0)), (&[1][..], &[0, 2][..]));
        assert_eq!(relevance.matches(1), [2]);
        let error = relevance.clone().excluding([(2, 0)]).unwrap_err();
        assert_eq!(error.to_string(), "query item 2 of 2; need 0 to 1");
        let error = relevance.excluding([(0, 3)]).unwrap_err();
        assert_eq!(error.to_string(), "gallery item 3 of 3; need 0 to 2");
    }
}
