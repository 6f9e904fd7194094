//! Problems of configurations, each alone.
#![allow(clippy::unwrap_used, reason = "tests")]

use crate::config::Config;

const STREAM: &str = "[[stream]]\nname = \"a\"\ntopic = \"b/{x}\"\n";

#[test]
fn each_problem_is_found_alone() {
    for (text, expected) in [
        ("[mqtt]\nurl = 'http://h'", "mqtt.url: begins with http://"),
        ("[mqtt]\nurl = 'nonsense'", "mqtt.url: is no URL"),
        ("[mqtt]\nurl = 'mqtt://u:p@h'", "mqtt.url: holds credentials"),
        ("[mqtt]\nurl = 'mqtt://h/topic'", "mqtt.url: has something after"),
        ("[mqtt]\nclient_id = ''", "mqtt.client_id: is empty"),
        ("[mqtt]\nqos = 2", "mqtt.qos: 2 is not 0 or 1"),
        ("[mqtt]\nmax_packet_bytes = 10", "mqtt.max_packet_bytes: 10 is not"),
        ("[mqtt]\nkeep_alive = \"4s\"", "mqtt.keep_alive: 4s is not"),
        (
            "[mqtt]\npassword_file = '/proc/sys/kernel/ostype'",
            "mqtt.password_file: is set without mqtt.username",
        ),
        ("[mqtt]\nusername = 'u'\npassword_file = '/dev/null'", "mqtt.password_file: /dev/null is empty"),
        (
            "[mqtt]\nusername = 'u'\npassword_file = '/nonexistent'",
            "mqtt.password_file: /nonexistent cannot be read",
        ),
        (
            "[mqtt]\nusername = 'u'\npassword_file = '/'",
            "mqtt.password_file: / cannot be read (Is a directory",
        ),
        ("[mqtt]\nca_file = '/dev/null'", "mqtt.ca_file: is for TLS, but"),
        ("[mqtt]\nurl='mqtts://h'\ncert_file = '/dev/null'", "mqtt.cert_file: needs its other half"),
        ("[mqtt]\nurl='mqtts://h'\nkey_file = '/dev/null'", "mqtt.key_file: needs its other half"),
        ("[mqtt]\nurl='mqtts://h'\nca_file = '/dev/null'", "mqtt: /dev/null holds no certificate"),
        ("[store]\nurl = 'mysql://h'", "store.url: is no URL of a store"),
        ("[store]\nurl = 'postgres://u:p@h/d'", "store.url: holds a password"),
        ("[store]\nurl = 'postgres://u@h/d?password=p'", "store.url: holds a password"),
        ("[store]\nurl = 'postgres://u@h/d?sslmode=x'", "store.url: has a parameter that makes no sense"),
        ("[store]\nurl = 'postgres://u@h/d?sslmod=x'", "store.url: has the parameter sslmod"),
        ("[store]\npassword_file = '/dev/null'", "store.password_file: /dev/null is empty"),
        ("[store]\nca_file = '/dev/null'", "store: /dev/null holds no certificate"),
        ("[store]\ncert_file = '/dev/null'", "store.cert_file: needs its other half"),
        ("[store]\nurl = 'sqlite:///tmp/x.db'\nca_file = '/dev/null'", "store.ca_file: is for Postgres"),
        ("[http]\nkey_file = '/dev/null'", "http.key_file: needs its other half"),
        ("[http]\ncert_file = '/dev/null'\nkey_file = '/dev/null'", "http: /dev/null holds no certificate"),
        ("[http]\nallowed_hosts = ['https://h']", "http.allowed_hosts: \"https://h\" is no name of a host"),
        ("[http]\ntoken_file = '/proc/version'", "http.token_file: holds a character"),
        ("[http]\ntoken_file = '/dev/null'", "http.token_file: /dev/null is empty"),
        ("[store]\nurl = 'sqlite://'", "store.url: names no file"),
        ("[store]\nurl = 'sqlite:///nonexistent/x.db'", "store.url: the directory /nonexistent does not"),
        ("[store]\nurl = 'sqlite:///tmp'", "store.url: /tmp is a directory"),
        ("[store]\nretention = '0s'", "store.retention: is zero"),
        ("[store]\ncheckpoint_every = '0s'", "store.checkpoint_every: is zero"),
        ("[spool]\nmax_bytes = 1000", "spool.max_bytes: 1000 is less than 1048576"),
        ("[spool]\ndir = ''", "spool.dir: is empty"),
        ("[http]\nlisten = 'here'", "http.listen: \"here\" is no address"),
        ("[http]\nlisten = '1.2.3.4:99999'", "http.listen:"),
        ("[http]\ntoken_file = '/nonexistent'", "http.token_file: /nonexistent cannot be read"),
        ("[forecast]\ntopic = 'f'", "forecast.topic: \"f\" must hold {series} once"),
        ("[forecast]\ntopic = 'f/{series}/{series}'", "forecast.topic:"),
        ("[forecast]\ntopic = 'f/x{series}'", "forecast.topic:"),
        ("[forecast]\ntopic = 'f/+/{series}'", "forecast.topic: \"f/+/{series}\" cannot be published on"),
        ("[forecast]\ntopic = '{series}'", "forecast.topic: \"{series}\" has no level of its own"),
        (
            "[forecast]\ntopic = 'vidente/request/{series}'",
            "forecast.topic: \"vidente/request/{series}\" begins like",
        ),
        ("[homeassistant]\nprefix = ''", "homeassistant.prefix: \"\" is no beginning of a topic"),
        ("[homeassistant]\nprefix = 'ha/#'", "homeassistant.prefix: \"ha/#\" is no beginning"),
        ("[homeassistant]\nprefix = '/ha'", "homeassistant.prefix:"),
        ("[homeassistant]\nprefix = 'ha/'", "homeassistant.prefix:"),
        ("[homeassistant]\nprefix = '$SYS'", "homeassistant.prefix:"),
        ("[homeassistant]\nprefix = 'vidente/ha'", "homeassistant.prefix:"),
        ("[homeassistant]\nexpire_after = '59s'", "homeassistant.expire_after: is less than a minute"),
        ("[forecast]\ntopic = '{site}/{series}'", "forecast.topic: \"{site}/{series}\" holds braces besides"),
        ("[forecast]\ntopic = 'b/{series}'", "stream[0].topic: all topics of \"b/+\" are Vidente's own"),
        ("[model]\nnonlinearity = 'tanh'", "model.nonlinearity: is for cell = \"rnn\" only"),
        ("[model]\ncell = 'gru'\nnonlinearity = 'relu'", "model.nonlinearity: is for cell = \"rnn\" only"),
        ("[model]\nhidden = 0", "model.hidden: 0 is not from 1 to 256"),
        ("[model]\nlayers = 5", "model.layers: 5 is not from 1 to 4"),
        ("[limits]\nmax_series = 0", "limits.max_series: 0 is not"),
    ] {
        let problems = Config::parse(&format!("{text}\n{STREAM}")).unwrap().problems();
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        assert!(problems.concat().starts_with(expected), "{text}: {problems:?}");
    }
}

