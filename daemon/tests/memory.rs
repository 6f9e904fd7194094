//! What an idle series costs: everything that the engine thread keeps of it, the model shared.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::time::Instant;

use forecaster::features::INPUTS;
use forecaster::weights::{Cell, Sizes, Weights};
use forecaster::{Engine, Installed, Model, StreamSpec};
use vidente::catalog::Catalog;
use vidente::config::Config;
use vidente::ingest::{Effects, Ingest};
use vidente::message::Packet;
use vidente::metrics::Metrics;

struct Counting;

static IN_USE: AtomicIsize = AtomicIsize::new(0);

// SAFETY: everything is passed on to the system's allocator.
#[allow(unsafe_code, reason = "counting memory takes an allocator")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        IN_USE.fetch_add(layout.size().cast_signed(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size().cast_signed(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SERIES: usize = 512;
/// More than a day of them, one a minute.
const READINGS: i64 = 2000;

#[test]
fn a_series_takes_at_most_eight_kib() {
    let config = Config::parse(
        "[[stream]]\nname = \"climate\"\ntopic = \"sensors/{site}/{device}/climate\"\nfields = [\"temperature\"]\ntime = \"ts\"\n",
    )
    .unwrap();
    let mut engine = Engine::new([StreamSpec::default()]);
    let weights = Weights::random(Sizes { cell: Cell::Lstm, inputs: INPUTS, hidden: 32, layers: 1 }, 1);
    engine.set_model(
        0,
        Installed {
            id: 1,
            name: "climate-1".into(),
            version: 1,
            model: Arc::new(Model::new(vec![weights.clone(), weights])),
        },
    );
    let metrics = Metrics::new(["climate"]).unwrap();
    let mut ingest = Ingest::new(&config, engine, Catalog::default(), metrics);
    let mut send = |series: usize, minute: i64| {
        let packet = Packet {
            topic: format!("sensors/site-{}/device-{series}/climate", series % 50),
            payload: format!(
                r#"{{"temperature":{},"ts":{}}}"#,
                20 + (minute * minute * 7919) % 1009,
                1_700_000_000 + 60 * minute
            )
            .into_bytes(),
            retained: false,
            ack: None,
            arrived: Instant::now(),
            arrived_at: 1_800_000_000_000_000,
            share: None,
        };
        let mut effects = Effects::default();
        ingest.packet(&packet, true, &mut effects, &mut |_| true);
        assert_eq!(effects.batch.readings.series.len(), 1);
        assert!(!effects.outgoing.is_empty());
    };
    let before = IN_USE.load(Ordering::Relaxed);
    for minute in 0..READINGS {
        for series in 0..SERIES {
            send(series, minute);
        }
    }
    let each = (IN_USE.load(Ordering::Relaxed) - before) as usize / SERIES;
    println!("{each} bytes a series");
    assert!(each <= 8192, "{each} bytes a series");
    assert_eq!(ingest.catalog.len(), SERIES);
}
