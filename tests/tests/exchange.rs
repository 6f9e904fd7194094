//! Models trained elsewhere, in PyTorch by `tests/models/make`: taken in and tried, promoted, given back; and
//! what they are trained on.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use vidente_tests::{
    Daemon, Dtype, Feed, Reading, Rig, Settings, Store, Subscriber, Tensor, Tensors, WAIT, vidente,
    wait_until,
};

const SERIES: usize = 5;
/// Readings of each series that the models were trained on, but for the latest 15 %.
const TRAINED_ON: usize = 400;

/// A file of `tests/models`.
fn made(name: &str) -> String {
    format!("{}/models/{name}.safetensors", env!("CARGO_MANIFEST_DIR"))
}

/// A reading of every series, of the values that the models were trained on.
fn publish(feed: &mut Feed, position: usize) -> Result<()> {
    feed.publish_with(position..position + 1, |reading| reading.payload_of(reading.jagged()))
}

/// A store, and `vidente models` on it.
struct Exchange {
    rig: Rig,
    settings: Settings,
    config: PathBuf,
}

impl Exchange {
    fn new() -> Result<Exchange> {
        let (rig, settings) = (Rig::new(Store::Sqlite)?, Settings::climate());
        let config = rig.configure(&settings)?.0;
        Ok(Exchange { rig, settings, config })
    }

    /// A store with readings of a daemon, which goes on.
    fn fed(positions: impl Iterator<Item = usize> + Clone) -> Result<(Exchange, Daemon)> {
        let exchange = Exchange::new()?;
        let mut daemon = exchange.rig.daemon(&exchange.settings)?;
        let mut feed = Feed::new(&exchange.rig.broker, SERIES, 1)?;
        positions.clone().try_for_each(|position| publish(&mut feed, position))?;
        feed.finish()?;
        daemon.wait_stored(SERIES * positions.count())?;
        Ok((exchange, daemon))
    }

    fn models(&self, args: &[&str]) -> Result<(Option<i32>, String, String)> {
        let config = self.config.to_str().context("path")?;
        let out = vidente(&[&["models"], args, &["--config", config]].concat())?;
        Ok((out.status.code(), String::from_utf8(out.stdout)?, String::from_utf8(out.stderr)?))
    }

    /// Standard output of a command that must succeed.
    fn done(&self, args: &[&str]) -> Result<String> {
        let (code, stdout, stderr) = self.models(args)?;
        ensure!(code == Some(0), "{args:?}: {stderr}");
        Ok(stdout)
    }

    fn import(&self, file: &str) -> Result<String> {
        self.done(&["import", file, "--stream", "climate"])
    }

    fn show(&self, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.done(&["show", name, "--json"])?)?)
    }

    fn export(&self, name: &str) -> Result<String> {
        let file = self.path(&format!("{name}.safetensors"))?;
        self.done(&["export", name, "--output", &file])?;
        Ok(file)
    }

    /// Of a file in the rig's folder.
    fn path(&self, name: &str) -> Result<String> {
        Ok(self.rig.dir().join(name).to_str().context("path")?.to_owned())
    }

    fn stored_models(&self) -> Result<i64> {
        self.rig.database(&self.settings)?.int("select count(*) from models")
    }
}