#[test]
fn streams_are_checked_one_by_one() {
    for (keys, expected) in [
        ("name = 'a b'\ntopic = 't'", "stream[1].name: \"a b\" must be made of"),
        ("name = 'a'\ntopic = 't'", "stream[1].name: \"a\" is taken"),
        ("name = 'c'\ntopic = 't'\nhorizon = 0", "stream[1].horizon: 0 is not from 1 to 1000"),
        ("name = 'c'\ntopic = 't'\nhorizon = 1001", "stream[1].horizon: 1001 is not"),
        ("name = 'c'\ntopic = 't'\ninterval = '0s'", "stream[1].interval: is zero"),
        (
            "name = 'c'\ntopic = 't'\npayload = 'number'\ntime = 'ts'",
            "stream[1].time: is set, but a bare number",
        ),
        ("name = 'c'\ntopic = 't'\npayload = 'number'\nfields = ['x']", "stream[1].fields: is set, but"),
        ("name = 'c'\ntopic = 't'\nfields = ['a..b']", "stream[1].fields[0]: \"a..b\" has an empty part"),
        ("name = 'c'\ntopic = 't'\nfields = ['a.b', '/a/b']", "stream[1].fields[1]: \"/a/b\" is named twice"),
        ("name = 'c'\ntopic = 't'\nfields = ['ts']\ntime = '/ts'", "stream[1].fields[0]: \"ts\" is the time"),
        ("name = 'c'\ntopic = 't'\ntime = ''", "stream[1].time: is empty"),
    ] {
        let problems = Config::parse(&format!("{STREAM}[[stream]]\n{keys}")).unwrap().problems();
        assert_eq!(problems.len(), 1, "{keys}: {problems:?}");
        assert!(problems.concat().starts_with(expected), "{keys}: {problems:?}");
    }
    assert!(Config::parse("").unwrap().problems().concat().starts_with("stream: there is none"));
}

#[test]
fn what_is_fine_passes() {
    for text in [
        "[mqtt]\nurl = 'mqtt://[::1]:1883'",
        "[mqtt]\nprotocol = 5",
        "[http]\nlisten = '[::1]:9464'",
        "[http]\nlisten = 'localhost:0'",
        "[store]\nurl = 'sqlite:///tmp/x.db'",
        "[forecast]\ntopic = 'site/{series}/forecast'",
        "[training]\nevery = 'off'",
        "[model]\ncell = 'gru'",
        "[model]\ncell = 'rnn'\nnonlinearity = 'relu'",
    ] {
        let problems = Config::parse(&format!("{text}\n{STREAM}")).unwrap().problems();
        assert!(problems.is_empty(), "{text}: {problems:?}");
    }
}
