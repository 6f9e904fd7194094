//! What each command does.

mod backtest;
mod demo;
mod doctor;
mod models;
mod replay;
mod train;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use clap::CommandFactory;
use tokio::sync::watch;

use crate::app;
use crate::cli::{Cli, Command, ConfigArgs};
use crate::config::{Config, ConfigError, locate};
use crate::logging;
use crate::store::Store;

/// Exit status of a configuration that cannot be used (EX_CONFIG of sysexits).
const EX_CONFIG: u8 = 78;

/// Runs a command and gives its exit status.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("vidente: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(dispatch(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vidente: {error:#}");
            if error.downcast_ref::<ConfigError>().is_some() {
                ExitCode::from(EX_CONFIG)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

async fn dispatch(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(args) => {
            let file = locate(args.config)?;
            let config = Config::load(&file)?;
            logging::start(&config.log);
            for warning in config.warnings() {
                tracing::warn!("{warning}");
            }
            app::run(config, Some(file), signals()?, |started| {
                tracing::info!("page, API and metrics are at {}", started.url)
            })
            .await
        }
        Command::Demo(args) => {
            logging::start_tool("warn,rumqttd=off,vidente=warn");
            demo::run(args).await
        }
        Command::Backtest(args) => backtest::run(&args),
        Command::Replay(args) => {
            logging::start_tool("warn");
            replay::run(args).await
        }
        Command::Train(args) => {
            logging::start_tool("warn");
            train::run(args).await
        }
        Command::Models(command) => {
            logging::start_tool("warn");
            models::run(command).await
        }
        Command::Check(args) => {
            let file = locate(args.config)?;
            let config = Config::load(&file)?;
            for warning in config.warnings() {
                eprintln!("{}: warning: {warning}", file.display());
            }
            println!("{}: fine, {} stream(s)", file.display(), config.stream.len());
            Ok(())
        }
        Command::Doctor(args) => {
            logging::start_tool("error");
            doctor::run(args).await
        }
        Command::Migrate(args) => {
            logging::start_tool("warn");
            let config = load(args)?;
            open_store(&config).await?;
            println!("the schema is up to date");
            Ok(())
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "vidente", &mut std::io::stdout());
            Ok(())
        }
        Command::Man { dir } => clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), &dir)
            .with_context(|| format!("writing man pages into {}", dir.display())),
    }
}

fn load(args: ConfigArgs) -> Result<Config, ConfigError> {
    Config::load(&locate(args.config)?)
}

/// The store of a configuration, its schema up to date.
async fn open_store(config: &Config) -> anyhow::Result<Store> {
    let store = Store::open(&config.store).await?;
    store.migrate().await?;
    Ok(store)
}

/// Turns true on SIGTERM and SIGINT, for work that looks at it now and then.
fn told_to_stop() -> anyhow::Result<Arc<AtomicBool>> {
    let told = Arc::new(AtomicBool::new(false));
    let mut stop = signals()?;
    tokio::spawn({
        let told = told.clone();
        async move {
            // The sender lives as long as the process.
            let _ = stop.wait_for(|stop| *stop).await;
            told.store(true, Ordering::Relaxed);
        }
    });
    Ok(told)
}

/// Prints to standard output; a reader that has had enough, such as `head`, is no error.
fn say(text: impl std::fmt::Display) -> std::io::Result<()> {
    use std::io::Write;
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// Says that a stream is not configured.
fn no_such_stream(config: &Config, name: &str) -> anyhow::Error {
    let known: Vec<_> = config.stream.iter().map(|s| s.name.as_str()).collect();
    anyhow::anyhow!("no stream is named \"{name}\"; there are: {}", known.join(", "))
}

/// Turns true on SIGTERM and SIGINT.
fn signals() -> anyhow::Result<watch::Receiver<bool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let (tell, stop) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // Nobody listens any more if the command has ended by itself.
        let _ = tell.send(true);
        tell.closed().await;
    });
    Ok(stop)
}