#[test]
fn what_pytorch_trained_is_tried_and_registered() -> Result<()> {
    let (exchange, mut daemon) = Exchange::fed(0..TRAINED_ON)?;
    for (version, (file, cell)) in
        [("lstm", "lstm"), ("gru", "gru"), ("rnn_relu", "rnn"), ("gru_of_five", "gru")]
            .into_iter()
            .enumerate()
    {
        let name = format!("climate-{}", version + 1);
        let said = exchange.import(&made(file))?;
        println!("{file}: {said}");
        assert!(said.starts_with(&format!("{name}: candidate, ")), "{said}");
        let model = exchange.show(&name)?;
        assert_eq!((&model["status"], &model["origin"]), (&"candidate".into(), &"imported".into()));
        assert_eq!((&model["cell"], &model["metrics"]["sizes"]["hidden"]), (&cell.into(), &8.into()));
        let reason = model["reason"].as_str().context("no reason")?;
        assert!(said.contains(reason), "{said}");
        // Its header says until when it learned, and those readings are not what it is tried on.
        let judged = &model["metrics"]["judged"];
        assert!(!reason.contains("may have learned from"), "{reason}");
        assert_eq!(judged["readings"], TRAINED_ON * SERIES * 15 / 100);
        assert_eq!(judged["against"], Value::Null);
        let figure = |part: &Value, name: &str| part[name].as_f64().with_context(|| name.to_owned());
        let error = figure(judged, "relative_error")?;
        assert!(error > 0.0 && error < 0.65, "{judged}");
        assert!((0.8..=1.0).contains(&figure(judged, "coverage")?), "{judged}");
        // What autoregressions do not learn they have learned; weights that are read in a wrong order have not.
        assert!(figure(judged, "loss")? < 0.95 * figure(&judged["opponent"], "loss")?, "{judged}");
        assert_eq!(judged["decision"]["won"], true, "{judged}");
        assert!(reason.ends_with(" % below that of the online experts alone"), "{reason}");
    }
    assert_eq!(exchange.stored_models()?, 4);
    // The same weights with their inputs named in a wrong order: hardly better than none.
    let (mut file, path) = (Tensors::read(&made("gru_of_five"))?, exchange.path("wrong.safetensors")?);
    let reversed = names_of_inputs(&file).into_iter().rev().collect::<Vec<_>>().join(",");
    file.header.insert("inputs".to_owned(), reversed);
    file.write(&path)?;
    exchange.import(&path)?;
    let better_by = |name: &str| -> Result<f64> {
        let model = exchange.show(name)?;
        model["metrics"]["judged"]["decision"]["better_by"].as_f64().context("no better_by")
    };
    let (right, wrong) = (better_by("climate-4")?, better_by("climate-5")?);
    assert!(wrong < right / 2.0, "{wrong} against {right}");
    daemon.stop()
}

#[test]
fn an_imported_model_forecasts_once_it_is_promoted_and_is_on_probation() -> Result<()> {
    let (exchange, mut daemon) = Exchange::fed(0..TRAINED_ON)?;
    let heard = Subscriber::new(&exchange.rig.broker, "vidente/forecast/#")?;
    let mut feed = Feed::new(&exchange.rig.broker, SERIES, 1)?;
    let mut published = TRAINED_ON;
    exchange.import(&made("gru_of_five"))?;
    publish(&mut feed, published)?;
    published += 1;
    // The retained forecasts of each series come first.
    let before = heard.wait_for(2 * SERIES)?;
    for message in before {
        assert_eq!(message.json()?["model"], "naive", "a candidate does not forecast");
    }
    exchange.done(&["promote", "climate-1"])?;
    wait_until("a forecast of the imported model", WAIT, || {
        publish(&mut feed, published)?;
        published += 1;
        std::thread::sleep(std::time::Duration::from_millis(100));
        Ok(heard.messages().last().context("nothing heard yet")?.json()?["model"] == "climate-1")
    })?;
    feed.finish()?;
    let metrics = daemon.wait_metrics("the probation", |m| m.sum("vidente_model_probation", &[]) == 1.0)?;
    assert_eq!(metrics.sum("vidente_model_version", &[]), 1.0);
    let model = exchange.show("climate-1")?;
    assert_eq!(model["status"], "champion");
    assert_eq!((&model["probation"], &model["promotions"][0]["status"]), (&true.into(), &"probation".into()));
    assert_eq!(model["promotions"][0]["previous"], Value::Null);
    daemon.stop()
}

#[test]
fn what_is_exported_imports_again_unchanged() -> Result<()> {
    let (exchange, mut daemon) = Exchange::fed(0..TRAINED_ON)?;
    daemon.stop()?;
    exchange.import(&made("gru_of_five"))?;
    let first = exchange.export("climate-1")?;
    exchange.import(&first)?;
    let second = exchange.export("climate-2")?;
    let (first, second) = (Tensors::read(&first)?, Tensors::read(&second)?);
    assert_eq!(first, second);
    // Replayed on the same readings, both made the same forecasts.
    let judged = |name: &str| -> Result<Value> { Ok(exchange.show(name)?["metrics"]["judged"].take()) };
    let judged_first = judged("climate-1")?;
    assert!(judged_first.is_object());
    assert_eq!(judged_first, judged("climate-2")?);
    the_weights_stayed(&Tensors::read(&made("gru_of_five"))?, &first)
}

fn names_of_inputs(file: &Tensors) -> Vec<&str> {
    file.header["inputs"].split(',').collect()
}

