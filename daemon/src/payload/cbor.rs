//! CBOR documents (RFC 8949), read as JSON's are.

use ciborium::Value;
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::Arrival;
use super::decoded::Decoded;
use super::shape::Shape;
use crate::metrics::Rejection;

type Error = serde::de::value::Error;

/// Deeper documents are refused.
const DEPTH: usize = 128;

pub(super) fn decode(shape: &Shape, message: Arrival, out: &mut Decoded) {
    let mut rest = message.payload;
    let document = ciborium::de::from_reader_with_recursion_limit::<Value, _>(&mut rest, DEPTH);
    let read = document
        .is_ok_and(|document| rest.is_empty() && shape.pass(Item(&document), message.at, out).is_ok());
    if read {
        shape.conclude(out);
    } else {
        out.reject(Rejection::Unparseable);
    }
}

/// A part of a document. Tags say what a number or text stands for, and are passed over, save those of
/// numbers.
#[derive(Clone, Copy)]
struct Item<'a>(&'a Value);

impl<'de> IntoDeserializer<'de, Error> for Item<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Item<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Integer(number) => {
                let number = i128::from(*number);
                if let Ok(number) = i64::try_from(number) {
                    visitor.visit_i64(number)
                } else if let Ok(number) = u64::try_from(number) {
                    visitor.visit_u64(number)
                } else {
                    visitor.visit_f64(number as f64)
                }
            }
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Text(text) => visitor.visit_str(text),
            Value::Bytes(bytes) => visitor.visit_bytes(bytes),
            Value::Null => visitor.visit_unit(),
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.iter().map(Item))),
            Value::Map(members) => visitor.visit_map(MapDeserializer::new(
                members.iter().map(|(name, value)| (Item(name), Item(value))),
            )),
            Value::Tag(tag, inner) => match number(*tag, inner) {
                Some(number) => visitor.visit_f64(number),
                None => Item(inner).deserialize_any(visitor),
            },
            _ => Err(Error::custom("of a kind that is not known")),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// The numbers that tags make: large integers, and mantissas with an exponent of 10 or 2.
fn number(tag: u64, inner: &Value) -> Option<f64> {
    match (tag, inner) {
        (2 | 3, Value::Bytes(bytes)) => {
            let size = bytes.iter().fold(0.0, |size, byte| size * 256.0 + f64::from(*byte));
            Some(if tag == 2 { size } else { -1.0 - size })
        }
        (4 | 5, Value::Array(parts)) => {
            let [Value::Integer(exponent), mantissa] = parts.as_slice() else { return None };
            let exponent = i32::try_from(i128::from(*exponent)).ok()?;
            let mantissa = match mantissa {
                Value::Integer(mantissa) => i128::from(*mantissa) as f64,
                Value::Tag(tag, inner) => number(*tag, inner)?,
                _ => return None,
            };
            // By its digits, so that 2715 × 10⁻² is 27.15 and not beside it.
            if tag == 4 {
                format!("{mantissa}e{exponent}").parse().ok()
            } else {
                Some(mantissa * 2f64.powi(exponent))
            }
        }
        _ => None,
    }
}
