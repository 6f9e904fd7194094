//! The parts of Sparkplug B's protobuf messages that are read or written, by their numbers in
//! `sparkplug_b.proto`; others are passed over.

use prost::{Message, Oneof};

/// `Payload`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Payload {
    /// Milliseconds since the Unix epoch.
    #[prost(uint64, optional, tag = "1")]
    pub(super) timestamp: Option<u64>,
    /// Each a `Metric`, read one at a time: as values they would take many times the room.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(super) metrics: Vec<Vec<u8>>,
    #[prost(uint64, optional, tag = "3")]
    pub(super) seq: Option<u64>,
    #[prost(string, optional, tag = "4")]
    pub(super) uuid: Option<String>,
    #[prost(bytes = "vec", optional, tag = "5")]
    pub(super) body: Option<Vec<u8>>,
}

/// `Payload.Metric`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Metric {
    #[prost(string, optional, tag = "1")]
    pub(super) name: Option<String>,
    #[prost(uint64, optional, tag = "2")]
    pub(super) alias: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    pub(super) timestamp: Option<u64>,
    #[prost(uint32, optional, tag = "4")]
    pub(super) datatype: Option<u32>,
    #[prost(bool, optional, tag = "7")]
    pub(super) is_null: Option<bool>,
    #[prost(message, optional, tag = "9")]
    pub(super) properties: Option<Properties>,
    #[prost(oneof = "Value", tags = "10, 11, 12, 13, 14, 15")]
    pub(super) value: Option<Value>,
}

/// `Payload.Metric.value`, as far as it is a number or a text.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Value {
    #[prost(uint32, tag = "10")]
    Int(u32),
    #[prost(uint64, tag = "11")]
    Long(u64),
    #[prost(float, tag = "12")]
    Float(f32),
    #[prost(double, tag = "13")]
    Double(f64),
    #[prost(bool, tag = "14")]
    Boolean(bool),
    #[prost(string, tag = "15")]
    Text(String),
}

/// `Payload.PropertySet`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Properties {
    #[prost(string, repeated, tag = "1")]
    pub(super) keys: Vec<String>,
    #[prost(message, repeated, tag = "2")]
    pub(super) values: Vec<Property>,
}

/// `Payload.PropertyValue`, as far as it is a text.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Property {
    #[prost(uint32, optional, tag = "1")]
    pub(super) datatype: Option<u32>,
    #[prost(string, optional, tag = "8")]
    pub(super) text: Option<String>,
}

/// `DataType`, as far as it matters.
pub(super) mod datatype {
    pub(in super::super) const INT8: u32 = 1;
    pub(in super::super) const INT16: u32 = 2;
    pub(in super::super) const INT32: u32 = 3;
    pub(in super::super) const INT64: u32 = 4;
    pub(in super::super) const UINT8: u32 = 5;
    pub(in super::super) const UINT64: u32 = 8;
    pub(in super::super) const BOOLEAN: u32 = 11;
}
