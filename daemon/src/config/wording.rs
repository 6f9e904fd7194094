//! What libraries say of a configuration, in the words of [`super::Config::problems`].

/// What a library said of a key as `key: reason; fix`, the way [`Config::problems`] words its own.
pub(super) fn worded(key: &str, said: &str) -> String {
    if let Some((name, allowed)) =
        said.strip_prefix("unknown field `").and_then(|said| said.split_once("`, expected "))
    {
        // Of a file the key is that of the unknown one, of variables that of its section.
        let parent = key.strip_suffix(&format!(".{name}")).unwrap_or(if key == name { "" } else { key });
        let dot = if parent.is_empty() { "" } else { "." };
        let allowed = allowed.trim_start_matches("one of ").replace('`', "");
        return format!("{parent}{dot}{name}: unknown key; allowed here: {allowed}");
    }
    if let Some(name) = said.strip_prefix("missing field `").and_then(|said| said.strip_suffix('`')) {
        return format!("{key}.{name}: is missing; add it");
    }
    let typed = said.strip_prefix("invalid type: ").or_else(|| said.strip_prefix("invalid value: "));
    let reason = match typed.and_then(|said| said.split_once(", expected ")) {
        Some((found, expected)) => mistyped(found, expected),
        None => said.to_owned(),
    };
    if key.is_empty() { reason } else { format!("{key}: {reason}") }
}

/// What was found where something else was expected, in serde's words.
fn mistyped(found: &str, expected: &str) -> String {
    let number = |text: &str| text.parse::<f64>().is_ok();
    let quoted = found.strip_prefix("string \"").and_then(|text| text.strip_suffix('"'));
    let bare = found.split('`').nth(1);
    let (must, fix) = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => (
            "an integer from 0 up",
            match quoted.filter(|text| number(text)) {
                Some(text) => format!("write {text}, without quotes"),
                None => "write for instance 12".to_owned(),
            },
        ),
        "f64" => (
            "a number",
            match quoted.filter(|text| number(text)) {
                Some(text) => format!("write {text}, without quotes"),
                None => "write for instance 0.5".to_owned(),
            },
        ),
        "a boolean" => ("a boolean", "write true or false, without quotes".to_owned()),
        "a string" | "path string" => (
            "text",
            match bare {
                Some(bare) => format!("write \"{bare}\", in quotes"),
                None => "write it in quotes".to_owned(),
            },
        ),
        "a sequence" => (
            "a list",
            match quoted {
                Some(text) => format!("write [\"{text}\"]"),
                None if found == "map" => "write its name in double brackets, as in [[stream]]".to_owned(),
                None => "write it in brackets".to_owned(),
            },
        ),
        // What stands there instead may be a URL with a password.
        section if section.starts_with("struct ") => {
            return "must be a section; write its keys below its name in brackets".to_owned();
        }
        other => return format!("is {found}, but must be {other}"),
    };
    format!("is {found}, but must be {must}; {fix}")
}
