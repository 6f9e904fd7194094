//! Models as files: what is written comes back, what another made is read, and what is wrong is named.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;

use forecaster::features::{INPUT_NAMES, INPUTS};
use forecaster::kernel::{Network, Scratch};
use forecaster::weights::{Cell, Sizes, Weights};
use forecaster::{Model, Timestamp};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

/// A file taken apart, to be changed and put together again.
#[derive(Clone)]
struct File {
    header: HashMap<String, String>,
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
}

impl File {
    fn of(model: &Model) -> File {
        let bytes = model.to_safetensors().unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.tensors().into_iter();
        File {
            header: metadata.metadata().clone().unwrap(),
            tensors: tensors.map(|(n, t)| (n, t.dtype(), t.shape().to_vec(), t.data().to_vec())).collect(),
        }
    }

    fn with(mut self, key: &str, value: &str) -> File {
        self.header.insert(key.to_owned(), value.to_owned());
        self
    }

    fn without(mut self, key: &str) -> File {
        self.header.remove(key);
        self
    }

    fn changed(mut self, name: &str, change: impl FnOnce(&mut (String, Dtype, Vec<usize>, Vec<u8>))) -> File {
        change(self.tensors.iter_mut().find(|t| t.0 == name).unwrap());
        self
    }

    fn read(&self) -> Result<Model, String> {
        let views = self.tensors.iter().map(|(name, dtype, shape, data)| {
            (name.clone(), TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        let bytes = safetensors::serialize(views, Some(self.header.clone())).unwrap();
        Model::from_safetensors(&bytes).map_err(|e| e.to_string())
    }
}

fn sizes(cell: Cell) -> Sizes {
    Sizes { cell, inputs: INPUTS, hidden: 5, layers: 2 }
}

#[test]
fn models_of_every_cell_survive() {
    for cell in Cell::ALL {
        let networks = vec![Weights::random(sizes(cell), 4), Weights::random(sizes(cell), 5)];
        let model = Model::new(networks.clone()).with_trained_until(Timestamp(77));
        let file = File::of(&model);
        let read = file.read().unwrap();
        assert!(read.weights().eq(&networks), "{cell:?}");
        assert_eq!(read.trained_until(), Timestamp(77));
        assert_eq!(file.header["cell"], cell.name());
        assert_eq!(file.header.get("nonlinearity").map(String::as_str), cell.nonlinearity());
        assert_eq!(file.header["scaling"], "difference/scale");
        assert_eq!(file.header["inputs"], INPUT_NAMES.join(","));
    }
}

#[test]
fn what_is_absent_has_a_default() {
    let weights = Weights::random(sizes(Cell::Tanh), 4);
    let mut file = File::of(&Model::new(vec![weights.clone()]).with_trained_until(Timestamp(77)));
    for key in ["networks", "trained_until", "scaling", "nonlinearity", "shape"] {
        file = file.without(key);
    }
    let read = file.read().unwrap();
    assert!(read.weights().eq([&weights]));
    assert_eq!(read.trained_until(), Timestamp(i64::MIN));
}

#[test]
fn a_network_of_some_inputs_answers_as_it_would_alone() {
    let names = ["elapsed", "place", "naive_q95"];
    let small = Sizes { inputs: names.len(), ..sizes(Cell::Gru) };
    let weights = Weights::random(small, 4);
    let mut file = File::of(&Model::new(vec![weights.clone()])).with("inputs", "elapsed, place,naive_q95");
    let read = file.read().unwrap();
    let read = read.weights().next().unwrap();
    assert_eq!(read.sizes, sizes(Cell::Gru));
    let (alone, wide) = (Network::new(&weights), Network::new(read));
    let (mut a, mut b, mut scratch) = (alone.zero_state(), wide.zero_state(), Scratch::default());
    for step in 0..20 {
        let all: Vec<f32> = (0..INPUTS).map(|i| ((i * 7 + step * 3) % 11) as f32 / 5.0 - 1.0).collect();
        let some = names.map(|n| all[INPUT_NAMES.iter().position(|name| *name == n).unwrap()]);
        let (a, b) = (alone.step(&some, &mut a, &mut scratch), wide.step(&all, &mut b, &mut scratch));
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6), "{a:?} {b:?}");
    }
    file = file.with("inputs", "elapsed,place,elapsed");
    assert_eq!(file.read().unwrap_err(), "header entry `inputs` names `elapsed` twice");
    let error = file.with("inputs", "elapsed,humidity,place").read().unwrap_err();
    assert!(error.starts_with("header entry `inputs` names `humidity`, which"), "{error}");
    assert!(INPUT_NAMES.iter().all(|name| error.contains(name)), "{error}");
}

#[test]
fn what_is_wrong_is_named() {
    let file = File::of(&Model::new(vec![
        Weights::random(sizes(Cell::Lstm), 4),
        Weights::random(sizes(Cell::Lstm), 5),
    ]));
    let says = |file: File, expected: &str| {
        let error = file.read().unwrap_err();
        assert!(error.contains(expected), "{error}, expected {expected}");
    };
    let nan =
        |t: &mut (String, Dtype, Vec<usize>, Vec<u8>)| t.3[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    let name = "2.rnn.weight_ih_l0";
    says(file.clone().changed(name, nan), "tensor `2.rnn.weight_ih_l0` holds a value that is not finite");
    says(file.clone().changed(name, |t| t.0 = "x".to_owned()), "tensor `2.rnn.weight_ih_l0` is missing");
    says(
        file.clone().changed(name, |t| t.2.reverse()),
        "tensor `2.rnn.weight_ih_l0` is F32 of shape [37, 20], expected F32 of shape [20, 37]",
    );
    says(
        file.clone().changed("head.bias", |t| t.1 = Dtype::I32),
        "tensor `head.bias` is I32 of shape [7], expected F32 of shape [7]",
    );
    says(file.clone().with("networks", "1"), "tensors `2.head.bias`, `2.head.weight`, `2.rnn.bias_hh_l0`");
    says(file.clone().with("layers", "1"), "belong to no part of this model");
    says(file.clone().with("networks", "3"), "`networks`");
    says(file.clone().with("layers", "0"), "`layers`");
    says(file.clone().with("hidden", "99999999999999"), "`hidden`");
    says(file.clone().with("scaling", "levels"), "`scaling` is \"levels\", expected \"difference/scale\"");
    says(file.clone().with("cell", "gru"), "expected F32 of shape [15, 37]");
    says(file.clone().with("cell", "qrnn"), "`cell` = \"qrnn\"");
    says(file.clone().with("nonlinearity", "relu"), "`nonlinearity` = Some(\"relu\")");
    says(file.clone().with("trained_until", "now"), "`trained_until`");
    for key in ["cell", "hidden", "layers", "inputs"] {
        says(file.clone().without(key), &format!("header entry `{key}` is missing"));
    }
    let bytes = Model::new(vec![Weights::random(sizes(Cell::Lstm), 4)]).to_safetensors().unwrap();
    assert!(Model::from_safetensors(&bytes[..bytes.len() - 8]).is_err());
}
