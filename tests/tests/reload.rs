//! SIGHUP: another configuration without a restart, and without a trace in what it does not touch.

use anyhow::{Context, Result, ensure};
use vidente_tests::{
    Daemon, Feed, NotifySocket, Publication, Rig, Settings, Store, Subscriber, WAIT, publish, wait_until,
};

const SERIES: usize = 4;
/// Readings of a series before the first reload, between two, and at the end.
const PART: usize = 60;

const CLIMATE: &str = "[[stream]]\nname = \"climate\"\ntopic = \"sensors/{site}/{device}/climate\"\n\
                       fields = [\"value\"]\ntime = \"ts\"\n";
const POWER: &str =
    "[[stream]]\nname = \"power\"\ntopic = \"meters/{meter}\"\npayload = \"number\"\ninterval = \"10s\"\n";
const TRAINING: &str = "[training]\nevery = \"off\"\n";

fn settings(name: &str, rest: &str) -> Settings {
    Settings {
        rest: format!("{rest}{TRAINING}\n[forecast]\ntopic = \"vidente/{name}/{{series}}\"\n"),
        ..Settings::named(name)
    }
}
