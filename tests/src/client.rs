//! An MQTT client that collects what it hears.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use serde_json::Value;

use crate::broker::Mosquitto;
use crate::process::{WAIT, wait_until};

/// A message as it was heard.
#[derive(Debug, Clone)]
pub struct Collected {
    /// Topic.
    pub topic: String,
    /// Body.
    pub payload: Vec<u8>,
    /// Whether the broker kept it from before the subscription.
    pub retained: bool,
}

impl Collected {
    /// The body as JSON.
    ///
    /// # Errors
    /// If it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.payload).with_context(|| format!("payload on {}", self.topic))
    }
}

/// A subscription whose messages are kept.
pub struct Subscriber {
    client: Client,
    heard: Arc<Mutex<Vec<Collected>>>,
}

impl Subscriber {
    /// Subscribes, and returns once the broker has granted it.
    ///
    /// # Errors
    /// If the broker does not.
    pub fn new(broker: &Mosquitto, filter: &str) -> Result<Subscriber> {
        Subscriber::with_login(broker, filter, None)
    }

    /// The same with user name and password.
    ///
    /// # Errors
    /// If the broker does not grant it.
    pub fn with_login(broker: &Mosquitto, filter: &str, login: Option<(&str, &str)>) -> Result<Subscriber> {
        let mut options =
            MqttOptions::new(format!("subscriber-{}", crate::free_port()?), "127.0.0.1", broker.port());
        if let Some((user, password)) = login {
            options.set_credentials(user, password);
        }
        options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, mut connection) = Client::new(options, 64);
        client.subscribe(filter, QoS::AtLeastOnce)?;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (granted, grant) = mpsc::channel();
        let sink = Arc::clone(&heard);
        std::thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::SubAck(_))) => {
                        let _ = granted.send(());
                    }
                    Ok(Event::Incoming(Packet::Publish(p))) => {
                        sink.lock().unwrap_or_else(PoisonError::into_inner).push(Collected {
                            topic: p.topic,
                            payload: p.payload.to_vec(),
                            retained: p.retain,
                        });
                    }
                    Ok(_) => {}
                    // Disconnected by the drop below, or the broker went with the test.
                    Err(_) => break,
                }
            }
        });
        if grant.recv_timeout(Duration::from_secs(10)).is_err() {
            bail!("the broker did not grant the subscription to {filter}");
        }
        Ok(Subscriber { client, heard })
    }

    /// Everything heard so far.
    #[must_use]
    pub fn messages(&self) -> Vec<Collected> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many messages were heard so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits until at least so many were heard, and returns them.
    ///
    /// # Errors
    /// If they do not come.
    pub fn wait_for(&self, count: usize) -> Result<Vec<Collected>> {
        wait_until(&format!("{count} messages"), WAIT, || Ok(self.count() >= count))
            .with_context(|| format!("{} came", self.count()))?;
        Ok(self.messages())
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.client.disconnect();
    }
}
