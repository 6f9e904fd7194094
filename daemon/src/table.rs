//! A CSV of readings in the long form, `series,timestamp,value`, with every fault named by file and
//! line.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use forecaster::engine::MAX_VALUE;
use forecaster::{Reading, Timestamp};
use hashbrown::HashMap;

/// The columns that must be there, in any order.
const COLUMNS: [&str; 3] = ["series", "timestamp", "value"];

/// A row of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Position of its series among the names.
    pub series: usize,
    /// As it stood in the file.
    pub timestamp: String,
    /// Time and value.
    pub reading: Reading,
}

/// A file's readings, in its order, which is that of time within each series.
#[derive(Debug, Default, PartialEq)]
pub struct Table {
    /// Series, in the order in which they first appear.
    pub names: Vec<String>,
    /// Rows with a value.
    pub rows: Vec<Row>,
    /// How many of each series.
    pub lengths: Vec<usize>,
    /// Rows left out because their value was empty, and the line of the first.
    pub empty: Option<(usize, u64)>,
    /// Columns left out.
    pub ignored: Vec<String>,
}

impl Table {
    /// Reads a file.
    ///
    /// # Errors
    /// Names file, line and what is wrong.
    pub fn read(path: &Path) -> anyhow::Result<Table> {
        let name = path.display();
        let file = File::open(path).with_context(|| format!("{name}: cannot be read"))?;
        Table::from_reader(&name.to_string(), file)
    }

    /// Reads what a file of that name holds.
    ///
    /// # Errors
    /// Names file, line and what is wrong.
    pub fn from_reader(file: &str, bytes: impl Read) -> anyhow::Result<Table> {
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
        let header = reader.byte_headers().with_context(|| format!("{file}: line 1"))?.clone();
        ensure!(
            !header.is_empty(),
            "{file}: is empty; the first line must be the header series,timestamp,value"
        );
        let columns = columns(&header).with_context(|| format!("{file}: line 1"))?;
        let mut table = Table { ignored: names(&header), ..Table::default() };
        table.ignored.retain(|name| !COLUMNS.contains(&name.as_str()));
        let (mut known, mut last) = (HashMap::<String, usize>::new(), Vec::<Timestamp>::new());
        let mut record = csv::ByteRecord::new();
        loop {
            let more =
                reader.read_byte_record(&mut record).with_context(|| format!("{file}: cannot be read"))?;
            if !more {
                break;
            }
            let line = record.position().map_or(0, csv::Position::line);
            let at = || format!("{file}: line {line}");
            ensure!(
                record.len() == header.len(),
                "{}: has {} fields, the header has {}",
                at(),
                record.len(),
                header.len()
            );
            let field = |place: usize| std::str::from_utf8(record.get(place).unwrap_or_default());
            let [name, timestamp, value] = columns.map(field);
            let name = name.with_context(|| format!("{}: the series is not UTF-8", at()))?;
            let timestamp = timestamp.with_context(|| format!("{}: the timestamp is not UTF-8", at()))?;
            let value = value.with_context(|| format!("{}: the value is not UTF-8", at()))?;
            ensure!(!name.is_empty(), "{}: the series has no name", at());
            let time = time(timestamp).with_context(at)?;
            let series = *known.entry_ref(name).or_insert_with(|| {
                table.names.push(name.to_owned());
                table.lengths.push(0);
                last.push(Timestamp(i64::MIN));
                table.names.len() - 1
            });
            if let Some(last) = last.get_mut(series) {
                ensure!(*last != time, "{}: series \"{name}\" has two rows of {timestamp}", at());
                ensure!(*last < time, "{}: series \"{name}\" is not ordered by time; sort its rows", at());
                *last = time;
            }
            if value.trim().is_empty() {
                table.empty.get_or_insert((0, line)).0 += 1;
                continue;
            }
            let reading = Reading { time, value: number(value).with_context(at)? };
            table.lengths.get_mut(series).into_iter().for_each(|length| *length += 1);
            table.rows.push(Row { series, timestamp: timestamp.to_owned(), reading });
        }
        ensure!(!table.rows.is_empty(), "{file}: holds no readings below its header");
        Ok(table)
    }

