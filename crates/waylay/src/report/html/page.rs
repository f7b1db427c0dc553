//! Fills the page's template: escaped by minijinja, plots as inline SVG, pictures as `data:`
//! addresses.

use minijinja::value::{Serde, Value};
use minijinja::{Environment, UndefinedBehavior, context};

use super::super::ReportError;
use super::{examples, plots};
use crate::audit::number::{duration, fixed, grouped, percent, short};
use crate::audit::outcome::AuditReport;
use crate::audit::rows;

const TEMPLATE: &str = include_str!("template.html.jinja");
const STYLE: &str = include_str!("style.css");

/// The page as one HTML text; every name that came from outside is escaped. Pictures that the audit
/// lacks, as after reading it from JSON, are left out.
pub fn to_html(audit: &AuditReport) -> Result<String, ReportError> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_filter("percent", |value: f64| tie(&percent(value)));
    environment.add_filter("fixed", |value: f64, digits: usize| fixed(value, digits));
    environment.add_filter("short", |value: f64, digits: usize| short(value, digits));
    environment.add_filter("duration", |value: f64| duration(value).replace(' ', "\u{a0}"));
    environment.add_filter("grouped", |value: u64| grouped(value));
    environment.add_filter("tie", |text: &str| tie(text));
    environment.add_filter("access", |value: &str| access_name(value));
    environment.add_filter("indented", |value: Value| indented(&value));
    environment.add_template("index.html", TEMPLATE)?;
    let page = environment.get_template("index.html")?.render(context! {
        audit => Serde(audit),
        style => Value::from_safe_string(STYLE.into()),
        attacks => Serde(rows::attacks(&audit.attacks).collect::<Vec<_>>()),
        strongest => Serde(rows::strongest(&audit.attacks)),
        shown => Serde(rows::shown(&audit.attacks)),
        losses => Serde(plots::losses(audit)?),
        strength => Serde(plots::strength(audit)?),
        visibility => Serde(plots::visibility(audit)?),
        first_matches => Serde(plots::first_matches(audit)?),
        distances => Serde(plots::distances(audit)?),
        examples => Serde(examples::shown(audit)),
    })?;
    Ok(page)
}

/// Number and unit on one line: spaces around `=` and before `%` don't break.
fn tie(text: &str) -> String {
    text.replace(" %", "\u{202f}%").replace(" = ", "\u{a0}=\u{a0}")
}

/// What the attacker saw, for people, from its name in `report.json`.
fn access_name(name: &str) -> String {
    match name {
        "image" => "image",
        "feature-maps" => "feature maps",
        other => other,
    }
    .into()
}

