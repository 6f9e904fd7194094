//! Requests as a foreign client makes them: `mosquitto_rr`.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::broker::Mosquitto;
use crate::net::free_port;
use crate::process::find_program;

/// Asks, and gives the answer. Over MQTT 5 its properties say where that goes and which it is, over 3.1.1 members of
/// the request do; in both ways the answer must come back with what came with the request.
///
/// # Errors
/// If no answer comes, or one to something else.
pub fn ask(broker: &Mosquitto, protocol: &str, kind: &str, body: &Value) -> Result<Value> {
    let text = body.to_string();
    ask_with_login(broker, protocol, kind, &text, None).with_context(|| format!("{kind} {text}"))
}

/// The same with any body and with user name and password.
///
/// # Errors
/// If no answer comes, or one to something else.
pub fn ask_with_login(
    broker: &Mosquitto,
    protocol: &str,
    kind: &str,
    body: &str,
    login: Option<(&str, &str)>,
) -> Result<Value> {
    // A port is taken by one test at a time.
    let number = free_port()?.to_string();
    let topic = format!("vidente/response/{number}");
    let mut command = Command::new(find_program(&["mosquitto_rr"], "mosquitto-clients")?);
    command.args(["-h", "127.0.0.1", "-p", &broker.port().to_string(), "-q", "1", "-W", "30", "-N"]);
    command.args(["-t", &format!("vidente/request/{kind}"), "-e", &topic]);
    if let Some((user, password)) = login {
        command.args(["-u", user, "-P", password]);
    }
    if protocol == "5" {
        command.args([
            "-V",
            "mqttv5",
            "-D",
            "publish",
            "correlation-data",
            &number,
            "-F",
            "%D %p",
            "-m",
            body,
        ]);
    } else {
        let mut body: Value = serde_json::from_str(body)?;
        body["response_topic"] = json!(topic);
        body["correlation"] = json!({ "number": number });
        command.args(["-V", "mqttv311", "-F", "%p", "-m", &body.to_string()]);
    }
    let out = command.output()?;
    let said = String::from_utf8(out.stdout)?;
    ensure!(out.status.success(), "mosquitto_rr: {} {}", out.status, String::from_utf8_lossy(&out.stderr));
    if protocol == "5" {
        let (correlation, answer) = said.split_once(' ').context("no correlation data")?;
        ensure!(correlation == number, "correlation data {correlation} instead of {number}");
        return Ok(serde_json::from_str(answer)?);
    }
    let mut answer: Value = serde_json::from_str(&said)?;
    let correlation = answer.as_object_mut().and_then(|a| a.remove("correlation"));
    ensure!(correlation == Some(json!({ "number": number })), "correlation {correlation:?}");
    Ok(answer)
}
