use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::broker::{Broker, NEVER};
use super::{PROTOCOLS, config};
use crate::clock::Clock;
use crate::config::Mqtt;
use crate::message::{AckToken, Message, Packet};
use crate::metrics::Metrics;
use crate::mqtt::{Intake, Role, TcpLink, run_inlet};
use crate::ready::Ready;
use crate::recorder::Backlog;

struct Inlet {
    rx: mpsc::Receiver<Message>,
    acks: mpsc::UnboundedSender<AckToken>,
    ready: Arc<Ready>,
    metrics: Arc<Metrics>,
    stop: watch::Sender<bool>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Inlet {
    fn start(config: Mqtt, capacity: usize) -> Inlet {
        let (tx, rx) = mpsc::channel(capacity);
        let (acks, acked) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let (ready, metrics) = (Arc::new(Ready::default()), Metrics::new(["s"]).unwrap());
        let filters = vec!["s/+/x".to_owned(), "s/#".to_owned(), "s/#".to_owned()];
        let task = tokio::spawn(run_inlet(
            TcpLink::open(&config, Role::In).unwrap(),
            config,
            watch::channel(filters).1,
            Intake {
                engine: tx,
                acks: acked,
                backlog: Backlog::new(1, metrics.store_queue.clone()),
                clock: Clock::system(),
            },
            ready.clone(),
            metrics.clone(),
            stopped,
        ));
        Inlet { rx, acks, ready, metrics, stop, task }
    }

    fn subscribed(&self) -> bool {
        !self.ready.missing().contains(&"subscribed")
    }

    async fn until(&self, subscribed: bool) {
        timeout(NEVER, async {
            while self.subscribed() != subscribed {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        assert_eq!(self.metrics.mqtt_connected.get(), i64::from(subscribed));
    }

    async fn up(config: Mqtt) -> Inlet {
        let inlet = Inlet::start(config, 100);
        inlet.until(true).await;
        inlet
    }

    async fn packet(&mut self) -> Packet {
        match timeout(NEVER, self.rx.recv()).await.unwrap().unwrap() {
            Message::Packet(packet) => packet,
            other => panic!("{other:?}"),
        }
    }

    async fn text(&mut self) -> (String, Option<AckToken>) {
        let packet = self.packet().await;
        (String::from_utf8(packet.payload).unwrap(), packet.ack)
    }

    /// Ends as the daemon does: no more readings, then no more acknowledgements.
    async fn end(mut self) {
        self.stop.send_replace(true);
        timeout(NEVER, async { while self.rx.recv().await.is_some() {} }).await.unwrap();
        drop(self.acks);
        timeout(NEVER, self.task).await.unwrap().unwrap().unwrap();
        assert!(self.ready.missing().contains(&"subscribed"));
        assert_eq!(self.metrics.mqtt_connected.get(), 0);
    }
}

#[tokio::test]
async fn what_is_not_acknowledged_is_delivered_again() {
    for protocol in PROTOCOLS {
        let broker = Broker::start("");
        let mut inlet = Inlet::up(config(&broker, protocol)).await;
        for payload in ["1", "2", "3"] {
            broker.publish("s/a/y", payload, &["-q", "1"]);
        }
        let mut tokens = Vec::new();
        for payload in ["1", "2", "3"] {
            let (text, ack) = inlet.text().await;
            assert_eq!(text, payload);
            tokens.push(ack.unwrap());
        }
        inlet.acks.send(tokens[2]).unwrap();
        // The first is committed only while the inlet stops, and is acknowledged all the same.
        inlet.stop.send_replace(true);
        assert!(timeout(NEVER, inlet.rx.recv()).await.unwrap().is_none());
        inlet.acks.send(tokens[0]).unwrap();
        broker.publish("s/a/y", "4", &["-q", "1"]);
        inlet.end().await;
        broker.publish("s/a/y", "5", &["-q", "1"]);

        let mut inlet = Inlet::up(config(&broker, protocol)).await;
        for payload in ["2", "4", "5"] {
            let (text, ack) = inlet.text().await;
            assert_eq!(text, payload, "{protocol:?}");
            inlet.acks.send(ack.unwrap()).unwrap();
        }
        inlet.end().await;
        let mut inlet = Inlet::up(config(&broker, protocol)).await;
        broker.publish("s/a/y", "6", &["-q", "1"]);
        assert_eq!(inlet.text().await.0, "6", "{protocol:?}: all before was acknowledged");
        inlet.end().await;
    }
}

#[tokio::test]
async fn quality_of_service_0_asks_for_no_acknowledgement() {
    for protocol in PROTOCOLS {
        let broker = Broker::start("");
        let mut inlet = Inlet::up(Mqtt { qos: 0, ..config(&broker, protocol) }).await;
        broker.publish("s/a/y", "1", &["-q", "1"]);
        let packet = inlet.packet().await;
        assert_eq!((packet.topic.as_str(), packet.ack, packet.retained), ("s/a/y", None, false));
        assert!(packet.arrived_at > 1_700_000_000_000_000);
        inlet.end().await;
    }
}

#[tokio::test]
async fn retained_copies_are_told_from_news() {
    for protocol in PROTOCOLS {
        let broker = Broker::start("");
        broker.publish("s/a", "old", &["-r", "-q", "1"]);
        let mut inlet = Inlet::up(config(&broker, protocol)).await;
        let packet = inlet.packet().await;
        assert_eq!((&packet.payload[..], packet.retained), (&b"old"[..], true));
        broker.publish("s/a", "new", &["-r", "-q", "1"]);
        let packet = inlet.packet().await;
        assert_eq!((&packet.payload[..], packet.retained), (&b"new"[..], false));
        inlet.end().await;
    }
}

#[tokio::test]
async fn acknowledgements_of_a_connection_that_is_gone_are_dropped() {
    for protocol in PROTOCOLS {
        let mut broker = Broker::start("persistence true\npersistence_location DIR/");
        let mut inlet = Inlet::up(config(&broker, protocol)).await;
        broker.publish("s/a/y", "1", &["-q", "1"]);
        let old = inlet.text().await.1.unwrap();
        broker.down();
        inlet.until(false).await;
        // Comes while there is no connection, and must not be sent on the next.
        inlet.acks.send(old).unwrap();
        broker.up();
        inlet.until(true).await;
        let (text, new) = inlet.text().await;
        let new = new.unwrap();
        assert_eq!((text.as_str(), new.generation), ("1", old.generation + 1));
        // Even if the broker gives it the same id again.
        inlet.acks.send(AckToken { generation: old.generation, packet_id: new.packet_id }).unwrap();
        inlet.end().await;

        let mut inlet = Inlet::up(config(&broker, protocol)).await;
        let (text, ack) = inlet.text().await;
        assert_eq!(text, "1", "{protocol:?}: it was never acknowledged");
        inlet.acks.send(ack.unwrap()).unwrap();
        inlet.end().await;
    }
}

#[tokio::test]
async fn a_broker_that_forgot_the_session_is_subscribed_to_again() {
    for protocol in PROTOCOLS {
        let mut broker = Broker::start("");
        let mut inlet = Inlet::up(config(&broker, protocol)).await;
        for round in 0..2 {
            broker.down();
            inlet.until(false).await;
            broker.up();
            inlet.until(true).await;
            broker.publish("s/a/y", &round.to_string(), &["-q", "1"]);
            let (text, ack) = inlet.text().await;
            assert_eq!(text, round.to_string());
            inlet.acks.send(ack.unwrap()).unwrap();
        }
        inlet.end().await;
    }
}

#[tokio::test]
async fn an_oversize_packet_does_not_stand_in_the_way() {
    for protocol in PROTOCOLS {
        let broker = Broker::start("");
        let small = Mqtt { max_packet_bytes: 2048, ..config(&broker, protocol) };
        let mut inlet = Inlet::up(small.clone()).await;
        // More than mosquitto keeps in flight, so that each must be acknowledged.
        for _ in 0..30 {
            broker.publish("s/big", &"9".repeat(20_000), &["-q", "1"]);
        }
        broker.publish("s/end", "1", &["-q", "1"]);
        loop {
            let packet = inlet.packet().await;
            inlet.acks.send(packet.ack.unwrap()).unwrap();
            if packet.topic == "s/end" {
                break;
            }
            assert!(packet.payload.is_empty(), "{protocol:?}");
        }
        assert!(inlet.subscribed());
        inlet.end().await;
    }
}

#[tokio::test]
async fn a_full_queue_holds_the_broker_back_and_stopping_is_heard_all_the_same() {
    for protocol in PROTOCOLS {
        let broker = Broker::start("max_queued_messages 0");
        let mut inlet = Inlet::start(Mqtt { qos: 0, ..config(&broker, protocol) }, 1);
        inlet.until(true).await;
        for i in 0..20 {
            broker.publish("s/a", &i.to_string(), &[]);
        }
        for i in 0..20 {
            assert_eq!(inlet.text().await.0, i.to_string());
        }
        for i in 0..5 {
            broker.publish("s/a", &i.to_string(), &[]);
        }
        inlet.end().await;
    }
}

#[tokio::test]
async fn stopping_needs_no_broker() {
    for protocol in PROTOCOLS {
        let mut broker = Broker::start("");
        let inlet = Inlet::up(config(&broker, protocol)).await;
        broker.down();
        inlet.until(false).await;
        inlet.end().await;
        let inlet = Inlet::start(config(&broker, protocol), 1);
        inlet.end().await;
    }
}

#[tokio::test]
async fn an_engine_that_is_gone_ends_the_inlet() {
    let broker = Broker::start("");
    let inlet = Inlet::up(config(&broker, PROTOCOLS[0])).await;
    drop(inlet.rx);
    broker.publish("s/a", "1", &[]);
    assert!(timeout(NEVER, inlet.task).await.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn a_password_opens_the_broker() {
    for protocol in PROTOCOLS {
        let dir = tempfile::tempdir().unwrap();
        let passwords = dir.path().join("passwords");
        let made = Command::new("mosquitto_passwd")
            .args(["-c", "-b"])
            .arg(&passwords)
            .args(["me", "secret"])
            .status();
        assert!(made.unwrap().success());
        let broker = Broker::start(&format!("allow_anonymous false\npassword_file {}", passwords.display()));
        let password_file = dir.path().join("password");
        let with = |password: &str| {
            fs::write(&password_file, password).unwrap();
            Mqtt {
                username: Some("me".into()),
                password_file: Some(password_file.clone()),
                ..config(&broker, protocol)
            }
        };
        let wrong = Inlet::start(with("guess"), 1);
        let right = Inlet::up(with("secret\n")).await;
        assert!(!wrong.subscribed());
        assert!(!wrong.task.is_finished(), "it goes on trying");
        wrong.end().await;
        right.end().await;
    }
}

#[tokio::test]
async fn tls_with_a_client_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let script = "
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca
        for name in server client; do
            openssl req -newkey rsa:2048 -nodes -keyout $name.key -out $name.csr -subj /CN=$name
            printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\\n' > ext
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out $name.pem -days 2 -extfile ext
        done";
    let made = Command::new("sh").args(["-ec", script]).current_dir(dir.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let file = |name: &str| dir.path().join(name);
    let broker = Broker::start(&format!(
        "cafile {0}/ca.pem\ncertfile {0}/server.pem\nkeyfile {0}/server.key\nrequire_certificate true",
        dir.path().display()
    ));
    for protocol in PROTOCOLS {
        let tls = Mqtt {
            url: format!("mqtts://localhost:{}", broker.port),
            ca_file: Some(file("ca.pem")),
            cert_file: Some(file("client.pem")),
            key_file: Some(file("client.key")),
            protocol,
            ..Mqtt::default()
        };
        let inlet = Inlet::up(tls.clone()).await;
        inlet.end().await;

        let mut anonymous = Mqtt { cert_file: None, key_file: None, ..tls.clone() };
        anonymous.client_id = "anonymous".into();
        let inlet = Inlet::start(anonymous, 1);
        let other = Inlet::up(tls.clone()).await;
        assert!(!inlet.subscribed());
        inlet.end().await;
        other.end().await;

        let mixed = Mqtt { key_file: Some(file("server.key")), ..tls };
        assert!(crate::tls::client(mixed.tls_files()).is_err(), "a key that is another certificate's");
        let empty = Mqtt { ca_file: Some(file("ext")), ..mixed };
        assert!(
            crate::tls::client(empty.tls_files()).unwrap_err().to_string().contains("holds no certificate")
        );
    }
}
