//! `waylay completions` and `waylay man`: what a shell and `man` know of the command line, made
//! from its definition.

use std::io::Write as _;

use anyhow::{Context, Result};
use clap::CommandFactory;

use crate::cli::{Cli, CompletionsArgs, ManArgs};
use crate::error::Unwritable;

pub fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "waylay", &mut script);
    match std::io::stdout().write_all(&script) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

pub fn man(args: &ManArgs) -> Result<()> {
    let refuse = |e: std::io::Error| Unwritable(args.out.display().to_string(), e.to_string());
    std::fs::create_dir_all(&args.out).map_err(refuse)?;
    clap_mangen::generate_to(Cli::command(), &args.out).map_err(refuse).context("manual pages")
}
