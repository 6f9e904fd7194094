//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Streaming forecasts for sensors that publish over MQTT.
#[derive(Debug, Parser)]
#[command(
    name = "vidente",
    version,
    about,
    propagate_version = true,
    after_long_help = "Files: /etc/vidente/vidente.toml, then ./vidente.toml, is the configuration; any key outside \
                       [[stream]] can also be set as VIDENTE__SECTION__KEY. VIDENTE_LOG sets what is logged.\n\n\
                       Exit status: 0 if all went well, 78 if the configuration cannot be used, else 1 (2 for a \
                       command line that makes no sense)."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon
    #[command(after_help = "Example: vidente run --config /etc/vidente/vidente.toml")]
    Run(ConfigArgs),
    /// Everything at once, embedded: broker, sample sensors, store, daemon, live page
    #[command(after_help = "Example: vidente demo --speed 600")]
    Demo(DemoArgs),
    /// Train on the first part of a CSV, forecast the rest, and say how well
    #[command(after_help = "Example: vidente backtest --input readings.csv --output forecasts.csv")]
    Backtest(BacktestArgs),
    /// Publish a CSV over MQTT, as sensors would
    #[command(
        after_help = "Example: vidente replay readings.csv --topic sensors/{series}/climate --speed 60 --now"
    )]
    Replay(ReplayArgs),
    /// Train once now, on what is stored
    #[command(after_help = "Example: vidente train --config /etc/vidente/vidente.toml --stream climate")]
    Train(TrainArgs),
    /// Look at the models that were trained, and choose which one forecasts
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Validate the configuration; exit status 0, or 78 with file, key, reason and fix
    #[command(after_help = "Example: vidente check --config ./vidente.toml && systemctl reload vidente")]
    Check(ConfigArgs),
    /// Look at broker, store, disk, secrets and clock, and say what to change; exit status 0 if nothing failed
    #[command(after_help = "Example: sudo -u vidente vidente doctor --config /etc/vidente/vidente.toml")]
    Doctor(DoctorArgs),
    /// Bring the store's schema up to date
    #[command(
        after_help = "Example: VIDENTE__STORE__URL=postgres://vidente_owner@127.0.0.1/vidente vidente migrate"
    )]
    Migrate(ConfigArgs),
    /// Print completions for a shell
    #[command(after_help = "Example: vidente completions bash >/etc/bash_completion.d/vidente")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the man pages, one for each command
    #[command(hide = true, after_help = "Example: vidente man ~/.local/share/man/man1")]
    Man {
        /// Folder, which must exist.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Configuration file [default: /etc/vidente/vidente.toml, then ./vidente.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `vidente doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print JSON instead of a list
    #[arg(long)]
    pub json: bool,
}

/// `vidente demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Where the demo keeps its store; without it a directory that goes with the demo
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Simulated seconds a second
    #[arg(long, value_name = "X", default_value_t = crate::demo::publisher::DEFAULT_SPEED, value_parser = positive)]
    pub speed: f64,
    /// Address of the live page; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9464")]
    pub listen: String,
}

/// `vidente backtest`.
#[derive(Debug, Args)]
pub struct BacktestArgs {
    /// CSV with the columns series, timestamp and value, the rows of each series ordered by time
    #[arg(long, value_name = "FILE.csv")]
    pub input: PathBuf,
    /// Share of each series' rows to train on; 0 forecasts cold, without training
    #[arg(long, default_value_t = 0.7, value_parser = share)]
    pub split: f64,
    /// Steps ahead
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub horizon: u16,
    /// Where the forecasts are written, one line each
    #[arg(long, value_name = "OUT.csv")]
    pub output: Option<PathBuf>,
    /// Where the trained network is written
    #[arg(long, value_name = "FILE.safetensors")]
    pub save_model: Option<PathBuf>,
    /// Print the accuracy as JSON instead of a table
    #[arg(long)]
    pub json: bool,
    /// Time between readings [default: learned per series]
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    pub interval: Option<Duration>,
    /// Take model size, seed and interval from a stream of this configuration
    #[arg(long, value_name = "FILE", requires = "stream")]
    pub config: Option<PathBuf>,
    /// Name of that stream
    #[arg(long, value_name = "NAME", requires = "config")]
    pub stream: Option<String>,
}

