//! `waylay`: how easily can a barely visible change to the query make an image-retrieval system
//! lose the right answer?

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod attacks;
mod bar;
mod cli;
mod commands;
mod error;
mod exit;
mod plan;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    // On one of the computing threads: work that is divided then begins without waking another
    // thread for it.
    let result = plan::start_threads(cli.threads).and_then(|()| rayon::scope(|_| run(cli)));
    match result {
        Ok(()) => exit::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", exit::sentence(&error));
            exit::code(&error)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Audit(args) => commands::audit::run(args, cli.json),
        Command::Train(args) => commands::train::run(args, cli.json),
        Command::Attack(args) => commands::attack::run(args, cli.json),
        Command::Evaluate(args) => commands::evaluate::run(args, cli.json),
        Command::Embed(args) => commands::embed::run(args, cli.json),
        Command::Inspect(args) => commands::inspect::run(args, cli.json),
        Command::Fit(args) => commands::fit::run(args, cli.json),
        Command::Fetch(args) => commands::fetch::run(args, cli.json),
        Command::Ablate(args) => commands::ablate::run(args, cli.json),
        Command::Config(args) => commands::config::run(&args, cli.json),
        Command::Completions(args) => commands::shell::completions(&args),
        Command::Man(args) => commands::shell::man(&args),
    }
}
