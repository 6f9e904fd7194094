//! A daemon that readings flow through while one fault after the other happens to it, to the broker, to the
//! store, and to the connections between them; at the end the audit.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use bytes::BytesMut;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rumqttc::mqttbytes::v4;

use crate::audit::{Audit, Report};
use crate::broker::Persistence;
use crate::daemon::{Daemon, Metrics};
use crate::ledger::Publisher;
use crate::plan::Plan;
use crate::process::{WAIT, wait_until};
use crate::proxy::{Cut, Line, Proxy};
use crate::rig::{Proxies, Rig, Settings, Store};

/// How long the readings that were made may take to be published.
const PUBLISH: Duration = Duration::from_secs(120);

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` of the daemon.
    KillDaemon,
    /// SIGTERM to the daemon.
    StopDaemon,
    /// `kill -9` of every process of Postgres.
    KillPostgres,
    /// What `pg_ctl stop -m immediate` does.
    CrashPostgres,
    /// Postgres stands still.
    FreezePostgres,
    /// `kill -9` of the broker.
    KillBroker,
    /// The broker stands still.
    FreezeBroker,
    /// The daemon's connections to the broker end.
    CutBroker,
    /// They are reset.
    ResetBroker,
    /// They hang, and so do new ones.
    HoleBroker,
    /// Everything between daemon and broker comes late.
    LateBroker,
    /// Little passes between daemon and broker.
    NarrowBroker,
    /// The daemon's connections to Postgres are reset.
    ResetStore,
    /// They hang, and so do new ones.
    HoleStore,
    /// Postgres takes no connections, and those that stood are reset.
    RefuseStore,
    /// Everything between daemon and Postgres comes late.
    LateStore,
    /// Another client takes over the daemon's session, takes what the broker sends, and leaves.
    TakeOver,
}

impl Fault {
    /// As the audit's table names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Fault::KillDaemon => "daemon kill -9",
            Fault::StopDaemon => "daemon SIGTERM",
            Fault::KillPostgres => "Postgres kill -9",
            Fault::CrashPostgres => "Postgres stop immediate",
            Fault::FreezePostgres => "Postgres frozen",
            Fault::KillBroker => "broker kill -9",
            Fault::FreezeBroker => "broker frozen",
            Fault::CutBroker => "broker cut",
            Fault::ResetBroker => "broker reset",
            Fault::HoleBroker => "broker black hole",
            Fault::LateBroker => "broker late",
            Fault::NarrowBroker => "broker narrow",
            Fault::ResetStore => "store reset",
            Fault::HoleStore => "store black hole",
            Fault::RefuseStore => "store refuses",
            Fault::LateStore => "store late",
            Fault::TakeOver => "session taken over",
        }
    }

    /// Whether the store is out of reach meanwhile.
    #[must_use]
    pub fn takes_the_store(self) -> bool {
        use Fault::{CrashPostgres, FreezePostgres, HoleStore, KillPostgres, RefuseStore};
        matches!(self, KillPostgres | CrashPostgres | FreezePostgres | HoleStore | RefuseStore)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Ordeal {
    /// The daemon, perhaps dead.
    pub daemon: Daemon,
    /// The readings.
    pub publisher: Publisher,
    /// Broker and store.
    pub rig: Rig,
    audit: Audit,
    chance: StdRng,
    settings: Settings,
    broker_side: Proxy,
    store_side: Option<Proxy>,
}

impl Ordeal {
    /// Starts everything, with proxies in between.
    ///
    /// # Errors
    /// If something does not come up.
    pub fn begin(
        broker: Persistence,
        store: Store,
        settings: &Settings,
        plan: Plan,
        seed: u64,
    ) -> Result<Ordeal> {
        let rig = Rig::on(broker, store)?;
        let broker_side = Proxy::start(rig.broker.port())?;
        let store_side = rig.postgres.as_ref().map(|p| Proxy::start(p.port())).transpose()?;
        let proxies =
            Proxies { broker: Some(broker_side.port()), store: store_side.as_ref().map(Proxy::port) };
        let settings = Settings { proxies, ..settings.clone() };
        let daemon = rig.daemon(&settings)?;
        // Without the daemon's session in its database, a broker that is killed would not know for whom to
        // keep what comes next.
        rig.broker.save()?;
        let publisher = Publisher::start(rig.broker.port(), plan);
        println!("seed {seed}");
        Ok(Ordeal {
            daemon,
            publisher,
            rig,
            audit: Audit::default(),
            chance: StdRng::seed_from_u64(seed),
            settings,
            broker_side,
            store_side,
        })
    }

    /// Lets a while pass, by chance.
    pub fn while_passes(&mut self, milliseconds: std::ops::Range<u64>) {
        std::thread::sleep(Duration::from_millis(self.chance.random_range(milliseconds)));
    }

    /// One of several, by chance.
    ///
    /// # Errors
    /// If there is none.
    pub fn one_of<T: Copy>(&mut self, items: &[T]) -> Result<T> {
        ensure!(!items.is_empty(), "nothing to choose from");
        Ok(items[self.chance.random_range(0..items.len())])
    }

    /// Faults so far.
    #[must_use]
    pub fn faults(&self) -> usize {
        self.audit.faults()
    }

    /// A fault, for a while, and its end.
    ///
    /// # Errors
    /// If it cannot be done, or the daemon does not get over it.
    pub fn inflict(&mut self, fault: Fault, milliseconds: std::ops::Range<u64>) -> Result<()> {
        self.begin_fault(fault)?;
        self.while_passes(milliseconds);
        self.end_fault(fault)?;
        self.recover().context(fault.name())
    }

    /// Begins a fault.
    ///
    /// # Errors
    /// If it cannot be done.
    pub fn begin_fault(&mut self, fault: Fault) -> Result<()> {
        self.audit.fault(fault.name());
        let store_side = || self.store_side.as_ref().context("no proxy before the store");
        match fault {
            Fault::KillDaemon => {
                self.scrape();
                self.daemon.kill()?;
            }
            Fault::StopDaemon => {
                self.scrape();
                self.daemon.stop()?;
            }
            Fault::KillPostgres => self.rig.postgres.as_mut().context("no Postgres")?.kill()?,
            Fault::CrashPostgres => self.rig.postgres.as_mut().context("no Postgres")?.crash()?,
            Fault::FreezePostgres => self.rig.postgres.as_ref().context("no Postgres")?.freeze(true)?,
            Fault::KillBroker => {
                self.rig.broker.kill()?;
                self.publisher.broker_lost_all_since(self.rig.broker.saved()?);
            }
            Fault::FreezeBroker => self.rig.broker.freeze(true)?,
            Fault::CutBroker => self.broker_side.cut(Cut::Fin),
            Fault::ResetBroker => self.broker_side.cut(Cut::Reset),
            Fault::HoleBroker => self.broker_side.set(Line::Hole),
            Fault::LateBroker => self.broker_side.set(Line::Late(Duration::from_millis(300))),
            Fault::NarrowBroker => self.broker_side.set(Line::Narrow(100_000)),
            Fault::ResetStore => store_side()?.cut(Cut::Reset),
            Fault::HoleStore => store_side()?.set(Line::Hole),
            Fault::RefuseStore => {
                store_side()?.set(Line::Refusing);
                store_side()?.cut(Cut::Reset);
            }
            Fault::LateStore => store_side()?.set(Line::Late(Duration::from_millis(300))),
            Fault::TakeOver => self.take_over()?,
        }
        Ok(())
    }

    /// Ends a fault.
    ///
    /// # Errors
    /// If what was taken away does not come back.
    pub fn end_fault(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::KillDaemon | Fault::StopDaemon => {
                self.daemon = self.rig.launch(&self.settings, &[])?;
            }
            Fault::KillPostgres | Fault::CrashPostgres => {
                self.rig.postgres.as_mut().context("no Postgres")?.start_again()?;
            }
            Fault::FreezePostgres => self.rig.postgres.as_ref().context("no Postgres")?.freeze(false)?,
            Fault::KillBroker => self.rig.broker.start_again()?,
            Fault::FreezeBroker => self.rig.broker.freeze(false)?,
            Fault::HoleBroker | Fault::LateBroker | Fault::NarrowBroker => self.broker_side.set(Line::Open),
            Fault::HoleStore | Fault::RefuseStore | Fault::LateStore => {
                self.store_side.as_ref().context("no proxy before the store")?.set(Line::Open);
            }
            Fault::CutBroker | Fault::ResetBroker | Fault::ResetStore | Fault::TakeOver => {}
        }
        Ok(())
    }

    /// Waits until the daemon is ready again. One that gave up at its start, because the store went away
    /// half way, is started again, as systemd would.
    ///
    /// # Errors
    /// If it does not get ready.
    pub fn recover(&mut self) -> Result<()> {
        wait_until("vidente to be ready again", WAIT, || {
            if !self.daemon.is_running() {
                ensure!(!self.daemon.was_ready(), "vidente ended by itself");
                self.daemon = self.rig.launch(&self.settings, &[])?;
            }
            Ok(self.daemon.get("/ready")?.0 == 200)
        })
    }

    fn scrape(&mut self) {
        // One that hangs or has just started says nothing.
        if let Ok(metrics) = self.daemon.metrics() {
            self.audit.run(&metrics);
        }
    }

    /// A scrape of the daemon.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn metrics(&self) -> Result<Metrics> {
        self.daemon.metrics()
    }

    /// As a clumsy operator starts a second client under the daemon's id.
    fn take_over(&self) -> Result<()> {
        let taken = self.connect_as_daemon();
        if taken.is_err() && TcpStream::connect(("127.0.0.1", self.rig.broker.port())).is_err() {
            // Another fault has taken the broker.
            return Ok(());
        }
        taken
    }

    fn connect_as_daemon(&self) -> Result<()> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.rig.broker.port()))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut connect = v4::Connect::new(self.settings.name.clone());
        // A clean session would throw away what waits for the daemon.
        connect.clean_session = false;
        let mut request = BytesMut::new();
        connect.write(&mut request).map_err(|e| anyhow!("{e}"))?;
        socket.write_all(&request)?;
        let mut answer = [0; 4];
        socket.read_exact(&mut answer)?;
        ensure!(answer[0] >> 4 == 2 && answer[3] == 0, "the session was not given: {answer:?}");
        Ok(())
    }

    /// Ends the readings and makes the audit.
    ///
    /// # Errors
    /// If the readings cannot be published or the audit cannot be made.
    pub fn conclude(mut self) -> Result<Report> {
        let plan = self.publisher.plan();
        self.publisher.resume();
        let ledger = self.publisher.finish()?;
        let database = self.rig.database(&self.settings)?;
        let report = self.audit.conclude(&mut self.daemon, &database, plan, ledger)?;
        self.daemon.stop()?;
        Ok(report)
    }

    /// Waits until so many readings have been made in all.
    ///
    /// # Errors
    /// If they are not.
    pub fn wait_made(&self, count: u64) -> Result<()> {
        self.publisher.wait_made(count, PUBLISH)
    }
}
