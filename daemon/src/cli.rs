//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Streaming forecasts for sensors that publish over MQTT.
#[derive(Debug, Parser)]
#[command(name = "vidente", version, about, propagate_version = true)]
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
    Train(TrainArgs),
    /// Validate the configuration; exit status 0, or 78 with file, key, reason and fix
    Check(ConfigArgs),
    /// Bring the store's schema up to date
    Migrate(ConfigArgs),
    /// Print completions for a shell
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Configuration file [default: /etc/vidente/vidente.toml, then ./vidente.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
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
