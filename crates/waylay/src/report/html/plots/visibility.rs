//! Strength against visibility: mAP that every attack leaves over the PSNR of its images, so that
//! attacks of unequal visibility can be compared.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Figure, Ink, TEXT, draw, quiet, span};
use crate::audit::outcome::{AttackRow, AuditReport};
use crate::audit::rows;
use crate::report::ReportError;

const SIZE: (u32, u32) = (1760, 640);
/// Least distance between two labels, in the drawing's units.
const LINE: i32 = 30;
/// From a point to its label.
const GAP: i32 = 18;

/// A point per attack with a finite PSNR; a line through PGD at several budgets, where there are
/// several. None where fewer than two attacks changed an image.
pub(in crate::report::html) fn visibility(audit: &AuditReport) -> Result<Option<Figure>, ReportError> {
    let points: Vec<(&AttackRow, f64, f64)> = rows::attacks(&audit.attacks)
        .filter_map(|row| Some((row, row.psnr_db.filter(|psnr| psnr.is_finite())?, row.scores.map)))
        .collect();
    if points.len() < 2 {
        return Ok(None);
    }
    let title = "mAP against PSNR: the lower left is stronger and easier to see, the lower right stronger and fainter";
    let x = span(points.iter().map(|p| p.1));
    // Room for labels right of the points.
    let x = x.start..x.end + 0.35 * (x.end - x.start);
    let top = points.iter().map(|p| p.2).fold(audit.clean.map, f64::max).max(0.05) * 1.08;
    let svg = draw(title, SIZE, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .margin_right(28)
            .x_label_area_size(86)
            .y_label_area_size(92)
            .build_cartesian_2d(x.clone(), 0.0..top)?;
        quiet(&mut chart.configure_mesh())
            .y_labels(5)
            .x_desc("PSNR in dB, higher is fainter")
            .x_label_formatter(&|psnr| format!("{psnr:.1}"))
            .y_label_formatter(&|fraction| format!("{:.0} %", fraction * 100.0))
            .draw()?;
        let clean = audit.clean.map;
        chart.draw_series([PathElement::new([(x.start, clean), (x.end, clean)], Ink::Clean.line(1.0, 2))])?;
        for line in budgets(&points) {
            chart.draw_series(LineSeries::new(line, Ink::Grid.line(1.0, 4)))?;
        }
        let mut labels = Vec::new();
        for (row, psnr, map) in &points {
            let ink = Ink::of(audit, &row.name);
            chart.draw_series([Circle::new((*psnr, *map), 9, ink.sentinel().filled())])?;
            labels.push((chart.backend_coord(&(*psnr, *map)), row.label.as_str()));
        }
        for ((x, y), label) in apart(labels) {
            // In the colour of its point, which it may be above.
            let of_label = points.iter().find(|(row, ..)| row.label == label);
            let ink = of_label.map_or(Ink::Text, |(row, ..)| Ink::of(audit, &row.name));
            let style = ink.text(TEXT).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(label.to_owned(), (x + GAP, y), style))?;
        }
        Ok(())
    })?;
    Ok(Some(Figure { title: title.into(), svg, key: Vec::new() }))
}

/// PSNR and mAP of attacks that differ in their budget alone, in the order of PSNR.
fn budgets(points: &[(&AttackRow, f64, f64)]) -> Vec<Vec<(f64, f64)>> {
    let mut families: Vec<(&AttackRow, Vec<(f64, f64)>)> = Vec::new();
    for (row, psnr, map) in points {
        match families.iter_mut().find(|(first, _)| same_but_for_budget(first, row)) {
            Some((_, line)) => line.push((*psnr, *map)),
            None => families.push((row, vec![(*psnr, *map)])),
        }
    }
    let mut lines: Vec<_> =
        families.into_iter().map(|(_, line)| line).filter(|line| line.len() > 1).collect();
    lines.iter_mut().for_each(|line| line.sort_by(|a, b| a.0.total_cmp(&b.0)));
    lines
}

/// Whether two rows are of one attack, at budgets of their own.
fn same_but_for_budget(a: &AttackRow, b: &AttackRow) -> bool {
    let without_budget = |row: &AttackRow| {
        let mut config = row.config.clone();
        config.as_object_mut().map(|config| config.remove("epsilon_255"));
        config
    };
    // The budget is the end of a name that has one of its own.
    let attack = |row: &AttackRow| row.name.split('@').next().map(str::to_owned);
    a.epsilon_255 != b.epsilon_255 && attack(a) == attack(b) && without_budget(a) == without_budget(b)
}

/// The labels from bottom to top, each beside its point or, where it would cover another label or
/// point, above it.
fn apart(mut labels: Vec<((i32, i32), &str)>) -> Vec<((i32, i32), &str)> {
    let points: Vec<(i32, i32)> = labels.iter().map(|(point, _)| *point).collect();
    labels.sort_by_key(|((_, y), _)| std::cmp::Reverse(*y));
    let width = |label: &str| GAP + 13 * label.chars().count() as i32;
    for i in 0..labels.len() {
        let (done, rest) = labels.split_at_mut(i);
        let ((x, y), label) = &mut rest[0];
        let (left, right, own) = (*x, *x + width(label), (*x, *y));
        let covers_label = |height: i32| {
            done.iter().any(|((other, at), text)| {
                left < *other + width(text) && *other < right && (height - at).abs() < LINE
            })
        };
        let covers_point = |height: i32| {
            points.iter().any(|point| {
                *point != own && (left + GAP / 2..right).contains(&point.0) && (height - point.1).abs() < LINE
            })
        };
        while *y > LINE && (covers_label(*y) || covers_point(*y)) {
            *y -= LINE / 2;
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::super::super::super::example;
    use super::*;

    #[test]
    fn every_attack_is_a_point_with_its_label() {
        let audit = example::audit();
        let svg = visibility(&audit).unwrap().unwrap().svg.to_string();
        for row in rows::attacks(&audit.attacks) {
            assert!(svg.contains(&row.label), "{}", row.label);
        }
        assert_eq!(svg.matches("<circle").count(), 5);
    }

    #[test]
    fn one_attack_at_several_budgets_is_a_line() {
        let mut audit = example::audit();
        let lines = |audit: &AuditReport| {
            let points: Vec<_> =
                audit.attacks.iter().map(|r| (r, r.psnr_db.unwrap(), r.scores.map)).collect();
            budgets(&points)
        };
        assert!(lines(&audit).is_empty());
        let (pgd_10, own) = (audit.attacks[3].clone(), &mut audit.attacks[4]);
        *own = AttackRow { name: format!("{}@4", pgd_10.name), epsilon_255: 4.0, ..pgd_10 };
        (own.psnr_db, own.scores.map) = (Some(20.0), 0.009);
        assert_eq!(lines(&audit), [[(20.0, 0.009), (33.9, 0.013)]]);
        audit.attacks[4].name = "another".into();
        assert!(lines(&audit).is_empty());
    }

    #[test]
    fn labels_do_not_cover_one_another() {
        let placed = apart(vec![((10, 100), "a"), ((12, 101), "b"), ((900, 100), "c"), ((11, 99), "d")]);
        for (i, ((x, y), _)) in placed.iter().enumerate() {
            for ((other_x, other_y), _) in &placed[..i] {
                assert!((x - other_x).abs() > 100 || (y - other_y).abs() >= LINE, "{placed:?}");
            }
        }
    }

    #[test]
    fn too_few_attacks_make_no_plot() {
        let mut audit = example::audit();
        audit.attacks.truncate(2);
        assert!(visibility(&audit).unwrap().is_none());
    }
}
