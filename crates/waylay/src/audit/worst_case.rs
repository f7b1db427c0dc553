//! The worst case: for every query the strongest of the attacks that ran, as robust accuracy is
//! counted over an ensemble of attacks (Croce & Hein, arXiv:2003.01690, sec. 5).

use std::collections::BTreeMap;

use super::outcome::{AttackRow, WorstCase};
use super::rows;

/// The worst case over all rows that change an image; `None` where no attack that aims ran, or no
/// query has a match.
pub fn worst_case(attacks: &[AttackRow]) -> Option<WorstCase> {
    rows::strongest(attacks)?;
    let attacks: Vec<&AttackRow> = rows::attacks(attacks).collect();
    let queries = attacks.iter().map(|row| row.average_precision.len()).min()?;
    let (mut map, mut hits, mut counted) = (0.0, 0, 0);
    let mut strongest = BTreeMap::new();
    for query in 0..queries {
        let left = attacks.iter().filter_map(|row| Some((row, row.average_precision[query]?)));
        let Some((row, precision)) = left.min_by(|a, b| a.1.total_cmp(&b.1)) else { continue };
        counted += 1;
        map += precision;
        let hit = |row: &&AttackRow| row.first_match.get(query).copied().flatten() == Some(1);
        hits += usize::from(attacks.iter().all(hit));
        *strongest.entry(row.name.clone()).or_default() += 1;
    }
    let mean = |sum: f64| sum / f64::from(counted);
    (counted > 0).then(|| WorstCase { map: mean(map), rank1: mean(f64::from(hits as u32)), strongest })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    /// A name, average precisions, and ranks of the first match.
    type Given = (&'static str, [Option<f64>; 3], [Option<usize>; 3]);

    fn rows(of: &[Given]) -> Vec<AttackRow> {
        let blank = example::audit().attacks[1].clone();
        of.iter()
            .map(|(name, precision, first)| AttackRow {
                name: (*name).into(),
                average_precision: precision.to_vec(),
                first_match: first.to_vec(),
                ..blank.clone()
            })
            .collect()
    }

    #[test]
    fn every_query_counts_with_its_strongest_attack() {
        let rows = rows(&[
            ("none", [Some(1.0), Some(1.0), None], [Some(1), Some(1), None]),
            ("noise", [Some(0.9), Some(0.3), None], [Some(1), Some(1), None]),
            ("pgd", [Some(0.2), Some(0.5), None], [Some(4), Some(1), None]),
        ]);
        let worst = worst_case(&rows).unwrap();
        assert!((worst.map - 0.25).abs() < 1e-12 && worst.rank1 == 0.5, "{worst:?}");
        assert_eq!(worst.strongest, BTreeMap::from([("noise".into(), 1), ("pgd".into(), 1)]));
    }

    #[test]
    fn a_query_that_one_attack_moves_is_no_hit_though_a_stronger_one_leaves_it() {
        let rows = rows(&[
            ("fgsm", [Some(0.5), None, None], [Some(2), None, None]),
            ("pgd", [Some(0.4), None, None], [Some(1), None, None]),
        ]);
        let worst = worst_case(&rows).unwrap();
        assert_eq!((worst.map, worst.rank1), (0.4, 0.0));
    }

    #[test]
    fn noise_alone_is_no_worst_case() {
        let aimless = rows(&[("noise", [Some(0.9); 3], [Some(1); 3])]);
        assert_eq!(worst_case(&aimless), None);
        let nothing_to_find = rows(&[("pgd", [None; 3], [None; 3])]);
        assert_eq!(worst_case(&nothing_to_find), None);
    }
}
