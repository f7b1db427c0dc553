//! x
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::print_stdout))]
#[allow(dead_code)]
mod commands;
fn main() {}
