//! Requests as they come, and as they are understood.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::mqtt::ReplyTo;

/// Readings given unless asked for more or fewer, and the most given.
const HISTORY: usize = 200;
const MAX_HISTORY: usize = 10_000;
/// Series listed unless asked for fewer, and the most listed.
const PAGE: usize = 1000;

/// Kinds of requests, for the counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Forecast,
    History,
    Series,
    Feedback,
    Unknown,
}

impl Kind {
    fn of(text: &str) -> Kind {
        match text {
            "forecast" => Kind::Forecast,
            "history" => Kind::History,
            "series" => Kind::Series,
            "feedback" => Kind::Feedback,
            _ => Kind::Unknown,
        }
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Kind::Forecast => "forecast",
            Kind::History => "history",
            Kind::Series => "series",
            Kind::Feedback => "feedback",
            Kind::Unknown => "unknown",
        }
    }
}

/// A request as it came.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) kind: Kind,
    pub(super) body: Vec<u8>,
    /// What MQTT 5 says of the answer.
    pub(super) reply: Option<Box<ReplyTo>>,
}

/// Why a request is not fulfilled: a code, and words for people.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Refusal {
    BadRequest(String),
    UnknownRequest,
    UnknownSeries(String),
    NoReadings,
    NothingRemembered,
    Busy,
    StoreAway,
    NotStored,
    StoreRefused,
    TooLarge(String),
    Stopping,
}

impl Refusal {
    /// As in answers and in the counter.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Refusal::BadRequest(_) => "bad_request",
            Refusal::UnknownRequest => "unknown_request",
            Refusal::UnknownSeries(_) => "unknown_series",
            Refusal::NoReadings => "no_readings",
            Refusal::NothingRemembered => "nothing_remembered",
            Refusal::Busy => "busy",
            Refusal::StoreAway => "store_away",
            Refusal::NotStored => "not_stored",
            Refusal::StoreRefused => "store_refused",
            Refusal::TooLarge(_) => "too_large",
            Refusal::Stopping => "stopping",
        }
    }

    fn words(&self) -> String {
        match self {
            Refusal::BadRequest(what) => format!("the request cannot be read: {what}"),
            Refusal::UnknownRequest => {
                "there are the requests forecast, history, series and feedback".to_owned()
            }
            Refusal::UnknownSeries(key) => format!("there is no series \"{key}\""),
            Refusal::NoReadings => "the series has no reading yet".to_owned(),
            Refusal::NothingRemembered => {
                "of that time nothing is remembered: of each series the latest four \
                 anomalies of values are, and the latest four readings that came near to one"
                    .to_owned()
            }
            Refusal::Busy => "too many requests are waiting; ask again".to_owned(),
            Refusal::StoreAway => "the store does not answer; ask again".to_owned(),
            Refusal::NotStored => {
                "the store has not confirmed it in time; it is tried on, and lost if Vidente ends before"
                    .to_owned()
            }
            Refusal::StoreRefused => {
                "the store refuses it, for a reason that is in Vidente's log; it counts until Vidente ends"
                    .to_owned()
            }
            Refusal::TooLarge(what) => format!("too large: {what}"),
            Refusal::Stopping => "Vidente is stopping".to_owned(),
        }
    }

    pub(super) fn answer(&self) -> Map<String, Value> {
        let answer = json!({ "error": self.words(), "code": self.code() });
        match answer {
            Value::Object(answer) => answer,
            _ => Map::new(),
        }
    }
}

/// A request as it is understood.
#[derive(Debug, PartialEq)]
pub(super) enum Question {
    Forecast { series: String },
    History { series: String, limit: usize, from: i64, to: i64 },
    Series(List),
    Feedback { series: String, time: Option<i64>, anomaly: bool },
}

/// Which series to list.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    pub(super) stream: Option<String>,
    pub(super) search: Option<String>,
    #[serde(default)]
    pub(super) offset: usize,
    #[serde(default = "page")]
    pub(super) limit: usize,
}

fn page() -> usize {
    PAGE
}

/// Microseconds since the Unix epoch.
fn micros(member: &str, text: Option<String>) -> Result<Option<i64>, Refusal> {
    let read = |text: String| match text.parse::<jiff::Timestamp>() {
        Ok(time) => Ok(time.as_microsecond()),
        Err(_) => Err(Refusal::BadRequest(format!(
            "{member}: \"{text}\" is no time; write for instance \"2026-11-23T10:00:00Z\""
        ))),
    };
    text.map(read).transpose()
}

/// Where an answer goes, besides what MQTT 5 says: members of the request itself.
#[derive(Debug, Default)]
pub(super) struct Return {
    pub(super) topic: Option<String>,
    pub(super) correlation: Option<Value>,
}

impl Request {
    pub(super) fn new(kind: &str, body: Vec<u8>, reply: Option<Box<ReplyTo>>) -> Request {
        Request { kind: Kind::of(kind), body, reply }
    }

    /// Where the request itself says that the answer goes, and what is asked.
    pub(super) fn read(&self) -> (Return, Result<Question, Refusal>) {
        let read = if self.body.trim_ascii().is_empty() {
            Ok(Value::Object(Map::new()))
        } else {
            serde_json::from_slice(&self.body)
        };
        let mut members = match read {
            Ok(Value::Object(members)) => members,
            Ok(_) => {
                return (Return::default(), Err(Refusal::BadRequest("it is no JSON object".to_owned())));
            }
            Err(error) => return (Return::default(), Err(Refusal::BadRequest(error.to_string()))),
        };
        let correlation = members.remove("correlation");
        let topic = match members.remove("response_topic") {
            None => None,
            Some(Value::String(topic)) => Some(topic),
            Some(_) => {
                let refusal = Refusal::BadRequest("response_topic is no text".to_owned());
                return (Return { topic: None, correlation }, Err(refusal));
            }
        };
        (Return { topic, correlation }, self.question(Value::Object(members)))
    }

