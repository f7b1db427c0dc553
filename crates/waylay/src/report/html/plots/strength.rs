//! mAP that every attack leaves, strongest last, beside the clean mAP.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Figure, Ink, TEXT, draw};
use crate::audit::number::percent;
use crate::audit::outcome::AuditReport;
use crate::audit::rows;
use crate::report::ReportError;

const WIDTH: u32 = 880;
const ROW: u32 = 62;
const AXIS: u32 = 50;
/// Characters of a label that fit beside the bars.
const LABEL: usize = 26;

/// A bar per attack, sorted by mAP; none without attacks.
pub(in crate::report::html) fn strength(audit: &AuditReport) -> Result<Option<Figure>, ReportError> {
    let mut bars: Vec<(&str, f64, Ink)> = rows::attacks(&audit.attacks)
        .map(|row| (row.label.as_str(), row.scores.map, Ink::of(audit, &row.name)))
        .filter(|bar| bar.1.is_finite())
        .collect();
    if bars.is_empty() {
        return Ok(None);
    }
    bars.sort_by(|a, b| b.1.total_cmp(&a.1));
    bars.insert(0, ("No attack", audit.clean.map, Ink::Clean));
    let title = "mAP under each attack, strongest last";
    let height = bars.len() as u32 * ROW + AXIS + 16;
    let svg = draw(title, (WIDTH, height), |area| {
        let rows = bars.len() as f64;
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(110)
            .x_label_area_size(AXIS)
            .y_label_area_size(370)
            .build_cartesian_2d(0.0..1.0, rows..0.0)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .light_line_style(TRANSPARENT)
            .bold_line_style(Ink::Grid.line(1.0, 1))
            .axis_style(Ink::Grid.line(1.0, 2))
            .label_style(Ink::Text.text(TEXT))
            .x_labels(5)
            .y_labels(0)
            .x_label_formatter(&|fraction| format!("{:.0} %", fraction * 100.0))
            .draw()?;
        for (index, (label, map, ink)) in bars.iter().enumerate() {
            let (top, middle) = (index as f64, index as f64 + 0.5);
            chart.draw_series([Rectangle::new(
                [(0.0, top + 0.2), (*map, top + 0.8)],
                ink.sentinel().filled(),
            )])?;
            let (x, y) = chart.backend_coord(&(0.0, middle));
            let left = Ink::Text.text(TEXT).pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(shortened(label), (x - 16, y), left))?;
            let (x, y) = chart.backend_coord(&(*map, middle));
            let right = Ink::Text.text(TEXT).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(percent(*map), (x + 12, y), right))?;
        }
        let clean = audit.clean.map;
        chart.draw_series([PathElement::new([(clean, 0.2), (clean, rows)], Ink::Clean.line(1.0, 2))])?;
        Ok(())
    })?;
    Ok(Some(Figure { title: title.into(), svg, key: Vec::new() }))
}

fn shortened(label: &str) -> String {
    if label.chars().count() <= LABEL {
        return label.into();
    }
    label.chars().take(LABEL - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::super::example;
    use super::*;

    #[test]
    fn bars_are_sorted_and_labelled() {
        let svg = strength(&example::audit()).unwrap().unwrap().svg.to_string();
        let places =
            ["No attack", "Random noise", "FGSM", "UAA-GAN", "PGD, 10 gradients", "PGD, 40 gradients"]
                .map(|label| svg.find(label).unwrap_or_else(|| panic!("{label}")));
        assert!(places.is_sorted());
        assert!(svg.contains("90.8 %"));
    }

    #[test]
    fn hostile_and_endless_labels_stay_text() {
        let mut audit = example::audit();
        audit.attacks[1].label = "<script>".into();
        audit.attacks[2].label = "x".repeat(200);
        let svg = strength(&audit).unwrap().unwrap().svg.to_string();
        assert!(!svg.contains("<script") && svg.contains("&lt;script") && !svg.contains(&"x".repeat(LABEL)));
    }

    #[test]
    fn without_attacks_there_is_nothing_to_draw() {
        let mut audit = example::audit();
        audit.attacks.truncate(1);
        assert!(strength(&audit).unwrap().is_none());
    }
}
