//! Passwords and tokens: read from files, and never shown.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Larger is no password, and a device may never end.
const MAX_BYTES: u64 = 16 * 1024;

/// What must not be logged: its `Debug` says nothing, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Secret(text.to_owned())
    }
}

impl Secret {
    /// Reads the only line of a file; the line break at its end does not belong to the secret.
    ///
    /// # Errors
    /// What is wrong with the file, and what to do; nothing of what it holds.
    pub fn read(file: &Path) -> Result<Secret, String> {
        let shown = file.display();
        let mut bytes = Vec::new();
        File::open(file)
            .and_then(|f| f.take(MAX_BYTES + 1).read_to_end(&mut bytes))
            .map_err(|e| format!("{shown} cannot be read ({e}); name a file that this user may read"))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(format!("{shown} holds more than {MAX_BYTES} bytes; write the secret alone into it"));
        }
        let text = String::from_utf8(bytes)
            .map_err(|_| format!("{shown} is not UTF-8; write the secret in UTF-8"))?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.trim().is_empty() {
            return Err(format!("{shown} is empty; write the secret into it"));
        }
        if text.contains(['\n', '\r', '\0']) {
            return Err(format!("{shown} holds more than one line; write the secret alone into it"));
        }
        Ok(Secret(text.to_owned()))
    }

    /// The secret itself, for whom it is meant.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_one_line_and_errors_tell_nothing_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        let read = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            Secret::read(&file)
        };
        for (bytes, expected) in [
            ("hunter2", "hunter2"),
            ("hunter2\n", "hunter2"),
            ("hunter2\r\n", "hunter2"),
            (" pass phrase ", " pass phrase "),
            ("pä§", "pä§"),
        ] {
            assert_eq!(read(bytes.as_bytes()).unwrap().expose(), expected);
        }
        let long = vec![b'x'; 20_000];
        for (bytes, expected) in [
            (b"".as_slice(), "is empty"),
            (b"\n", "is empty"),
            (b" \r\n", "is empty"),
            (b"hunter2\n\n", "more than one line"),
            (b"hunter2\nhunter3\n", "more than one line"),
            (b"hunter2\xff", "is not UTF-8"),
            (&long, "more than 16384 bytes"),
        ] {
            let error = read(bytes).unwrap_err();
            assert!(error.contains(expected) && error.contains("secret"), "{error}");
            assert!(!error.contains("hunter"), "{error}");
        }
        assert!(Secret::read(Path::new("/dev/zero")).unwrap_err().contains("more than"));
        assert!(Secret::read(Path::new("/nonexistent")).unwrap_err().contains("cannot be read"));
        assert_eq!(format!("{:?}", Some(Secret::from("hunter2"))), "Some(Secret(…))");
    }
}
