//! The init system of a dev cluster: see [`rhumb_harness::supervise`].

use rhumb_harness::supervise;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["run", plan] => supervise::run(Path::new(plan)),
        ["exec", plan, daemon] => supervise::exec(Path::new(plan), daemon),
        _ => Err(anyhow::anyhow!(
            "usage: rhumb-supervise run PLAN | exec PLAN DAEMON"
        )),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rhumb-supervise: {error:#}");
            ExitCode::FAILURE
        }
    }
}
