//! What may happen, and how cases are drawn.

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::config::Config;
use crate::path::Bounds;

/// One thing that happens.
#[derive(Debug, Clone)]
pub(super) enum Op {
    /// A sensor reports, so many times in a row.
    Readings { device: u8, count: u8, step: u8, how: How },
    /// A sensor reports something far out.
    Wild { device: u8 },
    /// A meter whose time is the time of arrival reports.
    Meter { count: u8, how: How },
    /// A message comes again; with another value at the same time if `other`.
    Duplicate { back: u8, other: bool },
    /// A sensor reports something older than its newest reading.
    Late { device: u8, seconds: u16 },
    /// A user says something of a series' latest anomaly, or of its newest reading.
    Feedback { device: u8, latest: bool, anomaly: bool },
    /// A message that holds nothing to store.
    Garbage { kind: u8 },
    /// A reading, or all readings of a series, that the store refuses.
    Poison { series: bool },
    /// Writes fail, before or after the commit.
    StoreFails { committed: bool, writes: u8 },
    /// Writes take long.
    StoreSlow { millis: u16, writes: u8 },
    /// A write never ends, before or after the commit.
    StoreHangs { committed: bool },
    /// Nothing reaches the store.
    StoreAway { seconds: u8 },
    /// Connections break.
    BrokerDrops { incoming: bool, outgoing: bool },
    /// The broker is not there, and may have forgotten the session when it is back.
    BrokerAway { seconds: u8, forgets: bool },
    /// The broker refuses the next subscription.
    BrokerRefuses,
    /// A model takes over.
    NewModel { meters: bool, probation: bool },
    /// The daemon is stopped, or killed, and started again; it may find its checkpoints unreadable.
    Restart { kill: bool, seconds: u8, unreadable: bool },
    /// Everything goes on by so many turns of the scheduler.
    Turns { count: u8 },
    /// Time passes.
    Advance { millis: u16 },
}

/// How a message is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// At quality of service 1.
    Surely,
    /// At quality of service 1, and kept by the broker for those who subscribe later.
    Retained,
    /// At quality of service 0.
    Perhaps,
}

/// What is the same all the time.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) horizon: usize,
    /// Whether the sensors' interval is configured.
    pub(super) interval: bool,
    /// Whether there are models from the beginning.
    pub(super) trained: bool,
    /// Messages of quality of service 1 on the way at most.
    pub(super) window: usize,
    pub(super) inbox: usize,
    /// In bytes.
    pub(super) backlog: usize,
    /// Bytes of the spool; 0 for none.
    pub(super) spool: u64,
    pub(super) out: usize,
    pub(super) slice: usize,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            horizon: 2,
            interval: false,
            trained: false,
            window: 20,
            inbox: 16,
            backlog: 20_000,
            spool: 0,
            out: 100,
            slice: 2,
        }
    }
}

impl Setup {
    pub(super) fn bounds(&self) -> Bounds {
        Bounds { inbox: self.inbox, backlog: self.backlog, out: self.out, slice: self.slice }
    }

    /// Its spool, if it has one, is in a folder.
    pub(super) fn config(&self, spool: &Path) -> Config {
        let interval = if self.interval { "interval = \"60s\"\n" } else { "" };
        Config::parse(&format!(
            "[spool]\nmax_bytes = {}\ndir = \"{}\"\n[store]\ncheckpoint_every = \"4s\"\n[training]\nevery = \"off\"\n[anomaly]\nwarm_up = 10\nsilence_after = 3\n\
             [[stream]]\nname = \"climate\"\ntopic = \"sensors/{{device}}/climate\"\nfields = [\"t\", \"h\"]\n\
             time = \"ts\"\nhorizon = {}\n{interval}\
             [[stream]]\nname = \"power\"\ntopic = \"meters/{{device}}\"\npayload = \"number\"\n",
            self.spool,
            spool.display(),
            self.horizon
        ))
        .unwrap()
    }
}

