//! Numbers that no double holds, at which `serde_json` gives up.

/// Stands, as a string, for such a number.
pub(super) const TOO_LARGE: &str = "\u{0}too large";

/// The document with each number beyond a double's range replaced by [`TOO_LARGE`].
pub(super) fn mark_too_large(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let mut in_string = false;
    while let Some(c) = rest.chars().next() {
        let token = if in_string {
            in_string = c != '"';
            // Whatever is escaped, it does not end the string.
            if c == '\\' { rest.chars().take(2).map(char::len_utf8).sum() } else { c.len_utf8() }
        } else if c == '-' || c.is_ascii_digit() {
            rest.find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E')).unwrap_or(rest.len())
        } else {
            in_string = c == '"';
            c.len_utf8()
        };
        let (token, after) = rest.split_at(token);
        if !in_string && token.parse::<f64>().is_ok_and(f64::is_infinite) {
            out.push_str(r#""\u0000too large""#);
        } else {
            out.push_str(token);
        }
        rest = after;
    }
    out
}
