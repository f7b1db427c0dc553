//! Which rows of an audit a report singles out.

use crate::audit::outcome::AttackRow;

/// Name of the row whose images are the clean ones.
pub(crate) const CLEAN: &str = "none";
/// Name of the row that changes pixels without aiming.
pub(crate) const NOISE: &str = "noise";
/// Name of the row of the paper's attack.
pub(crate) const UAA_GAN: &str = "uaa-gan";

/// The row of the queries as they are.
#[cfg(feature = "html")]
pub(crate) fn clean(rows: &[AttackRow]) -> Option<&AttackRow> {
    rows.iter().find(|row| row.name == CLEAN)
}

/// Every row that changes an image, in the order they ran.
pub(crate) fn attacks(rows: &[AttackRow]) -> impl Iterator<Item = &AttackRow> {
    rows.iter().filter(|row| row.name != CLEAN)
}

/// Whether the row is of an attack that aims at the target; noise does not.
pub(crate) fn aims(row: &AttackRow) -> bool {
    row.name != CLEAN && row.name != NOISE
}

/// The aimed attack that leaves the least mAP.
pub(crate) fn strongest(rows: &[AttackRow]) -> Option<&AttackRow> {
    let aimed = rows.iter().filter(|row| aims(row) && row.scores.map.is_finite());
    aimed.min_by(|a, b| a.scores.map.total_cmp(&b.scores.map))
}

/// The row that plots and examples single out: UAA-GAN, else the strongest, else noise.
pub(crate) fn shown(rows: &[AttackRow]) -> Option<&AttackRow> {
    rows.iter().find(|row| row.name == UAA_GAN).or_else(|| strongest(rows)).or_else(|| attacks(rows).next())
}