fn indented(value: &Value) -> Result<String, minijinja::Error> {
    serde_json::to_string_pretty(value).map_err(|cause| {
        minijinja::Error::new(minijinja::ErrorKind::BadSerialization, "configuration").with_source(cause)
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::example;
    use super::*;
    use crate::audit::number::fixed_or_dash;
    use crate::report::{from_json, to_json};
    use waylay_onnx::{Difference, Verification};

    fn access(knowledge: &crate::attack::Knowledge) -> String {
        access_name(serde_json::json!(knowledge)["access"].as_str().unwrap())
    }

    /// Elements without an end.
    const VOID: [&str; 5] = ["meta", "img", "br", "rect", "line"];

    /// Checks that every element that begins also ends, in order.
    fn assert_balanced(page: &str) {
        let mut open: Vec<&str> = Vec::new();
        for piece in page.split('<').skip(1) {
            let Some((tag, _)) = piece.split_once('>') else { panic!("`<{piece}` does not end") };
            let name = tag.trim_start_matches('/').split([' ', '\n']).next().unwrap();
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name), "closed by `<{tag}>`");
            } else if !tag.starts_with('!') && !tag.ends_with('/') && !VOID.contains(&name) {
                open.push(name);
            }
        }
        assert!(open.is_empty(), "never closed: {open:?}");
    }

    fn assert_self_contained(page: &str) {
        for foreign in ["http://", "https://", "src=\"//", "<script", "url(", "@import", "<link"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
    }

    #[test]
    fn the_page_stands_alone_and_is_well_formed() {
        let page = to_html(&example::audit()).unwrap();
        assert_self_contained(&page);
        assert_balanced(&page);
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>"));
        assert_eq!(page.matches("data:image/png;base64,").count(), 2 * 13);
        assert_eq!(page.matches("class=\"tiny\"").count(), 2 * 13);
    }

    #[test]
    fn the_contents_lead_to_every_section() {
        let mut empty = example::audit();
        empty.attacks.clear();
        empty.training.clear();
        empty.examples.clear();
        for audit in [example::audit(), empty] {
            let page = to_html(&audit).unwrap();
            let after = |mark: &'static str| {
                let pieces = page.split(mark).skip(1);
                pieces.map(|piece| piece.split('"').next().unwrap()).collect::<Vec<_>>()
            };
            let (links, sections) = (after("<a href=\"#"), after("<section id=\""));
            assert_eq!(links, sections);
            assert!(links.len() >= 7, "{links:?}");
        }
    }

    #[test]
    fn every_attack_stands_with_its_numbers() {
        let audit = example::audit();
        let page = to_html(&audit).unwrap();
        for row in rows::attacks(&audit.attacks) {
            let cells = [
                row.label.clone(),
                access(&row.knowledge),
                format!("{}, {}", row.knowledge.target_forwards, row.knowledge.target_gradients),
                tie(&percent(row.scores.rank1)),
                tie(&percent(row.scores.rank5)),
                tie(&percent(row.scores.map)),
                short(row.linf_255, 2),
                fixed_or_dash(row.psnr_db, 1),
                fixed(row.ssim, 3),
                fixed(row.ms_per_image, 1),
            ];
            assert!(
                page.contains(&format!("{}</td>", cells.join("</td><td>").replacen("</td>", "</th>", 1))),
                "{cells:?}"
            );
        }
        // The first tile leads with the worst case.
        assert!(page.contains("91.2\u{202f}% <i aria-label=\"to\">→</i> <em>0.9\u{202f}%</em>"));
    }

    #[test]
    fn hostile_names_stay_text() {
        let mut audit = example::audit();
        let hostile = "\"><script src=\"//x\">alert(1)</script>".to_owned();
        audit.target.name.clone_from(&hostile);
        audit.run.command.clone_from(&hostile);
        audit.run.files.insert(hostile.clone(), hostile.clone());
        audit.not_tested.push("see https://example.org".into());
        audit.attacks[5].label.clone_from(&hostile);
        audit.attacks[5].config = serde_json::json!({ "a": hostile });
        audit.examples[0].identity.clone_from(&hostile);
        audit.examples[0].after[0].identity.clone_from(&hostile);
        audit.examples[0].after[0].name.clone_from(&hostile);
        let page = to_html(&audit).unwrap();
        assert_self_contained(&page);
        assert_balanced(&page);
        assert!(page.contains("&lt;script"));
    }

    #[test]
    fn what_training_warned_of_is_told() {
        let mut audit = example::audit();
        audit.training[0].warnings.push("the generator learns nothing".into());
        assert!(to_html(&audit).unwrap().contains("the generator learns nothing"));
    }

    #[test]
    fn a_quick_run_is_marked() {
        let mut audit = example::audit();
        assert!(!to_html(&audit).unwrap().contains("Quick trial run."));
        audit.quick = true;
        assert!(to_html(&audit).unwrap().contains("<strong>Quick trial run.</strong>"));
    }

    #[test]
    fn without_training_a_sentence_stands_for_the_curves() {
        let mut audit = example::audit();
        assert!(to_html(&audit).unwrap().contains("Metric term"));
        audit.training.clear();
        let page = to_html(&audit).unwrap();
        assert!(!page.contains("Metric term") && page.contains("No generator was trained in this run"));
    }

    #[test]
    fn what_was_compared_with_a_reference_is_told() {
        let mut audit = example::audit();
        assert!(!to_html(&audit).unwrap().contains("Agrees with its reference"));
        let values = Difference { max_abs: 3e-5, max_rel: 2.5e-6 };
        let gradient = Some(Difference { max_abs: 1.0, max_rel: 4e-4 });
        let mut verified = Verification {
            values,
            gradient,
            unsteady: None,
            input: vec![2, 3, 128, 128],
            output: vec![2, 512],
        };
        audit.target.verified = Some(verified.clone());
        let page = to_html(&audit).unwrap();
        assert!(page.contains("Agrees with its reference") && page.contains("2.5e-06"), "{page}");
        assert!(page.contains("input gradients within 4.0e-04"));
        assert!(!page.contains("moves by a millionth"));
        verified.unsteady = Some(3e-4);
        audit.target.verified = Some(verified.clone());
        assert!(to_html(&audit).unwrap().contains("own gradient moves by 3.0e-04 when"));
        verified.gradient = None;
        audit.target.verified = Some(verified);
        assert!(!to_html(&audit).unwrap().contains("input gradients within"));
    }

    #[test]
    fn an_audit_may_be_as_good_as_empty() {
        let mut audit = example::audit();
        audit.examples.clear();
        audit.attacks.clear();
        audit.training.clear();
        audit.not_tested.clear();
        audit.run.files.clear();
        let page = to_html(&audit).unwrap();
        assert_balanced(&page);
        assert!(page.contains("This run kept no examples."));
    }

    #[test]
    fn an_audit_read_back_from_json_shows_no_pictures_and_the_same_numbers() {
        let audit = from_json(&to_json(&example::audit()).unwrap()).unwrap();
        let page = to_html(&audit).unwrap();
        assert_balanced(&page);
        assert!(!page.contains("data:image") && page.contains("no picture"));
    }

    #[test]
    fn number_and_unit_stay_on_one_line() {
        assert_eq!(tie("ε = 8/255: 6.0 % of it"), "ε\u{a0}=\u{a0}8/255: 6.0\u{202f}% of it");
    }
}