/// `vidente replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// CSV with the columns series, timestamp and value
    #[arg(value_name = "FILE.csv")]
    pub file: PathBuf,
    /// Topic to publish on; {series} stands for the series
    #[arg(long, value_name = "PATTERN")]
    pub topic: String,
    /// Readings a second [default: as fast as the broker takes them]
    #[arg(long, value_name = "N", value_parser = positive, conflicts_with = "speed")]
    pub rate: Option<f64>,
    /// Times real time, by the file's timestamps
    #[arg(long, value_name = "X", value_parser = positive)]
    pub speed: Option<f64>,
    /// Quality of service: 0, 1 or 2
    #[arg(long, value_name = "Q", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// Shift all times so that the last row is now
    #[arg(long)]
    pub now: bool,
    /// Broker; mqtts:// for TLS
    #[arg(long, value_name = "URL", default_value = "mqtt://127.0.0.1:1883")]
    pub url: String,
    /// User name, if the broker asks for one
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// File holding the password
    #[arg(long, value_name = "FILE", requires = "username")]
    pub password_file: Option<PathBuf>,
    /// PEM file of the authorities to trust instead of the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

/// `vidente train`.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Train this stream only
    #[arg(long, value_name = "NAME")]
    pub stream: Option<String>,
}

/// `vidente models`.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// All models: what they learned from, how good they are, which one forecasts
    #[command(after_help = "Example: vidente models list --stream climate")]
    List(ListArgs),
    /// Everything about one model, with the curve of its training
    #[command(after_help = "Example: vidente models show climate-12")]
    Show(ShowArgs),
    /// Let a model forecast from now on, on probation
    #[command(after_help = "Example: vidente models promote climate-11")]
    Promote(PromoteArgs),
    /// Go back to the model that forecast before the present one
    #[command(
        after_help = "Example: vidente models rollback --stream climate --reason \"too slow after the move\""
    )]
    Rollback(RollbackArgs),
    /// Take in a model that was trained elsewhere, such as in PyTorch: it is tried on the stored readings and
    /// becomes a candidate
    #[command(after_help = "Example: vidente models import climate.safetensors --stream climate\n\n\
                      The file is safetensors with the names of torch.nn.LSTM, GRU or RNN; the README says what its \
                      header holds, and deploy/examples/train_in_pytorch.py makes one.")]
    Import(ImportArgs),
    /// Write what a network sees of readings, to train one elsewhere
    #[command(
        after_help = "Example: vidente models inputs --input readings.csv --output inputs.safetensors\n         \
                      vidente models inputs --stream climate --output inputs.safetensors"
    )]
    Inputs(InputsArgs),
    /// Write a model to a file, in the layout of torch.nn.LSTM, GRU or RNN
    #[command(after_help = "Example: vidente models export climate-12 --output climate-12.safetensors")]
    Export(ExportArgs),
}

/// `vidente models list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Models of this stream only
    #[arg(long, value_name = "NAME")]
    pub stream: Option<String>,
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// `vidente models show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Name of the model, as `vidente models list` shows it
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// `vidente models promote`.
#[derive(Debug, Args)]
pub struct PromoteArgs {
    /// Name of the model, as `vidente models list` shows it
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// `vidente models rollback`.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Stream whose champion goes
    #[arg(long, value_name = "NAME")]
    pub stream: String,
    /// Why, to be read in `vidente models list`
    #[arg(long, value_name = "TEXT", default_value = "rolled back by command")]
    pub reason: String,
}

/// `vidente models export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Name of the model, as `vidente models list` shows it
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// File to write
    #[arg(long, value_name = "FILE.safetensors")]
    pub output: PathBuf,
    /// Overwrite the file if it is there
    #[arg(long)]
    pub force: bool,
}

/// `vidente models import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The model
    #[arg(value_name = "FILE.safetensors")]
    pub file: PathBuf,
    /// Stream that it is for
    #[arg(long, value_name = "NAME")]
    pub stream: String,
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// `vidente models inputs`.
#[derive(Debug, Args)]
pub struct InputsArgs {
    /// CSV with the columns series, timestamp and value [default: the stored readings of --stream]
    #[arg(long, value_name = "FILE.csv", required_unless_present = "stream", conflicts_with_all = ["stream", "config"])]
    pub input: Option<PathBuf>,
    /// Stream whose stored readings are meant, back by training.window
    #[arg(long, value_name = "NAME")]
    pub stream: Option<String>,
    /// Where the configuration is.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Time between the CSV's readings [default: learned per series]
    #[arg(long, value_name = "DURATION", value_parser = interval, requires = "input")]
    pub interval: Option<Duration>,
    /// File to write
    #[arg(long, value_name = "FILE.safetensors")]
    pub output: PathBuf,
    /// Overwrite the file if it is there
    #[arg(long)]
    pub force: bool,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x > 0.0 && x.is_finite() => Ok(x),
        _ => Err("must be a number above 0".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if (0.0..1.0).contains(&x) => Ok(x),
        _ => Err("must be a number from 0 to below 1, such as 0.7".to_owned()),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval =
        humantime::parse_duration(text).map_err(|e| format!("{e}; write for instance 60s or 1h"))?;
    let sane = Duration::from_micros(1)..=Duration::from_secs(366 * 86_400);
    if sane.contains(&interval) {
        Ok(interval)
    } else {
        Err("must be above 0 and at most 366 days".to_owned())
    }
}