/// What was exported of a model that uses some inputs: its weights under all inputs, zero for the others.
fn the_weights_stayed(made: &Tensors, exported: &Tensors) -> Result<()> {
    const FIRST: &str = "rnn.weight_ih_l0";
    assert_eq!(made.header["inputs"], "trend,difference_2,day_cos,difference,place");
    assert_eq!(made.header["trained_until"], exported.header["trained_until"]);
    let (few, all) = (names_of_inputs(made), names_of_inputs(exported));
    assert!(all.len() > few.len());
    assert_eq!((made.shape(FIRST)?, exported.shape(FIRST)?), (&[24, few.len()][..], &[24, all.len()][..]));
    let (narrow, wide) = (made.floats(FIRST)?, exported.floats(FIRST)?);
    for (narrow, wide) in narrow.chunks_exact(few.len()).zip(wide.chunks_exact(all.len())) {
        for (name, weight) in all.iter().zip(wide) {
            let expected = few.iter().zip(narrow).find(|(few, _)| few == &name).map_or(0.0, |(_, w)| *w);
            assert_eq!(weight, &expected, "{name}");
        }
    }
    assert_eq!(made.tensors.len(), exported.tensors.len());
    for (name, tensor) in made.tensors.iter().filter(|(name, _)| *name != FIRST) {
        assert_eq!(Some(tensor), exported.tensors.get(name), "{name}");
    }
    Ok(())
}

#[test]
fn a_model_that_cannot_be_tried_is_registered_all_the_same() -> Result<()> {
    let exchange = Exchange::new()?;
    let said = exchange.import(&made("rnn_relu"))?;
    assert!(said.starts_with("climate-1: candidate, not tried: no readings are stored"), "{said}");
    let model = exchange.show("climate-1")?;
    assert_eq!((&model["status"], &model["origin"]), (&"candidate".into(), &"imported".into()));
    assert!(model["reason"].as_str().is_some_and(|r| r.starts_with("not tried")), "{model}");
    assert_eq!(model["metrics"].get("judged"), None);
    Ok(())
}

#[test]
fn a_model_that_does_not_say_until_when_it_learned_is_tried_and_that_is_said() -> Result<()> {
    let (exchange, mut daemon) = Exchange::fed(0..TRAINED_ON)?;
    daemon.stop()?;
    let (mut file, path) = (Tensors::read(&made("lstm"))?, exchange.path("undated.safetensors")?);
    file.header.remove("trained_until").context("no trained_until")?;
    file.write(&path)?;
    let said = exchange.import(&path)?;
    assert!(said.contains("(readings that it may have learned from)"), "{said}");
    let model = exchange.show("climate-1")?;
    assert_eq!((&model["window_end"], &model["metrics"]["judged"]["readings"]), (&Value::Null, &300.into()));
    Ok(())
}

