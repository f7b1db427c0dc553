//! Distances from queries to their true matches: one small plot per attack, over the clean
//! distances.

use plotters::prelude::*;

use super::{Figure, Ink, TEXT, draw};
use crate::audit::number::short;
use crate::audit::outcome::{AuditReport, Histogram};
use crate::audit::rows;
use crate::report::ReportError;

const SIZE: (u32, u32) = (640, 300);

/// A plot per attack on common axes; none where the audit counts no distances.
pub(in crate::report::html) fn distances(audit: &AuditReport) -> Result<Vec<Figure>, ReportError> {
    let clean = rows::clean(&audit.attacks).map(|row| density(&row.distances)).unwrap_or_default();
    let attacked: Vec<_> = rows::attacks(&audit.attacks)
        .map(|row| (row.label.as_str(), Ink::of(audit, &row.name), density(&row.distances)))
        .filter(|(_, _, bins)| !bins.is_empty())
        .collect();
    let bins = || attacked.iter().flat_map(|(_, _, bins)| bins).chain(&clean);
    let low = bins().map(|bin| bin.from).fold(f64::INFINITY, f64::min);
    let high = bins().map(|bin| bin.to).fold(f64::NEG_INFINITY, f64::max);
    let top = bins().map(|bin| bin.density).fold(0.0, f64::max) * 1.05;
    attacked
        .iter()
        .map(|(label, ink, bins)| {
            let svg = draw(&format!("Distances to true matches: {label}"), SIZE, |area| {
                let mut chart = ChartBuilder::on(area)
                    .margin(8)
                    .margin_right(28)
                    .x_label_area_size(44)
                    .y_label_area_size(8)
                    .build_cartesian_2d(low..high, 0.0..top)?;
                chart
                    .configure_mesh()
                    .disable_mesh()
                    .disable_y_axis()
                    .axis_style(Ink::Grid.line(1.0, 2))
                    .label_style(Ink::Text.text(TEXT))
                    .x_labels(5)
                    .x_label_formatter(&|distance| short(*distance, 2))
                    .draw()?;
                let fill = |ink: Ink, opacity: f64| ink.sentinel().mix(opacity).filled();
                for (bins, ink, opacity) in [(&clean, Ink::Clean, 0.4), (bins, *ink, 0.3)] {
                    chart.draw_series([Polygon::new(outline(bins), fill(ink, opacity))])?;
                }
                chart.draw_series([PathElement::new(outline(bins), ink.line(1.0, 4))])?;
                Ok(())
            })?;
            Ok(Figure { title: (*label).into(), svg, key: Vec::new() })
        })
        .collect()
}

struct Bin {
    from: f64,
    to: f64,
    density: f64,
}

/// Bins whose area is 1 in all, without the empty ones at both ends; none where nothing was counted
/// or the ends make no range.
fn density(histogram: &Histogram) -> Vec<Bin> {
    let total: usize = histogram.counts.iter().sum();
    let width = (histogram.to - histogram.from) / histogram.counts.len().max(1) as f64;
    if total == 0 || !(width > 0.0 && width.is_finite()) {
        return Vec::new();
    }
    let bin = |(index, &count): (usize, &usize)| {
        let from = histogram.from + index as f64 * width;
        Bin { from, to: from + width, density: count as f64 / total as f64 / width }
    };
    let first = histogram.counts.iter().position(|&count| count > 0).unwrap_or(0);
    let last = histogram.counts.iter().rposition(|&count| count > 0).unwrap_or(0);
    histogram.counts.iter().enumerate().map(bin).skip(first).take(last + 1 - first).collect()
}

/// The steps over the bins, from the axis and back to it.
fn outline(bins: &[Bin]) -> Vec<(f64, f64)> {
    let tops = bins.iter().flat_map(|bin| [(bin.from, bin.density), (bin.to, bin.density)]);
    let first = bins.first().map(|bin| (bin.from, 0.0));
    let last = bins.last().map(|bin| (bin.to, 0.0));
    first.into_iter().chain(tops).chain(last).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::super::example;
    use super::*;

    #[test]
    fn densities_have_area_one() {
        let bins = density(&Histogram { from: 0.0, to: 2.0, counts: vec![0, 1, 0, 3, 0, 0, 0, 0] });
        let area: f64 = bins.iter().map(|bin| bin.density * (bin.to - bin.from)).sum();
        assert!((area - 1.0).abs() < 1e-12);
        assert_eq!((bins.len(), outline(&bins).first()), (3, Some(&(0.25, 0.0))));
    }

    #[test]
    fn histograms_without_values_or_range_are_left_out() {
        for histogram in [
            Histogram::default(),
            Histogram { from: 0.0, to: 1.0, counts: vec![0, 0] },
            Histogram { from: 1.0, to: 1.0, counts: vec![5] },
            Histogram { from: f64::NAN, to: 1.0, counts: vec![5] },
        ] {
            assert!(density(&histogram).is_empty());
        }
        let mut audit = example::audit();
        assert_eq!(distances(&audit).unwrap().len(), 5);
        audit.attacks.remove(0);
        assert_eq!(distances(&audit).unwrap().len(), 5);
        audit.attacks.iter_mut().for_each(|row| row.distances = Histogram::default());
        assert!(distances(&audit).unwrap().is_empty());
    }
}