    /// What was left out, for whoever gave the file.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.ignored.is_empty() {
            notes.push(format!("columns ignored: {}", self.ignored.join(", ")));
        }
        if let Some((rows, line)) = self.empty {
            notes.push(format!("{rows} rows without a value taken as missing, the first in line {line}"));
        }
        notes
    }
}

/// Where the three columns are.
fn columns(header: &csv::ByteRecord) -> anyhow::Result<[usize; 3]> {
    let mut places = [0; 3];
    for (place, wanted) in places.iter_mut().zip(COLUMNS) {
        let mut found = (0..).zip(header).filter(|(_, name)| *name == wanted.as_bytes()).map(|(i, _)| i);
        *place = match (found.next(), found.next()) {
            (Some(only), None) => only,
            (Some(_), Some(_)) => bail!("the header names the column {wanted} twice"),
            (None, _) => bail!(
                "the header has no column {wanted}: \"{}\"; it must be series,timestamp,value",
                names(header).join(",").chars().take(200).collect::<String>()
            ),
        };
    }
    Ok(places)
}

fn names(header: &csv::ByteRecord) -> Vec<String> {
    header.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

fn time(text: &str) -> anyhow::Result<Timestamp> {
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => Ok(Timestamp(time.as_microsecond())),
        Err(_) if text.parse::<jiff::civil::DateTime>().is_ok() => bail!(
            "\"{text}\" has no time zone; write for instance \"{}Z\" for UTC, or append the offset (+01:00)",
            text.trim()
        ),
        Err(_) => bail!("\"{text}\" is no RFC 3339 time; write for instance \"2026-11-23T10:00:00Z\""),
    }
}