/// A change of a file, and what is said of the file then.
type Fault = (Box<dyn Fn(&mut Tensors)>, &'static str);

fn header(key: &'static str, value: &'static str, says: &'static str) -> Fault {
    (Box::new(move |file| drop(file.header.insert(key.to_owned(), value.to_owned()))), says)
}

fn tensor(name: &'static str, change: impl Fn(&mut Tensor) + 'static, says: &'static str) -> Fault {
    (Box::new(move |file| file.tensors.get_mut(name).into_iter().for_each(&change)), says)
}

#[test]
fn what_is_wrong_with_a_file_is_said_and_nothing_is_stored() -> Result<()> {
    let exchange = Exchange::new()?;
    exchange.import(&made("lstm"))?;
    let good = Tensors::read(&made("lstm"))?;
    let bad = exchange.path("bad.safetensors")?;
    let refused = |file: &str, stream: &str, says: &str| -> Result<()> {
        let (code, stdout, stderr) = exchange.models(&["import", file, "--stream", stream])?;
        ensure!(code == Some(1), "{says}: {code:?} {stdout}");
        ensure!(stderr.contains(says), "{stderr}, expected {says}");
        ensure!(stderr.contains(if stream == "climate" { file } else { stream }), "names nothing: {stderr}");
        ensure!(exchange.stored_models()? == 1, "stored: {says}");
        Ok(())
    };
    let nan = |t: &mut Tensor| {
        t.data.iter_mut().zip(f32::NAN.to_le_bytes()).for_each(|(byte, nan)| *byte = nan);
    };
    let remove = |t: &'static str| move |file: &mut Tensors| drop(file.tensors.remove(t));
    let extra = |file: &mut Tensors| {
        let copy = file.tensors["head.bias"].clone();
        file.tensors.insert("head.scale".to_owned(), copy);
    };
    let faults: Vec<Fault> = vec![
        (Box::new(remove("rnn.bias_hh_l0")), "tensor `rnn.bias_hh_l0` is missing"),
        (Box::new(extra), "tensors `head.scale` belong to no part"),
        (Box::new(|file| drop(file.header.remove("hidden"))), "header entry `hidden` is missing"),
        (Box::new(|file| file.header.clear()), "header entry `inputs` is missing"),
        tensor(
            "head.weight",
            |t| t.shape.reverse(),
            "tensor `head.weight` is F32 of shape [8, 7], expected F32 of shape [7, 8]",
        ),
        tensor("head.bias", |t| t.dtype = Dtype::I32, "tensor `head.bias` is I32 of shape [7]"),
        tensor("rnn.weight_hh_l0", nan, "tensor `rnn.weight_hh_l0` holds a value that is not finite"),
        header("inputs", "place,humidity", "`inputs` names `humidity`"),
        header("inputs", "place,difference,place", "`inputs` names `place` twice"),
        header("cell", "transformer", "`cell` = \"transformer\""),
        header("nonlinearity", "relu", "for rnn only"),
        header("scaling", "level", "`scaling` is \"level\", expected \"difference/scale\""),
    ];
    for (change, says) in faults {
        let mut file = good.clone();
        change(&mut file);
        ensure!(file != good, "not changed: {says}");
        file.write(&bad)?;
        refused(&bad, "climate", says)?;
    }
    std::fs::write(&bad, "series,timestamp,value\n")?;
    refused(&bad, "climate", "not a safetensors file")?;
    std::fs::write(&bad, [])?;
    refused(&bad, "climate", "not a safetensors file")?;
    refused(&exchange.path("nowhere.safetensors")?, "climate", "cannot be read")?;
    refused(&made("lstm"), "attic", "there are: climate")
}

#[test]
fn a_csv_and_the_store_give_the_same_inputs() -> Result<()> {
    // A gap: nothing is to be learned of the step across it.
    let positions = (0..60).chain(70..120);
    let (exchange, mut daemon) = Exchange::fed(positions.clone())?;
    daemon.stop()?;
    let csv = exchange.path("readings.csv")?;
    let (of_csv, of_store) = (exchange.path("csv.safetensors")?, exchange.path("store.safetensors")?);
    std::fs::write(&csv, Feed::csv(SERIES, positions.clone())?)?;
    let out = vidente(&["models", "inputs", "--input", &csv, "--output", &of_csv])?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let said = String::from_utf8(out.stdout)?;
    assert!(said.starts_with("5 series: "), "{said}");
    exchange.done(&["inputs", "--stream", "climate", "--output", &of_store])?;
    let (of_csv, of_store) = (Tensors::read(&of_csv)?, Tensors::read(&of_store)?);
    let mut entries = of_csv.header.clone();
    entries.insert("series".to_owned(), of_store.header["series"].clone());
    assert_eq!(entries, of_store.header);
    for series in 0..SERIES {
        let name = format!("climate/hall/dev{series}/value");
        let of = |file: &Tensors| -> Result<_> {
            // In the store the series stand in the order in which they came.
            let names: Vec<String> = serde_json::from_str(&file.header["series"])?;
            assert_eq!(names.len(), SERIES);
            let at = names.iter().position(|n| *n == name).context("not in the file")?;
            let inputs = format!("series.{at}.inputs");
            assert_eq!(file.shape(&inputs)?, [110, names_of_inputs(file).len()]);
            let targets = file.floats(&format!("series.{at}.targets"))?;
            Ok((file.floats(&inputs)?, targets, file.integers(&format!("series.{at}.time"))?))
        };
        let (inputs, targets, times) = of(&of_csv)?;
        let (stored_inputs, stored_targets, stored_times) = of(&of_store)?;
        assert!(inputs.iter().all(|x| x.is_finite()));
        assert_eq!((inputs, &times), (stored_inputs, &stored_times));
        // Bits, since what is not known is not equal to itself.
        let bits = |targets: &[f32]| targets.iter().map(|t| t.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&targets), bits(&stored_targets));
        let micros = |position| Reading { series, position }.time() as i64 * 1_000_000;
        assert_eq!(times, positions.clone().map(micros).collect::<Vec<_>>());
        let unknown: Vec<usize> = (0..110).filter(|row| targets[*row].is_nan()).collect();
        assert_eq!(unknown, [0, 1, 2, 3, 4, 5, 6, 7, 59, 109], "the start, the gap, the end");
    }
    Ok(())
}
