//! The whole work of a reading on one core: route, parse, state, forecast, payload, rows.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forecaster::features::INPUTS;
use forecaster::weights::{Cell, Sizes, Weights};
use forecaster::{Engine, Installed, Model, StreamSpec};
use vidente::catalog::Catalog;
use vidente::config::Config;
use vidente::ingest::{Effects, Ingest};
use vidente::message::Packet;
use vidente::metrics::Metrics;

const NOW: i64 = 1_800_000_000_000_000;

fn ingest(horizon: usize, trained: bool) -> Option<Ingest> {
    let text = format!(
        "[[stream]]\nname = \"climate\"\ntopic = \"sensors/{{device}}\"\nfields = [\"value\"]\ntime = \"ts\"\nhorizon = {horizon}\n"
    );
    let config = Config::parse(&text).ok()?;
    let mut engine = Engine::new([StreamSpec { horizon, ..StreamSpec::default() }]);
    if trained {
        let weights = Weights::random(Sizes { cell: Cell::Lstm, inputs: INPUTS, hidden: 32, layers: 1 }, 1);
        let model = Arc::new(Model::new(vec![weights.clone(), weights]));
        engine.set_model(0, Installed { id: 1, name: "climate-1".into(), version: 1, model });
    }
    Some(Ingest::new(&config, engine, Catalog::default(), Metrics::new(["climate"]).ok()?))
}

fn reading(c: &mut Criterion) {
    let mut group = c.benchmark_group("reading");
    group.throughput(Throughput::Elements(1));
    for (name, series, horizon, trained) in [
        ("naive, 1000 series", 1000, 1, false),
        ("lstm 32, 1 series", 1, 1, true),
        ("lstm 32, 1000 series", 1000, 1, true),
        ("lstm 32, 100000 series", 100_000, 1, true),
        ("lstm 32, 1000 series, horizon 12", 1000, 12, true),
    ] {
        group.bench_function(name, |b| {
            let Some(mut ingest) = ingest(horizon, trained) else { return };
            let mut packets: Vec<Packet> = (0..series)
                .map(|i| Packet {
                    topic: format!("sensors/device-{i}"),
                    payload: Vec::new(),
                    retained: false,
                    ack: None,
                    arrived: Instant::now(),
                    arrived_at: NOW,
                    share: None,
                })
                .collect();
            let (mut effects, mut turn) = (Effects::default(), 0_usize);
            b.iter_custom(|rounds| {
                let mut spent = std::time::Duration::ZERO;
                for _ in 0..rounds {
                    let (at, minute) = (turn % series, turn / series);
                    turn += 1;
                    let Some(packet) = packets.get_mut(at) else { continue };
                    let value = 20.0 + ((minute * 7919 + at) % 101) as f64 / 10.0;
                    packet.payload =
                        format!(r#"{{"value":{value},"ts":{}}}"#, 1_600_000_000 + 60 * minute).into_bytes();
                    let start = Instant::now();
                    ingest.packet(black_box(packet), true, &mut effects, &mut |_| true);
                    spent += start.elapsed();
                    if turn % 256 == 0 {
                        effects = Effects::default();
                    }
                }
                spent
            });
        });
    }
    group.finish();
}

criterion_group!(benches, reading);
criterion_main!(benches);
