//! Influx line protocol: `measurement,tag=value field=1.5,other=2i 1795428000000000000`, any number of
//! lines. Measurement and tags name a series, in the order of their names, and are its labels.
//!
//! Read by hand: the crates for it are not kept, or build values that would be thrown away.

use hashbrown::HashSet;

use super::decoded::{Decoded, Place, Span, Value};
use super::finite;
use crate::config::Precision;
use crate::metrics::Rejection;
use crate::topic;

/// Label that holds the measurement.
const MEASUREMENT: &str = "measurement";

/// A reader of lines.
#[derive(Debug)]
pub(super) struct Lines {
    /// Names of the fields that are wanted; empty means all.
    fields: HashSet<String>,
    precision: Precision,
}

/// Room for the tags of one line.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    tags: Vec<(Span, Span)>,
    /// What the names of the line's values begin with.
    scope: String,
    /// Name of a field.
    field: String,
}

/// The line is not as it should be.
struct Malformed;

/// A place in the text of a message.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn skip(&mut self, byte: u8) {
        while self.take(byte) {}
    }

    /// Whether the line is over.
    fn at_end(&self) -> bool {
        matches!(self.peek(), None | Some(b'\n'))
            || self.text.as_bytes().get(self.at..self.at + 2) == Some(b"\r\n")
    }

    /// What stands before the next of `stops` that no backslash is before, or before the line's end.
    fn token(&mut self, stops: &[u8]) -> &'a str {
        let start = self.at;
        while let Some(byte) = self.peek() {
            if stops.contains(&byte) || self.at_end() {
                break;
            }
            self.at += 1;
            if byte == b'\\' && !self.at_end() {
                // Whatever is escaped, it does not end the token. It may be the first byte of several.
                self.at += 1;
            }
        }
        self.slice(start)
    }

    /// A text in quotes, which may hold line breaks; none if it does not end.
    fn quoted(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some(())
    }

    fn slice(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn next_line(&mut self) {
        self.token(b"");
        self.at += if self.peek() == Some(b'\r') { 2 } else { 1 };
    }
}

impl Lines {
    pub(super) fn new(fields: &[String], precision: Precision) -> Lines {
        Lines { fields: fields.iter().cloned().collect(), precision }
    }

    pub(super) fn decode(&self, text: &str, out: &mut Decoded) {
        let mut cursor = Cursor { text, at: 0 };
        let mut empty = true;
        while cursor.peek().is_some() {
            cursor.skip(b' ');
            if !cursor.at_end() && cursor.peek() != Some(b'#') {
                empty = false;
                let start = cursor.at;
                let (values, rejections) = (out.values.len(), out.rejections.len());
                if self.line(&mut cursor, out).is_err() {
                    out.values.truncate(values);
                    out.rejections.truncate(rejections);
                    out.rejections.push(Rejection::Unparseable);
                    // Quotes that do not end would take the lines after it along.
                    cursor.at = start;
                }
            }
            cursor.next_line();
        }
        if empty {
            out.reject(Rejection::Unparseable);
        }
    }

    fn line(&self, cursor: &mut Cursor, out: &mut Decoded) -> Result<(), Malformed> {
        let mut scratch = std::mem::take(&mut out.influx);
        let (first, rejected) = (out.values.len(), out.rejections.len());
        let labels = out.next_label();
        let read = series(cursor, &mut scratch, out)
            .and_then(|()| self.fields(cursor, &mut scratch, out))
            .and_then(|()| self.time(cursor, (first, rejected), out));
        out.influx = scratch;
        let labels = (labels, out.next_label());
        out.values.iter_mut().skip(first).for_each(|value| value.labels = labels);
        read
    }

    /// The fields of a line, at no time so far.
    fn fields(&self, cursor: &mut Cursor, scratch: &mut Scratch, out: &mut Decoded) -> Result<(), Malformed> {
        loop {
            let name = cursor.token(b",= ");
            if name.is_empty() || !cursor.take(b'=') {
                return Err(Malformed);
            }
            scratch.field.clear();
            unescape(name, b",= ", &mut scratch.field);
            let wanted = self.fields.is_empty() || self.fields.contains(&scratch.field);
            match field_value(cursor)? {
                _ if !wanted => {}
                Some(Ok(value)) => {
                    let start = out.keep(&scratch.scope).start;
                    topic::push_part(&mut out.names, &scratch.field);
                    out.values.push(Value::new(Place::Leaf(start, out.names.len()), value));
                }
                Some(Err(reason)) => out.rejections.push(reason),
                // A text is no reading, unless it was asked for as one.
                None if self.fields.is_empty() => {}
                None => out.rejections.push(Rejection::NotANumber),
            }
            if !cursor.take(b',') {
                return Ok(());
            }
        }
    }

