//! The `vidente` command.

use std::process::ExitCode;

use clap::Parser;
use vidente::cli::Cli;

fn main() -> ExitCode {
    vidente::command::run(Cli::parse())
}
