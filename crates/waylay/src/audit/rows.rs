//! Which rows of an audit a report singles out.

use crate::audit::outcome::AttackRow;

/// Name of the row whose images are the clean ones.
pub(crate) const CLEAN: &str = "none";
/// Name of the row that changes pixels without aiming.
pub(crate) const NOISE: &str = "noise";
/// Name of the row that the audit is about.
pub(crate) const UAA_GAN: &str = "uaa-gan";

/// The row of the queries as they are.
pub(crate) fn clean(rows: &[AttackRow]) -> Option<&AttackRow> {
    rows.iter().find(|row| row.name == CLEAN)
}

/// Every row that changes an image, in the order they ran.
pub(crate) fn attacks(rows: &[AttackRow]) -> impl Iterator<Item = &AttackRow> {
    rows.iter().filter(|row| row.name != CLEAN)
}

/// The aimed attack that leaves the least mAP; noise does not aim.
pub(crate) fn strongest(rows: &[AttackRow]) -> Option<&AttackRow> {
    let aimed = attacks(rows).filter(|row| row.name != NOISE && row.scores.map.is_finite());
    aimed.min_by(|a, b| a.scores.map.total_cmp(&b.scores.map))
}

/// The row that the key figures are taken from: UAA-GAN, else the strongest, else noise.
pub(crate) fn headline(rows: &[AttackRow]) -> Option<&AttackRow> {
    rows.iter().find(|row| row.name == UAA_GAN).or_else(|| strongest(rows)).or_else(|| attacks(rows).next())
}
