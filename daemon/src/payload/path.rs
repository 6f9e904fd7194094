//! How a configuration names a field.

/// Members and indices on the way to a field, from a dotted path (`a.b.0`) or a JSON pointer
/// (`/a/b/0`; a member whose name holds a `.` can only be named this way).
pub(crate) fn path(text: &str) -> Result<Vec<String>, String> {
    if text.is_empty() {
        return Err("is empty; write for instance \"temperature\", \"a.b\" or \"/a/b\"".into());
    }
    if let Some(pointer) = text.strip_prefix('/') {
        return pointer.split('/').map(|token| unescape(token, text)).collect();
    }
    if text.split('.').any(str::is_empty) {
        return Err(format!(
            "\"{text}\" has an empty part; write for instance \"a.b\", or a JSON pointer such as \"/a.b\" \
             for a member whose name holds a dot"
        ));
    }
    Ok(text.split('.').map(str::to_owned).collect())
}

/// `~1` stands for `/` and `~0` for `~`, in that order (RFC 6901).
fn unescape(token: &str, whole: &str) -> Result<String, String> {
    if token.split('~').skip(1).any(|after| !after.starts_with(['0', '1'])) {
        return Err(format!("\"{whole}\" has a ~ that is neither ~0 (for ~) nor ~1 (for /)"));
    }
    Ok(token.replace("~1", "/").replace("~0", "~"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::path;

    #[test]
    fn dotted_paths_and_pointers() {
        assert_eq!(path("a.b.0").unwrap(), ["a", "b", "0"]);
        assert_eq!(path("/a/b/0").unwrap(), ["a", "b", "0"]);
        assert_eq!(path("/a.b/c~1d~0e~01").unwrap(), ["a.b", "c/d~e~1"]);
        assert_eq!(path("/").unwrap(), [""]);
        for wrong in ["", "a..b", ".a", "/a~2"] {
            assert!(path(wrong).is_err(), "{wrong}");
        }
    }
}
