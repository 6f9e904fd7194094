//! `vidente demo`: the daemon proper over an embedded broker with simulated sensors.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{oneshot, watch};

use super::signals;
use crate::app::{self, Started};
use crate::cli::DemoArgs;
use crate::config::Config;
use crate::demo::broker::{self, RunningBroker};
use crate::demo::publisher;
use crate::demo::sensors::{INTERVAL, STREAMS, Simulation};
use crate::training;

/// Where sensors usually publish.
const MQTT_PORT: u16 = 1883;
/// Every demo shows the same house.
const SEED: u64 = 7;

pub(super) async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let kept = args.dir.is_some();
    let temporary;
    let dir = match &args.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
            dir.as_path()
        }
        None => {
            temporary = tempfile::tempdir().context("making a temporary directory")?;
            temporary.path()
        }
    };
    let broker = broker::start(MQTT_PORT, IpAddr::V4(Ipv4Addr::LOCALHOST))?;
    let config = Config::parse(&config(&args, &broker, dir)?).map_err(anyhow::Error::msg)?;
    let stop = signals()?;
    let (told, started) = oneshot::channel();
    let daemon = app::run(config, None, stop.clone(), move |started| drop(told.send(started)));
    let sensors = sensors(started, &args, &broker, dir, kept, stop.clone());
    let (daemon, sensors) = tokio::join!(daemon, sensors);
    sensors.and(daemon)
}

async fn sensors(
    started: oneshot::Receiver<Started>,
    args: &DemoArgs,
    broker: &RunningBroker,
    dir: &Path,
    kept: bool,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    // Gone without a word if the daemon could not start, which then says so itself.
    let Ok(started) = started.await else { return Ok(()) };
    // The broker keeps nothing for a subscriber that has not come yet.
    while !started.ready.missing().is_empty() {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        }
    }
    let port = broker.port();
    println!("Vidente demo: a house of sensors, {} times as fast as real time", args.speed);
    println!("  live page   {}", started.url);
    println!("  forecasts   mosquitto_sub -h 127.0.0.1 -p {port} -t 'vidente/#' -v");
    println!("  readings    mosquitto_sub -h 127.0.0.1 -p {port} -t 'home/#' -v");
    println!("  store       {}{}", dir.display(), if kept { "" } else { " (goes with the demo)" });
    println!("Ctrl-C ends it.");
    let start = publisher::start_time(training::now(), args.speed);
    publisher::publish(broker.address, Simulation::new(SEED, start), start, args.speed, stop).await?;
    Ok(())
}

/// The demo's configuration, in the form that users write.
fn config(args: &DemoArgs, broker: &RunningBroker, dir: &Path) -> anyhow::Result<String> {
    let path = dir.join("vidente.db");
    let path = path.to_str().context("the directory's name is not valid UTF-8")?;
    let mut text = format!(
        "[mqtt]\nurl = \"mqtt://{}\"\nprotocol = \"3.1.1\"\n[store]\nurl = {}\n[spool]\nmax_bytes = 0\n[http]\nlisten = {}\n\
         [training]\nevery = \"5m\"\nwindow = \"60d\"\nmin_readings = 2000\n",
        broker.address,
        serde_json::Value::from(format!("sqlite://{path}")),
        serde_json::Value::from(args.listen.as_str()),
    );
    for (name, topic) in STREAMS {
        text += &format!(
            "[[stream]]\nname = \"{name}\"\ntopic = \"{topic}\"\ntime = \"ts\"\n\
             interval = \"{INTERVAL}s\"\nhorizon = 6\n"
        );
    }
    Ok(text)
}
