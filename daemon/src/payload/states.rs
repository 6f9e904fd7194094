//! States as words.

use super::finite;
use crate::metrics::Rejection;

/// Name of the label that holds a unit.
pub(super) const UNIT: &str = "unit";
/// Bytes that a unit has at most; what is longer is none.
const UNIT_LENGTH: usize = 32;

/// A member's text in what Tasmota and zigbee2mqtt write: a switch, or no number. Only in capitals: small
/// letters name actions and settings.
pub(super) fn member(text: &str) -> Result<f64, Rejection> {
    match text {
        "ON" | "OPEN" | "LOCK" => Ok(1.0),
        "OFF" | "CLOSE" | "UNLOCK" => Ok(0.0),
        _ if is_silence(text) => Err(Rejection::MissingField),
        _ => Err(Rejection::NotANumber),
    }
}

/// A state of Home Assistant; none if it says that there is none at the moment. Words are numbers as Home
/// Assistant's own `state_as_number` has it.
pub(super) fn home_assistant(text: &str) -> Result<Option<f64>, Rejection> {
    let text = text.trim_ascii();
    // Attributes are published in quotes.
    let text = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    if is_silence(text) {
        return Ok(None);
    }
    match text {
        "on" | "true" | "home" | "open" | "locked" | "above_horizon" => Ok(Some(1.0)),
        "off" | "false" | "not_home" | "closed" | "unlocked" | "below_horizon" => Ok(Some(0.0)),
        _ => text.parse().map_err(|_| Rejection::NotANumber).and_then(finite).map(Some),
    }
}

fn is_silence(text: &str) -> bool {
    ["", "unavailable", "unknown", "none"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// A unit that fits a label.
pub(super) fn unit(text: &str) -> Option<&str> {
    let text = text.trim();
    (!text.is_empty() && text.len() <= UNIT_LENGTH && !text.chars().any(char::is_control)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_home_assistant() {
        for (text, value) in [
            ("21.3", 21.3),
            (" -4\n", -4.0),
            ("on", 1.0),
            ("off", 0.0),
            ("not_home", 0.0),
            ("locked", 1.0),
            ("\"open\"", 1.0),
        ] {
            assert_eq!(home_assistant(text), Ok(Some(value)), "{text}");
        }
        for text in ["unavailable", "unknown", "none", "None", "", " ", "\"unknown\""] {
            assert_eq!(home_assistant(text), Ok(None), "{text}");
        }
        for text in ["sunny", "2026-11-23T10:00:00+00:00", "21.3 °C", "\""] {
            assert_eq!(home_assistant(text), Err(Rejection::NotANumber), "{text}");
        }
        for text in ["nan", "inf", "1e999"] {
            assert_eq!(home_assistant(text), Err(Rejection::NotFinite), "{text}");
        }
    }

    #[test]
    fn units_are_short_texts() {
        assert_eq!(unit(" °C "), Some("°C"));
        for wrong in ["", " ", "a\nb", &"m".repeat(UNIT_LENGTH + 1)] {
            assert_eq!(unit(wrong), None, "{wrong}");
        }
    }
}
