//! Progress on the terminal: one bar per stage with the time that remains.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use waylay::progress::Progress;

/// Time between two lines where there is no terminal to draw on.
const PAUSE: Duration = Duration::from_secs(30);

/// A bar on standard error; where that is no terminal, a line at the beginning of a stage and every
/// 30 seconds.
#[derive(Default)]
pub struct Bar {
    current: Mutex<Option<Stage>>,
}

struct Stage {
    bar: ProgressBar,
    /// When the last line was printed.
    told: Instant,
}

impl Progress for Bar {
    fn begin(&self, stage: &str, steps: usize) {
        let bar = ProgressBar::new(steps as u64);
        let style = ProgressStyle::with_template(
            "{prefix:<22} {bar:28.cyan/blue} {pos:>5}/{len} {elapsed:>4} elapsed, {eta:>4} left  {msg}",
        );
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_prefix(stage.to_owned());
        if bar.is_hidden() {
            eprintln!("{stage} ({steps})");
        }
        self.replace(Some(Stage { bar, told: Instant::now() }));
    }

    fn advance(&self, note: &str) {
        self.with(|stage| {
            let bar = &stage.bar;
            bar.set_message(note.to_owned());
            bar.inc(1);
            if bar.is_hidden() && stage.told.elapsed() >= PAUSE {
                stage.told = Instant::now();
                eprintln!("{}", line(bar, note));
            }
        });
    }

    fn warn(&self, sentence: &str) {
        let line = format!("warning: {sentence}");
        let shown = self.current.lock().ok().and_then(|guard| {
            let stage = guard.as_ref().filter(|stage| !stage.bar.is_hidden())?;
            stage.bar.println(&line);
            Some(())
        });
        if shown.is_none() {
            eprintln!("{line}");
        }
    }

    fn end(&self) {
        self.with(|stage| stage.bar.finish());
        self.replace(None);
    }
}

impl Bar {
    fn with(&self, change: impl FnOnce(&mut Stage)) {
        if let Ok(mut guard) = self.current.lock()
            && let Some(stage) = guard.as_mut()
        {
            change(stage);
        }
    }

    fn replace(&self, stage: Option<Stage>) {
        if let Ok(mut guard) = self.current.lock() {
            *guard = stage;
        }
    }
}

/// `Train uaa-gan: 120/1500, 61 s elapsed, about 701 s left; L_G 12.3`.
fn line(bar: &ProgressBar, note: &str) -> String {
    let (position, length) = (bar.position(), bar.length().unwrap_or(0));
    let elapsed = bar.elapsed().as_secs_f64();
    let left = elapsed / position.max(1) as f64 * length.saturating_sub(position) as f64;
    let note = if note.is_empty() { String::new() } else { format!("; {note}") };
    format!("{}: {position}/{length}, {elapsed:.0} s elapsed, about {left:.0} s left{note}", bar.prefix())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_a_stage_is() {
        let bar = ProgressBar::hidden();
        bar.set_length(1500);
        bar.set_prefix("Train uaa-gan");
        bar.set_position(120);
        assert_eq!(line(&bar, "L_G 1.5"), "Train uaa-gan: 120/1500, 0 s elapsed, about 0 s left; L_G 1.5");
    }
}
