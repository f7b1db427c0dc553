//! The plots of the page: drawn by plotters as SVG, coloured by the page's style sheet, so that
//! they follow its theme.

mod distances;
mod first_matches;
mod losses;
mod strength;
mod visibility;

use minijinja::HtmlEscape;
use minijinja::value::Value;
use plotters::chart::MeshStyle;
use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;
use plotters::style::TextStyle;
use serde::Serialize;

use super::super::ReportError;
use crate::audit::outcome::AuditReport;
use crate::audit::rows;

pub(super) use distances::distances;
pub(super) use first_matches::first_matches;
pub(super) use losses::losses;
pub(super) use strength::strength;
pub(super) use visibility::visibility;

/// What plotters reports while drawing to a string.
type PlotError = DrawingAreaErrorKind<std::io::Error>;
/// Where a plot is painted.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Series colours in style.css besides clean and headline.
const SERIES: u8 = 5;
/// Size of the plots' text. Plots are drawn at about twice the size they are shown at, since
/// plotters rounds to whole units.
const TEXT: f64 = 24.0;

/// A drawing with its caption's title and the key to its lines.
#[derive(Serialize)]
pub(super) struct Figure {
    title: String,
    svg: Value,
    key: Vec<Key>,
}

/// A line's name and the CSS variable of its colour.
#[derive(Serialize)]
struct Key {
    label: String,
    colour: String,
}

/// A colour that the style sheet decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ink {
    Text,
    Grid,
    Clean,
    Headline,
    /// From 1 to [`SERIES`].
    Series(u8),
}

impl Ink {
    const ALL: [Self; 9] = [
        Self::Text,
        Self::Grid,
        Self::Clean,
        Self::Headline,
        Self::Series(1),
        Self::Series(2),
        Self::Series(3),
        Self::Series(4),
        Self::Series(5),
    ];

    /// The ink of `name`'s row: the clean and the shown row have their own, the others take turns.
    fn of(audit: &AuditReport, name: &str) -> Self {
        let headline = rows::shown(&audit.attacks).map(|row| row.name.as_str());
        if name == rows::CLEAN {
            return Self::Clean;
        }
        if Some(name) == headline {
            return Self::Headline;
        }
        let others = rows::attacks(&audit.attacks).filter(|row| Some(row.name.as_str()) != headline);
        let place = others.take_while(|row| row.name != name).count();
        Self::Series((place % usize::from(SERIES)) as u8 + 1)
    }

    /// A colour that nothing else has, replaced by the variable once drawn.
    fn sentinel(self) -> RGBColor {
        let blue = match self {
            Self::Text => 1,
            Self::Grid => 2,
            Self::Clean => 3,
            Self::Headline => 4,
            Self::Series(n) => 10 + n,
        };
        RGBColor(1, 2, blue)
    }

    fn variable(self) -> String {
        match self {
            Self::Text => "var(--soft)".into(),
            Self::Grid => "var(--grid)".into(),
            Self::Clean => "var(--clean)".into(),
            Self::Headline => "var(--headline)".into(),
            Self::Series(n) => format!("var(--series-{n})"),
        }
    }

    /// Text of this ink.
    fn text(self, size: f64) -> TextStyle<'static> {
        // plotters divides sizes by 1.24 before it writes them.
        ("sans-serif", size * 1.24).into_font().color(&self.sentinel())
    }

    /// A line of this ink.
    fn line(self, opacity: f64, width: u32) -> ShapeStyle {
        self.sentinel().mix(opacity).stroke_width(width)
    }
}

/// The plots' grid and text: horizontal lines at the labels alone.
fn quiet<'m, 'a, 'b, X, Y, XT, YT>(
    mesh: &'m mut MeshStyle<'a, 'b, X, Y, SVGBackend<'a>>,
) -> &'m mut MeshStyle<'a, 'b, X, Y, SVGBackend<'a>>
where
    X: Ranged<ValueType = XT> + ValueFormatter<XT>,
    Y: Ranged<ValueType = YT> + ValueFormatter<YT>,
{
    mesh.disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(Ink::Grid.line(1.0, 1))
        .axis_style(Ink::Grid.line(1.0, 2))
        .label_style(Ink::Text.text(TEXT))
        .axis_desc_style(Ink::Text.text(TEXT))
}

/// Paints a plot of `size` and hands its colours to the style sheet.
fn draw<F>(title: &str, size: (u32, u32), paint: F) -> Result<Value, ReportError>
where
    F: FnOnce(&Area<'_>) -> Result<(), PlotError>,
{
    let mut svg = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        paint(&area).and_then(|()| area.present())
    };
    drawn.map_err(|cause| ReportError::Plot { plot: title.into(), cause: cause.to_string() })?;
    Ok(Value::from_safe_string(themed(title, size, &svg)))
}

/// Replaces the opening tag, whose namespace an inline SVG does without, and the sentinel colours.
fn themed(title: &str, (width, height): (u32, u32), svg: &str) -> String {
    let body = svg.split_once('>').map_or("", |(_, body)| body);
    let mut text = format!(
        "<svg class=\"plot\" viewBox=\"0 0 {width} {height}\" role=\"img\"><title>{}</title>{body}",
        HtmlEscape(title)
    );
    for ink in Ink::ALL {
        let RGBColor(red, green, blue) = ink.sentinel();
        text =
            text.replace(&format!("\"#{red:02X}{green:02X}{blue:02X}\""), &format!("\"{}\"", ink.variable()));
    }
    text
}

/// A range that contains `values`, widened by a twentieth, never empty; [0, 1] where there are
/// none.
fn span(values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let (low, high) =
        values.filter(|v| v.is_finite()).fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
    if low > high {
        return 0.0..1.0;
    }
    let margin = ((high - low) * 0.05).max(high.abs() * 1e-3).max(1e-6);
    low - margin..high + margin
}

#[cfg(test)]
mod tests {
    use super::super::super::example;
    use super::*;

    #[test]
    fn every_attack_has_an_ink_of_its_own() {
        let audit = example::audit();
        let inks: Vec<Ink> = audit.attacks.iter().map(|row| Ink::of(&audit, &row.name)).collect();
        let series = Ink::Series;
        assert_eq!(inks, [Ink::Clean, series(1), series(2), series(3), series(4), Ink::Headline]);
    }

    #[test]
    fn a_drawing_has_a_title_no_namespace_and_no_fixed_colour() {
        let svg =
            draw("a <b>", (10, 10), |area| area.draw(&Circle::new((5, 5), 2, Ink::Headline.sentinel())));
        let svg = svg.unwrap().to_string();
        assert!(svg.starts_with(
            "<svg class=\"plot\" viewBox=\"0 0 10 10\" role=\"img\"><title>a &lt;b&gt;</title>"
        ));
        assert!(svg.contains("\"var(--headline)\"") && !svg.contains("http") && !svg.contains('#'), "{svg}");
        assert!(svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn a_span_is_never_empty() {
        assert_eq!(span([].into_iter()), 0.0..1.0);
        for values in [vec![0.0], vec![5.0, 5.0], vec![f64::NAN, 1.0], vec![-1.0, 1.0]] {
            let range = span(values.iter().copied());
            assert!(range.start < range.end, "{values:?}: {range:?}");
        }
    }
}
