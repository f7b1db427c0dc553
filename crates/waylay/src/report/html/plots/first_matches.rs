//! How far down the first true match is pushed: the fraction of queries that have one within rank
//! k.

use plotters::prelude::*;

use super::{Figure, Ink, Key, draw, quiet};
use crate::audit::outcome::AuditReport;
use crate::report::ReportError;

const SIZE: (u32, u32) = (880, 560);

/// A stepped curve per row, rank on a logarithmic axis; none where no query has a match.
pub(in crate::report::html) fn first_matches(audit: &AuditReport) -> Result<Option<Figure>, ReportError> {
    let curves: Vec<(&str, Ink, Vec<usize>)> = audit
        .attacks
        .iter()
        .map(|row| {
            let mut ranks: Vec<usize> = row.first_match.iter().flatten().copied().collect();
            ranks.sort_unstable();
            (row.label.as_str(), Ink::of(audit, &row.name), ranks)
        })
        .filter(|curve| !curve.2.is_empty())
        .collect();
    if curves.is_empty() {
        return Ok(None);
    }
    let last = curves.iter().filter_map(|curve| curve.2.last()).max().map_or(10, |&rank| rank.max(10)) as f64;
    let title = "Queries whose first true match is within rank k";
    let svg = draw(title, SIZE, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_top(20)
            .margin_right(28)
            .x_label_area_size(86)
            .y_label_area_size(92)
            .build_cartesian_2d((1.0..last).log_scale(), 0.0..1.0)?;
        quiet(&mut chart.configure_mesh())
            .x_labels(5)
            .y_labels(5)
            .x_desc("rank k (logarithmic)")
            .x_label_formatter(&|rank| format!("{rank:.0}"))
            .y_label_formatter(&|fraction| format!("{:.0} %", fraction * 100.0))
            .draw()?;
        for (_, ink, ranks) in &curves {
            let width = if matches!(ink, Ink::Headline | Ink::Clean) { 5 } else { 4 };
            chart.draw_series(LineSeries::new(steps(ranks, last), ink.line(1.0, width)))?;
        }
        Ok(())
    })?;
    let key =
        curves.iter().map(|(label, ink, _)| Key { label: (*label).into(), colour: ink.variable() }).collect();
    Ok(Some(Figure { title: title.into(), svg, key }))
}

/// The corners of the stepped curve through sorted `ranks`, from rank 1 to `last`.
fn steps(ranks: &[usize], last: f64) -> Vec<(f64, f64)> {
    let within = |rank: usize| ranks.partition_point(|&r| r <= rank) as f64 / ranks.len().max(1) as f64;
    let mut corners = vec![(1.0, within(1))];
    let mut different = ranks.to_vec();
    different.dedup();
    for rank in different.into_iter().filter(|&rank| rank > 1) {
        corners.push((rank as f64, within(rank - 1)));
        corners.push((rank as f64, within(rank)));
    }
    corners.push((last, within(usize::MAX)));
    corners
}

#[cfg(test)]
mod tests {
    use super::super::super::super::example;
    use super::*;

    #[test]
    fn the_curve_steps_up_at_every_rank_and_ends_at_one() {
        let corners = steps(&[1, 1, 4, 9], 20.0);
        assert_eq!(corners, [(1.0, 0.5), (4.0, 0.5), (4.0, 0.75), (9.0, 0.75), (9.0, 1.0), (20.0, 1.0)]);
    }

    #[test]
    fn every_row_has_a_key_and_no_match_means_no_plot() {
        let mut audit = example::audit();
        assert_eq!(first_matches(&audit).unwrap().unwrap().key.len(), 6);
        audit.attacks.iter_mut().for_each(|row| row.first_match = vec![None; 3]);
        assert!(first_matches(&audit).unwrap().is_none());
    }
}