/// A seed and what happens.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) seed: u64,
    pub(super) setup: Setup,
    pub(super) ops: Vec<Op>,
}

pub(super) fn cases() -> impl Strategy<Value = Case> {
    (any::<u64>().no_shrink(), setups(), vec(ops(), 1..60)).prop_map(|(seed, setup, ops)| Case {
        seed,
        setup,
        ops,
    })
}

fn setups() -> impl Strategy<Value = Setup> {
    let window = prop_oneof![Just(20_usize), Just(1000), 2..6_usize];
    let inbox = prop_oneof![Just(16_usize), 1..4_usize];
    let backlog = prop_oneof![Just(20_000_usize), 100..4000_usize];
    let spool = prop_oneof![2 => Just(0_u64), 3 => Just(1 << 20), 1 => 2_000..20_000_u64];
    let rest = (prop_oneof![Just(100_usize), 3..20_usize], 1..4_usize);
    (1..4_usize, any::<bool>(), any::<bool>(), window, inbox, (backlog, spool), rest).prop_map(
        |(horizon, interval, trained, window, inbox, (backlog, spool), (out, slice))| Setup {
            horizon,
            interval,
            trained,
            window,
            inbox,
            backlog,
            spool,
            out,
            slice,
        },
    )
}

fn ops() -> impl Strategy<Value = Op> {
    let how = || prop_oneof![8 => Just(How::Surely), 1 => Just(How::Retained), 1 => Just(How::Perhaps)];
    let many = || prop_oneof![4 => 1..4_u8, 1 => 4..40_u8];
    prop_oneof![
        14 => (0..2_u8, many(), 1..120_u8, how())
            .prop_map(|(device, count, step, how)| Op::Readings { device, count, step, how }),
        2 => (0..2_u8).prop_map(|device| Op::Wild { device }),
        3 => (0..2_u8, any::<bool>(), any::<bool>())
            .prop_map(|(device, latest, anomaly)| Op::Feedback { device, latest, anomaly }),
        6 => (many(), how()).prop_map(|(count, how)| Op::Meter { count, how }),
        3 => (0..10_u8, any::<bool>()).prop_map(|(back, other)| Op::Duplicate { back, other }),
        3 => (0..2_u8, 0..600_u16).prop_map(|(device, seconds)| Op::Late { device, seconds }),
        2 => (0..6_u8).prop_map(|kind| Op::Garbage { kind }),
        1 => any::<bool>().prop_map(|series| Op::Poison { series }),
        3 => (any::<bool>(), 1..4_u8).prop_map(|(committed, writes)| Op::StoreFails { committed, writes }),
        3 => (1..8000_u16, 1..4_u8).prop_map(|(millis, writes)| Op::StoreSlow { millis, writes }),
        1 => any::<bool>().prop_map(|committed| Op::StoreHangs { committed }),
        2 => (1..40_u8).prop_map(|seconds| Op::StoreAway { seconds }),
        4 => (any::<bool>(), any::<bool>())
            .prop_map(|(incoming, outgoing)| Op::BrokerDrops { incoming, outgoing }),
        2 => (0..10_u8, any::<bool>()).prop_map(|(seconds, forgets)| Op::BrokerAway { seconds, forgets }),
        1 => Just(Op::BrokerRefuses),
        4 => (any::<bool>(), any::<bool>())
            .prop_map(|(meters, probation)| Op::NewModel { meters, probation }),
        5 => (any::<bool>(), 0..5_u8, prop::bool::weighted(0.2))
            .prop_map(|(kill, seconds, unreadable)| Op::Restart { kill, seconds, unreadable }),
        6 => (1..20_u8).prop_map(|count| Op::Turns { count }),
        10 => prop_oneof![1..30_u16, 30..1000_u16, 1000..30_000_u16]
            .prop_map(|millis| Op::Advance { millis }),
    ]
}
