use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::broker::{Broker, NEVER};
use super::{PROTOCOLS, config};
use crate::config::Mqtt;
use crate::metrics::Metrics;
use crate::mqtt::{Role, TcpLink, run_outlet};
use crate::outqueue::{Kind, OutQueue, Outgoing};

struct Outlet {
    queue: Arc<OutQueue>,
    metrics: Arc<Metrics>,
    task: JoinHandle<()>,
}

impl Outlet {
    fn start(config: Mqtt, capacity: usize) -> Outlet {
        let metrics = Metrics::new(["s"]).unwrap();
        let queue = Arc::new(OutQueue::new(capacity, metrics.clone()));
        let task = {
            let link = TcpLink::open(&config, Role::Out).unwrap();
            tokio::spawn(run_outlet(link, config, queue.clone(), metrics.clone(), NEVER))
        };
        Outlet { queue, metrics, task }
    }

    fn push(&self, numbers: impl IntoIterator<Item = usize>, kind: Kind) {
        let mut messages = numbers
            .into_iter()
            .map(|n| Outgoing {
                topic: format!("out/{n}"),
                payload: n.to_string().into_bytes(),
                retain: true,
                stream: 0,
                series: None,
                kind,
                arrived: Some(Instant::now()),
            })
            .collect();
        self.queue.push_all(&mut messages);
    }

    fn published(&self) -> u64 {
        self.metrics.stream(0).published.get()
    }

    fn dropped(&self) -> u64 {
        self.metrics.stream(0).dropped.get()
    }

    async fn until_published(&self, count: u64) {
        timeout(NEVER, async {
            while self.published() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
    }

    async fn end(&mut self) {
        self.queue.close();
        timeout(NEVER, &mut self.task).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn publishes_in_order_and_leaves_politely() {
    for protocol in PROTOCOLS {
        let broker = Broker::start("");
        let mut outlet = Outlet::start(config(&broker, protocol), 1_000_000);
        assert_eq!(broker.first("vidente/status", 1).await, ["vidente/status online"]);
        let (port, count) = (broker.port, 5000);
        outlet.push(0..count, Kind::Forecast);
        outlet.push([count], Kind::Anomaly);
        outlet.end().await;
        assert_eq!(port, broker.port);
        assert_eq!((outlet.published(), outlet.dropped()), (count as u64, 0));
        assert_eq!(outlet.metrics.latency.get_sample_count(), count as u64);
        assert_eq!(broker.first("vidente/status", 1).await, ["vidente/status offline"]);
        let mut got = broker.first("out/#", count + 1).await;
        got.sort();
        let mut expected: Vec<_> = (0..=count).map(|n| format!("out/{n} {n}")).collect();
        expected.sort();
        assert_eq!(got, expected, "{protocol:?}: all of them, retained");
    }
}

#[tokio::test]
async fn a_daemon_that_dies_is_reported_by_its_last_will() {
    for protocol in PROTOCOLS {
        let broker = Broker::start("");
        let outlet = Outlet::start(config(&broker, protocol), 10);
        assert_eq!(broker.first("vidente/status", 1).await, ["vidente/status online"]);
        outlet.task.abort();
        let report = async { while broker.first("vidente/status", 1).await != ["vidente/status offline"] {} };
        timeout(NEVER, report).await.unwrap();
    }
}

#[tokio::test]
async fn while_the_broker_is_away_the_oldest_are_dropped_and_counted() {
    for protocol in PROTOCOLS {
        let mut broker = Broker::start("");
        let mut outlet = Outlet::start(config(&broker, protocol), 100);
        outlet.push([0], Kind::Forecast);
        outlet.until_published(1).await;
        broker.down();
        // The library notices on its own; what it takes until then is lost with the connection.
        tokio::time::sleep(Duration::from_millis(300)).await;
        for n in 1..=1000 {
            outlet.push([n], Kind::Forecast);
        }
        assert_eq!(outlet.dropped(), 900);
        broker.up();
        outlet.until_published(101).await;
        outlet.end().await;
        assert_eq!((outlet.published(), outlet.dropped()), (101, 900));
        let got = broker.first("out/#", 100).await;
        assert!((901..=1000).all(|n| got.contains(&format!("out/{n} {n}"))), "{protocol:?}");
        assert_eq!(broker.first("vidente/status", 1).await, ["vidente/status offline"]);
    }
}

#[tokio::test]
async fn an_end_without_a_broker_counts_what_is_lost() {
    for protocol in PROTOCOLS {
        let mut broker = Broker::start("");
        broker.down();
        let mut outlet = Outlet::start(config(&broker, protocol), 100);
        outlet.push(0..7, Kind::Forecast);
        outlet.end().await;
        assert_eq!((outlet.published(), outlet.dropped()), (0, 7));
    }
}

#[tokio::test]
async fn what_no_broker_takes_is_dropped_and_the_rest_goes_on() {
    for protocol in PROTOCOLS {
        // The broker of MQTT 5 says what it takes; it is less than what the configuration allows.
        let broker = Broker::start("max_packet_size 3000");
        let max_packet_bytes = if protocol == crate::config::Protocol::V5 { 1 << 20 } else { 3000 };
        let mut outlet = Outlet::start(Mqtt { max_packet_bytes, ..config(&broker, protocol) }, 100);
        let message = |topic: String, bytes: usize| Outgoing {
            topic,
            payload: vec![b'x'; bytes],
            retain: true,
            stream: 0,
            series: None,
            kind: Kind::Forecast,
            arrived: None,
        };
        outlet.queue.push_all(&mut vec![
            message("out/big".into(), 3000),
            message("o".repeat(70_000), 1),
            message("out/small".into(), 1),
        ]);
        outlet.until_published(1).await;
        outlet.end().await;
        assert_eq!((outlet.published(), outlet.dropped()), (1, 2), "{protocol:?}");
        assert_eq!(broker.first("out/#", 1).await, ["out/small x"]);
    }
}
