#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::record::{AnomalyChange, AnomalyKind, NewSeries, ReadingColumns};

const MANY: u64 = 1 << 30;

/// An entry of some readings, told from others by their time.
fn entry(time: i64, readings: usize) -> Entry {
    Entry {
        ids: vec![(3, 7)],
        readings: ReadingColumns {
            series: vec![3; readings],
            time: vec![time; readings],
            value: vec![0.1; readings],
            late: vec![false; readings],
        },
        ..Entry::default()
    }
}

fn spool(dir: &TempDir) -> Spool {
    Spool::open(dir.path(), MANY).unwrap()
}

/// Times of all readings, released as they are read.
fn drain(spool: &mut Spool) -> Vec<i64> {
    let mut times = Vec::new();
    while let Some((entry, end)) = spool.read().unwrap() {
        times.extend(entry.readings.time);
        spool.release(end);
    }
    times
}

fn files(dir: &TempDir, extension: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().path());
    let mut files: Vec<_> = all.filter(|p| p.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

#[test]
fn entries_come_out_in_order_and_leave_nothing_behind() {
    let dir = TempDir::new().unwrap();
    let mut spool = spool(&dir);
    assert!(spool.read().unwrap().is_none());
    for time in 0..10 {
        spool.append(&entry(time, 1)).unwrap();
        spool.append(&entry(time + 100, 2)).unwrap();
    }
    assert_eq!(spool.readings(), 30);
    let expected: Vec<i64> = (0..10).flat_map(|t| [t, t + 100, t + 100]).collect();
    assert_eq!(drain(&mut spool), expected);
    assert!(spool.is_empty());
    assert_eq!((spool.bytes(), spool.readings(), files(&dir, "spool").len()), (0, 0, 0));
    spool.append(&entry(50, 1)).unwrap();
    assert_eq!(drain(&mut spool), [50]);
}

#[test]
fn what_was_not_released_comes_out_again_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let mut first = spool(&dir);
    for time in 0..3 {
        // More than enough for one read each.
        first.append(&entry(time, 5000)).unwrap();
    }
    let (read, end) = first.read().unwrap().unwrap();
    assert_eq!((read.readings.time[0], read.readings()), (0, 5000));
    first.release(end);
    assert_eq!(first.readings(), 10_000);
    let (read, _) = first.read().unwrap().unwrap();
    assert_eq!(read.readings.time[0], 1);
    drop(first);
    let mut second = spool(&dir);
    second.append(&entry(3, 1)).unwrap();
    let mut times = drain(&mut second);
    times.dedup();
    assert_eq!(times, [0, 1, 2, 3]);
}

#[test]
fn an_entry_that_is_longer_than_what_is_read_at_once_comes_out_whole() {
    let dir = TempDir::new().unwrap();
    let mut spool = spool(&dir);
    spool.append(&entry(0, 200_000)).unwrap();
    spool.append(&entry(1, 1)).unwrap();
    assert!(spool.bytes() > 2 << 20);
    let (read, end) = spool.read().unwrap().unwrap();
    assert_eq!(read, entry(0, 200_000));
    spool.release(end);
    assert_eq!(drain(&mut spool), [1]);
}

#[test]
fn what_was_appended_while_a_write_was_under_way_is_released_alone() {
    let dir = TempDir::new().unwrap();
    let mut spool = spool(&dir);
    let end = spool.append(&entry(0, 1)).unwrap();
    spool.append(&entry(1, 1)).unwrap();
    spool.release(end);
    assert_eq!(spool.readings(), 1);
    assert_eq!(drain(&mut spool), [1]);
    // A place that was passed long ago releases nothing.
    spool.append(&entry(2, 1)).unwrap();
    spool.release(end);
    assert_eq!(drain(&mut spool), [2]);
}

#[test]
fn a_full_spool_says_so_and_has_room_once_a_segment_is_released() {
    let dir = TempDir::new().unwrap();
    let mut spool = Spool::open(dir.path(), 1 << 20).unwrap();
    let mut count = 0;
    while spool.append(&entry(count, 100)).is_ok() {
        count += 1;
    }
    assert!(matches!(spool.append(&entry(0, 100)), Err(SpoolError::Full)));
    assert!(spool.bytes() <= 1 << 20 && spool.bytes() > 1 << 19);
    assert!(files(&dir, "spool").len() >= 8);
    // An error has left nothing behind that would come out.
    let before = spool.readings();
    assert_eq!(before, u64::try_from(count).unwrap() * 100);
    for _ in 0..8 {
        let (_, end) = spool.read().unwrap().unwrap();
        spool.release(end);
    }
    spool.append(&entry(0, 100)).unwrap();
}

#[test]
fn one_process_at_a_time() {
    let dir = TempDir::new().unwrap();
    let first = spool(&dir);
    let error = Spool::open(dir.path(), MANY).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert!(error.to_string().contains(&format!("in use by process {}", std::process::id())), "{error}");
    drop(first);
    spool(&dir);
}

#[test]
fn a_file_of_another_version_is_refused_and_kept() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("00000000000000000007.spool"), b"vidspl9\nsomething").unwrap();
    let error = Spool::open(dir.path(), MANY).unwrap_err();
    assert!(error.to_string().contains("00000000000000000007.spool: not a spool of this version"), "{error}");
    assert_eq!(files(&dir, "spool").len(), 1);
}

