//! Prints readings as the harness's sensors publish them, as CSV, for what is trained on them elsewhere:
//! `cargo run -q --release -p vidente-tests --example readings -- SERIES READINGS`.

use anyhow::{Context, Result};
use vidente_tests::Feed;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number =
        || -> Result<usize> { Ok(arguments.next().context("usage: readings SERIES READINGS")?.parse()?) };
    let (series, readings) = (number()?, number()?);
    print!("{}", Feed::csv(series, 0..readings)?);
    Ok(())
}
