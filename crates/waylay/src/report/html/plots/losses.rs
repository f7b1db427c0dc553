//! How training went: one small plot per quantity, each with its own scale.

use plotters::prelude::*;

use super::{Figure, Ink, draw, quiet, span};
use crate::audit::number::short;
use crate::audit::outcome::{AuditReport, StepLog};
use crate::report::ReportError;

const SIZE: (u32, u32) = (640, 330);
/// Most points of a curve; more would not be seen.
const POINTS: usize = 320;
/// The share of steps that a smoothed point is the mean of.
const SMOOTHING: usize = 20;

const CHANGE: &str = "Mean ‖x̃ − x‖₂, part of the largest";

/// A title and where its quantity is found.
type Quantity = (&'static str, fn(&StepLog) -> f64);

const QUANTITIES: [Quantity; 13] = [
    ("Generator, weighted total", |step| step.generator),
    ("Metric term", |step| step.metric),
    ("Cosine, clean to perturbed", |step| step.cosine),
    ("Reconstruction term", |step| step.reconstruction),
    (CHANGE, |step| step.change),
    ("Adversarial (GAN) term", |step| step.gan),
    ("Feature-map similarity", |step| step.feature),
    ("Discriminator", |step| step.discriminator),
    ("Mean D of clean images", |step| step.d_clean),
    ("Mean D of attacked images", |step| step.d_perturbed),
    ("Gradient at x̃, metric and features", |step| step.metric_gradient),
    ("Gradient at x̃, reconstruction", |step| step.reconstruction_gradient),
    ("Gradient at x̃, GAN", |step| step.gan_gradient),
];

/// For each generator that was trained one plot per quantity that is not zero throughout; none for
/// a single step.
pub(in crate::report::html) fn losses(audit: &AuditReport) -> Result<Vec<Vec<Figure>>, ReportError> {
    audit.training.iter().map(|training| curves(&training.log)).collect()
}

fn curves(log: &[StepLog]) -> Result<Vec<Figure>, ReportError> {
    if log.len() < 2 {
        return Ok(Vec::new());
    }
    QUANTITIES
        .iter()
        .filter(|(_, quantity)| log.iter().any(|step| quantity(step) != 0.0))
        // Without a hinge, the term is the change.
        .filter(|(title, _)| *title != CHANGE || log.iter().any(|step| step.change != step.reconstruction))
        .map(|(title, quantity)| {
            let points = log.iter().map(|s| (s.step as f64, quantity(s)));
            let curve: Vec<(f64, f64)> = points.filter(|p| p.1.is_finite()).collect();
            Ok(Figure { title: (*title).into(), svg: plot(title, &curve)?, key: Vec::new() })
        })
        .collect()
}

fn plot(title: &str, curve: &[(f64, f64)]) -> Result<minijinja::Value, ReportError> {
    let smooth = thinned(&smoothed(curve));
    let values = without_outliers(curve).into_iter().chain(smooth.iter().map(|p| p.1));
    let y = span(values);
    let x = 0.0..curve.last().map_or(1.0, |p| p.0);
    let raw = thinned(curve).into_iter().map(|(step, v)| (step, v.clamp(y.start, y.end)));
    draw(title, SIZE, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(28)
            .x_label_area_size(44)
            .y_label_area_size(86)
            .build_cartesian_2d(x, y.clone())?;
        quiet(&mut chart.configure_mesh())
            .x_labels(4)
            .y_labels(4)
            .x_label_formatter(&|step| short(*step, 0))
            .y_label_formatter(&|value| short(*value, 3))
            .draw()?;
        chart.draw_series(LineSeries::new(raw, Ink::Clean.line(0.45, 1)))?;
        chart.draw_series(LineSeries::new(smooth, Ink::Headline.line(1.0, 4)))?;
        Ok(())
    })
}

/// Means over a window around every step.
fn smoothed(curve: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let half = (curve.len() / SMOOTHING / 2).max(1);
    let mean = |window: &[(f64, f64)]| window.iter().map(|p| p.1).sum::<f64>() / window.len().max(1) as f64;
    let at = |(index, point): (usize, &(f64, f64))| {
        let window = curve.get(index.saturating_sub(half)..(index + half + 1).min(curve.len()));
        (point.0, mean(window.unwrap_or_default()))
    };
    curve.iter().enumerate().map(at).collect()
}

fn thinned(curve: &[(f64, f64)]) -> Vec<(f64, f64)> {
    curve.iter().copied().step_by(curve.len().div_ceil(POINTS).max(1)).collect()
}

/// The values without the lowest and highest hundredth, which would flatten the curve.
fn without_outliers(curve: &[(f64, f64)]) -> Vec<f64> {
    let mut values: Vec<f64> = curve.iter().map(|p| p.1).collect();
    values.sort_by(f64::total_cmp);
    let cut = values.len() / 100;
    values.get(cut..values.len() - cut).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::super::super::super::example;
    use super::*;

    #[test]
    fn quantities_that_were_not_in_play_are_left_out() {
        let mut audit = example::audit();
        assert_eq!(losses(&audit).unwrap()[0].len(), 13);
        for step in audit.training.iter_mut().flat_map(|t| &mut t.log) {
            (step.gan, step.discriminator, step.d_clean, step.d_perturbed) = (0.0, 0.0, 0.0, 0.0);
            step.gan_gradient = 0.0;
        }
        assert_eq!(losses(&audit).unwrap()[0].len(), 8);
        audit.training.clear();
        assert!(losses(&audit).unwrap().is_empty());
    }

    #[test]
    fn smoothing_keeps_a_constant_and_long_logs_are_thinned() {
        let flat: Vec<(f64, f64)> = (0..5_000).map(|step| (f64::from(step), 2.0)).collect();
        assert_eq!(smoothed(&flat), flat);
        assert!(thinned(&flat).len() <= POINTS);
    }
}