#[test]
fn a_disk_that_fails_is_used_again_when_it_is_back() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("spool");
    let mut spool = Spool::open(&path, MANY).unwrap();
    fs::rename(&path, dir.path().join("away")).unwrap();
    assert!(matches!(spool.append(&entry(0, 1)), Err(SpoolError::Io(_))));
    assert!(spool.is_empty());
    fs::rename(dir.path().join("away"), &path).unwrap();
    spool.append(&entry(1, 1)).unwrap();
    assert_eq!(drain(&mut spool), [1]);
}

/// Three frames in one file, and where each begins.
fn three() -> (Vec<u8>, [usize; 4]) {
    let mut bytes = HEADER.to_vec();
    let mut places = [0; 4];
    for (n, place) in places.iter_mut().enumerate() {
        *place = bytes.len();
        if n < 3 {
            bytes.extend(encode(&entry(i64::try_from(n).unwrap(), 2)).unwrap());
        }
    }
    (bytes, places)
}

/// What a spool makes of the bytes of a file.
fn times_of(bytes: &[u8]) -> (Vec<i64>, usize) {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("00000000000000000000.spool"), bytes).unwrap();
    let mut spool = spool(&dir);
    let readings = spool.readings();
    let mut times = drain(&mut spool);
    assert_eq!(readings, times.len() as u64);
    times.dedup();
    (times, files(&dir, "damaged").len())
}

#[test]
fn a_file_that_is_cut_off_anywhere_gives_its_whole_frames() {
    let (bytes, places) = three();
    for length in 0..=bytes.len() {
        let whole = places.iter().skip(1).filter(|&&end| end <= length).count();
        let expected: Vec<i64> = (0..3).take(whole).collect();
        assert_eq!(times_of(&bytes[..length]), (expected, 0), "{length} bytes");
        // Room on the disk that was never written reads as zeros.
        let mut zeros = bytes[..length].to_vec();
        zeros.resize(length + 100, 0);
        if length >= HEADER.len() {
            // The last frame ends in some itself.
            let found = times_of(&zeros).0.len();
            assert!((whole..=whole + 1).contains(&found), "{length} bytes and zeros");
        }
    }
}

#[test]
fn a_damaged_frame_costs_itself_alone_and_the_file_is_kept() {
    let (bytes, places) = three();
    for at in places[0]..places[2] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        let lost = i64::from(at >= places[1]);
        let expected: Vec<i64> = (0..3).filter(|&n| n != lost).collect();
        assert_eq!(times_of(&damaged), (expected, 1), "byte {at}");
    }
}

#[test]
fn frames_that_hold_no_entry_are_left_out() {
    assert_eq!(decode(&[1, 2, 3]), None);
    let mut uneven = entry(0, 2);
    uneven.readings.late.pop();
    assert_eq!(decode(&postcard::to_stdvec(&uneven).unwrap()), None);
    let mut longer = postcard::to_stdvec(&entry(0, 2)).unwrap();
    longer.push(0);
    assert_eq!(decode(&longer), None);
}

/// A change of the record types changes the format: then [`HEADER`] needs another version.
#[test]
fn the_format_is_that_of_version_1() {
    let entry = Entry {
        ids: vec![(1, 300)],
        new_series: vec![NewSeries {
            handle: 2,
            key: "s/a/v".into(),
            stream: "s".into(),
            labels: [("x".to_owned(), "a".to_owned())].into(),
            field: "v".into(),
        }],
        readings: entry(-1, 1).readings,
        anomalies: vec![AnomalyChange::Ended { series: 1, time: 2, kind: AnomalyKind::Silence, ended_at: 3 }],
        ..Entry::default()
    };
    let hex: String = encode(&entry).unwrap().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        hex,
        "f576660a370000005234f070010000000101d804010205732f612f7601730101780161017601030101019a9999999999b93f\
         010000000000000000000000000000010101040106"
    );
    assert_eq!(decode(&encode(&entry).unwrap()[16..]), Some(entry));
}

proptest! {
    /// Whatever lies there, opening and reading end, without a panic.
    #[test]
    fn any_bytes_are_survived(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        insert in 0_usize..200,
    ) {
        let (mut whole, _) = three();
        let at = HEADER.len() + insert % (whole.len() - HEADER.len());
        whole.splice(at..at, bytes);
        let (times, _) = times_of(&whole);
        prop_assert!(times.is_sorted());
    }
}

#[test]
fn who_looks_at_a_folder_learns_who_uses_it_and_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let place = dir.path().join("spool");
    assert_eq!(holder(&place).unwrap(), Holder::Nobody);
    assert!(!place.exists());
    let mut spool = Spool::open(&place, MANY).unwrap();
    assert_eq!(holder(&place).unwrap(), Holder::Process(Some(std::process::id())));
    assert_eq!(used(&place), 0, "the lock is no entry");
    spool.append(&entry(1, 3)).unwrap();
    assert_eq!(used(&place), spool.bytes());
    drop(spool);
    assert_eq!(holder(&place).unwrap(), Holder::Nobody);
}