fn number(text: &str) -> anyhow::Result<f64> {
    match text.trim().parse::<f64>() {
        Ok(value) if !value.is_finite() => {
            bail!("\"{text}\" is not finite; leave the value empty, or the row out, where it is missing")
        }
        Ok(value) if value.abs() > MAX_VALUE => bail!("\"{text}\" is beyond ±1e300"),
        Ok(value) => Ok(value),
        Err(_) => {
            bail!("\"{text}\" is no number; leave the value empty, or the row out, where it is missing")
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Table, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("in.csv");
        std::fs::write(&file, bytes).unwrap();
        Table::read(&file).map_err(|e| {
            let said = format!("{e:#}");
            said.split_once("in.csv: ").unwrap().1.to_owned()
        })
    }

    const HEAD: &str = "series,timestamp,value\n";
    const T: [&str; 3] = ["2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z"];

    #[test]
    fn faults_are_named_with_line_and_fix() {
        let [t0, t1, _] = T;
        for (body, expected) in [
            (String::new(), "is empty; the first line must be the header series,timestamp,value"),
            (HEAD.to_owned(), "holds no readings below its header"),
            (format!("{HEAD}a,{t0},\n"), "holds no readings below its header"),
            (
                format!("series,timestamp\na,{t0}\n"),
                "line 1: the header has no column value: \"series,timestamp\"; it",
            ),
            (
                format!("Series;timestamp;value\na;{t0};1\n"),
                "line 1: the header has no column series: \"Series;times",
            ),
            (
                format!("series,value,timestamp,value\na,1,{t0},1\n"),
                "line 1: the header names the column value twice",
            ),
            (format!("{HEAD}a,{t0},1\na,{t1}\n"), "line 3: has 2 fields, the header has 3"),
            (format!("{HEAD}a,{t0},1\na,{t1},1,5\n"), "line 3: has 4 fields, the header has 3"),
            (
                format!("{HEAD}a,{t1},1\na,{t0},1\n"),
                "line 3: series \"a\" is not ordered by time; sort its rows",
            ),
            (
                format!("{HEAD}a,{t1},1\na,{t1},1\n"),
                "line 3: series \"a\" has two rows of 2026-01-01T01:00:00Z",
            ),
            (
                format!("{HEAD}a,{t0},1\na,{t0},\n"),
                "line 3: series \"a\" has two rows of 2026-01-01T00:00:00Z",
            ),
            (format!("{HEAD}a,{t0},warm\n"), "line 2: \"warm\" is no number; leave"),
            (format!("{HEAD}a,{t0},\"1,5\"\n"), "line 2: \"1,5\" is no number; leave"),
            (format!("{HEAD}a,{t0},NaN\n"), "line 2: \"NaN\" is not finite; leave"),
            (format!("{HEAD}a,{t0},-inf\n"), "line 2: \"-inf\" is not finite; leave"),
            (format!("{HEAD}a,{t0},1e999\n"), "line 2: \"1e999\" is not finite; leave"),
            (format!("{HEAD}a,{t0},1e305\n"), "line 2: \"1e305\" is beyond ±1e300"),
            (format!("{HEAD},{t0},1\n"), "line 2: the series has no name"),
            (
                format!("{HEAD}a,2026-01-01T00:00:00,1\n"),
                "line 2: \"2026-01-01T00:00:00\" has no time zone; write for instance \"2026-01-01T00:00:00Z\" for UTC",
            ),
            (format!("{HEAD}a,2026-01-01 00:00,1\n"), "line 2: \"2026-01-01 00:00\" has no time zone; write"),
            (
                format!("{HEAD}a,1767225600,1\n"),
                "line 2: \"1767225600\" is no RFC 3339 time; write for instance",
            ),
            (format!("{HEAD}a,,1\n"), "line 2: \"\" is no RFC 3339 time; write for instance"),
        ] {
            let said = read(body.as_bytes()).unwrap_err();
            assert!(said.starts_with(expected), "{body:?}: {said}");
        }
        for (bytes, expected) in [
            (&b"\xff,2026-01-01T00:00:00Z,1\n"[..], "line 2: the series is not UTF-8"),
            (b"a,2026-01-01T\xff00:00:00Z,1\n", "line 2: the timestamp is not UTF-8"),
            (b"a,2026-01-01T00:00:00Z,1\xb0\n", "line 2: the value is not UTF-8"),
        ] {
            let said = read(&[HEAD.as_bytes(), bytes].concat()).unwrap_err();
            assert!(said.starts_with(expected), "{said}");
        }
        let said = format!("{:#}", Table::read(Path::new("/nonexistent/x.csv")).unwrap_err());
        assert!(said.starts_with("/nonexistent/x.csv: cannot be read: "), "{said}");
        assert!(format!("{:#}", Table::read(Path::new("/tmp")).unwrap_err()).starts_with("/tmp: "));
    }

    #[test]
    fn forms_that_files_come_in_are_the_same() {
        let [t0, t1, t2] = T;
        let plain = read(format!("{HEAD}a,{t0},1\nb,{t0},2.5\na,{t1},-3\n").as_bytes()).unwrap();
        assert_eq!(
            (plain.names.as_slice(), plain.lengths.as_slice()),
            (&["a".to_owned(), "b".to_owned()][..], &[2, 1][..])
        );
        assert!(plain.notes().is_empty());
        for body in [
            format!("\u{feff}{HEAD}a,{t0},1\nb,{t0},2.5\na,{t1},-3\n"),
            format!("{HEAD}a,{t0},1\nb,{t0},2.5\na,{t1},-3\n").replace('\n', "\r\n"),
            format!("\"series\",\"timestamp\",\"value\"\n\"a\",\"{t0}\",\"1\"\nb,{t0},2.5\n\na,{t1}, -3 "),
            format!("value,series,timestamp\n1,a,{t0}\n2.5,b,{t0}\n-3,a,{t1}\n"),
        ] {
            assert_eq!(read(body.as_bytes()).unwrap(), plain, "{body:?}");
        }
        // Series after series is as good.
        let grouped = read(format!("{HEAD}a,{t0},1\na,{t1},-3\nb,{t0},2.5\n").as_bytes()).unwrap();
        assert_eq!(grouped.lengths, plain.lengths);
        let noted = read(
            format!(
                "series,timestamp,unit,value\na,{t0},K,1\nb,{t0},K,2.5\nb,{t1},K,\na,{t1},K,-3\na,{t2},K, \n"
            )
            .as_bytes(),
        )
        .unwrap();
        assert_eq!(noted.rows, plain.rows);
        assert_eq!(
            noted.notes(),
            ["columns ignored: unit", "2 rows without a value taken as missing, the first in line 4"]
        );
    }
}