    /// The time that may end a line.
    fn time(
        &self,
        cursor: &mut Cursor,
        (first, rejected): (usize, usize),
        out: &mut Decoded,
    ) -> Result<(), Malformed> {
        if !cursor.at_end() && !cursor.take(b' ') {
            return Err(Malformed);
        }
        cursor.skip(b' ');
        if cursor.at_end() {
            return Ok(());
        }
        let number: i64 = cursor.token(b" ").parse().map_err(|_| Malformed)?;
        cursor.skip(b' ');
        if !cursor.at_end() {
            return Err(Malformed);
        }
        match micros(number, self.precision) {
            Some(time) => out.values.iter_mut().skip(first).for_each(|value| value.time = Some(time)),
            None => {
                let reasons = out.values.len() - first + out.rejections.len() - rejected;
                out.values.truncate(first);
                out.rejections.truncate(rejected);
                out.rejections.extend(std::iter::repeat_n(Rejection::BadTime, reasons));
            }
        }
        Ok(())
    }
}

/// A field's value; none if it is a text.
fn field_value(cursor: &mut Cursor) -> Result<Option<Result<f64, Rejection>>, Malformed> {
    if cursor.peek() == Some(b'"') {
        return cursor.quoted().map(|()| None).ok_or(Malformed);
    }
    let text = cursor.token(b", ");
    let number = match text {
        "t" | "T" | "true" | "True" | "TRUE" => 1.0,
        "f" | "F" | "false" | "False" | "FALSE" => 0.0,
        _ => match (text.strip_suffix('i'), text.strip_suffix('u')) {
            (Some(whole), _) => whole.parse::<i64>().map_err(|_| Malformed)? as f64,
            (_, Some(whole)) => whole.parse::<u64>().map_err(|_| Malformed)? as f64,
            _ => text.parse().map_err(|_| Malformed)?,
        },
    };
    Ok(Some(finite(number)))
}

fn micros(number: i64, precision: Precision) -> Option<i64> {
    match precision {
        Precision::Seconds => number.checked_mul(1_000_000),
        Precision::Milliseconds => number.checked_mul(1_000),
        Precision::Microseconds => Some(number),
        Precision::Nanoseconds => Some(number.div_euclid(1_000)),
    }
}

/// Appends a token without the backslashes before those characters that need one.
fn unescape(token: &str, escaped: &[u8], out: &mut String) {
    let mut rest = token;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        if !after.bytes().next().is_some_and(|next| escaped.contains(&next)) {
            out.push('\\');
        }
        // A backslash after a backslash escapes nothing.
        let (next, others) = after.split_at(after.chars().next().map_or(0, char::len_utf8));
        out.push_str(next);
        rest = others;
    }
    out.push_str(rest);
}

/// Measurement and tags of a line: the labels of its values, and what their names begin with
/// (`measurement/tag=value/`).
fn series(cursor: &mut Cursor, scratch: &mut Scratch, out: &mut Decoded) -> Result<(), Malformed> {
    let keep = |token: &str, escaped: &[u8], out: &mut Decoded| {
        let start = out.names.len();
        unescape(token, escaped, &mut out.names);
        Span { start, end: out.names.len() }
    };
    let Scratch { tags, scope, .. } = scratch;
    tags.clear();
    let measurement = cursor.token(b", ");
    if measurement.is_empty() {
        return Err(Malformed);
    }
    let measurement = keep(measurement, b", ", out);
    while cursor.take(b',') {
        let name = cursor.token(b",= ");
        if name.is_empty() || !cursor.take(b'=') {
            return Err(Malformed);
        }
        let value = cursor.token(b",= ");
        if value.is_empty() {
            return Err(Malformed);
        }
        tags.push((keep(name, b",= ", out), keep(value, b",= ", out)));
    }
    if !cursor.take(b' ') {
        return Err(Malformed);
    }
    cursor.skip(b' ');
    let names = &out.names;
    tags.sort_unstable_by(|a, b| a.0.of(names).cmp(b.0.of(names)));
    if tags.windows(2).any(|two| matches!(two, [a, b] if a.0.of(names) == b.0.of(names))) {
        return Err(Malformed);
    }
    scope.clear();
    topic::push_part(scope, measurement.of(names));
    for (name, value) in &*tags {
        scope.push('/');
        topic::push_part(scope, name.of(names));
        scope.push('=');
        topic::push_value(scope, value.of(names));
    }
    scope.push('/');
    let name = out.keep(MEASUREMENT);
    out.labels.push((name, measurement));
    out.labels.extend_from_slice(tags);
    Ok(())
}

#[cfg(test)]
#[path = "influx_tests.rs"]
mod tests;
