//! The result of an audit in one sentence.

use serde::{Deserialize, Serialize};

use super::number::{percent, short};
use super::rows;
use crate::audit::outcome::{Access, AttackRow, Scores, WorstCase};

/// How well a system stands, by the fraction of its clean mAP that the worst case leaves.
/// The limits are ours; they grade, they don't certify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// At most a quarter of the clean mAP is left.
    HighlyVulnerable,
    /// At most half is left.
    Vulnerable,
    /// At most four fifths are left.
    PartlyResistant,
    /// More than four fifths are left, under the attacks that ran.
    Resistant,
}

impl Grade {
    /// The grade for a `remaining` fraction of the clean mAP; anything but a number counts as
    /// resistant.
    pub fn of(remaining: f64) -> Self {
        match remaining {
            r if r <= 0.25 => Self::HighlyVulnerable,
            r if r <= 0.5 => Self::Vulnerable,
            r if r <= 0.8 => Self::PartlyResistant,
            _ => Self::Resistant,
        }
    }
}

/// The grade of a system whose worst case is `worst`; none where nothing was judged: in a quick
/// run, without an aimed attack, or where the system finds nothing even without one.
pub fn grade(clean: &Scores, worst: Option<&WorstCase>, quick: bool) -> Option<Grade> {
    worst.filter(|_| !quick && clean.map > 0.0).map(|worst| Grade::of(worst.map / clean.map))
}

/// One sentence with the numbers: the worst case at `epsilon_255`/255, graded by [`Grade`], then
/// the strongest attack with gradients, without, and noise. A quick run is not graded.
pub fn verdict(
    clean: &Scores,
    attacks: &[AttackRow],
    worst: Option<&WorstCase>,
    epsilon_255: f64,
    quick: bool,
) -> String {
    let budget = format!("ε = {}/255", short(epsilon_255, 2));
    let start =
        if quick { format!("Quick trial run, not a verdict: at {budget}") } else { format!("At {budget}") };
    let noise = attacks.iter().find(|row| row.name == rows::NOISE);
    let (Some(worst), Some(strongest)) = (worst, rows::strongest(attacks)) else {
        return match noise {
            Some(row) => format!(
                "{start}, random noise {}; no attack that aims was run, so this says nothing about an attacker.",
                change(clean, row.scores.map, row.scores.rank1)
            ),
            None => {
                format!(
                    "No attack was run; without one, mAP is {} and rank-1 {}.",
                    percent(clean.map),
                    percent(clean.rank1)
                )
            }
        };
    };
    if clean.map <= 0.0 || clean.map.is_nan() {
        return "The system finds no match even without an attack, so there is nothing to judge.".into();
    }
    let several = rows::attacks(attacks).count() > 1;
    let subject = if several { "the strongest attack per query" } else { strongest.label.as_str() };
    let mut sentence = format!("{start}, {subject} {}", change(clean, worst.map, worst.rank1));
    let leaves = |row: &AttackRow| format!("; {} leaves mAP at {}", row.label, percent(row.scores.map));
    if several {
        sentence += &leaves(strongest);
        let image_only =
            attacks.iter().filter(|row| rows::aims(row) && row.knowledge.access == Access::Image);
        let image_only = image_only.min_by(|a, b| a.scores.map.total_cmp(&b.scores.map));
        sentence += &image_only.filter(|row| row.name != strongest.name).map_or(String::new(), leaves);
    }
    if let Some(row) = noise {
        sentence += &format!("; random noise of the same size leaves it at {}", percent(row.scores.map));
    }
    let fragile = noise.is_some_and(|row| Grade::of(row.scores.map / clean.map) != Grade::Resistant);
    sentence + &conclusion(Grade::of(worst.map / clean.map), epsilon_255, quick, fragile)
}

/// `lowers mAP from 91.2 % to 6.0 % and rank-1 from 99.0 % to 2.5 %`.
fn change(clean: &Scores, map: f64, rank1: f64) -> String {
    let verb = if map < clean.map { "lowers" } else { "takes" };
    format!(
        "{verb} mAP from {} to {} and rank-1 from {} to {}",
        percent(clean.map),
        percent(map),
        percent(clean.rank1),
        percent(rank1)
    )
}

