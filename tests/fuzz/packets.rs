//! The whole hot path under packets of any topic and body.

use std::time::Instant;

use forecaster::{Engine, StreamSpec};
use vidente::catalog::Catalog;
use vidente::config::Config;
use vidente::ingest::{Effects, Ingest};
use vidente::message::Packet;
use vidente::metrics::Metrics;

/// 2027-01-15T08:00:00Z.
const NOW: i64 = 1_800_000_000_000_000;
const MAX_SERIES: usize = 8;
const CONFIG: &str = "[limits]\nmax_series = 8\n\
    [[stream]]\nname = 'a'\ntopic = 'a/{x}'\ntime = 't'\nhorizon = 3\n\
    [[stream]]\nname = 'n'\ntopic = 'n/{x...}'\npayload = 'number'\n\
    [[stream]]\nname = 'w'\ntopic = '{x...}'\nfields = ['v']\ntime = 't'\n";

/// Packets with a line each for topic and body: every reading that is received is stored or rejected, what
/// is stored is finite and ordered, and there are never more series than allowed.
pub fn packets(bytes: &[u8]) {
    let config = Config::parse(CONFIG).unwrap_or_else(|error| panic!("{error}"));
    let metrics = Metrics::new(["a", "n", "w"]).unwrap_or_else(|error| panic!("{error}"));
    let spec = |s: &vidente::config::Stream| StreamSpec { horizon: s.horizon, ..StreamSpec::default() };
    let engine = Engine::new(config.stream.iter().map(spec));
    let mut ingest = Ingest::new(&config, engine, Catalog::default(), metrics.clone());
    let mut effects = Effects::default();
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut at = NOW;
    while let (Some(topic), Some(payload)) = (lines.next(), lines.next()) {
        // The broker sees to it that topics are UTF-8.
        let Ok(topic) = std::str::from_utf8(topic) else { continue };
        at += 1_000_000;
        let packet = Packet {
            topic: topic.to_owned(),
            payload: payload.to_vec(),
            retained: payload.len() % 7 == 0,
            ack: None,
            arrived: Instant::now(),
            arrived_at: at,
            share: None,
        };
        ingest.packet(&packet, true, &mut effects, &mut |_| true);
    }
    let (mut received, mut rejected) = (0, 0);
    for stream in 0..3 {
        let metrics = metrics.stream(stream);
        received += metrics.received.get();
        rejected += vidente::metrics::Rejection::ALL.map(|r| metrics.rejected(r).get()).iter().sum::<u64>();
    }
    let rows = &effects.batch.readings;
    assert_eq!(received, rejected + rows.series.len() as u64);
    assert!(rows.value.iter().all(|value| value.is_finite()));
    assert!(ingest.catalog.len() <= MAX_SERIES);
    assert!(effects.batch.forecasts.mean.iter().all(|mean| mean.is_finite()));
    let mut last = [i64::MIN; MAX_SERIES];
    for ((&series, &time), &late) in rows.series.iter().zip(&rows.time).zip(&rows.late) {
        let last = &mut last[series as usize];
        assert_eq!(late, time < *last);
        assert_ne!(*last, time);
        *last = time.max(*last);
    }
    for message in &effects.outgoing {
        assert!(!message.topic.contains(['+', '#', '\0']), "{:?}", message.topic);
        assert!(serde_json::from_slice::<serde_json::Value>(&message.payload).is_ok());
    }
}
