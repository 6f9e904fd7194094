//! Random cases; a failing one is shrunk and printed.

use std::env;
use std::hash::{DefaultHasher, Hash, Hasher};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::case::cases;
use super::run::run;

/// In the order of the default, so that a run of the tests takes seconds.
const CASES: u32 = 500;

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |text| text.parse().unwrap())
}

fn runner(cases: u32) -> TestRunner {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number("VIDENTE_SIMULATION_SEED", 1).to_le_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 3000, ..Config::default() };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}

#[test]
fn nothing_that_may_happen_breaks_a_promise() {
    let mut runner = runner(number("VIDENTE_SIMULATIONS", CASES.into()).try_into().unwrap());
    let tried = runner.run(&cases(), |case| match run(&case).violation {
        None => Ok(()),
        Some(violation) => Err(TestCaseError::fail(violation)),
    });
    if let Err(TestError::Fail(reason, case)) = tried {
        if env::var_os("VIDENTE_SIMULATION_TRACE").is_some() {
            eprintln!("{}", run(&case).trace.join("\n"));
        }
        let ops: Vec<String> = case.ops.iter().map(|op| format!("    {op:?}")).collect();
        panic!("{reason}\nseed {}, {:?}, minimal case:\n{}", case.seed, case.setup, ops.join("\n"));
    }
}

#[test]
fn the_same_case_gives_the_same_trace() {
    let mut runner = runner(1);
    for _ in 0..50 {
        let case = cases().new_tree(&mut runner).unwrap().current();
        let trace = |_| {
            let mut hasher = DefaultHasher::new();
            run(&case).trace.hash(&mut hasher);
            hasher.finish()
        };
        let [first, second] = [0, 1].map(trace);
        assert_eq!(first, second, "{case:?}");
    }
}
