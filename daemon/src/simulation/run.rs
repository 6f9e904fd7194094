//! Runs a case: what happens, then an end at which all must be well.

use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::sleep;

use super::broker::Broker;
use super::case::{Case, Op};
use super::invariants;
use super::machine::{Machine, SimWorld, wait_until};
use super::replay;
use super::sensors::{self, Sensors};
use super::sim::Sim;
use super::spool;
use super::store::{Fault, SimStore};
use crate::chance;
use crate::mqtt::Role;

/// By when all must have settled once nothing fails any more: a write that hangs is given up after a
/// minute, a subscription that was refused is asked for again after half of one.
const SETTLES_WITHIN: Duration = Duration::from_secs(240);

/// How a case went.
pub(super) struct Ended {
    pub(super) trace: Vec<String>,
    pub(super) violation: Option<String>,
}

pub(super) fn run(case: &Case) -> Ended {
    chance::seed(case.seed);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let spool = spool::folder();
    runtime.block_on(async {
        let sim = Sim::new(case.seed, case.setup.config(spool.path()), case.setup.bounds());
        Running::new(&sim, case).run(&case.ops).await;
        Ended { trace: sim.trace(), violation: sim.first_violation() }
    })
}

struct Running {
    sim: Sim,
    store: SimStore,
    broker: Broker,
    machine: Machine,
    sensors: Sensors,
}

impl Running {
    fn new(sim: &Sim, case: &Case) -> Running {
        let store = SimStore::new(sim);
        if case.setup.trained {
            for stream in &sim.config().stream {
                store.with(|t| {
                    let model = replay::candidate(t, &stream.name);
                    t.models
                        .iter_mut()
                        .filter(|m| m.id == model)
                        .for_each(|m| m.status = "champion".to_owned());
                });
            }
        }
        let broker = Broker::new(sim, &store, case.setup.window);
        let world = SimWorld { sim: sim.clone(), store: store.clone(), broker: broker.clone() };
        Running { sim: sim.clone(), store, broker, machine: Machine::new(world), sensors: Sensors::new() }
    }

    async fn run(mut self, ops: &[Op]) {
        self.machine.start();
        // Most cases begin with a daemon that is there.
        if self.sim.dice(4) > 0 {
            sleep(Duration::from_secs(1)).await;
        }
        for op in ops {
            self.sim.note(|| format!("{op:?}"));
            self.apply(op).await;
            self.machine.tend().await;
            self.sim.pause().await;
            if self.sim.first_violation().is_some() {
                return;
            }
        }
        self.settle().await;
    }

    async fn apply(&mut self, op: &Op) {
        match *op {
            Op::Readings { device, count, step, how } => {
                for _ in 0..count {
                    self.broker.publish(self.sensors.reading(device, step, how));
                }
            }
            Op::Wild { device } => self.broker.publish(self.sensors.wild(device)),
            Op::Feedback { device, latest, anomaly } => {
                let (key, newest) = self.sensors.newest(device);
                self.machine.feedback(key, (!latest).then_some(newest), anomaly);
            }
            Op::Meter { count, how } => {
                for _ in 0..count {
                    self.broker.publish(self.sensors.meter(how));
                }
            }
            Op::Duplicate { back, other } => {
                let Some(publication) = self.broker.publication(back.into()) else { return };
                let again = other && !publication.readings.is_empty();
                let publication = if again { self.sensors.other(&publication) } else { publication };
                self.broker.publish(publication);
            }
            Op::Late { device, seconds } => self.broker.publish(self.sensors.late(device, seconds)),
            Op::Garbage { kind } => self.broker.publish(sensors::garbage(kind)),
            Op::Poison { series } => self.broker.publish(self.sensors.poison(series)),
            Op::StoreFails { committed, writes } => self.store.will(Fault::Fails { committed }, writes),
            Op::StoreSlow { millis, writes } => {
                self.store.will(Fault::Slow(Duration::from_millis(millis.into())), writes);
            }
            Op::StoreHangs { committed } => self.store.will(Fault::Hangs { committed }, 1),
            Op::StoreAway { seconds } => self.store.be_away(Duration::from_secs(seconds.into())),
            Op::BrokerDrops { incoming, outgoing } => {
                if incoming {
                    self.broker.drop_connection(Role::In);
                }
                if outgoing {
                    self.broker.drop_connection(Role::Out);
                }
            }
            Op::BrokerAway { seconds, forgets } => {
                self.broker.go_away();
                if forgets {
                    self.broker.forget();
                }
                sleep(Duration::from_secs(seconds.into())).await;
                self.broker.come_back();
            }
            Op::BrokerRefuses => self.broker.refuse(true),
            Op::NewModel { meters, probation } => self.machine.new_model(meters.into(), probation),
            Op::Restart { kill, seconds, unreadable } => {
                if kill {
                    self.machine.kill().await
                } else {
                    self.machine.stop().await
                }
                if unreadable {
                    self.store.with(|t| t.states.values_mut().for_each(|s| s.state.insert(0, 0)));
                }
                sleep(Duration::from_secs(seconds.into())).await;
                self.machine.start();
            }
            Op::Turns { count } => {
                for _ in 0..count {
                    tokio::task::yield_now().await;
                }
            }
            Op::Advance { millis } => sleep(Duration::from_millis(millis.into())).await,
        }
    }

    /// Nothing fails any more.
    async fn settle(mut self) {
        self.sim.note(|| "all is well from here on".to_owned());
        self.store.recover();
        self.broker.refuse(false);
        let machine = &mut self.machine;
        let broker = &self.broker;
        let settled = wait_until(SETTLES_WITHIN, async || {
            machine.tend().await;
            broker.idle() && machine.settled()
        });
        let settled = settled.await;
        self.sim.ensure(settled, invariants::SETTLES, || format!("not within {SETTLES_WITHIN:?}"));
        self.machine.stop().await;
        self.store.with(|t| invariants::ended(&self.sim, t, &self.broker.published()));
        // What it left is what it had.
        self.machine.start();
        sleep(Duration::from_secs(1)).await;
        self.machine.tend().await;
        self.machine.stop().await;
    }
}
