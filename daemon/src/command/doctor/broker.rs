//! The broker: whether it is there, and what it grants.

use super::Findings;
use crate::config::{Config, Protocol};
use crate::control;
use crate::mqtt;
use crate::topic::Outputs;

const PART: &str = "broker";

/// Where the trial is published: beside what the daemon publishes.
const TRIAL: &str = "vidente/doctor";

pub(super) async fn look(config: &Config, findings: &mut Findings) {
    let url = &config.mqtt.url;
    let (streams, control) = (config.filters(), control::filters(config));
    let all = [&streams[..], &control[..]].concat();
    let mut heard: Vec<Option<String>> = vec![None; config.stream.len()];
    let outputs = Outputs::of(config);
    let mut hear = |topic: &str| {
        if outputs.is_own(topic) {
            return false;
        }
        for (stream, heard) in config.stream.iter().zip(&mut heard) {
            if heard.is_none() && stream.topic.matches(topic).is_some() {
                *heard = Some(topic.to_owned());
            }
        }
        heard.iter().all(Option::is_some)
    };
    let granted = match mqtt::probe(&config.mqtt, &all, TRIAL, &mut hear).await {
        Ok(granted) => granted,
        Err(error) => {
            return findings.fail(
                PART,
                format!("{url}: {error:#}"),
                "check mqtt.url, that the broker runs, and that nothing between drops connections",
            );
        }
    };
    let name = granted.name.as_deref().unwrap_or("a broker that does not say which");
    findings.ok(PART, format!("{url}: {name}, lets the user in"));
    for (filter, reason) in &granted.refused {
        let found = format!("refuses the subscription to {filter} ({reason})");
        if streams.contains(filter) {
            let fix = "let the user of mqtt.username read it, for instance in the broker's ACL file";
            findings.fail(PART, found, fix);
        } else {
            let fix = "let the user of mqtt.username read it, or write mqtt.control = false and \
                       homeassistant.discovery = false";
            findings.warn(PART, found, fix);
        }
    }
    if granted.refused.is_empty() {
        findings.ok(PART, format!("grants {}", all.join(", ")));
    }
    if granted.listened {
        listened(config, &heard, findings);
    }
    match (&granted.unpublished, config.mqtt.protocol) {
        (Some(reason), _) => findings.fail(
            PART,
            format!("drops what is published on {TRIAL} ({reason})"),
            "let the user of mqtt.username write vidente/# and forecast.topic",
        ),
        (None, Protocol::V5) => findings.ok(PART, "takes what is published"),
        (None, Protocol::V311) => findings.warn(
            PART,
            "over MQTT 3.1.1 it does not tell whether it takes what is published",
            "write mqtt.protocol = \"5\" if it speaks that",
        ),
    }
    if granted.max_qos == Some(0) && config.mqtt.qos > 0 {
        findings.fail(
            PART,
            "grants quality of service 0 only: nothing is acknowledged, and what comes while the daemon is away is lost",
            "raise its maximum quality of service, or accept that with mqtt.qos = 0",
        );
    }
    if !granted.retains {
        findings.warn(
            PART,
            "keeps no retained messages: who subscribes later sees neither status nor forecasts, and Home Assistant \
             no series after its start",
            "allow retained messages, or write forecast.retain = false",
        );
    }
    if let Some(limit) = granted.max_packet.filter(|limit| *limit < config.mqtt.max_packet_bytes) {
        findings.warn(
            PART,
            format!("takes packets of {limit} bytes at most, mqtt.max_packet_bytes is more"),
            "raise its maximum packet size, or lower mqtt.max_packet_bytes to it",
        );
    }
    if name.starts_with("mosquitto") {
        findings.warn(
            PART,
            "mosquitto does not tell its queue limits; by default a burst beyond 1,000 messages is lost while \
             the daemon is away",
            "raise max_queued_messages as deploy/mosquitto/vidente.conf does, if that is not done",
        );
    }
}

/// What came of each stream.
fn listened(config: &Config, heard: &[Option<String>], findings: &mut Findings) {
    for (stream, heard) in config.stream.iter().zip(heard) {
        let (name, filter) = (&stream.name, stream.topic.filter());
        match heard {
            Some(topic) => findings.ok(PART, format!("stream {name} hears {topic}")),
            None => findings.warn(
                PART,
                format!(
                    "stream {name} heard nothing on {filter} within {} s, and nothing is retained there",
                    mqtt::LISTENS.as_secs()
                ),
                "unless its sensors publish more seldom, see by mosquitto_sub -v -t '#' what is published, and \
                 correct [[stream]] topic",
            ),
        }
    }
}