    fn question(&self, members: Value) -> Result<Question, Refusal> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Forecast {
            series: String,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct History {
            series: String,
            limit: Option<usize>,
            from: Option<String>,
            to: Option<String>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Feedback {
            series: String,
            time: Option<String>,
            anomaly: bool,
        }
        let bad = |error: serde_json::Error| Refusal::BadRequest(error.to_string());
        Ok(match self.kind {
            Kind::Forecast => {
                let Forecast { series } = serde_json::from_value(members).map_err(bad)?;
                Question::Forecast { series }
            }
            Kind::History => {
                let History { series, limit, from, to } = serde_json::from_value(members).map_err(bad)?;
                let limit = limit.unwrap_or(HISTORY).min(MAX_HISTORY);
                let from = micros("from", from)?.unwrap_or(i64::MIN);
                let to = micros("to", to)?.unwrap_or(i64::MAX);
                Question::History { series, limit, from, to }
            }
            Kind::Series => {
                let mut list: List = serde_json::from_value(members).map_err(bad)?;
                list.limit = list.limit.min(PAGE);
                Question::Series(list)
            }
            Kind::Feedback => {
                let Feedback { series, time, anomaly } = serde_json::from_value(members).map_err(bad)?;
                Question::Feedback { series, time: micros("time", time)?, anomaly }
            }
            Kind::Unknown => return Err(Refusal::UnknownRequest),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(kind: &str, body: &str) -> (Return, Result<Question, Refusal>) {
        Request::new(kind, body.as_bytes().to_vec(), None).read()
    }

    proptest! {
        /// Whatever comes is understood or refused, and nobody gets more than the most.
        #[test]
        fn any_body_is_read_within_bounds(
            kind in "forecast|history|series|feedback|[a-z]{0,3}",
            body in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                any::<(u64, u64, String)>().prop_map(|(limit, offset, search)| {
                    json!({ "search": search, "limit": limit, "offset": offset }).to_string().into_bytes()
                }),
                any::<(u64, String)>().prop_map(|(limit, series)| {
                    json!({ "series": series, "limit": limit }).to_string().into_bytes()
                }),
            ],
        ) {
            match Request::new(&kind, body, None).read().1 {
                Ok(Question::History { limit, .. }) => prop_assert!(limit <= MAX_HISTORY),
                Ok(Question::Series(list)) => prop_assert!(list.limit <= PAGE),
                Ok(_) => {}
                Err(refusal) => prop_assert!(!refusal.answer().is_empty()),
            }
        }
    }

    #[test]
    fn requests_are_read_with_what_is_left_out() {
        let (to, question) =
            read("forecast", r#"{"series":"a/b/c","response_topic":"x/y","correlation":[1,2]}"#);
        assert_eq!((to.topic.as_deref(), to.correlation), (Some("x/y"), Some(json!([1, 2]))));
        assert_eq!(question, Ok(Question::Forecast { series: "a/b/c".to_owned() }));
        let list = List { stream: None, search: None, offset: 0, limit: 1000 };
        assert_eq!(read("series", "").1, Ok(Question::Series(list)));
        let series = "a".to_owned();
        assert_eq!(
            read("history", r#"{"series":"a","limit":20000,"from":"2026-01-01T00:00:00Z"}"#).1,
            Ok(Question::History { series, limit: 10_000, from: 1_767_225_600_000_000, to: i64::MAX })
        );
        let series = "a".to_owned();
        assert_eq!(
            read("feedback", r#"{"series":"a","time":"2026-01-01T01:00:00+01:00","anomaly":false}"#).1,
            Ok(Question::Feedback { series, time: Some(1_767_225_600_000_000), anomaly: false })
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_what_is_wrong() {
        for (kind, body, words) in [
            ("forecast", "{", "EOF"),
            ("forecast", "[]", "no JSON object"),
            ("forecast", "\u{0}", "expected"),
            ("forecast", "{}", "missing field `series`"),
            ("forecast", r#"{"series":"a","serie":"b"}"#, "unknown field `serie`"),
            ("history", r#"{"series":"a","from":"yesterday"}"#, "yesterday"),
            ("history", r#"{"series":"a","limit":-1}"#, "-1"),
            ("feedback", r#"{"series":"a"}"#, "missing field `anomaly`"),
            ("feedback", r#"{"series":"a","anomaly":"no"}"#, "boolean"),
            ("series", r#"{"response_topic":5}"#, "response_topic is no text"),
        ] {
            let refusal = read(kind, body).1.unwrap_err();
            assert_eq!(refusal.code(), "bad_request");
            assert!(refusal.words().contains(words), "{kind} {body}: {refusal:?}");
        }
        assert_eq!(read("train", "{}").1, Err(Refusal::UnknownRequest));
        let answer = Value::Object(Refusal::UnknownRequest.answer());
        let words = "there are the requests forecast, history, series and feedback";
        assert_eq!(answer, json!({"error": words, "code": "unknown_request"}));
    }
}