fn conclusion(grade: Grade, epsilon_255: f64, quick: bool, fragile: bool) -> String {
    if quick {
        return "; only a full run can grade the system.".into();
    }
    let changes = match epsilon_255 {
        e if e <= 8.0 => "barely visible changes",
        e if e <= 16.0 => "small changes",
        _ => "changes of this size",
    };
    let sentence = match grade {
        Grade::HighlyVulnerable => format!("the system is highly vulnerable to {changes}"),
        Grade::Vulnerable => format!("the system is vulnerable to {changes}"),
        Grade::PartlyResistant => format!("the system is partly resistant to {changes}"),
        Grade::Resistant => {
            "the system is resistant under these attacks, which proves nothing about others".into()
        }
    };
    let noise = if fragile { ", and not only to aimed ones" } else { "" };
    format!(": {sentence}{noise}.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{AuditReport, worst_case};
    use crate::report::example;

    fn told(audit: &AuditReport, epsilon_255: f64, quick: bool) -> String {
        let worst = worst_case(&audit.attacks);
        verdict(&audit.clean, &audit.attacks, worst.as_ref(), epsilon_255, quick)
    }

    #[test]
    fn a_full_run_is_told_with_its_numbers_worst_case_first() {
        assert_eq!(
            told(&example::audit(), 8.0, false),
            "At ε = 8/255, the strongest attack per query lowers mAP from 91.2 % to 0.9 % and rank-1 from 99.0 % to \
             7.7 %; PGD, 40 gradients leaves mAP at 0.9 %; UAA-GAN, image only leaves mAP at 6.0 %; random noise of the \
             same size leaves it at 90.8 %: the system is highly vulnerable to barely visible changes."
        );
    }

    #[test]
    fn grades_follow_the_documented_limits() {
        for (remaining, grade) in [
            (0.0, Grade::HighlyVulnerable),
            (0.25, Grade::HighlyVulnerable),
            (0.26, Grade::Vulnerable),
            (0.5, Grade::Vulnerable),
            (0.51, Grade::PartlyResistant),
            (0.8, Grade::PartlyResistant),
            (0.81, Grade::Resistant),
            (1.2, Grade::Resistant),
        ] {
            assert_eq!(Grade::of(remaining), grade, "{remaining}");
        }
    }

    #[test]
    fn a_quick_run_is_not_graded() {
        let audit = example::audit();
        let text = told(&audit, 8.0, true);
        assert!(text.starts_with("Quick trial run, not a verdict: at ε = 8/255, the strongest"), "{text}");
        assert!(!text.contains("vulnerable"), "{text}");
        let worst = worst_case(&audit.attacks);
        assert_eq!(grade(&audit.clean, worst.as_ref(), true), None);
        assert_eq!(grade(&audit.clean, worst.as_ref(), false), Some(Grade::HighlyVulnerable));
        assert_eq!(grade(&audit.clean, None, false), None);
        assert_eq!(grade(&Scores { map: 0.0, ..audit.clean }, worst.as_ref(), false), None);
    }

    #[test]
    fn rows_may_be_missing() {
        let audit = example::audit();
        let only = |names: &[&str]| -> AuditReport {
            let attacks = audit.attacks.iter().filter(|row| names.contains(&row.name.as_str()));
            AuditReport { attacks: attacks.cloned().collect(), ..audit.clone() }
        };
        for (names, expected) in [
            (&[][..], "No attack was run"),
            (&["none"], "No attack was run"),
            (&["none", "noise"], "says nothing about an attacker"),
            (&["fgsm"], "FGSM, 1 gradient lowers mAP from 91.2 %"),
            (&["uaa-gan"], "UAA-GAN, image only lowers mAP from 91.2 % to 6.0 %"),
            (&["uaa-gan"], "vulnerable to barely visible changes."),
        ] {
            let text = told(&only(names), 8.0, false);
            assert!(text.contains(expected), "{names:?}: {text}");
        }
        let nothing_found = told(&AuditReport { clean: Scores::default(), ..audit }, 8.0, false);
        assert!(nothing_found.contains("nothing to judge"), "{nothing_found}");
    }

    #[test]
    fn a_system_that_noise_hurts_is_called_so_and_large_changes_are_not_called_invisible() {
        let mut audit = example::audit();
        for row in &mut audit.attacks {
            row.scores.map = 0.4;
            row.average_precision.fill(Some(0.4));
        }
        let text = told(&audit, 32.0, false);
        assert!(text.ends_with("vulnerable to changes of this size, and not only to aimed ones."), "{text}");
    }
}
