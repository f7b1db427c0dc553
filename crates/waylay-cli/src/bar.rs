//! Progress on the terminal: one bar per stage with the time that remains.

use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressStyle};
use waylay::run::Progress;

/// A bar on standard error; plain lines where that is no terminal.
#[derive(Default)]
pub struct Bar {
    current: Mutex<Option<ProgressBar>>,
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
        self.replace(Some(bar));
    }

    fn advance(&self, note: &str) {
        self.with(|bar| {
            bar.set_message(note.to_owned());
            bar.inc(1);
        });
    }

    fn warn(&self, sentence: &str) {
        let line = format!("warning: {sentence}");
        let shown = self.current.lock().ok().and_then(|guard| {
            let bar = guard.as_ref().filter(|bar| !bar.is_hidden())?;
            bar.println(&line);
            Some(())
        });
        if shown.is_none() {
            eprintln!("{line}");
        }
    }

    fn end(&self) {
        self.with(|bar| bar.finish());
        self.replace(None);
    }
}

impl Bar {
    fn with(&self, change: impl FnOnce(&ProgressBar)) {
        if let Ok(guard) = self.current.lock()
            && let Some(bar) = guard.as_ref()
        {
            change(bar);
        }
    }

    fn replace(&self, bar: Option<ProgressBar>) {
        if let Ok(mut guard) = self.current.lock() {
            *guard = bar;
        }
    }
}
