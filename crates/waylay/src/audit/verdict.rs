//! The result of an audit in one sentence.

use super::number::{percent, short};
use super::rows;
use crate::audit::outcome::{AttackRow, Scores};

/// How well a system stands, by the fraction of its clean mAP that the strongest attack leaves.
/// The limits are ours; they grade, they don't certify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// At most a quarter of the clean mAP is left.
    HighlyVulnerable,
    /// At most half is left.
    Vulnerable,
    /// At most four fifths are left.
    PartlyResistant,
    /// More than four fifths are left, under the attacks that ran.
    Resistant,
}

impl Level {
    /// The level for a `remaining` fraction of the clean mAP; anything but a number counts as resistant.
    pub fn of(remaining: f64) -> Self {
        match remaining {
            r if r <= 0.25 => Self::HighlyVulnerable,
            r if r <= 0.5 => Self::Vulnerable,
            r if r <= 0.8 => Self::PartlyResistant,
            _ => Self::Resistant,
        }
    }
}

/// One sentence with the numbers: what UAA-GAN (or else the strongest attack) and noise do at `epsilon_255`/255,
/// graded by [`Level`]. A quick run is not graded.
pub fn verdict(clean: &Scores, attacks: &[AttackRow], epsilon_255: f64, quick: bool) -> String {
    let budget = format!("ε = {}/255", short(epsilon_255, 2));
    let start =
        if quick { format!("Quick trial run, not a verdict: at {budget}") } else { format!("At {budget}") };
    let noise = attacks.iter().find(|row| row.name == rows::NOISE);
    let Some(strongest) = rows::strongest(attacks) else {
        return match noise {
            Some(row) => format!(
                "{start}, random noise {}; no attack that aims was run, so this says nothing about an attacker.",
                change(clean, &row.scores)
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
    let headline = rows::headline(attacks).unwrap_or(strongest);
    let mut sentence = format!("{start}, {} {}", subject(headline), change(clean, &headline.scores));
    if strongest.scores.map < headline.scores.map {
        sentence += &format!(
            "; the strongest attack here ({}) leaves {}",
            strongest.label,
            percent(strongest.scores.map)
        );
    }
    if let Some(row) = noise {
        sentence += &format!("; random noise of the same size leaves mAP at {}", percent(row.scores.map));
    }
    let fragile = noise.is_some_and(|row| Level::of(row.scores.map / clean.map) != Level::Resistant);
    sentence + &conclusion(Level::of(strongest.scores.map / clean.map), epsilon_255, quick, fragile)
}

/// The attack with what it takes: `one forward pass of UAA-GAN`, `UAA-GAN with 1 gradient per query`, `FGSM`.
fn subject(row: &AttackRow) -> String {
    match row.label.split_once(", ") {
        _ if row.name != rows::UAA_GAN => row.label.clone(),
        Some((name, gradients)) => format!("{name} with {gradients} per query"),
        None => format!("one forward pass of {}", row.label),
    }
}

/// `lowers mAP from 91.2 % to 6.0 % and rank-1 from 99.0 % to 2.5 %`.
fn change(clean: &Scores, attacked: &Scores) -> String {
    let verb = if attacked.map < clean.map { "lowers" } else { "takes" };
    format!(
        "{verb} mAP from {} to {} and rank-1 from {} to {}",
        percent(clean.map),
        percent(attacked.map),
        percent(clean.rank1),
        percent(attacked.rank1)
    )
}

fn conclusion(level: Level, epsilon_255: f64, quick: bool, fragile: bool) -> String {
    if quick {
        return "; only a full run can grade the system.".into();
    }
    let changes = match epsilon_255 {
        e if e <= 8.0 => "barely visible changes",
        e if e <= 16.0 => "small changes",
        _ => "changes of this size",
    };
    let grade = match level {
        Level::HighlyVulnerable => format!("the system is highly vulnerable to {changes}"),
        Level::Vulnerable => format!("the system is vulnerable to {changes}"),
        Level::PartlyResistant => format!("the system is partly resistant to {changes}"),
        Level::Resistant => {
            "the system is resistant under these attacks, which proves nothing about others".into()
        }
    };
    let noise = if fragile { ", and not only to aimed ones" } else { "" };
    format!(": {grade}{noise}.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    #[test]
    fn a_full_run_is_told_with_its_numbers() {
        let audit = example::audit();
        assert_eq!(
            verdict(&audit.clean, &audit.attacks, 8.0, false),
            "At ε = 8/255, one forward pass of UAA-GAN lowers mAP from 91.2 % to 6.0 % and rank-1 from 99.0 % to \
             2.5 %; the strongest attack here (PGD, 40 steps) leaves 0.9 %; random noise of the same size leaves \
             mAP at 90.8 %: the system is highly vulnerable to barely visible changes."
        );
    }

    #[test]
    fn gradients_that_a_generator_takes_are_told() {
        let mut audit = example::audit();
        for row in audit.attacks.iter_mut().filter(|row| row.name == rows::UAA_GAN) {
            row.label = "UAA-GAN, 1 gradient".into();
        }
        let text = verdict(&audit.clean, &audit.attacks, 8.0, false);
        assert!(text.contains("UAA-GAN with 1 gradient per query lowers mAP from 91.2 %"), "{text}");
    }

    #[test]
    fn levels_follow_the_documented_limits() {
        for (remaining, level) in [
            (0.0, Level::HighlyVulnerable),
            (0.25, Level::HighlyVulnerable),
            (0.26, Level::Vulnerable),
            (0.5, Level::Vulnerable),
            (0.51, Level::PartlyResistant),
            (0.8, Level::PartlyResistant),
            (0.81, Level::Resistant),
            (1.2, Level::Resistant),
        ] {
            assert_eq!(Level::of(remaining), level, "{remaining}");
        }
    }

    #[test]
    fn a_quick_run_is_not_graded() {
        let audit = example::audit();
        let text = verdict(&audit.clean, &audit.attacks, 8.0, true);
        assert!(text.starts_with("Quick trial run, not a verdict: at ε = 8/255, one forward"), "{text}");
        assert!(!text.contains("vulnerable"), "{text}");
    }

    #[test]
    fn rows_may_be_missing() {
        let audit = example::audit();
        let rows = |names: &[&str]| -> Vec<AttackRow> {
            audit.attacks.iter().filter(|row| names.contains(&row.name.as_str())).cloned().collect()
        };
        for (names, expected) in [
            (&[][..], "No attack was run"),
            (&["none"], "No attack was run"),
            (&["none", "noise"], "says nothing about an attacker"),
            (&["fgsm"], "FGSM lowers mAP from 91.2 %"),
            (&["uaa-gan"], "vulnerable to barely visible changes."),
        ] {
            let text = verdict(&audit.clean, &rows(names), 8.0, false);
            assert!(text.contains(expected), "{names:?}: {text}");
        }
        let nothing_found = verdict(&Scores::default(), &audit.attacks, 8.0, false);
        assert!(nothing_found.contains("nothing to judge"), "{nothing_found}");
    }

    #[test]
    fn a_system_that_noise_hurts_is_called_so_and_large_changes_are_not_called_invisible() {
        let mut audit = example::audit();
        for row in &mut audit.attacks {
            row.scores.map = 0.4;
        }
        let text = verdict(&audit.clean, &audit.attacks, 32.0, false);
        assert!(text.ends_with("vulnerable to changes of this size, and not only to aimed ones."), "{text}");
    }
}
