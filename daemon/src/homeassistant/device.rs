//! What is said of a device, as Home Assistant reads it.

use forecaster::{LEVEL_NAMES, Problem, Timestamp};
use serde_json::{Value, json};

use super::names::Names;
use crate::control::Known;
use crate::encode;
use crate::topic::{Outputs, STATUS_TOPIC};

/// Steps among the attributes: Home Assistant keeps no attributes beyond 16 KiB in its history.
const STEPS: usize = 48;
/// Name of the label that is taken for the unit.
const UNIT: &str = "unit";

/// Who announces.
fn origin() -> Value {
    json!({ "name": "Vidente", "sw_version": env!("CARGO_PKG_VERSION") })
}

/// The daemon: its status.
pub(super) fn daemon(names: &Names) -> Vec<u8> {
    let id = names.daemon();
    json!({
        "device": {
            "identifiers": [id],
            "name": "Vidente",
            "manufacturer": "Vidente",
            "sw_version": env!("CARGO_PKG_VERSION"),
        },
        "origin": origin(),
        "components": {
            "status": {
                "platform": "binary_sensor",
                "unique_id": format!("{id}_status"),
                "name": "Status",
                "device_class": "connectivity",
                "entity_category": "diagnostic",
                "state_topic": STATUS_TOPIC,
                "payload_on": "online",
                "payload_off": "offline",
            },
        },
    })
    .to_string()
    .into_bytes()
}

/// A series: what comes next, and whether something is the matter.
pub(super) fn series(names: &Names, id: &str, known: &Known, outputs: &Outputs) -> Vec<u8> {
    let (forecast_topic, problem_topic) = (outputs.forecast(&known.key), outputs.problem(&known.key));
    let mut forecast = json!({
        "platform": "sensor",
        "unique_id": format!("{id}_forecast"),
        "name": "Forecast",
        "icon": "mdi:chart-bell-curve-cumulative",
        "state_class": "measurement",
        "state_topic": forecast_topic,
        "value_template": "{{ value_json.steps[0].q50 if value_json.steps else None }}",
        "json_attributes_topic": forecast_topic,
        "json_attributes_template": attributes(),
    });
    let unit = known.labels.iter().find(|(name, unit)| &**name == UNIT && !unit.is_empty());
    if let (Some((_, unit)), Some(forecast)) = (unit, forecast.as_object_mut()) {
        forecast.insert("unit_of_measurement".to_owned(), (**unit).into());
    }
    json!({
        "device": {
            "identifiers": [id],
            "name": &*known.key,
            "manufacturer": "Vidente",
            "model": format!("Series of {}", known.stream),
            "via_device": names.daemon(),
        },
        "origin": origin(),
        "availability_topic": STATUS_TOPIC,
        "payload_available": "online",
        "payload_not_available": "offline",
        "components": {
            "forecast": forecast,
            "anomaly": {
                "platform": "binary_sensor",
                "unique_id": format!("{id}_anomaly"),
                "name": "Anomaly",
                "device_class": "problem",
                "state_topic": problem_topic,
                "value_template": "{{ 'ON' if value_json.problem else 'OFF' }}",
                "json_attributes_topic": problem_topic,
            },
        },
    })
    .to_string()
    .into_bytes()
}

/// The template that makes attributes of a forecast message: the band of the next step, and the steps up to the
/// horizon.
fn attributes() -> String {
    let band: Vec<String> = LEVEL_NAMES.iter().map(|level| format!("'{level}': next.{level}")).collect();
    format!(
        "{{% set next = value_json.steps[0] if value_json.steps else {{}} %}}\
         {{{{ {{'series': value_json.series, 'origin': value_json.origin, 'model': value_json.model, \
         'reading': value_json.reading.value, 'score': value_json.reading.score, 'time': next.time, \
         'mean': next.mean, {}, 'steps': value_json.steps[:{STEPS}]}} | tojson if value_json.steps \
         else {{'series': value_json.series, 'origin': value_json.origin, 'steps': []}} | tojson }}}}",
        band.join(", ")
    )
}

/// What is the matter with a series, as it is kept.
pub(super) fn problem(problem: &Problem) -> Vec<u8> {
    let text = |since: Option<Timestamp>| since.map(encode::text);
    json!({
        "problem": problem.value.is_some() || problem.silence.is_some(),
        "value_since": text(problem.value),
        "silence_since": text(problem.silence),
    })
    .to_string()
    .into_bytes()
}
